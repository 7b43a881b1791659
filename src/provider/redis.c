/*
 * redis.c
 *	  Locks by Redis: requests, and the provider's interface.
 *
 * A request is in the list of its state, and moves on when an answer or a wake-up
 * arrives.  Commands refer to it, so it outlives the callback that ends it until the
 * last of them has been answered; its number, which is another one in each session, tells
 * late news from current.
 *
 * While the session is attached, commands are put in the output buffer at once, any
 * number of them behind each other; wait_for() and process() write it.  A
 * broken connection leaves requests whose acquire or release had been sent; they are sent
 * again, marked as such, which does nothing if the first had succeeded.
 *
 * What is not promised, because Redis can't: see redis_scripts.c for restarts.
 * A fail-over to a replica while the old primary goes on to serve some nodes
 * gives a lock to both sides; min-replicas-to-write at the primary limits for how long.
 * Sessions expire by the server's wall clock, so a step forward ends them early.  All
 * nodes should have the same session timeout.
 *
 * Rights that an ACL user needs, with its cluster named "risk":
 *
 *	~{risk}:* &{risk}:* +info +scan +lrange +llen +lindex +lpos +lrem +lset +rpush
 *	+get +set +del +exists +pexpire +hget +hmget +hset +hdel +hkeys +hgetall +hincrby
 *	+time +publish +subscribe +ping +evalsha +script|load
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "redis_internal.h"

#define SLOT_BITS 24
#define SLOT_MASK ((UINT64_C(1) << SLOT_BITS) - 1)

const RaProviderOps *ra_redis_provider(void);

static void move(RaProvider *p, RaProviderRequest *request, RequestState state);
static void end_request(RaProvider *p, RaProviderRequest *request);
static void grant(RaProvider *p, RaProviderRequest *request, uint64_t token);
static void send_request(RaProvider *p, RaProviderRequest *request);

/*
 * Requests
 */

static void
unref(RaProviderRequest *request)
{
	if (--request->refs == 0)
		free(request);
}

static void
move(RaProvider *p, RaProviderRequest *request, RequestState state)
{
	TAILQ_REMOVE(&p->list[request->state], request, link);
	request->state = state;
	TAILQ_INSERT_TAIL(&p->list[state], request, link);
}

/* The caller makes the last callback, then calls unref() */
static void
end_request(RaProvider *p, RaProviderRequest *request)
{
	uint32_t	slot = request->number & SLOT_MASK;

	TAILQ_REMOVE(&p->list[request->state], request, link);
	request->ended = true;
	p->slots[slot] = NULL;
	p->free_slots[p->nfree++] = slot;
}

static void
end_released(RaProvider *p, RaProviderRequest *request)
{
	end_request(p, request);
	p->callbacks->released(p->arg, request->owner);
	unref(request);
}

static void
end_lost(RaProvider *p, RaProviderRequest *request)
{
	end_request(p, request);
	p->callbacks->lost(p->arg, request->owner);
	unref(request);
}

static void
new_number(RaProvider *p, RaProviderRequest *request)
{
	request->number = ++p->serial << SLOT_BITS | (request->number & SLOT_MASK);
}

static RaProviderRequest *
find_request(RaProvider *p, uint64_t number)
{
	uint32_t	slot = number & SLOT_MASK;
	RaProviderRequest *request = slot < p->nslots ? p->slots[slot] : NULL;

	return request != NULL && request->number == number ? request : NULL;
}

static void
grant(RaProvider *p, RaProviderRequest *request, uint64_t token)
{
	request->token = token;
	move(p, request, REQUEST_GRANTED);
	p->callbacks->granted(p->arg, request->owner, token, request->waited);
}

/*
 * Sending
 */

