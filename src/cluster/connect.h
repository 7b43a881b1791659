/*
 * connect.h
 *	  Making connections to nodes, any number side by side.
 *
 *	ra_connect_start(&c, server, mapping, trusted);		-- for each
 *	ra_connect_wait(all, n, timeout);
 *	ra_connect_finish(&c, node);						-- for each
 *
 * The caller closes c.pg, and gives its descriptor back (ReleaseExternalFD()), whenever it is
 * not NULL.
 */
#ifndef RA_CONNECT_H
#define RA_CONNECT_H

#include "postgres.h"

#include <limits.h>

#include "foreign/foreign.h"
#include "libpq-fe.h"
#include "portability/instr_time.h"

typedef struct RaConnecting
{
	PGconn	   *pg;				/* NULL: not begun */
	bool		trusted;		/* may do without a password */
	int			seconds;		/* how long it may take; 0: no limit */
	instr_time	start;
	PostgresPollingStatusType status;
	bool		ended;			/* well or not */
} RaConnecting;

/* Begins; ERROR if that can't be */
extern void ra_connect_start(RaConnecting *c, ForeignServer *server, UserMapping *mapping,
							 bool trusted);

/*
 * Until all have ended, for so many milliseconds at most (-1: each has its own limit
 * only); false: some have not.  Interruptible; how it ended is no ERROR.
 */
extern bool ra_connect_wait(RaConnecting **all, int n, int timeout);

/* ERROR unless there is a connection that may be used */
extern void ra_connect_finish(RaConnecting *c, const char *node);

/* What is left of so many seconds, in milliseconds */
static inline int
ra_ms_left(instr_time start, int seconds)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return (int) Max(Min(seconds * 1000.0 - INSTR_TIME_GET_MILLISEC(now), INT_MAX), 0);
}

#endif							/* RA_CONNECT_H */
