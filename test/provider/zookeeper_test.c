/*
 * zookeeper_test.c
 *	  The ZooKeeper provider against a real server.
 *
 * Environment: ZK_DIR is the server's directory, ZK_HOSTS where it listens,
 * ZK_SERVER the program that controls it.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "zookeeper.h"

static void
server(const char *command)
{
	char		line[1024];

	snprintf(line, sizeof(line), "%s %s %s >/dev/null", getenv("ZK_SERVER"), command, getenv("ZK_DIR"));
	assert_int_equal(system(line), 0);
}

static const char *
proxy_hosts(Proxy *proxy)
{
	static char hosts[16][32];
	static int	turn;
	char	   *text = hosts[turn++ % 16];

	snprintf(text, 32, "127.0.0.1:%d", proxy_port(proxy));
	return text;
}

static int
new_cluster(void **state)
{
	static int	count;

	(void) state;
	snprintf(harness_cluster, sizeof(harness_cluster), "test%d.%d", (int) getpid(), ++count);
	return 0;
}

static int
end_test(void **state)
{
	(void) state;
	nodes_close();
	return 0;
}

/* ---- locks ---- */

static void
acquire_release(void **state)
{
	Node	   *a = node_open(NULL, "a", 5000);
	Lock	   *lock = lock_acquire(a, "key", X, false);	/* before there is a session */
	Lock	   *again;

	(void) state;
	UNTIL(lock->granted);
	assert_int_equal(a->sessions, 1);
	assert_true(lock->token > 0);
	assert_true(a->generation > 1700000000);
	assert_true(a->lease > harness_now());
	assert_int_equal(node_list(a), 1);
	assert_string_equal(a->entries[0].key, "key");
	assert_string_equal(a->entries[0].node, "a");
	assert_true(a->entries[0].granted);
	assert_true(a->entries[0].token == lock->token);
	lock_release(lock);
	UNTIL(lock->released);
	assert_int_equal(node_list(a), 0);

	again = lock_acquire(a, "key", X, false);
	UNTIL(again->granted);
	assert_true(again->token > lock->token);
	assert_int_equal(a->warnings, 0);
}

static void
first_come_first_served(void **state)
{
	Node	   *nodes[3] = {node_open(NULL, "a", 5000), node_open(NULL, "b", 5000), node_open(NULL, "c", 5000)};
	Lock	   *locks[9];

	(void) state;
	for (int i = 0; i < 9; i++)
	{
		Node	   *node = nodes[i * 2 % 3];
		int			before = i;

		locks[i] = lock_acquire(node, "fifo", X, false);
		UNTIL(node_list(node) > before);	/* it stands in the queue */
	}
	for (int i = 0; i < 9; i++)
	{
		UNTIL(locks[i]->granted);
		for (int j = i + 1; j < 9; j++)
			assert_int_equal(locks[j]->granted, 0);
		if (i > 0)
			assert_true(locks[i]->token > locks[i - 1]->token);
		lock_release(locks[i]);
	}
	UNTIL(locks[8]->released);
	assert_int_equal(node_list(nodes[0]), 0);
}

static void
shared_and_exclusive(void **state)
{
	static const RaProviderMode modes[] = {S, S, X, S, S, X};
	Node	   *nodes[2] = {node_open(NULL, "a", 5000), node_open(NULL, "b", 5000)};
	Lock	   *l[6];

	(void) state;
	for (int i = 0; i < 6; i++)
	{
		l[i] = lock_acquire(nodes[i % 2], "rw", modes[i], false);
		UNTIL(node_list(nodes[i % 2]) > i);
	}
	UNTIL(l[0]->granted && l[1]->granted);
	for (int i = 0; i < 6; i++)
	{
		assert_int_equal(nodes[1]->entries[i].granted, i < 2);
		assert_int_equal(nodes[1]->entries[i].mode, modes[i]);
		assert_int_equal(nodes[1]->entries[i].position, i);
	}
	lock_release(l[1]);			/* leaves the other reader */
	UNTIL(l[1]->released);
	node_list(nodes[0]);
	assert_int_equal(l[2]->granted, 0);
	lock_release(l[0]);
	UNTIL(l[2]->granted);
	assert_int_equal(l[3]->granted, 0);
	lock_release(l[2]);
	UNTIL(l[3]->granted && l[4]->granted);
	assert_int_equal(l[5]->granted, 0);
	lock_release(l[4]);
	lock_release(l[3]);
	UNTIL(l[5]->granted);
}

/* One that stops waiting is no release of what was before it */
static void
waiter_gives_up(void **state)
{
	Node	   *a = node_open(NULL, "a", 5000);
	Node	   *b = node_open(NULL, "b", 5000);
	Lock	   *first = lock_acquire(a, "k", X, false);
	Lock	   *second;
	Lock	   *third;

	(void) state;
	UNTIL(first->granted);
	second = lock_acquire(b, "k", X, false);
	UNTIL(node_list(b) == 2);
	third = lock_acquire(a, "k", X, false);
	UNTIL(node_list(a) == 3);
	lock_release(second);
	UNTIL(second->released);
	pump_for(200);
	assert_int_equal(third->granted, 0);
	lock_release(first);
	UNTIL(third->granted);
	assert_int_equal(second->granted, 0);

	/* given up at once, before anything was answered */
	second = lock_acquire(b, "k", X, false);
	lock_release(second);
	UNTIL(second->released);
	lock_release(third);
	UNTIL(third->released);
	assert_int_equal(node_list(a), 0);
}

