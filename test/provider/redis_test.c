/*
 * redis_test.c
 *	  Locks, members and lists by Redis, while nothing goes wrong.
 */
#include "redis_harness.h"

static void
locks_are_acquired_and_released(void **state)
{
	Node		a;
	Lock		lock;

	(void) state;
	node_open(&a, "a", server.port, 2000);
	take(&lock, &a, "k");
	assert_int_equal(a.sessions, 1);
	assert_int_equal(a.generation, 5);
	assert_true(a.lease > now_ns() && a.lease < now_ns() + 1900 * MS);
	let_go(&lock);
	assert_int_equal(admin_integer(&server, "EXISTS {test}:lock:k"), 0);
	assert_int_equal(a.warnings, 0);
	node_close(&a);
	assert_nothing_left();
}

/* No zero at the end, any bytes, the longest and the shortest */
static void
keys_are_bytes(void **state)
{
	Node		a;
	Lock		locks[4];
	char		keys[4][RA_KEY_MAX] = {"\0a", "\0b", "%*[\n/", ""};
	int			lengths[4] = {2, 2, 5, RA_KEY_MAX};

	(void) state;
	memset(keys[3], 0xff, RA_KEY_MAX);
	node_open(&a, "a/with:odd name", server.port, 2000);
	for (int i = 0; i < 4; i++)
	{
		locks[i] = (Lock) {.node = &a};
		locks[i].request = ops->acquire(a.provider, &locks[i], keys[i], lengths[i],
										RA_PROVIDER_EXCLUSIVE, false);
	}
	for (int i = 0; i < 4; i++)
		until(locks[i].what == GRANTED);
	ops->list(a.provider, NULL);
	until(a.list_done);
	assert_int_equal(a.listed, 4);
	assert_non_null(strstr(a.list, "%*[\n//a/with:odd name/x/granted/0\n"));
	for (int i = 0; i < 4; i++)
		give_up(&locks[i]);
	node_close(&a);
	assert_nothing_left();
	assert_null(ops->acquire(NULL, NULL, keys[0], RA_KEY_MAX + 1, RA_PROVIDER_SHARED, false));
}

static void
who_asks_first_is_granted_first(void **state)
{
	Node		node[5];
	Lock		held;
	Lock		lock[15];
	char		name[2] = "a";

	(void) state;
	for (int i = 0; i < 5; i++, name[0]++)
		node_open(&node[i], name, server.port, 2000);
	take(&held, &node[0], "k");
	assert_false(held.waited);
	for (int i = 0; i < 15; i++)
	{
		char		command[] = "LLEN {test}:lock:k";

		exclusive(&lock[i], &node[i * 7 % 5], "k");
		until(admin_integer(&server, command) == i + 2);
	}
	ngrants = 0;
	give_up(&held);
	for (int i = 0; i < 15; i++)
	{
		until(ngrants == i + 1);
		assert_ptr_equal(grant_order[i], &lock[i]);
		assert_true(lock[i].token > (i ? lock[i - 1].token : held.token));
		assert_true(lock[i].waited);
		give_up(&lock[i]);
	}
	until(lock[14].what == RELEASED);
	assert_int_equal(admin_integer(&server, "EXISTS {test}:lock:k"), 0);
}

