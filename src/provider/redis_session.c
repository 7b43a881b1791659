/*
 * redis_session.c
 *	  Connections to Redis, the session, and the list of members.
 *
 * Two connections go to the first master of the host list: one for commands,
 * one subscribed to what wakes this session.  The session is a key that expires
 * unless renewed; it has nothing to do with either connection.  Each time the
 * commands' connection is made it goes through
 *
 * 1. AUTH, SCRIPT LOAD, INFO: the server's role and its run id;
 * 2. ATTACH: this connection takes over the session, or, if there is none or
 *	  the server says that it is gone (expired, flushed, or the server is another one than
 *	  before), a new one begins.
 *
 * The same is done on a connection that works when a script says that the
 * generation or the session isn't the one it was called for, or isn't known any more.
 *
 * Only the server says that a session is lost.  The lease runs out by itself.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>

#include "redis_internal.h"

/* Pause before connecting again: first, longest, and shortest when the server refuses us */
#define BACKOFF_FIRST (50 * MS)
#define BACKOFF_MAX (5000 * MS)
#define BACKOFF_DENIED (5000 * MS)

typedef struct Member
{
	const char *session;
	const char *node;
	const char *data;			/* NULL: no set_member() yet */
	int64_t		start;
} Member;

static void start_commands(RaProvider *p, int64_t now);
static void commands_ready(RaProvider *p);
static void setup(RaProvider *p);
static void command_reply(RaProvider *p, RaRedisCommand *command, const redisReply *reply);
static void info_reply(RaProvider *p, const redisReply *reply);
static bool info_field(const char *info, const char *field, char *value, size_t size);
static void attach(RaProvider *p);
static void attach_reply(RaProvider *p, const RaRedisCommand *command, const redisReply *reply);
static void lose_session(RaProvider *p, const char *why);
static void beat(RaProvider *p, int64_t now);
static void beat_reply(RaProvider *p, const RaRedisCommand *command, const redisReply *reply);
static void show_members(RaProvider *p, const redisReply *living);
static void start_wake(RaProvider *p, int64_t now);
static void wake_ready(RaProvider *p);
static void wake_failed(RaProvider *p);
static void authenticate(RaProvider *p, RaRedisLink *link);
static void disconnect(RaProvider *p, const char *why, const char *hint, bool next_host, bool denied);
static const char *error_hint(const char *error, bool *denied);

static void
complain(RaProvider *p, char *slot, size_t size, const char *message, const char *hint)
{
	/* the same trouble is told once */
	if (strncmp(slot, message, size - 1) == 0)
		return;
	snprintf(slot, size, "%s", message);
	p->callbacks->log(p->arg, RA_PROVIDER_WARNING, message, hint);
}

static int64_t
jitter(RaProvider *p, int64_t time)
{
	p->random = p->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return time / 2 + (int64_t) ((p->random >> 33) % (uint64_t) (time / 2 + 1));
}

static int64_t
backoff(RaProvider *p, int failures)
{
	int64_t		pause = failures > 6 ? BACKOFF_MAX : BACKOFF_FIRST << failures;

	return jitter(p, pause);
}

/* host:port,[host]:port,... */
bool
ra_redis_parse_hosts(RaProvider *p, const char *hosts, char *error, int error_size)
{
	const char *start = hosts;

	for (;;)
	{
		const char *end = start + strcspn(start, ",");
		const char *name;
		const char *colon;
		size_t		len;
		long		port = 6379;
		char	   *rest;
		Host	   *grown;

		while (start < end && *start == ' ')
			start++;
		name = start;
		if (*start == '[')
		{
			name = start + 1;
			len = strcspn(name, "],");
			colon = name + len + (name[len] == ']');
		}
		else
		{
			len = strcspn(name, ":, ");
			colon = name + len;
		}
		if (len == 0 || (*start == '[' && name[len] != ']'))
		{
			snprintf(error, error_size, "malformed list of Redis hosts");
			return false;
		}
		if (*colon == ':')
		{
			errno = 0;
			port = strtol(colon + 1, &rest, 10);
			colon = rest;
		}
		colon += strspn(colon, " ");
		if (colon != end || errno != 0 || port < 1 || port > 65535)
		{
			snprintf(error, error_size, "malformed list of Redis hosts: host:port,... is expected");
			return false;
		}

		grown = realloc(p->hosts, (p->nhosts + 1) * sizeof(Host));
		if (grown != NULL)
		{
			p->hosts = grown;
			memset(&grown[p->nhosts], 0, sizeof(Host));
			grown[p->nhosts].port = (int) port;
			grown[p->nhosts].name = strndup(name, len);
		}
		if (grown == NULL || grown[p->nhosts].name == NULL)
		{
			snprintf(error, error_size, "out of memory");
			return false;
		}
		p->nhosts++;
		if (*end == '\0')
			return true;
		start = end + 1;
	}
}

