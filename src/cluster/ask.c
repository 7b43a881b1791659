/*
 * ask.c
 *	  Questions of the server itself to other nodes, not of a user.
 *
 * What goes wrong is a reason, not an error, so it happens in a subtransaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "cluster/ask.h"
#include "cluster/connection.h"
#include "cluster/options.h"

static void ask(const char *node, const char *sql, const char *param, int timeout,
				char **answers, int n, MemoryContext cxt);
static Oid	mapped_user(Oid serverid);

bool
ra_ask_node(const char *node, const char *sql, const char *param, int timeout,
			char **answers, int n, char **reason)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;
	Oid			userid;
	int			sec;

	*reason = NULL;
	GetUserIdAndSecContext(&userid, &sec);
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		ask(node, sql, param, timeout, answers, n, cxt);
		SetUserIdAndSecContext(userid, sec);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		SetUserIdAndSecContext(userid, sec);
		*reason = edata->detail ? psprintf("%s: %s", edata->message, edata->detail) : edata->message;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return done;
}

static void
ask(const char *node, const char *sql, const char *param, int timeout,
	char **answers, int n, MemoryContext cxt)
{
	ForeignServer *server = ra_node_server(node, false);
	Oid			userid;
	int			sec;
	RaConn	   *conn;
	PGresult   *res;
	int			i;

	GetUserIdAndSecContext(&userid, &sec);
	SetUserIdAndSecContext(mapped_user(server->serverid), sec | SECURITY_LOCAL_USERID_CHANGE);
	conn = ra_conn_get(node, RA_CONN_QUERY);
	ra_conn_send(conn, sql, 1, &param, false);
	if (!ra_conn_wait_all_for(&conn, 1, timeout))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" did not answer in time", node)));
	ra_conn_check(conn);
	res = ra_conn_result(conn);
	if (PQntuples(res) != 1 || PQnfields(res) != n)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("node \"%s\" did not answer as expected", node)));
	for (i = 0; i < n; i++)
		answers[i] = PQgetisnull(res, 0, i) ? NULL : MemoryContextStrdup(cxt, PQgetvalue(res, 0, i));
	ra_conn_release(conn);
}

/* The present user if he has a mapping, or all have; else somebody who has one */
static Oid
mapped_user(Oid serverid)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2] = {ObjectIdGetDatum(serverid), ObjectIdGetDatum(GetUserId())};
	Oid			result = GetUserId();
	bool		isnull;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args("SELECT m.umuser FROM pg_catalog.pg_user_mapping m"
							  " WHERE m.umserver OPERATOR(pg_catalog.=) $1"
							  " ORDER BY m.umuser OPERATOR(pg_catalog.<>) $2, m.umuser",
							  2, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_user_mapping");
	if (SPI_processed > 0)
	{
		Oid			user = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));

		if (OidIsValid(user))
			result = user;
	}
	PopActiveSnapshot();
	SPI_finish();
	return result;
}
