/*
 * test_window.c
 *	  Tests of src/core/window.c: its promises one by one, then random
 *	  operations against a naive model (window_model.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "window_model.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

#define SUM_MAX ((INT64_C(1) << 62) - 1)
#define SHORT_MAX MODEL_MAX_SHORT

/* One measure; its flags may be changed */
static RaWindowSpec
one_measure(RaMeasureKind kind)
{
	RaWindowSpec spec;

	memset(&spec, 0, sizeof(spec));
	spec.nmeasures = 1;
	spec.measures[0].kind = (uint8_t) kind;
	spec.measures[0].sum = kind == RA_MEASURE_INT;
	spec.measures[0].sumsq = kind == RA_MEASURE_INT;
	spec.measures[0].minmax = kind == RA_MEASURE_INT || kind == RA_MEASURE_FLOAT;
	return spec;
}

static RaWindow *
new_window_of(const RaWindowSpec *spec, uint64_t long_sums, uint32_t capacity, uint32_t bytes)
{
	return ra_window_init(malloc(ra_window_size(spec, long_sums, capacity, bytes)), spec, long_sums,
						  capacity, bytes, INT64_MIN);
}

static RaWindow *
new_window(const RaWindowSpec *spec, uint32_t capacity, uint32_t bytes)
{
	return new_window_of(spec, 0, capacity, bytes);
}

static RaWindowResult
add_int(RaWindow *w, const RaWindowSpec *spec, int64_t time, uint64_t key, int64_t i)
{
	RaValue		value = {.state = RA_VALUE_FINITE,.v.i = i};
	RaEvent		event = {time, key, &value};

	return ra_window_add(w, spec, &event);
}

static RaWindowResult
add_float(RaWindow *w, const RaWindowSpec *spec, int64_t time, double f)
{
	RaValue		value = {.state = RA_VALUE_FINITE,.v.f = f};
	RaEvent		event = {time, (uint64_t) time, &value};

	return ra_window_add(w, spec, &event);
}

static int64_t
value_at(const RaWindow *w, const RaWindowSpec *spec, uint32_t i)
{
	RaValue		value;

	assert_true(ra_window_first(w, spec, 0, i, i + 1, &value));
	return value.v.i;
}

static void
later_arrival_stands_behind_among_equal_times(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w = new_window(&spec, 8, 0);

	(void) state;
	assert_int_equal(add_int(w, &spec, 20, 1, 201), RA_WINDOW_OK);
	assert_int_equal(add_int(w, &spec, 10, 2, 102), RA_WINDOW_OK);
	assert_int_equal(add_int(w, &spec, 20, 3, 203), RA_WINDOW_OK);
	assert_int_equal(add_int(w, &spec, 10, 4, 104), RA_WINDOW_OK);
	assert_int_equal(value_at(w, &spec, 0), 102);
	assert_int_equal(value_at(w, &spec, 1), 104);
	assert_int_equal(value_at(w, &spec, 2), 201);
	assert_int_equal(value_at(w, &spec, 3), 203);
	assert_int_equal(ra_window_bound(w, 9), 0);
	assert_int_equal(ra_window_bound(w, 10), 2);
	assert_int_equal(ra_window_bound(w, 20), 4);
	assert_int_equal(ra_window_find(w, 20, 1), 2);
	assert_int_equal(ra_window_find(w, 10, 1), -1);
	free(w);
}

static void
a_key_seen_again_is_replaced_and_moves_last(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w = new_window(&spec, 3, 0);

	(void) state;
	add_int(w, &spec, 10, 1, 101);
	add_int(w, &spec, 10, 2, 102);
	add_int(w, &spec, 20, 1, 201);
	/* even where there is no room */
	assert_int_equal(add_int(w, &spec, 30, 4, 0), RA_WINDOW_FULL);
	assert_int_equal(add_int(w, &spec, 10, 1, 777), RA_WINDOW_REPLACED);
	assert_int_equal(w->count, 3);
	assert_int_equal(value_at(w, &spec, 0), 102);
	assert_int_equal(value_at(w, &spec, 1), 777);
	assert_int_equal(value_at(w, &spec, 2), 201);
	free(w);
}

static void
keys_that_differ_in_any_bit_are_told_apart(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w = new_window(&spec, 64, 0);

	(void) state;
	for (int bit = 0; bit < 48; bit++)
		assert_int_equal(add_int(w, &spec, 0, UINT64_C(1) << bit, bit), RA_WINDOW_OK);
	free(w);
	w = new_window(&spec, 64, 0);
	for (int bit = 16; bit < 64; bit++)
		assert_int_equal(add_int(w, &spec, 0, UINT64_C(1) << bit, bit), RA_WINDOW_OK);
	free(w);
}

