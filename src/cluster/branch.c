/*
 * branch.c
 *	  The parts of this session's transaction that run on other nodes.
 *
 * A branch is a transaction on a node, begun when the first statement goes there, by a
 * connection of its own.  Statements travel as pipelines: BEGIN, what is to be said about
 * savepoints, the user's statement, and a question for the transaction ID are one message.
 * The extended protocol has one statement per Parse, so the user's can't smuggle in a
 * second one; and it must not be one that ends the transaction (statement.c).
 *
 * Savepoints.  A level of local nesting (a savepoint, a PL/pgSQL block with an EXCEPTION
 * clause) becomes a savepoint there only when a statement is run in it, and one
 * savepoint stands for all levels that have begun since the branch's last statement.
 * What is to be rolled back or released is noted, and said with the next message; so
 * ending a level takes no round trip, and can't fail.  The rolled-back part keeps its locks
 * there until then.
 *
 * A message that does not come to its end leaves the branch broken, as nobody knows
 * what was done of it.  It can't commit any more, then; unless the level in which the
 * branch was begun is rolled back, which leaves nothing to know about.
 */
#include "postgres.h"

#include <poll.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "cluster/branch.h"
#include "cluster/locktable.h"
#include "cluster/nodestat.h"
#include "cluster/statement.h"
#include "cluster/waiting.h"
#include "compat.h"
#include "guc.h"

#define MAX_BATCH 8

/* of a transaction: what waits without memory of its own has room for so many */
#define MAX_BRANCHES 64

#define XID_STATEMENT "risk_alert_xid"
#define XID_QUERY "SELECT pg_catalog.pg_current_xact_id_if_assigned()"

/* Milliseconds that it waits for one branch alone, see wait_for_all() */
#define IN_TURN 10

/* What is known of a connection (ra_conn_notes()) */
#define NOTE_CHECKED 1
#define NOTE_PREPARED 2			/* XID_STATEMENT was made */
#define NOTE_DEALLOCATED 4		/* and the user takes such statements away */

typedef struct Statement
{
	const char *name;			/* prepared by it, if not NULL */
	bool		make;			/* only that: sql is to be */
	bool		simple;			/* a command of ours that is all of the message */
	const char *sql;
	int			nparams;
	const char *const *params;
} Statement;

typedef struct Batch
{
	int			n;
	Statement	statements[MAX_BATCH];
	char		texts[MAX_BATCH][96];
} Batch;

dlist_head	ra_branches = DLIST_STATIC_INIT(ra_branches);

static int	branches_made = 0;	/* in this transaction */
static uint32 wait_event = 0;

static void check_participant(RaConn *conn);
static void prepare_xid(RaConn *conn);
static void judge_all(void);
static void judge_prepared(RaBranch *branch);
static bool spoiled(RaBranch *branch);
static bool has_others(void);
static int	add_question(Batch *batch, RaBranch *branch);
static void add_statement(Batch *batch, const char *sql, int nparams, const char *const *params);
static void make_room(RaBranch *branch);
static void add_pending(Batch *batch, RaBranch *branch);
static void enter_level(Batch *batch, RaBranch *branch, int level);
static bool send_batch(RaBranch *branch, const Batch *batch, int first, int counted, int asked, RaPrepared *prepared);
static bool send_statement(RaBranch *branch, const Statement *s);
static bool advance(RaBranch *branch);
static void take_result(RaBranch *branch, PGresult *res);
static bool wait_for_all(int64 until, bool statements);
static void note_failure(RaBranch *branch, const char *sqlstate);
static bool ready(RaBranch *branch);
static void ended(RaBranch *branch);

