/*
 * config.c
 *	  Reading the configuration tables.
 *
 * The tables are small and read rarely, and by sessions that have no rights on
 * them (risk_score() by anybody): so by plain scans, without SPI.  Columns are
 * addressed by number as in sql/install; an upgrade script may only append to
 * them.
 *
 * The scans use the catalog snapshot, which for tables that are no catalogs is
 * taken anew each time: what is committed now, and what this transaction has
 * done, whatever its isolation level.  An older snapshot could show the
 * configuration from before the change whose invalidation we are acting on,
 * and there would be no second one.  What belongs together is read with one
 * and the same snapshot (ra_config_snapshot()): a change that is committed in between
 * would be half seen.
 *
 * Readers take no locks beyond the tables' own; who writes the configuration of
 * a stream holds the lock of its row.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "engine/config.h"
#include "engine/queue.h"
#include "engine/ruleset.h"

/* columns of the tables, see sql/install/10_tables.sql */
enum
{
	STREAM_ID = 1, STREAM_NAME, STREAM_RELATION, STREAM_KEY, STREAM_EVENT_TIME,
	STREAM_REVIEW_AT, STREAM_DENY_AT, STREAM_SUPPRESS, STREAM_VERSION,
	STREAM_LAYOUT_ID, STREAM_OWNER, STREAM_CREATED_AT, STREAM_EPOCH,
	STREAM_EPOCH_VERSION, STREAM_COLUMNS = STREAM_EPOCH_VERSION
};

enum
{
	FEATURE_ID = 1, FEATURE_STREAM_ID, FEATURE_NAME, FEATURE_ENTITY,
	FEATURE_LOOKUP, FEATURE_FUNCTION, FEATURE_VALUE, FEATURE_FILTER,
	FEATURE_WITHIN, FEATURE_INCLUDE_CURRENT, FEATURE_RESULT_TYPE,
	FEATURE_OWNER, FEATURE_COLUMNS = FEATURE_OWNER
};

enum
{
	RULE_ID = 1, RULE_STREAM_ID, RULE_NAME, RULE_CONDITION, RULE_POINTS,
	RULE_SEVERITY, RULE_REASON, RULE_STATUS, RULE_OWNER, RULE_SUSPENDED_AT,
	RULE_COLUMNS = RULE_SUSPENDED_AT
};

typedef void *(*RowReader) (const Datum *values, const bool *nulls);

static List *read_rows(const char *table, Snapshot snapshot, int nkeys, ScanKey keys, int ncolumns, RowReader reader);
static void *read_stream_row(const Datum *values, const bool *nulls);
static void *read_feature_row(const Datum *values, const bool *nulls);
static void *read_rule_row(const Datum *values, const bool *nulls);
static int	compare_features(const ListCell *a, const ListCell *b);
static int	compare_rules(const ListCell *a, const ListCell *b);


Snapshot
ra_config_snapshot(void)
{
	Oid			relid = ra_extension_relid("stream");

	return OidIsValid(relid) ? RegisterSnapshot(GetCatalogSnapshot(relid)) : NULL;
}

RaStreamRow *
ra_read_stream(int32 stream_id, Snapshot snapshot)
{
	ScanKeyData key;
	List	   *rows;

	ScanKeyInit(&key, STREAM_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(stream_id));
	rows = read_rows("stream", snapshot, 1, &key, STREAM_COLUMNS, read_stream_row);
	return rows == NIL ? NULL : linitial(rows);
}

List *
ra_read_streams(void)
{
	return read_rows("stream", NULL, 0, NULL, STREAM_COLUMNS, read_stream_row);
}

List *
ra_read_features(int32 stream_id, Snapshot snapshot)
{
	ScanKeyData key;
	List	   *rows;

	ScanKeyInit(&key, FEATURE_STREAM_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(stream_id));
	rows = read_rows("feature", snapshot, 1, &key, FEATURE_COLUMNS, read_feature_row);
	list_sort(rows, compare_features);
	return rows;
}

List *
ra_read_rules(int32 stream_id, Snapshot snapshot)
{
	ScanKeyData key;
	List	   *rows;

	ScanKeyInit(&key, RULE_STREAM_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(stream_id));
	rows = read_rows("rule", snapshot, 1, &key, RULE_COLUMNS, read_rule_row);
	list_sort(rows, compare_rules);
	return rows;
}

/*
 * Stream of a relation: watched itself, or as a partition of a watched table
 */
int32
ra_stream_by_relid(Oid relid)
{
	List	   *candidates = list_make1_oid(relid);
	ListCell   *lc;

	if (get_rel_relispartition(relid))
		candidates = list_concat(candidates, get_partition_ancestors(relid));

	foreach(lc, candidates)
	{
		ScanKeyData key;
		List	   *rows;

		ScanKeyInit(&key, STREAM_RELATION, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(lfirst_oid(lc)));
		rows = read_rows("stream", NULL, 1, &key, STREAM_COLUMNS, read_stream_row);
		if (rows != NIL)
			return ((RaStreamRow *) linitial(rows))->stream_id;
	}
	return 0;
}

int32
ra_stream_by_name(const char *name)
{
	ScanKeyData key;
	List	   *rows;

	/* names are equal if their bytes are, so any collation will do */
	ScanKeyEntryInitialize(&key, 0, STREAM_NAME, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(name));
	rows = read_rows("stream", NULL, 1, &key, STREAM_COLUMNS, read_stream_row);
	return rows == NIL ? 0 : ((RaStreamRow *) linitial(rows))->stream_id;
}

/*
 * Read the rows that match the keys; NIL also if the extension is not there
 */
