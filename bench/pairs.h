/*
 * pairs.h
 *	  What the lock benchmarks share: threads that acquire and release for some seconds,
 *	  each pair timed, and a check that a lock excludes.
 *
 * The check: who has a lock adds 1 to a plain counter of it and marks it as their
 * own meanwhile.  Two at a time lose counts, and find the other's mark.  Fields are
 * volatile, not atomic, on purpose: the lock is what protects them.
 */
#ifndef PAIRS_H
#define PAIRS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64

typedef struct Guarded
{
	volatile long count;
	volatile int owner;			/* 0: nobody */
	char		padding[112];	/* not on one cache line with others */
} Guarded;

typedef struct Pairs
{
	int			number;			/* from 1 */
	Guarded    *guarded;
	double	   *ms;				/* of each pair */
	int			n;
	int			size;
	pthread_t	thread;
} Pairs;

static Pairs pairs_of[MAX_THREADS];
static Guarded guarded[MAX_THREADS];
static pthread_barrier_t ready;
static int64_t pairs_until;
static double pairs_seconds;

static inline int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void
broken(void)
{
	fprintf(stderr, "EXCLUSION IS BROKEN: two had the lock at a time\n");
	exit(3);
}

/* What the lock protects */
static inline void
critical_enter(Guarded *g, int me)
{
	if (g->owner != 0)
		broken();
	g->owner = me;
	g->count++;
}

static inline void
critical_leave(Guarded *g, int me)
{
	if (g->owner != me)
		broken();
	g->owner = 0;
}

static int
compare_double(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static inline void
pairs_note(Pairs *pairs, int64_t since)
{
	if (pairs->n == pairs->size)
	{
		pairs->size = pairs->size ? pairs->size * 2 : 4096;
		pairs->ms = realloc(pairs->ms, pairs->size * sizeof(double));
	}
	pairs->ms[pairs->n++] = (now_ns() - since) / 1e6;
}

/* Called by each thread when it is connected: all begin at once */
static inline void
pairs_begin(void)
{
	if (pthread_barrier_wait(&ready) == PTHREAD_BARRIER_SERIAL_THREAD)
		pairs_until = now_ns() + (int64_t) (pairs_seconds * 1e9);
	pthread_barrier_wait(&ready);
}

static inline bool
pairs_go_on(void)
{
	return now_ns() < pairs_until;
}

/*
 * Run body in n threads, all with one lock or each with its own, and print pairs per
 * second, p50 and p99 in ms
 */
static inline void
pairs_run(int n, bool one_lock, double seconds, void *(*body) (void *))
{
	int			total = 0;
	long		counted = 0;
	double	   *all;

	pairs_seconds = seconds;
	pthread_barrier_init(&ready, NULL, n);
	for (int i = 0; i < n; i++)
	{
		pairs_of[i].number = i + 1;
		pairs_of[i].guarded = &guarded[one_lock ? 0 : i];
		pthread_create(&pairs_of[i].thread, NULL, body, &pairs_of[i]);
	}
	for (int i = 0; i < n; i++)
	{
		pthread_join(pairs_of[i].thread, NULL);
		total += pairs_of[i].n;
	}
	/* not before all have ended */
	for (int i = 0; i < n; i++)
		counted += guarded[i].count;
	if (counted != total)
		broken();
	if (total == 0)
	{
		fprintf(stderr, "not one pair in %g s\n", seconds);
		exit(1);
	}
	all = malloc(total * sizeof(double));
	total = 0;
	for (int i = 0; i < n; i++)
	{
		if (pairs_of[i].n > 0)
			memcpy(all + total, pairs_of[i].ms, pairs_of[i].n * sizeof(double));
		total += pairs_of[i].n;
	}
	qsort(all, total, sizeof(double), compare_double);
	printf("%.1f %.3f %.3f\n", total / seconds, all[total / 2], all[(int) (total * 0.99)]);
}

#endif							/* PAIRS_H */
