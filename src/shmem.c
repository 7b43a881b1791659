/*
 * shmem.c
 *	  What the processes of a server share about risk_alert, and the functions
 *	  that sessions use to talk to their database's worker.
 *
 * Locking.  ra_shared->lock protects which slot belongs to which database and
 * the first part of each slot.  It is held for a few instructions only: no I/O,
 * no waiting, nothing that can throw.  The rest of a slot is atomics, and
 * worker_latch, which is read without a lock: latches of processes live in
 * shared memory for good, so that the worst a stale pointer can do is to wake
 * somebody for nothing.
 *
 * A slot is made by whoever first needs it: the launcher, or a session of the
 * database.  It is freed when the database is dropped, or has turned out not
 * to have the extension.  A session caches the pointer to its slot; as a slot of a
 * database in use may be freed only in the second case, comparing dboid tells
 * whether the pointer is still good.  Should the slot change hands right after
 * the comparison, the session was about to wake a worker of a database
 * without the extension: harmless.
 *
 * Shared memory vanishes with a crash of any process; nothing here needs to
 * survive that.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "cluster/globalstate.h"
#include "cluster/locktable.h"
#include "cluster/nodestat.h"
#include "compat.h"
#include "engine/cache.h"
#include "risk_alert.h"
#include "shmem.h"

#define STATUS_COLUMNS 9

RaShared   *ra_shared = NULL;

PG_FUNCTION_INFO_V1(ra_require_preload_fn);
PG_FUNCTION_INFO_V1(ra_drain);
PG_FUNCTION_INFO_V1(ra_worker_status);

static long elapsed_ms(instr_time start);
static const char *status_name(RaDatabase *db);

void
ra_shmem_request(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(RaShared)));
	RequestAddinShmemSpace(ra_cache_shmem_size());
	ra_locktable_shmem_request();
	ra_nodestat_shmem_request();
	ra_global_shmem_request();
	RequestNamedLWLockTranche(RA_EXTENSION, 1);
}

void
ra_shmem_startup(void)
{
	bool		found;
	int			i;
	int			t;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ra_shared = ShmemInitStruct("risk_alert", sizeof(RaShared), &found);
	if (!found)
	{
		memset(ra_shared, 0, sizeof(RaShared));
		ra_shared->lock = &GetNamedLWLockTranche(RA_EXTENSION)->lock;
		pg_atomic_init_u64(&ra_shared->arrived, 0);
		for (i = 0; i < RA_MAX_DATABASES; i++)
		{
			RaDatabase *db = &ra_shared->databases[i];

			db->dboid = InvalidOid;
			pg_atomic_init_u32(&db->queue_current, 0);
			for (t = 0; t < (int) lengthof(db->queue_touched); t++)
				pg_atomic_init_u32(&db->queue_touched[t], 0);
			pg_atomic_init_u32(&db->queue_unsettled, 1);
			for (t = 0; t < RA_MAX_CHANGING; t++)
			{
				pg_atomic_init_u32(&db->changing[t], 0);
				pg_atomic_init_u32(&db->prepared[t], 0);
			}
			pg_atomic_init_u64(&db->drain_requested, 0);
			pg_atomic_init_u64(&db->drain_done, 0);
			pg_atomic_init_u64(&db->caught_up, 0);
			pg_atomic_init_u64(&db->members_asked, 0);
			pg_atomic_init_u64(&db->catching_up, 0);
			pg_atomic_init_u32(&db->rebuilding, 0);
			pg_atomic_init_u64(&db->batches, 0);
			pg_atomic_init_u64(&db->events, 0);
			pg_atomic_init_u64(&db->wakeups, 0);
			pg_atomic_init_u64(&db->last_batch_at, 0);
			ConditionVariableInit(&db->drain_cv);
			ConditionVariableInit(&db->worker_cv);
		}
	}
	ra_cache_shmem_startup();
	ra_locktable_shmem_startup();
	ra_nodestat_shmem_startup();
	ra_global_shmem_startup();
	LWLockRelease(AddinShmemInitLock);
}

RaDatabase *
ra_slot_find(Oid dboid)
{
	int			i;

	Assert(LWLockHeldByMe(ra_shared->lock));
	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		if (ra_shared->databases[i].dboid == dboid)
			return &ra_shared->databases[i];
	}
	return NULL;
}

RaDatabase *
ra_slot_make(Oid dboid)
{
	RaDatabase *db = ra_slot_find(dboid);
	int			i;

	Assert(LWLockHeldByMeInMode(ra_shared->lock, LW_EXCLUSIVE));
	if (db == NULL)
		db = ra_slot_find(InvalidOid);
	if (db == NULL || db->dboid == dboid)
		return db;

	db->state = RA_WORKER_NONE;
	db->worker_pid = 0;
	db->holds = 0;
	db->failures = 0;
	db->next_start = 0;
	db->started_at = 0;
	db->last_error[0] = '\0';
	db->worker_latch = NULL;
	memset(db->stuck, 0, sizeof(db->stuck));
	db->nstuck = 0;
	pg_atomic_write_u32(&db->queue_current, 0);
	for (i = 0; i < (int) lengthof(db->queue_touched); i++)
		pg_atomic_write_u32(&db->queue_touched[i], 0);
	pg_atomic_write_u32(&db->queue_unsettled, 1);
	pg_atomic_write_u64(&db->drain_requested, 0);
	pg_atomic_write_u64(&db->drain_done, 0);
	pg_atomic_write_u64(&db->caught_up, 0);
	pg_atomic_write_u64(&db->members_asked, 0);
	pg_atomic_write_u64(&db->catching_up, 0);
	pg_atomic_write_u64(&db->batches, 0);
	pg_atomic_write_u64(&db->events, 0);
	pg_atomic_write_u64(&db->wakeups, 0);
	pg_atomic_write_u64(&db->last_batch_at, 0);

	/* a session without the lock takes the slot for its own from here on */
	pg_write_barrier();
	db->dboid = dboid;
	return db;
}

