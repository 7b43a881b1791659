/*
 * register.h
 *	  Where the outcome of a global transaction is decided.
 *
 * A register holds one decision per global transaction, and the first one
 * that is written stands.  Only the coordinator ever proposes commit, and only
 * when every branch has prepared; anybody may propose abort, at any time.  So
 * who does not know the outcome proposes abort, and does what then stands there.
 *
 * Proposing is idempotent: after an error (the register could not be reached, the answer
 * was lost) the outcome is unknown, and the same proposal is made again.
 */
#ifndef RA_REGISTER_H
#define RA_REGISTER_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"

typedef enum RaRegisterKind
{
	RA_REGISTER_LOCAL,			/* a row in the coordinator's database */
	RA_REGISTER_ZOOKEEPER,		/* an entry that is created once */
	RA_REGISTER_PAXOS			/* a majority of the nodes */
} RaRegisterKind;

typedef enum RaDecision
{
	RA_DECISION_UNKNOWN,		/* the register can't be asked now */
	RA_DECISION_NONE,			/* nothing has been written (only from read) */
	RA_DECISION_COMMIT,
	RA_DECISION_ABORT
} RaDecision;

typedef struct RaRegister
{
	RaRegisterKind kind;
	const char *name;			/* as in risk_alert.commit_register and in gids */

	/*
	 * The coordinator's own transaction may have writes, whose commit is the
	 * decision: propose() writes a row in it.  Otherwise they are refused.
	 */
	bool		with_caller;

	/*
	 * Is it certain, before anything is prepared, that nothing can be decided: what is missing
	 * (palloc'd), or NULL.  Asks nobody.
	 */
	char	   *(*missing) (void);

	/*
	 * Propose, and return what stands.  Interruptible, also while interrupts are held
	 * (ra_register_given_up()); never an ERROR for reasons of the register, but
	 * RA_DECISION_UNKNOWN and a reason (palloc'd).  gid names the transaction; timeout in
	 * milliseconds.
	 */
	RaDecision	(*propose) (const char *gid, RaDecision decision, int timeout, char **reason);

	/* What stands, without writing */
	RaDecision	(*read) (const char *gid, int timeout, char **reason);

	/*
	 * All branches of a transaction that has committed are finished: the entry may go, after
	 * decision_retention.  Best effort: called when the transaction has
	 * committed, so it reads no catalog, hardly waits, and raises no error but for want of memory,
	 * which its caller must catch.  Told are only those that this session has
	 * asked since it began.
	 */
	void		(*forget) (const char *gid);

	/*
	 * The same for several, by whoever may have nothing to tell again for a long time: everybody is
	 * told, and waited for up to so many milliseconds.  Interruptible, in a transaction; NULL if
	 * forget() does all of that.
	 */
	void		(*forget_all) (List *gids, int timeout);
} RaRegister;

/*
 * Interrupts are held, because commit may have been written: who waits for a
 * register asks this whenever its latch is set, and gives up.
 */
static inline bool
ra_register_given_up(void)
{
	return InterruptHoldoffCount > 0 && (QueryCancelPending || ProcDiePending);
}

/*
 * A branch was prepared then, and its register knows nothing of the transaction: may its
 * decision to commit have been removed, so that nobody can tell?
 */
extern bool ra_may_be_forgotten(RaRegisterKind kind, TimestampTz prepared);

/* By its kind; ERROR with a hint if this server is not set up for it */
extern const RaRegister *ra_register(RaRegisterKind kind);

extern const RaRegister ra_register_zookeeper;
extern const RaRegister ra_register_paxos;

/* How gids name the kind; false: no kind has that letter */
extern const char *ra_register_name(RaRegisterKind kind);
extern char ra_register_letter(RaRegisterKind kind);
extern bool ra_register_by_letter(char letter, RaRegisterKind *kind);

extern const RaRegister ra_register_local;

#endif							/* RA_REGISTER_H */
