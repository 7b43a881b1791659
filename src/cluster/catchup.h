/*
 * catchup.h
 *	  What was published while this node was away.
 */
#ifndef RA_CATCHUP_H
#define RA_CATCHUP_H

#include "postgres.h"

#include "shmem.h"

/* For the worker, not in a transaction: must events wait until this node has caught up? */
extern bool ra_catch_up_hold(RaDatabase *db);

/* Do events wait for recovery to catch up?  Cheap. */
extern bool ra_catch_up_wanted(void);

/* Is there something for recovery to do about it, if only that others have become members? */
extern bool ra_catch_up_due(void);

/*
 * For recovery, in a transaction: tries to catch up; ERROR if it can't be done now.  What to
 * tell ra_catch_up_done() when it has committed.
 */
extern uint64 ra_catch_up(void);
extern void ra_catch_up_done(uint64 session);

/*
 * Names this node's session at the coordination service, for whoever is told it by the
 * list of members; empty: there is none
 */
extern void ra_catch_up_run(char *run, Size size);

#endif							/* RA_CATCHUP_H */