void
ra_slot_free(RaDatabase *db)
{
	Assert(LWLockHeldByMeInMode(ra_shared->lock, LW_EXCLUSIVE));
	Assert(db->worker_pid == 0);
	db->dboid = InvalidOid;
	db->state = RA_WORKER_NONE;
	db->worker_latch = NULL;
}

void
ra_wake_launcher(bool check)
{
	Latch	   *latch;

	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	if (check)
		ra_shared->check_databases = true;
	latch = ra_shared->launcher_latch;
	LWLockRelease(ra_shared->lock);
	if (latch)
		SetLatch(latch);
}

RaDatabase *
ra_my_database(void)
{
	static RaDatabase *mine = NULL;

	if (ra_shared == NULL || !OidIsValid(MyDatabaseId))
		return NULL;
	if (mine && mine->dboid == MyDatabaseId)
		return mine;

	LWLockAcquire(ra_shared->lock, LW_SHARED);
	mine = ra_slot_find(MyDatabaseId);
	LWLockRelease(ra_shared->lock);
	if (mine == NULL)
	{
		LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
		mine = ra_slot_make(MyDatabaseId);
		LWLockRelease(ra_shared->lock);
		if (mine)
			ra_wake_launcher(true);
	}
	return mine;
}

void
ra_wake_worker(void)
{
	RaDatabase *db = ra_my_database();
	Latch	   *latch = db ? db->worker_latch : NULL;

	/*
	 * The caller's transaction has become visible before this.  Either the
	 * worker has announced its latch already, or it will take its first
	 * snapshot after announcing it; so a worker that we don't see here sees
	 * our events.  SetLatch() brings the memory barrier for the other case, in
	 * which the worker is about to sleep.
	 */
	if (latch)
		SetLatch(latch);
}

int64
ra_arrival(void)
{
	static int64 last = 0;
	int64		now = GetCurrentTimestamp();
	uint64		prev;

	if (ra_shared == NULL)
	{
		last = Max(last + 1, now);
		return last;
	}

	/* the clock may step back, arrivals never do */
	prev = pg_atomic_read_u64(&ra_shared->arrived);
	do
	{
		last = Max((int64) prev + 1, now);
	} while (!pg_atomic_compare_exchange_u64(&ra_shared->arrived, &prev, (uint64) last));
	return last;
}

void
ra_require_preload(void)
{
	if (ra_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("risk_alert must be loaded via shared_preload_libraries"),
				 errhint("Add it to the configuration, as in shared_preload_libraries = 'risk_alert', and restart the server.")));
}

/*
 * risk_alert._require_preload(): for the install script
 */
Datum
ra_require_preload_fn(PG_FUNCTION_ARGS)
{
	ra_require_preload();
	PG_RETURN_VOID();
}

/*
 * risk_alert.drain(timeout): wait until all events that had been committed
 * before the call are processed; false when that takes longer.
 *
 * We draw a number, which the worker reads before it takes a snapshot for its
 * next tick and publishes in drain_done once all that the snapshot shows is
 * processed.  So whatever was committed when we drew the number is included.
 */
