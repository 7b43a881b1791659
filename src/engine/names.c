/*
 * names.c
 *	  What names and aggregates in users' expressions stand for.
 *
 * Small questions that expr.c and its callers ask: which column or feature has
 * a name, which names are like a wrong one, which types an aggregate takes.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "engine/expr.h"
#include "engine/load.h"

static const struct
{
	const char *name;			/* as stored */
	const char *sql;			/* as written, if different */
	const char *alias;			/* also accepted */
}			aggregates[] = {
	[RA_AGG_COUNT] = {"count", NULL, NULL},
	[RA_AGG_COUNT_DISTINCT] = {"count_distinct", "count(DISTINCT ...)", NULL},
	[RA_AGG_SUM] = {"sum", NULL, NULL},
	[RA_AGG_AVG] = {"avg", NULL, NULL},
	[RA_AGG_STDDEV] = {"stddev", NULL, "stddev_samp"},
	[RA_AGG_VARIANCE] = {"variance", NULL, "var_samp"},
	[RA_AGG_MIN] = {"min", NULL, NULL},
	[RA_AGG_MAX] = {"max", NULL, NULL},
	[RA_AGG_LAG] = {"lag", NULL, NULL},
	[RA_AGG_FIRST] = {"first", NULL, NULL}
};


/*
 * What a tree refers to
 */

static bool
columns_walker(Node *node, Bitmapset **attnos)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		*attnos = bms_add_member(*attnos, ((Var *) node)->varattno);
		return false;
	}
	return expression_tree_walker(node, columns_walker, (void *) attnos);
}

Bitmapset *
ra_expr_columns(Node *expr, Bitmapset *attnos)
{
	columns_walker(expr, &attnos);
	return attnos;
}

static bool
first_feature_walker(Node *node, int *feature)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
	{
		*feature = ((Param *) node)->paramid - 1;
		return true;
	}
	return expression_tree_walker(node, first_feature_walker, (void *) feature);
}

int
ra_expr_first_feature(Node *expr)
{
	int			feature = -1;

	first_feature_walker(expr, &feature);
	return feature;
}

static bool
feature_walker(Node *node, int *feature)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
		return ((Param *) node)->paramid - 1 == *feature;
	return expression_tree_walker(node, feature_walker, (void *) feature);
}

bool
ra_expr_uses_feature(Node *expr, int feature)
{
	return feature_walker(expr, &feature);
}


/*
 * Aggregates
 */

const char *
ra_aggregate_name(RaAggregateFunction function)
{
	return aggregates[function].name;
}

bool
ra_aggregate_by_name(const char *name, RaAggregateFunction *function)
{
	for (int i = 0; i < lengthof(aggregates); i++)
	{
		if (strcmp(name, aggregates[i].name) == 0 ||
			(aggregates[i].alias != NULL && strcmp(name, aggregates[i].alias) == 0))
		{
			*function = (RaAggregateFunction) i;
			return true;
		}
	}
	return false;
}

void
ra_aggregate_types(RaAggregateFunction function, Oid type,
				   RaValueClass *value_class, Oid *result_type)
{
	const char *hint = NULL;

	*value_class = RA_CLASS_NONE;
	*result_type = InvalidOid;

	switch (function)
	{
		case RA_AGG_COUNT:
			*result_type = INT8OID;
			return;

		case RA_AGG_COUNT_DISTINCT:
			if (OidIsValid(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc))
			{
				*value_class = RA_CLASS_HASH;
				*result_type = INT8OID;
			}
			else
				hint = "Convert the value to a type that can be hashed, such as text.";
			break;

		case RA_AGG_LAG:
		case RA_AGG_FIRST:
			if (get_typtype(type) != TYPTYPE_PSEUDO)
			{
				*value_class = get_typbyval(type) ? RA_CLASS_WORD : RA_CLASS_BYTES;
				*result_type = type;
			}
			else
				hint = "Convert the value to a type that tables can have.";
			break;

		case RA_AGG_MIN:
		case RA_AGG_MAX:
			if (type == DATEOID)
				*value_class = RA_CLASS_DATE;
			else if (type == TIMESTAMPOID || type == TIMESTAMPTZOID)
				*value_class = RA_CLASS_TIMESTAMP;
			if (*value_class != RA_CLASS_NONE)
			{
				*result_type = type;
				break;
			}
			/* FALLTHROUGH */
		case RA_AGG_SUM:
		case RA_AGG_AVG:
		case RA_AGG_STDDEV:
		case RA_AGG_VARIANCE:
			switch (type)
			{
				case INT2OID:
					*value_class = RA_CLASS_INT2;
					break;
				case INT4OID:
					*value_class = RA_CLASS_INT4;
					break;
				case INT8OID:
					*value_class = RA_CLASS_INT8;
					break;
				case NUMERICOID:
					*value_class = RA_CLASS_NUMERIC;
					break;
				case FLOAT4OID:
				case FLOAT8OID:
					*value_class = RA_CLASS_FLOAT8;
					break;
				default:
					if (function == RA_AGG_MIN || function == RA_AGG_MAX)
						hint = "It takes numbers, dates and timestamps.";
					else
						hint = "It takes numbers: smallint, integer, bigint, numeric, real and double precision.";
					break;
			}
			if (hint != NULL)
				break;
			if (*value_class == RA_CLASS_FLOAT8)
				*result_type = FLOAT8OID;
			else if (function == RA_AGG_MIN || function == RA_AGG_MAX)
				*result_type = type;
			else if (function == RA_AGG_SUM && (type == INT2OID || type == INT4OID))
				*result_type = INT8OID;
			else
				*result_type = NUMERICOID;
			break;
	}

	if (hint != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s cannot aggregate values of type %s",
						aggregates[function].sql != NULL ? aggregates[function].sql : aggregates[function].name,
						format_type_be(type)),
				 errhint("%s", hint)));
}

