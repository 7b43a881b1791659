/*
 * redis_internal.h
 *	  What redis.c (requests and the interface), redis_session.c (connections,
 *	  the session, members) and redis_walk.c (going over all locks) share.
 */
#ifndef RA_REDIS_INTERNAL_H
#define RA_REDIS_INTERNAL_H

#include <sys/queue.h>

#include "provider.h"
#include "redis_link.h"
#include "redis_scripts.h"
#include "redis_tls.h"

#define MS INT64_C(1000000)		/* in ns */

/* Requests that wait are looked at that often, in case a wake-up was lost or a holder has died */
#define CHECK_INTERVAL (500 * MS)

#define RETRY_INTERVAL (500 * MS)	/* of a command that the server refused */
#define MEMBERS_INTERVAL (500 * MS)	/* at least, between beats because of changed members */
#define DATA_INTERVAL (1000 * MS)	/* at least, between two set_member() sent */

#define SESSION_LEN 32
#define SWEEP_MAX 64			/* dead sessions swept at once */

typedef enum RequestState
{
	REQUEST_SEND,				/* acquire is to be sent */
	REQUEST_FLIGHT,				/* acquire has been sent */
	REQUEST_WAITING,			/* in the queue */
	REQUEST_GRANTED,
	REQUEST_RELEASE,			/* release is to be sent */
	REQUEST_RELEASING,			/* release has been sent */
	REQUEST_DONE,				/* given up before anything was sent */
	REQUEST_STATES
} RequestState;

struct RaProviderRequest
{
	TAILQ_ENTRY(RaProviderRequest) link;	/* in the list of its state */
	RequestState state;
	int			refs;			/* one for the list, one for each command sent */
	bool		ended;
	bool		tried;			/* acquire may have reached the server */
	bool		checking;		/* check has been sent */
	bool		looking;		/* look() is to be answered */
	bool		nowait;
	bool		waited;			/* in the queue */
	RaProviderMode mode;
	uint64_t	number;			/* serial << 24 | slot; a new one in each session */
	uint64_t	token;			/* 0: not granted */
	void	   *owner;
	int			keylen;
	char		key[];
};

typedef TAILQ_HEAD(RequestList, RaProviderRequest) RequestList;

/* Kinds of commands */
enum
{
	COMMAND_AUTH,
	COMMAND_INFO,
	COMMAND_LOAD,				/* number: which script */
	COMMAND_ATTACH,
	COMMAND_BEAT,
	COMMAND_ACQUIRE,			/* ref: the request, from here ... */
	COMMAND_RELEASE,
	COMMAND_CHECK,
	COMMAND_VERIFY,				/* as CHECK, of a granted request after a reconnect */
	COMMAND_LOOK,				/* ... to here */
	COMMAND_SCAN,				/* ref: the walk */
	COMMAND_RANGE,				/* ref: the walk's key */
	COMMAND_SETTLE,				/* ref: the walk */
	COMMAND_SWEPT,
	COMMAND_END
};

/* A walk over all lock keys: for list(), or to remove the entries of dead sessions */
typedef struct Walk
{
	TAILQ_ENTRY(Walk) link;
	bool		sweep;
	bool		started;
	bool		failed;			/* some key could not be asked for */
	void	   *owner;
	char		cursor[24];
	int			pending;		/* keys whose reply is outstanding */
	int			ndead;
	char		dead[SWEEP_MAX][SESSION_LEN + 1];
} Walk;

typedef struct WalkKey
{
	Walk	   *walk;
	int			keylen;
	char		key[];
} WalkKey;

typedef struct Host
{
	char	   *name;
	int			port;
	char		trouble[240];	/* what was logged last */
} Host;

typedef enum Phase
{
	PHASE_OFF,
	PHASE_CONNECTING,
	PHASE_SETUP,				/* AUTH, INFO, SCRIPT LOAD, then ATTACH */
	PHASE_READY
} Phase;

struct RaProvider
{
	const RaProviderCallbacks *callbacks;
	RaProviderCallbacks callbacks_copy;
	void	   *arg;

	/* configuration */
	Host	   *hosts;
	int			nhosts;
	char	   *prefix;			/* {cluster}: */
	char	   *node;
	char	   *user;
	char	   *password;
	RaProviderTls *tls;			/* NULL: plain text */
	int			timeout_ms;
	int64_t		timeout;		/* ns */
	int64_t		patience;		/* how long an answer may take */
	char	   *key_generation;
	char	   *key_members;
	char	   *key_sweep;
	char	   *channel_all;