RaBranch *
ra_branch_get(const char *node)
{
	RaBranch   *branch;
	RaConn	   *conn;
	dlist_iter	iter;
	int			n = 0;

	ra_foreach_branch(iter, branch)
	{
		if (branch->state == RA_BRANCH_BROKEN && branch->userid == GetUserId() &&
			strcmp(branch->node, node) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("the branch on node \"%s\" was lost", node),
					 errhint("Roll back, and retry the transaction.")));
	}

	branch = MemoryContextAllocZero(TopTransactionContext, sizeof(RaBranch));
	branch->max_savepoints = 4;
	branch->savepoints = MemoryContextAlloc(TopTransactionContext,
											branch->max_savepoints * sizeof(struct RaSavepoint));
	conn = ra_conn_get(node, RA_CONN_BRANCH);
	if (dlist_is_empty(&ra_branches))
		branches_made = 0;
	else
	{
		RaBranch   *other;

		ra_foreach_branch(iter, other)
		{
			n++;
			if (other->conn == conn)
			{
				pfree(branch->savepoints);
				pfree(branch);
				if (other->state == RA_BRANCH_PREPARED)
					ereport(ERROR,
							(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							 errmsg("the branch on node \"%s\" is prepared already", node),
							 errdetail("prepare => true has said that nothing more comes.")));
				return other;
			}
		}
	}

	if (n >= MAX_BRANCHES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a global transaction cannot have more than %d branches", MAX_BRANCHES),
				 errhint("Split the transaction.")));
	check_participant(conn);
	prepare_xid(conn);
	ra_conn_adopt(conn);
	strlcpy(branch->node, ra_conn_node(conn), NAMEDATALEN);
	branch->userid = GetUserId();
	branch->number = ++branches_made;
	branch->state = RA_BRANCH_ACTIVE;
	branch->conn = conn;
	branch->pg = ra_conn_pg(conn);
	branch->pending_rollback = branch->pending_release = -1;
	dlist_push_tail(&ra_branches, &branch->list);
	return branch;
}

/*
 * Once per connection: will somebody there look after a branch that its
 * coordinator leaves behind?
 */
static void
check_participant(RaConn *conn)
{
	PGresult   *res;
	const char *node = ra_conn_node(conn);

	if (*ra_conn_notes(conn) & NOTE_CHECKED)
		return;
	/* without the library, what stands in a configuration file is no setting of the view */
	ra_conn_send(conn, "SELECT (SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) 'risk_alert.cluster_name'), "
				 "(SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'risk_alert')",
				 0, NULL, false);
	ra_conn_wait_all(&conn, 1);
	ra_conn_check(conn);
	res = ra_conn_result(conn);
	if (PQgetisnull(res, 0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot take part in global transactions", node),
				 errdetail("The database there does not have the extension."),
				 errhint("CREATE EXTENSION risk_alert there, or name another database with option dbname of the server.")));
	if (PQgetisnull(res, 0, 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot take part in global transactions", node),
				 errdetail("The library is not preloaded there."),
				 errhint("Add risk_alert to shared_preload_libraries on that server, then restart it.")));
	if (strcmp(PQgetvalue(res, 0, 0), ra_cluster_name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is of another cluster", node),
				 errdetail("risk_alert.cluster_name is \"%s\" there, and \"%s\" here.",
						   PQgetvalue(res, 0, 0), ra_cluster_name),
				 errhint("Set it on the server where it is wrong, and restart that.")));
	*ra_conn_notes(conn) |= NOTE_CHECKED;
}

/*
 * Once per connection: the question for the transaction ID, which comes with statements that
 * don't tell whether they have written, shall not be parsed and planned each time
 */
static void
prepare_xid(RaConn *conn)
{
	const char *state;

	if (*ra_conn_notes(conn) & NOTE_PREPARED)
		return;
	ra_conn_send(conn, "PREPARE " XID_STATEMENT " AS " XID_QUERY, 0, NULL, false);
	ra_conn_wait_all(&conn, 1);
	state = PQresultErrorField(ra_conn_result(conn), PG_DIAG_SQLSTATE);
	if (state == NULL || strcmp(state, "42P05") != 0)
		ra_conn_check(conn);	/* else it was, and we have not heard of it */
	*ra_conn_notes(conn) |= NOTE_PREPARED;
}

