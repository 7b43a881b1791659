/*
 * register_zookeeper.c
 *	  The register that is an entry of ZooKeeper, created once.
 *
 * Sessions ask the broker, which has the connection.  A session takes one of a fixed
 * number of slots in shared memory, fills it in, wakes the broker and sleeps.
 * A slot goes FREE -> ASKED -> TAKEN -> ANSWERED -> FREE.  A session that goes
 * away meanwhile frees it, or, while the broker is at it, leaves that to the
 * broker (ABANDONED).  Each request has a deadline, after which it is not sent to the
 * service any more: a proposal must not take effect long after its session
 * has given up.
 *
 * An entry is "commit" or "abort".  When the transaction is finished on all nodes, its entry is written down
 * to be removed after a time; until then, a participant that is restored to an earlier moment still
 * finds it.
 *
 * A proposal that succeeds is told to its session by the client library's thread
 * (ra_decisions_stands()), so that the session need not wait until the broker's main thread has been woken.
 * Its slot is not free before that thread knows, too: no later request can get an answer meant for this one.
 *
 * All of a slot is protected by the one lock, but for what the library's thread touches.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "cluster/decision.h"
#include "cluster/locktable.h"
#include "cluster/register.h"
#include "compat.h"
#include "core/gid.h"
#include "guc.h"

/* requests at the same time; more wait */
#define SLOTS 128

/* longest gid: what PREPARE TRANSACTION takes */
#define GID_MAX 200

/* while interrupts are held, sleepers look that often whether they shall give up */
#define HELD_NAP_MS 50

/* how long forget() waits for a slot */
#define FORGET_WAIT_MS 100

/* the broker ends requests at their deadline; a session waits a little longer */
#define GRACE_MS 1000

#define GIVEN_UP "the session was asked to stop waiting for it"

#define SWEEP_INTERVAL_MS (60 * 60 * 1000)

/* of the commits that nobody has finished in time, at once; more come with the next sweep */
#define LEFT_MAX 256

#define NS_PER_MS INT64CONST(1000000)

typedef enum SlotState
{
	SLOT_FREE,
	SLOT_ASKED,
	SLOT_TAKEN,					/* by the broker */
	SLOT_ABANDONED,				/* taken, and nobody waits for it */
	SLOT_ANSWERED
} SlotState;

typedef enum SlotKind
{
	SLOT_PROPOSE,
	SLOT_READ,
	SLOT_FORGET,				/* a commit that is finished; */
	SLOT_FORGET_LEFT			/* the same, which a sweep has told of.  Nobody waits for either. */
} SlotKind;

typedef struct Slot
{
	SlotState	state;
	SlotKind	kind;
	char		gid[GID_MAX];
	RaDecision	decision;		/* proposed, then what stands */
	int64		deadline;		/* nanoseconds of CLOCK_BOOTTIME */
	char		error[128];

	/* without the lock, the library's thread reads the one and writes the other */
	Latch	   *latch;			/* of the session */
	pg_atomic_uint32 stands;	/* 1: what was proposed stands */
} Slot;

typedef struct Decisions
{
	LWLock	   *lock;
	int			asked;			/* slots in that state */
	int			busy;			/* slots that are not free */
	ConditionVariable freed;
	Slot		slots[SLOTS];
	int			nleft;
	char		left[LEFT_MAX][GID_MAX];
} Decisions;

static Decisions *decisions = NULL;

static char *zk_missing(void);
static RaDecision zk_propose(const char *gid, RaDecision decision, int timeout, char **reason);
static RaDecision zk_read(const char *gid, int timeout, char **reason);
static void zk_forget(const char *gid);
static void forget(SlotKind kind, const char *gid);
static RaDecision ask(SlotKind kind, const char *gid, RaDecision decision, int timeout, char **reason);
static bool unattended(SlotKind kind);
static long nap(int64 left);
static Slot *take_slot(SlotKind kind, const char *gid, RaDecision decision, int64 deadline, int64 until);
static bool wait_for_answer(Slot *slot);
static void leave_slot(int code, Datum arg);
static void free_slot(Slot *slot);
static bool no_service(char **reason);

const RaRegister ra_register_zookeeper = {
	.kind = RA_REGISTER_ZOOKEEPER,
	.name = "zookeeper",
	.with_caller = false,
	.missing = zk_missing,
	.propose = zk_propose,
	.read = zk_read,
	.forget = zk_forget,
};

Size
ra_decisions_shmem_size(void)
{
	return MAXALIGN(sizeof(Decisions));
}

