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

/* The session ends within a transaction: so do its branches, before the locks that protect them */
extern void ra_global_end_of_session(void);

#endif							/* RA_GLOBAL_H */
