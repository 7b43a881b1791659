/*
 * feature.c
 *	  From events to windows' measures, and from windows to features' values.
 *
 * A window keeps integers, doubles, hashes and bytes (core/window.h); this file
 * knows which PostgreSQL type became what.  Results have the type and the value
 * that SQL's aggregate of the same name has; numeric sums are integers scaled
 * by 10^scale, so they are exact, and avg and stddev divide as numeric does.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datum.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "access/xact.h"

#include "core/decimal.h"
#include "engine/feature.h"
#include "engine/score.h"

RaMeasure  *ra_culprit_measure = NULL;

static bool measure_evaluate(RaRuleSet *rs, RaMeasure *measure, Datum *value, bool *isnull);
static bool measure_evaluate_careful(RaRuleSet *rs, RaMeasure *measure, Datum *value, bool *isnull);
static bool measure_value(RaMeasure *measure, Datum value, RaValue *out);
static int	feature_wants(const RaFeature *feature);
static Datum feature_datum(const RaRuleSet *rs, const RaFeature *feature,
						   const RaFeatureResult *result, bool *isnull);
static Datum displayed(const RaMeasure *measure, Datum numeric);
static Datum number_from(const RaMeasure *measure, int64 value);
static Datum sum_of(const RaMeasure *measure, const RaAggregate *a);
static Datum deviation_of(const RaFeature *feature, const RaMeasure *measure, const RaAggregate *a,
						  bool *isnull);
static Datum make_numeric(ra_int128 value, int scale);
static Datum special_numeric(const char *text);

static int
captured_index(const RaRuleSet *rs, AttrNumber attno)
{
	int			lo = 0;
	int			hi = rs->ncaptured - 1;

	while (lo <= hi)
	{
		int			mid = (lo + hi) / 2;

		if (rs->captured[mid] == attno)
			return mid;
		if (rs->captured[mid] < attno)
			lo = mid + 1;
		else
			hi = mid - 1;
	}
	elog(ERROR, "column %d of stream \"%s\" is not captured", attno, rs->name);
	return -1;
}

Datum
ra_row_value(const RaRuleSet *rs, const RaRow *row, AttrNumber attno, bool *isnull)
{
	int			i = captured_index(rs, attno);

	*isnull = row->nulls[i];
	return row->values[i];
}

/* Hash one value with the type's own extended hash function: equal values hash equal */
static uint64
hash_value(const RaColumns *columns, int i, Datum value, uint64 seed)
{
	return DatumGetUInt64(FunctionCall2Coll((FmgrInfo *) &columns->hash[i], columns->collations[i],
											value, UInt64GetDatum(seed)));
}

void
ra_row_identify(const RaRuleSet *rs, RaRow *row)
{
	bool		isnull;
	Datum		t = ra_row_value(rs, row, rs->time_attno, &isnull);
	uint64		seed = ra_cache_seed(0);
	int			i;

	row->timed = false;
	row->time = 0;
	if (!isnull)
	{
		if (rs->time_type == DATEOID)
		{
			DateADT		d = DatumGetDateADT(t);

			row->timed = !DATE_NOT_FINITE(d) && IS_VALID_TIMESTAMP((int64) d * USECS_PER_DAY);
			if (row->timed)
				row->time = (int64) d * USECS_PER_DAY;
		}
		else
		{
			row->time = DatumGetTimestamp(t);
			row->timed = !TIMESTAMP_NOT_FINITE(row->time);
		}
	}

	for (i = 0; i < rs->key.n; i++)
	{
		Datum		v = ra_row_value(rs, row, rs->key.attnos[i], &isnull);

		seed = isnull ? hash_combine64(seed, 1) : hash_value(&rs->key, i, v, seed);
	}
	row->key = seed;
}

void
ra_row_store(RaRuleSet *rs, const RaRow *row)
{
	TupleTableSlot *slot = rs->row;
	int			i;

	/* columns that are not captured are never read, and NULL */
	if (TTS_EMPTY(slot))
		ExecStoreAllNullTuple(slot);
	for (i = 0; i < rs->ncaptured; i++)
	{
		slot->tts_values[rs->captured[i] - 1] = row->values[i];
		slot->tts_isnull[rs->captured[i] - 1] = row->nulls[i];
	}
	slot->tts_nvalid = slot->tts_tupleDescriptor->natts;
}

