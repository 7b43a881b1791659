/*
 * rebuild.c
 *	  Windows made from the watched table.
 *
 * The table is the truth, a window its cache: an entity that is not cached is
 * read by an index scan on (entity, event time), many at once when a batch
 * misses many.  Only plain columns are selected; values and filters of features
 * are evaluated here, by the code that evaluates them for queued events, so both
 * ways agree.
 *
 * The queries are parsed and run with the rights of the table's owner, in a security-restricted
 * operation: an expression that reading a row may evaluate (a virtual
 * generated column, a row security policy) is the owner's own.  Under FORCE ROW
 * LEVEL SECURITY, where the owner would not see all rows, the bootstrap superuser
 * reads them.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datum.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "engine/rebuild.h"

/* names that no column has */
#define ROW_XMIN "\"risk_alert: xmin\""
#define ROW_TABLE "\"risk_alert: tableoid\""
#define ROW_CTID "\"risk_alert: ctid\""

/* columns of a query of plan_many() before the captured ones */
#define MANY_ORDINALITY 1
#define MANY_XMIN 2
#define MANY_TABLE 3
#define MANY_CTID 4

/* Prepared queries of one rule set, found again by its context */
typedef struct RebuildPlans
{
	MemoryContext cxt;			/* of the rule set they belong to */
	int			nmany;
	SPIPlanPtr *many;			/* by entity: all rows of several entities */
	SPIPlanPtr	by_key;
	Oid			owner;			/* whom to run as */
	MemoryContextCallback callback;
} RebuildPlans;

static List *plan_cache = NIL;	/* of RebuildPlans, in TopMemoryContext */

static RebuildPlans *plans_get(RaRuleSet *rs);
static void plans_forget(void *arg);
static SPIPlanPtr plan_many(RaRuleSet *rs, int entity);
static SPIPlanPtr plan_by_key(RaRuleSet *rs);
static void append_columns(StringInfo sql, RaRuleSet *rs);
static void append_table(StringInfo sql, RaRuleSet *rs);
static const char *equality_operator(Oid type);
static Datum time_datum(const RaRuleSet *rs, int64 time);
static void tuple_row(RaRuleSet *rs, HeapTuple tuple, TupleDesc desc, int skip, RaRow *row);
static bool skipped(RaRuleSet *rs, const RaRow *row, HeapTuple tuple, TupleDesc desc,
					Snapshot snapshot, RaSkipEvent skip);
static uint64 fetch_entities(RaRuleSet *rs, int entity, int n, RaRebuild *rebuilds, int64 upper,
							 Snapshot snapshot);
static int	plan_settings(bool has_index);
static void window_append(RaRebuild *rebuild, RaEntity *entity, const RaEvent *event);

