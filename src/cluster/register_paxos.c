/*
 * register_paxos.c
 *	  The register that a majority of the nodes keeps.
 *
 * This is the proposer's side: src/core/paxos.c decides what to ask and what
 * the answers mean, acceptor_link.c carries them, acceptor.c answers.  Ballots
 * are told apart by a random number that is drawn for each attempt, since
 * several sessions of a node may propose at the same time.
 *
 * An attempt that somebody's higher ballot has ended is repeated after a random pause, which
 * grows; so is one that found too few acceptors.  The time that
 * the caller gives limits it all.  A decision may come to be even after that:
 * the caller does not know it then, and asks again.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "port.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "cluster/acceptor.h"
#include "cluster/acceptor_link.h"
#include "cluster/locktable.h"
#include "cluster/register.h"
#include "compat.h"
#include "guc.h"

/*
 * No proposal lasts longer.  paxos_admit() counts on it: a promise that was
 * given before an acceptor was lost is not used after that time.
 */
#define MAX_TIMEOUT_MS 60000

#define PAUSE_FIRST_MS 4		/* up to so long after the first attempt, */
#define PAUSE_MAX_MS 500		/* and at most */

/* transactions that are finished are told of when there are so many, or when that is so long ago */
#define FORGET_AT_ONCE 512
#define FORGET_AFTER_MS 1000
#define FORGET_AT_MOST 2048		/* whoever can't be told by then is not */
#define FORGET_WAIT_MS 100		/* for late answers, when the session ends */

#define READINGS 2				/* before a reader makes an attempt */

/*
 * As many acceptors are asked as make a majority: each more costs a flush.  If one of
 * them can't answer, or takes so many times as long as they usually do, so are the others.
 * (J. Dean and L. A. Barroso, "The tail at scale", 2013, call that a hedged request.)
 */
#define MORE_AFTER_TIMES 4
#define MORE_AFTER_MIN_MS 2
#define MORE_AFTER_MAX_MS 50

#define NS_PER_MS UINT64CONST(1000000)

typedef struct Attempt
{
	RaPaxosProposer p;
	RaPaxosRequest request;		/* the current one */
	char	  **names;
	char	   *identity;
	const char *gid;
	int			n;
	char	   *reasons[RA_PAXOS_MAX];	/* of those that could not answer */
	uint64		until;
	bool		everybody;		/* is asked, from now on; else as many as are needed */
} Attempt;

/* of ballots; no other process has the same seed */
static pg_prng_state numbers;
static bool seeded = false;

/* how long a majority has taken to answer, lately, in ms */
static double usual = MORE_AFTER_MAX_MS;

/* the set of acceptors that was asked last, for forget() */
static char *asked = NULL;

/* of those, what they are to forget: the text of an array that is not closed yet */
static StringInfoData forgotten = {0};
static int	nforgotten = 0;
static uint64 forgotten_at = 0; /* when they were told last */

/* what they are being told, of which the first ntold have been; no sql: nothing */
static RaLinkRequest telling = {0};
static int	ntold = 0;

static char *paxos_missing(void);
static RaDecision paxos_propose(const char *gid, RaDecision decision, int timeout, char **reason);
static RaDecision paxos_read(const char *gid, int timeout, char **reason);
static void paxos_forget(const char *gid);
static void paxos_forget_all(List *gids, int timeout);
static void note_forgotten(const char *gid);
static RaLinkRequest forget_request(void);
static void tell_next(void);
static void end_telling(void);
static void tell_forgotten(int timeout);
static void forget_rest(int code, Datum arg);
static void append_element(StringInfo array, const char *text);
static RaDecision run(const char *gid, RaPaxosValue wish, int timeout, char **reason);
static RaPaxosStep round_of(Attempt *a);
static void send_request(Attempt *a);
static bool parse_answer(const Attempt *a, PGresult *result, RaPaxosAnswer *answer);
static RaPaxosValue value_of(PGresult *result, int column);
static void pause_before(Attempt *a, int turn);
static char *why_not(const Attempt *a, RaPaxosStep step);

const RaRegister ra_register_paxos = {
	.kind = RA_REGISTER_PAXOS,
	.name = "paxos",
	.with_caller = false,
	.missing = paxos_missing,
	.propose = paxos_propose,
	.read = paxos_read,
	.forget = paxos_forget,
	.forget_all = paxos_forget_all,
};

