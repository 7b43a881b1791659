/*
 * ruleset.h
 *	  A stream's published configuration, parsed and compiled for this
 *	  process.
 *
 * ruleset.c reads the configuration tables, parses every expression with
 * PostgreSQL's own parser (expr.c) and prepares them for evaluation.  A rule
 * set lives in a memory context of its own and is replaced as a whole when the
 * configuration changes.
 */
#ifndef RA_RULESET_H
#define RA_RULESET_H

#include "postgres.h"

#include "access/attnum.h"
#include "core/window.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"

/* How a value is turned into a window's measure and back */
typedef enum RaValueClass
{
	RA_CLASS_NONE,				/* count(*): no value */
	RA_CLASS_INT2,				/* stored in 64-bit integers: */
	RA_CLASS_INT4,
	RA_CLASS_INT8,
	RA_CLASS_NUMERIC,			/* ... scaled by 10^scale */
	RA_CLASS_DATE,
	RA_CLASS_TIMESTAMP,			/* timestamp and timestamptz */
	RA_CLASS_FLOAT8,			/* (float4 is cast to it at creation) */
	RA_CLASS_HASH,				/* any type, count(DISTINCT x) */
	RA_CLASS_WORD,				/* pass-by-value types, lag and first */
	RA_CLASS_BYTES				/* other types, lag and first: the datum's bytes */
} RaValueClass;

typedef enum RaAggregateFunction
{
	RA_AGG_COUNT,				/* count(*), count(x) */
	RA_AGG_COUNT_DISTINCT,
	RA_AGG_SUM,
	RA_AGG_AVG,
	RA_AGG_STDDEV,				/* sample, as SQL's stddev */
	RA_AGG_VARIANCE,
	RA_AGG_MIN,
	RA_AGG_MAX,
	RA_AGG_LAG,
	RA_AGG_FIRST
} RaAggregateFunction;

/*
 * A set of columns of the stream's (root) table with what it takes to hash
 * and to print their values.
 */
typedef struct RaColumns
{
	int			n;
	AttrNumber *attnos;
	Oid		   *types;
	Oid		   *collations;
	FmgrInfo   *hash;			/* extended hash function of each type */
	FmgrInfo   *output;			/* output function of each type */
	char	  **names;
} RaColumns;

/* A (value, filter) pair that windows of an entity keep */
typedef struct RaMeasure
{
	RaValueClass value_class;
	Oid			type;			/* of the value */
	int16		typlen;
	bool		typbyval;
	int			scale;			/* NUMERIC: values are kept times 10^scale */
	bool		any_scale;		/* ... though the type allows more decimals */
	AttrNumber	attno;			/* > 0: the value is just this column */
	ExprState  *value;			/* else; NULL for count(*) */
	ExprState  *filter;			/* NULL: every event counts */
	FmgrInfo	hash;			/* HASH: extended hash function */
	Oid			collation;
	Oid			owner;			/* whose rights value and filter run with */
	const char *feature;		/* the feature that made it, for messages ... */
	int32		feature_id;		/* ... and if it must be left out */
	bool		careful;		/* failed before: evaluate in a subtransaction */
} RaMeasure;

/* What windows are kept for: the values of some columns */
typedef struct RaEntity
{
	RaColumns	columns;
	uint64		layout_hash;	/* identity: relation, columns, measures */
	RaWindowSpec spec;
	RaMeasure  *measures;		/* spec.nmeasures of them */
	int64		max_span;		/* longest window, microseconds (month = 31 d) */
	bool		has_distinct;	/* a measure's distinct values are counted */
	bool		has_index;		/* a btree index leads with columns, then time */
	char	   *label;			/* 'card_id' or 'device, country' */
} RaEntity;

/* An entity and the event's columns that pick one of its windows */
typedef struct RaLookup
{
	int			entity;			/* index in RaRuleSet.entities */
	RaColumns	columns;		/* the event's columns, same types */
	bool		own;			/* they are the entity's own columns */
} RaLookup;

typedef struct RaFeature
{
	int32		feature_id;
	char	   *name;
	int			lookup;			/* index in RaRuleSet.lookups */
	int			measure;		/* index in the entity's measures */
	int			which;			/* lag: that of the measure that counts the events it sees */
	RaAggregateFunction function;
	int64		span;			/* window: microseconds (days are 24 h) ... */
	int32		span_months;	/* ... plus calendar months */
	int			begin;			/* number of the window's length, among the entity's ... */
	int			noted;			/* ... of the extremum or distinct values, the measure's */
	bool		include_current;
	Oid			result_type;
	Oid			result_output;	/* its output function */
	int16		result_typlen;
	bool		result_typbyval;
} RaFeature;

typedef enum RaRuleStatus
{
	RA_RULE_DRAFT, RA_RULE_SHADOW, RA_RULE_ACTIVE, RA_RULE_RETIRED
} RaRuleStatus;

typedef enum RaSeverity
{
	RA_SEVERITY_LOW, RA_SEVERITY_MEDIUM, RA_SEVERITY_HIGH, RA_SEVERITY_CRITICAL
} RaSeverity;

