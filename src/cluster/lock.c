/*
 * lock.c
 *	  Advisory locks of the cluster, as sessions use them.
 *
 * A lock is taken in two steps.  The first is an advisory lock of this server's
 * own lock manager: it queues this server's sessions, knows modes, finds
 * deadlocks among them, obeys cancel and lock_timeout, and counts how often a
 * session has it.  Who has got it takes the second step: make sure that this server
 * has the lock at the coordination service.  If it was left there by the
 * session before, that costs nothing; else the broker is asked for it.  Without a
 * service (provider "local") there is nothing to do in the second step but to
 * draw a token.
 *
 * A session that lets go of the lock leaves it with the server if another session of
 * this server queues for it, but not more than lock_cohort_limit times in a
 * row while other servers queue too.  Within the same limit, who asks for it while
 * the broker has not got to the release yet has it without one.
 *
 * What can be known about the lock at the service may change at any time: when
 * its session there is lost, the lock is lost.  So a transaction that holds a lock
 * looks once more before it commits.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "cluster/fence.h"
#include "cluster/global.h"
#include "cluster/lock.h"
#include "compat.h"
#include "guc.h"
#include "shmem.h"

/* One request of the transaction kind, to be undone with its (sub)transaction */
typedef struct XactHold
{
	SubTransactionId subid;
	struct XactHold *next;
} XactHold;

/* A lock that this session has, or tries to get */
typedef struct Held
{
	RaLockKey	key;			/* hash key, must be first */
	RaLockName	name;
	LOCKTAG		tag;			/* the local lock */
	int			session_exclusive;	/* how often asked for, less unlocked */
	int			session_shared;
	LOCKMODE	session_mode;	/* of the local lock of the session kind, or NoLock */
	XactHold   *xact;			/* latest first; NULL: no local lock of the transaction kind */
	bool		exclusive;		/* the strongest mode that we have locally */

	/* of the grant */
	uint64		users_id;		/* of the entry then */
	uint64		epoch;
	uint64		generation;
	uint64		token;
	int			sequence;
} Held;

/* locks of this session; NULL: never had one */
static HTAB *held_locks = NULL;
static int	xact_holds = 0;		/* requests of the transaction kind */
static Held *acquiring = NULL;	/* waits for the local lock */
static RaLockEntry *awaited = NULL; /* waits for the service, as one of its waiters ... */
static bool awaited_nowait;			/* ... of this kind */

static bool obtain(Held *held, const RaLockRequest *wanted);
static bool lock_locally(Held *held, LOCKMODE mode, const RaLockRequest *wanted);
static bool enter(Held *held, const RaLockRequest *wanted);
static bool wait_for_service(RaLockEntry *entry, Held *held, const RaLockRequest *wanted);
static void end_wait(void);
static int milliseconds_left(uint64 deadline);
static void check_broker(const Held *held, bool nowait);
static const char *holder_elsewhere(const Held *held);
pg_noreturn static void report_timeout(const Held *held, const char *detail);
static bool can_have(const RaLockEntry *entry, bool exclusive);
static bool may_stay(const RaLockEntry *entry);
static bool may_return(const RaLockEntry *entry);
static bool is_taken(const RaLockEntry *entry);
static void take(RaLockEntry *entry, Held *held);
static void leave(Held *held);
static void leave_without_local(Held *held);
static void leave_lost(RaLockEntry *entry);
static bool still_valid(const Held *held);
static void not_wanted(const Held *held);
static void forget(Held *held);
static void release_session(Held *held);
static void reconcile(void);
static const char *lost_detail(const Held *held);
pg_noreturn static void report_lost(const Held *held);
static void init_session(void);
static void end_xact_holds(void);
static void end_xact_kind(Held *held);
static void after_locks(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg);
static void end_of_session(int code, Datum arg);

/* ---------------------------------------------------------------- to get a lock */