/* The caller holds AddinShmemInitLock */
void
ra_decisions_shmem_startup(LWLock *lock)
{
	bool		found;
	int			i;

	decisions = ShmemInitStruct("risk_alert decisions", sizeof(Decisions), &found);
	if (found)
		return;
	memset(decisions, 0, sizeof(Decisions));
	decisions->lock = lock;
	ConditionVariableInit(&decisions->freed);
	for (i = 0; i < SLOTS; i++)
		pg_atomic_init_u32(&decisions->slots[i].stands, 0);
}

/* ---- sessions ---- */

static char *
zk_missing(void)
{
	char	   *reason = NULL;

	return no_service(&reason) ? reason : NULL;
}

static RaDecision
zk_propose(const char *gid, RaDecision decision, int timeout, char **reason)
{
	return ask(SLOT_PROPOSE, gid, decision, timeout, reason);
}

static RaDecision
zk_read(const char *gid, int timeout, char **reason)
{
	return ask(SLOT_READ, gid, RA_DECISION_NONE, timeout, reason);
}

static void
zk_forget(const char *gid)
{
	forget(SLOT_FORGET, gid);
}

void
ra_decisions_forget_left(const char *gid)
{
	forget(SLOT_FORGET_LEFT, gid);
}

static void
forget(SlotKind kind, const char *gid)
{
	int64		until = (int64) ra_boottime() + FORGET_WAIT_MS * NS_PER_MS;
	char	   *reason;

	if (!no_service(&reason))
		(void) take_slot(kind, gid, RA_DECISION_NONE, until, until);
}

static RaDecision
ask(SlotKind kind, const char *gid, RaDecision decision, int timeout, char **reason)
{
	int64		deadline = (int64) ra_boottime() + Max(timeout, 0) * NS_PER_MS;
	Slot	   *slot;
	RaDecision	found = RA_DECISION_UNKNOWN;
	volatile bool answered = false;
	char		error[sizeof(slot->error)];

	*reason = NULL;
	if (no_service(reason))
		return RA_DECISION_UNKNOWN;
	if (strlen(gid) >= GID_MAX)
	{
		*reason = pstrdup("the name of the transaction is too long");
		return RA_DECISION_UNKNOWN;
	}
	slot = take_slot(kind, gid, decision, deadline, deadline);
	if (slot == NULL)
	{
		*reason = pstrdup(ra_register_given_up() ? GIVEN_UP : "too many other sessions ask the broker");
		return RA_DECISION_UNKNOWN;
	}

	PG_ENSURE_ERROR_CLEANUP(leave_slot, PointerGetDatum(slot));
	{
		answered = wait_for_answer(slot);
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave_slot, PointerGetDatum(slot));
	if (pg_atomic_read_u32(&slot->stands) != 0)
		found = decision;
	else if (answered)
	{
		found = slot->decision;
		strlcpy(error, slot->error, sizeof(error));
	}
	else
		strlcpy(error, ra_register_given_up() ? GIVEN_UP : "the broker gives no answer", sizeof(error));
	leave_slot(0, PointerGetDatum(slot));
	if (found == RA_DECISION_UNKNOWN)
		*reason = pstrdup(error);
	return found;
}

/* Is there no hope that a broker answers? */
static bool
no_service(char **reason)
{
	bool		failed;
	char		error[sizeof(ra_cluster->last_error)];

	if (!ra_cluster->zookeeper)
	{
		*reason = pstrdup(ra_lock_provider == RA_LOCK_PROVIDER_REDIS ?
						  "the broker of this server has a session at Redis, which has no registers" :
						  "this server has no session at ZooKeeper: neither risk_alert.lock_provider nor "
						  "risk_alert.commit_register was zookeeper when it was started");
		return true;
	}
	LWLockAcquire(ra_cluster->lock, LW_SHARED);
	failed = ra_cluster->state == RA_BROKER_FAILED;
	strlcpy(error, ra_cluster->last_error, sizeof(error));
	LWLockRelease(ra_cluster->lock);
	if (failed)
		*reason = pstrdup(error);
	return failed;
}

static bool
unattended(SlotKind kind)
{
	return kind == SLOT_FORGET || kind == SLOT_FORGET_LEFT;
}

/* A sleep that a request to cancel ends in time */
static long
nap(int64 left)
{
	return InterruptHoldoffCount > 0 ? Min(left, HELD_NAP_MS) : left;
}

