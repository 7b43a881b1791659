/*
 * connection.c
 *	  This session's connections to nodes.
 *
 * Pool.  A connection belongs to a user mapping, and stays open after use,
 * until the session ends, its server or mapping changes, or more than
 * MAX_CONNECTIONS are open, when the one longest unused is closed.  What a
 * connection may do depends on the mapping and on whether it was made with a
 * password that the mapping holds; so one that a superuser made without is not handed to
 * somebody who shares the mapping (FOR PUBLIC) after SET ROLE.
 *
 * Waiting.  Nothing here blocks but on the process latch, with a socket besides, so
 * that statement_timeout, pg_cancel_backend() and shutdown work at any time.
 * How connections are made, and what passwords have to do with it, is in connect.c.
 *
 * Errors.  If a (sub)transaction aborts that has taken a connection, its
 * statement is cancelled (clean_up()).  That must neither throw nor take long:
 * it uses poll(2) with a deadline.  A connection that is known not to be as
 * good as new by then is closed, and one that proves not to be when it is taken
 * again.  The node may go on with the statement for a while if the cancellation
 * does not reach it.
 *
 * Settings.  Dates, intervals and numbers arrive in a form that does not depend on the
 * settings of either side.  Everything else, search_path included, is as the
 * node has it for that user.  What a statement sets there stays set for later
 * ones of this session; if it changes how values arrive, its connection is not
 * used again.
 */
#include "postgres.h"

#include <poll.h>

#include "access/xact.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "foreign/foreign.h"
#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "cluster/cancel.h"
#include "cluster/connect.h"
#include "cluster/connection.h"
#include "cluster/nodestat.h"
#include "cluster/options.h"
#include "cluster/waiting.h"
#include "compat.h"
#include "guc.h"

/* open at the same time, unless more are in use */
#define MAX_CONNECTIONS 16

#define CANCEL_TIMEOUT 5		/* seconds, for all connections of a transaction */

/* how values arrive; the node reports the first two whenever they change */
#define DATESTYLE "ISO, MDY"
#define INTERVALSTYLE "postgres"

struct RaConn
{
	dlist_node	list;			/* in connections */

	/* whom it is for */
	char		node[NAMEDATALEN];
	Oid			mapping;
	bool		trusted;		/* may do without a password */
	RaConnPurpose purpose;
	uint32		server_hash;	/* of the system caches' entries */
	uint32		mapping_hash;

	PGconn	   *pg;				/* NULL until connecting begins */
	uint64		serial;			/* of its socket */
	RaConnecting connecting;
	bool		connected;		/* and found fit for use */
	PGresult   *result;			/* the latest one */
	uint64		last_taken;		/* in order */
	bool		invalidated;	/* server or mapping has changed */
	bool		lost;			/* the node has ended it */
	uint32		notes;			/* of its owner */
	RaPreparedSet *prepared;	/* statements, by its owner */

	bool		taken;
	bool		adopted;		/* its owner gives it back */
	int			nestlevel;		/* the (sub)transaction that has taken it */
	bool		busy;			/* a statement was sent, whose end we have not seen */

	RaCancel	cancel;			/* while the statement is cancelled */
	bool		cancelling;
};

static dlist_head connections = DLIST_STATIC_INIT(connections);
static uint64 taken_counter = 0;
static uint32 wait_event = 0;

static void initialize(void);
static RaConn *take(const char *node, RaConnPurpose purpose, bool *again);
static UserMapping *find_mapping(ForeignServer *server, Oid userid);
static RaConn *find_connection(Oid mapping, bool trusted, RaConnPurpose purpose);
static RaConn *make_connection(ForeignServer *server, UserMapping *mapping, bool trusted,
							   RaConnPurpose purpose);
static void make_room(void);
static int	number_open(RaConn **oldest);
static void notice(void *arg, const PGresult *res);
static bool usable(RaConn *conn);
static bool worth_keeping(RaConn *conn);
static bool settings_right(RaConn *conn);
static void set_settings(RaConn *conn, int timeout);
static void close_connection(RaConn *conn);
static bool result_ready(RaConn *conn);
static void wait_for_any(RaConn **conns, int n, long timeout);
static void statement_ended(RaConn *conn);
static void keep_result(RaConn *conn, PGresult *res);
static void clean_up(int nestlevel);
static void give_back(RaConn *conn, bool good);
static void start_cancelling(RaConn *conn);
static bool cancelled(RaConn *conn, instr_time start, int seconds);
static bool end_cancelling(RaConn *conn, instr_time start, int seconds);
static bool drain_results(RaConn *conn, instr_time start, int seconds);
static void invalidate(Datum arg, int cacheid, uint32 hash);
static void close_all(int code, Datum arg);