static void
no_waiting(void **state)
{
	Node	   *a = node_open(NULL, "a", 5000);
	Node	   *b = node_open(NULL, "b", 5000);
	Lock	   *held = lock_acquire(a, "k", S, true);
	Lock	   *other;

	(void) state;
	UNTIL(held->granted);
	other = lock_acquire(b, "k", X, true);
	UNTIL(other->refused);
	assert_int_equal(other->granted, 0);
	other = lock_acquire(b, "k", S, true);
	UNTIL(other->granted);
	lock_release(other);
	lock_release(held);
	UNTIL(other->released && held->released);
	other = lock_acquire(b, "k", X, true);
	UNTIL(other->granted);
	assert_int_equal(node_list(a), 1);
}

static void
look(void **state)
{
	Node	   *a = node_open(NULL, "a", 5000);
	Node	   *b = node_open(NULL, "b", 5000);
	Lock	   *held = lock_acquire(a, "k", X, false);
	Lock	   *waits;

	(void) state;
	UNTIL(held->granted);
	a->ops->look(a->p, held->request);
	UNTIL(held->contended == 0);
	waits = lock_acquire(b, "k", X, false);
	UNTIL(node_list(b) == 2);
	a->ops->look(a->p, held->request);
	UNTIL(held->contended == 1);
	assert_int_equal(waits->granted, 0);
}

/* Keys are bytes, short and long; lists show them as they are */
static void
any_key(void **state)
{
	Node	   *a = node_open(NULL, "no/de;ä.", 5000);
	Lock	   *locks[6];
	char		bytes[256];
	char		longest[RA_KEY_MAX];
	char		other[RA_KEY_MAX];
	int			found = 0;

	(void) state;
	for (int i = 0; i < 256; i++)
		bytes[i] = (char) i;
	memset(longest, '/', sizeof(longest));
	memcpy(other, longest, sizeof(other));
	other[RA_KEY_MAX - 1] = '.';
	locks[0] = lock_acquire_bytes(a, bytes, 256, X, false);
	locks[1] = lock_acquire_bytes(a, longest, sizeof(longest), X, false);
	locks[2] = lock_acquire_bytes(a, other, sizeof(other), X, false);
	locks[3] = lock_acquire(a, "", X, false);
	locks[4] = lock_acquire(a, ".", X, false);
	locks[5] = lock_acquire(a, "a;b/%c\n", X, false);
	for (int i = 0; i < 6; i++)
		UNTIL(locks[i]->granted);
	assert_int_equal(node_list(a), 6);
	for (int i = 0; i < 6; i++)
	{
		Entry	   *e = &a->entries[i];

		found += e->keylen == 256 && memcmp(e->key, bytes, 256) == 0;
		found += e->keylen == RA_KEY_MAX && memcmp(e->key, longest, RA_KEY_MAX) == 0;
		found += e->keylen == RA_KEY_MAX && memcmp(e->key, other, RA_KEY_MAX) == 0;
		found += e->keylen == 0;
		found += strcmp(e->key, ".") == 0;
		found += strcmp(e->key, "a;b/%c\n") == 0;
		assert_string_equal(e->node, "no/de;ä.");
	}
	assert_int_equal(found, 6);
	assert_int_equal(a->warnings, 0);

	/* a long one excludes as well */
	locks[0] = lock_acquire_bytes(a, longest, sizeof(longest), X, false);
	UNTIL(node_list(a) == 7);
	assert_int_equal(locks[0]->granted, 0);
	lock_release(locks[1]);
	UNTIL(locks[0]->granted);
}

/* A release wakes one waiter, whatever their number */
static void
many_waiters(void **state)
{
	enum
	{
		N = 200
	};
	Node	   *nodes[4] = {
		node_open(NULL, "a", 8000), node_open(NULL, "b", 8000), node_open(NULL, "c", 8000), node_open(NULL, "d", 8000)
	};
	Lock	   *locks[N + 1];
	uint64_t	fired = 0;
	uint64_t	lists = 0;
	int			last = 0;

	(void) state;
	locks[N] = lock_acquire(nodes[0], "crowd", X, false);
	UNTIL(locks[N]->granted);
	for (int i = 0; i < N; i++)
		locks[i] = lock_acquire(nodes[i % 4], "crowd", X, false);
	UNTIL(node_list(nodes[0]) == N + 1);
	pump_for(100);				/* watches are set, too */
	for (int i = 0; i < 4; i++)
	{
		fired -= nodes[i]->p->stats.fired;
		lists -= nodes[i]->p->stats.lists;
	}
	lock_release(locks[N]);
	for (int done = 0; done < N;)
	{
		int			granted = -1;

		pump(100);
		for (int i = 0; i < N; i++)
			if (locks[i]->granted && !locks[i]->released && locks[i]->contended == -1)
			{
				assert_int_equal(granted, -1);
				granted = i;
			}
		if (granted < 0)
			continue;
		assert_true(locks[granted]->order > last);
		last = locks[granted]->order;
		locks[granted]->contended = 0;	/* seen */
		lock_release(locks[granted]);
		done++;
	}
	for (int i = 0; i < N; i++)
		UNTIL(locks[i]->released);
	for (int i = 0; i < 4; i++)
	{
		fired += nodes[i]->p->stats.fired;
		lists += nodes[i]->p->stats.lists;
	}
	print_message("# %d waiters drained with %d wake-ups, %d lists\n", N, (int) fired, (int) lists);
	assert_true(fired <= N);
	assert_true(lists <= N);
	assert_int_equal(node_list(nodes[0]), 0);
}

