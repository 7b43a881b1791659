/*
 * guard.c
 *	  Which rules can fire at all, found by index.
 *
 * Most rules of a large set don't fire because the first thing they ask for is
 * not so: another merchant, a higher amount, more payments in an hour.  To find
 * that out rule by rule costs about 50 ns each.  Seen from the other side, all
 * these comparisons of one column or feature with constants are a set of points
 * on a line, and the event's value tells by binary search which are true.  (The
 * idea of indexing predicates by attribute instead of evaluating them is that of
 * Hanson, Chaabouni, Kim and Wang, "A predicate matching algorithm for database
 * rule systems", SIGMOD 1990.)
 *
 * Guards.  A rule's guard is a conjunct of its condition that compares a column or
 * feature with constants by the usual order of a built-in type: x < c, x <= c,
 * x = c, x >= c, x > c, x IN (c, ...).  If it is false the rule does not fire; if
 * it is true the whole condition is evaluated as ever.
 *
 * The guard also decides which errors a rule can have, so only conjuncts at the
 * front qualify: with nothing before them but what cannot fail either, they are
 * where evaluation ends when they are false.  That is not so when they
 * are null, as AND then goes on to see whether something else is false: for a null
 * value, all rules of the group that have more conjuncts are evaluated in full.
 *
 * Groups.  Rules whose guards are over the same column or feature, and constants of the
 * same type, form a group with three arrays of constants.  Those of lower bounds
 * ascend and those of upper bounds descend, so the rules let through stand
 * at the front; those of equality ascend, and the rules let through stand together.
 * A group of few rules is not worth its look-up.  Rules without a
 * group are evaluated for every event; so are rules that are being handled with care
 * (score.c), since they count what happened to them.
 *
 * The groups are made when the first event is evaluated, and again after an evaluation
 * that has not come to its end: then a rule may have become careful.
 *
 * Everything is local to the process.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/nbtree.h"
#include "access/stratnum.h"
#include "access/transam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "engine/guard.h"
#include "engine/score.h"

/* Rules that make a group: fewer are evaluated faster than looked up */
#define GROUP_MIN 4

#define WORD(i) ((i) / 64)
#define BIT(i) (UINT64CONST(1) << ((i) % 64))

typedef struct RaGuard
{
	int			varno;			/* OUTER_VAR: a feature */
	AttrNumber	attno;
	Oid			left;			/* types that are compared: value and ... */
	Oid			right;			/* ... constants */
	StrategyNumber strategy;
	int			nconstants;		/* several: IN */
	Datum	   *constants;
	bool		alone;			/* it is the whole condition */
} RaGuard;

typedef struct RaGuardEntry
{
	Datum		constant;
	int			rule;			/* index in rs->rules */
	bool		inclusive;		/* of a bound: <= or >= */
} RaGuardEntry;

typedef struct RaGuardArray
{
	int			n;
	RaGuardEntry *entries;
} RaGuardArray;

typedef struct RaGuardGroup
{
	const RaGuard *key;			/* of one of its rules */
	List	   *rules;			/* indexes in rs->rules, ascending */
	FmgrInfo	compare;		/* value with constant */
	FmgrInfo	order;			/* constants among themselves */
	Oid			collation;
	RaGuardArray lower;			/* > and >=, ascending */
	RaGuardArray upper;			/* < and <=, descending */
	RaGuardArray equal;			/* ascending */
	Size		max_size;		/* of text constants; a larger value equals none */
	uint64	   *unknown;		/* rules to evaluate when the value is null */
} RaGuardGroup;

typedef struct RaGuards
{
	MemoryContext cxt;
	int			nwords;
	uint64	   *always;			/* rules without a group */
	uint64	   *candidates;		/* for the event at hand */
	List	   *groups;
} RaGuards;

static bool read_conjunct(Node *node, RaGuard **guard);
static bool read_comparison(Oid opno, Oid collation, Node *left, Node *right, bool any,
							RaGuard **guard);
static bool read_constants(RaGuard *guard, const Const *con, bool any);
static void arrange(RaRuleSet *rs);
static RaGuardGroup *find_group(RaGuards *guards, const RaGuard *key);
static void fill_group(RaRuleSet *rs, RaGuardGroup *group);
static void look_up(const RaGuardGroup *group, Datum value, uint64 *candidates);


/*
 * Finding a condition's guard
 */

