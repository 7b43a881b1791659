/*
 * cache.c
 *	  The shared feature cache: windows of recently active entities.
 *
 * A fixed piece of shared memory (risk_alert.feature_memory) holds a DSA area
 * that never grows, and an array of hash chains.  An entry is one allocation:
 * a header, then the entity's window (core/window.h), which has no pointers.
 *
 * Chains.  Which chain an entity is in is told by the low bits of its position,
 * by as many as its partition uses: with half as many entries as chains, a partition
 * doubles these.  There is room for as many chains as the memory can need; but to spread
 * few entities over all of them would cost each look-up a miss in the
 * processor's cache and another one of its address translation.
 *
 * Locking.  Chain i is protected by partition lock i % CACHE_PARTITIONS, as is
 * how many chains the partition uses.  A
 * reader holds it shared while it aggregates; a writer exclusively while it
 * adds an event, and while it aggregates, since that leaves hints.  Between
 * finding an entry and leaving the partition nothing throws or allocates.  Only one
 * process writes windows of an instance: its database's worker.  So a worker may leave the lock, allocate, and come back without anybody having
 * changed the window meanwhile; but any worker may evict any window, so a
 * pointer never outlives the lock.
 *
 * Eviction is CLOCK over the chains: a sweep clears "referenced", the next one
 * frees what is still unreferenced.  The sweeper takes partition locks
 * conditionally while it holds none, so it can neither deadlock nor wait.  When
 * no room can be made, the window is simply not cached: it will be rebuilt from the table
 * when needed again.
 *
 * Instances.  A window is only right as long as a worker applies every event
 * to it.  Hence windows belong to an instance that the worker announces in
 * shared memory, and end with it: a new serial number makes all old windows
 * unreachable, and they are freed.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/dsa.h"
#include "utils/memutils.h"

#include "engine/cache.h"
#include "guc.h"

#define CACHE_PARTITIONS	128
#define CACHE_INSTANCES		1024
#define BYTES_PER_CHAIN		256 /* of feature memory: sizes the chain array */
#define CHAINS_AT_FIRST		1024	/* a multiple of CACHE_PARTITIONS */

typedef struct CacheEntry
{
	dsa_pointer next;
	uint64		h[2];
	uint32		serial;
	uint16		slot;
	bool		wide;
	bool		referenced;		/* set by readers without exclusive lock */
	uint32		size;			/* of the whole allocation */
	uint32		reserved;
	/* the window follows, MAXALIGNed */
} CacheEntry;

#define ENTRY_WINDOW(entry) ((RaWindow *) ((char *) (entry) + MAXALIGN(sizeof(CacheEntry))))

typedef struct InstanceSlot
{
	Oid			dboid;			/* under instance_lock */
	int32		stream_id;
	uint64		layout_hash;
	char		label[NAMEDATALEN * 2];
	pg_atomic_uint32 serial;	/* 0: free */

	pg_atomic_uint64 entities;
	pg_atomic_uint64 bytes;
	pg_atomic_uint64 hits;
	pg_atomic_uint64 rebuilds;
	pg_atomic_uint64 evictions;
} InstanceSlot;

typedef struct Partition
{
	uint32		mask;			/* a position's bits that are its chain's number */
	uint32		entries;
} Partition;

typedef struct CacheShared
{
	int			tranche;
	int			dsa_tranche;
	LWLock		instance_lock;
	LWLockPadded partitions[CACHE_PARTITIONS];
	Partition	sizes[CACHE_PARTITIONS];	/* each under its partition's lock */
	pg_atomic_uint32 chains_used;	/* no partition uses a chain from here on */
	uint64		seed[2];		/* of entity hashes: not guessable from outside */
	uint32		nchains;		/* power of two */
	Size		dsa_size;
	pg_atomic_uint64 hand;		/* CLOCK's position */
	pg_atomic_uint32 next_serial;
	InstanceSlot instances[CACHE_INSTANCES];
	/* the chain array and the DSA area follow */
} CacheShared;

static CacheShared *cache = NULL;
static dsa_pointer *chains = NULL;
static void *dsa_place = NULL;
static dsa_area *area = NULL;

PG_FUNCTION_INFO_V1(ra_cache_status);

