/*
 * window_model.h
 *	  A naive model of a window, and a driver that compares the two; for
 *	  test_window.c and ../fuzz/fuzz_window.c.
 *
 * The model is an array of events and brute force.  The driver draws operations
 * from a Source: a seeded generator, or the fuzzer's bytes.  Every so many
 * operations it compares every reading function over some ranges.
 */
#ifndef WINDOW_MODEL_H
#define WINDOW_MODEL_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/core/window.h"

#define CHECK(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

#define MODEL_MEASURES	8
#define MODEL_MAX_BYTES	300
#define MODEL_MAX_SHORT	143165576	/* what sums that are not long can take */

typedef struct Source
{
	const uint8_t *data;		/* NULL: generate */
	size_t		len;
	uint64_t	state;
} Source;

typedef struct ModelEvent
{
	int64_t		time;
	uint64_t	key;
	RaValue		values[MODEL_MEASURES];	/* BYTES: malloc'd */
} ModelEvent;

typedef struct Model
{
	RaWindowSpec spec;
	RaWindow   *window;			/* malloc'd, of exactly its size */
	ModelEvent *events;
	uint32_t	count;
	uint32_t	room;
	int64_t		complete_from;
	int64_t		now;
	/* How to draw */
	uint32_t	max_count;
	int			nvalues;		/* distinct values to draw from, about */
	bool		huge;			/* integers near the limits as well */
	bool		edge;			/* most integers as large as short sums can take */
	uint64_t	long_sums;		/* what the window was made with */
} Model;

/*
 * Drawing
 */

