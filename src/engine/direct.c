/*
 * direct.c
 *	  Rows of our own tables, written without a statement for each.
 *
 * Starting and ending an executor takes most of the time of a statement that
 * writes one row.  Here tables and indexes stay open for a batch, as COPY and logical
 * replication keep them, and rows go in by the latter's functions: constraints,
 * defaults, generated columns and all indexes are theirs to see to, whoever
 * added them.  What these compile to is kept from batch to batch, since many a
 * batch has one alert only: until an invalidation says that the table changes, or
 * a function or type that its expressions may use.
 *
 * What only a statement does is left to one: the flags of the table say no if
 * there are triggers, rewrite rules or inheriting tables, or if columns are not
 * where we know them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "engine/direct.h"

/* Tables that were opened once, for invalidations */
static RaDirectTable *tables = NULL;

static void relation_invalidate(Datum arg, Oid relid);
static void catalog_invalidate(Datum arg, int cacheid, uint32 hashvalue);
static void prepare(RaDirectTable *table);
static bool as_expected(TupleDesc desc, const RaDirectColumn *columns, int ncolumns);
static void prepare_defaults(RaDirectTable *table);

void
ra_direct_open(RaDirectTable *table)
{
	int			i;

	if (tables == NULL)
	{
		CacheRegisterRelcacheCallback(relation_invalidate, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, catalog_invalidate, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, catalog_invalidate, (Datum) 0);
	}
	if (table->cxt == NULL)
	{
		table->cxt = AllocSetContextCreate(TopMemoryContext, "risk_alert table", ALLOCSET_DEFAULT_SIZES);
		table->stale = true;
		table->next = tables;
		tables = table;
	}

	/* reads invalidations; no triggers, rules or columns come while we have the lock */
	table->rel = table_openrv(makeRangeVar("risk_alert", pstrdup(table->name), -1), RowExclusiveLock);
	if (table->stale || table->relid != RelationGetRelid(table->rel))
		prepare(table);
	else if (table->estate)
	{
		table->target->ri_RelationDesc = table->rel;
		for (i = 0; i < table->target->ri_NumIndices; i++)
			table->target->ri_IndexRelationDescs[i] = index_open(table->indexes[i], RowExclusiveLock);
	}
}

void
ra_direct_close(RaDirectTable *table)
{
	int			i;

	if (table->estate)
	{
		ExecClearTuple(table->slot);
		ExecClearTuple(table->found);
		ResetPerTupleExprContext(table->estate);
		for (i = 0; i < table->target->ri_NumIndices; i++)
			index_close(table->target->ri_IndexRelationDescs[i], NoLock);
	}
	table_close(table->rel, NoLock);
	table->rel = NULL;
}

void
ra_direct_forget(RaDirectTable *table)
{
	if (table->rel != NULL)
		table->stale = true;
	table->rel = NULL;
}

static void
relation_invalidate(Datum arg, Oid relid)
{
	RaDirectTable *table;

	for (table = tables; table; table = table->next)
		table->stale = table->stale || relid == InvalidOid || relid == table->relid;
}

static void
catalog_invalidate(Datum arg, int cacheid, uint32 hashvalue)
{
	relation_invalidate(arg, InvalidOid);
}

/* Find out about the table, which is open */
static void
prepare(RaDirectTable *table)
{
	Relation	rel = table->rel;
	TriggerDesc *triggers = rel->trigdesc;
	bool		plain;

	/* not yet, if an invalidation comes meanwhile */
	table->stale = false;
	table->relid = RelationGetRelid(rel);
	table->estate = NULL;
	MemoryContextReset(table->cxt);

	plain = rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rules == NULL &&
		!rel->rd_rel->relispartition &&
		as_expected(RelationGetDescr(rel), table->columns, table->ncolumns);
	table->insertable = plain &&
		(triggers == NULL ||
		 !(triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
		   triggers->trig_insert_before_statement || triggers->trig_insert_after_statement));
	table->updatable = plain && !rel->rd_rel->relhassubclass &&
		(triggers == NULL ||
		 !(triggers->trig_update_before_row || triggers->trig_update_after_row ||
		   triggers->trig_update_before_statement || triggers->trig_update_after_statement));
	if (plain)
	{
		MemoryContext old = MemoryContextSwitchTo(table->cxt);
		TupleDesc	desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
		EState	   *estate = CreateExecutorState();
		int			i;

		table->target = makeNode(ResultRelInfo);
		InitResultRelInfo(table->target, rel, 0, NULL, 0);
		ExecOpenIndices(table->target, false);
		table->indexes = palloc(table->target->ri_NumIndices * sizeof(Oid));
		for (i = 0; i < table->target->ri_NumIndices; i++)
			table->indexes[i] = RelationGetRelid(table->target->ri_IndexRelationDescs[i]);
		table->slot = MakeSingleTupleTableSlot(desc, table_slot_callbacks(rel));
		table->found = MakeSingleTupleTableSlot(desc, table_slot_callbacks(rel));
		table->estate = estate;
		prepare_defaults(table);
		MemoryContextSwitchTo(old);
	}
}

