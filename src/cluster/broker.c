/*
 * broker.c
 *	  The one process of a server that talks to the coordination service.
 *
 * It owns the session that proves this server alive, and asks for locks on
 * behalf of all sessions (lock.c), which tell it by putting an entry of the lock table
 * into its queue.  One entry stands for any number of sessions that want the
 * same lock.  It also keeps this server in the list of members, and asks for
 * the one lock whose holder is the leader.
 *
 * The service's client library is loaded here and nowhere else, through a
 * provider (src/provider/provider.h); its callbacks run in this process's main
 * thread, but for ra_decisions_stands() and _wake().  They must not throw through the library's
 * frames, so they only copy and note; what they log goes through report().
 *
 * When this process ends, so does its session: locks are lost and their
 * holders find out by the epoch.  When it had no chance to say goodbye (the
 * server crashed), its successor ends the old session first, so that
 * nobody has to wait for a timeout.
 */
#include "postgres.h"

#include "fmgr.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cluster/broker.h"
#include "cluster/credentials.h"
#include "cluster/decision.h"
#include "cluster/fence.h"
#include "cluster/locktable.h"
#include "cluster/members.h"
#include "cluster/register.h"
#include "cluster/sessionfile.h"
#include "compat.h"
#include "guc.h"
#include "provider/provider.h"
#include "risk_alert.h"

/* the leader's lock; users' keys begin with 't' or 'i' */
#define LEADER_KEY "leader"

/* how long a shutdown may wait for the service */
#define CLOSE_MS 1000

#define MEMBER_INTERVAL_MS 1000

/* as a client and a session need for a round trip of theirs; plus what the kernel adds */
#define LINGER_US 30

/* One request made to the provider.  Belongs to it until it says that it is over. */
typedef struct Request
{
	RaLockEntry *entry;			/* NULL: given up, or the leader's */
	bool		leader;
	RaProviderRequest *handle;
} Request;

static const RaProviderOps *ops;
static RaProvider *provider;
static Request *leader_request;
static bool leading;
static uint64 member_told_at;	/* ra_boottime(); 0: tell them now */

/* answer to a list that is on its way */
static uint64 list_target;
static int	list_size;
static bool list_cut;			/* some did not fit */
static RaListing *list_found;
static dsm_segment *list_segment;

static void broker_exit(int code, Datum arg);
static void open_provider(void);
static void broker_fail(const char *message, const char *hint);
static void set_state(RaBrokerState state, const char *detail);
static void new_epoch(bool session);
static void report(int level, const char *message, const char *detail, const char *hint);
static void report_caught(void);
static void linger(void);
static void serve_queue(void);
static bool of_use(const RaLockEntry *entry);
static void serve_entry(RaLockEntry *entry);
static void give_up(RaLockEntry *entry);
static bool nobody_wants(RaLockEntry *entry);
static void ask_for_leadership(void);
static void tell_member(void);
static void serve_list(void);
static bool publish_list(void);

static void on_session(void *arg, const char *description, uint64_t generation, int timeout_ms);
static void on_connected(void *arg, bool connected, const char *detail);
static void on_session_lost(void *arg, const char *detail);
static void on_lease(void *arg, int64_t valid_until);
static void on_granted(void *arg, void *owner, uint64_t token, bool waited);
static void on_refused(void *arg, void *owner);
static void on_released(void *arg, void *owner);
static void on_lost(void *arg, void *owner);
static void on_contended(void *arg, void *owner, bool contended);
static void on_members(void *arg, const RaProviderMember *members, int n);
static void on_listed(void *arg, void *owner, const RaProviderEntry *entry, const char *error);
static void on_log(void *arg, RaProviderLevel level, const char *message, const char *hint);

static const RaProviderCallbacks callbacks = {
	.session = on_session,
	.connected = on_connected,
	.session_lost = on_session_lost,
	.lease = on_lease,
	.granted = on_granted,
	.refused = on_refused,
	.released = on_released,
	.lost = on_lost,
	.contended = on_contended,
	.members = on_members,
	.listed = on_listed,
	.decided = ra_decisions_answer,
	.stands = ra_decisions_stands,
	.wake = ra_decisions_wake,
	.left = ra_decisions_left,
	.log = on_log,
};