void
ra_branch_start(RaBranch *branch, const char *sql, int nparams, const char *const *params, bool last)
{
	int			level = GetCurrentTransactionNestLevel();
	bool		writes = false;
	bool		notifies = false;
	bool		deallocates = false;
	Batch		batch = {0};
	char		prepare[sizeof(branch->gid) + 32];
	int			user;
	int			first;
	int			asked = -1;
	RaPrepared *prepared = NULL;

	Assert(branch->state == RA_BRANCH_ACTIVE && !branch->busy);
	if (ra_control_statement(sql, &writes, &notifies, &deallocates))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("transaction control statements cannot be run in a branch of a global transaction"),
				 errhint("BEGIN, SAVEPOINT, ROLLBACK and COMMIT of this session hold for its branches, too.")));

	if (deallocates)
		*ra_conn_notes(branch->conn) |= NOTE_DEALLOCATED;
	if (writes && (*ra_conn_notes(branch->conn) & NOTE_DEALLOCATED) == 0)
		prepared = ra_prepared_find(ra_conn_prepared(branch->conn), sql);
	make_room(branch);

	/* all modes: what plain BEGIN means there may change at any time, by a reload for instance */
	if (!branch->opened)
	{
		snprintf(batch.texts[0], sizeof(batch.texts[0]), "BEGIN ISOLATION LEVEL %s%s",
				 XactIsoLevel == XACT_SERIALIZABLE ? "SERIALIZABLE" :
				 XactIsoLevel == XACT_REPEATABLE_READ ? "REPEATABLE READ" : "READ COMMITTED",
				 XactReadOnly ? " READ ONLY" : " READ WRITE");
		add_statement(&batch, batch.texts[0], 0, NULL);
	}
	add_pending(&batch, branch);
	enter_level(&batch, branch, level);
	first = batch.n;
	if (prepared && prepared->state == RA_PREPARED_LATER)
	{
		add_statement(&batch, sql, 0, NULL);
		batch.statements[first].name = prepared->name;
		batch.statements[first].make = true;
	}
	user = batch.n;
	add_statement(&batch, sql, nparams, params);
	if (prepared && (prepared->state == RA_PREPARED_LATER || prepared->state == RA_PREPARED_DONE))
		batch.statements[user].name = prepared->name;

	/* with others, it will be prepared if it has written: most statements tell that themselves */
	if (branch->xid[0] == '\0' && !last && !(has_others() && (writes || branch->wrote)))
		asked = add_question(&batch, branch);

	if (last)
	{
		snprintf(prepare, sizeof(prepare), "PREPARE TRANSACTION '%s'", branch->gid);
		add_statement(&batch, prepare, 0, NULL);
		branch->early = true;
		branch->state = RA_BRANCH_PREPARING;
	}

	if (level == 1)
		branch->base_work = true;
	if (notifies)
		branch->wrote = true;	/* what PREPARE has to say about it shall be heard */
	if (!send_batch(branch, &batch, first, user, asked, prepared))
	{
		branch->state = RA_BRANCH_BROKEN;
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not send a statement to node \"%s\"", branch->node),
				 errdetail_internal("%s", pchomp(PQerrorMessage(branch->pg)))));
	}
	branch->opened = true;
	branch->started = true;
	branch->writer = writes;
	branch->unsure = branch->unsure || (writes && asked < 0);
}

void
ra_branch_ask(RaBranch *branch)
{
	Batch		batch = {0};
	int			asked;

	add_pending(&batch, branch);
	asked = add_question(&batch, branch);
	if (!send_batch(branch, &batch, -1, -1, asked, NULL))
		ra_branch_check(branch);
}

