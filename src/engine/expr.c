/*
 * expr.c
 *	  Users' expressions: from text to checked trees and back.
 *
 * A rule's condition, and a feature's value and filter, are SQL expressions
 * over the columns of one table (and, in conditions, the features of its
 * stream).  PostgreSQL's own grammar and parse analysis read them; hooks say
 * what the names mean.  What comes out is an ordinary expression tree, in which
 * a column is a Var of varno 1 and a feature an external Param.
 *
 * When a user writes an expression, names and literals are understood as the
 * user's session understands them.  Then the tree is printed by the server's
 * own printer under fixed settings, with a search_path that holds nothing but
 * pg_catalog, so that every other name comes out qualified.  This canonical
 * text is what is stored, and what every process parses again, under the same
 * settings.  So no later change of a search_path changes what a rule means, and
 * the text survives dump and restore.  The printer shows Params as $1, $2, ...,
 * which are replaced by the features' names token by token.
 *
 * Every parse, the stored text's too, checks what an expression may use with
 * the rights of its owner: rights and volatility of functions change.
 * Nothing of the user's runs while we parse, but type input functions of
 * literals; constant folding is the business of the planner (ruleset.c), after
 * the checks.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "parser/scanner.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "engine/expr.h"
#include "guc.h"

/* What the hooks and the checks know about the expression at hand */
typedef struct RaExprContext
{
	const RaNames *names;
	RaExprKind	kind;
	Oid			owner;
	ParseState *pstate;
	int			location;		/* of the node being checked */
} RaExprContext;

static const char *const kind_names[] = {
	[RA_EXPR_CONDITION] = "a condition",
	[RA_EXPR_VALUE] = "an aggregated value",
	[RA_EXPR_FILTER] = "a filter"
};

static Node *parse_raw(const char *text, const char *what, ParseState *pstate);
static Node *transform(RaExprContext *cxt, Node *raw);
static bool check_raw_walker(Node *node, RaExprContext *cxt);
static bool check_walker(Node *node, RaExprContext *cxt);
static bool check_function(Oid funcid, void *context);
static void check_not_temporary(RaExprContext *cxt, Oid classid, Oid objid);
static void check_domain(RaExprContext *cxt, Oid type);
static Node *resolve_name(ParseState *pstate, ColumnRef *cref);
static void begin_parse(RaExprContext *cxt, const RaNames *names, const char *text,
						RaExprKind kind, Oid owner);
static char *used_objects(Node *expr);
static Node *shadowed_mutator(Node *node, const RaNames *names);
static char *name_params(const RaNames *names, const char *text);


/*
 * Errors with a position in a user's text
 */

static void
text_context_callback(void *arg)
{
	int			position = geterrposition();

	/*
	 * The position counts in our text, not in the query that called us.  As an
	 * internal query the text is shown along with it.
	 */
	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(((RaTextContext *) arg)->text);
	}
}

void
ra_text_context_push(RaTextContext *cxt, const char *text)
{
	cxt->text = text;
	cxt->callback.callback = text_context_callback;
	cxt->callback.arg = cxt;
	cxt->callback.previous = error_context_stack;
	error_context_stack = &cxt->callback;
}

void
ra_text_context_pop(RaTextContext *cxt)
{
	error_context_stack = cxt->callback.previous;
}


/*
 * Parsing
 */

Node *
ra_expr_parse(const RaNames *names, const char *text, RaExprKind kind, Oid owner)
{
	RaExprContext cxt;
	RaTextContext text_cxt;
	Node	   *expr;

	ra_text_context_push(&text_cxt, text);
	begin_parse(&cxt, names, text, kind, owner);
	expr = transform(&cxt, parse_raw(text, kind_names[kind], cxt.pstate));

	if (kind != RA_EXPR_VALUE)
	{
		Oid			type = exprType(expr);
		int			location = exprLocation(expr);

		expr = coerce_to_target_type(cxt.pstate, expr, type, BOOLOID, -1,
									 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
		if (expr == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("%s must be of type boolean, not type %s",
							kind_names[kind], format_type_be(type)),
					 errhint("Write something that is true or false, such as a comparison."),
					 parser_errposition(cxt.pstate, location)));
		assign_expr_collations(cxt.pstate, expr);
	}
	check_walker(expr, &cxt);
	free_parsestate(cxt.pstate);
	ra_text_context_pop(&text_cxt);
	return expr;
}