/* NULL: there was none until then */
static Slot *
take_slot(SlotKind kind, const char *gid, RaDecision decision, int64 deadline, int64 until)
{
	static uint32 wait_event = 0;
	Slot	   *slot = NULL;
	int			asked = 0;
	int64		left;
	int			i;

	ConditionVariablePrepareToSleep(&decisions->freed);
	for (;;)
	{
		LWLockAcquire(decisions->lock, LW_EXCLUSIVE);
		for (i = 0; i < SLOTS && slot == NULL; i++)
		{
			if (decisions->slots[i].state == SLOT_FREE)
				slot = &decisions->slots[i];
		}
		if (slot)
		{
			slot->state = SLOT_ASKED;
			slot->kind = kind;
			strlcpy(slot->gid, gid, GID_MAX);
			slot->decision = decision;
			slot->deadline = deadline;
			slot->error[0] = '\0';
			slot->latch = MyLatch;
			pg_atomic_write_u32(&slot->stands, 0);
			asked = ++decisions->asked;
			decisions->busy++;
		}
		LWLockRelease(decisions->lock);
		left = (until - (int64) ra_boottime()) / NS_PER_MS;
		if (slot || left <= 0 || ra_register_given_up())
			break;
		ConditionVariableTimedSleep(&decisions->freed, nap(left), ra_wait_event(&wait_event, "RiskAlertDecision"));
	}
	ConditionVariableCancelSleep();

	/* what nobody waits for is seen with the next request, or within a second */
	if (slot && (!unattended(kind) || asked > SLOTS / 4))
		ra_broker_wake(false);
	return slot;
}

static bool
wait_for_answer(Slot *slot)
{
	static uint32 wait_event = 0;
	int64		until = slot->deadline + GRACE_MS * NS_PER_MS;
	bool		done;

	for (;;)
	{
		int64		left;
		bool		waits;

		ResetLatch(MyLatch);
		if (pg_atomic_read_u32(&slot->stands) != 0)
			return true;
		left = (until - (int64) ra_boottime()) / NS_PER_MS;
		LWLockAcquire(decisions->lock, LW_SHARED);
		done = slot->state == SLOT_ANSWERED;
		waits = slot->state == SLOT_ASKED;
		LWLockRelease(decisions->lock);
		/* what no broker has taken by its deadline, none will send */
		if (done || left <= 0 || (waits && left <= GRACE_MS) || ra_register_given_up())
			return done;
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 waits ? Max(left - GRACE_MS, 1) : left,
						 ra_wait_event(&wait_event, "RiskAlertDecision"));
	}
}

/* The session has its answer, or goes away without */
static void
leave_slot(int code, Datum arg)
{
	Slot	   *slot = (Slot *) DatumGetPointer(arg);
	bool		scarce = false;

	LWLockAcquire(decisions->lock, LW_EXCLUSIVE);
	if (slot->state == SLOT_TAKEN)
	{
		/* the broker frees it, but it doesn't hurry to look at what was told */
		slot->state = SLOT_ABANDONED;
		scarce = decisions->busy > SLOTS / 2;
	}
	else
		free_slot(slot);
	LWLockRelease(decisions->lock);
	if (scarce)
		ra_broker_wake(false);
}

/* Under the lock */
static void
free_slot(Slot *slot)
{
	if (slot->state == SLOT_ASKED)
		decisions->asked--;
	slot->state = SLOT_FREE;
	decisions->busy--;
	ConditionVariableSignal(&decisions->freed);
}

/* ---- the broker ---- */

/* Under the lock */
static void
end_request(Slot *slot, RaDecision decision, const char *error)
{
	if (slot->state == SLOT_ABANDONED || unattended(slot->kind))
	{
		free_slot(slot);
		return;
	}
	slot->decision = decision;
	strlcpy(slot->error, error ? error : "", sizeof(slot->error));
	slot->state = SLOT_ANSWERED;
	SetLatch(slot->latch);
}

void
ra_decisions_begin(void)
{
	int			i;

	LWLockAcquire(decisions->lock, LW_EXCLUSIVE);
	for (i = 0; i < SLOTS; i++)
	{
		Slot	   *slot = &decisions->slots[i];

		if (slot->state == SLOT_TAKEN || slot->state == SLOT_ABANDONED)
			end_request(slot, RA_DECISION_UNKNOWN, "the broker has ended");
	}
	LWLockRelease(decisions->lock);
}

