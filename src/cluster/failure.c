/*
 * failure.c
 *	  What a statement's failure on a node looks like here.
 */
#include "postgres.h"

#include "cluster/connection.h"

static int	pass_on(const PGresult *res, int field);

bool
ra_conn_is_failure(const PGresult *res)
{
	switch (PQresultStatus(res))
	{
		case PGRES_COMMAND_OK:
		case PGRES_TUPLES_OK:
		case PGRES_SINGLE_TUPLE:
		case PGRES_EMPTY_QUERY:
			return false;
		default:				/* NULL is a failure, too */
			return true;
	}
}

/*
 * A node's error is passed on whole.  Where it came from is context.  The end
 * of the connection is not: to the local client, SQLSTATE 57P01, say, would mean the end
 * of its own.
 */
void
ra_conn_check(RaConn *conn)
{
	ra_conn_report(conn, ra_conn_result(conn));
}

bool
ra_conn_failed(RaConn *conn, RaConnFailure *failure)
{
	const PGresult *res = ra_conn_result(conn);
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);

	if (!ra_conn_is_failure(res))
		return false;
	failure->message = pstrdup(message ? message : "the connection was lost");
	failure->detail = detail ? pstrdup(detail) : NULL;
	failure->hint = hint ? pstrdup(hint) : NULL;
	if (message == NULL || PQstatus(ra_conn_pg(conn)) != CONNECTION_OK)
	{
		failure->message = pstrdup("the connection was lost");
		failure->detail = message ? pstrdup(message) : pchomp(PQerrorMessage(ra_conn_pg(conn)));
		failure->hint = NULL;
	}
	return true;
}

void
ra_conn_report(RaConn *conn, const PGresult *res)
{
	const char *state;
	const char *message;
	const char *detail;
	const char *hint;
	const char *context;

	if (!ra_conn_is_failure(res))
		return;

	state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
	hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);
	context = PQresultErrorField(res, PG_DIAG_CONTEXT);
	if (PQstatus(ra_conn_pg(conn)) != CONNECTION_OK || state == NULL || strlen(state) != 5 || message == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the connection to node \"%s\" was lost", ra_conn_node(conn)),
				 errdetail_internal("%s", message ? message :
									pchomp(res ? PQresultErrorMessage(res) : PQerrorMessage(ra_conn_pg(conn)))),
				 errhint("Whether the statement took effect there is not known.")));
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
			 errmsg_internal("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 context ? errcontext("%s", context) : 0,
			 pass_on(res, PG_DIAG_SCHEMA_NAME),
			 pass_on(res, PG_DIAG_TABLE_NAME),
			 pass_on(res, PG_DIAG_COLUMN_NAME),
			 pass_on(res, PG_DIAG_DATATYPE_NAME),
			 pass_on(res, PG_DIAG_CONSTRAINT_NAME),
			 errcontext("statement on node \"%s\"", ra_conn_node(conn))));
}

static int
pass_on(const PGresult *res, int field)
{
	const char *value = PQresultErrorField(res, field);

	return value ? err_generic_string(field, value) : 0;
}