static uint32 position_of(uint32 serial, uint64 h);
static uint32 chain_of(uint32 position);
static LWLock *chain_lock(uint32 position);
static uint32 chain_acquire(RaInstance instance, RaEntityHash hash, LWLockMode mode);
static void partition_double(uint32 partition);
static CacheEntry *entry_find(uint32 chain, RaInstance instance, RaEntityHash hash,
							  dsa_pointer *self, dsa_pointer *prev);
static void entry_unlink(uint32 chain, CacheEntry *entry, dsa_pointer self, dsa_pointer prev);
static dsa_pointer entry_alloc(Size size);
static dsa_pointer entry_make(RaInstance instance, RaEntityHash hash, Size window_size, bool wide);
static void entry_link(RaInstance instance, dsa_pointer made);
static Size evict_some(Size want);
static void reclaim(void);
static void attach(void);

static uint32
chain_count(void)
{
	uint64		want = (uint64) ra_feature_memory * 1024 / BYTES_PER_CHAIN;
	uint32		n = CHAINS_AT_FIRST;

	while (n < want && n < (1U << 26))
		n <<= 1;
	return n;
}

static Size
area_size(void)
{
	return Max((Size) ra_feature_memory * 1024, dsa_minimum_size() + 64 * 1024);
}

Size
ra_cache_shmem_size(void)
{
	Size		size = MAXALIGN(sizeof(CacheShared));

	size = add_size(size, MAXALIGN(mul_size(chain_count(), sizeof(dsa_pointer))));
	return add_size(size, area_size());
}

/* Called with AddinShmemInitLock held */
void
ra_cache_shmem_startup(void)
{
	bool		found;
	Size		chains_size = MAXALIGN((Size) chain_count() * sizeof(dsa_pointer));

	cache = ShmemInitStruct("risk_alert feature cache", ra_cache_shmem_size(), &found);
	chains = (dsa_pointer *) ((char *) cache + MAXALIGN(sizeof(CacheShared)));
	dsa_place = (char *) chains + chains_size;
	area = NULL;

	if (!found)
	{
		int			i;
		dsa_area   *made;

		memset(cache, 0, sizeof(CacheShared));
		cache->tranche = LWLockNewTrancheId();
		cache->dsa_tranche = LWLockNewTrancheId();
		LWLockInitialize(&cache->instance_lock, cache->tranche);
		for (i = 0; i < CACHE_PARTITIONS; i++)
		{
			LWLockInitialize(&cache->partitions[i].lock, cache->tranche);
			cache->sizes[i].mask = CHAINS_AT_FIRST - 1;
		}
		pg_atomic_init_u32(&cache->chains_used, CHAINS_AT_FIRST);
		if (!pg_strong_random(cache->seed, sizeof(cache->seed)))
			elog(ERROR, "could not generate random hash seeds");
		cache->nchains = chain_count();
		cache->dsa_size = area_size();
		pg_atomic_init_u64(&cache->hand, 0);
		pg_atomic_init_u32(&cache->next_serial, 1);
		for (i = 0; i < CACHE_INSTANCES; i++)
		{
			InstanceSlot *slot = &cache->instances[i];

			pg_atomic_init_u32(&slot->serial, 0);
			pg_atomic_init_u64(&slot->entities, 0);
			pg_atomic_init_u64(&slot->bytes, 0);
			pg_atomic_init_u64(&slot->hits, 0);
			pg_atomic_init_u64(&slot->rebuilds, 0);
			pg_atomic_init_u64(&slot->evictions, 0);
		}
		for (i = 0; i < (int) cache->nchains; i++)
			chains[i] = InvalidDsaPointer;

		/* pinned, and bounded by the memory it lives in: it never makes segments */
		made = dsa_create_in_place(dsa_place, cache->dsa_size, cache->dsa_tranche, NULL);
		dsa_pin(made);
		dsa_set_size_limit(made, cache->dsa_size);
		dsa_detach(made);
	}
	LWLockRegisterTranche(cache->tranche, "risk_alert_features");
	LWLockRegisterTranche(cache->dsa_tranche, "risk_alert_features_dsa");
}