/* ---- unknown outcomes ---- */

/* The answer to a create is lost: one entry, not none, not two */
static void
create_unknown(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Lock	   *warm = lock_acquire(a, "k", X, false);

	(void) state;
	UNTIL(warm->granted && b->sessions);
	lock_release(warm);
	UNTIL(warm->released);
	for (int round = 0; round < 4; round++)
	{
		Lock	   *lock;
		Lock	   *waits = NULL;
		uint64_t	token;

		proxy_swallow(proxy, true);
		lock = lock_acquire(a, "k", X, false);
		UNTIL(proxy_swallowed(proxy) > 0 && node_list(b) == 1);
		if (round == 1)
			lock_release(lock); /* gives up while it does not know */
		if (round == 2)
		{
			waits = lock_acquire(b, "k", X, false);
			UNTIL(node_list(b) == 2);
		}
		proxy_cut(proxy);
		proxy_swallow(proxy, false);
		if (round != 1)
		{
			UNTIL(lock->granted);
			token = lock->token;
			assert_int_equal(node_list(b), round == 2 ? 2 : 1);
			assert_true(token > warm->token);
			lock_release(lock);
		}
		UNTIL(lock->released);
		if (waits != NULL)
		{
			UNTIL(waits->granted);
			assert_true(waits->token > lock->token);
			lock_release(waits);
			UNTIL(waits->released);
		}
		assert_int_equal(node_list(b), 0);
	}
	assert_int_equal(a->sessions, 1);
	assert_int_equal(a->connects, 5);

	/* the request itself is lost: it must be made again */
	proxy_hold(proxy, true);
	warm = lock_acquire(a, "k", X, false);
	pump_for(50);
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(warm->granted);
	assert_int_equal(node_list(b), 1);
	assert_int_equal(a->sessions, 1);
}

static void
delete_unknown(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);

	(void) state;
	for (int round = 0; round < 2; round++)
	{
		Lock	   *lock = lock_acquire(a, "k", X, false);
		Lock	   *waits;

		UNTIL(lock->granted);
		waits = lock_acquire(b, "k", X, false);
		UNTIL(b->sessions && node_list(b) == 2);
		if (round == 0)
			proxy_swallow(proxy, true);
		else
			proxy_hold(proxy, true);
		lock_release(lock);
		if (round == 0)
			UNTIL(waits->granted);
		else
			pump_for(50);
		assert_int_equal(lock->released, 0);
		proxy_cut(proxy);
		proxy_swallow(proxy, false);
		proxy_hold(proxy, false);
		UNTIL(lock->released && waits->granted);
		lock_release(waits);
		UNTIL(waits->released);
		assert_int_equal(node_list(b), 0);
	}
	assert_int_equal(a->sessions, 1);
}

/* The same at random, many requests on their way each time */
static void
cut_at_random(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Lock	   *locks[40];
	unsigned	seed = 1;

	(void) state;
	UNTIL(a->sessions && b->sessions);
	for (int round = 0; round < 25; round++)
	{
		for (int i = 0; i < 40; i++)
		{
			char		key[16];

			snprintf(key, sizeof(key), "k%d", i % 10);
			locks[i] = lock_acquire(i % 4 == 3 ? b : a, key, rand_r(&seed) % 3 ? X : S, false);
		}
		for (int i = 0; i < 40;)
		{
			if (rand_r(&seed) % 8 == 0)
			{
				proxy_swallow(proxy, rand_r(&seed) % 2);
				pump(2);
				proxy_cut(proxy);
				proxy_swallow(proxy, false);
			}
			pump(1);

			/* in any order: granted or not */
			if (rand_r(&seed) % 2)
				lock_release(locks[i++]);
		}
		for (int i = 0; i < 40; i++)
			UNTIL(locks[i]->released);
		assert_int_equal(node_list(b), 0);
	}
	assert_int_equal(a->sessions, 1);
	assert_int_equal(a->warnings, 0);
}

/* ---- sessions ---- */