bool
ra_lock_acquire(const RaLockName *name, const RaLockKey *key, const RaLockRequest *wanted, Numeric *token)
{
	Held	   *held;
	XactHold   *hold = NULL;
	bool		found;

	ra_require_preload();
	init_session();
	reconcile();

	/* all that can fail for want of memory, before anything is locked */
	if (!wanted->session)
		hold = MemoryContextAlloc(TopTransactionContext, sizeof(XactHold));

	held = hash_search(held_locks, key, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) held + sizeof(RaLockKey), 0, sizeof(Held) - sizeof(RaLockKey));
		memcpy(&held->name, name, sizeof(RaLockName));
		ra_lock_tag(&held->tag, key);
		held->session_mode = NoLock;
	}
	else
	{
		if (!still_valid(held))
			report_lost(held);
		if (wanted->exclusive && !held->exclusive)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("advisory lock \"%s\" can't be changed from shared to exclusive",
							ra_lock_name_display(name)),
					 errdetail("This session holds it in shared mode; two sessions that both do so would wait for each other for ever."),
					 errhint("Release the shared lock first, or ask for the exclusive one at once.")));
	}

	if (!found)
	{
		if (!obtain(held, wanted))
			return false;
	}
	else
	{
		/*
		 * Once more, in a mode that we have anyway or a weaker one: as who has
		 * it, we needn't wait.  Of the session kind only what is asked for, as it
		 * outlasts the transaction; of the transaction kind the mode that we have.
		 */
		LOCKMODE	mode = wanted->exclusive ? ExclusiveLock : ShareLock;

		if (wanted->session && mode > held->session_mode)
		{
			(void) LockAcquire(&held->tag, mode, true, false);
			if (held->session_mode != NoLock)
				LockRelease(&held->tag, held->session_mode, true);
			held->session_mode = mode;
		}
		else if (!wanted->session && held->xact == NULL)
			(void) LockAcquire(&held->tag, held->exclusive ? ExclusiveLock : ShareLock, false, false);
	}

	if (!wanted->session)
	{
		hold->subid = GetCurrentSubTransactionId();
		hold->next = held->xact;
		held->xact = hold;
		xact_holds++;
	}
	else if (wanted->exclusive)
		held->session_exclusive++;
	else
		held->session_shared++;

	PG_TRY();
	{
		*token = ra_token_numeric(held->generation, held->token, held->sequence);
	}
	PG_CATCH();
	{
		/* out of memory: one of the transaction kind ends with the (sub)transaction */
		if (wanted->session)
		{
			if (wanted->exclusive)
				held->session_exclusive--;
			else
				held->session_shared--;
			release_session(held);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	return true;
}

/* A lock that the session does not have yet; forgotten if it can't be had */
static bool
obtain(Held *held, const RaLockRequest *wanted)
{
	LOCKMODE	mode = wanted->exclusive ? ExclusiveLock : ShareLock;
	volatile bool done = false;

	if (!lock_locally(held, mode, wanted))
	{
		forget(held);
		return false;
	}
	held->exclusive = wanted->exclusive;
	PG_TRY();
	{
		done = enter(held, wanted);
	}
	PG_FINALLY();
	{
		if (!done)
		{
			LockRelease(&held->tag, mode, wanted->session);
			forget(held);
		}
	}
	PG_END_TRY();
	if (done && wanted->session)
		held->session_mode = mode;
	return done;
}

/* The first step: PostgreSQL's own lock */
static bool
lock_locally(Held *held, LOCKMODE mode, const RaLockRequest *wanted)
{
	LockAcquireResult result = LOCKACQUIRE_NOT_AVAIL;
	int			saved_timeout = LockTimeout;
	MemoryContext cxt = CurrentMemoryContext;

	acquiring = held;
	PG_TRY();
	{
		if (wanted->timeout_us > 0)
			LockTimeout = Max(1, milliseconds_left(wanted->deadline));
		result = LockAcquire(&held->tag, mode, wanted->session, wanted->nowait);
		LockTimeout = saved_timeout;
	}
	PG_CATCH();
	{
		Held		copy = *held;

		LockTimeout = saved_timeout;

		/*
		 * It may have been granted while the error was on its way; and the lock may
		 * have been left with this server for us.
		 */
		LockErrorCleanup();
		if (ra_lock_held_by_me(&held->tag, mode))
			LockRelease(&held->tag, mode, wanted->session);
		not_wanted(held);
		acquiring = NULL;
		forget(held);
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		report_timeout(&copy, ra_local_holder(&copy.tag, mode));
	}
	PG_END_TRY();
	acquiring = NULL;
	return result != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * The second step: this server's lock at the service, on behalf of this session,
 * which has the local lock.  False: not available now.
 */
static bool
enter(Held *held, const RaLockRequest *wanted)
{
	LWLock	   *partition = ra_lock_partition(&held->key);
	RaLockEntry *entry;
	volatile bool done = false;

	LWLockAcquire(partition, LW_EXCLUSIVE);
	entry = ra_entry_make(&held->key, &held->name);
	if (entry == NULL)
	{
		LWLockRelease(partition);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("too many advisory locks of the cluster are in use on this server"),
				 errhint("Increase risk_alert.max_locks (now %d).", ra_max_locks)));
	}

	/*
	 * Who has the exclusive local lock is alone, whatever the count says: a
	 * session whose local lock went away behind our back
	 * (pg_advisory_unlock_all()) has not noticed yet.
	 */
	if (wanted->exclusive && entry->users + entry->lost_users > 0)
	{
		ra_entry_disown(entry);
		entry->lost_users = 0;
	}

	if (ra_lock_provider == RA_LOCK_PROVIDER_LOCAL)
	{
		entry->exclusive = wanted->exclusive;
		entry->generation = pg_atomic_read_u64(&ra_cluster->generation);
		entry->token = pg_atomic_add_fetch_u64(&ra_cluster->local_token, 1);
		entry->sequence = 0;
		done = true;
	}
	else
		done = can_have(entry, wanted->exclusive);
	if (done)
	{
		take(entry, held);
		LWLockRelease(partition);
		return true;
	}

	/* What a try_ function can't have at once it need not ask for */
	if (wanted->nowait && is_taken(entry))
	{
		LWLockRelease(partition);
		return false;
	}

	entry->waiters++;
	if (wanted->nowait)
		entry->nowait_waiters++;
	awaited = entry;
	awaited_nowait = wanted->nowait;
	entry->wants_exclusive = wanted->exclusive;
	PG_TRY();
	{
		done = wait_for_service(entry, held, wanted);
	}
	PG_CATCH();
	{
		/*
		 * By cancel or time-out, which come while the partition is not locked.
		 * Out of the list of sleepers first: the entry may go away afterwards.
		 */
		ConditionVariableCancelSleep();
		LWLockAcquire(partition, LW_EXCLUSIVE);
		end_wait();
		LWLockRelease(partition);
		PG_RE_THROW();
	}
	PG_END_TRY();
	end_wait();
	LWLockRelease(partition);
	return done;
}