static int
add_question(Batch *batch, RaBranch *branch)
{
	add_statement(batch, XID_QUERY, 0, NULL);
	if ((*ra_conn_notes(branch->conn) & NOTE_DEALLOCATED) == 0)
		batch->statements[batch->n - 1].name = XID_STATEMENT;
	return batch->n - 1;
}

/* Does the transaction consist of more than one branch, as it looks? */
static bool
has_others(void)
{
	return dlist_has_next(&ra_branches, dlist_head_node(&ra_branches)) ||
		TransactionIdIsValid(GetTopTransactionIdIfAny());
}

int64
ra_branch_finish(RaBranch *branch)
{
	judge_all();
	if (branch->copying)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("COPY from or to the client cannot be run on a node"),
				 errcontext("statement on node \"%s\"", branch->node)));
	ra_branch_check(branch);
	if (branch->state != (branch->early ? RA_BRANCH_PREPARED : RA_BRANCH_ACTIVE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("the statement has ended its transaction on node \"%s\"", branch->node)));
	return branch->affected;
}

/* Those that ran at the same time are judged together, since the first error is the end of it */
static void
judge_all(void)
{
	RaBranch   *branch;
	dlist_iter	iter;

	ra_foreach_branch(iter, branch)
	{
		if (branch->busy || !branch->started)
			continue;
		branch->started = false;
		if (branch->state == RA_BRANCH_PREPARING)
			judge_prepared(branch);
		else if (spoiled(branch))
			branch->state = RA_BRANCH_BROKEN;
	}
}

/* If its connection is lost, its state stays what it is, and recovery of its node sees to it */
static void
judge_prepared(RaBranch *branch)
{
	PGTransactionStatusType status = PQtransactionStatus(branch->pg);

	if (branch->failure == NULL && strcmp(branch->tag, "PREPARE TRANSACTION") == 0)
	{
		branch->wrote = true;	/* and if it hasn't, it is prepared all the same */
		branch->state = RA_BRANCH_PREPARED;
	}
	else if (ra_conn_lost(branch->conn) || branch->copying)
		return;
	else if (status == PQTRANS_IDLE)
		branch->state = RA_BRANCH_ENDED;	/* PREPARE has failed, and rolled it back */
	else
		branch->state = RA_BRANCH_ACTIVE;	/* what came before it has failed */
}

/* Is it unknown, after the latest statement, what the branch consists of? */
static bool
spoiled(RaBranch *branch)
{
	PGTransactionStatusType status = PQtransactionStatus(branch->pg);

	if (branch->copying || ra_conn_lost(branch->conn))
		return true;
	if (branch->failure == NULL)
		return status != PQTRANS_INTRANS;

	/* it has ended with the savepoint made, or nobody knows */
	return branch->position < branch->first ||
		(branch->position <= branch->counted && status != PQTRANS_INERROR);
}

static void
add_statement(Batch *batch, const char *sql, int nparams, const char *const *params)
{
	Assert(batch->n < MAX_BATCH);
	batch->statements[batch->n++] = (Statement) {.sql = sql,.nparams = nparams,.params = params};
}

/* For one more savepoint; before what is pending is taken, which must not be lost with an error */
static void
make_room(RaBranch *branch)
{
	if (branch->nsavepoints == branch->max_savepoints)
	{
		branch->savepoints = repalloc(branch->savepoints,
									  2 * branch->max_savepoints * sizeof(struct RaSavepoint));
		branch->max_savepoints *= 2;
	}
}

static void
add_pending(Batch *batch, RaBranch *branch)
{
	if (branch->pending_rollback >= 0)
	{
		snprintf(batch->texts[batch->n], sizeof(batch->texts[0]), "ROLLBACK TO SAVEPOINT risk_alert_%d",
				 branch->pending_rollback);
		add_statement(batch, batch->texts[batch->n], 0, NULL);
	}
	if (branch->pending_release >= 0)
	{
		snprintf(batch->texts[batch->n], sizeof(batch->texts[0]), "RELEASE SAVEPOINT risk_alert_%d",
				 branch->pending_release);
		add_statement(batch, batch->texts[batch->n], 0, NULL);
	}
	branch->pending_rollback = branch->pending_release = -1;
}

