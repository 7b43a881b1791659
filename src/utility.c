/*
 * utility.c
 *	  What other people's DDL means to us.
 *
 * The server calls ra_process_utility() for every command that is not a plain
 * query, so it has to decide with one look at the node's tag that a command is
 * no concern of ours.  The concerns are:
 *
 * 1. CREATE, ALTER and DROP EXTENSION: the launcher or the worker is told when
 *	 the transaction has committed.
 *
 * 2. DROP DATABASE, CREATE DATABASE (its template), ALTER DATABASE ... RENAME
 *	 and ... SET TABLESPACE need a database without sessions, and our worker is
 *	 one.  They put a hold on the database's slot, ask the worker to leave, and
 *	 a second later make it.  The hold ends with the transaction, however that ends
 *	 (transaction callbacks run when a session dies, too); then the launcher
 *	 starts a new worker.  Only holds on databases that the user owns are made, as
 *	 anybody may type these commands.
 *
 * 3. COMMIT PREPARED makes events visible without running the commit callback
 *	 of the session that captured them: the worker is woken here.
 *
 * 4. ALTER TABLE ... RENAME COLUMN, and renaming or moving of functions, types,
 *	 operators and schemas: expressions of streams follow.
 *
 * 5. Rows that come to, or vanish from, a watched partitioned table without
 *	 any trigger: TRUNCATE of a partition, DROP of a partition, ATTACH and
 *	 DETACH.  The stream's windows are void then, which the queue is told in
 *	 the same transaction.  Which tables a TRUNCATE or DROP really affects (CASCADE!)
 *	 is learned from the server's object access hook, which reports each of them
 *	 while the command runs.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "portability/instr_time.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "tcop/utility.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "compat.h"
#include "engine/capture.h"
#include "engine/depend.h"
#include "engine/queue.h"
#include "engine/ruleset.h"
#include "risk_alert.h"
#include "shmem.h"

/* how long a worker may take to leave by itself, and to leave at all */
#define LEAVE_MS		1000
#define TERMINATE_MS	5000

/* Tables that a command turned out to affect */
typedef struct Affected
{
	MemoryContext cxt;
	List	   *truncated;		/* tables */
	List	   *roots;			/* partitioned tables that lost a partition */
} Affected;

/* To do when the transaction ends.  Lists are in TopTransactionContext. */
static struct
{
	bool		pending;		/* anything at all */
	bool		created_extension;
	bool		changed_extension;
	bool		changed_databases;
	List	   *held;			/* databases on whose slots we have a hold */
	List	   *dropped;		/* databases dropped */
}			at_end;

/* The command at hand that wants to know what it affects, or NULL */
static Affected *affected = NULL;

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

static void ra_process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
							   ProcessUtilityContext context, ParamListInfo params,
							   QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc);
static void run_command(PlannedStmt *pstmt, const char *query, bool read_only_tree,
						ProcessUtilityContext context, ParamListInfo params,
						QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc,
						Affected *what);
static void ra_object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
							 void *arg);
static void end_of_transaction(XactEvent event, void *arg);
static void hold_database(const char *name);
static bool is_concerned(void);
static const char *template_of(CreatedbStmt *stmt);
static bool has_option(List *options, const char *name);
static bool forgets_rows(AlterTableStmt *stmt);
static Oid	root_of(Oid relid);
static List *begin_rename(RenameStmt *stmt);
static bool names_in_expressions(ObjectType type);
static void after_alter_extension(void);
static void after_commit_prepared(void);
static void report_affected(const Affected *what);
static void report_root(Oid root);

void
ra_utility_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = ra_process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = ra_object_access;
	RegisterXactCallback(end_of_transaction, NULL);
}