RaConn *
ra_conn_get(const char *node, RaConnPurpose purpose)
{
	bool		again;
	RaConn	   *conn = take(node, purpose, &again);

	if (again)
		return conn;
	(void) ra_conn_connect_all(&conn, 1, -1);
	ra_conn_connected(conn, -1);
	return conn;
}

RaConn *
ra_conn_begin(const char *node)
{
	bool		again;

	return take(node, RA_CONN_QUERY, &again);
}

/* From the pool, or one that has begun to connect.  again: it was taken before. */
static RaConn *
take(const char *node, RaConnPurpose purpose, bool *again)
{
	Oid			userid = GetUserId();
	ForeignServer *server;
	UserMapping *mapping;
	bool		trusted;
	RaConn	   *conn;

	initialize();

	server = ra_node_server(node, false);
	if (!ra_may_use_server(server->serverid, userid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for node \"%s\"", server->servername),
				 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s",
						 quote_identifier(server->servername),
						 quote_identifier(GetUserNameFromId(userid, false)))));
	mapping = find_mapping(server, userid);
	trusted = superuser_arg(userid) ||
		!ra_option_bool(mapping->options, "password_required", true);

	conn = find_connection(mapping->umid, trusted, purpose);
	*again = conn && conn->taken;
	if (*again)
	{
		if (purpose == RA_CONN_BRANCH)
			return conn;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the connection to node \"%s\" is in use", server->servername),
				 errdetail("A statement that runs there waits for something that would run there, too.")));
	}

	/* one that was closed since its last use is replaced here, before anything is sent */
	if (conn && !usable(conn))
	{
		close_connection(conn);
		conn = NULL;
	}
	if (conn == NULL)
		conn = make_connection(server, mapping, trusted, purpose);

	conn->taken = true;
	conn->nestlevel = GetCurrentTransactionNestLevel();
	conn->last_taken = ++taken_counter;
	return conn;
}

bool
ra_conn_connect_all(RaConn **conns, int n, int timeout)
{
	RaConnecting **all = palloc(n * sizeof(RaConnecting *));
	int			waiting = 0;
	bool		done;
	int			i;

	for (i = 0; i < n; i++)
	{
		if (!conns[i]->connected)
			all[waiting++] = &conns[i]->connecting;
	}
	done = waiting == 0 || ra_connect_wait(all, waiting, timeout);
	pfree(all);
	return done;
}

bool
ra_conn_silent(RaConn *conn)
{
	return !conn->connected && PQstatus(conn->pg) != CONNECTION_BAD &&
		conn->connecting.status != PGRES_POLLING_OK && conn->connecting.status != PGRES_POLLING_FAILED;
}

void
ra_conn_connected(RaConn *conn, int timeout)
{
	if (!conn->connected)
		ra_connect_finish(&conn->connecting, conn->node);
	conn->connected = true;
	if (!settings_right(conn))
		set_settings(conn, timeout);
}

void
ra_conn_release(RaConn *conn)
{
	PGTransactionStatusType status = PQtransactionStatus(conn->pg);
	char	   *node = pstrdup(conn->node);

	Assert(conn->taken && !conn->busy);
	PQclear(conn->result);
	conn->result = NULL;
	conn->taken = conn->adopted = false;
	if (status == PQTRANS_IDLE && worth_keeping(conn) && number_open(NULL) <= MAX_CONNECTIONS)
		return;

	close_connection(conn);
	if (status == PQTRANS_INTRANS || status == PQTRANS_INERROR)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("a statement has left a transaction open on node \"%s\"", node),
				 errdetail("It was rolled back."),
				 errhint("Each statement is a transaction of its own there.")));
	pfree(node);
}

