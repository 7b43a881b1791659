/*
 * direct.h
 *	  Rows of our own tables, written without a statement for each.
 */
#ifndef RA_DIRECT_H
#define RA_DIRECT_H

#include "postgres.h"

#include "access/skey.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"

/* A column that the table is expected to have, in the table's order */
typedef struct RaDirectColumn
{
	const char *name;
	Oid			type;			/* InvalidOid: never written by us */
	bool		by_default;		/* what we insert leaves it out */
} RaDirectColumn;

/*
 * A table of schema risk_alert.  A statement is always right; whether rows may go
 * past it, the flags tell while the table is open.
 */
typedef struct RaDirectTable
{
	/* the caller's */
	const char *name;
	const RaDirectColumn *columns;
	int			ncolumns;

	/* while it is open */
	Relation	rel;			/* NULL: it is not */
	bool		insertable;
	bool		updatable;

	/* kept */
	struct RaDirectTable *next;
	MemoryContext cxt;
	bool		stale;
	Oid			relid;
	EState	   *estate;			/* NULL: left to statements; nothing below is set */
	ResultRelInfo *target;
	Oid		   *indexes;		/* those of target */
	TupleTableSlot *slot;		/* the row to be written */
	TupleTableSlot *found;		/* the row that a scan found */
	int			ndefaults;
	AttrNumber *default_attnos;
	ExprState **defaults;		/* NULL: the default is NULL */
} RaDirectTable;

/*
 * Open the table for writing, for at most a transaction.  After an error there is
 * nothing to close, just to forget.
 */
extern void ra_direct_open(RaDirectTable *table);
extern void ra_direct_close(RaDirectTable *table);
extern void ra_direct_forget(RaDirectTable *table);

/*
 * The table's btree index over these columns (0: an expression), or NULL if there
 * is none that can be searched.  Only one whose name is not NULL may be partial.
 */
extern Relation ra_direct_index(RaDirectTable *table, const char *name, const AttrNumber *columns, int ncolumns);

/* Fill in a key for the index's n-th column, from 1 */
extern void ra_direct_key(ScanKey key, Relation index, int n, StrategyNumber strategy,
						  RegProcedure function, Datum value);

/*
 * Begin a row: values and nulls to be filled in are those of table->slot.  Columns
 * that have a default get it here.
 */
extern void ra_direct_row(RaDirectTable *table);

/* Insert that row, and let what follows see it */
extern void ra_direct_insert(RaDirectTable *table);

/* Replace the row in table->found, which is locked, by the one in table->slot */
extern void ra_direct_update(RaDirectTable *table);

#endif							/* RA_DIRECT_H */
