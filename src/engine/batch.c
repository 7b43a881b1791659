/*
 * batch.c
 *	  One round of the worker: take events from the queue, score them.
 *
 * A tick is what one snapshot adds to the queue's position; it is processed in
 * batches of at most risk_alert.batch_size events, in order of arrival, each in
 * one transaction:
 *	 1. unpack the events, find the net effect on each row,
 *	 2. apply them to the windows (apply.c),
 *	 3. score each inserted row as of its own time, raise alerts,
 *	 4. write statistics and the queue's new position.
 *
 * The position is written with every alert, so an alert and the progress that
 * made it commit together.  A batch without alerts may leave it for later (a
 * tenth of a second): after a crash its events come again, and change nothing.
 *
 * When an expression of a user fails, the transaction is rolled back, the
 * culprit is marked careful, and the batch is done again: nothing it did outlives the
 * rollback but windows, whose changes are facts.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "engine/alert.h"
#include "engine/batch.h"
#include "engine/capture.h"
#include "engine/guard.h"
#include "engine/rebuild.h"
#include "guc.h"
#include "worker.h"

/* How long progress without alerts, and counters of rules, may stay unwritten */
#define FLUSH_INTERVAL_MS	100
#define RULE_FLUSH_INTERVAL_MS 1000

/* A layout of captured rows, and where its columns go in a rule set */
typedef struct LayoutMap
{
	int32		layout_id;		/* hash key */
	RaLayout   *layout;			/* NULL: unknown */
	RaRuleSet  *rs;				/* that map is for */
	uint64		generation;
	int		   *map;			/* by captured column: index in layout, or -1 */
	bool		complete;		/* no -1 */
	bool		identical;		/* the same columns in the same order */
} LayoutMap;

/* Counters of a rule, on their way to rule_stat */
typedef struct RuleCounters
{
	int32		rule_id;		/* hash key */
	int32		stream_id;
	int64		evaluated;
	int64		fired;
	int64		errors;
	int64		errors_in_row;
	double		time_ns;
	char		last_error[512];
	bool		suspend;		/* mark the rule as suspended */
} RuleCounters;

/* An event of a tick that has several batches: in which one it comes */
typedef struct PendingEvent
{
	struct
	{
		uint64		key;
		int32		stream_id;
		int32		filler;
	}			id;
	uint64		item;			/* index of its last INSERT in the tick */
} PendingEvent;

static bool exit_registered = false;
static MemoryContext worker_cxt;	/* lives as long as the worker */
static MemoryContext tick_cxt;
static MemoryContext pending_cxt;	/* within tick_cxt */
static MemoryContext batch_cxt;
static MemoryContext event_cxt;

static RaQueueReader *reader;
static HTAB *streams;
static HTAB *layouts;
static HTAB *rule_counters;

/* Progress, as far as this process knows; position_stored: what is on disk */
static RaXidSet *low;
static RaXidSet *high;			/* of the tick at hand, or NULL */
static int64 done_through;		/* of it, what arrived until then is processed */
static bool tick_begun;			/* its events are known */
static bool tick_resumed;		/* an earlier worker began it */
static bool tick_retried;		/* a batch of it failed */
static RaQueueItem *items;
static uint64 nitems;
static uint64 next_item;
static uint64 batch_end;
static HTAB *pending;			/* of PendingEvent; NULL: not needed so far */
static uint64 tick_drain;		/* drain() calls that this tick answers */
static bool dirty;				/* something to write */
static TimestampTz last_flush;
static TimestampTz last_rule_flush;
static bool in_events;			/* events are being processed: an error may be theirs */
static int	failures;			/* of the batch at hand, in a row, by its events */
static uint64 single_until;		/* go event by event up to this item */
static bool skip_first;			/* its only event can't be processed: pass over it */
static char *skip_reason;

static void worker_exit(int code, Datum arg);
static bool run_transaction(RaDatabase *db);
static void position_load(void);
static void position_store(bool tick_done);
static void flush(bool tick_done, bool durable, bool rules);
static void flush_streams(void);
static void flush_rules(void);
static void suspend_stuck(void);
static SPIPlanPtr kept_plan(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types);
static void tick_begin(Snapshot snapshot);
static void tick_end(RaDatabase *db);
static void tick_collect_again(Snapshot snapshot);
static void pending_build(void);
static RaSkipVerdict skip_pending(int32 stream_id, uint64 key, TransactionId xmin);
static int	process_batch(Snapshot snapshot);
static RaStream *stream_get(int32 stream_id);
static LayoutMap *layout_get(int32 layout_id, RaRuleSet *rs);
static void forget_windows(RaStream *stream);
static void take_event(const RaQueueEvent *queued, Snapshot snapshot);
static RaImage unpack_row(RaStream *stream, LayoutMap *map, const char **data, const char *end,
						  RaRow *row);
static void settle_events(RaStream *stream);
static void identify_events(RaStream *stream);
static int	score_stream(RaStream *stream, Snapshot snapshot);
static void absorb_rule_counters(RaRuleSet *rs);
static void statistics_written(bool written, bool rules);
static bool servers_fault(int sqlerrcode);
static void note_failing_feature(RaMeasure *measure, const char *message);
static bool handle_failure(MemoryContext cxt);