/* A savepoint, if none stands for the level yet */
static void
enter_level(Batch *batch, RaBranch *branch, int level)
{
	int			top = branch->nsavepoints > 0 ? branch->savepoints[branch->nsavepoints - 1].to : 1;

	if (top >= level)
		return;
	snprintf(batch->texts[batch->n], sizeof(batch->texts[0]), "SAVEPOINT risk_alert_%d", branch->nsavepoints);
	add_statement(batch, batch->texts[batch->n], 0, NULL);
	branch->savepoints[branch->nsavepoints++] = (struct RaSavepoint) {top + 1, level};
}

bool
ra_branch_send(RaBranch *branch, const char *command)
{
	Batch		batch = {0};

	add_pending(&batch, branch);
	add_statement(&batch, command, 0, NULL);
	batch.statements[0].simple = batch.n == 1;
	return send_batch(branch, &batch, -1, -1, -1, NULL);
}

static bool
send_batch(RaBranch *branch, const Batch *batch, int first, int counted, int asked, RaPrepared *prepared)
{
	int			i;

	Assert(!branch->busy);
	PQclear(branch->failure);
	branch->failure = NULL;
	branch->position = 0;
	branch->affected = 0;
	branch->tag[0] = '\0';
	branch->first = first;
	branch->counted = counted;
	branch->prepared = prepared;
	branch->asked = asked;
	branch->pipeline = batch->n > 1;

	if (ra_conn_lost(branch->conn) || (branch->pipeline && !PQenterPipelineMode(branch->pg)))
		return false;
	for (i = 0; i < batch->n; i++)
	{
		if (!send_statement(branch, &batch->statements[i]))
			return false;
	}
	if (branch->pipeline && !PQpipelineSync(branch->pg))
		return false;
	branch->busy = true;
	ra_nodestat_begin(branch->node);

	/* trouble shows when the answer is waited for */
	(void) PQflush(branch->pg);
	if (counted == 0)
		PQsetSingleRowMode(branch->pg);
	return true;
}

static bool
send_statement(RaBranch *branch, const Statement *s)
{
	if (s->simple)
		return PQsendQuery(branch->pg, s->sql);
	if (s->make)
		return PQsendPrepare(branch->pg, s->name, s->sql, 0, NULL);
	if (s->name)
		return PQsendQueryPrepared(branch->pg, s->name, s->nparams, s->params, NULL, NULL, 0);
	return PQsendQueryParams(branch->pg, s->sql, s->nparams, NULL, s->params, NULL, NULL, 0);
}

/* Can PQgetResult() be called without blocking? */
static bool
ready(RaBranch *branch)
{
	if (ra_conn_lost(branch->conn) || PQflush(branch->pg) < 0)
		return true;
	return !PQisBusy(branch->pg);
}

/* Takes what results have arrived; true: the message has come to its end */
static bool
advance(RaBranch *branch)
{
	while (branch->busy && ready(branch))
	{
		PGresult   *res = PQgetResult(branch->pg);

		if (res)
			take_result(branch, res);
		else if (branch->pipeline && !ra_conn_lost(branch->conn))
		{
			if (branch->failure == NULL)
				branch->position++;
			if (branch->position == branch->counted)
				PQsetSingleRowMode(branch->pg);
		}
		else
		{
			if (branch->failure == NULL)
				branch->position++;
			ended(branch);
		}
	}
	return !branch->busy;
}