static void
send_script(RaProvider *p, RaProviderRequest *request, RaRedisScript script, int kind)
{
	Args		args;
	char		key[2 * RA_KEY_MAX + 64];
	char		id[SESSION_LEN + 32];
	int			len;

	ra_redis_script(p, &args, script, 3);
	len = snprintf(key, sizeof(key), "%slock:", p->prefix);
	memcpy(key + len, request->key, request->keylen);
	ra_redis_args(&args, key, len + request->keylen);
	ra_redis_text(&args, p->generation_text);
	ra_redis_text(&args, p->value);
	ra_redis_text(&args, p->prefix);
	snprintf(id, sizeof(id), "%s/%llu/%c/", p->session, (unsigned long long) request->number,
			 request->mode == RA_PROVIDER_EXCLUSIVE ? 'x' : 's');
	ra_redis_text(&args, id);
	ra_redis_text(&args, p->node);
	if (script == RA_REDIS_ACQUIRE)
	{
		ra_redis_text(&args, request->mode == RA_PROVIDER_EXCLUSIVE ? "x" : "s");
		ra_redis_text(&args, request->nowait ? "1" : "0");
		ra_redis_text(&args, request->tried ? "1" : "0");
		request->tried = true;
	}
	else if (script == RA_REDIS_RELEASE)
	{
		snprintf(args.text[1], sizeof(args.text[1]), "%llu", (unsigned long long) request->token);
		ra_redis_text(&args, args.text[1]);
	}
	if (ra_redis_send(p, &args, kind, request, request->number))
		request->refs++;
}

/* The acquire or release that is to be sent */
static void
send_request(RaProvider *p, RaProviderRequest *request)
{
	if (request->state == REQUEST_SEND)
	{
		send_script(p, request, RA_REDIS_ACQUIRE, COMMAND_ACQUIRE);
		move(p, request, REQUEST_FLIGHT);
	}
	else
	{
		send_script(p, request, RA_REDIS_RELEASE, COMMAND_RELEASE);
		move(p, request, REQUEST_RELEASING);
	}
}

static bool
may_send(RaProvider *p)
{
	return p->phase == PHASE_READY && (p->hold_until == 0 || ra_redis_clock() >= p->hold_until);
}

void
ra_redis_send_requests(RaProvider *p)
{
	RaProviderRequest *request;

	while ((request = TAILQ_FIRST(&p->list[REQUEST_DONE])) != NULL)
		end_released(p, request);
	if (!may_send(p))
		return;
	p->hold_until = 0;
	while ((request = TAILQ_FIRST(&p->list[REQUEST_RELEASE])) != NULL)
		send_request(p, request);
	while ((request = TAILQ_FIRST(&p->list[REQUEST_SEND])) != NULL)
		send_request(p, request);
}

static void
send_check(RaProvider *p, RaProviderRequest *request, int kind)
{
	send_script(p, request, RA_REDIS_CHECK, kind);
	request->checking = kind == COMMAND_CHECK;
}

static void
send_look(RaProvider *p, RaProviderRequest *request)
{
	Args		args = {0};
	char		key[2 * RA_KEY_MAX + 64];
	int			len = snprintf(key, sizeof(key), "%slock:", p->prefix);

	memcpy(key + len, request->key, request->keylen);
	ra_redis_text(&args, "LLEN");
	ra_redis_args(&args, key, len + request->keylen);
	if (ra_redis_send(p, &args, COMMAND_LOOK, request, request->number))
		request->refs++;
}

/*
 * What waits is checked from time to time.  That lets go of a dead holder, and
 * makes up for lost wake-ups.
 */
void
ra_redis_check_requests(RaProvider *p, int64_t now)
{
	RaProviderRequest *request;

	if (now < p->hold_until)
		return;
	TAILQ_FOREACH(request, &p->list[REQUEST_WAITING], link)
	{
		if (!request->checking)
			send_check(p, request, COMMAND_CHECK);
	}
}

/* The session goes on with another connection, or a new one begins */
void
ra_redis_resume_requests(RaProvider *p)
{
	RaProviderRequest *request;

	TAILQ_FOREACH(request, &p->list[REQUEST_GRANTED], link)
	{
		send_check(p, request, COMMAND_VERIFY);
		if (request->looking)
			send_look(p, request);
	}
	ra_redis_send_requests(p);
	ra_redis_start_walks(p);
}

/*
 * Losing things
 */

void
ra_redis_drop_command(RaRedisCommand *command)
{
	if (command->kind >= COMMAND_ACQUIRE && command->kind <= COMMAND_LOOK)
		unref(command->ref);
	else if (command->kind == COMMAND_RANGE)
		free(command->ref);
	free(command);
}

