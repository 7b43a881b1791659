/*
 * redis_harness.h
 *	  A Redis server, a proxy before it, and nodes: all driven by one loop.
 */
#ifndef REDIS_HARNESS_H
#define REDIS_HARNESS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "../../src/provider/provider.h"

#define LENGTH(array) (int) (sizeof(array) / sizeof((array)[0]))
#define MS INT64_C(1000000)

extern const RaProviderOps *ra_redis_provider(void);

static int64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

/*
 * Server
 */

typedef struct Server
{
	int			port;
	pid_t		pid;
	char		dir[256];
	redisContext *admin;
	const char *password;		/* of the admin connection */
} Server;

static int
free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	size = sizeof(address);
	int			fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_return_code(bind(fd, (struct sockaddr *) &address, size), errno);
	assert_return_code(getsockname(fd, (struct sockaddr *) &address, &size), errno);
	close(fd);
	return ntohs(address.sin_port);
}

static redisReply *
admin(Server *server, const char *format, ...)
{
	va_list		args;
	redisReply *reply;

	va_start(args, format);
	reply = redisvCommand(server->admin, format, args);
	va_end(args);
	assert_non_null(reply);
	return reply;
}

static long long
admin_integer(Server *server, const char *command)
{
	redisReply *reply = admin(server, command);
	long long	value = reply->integer;

	assert_int_equal(reply->type, REDIS_REPLY_INTEGER);
	freeReplyObject(reply);
	return value;
}

static void
admin_do(Server *server, const char *command)
{
	redisReply *reply = admin(server, command);

	if (reply->type == REDIS_REPLY_ERROR)
		fail_msg("%s: %s", command, reply->str);
	freeReplyObject(reply);
}

/* A number in INFO, after the given text */
static long long
admin_info(Server *server, const char *section, const char *text)
{
	redisReply *reply = admin(server, "INFO %s", section);
	const char *found = strstr(reply->str, text);
	long long	value = found ? atoll(found + strlen(text)) : 0;

	freeReplyObject(reply);
	return value;
}

/* options: as on the command line, separated by spaces */
static void
server_start(Server *server, const char *options)
{
	char		text[512];
	char	   *argv[48] = {0};
	int			argc = 0;
	int64_t		deadline = now_ns() + 20000 * MS;

	if (server->port == 0)
	{
		const char *tmpdir = getenv("TMPDIR");

		server->port = free_port();
		if (tmpdir == NULL || tmpdir[0] == '\0')
			tmpdir = "/tmp";
		assert_in_range(snprintf(server->dir, sizeof(server->dir), "%s/ra-redis.XXXXXX", tmpdir),
						0, sizeof(server->dir) - 1);
		assert_non_null(mkdtemp(server->dir));
	}
	snprintf(text, sizeof(text), "redis-server --bind 127.0.0.1 --port %d --logfile redis.log "
			 "--save '' --enable-debug-command yes %s --dir", server->port, options);
	for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " "))
		argv[argc++] = strcmp(word, "''") == 0 ? "" : word;
	argv[argc++] = server->dir;
	server->pid = fork();
	if (server->pid == 0)
	{
		execvp(argv[0], argv);
		_exit(127);
	}
	for (;;)
	{
		redisReply *reply;

		server->admin = redisConnect("127.0.0.1", server->port);
		if (server->admin != NULL && !server->admin->err)
		{
			if (server->password)
				freeReplyObject(admin(server, "AUTH %s", server->password));
			reply = admin(server, "PING");
			if (reply->type == REDIS_REPLY_STATUS)
			{
				freeReplyObject(reply);
				return;
			}
			freeReplyObject(reply);
		}
		redisFree(server->admin);
		server->admin = NULL;
		assert_true(now_ns() < deadline);
		poll(NULL, 0, 10);
	}
}

static void
server_kill(Server *server)
{
	if (server->admin)
		redisFree(server->admin);
	server->admin = NULL;
	if (server->pid > 0)
	{
		kill(server->pid, SIGKILL);
		waitpid(server->pid, NULL, 0);
	}
	server->pid = 0;
}

static void
server_remove(Server *server)
{
	char		command[sizeof(server->dir) + 16];

	server_kill(server);
	if (server->dir[0])
	{
		snprintf(command, sizeof(command), "rm -rf '%s'", server->dir);
		assert_int_equal(system(command), 0);
	}
	memset(server, 0, sizeof(*server));
}