void
ra_expr_parse_aggregate(const RaNames *names, const char *text, Oid owner,
						RaAggregateFunction *function, Node **value)
{
	RaExprContext cxt;
	RaTextContext text_cxt;
	ParseCallbackState pcbstate;
	FuncCall   *call;
	Node	   *raw;
	const char *name = NULL;
	RaValueClass value_class;
	Oid			type;
	Oid			result_type;
	int			location;

	ra_text_context_push(&text_cxt, text);
	begin_parse(&cxt, names, text, RA_EXPR_VALUE, owner);
	raw = parse_raw(text, "an aggregate", cxt.pstate);

	call = (FuncCall *) raw;
	if (IsA(raw, FuncCall))
	{
		if (list_length(call->funcname) == 1)
			name = strVal(linitial(call->funcname));
		else if (list_length(call->funcname) == 2 &&
				 strcmp(strVal(linitial(call->funcname)), "pg_catalog") == 0)
			name = strVal(lsecond(call->funcname));
	}
	if (name == NULL || !ra_aggregate_by_name(name, function) ||
		*function == RA_AGG_COUNT_DISTINCT)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 IsA(raw, FuncCall) ?
				 errmsg("%s is not an aggregate that features can have",
						NameListToString(call->funcname)) :
				 errmsg("an aggregate must be a single function call"),
				 errhint("Use count(*), count(x), count(DISTINCT x), sum(x), avg(x), stddev(x), variance(x), min(x), max(x), lag(x) or first(x)."),
				 parser_errposition(cxt.pstate, Max(exprLocation(raw), 0))));

	if (call->over != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an aggregate of a feature has no OVER clause"),
				 errhint("The arguments entity and within say what is aggregated."),
				 parser_errposition(cxt.pstate, call->location)));
	if (call->agg_filter != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an aggregate of a feature has no FILTER clause"),
				 errhint("Use the argument filter."),
				 parser_errposition(cxt.pstate, exprLocation(call->agg_filter))));
	if (call->agg_order != NIL || call->agg_within_group)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an aggregate of a feature has no ORDER BY clause"),
				 errhint("Events stand in the order of their time."),
				 parser_errposition(cxt.pstate, call->location)));
	if (call->agg_distinct)
	{
		if (*function != RA_AGG_COUNT || call->agg_star)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("DISTINCT is supported in count(DISTINCT x) only"),
					 parser_errposition(cxt.pstate, call->location)));
		*function = RA_AGG_COUNT_DISTINCT;
	}
	if (call->agg_star ? *function != RA_AGG_COUNT :
		(list_length(call->args) != 1 || call->func_variadic ||
		 IsA(linitial(call->args), NamedArgExpr)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("%s takes exactly one expression as its argument", name),
				 *function == RA_AGG_COUNT ? errhint("Or write count(*) to count events.") : 0,
				 parser_errposition(cxt.pstate, call->location)));

	if (call->agg_star)
	{
		*value = NULL;
		free_parsestate(cxt.pstate);
		ra_text_context_pop(&text_cxt);
		return;
	}

	*value = transform(&cxt, linitial(call->args));
	location = exprLocation(*value);
	type = getBaseType(exprType(*value));

	setup_parser_errposition_callback(&pcbstate, cxt.pstate, location);
	ra_aggregate_types(*function, type, &value_class, &result_type);
	cancel_parser_errposition_callback(&pcbstate);

	/* windows keep real as double precision */
	if (value_class == RA_CLASS_FLOAT8 && type == FLOAT4OID)
	{
		*value = coerce_to_target_type(cxt.pstate, *value, exprType(*value), FLOAT8OID, -1,
									   COERCION_EXPLICIT, COERCE_EXPLICIT_CAST, location);
		assign_expr_collations(cxt.pstate, *value);
	}
	check_walker(*value, &cxt);
	free_parsestate(cxt.pstate);
	ra_text_context_pop(&text_cxt);
}

static void
begin_parse(RaExprContext *cxt, const RaNames *names, const char *text,
			RaExprKind kind, Oid owner)
{
	cxt->names = names;
	cxt->kind = kind;
	cxt->owner = owner;
	cxt->location = -1;
	cxt->pstate = make_parsestate(NULL);
	cxt->pstate->p_sourcetext = text;
	cxt->pstate->p_pre_columnref_hook = resolve_name;
	cxt->pstate->p_ref_hook_state = cxt;

	/*
	 * Our Vars refer to this range table entry; it is not put into the
	 * namespace, since resolve_name() deals with all names.
	 */
	addRangeTableEntryForRelation(cxt->pstate, names->rel, AccessShareLock,
								  NULL, false, false);
}