void
ra_conn_send(RaConn *conn, const char *sql, int nparams, const char *const *params, bool row_by_row)
{
	Assert(conn->taken && !conn->busy);
	PQclear(conn->result);
	conn->result = NULL;

	conn->busy = true;
	ra_nodestat_begin(conn->node);
	if (!PQsendQueryParams(conn->pg, sql, nparams, NULL, params, NULL, NULL, 0))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not send a statement to node \"%s\"", conn->node),
				 errdetail_internal("%s", pchomp(PQerrorMessage(conn->pg)))));
	if (row_by_row)
		PQsetSingleRowMode(conn->pg);

	/* trouble shows when the answer is waited for */
	(void) PQflush(conn->pg);
}

PGresult *
ra_conn_next(RaConn *conn)
{
	for (;;)
	{
		PGresult   *res;

		while (!result_ready(conn))
			wait_for_any(&conn, 1, -1);
		res = PQgetResult(conn->pg);
		if (res == NULL)
		{
			statement_ended(conn);
			ra_conn_check(conn);
			return NULL;
		}
		keep_result(conn, res);
		if (!ra_conn_is_failure(conn->result))
			return conn->result;
	}
}

void
ra_conn_wait_all(RaConn **conns, int n)
{
	(void) ra_conn_wait_all_for(conns, n, -1);
}

bool
ra_conn_wait_all_for(RaConn **conns, int n, int timeout)
{
	instr_time	start;
	instr_time	now;
	long		left = -1;
	bool		done;

	INSTR_TIME_SET_CURRENT(start);
	do
	{
		int			i;

		done = true;
		for (i = 0; i < n; i++)
		{
			RaConn	   *conn = conns[i];

			while (conn->busy && result_ready(conn))
			{
				PGresult   *res = PQgetResult(conn->pg);

				if (res == NULL)
					statement_ended(conn);
				else
					keep_result(conn, res);
			}
			if (conn->busy)
				done = false;
		}
		if (!done && timeout >= 0)
		{
			INSTR_TIME_SET_CURRENT(now);
			INSTR_TIME_SUBTRACT(now, start);
			left = timeout - (long) INSTR_TIME_GET_MILLISEC(now);
			if (left <= 0)
				break;
		}
		if (!done)
			wait_for_any(conns, n, left);
	} while (!done);
	return done;
}

bool
ra_conn_busy(RaConn *conn)
{
	return conn->busy;
}

PGresult *
ra_conn_result(RaConn *conn)
{
	return conn->result;
}

const char *
ra_conn_node(RaConn *conn)
{
	return conn->node;
}

PGconn *
ra_conn_pg(RaConn *conn)
{
	return conn->pg;
}

uint64
ra_conn_serial(RaConn *conn)
{
	return conn->serial;
}

void
ra_conn_adopt(RaConn *conn)
{
	Assert(conn->taken && !conn->busy && conn->purpose == RA_CONN_BRANCH);
	conn->adopted = true;
}

void
ra_conn_drop(RaConn *conn)
{
	close_connection(conn);
}

uint32 *
ra_conn_notes(RaConn *conn)
{
	return &conn->notes;
}

RaPreparedSet **
ra_conn_prepared(RaConn *conn)
{
	return &conn->prepared;
}

bool
ra_conn_lost(RaConn *conn)
{
	return conn->lost || PQstatus(conn->pg) != CONNECTION_OK;
}

static void
initialize(void)
{
	static bool initialized = false;

	if (initialized)
		return;
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, invalidate, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, invalidate, (Datum) 0);
	on_proc_exit(close_all, (Datum) 0);
	initialized = true;
}

static UserMapping *
find_mapping(ForeignServer *server, Oid userid)
{
	if (!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							   ObjectIdGetDatum(server->serverid)) &&
		!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							   ObjectIdGetDatum(server->serverid)))
	{
		const char *user = quote_identifier(GetUserNameFromId(userid, false));

		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role %s has no user mapping for node \"%s\"", user, server->servername),
				 errhint("CREATE USER MAPPING FOR %s SERVER %s OPTIONS (user '...', password '...')",
						 user, quote_identifier(server->servername))));
	}
	return GetUserMapping(userid, server->serverid);
}

static RaConn *
find_connection(Oid mapping, bool trusted, RaConnPurpose purpose)
{
	dlist_iter	iter;

	dlist_foreach(iter, &connections)
	{
		RaConn	   *conn = dlist_container(RaConn, list, iter.cur);

		if (conn->mapping == mapping && conn->trusted == trusted && conn->purpose == purpose)
			return conn;
	}
	return NULL;
}

