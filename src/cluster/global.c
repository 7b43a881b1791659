/*
 * global.c
 *	  Global transactions: on every node or on none.
 *
 * What is done on other nodes is in branches (branch.c), which end with the caller's transaction:
 *
 *	1. Before it commits, branches that have written nothing commit.  If just one branch has
 *	   written, and the caller nothing, that one's commit is all there is to it.
 *	2. Otherwise all that have written are prepared, in parallel.  The transaction has a name by
 *	   then (core/gid.h) and a lock that says it is alive (globalstate.h).  That may be done
 *	   with their last statements, long before COMMIT (prepare => true).
 *	3. When all are prepared, the decision is proposed to a register (register.h),
 *	   within commit_timeout of the beginning of step 2, by this process' own monotonic clock.
 *	   Register "local": a row that is decided by the caller's own commit.  The others
 *	   decide here and now, so the caller's own transaction must have nothing that could
 *	   still fail (late_failure()), and it is told to SSI as prepared.
 *	4. The branches are committed, in parallel, after the caller's commit.  Nothing throws
 *	   then, and nothing waits for long; what can't be reached is left to the recovery of its
 *	   node.
 *
 * From the first proposal until the caller's commit is over, interrupts are held: no error
 * may tell the client what is not so.  A request to cancel or to end the session ends the wait for
 * the register, and the outcome is unknown then; once it is known, it ends the wait for
 * the branches.
 *
 * What PostgreSQL does between our callback and the end of the commit can't fail for such a caller: there are
 * no files to sync, no notifications to queue, no temporary tables to empty, and SSI
 * finds no conflict with a transaction that is prepared and has written nothing.  Callbacks of other
 * libraries run before ours (xact.c); those that don't, and fail, make the client
 * see their error, with a WARNING that the transaction has committed elsewhere.
 *
 * Should any of it fail before the decision, the caller's transaction aborts, and what is prepared
 * is rolled back.  That needs no word to the register: only we would ever propose commit, and
 * we don't any more.  If what the register says is unknown, the branches are left alone:
 * recovery (recovery.c) asks it later, and so must the client (SQLSTATE 08007).
 *
 * The same holds for a single branch whose connection breaks while it commits: only
 * its node can tell.  (Its transaction ID is a witness until that server crashes: one that had not
 * got as far as the log on disk is given away again.)
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/predicate.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#include "cluster/branch.h"
#include "cluster/global.h"
#include "cluster/globalstate.h"
#include "cluster/lock.h"
#include "cluster/register.h"
#include "cluster/register_local.h"
#include "compat.h"
#include "core/gid.h"
#include "engine/announce.h"
#include "guc.h"
#include "risk_alert.h"
#include "shmem.h"

#define ROLLBACK_TIMEOUT 5		/* seconds, for all branches */
#define PHASE_TWO_TIMEOUT 10000 /* ms, for all branches */

typedef enum Stage
{
	STAGE_NONE,					/* -> PREPARING */
	STAGE_PREPARING,			/* -> PROPOSED, WRITTEN */
	STAGE_WRITTEN,				/* the caller's commit decides -> COMMITTED */
	STAGE_PROPOSED,				/* to a register that has not answered -> PREPARING, COMMITTED */
	STAGE_COMMITTED				/* it is decided */
} Stage;

static Stage stage = STAGE_NONE;
static RaGid gid;				/* of the transaction that is about to commit */
static char name[RA_GID_SIZE];
static int64 prepare_by;		/* ra_branch_now() by which it must be decided, once it has its name */
static const RaRegister *decider = NULL;	/* NULL: there is nothing to decide */
static bool holding = false;	/* interrupts */

static void pre_commit(void);
static void commit_readers(int64 deadline);
static void check_readers(void);
static void commit_single(RaBranch *branch, int64 deadline);
pg_noreturn static void report_unknown_single(RaBranch *branch);
static const char *late_failure(void);
static void ask_unsure(int64 deadline);
static void wait_for_answers(int64 deadline);
static bool notifies(void);
pg_noreturn static void refuse_late(const char *what);
static void two_phases(const char *late);
static void begin_two_phases(const char *late);
static void name_branch(RaBranch *branch);
static int	writers_with(RaBranch **branches, int n, const char *late);
static void prepare_branches(int64 deadline);
static void check_time(int64 deadline);
static void decide(int64 deadline);
static RaDecision propose_until(int64 deadline, char **reason);
static void hold(void);
static void let_go(void);
static void finish(void);
static bool phase_two(void);
static void forget(void);
static void roll_back(void);
static void left_to_recovery(RaBranch *branch, const char *format);
static void stop_at(const char *step, int number);
static void end(void);