/*
 * The raw tree of the one expression that text must be
 */
static Node *
parse_raw(const char *text, const char *what, ParseState *pstate)
{
	List	   *statements = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select = (SelectStmt *) linitial_node(RawStmt, statements)->stmt;
	ResTarget  *target;
	Node	   *surplus = NULL;

	Assert(IsA(select, SelectStmt));

	if (select->targetList == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("%s must not be empty", what)));
	target = linitial_node(ResTarget, select->targetList);

	/*
	 * The grammar takes what may follow SELECT.  The error stands where the
	 * surplus begins, as far as we know that.
	 */
	if (list_length(select->targetList) > 1)
		surplus = lsecond(select->targetList);
	else if (select->fromClause != NIL)
		surplus = linitial(select->fromClause);
	else if (select->whereClause != NULL)
		surplus = select->whereClause;
	else if (select->groupClause != NIL)
		surplus = linitial(select->groupClause);
	else if (select->havingClause != NULL)
		surplus = select->havingClause;
	else if (select->windowClause != NIL)
		surplus = linitial(select->windowClause);
	else if (select->sortClause != NIL)
		surplus = linitial(select->sortClause);
	else if (select->limitOffset != NULL)
		surplus = select->limitOffset;
	else if (select->limitCount != NULL)
		surplus = select->limitCount;
	else if (select->lockingClause != NIL)
		surplus = linitial(select->lockingClause);
	else if (select->distinctClause != NIL || select->op != SETOP_NONE ||
			 target->name != NULL || target->indirection != NIL)
		surplus = (Node *) target;

	if (surplus != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("%s must be a single expression", what),
				 parser_errposition(pstate, exprLocation(surplus))));
	return target->val;
}

static Node *
transform(RaExprContext *cxt, Node *raw)
{
	Node	   *expr;

	check_raw_walker(raw, cxt);
	expr = transformExpr(cxt->pstate, raw, EXPR_KIND_OTHER);

	/* a string or NULL of no particular type, as a SELECT would take it */
	if (exprType(expr) == UNKNOWNOID && cxt->kind == RA_EXPR_VALUE)
		expr = coerce_type(cxt->pstate, expr, UNKNOWNOID, TEXTOID, -1,
						   COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, -1);
	assign_expr_collations(cxt->pstate, expr);
	return expr;
}

/*
 * Column-reference hook: what a name means.  Never leaves it to the parser,
 * which knows no tables here.
 *
 * In conditions a feature goes before a column of the same name, which can only
 * have been added (or renamed so) later: rules keep their meaning.  event.name and
 * tablename.name are always columns.
 */