/*
 * The entry can't go away, as this session counts among its waiters.  Called
 * and left with the partition locked, unless by an error.
 */
static bool
wait_for_service(RaLockEntry *entry, Held *held, const RaLockRequest *wanted)
{
	static uint32 wait_event = 0;
	LWLock	   *partition = ra_lock_partition(&held->key);
	uint32		refusals = entry->refusals;
	bool		woken = false;

	ra_entry_enqueue(entry);
	ConditionVariablePrepareToSleep(&entry->changed);
	while (!can_have(entry, wanted->exclusive))
	{
		long		left = -1;

		if (wanted->nowait && (entry->refusals != refusals || is_taken(entry)))
		{
			ConditionVariableCancelSleep();
			return false;
		}
		LWLockRelease(partition);
		if (!woken)
			ra_broker_wake(false);
		woken = true;
		check_broker(held, wanted->nowait);
		if (wanted->deadline != 0)
		{
			left = milliseconds_left(wanted->deadline);
			if (left <= 0)
				report_timeout(held, holder_elsewhere(held));
		}
		ConditionVariableTimedSleep(&entry->changed, left,
									ra_wait_event(&wait_event, "RiskAlertLock"));
		LWLockAcquire(partition, LW_EXCLUSIVE);
	}
	ConditionVariableCancelSleep();
	take(entry, held);
	return true;
}

/* Under the partition's lock: this session waits no longer */
static void
end_wait(void)
{
	awaited->waiters--;
	if (awaited_nowait)
		awaited->nowait_waiters--;
	if (awaited->waiters == 0 && awaited->users == 0)
		ra_entry_queue(awaited);	/* not wanted after all */
	awaited = NULL;
}

/* Whatever is done to the clock meanwhile */
static int
milliseconds_left(uint64 deadline)
{
	uint64		now = ra_boottime();

	return now >= deadline ? 0 : (int) Min((deadline - now + 999999) / 1000000, INT_MAX);
}