static void
shared_ones_hold_together_but_do_not_overtake(void **state)
{
	Node		a;
	Node		b;
	Lock		s1;
	Lock		s2;
	Lock		x;
	Lock		s3;
	Lock		s4;

	(void) state;
	node_open(&a, "a", server.port, 2000);
	node_open(&b, "b", server.port, 2000);
	shared(&s1, &a, "k");
	until(s1.what == GRANTED);
	shared(&s2, &b, "k");
	until(s2.what == GRANTED);
	assert_true(s2.token > s1.token);
	exclusive(&x, &b, "k");
	until(admin_integer(&server, "LLEN {test}:lock:k") == 3);
	shared(&s3, &a, "k");
	until(admin_integer(&server, "LLEN {test}:lock:k") == 4);
	shared(&s4, &b, "k");
	until(admin_integer(&server, "LLEN {test}:lock:k") == 5);
	pump_for(1100);				/* over two checks */
	assert_int_equal(x.what, NOTHING);
	assert_int_equal(s3.what, NOTHING);
	let_go(&s1);
	pump_for(100);
	assert_int_equal(x.what, NOTHING);
	give_up(&s2);
	until(x.what == GRANTED);
	assert_int_equal(s3.what, NOTHING);
	give_up(&x);
	until(s3.what == GRANTED && s4.what == GRANTED);
	assert_true(s3.token > x.token && s4.token > s3.token);

	/* one that gives up lets those behind it pass */
	exclusive(&x, &a, "k");
	until(admin_integer(&server, "LLEN {test}:lock:k") == 3);
	shared(&s1, &b, "k");
	until(admin_integer(&server, "LLEN {test}:lock:k") == 4);
	assert_int_equal(s1.what, NOTHING);
	give_up(&x);
	until(s1.what == GRANTED && x.what == RELEASED);
	node_close(&a);
	node_close(&b);
	assert_nothing_left();
}

static void
nowait_is_refused_unless_free(void **state)
{
	Node		a;
	Node		b;
	Lock		held;
	Lock		lock;

	(void) state;
	node_open(&a, "a", server.port, 2000);
	node_open(&b, "b", server.port, 2000);
	ask(&held, &a, "k", RA_PROVIDER_SHARED, true);
	until(held.what == GRANTED);
	ask(&lock, &b, "k", RA_PROVIDER_EXCLUSIVE, true);
	until(lock.what == REFUSED);
	ask(&lock, &b, "k", RA_PROVIDER_SHARED, true);
	until(lock.what == GRANTED);
	let_go(&lock);
	assert_int_equal(admin_integer(&server, "LLEN {test}:lock:k"), 1);
}

static void
requests_are_given_up_in_every_state(void **state)
{
	Node		a;
	Node		b;
	Lock		held;
	Lock		never;
	Lock		flight[50];
	Lock		waiting;

	(void) state;
	node_open(&a, "a", server.port, 2000);
	exclusive(&never, &a, "k");
	give_up(&never);
	give_up(&never);
	assert_int_equal(never.what, NOTHING);
	until(never.what == RELEASED);

	node_open(&b, "b", server.port, 2000);
	take(&held, &a, "k");
	exclusive(&waiting, &b, "k");
	until(admin_integer(&server, "LLEN {test}:lock:k") == 2);
	for (int i = 0; i < 50; i++)
	{
		exclusive(&flight[i], &b, i % 2 ? "k" : "free");
		give_up(&flight[i]);
	}
	let_go(&waiting);
	for (int i = 0; i < 50; i++)
	{
		until(flight[i].what == RELEASED);
		assert_int_equal(flight[i].grants, 0);
	}
	assert_int_equal(admin_integer(&server, "LLEN {test}:lock:k"), 1);
	assert_int_equal(admin_integer(&server, "EXISTS {test}:lock:free"), 0);
}

static void
a_release_wakes_one_of_200(void **state)
{
	static Lock lock[201];
	Node		node[5];
	char		name[2] = "a";
	long long	before;

	(void) state;
	for (int i = 0; i < 5; i++, name[0]++)
		node_open(&node[i], name, server.port, 10000);
	for (int i = 0; i < 5; i++)
		until(node[i].sessions == 1);
	for (int i = 0; i <= 200; i++)
		exclusive(&lock[i], &node[i % 5], "k");
	until(admin_integer(&server, "LLEN {test}:lock:k") == 201 && ngrants == 1);
	pump_for(1000);				/* members are known, subscriptions are there */
	before = admin_info(&server, "commandstats", "cmdstat_publish:calls=");
	for (int i = 0; i <= 200; i++)
	{
		until(ngrants == i + 1);
		assert_int_equal(grant_order[i]->what, GRANTED);
		give_up(grant_order[i]);
		until(grant_order[i]->what == RELEASED);
	}
	assert_int_equal(admin_info(&server, "commandstats", "cmdstat_publish:calls=") - before, 200);
	assert_int_equal(admin_integer(&server, "EXISTS {test}:lock:k"), 0);
}

