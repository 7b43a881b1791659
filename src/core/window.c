/*
 * window.c
 *	  One entity's events in time order, and exact aggregates over any part
 *	  of them.
 *
 * See window.h for what a window is, window_columns.h for what its memory
 * looks like.
 *
 * Room.  Trimming merely advances the first slot; once the last slot is taken,
 * all columns are moved to slot 0 to win the room back.  To move n events for
 * the sake of a few slots would make every append O(n), so a window that has
 * less than a sixteenth to win reports FULL instead: ra_window_copy() to a
 * larger one compacts as well.  So does one whose sums would have to be long.
 *
 * Order.  An event is added in this order: find its place, and the event it
 * replaces; check everything that can refuse it; only then change the window.
 */
#include <math.h>
#include <string.h>

#include "window.h"
#include "window_columns.h"

static void window_restart(Window *w, const RaWindowSpec *spec);
static void forget_hints(Window *w, const RaWindowSpec *spec, uint32_t p);
static void window_move(Window *to, const Window *from, const RaWindowSpec *spec);
static RaWindowResult window_sums_fit(const Window *w, const RaWindowSpec *spec,
									  const RaEvent *event, int64_t replaced);
static bool window_holds(const Window *w, const RaWindowSpec *spec, uint32_t p,
						 const RaEvent *event);
static void window_insert(Window *w, const RaWindowSpec *spec, uint32_t p, const RaEvent *event);
static void window_delete(Window *w, const RaWindowSpec *spec, uint32_t p);
static void special_insert(Window *w, const RaWindowSpec *spec, int m, int nth, uint32_t p,
						   uint8_t state);
static void int_insert(Window *w, const RaWindowSpec *spec, int m, uint32_t p,
					   const RaValue *value);
static void int_delete(Window *w, const RaWindowSpec *spec, int m, uint32_t p);
static void hash_insert(Window *w, const RaWindowSpec *spec, int m, uint32_t p,
						const RaValue *value);
static void hash_delete(Window *w, const RaWindowSpec *spec, int m, uint32_t p);
static void window_forget(Window *w, const RaWindowSpec *spec, uint32_t n, uint32_t p);
static uint32_t bytes_append(Window *w, const void *data, uint32_t len);
static void blocks_insert(Window *w, const RaWindowSpec *spec, int m, uint32_t p,
						  const RaValue *value);
static void blocks_rebuild(Window *w, const RaWindowSpec *spec, int m, uint32_t p);
static void bits_insert(Bits bits, uint32_t p, uint32_t end, bool bit);
static void bits_delete(Bits bits, uint32_t p, uint32_t end);
static void bits_move(Bits to, Bits from, uint32_t start, uint32_t end);
static uint64_t window_layout(const RaWindowSpec *spec, uint64_t long_sums, uint32_t capacity,
							  uint64_t bytes_capacity, Window *w);
static uint64_t group_size(const RaMeasureSpec *measure, bool long_sums, uint64_t capacity);

size_t
ra_window_size(const RaWindowSpec *spec, uint64_t long_sums, uint32_t capacity,
			   uint64_t bytes_capacity)
{
	uint64_t	size = window_layout(spec, long_sums, capacity, bytes_capacity, NULL);

	return size <= RA_WINDOW_MAX_SIZE ? (size_t) size : 0;
}

RaWindow *
ra_window_init(void *mem, const RaWindowSpec *spec, uint64_t long_sums, uint32_t capacity,
			   uint32_t bytes_capacity, int64_t complete_from)
{
	Window	   *w = mem;

	memset(w, 0, sizeof(Window));
	w->head.size = (uint32_t) window_layout(spec, long_sums, capacity, bytes_capacity, w);
	w->head.capacity = capacity;
	w->head.bytes_capacity = bytes_capacity;
	w->head.complete_from = complete_from;
	if (hinted(capacity))
		memset(window_edges(w, spec), 0, NEDGES * sizeof(uint32_t));
	window_restart(w, spec);
	return &w->head;
}

void
ra_window_copy(RaWindow *dst, const RaWindow *src, const RaWindowSpec *spec)
{
	Window	   *to = (Window *) dst;
	const Window *from = (const Window *) src;

	to->head.complete_from = from->head.complete_from;
	if (from->head.count == 0)
		return;
	to->head.count = from->head.count;
	window_move(to, from, spec);
}

