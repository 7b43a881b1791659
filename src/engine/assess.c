/*
 * assess.c
 *	  risk_score() and risk_assess(): scoring on demand, in any backend.
 *
 * Reads the windows that the worker keeps; an entity that is not cached, or not
 * far enough back, is read from the table for this call alone (backends never
 * write to the cache).  The row at hand counts with the values at hand, whether
 * it is stored or not.  Where the order of arrival is not known, all events of
 * the row's time count.
 *
 * Rules and features run with their owners' rights and under fixed settings, as in the
 * worker.  A rule that fails does not fire; so that its error can be caught,
 * the evaluation runs in a subtransaction.  Parallel workers can't have one: there the
 * error is thrown.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "engine/cache.h"
#include "engine/feature.h"
#include "engine/rebuild.h"
#include "engine/ruleset.h"
#include "engine/score.h"
#include "risk_alert.h"

PG_FUNCTION_INFO_V1(ra_risk_score_row);
PG_FUNCTION_INFO_V1(ra_risk_score_json);
PG_FUNCTION_INFO_V1(ra_risk_assess_row);
PG_FUNCTION_INFO_V1(ra_risk_assess_json);

/* One call's answer; rs->row and rs->values are stored for reasons and features */
typedef struct Assessment
{
	RaRuleSet  *rs;
	RaScore		score;
} Assessment;

/* The instances of the rule set used last */
static RaRuleSet *known_rs = NULL;
static uint64 known_generation = 0;
static RaInstance *known_instances = NULL;

static void assess_row(HeapTupleHeader header, Assessment *result);
static void assess_json(text *stream, Jsonb *event, Assessment *result);
static void assess(RaRuleSet *rs, RaRow *row, Assessment *result);
static void assess_guarded(RaRuleSet *rs, RaRow *row, Assessment *result);
static void assess_features(RaRuleSet *rs, RaRow *row);
static RaInstance instance_of(RaRuleSet *rs, int entity);
static HeapTupleHeader populate_row(Oid type, Jsonb *event);
static void forget_culprits(XactEvent event, void *arg);
static RaRuleSet *ruleset_or_error(int32 stream_id, const char *name);
static Datum assessment_record(FunctionCallInfo fcinfo, Assessment *a);

Datum
ra_risk_score_row(PG_FUNCTION_ARGS)
{
	Assessment	a;

	assess_row(PG_GETARG_HEAPTUPLEHEADER(0), &a);
	PG_RETURN_INT32(a.score.score);
}

Datum
ra_risk_score_json(PG_FUNCTION_ARGS)
{
	Assessment	a;

	assess_json(PG_GETARG_TEXT_PP(0), PG_GETARG_JSONB_P(1), &a);
	PG_RETURN_INT32(a.score.score);
}

Datum
ra_risk_assess_row(PG_FUNCTION_ARGS)
{
	Assessment	a;

	assess_row(PG_GETARG_HEAPTUPLEHEADER(0), &a);
	return assessment_record(fcinfo, &a);
}

Datum
ra_risk_assess_json(PG_FUNCTION_ARGS)
{
	Assessment	a;

	assess_json(PG_GETARG_TEXT_PP(0), PG_GETARG_JSONB_P(1), &a);
	return assessment_record(fcinfo, &a);
}

/* The row's type names the stream */
static void
assess_row(HeapTupleHeader header, Assessment *result)
{
	Oid			type = HeapTupleHeaderGetTypeId(header);
	Oid			relid = type == RECORDOID ? InvalidOid : get_typ_typrelid(getBaseType(type));
	int32		stream_id = OidIsValid(relid) ? ra_stream_by_relid(relid) : 0;
	RaRuleSet  *rs;
	TupleDesc	desc;
	HeapTupleData tuple;
	Datum	   *values;
	bool	   *nulls;
	RaRow		row;
	int			i;

	if (stream_id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type %s is not the row type of a watched table", format_type_be(type)),
				 errhint("Pass a row of the table itself, as in SELECT risk_alert.risk_score(t) FROM payments t, "
						 "or name the stream: risk_alert.risk_score('payments', to_jsonb(t)).")));
	rs = ruleset_or_error(stream_id, NULL);

	desc = lookup_rowtype_tupdesc(type, HeapTupleHeaderGetTypMod(header));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	values = palloc(desc->natts * sizeof(Datum));
	nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(&tuple, desc, values, nulls);

	row.values = palloc0(Max(rs->ncaptured, 1) * sizeof(Datum));
	row.nulls = palloc(Max(rs->ncaptured, 1) * sizeof(bool));
	for (i = 0; i < rs->ncaptured; i++)
	{
		AttrNumber	attno = rs->captured[i];

		/* a partition may have its columns in another order */
		if (relid != rs->relid)
			attno = get_attnum(relid, get_attname(rs->relid, attno, false));
		row.nulls[i] = attno <= 0 || attno > desc->natts || nulls[attno - 1];
		if (!row.nulls[i])
			row.values[i] = values[attno - 1];
	}
	ReleaseTupleDesc(desc);
	assess(rs, &row, result);
}

