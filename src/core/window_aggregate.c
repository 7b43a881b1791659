/*
 * window_aggregate.c
 *	  What features read from a window: aggregates, distinct values, the first
 *	  and the last value.
 *
 * Nothing here changes a window.  Ranges arrive as indexes [lo, hi) and are
 * turned into slots [p, q) at once; see window_columns.h.
 */
#include <math.h>
#include <string.h>

#include "window.h"
#include "window_columns.h"

/* To count anew is cheaper than to find out whether so many events come again */
#define DISTINCT_GONE 3

/* Sixteen bytes of a column */
typedef uint16_t Lanes16 __attribute__((vector_size(16)));
typedef uint32_t Lanes32 __attribute__((vector_size(16)));

/* The same where it stands; gcc copies what memcpy() brings once more */
typedef Lanes16 Lanes16Unaligned __attribute__((aligned(2), may_alias));
typedef Lanes32 Lanes32Unaligned __attribute__((aligned(4), may_alias));

/* A running aggregate of doubles */
typedef struct FloatState
{
	double		n;				/* a double for speed, exact nevertheless */
	double		sum;
	double		deviations;		/* sum of their squares */
} FloatState;

static void aggregate_int(const Window *w, const RaWindowSpec *spec, int m, uint32_t p,
						  uint32_t q, const RaValue *self, int want, RaAggregate *result);
static void extremum_int(const Window *w, const RaWindowSpec *spec, int m, uint32_t p,
						 uint32_t q, bool max, IntBlock *all);
static void aggregate_float(const Window *w, const RaWindowSpec *spec, int m, uint32_t p,
							uint32_t q, const RaValue *self, int want, RaAggregate *result);
static uint32_t count_distinct(const Window *w, const RaWindowSpec *spec, int m, uint32_t p,
							   uint32_t q);
static uint32_t count_reaching(Distances distances, uint32_t p, uint32_t q);
static bool comes_again(Distances distances, uint32_t p, uint32_t q);

/* member by member, since gcc clears a struct of this size with "rep stos" */
static inline void
aggregate_clear(RaAggregate *result)
{
	result->nan = result->pinf = result->ninf = 0;
	result->sum = 0;
	result->sumsq = 0;
	result->min = result->max = 0;
	result->fsum = result->fsxx = result->fmin = result->fmax = 0.0;
}

void
ra_window_aggregate(const RaWindow *window, const RaWindowSpec *spec, int m, uint32_t lo,
					uint32_t hi, const RaValue *self, int want, RaAggregate *result)
{
	const Window *w = (const Window *) window;
	uint32_t	p = w->start + lo;
	uint32_t	q = w->start + hi;

	aggregate_clear(result);
	result->n = spec->measures[m].always ? q - p : bits_count(group_bits(w, m, 0), p, q);
	if (self && self->state != RA_VALUE_NONE)
		result->n++;
	else
		self = NULL;

	if (spec->measures[m].kind == RA_MEASURE_INT)
		aggregate_int(w, spec, m, p, q, self, want, result);
	else if (spec->measures[m].kind == RA_MEASURE_FLOAT && result->n > 0)
		aggregate_float(w, spec, m, p, q, self, want, result);
}

static void
aggregate_int(const Window *w, const RaWindowSpec *spec, int m, uint32_t p, uint32_t q,
			  const RaValue *self, int want, RaAggregate *result)
{
	Sums		sums = int_sums(w, spec, m);

	if (int_head(w, spec, m)->nspecial > 0)
	{
		States		states = group_states(w, spec, m);

		result->nan = bits_count(states.special[0], p, q);
		result->pinf = bits_count(states.special[1], p, q);
		result->ninf = bits_count(states.special[2], p, q);
	}
	if (self && self->state != RA_VALUE_FINITE)
	{
		result->nan += self->state == RA_VALUE_NAN;
		result->pinf += self->state == RA_VALUE_PINF;
		result->ninf += self->state == RA_VALUE_NINF;
		self = NULL;
	}

	if (want & RA_WANT_SUM)
	{
		result->sum = (int64_t) (sums_get(sums, q) - sums_get(sums, p));
		if (self)
			result->sum += self->v.i;
	}
	if (want & RA_WANT_SUMSQ)
	{
		const uint64_t *squares = int_squares(w, spec, m);

		result->sumsq = load128(squares + 2 * (size_t) q) - load128(squares + 2 * (size_t) p);
		if (self)
			result->sumsq += square(self->v.i);
	}
	if (want & (RA_WANT_MIN | RA_WANT_MAX))
	{
		IntBlock	min;
		IntBlock	max;

		int_block_clear(&min);
		int_block_clear(&max);
		if (want & RA_WANT_MIN)
			extremum_int(w, spec, m, p, q, false, &min);
		if (want & RA_WANT_MAX)
			extremum_int(w, spec, m, p, q, true, &max);
		if (self)
		{
			int_block_add(&min, self->v.i);
			int_block_add(&max, self->v.i);
		}
		result->min = min.min;
		result->max = max.max;
	}
}

