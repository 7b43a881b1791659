/*
 * alert.c
 *	  Raising alerts, exactly once per event.
 *
 * risk_alert.alert_event has one row per (stream, event key) that led to an
 * alert, written in the transaction that also moves the queue position: an event that
 * is seen again after a crash finds its row there.
 *
 * The worker must not wait for an analyst who keeps an alert locked: such an
 * alert is passed over (SKIP LOCKED), and the event raises one of its own.
 *
 * Keys, entities and times come from the user's rows, whoever filled these in:
 * no value that a table can hold may keep an alert from being written.  Indexes
 * take only short values, so keys are told apart by ra_event_id() and entities are
 * found by a hash.
 *
 * Each step exists twice: directly (direct.c), which is how it usually goes,
 * and as a statement, for tables that somebody has put a trigger or a rewrite
 * rule on.  Both must do the same.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "common/int.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "mb/pg_wchar.h"

#include "compat.h"
#include "engine/alert.h"
#include "engine/direct.h"

/* NOTIFY takes less than 8000 bytes; the entity is the only long part */
#define NOTIFY_ENTITY_MAX 4000

/* keys up to this many bytes are their own event_id; digests are longer */
#define EVENT_ID_MAX_PLAIN 63

/* Columns of risk_alert.alert and alert_event, in order */
enum
{
	A_ALERT_ID, A_STREAM_ID, A_STREAM, A_EVENT_KEY, A_ENTITY, A_LEAD_RULE, A_EVENT_TIME, A_RAISED_AT,
	A_SCORE, A_DECISION, A_SEVERITY, A_RULES, A_REASONS, A_FEATURES, A_RULE_SET_VERSION, A_STATUS,
	A_ASSIGNEE, A_OUTCOME, A_EVENTS, A_LAST_EVENT_TIME, A_EPOCH, A_COLUMNS
};

static const RaDirectColumn alert_columns[A_COLUMNS] = {
	[A_ALERT_ID] = {"alert_id", INT8OID, true},
	[A_STREAM_ID] = {"stream_id", INT4OID},
	[A_STREAM] = {"stream", TEXTOID},
	[A_EVENT_KEY] = {"event_key", TEXTOID},
	[A_ENTITY] = {"entity", TEXTOID},
	[A_LEAD_RULE] = {"lead_rule", TEXTOID},
	[A_EVENT_TIME] = {"event_time", TIMESTAMPTZOID},
	[A_RAISED_AT] = {"raised_at", TIMESTAMPTZOID, true},
	[A_SCORE] = {"score", INT4OID},
	[A_DECISION] = {"decision", TEXTOID},
	[A_SEVERITY] = {"severity", TEXTOID},
	[A_RULES] = {"rules", TEXTARRAYOID},
	[A_REASONS] = {"reasons", JSONBOID},
	[A_FEATURES] = {"features", JSONBOID},
	[A_RULE_SET_VERSION] = {"rule_set_version", INT8OID},
	[A_STATUS] = {"status", TEXTOID, true},
	[A_ASSIGNEE] = {"assignee", InvalidOid, true},
	[A_OUTCOME] = {"outcome", TEXTOID, true},
	[A_EVENTS] = {"events", INT8OID, true},
	[A_LAST_EVENT_TIME] = {"last_event_time", TIMESTAMPTZOID},
	[A_EPOCH] = {"epoch", INT8OID}
};

enum
{
	E_STREAM_ID, E_EVENT_KEY, E_EVENT_ID, E_ALERT_ID, E_EVENT_TIME, E_SCORE, E_RULES, E_COLUMNS
};

static const RaDirectColumn event_columns[E_COLUMNS] = {
	[E_STREAM_ID] = {"stream_id", INT4OID},
	[E_EVENT_KEY] = {"event_key", TEXTOID},
	[E_EVENT_ID] = {"event_id", TEXTOID, true},
	[E_ALERT_ID] = {"alert_id", INT8OID},
	[E_EVENT_TIME] = {"event_time", TIMESTAMPTZOID},
	[E_SCORE] = {"score", INT4OID},
	[E_RULES] = {"rules", TEXTARRAYOID}
};

