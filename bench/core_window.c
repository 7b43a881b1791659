/*
 * core_window.c
 *	  What the server-free window and decimal functions cost, in nanoseconds.
 *
 * "make -C test/unit bench" builds and runs it.  A window holds n events, slides
 * by one event per add, and has a count, an integer sum with extrema, a hash
 * (a new value each time, the worst case) and a double.
 */
#define _POSIX_C_SOURCE 199309L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../src/core/decimal.h"
#include "../src/core/window.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

#define ROUNDS 20000

enum
{
	EVENTS, AMOUNT, MERCHANT, RISK, NMEASURES
};

static RaWindowSpec spec;
static volatile uint64_t sink;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec * 1e9 + (double) ts.tv_nsec;
}

static uint64_t
hash(uint64_t z)
{
	z *= UINT64_C(0x9E3779B97F4A7C15);
	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	return z ^ (z >> 31);
}

static RaWindowResult
add(RaWindow *w, int64_t time, uint64_t key, uint64_t merchant)
{
	RaValue		values[NMEASURES];
	RaEvent		event = {time, key, values};

	memset(values, 0, sizeof(values));
	for (int m = 0; m < NMEASURES; m++)
		values[m].state = RA_VALUE_FINITE;
	values[AMOUNT].v.i = (int64_t) (key % 1000000);
	values[MERCHANT].v.h = merchant;
	values[RISK].v.f = (double) (key % 1000) / 7;
	return ra_window_add(w, &spec, &event);
}

/* ns per aggregate (or count of distinct values) of all n events, best of 10 */
static double
time_aggregate(const RaWindow *w, int m, int want)
{
	int			rounds = m == RISK || m == MERCHANT ? 2000000 / (int) w->count : 100000;
	double		best = 1e18;

	for (int repeat = 0; repeat < 10; repeat++)
	{
		double		begin = now();
		double		took;

		for (int i = 0; i < rounds; i++)
		{
			RaAggregate result;

			if (m == MERCHANT)
				sink += ra_window_distinct(w, &spec, m, (uint32_t) i % 2, w->count, NULL, false);
			else
			{
				ra_window_aggregate(w, &spec, m, (uint32_t) i % 2, w->count, NULL, want, &result);
				sink += result.n;
			}
		}
		took = (now() - begin) / rounds;
		best = took < best ? took : best;
	}
	return best;
}

static void
bench_window(uint32_t n)
{
	uint32_t	capacity = n + n / 8 + 1;
	size_t		size = ra_window_size(&spec, 0, capacity, 0);
	RaWindow   *w = ra_window_init(malloc(size), &spec, 0, capacity, 0, -1);
	int64_t		time = 0;
	double		best[3];

	for (; time < n; time++)
		add(w, time * 2, (uint64_t) time, hash((uint64_t) time));
	for (int kind = 0; kind < 3; kind++)
	{
		best[kind] = 1e18;
		for (int repeat = 0; repeat < 10; repeat++)
		{
			double		begin = now();
			double		took;

			for (int i = 0; i < ROUNDS; i++)
			{
				bool		ok;

				if (kind < 2)
				{
					uint64_t	merchant = (uint64_t) time % (kind ? 8 : UINT64_MAX);

					ra_window_trim(w, &spec, (time - n) * 2);
					ok = add(w, time * 2, (uint64_t) time, hash(merchant)) == RA_WINDOW_OK;
					time++;
				}
				else
					/* ten events late, and gone again */
					ok = add(w, time * 2 - 19, 1, hash((uint64_t) i % 8)) == RA_WINDOW_OK &&
						ra_window_remove(w, &spec, time * 2 - 19, 1);
				if (!ok)
					abort();
			}
			took = (now() - begin) / ROUNDS;
			best[kind] = took < best[kind] ? took : best[kind];
		}
	}

	printf("%7u %8.1f %8.0f %8.0f %8.0f %8.1f %8.1f %8.0f %9.0f %8.0f %8.0f %8.0f\n", n,
		   (double) size / capacity, best[0], best[1], best[2],
		   time_aggregate(w, EVENTS, RA_WANT_COUNT), time_aggregate(w, AMOUNT, RA_WANT_SUM),
		   time_aggregate(w, AMOUNT, RA_WANT_MIN), time_aggregate(w, MERCHANT, 0),
		   time_aggregate(w, RISK, RA_WANT_SUM), time_aggregate(w, RISK, RA_WANT_SUMSQ),
		   time_aggregate(w, RISK, RA_WANT_MAX));
	free(w);
}

static void
bench_decimal(void)
{
	static const int64_t values[] = {12345, -999, 100, 7, 123456789, 5000000, 1999, 1234567890123};
	unsigned char stored[LENGTH(values)][RA_DECIMAL_MAX_BYTES];
	size_t		len[LENGTH(values)];
	unsigned char buf[RA_DECIMAL_MAX_BYTES];
	int			rounds = 5000000;
	double		decode;
	double		encode;
	double		average;
	double		begin = now();

	for (size_t i = 0; i < LENGTH(values); i++)
		len[i] = ra_decimal_from_int128(values[i], 2, 2, stored[i]);
	for (int i = 0; i < rounds; i++)
	{
		uint8_t		state;

		sink += (uint64_t) ra_decimal_to_int64(stored[i % 8], len[i % 8], 2, &state);
	}
	decode = (now() - begin) / rounds;
	begin = now();
	for (int i = 0; i < rounds; i++)
		sink += ra_decimal_from_int128(values[i % 8], 2, 2, buf);
	encode = (now() - begin) / rounds;
	begin = now();
	for (int i = 0; i < rounds; i++)
	{
		size_t		size;

		sink += ra_decimal_avg(values[i % 8], 2, 37 + (uint64_t) i % 100, buf, &size);
	}
	average = (now() - begin) / rounds;
	printf("decimal: to int64 %.1f, from int128 %.1f, average %.1f ns\n", decode, encode, average);
}

int
main(void)
{
	spec.nmeasures = NMEASURES;
	spec.measures[EVENTS].kind = RA_MEASURE_COUNT;
	spec.measures[AMOUNT].kind = RA_MEASURE_INT;
	spec.measures[AMOUNT].sum = true;
	spec.measures[AMOUNT].minmax = true;
	spec.measures[MERCHANT].kind = RA_MEASURE_HASH;
	spec.measures[RISK].kind = RA_MEASURE_FLOAT;
	spec.measures[RISK].minmax = true;
	for (int m = 0; m < NMEASURES; m++)
		spec.measures[m].always = m != EVENTS;

	printf("ns      bytes/   append:           late add\n"
		   " events  event    new val   8 vals +remove    count      sum      min  distinct     fsum   stddev     fmax\n");
	bench_window(10);
	bench_window(100);
	bench_window(1000);
	bench_window(10000);
	bench_window(60000);
	bench_window(100000);
	bench_decimal();
	return 0;
}