RaEntityId
ra_entity_id(const RaRuleSet *rs, const RaColumns *columns, const RaRow *row)
{
	RaEntityId	id;
	int			i;

	id.present = false;
	id.hash.h[0] = ra_cache_seed(0) ^ columns->n;
	id.hash.h[1] = ra_cache_seed(1) ^ columns->n;
	for (i = 0; i < columns->n; i++)
	{
		bool		isnull;
		Datum		v = ra_row_value(rs, row, columns->attnos[i], &isnull);

		if (isnull)
			return id;
		id.hash.h[0] = hash_value(columns, i, v, id.hash.h[0]);
		id.hash.h[1] = hash_value(columns, i, v, id.hash.h[1]);
	}
	id.present = true;
	return id;
}

bool
ra_measure_row(RaRuleSet *rs, RaEntity *entity, RaValue *values)
{
	bool		fits = true;
	int			m;

	for (m = 0; m < entity->spec.nmeasures; m++)
	{
		RaMeasure  *measure = &entity->measures[m];
		Datum		value = (Datum) 0;
		bool		isnull = false;
		bool		counts;

		values[m].state = RA_VALUE_NONE;
		values[m].len = 0;
		values[m].v.h = 0;
		if (measure->attno > 0 && measure->filter == NULL)
		{
			value = rs->row->tts_values[measure->attno - 1];
			isnull = rs->row->tts_isnull[measure->attno - 1];
			counts = !isnull;
		}
		else if (measure->value == NULL && measure->attno == 0 && measure->filter == NULL)
			counts = true;
		else
			counts = ra_measure_evaluate(rs, measure, &value, &isnull);
		if (counts && !measure_value(measure, value, &values[m]))
			fits = false;
	}
	return fits;
}

bool
ra_measure_evaluate(RaRuleSet *rs, RaMeasure *measure, Datum *value, bool *isnull)
{
	bool		counts;

	if (measure->careful)
		return measure_evaluate_careful(rs, measure, value, isnull);
	ra_evaluation_begin(rs, NULL, measure);
	counts = measure_evaluate(rs, measure, value, isnull);
	ra_evaluation_end();
	return counts;
}

void
ra_features_bounds(const RaRuleSet *rs, int64 time, int64 *lower)
{
	int			f;

	for (f = 0; f < rs->nfeatures; f++)
	{
		const RaFeature *feature = &rs->features[f];
		int64		t = time;

		if (feature->span_months != 0)
		{
			Interval	months = {0, 0, feature->span_months};

			/* so close to the beginning of time there is nothing before */
			if (t < MIN_TIMESTAMP + (int64) feature->span_months * 31 * USECS_PER_DAY)
				t = PG_INT64_MIN;
			else
				t = DatumGetTimestamp(DirectFunctionCall2(timestamp_mi_interval,
														  TimestampGetDatum(t),
														  IntervalPGetDatum(&months)));
		}
		if (t < PG_INT64_MIN + feature->span)
			lower[f] = PG_INT64_MIN;
		else
			lower[f] = t - feature->span;
	}
}

void
ra_features_arrange(RaRuleSet *rs)
{
	int			f,
				g;

	for (f = 0; f < rs->nfeatures; f++)
	{
		RaFeature  *feature = &rs->features[f];
		int			entity = rs->lookups[feature->lookup].entity;
		RaEntity   *e = &rs->entities[entity];
		RaMeasureSpec *spec = &e->spec.measures[feature->measure];
		int64		span = feature->span + feature->span_months * (31 * USECS_PER_DAY);
		bool		shared = false;

		e->max_span = Max(e->max_span, span);
		if (spec->kind == RA_MEASURE_HASH)
		{
			e->has_distinct = true;
			spec->span = Max(spec->span, span);
		}

		feature->begin = feature->noted = 0;
		for (g = 0; g < f; g++)
		{
			RaFeature  *other = &rs->features[g];

			if (rs->lookups[other->lookup].entity != entity)
				continue;
			if (other->span == feature->span && other->span_months == feature->span_months)
			{
				feature->begin = other->begin;
				shared = true;
			}
			else if (!shared)
				feature->begin = Max(feature->begin, other->begin + 1);
			if (other->measure == feature->measure)
				feature->noted += other->function == RA_AGG_MIN || other->function == RA_AGG_MAX ||
					other->function == RA_AGG_COUNT_DISTINCT;
		}
		if (spec->kind == RA_MEASURE_HASH && span == spec->span)
			spec->begin = feature->begin;
	}
}

