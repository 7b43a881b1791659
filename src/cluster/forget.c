/*
 * forget.c
 *	  Entries of registers zookeeper and paxos that their coordinators have not had forgotten.
 *
 * When all branches of a transaction are finished, its coordinator tells the register.  What is
 * here does so for coordinators that can't, each as part of recovery: for what
 * recovery has finished itself, and for what is merely found.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "cluster/ask.h"
#include "cluster/decision.h"
#include "cluster/forget.h"
#include "cluster/options.h"
#include "cluster/recovery.h"
#include "cluster/register.h"
#include "core/gid.h"
#include "guc.h"

#define EXPIRED_AT_ONCE 10000	/* votes removed in a round */
#define EXPIRED_VOTES 512		/* removed at a time, about, */
#define EXPIRED_ROWS 64			/* of so many rows at most */
#define LEFT_AT_ONCE 1000		/* votes judged in a round */

/*
 * Votes that may go, or that ra_forget_left() has to judge.  A tenth older than need be: those whose
 * coordinator has told so are gone by then.
 */
#define OLD_VOTES \
	" FROM risk_alert.paxos_acceptor a" \
	" WHERE a.created_at < now() - 1.1 * current_setting('risk_alert.register_retention')::interval" \
	"   AND a.changed_at < now() - 1.1 * current_setting('risk_alert.register_retention')::interval"
#define OLD_FORGOTTEN \
	" FROM risk_alert.paxos_forgotten f WHERE f.forgotten_at < now() - current_setting('risk_alert.register_retention')::interval"

/* who finds nothing takes it for aborted */
#define MAY_GO "(a.value IS DISTINCT FROM 'commit' AND a.decided IS DISTINCT FROM 'commit')"
#define OURS "starts_with(a.gid, 'ra:' || current_setting('risk_alert.cluster_name') || ':')"

static void forget_all(RaRegisterKind kind, List *gids);
static bool knows_participants(const RaGid *gid, List *nodes, List **judged);

char *
ra_prepared_there(const char *node, const char *beginning)
{
	char	   *answers[2];
	char	   *reason;

	if (!ra_ask_node(node, "SELECT COALESCE(pg_catalog.string_agg(x.gid, ' '), ''),"
					 " CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.current_setting('risk_alert.node_name', true) END"
					 "  FROM pg_catalog.pg_prepared_xacts x WHERE pg_catalog.starts_with(x.gid, $1)",
					 beginning, RA_RECOVERY_ASK_MS, answers, 2, &reason))
		return NULL;
	return answers[1] && strcmp(answers[1], node) == 0 ? answers[0] : NULL;
}

char *
ra_prepared_anywhere(List *nodes)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];
	char	   *beginning = psprintf("ra:%s:", ra_cluster_name);
	char	   *here;
	StringInfoData prepared;
	ListCell   *lc;

	initStringInfo(&prepared);
	foreach(lc, nodes)
	{
		char	   *there = ra_prepared_there(lfirst(lc), beginning);

		if (there == NULL)
			return NULL;
		appendStringInfo(&prepared, "%s ", there);
	}
	values[0] = CStringGetTextDatum(beginning);
	if (SPI_execute_with_args("SELECT string_agg(x.gid, ' ') FROM pg_prepared_xacts x WHERE starts_with(x.gid, $1)",
							  1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list prepared transactions");
	here = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	appendStringInfoString(&prepared, here ? here : "");
	return prepared.data;
}

bool
ra_has_branch(const char *prepared, const char *gid)
{
	return strstr(prepared, psprintf("%s:", gid)) != NULL;
}

void
ra_recovered_note(const char *name)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(name)};

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args("INSERT INTO risk_alert.global_recovered (gid) VALUES ($1) ON CONFLICT DO NOTHING",
							  1, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write risk_alert.global_recovered");
	PopActiveSnapshot();
	SPI_finish();
}

/*
 * What was finished here without its coordinator, and has no branch on any node any more: nobody
 * else may ever tell the register.  All branches were prepared when it was decided, so none can come
 * later.  How many are left.
 */
