/*
 * provider.h
 *	  What the broker asks of a coordination service (ZooKeeper, Redis): a
 *	  session that proves this node alive, queues for locks, the list of members,
 *	  and registers that are written once.
 *
 * Plain C without PostgreSQL, so that a provider can be tested and sanitised
 * on its own.  One process has one provider, all calls come from one thread, and all
 * callbacks but stands() are made on that thread, from within process() or from within the
 * call itself.  A provider never blocks for longer than a few milliseconds,
 * except in open() (not at all on the network) and close() (until its deadline).
 *
 * The session.  After open() the provider connects by itself, again and again
 * with growing pauses.  Losing the connection is not losing the session.
 * While a session lives, lease() says again and again until when the service
 * can't have given it up: the moment a request was *sent* whose answer has
 * arrived, plus the timeout that was agreed, less a margin for clocks that run at
 * different rates.  All times are nanoseconds of CLOCK_BOOTTIME.
 *
 * Requests.  acquire() queues for a lock, behind whoever asked before, on any
 * node.  It may be called at any time; without a session the request waits
 * for one.  When a session is lost, the requests that had been granted are
 * gone; those still waiting are queued anew in the next session, at the end.
 * A request ends with exactly one of released(), refused() or lost(), and none of these is
 * called from within the acquire() that makes it.
 * Nobody but the provider creates or deletes entries, and an entry whose
 * creation or deletion has an unknown outcome is looked for until the outcome is known.
 *
 * Tokens.  A granted request carries (generation, token).  Ordered by
 * generation, then token, they grow strictly from each grant of a key to its
 * next one.  The generation belongs to the data of the service: it is raised whenever
 * tokens could otherwise repeat (the service comes back empty or with older data), and
 * whenever it is below generation_seen of a node that connects.
 *
 * Registers.  decide() gives a name a value unless it has one, and tells which one it
 * has; that never changes until forget().  What has no answer by its deadline
 * ends with an error, and its outcome is unknown; it is not sent any more then.
 */
#ifndef RA_PROVIDER_H
#define RA_PROVIDER_H

#include <stdbool.h>
#include <stdint.h>

/* of this interface; the broker refuses a library of another one */
#define RA_PROVIDER_API 7

/* longest key of a lock and longest name of a node, in bytes */
#define RA_KEY_MAX 512
#define RA_NODE_MAX 63

/* longest value of a register, with the ending zero */
#define RA_VALUE_MAX 64

/* longest text that describes a session, with the ending zero */
#define RA_SESSION_MAX 128

typedef enum RaProviderMode
{
	RA_PROVIDER_SHARED,
	RA_PROVIDER_EXCLUSIVE
} RaProviderMode;

typedef enum RaProviderLevel
{
	RA_PROVIDER_DEBUG,
	RA_PROVIDER_INFO,
	RA_PROVIDER_WARNING
} RaProviderLevel;

/* Files are in PEM format, and read whenever a connection is made */
typedef struct RaProviderTls
{
	const char *ca_file;		/* what may have signed the service's certificate; nothing else is trusted */
	const char *cert_file;		/* of this node; NULL: none */
	const char *key_file;		/* and its key */
	const char *key_password;	/* NULL: the key is not encrypted */
} RaProviderTls;

typedef struct RaProviderConfig
{
	const char *hosts;			/* host:port,host:port,... */
	const char *cluster;		/* all entries lie below this name */
	const char *node;			/* this node's name */
	const char *user;			/* NULL: no authentication */
	const char *password;
	const RaProviderTls *tls;	/* NULL: plain text; else nothing is ever sent in plain text */
	int			session_timeout_ms; /* wished for; the service may decide otherwise */
	uint64_t	generation_seen;	/* highest generation this node has ever seen */

	/*
	 * Session of an earlier process of this node that ended without close(),
	 * as its session() callback described it, or NULL.  It is ended at the
	 * service, so that its locks become free, before the new session is announced.
	 */
	const char *previous_session;
} RaProviderConfig;

typedef struct RaProviderMember
{
	const char *node;
	const char *data;			/* what set_member() said there */
	bool		self;			/* of this session */
} RaProviderMember;

/* One entry of a queue, as list() finds it */
typedef struct RaProviderEntry
{
	const char *key;
	int			keylen;
	const char *node;
	RaProviderMode mode;
	bool		granted;
	int			position;		/* in the queue of its key, from 0 */
	uint64_t	token;			/* 0: not known */
} RaProviderEntry;