RaGuard *
ra_guard_find(Expr *condition)
{
	List	   *conjuncts = is_andclause(condition) ? ((BoolExpr *) condition)->args :
		list_make1(condition);
	RaGuard    *best = NULL;
	ListCell   *lc;

	foreach(lc, conjuncts)
	{
		RaGuard    *guard = NULL;

		if (!read_conjunct(lfirst(lc), &guard))
			break;
		/* equality lets fewest rules through */
		if (guard != NULL &&
			(best == NULL || (guard->strategy == BTEqualStrategyNumber &&
							  best->strategy != BTEqualStrategyNumber)))
			best = guard;
	}
	if (best != NULL)
		best->alone = list_length(conjuncts) == 1;
	return best;
}

static Node *
strip_relabel(Node *node)
{
	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	return node;
}

static bool
is_value(Node *node)
{
	return node != NULL && IsA(node, Var) && ((Var *) node)->varattno > 0;
}

/*
 * False: its evaluation may fail.  Otherwise what guard it makes, if any.
 */
static bool
read_conjunct(Node *node, RaGuard **guard)
{
	switch (nodeTag(node))
	{
		case T_Var:
			return is_value(node);
		case T_BoolExpr:
			return ((BoolExpr *) node)->boolop == NOT_EXPR &&
				is_value(linitial(((BoolExpr *) node)->args));
		case T_BooleanTest:
			return is_value((Node *) ((BooleanTest *) node)->arg);
		case T_NullTest:
			return !((NullTest *) node)->argisrow &&
				is_value((Node *) ((NullTest *) node)->arg);
		case T_OpExpr:
			{
				OpExpr	   *op = (OpExpr *) node;

				return list_length(op->args) == 2 &&
					read_comparison(op->opno, op->inputcollid, linitial(op->args),
									lsecond(op->args), false, guard);
			}
		case T_ScalarArrayOpExpr:
			{
				ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) node;

				return op->useOr &&
					read_comparison(op->opno, op->inputcollid, linitial(op->args),
									lsecond(op->args), true, guard);
			}
		default:
			return false;
	}
}

/*
 * Types whose built-in comparisons never fail.  Of strings, only equality is of
 * use: bytewise, as under any deterministic collation.
 */
static bool
is_comparable(Oid type, bool *string)
{
	*string = false;
	switch (type)
	{
		case TEXTOID:
		case BPCHAROID:
			*string = true;
			return true;
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case UUIDOID:
			return true;
		default:
			return false;
	}
}

static bool
read_comparison(Oid opno, Oid collation, Node *left, Node *right, bool any, RaGuard **guard)
{
	RaGuard		g = {0};
	Oid			family;
	bool		string;

	left = strip_relabel(left);
	right = strip_relabel(right);
	if (!any && IsA(left, Const))
	{
		Node	   *swap = left;

		left = right;
		right = swap;
		opno = get_commutator(opno);
	}
	if (!OidIsValid(opno) || opno >= FirstUnpinnedObjectId || !is_value(left) ||
		!IsA(right, Const) || ((Const *) right)->constisnull)
		return false;

	/* a date's place among timestamps with time zone is not immutable */
	op_input_types(opno, &g.left, &g.right);
	if (!is_comparable(g.left, &string) || !is_comparable(g.right, &string) ||
		op_volatile(opno) != PROVOLATILE_IMMUTABLE)
		return false;

	family = lookup_type_cache(g.right, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	g.strategy = get_op_opfamily_strategy(opno, family);
	if (string && (!OidIsValid(collation) || !get_collation_isdeterministic(collation)))
		return false;
	if (g.strategy == 0)
		return !any && get_op_opfamily_strategy(get_negator(opno), family) == BTEqualStrategyNumber;
	if ((string || any) && g.strategy != BTEqualStrategyNumber)
		return !string;

	g.varno = ((Var *) left)->varno;
	g.attno = ((Var *) left)->varattno;
	if (read_constants(&g, (Const *) right, any))
	{
		*guard = palloc(sizeof(RaGuard));
		**guard = g;
	}
	return true;
}

static bool
read_constants(RaGuard *guard, const Const *con, bool any)
{
	ArrayType  *array;
	int16		typlen;
	bool		typbyval;
	char		typalign;
	bool	   *nulls;

	if (!any)
	{
		guard->nconstants = 1;
		guard->constants = palloc(sizeof(Datum));
		guard->constants[0] = datumCopy(con->constvalue, con->constbyval, con->constlen);
		return true;
	}
	array = DatumGetArrayTypePCopy(con->constvalue);
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign,
					  &guard->constants, &nulls, &guard->nconstants);
	for (int i = 0; i < guard->nconstants; i++)
	{
		/* never false, then */
		if (nulls[i])
			return false;
	}
	return true;
}


/*
 * Groups
 */