static uint64_t
draw(Source *source)
{
	uint64_t	z;

	if (source->data)
	{
		if (source->len == 0)
			return 0;
		source->len--;
		return *source->data++;
	}
	z = source->state += UINT64_C(0x9E3779B97F4A7C15);
	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static uint32_t
draw_below(Source *source, uint32_t n)
{
	uint64_t	bits = draw(source);

	if (n > 256)
		bits = bits << 8 | (draw(source) & 0xff);
	return n ? (uint32_t) (bits % n) : 0;
}

static void
draw_spec(Source *source, RaWindowSpec *spec)
{
	memset(spec, 0, sizeof(*spec));
	spec->nmeasures = (int) draw_below(source, MODEL_MEASURES + 1);
	for (int m = 0; m < spec->nmeasures; m++)
	{
		RaMeasureSpec *measure = &spec->measures[m];
		uint64_t	bits = draw(source);

		measure->kind = (uint8_t) draw_below(source, RA_MEASURE_BYTES + 1);
		measure->always = bits & 1;
		measure->sum = (bits >> 1) & 1;
		measure->sumsq = measure->sum && ((bits >> 2) & 1);
		measure->minmax = (bits >> 3) & 1;
		measure->special = (bits >> 4) & 1;
		if (measure->kind == RA_MEASURE_HASH && bits & 0x60)
			measure->span = (int64_t) (1 << (bits >> 5 & 7));
	}
}

/* A value; BYTES are malloc'd */
static RaValue
draw_value(Source *source, const Model *model, const RaMeasureSpec *measure)
{
	static const int64_t integers[] = {
		INT64_MAX, INT64_MIN, INT64_MIN + 1, (INT64_C(1) << 62) - 1, -(INT64_C(1) << 62),
		INT64_C(1) << 61, -(INT64_C(1) << 61), INT64_C(1) << 60,
		MODEL_MAX_SHORT, -MODEL_MAX_SHORT, MODEL_MAX_SHORT + 1, -MODEL_MAX_SHORT - 1
	};
	static const double doubles[] = {
		0.0, -0.0, 1.0, -1.0, 0.1, 1e300, -1e300, 1e-300, 1e16, 3.5, 5e-324
	};
	RaValue		value;
	uint32_t	bits = draw_below(source, 64);
	uint32_t	which = draw_below(source, (uint32_t) model->nvalues);

	memset(&value, 0, sizeof(value));
	value.state = RA_VALUE_FINITE;
	if (!measure->always && bits < 20)
	{
		value.state = RA_VALUE_NONE;
		return value;
	}
	switch ((RaMeasureKind) measure->kind)
	{
		case RA_MEASURE_COUNT:
			break;
		case RA_MEASURE_INT:
			value.v.i = (int64_t) which - model->nvalues / 2;
			if (measure->special && bits >= 54)
			{
				value.state = (uint8_t) (RA_VALUE_NAN + bits % 3);
				value.v.i = 0;
			}
			else if (model->huge && bits >= 44)
				value.v.i = integers[which % 12];
			else if (model->edge && bits >= 24)
				value.v.i = which % 8 ? MODEL_MAX_SHORT : -MODEL_MAX_SHORT;
			break;
		case RA_MEASURE_FLOAT:
			value.v.f = doubles[which % 11];
			if (bits == 60)
				value.v.f = (double) NAN;
			else if (bits == 61)
				value.v.f = (double) INFINITY;
			else if (bits == 62)
				value.v.f = (double) -INFINITY;
			else if (bits % 2)
				value.v.f = ((double) which - model->nvalues / 2) / 7.0;
			break;
		case RA_MEASURE_HASH:
			/* all, or only the lower or higher bits, may differ */
			value.v.h = which;
			if (bits % 4 == 1)
				value.v.h = (uint64_t) which << 48;
			else if (bits % 4 == 2)
				value.v.h = which * UINT64_C(0x9E3779B97F4A7C15);
			break;
		case RA_MEASURE_WORD:
			value.v.h = which * UINT64_C(0x9E3779B97F4A7C15);
			break;
		case RA_MEASURE_BYTES:
			value.len = bits == 63 ? which % MODEL_MAX_BYTES : bits % 5;
			value.v.p = malloc(value.len + 1);
			memset((void *) (uintptr_t) value.v.p, (int) which, value.len);
			break;
	}
	return value;
}

/*
 * The model
 */

static void
free_values(const Model *model, RaValue *values)
{
	for (int m = 0; m < model->spec.nmeasures; m++)
		if (model->spec.measures[m].kind == RA_MEASURE_BYTES && values[m].state != RA_VALUE_NONE)
			free((void *) (uintptr_t) values[m].v.p);
}

static RaWindow *
model_new_window(const Model *model, uint32_t capacity, uint32_t bytes)
{
	size_t		size = ra_window_size(&model->spec, model->long_sums, capacity, bytes);
	void	   *mem;

	CHECK(size > 0 && size % 8 == 0);
	mem = malloc(size);
	memset(mem, 0x5a, size);
	return ra_window_init(mem, &model->spec, model->long_sums, capacity, bytes,
						  model->complete_from);
}

static void
model_init(Model *model, const RaWindowSpec *spec, uint32_t capacity, uint32_t bytes)
{
	memset(model, 0, sizeof(*model));
	model->spec = *spec;
	model->complete_from = -1000;
	model->max_count = 200;
	model->nvalues = 40;
	model->window = model_new_window(model, capacity, bytes);
}

static void
model_free(Model *model)
{
	for (uint32_t i = 0; i < model->count; i++)
		free_values(model, model->events[i].values);
	free(model->events);
	free(model->window);
}

/* The measures whose sums that event, and if "held" those held, need long */
static uint64_t
model_long_sums(const Model *model, const ModelEvent *event, bool held)
{
	uint64_t	long_sums = 0;

	for (int m = 0; m < model->spec.nmeasures; m++)
		for (uint32_t i = held ? 0 : model->count; i <= model->count; i++)
		{
			const ModelEvent *each = i < model->count ? &model->events[i] : event;

			if (each && model->spec.measures[m].kind == RA_MEASURE_INT &&
				each->values[m].state == RA_VALUE_FINITE &&
				(each->values[m].v.i > MODEL_MAX_SHORT || each->values[m].v.i < -MODEL_MAX_SHORT))
				long_sums |= UINT64_C(1) << m;
		}
	return long_sums;
}

/*
 * Replace the window with a copy of it, as its users do to grow or compact; more
 * sums than have to be may be long.
 */
static void
model_copy(Model *model, uint32_t capacity, uint32_t bytes, uint64_t long_sums)
{
	RaWindow   *window;

	model->long_sums = model_long_sums(model, NULL, true) | long_sums;
	model->complete_from--;		/* the copy takes it from the source */
	window = model_new_window(model, capacity, bytes);
	model->complete_from++;
	ra_window_copy(window, model->window, &model->spec);
	CHECK(window->bytes_used == model->window->bytes_live);
	CHECK(window->bytes_live == model->window->bytes_live);
	free(model->window);
	model->window = window;
}

/* Move the block elsewhere */
static void
model_relocate(Model *model)
{
	void	   *mem = malloc(model->window->size);

	memcpy(mem, model->window, model->window->size);
	memset(model->window, 0x5a, model->window->size);
	free(model->window);
	model->window = mem;
}

static int64_t
model_find(const Model *model, int64_t time, uint64_t key)
{
	for (uint32_t i = 0; i < model->count; i++)
		if (model->events[i].time == time && model->events[i].key == key)
			return i;
	return -1;
}

static uint32_t
model_bound(const Model *model, int64_t time)
{
	uint32_t	i = 0;

	while (i < model->count && model->events[i].time <= time)
		i++;
	return i;
}

static void
model_drop(Model *model, uint32_t i)
{
	free_values(model, model->events[i].values);
	model->count--;
	memmove(&model->events[i], &model->events[i + 1], (model->count - i) * sizeof(ModelEvent));
}

/* Would the sums leave their range with that event, without event i? */
static bool
model_overflows(const Model *model, const ModelEvent *event, int64_t without)
{
	for (int m = 0; m < model->spec.nmeasures; m++)
	{
		const RaMeasureSpec *measure = &model->spec.measures[m];
		ra_int128	sum = 0;

		if (measure->kind != RA_MEASURE_INT || !measure->sum ||
			event->values[m].state != RA_VALUE_FINITE)
			continue;
		for (uint32_t i = 0; i <= model->count; i++)
		{
			const RaValue *value = &(i < model->count ? &model->events[i] : event)->values[m];

			if (value->state == RA_VALUE_FINITE && i != without)
				sum += value->v.i < 0 ? -(ra_int128) value->v.i : value->v.i;
		}
		if (sum >= (ra_int128) 1 << 62)
			return true;
	}
	return false;
}

/* Add to both; takes the event's values over */
static RaWindowResult
model_add(Model *model, Source *source, ModelEvent *event)
{
	RaEvent		arg = {event->time, event->key, event->values};
	int64_t		replaced = model_find(model, event->time, event->key);
	uint32_t	bytes = ra_window_event_bytes(&model->spec, &arg);
	uint64_t	long_sums = model_long_sums(model, event, true);
	RaWindowResult result = ra_window_add(model->window, &model->spec, &arg);
	uint32_t	i;

	if (result == RA_WINDOW_FULL)
	{
		const RaWindow *w = model->window;

		CHECK((replaced < 0 && w->count >= w->capacity - w->capacity / 16) ||
			  w->bytes_used + bytes > w->bytes_capacity ||
			  (model_long_sums(model, event, false) & ~model->long_sums) != 0);
		CHECK(ra_window_long_sums(w, &model->spec, &arg) == long_sums);
		model_copy(model, w->count + 1 + draw_below(source, w->count + 4),
				   w->bytes_live + bytes + draw_below(source, 100), long_sums);
		result = ra_window_add(model->window, &model->spec, &arg);
	}
	if (event->time <= model->complete_from)
		CHECK(result == RA_WINDOW_OLD);
	else if (model_overflows(model, event, replaced))
		CHECK(result == RA_WINDOW_RANGE);
	else
	{
		CHECK(result == (replaced >= 0 ? RA_WINDOW_REPLACED : RA_WINDOW_OK));
		if (replaced >= 0)
			model_drop(model, (uint32_t) replaced);
		if (model->count == model->room)
		{
			model->room = model->room * 2 + 16;
			model->events = realloc(model->events, model->room * sizeof(ModelEvent));
		}
		i = model_bound(model, event->time);
		memmove(&model->events[i + 1], &model->events[i], (model->count - i) * sizeof(ModelEvent));
		model->events[i] = *event;
		model->count++;
		return result;
	}
	free_values(model, event->values);
	return result;
}

static void
model_remove(Model *model, int64_t time, uint64_t key)
{
	int64_t		i = model_find(model, time, key);

	CHECK(ra_window_remove(model->window, &model->spec, time, key) == (i >= 0));
	if (i >= 0)
		model_drop(model, (uint32_t) i);
}

static void
model_trim(Model *model, int64_t horizon)
{
	uint32_t	n = horizon > model->complete_from ? model_bound(model, horizon) : 0;

	CHECK(ra_window_trim(model->window, &model->spec, horizon) == n);
	if (horizon > model->complete_from)
		model->complete_from = horizon;
	for (uint32_t i = 0; i < n; i++)
		free_values(model, model->events[i].values);
	model->count -= n;
	if (n > 0)
		memmove(model->events, model->events + n, model->count * sizeof(ModelEvent));
}

/*
 * Comparing
 */

static bool
same_double(double a, double b)
{
	return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof(a)) == 0;
}

