/*
 * launcher.c
 *	  The process that keeps one worker per database running.
 *
 * The launcher connects to no database, so that it is in nobody's way.  It
 * looks at pg_database and starts a worker in each database that it doesn't
 * know yet; a worker that finds no extension there says so in its slot and
 * ends.  The launcher sleeps on its latch, which is set by
 *	 - the postmaster, when a worker that we started has started or ended,
 *	 - a worker that leaves its database, whoever started it,
 *	 - sessions, after CREATE EXTENSION and after commands on databases,
 * and otherwise wakes up for a restart that is due, and once in a minute.
 *
 * What a round does, in order:
 *	 1. reap: learn which workers have ended, above all those that never got
 *		as far as their slot;
 *	 2. look at pg_database, if it may have changed or a worker is to be started;
 *	 3. match slots and databases, under the lock: free slots of databases that
 *		are gone, make slots for new ones, choose whom to start;
 *	 4. start those, without the lock.
 *
 * Who decides.  A worker's slot is written by the worker from attaching to
 * detaching, and by the launcher otherwise.  The launcher marks a slot STARTING
 * before it asks for a worker, so asks once only.  Should the launcher die and
 * its successor ask again, two workers come up, and the second finds worker_pid
 * set and exits (worker_attach()).
 *
 * Databases without the extension.  Slots are few and such databases may be
 * many, so the launcher notes them in its own memory (looked) and frees the
 * slot.  CREATE EXTENSION makes a slot with state NONE at commit, which overrides
 * the note; see the comment in worker.c on why that can't be missed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "launcher.h"
#include "risk_alert.h"
#include "shmem.h"

/* look at pg_database at least that often, and sleep that long at most */
#define LAUNCHER_INTERVAL_MS 60000

/* longest pause before a failed worker is started again */
#define MAX_RESTART_DELAY_MS 60000

/* shortest pause after no background worker could be had */
#define STARVED_MS 250

/* workers on their way up or out at any time: leave some to other people */
#define MAX_IN_FLIGHT 4

typedef struct KnownDatabase
{
	Oid			dboid;
	bool		eligible;		/* accepts connections and is no template */
	bool		looked;			/* found to lack the extension */
	char		name[NAMEDATALEN];
} KnownDatabase;

/* Databases as of the last look at pg_database; sorted by OID */
static KnownDatabase *known = NULL;
static int	nknown = 0;
static TimestampTz known_at = 0;
static MemoryContext known_cxt = NULL;

/* Databases found to lack the extension (OIDs) */
static List *looked = NIL;

/* What RegisterDynamicBackgroundWorker() gave us, by slot number */
static BackgroundWorkerHandle *handles[RA_MAX_DATABASES];

/* No background worker could be had: how many times in a row, when to try again */
static int	starved = 0;
static TimestampTz starved_until = 0;
static bool starved_reported = false;

/* Databases were left to be looked into when others are done */
static bool unfinished = false;

static bool slots_reported = false;

static void launcher_detach(int code, Datum arg);
static void reap(void);
static int	in_flight(void);
static bool must_look(TimestampTz now);
static void look_at_databases(void);
static KnownDatabase *find_known(Oid dboid);
static int	match(TimestampTz now, Oid *existing, int nexisting, int *chosen);
static bool is_due(const RaDatabase *db, TimestampTz now);
static bool reached(TimestampTz when, TimestampTz now);
static void start_worker(int slot, TimestampTz now);
static long time_to_sleep(TimestampTz now);
static int	oid_cmp(const void *a, const void *b);

void
ra_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "risk_alert");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "ra_launcher_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "risk_alert launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "risk_alert launcher");
	RegisterBackgroundWorker(&worker);
}

int
ra_restart_delay(int failures)
{
	/* the first retry comes at once, then after 1, 2, 4 ... 60 s */
	if (failures <= 1)
		return 0;
	if (failures >= 8)
		return MAX_RESTART_DELAY_MS;
	return Min(1000 << (failures - 2), MAX_RESTART_DELAY_MS);
}

