/*
 * globalstate.h
 *	  What the processes of a server share about global transactions.
 */
#ifndef RA_GLOBALSTATE_H
#define RA_GLOBALSTATE_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "shmem.h"

/* Committed transactions whose branches are finished, for recovery to note; what does not fit, it finds itself */
#define RA_DONE_MAX 16384

typedef struct RaDone
{
	Oid			dboid;
	uint64		number;
} RaDone;

/* One database's recovery */
typedef struct RaRecovery
{
	Oid			dboid;			/* InvalidOid: free */
	bool		epoch_noted;	/* in its table: transactions may be decided there */
	uint64		noted_at;		/* ra_boottime(), just before */
	pid_t		pid;			/* of the recovery worker; 0: none runs */
	int64		rounds;
	int64		committed;
	int64		aborted;
	int64		waiting;		/* branches that could not be finished in the last round */
	TimestampTz last_run;
	TimestampTz last_error_at;
	char		last_error[256];
} RaRecovery;

typedef struct RaGlobalState
{
	LWLock	   *lock;			/* protects all but the atomics */
	uint32		epoch;			/* of this run of the server; constant, never 0 */
	pg_atomic_uint64 number;	/* latest one given to a transaction */
	pg_atomic_uint64 admissions;	/* changes of the acceptor's file so far, see acceptor.c */
	int			ndone;
	RaDone		done[RA_DONE_MAX];
	RaRecovery	databases[RA_MAX_DATABASES];
} RaGlobalState;

extern RaGlobalState *ra_global_state;

extern void ra_global_shmem_request(void);
extern void ra_global_shmem_startup(void);

/* Under the lock.  NULL: there is none, or no room for one more. */
extern RaRecovery *ra_recovery_slot(Oid dboid, bool make);

/* A recovery worker's next round begins at once, if it has that process id */
extern void ra_recovery_wake(pid_t pid);

/* All branches of a transaction of this database, which has committed, are finished.  Never throws. */
extern void ra_global_done(uint64 number);

/*
 * The lock that a transaction has from before its first branch prepares until
 * its outcome can be seen in the table.  It goes with the process, and with the server.
 */
extern void ra_global_lock_tag(LOCKTAG *tag, uint64 number);

/* In pg_locks as objsubid */
#define RA_GLOBAL_LOCK_CLASS 21058

#endif							/* RA_GLOBALSTATE_H */
