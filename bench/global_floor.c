/*
 * global_floor.c
 *	  What somebody writes by hand: a transfer between two PostgreSQL servers with
 *	  PREPARE TRANSACTION, straight from the client, without any recovery.
 *
 *	global_floor local SECONDS CLIENTS A B
 *		an UPDATE of one server, committed there
 *	global_floor one|two|prepared none|row|zookeeper|paxos SECONDS CLIENTS A B C HOSTS
 *		both servers are talked to at the same time, always.
 *		one: BEGIN, UPDATE and PREPARE TRANSACTION are one message, which takes
 *		somebody who does not look at what UPDATE says before;  two: BEGIN and UPDATE,
 *		then PREPARE TRANSACTION;  prepared: as two, and each connection has its UPDATE
 *		prepared.  When both servers are, the decision:
 *		none: is kept nowhere;  row: inserted into a table of A;  zookeeper: an entry
 *		made in HOSTS;  paxos: accepted by two of A, B and C, by the connections that there
 *		are, the first phase skipped.  Then COMMIT PREPARED.
 *
 * A, B, C: connection strings.  Prints transactions per second, p50 and p99 in ms.
 */
#define THREADED
#include <poll.h>
#include <zookeeper/zookeeper.h>

#include "global.h"

typedef enum Register
{
	NONE,
	ROW,
	ZOOKEEPER,
	PAXOS
} Register;

static bool one_message;
static bool prepared;
static Register decider;
static const char *servers[3];
static const char *zk_hosts;

typedef struct Client
{
	PGconn	   *conns[3];
	int			late;			/* the acceptor whose answer was not waited for, or -1 */
	zhandle_t  *zk;
} Client;