void
ra_launcher_main(Datum main_arg)
{
	static uint32 wait_event = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	known_cxt = AllocSetContextCreate(TopMemoryContext, "risk_alert databases",
									  ALLOCSET_DEFAULT_SIZES);

	on_shmem_exit(launcher_detach, (Datum) 0);
	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	ra_shared->launcher_latch = MyLatch;
	ra_shared->check_databases = true;
	LWLockRelease(ra_shared->lock);

	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		TimestampTz now;
		int			chosen[RA_MAX_DATABASES];
		int			nchosen = 0;
		int			i;

		/*
		 * Exit code 1 makes the postmaster start a new launcher after a second
		 * (0 would be taken to mean "never again"); at shutdown it doesn't.
		 */
		if (ShutdownRequestPending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		reap();
		now = GetCurrentTimestamp();
		if (must_look(now))
		{
			Oid			existing[RA_MAX_DATABASES];
			int			nexisting = 0;

			/*
			 * Note which slots there are before the snapshot is taken: one
			 * that appears later may belong to a database that the snapshot
			 * doesn't show, and must not be taken for a leftover.
			 */
			LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
			ra_shared->check_databases = false;
			for (i = 0; i < RA_MAX_DATABASES; i++)
			{
				if (OidIsValid(ra_shared->databases[i].dboid))
					existing[nexisting++] = ra_shared->databases[i].dboid;
			}
			LWLockRelease(ra_shared->lock);
			qsort(existing, nexisting, sizeof(Oid), oid_cmp);

			look_at_databases();
			known_at = now;
			nchosen = match(now, existing, nexisting, chosen);
		}
		for (i = 0; i < nchosen; i++)
			start_worker(chosen[i], now);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 time_to_sleep(now),
						 ra_wait_event(&wait_event, "RiskAlertLauncher"));
		ResetLatch(MyLatch);
	}
}

static void
launcher_detach(int code, Datum arg)
{
	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	if (ra_shared->launcher_latch == &MyProc->procLatch)
		ra_shared->launcher_latch = NULL;
	LWLockRelease(ra_shared->lock);
}

/*
 * Step 1: workers that ended.  One that reached its slot has left word there
 * itself; of one that didn't (the server could not fork, the database was
 * gone) only the handle tells.
 */
static void
reap(void)
{
	int			i;

	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		RaDatabase *db = &ra_shared->databases[i];
		pid_t		pid;

		if (handles[i] == NULL || GetBackgroundWorkerPid(handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(handles[i]);
		handles[i] = NULL;
		starved_until = 0;		/* there is room again */

		LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
		if (db->state == RA_WORKER_STARTING && db->worker_pid == 0)
		{
			db->state = RA_WORKER_FAILED;
			db->failures++;
			db->next_start = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														 ra_restart_delay(db->failures));
		}
		LWLockRelease(ra_shared->lock);
	}

	/* databases without the extension need no slot */
	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		RaDatabase *db = &ra_shared->databases[i];

		if (OidIsValid(db->dboid) && db->state == RA_WORKER_NO_EXTENSION &&
			db->worker_pid == 0 && db->holds == 0)
		{
			Oid			dboid = db->dboid;

			ra_slot_free(db);
			unfinished = unfinished || slots_reported;
			LWLockRelease(ra_shared->lock);
			MemoryContextSwitchTo(TopMemoryContext);
			looked = list_append_unique_oid(looked, dboid);
			LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
		}
	}
	LWLockRelease(ra_shared->lock);
}

/*
 * How many workers are on their way up, or out (detached, but still a process)?
 * The caller holds the lock.
 */
static int
in_flight(void)
{
	int			n = 0;
	int			i;

	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		const RaDatabase *db = &ra_shared->databases[i];

		if ((OidIsValid(db->dboid) && db->state == RA_WORKER_STARTING) ||
			(handles[i] != NULL && db->worker_pid == 0))
			n++;
	}
	return n;
}

/*
 * Of those, the ones that occupy a place among the server's workers: chosen
 * ones that are not registered yet do not.  The caller holds the lock.
 */
static int
coming_or_going(void)
{
	int			n = 0;
	int			i;

	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		if (handles[i] != NULL && ra_shared->databases[i].worker_pid == 0)
			n++;
	}
	return n;
}

/* Is there a reason to look at pg_database? */
static bool
must_look(TimestampTz now)
{
	bool		result;
	bool		due = unfinished;
	int			i;

	LWLockAcquire(ra_shared->lock, LW_SHARED);
	result = ra_shared->check_databases;
	for (i = 0; i < RA_MAX_DATABASES && !due; i++)
		due = OidIsValid(ra_shared->databases[i].dboid) && is_due(&ra_shared->databases[i], now);

	/* never start anything without having looked: it may be dropped by now */
	if (due && in_flight() < MAX_IN_FLIGHT && reached(starved_until, now))
		result = true;
	LWLockRelease(ra_shared->lock);
	return result || now < known_at ||
		now >= TimestampTzPlusMilliseconds(known_at, LAUNCHER_INTERVAL_MS);
}