uint64_t
ra_window_long_sums(const RaWindow *window, const RaWindowSpec *spec, const RaEvent *event)
{
	const Window *w = (const Window *) window;
	uint64_t	long_sums = 0;

	for (int m = 0; m < spec->nmeasures; m++)
	{
		bool		needed;

		if (spec->measures[m].kind != RA_MEASURE_INT)
			continue;
		needed = event->values[m].state == RA_VALUE_FINITE && !is_short(event->values[m].v.i);
		/* what was too large may have gone */
		for (uint32_t p = w->start; group_long_sums(w, m) && !needed && p < window_end(w); p++)
			needed = !is_short(int_value(int_sums(w, spec, m), p));
		long_sums |= (uint64_t) needed << m;
	}
	return long_sums;
}

/* Bytes of a measure's group */
static uint64_t
group_size(const RaMeasureSpec *measure, bool long_sums, uint64_t capacity)
{
	uint64_t	nblocks = measure->minmax ? capacity / BLOCK : 0;
	uint64_t	size = group_nbits(measure) * bits_size((uint32_t) capacity);

	switch ((RaMeasureKind) measure->kind)
	{
		case RA_MEASURE_COUNT:
			break;
		case RA_MEASURE_INT:
			size += sizeof(IntHead) + sums_size(capacity + 1, long_sums) + nblocks * sizeof(IntBlock);
			if (measure->minmax && hinted((uint32_t) capacity))
				size += NEXTREMA * sizeof(Extremum);
			if (measure->sumsq)
				size += 16 * (capacity + 1);
			break;
		case RA_MEASURE_FLOAT:
			size += 8 * capacity + nblocks * sizeof(FloatBlock);
			break;
		case RA_MEASURE_HASH:
			size += (8 + (distances_narrow((uint32_t) capacity) ? 2 : 4)) * capacity;
			if (hinted((uint32_t) capacity))
				size += NDISTINCT * sizeof(Distinct);
			break;
		case RA_MEASURE_WORD:
			size += 8 * capacity;
			break;
		case RA_MEASURE_BYTES:
			size += 4 * capacity;
			break;
	}
	return align8(size);
}

/* Size of a window; and if w is not NULL, note there where its columns are */
static uint64_t
window_layout(const RaWindowSpec *spec, uint64_t long_sums, uint32_t capacity,
			  uint64_t bytes_capacity, Window *w)
{
	uint64_t	size = offsetof(Window, groups) + spec->nmeasures * sizeof(uint32_t);

	if (hinted(capacity))
		size += NEDGES * sizeof(uint32_t);
	size = align8(size);
	if (w)
		w->times = (uint32_t) size;
	size += (uint64_t) capacity * sizeof(int64_t);
	if (w)
		w->keys = (uint32_t) size;
	size = align8(size + (uint64_t) capacity * (sizeof(uint32_t) + sizeof(uint16_t)));
	for (int m = 0; m < spec->nmeasures; m++)
	{
		bool		is_long = (long_sums >> m) & 1;

		if (w)
			w->groups[m] = (uint32_t) size | (is_long ? LONG_SUMS : 0);
		size += group_size(&spec->measures[m], is_long, capacity);
	}
	return size + align8(bytes_capacity);
}

/*
 * Changing windows
 */

RaWindowResult
ra_window_add(RaWindow *window, const RaWindowSpec *spec, const RaEvent *event)
{
	Window	   *w = (Window *) window;
	uint32_t	i;
	int64_t		replaced = -1;
	RaWindowResult result;

	if (event->time <= window->complete_from)
		return RA_WINDOW_OLD;

	i = ra_window_bound(window, event->time);
	if (i > 0 && window_times(w)[w->start + i - 1] == event->time)
		replaced = ra_window_find_key(w, i, event->key);

	result = window_sums_fit(w, spec, event, replaced);
	if (result != RA_WINDOW_OK)
		return result;

	if (replaced >= 0)
	{
		/* The commonest replacement is the same event once more */
		if (replaced == i - 1 && window_holds(w, spec, w->start + i - 1, event))
			return RA_WINDOW_REPLACED;
	}
	else if (window_end(w) == window->capacity &&
			 (w->start == 0 || w->start < window->capacity / 16))
		return RA_WINDOW_FULL;
	if (ra_window_event_bytes(spec, event) > window->bytes_capacity - window->bytes_used)
		return RA_WINDOW_FULL;

	if (replaced >= 0)
	{
		window_delete(w, spec, w->start + (uint32_t) replaced);
		i--;
	}
	else if (window_end(w) == window->capacity)
		window_move(w, w, spec);
	window_insert(w, spec, w->start + i, event);
	return replaced >= 0 ? RA_WINDOW_REPLACED : RA_WINDOW_OK;
}

