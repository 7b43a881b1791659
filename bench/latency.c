/*
 * latency.c
 *	  How long after a payment's COMMIT its alert reaches a listening client.
 *
 * Some connections insert payments at a steady rate, each in a transaction of
 * its own; every so-many-th is marked to raise an alert.  Another connection
 * LISTENs.  For every marked payment the time is noted when the inserter
 * sends it, when its COMMIT has returned, and when the notification is read.
 * At the same time one more connection inserts and commits rows like alerts, as
 * often as alerts are raised: that is the floor, since an alert has to be
 * committed durably as well.
 *
 * In mode "plpgsql" one connection more plays the consumer that people write
 * today: woken by NOTIFY it calls bench.consume() until nothing is left.
 *
 * Threads share the sample arrays only.  Sample i is written by the inserter
 * that sends it (sent, returned) and by the listener (received), each field by one of
 * them; main reads after joining all.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define INSERTERS 4

typedef struct Sample
{
	int64_t		sent;			/* nanoseconds, 0: not (yet) */
	int64_t		returned;
	int64_t		received;
} Sample;

static const char *conninfo;
static const char *table;
static int	rate = 1000;		/* payments per second */
static int	seconds = 20;
static int	every = 10;			/* one in so many is marked */
static long first_card;			/* card of sample i: this plus i, never used before */
static bool plpgsql;
static int64_t start;			/* of the schedule */
static int64_t nevents;
static int	nsamples;
static Sample *samples;
static double *floor_ms;
static int	nfloor;
static atomic_bool inserted_all;
static atomic_bool finish;