/* Takes over the result */
static void
take_result(RaBranch *branch, PGresult *res)
{
	switch (PQresultStatus(res))
	{
		case PGRES_PIPELINE_SYNC:
			(void) PQexitPipelineMode(branch->pg);
			ended(branch);
			break;
		case PGRES_PIPELINE_ABORTED:
		case PGRES_EMPTY_QUERY:
			break;
		case PGRES_SINGLE_TUPLE:
			if (branch->position == branch->counted)
				branch->affected++;
			break;
		case PGRES_TUPLES_OK:
		case PGRES_COMMAND_OK:
			if (branch->failure)
				break;
			strlcpy(branch->tag, PQcmdStatus(res), sizeof(branch->tag));
			if (branch->position == branch->counted)
			{
				const char *n = PQcmdTuples(res);

				branch->affected = n[0] ? strtoll(n, NULL, 10) : 0;
				branch->wrote = branch->wrote || (branch->writer && branch->affected > 0);
				if (branch->prepared && PQnfields(res) == 0)
					ra_prepared_ran(branch->prepared);
			}
			else if (branch->position == branch->first)
				branch->prepared->state = RA_PREPARED_DONE;
			else if (branch->position == branch->asked && PQntuples(res) == 1)
			{
				branch->unsure = false;
				if (PQgetisnull(res, 0, 0))
					break;
				branch->wrote = true;
				strlcpy(branch->xid, PQgetvalue(res, 0, 0), sizeof(branch->xid));
			}
			break;
		case PGRES_COPY_IN:
		case PGRES_COPY_OUT:
		case PGRES_COPY_BOTH:
			branch->copying = true;
			ended(branch);
			break;
		default:
			/* the first failure stays: what follows it tells less */
			if (branch->failure)
				break;
			branch->failure = res;
			note_failure(branch, PQresultErrorField(res, PG_DIAG_SQLSTATE));
			return;
	}
	PQclear(res);
}

/* What its prepared statements have to do with it */
static void
note_failure(RaBranch *branch, const char *sqlstate)
{
	bool		ours = branch->position >= branch->first && branch->position <= branch->counted &&
		branch->prepared && branch->prepared->sql;

	if (sqlstate == NULL)
		return;

	/* somebody has taken them away */
	if (strcmp(sqlstate, "26000") == 0 && (ours || branch->position == branch->asked))
		*ra_conn_notes(branch->conn) |= NOTE_DEALLOCATED;

	/* it was prepared for a type, say, that is not there any more; a right that is missing is no such case */
	if (ours && strcmp(sqlstate, "42501") != 0 && (strncmp(sqlstate, "42", 2) == 0 || strncmp(sqlstate, "XX", 2) == 0))
		ra_prepared_start_over(branch->prepared);
}

static void
ended(RaBranch *branch)
{
	branch->busy = false;
	ra_nodestat_end(branch->node);
}

void
ra_branch_wait_started(void)
{
	(void) wait_for_all(0, true);
}

bool
ra_branch_wait_all(int64 until)
{
	return wait_for_all(until, false);
}

/*
 * statements: one that fails ends it with its error, as another may wait for what that one has locked.
 * Else all answer soon, in any order, so it waits for one after the other, which spares it
 * being woken by each; but not for long, as it could be that one that does not answer.
 */
