/*
 * window_columns.h
 *	  How a window's block of memory is laid out; for window*.c only.
 *
 * The block is a header, then columns: arrays with one entry per slot, of
 * which there are "capacity".  The events held occupy the slots [start, end).
 * In these files p, q and end are slots, while i, lo and hi are indexes as the
 * callers know them, counted from start.
 *
 * The columns' order is: times; the keys; then a group of columns for each
 * measure, whose place the header tells.  A group begins with its bitmaps, see
 * Bits, and goes on with what its kind needs:
 *
 *	INT		what is held, see IntHead; remembered extrema, see Extremum; prefix
 *			sums, see Sums; if wanted, prefix sums of the squares; extrema per
 *			block.
 *	FLOAT	the doubles; extrema per block.
 *	HASH	remembered counts, see Distinct; the hashes, and for each event the
 *			distance back to the previous one with the same hash, see Hashes
 *			and Distances.
 *	WORD	the words.
 *	BYTES	where in the byte area, at the block's end, the value stands: its
 *			length in base 128, then the bytes.
 *
 * A prefix sum at slot p is that of the slots before p, so these columns have
 * one entry more than there are slots; an event's own value is the difference
 * of two neighbours.  Nothing needs to be rebased when events go at the front.
 *
 * Extrema are kept for each block of 64 slots and used where a range covers
 * the whole block.
 *
 * Hints.  Most of a large window is not in the processor's cache, and its
 * features read it at a few places that move by an event or so each time.  So
 * a window of HINTED slots or more remembers where they were.  Hints are
 * verified where they are used: a wrong one costs time only.
 *
 * Keys matter only among events of the same time, so 48 bits of them are kept.
 */
#ifndef RA_CORE_WINDOW_COLUMNS_H
#define RA_CORE_WINDOW_COLUMNS_H

#include <math.h>
#include <string.h>

#include "window.h"

#define BLOCK		64			/* slots per bitmap word, and per extremum */
#define ALL			(~UINT64_C(0))
#define MAX_SUM		(UINT64_C(1) << 62)
#define NOWHERE		UINT32_MAX
#define HINTED		64			/* smaller windows fit few cache lines anyway */
#define NEDGES		8			/* ends of ranges that are remembered */
#define NEXTREMA	2			/* extrema that are, per measure */
#define NDISTINCT	2			/* likewise numbers of distinct values */

typedef struct Window
{
	RaWindow	head;
	uint32_t	start;			/* slot of the first event */
	uint32_t	times;			/* offsets from the beginning of the block: */
	uint32_t	keys;
	uint32_t	groups[];		/* one per measure; and LONG_SUMS, if it has them */
	/* if hinted: uint32_t edges[NEDGES], slots */
} Window;

#define LONG_SUMS	1			/* offsets are multiples of 8 */

/* What a measure of integers holds, in all */
typedef struct IntHead
{
	uint64_t	magnitude;		/* sum of the absolute values */
	uint32_t	nspecial;		/* NaN and infinities; 0: their bitmaps are not kept */
	uint32_t	reserved;
} IntHead;

/*
 * Prefix sums.  They stand as they are, in 64 bits, if the measure's sums are
 * long.  Else they stand in parts: the sum before the part's first slot, and
 * what each slot has more than that.  Then all values held are at most MAX_SHORT
 * in size, so that wherever the parts begin, 32 bits are enough.
 */
#define PART		16
#define MAX_SHORT	(INT32_MAX / (PART - 1))

typedef struct SumPart
{
	uint64_t	base;
	int32_t		more[PART];		/* the column's last part is cut off at its end */
} SumPart;

typedef struct Sums
{
	uint64_t   *full;			/* one of them is NULL */
	SumPart    *parts;
} Sums;

/*
 * A remembered extremum: of the finite values in slots [from, to), "value" is
 * the smallest or the largest one, and the last such stands in slot "at".  What
 * is trimmed does not make this untrue.
 */
typedef struct Extremum
{
	uint32_t	from;
	uint32_t	to;				/* 0: nothing is remembered */
	uint32_t	at;
	bool		max;
	int64_t		value;
} Extremum;

/* A remembered number of distinct values in slots [from, to), likewise */
typedef struct Distinct
{
	uint32_t	from;
	uint32_t	to;				/* 0: nothing is remembered */
	uint32_t	n;
} Distinct;

/*
 * A set of slots that can count its members in any range: one bit per slot,
 * and per word the members before it.  Bits below start and at end or above
 * are unspecified, ranks are comparable but not absolute.  The word of slot
 * "end" has always been initialized.
 */
