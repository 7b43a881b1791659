/*
 * commit.pml
 *	  A global transaction with the Paxos register: coordinator, two branches,
 *	  recoverers, three acceptors.
 *
 * Messages are sets that only grow: whatever was sent may arrive at any later
 * time, again and again, or never.  So loss, repetition and overtaking need no
 * steps of their own, nor do crashes: a process that crashes takes no further step, and
 * any process may stop at any time.  What survives a crash is what
 * stands here; a proposer that starts anew has another ballot.
 *
 * Ballot 0 is the coordinator's, which skips the promises and proposes commit.
 * The last ballot is its second attempt, which wishes commit, too.
 * The ones between are recoverers', who wish abort.
 *
 * Without -D, the protocol as it is.  FORGET adds the removal of entries.
 * The others are mistakes, each of which must be found:
 *	NO_PROMISES		a recoverer proposes abort without asking for promises
 *	OWN_VALUE		a recoverer does not adopt what was accepted
 *	ACCEPTS_LOWER	an acceptor does not keep its promise
 *	SMALL_MAJORITY	one acceptor is taken for a majority
 *	EARLY_COMMIT	the coordinator does not wait for all branches
 *	EARLY_FORGET	with FORGET: entries are removed while the coordinator's commit
 *					may still be under way
 */
#ifndef BALLOTS
#define BALLOTS 4				/* 0, recoverers, the coordinator again */
#endif
#define ACCEPTORS 3
#define BRANCHES 2
#define NONE 15					/* no ballot */

#define C 1						/* commit */
#define A 2						/* abort */

/* branches, each durable */
#define WORKING 0
#define PREPARED 1
#define ABORTED 2				/* by itself, before it had prepared */
#define COMMITTED 3
#define ROLLED_BACK 4
byte branch[BRANCHES];

bool prepare_sent;
bool vote[BRANCHES];			/* message: prepared */

/* acceptors, durable */
byte promised[ACCEPTORS];		/* NONE: nothing; else the ballot */
byte accepted[ACCEPTORS];
byte value[ACCEPTORS];

/* messages */
bool promise_sent[BALLOTS];
bool promise_granted[ACCEPTORS * BALLOTS];
byte promise_accepted[ACCEPTORS * BALLOTS];	/* what the acceptor had accepted by then, */
byte promise_value[ACCEPTORS * BALLOTS];	/* and its value */
byte accept_sent[BALLOTS];					/* its value, or 0 */
bool accept_granted[ACCEPTORS * BALLOTS];
bool outcome_sent[3];						/* [C], [A]: to the branches */

bool told_committed;			/* the client was */
bool all_voted;					/* for the check: both had prepared */
bool over;						/* FORGET: the coordinator's time is over, its messages are gone */
bool forgot[ACCEPTORS];

#define AT(a, b) ((a) * BALLOTS + (b))

#ifdef SMALL_MAJORITY
#define MAJORITY(m, b) (m[AT(0, b)] || m[AT(1, b)] || m[AT(2, b)])
#else
#define MAJORITY(m, b) ((m[AT(0, b)] && m[AT(1, b)]) || (m[AT(0, b)] && m[AT(2, b)]) || (m[AT(1, b)] && m[AT(2, b)]))
#endif

#define ABOVE(x, y) ((x) != NONE && ((y) == NONE || (x) > (y)))

#define FINISHED(i) (branch[i] != WORKING && branch[i] != PREPARED)

inline check()
{
	/* no branch commits while another one does not */
	assert(!((branch[0] == COMMITTED || branch[1] == COMMITTED) &&
			 (branch[0] == ABORTED || branch[0] == ROLLED_BACK || branch[1] == ABORTED || branch[1] == ROLLED_BACK)));
	/* nor is the client told so */
	assert(!(told_committed &&
			 (branch[0] == ABORTED || branch[0] == ROLLED_BACK || branch[1] == ABORTED || branch[1] == ROLLED_BACK)));
#ifndef FORGET
	/* one outcome, whoever found it; commit only if all had prepared */
	assert(!(outcome_sent[C] && outcome_sent[A]));
	assert(!outcome_sent[C] || all_voted);
#endif
}

proctype Branch(byte i)
{
	do
	:: d_step { prepare_sent && branch[i] == WORKING -> branch[i] = PREPARED; vote[i] = true;
			all_voted = (branch[0] == PREPARED && branch[1] == PREPARED) || all_voted }
	:: d_step { branch[i] == WORKING -> branch[i] = ABORTED; check() }
	:: d_step { branch[i] == PREPARED && outcome_sent[C] -> branch[i] = COMMITTED; check() }
	:: d_step { branch[i] == PREPARED && outcome_sent[A] -> branch[i] = ROLLED_BACK; check() }
	od
}

