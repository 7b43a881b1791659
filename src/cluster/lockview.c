/*
 * lockview.c
 *	  What views show of the cluster's advisory locks, and what guards ask.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/dsm.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "cluster/fence.h"
#include "cluster/lock.h"
#include "compat.h"
#include "guc.h"
#include "shmem.h"

/* how long a view waits for the coordination service */
#define LIST_TIMEOUT_MS 5000

/* a hash table may hold a few more than it was made for */
#define SPARE_ENTRIES 64

#define ENTRY_COLUMNS 7
#define LISTED_COLUMNS 6
#define STATUS_COLUMNS 11

PG_FUNCTION_INFO_V1(ra_lock_entries);
PG_FUNCTION_INFO_V1(ra_lock_list);
PG_FUNCTION_INFO_V1(ra_lock_status);
PG_FUNCTION_INFO_V1(ra_lock_check_token_text);
PG_FUNCTION_INFO_V1(ra_lock_check_token_number);


typedef struct Copies
{
	RaLockEntry *entries;
	int			n;
	int			size;
} Copies;

static void
copy_entry(RaLockEntry *entry, void *arg)
{
	Copies	   *copies = arg;

	if (copies->n < copies->size)
		copies->entries[copies->n++] = *entry;
}

static Datum
kind_of_name(const RaLockName *name)
{
	return CStringGetTextDatum(name->data[0] == 'i' ? "bigint" : "text");
}

/*
 * _lock_entries(): this server's entries.  Who of its sessions is behind them
 * is in pg_locks, under lock_number.
 */
Datum
ra_lock_entries(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Copies		copies;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	ra_require_preload();

	/* copied first: nothing may throw while the table is locked */
	copies.n = 0;
	copies.size = ra_max_locks + SPARE_ENTRIES;
	copies.entries = MemoryContextAllocHuge(CurrentMemoryContext,
											(Size) copies.size * sizeof(RaLockEntry));
	ra_entries_visit(copy_entry, &copies);
	for (i = 0; i < copies.n; i++)
	{
		const RaLockEntry *entry = &copies.entries[i];
		Datum		values[ENTRY_COLUMNS];
		bool		nulls[ENTRY_COLUMNS] = {0};
		bool		local = ra_lock_provider == RA_LOCK_PROVIDER_LOCAL;
		bool		held = local ? entry->users > 0 : entry->state == RA_ENTRY_HELD;

		values[0] = kind_of_name(&entry->name);
		values[1] = CStringGetTextDatum(ra_lock_name_display(&entry->name));
		values[2] = Int64GetDatum((int64) entry->key.high);
		values[3] = CStringGetTextDatum(held ? "held" : entry->state == RA_ENTRY_WAITING ? "waiting" : "idle");
		values[4] = BoolGetDatum(entry->exclusive);
		values[5] = BoolGetDatum(!local && (held ? !ra_epoch_valid(entry->epoch) : entry->lost_users > 0));
		if (held)
			values[6] = NumericGetDatum(ra_token_numeric(entry->generation, entry->token,
														 Max(0, entry->sequence - 1)));
		else
			nulls[6] = true;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	pfree(copies.entries);
	return (Datum) 0;
}

/*
 * _lock_list(): all nodes' entries, as the coordination service has them.  None with
 * provider "local".  A warning if it can't be asked.
 */
Datum
ra_lock_list(PG_FUNCTION_ARGS)
{
	static uint32 wait_event = 0;
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	uint64		end;
	uint64		number;
	bool		connected;
	bool		done = false;
	dsm_handle	tried = DSM_HANDLE_INVALID;
	char		error[sizeof(ra_cluster->list_error)];
	dsm_segment *segment = NULL;
	RaListing  *listing;
	Latch	   *latch;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	ra_require_preload();
	if (ra_lock_provider == RA_LOCK_PROVIDER_LOCAL)
		return (Datum) 0;

	LWLockAcquire(ra_cluster->lock, LW_EXCLUSIVE);
	connected = ra_cluster->state == RA_BROKER_CONNECTED;
	strlcpy(error, ra_cluster->last_error, sizeof(error));
	number = ++ra_cluster->list_requested;
	LWLockRelease(ra_cluster->lock);
	latch = ra_cluster->broker_latch;
	if (connected && latch)
	{
		SetLatch(latch);
		end = ra_boottime() + (uint64) LIST_TIMEOUT_MS * 1000000;
		ConditionVariablePrepareToSleep(&ra_cluster->list_changed);

		/* attached to without a lock: that may fail, or take its time */
		for (;;)
		{
			long		left = ((int64) end - (int64) ra_boottime()) / 1000000;
			dsm_handle	handle;

			LWLockAcquire(ra_cluster->lock, LW_SHARED);
			done = ra_cluster->list_done >= number;
			handle = ra_cluster->list_segment;
			strlcpy(error, ra_cluster->list_error, sizeof(error));
			LWLockRelease(ra_cluster->lock);

			/* if it is gone, the broker has made the next one, which will do */
			if (done && handle != tried)
				segment = dsm_attach(handle);
			if (segment || left <= 0 || (done && handle == tried))
				break;
			if (done)
				tried = handle;
			else
				ConditionVariableTimedSleep(&ra_cluster->list_changed, left,
											ra_wait_event(&wait_event, "RiskAlertLockList"));
		}
		ConditionVariableCancelSleep();
		if (!done)
			strlcpy(error, "no answer in time", sizeof(error));
		else if (segment == NULL && error[0] == '\0')
			strlcpy(error, "no shared memory for the list", sizeof(error));
	}
	if (!done || error[0])
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("locks of other nodes are missing: the coordination service could not be asked"),
				 errdetail_internal("%s", error)));
	if (segment == NULL)
		return (Datum) 0;

	listing = dsm_segment_address(segment);
	for (i = 0; i < listing->n; i++)
	{
		const RaListedEntry *entry = &listing->entries[i];
		Datum		values[LISTED_COLUMNS];
		bool		nulls[LISTED_COLUMNS] = {0};

		values[0] = kind_of_name(&entry->name);
		values[1] = CStringGetTextDatum(ra_lock_name_display(&entry->name));
		values[2] = CStringGetTextDatum(entry->node);
		values[3] = BoolGetDatum(entry->exclusive);
		values[4] = BoolGetDatum(entry->granted);
		values[5] = Int32GetDatum(entry->position);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	dsm_detach(segment);
	return (Datum) 0;
}

