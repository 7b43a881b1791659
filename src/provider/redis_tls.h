/*
 * redis_tls.h
 *	  TLS of the connections to Redis, where hiredis has it.
 */
#ifndef RA_REDIS_TLS_H
#define RA_REDIS_TLS_H

#include "provider.h"
#include "redis_link.h"

#ifdef RA_REDIS_TLS
#define RA_REDIS_HAS_TLS true
#else
#define RA_REDIS_HAS_TLS false
#endif

/* NULL and a message in error: the files are of no use, or hiredis has no TLS */
extern RaProviderTls *ra_redis_tls_new(const RaProviderTls *config, char *error, int error_size);
extern void ra_redis_tls_free(RaProviderTls *tls);

/* Of a link that is connected: nothing is sent before this; false: see the link's error */
extern bool ra_redis_tls_start(RaRedisLink *link);

/* Before each call that reads or writes: forget what other connections have left in OpenSSL's list of errors */
extern void ra_redis_tls_enter(const RaRedisLink *link);

/* After a write that left something unsent: it waits for the server to say something */
extern bool ra_redis_tls_reads_first(const RaRedisLink *link);

/* Something has been read from the socket, but is not in hiredis' buffer yet */
extern bool ra_redis_tls_pending(const RaRedisLink *link);

/* Why a call failed: hiredis itself knows no more than errno */
extern const char *ra_redis_tls_error(const RaRedisLink *link, const char *otherwise);

#endif							/* RA_REDIS_TLS_H */