/* The coordinator's first attempt; it may propose at most until it is over */
proctype Coordinator()
{
	do
	:: d_step { !prepare_sent -> prepare_sent = true }
#ifdef EARLY_COMMIT
	:: d_step { !over && (vote[0] || vote[1]) && accept_sent[0] == 0 -> accept_sent[0] = C }
#else
	:: d_step { !over && vote[0] && vote[1] && accept_sent[0] == 0 -> accept_sent[0] = C }
#endif
	:: d_step { MAJORITY(accept_granted, 0) && !told_committed ->
			told_committed = true; outcome_sent[C] = true; check() }
	od
}

/* A recoverer, or the coordinator's second attempt */
proctype Proposer(byte b; byte wish)
{
	byte		q, r, t;		/* q, r: a majority */

	do
#ifdef NO_PROMISES
	:: d_step { accept_sent[b] == 0 && wish == A -> accept_sent[b] = A }
#endif
	:: d_step { !promise_sent[b] && (wish == A || (!over && vote[0] && vote[1])) -> promise_sent[b] = true }
	:: atomic {
			accept_sent[b] == 0 && promise_sent[b] && (wish == A || !over) && MAJORITY(promise_granted, b) ->
			if
			:: promise_granted[AT(0, b)] && promise_granted[AT(1, b)] -> q = 0; r = 1
			:: promise_granted[AT(0, b)] && promise_granted[AT(2, b)] -> q = 0; r = 2
			:: promise_granted[AT(1, b)] && promise_granted[AT(2, b)] -> q = 1; r = 2
#ifdef SMALL_MAJORITY
			:: promise_granted[AT(0, b)] -> q = 0; r = 0
			:: promise_granted[AT(1, b)] -> q = 1; r = 1
			:: promise_granted[AT(2, b)] -> q = 2; r = 2
#endif
			fi;
			d_step {
				if
				:: ABOVE(promise_accepted[AT(r, b)], promise_accepted[AT(q, b)]) -> t = r
				:: else -> t = q
				fi;
#ifdef OWN_VALUE
				accept_sent[b] = wish;
#else
				if
				:: promise_accepted[AT(t, b)] == NONE -> accept_sent[b] = wish
				:: else -> accept_sent[b] = promise_value[AT(t, b)]
				fi;
#endif
				q = 0; r = 0; t = 0
			}
		}
	:: d_step { accept_sent[b] != 0 && MAJORITY(accept_granted, b) && !outcome_sent[accept_sent[b]] ->
			outcome_sent[accept_sent[b]] = true; check() }
	:: d_step { wish == C && accept_sent[b] == C && MAJORITY(accept_granted, b) && !told_committed ->
			told_committed = true; check() }
	od
}

/* GONE(b): a request of that ballot can no longer arrive */
#ifdef FORGET
#define GONE(b) (over && (b == 0 || b == BALLOTS - 1))
#else
#define GONE(b) false
#endif

#define ON_PROMISE(b) \
	:: d_step { promise_sent[b] && !promise_granted[AT(a, b)] && !GONE(b) && ABOVE(b, promised[a]) -> \
			promised[a] = b; promise_granted[AT(a, b)] = true; \
			promise_accepted[AT(a, b)] = accepted[a]; promise_value[AT(a, b)] = value[a] }

#ifdef ACCEPTS_LOWER
#define ON_ACCEPT(b) \
	:: d_step { accept_sent[b] != 0 && !GONE(b) && !accept_granted[AT(a, b)] -> \
			promised[a] = b; accepted[a] = b; value[a] = accept_sent[b]; accept_granted[AT(a, b)] = true }
#else
#define ON_ACCEPT(b) \
	:: d_step { accept_sent[b] != 0 && !GONE(b) && accepted[a] != b && !ABOVE(promised[a], b) -> \
			promised[a] = b; accepted[a] = b; value[a] = accept_sent[b]; accept_granted[AT(a, b)] = true }
#endif

proctype Acceptor(byte a)
{
	do
	ON_ACCEPT(0)
	ON_PROMISE(1)
	ON_ACCEPT(1)
	ON_PROMISE(2)
	ON_ACCEPT(2)
#if BALLOTS > 3
	ON_PROMISE(3)
	ON_ACCEPT(3)
#endif
#ifdef FORGET
#ifdef EARLY_FORGET
	:: d_step { !forgot[a] && FINISHED(0) && FINISHED(1) ->
#else
	:: d_step { !forgot[a] && FINISHED(0) && FINISHED(1) && over ->
#endif
			forgot[a] = true; promised[a] = NONE; accepted[a] = NONE; value[a] = 0 }
#endif
	od
}

init
{
	byte		i;

	atomic {
		for (i : 0 .. ACCEPTORS - 1) {
			promised[i] = NONE;
			accepted[i] = NONE
		}
		run Branch(0);
		run Branch(1);
		run Coordinator();
		run Acceptor(0);
		run Acceptor(1);
		run Acceptor(2);
		run Proposer(1, A);
#if BALLOTS > 3
		run Proposer(2, A);
		run Proposer(3, C);
#else
		run Proposer(2, C);
#endif
		i = 0
	}
#ifdef FORGET
	over = true
#endif
}