static void
sums_cannot_overflow_and_shrink_again(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w = new_window_of(&spec, 1, 8, 0);
	RaAggregate result;

	(void) state;
	assert_int_equal(add_int(w, &spec, 1, 1, SUM_MAX - 10), RA_WINDOW_OK);
	assert_int_equal(add_int(w, &spec, 2, 2, -10), RA_WINDOW_OK);
	assert_int_equal(add_int(w, &spec, 3, 3, 1), RA_WINDOW_RANGE);
	assert_int_equal(add_int(w, &spec, 3, 3, INT64_MIN), RA_WINDOW_RANGE);
	assert_int_equal(w->count, 2);
	assert_int_equal(add_int(w, &spec, 2, 2, -11), RA_WINDOW_RANGE);
	assert_int_equal(add_int(w, &spec, 2, 2, 9), RA_WINDOW_REPLACED);
	assert_int_equal(add_int(w, &spec, 3, 3, 1), RA_WINDOW_OK);
	ra_window_aggregate(w, &spec, 0, 0, 3, NULL, RA_WANT_SUM, &result);
	assert_true(result.sum == SUM_MAX);

	assert_true(ra_window_remove(w, &spec, 3, 3));
	assert_int_equal(add_int(w, &spec, 3, 3, -1), RA_WINDOW_OK);
	assert_int_equal(ra_window_trim(w, &spec, 1), 1);
	assert_int_equal(add_int(w, &spec, 4, 4, SUM_MAX - 10), RA_WINDOW_OK);
	assert_int_equal(ra_window_trim(w, &spec, 100), 3);
	assert_int_equal(add_int(w, &spec, 101, 1, -SUM_MAX), RA_WINDOW_OK);
	free(w);
}

static void
self_may_take_a_sum_beyond_64_bits(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w = new_window_of(&spec, 1, 8, 0);
	RaValue		self = {.state = RA_VALUE_FINITE,.v.i = INT64_MIN};
	RaAggregate result;

	(void) state;
	add_int(w, &spec, 1, 1, -SUM_MAX);
	ra_window_aggregate(w, &spec, 0, 0, 1, &self, RA_WANT_SUM | RA_WANT_SUMSQ, &result);
	assert_true(result.sum == (ra_int128) INT64_MIN - SUM_MAX);
	assert_true(result.sumsq == ((ra_uint128) 1 << 126) + (ra_uint128) SUM_MAX * SUM_MAX);
	free(w);
}

static void
without_sums_any_integer_fits(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w;
	RaAggregate result;

	(void) state;
	spec.measures[0].sum = spec.measures[0].sumsq = false;
	w = new_window_of(&spec, 1, 8, 0);
	for (int i = 0; i < 6; i++)
		assert_int_equal(add_int(w, &spec, i, 1, i % 2 ? INT64_MAX - i : INT64_MIN + i), RA_WINDOW_OK);
	for (int i = 0; i < 6; i++)
		assert_true(value_at(w, &spec, (uint32_t) i) == (i % 2 ? INT64_MAX - i : INT64_MIN + i));
	ra_window_aggregate(w, &spec, 0, 0, 6, NULL, RA_WANT_MIN | RA_WANT_MAX, &result);
	assert_true(result.min == INT64_MIN && result.max == INT64_MAX - 1);
	free(w);
}

/* Add one that needs long sums; returns the window that took its place */
static RaWindow *
add_large(RaWindow *w, const RaWindowSpec *spec, int64_t time, uint64_t key, int64_t i)
{
	RaValue		value = {.state = RA_VALUE_FINITE,.v.i = i};
	RaEvent		event = {time, key, &value};
	RaWindow   *larger = new_window_of(spec, 1, w->capacity, 0);
	uint32_t	count = w->count;

	assert_int_equal(add_int(w, spec, time, key, i), RA_WINDOW_FULL);
	assert_int_equal(w->count, count);
	assert_true(ra_window_long_sums(w, spec, &event) == 1);
	ra_window_copy(larger, w, spec);
	free(w);
	assert_true(add_int(larger, spec, time, key, i) <= RA_WINDOW_REPLACED);
	return larger;
}

static ra_int128
sum_of(const RaWindow *w, const RaWindowSpec *spec, uint32_t lo, uint32_t hi)
{
	RaAggregate result;

	ra_window_aggregate(w, spec, 0, lo, hi, NULL, RA_WANT_SUM, &result);
	return result.sum;
}