/*
 * Commands
 */

void
ra_redis_args(Args *args, const void *data, size_t len)
{
	args->argv[args->n] = data;
	args->len[args->n++] = len;
}

void
ra_redis_text(Args *args, const char *text)
{
	ra_redis_args(args, text, strlen(text));
}

void
ra_redis_script(RaProvider *p, Args *args, RaRedisScript script, int nkeys)
{
	args->n = 0;
	ra_redis_text(args, "EVALSHA");
	ra_redis_text(args, p->sha[script]);
	snprintf(args->text[0], sizeof(args->text[0]), "%d", nkeys);
	ra_redis_text(args, args->text[0]);
	ra_redis_text(args, p->key_generation);
	ra_redis_text(args, p->key_session);
}

/* A link that breaks here is noticed by the next ra_redis_drive() */
bool
ra_redis_send(RaProvider *p, Args *args, int kind, void *ref, uint64_t number)
{
	return ra_redis_link_send(&p->commands, kind, ref, number, args->n, args->argv, args->len);
}

/* Do all that is due, except sending requests */
void
ra_redis_drive(RaProvider *p)
{
	struct epoll_event events[2];
	int64_t		now;
	int			n;

	n = epoll_wait(p->epoll_fd, events, 2, 0);
	for (int i = 0; i < n; i++)
		ra_redis_link_ready(events[i].data.ptr);

	commands_ready(p);
	wake_ready(p);

	now = ra_redis_clock();
	if (p->phase == PHASE_OFF && now >= p->retry_at)
		start_commands(p, now);
	if ((p->phase == PHASE_CONNECTING || p->phase == PHASE_SETUP) && now >= p->deadline)
		disconnect(p, "no answer in time", NULL, true, false);
	else if (p->commands.first != NULL && now - ra_redis_link_due(&p->commands) >= p->patience)
		disconnect(p, "no answer in time", NULL, p->phase != PHASE_READY, false);

	if (p->phase == PHASE_READY && !p->closing)
	{
		bool		data_due = p->data_changed && now - p->data_sent >= DATA_INTERVAL;

		if (!p->beating && (now >= p->next_beat || data_due))
			beat(p, now);
		if (now >= p->next_check)
		{
			ra_redis_check_requests(p, now);
			p->next_check = now + (p->timeout / 3 < CHECK_INTERVAL ? p->timeout / 3 : CHECK_INTERVAL);
		}
		if (p->wake_phase == PHASE_OFF && now >= p->wake_retry_at)
			start_wake(p, now);
	}
	if (p->wake_deadline != 0 && now >= p->wake_deadline)
	{
		snprintf(p->wake.error, sizeof(p->wake.error), "no answer in time");
		wake_failed(p);
	}
}

int64_t
ra_redis_next_time(RaProvider *p)
{
	int64_t		until = INT64_MAX;

#define AT(time) do { int64_t time_ = (time); if (time_ < until) until = time_; } while (0)
	if (p->commands.error[0] != '\0' || p->wake.error[0] != '\0')
		return 0;
	if (p->phase == PHASE_OFF)
		AT(p->retry_at);
	if (p->phase == PHASE_CONNECTING || p->phase == PHASE_SETUP)
		AT(p->deadline);
	if (p->commands.first != NULL)
		AT(ra_redis_link_due(&p->commands) + p->patience);
	if (p->phase == PHASE_READY && !p->closing)
	{
		if (!p->beating)
		{
			AT(p->next_beat);
			if (p->data_changed)
				AT(p->data_sent + DATA_INTERVAL);
		}
		if (!TAILQ_EMPTY(&p->list[REQUEST_WAITING]))
			AT(p->next_check);
		if (p->wake_phase == PHASE_OFF)
			AT(p->wake_retry_at);
	}
	if (p->wake_deadline != 0)
		AT(p->wake_deadline);
#undef AT
	return until;
}

