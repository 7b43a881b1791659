/*
 * redis_link.h
 *	  One connection to Redis that never blocks: commands go out in order, and
 *	  each reply is handed back with the command it answers.
 */
#ifndef RA_REDIS_LINK_H
#define RA_REDIS_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include <hiredis/hiredis.h>

#include "provider.h"

/* A command whose reply is outstanding */
typedef struct RaRedisCommand
{
	struct RaRedisCommand *next;
	int			kind;
	void	   *ref;			/* whatever it is about */
	uint64_t	number;			/* of the request, when this was sent */
	int64_t		sent_at;
} RaRedisCommand;

typedef struct RaRedisLink
{
	redisContext *context;		/* NULL: closed */
	const RaProviderTls *tls;	/* NULL: plain text */
	struct ssl_st *ssl;			/* hiredis' own, or NULL */
	const char *host;
	int			epoll_fd;
	uint32_t	watched;		/* events that epoll waits for */
	bool		connecting;
	bool		unsent;			/* something is in the output buffer */
	bool		reads_first;	/* and waits for what the server has to say: TLS */
	bool		answered;		/* at least once */
	int64_t		last_read;
	RaRedisCommand *first;
	RaRedisCommand **end;
	char		error[160];		/* not empty: broken, to be closed */
} RaRedisLink;

extern void ra_redis_link_init(RaRedisLink *link, int epoll_fd);
extern bool ra_redis_link_open(RaRedisLink *link, const char *host, int port);
extern void ra_redis_link_close(RaRedisLink *link);
extern bool ra_redis_link_send(RaRedisLink *link, int kind, void *ref, uint64_t number,
							   int argc, const char **argv, const size_t *lengths);
extern bool ra_redis_link_append(RaRedisLink *link, int argc, const char **argv,
								 const size_t *lengths);
extern void ra_redis_link_flush(RaRedisLink *link);
extern void ra_redis_link_ready(RaRedisLink *link);
extern redisReply *ra_redis_link_reply(RaRedisLink *link);
extern int64_t ra_redis_link_due(const RaRedisLink *link);
extern RaRedisCommand *ra_redis_link_shift(RaRedisLink *link);

extern int64_t ra_redis_clock(void);

#endif							/* RA_REDIS_LINK_H */