typedef struct Bits
{
	uint64_t   *words;
	uint32_t   *ranks;
} Bits;

/* Which slots count for a measure, and which of them hold special values */
typedef struct States
{
	Bits		counts;			/* words is NULL if all count */
	Bits		special[3];		/* NaN, +Inf, -Inf; words is NULL if there are none */
} States;

/*
 * 64-bit hashes (or 48-bit ones, if high is NULL), split so that a search
 * reads 2 bytes per slot.
 */
typedef struct Hashes
{
	uint16_t   *low;
	uint32_t   *middle;
	uint16_t   *high;
} Hashes;

/*
 * Distances in events to the previous one with the same hash: 0 if the event
 * doesn't count, the maximum if there is no previous one, or none within the
 * measure's span.  A distance that
 * leads before the first event is stale and means the same.  So an event is
 * the first of its hash among [lo, ...) if and only if distance > i - lo.  16
 * bits are enough for windows of up to 65535 events.
 */
typedef struct Distances
{
	uint16_t   *narrow;			/* one of them is NULL */
	uint32_t   *wide;
} Distances;

/* Extrema of a block; (max, min) of the type if it is empty */
typedef struct IntBlock
{
	int64_t		min;
	int64_t		max;
} IntBlock;

typedef struct FloatBlock
{
	double		min;
	double		max;
} FloatBlock;

/* Where things are */

static inline uint64_t
align8(uint64_t n)
{
	return (n + 7) & ~UINT64_C(7);
}

static inline void *
at(const Window *w, uint64_t offset)
{
	return (char *) (uintptr_t) w + offset;
}

static inline uint32_t
window_end(const Window *w)
{
	return w->start + w->head.count;
}

static inline int64_t *
window_times(const Window *w)
{
	return at(w, w->times);
}

static inline bool
hinted(uint32_t capacity)
{
	return capacity >= HINTED;
}

/* Where ranges began, and at last where they ended; if the window is hinted */
static inline uint32_t *
window_edges(const Window *w, const RaWindowSpec *spec)
{
	return (uint32_t *) (uintptr_t) w->groups + spec->nmeasures;
}

static inline int
edge_number(int nth)
{
	return nth == RA_WINDOW_NOW ? NEDGES - 1 : nth % (NEDGES - 1);
}

static inline uint64_t
bits_size(uint32_t capacity)
{
	uint64_t	words = capacity / BLOCK + 1;

	return align8(words * (sizeof(uint64_t) + sizeof(uint32_t)));
}

static inline bool
distances_narrow(uint32_t capacity)
{
	return capacity <= UINT16_MAX;
}

static inline bool
group_long_sums(const Window *w, int m)
{
	return (w->groups[m] & LONG_SUMS) != 0;
}

static inline void *
group_begin(const Window *w, int m)
{
	return at(w, w->groups[m] & ~(uint32_t) LONG_SUMS);
}

/* Bytes of n prefix sums */
static inline uint64_t
sums_size(uint64_t n, bool long_sums)
{
	uint64_t	rest = n % PART;

	if (long_sums)
		return n * sizeof(uint64_t);
	return n / PART * sizeof(SumPart) +
		(rest > 0 ? align8(offsetof(SumPart, more) + rest * sizeof(int32_t)) : 0);
}

static inline int
group_nbits(const RaMeasureSpec *measure)
{
	return (measure->always ? 0 : 1) +
		(measure->kind == RA_MEASURE_INT && measure->special ? 3 : 0);
}

static inline void *
group_columns(const Window *w, const RaWindowSpec *spec, int m)
{
	return (char *) group_begin(w, m) +
		group_nbits(&spec->measures[m]) * bits_size(w->head.capacity);
}

static inline Bits
group_bits(const Window *w, int m, int nth)
{
	Bits		bits;

	bits.words = (uint64_t *) group_begin(w, m) + nth * (bits_size(w->head.capacity) / sizeof(uint64_t));
	bits.ranks = (uint32_t *) (bits.words + w->head.capacity / BLOCK + 1);
	return bits;
}

static inline IntHead *
int_head(const Window *w, const RaWindowSpec *spec, int m)
{
	return group_columns(w, spec, m);
}

/* How many of a measure's bitmaps are kept up to date: the first ones */
static inline int
group_nbits_kept(const Window *w, const RaWindowSpec *spec, int m)
{
	const RaMeasureSpec *measure = &spec->measures[m];

	if (measure->kind == RA_MEASURE_INT && measure->special &&
		int_head(w, spec, m)->nspecial == 0)
		return measure->always ? 0 : 1;
	return group_nbits(measure);
}

