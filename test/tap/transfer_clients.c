/*
 * transfer_clients.c
 *	  Sessions that move money between nodes by global transactions, for TAP tests.
 *
 * transfer_clients SEED CLIENTS ROUND ACCOUNTS OWN NAME CONNINFO [NAME CONNINFO ...]
 *		Each client connects to a node chosen at random, which then coordinates a few
 *		transfers, and goes on with another; at once when it loses the connection.  A transfer takes
 *		from account to account on one, two or three nodes; on each of them, and in
 *		the same branch, it leaves a row in table "transfer".  OWN is 1 if the
 *		caller's own node may be written to without a branch.  Prints
 *			transfer CLIENT NUMBER COORDINATOR PARTICIPANT,... OUTCOME SQLSTATE GID
 *			prepared NODE GID XID			a branch that was seen to be prepared there
 *		OUTCOME is "committed", "failed" (it must not be found anywhere), or "unknown": the
 *		connection broke while it committed, or SQLSTATE is 08007.  GID is "-"
 *		unless the server has told the transaction's name.
 *
 * A byte on standard input ends it: no client begins another transfer.  If standard
 * input is closed before that, nobody wants to know any more.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_NODES 8
#define MAX_CLIENTS 64
#define MAX_GID 200

typedef struct Client
{
	pthread_t	thread;
	int			number;			/* of the client, or of the node that is watched */
	uint64_t	random;
	int			transfers;
	int			node;
	PGconn	   *conn;
	char		gid[MAX_GID];	/* that the server has told */
} Client;

static int	round_number;
static int	accounts;
static bool own_writes;
static const char *names[MAX_NODES];
static const char *nodes[MAX_NODES];
static int	nnodes;
static volatile bool stopping;
static volatile bool finished;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void
pause_ms(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

	nanosleep(&t, NULL);
}

