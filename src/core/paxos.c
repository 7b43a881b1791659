/*
 * paxos.c
 *	  Single-decree Paxos.
 *
 * L. Lamport: Paxos Made Simple, 2001; J. Gray, L. Lamport: Consensus on
 * Transaction Commit, 2006, whose simple form this is: consensus on the
 * decision, not on each participant's vote.
 *
 * 1. A proposer takes a ballot and asks all acceptors to promise that they
 *	  ignore lower ones from now on.  Each tells what it has accepted so far.
 * 2. With the promises of a majority it proposes the value that was accepted
 *	  with the highest ballot, or its own wish if nothing was.
 * 3. An acceptor accepts unless it has promised more.  A value that a majority
 *	  has accepted with the same ballot is decided.
 *
 * Why that is final: any two majorities share an acceptor.  If a majority has
 * accepted v with ballot b, then of any majority that promises a higher ballot one
 * has accepted v before (after its promise it would have refused b); so
 * the next higher ballot proposes v, and by induction all others do.
 *
 * Two additions.  Ballot 0 skips the promises: nothing lower was ever accepted,
 * so there is nothing to ask for.  All that propose with it must propose the same,
 * which is why it can only mean commit.  And a ballot is promised once only, never to a second
 * proposer that happens to have the same one, nor to one that has forgotten
 * that it used it already.
 */
#include "paxos.h"

#include <string.h>

static const RaPaxosBallot no_ballot = {-1, 0};

int
ra_paxos_majority(int nacceptors)
{
	return nacceptors / 2 + 1;
}

int
ra_paxos_compare(RaPaxosBallot a, RaPaxosBallot b)
{
	if (a.counter != b.counter)
		return a.counter < b.counter ? -1 : 1;
	return (a.proposer > b.proposer) - (a.proposer < b.proposer);
}

/* ---- acceptor ---- */

void
ra_paxos_acceptor_init(RaPaxosAcceptor *state)
{
	memset(state, 0, sizeof(*state));
	state->promised = state->accepted = no_ballot;
}

static bool
proper_value(RaPaxosValue value)
{
	return value == RA_PAXOS_COMMIT || value == RA_PAXOS_ABORT;
}

bool
ra_paxos_acceptor(RaPaxosAcceptor *state, const RaPaxosRequest *request, RaPaxosAnswer *answer)
{
	bool		changed = false;

	answer->kind = request->kind;
	answer->ballot = request->ballot;
	answer->granted = false;
	switch (request->kind)
	{
		case RA_PAXOS_PROMISE:
			if (request->ballot.counter > 0 && state->decided == RA_PAXOS_NONE &&
				ra_paxos_compare(request->ballot, state->promised) > 0)
			{
				state->promised = request->ballot;
				answer->granted = changed = true;
			}
			break;
		case RA_PAXOS_ACCEPT:
			if (!proper_value(request->value) || request->ballot.counter < 0 ||
				(request->ballot.counter == 0 && request->value != RA_PAXOS_COMMIT))
				break;
			if (ra_paxos_compare(request->ballot, state->accepted) == 0 && request->value != state->value)
				break;
			if (state->decided == RA_PAXOS_NONE &&
				ra_paxos_compare(request->ballot, state->promised) >= 0)
			{
				changed = ra_paxos_compare(request->ballot, state->accepted) != 0;
				state->promised = state->accepted = request->ballot;
				state->value = request->value;
				answer->granted = true;
			}
			break;
		case RA_PAXOS_READ:
			answer->granted = true;
			break;
		case RA_PAXOS_DECIDED:
			if (proper_value(request->value) && state->decided == RA_PAXOS_NONE)
			{
				state->decided = request->value;
				changed = true;
			}
			answer->granted = state->decided == request->value;
			break;
	}
	answer->state = *state;
	return changed;
}

/* ---- proposer ---- */

void
ra_paxos_proposer_init(RaPaxosProposer *p, int nacceptors, RaPaxosValue wish)
{
	memset(p, 0, sizeof(*p));
	p->nacceptors = nacceptors;
	p->majority = ra_paxos_majority(nacceptors);
	p->wish = wish;
	p->phase = RA_PAXOS_IDLE;
	p->ballot = p->best = no_ballot;
	p->highest = -1;
}

static void
ask(RaPaxosProposer *p, RaPaxosPhase phase, RaPaxosKind kind, RaPaxosRequest *request)
{
	p->phase = phase;
	p->granted = p->refused = p->failed = 0;
	request->kind = kind;
	request->ballot = p->ballot;
	request->value = p->value;
}

void
ra_paxos_attempt(RaPaxosProposer *p, int64_t proposer, RaPaxosRequest *request)
{
	if (p->wish == RA_PAXOS_COMMIT && p->highest < 0)
	{
		p->ballot = (RaPaxosBallot) {0, 0};
		p->highest = 0;
		p->value = RA_PAXOS_COMMIT;
		ask(p, RA_PAXOS_ACCEPTING, RA_PAXOS_ACCEPT, request);
		return;
	}
	p->highest = p->highest < 1 ? 1 : p->highest + 1;
	p->ballot = (RaPaxosBallot) {p->highest, proposer};
	p->best = no_ballot;
	p->value = RA_PAXOS_NONE;
	ask(p, RA_PAXOS_PROMISING, RA_PAXOS_PROMISE, request);
}

