/*
 * global.h
 *	  Global transactions: on every node or on none.
 */
#ifndef RA_GLOBAL_H
#define RA_GLOBAL_H

#include "postgres.h"

#include "access/xact.h"

/* Called by xact.c */
extern void ra_global_xact(XactEvent event);
extern void ra_global_subxact(SubXactEvent event);

#endif							/* RA_GLOBAL_H */