/*
 * The commands' connection
 */

static void
start_commands(RaProvider *p, int64_t now)
{
	Host	   *host = &p->hosts[p->host];

	p->phase = PHASE_CONNECTING;
	p->deadline = now + p->patience;
	if (!ra_redis_link_open(&p->commands, host->name, host->port))
		disconnect(p, p->commands.error, NULL, true, false);
}

static void
commands_ready(RaProvider *p)
{
	redisReply *reply;

	if (p->phase == PHASE_CONNECTING && !p->commands.connecting && p->commands.error[0] == '\0')
	{
		authenticate(p, &p->commands);
		setup(p);
	}

	while (p->phase != PHASE_OFF && (reply = ra_redis_link_reply(&p->commands)) != NULL)
	{
		RaRedisCommand *command = ra_redis_link_shift(&p->commands);

		if (command == NULL)
		{
			/* Redis says why, and closes: too many clients, protected mode */
			disconnect(p, reply->type == REDIS_REPLY_ERROR ? reply->str : "unexpected answer",
					   NULL, true, false);
		}
		else
		{
			command_reply(p, command, reply);
			ra_redis_drop_command(command);
		}
		freeReplyObject(reply);
	}

	if (p->phase != PHASE_OFF && p->commands.error[0] != '\0')
		disconnect(p, p->commands.error, NULL, p->phase != PHASE_READY, false);
}

/* AUTH with a password only is for Redis before 6, or its "default" user */
static void
authenticate(RaProvider *p, RaRedisLink *link)
{
	Args		args = {0};

	if (p->password == NULL)
		return;
	ra_redis_text(&args, "AUTH");
	if (p->user != NULL)
		ra_redis_text(&args, p->user);
	ra_redis_text(&args, p->password);
	if (link == &p->commands)
		ra_redis_send(p, &args, COMMAND_AUTH, NULL, 0);
	else
		ra_redis_link_append(link, args.n, args.argv, args.len);
}

static void
setup(RaProvider *p)
{
	Args		args;

	p->phase = PHASE_SETUP;
	p->attaching = false;
	p->beating = false;
	p->deadline = ra_redis_clock() + p->patience;
	for (int i = 0; i < RA_REDIS_SCRIPTS; i++)
	{
		args.n = 0;
		ra_redis_text(&args, "SCRIPT");
		ra_redis_text(&args, "LOAD");
		ra_redis_text(&args, ra_redis_scripts[i]);
		ra_redis_send(p, &args, COMMAND_LOAD, NULL, (uint64_t) i);
	}
	args.n = 0;
	ra_redis_text(&args, "INFO");
	ra_redis_send(p, &args, COMMAND_INFO, NULL, 0);
}

/* Find out anew who the server is and what has become of the session */
void
ra_redis_reattach(RaProvider *p)
{
	if (p->phase == PHASE_READY)
		setup(p);
}

static void
command_reply(RaProvider *p, RaRedisCommand *command, const redisReply *reply)
{
	switch (command->kind)
	{
		case COMMAND_AUTH:
		case COMMAND_LOAD:
		case COMMAND_INFO:
		case COMMAND_ATTACH:
			if (reply->type == REDIS_REPLY_ERROR)
			{
				bool		denied;
				const char *hint = error_hint(reply->str, &denied);

				disconnect(p, reply->str, hint, true, denied);
			}
			else if (command->kind == COMMAND_LOAD)
			{
				if (reply->type == REDIS_REPLY_STRING && reply->len == 40)
					memcpy(p->sha[command->number], reply->str, 41);
			}
			else if (command->kind == COMMAND_INFO)
				info_reply(p, reply);
			else if (command->kind == COMMAND_ATTACH)
				attach_reply(p, command, reply);
			break;

		case COMMAND_BEAT:
			beat_reply(p, command, reply);
			break;

		case COMMAND_END:
			p->ended = true;
			break;

		default:
			ra_redis_request_reply(p, command, reply);
			break;
	}
}