/* A cluster that is known already: no quiet time */
static void
server_seed(Server *server, const char *cluster)
{
	redisReply *info = admin(server, "INFO server");
	char		run_id[41] = "";
	const char *found = strstr(info->str, "run_id:");

	assert_non_null(found);
	memcpy(run_id, found + 7, 40);
	freeReplyObject(admin(server, "HSET {%s}:generation generation 5 run_id %s", cluster, run_id));
	freeReplyObject(info);
}

/*
 * Proxy
 */

typedef struct Pipe
{
	int			client;
	int			server;
	char		up[65536];		/* held back, from the client */
	int			up_len;
	bool		fresh;			/* came while hold_old */
	bool		held;			/* by hold_old */
	bool		lossy;			/* something was swallowed: fit only to be cut */
} Pipe;

typedef struct Proxy
{
	int			port;
	int			listener;
	int			target;
	bool		hold_up;		/* what clients say stays here */
	bool		swallow_down;	/* what the server says is lost */
	bool		hold_old;		/* cut towards clients, and hold what they said; new ones pass */
	bool		refuse;			/* no new connections */
	int			accepted;
	Pipe		pipes[64];
	int			npipes;
} Proxy;

static void
proxy_open(Proxy *proxy, int target)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	size = sizeof(address);

	memset(proxy, 0, sizeof(*proxy));
	proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_return_code(bind(proxy->listener, (struct sockaddr *) &address, size), errno);
	assert_return_code(getsockname(proxy->listener, (struct sockaddr *) &address, &size), errno);
	assert_return_code(listen(proxy->listener, 64), errno);
	proxy->port = ntohs(address.sin_port);
	proxy->target = target;
}

static void
proxy_close_pipe(Proxy *proxy, int i)
{
	if (proxy->pipes[i].client >= 0)
		close(proxy->pipes[i].client);
	close(proxy->pipes[i].server);
	proxy->pipes[i] = proxy->pipes[--proxy->npipes];
}

static void
proxy_cut(Proxy *proxy)
{
	while (proxy->npipes > 0)
		proxy_close_pipe(proxy, 0);
}

static void
proxy_close(Proxy *proxy)
{
	proxy_cut(proxy);
	close(proxy->listener);
}

/* Cut towards the clients only: what they have said will still arrive */
static void
proxy_cut_clients(Proxy *proxy)
{
	for (int i = 0; i < proxy->npipes; i++)
	{
		if (proxy->pipes[i].client >= 0)
			close(proxy->pipes[i].client);
		proxy->pipes[i].client = -1;
	}
}

static void
proxy_deliver(Pipe *pipe)
{
	/* to a server that is no more, perhaps */
	if (pipe->up_len > 0)
		(void) !send(pipe->server, pipe->up, pipe->up_len, MSG_NOSIGNAL);
	pipe->up_len = 0;
}

static void
proxy_pump(Proxy *proxy)
{
	int			fd;

	while ((fd = accept(proxy->listener, NULL, NULL)) >= 0)
	{
		struct sockaddr_in address = {
			.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
			.sin_port = htons(proxy->target)
		};
		Pipe	   *pipe = &proxy->pipes[proxy->npipes];
		int			server;

		proxy->accepted++;
		if (proxy->refuse)
		{
			close(fd);
			continue;
		}
		server = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(server, (struct sockaddr *) &address, sizeof(address)) != 0)
		{
			close(server);
			close(fd);
			continue;
		}
		assert_true(proxy->npipes < LENGTH(proxy->pipes));
		*pipe = (Pipe) {.client = fd, .server = server, .fresh = proxy->hold_old};
		proxy->npipes++;
	}

	for (int i = proxy->npipes - 1; i >= 0; i--)
	{
		Pipe	   *pipe = &proxy->pipes[i];
		char		buffer[65536];
		ssize_t		n = -1;
		bool		dead = false;

		if (pipe->client >= 0)
		{
			n = recv(pipe->client, pipe->up + pipe->up_len, sizeof(pipe->up) - pipe->up_len, MSG_DONTWAIT);
			if (n > 0)
				pipe->up_len += n;
			dead = n == 0 || (n < 0 && errno != EAGAIN);
		}
		if (proxy->hold_old && pipe->up_len > 0 && pipe->client >= 0 && !pipe->fresh)
		{
			close(pipe->client);
			pipe->client = -1;
			pipe->held = true;
			dead = false;
		}
		if (!proxy->hold_up && !(proxy->hold_old && pipe->held))
			proxy_deliver(pipe);
		n = recv(pipe->server, buffer, sizeof(buffer), MSG_DONTWAIT);
		if (n > 0 && proxy->swallow_down)
			pipe->lossy = true;
		else if (n > 0 && pipe->lossy)
			dead = true;
		else if (n > 0 && pipe->client >= 0)
			(void) !send(pipe->client, buffer, n, MSG_NOSIGNAL);
		if (dead || n == 0 || (n < 0 && errno != EAGAIN))
		{
			/* like a kernel's buffer: what has been said arrives in the end */
			if (dead && pipe->up_len > 0 && pipe->client >= 0)
			{
				close(pipe->client);
				pipe->client = -1;
			}
			else
				proxy_close_pipe(proxy, i);
		}
	}
}