/* The connection is gone, and with it the answers that were due */
void
ra_redis_disconnect_requests(RaProvider *p)
{
	RaProviderRequest *request;

	while ((request = TAILQ_LAST(&p->list[REQUEST_FLIGHT], RequestList)) != NULL)
	{
		/* before those that were never sent */
		TAILQ_REMOVE(&p->list[REQUEST_FLIGHT], request, link);
		request->state = REQUEST_SEND;
		TAILQ_INSERT_HEAD(&p->list[REQUEST_SEND], request, link);
	}
	while ((request = TAILQ_FIRST(&p->list[REQUEST_RELEASING])) != NULL)
		move(p, request, REQUEST_RELEASE);
	TAILQ_FOREACH(request, &p->list[REQUEST_WAITING], link)
		request->checking = false;
	ra_redis_break_walks(p);
}

/* The session is gone: so are its entries */
void
ra_redis_lose_requests(RaProvider *p)
{
	static const RequestState released[] = {REQUEST_RELEASE, REQUEST_RELEASING, REQUEST_DONE};
	RaProviderRequest *request;

	while ((request = TAILQ_FIRST(&p->list[REQUEST_GRANTED])) != NULL)
		end_lost(p, request);
	for (int i = 0; i < 3; i++)
	{
		while ((request = TAILQ_FIRST(&p->list[released[i]])) != NULL)
			end_released(p, request);
	}
}

/* What waited waits anew, in the order in which it waited, before what was never sent */
void
ra_redis_requeue_requests(RaProvider *p)
{
	static const RequestState waiting[] = {REQUEST_FLIGHT, REQUEST_WAITING};
	RaProviderRequest *request;

	for (int i = 0; i < 2; i++)
	{
		while ((request = TAILQ_LAST(&p->list[waiting[i]], RequestList)) != NULL)
		{
			TAILQ_REMOVE(&p->list[waiting[i]], request, link);
			request->state = REQUEST_SEND;
			TAILQ_INSERT_HEAD(&p->list[REQUEST_SEND], request, link);
		}
	}
	TAILQ_FOREACH(request, &p->list[REQUEST_SEND], link)
	{
		new_number(p, request);
		request->tried = false;
		request->checking = false;
	}
}

/*
 * Answers
 */

void
ra_redis_request_reply(RaProvider *p, RaRedisCommand *command, const redisReply *reply)
{
	RaProviderRequest *request = command->ref;
	bool		refused;

	if (command->kind >= COMMAND_SCAN)
	{
		ra_redis_walk_reply(p, command, reply);
		return;
	}

	/* may lose the connection and with it the session's state */
	refused = ra_redis_refused(p, "serve a lock", reply);
	if (request->ended || request->number != command->number)
		return;
	if (!refused && reply->type != REDIS_REPLY_INTEGER)
		refused = true;

	switch (command->kind)
	{
		case COMMAND_ACQUIRE:
			if (request->state != REQUEST_FLIGHT)
				break;			/* woken or given up meanwhile */
			if (refused || reply->integer == RA_REDIS_MISSING)
				move(p, request, REQUEST_SEND);
			else if (reply->integer > 0)
				grant(p, request, (uint64_t) reply->integer);
			else if (reply->integer == RA_REDIS_REFUSED)
			{
				end_request(p, request);
				p->callbacks->refused(p->arg, request->owner);
				unref(request);
			}
			else
			{
				request->waited = true;
				move(p, request, REQUEST_WAITING);
			}
			break;

		case COMMAND_RELEASE:
			if (request->state != REQUEST_RELEASING)
				break;
			if (refused)
				move(p, request, REQUEST_RELEASE);
			else
				end_released(p, request);
			break;

		case COMMAND_CHECK:
			request->checking = false;
			if (request->state != REQUEST_WAITING || refused)
				break;
			if (reply->integer > 0)
				grant(p, request, (uint64_t) reply->integer);
			else if (reply->integer == RA_REDIS_MISSING)
				move(p, request, REQUEST_SEND);
			break;

		case COMMAND_VERIFY:
			if (request->state == REQUEST_GRANTED && !refused &&
				reply->integer != (long long) request->token)
				end_lost(p, request);
			break;

		case COMMAND_LOOK:
			if (request->state != REQUEST_GRANTED || !request->looking)
				break;
			request->looking = false;
			p->callbacks->contended(p->arg, request->owner, refused || reply->integer > 1);
			break;
	}
}