uint32_t
ra_window_event_bytes(const RaWindowSpec *spec, const RaEvent *event)
{
	uint64_t	bytes = 0;

	for (int m = 0; m < spec->nmeasures; m++)
		if (spec->measures[m].kind == RA_MEASURE_BYTES && event->values[m].state != RA_VALUE_NONE)
			bytes += (uint64_t) length_size(event->values[m].len) + event->values[m].len;
	return bytes < UINT32_MAX ? (uint32_t) bytes : UINT32_MAX;
}

bool
ra_window_remove(RaWindow *window, const RaWindowSpec *spec, int64_t time, uint64_t key)
{
	Window	   *w = (Window *) window;
	int64_t		i = ra_window_find(window, time, key);

	if (i < 0)
		return false;
	window_delete(w, spec, w->start + (uint32_t) i);
	return true;
}

uint32_t
ra_window_trim(RaWindow *window, const RaWindowSpec *spec, int64_t horizon)
{
	Window	   *w = (Window *) window;
	uint32_t	n;

	if (horizon <= window->complete_from)
		return 0;
	window->complete_from = horizon;
	n = ra_window_bound(window, horizon);
	if (n == 0)
		return 0;

	/* What goes at the front leaves all columns valid */
	if (n < window->count)
		window_forget(w, spec, n, w->start);
	w->start += n;
	window->count -= n;
	if (window->count == 0)
		window_restart(w, spec);
	return n;
}

/* Make a window without events ready for the first one */
static void
window_restart(Window *w, const RaWindowSpec *spec)
{
	w->start = 0;
	w->head.bytes_used = 0;
	w->head.bytes_live = 0;
	for (int m = 0; m < spec->nmeasures; m++)
	{
		for (int k = 0; k < group_nbits(&spec->measures[m]); k++)
		{
			Bits		bits = group_bits(w, m, k);

			bits.words[0] = 0;
			bits.ranks[0] = 0;
		}
		if (spec->measures[m].kind == RA_MEASURE_INT)
		{
			memset(int_head(w, spec, m), 0, sizeof(IntHead));
			sums_set(int_sums(w, spec, m), 0, 0);
			if (spec->measures[m].sumsq)
				store128(int_squares(w, spec, m), 0);
		}
	}
	forget_hints(w, spec, 0);
}

/* Slots from p on are about to change, or to be used for something else */
static void
forget_hints(Window *w, const RaWindowSpec *spec, uint32_t p)
{
	if (!hinted(w->head.capacity))
		return;
	for (int m = 0; m < spec->nmeasures; m++)
	{
		if (spec->measures[m].kind == RA_MEASURE_INT && spec->measures[m].minmax)
		{
			for (int k = 0; k < NEXTREMA; k++)
				if (int_extrema(w, spec, m)[k].to > p)
					int_extrema(w, spec, m)[k].to = 0;
		}
		else if (spec->measures[m].kind == RA_MEASURE_HASH)
		{
			for (int k = 0; k < NDISTINCT; k++)
				if (hash_distinct(w, spec, m)[k].to > p)
					hash_distinct(w, spec, m)[k].to = 0;
		}
	}
}

/*
 * Move all events of a window, one at least, to the first slots of "to", which
 * is either the same window or another one without events.
 */
