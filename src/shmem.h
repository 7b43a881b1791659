/*
 * shmem.h
 *	  What the processes of a server share about risk_alert: one slot per
 *	  database that has (or may have) the extension.
 */
#ifndef RA_SHMEM_H
#define RA_SHMEM_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#ifndef RA_MAX_DATABASES		/* (a test has fewer) */
#define RA_MAX_DATABASES 128
#endif

typedef enum RaWorkerState
{
	RA_WORKER_NONE,				/* nothing runs; the launcher may start one */
	RA_WORKER_STARTING,			/* registered, not attached yet */
	RA_WORKER_RUNNING,
	RA_WORKER_NO_EXTENSION,		/* looked: database lacks the extension */
	RA_WORKER_FAILED			/* ended with an error; retried after a pause */
} RaWorkerState;

/*
 * A rule or a feature that could not be ended, and took the worker with it: the
 * next worker leaves it out until the stream has another version (score.c).
 */
#define RA_MAX_STUCK 8

typedef struct RaStuck
{
	int32		stream_id;		/* 0: free */
	bool		is_feature;
	int32		id;				/* rule_id or feature_id */
	int64		version;		/* of the stream's rule set */
} RaStuck;

/* Transactions that are about to commit changed configuration, see announce.c */
#define RA_MAX_CHANGING 16

typedef struct RaDatabase
{
	/* under RaShared->lock */
	Oid			dboid;			/* InvalidOid: free slot */
	RaWorkerState state;
	pid_t		worker_pid;
	int			holds;			/* > 0: worker must not run (DROP DATABASE ...) */
	int			failures;		/* failed starts in a row */
	TimestampTz next_start;		/* not before */
	TimestampTz started_at;
	char		last_error[256];

	/* set by the worker while it runs, NULL else; read without a lock */
	Latch	   *volatile worker_latch;

	/* the worker's own, left to its successor */
	RaStuck		stuck[RA_MAX_STUCK];
	uint32		nstuck;			/* so many were noted: the next one's place, modulo */

	/* free of locks */
	pg_atomic_uint32 queue_current; /* which of the queue tables takes events */
	pg_atomic_uint32 queue_touched[3];	/* by table: lowest block written to since
										 * the worker looked last */
	pg_atomic_uint32 queue_unsettled;	/* 0: it left no row whose transaction was open */
	pg_atomic_uint32 changing[RA_MAX_CHANGING]; /* transaction ids, 0: free */
	pg_atomic_uint32 prepared[RA_MAX_CHANGING]; /* as above */
	pg_atomic_uint64 drain_requested;	/* number of the latest drain() call */
	pg_atomic_uint64 drain_done;	/* all up to this one are answered */
	pg_atomic_uint64 caught_up; /* the session in which publications were caught up with, see catchup.c */
	pg_atomic_uint64 members_asked; /* a hash of who was a member when they were asked last */
	pg_atomic_uint64 catching_up;	/* TimestampTz since which events wait for that, 0: they don't */
	pg_atomic_uint32 rebuilding;	/* 1: the worker reads windows from a table */
	pg_atomic_uint64 batches;	/* statistics since server start */
	pg_atomic_uint64 events;
	pg_atomic_uint64 wakeups;
	pg_atomic_uint64 last_batch_at; /* TimestampTz */
	ConditionVariable drain_cv;		/* drain_done has grown */
	ConditionVariable worker_cv;	/* the worker has left the database */
} RaDatabase;

typedef struct RaShared
{
	LWLock	   *lock;			/* protects the slots' first part */
	Latch	   *volatile launcher_latch;
	bool		check_databases;	/* launcher: look at pg_database again */
	pg_atomic_uint64 arrived;	/* latest arrival handed out, see ra_arrival() */
	RaDatabase	databases[RA_MAX_DATABASES];
} RaShared;

/* NULL when the library was not preloaded */
extern RaShared *ra_shared;

extern void ra_shmem_request(void);
extern void ra_shmem_startup(void);

/* This database's slot, made if need be; NULL: not preloaded, or no slot is left */
extern RaDatabase *ra_my_database(void);

/* Wake this database's worker, if one runs.  Cheap; callable after commit. */
extern void ra_wake_worker(void);

/*
 * A number for the event at hand, larger than any given before: microseconds
 * as in timestamptz, made unique.  Works without shared memory (not unique
 * across sessions then).
 */
extern int64 ra_arrival(void);

/* ERROR with a hint unless the library was preloaded */
extern void ra_require_preload(void);

/*
 * For launcher, worker and utility.c: slots by database.  The caller holds
 * ra_shared->lock, exclusively to make or free one.  NULL: there is none, or
 * no room for another one.
 */
extern RaDatabase *ra_slot_find(Oid dboid);
extern RaDatabase *ra_slot_make(Oid dboid);
extern void ra_slot_free(RaDatabase *db);

/* Wake the launcher, if it runs; check: pg_database may have changed.  Takes the lock. */
extern void ra_wake_launcher(bool check);

#endif							/* RA_SHMEM_H */
