/*
 * test_paxos_schedules.c
 *	  Paxos under random schedules: messages that are lost, repeated and
 *	  overtaken, acceptors and proposers that crash at any step, several
 *	  proposers at once.
 *
 * An observer sees all that acceptors ever accept.  After each step, at
 * most one value may have been accepted by a majority with the same ballot, and
 * what a proposer or reader has found must be that.  Then the faults cease, and all proposers must
 * come to an end.
 *
 * Each schedule follows from its number.  PAXOS_SCHEDULES: how many (default
 * 100000); PAXOS_FIRST: number of the first one.
 *
 * The same is done with mistakes built in, which must be found: a test that
 * finds nothing may be blind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/core/paxos.h"

#define PROPOSERS 4				/* 0 coordinates, the last one only reads */
#define READER (PROPOSERS - 1)
#define MESSAGES 128			/* on their way; more are lost */
#define BALLOTS 256				/* that the observer keeps apart */
#define STEPS 120				/* with faults */
#define CALM_STEPS 20000		/* without */

typedef enum Mistake
{
	NO_MISTAKE,
	NOT_DURABLE,				/* an acceptor answers first, and forgets by crashing */
	SMALL_MAJORITY,				/* one less */
	OWN_VALUE,					/* what was accepted before is not adopted */
	LOWEST_VALUE,				/* nor that of the highest ballot */
	NO_PROMISES,				/* a recoverer asks for none */
	PROMISED_TWICE,				/* to a proposer that has crashed between */
	ACCEPTS_LOWER				/* than it has promised */
} Mistake;

typedef struct Message
{
	int			proposer;
	int			life;			/* of the proposer: a new one does not know its requests */
	int			acceptor;
	bool		is_answer;
	RaPaxosRequest request;
	RaPaxosAnswer answer;
} Message;

typedef struct Proposer
{
	RaPaxosProposer p;
	bool		up;
	bool		done;
	int			life;
	int			wake;			/* step of the next attempt, -1: one is under way */
	int			patience;		/* step when it is given up */
	bool		chosen_before;	/* reader: something was decided when it began */
} Proposer;

typedef struct Chosen
{
	RaPaxosBallot ballot;
	RaPaxosValue value;
	uint32_t	by;				/* acceptors that have ever accepted it */
} Chosen;

typedef struct World
{
	uint64_t	random;
	Mistake		mistake;
	int			step;
	int64_t		readings;
	bool		calm;
	int			nacceptors;
	bool		may_commit;		/* all branches have prepared */
	bool		commit_proposed;

	RaPaxosAcceptor memory[RA_PAXOS_MAX];
	RaPaxosAcceptor disk[RA_PAXOS_MAX];
	Proposer	proposers[PROPOSERS];
	Message		messages[MESSAGES];
	int			nmessages;

	Chosen		ballots[BALLOTS];
	int			nballots;
	RaPaxosValue chosen;
	const char *violation;
} World;

static World world;

/* xorshift64* */
static uint32_t
draw(World *w, uint32_t n)
{
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return (uint32_t) ((w->random * UINT64_C(2685821657736338717)) >> 33) % n;
}

static void
violated(World *w, const char *what)
{
	if (w->violation == NULL)
		w->violation = what;
}

static void
observe(World *w, int acceptor)
{
	const RaPaxosAcceptor *state = &w->memory[acceptor];
	int			i;
	int			n = 0;

	if (state->accepted.counter < 0)
		return;
	if (state->value == RA_PAXOS_COMMIT && !w->commit_proposed)
		violated(w, "commit was accepted that nobody proposed");
	for (i = 0; i < w->nballots; i++)
		if (ra_paxos_compare(w->ballots[i].ballot, state->accepted) == 0 &&
			w->ballots[i].value == state->value)
			break;
	if (i == w->nballots)
	{
		if (i == BALLOTS)
			abort();
		w->ballots[w->nballots++] = (Chosen) {state->accepted, state->value, 0};
	}
	w->ballots[i].by |= 1u << acceptor;
	for (int j = 0; j < w->nacceptors; j++)
		n += w->ballots[i].by >> j & 1;
	if (n < w->nacceptors / 2 + 1)
		return;
	if (w->chosen != RA_PAXOS_NONE && w->chosen != state->value)
		violated(w, "two values were decided");
	w->chosen = state->value;
}

