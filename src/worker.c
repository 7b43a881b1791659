/*
 * worker.c
 *	  The process that handles one database's events.
 *
 * The work itself is batch.c's; here is what keeps it going: attaching to the
 * database's slot, settings, waiting, errors, leaving.
 *
 * Attaching and leaving.  The worker enters its pid into the slot before it
 * connects to the database, and takes it out after it has left the list of
 * processes that work there (worker_detach()).  So whoever wants the database for
 * himself (utility.c) raises the slot's hold count, under the lock, and then
 * needs only look at worker_pid: if it is 0, no worker is inside, and one that
 * comes later sees the hold and goes away before it connects.
 *
 * No extension.  The launcher starts us in databases it knows nothing about.
 * If there is no extension, we say so in the slot, and nobody will look again
 * until CREATE EXTENSION takes that back when it commits.  It must not do so just before we say
 * it, so we say it first and look once more: either that look comes after the
 * commit and sees the extension, or CREATE EXTENSION comes after our word and
 * takes it back.
 *
 * DROP EXTENSION.  Each transaction of a batch locks the extension itself
 * (ra_worker_lock_extension()), by its OID, so it can't go away under the batch, and
 * one dropped and created anew is not mistaken for the old one.  Its tables'
 * relcache invalidations tell us when to look whether it is still there.
 *
 * Errors.  An error in a batch is logged, and the batch is tried again after a
 * pause that grows to ten seconds; the process stays.  Only FATAL ends it.
 *
 * Exit codes.  The postmaster never restarts a worker, whatever its exit code:
 * the launcher does, judging by the state that we leave in the slot.  So code 0
 * just means: no line in the server log.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "cluster/catchup.h"
#include "cluster/recovery.h"
#include "compat.h"
#include "engine/batch.h"
#include "engine/score.h"
#include "launcher.h"
#include "risk_alert.h"
#include "shmem.h"
#include "worker.h"

/*
 * The timed poll.  Sessions wake us when they commit, but nobody does when a
 * subscription's apply worker commits a prepared transaction, and batch.c may
 * have things to finish (a rotation that waits for a transaction to end).
 */
#define POLL_MS			1000
#define BUSY_POLL_MS	100		/* progress is to be written */
#define LAZY_POLL_MS	10000	/* nothing happens, and nothing can be prepared */
#define LAZY_AFTER_MS	60000	/* what "nothing happens" means */

/*
 * Under many small commits a batch for each would cost more than it is worth:
 * after so many batches in a row of fewer events than that, each with
 * more work waiting at its end, the worker takes what a millisecond gathers.
 */
#define CROWDED_BATCHES 8
#define CROWDED_EVENTS	64

/* between looks whether events may be taken; who has caught up wakes us */
#define HOLD_POLL_MS	200

/* the library and the extension differ in version: nothing can be done */
#define MISFIT_POLL_MS	60000

/* pauses after errors */
#define MIN_ERROR_PAUSE_MS	100
#define MAX_ERROR_PAUSE_MS	10000

/* so long in good health, and earlier failures are forgotten */
#define HEALTHY_MS		60000

/*
 * Settings of our own.  They are made after connecting, so override what ALTER
 * DATABASE or ALTER ROLE say, and as PGC_S_OVERRIDE, so a reload of the
 * configuration files doesn't touch them.  synchronous_commit is left to the
 * administrator.
 */
static const struct
{
	const char *name;
	const char *value;
}			settings[] =
{
	/* who we are */
	{"role", "none"},
	{"session_replication_role", "origin"},
	{"row_security", "on"},

	/* how names and values are read and written */
	{"search_path", "pg_catalog, pg_temp"},
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"lc_monetary", "C"},
	{"lc_numeric", "C"},
	{"lc_time", "C"},
	{"array_nulls", "on"},
	{"standard_conforming_strings", "on"},
	{"quote_all_identifiers", "off"},
	{"transform_null_equals", "off"},
	{"xmlbinary", "base64"},
	{"xmloption", "content"},

	/* what may end or refuse a transaction */
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{RA_GUC_TRANSACTION_TIMEOUT, "0"},
	{"exit_on_error", "off"},

	/* what queries of ours are run like: small ones */
	{"jit", "off"},
	{"max_parallel_workers_per_gather", "0"},
	{RA_GUC_DEBUG_PARALLEL, "off"},
	{"plan_cache_mode", "auto"},
};

/* Where we belong */
static Oid	my_dboid = InvalidOid;
static RaDatabase *my_slot = NULL;