static void
session_expires(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 1000);
	Node	   *b = node_open(NULL, "b", 8000);
	Lock	   *held = lock_acquire(a, "held", X, false);
	Lock	   *other = lock_acquire(b, "other", X, false);
	Lock	   *waits;
	Lock	   *next;
	Lock	   *gives_up;
	Lock	   *releases = lock_acquire(a, "releases", X, false);

	(void) state;
	UNTIL(held->granted && other->granted && releases->granted);
	waits = lock_acquire(a, "other", X, false);
	gives_up = lock_acquire(a, "other", X, false);
	next = lock_acquire(b, "held", X, false);
	UNTIL(node_list(b) == 6);

	proxy_hold(proxy, true);
	lock_release(releases);
	lock_release(gives_up);
	UNTIL(next->granted);
	assert_true(a->lease < harness_now());	/* had ended by itself before */
	assert_int_equal(held->lost, 0);	/* nobody could tell */
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(a->sessions == 2);
	assert_int_equal(a->sessions_lost, 1);
	assert_int_equal(held->lost, 1);
	assert_int_equal(releases->released, 1);
	assert_int_equal(gives_up->released, 1);
	assert_int_equal(waits->granted + waits->lost, 0);
	UNTIL(node_list(b) == 3);	/* it waits again */
	lock_release(other);
	UNTIL(waits->granted);
	assert_true(a->lease > harness_now());
	lock_release(next);
	held = lock_acquire(a, "held", X, false);
	UNTIL(held->granted);
	assert_true(held->token > next->token);
}

/* A process that was stopped takes no lease for what it had sent before */
static void
stopped_process(void **state)
{
	Node	   *a = node_open(NULL, "a", 1000);
	Lock	   *held = lock_acquire(a, "k", X, false);
	int64_t		stopped;
	int64_t		lease;
	pid_t		waker;
	pid_t		self = getpid();

	(void) state;
	UNTIL(held->granted && a->leases > 3);
	waker = fork();
	if (waker == 0)
	{
		usleep(2500000);
		kill(self, SIGCONT);
		_exit(0);
	}
	stopped = harness_now();
	kill(self, SIGSTOP);
	waitpid(waker, NULL, 0);
	assert_true(a->lease < harness_now());
	while (a->sessions_lost == 0)
	{
		lease = a->lease;
		assert_true(lease < stopped + 1000 * INT64_C(1000000));
		pump(10);
	}
	assert_int_equal(held->lost, 1);
	UNTIL(a->sessions == 2 && a->lease > harness_now());
}

static void
lease_goes_on(void **state)
{
	Node	   *a = node_open(NULL, "a", 1500);
	int64_t		end = harness_now() + INT64_C(4000000000);
	int64_t		least = INT64_MAX;

	(void) state;
	UNTIL(a->lease > 0);
	while (harness_now() < end)
	{
		int64_t		left;

		pump(50);
		left = a->lease - harness_now();
		if (left < least)
			least = left;
	}
	print_message("# timeout %d ms: at least %d ms of lease at any time\n", a->timeout, (int) (least / 1000000));
	assert_true(least > 0);
	assert_int_equal(a->sessions, 1);
}

static void
previous_session(void **state)
{
	RaProviderConfig config = {
		.hosts = harness_hosts, .cluster = harness_cluster, .node = "a", .session_timeout_ms = 4000
	};
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *dead = node_open(proxy_hosts(proxy), "a", 4000);
	Node	   *b = node_open(NULL, "b", 4000);
	Node	   *a;
	Lock	   *held = lock_acquire(dead, "k", X, false);
	Lock	   *next;
	int64_t		start;

	(void) state;
	dead->ops->set_member(dead->p, "old");
	UNTIL(held->granted && strcmp(b->members, "a=old ") == 0);
	next = lock_acquire(b, "k", X, false);
	UNTIL(node_list(b) == 2);

	/* as good as killed */
	proxy_hold(proxy, true);
	dead->quiet = true;
	start = harness_now();
	config.previous_session = dead->session;
	a = node_open_config(&config);
	a->ops->set_member(a->p, "new");
	UNTIL(a->sessions == 1);
	UNTIL(next->granted);
	assert_true(harness_now() - start < INT64_C(2000000000));
	UNTIL(strcmp(b->members, "a=new ") == 0);

	/* it has ended: no harm */
	node_close(a);
	start = harness_now();
	a = node_open_config(&config);
	UNTIL(a->sessions == 1);
	assert_true(harness_now() - start < INT64_C(2000000000));
	node_close(a);
	config.previous_session = "something else";
	a = node_open_config(&config);
	UNTIL(a->sessions == 1);
}

/* ---- generation ---- */

static void
generation(void **state)
{
	RaProviderConfig config = {
		.hosts = harness_hosts, .cluster = harness_cluster, .node = "a", .session_timeout_ms = 4000
	};
	Node	   *a = node_open_config(&config);
	Node	   *b;
	Lock	   *lock;

	(void) state;
	UNTIL(a->sessions == 1);
	config.node = "b";
	config.generation_seen = a->generation;
	b = node_open_config(&config);
	UNTIL(b->sessions == 1);
	assert_true(b->generation == a->generation);
	node_close(b);

	/* one that has seen more raises it; the others are told before they are granted anything */
	config.generation_seen = a->generation + 10;
	b = node_open_config(&config);
	lock = lock_acquire(b, "k", X, false);
	UNTIL(lock->granted);
	assert_true(b->generation > config.generation_seen);
	lock_release(lock);
	lock = lock_acquire(a, "k", X, false);
	UNTIL(lock->granted);
	assert_true(lock->generation == b->generation);
	assert_int_equal(a->sessions_lost, 0);
}