static bool
same_value(const RaMeasureSpec *measure, const RaValue *a, const RaValue *b)
{
	if (a->state != b->state)
		return false;
	switch ((RaMeasureKind) measure->kind)
	{
		case RA_MEASURE_COUNT:
			return true;
		case RA_MEASURE_INT:
			return a->state != RA_VALUE_FINITE || a->v.i == b->v.i;
		case RA_MEASURE_FLOAT:
			return same_double(a->v.f, b->v.f);
		case RA_MEASURE_HASH:
		case RA_MEASURE_WORD:
			return a->v.h == b->v.h;
		case RA_MEASURE_BYTES:
			return a->len == b->len && (a->len == 0 || memcmp(a->v.p, b->v.p, a->len) == 0);
	}
	return false;
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64_t	x = *(const uint64_t *) a;
	uint64_t	y = *(const uint64_t *) b;

	return x < y ? -1 : x > y;
}

/* The values that count among [lo, hi) and self, in order */
static uint32_t
model_values(const Model *model, int m, uint32_t lo, uint32_t hi, const RaValue *self,
			 const RaValue **values)
{
	uint32_t	n = 0;

	for (uint32_t i = lo; i < hi; i++)
		if (model->events[i].values[m].state != RA_VALUE_NONE)
			values[n++] = &model->events[i].values[m];
	if (self && self->state != RA_VALUE_NONE)
		values[n++] = self;
	return n;
}

