/*
 * zookeeper.h
 *	  Inside of the ZooKeeper provider; provider.h is its outside.
 *
 * zookeeper_open.c		open() and close()
 * zookeeper.c			the session, lease and generation
 * zookeeper_handle.c	the library's threads and ours, calls, and the hand-over
 * zookeeper_queue.c	requests: the entries in the lock queues
 * zookeeper_members.c	the list of members
 * zookeeper_list.c		list()
 * zookeeper_decide.c	registers
 * zookeeper_forget.c	and their end
 * zookeeper_names.c	names of entries, who holds a lock: pure functions
 *
 * What lies in ZooKeeper, below /<cluster>:
 *
 *	generation			persistent; a decimal number, see provider.h
 *	locks/<bucket>		persistent; 3 hexadecimal digits, a hash of the key
 *	locks/<bucket>/<key>;<x|s>;<node>;<session>;<request>;<sequence>
 *						ephemeral, sequential: one request's place in a queue
 *	members/<node>		ephemeral; data is what set_member() was given
 *	decisions/<bucket>	persistent; as for locks
 *	decisions/<bucket>/<name>
 *						persistent; data is the register's value
 *	finished/<sequence>	persistent; data is names of registers that are not needed
 *						any more, as in their paths, a line each
 *
 * A queue has no node of its own, so nothing is left of a key nobody uses.
 * The sequence counts in the bucket; it has 32 bits and wraps around, so two
 * are compared by the sign of their difference.
 *
 * Threads.  The library calls completions and watchers on its own threads.
 * There they copy what they were given into the ZkCall (which they then own),
 * or mark the ZkWatch or ZkHandle, append that to the provider's event queue and
 * write to an eventfd: see zookeeper_handle.c.  All else belongs to the main thread, but for what is
 * told at once (ZkAtOnce).
 */
#ifndef RA_ZOOKEEPER_H
#define RA_ZOOKEEPER_H

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#include <zookeeper/zookeeper.h>

#include "provider.h"

#define NS_PER_MS		INT64_C(1000000)

#define ZK_BUCKETS		1024
#define ZK_KEYNAME_MAX	160		/* key of an entry's name, with the ending zero */
#define ZK_PATH_MAX		1024	/* with the ending zero; see zookeeper_names.c */
#define ZK_CLUSTER_MAX	63
#define ZK_BUCKET_PATH_MAX (ZK_CLUSTER_MAX + 24)

#define ZK_REQUEST_HASH	4096
#define ZK_WATCH_HASH	1024

#define ZK_PROPOSALS_MAX 128	/* in one request: as many as the broker has at a time, so that none waits for ever */

/* ---- names ---- */

/* An entry's name, taken apart; pointers into it */
typedef struct ZkEntry
{
	const char *keyname;
	int			keyname_len;
	RaProviderMode mode;
	const char *node;
	int			node_len;
	int64_t		session;
	uint64_t	number;			/* of the request */
	int32_t		sequence;
} ZkEntry;

/* Where a request stands, as a list of its bucket shows it */
typedef struct ZkPlace
{
	const char *self;			/* its entry, or NULL */
	const char *blocker;		/* last of the entries it must wait for, or NULL */
	int			nblockers;
	int			nothers;		/* all other entries of the key */
	const char *twin;			/* a second entry of the same request: must not be */
} ZkPlace;

extern int	ra_zk_escape(char *dst, int size, const char *src, int len);
extern int	ra_zk_unescape(char *dst, int size, const char *src, int len);
extern bool ra_zk_keyname(char *dst, const char *key, int keylen);
extern bool ra_zk_keyname_is_hash(const char *keyname, int len);
extern bool ra_zk_keyname_valid(const char *keyname);
extern unsigned ra_zk_bucket(const char *keyname);
extern bool ra_zk_parse_entry(const char *name, ZkEntry *entry);
extern void ra_zk_place(char **names, int n, const char *keyname, RaProviderMode mode,
						int64_t session, uint64_t number, ZkPlace *place);

/* ---- the hand-over ---- */

typedef enum ZkEventKind
{
	ZK_EVENT_CALL,				/* in a ZkCall that is complete */
	ZK_EVENT_WATCH,				/* in a ZkWatch that has fired */
	ZK_EVENT_HANDLE,			/* in a ZkHandle whose shared state changed */
	ZK_EVENT_LINE				/* in a ZkLine: the library's log */
} ZkEventKind;