void
ra_decisions_serve(const RaProviderOps *ops, RaProvider *provider)
{
	int			i;

	/* a session that asks in this very moment sets our latch after that */
	if (*(volatile int *) &decisions->asked == 0)
		return;
	for (i = 0; i < SLOTS; i++)
	{
		Slot	   *slot = &decisions->slots[i];
		bool		sent = true;
		const char *error = "out of memory";

		/* most are free; what is read too early is seen with the latch, as above */
		if (*(volatile SlotState *) &slot->state != SLOT_ASKED)
			continue;
		LWLockAcquire(decisions->lock, LW_EXCLUSIVE);
		if (slot->state != SLOT_ASKED)
		{
			LWLockRelease(decisions->lock);
			continue;
		}
		slot->state = SLOT_TAKEN;
		decisions->asked--;
		LWLockRelease(decisions->lock);

		/* ours now; an answer may come from within the call */
		if (ops->decide == NULL)
		{
			sent = false;
			error = "this coordination service has no registers";
		}
		else if (unattended(slot->kind))
		{
			if (slot->kind == SLOT_FORGET)
				ops->forget(provider, slot->gid, strlen(slot->gid));
			else
				ops->forget_left(provider, slot->gid, strlen(slot->gid), "commit");
			sent = false;
		}
		else
			sent = ops->decide(provider, slot, slot->gid, strlen(slot->gid),
							   slot->kind == SLOT_READ ? NULL :
							   slot->decision == RA_DECISION_COMMIT ? "commit" : "abort",
							   slot->deadline);
		if (!sent)
		{
			LWLockAcquire(decisions->lock, LW_EXCLUSIVE);
			end_request(slot, RA_DECISION_UNKNOWN, error);
			LWLockRelease(decisions->lock);
		}
	}
}

void
ra_decisions_answer(void *arg, void *owner, const char *value, const char *error)
{
	Slot	   *slot = owner;
	RaDecision	decision = RA_DECISION_UNKNOWN;

	if (error)
		;
	else if (value == NULL)
		decision = RA_DECISION_NONE;
	else if (strcmp(value, "commit") == 0)
		decision = RA_DECISION_COMMIT;
	else if (strcmp(value, "abort") == 0)
		decision = RA_DECISION_ABORT;
	else
		error = "what stands in ZooKeeper is no decision";
	LWLockAcquire(decisions->lock, LW_EXCLUSIVE);
	end_request(slot, decision, error);
	LWLockRelease(decisions->lock);
}

/* On a thread of the client library's, where the server's functions must not be called */
void *
ra_decisions_stands(void *arg, void *owner)
{
	Slot	   *slot = owner;

	pg_atomic_write_u32(&slot->stands, 1);
	return slot->latch;
}

/*
 * Likewise.  SetLatch() is the one exception: for a latch of another process it does no more than set
 * flags and call kill(), in all versions that compat.h admits.  If that process has another request by now, or
 * is another one, it is woken in vain.
 */
void
ra_decisions_wake(void *arg, void *whom)
{
	SetLatch(whom);
}

/*
 * Aborts and finished commits go after their times.  Commits that nobody has told to be finished stay until
 * recovery has found that they are (ra_forget_left()); as others are cleared no more often than that, only what is
 * some time older is told.  Who finds nothing takes it for aborted, unless it may have been a commit
 * (ra_may_be_forgotten()).
 */
void
ra_decisions_sweep(const RaProviderOps *ops, RaProvider *provider)
{
	static uint64 swept = 0;
	uint64		now = ra_boottime();
	int64		kept = (int64) ra_decision_retention * 1000;
	int64		interval = Max(Min(kept / 4, SWEEP_INTERVAL_MS), 1000);
	RaProviderSweep sweep = {
		.forgotten_ms = kept,
		.value = "abort",
		.value_ms = (int64) ra_register_retention * 1000,
		.left = "commit",
		.left_ms = kept + 2 * interval
	};

	if (ops->sweep == NULL || (swept != 0 && now - swept < (uint64) (interval * NS_PER_MS)))
		return;
	swept = now;
	LWLockAcquire(decisions->lock, LW_EXCLUSIVE);
	decisions->nleft = 0;
	LWLockRelease(decisions->lock);
	ops->sweep(provider, &sweep);
}

/* ---- commits that are left ---- */

void
ra_decisions_left(void *arg, const char *name, int namelen)
{
	RaGid		gid;
	int			i;

	if (namelen >= GID_MAX || !ra_gid_parse(name, namelen, &gid))
		return;
	LWLockAcquire(decisions->lock, LW_EXCLUSIVE);
	for (i = 0; i < decisions->nleft && strcmp(decisions->left[i], name) != 0;)
		i++;
	if (i == decisions->nleft && i < LEFT_MAX)
		strlcpy(decisions->left[decisions->nleft++], name, GID_MAX);
	LWLockRelease(decisions->lock);
}

bool
ra_decisions_any_left(void)
{
	return *(volatile int *) &decisions->nleft > 0;
}

List *
ra_decisions_take_left(void)
{
	char	   *copy = palloc(sizeof(decisions->left));
	List	   *names = NIL;
	int			n;
	int			i;

	LWLockAcquire(decisions->lock, LW_EXCLUSIVE);
	n = decisions->nleft;
	memcpy(copy, decisions->left, n * GID_MAX);
	decisions->nleft = 0;
	LWLockRelease(decisions->lock);
	for (i = 0; i < n; i++)
		names = lappend(names, copy + i * GID_MAX);
	return names;
}