/* Waiting is of no use, or not asked for, while the service can't be asked */
static void
check_broker(const Held *held, bool nowait)
{
	RaBrokerState state;
	char		detail[sizeof(ra_cluster->last_error)];

	LWLockAcquire(ra_cluster->lock, LW_SHARED);
	state = ra_cluster->state;
	strlcpy(detail, ra_cluster->last_error, sizeof(detail));
	LWLockRelease(ra_cluster->lock);

	if (state == RA_BROKER_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("advisory lock \"%s\" can't be had: the broker can't work",
						ra_lock_name_display(&held->name)),
				 errdetail_internal("%s", detail),
				 errhint("Correct the settings risk_alert.node_name, lock_provider, %s_hosts, coordination_tls or coordination_password_file; library risk_alert_%s must be installed.",
						 ra_cluster->zookeeper ? "zookeeper" : "redis",
						 ra_cluster->zookeeper ? "zookeeper" : "redis")));
	if (nowait && state != RA_BROKER_CONNECTED)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("advisory lock \"%s\" can't be had: no connection to the coordination service",
						ra_lock_name_display(&held->name)),
				 errdetail_internal("%s", detail[0] ? detail : "no reason is known"),
				 errhint("Try again; the connection is made as soon as the service can be reached.")));
}

/* Why the server has not got what this session, which has the local lock, waits for */
static const char *
holder_elsewhere(const Held *held)
{
	LWLock	   *partition = ra_lock_partition(&held->key);
	RaLockEntry *entry;
	RaLockEntry copy;

	LWLockAcquire(ra_cluster->lock, LW_SHARED);
	if (ra_cluster->state != RA_BROKER_CONNECTED)
	{
		char		detail[sizeof(ra_cluster->last_error)];

		strlcpy(detail, ra_cluster->last_error, sizeof(detail));
		LWLockRelease(ra_cluster->lock);
		return psprintf("There is no connection to the coordination service: %s", detail);
	}
	LWLockRelease(ra_cluster->lock);

	LWLockAcquire(partition, LW_SHARED);
	entry = ra_entry_find(&held->key);	/* this session waits for it, so it is there */
	copy = *entry;
	LWLockRelease(partition);
	if (copy.state == RA_ENTRY_WAITING)
		return "Another node holds it, unless the coordination service has not answered yet.";
	if (copy.state == RA_ENTRY_HELD && copy.users > 0)
		return "Other sessions of this node share it, and another node waits for it.";
	return "It is not known who holds it: the coordination service has not been asked yet.";
}

static void
report_timeout(const Held *held, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not obtain advisory lock \"%s\" in time", ra_lock_name_display(&held->name)),
			 errdetail_internal("%s", detail),
			 errhint("Who holds it is in view risk_alert.advisory_locks.")));
}

/* Under the partition's lock: is what this server has good for the session? */
static bool
can_have(const RaLockEntry *entry, bool exclusive)
{
	if (entry->state != RA_ENTRY_HELD || (exclusive && !entry->exclusive))
		return false;
	/* the broker was told to release it, but has not begun to: as good as left for us */
	if (entry->give_up && !(may_stay(entry) && may_return(entry)))
		return false;
	if (!ra_epoch_valid(entry->epoch))
		return false;
	if (entry->users == 0)
		return entry->sequence < RA_TOKEN_SEQUENCE_MAX;
	/* readers that join readers must not keep a writer elsewhere out for ever */
	return !entry->contended || entry->handovers < ra_lock_cohort_limit;
}

/*
 * Under the partition's lock: may it pass from one session of this server to the next,
 * without the service?
 */
static bool
may_stay(const RaLockEntry *entry)
{
	return entry->state == RA_ENTRY_HELD && entry->users == 0 && entry->waiters == 0 &&
		entry->sequence < RA_TOKEN_SEQUENCE_MAX && ra_lock_cohort_limit > 0 &&
		entry->handovers < (entry->contended ? ra_lock_cohort_limit : INT_MAX);
}

/*
 * Under the partition's lock: may it be taken again where nobody queues for it any longer?
 * Not for ever even if no other node is seen to queue, as their try_ functions never do.
 */
static bool
may_return(const RaLockEntry *entry)
{
	return entry->sequence <= ra_lock_cohort_limit;
}