void
ra_batch_init(void)
{
	HASHCTL		ctl;

	if (worker_cxt)
		MemoryContextDelete(worker_cxt);
	worker_cxt = AllocSetContextCreate(TopMemoryContext, "risk_alert worker", ALLOCSET_DEFAULT_SIZES);
	tick_cxt = AllocSetContextCreate(worker_cxt, "risk_alert tick", ALLOCSET_DEFAULT_SIZES);
	pending_cxt = NULL;
	batch_cxt = AllocSetContextCreate(worker_cxt, "risk_alert batch", ALLOCSET_DEFAULT_SIZES);
	event_cxt = AllocSetContextCreate(worker_cxt, "risk_alert event", ALLOCSET_DEFAULT_SIZES);
	reader = ra_queue_reader(worker_cxt);

	memset(&ctl, 0, sizeof(ctl));
	ctl.hcxt = worker_cxt;
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(RaStream);
	streams = hash_create("risk_alert streams", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.entrysize = sizeof(LayoutMap);
	layouts = hash_create("risk_alert layouts", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.entrysize = sizeof(RuleCounters);
	rule_counters = hash_create("risk_alert rule counters", 64, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	low = NULL;
	high = NULL;
	tick_begun = tick_resumed = tick_retried = false;
	items = NULL;
	nitems = next_item = 0;
	pending = NULL;
	dirty = false;
	in_events = false;
	failures = 0;
	single_until = 0;
	skip_first = false;
	last_flush = last_rule_flush = GetCurrentTimestamp();

	if (!exit_registered)
		before_shmem_exit(worker_exit, (Datum) 0);
	exit_registered = true;
	ra_cache_end_all();
	ra_score_init();
	position_load();
}

/* Windows that nobody keeps up to date must not be read */
static void
worker_exit(int code, Datum arg)
{
	ra_cache_end_all();
}

bool
ra_batch_run(RaDatabase *db)
{
	volatile bool more = false;
	MemoryContext old = CurrentMemoryContext;

	PG_TRY();
	{
		more = run_transaction(db);
	}
	PG_CATCH();
	{
		if (!handle_failure(old))
			PG_RE_THROW();
		more = true;
	}
	PG_END_TRY();

	MemoryContextSwitchTo(old);
	return more;
}

/* One transaction: a batch, or just a look whether there is one */
static bool
run_transaction(RaDatabase *db)
{
	uint64		drain = pg_atomic_read_u64(&db->drain_requested);
	bool		draining = drain > pg_atomic_read_u64(&db->drain_done);
	Snapshot	snapshot;
	uint64		events;
	int			alerts = 0;
	bool		tick_done;
	bool		write;
	bool		rules = false;

	StartTransactionCommand();

	/*
	 * Reads invalidations as well: configuration that has changed by now is
	 * visible in the snapshot taken next.
	 */
	if (!ra_worker_lock_extension())
	{
		CommitTransactionCommand();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	/* the copy that stays what it is: statements that write take further ones */
	snapshot = GetActiveSnapshot();
	MemoryContextReset(batch_cxt);
	MemoryContextSwitchTo(batch_cxt);

	if (!tick_begun)
	{
		tick_drain = drain;
		tick_begin(snapshot);
	}
	else
	{
		switch (ra_queue_open(reader))
		{
			case RA_QUEUE_SAME:
				break;
			case RA_QUEUE_MOVED:
				tick_collect_again(snapshot);
				break;
			case RA_QUEUE_GONE:
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_TABLE),
						 errmsg("the queue of risk_alert is gone")));
		}
	}

	/* an event that nothing can be done with must not stop the others */
	batch_end = Min(nitems, next_item + (next_item < single_until ? 1 : ra_batch_size));
	events = batch_end - next_item;
	if (events > 0)
	{
		in_events = true;
		if (pending == NULL && (events < nitems || tick_resumed || tick_retried))
			pending_build();
		alerts = process_batch(snapshot);
		in_events = false;
		dirty = true;
	}
	tick_done = batch_end >= nitems;
	ra_queue_release(reader);

	write = alerts > 0 || (tick_done && ra_queue_rotation_due(reader));
	if (dirty && !write)
		write = (tick_done && draining) ||
			TimestampDifferenceExceeds(last_flush, GetCurrentTimestamp(), FLUSH_INTERVAL_MS);
	if (write)
	{
		if (events > 0)
			done_through = items[batch_end - 1].arrived;
		rules = (tick_done && draining) ||
			TimestampDifferenceExceeds(last_rule_flush, GetCurrentTimestamp(), RULE_FLUSH_INTERVAL_MS);
		flush(tick_done, alerts > 0, rules);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(worker_cxt);

	/* now it has happened */
	statistics_written(write, rules);
	next_item = batch_end;
	failures = 0;
	skip_first = false;
	if (events > 0)
	{
		pg_atomic_fetch_add_u64(&db->batches, 1);
		pg_atomic_fetch_add_u64(&db->events, events);
		pg_atomic_write_u64(&db->last_batch_at, (uint64) GetCurrentTimestamp());
	}
	if (tick_done)
		tick_end(db);
	return !tick_done || pg_atomic_read_u64(&db->drain_requested) > tick_drain;
}

/* Is progress waiting to be written, which no latch will announce? */
bool
ra_batch_waiting(void)
{
	return dirty;
}

/* Where an earlier worker left off */
static void
position_load(void)
{
	bool		isnull;
	Datum		d;

	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (SPI_execute("SELECT database, low::text, high::text, done_through FROM risk_alert.queue_position",
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("table risk_alert.queue_position has no row"),
				 errhint("Create the extension anew.")));
	d = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (DatumGetObjectId(d) == MyDatabaseId)
	{
		char	   *text;

		low = ra_xidset_from_text(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2),
								  worker_cxt);
		text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3);
		d = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4, &isnull);
		if (text != NULL && !isnull)
		{
			high = ra_xidset_from_text(text, worker_cxt);
			done_through = DatumGetTimestampTz(d);
			tick_resumed = true;
		}
		SPI_finish();
	}
	else
	{
		/*
		 * The database was copied from a template.  The events that came along
		 * are the original's affair; this copy begins anew.
		 */
		SPI_finish();
		ereport(LOG,
				(errmsg("risk_alert: database is a copy of another one, its queue is emptied")));
		ra_queue_clear();
		low = ra_xidset_from_snapshot(GetActiveSnapshot(), worker_cxt);
		position_store(true);
	}
	PopActiveSnapshot();
}

