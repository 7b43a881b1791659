/*
 * ask_all.c
 *	  One question to many nodes at once, where one that fails spoils nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "cluster/connection.h"
#include "cluster/try.h"
#include "compat.h"
#include "shmem.h"

#define ASK_TIMEOUT 5000		/* ms for all answers */
#define COLUMNS 3

typedef struct Asked
{
	char	   *node;
	const char *sql;
	RaConn	   *conn;			/* NULL: it couldn't be asked */
	char	   *answer;
	char	   *error;
} Asked;

PG_FUNCTION_INFO_V1(ra_ask_nodes);

static void send_question(void *arg);
static void take_answer(Asked *asked);

/*
 * risk_alert._ask_nodes(nodes, sql): the first column of the first row that each answers, or why it
 * doesn't; as the caller, as on_node() does.
 */
Datum
ra_ask_nodes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *sql = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Datum	   *names;
	bool	   *nulls;
	int			n;
	Asked	   *asked;
	RaConn	  **conns;
	int			nconns = 0;
	int			i;

	ra_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	asked = palloc0(Max(n, 1) * sizeof(Asked));
	conns = palloc(Max(n, 1) * sizeof(RaConn *));
	for (i = 0; i < n; i++)
	{
		ErrorData  *error;

		asked[i].node = TextDatumGetCString(names[i]);
		asked[i].sql = sql;
		error = ra_try(send_question, &asked[i]);
		if (error)
			asked[i].error = ra_error_reason(error->message, error->detail);
		else
			conns[nconns++] = asked[i].conn;
	}
	(void) ra_conn_wait_all_for(conns, nconns, ASK_TIMEOUT);
	for (i = 0; i < n; i++)
	{
		Datum		values[COLUMNS];
		bool		isnull[COLUMNS];

		if (asked[i].conn)
		{
			if (!ra_conn_wait_all_for(&asked[i].conn, 1, 0))
			{
				ra_conn_drop(asked[i].conn);
				asked[i].error = "it did not answer in time";
			}
			else
				take_answer(&asked[i]);
		}
		values[0] = CStringGetTextDatum(asked[i].node);
		isnull[0] = false;
		isnull[1] = asked[i].answer == NULL;
		values[1] = isnull[1] ? (Datum) 0 : CStringGetTextDatum(asked[i].answer);
		isnull[2] = asked[i].error == NULL;
		values[2] = isnull[2] ? (Datum) 0 : CStringGetTextDatum(asked[i].error);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
	}
	PG_RETURN_NULL();
}

static void
send_question(void *arg)
{
	Asked	   *asked = arg;
	RaConn	   *conn = ra_conn_get(asked->node, RA_CONN_QUERY);

	ra_conn_send(conn, asked->sql, 0, NULL, false);
	asked->conn = conn;
}

/* What a node says against it, a cancellation there too, is its answer: nothing is thrown */
static void
take_answer(Asked *asked)
{
	PGresult   *res = ra_conn_result(asked->conn);
	RaConnFailure why;

	if (ra_conn_failed(asked->conn, &why))
		asked->error = ra_error_reason(why.message, why.detail);
	else if (PQntuples(res) > 0 && PQnfields(res) > 0 && !PQgetisnull(res, 0, 0))
		asked->answer = pstrdup(PQgetvalue(res, 0, 0));
	ra_conn_abandon_all(&asked->conn, 1, 0);
	asked->conn = NULL;
}
