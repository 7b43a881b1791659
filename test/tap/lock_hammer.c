/*
 * lock_hammer.c
 *	  Many sessions that take one advisory lock of the cluster, for TAP tests.
 *
 * lock_hammer count KEY SESSIONS RESOURCE NODE ...
 *		SESSIONS sessions per node count together, until a byte comes on standard input:
 *		each takes the lock, adds 1 to table "counter" at RESOURCE, in two
 *		transactions guarded by the fence (one reads, the other writes), and
 *		lets go of the lock.  Whatever fails is begun anew.  After SIGUSR1 the next
 *		holder of the second node sleeps for NAP_MS before it writes.  Prints
 *			valid NODE FROM UNTIL TOKEN		held, as the holder was told afterwards
 *			error NODE SQLSTATE COUNT
 *			sum WHAT COUNT
 *
 * lock_hammer queue KEY SESSIONS READY NODE ...
 *		SESSIONS sessions per node queue for the lock, have it once and end.  Prints
 *			granted NODE TOKEN LEFT ...		in the order of grants; sessions that
 *											still wait then, per node
 *		File READY is made when all are connected, and about to queue.
 *
 * Times are nanoseconds of CLOCK_MONOTONIC.
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_NODES 8
#define MAX_STATES 64
#define NAP_MS 4000

typedef struct Session
{
	pthread_t	thread;
	int			node;
	int			number;
	PGconn	   *conn;
	PGconn	   *resource;
} Session;

static const char *key;
static const char *resource;
static const char *nodes[MAX_NODES];
static int	nnodes;
static int	left[MAX_NODES];
static volatile bool stopping;
static volatile sig_atomic_t nap;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct
{
	int			node;
	char		state[6];
	int			count;
}			errors[MAX_STATES];
static int	nerrors;
static int	grants,
			writes,
			refused,
			commits_refused,
			unlocks_refused;
static pthread_barrier_t barrier;

static int64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
pause_ms(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

	nanosleep(&t, NULL);
}

static void
note_error(int node, const char *state)
{
	int			i;

	pthread_mutex_lock(&mutex);
	for (i = 0; i < nerrors; i++)
	{
		if (errors[i].node == node && strcmp(errors[i].state, state) == 0)
			break;
	}
	if (i < MAX_STATES)
	{
		if (i == nerrors)
		{
			nerrors++;
			errors[i].node = node;
			snprintf(errors[i].state, sizeof(errors[i].state), "%s", state);
		}
		errors[i].count++;
	}
	pthread_mutex_unlock(&mutex);
}

static void
add(int *counter)
{
	pthread_mutex_lock(&mutex);
	(*counter)++;
	pthread_mutex_unlock(&mutex);
}

/* The first column of the first row in value, if wanted; false and the SQLSTATE if it failed */
static bool
run(PGconn *conn, const char *sql, char *value, size_t size, char *state)
{
	PGresult   *result = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(result);
	const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	bool		done = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;

	snprintf(state, 6, "%s", done ? "" : code ? code : "LOST");
	if (done && value)
		snprintf(value, size, "%s", PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
	PQclear(result);
	return done;
}

static void
ignore(void *arg, const char *message)
{
	(void) arg;
	(void) message;
}

static bool
connected(PGconn **conn, const char *info)
{
	while (!stopping)
	{
		if (*conn && PQstatus(*conn) == CONNECTION_OK)
			return true;
		if (*conn)
			PQfinish(*conn);
		*conn = PQconnectdb(info);
		if (PQstatus(*conn) == CONNECTION_OK)
		{
			PQsetNoticeProcessor(*conn, ignore, NULL);
			return true;
		}
		pause_ms(50);
	}
	return false;
}

/* true: written; false and the SQLSTATE of whatever failed */
static bool
count(Session *session, const char *token, char *state)
{
	char		sql[512];
	char		value[64];
	char		ignored[6];
	bool		done;

	snprintf(sql, sizeof(sql), "BEGIN; SELECT risk_alert.check_fence('%s', %s); SELECT n FROM counter",
			 key, token);
	done = run(session->resource, sql, value, sizeof(value), state);
	run(session->resource, done ? "COMMIT" : "ROLLBACK", NULL, 0, done ? state : ignored);
	if (!done || state[0])
		return false;

	/* who reads this has the lock, most probably alone */
	if (nap && session->node == 1)
	{
		nap = 0;
		pause_ms(NAP_MS);
	}

	snprintf(sql, sizeof(sql),
			 "BEGIN; SELECT risk_alert.check_fence('%s', %s); UPDATE counter SET n = %s + 1;"
			 "INSERT INTO log (token, node, session) VALUES (%s, %d, %d); COMMIT",
			 key, token, value, token, session->node, session->number);
	done = run(session->resource, sql, NULL, 0, state);
	if (!done)
		run(session->resource, "ROLLBACK", NULL, 0, ignored);
	return done;
}

static void
on_signal(int number)
{
	(void) number;
	nap = 1;
}

static void *
count_main(void *arg)
{
	Session    *session = arg;
	bool		xact = session->number % 2 == 1;
	char		lock[256];
	char		unlock[256];
	char		token[64];
	char		value[64];
	char		state[6];

	snprintf(lock, sizeof(lock), "%sSELECT risk_alert.advisory_%slock('%s', '3s')",
			 xact ? "BEGIN; " : "", xact ? "xact_" : "", key);
	snprintf(unlock, sizeof(unlock), "SELECT risk_alert.advisory_unlock('%s')", key);
	while (!stopping)
	{
		int64_t		from;
		int64_t		until;
		bool		valid;

		if (!connected(&session->conn, nodes[session->node]) ||
			!connected(&session->resource, resource))
			break;
		if (!run(session->conn, lock, token, sizeof(token), state))
		{
			note_error(session->node, state);
			run(session->conn, xact ? "ROLLBACK" : unlock, NULL, 0, state);
			continue;
		}
		from = now();
		add(&grants);
		if (count(session, token, state))
			add(&writes);
		else if (strcmp(state, "40001") == 0)
			add(&refused);
		else
			note_error(session->node, state);
		until = now();
		valid = run(session->conn, xact ? "COMMIT" : unlock, value, sizeof(value), state);
		if (!valid)
		{
			if (strcmp(state, "40001") == 0)
				add(&commits_refused);
			else
				note_error(session->node, state);
		}
		else if (!xact && strcmp(value, "t") != 0)
		{
			valid = false;
			add(&unlocks_refused);
		}
		if (valid)
		{
			pthread_mutex_lock(&mutex);
			printf("valid %d %lld %lld %s\n", session->node, (long long) from, (long long) until, token);
			pthread_mutex_unlock(&mutex);
		}
	}
	PQfinish(session->conn);
	PQfinish(session->resource);
	return NULL;
}

static void *
queue_main(void *arg)
{
	Session    *session = arg;
	char		sql[256];
	char		token[64];
	char		state[6];

	/* few at a time, or the server's listen queue overflows */
	for (int i = 0; i < 100; i++)
	{
		session->conn = PQconnectdb(nodes[session->node]);
		if (PQstatus(session->conn) == CONNECTION_OK)
			break;
		PQfinish(session->conn);
		session->conn = NULL;
		pause_ms(100);
	}
	pthread_barrier_wait(&barrier);
	snprintf(sql, sizeof(sql), "SELECT risk_alert.advisory_lock('%s')", key);
	if (!session->conn || !run(session->conn, sql, token, sizeof(token), state))
	{
		note_error(session->node, session->conn ? state : "08001");
		return NULL;
	}
	pthread_mutex_lock(&mutex);
	left[session->node]--;
	printf("granted %d %s", session->node, token);
	for (int i = 0; i < nnodes; i++)
		printf(" %d", left[i]);
	printf("\n");
	pthread_mutex_unlock(&mutex);
	snprintf(sql, sizeof(sql), "SELECT risk_alert.advisory_unlock('%s')", key);
	if (!run(session->conn, sql, token, sizeof(token), state) || strcmp(token, "t") != 0)
		note_error(session->node, state[0] ? state : "false");
	PQfinish(session->conn);
	return NULL;
}

int
main(int argc, char **argv)
{
	bool		queue;
	int			per_node;
	int			n;
	Session    *sessions;
	pthread_attr_t attr;
	char		byte;

	if (argc < 6 || argc - 5 > MAX_NODES)
		return 2;
	queue = strcmp(argv[1], "queue") == 0;
	key = argv[2];
	per_node = atoi(argv[3]);
	resource = argv[4];
	for (int i = 5; i < argc; i++)
	{
		left[nnodes] = per_node;
		nodes[nnodes++] = argv[i];
	}

	signal(SIGUSR1, on_signal);
	n = nnodes * per_node;
	sessions = calloc(n, sizeof(Session));
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	pthread_barrier_init(&barrier, NULL, n + 1);
	for (int i = 0; i < n; i++)
	{
		sessions[i].node = i % nnodes;
		sessions[i].number = i / nnodes;
		if (pthread_create(&sessions[i].thread, &attr, queue ? queue_main : count_main, &sessions[i]) != 0)
			return 1;
	}
	if (queue)
	{
		FILE	   *file;

		pthread_barrier_wait(&barrier);
		file = fopen(resource, "w");
		if (file)
			fclose(file);
	}
	else
	{
		if (read(0, &byte, 1) < 0)
			return 1;
		stopping = true;
	}
	for (int i = 0; i < n; i++)
		pthread_join(sessions[i].thread, NULL);
	for (int i = 0; i < nerrors; i++)
		printf("error %d %s %d\n", errors[i].node, errors[i].state, errors[i].count);
	printf("sum grants %d\nsum writes %d\nsum refused %d\nsum commits_refused %d\nsum unlocks_refused %d\n",
		   grants, writes, refused, commits_refused, unlocks_refused);
	return 0;
}