RaFeatureResult *
ra_feature_results(const RaRuleSet *rs)
{
	RaFeatureResult *results = palloc0(sizeof(RaFeatureResult) * Max(rs->nfeatures, 1));
	int			f;

	for (f = 0; f < rs->nfeatures; f++)
	{
		RaAggregateFunction function = rs->features[f].function;

		if (function == RA_AGG_LAG || function == RA_AGG_FIRST)
		{
			results[f].room = 64;
			results[f].bytes = palloc(results[f].room);
		}
	}
	return results;
}

bool
ra_features_look(const RaRuleSet *rs, int lookup, RaWindow *window, bool note,
				 const RaRow *row, const RaValue *self, bool all_peers,
				 uint32 later, const int64 *lower, RaFeatureResult *results)
{
	const RaEntity *entity = &rs->entities[rs->lookups[lookup].entity];
	const RaWindowSpec *spec = &entity->spec;
	uint32		hi = 0;
	uint32		begins[32];
	uint32		known = 0;		/* which of them are */
	int64		pos = -1;
	int			f;

	if (window)
	{
		hi = ra_window_begin(window, spec, RA_WINDOW_NOW, row->time);
		if (note)
			ra_window_note_begin(window, spec, RA_WINDOW_NOW, hi);
		pos = self ? ra_window_find_before(window, hi, row->time, row->key) : -1;
		if (pos >= 0)
		{
			if (all_peers && pos != (int64) hi - 1)
				return false;
			hi = (uint32) pos;
		}
		else
			hi -= Min(later, hi);
	}

	for (f = 0; f < rs->nfeatures; f++)
	{
		const RaFeature *feature = &rs->features[f];
		RaFeatureResult *result = &results[f];
		const RaValue *own;
		uint32		lo;

		if (feature->lookup != lookup)
			continue;
		result->empty = window == NULL;
		result->needed = 0;
		result->found = false;
		own = self && feature->include_current ? &self[feature->measure] : NULL;

		if (window == NULL)
			continue;

		/* features often share a window: look its beginning up once */
		if (feature->begin < (int) lengthof(begins) && (known & (1U << feature->begin)))
			lo = begins[feature->begin];
		else
		{
			lo = ra_window_begin(window, spec, feature->begin, lower[f]);
			if (note)
				ra_window_note_begin(window, spec, feature->begin, lo);
			lo = Min(lo, hi);
			if (feature->begin < (int) lengthof(begins))
			{
				begins[feature->begin] = lo;
				known |= 1U << feature->begin;
			}
		}

		switch (feature->function)
		{
			case RA_AGG_COUNT_DISTINCT:
				if (note)
					ra_window_note_distinct(window, spec, feature->measure, feature->noted, lo, hi);
				result->distinct = ra_window_distinct(window, spec, feature->measure, lo, hi, own,
													  pos >= 0);
				break;
			case RA_AGG_LAG:
			case RA_AGG_FIRST:
				if (feature->function == RA_AGG_LAG)
					result->found = ra_window_last(window, spec, feature->measure, feature->which,
												   lo, hi, &result->value);
				else
				{
					result->found = ra_window_first(window, spec, feature->measure, lo, hi,
													&result->value);
					if (!result->found && own && own->state != RA_VALUE_NONE)
					{
						result->found = true;
						result->value = *own;
					}
				}
				if (result->found &&
					entity->measures[feature->measure].value_class == RA_CLASS_BYTES)
				{
					result->needed = result->value.len;
					if (result->needed <= result->room)
						memcpy(result->bytes, result->value.v.p, result->value.len);
				}
				break;
			case RA_AGG_MIN:
			case RA_AGG_MAX:
				if (note && spec->measures[feature->measure].kind == RA_MEASURE_INT)
					ra_window_note_extremum(window, spec, feature->measure, feature->noted,
											lo, hi, feature->function == RA_AGG_MAX);
				/* FALLTHROUGH */
			default:
				ra_window_aggregate(window, spec, feature->measure, lo, hi, own,
									feature_wants(feature), &result->aggregate);
				break;
		}
	}
	return true;
}