static char *
paxos_missing(void)
{
	char	  **names;
	char	   *identity;
	char	   *reason = NULL;

	return ra_acceptors(&names, &identity, &reason) < 0 ? reason : NULL;
}

static RaDecision
paxos_propose(const char *gid, RaDecision decision, int timeout, char **reason)
{
	Assert(decision == RA_DECISION_COMMIT || decision == RA_DECISION_ABORT);
	return run(gid, decision == RA_DECISION_COMMIT ? RA_PAXOS_COMMIT : RA_PAXOS_ABORT, timeout, reason);
}

static RaDecision
paxos_read(const char *gid, int timeout, char **reason)
{
	return run(gid, RA_PAXOS_NONE, timeout, reason);
}

/*
 * Over whatever connections are there, without waiting for an answer.  What an
 * acceptor does not hear of is kept.  A session that commits much tells of several at a time, since
 * each message costs every acceptor a transaction.  That takes a while, so one acceptor is told after the other:
 * meanwhile the others make a majority.  The rest is told when the session ends.
 */
static void
paxos_forget(const char *gid)
{
	if (asked == NULL)
		return;
	note_forgotten(gid);
	if (telling.sql == NULL && nforgotten < FORGET_AT_ONCE &&
		ra_boottime() - forgotten_at < FORGET_AFTER_MS * NS_PER_MS)
		return;

	/* who is about to answer something can't be told now */
	if (ra_links_quiet(0))
		tell_next();
	else if (nforgotten >= FORGET_AT_MOST)
		tell_forgotten(0);
}

/* The next acceptor is told; with the last one, that is done */
static void
tell_next(void)
{
	if (telling.sql == NULL)
	{
		telling = forget_request();
		ntold = 0;
	}
	if (ra_links_tell(&telling, ntold, ntold + 1))
		end_telling();
	else
		ntold++;
}

static void
end_telling(void)
{
	pfree((char *) telling.params[2]);
	telling.sql = NULL;
}

/* Also those that this session had no need to ask: somebody else may have */
static void
paxos_forget_all(List *gids, int timeout)
{
	RaLinkRequest message;
	uint64		until = ra_boottime() + (uint64) timeout * NS_PER_MS;
	PGresult   *result;
	char	   *reason;
	ListCell   *lc;

	if (asked == NULL)
		return;
	foreach(lc, gids)
		note_forgotten(lfirst(lc));
	message = forget_request();
	ra_links_send(&message, RA_PAXOS_MAX);
	while (ra_links_wait(until, &result, &reason) >= 0)
		PQclear(result);
	pfree((char *) message.params[2]);
}

static void
note_forgotten(const char *gid)
{
	static bool registered = false;
	MemoryContext before;

	if (!registered)
	{
		/* comes before the links' own, which are registered already */
		on_proc_exit(forget_rest, (Datum) 0);
		registered = true;
	}
	before = MemoryContextSwitchTo(TopMemoryContext);
	if (forgotten.data == NULL)
		initStringInfo(&forgotten);
	append_element(&forgotten, gid);
	MemoryContextSwitchTo(before);
	nforgotten++;
}

/* All that is left, to all; waits so many milliseconds for their answers to what was before it */
static void
tell_forgotten(int timeout)
{
	if (telling.sql)
	{
		(void) ra_links_quiet(timeout);
		(void) ra_links_tell(&telling, ntold, RA_PAXOS_MAX);
		end_telling();
	}
	if (nforgotten > 0)
	{
		(void) ra_links_quiet(timeout);
		telling = forget_request();
		(void) ra_links_tell(&telling, 0, RA_PAXOS_MAX);
		end_telling();
	}
}

/* Of all that is forgotten up to now, once; its text is in TopMemoryContext */
static RaLinkRequest
forget_request(void)
{
	RaLinkRequest message = {"SELECT risk_alert._paxos_forget($1, $2, $3)", 3, {asked, NULL, NULL}};

	message.params[2] = MemoryContextStrdup(TopMemoryContext, psprintf("%s}", forgotten.data));
	resetStringInfo(&forgotten);
	nforgotten = 0;
	forgotten_at = ra_boottime();
	return message;
}

static void
forget_rest(int code, Datum arg)
{
	tell_forgotten(FORGET_WAIT_MS);
}

