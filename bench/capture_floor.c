/*
 * capture_floor.c
 *	  What a trigger costs that captures nothing, and one that captures as little as can be:
 *	  the floor for capture(), for bench/run to build and to load.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(nothing);
PG_FUNCTION_INFO_V1(row_of_80_bytes);

/* AFTER ROW trigger: nothing */
Datum
nothing(PG_FUNCTION_ARGS)
{
	return PointerGetDatum(NULL);
}

/* AFTER ROW trigger: 80 bytes, always the same, into bench.floor_queue, which has no index */
Datum
row_of_80_bytes(PG_FUNCTION_ARGS)
{
	static Oid	queue = InvalidOid;
	static char data[80];
	Relation	rel;
	HeapTuple	tuple;
	Datum		value = PointerGetDatum(data);
	bool		null = false;

	if (!OidIsValid(queue))
		queue = get_relname_relid("floor_queue", get_namespace_oid("bench", false));
	SET_VARSIZE(data, sizeof(data));
	rel = table_open(queue, RowExclusiveLock);
	tuple = heap_form_tuple(RelationGetDescr(rel), &value, &null);
	heap_insert(rel, tuple, GetCurrentCommandId(true), 0, NULL);
	heap_freetuple(tuple);
	table_close(rel, NoLock);
	return PointerGetDatum(NULL);
}
