/*
 * columns.c
 *	  Columns that windows are kept for, and how long they are.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "engine/hash.h"
#include "engine/load.h"

/*
 * A set of columns, in the current context
 */
RaColumns
ra_columns_build(Relation rel, int n, const AttrNumber *attnos)
{
	TupleDesc	desc = RelationGetDescr(rel);
	RaColumns	columns;

	columns.n = n;
	columns.attnos = palloc(n * sizeof(AttrNumber));
	columns.types = palloc(n * sizeof(Oid));
	columns.collations = palloc(n * sizeof(Oid));
	columns.hash = palloc0(n * sizeof(FmgrInfo));
	columns.output = palloc0(n * sizeof(FmgrInfo));
	columns.names = palloc(n * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, attnos[i] - 1);
		Oid			output;
		bool		varlena;

		columns.attnos[i] = attnos[i];
		columns.types[i] = getBaseType(att->atttypid);
		columns.collations[i] = att->attcollation;
		columns.names[i] = pstrdup(NameStr(att->attname));
		ra_hash_lookup(columns.types[i], &columns.hash[i], CurrentMemoryContext);
		getTypeOutputInfo(columns.types[i], &output, &varlena);
		fmgr_info(output, &columns.output[i]);
	}
	return columns;
}

void
ra_check_within(const Interval *within, int64 *span, int32 *span_months)
{
	const int64 longest = INT64CONST(3653) * USECS_PER_DAY; /* 10 years */
	bool		negative = within->month < 0 || within->day < 0 || within->time < 0;
	bool		too_long = within->month > 120 || within->day > 3653 || within->time > longest;

	*span = 0;
	*span_months = 0;
	if (!negative && !too_long)
	{
		*span_months = within->month;
		*span = within->day * USECS_PER_DAY + within->time;
		too_long = *span + (within->month * longest) / 120 > longest;
	}
	if (negative || too_long || (*span_months == 0 && *span < USECS_PER_SEC))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 negative ? errmsg("within must be positive in all its parts") :
				 too_long ? errmsg("within must be at most 10 years") :
				 errmsg("within must be at least 1 second"),
				 errdetail("It is %s.", DatumGetCString(DirectFunctionCall1(interval_out,
																			IntervalPGetDatum(within)))),
				 errhint("Use an interval such as '1 hour' or '30 days'.")));
}

void
ra_check_entity_column(Relation rel, AttrNumber attno)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
	Oid			type = getBaseType(att->atttypid);
	TypeCacheEntry *typcache;

	/* entities are read from the table by arrays of their values, and shown as text */
	if (type_is_rowtype(type) || !OidIsValid(get_array_type(type)))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" cannot be an entity: type %s is composed of other values",
						NameStr(att->attname), format_type_be(att->atttypid)),
				 errdetail("An entity is a single value, or several columns."),
				 errhint("Use a column of another type, such as one generated from a part of this one.")));

	typcache = lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC | TYPECACHE_EQ_OPR);
	if (!OidIsValid(typcache->hash_extended_proc) || !OidIsValid(typcache->eq_opr))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" cannot be an entity: values of type %s cannot be hashed",
						NameStr(att->attname), format_type_be(att->atttypid)),
				 errhint("Use a column of another type, such as text or bigint.")));
}

void
ra_check_lookup(Relation rel, int n, const AttrNumber *entity, const AttrNumber *lookup)
{
	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute e = TupleDescAttr(RelationGetDescr(rel), entity[i] - 1);
		Form_pg_attribute l = TupleDescAttr(RelationGetDescr(rel), lookup[i] - 1);
		Oid			etype = getBaseType(e->atttypid);
		Oid			ltype = getBaseType(l->atttypid);

		if (etype == VARCHAROID)
			etype = TEXTOID;
		if (ltype == VARCHAROID)
			ltype = TEXTOID;
		if (etype != ltype || e->attcollation != l->attcollation)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("lookup column \"%s\" cannot stand for entity column \"%s\"",
							NameStr(l->attname), NameStr(e->attname)),
					 errdetail("Its type is %s, the other's %s.",
							   format_type_be(l->atttypid), format_type_be(e->atttypid)),
					 errhint("Both columns must have the same type and collation.")));
	}
}

static bool
is_btree(Oid indexid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(indexid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_class) GETSTRUCT(tuple))->relam == BTREE_AM_OID;
	ReleaseSysCache(tuple);
	return result;
}

bool
ra_entity_has_index(Relation rel, int n, const AttrNumber *attnos, AttrNumber time_attno)
{
	List	   *indexes = RelationGetIndexList(rel);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Oid			indexid = lfirst_oid(lc);
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (index->indisvalid && index->indisready && index->indislive &&
			index->indnkeyatts > n && index->indkey.values[n] == time_attno &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
			is_btree(indexid))
		{
			int			matched = 0;

			for (int i = 0; i < n; i++)
			{
				for (int j = 0; j < n; j++)
				{
					if (index->indkey.values[j] == attnos[i])
					{
						matched++;
						break;
					}
				}
			}
			found = matched == n;
		}
		ReleaseSysCache(tuple);
		if (found)
			break;
	}
	list_free(indexes);
	return found;
}