static void
assess_json(text *stream, Jsonb *event, Assessment *result)
{
	char	   *name = text_to_cstring(stream);
	int32		stream_id = ra_stream_by_name(name);
	RaRuleSet  *rs;
	HeapTupleHeader header;
	HeapTupleData tuple;
	TupleDesc	desc;
	RaRow		row;
	int			i;

	if (stream_id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream \"%s\" does not exist", name),
				 errhint("The view risk_alert.streams lists the streams.")));
	if (!JB_ROOT_IS_OBJECT(event))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an event must be a JSON object with the columns of stream \"%s\"", name)));
	rs = ruleset_or_error(stream_id, name);

	/* from here on, the table's columns are those that the rule set knows */
	LockRelationOid(rs->relid, AccessShareLock);
	if (rs->stale)
		rs = ruleset_or_error(stream_id, name);

	header = populate_row(get_rel_type_id(rs->relid), event);
	desc = lookup_rowtype_tupdesc(get_rel_type_id(rs->relid), -1);
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;

	row.values = palloc0(Max(rs->ncaptured, 1) * sizeof(Datum));
	row.nulls = palloc(Max(rs->ncaptured, 1) * sizeof(bool));
	for (i = 0; i < rs->ncaptured; i++)
	{
		row.values[i] = heap_getattr(&tuple, rs->captured[i], desc, &row.nulls[i]);
		/* an event without a time happens now */
		if (rs->captured[i] == rs->time_attno && row.nulls[i])
		{
			TimestampTz now = GetCurrentTransactionStartTimestamp();

			row.nulls[i] = false;
			row.values[i] = rs->time_type == DATEOID
				? DateADTGetDatum((DateADT) (now / USECS_PER_DAY)) : TimestampTzGetDatum(now);
		}
	}
	ReleaseTupleDesc(desc);
	assess(rs, &row, result);
}

/*
 * jsonb_populate_record(NULL::type, event).  The function learns the type from
 * its call expression, which we make up.  What it finds out about the type is
 * forgotten with the call: it would not notice that the type is altered, and a
 * domain's constraint may call us again meanwhile.
 */
static HeapTupleHeader
populate_row(Oid type, Jsonb *event)
{
	FmgrInfo	flinfo;
	LOCAL_FCINFO(fcinfo, 2);
	Datum		record;

	fmgr_info(F_JSONB_POPULATE_RECORD, &flinfo);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_JSONB_POPULATE_RECORD, type,
											 list_make2(makeNullConst(type, -1, InvalidOid),
														makeNullConst(JSONBOID, -1, InvalidOid)),
											 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
					   &flinfo);
	InitFunctionCallInfoData(*fcinfo, &flinfo, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = (Datum) 0;
	fcinfo->args[0].isnull = true;
	fcinfo->args[1].value = JsonbPGetDatum(event);
	fcinfo->args[1].isnull = false;
	record = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		elog(ERROR, "could not make a row from an event");
	return DatumGetHeapTupleHeader(record);
}

/* After an error that nobody here caught, nothing is being evaluated */
static void
forget_culprits(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PARALLEL_ABORT)
	{
		ra_culprit_rule = NULL;
		ra_culprit_measure = NULL;
	}
}