static int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
sleep_until(int64_t ns)
{
	struct timespec t = {.tv_sec = ns / 1000000000,.tv_nsec = ns % 1000000000};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static void
die(PGconn *conn, const char *what)
{
	fprintf(stderr, "latency: %s: %s", what, PQerrorMessage(conn));
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
open_connection(void)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		die(conn, "connecting");
	check(conn, PQexec(conn, "SET synchronous_commit = on"), "SET");
	return conn;
}

/* Insert events number id, id + INSERTERS, ... of the schedule */
static void *
insert_events(void *arg)
{
	int64_t		id = (int64_t) (intptr_t) arg;
	PGconn	   *conn = open_connection();
	char		sql[512];
	uint64_t	random = 88172645463325252ULL + (uint64_t) id;

	snprintf(sql, sizeof(sql),
			 "INSERT INTO %s (created_at, card_id, merchant_id, amount, country, channel) "
			 "VALUES (clock_timestamp(), $1::int, $2::int, $3::numeric, 'DE', 1)", table);
	check(conn, PQprepare(conn, "ins", sql, 3, NULL), "PREPARE");

	for (int64_t i = id; i < nevents; i += INSERTERS)
	{
		/* spread the marks over the inserters */
		bool		marked = (i / INSERTERS) % every == 0 && i / INSERTERS / every < nsamples / INSERTERS;
		int64_t		n = i / INSERTERS / every * INSERTERS + id;
		char		card[16],
					merchant[16],
					amount[16];
		const char *values[3] = {card, merchant, amount};
		PGresult   *res;
		int64_t		sent;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		snprintf(card, sizeof(card), "%d", (int) (marked ? first_card + n : 1 + (int64_t) (random % 10000)));
		snprintf(merchant, sizeof(merchant), "%d", (int) (1 + (random >> 20) % 1000));
		snprintf(amount, sizeof(amount), "%s", marked ? "99999" : "20.5");

		sleep_until(start + i * 1000000000 / rate);
		sent = now_ns();
		res = PQexecPrepared(conn, "ins", 3, values, NULL, NULL, 0);
		if (marked)
		{
			samples[n].returned = now_ns();
			samples[n].sent = sent;
		}
		check(conn, res, "INSERT");
	}
	PQfinish(conn);
	return NULL;
}

/* Wait for input on the connection, a while at most */
static void
wait_input(PGconn *conn)
{
	struct pollfd p = {.fd = PQsocket(conn),.events = POLLIN};

	poll(&p, 1, 50);
	if (!PQconsumeInput(conn))
		die(conn, "waiting");
}

static void *
listen_alerts(void *arg)
{
	PGconn	   *conn = open_connection();

	(void) arg;
	check(conn, PQexec(conn, plpgsql ? "LISTEN bench_alert" : "LISTEN risk_alert"), "LISTEN");
	while (!finish)
	{
		PGnotify   *n;

		wait_input(conn);
		while ((n = PQnotifies(conn)) != NULL)
		{
			int64_t		at = now_ns();
			const char *card = strstr(n->extra, "card_id=");
			long		i = card ? strtol(card + 8, NULL, 10) - first_card : -1;

			if (i >= 0 && i < nsamples && samples[i].received == 0)
				samples[i].received = at;
			PQfreemem(n);
		}
	}
	PQfinish(conn);
	return NULL;
}

static void *
consume(void *arg)
{
	PGconn	   *conn = open_connection();

	(void) arg;
	check(conn, PQexec(conn, "LISTEN bench_wake"), "LISTEN");
	check(conn, PQprepare(conn, "consume", "SELECT bench.consume()", 0, NULL), "PREPARE");
	while (!finish)
	{
		PGnotify   *n;
		int			got;

		wait_input(conn);
		while ((n = PQnotifies(conn)) != NULL)
			PQfreemem(n);
		do
		{
			PGresult   *res = PQexecPrepared(conn, "consume", 0, NULL, NULL, NULL, 0);

			if (PQresultStatus(res) != PGRES_TUPLES_OK)
				die(conn, "consuming");
			got = atoi(PQgetvalue(res, 0, 0));
			PQclear(res);
		} while (got > 0);
	}
	PQfinish(conn);
	return NULL;
}

/* The floor: a row like an alert, as often as alerts are raised */
static void *
insert_floor(void *arg)
{
	PGconn	   *conn = open_connection();
	int64_t		step = (int64_t) 1000000000 * every / rate;

	(void) arg;
	check(conn, PQprepare(conn, "ins",
						  "INSERT INTO bench.floor (stream_id, stream, event_key, entity, lead_rule, event_time, "
						  "score, decision, severity, rules, reasons, features, rule_set_version, last_event_time) "
						  "VALUES (1, 'payments', $1, 'card_id=' || $1, 'marked', now(), 100, 'deny', 'high', '{marked}', "
						  "'[{\"rule\": \"marked\", \"points\": 100, \"text\": \"marked\"}]', "
						  "'{\"card_count_1h\": 1, \"card_sum_1h\": 99999, \"card_avg_30d\": 99999}', 1, now())", 1, NULL),
		  "PREPARE");
	for (int i = 0; i < nsamples && !inserted_all; i++)
	{
		char		key[16];
		const char *values[1] = {key};
		int64_t		sent;
		PGresult   *res;

		snprintf(key, sizeof(key), "%d", i);
		sleep_until(start + i * step + step / 2);
		sent = now_ns();
		res = PQexecPrepared(conn, "ins", 1, values, NULL, NULL, 0);
		floor_ms[nfloor++] = (now_ns() - sent) / 1e6;
		check(conn, res, "INSERT");
	}
	PQfinish(conn);
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
print_percentiles(const char *label, double *v, int n)
{
	qsort(v, n, sizeof(double), compare);
	if (n == 0)
		printf("%s n=0\n", label);
	else
		printf("%s n=%d p50=%.3f p90=%.3f p99=%.3f max=%.3f\n", label, n,
			   v[n / 2], v[(int) (n * 0.9)], v[(int) (n * 0.99)], v[n - 1]);
}

int
main(int argc, char **argv)
{
	pthread_t	inserter[INSERTERS],
				listener,
				consumer,
				floorer;
	double	   *from_return,
			   *from_send,
			   *commit;
	int			n = 0,
				lost = 0;

	if (argc != 7 || (strcmp(argv[2], "risk_alert") != 0 && strcmp(argv[2], "plpgsql") != 0))
	{
		fprintf(stderr, "usage: latency CONNINFO risk_alert|plpgsql EVENTS_PER_SECOND SECONDS ONE_ALERT_IN FIRST_CARD\n");
		return 2;
	}
	conninfo = argv[1];
	plpgsql = strcmp(argv[2], "plpgsql") == 0;
	table = plpgsql ? "bench.sql_payments" : "payments";
	rate = atoi(argv[3]);
	seconds = atoi(argv[4]);
	every = atoi(argv[5]);
	first_card = atol(argv[6]);
	if (rate <= 0 || seconds <= 0 || every <= 0 || first_card <= 0)
	{
		fprintf(stderr, "latency: the numbers must be positive\n");
		return 2;
	}

	nevents = (int64_t) rate * seconds;
	nsamples = (int) (nevents / every / INSERTERS * INSERTERS);
	samples = calloc(nsamples + INSERTERS, sizeof(Sample));
	floor_ms = calloc(nsamples + INSERTERS, sizeof(double));
	from_return = calloc(nsamples + INSERTERS, sizeof(double));
	from_send = calloc(nsamples + INSERTERS, sizeof(double));
	commit = calloc(nsamples + INSERTERS, sizeof(double));
	if (!samples || !floor_ms || !from_return || !from_send || !commit)
		return 1;

	/* all are connected and listen well before the first event */
	start = now_ns() + 500000000;
	pthread_create(&listener, NULL, listen_alerts, NULL);
	if (plpgsql)
		pthread_create(&consumer, NULL, consume, NULL);
	pthread_create(&floorer, NULL, insert_floor, NULL);
	for (intptr_t i = 0; i < INSERTERS; i++)
		pthread_create(&inserter[i], NULL, insert_events, (void *) i);
	for (int i = 0; i < INSERTERS; i++)
		pthread_join(inserter[i], NULL);
	inserted_all = true;
	pthread_join(floorer, NULL);
	sleep_until(now_ns() + 1500000000);
	finish = true;
	pthread_join(listener, NULL);
	if (plpgsql)
		pthread_join(consumer, NULL);

	/* the first tenth is warming up */
	for (int i = nsamples / 10; i < nsamples; i++)
	{
		if (samples[i].received == 0 || samples[i].sent == 0)
		{
			lost++;
			continue;
		}
		from_return[n] = (samples[i].received - samples[i].returned) / 1e6;
		from_send[n] = (samples[i].received - samples[i].sent) / 1e6;
		commit[n] = (samples[i].returned - samples[i].sent) / 1e6;
		n++;
	}
	print_percentiles("alert", from_return, n);
	print_percentiles("alert_from_send", from_send, n);
	print_percentiles("insert", commit, n);
	print_percentiles("floor", floor_ms + nfloor / 10, nfloor - nfloor / 10);
	printf("lost n=%d\n", lost);
	return 0;
}