uint64
ra_cache_seed(int i)
{
	return cache ? cache->seed[i] : 0;
}

RaInstance
ra_cache_begin_instance(uint64 layout_hash, int32 stream_id, const char *label)
{
	RaInstance	instance = {-1, 0};
	int			i;
	int			free_slot = -1;

	if (cache == NULL)
		return instance;

	LWLockAcquire(&cache->instance_lock, LW_EXCLUSIVE);
	for (i = 0; i < CACHE_INSTANCES; i++)
	{
		InstanceSlot *slot = &cache->instances[i];
		bool		used = pg_atomic_read_u32(&slot->serial) != 0;

		if (used && slot->dboid == MyDatabaseId && slot->layout_hash == layout_hash)
			pg_atomic_write_u32(&slot->serial, 0);
		/* a slot is reused only when none of its windows is left */
		if (free_slot < 0 && pg_atomic_read_u32(&slot->serial) == 0 &&
			pg_atomic_read_u64(&slot->entities) == 0)
			free_slot = i;
	}
	if (free_slot >= 0)
	{
		InstanceSlot *slot = &cache->instances[free_slot];

		slot->dboid = MyDatabaseId;
		slot->stream_id = stream_id;
		slot->layout_hash = layout_hash;
		strlcpy(slot->label, label, sizeof(slot->label));
		pg_atomic_write_u64(&slot->hits, 0);
		pg_atomic_write_u64(&slot->rebuilds, 0);
		pg_atomic_write_u64(&slot->evictions, 0);
		instance.slot = free_slot;
		do
			instance.serial = pg_atomic_fetch_add_u32(&cache->next_serial, 1);
		while (instance.serial == 0);
		pg_atomic_write_u32(&slot->serial, instance.serial);
	}
	LWLockRelease(&cache->instance_lock);
	return instance;
}

void
ra_cache_end_instance(RaInstance instance)
{
	if (cache == NULL || instance.serial == 0)
		return;
	LWLockAcquire(&cache->instance_lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&cache->instances[instance.slot].serial) == instance.serial)
		pg_atomic_write_u32(&cache->instances[instance.slot].serial, 0);
	LWLockRelease(&cache->instance_lock);
	reclaim();
}

void
ra_cache_end_all(void)
{
	int			i;

	if (cache == NULL)
		return;
	LWLockAcquire(&cache->instance_lock, LW_EXCLUSIVE);
	for (i = 0; i < CACHE_INSTANCES; i++)
	{
		if (cache->instances[i].dboid == MyDatabaseId)
			pg_atomic_write_u32(&cache->instances[i].serial, 0);
	}
	LWLockRelease(&cache->instance_lock);
	reclaim();
}

RaInstance
ra_cache_find_instance(uint64 layout_hash)
{
	RaInstance	instance = {-1, 0};
	int			i;

	if (cache == NULL)
		return instance;
	LWLockAcquire(&cache->instance_lock, LW_SHARED);
	for (i = 0; i < CACHE_INSTANCES; i++)
	{
		InstanceSlot *slot = &cache->instances[i];
		uint32		serial = pg_atomic_read_u32(&slot->serial);

		if (serial != 0 && slot->dboid == MyDatabaseId && slot->layout_hash == layout_hash)
		{
			instance.slot = i;
			instance.serial = serial;
			break;
		}
	}
	LWLockRelease(&cache->instance_lock);
	return instance;
}

bool
ra_cache_instance_live(RaInstance instance)
{
	return instance.serial != 0 &&
		pg_atomic_read_u32(&cache->instances[instance.slot].serial) == instance.serial;
}

RaWindow *
ra_cache_lock(RaInstance instance, RaEntityHash hash, RaCacheUse use, bool *wide)
{
	uint32		chain;
	CacheEntry *entry;

	*wide = false;
	if (instance.serial == 0)
		return NULL;
	attach();
	chain = chain_acquire(instance, hash, use == RA_CACHE_READ ? LW_SHARED : LW_EXCLUSIVE);

	/* under the lock: an instance that has ended is not maintained any more */
	if (pg_atomic_read_u32(&cache->instances[instance.slot].serial) != instance.serial)
		return NULL;
	entry = entry_find(chain, instance, hash, NULL, NULL);
	if (entry == NULL)
		return NULL;
	entry->referenced = true;
	*wide = entry->wide;
	if (use != RA_CACHE_WRITE)
		pg_atomic_fetch_add_u64(&cache->instances[instance.slot].hits, 1);
	return ENTRY_WINDOW(entry);
}