/* First member of each of these */
typedef struct ZkEvent
{
	struct ZkEvent *next;
	ZkEventKind kind;
	bool		queued;			/* under the provider's lock */
} ZkEvent;

typedef struct ZkLine
{
	ZkEvent		event;
	char		text[];
} ZkLine;

typedef struct ZkCall ZkCall;
typedef struct ZkHandle ZkHandle;
typedef struct ZkTls ZkTls;
typedef struct ZkWatch ZkWatch;

typedef void (*ZkDone) (RaProvider *p, ZkCall *call);

/* Whom to wake when the provider's lock is free again */
typedef struct ZkTold
{
	int			n;
	void	   *whom[ZK_PROPOSALS_MAX];
} ZkTold;

/*
 * On the library's thread (or the main one, if the library has refused the call), under the provider's lock,
 * when a call has ended whose handle is not dead.  If it has succeeded, tells whoever waits.  Returns whether
 * the main thread need not hurry.
 */
typedef bool (*ZkAtOnce) (RaProvider *p, ZkCall *call, ZkTold *told);

/*
 * A request on its way.  All stand in their handle's table, since the library
 * may never answer: what is left is freed with the handle.
 */
struct ZkCall
{
	ZkEvent		event;
	ZkHandle   *handle;
	ZkCall	   *prev;
	ZkCall	   *next;

	ZkDone		done;
	ZkAtOnce	at_once;		/* or NULL */
	void	   *subject;		/* whom both concern */
	int64_t		sent;			/* when */
	bool		proves;			/* goes to the leader: an answer renews the lease */
	bool		quiet;			/* nobody waits for it, or at_once() tells them: ZOK need not wake the main thread */

	/* The answer; of the library's thread until the event is queued */
	int			rc;
	struct Stat stat;
	bool		world;			/* get_acl: open to everybody */
	char	   *value;			/* get: data; create: path; ends with zero */
	int			value_len;
	char	  **names;			/* get_children, one piece of memory */
	int			nnames;

	zoo_op_result_t *results;	/* delete_all: the library writes them */
};

typedef enum ZkWatchKind
{
	ZK_WATCH_ENTRY,				/* requests wait for it to go */
	ZK_WATCH_GENERATION,
	ZK_WATCH_MEMBERS,			/* the list, */
	ZK_WATCH_MEMBER				/* and each of it */
} ZkWatchKind;

/*
 * A watch set, or being set.  There is one for each path, so that requests
 * that come and go behind a long-held lock don't pile them up.  The library
 * keeps the pointer until the watch fires or its handle is closed.
 */
struct ZkWatch
{
	ZkEvent		event;
	ZkHandle   *handle;
	ZkWatch    *next;			/* in the table */
	ZkWatchKind kind;
	int			type;			/* of the event; under the provider's lock */
	RaProviderRequest *waiters;
	char		path[];
};

typedef enum ZkTask
{
	ZK_TASK_NONE,
	ZK_TASK_OPEN,
	ZK_TASK_CLOSE
} ZkTask;

struct ZkHandle
{
	ZkEvent		event;
	RaProvider *provider;

	/* Of the main thread */
	bool		dead;			/* its session is over: answers mean nothing; changed under the provider's lock */
	pthread_t	helper;
	bool		helper_runs;
	ZkCall	   *calls;
	int			nquiet;			/* of these, quiet ones */
	ZkWatch    *watches[ZK_WATCH_HASH];

	/* Set before the helper runs, which then owns zh until it is done */
	ZkTask		task;
	clientid_t	attach;			/* session to take over, unless zero */
	zhandle_t  *zh;
	int			open_error;		/* errno */
	char		problem[160];	/* or, if not empty, this */

	/* Under the provider's lock */
	bool		done;			/* the helper */
	int			state;			/* last one the library told */
	unsigned	connects;		/* how often it was ZOO_CONNECTED_STATE */
	int			timeout;		/* agreed at that time, ms */
	char		peer[64];
};

/* ---- the provider ---- */

typedef enum ZkPhase
{
	ZK_PAUSE,					/* no handle; next attempt at phase_until */
	ZK_OPENING,					/* the helper is at it */
	ZK_CONNECTING,				/* first contact; a new handle at phase_until */
	ZK_PREPARING,				/* session is there, not yet announced */
	ZK_UP,						/* announced */
	ZK_CLOSING					/* the helper is at it */
} ZkPhase;