static void
a_large_value_makes_sums_long_and_going_short_again(void **state)
{
	static const int64_t large[] = {SHORT_MAX + 1, -SHORT_MAX - 1, SUM_MAX / 4, -SUM_MAX / 4};
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);

	(void) state;
	for (size_t k = 0; k < LENGTH(large); k++)
	{
		RaWindow   *w = new_window(&spec, 50, 0);
		RaWindow   *again;
		RaValue		value = {.state = RA_VALUE_FINITE,.v.i = -SHORT_MAX};
		RaEvent		event = {41, 1, &value};

		for (int i = 0; i < 40; i++)
			assert_int_equal(add_int(w, &spec, i, 1, i == 1 ? -SHORT_MAX : SHORT_MAX), RA_WINDOW_OK);
		assert_true(sum_of(w, &spec, 0, 40) == (ra_int128) SHORT_MAX * 38);

		/* a sum that overflows would not fit a long one either */
		assert_int_equal(add_int(w, &spec, 20, 3, INT64_MAX), RA_WINDOW_RANGE);

		/* in place of another one, among others, behind them */
		w = add_large(w, &spec, 20, 1, large[k]);
		assert_int_equal(add_int(w, &spec, 20, 2, large[k]), RA_WINDOW_OK);
		assert_true(sum_of(w, &spec, 0, 41) == (ra_int128) SHORT_MAX * 37 + 2 * (ra_int128) large[k]);
		assert_true(value_at(w, &spec, 20) == large[k] && value_at(w, &spec, 21) == large[k]);

		/* as soon as all such have gone, it may be short */
		assert_true(ra_window_remove(w, &spec, 20, 2));
		assert_true(ra_window_long_sums(w, &spec, &event) == 1);
		assert_true(ra_window_remove(w, &spec, 20, 1));
		assert_true(ra_window_long_sums(w, &spec, &event) == 0);
		again = new_window(&spec, 41, 0);
		ra_window_copy(again, w, &spec);
		assert_int_equal(add_int(again, &spec, 41, 1, -SHORT_MAX), RA_WINDOW_OK);
		for (uint32_t i = 0; i < 40; i++)
			assert_true(value_at(again, &spec, i) == (i == 1 || i == 39 ? -SHORT_MAX : SHORT_MAX));
		assert_true(sum_of(again, &spec, 0, 40) == (ra_int128) SHORT_MAX * 36);
		free(w);
		free(again);
	}
}

/* NULL and NaN are no large values, whatever stands beside them */
static void
only_values_that_count_make_sums_long(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w;
	RaValue		value = {.state = RA_VALUE_NONE,.v.i = INT64_MAX};
	RaEvent		event = {0, 1, &value};

	(void) state;
	spec.measures[0].special = true;
	w = new_window(&spec, 8, 0);
	assert_int_equal(ra_window_add(w, &spec, &event), RA_WINDOW_OK);
	value.state = RA_VALUE_NAN;
	event.time = 1;
	assert_int_equal(ra_window_add(w, &spec, &event), RA_WINDOW_OK);
	assert_true(ra_window_long_sums(w, &spec, &event) == 0);
	assert_true(sum_of(w, &spec, 0, 2) == 0);
	free(w);
}

/* Wherever the largest short values begin and end: late, gone, trimmed, moved */
static void
short_sums_hold_their_largest_values_everywhere(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);

	(void) state;
	for (int sign = -1; sign <= 1; sign += 2)
		for (int64_t shift = 0; shift < 40; shift++)
		{
			RaWindow   *w = new_window(&spec, 100, 0);
			int64_t		value = sign * SHORT_MAX;

			for (int64_t time = 0; time < 100; time++)
				assert_int_equal(add_int(w, &spec, time * 2, 1, value), RA_WINDOW_OK);
			ra_window_trim(w, &spec, 2 * (10 + shift) - 1);
			assert_int_equal(add_int(w, &spec, 201, 1, value), RA_WINDOW_OK);	/* moves all */
			assert_int_equal(w->count, 91 - shift);
			assert_int_equal(add_int(w, &spec, 2 * (10 + shift) + 1, 1, -value), RA_WINDOW_OK);
			assert_true(ra_window_remove(w, &spec, 2 * (10 + shift) + 2, 1));
			for (uint32_t lo = 0; lo <= w->count; lo++)
				for (uint32_t hi = lo; hi <= w->count; hi++)
				{
					int64_t		n = (int64_t) hi - lo - (lo < 2 && hi >= 2 ? 2 : 0);

					assert_true(sum_of(w, &spec, lo, hi) == (ra_int128) value * n);
				}
			free(w);
		}
}

