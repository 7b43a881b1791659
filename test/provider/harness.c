/*
 * harness.c
 *	  See harness.h.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define MAX_NODES		64
#define MAX_PAIRS		64
#define MAX_PROXIES		16

const RaProviderOps *harness_ops;
const char *harness_hosts;
char		harness_cluster[64];

static Node *nodes[MAX_NODES];
static int	nnodes;
static Lock **locks;
static int	nlocks;
static int	order;

int64_t
harness_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int
harness_port(void)
{
	return atoi(strrchr(harness_hosts, ':') + 1);
}

/* ---- relay ---- */

typedef struct Pair
{
	int			fd[2];			/* client, server */
	char	   *kept[2];		/* from each, not yet passed on */
	size_t		nkept[2];
} Pair;

struct Proxy
{
	int			listener;
	int			port;
	int			target;
	bool		hold;
	bool		swallow;
	bool		refuse;
	long		swallowed;
	Pair		pairs[MAX_PAIRS];
	int			npairs;
};

static Proxy *proxies[MAX_PROXIES];
static int	nproxies;

static struct sockaddr_in
local_address(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port)};

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return address;
}

Proxy *
proxy_start(int port)
{
	Proxy	   *proxy = calloc(1, sizeof(*proxy));
	struct sockaddr_in address = local_address(0);
	socklen_t	len = sizeof(address);

	proxy->target = port;
	proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(proxy->listener, (struct sockaddr *) &address, sizeof(address)), 0);
	assert_int_equal(listen(proxy->listener, 16), 0);
	assert_int_equal(getsockname(proxy->listener, (struct sockaddr *) &address, &len), 0);
	proxy->port = ntohs(address.sin_port);
	proxies[nproxies++] = proxy;
	return proxy;
}

int
proxy_port(Proxy *proxy)
{
	return proxy->port;
}

static void
drop_pair(Proxy *proxy, int i)
{
	Pair	   *pair = &proxy->pairs[i];

	for (int side = 0; side < 2; side++)
	{
		close(pair->fd[side]);
		free(pair->kept[side]);
	}
	*pair = proxy->pairs[--proxy->npairs];
}

void
proxy_cut(Proxy *proxy)
{
	while (proxy->npairs > 0)
		drop_pair(proxy, 0);
}

void
proxy_stop(Proxy *proxy)
{
	proxy_cut(proxy);
	close(proxy->listener);
	for (int i = 0; i < nproxies; i++)
		if (proxies[i] == proxy)
			proxies[i] = proxies[--nproxies];
	free(proxy);
}

void
proxy_hold(Proxy *proxy, bool hold)
{
	proxy->hold = hold;
}

void
proxy_swallow(Proxy *proxy, bool swallow)
{
	proxy->swallow = swallow;
	if (swallow)
		proxy->swallowed = 0;
}

long
proxy_swallowed(Proxy *proxy)
{
	return proxy->swallowed;
}

void
proxy_refuse(Proxy *proxy, bool refuse)
{
	proxy->refuse = refuse;
}

static void
proxy_accept(Proxy *proxy)
{
	int			client = accept4(proxy->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int			server;
	int			one = 1;
	struct sockaddr_in address = local_address(proxy->target);

	if (client < 0)
		return;
	server = proxy->refuse || proxy->npairs == MAX_PAIRS ? -1 : socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server < 0 || connect(server, (struct sockaddr *) &address, sizeof(address)) != 0)
	{
		close(client);
		if (server >= 0)
			close(server);
		return;
	}
	fcntl(server, F_SETFL, O_NONBLOCK);
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	proxy->pairs[proxy->npairs++] = (Pair) {.fd = {client, server}};
}

