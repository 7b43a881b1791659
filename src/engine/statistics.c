/*
 * statistics.c
 *	  What the worker counts, on its way to the tables stream_stat and rule_stat.
 *
 * Streams count in RaStream, rules in their rule set, as it is evaluated.  A rule set
 * that is replaced hands its counters over to a hash here.  All of it is written
 * with the queue's position, so that what was processed and what was counted
 * agree, but rules less often, as they are many.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "engine/statistics.h"
#include "shmem.h"

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

static HTAB *rule_counters;

static void flush_streams(HTAB *streams);
static void flush_rules(HTAB *streams);
static void suspend_stuck(void);

void
ra_statistics_init(MemoryContext cxt)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.hcxt = cxt;
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(RuleCounters);
	rule_counters = hash_create("risk_alert rule counters", 64, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
ra_statistics_write(HTAB *streams, bool rules)
{
	flush_streams(streams);
	if (rules)
		flush_rules(streams);
}

void
ra_statistics_written(HTAB *streams, bool written, bool rules)
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
	if (rules)
	{
		RuleCounters *counters;

		hash_seq_init(&seq, rule_counters);
		while ((counters = hash_seq_search(&seq)) != NULL)
			hash_search(rule_counters, &counters->rule_id, HASH_REMOVE, NULL);
	}
}

void
ra_statistics_absorb(RaRuleSet *rs)
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

SPIPlanPtr
ra_kept_plan(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types)
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
flush_streams(HTAB *streams)
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
		if (SPI_execute_plan(ra_kept_plan(&plan, "INSERT INTO risk_alert.stream_stat AS s (stream_id, processed, scored,"
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
flush_rules(HTAB *streams)
{
	static SPIPlanPtr plan = NULL;
	HASH_SEQ_STATUS seq;
	RaStream   *stream;
	RuleCounters *counters;

	suspend_stuck();
	hash_seq_init(&seq, streams);
	while ((stream = hash_seq_search(&seq)) != NULL)
		if (stream->rs)
			ra_statistics_absorb(stream->rs);

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
		if (SPI_execute_plan(ra_kept_plan(&plan, "INSERT INTO risk_alert.rule_stat AS s (rule_id, evaluated, fired, errors,"
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
