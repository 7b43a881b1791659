/*
 * statistics.h
 *	  What the worker counts, on its way to the tables stream_stat and rule_stat.
 */
#ifndef RA_STATISTICS_H
#define RA_STATISTICS_H

#include "postgres.h"

#include "executor/spi.h"
#include "utils/hsearch.h"

#include "engine/batch.h"

/* Prepare this process; what is kept goes into the given context */
extern void ra_statistics_init(MemoryContext cxt);

/*
 * Write what the streams (of RaStream) have counted, and with rules what their
 * rules have, in the current transaction; rules to be suspended are marked.
 */
extern void ra_statistics_write(HTAB *streams, bool rules);

/* The transaction has committed: what was counted is on disk (written, rules) or owed */
extern void ra_statistics_written(HTAB *streams, bool written, bool rules);

/* Move a rule set's counters to where they outlive it */
extern void ra_statistics_absorb(RaRuleSet *rs);

/* A statement that is planned once; *plan is the caller's, NULL at first */
extern SPIPlanPtr ra_kept_plan(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types);

#endif							/* RA_STATISTICS_H */
