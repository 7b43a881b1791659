/*
 * harness.h
 *	  Several providers in one process, and a network between them and their
 *	  servers that tests can break.
 *
 * Nothing here waits for a time: UNTIL(condition) lets everything go on until
 * the condition holds, and fails after DEADLINE seconds.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "provider.h"

#define DEADLINE		60

/*
 * A relay in front of a server.  It is pumped by UNTIL() like the providers.
 */
typedef struct Proxy Proxy;

extern Proxy *proxy_start(int port);
extern void proxy_stop(Proxy *proxy);
extern int	proxy_port(Proxy *proxy);
extern void proxy_hold(Proxy *proxy, bool hold);	/* nothing passes, all is kept */
extern void proxy_swallow(Proxy *proxy, bool swallow);	/* what the server says is thrown away */
extern long proxy_swallowed(Proxy *proxy);	/* bytes, since that was turned on */
extern void proxy_refuse(Proxy *proxy, bool refuse);	/* new connections */
extern void proxy_cut(Proxy *proxy);	/* all connections */

/* An acquire() and what became of it */
typedef struct Lock
{
	struct Node *node;
	RaProviderRequest *request;
	int			granted;
	bool		waited;			/* says granted() */
	int			refused;
	int			released;
	int			lost;
	int			contended;		/* -1: no answer yet */
	uint64_t	token;
	uint64_t	generation;
	int			order;			/* of its grant, over all nodes */
} Lock;

/* A decide() and its answer */
typedef struct Decision
{
	int			answers;
	bool		nothing;
	char		value[RA_VALUE_MAX];
	char		error[128];		/* empty: none */
	atomic_int	told;			/* calls of stands() */
	atomic_int	told_late;		/* of these, after the answer */
} Decision;

typedef struct Entry
{
	char		key[RA_KEY_MAX + 1];
	int			keylen;
	char		node[RA_NODE_MAX + 1];
	RaProviderMode mode;
	bool		granted;
	int			position;
	uint64_t	token;
} Entry;

/* A provider and what it has said */
typedef struct Node
{
	const RaProviderOps *ops;
	RaProvider *p;
	char		name[RA_NODE_MAX + 1];
	bool		quiet;			/* isn't pumped */

	char		session[RA_SESSION_MAX];
	uint64_t	generation;
	int			timeout;
	int			sessions;		/* calls of session() */
	int			sessions_lost;
	bool		connected;
	int			connects;
	int64_t		lease;
	int			leases;

	char		members[4096];	/* "name=data " each, sorted, "*" before one's own */
	int			members_told;

	int			lists;			/* complete answers */
	const char *list_error;
	Entry	   *entries;
	int			nentries;

	char		log[16384];		/* warnings, a line each, hint in parentheses */
	int			warnings;
	char		left[1024];		/* names, each with a blank */
	atomic_int	woken;			/* calls of wake() */
} Node;

/* node_open: hosts NULL is the server of the tests; node_config() has the defaults */
extern RaProviderConfig node_config(const char *name, int timeout_ms);
extern Node *node_open_config(const RaProviderConfig *config);
extern Node *node_open(const char *hosts, const char *name, int timeout_ms);
extern void node_close(Node *node);
extern void node_free(Node *node);	/* of one closed by hand */
extern void nodes_close(void);
extern const RaProviderOps *harness_ops;
extern const char *harness_hosts;
extern char harness_cluster[64];	/* a new one for each test */

extern Lock *lock_acquire(Node *node, const char *key, RaProviderMode mode, bool nowait);
extern Lock *lock_acquire_bytes(Node *node, const char *key, int len, RaProviderMode mode, bool nowait);
extern void lock_release(Lock *lock);

/* The same until it is granted; until it stands in the queue, as so many entries do; until it is released */
#define lock_take(node, key, mode) lock_take_at(node, key, mode, __FILE__, __LINE__)
#define lock_queue(node, key, mode, entries) lock_queue_at(node, key, mode, entries, __FILE__, __LINE__)
#define lock_end(lock) lock_end_at(lock, __FILE__, __LINE__)
extern Lock *lock_take_at(Node *node, const char *key, RaProviderMode mode, const char *file, int line);
extern Lock *lock_queue_at(Node *node, const char *key, RaProviderMode mode, int entries, const char *file, int line);
extern void lock_end_at(Lock *lock, const char *file, int line);
extern void locks_free(void);

/* All entries, as this node sees them */
extern int	node_list(Node *node);

extern int64_t harness_now(void);
extern int	harness_port(void);
extern void pump(int ms);

#define UNTIL(condition) UNTIL_AT(condition, __FILE__, __LINE__)

/* For helpers: the test's line is the one that failed */
#define UNTIL_AT(condition, file, line) \
	do \
	{ \
		int64_t		until_end = harness_now() + DEADLINE * INT64_C(1000000000); \
		while (!(condition)) \
		{ \
			if (harness_now() > until_end) \
			{ \
				print_error("never happened: %s\n", #condition); \
				_fail(file, line); \
			} \
			pump(100); \
		} \
	} while (0)

/* Longer than anything would need that could still be under way */
extern void pump_for(int ms);

#define X RA_PROVIDER_EXCLUSIVE
#define S RA_PROVIDER_SHARED

#endif							/* HARNESS_H */
