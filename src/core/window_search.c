/*
 * window_search.c
 *	  Where in a window things are, and the hints that say where they were.
 *
 * Times are searched from a guess outwards: what is looked for is mostly near,
 * and each cache line not touched counts, see window_columns.h.
 */
#include <string.h>

#include "window.h"
#include "window_columns.h"

#define CACHE_LINE 64

/* Windows up to this size (bytes) are fetched whole */
#define FETCH_WHOLE 1536

/* So many cache lines of a column are fetched where it will be scanned: the processor goes on by itself */
#define NLINES 4

/* What is fetched for a value lies among so many of the latest events, if it does */
#define FETCH_BACK 1024

/* Sixteen bytes of a column */
typedef uint16_t Lanes16 __attribute__((vector_size(16)));

static uint32_t hashes_find_last(Hashes hashes, uint32_t p, uint32_t q, uint64_t hash);
static bool extremum_holds(const Extremum *known, bool max, uint32_t p, uint32_t q);
static void extremum_extend(Extremum *known, Sums sums, const States *states,
							uint32_t p, uint32_t q);
static void extremum_find(Extremum *known, const Window *w, const RaWindowSpec *spec, int m,
						  bool max, uint32_t p, uint32_t q);

/*
 * Times
 */

/* Index of the first event later than time, which is likely near index guess */
uint32_t
ra_window_bound_from(const Window *w, uint32_t guess, int64_t time)
{
	const int64_t *times = window_times(w) + w->start;
	uint32_t	lo = 0;
	uint32_t	hi = w->head.count;

	if (guess > hi)
		guess = hi;
	if (guess > 0 && times[guess - 1] > time)
	{
		hi = guess - 1;
		for (uint32_t step = 1; step <= hi; step *= 2)
		{
			if (times[hi - step] <= time)
			{
				lo = hi - step + 1;
				break;
			}
			hi -= step;
		}
	}
	else
	{
		lo = guess;
		for (uint32_t step = 1; step <= hi - lo; step *= 2)
		{
			if (times[lo + step - 1] > time)
			{
				hi = lo + step - 1;
				break;
			}
			lo += step;
		}
	}
	while (lo < hi)
	{
		uint32_t	middle = lo + (hi - lo) / 2;
		bool		behind = times[middle] <= time;

		lo = behind ? middle + 1 : lo;
		hi = behind ? hi : middle;
	}
	return lo;
}

uint32_t
ra_window_bound(const RaWindow *window, int64_t time)
{
	/* mostly asked for the time of one of the latest events */
	return ra_window_bound_from((const Window *) window, window->count, time);
}

uint32_t
ra_window_begin(const RaWindow *window, const RaWindowSpec *spec, int nth, int64_t time)
{
	const Window *w = (const Window *) window;
	uint32_t	edge;

	if (!hinted(window->capacity))
		return ra_window_bound(window, time);
	edge = window_edges(w, spec)[edge_number(nth)];
	return ra_window_bound_from(w, edge > w->start ? edge - w->start : 0, time);
}

void
ra_window_note_begin(RaWindow *window, const RaWindowSpec *spec, int nth, uint32_t lo)
{
	Window	   *w = (Window *) window;

	if (hinted(window->capacity))
		window_edges(w, spec)[edge_number(nth)] = w->start + lo;
}

int64_t
ra_window_find(const RaWindow *window, int64_t time, uint64_t key)
{
	return ra_window_find_before(window, ra_window_bound(window, time), time, key);
}

int64_t
ra_window_find_before(const RaWindow *window, uint32_t hi, int64_t time, uint64_t key)
{
	const Window *w = (const Window *) window;

	if (hi == 0 || window_times(w)[w->start + hi - 1] != time)
		return -1;
	return ra_window_find_key(w, hi, key);
}

/* Index of the event with that key and the time of event hi - 1, or -1 */
int64_t
ra_window_find_key(const Window *w, uint32_t hi, uint64_t key)
{
	int64_t		time = window_times(w)[w->start + hi - 1];
	uint32_t	lo = hi - 1;
	uint32_t	p;

	/* no event has the smallest time */
	if (lo > 0 && window_times(w)[w->start + lo - 1] == time)
		lo = ra_window_bound_from(w, lo, time - 1);
	p = hashes_find_last(window_keys(w), w->start + lo, w->start + hi, fold_key(key));
	return p == NOWHERE ? -1 : (int64_t) (p - w->start);
}