/* False: the connection has ended */
static bool
pass_on(Proxy *proxy, Pair *pair, int from)
{
	char		buffer[65536];
	ssize_t		n = recv(pair->fd[from], buffer, sizeof(buffer), 0);

	if (n == 0)
		return false;
	if (n > 0 && from == 1 && proxy->swallow)
		proxy->swallowed += n;
	else if (n > 0)
	{
		pair->kept[from] = realloc(pair->kept[from], pair->nkept[from] + (size_t) n);
		memcpy(pair->kept[from] + pair->nkept[from], buffer, (size_t) n);
		pair->nkept[from] += (size_t) n;
	}
	if (pair->nkept[from] > 0)
	{
		n = send(pair->fd[1 - from], pair->kept[from], pair->nkept[from], MSG_NOSIGNAL);
		if (n > 0)
		{
			pair->nkept[from] -= (size_t) n;
			memmove(pair->kept[from], pair->kept[from] + n, pair->nkept[from]);
		}
	}
	return true;
}

/* ---- going on ---- */

void
pump(int ms)
{
	struct pollfd fds[MAX_NODES + MAX_PROXIES * (1 + 2 * MAX_PAIRS)];
	int			n = 0;

	for (int i = 0; i < nnodes; i++)
	{
		bool		writable;
		int64_t		until;
		int64_t		left;
		int			fd;

		if (nodes[i]->quiet)
			continue;
		fd = nodes[i]->ops->wait_for(nodes[i]->p, &writable, &until);
		if (fd >= 0)
			fds[n++] = (struct pollfd) {.fd = fd, .events = writable ? POLLIN | POLLOUT : POLLIN};
		left = until == INT64_MAX ? ms : (until - harness_now()) / 1000000 + 1;
		if (left < ms)
			ms = left < 0 ? 0 : (int) left;
	}
	for (int i = 0; i < nproxies; i++)
	{
		Proxy	   *proxy = proxies[i];

		fds[n++] = (struct pollfd) {.fd = proxy->listener, .events = POLLIN};
		if (!proxy->hold)
			for (int j = 0; j < proxy->npairs; j++)
				for (int side = 0; side < 2; side++)
				{
					fds[n++] = (struct pollfd) {.fd = proxy->pairs[j].fd[side], .events = POLLIN};
					if (proxy->pairs[j].nkept[side] > 0)
						ms = ms > 1 ? 1 : ms;
				}
	}
	poll(fds, (nfds_t) n, ms);

	for (int i = 0; i < nproxies; i++)
	{
		Proxy	   *proxy = proxies[i];

		proxy_accept(proxy);
		if (!proxy->hold)
			for (int j = proxy->npairs - 1; j >= 0; j--)
				if (!pass_on(proxy, &proxy->pairs[j], 0) || !pass_on(proxy, &proxy->pairs[j], 1))
					drop_pair(proxy, j);
	}
	for (int i = 0; i < nnodes; i++)
		if (!nodes[i]->quiet)
			nodes[i]->ops->process(nodes[i]->p);
}

void
pump_for(int ms)
{
	int64_t		end = harness_now() + ms * INT64_C(1000000);

	while (harness_now() < end)
		pump(10);
}

/* ---- callbacks ---- */

static void
on_session(void *arg, const char *description, uint64_t generation, int timeout_ms)
{
	Node	   *node = arg;

	assert_true(strlen(description) < RA_SESSION_MAX);
	strcpy(node->session, description);
	node->generation = generation;
	node->timeout = timeout_ms;
	node->sessions++;
}

static void
on_connected(void *arg, bool connected, const char *detail)
{
	Node	   *node = arg;

	assert_non_null(detail);
	assert_true(node->connected != connected);
	node->connected = connected;
	node->connects += connected;
}

static void
on_session_lost(void *arg, const char *detail)
{
	Node	   *node = arg;

	assert_non_null(detail);
	for (int i = 0; i < nlocks; i++)
		if (locks[i]->node == node)
			assert_true(locks[i]->granted <= locks[i]->lost + locks[i]->released);
	node->sessions_lost++;
	node->lease = 0;
}

static void
on_lease(void *arg, int64_t valid_until)
{
	Node	   *node = arg;

	assert_true(node->sessions > node->sessions_lost);
	assert_true(valid_until > node->lease);
	assert_true(valid_until <= harness_now() + node->timeout * INT64_C(1000000));
	node->lease = valid_until;
	node->leases++;
}

