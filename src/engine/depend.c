/*
 * depend.c
 *	  What a stream's configuration depends on.
 *
 * The server itself guards what rules use: the capture trigger of the watched
 * table gets, beside its dependency on risk_alert.capture(), a normal dependency
 * on every column, function, operator and type that the stream's features and
 * rules refer to, as if these stood in its WHEN clause.  So DROP COLUMN and DROP
 * FUNCTION are refused without CASCADE, and ALTER COLUMN TYPE altogether.  After
 * CASCADE the trigger is gone, which risk_alert.check_setup() reports.
 *
 * Objects of the extension itself are left out: DROP EXTENSION is about the
 * trigger anyway, and an upgrade may replace what rules use.
 *
 * A refresh holds the lock on the stream's row, and reads what is committed when
 * it has got it: of two concurrent changes of a stream the later one sees the
 * earlier one's rows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "rewrite/rewriteManip.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "engine/announce.h"
#include "engine/depend.h"
#include "engine/load.h"
#include "engine/queue.h"

/* What expressions depend on, other than what the server cannot lose */
typedef struct RaWanted
{
	Oid			relid;			/* the table that Vars are of */
	List	   *objects;		/* ObjectAddresses, each once */
} RaWanted;

static bool lock_stream(int32 stream_id);
static void refresh_layout(const RaRuleSet *rs);
static void refresh_dependencies(Oid relid, const RaUses *uses);
static List *trigger_nodes(Oid trigoid, Relation rel);
static void depend_on(Oid trigoid, Oid relid, Oid capture, Node *uses);
static bool wanted_walker(Node *node, RaWanted *wanted);
static void want(RaWanted *wanted, Oid classid, Oid objid, int subid);

PG_FUNCTION_INFO_V1(ra_refresh_stream);
PG_FUNCTION_INFO_V1(ra_invalidate_stream);

Datum
ra_refresh_stream(PG_FUNCTION_ARGS)
{
	ra_stream_refresh(PG_GETARG_INT32(0));
	PG_RETURN_VOID();
}

Datum
ra_invalidate_stream(PG_FUNCTION_ARGS)
{
	ra_stream_invalidate(PG_GETARG_INT32(0));
	PG_RETURN_VOID();
}

void
ra_stream_refresh(int32 stream_id)
{
	int			nestlevel = ra_settings_enter();
	RaRuleSet  *rs;
	RaUses		uses;

	if (!lock_stream(stream_id))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream with ID %d does not exist", stream_id)));

	rs = ra_ruleset_load_all(stream_id, CurrentMemoryContext, &uses);
	if (uses.excess != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s", uses.excess),
				 errhint("Use fewer features of that entity.")));

	for (int i = 0; i < rs->nproblems; i++)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s \"%s\" of stream \"%s\" cannot be used: %s", rs->problems[i].kind,
						rs->problems[i].name, rs->name, rs->problems[i].error)));

	/* a broken stream is left as it is: that it is broken can be seen */
	if (rs->broken == NULL)
	{
		refresh_layout(rs);
		refresh_dependencies(rs->relid, &uses);
	}
	MemoryContextDelete(rs->cxt);
	ra_stream_invalidate(stream_id);
	ra_settings_leave(nestlevel);
}

/*
 * Any stream's triggers depend on its time column, once refreshed; and its
 * layout is of these columns.
 */
