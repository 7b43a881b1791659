/*
 * zookeeper_test.c
 *	  The ZooKeeper provider against a real server.
 *
 * Environment: ZK_DIR is the server's directory, ZK_HOSTS where it listens,
 * ZK_SERVER the program that controls it; CYCLES, how often the endurance test locks.
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

extern const RaProviderOps *ra_zookeeper_ops(void);

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

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, new_cluster, end_test)
	const struct CMUnitTest tests[] = {
		TEST(acquire_release),
	};

	harness_ops = ra_zookeeper_ops();
	harness_hosts = getenv("ZK_HOSTS");
	if (getenv("TESTS") != NULL)
		cmocka_set_test_filter(getenv("TESTS"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
