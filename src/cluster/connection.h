/*
 * connection.h
 *	  This session's connections to nodes.
 *
 * A connection is taken with ra_conn_get() and given back with
 * ra_conn_release(); in between it is nobody else's.  When the
 * (sub)transaction that took it aborts, it is given back by itself, and a statement
 * that runs there is cancelled.
 *
 *	conn = ra_conn_get("node_b", RA_CONN_QUERY);
 *	ra_conn_send(conn, "SELECT ...", 0, NULL, false);
 *	while ((res = ra_conn_next(conn)) != NULL)
 *		...
 *	ra_conn_release(conn);
 *
 * To ask several nodes at once, take and send for each, then ra_conn_wait_all().  To
 * connect to them at once as well:
 *
 *	conns[i] = ra_conn_begin("node_b");			-- for each
 *	ra_conn_connect_all(conns, n, timeout);
 *	ra_conn_connected(conns[i], timeout);		-- for each: an ERROR if it is not
 */
#ifndef RA_CONNECTION_H
#define RA_CONNECTION_H

#include "postgres.h"

#include "access/xact.h"
#include "libpq-fe.h"

#include "cluster/prepared.h"

typedef struct RaConn RaConn;

/* how values arrive, see connection.c */
#define RA_CONN_SETTINGS \
	"-c datestyle=ISO,MDY -c intervalstyle=postgres -c extra_float_digits=3 -c bytea_output=hex"

typedef enum RaConnPurpose
{
	RA_CONN_QUERY,				/* statements that are transactions of their own */
	RA_CONN_BRANCH				/* a transaction that lasts; its owner ends it */
} RaConnPurpose;

/*
 * A connection to the node with the current user's rights there, from the
 * pool or a new one.  ERROR if there is no such node, user mapping, or right, or
 * the node does not answer.
 */
extern RaConn *ra_conn_get(const char *node, RaConnPurpose purpose);

/*
 * In three steps: an ERROR if there is no such node, user mapping, or right; waits until all are
 * connected or can't be, for so many milliseconds (-1: as long as connect_timeout of
 * the servers says), false: some are not; an ERROR if it could not connect, or (within
 * so many milliseconds more) not be prepared for use.
 */
extern RaConn *ra_conn_begin(const char *node);
extern bool ra_conn_connect_all(RaConn **conns, int n, int timeout);
extern void ra_conn_connected(RaConn *conn, int timeout);

/* Does it not connect because there is no answer at all? */
extern bool ra_conn_silent(RaConn *conn);

/* Nothing runs any more.  Cheap; ERROR if a statement has left a transaction open. */
extern void ra_conn_release(RaConn *conn);

/* Starts one statement, with parameters as text (NULL: SQL NULL).  Does not wait. */
extern void ra_conn_send(RaConn *conn, const char *sql, int nparams,
						 const char *const *params, bool row_by_row);

/*
 * The next result of the statement, NULL when it has ended.  Interruptible.
 * Belongs to the connection, until the next call for it.  ERROR if the statement
 * failed, once it has ended.
 */
extern PGresult *ra_conn_next(RaConn *conn);

/*
 * Waits until all statements have ended, whatever became of them.
 * ra_conn_result() is each one's last result then, never NULL, and not an ERROR.
 */
extern void ra_conn_wait_all(RaConn **conns, int n);

/* The same for so many milliseconds at most; false: some have not ended */
extern bool ra_conn_wait_all_for(RaConn **conns, int n, int timeout);
extern PGresult *ra_conn_result(RaConn *conn);

/* Has the statement not ended yet? */
extern bool ra_conn_busy(RaConn *conn);

/* Is a result one?  NULL is */
extern bool ra_conn_is_failure(const PGresult *res);

/* The failure that ra_conn_result() tells of, as an ERROR; else nothing */
extern void ra_conn_check(RaConn *conn);

/* The same without an ERROR: has it failed, and how?  (palloc'd; detail and hint may be NULL) */
typedef struct RaConnFailure
{
	char	   *message;
	char	   *detail;
	char	   *hint;
} RaConnFailure;

extern bool ra_conn_failed(RaConn *conn, RaConnFailure *failure);

/* ra_conn_check() of a result that was got otherwise */
extern void ra_conn_report(RaConn *conn, const PGresult *res);

extern const char *ra_conn_node(RaConn *conn);
extern PGconn *ra_conn_pg(RaConn *conn);
extern uint64 ra_conn_serial(RaConn *conn);	/* of its socket, see waiting.h */

/*
 * For the owner of a connection of kind BRANCH: it stays taken, whatever becomes
 * of (sub)transactions, until it is released or dropped.
 */
extern void ra_conn_adopt(RaConn *conn);

/* Closes the connection; never throws */
extern void ra_conn_drop(RaConn *conn);

/* For the owner: flags of what it has made sure of while the connection lasts; 0 at first */
extern uint32 *ra_conn_notes(RaConn *conn);

/* And the statements that it has had prepared there */
extern RaPreparedSet **ra_conn_prepared(RaConn *conn);

/* Has the node ended it? */
extern bool ra_conn_lost(RaConn *conn);

/*
 * Cancels what runs on the connections, within so many seconds in all; their results are still to come.
 * good[i]: the node has heard it, or needs not to.  Never throws.
 */
extern void ra_conn_cancel_all(RaConn **conns, bool *good, int n, int seconds);

/*
 * Gives the connections back, though statements run there: these are cancelled, within so
 * many seconds in all.  Never throws.
 */
extern void ra_conn_abandon_all(RaConn **conns, int n, int seconds);

/* Called by xact.c */
extern void ra_conn_xact(XactEvent event);
extern void ra_conn_subxact(SubXactEvent event);

#endif							/* RA_CONNECTION_H */
