/*
 * expr.h
 *	  Users' expressions: from text to checked trees and back.
 */
#ifndef RA_EXPR_H
#define RA_EXPR_H

#include "postgres.h"

#include "engine/ruleset.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

/*
 * A word that stands for the row in expressions and reasons: event.amount.
 * Canonical text uses it where a feature has the same name as a column.
 */
#define RA_ROW_ALIAS "event"

typedef enum RaExprKind
{
	RA_EXPR_CONDITION,			/* of a rule: columns and features */
	RA_EXPR_VALUE,				/* what a feature aggregates: columns only */
	RA_EXPR_FILTER				/* of a feature: columns only */
} RaExprKind;

typedef struct RaFeatureName
{
	char	   *name;
	Oid			type;			/* of the feature's values */
	int			slot;			/* index in RaRuleSet.features; -1: unusable */
	char	   *error;			/* why it is unusable, or NULL */
} RaFeatureName;

/* What expressions of a stream may refer to */
typedef struct RaNames
{
	Relation	rel;			/* the root table, open and locked */
	int			nfeatures;
	RaFeatureName *features;	/* Param paramid - 1 is an index into these */
} RaNames;

/*
 * Parse and check under the settings in force, which say how names and literals
 * are meant; the current user must be owner, whose rights decide what may be
 * used.  The tree has columns as Vars of varno 1, features as external Params.
 */
extern Node *ra_expr_parse(const RaNames *names, const char *text, RaExprKind kind, Oid owner);

/*
 * Likewise an aggregate such as 'sum(amount)'.  *value: NULL for count(*), else
 * an expression of the type that is aggregated.
 */
extern void ra_expr_parse_aggregate(const RaNames *names, const char *text, Oid owner,
									RaAggregateFunction *function, Node **value);

/*
 * The text that means this tree under ra_settings_enter(), which is in force or
 * not.  ERROR if that text doesn't parse back to the same.
 */
extern char *ra_expr_print(const RaNames *names, Node *expr, RaExprKind kind);
extern char *ra_expr_canonical(const RaNames *names, Node *expr, RaExprKind kind, Oid owner);

/* Features and columns that a tree refers to */
extern Bitmapset *ra_expr_columns(Node *expr, Bitmapset *attnos);
extern int	ra_expr_first_feature(Node *expr);	/* index in names, or -1 */
extern bool ra_expr_uses_feature(Node *expr, int feature);

extern const char *ra_aggregate_name(RaAggregateFunction function);
extern bool ra_aggregate_by_name(const char *name, RaAggregateFunction *function);

/*
 * The type rules of aggregates: how values of the given type are kept, and
 * what the result's type is.  ERROR if the aggregate does not take the type.
 */
extern void ra_aggregate_types(RaAggregateFunction function, Oid type,
							   RaValueClass *value_class, Oid *result_type);

/* Decimals that a numeric expression's values have at most; -1: can't be told */
extern int	ra_expr_scale(Node *expr);

/*
 * Attribute number of a column by exact name; 0 if there is none.  ERROR if it
 * is one that events don't have (virtual generated columns).
 */
extern AttrNumber ra_column_by_name(Relation rel, const char *name);

/* Index of a feature by exact name, or -1 */
extern int	ra_feature_by_name(const RaNames *names, const char *name);

/* ERROR unless role may read the column */
extern void ra_check_column_rights(Relation rel, AttrNumber attno, Oid role);

/* "Perhaps you mean ..." about a name that isn't known; NULL if nothing is like it */
extern char *ra_similar_names(const RaNames *names, const char *name, bool with_features);

/*
 * While in force, errors with a position in text show text with the position
 * marked, whatever query runs.
 */
typedef struct RaTextContext
{
	const char *text;
	ErrorContextCallback callback;
} RaTextContext;
extern void ra_text_context_push(RaTextContext *cxt, const char *text);
extern void ra_text_context_pop(RaTextContext *cxt);

#endif							/* RA_EXPR_H */