static List *
read_rows(const char *table, Snapshot snapshot, int nkeys, ScanKey keys, int ncolumns, RowReader reader)
{
	Oid			relid = ra_extension_relid(table);
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *rows = NIL;
	Datum	   *values;
	bool	   *nulls;

	if (!OidIsValid(relid))
		return NIL;
	rel = table_open(relid, AccessShareLock);
	values = palloc(RelationGetDescr(rel)->natts * sizeof(Datum));
	nulls = palloc(RelationGetDescr(rel)->natts * sizeof(bool));
	if (RelationGetDescr(rel)->natts < ncolumns)
		elog(ERROR, "table risk_alert.%s has too few columns", table);

	scan = systable_beginscan(rel, InvalidOid, false, snapshot, nkeys, keys);
	while ((tuple = systable_getnext(scan)) != NULL)
	{
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		rows = lappend(rows, reader(values, nulls));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	pfree(values);
	pfree(nulls);
	return rows;
}

static char *
text_value(const Datum *values, const bool *nulls, int column)
{
	return nulls[column - 1] ? NULL : TextDatumGetCString(values[column - 1]);
}

static char *
name_value(const Datum *values, int column)
{
	return pstrdup(NameStr(*DatumGetName(values[column - 1])));
}

static List *
names_value(const Datum *values, int column)
{
	Datum	   *elements;
	int			n;
	List	   *names = NIL;

	deconstruct_array(DatumGetArrayTypeP(values[column - 1]), NAMEOID, NAMEDATALEN, false,
					  TYPALIGN_CHAR, &elements, NULL, &n);
	for (int i = 0; i < n; i++)
		names = lappend(names, pstrdup(NameStr(*DatumGetName(elements[i]))));
	return names;
}

static void *
read_stream_row(const Datum *values, const bool *nulls)
{
	RaStreamRow *row = palloc(sizeof(RaStreamRow));

	row->stream_id = DatumGetInt32(values[STREAM_ID - 1]);
	row->name = text_value(values, nulls, STREAM_NAME);
	row->relid = DatumGetObjectId(values[STREAM_RELATION - 1]);
	row->key = names_value(values, STREAM_KEY);
	row->event_time = name_value(values, STREAM_EVENT_TIME);
	row->review_at = DatumGetInt32(values[STREAM_REVIEW_AT - 1]);
	row->deny_at = DatumGetInt32(values[STREAM_DENY_AT - 1]);
	row->suppress = *DatumGetIntervalP(values[STREAM_SUPPRESS - 1]);
	row->version = DatumGetInt64(values[STREAM_VERSION - 1]);
	row->layout_id = nulls[STREAM_LAYOUT_ID - 1] ? 0 : DatumGetInt32(values[STREAM_LAYOUT_ID - 1]);
	row->owner = DatumGetObjectId(values[STREAM_OWNER - 1]);
	row->epoch = 0;
	if (!nulls[STREAM_EPOCH - 1] && !nulls[STREAM_EPOCH_VERSION - 1] &&
		DatumGetInt64(values[STREAM_EPOCH_VERSION - 1]) == row->version)
		row->epoch = DatumGetInt64(values[STREAM_EPOCH - 1]);
	return row;
}

static void *
read_feature_row(const Datum *values, const bool *nulls)
{
	RaFeatureRow *row = palloc(sizeof(RaFeatureRow));

	row->feature_id = DatumGetInt32(values[FEATURE_ID - 1]);
	row->name = name_value(values, FEATURE_NAME);
	row->entity = names_value(values, FEATURE_ENTITY);
	row->lookup = names_value(values, FEATURE_LOOKUP);
	row->function = text_value(values, nulls, FEATURE_FUNCTION);
	row->value = text_value(values, nulls, FEATURE_VALUE);
	row->filter = text_value(values, nulls, FEATURE_FILTER);
	row->within = *DatumGetIntervalP(values[FEATURE_WITHIN - 1]);
	row->include_current = DatumGetBool(values[FEATURE_INCLUDE_CURRENT - 1]);
	row->result_type = DatumGetObjectId(values[FEATURE_RESULT_TYPE - 1]);
	row->owner = DatumGetObjectId(values[FEATURE_OWNER - 1]);
	return row;
}

static void *
read_rule_row(const Datum *values, const bool *nulls)
{
	RaRuleRow  *row = palloc(sizeof(RaRuleRow));

	row->rule_id = DatumGetInt32(values[RULE_ID - 1]);
	row->name = text_value(values, nulls, RULE_NAME);
	row->condition = text_value(values, nulls, RULE_CONDITION);
	row->points = DatumGetInt32(values[RULE_POINTS - 1]);
	row->severity = text_value(values, nulls, RULE_SEVERITY);
	row->reason = text_value(values, nulls, RULE_REASON);
	row->status = text_value(values, nulls, RULE_STATUS);
	row->owner = DatumGetObjectId(values[RULE_OWNER - 1]);
	row->suspended = !nulls[RULE_SUSPENDED_AT - 1];
	return row;
}

static int
compare_features(const ListCell *a, const ListCell *b)
{
	int32		x = ((RaFeatureRow *) lfirst(a))->feature_id;
	int32		y = ((RaFeatureRow *) lfirst(b))->feature_id;

	return (x > y) - (x < y);
}

static int
compare_rules(const ListCell *a, const ListCell *b)
{
	int32		x = ((RaRuleRow *) lfirst(a))->rule_id;
	int32		y = ((RaRuleRow *) lfirst(b))->rule_id;

	return (x > y) - (x < y);
}