void
ra_broker_register(void)
{
	BackgroundWorker worker;

	if (ra_lock_provider == RA_LOCK_PROVIDER_LOCAL && !ra_broker_serves_zookeeper())
		return;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 5;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "risk_alert");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "ra_broker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "risk_alert broker");
	snprintf(worker.bgw_type, BGW_MAXLEN, "risk_alert broker");
	RegisterBackgroundWorker(&worker);
}

/* One process has one service: with locks of Redis, registers have none */
bool
ra_broker_serves_zookeeper(void)
{
	if (ra_lock_provider != RA_LOCK_PROVIDER_LOCAL)
		return ra_lock_provider == RA_LOCK_PROVIDER_ZOOKEEPER;
	return ra_commit_register == RA_REGISTER_ZOOKEEPER;
}

void
ra_broker_main(Datum main_arg)
{
	static uint32 wait_event = 0;
	WaitEventSet *set = NULL;
	int			set_fd = -1;
	int			position = -1;
	bool		set_writable = false;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* the default handler would exit from within whatever the library is doing */
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	/* there is no query to cancel */
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();

	/* To no database; else pg_stat_activity and pg_terminate_backend() don't know us */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	before_shmem_exit(broker_exit, (Datum) 0);
	ra_cluster->broker_pid = MyProcPid;
	set_state(RA_BROKER_CONNECTING, "the broker has just been started");
	open_provider();
	ask_for_leadership();
	ra_cluster->broker_latch = MyLatch;

	for (;;)
	{
		WaitEvent	events[2];
		bool		writable = false;
		int64_t		until = INT64_MAX;
		uint64		boottime;
		long		timeout;
		int			fd;

		ResetLatch(MyLatch);
		if (ShutdownRequestPending)
			proc_exit(1);		/* to be started again, unless at shutdown */
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (ProcSignalBarrierPending)
			ProcessProcSignalBarrier();

		linger();
		serve_queue();
		serve_list();
		ra_decisions_serve(ops, provider);
		tell_member();
		ops->process(provider);

		fd = ops->wait_for(provider, &writable, &until);
		if (set == NULL || fd != set_fd)
		{
			if (set)
				FreeWaitEventSet(set);
			set = ra_create_wait_event_set(3, true);
			AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
			AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
			position = -1;
			if (fd >= 0)
				position = AddWaitEventToSet(set,
											 WL_SOCKET_READABLE | (writable ? WL_SOCKET_WRITEABLE : 0),
											 fd, NULL, NULL);
			set_fd = fd;
			set_writable = writable;
		}
		else if (position >= 0 && writable != set_writable)
		{
			ModifyWaitEvent(set, position,
							WL_SOCKET_READABLE | (writable ? WL_SOCKET_WRITEABLE : 0), NULL);
			set_writable = writable;
		}

		timeout = MEMBER_INTERVAL_MS;
		boottime = ra_boottime();
		if (until <= (int64_t) boottime)
			timeout = 0;
		else if (until - (int64_t) boottime < (int64_t) MEMBER_INTERVAL_MS * 1000000)
			timeout = (until - (int64_t) boottime + 999999) / 1000000;
		WaitEventSetWait(set, timeout, events, lengthof(events),
						 ra_wait_event(&wait_event, "RiskAlertBroker"));
	}
}

/*
 * However this process ends, holders must not trust their locks from here on:
 * first the epoch, then the session.
 */
static void
broker_exit(int code, Datum arg)
{
	LWLockReleaseAll();
	ra_cluster->broker_latch = NULL;
	if (pg_atomic_read_u64(&ra_cluster->epoch) & 1)
		new_epoch(false);
	if (provider)
	{
		ops->close(provider, (int64_t) ra_boottime() + (int64_t) CLOSE_MS * 1000000);
		provider = NULL;
		ra_session_file_remove();
	}
	ra_cluster->broker_pid = 0;
	if (ra_cluster->state != RA_BROKER_FAILED)
		set_state(RA_BROKER_STARTING, "the broker has ended");
}

/* Entries that an earlier broker served, or that were queued while there was none */
static void
begin_anew(RaLockEntry *entry, void *arg)
{
	entry->state = RA_ENTRY_IDLE;
	entry->request = NULL;
	entry->give_up = false;
	entry->look = false;
	ra_entry_disown(entry);
	if (entry->waiters > 0)
		ra_entry_queue(entry);
	else
		ra_entry_tidy(entry);
}

