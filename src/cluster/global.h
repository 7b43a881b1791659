/*
 * global.h
 *	  Global transactions: on every node or on none.
 */
#ifndef RA_GLOBAL_H
#define RA_GLOBAL_H

#include "postgres.h"

#include "access/xact.h"

#include "cluster/branch.h"

/*
 * The statements that are about to be sent to these branches are their last ones: do PREPARE's go with them?  If so,
 * the branches have their names.  And then: an ERROR if that has taken too long.
 */
extern bool ra_global_prepare_early(RaBranch **branches, int n);
extern void ra_global_check_early(void);

/* Called by xact.c */
extern void ra_global_xact(XactEvent event);
extern void ra_global_subxact(SubXactEvent event);

/* The session ends within a transaction: so do its branches, before the locks that protect them */
extern void ra_global_end_of_session(void);

#endif							/* RA_GLOBAL_H */