static void
holders_can_see_who_waits(void **state)
{
	Node		a;
	Node		b;
	Lock		held;
	Lock		waiting;

	(void) state;
	node_open(&a, "a", server.port, 2000);
	node_open(&b, "b", server.port, 2000);
	take(&held, &a, "k");
	ops->look(a.provider, held.request);
	until(held.contended == 0);
	exclusive(&waiting, &b, "k");
	until(admin_integer(&server, "LLEN {test}:lock:k") == 2);
	ops->look(a.provider, held.request);
	until(held.contended == 1);
	ops->look(a.provider, held.request);
	give_up(&held);
	until(held.what == RELEASED && waiting.what == GRANTED);
}

static void
all_entries_are_listed(void **state)
{
	static Lock lock[700];
	Node		a;
	Node		b;

	(void) state;
	node_open(&a, "a", server.port, 2000);
	node_open(&b, "b", server.port, 2000);
	ops->list(a.provider, NULL);
	until(a.list_done);
	assert_string_equal(a.list, "complete");
	for (int i = 0; i < 700; i++)
	{
		char		key[20];

		snprintf(key, sizeof(key), "key-%d", i / 2);
		exclusive(&lock[i], i % 2 ? &b : &a, key);
	}
	for (int i = 0; i < 700; i += 2)
		until(lock[i].what == GRANTED || lock[i + 1].what == GRANTED);
	until(admin_integer(&server, "LLEN {test}:lock:key-349") == 2);
	a.list_done = false;
	a.list[0] = '\0';
	ops->list(a.provider, NULL);
	until(a.list_done);
	assert_int_equal(a.listed, 700);
	assert_non_null(strstr(a.list, "/granted/0\n"));
	assert_non_null(strstr(a.list, "/waiting/1\n"));
	assert_non_null(strstr(a.list, "complete"));
}

static void
members_are_told_of_each_change(void **state)
{
	Node		a;
	Node		b;
	Node		twin;
	int			calls;

	(void) state;
	node_open(&a, "a", server.port, 1500);
	ops->set_member(a.provider, "1");
	until(strcmp(a.members, "a=1*") == 0);
	node_open(&b, "b", server.port, 1500);
	pump_for(800);
	assert_string_equal(a.members, "a=1*"); /* b has said nothing */
	ops->set_member(b.provider, "");
	until(strcmp(a.members, "a=1* b=") == 0 && strcmp(b.members, "a=1 b=*") == 0);
	ops->set_member(b.provider, "2");
	ops->set_member(b.provider, "3");
	until(strcmp(a.members, "a=1* b=3") == 0);
	calls = a.member_calls;
	pump_for(1600);
	assert_int_equal(a.member_calls, calls);

	/* two servers of one name */
	node_open(&twin, "b", server.port, 1500);
	ops->set_member(twin.provider, "twin");
	until_(twin.warnings == 1 && b.warnings == 1, 4000);
	assert_non_null(strstr(twin.log, "uses this node's name"));
	pump_for(1000);
	assert_int_equal(twin.warnings, 1);
	node_close(&twin);

	node_close(&b);
	until_(strcmp(a.members, "a=1*") == 0, 1000);
	node_close(&a);
	assert_nothing_left();
}

static void
a_dead_member_vanishes(void **state)
{
	Node		a;
	Node		b;

	(void) state;
	node_open(&a, "a", server.port, 600);
	node_open(&b, "b", server.port, 600);
	ops->set_member(a.provider, "1");
	ops->set_member(b.provider, "2");
	until(strcmp(a.members, "a=1* b=2") == 0);
	node_die(&b);
	until_(strcmp(a.members, "a=1*") == 0, 1200);
	until(admin_integer(&server, "HLEN {test}:members") == 1);
}

