/*
 * test_rendezvous.c
 *	  Tests of src/core/rendezvous.c: the same answer for everybody, few keys
 *	  that move, and shares as the weights have it.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/core/rendezvous.h"

#define KEYS 100000
#define MAX_NODES 50

static RaRendezvousNode nodes[MAX_NODES];
static char names[MAX_NODES][32];

static void
make_nodes(int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		snprintf(names[i], sizeof(names[i]), "node_%d", i);
		nodes[i] = (RaRendezvousNode) {names[i], strlen(names[i]), 1.0};
	}
}

static const char *
owner(const RaRendezvousNode *of, int n, int key)
{
	char		text[32];
	int			len = snprintf(text, sizeof(text), "account:%d", key);
	int			i = ra_rendezvous_pick(of, n, text, (size_t) len);

	assert_in_range(i, 0, n - 1);
	return of[i].name;
}

static void
no_node(void **state)
{
	(void) state;
	assert_int_equal(ra_rendezvous_pick(NULL, 0, "x", 1), -1);
}

static void
one_node(void **state)
{
	(void) state;
	make_nodes(1);
	assert_int_equal(ra_rendezvous_pick(nodes, 1, "", 0), 0);
	assert_int_equal(ra_rendezvous_pick(nodes, 1, "x", 1), 0);
}

/* Answers that no version may change, or nodes of different versions disagree */
static void
fixed_answers(void **state)
{
	static const char *const expected[] = {
		"node_1", "node_3", "node_2", "node_2", "node_4", "node_2",
		"node_4", "node_3", "node_4", "node_0", "node_0", "node_4"
	};
	size_t		i;

	(void) state;
	make_nodes(5);
	nodes[4].weight = 2.5;
	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_string_equal(owner(nodes, 5, (int) i), expected[i]);
}

static void
order_does_not_matter(void **state)
{
	RaRendezvousNode shuffled[MAX_NODES];
	int			key;
	int			i;

	(void) state;
	make_nodes(7);
	nodes[3].weight = 0.5;
	srand(1);
	for (key = 0; key < 1000; key++)
	{
		memcpy(shuffled, nodes, sizeof(shuffled));
		for (i = 6; i > 0; i--)
		{
			int			j = rand() % (i + 1);
			RaRendezvousNode swap = shuffled[i];

			shuffled[i] = shuffled[j];
			shuffled[j] = swap;
		}
		assert_string_equal(owner(shuffled, 7, key), owner(nodes, 7, key));
	}
}

/* Names and keys are bytes: neither ends at a zero, and no part is left out */
static void
every_byte_counts(void **state)
{
	RaRendezvousNode two[] = {{"a\0b", 3, 1}, {"a\0c", 3, 1}};
	int			counts[2] = {0, 0};
	int			i;

	(void) state;
	for (i = 0; i < 1000; i++)
	{
		char		key[] = {'k', 0, (char) (i & 255), (char) (i >> 8)};

		counts[ra_rendezvous_pick(two, 2, key, sizeof(key))]++;
	}
	assert_in_range(counts[0], 420, 580);
}

static void
shares(int n)
{
	double		sum = 0;
	double		chi2 = 0;
	int			counts[MAX_NODES] = {0};
	int			key;
	int			i;

	for (i = 0; i < n; i++)
		sum += nodes[i].weight;
	for (key = 0; key < KEYS; key++)
		counts[atoi(owner(nodes, n, key) + 5)]++;
	for (i = 0; i < n; i++)
	{
		double		expected = KEYS * nodes[i].weight / sum;

		chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
	}

	/* the mean, and five standard deviations */
	assert_true(chi2 < n - 1 + 5 * sqrt(2.0 * (n - 1)));
	for (i = 0; i < n; i++)
	{
		double		expected = KEYS * nodes[i].weight / sum;

		assert_true(counts[i] > 0.9 * expected && counts[i] < 1.1 * expected);
	}
}

static void
equal_weights(void **state)
{
	(void) state;
	make_nodes(10);
	shares(10);
}

static void
different_weights(void **state)
{
	(void) state;
	make_nodes(5);
	nodes[0].weight = 0.5;
	nodes[1].weight = 1;
	nodes[2].weight = 2;
	nodes[3].weight = 3;
	nodes[4].weight = 3.5;
	shares(5);
}

/* The scale of the weights does not matter */
static void
extreme_weights(void **state)
{
	int			key;
	int			i;

	(void) state;
	for (key = 0; key < 1000; key++)
	{
		const char *normal;

		make_nodes(4);
		nodes[1].weight = 2;
		normal = owner(nodes, 4, key);
		for (i = 0; i < 4; i++)
			nodes[i].weight *= 1024.0 * 1024.0;
		assert_string_equal(owner(nodes, 4, key), normal);
	}

	make_nodes(2);
	nodes[1].weight = 1e300;
	for (key = 0; key < 1000; key++)
		assert_string_equal(owner(nodes, 2, key), "node_1");
}

/* The keys of the node that is gone move, to all others alike; no other key does */
static void
a_node_leaves(void **state)
{
	RaRendezvousNode rest[MAX_NODES];
	int			to[MAX_NODES] = {0};
	int			moved = 0;
	int			key;
	int			i;

	(void) state;
	make_nodes(10);
	memcpy(rest, nodes, 4 * sizeof(RaRendezvousNode));
	memcpy(rest + 4, nodes + 5, 5 * sizeof(RaRendezvousNode));
	for (key = 0; key < KEYS; key++)
	{
		const char *before = owner(nodes, 10, key);
		const char *after = owner(rest, 9, key);

		if (strcmp(before, "node_4") == 0)
		{
			moved++;
			to[atoi(after + 5)]++;
		}
		else
			assert_string_equal(before, after);
	}
	assert_in_range(moved, KEYS / 10 - KEYS / 100, KEYS / 10 + KEYS / 100);
	for (i = 0; i < 10; i++)
	{
		if (i != 4)
			assert_in_range(to[i], moved / 9 * 8 / 10, moved / 9 * 12 / 10);
	}
}

/* A heavier node takes keys, and gives none away */
static void
a_weight_grows(void **state)
{
	int			gained = 0;
	int			key;

	(void) state;
	for (key = 0; key < KEYS / 10; key++)
	{
		const char *before;
		const char *after;

		make_nodes(4);
		before = owner(nodes, 4, key);
		nodes[2].weight = 2;
		after = owner(nodes, 4, key);
		if (strcmp(before, after) != 0)
		{
			assert_string_equal(after, "node_2");
			gained++;
		}
	}

	/* from a quarter to two fifths */
	assert_in_range(gained, KEYS / 10 * 12 / 100, KEYS / 10 * 18 / 100);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_node),
		cmocka_unit_test(one_node),
		cmocka_unit_test(fixed_answers),
		cmocka_unit_test(order_does_not_matter),
		cmocka_unit_test(every_byte_counts),
		cmocka_unit_test(equal_weights),
		cmocka_unit_test(different_weights),
		cmocka_unit_test(extreme_weights),
		cmocka_unit_test(a_node_leaves),
		cmocka_unit_test(a_weight_grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