void
ra_rebuild(RaRuleSet *rs, int entity_no, int n, RaRebuild *rebuilds, int64 upper, Snapshot snapshot,
		   RaSkipEvent skip)
{
	RaEntity   *entity = &rs->entities[entity_no];
	RaValue		values[RA_MAX_MEASURES];
	MemoryContext caller = CurrentMemoryContext;
	int			first;

	/* in portions, to bound the memory that results take */
	for (first = 0; first < n; first += 256)
	{
		int			count = Min(n - first, 256);
		RaRebuild  *part = rebuilds + first;
		MemoryContext row_cxt;
		Datum	   *row_values;
		bool	   *row_nulls;
		uint64		i;
		int			k;

		for (k = 0; k < count; k++)
		{
			part[k].window = ra_window_init(palloc(ra_window_size(&entity->spec, 0, 4, 0)),
											&entity->spec, 0, 4, 0, part[k].lower);
			part[k].wide = false;
		}

		SPI_connect();
		fetch_entities(rs, entity_no, count, part, upper, snapshot);
		row_cxt = AllocSetContextCreate(CurrentMemoryContext, "risk_alert row",
										ALLOCSET_DEFAULT_SIZES);
		row_values = palloc(rs->ncaptured * sizeof(Datum));
		row_nulls = palloc(rs->ncaptured * sizeof(bool));
		for (i = 0; i < SPI_processed; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			bool		isnull;
			int64		ordinal = DatumGetInt64(SPI_getbinval(tuple, desc, MANY_ORDINALITY, &isnull));
			RaRebuild  *rebuild = &part[ordinal - 1];
			RaRow		row;
			RaEvent		event;

			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(row_cxt);
			MemoryContextSwitchTo(row_cxt);
			row.values = row_values;
			row.nulls = row_nulls;
			tuple_row(rs, tuple, desc, MANY_CTID, &row);
			if (!row.timed || rebuild->wide ||
				(skip && skipped(rs, &row, tuple, desc, snapshot, skip)))
				continue;
			ra_row_store(rs, &row);
			ResetExprContext(rs->econtext);
			if (!ra_measure_row(rs, entity, values))
			{
				rebuild->wide = true;
				continue;
			}
			event.time = row.time;
			event.key = row.key;
			event.values = values;
			MemoryContextSwitchTo(caller);
			window_append(rebuild, entity, &event);
		}
		ExecClearTuple(rs->row);
		SPI_finish();
		MemoryContextSwitchTo(caller);

		for (k = 0; k < count; k++)
		{
			if (part[k].wide)
				part[k].window = ra_window_init(palloc(ra_window_size(&entity->spec, 0, 0, 0)),
												&entity->spec, 0, 0, 0, part[k].lower);
		}
	}
}

