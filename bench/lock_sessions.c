/*
 * lock_sessions.c
 *	  Advisory locks through SQL: sessions of one or more PostgreSQL servers.
 *
 *	lock_sessions pairs postgres|risk_alert SECONDS SESSIONS own|one CONNINFO ...
 *		each session takes and releases its own lock, or all the same one: two prepared
 *		statements, each with its round trip.  Sessions are dealt to the servers in turn.
 *	lock_sessions drain ROUNDS SESSIONS CONNINFO ...
 *		all wait for one lock, which is then released: seconds until each
 *		has had it and let go of it
 */
#include <libpq-fe.h>
#include <poll.h>
#include <sys/epoll.h>

#include "pairs.h"

static char **servers;
static int	nservers;
static bool one_lock;
static const char *lock_sql;
static const char *unlock_sql;

static void
die(PGconn *conn, const char *what)
{
	fprintf(stderr, "lock_sessions: %s: %s", what, PQerrorMessage(conn));
	exit(1);
}

static void
check(PGconn *conn, PGresult *res, const char *what)
{
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		die(conn, what);
	PQclear(res);
}

static PGconn *
connect_to(int server)
{
	PGconn	   *conn = PQconnectdb(servers[server]);

	if (PQstatus(conn) != CONNECTION_OK)
		die(conn, "connecting");
	check(conn, PQprepare(conn, "lock", lock_sql, 1, NULL), "PREPARE");
	check(conn, PQprepare(conn, "unlock", unlock_sql, 1, NULL), "PREPARE");
	return conn;
}

static void
execute(PGconn *conn, const char *statement, const char *key)
{
	check(conn, PQexecPrepared(conn, statement, 1, &key, NULL, NULL, 0), statement);
}

static void *
session_pairs(void *arg)
{
	Pairs	   *pairs = arg;
	PGconn	   *conn = connect_to((pairs->number - 1) % nservers);
	char		key[16];

	snprintf(key, sizeof(key), "%d", one_lock ? 4711 : pairs->number);
	/* once before the clock runs: caches, plans */
	execute(conn, "lock", key);
	execute(conn, "unlock", key);
	pairs_begin();
	while (pairs_go_on())
	{
		int64_t		since = now_ns();

		execute(conn, "lock", key);
		critical_enter(pairs->guarded, pairs->number);
		critical_leave(pairs->guarded, pairs->number);
		execute(conn, "unlock", key);
		pairs_note(pairs, since);
	}
	PQfinish(conn);
	return NULL;
}

static void
send_prepared(PGconn *conn, const char *statement)
{
	const char *key = "4712";

	if (!PQsendQueryPrepared(conn, statement, 1, &key, NULL, NULL, 0))
		die(conn, statement);
	/* a short message: it fits into the socket's buffer */
	if (PQflush(conn) != 0)
		die(conn, "flush");
}

/* Until n sessions of all servers wait, be it for the server's lock or for the service */
static void
wait_for_waiters(PGconn **holder, int n)
{
	for (int try = 0; try < 600; try++)
	{
		int			waiting = 0;

		for (int i = 0; i < nservers; i++)
		{
			PGresult   *res = PQexec(holder[i],
									 "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ 'advisory_lock' "
									 "AND (wait_event = 'advisory' OR wait_event_type = 'Extension')");

			if (PQresultStatus(res) != PGRES_TUPLES_OK)
				die(holder[i], "pg_stat_activity");
			waiting += atoi(PQgetvalue(res, 0, 0));
			PQclear(res);
		}
		if (waiting == n)
			return;
		usleep(50000);
	}
	fprintf(stderr, "lock_sessions: %d sessions do not come to wait\n", n);
	exit(1);
}

static double
drain(int n, PGconn **conn, PGconn **holder, int epoll)
{
	bool	   *has = calloc(n, sizeof(bool));
	int			left = n;
	int64_t		since;

	memset(guarded, 0, sizeof(guarded));
	execute(holder[0], "lock", "4712");
	for (int i = 0; i < n; i++)
		send_prepared(conn[i], "lock");
	wait_for_waiters(holder, n);
	/* each looks for deadlocks once, after deadlock_timeout: not while we measure */
	usleep(1500000);

	since = now_ns();
	execute(holder[0], "unlock", "4712");
	while (left > 0)
	{
		struct epoll_event events[64];
		int			ready_now = epoll_wait(epoll, events, 64, 30000);

		if (ready_now <= 0)
		{
			fprintf(stderr, "lock_sessions: %d of %d wait for ever\n", left, n);
			exit(1);
		}
		for (int e = 0; e < ready_now; e++)
		{
			int			i = events[e].data.u32;
			PGresult   *res;

			if (!PQconsumeInput(conn[i]))
				die(conn[i], "reading");
			if (PQisBusy(conn[i]))
				continue;
			while ((res = PQgetResult(conn[i])) != NULL)
				check(conn[i], res, "lock");
			if (!has[i])
			{
				has[i] = true;
				critical_enter(&guarded[0], i + 1);
				critical_leave(&guarded[0], i + 1);
				send_prepared(conn[i], "unlock");
			}
			else
				left--;
		}
	}
	if (guarded[0].count != n)
		broken();
	free(has);
	return (now_ns() - since) / 1e9;
}

static void
drain_rounds(int rounds, int n)
{
	PGconn	  **conn = calloc(n, sizeof(PGconn *));
	PGconn	  **holder = calloc(nservers, sizeof(PGconn *));
	int			epoll = epoll_create1(0);

	for (int i = 0; i < nservers; i++)
		holder[i] = connect_to(i);
	for (int i = 0; i < n; i++)
	{
		struct epoll_event event = {.events = EPOLLIN,.data.u32 = i};

		conn[i] = connect_to(i % nservers);
		/* once before the clock runs */
		execute(conn[i], "lock", "4712");
		execute(conn[i], "unlock", "4712");
		PQsetnonblocking(conn[i], 1);
		epoll_ctl(epoll, EPOLL_CTL_ADD, PQsocket(conn[i]), &event);
	}
	for (int round = 0; round < rounds; round++)
		printf("%.3f\n", drain(n, conn, holder, epoll));
	/* the servers notice the end of the connections by themselves */
}

int
main(int argc, char **argv)
{
	bool		ours = argc > 2 && strcmp(argv[2], "postgres") != 0;

	lock_sql = ours ? "SELECT risk_alert.advisory_lock($1::bigint)" : "SELECT pg_advisory_lock($1::bigint)";
	unlock_sql = ours ? "SELECT risk_alert.advisory_unlock($1::bigint)" : "SELECT pg_advisory_unlock($1::bigint)";
	if (argc > 6 && strcmp(argv[1], "pairs") == 0)
	{
		servers = argv + 6;
		nservers = argc - 6;
		one_lock = strcmp(argv[5], "one") == 0;
		pairs_run(atoi(argv[4]), one_lock, atof(argv[3]), session_pairs);
		return 0;
	}
	if (argc > 4 && strcmp(argv[1], "drain") == 0)
	{
		servers = argv + 4;
		nservers = argc - 4;
		drain_rounds(atoi(argv[2]), atoi(argv[3]));
		return 0;
	}
	fprintf(stderr, "usage: see lock_sessions.c\n");
	return 2;
}