void
ra_global_xact(XactEvent event)
{
	if (dlist_is_empty(&ra_branches))
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			pre_commit();
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has branches on other nodes"),
					 errhint("COMMIT prepares them by itself.")));
			break;
		case XACT_EVENT_COMMIT:
			ra_announce_sent();
			if (stage == STAGE_WRITTEN)
				stage = STAGE_COMMITTED;
			if (stage == STAGE_COMMITTED)
				finish();
			end();
			break;
		case XACT_EVENT_ABORT:
			if (stage == STAGE_COMMITTED)
			{
				/* somebody's callback has failed, see the top of this file */
				ereport(WARNING,
						(errcode(ERRCODE_WARNING),
						 errmsg("the transaction fails on this node, but has committed on others"),
						 name[0] ? errdetail("It was decided before the failure, as global transaction \"%s\".", name) : 0));
				finish();
			}
			roll_back();
			end();
			break;
		default:
			break;
	}
}

void
ra_global_subxact(SubXactEvent event)
{
	if (dlist_is_empty(&ra_branches))
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		ra_branch_subcommit(GetCurrentTransactionNestLevel());
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		ra_branch_subabort(GetCurrentTransactionNestLevel());
}

void
ra_global_end_of_session(void)
{
	ra_global_xact(XACT_EVENT_ABORT);
}

static void
end(void)
{
	ra_branch_forget_all();
	stage = STAGE_NONE;
	decider = NULL;
	name[0] = '\0';
	let_go();
}

/* ---------------------------------------------------------------- commit */

bool
ra_global_prepare_early(RaBranch **branches, int n)
{
	const char *late = late_failure();
	int			i;

	if (GetCurrentTransactionNestLevel() > 1 || writers_with(branches, n, late) < 2)
		return false;
	begin_two_phases(late);
	for (i = 0; i < n; i++)
		name_branch(branches[i]);
	return true;
}

void
ra_global_check_early(void)
{
	check_time(prepare_by);
}

static void
pre_commit(void)
{
	const char *late = late_failure();
	int64		deadline = ra_branch_now() + ra_commit_timeout;
	RaBranch   *writer = NULL;
	RaBranch   *branch;
	dlist_iter	iter;
	int			writers = 0;

	ask_unsure(deadline);
	ra_foreach_branch(iter, branch)
	{
		if (branch->state == RA_BRANCH_BROKEN)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("the branch on node \"%s\" was lost", branch->node),
					 errhint("Retry the transaction.")));
		if (!branch->opened)
			branch->state = RA_BRANCH_ENDED;
		else if (branch->wrote)
		{
			writer = branch;
			writers++;
		}
	}

	if (stage == STAGE_PREPARING || writers > 1 || (writers == 1 && late))
	{
		two_phases(late);
		return;
	}
	commit_readers(deadline);
	wait_for_answers(deadline);
	check_readers();
	if (writer)
		commit_single(writer, deadline);
}

/*
 * What the caller's own transaction has done that may still fail when its branches
 * have committed; NULL: nothing.
 */
static const char *
late_failure(void)
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return "written to this node outside of its branches";
	if (notifies())
		return "used NOTIFY, LISTEN or UNLISTEN";
	if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
		return "used temporary objects";
	return NULL;
}

/* Is there anything for PreCommit_Notify() to do?  That is only told as an error. */
static bool
notifies(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool result = false;

	PG_TRY();
	{
		AtPrepare_Notify();
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		result = true;
	}
	PG_END_TRY();
	return result;
}

static void
wait_for_answers(int64 deadline)
{
	if (!ra_branch_wait_all(deadline))
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("not all nodes have answered within %d ms", ra_commit_timeout)));
}

/*
 * Those that must be known to have written or not: they are prepared, or committed at once.  And if it
 * may be only one, an unknown outcome is found by its transaction ID.
 */