/* arg is what open() was given; owner is what acquire() was given */
typedef struct RaProviderCallbacks
{
	/*
	 * A session is up.  description: for previous_session in a later life; a secret.
	 * Called again within the session when the generation was raised
	 * meanwhile: tokens granted from then on belong to that one.
	 */
	void		(*session) (void *arg, const char *description, uint64_t generation,
							int timeout_ms);

	/* The connection is there, or not; the session lives on meanwhile */
	void		(*connected) (void *arg, bool connected, const char *detail);

	/* The session is gone; called after lost() of each granted request */
	void		(*session_lost) (void *arg, const char *detail);

	void		(*lease) (void *arg, int64_t valid_until);

	/* waited: others were before it in the queue, so it is likely that others are behind it */
	void		(*granted) (void *arg, void *owner, uint64_t token, bool waited);
	void		(*refused) (void *arg, void *owner);	/* of acquire() with nowait */
	void		(*released) (void *arg, void *owner);	/* of release() */
	void		(*lost) (void *arg, void *owner);

	/* Answer to look(): whether any other entry is in the queue of the request's key */
	void		(*contended) (void *arg, void *owner, bool contended);

	/* All members; whenever something has changed.  Valid during the call */
	void		(*members) (void *arg, const RaProviderMember *members, int n);

	/* Answer to list(): each entry, then once entry NULL; error: NULL if complete */
	void		(*listed) (void *arg, void *owner, const RaProviderEntry *entry, const char *error);

	/*
	 * Answer to decide(), exactly one for each: what stands, NULL if nothing does
	 * (only to a look); or an error, and value means nothing.  Valid during the call
	 */
	void		(*decided) (void *arg, void *owner, const char *value, const char *error);

	/*
	 * The value that a decide() proposed stands, as decided() will tell in a while, unless close() comes
	 * first; for those who wait to know it sooner.  NULL: nobody wants to.  Made on any thread of the
	 * provider's, at most once for each decide(), and never after decided(), which waits for its end: it
	 * must neither block nor call the provider.  What it returns, unless NULL, is then given to wake(),
	 * on the same thread, but for which nobody waits: decided() may have come by then.
	 */
	void	   *(*stands) (void *arg, void *owner);
	void		(*wake) (void *arg, void *whom);

	/* See RaProviderSweep.  Valid during the call */
	void		(*left) (void *arg, const char *name, int namelen);

	/*
	 * For the server's log.  Never holds a secret.  The same trouble is told once, not at
	 * each attempt.
	 */
	void		(*log) (void *arg, RaProviderLevel level, const char *message, const char *hint);
} RaProviderCallbacks;

/* What goes, and what is told; times are in milliseconds, by the service's clock */
typedef struct RaProviderSweep
{
	int64_t		forgotten_ms;	/* what forget() was called for, on any node, so long ago, goes; */
	const char *value;			/* and names that have this value, */
	int64_t		value_ms;		/* for so long */
	const char *left;			/* of those that have this one, */
	int64_t		left_ms;		/* for so long, left() tells, unless they are very long or forgotten */
} RaProviderSweep;

typedef struct RaProvider RaProvider;
typedef struct RaProviderRequest RaProviderRequest;

typedef struct RaProviderOps
{
	int			api;			/* RA_PROVIDER_API */
	const char *name;
	bool		tls;			/* the client library that this was built with has it */

	/*
	 * NULL and a message in error if the configuration can't work at all (a
	 * malformed host list, say).  A service that can't be reached is no error.
	 */
	RaProvider *(*open) (const RaProviderConfig *config, const RaProviderCallbacks *callbacks,
						 void *arg, char *error, int error_size);

	/*
	 * Ends the session, which frees all locks; gives up at deadline, and the
	 * service then notices by the session's timeout.  No callback is made, and
	 * close() must not be called from within one.  With a deadline that has passed, the
	 * service is not told at all.
	 */
	void		(*close) (RaProvider *provider, int64_t deadline);

	/*
	 * What to wait for: a descriptor (or -1) that becomes readable, or (if
	 * *writable) writable, and until when at the latest.  May change with any call.
	 */
	int			(*wait_for) (RaProvider *provider, bool *writable, int64_t *until);

	/* Do what can be done now.  Cheap if there is nothing to do. */
	void		(*process) (RaProvider *provider);

	/*
	 * key need not be text, nor end with zero; it is copied.  nowait: refused() unless
	 * the lock is free now.  Never fails for reasons of the service; NULL: no memory.
	 */
	RaProviderRequest *(*acquire) (RaProvider *provider, void *owner, const char *key, int keylen,
								   RaProviderMode mode, bool nowait);

	/* Gives up a request, granted or waiting; released() follows, once the entry is known to be gone */
	void		(*release) (RaProvider *provider, RaProviderRequest *request);

	/* Of a granted request: contended() follows, unless the request ends before */
	void		(*look) (RaProvider *provider, RaProviderRequest *request);

	/*
	 * This node's entry in the list of members, which it has from the first call
	 * on; at most once a second is sent
	 */
	void		(*set_member) (RaProvider *provider, const char *data);

	/* All entries of all keys, for people to look at: not a snapshot */
	void		(*list) (RaProvider *provider, void *owner);

	/*
	 * NULL if the service has no registers.  value: a short text, or NULL to look only.  It
	 * may be called at any time; without a session the request waits for one, until the deadline.
	 * False: no memory, there will be no answer.
	 */
	bool		(*decide) (RaProvider *provider, void *owner, const char *name, int namelen,
						   const char *value, int64_t deadline);

	/* The name is not needed any more, and goes in its time, see sweep().  Best effort, no answer. */
	void		(*forget) (RaProvider *provider, const char *name, int namelen);

	/*
	 * The same for one that sweep() has told of with left(); value is the one it has.  Its time begins now,
	 * and it is not told of again.
	 */
	void		(*forget_left) (RaProvider *provider, const char *name, int namelen, const char *value);

	/* Best effort; goes on by itself for a while */
	void		(*sweep) (RaProvider *provider, const RaProviderSweep *sweep);
} RaProviderOps;

/* The one symbol that a provider's library exports */
typedef const RaProviderOps *(*RaProviderEntryPoint) (void);
#define RA_PROVIDER_SYMBOL "ra_provider"

#endif							/* RA_PROVIDER_H */