/* Step 2: read pg_database */
static void
look_at_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	int			nalloc = 64;
	List	   *still = NIL;
	ListCell   *lc;

	MemoryContextReset(known_cxt);
	known = MemoryContextAlloc(known_cxt, nalloc * sizeof(KnownDatabase));
	nknown = 0;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();

	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		KnownDatabase *database;

		if (nknown == nalloc)
		{
			nalloc *= 2;
			known = repalloc(known, nalloc * sizeof(KnownDatabase));
		}
		database = &known[nknown++];
		database->dboid = form->oid;
		database->eligible = form->datallowconn && !form->datistemplate &&
			!database_is_invalid_form(form);
		database->looked = false;
		strlcpy(database->name, NameStr(form->datname), NAMEDATALEN);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();

	qsort(known, nknown, sizeof(KnownDatabase), oid_cmp);

	/* forget what we knew of databases that are gone */
	MemoryContextSwitchTo(TopMemoryContext);
	foreach(lc, looked)
	{
		KnownDatabase *database = find_known(lfirst_oid(lc));

		if (database)
		{
			database->looked = true;
			still = lappend_oid(still, lfirst_oid(lc));
		}
	}
	list_free(looked);
	looked = still;
}

static KnownDatabase *
find_known(Oid dboid)
{
	return bsearch(&dboid, known, nknown, sizeof(KnownDatabase), oid_cmp);
}

/*
 * Step 3: bring slots in line with the databases there are, and choose the
 * slots whose workers are to be started (marked STARTING already).  Slots are
 * left alone unless they are among the existing ones.
 */
static int
match(TimestampTz now, Oid *existing, int nexisting, int *chosen)
{
	int			nchosen = 0;
	int			room;
	int			i;
	const KnownDatabase *homeless = NULL;

	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);

	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		RaDatabase *db = &ra_shared->databases[i];
		const KnownDatabase *database;

		if (!OidIsValid(db->dboid) ||
			!bsearch(&db->dboid, existing, nexisting, sizeof(Oid), oid_cmp))
			continue;
		database = find_known(db->dboid);
		if (database && database->eligible)
			continue;

		/* gone, made a template, or closed: its worker has to leave */
		if (db->worker_pid != 0)
			kill(db->worker_pid, SIGTERM);
		else if (database == NULL && db->holds == 0)
			ra_slot_free(db);
	}

	/* asked for by a launcher before us, and never came up? */
	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		RaDatabase *db = &ra_shared->databases[i];

		if (OidIsValid(db->dboid) && db->state == RA_WORKER_STARTING &&
			db->worker_pid == 0 && handles[i] == NULL)
			db->state = RA_WORKER_NONE;
	}

	unfinished = false;
	room = reached(starved_until, now) ? MAX_IN_FLIGHT - in_flight() : 0;

	/* restarts, and databases whose sessions made the slot */
	for (i = 0; i < RA_MAX_DATABASES && nchosen < room; i++)
	{
		RaDatabase *db = &ra_shared->databases[i];
		const KnownDatabase *database;

		if (!OidIsValid(db->dboid) || !is_due(db, now) || handles[i] != NULL)
			continue;
		database = find_known(db->dboid);
		if (database == NULL || !database->eligible)
			continue;
		db->state = RA_WORKER_STARTING;
		chosen[nchosen++] = i;
	}

	/* databases we know nothing about: a slot each, as there is room */
	for (i = 0; i < nknown; i++)
	{
		RaDatabase *db;

		if (!known[i].eligible || known[i].looked || ra_slot_find(known[i].dboid))
			continue;
		if (ra_slot_find(InvalidOid) == NULL)
		{
			homeless = &known[i];
			break;
		}
		if (nchosen >= room)
		{
			unfinished = true;
			break;
		}
		db = ra_slot_make(known[i].dboid);
		/* (one whose last worker is not quite gone is due next time) */
		if (handles[db - ra_shared->databases] == NULL)
		{
			db->state = RA_WORKER_STARTING;
			chosen[nchosen++] = db - ra_shared->databases;
		}
	}
	LWLockRelease(ra_shared->lock);

	if (homeless && !slots_reported)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no worker for database \"%s\": too many databases use risk_alert", homeless->name),
				 errdetail("At most %d databases of a server can use it.", RA_MAX_DATABASES),
				 errhint("Drop the extension where it is not needed.")));
	slots_reported = homeless != NULL;
	return nchosen;
}