/* What worker_detach() leaves in the slot */
static RaWorkerState exit_state = RA_WORKER_FAILED;
static char exit_error[sizeof(((RaDatabase *) 0)->last_error)] = "";

/* SIGTERM has come */
static volatile sig_atomic_t terminated = false;

/* The extension as found last */
static Oid	extension = InvalidOid;
static Oid	extension_marker = InvalidOid;	/* see ra_extension_marker() */
static bool extension_fits = false; /* it is of the library's version */
static bool extension_stale = true; /* look again */

static bool initialized = false;	/* ra_batch_init() was called */
static int	error_pause = 0;	/* ms; 0: the last batch went well */

static emit_log_hook_type prev_emit_log = NULL;

static void worker_sigterm(SIGNAL_ARGS);
static bool worker_attach(Oid dboid);
static void worker_detach(int code, Datum arg);
static void worker_emit_log(ErrorData *edata);
static void note_state(RaWorkerState state, const char *error);
static bool extension_look(void);
static void extension_invalidate(Datum arg, Oid relid);
static bool run_batch(void);
static bool look_after_cluster(void);
static void check_signals(void);
static void wait_for_work(long ms);
static void nap(void);

void
ra_worker_main(Datum main_arg)
{
	TimestampTz busy_at;
	int			crowded = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, worker_sigterm);
	BackgroundWorkerUnblockSignals();

	/* no slot, one with a worker, or one that is held: not needed (any more) */
	if (!worker_attach(DatumGetObjectId(main_arg)))
		proc_exit(0);
	prev_emit_log = emit_log_hook;
	emit_log_hook = worker_emit_log;

	BackgroundWorkerInitializeConnectionByOid(my_dboid, InvalidOid, 0);
	ra_worker_settings("risk_alert worker");
	CacheRegisterRelcacheCallback(extension_invalidate, (Datum) 0);

	if (!extension_look())
	{
		/* in this order: see the top of this file */
		note_state(RA_WORKER_NO_EXTENSION, NULL);
		if (!extension_look())
		{
			exit_state = RA_WORKER_NO_EXTENSION;
			proc_exit(0);		/* nothing to do here */
		}
	}
	note_state(RA_WORKER_RUNNING, NULL);

	busy_at = GetCurrentTimestamp();
	for (;;)
	{
		bool		more = false;
		bool		lazy;
		TimestampTz now;
		uint64		events;

		check_signals();

		if (extension_stale)
		{
			Oid			before = extension;

			if (!extension_look() || extension != before)
			{
				/*
				 * Dropped; perhaps created anew, but all we remember is of
				 * the old one.  The launcher sends another worker to see.
				 */
				exit_state = RA_WORKER_NONE;
				memset(my_slot->stuck, 0, sizeof(my_slot->stuck));
				proc_exit(0);
			}
		}
		if (!extension_fits)
		{
			/* whoever wakes us may have run ALTER EXTENSION, perhaps by COMMIT PREPARED */
			pg_atomic_write_u32(&my_slot->queue_unsettled, 1);
			wait_for_work(MISFIT_POLL_MS);
			extension_stale = true;
			continue;
		}

		if (!look_after_cluster())
		{
			wait_for_work(HOLD_POLL_MS);
			continue;
		}
		now = GetCurrentTimestamp();
		events = pg_atomic_read_u64(&my_slot->events);
		more = run_batch();
		events = pg_atomic_read_u64(&my_slot->events) - events;
		if (events > 0)
			busy_at = now;
		if ((more || extension_stale) && error_pause == 0)
			continue;

		/* many commits, each with few events: let some gather */
		if (events > 0 && events < CROWDED_EVENTS && MyLatch->is_set && error_pause == 0)
		{
			if (++crowded > CROWDED_BATCHES)
				nap();
			continue;
		}
		crowded = 0;

		lazy = max_prepared_xacts == 0 &&
			now >= TimestampTzPlusMilliseconds(busy_at, LAZY_AFTER_MS);
		if (error_pause == 0)
			wait_for_work(ra_batch_waiting() ? BUSY_POLL_MS : lazy ? LAZY_POLL_MS : POLL_MS);
		else
		{
			TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), error_pause);
			long		left;

			/* commits that wake us don't shorten the pause; a clock set back ends it */
			for (;;)
			{
				left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
				if (left <= 0 || left > error_pause)
					break;
				wait_for_work(left);
				check_signals();
			}
		}
	}
}