/* Durable with the current transaction */
static void
position_store(bool tick_done)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[4] = {OIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID};
	Datum		values[4];
	char		nulls[5] = "    ";
	const RaXidSet *now = tick_done && high ? high : low;

	values[0] = ObjectIdGetDatum(MyDatabaseId);
	values[1] = CStringGetTextDatum(ra_xidset_to_text(now));
	if (!tick_done)
		values[2] = CStringGetTextDatum(ra_xidset_to_text(high));
	else
		nulls[2] = 'n';
	values[3] = TimestampTzGetDatum(done_through);
	if (tick_done)
		nulls[3] = 'n';

	SPI_connect();
	if (SPI_execute_plan(kept_plan(&plan, "UPDATE risk_alert.queue_position SET database = $1,"
								   " low = $2::pg_snapshot, high = $3::pg_snapshot, done_through = $4",
								   4, types), values, nulls, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not store the queue position");
	SPI_finish();
}

/* Write statistics and position; empty what the queue no longer needs */
static void
flush(bool tick_done, bool durable, bool rules)
{
	flush_streams();
	if (rules)
		flush_rules();
	position_store(tick_done);
	if (tick_done)
		ra_queue_rotate(reader, high ? high : low);

	/* progress without alerts can be repeated, so nobody waits for the disk */
	if (!durable)
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
}

/* A statement that is planned once */
static SPIPlanPtr
kept_plan(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	made = SPI_prepare_cursor(sql, nargs, types, CURSOR_OPT_GENERIC_PLAN);

		if (made == NULL)
			elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(made);
		*plan = made;
	}
	return *plan;
}

