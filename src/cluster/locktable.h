/*
 * locktable.h
 *	  What the processes of a server share about the cluster's advisory locks:
 *	  the coordination session, and one entry per key that is in use here.
 *
 * Who of this server's sessions has a lock, and who waits for it in which
 * order, is PostgreSQL's own lock manager's business: each lock is an advisory
 * lock of this server first.  An entry says what this *server* has at the
 * coordination service, on behalf of whichever session has the local lock.
 */
#ifndef RA_LOCKTABLE_H
#define RA_LOCKTABLE_H

#include "postgres.h"

#include "lib/ilist.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/dsm.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

/* longest key that users may ask for, in bytes of UTF-8 */
#define RA_LOCK_KEY_MAX 255

/* live nodes that we can know of */
#define RA_MAX_MEMBERS 128

/* longest name of a node, and longest text a node tells about itself */
#define RA_MEMBER_NAME 64
#define RA_MEMBER_DATA 192

typedef enum RaLockProvider
{
	RA_LOCK_PROVIDER_LOCAL,
	RA_LOCK_PROVIDER_ZOOKEEPER,
	RA_LOCK_PROVIDER_REDIS
} RaLockProvider;

/* Identifies a lock: a digest of its kind and text */
typedef struct RaLockKey
{
	uint64		high;			/* the advisory lock's number, too */
	uint64		low;
} RaLockKey;

/* A lock's name: 't' and the text in UTF-8, or 'i' and the number */
typedef struct RaLockName
{
	uint16		len;
	char		data[1 + RA_LOCK_KEY_MAX];
} RaLockName;

typedef enum RaEntryState
{
	RA_ENTRY_IDLE,				/* nothing is asked of the service */
	RA_ENTRY_WAITING,			/* in the service's queue, or on the way there */
	RA_ENTRY_HELD				/* granted */
} RaEntryState;

/*
 * All but the key under the entry's partition lock.  An entry is removed by whoever finds
 * it idle, unused and not queued.  One that was lost stays until those who had it
 * know, so that a view can tell.
 */
typedef struct RaLockEntry
{
	RaLockKey	key;			/* hash key, must be first */
	RaLockName	name;

	RaEntryState state;
	bool		exclusive;		/* of what is asked for, or was granted */
	bool		wants_exclusive;	/* what the waiters need */
	bool		nowait;			/* asked for without queueing */
	bool		give_up;		/* to be released once no user is left */
	bool		look;			/* the broker shall look for contenders */
	bool		contended;		/* other nodes queue for it, as last seen */
	bool		waited;			/* they did when it was granted */
	int			users;			/* sessions that have it */
	int			lost_users;		/* sessions that had it when it was lost, and have not let go yet */
	bool		used_exclusive; /* by the latest user */
	int			waiters;		/* sessions that have the local lock and wait for the service */
	int			nowait_waiters; /* of these, by try_ functions */
	uint64		users_id;		/* of those that users counts: another one whenever it starts anew */
	uint32		refusals;		/* how often an attempt without queueing failed */
	int			handovers;		/* grants since the service granted it */
	int			sequence;		/* grants since then, part of the token */

	/* of the grant */
	uint64		epoch;			/* session it was granted in */
	uint64		generation;
	uint64		token;

	void	   *request;		/* the broker's own */
	bool		queued;			/* in the broker's queue */
	dlist_node	node;
	ConditionVariable changed;	/* state, or what waiters look at, has changed */
} RaLockEntry;

typedef enum RaBrokerState
{
	RA_BROKER_STARTING,			/* no broker runs (yet, or again) */
	RA_BROKER_CONNECTING,		/* no session */
	RA_BROKER_CONNECTED,		/* a session, and a connection */
	RA_BROKER_DISCONNECTED,		/* a session, the connection is gone */
	RA_BROKER_FAILED			/* can't work as it is configured */
} RaBrokerState;

typedef struct RaMemberSlot
{
	char		name[RA_MEMBER_NAME];
	char		data[RA_MEMBER_DATA];
	bool		self;
} RaMemberSlot;

/* One entry of the service's queues, as list_segment has them */
typedef struct RaListedEntry
{
	RaLockName	name;
	char		node[RA_MEMBER_NAME];
	bool		exclusive;
	bool		granted;
	int			position;		/* in the queue of its key, from 0 */
	uint64		token;
} RaListedEntry;

typedef struct RaListing
{
	int			n;
	RaListedEntry entries[FLEXIBLE_ARRAY_MEMBER];
} RaListing;