/* An answer that refuses a command of a working connection; true: it was an error */
bool
ra_redis_refused(RaProvider *p, const char *what, const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_ERROR)
	{
		char		message[240];
		bool		denied;
		const char *hint = error_hint(reply->str, &denied);

		if (p->phase != PHASE_READY)
			return true;
		if (strncmp(reply->str, "NOSCRIPT", 8) == 0)
			ra_redis_reattach(p);
		else if (denied || strncmp(reply->str, "READONLY", 8) == 0)
			disconnect(p, reply->str, hint, true, denied);
		else
		{
			snprintf(message, sizeof(message), "Redis refuses to %s: %s", what, reply->str);
			complain(p, p->trouble, sizeof(p->trouble), message, hint);
			p->hold_until = ra_redis_clock() + RETRY_INTERVAL;
		}
		return true;
	}
	if (reply->type == REDIS_REPLY_INTEGER &&
		(reply->integer == RA_REDIS_GENERATION || reply->integer == RA_REDIS_GONE ||
		 reply->integer == RA_REDIS_STALE))
	{
		ra_redis_reattach(p);
		return true;
	}
	return false;
}

static const char *
error_hint(const char *error, bool *denied)
{
	*denied = true;
	if (strncmp(error, "WRONGPASS", 9) == 0 || strncmp(error, "NOAUTH", 6) == 0 ||
		strstr(error, "invalid password") != NULL || strstr(error, "AUTH") != NULL)
		return "Check the user name and the password for Redis.";
	if (strncmp(error, "NOPERM", 6) == 0)
		return "The Redis user needs the commands, keys and channels that the documentation lists.";
	*denied = false;
	if (strncmp(error, "OOM", 3) == 0)
		return "Raise \"maxmemory\" of Redis.";
	if (strncmp(error, "MISCONF", 7) == 0)
		return "See the log of Redis: it can't write its data to disk.";
	if (strncmp(error, "NOREPLICAS", 10) == 0)
		return "See \"min-replicas-to-write\" of Redis.";
	return NULL;
}

/* Who is the server? */
static void
info_reply(RaProvider *p, const redisReply *reply)
{
	char		value[64];
	char		version[16];

	if (p->phase != PHASE_SETUP)
		return;
	if (reply->type != REDIS_REPLY_STRING ||
		!info_field(reply->str, "run_id", p->run_id, sizeof(p->run_id)) ||
		!info_field(reply->str, "role", value, sizeof(value)))
	{
		disconnect(p, "unexpected answer to INFO", NULL, true, false);
		return;
	}
	if (info_field(reply->str, "redis_version", version, sizeof(version)) && atoi(version) < 6)
	{
		disconnect(p, "the server is too old", "Redis 6.0.6 or later is needed.", true, false);
		return;
	}
	if (strcmp(value, "master") != 0)
	{
		disconnect(p, "the server is a replica", "Name the primary in the list of hosts.", true, false);
		return;
	}
	if (info_field(reply->str, "loading", value, sizeof(value)) && strcmp(value, "0") != 0)
	{
		disconnect(p, "the server is loading its data", NULL, true, false);
		return;
	}
	if (info_field(reply->str, "cluster_enabled", value, sizeof(value)) && strcmp(value, "0") != 0)
	{
		disconnect(p, "the server is part of a Redis Cluster, which can't be used",
				   "Use a Redis server of its own.", true, false);
		return;
	}
	if (info_field(reply->str, "maxmemory", value, sizeof(value)) && strcmp(value, "0") != 0 &&
		info_field(reply->str, "maxmemory_policy", value, sizeof(value)) &&
		strcmp(value, "noeviction") != 0 && !p->warned_of_eviction)
	{
		p->warned_of_eviction = true;
		p->callbacks->log(p->arg, RA_PROVIDER_WARNING,
						  "Redis may evict sessions and locks when its memory is full",
						  "Set \"maxmemory-policy\" of Redis to \"noeviction\".");
	}
	attach(p);
}