static void
check_int(const RaMeasureSpec *measure, const RaValue **values, uint32_t n, const RaAggregate *got)
{
	uint64_t	special[5] = {0, 0, 0, 0, 0};
	ra_int128	sum = 0;
	ra_uint128	sumsq = 0;
	int64_t		min = INT64_MAX;
	int64_t		max = INT64_MIN;

	for (uint32_t i = 0; i < n; i++)
	{
		int64_t		value = values[i]->v.i;

		special[values[i]->state]++;
		if (values[i]->state != RA_VALUE_FINITE)
			continue;
		sum += value;
		sumsq += (ra_uint128) ((ra_int128) value * value);
		min = value < min ? value : min;
		max = value > max ? value : max;
	}
	CHECK(got->nan == special[RA_VALUE_NAN]);
	CHECK(got->pinf == special[RA_VALUE_PINF]);
	CHECK(got->ninf == special[RA_VALUE_NINF]);
	if (measure->sum)
		CHECK(got->sum == sum);
	if (measure->sumsq)
		CHECK(got->sumsq == sumsq);
	if (measure->minmax && special[RA_VALUE_FINITE] > 0)
	{
		CHECK(got->min == min);
		CHECK(got->max == max);
	}
}

/* float8_accum(), float8pl(), float8smaller() and float8larger(), literally */
static void
check_float(const RaMeasureSpec *measure, const RaValue **values, uint32_t n,
			const RaAggregate *got)
{
	double		sum = 0;
	double		total = 0;
	double		sxx = 0;
	double		min = 0;
	double		max = 0;
	double		count = 0;
	uint64_t	nan = 0;
	uint64_t	infinite = 0;

	for (uint32_t i = 0; i < n; i++)
	{
		double		value = values[i]->v.f;

		nan += isnan(value) != 0;
		infinite += isinf(value) != 0;
		total = i == 0 ? value : total + value;
		min = i == 0 || !(!isnan(min) && (isnan(value) || min < value)) ? value : min;
		max = i == 0 || !(!isnan(value) && (isnan(max) || max > value)) ? value : max;

		count += 1.0;
		sum += value;
		if (count > 1.0)
		{
			double		tmp = value * count - sum;

			sxx += tmp * tmp / (count * (count - 1.0));
			if (isinf(sum) || isinf(sxx))
				sxx = (double) NAN;
		}
		else if (isnan(value) || isinf(value))
			sxx = (double) NAN;
	}
	if (n == 0)
		return;
	CHECK(same_double(got->fsum, total));
	CHECK(same_double(got->fsxx, sxx));
	if (measure->minmax)
	{
		CHECK(same_double(got->fmin, min));
		CHECK(same_double(got->fmax, max));
	}
	if (!isfinite(total) || isnan(sxx))
	{
		CHECK(got->nan == nan);
		CHECK(got->pinf + got->ninf == infinite);
	}
}

