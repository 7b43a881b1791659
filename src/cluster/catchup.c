/*
 * catchup.c
 *	  What was published while this node was away.
 *
 * A publication goes to the nodes that are members at the time (sql/install/45_publish.sql).  A
 * node that becomes one, for the first time since its server was started or after its
 * session at the coordination service was lost, asks all others what they have, and puts it
 * into use, before its worker takes another event from the queue.
 *
 * Nothing is missed in between, because every publisher looks who is a member *after* it has
 * locked what it publishes on all members it knew, and an answer
 *
 *	1. is given only by a node that knows the asker as a member, in its present session
 *	   (it names that by a word that each member publishes), and
 *	2. is read after that, and waits for the same locks.
 *
 * So when a publisher has locked before the answer was read, the answer waits for it and tells the
 * new epoch.  When it locks later, the list it looks at afterwards has the asker in it.
 * That holds for publishers on nodes that are asked; those that the asker doesn't know as
 * members have come later than itself, and know it.
 *
 * That all are asked who are members *now* does not do if those that have published come back
 * later, as after an outage of the service.  So whenever others have become members, they are
 * all asked again; events don't wait for that.
 *
 * The asker holds no lock of its own while it waits for answers: a publisher that has it in its
 * list wants its locks.
 *
 * It is done by recovery (recovery.c), which has the time, and with the rights of whoever has put
 * the last publication into use here.  The worker waits no longer than catch_up_timeout:
 * then it goes on with what it has, and says so.  A node that is no member does so anyway: nobody
 * can tell it anything.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "cluster/ask.h"
#include "cluster/catchup.h"
#include "cluster/globalstate.h"
#include "cluster/locktable.h"
#include "cluster/members.h"
#include "guc.h"

#define ASK_TIMEOUT 5000		/* ms */
#define LOCK_TIMEOUT_SETTING "1s"

/* A stream or list of which another node has a newer epoch */
typedef struct Behind
{
	bool		stream;
	char	   *name;
	char	   *node;
	Oid			role;
	char	   *epoch;
	bool		dropped;
	char	   *content;		/* JSON */
} Behind;

static uint64 asked = 0;		/* members_hash() before they were asked last */

PG_FUNCTION_INFO_V1(ra_catching_up_fn);
PG_FUNCTION_INFO_V1(ra_is_member_fn);

static bool clustered(void);
static uint64 session(void);
static bool publications_here(void);
static bool any_publication(void);
static uint64 members_hash(void);
static char *ask_members(void);
static List *find_behind(const char *answers);
static void fetch(Behind *behind);
static void fetch_missing_lists(Behind *behind, const char *definition);
static void put_into_use(const Behind *behind);
static char *ask_for(const char *node, const char *sql, const char *param);

static bool
clustered(void)
{
	return ra_cluster != NULL && ra_lock_provider != RA_LOCK_PROVIDER_LOCAL && ra_node_name[0] != '\0';
}

/* A number for the session; 0: there is none, so this node is no member */
static uint64
session(void)
{
	uint64		epoch = pg_atomic_read_u64(&ra_cluster->epoch);

	return epoch & 1 ? epoch : 0;
}

void
ra_catch_up_run(char *run, Size size)
{
	uint64		now = ra_cluster ? session() : 0;

	if (now == 0)
		run[0] = '\0';
	else
		snprintf(run, size, "%x.%llx", ra_global_state->epoch, (unsigned long long) now);
}

/* ---------------------------------------------------------------- the worker's side */

bool
ra_catch_up_hold(RaDatabase *db)
{
	static uint64 looked = UINT64_MAX;	/* the session in which we looked ... */
	static bool any;			/* ... whether anything was ever published here */
	static TimestampTz since = 0;
	uint64		now;
	uint64		done;
	TimestampTz time;
	int64		limit;

	if (!clustered())
		return false;
	now = session();
	done = pg_atomic_read_u64(&db->caught_up);
	if (done != 0 && (now == 0 || now == done))
	{
		pg_atomic_write_u64(&db->catching_up, 0);
		return false;
	}

	time = GetCurrentTimestamp();
	if (looked != now)
	{
		looked = now;
		any = publications_here();
		since = time;
		if (any)
			pg_atomic_write_u64(&db->catching_up, (uint64) time);
	}
	if (!any)
	{
		if (now != 0)
			pg_atomic_write_u64(&db->caught_up, now);
		return false;
	}

	/* after a start, give the broker the time to get its session */
	limit = now != 0 ? (int64) ra_catch_up_timeout * 1000 : ra_session_timeout;
	if (limit > 0 && (time < since || time - since > limit * 1000))
	{
		if (pg_atomic_exchange_u64(&db->catching_up, 0) != 0)
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 now != 0 ?
					 errmsg("events are scored although this node has not caught up with the others") :
					 errmsg("events are scored although this node is no member of the cluster"),
					 errdetail("What was published while it was away is not in use here."),
					 errhint("See risk_alert.stat_recovery and risk_alert.stat_coordination.")));
		return false;
	}
	return true;
}

static bool
publications_here(void)
{
	bool		result;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	result = any_publication();
	CommitTransactionCommand();
	return result;
}

