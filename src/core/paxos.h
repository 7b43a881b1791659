/*
 * paxos.h
 *	  Single-decree Paxos: one value that a majority of acceptors agrees on,
 *	  for good.
 *
 * State machines only: requests and answers in, requests and answers out.  Who
 * calls them sends messages, keeps time, and makes an acceptor's state durable
 * before its answer leaves.  Messages may be lost, repeated and overtake each other.
 */
#ifndef RA_CORE_PAXOS_H
#define RA_CORE_PAXOS_H

#include <stdbool.h>
#include <stdint.h>

/* acceptors of one register */
#define RA_PAXOS_MAX 15

/*
 * A ballot is one attempt of one proposer.  Ordered by counter, then proposer.
 * Counter 0 is the coordinator's, and always proposes to commit.
 */
typedef struct RaPaxosBallot
{
	int64_t		counter;		/* -1: none */
	int64_t		proposer;
} RaPaxosBallot;

typedef enum RaPaxosValue
{
	RA_PAXOS_NONE,
	RA_PAXOS_COMMIT,
	RA_PAXOS_ABORT
} RaPaxosValue;

/* What an acceptor must never forget */
typedef struct RaPaxosAcceptor
{
	RaPaxosBallot promised;		/* nothing below is accepted any more */
	RaPaxosBallot accepted;		/* the last one accepted, */
	RaPaxosValue value;			/* and what it proposed */
	RaPaxosValue decided;		/* what it was told to be the outcome */
} RaPaxosAcceptor;

typedef enum RaPaxosKind
{
	RA_PAXOS_PROMISE,			/* promise to ignore lower ballots */
	RA_PAXOS_ACCEPT,			/* accept this value */
	RA_PAXOS_READ,				/* tell the state */
	RA_PAXOS_DECIDED			/* this is the outcome */
} RaPaxosKind;

typedef struct RaPaxosRequest
{
	RaPaxosKind kind;
	RaPaxosBallot ballot;
	RaPaxosValue value;
} RaPaxosRequest;

typedef struct RaPaxosAnswer
{
	RaPaxosKind kind;			/* of the request, */
	RaPaxosBallot ballot;		/* and its ballot */
	bool		granted;
	RaPaxosAcceptor state;		/* after the request */
} RaPaxosAnswer;

extern int	ra_paxos_majority(int nacceptors);
extern int	ra_paxos_compare(RaPaxosBallot a, RaPaxosBallot b);

/* ---- acceptor ---- */

/* That has heard nothing yet */
extern void ra_paxos_acceptor_init(RaPaxosAcceptor *state);

/*
 * Deals with a request.  True: the state has changed, and must be durable
 * before the answer is sent.
 */
extern bool ra_paxos_acceptor(RaPaxosAcceptor *state, const RaPaxosRequest *request,
							  RaPaxosAnswer *answer);

/* ---- proposer ---- */

typedef enum RaPaxosPhase
{
	RA_PAXOS_IDLE,
	RA_PAXOS_PROMISING,
	RA_PAXOS_ACCEPTING,
	RA_PAXOS_READING,
	RA_PAXOS_OVER				/* decided */
} RaPaxosPhase;

typedef enum RaPaxosStep
{
	RA_PAXOS_WAIT,				/* for more answers */
	RA_PAXOS_SEND,				/* the request, to all acceptors */
	RA_PAXOS_DONE,				/* proposer's outcome is decided; a read may find nothing */
	RA_PAXOS_AGAIN,				/* somebody else has a higher ballot: a new attempt, after a pause */
	RA_PAXOS_NO_MAJORITY		/* too few acceptors can be asked */
} RaPaxosStep;

typedef struct RaPaxosProposer
{
	int			nacceptors;
	int			majority;
	RaPaxosValue wish;			/* proposed if nothing else may have been accepted */

	RaPaxosPhase phase;
	RaPaxosBallot ballot;		/* of the attempt */
	RaPaxosValue value;			/* that it proposes; once over: the outcome */
	RaPaxosBallot best;			/* highest ballot that was accepted, of the promises */
	int64_t		highest;		/* counter seen */

	/* by acceptor, of the current request */
	uint32_t	granted;
	uint32_t	refused;
	uint32_t	failed;
	RaPaxosAcceptor states[RA_PAXOS_MAX];	/* of those that have answered */
} RaPaxosProposer;

/* wish: NONE proposes nothing of its own */
extern void ra_paxos_proposer_init(RaPaxosProposer *p, int nacceptors, RaPaxosValue wish);

/*
 * Begins an attempt, and says what to send to all acceptors.  The first one of
 * who wishes to commit has ballot 0 and needs no promises: only the
 * coordinator wishes that.  Without a wish, the attempt brings to its end what
 * somebody else has proposed, or finds that nothing is decided.
 * proposer: differs from whoever else may be proposing.
 */
extern void ra_paxos_attempt(RaPaxosProposer *p, int64_t proposer, RaPaxosRequest *request);

/*
 * Asks for what stands, without proposing.  reader: a number not used before, since an
 * answer to an earlier reading tells the past.
 */
extern void ra_paxos_read(RaPaxosProposer *p, int64_t reader, RaPaxosRequest *request);

/* An answer of that acceptor; answers to earlier requests may still come */
extern RaPaxosStep ra_paxos_answer(RaPaxosProposer *p, int acceptor, const RaPaxosAnswer *answer,
								   RaPaxosRequest *request);

/* It can't be asked, or won't answer the current request */
extern RaPaxosStep ra_paxos_failed(RaPaxosProposer *p, int acceptor);

#endif							/* RA_CORE_PAXOS_H */