static void
open_provider(void)
{
	RaProviderConfig config;
	char		error[256];
	char		library[MAXPGPATH];
	const char *name;
	RaProviderEntryPoint entry_point;
	char	   *previous;
	RaLockEntry *entry;

	while ((entry = ra_entry_dequeue()) != NULL)
	{
		LWLock	   *partition = ra_lock_partition(&entry->key);

		LWLockAcquire(partition, LW_EXCLUSIVE);
		entry->queued = false;
		LWLockRelease(partition);
	}
	/* local locks are none of our business */
	if (ra_lock_provider != RA_LOCK_PROVIDER_LOCAL)
		ra_entries_visit(begin_anew, NULL);
	ra_decisions_begin();

	name = ra_cluster->zookeeper ? "zookeeper" : "redis";
	memset(&config, 0, sizeof(config));
	config.hosts = ra_cluster->zookeeper ? ra_zookeeper_hosts : ra_redis_hosts;
	if (ra_node_name[0] == '\0')
		broker_fail("risk_alert.node_name is not set", NULL);
	if (config.hosts[0] == '\0')
		broker_fail(psprintf("risk_alert.%s_hosts is not set", name), NULL);

	PG_TRY();
	{
		snprintf(library, sizeof(library), "$libdir/risk_alert_%s", name);
		entry_point = (RaProviderEntryPoint)
			load_external_function(library, RA_PROVIDER_SYMBOL, true, NULL);
		ops = entry_point();
		if (ops->api != RA_PROVIDER_API)
			elog(ERROR, "library \"%s\" is of another version of risk_alert", library);
		ra_coordination_credentials(ops, &config);
		config.generation_seen = ra_generation_seen();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(TopMemoryContext);
		edata = CopyErrorData();
		FlushErrorState();
		broker_fail(edata->message, edata->hint);
	}
	PG_END_TRY();

	previous = ra_session_file_read();
	config.cluster = ra_cluster_name;
	config.node = ra_node_name;
	config.session_timeout_ms = ra_session_timeout;
	config.previous_session = previous;
	provider = ops->open(&config, &callbacks, NULL, error, sizeof(error));
	ra_coordination_forget(&config);
	if (provider == NULL)
		broker_fail(error, NULL);
	if (previous)
		pfree(previous);
	set_state(RA_BROKER_CONNECTING, "not connected yet");
}

/* Waiting would not help: tell whoever asks for a lock, and try again with the next process */
static void
broker_fail(const char *message, const char *hint)
{
	set_state(RA_BROKER_FAILED, message);
	ereport(FATAL,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("risk_alert broker can't work: %s", message),
			 hint ? errhint("%s", hint) :
			 errhint("Correct the setting, or install what is missing; advisory locks of the cluster are not available meanwhile.")));
}

static void
wake_waiters(RaLockEntry *entry, void *arg)
{
	if (entry->waiters > 0)
		ConditionVariableBroadcast(&entry->changed);
}

static void
set_state(RaBrokerState state, const char *detail)
{
	bool		wake;

	LWLockAcquire(ra_cluster->lock, LW_EXCLUSIVE);
	wake = state != ra_cluster->state;
	if (wake)
		ra_cluster->since = GetCurrentTimestamp();
	ra_cluster->state = state;
	strlcpy(ra_cluster->last_error, detail ? detail : "", sizeof(ra_cluster->last_error));
	LWLockRelease(ra_cluster->lock);

	/* whoever waits may have to give up, or to begin */
	if (wake)
		ra_entries_visit(wake_waiters, NULL);
}

/* Only this process writes the epoch */
static void
new_epoch(bool session)
{
	uint64		epoch = pg_atomic_read_u64(&ra_cluster->epoch);

	/* in this order: the new epoch must not be seen with the old one's lease */
	pg_atomic_write_u64(&ra_cluster->valid_until, 0);
	pg_memory_barrier();
	pg_atomic_write_u64(&ra_cluster->epoch, ((epoch + 1) | 1) + (session ? 0 : 1));
	pg_memory_barrier();
}

/*
 * Log from within a callback.  Even a mere message could throw: for want of
 * memory, from another library's hook, or because it looks for interrupts at its
 * end.  The caller may hold a lock of the table, whose count of interrupts held off
 * an error would have forgotten.
 */