static void
events_before_the_window_are_refused(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w = new_window(&spec, 8, 0);

	(void) state;
	assert_int_equal(add_int(w, &spec, INT64_MIN, 1, 1), RA_WINDOW_OLD);
	assert_int_equal(add_int(w, &spec, INT64_MIN + 1, 1, 1), RA_WINDOW_OK);
	assert_int_equal(add_int(w, &spec, INT64_MAX, 1, 1), RA_WINDOW_OK);
	assert_int_equal(ra_window_trim(w, &spec, 50), 1);
	assert_int_equal(add_int(w, &spec, 50, 1, 1), RA_WINDOW_OLD);
	assert_int_equal(add_int(w, &spec, 51, 1, 1), RA_WINDOW_OK);
	assert_int_equal(ra_window_trim(w, &spec, 40), 0);
	assert_int_equal(w->complete_from, 50);
	free(w);
}

static void
a_full_window_grows_by_copying(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_BYTES);
	RaWindow   *w = new_window(&spec, 4, 14);
	RaWindow   *larger;
	RaValue		value = {.state = RA_VALUE_FINITE,.len = 3,.v.p = "abc"};
	RaEvent		event = {1, 1, &value};

	(void) state;
	assert_int_equal(ra_window_event_bytes(&spec, &event), 4);
	assert_int_equal(ra_window_add(w, &spec, &event), RA_WINDOW_OK);
	event.key = 2;
	value.v.p = "";
	value.len = 0;
	assert_int_equal(ra_window_add(w, &spec, &event), RA_WINDOW_OK);
	assert_int_equal(w->bytes_used, 5);
	value.v.p = "uvwxyz";
	value.len = 6;
	assert_int_equal(ra_window_add(w, &spec, &event), RA_WINDOW_REPLACED);
	assert_int_equal(w->bytes_used, 12);
	assert_int_equal(w->bytes_live, 11);
	event.key = 3;
	assert_int_equal(ra_window_add(w, &spec, &event), RA_WINDOW_FULL);
	assert_int_equal(w->count, 2);

	larger = new_window(&spec, 3, 18);
	ra_window_copy(larger, w, &spec);
	assert_int_equal(larger->bytes_used, 11);
	assert_int_equal(ra_window_add(larger, &spec, &event), RA_WINDOW_OK);
	event.key = 4;
	value.state = RA_VALUE_NONE;
	assert_int_equal(ra_window_add(larger, &spec, &event), RA_WINDOW_FULL);
	assert_true(ra_window_last(larger, &spec, 0, 0, 0, 2, &value));
	assert_int_equal(value.len, 6);
	assert_memory_equal(value.v.p, "uvwxyz", 6);
	free(w);
	free(larger);
}

/* 10,000 events through a window that never grows beyond a sixteenth more */
static void
a_sliding_window_needs_little_room(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w = new_window(&spec, 170, 0);

	(void) state;
	for (int i = 0; i < 10000; i++)
	{
		RaAggregate result;

		ra_window_trim(w, &spec, i - 160);
		assert_int_equal(add_int(w, &spec, i, 1, i), RA_WINDOW_OK);
		ra_window_aggregate(w, &spec, 0, 0, w->count, NULL, RA_WANT_MIN | RA_WANT_MAX, &result);
		assert_true(result.min == (i < 160 ? 0 : i - 159) && result.max == i);
	}
	free(w);
}