static RaRuleSet *
ruleset_or_error(int32 stream_id, const char *name)
{
	static bool registered = false;
	RaRuleSet  *rs;

	/*
	 * The rule set's slots and contexts serve one event at a time, and a rule's
	 * function that scores an event may be evaluated for the same stream.
	 */
	if (ra_culprit_rule != NULL || ra_culprit_measure != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an event cannot be scored while a rule or feature of another one is evaluated"),
				 errhint("Remove the call of risk_score() or risk_assess() from what the rule or feature calls.")));

	/*
	 * Nor is there one while it is being loaded, when planning evaluates what
	 * is constant.  And the worker relies on being the only one there that has
	 * rule sets loaded anew.
	 */
	if (ra_ruleset_loading() || ra_score_in_worker())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an event cannot be scored while rules are loaded or events are processed"),
				 errhint("Remove the call of risk_score() or risk_assess() from what rules, features and tables' columns call.")));
	if (!registered)
	{
		RegisterXactCallback(forget_culprits, NULL);
		registered = true;
	}
	ra_check_version();
	rs = ra_ruleset_get(stream_id);
	if (rs == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream \"%s\" does not exist", name ? name : "?")));
	if (rs->broken)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" can't be scored", rs->name),
				 errdetail("%s", rs->broken),
				 errhint("See risk_alert.check_setup().")));
	return rs;
}

static void
assess(RaRuleSet *rs, RaRow *row, Assessment *result)
{
	int			level;

	ra_row_identify(rs, row);
	if (!row->timed)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event time of stream \"%s\" must be neither null nor infinite", rs->name)));

	level = ra_settings_enter();
	result->rs = rs;
	result->score.fired = palloc(Max(rs->nrules, 1) * sizeof(int));
	if (IsInParallelMode())
	{
		PG_TRY();
		{
			assess_features(rs, row);
			ra_score_rules(rs, &result->score);
		}
		PG_CATCH();
		{
			/* whoever catches it may go on with the transaction */
			ra_culprit_rule = NULL;
			ra_culprit_measure = NULL;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	else
		assess_guarded(rs, row, result);
	ra_settings_leave(level);
}

/*
 * Evaluate in a subtransaction; when a rule or a feature's expression fails,
 * mark it careful and begin anew.  Each round marks one more, so it ends.
 */
static void
assess_guarded(RaRuleSet *rs, RaRow *row, Assessment *result)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	RaIdentity	save;
	volatile bool done = false;

	GetUserIdAndSecContext(&save.userid, &save.sec_context);
	while (!done)
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(cxt);
		PG_TRY();
		{
			assess_features(rs, row);
			ra_score_rules(rs, &result->score);
			ReleaseCurrentSubTransaction();
			done = true;
		}
		PG_CATCH();
		{
			RaRule	   *rule = ra_culprit_rule;
			RaMeasure  *measure = ra_culprit_measure;
			ErrorData  *error;

			ra_culprit_rule = NULL;
			ra_culprit_measure = NULL;

			/* whoever catches the error we throw takes care of his own subtransaction only */
			MemoryContextSwitchTo(cxt);
			error = CopyErrorData();
			FlushErrorState();
			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(cxt);
			CurrentResourceOwner = owner;
			SetUserIdAndSecContext(save.userid, save.sec_context);
			if (ra_evaluation_disturbed(error->sqlerrcode) ||
				((rule == NULL || rule->careful) && (measure == NULL || measure->careful)))
				ReThrowError(error);
			FreeErrorData(error);
			if (rule)
				rule->careful = true;
			if (measure)
				measure->careful = true;
		}
		PG_END_TRY();
	}
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
}