typedef struct ZkMember
{
	char	   *name;			/* as in the path */
	char	   *node;
	char	   *data;			/* NULL: not read yet */
	int64_t		owner;			/* session */
	bool		stale;			/* must be read (again) */
	bool		reading;
	bool		listed;			/* by the list that is being looked at */
} ZkMember;

typedef struct ZkListing ZkListing;
typedef struct ZkDecision ZkDecision;
typedef struct ZkProposals ZkProposals;
typedef struct ZkForgotten ZkForgotten;
typedef struct ZkClear ZkClear;
typedef struct ZkSweep ZkSweep;

struct RaProvider
{
	/* Immutable */
	RaProviderCallbacks cb;
	void	   *arg;
	char	   *hosts;
	char		cluster[ZK_CLUSTER_MAX + 1];
	char	   *node;
	char		nodename[RA_NODE_MAX * 3 + 1];	/* escaped */
	char	   *credentials;	/* user:password, or NULL */
	ZkTls	   *tls;			/* NULL: plain text */
	int			timeout_wish;	/* ms */
	struct ACL_vector *acl;		/* of all we create */
	RaProvider *next_provider;	/* of all that want the library's log */

	/* The hand-over */
	int			eventfd;
	pthread_mutex_t lock;		/* of what follows, and as said in ZkHandle */
	ZkEvent    *events;
	ZkEvent   **events_end;
	bool		signalled;		/* eventfd is readable */
	int			nlines;
	bool		abandoned;		/* close() gave up: the helper frees all */

	/* The session */
	ZkPhase		phase;
	int64_t		phase_until;
	ZkHandle   *handle;
	bool		ending;			/* handle is that of the previous session */
	clientid_t	previous;		/* session to end first, unless zero */
	int64_t		previous_until;	/* no longer than that is it attached to; 0: not tried yet */
	bool		exhausted;		/* the library has tried all servers in vain */
	int64_t		last_session;	/* ids of former sessions of ours, or 0 */
	int64_t		last_session2;
	int64_t		session_id;		/* 0: none */
	bool		connected;
	unsigned	connects_seen;
	int64_t		disconnected_at;
	int64_t		unreached_at;	/* since when handles connect in vain; 0: they don't */
	int			timeout;		/* ms */
	int			pause;			/* before the next attempt, ms */
	uint64_t	random;
	char		detail[256];	/* library's last complaint */
	bool		trouble_told;	/* that it can't be reached */
	bool		access_told;	/* that access is refused */
	bool		acl_checked;
	int			complained;		/* rc of the last complain() */

	/* Lease */
	int64_t		lease_until;
	int64_t		lease_told;
	int64_t		heartbeat_at;
	bool		heartbeat_flies;

	/* Generation */
	uint64_t	generation;
	uint64_t	generation_seen;
	uint64_t	generation_told;	/* to this session's announcement */
	bool		generation_known;
	bool		generation_flies;	/* being looked at */
	bool		generation_raise;	/* tokens were seen to repeat */
	int64_t		generation_at;		/* try again then, or INT64_MAX */
	int64_t		zxid_seen;			/* of a write of ours: the last one */

	/* Requests, in the order of acquire() */
	RaProviderRequest *requests;
	RaProviderRequest **requests_end;
	RaProviderRequest *by_number[ZK_REQUEST_HASH];
	RaProviderRequest *zombies; /* ended, but for calls on their way */
	RaProviderRequest *cursor;	/* of a loop over all, next one: callbacks may end any */
	uint64_t	last_number;
	int64_t		requests_at;	/* drive them all then, or INT64_MAX */

	/* Members */
	char	   *member_data;	/* wished for */
	char	   *member_sent;	/* last sent */
	bool		member_there;	/* our entry exists */
	bool		member_flies;
	int64_t		member_at;		/* not before */
	int64_t		member_blocked;	/* since when somebody else's entry stands there, or 0 */
	bool		member_told;	/* that it does */
	ZkMember   *members;
	int			nmembers;
	bool		members_stale;	/* list must be read (again) */
	bool		members_fly;
	int64_t		members_at;		/* what could not be read is read again then */
	bool		members_changed;	/* callback is due */
	bool		members_complete;	/* was once, in this session */