Datum
ra_drain(PG_FUNCTION_ARGS)
{
	static uint32 wait_event = 0;
	Interval   *timeout = PG_GETARG_INTERVAL_P(0);
	RaDatabase *db;
	uint64		mine;
	double		limit;
	instr_time	start;
	bool		done;

	ra_require_preload();
	ra_check_version();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("events are not processed during recovery"),
				 errhint("Call drain() on the primary server.")));
	db = ra_my_database();
	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no worker can serve this database"),
				 errdetail("At most %d databases of a server can use risk_alert.", RA_MAX_DATABASES)));

	/* months count 30 days, as they do in comparisons of intervals */
	limit = timeout->time / 1000.0 +
		(timeout->day + timeout->month * (double) DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;

	INSTR_TIME_SET_CURRENT(start);
	mine = pg_atomic_fetch_add_u64(&db->drain_requested, 1) + 1;
	ra_wake_worker();

	ConditionVariablePrepareToSleep(&db->drain_cv);
	for (;;)
	{
		double		left;

		done = pg_atomic_read_u64(&db->drain_done) >= mine;
		left = limit - elapsed_ms(start);
		if (done || left <= 0)
			break;
		ConditionVariableTimedSleep(&db->drain_cv, (long) Min(left + 1, 3600000.0),
									ra_wait_event(&wait_event, "RiskAlertDrain"));
	}
	ConditionVariableCancelSleep();

	if (!done)
	{
		RaDatabase	now;

		LWLockAcquire(ra_shared->lock, LW_SHARED);
		now = *db;
		LWLockRelease(ra_shared->lock);
		if (now.worker_pid == 0 || now.state != RA_WORKER_RUNNING)
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("events of this database are not being processed"),
					 errdetail("The state of its worker is \"%s\".", status_name(&now)),
					 errhint("See the views risk_alert.stat_workers and pg_stat_activity, and the server log.")));
	}
	PG_RETURN_BOOL(done);
}

static long
elapsed_ms(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return (long) INSTR_TIME_GET_MILLISEC(now);
}

/*
 * risk_alert._worker_status(): one row per database that has the extension (or
 * is being looked at for it)
 */
Datum
ra_worker_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RaDatabase *copies;
	int			n = 0;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	if (ra_shared == NULL)
		PG_RETURN_NULL();

	copies = palloc(RA_MAX_DATABASES * sizeof(RaDatabase));
	LWLockAcquire(ra_shared->lock, LW_SHARED);
	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		RaDatabase *db = &ra_shared->databases[i];

		if (OidIsValid(db->dboid) && db->state != RA_WORKER_NO_EXTENSION)
			copies[n++] = *db;
	}
	LWLockRelease(ra_shared->lock);

	for (i = 0; i < n; i++)
	{
		RaDatabase *db = &copies[i];
		char	   *name = get_database_name(db->dboid);
		Datum		values[STATUS_COLUMNS];
		bool		nulls[STATUS_COLUMNS] = {false};
		NameData	datname;
		char	   *p;

		if (name == NULL)
			continue;			/* dropped meanwhile */
		namestrcpy(&datname, name);

		/* its text is in the encoding of the other database */
		if (db->dboid != MyDatabaseId)
		{
			for (p = db->last_error; *p; p++)
				if (IS_HIGHBIT_SET(*p))
					*p = '?';
		}

		values[0] = NameGetDatum(&datname);
		values[1] = Int32GetDatum((int32) db->worker_pid);
		nulls[1] = db->worker_pid == 0;
		values[2] = CStringGetTextDatum(status_name(db));
		values[3] = TimestampTzGetDatum(db->started_at);
		nulls[3] = db->worker_pid == 0;
		values[4] = Int64GetDatum((int64) pg_atomic_read_u64(&db->batches));
		values[5] = Int64GetDatum((int64) pg_atomic_read_u64(&db->events));
		values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&db->wakeups));
		values[7] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&db->last_batch_at));
		nulls[7] = pg_atomic_read_u64(&db->last_batch_at) == 0;
		values[8] = CStringGetTextDatum(db->last_error);
		nulls[8] = db->last_error[0] == '\0';
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	PG_RETURN_NULL();
}

static const char *
status_name(RaDatabase *db)
{
	if (db->holds > 0)
		return "paused";
	switch (db->state)
	{
		case RA_WORKER_NONE:
			return "waiting";
		case RA_WORKER_STARTING:
			return "starting";
		case RA_WORKER_RUNNING:
			return pg_atomic_read_u32(&db->rebuilding) ? "rebuilding" : "running";
		case RA_WORKER_NO_EXTENSION:
			return "no extension";
		case RA_WORKER_FAILED:
			return "failed";
	}
	return "unknown";
}