static void
ra_process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				   ProcessUtilityContext context, ParamListInfo params,
				   QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	NodeTag		tag = nodeTag(stmt);
	Affected	what = {NULL, NIL, NIL};
	bool		collect = false;
	List	   *renames = NIL;
	Oid			dropped = InvalidOid;
	RangeVar   *altered = NULL;
	bool		ours = false;
	ListCell   *lc;

	/*
	 * Before the command.  Afterwards the statement may be gone, so that what is
	 * needed of it must be kept.
	 */
	switch (tag)
	{
		case T_DropdbStmt:
			dropped = get_database_oid(((DropdbStmt *) stmt)->dbname, true);
			if (context == PROCESS_UTILITY_TOPLEVEL && !IsTransactionBlock())
				hold_database(((DropdbStmt *) stmt)->dbname);
			break;
		case T_CreatedbStmt:
			if (context == PROCESS_UTILITY_TOPLEVEL && !IsTransactionBlock())
				hold_database(template_of((CreatedbStmt *) stmt));
			break;
		case T_AlterDatabaseStmt:
			if (context == PROCESS_UTILITY_TOPLEVEL && !IsTransactionBlock() &&
				has_option(((AlterDatabaseStmt *) stmt)->options, "tablespace"))
				hold_database(((AlterDatabaseStmt *) stmt)->dbname);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				hold_database(((RenameStmt *) stmt)->subname);
			else if (((RenameStmt *) stmt)->renameType == OBJECT_COLUMN &&
					 ((RenameStmt *) stmt)->relation != NULL && is_concerned())
				renames = begin_rename((RenameStmt *) stmt);
			else if (names_in_expressions(((RenameStmt *) stmt)->renameType) && is_concerned())
				renames = list_make1(ra_rename_begin(InvalidOid));
			break;
		case T_AlterObjectSchemaStmt:
			if (names_in_expressions(((AlterObjectSchemaStmt *) stmt)->objectType) && is_concerned())
				renames = list_make1(ra_rename_begin(InvalidOid));
			break;
		case T_AlterEnumStmt:
			if (((AlterEnumStmt *) stmt)->oldVal != NULL && is_concerned())
				renames = list_make1(ra_rename_begin(InvalidOid));
			break;
		case T_TransactionStmt:
			ours = ((TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED;
			break;
		case T_AlterExtensionStmt:
			ours = strcmp(((AlterExtensionStmt *) stmt)->extname, RA_EXTENSION) == 0;
			break;
		case T_AlterTableStmt:
			if (forgets_rows((AlterTableStmt *) stmt) && is_concerned())
				altered = copyObject(((AlterTableStmt *) stmt)->relation);
			break;
		case T_TruncateStmt:
		case T_DropStmt:
		case T_DropOwnedStmt:
			collect = is_concerned();
			ours = tag == T_DropOwnedStmt ||
				(tag == T_DropStmt && ((DropStmt *) stmt)->removeType == OBJECT_EXTENSION);
			break;
		default:
			break;
	}

	what.cxt = CurrentMemoryContext;
	run_command(pstmt, query, read_only_tree, context, params, env, dest, qc,
				collect ? &what : NULL);

	/* after it has succeeded */
	switch (tag)
	{
		case T_TransactionStmt:
			if (ours)
				after_commit_prepared();
			break;
		case T_CreateExtensionStmt:
			/* by name, or pulled in by CASCADE */
			if (OidIsValid(ra_extension_oid(NULL)))
				at_end.pending = at_end.created_extension = true;
			break;
		case T_AlterExtensionStmt:
			if (ours)
				after_alter_extension();
			break;
		case T_DropdbStmt:
			if (OidIsValid(dropped))
			{
				MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

				at_end.dropped = lappend_oid(at_end.dropped, dropped);
				MemoryContextSwitchTo(old);
			}
			at_end.pending = at_end.changed_databases = true;
			break;
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
			at_end.pending = at_end.changed_databases = true;
			break;
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
		case T_AlterEnumStmt:
			foreach(lc, renames)
				ra_rename_end(lfirst(lc));
			break;
		case T_AlterTableStmt:
			if (altered)
			{
				/* the command's own lock keeps the name in place */
				Oid			relid = RangeVarGetRelid(altered, NoLock, true);

				if (OidIsValid(relid))
					report_root(root_of(relid));
			}
			break;
		case T_TruncateStmt:
		case T_DropStmt:
		case T_DropOwnedStmt:
			if (collect)
			{
				if (ours)
					at_end.pending = at_end.changed_extension = true;
				report_affected(&what);
			}
			break;
		default:
			break;
	}
}

/*
 * Run the command, noting what it affects if what is not NULL.  Its triggers
 * may run commands of their own meanwhile, which come here again.
 */
static void
run_command(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc, Affected *what)
{
	ProcessUtility_hook_type run = prev_process_utility ? prev_process_utility : standard_ProcessUtility;
	Affected   *outer = affected;

	if (what == NULL && outer == NULL)
	{
		run(pstmt, query, read_only_tree, context, params, env, dest, qc);
		return;
	}

	affected = what;
	PG_TRY();
	{
		run(pstmt, query, read_only_tree, context, params, env, dest, qc);
	}
	PG_FINALLY();
	{
		affected = outer;
	}
	PG_END_TRY();
}

/* Called for each object that a command creates, alters, drops, truncates */
static void
ra_object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);

	if (affected != NULL && class_id == RelationRelationId && sub_id == 0 &&
		(access == OAT_TRUNCATE || access == OAT_DROP))
	{
		MemoryContext old = MemoryContextSwitchTo(affected->cxt);

		if (access == OAT_TRUNCATE)
			affected->truncated = list_append_unique_oid(affected->truncated, object_id);
		else if (get_rel_relispartition(object_id) && get_rel_relkind(object_id) != RELKIND_INDEX &&
				 get_rel_relkind(object_id) != RELKIND_PARTITIONED_INDEX)
			affected->roots = list_append_unique_oid(affected->roots, root_of(object_id));
		MemoryContextSwitchTo(old);
	}
}