/* Two ranges move on over descending and random values; now and then an event is late or goes */
static void
noted_extrema_follow_their_ranges(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w = new_window(&spec, 700, 0);
	uint64_t	random = 1;

	(void) state;
	for (int i = 0; i < 4000; i++)
	{
		int64_t		value = i < 1500 ? -i : (int64_t) ((random = random * 6364136223846793005 + 1) >> 50);
		RaAggregate before;
		RaAggregate after;

		ra_window_trim(w, &spec, i - 600);
		if (i % 97 == 50)		/* before the last one only */
			assert_int_equal(add_int(w, &spec, i - 2, 3, i % 2 ? 200000 : -200000), RA_WINDOW_OK);
		assert_int_equal(add_int(w, &spec, i, 1, value), RA_WINDOW_OK);
		if (i % 97 == 96)
			assert_int_equal(add_int(w, &spec, i - 50, 2, i % 2 ? 100000 : -100000), RA_WINDOW_OK);
		if (i % 97 == 20 && i > 96)
			assert_true(ra_window_remove(w, &spec, i - 71, 2));
		for (int nth = 0; nth < 2; nth++)
		{
			uint32_t	lo = ra_window_begin(w, &spec, nth, i - (nth ? 100 : 500));

			ra_window_note_begin(w, &spec, nth, lo);
			assert_int_equal(lo, ra_window_bound(w, i - (nth ? 100 : 500)));
			ra_window_aggregate(w, &spec, 0, lo, w->count, NULL, RA_WANT_MIN | RA_WANT_MAX, &before);
			ra_window_note_extremum(w, &spec, 0, nth, lo, w->count, nth);
			ra_window_aggregate(w, &spec, 0, lo, w->count, NULL, RA_WANT_MIN | RA_WANT_MAX, &after);
			assert_true(before.min == after.min && before.max == after.max);
			for (uint32_t k = lo; k < w->count; k++)
				assert_true(before.min <= value_at(w, &spec, k) && value_at(w, &spec, k) <= before.max);
		}
	}
	free(w);
}

/* The same of distinct values, whose distances take two bytes or four */
static void
check_noted_distinct(uint32_t capacity)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_HASH);
	RaWindow   *w = new_window(&spec, capacity, 0);
	RaWindow   *plain = new_window(&spec, capacity, 0); /* nobody notes anything there */
	uint64_t	random = 1;

	for (int i = 0; i < 4000; i++)
	{
		uint64_t	drawn = (random = random * 6364136223846793005 + 1) >> 50;
		RaValue		value = {.state = i % 11 ? RA_VALUE_FINITE : RA_VALUE_NONE,
		.v.h = drawn % (i < 1000 ? 5000 : 150) << (i % 3 ? 0 : 40)};
		RaEvent		event = {i, 1, &value};

		for (int k = 0; k < 2; k++)
		{
			RaWindow   *each = k ? w : plain;

			event.time = i;
			event.key = 1;
			ra_window_trim(each, &spec, i - 600);
			assert_int_equal(ra_window_add(each, &spec, &event), RA_WINDOW_OK);
			event.time = i - 50;
			event.key = 2;
			if (i % 97 == 96)
				assert_int_equal(ra_window_add(each, &spec, &event), RA_WINDOW_OK);
			if (i % 97 == 20 && i > 96)
				assert_true(ra_window_remove(each, &spec, i - 71, 2));
		}
		for (int nth = 0; nth < 2; nth++)
		{
			uint32_t	lo = ra_window_bound(w, i - (nth ? 150 : 500) - i % 5 / 4);
			uint64_t	expected = ra_window_distinct(plain, &spec, 0, lo, w->count, NULL, false);

			assert_int_equal(ra_window_distinct(w, &spec, 0, lo, w->count, NULL, false), expected);
			ra_window_note_distinct(w, &spec, 0, nth, lo, w->count);
			assert_int_equal(ra_window_distinct(w, &spec, 0, lo, w->count, NULL, false), expected);
		}
	}
	free(w);
	free(plain);
}

static void
noted_distinct_values_follow_their_ranges(void **state)
{
	(void) state;
	check_noted_distinct(700);
	check_noted_distinct(70000);
}

/* A look back that ends at the span finds all that a range can hold */
static void
a_span_bounds_how_far_values_are_looked_for(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_HASH);
	RaWindow   *w;
	RaValue		value = {.state = RA_VALUE_FINITE,.v.h = 5};
	RaEvent		event = {0, 1, &value};

	(void) state;
	spec.measures[0].span = 10;
	w = new_window(&spec, 100, 0);
	for (int64_t time = 0; time <= 60; time += 10)
	{
		event.time = time;
		assert_int_equal(ra_window_add(w, &spec, &event), RA_WINDOW_OK);
	}
	event.time = 25;			/* between two */
	assert_int_equal(ra_window_add(w, &spec, &event), RA_WINDOW_OK);
	for (uint32_t lo = 0; lo + 2 <= w->count; lo++)
	{
		assert_int_equal(ra_window_distinct(w, &spec, 0, lo, lo + 1, &value, true), 1);
		assert_int_equal(ra_window_distinct(w, &spec, 0, lo, lo + 2, NULL, false), 1);
	}
	assert_true(ra_window_remove(w, &spec, 25, 1));
	assert_true(ra_window_remove(w, &spec, 30, 1));
	assert_int_equal(ra_window_distinct(w, &spec, 0, 3, 5, NULL, false), 1);
	free(w);
}