/* 0 .. n - 1 (splitmix64) */
static int
choose(Client *client, int n)
{
	uint64_t	z = (client->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (int) ((z ^ (z >> 31)) % (uint64_t) n);
}

/* Notices name the transaction */
static void
notice(void *arg, const char *message)
{
	Client	   *client = arg;
	const char *from = strstr(message, "global transaction \"");

	if (from)
		(void) sscanf(from, "global transaction \"%199[^\"]", client->gid);
}

static bool
connected(Client *client)
{
	while (!stopping)
	{
		if (client->conn && PQstatus(client->conn) == CONNECTION_OK)
			return true;
		PQfinish(client->conn);
		client->node = choose(client, nnodes);
		client->conn = PQconnectdb(nodes[client->node]);
		if (PQstatus(client->conn) == CONNECTION_OK)
		{
			PQsetNoticeProcessor(client->conn, notice, client);
			return true;
		}
		pause_ms(20);
	}
	return false;
}

/* The SQLSTATE in state, "LOST" if the server has told none */
static bool
run(PGconn *conn, const char *sql, const char *tag, char *state)
{
	PGresult   *result = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(result);
	const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	bool		done = (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) &&
		(tag == NULL || strcmp(PQcmdStatus(result), tag) == 0);

	snprintf(state, 6, "%s", done ? "00000" : code ? code : "LOST");
	PQclear(result);
	return done;
}

/* One participant's part: money from or to its accounts, and the row that tells */
static bool
take_part(Client *client, int node, int amount, bool alone, const char *participants, char *state)
{
	char		sql[768];
	char		statement[512];
	int			account = 1 + choose(client, accounts);
	int			other = 1 + (account + choose(client, accounts - 1)) % accounts;

	if (alone)
		snprintf(statement, sizeof(statement),
				 "WITH m AS (UPDATE account SET balance = balance + CASE id WHEN %d THEN %d ELSE %d END WHERE id IN (%d, %d))"
				 " INSERT INTO transfer VALUES (%d, %d, %d, '%s')",
				 account, amount, -amount, account, other,
				 round_number, client->number, client->transfers, participants);
	else
		snprintf(statement, sizeof(statement),
				 "WITH m AS (UPDATE account SET balance = balance + %d WHERE id = %d)"
				 " INSERT INTO transfer VALUES (%d, %d, %d, '%s')",
				 amount, account, round_number, client->number, client->transfers, participants);
	if (own_writes && node == client->node && choose(client, 2) == 0)
		return run(client->conn, statement, NULL, state);
	snprintf(sql, sizeof(sql), "SELECT risk_alert.global_execute('%s', $on$%s$on$)", names[node], statement);
	return run(client->conn, sql, NULL, state);
}

static void
transfer(Client *client)
{
	int			order[MAX_NODES];
	int			kind = choose(client, 8);
	int			n = kind == 0 ? 1 : kind <= 2 && nnodes > 2 ? 3 : 2;
	int			amount = 1 + choose(client, 9);
	char		participants[256] = "";
	const char *outcome = "failed";
	char		state[6];
	char		ignored[6];
	bool		done;

	client->transfers++;
	client->gid[0] = '\0';
	for (int i = 0; i < nnodes; i++)
		order[i] = i;
	for (int i = 0; i < n; i++)
	{
		int			j = i + choose(client, nnodes - i);
		int			node = order[j];
		size_t		len = strlen(participants);

		order[j] = order[i];
		order[i] = node;
		snprintf(participants + len, sizeof(participants) - len, "%s%s", i > 0 ? "," : "", names[node]);
	}

	/* what waits for each other on different nodes is found by nobody else */
	done = run(client->conn, "BEGIN; SET LOCAL statement_timeout = '1s'", NULL, state);
	for (int i = 0; i < n && done; i++)
		done = take_part(client, order[i], i == 0 ? amount * (n == 3 ? -2 : -1) : amount, n == 1, participants, state);
	if (done && choose(client, 4) > 0)
		done = run(client->conn, "SET LOCAL statement_timeout = 0", NULL, state);
	if (!done)
		run(client->conn, "ROLLBACK", NULL, ignored);
	else if (run(client->conn, "COMMIT", "COMMIT", state))
		outcome = "committed";
	else if (PQstatus(client->conn) != CONNECTION_OK || strcmp(state, "08007") == 0)
		outcome = "unknown";
	if (!done)
		pause_ms(5);			/* most probably a node is down */

	pthread_mutex_lock(&mutex);
	printf("transfer %d %d %s %s %s %s %s\n", client->number, client->transfers, names[client->node], participants,
		   outcome, state, client->gid[0] ? client->gid : "-");
	pthread_mutex_unlock(&mutex);
}

static void *
client_main(void *arg)
{
	Client	   *client = arg;

	while (connected(client))
	{
		transfer(client);
		if (choose(client, 10) == 0)
		{
			PQfinish(client->conn);
			client->conn = NULL;
		}
	}
	PQfinish(client->conn);
	return NULL;
}

/* What is prepared on a node */
static void *
watch_main(void *arg)
{
	Client	   *watch = arg;

	while (!finished)
	{
		PGresult   *result = NULL;

		if (watch->conn && PQstatus(watch->conn) == CONNECTION_OK)
		{
			result = PQexec(watch->conn, "SELECT gid, transaction FROM pg_prepared_xacts");
			pthread_mutex_lock(&mutex);
			for (int i = 0; i < PQntuples(result); i++)
				printf("prepared %s %s %s\n", names[watch->number], PQgetvalue(result, i, 0), PQgetvalue(result, i, 1));
			pthread_mutex_unlock(&mutex);
			PQclear(result);
		}
		else
		{
			PQfinish(watch->conn);
			watch->conn = PQconnectdb(nodes[watch->number]);
			PQsetNoticeProcessor(watch->conn, notice, watch);
		}
		pause_ms(20);
	}
	PQfinish(watch->conn);
	return NULL;
}

static void
start(Client *client, int number, uint64_t seed, void *(*main_function) (void *))
{
	client->number = number;
	client->random = seed * 1000003 + (uint64_t) number;
	if (pthread_create(&client->thread, NULL, main_function, client) != 0)
		exit(1);
}

int
main(int argc, char **argv)
{
	static Client clients[MAX_CLIENTS];
	static Client watches[MAX_NODES];
	uint64_t	seed;
	int			n;
	char		byte;

	if (argc < 8 || (argc - 6) % 2 != 0 || (argc - 6) / 2 > MAX_NODES)
		return 2;
	seed = strtoull(argv[1], NULL, 10);
	n = atoi(argv[2]);
	round_number = atoi(argv[3]);
	accounts = atoi(argv[4]);
	own_writes = atoi(argv[5]) != 0;
	for (int i = 6; i < argc; i += 2)
	{
		names[nnodes] = argv[i];
		nodes[nnodes++] = argv[i + 1];
	}
	if (n < 1 || n > MAX_CLIENTS || accounts < 2)
		return 2;

	for (int i = 0; i < n; i++)
		start(&clients[i], i, seed, client_main);
	for (int i = 0; i < nnodes; i++)
		start(&watches[i], i, 0, watch_main);
	if (read(0, &byte, 1) != 1)
		_exit(1);
	stopping = true;
	for (int i = 0; i < n; i++)
		pthread_join(clients[i].thread, NULL);
	finished = true;
	for (int i = 0; i < nnodes; i++)
		pthread_join(watches[i].thread, NULL);
	return 0;
}