	/* connections */
	int			epoll_fd;
	RaRedisLink commands;
	RaRedisLink wake;			/* subscribed to what wakes this session */
	Phase		phase;			/* of commands */
	Phase		wake_phase;
	int			host;			/* being tried or used */
	int			failures;		/* rounds through all hosts */
	int			wake_failures;
	int64_t		retry_at;
	int64_t		deadline;		/* of CONNECTING and SETUP */
	int64_t		wake_retry_at;
	int64_t		wake_deadline;	/* 0: no answer is due */
	int64_t		hold_until;		/* requests aren't sent before */
	bool		connected;		/* as the broker knows it */
	char		trouble[240];	/* of a connection that works, as logged last */
	bool		warned_of_eviction;
	char		sha[RA_REDIS_SCRIPTS][41];
	char		run_id[48];
	uint64_t	random;

	/* session */
	char		session[SESSION_LEN + 1];
	bool		session_up;		/* announced, not lost */
	bool		attaching;		/* ATTACH has been sent */
	bool		resume;			/* and for the session there is */
	char		value[RA_NODE_MAX + 24];	/* what its key has to contain */
	char		key_session[32 + 2 * RA_KEY_MAX];
	char		previous[SESSION_LEN + 1];	/* to be ended; or empty */
	uint64_t	attach_number;
	uint64_t	generation;
	uint64_t	generation_seen;
	char		generation_text[24];
	int64_t		session_since;
	int64_t		session_start;	/* ms of the wall clock */
	int64_t		next_beat;
	int64_t		last_beat;
	int64_t		next_check;
	bool		beating;

	/* members */
	char	   *data;			/* own, or NULL */
	bool		data_changed;
	int64_t		data_sent;
	char	   *members;		/* as announced last */
	size_t		members_len;
	char		same_node[SESSION_LEN + 1]; /* warned of this session */

	/* requests */
	RequestList list[REQUEST_STATES];
	RaProviderRequest **slots;
	uint32_t   *free_slots;
	uint32_t	nslots;
	uint32_t	nfree;
	uint64_t	serial;
	TAILQ_HEAD(, Walk) walks;
	bool		sweeping;		/* one of walks does */
	bool		closing;
	bool		ended;			/* END has been answered */
};

/* Arguments of a command; texts must live until it is sent */
typedef struct Args
{
	int			n;
	const char *argv[16 + SWEEP_MAX];
	size_t		len[16 + SWEEP_MAX];
	char		text[4][24];	/* of numbers */
} Args;

/* redis_session.c */
extern bool ra_redis_parse_hosts(RaProvider *p, const char *hosts, char *error, int error_size);
extern void ra_redis_drive(RaProvider *p);
extern int64_t ra_redis_next_time(RaProvider *p);
extern void ra_redis_reattach(RaProvider *p);
extern bool ra_redis_refused(RaProvider *p, const char *what, const redisReply *reply);
extern void ra_redis_args(Args *args, const void *data, size_t len);
extern void ra_redis_text(Args *args, const char *text);
extern void ra_redis_script(RaProvider *p, Args *args, RaRedisScript script, int nkeys);
extern bool ra_redis_send(RaProvider *p, Args *args, int kind, void *ref, uint64_t number);
extern void ra_redis_disconnect(RaProvider *p, const char *why);

/* redis.c */
extern void ra_redis_send_requests(RaProvider *p);
extern void ra_redis_check_requests(RaProvider *p, int64_t now);
extern void ra_redis_resume_requests(RaProvider *p);
extern void ra_redis_lose_requests(RaProvider *p);
extern void ra_redis_requeue_requests(RaProvider *p);
extern void ra_redis_drop_command(RaRedisCommand *command);
extern void ra_redis_disconnect_requests(RaProvider *p);
extern void ra_redis_request_reply(RaProvider *p, RaRedisCommand *command, const redisReply *reply);
extern void ra_redis_woken(RaProvider *p, const char *message);

/* redis_walk.c */
extern void ra_redis_list(RaProvider *p, void *owner);
extern void ra_redis_start_walks(RaProvider *p);
extern void ra_redis_break_walks(RaProvider *p);
extern void ra_redis_walk_reply(RaProvider *p, RaRedisCommand *command, const redisReply *reply);
extern void ra_redis_sweep(RaProvider *p, const redisReply *dead);

#endif							/* RA_REDIS_INTERNAL_H */