static void
arrange(RaRuleSet *rs)
{
	RaGuards   *guards = rs->guards;
	MemoryContext cxt;
	MemoryContext old;
	ListCell   *lc;

	ra_guard_settle(rs);
	for (int i = 0; i < rs->nrules; i++)
		rs->rules[i].guarded = false;
	if (guards != NULL)
	{
		rs->guards = NULL;
		MemoryContextDelete(guards->cxt);
	}
	cxt = AllocSetContextCreate(rs->cxt, "risk_alert guards", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	guards = palloc0(sizeof(RaGuards));
	guards->cxt = cxt;
	guards->nwords = WORD(rs->nrules) + 1;
	guards->always = palloc0(guards->nwords * sizeof(uint64));
	guards->candidates = palloc0(guards->nwords * sizeof(uint64));

	for (int i = 0; i < rs->nrules; i++)
	{
		RaRule	   *rule = &rs->rules[i];

		if (rule->condition == NULL)
			continue;
		if (rule->guard != NULL && !rule->careful && !rule->suspended)
		{
			RaGuardGroup *group = find_group(guards, rule->guard);

			group->rules = lappend_int(group->rules, i);
		}
		else
			guards->always[WORD(i)] |= BIT(i);
	}
	foreach(lc, guards->groups)
	{
		RaGuardGroup *group = lfirst(lc);
		ListCell   *lc2;

		if (list_length(group->rules) >= GROUP_MIN)
		{
			group->unknown = palloc0(guards->nwords * sizeof(uint64));
			fill_group(rs, group);
			continue;
		}
		foreach(lc2, group->rules)
			guards->always[WORD(lfirst_int(lc2))] |= BIT(lfirst_int(lc2));
		guards->groups = foreach_delete_current(guards->groups, lc);
	}
	MemoryContextSwitchTo(old);
	rs->guards = guards;

	/* only now that nothing can fail: their counting depends on it */
	foreach(lc, guards->groups)
	{
		ListCell   *lc2;

		foreach(lc2, ((RaGuardGroup *) lfirst(lc))->rules)
			rs->rules[lfirst_int(lc2)].guarded = true;
	}
}

static RaGuardGroup *
find_group(RaGuards *guards, const RaGuard *key)
{
	RaGuardGroup *group;
	ListCell   *lc;
	Oid			family;
	bool		string;

	foreach(lc, guards->groups)
	{
		group = lfirst(lc);
		if (group->key->varno == key->varno && group->key->attno == key->attno &&
			group->key->left == key->left && group->key->right == key->right)
			return group;
	}
	group = palloc0(sizeof(RaGuardGroup));
	group->key = key;
	family = lookup_type_cache(key->right, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	fmgr_info(get_opfamily_proc(family, key->left, key->right, BTORDER_PROC), &group->compare);
	fmgr_info(get_opfamily_proc(family, key->right, key->right, BTORDER_PROC), &group->order);
	(void) is_comparable(key->right, &string);
	group->collation = string ? C_COLLATION_OID : InvalidOid;
	guards->groups = lappend(guards->groups, group);
	return group;
}

static int
compare_constants(Datum a, Datum b, RaGuardGroup *group)
{
	return DatumGetInt32(FunctionCall2Coll(&group->order, group->collation, a, b));
}

/* Of equal lower bounds, x >= c lets more through than x > c */
static int
order_lower(const void *a, const void *b, void *group)
{
	const RaGuardEntry *p = a;
	const RaGuardEntry *q = b;
	int			order = compare_constants(p->constant, q->constant, group);

	return order != 0 ? order : (int) q->inclusive - (int) p->inclusive;
}

static int
order_upper(const void *a, const void *b, void *group)
{
	const RaGuardEntry *p = a;
	const RaGuardEntry *q = b;
	int			order = compare_constants(q->constant, p->constant, group);

	return order != 0 ? order : (int) q->inclusive - (int) p->inclusive;
}

static void
fill_group(RaRuleSet *rs, RaGuardGroup *group)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, group->rules)
		n += rs->rules[lfirst_int(lc)].guard->nconstants;
	group->lower.entries = palloc(Max(n, 1) * sizeof(RaGuardEntry));
	group->upper.entries = palloc(Max(n, 1) * sizeof(RaGuardEntry));
	group->equal.entries = palloc(Max(n, 1) * sizeof(RaGuardEntry));

	foreach(lc, group->rules)
	{
		int			i = lfirst_int(lc);
		const RaGuard *guard = rs->rules[i].guard;
		RaGuardArray *array = &group->equal;

		if (!guard->alone)
			group->unknown[WORD(i)] |= BIT(i);
		if (guard->strategy > BTEqualStrategyNumber)
			array = &group->lower;
		else if (guard->strategy < BTEqualStrategyNumber)
			array = &group->upper;
		for (int c = 0; c < guard->nconstants; c++)
		{
			RaGuardEntry *entry = &array->entries[array->n++];

			entry->constant = guard->constants[c];
			entry->rule = i;
			entry->inclusive = guard->strategy == BTGreaterEqualStrategyNumber ||
				guard->strategy == BTLessEqualStrategyNumber;
			if (guard->right == TEXTOID)
				group->max_size = Max(group->max_size, toast_raw_datum_size(entry->constant));
		}
	}
	qsort_arg(group->lower.entries, group->lower.n, sizeof(RaGuardEntry), order_lower, group);
	qsort_arg(group->upper.entries, group->upper.n, sizeof(RaGuardEntry), order_upper, group);
	qsort_arg(group->equal.entries, group->equal.n, sizeof(RaGuardEntry), order_lower, group);
}