static void
window_move(Window *to, const Window *from, const RaWindowSpec *spec)
{
	uint32_t	start = from->start;
	uint32_t	end = window_end(from);
	size_t		n = end - start;
	Hashes		keys = window_keys(from);
	Hashes		to_keys = window_keys(to);

	memmove(window_times(to), window_times(from) + start, n * sizeof(int64_t));
	memmove(to_keys.middle, keys.middle + start, n * sizeof(uint32_t));
	memmove(to_keys.low, keys.low + start, n * sizeof(uint16_t));
	to->start = 0;
	to->head.count = (uint32_t) n;
	ra_window_shift_hints(to, from, spec, start);

	for (int m = 0; m < spec->nmeasures; m++)
	{
		const RaMeasureSpec *measure = &spec->measures[m];
		void	   *columns = group_columns(from, spec, m);
		void	   *to_columns = group_columns(to, spec, m);

		for (int k = 0; k < group_nbits_kept(from, spec, m); k++)
			bits_move(group_bits(to, m, k), group_bits(from, m, k), start, end);

		switch ((RaMeasureKind) measure->kind)
		{
			case RA_MEASURE_COUNT:
				break;
			case RA_MEASURE_INT:
				*int_head(to, spec, m) = *int_head(from, spec, m);
				ra_window_sums_move(int_sums(to, spec, m), int_sums(from, spec, m), start, end);
				if (measure->sumsq)
					memmove(int_squares(to, spec, m),
							int_squares(from, spec, m) + 2 * (size_t) start,
							(n + 1) * 2 * sizeof(uint64_t));
				break;
			case RA_MEASURE_FLOAT:
			case RA_MEASURE_WORD:
				memmove(to_columns, (uint64_t *) columns + start, n * sizeof(uint64_t));
				break;
			case RA_MEASURE_HASH:
				{
					Hashes		hashes = hash_values(from, spec, m);
					Hashes		to_hashes = hash_values(to, spec, m);
					Distances	distances = hash_distances(from, spec, m);
					Distances	to_distances = hash_distances(to, spec, m);

					memmove(to_hashes.middle, hashes.middle + start, n * sizeof(uint32_t));
					memmove(to_hashes.low, hashes.low + start, n * sizeof(uint16_t));
					memmove(to_hashes.high, hashes.high + start, n * sizeof(uint16_t));
					if (distances.narrow && to_distances.narrow)
						memmove(to_distances.narrow, distances.narrow + start, n * sizeof(uint16_t));
					else if (distances.wide && to_distances.wide)
						memmove(to_distances.wide, distances.wide + start, n * sizeof(uint32_t));
					else
						for (uint32_t i = 0; i < n; i++)
							distances_set(to_distances, i, distances_get(distances, start + i));
				}
				break;
			case RA_MEASURE_BYTES:
				if (to == from)
					memmove(to_columns, (uint32_t *) columns + start, n * sizeof(uint32_t));
				else
				{
					States		states = group_states(from, spec, m);

					for (uint32_t i = 0; i < n; i++)
					{
						const uint8_t *value = byte_area(from);
						uint32_t	len;

						if (states_get(&states, start + i) == RA_VALUE_NONE)
							continue;
						value += ((uint32_t *) columns)[start + i];
						len = read_length(&value);
						((uint32_t *) to_columns)[i] = bytes_append(to, value, len);
					}
				}
				break;
		}
		if (measure->minmax && (measure->kind == RA_MEASURE_INT || measure->kind == RA_MEASURE_FLOAT))
			blocks_rebuild(to, spec, m, 0);
	}
}

/*
 * Do the sums stay exact if that event comes, for the one at index "replaced"
 * if that is not negative?  A measure without sums takes any value: single
 * values are exact even where their prefix sums wrap.  FULL: they would, if they
 * were long.
 */
static RaWindowResult
window_sums_fit(const Window *w, const RaWindowSpec *spec, const RaEvent *event, int64_t replaced)
{
	RaWindowResult result = RA_WINDOW_OK;

	for (int m = 0; m < spec->nmeasures; m++)
	{
		const RaMeasureSpec *measure = &spec->measures[m];
		uint64_t	held;

		if (measure->kind != RA_MEASURE_INT || event->values[m].state != RA_VALUE_FINITE)
			continue;
		if (!is_short(event->values[m].v.i) && !group_long_sums(w, m))
			result = RA_WINDOW_FULL;
		if (!(measure->sum || measure->sumsq))
			continue;
		held = int_head(w, spec, m)->magnitude;
		if (replaced >= 0)
			held -= magnitude(int_value(int_sums(w, spec, m), w->start + (uint32_t) replaced));
		if (held + magnitude(event->values[m].v.i) >= MAX_SUM)
			return RA_WINDOW_RANGE;
	}
	return result;
}

