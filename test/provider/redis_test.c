/*
 * redis_test.c
 *	  Tests of src/provider/redis*.c against real servers on the loopback interface.
 */
#include "redis_harness.h"

static Server server;

static int
begin(void **state)
{
	(void) state;
	nnodes = nproxies = ngrants = 0;
	if (server.pid == 0)
		server_start(&server, "");
	admin_do(&server, "FLUSHALL");
	admin_do(&server, "CONFIG RESETSTAT");
	server_seed(&server, "test");
	return 0;
}

static int
end(void **state)
{
	(void) state;
	while (nnodes > 0)
		node_die(nodes[0]);
	while (nproxies > 0)
		proxy_close(proxies[--nproxies]);
	return 0;
}

/* Only the generation stays for ever */
static void
assert_nothing_left(void)
{
	redisReply *reply = admin(&server, "KEYS *");

	for (size_t i = 0; i < reply->elements; i++)
	{
		if (strcmp(reply->element[i]->str, "{test}:generation") != 0)
			fail_msg("left behind: %s", reply->element[i]->str);
	}
	freeReplyObject(reply);
}

static void
locks_are_acquired_and_released(void **state)
{
	Node		a;
	Lock		lock;

	(void) state;
	node_open(&a, "a", server.port, 2000);
	exclusive(&lock, &a, "k");
	until(lock.what == GRANTED);
	assert_int_equal(a.sessions, 1);
	assert_int_equal(a.generation, 5);
	assert_true(a.lease > now_ns() && a.lease < now_ns() + 1900 * MS);
	give_up(&lock);
	until(lock.what == RELEASED);
	assert_int_equal(admin_integer(&server, "EXISTS {test}:lock:k"), 0);
	assert_int_equal(a.warnings, 0);
	node_close(&a);
	assert_nothing_left();
}

static void
a_dead_sessions_lock_passes_on(void **state)
{
	Node		a;
	Node		b;
	Lock		held;
	Lock		waiting;
	int64_t		lease;

	(void) state;
	node_open(&a, "a", server.port, 600);
	node_open(&b, "b", server.port, 600);
	exclusive(&held, &a, "k");
	until(held.what == GRANTED);
	exclusive(&waiting, &b, "k");
	pump_for(700);
	assert_int_equal(waiting.what, NOTHING);
	lease = a.lease;
	node_die(&a);
	until_(waiting.what == GRANTED, 600 + 300);
	assert_true(now_ns() > lease);
	assert_true(waiting.token > held.token);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(locks_are_acquired_and_released, begin, end),
		cmocka_unit_test_setup_teardown(a_dead_sessions_lock_passes_on, begin, end),
	};
	int			failed;

	signal(SIGPIPE, SIG_IGN);
	ops = ra_redis_provider();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	server_remove(&server);
	return failed;
}