static bool
info_field(const char *info, const char *field, char *value, size_t size)
{
	size_t		len = strlen(field);

	for (const char *line = info; line != NULL; line = strchr(line, '\n'))
	{
		line += *line == '\n';
		if (strncmp(line, field, len) == 0 && line[len] == ':')
		{
			snprintf(value, size, "%.*s", (int) strcspn(line + len + 1, "\r\n"), line + len + 1);
			return true;
		}
	}
	return false;
}

/*
 * The session
 */

static void
attach(RaProvider *p)
{
	Args		args;
	struct timespec wall;
	char		seen[24];
	char	   *member;
	int			member_len;

	if (!p->session_up)
	{
		unsigned char bits[SESSION_LEN / 2];

		if (getrandom(bits, sizeof(bits), 0) != sizeof(bits))
		{
			disconnect(p, "no random numbers", NULL, true, false);
			return;
		}
		for (size_t i = 0; i < sizeof(bits); i++)
			snprintf(p->session + 2 * i, 3, "%02x", bits[i]);
		clock_gettime(CLOCK_REALTIME, &wall);
		p->session_start = (int64_t) wall.tv_sec * 1000 + wall.tv_nsec / MS;
		snprintf(p->key_session, sizeof(p->key_session), "%ssession:%s", p->prefix, p->session);
	}
	p->resume = p->session_up;
	snprintf(p->value, sizeof(p->value), "%llu/%s",
			 (unsigned long long) ++p->attach_number, p->node);

	/* start, node, data: separated by zero bytes */
	member = malloc(strlen(p->node) + (p->data ? strlen(p->data) : 0) + 32);
	if (member == NULL)
	{
		disconnect(p, "out of memory", NULL, true, false);
		return;
	}
	member_len = sprintf(member, "%lld%c%s", (long long) p->session_start, 0, p->node);
	if (p->data != NULL)
		member_len += sprintf(member + member_len, "%c%s", 0, p->data);

	snprintf(seen, sizeof(seen), "%llu", (unsigned long long) p->generation_seen);
	ra_redis_script(p, &args, RA_REDIS_ATTACH, 3);
	ra_redis_text(&args, p->key_members);
	ra_redis_text(&args, p->resume ? p->generation_text : "");
	ra_redis_text(&args, p->value);
	ra_redis_text(&args, p->prefix);
	ra_redis_text(&args, p->run_id);
	ra_redis_text(&args, seen);
	snprintf(args.text[1], sizeof(args.text[1]), "%d", p->timeout_ms);
	ra_redis_text(&args, args.text[1]);
	ra_redis_text(&args, p->session);
	ra_redis_args(&args, member, member_len);
	ra_redis_text(&args, p->previous);
	p->attaching = true;
	p->data_changed = false;
	p->data_sent = ra_redis_clock();
	ra_redis_send(p, &args, COMMAND_ATTACH, NULL, p->attach_number);
	free(member);
}