/* Add the smallest or largest value of [p, q), and perhaps others of them */
static void
extremum_int(const Window *w, const RaWindowSpec *spec, int m, uint32_t p, uint32_t q, bool max,
			 IntBlock *all)
{
	Sums		sums = int_sums(w, spec, m);
	const IntBlock *blocks = int_blocks(w, spec, m);
	const Extremum *known = ra_window_extremum(w, spec, m, max, p, q);
	States		states;

	if (known)
	{
		int_block_add(all, known->value);
		p = known->to;
		if (p >= q)
			return;
	}
	states = group_states(w, spec, m);
	for (uint32_t k = p / BLOCK; k * BLOCK < q && p < q; k++)
	{
		uint64_t	members = word_range(k, p, q);

		if (members == ALL)
		{
			int_block_add(all, blocks[k].min);
			int_block_add(all, blocks[k].max);
		}
		else
			int_block_add_slots(all, sums, k, members & states_finite(&states, k));
	}
}

/*
 * Add one value as float8's own aggregates do, except that their tests for
 * infinity are left to the end: what isn't finite stays so.
 */
static inline void
float_add(FloatState *state, double f, bool deviations)
{
	state->n += 1.0;
	state->sum += f;
	if (deviations && state->n > 1.0)
	{
		double		distance = f * state->n - state->sum;

		state->deviations += distance * distance / (state->n * (state->n - 1.0));
	}
}

static inline void
float_count_special(RaAggregate *result, double f)
{
	if (isnan(f))
		result->nan++;
	else if (isinf(f) && f > 0)
		result->pinf++;
	else if (isinf(f))
		result->ninf++;
}

static void
aggregate_float(const Window *w, const RaWindowSpec *spec, int m, uint32_t p, uint32_t q,
				const RaValue *self, int want, RaAggregate *result)
{
	const double *values = float_values(w, spec, m);
	States		states = group_states(w, spec, m);

	if (want & (RA_WANT_MIN | RA_WANT_MAX))
	{
		const FloatBlock *blocks = float_blocks(w, spec, m);
		FloatBlock	all;

		float_block_clear(&all);
		for (uint32_t k = p / BLOCK; k * BLOCK < q && p < q; k++)
		{
			uint64_t	members = word_range(k, p, q);

			if (members == ALL)
			{
				all.min = float_smaller(all.min, blocks[k].min);
				all.max = float_larger(all.max, blocks[k].max);
			}
			else
				float_block_add_slots(&all, values, k, members & states_finite(&states, k));
		}
		if (self)
			float_block_add(&all, self->v.f);
		result->fmin = all.min;
		result->fmax = all.max;
	}

	if (want & (RA_WANT_SUM | RA_WANT_SUMSQ))
	{
		bool		deviations = (want & RA_WANT_SUMSQ) != 0;
		FloatState	state = {0.0, -0.0, 0.0};	/* -0 + x is x even if that is -0 */

		for (uint32_t k = p / BLOCK; k * BLOCK < q && p < q; k++)
		{
			uint64_t	members = word_range(k, p, q) & states_finite(&states, k);

			if (deviations)
				for (; members; members &= members - 1)
					float_add(&state, values[k * BLOCK + (uint32_t) __builtin_ctzll(members)], true);
			else
				for (; members; members &= members - 1)
					float_add(&state, values[k * BLOCK + (uint32_t) __builtin_ctzll(members)], false);
		}
		if (self)
			float_add(&state, self->v.f, deviations);

		/*
		 * float8's aggregates fail where finite values overflow.  Callers can
		 * tell because no special value is counted then.
		 */
		if (!isfinite(state.sum) || !isfinite(state.deviations))
		{
			state.deviations = (double) NAN;
			for (uint32_t r = p; r < q; r++)
				if (states_get(&states, r) != RA_VALUE_NONE)
					float_count_special(result, values[r]);
			if (self)
				float_count_special(result, self->v.f);
		}
		result->fsum = state.sum;
		result->fsxx = deviations ? state.deviations : 0.0;
	}
}