/*
 * Under the partition's lock, when can_have() says no: would it mean to wait for
 * other sessions, here or elsewhere?
 */
static bool
is_taken(const RaLockEntry *entry)
{
	return (entry->state == RA_ENTRY_WAITING && !entry->nowait) ||
		(entry->state == RA_ENTRY_HELD && entry->users > 0);
}

/* Under the partition's lock: the session gets it */
static void
take(RaLockEntry *entry, Held *held)
{
	if (entry->sequence > 0)
	{
		pg_atomic_fetch_add_u64(&ra_cluster->handovers, 1);

		/*
		 * Half way to the limit, ask whether anybody else queues; until the
		 * answer is there, take it that they do.
		 */
		if (++entry->handovers >= (ra_lock_cohort_limit + 1) / 2 && !entry->contended)
		{
			entry->contended = true;
			entry->look = true;
			ra_entry_queue(entry);
		}
	}
	entry->give_up = false;
	pg_atomic_fetch_add_u64(&ra_cluster->grants, 1);
	/* readers that join others may have the same token */
	if (entry->sequence < RA_TOKEN_SEQUENCE_MAX)
		entry->sequence++;
	entry->users++;
	entry->used_exclusive = held->exclusive;
	held->users_id = entry->users_id;
	held->epoch = entry->epoch;
	held->generation = entry->generation;
	held->token = entry->token;
	held->sequence = entry->sequence - 1;
}

/* ---------------------------------------------------------------- to undo a request */

bool
ra_lock_release(const RaLockName *name, const RaLockKey *key, bool exclusive)
{
	Held	   *held = NULL;
	bool		lost;

	ra_require_preload();
	reconcile();
	if (held_locks)
		held = hash_search(held_locks, key, HASH_FIND, NULL);
	if (held == NULL || (exclusive ? held->session_exclusive : held->session_shared) == 0)
	{
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("you don't own advisory lock \"%s\" in %s mode at session level",
						ra_lock_name_display(name), exclusive ? "exclusive" : "shared")));
		return false;
	}
	lost = !still_valid(held);
	if (lost)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("advisory lock \"%s\" had been lost", ra_lock_name_display(name)),
				 errdetail("%s", lost_detail(held))));
	if (exclusive)
		held->session_exclusive--;
	else
		held->session_shared--;
	release_session(held);
	return !lost;
}

void
ra_lock_release_all(void)
{
	HASH_SEQ_STATUS scan;
	Held	   *held;

	ra_require_preload();
	reconcile();
	if (held_locks)
	{
		hash_seq_init(&scan, held_locks);
		while ((held = hash_seq_search(&scan)) != NULL)
		{
			if (held->session_mode == NoLock)
				continue;
			held->session_exclusive = held->session_shared = 0;
			release_session(held);
		}
	}
}

/* ---------------------------------------------------------------- to let go of it */

/*
 * This session's last request is undone: leave the lock with this server, for
 * the next session, or let the service have it.  The local lock is still ours.
 * Throws nothing: transactions end through this.
 */
static void
leave(Held *held)
{
	LWLock	   *partition = ra_lock_partition(&held->key);
	RaLockEntry *entry;
	bool		wake = false;
	bool		linger = false;

	LWLockAcquire(partition, LW_EXCLUSIVE);
	entry = ra_entry_find(&held->key);
	if (entry && entry->users_id == held->users_id && entry->users > 0)
	{
		entry->users--;
		if (entry->users == 0 && entry->state == RA_ENTRY_HELD &&
			!(may_stay(entry) && !entry->give_up &&
			  LockHasWaiters(&held->tag, held->exclusive ? ExclusiveLock : ShareLock, false)))
		{
			/* where nobody else is about, it is often wanted here again at once */
			linger = may_stay(entry) && may_return(entry) && !entry->contended && !entry->waited;
			entry->give_up = true;
			ra_entry_enqueue(entry);
			wake = true;
		}
		ra_entry_tidy(entry);
	}
	else if (entry)
		leave_lost(entry);
	LWLockRelease(partition);
	if (wake)
		ra_broker_wake(linger);
	forget(held);
}

/* Under the partition's lock: one who had it when it was lost knows now */
static void
leave_lost(RaLockEntry *entry)
{
	if (entry->lost_users > 0)
		entry->lost_users--;
	ra_entry_tidy(entry);
}