/*
 * The transaction has ended, and if it committed, everybody can see what it
 * did.  Must not fail.
 */
static void
end_of_transaction(XactEvent event, void *arg)
{
	ListCell   *lc;

	if (!at_end.pending)
		return;
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;

	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	foreach(lc, at_end.held)
	{
		RaDatabase *db = ra_slot_find(lfirst_oid(lc));

		if (db && db->holds > 0)
			db->holds--;
	}
	if (event == XACT_EVENT_COMMIT)
	{
		foreach(lc, at_end.dropped)
		{
			RaDatabase *db = ra_slot_find(lfirst_oid(lc));

			/* a worker still there ends as all sessions do; the launcher cleans up */
			if (db && db->worker_pid == 0)
				ra_slot_free(db);
		}
		if (at_end.created_extension)
		{
			RaDatabase *db = ra_slot_make(MyDatabaseId);

			if (db && db->state == RA_WORKER_NO_EXTENSION)
				db->state = RA_WORKER_NONE;
		}
	}
	LWLockRelease(ra_shared->lock);

	if (event == XACT_EVENT_COMMIT && at_end.changed_extension)
		ra_wake_worker();
	if (at_end.held != NIL || at_end.changed_databases || at_end.created_extension)
		ra_wake_launcher(true);
	memset(&at_end, 0, sizeof(at_end));
}

/*
 * Have our worker leave the database, and keep it out until the transaction
 * ends.  After five seconds we let the command try its luck: if it then fails, its
 * message tells why.
 */