/* "<number> <token>": another session's release or our own check granted it */
void
ra_redis_woken(RaProvider *p, const char *message)
{
	unsigned long long number;
	unsigned long long token;
	RaProviderRequest *request;

	if (!p->session_up || sscanf(message, "%llu %llu", &number, &token) != 2 || token == 0)
		return;
	request = find_request(p, number);
	if (request != NULL &&
		(request->state == REQUEST_FLIGHT || request->state == REQUEST_WAITING ||
		 (request->state == REQUEST_SEND && request->tried)))
	{
		request->waited = true;
		grant(p, request, token);
	}
}

/*
 * Interface
 */

static void
flush(RaProvider *p)
{
	ra_redis_link_flush(&p->commands);
	ra_redis_link_flush(&p->wake);
}

static void
redis_process(RaProvider *p)
{
	ra_redis_drive(p);
	ra_redis_send_requests(p);
	flush(p);
}

static int
redis_wait_for(RaProvider *p, bool *writable, int64_t *until)
{
	flush(p);
	*writable = false;
	*until = ra_redis_next_time(p);
	if (!TAILQ_EMPTY(&p->list[REQUEST_DONE]))
		*until = 0;
	if (p->phase == PHASE_READY && p->hold_until < *until &&
		(!TAILQ_EMPTY(&p->list[REQUEST_SEND]) || !TAILQ_EMPTY(&p->list[REQUEST_RELEASE])))
		*until = p->hold_until;
	return p->epoll_fd;
}

static void
free_provider(RaProvider *p)
{
	RaRedisCommand *command;
	Walk	   *walk;

	while ((command = ra_redis_link_shift(&p->commands)) != NULL)
		ra_redis_drop_command(command);
	for (int i = 0; i < REQUEST_STATES; i++)
	{
		RaProviderRequest *request;

		while ((request = TAILQ_FIRST(&p->list[i])) != NULL)
		{
			TAILQ_REMOVE(&p->list[i], request, link);
			free(request);
		}
	}
	while ((walk = TAILQ_FIRST(&p->walks)) != NULL)
	{
		TAILQ_REMOVE(&p->walks, walk, link);
		free(walk);
	}
	ra_redis_link_close(&p->commands);
	ra_redis_link_close(&p->wake);
	if (p->epoll_fd >= 0)
		close(p->epoll_fd);
	for (int i = 0; i < p->nhosts; i++)
		free(p->hosts[i].name);
	free(p->hosts);
	free(p->prefix);
	free(p->node);
	free(p->user);
	free(p->password);
	ra_redis_tls_free(p->tls);
	free(p->key_generation);
	free(p->key_members);
	free(p->key_sweep);
	free(p->channel_all);
	free(p->data);
	free(p->members);
	free(p->slots);
	free(p->free_slots);
	free(p);
}

static char *
join(const char *prefix, const char *text)
{
	size_t		size = strlen(prefix) + strlen(text) + 1;
	char	   *joined = malloc(size);

	if (joined != NULL)
		snprintf(joined, size, "%s%s", prefix, text);
	return joined;
}

