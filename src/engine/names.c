/*
 * names.c
 *	  What names and aggregates in users' expressions stand for.
 *
 * Small questions that expr.c and its callers ask: which column or feature has
 * a name, which names are like a wrong one, which types an aggregate takes.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "engine/expr.h"

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