uint64_t
ra_window_distinct(const RaWindow *window, const RaWindowSpec *spec, int m, uint32_t lo,
				   uint32_t hi, const RaValue *self, bool self_next)
{
	const Window *w = (const Window *) window;
	Distances	distances = hash_distances(w, spec, m);
	uint32_t	p = w->start + lo;
	uint32_t	q = w->start + hi;
	uint64_t	n = count_distinct(w, spec, m, p, q);

	if (!self || self->state == RA_VALUE_NONE)
		return n;
	/* an event that is held knows where the one before it is */
	if (self_next && q < window_end(w) && distances_get(distances, q) != 0 &&
		hashes_get(hash_values(w, spec, m), q) == self->v.h)
		return n + (distances_get(distances, q) > q - p);
	return n + (ra_window_find_hash(w, spec, m, p, q, self->v.h) == NOWHERE);
}

void
ra_window_note_distinct(RaWindow *window, const RaWindowSpec *spec, int m, int nth, uint32_t lo,
						uint32_t hi)
{
	const Window *w = (const Window *) window;
	Distinct   *known;

	if (!hinted(window->capacity) || hi - lo < HINTED)
		return;
	known = hash_distinct(w, spec, m) + nth % NDISTINCT;
	known->n = count_distinct(w, spec, m, w->start + lo, w->start + hi);
	known->from = w->start + lo;
	known->to = w->start + hi;
}

/* Distinct values in [p, q) */
static uint32_t
count_distinct(const Window *w, const RaWindowSpec *spec, int m, uint32_t p, uint32_t q)
{
	Distances	distances = hash_distances(w, spec, m);

	if (hinted(w->head.capacity) && q - p >= HINTED)
	{
		for (int k = 0; k < NDISTINCT; k++)
		{
			Distinct	known = hash_distinct(w, spec, m)[k];

			if (known.to == 0 || known.from > p || p - known.from > DISTINCT_GONE ||
				known.to < p || known.to > q || q - known.to > HINTED)
				continue;
			/* without what has left in front, if it doesn't come again */
			for (; known.from < p; known.from++)
				if (distances_get(distances, known.from) != 0 &&
					!comes_again(distances, known.from, known.to))
					known.n--;
			/* and with what has come behind, if it wasn't there */
			for (; known.to < q; known.to++)
				known.n += distances_get(distances, known.to) > known.to - p;
			return known.n;
		}
	}
	return count_reaching(distances, p, q);
}

/* How many distances in [p, q) lead before p */
static uint32_t
count_reaching(Distances distances, uint32_t p, uint32_t q)
{
	uint32_t	n = q - p;
	uint32_t	i = 0;
	uint32_t	within = 0;		/* those that don't */

	if (distances.narrow)
	{
		const uint16_t *column = distances.narrow + p;
		Lanes16		index = {0, 1, 2, 3, 4, 5, 6, 7};
		Lanes16		sum = {0};

		/* n fits 16 bits, hence so does each lane's sum */
		for (; i + 16 <= n; i += 16, index += 16)
		{
			const Lanes16Unaligned *a = (const Lanes16Unaligned *) (column + i);

			sum -= (Lanes16) (a[0] <= index);
			sum -= (Lanes16) (a[1] <= index + 8);
		}
		for (int k = 0; k < 8; k++)
			within += sum[k];
		for (; i < n; i++)
			within += column[i] <= i;
	}
	else
	{
		const uint32_t *column = distances.wide + p;
		Lanes32		index = {0, 1, 2, 3};
		Lanes32		sum = {0};

		for (; i + 8 <= n; i += 8, index += 8)
		{
			const Lanes32Unaligned *a = (const Lanes32Unaligned *) (column + i);

			sum -= (Lanes32) (a[0] <= index);
			sum -= (Lanes32) (a[1] <= index + 4);
		}
		for (int k = 0; k < 4; k++)
			within += sum[k];
		for (; i < n; i++)
			within += column[i] <= i;
	}
	return n - within;
}