static void
post(World *w, const Message *message)
{
	if (!w->calm && draw(w, 100) < 15)
		return;
	if (w->nmessages == MESSAGES)
		w->messages[draw(w, MESSAGES)] = *message;
	else
		w->messages[w->nmessages++] = *message;
}

static void
send_all(World *w, int from, const RaPaxosRequest *request)
{
	for (int i = 0; i < w->nacceptors; i++)
		post(w, &(Message) {.proposer = from,.life = w->proposers[from].life,.acceptor = i,.request = *request});
}

static void
pause_proposer(World *w, Proposer *proposer)
{
	/* longer with each attempt, and never the same for two */
	int			most = 8 << (proposer->p.highest < 6 ? (int) proposer->p.highest + 1 : 7);

	proposer->wake = w->step + 1 + (int) draw(w, (uint32_t) most);
}

static void
take_step(World *w, int who, RaPaxosStep step, RaPaxosRequest *request)
{
	Proposer   *proposer = &w->proposers[who];

	switch (step)
	{
		case RA_PAXOS_WAIT:
			break;
		case RA_PAXOS_SEND:
			if (proposer->p.wish == RA_PAXOS_COMMIT)
				w->commit_proposed = true;
			send_all(w, who, request);
			break;
		case RA_PAXOS_AGAIN:
		case RA_PAXOS_NO_MAJORITY:
			pause_proposer(w, proposer);
			break;
		case RA_PAXOS_DONE:
			if (proposer->done)
				break;
			proposer->done = true;
			if (proposer->p.value == RA_PAXOS_NONE)
			{
				if (proposer->p.wish != RA_PAXOS_NONE)
					violated(w, "a proposer ended without a decision");
				if (proposer->chosen_before)
					violated(w, "a reader found nothing although it was decided");
			}
			else if (proposer->p.value != w->chosen)
				violated(w, "somebody believes in a decision that there is not");
			else if (draw(w, 2) == 0)
				send_all(w, who, &(RaPaxosRequest) {RA_PAXOS_DECIDED, {-1, 0}, proposer->p.value});
			break;
	}
}

static void
attempt(World *w, int who)
{
	Proposer   *proposer = &w->proposers[who];
	RaPaxosRequest request;

	proposer->wake = -1;
	proposer->patience = w->step + 20 + (int) draw(w, w->calm ? 400 : 100);
	if (proposer->p.wish == RA_PAXOS_NONE)
	{
		proposer->chosen_before = w->chosen != RA_PAXOS_NONE;
		if (draw(w, 2) == 0)
			ra_paxos_read(&proposer->p, ++w->readings, &request);
		else
			ra_paxos_attempt(&proposer->p, who, &request);
	}
	else
		ra_paxos_attempt(&proposer->p, who, &request);
	if (w->mistake == NO_PROMISES && request.kind == RA_PAXOS_PROMISE)
	{
		proposer->p.phase = RA_PAXOS_ACCEPTING;
		proposer->p.value = request.value = proposer->p.wish;
		request.kind = RA_PAXOS_ACCEPT;
	}
	if (request.kind == RA_PAXOS_ACCEPT && request.value == RA_PAXOS_COMMIT)
		w->commit_proposed = true;
	send_all(w, who, &request);
}