/* To the text of an array */
static void
append_element(StringInfo array, const char *text)
{
	appendStringInfoString(array, array->len == 0 ? "{\"" : ",\"");
	for (; *text; text++)
	{
		if (*text == '"' || *text == '\\')
			appendStringInfoChar(array, '\\');
		appendStringInfoChar(array, *text);
	}
	appendStringInfoChar(array, '"');
}

static RaDecision
run(const char *gid, RaPaxosValue wish, int timeout, char **reason)
{
	Attempt		a = {.gid = gid};
	RaPaxosStep step;
	int			turn;

	*reason = NULL;
	if (!seeded && !(seeded = pg_prng_strong_seed(&numbers)))
	{
		*reason = pstrdup("could not generate a random number");
		return RA_DECISION_UNKNOWN;
	}
	if (ra_node_name[0] == '\0')
	{
		*reason = pstrdup("risk_alert.node_name is not set");
		return RA_DECISION_UNKNOWN;
	}
	a.n = ra_acceptors(&a.names, &a.identity, reason);
	if (a.n < 0)
		return RA_DECISION_UNKNOWN;
	a.until = ra_boottime() + (uint64) Max(0, Min(timeout, MAX_TIMEOUT_MS)) * NS_PER_MS;
	if (asked == NULL || strcmp(asked, a.identity) != 0)
	{
		char	   *copy = MemoryContextStrdup(TopMemoryContext, a.identity);

		tell_forgotten(0);
		if (asked)
			pfree(asked);
		asked = copy;
	}
	ra_links_begin(a.names, a.n);
	ra_paxos_proposer_init(&a.p, a.n, wish);
	for (turn = 0;; turn++)
	{
		int64		number = (int64) pg_prng_uint64(&numbers);

		/* a proposal that does not come to its end is brought there */
		if (wish == RA_PAXOS_NONE && turn < READINGS)
			ra_paxos_read(&a.p, number, &a.request);
		else
			ra_paxos_attempt(&a.p, number, &a.request);
		step = round_of(&a);
		if (step == RA_PAXOS_DONE)
			break;
		if (ra_register_given_up() || ra_boottime() >= a.until)
		{
			*reason = ra_register_given_up() ? pstrdup("the session was asked to stop waiting for it") : why_not(&a, step);
			return RA_DECISION_UNKNOWN;
		}
		pause_before(&a, turn);
	}

	switch (a.p.value)
	{
		case RA_PAXOS_COMMIT:
			return RA_DECISION_COMMIT;
		case RA_PAXOS_ABORT:
			return RA_DECISION_ABORT;
		case RA_PAXOS_NONE:
			break;
	}
	return RA_DECISION_NONE;
}

/*
 * From the request at hand to whatever ends the attempt.  Answers that are still
 * missing when the time is over leave it as it stands (WAIT).
 */
static RaPaxosStep
round_of(Attempt *a)
{
	RaPaxosStep step;
	uint64		began;
	uint64		more_at;

	send_request(a);
	began = ra_boottime();
	more_at = began + (uint64) (Max(MORE_AFTER_MIN_MS, Min(MORE_AFTER_TIMES * usual, MORE_AFTER_MAX_MS)) * NS_PER_MS);
	for (;;)
	{
		PGresult   *result;
		RaPaxosAnswer answer;
		char	   *reason;
		int			i = ra_links_wait(a->everybody ? a->until : Min(more_at, a->until), &result, &reason);

		if (!a->everybody && (i < 0 || reason) && ra_boottime() < a->until && !ra_register_given_up())
		{
			ra_links_send_rest();
			a->everybody = true;
			if (i < 0)
				continue;
		}

		/*
		 * What is looked at too late does not count: acceptors that were admitted
		 * since trust in it.
		 */
		if (i < 0 || ra_boottime() >= a->until)
		{
			PQclear(result);
			return RA_PAXOS_WAIT;
		}
		if (result && !parse_answer(a, result, &answer))
			reason = pstrdup("it gives an answer of another form");
		a->reasons[i] = reason;
		PQclear(result);
		step = reason ? ra_paxos_failed(&a->p, i) : ra_paxos_answer(&a->p, i, &answer, &a->request);
		if (step == RA_PAXOS_SEND)
			send_request(a);
		else if (step != RA_PAXOS_WAIT)
		{
			if (step == RA_PAXOS_DONE)
				usual += ((double) (ra_boottime() - began) / NS_PER_MS - usual) / 8;
			return step;
		}
	}
}

