/*
 * ask.c
 *	  Questions of the server itself to other nodes, not of a user.
 *
 * What goes wrong is a reason, not an error: see try.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "cluster/ask.h"
#include "cluster/connection.h"
#include "cluster/options.h"
#include "cluster/try.h"

/* user mappings that are tried, at most */
#define MAX_USERS 16

typedef struct Question
{
	const char *node;
	const char *sql;
	const char *param;
	int			timeout;
	char	  **answers;
	int			n;

	Oid			user;			/* whose mapping is tried */
	char	   *failure;		/* what the node says against it */
	bool		silent;			/* the node says nothing: another user would not hear more */
} Question;

/* whose mapping worked the last time, by server; only a place to begin */
static struct
{
	Oid			server;
	Oid			user;
}			worked[64];

static void ask_as_user(void *arg);
static void ask(Question *question);
static int	mapped_users(Oid serverid, Oid *users);

bool
ra_ask_node(const char *node, const char *sql, const char *param, int timeout,
			char **answers, int n, char **reason)
{
	Question	question = {node, sql, param, timeout, answers, n};
	ForeignServer *server = ra_node_server(node, true);
	Oid			users[MAX_USERS];
	int			nusers;
	int			i;

	*reason = NULL;
	if (server == NULL)
	{
		*reason = psprintf("this database has no server for node \"%s\"", node);
		return false;
	}
	nusers = mapped_users(server->serverid, users);
	for (i = 0; i < nusers && !question.silent; i++)
	{
		ErrorData  *error;

		question.user = users[i];
		question.failure = NULL;
		error = ra_try(ask_as_user, &question);
		if (error)
			question.failure = ra_error_reason(error->message, error->detail);
		if (question.failure == NULL)
		{
			worked[server->serverid % lengthof(worked)].server = server->serverid;
			worked[server->serverid % lengthof(worked)].user = users[i];
			return true;
		}
		/* of the mapping that should be the right one */
		if (*reason == NULL)
			*reason = question.failure;
	}
	return false;
}

/* As the user whose mapping is tried; an ERROR leaves it to the subtransaction to go back */
static void
ask_as_user(void *arg)
{
	Question   *question = arg;
	Oid			userid;
	int			sec;

	GetUserIdAndSecContext(&userid, &sec);
	SetUserIdAndSecContext(question->user, sec | SECURITY_LOCAL_USERID_CHANGE);
	ask(question);
	SetUserIdAndSecContext(userid, sec);
}

/* What the node says against it is question->failure; the rest are ERRORs */
static void
ask(Question *question)
{
	const char *node = question->node;
	RaConnFailure why;
	RaConn	   *conn;
	PGresult   *res;
	int			i;

	conn = ra_conn_begin(node);
	(void) ra_conn_connect_all(&conn, 1, -1);
	question->silent = ra_conn_silent(conn);
	ra_conn_connected(conn, question->timeout);
	ra_conn_send(conn, question->sql, 1, &question->param, false);
	if (!ra_conn_wait_all_for(&conn, 1, question->timeout))
	{
		question->silent = true;
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" did not answer in time", node)));
	}
	if (ra_conn_failed(conn, &why))
	{
		/* SQLSTATE 57014, say, would mean a cancellation here */
		question->failure = ra_error_reason(why.message, why.detail);
		ra_conn_abandon_all(&conn, 1, 0);
		return;
	}
	res = ra_conn_result(conn);
	if (PQntuples(res) != 1 || PQnfields(res) != question->n)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("node \"%s\" did not answer as expected", node)));
	for (i = 0; i < question->n; i++)
		question->answers[i] = PQgetisnull(res, 0, i) ? NULL : pstrdup(PQgetvalue(res, 0, i));
	ra_conn_release(conn);
}

/*
 * Whose mappings may be used, in the order in which they are tried: the one that
 * worked the last time, the present user's (or PUBLIC's), others.  At least one.
 */
static int
mapped_users(Oid serverid, Oid *users)
{
	Oid			types[3] = {OIDOID, OIDOID, OIDOID};
	Datum		values[3] = {ObjectIdGetDatum(serverid), ObjectIdGetDatum(GetUserId()), ObjectIdGetDatum(InvalidOid)};
	int			n = 0;
	bool		isnull;

	if (worked[serverid % lengthof(worked)].server == serverid)
		values[2] = ObjectIdGetDatum(worked[serverid % lengthof(worked)].user);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args("SELECT u.id FROM (SELECT DISTINCT CASE WHEN m.umuser OPERATOR(pg_catalog.=) 0 THEN $2 ELSE m.umuser END"
							  "  FROM pg_catalog.pg_user_mapping m WHERE m.umserver OPERATOR(pg_catalog.=) $1) u (id)"
							  " ORDER BY u.id OPERATOR(pg_catalog.<>) $3, u.id OPERATOR(pg_catalog.<>) $2, u.id",
							  3, types, values, NULL, true, MAX_USERS) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_user_mapping");
	for (; n < (int) SPI_processed; n++)
		users[n] = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[n], SPI_tuptable->tupdesc, 1, &isnull));
	PopActiveSnapshot();
	SPI_finish();
	if (n == 0)
		users[n++] = GetUserId();	/* who will be told that he has none */
	return n;
}