void
ra_features_store(RaRuleSet *rs, const RaFeatureResult *results)
{
	int			f;

	ExecClearTuple(rs->values);
	for (f = 0; f < rs->nfeatures; f++)
		rs->values->tts_values[f] = feature_datum(rs, &rs->features[f], &results[f],
												  &rs->values->tts_isnull[f]);
	ExecStoreVirtualTuple(rs->values);
}

/* Filter and value in the owner's name; false: does not count */
static bool
measure_evaluate(RaRuleSet *rs, RaMeasure *measure, Datum *value, bool *isnull)
{
	RaIdentity	save;
	bool		counts = true;

	ra_become(measure->owner, &save);
	if (measure->filter)
	{
		bool		filter_null;
		Datum		d = ExecEvalExprSwitchContext(measure->filter, rs->econtext, &filter_null);

		counts = !filter_null && DatumGetBool(d);
	}
	if (counts)
	{
		if (measure->attno > 0)
		{
			*value = rs->row->tts_values[measure->attno - 1];
			*isnull = rs->row->tts_isnull[measure->attno - 1];
			counts = !*isnull;
		}
		else if (measure->value)
		{
			*value = ExecEvalExprSwitchContext(measure->value, rs->econtext, isnull);
			counts = !*isnull;
		}
	}
	ra_unbecome(&save);
	return counts;
}

/*
 * The same for an expression that has failed before: in a subtransaction, so
 * that a further failure harms nothing else.
 */
static bool
measure_evaluate_careful(RaRuleSet *rs, RaMeasure *measure, Datum *value, bool *isnull)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	RaIdentity	save;
	volatile bool counts = false;

	GetUserIdAndSecContext(&save.userid, &save.sec_context);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		ra_evaluation_begin(rs, NULL, measure);
		counts = measure_evaluate(rs, measure, value, isnull);
		ra_evaluation_end();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		SetUserIdAndSecContext(save.userid, save.sec_context);
		if (ra_evaluation_disturbed(error->sqlerrcode))
			ReThrowError(error);
		FreeErrorData(error);
		ra_culprit_measure = NULL;
		(void) ra_score_out_of_time();
		counts = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	SetUserIdAndSecContext(save.userid, save.sec_context);
	return counts;
}

/* A value as the window keeps it; false: too large a number */
static bool
measure_value(RaMeasure *measure, Datum value, RaValue *out)
{
	out->state = RA_VALUE_FINITE;
	switch (measure->value_class)
	{
		case RA_CLASS_NONE:
			break;
		case RA_CLASS_INT2:
			out->v.i = DatumGetInt16(value);
			break;
		case RA_CLASS_INT4:
			out->v.i = DatumGetInt32(value);
			break;
		case RA_CLASS_INT8:
			out->v.i = DatumGetInt64(value);
			break;
		case RA_CLASS_DATE:
			out->v.i = DatumGetDateADT(value);
			break;
		case RA_CLASS_TIMESTAMP:
			out->v.i = DatumGetTimestamp(value);
			break;
		case RA_CLASS_NUMERIC:
			{
				struct varlena *v = (struct varlena *) DatumGetPointer(value);

				/* 1-byte headers are fine, compressed or external ones not */
				if (VARATT_IS_EXTENDED(v) && !VARATT_IS_SHORT(v))
					v = PG_DETOAST_DATUM_PACKED(value);
				out->v.i = ra_decimal_to_int64(VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v),
											   measure->scale, &out->state);
				if (out->state == RA_VALUE_NONE)
					return false;
				break;
			}
		case RA_CLASS_FLOAT8:
			out->v.f = DatumGetFloat8(value);
			break;
		case RA_CLASS_HASH:
			out->v.h = DatumGetUInt64(FunctionCall2Coll(&measure->hash, measure->collation, value,
														UInt64GetDatum(ra_cache_seed(0))));
			break;
		case RA_CLASS_WORD:
			out->v.h = (uint64) value;
			break;
		case RA_CLASS_BYTES:
			if (measure->typlen == -1)
				value = PointerGetDatum(PG_DETOAST_DATUM(value));
			/* a computed value lives no longer than the expression context */
			if (measure->attno == 0)
				value = datumCopy(value, false, measure->typlen);
			out->len = datumGetSize(value, false, measure->typlen);
			out->v.p = DatumGetPointer(value);
			break;
	}
	return true;
}

