/*
 * test_paxos.c
 *	  Tests of src/core/paxos.c, one situation at a time; what happens under
 *	  random schedules is test_paxos_schedules.c's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/core/paxos.h"

static RaPaxosAcceptor acceptors[RA_PAXOS_MAX];

static int
setup(void **state)
{
	(void) state;
	for (int i = 0; i < RA_PAXOS_MAX; i++)
		ra_paxos_acceptor_init(&acceptors[i]);
	return 0;
}

static RaPaxosAnswer
ask(int acceptor, RaPaxosRequest request)
{
	RaPaxosAnswer answer;

	ra_paxos_acceptor(&acceptors[acceptor], &request, &answer);
	return answer;
}

/* One request to those acceptors, and what the proposer makes of the answers */
static RaPaxosStep
round_trip(RaPaxosProposer *p, RaPaxosRequest *request, int first, int last)
{
	RaPaxosRequest sent = *request;
	RaPaxosStep step = RA_PAXOS_WAIT;

	for (int i = first; i <= last && step == RA_PAXOS_WAIT; i++)
	{
		RaPaxosAnswer answer = ask(i, sent);

		step = ra_paxos_answer(p, i, &answer, request);
	}
	return step;
}

static void
majorities(void **state)
{
	(void) state;
	assert_int_equal(ra_paxos_majority(1), 1);
	assert_int_equal(ra_paxos_majority(2), 2);
	assert_int_equal(ra_paxos_majority(3), 2);
	assert_int_equal(ra_paxos_majority(4), 3);
	assert_int_equal(ra_paxos_majority(5), 3);
}

static void
coordinator_needs_one_round(void **state)
{
	RaPaxosProposer p;
	RaPaxosRequest request;

	(void) state;
	ra_paxos_proposer_init(&p, 3, RA_PAXOS_COMMIT);
	ra_paxos_attempt(&p, 7, &request);
	assert_int_equal(request.kind, RA_PAXOS_ACCEPT);
	assert_int_equal(request.ballot.counter, 0);
	assert_int_equal(round_trip(&p, &request, 0, 0), RA_PAXOS_WAIT);
	assert_int_equal(round_trip(&p, &request, 1, 1), RA_PAXOS_DONE);
	assert_int_equal(p.value, RA_PAXOS_COMMIT);
}

static void
recoverer_adopts(void **state)
{
	RaPaxosProposer p;
	RaPaxosRequest request;

	(void) state;
	/* decided by 0 and 1 */
	ra_paxos_proposer_init(&p, 3, RA_PAXOS_COMMIT);
	ra_paxos_attempt(&p, 7, &request);
	assert_int_equal(round_trip(&p, &request, 0, 1), RA_PAXOS_DONE);

	/* found by 1 and 2 */
	ra_paxos_proposer_init(&p, 3, RA_PAXOS_ABORT);
	ra_paxos_attempt(&p, 8, &request);
	assert_int_equal(request.kind, RA_PAXOS_PROMISE);
	assert_int_equal(round_trip(&p, &request, 1, 2), RA_PAXOS_SEND);
	assert_int_equal(request.value, RA_PAXOS_COMMIT);
	assert_int_equal(round_trip(&p, &request, 1, 2), RA_PAXOS_DONE);
	assert_int_equal(p.value, RA_PAXOS_COMMIT);
}

static void
recoverer_is_first(void **state)
{
	RaPaxosProposer p;
	RaPaxosProposer late;
	RaPaxosRequest request;

	(void) state;
	ra_paxos_proposer_init(&p, 3, RA_PAXOS_ABORT);
	ra_paxos_attempt(&p, 8, &request);
	assert_int_equal(round_trip(&p, &request, 0, 2), RA_PAXOS_SEND);
	assert_int_equal(request.value, RA_PAXOS_ABORT);

	/* the coordinator comes between: it is refused, and its next attempt must win or adopt */
	ra_paxos_proposer_init(&late, 3, RA_PAXOS_COMMIT);
	{
		RaPaxosRequest commit;

		ra_paxos_attempt(&late, 7, &commit);
		assert_int_equal(round_trip(&late, &commit, 0, 2), RA_PAXOS_AGAIN);
		assert_int_equal(late.highest, 1);
	}
	assert_int_equal(round_trip(&p, &request, 0, 1), RA_PAXOS_DONE);
	assert_int_equal(p.value, RA_PAXOS_ABORT);

	ra_paxos_attempt(&late, 7, &request);
	assert_int_equal(request.kind, RA_PAXOS_PROMISE);
	assert_int_equal(request.ballot.counter, 2);
	assert_int_equal(round_trip(&late, &request, 1, 2), RA_PAXOS_SEND);
	assert_int_equal(request.value, RA_PAXOS_ABORT);
	assert_int_equal(round_trip(&late, &request, 1, 2), RA_PAXOS_DONE);
	assert_int_equal(late.value, RA_PAXOS_ABORT);
}

