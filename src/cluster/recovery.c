/*
 * recovery.c
 *	  Finishes branches of global transactions that were left prepared.
 *
 * A worker of its own in each database where there is something to do: it may have to wait
 * for other nodes, which the worker that handles events can't afford.  That one looks,
 * every recovery_interval, whether branches of this cluster are prepared in the database or transactions of
 * its own are not known to be finished, or may be forgotten, and starts this one, which ends when nothing
 * has been left to do for a while.
 *
 * A round:
 *	 1. List the branches that are prepared in this database, by their gids; nothing else is
 *	    ever touched.  Those whose coordinator or register didn't answer last time come last, so
 *	    that they hold up nobody but themselves.
 *	 2. Finish each, in a transaction of its own, as its register says (settle()).
 *	 3. Catch up with what was published while this node was no member (catchup.c).
 *	 4. Note which transactions of ours are finished: those whose coordinator has told so, and
 *	    now and then others, when the participants have no such branch.  Delete their
 *	    decision rows after decision_retention.  Tell other registers, when no node has a
 *	    branch any more, of transactions that were finished here, and of such that nobody else
 *	    has told them of (ra_forget_left()).
 *
 * When to ask.  A branch that was prepared a moment ago is most likely none of our business.
 * Asking does no harm: register "local" says "in progress" as long as the coordinator's
 * transaction lives.  In other registers we propose abort, which would end a transaction that is
 * alive: so only if its coordinator says that it is over, or doesn't answer, or the
 * transaction is older than the time in which a coordinator may propose commit.  That is
 * courtesy; what is right depends on no clock.
 *
 * Others finish branches too: coordinators, operators.  What is gone or busy when we come to it
 * is theirs.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "cluster/ask.h"
#include "cluster/catchup.h"
#include "cluster/forget.h"
#include "cluster/globalstate.h"
#include "cluster/locktable.h"
#include "cluster/options.h"
#include "cluster/recovery.h"
#include "cluster/register.h"
#include "cluster/register_local.h"
#include "compat.h"
#include "core/gid.h"
#include "guc.h"
#include "risk_alert.h"
#include "shmem.h"
#include "worker.h"

#define GRACE 5000				/* ms after commit_timeout */
#define GAPS_AFTER 5000			/* ms, see close_gaps() */
#define MUTE_MS 1000			/* a register that takes so long to say nothing is not asked again in the round */
#define IDLE_ROUNDS 12			/* then the worker ends */
#define CATCH_UP_INTERVAL 500	/* ms between attempts */
#define PORTION_PAUSE 20		/* ms, see in_portions() */
#define PORTIONS_MAX_MS 1000
#define SWEEP_ROUNDS 12			/* between looks at what participants have */
#define SWEPT_AT_ONCE 10000		/* decision rows */

typedef struct Found
{
	char	   *text;
	RaGid		gid;
	TimestampTz prepared;
	int			rank;			/* > 0: somebody didn't answer last time; the branch that found out comes last */
} Found;

/* of the worker that starts us */
static BackgroundWorkerHandle *handle = NULL;
static bool epoch_noted = false;
static TimestampTz tried_at = 0;	/* to note the epoch */
static TimestampTz looked_at = 0;

/* of ours */
static volatile sig_atomic_t terminated = false;
static Oid	my_dboid = InvalidOid;
static MemoryContext round_cxt = NULL;
static bool unfinished = false; /* this round has left work of which there was much */
static List *silent = NIL;		/* coordinators that didn't answer last time (char *) */
static uint32 mute = 0;			/* registers that didn't, by kind */
static char mute_for[RA_GID_SIZE] = ""; /* which has cost one branch its time */

static void recovery_sigterm(SIGNAL_ARGS);
static bool something_to_do(void);
static bool recovery_attach(void);
static void recovery_detach(int code, Datum arg);
static void check_leave(void);
static void in_portions(void (*work) (void *arg));
static int	run_round(void);
static int	list_branches(Found **found);
static bool is_silent(const char *node);
static bool is_mute(const RaGid *gid);
static bool settle(const Found *found);
static RaDecision find_decision(const Found *found, char **reason);
static bool over(const Found *found, int64 age, char **reason);
static void mark_done(void);
static bool delete_expired(void);
static int	sweep(void);
static void close_gaps(void);
static void run_safely(void (*work) (void *arg), void *arg);
static void warn_of(const Found *oldest);
static void note_error(const char *message);

