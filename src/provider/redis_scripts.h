/*
 * redis_scripts.h
 *	  What runs inside Redis.
 */
#ifndef RA_REDIS_SCRIPTS_H
#define RA_REDIS_SCRIPTS_H

typedef enum RaRedisScript
{
	RA_REDIS_ATTACH,
	RA_REDIS_BEAT,
	RA_REDIS_ACQUIRE,
	RA_REDIS_RELEASE,
	RA_REDIS_CHECK,
	RA_REDIS_SWEPT,
	RA_REDIS_END,
	RA_REDIS_SCRIPTS
} RaRedisScript;

/* What scripts answer besides tokens, which are positive */
#define RA_REDIS_WAITING 0
#define RA_REDIS_REFUSED (-1)
#define RA_REDIS_GENERATION (-2)	/* the data is of another generation */
#define RA_REDIS_GONE (-3)		/* the session has ended */
#define RA_REDIS_STALE (-4)		/* the session has a newer connection */
#define RA_REDIS_MISSING (-5)	/* no such entry */

extern const char *const ra_redis_scripts[RA_REDIS_SCRIPTS];

#endif							/* RA_REDIS_SCRIPTS_H */