static int
feature_wants(const RaFeature *feature)
{
	switch (feature->function)
	{
		case RA_AGG_SUM:
		case RA_AGG_AVG:
			return RA_WANT_SUM;
		case RA_AGG_STDDEV:
		case RA_AGG_VARIANCE:
			return RA_WANT_SUM | RA_WANT_SUMSQ;
		case RA_AGG_MIN:
			return RA_WANT_MIN;
		case RA_AGG_MAX:
			return RA_WANT_MAX;
		default:
			return RA_WANT_COUNT;
	}
}

static Datum
feature_datum(const RaRuleSet *rs, const RaFeature *feature, const RaFeatureResult *result,
			  bool *isnull)
{
	const RaMeasure *measure = &rs->entities[rs->lookups[feature->lookup].entity].measures[feature->measure];
	const RaAggregate *a = &result->aggregate;

	*isnull = false;
	switch (feature->function)
	{
		case RA_AGG_COUNT:
			return Int64GetDatum(result->empty ? 0 : (int64) a->n);
		case RA_AGG_COUNT_DISTINCT:
			return Int64GetDatum(result->empty ? 0 : (int64) result->distinct);
		case RA_AGG_LAG:
		case RA_AGG_FIRST:
			if (result->empty || !result->found)
				break;
			if (measure->value_class == RA_CLASS_WORD)
				return (Datum) result->value.v.h;
			return datumCopy(PointerGetDatum(result->bytes), false, measure->typlen);
		default:
			if (result->empty || a->n == 0)
				break;
			if (feature->function == RA_AGG_STDDEV || feature->function == RA_AGG_VARIANCE)
				return deviation_of(feature, measure, a, isnull);
			if (measure->value_class == RA_CLASS_FLOAT8)
			{
				switch (feature->function)
				{
					case RA_AGG_SUM:
						return Float8GetDatum(a->fsum);
					case RA_AGG_AVG:
						return Float8GetDatum((0.0 + a->fsum) / (double) a->n);	/* no -0, as in SQL */
					case RA_AGG_MIN:
						return Float8GetDatum(a->fmin);
					default:
						return Float8GetDatum(a->fmax);
				}
			}
			if (feature->function == RA_AGG_SUM)
				return sum_of(measure, a);
			if (feature->function == RA_AGG_AVG)
			{
				char		buf[RA_DECIMAL_MAX_BYTES];
				size_t		len;

				/* the average of what is not finite is what its sum is */
				if (a->nan + a->pinf + a->ninf > 0)
					return sum_of(measure, a);
				if (ra_decimal_avg(a->sum, measure->scale, a->n, buf, &len))
				{
					struct varlena *v = palloc(VARHDRSZ + len);

					SET_VARSIZE(v, VARHDRSZ + len);
					memcpy(VARDATA(v), buf, len);
					return PointerGetDatum(v);
				}
				return DirectFunctionCall2(numeric_div,
										   make_numeric(a->sum, measure->scale),
										   NumericGetDatum(int64_to_numeric((int64) a->n)));
			}
			/* min, max: NaN sorts above infinity, as numeric has it */
			if (feature->function == RA_AGG_MIN)
			{
				if (a->ninf > 0)
					return special_numeric("-Infinity");
				if (a->n > a->nan + a->pinf)
					return number_from(measure, a->min);
				return special_numeric(a->pinf > 0 ? "Infinity" : "NaN");
			}
			if (a->nan > 0)
				return special_numeric("NaN");
			if (a->pinf > 0)
				return special_numeric("Infinity");
			if (a->n > a->ninf)
				return number_from(measure, a->max);
			return special_numeric("-Infinity");
	}
	*isnull = true;
	return (Datum) 0;
}

