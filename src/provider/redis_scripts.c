/*
 * redis_scripts.c
 *	  What runs inside Redis: everything that decides anything.
 *
 * Keys, all of them beginning with {cluster}:
 *
 *	generation		hash: generation, token (the last one given), run_id (of the server
 *					that made this generation), timeout (longest of a session),
 *					quiet (until when nothing is granted)
 *	session:<id>	<number of the connection>/<node>; expires unless renewed
 *	members			hash: session id -> start, node and data; also the list
 *					of all sessions, and of dead ones whose entries may be left
 *	lock:<key>		list, the queue: <session>/<number>/<x|s>/<token, or 0>/<node>
 *	sweep			who removes the entries of dead sessions; expires
 *
 * and channels wake:<session> ("<number> <token>": granted) and all ("members <session>":
 * it has come, gone or changed; "check": locks may have become free).
 *
 * An entry lives as long as its session's key: nobody need remove it.  The
 * granted entries are the head of a queue, an exclusive one alone or any number
 * of shared ones; whoever changes a queue "settles" it: removes dead entries from
 * the head and grants what can be granted, telling each one's session.
 * So a release wakes just those whose turn it is.  Redis itself deletes an empty list.
 *
 * A script stops at an error (out of memory, say) without undoing what it did,
 * so each can be repeated: what it adds is looked for first, what it removes may be gone.
 *
 * Late commands.  When a connection is cut, commands of it may still sit
 * in the server's or a proxy's buffers and run after those of the next connection,
 * where an acquire that runs after its own release would leave an entry that
 * nobody knows of.  So the session's key names the one connection that may add entries.
 *
 * Generations.  The server may come back without its latest data, or without any, or
 * a replica in its place; a changed run id tells, and so does a missing
 * "generation".  Grants of the lost time are unknown then, but those that have them hold a
 * lease.  Therefore the first node that finds out ends all sessions, takes a
 * higher generation and a quiet time: nothing is granted until the longest lease has
 * run out.  The generation is the time in ms, if that is higher than all that is
 * known: a node that has never seen a generation can't repeat one after a
 * flush, because the quiet time lay between the previous one and its first grant.
 *
 * Keys of other sessions are named inside the scripts, so this needs one
 * primary and doesn't work with Redis Cluster.  Scripts use TIME and LPOS: Redis 6.0.6.
 */
#include "redis_scripts.h"

/* KEYS: generation, session, lock; ARGV: generation, session's value, prefix */
#define CHECK_GENERATION \
	"local state = redis.call('HMGET', KEYS[1], 'generation', 'quiet')\n" \
	"if state[1] ~= ARGV[1] then return -2 end\n" \
	"local quiet = state[2]\n" \
	"if quiet then\n" \
	"  local time = redis.call('TIME')\n" \
	"  local rest = quiet - time[1] * 1000 - math.floor(time[2] / 1000)\n" \
	"  local longest = tonumber(redis.call('HGET', KEYS[1], 'timeout') or 0)\n" \
	"  quiet = rest > 0\n" \
	"  if not quiet then\n" \
	"    redis.call('HDEL', KEYS[1], 'quiet')\n" \
	"  elseif rest > longest then\n"	/* the clock was set back */ \
	"    redis.call('HINCRBY', KEYS[1], 'quiet', longest - rest)\n" \
	"  end\n" \
	"end\n"

#define CHECK_SESSION \
	"local value = redis.call('GET', KEYS[2])\n" \
	"if value ~= ARGV[2] then return value and -4 or -3 end\n"

/*
 * settle() returns how many hold the lock if all in the queue do, and share
 * it; nil if somebody waits or holds it alone
 */
#define SETTLE \
	"local function new_token()\n" \
	"  return string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'token', 1))\n" \
	"end\n" \
	"local function settle()\n" \
	"  local i = 0\n" \
	"  while true do\n" \
	"    local entry = redis.call('LINDEX', KEYS[3], i)\n" \
	"    if not entry then return i end\n" \
	"    local session, number, mode, token, node =\n" \
	"      string.match(entry, '^([^/]*)/([^/]*)/([^/]*)/([^/]*)/(.*)$')\n" \
	"    if not session or redis.call('EXISTS', ARGV[3] .. 'session:' .. session) == 0 then\n" \
	"      redis.call('LREM', KEYS[3], 1, entry)\n" \
	"    else\n" \
	"      if token == '0' then\n" \
	"        if quiet or (mode == 'x' and i > 0) then return nil end\n" \
	"        token = new_token()\n" \
	"        redis.call('LSET', KEYS[3], i,\n" \
	"          session .. '/' .. number .. '/' .. mode .. '/' .. token .. '/' .. node)\n" \
	"        redis.call('PUBLISH', ARGV[3] .. 'wake:' .. session, number .. ' ' .. token)\n" \
	"      end\n" \
	"      if mode == 'x' then return nil end\n" \
	"      i = i + 1\n" \
	"    end\n" \
	"  end\n" \
	"end\n"