int
ra_recovered_tell(void)
{
	char	   *prepared = NULL;
	List	   *finished[RA_REGISTER_PAXOS + 1] = {0};	/* by kind of register */
	SPITupleTable *rows;
	uint64		left = 0;
	uint64		n;
	uint64		i;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute("SELECT r.gid FROM risk_alert.global_recovered r LIMIT 1000", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read risk_alert.global_recovered");
	rows = SPI_tuptable;
	n = SPI_processed;
	if (n > 0)
		prepared = ra_prepared_anywhere(ra_node_names());
	for (i = 0; i < n; i++)
	{
		char	   *name = SPI_getvalue(rows->vals[i], rows->tupdesc, 1);
		Oid			types[1] = {TEXTOID};
		Datum		values[1] = {CStringGetTextDatum(name)};
		char	   *reason;
		RaDecision	decision = RA_DECISION_NONE;
		RaRegisterKind kind;
		RaGid		gid;

		left++;
		if (prepared == NULL || ra_has_branch(prepared, name))
			continue;
		if (ra_gid_parse(name, strlen(name), &gid) && ra_register_by_letter(gid.register_letter, &kind))
		{
			decision = ra_register(kind)->read(name, RA_RECOVERY_ASK_MS, &reason);
			if (decision == RA_DECISION_COMMIT)
				finished[kind] = lappend(finished[kind], name);
		}
		if (decision == RA_DECISION_UNKNOWN)
			continue;
		if (SPI_execute_with_args("DELETE FROM risk_alert.global_recovered r WHERE r.gid OPERATOR(pg_catalog.=) $1",
								  1, types, values, NULL, false, 0) != SPI_OK_DELETE)
			elog(ERROR, "could not delete from risk_alert.global_recovered");
		left--;
	}
	for (i = 0; i < lengthof(finished); i++)
		forget_all(i, finished[i]);
	PopActiveSnapshot();
	SPI_finish();
	return (int) left;
}

static void
forget_all(RaRegisterKind kind, List *gids)
{
	const RaRegister *decider;
	ListCell   *lc;

	if (gids == NIL)
		return;
	decider = ra_register(kind);
	if (decider->forget_all)
		decider->forget_all(gids, RA_RECOVERY_ASK_MS);
	else
		foreach(lc, gids)
			decider->forget(lfirst(lc));
}

/*
 * A transaction has branches only on nodes that its coordinator's database has servers for.  Does this
 * database have them, too?  *judged: answers so far, so that each coordinator is asked once.
 */
static bool
knows_participants(const RaGid *gid, List *nodes, List **judged)
{
	typedef struct Coordinator
	{
		const char *name;
		uint32		database;
		bool		known;
	} Coordinator;
	Coordinator *c;
	ListCell   *lc;
	char	   *answers[2];
	char	   *reason;

	if (strcmp(gid->coordinator, ra_node_name) == 0)
		return gid->database == MyDatabaseId;
	foreach(lc, *judged)
	{
		c = lfirst(lc);
		if (c->database == gid->database && strcmp(c->name, gid->coordinator) == 0)
			return c->known;
	}
	c = palloc0(sizeof(Coordinator));
	c->name = gid->coordinator;
	c->database = gid->database;
	*judged = lappend(*judged, c);

	if (ra_ask_node(gid->coordinator, "SELECT d.oid, (SELECT pg_catalog.string_agg(s.srvname, pg_catalog.chr(10)) FROM pg_catalog.pg_foreign_server s"
					"  JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw WHERE w.fdwname OPERATOR(pg_catalog.=) $1)"
					"  FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()",
					RA_NODE_FDW, RA_RECOVERY_ASK_MS, answers, 2, &reason) &&
		answers[1] && strtoul(answers[0], NULL, 10) == gid->database)
	{
		char	   *node;
		char	   *rest;

		c->known = true;
		for (node = strtok_r(answers[1], "\n", &rest); node; node = strtok_r(NULL, "\n", &rest))
		{
			bool		found = false;

			foreach(lc, nodes)
				found = found || strcmp(lfirst(lc), node) == 0;
			c->known = c->known && found;
		}
	}
	return c->known;
}

/*
 * Commits that no register was told to forget: the coordinator crashed, or could not reach the register, after
 * the last branch was finished, or an operator has finished them, or this acceptor was down when it was told.
 * Each Paxos acceptor forgets its own vote; entries of ZooKeeper are found by the leader (ra_decisions_sweep()).
 *
 * They go when they are older than the retention and no node has a branch.  Nobody is told "aborted" by that:
 *	- Commit was there before the nodes are asked, and is proposed only when all branches are prepared.  So
 *	  where there is none now, it was finished, and none can come.
 *	- But on a server that is set back to an earlier time, or on a node that is not known here.  Such a branch
 *	  is older than the entry, hence than the retention: when its recovery finds nothing, it doesn't propose
 *	  abort, but leaves it to an operator (ra_may_be_forgotten()), as with what the coordinator has had forgotten.
 *	- That shall not be needed for a node that is only down: if one can't be asked, or the coordinator can't
 *	  say which nodes there are, or knows one that is not known here, what is left stays.
 *	- A coordinator that is still at work after so long can but propose commit again.
 * That several do it at once, or the coordinator after all, does no harm.
 */
void
ra_forget_left(void)
{
	Oid			types[1] = {TEXTARRAYOID};
	Datum		values[1];
	Datum	   *votes;
	List	   *nodes = ra_node_names();
	List	   *entries = nodes ? ra_decisions_take_left() : NIL;
	List	   *judged = NIL;
	char	   *prepared = NULL;
	ListCell   *lc;
	SPITupleTable *rows;
	uint64		n;
	uint64		i;
	int			nvotes = 0;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute("SELECT a.gid" OLD_VOTES " AND NOT " MAY_GO " AND " OURS " ORDER BY a.created_at LIMIT " CppAsString2(LEFT_AT_ONCE),
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read risk_alert.paxos_acceptor");
	rows = SPI_tuptable;
	n = SPI_processed;
	votes = palloc(Max(n, 1) * sizeof(Datum));
	if (n > 0 || entries)
		prepared = ra_prepared_anywhere(nodes);
	for (i = 0; i < n && prepared; i++)
	{
		char	   *name = SPI_getvalue(rows->vals[i], rows->tupdesc, 1);
		RaGid	   *gid = palloc(sizeof(RaGid));

		if (ra_gid_parse(name, strlen(name), gid) && !ra_has_branch(prepared, name) &&
			knows_participants(gid, nodes, &judged))
			votes[nvotes++] = CStringGetTextDatum(name);
	}

	/* now() is before anybody was asked: who has voted since then keeps the row */
	values[0] = PointerGetDatum(construct_array(votes, nvotes, TEXTOID, -1, false, TYPALIGN_INT));
	if (SPI_execute_with_args("DELETE FROM risk_alert.paxos_acceptor WHERE gid IN"
							  " (SELECT a.gid" OLD_VOTES " AND (" MAY_GO " OR a.gid = ANY ($1))"
							  "   LIMIT " CppAsString2(EXPIRED_AT_ONCE) " FOR UPDATE SKIP LOCKED)",
							  1, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete from risk_alert.paxos_acceptor");

	foreach(lc, entries)
	{
		char	   *name = lfirst(lc);
		RaGid	   *gid = palloc(sizeof(RaGid));
		RaDecision	decision = RA_DECISION_UNKNOWN;
		char	   *reason;

		if (prepared && ra_gid_parse(name, strlen(name), gid) && !ra_has_branch(prepared, name) &&
			knows_participants(gid, nodes, &judged))
		{
			decision = ra_register_zookeeper.read(name, RA_RECOVERY_ASK_MS, &reason);
			if (decision == RA_DECISION_UNKNOWN)
				prepared = NULL;	/* nor will it say more of the others */
		}
		if (decision == RA_DECISION_COMMIT)
			ra_decisions_forget_left(name);
		else if (decision == RA_DECISION_UNKNOWN)
			ra_decisions_left(NULL, name, strlen(name));	/* for later, or another database */
	}
	PopActiveSnapshot();
	SPI_finish();
}

/*
 * What coordinators have told is finished, and its time is over.  A vote that was changed since
 * then stays, for ra_forget_left() to judge.  A few at a time, so that who votes meanwhile doesn't
 * notice: rows of paxos_forgotten stand for one vote or for hundreds.  Is there more?
 */
bool
ra_forget_expired(void)
{
	bool		more;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute("WITH told AS ("
					"  DELETE FROM risk_alert.paxos_forgotten WHERE ctid = ANY (ARRAY("
					"    SELECT x.ctid FROM ("
					"      SELECT o.ctid, o.votes, sum(o.votes) OVER (ORDER BY o.forgotten_at, o.ctid) AS all_votes FROM ("
					"        SELECT f.ctid, f.forgotten_at, cardinality(f.gids) AS votes" OLD_FORGOTTEN
					"         ORDER BY f.forgotten_at LIMIT " CppAsString2(EXPIRED_ROWS) " FOR UPDATE SKIP LOCKED) o) x"
					"     WHERE x.all_votes - x.votes < " CppAsString2(EXPIRED_VOTES) "))"
					"  RETURNING forgotten_at, gids), votes AS ("
					"  DELETE FROM risk_alert.paxos_acceptor a USING told t"
					"   WHERE a.gid = ANY (t.gids) AND a.changed_at < t.forgotten_at)"
					" SELECT FROM told", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not delete from risk_alert.paxos_acceptor");
	more = SPI_processed > 0;
	PopActiveSnapshot();
	SPI_finish();
	return more;
}

bool
ra_anything_to_forget(void)
{
	if (SPI_execute("(SELECT" OLD_VOTES " AND (" MAY_GO " OR " OURS ") LIMIT 1) UNION ALL (SELECT" OLD_FORGOTTEN " LIMIT 1)",
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for votes");
	return SPI_processed > 0 || (ra_decisions_any_left() && ra_node_names() != NIL);
}