static void
ask_unsure(int64 deadline)
{
	RaBranch   *writer = NULL;
	RaBranch   *branch;
	dlist_iter	iter;
	int			writers = 0;

	ra_foreach_branch(iter, branch)
	{
		if (branch->state != RA_BRANCH_ACTIVE || !branch->opened)
			continue;
		if (branch->wrote)
		{
			writer = branch;
			writers++;
		}
		else if (branch->unsure)
			ra_branch_ask(branch);
	}
	if (writers == 1 && writer->xid[0] == '\0' && late_failure() == NULL && stage == STAGE_NONE)
		ra_branch_ask(writer);
	wait_for_answers(deadline);
	ra_foreach_branch(iter, branch)
	{
		/* of others, a failure may be undone with its savepoint */
		if (branch->state != RA_BRANCH_ACTIVE || !branch->opened)
			continue;
		if (branch->asked >= 0 && branch->counted < 0)
			ra_branch_check(branch);
		if (branch->unsure)
			branch->wrote = true;	/* for want of an answer */
	}
}

static void
refuse_late(const char *what)
{
	bool		wrote = TransactionIdIsValid(GetTopTransactionIdIfAny());

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the transaction has %s", what),
			 errdetail("With risk_alert.commit_register = %s it could not be committed together with them.",
					   decider->name),
			 wrote ? errhint("Write to this node by risk_alert.global_execute('%s', ...), too.", ra_node_name) :
			 errhint("Do that in a transaction of its own, or set risk_alert.commit_register to local.")));
}

/*
 * Branches that have written nothing.  Before the decision, since one that is SERIALIZABLE may still
 * fail.
 */
static void
commit_readers(int64 deadline)
{
	RaBranch   *branch;
	dlist_iter	iter;

	ra_foreach_branch(iter, branch)
	{
		if (branch->state == RA_BRANCH_ACTIVE && !branch->wrote && !ra_branch_send(branch, "COMMIT"))
			ra_branch_check(branch);
	}
}

static void
check_readers(void)
{
	RaBranch   *branch;
	dlist_iter	iter;

	ra_foreach_branch(iter, branch)
	{
		if (branch->state != RA_BRANCH_ACTIVE || branch->wrote)
			continue;
		ra_branch_check(branch);
		branch->state = RA_BRANCH_ENDED;
		if (strcmp(branch->tag, "COMMIT") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
					 errmsg("the branch on node \"%s\" has been rolled back", branch->node)));
	}
}

/*
 * The only branch that has written anything.  It is waited for without being cancelled half
 * way, unless the session is asked to give up.
 */
static void
commit_single(RaBranch *branch, int64 deadline)
{
	bool		ended;

	ra_lock_check_xact();
	PreCommit_CheckForSerializationFailure();

	stop_at("commit", 1);
	hold();
	ended = ra_branch_send(branch, "COMMIT") && ra_branch_wait_all_quietly(deadline, true);
	if (ended && strcmp(branch->tag, "COMMIT") == 0)
	{
		branch->state = RA_BRANCH_ENDED;
		stage = STAGE_COMMITTED;
		stop_at("decided", 0);
		return;
	}

	/* an error ends the hold */
	holding = false;
	if (!ended || ra_conn_lost(branch->conn) || PQtransactionStatus(branch->pg) != PQTRANS_IDLE)
		report_unknown_single(branch);
	branch->state = RA_BRANCH_ENDED;
	ra_branch_check(branch);
	ereport(ERROR,
			(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
			 errmsg("the branch on node \"%s\" has been rolled back", branch->node)));
}

static void
report_unknown_single(RaBranch *branch)
{
	const char *message = pstrdup(ra_branch_message(branch));

	ra_branch_break(branch);
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("it is not known whether the transaction has committed on node \"%s\"", branch->node),
			 errdetail_internal("%s", message),
			 branch->xid[0] == '\0' ? errhint("See there whether its changes are visible.") :
			 errhint("See there whether its changes are visible; unless that server has crashed since, SELECT pg_xact_status('%s') tells, too.",
					 branch->xid)));
}

static void
two_phases(const char *late)
{
	StringInfoData participants;
	RaBranch   *branch;
	dlist_iter	iter;

	begin_two_phases(late);
	ra_foreach_branch(iter, branch)
	{
		if (branch->state == RA_BRANCH_ACTIVE && branch->wrote)
			name_branch(branch);
	}
	prepare_branches(prepare_by);

	initStringInfo(&participants);
	ra_foreach_branch(iter, branch)
	{
		if (branch->state == RA_BRANCH_PREPARED)
			appendStringInfo(&participants, "%s%s", participants.len > 0 ? "," : "", branch->node);
	}
	ra_local_participants(participants.data);
	stop_at("decide", 0);
	ra_lock_check_xact();
	decide(prepare_by);
}