static inline States
group_states(const Window *w, const RaWindowSpec *spec, int m)
{
	const RaMeasureSpec *measure = &spec->measures[m];
	int			nth = 0;
	States		states;

	states.counts.words = states.special[0].words = NULL;
	if (!measure->always)
		states.counts = group_bits(w, m, nth++);
	if (nth < group_nbits_kept(w, spec, m))
		for (int k = 0; k < 3; k++)
			states.special[k] = group_bits(w, m, nth++);
	return states;
}

/* NEXTREMA of them, if the window is hinted and the measure has extrema */
static inline Extremum *
int_extrema(const Window *w, const RaWindowSpec *spec, int m)
{
	return (Extremum *) (int_head(w, spec, m) + 1);
}

static inline void *
int_sums_column(const Window *w, const RaWindowSpec *spec, int m)
{
	Extremum   *extrema = int_extrema(w, spec, m);

	if (spec->measures[m].minmax && hinted(w->head.capacity))
		extrema += NEXTREMA;
	return extrema;
}

static inline Sums
int_sums(const Window *w, const RaWindowSpec *spec, int m)
{
	Sums		sums = {NULL, NULL};

	if (group_long_sums(w, m))
		sums.full = int_sums_column(w, spec, m);
	else
		sums.parts = int_sums_column(w, spec, m);
	return sums;
}

/* Squares take two words each, the lower one first */
static inline uint64_t *
int_squares(const Window *w, const RaWindowSpec *spec, int m)
{
	return (uint64_t *) int_sums_column(w, spec, m) +
		sums_size((uint64_t) w->head.capacity + 1, group_long_sums(w, m)) / sizeof(uint64_t);
}

static inline IntBlock *
int_blocks(const Window *w, const RaWindowSpec *spec, int m)
{
	uint64_t   *squares = int_squares(w, spec, m);

	if (spec->measures[m].sumsq)
		squares += 2 * ((size_t) w->head.capacity + 1);
	return (IntBlock *) squares;
}

static inline double *
float_values(const Window *w, const RaWindowSpec *spec, int m)
{
	return group_columns(w, spec, m);
}

static inline FloatBlock *
float_blocks(const Window *w, const RaWindowSpec *spec, int m)
{
	return (FloatBlock *) (float_values(w, spec, m) + w->head.capacity);
}

/* NDISTINCT of them, if the window is hinted */
static inline Distinct *
hash_distinct(const Window *w, const RaWindowSpec *spec, int m)
{
	return group_columns(w, spec, m);
}

static inline uint32_t *
hash_columns(const Window *w, const RaWindowSpec *spec, int m)
{
	Distinct   *known = hash_distinct(w, spec, m);

	return (uint32_t *) (known + (hinted(w->head.capacity) ? NDISTINCT : 0));
}

static inline Hashes
hash_values(const Window *w, const RaWindowSpec *spec, int m)
{
	uint32_t	capacity = w->head.capacity;
	Hashes		hashes;

	hashes.middle = hash_columns(w, spec, m);
	hashes.low = (uint16_t *) (hashes.middle + capacity);
	hashes.high = hashes.low + capacity;
	if (!distances_narrow(capacity))	/* wide distances stand between */
	{
		hashes.low += 2 * (size_t) capacity;
		hashes.high += 2 * (size_t) capacity;
	}
	return hashes;
}

static inline Distances
hash_distances(const Window *w, const RaWindowSpec *spec, int m)
{
	uint32_t	capacity = w->head.capacity;
	uint32_t   *middle = hash_columns(w, spec, m);
	Distances	distances = {NULL, NULL};

	if (distances_narrow(capacity))
		distances.narrow = (uint16_t *) (middle + capacity) + 2 * (size_t) capacity;
	else
		distances.wide = middle + capacity;
	return distances;
}

static inline Hashes
window_keys(const Window *w)
{
	Hashes		keys;

	keys.middle = at(w, w->keys);
	keys.low = (uint16_t *) (keys.middle + w->head.capacity);
	keys.high = NULL;
	return keys;
}

static inline uint8_t *
byte_area(const Window *w)
{
	return at(w, w->head.size - align8(w->head.bytes_capacity));
}

/* Bits */

static inline uint32_t
popcount(uint64_t x)
{
	/* not __builtin_popcountll(): that is a function call on plain x86-64 */
	x -= (x >> 1) & UINT64_C(0x5555555555555555);
	x = (x & UINT64_C(0x3333333333333333)) + ((x >> 2) & UINT64_C(0x3333333333333333));
	x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
	return (uint32_t) ((x * UINT64_C(0x0101010101010101)) >> 56);
}