static bool
wait_for_all(int64 until, bool statements)
{
	bool		in_turn = !statements;

	for (;;)
	{
		RaSocket	sockets[MAX_BRANCHES];
		RaBranch   *waiting[MAX_BRANCHES];
		RaBranch   *branch;
		dlist_iter	iter;
		int			n = 0;
		long		left = -1;
		bool		latch;
		int			i;

		CHECK_FOR_INTERRUPTS();
		ra_foreach_branch(iter, branch)
		{
			int			unsent = 0;

			if (branch->busy && !advance(branch))
			{
				unsent = PQflush(branch->pg);
				if (unsent < 0)
					(void) advance(branch); /* it was lost just now */
			}
			if (!branch->busy)
			{
				if (statements && branch->started && (branch->failure || branch->copying))
					(void) ra_branch_finish(branch);
				continue;
			}
			waiting[n] = branch;
			sockets[n++] = (RaSocket)
			{
				.fd = PQsocket(branch->pg),.serial = ra_conn_serial(branch->conn),
					.events = WL_SOCKET_READABLE | (unsent > 0 ? WL_SOCKET_WRITEABLE : 0)
			};
		}
		if (n == 0)
			return true;
		if (until > 0)
		{
			left = (long) (until - ra_branch_now());
			if (left <= 0)
				return false;
		}

		if (in_turn && n > 1)
		{
			left = left < 0 ? IN_TURN : Min(left, IN_TURN);
			n = 1;
		}
		latch = ra_wait_for_sockets(sockets, n, left, ra_wait_event(&wait_event, "RiskAlertBranch"));
		for (i = 0; i < n; i++)
		{
			if (sockets[i].ready)
				(void) PQconsumeInput(waiting[i]->pg);
			else if (!latch)
				in_turn = false;
		}
	}
}

bool
ra_branch_wait_all_quietly(int64 until, bool heed)
{
	bool		in_turn = true;

	for (;;)
	{
		struct pollfd sockets[MAX_BRANCHES];
		RaBranch   *waiting[MAX_BRANCHES];
		RaBranch   *branch;
		dlist_iter	iter;
		int			n = 0;
		int64		left = until - ra_branch_now();
		int			ready;
		int			i;

		ra_foreach_branch(iter, branch)
		{
			if (branch->busy && !advance(branch))
			{
				waiting[n] = branch;
				sockets[n].fd = PQsocket(branch->pg);
				sockets[n].events = POLLIN | (PQflush(branch->pg) > 0 ? POLLOUT : 0);
				sockets[n++].revents = 0;
			}
		}
		if (n == 0)
			return true;
		if (left <= 0 || (heed && (QueryCancelPending || ProcDiePending)))
			return false;

		/* (a signal that comes just before is noticed a moment later) */
		if (in_turn && n > 1)
			n = 1;
		ready = poll(sockets, n, (int) Min(left, in_turn && n == 1 ? IN_TURN : 100));
		if (ready <= 0)
		{
			in_turn = false;
			continue;
		}
		for (i = 0; i < n; i++)
		{
			if (sockets[i].revents & ~POLLOUT)
				(void) PQconsumeInput(waiting[i]->pg);
		}
	}
}

int64
ra_branch_now(void)
{
	return (int64) (ra_boottime() / 1000000);
}

void
ra_branch_check(RaBranch *branch)
{
	if (branch->failure)
		ra_conn_report(branch->conn, branch->failure);
	if (branch->conn == NULL || ra_conn_lost(branch->conn))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the connection to node \"%s\" was lost", branch->node)));
}

int
ra_branch_sqlstate(RaBranch *branch)
{
	const char *state = branch->failure ? PQresultErrorField(branch->failure, PG_DIAG_SQLSTATE) : NULL;

	if (state == NULL || strlen(state) != 5)
		return 0;
	return MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
}

const char *
ra_branch_message(RaBranch *branch)
{
	const char *message = branch->failure ? PQresultErrorField(branch->failure, PG_DIAG_MESSAGE_PRIMARY) : NULL;

	if (message)
		return message;
	return branch->busy ? "There was no answer in time." : "The connection was lost.";
}

void
ra_branch_break(RaBranch *branch)
{
	if (branch->busy)
		ended(branch);
	if (branch->conn)
		ra_conn_drop(branch->conn);
	branch->conn = NULL;
	branch->pg = NULL;
	branch->started = false;
	branch->state = RA_BRANCH_BROKEN;
}