bool
ra_reread_row(RaRuleSet *rs, RaRow *row, Snapshot snapshot)
{
	RebuildPlans *plans = plans_get(rs);
	MemoryContext caller = CurrentMemoryContext;
	Datum	   *args = palloc(rs->key.n * sizeof(Datum));
	char	   *nulls = palloc(rs->key.n + 1);
	RaIdentity	save;
	bool		found = false;
	int			i;

	for (i = 0; i < rs->key.n; i++)
	{
		bool		isnull;

		args[i] = ra_row_value(rs, row, rs->key.attnos[i], &isnull);
		nulls[i] = isnull ? 'n' : ' ';
	}
	SPI_connect();
	ra_become(plans->owner, &save);
	if (plans->by_key == NULL)
		plans->by_key = plan_by_key(rs);
	if (SPI_execute_snapshot(plans->by_key, args, nulls, snapshot, InvalidSnapshot, true, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read a row of stream \"%s\"", rs->name);
	ra_unbecome(&save);
	if (SPI_processed > 0)
	{
		HeapTuple	tuple;
		TupleDesc	desc;

		MemoryContextSwitchTo(caller);
		tuple = heap_copytuple(SPI_tuptable->vals[0]);
		desc = CreateTupleDescCopy(SPI_tuptable->tupdesc);
		tuple_row(rs, tuple, desc, 0, row);
		found = true;
	}
	SPI_finish();
	MemoryContextSwitchTo(caller);
	return found;
}

/*
 * One accumulator per feature, numeric all the way.  Rare enough not to be
 * clever: a value beyond 64 bits at the column's scale.
 */
typedef struct ExactState
{
	int64		n;
	Datum		sum;			/* numeric */
	Datum		sumsq;
	Datum		min;
	Datum		max;
	uint64	   *hashes;
	int			nhashes;
	bool		found;
	Datum		value;
} ExactState;

static int
hash_cmp(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/* The value of a measure for the stored row as a Datum; false: does not count */
static bool
exact_value(RaRuleSet *rs, RaEntity *entity, int m, const RaValue *values, Datum *value)
{
	RaMeasure  *measure = &entity->measures[m];
	bool		isnull = false;

	if (measure->filter == NULL && measure->attno > 0)
	{
		*value = rs->row->tts_values[measure->attno - 1];
		return !rs->row->tts_isnull[measure->attno - 1];
	}
	/* too large for a window also shows as not counting: evaluate anew */
	if (values[m].state == RA_VALUE_NONE && measure->value_class != RA_CLASS_NUMERIC)
		return false;
	if (measure->value_class == RA_CLASS_NONE)
		return true;
	return ra_measure_evaluate(rs, measure, value, &isnull);
}

static Datum
exact_numeric(const RaMeasure *measure, Datum value)
{
	switch (measure->value_class)
	{
		case RA_CLASS_INT2:
			return DirectFunctionCall1(int2_numeric, value);
		case RA_CLASS_INT4:
			return DirectFunctionCall1(int4_numeric, value);
		case RA_CLASS_INT8:
			return DirectFunctionCall1(int8_numeric, value);
		default:
			return value;
	}
}

static int
exact_compare(const RaMeasure *measure, Datum a, Datum b)
{
	switch (measure->value_class)
	{
		case RA_CLASS_NUMERIC:
			return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
		case RA_CLASS_FLOAT8:
			return DatumGetInt32(DirectFunctionCall2(btfloat8cmp, a, b));
		case RA_CLASS_INT2:
			return DatumGetInt16(a) < DatumGetInt16(b) ? -1 : DatumGetInt16(a) > DatumGetInt16(b);
		case RA_CLASS_INT4:
		case RA_CLASS_DATE:
			return DatumGetInt32(a) < DatumGetInt32(b) ? -1 : DatumGetInt32(a) > DatumGetInt32(b);
		default:
			return DatumGetInt64(a) < DatumGetInt64(b) ? -1 : DatumGetInt64(a) > DatumGetInt64(b);
	}
}

static void
exact_add(RaRuleSet *rs, RaFeature *feature, RaMeasure *measure, ExactState *state, Datum value)
{
	state->n++;
	switch (feature->function)
	{
		case RA_AGG_COUNT:
			break;
		case RA_AGG_COUNT_DISTINCT:
			if ((state->nhashes & (state->nhashes - 1)) == 0)
			{
				Size		room = Max(state->nhashes * 2, 16) * sizeof(uint64);

				state->hashes = state->hashes ? repalloc_huge(state->hashes, room) : palloc(room);
			}
			state->hashes[state->nhashes++] =
				DatumGetUInt64(FunctionCall2Coll(&measure->hash, measure->collation, value,
												 UInt64GetDatum(ra_cache_seed(0))));
			break;
		case RA_AGG_SUM:
		case RA_AGG_AVG:
		case RA_AGG_STDDEV:
		case RA_AGG_VARIANCE:
			if (measure->value_class == RA_CLASS_FLOAT8)
			{
				/* doubles never overflow a window; kept in sum as they are */
				double		x = DatumGetFloat8(value);
				double		n = (double) state->n;
				double		sum = state->n == 1 ? 0.0 : DatumGetFloat8(state->sum);
				double		sxx = state->n == 1 ? 0.0 : DatumGetFloat8(state->sumsq);
				double		d;

				sum += x;
				d = x * n - sum;
				if (state->n > 1)
					sxx += d * d / (n * (n - 1));
				/* as float8_accum(): an infinity, or NaN, spoils it for good */
				if (isinf(x) || isnan(x) || isinf(sum) || isinf(sxx))
					sxx = get_float8_nan();
				state->sum = Float8GetDatum(sum);
				state->sumsq = Float8GetDatum(sxx);
				break;
			}
			value = exact_numeric(measure, value);
			state->sum = state->n == 1 ? datumCopy(value, false, -1)
				: DirectFunctionCall2(numeric_add, state->sum, value);
			if (feature->function == RA_AGG_STDDEV || feature->function == RA_AGG_VARIANCE)
			{
				Datum		square = DirectFunctionCall2(numeric_mul, value, value);

				state->sumsq = state->n == 1 ? square
					: DirectFunctionCall2(numeric_add, state->sumsq, square);
			}
			break;
		case RA_AGG_MIN:
			if (state->n == 1 || exact_compare(measure, value, state->min) < 0)
				state->min = datumCopy(value, measure->typbyval, measure->typlen);
			break;
		case RA_AGG_MAX:
			if (state->n == 1 || exact_compare(measure, value, state->max) > 0)
				state->max = datumCopy(value, measure->typbyval, measure->typlen);
			break;
		case RA_AGG_FIRST:
			if (!state->found)
				state->value = datumCopy(value, measure->typbyval, measure->typlen);
			state->found = true;
			break;
		case RA_AGG_LAG:
			state->value = datumCopy(value, measure->typbyval, measure->typlen);
			state->found = true;
			break;
	}
}

static Datum
exact_result(RaFeature *feature, RaMeasure *measure, ExactState *state, bool *isnull)
{
	Datum		n = NumericGetDatum(int64_to_numeric(state->n));
	bool		is_float = measure->value_class == RA_CLASS_FLOAT8;

	*isnull = false;
	switch (feature->function)
	{
		case RA_AGG_COUNT:
			return Int64GetDatum(state->n);
		case RA_AGG_COUNT_DISTINCT:
			{
				int64		distinct = 0;
				int			i;

				if (state->nhashes > 1)
					qsort(state->hashes, state->nhashes, sizeof(uint64), hash_cmp);
				for (i = 0; i < state->nhashes; i++)
					if (i == 0 || state->hashes[i] != state->hashes[i - 1])
						distinct++;
				return Int64GetDatum(distinct);
			}
		case RA_AGG_SUM:
			if (state->n == 0)
				break;
			if (is_float)
				return state->sum;
			if (measure->value_class == RA_CLASS_INT2 || measure->value_class == RA_CLASS_INT4)
				return DirectFunctionCall1(numeric_int8, state->sum);
			return state->sum;
		case RA_AGG_AVG:
			if (state->n == 0)
				break;
			if (is_float)
				return Float8GetDatum(DatumGetFloat8(state->sum) / (double) state->n);
			return DirectFunctionCall2(numeric_div, state->sum, n);
		case RA_AGG_STDDEV:
		case RA_AGG_VARIANCE:
			if (state->n < 2)
				break;
			if (is_float)
			{
				double		v = DatumGetFloat8(state->sumsq) / (double) (state->n - 1);

				return Float8GetDatum(feature->function == RA_AGG_STDDEV ? sqrt(v) : v);
			}
			else
			{
				Datum		v;

				v = DirectFunctionCall2(numeric_sub,
										DirectFunctionCall2(numeric_mul, n, state->sumsq),
										DirectFunctionCall2(numeric_mul, state->sum, state->sum));
				v = DirectFunctionCall2(numeric_div, v,
										DirectFunctionCall2(numeric_mul, n,
															NumericGetDatum(int64_to_numeric(state->n - 1))));
				return feature->function == RA_AGG_STDDEV ? DirectFunctionCall1(numeric_sqrt, v) : v;
			}
		case RA_AGG_MIN:
			if (state->n == 0)
				break;
			return state->min;
		case RA_AGG_MAX:
			if (state->n == 0)
				break;
			return state->max;
		case RA_AGG_LAG:
		case RA_AGG_FIRST:
			if (!state->found)
				break;
			return state->value;
	}
	*isnull = true;
	return (Datum) 0;
}

void
ra_exact_features(RaRuleSet *rs, int lookup_no, const RaRow *row, bool self, const int64 *lower,
				  Snapshot snapshot, RaSkipEvent skip)
{
	RaLookup   *lookup = &rs->lookups[lookup_no];
	RaEntity   *entity = &rs->entities[lookup->entity];
	ExactState *states = palloc0(rs->nfeatures * sizeof(ExactState));
	MemoryContext caller = CurrentMemoryContext;
	RaValue		values[RA_MAX_MEASURES];
	RaRebuild	rebuild;
	Datum	   *row_values;
	bool	   *row_nulls;
	uint64		i;
	int			f;
	int			k;

	rebuild.values = palloc(entity->columns.n * sizeof(Datum));
	for (k = 0; k < entity->columns.n; k++)
	{
		bool		isnull;

		rebuild.values[k] = ra_row_value(rs, row, lookup->columns.attnos[k], &isnull);
	}
	rebuild.lower = PG_INT64_MAX;
	for (f = 0; f < rs->nfeatures; f++)
	{
		if (rs->features[f].lookup == lookup_no)
			rebuild.lower = Min(rebuild.lower, lower[f]);
	}

	SPI_connect();
	fetch_entities(rs, lookup->entity, 1, &rebuild, row->time, snapshot);
	row_values = palloc(rs->ncaptured * sizeof(Datum));
	row_nulls = palloc(rs->ncaptured * sizeof(bool));
	for (i = 0; i <= SPI_processed; i++)
	{
		RaRow		other;
		bool		is_self = i == SPI_processed;

		if (is_self)
		{
			/* the row at hand comes last, with the values at hand */
			if (!self)
				break;
			other = *row;
		}
		else
		{
			other.values = row_values;
			other.nulls = row_nulls;
			tuple_row(rs, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, MANY_CTID, &other);
			if (!other.timed || (self && other.key == row->key && other.time == row->time))
				continue;
			if (skip && !is_self && other.time == row->time &&
				skipped(rs, &other, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, snapshot, skip))
				continue;
		}
		ra_row_store(rs, &other);
		ResetExprContext(rs->econtext);
		(void) ra_measure_row(rs, entity, values);
		MemoryContextSwitchTo(caller);
		for (f = 0; f < rs->nfeatures; f++)
		{
			RaFeature  *feature = &rs->features[f];
			Datum		value = (Datum) 0;

			if (feature->lookup != lookup_no || other.time <= lower[f])
				continue;
			if (is_self && (!feature->include_current || feature->function == RA_AGG_LAG))
				continue;
			if (feature->function == RA_AGG_LAG && exact_value(rs, entity, feature->which, values, &value))
				states[f].found = false;	/* until its value is known not to be NULL */
			if (exact_value(rs, entity, feature->measure, values, &value))
				exact_add(rs, feature, &entity->measures[feature->measure], &states[f], value);
		}
	}
	SPI_finish();
	MemoryContextSwitchTo(caller);

	ra_row_store(rs, row);
	for (f = 0; f < rs->nfeatures; f++)
	{
		RaFeature  *feature = &rs->features[f];

		if (feature->lookup == lookup_no)
			rs->values->tts_values[f] = exact_result(feature, &entity->measures[feature->measure],
													 &states[f], &rs->values->tts_isnull[f]);
	}
}

/*
 * Plans die with the rule set, whose columns and types they name.
 */
static RebuildPlans *
plans_get(RaRuleSet *rs)
{
	ListCell   *lc;
	RebuildPlans *plans;
	MemoryContext old;
	Relation	rel;
	Oid			owner;

	foreach(lc, plan_cache)
	{
		plans = lfirst(lc);
		if (plans->cxt == rs->cxt)
			return plans;
	}

	/* whatever can fail comes before the entry is listed */
	rel = table_open(rs->relid, AccessShareLock);
	owner = rel->rd_rel->relforcerowsecurity ? BOOTSTRAP_SUPERUSERID : rel->rd_rel->relowner;
	table_close(rel, AccessShareLock);

	old = MemoryContextSwitchTo(TopMemoryContext);
	plans = palloc0(sizeof(RebuildPlans));
	plans->cxt = rs->cxt;
	plans->owner = owner;
	plans->nmany = rs->nentities;
	plans->many = palloc0(Max(rs->nentities, 1) * sizeof(SPIPlanPtr));
	plan_cache = lcons(plans, plan_cache);
	MemoryContextSwitchTo(old);

	plans->callback.func = plans_forget;
	plans->callback.arg = plans;
	MemoryContextRegisterResetCallback(rs->cxt, &plans->callback);
	return plans;
}

static void
plans_forget(void *arg)
{
	RebuildPlans *plans = arg;

	plan_cache = list_delete_ptr(plan_cache, plans);
	for (int i = 0; i < plans->nmany; i++)
	{
		if (plans->many[i] != NULL)
			SPI_freeplan(plans->many[i]);
	}
	if (plans->by_key != NULL)
		SPI_freeplan(plans->by_key);
	pfree(plans->many);
	pfree(plans);
}

/*
 * SELECT ordinal, columns FROM unnest(...) of entities, table, in order of
 * ordinal and time.
 */
static SPIPlanPtr
plan_many(RaRuleSet *rs, int entity_no)
{
	RaEntity   *entity = &rs->entities[entity_no];
	StringInfoData sql;
	Oid		   *types = palloc((entity->columns.n + 2) * sizeof(Oid));
	const char *time;
	SPIPlanPtr	plan;
	int			i;

	time = quote_identifier(get_attname(rs->relid, rs->time_attno, false));
	initStringInfo(&sql);
	appendStringInfoString(&sql, entity->has_index
						   ? "SELECT e.ordinality, t." ROW_XMIN ", t." ROW_TABLE ", t." ROW_CTID
						   : "SELECT e.ordinality, t.xmin, t.tableoid, t.ctid");
	append_columns(&sql, rs);
	appendStringInfoString(&sql, " FROM ROWS FROM (");
	for (i = 0; i < entity->columns.n; i++)
	{
		Oid			array = get_array_type(getBaseType(entity->columns.types[i]));

		if (!OidIsValid(array))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of type %s can't be an entity", entity->columns.names[i],
							format_type_be(entity->columns.types[i])),
					 errdetail("The type has no array type.")));
		types[i] = array;
		appendStringInfo(&sql, "%spg_catalog.unnest($%d)", i > 0 ? ", " : "", i + 1);
	}
	types[i] = rs->time_type;
	types[i + 1] = rs->time_type;
	appendStringInfoString(&sql, ") WITH ORDINALITY AS e (");
	for (i = 0; i < entity->columns.n; i++)
		appendStringInfo(&sql, "c%d, ", i + 1);
	appendStringInfoString(&sql, "ordinality), ");

	/*
	 * With an index on (entity, time) the only good plan is to look each
	 * entity up in it, however many the planner expects: OFFSET 0 keeps it
	 * from choosing another order.  Without one, the table must be read once,
	 * not once per entity.
	 */
	if (entity->has_index)
	{
		appendStringInfoString(&sql, "LATERAL (SELECT t.xmin AS " ROW_XMIN
							   ", t.tableoid AS " ROW_TABLE ", t.ctid AS " ROW_CTID);
		append_columns(&sql, rs);
		appendStringInfoString(&sql, " FROM ");
	}
	append_table(&sql, rs);
	appendStringInfoString(&sql, " WHERE ");
	for (i = 0; i < entity->columns.n; i++)
		appendStringInfo(&sql, "t.%s %s e.c%d AND ", quote_identifier(entity->columns.names[i]),
						 equality_operator(entity->columns.types[i]), i + 1);
	appendStringInfo(&sql, "t.%s > $%d AND t.%s <= $%d", time, entity->columns.n + 1,
					 time, entity->columns.n + 2);

	/* rows of one time in the order they were stored: as a rule, that of arrival */
	if (entity->has_index)
		appendStringInfo(&sql, " ORDER BY t.%s, t.ctid OFFSET 0) AS t", time);
	else
		appendStringInfo(&sql, " ORDER BY e.ordinality, t.%s, t.ctid", time);
	plan = SPI_prepare_cursor(sql.data, entity->columns.n + 2, types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		elog(ERROR, "could not prepare a query of stream \"%s\": %s", rs->name,
			 SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

static SPIPlanPtr
plan_by_key(RaRuleSet *rs)
{
	StringInfoData sql;
	SPIPlanPtr	plan;
	int			i;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	append_columns(&sql, rs);
	/* append_columns() begins with a comma, for its other caller */
	sql.data[strlen("SELECT ")] = ' ';
	appendStringInfoString(&sql, " FROM ");
	append_table(&sql, rs);
	appendStringInfoString(&sql, " WHERE ");
	for (i = 0; i < rs->key.n; i++)
		appendStringInfo(&sql, "%st.%s %s $%d", i > 0 ? " AND " : "",
						 quote_identifier(rs->key.names[i]),
						 equality_operator(rs->key.types[i]), i + 1);
	plan = SPI_prepare_cursor(sql.data, rs->key.n, rs->key.types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		elog(ERROR, "could not prepare a query of stream \"%s\": %s", rs->name,
			 SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

static void
append_columns(StringInfo sql, RaRuleSet *rs)
{
	int			i;

	for (i = 0; i < rs->ncaptured; i++)
		appendStringInfo(sql, ", t.%s",
						 quote_identifier(get_attname(rs->relid, rs->captured[i], false)));
}

/* Rows of inheritance children are not captured, so they are not read either */
static void
append_table(StringInfo sql, RaRuleSet *rs)
{
	char	   *schema = get_namespace_name(get_rel_namespace(rs->relid));
	char	   *table = get_rel_name(rs->relid);

	if (schema == NULL || table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table of stream \"%s\" does not exist", rs->name)));
	appendStringInfo(sql, "%s%s AS t",
					 get_rel_relkind(rs->relid) == RELKIND_RELATION ? "ONLY " : "",
					 quote_qualified_identifier(schema, table));
}

/* The type's own equality, qualified */
static const char *
equality_operator(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR);
	char	   *name;

	if (!OidIsValid(entry->eq_opr))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("could not identify an equality operator for type %s", format_type_be(type))));
	name = get_opname(entry->eq_opr);
	return psprintf("OPERATOR(%s.%s)",
					quote_identifier(get_namespace_name(get_func_namespace(get_opcode(entry->eq_opr)))),
					name);
}