void
ra_cache_unlock(RaInstance instance, RaEntityHash hash)
{
	if (instance.serial != 0)
		LWLockRelease(chain_lock(position_of(instance.serial, hash.h[0])));
}

void
ra_cache_prefetch_chain(RaInstance instance, RaEntityHash hash)
{
	if (instance.serial != 0)
		__builtin_prefetch(&chains[chain_of(position_of(instance.serial, hash.h[0]))]);
}

static inline void
prefetch_entry(dsa_pointer p)
{
	if (DsaPointerIsValid(p))
	{
		char	   *entry = dsa_get_address(area, p);

		__builtin_prefetch(entry);
		__builtin_prefetch(entry + 64);
		__builtin_prefetch(entry + 128);
	}
}

void
ra_cache_prefetch_entry(RaInstance instance, RaEntityHash hash)
{
	if (instance.serial == 0)
		return;
	attach();

	/* without the lock: whatever it points to by now, a prefetch can't fault */
	prefetch_entry(chains[chain_of(position_of(instance.serial, hash.h[0]))]);
}

void
ra_cache_prefetch_window(RaInstance instance, RaEntityHash hash, const RaWindowSpec *spec,
						 bool ranges)
{
	dsa_pointer p;

	if (instance.serial == 0)
		return;
	attach();

	/*
	 * Without the lock: if the entry is freed meanwhile, its memory remains, and
	 * what is read there decides no more than what is prefetched.
	 */
	p = chains[chain_of(position_of(instance.serial, hash.h[0]))];
	if (DsaPointerIsValid(p))
	{
		CacheEntry *entry = dsa_get_address(area, p);

		if (entry->h[0] != hash.h[0] || entry->serial != instance.serial)
			prefetch_entry(entry->next);
		else if (!entry->wide)
			ra_window_prefetch(ENTRY_WINDOW(entry), spec, ranges);
	}
}

bool
ra_cache_put(RaInstance instance, RaEntityHash hash, const RaWindow *window, bool wide)
{
	dsa_pointer made;

	if (instance.serial == 0)
		return false;
	attach();
	pg_atomic_fetch_add_u64(&cache->instances[instance.slot].rebuilds, 1);
	made = entry_make(instance, hash, window->size, wide);
	if (!DsaPointerIsValid(made))
		return false;
	memcpy(ENTRY_WINDOW(dsa_get_address(area, made)), window, window->size);
	entry_link(instance, made);
	return true;
}

/* An entry for a window of that size, which nobody finds yet; invalid: no room */
static dsa_pointer
entry_make(RaInstance instance, RaEntityHash hash, Size window_size, bool wide)
{
	Size		size = MAXALIGN(sizeof(CacheEntry)) + window_size;
	dsa_pointer made;
	CacheEntry *entry;

	if (size > ra_cache_max_window())
		return InvalidDsaPointer;
	made = entry_alloc(size);
	if (!DsaPointerIsValid(made))
		return made;
	entry = dsa_get_address(area, made);
	entry->h[0] = hash.h[0];
	entry->h[1] = hash.h[1];
	entry->serial = instance.serial;
	entry->slot = instance.slot;
	entry->wide = wide;
	entry->referenced = true;
	entry->size = size;
	return made;
}

