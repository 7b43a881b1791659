/*
 * redis_walk.c
 *	  Walks over all locks: for list(), and to remove the entries that dead
 *	  sessions have left where nobody asks for the lock again.
 *
 * SCAN gives some keys, each is looked at, then the next ones are asked for.  A walk for
 * list() begins when the session is attached and ends with an error if the
 * connection is lost; so does a sweep, and the next heartbeat of any node starts another.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redis_internal.h"

static void walk_on(RaProvider *p, Walk *walk);
static void walk_key(RaProvider *p, Walk *walk, const redisReply *key);
static void range_reply(RaProvider *p, WalkKey *key, const redisReply *reply);
static void walk_end(RaProvider *p, Walk *walk, const char *error);

void
ra_redis_list(RaProvider *p, void *owner)
{
	Walk	   *walk = calloc(1, sizeof(Walk));

	if (walk == NULL)
	{
		p->callbacks->listed(p->arg, owner, NULL, "out of memory");
		return;
	}
	walk->owner = owner;
	TAILQ_INSERT_TAIL(&p->walks, walk, link);
	if (p->phase == PHASE_READY)
		walk_on(p, walk);
}

/* Those that were asked for while there was no session */
void
ra_redis_start_walks(RaProvider *p)
{
	Walk	   *walk;

	TAILQ_FOREACH(walk, &p->walks, link)
	{
		if (!walk->started)
			walk_on(p, walk);
	}
}

/* The connection is gone */
void
ra_redis_break_walks(RaProvider *p)
{
	Walk	   *walk;
	Walk	   *next;

	for (walk = TAILQ_FIRST(&p->walks); walk != NULL; walk = next)
	{
		next = TAILQ_NEXT(walk, link);
		if (walk->started)
			walk_end(p, walk, "the connection to Redis was lost");
	}
}

/* Also settles what the dead sessions held */
void
ra_redis_sweep(RaProvider *p, const redisReply *dead)
{
	Walk	   *walk = calloc(1, sizeof(Walk));

	if (walk == NULL)
		return;
	walk->sweep = true;
	p->sweeping = true;
	for (size_t i = 0; i < dead->elements && walk->ndead < SWEEP_MAX; i++)
		snprintf(walk->dead[walk->ndead++], SESSION_LEN + 1, "%s", dead->element[i]->str);
	TAILQ_INSERT_TAIL(&p->walks, walk, link);
	walk_on(p, walk);
}

/* Ask for some keys */
static void
walk_on(RaProvider *p, Walk *walk)
{
	Args		args = {0};
	char		pattern[4 * RA_KEY_MAX];
	int			len = 0;

	for (const char *from = p->prefix; *from != '\0'; from++)
	{
		if (strchr("*?[]^\\", *from) != NULL)
			pattern[len++] = '\\';
		pattern[len++] = *from;
	}
	strcpy(pattern + len, "lock:*");
	if (!walk->started)
		strcpy(walk->cursor, "0");
	walk->started = true;
	ra_redis_text(&args, "SCAN");
	ra_redis_text(&args, walk->cursor);
	ra_redis_text(&args, "MATCH");
	ra_redis_text(&args, pattern);
	ra_redis_text(&args, "COUNT");
	ra_redis_text(&args, "200");
	ra_redis_send(p, &args, COMMAND_SCAN, walk, 0);
}

static void
walk_key(RaProvider *p, Walk *walk, const redisReply *key)
{
	Args		args = {0};
	WalkKey    *walk_key;

	if (walk->sweep)
	{
		ra_redis_script(p, &args, RA_REDIS_CHECK, 3);
		ra_redis_args(&args, key->str, key->len);
		ra_redis_text(&args, p->generation_text);
		ra_redis_text(&args, p->value);
		ra_redis_text(&args, p->prefix);
		ra_redis_text(&args, "");
		ra_redis_text(&args, "");
		if (ra_redis_send(p, &args, COMMAND_SETTLE, walk, 0))
			walk->pending++;
		else
			walk->failed = true;
		return;
	}

	walk_key = malloc(sizeof(*walk_key) + key->len);
	if (walk_key == NULL)
	{
		walk->failed = true;
		return;
	}
	walk_key->walk = walk;
	walk_key->keylen = (int) key->len;
	memcpy(walk_key->key, key->str, key->len);
	ra_redis_text(&args, "LRANGE");
	ra_redis_args(&args, key->str, key->len);
	ra_redis_text(&args, "0");
	ra_redis_text(&args, "-1");
	if (ra_redis_send(p, &args, COMMAND_RANGE, walk_key, 0))
		walk->pending++;
	else
	{
		walk->failed = true;
		free(walk_key);
	}
}