/* A life that knows nothing of the former ones */
static void
begin_life(World *w, int who)
{
	Proposer   *proposer = &w->proposers[who];
	RaPaxosValue wish = RA_PAXOS_ABORT;

	if (who == READER)
		wish = RA_PAXOS_NONE;
	else if (who == 0 && w->may_commit && draw(w, 10) < 8)
		wish = RA_PAXOS_COMMIT;
	ra_paxos_proposer_init(&proposer->p, w->nacceptors, wish);
	if (w->mistake == SMALL_MAJORITY)
		proposer->p.majority--;
	proposer->up = true;
	proposer->done = false;
	proposer->life++;
	proposer->wake = w->step + (int) draw(w, who == 0 ? 10 : 40);
}

static void
to_acceptor(World *w, const Message *message)
{
	RaPaxosAcceptor *state = &w->memory[message->acceptor];
	Message		reply = *message;
	RaPaxosBallot promised = state->promised;
	bool		changed;

	if (w->mistake == PROMISED_TWICE && message->request.kind == RA_PAXOS_PROMISE &&
		ra_paxos_compare(message->request.ballot, promised) == 0)
		state->promised.counter--;
	if (w->mistake == ACCEPTS_LOWER && message->request.kind == RA_PAXOS_ACCEPT)
		state->promised = (RaPaxosBallot) {-1, 0};
	changed = ra_paxos_acceptor(state, &message->request, &reply.answer);
	if (!changed && message->request.kind == RA_PAXOS_ACCEPT)
		state->promised = promised;
	if (changed && (w->mistake != NOT_DURABLE || draw(w, 2) == 0))
		w->disk[message->acceptor] = *state;
	observe(w, message->acceptor);
	reply.is_answer = true;
	post(w, &reply);
}

static void
to_proposer(World *w, Message *message)
{
	Proposer   *proposer = &w->proposers[message->proposer];
	RaPaxosProposer *p = &proposer->p;
	RaPaxosAcceptor *told = &message->answer.state;
	RaPaxosRequest request;
	bool		mistaken = message->answer.kind == RA_PAXOS_PROMISE && p->phase == RA_PAXOS_PROMISING;

	/* an answer to another life looks like any that is late, for all but the connection */
	if (!proposer->up || (message->life != proposer->life && draw(w, 2) == 0))
		return;
	if (mistaken && w->mistake == OWN_VALUE)
		told->accepted.counter = -1;
	if (mistaken && w->mistake == LOWEST_VALUE && told->accepted.counter >= 0 && p->best.counter >= 0)
	{
		if (ra_paxos_compare(told->accepted, p->best) > 0)
			told->accepted.counter = -1;
		else
			p->best.counter = -1;
	}
	take_step(w, message->proposer,
			  ra_paxos_answer(p, message->acceptor, &message->answer, &request), &request);
}

static void
deliver(World *w)
{
	int			i;
	Message		message;

	if (w->nmessages == 0)
		return;
	i = (int) draw(w, (uint32_t) w->nmessages);
	message = w->messages[i];
	if (w->calm || draw(w, 100) >= 10)	/* else it comes once more */
		w->messages[i] = w->messages[--w->nmessages];
	if (message.is_answer)
		to_proposer(w, &message);
	else
		to_acceptor(w, &message);
}

static void
one_step(World *w)
{
	uint32_t	what = draw(w, 100);

	/* what only shows when a proposer starts anew again and again */
	uint32_t	restarts = w->mistake == PROMISED_TWICE ? 3 : 1;

	w->step++;
	for (int i = 0; i < PROPOSERS; i++)
	{
		Proposer   *proposer = &w->proposers[i];

		if (!proposer->up || proposer->done)
			continue;
		if (proposer->wake < 0 && w->step > proposer->patience)
		{
			/* the connections that have not answered by now count as lost */
			int			acceptor = (int) draw(w, (uint32_t) w->nacceptors);
			RaPaxosStep step = ra_paxos_failed(&proposer->p, acceptor);

			if (step == RA_PAXOS_DONE)
				take_step(w, i, step, NULL);
			else
				pause_proposer(w, proposer);
		}
		else if (proposer->wake >= 0 && w->step >= proposer->wake)
			attempt(w, i);
	}
	if (!w->calm && what < 2)
	{
		int			i = (int) draw(w, (uint32_t) w->nacceptors);

		w->memory[i] = w->disk[i];
	}
	else if (!w->calm && what < 2 + 3 * restarts)
		w->proposers[draw(w, PROPOSERS)].up = false;
	else if (!w->calm && what < 2 + 8 * restarts)
	{
		int			i = (int) draw(w, PROPOSERS);

		if (!w->proposers[i].up || w->proposers[i].done)
			begin_life(w, i);
	}
	else
		deliver(w);
}

