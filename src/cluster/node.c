/*
 * node.c
 *	  Statements on other nodes, and what is known about the nodes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "cluster/connection.h"
#include "cluster/members.h"
#include "cluster/nodestat.h"
#include "cluster/options.h"
#include "compat.h"
#include "risk_alert.h"
#include "shmem.h"

#define MEMBER_COLUMNS 6

/* One request: what is asked, and where its rows go */
typedef struct Request
{
	const char *node;
	const char *sql;
	int			nparams;
	const char **params;
	ReturnSetInfo *rsinfo;
	AttInMetadata *conversion;
	MemoryContext row_cxt;
	const char *column;			/* being converted, for the error context */
} Request;

PG_FUNCTION_INFO_V1(ra_on_node);
PG_FUNCTION_INFO_V1(ra_members_fn);
PG_FUNCTION_INFO_V1(ra_is_leader);

static void get_params(ArrayType *array, Request *request);
static void ask(Request *request);
static void store_tag(Request *request, PGresult *res);
static void store_rows(Request *request, PGresult *res);
static void conversion_context(void *arg);

/*
 * risk_alert.on_node(node, sql, params): runs one statement there, as a
 * transaction of its own, and returns its rows.  They arrive as text and are
 * read by the input functions of the types that the caller's column list
 * names.
 *
 * What it waits for there may be waiting for us: a lock that this transaction
 * holds, if the node is this server, or if its statement asks back.  No server
 * sees such a deadlock; statement_timeout ends it.
 */
Datum
ra_on_node(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Request		request = {0};
	instr_time	start;
	instr_time	now;
	int			gucs;

	ra_require_preload();
	ra_check_version();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "node" : "sql")));
	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) || rsinfo->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("on_node() is called where its result has no columns"),
				 errhint("SELECT * FROM risk_alert.on_node(...) AS t (score int, ...)")));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);

	request.node = text_to_cstring(PG_GETARG_TEXT_PP(0));
	request.sql = text_to_cstring(PG_GETARG_TEXT_PP(1));
	(void) ra_node_server(request.node, false);	/* only nodes are counted */
	if (!PG_ARGISNULL(2))
		get_params(PG_GETARG_ARRAYTYPE_P(2), &request);
	request.rsinfo = rsinfo;
	request.conversion = TupleDescGetAttInMetadata(rsinfo->setDesc);
	request.row_cxt = AllocSetContextCreate(CurrentMemoryContext, "row of another node",
											ALLOCSET_DEFAULT_SIZES);

	/* how values arrive, see connection.c */
	gucs = NewGUCNestLevel();
	(void) set_config_option("datestyle", "ISO, MDY", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("intervalstyle", "postgres", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);

	INSTR_TIME_SET_CURRENT(start);
	PG_TRY();
	{
		ask(&request);
	}
	PG_CATCH();
	{
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		ra_nodestat_count(request.node, INSTR_TIME_GET_MILLISEC(now), true);
		PG_RE_THROW();
	}
	PG_END_TRY();
	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	ra_nodestat_count(request.node, INSTR_TIME_GET_MILLISEC(now), false);

	AtEOXact_GUC(false, gucs);
	MemoryContextDelete(request.row_cxt);
	PG_RETURN_NULL();
}

static void
get_params(ArrayType *array, Request *request)
{
	Datum	   *values;
	bool	   *nulls;
	int			i;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &request->nparams);
	request->params = palloc(request->nparams * sizeof(char *));
	for (i = 0; i < request->nparams; i++)
		request->params[i] = nulls[i] ? NULL : TextDatumGetCString(values[i]);
}