static bool
any_publication(void)
{
	bool		result;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute("(SELECT FROM risk_alert.stream s WHERE s.epoch IS NOT NULL LIMIT 1)"
					" UNION ALL (SELECT FROM risk_alert.list_epoch LIMIT 1)", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for publications");
	result = SPI_processed > 0;
	PopActiveSnapshot();
	SPI_finish();
	return result;
}

/* ---------------------------------------------------------------- recovery's side */

bool
ra_catch_up_wanted(void)
{
	RaDatabase *db = clustered() ? ra_my_database() : NULL;

	return db && session() != 0 && pg_atomic_read_u64(&db->caught_up) != session();
}

bool
ra_catch_up_due(void)
{
	RaDatabase *db = clustered() ? ra_my_database() : NULL;

	return db && session() != 0 &&
		(pg_atomic_read_u64(&db->caught_up) != session() || pg_atomic_read_u64(&db->members_asked) != members_hash());
}

/* The others that are members, each in its session */
static uint64
members_hash(void)
{
	RaMember   *members = NULL;	/* stays so if this is no node of a cluster */
	uint64		hash = 0;
	int			n = ra_members(&members, NULL);
	int			i;

	for (i = 0; i < n; i++)
	{
		const char *run = strstr(members[i].data, "run=");

		if (members[i].self)
			continue;
		hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) members[i].name, strlen(members[i].name), 0));
		if (run)
			hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) run, strcspn(run, " "), 0));
	}
	if (members)
		pfree(members);
	return hash;
}

uint64
ra_catch_up(void)
{
	uint64		now = session();
	char	   *answers;
	List	   *behind;
	ListCell   *lc;

	if (now == 0)
		return 0;
	asked = members_hash();
	/* where nothing was ever published, other nodes' news are none */
	if (pg_atomic_read_u64(&ra_my_database()->caught_up) == now && !any_publication())
		return now;
	answers = ask_members();
	behind = find_behind(answers);

	/*
	 * First everything from others, then our own locks.  A branch that we are to finish
	 * ourselves may have them.
	 */
	foreach(lc, behind)
		fetch(lfirst(lc));
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT_SETTING, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	foreach(lc, behind)
		put_into_use(lfirst(lc));
	CommandCounterIncrement();

	if (session() != now)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the session at the coordination service was lost while this node caught up")));
	if (behind)
		ereport(LOG,
				(errmsg("risk_alert: catching up with %d publications of other nodes", list_length(behind))));
	return now;
}

void
ra_catch_up_done(uint64 session)
{
	RaDatabase *db = ra_my_database();

	if (session == 0 || db == NULL)
		return;
	pg_atomic_write_u64(&db->members_asked, asked);
	pg_atomic_write_u64(&db->caught_up, session);
	pg_atomic_write_u64(&db->catching_up, 0);
	ra_wake_worker();
}

/* What all other members have, as a JSON object by their names */
static char *
ask_members(void)
{
	RaMember   *members;
	StringInfoData answers;
	char		own[64];
	bool		listed = false;
	int			n = ra_members(&members, NULL);
	int			i;

	ra_catch_up_run(own, sizeof(own));
	initStringInfo(&answers);
	appendStringInfoChar(&answers, '{');
	for (i = 0; i < n; i++)
	{
		if (members[i].self)
			listed = ra_member_says(&members[i], "run", own);
	}
	/* a list that doesn't have us may be from before this session */
	if (!listed)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node is not yet in the list of members")));
	for (i = 0; i < n; i++)
	{
		char	   *answer;

		if (members[i].self)
			continue;
		answer = ask_for(members[i].name, "SELECT risk_alert._publications(pg_catalog.split_part($1, ' ', 1), pg_catalog.split_part($1, ' ', 2))",
						 psprintf("%s %s", ra_node_name, own));
		if (answer == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("node \"%s\" does not yet know this node as a member", members[i].name)));
		if (answers.len > 1)
			appendStringInfoChar(&answers, ',');
		escape_json(&answers, members[i].name);
		appendStringInfo(&answers, ":%s", answer);
	}
	appendStringInfoChar(&answers, '}');
	return answers.data;
}

/* An answer to the server's own question; NULL for NULL */
static char *
ask_for(const char *node, const char *sql, const char *param)
{
	char	   *answer = NULL;
	char	   *reason;

	if (!ra_ask_node(node, sql, param, ASK_TIMEOUT, &answer, 1, &reason))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" can't be asked what was published: %s", node, reason)));
	return answer;
}

