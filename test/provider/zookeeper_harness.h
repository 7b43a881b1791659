/*
 * zookeeper_harness.h
 *	  What test programs of the ZooKeeper provider share.
 *
 * Environment: ZK_DIR is the server's directory, ZK_HOSTS where it listens,
 * ZK_SERVER the program that controls it.
 */
#ifndef ZOOKEEPER_HARNESS_H
#define ZOOKEEPER_HARNESS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, new_cluster, end_test)

/* To be called before the tests are run */
static void
zookeeper_setup(void)
{
	harness_ops = ra_zookeeper_ops();
	harness_hosts = getenv("ZK_HOSTS");
	if (getenv("TESTS") != NULL)
		cmocka_set_test_filter(getenv("TESTS"));
}

#endif							/* ZOOKEEPER_HARNESS_H */