static inline bool
bits_test(Bits bits, uint32_t p)
{
	return (bits.words[p / BLOCK] >> (p % BLOCK)) & 1;
}

static inline uint32_t
bits_rank(Bits bits, uint32_t p)
{
	uint64_t	before = ~(ALL << (p % BLOCK));

	return bits.ranks[p / BLOCK] + popcount(bits.words[p / BLOCK] & before);
}

/* Members in [p, q) */
static inline uint32_t
bits_count(Bits bits, uint32_t p, uint32_t q)
{
	return bits_rank(bits, q) - bits_rank(bits, p);
}

/* The bits of word k that lie within [p, q), which touches that word */
static inline uint64_t
word_range(uint32_t k, uint32_t p, uint32_t q)
{
	uint64_t	mask = ALL;

	if (k == p / BLOCK)
		mask &= ALL << (p % BLOCK);
	if (k == (q - 1) / BLOCK)
		mask &= ALL >> (BLOCK - 1 - (q - 1) % BLOCK);
	return mask;
}

/* The members of word k that count and are finite */
static inline uint64_t
states_finite(const States *states, uint32_t k)
{
	uint64_t	word = states->counts.words ? states->counts.words[k] : ALL;

	if (states->special[0].words)
		word &= ~(states->special[0].words[k] | states->special[1].words[k] |
				  states->special[2].words[k]);
	return word;
}

static inline uint8_t
states_get(const States *states, uint32_t p)
{
	if (states->counts.words && !bits_test(states->counts, p))
		return RA_VALUE_NONE;
	if (states->special[0].words)
	{
		for (int k = 0; k < 3; k++)
			if (bits_test(states->special[k], p))
				return RA_VALUE_NAN + k;
	}
	return RA_VALUE_FINITE;
}

/* Prefix sums */

static inline uint64_t
sums_get(Sums sums, uint32_t p)
{
	const SumPart *part;

	if (sums.full)
		return sums.full[p];
	part = sums.parts + p / PART;
	return part->base + (uint64_t) (int64_t) part->more[p % PART];
}

/* The one at p, which those behind it in its part do not survive */
static inline void
sums_set(Sums sums, uint32_t p, uint64_t sum)
{
	SumPart    *part;

	if (sums.full)
	{
		sums.full[p] = sum;
		return;
	}
	part = sums.parts + p / PART;
	if (p % PART == 0)
		part->base = sum;
	part->more[p % PART] = (int32_t) (sum - part->base);
}

static inline int64_t
part_last_value(const SumPart *part)
{
	return (int64_t) (part[1].base - part->base) - part->more[PART - 1];
}

static inline int64_t
int_value(Sums sums, uint32_t p)
{
	const SumPart *part;

	if (sums.full)
		return (int64_t) (sums.full[p + 1] - sums.full[p]);
	part = sums.parts + p / PART;
	if (p % PART < PART - 1)
		return part->more[p % PART + 1] - part->more[p % PART];
	return part_last_value(part);
}

static inline bool
is_short(int64_t i)
{
	return i >= -MAX_SHORT && i <= MAX_SHORT;
}

/* Small arithmetic */

static inline uint64_t
magnitude(int64_t i)
{
	return i < 0 ? 0 - (uint64_t) i : (uint64_t) i;
}

static inline ra_uint128
square(int64_t i)
{
	return (ra_uint128) magnitude(i) * magnitude(i);
}

static inline ra_uint128
load128(const uint64_t *pair)
{
	return (ra_uint128) pair[1] << 64 | pair[0];
}

static inline void
store128(uint64_t *pair, ra_uint128 value)
{
	pair[0] = (uint64_t) value;
	pair[1] = (uint64_t) (value >> 64);
}

/* The smaller of two as min(float8) finds it: NaN greatest, the later of equals */
static inline double
float_smaller(double earlier, double later)
{
	return earlier < later || isnan(later) ? earlier : later;
}

static inline double
float_larger(double earlier, double later)
{
	return earlier > later || isnan(earlier) ? earlier : later;
}

static inline uint32_t
length_size(uint32_t len)
{
	uint32_t	size = 1;

	while (len >= 0x80)
	{
		len >>= 7;
		size++;
	}
	return size;
}

/* Read the length before a value in the byte area, and step behind it */
static inline uint32_t
read_length(const uint8_t **bytes)
{
	uint32_t	len = 0;
	int			shift = 0;

	while (**bytes & 0x80)
	{
		len |= (uint32_t) (*(*bytes)++ & 0x7f) << shift;
		shift += 7;
	}
	return len | (uint32_t) *(*bytes)++ << shift;
}

