/*
 * decision.h
 *	  How sessions reach the registers of the coordination service, through the
 *	  broker.
 */
#ifndef RA_DECISION_H
#define RA_DECISION_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "storage/lwlock.h"

#include "cluster/register.h"
#include "provider/provider.h"

/* In shared memory, with the lock table's */
extern Size ra_decisions_shmem_size(void);
extern void ra_decisions_shmem_startup(LWLock *lock);

/*
 * For the broker: what an earlier one has left is ended; what sessions ask for is
 * passed on; and the callbacks decided(), stands() and wake(), the last two on any thread.
 */
extern void ra_decisions_begin(void);
extern void ra_decisions_serve(const RaProviderOps *ops, RaProvider *provider);
extern void ra_decisions_answer(void *arg, void *owner, const char *value, const char *error);
extern void *ra_decisions_stands(void *arg, void *owner);
extern void ra_decisions_wake(void *arg, void *whom);

/*
 * For the leader's broker: once in a while removes old aborts, and commits that were finished.  Commits
 * that should have been by now are noted for this node's recovery.
 */
extern void ra_decisions_sweep(const RaProviderOps *ops, RaProvider *provider);
extern void ra_decisions_left(void *arg, const char *name, int namelen);

/* For recovery: are there any?  It takes them all (char *), and gives back what it can't judge */
extern bool ra_decisions_any_left(void);
extern List *ra_decisions_take_left(void);

/* Of these, one that is a commit and finished: it goes in its time.  Best effort, nobody waits for it. */
extern void ra_decisions_forget_left(const char *gid);

#endif							/* RA_DECISION_H */