/* Unless it has begun: the transaction gets its register, its name and its lock */
static void
begin_two_phases(const char *late)
{
	ResourceOwner owner = CurrentResourceOwner;
	char	   *missing;
	LOCKTAG		tag;

	if (stage == STAGE_NONE)
		decider = ra_register(ra_commit_register);
	if (late && !decider->with_caller)
		refuse_late(late);
	if (stage != STAGE_NONE)
		return;
	missing = decider->missing ? decider->missing() : NULL;
	if (missing)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("register %s can't decide the transaction", decider->name),
				 errdetail_internal("%s", missing),
				 errhint("SELECT * FROM risk_alert.check_setup() tells more.  Correct it, or set risk_alert.commit_register to another one.")));
	if (decider->with_caller)
		ra_local_require_epoch();
	stop_at("prepare", 1);

	memset(&gid, 0, sizeof(gid));
	strlcpy(gid.cluster, ra_cluster_name, sizeof(gid.cluster));
	strlcpy(gid.coordinator, ra_node_name, sizeof(gid.coordinator));
	gid.register_letter = ra_register_letter(decider->kind);
	gid.database = MyDatabaseId;
	gid.epoch = ra_global_state->epoch;
	gid.number = pg_atomic_add_fetch_u64(&ra_global_state->number, 1);
	gid.position = GetFlushRecPtr(NULL);
	if (!ra_gid_format(&gid, name))
		elog(ERROR, "could not name the transaction");

	/* the transaction's, not the statement's: a cursor that fails in a savepoint would take it along */
	ra_global_lock_tag(&tag, gid.number);
	CurrentResourceOwner = TopTransactionResourceOwner;
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	CurrentResourceOwner = owner;
	prepare_by = ra_branch_now() + ra_commit_timeout;
	stage = STAGE_PREPARING;
}

/* The name that the branch is prepared with, and the command that commits it */
static void
name_branch(RaBranch *branch)
{
	RaGid		of_branch = gid;

	of_branch.branch = branch->number;
	if (!ra_gid_format(&of_branch, branch->gid))
		elog(ERROR, "could not name a branch");
	branch->command = MemoryContextStrdup(TopTransactionContext, psprintf("COMMIT PREPARED '%s'", branch->gid));
}

/* How many would have to be prepared: these branches, others that have written, the caller's own writes */
static int
writers_with(RaBranch **branches, int n, const char *late)
{
	int			writers = n + (late != NULL);
	RaBranch   *branch;
	dlist_iter	iter;

	ra_foreach_branch(iter, branch)
	{
		bool		named = false;

		for (int i = 0; i < n; i++)
			named = named || branches[i] == branch;
		if (!named && (branch->wrote || branch->unsure))
			writers++;
	}
	return writers;
}

static void
prepare_branches(int64 deadline)
{
	RaBranch   *failed = NULL;
	RaBranch   *branch;
	dlist_iter	iter;
	int			n = 0;

	commit_readers(deadline);
	ra_foreach_branch(iter, branch)
	{
		char		command[RA_GID_SIZE + 32];

		if (branch->state != RA_BRANCH_ACTIVE || !branch->wrote)
			continue;
		if (n++ > 0 && ra_debug_stop_at[0])
		{
			(void) ra_branch_wait_all(deadline);
			stop_at("prepare", n);
		}
		snprintf(command, sizeof(command), "PREPARE TRANSACTION '%s'", branch->gid);
		branch->state = RA_BRANCH_PREPARING;
		if (!ra_branch_send(branch, command))
			ra_branch_check(branch);
	}
	if (!ra_branch_wait_all(deadline))
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("not all nodes have prepared the transaction within %d ms", ra_commit_timeout),
				 errhint("risk_alert.commit_timeout sets the time limit.")));

	/* know them all before the first is told */
	ra_foreach_branch(iter, branch)
	{
		if (branch->state != RA_BRANCH_PREPARING)
			continue;
		if (strcmp(branch->tag, "PREPARE TRANSACTION") == 0)
			branch->state = RA_BRANCH_PREPARED;
		else
		{
			if (failed == NULL)
				failed = branch;

			/* it is rolled back if its node says so */
			if (!ra_conn_lost(branch->conn) && PQtransactionStatus(branch->pg) == PQTRANS_IDLE)
				branch->state = RA_BRANCH_ENDED;
		}
	}
	if (failed)
	{
		ra_branch_check(failed);
		ereport(ERROR,
				(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
				 errmsg("the branch on node \"%s\" has been rolled back", failed->node)));
	}
	check_readers();
}