bool
ra_worker_lock_extension(void)
{
	Assert(IsTransactionState());

	if (!OidIsValid(extension))
		return false;

	/* this reads invalidations, so that the flag is right afterwards */
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	if (extension_stale)
	{
		Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
		SysScanDesc scan;
		ScanKeyData key;
		bool		found;

		/* it stays stale: the main loop sees to the rest */
		ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(extension));
		scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
		found = HeapTupleIsValid(systable_getnext(scan));
		systable_endscan(scan);
		table_close(rel, AccessShareLock);
		return found;
	}
	return true;
}

bool
ra_worker_must_leave(void)
{
	return my_slot != NULL && *(volatile int *) &my_slot->holds > 0;
}

/*
 * As die(), which ends us at the next CHECK_FOR_INTERRUPTS(), in the middle of
 * a batch too; but remember that this is no failure.
 */
static void
worker_sigterm(SIGNAL_ARGS)
{
	terminated = true;
	die(postgres_signal_arg);
}

/* Make the slot ours; false: not to be */
static bool
worker_attach(Oid dboid)
{
	RaDatabase *db;
	bool		ours = false;

	my_dboid = dboid;
	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	db = ra_slot_find(dboid);
	if (db && db->worker_pid == 0)
	{
		if (db->holds > 0)
			db->state = RA_WORKER_NONE; /* later, then */
		else
		{
			db->state = RA_WORKER_STARTING;
			pg_atomic_write_u32(&db->rebuilding, 0);	/* its predecessor's last word */
			db->worker_pid = MyProcPid;
			db->worker_latch = MyLatch;
			db->started_at = GetCurrentTimestamp();
			ours = true;
		}
	}
	LWLockRelease(ra_shared->lock);

	if (ours)
	{
		my_slot = db;

		/*
		 * Registered before we connect, so called after the server's own
		 * callback that takes us out of the list of processes.
		 */
		on_shmem_exit(worker_detach, (Datum) 0);
	}
	return ours;
}

static void
worker_detach(int code, Datum arg)
{
	ra_recovery_leave();
	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	if (my_slot->dboid == my_dboid && my_slot->worker_pid == MyProcPid)
	{
		TimestampTz now = GetCurrentTimestamp();

		my_slot->worker_latch = NULL;
		my_slot->worker_pid = 0;
		if (exit_error[0])
			strlcpy(my_slot->last_error, exit_error, sizeof(my_slot->last_error));

		/* who was asked to go has not failed: back at once */
		if (exit_state == RA_WORKER_FAILED && terminated)
			exit_state = RA_WORKER_NONE;
		if (exit_state != RA_WORKER_FAILED ||
			now >= TimestampTzPlusMilliseconds(my_slot->started_at, HEALTHY_MS))
			my_slot->failures = 0;
		my_slot->next_start = now;
		if (exit_state == RA_WORKER_FAILED)
		{
			my_slot->failures++;
			my_slot->next_start =
				TimestampTzPlusMilliseconds(now, ra_restart_delay(my_slot->failures));
		}

		/* CREATE EXTENSION may have had the last word */
		if (exit_state != RA_WORKER_NO_EXTENSION)
			my_slot->state = exit_state;
	}
	LWLockRelease(ra_shared->lock);

	ConditionVariableBroadcast(&my_slot->worker_cv);
	ra_wake_launcher(false);
}

/* Note what we die of, for the slot */
static void
worker_emit_log(ErrorData *edata)
{
	if (edata->elevel >= FATAL && !terminated && edata->message)
	{
		/* it reads as if an administrator had ended us */
		if (ra_score_gave_up())
		{
			edata->message = MemoryContextStrdup(edata->assoc_context, ra_score_gave_up());
			edata->hint = MemoryContextStrdup(edata->assoc_context,
											  "It is left out from now on, until the rules of its stream are altered.");
		}
		strlcpy(exit_error, edata->message, sizeof(exit_error));
	}
	if (prev_emit_log)
		prev_emit_log(edata);
}

void
ra_worker_settings(const char *application_name)
{
	int			i;

	for (i = 0; i < (int) lengthof(settings); i++)
	{
		if (settings[i].name)
			SetConfigOption(settings[i].name, settings[i].value, PGC_SUSET, PGC_S_OVERRIDE);
	}
	SetConfigOption("application_name", application_name, PGC_SUSET, PGC_S_OVERRIDE);

	/* there is no client: text stays as it is */
	SetConfigOption("client_encoding", GetDatabaseEncodingName(), PGC_SUSET, PGC_S_OVERRIDE);
}