/* Put the entry in the place of the entity's present one, if any */
static void
entry_link(RaInstance instance, dsa_pointer made)
{
	CacheEntry *entry = dsa_get_address(area, made);
	RaEntityHash hash = {{entry->h[0], entry->h[1]}};
	InstanceSlot *slot = &cache->instances[instance.slot];
	dsa_pointer self,
				prev;
	CacheEntry *present;
	Partition  *size;
	uint32		chain;

	chain = chain_acquire(instance, hash, LW_EXCLUSIVE);
	size = &cache->sizes[chain % CACHE_PARTITIONS];
	present = entry_find(chain, instance, hash, &self, &prev);
	if (present)
		entry_unlink(chain, present, self, prev);
	else if (size->entries >= (size->mask + 1) / CACHE_PARTITIONS / 2 &&
			 size->mask < cache->nchains - 1)
	{
		partition_double(chain % CACHE_PARTITIONS);
		chain = chain_of(position_of(instance.serial, hash.h[0]));
	}
	entry->next = chains[chain];
	chains[chain] = made;
	size->entries++;
	pg_atomic_fetch_add_u64(&slot->entities, 1);
	pg_atomic_fetch_add_u64(&slot->bytes, entry->size);
	LWLockRelease(chain_lock(chain));
	if (present)
		dsa_free(area, self);
}

bool
ra_cache_grow(RaInstance instance, RaEntityHash hash, const RaWindowSpec *spec,
			  const RaEvent *event, int64 horizon)
{
	uint32		chain;
	dsa_pointer self,
				prev;
	CacheEntry *entry;
	RaWindow   *window;
	uint32		bytes = ra_window_event_bytes(spec, event);
	uint32		capacity;
	uint64		bytes_capacity;
	uint64		long_sums;
	Size		window_size;

	/*
	 * Make an entry with more room, copy the window there while others may read
	 * it, then exchange the two.  What is too old for any feature makes room
	 * first.  A larger share of room to grow would save little time, but
	 * memory of all windows.
	 */
	chain = chain_acquire(instance, hash, LW_EXCLUSIVE);
	entry = entry_find(chain, instance, hash, NULL, NULL);
	if (entry == NULL)
	{
		LWLockRelease(chain_lock(chain));
		return false;
	}
	window = ENTRY_WINDOW(entry);
	ra_window_trim(window, spec, horizon);
	capacity = window->count + Max(window->count / 8, 4);
	bytes_capacity = window->bytes_used > 0 || bytes > 0
		? (uint64) window->bytes_used + Max(window->bytes_used / 4, 64) + bytes : 0;
	long_sums = ra_window_long_sums(window, spec, event);
	LWLockRelease(chain_lock(chain));

	window_size = ra_window_size(spec, long_sums, capacity, bytes_capacity);
	if (window_size > 0)
	{
		dsa_pointer made = entry_make(instance, hash, window_size, false);

		if (DsaPointerIsValid(made))
		{
			RaWindow   *bigger = ra_window_init(ENTRY_WINDOW(dsa_get_address(area, made)), spec,
												long_sums, capacity, bytes_capacity, PG_INT64_MIN);

			/* to make room for it may have evicted the window itself */
			chain = chain_acquire(instance, hash, LW_SHARED);
			entry = entry_find(chain, instance, hash, NULL, NULL);
			if (entry)
				ra_window_copy(bigger, ENTRY_WINDOW(entry), spec);
			LWLockRelease(chain_lock(chain));
			if (entry)
			{
				entry_link(instance, made);
				return true;
			}
			dsa_free(area, made);
			return false;
		}
	}

	chain = chain_acquire(instance, hash, LW_EXCLUSIVE);
	entry = entry_find(chain, instance, hash, &self, &prev);
	if (entry)
	{
		entry_unlink(chain, entry, self, prev);
		pg_atomic_fetch_add_u64(&cache->instances[instance.slot].evictions, 1);
	}
	LWLockRelease(chain_lock(chain));
	if (entry)
		dsa_free(area, self);
	return false;
}

void
ra_cache_drop(RaInstance instance, RaEntityHash hash)
{
	uint32		chain;
	dsa_pointer self,
				prev;
	CacheEntry *entry;

	if (instance.serial == 0)
		return;
	attach();
	chain = chain_acquire(instance, hash, LW_EXCLUSIVE);
	entry = entry_find(chain, instance, hash, &self, &prev);
	if (entry)
		entry_unlink(chain, entry, self, prev);
	LWLockRelease(chain_lock(chain));
	if (entry)
		dsa_free(area, self);
}

Size
ra_cache_max_window(void)
{
	return cache ? cache->dsa_size / 8 : 0;
}

/*
 * _cache_status(): what each instance of this database holds.
 */