static void
wiped_server(void **state)
{
	Node	   *a = node_open(NULL, "a", 1000);
	Node	   *b = node_open(NULL, "b", 1000);
	Lock	   *lock = lock_acquire(a, "k", X, false);
	Lock	   *waits;
	Lock	   *again;
	uint64_t	before;

	(void) state;
	UNTIL(lock->granted && b->sessions);
	waits = lock_acquire(b, "k", X, false);
	UNTIL(node_list(b) == 2);
	before = a->generation;
	server("stop");
	server("wipe");
	server("start");
	UNTIL(a->sessions > 1 && b->sessions > 1);
	assert_int_equal(lock->lost, 1);
	UNTIL(waits->granted);
	assert_true(a->generation > before);
	assert_true(a->generation == b->generation);
	again = lock_acquire(a, "other", X, false);
	UNTIL(again->granted);
	assert_true(again->generation > lock->generation);
}

/* The server comes back with data from before */
static void
restored_server(void **state)
{
	Node	   *a = node_open(NULL, "a", 1000);
	Lock	   *lock = NULL;
	Lock	   *again;

	(void) state;
	UNTIL(a->sessions);
	server("stop");
	server("save");
	server("start");
	for (int i = 0; i < 50; i++)
	{
		lock = lock_acquire(a, "k", X, false);
		UNTIL(lock->granted);
		lock_release(lock);
		UNTIL(lock->released);
	}
	server("stop");
	server("restore");
	server("start");
	again = lock_acquire(a, "k", X, false);
	UNTIL(again->granted);
	assert_true(again->token < lock->token);
	assert_true(again->generation > lock->generation);
}

/* ---- ensembles ---- */

static char ensemble_dir[512];

/* Runs the command on the three servers, or on one; gives its output */
static const char *
ensemble(const char *command, int which)
{
	static char output[256];
	char		line[1024];
	FILE	   *pipe;

	snprintf(line, sizeof(line), "%s %s %s ", getenv("ZK_SERVER"), command, ensemble_dir);
	if (which > 0)
		snprintf(line + strlen(line), sizeof(line) - strlen(line), "%d", which);
	pipe = popen(line, "r");
	assert_non_null(pipe);
	if (fgets(output, sizeof(output), pipe) == NULL)
		output[0] = '\0';
	assert_int_equal(pclose(pipe), 0);
	output[strcspn(output, "\n")] = '\0';
	return output;
}

/* Host list of the three */
static int
ensemble_hosts(char *hosts, size_t size)
{
	char		path[600];
	FILE	   *file;
	int			port;
	int			n = 0;

	snprintf(path, sizeof(path), "%s/ports", ensemble_dir);
	file = fopen(path, "r");
	assert_non_null(file);
	hosts[0] = '\0';
	while (fscanf(file, "%d", &port) == 1)
		snprintf(hosts + strlen(hosts), size - strlen(hosts), "%s127.0.0.1:%d", n++ > 0 ? "," : "", port);
	fclose(file);
	return n;
}

static int
start_ensemble(void **state)
{
	snprintf(ensemble_dir, sizeof(ensemble_dir), "%s/ensemble", getenv("ZK_DIR"));

	/* the number is that of servers to make; later, of one to start */
	ensemble("start", access(ensemble_dir, F_OK) == 0 ? 0 : 3);
	return new_cluster(state);
}

static int
stop_ensemble(void **state)
{
	end_test(state);
	ensemble("stop", 0);
	return 0;
}

/* A leader that dies costs no lock; a follower that is cut off renews no lease */
static void
three_servers(void **state)
{
	char		hosts[256];
	char		host[64];
	int			leader = atoi(ensemble("leader", 0));
	int			follower = leader % 3 + 1;
	int			other = follower % 3 + 1;
	char	   *at;
	Node	   *a;
	Node	   *b;
	Lock	   *lock;
	Lock	   *waits;
	int64_t		paused;

	(void) state;
	assert_int_equal(ensemble_hosts(hosts, sizeof(hosts)), 3);
	at = hosts;
	for (int i = 1; i < follower; i++)
		at = strchr(at, ',') + 1;
	snprintf(host, sizeof(host), "%.*s", (int) strcspn(at, ","), at);

	a = node_open(host, "a", 4000);
	lock = lock_acquire(a, "k", X, false);
	UNTIL(lock->granted && a->leases > 1);
	ensemble("pause", leader);
	ensemble("pause", other);
	paused = harness_now();
	while (harness_now() < paused + 1500 * INT64_C(1000000))
	{
		pump(20);
		assert_true(a->lease <= paused + a->timeout * INT64_C(700000));
	}
	ensemble("resume", leader);
	ensemble("resume", other);
	UNTIL(a->lease > harness_now() + a->timeout * INT64_C(600000));

	b = node_open(hosts, "b", 4000);
	waits = lock_acquire(b, "k", X, false);
	UNTIL(node_list(b) == 2);
	ensemble("kill", atoi(ensemble("leader", 0)));
	UNTIL(a->connected && a->connects >= 2 && node_list(a) == 2);
	assert_int_equal(a->sessions + b->sessions, 2);
	assert_int_equal(lock->lost + waits->granted, 0);
	assert_true(a->entries[0].token == lock->token);
	lock_release(lock);
	UNTIL(waits->granted);
	assert_true(waits->token > lock->token);
}

/* ---- trouble ---- */