/* What is not kept while no special value is there is right as soon as one comes */
static void
special_values_come_and_go(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w;
	RaValue		nan = {.state = RA_VALUE_NAN};
	RaEvent		event = {0, 1, &nan};
	RaAggregate result;

	(void) state;
	spec.measures[0].special = true;
	w = new_window(&spec, 1000, 0);
	for (int i = 0; i < 300; i++)
		add_int(w, &spec, i * 2, 1, i);
	for (int round = 0; round < 300; round += 63)
	{
		event.time = round * 2 + 1;
		assert_int_equal(ra_window_add(w, &spec, &event), RA_WINDOW_OK);
		ra_window_aggregate(w, &spec, 0, 0, 301, NULL, RA_WANT_MAX, &result);
		assert_true(result.n == 301 && result.nan == 1 && result.max == 299);
		ra_window_aggregate(w, &spec, 0, (uint32_t) round + 2, 301, NULL, RA_WANT_MAX, &result);
		assert_true(result.nan == 0);
		assert_true(ra_window_remove(w, &spec, event.time, 1));
		ra_window_aggregate(w, &spec, 0, 0, 300, NULL, RA_WANT_MAX, &result);
		assert_true(result.n == 300 && result.nan == 0);
	}
	free(w);
}

static void
windows_are_compact(void **state)
{
	RaWindowSpec spec;

	(void) state;
	memset(&spec, 0, sizeof(spec));
	spec.nmeasures = 3;
	spec.measures[0].kind = RA_MEASURE_COUNT;
	spec.measures[1].kind = RA_MEASURE_INT;
	spec.measures[1].sum = true;
	spec.measures[2].kind = RA_MEASURE_HASH;
	for (int m = 0; m < 3; m++)
		spec.measures[m].always = true;
	assert_in_range(ra_window_size(&spec, 0, 10000, 0), 0, 10000 * 57 / 2 + 200);
	assert_in_range(ra_window_size(&spec, 0, 10, 0), 0, 10 * 57 / 2 + 120);
	assert_in_range(ra_window_size(&spec, 2, 10000, 0), 0, 10000 * 32 + 150);
	assert_in_range(ra_window_size(&spec, 2, 10, 0), 0, 10 * 32 + 100);

	/* one with everything */
	spec.nmeasures = RA_MAX_MEASURES;
	for (int m = 0; m < RA_MAX_MEASURES; m++)
	{
		memset(&spec.measures[m], true, sizeof(spec.measures[m]));
		spec.measures[m].kind = RA_MEASURE_INT;
		spec.measures[m].always = false;
	}
	assert_true(ra_window_size(&spec, 0, 1000, 1000) > 0);
	assert_int_equal(ra_window_size(&spec, 0, UINT32_MAX, UINT32_MAX), 0);
	assert_int_equal(ra_window_size(&spec, 0, 0, UINT32_MAX), 0);
	assert_int_equal(ra_window_size(&spec, 0, 0, (uint64_t) UINT32_MAX + 1000), 0);
	assert_int_equal(ra_window_size(&spec, 0, UINT32_MAX, 0), 0);
	assert_true(ra_window_size(&spec, 0, 0, 1 << 29) > 0);
}