Datum
ra_cache_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	for (i = 0; cache != NULL && i < CACHE_INSTANCES; i++)
	{
		InstanceSlot *slot = &cache->instances[i];
		Datum		values[7];
		bool		nulls[7] = {false};
		char		label[sizeof(slot->label)];
		bool		mine;

		LWLockAcquire(&cache->instance_lock, LW_SHARED);
		mine = pg_atomic_read_u32(&slot->serial) != 0 && slot->dboid == MyDatabaseId;
		memcpy(label, slot->label, sizeof(label));
		values[0] = Int32GetDatum(slot->stream_id);
		LWLockRelease(&cache->instance_lock);
		if (!mine)
			continue;
		values[1] = CStringGetTextDatum(label);
		values[2] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->entities));
		values[3] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->bytes));
		values[4] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->hits));
		values[5] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->rebuilds));
		values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->evictions));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Where an entity belongs.  Its lowest bits tell the partition. */
static uint32
position_of(uint32 serial, uint64 h)
{
	return (uint32) (h ^ (cache->seed[0] + serial * UINT64CONST(0x9E3779B97F4A7C15)));
}

/* The chain as of now: right for who holds the partition's lock, else a hint */
static uint32
chain_of(uint32 position)
{
	return position & cache->sizes[position % CACHE_PARTITIONS].mask;
}

static LWLock *
chain_lock(uint32 position)
{
	return &cache->partitions[position % CACHE_PARTITIONS].lock;
}

/* Lock the entity's partition; which chain it is in then */
static uint32
chain_acquire(RaInstance instance, RaEntityHash hash, LWLockMode mode)
{
	uint32		position = position_of(instance.serial, hash.h[0]);

	LWLockAcquire(chain_lock(position), mode);
	return chain_of(position);
}

/*
 * Spread the partition's entries over twice as many chains; the caller holds
 * its lock exclusively.  What leaves a chain goes to one of a higher number, so
 * that who goes through all chains upwards does not miss it.
 */
static void
partition_double(uint32 partition)
{
	uint32		mask = cache->sizes[partition].mask;
	uint32		used = pg_atomic_read_u32(&cache->chains_used);
	uint32		chain;

	/* before there can be anything in the chains */
	while (used < 2 * (mask + 1) &&
		   !pg_atomic_compare_exchange_u32(&cache->chains_used, &used, 2 * (mask + 1)))
		;
	cache->sizes[partition].mask = 2 * mask + 1;
	for (chain = partition; chain <= mask; chain += CACHE_PARTITIONS)
	{
		dsa_pointer *stay = &chains[chain];
		dsa_pointer *leave = &chains[chain + mask + 1];

		Assert(!DsaPointerIsValid(*leave));
		while (DsaPointerIsValid(*stay))
		{
			dsa_pointer p = *stay;
			CacheEntry *entry = dsa_get_address(area, p);

			if (chain_of(position_of(entry->serial, entry->h[0])) == chain)
				stay = &entry->next;
			else
			{
				*stay = entry->next;
				entry->next = *leave;
				*leave = p;
			}
		}
	}
}

static CacheEntry *
entry_find(uint32 chain, RaInstance instance, RaEntityHash hash, dsa_pointer *self, dsa_pointer *prev)
{
	dsa_pointer p = chains[chain];
	dsa_pointer before = InvalidDsaPointer;

	while (DsaPointerIsValid(p))
	{
		CacheEntry *entry = dsa_get_address(area, p);

		if (entry->h[0] == hash.h[0] && entry->h[1] == hash.h[1] && entry->serial == instance.serial)
		{
			if (self)
				*self = p;
			if (prev)
				*prev = before;
			return entry;
		}
		before = p;
		p = entry->next;
	}
	return NULL;
}

/* Caller holds the chain's lock exclusively and frees self afterwards */
static void
entry_unlink(uint32 chain, CacheEntry *entry, dsa_pointer self, dsa_pointer prev)
{
	InstanceSlot *slot = &cache->instances[entry->slot];

	Assert(dsa_get_address(area, self) == entry);
	if (DsaPointerIsValid(prev))
		((CacheEntry *) dsa_get_address(area, prev))->next = entry->next;
	else
		chains[chain] = entry->next;
	cache->sizes[chain % CACHE_PARTITIONS].entries--;
	pg_atomic_fetch_sub_u64(&slot->entities, 1);
	pg_atomic_fetch_sub_u64(&slot->bytes, entry->size);
}

