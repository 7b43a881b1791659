/*
 * window.h
 *	  One entity's events in time order, and exact aggregates over any part
 *	  of them.
 *
 * A window is one contiguous, position-independent block of memory (no
 * pointers), so that it can be copied with memcpy, live in shared memory or
 * in a backend's own.  It holds, for every event of one entity, the event
 * time, a hash of the event's key, and one column per measure.  A measure is
 * a (value, filter) pair that some feature aggregates.  Events stand sorted by
 * time; among equal times the later arrival stands behind the earlier one.
 *
 * Sums are prefix sums, so a range costs two look-ups whatever its length.
 * Integers wrap modulo 2^64 (squares: 2^128); a range's true sum is exact
 * because ra_window_add() refuses an event (RA_WINDOW_RANGE) once the sum of
 * the absolute values held would reach 2^62.  That concerns measures with sum
 * or sumsq; others take any integer.
 *
 * Keys tell apart events of the same time only.  They must be good hashes: a
 * window keeps 48 bits of them.
 *
 * Sums of small integers take less memory.  A window is made with a set of
 * measures (bit m for measure m) whose sums are long, that is, which can hold
 * integers of any size; ra_window_long_sums() tells which ones that must be.
 *
 * Nothing here allocates, locks, or fails other than by its return value.
 */
#ifndef RA_CORE_WINDOW_H
#define RA_CORE_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* as aligned as palloc() and a shared-memory allocator make it */
__extension__ typedef __int128 ra_int128 __attribute__((aligned(8)));
__extension__ typedef unsigned __int128 ra_uint128 __attribute__((aligned(8)));

#define RA_MAX_MEASURES 64		/* measures of one entity */

typedef enum RaMeasureKind
{
	RA_MEASURE_COUNT,			/* no value: count(*) FILTER (...) */
	RA_MEASURE_INT,				/* 64-bit integers, or decimals scaled to them */
	RA_MEASURE_FLOAT,			/* doubles */
	RA_MEASURE_HASH,			/* 64-bit hashes, for count(DISTINCT x) */
	RA_MEASURE_WORD,			/* 8 opaque bytes, for lag(x) and first(x) */
	RA_MEASURE_BYTES			/* opaque bytes of any length, likewise */
} RaMeasureKind;

/* What the features that read a measure need of it */
typedef struct RaMeasureSpec
{
	uint8_t		kind;			/* RaMeasureKind */
	bool		always;			/* every event counts: no filter, never NULL */
	bool		sum;			/* INT: sum or avg wanted */
	bool		sumsq;			/* INT: stddev or variance wanted (implies sum) */
	bool		minmax;			/* INT, FLOAT: min or max wanted */
	bool		special;		/* INT: NaN and infinities can occur */
	int64_t		span;			/* HASH: > 0: ranges end less than this after they
								 * begin, see ra_window_distinct() ... */
	int			begin;			/* ... and the number of the longest one's begin */
} RaMeasureSpec;

/* The columns of a window; the same for all entities of one definition */
typedef struct RaWindowSpec
{
	int			nmeasures;
	RaMeasureSpec measures[RA_MAX_MEASURES];
} RaWindowSpec;

/* How an event counts for a measure */
typedef enum RaValueState
{
	RA_VALUE_NONE,				/* filtered out, or NULL */
	RA_VALUE_FINITE,
	RA_VALUE_NAN,				/* the rest: RA_MEASURE_INT only; doubles carry their own */
	RA_VALUE_PINF,
	RA_VALUE_NINF
} RaValueState;

typedef struct RaValue
{
	uint8_t		state;			/* RaValueState */
	uint32_t	len;			/* BYTES: length */
	union
	{
		int64_t		i;			/* INT */
		double		f;			/* FLOAT */
		uint64_t	h;			/* HASH, WORD */
		const void *p;			/* BYTES */
	}			v;
} RaValue;

typedef struct RaEvent
{
	int64_t		time;			/* microseconds, any epoch */
	uint64_t	key;			/* hash of the event's key */
	const RaValue *values;		/* one per measure */
} RaEvent;