/*
 * Look-up
 */

const uint64 *
ra_guard_candidates(RaRuleSet *rs, int *nwords)
{
	RaGuards   *guards;
	MemoryContext old;
	ListCell   *lc;

	if (rs->guards == NULL || rs->evaluating)
		arrange(rs);
	rs->evaluating = true;
	guards = rs->guards;
	*nwords = guards->nwords;
	if (guards->groups == NIL)
		return guards->always;

	rs->guard_events++;
	memcpy(guards->candidates, guards->always, guards->nwords * sizeof(uint64));
	old = MemoryContextSwitchTo(rs->econtext->ecxt_per_tuple_memory);
	foreach(lc, guards->groups)
	{
		const RaGuardGroup *group = lfirst(lc);
		TupleTableSlot *slot = group->key->varno == OUTER_VAR ? rs->values : rs->row;
		int			a = group->key->attno - 1;

		if (slot->tts_isnull[a])
		{
			for (int w = 0; w < guards->nwords; w++)
				guards->candidates[w] |= group->unknown[w];
			continue;
		}

		/* a stored value may turn out to be unreadable; the rule would, too */
		ra_culprit_rule = &rs->rules[linitial_int(group->rules)];
		look_up(group, slot->tts_values[a], guards->candidates);
		ra_culprit_rule = NULL;
	}
	MemoryContextSwitchTo(old);
	return guards->candidates;
}

static int
compare_value(const RaGuardGroup *group, Datum value, Datum constant)
{
	return DatumGetInt32(FunctionCall2Coll((FmgrInfo *) &group->compare, group->collation,
										   value, constant));
}

/* How many entries, from the front, the value is beyond the bounds of */
static int
count_bounds(const RaGuardGroup *group, const RaGuardArray *array, Datum value, bool descending)
{
	int			low = 0;
	int			high = array->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		const RaGuardEntry *entry = &array->entries[middle];
		int			order = compare_value(group, value, entry->constant);

		if (order == 0 ? entry->inclusive : (order > 0) != descending)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void
look_up(const RaGuardGroup *group, Datum value, uint64 *candidates)
{
	const RaGuardEntry *entry;
	int			n;

	n = count_bounds(group, &group->lower, value, false);
	for (entry = group->lower.entries; n > 0; n--, entry++)
		candidates[WORD(entry->rule)] |= BIT(entry->rule);

	n = count_bounds(group, &group->upper, value, true);
	for (entry = group->upper.entries; n > 0; n--, entry++)
		candidates[WORD(entry->rule)] |= BIT(entry->rule);

	/* rather than decompress what is longer than all it could be equal to */
	if (group->key->left == TEXTOID && group->equal.n > 0 &&
		toast_raw_datum_size(value) > group->max_size)
		return;

	/* entries of equality are not inclusive: the count is of those below the value */
	n = count_bounds(group, &group->equal, value, false);
	for (entry = group->equal.entries + n;
		 n < group->equal.n && compare_value(group, value, entry->constant) == 0; n++, entry++)
		candidates[WORD(entry->rule)] |= BIT(entry->rule);
}


/*
 * Counters
 */

void
ra_guard_begin(RaRuleSet *rs)
{
	rs->guard_events = 0;
	for (int i = 0; i < rs->nrules; i++)
		rs->rules[i].let_through = 0;
}

void
ra_guard_settle(RaRuleSet *rs)
{
	for (int i = 0; i < rs->nrules; i++)
	{
		RaRule	   *rule = &rs->rules[i];

		if (rule->guarded)
			rule->evaluated += rs->guard_events - rule->let_through;
		rule->let_through = 0;
	}
	rs->guard_events = 0;
}
