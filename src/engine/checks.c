/*
 * checks.c
 *	  What the configuration functions (SQL) ask before they store something.
 *
 * These functions are called by SECURITY DEFINER functions, as a superuser, and
 * are told who the caller is and what search_path he has.  The caller's
 * expressions are parsed and planned as him, in a security-restricted operation,
 * and under the settings of his session: names, dates and strings mean what they
 * mean in any statement he types.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "engine/load.h"
#include "engine/reason.h"

PG_FUNCTION_INFO_V1(ra_columns);
PG_FUNCTION_INFO_V1(ra_check_feature);
PG_FUNCTION_INFO_V1(ra_check_condition);
PG_FUNCTION_INFO_V1(ra_check_reason);
PG_FUNCTION_INFO_V1(ra_uses_feature);
PG_FUNCTION_INFO_V1(ra_entity_index);

/* A check in progress */
typedef struct RaCheck
{
	RaNames		names;
	RaIdentity	save;
	int			nestlevel;
} RaCheck;

/* Does a rule's stored condition or reason use a feature? */
typedef struct RaUseOfFeature
{
	int32		stream_id;
	const char *name;
	const char *condition;
	const char *reason;
	Oid			owner;
	bool		used;
} RaUseOfFeature;

static void find_use(void *arg);
static bool mentions(const char *text, const char *name);
static bool is_identifier_char(char c);
static void open_names(RaCheck *check, int32 stream_id);
static void begin_check(RaCheck *check, int32 stream_id, const char *search_path, Oid owner);
static void end_check(RaCheck *check);
static void check_executable(Node *expr, const char *text);
static void planning_context(void *arg);
static AttrNumber *parse_columns(Relation rel, const char *list, const char *what, int *n);
static Datum column_names(Relation rel, int n, const AttrNumber *attnos);


/*
 * risk_alert._columns(relation regclass, list text) returns name[]
 */
Datum
ra_columns(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	int			n;
	AttrNumber *attnos = parse_columns(rel, text_to_cstring(PG_GETARG_TEXT_PP(1)), "column", &n);
	Datum		result = column_names(rel, n, attnos);

	relation_close(rel, NoLock);
	PG_RETURN_DATUM(result);
}

/*
 * risk_alert._entity_index(relation regclass, entity name[], event_time name)
 * returns bool
 */
Datum
ra_entity_index(PG_FUNCTION_ARGS)
{
	Relation	rel = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	Datum	   *names;
	int			n;
	AttrNumber *attnos;
	AttrNumber	time_attno;
	bool		found;

	if (rel == NULL)
		PG_RETURN_BOOL(false);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &names, NULL, &n);
	attnos = palloc(Max(n, 1) * sizeof(AttrNumber));
	time_attno = ra_column_by_name(rel, NameStr(*PG_GETARG_NAME(2)));
	found = time_attno != 0;
	for (int i = 0; i < n; i++)
	{
		attnos[i] = ra_column_by_name(rel, NameStr(*DatumGetName(names[i])));
		found = found && attnos[i] != 0;
	}
	found = found && ra_entity_has_index(rel, n, attnos, time_attno);
	relation_close(rel, AccessShareLock);
	PG_RETURN_BOOL(found);
}

/*
 * risk_alert._check_feature(stream_id int, entity text, lookup text, aggregate
 * text, filter text, within interval, search_path text, owner oid): how the
 * feature is stored
 */
