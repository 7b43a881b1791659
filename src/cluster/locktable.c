/*
 * locktable.c
 *	  What the processes of a server share about the cluster's advisory locks.
 *
 * Order of locks: PostgreSQL's own lock on the key (a heavyweight lock), the
 * entry's partition, the queue's spinlock.  Nothing throws while one of the
 * latter two is held.
 */
#include "postgres.h"

#include <time.h>

#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "cluster/broker.h"
#include "cluster/decision.h"
#include "cluster/fence.h"
#include "cluster/locktable.h"
#include "guc.h"
#include "risk_alert.h"

RaCluster  *ra_cluster = NULL;

static HTAB *entries = NULL;

#define TRANCHE "risk_alert_locks"

static uint32
key_hash(const void *key, Size size)
{
	/* the key is a digest already */
	return (uint32) ((const RaLockKey *) key)->low;
}

static LWLock *
partition_of(uint32 hash)
{
	return &ra_cluster->partitions[hash % RA_LOCK_PARTITIONS].lock;
}

LWLock *
ra_lock_partition(const RaLockKey *key)
{
	return partition_of(key_hash(key, sizeof(*key)));
}

Size
ra_locktable_shmem_size(void)
{
	return add_size(add_size(MAXALIGN(sizeof(RaCluster)), ra_decisions_shmem_size()),
					hash_estimate_size(ra_max_locks, sizeof(RaLockEntry)));
}

void
ra_locktable_shmem_request(void)
{
	RequestAddinShmemSpace(ra_locktable_shmem_size());
	RequestNamedLWLockTranche(TRANCHE, RA_LOCK_PARTITIONS + 2);
}

/* The caller holds AddinShmemInitLock */
void
ra_locktable_shmem_startup(void)
{
	HASHCTL		info;
	bool		found;

	ra_cluster = ShmemInitStruct("risk_alert cluster", sizeof(RaCluster), &found);
	if (!found)
	{
		memset(ra_cluster, 0, sizeof(RaCluster));
		ra_cluster->partitions = GetNamedLWLockTranche(TRANCHE);
		ra_cluster->lock = &ra_cluster->partitions[RA_LOCK_PARTITIONS].lock;
		SpinLockInit(&ra_cluster->queue_lock);
		dlist_init(&ra_cluster->queue);
		pg_atomic_init_u64(&ra_cluster->epoch, 0);
		pg_atomic_init_u64(&ra_cluster->valid_until, 0);
		pg_atomic_init_u64(&ra_cluster->leader_epoch, 0);
		pg_atomic_init_u64(&ra_cluster->generation, 0);
		pg_atomic_init_u64(&ra_cluster->local_token, 0);
		pg_atomic_init_u64(&ra_cluster->users_id, 0);
		pg_atomic_init_u64(&ra_cluster->grants, 0);
		pg_atomic_init_u64(&ra_cluster->handovers, 0);
		pg_atomic_init_u64(&ra_cluster->requests, 0);
		pg_atomic_init_u64(&ra_cluster->losses, 0);
		ra_cluster->zookeeper = ra_broker_serves_zookeeper();
		ConditionVariableInit(&ra_cluster->list_changed);
		ra_cluster->list_segment = DSM_HANDLE_INVALID;

		/*
		 * Without a coordination service the tokens are counted here, anew in
		 * each life of this memory: each has a generation of its own.
		 */
		if (ra_lock_provider == RA_LOCK_PROVIDER_LOCAL)
			pg_atomic_write_u64(&ra_cluster->generation, ra_generation_raise());
	}

	ra_decisions_shmem_startup(&ra_cluster->partitions[RA_LOCK_PARTITIONS + 1].lock);

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(RaLockKey);
	info.entrysize = sizeof(RaLockEntry);
	info.hash = key_hash;
	info.num_partitions = RA_LOCK_PARTITIONS;
	entries = ShmemInitHash("risk_alert locks", ra_max_locks, ra_max_locks, &info,
							HASH_ELEM | HASH_FUNCTION | HASH_PARTITION | HASH_FIXED_SIZE);
}

uint64
ra_boottime(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64) t.tv_sec * 1000000000 + t.tv_nsec;
}

RaLockEntry *
ra_entry_find(const RaLockKey *key)
{
	return hash_search_with_hash_value(entries, key, key_hash(key, sizeof(*key)), HASH_FIND, NULL);
}

RaLockEntry *
ra_entry_make(const RaLockKey *key, const RaLockName *name)
{
	bool		found;
	RaLockEntry *entry;

	entry = hash_search_with_hash_value(entries, key, key_hash(key, sizeof(*key)),
										HASH_ENTER_NULL, &found);
	if (entry && !found)
	{
		memset((char *) entry + sizeof(RaLockKey), 0, sizeof(RaLockEntry) - sizeof(RaLockKey));
		memcpy(&entry->name, name, offsetof(RaLockName, data) + name->len);
		entry->state = RA_ENTRY_IDLE;
		entry->users_id = pg_atomic_add_fetch_u64(&ra_cluster->users_id, 1);
		ConditionVariableInit(&entry->changed);
	}
	return entry;
}