/* This session waited for the local lock in vain; the lock may have been left for it */
static void
not_wanted(const Held *held)
{
	LWLock	   *partition = ra_lock_partition(&held->key);
	RaLockEntry *entry;

	LWLockAcquire(partition, LW_EXCLUSIVE);
	entry = ra_entry_find(&held->key);
	if (entry && entry->state == RA_ENTRY_HELD && entry->users == 0)
		ra_entry_queue(entry);
	LWLockRelease(partition);
}

static void
forget(Held *held)
{
	(void) hash_search(held_locks, &held->key, HASH_REMOVE, NULL);
}

/* After a request of the session kind was undone: what is left of the kind? */
static void
release_session(Held *held)
{
	LOCKTAG		tag = held->tag;
	LOCKMODE	mode = held->session_mode;

	if (held->session_exclusive + held->session_shared == 0)
	{
		held->session_mode = NoLock;
		if (held->xact == NULL)
			leave(held);
		LockRelease(&tag, mode, true);
	}
	else if (held->session_exclusive == 0 && mode == ExclusiveLock)
	{
		/* let others of this server share it: as who has it, we needn't wait */
		(void) LockAcquire(&tag, ShareLock, true, false);
		held->session_mode = ShareLock;
		if (held->xact == NULL)
			held->exclusive = false;
		LockRelease(&tag, ExclusiveLock, true);
	}
}

/*
 * Local locks of the session kind may have been released by others' means:
 * pg_advisory_unlock_all(), DISCARD ALL.  They mean ours as well.
 */
static void
reconcile(void)
{
	HASH_SEQ_STATUS scan;
	Held	   *held;

	if (held_locks == NULL || hash_get_num_entries(held_locks) == 0)
		return;
	hash_seq_init(&scan, held_locks);
	while ((held = hash_seq_search(&scan)) != NULL)
	{
		if (held->session_mode == NoLock || ra_lock_held_by_me(&held->tag, held->session_mode))
			continue;
		held->session_exclusive = held->session_shared = 0;
		held->session_mode = NoLock;
		if (held->xact == NULL)
			leave_without_local(held);
	}
}

/* As leave(), but the local lock is gone: others may have it already */
static void
leave_without_local(Held *held)
{
	LWLock	   *partition = ra_lock_partition(&held->key);
	RaLockEntry *entry;

	LWLockAcquire(partition, LW_EXCLUSIVE);
	entry = ra_entry_find(&held->key);
	if (entry && entry->users_id == held->users_id && entry->users > 0)
	{
		entry->users--;
		if (ra_lock_provider == RA_LOCK_PROVIDER_LOCAL)
			ra_entry_tidy(entry);
		else if (entry->users == 0)
			ra_entry_queue(entry);	/* the broker looks whether anybody is there */
	}
	else if (entry)
		leave_lost(entry);
	LWLockRelease(partition);
	forget(held);
}

/* ---------------------------------------------------------------- what a session has */

/* Is the lock still this session's?  It may be lost alone, or with the coordination session. */
static bool
still_valid(const Held *held)
{
	LWLock	   *partition = ra_lock_partition(&held->key);
	RaLockEntry *entry;
	bool		valid;

	if (ra_lock_provider == RA_LOCK_PROVIDER_LOCAL)
		return true;
	LWLockAcquire(partition, LW_SHARED);
	entry = ra_entry_find(&held->key);
	valid = entry && entry->users_id == held->users_id;
	LWLockRelease(partition);
	return valid && ra_epoch_valid(held->epoch);
}

bool
ra_lock_held(const RaLockKey *key, RaHeldInfo *info)
{
	Held	   *held = NULL;

	reconcile();
	if (held_locks)
		held = hash_search(held_locks, key, HASH_FIND, NULL);
	if (held == NULL)
		return false;
	info->exclusive = held->exclusive;
	info->lost = !still_valid(held);
	info->generation = held->generation;
	info->token = held->token;
	info->sequence = held->sequence;
	return true;
}

static const char *
lost_detail(const Held *held)
{
	if (held->epoch != pg_atomic_read_u64(&ra_cluster->epoch))
		return "The session of this node at the coordination service has ended since the lock was granted.";
	if (!ra_epoch_valid(held->epoch))
		return "The coordination service has not confirmed this node's session in time, so the lock may be granted to others.";
	return "The coordination service has it no longer: somebody has removed it there.";
}