static void
ask(Request *request)
{
	RaConn	   *conn = ra_conn_get(request->node, RA_CONN_QUERY);
	ErrorContextCallback context = {.previous = error_context_stack,.callback = conversion_context,.arg = request};
	PGresult   *res;

	ra_conn_send(conn, request->sql, request->nparams, request->params, true);
	while ((res = ra_conn_next(conn)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		error_context_stack = &context;
		if (PQresultStatus(res) == PGRES_COMMAND_OK || PQresultStatus(res) == PGRES_EMPTY_QUERY)
			store_tag(request, res);
		else
			store_rows(request, res);
		error_context_stack = context.previous;
	}
	ra_conn_release(conn);
}

/* A statement without rows gives its command tag to whoever expects one text */
static void
store_tag(Request *request, PGresult *res)
{
	TupleDesc	desc = request->rsinfo->setDesc;
	Datum		value;
	bool		null = false;

	if (desc->natts != 1 || TupleDescAttr(desc, 0)->atttypid != TEXTOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the statement on node \"%s\" returns no rows", request->node),
				 errdetail("It has been executed: %s.", PQcmdStatus(res)),
				 errhint("Its result is one row with its command tag: AS t (result text).")));
	value = CStringGetTextDatum(PQcmdStatus(res));
	tuplestore_putvalues(request->rsinfo->setResult, desc, &value, &null);
}

static void
store_rows(Request *request, PGresult *res)
{
	TupleDesc	desc = request->rsinfo->setDesc;
	int			natts = desc->natts;
	char	  **values;
	int			row;
	int			col;

	if (PQnfields(res) != natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the rows of node \"%s\" have another number of columns than expected", request->node),
				 errdetail("They have %d, the column list has %d.", PQnfields(res), natts)));
	for (row = 0; row < PQntuples(res); row++)
	{
		MemoryContext before = MemoryContextSwitchTo(request->row_cxt);
		Datum	   *datums = palloc(natts * sizeof(Datum));
		bool	   *nulls = palloc(natts * sizeof(bool));

		values = palloc(natts * sizeof(char *));
		for (col = 0; col < natts; col++)
		{
			request->column = NameStr(TupleDescAttr(desc, col)->attname);
			values[col] = PQgetisnull(res, row, col) ? NULL : PQgetvalue(res, row, col);
			nulls[col] = values[col] == NULL;
			datums[col] = InputFunctionCall(&request->conversion->attinfuncs[col], values[col],
											request->conversion->attioparams[col],
											request->conversion->atttypmods[col]);
		}
		request->column = NULL;
		tuplestore_putvalues(request->rsinfo->setResult, desc, datums, nulls);
		MemoryContextSwitchTo(before);
		MemoryContextReset(request->row_cxt);
	}
}

static void
conversion_context(void *arg)
{
	Request    *request = arg;

	if (request->column)
		errcontext("column \"%s\" of a row of node \"%s\"", request->column, request->node);
}

/*
 * risk_alert._members(): one row per member of the cluster
 */
Datum
ra_members_fn(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RaMember   *members;
	int			n;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	n = ra_members(&members, NULL);
	for (i = 0; i < n; i++)
	{
		RaMember   *member = &members[i];
		Datum		values[MEMBER_COLUMNS];
		bool		nulls[MEMBER_COLUMNS] = {false};

		values[0] = CStringGetTextDatum(member->name);
		values[1] = BoolGetDatum(member->live);
		values[2] = BoolGetDatum(member->leader);
		values[3] = BoolGetDatum(member->self);
		values[4] = Float8GetDatum(member->load);
		values[5] = TimestampTzGetDatum(member->last_seen);
		nulls[5] = member->last_seen == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	PG_RETURN_NULL();
}

/*
 * risk_alert.is_leader(): does this node lead the cluster?
 */
Datum
ra_is_leader(PG_FUNCTION_ARGS)
{
	RaMember   *members;
	int			n = ra_members(&members, NULL);
	int			i;

	for (i = 0; i < n; i++)
	{
		if (members[i].self)
			PG_RETURN_BOOL(members[i].live && members[i].leader);
	}
	PG_RETURN_BOOL(false);
}
