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
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "common/int.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "mb/pg_wchar.h"

#include "engine/alert.h"

/* NOTIFY takes less than 8000 bytes; the entity is the only long part */
#define NOTIFY_ENTITY_MAX 4000

/* keys up to this many bytes are their own event_id; digests are longer */
#define EVENT_ID_MAX_PLAIN 63

PG_FUNCTION_INFO_V1(ra_event_id_fn);

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
							   " features, rule_set_version)"
							   " VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10, $11, $12, $13)"
							   " RETURNING alert_id",
							   13, (Oid[]) {INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
							   TIMESTAMPTZOID, INT4OID, TEXTOID, TEXTOID, TEXTARRAYOID, JSONBOID,
							   JSONBOID, INT8OID});
	if (event_plan == NULL)
		event_plan = keep_plan("INSERT INTO risk_alert.alert_event"
							   " (stream_id, event_key, alert_id, event_time, score, rules)"
							   " VALUES ($1, $2, $3, $4, $5, $6)",
							   6, (Oid[]) {INT4OID, TEXTOID, INT8OID, TIMESTAMPTZOID, INT4OID,
							   TEXTARRAYOID});
}

static Datum
json_datum(char *text)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
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
	int64		days;

	if (by->month != 0)
	{
		Interval	months = {0, 0, sign * by->month};
		int64		room = Abs((int64) by->month) * 31;

		/* compared in days, which don't overflow */
		if (result / USECS_PER_DAY > END_TIMESTAMP / USECS_PER_DAY - room ||
			result / USECS_PER_DAY < MIN_TIMESTAMP / USECS_PER_DAY + room)
			return beyond;
		result = DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval,
													   TimestampGetDatum(result),
													   IntervalPGetDatum(&months)));
	}
	if (pg_mul_s64_overflow((int64) sign * by->day, USECS_PER_DAY, &days) ||
		pg_add_s64_overflow(result, days, &result) ||
		pg_add_s64_overflow(result, sign * by->time, &result) ||
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

RaAlertResult
ra_alert_write(RaRuleSet *rs, const RaRow *row, const RaScore *score)
{
	RaRule	   *lead = &rs->rules[score->lead];
	RaAlertResult result = RA_ALERT_RAISED;
	Datum		key = CStringGetTextDatum(ra_key_text(rs, row));
	Datum		id = event_id(key);
	char	   *entity = lead->lookup >= 0 ? ra_entity_text(rs, lead->lookup, row) : NULL;
	Datum	   *names = palloc(score->nfired * sizeof(Datum));
	Datum		rules;
	int64		alert_id = 0;
	int			i;

	for (i = 0; i < score->nfired; i++)
		names[i] = CStringGetTextDatum(rs->rules[score->fired[i]].name);
	rules = PointerGetDatum(construct_array(names, score->nfired, TEXTOID, -1, false, TYPALIGN_INT));

	SPI_connect();
	prepare();

	if (SPI_execute_plan(known_plan, (Datum[]) {Int32GetDatum(rs->stream_id), id}, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up an event's alert");
	if (SPI_processed > 0)
	{
		SPI_finish();
		return RA_ALERT_KNOWN;
	}

	if (entity != NULL)
	{
		Datum		args[9];

		args[0] = Int32GetDatum(rs->stream_id);
		args[1] = CStringGetTextDatum(entity);
		args[2] = CStringGetTextDatum(lead->name);
		args[3] = TimestampTzGetDatum(row->time);
		args[4] = TimestampTzGetDatum(moved(row->time, &rs->suppress, -1));
		args[5] = TimestampTzGetDatum(moved(row->time, &rs->suppress, 1));
		args[6] = Int32GetDatum(score->score);
		args[7] = CStringGetTextDatum(ra_decision_names[score->decision]);
		args[8] = CStringGetTextDatum(ra_severity_names[score->severity]);
		if (SPI_execute_plan(fold_plan, args, NULL, false, 1) != SPI_OK_UPDATE_RETURNING)
			elog(ERROR, "could not fold an event into an alert");
		alert_id = returned_id();
		if (alert_id != 0)
			result = RA_ALERT_FOLDED;
	}

	if (alert_id == 0)
	{
		Datum		args[13];
		char		nulls[14] = "             ";

		args[0] = Int32GetDatum(rs->stream_id);
		args[1] = CStringGetTextDatum(rs->name);
		args[2] = key;
		args[3] = entity ? CStringGetTextDatum(entity) : (Datum) 0;
		if (entity == NULL)
			nulls[3] = 'n';
		args[4] = CStringGetTextDatum(lead->name);
		args[5] = TimestampTzGetDatum(row->time);
		args[6] = Int32GetDatum(score->score);
		args[7] = CStringGetTextDatum(ra_decision_names[score->decision]);
		args[8] = CStringGetTextDatum(ra_severity_names[score->severity]);
		args[9] = rules;
		args[10] = json_datum(ra_score_reasons(rs, score));
		args[11] = json_datum(ra_score_features(rs));
		args[12] = Int64GetDatum(rs->version);
		if (SPI_execute_plan(raise_plan, args, nulls, false, 1) != SPI_OK_INSERT_RETURNING)
			elog(ERROR, "could not raise an alert");
		alert_id = returned_id();
		notify(rs, alert_id, score, entity);
	}

	{
		Datum		args[6];

		args[0] = Int32GetDatum(rs->stream_id);
		args[1] = key;
		args[2] = Int64GetDatum(alert_id);
		args[3] = TimestampTzGetDatum(row->time);
		args[4] = Int32GetDatum(score->score);
		args[5] = rules;
		if (SPI_execute_plan(event_plan, args, NULL, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not record an event's alert");
	}
	SPI_finish();
	return result;
}