bool
ra_stream_needs_refresh(int32 stream_id)
{
	static const char query[] =
		"SELECT FROM risk_alert.stream s"
		" WHERE s.stream_id = $1 AND EXISTS (SELECT FROM pg_class WHERE oid = s.relation)"
		" AND (EXISTS (SELECT FROM pg_trigger t"
		" WHERE t.tgrelid = s.relation AND t.tgfoid = 'risk_alert.capture()'::regprocedure"
		" AND t.tgparentid = 0 AND t.tgtype & 1 = 1"
		" AND NOT EXISTS (SELECT FROM pg_depend d, pg_attribute a"
		" WHERE d.classid = 'pg_trigger'::regclass AND d.objid = t.oid"
		" AND d.refclassid = 'pg_class'::regclass AND d.refobjid = s.relation"
		" AND d.refobjsubid = a.attnum AND a.attrelid = s.relation AND a.attname = s.event_time))"
		" OR NOT EXISTS (SELECT FROM risk_alert.capture_layout l"
		" WHERE l.layout_id = s.layout_id AND l.stream_id = s.stream_id"
		" AND NOT EXISTS (SELECT FROM unnest(l.attnums, l.types) AS u (attnum, type)"
		" WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = s.relation"
		" AND a.attnum = u.attnum AND a.atttypid = u.type))"
		" AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = s.relation"
		" AND a.attname = s.event_time AND a.attnum = ANY (l.attnums))))";
	int			nestlevel = ra_settings_enter();
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(stream_id);
	bool		needed;

	SPI_connect();
	if (SPI_execute_with_args(query, 1, &type, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look at stream %d", stream_id);
	needed = SPI_processed > 0;
	SPI_finish();
	ra_settings_leave(nestlevel);
	return needed;
}

void
ra_stream_invalidate(int32 stream_id)
{
	Oid			stream_table = ra_extension_relid("stream");
	RaStreamRow *stream;

	if (!OidIsValid(stream_table))
		return;
	stream = ra_read_stream(stream_id, NULL);

	/*
	 * The watched table's entry for those who keep something about it; our own
	 * for those who don't know yet that it is watched.
	 */
	if (stream != NULL && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(stream->relid)))
		CacheInvalidateRelcacheByRelid(stream->relid);
	CacheInvalidateRelcacheByRelid(stream_table);
	ra_announce_change();
}

static bool
lock_stream(int32 stream_id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(stream_id);
	bool		found;

	SPI_connect();
	if (SPI_execute_with_args("SELECT FROM risk_alert.stream WHERE stream_id = $1 FOR UPDATE",
							  1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock stream %d", stream_id);
	found = SPI_processed > 0;
	SPI_finish();
	return found;
}


/*
 * Capture layout
 */

static void
refresh_layout(const RaRuleSet *rs)
{
	TupleDesc	desc = rs->row->tts_tupleDescriptor;
	Datum	   *attnums = palloc(rs->ncaptured * sizeof(Datum));
	Datum	   *types = palloc(rs->ncaptured * sizeof(Datum));
	Oid			argtypes[3] = {INT4OID, INT2ARRAYOID, OIDARRAYOID};
	Datum		args[3];
	bool		isnull;
	Datum		layout_id = (Datum) 0;

	for (int i = 0; i < rs->ncaptured; i++)
	{
		attnums[i] = Int16GetDatum(rs->captured[i]);
		types[i] = ObjectIdGetDatum(TupleDescAttr(desc, rs->captured[i] - 1)->atttypid);
	}
	args[0] = Int32GetDatum(rs->stream_id);
	args[1] = PointerGetDatum(construct_array(attnums, rs->ncaptured, INT2OID, 2, true, TYPALIGN_SHORT));
	args[2] = PointerGetDatum(construct_array(types, rs->ncaptured, OIDOID, 4, true, TYPALIGN_INT));

	SPI_connect();

	/* going back to an earlier layout is common: a feature made and dropped */
	SPI_execute_with_args("SELECT layout_id FROM risk_alert.capture_layout"
						  " WHERE stream_id = $1 AND attnums = $2 AND types = $3"
						  " ORDER BY layout_id LIMIT 1",
						  3, argtypes, args, NULL, false, 1);
	if (SPI_processed == 0)
		SPI_execute_with_args("INSERT INTO risk_alert.capture_layout (stream_id, attnums, types)"
							  " VALUES ($1, $2, $3) RETURNING layout_id",
							  3, argtypes, args, NULL, false, 0);
	if (SPI_processed == 1)
		layout_id = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	else
		elog(ERROR, "could not store the capture layout of stream %d", rs->stream_id);

	if (DatumGetInt32(layout_id) != rs->layout_id)
	{
		argtypes[1] = INT4OID;
		args[1] = layout_id;
		SPI_execute_with_args("UPDATE risk_alert.stream SET layout_id = $2 WHERE stream_id = $1",
							  2, argtypes, args, NULL, false, 0);
	}
	SPI_finish();
}


/*
 * Dependencies
 */

/*
 * Calls of our own functions count for nothing but their arguments
 */
static Node *
strip_own_mutator(Node *node, Oid *extension)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, FuncExpr) &&
		getExtensionOfObject(ProcedureRelationId, ((FuncExpr *) node)->funcid) == *extension)
	{
		FuncExpr   *call = (FuncExpr *) node;
		CoalesceExpr *args = makeNode(CoalesceExpr);

		/* anything that has arguments and depends on nothing else */
		args->coalescetype = call->funcresulttype;
		args->coalescecollid = call->funccollid;
		args->args = (List *) expression_tree_mutator((Node *) call->args,
													  strip_own_mutator, (void *) extension);
		args->location = -1;
		return (Node *) args;
	}
	return expression_tree_mutator(node, strip_own_mutator, (void *) extension);
}