Datum
ra_check_feature(PG_FUNCTION_ARGS)
{
	RaCheck		check;
	Relation	rel;
	Oid			owner;
	AttrNumber *entity;
	AttrNumber *lookup;
	int			nentity;
	int			nlookup;
	int64		span;
	int32		span_months;
	RaAggregateFunction function;
	RaValueClass value_class;
	Node	   *value;
	char	   *source;
	Oid			result_type;
	TupleDesc	desc;
	Datum		values[6];
	bool		nulls[6] = {false};

	/* lookup and filter may be NULL */
	for (int i = 0; i < 8; i++)
	{
		if (PG_ARGISNULL(i) && i != 2 && i != 4)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d of risk_alert._check_feature must not be NULL", i + 1)));
	}
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != 6)
		elog(ERROR, "risk_alert._check_feature must return a row of 6 columns");
	owner = PG_GETARG_OID(7);

	ra_check_within(PG_GETARG_INTERVAL_P(5), &span, &span_months);
	begin_check(&check, PG_GETARG_INT32(0), text_to_cstring(PG_GETARG_TEXT_PP(6)), owner);
	rel = check.names.rel;

	entity = parse_columns(rel, text_to_cstring(PG_GETARG_TEXT_PP(1)), "entity", &nentity);
	lookup = entity;
	nlookup = nentity;
	if (!PG_ARGISNULL(2))
		lookup = parse_columns(rel, text_to_cstring(PG_GETARG_TEXT_PP(2)), "lookup", &nlookup);
	if (nentity != nlookup)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lookup must have as many columns as entity"),
				 errdetail("They have %d and %d.", nlookup, nentity)));
	for (int i = 0; i < nentity; i++)
	{
		ra_check_entity_column(rel, entity[i]);
		ra_check_column_rights(rel, entity[i], owner);
		ra_check_column_rights(rel, lookup[i], owner);
	}
	ra_check_lookup(rel, nentity, entity, lookup);

	source = text_to_cstring(PG_GETARG_TEXT_PP(3));
	ra_expr_parse_aggregate(&check.names, source, owner, &function, &value);
	ra_aggregate_types(function, value != NULL ? getBaseType(exprType(value)) : InvalidOid,
					   &value_class, &result_type);
	values[2] = CStringGetTextDatum(ra_aggregate_name(function));
	nulls[3] = value == NULL;
	if (value != NULL)
	{
		check_executable(value, source);
		values[3] = CStringGetTextDatum(ra_expr_canonical(&check.names, value, RA_EXPR_VALUE, owner));
	}

	nulls[4] = PG_ARGISNULL(4);
	if (!PG_ARGISNULL(4))
	{
		Node	   *filter;

		source = text_to_cstring(PG_GETARG_TEXT_PP(4));
		filter = ra_expr_parse(&check.names, source, RA_EXPR_FILTER, owner);
		check_executable(filter, source);
		values[4] = CStringGetTextDatum(ra_expr_canonical(&check.names, filter, RA_EXPR_FILTER, owner));
	}

	values[0] = column_names(rel, nentity, entity);
	values[1] = column_names(rel, nlookup, lookup);
	values[5] = ObjectIdGetDatum(result_type);
	end_check(&check);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * risk_alert._check_condition(stream_id int, condition text, search_path text,
 * owner oid): the canonical text
 */
Datum
ra_check_condition(PG_FUNCTION_ARGS)
{
	RaCheck		check;
	Oid			owner = PG_GETARG_OID(3);
	char	   *source = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Node	   *condition;
	text	   *result;

	begin_check(&check, PG_GETARG_INT32(0), text_to_cstring(PG_GETARG_TEXT_PP(2)), owner);
	condition = ra_expr_parse(&check.names, source, RA_EXPR_CONDITION, owner);
	check_executable(condition, source);
	result = cstring_to_text(ra_expr_canonical(&check.names, condition, RA_EXPR_CONDITION, owner));
	end_check(&check);
	PG_RETURN_TEXT_P(result);
}

/*
 * risk_alert._check_reason(stream_id int, reason text, owner oid): the canonical
 * text
 */
Datum
ra_check_reason(PG_FUNCTION_ARGS)
{
	RaCheck		check;
	List	   *pieces;
	text	   *result;

	open_names(&check, PG_GETARG_INT32(0));
	pieces = ra_reason_parse(&check.names, text_to_cstring(PG_GETARG_TEXT_PP(1)),
							 PG_GETARG_OID(2));
	result = cstring_to_text(ra_reason_print(&check.names, pieces));
	relation_close(check.names.rel, NoLock);
	PG_RETURN_TEXT_P(result);
}

/*
 * risk_alert._uses_feature(stream_id int, feature name, condition text, reason
 * text, owner oid) returns bool: the texts as stored.  Those that cannot be
 * parsed now, but may be again some day, use what they mention.
 */
Datum
ra_uses_feature(PG_FUNCTION_ARGS)
{
	RaUseOfFeature use;
	int			nestlevel = ra_settings_enter();

	use.stream_id = PG_GETARG_INT32(0);
	use.name = NameStr(*PG_GETARG_NAME(1));
	use.condition = text_to_cstring(PG_GETARG_TEXT_PP(2));
	use.reason = text_to_cstring(PG_GETARG_TEXT_PP(3));
	use.owner = PG_GETARG_OID(4);
	use.used = false;
	if (ra_attempt(use.owner, find_use, &use) != NULL)
		use.used = mentions(use.condition, use.name) || mentions(use.reason, use.name);
	ra_settings_leave(nestlevel);
	PG_RETURN_BOOL(use.used);
}