/* Hashes */

/* Keys are hashes already, so folding keeps them as good as 48 bits can be */
static inline uint64_t
fold_key(uint64_t key)
{
	return (key ^ key >> 48) & (ALL >> 16);
}

static inline uint64_t
hashes_get(Hashes hashes, uint32_t p)
{
	uint64_t	hash = hashes.low[p] | (uint64_t) hashes.middle[p] << 16;

	if (hashes.high)
		hash |= (uint64_t) hashes.high[p] << 48;
	return hash;
}

static inline void
hashes_set(Hashes hashes, uint32_t p, uint64_t hash)
{
	hashes.low[p] = (uint16_t) hash;
	hashes.middle[p] = (uint32_t) (hash >> 16);
	if (hashes.high)
		hashes.high[p] = (uint16_t) (hash >> 48);
}

static inline uint32_t
distances_get(Distances distances, uint32_t p)
{
	if (distances.wide)
		return distances.wide[p];
	return distances.narrow[p] == UINT16_MAX ? UINT32_MAX : distances.narrow[p];
}

static inline void
distances_set(Distances distances, uint32_t p, uint32_t distance)
{
	if (distances.wide)
		distances.wide[p] = distance;
	else
		distances.narrow[p] = distance >= UINT16_MAX ? UINT16_MAX : (uint16_t) distance;
}

/* Extrema of blocks */

static inline void
int_block_clear(IntBlock *block)
{
	block->min = INT64_MAX;
	block->max = INT64_MIN;
}

static inline void
int_block_add(IntBlock *block, int64_t i)
{
	block->min = i < block->min ? i : block->min;
	block->max = i > block->max ? i : block->max;
}

/* NaN is the greatest, so the empty block's extrema give way to any value */
static inline void
float_block_clear(FloatBlock *block)
{
	block->min = (double) NAN;
	block->max = (double) -INFINITY;
}

static inline void
float_block_add(FloatBlock *block, double f)
{
	block->min = float_smaller(block->min, f);
	block->max = float_larger(block->max, f);
}

/* Add the members of word k */

static inline void
int_block_add_slots(IntBlock *block, Sums sums, uint32_t k, uint64_t members)
{
	const SumPart *part;

	if (sums.full)
	{
		for (; members; members &= members - 1)
			int_block_add(block, int_value(sums, k * BLOCK + (uint32_t) __builtin_ctzll(members)));
		return;
	}
	part = sums.parts + k * (BLOCK / PART);
	for (; members; members >>= PART, part++)
	{
		uint32_t	here = members & ((1 << PART) - 1);

		if (here >> (PART - 1))
			int_block_add(block, part_last_value(part));
		here &= (1 << (PART - 1)) - 1;
		for (; here; here &= here - 1)
		{
			int			i = __builtin_ctz(here);

			int_block_add(block, part->more[i + 1] - part->more[i]);
		}
	}
}

static inline void
float_block_add_slots(FloatBlock *block, const double *values, uint32_t k, uint64_t members)
{
	values += (size_t) k * BLOCK;
	if (members == ALL)
		for (uint32_t i = 0; i < BLOCK; i++)
			float_block_add(block, values[i]);
	else
		for (; members; members &= members - 1)
			float_block_add(block, values[__builtin_ctzll(members)]);
}

extern void ra_window_sums_insert(Sums sums, uint32_t p, uint32_t end, int64_t i);
extern void ra_window_sums_delete(Sums sums, uint32_t p, uint32_t end);
extern void ra_window_sums_move(Sums to, Sums from, uint32_t start, uint32_t end);
extern void ra_window_fetch(const Window *w, const RaWindowSpec *spec, int m, uint32_t p,
							RaValue *value);
extern uint32_t ra_window_bound_from(const Window *w, uint32_t guess, int64_t time);
extern int64_t ra_window_find_key(const Window *w, uint32_t hi, uint64_t key);
extern uint32_t ra_window_find_hash(const Window *w, const RaWindowSpec *spec, int m, uint32_t p,
									uint32_t q, uint64_t hash);
extern const Extremum *ra_window_extremum(const Window *w, const RaWindowSpec *spec, int m, bool max,
										  uint32_t p, uint32_t q);
extern void ra_window_shift_hints(Window *to, const Window *from, const RaWindowSpec *spec,
								  uint32_t start);

#endif							/* RA_CORE_WINDOW_COLUMNS_H */
