/*
 * rebuild.h
 *	  Windows made from the watched table.
 */
#ifndef RA_REBUILD_H
#define RA_REBUILD_H

#include "postgres.h"

#include "engine/feature.h"

/* An entity to rebuild, and what came of it */
typedef struct RaRebuild
{
	Datum	   *values;			/* in: of the entity's columns, none NULL */
	int64		lower;			/* in: events later than this are wanted */
	RaWindow   *window;			/* out: in the caller's context */
	bool		wide;			/* out: more than a window can hold */
} RaRebuild;

/* Should a row that the snapshot sees be left out? */
typedef enum RaSkipVerdict
{
	RA_KEEP,
	RA_SKIP,
	RA_SKIP_IF_INSERTED			/* if xmin inserted it; keep it if xmin updated it */
} RaSkipVerdict;

typedef RaSkipVerdict (*RaSkipEvent) (int32 stream_id, uint64 key, TransactionId xmin);

/*
 * Read the events of n entities with time <= upper under the given snapshot,
 * but for those that skip (may be NULL) tells to leave out.  All are read from
 * the smallest lower bound on.
 */
extern void ra_rebuild(RaRuleSet *rs, int entity, int n, RaRebuild *rebuilds, int64 upper,
					   Snapshot snapshot, RaSkipEvent skip);

/*
 * The features of one lookup for a row whose entity's numbers don't fit a
 * window, computed from the table with numeric arithmetic: slow and exact.
 * Sets rs->values of these features.  skip (may be NULL) tells which events of
 * the row's own time to leave out.
 */
extern void ra_exact_features(RaRuleSet *rs, int lookup, const RaRow *row, bool self,
							  const int64 *lower, Snapshot snapshot, RaSkipEvent skip);

/*
 * Read the row of the stream's table with row's key; its captured columns replace row's
 * values.  False: there is none.
 */
extern bool ra_reread_row(RaRuleSet *rs, RaRow *row, Snapshot snapshot);

#endif							/* RA_REBUILD_H */