static void
flush_streams(void)
{
	static SPIPlanPtr plan = NULL;
	HASH_SEQ_STATUS seq;
	RaStream   *stream;

	SPI_connect();
	hash_seq_init(&seq, streams);
	while ((stream = hash_seq_search(&seq)) != NULL)
	{
		Oid			types[9] = {INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID};
		Datum		values[9];
		char		nulls[10] = "         ";

		if (stream->total.processed + stream->batch.processed == 0)
			continue;
		values[0] = Int32GetDatum(stream->stream_id);
		values[1] = Int64GetDatum(stream->total.processed + stream->batch.processed);
		values[2] = Int64GetDatum(stream->total.scored + stream->batch.scored);
		values[3] = Int64GetDatum(stream->total.alerts + stream->batch.alerts);
		values[4] = Int64GetDatum(stream->total.folded + stream->batch.folded);
		values[5] = Int64GetDatum(stream->total.skipped + stream->batch.skipped);
		if (stream->last_skip)
			values[6] = CStringGetTextDatum(stream->last_skip);
		else
			nulls[6] = 'n';
		if (stream->has_event_time)
			values[7] = TimestampTzGetDatum(stream->last_event_time);
		else
			nulls[7] = 'n';
		values[8] = TimestampTzGetDatum(GetCurrentTimestamp());
		if (SPI_execute_plan(kept_plan(&plan, "INSERT INTO risk_alert.stream_stat AS s (stream_id, processed, scored,"
								  " alerts, folded, skipped, last_skip, last_event_time, last_processed_at)"
								  " SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9"
								  " WHERE EXISTS (SELECT FROM risk_alert.stream WHERE stream_id = $1)"
								  " ON CONFLICT (stream_id) DO UPDATE SET"
								  " processed = s.processed + EXCLUDED.processed,"
								  " scored = s.scored + EXCLUDED.scored,"
								  " alerts = s.alerts + EXCLUDED.alerts,"
								  " folded = s.folded + EXCLUDED.folded,"
								  " skipped = s.skipped + EXCLUDED.skipped,"
								  " last_skip = coalesce(EXCLUDED.last_skip, s.last_skip),"
								  " last_event_time = greatest(EXCLUDED.last_event_time, s.last_event_time),"
								  " last_processed_at = EXCLUDED.last_processed_at",
									   9, types), values, nulls, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not write statistics of stream %d", stream->stream_id);
	}
	SPI_finish();
}

static void
flush_rules(void)
{
	static SPIPlanPtr plan = NULL;
	HASH_SEQ_STATUS seq;
	RaStream   *stream;
	RuleCounters *counters;

	suspend_stuck();
	hash_seq_init(&seq, streams);
	while ((stream = hash_seq_search(&seq)) != NULL)
		if (stream->rs)
			absorb_rule_counters(stream->rs);

	SPI_connect();
	hash_seq_init(&seq, rule_counters);
	while ((counters = hash_seq_search(&seq)) != NULL)
	{
		Oid			types[7] = {INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID, INT8OID};
		Datum		values[7];
		char		nulls[8] = "       ";

		if (counters->evaluated == 0 && counters->errors == 0)
			continue;
		values[0] = Int32GetDatum(counters->rule_id);
		values[1] = Int64GetDatum(counters->evaluated);
		values[2] = Int64GetDatum(counters->fired);
		values[3] = Int64GetDatum(counters->errors);
		values[4] = Int64GetDatum(counters->errors_in_row);
		if (counters->last_error[0])
			values[5] = CStringGetTextDatum(counters->last_error);
		else
			nulls[5] = 'n';
		values[6] = Int64GetDatum((int64) (counters->time_ns / 1000));
		if (SPI_execute_plan(kept_plan(&plan, "INSERT INTO risk_alert.rule_stat AS s (rule_id, evaluated, fired, errors,"
								  " errors_in_row, last_error, last_error_at, time_us)"
								  " SELECT $1, $2, $3, $4, $5, $6, CASE WHEN $6 IS NOT NULL"
								  " THEN clock_timestamp() END, $7"
								  " WHERE EXISTS (SELECT FROM risk_alert.rule WHERE rule_id = $1)"
								  " ON CONFLICT (rule_id) DO UPDATE SET"
								  " evaluated = s.evaluated + EXCLUDED.evaluated,"
								  " fired = s.fired + EXCLUDED.fired,"
								  " errors = s.errors + EXCLUDED.errors,"
								  " errors_in_row = EXCLUDED.errors_in_row,"
								  " last_error = coalesce(EXCLUDED.last_error, s.last_error),"
								  " last_error_at = coalesce(EXCLUDED.last_error_at, s.last_error_at),"
								  " time_us = s.time_us + EXCLUDED.time_us",
									   7, types), values, nulls, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not write statistics of rule %d", counters->rule_id);

		if (counters->suspend)
		{
			/* as an administrator's correction may be under way: never wait for it */
			if (SPI_execute_with_args("UPDATE risk_alert.rule SET suspended_at = clock_timestamp(),"
									  " suspended_for = $2 WHERE rule_id = (SELECT rule_id FROM risk_alert.rule"
									  " WHERE rule_id = $1 AND suspended_at IS NULL FOR NO KEY UPDATE SKIP LOCKED)",
									  2, (Oid[]) {INT4OID, TEXTOID},
									  (Datum[]) {values[0], CStringGetTextDatum(counters->last_error)},
									  NULL, false, 0) != SPI_OK_UPDATE)
				elog(ERROR, "could not suspend rule %d", counters->rule_id);
			if (SPI_processed > 0)
			{
				RaStream   *of = hash_search(streams, &counters->stream_id, HASH_FIND, NULL);

				if (of && of->rs)
					CacheInvalidateRelcacheByRelid(of->rs->relid);
			}
		}
	}
	SPI_finish();
}

/*
 * Rules for which an earlier worker had to end itself, and that are as they were
 * then.  We have left them out since we came; now all get to know it.
 */
static void
suspend_stuck(void)
{
	RaDatabase *db = ra_my_database();
	int			i;

	for (i = 0; db != NULL && i < RA_MAX_STUCK; i++)
	{
		RaStuck    *stuck = &db->stuck[i];
		bool		isnull;

		if (stuck->stream_id == 0 || stuck->is_feature)
			continue;
		SPI_connect();
		if (SPI_execute_with_args("UPDATE risk_alert.rule SET suspended_at = clock_timestamp(),"
								  " suspended_for = 'it does not end, and cannot be cancelled'"
								  " WHERE rule_id = (SELECT r.rule_id FROM risk_alert.rule r"
								  " JOIN risk_alert.stream s USING (stream_id)"
								  " WHERE r.rule_id = $1 AND s.version = $2 AND r.suspended_at IS NULL"
								  " FOR NO KEY UPDATE OF r SKIP LOCKED)"
								  " RETURNING (SELECT s.relation::oid FROM risk_alert.stream s"
								  " WHERE s.stream_id = rule.stream_id)",
								  2, (Oid[]) {INT4OID, INT8OID},
								  (Datum[]) {Int32GetDatum(stuck->id), Int64GetDatum(stuck->version)},
								  NULL, false, 0) != SPI_OK_UPDATE_RETURNING)
			elog(ERROR, "could not suspend rule %d", stuck->id);
		if (SPI_processed > 0)
			CacheInvalidateRelcacheByRelid(DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
																		  SPI_tuptable->tupdesc, 1, &isnull)));
		SPI_finish();
	}
}

/* Find out what is new as of the snapshot */
static void
tick_begin(Snapshot snapshot)
{
	RaXidSet   *now;

	/* when resuming an interrupted tick, it is that one's events that we want */
	Assert(tick_resumed == (high != NULL));
	MemoryContextReset(tick_cxt);
	pending_cxt = NULL;
	pending = NULL;
	MemoryContextSwitchTo(tick_cxt);
	now = ra_xidset_from_snapshot(snapshot, tick_cxt);
	items = ra_queue_collect(reader, snapshot, now, low, high, done_through, &nitems);
	next_item = 0;
	if (high == NULL)
		high = now;
	tick_begun = true;
	MemoryContextSwitchTo(batch_cxt);
}

/*
 * Somebody has rewritten a queue table in the middle of a tick, so that events
 * are no longer where we have found them.
 */
static void
tick_collect_again(Snapshot snapshot)
{
	RaXidSet   *now;

	if (next_item > 0)
		done_through = items[next_item - 1].arrived;
	else if (!tick_resumed)
		done_through = PG_INT64_MIN;
	MemoryContextSwitchTo(tick_cxt);
	now = ra_xidset_from_snapshot(snapshot, tick_cxt);
	items = ra_queue_collect(reader, snapshot, now, low, high, done_through, &nitems);
	next_item = single_until = 0;
	pending = NULL;
	tick_retried = true;
	MemoryContextSwitchTo(batch_cxt);
}

static void
tick_end(RaDatabase *db)
{
	RaXidSet   *reached;

	if (high)
	{
		reached = MemoryContextAlloc(worker_cxt, sizeof(RaXidSet));
		*reached = *high;
		if (high->n > 0)
		{
			reached->running = MemoryContextAlloc(worker_cxt, high->n * sizeof(uint64));
			memcpy(reached->running, high->running, high->n * sizeof(uint64));
		}
		if (low->running)
			pfree(low->running);
		pfree(low);
		low = reached;
	}
	high = NULL;
	tick_begun = tick_resumed = tick_retried = false;
	items = NULL;
	nitems = next_item = single_until = 0;
	pending = NULL;
	pending_cxt = NULL;
	MemoryContextReset(tick_cxt);

	if (tick_drain > pg_atomic_read_u64(&db->drain_done))
	{
		pg_atomic_write_u64(&db->drain_done, tick_drain);
		ConditionVariableBroadcast(&db->drain_cv);
	}
}

/*
 * A tick of several batches, or one whose snapshot is not that of the batch:
 * remember which inserts come in which batch, so that a window rebuilt in an early one
 * doesn't hold events of a later one.
 */
static void
pending_build(void)
{
	HASHCTL		ctl;
	HTAB	   *made;
	uint64		i;

	if (pending_cxt == NULL)
		pending_cxt = AllocSetContextCreate(tick_cxt, "risk_alert pending events",
											ALLOCSET_DEFAULT_SIZES);
	else
		MemoryContextReset(pending_cxt);
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(((PendingEvent *) 0)->id);
	ctl.entrysize = sizeof(PendingEvent);
	ctl.hcxt = pending_cxt;
	made = hash_create("risk_alert pending events", nitems, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (i = 0; i < nitems; i++)
	{
		RaQueueEvent queued;
		RaStream   *stream;
		LayoutMap  *map;
		PendingEvent id;
		PendingEvent *entry;
		RaRow		row;
		const char *data;

		if (i % 1024 == 1023)
		{
			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(batch_cxt);
		}
		ra_queue_fetch(reader, &items[i], &queued);
		if (queued.op != RA_OP_INSERT)
			continue;
		stream = stream_get(queued.stream_id);
		if (stream->rs == NULL || stream->rs->broken)
			continue;
		map = layout_get(queued.layout_id, stream->rs);
		if (map->layout == NULL)
			continue;
		data = queued.data;
		(void) unpack_row(stream, map, &data, queued.data + queued.len, &row);
		memset(&id, 0, sizeof(id));
		id.id.key = row.key;
		id.id.stream_id = queued.stream_id;
		entry = hash_search(made, &id.id, HASH_ENTER, NULL);
		entry->item = i;
	}
	pending = made;
}

/*
 * In a tick of several batches: a row whose event comes in a later batch, or in
 * the next tick (its transaction had not ended when this one began), is not
 * there yet.
 */
static RaSkipVerdict
skip_pending(int32 stream_id, uint64 key, TransactionId xmin)
{
	PendingEvent id;
	PendingEvent *entry;

	memset(&id, 0, sizeof(id));
	id.id.key = key;
	id.id.stream_id = stream_id;
	entry = hash_search(pending, &id.id, HASH_FIND, NULL);
	if (entry != NULL && entry->item >= batch_end)
		return RA_SKIP;
	if (TransactionIdIsNormal(xmin) && !ra_xidset_ended(high, ra_widen_xid(xmin)))
		return RA_SKIP_IF_INSERTED;
	return RA_KEEP;
}

/* The batch [next_item, batch_end); returns how many alerts it made or folded */
static int
process_batch(Snapshot snapshot)
{
	HASH_SEQ_STATUS seq;
	RaStream   *stream;
	uint64		i;
	int			alerts = 0;

	hash_seq_init(&seq, streams);
	while ((stream = hash_seq_search(&seq)) != NULL)
	{
		stream->events = NULL;
		stream->nevents = stream->nalloc = 0;
		stream->forget = false;
		stream->forgotten = 0;
		memset(&stream->batch, 0, sizeof(stream->batch));
	}
	for (i = next_item; i < batch_end; i++)
	{
		RaQueueEvent queued;

		ra_queue_fetch(reader, &items[i], &queued);
		if (skip_first)
		{
			stream = stream_get(queued.stream_id);
			stream->batch.processed++;
			stream->batch.skipped++;
			stream->last_skip = skip_reason;
			/* the windows lack it */
			if (stream->rs)
				ra_apply_forget(stream);
			continue;
		}
		take_event(&queued, snapshot);
	}

	ra_score_begin();
	hash_seq_init(&seq, streams);
	while ((stream = hash_seq_search(&seq)) != NULL)
	{
		if (stream->nevents > 0)
			alerts += score_stream(stream, snapshot);
	}
	ra_score_end();

	/* a rule's function may have left advisory locks behind */
	LockReleaseSession(USER_LOCKMETHOD);
	return alerts;
}

/* The stream's entry, with its rule set as of now */
static RaStream *
stream_get(int32 stream_id)
{
	RaStream   *stream;
	bool		found;

	stream = hash_search(streams, &stream_id, HASH_ENTER, &found);
	if (!found)
	{
		memset(stream, 0, sizeof(RaStream));
		stream->stream_id = stream_id;
	}
	else if (stream->nevents > 0)
		return stream;			/* one rule set for the whole batch */

	/* only we have rule sets loaded in this process, so ours is not gone (assess.c) */
	if (!found || stream->rs == NULL || stream->generation != ra_config_generation || stream->rs->stale)
	{
		RaRuleSet  *before = stream->rs;

		if (before)
			absorb_rule_counters(before);
		stream->rs = NULL;
		stream->rs = ra_ruleset_get(stream_id);
		stream->generation = ra_config_generation;
		ra_apply_instances(stream);
	}
	return stream;
}

/* How rows of a layout become rows of the rule set */
static LayoutMap *
layout_get(int32 layout_id, RaRuleSet *rs)
{
	LayoutMap  *map;
	bool		found;
	int			i,
				k;

	map = hash_search(layouts, &layout_id, HASH_ENTER, &found);
	if (!found)
	{
		map->layout = NULL;
		map->map = NULL;
		map->rs = NULL;
	}
	if (map->layout == NULL)
		map->layout = ra_layout_load(layout_id, worker_cxt);
	if (map->layout == NULL || (map->rs == rs && map->generation == ra_config_generation))
		return map;

	if (map->map)
		pfree(map->map);
	map->map = MemoryContextAlloc(worker_cxt, Max(rs->ncaptured, 1) * sizeof(int));
	map->rs = rs;
	map->generation = ra_config_generation;
	map->complete = true;
	map->identical = rs->ncaptured == map->layout->n;
	for (i = 0; i < rs->ncaptured; i++)
	{
		map->map[i] = -1;
		for (k = 0; k < map->layout->n; k++)
		{
			/* a column that has changed its type meanwhile is read anew */
			if (map->layout->attnums[k] == rs->captured[i] &&
				TupleDescAttr(map->layout->desc, k)->atttypid ==
				TupleDescAttr(rs->row->tts_tupleDescriptor, rs->captured[i] - 1)->atttypid)
				map->map[i] = k;
		}
		if (map->map[i] < 0)
			map->complete = false;
		if (map->map[i] != i)
			map->identical = false;
	}
	return map;
}

/*
 * The stream's windows are to be read from the table anew, as of the batch's
 * snapshot.  What the events so far did is in it, or was undone by what makes us forget.
 */
static void
forget_windows(RaStream *stream)
{
	stream->forget = true;
	stream->forgotten = stream->nevents;
}

/* Unpack a queued event into its stream's list */
static void
take_event(const RaQueueEvent *queued, Snapshot snapshot)
{
	RaStream   *stream = stream_get(queued->stream_id);
	RaRuleSet  *rs = stream->rs;
	RaBatchEvent *event;
	LayoutMap  *map;
	const char *data = queued->data;
	const char *end = queued->data + queued->len;
	RaImage		image;

	/* the stream is no longer watched: its events are nobody's */
	if (rs == NULL)
		return;

	stream->batch.processed++;
	if (rs->broken)
	{
		stream->batch.skipped++;
		if (stream->last_skip == NULL || strcmp(stream->last_skip, rs->broken) != 0)
			stream->last_skip = MemoryContextStrdup(worker_cxt, rs->broken);
		return;
	}
	if (queued->op == RA_OP_FORGET)
	{
		forget_windows(stream);
		if (stream->nevents == 0)
			ra_apply_forget(stream);
		return;
	}

	map = layout_get(queued->layout_id, rs);
	if (map->layout == NULL)
	{
		stream->batch.skipped++;
		stream->last_skip = "the event's columns are not known any more";
		forget_windows(stream);
		if (stream->nevents == 0)
			ra_apply_forget(stream);
		return;
	}

	if (stream->nevents == stream->nalloc)
	{
		stream->nalloc = stream->nalloc ? stream->nalloc * 2 : 64;
		if (stream->events)
			stream->events = repalloc_huge(stream->events, stream->nalloc * sizeof(RaBatchEvent));
		else
			stream->events = palloc(stream->nalloc * sizeof(RaBatchEvent));
	}
	event = &stream->events[stream->nevents++];
	memset(event, 0, sizeof(RaBatchEvent));
	event->op = queued->op;
	event->xid = queued->xid;
	event->usable = true;
	event->score = queued->op == RA_OP_INSERT;

	if (queued->op == RA_OP_UPDATE &&
		unpack_row(stream, map, &data, end, &event->old) != RA_IMAGE_COMPLETE)
		forget_windows(stream);
	image = unpack_row(stream, map, &data, end, &event->row);
	if (image == RA_IMAGE_COMPLETE)
		return;
	if (queued->op == RA_OP_DELETE)
		forget_windows(stream);
	else if (!ra_reread_row(rs, &event->row, snapshot) && image == RA_IMAGE_SUPERSEDED)
	{
		/* deleted, or given another key, as an earlier event has told */
		event->score = false;
		if (queued->op == RA_OP_UPDATE)
		{
			event->op = RA_OP_DELETE;
			event->row = event->old;
		}
		else
			event->usable = false;
	}
}

/* Of an incomplete image, what the event does not carry is NULL */
static RaImage
unpack_row(RaStream *stream, LayoutMap *map, const char **data, const char *end, RaRow *row)
{
	RaRuleSet  *rs = stream->rs;
	RaImage		image;

	row->values = palloc(Max(rs->ncaptured, 1) * sizeof(Datum));
	row->nulls = palloc(Max(rs->ncaptured, 1) * sizeof(bool));
	if (map->identical)
		image = ra_image_unpack(map->layout, data, end, row->values, row->nulls);
	else
	{
		Datum	   *values = palloc(map->layout->n * sizeof(Datum));
		bool	   *nulls = palloc(map->layout->n * sizeof(bool));
		int			i;

		image = ra_image_unpack(map->layout, data, end, values, nulls);
		if (image == RA_IMAGE_COMPLETE && !map->complete)
			image = RA_IMAGE_INCOMPLETE;
		for (i = 0; i < rs->ncaptured; i++)
		{
			int			k = map->map[i];

			row->values[i] = k >= 0 ? values[k] : (Datum) 0;
			row->nulls[i] = k >= 0 ? nulls[k] : true;
		}
	}
	ra_row_identify(rs, row);
	return image;
}

/*
 * What becomes of each inserted row within the batch: an UPDATE replaces the
 * values it is scored with, a DELETE in the same transaction means it never
 * existed, and DELETE and INSERT of a key in one transaction (a row that moves to
 * another partition) is an update, not a new event.
 */
typedef struct Settled
{
	uint64		key;			/* hash key */
	int			event;			/* last INSERT still alive, or -1 */
	uint64		deleted_by;		/* transaction that deleted the key last */
} Settled;

static void
settle_events(RaStream *stream)
{
	HTAB	   *keys;
	HASHCTL		ctl;
	int			e;
	bool		inserts_only = true;

	for (e = 0; e < stream->nevents && inserts_only; e++)
		inserts_only = stream->events[e].op == RA_OP_INSERT;
	if (inserts_only)
		return;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(Settled);
	ctl.hcxt = CurrentMemoryContext;
	keys = hash_create("risk_alert keys of a batch", stream->nevents, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (e = 0; e < stream->nevents; e++)
	{
		RaBatchEvent *event = &stream->events[e];
		Settled    *at;
		Settled    *to;
		int			inserted;
		bool		found;

		if (!event->usable)
			continue;
		at = hash_search(keys, event->op == RA_OP_UPDATE ? &event->old.key : &event->row.key,
						 HASH_ENTER, &found);
		if (!found)
		{
			at->event = -1;
			at->deleted_by = 0;
		}
		switch (event->op)
		{
			case RA_OP_INSERT:
				if (at->deleted_by == event->xid)
					event->score = false;
				else
					at->event = e;
				at->deleted_by = 0;
				break;
			case RA_OP_UPDATE:
				inserted = at->event;
				if (inserted >= 0)
					stream->events[inserted].scored_row = &event->row;
				if (event->row.key != event->old.key)
				{
					at->event = -1;
					to = hash_search(keys, &event->row.key, HASH_ENTER, &found);
					if (!found)
						to->deleted_by = 0;
					to->event = inserted;
				}
				break;
			case RA_OP_DELETE:
				if (at->event >= 0 && stream->events[at->event].xid == event->xid)
					stream->events[at->event].score = false;
				at->event = -1;
				at->deleted_by = event->xid;
				break;
		}
	}

	/* an inserted row that was updated since is scored as it is now */
	for (e = 0; e < stream->nevents; e++)
	{
		RaBatchEvent *event = &stream->events[e];

		if (event->scored_row)
			event->row = *event->scored_row;
	}
}

/* Hash what the windows are found by, and evaluate values and filters */
static void
identify_events(RaStream *stream)
{
	RaRuleSet  *rs = stream->rs;
	int			e,
				i;

	for (e = 0; e < stream->nevents; e++)
	{
		RaBatchEvent *event = &stream->events[e];

		if (!event->row.timed && event->score)
		{
			event->score = false;
			stream->batch.skipped++;
			stream->last_skip = "the event time is null or infinite";
		}
		event->ids = palloc((2 * rs->nentities + rs->nlookups) * sizeof(RaEntityId) + 1);
		event->old_ids = event->ids + rs->nentities;
		event->lookups = event->old_ids + rs->nentities;
		event->measures = palloc(rs->nentities * sizeof(RaValue *) + 1);
		for (i = 0; i < rs->nentities; i++)
			event->ids[i] = ra_entity_id(rs, &rs->entities[i].columns, &event->row);
		if (event->op == RA_OP_UPDATE)
			for (i = 0; i < rs->nentities; i++)
				event->old_ids[i] = ra_entity_id(rs, &rs->entities[i].columns, &event->old);
		if (event->op == RA_OP_DELETE || !event->row.timed)
			continue;
		for (i = 0; i < rs->nlookups; i++)
			event->lookups[i] = rs->lookups[i].own ? event->ids[rs->lookups[i].entity]
				: ra_entity_id(rs, &rs->lookups[i].columns, &event->row);

		ra_row_store(rs, &event->row);
		ResetExprContext(rs->econtext);
		for (i = 0; i < rs->nentities; i++)
		{
			RaEntity   *entity = &rs->entities[i];

			event->measures[i] = palloc(Max(entity->spec.nmeasures, 1) * sizeof(RaValue));
			if (!ra_measure_row(rs, entity, event->measures[i]))
				event->measures[i] = NULL;
		}
	}
}

/* Apply and score a stream's events; returns how many alerts were made or folded */
static int
score_stream(RaStream *stream, Snapshot snapshot)
{
	RaRuleSet  *rs = stream->rs;
	RaFeatureResult *results;
	RaScore		score;
	int			alerts = 0;
	int			e,
				i;

	if (stream->forget)
		ra_apply_forget(stream);
	ra_guard_begin(rs);
	for (i = 0; i < rs->nrules; i++)
	{
		rs->rules[i].evaluated_before = rs->rules[i].evaluated;
		rs->rules[i].fired_before = rs->rules[i].fired;
		rs->rules[i].errors_before = rs->rules[i].errors;
		rs->rules[i].errors_in_row_before = rs->rules[i].errors_in_row;
		rs->rules[i].suspended_before = rs->rules[i].suspended;
	}

	settle_events(stream);
	identify_events(stream);
	ra_apply(stream, snapshot, pending ? skip_pending : NULL);

	results = ra_feature_results(rs);
	score.fired = palloc(Max(rs->nrules, 1) * sizeof(int));
	for (e = 0; e < stream->nevents; e++)
	{
		RaBatchEvent *event = &stream->events[e];
		MemoryContext old;

		if (!event->score)
			continue;
		CHECK_FOR_INTERRUPTS();
		ra_apply_prefetch(stream, e);
		MemoryContextReset(event_cxt);
		old = MemoryContextSwitchTo(event_cxt);
		ResetExprContext(rs->econtext);
		ra_row_store(rs, &event->row);
		ra_apply_features(stream, event, snapshot, results);
		ra_score_rules(rs, &score);
		stream->batch.scored++;
		if (!stream->has_event_time || event->row.time > stream->last_event_time)
			stream->last_event_time = event->row.time;
		stream->has_event_time = true;
		if (score.decision != RA_APPROVE && score.lead >= 0)
		{
			switch (ra_alert_write(rs, &event->row, &score))
			{
				case RA_ALERT_RAISED:
					stream->batch.alerts++;
					alerts++;
					break;
				case RA_ALERT_FOLDED:
					stream->batch.folded++;
					alerts++;
					break;
				case RA_ALERT_KNOWN:
					break;
			}
		}
		MemoryContextSwitchTo(old);
	}
	ra_guard_settle(rs);
	return alerts;
}

/* Move a rule set's counters to where they outlive it */
static void
absorb_rule_counters(RaRuleSet *rs)
{
	int			i;

	for (i = 0; i < rs->nrules; i++)
	{
		RaRule	   *rule = &rs->rules[i];
		RuleCounters *counters;
		bool		found;

		if (rule->evaluated == 0 && rule->errors == 0)
			continue;
		counters = hash_search(rule_counters, &rule->rule_id, HASH_ENTER, &found);
		if (!found)
		{
			memset(counters, 0, sizeof(RuleCounters));
			counters->rule_id = rule->rule_id;
		}
		counters->stream_id = rs->stream_id;
		counters->evaluated += rule->evaluated;
		counters->fired += rule->fired;
		counters->errors += rule->errors;
		counters->errors_in_row = rule->errors_in_row;
		counters->time_ns += rule->time_ns;
		counters->suspend = counters->suspend || (rule->suspended && rule->errors > 0);
		if (rule->last_error && rule->errors > 0)
			strlcpy(counters->last_error, rule->last_error, sizeof(counters->last_error));
		rule->evaluated = rule->evaluated_before = 0;
		rule->fired = rule->fired_before = 0;
		rule->errors_before = 0;
		rule->errors = 0;
		rule->time_ns = 0;
	}
}

/* The transaction has committed: what was counted is either on disk or owed */
static void
statistics_written(bool written, bool rules)
{
	HASH_SEQ_STATUS seq;
	RaStream   *stream;

	hash_seq_init(&seq, streams);
	while ((stream = hash_seq_search(&seq)) != NULL)
	{
		if (written)
		{
			memset(&stream->total, 0, sizeof(stream->total));
			stream->has_event_time = false;
			stream->last_skip = NULL;
		}
		else
		{
			stream->total.processed += stream->batch.processed;
			stream->total.scored += stream->batch.scored;
			stream->total.alerts += stream->batch.alerts;
			stream->total.folded += stream->batch.folded;
			stream->total.skipped += stream->batch.skipped;
		}
		memset(&stream->batch, 0, sizeof(stream->batch));
		stream->events = NULL;
		stream->nevents = stream->nalloc = 0;
	}
	if (written)
	{
		last_flush = GetCurrentTimestamp();
		dirty = !rules;
	}
	if (rules)
	{
		RuleCounters *counters;

		hash_seq_init(&seq, rule_counters);
		while ((counters = hash_seq_search(&seq)) != NULL)
			hash_search(rule_counters, &counters->rule_id, HASH_REMOVE, NULL);
		last_rule_flush = last_flush;
	}
}

/*
 * Is the error of a kind that an event can't have caused, and that goes away:
 * resources, operator intervention, locks, system?
 */
static bool
servers_fault(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):
			return true;
		default:
			return false;
	}
}

/* A feature's value or filter failed: its event does not count there */
static void
note_failing_feature(RaMeasure *measure, const char *message)
{
	HASH_SEQ_STATUS seq;
	RaStream   *stream;

	hash_seq_init(&seq, streams);
	while ((stream = hash_seq_search(&seq)) != NULL)
	{
		int			i;

		for (i = 0; stream->rs && i < stream->rs->nentities; i++)
		{
			RaEntity   *entity = &stream->rs->entities[i];

			if (measure < entity->measures || measure >= entity->measures + entity->spec.nmeasures)
				continue;
			stream->last_skip = MemoryContextStrdup(worker_cxt,
													psprintf("feature \"%s\" could not be computed of an event: %s",
															 measure->feature, message));
			ereport(WARNING,
					(errmsg("feature \"%s\" of stream \"%s\" could not be computed of an event: %s",
							measure->feature, stream->rs->name, message),
					 errdetail("Such events do not count for the feature."),
					 errhint("Make its value or filter safe for all rows, for example with NULLIF or CASE.")));
		}
	}
}

/*
 * An error ended the transaction.  True: it was a user's expression, which is
 * handled with care from now on, and the batch can be done again at once.
 * False: the caller reports it, and waits before it tries again.
 */
static bool
handle_failure(MemoryContext cxt)
{
	RaRule	   *rule = ra_culprit_rule;
	RaMeasure  *measure = ra_culprit_measure;
	HASH_SEQ_STATUS seq;
	RaStream   *stream;

	ra_score_end();
	ra_queue_reader_reset(reader);

	/* a tick whose events we have goes on, under another snapshot; else it never began */
	if (tick_begun && nitems > 0)
		tick_retried = true;
	else
	{
		tick_begun = false;
		items = NULL;
		nitems = next_item = 0;
		if (!tick_resumed)
			high = NULL;
	}
	if (streams)
	{
		hash_seq_init(&seq, streams);
		while ((stream = hash_seq_search(&seq)) != NULL)
		{
			int			i;

			for (i = 0; stream->rs && stream->nevents > 0 && i < stream->rs->nrules; i++)
			{
				RaRule	   *r = &stream->rs->rules[i];

				r->evaluated = Min(r->evaluated, r->evaluated_before);
				r->fired = Min(r->fired, r->fired_before);
				r->errors = Min(r->errors, r->errors_before);
				r->errors_in_row = r->errors_in_row_before;
				r->suspended = r->suspended_before;
			}
			memset(&stream->batch, 0, sizeof(stream->batch));
			stream->events = NULL;
			stream->nevents = stream->nalloc = 0;
		}
	}

	if ((rule && !rule->careful) || (measure && !measure->careful))
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(cxt);
		(void) ra_score_out_of_time();
		if (rule)
			rule->careful = true;
		if (measure)
		{
			measure->careful = true;
			note_failing_feature(measure, error->message);
		}
		FreeErrorData(error);
		in_events = false;
		return true;
	}

	if (in_events && !servers_fault(geterrcode()))
	{
		/*
		 * After some tries, go on event by event, and pass over the one that
		 * fails again and again.
		 */
		if (++failures > 2)
			single_until = Max(single_until, batch_end);
		if (failures > 5 && batch_end - next_item == 1)
		{
			ErrorData  *error;

			MemoryContextSwitchTo(worker_cxt);
			error = CopyErrorData();
			skip_reason = MemoryContextStrdup(worker_cxt, error->message);
			skip_first = true;
			FreeErrorData(error);
		}
		MemoryContextSwitchTo(cxt);
	}
	in_events = false;
	return false;
}