/* ARGV[4]: session/number/mode/, ARGV[5]: node */
#define FIND \
	"local function find()\n" \
	"  local waiting = ARGV[4] .. '0/' .. ARGV[5]\n" \
	"  if redis.call('LPOS', KEYS[3], waiting) then return 0, waiting end\n" \
	"  for _, entry in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do\n" \
	"    if string.sub(entry, 1, #ARGV[4]) == ARGV[4] then\n" \
	"      return tonumber(string.match(entry, '^(%d+)/', #ARGV[4] + 1)), entry\n" \
	"    end\n" \
	"  end\n" \
	"  return -5\n" \
	"end\n"

const char *const ra_redis_scripts[RA_REDIS_SCRIPTS] = {

	/*
	 * A connection takes over its session, or begins one.  KEYS: generation, session,
	 * members; ARGV: generation of the session ('': a new one), its value, prefix,
	 * run id, highest generation seen, timeout, session id, member, previous session
	 */
	[RA_REDIS_ATTACH] =
	"local state = redis.call('HMGET', KEYS[1], 'generation', 'run_id', 'timeout', 'quiet')\n"
	"local time = redis.call('TIME')\n"
	"local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
	"local generation, seen = tonumber(state[1] or 0), tonumber(ARGV[5])\n"
	"local timeout, longest = tonumber(ARGV[6]), tonumber(state[3] or 0)\n"
	"local quiet = tonumber(state[4] or 0)\n"
	"local raised = 0\n"
	"if generation == 0 or state[2] ~= ARGV[4] or generation < seen then\n"
	"  for _, id in ipairs(redis.call('HKEYS', KEYS[3])) do\n"
	"    redis.call('DEL', ARGV[3] .. 'session:' .. id)\n"
	"  end\n"
	"  generation = math.max(generation + 1, seen + 1, now)\n"
	"  quiet = math.max(quiet, now + math.max(timeout, longest))\n"
	"  raised = 1\n"
	"  redis.call('HSET', KEYS[1], 'generation', string.format('%.0f', generation),\n"
	"    'run_id', ARGV[4], 'timeout', math.max(timeout, longest),\n"
	"    'quiet', string.format('%.0f', quiet))\n"
	"elseif timeout > longest then\n"
	"  redis.call('HSET', KEYS[1], 'timeout', timeout)\n"
	"  if quiet > now then\n"
	"    quiet = math.max(quiet, now + timeout)\n"
	"    redis.call('HSET', KEYS[1], 'quiet', string.format('%.0f', quiet))\n"
	"  end\n"
	"end\n"
	"generation = string.format('%.0f', generation)\n"
	"if ARGV[1] ~= '' and (ARGV[1] ~= generation or redis.call('EXISTS', KEYS[2]) == 0) then\n"
	"  return {-3, generation, raised, 0}\n"
	"end\n"
	"redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[6])\n"
	"redis.call('HSET', KEYS[3], ARGV[7], ARGV[8])\n"
	"if ARGV[9] ~= '' and redis.call('DEL', ARGV[3] .. 'session:' .. ARGV[9]) == 1 then\n"
	"  redis.call('PUBLISH', ARGV[3] .. 'all', 'check')\n"
	"end\n"
	"if ARGV[1] == '' then redis.call('PUBLISH', ARGV[3] .. 'all', 'members ' .. ARGV[7]) end\n"
	"return {1, generation, raised, math.max(quiet - now, 0)}\n",

	/*
	 * Renew the session; answers the living members, and the dead ones' session ids if
	 * this session is to remove their entries.  KEYS[3]: members, KEYS[4]: sweep;
	 * ARGV[4]: timeout, ARGV[5]: session id, ARGV[6]: member, '' if as before, ARGV[7]: 1 if
	 * it does that already.  Without memory for anything else a session still lives on
	 */
	[RA_REDIS_BEAT] =
	CHECK_GENERATION
	CHECK_SESSION
	"redis.call('PEXPIRE', KEYS[2], ARGV[4])\n"
	"if ARGV[6] ~= '' then\n"
	"  redis.pcall('HSET', KEYS[3], ARGV[5], ARGV[6])\n"
	"  redis.call('PUBLISH', ARGV[3] .. 'all', 'members ' .. ARGV[5])\n"
	"end\n"
	"local all, living, dead = redis.call('HGETALL', KEYS[3]), {}, {}\n"
	"for i = 1, #all, 2 do\n"
	"  if redis.call('EXISTS', ARGV[3] .. 'session:' .. all[i]) == 1 then\n"
	"    living[#living + 1] = all[i]\n"
	"    living[#living + 1] = all[i + 1]\n"
	"  else\n"
	"    dead[#dead + 1] = all[i]\n"
	"  end\n"
	"end\n"
	"if ARGV[7] == '1' then\n"
	"  redis.call('PEXPIRE', KEYS[4], ARGV[4])\n"
	"elseif #dead > 0 then\n"
	"  local mine = redis.pcall('SET', KEYS[4], ARGV[5], 'NX', 'PX', ARGV[4])\n"
	"  if not mine or mine.err then dead = {} end\n"
	"end\n"
	"return {1, living, dead}\n",

	/* ARGV[6]: x or s, ARGV[7]: 1 if nowait, ARGV[8]: 1 if it may have been sent before */
	[RA_REDIS_ACQUIRE] =
	CHECK_GENERATION
	CHECK_SESSION
	SETTLE
	FIND
	"if ARGV[8] == '1' and find() ~= -5 then\n"
	"  settle()\n"
	"  return find()\n"
	"end\n"
	"local holders = settle()\n"
	"if not quiet and (holders == 0 or (holders and ARGV[6] == 's')) then\n"
	"  local token = new_token()\n"
	"  redis.call('RPUSH', KEYS[3], ARGV[4] .. token .. '/' .. ARGV[5])\n"
	"  return tonumber(token)\n"
	"end\n"
	"if ARGV[7] == '1' then return -1 end\n"
	"redis.call('RPUSH', KEYS[3], ARGV[4] .. '0/' .. ARGV[5])\n"
	"return 0\n",

	/* ARGV[6]: token or 0; a late one does no harm, so any connection may */
	[RA_REDIS_RELEASE] =
	CHECK_GENERATION
	SETTLE
	FIND
	"if redis.call('LREM', KEYS[3], 1, ARGV[4] .. ARGV[6] .. '/' .. ARGV[5]) == 0 then\n"
	"  local _, entry = find()\n"
	"  if entry then redis.call('LREM', KEYS[3], 1, entry) end\n"
	"end\n"
	"settle()\n"
	"return 1\n",

	/* How is an entry?  ARGV[4] empty: just settle */
	[RA_REDIS_CHECK] =
	CHECK_GENERATION
	CHECK_SESSION
	SETTLE
	FIND
	"settle()\n"
	"if ARGV[4] == '' then return 0 end\n"
	"return find()\n",

	/*
	 * All queues have been settled since the sessions ARGV[4...] died.
	 * KEYS[3]: members, KEYS[4]: sweep
	 */
	[RA_REDIS_SWEPT] =
	CHECK_GENERATION
	"for i = 4, #ARGV do\n"
	"  if redis.call('EXISTS', ARGV[3] .. 'session:' .. ARGV[i]) == 0 then\n"
	"    redis.call('HDEL', KEYS[3], ARGV[i])\n"
	"  end\n"
	"end\n"
	"redis.call('DEL', KEYS[4])\n"
	"return 1\n",

	/* The session ends; its entries are gone.  KEYS: as of BEAT; ARGV[4]: session id */
	[RA_REDIS_END] =
	"redis.call('DEL', KEYS[2])\n"
	"redis.call('HDEL', KEYS[3], ARGV[4])\n"
	"if redis.call('GET', KEYS[4]) == ARGV[4] then redis.call('DEL', KEYS[4]) end\n"
	"redis.call('PUBLISH', ARGV[3] .. 'all', 'members ' .. ARGV[4])\n"
	"return 1\n",
};