/* What is violated, or NULL */
static const char *
schedule(uint64_t number, Mistake mistake)
{
	World	   *w = &world;

	memset(w, 0, sizeof(*w));
	w->random = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
	w->mistake = mistake;
	for (int i = 0; i < 8; i++)
		draw(w, 2);
	w->nacceptors = draw(w, 4) == 0 ? 5 : 3;
	w->may_commit = draw(w, 10) != 0;
	for (int i = 0; i < w->nacceptors; i++)
	{
		ra_paxos_acceptor_init(&w->memory[i]);
		ra_paxos_acceptor_init(&w->disk[i]);
	}
	for (int i = 0; i < PROPOSERS; i++)
		begin_life(w, i);
	while (w->step < STEPS && w->violation == NULL)
		one_step(w);

	w->calm = true;
	for (int i = 0; i < PROPOSERS; i++)
		if (!w->proposers[i].up)
			begin_life(w, i);
	while (w->step < STEPS + CALM_STEPS && w->violation == NULL)
	{
		bool		all = true;

		for (int i = 0; i < PROPOSERS; i++)
			all &= w->proposers[i].done;
		if (all)
			break;
		one_step(w);
	}
	for (int i = 0; i < PROPOSERS; i++)
		if (!w->proposers[i].done)
			violated(w, "there is no end although the faults have ceased");
	if (w->violation == NULL && w->chosen == RA_PAXOS_NONE)
		violated(w, "nothing was decided");
	return w->violation;
}

static long
number_of(const char *variable, long otherwise)
{
	const char *text = getenv(variable);

	return text != NULL ? atol(text) : otherwise;
}

static void
no_schedule_breaks_it(void **state)
{
	long		first = number_of("PAXOS_FIRST", 0);
	long		n = number_of("PAXOS_SCHEDULES", 100000);
	long		steps = 0;
	int			most = 0;
	long		commits = 0;

	(void) state;
	for (long i = first; i < first + n; i++)
	{
		const char *violation = schedule((uint64_t) i, NO_MISTAKE);

		if (violation != NULL)
			fail_msg("schedule %ld, step %d: %s", i, world.step, violation);
		steps += world.step;
		commits += world.chosen == RA_PAXOS_COMMIT;
		if (world.step > most)
			most = world.step;
	}
	print_message("# %ld schedules, %ld steps (%d at most); %ld committed\n", n, steps, most, commits);

	/* else the schedules would test little */
	assert_in_range(commits, n / 5, n * 4 / 5);
}

static void
found(Mistake mistake, const char *name)
{
	for (long i = 0; i < 100000; i++)
	{
		const char *violation = schedule((uint64_t) i, mistake);

		if (violation != NULL)
		{
			print_message("# %s: schedule %ld: %s\n", name, i, violation);
			return;
		}
	}
	fail_msg("%s: not found", name);
}

static void
mistakes_are_found(void **state)
{
	(void) state;
	found(NOT_DURABLE, "acceptor that is not durable");
	found(SMALL_MAJORITY, "majority off by one");
	found(OWN_VALUE, "value not adopted");
	found(LOWEST_VALUE, "value of the lowest ballot adopted");
	found(NO_PROMISES, "recoverer without promises");
	found(PROMISED_TWICE, "ballot promised twice");
	found(ACCEPTS_LOWER, "promise not kept");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_schedule_breaks_it),
		cmocka_unit_test(mistakes_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
