/*
 * global_sessions.c
 *	  The same transfer as global_floor.c's, as a global transaction of risk_alert:
 *	  sessions of server A, whose node is NODE_A; the other account is on NODE_B.
 *
 *	global_sessions last|all|one own|branches REGISTER SECONDS CLIENTS A NODE_A NODE_B
 *		all: one statement, global_execute_all(), and hence one transaction, with both at
 *		the same time (branches only), which the client has prepared, with the accounts as parameters;
 *		one: BEGIN, both statements and COMMIT are one message, put together with the accounts.
 *		last: as all, and PREPARE goes with the statements.
 *		own: the account on NODE_A is updated by the session itself;  branches: by
 *		global_execute(NODE_A, ...), which is a connection more, but all that
 *		registers zookeeper and paxos allow.
 *
 * Prints transactions per second, p50 and p99 in ms.
 */
#include "global.h"

static bool at_once;
static bool last;
static bool own;
static const char *decider;
static const char *server;
static const char *nodes[2];

static PGconn *
connect_and_prepare(void)
{
	PGconn	   *conn = connect_to(server);
	PGresult   *res;
	char		sql[1024];

	snprintf(sql, sizeof(sql), "SET risk_alert.commit_register = %s", decider);
	send_message(conn, sql);
	answer(conn, sql);
	snprintf(sql, sizeof(sql), "SELECT risk_alert.global_execute_all('{%s,%s}', '{" TAKE_PARAM "," GIVE_PARAM "}', $1, prepare => %s)",
			 nodes[0], nodes[1], last ? "true" : "false");
	res = PQprepare(conn, "transfer", sql, 0, NULL);
	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		die(conn, sql);
	PQclear(res);
	return conn;
}

static void *
transfers(void *arg)
{
	Pairs	   *pairs = arg;
	PGconn	   *conn = connect_and_prepare();
	unsigned int seed = pairs->number;
	char		sql[1024];

	/* the first one, not counted, connects */
	for (int i = 0; i == 0 || pairs_go_on(); i++)
	{
		int64_t		since = now_ns();
		char		take[256];
		char		give[256];
		int			rows;

		if (at_once)
		{
			const char *params[1] = {take};

			snprintf(take, sizeof(take), "{{%d},{%d}}", random_account(pairs, &seed), random_account(pairs, &seed));
			if (!PQsendQueryPrepared(conn, "transfer", 1, params, NULL, NULL, 0))
				die(conn, "transfer");
			rows = answer(conn, "transfer");
		}
		else
		{
			if (own)
				snprintf(take, sizeof(take), TAKE, random_account(pairs, &seed));
			else
				snprintf(take, sizeof(take), "SELECT risk_alert.global_execute('%s', '" TAKE "')", nodes[0],
						 random_account(pairs, &seed));
			snprintf(give, sizeof(give), "SELECT risk_alert.global_execute('%s', '" GIVE "')", nodes[1],
					 random_account(pairs, &seed));
			snprintf(sql, sizeof(sql), "BEGIN; %s; %s; COMMIT", take, give);
			send_message(conn, sql);
			rows = answer(conn, sql);
		}
		if (rows != 2)
		{
			fprintf(stderr, "not one row each\n");
			exit(1);
		}
		if (i == 0)
		{
			pairs_begin();
			continue;
		}
		pairs->guarded->count++;
		pairs_note(pairs, since);
	}
	PQfinish(conn);
	return NULL;
}

int
main(int argc, char **argv)
{
	if (argc != 9)
	{
		fprintf(stderr, "usage: see global_sessions.c\n");
		return 2;
	}
	last = strcmp(argv[1], "last") == 0;
	at_once = last || strcmp(argv[1], "all") == 0;
	own = strcmp(argv[2], "own") == 0;
	decider = argv[3];
	server = argv[6];
	nodes[0] = argv[7];
	nodes[1] = argv[8];
	pairs_run(atoi(argv[5]), false, atof(argv[4]), transfers);
	return 0;
}