static void
note_state(RaWorkerState state, const char *error)
{
	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	if (my_slot->dboid == my_dboid && my_slot->worker_pid == MyProcPid)
	{
		my_slot->state = state;
		if (error)
		{
			int			len = pg_mbcliplen(error, strlen(error), sizeof(my_slot->last_error) - 1);

			memcpy(my_slot->last_error, error, len);
			my_slot->last_error[len] = '\0';
		}
	}
	LWLockRelease(ra_shared->lock);
}

/*
 * Find the extension; false: there is none.  Complains once about a version
 * that isn't ours.
 */
static bool
extension_look(void)
{
	static char complained[64] = "";
	char	   *version = NULL;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	/* an invalidation that comes while we look makes us look again */
	extension_stale = false;
	extension_marker = ra_extension_marker();
	extension = ra_extension_oid(&version);
	extension_fits = OidIsValid(extension) && strcmp(version, RA_VERSION) == 0;
	if (OidIsValid(extension) && !extension_fits && strcmp(version, complained) != 0)
	{
		char		message[sizeof(my_slot->last_error)];

		strlcpy(complained, version, sizeof(complained));
		snprintf(message, sizeof(message),
				 "extension \"%s\" has version %s here, but the server has loaded its library of version %s",
				 RA_EXTENSION, version, RA_VERSION);
		note_state(RA_WORKER_RUNNING, message);
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", message),
				 errdetail("Events of this database wait until the versions agree; this message is not repeated."),
				 errhint("Run ALTER EXTENSION risk_alert UPDATE; if the library is the older one, restart the server.")));
	}
	CommitTransactionCommand();
	return OidIsValid(extension);
}

static void
extension_invalidate(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == extension_marker)
		extension_stale = true;
}

/*
 * One batch, whatever may happen in it; true: there is more to do right now.
 */
static bool
run_batch(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool more = false;

	pgstat_report_activity(STATE_RUNNING, "risk_alert: processing events");
	PG_TRY();
	{
		/* each transaction of the batch begins now, as now() tells */
		SetCurrentStatementStartTimestamp();
		if (!initialized)
		{
			StartTransactionCommand();
			ra_batch_init();
			CommitTransactionCommand();
			initialized = true;
		}
		more = ra_batch_run(my_slot);
		if (error_pause != 0)
		{
			error_pause = 0;
			note_state(RA_WORKER_RUNNING, NULL);
		}
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		HOLD_INTERRUPTS();
		error_context_stack = NULL;
		disable_all_timeouts(false);
		QueryCancelPending = false;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		EmitErrorReport();
		AbortCurrentTransaction();
		if (!IsTransactionState())
			LWLockReleaseAll();
		FlushErrorState();
		MemoryContextSwitchTo(cxt);

		error_pause = error_pause == 0 ? MIN_ERROR_PAUSE_MS
			: Min(error_pause * 2, MAX_ERROR_PAUSE_MS);
		note_state(RA_WORKER_FAILED, edata->message);
		FreeErrorData(edata);

		/* it may have come of the extension's going away */
		extension_stale = true;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	/* what it declines to report now, it will after the next poll */
	(void) pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	return more;
}

/*
 * False: events must wait until this node has caught up with the others.  Trouble with
 * global transactions must not hold them up.
 */
static bool
look_after_cluster(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool hold = false;

	PG_TRY();
	{
		hold = ra_catch_up_hold(my_slot);
		ra_recovery_tick();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		error_context_stack = NULL;
		QueryCancelPending = false;
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		extension_stale = true;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return !hold;
}

/* Leave if asked to, reload the configuration if told to */
static void
check_signals(void)
{
	if (terminated || ra_worker_must_leave())
	{
		exit_state = RA_WORKER_NONE;
		ra_recovery_leave();
		proc_exit(0);			/* nothing wrong; the launcher knows when to start another */
	}

	/* a cancel request is meant for what runs, and nothing does */
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/*
 * A millisecond in which commits don't wake us.  What they bring is seen right
 * after it, by a snapshot that is taken when our latch can be found again.
 */
static void
nap(void)
{
	my_slot->worker_latch = NULL;
	ResetLatch(MyLatch);
	wait_for_work(1);
	my_slot->worker_latch = MyLatch;
	pg_memory_barrier();
}

/* Sleep until woken, or for that long */
static void
wait_for_work(long ms)
{
	static uint32 wait_event = 0;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 ra_wait_event(&wait_event, "RiskAlertWorker"));
	ResetLatch(MyLatch);
	pg_atomic_fetch_add_u64(&my_slot->wakeups, 1);
}