int64_t
ra_window_time(const RaWindow *window, uint32_t i)
{
	const Window *w = (const Window *) window;

	return window_times(w)[w->start + i];
}

/*
 * Hashes
 */

/* Is one of n values, 32 or 8 of them, the wanted one? */
static inline bool
lanes_hold(const uint16_t *low, uint32_t n, Lanes16 wanted)
{
	Lanes16		match;
	uint64_t	any[2];

	if (n == 32)
	{
		Lanes16		a[4];

		memcpy(a, low, sizeof(a));
		match = (Lanes16) (a[0] == wanted) | (Lanes16) (a[1] == wanted) |
			(Lanes16) (a[2] == wanted) | (Lanes16) (a[3] == wanted);
	}
	else
	{
		memcpy(&match, low, sizeof(match));
		match = (Lanes16) (match == wanted);
	}
	memcpy(any, &match, sizeof(any));
	return (any[0] | any[1]) != 0;
}

/* The last slot in [p, q) with that low part of a hash, or NOWHERE */
static inline uint32_t
lows_find_last(Hashes hashes, uint32_t p, uint32_t q, uint16_t low)
{
	Lanes16		wanted = (Lanes16) {0} + low;

	/* 32 at a time, then 8 */
	while (q - p >= 8)
	{
		uint32_t	n = q - p >= 32 ? 32 : 8;

		if (lanes_hold(hashes.low + q - n, n, wanted))
			break;
		q -= n;
	}
	while (q-- > p)
		if (hashes.low[q] == low)
			return q;
	return NOWHERE;
}

/* The last slot in [p, q) with that hash, or NOWHERE */
static uint32_t
hashes_find_last(Hashes hashes, uint32_t p, uint32_t q, uint64_t hash)
{
	/* what matches in 16 bits is nearly always it */
	while ((q = lows_find_last(hashes, p, q, (uint16_t) hash)) != NOWHERE)
		if (hashes_get(hashes, q) == hash)
			return q;
	return NOWHERE;
}

/* The last slot in [p, q) that counts and has that hash, or NOWHERE */
uint32_t
ra_window_find_hash(const Window *w, const RaWindowSpec *spec, int m, uint32_t p, uint32_t q,
					uint64_t hash)
{
	Hashes		hashes = hash_values(w, spec, m);
	Distances	distances = hash_distances(w, spec, m);

	/* what doesn't count stands there with hash 0 */
	while ((q = hashes_find_last(hashes, p, q, hash)) != NOWHERE)
		if (hash != 0 || distances_get(distances, q) != 0)
			return q;
	return NOWHERE;
}

/*
 * Extrema
 */

static bool
extremum_holds(const Extremum *known, bool max, uint32_t p, uint32_t q)
{
	return known->to > 0 && known->max == max &&
		known->from <= p && p <= known->at && known->at < known->to && known->at < q;
}

/* The remembered extremum that is one of [p, min(to, q)) as well, or NULL */
const Extremum *
ra_window_extremum(const Window *w, const RaWindowSpec *spec, int m, bool max, uint32_t p,
				   uint32_t q)
{
	if (hinted(w->head.capacity))
		for (int k = 0; k < NEXTREMA; k++)
			if (extremum_holds(int_extrema(w, spec, m) + k, max, p, q))
				return int_extrema(w, spec, m) + k;
	return NULL;
}

void
ra_window_note_extremum(RaWindow *window, const RaWindowSpec *spec, int m, int nth, uint32_t lo,
						uint32_t hi, bool max)
{
	const Window *w = (const Window *) window;
	uint32_t	p = w->start + lo;
	uint32_t	q = w->start + hi;
	Extremum   *known;

	/* to look at few values costs no more than to look it up */
	if (!hinted(window->capacity) || hi - lo < HINTED / 2)
		return;
	known = int_extrema(w, spec, m) + nth % NEXTREMA;
	if (!extremum_holds(known, max, p, q))
		extremum_find(known, w, spec, m, max, p, q);
	else if (q > known->to)
	{
		States		states = group_states(w, spec, m);

		extremum_extend(known, int_sums(w, spec, m), &states, known->to, q);
		known->to = q;
	}
}

