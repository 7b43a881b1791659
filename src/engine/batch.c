/*
 * batch.c
 *	  One round of the worker: take events from the queue, score them.
 *
 * A tick is what one snapshot adds to the queue's position; it is processed in
 * batches of at most risk_alert.batch_size events, in order of arrival, each in
 * one transaction:
 *	 1. unpack the events, find the net effect on each row (events.c),
 *	 2. apply them to the windows (apply.c),
 *	 3. score each inserted row as of its own time, raise alerts,
 *	 4. write statistics (statistics.c) and the queue's new position.
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

#include "engine/announce.h"
#include "engine/alert.h"
#include "engine/batch.h"
#include "engine/capture.h"
#include "engine/guard.h"
#include "engine/rebuild.h"
#include "engine/statistics.h"
#include "guc.h"
#include "worker.h"

/* How long progress without alerts, and counters of rules, may stay unwritten */
#define FLUSH_INTERVAL_MS	100
#define RULE_FLUSH_INTERVAL_MS 1000

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
static bool dirty;				/* something to write ... */
static TimestampTz dirty_since; /* ... since then */
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
static void tick_begin(Snapshot snapshot);
static void tick_end(RaDatabase *db);
static void tick_collect_again(Snapshot snapshot);
static void pending_build(void);
static RaSkipVerdict skip_pending(int32 stream_id, uint64 key, TransactionId xmin);
static int	process_batch(Snapshot snapshot);
static RaStream *stream_get(int32 stream_id);
static int	score_stream(RaStream *stream, Snapshot snapshot);
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
	ra_events_init(worker_cxt);
	ra_statistics_init(worker_cxt);
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
		pg_atomic_write_u32(&db->rebuilding, 0);
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
	bool		rules;
	TimestampTz now;

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
	ra_await_announcements(snapshot);
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
	}
	tick_done = batch_end >= nitems;
	ra_queue_release(reader);

	/*
	 * Rules are many.  Somebody waits for an alert, so their counters are left to
	 * a batch without any, if one comes soon.
	 */
	now = GetCurrentTimestamp();
	if (events > 0 && !dirty)
	{
		dirty = true;
		dirty_since = now;
	}
	if (tick_done && draining)
		rules = true;
	else if (alerts > 0)
		rules = TimestampDifferenceExceeds(dirty_since, now, 2 * RULE_FLUSH_INTERVAL_MS);
	else
		rules = TimestampDifferenceExceeds(last_rule_flush, now, RULE_FLUSH_INTERVAL_MS);
	write = alerts > 0 || (tick_done && ra_queue_rotation_due(reader)) ||
		(dirty && (rules || TimestampDifferenceExceeds(last_flush, now, FLUSH_INTERVAL_MS)));
	rules = rules && write;
	if (write)
	{
		if (events > 0)
			done_through = items[batch_end - 1].arrived;
		flush(tick_done, alerts > 0, rules);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(worker_cxt);

	/* now it has happened */
	ra_statistics_written(streams, write, rules);
	if (write)
	{
		last_flush = GetCurrentTimestamp();
		dirty = !rules;
	}
	if (rules)
		last_rule_flush = last_flush;
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
	if (SPI_execute_plan(ra_kept_plan(&plan, "UPDATE risk_alert.queue_position SET database = $1,"
								   " low = $2::pg_snapshot, high = $3::pg_snapshot, done_through = $4",
								   4, types), values, nulls, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not store the queue position");
	SPI_finish();
}

/* Write statistics and position; empty what the queue no longer needs */
static void
flush(bool tick_done, bool durable, bool rules)
{
	ra_statistics_write(streams, rules);
	position_store(tick_done);
	if (tick_done)
		ra_queue_rotate(reader, high ? high : low);

	/* progress without alerts can be repeated, so nobody waits for the disk */
	if (!durable)
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
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
		PendingEvent id;
		PendingEvent *entry;
		RaRow		row;

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
		if (!ra_events_row(stream, &queued, &row))
			continue;
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
		ra_events_take(stream_get(queued.stream_id), &queued, snapshot);
	}

	ra_score_begin();
	ra_alert_begin();
	hash_seq_init(&seq, streams);
	while ((stream = hash_seq_search(&seq)) != NULL)
	{
		if (stream->nevents > 0)
			alerts += score_stream(stream, snapshot);
	}
	ra_alert_end();
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
			ra_statistics_absorb(before);
		stream->rs = NULL;
		stream->rs = ra_ruleset_get(stream_id);
		stream->generation = ra_config_generation;
		ra_apply_instances(stream);
	}
	return stream;
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

	ra_events_settle(stream);
	ra_events_identify(stream);
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
