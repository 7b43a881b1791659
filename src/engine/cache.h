/*
 * cache.h
 *	  The shared feature cache: windows of recently active entities.
 */
#ifndef RA_CACHE_H
#define RA_CACHE_H

#include "postgres.h"

#include "core/window.h"

/* For shmem.c */
extern Size ra_cache_shmem_size(void);
extern void ra_cache_shmem_startup(void);

/*
 * Windows belong to an instance: one definition of an entity (stream, columns,
 * measures) as one worker maintains it.  Ending an instance voids all its
 * windows at once.
 */
typedef struct RaInstance
{
	int			slot;
	uint32		serial;			/* 0: none */
} RaInstance;

/* A 128-bit hash of an entity's values; what a window is found by */
typedef struct RaEntityHash
{
	uint64		h[2];
} RaEntityHash;

/* Secret seeds (0 or 1) of the hashes of keys and entities */
extern uint64 ra_cache_seed(int i);

/* The worker's: make a new instance, replacing any of the same layout */
extern RaInstance ra_cache_begin_instance(uint64 layout_hash, int32 stream_id, const char *label);
extern void ra_cache_end_instance(RaInstance instance);

/* End all instances of this database (worker start) */
extern void ra_cache_end_all(void);

/* The instance that this database's worker maintains for the layout, or none */
extern RaInstance ra_cache_find_instance(uint64 layout_hash);

/* Is the instance still the one that is maintained? */
extern bool ra_cache_instance_live(RaInstance instance);

typedef enum RaCacheUse
{
	RA_CACHE_READ,				/* shared lock */
	RA_CACHE_READ_NOTE,			/* exclusive: to leave hints in the window */
	RA_CACHE_WRITE				/* exclusive */
} RaCacheUse;

/*
 * Lock the partition of hash and return the entity's window, or NULL (locked
 * all the same).  *wide: the entity's values exceed what a window can hold; the
 * window is empty.  Nothing that can throw may happen before ra_cache_unlock().
 */
extern RaWindow *ra_cache_lock(RaInstance instance, RaEntityHash hash, RaCacheUse use, bool *wide);
extern void ra_cache_unlock(RaInstance instance, RaEntityHash hash);

/*
 * Hints that the entity will be looked up soon: first the chain's head, a few
 * events later the entry it leads to, then what will be touched of its window.
 * All of this is seldom in the processor's cache.
 */
extern void ra_cache_prefetch_chain(RaInstance instance, RaEntityHash hash);
extern void ra_cache_prefetch_entry(RaInstance instance, RaEntityHash hash);
extern void ra_cache_prefetch_window(RaInstance instance, RaEntityHash hash,
									 const RaWindowSpec *spec, bool ranges);

/*
 * Only the worker calls what follows, without holding a lock of the cache.
 * Put a copy of the window, replacing the one there; false: no room.
 */
extern bool ra_cache_put(RaInstance instance, RaEntityHash hash, const RaWindow *window, bool wide);

/* Replace the entity's window by one with room for the event; false: no room, dropped */
extern bool ra_cache_grow(RaInstance instance, RaEntityHash hash, const RaWindowSpec *spec,
						  const RaEvent *event, int64 horizon);
extern void ra_cache_drop(RaInstance instance, RaEntityHash hash);

/* Windows larger than this are not cached (bytes) */
extern Size ra_cache_max_window(void);

#endif							/* RA_CACHE_H */