static void
attach_reply(RaProvider *p, const RaRedisCommand *command, const redisReply *reply)
{
	Host	   *host = &p->hosts[p->host];
	char		message[240];
	uint64_t	generation;

	if (p->phase != PHASE_SETUP || command->number != p->attach_number)
		return;
	p->attaching = false;
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 4 ||
		reply->element[0]->type != REDIS_REPLY_INTEGER ||
		reply->element[1]->type != REDIS_REPLY_STRING)
	{
		disconnect(p, "unexpected answer", NULL, true, false);
		return;
	}

	generation = strtoull(reply->element[1]->str, NULL, 10);
	if (generation > p->generation_seen)
		p->generation_seen = generation;
	if (reply->element[2]->integer)
	{
		snprintf(message, sizeof(message), "new generation %llu of the locks in Redis",
				 (unsigned long long) generation);
		p->callbacks->log(p->arg, RA_PROVIDER_INFO, message, NULL);
	}

	if (reply->element[0]->integer == RA_REDIS_GONE)
	{
		lose_session(p, generation == p->generation
					 ? "the session has expired"
					 : "Redis has been restarted or replaced, or its data have been removed");
		attach(p);
		return;
	}

	p->phase = PHASE_READY;
	p->failures = 0;
	p->hold_until = 0;
	p->previous[0] = '\0';
	p->last_beat = command->sent_at;
	p->next_beat = command->sent_at + p->timeout / 3;
	p->next_check = 0;
	p->trouble[0] = '\0';
	host->trouble[0] = '\0';
	if (!p->resume)
	{
		/* its channel is another one */
		ra_redis_link_close(&p->wake);
		p->wake_phase = PHASE_OFF;
		p->wake_deadline = 0;
		p->wake_retry_at = 0;
		p->wake_failures = 0;

		p->session_up = true;
		p->session_since = command->sent_at;
		p->generation = generation;
		snprintf(p->generation_text, sizeof(p->generation_text), "%llu",
				 (unsigned long long) generation);
		if (reply->element[3]->integer > 0)
		{
			snprintf(message, sizeof(message), "no locks are granted for %lld ms: earlier ones, which Redis doesn't know of, may still be held",
					 reply->element[3]->integer);
			p->callbacks->log(p->arg, RA_PROVIDER_INFO, message, NULL);
		}
	}
	if (!p->connected)
	{
		p->connected = true;
		snprintf(message, sizeof(message), "%s:%d", host->name, host->port);
		p->callbacks->connected(p->arg, true, message);
	}
	if (!p->resume)
		p->callbacks->session(p->arg, p->session, p->generation, p->timeout_ms);
	p->callbacks->lease(p->arg, command->sent_at + p->timeout / 10 * 9);
	ra_redis_resume_requests(p);
	p->next_beat = p->resume ? p->next_beat : 0;	/* who else is there? */
}

static void
lose_session(RaProvider *p, const char *why)
{
	if (!p->session_up)
		return;
	p->session_up = false;
	ra_redis_lose_requests(p);
	p->callbacks->session_lost(p->arg, why);
	ra_redis_requeue_requests(p);
}

static void
beat(RaProvider *p, int64_t now)
{
	Args		args;
	char	   *member = NULL;
	int			member_len = 0;

	if (p->data_changed && now - p->data_sent >= DATA_INTERVAL)
	{
		member = malloc(strlen(p->node) + strlen(p->data) + 32);
		if (member != NULL)
		{
			member_len = sprintf(member, "%lld%c%s%c%s", (long long) p->session_start, 0, p->node,
								 0, p->data);
			p->data_changed = false;
			p->data_sent = now;
		}
	}
	ra_redis_script(p, &args, RA_REDIS_BEAT, 4);
	ra_redis_text(&args, p->key_members);
	ra_redis_text(&args, p->key_sweep);
	ra_redis_text(&args, p->generation_text);
	ra_redis_text(&args, p->value);
	ra_redis_text(&args, p->prefix);
	snprintf(args.text[1], sizeof(args.text[1]), "%d", p->timeout_ms);
	ra_redis_text(&args, args.text[1]);
	ra_redis_text(&args, p->session);
	ra_redis_args(&args, member ? member : "", member_len);
	ra_redis_text(&args, p->sweeping ? "1" : "0");
	p->beating = ra_redis_send(p, &args, COMMAND_BEAT, NULL, 0);
	p->last_beat = now;
	p->next_beat = now + p->timeout / 3;
	free(member);

	/* a subscription says nothing by itself: is it still there? */
	if (p->wake_phase == PHASE_READY && p->wake_deadline == 0)
	{
		args.n = 0;
		ra_redis_text(&args, "PING");
		ra_redis_link_append(&p->wake, args.n, args.argv, args.len);
		p->wake_deadline = now + p->patience;
	}
}