/*
 * Nodes
 */

typedef struct Node Node;

typedef enum
{
	NOTHING, GRANTED, REFUSED, RELEASED, LOST
} What;

/* A lock that a test asks for */
typedef struct Lock
{
	Node	   *node;
	RaProviderRequest *request;
	What		what;			/* happened last */
	int			grants;
	bool		waited;			/* says granted() */
	uint64_t	token;
	uint64_t	generation;
	int			contended;		/* -1: not known */
	RaProviderMode mode;
	bool		given_up;
	int			key;			/* of tests that have several */
} Lock;

struct Node
{
	RaProvider *provider;
	char		session[RA_SESSION_MAX];
	uint64_t	generation;
	int			sessions;
	int			losses;
	bool		connected;
	int64_t		lease;
	char		members[256];	/* node=data, ... ; self has a star */
	int			member_calls;
	char		log[2000];
	int			warnings;
	int			listed;
	bool		list_done;
	char		list[4000];
};

static const RaProviderOps *ops;
static Node *nodes[64];
static int	nnodes;
static Proxy *proxies[4];
static int	nproxies;
static Lock *grant_order[4096];
static int	ngrants;

static void
on_session(void *arg, const char *description, uint64_t generation, int timeout_ms)
{
	Node	   *node = arg;

	assert_true(timeout_ms > 0);
	assert_true(strlen(description) < RA_SESSION_MAX);
	snprintf(node->session, sizeof(node->session), "%s", description);
	assert_true(generation >= node->generation);
	node->generation = generation;
	node->sessions++;
}

static void
on_connected(void *arg, bool connected, const char *detail)
{
	Node	   *node = arg;

	assert_true(node->connected != connected);
	assert_non_null(detail);
	node->connected = connected;
}

static void
on_session_lost(void *arg, const char *detail)
{
	Node	   *node = arg;

	assert_non_null(detail);
	node->losses++;
	node->session[0] = '\0';
	node->lease = 0;
}

static void
on_lease(void *arg, int64_t valid_until)
{
	Node	   *node = arg;

	if (valid_until > node->lease)
		node->lease = valid_until;
}

static void
on_granted(void *arg, void *owner, uint64_t token, bool waited)
{
	Lock	   *lock = owner;

	(void) arg;
	assert_int_equal(lock->what, NOTHING);
	assert_true(token > 0);
	lock->what = GRANTED;
	lock->grants++;
	lock->token = token;
	lock->waited = waited;
	lock->generation = lock->node->generation;
	if (ngrants < LENGTH(grant_order))
		grant_order[ngrants++] = lock;
}

static void
on_end(Lock *lock, What what)
{
	assert_true(lock->what == NOTHING || lock->what == GRANTED);
	lock->what = what;
	lock->request = NULL;
}

static void
on_refused(void *arg, void *owner)
{
	(void) arg;
	on_end(owner, REFUSED);
}

static void
on_released(void *arg, void *owner)
{
	(void) arg;
	on_end(owner, RELEASED);
}

static void
on_lost(void *arg, void *owner)
{
	(void) arg;
	on_end(owner, LOST);
}