/* ---------------------------------------------------------------- the starter's side */

void
ra_recovery_tick(void)
{
	BackgroundWorker worker;
	TimestampTz now;
	pid_t		pid;

	if (ra_node_name[0] == '\0' || RecoveryInProgress())
		return;
	now = GetCurrentTimestamp();
	if (!epoch_noted && (now < tried_at || now >= TimestampTzPlusMilliseconds(tried_at, 1000)))
	{
		tried_at = now;
		ra_local_note_epoch();
		epoch_noted = true;
	}
	if (now >= looked_at &&
		now < TimestampTzPlusMilliseconds(looked_at, ra_catch_up_wanted() ? Min(ra_recovery_interval, CATCH_UP_INTERVAL) : ra_recovery_interval))
		return;
	looked_at = now;
	if (handle)
	{
		BgwHandleStatus status = GetBackgroundWorkerPid(handle, &pid);

		if (status == BGWH_STARTED && ra_catch_up_wanted())
			ra_recovery_wake(pid);
		if (status != BGWH_STOPPED)
			return;
		pfree(handle);
		handle = NULL;
	}
	if (!ra_catch_up_due() && !something_to_do())
		return;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "risk_alert");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "ra_recovery_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "risk_alert recovery");
	snprintf(worker.bgw_type, BGW_MAXLEN, "risk_alert recovery");
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	worker.bgw_notify_pid = MyProcPid;
	MemoryContextSwitchTo(TopMemoryContext);
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		static bool complained = false;

		handle = NULL;
		if (!complained)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no background worker is left to finish global transactions"),
					 errdetail("Their locks stay until one can be started; this message is not repeated."),
					 errhint("Increase max_worker_processes.")));
		complained = true;
	}
}

void
ra_recovery_leave(void)
{
	if (handle == NULL)
		return;
	TerminateBackgroundWorker(handle);
}

static bool
something_to_do(void)
{
	bool		result;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute("SELECT FROM pg_catalog.pg_prepared_xacts x"
					" WHERE x.database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
					"   AND pg_catalog.starts_with(x.gid, 'ra:')"
					" UNION ALL (SELECT FROM risk_alert._global_unfinished LIMIT 1)"
					" UNION ALL (SELECT FROM risk_alert.global_finished f WHERE f.finished_at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.current_setting('risk_alert.decision_retention')::pg_catalog.interval) LIMIT 1)"
					" UNION ALL (SELECT FROM risk_alert.global_recovered LIMIT 1)", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for prepared transactions");
	result = SPI_processed > 0 || ra_anything_to_forget();
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	return result;
}

/* ---------------------------------------------------------------- the worker */

void
ra_recovery_main(Datum main_arg)
{
	static uint32 wait_event = 0;
	int			idle = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, recovery_sigterm);
	BackgroundWorkerUnblockSignals();

	my_dboid = DatumGetObjectId(main_arg);
	if (!recovery_attach())
		proc_exit(0);			/* there is one already */
	BackgroundWorkerInitializeConnectionByOid(my_dboid, InvalidOid, 0);
	ra_worker_settings("risk_alert recovery");
	round_cxt = AllocSetContextCreate(TopMemoryContext, "risk_alert recovery round", ALLOCSET_DEFAULT_SIZES);

	while (idle < IDLE_ROUNDS)
	{
		check_leave();
		idle = run_round() > 0 ? 0 : idle + 1;
		MemoryContextReset(round_cxt);

		pgstat_report_activity(STATE_IDLE, NULL);
		/* or less, when the latch is set, or when the round had to stop before it was done */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 unfinished ? PORTION_PAUSE : ra_recovery_interval,
						 ra_wait_event(&wait_event, "RiskAlertRecovery"));
		ResetLatch(MyLatch);
	}
	proc_exit(0);				/* nothing to do: started again when there is */
}