/*
 * Does the hash of slot p, which counts, come again before q?  Then its next one leads to p:
 * [p, q) is within the measure's span.  One column is read, and that from the front to where it is.
 */
static bool
comes_again(Distances distances, uint32_t p, uint32_t q)
{
	uint32_t	n = q - p;
	uint32_t	i = 1;

	if (distances.narrow)
	{
		const uint16_t *column = distances.narrow + p;
		Lanes16		index = {1, 2, 3, 4, 5, 6, 7, 8};

		for (; i + 32 <= n; i += 32, index += 32)
		{
			const Lanes16Unaligned *a = (const Lanes16Unaligned *) (column + i);
			Lanes16		match = (Lanes16) (a[0] == index) | (Lanes16) (a[1] == index + 8) |
				(Lanes16) (a[2] == index + 16) | (Lanes16) (a[3] == index + 24);
			uint64_t	any[2];

			memcpy(any, &match, sizeof(any));
			if ((any[0] | any[1]) != 0)
				return true;
		}
		for (; i < n; i++)
			if (column[i] == i)
				return true;
	}
	else
	{
		const uint32_t *column = distances.wide + p;

		for (; i < n; i++)
			if (column[i] == i)
				return true;
	}
	return false;
}

bool
ra_window_last(const RaWindow *window, const RaWindowSpec *spec, int m, int which, uint32_t lo,
			   uint32_t hi, RaValue *value)
{
	const Window *w = (const Window *) window;
	uint32_t	p = w->start + lo;
	uint32_t	q = w->start + hi;
	States		states = group_states(w, spec, which);

	while (p < q)
	{
		uint32_t	k = (q - 1) / BLOCK;
		uint64_t	members = word_range(k, p, q);

		if (states.counts.words)
			members &= states.counts.words[k];
		if (members)
		{
			ra_window_fetch(w, spec, m, k * BLOCK + BLOCK - 1 - (uint32_t) __builtin_clzll(members), value);
			return value->state != RA_VALUE_NONE;
		}
		q = k * BLOCK;
	}
	return false;
}

bool
ra_window_first(const RaWindow *window, const RaWindowSpec *spec, int m, uint32_t lo, uint32_t hi,
				RaValue *value)
{
	const Window *w = (const Window *) window;
	uint32_t	p = w->start + lo;
	uint32_t	q = w->start + hi;
	States		states = group_states(w, spec, m);

	while (p < q)
	{
		uint32_t	k = p / BLOCK;
		uint64_t	members = word_range(k, p, q);

		if (states.counts.words)
			members &= states.counts.words[k];
		if (members)
		{
			ra_window_fetch(w, spec, m, k * BLOCK + (uint32_t) __builtin_ctzll(members), value);
			return true;
		}
		p = (k + 1) * BLOCK;
	}
	return false;
}

/* What slot p holds for a measure */
void
ra_window_fetch(const Window *w, const RaWindowSpec *spec, int m, uint32_t p, RaValue *value)
{
	States		states = group_states(w, spec, m);
	void	   *columns = group_columns(w, spec, m);

	memset(value, 0, sizeof(RaValue));
	value->state = states_get(&states, p);
	if (value->state == RA_VALUE_NONE)
		return;
	switch ((RaMeasureKind) spec->measures[m].kind)
	{
		case RA_MEASURE_COUNT:
			break;
		case RA_MEASURE_INT:
			value->v.i = int_value(int_sums(w, spec, m), p);
			break;
		case RA_MEASURE_FLOAT:
			value->v.f = ((double *) columns)[p];
			break;
		case RA_MEASURE_HASH:
			value->v.h = hashes_get(hash_values(w, spec, m), p);
			break;
		case RA_MEASURE_WORD:
			value->v.h = ((uint64_t *) columns)[p];
			break;
		case RA_MEASURE_BYTES:
			{
				const uint8_t *bytes = byte_area(w) + ((uint32_t *) columns)[p];

				value->len = read_length(&bytes);
				value->v.p = bytes;
			}
			break;
	}
}