/* Take the slots [p, q), behind what is known, into account */
static void
extremum_extend(Extremum *known, Sums sums, const States *states, uint32_t p, uint32_t q)
{
	for (uint32_t k = p / BLOCK; k * BLOCK < q && p < q; k++)
	{
		uint64_t	members = word_range(k, p, q) & states_finite(states, k);

		for (; members; members &= members - 1)
		{
			uint32_t	r = k * BLOCK + (uint32_t) __builtin_ctzll(members);
			int64_t		i = int_value(sums, r);

			if (known->max ? i >= known->value : i <= known->value)
			{
				known->value = i;
				known->at = r;
			}
		}
	}
}

/* Find the extremum of [p, q); none if there is no finite value */
static void
extremum_find(Extremum *known, const Window *w, const RaWindowSpec *spec, int m, bool max,
			  uint32_t p, uint32_t q)
{
	Sums		sums = int_sums(w, spec, m);
	const IntBlock *blocks = int_blocks(w, spec, m);
	States		states = group_states(w, spec, m);
	uint32_t	in_block = NOWHERE;

	known->from = p;
	known->to = q;
	known->at = NOWHERE;
	known->max = max;
	known->value = max ? INT64_MIN : INT64_MAX;
	for (uint32_t k = p / BLOCK; k * BLOCK < q && p < q; k++)
	{
		uint32_t	before = known->at;

		if (word_range(k, p, q) != ALL)
		{
			extremum_extend(known, sums, &states, k * BLOCK < p ? p : k * BLOCK,
							(k + 1) * BLOCK < q ? (k + 1) * BLOCK : q);
			if (known->at != before)
				in_block = NOWHERE;
		}
		else if (states_finite(&states, k) != 0 &&
				 (max ? blocks[k].max >= known->value : blocks[k].min <= known->value))
		{
			known->value = max ? blocks[k].max : blocks[k].min;
			in_block = k;
		}
	}
	if (in_block != NOWHERE)
		extremum_extend(known, sums, &states, in_block * BLOCK, (in_block + 1) * BLOCK);
	if (known->at == NOWHERE)
		known->to = 0;
}

/*
 * Hints
 */

/* Keep hints true while the events move from slot "start" of a window to slot 0 */
void
ra_window_shift_hints(Window *to, const Window *from, const RaWindowSpec *spec, uint32_t start)
{
	if (!hinted(to->head.capacity) || !hinted(from->head.capacity))
		return;
	for (int k = 0; k < NEDGES; k++)
	{
		uint32_t	edge = window_edges(from, spec)[k];

		window_edges(to, spec)[k] = edge > start ? edge - start : 0;
	}
	for (int m = 0; m < spec->nmeasures; m++)
	{
		if (spec->measures[m].kind != RA_MEASURE_INT || !spec->measures[m].minmax)
			continue;
		for (int k = 0; k < NEXTREMA; k++)
		{
			Extremum	known = int_extrema(from, spec, m)[k];

			if (known.to > 0 && known.at >= start)
			{
				known.from = known.from > start ? known.from - start : 0;
				known.at -= start;
				known.to -= start;
			}
			else
				known.to = 0;
			int_extrema(to, spec, m)[k] = known;
		}
	}
	for (int m = 0; m < spec->nmeasures; m++)
	{
		for (int k = 0; k < NDISTINCT && spec->measures[m].kind == RA_MEASURE_HASH; k++)
		{
			Distinct	known = hash_distinct(from, spec, m)[k];

			if (known.to > 0 && known.from >= start)
			{
				known.from -= start;
				known.to -= start;
			}
			else
				known.to = 0;
			hash_distinct(to, spec, m)[k] = known;
		}
	}
}

static inline void
fetch(const void *p)
{
	__builtin_prefetch(p);
}

/* n lines from p on, forwards (step 1) or backwards (-1) */
static inline void
fetch_lines(const void *p, int n, int step)
{
	for (int k = 0; k < n; k++)
		fetch((const char *) p + k * step * CACHE_LINE);
}

static inline void
fetch_sum(Sums sums, uint32_t p)
{
	if (sums.full)
		fetch(sums.full + p);
	else
	{
		const SumPart *part = sums.parts + p / PART;

		fetch(&part->more[p % PART]);
		if (((uintptr_t) &part->more[p % PART] ^ (uintptr_t) part) >= CACHE_LINE)
			fetch(part);
	}
}