/* A bound as a value of the time column; beyond its range: infinity */
static Datum
time_datum(const RaRuleSet *rs, int64 time)
{
	if (rs->time_type == DATEOID)
	{
		int64		day;

		if (time <= MIN_TIMESTAMP)
			return DateADTGetDatum(DATEVAL_NOBEGIN);
		if (time >= END_TIMESTAMP)
			return DateADTGetDatum(DATEVAL_NOEND);
		/* day * 24 h > time  <=>  day > floor(time / 24 h); likewise for <= */
		day = time / USECS_PER_DAY;
		if (time % USECS_PER_DAY < 0)
			day--;
		return DateADTGetDatum((DateADT) day);
	}
	if (time <= MIN_TIMESTAMP)
		return TimestampGetDatum(DT_NOBEGIN);
	if (time >= END_TIMESTAMP)
		return TimestampGetDatum(DT_NOEND);
	return TimestampGetDatum(time);
}

/* The captured columns of a query's row, from column skip + 1 on */
static void
tuple_row(RaRuleSet *rs, HeapTuple tuple, TupleDesc desc, int skip, RaRow *row)
{
	int			i;

	for (i = 0; i < rs->ncaptured; i++)
		row->values[i] = SPI_getbinval(tuple, desc, i + 1 + skip, &row->nulls[i]);
	ra_row_identify(rs, row);
}

