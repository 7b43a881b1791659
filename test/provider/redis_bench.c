/*
 * redis_bench.c
 *	  Uncontended pairs of acquire and release per second, against what one would write by
 *	  hand with synchronous hiredis: SET NX PX, INCR, compare and delete by a script.
 */
#include "redis_harness.h"

#define PAIRS 3000
#define ROUNDS 15		/* interleaved; the middle one of each counts */

static double
seconds_since(int64_t start)
{
	return (double) (now_ns() - start) / 1e9;
}

static void
check(void *reply)
{
	assert_non_null(reply);
	assert_true(((redisReply *) reply)->type != REDIS_REPLY_ERROR);
	freeReplyObject(reply);
}

static double
by_hand(void)
{
	redisReply *sha = admin(&server, "SCRIPT LOAD %s",
							"if redis.call('GET', KEYS[1]) == ARGV[1] then "
							"return redis.call('DEL', KEYS[1]) end return 0");
	int64_t		start = now_ns();

	for (int i = 0; i < PAIRS; i++)
	{
		check(admin(&server, "SET lock:k %d NX PX 10000", i));
		check(admin(&server, "INCR token"));
		check(admin(&server, "EVALSHA %s 1 lock:k %d", sha->str, i));
	}
	freeReplyObject(sha);
	return PAIRS / seconds_since(start);
}

/* waiting: for the release before the next acquire, too */
static double
by_provider(Node *node, bool waiting)
{
	static Lock lock[2];
	int64_t		start = now_ns();

	for (int i = 0; i < PAIRS; i++)
	{
		Lock	   *l = &lock[i % 2];

		exclusive(l, node, "k");
		while (l->what == NOTHING)
			pump(1000);
		give_up(l);
		while (waiting && l->what == GRANTED)
			pump(1000);
	}
	while (lock[1].what == GRANTED)
		pump(1000);
	return PAIRS / seconds_since(start);
}

/* Many at once, as from many backends */
static double
in_parallel(Node *node, int n)
{
	Lock	   *lock = calloc(n, sizeof(Lock));
	int64_t		start = now_ns();
	int			pairs = 0;

	while (pairs < 5 * PAIRS)
	{
		for (int i = 0; i < n; i++)
		{
			char		key[16];

			if (lock[i].what == GRANTED && !lock[i].given_up)
			{
				give_up(&lock[i]);
				pairs++;
			}
			else if (lock[i].request == NULL)
			{
				snprintf(key, sizeof(key), "%d", i);
				exclusive(&lock[i], node, key);
			}
		}
		pump(1000);
	}
	for (int i = 0; i < n; i++)
	{
		if (lock[i].request != NULL && !lock[i].given_up)
			give_up(&lock[i]);
		while (lock[i].request != NULL)
			pump(1000);
	}
	free(lock);
	return pairs / seconds_since(start);
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

int
main(void)
{
	static const char *const name[4] = {
		"by hand, synchronous", "provider, one after the other",
		"provider, releases not awaited", "provider, 64 at once"
	};
	static double result[4][ROUNDS];
	Node		node;
	void	   *state = NULL;

	signal(SIGPIPE, SIG_IGN);
	ops = ra_redis_provider();
	begin(&state);
	node_open(&node, "a", server.port, 10000);
	while (node.sessions == 0)
		pump(1000);
	for (int round = 0; round < ROUNDS; round++)
	{
		result[0][round] = by_hand();
		result[1][round] = by_provider(&node, true);
		result[2][round] = by_provider(&node, false);
		result[3][round] = in_parallel(&node, 64);
	}
	for (int i = 0; i < 4; i++)
	{
		qsort(result[i], ROUNDS, sizeof(double), compare);
		printf("%-44s %7.0f pairs/s  %.2f x\n", name[i], result[i][ROUNDS / 2],
			   result[i][ROUNDS / 2] / result[0][ROUNDS / 2]);
	}
	node_close(&node);
	server_remove(&server);
	return 0;
}