static Node *
resolve_name(ParseState *pstate, ColumnRef *cref)
{
	RaExprContext *cxt = pstate->p_ref_hook_state;
	const RaNames *names = cxt->names;
	Relation	rel = names->rel;
	const char *relname = RelationGetRelationName(rel);
	int			nfields = list_length(cref->fields);
	Node	   *last = llast(cref->fields);
	const char *name;
	AttrNumber	attno;
	int			feature;
	char	   *hint;

	if (IsA(last, A_Star))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot use whole rows", kind_names[cxt->kind]),
				 errhint("Name the columns."),
				 parser_errposition(pstate, cref->location)));
	name = strVal(last);

	if (nfields > 1)
	{
		const char *first = strVal(linitial(cref->fields));
		const char *nspname = get_namespace_name(RelationGetNamespace(rel));
		bool		known;

		known = (nfields == 2 &&
				 (strcmp(first, relname) == 0 || strcmp(first, RA_ROW_ALIAS) == 0)) ||
			(nfields == 3 && nspname != NULL && strcmp(first, nspname) == 0 &&
			 strcmp(strVal(lsecond(cref->fields)), relname) == 0);
		if (!known)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("%s cannot refer to %s", kind_names[cxt->kind],
							NameListToString(cref->fields)),
					 nfields == 2 && ra_column_by_name(rel, first) != 0 ?
					 errhint("To take a field of column %s, write (%s).%s.",
							 first, quote_identifier(first), quote_identifier(name)) :
					 errhint("Only columns of table \"%s\" can be used: %s.column or %s.column.",
							 relname, quote_identifier(relname), RA_ROW_ALIAS),
					 parser_errposition(pstate, cref->location)));
	}

	feature = (nfields == 1) ? ra_feature_by_name(names, name) : -1;
	if (feature >= 0 && cxt->kind == RA_EXPR_CONDITION)
	{
		RaFeatureName *f = &names->features[feature];
		Param	   *param;

		if (f->error != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("feature \"%s\" cannot be computed: %s", name, f->error),
					 parser_errposition(pstate, cref->location)));
		param = makeNode(Param);
		param->paramkind = PARAM_EXTERN;
		param->paramid = feature + 1;
		param->paramtype = f->type;
		param->paramtypmod = -1;
		param->paramcollid = get_typcollation(f->type);
		param->location = cref->location;
		return (Node *) param;
	}

	attno = ra_column_by_name(rel, name);
	if (attno != 0)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
		Var		   *var = makeVar(1, attno, att->atttypid, att->atttypmod,
								  att->attcollation, 0);

		var->location = cref->location;
		return (Node *) var;
	}

	if (SystemAttributeByName(name) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot use system column \"%s\"", kind_names[cxt->kind], name),
				 parser_errposition(pstate, cref->location)));
	if (nfields == 1 && (strcmp(name, relname) == 0 || strcmp(name, RA_ROW_ALIAS) == 0))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot use whole rows", kind_names[cxt->kind]),
				 errhint("Name the columns."),
				 parser_errposition(pstate, cref->location)));
	if (feature >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot use feature \"%s\"", kind_names[cxt->kind], name),
				 errdetail("A feature aggregates columns of the table; only conditions of rules use features."),
				 parser_errposition(pstate, cref->location)));

	hint = ra_similar_names(names, name, cxt->kind == RA_EXPR_CONDITION && nfields == 1);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 cxt->kind == RA_EXPR_CONDITION && nfields == 1 ?
			 errmsg("\"%s\" is neither a column of table \"%s\" nor a feature of its stream",
					name, relname) :
			 errmsg("column \"%s\" of table \"%s\" does not exist", name, relname),
			 hint != NULL ? errhint("%s", hint) :
			 cxt->kind == RA_EXPR_CONDITION ?
			 errhint("The view risk_alert.features lists the features.") : 0,
			 parser_errposition(pstate, cref->location)));
	return NULL;				/* keep compiler quiet */
}


/*
 * Checks
 */

/*
 * What is better refused before parse analysis: it has a position here, and
 * analysis would complain in terms of other commands
 */
static bool
check_raw_walker(Node *node, RaExprContext *cxt)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot contain a sub-select", kind_names[cxt->kind]),
				 cxt->kind == RA_EXPR_CONDITION ?
				 errhint("Use a feature for what other events say, in_list() for what lists say.") : 0,
				 parser_errposition(cxt->pstate, exprLocation(node))));
	if (IsA(node, ParamRef))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_PARAMETER),
				 errmsg("%s has no parameters", kind_names[cxt->kind]),
				 parser_errposition(cxt->pstate, exprLocation(node))));
	if (IsA(node, FuncCall) && ((FuncCall *) node)->over != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WINDOWING_ERROR),
				 errmsg("%s cannot call window functions", kind_names[cxt->kind]),
				 cxt->kind == RA_EXPR_CONDITION ?
				 errhint("Create a feature and use its name.") : 0,
				 parser_errposition(cxt->pstate, exprLocation(node))));
	return raw_expression_tree_walker(node, check_raw_walker, (void *) cxt);
}

