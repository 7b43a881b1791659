/*
 * lock_floor.c
 *	  What the services themselves cost, through their C clients: the floors under
 *	  a lock, and the lock that people make of plain Redis.
 *
 *	lock_floor zookeeper HOSTS SECONDS
 *		an ephemeral sequential entry made and deleted, synchronously
 *	lock_floor redis PORT SECONDS CLIENTS own|one plain|counter
 *		SET NX PX, INCR if with a counter (a fencing token), compare and delete by a
 *		script; who doesn't get the lock tries again after 1 ms
 */
#define THREADED
#include <hiredis/hiredis.h>
#include <zookeeper/zookeeper.h>

#include "pairs.h"

static const char *zk_hosts;
static int	redis_port;
static bool one_lock;
static bool counter;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "lock_floor: %s: %s\n", what, why);
	exit(1);
}

static void
zk(int rc, const char *what)
{
	if (rc != ZOK)
		die(what, zerror(rc));
}

static void *
zookeeper_pairs(void *arg)
{
	Pairs	   *pairs = arg;
	zhandle_t  *handle;
	char		path[128];

	zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
	handle = zookeeper_init(zk_hosts, NULL, 10000, NULL, NULL, 0);
	if (handle == NULL)
		die("zookeeper_init", "failed");
	/* else each call looks the servers' names up again */
	zoo_set_servers_resolution_delay(handle, -1);
	for (int i = 0; zoo_state(handle) != ZOO_CONNECTED_STATE; i++)
	{
		if (i > 10000)
			die("connecting", "no answer");
		usleep(1000);
	}
	if (zoo_create(handle, "/floor", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) != ZOK)
		zk(zoo_exists(handle, "/floor", 0, NULL), "exists");
	pairs_begin();
	while (pairs_go_on())
	{
		int64_t		since = now_ns();

		zk(zoo_create(handle, "/floor/x-", "", 0, &ZOO_OPEN_ACL_UNSAFE,
					  ZOO_EPHEMERAL | ZOO_SEQUENCE, path, sizeof(path)), "create");
		pairs->guarded->count++;
		zk(zoo_delete(handle, path, -1), "delete");
		pairs_note(pairs, since);
	}
	zookeeper_close(handle);
	return NULL;
}

/* Whether the command did something: OK, or a number other than 0 */
static bool
done(redisContext *redis, redisReply *reply)
{
	bool		result;

	if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
		die("redis", reply ? reply->str : redis->errstr);
	result = reply->type == REDIS_REPLY_STATUS ||
		(reply->type == REDIS_REPLY_INTEGER && reply->integer != 0);
	freeReplyObject(reply);
	return result;
}

static void *
redis_pairs(void *arg)
{
	Pairs	   *pairs = arg;
	redisContext *redis = redisConnect("127.0.0.1", redis_port);
	redisReply *sha;
	int			key = one_lock ? 0 : pairs->number;

	if (redis == NULL || redis->err)
		die("redis", redis ? redis->errstr : "no memory");
	sha = redisCommand(redis, "SCRIPT LOAD %s",
					   "if redis.call('GET', KEYS[1]) == ARGV[1] then "
					   "return redis.call('DEL', KEYS[1]) end return 0");
	if (sha == NULL || sha->type != REDIS_REPLY_STRING)
		die("redis", "SCRIPT LOAD failed");
	pairs_begin();
	while (pairs_go_on())
	{
		int64_t		since = now_ns();

		while (!done(redis, redisCommand(redis, "SET floor:%d %d NX PX 10000", key, pairs->number)))
			usleep(1000);
		if (counter)
			done(redis, redisCommand(redis, "INCR token"));
		critical_enter(pairs->guarded, pairs->number);
		critical_leave(pairs->guarded, pairs->number);
		if (!done(redis, redisCommand(redis, "EVALSHA %s 1 floor:%d %d", sha->str, key, pairs->number)))
			die("redis", "lock lost");
		pairs_note(pairs, since);
	}
	freeReplyObject(sha);
	redisFree(redis);
	return NULL;
}

int
main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "zookeeper") == 0)
	{
		zk_hosts = argv[2];
		pairs_run(1, true, atof(argv[3]), zookeeper_pairs);
		return 0;
	}
	if (argc == 7 && strcmp(argv[1], "redis") == 0)
	{
		redis_port = atoi(argv[2]);
		one_lock = strcmp(argv[5], "one") == 0;
		counter = strcmp(argv[6], "counter") == 0;
		pairs_run(atoi(argv[4]), one_lock, atof(argv[3]), redis_pairs);
		return 0;
	}
	fprintf(stderr, "usage: see lock_floor.c\n");
	return 2;
}
