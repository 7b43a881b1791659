/*
 * redis_chaos_test.c
 *	  Locks by Redis while everything fails at random.
 *
 * Each node sits behind a proxy that stalls, swallows and cuts; the server is
 * killed and comes back with older data, or none; requests come and go.  Always:
 * no two nodes hold a lock that excludes the other while their leases run, a token is
 * higher than all that were known when its request was made, and in the end nothing is
 * left.  SEED=... repeats the choices, though not the timing.
 */
#include "redis_harness.h"

enum
{
	NODES = 4, KEYS = 3, LOCKS = 6
};

static const char *const key_names[KEYS] = {"k0", "k1", "k2"};
static Proxy proxy[NODES];
static int64_t heal_at[NODES];	/* 0: healthy */
static Node node[NODES];
static Lock lock[NODES][LOCKS];
static struct
{
	uint64_t	generation;
	uint64_t	token;
}			known, at_ask[NODES][LOCKS];

static void
heal(int i)
{
	proxy[i].hold_up = proxy[i].swallow_down = proxy[i].refuse = proxy[i].hold_old = false;
	heal_at[i] = 0;
}

static void
ask_or_give_up(int i, int j)
{
	Lock	   *l = &lock[i][j];

	if (l->what != NOTHING && l->what != GRANTED)
	{
		l->key = rand() % KEYS;
		at_ask[i][j].generation = known.generation;
		at_ask[i][j].token = known.token;
		ask(l, &node[i], key_names[l->key],
			rand() % 3 ? RA_PROVIDER_EXCLUSIVE : RA_PROVIDER_SHARED, rand() % 4 == 0);
	}
	else if (!l->given_up && rand() % 3 == 0 && (heal_at[i] == 0 || rand() % 20 == 0))
		give_up(l);				/* a broken node mostly holds on, that's the point */
}

/* For a moment, or for longer than a session lives */
static void
break_something(int i)
{
	int64_t		now = now_ns();

	if (heal_at[i] != 0)
	{
		if (now < heal_at[i])
			return;
		heal(i);
	}
	if (rand() % 60 != 0)
		return;
	heal_at[i] = now + (rand() % 4 ? rand() % 300 : 600 + rand() % 1000) * MS;
	switch (rand() % 6)
	{
		case 0:
		case 1:
			proxy[i].hold_up = true;
			break;
		case 2:
			proxy[i].swallow_down = true;
			break;
		case 3:
			proxy_cut(&proxy[i]);
			proxy[i].refuse = rand() % 2;
			break;
		case 4:
			/* what the old connection has said comes after the next one's */
			proxy[i].hold_old = true;
			break;
		case 5:
			proxy[i].hold_up = true;
			proxy[i].swallow_down = true;
			break;
	}
}

static void
break_server(void)
{
	switch (rand() % 1500)
	{
		case 0:
			admin_do(&server, "SCRIPT FLUSH");
			break;
		case 1:
			admin_do(&server, "SAVE");
			break;
		case 2:
			server_kill(&server);
			server_start(&server, "");
			break;
		case 3:
			if (rand() % 2)
				admin_do(&server, "FLUSHALL");
			break;
		case 4:
			admin_do(&server, "CLIENT KILL TYPE pubsub");
			break;
	}
}

static void
check_tokens(void)
{
	for (int n = 0; n < ngrants; n++)
	{
		Lock	   *l = grant_order[n];
		int			i = (int) (l->node - node);
		int			j = (int) (l - lock[i]);

		if (l->generation < at_ask[i][j].generation ||
			(l->generation == at_ask[i][j].generation && l->token <= at_ask[i][j].token))
			fail_msg("token %llu/%llu although %llu/%llu was known",
					 (unsigned long long) l->generation, (unsigned long long) l->token,
					 (unsigned long long) at_ask[i][j].generation,
					 (unsigned long long) at_ask[i][j].token);
	}
	for (int n = 0; n < ngrants; n++)
	{
		Lock	   *l = grant_order[n];

		if (l->generation > known.generation ||
			(l->generation == known.generation && l->token > known.token))
		{
			known.generation = l->generation;
			known.token = l->token;
		}
	}
}

/* Returns how many are held by a node whose lease runs */
static int
check_exclusion(void)
{
	int64_t		now = now_ns();
	int			all = 0;

	for (int k = 0; k < KEYS; k++)
	{
		int			holders = 0;
		int			alone = 0;

		for (int i = 0; i < NODES; i++)
		{
			for (int j = 0; j < LOCKS; j++)
			{
				Lock	   *l = &lock[i][j];

				if (l->key != k || l->what != GRANTED || l->given_up || node[i].lease <= now)
					continue;
				holders++;
				alone += l->mode == RA_PROVIDER_EXCLUSIVE;
			}
		}
		if (alone > 0 && holders > 1)
			fail_msg("%s has %d holders, %d of them exclusive", key_names[k], holders, alone);
		all += holders;
	}
	return all;
}

static void
nothing_is_held_twice_and_nothing_left(void **state)
{
	Node		last;
	unsigned	seed = getenv("SEED") ? (unsigned) atoi(getenv("SEED")) : (unsigned) now_ns();
	int			seconds = getenv("SECONDS_OF_CHAOS") ? atoi(getenv("SECONDS_OF_CHAOS")) : 15;
	int64_t		finish = now_ns() + seconds * 1000 * MS;
	long		grants = 0;
	long		held = 0;
	int			losses = 0;

	(void) state;
	srand(seed);
	fprintf(stderr, "# SEED=%u\n", seed);
	for (int i = 0; i < NODES; i++)
	{
		char		name[2] = {(char) ('a' + i), 0};

		proxy_open(&proxy[i], server.port);
		proxies[nproxies++] = &proxy[i];
		node_open(&node[i], name, proxy[i].port, 600);
		for (int j = 0; j < LOCKS; j++)
			lock[i][j].what = RELEASED;
	}
	while (now_ns() < finish)
	{
		for (int n = 0; n < 4; n++)
			ask_or_give_up(rand() % NODES, rand() % LOCKS);
		for (int n = 0; n < NODES; n++)
			break_something(n);
		break_server();
		ngrants = 0;
		pump(rand() % 3);
		check_tokens();
		held += check_exclusion();
		grants += ngrants;
	}

	for (int i = 0; i < NODES; i++)
		heal(i);
	for (int i = 0; i < NODES; i++)
	{
		until(node[i].connected);
		losses += node[i].losses;
	}
	fprintf(stderr, "# %ld grants, %ld seen held, %d sessions lost\n", grants, held, losses);
	for (int i = 0; i < NODES; i++)
		node_close(&node[i]);
	node_open(&last, "z", server.port, 600);
	until(last.sessions == 1 && admin_integer(&server, "HLEN {test}:members") == 1);
	node_close(&last);
	assert_nothing_left();
	assert_true(grants > 0 && held > 0);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST_OF_SERVER(nothing_is_held_twice_and_nothing_left),
	};

	return run_all("redis-chaos", tests, LENGTH(tests), argc, argv);
}