/* An event that alerts, as it is written */
typedef struct Alert
{
	RaRuleSet  *rs;
	const RaScore *score;
	TimestampTz time;
	const char *entity;			/* or NULL */
	Datum		key;
	Datum		id;
	Datum		entity_text;	/* if there is an entity */
	Datum		lead_name;
	Datum		decision;
	Datum		severity;
	Datum		rules;
	TimestampTz fold_after;		/* an alert of a time between these ... */
	TimestampTz fold_before;	/* ... takes the event in */
} Alert;

PG_FUNCTION_INFO_V1(ra_event_id_fn);

/* Open from a batch's first alert on */
static RaDirectTable alerts = {"alert", alert_columns, A_COLUMNS};
static RaDirectTable events = {"alert_event", event_columns, E_COLUMNS};
static Relation fold_index;		/* NULL: folding is left to the statement */
static Relation event_index;	/* likewise */

static SPIPlanPtr known_plan;
static SPIPlanPtr fold_plan;
static SPIPlanPtr raise_plan;
static SPIPlanPtr event_plan;

static SPIPlanPtr
keep_plan(const char *sql, int nargs, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare_cursor(sql, nargs, types, CURSOR_OPT_GENERIC_PLAN);

	if (plan == NULL)
		elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

static void
prepare(void)
{
	if (known_plan == NULL)
		known_plan = keep_plan("SELECT 1 FROM risk_alert.alert_event"
							   " WHERE stream_id = $1 AND event_id = $2",
							   2, (Oid[]) {INT4OID, TEXTOID});
	if (fold_plan == NULL)
		fold_plan = keep_plan("UPDATE risk_alert.alert SET events = events + 1,"
							  " last_event_time = greatest(last_event_time, $4),"
							  " score = greatest(score, $7),"
							  " decision = CASE WHEN 'deny' IN (decision, $8) THEN 'deny' ELSE decision END,"
							  " severity = CASE WHEN array_position('{low,medium,high,critical}'::text[], $9)"
							  " > array_position('{low,medium,high,critical}'::text[], severity)"
							  " THEN $9 ELSE severity END"
							  " WHERE alert_id = (SELECT a.alert_id FROM risk_alert.alert a"
							  " WHERE a.stream_id = $1"
							  " AND hashtextextended(a.entity, 0) = hashtextextended($2, 0) AND a.entity = $2"
							  " AND a.lead_rule = $3 AND a.status <> 'resolved'"
							  " AND a.event_time > $5 AND a.event_time < $6"
							  " ORDER BY a.event_time DESC LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)"
							  " RETURNING alert_id",
							  9, (Oid[]) {INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
							  TIMESTAMPTZOID, INT4OID, TEXTOID, TEXTOID});
	if (raise_plan == NULL)
		raise_plan = keep_plan("INSERT INTO risk_alert.alert (stream_id, stream, event_key, entity, lead_rule,"
							   " event_time, last_event_time, score, decision, severity, rules, reasons,"
							   " features, rule_set_version, epoch)"
							   " VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
							   " RETURNING alert_id",
							   14, (Oid[]) {INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
							   TIMESTAMPTZOID, INT4OID, TEXTOID, TEXTOID, TEXTARRAYOID, JSONBOID,
							   JSONBOID, INT8OID, INT8OID});
	if (event_plan == NULL)
		event_plan = keep_plan("INSERT INTO risk_alert.alert_event"
							   " (stream_id, event_key, alert_id, event_time, score, rules)"
							   " VALUES ($1, $2, $3, $4, $5, $6)",
							   6, (Oid[]) {INT4OID, TEXTOID, INT8OID, TIMESTAMPTZOID, INT4OID,
							   TEXTARRAYOID});
}

/* The alert_id that the last statement returned, or 0 */
static int64
returned_id(void)
{
	bool		isnull;

	if (SPI_processed == 0)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

static Datum
event_id(Datum key)
{
	Datum		digest;

	if (VARSIZE_ANY_EXHDR(DatumGetPointer(key)) <= EVENT_ID_MAX_PLAIN)
		return key;
	digest = DirectFunctionCall1(sha256_bytea, key);
	return DirectFunctionCall2(binary_encode, digest, CStringGetTextDatum("hex"));
}

/*
 * risk_alert._event_id(event_key text)
 */
Datum
ra_event_id_fn(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(event_id(PointerGetDatum(PG_GETARG_TEXT_PP(0))));
}

/*
 * time plus (sign 1) or minus (-1) an interval; infinity if that is no time
 */
static TimestampTz
moved(TimestampTz time, const Interval *by, int sign)
{
	TimestampTz beyond = sign > 0 ? DT_NOEND : DT_NOBEGIN;
	int64		result = time;
	int64		days = by->day + by->time / USECS_PER_DAY;
	int64		span;

	if (by->month == PG_INT32_MIN)
		return beyond;
	if (by->month != 0)
	{
		Interval	months = {0, 0, sign * by->month};
		int64		room = (by->month > 0 ? by->month : -(int64) by->month) * 31;

		/* compared in days, which don't overflow */
		if (result / USECS_PER_DAY > END_TIMESTAMP / USECS_PER_DAY - room ||
			result / USECS_PER_DAY < MIN_TIMESTAMP / USECS_PER_DAY + room)
			return beyond;
		result = DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval,
													   TimestampGetDatum(result),
													   IntervalPGetDatum(&months)));
	}
	/* days and time may be of opposite signs: only their sum has to fit */
	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &span) ||
		pg_add_s64_overflow(span, by->time % USECS_PER_DAY, &span) ||
		pg_mul_s64_overflow(span, sign, &span) ||
		pg_add_s64_overflow(result, span, &result) ||
		!IS_VALID_TIMESTAMP(result))
		return beyond;
	return result;
}