/* Are the columns that we know where we know them?  Others may follow. */
static bool
as_expected(TupleDesc desc, const RaDirectColumn *columns, int ncolumns)
{
	int			i;

	if (desc->natts < ncolumns)
		return false;
	for (i = 0; i < ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || strcmp(NameStr(att->attname), columns[i].name) != 0 ||
			(OidIsValid(columns[i].type) && att->atttypid != columns[i].type) ||
			(att->attgenerated && !columns[i].by_default))
			return false;
	}
	return true;
}

static void
prepare_defaults(RaDirectTable *table)
{
	TupleDesc	desc = RelationGetDescr(table->rel);
	int			i;

	table->ndefaults = 0;
	table->default_attnos = palloc(desc->natts * sizeof(AttrNumber));
	table->defaults = palloc(desc->natts * sizeof(ExprState *));
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Expr	   *expr = NULL;

		if (i < table->ncolumns && !table->columns[i].by_default)
			continue;
		/* generated columns are computed after all others */
		if (!att->attisdropped && !att->attgenerated)
			expr = (Expr *) build_column_default(table->rel, i + 1);
		table->default_attnos[table->ndefaults] = i + 1;
		table->defaults[table->ndefaults++] = expr ? ExecPrepareExpr(expr, table->estate) : NULL;
	}
}

Relation
ra_direct_index(RaDirectTable *table, const char *name, const AttrNumber *columns, int ncolumns)
{
	int			i;

	if (table->estate == NULL)
		return NULL;
	for (i = 0; i < table->target->ri_NumIndices; i++)
	{
		Relation	index = table->target->ri_IndexRelationDescs[i];
		Form_pg_index form = index->rd_index;
		int			k;

		if (name != NULL ? strcmp(RelationGetRelationName(index), name) != 0
			: table->target->ri_IndexRelationInfo[i]->ii_Predicate != NIL)
			continue;
		if (!form->indisvalid || index->rd_rel->relam != BTREE_AM_OID || form->indnkeyatts != ncolumns)
			continue;
		for (k = 0; k < ncolumns && form->indkey.values[k] == columns[k]; k++)
			;
		if (k == ncolumns)
			return index;
	}
	return NULL;
}

void
ra_direct_key(ScanKey key, Relation index, int n, StrategyNumber strategy, RegProcedure function, Datum value)
{
	ScanKeyEntryInitialize(key, 0, n, strategy, InvalidOid, index->rd_indcollation[n - 1], function, value);
}

void
ra_direct_row(RaDirectTable *table)
{
	ExprContext *econtext = GetPerTupleExprContext(table->estate);
	int			i;

	ExecClearTuple(table->slot);
	ResetExprContext(econtext);
	for (i = 0; i < table->ndefaults; i++)
	{
		int			a = table->default_attnos[i] - 1;

		table->slot->tts_isnull[a] = true;
		table->slot->tts_values[a] = (Datum) 0;
		if (table->defaults[i])
			table->slot->tts_values[a] = ExecEvalExprSwitchContext(table->defaults[i], econtext,
																   &table->slot->tts_isnull[a]);
	}
}

void
ra_direct_insert(RaDirectTable *table)
{
	ExecStoreVirtualTuple(table->slot);
	ExecSimpleRelationInsert(table->target, table->estate, table->slot);
	CommandCounterIncrement();
}

void
ra_direct_update(RaDirectTable *table)
{
	EPQState	unused = {0};	/* it is for triggers */

	ExecStoreVirtualTuple(table->slot);
	ExecSimpleRelationUpdate(table->target, table->estate, &unused, table->found, table->slot);
	CommandCounterIncrement();
}