/* Does the slot want a worker now? */
static bool
is_due(const RaDatabase *db, TimestampTz now)
{
	return (db->state == RA_WORKER_NONE || db->state == RA_WORKER_FAILED) &&
		db->worker_pid == 0 && db->holds == 0 &&
		reached(db->next_start, now);
}

/* Has the time come?  No pause is longer than that, should the clock say so. */
static bool
reached(TimestampTz when, TimestampTz now)
{
	return now >= when || when > TimestampTzPlusMilliseconds(now, MAX_RESTART_DELAY_MS);
}

/* Step 4 */
static void
start_worker(int slot, TimestampTz now)
{
	RaDatabase *db = &ra_shared->databases[slot];
	Oid			dboid = db->dboid;
	const KnownDatabase *database = find_known(dboid);
	BackgroundWorker worker;
	int			others;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;	/* that's our affair */
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "risk_alert");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "ra_worker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "risk_alert worker for %s",
			 database ? database->name : "?");
	snprintf(worker.bgw_type, BGW_MAXLEN, "risk_alert worker");
	worker.bgw_main_arg = ObjectIdGetDatum(dboid);
	worker.bgw_notify_pid = MyProcPid;

	MemoryContextSwitchTo(TopMemoryContext);
	if (database && reached(starved_until, now) &&
		RegisterDynamicBackgroundWorker(&worker, &handles[slot]))
	{
		looked = list_delete_oid(looked, dboid);
		starved = 0;
		starved_until = 0;
		return;
	}

	/* no luck: not the worker's fault, so no failure of the slot */
	handles[slot] = NULL;
	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	if (db->dboid == dboid && db->state == RA_WORKER_STARTING && db->worker_pid == 0)
		db->state = RA_WORKER_NONE;
	others = coming_or_going();
	LWLockRelease(ra_shared->lock);
	if (database == NULL || !reached(starved_until, now))
		return;

	/*
	 * It is no news that there is no room while others of ours come and go; nor
	 * the first time, as a worker that has just ended occupies its place a
	 * moment longer.
	 */
	if (others > 0)
	{
		starved_until = TimestampTzPlusMilliseconds(now, STARVED_MS);
		return;
	}
	starved++;
	starved_until = TimestampTzPlusMilliseconds(now, Max(ra_restart_delay(starved), STARVED_MS));
	if (starved > 1 && !starved_reported)
	{
		starved_reported = true;
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is left for risk_alert in database \"%s\"", database->name),
				 errdetail("Events of this database, and perhaps of others, wait until one can be started; this message is not repeated."),
				 errhint("Increase max_worker_processes: risk_alert takes one for its launcher and one for each database that has the extension.")));
	}
}

/*
 * How long to sleep, unless somebody sets the latch: until the next restart is
 * due.  What waits for other workers to come up first will be told by them.
 */
static long
time_to_sleep(TimestampTz now)
{
	TimestampTz next = TimestampTzPlusMilliseconds(known_at, LAUNCHER_INTERVAL_MS);
	bool		waiting = unfinished;
	bool		full;
	long		ms;
	int			i;

	LWLockAcquire(ra_shared->lock, LW_SHARED);
	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		const RaDatabase *db = &ra_shared->databases[i];
		const KnownDatabase *database;

		if (!OidIsValid(db->dboid))
			continue;
		database = find_known(db->dboid);
		if (database == NULL || !database->eligible)
			continue;
		if (db->holds == 0 && db->worker_pid == 0 && handles[i] == NULL &&
			(db->state == RA_WORKER_NONE || db->state == RA_WORKER_FAILED))
		{
			waiting = true;
			next = Min(next, Max(db->next_start, starved_until));
		}
	}
	if (unfinished)
		next = Min(next, Max(now, starved_until));
	full = in_flight() >= MAX_IN_FLIGHT;
	LWLockRelease(ra_shared->lock);

	if (!waiting)
		starved_reported = false;
	if (waiting && full)
		return LAUNCHER_INTERVAL_MS;
	ms = TimestampDifferenceMilliseconds(now, next);
	return Max(Min(ms, LAUNCHER_INTERVAL_MS), 10);
}

/* Order by OID; KnownDatabase begins with one */
static int
oid_cmp(const void *a, const void *b)
{
	Oid			x = *(const Oid *) a;
	Oid			y = *(const Oid *) b;

	return x < y ? -1 : x > y;
}