	ZkListing  *listings;

	/* Registers */
	ZkDecision *decisions;		/* not answered yet */
	ZkProposals *proposals;		/* requests on their way */
	int			proposing;		/* how many, as far as the library has said; under the lock */
	bool		proposals_wait; /* others wait for one of them to end; changed under the lock */
	unsigned char buckets[ZK_BUCKETS];	/* of registers: what is known of them */
	bool		buckets_sought; /* those that are missing are made, or were */
	ZkForgotten *forgotten;		/* registers to be written down, or NULL, */
	ZkForgotten *forgetting;	/* and those on their way */
	int64_t		forgotten_at;	/* when some were written down last */
	ZkClear    *clear;			/* under way, or NULL */
	ZkSweep    *sweep;			/* likewise */

	/* For tests: what was sent, and watches that fired */
	struct
	{
		uint64_t	creates;
		uint64_t	deletes;
		uint64_t	lists;
		uint64_t	fired;
	}			stats;
};

/* zookeeper_handle.c */
extern int64_t ra_zk_now(void);
extern ZkEvent *ra_zk_pop(RaProvider *p);
extern void ra_zk_log_sink(RaProvider *p, bool add);
extern bool ra_zk_helper_start(ZkHandle *handle, ZkTask task);
extern void ra_zk_handle_dead(ZkHandle *handle);
extern void ra_zk_handle_free(ZkHandle *handle);
extern void ra_zk_call_end(RaProvider *p, ZkCall *call);
extern bool ra_zk_alive(RaProvider *p);

/*
 * Calls.  done() is always called later, from process(), unless the session
 * ends before.  False: no memory, nothing was sent.  quiet: that may be up to
 * QUIET_MAX later (zookeeper.c), since nobody waits for it.
 */
extern bool ra_zk_create(RaProvider *p, ZkDone done, void *subject, const char *path,
						 const char *data, int len, int mode, bool quiet);
extern bool ra_zk_create_at_once(RaProvider *p, ZkDone done, ZkAtOnce at_once, void *subject,
								 const char *path, const char *data, int len);
extern bool ra_zk_delete(RaProvider *p, ZkDone done, void *subject, const char *path, int version,
						 bool quiet);
extern bool ra_zk_create_all(RaProvider *p, ZkDone done, ZkAtOnce at_once, void *subject,
							 char *const *paths, char *const *values, int n);
extern bool ra_zk_delete_all(RaProvider *p, ZkDone done, void *subject, char *const *paths, int n);
extern bool ra_zk_set(RaProvider *p, ZkDone done, void *subject, const char *path,
					  const char *data, int len, int version);
extern bool ra_zk_get(RaProvider *p, ZkDone done, void *subject, const char *path, ZkWatch *watch);
extern bool ra_zk_exists(RaProvider *p, ZkDone done, void *subject, const char *path);
extern bool ra_zk_children(RaProvider *p, ZkDone done, void *subject, const char *path, ZkWatch *watch);
extern bool ra_zk_sync(RaProvider *p, ZkDone done, void *subject, const char *path);
extern bool ra_zk_get_acl(RaProvider *p, ZkDone done, void *subject, const char *path);
extern bool ra_zk_add_auth(RaProvider *p, ZkDone done);

extern ZkWatch *ra_zk_watch_find(RaProvider *p, const char *path);
extern ZkWatch *ra_zk_watch_new(RaProvider *p, const char *path, ZkWatchKind kind);
extern void ra_zk_watch_unlink(ZkWatch *watch);
extern void ra_zk_watch_drop(ZkWatch *watch);

/* zookeeper_open.c */
extern const RaProviderOps *ra_zookeeper_ops(void);
extern void ra_zk_provider_free(RaProvider *p);

/* zookeeper_tls.c; NULL and a message if it can't be used */
#ifdef RA_ZOOKEEPER_TLS
#define RA_ZOOKEEPER_HAS_TLS true
#else
#define RA_ZOOKEEPER_HAS_TLS false
#endif
extern ZkTls *ra_zk_tls_new(const RaProviderTls *config, char *error, int error_size);
extern void ra_zk_tls_free(ZkTls *tls);
extern zhandle_t *ra_zk_tls_init(ZkHandle *handle, watcher_fn watcher, const clientid_t *attach,
								 log_callback_fn log);