static void
check_time(int64 deadline)
{
	if (ra_branch_now() >= deadline)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("the transaction has taken more than %d ms from its first PREPARE on", ra_commit_timeout),
				 errhint("risk_alert.commit_timeout sets the time limit.")));
}

static void
decide(int64 deadline)
{
	RaDecision	decision;
	char	   *reason = NULL;

	check_time(deadline);
	if (decider->with_caller)
	{
		(void) decider->propose(name, RA_DECISION_COMMIT, 0, &reason);
		stage = STAGE_WRITTEN;
		return;
	}

	/* nothing of the caller's may fail after the decision */
	PreCommit_CheckForSerializationFailure();
	CHECK_FOR_INTERRUPTS();
	hold();
	stage = STAGE_PROPOSED;
	decision = propose_until(deadline, &reason);
	if (decision == RA_DECISION_COMMIT)
	{
		stage = STAGE_COMMITTED;
		stop_at("decided", 0);
		return;
	}
	if (decision == RA_DECISION_ABORT)
	{
		stage = STAGE_PREPARING;
		holding = false;
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the transaction has been aborted by another node"),
				 errdetail("This node was taken to be gone."),
				 errhint("Retry the transaction.")));
	}
	ereport(NOTICE,
			(errmsg("the outcome of global transaction \"%s\" is not known yet", name)));
	holding = false;
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("it is not known whether the transaction has committed"),
			 errdetail("Register %s could not be asked: %s", decider->name, reason ? reason : "no reason is known"),
			 errhint("Recovery finishes it; SELECT risk_alert.global_outcome('%s') tells how.", name)));
}

/*
 * Again and again while the answer is unknown.  A request to cancel makes it unknown
 * for good, as the proposal may be under way; so does an error.
 */
static RaDecision
propose_until(int64 deadline, char **reason)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile RaDecision decision = RA_DECISION_UNKNOWN;

	PG_TRY();
	{
		do
		{
			int			left = (int) Max(deadline - ra_branch_now(), 1);

			decision = decider->propose(name, RA_DECISION_COMMIT, left, reason);
			if (decision == RA_DECISION_UNKNOWN && ra_branch_now() + 100 < deadline && !ra_register_given_up())
				pg_usleep(20000);
		} while (decision == RA_DECISION_UNKNOWN && ra_branch_now() + 100 < deadline && !ra_register_given_up());
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		HOLD_INTERRUPTS();		/* the error has ended the hold */
		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		*reason = edata->message;
		decision = RA_DECISION_UNKNOWN;
	}
	PG_END_TRY();
	return decision;
}

/* Interrupts, until the transaction ends, or an error is raised */
static void
hold(void)
{
	HOLD_INTERRUPTS();
	holding = true;
}

/* A request to cancel that came meanwhile has been heeded, and must not be an error now */
static void
let_go(void)
{
	if (!holding)
		return;
	holding = false;
	QueryCancelPending = false;
	(void) get_timeout_indicator(STATEMENT_TIMEOUT, true);
	(void) get_timeout_indicator(LOCK_TIMEOUT, true);

	/* PostgreSQL has its own hold by now, and an error has ended ours */
	if (InterruptHoldoffCount > 1)
		RESUME_INTERRUPTS();
}

/* ---------------------------------------------------------------- afterwards */

/* The transaction has committed.  Never throws. */
static void
finish(void)
{
	if (phase_two() && decider)
	{
		stop_at("forget", 0);
		forget();
	}
}

/*
 * The register's entry.  It stays if there is trouble, and recovery
 * finds it (forget.c).
 */
static void
forget(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	uint32		held = InterruptHoldoffCount;

	PG_TRY();
	{
		decider->forget(name);
	}
	PG_CATCH();
	{
		/* want of memory */
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		InterruptHoldoffCount = held;
	}
	PG_END_TRY();
}