static bool
check_walker(Node *node, RaExprContext *cxt)
{
	Oid			opno = InvalidOid;
	bool		returns_set = false;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Aggref:
		case T_GroupingFunc:
			ereport(ERROR,
					(errcode(ERRCODE_GROUPING_ERROR),
					 errmsg("%s cannot call aggregate functions", kind_names[cxt->kind]),
					 cxt->kind == RA_EXPR_CONDITION ?
					 errhint("Create a feature and use its name.") : 0,
					 parser_errposition(cxt->pstate, exprLocation(node))));
			break;
		case T_Var:
			ra_check_column_rights(cxt->names->rel, ((Var *) node)->varattno, cxt->owner);
			return false;
		case T_FuncExpr:
			returns_set = ((FuncExpr *) node)->funcretset;
			break;
		case T_OpExpr:
			opno = ((OpExpr *) node)->opno;
			returns_set = ((OpExpr *) node)->opretset;
			break;
		case T_DistinctExpr:
		case T_NullIfExpr:
			opno = ((OpExpr *) node)->opno;
			break;
		case T_ScalarArrayOpExpr:
			opno = ((ScalarArrayOpExpr *) node)->opno;
			break;
		case T_SQLValueFunction:
			if (cxt->kind != RA_EXPR_CONDITION)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
						 errmsg("%s must depend on nothing but the event's row",
								kind_names[cxt->kind]),
						 errhint("A window's events are looked at again and again; use the event's own time."),
						 parser_errposition(cxt->pstate, exprLocation(node))));
			break;
		case T_SubLink:
		case T_SubPlan:
		case T_WindowFunc:
		case T_NextValueExpr:
		case T_CurrentOfExpr:
		case T_SetToDefault:
			elog(ERROR, "unexpected node in an expression: %d", (int) nodeTag(node));
			break;
		default:
			break;
	}

	cxt->location = exprLocation(node);
	if (returns_set)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot call set-returning functions", kind_names[cxt->kind]),
				 parser_errposition(cxt->pstate, cxt->location)));
	if (OidIsValid(opno))
		check_not_temporary(cxt, OperatorRelationId, opno);
	check_functions_in_node(node, check_function, cxt);

	switch (nodeTag(node))
	{
		case T_Const:
		case T_RelabelType:
		case T_ConvertRowtypeExpr:
		case T_RowExpr:
			check_not_temporary(cxt, TypeRelationId, exprType(node));
			break;
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_CoerceToDomain:
			check_not_temporary(cxt, TypeRelationId, exprType(node));
			check_domain(cxt, exprType(node));
			break;
		default:
			break;
	}
	return expression_tree_walker(node, check_walker, (void *) cxt);
}

/*
 * Callback for each function that an expression calls, by whatever syntax
 */
static bool
check_function(Oid funcid, void *context)
{
	RaExprContext *cxt = context;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Form_pg_proc proc;
	char		volatility;
	Oid			funcowner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	volatility = proc->provolatile;
	funcowner = proc->proowner;
	ReleaseSysCache(tuple);

	if (volatility == PROVOLATILE_VOLATILE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("%s cannot call volatile function %s",
						kind_names[cxt->kind], format_procedure(funcid)),
				 errhint("Only functions that are declared IMMUTABLE or STABLE can be used."),
				 parser_errposition(cxt->pstate, cxt->location)));

	/* what we provide is not for rules, risk_score() of a rule's own stream least of all */
	if (get_func_namespace(funcid) == get_namespace_oid("risk_alert", true) &&
		strcmp(get_func_name(funcid), "in_list") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("%s cannot call function %s", kind_names[cxt->kind], format_procedure(funcid)),
				 errdetail("Of schema risk_alert only in_list() is meant for rules."),
				 parser_errposition(cxt->pstate, cxt->location)));

	/*
	 * A window is built from the table at any time, so what counts in it must
	 * not depend on when or by whom that is done.  Stable functions of
	 * pg_catalog mostly depend on settings, which are fixed here.
	 */
	if (cxt->kind != RA_EXPR_CONDITION && volatility == PROVOLATILE_STABLE &&
		(funcid >= FirstNormalObjectId ||
		 funcid == F_NOW || funcid == F_TRANSACTION_TIMESTAMP ||
		 funcid == F_STATEMENT_TIMESTAMP || funcid == F_AGE_TIMESTAMPTZ ||
		 funcid == F_AGE_TIMESTAMP || funcid == F_AGE_XID))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("%s cannot call function %s, which is not immutable",
						kind_names[cxt->kind], format_procedure(funcid)),
				 errdetail("What counts in a window must depend on nothing but the event's row."),
				 errhint("Use the function in a rule's condition, or declare it IMMUTABLE if it is."),
				 parser_errposition(cxt->pstate, cxt->location)));

	if (!ra_may_execute(funcid, cxt->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", format_procedure(funcid)),
				 errdetail("It would run with the rights of role %s.",
						   GetUserNameFromId(cxt->owner, false)),
				 parser_errposition(cxt->pstate, cxt->location)));

	/*
	 * The function's owner can change what it does, and so would act with the
	 * rights of the rule's owner.  Among ordinary roles that is a matter of
	 * trust, as with any function that one calls; but handing out superuser
	 * rights must not happen by accident.
	 */
	if (!ra_allow_superuser_rules && superuser_arg(cxt->owner) && !superuser_arg(funcowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a superuser's rule or feature cannot call function %s, which is owned by role %s",
						format_procedure(funcid), GetUserNameFromId(funcowner, true)),
				 errdetail("That role could make it do anything with superuser rights."),
				 errhint("Let a role without superuser rights create it, or set risk_alert.allow_superuser_rules."),
				 parser_errposition(cxt->pstate, cxt->location)));

	check_not_temporary(cxt, ProcedureRelationId, funcid);
	return false;
}