/* Opaque to callers but for the counters, which they may read */
typedef struct RaWindow
{
	uint32_t	size;			/* bytes of the whole block */
	uint32_t	capacity;		/* events there is room for */
	uint32_t	count;			/* events held */
	uint32_t	bytes_capacity; /* room for values of RA_MEASURE_BYTES */
	uint32_t	bytes_used;		/* of it, incl. garbage of removed events */
	uint32_t	bytes_live;		/* of it, without the garbage: what a copy uses */
	int64_t		complete_from;	/* all events later than this are held */
	/* implementation's own fields follow in the block */
} RaWindow;

typedef enum RaWindowResult
{
	RA_WINDOW_OK,				/* added */
	RA_WINDOW_REPLACED,			/* the key was there: value replaced, event now
								 * last among its equals in time */
	RA_WINDOW_FULL,				/* no room, or less than 1/16 to win by compacting,
								 * or a sum must become long: nothing changed;
								 * copy to a larger one, retry */
	RA_WINDOW_RANGE,			/* a sum could overflow: nothing changed */
	RA_WINDOW_OLD				/* time <= complete_from: nothing changed */
} RaWindowResult;

/* The aggregate of a range; which fields are filled depends on the measure */
typedef struct RaAggregate
{
	uint64_t	n;				/* values that count, special ones included */
	uint64_t	nan;			/* of them.  Filled for INT; for FLOAT only if fsum */
	uint64_t	pinf;			/* or fsxx isn't finite: all zero then means that */
	uint64_t	ninf;			/* finite values overflowed, where float8 sums fail */
	ra_int128	sum;			/* INT, finite values: */
	ra_uint128	sumsq;
	int64_t		min;			/* valid if n > nan + pinf + ninf */
	int64_t		max;
	double		fsum;			/* FLOAT: sum, and sum of squared deviations */
	double		fsxx;			/* (Youngs and Cramer), in time order; NaN and */
	double		fmin;			/* infinities as float8's own aggregates treat */
	double		fmax;			/* them (for avg(), add 0.0 to fsum: it may be -0);
								 * fmin, fmax: NaN greatest; all valid if n > 0 */
} RaAggregate;

#define RA_WANT_COUNT	0x00
#define RA_WANT_SUM		0x01
#define RA_WANT_SUMSQ	0x02
#define RA_WANT_MIN		0x04
#define RA_WANT_MAX		0x08

/*
 * Bytes needed for a window of that capacity; 0 if that exceeds
 * RA_WINDOW_MAX_SIZE (bytes_capacity may be a sum that 32 bits don't hold).
 */
#define RA_WINDOW_MAX_SIZE	((size_t) 1 << 30)
extern size_t ra_window_size(const RaWindowSpec *spec, uint64_t long_sums, uint32_t capacity,
							 uint64_t bytes_capacity);

/* Make an empty window in mem (8-byte aligned, of at least ra_window_size()) */
extern RaWindow *ra_window_init(void *mem, const RaWindowSpec *spec, uint64_t long_sums,
								uint32_t capacity, uint32_t bytes_capacity, int64_t complete_from);

/* The measures whose sums must be long for the window's events and one more */
extern uint64_t ra_window_long_sums(const RaWindow *w, const RaWindowSpec *spec,
									const RaEvent *event);

/*
 * Copy src's events and complete_from into dst, an empty window with room for
 * them, and with long sums where they need them; drops garbage bytes.  The way
 * to grow, to shrink, and to compact.
 */
extern void ra_window_copy(RaWindow *dst, const RaWindow *src, const RaWindowSpec *spec);

/*
 * Add an event, or replace the one with its key (at the same time).  Appending
 * costs O(1) per measure (HASH: a look back for the same value within the span), a late event
 * O(events behind it).  BYTES must not point into the window itself.
 */
extern RaWindowResult ra_window_add(RaWindow *w, const RaWindowSpec *spec, const RaEvent *event);

/* Bytes an event needs in the RA_MEASURE_BYTES area */
extern uint32_t ra_window_event_bytes(const RaWindowSpec *spec, const RaEvent *event);