/* It is decided: tell the branches; have all answered?  Never throws. */
static bool
phase_two(void)
{
	int64		until = ra_branch_now() + PHASE_TWO_TIMEOUT;
	RaBranch   *branch;
	dlist_iter	iter;
	bool		all = true;
	int			n = 0;

	stop_at("commit", 1);
	ra_foreach_branch(iter, branch)
	{
		if (branch->state != RA_BRANCH_PREPARED)
			continue;
		if (n++ > 0 && ra_debug_stop_at[0])
		{
			(void) ra_branch_wait_all_quietly(until, true);
			stop_at("commit", n);
		}
		(void) ra_branch_send(branch, branch->command);
	}
	(void) ra_branch_wait_all_quietly(until, true);

	ra_foreach_branch(iter, branch)
	{
		if (branch->state != RA_BRANCH_PREPARED)
			continue;

		/* if it isn't there any more, its node's recovery was faster */
		if (!branch->busy &&
			(strcmp(branch->tag, "COMMIT PREPARED") == 0 ||
			 ra_branch_sqlstate(branch) == ERRCODE_UNDEFINED_OBJECT))
		{
			branch->state = RA_BRANCH_ENDED;
			continue;
		}
		all = false;
		left_to_recovery(branch, "global transaction \"%s\" is committed, but its branch on node \"%s\" is not finished yet");
	}
	return all;
}

/* The message has its memory set aside: transactions end through this */
static void
left_to_recovery(RaBranch *branch, const char *format)
{
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg_internal(format, name, branch->node),
			 errdetail_internal("%s", ra_branch_message(branch)),
			 errhint("Recovery of that node finishes it.")));
	ra_branch_break(branch);
}

/* ---------------------------------------------------------------- rollback */

/* Never throws */
static void
roll_back(void)
{
	int64		until;
	RaBranch   *branch;
	dlist_iter	iter;

	/* undecided, as far as we know, or committed: not ours to roll back */
	if (stage == STAGE_PROPOSED || stage == STAGE_COMMITTED)
		return;

	ra_branch_interrupt(ROLLBACK_TIMEOUT);
	until = ra_branch_now() + ROLLBACK_TIMEOUT * 1000;
	(void) ra_branch_wait_all_quietly(until, false);
	ra_foreach_branch(iter, branch)
	{
		char		command[RA_GID_SIZE + 32];

		if (branch->busy)
		{
			ra_branch_break(branch);
			continue;
		}
		if (branch->state == RA_BRANCH_PREPARING)
		{
			if (strcmp(branch->tag, "PREPARE TRANSACTION") == 0)
				branch->state = RA_BRANCH_PREPARED;
			else if (PQtransactionStatus(branch->pg) != PQTRANS_INTRANS &&
					 PQtransactionStatus(branch->pg) != PQTRANS_INERROR)
				continue;
			else
				branch->state = RA_BRANCH_ACTIVE;
		}
		branch->pending_rollback = branch->pending_release = -1;
		if (branch->state == RA_BRANCH_PREPARED)
		{
			snprintf(command, sizeof(command), "ROLLBACK PREPARED '%s'", branch->gid);
			(void) ra_branch_send(branch, command);
		}
		else if (branch->state == RA_BRANCH_ACTIVE && branch->opened)
			(void) ra_branch_send(branch, "ROLLBACK");
	}
	(void) ra_branch_wait_all_quietly(until, false);
	ra_foreach_branch(iter, branch)
	{
		if (branch->state == RA_BRANCH_PREPARED &&
			(branch->busy || (strcmp(branch->tag, "ROLLBACK PREPARED") != 0 &&
							  ra_branch_sqlstate(branch) != ERRCODE_UNDEFINED_OBJECT)))
			left_to_recovery(branch, "global transaction \"%s\" is rolled back, but its branch on node \"%s\" is not finished yet");
	}
}

/* ---------------------------------------------------------------- tests */

/*
 * For tests: if the setting risk_alert.debug_stop_at names the step, waits while file
 * risk_alert.stop is in the data directory, and says so in the log.
 */
static void
stop_at(const char *step, int number)
{
	char		text[32];

	if (ra_debug_stop_at[0] == '\0')
		return;
	if (number > 0)
		snprintf(text, sizeof(text), "%s %d", step, number);
	else
		strlcpy(text, step, sizeof(text));
	if (strcmp(text, ra_debug_stop_at) != 0)
		return;
	ereport(LOG,
			(errmsg("stopped at \"%s\"", text)));
	while (access("risk_alert.stop", F_OK) == 0)
	{
		pg_usleep(10000);
		if (InterruptHoldoffCount == 0)
			CHECK_FOR_INTERRUPTS();
	}
}