void
ra_redis_walk_reply(RaProvider *p, RaRedisCommand *command, const redisReply *reply)
{
	Walk	   *walk = command->kind == COMMAND_RANGE ? ((WalkKey *) command->ref)->walk : command->ref;

	/* the connection's end has ended the walk as well */
	if (ra_redis_refused(p, command->kind == COMMAND_SWEPT ? "forget dead sessions" : "list locks", reply))
	{
		if (command->kind == COMMAND_SWEPT || p->phase == PHASE_OFF)
			return;
		if (command->kind == COMMAND_SCAN)
		{
			walk_end(p, walk, reply->type == REDIS_REPLY_ERROR ? reply->str : "the session was lost");
			return;
		}
		walk->failed = true;
	}

	switch (command->kind)
	{
		case COMMAND_SCAN:
			if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
			{
				walk_end(p, walk, "unexpected answer");
				return;
			}
			snprintf(walk->cursor, sizeof(walk->cursor), "%s", reply->element[0]->str);
			for (size_t i = 0; i < reply->element[1]->elements; i++)
				walk_key(p, walk, reply->element[1]->element[i]);
			break;

		case COMMAND_RANGE:
			walk->pending--;
			range_reply(p, command->ref, reply);
			break;

		case COMMAND_SETTLE:
			walk->pending--;
			break;

		default:
			return;
	}

	if (walk->pending > 0)
		return;
	if (strcmp(walk->cursor, "0") != 0)
		walk_on(p, walk);
	else
		walk_end(p, walk, walk->failed ? "some locks could not be read" : NULL);
}

static void
range_reply(RaProvider *p, WalkKey *key, const redisReply *reply)
{
	int			skip = (int) strlen(p->prefix) + 5;

	for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
	{
		char		mode;
		unsigned long long token;
		int			node = 0;
		RaProviderEntry entry;

		if (sscanf(reply->element[i]->str, "%*[^/]/%*[^/]/%c/%llu/%n", &mode, &token, &node) != 2 ||
			node == 0)
			continue;
		entry = (RaProviderEntry) {
			.key = key->key + skip, .keylen = key->keylen - skip,
			.node = reply->element[i]->str + node,
			.mode = mode == 'x' ? RA_PROVIDER_EXCLUSIVE : RA_PROVIDER_SHARED,
			.granted = token > 0, .position = (int) i, .token = token
		};
		p->callbacks->listed(p->arg, key->walk->owner, &entry, NULL);
	}
}

static void
walk_end(RaProvider *p, Walk *walk, const char *error)
{
	Args		args;

	TAILQ_REMOVE(&p->walks, walk, link);
	if (walk->sweep)
		p->sweeping = false;
	if (!walk->sweep)
		p->callbacks->listed(p->arg, walk->owner, NULL, error);
	else if (error == NULL && p->phase == PHASE_READY)
	{
		ra_redis_script(p, &args, RA_REDIS_SWEPT, 4);
		ra_redis_text(&args, p->key_members);
		ra_redis_text(&args, p->key_sweep);
		ra_redis_text(&args, p->generation_text);
		ra_redis_text(&args, p->value);
		ra_redis_text(&args, p->prefix);
		for (int i = 0; i < walk->ndead; i++)
			ra_redis_text(&args, walk->dead[i]);
		ra_redis_send(p, &args, COMMAND_SWEPT, NULL, 0);
	}
	free(walk);
}