/*
 * Temporary objects go away with the session, rules don't
 */
static void
check_not_temporary(RaExprContext *cxt, Oid classid, Oid objid)
{
	ObjectAddress address;

	if (objid < FirstNormalObjectId)
		return;
	ObjectAddressSet(address, classid, objid);
	if (isAnyTempNamespace(get_object_namespace(&address)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("%s cannot use temporary objects", kind_names[cxt->kind]),
				 errdetail("They go away with the session."),
				 parser_errposition(cxt->pstate, cxt->location)));
}

/*
 * Conversion to a domain runs its constraints
 */
static void
check_domain(RaExprContext *cxt, Oid type)
{
	Oid			element = get_base_element_type(type);
	DomainConstraintRef *ref;
	ListCell   *lc;

	if (OidIsValid(element))
		type = element;
	if (get_typtype(type) != TYPTYPE_DOMAIN)
		return;
	ref = palloc0(sizeof(DomainConstraintRef));
	InitDomainConstraintRef(type, ref, CurrentMemoryContext, false);
	foreach(lc, ref->constraints)
	{
		DomainConstraintState *constraint = lfirst(lc);

		if (constraint->check_expr != NULL)
			check_walker((Node *) constraint->check_expr, cxt);
	}
}

/*
 * Rules tell their readers about the values they see
 */
void
ra_check_column_rights(Relation rel, AttrNumber attno, Oid role)
{
	Oid			relid = RelationGetRelid(rel);

	if (pg_class_aclcheck(relid, role, ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck(relid, attno, role, ACL_SELECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for column \"%s\" of table \"%s\"",
						NameStr(TupleDescAttr(RelationGetDescr(rel), attno - 1)->attname),
						RelationGetRelationName(rel)),
				 errhint("Role %s needs the right to SELECT it.",
						 quote_identifier(GetUserNameFromId(role, false)))));
}


/*
 * Printing
 */

char *
ra_expr_print(const RaNames *names, Node *expr, RaExprKind kind)
{
	int			nestlevel = ra_settings_enter();
	char	   *text;

	if (kind == RA_EXPR_CONDITION)
		expr = shadowed_mutator(expr, names);
	text = deparse_expression(expr,
							  deparse_context_for(RelationGetRelationName(names->rel),
												  RelationGetRelid(names->rel)),
							  false, false);
	text = name_params(names, text);
	ra_settings_leave(nestlevel);
	return text;
}

char *
ra_expr_canonical(const RaNames *names, Node *expr, RaExprKind kind, Oid owner)
{
	char	   *text = ra_expr_print(names, expr, kind);
	int			nestlevel = ra_settings_enter();
	Node	   *again = ra_expr_parse(names, text, kind, owner);

	ra_settings_leave(nestlevel);

	/*
	 * Text that is read differently would make the rule mean something else
	 * than its author wrote.  Some syntax names no operator (IS DISTINCT FROM,
	 * NULLIF, CASE x WHEN y, comparison of rows), so an operator of another schema
	 * than pg_catalog gets lost.  Trees may differ in harmless ways, such as in how
	 * ANDs are nested or where a constant is converted, but not in what they use.
	 */
	if (!equal(expr, again) && strcmp(used_objects(expr), used_objects(again)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot be stored in this form", kind_names[kind]),
				 errdetail("It would be read back differently: %s", text),
				 errhint("Operators of other schemas than pg_catalog can't be meant by IS DISTINCT FROM, NULLIF, CASE or a comparison of rows: use them explicitly.")));
	return text;
}