void
ra_window_prefetch(const RaWindow *window, const RaWindowSpec *spec, bool ranges)
{
	const Window *w = (const Window *) window;
	uint32_t	here = window_end(w);
	Hashes		keys;
	uint32_t	edges[NEDGES];
	int			nedges = 0;

	if (window->size <= FETCH_WHOLE)
	{
		for (uint32_t offset = 0; offset < window->size; offset += CACHE_LINE)
			fetch(at(w, offset));
		return;
	}
	if (ranges && hinted(window->capacity))
	{
		const uint32_t *noted = window_edges(w, spec);

		if (noted[NEDGES - 1] > 0)
			here = noted[NEDGES - 1];
		for (int k = 0; k < NEDGES - 1; k++)
			if (noted[k] > 0)
				edges[nedges++] = noted[k];
	}
	fetch(window_times(w) + w->start);
	fetch(window_times(w) + here);
	for (int k = 0; k < nedges; k++)
		fetch(window_times(w) + edges[k]);
	keys = window_keys(w);
	fetch(keys.low + here);
	fetch(keys.middle + here);
	for (int m = 0; m < spec->nmeasures; m++)
	{
		const RaMeasureSpec *measure = &spec->measures[m];
		Sums		sums;

		if (!measure->always)
		{
			Bits		counts = group_bits(w, m, 0);

			fetch(counts.words + here / BLOCK);
			fetch(counts.ranks + here / BLOCK);
			for (int k = 0; k < nedges; k++)
			{
				fetch(counts.words + edges[k] / BLOCK);
				fetch(counts.ranks + edges[k] / BLOCK);
			}
		}
		switch ((RaMeasureKind) measure->kind)
		{
			case RA_MEASURE_COUNT:
				break;
			case RA_MEASURE_INT:
				fetch(int_head(w, spec, m));
				if (measure->minmax)
				{
					fetch((char *) int_head(w, spec, m) + CACHE_LINE);
					fetch(int_blocks(w, spec, m) + here / BLOCK);
				}
				sums = int_sums(w, spec, m);
				fetch_sum(sums, here);
				for (int k = 0; k < nedges; k++)
					fetch_sum(sums, edges[k]);
				break;
			case RA_MEASURE_HASH:
				{
					Hashes		hashes = hash_values(w, spec, m);
					Distances	distances = hash_distances(w, spec, m);

					/* where the look back for a value ends, and what leaves the range */
					if (measure->span > 0 && hinted(window->capacity))
					{
						uint32_t	begin = window_edges(w, spec)[edge_number(measure->begin)];

						fetch(hash_distinct(w, spec, m));
						fetch(window_times(w) + begin);
						if (ranges && distances.narrow)
							fetch_lines(distances.narrow + begin, NLINES, 1);
						else if (ranges)
							fetch_lines(distances.wide + begin, NLINES, 1);
						else
							fetch_lines(hashes.low + here, NLINES, -1);
					}
					fetch(hashes.low + here);
					fetch(hashes.middle + here);
					fetch(hashes.high + here);
					if (distances.narrow)
						fetch(distances.narrow + here);
					else
						fetch(distances.wide + here);
				}
				break;
			case RA_MEASURE_FLOAT:
			case RA_MEASURE_WORD:
				fetch((uint64_t *) group_columns(w, spec, m) + here);
				break;
			case RA_MEASURE_BYTES:
				fetch((uint32_t *) group_columns(w, spec, m) + here);
				break;
		}
	}
}

void
ra_window_prefetch_values(const RaWindow *window, const RaWindowSpec *spec, const RaValue *values)
{
	const Window *w = (const Window *) window;
	uint32_t	end = window_end(w);
	uint32_t	n = window->count < FETCH_BACK ? window->count : FETCH_BACK;

	if (window->size <= FETCH_WHOLE)
		return;
	for (int m = 0; m < spec->nmeasures; m++)
	{
		Hashes		hashes;
		uint32_t	r;

		if (spec->measures[m].kind != RA_MEASURE_HASH || values[m].state == RA_VALUE_NONE)
			continue;
		hashes = hash_values(w, spec, m);
		r = lows_find_last(hashes, end - n, end, (uint16_t) values[m].v.h);
		if (r != NOWHERE)
		{
			fetch(hashes.middle + r);
			fetch(hashes.high + r);
		}
	}
}
