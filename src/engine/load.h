/*
 * load.h
 *	  Loading a rule set: what ruleset.c shares with the makers of configuration.
 */
#ifndef RA_LOAD_H
#define RA_LOAD_H

#include "postgres.h"

#include "engine/config.h"
#include "engine/expr.h"
#include "engine/ruleset.h"

/* All that a stream's configuration refers to, rules that don't run included */
typedef struct RaUses
{
	List	   *exprs;			/* trees of features and rules */
	Bitmapset  *columns;		/* of the root table */
	char	   *excess;			/* a limit that the features exceed, or NULL */
} RaUses;

/*
 * ra_ruleset_load() that also tells what is used, for the problems of all rules
 * whatever their status; uses is palloc'd in the current context.
 */
extern RaRuleSet *ra_ruleset_load_all(int32 stream_id, MemoryContext parent, RaUses *uses);

/*
 * The names that the stream's expressions may use, its table opened with
 * AccessShareLock.  ERROR if the table is gone.
 */
extern void ra_names_load(const RaStreamRow *stream, List *feature_rows, RaNames *names);

/*
 * A set of columns, with what it takes to hash and to print their values; in
 * the current context.  All types must have a hash function.
 */
extern RaColumns ra_columns_build(Relation rel, int n, const AttrNumber *attnos);

/*
 * A window's length.  ERROR if it is out of range.
 */
extern void ra_check_within(const Interval *within, int64 *span, int32 *span_months);

/* ERROR unless windows can be kept for (or looked up by) values of the column */
extern void ra_check_entity_column(Relation rel, AttrNumber attno);

/* ERROR unless the lookup columns can stand for the entity's */
extern void ra_check_lookup(Relation rel, int n, const AttrNumber *entity, const AttrNumber *lookup);

/* Does a btree index of the table lead with these columns, then the time? */
extern bool ra_entity_has_index(Relation rel, int n, const AttrNumber *attnos, AttrNumber time_attno);

/*
 * Run a step as owner, in a subtransaction; returns the message of the error it
 * ended with, or NULL.  Errors that say nothing about the step are thrown.
 */
extern char *ra_attempt(Oid owner, void (*step) (void *arg), void *arg);

#endif							/* RA_LOAD_H */