/* Are the values in slot p those of the event? */
static bool
window_holds(const Window *w, const RaWindowSpec *spec, uint32_t p, const RaEvent *event)
{
	for (int m = 0; m < spec->nmeasures; m++)
	{
		const RaValue *value = &event->values[m];
		RaValue		held;

		ra_window_fetch(w, spec, m, p, &held);
		if (held.state != value->state)
			return false;
		if (held.state == RA_VALUE_NONE)
			continue;
		switch ((RaMeasureKind) spec->measures[m].kind)
		{
			case RA_MEASURE_COUNT:
				break;
			case RA_MEASURE_INT:
				if (held.state == RA_VALUE_FINITE && held.v.i != value->v.i)
					return false;
				break;
			case RA_MEASURE_FLOAT:
				if (memcmp(&held.v.f, &value->v.f, sizeof(double)) != 0)
					return false;
				break;
			case RA_MEASURE_HASH:
			case RA_MEASURE_WORD:
				if (held.v.h != value->v.h)
					return false;
				break;
			case RA_MEASURE_BYTES:
				if (held.len != value->len ||
					(held.len > 0 && memcmp(held.v.p, value->v.p, held.len) != 0))
					return false;
				break;
		}
	}
	return true;
}

/* Make a gap of one entry in a column, or close it */

static inline void
column_open(void *column, size_t width, uint32_t p, uint32_t end)
{
	char	   *gap = (char *) column + p * width;

	if (p < end)				/* appending is the common case */
		memmove(gap + width, gap, (end - p) * width);
}

static inline void
column_close(void *column, size_t width, uint32_t p, uint32_t end)
{
	char	   *gap = (char *) column + p * width;

	memmove(gap, gap + width, (end - p - 1) * width);
}

/* Put the event into slot p; the caller has checked that there is room */
static void
window_insert(Window *w, const RaWindowSpec *spec, uint32_t p, const RaEvent *event)
{
	uint32_t	end = window_end(w);
	Hashes		keys = window_keys(w);

	if (p < end)
		forget_hints(w, spec, p);
	column_open(window_times(w), sizeof(int64_t), p, end);
	column_open(keys.middle, sizeof(uint32_t), p, end);
	column_open(keys.low, sizeof(uint16_t), p, end);
	window_times(w)[p] = event->time;
	hashes_set(keys, p, fold_key(event->key));
	w->head.count++;

	for (int m = 0; m < spec->nmeasures; m++)
	{
		const RaMeasureSpec *measure = &spec->measures[m];
		const RaValue *value = &event->values[m];
		bool		counts = value->state != RA_VALUE_NONE;
		int			nth = 0;
		uint64_t   *words;
		uint32_t   *places;

		if (!measure->always)
			bits_insert(group_bits(w, m, nth++), p, end, counts);

		switch ((RaMeasureKind) measure->kind)
		{
			case RA_MEASURE_COUNT:
				break;
			case RA_MEASURE_INT:
				if (measure->special)
					special_insert(w, spec, m, nth, p, value->state);
				int_insert(w, spec, m, p, value);
				break;
			case RA_MEASURE_FLOAT:
			case RA_MEASURE_WORD:
				words = group_columns(w, spec, m);
				column_open(words, sizeof(uint64_t), p, end);
				words[p] = 0;
				if (counts)
					memcpy(&words[p], &value->v, sizeof(uint64_t));
				break;
			case RA_MEASURE_HASH:
				hash_insert(w, spec, m, p, value);
				break;
			case RA_MEASURE_BYTES:
				places = group_columns(w, spec, m);
				column_open(places, sizeof(uint32_t), p, end);
				places[p] = counts ? bytes_append(w, value->v.p, value->len) : 0;
				break;
		}
		if (measure->minmax && (measure->kind == RA_MEASURE_INT || measure->kind == RA_MEASURE_FLOAT))
			blocks_insert(w, spec, m, p, value);
	}
}