static void
on_granted(void *arg, void *owner, uint64_t token, bool waited)
{
	Node	   *node = arg;
	Lock	   *lock = owner;

	assert_ptr_equal(lock->node, node);
	assert_int_equal(lock->granted + lock->refused + lock->released + lock->lost, 0);
	lock->granted++;
	lock->token = token;
	lock->waited = waited;
	lock->generation = node->generation;
	lock->order = ++order;
}

static void
on_refused(void *arg, void *owner)
{
	Lock	   *lock = owner;

	(void) arg;
	assert_int_equal(lock->granted + lock->refused + lock->released + lock->lost, 0);
	lock->refused++;
}

static void
on_released(void *arg, void *owner)
{
	Lock	   *lock = owner;

	(void) arg;
	assert_int_equal(lock->refused + lock->released + lock->lost, 0);
	lock->released++;
}

static void
on_lost(void *arg, void *owner)
{
	Lock	   *lock = owner;

	(void) arg;
	assert_int_equal(lock->granted, 1);
	assert_int_equal(lock->refused + lock->released + lock->lost, 0);
	lock->lost++;
}

static void
on_contended(void *arg, void *owner, bool contended)
{
	(void) arg;
	((Lock *) owner)->contended = contended;
}

static int
compare_members(const void *a, const void *b)
{
	return strcmp(((const RaProviderMember *) a)->node, ((const RaProviderMember *) b)->node);
}

static void
on_members(void *arg, const RaProviderMember *members, int n)
{
	Node	   *node = arg;
	RaProviderMember sorted[MAX_NODES];
	size_t		len = 0;

	memcpy(sorted, members, sizeof(*members) * (size_t) n);
	qsort(sorted, (size_t) n, sizeof(*sorted), compare_members);
	node->members[0] = '\0';
	for (int i = 0; i < n; i++)
		len += (size_t) snprintf(node->members + len, sizeof(node->members) - len, "%s%s=%s ",
								 sorted[i].self ? "*" : "", sorted[i].node, sorted[i].data);
	node->members_told++;
}

static void
on_decided(void *arg, void *owner, const char *value, const char *error)
{
	Decision   *decision = owner;

	(void) arg;
	decision->answers++;
	decision->nothing = value == NULL;
	snprintf(decision->value, sizeof(decision->value), "%s", value != NULL ? value : "");
	snprintf(decision->error, sizeof(decision->error), "%s", error != NULL ? error : "");
}

/* On any thread */
static void *
on_stands(void *arg, void *owner)
{
	Decision   *decision = owner;

	if (decision->answers > 0)
		decision->told_late++;
	decision->told++;
	return arg;
}

static void
on_wake(void *arg, void *whom)
{
	assert_ptr_equal(whom, arg);
	((Node *) whom)->woken++;
}

static void
on_left(void *arg, const char *name, int namelen)
{
	Node	   *node = arg;
	size_t		len = strlen(node->left);

	snprintf(node->left + len, sizeof(node->left) - len, "%.*s ", namelen, name);
}

static void
on_listed(void *arg, void *owner, const RaProviderEntry *entry, const char *error)
{
	Node	   *node = arg;
	Entry	   *to;

	assert_ptr_equal(owner, node);
	if (entry == NULL)
	{
		node->lists++;
		node->list_error = error;
		return;
	}
	node->entries = realloc(node->entries, sizeof(Entry) * (size_t) (node->nentries + 1));
	to = &node->entries[node->nentries++];
	memcpy(to->key, entry->key, (size_t) entry->keylen);
	to->key[entry->keylen] = '\0';
	to->keylen = entry->keylen;
	strcpy(to->node, entry->node);
	to->mode = entry->mode;
	to->granted = entry->granted;
	to->position = entry->position;
	to->token = entry->token;
}

static void
on_log(void *arg, RaProviderLevel level, const char *message, const char *hint)
{
	Node	   *node = arg;
	size_t		len = strlen(node->log);

	assert_null(strstr(message, "secret"));
	assert_true(hint == NULL || strstr(hint, "secret") == NULL);
	if (getenv("VERBOSE") != NULL)
		fprintf(stderr, "# %s %d: %s (%s)\n", node->name, level, message, hint != NULL ? hint : "");
	if (level != RA_PROVIDER_WARNING)
		return;
	node->warnings++;
	snprintf(node->log + len, sizeof(node->log) - len, "%s (%s)\n", message, hint != NULL ? hint : "");
}