static RaConn *
make_connection(ForeignServer *server, UserMapping *mapping, bool trusted, RaConnPurpose purpose)
{
	RaConn	   *conn;

	make_room();
	conn = MemoryContextAllocZero(TopMemoryContext, sizeof(RaConn));
	strlcpy(conn->node, server->servername, NAMEDATALEN);
	conn->mapping = mapping->umid;
	conn->trusted = trusted;
	conn->purpose = purpose;
	conn->server_hash = GetSysCacheHashValue1(FOREIGNSERVEROID, ObjectIdGetDatum(server->serverid));
	conn->mapping_hash = GetSysCacheHashValue1(USERMAPPINGOID, ObjectIdGetDatum(mapping->umid));
	dlist_push_tail(&connections, &conn->list);

	PG_TRY();
	{
		ra_connect_start(&conn->connecting, server, mapping, trusted);
		conn->pg = conn->connecting.pg;
		conn->serial = ra_socket_serial();
		PQsetNoticeReceiver(conn->pg, notice, conn);
	}
	PG_CATCH();
	{
		close_connection(conn);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return conn;
}

static void
make_room(void)
{
	RaConn	   *oldest;

	if (number_open(&oldest) >= MAX_CONNECTIONS && oldest)
		close_connection(oldest);
}

/* *oldest: the one longest unused, or NULL */
static int
number_open(RaConn **oldest)
{
	int			n = 0;
	dlist_iter	iter;

	if (oldest)
		*oldest = NULL;
	dlist_foreach(iter, &connections)
	{
		RaConn	   *conn = dlist_container(RaConn, list, iter.cur);

		n++;
		if (oldest && !conn->taken && (*oldest == NULL || conn->last_taken < (*oldest)->last_taken))
			*oldest = conn;
	}
	return n;
}

/*
 * What a node says besides results is dropped, and must not end up in the server's
 * log.  An error while nothing runs is its last word.
 */
static void
notice(void *arg, const PGresult *res)
{
	RaConn	   *conn = arg;
	const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);

	if (severity && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0))
		conn->lost = true;
}

/* Is a connection on which nothing runs as good as a new one? */
static bool
usable(RaConn *conn)
{
	while (PQstatus(conn->pg) == CONNECTION_OK && !conn->lost)
	{
		struct pollfd socket = {.fd = PQsocket(conn->pg),.events = POLLIN};
		PGnotify   *notify;
		int			rc = poll(&socket, 1, 0);

		if (rc < 0 && errno == EINTR)
			continue;
		if (rc <= 0)
			break;
		if (!PQconsumeInput(conn->pg))
			return false;
		(void) PQisBusy(conn->pg);	/* has a look at what has arrived */
		while ((notify = PQnotifies(conn->pg)) != NULL)
			PQfreemem(notify);
	}
	return worth_keeping(conn) && settings_right(conn);
}

/* As far as is known: who takes it next has a closer look */
static bool
worth_keeping(RaConn *conn)
{
	return PQstatus(conn->pg) == CONNECTION_OK && !conn->lost && !conn->invalidated && conn->connected;
}

static bool
settings_right(RaConn *conn)
{
	const char *datestyle;
	const char *intervalstyle;
	const char *encoding;

	datestyle = PQparameterStatus(conn->pg, "DateStyle");
	intervalstyle = PQparameterStatus(conn->pg, "IntervalStyle");
	encoding = PQparameterStatus(conn->pg, "client_encoding");
	return datestyle && strcmp(datestyle, DATESTYLE) == 0 &&
		intervalstyle && strcmp(intervalstyle, INTERVALSTYLE) == 0 &&
		encoding && pg_char_to_encoding(encoding) == GetDatabaseEncoding();
}

/* Variables such as PGDATESTYLE, in the environment of the server, outdo what we ask for */
static void
set_settings(RaConn *conn, int timeout)
{
	ra_conn_send(conn, "SELECT pg_catalog.set_config('datestyle', 'ISO, MDY', false), "
				 "pg_catalog.set_config('intervalstyle', 'postgres', false)", 0, NULL, false);
	if (!ra_conn_wait_all_for(&conn, 1, timeout))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" did not answer in time", conn->node)));
	ra_conn_check(conn);
	if (!settings_right(conn))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
				 errmsg("node \"%s\" does not send values as it is asked to", conn->node)));
}