static int
max_scale(List *args)
{
	int			scale = 0;
	ListCell   *lc;

	foreach(lc, args)
	{
		int			of_arg = ra_expr_scale(lfirst(lc));

		if (of_arg < 0)
			return -1;
		scale = Max(scale, of_arg);
	}
	return scale;
}

/*
 * How many decimals a numeric expression's values have at most, as numeric's
 * own functions choose them; -1 if that can't be told.
 */
int
ra_expr_scale(Node *expr)
{
	int32		typmod = exprTypmod(expr);
	Oid			funcid = InvalidOid;
	List	   *args = NIL;

	if (getBaseTypeAndTypmod(exprType(expr), &typmod) == NUMERICOID &&
		typmod >= (int32) VARHDRSZ)
	{
		/* as numeric_typmod_scale(): 11 bits, signed */
		int			scale = (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;

		return Max(scale, 0);
	}

	switch (nodeTag(expr))
	{
		case T_Const:
			{
				Const	   *con = (Const *) expr;
				char	   *point;

				if (con->constisnull)
					return 0;
				if (con->consttype != NUMERICOID)
					return -1;
				point = strchr(DatumGetCString(DirectFunctionCall1(numeric_out, con->constvalue)), '.');
				return point == NULL ? 0 : (int) strlen(point + 1);
			}
		case T_RelabelType:
			return ra_expr_scale((Node *) ((RelabelType *) expr)->arg);
		case T_CoerceToDomain:
			return ra_expr_scale((Node *) ((CoerceToDomain *) expr)->arg);
		case T_CoalesceExpr:
			return max_scale(((CoalesceExpr *) expr)->args);
		case T_MinMaxExpr:
			return max_scale(((MinMaxExpr *) expr)->args);
		case T_NullIfExpr:
			return ra_expr_scale(linitial(((NullIfExpr *) expr)->args));
		case T_CaseExpr:
			{
				CaseExpr   *c = (CaseExpr *) expr;
				ListCell   *lc;

				foreach(lc, c->args)
					args = lappend(args, lfirst_node(CaseWhen, lc)->result);
				if (c->defresult != NULL)
					args = lappend(args, c->defresult);
				return max_scale(args);
			}
		case T_FuncExpr:
			funcid = ((FuncExpr *) expr)->funcid;
			args = ((FuncExpr *) expr)->args;
			break;
		case T_OpExpr:
			funcid = ((OpExpr *) expr)->opfuncid;
			if (!OidIsValid(funcid))
				funcid = get_opcode(((OpExpr *) expr)->opno);
			args = ((OpExpr *) expr)->args;
			break;
		default:
			return -1;
	}

	switch (funcid)
	{
		case F_NUMERIC_INT2:
		case F_NUMERIC_INT4:
		case F_NUMERIC_INT8:
		case F_ROUND_NUMERIC:
		case F_TRUNC_NUMERIC:
		case F_CEIL_NUMERIC:
		case F_CEILING_NUMERIC:
		case F_FLOOR_NUMERIC:
		case F_SIGN_NUMERIC:
			return 0;
		case F_ROUND_NUMERIC_INT4:
		case F_TRUNC_NUMERIC_INT4:
			if (IsA(lsecond(args), Const) && !((Const *) lsecond(args))->constisnull)
				return Max(DatumGetInt32(((Const *) lsecond(args))->constvalue), 0);
			return -1;
		case F_NUMERIC_ADD:
		case F_NUMERIC_SUB:
		case F_NUMERIC_MOD:
		case F_MOD_NUMERIC_NUMERIC:
		case F_NUMERIC_UMINUS:
		case F_NUMERIC_UPLUS:
		case F_NUMERIC_ABS:
		case F_ABS_NUMERIC:
			return max_scale(args);
		case F_NUMERIC_MUL:
			{
				int			left = ra_expr_scale(linitial(args));
				int			right = ra_expr_scale(lsecond(args));

				return left < 0 || right < 0 ? -1 : left + right;
			}
		default:
			return -1;
	}
}


/*
 * Names
 */

AttrNumber
ra_column_by_name(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || strcmp(NameStr(att->attname), name) != 0)
			continue;
		if (ra_attribute_is_virtual(att))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" of table \"%s\" is a virtual generated column",
							name, RelationGetRelationName(rel)),
					 errdetail("Its value is not there when a row is captured."),
					 errhint("Use the expression that it is generated from, or make it STORED.")));
		return att->attnum;
	}
	return 0;
}