#define RA_LOCK_PARTITIONS 16

typedef struct RaCluster
{
	LWLock	   *lock;			/* protects state to members_at, and the list */
	RaBrokerState state;
	char		last_error[256];
	TimestampTz since;			/* of state */
	uint64		members_version;
	int			nmembers;
	RaMemberSlot members[RA_MAX_MEMBERS];
	TimestampTz members_at;

	LWLockPadded *partitions;

	bool		zookeeper;		/* the broker's service is that; immutable */
	pid_t		broker_pid;
	Latch	   *volatile broker_latch;	/* NULL: none runs; read without a lock */
	slock_t		queue_lock;
	dlist_head	queue;			/* entries that the broker shall look at */
	bool		urgent;			/* one of them can't linger; read and written without a lock */

	/*
	 * The session, as seen by holders.  epoch is odd while a session lives, and
	 * grows whenever one begins or ends; a lock granted in another epoch is
	 * lost.  valid_until: nanoseconds of CLOCK_BOOTTIME.
	 */
	pg_atomic_uint64 epoch;
	pg_atomic_uint64 valid_until;
	pg_atomic_uint64 leader_epoch;	/* this node leads if equal to epoch */
	pg_atomic_uint64 generation;

	pg_atomic_uint64 local_token;	/* last one given, provider local */
	pg_atomic_uint64 users_id;	/* last one given to an entry */

	/* counted since the server was started */
	pg_atomic_uint64 grants;	/* locks that sessions got */
	pg_atomic_uint64 handovers; /* of these, without asking the service */
	pg_atomic_uint64 requests;	/* made to the service */
	pg_atomic_uint64 losses;	/* sessions lost */

	/*
	 * All entries of all nodes, for a view.  The number of the latest who asked,
	 * and up to which number they are answered, by the array in list_segment.
	 */
	uint64		list_requested;
	uint64		list_done;
	dsm_handle	list_segment;
	char		list_error[256];	/* empty: the list is complete */
	ConditionVariable list_changed;
} RaCluster;

extern RaCluster *ra_cluster;

extern Size ra_locktable_shmem_size(void);
extern void ra_locktable_shmem_request(void);
extern void ra_locktable_shmem_startup(void);

extern uint64 ra_boottime(void);

/* The lock that protects the entry of the key */
extern LWLock *ra_lock_partition(const RaLockKey *key);

/* Under the partition's lock.  NULL: there is none, or no room for one more. */
extern RaLockEntry *ra_entry_find(const RaLockKey *key);
extern RaLockEntry *ra_entry_make(const RaLockKey *key, const RaLockName *name);

/* Under the partition's lock: remove the entry if nobody needs it */
extern void ra_entry_tidy(RaLockEntry *entry);

/* Under the partition's lock: none of those that have had it has it any longer */
extern void ra_entry_disown(RaLockEntry *entry);

/* Under the partition's lock: have the broker look at the entry */
extern void ra_entry_queue(RaLockEntry *entry);

/*
 * The same in two steps, for who is in a hurry: woken while the partition is still
 * locked, the broker would run into that lock.
 */
extern void ra_entry_enqueue(RaLockEntry *entry);

/*
 * After the partition's lock was released.  linger: all that is wanted is that a lock is given
 * up, which can wait for a moment.
 */
extern void ra_broker_wake(bool linger);

/* The broker's side: next entry of the queue, no longer queued; NULL: none */
extern RaLockEntry *ra_entry_dequeue(void);

/* Is there any?  A hint, taken without a lock */
extern bool ra_entries_queued(void);

/* All entries, one after the other, each under its partition's lock */
typedef void (*RaEntryVisitor) (RaLockEntry *entry, void *arg);
extern void ra_entries_visit(RaEntryVisitor visit, void *arg);

/* The advisory lock of this server that stands for the key */
extern void ra_lock_tag(LOCKTAG *tag, const RaLockKey *key);

/* Does a session have it, in whatever mode, that is in a transaction?  Throws nothing. */
extern bool ra_locally_locked(const LOCKTAG *tag);

/* Who of this server keeps this session from getting the local lock in that mode: a sentence */
extern const char *ra_local_holder(const LOCKTAG *tag, LOCKMODE mode);

/* Distinguishes our advisory locks from pg_advisory_lock()'s, in pg_locks as objsubid */
#define RA_LOCK_CLASS 0x5241

/* May what was granted in this epoch still be relied on? */
extern bool ra_epoch_valid(uint64 epoch);

#endif							/* RA_LOCKTABLE_H */
