/*
 * register_local.c
 *	  The register that is a table of the coordinator's database.
 *
 * The decision is the commit of the coordinator's own transaction: propose() writes a row
 * in it, and when that can be seen, the global transaction has committed.  A row that
 * is not there means abort only if none can still come, so the transaction has an advisory
 * lock of this server from before its first branch prepares; PostgreSQL lets go of it
 * after the commit can be seen.  Who finds the lock free and then, with a snapshot
 * taken afterwards, no row, knows that there never will be one.
 *
 * A server restored from a backup, or a standby that was promoted, may lack rows that
 * were there once.  It must not say "aborted" of what it has forgotten.  So each run
 * of the server (epoch) writes its number, and where in the write-ahead log it began, into
 * a table before transactions are decided in it, and a gid tells epoch and how far the log was
 * flushed.  This server has no memory of a transaction if
 *	- it doesn't know the epoch,
 *	- or the epoch's successor began before that position in the log: a crash
 *	  loses nothing that was flushed.
 *	- or rows of later transactions of its epoch have been removed: its participant was restored to
 *	  a time when it had not finished its branch yet.
 * (The moment is the one when the transaction began to prepare: one that a backup
 * cuts in two, between that and its commit record, may be taken for aborted.)
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cluster/ask.h"
#include "cluster/globalstate.h"
#include "cluster/locktable.h"
#include "cluster/register.h"
#include "cluster/register_local.h"
#include "compat.h"
#include "core/gid.h"
#include "guc.h"
#include "risk_alert.h"
#include "shmem.h"

#define COMMIT_COLUMNS 5

bool		ra_coordinator_silent = false;

static const char *participants = "";

PG_FUNCTION_INFO_V1(ra_run_age);

static RaDecision local_propose(const char *gid, RaDecision decision, int timeout, char **reason);
static RaDecision local_read(const char *gid, int timeout, char **reason);
static void local_forget(const char *gid);
static void insert_row(const RaGid *gid, const char *name);
static bool row_there(const RaGid *gid);
static bool forgotten(const RaGid *gid, char **reason);
static bool epoch_noted(void);
static RaDecision ask_coordinator(const RaGid *gid, const char *name, int timeout, char **reason);

const RaRegister ra_register_local = {
	.kind = RA_REGISTER_LOCAL,
	.name = "local",
	.with_caller = true,
	.propose = local_propose,
	.read = local_read,
	.forget = local_forget
};

void
ra_local_participants(const char *names)
{
	participants = names;
}

/*
 * Only the coordinator proposes commit, when its transaction is about to.  An abort needs no
 * row: it is proposed by who asks what stands.
 */
static RaDecision
local_propose(const char *name, RaDecision decision, int timeout, char **reason)
{
	RaGid		gid;

	if (decision != RA_DECISION_COMMIT)
		return local_read(name, timeout, reason);
	if (!ra_gid_parse(name, strlen(name), &gid))
		elog(ERROR, "\"%s\" is no name of a global transaction", name);
	insert_row(&gid, name);

	/* phase two must not begin before this is on disk */
	ForceSyncCommit();
	return RA_DECISION_COMMIT;
}

static RaDecision
local_read(const char *name, int timeout, char **reason)
{
	RaGid		gid;

	if (!ra_gid_parse(name, strlen(name), &gid))
		elog(ERROR, "\"%s\" is no name of a global transaction", name);
	if (strcmp(gid.coordinator, ra_node_name) != 0 || gid.database != MyDatabaseId)
		return ask_coordinator(&gid, name, timeout, reason);
	switch (ra_local_outcome(&gid, reason))
	{
		case RA_OUTCOME_COMMITTED:
			return RA_DECISION_COMMIT;
		case RA_OUTCOME_ABORTED:
			return RA_DECISION_ABORT;
		case RA_OUTCOME_IN_PROGRESS:
			return RA_DECISION_NONE;
		case RA_OUTCOME_UNKNOWN:
			break;
	}
	return RA_DECISION_UNKNOWN;
}

static void
local_forget(const char *name)
{
	RaGid		gid;

	if (ra_gid_parse(name, strlen(name), &gid))
		ra_global_done(gid.number);
}

/*
 * As the catalogs are written: the caller needs no right to the table, and it may
 * be READ ONLY what he has begun.
 */