/* How ranges come in practice: their ends move on, and are noted */
static void
check_noted(const Model *model, int m)
{
	const RaMeasureSpec *measure = &model->spec.measures[m];
	RaWindow   *w = model->window;

	for (int nth = 0; nth < 3; nth++)
	{
		int64_t		begin = model->now - (8 << 3 * nth);
		uint32_t	lo = model_bound(model, begin);

		CHECK(ra_window_begin(w, &model->spec, nth + 7 * m, begin) == lo);
		ra_window_note_begin(w, &model->spec, nth + 7 * m, lo);
		CHECK(ra_window_begin(w, &model->spec, RA_WINDOW_NOW, begin) == lo);
		ra_window_note_begin(w, &model->spec, RA_WINDOW_NOW, lo);
		ra_window_prefetch(w, &model->spec, nth > 0);
		if (model->count > 0)
			ra_window_prefetch_values(w, &model->spec, model->events[model->count / 2].values);
		if (measure->kind == RA_MEASURE_INT && measure->minmax)
			ra_window_note_extremum(w, &model->spec, m, nth, lo, w->count - (w->count > lo), nth % 2);
		while (measure->span > 0 && lo < w->count && model->now - model->events[lo].time > measure->span)
			lo++;
		if (measure->kind == RA_MEASURE_HASH)
			ra_window_note_distinct(w, &model->spec, m, nth, lo, w->count - (w->count > lo));
	}
}

static void
check_range(const Model *model, int m, uint32_t lo, uint32_t hi, const RaValue *self)
{
	const RaMeasureSpec *measure = &model->spec.measures[m];
	const RaValue **values = malloc((hi - lo + 1) * sizeof(RaValue *));
	uint32_t	n;
	uint32_t	held;
	int			want = RA_WANT_COUNT;
	RaAggregate got;
	RaValue		value;

	/* no range is longer than the span allows */
	while (measure->span > 0 && lo < hi &&
		   model->events[hi - 1].time - model->events[lo].time > measure->span)
		lo++;
	n = model_values(model, m, lo, hi, self, values);
	held = model_values(model, m, lo, hi, NULL, values);

	if (measure->kind == RA_MEASURE_FLOAT)
		want |= RA_WANT_SUM | RA_WANT_SUMSQ;
	if (measure->sum)
		want |= RA_WANT_SUM;
	if (measure->sumsq)
		want |= RA_WANT_SUMSQ;
	if (measure->minmax)
		want |= RA_WANT_MIN | RA_WANT_MAX;
	model_values(model, m, lo, hi, self, values);

	ra_window_aggregate(model->window, &model->spec, m, lo, hi, self, want, &got);
	CHECK(got.n == n);
	check_noted(model, m);
	if (measure->kind == RA_MEASURE_INT)
	{
		check_int(measure, values, n, &got);
	}
	else if (measure->kind == RA_MEASURE_FLOAT)
		check_float(measure, values, n, &got);
	else if (measure->kind == RA_MEASURE_HASH)
	{
		uint64_t   *hashes = malloc((n + 1) * sizeof(uint64_t));
		uint64_t	distinct = 0;

		for (uint32_t i = 0; i < n; i++)
			hashes[i] = values[i]->v.h;
		qsort(hashes, n, sizeof(uint64_t), compare_hashes);
		for (uint32_t i = 0; i < n; i++)
			distinct += i == 0 || hashes[i] != hashes[i - 1];
		free(hashes);
		CHECK(ra_window_distinct(model->window, &model->spec, m, lo, hi, self, false) == distinct);

		/* the next event as self */
		if (!self && hi < model->count &&
			(measure->span == 0 || lo == hi ||
			 model->events[hi].time - model->events[lo].time <= measure->span))
		{
			uint64_t	more = ra_window_distinct(model->window, &model->spec, m, lo, hi + 1, NULL,
												  false);

			self = &model->events[hi].values[m];
			CHECK(ra_window_distinct(model->window, &model->spec, m, lo, hi, self, true) == more);
			self = NULL;
		}
	}

	CHECK(ra_window_first(model->window, &model->spec, m, lo, hi, &value) == (held > 0));
	if (held > 0)
		CHECK(same_value(measure, &value, values[0]));
	CHECK(ra_window_last(model->window, &model->spec, m, m, lo, hi, &value) == (held > 0));
	if (held > 0)
		CHECK(same_value(measure, &value, values[held - 1]));

	/* the value where another measure counts last, if it does */
	{
		int			which = (m + 1) % model->spec.nmeasures;
		uint32_t	i = hi;
		bool		found;

		while (i > lo && model->events[i - 1].values[which].state == RA_VALUE_NONE)
			i--;
		found = i > lo && model->events[i - 1].values[m].state != RA_VALUE_NONE;
		CHECK(ra_window_last(model->window, &model->spec, m, which, lo, hi, &value) == found);
		if (found)
			CHECK(same_value(measure, &value, &model->events[i - 1].values[m]));
	}
	free(values);
}

