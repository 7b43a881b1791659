/*
 * zookeeper_bench.c
 *	  Uncontended acquire and release, against a bare create and delete with
 *	  the library's asynchronous calls, in turns on one server.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "harness.h"
#include "zookeeper.h"

#define ROUNDS	7

static double
seconds(int64_t since)
{
	return (double) (harness_now() - since) / 1e9;
}

/* pairs/s with width locks at a time, each of a key of its own */
static double
locks(Node *node, int width, int n)
{
	Lock	  **l = calloc((size_t) width, sizeof(*l));
	int			begun = 0;
	int			done = 0;
	char	   *keys = calloc((size_t) width, 32);
	int64_t		start = harness_now();

	for (int i = 0; i < width; i++)
		snprintf(keys + 32 * i, 32, "bench %d", i);
	while (done < n)
	{
		for (int i = 0; i < width; i++)
		{
			if (l[i] != NULL && l[i]->released)
			{
				done++;
				l[i] = NULL;
			}
			if (l[i] == NULL && begun < n)
			{
				begun++;
				l[i] = lock_acquire(node, keys + 32 * i, X, false);
			}
			else if (l[i] != NULL && l[i]->granted && l[i]->contended == -1)
			{
				l[i]->contended = 0;
				lock_release(l[i]);
			}
		}
		if (done < n)
			pump(100);
	}
	free(l);
	free(keys);
	locks_free();
	return n / seconds(start);
}

static int	created;
static int	deleted;
static char created_path[256];

static void
raw_created(RaProvider *p, ZkCall *call)
{
	(void) p;
	created++;
	snprintf(created_path, sizeof(created_path), "%s", call->value);
}

static void
raw_deleted(RaProvider *p, ZkCall *call)
{
	(void) p;
	(void) call;
	deleted++;
}

/* The same hand-over, and nothing else */
static double
raw(Node *node, int n)
{
	char		path[128];
	int64_t		start = harness_now();

	snprintf(path, sizeof(path), "/%s/locks/raw-", harness_cluster);
	for (int i = 0; i < n; i++)
	{
		created = deleted = 0;
		ra_zk_create(node->p, raw_created, NULL, path, "", 0, ZOO_EPHEMERAL_SEQUENTIAL, false);
		while (!created)
			pump(100);
		ra_zk_delete(node->p, raw_deleted, NULL, created_path, -1, false);
		while (!deleted)
			pump(100);
	}
	return n / seconds(start);
}

int
main(void)
{
	Node	   *node;
	int			n = getenv("PAIRS") != NULL ? atoi(getenv("PAIRS")) : 2000;

	harness_ops = ra_zookeeper_ops();
	harness_hosts = getenv("ZK_HOSTS");
	snprintf(harness_cluster, sizeof(harness_cluster), "bench");
	node = node_open(NULL, "a", 4000);
	while (node->sessions == 0)
		pump(100);
	raw(node, n / 4);
	locks(node, 64, 4 * n);
	printf("pairs/s: raw create+delete, locks 1 at a time, 8, 64\n");
	for (int i = 0; i < ROUNDS; i++)
	{
		double		r = raw(node, n);
		double		one = locks(node, 1, n);

		printf("%8.0f %8.0f %8.0f %8.0f\n", r, one, locks(node, 8, 4 * n), locks(node, 64, 8 * n));
	}
	nodes_close();
	return 0;
}
