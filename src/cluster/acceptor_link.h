/*
 * acceptor_link.h
 *	  Requests to all acceptors of the Paxos register at once.
 */
#ifndef RA_ACCEPTOR_LINK_H
#define RA_ACCEPTOR_LINK_H

#include "postgres.h"

#include "libpq-fe.h"

#define RA_LINK_PARAMS 6

/* What acceptors answer */
#define RA_LINK_RESULT "granted, promised, promised_by, accepted, accepted_by, value, decided"

/* What they are asked most of the time */
#define RA_LINK_ACCEPT "SELECT " RA_LINK_RESULT " FROM risk_alert._paxos_accept($1, $2, $3, $4, $5, $6)"

/* One statement, the same for all but for the acceptor's name, which is $2 */
typedef struct RaLinkRequest
{
	const char *sql;
	int			nparams;
	const char *params[RA_LINK_PARAMS];
} RaLinkRequest;

/*
 * The acceptors to ask from now on, with the rights of the owner of the extension.
 * In a transaction.
 */
extern void ra_links_begin(char **names, int n);

/*
 * Sends the request to so many acceptors: this node's own first, then the others in a ring; but before
 * those any that is connected and has answered everything.  Whoever has not answered the
 * request before does so first; that answer is dropped.
 */
extern void ra_links_send(const RaLinkRequest *request, int n);

/* And to the rest */
extern void ra_links_send_rest(void);

/*
 * Sends it to the acceptors from..to - 1 of the order, but only over connections that are there,
 * without waiting, and without need of a transaction; were these the last ones?  Raises no error but
 * for want of memory.
 */
extern bool ra_links_tell(const RaLinkRequest *request, int from, int to);

/*
 * Between requests: is nobody connecting, and has everybody answered everything?  Waits
 * so many milliseconds for answers, uninterruptibly.
 */
extern bool ra_links_quiet(int timeout);

/*
 * Waits for the next answer to the current request: whose it is, and *result, to be
 * cleared by the caller; or NULL and *reason (palloc'd) if that acceptor can't answer.
 * -1: nobody until then (nanoseconds of CLOCK_BOOTTIME), or nobody is left.
 * Interruptible, also while interrupts are held (ra_register_given_up()): -1.
 */
extern int	ra_links_wait(uint64 until, PGresult **result, char **reason);

#endif							/* RA_ACCEPTOR_LINK_H */