static void
insert_row(const RaGid *gid, const char *name)
{
	Oid			relid = get_relname_relid("global_commit", get_namespace_oid(RA_EXTENSION, false));
	Relation	rel;
	HeapTuple	tuple;
	Datum		values[COMMIT_COLUMNS];
	bool		nulls[COMMIT_COLUMNS] = {false};

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" does not exist", "risk_alert.global_commit")));
	rel = table_open(relid, RowExclusiveLock);
	values[0] = Int64GetDatum((int64) gid->epoch);
	values[1] = Int64GetDatum((int64) gid->number);
	values[2] = CStringGetTextDatum(name);
	values[3] = CStringGetTextDatum(participants);
	values[4] = TimestampTzGetDatum(GetCurrentTimestamp());
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	CatalogTupleInsert(rel, tuple);
	table_close(rel, NoLock);
}

bool
ra_coordinator_alive(const RaGid *gid)
{
	LOCKTAG		tag;

	if (gid->database != MyDatabaseId || gid->epoch != ra_global_state->epoch)
		return false;
	ra_global_lock_tag(&tag, gid->number);
	if (LockAcquire(&tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, ShareLock, false);
	return false;
}

RaOutcome
ra_local_outcome(const RaGid *gid, char **reason)
{
	*reason = NULL;
	if (strcmp(gid->cluster, ra_cluster_name) != 0 || strcmp(gid->coordinator, ra_node_name) != 0)
		*reason = psprintf("This server is node \"%s\" of cluster \"%s\".", ra_node_name, ra_cluster_name);
	else if (gid->database != MyDatabaseId)
		*reason = psprintf("The transaction was not coordinated in this database.");
	else if (RecoveryInProgress())
		*reason = pstrdup("This server is a standby.");
	if (*reason)
		return RA_OUTCOME_UNKNOWN;

	/* in this order, see the top of this file */
	if (ra_coordinator_alive(gid))
		return RA_OUTCOME_IN_PROGRESS;
	if (row_there(gid))
		return RA_OUTCOME_COMMITTED;
	if (forgotten(gid, reason))
		return RA_OUTCOME_UNKNOWN;
	return RA_OUTCOME_ABORTED;
}

/* Sees what is committed by now, whatever the isolation level */
static bool
row_there(const RaGid *gid)
{
	Oid			types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {Int64GetDatum((int64) gid->epoch), Int64GetDatum((int64) gid->number)};
	SPIPlanPtr	plan;
	bool		found;

	SPI_connect();
	plan = SPI_prepare("SELECT FROM risk_alert.global_commit c WHERE c.epoch OPERATOR(pg_catalog.=) $1 AND c.number OPERATOR(pg_catalog.=) $2",
					   2, types);
	if (plan == NULL ||
		SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(), InvalidSnapshot, true, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read risk_alert.global_commit");
	found = SPI_processed > 0;
	SPI_finish();
	return found;
}

/* Has this server been set back to a time before the transaction? */
static bool
forgotten(const RaGid *gid, char **reason)
{
	Oid			types[4] = {INT8OID, LSNOID, OIDOID, INT8OID};
	Datum		values[4] = {Int64GetDatum((int64) gid->epoch), LSNGetDatum(gid->position),
		ObjectIdGetDatum(MyDatabaseId), Int64GetDatum((int64) gid->number)};
	SPIPlanPtr	plan;
	bool		known = false;
	bool		lost = false;
	bool		removed = false;

	SPI_connect();
	plan = SPI_prepare("SELECT EXISTS (SELECT FROM risk_alert.global_epoch n"
					   "                WHERE n.database OPERATOR(pg_catalog.=) $3 AND n.began_at_lsn OPERATOR(pg_catalog.>) e.began_at_lsn AND n.began_at_lsn OPERATOR(pg_catalog.<) $2)"
					   "       OR e.began_at_lsn OPERATOR(pg_catalog.>) $2, $4 OPERATOR(pg_catalog.<=) e.removed_to"
					   "  FROM risk_alert.global_epoch e WHERE e.epoch OPERATOR(pg_catalog.=) $1 AND e.database OPERATOR(pg_catalog.=) $3",
					   4, types);
	if (plan == NULL ||
		SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(), InvalidSnapshot, true, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read risk_alert.global_epoch");
	if (SPI_processed > 0)
	{
		bool		isnull;

		known = true;
		lost = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		removed = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	}
	SPI_finish();
	if (known && !lost && !removed)
		return false;
	*reason = pstrdup(known && !lost ? "The transaction is older than risk_alert.decision_retention: if it has committed, all its branches had been finished, and it was forgotten." :
					  "This server has no memory of the time when the transaction committed or aborted: it was restored from a backup, or was a standby.");
	return true;
}

static RaDecision
ask_coordinator(const RaGid *gid, const char *name, int timeout, char **reason)
{
	char	   *answers[2];

	ra_coordinator_silent = !ra_ask_node(gid->coordinator, "SELECT o.outcome, o.reason FROM risk_alert._local_outcome($1) o",
										 name, timeout, answers, 2, reason);
	if (ra_coordinator_silent)
		return RA_DECISION_UNKNOWN;
	if (answers[0] && strcmp(answers[0], "committed") == 0)
		return RA_DECISION_COMMIT;
	if (answers[0] && strcmp(answers[0], "aborted") == 0)
		return RA_DECISION_ABORT;
	if (answers[0] && strcmp(answers[0], "in progress") == 0)
		return RA_DECISION_NONE;
	*reason = psprintf("node \"%s\" does not know: %s", gid->coordinator, answers[1] ? answers[1] : "it does not say why");
	return RA_DECISION_UNKNOWN;
}

/*
 * The worker of the database writes the epoch's row, as it can't be done in the transaction that
 * is to be decided.  The time is noted first: when the row can be seen, it is there.
 */
void
ra_local_note_epoch(void)
{
	Oid			types[3] = {INT8OID, LSNOID, OIDOID};
	Datum		values[3];
	RaRecovery *slot;

	LWLockAcquire(ra_global_state->lock, LW_EXCLUSIVE);
	slot = ra_recovery_slot(MyDatabaseId, true);
	if (slot)
		slot->noted_at = ra_boottime();
	LWLockRelease(ra_global_state->lock);

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	values[0] = Int64GetDatum((int64) ra_global_state->epoch);
	values[1] = LSNGetDatum(GetXLogInsertRecPtr());
	values[2] = ObjectIdGetDatum(MyDatabaseId);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args("INSERT INTO risk_alert.global_epoch (epoch, began_at_lsn, database) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
							  3, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write risk_alert.global_epoch");
	PopActiveSnapshot();
	SPI_finish();
	ForceSyncCommit();
	CommitTransactionCommand();

	LWLockAcquire(ra_global_state->lock, LW_EXCLUSIVE);
	slot = ra_recovery_slot(MyDatabaseId, true);
	if (slot)
		slot->epoch_noted = true;
	LWLockRelease(ra_global_state->lock);
}

/*
 * risk_alert._run_age(): for how long this run of the server has had the extension's tables, as
 * they are now, in this database: neither a restored nor a promoted server, nor an
 * extension that was made anew, has it for longer.  NULL: it was not noted yet.
 */
Datum
ra_run_age(PG_FUNCTION_ARGS)
{
	Oid			types[2] = {INT8OID, OIDOID};
	Datum		values[2];
	RaRecovery *slot;
	Interval   *result;
	uint64		noted_at = 0;
	bool		found;

	ra_require_preload();
	values[0] = Int64GetDatum((int64) ra_global_state->epoch);
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	SPI_connect();
	if (SPI_execute_with_args("SELECT FROM risk_alert.global_epoch e WHERE e.epoch = $1 AND e.database = $2",
							  2, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read risk_alert.global_epoch");
	found = SPI_processed > 0;
	SPI_finish();
	LWLockAcquire(ra_global_state->lock, LW_SHARED);
	slot = ra_recovery_slot(MyDatabaseId, false);
	if (slot)
		noted_at = slot->noted_at;
	LWLockRelease(ra_global_state->lock);
	if (!found || noted_at == 0)
		PG_RETURN_NULL();
	result = palloc0(sizeof(Interval));
	result->time = (int64) ((ra_boottime() - noted_at) / 1000);
	PG_RETURN_INTERVAL_P(result);
}

static bool
epoch_noted(void)
{
	RaRecovery *slot;
	bool		noted;

	LWLockAcquire(ra_global_state->lock, LW_SHARED);
	slot = ra_recovery_slot(MyDatabaseId, false);
	noted = slot && slot->epoch_noted;
	LWLockRelease(ra_global_state->lock);
	return noted;
}

void
ra_local_require_epoch(void)
{
	static uint32 wait_event = 0;
	int			tries;

	/* the worker starts with the server, or with the extension */
	for (tries = 0; !epoch_noted(); tries++)
	{
		if (tries == 500)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("global transactions cannot be decided in this database yet"),
					 errdetail("Its worker does not run."),
					 errhint("See risk_alert.check_setup().")));
		ra_wake_worker();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20, ra_wait_event(&wait_event, "RiskAlertWorkerStart"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