static void
report(int level, const char *message, const char *detail, const char *hint)
{
	MemoryContext context = CurrentMemoryContext;
	uint32		holdoff = InterruptHoldoffCount;

	PG_TRY();
	{
		HOLD_INTERRUPTS();
		ereport(level,
				(errmsg_internal("risk_alert: %s", message),
				 detail ? errdetail_internal("%s", detail) : 0,
				 hint ? errhint("%s", hint) : 0));
	}
	PG_CATCH();
	{
		/* it could not be told: nor can this */
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	InterruptHoldoffCount = holdoff;
}

/* The same for an error that was caught */
static void
report_caught(void)
{
	PG_TRY();
	{
		EmitErrorReport();
	}
	PG_CATCH();
	{
	}
	PG_END_TRY();
	FlushErrorState();
}

/*
 * If all that is to be done is to give up locks that no other node is known to want: a
 * session that locks and unlocks in a loop comes back within this time, and takes its lock again
 * without the service.
 */
static void
linger(void)
{
	bool		urgent = ra_cluster->urgent;

	ra_cluster->urgent = false;
	if (!urgent && ra_entries_queued())
		pg_usleep(LINGER_US);
}

static void
serve_queue(void)
{
	RaLockEntry *entry;

	while ((entry = ra_entry_dequeue()) != NULL)
	{
		LWLock	   *partition = ra_lock_partition(&entry->key);

		LWLockAcquire(partition, LW_EXCLUSIVE);
		entry->queued = false;
		if (entry->state == RA_ENTRY_HELD && entry->look)
		{
			entry->look = false;
			ops->look(provider, ((Request *) entry->request)->handle);
		}
		if (entry->state == RA_ENTRY_HELD && entry->users == 0 && entry->waiters == 0 &&
			!entry->give_up)
		{
			/* kept for a session that was about to get it: is it still there? */
			LWLockRelease(partition);
			if (nobody_wants(entry))
				continue;
			LWLockAcquire(partition, LW_EXCLUSIVE);
		}
		else
			serve_entry(entry);
		ra_entry_tidy(entry);
		LWLockRelease(partition);
	}
}

/* Under the partition's lock: can what was granted be given to those who wait? */
static bool
of_use(const RaLockEntry *entry)
{
	return (entry->exclusive || !entry->wants_exclusive) &&
		entry->sequence < RA_TOKEN_SEQUENCE_MAX &&
		entry->epoch == pg_atomic_read_u64(&ra_cluster->epoch);
}

/*
 * Under the partition's lock: make what is asked of the service what the
 * sessions need.
 */
static void
serve_entry(RaLockEntry *entry)
{
	if (entry->state == RA_ENTRY_WAITING &&
		(entry->waiters == 0 || (entry->wants_exclusive && !entry->exclusive)))
		give_up(entry);
	if (entry->state == RA_ENTRY_HELD && entry->users == 0 &&
		(entry->give_up || (entry->waiters > 0 && !of_use(entry))))
		give_up(entry);			/* nothing that waiters wait for: it is asked for anew below */
	if (entry->state == RA_ENTRY_IDLE && entry->waiters > 0)
	{
		Request    *request = malloc(sizeof(Request));

		if (request == NULL)
			return;				/* see recheck() */
		request->entry = entry;
		request->leader = false;
		entry->request = request;
		entry->state = RA_ENTRY_WAITING;
		entry->exclusive = entry->wants_exclusive;
		entry->nowait = entry->nowait_waiters == entry->waiters;
		pg_atomic_fetch_add_u64(&ra_cluster->requests, 1);
		request->handle = ops->acquire(provider, request, entry->name.data, entry->name.len,
									   entry->exclusive ? RA_PROVIDER_EXCLUSIVE : RA_PROVIDER_SHARED,
									   entry->nowait);
		if (request->handle == NULL && entry->request == request)
		{
			entry->request = NULL;
			entry->state = RA_ENTRY_IDLE;
			free(request);
		}
	}
}

/*
 * The service may take its time over the release; a new request for the same
 * key can follow at once, as it is queued behind.
 */
static void
give_up(RaLockEntry *entry)
{
	Request    *request = entry->request;

	request->entry = NULL;
	entry->request = NULL;
	entry->state = RA_ENTRY_IDLE;
	entry->give_up = false;
	entry->look = false;
	ops->release(provider, request->handle);
}

/*
 * Is no session there any more that has the local lock, or waits for it?  Then the
 * entry has been given up.  Without the partition's lock: a local lock is taken
 * first.  We look, and don't take the local lock for that, as somebody's try_ function might run into
 * it.  So a session may come just now; it finds the entry given up, and asks anew.
 */
static bool
nobody_wants(RaLockEntry *entry)
{
	LOCKTAG		tag;
	RaLockKey	key = entry->key;
	LWLock	   *partition = ra_lock_partition(&key);

	ra_lock_tag(&tag, &key);
	if (ra_locally_locked(&tag))
		return false;			/* whoever has it will decide */
	LWLockAcquire(partition, LW_EXCLUSIVE);
	/* it can't have gone: it is held, and only we could change that */
	if (entry->state == RA_ENTRY_HELD && entry->users == 0 && entry->waiters == 0)
		give_up(entry);
	ra_entry_tidy(entry);
	LWLockRelease(partition);
	return true;
}

static void
ask_for_leadership(void)
{
	Request    *request = malloc(sizeof(Request));

	if (request == NULL)
		return;
	request->entry = NULL;
	request->leader = true;
	leader_request = request;
	request->handle = ops->acquire(provider, request, LEADER_KEY, strlen(LEADER_KEY),
								   RA_PROVIDER_EXCLUSIVE, false);
	if (request->handle == NULL)
	{
		/* no memory: with the next report to the members */
		leader_request = NULL;
		free(request);
	}
}

/*
 * Kept for a session that was about to get it, as it seems for a while now; or
 * there was no memory to ask for it
 */
static void
recheck(RaLockEntry *entry, void *arg)
{
	if ((entry->state == RA_ENTRY_HELD && entry->users == 0) ||
		(entry->state == RA_ENTRY_IDLE && entry->waiters > 0))
		ra_entry_queue(entry);
}

/* What other nodes shall know about this one */
static void
tell_member(void)
{
	char		data[RA_MEMBER_DATA];
	uint64		now = ra_boottime();

	if (member_told_at != 0 && now - member_told_at < (uint64) MEMBER_INTERVAL_MS * 1000000)
		return;
	member_told_at = now;
	ra_entries_visit(recheck, NULL);
	if (leader_request == NULL)
		ask_for_leadership();
	if (leading)
		ra_decisions_sweep(ops, provider);

	ra_member_describe(data, sizeof(data), leading);
	ops->set_member(provider, data);
}

static void
serve_list(void)
{
	uint64		requested;

	if (list_target != 0)
		return;
	LWLockAcquire(ra_cluster->lock, LW_SHARED);
	requested = ra_cluster->list_requested;
	if (requested == ra_cluster->list_done)
		requested = 0;
	LWLockRelease(ra_cluster->lock);
	if (requested == 0)
		return;
	list_target = requested;
	list_size = 64;
	list_cut = false;
	list_found = malloc(offsetof(RaListing, entries) + list_size * sizeof(RaListedEntry));
	if (list_found)
		list_found->n = 0;
	ops->list(provider, NULL);
}

/* ---- callbacks: see provider.h */

static void
on_session(void *arg, const char *description, uint64_t generation, int timeout_ms)
{
	MemoryContext context = CurrentMemoryContext;
	char		message[256];

	if (!ra_session_file_write(description))
	{
		snprintf(message, sizeof(message), "could not write the session's file: %m");
		report(LOG, message, NULL, "After a crash of this server its locks become free when the session expires.");
	}
	if (ra_lock_provider != RA_LOCK_PROVIDER_LOCAL)
		pg_atomic_write_u64(&ra_cluster->generation, generation);
	PG_TRY();
	{
		ra_generation_note(generation);
	}
	PG_CATCH();
	{
		/* the next one that is seen will be noted; time keeps it growing too */
		MemoryContextSwitchTo(context);
		report_caught();
	}
	PG_END_TRY();

	/* a generation that was raised within the session leaves its locks as they are */
	if (pg_atomic_read_u64(&ra_cluster->epoch) & 1)
		return;
	new_epoch(true);
	member_told_at = 0;			/* what it says names the session */

	set_state(RA_BROKER_CONNECTED, NULL);
	snprintf(message, sizeof(message), "session at %s begun, timeout %d ms", ops->name, timeout_ms);
	report(LOG, message, NULL, NULL);
}

static void
on_connected(void *arg, bool connected, const char *detail)
{
	bool		session = pg_atomic_read_u64(&ra_cluster->epoch) & 1;

	if (session)
		set_state(connected ? RA_BROKER_CONNECTED : RA_BROKER_DISCONNECTED, detail);
	else
		set_state(RA_BROKER_CONNECTING, detail);
}

static void
on_session_lost(void *arg, const char *detail)
{
	char		message[512];

	ra_session_file_remove();
	leading = false;
	pg_atomic_fetch_add_u64(&ra_cluster->losses, 1);
	new_epoch(false);
	set_state(RA_BROKER_CONNECTING, detail);
	snprintf(message, sizeof(message), "session at %s lost: %s", ops->name, detail ? detail : "expired");
	report(LOG, message,
		   "Cluster-wide advisory locks held until now are lost; transactions that hold one will fail.", NULL);
}

static void
on_lease(void *arg, int64_t valid_until)
{
	uint64		before = pg_atomic_read_u64(&ra_cluster->valid_until);

	if (!(pg_atomic_read_u64(&ra_cluster->epoch) & 1) || (uint64) valid_until <= before)
		return;
	pg_atomic_write_u64(&ra_cluster->valid_until, (uint64) valid_until);

	/* sessions that found a lease run out wait for it */
	if (before <= ra_boottime())
		ra_entries_visit(wake_waiters, NULL);
}

static void
on_granted(void *arg, void *owner, uint64_t token, bool waited)
{
	Request    *request = owner;
	RaLockEntry *entry = request->entry;
	LWLock	   *partition;
	bool		mine;
	bool		wake;

	if (request->leader)
	{
		leading = true;
		pg_atomic_write_u64(&ra_cluster->leader_epoch, pg_atomic_read_u64(&ra_cluster->epoch));
		member_told_at = 0;
		return;
	}
	if (entry == NULL)
		return;
	partition = ra_lock_partition(&entry->key);

	/* a provider may answer from within acquire(), which serve_entry() calls */
	mine = LWLockHeldByMe(partition);
	if (!mine)
		LWLockAcquire(partition, LW_EXCLUSIVE);
	entry->state = RA_ENTRY_HELD;
	entry->epoch = pg_atomic_read_u64(&ra_cluster->epoch);
	entry->generation = pg_atomic_read_u64(&ra_cluster->generation);
	entry->token = token;
	entry->sequence = 0;
	entry->handovers = 0;
	entry->contended = false;
	entry->waited = waited;
	entry->look = false;
	entry->give_up = entry->waiters == 0;
	wake = !entry->give_up;
	if (entry->give_up)
		ra_entry_queue(entry);
	if (!mine)
		LWLockRelease(partition);

	/*
	 * Not sooner, as who wakes up wants the partition's lock.  The entry is still there: only
	 * this process can make it idle.
	 */
	if (wake)
		ConditionVariableBroadcast(&entry->changed);
}

/* The request is over, other than by the user's wish: the entry is as if never asked for */
static void
request_ended(Request *request, bool refused)
{
	RaLockEntry *entry = request->entry;

	if (request->leader)
	{
		/* asked for again with the next report to the members */
		leader_request = NULL;
		leading = false;
		pg_atomic_write_u64(&ra_cluster->leader_epoch, 0);
	}
	else if (entry)
	{
		LWLock	   *partition = ra_lock_partition(&entry->key);
		bool		mine = LWLockHeldByMe(partition);

		if (!mine)
			LWLockAcquire(partition, LW_EXCLUSIVE);
		entry->request = NULL;
		entry->state = RA_ENTRY_IDLE;
		entry->give_up = false;
		entry->look = false;
		/* if it was lost, its users have it no longer */
		ra_entry_disown(entry);
		if (refused)
			entry->refusals++;
		if (entry->waiters > 0)
		{
			if (entry->waiters > entry->nowait_waiters || !refused)
				ra_entry_queue(entry);
			ConditionVariableBroadcast(&entry->changed);
		}
		if (!mine)
		{
			ra_entry_tidy(entry);
			LWLockRelease(partition);
		}
	}
	free(request);
}

static void
on_refused(void *arg, void *owner)
{
	request_ended(owner, true);
}

static void
on_released(void *arg, void *owner)
{
	request_ended(owner, false);
}

static void
on_lost(void *arg, void *owner)
{
	request_ended(owner, false);
}

static void
on_contended(void *arg, void *owner, bool contended)
{
	Request    *request = owner;
	RaLockEntry *entry = request->entry;
	LWLock	   *partition;
	bool		mine;

	if (entry == NULL)
		return;
	partition = ra_lock_partition(&entry->key);
	mine = LWLockHeldByMe(partition);
	if (!mine)
		LWLockAcquire(partition, LW_EXCLUSIVE);
	entry->contended = contended;
	if (!contended)
	{
		/* readers may have been kept waiting in case it were */
		entry->handovers = 0;
		if (entry->waiters > 0)
			ConditionVariableBroadcast(&entry->changed);
	}
	if (!mine)
		LWLockRelease(partition);
}

static void
on_members(void *arg, const RaProviderMember *members, int n)
{
	int			i;

	LWLockAcquire(ra_cluster->lock, LW_EXCLUSIVE);
	ra_cluster->nmembers = Min(n, RA_MAX_MEMBERS);
	for (i = 0; i < ra_cluster->nmembers; i++)
	{
		RaMemberSlot *slot = &ra_cluster->members[i];

		strlcpy(slot->name, members[i].node, sizeof(slot->name));
		strlcpy(slot->data, members[i].data, sizeof(slot->data));
		slot->self = members[i].self;
	}
	ra_cluster->members_version++;
	ra_cluster->members_at = GetCurrentTimestamp();
	LWLockRelease(ra_cluster->lock);
}

static void
on_listed(void *arg, void *owner, const RaProviderEntry *entry, const char *error)
{
	if (entry)
	{
		RaListedEntry *to;

		/* the leader's lock is none of the users' */
		if (entry->keylen > (int) sizeof(to->name.data) || entry->keylen < 1 ||
			(entry->key[0] != 't' && entry->key[0] != 'i'))
			return;
		if (list_found && list_found->n == list_size)
		{
			RaListing  *larger = NULL;

			if (list_size < 1000000)
				larger = realloc(list_found, offsetof(RaListing, entries) +
								 (Size) list_size * 2 * sizeof(RaListedEntry));
			if (larger == NULL)
			{
				list_cut = true;
				return;
			}
			list_found = larger;
			list_size *= 2;
		}
		if (list_found == NULL)
			return;
		to = &list_found->entries[list_found->n++];
		to->name.len = entry->keylen;
		memcpy(to->name.data, entry->key, entry->keylen);
		strlcpy(to->node, entry->node, sizeof(to->node));
		to->exclusive = entry->mode == RA_PROVIDER_EXCLUSIVE;
		to->granted = entry->granted;
		to->position = entry->position;
		to->token = entry->token;
		return;
	}

	if (list_found == NULL)
		error = "out of memory";
	else if (!publish_list())
		error = "no shared memory for the list";
	else if (error == NULL && list_cut)
		error = "the list is too long";
	free(list_found);
	list_found = NULL;

	LWLockAcquire(ra_cluster->lock, LW_EXCLUSIVE);
	strlcpy(ra_cluster->list_error, error ? error : "", sizeof(ra_cluster->list_error));
	ra_cluster->list_done = list_target;
	LWLockRelease(ra_cluster->lock);
	list_target = 0;
	ConditionVariableBroadcast(&ra_cluster->list_changed);
	SetLatch(MyLatch);			/* somebody may have asked meanwhile */
}

/* Make list_found the list that readers find */
static bool
publish_list(void)
{
	Size		size = offsetof(RaListing, entries) + list_found->n * sizeof(RaListedEntry);
	dsm_segment *volatile segment = NULL;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		segment = dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		report_caught();
	}
	PG_END_TRY();
	if (segment == NULL)
		return false;
	memcpy(dsm_segment_address(segment), list_found, size);
	LWLockAcquire(ra_cluster->lock, LW_EXCLUSIVE);
	ra_cluster->list_segment = dsm_segment_handle(segment);
	LWLockRelease(ra_cluster->lock);
	/* who reads the old one keeps it until they have done */
	if (list_segment)
		dsm_detach(list_segment);
	list_segment = segment;
	return true;
}

static void
on_log(void *arg, RaProviderLevel level, const char *message, const char *hint)
{
	report(level == RA_PROVIDER_WARNING ? WARNING : level == RA_PROVIDER_INFO ? LOG : DEBUG1,
		   message, NULL, hint);
	if (level == RA_PROVIDER_WARNING)
	{
		LWLockAcquire(ra_cluster->lock, LW_EXCLUSIVE);
		strlcpy(ra_cluster->last_error, message, sizeof(ra_cluster->last_error));
		LWLockRelease(ra_cluster->lock);
	}
}