/* Never throws */
static void
close_connection(RaConn *conn)
{
	dlist_delete(&conn->list);
	if (conn->busy)
		ra_nodestat_end(conn->node);
	PQclear(conn->result);
	ra_prepared_free(conn->prepared);
	if (conn->pg)
	{
		PQfinish(conn->pg);
		ReleaseExternalFD();
	}
	pfree(conn);
}

/* Can PQgetResult() be called without blocking? */
static bool
result_ready(RaConn *conn)
{
	if (PQstatus(conn->pg) != CONNECTION_OK || conn->lost || PQflush(conn->pg) < 0)
		return true;
	return !PQisBusy(conn->pg);
}

/*
 * Until something has happened on a connection that has no result yet, or the
 * latch is set, or so many milliseconds are over (-1: without limit)
 */
static void
wait_for_any(RaConn **conns, int n, long timeout)
{
	RaSocket   *sockets = palloc(n * sizeof(RaSocket));
	RaConn	  **waiting = palloc(n * sizeof(RaConn *));
	int			nwaiting = 0;
	bool		latch;
	int			i;

	for (i = 0; i < n; i++)
	{
		RaConn	   *conn = conns[i];
		int			unsent;

		if (!conn->busy || result_ready(conn))
			continue;
		unsent = PQflush(conn->pg);
		if (unsent < 0 || PQsocket(conn->pg) == PGINVALID_SOCKET)
		{
			conn->lost = true;	/* just now */
			timeout = 0;
			continue;
		}
		waiting[nwaiting] = conn;
		sockets[nwaiting++] = (RaSocket)
		{
			.fd = PQsocket(conn->pg),.serial = conn->serial,
				.events = WL_SOCKET_READABLE | (unsent > 0 ? WL_SOCKET_WRITEABLE : 0)
		};
	}
	latch = ra_wait_for_sockets(sockets, nwaiting, timeout, ra_wait_event(&wait_event, "RiskAlertNode"));
	for (i = 0; i < nwaiting; i++)
	{
		if (sockets[i].ready && !PQconsumeInput(waiting[i]->pg))
			waiting[i]->lost = true;
	}
	pfree(sockets);
	pfree(waiting);
	if (latch)
		CHECK_FOR_INTERRUPTS();
}

static void
statement_ended(RaConn *conn)
{
	conn->busy = false;
	ra_nodestat_end(conn->node);
}

/*
 * The first failure stays: when a node ends a connection, another one follows
 * that tells less.  COPY wants a dialogue, and is refused; clean_up() closes the
 * connection.
 */
static void
keep_result(RaConn *conn, PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	if (conn->result && ra_conn_is_failure(conn->result))
	{
		PQclear(res);
		return;
	}
	PQclear(conn->result);
	conn->result = res;
	if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("COPY from or to the client cannot be run on a node"),
				 errcontext("statement on node \"%s\"", conn->node)));
}

/*
 * The (sub)transaction of that level, or an inner one, has ended: gives back
 * the connections that it had taken.  First all are cancelled, then all are
 * waited for, so that one deadline is enough.  Never throws.
 */
static void
clean_up(int nestlevel)
{
	instr_time	start;
	dlist_mutable_iter iter;

	INSTR_TIME_SET_CURRENT(start);
	dlist_foreach_modify(iter, &connections)
	{
		RaConn	   *conn = dlist_container(RaConn, list, iter.cur);

		if (conn->taken && !conn->adopted && conn->nestlevel >= nestlevel && conn->busy)
			start_cancelling(conn);
	}
	dlist_foreach_modify(iter, &connections)
	{
		RaConn	   *conn = dlist_container(RaConn, list, iter.cur);

		if (conn->taken && !conn->adopted && conn->nestlevel >= nestlevel)
			give_back(conn, !conn->busy || end_cancelling(conn, start, CANCEL_TIMEOUT));
	}
}

