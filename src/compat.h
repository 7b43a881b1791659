/*
 * compat.h
 *	  Differences between the server versions we support (15 to 18).
 *
 * Each is one inline function or macro that has the newest version's meaning,
 * so that the code elsewhere knows one version only.
 */
#ifndef RA_COMPAT_H
#define RA_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tupdesc.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_proc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "risk_alert supports PostgreSQL 15 to 18"
#endif

/*
 * The number of a wait event of our own, shown by pg_stat_activity.  Before
 * version 17 all extensions share the one event "Extension".  *cached is the
 * caller's, zero at first.
 */
static inline uint32
ra_wait_event(uint32 *cached, const char *name)
{
	if (*cached == 0)
	{
#if PG_VERSION_NUM >= 170000
		*cached = WaitEventExtensionNew(name);
#else
		(void) name;
		*cached = PG_WAIT_EXTENSION;
#endif
	}
	return *cached;
}

/* Does the role own the database (or is it a superuser)? */
static inline bool
ra_owns_database(Oid dboid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, dboid, roleid);
#else
	return pg_database_ownercheck(dboid, roleid);
#endif
}

/* Does the role own the table (or is it a superuser)? */
static inline bool
ra_owns_relation(Oid relid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, roleid);
#else
	return pg_class_ownercheck(relid, roleid);
#endif
}

/* May the role call the function? */
static inline bool
ra_may_execute(Oid funcid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, funcid, roleid, ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(funcid, roleid, ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

/* May the role use the foreign server? */
static inline bool
ra_may_use_server(Oid serverid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ForeignServerRelationId, serverid, roleid, ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_foreign_server_aclcheck(serverid, roleid, ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* For so many events; ends with FreeWaitEventSet().  lasting: outlives the transaction. */
static inline WaitEventSet *
ra_create_wait_event_set(int nevents, bool lasting)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(lasting ? NULL : CurrentResourceOwner, nevents);
#else
	return CreateWaitEventSet(lasting ? TopMemoryContext : CurrentMemoryContext, nevents);
#endif
}

/* Is the column computed when it is read, and so not in a trigger's rows? */
static inline bool
ra_attribute_is_virtual(Form_pg_attribute att)
{
#if PG_VERSION_NUM >= 180000
	return att->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL;
#else
	(void) att;
	return false;
#endif
}

/*
 * Does every row have a value in the column?  (Version 18 has constraints that
 * are not validated.)
 */
static inline bool
ra_attribute_is_not_null(TupleDesc desc, AttrNumber attno)
{
#if PG_VERSION_NUM >= 180000
	return TupleDescCompactAttr(desc, attno - 1)->attnullability == ATTNULLABLE_VALID;
#else
	return TupleDescAttr(desc, attno - 1)->attnotnull;
#endif
}

/* Version 17 can change the expression of a generated column */
#if PG_VERSION_NUM >= 170000
#define RA_IS_SET_EXPRESSION(subtype) ((subtype) == AT_SetExpression)
#else
#define RA_IS_SET_EXPRESSION(subtype) false
#endif

/* A scan of the index's table */
static inline IndexScanDesc
ra_index_beginscan(Relation rel, Relation index, Snapshot snapshot, int nkeys, int norderbys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(rel, index, snapshot, NULL, nkeys, norderbys);
#else
	return index_beginscan(rel, index, snapshot, nkeys, norderbys);
#endif
}

#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* Does this process have the lock in this very mode? */
static inline bool
ra_lock_held_by_me(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

/* Names of settings that changed, or came later (NULL: not there) */
#if PG_VERSION_NUM >= 160000
#define RA_GUC_DEBUG_PARALLEL "debug_parallel_query"
#else
#define RA_GUC_DEBUG_PARALLEL "force_parallel_mode"
#endif
#if PG_VERSION_NUM >= 170000
#define RA_GUC_TRANSACTION_TIMEOUT "transaction_timeout"
#else
#define RA_GUC_TRANSACTION_TIMEOUT NULL
#endif

#endif							/* RA_COMPAT_H */