/* Delete the event in slot p */
static void
window_delete(Window *w, const RaWindowSpec *spec, uint32_t p)
{
	uint32_t	end = window_end(w);
	Hashes		keys = window_keys(w);

	forget_hints(w, spec, p);
	window_forget(w, spec, 1, p);
	column_close(window_times(w), sizeof(int64_t), p, end);
	column_close(keys.middle, sizeof(uint32_t), p, end);
	column_close(keys.low, sizeof(uint16_t), p, end);

	for (int m = 0; m < spec->nmeasures; m++)
	{
		const RaMeasureSpec *measure = &spec->measures[m];

		switch ((RaMeasureKind) measure->kind)
		{
			case RA_MEASURE_COUNT:
				break;
			case RA_MEASURE_INT:
				int_delete(w, spec, m, p);
				break;
			case RA_MEASURE_FLOAT:
			case RA_MEASURE_WORD:
				column_close(group_columns(w, spec, m), sizeof(uint64_t), p, end);
				break;
			case RA_MEASURE_HASH:
				hash_delete(w, spec, m, p);
				break;
			case RA_MEASURE_BYTES:
				column_close(group_columns(w, spec, m), sizeof(uint32_t), p, end);
				break;
		}
		for (int k = 0; k < group_nbits_kept(w, spec, m); k++)
			bits_delete(group_bits(w, m, k), p, end);
	}

	w->head.count--;
	if (w->head.count == 0)
	{
		window_restart(w, spec);
		return;
	}
	for (int m = 0; m < spec->nmeasures; m++)
		if (spec->measures[m].minmax &&
			(spec->measures[m].kind == RA_MEASURE_INT || spec->measures[m].kind == RA_MEASURE_FLOAT))
			blocks_rebuild(w, spec, m, p);
}

/* Take the n events from slot p on out of the totals of what is held */
static void
window_forget(Window *w, const RaWindowSpec *spec, uint32_t n, uint32_t p)
{
	for (int m = 0; m < spec->nmeasures; m++)
	{
		const RaMeasureSpec *measure = &spec->measures[m];

		if (measure->kind == RA_MEASURE_INT)
		{
			Sums		sums = int_sums(w, spec, m);
			IntHead    *head = int_head(w, spec, m);

			for (uint32_t q = p; q < p + n; q++)
				head->magnitude -= magnitude(int_value(sums, q));
			if (head->nspecial > 0)
			{
				States		states = group_states(w, spec, m);

				for (int k = 0; k < 3; k++)
					head->nspecial -= bits_count(states.special[k], p, p + n);
			}
		}
		else if (measure->kind == RA_MEASURE_BYTES)
		{
			States		states = group_states(w, spec, m);
			const uint32_t *places = group_columns(w, spec, m);

			for (uint32_t q = p; q < p + n; q++)
			{
				const uint8_t *value = byte_area(w) + places[q];
				uint32_t	len;

				if (states_get(&states, q) == RA_VALUE_NONE)
					continue;
				len = read_length(&value);
				w->head.bytes_live -= length_size(len) + len;
			}
		}
	}
}

/*
 * The columns of a measure: each of these functions runs while count includes
 * the event inserted, or still the one deleted.
 */

/* Which slots have NaN or infinity is kept only while any has; that is seldom */
static void
special_insert(Window *w, const RaWindowSpec *spec, int m, int nth, uint32_t p, uint8_t state)
{
	IntHead    *head = int_head(w, spec, m);
	uint32_t	end = window_end(w) - 1;
	bool		special = state >= RA_VALUE_NAN;

	if (head->nspecial == 0 && !special)
		return;
	for (int k = 0; k < 3; k++)
	{
		Bits		bits = group_bits(w, m, nth + k);

		if (head->nspecial == 0)
		{
			memset(bits.words, 0, (end / BLOCK + 1) * sizeof(uint64_t));
			memset(bits.ranks, 0, (end / BLOCK + 1) * sizeof(uint32_t));
		}
		bits_insert(bits, p, end, state == RA_VALUE_NAN + k);
	}
	head->nspecial += special;
}

static void
int_insert(Window *w, const RaWindowSpec *spec, int m, uint32_t p, const RaValue *value)
{
	uint32_t	end = window_end(w);
	Sums		sums = int_sums(w, spec, m);
	int64_t		i = value->state == RA_VALUE_FINITE ? value->v.i : 0;

	int_head(w, spec, m)->magnitude += magnitude(i);
	if (p + 1 == end)			/* the common case */
		sums_set(sums, end, sums_get(sums, p) + (uint64_t) i);
	else
		ra_window_sums_insert(sums, p, end, i);
	if (spec->measures[m].sumsq)
	{
		uint64_t   *squares = int_squares(w, spec, m);

		column_open(squares, 2 * sizeof(uint64_t), p + 1, end);
		store128(squares + 2 * (size_t) (p + 1), load128(squares + 2 * (size_t) p));
		for (uint32_t q = p + 1; q <= end; q++)
			store128(squares + 2 * (size_t) q, load128(squares + 2 * (size_t) q) + square(i));
	}
}