static Var *
column_var(Relation rel, AttrNumber attno)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);

	return makeVar(1, attno, att->atttypid, att->atttypmod, att->attcollation, 0);
}

static void
refresh_dependencies(Oid relid, const RaUses *uses)
{
	Oid			capture = LookupFuncName(list_make2(makeString("risk_alert"), makeString("capture")),
										 0, NULL, true);
	Oid			extension = get_extension_oid("risk_alert", true);
	Relation	rel;
	Relation	trigrel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	List	   *triggers = NIL;
	List	   *nodes = NIL;
	ListCell   *lc;
	int			attno = -1;

	/* what is used stays until we commit, and then is protected */
	rel = table_open(relid, AccessShareLock);

	/* in a dump that is being restored, or during pg_upgrade, it may be missing */
	if (OidIsValid(capture))
	{
		trigrel = table_open(TriggerRelationId, AccessShareLock);
		ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(relid));
		scan = systable_beginscan(trigrel, TriggerRelidNameIndexId, true, NULL, 1, &key);
		while ((tuple = systable_getnext(scan)) != NULL)
		{
			Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

			if (trigger->tgfoid == capture && !trigger->tgisinternal &&
				!OidIsValid(trigger->tgparentid) && TRIGGER_FOR_ROW(trigger->tgtype))
				triggers = lappend_oid(triggers, trigger->oid);
		}
		systable_endscan(scan);
		table_close(trigrel, AccessShareLock);
	}

	if (OidIsValid(extension))
		nodes = (List *) strip_own_mutator((Node *) uses->exprs, &extension);
	else
		nodes = list_copy(uses->exprs);
	while ((attno = bms_next_member(uses->columns, attno)) >= 0)
		nodes = lappend(nodes, column_var(rel, attno));

	foreach(lc, triggers)
		depend_on(lfirst_oid(lc), relid, capture,
				  (Node *) list_concat(trigger_nodes(lfirst_oid(lc), rel), nodes));
	table_close(rel, NoLock);
}

/*
 * What CREATE TRIGGER has recorded of a trigger that somebody wrote by hand with
 * a column list or a WHEN clause
 */
static List *
trigger_nodes(Oid trigoid, Relation rel)
{
	Relation	trigrel = table_open(TriggerRelationId, AccessShareLock);
	List	   *nodes = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigoid));
	scan = systable_beginscan(trigrel, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
		bool		isnull;
		Datum		qual = heap_getattr(tuple, Anum_pg_trigger_tgqual,
										RelationGetDescr(trigrel), &isnull);

		for (int i = 0; i < form->tgattr.dim1; i++)
			nodes = lappend(nodes, column_var(rel, form->tgattr.values[i]));
		if (!isnull)
		{
			Node	   *node = stringToNode(TextDatumGetCString(qual));

			/* OLD and NEW are the one table */
			ChangeVarNodes(node, PRS2_NEW_VARNO, PRS2_OLD_VARNO, 0);
			nodes = lappend(nodes, node);
		}
	}
	systable_endscan(scan);
	table_close(trigrel, AccessShareLock);
	return nodes;
}

/*
 * Make the trigger's normal dependencies, other than the one on its function,
 * those of the expressions.
 *
 * What is wanted already stays untouched: a set-up makes dozens of changes, and
 * each dead entry of pg_depend is visited by whoever looks for what else depends
 * on a column, as the rewriter does for an INSERT into a table with an identity
 * column.  The server has no function that tells what expressions depend on
 * without recording it.  So we find out by ourselves for the expressions that
 * people write; with any other node in them, the server records all anew.
 */