/* zookeeper.c */
extern void ra_zk_start(RaProvider *p);
extern int	ra_zk_wait_for(RaProvider *p, bool *writable, int64_t *until);
extern void ra_zk_process(RaProvider *p);

/* Of a bucket of registers */
static inline void
ra_zk_decisions_path(const RaProvider *p, unsigned bucket, char *path)
{
	snprintf(path, ZK_BUCKET_PATH_MAX, "/%s/decisions/%03x", p->cluster, bucket);
}

/* Whether the server has said how a request ended; else it may be done or not */
static inline bool
ra_zk_answered(int rc)
{
	return rc == ZOK || (rc < ZAPIERROR && rc != ZSESSIONEXPIRED && rc != ZAUTHFAILED &&
						 rc != ZCLOSING && rc != ZSESSIONMOVED);
}

/* Whether requests can be sent */
static inline bool
ra_zk_ready(const RaProvider *p)
{
	return p->phase == ZK_UP && p->connected;
}

extern void ra_zk_log(RaProvider *p, RaProviderLevel level, const char *hint,
					  const char *format,...) __attribute__((format(printf, 4, 5)));
extern void ra_zk_complain(RaProvider *p, int rc, const char *what);
extern void ra_zk_ignore(RaProvider *p, ZkCall *call);
extern void ra_zk_create_base(RaProvider *p);
extern void ra_zk_generation_raise(RaProvider *p);

/* zookeeper_queue.c */
extern RaProviderRequest *ra_zk_acquire(RaProvider *p, void *owner, const char *key, int keylen,
										RaProviderMode mode, bool nowait);
extern void ra_zk_release(RaProvider *p, RaProviderRequest *request);
extern void ra_zk_look(RaProvider *p, RaProviderRequest *request);
extern void ra_zk_queue_drive(RaProvider *p);
extern void ra_zk_queue_reconnected(RaProvider *p);
extern void ra_zk_queue_fired(RaProvider *p, ZkWatch *watch);
extern void ra_zk_queue_over(RaProvider *p);
extern void ra_zk_queue_free(RaProvider *p);
extern uint64_t ra_zk_queue_token(RaProvider *p, uint64_t number);

/* zookeeper_members.c */
extern void ra_zk_set_member(RaProvider *p, const char *data);
extern void ra_zk_members_up(RaProvider *p);
extern void ra_zk_members_reconnected(RaProvider *p);
extern void ra_zk_members_fired(RaProvider *p, ZkWatch *watch);
extern int64_t ra_zk_members_tick(RaProvider *p, int64_t now);
extern void ra_zk_members_tell(RaProvider *p);
extern void ra_zk_members_over(RaProvider *p);
extern void ra_zk_members_free(RaProvider *p);

/* zookeeper_list.c */
extern void ra_zk_list(RaProvider *p, void *owner);
extern void ra_zk_list_over(RaProvider *p, const char *error);
extern void ra_zk_list_free(RaProvider *p);

/* zookeeper_decide.c */
extern bool ra_zk_decide(RaProvider *p, void *owner, const char *name, int namelen,
						 const char *value, int64_t deadline);
extern void ra_zk_decide_drive(RaProvider *p);
extern void ra_zk_decide_tick(RaProvider *p, int64_t now);
extern int64_t ra_zk_decide_until(const RaProvider *p);
extern void ra_zk_decide_over(RaProvider *p);
extern void ra_zk_decide_free(RaProvider *p);

/* zookeeper_forget.c */
extern void ra_zk_forget(RaProvider *p, const char *name, int namelen);
extern void ra_zk_forget_now(RaProvider *p);
extern void ra_zk_forget_left(RaProvider *p, const char *name, int namelen, const char *value);
extern void ra_zk_sweep(RaProvider *p, const RaProviderSweep *sweep);
extern void ra_zk_forget_tick(RaProvider *p, int64_t now);
extern int64_t ra_zk_forget_until(const RaProvider *p);
extern void ra_zk_forget_over(RaProvider *p);
extern void ra_zk_forget_free(RaProvider *p);

/* The provider, for zookeeper_module.c and tests */
extern const RaProviderOps *ra_zookeeper_ops(void);

#endif							/* RA_ZOOKEEPER_H */