/* Ballot 0 is for commit, and nobody gets a promise of it */
static void
ballot_zero(void **state)
{
	(void) state;
	assert_false(ask(0, (RaPaxosRequest) {RA_PAXOS_ACCEPT, {0, 0}, RA_PAXOS_ABORT}).granted);
	assert_false(ask(0, (RaPaxosRequest) {RA_PAXOS_PROMISE, {0, 5}, RA_PAXOS_NONE}).granted);
	assert_false(ask(0, (RaPaxosRequest) {RA_PAXOS_ACCEPT, {-1, 0}, RA_PAXOS_COMMIT}).granted);
	assert_false(ask(0, (RaPaxosRequest) {RA_PAXOS_ACCEPT, {1, 0}, RA_PAXOS_NONE}).granted);
	assert_int_equal(acceptors[0].accepted.counter, -1);
	assert_int_equal(acceptors[0].promised.counter, -1);
}

static void
a_ballot_is_promised_once(void **state)
{
	RaPaxosRequest promise = {RA_PAXOS_PROMISE, {3, 9}, RA_PAXOS_NONE};

	(void) state;
	assert_true(ask(0, promise).granted);
	assert_false(ask(0, promise).granted);
	promise.ballot.proposer = 8;
	assert_false(ask(0, promise).granted);
	promise.ballot.proposer = 10;
	assert_true(ask(0, promise).granted);
}

/* What is repeated is granted again, and changes nothing */
static void
accepting_again(void **state)
{
	RaPaxosRequest request = {RA_PAXOS_ACCEPT, {0, 0}, RA_PAXOS_COMMIT};
	RaPaxosAnswer answer;

	(void) state;
	assert_true(ra_paxos_acceptor(&acceptors[0], &request, &answer));
	assert_false(ra_paxos_acceptor(&acceptors[0], &request, &answer));
	assert_true(answer.granted);
	request = (RaPaxosRequest) {RA_PAXOS_ACCEPT, {2, 1}, RA_PAXOS_ABORT};
	assert_true(ra_paxos_acceptor(&acceptors[0], &request, &answer));
	request.value = RA_PAXOS_COMMIT;
	assert_false(ra_paxos_acceptor(&acceptors[0], &request, &answer));
	assert_false(answer.granted);
	assert_int_equal(acceptors[0].value, RA_PAXOS_ABORT);
}

/* The same acceptor's answer counts once, one of an earlier attempt not at all */
static void
late_and_repeated_answers(void **state)
{
	RaPaxosProposer p;
	RaPaxosRequest first;
	RaPaxosRequest request;
	RaPaxosAnswer answer;
	RaPaxosAnswer late;

	(void) state;
	ra_paxos_proposer_init(&p, 3, RA_PAXOS_ABORT);
	ra_paxos_attempt(&p, 1, &first);
	answer = ask(0, first);
	late = ask(1, first);
	assert_int_equal(ra_paxos_answer(&p, 0, &answer, &request), RA_PAXOS_WAIT);
	assert_int_equal(ra_paxos_answer(&p, 0, &answer, &request), RA_PAXOS_WAIT);
	ra_paxos_attempt(&p, 1, &request);
	assert_int_equal(request.ballot.counter, 2);
	assert_int_equal(ra_paxos_answer(&p, 1, &late, &request), RA_PAXOS_WAIT);
	answer = ask(0, request);
	assert_int_equal(ra_paxos_answer(&p, 0, &answer, &request), RA_PAXOS_WAIT);
	assert_int_equal(ra_paxos_answer(&p, 1, &late, &request), RA_PAXOS_WAIT);
	assert_int_equal(p.phase, RA_PAXOS_PROMISING);
}

static void
acceptors_that_are_down(void **state)
{
	RaPaxosProposer p;
	RaPaxosRequest request;

	(void) state;
	ra_paxos_proposer_init(&p, 5, RA_PAXOS_COMMIT);
	ra_paxos_attempt(&p, 1, &request);
	assert_int_equal(ra_paxos_failed(&p, 0), RA_PAXOS_WAIT);
	assert_int_equal(ra_paxos_failed(&p, 0), RA_PAXOS_WAIT);
	assert_int_equal(ra_paxos_failed(&p, 1), RA_PAXOS_WAIT);
	assert_int_equal(round_trip(&p, &request, 2, 3), RA_PAXOS_WAIT);
	assert_int_equal(ra_paxos_failed(&p, 4), RA_PAXOS_NO_MAJORITY);
	/* then it answers after all */
	assert_int_equal(round_trip(&p, &request, 4, 4), RA_PAXOS_DONE);
}