static void
on_contended(void *arg, void *owner, bool contended)
{
	(void) arg;
	((Lock *) owner)->contended = contended;
}

static void
on_members(void *arg, const RaProviderMember *members, int n)
{
	Node	   *node = arg;
	size_t		len = 0;

	node->members[0] = '\0';
	for (int i = 0; i < n && len < sizeof(node->members) - 100; i++)
		len += sprintf(node->members + len, "%s%s=%s%s", i ? " " : "", members[i].node,
					   members[i].data, members[i].self ? "*" : "");
	node->member_calls++;
}

static void
on_listed(void *arg, void *owner, const RaProviderEntry *entry, const char *error)
{
	Node	   *node = arg;
	size_t		len = strlen(node->list);

	(void) owner;
	if (entry == NULL)
	{
		node->list_done = true;
		snprintf(node->list + len, sizeof(node->list) - len, "%s", error ? error : "complete");
		return;
	}
	node->listed++;
	if (len < sizeof(node->list) - 700)
		sprintf(node->list + len, "%.*s/%s/%s/%s/%d\n", entry->keylen, entry->key, entry->node,
				entry->mode == RA_PROVIDER_EXCLUSIVE ? "x" : "s",
				entry->granted ? "granted" : "waiting", entry->position);
}

static void
on_log(void *arg, RaProviderLevel level, const char *message, const char *hint)
{
	Node	   *node = arg;
	size_t		len = strlen(node->log);

	if (getenv("VERBOSE"))
		fprintf(stderr, "# %d: %s%s%s\n", level, message, hint ? " / " : "", hint ? hint : "");
	snprintf(node->log + len, sizeof(node->log) - len, "%s|%s\n", message, hint ? hint : "");
	if (level == RA_PROVIDER_WARNING)
		node->warnings++;
}

static const RaProviderCallbacks callbacks = {
	.session = on_session, .connected = on_connected, .session_lost = on_session_lost,
	.lease = on_lease, .granted = on_granted, .refused = on_refused, .released = on_released,
	.lost = on_lost, .contended = on_contended, .members = on_members, .listed = on_listed,
	.log = on_log
};

static void
node_open_config(Node *node, RaProviderConfig *config)
{
	char		error[200] = "";

	memset(node, 0, sizeof(*node));
	node->provider = ops->open(config, &callbacks, node, error, sizeof(error));
	if (node->provider == NULL)
		fail_msg("open: %s", error);
	nodes[nnodes++] = node;
}

static void
node_open(Node *node, const char *name, int port, int timeout_ms)
{
	char		hosts[64];
	RaProviderConfig config = {
		.hosts = hosts, .cluster = "test", .node = name, .session_timeout_ms = timeout_ms
	};

	snprintf(hosts, sizeof(hosts), "127.0.0.1:%d", port);
	node_open_config(node, &config);
}

static void
node_forget(Node *node)
{
	for (int i = 0; i < nnodes; i++)
	{
		if (nodes[i] == node)
			nodes[i] = nodes[--nnodes];
	}
	node->provider = NULL;
}

static void *
pump_proxies(void *closed)
{
	while (!atomic_load((atomic_bool *) closed))
	{
		for (int i = 0; i < nproxies; i++)
			proxy_pump(proxies[i]);
		poll(NULL, 0, 1);
	}
	return NULL;
}

/* It blocks, so proxies need a thread meanwhile */
static void
node_close(Node *node)
{
	pthread_t	thread;
	atomic_bool closed = false;

	if (nproxies > 0)
		assert_int_equal(pthread_create(&thread, NULL, pump_proxies, &closed), 0);
	ops->close(node->provider, now_ns() + 2000 * MS);
	atomic_store(&closed, true);
	if (nproxies > 0)
		pthread_join(thread, NULL);
	node_forget(node);
}

/* As if its process were killed: the service isn't told */
static void
node_die(Node *node)
{
	ops->close(node->provider, 0);
	node_forget(node);
}