/* Bits of sum(), var_pop(), min() and max() over float8 in PostgreSQL 15 */
static void
doubles_are_aggregated_as_postgresql_does(void **state)
{
	static const struct
	{
		int			n;
		double		values[7];
		uint64_t	bits[4];
	}			vectors[] = {
		{1, {1.5}, {0x3ff8000000000000, 0, 0x3ff8000000000000, 0x3ff8000000000000}},
		{3, {0.1, 0.2, 0.3}, {0x3fe3333333333334, 0x3f7b4e81b4e81b48, 0x3fb999999999999a, 0x3fd3333333333333}},
		{2, {-0.0, -0.0}, {0x8000000000000000, 0, 0x8000000000000000, 0x8000000000000000}},
		{2, {0.0, -0.0}, {0, 0, 0x8000000000000000, 0x8000000000000000}},
		{2, {-0.0, 0.0}, {0, 0, 0, 0}},
		{3, {1e16, 1, -1e16}, {0, 0x468a4b9cf15c92c8, 0xc341c37937e08000, 0x4341c37937e08000}},
		{3, {1, 1e16, -1e16}, {0, 0x468a4b9cf15c92c9, 0xc341c37937e08000, 0x4341c37937e08000}},
		{1, {NAN}, {0x7ff8000000000000, 0x7ff8000000000000, 0x7ff8000000000000, 0x7ff8000000000000}},
		{3, {1, NAN, 2}, {0x7ff8000000000000, 0x7ff8000000000000, 0x3ff0000000000000, 0x7ff8000000000000}},
		{1, {INFINITY}, {0x7ff0000000000000, 0x7ff8000000000000, 0x7ff0000000000000, 0x7ff0000000000000}},
		{2, {1, INFINITY}, {0x7ff0000000000000, 0x7ff8000000000000, 0x3ff0000000000000, 0x7ff0000000000000}},
		{3, {INFINITY, 1, -INFINITY}, {0xfff8000000000000, 0x7ff8000000000000, 0xfff0000000000000, 0x7ff0000000000000}},
		{3, {3, NAN, -INFINITY}, {0x7ff8000000000000, 0x7ff8000000000000, 0xfff0000000000000, 0x7ff8000000000000}},
		{7, {1, 2, 3, 4, 5, 6, 7}, {0x403c000000000000, 0x4010000000000000, 0x3ff0000000000000, 0x401c000000000000}},
		{3, {1000000000.1, 1000000000.2, 1000000000.3}, {0x41e65a0bc0133334, 0x3f7b4e7a06d438e3, 0x41cdcd65000ccccd, 0x41cdcd6500266666}},
		{2, {5e-324, 5e-324}, {2, 0, 1, 1}},
	};
	RaWindowSpec spec = one_measure(RA_MEASURE_FLOAT);

	(void) state;
	for (size_t i = 0; i < LENGTH(vectors); i++)
	{
		RaWindow   *w = new_window(&spec, 10, 0);
		int			n = vectors[i].n;

		for (int k = 0; k < n; k++)
			add_float(w, &spec, k, vectors[i].values[k]);

		/* all in the window, and the last one as self */
		for (int held = n - 1; held <= n; held++)
		{
			RaValue		self = {.state = RA_VALUE_FINITE,.v.f = vectors[i].values[n - 1]};
			RaAggregate result;
			double		expected[4];

			ra_window_aggregate(w, &spec, 0, 0, (uint32_t) held, held < n ? &self : NULL,
								RA_WANT_SUM | RA_WANT_SUMSQ | RA_WANT_MIN | RA_WANT_MAX, &result);
			memcpy(expected, vectors[i].bits, sizeof(expected));
			assert_true(same_double(result.fsum, expected[0]));
			assert_true(same_double(result.fsxx / n, expected[1]));
			assert_true(same_double(result.fmin, expected[2]));
			assert_true(same_double(result.fmax, expected[3]));
		}
		free(w);
	}
}

/* PostgreSQL fails where finite doubles overflow: callers must be able to tell */
static void
overflow_of_doubles_is_told_from_infinity(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_FLOAT);
	RaWindow   *w = new_window(&spec, 10, 0);
	RaAggregate result;

	(void) state;
	add_float(w, &spec, 1, 1e308);
	add_float(w, &spec, 2, 1e308);
	ra_window_aggregate(w, &spec, 0, 0, 2, NULL, RA_WANT_SUM, &result);
	assert_true(isinf(result.fsum) && result.nan + result.pinf + result.ninf == 0);
	add_float(w, &spec, 3, (double) INFINITY);
	ra_window_aggregate(w, &spec, 0, 0, 3, NULL, RA_WANT_SUM, &result);
	assert_true(isinf(result.fsum) && result.pinf == 1);
	free(w);
}

static void
special_values_leave_the_window_again(void **state)
{
	RaWindowSpec spec = one_measure(RA_MEASURE_INT);
	RaWindow   *w;
	RaValue		nan = {.state = RA_VALUE_NAN};
	RaEvent		event = {1, 1, &nan};
	RaAggregate result;

	(void) state;
	spec.measures[0].special = true;
	w = new_window(&spec, 8, 0);
	ra_window_add(w, &spec, &event);
	add_int(w, &spec, 2, 2, 42);
	ra_window_aggregate(w, &spec, 0, 0, 2, NULL, RA_WANT_SUM, &result);
	assert_true(result.n == 2 && result.nan == 1 && result.sum == 42);
	ra_window_trim(w, &spec, 1);
	ra_window_aggregate(w, &spec, 0, 0, 1, &nan, RA_WANT_SUM, &result);
	assert_true(result.n == 2 && result.nan == 1 && result.sum == 42);
	ra_window_aggregate(w, &spec, 0, 0, 1, NULL, RA_WANT_SUM, &result);
	assert_true(result.n == 1 && result.nan == 0 && result.sum == 42);
	free(w);
}