/* A step of ra_attempt() */
static void
find_use(void *arg)
{
	RaUseOfFeature *use = arg;
	RaCheck		check;
	int			feature;
	Node	   *condition;
	List	   *pieces;
	ListCell   *lc;
	bool		used;

	open_names(&check, use->stream_id);
	feature = ra_feature_by_name(&check.names, use->name);
	condition = ra_expr_parse(&check.names, use->condition, RA_EXPR_CONDITION, use->owner);
	used = ra_expr_uses_feature(condition, feature);
	pieces = ra_reason_parse(&check.names, use->reason, use->owner);
	foreach(lc, pieces)
		used = used || (feature >= 0 && ((RaReasonPiece *) lfirst(lc))->feature == feature);
	relation_close(check.names.rel, NoLock);
	use->used = used;
}

/*
 * Does the name stand in the text, as a word, plain or as a quoted identifier
 * has it?
 */
static bool
mentions(const char *text, const char *name)
{
	StringInfoData doubled;

	initStringInfo(&doubled);
	for (const char *p = name; *p != '\0'; p++)
	{
		if (*p == '"')
			appendStringInfoChar(&doubled, '"');
		appendStringInfoChar(&doubled, *p);
	}
	for (int form = 0; form < 2; form++)
	{
		const char *word = form == 0 ? name : doubled.data;
		int			len = strlen(word);

		for (const char *p = strstr(text, word); p != NULL; p = strstr(p + 1, word))
		{
			if ((p == text || !is_identifier_char(p[-1])) && !is_identifier_char(p[len]))
				return true;
		}
	}
	return false;
}

static bool
is_identifier_char(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
}

static void
open_names(RaCheck *check, int32 stream_id)
{
	RaStreamRow *stream = ra_read_stream(stream_id, NULL);

	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream with ID %d does not exist", stream_id)));
	ra_names_load(stream, ra_read_features(stream_id, NULL), &check->names);
}

/*
 * An error on the way undoes what is changed here with the (sub)transaction.
 */
static void
begin_check(RaCheck *check, int32 stream_id, const char *search_path, Oid owner)
{
	open_names(check, stream_id);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", owner)));
	ra_become(owner, &check->save);
	check->nestlevel = NewGUCNestLevel();

	/* in_list() and the like are part of the language of rules */
	while (*search_path == ' ')
		search_path++;
	if (*search_path != '\0')
		search_path = psprintf("%s, risk_alert", search_path);
	else
		search_path = "risk_alert";
	(void) set_config_option("search_path", search_path, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
end_check(RaCheck *check)
{
	AtEOXact_GUC(true, check->nestlevel);
	ra_unbecome(&check->save);
	relation_close(check->names.rel, NoLock);
}

/*
 * What planning finds wrong should be found now: constants that can't be
 * computed, such as 1 / 0
 */
static void
check_executable(Node *expr, const char *text)
{
	int			nestlevel = ra_settings_enter();
	ErrorContextCallback callback;

	callback.callback = planning_context;
	callback.arg = unconstify(char *, text);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	(void) ExecInitExpr(expression_planner(copyObject((Expr *) expr)), NULL);
	error_context_stack = callback.previous;
	ra_settings_leave(nestlevel);
}

static void
planning_context(void *arg)
{
	errcontext("planning of the expression: %s", (char *) arg);
}

/*
 * A comma-separated list of column names, as SQL reads identifiers
 */
static AttrNumber *
parse_columns(Relation rel, const char *list, const char *what, int *n)
{
	RaNames		names = {rel, 0, NULL};
	List	   *parsed;
	AttrNumber *attnos;
	ListCell   *lc;

	if (!SplitIdentifierString(pstrdup(list), ',', &parsed))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("invalid list of columns: %s", list),
				 errhint("Write column names separated by commas, those with odd characters in double quotes.")));
	if (parsed == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must name at least one column", what)));

	attnos = palloc(list_length(parsed) * sizeof(AttrNumber));
	*n = 0;
	foreach(lc, parsed)
	{
		const char *name = lfirst(lc);
		AttrNumber	attno = ra_column_by_name(rel, name);

		if (attno == 0)
		{
			char	   *hint = ra_similar_names(&names, name, false);

			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of table \"%s\" does not exist",
							name, RelationGetRelationName(rel)),
					 hint != NULL ? errhint("%s", hint) : 0));
		}
		for (int i = 0; i < *n; i++)
		{
			if (attnos[i] == attno)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" is named twice", name),
						 errdetail("The list is: %s", list)));
		}
		attnos[(*n)++] = attno;
	}
	return attnos;
}

static Datum
column_names(Relation rel, int n, const AttrNumber *attnos)
{
	Datum	   *names = palloc(n * sizeof(Datum));

	for (int i = 0; i < n; i++)
		names[i] = NameGetDatum(&TupleDescAttr(RelationGetDescr(rel), attnos[i] - 1)->attname);
	return PointerGetDatum(construct_array(names, n, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR));
}
