/*
 * xact.h
 *	  What the cluster does when (sub)transactions end, in order.
 */
#ifndef RA_XACT_H
#define RA_XACT_H

#include "postgres.h"

/* From now on in this session; cheap when it has been called before */
extern void ra_xact_register(void);

#endif							/* RA_XACT_H */