/*
 * A column numeric(p,s) shows s decimals.  Where the type has no scale, ours
 * would show; so as many as are needed.
 */
static Datum
displayed(const RaMeasure *measure, Datum numeric)
{
	return measure->any_scale ? DirectFunctionCall1(numeric_trim_scale, numeric) : numeric;
}

/* min and max have their argument's type */
static Datum
number_from(const RaMeasure *measure, int64 value)
{
	switch (measure->value_class)
	{
		case RA_CLASS_INT2:
			return Int16GetDatum((int16) value);
		case RA_CLASS_INT4:
			return Int32GetDatum((int32) value);
		case RA_CLASS_DATE:
			return DateADTGetDatum((DateADT) value);
		case RA_CLASS_NUMERIC:
			return displayed(measure, make_numeric(value, measure->scale));
		default:
			return Int64GetDatum(value);
	}
}

static Datum
sum_of(const RaMeasure *measure, const RaAggregate *a)
{
	if (measure->value_class == RA_CLASS_INT2 || measure->value_class == RA_CLASS_INT4)
		return Int64GetDatum((int64) a->sum);
	if (a->nan > 0 || (a->pinf > 0 && a->ninf > 0))
		return special_numeric("NaN");
	if (a->pinf > 0)
		return special_numeric("Infinity");
	if (a->ninf > 0)
		return special_numeric("-Infinity");
	if (measure->value_class != RA_CLASS_NUMERIC)
		return make_numeric(a->sum, 0);
	return displayed(measure, make_numeric(a->sum, measure->scale));
}

/*
 * Sample variance (n * sum of squares - sum squared) / (n * (n - 1)), exact up
 * to the division, as numeric's aggregates compute it.
 */
static Datum
deviation_of(const RaFeature *feature, const RaMeasure *measure, const RaAggregate *a, bool *isnull)
{
	int			scale = measure->value_class == RA_CLASS_NUMERIC ? measure->scale : 0;
	Datum		numerator;
	Datum		denominator;
	Datum		variance;
	ra_int128	left,
				right,
				difference;

	if (measure->value_class == RA_CLASS_FLOAT8)
	{
		double		v;

		if (a->n < 2)
		{
			*isnull = true;
			return (Datum) 0;
		}
		v = a->fsxx / (double) (a->n - 1);
		return Float8GetDatum(feature->function == RA_AGG_STDDEV ? sqrt(v) : v);
	}

	/* as SQL has it: a single NaN or infinity makes NaN even of n = 1 ... */
	if (a->n < 2)
	{
		*isnull = true;
		return (Datum) 0;
	}
	if (a->nan + a->pinf + a->ninf > 0)
		return special_numeric("NaN");

	if (!__builtin_mul_overflow((ra_int128) a->n, (ra_int128) a->sumsq, &left) &&
		!__builtin_mul_overflow(a->sum, a->sum, &right) &&
		!__builtin_sub_overflow(left, right, &difference))
		numerator = make_numeric(difference, 2 * scale);
	else
	{
		Datum		n = NumericGetDatum(int64_to_numeric((int64) a->n));
		Datum		sum = make_numeric(a->sum, scale);

		numerator = DirectFunctionCall2(numeric_sub,
										DirectFunctionCall2(numeric_mul, n,
															make_numeric((ra_int128) a->sumsq, 2 * scale)),
										DirectFunctionCall2(numeric_mul, sum, sum));
	}
	denominator = make_numeric((ra_int128) a->n * (a->n - 1), 0);
	variance = DirectFunctionCall2(numeric_div, numerator, denominator);
	if (feature->function == RA_AGG_VARIANCE)
		return variance;
	return DirectFunctionCall1(numeric_sqrt, variance);
}

static Datum
make_numeric(ra_int128 value, int scale)
{
	struct varlena *v = palloc(VARHDRSZ + RA_DECIMAL_MAX_BYTES);
	size_t		len = ra_decimal_from_int128(value, scale, scale, VARDATA(v));

	SET_VARSIZE(v, VARHDRSZ + len);
	return PointerGetDatum(v);
}

static Datum
special_numeric(const char *text)
{
	return DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}
