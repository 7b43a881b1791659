/*
 * branch.h
 *	  The parts of this session's transaction that run on other nodes.
 */
#ifndef RA_BRANCH_H
#define RA_BRANCH_H

#include "postgres.h"

#include "access/xact.h"
#include "lib/ilist.h"

#include "cluster/connection.h"

typedef enum RaBranchState
{
	RA_BRANCH_ACTIVE,			/* a transaction is open there -> all others */
	RA_BRANCH_PREPARING,		/* PREPARE TRANSACTION was sent -> PREPARED, BROKEN, ENDED, ACTIVE (if early) */
	RA_BRANCH_PREPARED,			/* -> ENDED, BROKEN */
	RA_BRANCH_BROKEN,			/* its connection is gone: what became of it is not known here */
	RA_BRANCH_ENDED				/* nothing is left to do */
} RaBranchState;

typedef struct RaBranch
{
	dlist_node	list;			/* in ra_branches */
	char		node[NAMEDATALEN];
	Oid			userid;			/* on whose behalf */
	int			number;			/* from 1, in the order of opening */
	RaBranchState state;
	RaConn	   *conn;			/* NULL: released or dropped */
	PGconn	   *pg;				/* of conn */
	bool		opened;			/* BEGIN has gone there */
	bool		started;		/* so has a statement whose end was not looked at */
	bool		early;			/* PREPARE TRANSACTION went with that */

	/* what it did */
	bool		wrote;			/* has a transaction ID there, or must prepare anyway */
	bool		unsure;			/* else, whether it has: see ra_branch_ask() */
	char		xid[24];		/* as pg_current_xact_id() shows it, empty: none */
	bool		base_work;		/* something outside of all savepoints */

	/*
	 * Its savepoints.  Each stands for the levels of local nesting from..to, in
	 * which nothing was done there before it was made.
	 */
	struct RaSavepoint
	{
		int			from;
		int			to;
	}		   *savepoints;
	int			nsavepoints;
	int			max_savepoints;
	int			pending_rollback;	/* to the one of that index, or -1 */
	int			pending_release;	/* after that, or -1 */

	/* the message under way */
	bool		busy;
	bool		pipeline;
	bool		copying;		/* it wants a dialogue, which it won't have */
	int			position;		/* statement whose results come next */
	int			first;			/* what begins the user's statement: itself, or that it is prepared; or -1 */
	int			counted;		/* the user's statement, or -1 */
	bool		writer;			/* that is one which writes if it has affected any row */
	RaPrepared *prepared;		/* its entry, or NULL */
	int			asked;			/* for the transaction ID, or -1 */
	int64		affected;
	char		tag[64];		/* of the last statement that has ended */
	PGresult   *failure;		/* the first one */

	char		gid[200];		/* when it prepares */
	char	   *command;		/* made before the point of no return */
} RaBranch;

extern dlist_head ra_branches;

#define ra_foreach_branch(iter, branch) \
	dlist_foreach(iter, &ra_branches) \
		if (((branch) = dlist_container(RaBranch, list, (iter).cur)) != NULL)

/* The transaction's branch on the node, made if need be */
extern RaBranch *ra_branch_get(const char *node);

/*
 * Sends a statement to the branch, at the present level of nesting; last: with PREPARE TRANSACTION,
 * for which the branch has its name.  Waits for all that were started; the first that
 * fails is an ERROR.  And how many rows each has affected or returned.
 */
extern void ra_branch_start(RaBranch *branch, const char *sql, int nparams, const char *const *params, bool last);
extern void ra_branch_wait_started(void);
extern int64 ra_branch_finish(RaBranch *branch);

/*
 * Sends the last command of a transaction there, after what is pending.  False: the
 * connection is gone.  Never throws if nothing is pending.
 */
extern bool ra_branch_send(RaBranch *branch, const char *command);

/* Asks whether it has a transaction ID, and which; the answer comes while it is waited for */
extern void ra_branch_ask(RaBranch *branch);

/*
 * Waits until none of the branches is busy; false: until is over (milliseconds of
 * ra_branch_now(); 0: never).  Interruptible; the other one never throws, and, if heed,
 * gives up when the session is asked to end or to cancel what it does.
 */
extern bool ra_branch_wait_all(int64 until);
extern bool ra_branch_wait_all_quietly(int64 until, bool heed);

/* Milliseconds of a clock that is never set, and goes on while the machine is suspended */
extern int64 ra_branch_now(void);

/* The failure of the latest message, as an ERROR; else nothing */
extern void ra_branch_check(RaBranch *branch);

/* SQLSTATE of the failure, as a number; 0: there was none, or the connection is gone */
extern int	ra_branch_sqlstate(RaBranch *branch);

/* One line about the failure.  Never throws. */
extern const char *ra_branch_message(RaBranch *branch);

/* The connection is of no use any more */
extern void ra_branch_break(RaBranch *branch);

/* The branch's connection goes back to the pool, or is closed if it isn't idle */
extern void ra_branch_release(RaBranch *branch);

/* Ends statements that run in branches, within so many seconds in all.  Never throws. */
extern void ra_branch_interrupt(int seconds);

/* The innermost level of nesting has ended */
extern void ra_branch_subcommit(int level);
extern void ra_branch_subabort(int level);

/* Forget all branches */
extern void ra_branch_forget_all(void);

#endif							/* RA_BRANCH_H */