/* Is the row to be left out? */
static bool
skipped(RaRuleSet *rs, const RaRow *row, HeapTuple tuple, TupleDesc desc, Snapshot snapshot,
		RaSkipEvent skip)
{
	bool		isnull;
	TransactionId xmin = DatumGetTransactionId(SPI_getbinval(tuple, desc, MANY_XMIN, &isnull));
	RaSkipVerdict verdict = skip(rs->stream_id, row->key, xmin);
	Relation	rel;
	TupleTableSlot *slot;
	ItemPointer place;
	bool		inserted = true;

	if (verdict != RA_SKIP_IF_INSERTED)
		return verdict == RA_SKIP;

	/* seldom: only the row version's header knows whether it is the first */
	place = (ItemPointer) DatumGetPointer(SPI_getbinval(tuple, desc, MANY_CTID, &isnull));
	rel = table_open(DatumGetObjectId(SPI_getbinval(tuple, desc, MANY_TABLE, &isnull)),
					 AccessShareLock);
	slot = table_slot_create(rel, NULL);
	if (table_tuple_fetch_row_version(rel, place, snapshot, slot))
	{
		bool		should_free;
		HeapTuple	version = ExecFetchSlotHeapTuple(slot, false, &should_free);

		inserted = (version->t_data->t_infomask & HEAP_UPDATED) == 0;
		if (should_free)
			heap_freetuple(version);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return inserted;
}

static uint64
fetch_entities(RaRuleSet *rs, int entity_no, int n, RaRebuild *rebuilds, int64 upper,
			   Snapshot snapshot)
{
	RaEntity   *entity = &rs->entities[entity_no];
	RebuildPlans *plans = plans_get(rs);
	int			ncolumns = entity->columns.n;
	Datum	   *args = palloc((ncolumns + 2) * sizeof(Datum));
	int64		lower = PG_INT64_MAX;
	RaIdentity	save;
	int			level;
	int			i,
				k;

	for (i = 0; i < ncolumns; i++)
	{
		Oid			type = getBaseType(entity->columns.types[i]);
		int16		typlen;
		bool		typbyval;
		char		typalign;
		Datum	   *elements = palloc(n * sizeof(Datum));

		get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
		for (k = 0; k < n; k++)
			elements[k] = rebuilds[k].values[i];
		args[i] = PointerGetDatum(construct_array(elements, n, type, typlen, typbyval, typalign));
	}
	for (k = 0; k < n; k++)
		lower = Min(lower, rebuilds[k].lower);
	args[ncolumns] = time_datum(rs, lower);
	args[ncolumns + 1] = time_datum(rs, upper);

	level = plan_settings(entity->has_index);
	ra_become(plans->owner, &save);
	if (plans->many[entity_no] == NULL)
		plans->many[entity_no] = plan_many(rs, entity_no);
	if (SPI_execute_snapshot(plans->many[entity_no], args, NULL, snapshot, InvalidSnapshot, true,
							 false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read events of stream \"%s\"", rs->name);
	ra_unbecome(&save);
	if (level >= 0)
		AtEOXact_GUC(false, level);
	return SPI_processed;
}

/*
 * Planner settings for the queries of plan_many(): an index scan per entity, or a
 * join by hashing.  Returns the GUC nest level to leave, or -1.
 */
static int
plan_settings(bool has_index)
{
	const char *value = has_index ? "off" : "on";
	int			level;

	if (enable_hashjoin == !has_index && enable_mergejoin == !has_index &&
		enable_seqscan == !has_index && enable_material == !has_index)
		return -1;
	level = NewGUCNestLevel();
	(void) set_config_option("enable_seqscan", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("enable_hashjoin", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("enable_mergejoin", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("enable_material", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* Add an event to a window in our own memory, growing it */
static void
window_append(RaRebuild *rebuild, RaEntity *entity, const RaEvent *event)
{
	RaWindow   *window = rebuild->window;
	uint64		bytes;
	RaWindow   *bigger;

	switch (ra_window_add(window, &entity->spec, event))
	{
		case RA_WINDOW_RANGE:
			rebuild->wide = true;
			return;
		case RA_WINDOW_FULL:
			break;
		default:
			return;
	}

	bytes = ra_window_event_bytes(&entity->spec, event);
	if (bytes > 0 || window->bytes_used > 0)
		bytes = (uint64) window->bytes_used * 2 + bytes * 4;
	{
		uint32		capacity = Max(window->count + window->count / 2, 8);
		uint64		long_sums = ra_window_long_sums(window, &entity->spec, event);
		Size		size = ra_window_size(&entity->spec, long_sums, capacity, bytes);

		/* more than a window can be: computed from the table as well */
		if (size == 0)
		{
			rebuild->wide = true;
			return;
		}
		bigger = ra_window_init(palloc_extended(size, MCXT_ALLOC_HUGE), &entity->spec, long_sums,
								capacity, bytes, window->complete_from);
	}
	ra_window_copy(bigger, window, &entity->spec);
	pfree(window);
	rebuild->window = bigger;
	if (ra_window_add(bigger, &entity->spec, event) == RA_WINDOW_RANGE)
		rebuild->wide = true;
}