static void
model_check(const Model *model, Source *source)
{
	const RaWindow *w = model->window;

	CHECK(w->count == model->count && w->count <= w->capacity);
	CHECK(w->complete_from == model->complete_from);
	CHECK(w->bytes_live <= w->bytes_used && w->bytes_used <= w->bytes_capacity);
	for (uint32_t i = 0; i < model->count; i++)
	{
		const ModelEvent *event = &model->events[i];

		CHECK(ra_window_time(w, i) == event->time);
		if (i % 5 == 0)
		{
			CHECK(ra_window_find(w, event->time, event->key) == i);
			CHECK(ra_window_bound(w, event->time) == model_bound(model, event->time));
		}
	}
	CHECK(ra_window_bound(w, INT64_MIN) == 0);
	CHECK(ra_window_bound(w, INT64_MAX) == model->count);
	CHECK(ra_window_find(w, model->now, UINT64_MAX) == -1);

	for (int m = 0; m < model->spec.nmeasures; m++)
	{
		uint32_t	lo = draw_below(source, model->count + 1);
		uint32_t	hi = lo + draw_below(source, model->count - lo + 1);
		RaValue		self = draw_value(source, model, &model->spec.measures[m]);

		check_range(model, m, 0, model->count, NULL);
		check_range(model, m, lo, hi, &self);
		check_range(model, m, lo, hi, NULL);
		check_range(model, m, lo, model->count, NULL);
		if (model->spec.measures[m].kind == RA_MEASURE_BYTES && self.state != RA_VALUE_NONE)
			free((void *) (uintptr_t) self.v.p);
	}
}

/* One random operation */
static void
model_step(Model *model, Source *source)
{
	uint32_t	op = draw_below(source, 64);
	uint32_t	pick = draw_below(source, model->count);

	if (op < 50)
	{
		ModelEvent	event;

		memset(&event, 0, sizeof(event));
		event.time = model->now + draw_below(source, 3) - 1;
		event.key = draw_below(source, 8);
		if (op < 8 && model->count > 0)
			event.time = model->events[pick].time;	/* late, or replacing */
		else if (op == 8)
			event.time = model->now - 200 + draw_below(source, 256);
		if (op == 9)
			event.key <<= 61;
		if (event.time > model->now)
			model->now = event.time;
		for (int m = 0; m < model->spec.nmeasures; m++)
			event.values[m] = draw_value(source, model, &model->spec.measures[m]);
		if (op == 10 && model->count > 0)
		{
			/* the very same once more */
			free_values(model, event.values);
			event = model->events[pick];
			for (int m = 0; m < model->spec.nmeasures; m++)
				if (model->spec.measures[m].kind == RA_MEASURE_BYTES &&
					event.values[m].state != RA_VALUE_NONE)
				{
					event.values[m].v.p = malloc(event.values[m].len + 1);
					memcpy((void *) (uintptr_t) event.values[m].v.p,
						   model->events[pick].values[m].v.p, event.values[m].len);
				}
		}
		model_add(model, source, &event);
	}
	else if (op < 56)
	{
		if (model->count > 0 && op < 55)
			model_remove(model, model->events[pick].time, model->events[pick].key);
		else
			model_remove(model, model->now, 1000);
	}
	else if (op < 60)
	{
		int64_t		horizon = model->complete_from + draw_below(source, 4) - 1;

		if (op == 59 && model->count > 0)
			horizon = model->events[pick / 4].time;
		model_trim(model, horizon);
	}
	else if (op < 62)
		model_relocate(model);
	else
	{
		uint64_t	long_sums = draw_below(source, 4) == 0 ? draw(source) : 0;

		model_copy(model, model->count + draw_below(source, 80),
				   model->window->bytes_live + draw_below(source, 80), long_sums);
	}

	if (model->count > model->max_count)
		model_trim(model, model->events[model->count - model->max_count].time);
	if (draw_below(source, 16) == 0)
		model->now += draw_below(source, 5);
}

#endif							/* WINDOW_MODEL_H */