static bool
used_function(Oid funcid, void *objects)
{
	*(List **) objects = lappend(*(List **) objects, psprintf("function %u", funcid));
	return false;
}

static bool
used_objects_walker(Node *node, List **objects)
{
	char	   *object = NULL;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		object = psprintf("column %d", ((Var *) node)->varattno);
	else if (IsA(node, Param))
		object = psprintf("feature %d", ((Param *) node)->paramid);
	else if (IsA(node, Const))
	{
		Const	   *con = copyObject((Const *) node);

		con->consttypmod = -1;
		con->location = -1;
		object = nodeToString(con);
	}
	if (object != NULL)
		*objects = lappend(*objects, object);
	check_functions_in_node(node, used_function, objects);
	return expression_tree_walker(node, used_objects_walker, (void *) objects);
}

static int
compare_strings(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/*
 * The functions, constants and names that occur in a tree, each once
 */
static char *
used_objects(Node *expr)
{
	List	   *objects = NIL;
	const char *last = "";
	StringInfoData buf;
	ListCell   *lc;

	used_objects_walker(expr, &objects);
	list_sort(objects, compare_strings);
	initStringInfo(&buf);
	foreach(lc, objects)
	{
		if (strcmp(lfirst(lc), last) != 0)
			appendStringInfo(&buf, "%s\n", (char *) lfirst(lc));
		last = lfirst(lc);
	}
	return buf.data;
}

/*
 * Columns that have a feature's name are printed as event.name: let them be
 * Params with numbers behind the features' ones until name_params().
 */
static Node *
shadowed_mutator(Node *node, const RaNames *names)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(names->rel), var->varattno - 1);

		if (ra_feature_by_name(names, NameStr(att->attname)) >= 0)
		{
			Param	   *param = makeNode(Param);

			param->paramkind = PARAM_EXTERN;
			param->paramid = names->nfeatures + var->varattno;
			param->paramtype = var->vartype;
			param->paramtypmod = var->vartypmod;
			param->paramcollid = var->varcollid;
			param->location = -1;
			return (Node *) param;
		}
	}
	return expression_tree_mutator(node, shadowed_mutator, (void *) names);
}

/*
 * Replace $n by the feature's name, and drop parentheses around the whole.
 * The scanner knows what is a string and what isn't.
 */
static char *
name_params(const RaNames *names, const char *text)
{
	/* numbers of tokens that any parser with this scanner has, see scanner.h */
	enum
	{
		TOKEN_PARAM = 267
	};
	core_yyscan_t scanner;
	core_yy_extra_type extra;
	core_YYSTYPE value;
	YYLTYPE		location;
	StringInfoData buf;
	int			token;
	int			copied = 0;
	int			depth = 0;
	int			last = -1;		/* where the last token is, and ... */
	int			closed = -1;	/* ... the parenthesis that matches the first token */
	bool		strip;

	initStringInfo(&buf);
	scanner = scanner_init(text, &extra, &ScanKeywords, ScanKeywordTokens);
	while ((token = core_yylex(&value, &location, scanner)) != 0)
	{
		last = location;
		if (token == '(')
			depth++;
		else if (token == ')')
		{
			depth--;
			if (depth == 0 && closed < 0)
				closed = location;
		}
		else if (token == TOKEN_PARAM)
		{
			int			end = location + 1;
			const char *name;

			appendBinaryStringInfo(&buf, text + copied, location - copied);
			while (text[end] >= '0' && text[end] <= '9')
				end++;
			copied = end;

			if (value.ival > names->nfeatures)
			{
				AttrNumber	attno = value.ival - names->nfeatures;

				name = NameStr(TupleDescAttr(RelationGetDescr(names->rel), attno - 1)->attname);
				appendStringInfo(&buf, "%s.%s", RA_ROW_ALIAS, quote_identifier(name));
			}
			else
				appendStringInfoString(&buf,
									   quote_identifier(names->features[value.ival - 1].name));
		}
	}
	scanner_finish(scanner);
	appendStringInfoString(&buf, text + copied);

	strip = (text[0] == '(' && closed >= 0 && closed == last && text[last + 1] == '\0');
	if (strip)
	{
		buf.data[buf.len - 1] = '\0';
		return buf.data + 1;
	}
	return buf.data;
}
