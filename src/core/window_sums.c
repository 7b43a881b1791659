/*
 * window_sums.c
 *	  Columns of prefix sums change: events come, go, and move.
 *
 * Each function goes through the column once, upwards, and reads ahead of where
 * it writes.  It may write a part's base while it still reads what refers to
 * the old one, so it keeps that.
 */
#include <string.h>

#include "window.h"
#include "window_columns.h"

static void parts_move(SumPart *to, const SumPart *from, uint32_t start, uint32_t n);

/* A value comes into slot p, before others; end counts it already */
void
ra_window_sums_insert(Sums sums, uint32_t p, uint32_t end, int64_t i)
{
	uint64_t	sum = sums_get(sums, p) + (uint64_t) i;
	uint32_t	q = p + 1;

	if (sums.full)
		for (; q < end; q++)
		{
			uint64_t	before = sums.full[q];

			sums.full[q] = sum;
			sum = before + (uint64_t) i;
		}
	else
	{
		uint64_t	base = sums.parts[q / PART].base;

		for (; q < end; q++)
		{
			uint64_t	before;

			if (q % PART == 0)
				base = sums.parts[q / PART].base;
			before = base + (uint64_t) (int64_t) sums.parts[q / PART].more[q % PART];
			sums_set(sums, q, sum);
			sum = before + (uint64_t) i;
		}
	}
	sums_set(sums, end, sum);
}

/* The value in slot p goes; end still counts it */
void
ra_window_sums_delete(Sums sums, uint32_t p, uint32_t end)
{
	uint64_t	i = (uint64_t) int_value(sums, p);

	if (sums.full)
		for (uint32_t q = p + 1; q < end; q++)
			sums.full[q] = sums.full[q + 1] - i;
	else
	{
		uint64_t	base = sums.parts[(p + 1) / PART].base;

		for (uint32_t q = p + 1; q < end; q++)
		{
			const SumPart *part = sums.parts + (q + 1) / PART;

			if ((q + 1) % PART == 0)
				base = part->base;
			sums_set(sums, q, base + (uint64_t) (int64_t) part->more[(q + 1) % PART] - i);
		}
	}
}

/* Move what belongs to from's slots [start, end) to slot 0; may be in place */
void
ra_window_sums_move(Sums to, Sums from, uint32_t start, uint32_t end)
{
	uint32_t	n = end - start + 1;

	if (to.full && from.full)
		memmove(to.full, from.full + start, n * sizeof(uint64_t));
	else if (to.parts && from.parts)
		parts_move(to.parts, from.parts + start / PART, start % PART, n);
	else
		for (uint32_t i = 0; i < n; i++)
			sums_set(to, i, sums_get(from, start + i));
}

/* Move n sums, from "start" of from's first part on, to to's first part */
static void
parts_move(SumPart *to, const SumPart *from, uint32_t start, uint32_t n)
{
	uint32_t	rest = PART - start;	/* that many of a part are in one of from's ... */

	if (start == 0)
	{
		memmove(to, from, sums_size(n, false));
		return;
	}
	for (; n > 0; to++, from++)
	{
		uint32_t	here = n < rest ? n : rest;
		uint32_t	next = n - here < start ? n - here : start;	/* ... these in the next */
		int32_t		first = from->more[start];
		uint64_t	base = from->base + (uint64_t) (int64_t) first;
		int32_t		step = next > 0 ? (int32_t) (from[1].base - base) : 0;

		for (uint32_t i = 0; i < here; i++)
			to->more[i] = from->more[start + i] - first;
		for (uint32_t i = 0; i < next; i++)
			to->more[rest + i] = from[1].more[i] + step;
		to->base = base;
		n -= here + next;
	}
}