static void
restart_keeps_locks(void **state)
{
	Node	   *a = node_open(NULL, "a", 4000);
	Node	   *b = node_open(NULL, "b", 4000);
	Lock	   *lock = lock_acquire(a, "k", X, false);
	Lock	   *waits;

	(void) state;
	UNTIL(lock->granted && b->sessions);
	waits = lock_acquire(b, "k", X, false);
	UNTIL(node_list(b) == 2);
	server("restart");
	UNTIL(a->connects == 2 && b->connects == 2);
	assert_int_equal(node_list(a), 2);
	assert_true(a->entries[0].token == lock->token);
	assert_int_equal(lock->lost + waits->granted, 0);
	lock_release(lock);
	UNTIL(waits->granted);
	assert_int_equal(a->sessions + b->sessions, 2);
}

static void
closed_port(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a;
	Lock	   *lock;
	int64_t		start;

	(void) state;
	proxy_refuse(proxy, true);
	a = node_open(proxy_hosts(proxy), "a", 2000);
	lock = lock_acquire(a, "k", X, false);
	UNTIL(a->warnings == 1);
	assert_non_null(strstr(a->log, "could not reach ZooKeeper"));
	pump_for(1000);
	assert_int_equal(a->warnings, 1);
	proxy_refuse(proxy, false);
	UNTIL(lock->granted);

	proxy_refuse(proxy, true);
	proxy_cut(proxy);
	UNTIL(!a->connected);
	start = harness_now();
	node_close(a);
	assert_true(harness_now() - start < INT64_C(1000000000));
}

static void
unknown_host(void **state)
{
	Node	   *a = node_open("no-such-host.invalid:2181", "a", 2000);
	Lock	   *lock = lock_acquire(a, "k", X, false);

	(void) state;
	UNTIL(a->warnings == 1);
	assert_non_null(strstr(a->log, "resolved"));
	lock_release(lock);
	UNTIL(lock->released);
}

static void
frozen_server(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 8000);
	int64_t		start;

	(void) state;
	UNTIL(a->sessions);
	proxy_hold(proxy, true);
	start = harness_now();
	a->ops->close(a->p, start + 300 * INT64_C(1000000));
	assert_true(harness_now() - start < INT64_C(900000000));
	node_free(a);
	pump_for(2500);				/* until the helper has given up, too */
}

static void
bad_configuration(void **state)
{
	static const char *const hosts[] = {
		"", "host", "host:", "host:0", "host:65536", "host:1,", ":1", "host:1/chroot", "ho st:1", "[::1:1", "host:1x"
	};
	static const char *const clusters[] = {"", ".", "..", "a/b", "zookeeper", "ä", "a b"};
	RaProviderConfig config = {.hosts = "h:1", .cluster = "c", .node = "n", .session_timeout_ms = 1000};
	RaProviderCallbacks none = {0};
	char		error[256];

	(void) state;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++)
	{
		config.hosts = hosts[i];
		error[0] = '\0';
		assert_null(harness_ops->open(&config, &none, NULL, error, sizeof(error)));
		assert_true(error[0] != '\0');
	}
	config.hosts = "h:1,[::1]:2";
	for (size_t i = 0; i < sizeof(clusters) / sizeof(*clusters); i++)
	{
		config.cluster = clusters[i];
		error[0] = '\0';
		assert_null(harness_ops->open(&config, &none, NULL, error, sizeof(error)));
		assert_true(error[0] != '\0');
	}
}

static void
passwords(void **state)
{
	RaProviderConfig config = {
		.hosts = harness_hosts, .cluster = harness_cluster, .node = "a", .session_timeout_ms = 4000,
		.user = "someone", .password = "secret"
	};
	Node	   *a = node_open_config(&config);
	Lock	   *lock = lock_acquire(a, "k", X, false);
	Node	   *b;
	char		cluster[sizeof(harness_cluster) + 8];

	(void) state;
	UNTIL(lock->granted);
	assert_int_equal(a->warnings, 0);

	config.node = "b";
	config.password = "secret, but wrong";
	b = node_open_config(&config);
	UNTIL(b->warnings == 1);
	assert_non_null(strstr(b->log, "refuses access"));
	assert_int_equal(b->sessions, 0);
	node_close(b);
	b = node_open(NULL, "c", 4000);
	UNTIL(b->warnings == 1);
	assert_non_null(strstr(b->log, "set these here"));
	node_close(b);

	/* an open cluster, and then a password */
	snprintf(cluster, sizeof(cluster), "%s.open", harness_cluster);
	config.cluster = cluster;
	config.user = NULL;
	b = node_open_config(&config);
	UNTIL(b->sessions == 1);
	node_close(b);
	config.user = "someone";
	b = node_open_config(&config);
	UNTIL(b->sessions == 1 && b->warnings == 1);
	assert_non_null(strstr(b->log, "open to everybody"));
}

/* ---- members ---- */