static void
depend_on(Oid trigoid, Oid relid, Oid capture, Node *uses)
{
	Relation	deprel = table_open(DependRelationId, RowExclusiveLock);
	RaWanted	wanted = {relid, NIL};
	bool		known = !wanted_walker(uses, &wanted);
	ObjectAddress trigger;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	ListCell   *lc;

	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(TriggerRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigoid));
	scan = systable_beginscan(deprel, DependDependerIndexId, true, NULL, 2, keys);
	while ((tuple = systable_getnext(scan)) != NULL)
	{
		Form_pg_depend dep = (Form_pg_depend) GETSTRUCT(tuple);
		bool		keep = false;

		if (dep->deptype != DEPENDENCY_NORMAL ||
			(dep->refclassid == ProcedureRelationId && dep->refobjid == capture))
			continue;
		if (known)
		{
			foreach(lc, wanted.objects)
			{
				ObjectAddress *object = lfirst(lc);

				if (object->classId == dep->refclassid && object->objectId == dep->refobjid &&
					object->objectSubId == dep->refobjsubid)
				{
					wanted.objects = foreach_delete_current(wanted.objects, lc);
					keep = true;
					break;
				}
			}
		}
		if (!keep)
			CatalogTupleDelete(deprel, &tuple->t_self);
	}
	systable_endscan(scan);
	table_close(deprel, RowExclusiveLock);
	CommandCounterIncrement();

	ObjectAddressSet(trigger, TriggerRelationId, trigoid);
	if (!known)
		recordDependencyOnSingleRelExpr(&trigger, uses, relid,
										DEPENDENCY_NORMAL, DEPENDENCY_NORMAL, false);
	else
	{
		foreach(lc, wanted.objects)
			recordDependencyOn(&trigger, lfirst(lc), DEPENDENCY_NORMAL);
	}
}

/*
 * Collect what recordDependencyOnSingleRelExpr() would record.  True: there is a
 * node of which we don't know that.
 */
static bool
wanted_walker(Node *node, RaWanted *wanted)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Var:
			if (((Var *) node)->varattno != InvalidAttrNumber)
				want(wanted, RelationRelationId, wanted->relid, ((Var *) node)->varattno);
			break;
		case T_Const:
			{
				Const	   *con = (Const *) node;

				/* regclass and the like depend on what they name */
				if (strncmp(format_type_be(con->consttype), "reg", 3) == 0)
					return true;
				want(wanted, TypeRelationId, con->consttype, 0);
				want(wanted, CollationRelationId, con->constcollid, 0);
			}
			break;
		case T_Param:
			want(wanted, TypeRelationId, ((Param *) node)->paramtype, 0);
			want(wanted, CollationRelationId, ((Param *) node)->paramcollid, 0);
			break;
		case T_FuncExpr:
			want(wanted, ProcedureRelationId, ((FuncExpr *) node)->funcid, 0);
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:		/* one struct */
			want(wanted, OperatorRelationId, ((OpExpr *) node)->opno, 0);
			break;
		case T_ScalarArrayOpExpr:
			want(wanted, OperatorRelationId, ((ScalarArrayOpExpr *) node)->opno, 0);
			break;
		case T_RelabelType:
			want(wanted, TypeRelationId, ((RelabelType *) node)->resulttype, 0);
			want(wanted, CollationRelationId, ((RelabelType *) node)->resultcollid, 0);
			break;
		case T_CoerceViaIO:
			want(wanted, TypeRelationId, ((CoerceViaIO *) node)->resulttype, 0);
			want(wanted, CollationRelationId, ((CoerceViaIO *) node)->resultcollid, 0);
			break;
		case T_ArrayCoerceExpr:
			want(wanted, TypeRelationId, ((ArrayCoerceExpr *) node)->resulttype, 0);
			want(wanted, CollationRelationId, ((ArrayCoerceExpr *) node)->resultcollid, 0);
			break;
		case T_CollateExpr:
			want(wanted, CollationRelationId, ((CollateExpr *) node)->collOid, 0);
			break;
		case T_List:
		case T_BoolExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_ArrayExpr:
		case T_NamedArgExpr:
		case T_SQLValueFunction:
			break;				/* nothing but what is below them */
		default:
			return true;
	}
	return expression_tree_walker(node, wanted_walker, (void *) wanted);
}

static void
want(RaWanted *wanted, Oid classid, Oid objid, int subid)
{
	ObjectAddress *object;
	ListCell   *lc;

	/* what cannot be dropped is not recorded */
	if (!OidIsValid(objid) || IsPinnedObject(classid, objid))
		return;
	foreach(lc, wanted->objects)
	{
		object = lfirst(lc);
		if (object->classId == classid && object->objectId == objid && object->objectSubId == subid)
			return;
	}
	object = palloc(sizeof(ObjectAddress));
	ObjectAddressSubSet(*object, classid, objid, subid);
	wanted->objects = lappend(wanted->objects, object);
}