/* ---- nodes and locks ---- */

Node *
node_open_config(const RaProviderConfig *config)
{
	static const RaProviderCallbacks callbacks = {
		on_session, on_connected, on_session_lost, on_lease, on_granted, on_refused, on_released,
		on_lost, on_contended, on_members, on_listed, on_decided, on_stands, on_wake, on_left, on_log
	};
	Node	   *node = calloc(1, sizeof(*node));
	char		error[256] = "";

	node->ops = harness_ops;
	strcpy(node->name, config->node);
	node->p = harness_ops->open(config, &callbacks, node, error, sizeof(error));
	if (node->p == NULL)
		fail_msg("%s", error);
	nodes[nnodes++] = node;
	return node;
}

RaProviderConfig
node_config(const char *name, int timeout_ms)
{
	return (RaProviderConfig) {
		.hosts = harness_hosts,
		.cluster = harness_cluster,
		.node = name,
		.session_timeout_ms = timeout_ms
	};
}

Node *
node_open(const char *hosts, const char *name, int timeout_ms)
{
	RaProviderConfig config = node_config(name, timeout_ms);

	if (hosts != NULL)
		config.hosts = hosts;
	return node_open_config(&config);
}

void
node_free(Node *node)
{
	for (int i = 0; i < nnodes; i++)
		if (nodes[i] == node)
			nodes[i] = nodes[--nnodes];
	free(node->entries);
	free(node);
}

void
node_close(Node *node)
{
	node->ops->close(node->p, harness_now() + 5 * INT64_C(1000000000));
	node_free(node);
}

void
nodes_close(void)
{
	while (nnodes > 0)
		node_close(nodes[0]);
	while (nproxies > 0)
		proxy_stop(proxies[0]);
	locks_free();
}

Lock *
lock_acquire_bytes(Node *node, const char *key, int len, RaProviderMode mode, bool nowait)
{
	Lock	   *lock = calloc(1, sizeof(*lock));

	if ((nlocks & (nlocks - 1)) == 0)
		locks = realloc(locks, sizeof(*locks) * (size_t) (nlocks == 0 ? 1 : 2 * nlocks));
	locks[nlocks++] = lock;
	lock->node = node;
	lock->contended = -1;
	lock->request = node->ops->acquire(node->p, lock, key, len, mode, nowait);
	assert_non_null(lock->request);
	return lock;
}

Lock *
lock_acquire(Node *node, const char *key, RaProviderMode mode, bool nowait)
{
	return lock_acquire_bytes(node, key, (int) strlen(key), mode, nowait);
}

void
lock_release(Lock *lock)
{
	lock->node->ops->release(lock->node->p, lock->request);
}

Lock *
lock_take_at(Node *node, const char *key, RaProviderMode mode, const char *file, int line)
{
	Lock	   *lock = lock_acquire(node, key, mode, false);

	UNTIL_AT(lock->granted, file, line);
	return lock;
}

Lock *
lock_queue_at(Node *node, const char *key, RaProviderMode mode, int entries, const char *file, int line)
{
	Lock	   *lock = lock_acquire(node, key, mode, false);

	UNTIL_AT(node_list(node) == entries, file, line);
	return lock;
}

void
lock_end_at(Lock *lock, const char *file, int line)
{
	lock_release(lock);
	UNTIL_AT(lock->released, file, line);
}

void
locks_free(void)
{
	for (int i = 0; i < nlocks; i++)
		free(locks[i]);
	free(locks);
	locks = NULL;
	nlocks = 0;
}

int
node_list(Node *node)
{
	do
	{
		int			before = node->lists;

		/* without a connection there is no list */
		UNTIL(node->connected && node->sessions > node->sessions_lost);
		node->nentries = 0;
		node->ops->list(node->p, node);
		UNTIL(node->lists > before);
	} while (node->list_error != NULL);
	return node->nentries;
}