static void
beat_reply(RaProvider *p, const RaRedisCommand *command, const redisReply *reply)
{
	p->beating = false;
	if (ra_redis_refused(p, "renew the session", reply))
	{
		if (p->phase == PHASE_READY)
			p->next_beat = ra_redis_clock() + (p->timeout / 6 < RETRY_INTERVAL ? p->timeout / 6 : RETRY_INTERVAL);
		return;
	}
	if (p->phase != PHASE_READY || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
		return;
	p->callbacks->lease(p->arg, command->sent_at + p->timeout / 10 * 9);
	show_members(p, reply->element[1]);
	if (p->phase == PHASE_READY && reply->element[2]->elements > 0 && !p->sweeping)
		ra_redis_sweep(p, reply->element[2]);
}

/*
 * Members
 */

/* By node; of one node, this session first, then the latest */
static int
compare_members(const void *left, const void *right)
{
	const Member *a = left;
	const Member *b = right;
	int			order = strcmp(a->node, b->node);

	if (order == 0 && a->start != b->start)
		order = a->start < b->start ? 1 : -1;
	return order != 0 ? order : strcmp(a->session, b->session);
}

static void
show_members(RaProvider *p, const redisReply *living)
{
	size_t		pairs = living->elements / 2;
	size_t		size = 0;
	size_t		len = 0;
	int			n = 0;
	int			shown = 0;
	Member	   *all = calloc(pairs + 1, sizeof(Member));
	RaProviderMember *members = calloc(pairs + 1, sizeof(RaProviderMember));
	char	   *text = NULL;

	if (all == NULL || members == NULL)
		goto done;
	for (size_t i = 0; i < pairs; i++)
	{
		const redisReply *session = living->element[2 * i];
		const redisReply *value = living->element[2 * i + 1];
		const char *end = value->str + value->len;
		Member	   *member = &all[n];

		member->session = session->str;
		member->start = strtoll(value->str, NULL, 10);
		member->node = value->str + strlen(value->str) + 1;
		if (member->node > end)
			continue;
		member->data = member->node + strlen(member->node) + 1;
		if (member->data > end)
			member->data = NULL;
		size += value->len + 4;

		if (strcmp(member->node, p->node) == 0)
		{
			if (strcmp(member->session, p->session) == 0)
				member->start = INT64_MAX;
			else if (ra_redis_clock() - p->session_since > p->timeout * 3 / 2 &&
					 strcmp(p->same_node, member->session) != 0)
			{
				/* an earlier process of this node would have ended by now */
				snprintf(p->same_node, sizeof(p->same_node), "%s", member->session);
				p->callbacks->log(p->arg, RA_PROVIDER_WARNING,
								  "another running server uses this node's name",
								  "Give each server a node name of its own.");
			}
		}
		n++;
	}
	qsort(all, n, sizeof(Member), compare_members);

	/* what has been shown, to be compared with the next time */
	text = malloc(size + 1);
	if (text == NULL)
		goto done;
	for (int i = 0; i < n; i++)
	{
		if (all[i].data == NULL || (i > 0 && strcmp(all[i].node, all[i - 1].node) == 0))
			continue;
		members[shown].node = all[i].node;
		members[shown].data = all[i].data;
		members[shown].self = all[i].start == INT64_MAX;
		len += sprintf(text + len, "%s%c%s%c%d", all[i].node, 0, all[i].data, 0, members[shown].self);
		shown++;
	}
	if (p->members == NULL || len != p->members_len || memcmp(text, p->members, len) != 0)
	{
		free(p->members);
		p->members = text;
		p->members_len = len;
		text = NULL;
		p->callbacks->members(p->arg, members, shown);
	}

done:
	free(text);
	free(members);
	free(all);
}

/*
 * The subscription.  While it isn't there, requests are granted when they are checked.
 */

static void
start_wake(RaProvider *p, int64_t now)
{
	p->wake_phase = PHASE_CONNECTING;
	p->wake_deadline = now + p->patience;
	if (!ra_redis_link_open(&p->wake, p->hosts[p->host].name, p->hosts[p->host].port))
		wake_failed(p);
}

static void
wake_ready(RaProvider *p)
{
	redisReply *reply;

	if (p->wake_phase == PHASE_CONNECTING && !p->wake.connecting && p->wake.error[0] == '\0')
	{
		char		channel[sizeof(p->key_session)];
		Args		args = {0};

		snprintf(channel, sizeof(channel), "%swake:%s", p->prefix, p->session);
		authenticate(p, &p->wake);
		ra_redis_text(&args, "SUBSCRIBE");
		ra_redis_text(&args, channel);
		ra_redis_text(&args, p->channel_all);
		ra_redis_link_append(&p->wake, args.n, args.argv, args.len);
		p->wake_phase = PHASE_SETUP;
	}

	while (p->wake_phase != PHASE_OFF && (reply = ra_redis_link_reply(&p->wake)) != NULL)
	{
		if (p->wake_phase == PHASE_READY)
			p->wake_deadline = 0;
		if (reply->type == REDIS_REPLY_ERROR)
			snprintf(p->wake.error, sizeof(p->wake.error), "%s", reply->str);
		else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
				 reply->element[0]->type == REDIS_REPLY_STRING)
		{
			const char *kind = reply->element[0]->str;
			const redisReply *message = reply->element[2];

			if (strcmp(kind, "subscribe") == 0 && message->integer == 2)
			{
				/* what was told before that was told to nobody */
				p->wake_phase = PHASE_READY;
				p->wake_failures = 0;
				p->wake_deadline = 0;
				p->next_check = 0;
			}
			else if (strcmp(kind, "message") == 0 && message->type == REDIS_REPLY_STRING)
			{
				if (strcmp(reply->element[1]->str, p->channel_all) != 0)
					ra_redis_woken(p, message->str);
				else if (strcmp(message->str, "check") == 0)
					p->next_check = 0;
				else if (strncmp(message->str, "members ", 8) == 0 &&
						 strcmp(message->str + 8, p->session) != 0 &&
						 p->last_beat + MEMBERS_INTERVAL < p->next_beat)
					p->next_beat = p->last_beat + MEMBERS_INTERVAL;
			}
		}
		freeReplyObject(reply);
	}

	if (p->wake_phase != PHASE_OFF && p->wake.error[0] != '\0')
		wake_failed(p);
}

