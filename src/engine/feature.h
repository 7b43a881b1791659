/*
 * feature.h
 *	  From events to windows' measures, and from windows to features' values.
 */
#ifndef RA_FEATURE_H
#define RA_FEATURE_H

#include "postgres.h"

#include "engine/cache.h"
#include "engine/ruleset.h"

/*
 * One row of a stream's table, in the rule set's captured columns.  Values may
 * point into memory of the caller's batch.
 */
typedef struct RaRow
{
	Datum	   *values;			/* ncaptured */
	bool	   *nulls;
	bool		timed;			/* event time is neither NULL nor infinite */
	int64		time;			/* microseconds since 2000 (UTC), if timed */
	uint64		key;			/* hash of the key */
} RaRow;

/* An entity's identity: not present if one of its columns is NULL */
typedef struct RaEntityId
{
	bool		present;
	RaEntityHash hash;
} RaEntityId;

/*
 * What entities' windows need to know of the features, and features of each
 * other; when all are loaded.
 */
extern void ra_features_arrange(RaRuleSet *rs);

/* Fill timed, time and key from values */
extern void ra_row_identify(const RaRuleSet *rs, RaRow *row);

/* Make row the one that expressions of rs read */
extern void ra_row_store(RaRuleSet *rs, const RaRow *row);

/* A column's value by attribute number of the root table */
extern Datum ra_row_value(const RaRuleSet *rs, const RaRow *row, AttrNumber attno, bool *isnull);

/* Who the row's entity is, by the given columns */
extern RaEntityId ra_entity_id(const RaRuleSet *rs, const RaColumns *columns, const RaRow *row);

/*
 * How the row counts for each measure of an entity; the row must be stored.
 * Errors of users' expressions are thrown with ra_culprit_measure set, unless
 * the measure is careful: then they are counted and the value does not count.
 * Returns false if a number is too large for a window.
 */
extern bool ra_measure_row(RaRuleSet *rs, RaEntity *entity, RaValue *values);

/*
 * Filter and value of one measure of the stored row, with its owner's rights;
 * false: it does not count.  Errors as ra_measure_row().
 */
extern bool ra_measure_evaluate(RaRuleSet *rs, RaMeasure *measure, Datum *value, bool *isnull);

/* What is being evaluated, for whoever catches an error */
extern RaMeasure *ra_culprit_measure;

/* What a window says about a feature; turned into a Datum outside the lock */
typedef struct RaFeatureResult
{
	bool		empty;			/* no history: nothing was looked at */
	RaAggregate aggregate;
	uint64		distinct;
	bool		found;			/* lag, first */
	RaValue		value;
	Size		room;			/* of bytes */
	char	   *bytes;			/* BYTES: a copy of the value */
	Size		needed;			/* > room: call again with that much */
} RaFeatureResult;

/*
 * Look at a window (NULL: entity has none) for all features of a lookup, as of
 * the row's time: events earlier than the row, and of the same time those that
 * stand before it (all of them if the row isn't in the window).  self: the row's own
 * measures, or NULL if it isn't the entity's event.  later: how many events of the row's
 * time stand in the window that arrived after the row, which are the last of
 * their time.  note: leave hints for the next time; the window is locked
 * exclusively.  Does not throw.
 *
 * Returns false if the row stands between others of its time and all of these
 * are wanted (all_peers): see ra_window_move_last().
 */
extern bool ra_features_look(const RaRuleSet *rs, int lookup, RaWindow *window, bool note,
							 const RaRow *row, const RaValue *self, bool all_peers,
							 uint32 later, const int64 *lower, RaFeatureResult *results);

/* Lower bound (exclusive) of each feature's window for an event at time */
extern void ra_features_bounds(const RaRuleSet *rs, int64 time, int64 *lower);

/* Store the results as the values that conditions read (rs->values) */
extern void ra_features_store(RaRuleSet *rs, const RaFeatureResult *results);

/* Space for the results of all features of rs in the current context */
extern RaFeatureResult *ra_feature_results(const RaRuleSet *rs);

#endif							/* RA_FEATURE_H */