int
ra_feature_by_name(const RaNames *names, const char *name)
{
	for (int i = 0; i < names->nfeatures; i++)
	{
		if (strcmp(names->features[i].name, name) == 0)
			return i;
	}
	return -1;
}

/*
 * How unlike two names are, or a large number if they have nothing in common
 */
static int
name_distance(const char *name, const char *candidate)
{
	int			len = strlen(name);
	int			limit = len / 3 + 1;
	int			distance;

	if (pg_strcasecmp(name, candidate) == 0)
		return 0;
	if (len >= 3 && (strncmp(name, candidate, len) == 0 || strstr(candidate, name) != NULL))
		return limit;
	distance = varstr_levenshtein_less_equal(name, len, candidate, strlen(candidate),
											 1, 1, 1, limit, true);
	return distance <= limit && distance < len ? distance : INT_MAX;
}

char *
ra_similar_names(const RaNames *names, const char *name, bool with_features)
{
	TupleDesc	desc = RelationGetDescr(names->rel);
	const char *best[3];
	int			distances[3];
	int			n = 0;
	StringInfoData buf;

	if (strlen(name) >= NAMEDATALEN)
		return NULL;

	for (int i = 0; i < desc->natts + (with_features ? names->nfeatures : 0); i++)
	{
		const char *candidate;
		int			distance;
		int			place;

		if (i >= desc->natts)
			candidate = names->features[i - desc->natts].name;
		else if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		else
			candidate = NameStr(TupleDescAttr(desc, i)->attname);

		distance = name_distance(name, candidate);
		if (distance == INT_MAX)
			continue;
		for (place = n; place > 0 && distances[place - 1] > distance; place--)
		{
			if (place < lengthof(best))
			{
				best[place] = best[place - 1];
				distances[place] = distances[place - 1];
			}
		}
		if (place < lengthof(best))
		{
			best[place] = candidate;
			distances[place] = distance;
			n = Min(n + 1, lengthof(best));
		}
	}
	if (n == 0)
		return NULL;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "Perhaps you mean ");
	for (int i = 0; i < n; i++)
		appendStringInfo(&buf, "%s%s", i == 0 ? "" : i == n - 1 ? " or " : ", ",
						 quote_identifier(best[i]));
	appendStringInfoChar(&buf, '.');
	return buf.data;
}

void
ra_names_load(const RaStreamRow *stream, List *feature_rows, RaNames *names)
{
	ListCell   *lc;

	names->rel = try_relation_open(stream->relid, AccessShareLock);
	if (names->rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table of stream \"%s\" no longer exists", stream->name),
				 errhint("Forget the stream with risk_alert.unwatch().")));
	names->nfeatures = list_length(feature_rows);
	names->features = palloc0(Max(names->nfeatures, 1) * sizeof(RaFeatureName));
	foreach(lc, feature_rows)
	{
		RaFeatureRow *row = lfirst(lc);
		RaFeatureName *name = &names->features[foreach_current_index(lc)];

		name->name = row->name;
		name->type = row->result_type;
		name->slot = foreach_current_index(lc);
	}
}