void
ra_conn_cancel_all(RaConn **conns, bool *good, int n, int seconds)
{
	instr_time	start;
	int			i;

	INSTR_TIME_SET_CURRENT(start);
	for (i = 0; i < n; i++)
		start_cancelling(conns[i]);
	for (i = 0; i < n; i++)
		good[i] = cancelled(conns[i], start, seconds);
}

void
ra_conn_abandon_all(RaConn **conns, int n, int seconds)
{
	instr_time	start;
	int			i;

	INSTR_TIME_SET_CURRENT(start);
	for (i = 0; i < n; i++)
		start_cancelling(conns[i]);
	for (i = 0; i < n; i++)
		give_back(conns[i], end_cancelling(conns[i], start, seconds));
}

/* good: nothing runs there any more */
static void
give_back(RaConn *conn, bool good)
{
	if (conn->busy)
		statement_ended(conn);
	PQclear(conn->result);
	conn->result = NULL;
	conn->taken = false;
	if (!good || PQtransactionStatus(conn->pg) != PQTRANS_IDLE || !worth_keeping(conn))
		close_connection(conn);
}

static void
start_cancelling(RaConn *conn)
{
	if (PQtransactionStatus(conn->pg) != PQTRANS_ACTIVE)
		return;
	ra_cancel_start(&conn->cancel, conn->pg, CANCEL_TIMEOUT);
	conn->cancelling = true;
}

/* No request to cancel is under way any more; false: nobody knows */
static bool
cancelled(RaConn *conn, instr_time start, int seconds)
{
	bool		good = true;

	if (conn->cancelling)
		good = ra_cancel_end(&conn->cancel, ra_ms_left(start, seconds));
	conn->cancelling = false;
	return good;
}

static bool
end_cancelling(RaConn *conn, instr_time start, int seconds)
{
	return cancelled(conn, start, seconds) && drain_results(conn, start, seconds);
}

/* What is left of a cancelled statement's results; false: that does not come to an end */
static bool
drain_results(RaConn *conn, instr_time start, int seconds)
{
	for (;;)
	{
		PGresult   *res;
		ExecStatusType status;

		while (!result_ready(conn))
		{
			struct pollfd socket = {.fd = PQsocket(conn->pg),.events = POLLIN};
			int			left = ra_ms_left(start, seconds);

			if (left == 0)
				return false;
			if (PQflush(conn->pg) > 0)
				socket.events |= POLLOUT;
			if (poll(&socket, 1, left) > 0 && (socket.revents & ~POLLOUT) &&
				!PQconsumeInput(conn->pg))
				return false;
		}
		res = PQgetResult(conn->pg);
		if (ra_conn_lost(conn))
		{
			PQclear(res);
			return false;
		}
		if (res == NULL)
			return true;
		status = PQresultStatus(res);
		PQclear(res);
		if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH)
			return false;
	}
}

void
ra_conn_xact(XactEvent event)
{
	dlist_mutable_iter iter;

	if (dlist_is_empty(&connections))
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE:
			clean_up(0);
			dlist_foreach_modify(iter, &connections)
			{
				RaConn	   *conn = dlist_container(RaConn, list, iter.cur);

				if (conn->invalidated && !conn->taken)
					close_connection(conn);
			}
			break;
		default:
			break;
	}
}

void
ra_conn_subxact(SubXactEvent event)
{
	int			level = GetCurrentTransactionNestLevel();
	dlist_iter	iter;

	if (dlist_is_empty(&connections))
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		clean_up(level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		dlist_foreach(iter, &connections)
		{
			RaConn	   *conn = dlist_container(RaConn, list, iter.cur);

			if (conn->taken && conn->nestlevel == level)
				conn->nestlevel--;
		}
	}
}

static void
invalidate(Datum arg, int cacheid, uint32 hash)
{
	dlist_iter	iter;

	dlist_foreach(iter, &connections)
	{
		RaConn	   *conn = dlist_container(RaConn, list, iter.cur);

		if (hash == 0 || hash == (cacheid == FOREIGNSERVEROID ? conn->server_hash : conn->mapping_hash))
			conn->invalidated = true;
	}
}

/* The transaction has ended, and shared memory is out of reach */
static void
close_all(int code, Datum arg)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &connections)
	{
		RaConn	   *conn = dlist_container(RaConn, list, iter.cur);

		conn->busy = false;
		close_connection(conn);
	}
}