/* It ends what we wait for, too; but it is no failure */
static void
recovery_sigterm(SIGNAL_ARGS)
{
	terminated = true;
	die(postgres_signal_arg);
}

static bool
recovery_attach(void)
{
	RaRecovery *slot;
	bool		ours;

	LWLockAcquire(ra_global_state->lock, LW_EXCLUSIVE);
	slot = ra_recovery_slot(my_dboid, true);
	ours = slot && slot->pid == 0;
	if (ours)
		slot->pid = MyProcPid;
	LWLockRelease(ra_global_state->lock);
	if (ours)
		on_shmem_exit(recovery_detach, (Datum) 0);
	return ours;
}

static void
recovery_detach(int code, Datum arg)
{
	RaRecovery *slot;

	LWLockAcquire(ra_global_state->lock, LW_EXCLUSIVE);
	slot = ra_recovery_slot(my_dboid, false);
	if (slot && slot->pid == MyProcPid)
	{
		slot->pid = 0;
		slot->waiting = 0;
	}
	LWLockRelease(ra_global_state->lock);
}

/* Without the worker that has started us we are alone in a database that others may want */
static void
check_leave(void)
{
	RaDatabase *db;
	bool		leave;

	LWLockAcquire(ra_shared->lock, LW_SHARED);
	db = ra_slot_find(my_dboid);
	leave = db == NULL || db->worker_pid != MyBgworkerEntry->bgw_notify_pid || db->holds > 0;
	LWLockRelease(ra_shared->lock);
	if (leave || terminated)
		proc_exit(0);			/* as above */
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* What a round works with */
typedef struct Round
{
	Found	   *found;
	int			n;
	int			current;
	int			settled;
	int			left;			/* decision rows */
} Round;

static void
list_work(void *arg)
{
	Round	   *round = arg;

	round->n = list_branches(&round->found);
}

static void
settle_work(void *arg)
{
	Round	   *round = arg;

	if (settle(&round->found[round->current]))
		round->settled++;
}

static void
catch_up_work(void *arg)
{
	*(uint64 *) arg = ra_catch_up();
}

static void
done_work(void *arg)
{
	mark_done();
}

static void
gaps_work(void *arg)
{
	close_gaps();
}

static void
delete_work(void *arg)
{
	*(bool *) arg = delete_expired();
}

static void
sweep_work(void *arg)
{
	Round	   *round = arg;

	round->left = sweep();
}

static void
tell_work(void *arg)
{
	Round	   *round = arg;

	round->left += ra_recovered_tell();
}

static void
expire_work(void *arg)
{
	*(bool *) arg = ra_forget_expired();
}

static void
forget_work(void *arg)
{
	ra_forget_left();
}

/*
 * Work that says whether there is more of it: a little at a time, as those who commit share the
 * disk and the processors with us, and not for long, as branches may wait for the next round
 */
static void
in_portions(void (*work) (void *arg))
{
	static uint32 wait_event = 0;
	uint64		until = ra_boottime() + Min(ra_recovery_interval, PORTIONS_MAX_MS) * UINT64CONST(1000000);
	bool		more = true;

	while (more && ra_boottime() < until)
	{
		check_leave();
		more = false;
		run_safely(work, &more);
		if (more)
			(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PORTION_PAUSE,
							 ra_wait_event(&wait_event, "RiskAlertRecovery"));
	}
	unfinished = unfinished || more;
}

/* How much there was to do, or is left */
static int
run_round(void)
{
	static uint32 rounds = 0;
	Round		round = {0};
	RaRecovery *slot;
	const Found *oldest = NULL;	/* of those that are left */

	pgstat_report_activity(STATE_RUNNING, "risk_alert: recovery of global transactions");
	unfinished = false;
	run_safely(list_work, &round);
	list_free_deep(silent);
	silent = NIL;
	mute = 0;
	mute_for[0] = '\0';
	for (round.current = 0; round.current < round.n; round.current++)
	{
		const Found *found = &round.found[round.current];
		int			before = round.settled;

		check_leave();
		run_safely(settle_work, &round);
		if (round.settled == before && (oldest == NULL || found->prepared < oldest->prepared))
			oldest = found;
	}
	if (oldest)
		warn_of(oldest);
	if (round.settled > 0)
		ra_wake_worker();		/* there may be events in it */
	if (ra_catch_up_due())
	{
		uint64		session = 0;

		run_safely(catch_up_work, &session);
		ra_catch_up_done(session);
	}
	run_safely(done_work, NULL);
	run_safely(gaps_work, NULL);
	in_portions(delete_work);
	in_portions(expire_work);
	/* not in the first: what is merely in progress is over in the next */
	if (rounds++ % SWEEP_ROUNDS == 1)
	{
		run_safely(sweep_work, &round);
		run_safely(tell_work, &round);
		run_safely(forget_work, NULL);
	}

	LWLockAcquire(ra_global_state->lock, LW_EXCLUSIVE);
	slot = ra_recovery_slot(my_dboid, true);
	if (slot)
	{
		slot->rounds++;
		slot->waiting = round.n - round.settled;
		slot->last_run = GetCurrentTimestamp();
	}
	LWLockRelease(ra_global_state->lock);
	return round.n + round.left + (unfinished ? 1 : 0);
}

/* A piece of work in a transaction; an error is logged, noted, and no obstacle to the next piece */
static void
run_safely(void (*work) (void *arg), void *arg)
{
	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		work(arg);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		HOLD_INTERRUPTS();
		error_context_stack = NULL;
		QueryCancelPending = false;
		MemoryContextSwitchTo(round_cxt);
		edata = CopyErrorData();

		/* somebody else finishes it */
		if (edata->sqlerrcode != ERRCODE_UNDEFINED_OBJECT && edata->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		{
			static char logged[256] = "";

			/* what happens again in each round is no news */
			if (strncmp(edata->message, logged, sizeof(logged) - 1) != 0)
				EmitErrorReport();
			strlcpy(logged, edata->message, sizeof(logged));
			note_error(edata->message);
		}
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(round_cxt);
}

/* ---------------------------------------------------------------- branches */

static int
compare_found(const void *a, const void *b)
{
	const Found *x = a;
	const Found *y = b;

	if (x->rank != y->rank)
		return x->rank - y->rank;
	return x->prepared < y->prepared ? -1 : x->prepared > y->prepared;
}

static int
list_branches(Found **found)
{
	int			n = 0;
	uint64		i;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute("SELECT x.gid, x.prepared FROM pg_catalog.pg_prepared_xacts x"
					" WHERE x.database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
					"   AND pg_catalog.starts_with(x.gid, 'ra:')", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list prepared transactions");
	*found = MemoryContextAllocZero(round_cxt, Max(SPI_processed, 1) * sizeof(Found));
	for (i = 0; i < SPI_processed; i++)
	{
		Found	   *f = &(*found)[n];
		const char *text = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		bool		isnull;

		if (!ra_gid_parse(text, strlen(text), &f->gid) || f->gid.branch == 0 ||
			strcmp(f->gid.cluster, ra_cluster_name) != 0)
			continue;
		f->text = MemoryContextStrdup(round_cxt, text);
		f->prepared = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
		f->rank = strcmp(f->text, mute_for) == 0 ? 2 : is_silent(f->gid.coordinator) || is_mute(&f->gid) ? 1 : 0;
		n++;
	}
	PopActiveSnapshot();
	SPI_finish();
	qsort(*found, n, sizeof(Found), compare_found);
	return n;
}

static bool
is_silent(const char *node)
{
	ListCell   *lc;

	foreach(lc, silent)
	{
		if (strcmp(lfirst(lc), node) == 0)
			return true;
	}
	return false;
}

static bool
is_mute(const RaGid *gid)
{
	RaRegisterKind kind;

	return ra_register_by_letter(gid->register_letter, &kind) && (mute & (1u << kind)) != 0;
}

/* It didn't answer: not to be asked again in this round */
static void
note_silent(const char *node)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);

	if (!is_silent(node))
		silent = lappend(silent, pstrdup(node));
	MemoryContextSwitchTo(before);
}

static bool
settle(const Found *found)
{
	RaRecovery *slot;
	char	   *reason = NULL;
	RaDecision	decision = find_decision(found, &reason);

	if (decision != RA_DECISION_COMMIT && decision != RA_DECISION_ABORT)
	{
		if (reason)
			note_error(psprintf("branch \"%s\": %s", found->text, reason));
		return false;
	}
	if (decision == RA_DECISION_COMMIT && found->gid.register_letter != ra_register_letter(RA_REGISTER_LOCAL))
	{
		RaGid		transaction = found->gid;
		char		name[RA_GID_SIZE];

		transaction.branch = 0;
		if (ra_gid_format(&transaction, name))
			ra_recovered_note(name);
	}
	FinishPreparedTransaction(found->text, decision == RA_DECISION_COMMIT);
	ereport(LOG,
			(errmsg("recovery has %s branch \"%s\"",
					decision == RA_DECISION_COMMIT ? "committed" : "rolled back", found->text)));
	LWLockAcquire(ra_global_state->lock, LW_EXCLUSIVE);
	slot = ra_recovery_slot(my_dboid, true);
	if (slot && decision == RA_DECISION_COMMIT)
		slot->committed++;
	else if (slot)
		slot->aborted++;
	LWLockRelease(ra_global_state->lock);
	return true;
}

/* What to do with a branch; NONE or UNKNOWN: nothing for now */
static RaDecision
find_decision(const Found *found, char **reason)
{
	RaGid		transaction = found->gid;
	bool		own = strcmp(found->gid.coordinator, ra_node_name) == 0 && found->gid.database == MyDatabaseId;
	int64		age = (GetCurrentTimestamp() - found->prepared) / 1000;
	const RaRegister *decider;
	RaRegisterKind kind;
	RaDecision	decision;
	char		name[RA_GID_SIZE];
	uint64		began;

	/* (a clock that was set back must not make it young for ever: then we ask) */
	if (own ? ra_coordinator_alive(&found->gid) : age >= 0 && age < Min(ra_recovery_interval, 1000))
		return RA_DECISION_NONE;
	if (!own && is_silent(found->gid.coordinator) && found->gid.register_letter == ra_register_letter(RA_REGISTER_LOCAL))
		return RA_DECISION_UNKNOWN;

	transaction.branch = 0;
	if (!ra_register_by_letter(found->gid.register_letter, &kind) || !ra_gid_format(&transaction, name))
	{
		*reason = psprintf("unknown register \"%c\"", found->gid.register_letter);
		return RA_DECISION_UNKNOWN;
	}
	if (is_mute(&found->gid))
		return RA_DECISION_UNKNOWN;
	decider = ra_register(kind);
	began = ra_boottime();
	decision = decider->read(name, RA_RECOVERY_ASK_MS, reason);
	if (decision == RA_DECISION_UNKNOWN && kind == RA_REGISTER_LOCAL)
	{
		if (!own && ra_coordinator_silent)
			note_silent(found->gid.coordinator);
	}
	else if (decision == RA_DECISION_UNKNOWN && ra_boottime() - began >= MUTE_MS * UINT64CONST(1000000))
	{
		mute |= 1u << kind;
		strlcpy(mute_for, found->text, sizeof(mute_for));
	}
	if (decision == RA_DECISION_NONE && ra_may_be_forgotten(kind, found->prepared))
	{
		*reason = psprintf("register %s knows nothing of the transaction, but may have known: the branch is older than decisions are kept; decide with risk_alert.resolve()", decider->name);
		return RA_DECISION_UNKNOWN;
	}
	if (decision == RA_DECISION_NONE && kind != RA_REGISTER_LOCAL && (own || over(found, age, reason)))
		decision = decider->propose(name, RA_DECISION_ABORT, RA_RECOVERY_ASK_MS, reason);
	return decision;
}

/* Is it time to propose abort for a transaction of another node? */
static bool
over(const Found *found, int64 age, char **reason)
{
	char	   *alive = NULL;

	if (age < 0 || age > (int64) ra_commit_timeout + GRACE)
		return true;
	if (ra_node_server(found->gid.coordinator, true) == NULL)
		return false;			/* nobody can say */
	if (!is_silent(found->gid.coordinator))
	{
		if (ra_ask_node(found->gid.coordinator, "SELECT risk_alert._coordinator_alive($1)", found->text,
						RA_RECOVERY_ASK_MS, &alive, 1, reason))
			return alive && strcmp(alive, "f") == 0;
		note_silent(found->gid.coordinator);
	}
	return age >= 2 * (int64) ra_recovery_interval;
}

/* ---------------------------------------------------------------- decision rows */

/* Rows of decisions, by what names them */
typedef struct Decisions
{
	Datum	   *epochs;
	Datum	   *numbers;
	int			n;
} Decisions;

static void
decisions_init(Decisions *d, int max)
{
	d->epochs = palloc(Max(max, 1) * sizeof(Datum));
	d->numbers = palloc(Max(max, 1) * sizeof(Datum));
	d->n = 0;
}

static void
decisions_add(Decisions *d, int64 epoch, int64 number)
{
	d->epochs[d->n] = Int64GetDatum(epoch);
	d->numbers[d->n++] = Int64GetDatum(number);
}

/* Thousands are a range or two: so their rows need not be written again, nor be looked for */
static void
mark_finished(const Decisions *d)
{
	Oid			types[2] = {INT8ARRAYOID, INT8ARRAYOID};
	Datum		values[2];

	if (d->n == 0)
		return;
	values[0] = PointerGetDatum(construct_array(d->epochs, d->n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = PointerGetDatum(construct_array(d->numbers, d->n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args("WITH told AS ("
							  "  SELECT d.epoch, pg_catalog.range_agg(pg_catalog.int8range(d.number, d.number, '[]')) AS numbers"
							  "    FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS d (epoch, number) GROUP BY d.epoch),"
							  " noted AS ("
							  "  INSERT INTO risk_alert.global_finished (epoch, numbers, finished_at)"
							  "  SELECT t.epoch, t.numbers, pg_catalog.clock_timestamp() FROM told t)"
							  " INSERT INTO risk_alert.global_over AS o (epoch, numbers) SELECT t.epoch, t.numbers FROM told t"
							  "     ON CONFLICT (epoch) DO UPDATE SET numbers = o.numbers OPERATOR(pg_catalog.+) excluded.numbers",
							  2, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write risk_alert.global_finished");
	PopActiveSnapshot();
	SPI_finish();
}

/* Those that coordinators of this server have told of */
static void
mark_done(void)
{
	RaGlobalState *state = ra_global_state;
	Decisions	done;
	int			kept = 0;
	int			i;

	decisions_init(&done, RA_DONE_MAX);
	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	for (i = 0; i < state->ndone; i++)
	{
		if (state->done[i].dboid == MyDatabaseId)
			decisions_add(&done, state->epoch, (int64) state->done[i].number);
		else
			state->done[kept++] = state->done[i];
	}
	state->ndone = kept;
	LWLockRelease(state->lock);
	mark_finished(&done);
}

#define OLD_FINISHED \
	" FROM risk_alert.global_finished x WHERE x.finished_at OPERATOR(pg_catalog.<)" \
	"   (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.current_setting('risk_alert.decision_retention')::pg_catalog.interval)"

/*
 * What was found to be finished in one round; and it is noted up to which number, before anybody can
 * miss them.  Is there more?
 */
static bool
delete_expired(void)
{
	bool		more;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute("WITH old AS ("
					"  DELETE FROM risk_alert.global_finished f WHERE f.ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
					"    SELECT x.ctid" OLD_FINISHED " ORDER BY x.finished_at LIMIT 1))"
					"  RETURNING f.epoch, f.numbers),"
					" gone AS ("
					"  DELETE FROM risk_alert.global_commit c WHERE c.ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
					"    SELECT n.ctid FROM old o CROSS JOIN LATERAL pg_catalog.unnest(o.numbers) AS g (numbers)"
					"     CROSS JOIN LATERAL (SELECT n.ctid FROM risk_alert.global_commit n"
					"       WHERE n.epoch OPERATOR(pg_catalog.=) o.epoch AND n.number OPERATOR(pg_catalog.>=) pg_catalog.lower(g.numbers)"
					"         AND n.number OPERATOR(pg_catalog.<) pg_catalog.upper(g.numbers) OFFSET 0) n))"
					"  RETURNING c.epoch, c.number)"
					" UPDATE risk_alert.global_epoch e SET removed_to = g.number"
					"   FROM (SELECT epoch, pg_catalog.max(number) AS number FROM gone GROUP BY epoch) g"
					"  WHERE g.epoch OPERATOR(pg_catalog.=) e.epoch AND g.number OPERATOR(pg_catalog.>) e.removed_to",
					false, 0) != SPI_OK_UPDATE ||
		SPI_execute("SELECT" OLD_FINISHED " LIMIT 1", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not delete from risk_alert.global_commit");
	more = SPI_processed > 0;
	PopActiveSnapshot();
	SPI_finish();
	return more;
}

/*
 * Others, left by crashes or unreachable participants: rows whose participants have no
 * branch any more.  They had prepared all when the row was written, so none can come
 * later.  A row that is younger than a round most likely has a coordinator that will tell.  How
 * many rows are left.
 */
static int
sweep(void)
{
	typedef struct Participant
	{
		char	   *node;
		char	   *prepared;
	} Participant;
	List	   *participants = NIL;
	Oid			types[1] = {FLOAT8OID};
	Datum		values[1] = {Float8GetDatum(ra_recovery_interval / 1000.0)};
	Decisions	finished;
	uint64		left = 0;
	uint64		n;
	uint64		i;
	SPITupleTable *rows;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args("SELECT c.gid, c.participants, c.epoch, c.number FROM risk_alert._global_unfinished c"
							  " WHERE NOT (pg_catalog.now() OPERATOR(pg_catalog.-) c.decided_at OPERATOR(pg_catalog.>=) interval '0'"
							  "            AND pg_catalog.now() OPERATOR(pg_catalog.-) c.decided_at OPERATOR(pg_catalog.<) pg_catalog.make_interval(secs => $1))"
							  " LIMIT " CppAsString2(SWEPT_AT_ONCE), 1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read risk_alert.global_commit");
	rows = SPI_tuptable;
	n = SPI_processed;
	decisions_init(&finished, (int) n);
	for (i = 0; i < n; i++)
	{
		char	   *gid = SPI_getvalue(rows->vals[i], rows->tupdesc, 1);
		char	   *names = SPI_getvalue(rows->vals[i], rows->tupdesc, 2);
		char	   *branch = psprintf("%s:", gid);
		bool		needed = false;
		bool		isnull;
		char	   *node;
		char	   *rest;

		for (node = strtok_r(names, ",", &rest); node && !needed; node = strtok_r(NULL, ",", &rest))
		{
			Participant *known = NULL;
			ListCell   *lc;

			foreach(lc, participants)
			{
				if (strcmp(((Participant *) lfirst(lc))->node, node) == 0)
					known = lfirst(lc);
			}
			if (known == NULL)
			{
				known = palloc(sizeof(Participant));
				known->node = node;
				known->prepared = ra_prepared_there(node, psprintf("ra:%s:%s:", ra_cluster_name, ra_node_name));
				participants = lappend(participants, known);
			}
			needed = known->prepared == NULL || strstr(known->prepared, branch) != NULL;
		}
		if (needed)
			left++;
		else
			decisions_add(&finished, DatumGetInt64(SPI_getbinval(rows->vals[i], rows->tupdesc, 3, &isnull)),
						  DatumGetInt64(SPI_getbinval(rows->vals[i], rows->tupdesc, 4, &isnull)));
	}
	mark_finished(&finished);
	PopActiveSnapshot();
	SPI_finish();
	return (int) left;
}

/*
 * Numbers that never had a row here: transactions of other databases, other registers, and aborted ones have them.
 * None can come of earlier runs.  Of this one, a transaction may have its number and not yet its row; but
 * then it has its lock, too, a moment after the number: GAPS_AFTER later, for sure.  (If not, all that
 * happens is that its row is not looked after.)  The locks are looked at before the rows: who lets go of one has
 * committed, or never will.
 */
static void
close_gaps(void)
{
	static uint64 given_then = 0;	/* the latest number, at least GAPS_AFTER ago */
	static uint64 given = 0;	/* at that time: */
	static uint64 given_at = 0;
	uint64		now = ra_boottime();
	Oid			types[3] = {INT8OID, INT8OID, INT8MULTIRANGEOID};
	Datum		values[3];
	bool		isnull;

	if (now - given_at >= GAPS_AFTER * UINT64CONST(1000000))
	{
		given_then = given;
		given = pg_atomic_read_u64(&ra_global_state->number);
		given_at = now;
	}
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	values[0] = Int64GetDatum((int64) MyDatabaseId);
	if (SPI_execute_with_args("SELECT COALESCE(pg_catalog.range_agg(pg_catalog.int8range(l.number, l.number, '[]')), '{}')"
							  "  FROM (SELECT (l.classid::int8 OPERATOR(pg_catalog.<<) 32) OPERATOR(pg_catalog.|) l.objid::int8 AS number"
							  "          FROM pg_catalog.pg_locks l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.database::int8 OPERATOR(pg_catalog.=) $1"
							  "           AND l.objsubid OPERATOR(pg_catalog.=) " CppAsString2(RA_GLOBAL_LOCK_CLASS) " AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock') l",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_locks");
	values[0] = Int64GetDatum((int64) ra_global_state->epoch);
	values[1] = Int64GetDatum((int64) given_then);
	values[2] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (SPI_execute_with_args("WITH left_over AS MATERIALIZED ("
							  "  SELECT u.epoch, pg_catalog.range_agg(pg_catalog.int8range(u.number, u.number, '[]')) AS numbers"
							  "    FROM risk_alert._global_unfinished u GROUP BY u.epoch)"
							  " UPDATE risk_alert.global_over o SET numbers = x.numbers"
							  "   FROM (SELECT o.epoch, o.numbers OPERATOR(pg_catalog.+)"
							  "           (CASE WHEN o.epoch OPERATOR(pg_catalog.=) $1 THEN pg_catalog.int8multirange(pg_catalog.int8range(NULL, $2, '(]')) OPERATOR(pg_catalog.-) $3"
							  "                 ELSE '{(,)}' END OPERATOR(pg_catalog.-) COALESCE(l.numbers, '{}')) AS numbers"
							  "           FROM risk_alert.global_over o LEFT JOIN left_over l ON l.epoch OPERATOR(pg_catalog.=) o.epoch) x"
							  "  WHERE x.epoch OPERATOR(pg_catalog.=) o.epoch AND x.numbers OPERATOR(pg_catalog.<>) o.numbers",
							  3, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write risk_alert.global_over");

	/* earlier runs of which no row is left */
	if (SPI_execute_with_args("DELETE FROM risk_alert.global_over o WHERE o.epoch OPERATOR(pg_catalog.<>) $1"
							  "   AND NOT EXISTS (SELECT FROM risk_alert.global_commit c WHERE c.epoch OPERATOR(pg_catalog.=) o.epoch)",
							  1, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete from risk_alert.global_over");
	PopActiveSnapshot();
	SPI_finish();
}

/* To the log, once for each that comes to be the oldest: not everybody looks at views */
static void
warn_of(const Found *oldest)
{
	static char warned[RA_GID_SIZE] = "";

	if (strcmp(oldest->text, warned) == 0 ||
		!TimestampDifferenceExceeds(oldest->prepared, GetCurrentTimestamp(), (int) Min((int64) ra_prepared_warning * 1000, INT_MAX)))
		return;
	strlcpy(warned, oldest->text, sizeof(warned));
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("branch \"%s\" of a global transaction is prepared for longer than risk_alert.prepared_warning", oldest->text),
			 errdetail("Node \"%s\" coordinates it.  It holds its locks, and keeps VACUUM from removing rows.", oldest->gid.coordinator),
			 errhint("SELECT * FROM risk_alert.check_setup() tells why, and what to do.")));
}

static void
note_error(const char *message)
{
	RaRecovery *slot;

	LWLockAcquire(ra_global_state->lock, LW_EXCLUSIVE);
	slot = ra_recovery_slot(my_dboid, true);
	if (slot)
	{
		strlcpy(slot->last_error, message, sizeof(slot->last_error));
		slot->last_error_at = GetCurrentTimestamp();
	}
	LWLockRelease(ra_global_state->lock);
}