static void
int_delete(Window *w, const RaWindowSpec *spec, int m, uint32_t p)
{
	uint32_t	end = window_end(w);
	Sums		sums = int_sums(w, spec, m);
	int64_t		i = int_value(sums, p);

	ra_window_sums_delete(sums, p, end);
	if (spec->measures[m].sumsq)
	{
		uint64_t   *squares = int_squares(w, spec, m);

		column_close(squares, 2 * sizeof(uint64_t), p + 1, end + 1);
		for (uint32_t q = p + 1; q < end; q++)
			store128(squares + 2 * (size_t) q, load128(squares + 2 * (size_t) q) - square(i));
	}
}

static void
hash_insert(Window *w, const RaWindowSpec *spec, int m, uint32_t p, const RaValue *value)
{
	Hashes		hashes = hash_values(w, spec, m);
	Distances	distances = hash_distances(w, spec, m);
	uint32_t	end = window_end(w);
	uint32_t	distance = 0;
	bool		counts = value->state != RA_VALUE_NONE;
	uint64_t	hash = counts ? value->v.h : 0;
	int64_t		value_time = window_times(w)[p];

	if (counts)
	{
		uint32_t	first = w->start;
		uint32_t	previous;

		/* further back than any range reaches is as good as nowhere */
		if (spec->measures[m].span > 0 && value_time > INT64_MIN + spec->measures[m].span)
			first += ra_window_begin(&w->head, spec, spec->measures[m].begin,
									 value_time - spec->measures[m].span - 1);
		previous = ra_window_find_hash(w, spec, m, first, p, hash);

		distance = previous == NOWHERE ? UINT32_MAX : p - previous;
	}
	column_open(hashes.low, sizeof(uint16_t), p, end - 1);
	column_open(hashes.middle, sizeof(uint32_t), p, end - 1);
	column_open(hashes.high, sizeof(uint16_t), p, end - 1);
	if (distances.narrow)
		column_open(distances.narrow, sizeof(uint16_t), p, end - 1);
	else
		column_open(distances.wide, sizeof(uint32_t), p, end - 1);
	hashes_set(hashes, p, hash);
	distances_set(distances, p, distance);

	/*
	 * What leads across the new event leads one further, except that the next
	 * event with the same hash now leads to it.
	 */
	for (uint32_t q = p + 1; q < end; q++)
	{
		distance = distances_get(distances, q);
		if (distance == 0)
			continue;
		if (counts && hashes_get(hashes, q) == hash)
		{
			distances_set(distances, q, q - p);
			counts = false;
		}
		else if (distance >= q - p && distance != UINT32_MAX)
			distances_set(distances, q, distance + 1);
	}
}

static void
hash_delete(Window *w, const RaWindowSpec *spec, int m, uint32_t p)
{
	Hashes		hashes = hash_values(w, spec, m);
	Distances	distances = hash_distances(w, spec, m);
	uint32_t	end = window_end(w);
	uint32_t	deleted = distances_get(distances, p);

	/* What led to the event leads where it led; what led across, one less */
	for (uint32_t q = p + 1; q < end; q++)
	{
		uint32_t	distance = distances_get(distances, q);

		if (distance == 0 || distance == UINT32_MAX)
			continue;
		if (distance > q - p)
			distances_set(distances, q, distance - 1);
		else if (distance == q - p)
			distances_set(distances, q, deleted == UINT32_MAX ? deleted : distance + deleted - 1);
	}
	column_close(hashes.low, sizeof(uint16_t), p, end);
	column_close(hashes.middle, sizeof(uint32_t), p, end);
	column_close(hashes.high, sizeof(uint16_t), p, end);
	if (distances.narrow)
		column_close(distances.narrow, sizeof(uint16_t), p, end);
	else
		column_close(distances.wide, sizeof(uint32_t), p, end);
}

/* Extrema of blocks */

/*
 * Make the blocks from the one of slot p on anew.  The one that start lies in
 * may hold what was trimmed as well: it will not be used as a whole again.
 */
