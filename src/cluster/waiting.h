/*
 * waiting.h
 *	  Waiting for sockets of connections and for the latch, over and over.
 *
 * A WaitEventSet costs several system calls to make, and a session of global transactions
 * waits several times in each for the same few connections.  So the sets are kept.
 */
#ifndef RA_WAITING_H
#define RA_WAITING_H

#include "postgres.h"

typedef struct RaSocket
{
	pgsocket	fd;
	uint64		serial;			/* of its connection; 0: that may have another socket next time */
	uint32		events;			/* WL_SOCKET_READABLE, WL_SOCKET_WRITEABLE */
	bool		ready;			/* some of them have come */
} RaSocket;

/* A number for a new connection, which no other one of this process has had */
extern uint64 ra_socket_serial(void);

/*
 * Until something has happened on a socket, or the latch is set, or so many
 * milliseconds are over (-1: without limit).  True: the latch was set, and is reset.
 * Looks for no interrupts; ends the process when the postmaster is gone.
 */
extern bool ra_wait_for_sockets(RaSocket *sockets, int n, long timeout, uint32 wait_event);

#endif							/* RA_WAITING_H */