/* Let all nodes and proxies run until something happens, or ms have passed */
static void
pump(int ms)
{
	struct pollfd fds[256];
	int			n = 0;
	int64_t		now = now_ns();
	int64_t		until = now + ms * MS;

	for (int i = 0; i < nnodes; i++)
	{
		bool		writable;
		int64_t		at;

		fds[n].fd = ops->wait_for(nodes[i]->provider, &writable, &at);
		fds[n++].events = writable ? POLLIN | POLLOUT : POLLIN;
		if (at < until)
			until = at;
	}
	for (int i = 0; i < nproxies; i++)
	{
		fds[n].fd = proxies[i]->listener;
		fds[n++].events = POLLIN;
		for (int j = 0; j < proxies[i]->npipes; j++)
		{
			fds[n].fd = proxies[i]->pipes[j].client;
			fds[n++].events = POLLIN;
			fds[n].fd = proxies[i]->pipes[j].server;
			fds[n++].events = POLLIN;
		}
	}
	poll(fds, n, until > now ? (int) ((until - now + MS - 1) / MS) : 0);
	for (int i = 0; i < nproxies; i++)
		proxy_pump(proxies[i]);
	for (int i = 0; i < nnodes; i++)
		ops->process(nodes[i]->provider);
}

#define WAIT_MS 20000

#define until_(condition, ms) \
	do { \
		int64_t		end_ = now_ns() + (ms) * MS; \
		while (!(condition)) \
		{ \
			if (now_ns() > end_) \
				fail_msg("line %d: still not: %s", __LINE__, #condition); \
			pump(20); \
		} \
	} while (0)
#define until(condition) until_(condition, WAIT_MS)

static void
pump_for(int ms)
{
	int64_t		end = now_ns() + ms * MS;

	while (now_ns() < end)
		pump(20);
}

static void
ask(Lock *lock, Node *node, const char *key, RaProviderMode mode, bool nowait)
{
	*lock = (Lock) {.node = node, .contended = -1, .mode = mode, .key = lock->key};
	lock->request = ops->acquire(node->provider, lock, key, (int) strlen(key), mode, nowait);
	assert_non_null(lock->request);
}

static void
exclusive(Lock *lock, Node *node, const char *key)
{
	ask(lock, node, key, RA_PROVIDER_EXCLUSIVE, false);
}

static void
shared(Lock *lock, Node *node, const char *key)
{
	ask(lock, node, key, RA_PROVIDER_SHARED, false);
}

static void
give_up(Lock *lock)
{
	lock->given_up = true;
	ops->release(lock->node->provider, lock->request);
}

/* The same, until the lock is granted, or released; macros, so that until() names the test's line */
#define take(lock, node, key) \
	do { \
		exclusive(lock, node, key); \
		until((lock)->what == GRANTED); \
	} while (0)
#define let_go(lock) \
	do { \
		give_up(lock); \
		until((lock)->what == RELEASED); \
	} while (0)

/*
 * Fixture: one server for all tests of a program, emptied for each
 */

static Server server;

/* Only the generation stays for ever */
static void
assert_nothing_left(void)
{
	redisReply *reply = admin(&server, "KEYS *");
	char		left[256] = "";

	for (size_t i = 0; i < reply->elements; i++)
	{
		if (strcmp(reply->element[i]->str, "{test}:generation") != 0)
			snprintf(left, sizeof(left), "%s", reply->element[i]->str);
	}
	freeReplyObject(reply);
	if (left[0])
		fail_msg("left behind: %s", left);
}

static int
begin(void **state)
{
	(void) state;
	nnodes = nproxies = ngrants = 0;
	if (server.pid == 0)
		server_start(&server, "");
	admin_do(&server, "FLUSHALL");
	admin_do(&server, "CONFIG RESETSTAT");
	server_seed(&server, "test");
	return 0;
}

static int
end(void **state)
{
	(void) state;
	while (nnodes > 0)
		node_die(nodes[0]);
	while (nproxies > 0)
		proxy_close(proxies[--nproxies]);
	return 0;
}

/* For tests that need another server than that */
static int
end_with_server(void **state)
{
	end(state);
	server_remove(&server);
	return 0;
}

static int
run_all(const char *name, const struct CMUnitTest *tests, int n, int argc, char **argv)
{
	int			failed;

	signal(SIGPIPE, SIG_IGN);
	ops = ra_redis_provider();
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
	server_remove(&server);
	return failed;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, begin, end)
#define TEST_OF_SERVER(function) cmocka_unit_test_setup_teardown(function, begin, end_with_server)

#endif							/* REDIS_HARNESS_H */