void
ra_entry_tidy(RaLockEntry *entry)
{
	if (entry->state == RA_ENTRY_IDLE && entry->users == 0 && entry->lost_users == 0 &&
		entry->waiters == 0 && !entry->queued)
		hash_search_with_hash_value(entries, &entry->key, key_hash(&entry->key, sizeof(RaLockKey)),
									HASH_REMOVE, NULL);
}

void
ra_entry_disown(RaLockEntry *entry)
{
	entry->lost_users += entry->users;
	entry->users = 0;
	entry->users_id = pg_atomic_add_fetch_u64(&ra_cluster->users_id, 1);
}

void
ra_entry_queue(RaLockEntry *entry)
{
	ra_entry_enqueue(entry);
	ra_broker_wake(false);
}

void
ra_entry_enqueue(RaLockEntry *entry)
{
	if (entry->queued)
		return;
	entry->queued = true;
	SpinLockAcquire(&ra_cluster->queue_lock);
	dlist_push_tail(&ra_cluster->queue, &entry->node);
	SpinLockRelease(&ra_cluster->queue_lock);
}

void
ra_broker_wake(bool linger)
{
	Latch	   *latch = ra_cluster->broker_latch;

	if (!linger)
		ra_cluster->urgent = true;

	if (latch)
		SetLatch(latch);
}

/*
 * queued stays true, which keeps the entry in place, until the broker has
 * the partition's lock and sets it false.
 */
RaLockEntry *
ra_entry_dequeue(void)
{
	RaLockEntry *entry = NULL;

	SpinLockAcquire(&ra_cluster->queue_lock);
	if (!dlist_is_empty(&ra_cluster->queue))
		entry = dlist_container(RaLockEntry, node, dlist_pop_head_node(&ra_cluster->queue));
	SpinLockRelease(&ra_cluster->queue_lock);
	return entry;
}

bool
ra_entries_queued(void)
{
	return !dlist_is_empty(&ra_cluster->queue);
}

void
ra_entries_visit(RaEntryVisitor visit, void *arg)
{
	HASH_SEQ_STATUS scan;
	RaLockEntry *entry;
	int			i;

	/*
	 * All partitions, as a scan of a shared hash table has no other protection.
	 * Readers of views and lost sessions do that, nobody in a hurry.
	 */
	for (i = 0; i < RA_LOCK_PARTITIONS; i++)
		LWLockAcquire(&ra_cluster->partitions[i].lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, entries);
	while ((entry = hash_seq_search(&scan)) != NULL)
		visit(entry, arg);
	for (i = RA_LOCK_PARTITIONS; --i >= 0;)
		LWLockRelease(&ra_cluster->partitions[i].lock);
}

/* One for the whole server, not per database: other nodes' databases have other OIDs */
void
ra_lock_tag(LOCKTAG *tag, const RaLockKey *key)
{
	SET_LOCKTAG_ADVISORY(*tag, InvalidOid, (uint32) (key->high >> 32), (uint32) key->high,
						 RA_LOCK_CLASS);
}

/*
 * Does any session have the local lock that is about to tell us more?  (One that
 * only keeps it is in no transaction, and does not count.)
 */
bool
ra_locally_locked(const LOCKTAG *tag)
{
	MemoryContext context = CurrentMemoryContext;
	volatile int n = 1;

	PG_TRY();
	{
		int			found;

		pfree(GetLockConflicts(tag, ExclusiveLock, &found));
		n = found;
	}
	PG_CATCH();
	{
		/* no memory: looked at again with the next report to the members */
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return n > 0;
}

const char *
ra_local_holder(const LOCKTAG *tag, LOCKMODE mode)
{
	LockData   *locks = GetLockStatusData();
	LOCKMASK	conflicting = LOCKBIT_ON(ExclusiveLock) | (mode == ExclusiveLock ? LOCKBIT_ON(ShareLock) : 0);
	int			i;

	for (i = 0; i < locks->nelements; i++)
	{
		const LockInstanceData *lock = &locks->locks[i];

		if (memcmp(&lock->locktag, tag, sizeof(LOCKTAG)) == 0 &&
			(lock->holdMask & conflicting) && lock->pid != MyProcPid)
			return psprintf("Process %d of this node holds it.", lock->pid);
	}
	return "It is not known who held it: it has just been released.";
}

/*
 * A lease that is seen may be the next session's, which began after the epoch was
 * read; then the epoch has changed before the lease, and is seen to have.
 */
bool
ra_epoch_valid(uint64 epoch)
{
	uint64		valid_until;

	if (ra_lock_provider == RA_LOCK_PROVIDER_LOCAL)
		return true;
	valid_until = pg_atomic_read_u64(&ra_cluster->valid_until);
	pg_read_barrier();
	return epoch == pg_atomic_read_u64(&ra_cluster->epoch) && ra_boottime() < valid_until;
}
