/*
 * global.h
 *	  What the benchmarks of global transactions share: a transfer from an account on
 *	  one node to one on another.
 *
 * Each client has accounts of its own, so that nobody waits for another's rows.
 */
#ifndef GLOBAL_H
#define GLOBAL_H

#include <string.h>

#include <libpq-fe.h>

#include "pairs.h"

#define ACCOUNTS 1000			/* of each client, on each node */

#define TAKE "UPDATE account SET balance = balance - 1 WHERE id = %d"
#define TAKE_NOTHING "UPDATE account SET balance = balance - 0 WHERE id = %d"
#define GIVE "UPDATE account SET balance = balance + 1 WHERE id = %d"
#define TAKE_PARAM "UPDATE account SET balance = balance - 1 WHERE id = $1::int"
#define GIVE_PARAM "UPDATE account SET balance = balance + 1 WHERE id = $1::int"

static inline void
die(PGconn *conn, const char *what)
{
	fprintf(stderr, "%s: %s", what, conn ? PQerrorMessage(conn) : "failed\n");
	exit(1);
}

static inline PGconn *
connect_to(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		die(conn, "connecting");
	return conn;
}

static inline void
send_message(PGconn *conn, const char *sql)
{
	if (!PQsendQuery(conn, sql))
		die(conn, sql);
}

/* The sum of an array of numbers, or of the one that it is */
static inline int
sum_of(const char *text)
{
	int			sum = 0;
	char	   *end = (char *) text;

	while (*(text = end + strspn(end, "{},")) != '\0')
	{
		sum += (int) strtol(text, &end, 10);
		if (end == text)
			die(NULL, text);
	}
	return sum;
}

/* Until the message has ended; how many rows its UPDATEs had, here or as global_execute() and global_execute_all() say */
static inline int
answer(PGconn *conn, const char *what)
{
	PGresult   *res;
	int			n = 0;

	while ((res = PQgetResult(conn)) != NULL)
	{
		if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
			die(conn, what);
		n += sum_of(PQresultStatus(res) == PGRES_TUPLES_OK ? PQgetvalue(res, 0, 0) : PQcmdTuples(res));
		PQclear(res);
	}
	return n;
}

static inline int
random_account(Pairs *pairs, unsigned int *seed)
{
	return (pairs->number - 1) * ACCOUNTS + rand_r(seed) % ACCOUNTS + 1;
}

#endif							/* GLOBAL_H */