static void
members(void **state)
{
	Node	   *a = node_open(NULL, "a", 2000);
	Node	   *b = node_open(NULL, "b", 2000);
	Node	   *twin;
	int			told;

	(void) state;
	UNTIL(a->members_told > 0);
	assert_string_equal(a->members, "");
	a->ops->set_member(a->p, "one");
	b->ops->set_member(b->p, "two");
	UNTIL(strcmp(a->members, "*a=one b=two ") == 0 && strcmp(b->members, "a=one *b=two ") == 0);

	/* the last of many is sent, not each */
	told = b->members_told;
	for (int i = 0; i < 100; i++)
	{
		char		data[16];

		snprintf(data, sizeof(data), "%d", i);
		a->ops->set_member(a->p, data);
		pump(1);
	}
	UNTIL(strcmp(b->members, "a=99 *b=two ") == 0);
	assert_true(b->members_told - told <= 4);

	/* a second process by that name is no member, and says why */
	twin = node_open(NULL, "a", 2000);
	twin->ops->set_member(twin->p, "three");
	UNTIL(twin->warnings == 1);
	assert_non_null(strstr(twin->log, "another process"));
	assert_string_equal(twin->members, "a=99 b=two ");
	node_close(a);
	UNTIL(strcmp(b->members, "a=three *b=two ") == 0);
	node_close(twin);
	UNTIL(strcmp(b->members, "*b=two ") == 0);
}

static void
member_stays(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 1000);
	Node	   *b = node_open(NULL, "b", 8000);

	(void) state;

	/* the answer to its creation is lost */
	UNTIL(a->sessions);
	proxy_swallow(proxy, true);
	a->ops->set_member(a->p, "x");
	UNTIL(strcmp(b->members, "a=x ") == 0);
	proxy_cut(proxy);
	proxy_swallow(proxy, false);
	UNTIL(strcmp(a->members, "*a=x ") == 0);
	a->ops->set_member(a->p, "y");
	UNTIL(strcmp(b->members, "a=y ") == 0);

	/* its session expires */
	proxy_hold(proxy, true);
	UNTIL(strcmp(b->members, "") == 0);
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(strcmp(b->members, "a=y ") == 0 && strcmp(a->members, "*a=y ") == 0);
	assert_int_equal(a->sessions, 2);
}

/* ---- endurance ---- */

static int
cycles(int most)
{
	const char *sanitizer = getenv("SANITIZER");
	/* endurance is about memory; races show sooner, and that sanitizer is slow */
	int			wish = sanitizer && strcmp(sanitizer, "thread") == 0 ? 5000 : 100000;

	return wish < most ? wish : most;
}

/* A different key each time; 100 of them at a time */
static void
nothing_is_left(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Lock	   *locks[100];
	int			n = cycles(10000);

	(void) state;
	for (int i = 0; i < n; i += 100)
	{
		for (int j = 0; j < 100; j++)
		{
			char		key[32];

			snprintf(key, sizeof(key), "key number %d", i + j);
			locks[j] = lock_acquire(a, key, X, false);
		}
		for (int j = 0; j < 100; j++)
			UNTIL(locks[j]->granted);
		for (int j = 0; j < 100; j++)
			lock_release(locks[j]);
		for (int j = 0; j < 100; j++)
			UNTIL(locks[j]->released);
		locks_free();
	}
	assert_int_equal(node_list(a), 0);
	assert_null(a->p->requests);
	assert_null(a->p->zombies);
	for (int i = 0; i < ZK_WATCH_HASH; i++)
		for (ZkWatch *watch = a->p->handle->watches[i]; watch != NULL; watch = watch->next)
			assert_int_not_equal(watch->kind, ZK_WATCH_ENTRY);
}