static void
send_request(Attempt *a)
{
	RaLinkRequest message = {.nparams = 3,.params = {a->identity, NULL, a->gid}};
	char		ballot[32];
	char		proposer[32];

	snprintf(ballot, sizeof(ballot), INT64_FORMAT, a->request.ballot.counter);
	snprintf(proposer, sizeof(proposer), INT64_FORMAT, a->request.ballot.proposer);
	switch (a->request.kind)
	{
		case RA_PAXOS_PROMISE:
			message.sql = "SELECT " RA_LINK_RESULT " FROM risk_alert._paxos_promise($1, $2, $3, $4, $5)";
			message.nparams = 5;
			break;
		case RA_PAXOS_ACCEPT:
			message.sql = RA_LINK_ACCEPT;
			message.nparams = 6;
			message.params[5] = ra_paxos_value_name(a->request.value);
			break;
		case RA_PAXOS_READ:
			message.sql = "SELECT " RA_LINK_RESULT " FROM risk_alert._paxos_learn($1, $2, $3)";
			break;
		case RA_PAXOS_DECIDED:
			elog(ERROR, "a proposer does not send that");
	}
	if (message.nparams > 3)
	{
		/* they must last until all have been sent */
		message.params[3] = pstrdup(ballot);
		message.params[4] = pstrdup(proposer);
	}
	ra_links_send(&message, a->everybody ? a->n : a->p.majority);
}

static bool
parse_answer(const Attempt *a, PGresult *result, RaPaxosAnswer *answer)
{
	int			i;

	if (PQntuples(result) != 1 || PQnfields(result) != RA_ACCEPTOR_COLUMNS)
		return false;
	for (i = 0; i < RA_ACCEPTOR_VALUE; i++)
	{
		if (PQgetisnull(result, 0, i))
			return false;
	}
	/* links pair answers with requests */
	answer->kind = a->request.kind;
	answer->ballot = a->request.ballot;
	answer->granted = PQgetvalue(result, 0, RA_ACCEPTOR_GRANTED)[0] == 't';
	answer->state.promised.counter = strtoll(PQgetvalue(result, 0, RA_ACCEPTOR_PROMISED), NULL, 10);
	answer->state.promised.proposer = strtoll(PQgetvalue(result, 0, RA_ACCEPTOR_PROMISED_BY), NULL, 10);
	answer->state.accepted.counter = strtoll(PQgetvalue(result, 0, RA_ACCEPTOR_ACCEPTED), NULL, 10);
	answer->state.accepted.proposer = strtoll(PQgetvalue(result, 0, RA_ACCEPTOR_ACCEPTED_BY), NULL, 10);
	answer->state.value = value_of(result, RA_ACCEPTOR_VALUE);
	answer->state.decided = value_of(result, RA_ACCEPTOR_DECIDED);
	return true;
}

static RaPaxosValue
value_of(PGresult *result, int column)
{
	const char *text = PQgetisnull(result, 0, column) ? "" : PQgetvalue(result, 0, column);

	if (strcmp(text, "commit") == 0)
		return RA_PAXOS_COMMIT;
	return strcmp(text, "abort") == 0 ? RA_PAXOS_ABORT : RA_PAXOS_NONE;
}

/* Proposers that meet must not meet again: each waits a time of its own */
static void
pause_before(Attempt *a, int turn)
{
	uint64		now = ra_boottime();
	uint64		most = Min(PAUSE_MAX_MS, PAUSE_FIRST_MS << Min(turn, 10)) * NS_PER_MS;
	uint64		end = now + most / 4 +
		(uint64) (pg_prng_double(&pg_global_prng_state) * (double) most * 3 / 4);

	end = Min(end, a->until);
	while (now < end && !ra_register_given_up())
	{
		static uint32 wait_event = 0;

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) ((end - now) / NS_PER_MS + 1), ra_wait_event(&wait_event, "RiskAlertAcceptors"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		now = ra_boottime();
	}
}

static char *
why_not(const Attempt *a, RaPaxosStep step)
{
	StringInfoData text;
	int			i;

	if (step == RA_PAXOS_AGAIN)
		return pstrdup("other proposals have come between each time");
	initStringInfo(&text);
	appendStringInfo(&text, "no majority of the %d acceptors has answered in time", a->n);
	for (i = 0; i < a->n; i++)
	{
		if (a->reasons[i])
			appendStringInfo(&text, "; node \"%s\": %s", a->names[i], a->reasons[i]);
	}
	return text.data;
}