static void
hold_database(const char *name)
{
	static uint32 wait_event = 0;
	Oid			dboid = get_database_oid(name, true);
	MemoryContext old;
	RaDatabase *db;
	pid_t		pid = 0;
	Latch	   *latch = NULL;
	instr_time	start;
	bool		insisted = false;

	if (!OidIsValid(dboid) || !ra_owns_database(dboid, GetUserId()))
		return;

	/* nothing below this may fail before the hold is in the list */
	old = MemoryContextSwitchTo(TopTransactionContext);
	at_end.held = lappend_oid(at_end.held, dboid);
	MemoryContextSwitchTo(old);
	at_end.pending = true;

	LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
	db = ra_slot_find(dboid);
	if (db)
	{
		db->holds++;
		pid = db->worker_pid;
		latch = db->worker_latch;
	}
	LWLockRelease(ra_shared->lock);
	if (db == NULL)
	{
		at_end.held = list_delete_last(at_end.held);
		return;
	}
	if (pid == 0)
		return;
	if (latch)
		SetLatch(latch);

	INSTR_TIME_SET_CURRENT(start);
	ConditionVariablePrepareToSleep(&db->worker_cv);
	for (;;)
	{
		bool		gone;
		instr_time	now;
		long		elapsed;

		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		elapsed = (long) INSTR_TIME_GET_MILLISEC(now);

		/* under the lock, the pid is the worker's or not there any more */
		LWLockAcquire(ra_shared->lock, LW_SHARED);
		gone = db->dboid != dboid || db->worker_pid != pid;
		if (!gone && !insisted && elapsed >= LEAVE_MS)
		{
			insisted = true;
			kill(pid, SIGTERM);
		}
		LWLockRelease(ra_shared->lock);
		if (gone || elapsed >= TERMINATE_MS)
			break;
		ConditionVariableTimedSleep(&db->worker_cv, (insisted ? TERMINATE_MS : LEAVE_MS) - elapsed,
									ra_wait_event(&wait_event, "RiskAlertHold"));
	}
	ConditionVariableCancelSleep();
}

/*
 * Has this database the extension?  (Its own scripts are left alone.)  The
 * first look is at a cache.
 */
static bool
is_concerned(void)
{
	Oid			extension;

	if (!OidIsValid(get_namespace_oid(RA_EXTENSION, true)))
		return false;
	extension = ra_extension_oid(NULL);
	return OidIsValid(extension) &&
		!(creating_extension && CurrentExtensionObject == extension);
}

static const char *
template_of(CreatedbStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "template") == 0 && option->arg)
			return defGetString(option);
	}
	return "template1";
}

static bool
has_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		if (strcmp(lfirst_node(DefElem, lc)->defname, name) == 0)
			return true;
	}
	return false;
}

/* Does the command add, remove or change rows that no trigger is told of? */
static bool
forgets_rows(AlterTableStmt *stmt)
{
	ListCell   *lc;

	if (stmt->objtype != OBJECT_TABLE)
		return false;
	foreach(lc, stmt->cmds)
	{
		AlterTableType type = lfirst_node(AlterTableCmd, lc)->subtype;

		switch (type)
		{
			case AT_AttachPartition:
			case AT_DetachPartition:
			case AT_DetachPartitionFinalize:
				return true;

				/* rows may have come while the trigger was off */
			case AT_EnableTrig:
			case AT_EnableAlwaysTrig:
			case AT_EnableReplicaTrig:
			case AT_EnableTrigAll:
			case AT_EnableTrigUser:
				return true;
			default:
				if (RA_IS_SET_EXPRESSION(type))
					return true;
				break;
		}
	}
	return false;
}

/* The topmost partitioned table above, or the table itself */
static Oid
root_of(Oid relid)
{
	List	   *ancestors;

	if (!get_rel_relispartition(relid))
		return relid;
	ancestors = get_partition_ancestors(relid);
	return ancestors == NIL ? relid : llast_oid(ancestors);
}