static List *
find_behind(const char *answers)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(answers)};
	MemoryContext cxt = CurrentMemoryContext;
	List	   *result = NIL;
	uint64		i;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args("SELECT b.kind, b.name, b.node, b.role, b.epoch, b.dropped FROM risk_alert._behind($1::pg_catalog.jsonb) b",
							  1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not compare publications");
	for (i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext before = MemoryContextSwitchTo(cxt);
		Behind	   *behind = palloc0(sizeof(Behind));
		bool		isnull;

		behind->stream = strcmp(SPI_getvalue(tuple, desc, 1), "stream") == 0;
		behind->name = SPI_getvalue(tuple, desc, 2);
		behind->node = SPI_getvalue(tuple, desc, 3);
		behind->role = DatumGetObjectId(SPI_getbinval(tuple, desc, 4, &isnull));
		behind->epoch = SPI_getvalue(tuple, desc, 5);
		behind->dropped = DatumGetBool(SPI_getbinval(tuple, desc, 6, &isnull));
		result = lappend(result, behind);
		MemoryContextSwitchTo(before);
	}
	PopActiveSnapshot();
	SPI_finish();
	return result;
}

static void
fetch(Behind *behind)
{
	if (behind->stream)
	{
		char	   *definition = ask_for(behind->node, "SELECT risk_alert._published($1)", behind->name);

		if (definition == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("node \"%s\" has no publication of stream \"%s\" any more", behind->node, behind->name)));
		fetch_missing_lists(behind, definition);
	}
	else if (!behind->dropped)
		behind->content = ask_for(behind->node, "SELECT risk_alert._list_contents($1)", behind->name);
}

/* {"epoch": ..., "definition": ..., "lists": {...}} */
static void
fetch_missing_lists(Behind *behind, const char *definition)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(definition)};
	MemoryContext cxt = CurrentMemoryContext;
	StringInfoData content;
	List	   *missing = NIL;
	ListCell   *lc;
	uint64		i;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args("SELECT u.name FROM pg_catalog.jsonb_array_elements_text($1::pg_catalog.jsonb OPERATOR(pg_catalog.->) 'lists') u (name)"
							  " WHERE NOT EXISTS (SELECT FROM risk_alert.list l WHERE l.name OPERATOR(pg_catalog.=) u.name)",
							  1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for lists");
	for (i = 0; i < SPI_processed; i++)
	{
		MemoryContext before = MemoryContextSwitchTo(cxt);

		missing = lappend(missing, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		MemoryContextSwitchTo(before);
	}
	PopActiveSnapshot();
	SPI_finish();

	initStringInfo(&content);
	appendStringInfo(&content, "{\"published\":%s,\"lists\":{", definition);
	foreach(lc, missing)
	{
		if (foreach_current_index(lc) > 0)
			appendStringInfoChar(&content, ',');
		escape_json(&content, lfirst(lc));
		appendStringInfo(&content, ":%s", ask_for(behind->node, "SELECT risk_alert._list_contents($1)", lfirst(lc)));
	}
	appendStringInfoString(&content, "}}");
	behind->content = content.data;
}

/* With the rights of the role that has put the last publication into use */
static void
put_into_use(const Behind *behind)
{
	Oid			types[4] = {TEXTOID, TEXTOID, BOOLOID, TEXTOID};
	Datum		values[4];
	char		nulls[5] = "    ";
	Oid			userid;
	int			sec;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(behind->role)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the role that has published %s \"%s\" here no longer exists", behind->stream ? "stream" : "list", behind->name),
				 behind->stream ?
				 errhint("SELECT risk_alert.pull_cluster(...) makes it yours.") : 0));
	values[0] = CStringGetTextDatum(behind->name);
	values[1] = CStringGetTextDatum(behind->epoch);
	values[2] = BoolGetDatum(behind->dropped);
	values[3] = behind->content ? CStringGetTextDatum(behind->content) : (Datum) 0;
	if (behind->content == NULL)
		nulls[3] = 'n';

	GetUserIdAndSecContext(&userid, &sec);
	SetUserIdAndSecContext(behind->role, sec | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args(behind->stream ?
							  "SELECT risk_alert._adopt_rule_set($1, $2::pg_catalog.int8, $3, $4::pg_catalog.jsonb)" :
							  "SELECT risk_alert._adopt_list($1, $2::pg_catalog.int8, $3, $4::pg_catalog.jsonb)",
							  4, types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not put a publication into use");
	PopActiveSnapshot();
	SPI_finish();
	SetUserIdAndSecContext(userid, sec);
}

/* risk_alert._catching_up(): since when events wait (NULL: they don't), and whether there is something to do */
Datum
ra_catching_up_fn(PG_FUNCTION_ARGS)
{
	RaDatabase *db = ra_my_database();
	uint64		since = db ? pg_atomic_read_u64(&db->catching_up) : 0;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = TimestampTzGetDatum((TimestampTz) since);
	nulls[0] = since == 0;
	values[1] = BoolGetDatum(ra_catch_up_wanted());
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* ---------------------------------------------------------------- the others' side */

/*
 * risk_alert._is_member(node, run): is that node a member, as far as this one knows, in
 * that session of it?
 */
Datum
ra_is_member_fn(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *run = text_to_cstring(PG_GETARG_TEXT_PP(1));
	RaMember   *members;
	int			n = ra_members(&members, NULL);
	int			i;

	for (i = 0; i < n; i++)
	{
		if (members[i].live && strcmp(members[i].name, name) == 0)
			PG_RETURN_BOOL(ra_member_says(&members[i], "run", run));
	}
	PG_RETURN_BOOL(false);
}