static void
report_lost(const Held *held)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("advisory lock \"%s\" was lost", ra_lock_name_display(&held->name)),
			 errdetail("%s", lost_detail(held)),
			 held->xact ? errhint("Retry the transaction.") :
			 errhint("Call risk_alert.advisory_unlock(), and begin anew what the lock protects.")));
}

static void
init_session(void)
{
	HASHCTL		info;

	if (held_locks)
		return;
	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(RaLockKey);
	info.entrysize = sizeof(Held);
	held_locks = hash_create("risk_alert locks of this session", 16, &info, HASH_ELEM | HASH_BLOBS);
	RegisterResourceReleaseCallback(after_locks, NULL);
	before_shmem_exit(end_of_session, (Datum) 0);
}

/*
 * The transaction has released its local locks.  Not sooner can be seen whether
 * there is one of the session kind besides.
 */
static void
after_locks(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (phase == RESOURCE_RELEASE_AFTER_LOCKS && is_top_level)
		reconcile();
}

/* Undo requests of the transaction kind; PostgreSQL releases the local locks right after */
static void
end_xact_holds(void)
{
	HASH_SEQ_STATUS scan;
	Held	   *held;

	xact_holds = 0;
	hash_seq_init(&scan, held_locks);
	while ((held = hash_seq_search(&scan)) != NULL)
	{
		if (held->xact == NULL)
			continue;
		held->xact = NULL;
		end_xact_kind(held);
	}
}

/* The last request of the transaction kind is undone: what the session kind has is left */
static void
end_xact_kind(Held *held)
{
	if (held->session_mode == NoLock)
		leave(held);
	else
		held->exclusive = held->session_mode == ExclusiveLock;
}

void
ra_lock_check_xact(void)
{
	HASH_SEQ_STATUS scan;
	Held	   *held;

	if (xact_holds == 0)
		return;
	hash_seq_init(&scan, held_locks);
	while ((held = hash_seq_search(&scan)) != NULL)
	{
		if (held->xact && !still_valid(held))
		{
			hash_seq_term(&scan);
			report_lost(held);
		}
	}
}

void
ra_lock_xact(XactEvent event)
{
	if (held_locks == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			ra_lock_check_xact();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (xact_holds > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that holds advisory locks of the cluster"),
						 errhint("Use a session-level lock, risk_alert.advisory_lock().")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			if (xact_holds > 0)
				end_xact_holds();
			break;
		default:
			break;
	}
}

void
ra_lock_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent)
{
	HASH_SEQ_STATUS scan;
	Held	   *held;

	if (xact_holds == 0 || (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB))
		return;
	hash_seq_init(&scan, held_locks);
	while ((held = hash_seq_search(&scan)) != NULL)
	{
		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			for (XactHold *hold = held->xact; hold && hold->subid == subid; hold = hold->next)
				hold->subid = parent;
			continue;
		}
		if (held->xact == NULL || held->xact->subid != subid)
			continue;
		while (held->xact && held->xact->subid == subid)
		{
			held->xact = held->xact->next;
			xact_holds--;
		}
		if (held->xact == NULL)
			end_xact_kind(held);
	}
}

/*
 * However the session ends, and before it aborts its transaction: that releases
 * the local locks.  What the locks protect on other nodes ends first, as far as these answer within
 * seconds.  A branch that does not can't commit any more, unless it was
 * prepared and left to recovery: then it holds its rows, the fence's included.
 */
static void
end_of_session(int code, Datum arg)
{
	HASH_SEQ_STATUS scan;
	Held	   *held;

	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	ra_global_end_of_session();
	hash_seq_init(&scan, held_locks);
	while ((held = hash_seq_search(&scan)) != NULL)
	{
		LWLock	   *partition = ra_lock_partition(&held->key);

		if (held == acquiring)
			not_wanted(held);
		else if (awaited && memcmp(&awaited->key, &held->key, sizeof(RaLockKey)) == 0)
		{
			LWLockAcquire(partition, LW_EXCLUSIVE);
			end_wait();
			LWLockRelease(partition);
		}
		else
			leave(held);
	}
	xact_holds = 0;
}