static RaPaxosStep
read_of(RaPaxosProposer *p, int first, int last)
{
	RaPaxosRequest request;
	RaPaxosStep step = RA_PAXOS_WAIT;

	ra_paxos_proposer_init(p, 3, RA_PAXOS_NONE);
	ra_paxos_read(p, 1, &request);
	for (int i = 0; i < 3; i++)
		if (i < first || i > last)
			step = ra_paxos_failed(p, i);
	if (step == RA_PAXOS_WAIT)
		step = round_trip(p, &request, first, last);
	return step;
}

static void
reading(void **state)
{
	RaPaxosProposer p;

	(void) state;
	assert_int_equal(read_of(&p, 0, 0), RA_PAXOS_NO_MAJORITY);
	assert_int_equal(read_of(&p, 0, 1), RA_PAXOS_DONE);
	assert_int_equal(p.value, RA_PAXOS_NONE);

	/* one has accepted: nothing is decided, as those who answer together know */
	ask(0, (RaPaxosRequest) {RA_PAXOS_ACCEPT, {0, 0}, RA_PAXOS_COMMIT});
	assert_int_equal(read_of(&p, 0, 1), RA_PAXOS_AGAIN);
	assert_int_equal(read_of(&p, 1, 2), RA_PAXOS_DONE);
	assert_int_equal(p.value, RA_PAXOS_NONE);

	/* two, but with different ballots: that may have been decided or not */
	ask(1, (RaPaxosRequest) {RA_PAXOS_ACCEPT, {1, 4}, RA_PAXOS_COMMIT});
	assert_int_equal(read_of(&p, 0, 1), RA_PAXOS_AGAIN);
	ask(2, (RaPaxosRequest) {RA_PAXOS_ACCEPT, {1, 4}, RA_PAXOS_COMMIT});
	assert_int_equal(read_of(&p, 1, 2), RA_PAXOS_DONE);
	assert_int_equal(p.value, RA_PAXOS_COMMIT);

	/* one that was told the outcome is enough */
	assert_int_equal(read_of(&p, 0, 1), RA_PAXOS_AGAIN);
	ask(0, (RaPaxosRequest) {RA_PAXOS_DECIDED, {-1, 0}, RA_PAXOS_COMMIT});
	assert_int_equal(read_of(&p, 0, 1), RA_PAXOS_DONE);
	assert_int_equal(p.value, RA_PAXOS_COMMIT);
	assert_false(ask(0, (RaPaxosRequest) {RA_PAXOS_DECIDED, {-1, 0}, RA_PAXOS_ABORT}).granted);
	assert_false(ask(0, (RaPaxosRequest) {RA_PAXOS_PROMISE, {9, 0}, RA_PAXOS_NONE}).granted);
}

/* Who has no wish finishes what others have begun, and proposes nothing */
static void
reader_makes_an_attempt(void **state)
{
	RaPaxosProposer p;
	RaPaxosRequest request;

	(void) state;
	ra_paxos_proposer_init(&p, 3, RA_PAXOS_NONE);
	ra_paxos_attempt(&p, 5, &request);
	assert_int_equal(round_trip(&p, &request, 0, 1), RA_PAXOS_DONE);
	assert_int_equal(p.value, RA_PAXOS_NONE);
	assert_int_equal(acceptors[0].accepted.counter, -1);

	assert_true(ask(2, (RaPaxosRequest) {RA_PAXOS_ACCEPT, {0, 0}, RA_PAXOS_COMMIT}).granted);
	ra_paxos_proposer_init(&p, 3, RA_PAXOS_NONE);
	p.highest = 1;
	ra_paxos_attempt(&p, 6, &request);
	assert_int_equal(round_trip(&p, &request, 1, 2), RA_PAXOS_SEND);
	assert_int_equal(request.value, RA_PAXOS_COMMIT);
	assert_int_equal(round_trip(&p, &request, 1, 2), RA_PAXOS_DONE);
	assert_int_equal(p.value, RA_PAXOS_COMMIT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(majorities, setup),
		cmocka_unit_test_setup(coordinator_needs_one_round, setup),
		cmocka_unit_test_setup(recoverer_adopts, setup),
		cmocka_unit_test_setup(recoverer_is_first, setup),
		cmocka_unit_test_setup(ballot_zero, setup),
		cmocka_unit_test_setup(a_ballot_is_promised_once, setup),
		cmocka_unit_test_setup(accepting_again, setup),
		cmocka_unit_test_setup(late_and_repeated_answers, setup),
		cmocka_unit_test_setup(acceptors_that_are_down, setup),
		cmocka_unit_test_setup(reading, setup),
		cmocka_unit_test_setup(reader_makes_an_attempt, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
