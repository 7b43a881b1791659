/*
 * xact.h
 *	  What the cluster does when (sub)transactions end, in order.
 */
#ifndef RA_XACT_H
#define RA_XACT_H

#include "postgres.h"

/* Once, when the library is loaded */
extern void ra_xact_register(void);

#endif							/* RA_XACT_H */
