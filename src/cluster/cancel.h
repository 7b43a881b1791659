/*
 * cancel.h
 *	  Cancels what runs on another server, within a time limit.
 */
#ifndef RA_CANCEL_H
#define RA_CANCEL_H

#include "postgres.h"

#include "libpq-fe.h"

typedef struct RaCancel
{
	pid_t		pid;			/* of who does it; -1: it could not begin */
	int			pipe;			/* at its end when he is */
} RaCancel;

/* Begins to cancel what runs on the connection, for so many seconds at most.  Never throws. */
extern void ra_cancel_start(RaCancel *cancel, PGconn *conn, int seconds);

/*
 * Waits until that is over, for so many milliseconds at most; then nothing is under way any more.
 * Has the server got it?  Never throws.
 */
extern bool ra_cancel_end(RaCancel *cancel, int ms);

#endif							/* RA_CANCEL_H */