static void
ten_thousand_keys_leave_none(void **state)
{
	enum {KEYS = 10000};
	Lock	   *lock = calloc(KEYS, sizeof(Lock));
	Node		a;

	(void) state;
	node_open(&a, "a", server.port, 10000);
	for (int i = 0; i < KEYS; i++)
	{
		char		key[20];

		snprintf(key, sizeof(key), "key-%d", i);
		exclusive(&lock[i], &a, key);
	}
	for (int i = 0; i < KEYS; i++)
		until(lock[i].what == GRANTED);
	assert_true(admin_integer(&server, "DBSIZE") >= KEYS);
	for (int i = 0; i < KEYS / 2; i++)
		give_up(&lock[i]);
	for (int i = 0; i < KEYS / 2; i++)
		until(lock[i].what == RELEASED);
	node_close(&a);				/* and the other half */
	assert_nothing_left();
	free(lock);
}

static void
cycles_leak_nothing(void **state)
{
	Node		a;
	Lock		lock[10];
	long long	redis_before;
	long long	redis_after;

	(void) state;
	node_open(&a, "a", server.port, 10000);
	memset(lock, 0, sizeof(lock));
	redis_before = 0;
	for (int i = 0; i < 100000; i += 10)
	{
		for (int j = 0; j < 10; j++)
		{
			exclusive(&lock[j], &a, "k");
			give_up(&lock[j]);
		}
		for (int j = 0; j < 10; j++)
			until(lock[j].what == RELEASED);
		if (i == 10000)
			redis_before = admin_info(&server, "memory", "used_memory:");
	}
	redis_after = admin_info(&server, "memory", "used_memory:");
	assert_true(redis_after < redis_before + 900000);	/* 10 bytes each */
	node_close(&a);
	assert_nothing_left();
}

static void
impossible_configurations_are_told(void **state)
{
	static const char *const hosts[] = {
		"", ",", "a:b", "a:0", "a:65536", "a:1,", "[::1", "a:1 b:2", "[::1]x"
	};
	char		error[200];
	RaProviderConfig config = {.cluster = "test", .node = "a", .session_timeout_ms = 1000};
	RaProvider *provider;

	(void) state;
	for (int i = 0; i < LENGTH(hosts); i++)
	{
		config.hosts = hosts[i];
		error[0] = '\0';
		assert_null(ops->open(&config, &callbacks, NULL, error, sizeof(error)));
		assert_true(error[0] != '\0');
	}
	config.hosts = "localhost, 127.0.0.1:7000 ,[::1]:6379";
	provider = ops->open(&config, &callbacks, NULL, error, sizeof(error));
	assert_non_null(provider);
	ops->close(provider, now_ns() + 10000 * MS);	/* at once: there is no session */
	config.session_timeout_ms = 1;
	assert_null(ops->open(&config, &callbacks, NULL, error, sizeof(error)));
	assert_int_equal(ops->api, RA_PROVIDER_API);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(locks_are_acquired_and_released),
		TEST(keys_are_bytes),
		TEST(who_asks_first_is_granted_first),
		TEST(shared_ones_hold_together_but_do_not_overtake),
		TEST(nowait_is_refused_unless_free),
		TEST(requests_are_given_up_in_every_state),
		TEST(a_release_wakes_one_of_200),
		TEST(holders_can_see_who_waits),
		TEST(all_entries_are_listed),
		TEST(members_are_told_of_each_change),
		TEST(a_dead_member_vanishes),
		TEST(ten_thousand_keys_leave_none),
		TEST(cycles_leak_nothing),
		TEST(impossible_configurations_are_told),
	};

	return run_all("redis", tests, LENGTH(tests), argc, argv);
}