/* Do expressions name objects of this type, other than columns of the table? */
static bool
names_in_expressions(ObjectType type)
{
	switch (type)
	{
		case OBJECT_ATTRIBUTE:
		case OBJECT_COLLATION:
		case OBJECT_DOMAIN:
		case OBJECT_EXTENSION:
		case OBJECT_FUNCTION:
		case OBJECT_OPERATOR:
		case OBJECT_PROCEDURE:
		case OBJECT_ROUTINE:
		case OBJECT_SCHEMA:
		case OBJECT_TSCONFIGURATION:
		case OBJECT_TSDICTIONARY:
		case OBJECT_TYPE:
			return true;
		default:
			return false;
	}
}

/*
 * Prepare the streams whose columns are about to be renamed: the table's own,
 * and those of tables that inherit from it.  Takes the lock that the command will
 * take, since what we read must stay true until then; but not for users whom the command
 * will refuse anyway.
 */
static List *
begin_rename(RenameStmt *stmt)
{
	Oid			relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	List	   *relids;
	List	   *streams = NIL;
	List	   *renames = NIL;
	int32		own;
	ListCell   *lc;

	if (!OidIsValid(relid) || !ra_owns_relation(relid, GetUserId()))
		return NIL;
	own = ra_stream_by_relid(relid);
	if (own == 0 && !has_subclass(relid))
		return NIL;

	/* first the stream, then its table: the order in which configuration functions lock */
	if (own != 0 && !XactReadOnly)
		ra_rename_lock(own);
	LockRelationOid(relid, AccessExclusiveLock);
	if (RangeVarGetRelid(stmt->relation, NoLock, true) != relid)
		return NIL;				/* it's another one now: not worth a loop */

	relids = stmt->relation->inh ? find_all_inheritors(relid, AccessExclusiveLock, NULL)
		: list_make1_oid(relid);
	foreach(lc, relids)
	{
		int32		stream_id = ra_stream_by_relid(lfirst_oid(lc));

		if (stream_id != 0 && !list_member_int(streams, stream_id))
		{
			streams = lappend_int(streams, stream_id);
			renames = lappend(renames, ra_rename_begin(lfirst_oid(lc)));
		}
	}
	return renames;
}

/*
 * Everybody's knowledge of the extension is void (see ra_extension_marker()),
 * also where the new version's script changed no table.
 */
static void
after_alter_extension(void)
{
	Oid			marker = ra_extension_marker();

	if (OidIsValid(marker))
		CacheInvalidateRelcacheByRelid(marker);
	at_end.pending = at_end.changed_extension = true;
}

/*
 * What was prepared may have been events, or a CREATE EXTENSION.  It is
 * committed already, although our own transaction is not.  A worker that has
 * nothing to wait for is left alone: global transactions are many.
 */
static void
after_commit_prepared(void)
{
	if (is_concerned())
	{
		RaDatabase *db;
		bool		created = false;

		LWLockAcquire(ra_shared->lock, LW_EXCLUSIVE);
		db = ra_slot_find(MyDatabaseId);
		if (db == NULL || db->state == RA_WORKER_NO_EXTENSION)
		{
			created = true;
			db = ra_slot_make(MyDatabaseId);
			if (db)
				db->state = RA_WORKER_NONE;
		}
		LWLockRelease(ra_shared->lock);
		if (created)
			ra_wake_launcher(true);
		else if (ra_queue_unsettled())
			ra_wake_worker();
	}
}

/* Tell the streams whose partitions were truncated or dropped */
static void
report_affected(const Affected *what)
{
	List	   *roots = list_copy(what->roots);
	ListCell   *lc;

	foreach(lc, what->truncated)
	{
		Oid			root = root_of(lfirst_oid(lc));

		/* a truncated root has fired its own trigger */
		if (!list_member_oid(what->truncated, root))
			roots = list_append_unique_oid(roots, root);
	}
	/* dropping it all may have included the extension */
	if (roots != NIL && is_concerned())
	{
		foreach(lc, roots)
			report_root(lfirst_oid(lc));
	}
}

static void
report_root(Oid root)
{
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(root)))
		ra_capture_truncate(root);
}