static RaProvider *
redis_open(const RaProviderConfig *config, const RaProviderCallbacks *callbacks, void *arg,
		   char *error, int error_size)
{
	RaProvider *p = calloc(1, sizeof(*p));
	char		prefix[RA_KEY_MAX + 8];

	if (p == NULL)
	{
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	p->epoll_fd = -1;
	ra_redis_link_init(&p->commands, -1);
	ra_redis_link_init(&p->wake, -1);
	for (int i = 0; i < REQUEST_STATES; i++)
		TAILQ_INIT(&p->list[i]);
	TAILQ_INIT(&p->walks);
	p->callbacks_copy = *callbacks;
	p->callbacks = &p->callbacks_copy;
	p->arg = arg;

	if (strlen(config->node) > RA_NODE_MAX || config->node[0] == '\0' ||
		strlen(config->cluster) > RA_KEY_MAX / 2 || config->cluster[0] == '\0')
	{
		snprintf(error, error_size, "the name of the node or the cluster is empty or too long");
		goto failed;
	}
	if (config->session_timeout_ms < 100)
	{
		snprintf(error, error_size, "the session timeout is too short");
		goto failed;
	}
	if (!ra_redis_parse_hosts(p, config->hosts, error, error_size))
		goto failed;
	if (config->tls != NULL)
	{
		p->tls = ra_redis_tls_new(config->tls, error, error_size);
		if (p->tls == NULL)
			goto failed;
		p->commands.tls = p->wake.tls = p->tls;
	}

	snprintf(error, error_size, "out of memory");
	snprintf(prefix, sizeof(prefix), "{%s}:", config->cluster);
	p->timeout_ms = config->session_timeout_ms;
	p->timeout = p->timeout_ms * MS;
	p->patience = p->timeout / 3 < 10000 * MS ? p->timeout / 3 : 10000 * MS;
	p->generation_seen = config->generation_seen;
	p->prefix = strdup(prefix);
	p->node = strdup(config->node);
	p->key_generation = join(prefix, "generation");
	p->key_members = join(prefix, "members");
	p->key_sweep = join(prefix, "sweep");
	p->channel_all = join(prefix, "all");
	if (config->user != NULL && config->user[0] != '\0')
		p->user = strdup(config->user);
	if (config->password != NULL && config->password[0] != '\0')
		p->password = strdup(config->password);
	if (config->previous_session != NULL && strlen(config->previous_session) == SESSION_LEN)
		strcpy(p->previous, config->previous_session);
	if (!p->prefix || !p->node || !p->key_generation || !p->key_members || !p->key_sweep ||
		!p->channel_all)
		goto failed;

	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (p->epoll_fd < 0)
	{
		snprintf(error, error_size, "could not create an epoll descriptor");
		goto failed;
	}
	p->commands.epoll_fd = p->epoll_fd;
	p->wake.epoll_fd = p->epoll_fd;
	if (getrandom(&p->random, sizeof(p->random), 0) != sizeof(p->random))
		p->random = (uint64_t) ra_redis_clock();
	return p;

failed:
	free_provider(p);
	return NULL;
}

/* Make room for one more request; the tables grow together */
static bool
more_slots(RaProvider *p)
{
	uint32_t	n = p->nslots ? 2 * p->nslots : 64;
	RaProviderRequest **slots;
	uint32_t   *free_slots;

	if (p->nfree > 0)
		return true;
	if (n > SLOT_MASK)
		return false;
	slots = realloc(p->slots, n * sizeof(*slots));
	if (slots != NULL)
		p->slots = slots;
	free_slots = realloc(p->free_slots, n * sizeof(*free_slots));
	if (free_slots != NULL)
		p->free_slots = free_slots;
	if (slots == NULL || free_slots == NULL)
		return false;
	while (n > p->nslots)
		free_slots[p->nfree++] = --n;
	for (uint32_t i = p->nslots; i < p->nslots + p->nfree; i++)
		slots[i] = NULL;
	p->nslots += p->nfree;
	return true;
}

static RaProviderRequest *
redis_acquire(RaProvider *p, void *owner, const char *key, int keylen, RaProviderMode mode, bool nowait)
{
	RaProviderRequest *request;

	if (keylen < 0 || keylen > RA_KEY_MAX || !more_slots(p))
		return NULL;
	request = calloc(1, sizeof(*request) + keylen);
	if (request == NULL)
		return NULL;
	request->refs = 1;
	request->owner = owner;
	request->mode = mode;
	request->nowait = nowait;
	request->keylen = keylen;
	memcpy(request->key, key, keylen);
	request->number = p->free_slots[--p->nfree];
	p->slots[request->number] = request;
	new_number(p, request);
	TAILQ_INSERT_TAIL(&p->list[REQUEST_SEND], request, link);

	/* behind those that wait for being sent */
	if (may_send(p) && TAILQ_FIRST(&p->list[REQUEST_SEND]) == request)
		send_request(p, request);
	return request;
}

static void
redis_release(RaProvider *p, RaProviderRequest *request)
{
	if (request->state == REQUEST_SEND && !request->tried)
	{
		move(p, request, REQUEST_DONE);
		return;
	}
	if (request->state >= REQUEST_RELEASE)
		return;
	move(p, request, REQUEST_RELEASE);
	if (may_send(p))
		send_request(p, request);
}

static void
redis_look(RaProvider *p, RaProviderRequest *request)
{
	if (request->state != REQUEST_GRANTED || request->looking)
		return;
	request->looking = true;
	if (p->phase == PHASE_READY)
		send_look(p, request);
}

static void
redis_set_member(RaProvider *p, const char *data)
{
	char	   *copy = strdup(data);

	if (copy == NULL)
		return;
	free(p->data);
	p->data = copy;
	p->data_changed = true;
}

/*
 * Nothing is called back any more
 */
static void no_session(void *a, const char *d, uint64_t g, int t) { (void) a; (void) d; (void) g; (void) t; }
static void no_connected(void *a, bool c, const char *d) { (void) a; (void) c; (void) d; }
static void no_session_lost(void *a, const char *d) { (void) a; (void) d; }
static void no_lease(void *a, int64_t v) { (void) a; (void) v; }
static void no_granted(void *a, void *o, uint64_t t, bool w) { (void) a; (void) o; (void) t; (void) w; }
static void no_owner(void *a, void *o) { (void) a; (void) o; }
static void no_contended(void *a, void *o, bool c) { (void) a; (void) o; (void) c; }
static void no_members(void *a, const RaProviderMember *m, int n) { (void) a; (void) m; (void) n; }
static void
no_listed(void *a, void *o, const RaProviderEntry *e, const char *r)
{
	(void) a; (void) o; (void) e; (void) r;
}
static void
no_log(void *a, RaProviderLevel l, const char *m, const char *h)
{
	(void) a; (void) l; (void) m; (void) h;
}

static const RaProviderCallbacks no_callbacks = {
	.session = no_session, .connected = no_connected, .session_lost = no_session_lost,
	.lease = no_lease, .granted = no_granted, .refused = no_owner, .released = no_owner,
	.lost = no_owner, .contended = no_contended, .members = no_members, .listed = no_listed,
	.log = no_log
};

static bool
send_end(RaProvider *p)
{
	Args		args;

	ra_redis_script(p, &args, RA_REDIS_END, 4);
	ra_redis_text(&args, p->key_members);
	ra_redis_text(&args, p->key_sweep);
	ra_redis_text(&args, "");
	ra_redis_text(&args, "");
	ra_redis_text(&args, p->prefix);
	ra_redis_text(&args, p->session);
	return ra_redis_send(p, &args, COMMAND_END, NULL, 0);
}

/* Give up every request, then the session */
static void
redis_close(RaProvider *p, int64_t deadline)
{
	static const RequestState live[] = {REQUEST_SEND, REQUEST_FLIGHT, REQUEST_WAITING, REQUEST_GRANTED};
	bool		end_sent = false;

	p->callbacks = &no_callbacks;
	p->closing = true;
	for (int i = 0; i < 4; i++)
	{
		RaProviderRequest *request;

		while ((request = TAILQ_FIRST(&p->list[live[i]])) != NULL)
			redis_release(p, request);
	}

	/* an ATTACH that is under way may make a session */
	while ((p->session_up || p->attaching) && !p->ended)
	{
		int64_t		now = ra_redis_clock();
		int64_t		until;
		bool		writable;
		struct pollfd pollfd = {.events = POLLIN};

		if (now >= deadline)
			break;
		redis_process(p);
		if (p->phase != PHASE_READY)
			end_sent = false;
		else if (!end_sent && TAILQ_EMPTY(&p->list[REQUEST_RELEASE]))
			end_sent = send_end(p);

		pollfd.fd = redis_wait_for(p, &writable, &until);
		if (until > deadline)
			until = deadline;
		if (until > now && !p->ended)
			poll(&pollfd, 1, (int) ((until - now + MS - 1) / MS));
	}
	free_provider(p);
}

const RaProviderOps *
ra_redis_provider(void)
{
	static const RaProviderOps ops = {
		.api = RA_PROVIDER_API, .name = "redis", .tls = RA_REDIS_HAS_TLS,
		.open = redis_open, .close = redis_close,
		.wait_for = redis_wait_for, .process = redis_process, .acquire = redis_acquire,
		.release = redis_release, .look = redis_look, .set_member = redis_set_member,
		.list = ra_redis_list
	};

	return &ops;
}
