/*
 * balance.c
 *	  Which node shall serve a request.
 *
 * Only live members are chosen.  Their weights are options of the servers by
 * which this node knows them.
 *
 * random		in proportion to the weights
 * round_robin	in turn, by name; all sessions of this server share the turn.
 *				Weights do not count.
 * least_loaded	the less loaded of two that are drawn at random.  To ask all for the least
 *				would send everybody to the same one until it publishes its load anew
 *				(M. Mitzenmacher: The Power of Two Choices in Randomized
 *				Load Balancing, IEEE TPDS 12(10), 2001).  What we have under way there
 *				counts as load that is not published yet.
 * hash			by rendezvous hashing of the key, see core/rendezvous.c: all nodes
 *				that know the same members and weights agree
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "cluster/members.h"
#include "cluster/nodestat.h"
#include "cluster/options.h"
#include "compat.h"
#include "core/rendezvous.h"
#include "guc.h"
#include "risk_alert.h"
#include "shmem.h"

typedef struct Candidate
{
	const char *name;
	double		weight;
	double		load;
} Candidate;

PG_FUNCTION_INFO_V1(ra_pick_node);

static int	live_members(Candidate **candidates);
static int	pick_random(const Candidate *candidates, int n);
static int	pick_least_loaded(const Candidate *candidates, int n);
static int	pick_by_hash(const Candidate *candidates, int n, text *key);

/*
 * risk_alert.pick_node(strategy, key)
 */
Datum
ra_pick_node(PG_FUNCTION_ARGS)
{
	char	   *strategy;
	Candidate  *candidates;
	int			n;
	int			chosen;

	ra_require_preload();
	ra_check_version();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("strategy must not be null")));
	strategy = text_to_cstring(PG_GETARG_TEXT_PP(0));
	n = live_members(&candidates);

	if (strcmp(strategy, "random") == 0)
		chosen = pick_random(candidates, n);
	else if (strcmp(strategy, "round_robin") == 0)
		chosen = n > 0 ? ra_nodestat_turn() % n : -1;
	else if (strcmp(strategy, "least_loaded") == 0)
		chosen = pick_least_loaded(candidates, n);
	else if (strcmp(strategy, "hash") == 0)
	{
		if (PG_ARGISNULL(1))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("strategy \"hash\" needs a key"),
					 errhint("SELECT risk_alert.pick_node('hash', key => ...)")));
		chosen = pick_by_hash(candidates, n, PG_GETARG_TEXT_PP(1));
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown strategy \"%s\"", strategy),
				 errhint("Strategies are: random, round_robin, least_loaded, hash.")));

	if (chosen < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no live node is known"),
				 ra_node_name[0] == '\0' ?
				 errhint("This server is not part of a cluster: set risk_alert.node_name, and restart it.") :
				 errhint("See view risk_alert.nodes.")));
	PG_RETURN_TEXT_P(cstring_to_text(candidates[chosen].name));
}

static int
live_members(Candidate **candidates)
{
	RaMember   *members;
	int			n = ra_members(&members, NULL);
	int			live = 0;
	int			i;

	*candidates = palloc((n + 1) * sizeof(Candidate));
	for (i = 0; i < n; i++)
	{
		if (!members[i].live)
			continue;
		(*candidates)[live].name = members[i].name;
		(*candidates)[live].weight = ra_node_weight(members[i].name);
		(*candidates)[live].load = members[i].load;
		live++;
	}
	return live;
}

static int
pick_random(const Candidate *candidates, int n)
{
	double		sum = 0;
	int			i;

	for (i = 0; i < n; i++)
		sum += candidates[i].weight;
	sum *= pg_prng_double(&pg_global_prng_state);
	for (i = 0; i < n - 1; i++)
	{
		sum -= candidates[i].weight;
		if (sum < 0)
			break;
	}
	return i < n ? i : -1;
}

static int
pick_least_loaded(const Candidate *candidates, int n)
{
	int			choice[2];
	double		load[2];
	int			i;

	if (n < 2)
		return n - 1;
	choice[0] = (int) pg_prng_uint64_range(&pg_global_prng_state, 0, n - 1);
	choice[1] = (int) pg_prng_uint64_range(&pg_global_prng_state, 0, n - 2);
	if (choice[1] >= choice[0])
		choice[1]++;
	for (i = 0; i < 2; i++)
	{
		const Candidate *candidate = &candidates[choice[i]];

		load[i] = (candidate->load + ra_nodestat_in_flight(candidate->name)) / candidate->weight;
	}
	return load[0] <= load[1] ? choice[0] : choice[1];
}

static int
pick_by_hash(const Candidate *candidates, int n, text *key)
{
	RaRendezvousNode *nodes = palloc((n + 1) * sizeof(RaRendezvousNode));
	int			i;

	for (i = 0; i < n; i++)
	{
		nodes[i].name = candidates[i].name;
		nodes[i].name_len = strlen(candidates[i].name);
		nodes[i].weight = candidates[i].weight;
	}
	return ra_rendezvous_pick(nodes, n, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}