static void
blocks_rebuild(Window *w, const RaWindowSpec *spec, int m, uint32_t p)
{
	States		states = group_states(w, spec, m);
	uint32_t	end = window_end(w);
	uint32_t	nblocks = w->head.capacity / BLOCK;

	for (uint32_t k = p / BLOCK; k < nblocks && k * BLOCK < end; k++)
	{
		uint64_t	members = word_range(k, k * BLOCK, end) & states_finite(&states, k);

		if (spec->measures[m].kind == RA_MEASURE_INT)
		{
			IntBlock   *block = int_blocks(w, spec, m) + k;

			int_block_clear(block);
			int_block_add_slots(block, int_sums(w, spec, m), k, members);
		}
		else
		{
			FloatBlock *block = float_blocks(w, spec, m) + k;

			float_block_clear(block);
			float_block_add_slots(block, float_values(w, spec, m), k, members);
		}
	}
}

/* A value has been put into slot p */
static void
blocks_insert(Window *w, const RaWindowSpec *spec, int m, uint32_t p, const RaValue *value)
{
	uint32_t	k = p / BLOCK;
	bool		fresh = p % BLOCK == 0;

	if (p + 1 < window_end(w))
		blocks_rebuild(w, spec, m, p);
	else if (k >= w->head.capacity / BLOCK)
		return;
	else if (spec->measures[m].kind == RA_MEASURE_INT)
	{
		IntBlock   *block = int_blocks(w, spec, m) + k;

		if (fresh)
			int_block_clear(block);
		if (value->state == RA_VALUE_FINITE)
			int_block_add(block, value->v.i);
	}
	else
	{
		FloatBlock *block = float_blocks(w, spec, m) + k;

		if (fresh)
			float_block_clear(block);
		if (value->state != RA_VALUE_NONE)
			float_block_add(block, value->v.f);
	}
}

/* Bitmaps */

/* Make a gap at p and set it to bit */
static void
bits_insert(Bits bits, uint32_t p, uint32_t end, bool bit)
{
	uint64_t	before = ~(ALL << (p % BLOCK));
	uint32_t	k = p / BLOCK;
	uint32_t	last = (end + 1) / BLOCK;
	uint64_t	word;
	uint64_t	carry;

	if ((end + 1) % BLOCK == 0)
		bits.words[last] = 0;
	word = bits.words[k];
	carry = word >> (BLOCK - 1);
	bits.words[k] = (word & before) | (uint64_t) bit << (p % BLOCK) | (word & ~before) << 1;
	for (k++; k <= last; k++)
	{
		word = bits.words[k];
		bits.words[k] = word << 1 | carry;
		carry = word >> (BLOCK - 1);
		bits.ranks[k] = bits.ranks[k - 1] + popcount(bits.words[k - 1]);
	}
}

static void
bits_delete(Bits bits, uint32_t p, uint32_t end)
{
	uint64_t	before = ~(ALL << (p % BLOCK));
	uint32_t	k = p / BLOCK;
	uint32_t	last = end / BLOCK;
	uint64_t	word = bits.words[k];

	bits.words[k] = (word & before) | ((word >> 1) & ~before);
	for (k++; k <= last; k++)
	{
		word = bits.words[k];
		bits.words[k - 1] |= word << (BLOCK - 1);
		bits.words[k] = word >> 1;
		bits.ranks[k] = bits.ranks[k - 1] + popcount(bits.words[k - 1]);
	}
}

/* Move from's [start, end) to the beginning of to, which may be the same */
static void
bits_move(Bits to, Bits from, uint32_t start, uint32_t end)
{
	uint32_t	last = (end - start) / BLOCK;
	int			shift = start % BLOCK;
	uint32_t	rank = 0;

	for (uint32_t k = 0; k <= last; k++)
	{
		uint32_t	source = start / BLOCK + k;
		uint64_t	word = from.words[source] >> shift;

		if (shift && source + 1 <= end / BLOCK)
			word |= from.words[source + 1] << (BLOCK - shift);
		to.words[k] = word;
		to.ranks[k] = rank;
		rank += popcount(word);
	}
}

/* Append a value to the byte area; returns its place */
static uint32_t
bytes_append(Window *w, const void *data, uint32_t len)
{
	uint32_t	place = w->head.bytes_used;
	uint8_t    *area = byte_area(w);
	uint32_t	used = place;
	uint32_t	rest = len;

	for (; rest >= 0x80; rest >>= 7)
		area[used++] = (uint8_t) (rest | 0x80);
	area[used++] = (uint8_t) rest;
	if (len > 0)
		memmove(area + used, data, len);
	w->head.bytes_used = used + len;
	w->head.bytes_live += used + len - place;
	return place;
}