static void
random_operations_agree_with_the_model(void **state)
{
	(void) state;
	for (uint64_t seed = 1; seed <= 400; seed++)
	{
		Source		source = {NULL, 0, seed};
		RaWindowSpec spec;
		Model		model;

		draw_spec(&source, &spec);
		model_init(&model, &spec, draw_below(&source, 20), draw_below(&source, 50));
		model.max_count = seed % 4 ? 40 : 300;
		model.nvalues = 1 + (int) draw_below(&source, 300);
		model.huge = seed % 3 == 0;
		model.edge = seed % 5 < 2;
		for (int step = 0; step < (seed % 4 ? 400 : 900); step++)
		{
			model_step(&model, &source);
			if (step % 7 == 0)
				model_check(&model, &source);
		}
		model_free(&model);
	}
}

/* Beyond 65535 events distances take 32 bits: across the change and back */
static void
large_windows_agree_with_the_model(void **state)
{
	RaWindowSpec spec;
	Source		source = {NULL, 0, 7};
	Model		model;

	(void) state;
	memset(&spec, 0, sizeof(spec));
	spec.nmeasures = 2;
	spec.measures[0].kind = RA_MEASURE_HASH;
	spec.measures[1] = one_measure(RA_MEASURE_INT).measures[0];
	model_init(&model, &spec, 65535, 0);
	model.max_count = 100000;

	/* a few hundred values, and one that comes at both ends */
	for (int64_t i = 0; i < 66000; i++)
	{
		bool		rare = i == 0 || i == 65530 || i == 65990;
		RaValue		values[2] = {{.state = RA_VALUE_FINITE,.v.h = rare ? 99999 : (uint64_t) (i * i % 2003)},
		{.state = RA_VALUE_FINITE,.v.i = (i * 7919) % 10007}};
		RaEvent		event = {i, 0, values};

		if (ra_window_add(model.window, &spec, &event) == RA_WINDOW_FULL)
		{
			model_copy(&model, 66100, 0, 0);
			assert_int_equal(ra_window_add(model.window, &spec, &event), RA_WINDOW_OK);
		}
		if (model.count == model.room)
		{
			model.room = model.room * 2 + 16;
			model.events = realloc(model.events, model.room * sizeof(ModelEvent));
		}
		memset(&model.events[model.count], 0, sizeof(ModelEvent));
		model.events[model.count].time = i;
		memcpy(model.events[model.count].values, values, sizeof(values));
		model.count++;
	}
	model.now = 66000;
	for (int round = 0; round < 4; round++)
	{
		for (uint32_t lo = 0; lo < model.count; lo += 13001)
			for (int m = 0; m < 2; m++)
			{
				check_range(&model, m, lo, model.count, NULL);
				check_range(&model, m, lo, lo + (model.count - lo) / 2, NULL);
			}
		for (int step = 0; step < 30; step++)
			model_step(&model, &source);
		if (round == 1)
		{
			model_trim(&model, 3000);
			model_copy(&model, 65535, 0, 0);
		}
	}
	model_free(&model);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(later_arrival_stands_behind_among_equal_times),
		cmocka_unit_test(a_key_seen_again_is_replaced_and_moves_last),
		cmocka_unit_test(keys_that_differ_in_any_bit_are_told_apart),
		cmocka_unit_test(sums_cannot_overflow_and_shrink_again),
		cmocka_unit_test(self_may_take_a_sum_beyond_64_bits),
		cmocka_unit_test(without_sums_any_integer_fits),
		cmocka_unit_test(a_large_value_makes_sums_long_and_going_short_again),
		cmocka_unit_test(only_values_that_count_make_sums_long),
		cmocka_unit_test(short_sums_hold_their_largest_values_everywhere),
		cmocka_unit_test(events_before_the_window_are_refused),
		cmocka_unit_test(a_full_window_grows_by_copying),
		cmocka_unit_test(a_sliding_window_needs_little_room),
		cmocka_unit_test(noted_extrema_follow_their_ranges),
		cmocka_unit_test(noted_distinct_values_follow_their_ranges),
		cmocka_unit_test(a_span_bounds_how_far_values_are_looked_for),
		cmocka_unit_test(special_values_come_and_go),
		cmocka_unit_test(windows_are_compact),
		cmocka_unit_test(doubles_are_aggregated_as_postgresql_does),
		cmocka_unit_test(overflow_of_doubles_is_told_from_infinity),
		cmocka_unit_test(special_values_leave_the_window_again),
		cmocka_unit_test(random_operations_agree_with_the_model),
		cmocka_unit_test(large_windows_agree_with_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