static void
wake_failed(RaProvider *p)
{
	char		message[240];
	bool		denied;
	const char *hint = error_hint(p->wake.error, &denied);

	/* the other connection has its own complaints, if it is the server */
	if (p->phase == PHASE_READY && denied)
	{
		snprintf(message, sizeof(message), "Redis refuses to wake waiting requests: %s", p->wake.error);
		complain(p, p->trouble, sizeof(p->trouble), message, hint);
	}
	ra_redis_link_close(&p->wake);
	p->wake_phase = PHASE_OFF;
	p->wake_deadline = 0;
	p->wake_retry_at = ra_redis_clock() + (denied ? BACKOFF_DENIED : backoff(p, p->wake_failures++));
}

/*
 * Losing the connection
 */

void
ra_redis_disconnect(RaProvider *p, const char *why)
{
	disconnect(p, why, NULL, false, false);
}

/*
 * Close and try again: the next host at once if this one is no use, all from the
 * beginning after a pause.
 */
static void
disconnect(RaProvider *p, const char *why, const char *hint, bool next_host, bool denied)
{
	Host	   *host = &p->hosts[p->host];
	bool		was_connected = p->connected;
	RaRedisCommand *command;
	char		reason[200];
	char		message[240 + 64];
	int64_t		now = ra_redis_clock();

	snprintf(reason, sizeof(reason), "%s", why);	/* may be the link's */
	while ((command = ra_redis_link_shift(&p->commands)) != NULL)
		ra_redis_drop_command(command);
	ra_redis_link_close(&p->commands);
	p->phase = PHASE_OFF;
	p->attaching = false;
	p->beating = false;

	if (next_host && p->host + 1 < p->nhosts)
	{
		p->host++;
		p->retry_at = now;
	}
	else
	{
		p->host = 0;
		p->retry_at = now + backoff(p, p->failures);
		if (denied && p->retry_at < now + BACKOFF_DENIED)
			p->retry_at = now + BACKOFF_DENIED + jitter(p, BACKOFF_DENIED / 5);
		if (p->failures < 100)
			p->failures++;
	}

	ra_redis_disconnect_requests(p);
	p->connected = false;
	if (was_connected)
		p->callbacks->connected(p->arg, false, reason);
	snprintf(message, sizeof(message), "no connection to Redis at %s:%d: %s", host->name, host->port,
			 reason);
	complain(p, host->trouble, sizeof(host->trouble), message, hint);
}