/* _lock_status(): the broker, its session, and what was counted */
Datum
ra_lock_status(PG_FUNCTION_ARGS)
{
	static const char *const providers[] = {"local", "zookeeper", "redis"};
	static const char *const states[] = {"starting", "connecting", "connected", "disconnected", "failed"};
	TupleDesc	desc;
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS] = {0};
	bool		local = ra_lock_provider == RA_LOCK_PROVIDER_LOCAL;
	RaBrokerState state;
	TimestampTz since;
	pid_t		pid;
	char		error[sizeof(ra_cluster->last_error)];
	int64		left;

	ra_require_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	LWLockAcquire(ra_cluster->lock, LW_SHARED);
	state = ra_cluster->state;
	since = ra_cluster->since;
	pid = ra_cluster->broker_pid;
	strlcpy(error, ra_cluster->last_error, sizeof(error));
	LWLockRelease(ra_cluster->lock);
	left = (int64) (pg_atomic_read_u64(&ra_cluster->valid_until) - ra_boottime()) / 1000000;

	values[0] = CStringGetTextDatum(providers[ra_lock_provider]);
	values[1] = CStringGetTextDatum(local ? "none" : states[state]);
	values[2] = TimestampTzGetDatum(since);
	nulls[2] = since == 0;
	values[3] = Int32GetDatum(pid);
	nulls[3] = pid == 0;
	values[4] = CStringGetTextDatum(error);
	nulls[4] = error[0] == '\0' || state == RA_BROKER_CONNECTED;
	values[5] = Int64GetDatum(Max(0, left));
	nulls[5] = local;
	values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&ra_cluster->generation));
	values[7] = Int64GetDatum((int64) pg_atomic_read_u64(&ra_cluster->grants));
	values[8] = Int64GetDatum((int64) pg_atomic_read_u64(&ra_cluster->handovers));
	values[9] = Int64GetDatum((int64) pg_atomic_read_u64(&ra_cluster->requests));
	values[10] = Int64GetDatum((int64) pg_atomic_read_u64(&ra_cluster->losses));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * _lock_check_token(key, token): ERROR if this session holds the lock and has lost
 * it, or if this server knows of a newer grant.
 */
static Datum
check_token(FunctionCallInfo fcinfo, const RaLockName *name, const RaLockKey *key)
{
	Numeric		token = PG_GETARG_NUMERIC(1);
	RaHeldInfo	info;
	LWLock	   *partition = ra_lock_partition(key);
	RaLockEntry *found;
	RaLockEntry entry;
	Numeric		newest;

	memset(&entry, 0, sizeof(entry));
	if (ra_lock_held(key, &info) && info.lost)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("advisory lock \"%s\" was lost", ra_lock_name_display(name)),
				 errhint("Retry what the lock protects.")));
	LWLockAcquire(partition, LW_SHARED);
	found = ra_entry_find(key);
	if (found)
		entry = *found;
	LWLockRelease(partition);
	if (entry.users > 0 && entry.used_exclusive && entry.sequence > 0)
	{
		newest = ra_token_numeric(entry.generation, entry.token, entry.sequence - 1);
		if (DatumGetBool(DirectFunctionCall2(numeric_lt, NumericGetDatum(token), NumericGetDatum(newest))))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("token of advisory lock \"%s\" is out of date", ra_lock_name_display(name)),
					 errdetail("Since this token the lock has been granted again."),
					 errhint("Retry what the lock protects.")));
	}
	PG_RETURN_VOID();
}

Datum
ra_lock_check_token_text(PG_FUNCTION_ARGS)
{
	RaLockName	name;
	RaLockKey	key;

	ra_require_preload();
	ra_lock_name_text(&name, &key, PG_GETARG_TEXT_PP(0));
	return check_token(fcinfo, &name, &key);
}

Datum
ra_lock_check_token_number(PG_FUNCTION_ARGS)
{
	RaLockName	name;
	RaLockKey	key;

	ra_require_preload();
	ra_lock_name_number(&name, &key, PG_GETARG_INT64(0));
	return check_token(fcinfo, &name, &key);
}