/* Remove the event with that time and key; false if it isn't there */
extern bool ra_window_remove(RaWindow *w, const RaWindowSpec *spec, int64_t time, uint64_t key);

/*
 * Forget events with time <= horizon; sets complete_from (never backwards).
 * Returns how many were dropped.
 */
extern uint32_t ra_window_trim(RaWindow *w, const RaWindowSpec *spec, int64_t horizon);

/* Index of the first event later than time (= number of events up to time) */
extern uint32_t ra_window_bound(const RaWindow *w, int64_t time);

/*
 * The same, with a hint where the nth such index was; if somebody leaves one:
 * by time it moves little, so that it is found near.  RA_WINDOW_NOW instead of
 * n: that of the event being scored, where ranges end.
 */
#define RA_WINDOW_NOW	(-1)
extern uint32_t ra_window_begin(const RaWindow *w, const RaWindowSpec *spec, int nth, int64_t time);
extern void ra_window_note_begin(RaWindow *w, const RaWindowSpec *spec, int nth, uint32_t lo);

/*
 * Note the extremum of the range for ra_window_aggregate(), which then finds it
 * in O(1), as well for ranges that begin and end a little later.  INT only; nth
 * tells apart what is noted of one measure.
 */
extern void ra_window_note_extremum(RaWindow *w, const RaWindowSpec *spec, int m, int nth,
									uint32_t lo, uint32_t hi, bool max);

/* Note the number of distinct values for ra_window_distinct(), likewise */
extern void ra_window_note_distinct(RaWindow *w, const RaWindowSpec *spec, int m, int nth,
									uint32_t lo, uint32_t hi);

/*
 * Ask the processor for the memory that an event's arrival, or its ranges, will
 * touch.  The window may change, or become another's, meanwhile.
 */
extern void ra_window_prefetch(const RaWindow *w, const RaWindowSpec *spec, bool ranges);

/* Likewise what the values of an event that is to arrive will touch; the window must not change */
extern void ra_window_prefetch_values(const RaWindow *w, const RaWindowSpec *spec,
									  const RaValue *values);

/* Index of the event with that time and key, or -1 */
extern int64_t ra_window_find(const RaWindow *w, int64_t time, uint64_t key);

/* The same, if it is known that ra_window_bound() of the time is hi */
extern int64_t ra_window_find_before(const RaWindow *w, uint32_t hi, int64_t time, uint64_t key);

/* Time of the event at index i */
extern int64_t ra_window_time(const RaWindow *w, uint32_t i);

/*
 * Aggregate measure m over the events [lo, hi) and, if self is not NULL, one
 * more value behind them.  O(1) for counts and integer sums; O(block + n /
 * block) for min and max, unless noted; O(n) for doubles.
 */
extern void ra_window_aggregate(const RaWindow *w, const RaWindowSpec *spec, int m,
								uint32_t lo, uint32_t hi, const RaValue *self,
								int want, RaAggregate *result);

/*
 * count(DISTINCT value) over [lo, hi) and self: O(n) with a small constant,
 * less if a similar range was noted.
 * self_next: self is the event at index hi, if that is held.  If the measure
 * has a span, times within the range, and self's, must not differ by more.
 */
extern uint64_t ra_window_distinct(const RaWindow *w, const RaWindowSpec *spec, int m,
								   uint32_t lo, uint32_t hi, const RaValue *self,
								   bool self_next);

/*
 * The value of measure m in the last event among [lo, hi) that counts for
 * measure "which"; or the first value that counts: true and *value, whose BYTES
 * point into w; false if there is no such event, or its value doesn't count.
 * O(distance).
 */
extern bool ra_window_last(const RaWindow *w, const RaWindowSpec *spec, int m, int which,
						   uint32_t lo, uint32_t hi, RaValue *value);
extern bool ra_window_first(const RaWindow *w, const RaWindowSpec *spec, int m,
							uint32_t lo, uint32_t hi, RaValue *value);

#endif							/* RA_CORE_WINDOW_H */