static long
memory_kb(void)
{
	FILE	   *file = fopen("/proc/self/statm", "r");
	long		size;
	long		resident;

	assert_int_equal(fscanf(file, "%ld %ld", &size, &resident), 2);
	fclose(file);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Two nodes that compete for ten keys */
static void
endurance(void **state)
{
	Node	   *nodes[2] = {node_open(NULL, "a", 8000), node_open(NULL, "b", 8000)};
	Lock	   *locks[64];
	int			n = cycles(100000);
	long		before = 0;
	long		after;

	(void) state;
	for (int i = 0; i < n; i += 64)
	{
		for (int j = 0; j < 64; j++)
		{
			char		key[32];

			snprintf(key, sizeof(key), "key %d", j % 32);
			locks[j] = lock_acquire(nodes[j / 32], key, X, false);
		}
		for (int left = 64; left > 0;)
		{
			left = 64;
			for (int j = 0; j < 64; j++)
			{
				if (locks[j]->granted && locks[j]->contended == -1)
				{
					locks[j]->contended = 0;
					lock_release(locks[j]);
				}
				left -= locks[j]->released;
			}
			if (left > 0)
				pump(100);
		}
		locks_free();
		if (i <= n / 10)
			before = memory_kb();
	}
	after = memory_kb();
	print_message("# %d locks; %ld kB of memory after a tenth of them, %ld kB at the end\n", n, before, after);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_true(after - before < 4096);
#endif
	assert_int_equal(node_list(nodes[0]), 0);
}

/* Threads of the library run no signal handler of ours */
static void
signals_blocked(void **state)
{
	Node	   *a = node_open(NULL, "a", 4000);
	DIR		   *dir;
	struct dirent *task;
	int			threads = 0;

	(void) state;
	UNTIL(a->sessions);
	dir = opendir("/proc/self/task");
	while ((task = readdir(dir)) != NULL)
	{
		char		path[300];
		char		line[256];
		FILE	   *file;
		char		name[64] = "";

		if (atoi(task->d_name) == 0 || atoi(task->d_name) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", task->d_name);
		file = fopen(path, "r");
		while (fgets(line, sizeof(line), file) != NULL)
		{
			unsigned long long blocked;

			sscanf(line, "Name: %63s", name);
			if (sscanf(line, "SigBlk: %llx", &blocked) != 1)
				continue;
			/* all but what can't be, and two of the C library's own */
			if (blocked == 0xfffffffe7ffbfeffULL)
				threads++;
			else
				print_message("# thread %s blocks %llx\n", name, blocked);
		}
		fclose(file);
	}
	closedir(dir);
#ifdef __SANITIZE_THREAD__
	assert_true(threads >= 2);	/* the sanitizer has threads of its own */
#else
	assert_int_equal(threads, 2);
#endif
}

/* ---- names ---- */

static void
names(void **state)
{
	char		text[ZK_KEYNAME_MAX];
	char		back[RA_KEY_MAX + 1];
	ZkEntry		entry;
	ZkPlace		place;
	char	   *list[] = {
		"k;x;n;00000000000000aa;1;2147483646",
		"k;s;n;00000000000000bb;2;2147483647",
		"k;s;n;00000000000000aa;3;-2147483648",
		"k;x;n;00000000000000cc;4;-2147483647",
		"k2;x;n;00000000000000cc;5;-000000001",
		"k", "k;x", "k;y;n;1;1;1", "k;x;n;1;1;", "k;x;n;z;1;0000000001", ";;;;;;", "other"
	};
	int			n = sizeof(list) / sizeof(*list);

	(void) state;
	assert_false(ra_zk_keyname(text, "a b", 3));
	assert_string_equal(text, "a%20b");
	assert_int_equal(ra_zk_unescape(back, sizeof(back), text, 5), 3);
	assert_string_equal(back, "a b");
	assert_int_equal(ra_zk_unescape(back, sizeof(back), "%2", 2), -1);
	assert_int_equal(ra_zk_unescape(back, sizeof(back), "%2g", 3), -1);
	memset(back, 'a', sizeof(back));
	assert_false(ra_zk_keyname(text, back, ZK_KEYNAME_MAX - 1));
	assert_true(ra_zk_keyname(text, back, 200));
	/* printf 'a%.0s' {1..200} | sha256sum */
	assert_string_equal(text, "%hc2a908d98f5df987ade41b5fce213067efbcc21ef2240212a41e54b5e7c28ae5");
	assert_true(ra_zk_keyname_is_hash(text, (int) strlen(text)));

	assert_true(ra_zk_parse_entry("a%3b;s;no;ffffffffffffffff;1f;-000000007", &entry));
	assert_int_equal(entry.keyname_len, 4);
	assert_int_equal(entry.mode, S);
	assert_int_equal(entry.node_len, 2);
	assert_true(entry.session == -1);
	assert_true(entry.number == 31);
	assert_int_equal(entry.sequence, -7);

	/* the sequence wraps around */
	ra_zk_place(list, n, "k", X, 0xcc, 4, &place);
	assert_string_equal(place.self, list[3]);
	assert_string_equal(place.blocker, list[2]);
	assert_int_equal(place.nblockers, 3);
	assert_int_equal(place.nothers, 3);
	ra_zk_place(list, n, "k", S, 0xaa, 3, &place);
	assert_string_equal(place.blocker, list[0]);
	assert_int_equal(place.nblockers, 1);
	ra_zk_place(list, n, "k", X, 0xaa, 1, &place);
	assert_null(place.blocker);
	assert_int_equal(place.nothers, 3);
	ra_zk_place(list, n, "k", X, 0xdd, 1, &place);
	assert_null(place.self);
	ra_zk_place(list, n, "k2", X, 0xcc, 5, &place);
	assert_int_equal(place.nothers, 0);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, new_cluster, end_test)
	const struct CMUnitTest tests[] = {
		TEST(names),
		TEST(bad_configuration),
		TEST(acquire_release),
		TEST(first_come_first_served),
		TEST(shared_and_exclusive),
		TEST(waiter_gives_up),
		TEST(no_waiting),
		TEST(look),
		TEST(any_key),
		TEST(many_waiters),
		TEST(create_unknown),
		TEST(delete_unknown),
		TEST(cut_at_random),
		TEST(session_expires),
		TEST(stopped_process),
		TEST(lease_goes_on),
		TEST(previous_session),
		TEST(generation),
		TEST(restart_keeps_locks),
		TEST(closed_port),
		TEST(unknown_host),
		TEST(frozen_server),
		TEST(passwords),
		TEST(members),
		TEST(member_stays),
		TEST(nothing_is_left),
		TEST(endurance),
		TEST(signals_blocked),
		TEST(wiped_server),
		TEST(restored_server),
		cmocka_unit_test_setup_teardown(three_servers, start_ensemble, stop_ensemble),
	};

	harness_ops = ra_zookeeper_ops();
	harness_hosts = getenv("ZK_HOSTS");
	if (getenv("TESTS") != NULL)
		cmocka_set_test_filter(getenv("TESTS"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