void
ra_branch_release(RaBranch *branch)
{
	if (branch->conn == NULL)
		return;
	if (branch->busy)
		ended(branch);
	if (PQtransactionStatus(branch->pg) == PQTRANS_IDLE && PQpipelineStatus(branch->pg) == PQ_PIPELINE_OFF)
		ra_conn_release(branch->conn);
	else
		ra_conn_drop(branch->conn);
	branch->conn = NULL;
	branch->pg = NULL;
}

void
ra_branch_interrupt(int seconds)
{
	RaConn	   *conns[MAX_BRANCHES];
	RaBranch   *branches[MAX_BRANCHES];
	bool		good[MAX_BRANCHES];
	int64		until = ra_branch_now() + seconds * 1000;
	RaBranch   *branch;
	dlist_iter	iter;
	int			n = 0;
	int			i;

	judge_all();
	ra_foreach_branch(iter, branch)
	{
		if (branch->busy && (branch->state == RA_BRANCH_ACTIVE ||
							 (branch->state == RA_BRANCH_PREPARING && branch->early)))
		{
			branches[n] = branch;
			conns[n++] = branch->conn;
		}
	}
	if (n == 0)
		return;

	/* how far a message has come is judged as without the cancelling: it may be at its very beginning */
	ra_conn_cancel_all(conns, good, n, seconds);
	(void) ra_branch_wait_all_quietly(until, false);
	judge_all();
	for (i = 0; i < n; i++)
	{
		PGTransactionStatusType status = PQtransactionStatus(branches[i]->pg);

		/* an early one may be prepared, or rolled back, and is known to be */
		if (good[i] && (branches[i]->state == RA_BRANCH_PREPARED || branches[i]->state == RA_BRANCH_ENDED))
			continue;
		if (!good[i] || branches[i]->busy || branches[i]->state != RA_BRANCH_ACTIVE ||
			(status != PQTRANS_INERROR && status != PQTRANS_INTRANS))
			ra_branch_break(branches[i]);
	}
}

void
ra_branch_subcommit(int level)
{
	RaBranch   *branch;
	dlist_iter	iter;

	ra_foreach_branch(iter, branch)
	{
		while (branch->nsavepoints > 0 && branch->savepoints[branch->nsavepoints - 1].from >= level)
			branch->pending_release = --branch->nsavepoints;
		if (branch->nsavepoints > 0 && branch->savepoints[branch->nsavepoints - 1].to >= level)
			branch->savepoints[branch->nsavepoints - 1].to = level - 1;
		if (level == 2 && branch->opened)
			branch->base_work = true;
	}
}

void
ra_branch_subabort(int level)
{
	dlist_mutable_iter iter;

	ra_branch_interrupt(5);
	dlist_foreach_modify(iter, &ra_branches)
	{
		RaBranch   *branch = dlist_container(RaBranch, list, iter.cur);
		int			target = branch->nsavepoints;

		while (target > 0 && branch->savepoints[target - 1].to >= level)
			target--;

		/* all of it is undone, or nothing was done: no branch any more */
		if (!branch->base_work && target == 0 &&
			(branch->state == RA_BRANCH_BROKEN || !branch->opened))
		{
			dlist_delete(&branch->list);
			ra_branch_release(branch);
			PQclear(branch->failure);
			continue;
		}
		if (branch->state == RA_BRANCH_BROKEN)
		{
			ra_branch_break(branch);
			continue;
		}
		if (target == branch->nsavepoints)
			continue;

		branch->pending_rollback = target;
		if (branch->pending_release > target)
			branch->pending_release = -1;
		branch->savepoints[target].to = level - 1;
		branch->nsavepoints = target + 1;
		if (branch->savepoints[target].from > branch->savepoints[target].to)
		{
			branch->pending_release = target;
			branch->nsavepoints = target;
		}
	}
}

void
ra_branch_forget_all(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &ra_branches)
	{
		RaBranch   *branch = dlist_container(RaBranch, list, iter.cur);

		dlist_delete(&branch->list);
		ra_branch_release(branch);
		PQclear(branch->failure);
	}
}