void
ra_paxos_read(RaPaxosProposer *p, int64_t reader, RaPaxosRequest *request)
{
	p->ballot = (RaPaxosBallot) {-1, reader};
	p->value = RA_PAXOS_NONE;
	ask(p, RA_PAXOS_READING, RA_PAXOS_READ, request);
}

static int
count(uint32_t set)
{
	int			n = 0;

	for (; set != 0; set &= set - 1)
		n++;
	return n;
}

/* Can a majority still grant the request, and if not, why? */
static RaPaxosStep
prospects(const RaPaxosProposer *p)
{
	int			failed = count(p->failed);

	if (p->nacceptors - failed < p->majority)
		return RA_PAXOS_NO_MAJORITY;
	if (p->nacceptors - failed - count(p->refused) < p->majority)
		return RA_PAXOS_AGAIN;
	return RA_PAXOS_WAIT;
}

static RaPaxosStep
decided(RaPaxosProposer *p, RaPaxosValue value)
{
	p->phase = RA_PAXOS_OVER;
	p->value = value;
	return RA_PAXOS_DONE;
}

/*
 * What a majority tells, each at its own time.  One ballot that a majority of all has accepted
 * is the decision.  A majority that has accepted nothing was asked
 * after the read began, so nothing had been decided by then.  Anything
 * between may be decided or not: who has to know makes an attempt.
 */
static RaPaxosStep
learn(RaPaxosProposer *p)
{
	int			nothing = 0;

	for (int i = 0; i < p->nacceptors; i++)
	{
		const RaPaxosAcceptor *state = &p->states[i];
		int			same = 0;

		if (!(p->granted & 1u << i))
			continue;
		if (state->accepted.counter < 0)
		{
			nothing++;
			continue;
		}
		for (int j = 0; j < p->nacceptors; j++)
			if ((p->granted & 1u << j) &&
				ra_paxos_compare(p->states[j].accepted, state->accepted) == 0)
				same++;
		if (same >= p->majority)
			return decided(p, state->value);
	}
	if (nothing >= p->majority)
		return decided(p, RA_PAXOS_NONE);
	if (count(p->granted | p->failed) == p->nacceptors && count(p->failed) <= p->nacceptors - p->majority)
		return RA_PAXOS_AGAIN;
	return prospects(p);
}

RaPaxosStep
ra_paxos_answer(RaPaxosProposer *p, int acceptor, const RaPaxosAnswer *answer, RaPaxosRequest *request)
{
	static const RaPaxosKind kinds[] = {
		[RA_PAXOS_IDLE] = RA_PAXOS_DECIDED,
		[RA_PAXOS_PROMISING] = RA_PAXOS_PROMISE,
		[RA_PAXOS_ACCEPTING] = RA_PAXOS_ACCEPT,
		[RA_PAXOS_READING] = RA_PAXOS_READ,
		[RA_PAXOS_OVER] = RA_PAXOS_DECIDED
	};
	const RaPaxosAcceptor *state = &answer->state;
	uint32_t	bit = 1u << acceptor;

	if (p->phase == RA_PAXOS_OVER)
		return RA_PAXOS_DONE;
	if (state->decided != RA_PAXOS_NONE)
		return decided(p, state->decided);
	if (state->promised.counter > p->highest)
		p->highest = state->promised.counter;

	/* late, or twice */
	if (p->phase == RA_PAXOS_IDLE || answer->kind != kinds[p->phase] ||
		ra_paxos_compare(answer->ballot, p->ballot) != 0 || ((p->granted | p->refused) & bit))
		return RA_PAXOS_WAIT;

	p->failed &= ~bit;
	if (!answer->granted)
	{
		p->refused |= bit;
		return prospects(p);
	}
	p->granted |= bit;
	p->states[acceptor] = *state;

	switch (p->phase)
	{
		case RA_PAXOS_PROMISING:
			if (ra_paxos_compare(state->accepted, p->best) > 0)
			{
				p->best = state->accepted;
				p->value = state->value;
			}
			if (count(p->granted) < p->majority)
				break;
			if (p->value == RA_PAXOS_NONE)
				p->value = p->wish;
			if (p->value == RA_PAXOS_NONE)
				return decided(p, RA_PAXOS_NONE);
			ask(p, RA_PAXOS_ACCEPTING, RA_PAXOS_ACCEPT, request);
			return RA_PAXOS_SEND;
		case RA_PAXOS_ACCEPTING:
			if (count(p->granted) >= p->majority)
				return decided(p, p->value);
			break;
		case RA_PAXOS_READING:
			return learn(p);
		default:
			break;
	}
	return prospects(p);
}

RaPaxosStep
ra_paxos_failed(RaPaxosProposer *p, int acceptor)
{
	uint32_t	bit = 1u << acceptor;

	if (p->phase == RA_PAXOS_OVER)
		return RA_PAXOS_DONE;
	if (!((p->granted | p->refused) & bit))
		p->failed |= bit;
	return p->phase == RA_PAXOS_READING ? learn(p) : prospects(p);
}