static void
notify(RaRuleSet *rs, int64 alert_id, const RaScore *score, const char *entity)
{
	StringInfoData payload;

	initStringInfo(&payload);
	appendStringInfo(&payload, "{\"alert_id\": " INT64_FORMAT ", \"stream\": ", alert_id);
	escape_json(&payload, rs->name);
	appendStringInfo(&payload, ", \"severity\": \"%s\", \"score\": %d, \"entity\": ",
					 ra_severity_names[score->severity], score->score);
	if (entity == NULL)
		appendStringInfoString(&payload, "null");
	else
	{
		int			len = strlen(entity);

		/* every character may double, or worse, when escaped */
		if (len > NOTIFY_ENTITY_MAX / 6)
			len = pg_mbcliplen(entity, len, NOTIFY_ENTITY_MAX / 6);
		escape_json(&payload, pnstrdup(entity, len));
	}
	appendStringInfoChar(&payload, '}');
	Async_Notify("risk_alert", payload.data);
}

void
ra_alert_begin(void)
{
	ra_direct_forget(&alerts);
	ra_direct_forget(&events);
}

void
ra_alert_end(void)
{
	if (alerts.rel)
	{
		ra_direct_close(&events);
		ra_direct_close(&alerts);
	}
}

static void
open_tables(void)
{
	ra_direct_open(&alerts);
	ra_direct_open(&events);
	fold_index = ra_direct_index(&alerts, "alert_fold",
								 (AttrNumber[]) {A_STREAM_ID + 1, 0, A_LEAD_RULE + 1, A_EVENT_TIME + 1}, 4);
	event_index = ra_direct_index(&events, NULL, (AttrNumber[]) {E_STREAM_ID + 1, E_EVENT_ID + 1}, 2);
}