/*
 * Free the windows of instances that have ended, so that their slots can be
 * used again.  Looks at every chain; ending an instance is rare.
 */
static void
reclaim(void)
{
	uint32		chain;

	attach();
	for (chain = 0; chain < pg_atomic_read_u32(&cache->chains_used); chain++)
	{
		dsa_pointer victims = InvalidDsaPointer;
		dsa_pointer p,
					prev;

		/* a peek without the lock: nobody adds to an ended instance */
		if (!DsaPointerIsValid(chains[chain]))
			continue;
		LWLockAcquire(chain_lock(chain), LW_EXCLUSIVE);
		prev = InvalidDsaPointer;
		p = chains[chain];
		while (DsaPointerIsValid(p))
		{
			CacheEntry *entry = dsa_get_address(area, p);
			dsa_pointer next = entry->next;

			if (pg_atomic_read_u32(&cache->instances[entry->slot].serial) == entry->serial)
				prev = p;
			else
			{
				entry_unlink(chain, entry, p, prev);
				entry->next = victims;
				victims = p;
			}
			p = next;
		}
		LWLockRelease(chain_lock(chain));
		while (DsaPointerIsValid(victims))
		{
			p = victims;
			victims = ((CacheEntry *) dsa_get_address(area, p))->next;
			dsa_free(area, p);
		}
	}
}

/* Memory for an entry, evicting others if need be; invalid if there is none */
static dsa_pointer
entry_alloc(Size size)
{
	int			attempt;
	int			flags = DSA_ALLOC_NO_OOM | (size > MaxAllocSize ? DSA_ALLOC_HUGE : 0);

	for (attempt = 0; attempt < 8; attempt++)
	{
		dsa_pointer p = dsa_allocate_extended(area, size, flags);

		if (DsaPointerIsValid(p))
			return p;
		/* free more each time: the pieces may lie apart */
		if (evict_some(Max(size, 8192) << (attempt + 1)) == 0)
			break;
	}
	return InvalidDsaPointer;
}

/*
 * Free at least want bytes, unless two rounds over all chains yield less.
 * Returns how much was freed.  The caller holds no lock of the cache.
 */
static Size
evict_some(Size want)
{
	Size		freed = 0;
	uint32		used = pg_atomic_read_u32(&cache->chains_used);
	uint64		steps = (uint64) used * 2;

	while (freed < want && steps-- > 0)
	{
		uint32		chain = (uint32) pg_atomic_fetch_add_u64(&cache->hand, 1) & (used - 1);
		dsa_pointer victims[16];
		int			nvictims = 0;
		dsa_pointer p,
					prev;

		/* a peek without the lock; a wrong answer only costs a turn */
		if (!DsaPointerIsValid(chains[chain]))
			continue;
		if (!LWLockConditionalAcquire(chain_lock(chain), LW_EXCLUSIVE))
			continue;
		prev = InvalidDsaPointer;
		p = chains[chain];
		while (DsaPointerIsValid(p) && nvictims < (int) lengthof(victims))
		{
			CacheEntry *entry = dsa_get_address(area, p);
			dsa_pointer next = entry->next;
			InstanceSlot *slot = &cache->instances[entry->slot];
			bool		live = pg_atomic_read_u32(&slot->serial) == entry->serial;

			if (entry->referenced && live)
			{
				entry->referenced = false;
				prev = p;
			}
			else
			{
				freed += entry->size;
				if (live)
					pg_atomic_fetch_add_u64(&slot->evictions, 1);
				entry_unlink(chain, entry, p, prev);
				victims[nvictims++] = p;
			}
			p = next;
		}
		LWLockRelease(chain_lock(chain));
		while (nvictims > 0)
			dsa_free(area, victims[--nvictims]);
	}
	return freed;
}

static void
attach(void)
{
	if (area == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		area = dsa_attach_in_place(dsa_place, NULL);
		dsa_pin_mapping(area);
		MemoryContextSwitchTo(old);
	}
}
