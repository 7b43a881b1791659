/*
 * rendezvous.c
 *	  Weighted rendezvous hashing ("highest random weight").
 *
 * D. Thaler, C. Ravishankar: Using Name-Based Mappings to Increase Hit Rates,
 * IEEE/ACM Transactions on Networking 6(1), 1998.  Each node scores the key by
 * a hash of its own name and the key, and the highest score has it.  So every
 * node that knows the same names finds the same answer without asking anybody,
 * and when a node leaves, only the keys that it had move, to all others evenly.
 *
 * For weights, the hash becomes a number u that is uniform in (0, 1), and the
 * score is -weight / ln(u): the reciprocal of an exponentially distributed
 * time of that rate, and the first of several such times is a node's with a
 * probability of its weight divided by the sum of all.  A node's weight
 * changes its own score only, so here, too, no more keys move than have to.
 *
 * Logarithms of different C libraries may differ in the last bit.  Two nodes
 * would have to score a key that alike for it to matter, for one key in 10^15.
 */
#include "rendezvous.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* FNV-1a, of 64 bits */
static uint64_t
hash_bytes(const char *bytes, size_t len)
{
	uint64_t	h = UINT64_C(0xcbf29ce484222325);
	size_t		i;

	for (i = 0; i < len; i++)
	{
		h ^= (unsigned char) bytes[i];
		h *= UINT64_C(0x100000001b3);
	}
	return h;
}

/* The finalizer of MurmurHash3: every bit of the argument changes half of the result's */
static uint64_t
mix(uint64_t h)
{
	h ^= h >> 33;
	h *= UINT64_C(0xff51afd7ed558ccd);
	h ^= h >> 33;
	h *= UINT64_C(0xc4ceb9fe1a85ec53);
	h ^= h >> 33;
	return h;
}

static int
compare_names(const RaRendezvousNode *a, const RaRendezvousNode *b)
{
	size_t		len = a->name_len < b->name_len ? a->name_len : b->name_len;
	int			order = memcmp(a->name, b->name, len);

	if (order != 0)
		return order;
	return (a->name_len > b->name_len) - (a->name_len < b->name_len);
}

int
ra_rendezvous_pick(const RaRendezvousNode *nodes, int n, const char *key, size_t key_len)
{
	uint64_t	key_hash = hash_bytes(key, key_len);
	double		best_score = 0;
	int			best = -1;
	int			i;

	for (i = 0; i < n; i++)
	{
		uint64_t	h = mix(key_hash ^ mix(hash_bytes(nodes[i].name, nodes[i].name_len)));

		/* 52 bits, and a half: exact, and neither 0 nor 1 */
		double		u = ((double) (h >> 12) + 0.5) / 4503599627370496.0;
		double		score = -nodes[i].weight / log(u);

		if (best < 0 || score > best_score ||
			(score == best_score && compare_names(&nodes[i], &nodes[best]) < 0))
		{
			best = i;
			best_score = score;
		}
	}
	return best;
}