static zhandle_t *
connect_zookeeper(void)
{
	zhandle_t  *handle;
	int			rc;

	zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
	handle = zookeeper_init(zk_hosts, NULL, 10000, NULL, NULL, 0);
	if (handle == NULL)
		die(NULL, "zookeeper_init");
	/* else each call looks the servers' names up again */
	zoo_set_servers_resolution_delay(handle, -1);
	for (int i = 0; zoo_state(handle) != ZOO_CONNECTED_STATE; i++)
	{
		if (i > 10000)
			die(NULL, "connecting to ZooKeeper");
		usleep(1000);
	}
	rc = zoo_create(handle, "/floor", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
	if (rc != ZOK && rc != ZNODEEXISTS)
		die(NULL, "making an entry in ZooKeeper");
	return handle;
}

static void
expect_one(PGconn *conn, const char *what)
{
	if (answer(conn, what) != 1)
	{
		fprintf(stderr, "%s: not one row\n", what);
		exit(1);
	}
}

static void
late_answer(Client *client)
{
	if (client->late >= 0)
		expect_one(client->conns[client->late], "accept");
	client->late = -1;
}

/*
 * Two of three acceptors are enough, whichever are the first.  The third one's answer is read before
 * the next message on its connection.
 */
static void
accepted(Client *client, const char *gid)
{
	char		sql[512];
	int			n = 0;
	bool		answered[3] = {false};

	snprintf(sql, sizeof(sql),
			 "INSERT INTO acceptor (gid, ballot, value) VALUES ('%s', 0, 'commit') ON CONFLICT (gid) DO UPDATE"
			 " SET ballot = excluded.ballot, value = excluded.value WHERE acceptor.ballot <= excluded.ballot", gid);
	late_answer(client);
	for (int i = 0; i < 3; i++)
		send_message(client->conns[i], sql);
	while (n < 2)
	{
		struct pollfd fds[3];
		int			m = 0;

		for (int i = 0; i < 3; i++)
		{
			if (answered[i])
				continue;
			if (!PQconsumeInput(client->conns[i]))
				die(client->conns[i], "accept");
			if (n < 2 && !PQisBusy(client->conns[i]))
			{
				expect_one(client->conns[i], "accept");
				answered[i] = true;
				n++;
				continue;
			}
			fds[m++] = (struct pollfd) {PQsocket(client->conns[i]), POLLIN, 0};
		}
		if (n < 2)
			poll(fds, m, -1);
	}
	for (int i = 0; i < 3; i++)
	{
		if (!answered[i])
			client->late = i;
	}
}

static void
decide(Client *client, const char *gid)
{
	char		text[300];

	switch (decider)
	{
		case NONE:
			break;
		case ROW:
			snprintf(text, sizeof(text), "INSERT INTO decision (gid) VALUES ('%s')", gid);
			send_message(client->conns[0], text);
			expect_one(client->conns[0], text);
			break;
		case ZOOKEEPER:
			snprintf(text, sizeof(text), "/floor/%s", gid);
			if (zoo_create(client->zk, text, "commit", 6, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) != ZOK)
				die(NULL, "making an entry in ZooKeeper");
			break;
		case PAXOS:
			accepted(client, gid);
			break;
	}
}

static void
transfer(Client *client, const char *gid, const int *accounts)
{
	static const char *const formats[2] = {TAKE, GIVE};
	char		update[128];
	char		sql[512];

	for (int i = 0; i < 2; i++)
	{
		if (client->late == i)
			late_answer(client);
		snprintf(update, sizeof(update), prepared ? "EXECUTE change (%d)" : formats[i], accounts[i]);
		if (one_message)
			snprintf(sql, sizeof(sql), "BEGIN; %s; PREPARE TRANSACTION '%s:%d'", update, gid, i);
		else
			snprintf(sql, sizeof(sql), "BEGIN; %s", update);
		send_message(client->conns[i], sql);
	}
	for (int i = 0; i < 2; i++)
		expect_one(client->conns[i], "UPDATE");
	if (!one_message)
	{
		for (int i = 0; i < 2; i++)
		{
			snprintf(sql, sizeof(sql), "PREPARE TRANSACTION '%s:%d'", gid, i);
			send_message(client->conns[i], sql);
		}
		for (int i = 0; i < 2; i++)
			answer(client->conns[i], "PREPARE TRANSACTION");
	}
	decide(client, gid);
	for (int i = 0; i < 2; i++)
	{
		if (client->late == i)
			late_answer(client);
		snprintf(sql, sizeof(sql), "COMMIT PREPARED '%s:%d'", gid, i);
		send_message(client->conns[i], sql);
	}
	for (int i = 0; i < 2; i++)
		answer(client->conns[i], "COMMIT PREPARED");
}

static void *
transfers(void *arg)
{
	Pairs	   *pairs = arg;
	Client		client = {.late = -1};
	unsigned int seed = pairs->number;
	unsigned int run = (unsigned int) now_ns();
	int			n = decider == PAXOS ? 3 : 2;

	for (int i = 0; i < n; i++)
	{
		client.conns[i] = connect_to(servers[i]);
		if (prepared && i < 2)
		{
			send_message(client.conns[i], i == 0 ? "PREPARE change AS " TAKE_PARAM : "PREPARE change AS " GIVE_PARAM);
			answer(client.conns[i], "PREPARE");
		}
	}
	if (decider == ZOOKEEPER)
		client.zk = connect_zookeeper();
	pairs_begin();
	for (int number = 0; pairs_go_on(); number++)
	{
		int64_t		since = now_ns();
		int			accounts[2] = {random_account(pairs, &seed), random_account(pairs, &seed)};
		char		gid[100];

		snprintf(gid, sizeof(gid), "floor:%u:%d:%d", run, pairs->number, number);
		transfer(&client, gid, accounts);
		pairs->guarded->count++;
		pairs_note(pairs, since);
	}
	late_answer(&client);
	for (int i = 0; i < n; i++)
		PQfinish(client.conns[i]);
	if (client.zk)
		zookeeper_close(client.zk);
	return NULL;
}

static void *
local_commits(void *arg)
{
	Pairs	   *pairs = arg;
	PGconn	   *conn = connect_to(servers[0]);
	unsigned int seed = pairs->number;

	pairs_begin();
	while (pairs_go_on())
	{
		int64_t		since = now_ns();
		char		sql[128];

		snprintf(sql, sizeof(sql), TAKE_NOTHING, random_account(pairs, &seed));
		send_message(conn, sql);
		expect_one(conn, sql);
		pairs->guarded->count++;
		pairs_note(pairs, since);
	}
	PQfinish(conn);
	return NULL;
}

int
main(int argc, char **argv)
{
	static const char *const registers[] = {"none", "row", "zookeeper", "paxos"};

	if (argc == 6 && strcmp(argv[1], "local") == 0)
	{
		servers[0] = argv[4];
		pairs_run(atoi(argv[3]), false, atof(argv[2]), local_commits);
		return 0;
	}
	if (argc == 9)
	{
		one_message = strcmp(argv[1], "one") == 0;
		prepared = strcmp(argv[1], "prepared") == 0;
		for (int i = 0; i < 4; i++)
		{
			if (strcmp(argv[2], registers[i]) == 0)
				decider = (Register) i;
		}
		for (int i = 0; i < 3; i++)
			servers[i] = argv[5 + i];
		zk_hosts = argv[8];
		pairs_run(atoi(argv[4]), false, atof(argv[3]), transfers);
		return 0;
	}
	fprintf(stderr, "usage: see global_floor.c\n");
	return 2;
}