static void
assess_features(RaRuleSet *rs, RaRow *row)
{
	RaFeatureResult *results = ra_feature_results(rs);
	int64	   *lower = palloc(Max(rs->nfeatures, 1) * sizeof(int64));
	bool	   *wide = palloc0(Max(rs->nlookups, 1) * sizeof(bool));
	bool	   *self_of = palloc0(Max(rs->nlookups, 1) * sizeof(bool));
	RaValue   **measures = palloc(Max(rs->nentities, 1) * sizeof(RaValue *));
	int			i,
				l,
				f;

	ResetExprContext(rs->econtext);
	ra_row_store(rs, row);
	for (i = 0; i < rs->nentities; i++)
	{
		measures[i] = palloc(Max(rs->entities[i].spec.nmeasures, 1) * sizeof(RaValue));
		if (!ra_measure_row(rs, &rs->entities[i], measures[i]))
			measures[i] = NULL;
	}
	ra_features_bounds(rs, row->time, lower);

	for (l = 0; l < rs->nlookups; l++)
	{
		RaLookup   *lookup = &rs->lookups[l];
		RaEntity   *entity = &rs->entities[lookup->entity];
		RaEntityId	id = ra_entity_id(rs, &lookup->columns, row);
		RaEntityId	own = lookup->own ? id : ra_entity_id(rs, &entity->columns, row);
		RaInstance	instance;
		const RaValue *self = NULL;
		int64		needed = row->time;
		RaWindow   *local = NULL;
		bool		done = false;

		if (!id.present)
		{
			ra_features_look(rs, l, NULL, false, row, NULL, true, 0, lower, results);
			continue;
		}
		for (f = 0; f < rs->nfeatures; f++)
			if (rs->features[f].lookup == l)
				needed = Min(needed, lower[f]);
		if (own.present && own.hash.h[0] == id.hash.h[0] && own.hash.h[1] == id.hash.h[1])
		{
			self_of[l] = true;
			self = measures[lookup->entity];
			if (self == NULL)
			{
				wide[l] = true;
				continue;
			}
		}

		instance = instance_of(rs, lookup->entity);
		while (!done && !wide[l])
		{
			bool		again = false;

			if (local == NULL)
			{
				RaWindow   *window;
				bool		is_wide;

				window = ra_cache_lock(instance, id.hash, RA_CACHE_READ, &is_wide);
				if (window && is_wide)
					wide[l] = true;
				else if (window && window->complete_from <= needed)
					done = ra_features_look(rs, l, window, false, row, self, true, 0, lower, results);
				ra_cache_unlock(instance, id.hash);
			}
			else
				done = ra_features_look(rs, l, local, false, row, self, true, 0, lower, results);

			if (!done && !wide[l])
			{
				RaRebuild	rebuild;

				rebuild.lower = needed;
				rebuild.values = palloc(entity->columns.n * sizeof(Datum));
				for (i = 0; i < entity->columns.n; i++)
				{
					bool		isnull;

					rebuild.values[i] = ra_row_value(rs, row, lookup->columns.attnos[i], &isnull);
				}
				ra_rebuild(rs, lookup->entity, 1, &rebuild, row->time, GetActiveSnapshot(),
						   NULL);
				ra_row_store(rs, row);
				wide[l] = rebuild.wide;
				local = rebuild.window;

				/*
				 * Where this row is stored is no matter: without itself, all
				 * events of its time stand before it.
				 */
				if (!wide[l] && self)
					ra_window_remove(local, &entity->spec, row->time, row->key);
				continue;
			}

			for (f = 0; f < rs->nfeatures && done; f++)
			{
				RaFeatureResult *result = &results[f];

				if (rs->features[f].lookup == l && result->found && result->needed > result->room)
				{
					result->room = result->needed;
					result->bytes = palloc(result->room);
					again = true;
				}
			}
			if (again)
				done = false;
		}
	}

	ra_features_store(rs, results);
	for (l = 0; l < rs->nlookups; l++)
		if (wide[l])
			ra_exact_features(rs, l, row, self_of[l], lower, GetActiveSnapshot(), NULL);
}

/* The worker's instance of an entity, looked up once per rule set */
static RaInstance
instance_of(RaRuleSet *rs, int entity)
{
	if (known_rs != rs || known_generation != ra_config_generation)
	{
		if (known_instances)
			pfree(known_instances);
		known_instances = MemoryContextAllocZero(TopMemoryContext,
												 Max(rs->nentities, 1) * sizeof(RaInstance));
		known_rs = rs;
		known_generation = ra_config_generation;
	}
	if (!ra_cache_instance_live(known_instances[entity]))
		known_instances[entity] = ra_cache_find_instance(rs->entities[entity].layout_hash);
	return known_instances[entity];
}

/* (score int, decision text, reasons jsonb, features jsonb, rule_set_version bigint, epoch bigint) */
static Datum
assessment_record(FunctionCallInfo fcinfo, Assessment *a)
{
	TupleDesc	desc;
	Datum		values[6];
	bool		nulls[6] = {false};
	int			level = ra_settings_enter();

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum(a->score.score);
	values[1] = CStringGetTextDatum(ra_decision_names[a->score.decision]);
	values[2] = JsonbPGetDatum(ra_score_reasons(a->rs, &a->score));
	values[3] = JsonbPGetDatum(ra_score_features(a->rs));
	values[4] = Int64GetDatum(a->rs->version);
	values[5] = Int64GetDatum(a->rs->epoch);
	nulls[5] = a->rs->epoch == 0;
	ra_settings_leave(level);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