/* Has the event led to an alert before? */
static bool
is_known(const Alert *alert)
{
	bool		known;

	if (event_index != NULL)
	{
		ScanKeyData keys[2];
		IndexScanDesc scan;
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		ra_direct_key(&keys[0], event_index, 1, BTEqualStrategyNumber, F_INT4EQ,
					  Int32GetDatum(alert->rs->stream_id));
		ra_direct_key(&keys[1], event_index, 2, BTEqualStrategyNumber, F_TEXTEQ, alert->id);
		scan = ra_index_beginscan(events.rel, event_index, snapshot, 2, 0);
		index_rescan(scan, keys, 2, NULL, 0);
		known = index_getnext_slot(scan, ForwardScanDirection, events.found);
		index_endscan(scan);
		ExecClearTuple(events.found);
		UnregisterSnapshot(snapshot);
		return known;
	}

	SPI_connect();
	prepare();
	if (SPI_execute_plan(known_plan, (Datum[]) {Int32GetDatum(alert->rs->stream_id), alert->id},
						 NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up an event's alert");
	known = SPI_processed > 0;
	SPI_finish();
	return known;
}

static bool
text_equal(Datum a, Datum b)
{
	return DatumGetBool(DirectFunctionCall2Coll(texteq, DEFAULT_COLLATION_OID, a, b));
}

/* Does the row in alerts.found take the event in? */
static bool
takes(const Alert *alert)
{
	TupleTableSlot *row = alerts.found;
	TimestampTz time;

	slot_getallattrs(row);
	time = DatumGetTimestampTz(row->tts_values[A_EVENT_TIME]);
	return DatumGetInt32(row->tts_values[A_STREAM_ID]) == alert->rs->stream_id &&
		!row->tts_isnull[A_ENTITY] && text_equal(row->tts_values[A_ENTITY], alert->entity_text) &&
		text_equal(row->tts_values[A_LEAD_RULE], alert->lead_name) &&
		time > alert->fold_after && time < alert->fold_before &&
		!text_equal(row->tts_values[A_STATUS], CStringGetTextDatum("resolved"));
}

/*
 * Lock the row in alerts.found, and read its latest version into there.  False
 * if it is gone, or somebody else keeps it locked.
 */
static bool
lock_found(Snapshot snapshot)
{
	ItemPointerData tid = alerts.found->tts_tid;
	TM_FailureData failure;

	ExecClearTuple(alerts.found);
	switch (table_tuple_lock(alerts.rel, &tid, snapshot, alerts.found, GetCurrentCommandId(false),
							 LockTupleNoKeyExclusive, LockWaitSkip,
							 TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure))
	{
		case TM_Ok:
			return true;
		case TM_WouldBlock:
		case TM_Deleted:
			return false;
		default:
			elog(ERROR, "could not lock an alert");
	}
	return false;				/* not reached */
}

/* Which of the severities it is; more than any if none of ours */
static int
severity_rank(Datum severity)
{
	int			rank = 0;

	while (rank <= RA_SEVERITY_CRITICAL &&
		   !text_equal(severity, CStringGetTextDatum(ra_severity_names[rank])))
		rank++;
	return rank;
}

/* Fold the event into the latest alert that takes it in; returns its alert_id, or 0 */
static int64
fold_directly(const Alert *alert)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Datum		hash = DirectFunctionCall2Coll(hashtextextended, DEFAULT_COLLATION_OID,
											   alert->entity_text, Int64GetDatum(0));
	ScanKeyData keys[5];
	IndexScanDesc scan;
	int64		alert_id = 0;

	ra_direct_key(&keys[0], fold_index, 1, BTEqualStrategyNumber, F_INT4EQ,
				  Int32GetDatum(alert->rs->stream_id));
	ra_direct_key(&keys[1], fold_index, 2, BTEqualStrategyNumber, F_INT8EQ, hash);
	ra_direct_key(&keys[2], fold_index, 3, BTEqualStrategyNumber, F_TEXTEQ, alert->lead_name);
	ra_direct_key(&keys[3], fold_index, 4, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
				  TimestampTzGetDatum(alert->fold_after));
	ra_direct_key(&keys[4], fold_index, 4, BTLessStrategyNumber, F_TIMESTAMPTZ_LT,
				  TimestampTzGetDatum(alert->fold_before));
	scan = ra_index_beginscan(alerts.rel, fold_index, snapshot, 5, 0);
	index_rescan(scan, keys, 5, NULL, 0);
	while (alert_id == 0 && index_getnext_slot(scan, BackwardScanDirection, alerts.found))
	{
		/* once more when locked: it may have been resolved in between */
		if (takes(alert) && lock_found(snapshot) && takes(alert))
			alert_id = DatumGetInt64(alerts.found->tts_values[A_ALERT_ID]);
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);

	if (alert_id != 0)
	{
		TupleTableSlot *before = alerts.found;
		TupleTableSlot *after = alerts.slot;
		int			natts = after->tts_tupleDescriptor->natts;
		Datum	   *v = after->tts_values;

		ExecClearTuple(after);
		memcpy(v, before->tts_values, natts * sizeof(Datum));
		memcpy(after->tts_isnull, before->tts_isnull, natts * sizeof(bool));
		v[A_EVENTS] = Int64GetDatum(DatumGetInt64(v[A_EVENTS]) + 1);
		if (DatumGetTimestampTz(v[A_LAST_EVENT_TIME]) < alert->time)
			v[A_LAST_EVENT_TIME] = TimestampTzGetDatum(alert->time);
		if (DatumGetInt32(v[A_SCORE]) < alert->score->score)
			v[A_SCORE] = Int32GetDatum(alert->score->score);
		if (alert->score->decision == RA_DENY)
			v[A_DECISION] = alert->decision;
		if (severity_rank(v[A_SEVERITY]) < (int) alert->score->severity)
			v[A_SEVERITY] = alert->severity;
		ra_direct_update(&alerts);
	}
	ExecClearTuple(alerts.found);
	return alert_id;
}

/* The same by whatever way there is */
static int64
fold(const Alert *alert)
{
	Datum		args[9];
	int64		alert_id;

	if (fold_index != NULL && alerts.updatable)
		return fold_directly(alert);

	args[0] = Int32GetDatum(alert->rs->stream_id);
	args[1] = alert->entity_text;
	args[2] = alert->lead_name;
	args[3] = TimestampTzGetDatum(alert->time);
	args[4] = TimestampTzGetDatum(alert->fold_after);
	args[5] = TimestampTzGetDatum(alert->fold_before);
	args[6] = Int32GetDatum(alert->score->score);
	args[7] = alert->decision;
	args[8] = alert->severity;
	SPI_connect();
	prepare();
	if (SPI_execute_plan(fold_plan, args, NULL, false, 1) != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not fold an event into an alert");
	alert_id = returned_id();
	SPI_finish();
	return alert_id;
}

/* Write a new alert; returns its alert_id */
static int64
raise_alert(const Alert *alert)
{
	Datum		reasons = JsonbPGetDatum(ra_score_reasons(alert->rs, alert->score));
	Datum		features = JsonbPGetDatum(ra_score_features(alert->rs));
	Datum		args[14];
	char		nulls[15] = "              ";
	int64		alert_id;

	if (alerts.insertable)
	{
		Datum	   *v = alerts.slot->tts_values;
		bool	   *isnull = alerts.slot->tts_isnull;

		ra_direct_row(&alerts);
		v[A_STREAM_ID] = Int32GetDatum(alert->rs->stream_id);
		v[A_STREAM] = CStringGetTextDatum(alert->rs->name);
		v[A_EVENT_KEY] = alert->key;
		v[A_ENTITY] = alert->entity_text;
		isnull[A_ENTITY] = alert->entity == NULL;
		v[A_LEAD_RULE] = alert->lead_name;
		v[A_EVENT_TIME] = v[A_LAST_EVENT_TIME] = TimestampTzGetDatum(alert->time);
		v[A_SCORE] = Int32GetDatum(alert->score->score);
		v[A_DECISION] = alert->decision;
		v[A_SEVERITY] = alert->severity;
		v[A_RULES] = alert->rules;
		v[A_REASONS] = reasons;
		v[A_FEATURES] = features;
		v[A_RULE_SET_VERSION] = Int64GetDatum(alert->rs->version);
		v[A_EPOCH] = Int64GetDatum(alert->rs->epoch);
		isnull[A_EPOCH] = alert->rs->epoch == 0;
		alert_id = DatumGetInt64(v[A_ALERT_ID]);
		ra_direct_insert(&alerts);
		return alert_id;
	}

	args[0] = Int32GetDatum(alert->rs->stream_id);
	args[1] = CStringGetTextDatum(alert->rs->name);
	args[2] = alert->key;
	args[3] = alert->entity_text;
	if (alert->entity == NULL)
		nulls[3] = 'n';
	args[4] = alert->lead_name;
	args[5] = TimestampTzGetDatum(alert->time);
	args[6] = Int32GetDatum(alert->score->score);
	args[7] = alert->decision;
	args[8] = alert->severity;
	args[9] = alert->rules;
	args[10] = reasons;
	args[11] = features;
	args[12] = Int64GetDatum(alert->rs->version);
	args[13] = Int64GetDatum(alert->rs->epoch);
	if (alert->rs->epoch == 0)
		nulls[13] = 'n';
	SPI_connect();
	prepare();
	if (SPI_execute_plan(raise_plan, args, nulls, false, 1) != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not raise an alert");
	alert_id = returned_id();
	SPI_finish();
	return alert_id;
}

/* Note that the event is in the alert */
static void
record_event(const Alert *alert, int64 alert_id)
{
	Datum		args[6];

	if (events.insertable)
	{
		Datum	   *v = events.slot->tts_values;

		ra_direct_row(&events);
		v[E_STREAM_ID] = Int32GetDatum(alert->rs->stream_id);
		v[E_EVENT_KEY] = alert->key;
		v[E_ALERT_ID] = Int64GetDatum(alert_id);
		v[E_EVENT_TIME] = TimestampTzGetDatum(alert->time);
		v[E_SCORE] = Int32GetDatum(alert->score->score);
		v[E_RULES] = alert->rules;
		ra_direct_insert(&events);
		return;
	}

	args[0] = Int32GetDatum(alert->rs->stream_id);
	args[1] = alert->key;
	args[2] = Int64GetDatum(alert_id);
	args[3] = TimestampTzGetDatum(alert->time);
	args[4] = Int32GetDatum(alert->score->score);
	args[5] = alert->rules;
	SPI_connect();
	prepare();
	if (SPI_execute_plan(event_plan, args, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not record an event's alert");
	SPI_finish();
}

RaAlertResult
ra_alert_write(RaRuleSet *rs, const RaRow *row, const RaScore *score)
{
	RaRule	   *lead = &rs->rules[score->lead];
	RaAlertResult result = RA_ALERT_RAISED;
	Datum	   *names = palloc(score->nfired * sizeof(Datum));
	int64		alert_id = 0;
	Alert		alert;
	int			i;

	if (alerts.rel == NULL)
		open_tables();

	alert.rs = rs;
	alert.score = score;
	alert.time = row->time;
	alert.key = CStringGetTextDatum(ra_key_text(rs, row));
	alert.id = event_id(alert.key);
	if (is_known(&alert))
		return RA_ALERT_KNOWN;

	alert.entity = lead->lookup >= 0 ? ra_entity_text(rs, lead->lookup, row) : NULL;
	alert.entity_text = alert.entity ? CStringGetTextDatum(alert.entity) : (Datum) 0;
	alert.lead_name = CStringGetTextDatum(lead->name);
	alert.decision = CStringGetTextDatum(ra_decision_names[score->decision]);
	alert.severity = CStringGetTextDatum(ra_severity_names[score->severity]);
	for (i = 0; i < score->nfired; i++)
		names[i] = CStringGetTextDatum(rs->rules[score->fired[i]].name);
	alert.rules = PointerGetDatum(construct_array(names, score->nfired, TEXTOID, -1, false, TYPALIGN_INT));
	alert.fold_after = moved(row->time, &rs->suppress, -1);
	alert.fold_before = moved(row->time, &rs->suppress, 1);

	if (alert.entity != NULL)
		alert_id = fold(&alert);
	if (alert_id != 0)
		result = RA_ALERT_FOLDED;
	else
	{
		alert_id = raise_alert(&alert);
		notify(rs, alert_id, score, alert.entity);
	}
	record_event(&alert, alert_id);
	return result;
}
