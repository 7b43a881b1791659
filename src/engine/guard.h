/*
 * guard.h
 *	  Which rules can fire at all, found by index.
 */
#ifndef RA_GUARD_H
#define RA_GUARD_H

#include "postgres.h"

#include "engine/ruleset.h"
#include "nodes/primnodes.h"

/*
 * The comparison of a planned condition that can stand for it, in the current
 * memory context; NULL if there is none.
 */
extern struct RaGuard *ra_guard_find(Expr *condition);

/*
 * The rules that must be evaluated for the event whose row and features are
 * stored: a set of nwords words of bits, by index in rs->rules.  Valid until the next
 * call for the rule set.  Sets ra_culprit_rule meanwhile.
 */
extern const uint64 *ra_guard_candidates(RaRuleSet *rs, int *nwords);

/*
 * Rules' counters of evaluations leave out the events for which a guard has ruled
 * them out, until they are settled at the end of a batch.  What a failed batch
 * has left is forgotten when the next one begins.
 */
extern void ra_guard_begin(RaRuleSet *rs);
extern void ra_guard_settle(RaRuleSet *rs);

#endif							/* RA_GUARD_H */