/* A piece of a reason template: literal text, then perhaps a value */
typedef struct RaReasonPart
{
	char	   *literal;		/* never NULL */
	int			column;			/* > 0: attno of the row; < 0: -(feature + 1); 0: none */
	FmgrInfo	output;			/* output function of that value */
} RaReasonPart;

typedef struct RaRule
{
	int32		rule_id;
	char	   *name;
	ExprState  *condition;		/* NULL: invalid, see error */
	struct RaGuard *guard;		/* or NULL, see guard.c */
	char	   *error;			/* why it can't be used, or NULL */
	Oid			owner;
	int			points;
	RaSeverity	severity;
	RaRuleStatus status;
	bool		suspended;
	int			nreason;
	RaReasonPart *reason;
	int			lookup;			/* of the first feature used; -1: none */

	bool		guarded;		/* evaluated only if its guard lets it through */
	uint64		let_through;	/* ... how often since counters were settled */
	uint64		samples;		/* evaluations, to time some of them */

	/* counted by score.c since the last flush to rule_stat */
	uint64		evaluated;
	uint64		fired;
	uint64		errors;
	uint64		errors_in_row;
	uint64		evaluated_before;	/* the batch at hand */
	uint64		fired_before;
	uint64		errors_before;
	uint64		errors_in_row_before;
	bool		suspended_before;
	double		time_ns;		/* estimated from a sample */
	char	   *last_error;		/* in the rule set's context */
	bool		careful;		/* evaluate in a subtransaction of its own */
} RaRule;

/* What keeps a feature or a rule from being used */
typedef struct RaProblem
{
	const char *kind;			/* "feature" or "rule" */
	char	   *name;
	char	   *error;
} RaProblem;

typedef struct RaRuleSet
{
	MemoryContext cxt;
	int32		stream_id;
	char	   *name;
	Oid			relid;			/* root table */
	int64		version;
	int64		epoch;			/* the publication that it is; 0: none */
	int			review_at;
	int			deny_at;
	Interval	suppress;
	AttrNumber	time_attno;
	Oid			time_type;		/* timestamptz, timestamp or date */
	RaColumns	key;

	int			ncaptured;		/* columns that events carry, ascending */
	AttrNumber *captured;

	int			nentities;
	RaEntity   *entities;
	int			nlookups;
	RaLookup   *lookups;
	int			nfeatures;
	RaFeature  *features;		/* by feature_id */
	int			nrules;			/* shadow and active ones, by rule_id */
	RaRule	   *rules;
	struct RaGuards *guards;	/* made by guard.c when first needed */
	uint64		guard_events;	/* looked up since counters were settled */
	bool		evaluating;		/* rules; or that has ended by an error */

	/*
	 * Expressions read columns (varno 1) from the scan slot and features
	 * (OUTER_VAR) from the outer slot of econtext; both are virtual slots.
	 */
	TupleTableSlot *row;		/* the root table's row type */
	TupleTableSlot *values;		/* one column per feature */
	ExprContext *econtext;
	struct EState *estate;

	char	   *broken;			/* why the stream can't be processed, or NULL */
	int			nproblems;		/* broken features and rules, loaded or not */
	RaProblem  *problems;
	int32		layout_id;		/* of capture_layout; 0: none yet */
	List	   *inval_items;	/* PlanInvalItems: a change makes this stale */
	bool		stale;			/* configuration changed: reload */
} RaRuleSet;

/*
 * Load the stream's rule set as it is now, whatever the transaction's snapshot;
 * some snapshot must be active, though.  NULL if there is no such stream.  Problems of one rule are left in its error, of the stream in
 * broken; other errors are thrown.  Result in a child context of parent.
 */
extern RaRuleSet *ra_ruleset_load(int32 stream_id, MemoryContext parent);

/* Stream id by relation (a partition: its root's), or 0 */
extern int32 ra_stream_by_relid(Oid relid);

/* Stream id by name, or 0 */
extern int32 ra_stream_by_name(const char *name);

/*
 * Cached loading for this process: the current rule set of the stream, reloaded
 * when its configuration has changed since.  NULL: no such stream.  Valid until the next call
 * with the same stream_id.
 */
extern RaRuleSet *ra_ruleset_get(int32 stream_id);

/* Is a rule set being loaded? */
extern bool ra_ruleset_loading(void);

/* Bumped whenever any stream's configuration may have changed */
extern uint64 ra_config_generation;

/* Signed-off identity switch: run as owner, security-restricted */
typedef struct RaIdentity
{
	Oid			userid;
	int			sec_context;
	int			gucs;			/* nest level: what was SET meanwhile is undone */
} RaIdentity;
extern void ra_become(Oid owner, RaIdentity *save);
extern void ra_unbecome(const RaIdentity *save);

/*
 * Settings under which expressions are parsed, printed and evaluated
 * (search_path, TimeZone = UTC, DateStyle, IntervalStyle, lc_numeric and so on:
 * those of the worker), whatever the session's are.  Returns the GUC nest level
 * to hand to ra_settings_leave(); cheap when they are in force already (then -1).
 */
extern int	ra_settings_enter(void);
extern void ra_settings_leave(int nestlevel);

#endif							/* RA_RULESET_H */
