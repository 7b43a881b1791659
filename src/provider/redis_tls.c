/*
 * redis_tls.c
 *	  TLS of the connections to Redis, where hiredis has it (since 1.0, as a
 *	  library of its own).  The Makefile finds that out and defines RA_REDIS_TLS.
 *
 * hiredis can make the SSL object by itself, but would then take any server that has
 * a certificate of the CA for the one that was meant.  So it is made here, where OpenSSL
 * is told the name or address that the certificate must have; hiredis is given it for
 * its reads and writes.
 *
 * The files are read for each connection, so that they may be replaced at any time.
 */
#include <stdio.h>

#include "redis_tls.h"

#ifdef RA_REDIS_TLS

#include <arpa/inet.h>

#include <hiredis/hiredis_ssl.h>
#include <openssl/x509v3.h>

#include "tls_context.h"

RaProviderTls *
ra_redis_tls_new(const RaProviderTls *config, char *error, int error_size)
{
	return tls_config_copy(config, error, error_size);
}

void
ra_redis_tls_free(RaProviderTls *tls)
{
	tls_config_free(tls);
}

/* The certificate must have the name or address that the list of hosts has */
static bool
expect(SSL *ssl, const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];

	if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
	return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

bool
ra_redis_tls_start(RaRedisLink *link)
{
	SSL_CTX    *context = tls_context(link->tls, link->error, sizeof(link->error));

	if (context == NULL)
		return false;
	link->ssl = SSL_new(context);
	SSL_CTX_free(context);		/* the connection has its own reference */
	if (link->ssl == NULL || !expect(link->ssl, link->host))
		tls_explain(link->error, sizeof(link->error), "could not set up TLS for", link->host);
	else if (redisInitiateSSL(link->context, link->ssl) == REDIS_OK)
		return true;			/* it belongs to hiredis now */
	else
		snprintf(link->error, sizeof(link->error), "%s", ra_redis_tls_error(link, link->context->errstr));
	SSL_free(link->ssl);
	link->ssl = NULL;
	return false;
}

void
ra_redis_tls_enter(const RaRedisLink *link)
{
	if (link->ssl != NULL)
		ERR_clear_error();
}

bool
ra_redis_tls_reads_first(const RaRedisLink *link)
{
	return link->ssl != NULL && SSL_want_read(link->ssl);
}

bool
ra_redis_tls_pending(const RaRedisLink *link)
{
	return link->ssl != NULL && SSL_pending(link->ssl) > 0;
}

const char *
ra_redis_tls_error(const RaRedisLink *link, const char *otherwise)
{
	static char text[160];
	long		verified;
	unsigned long error;
	const char *reason;

	if (link->ssl == NULL)
		return otherwise;
	verified = SSL_get_verify_result(link->ssl);
	error = ERR_get_error();
	reason = ERR_reason_error_string(error);
	ERR_clear_error();
	if (verified != X509_V_OK)
		snprintf(text, sizeof(text), "the server's certificate is not accepted: %s",
				 X509_verify_cert_error_string(verified));
	else if (reason != NULL && ERR_GET_REASON(error) < SSL_AD_REASON_OFFSET)
		snprintf(text, sizeof(text), "TLS: %s", reason);
	else if (!link->answered)
		/* it may have said why, but often closes the connection before that is read */
		return "the server does not accept the TLS connection, perhaps for this node's certificate; see its log";
	else
		return otherwise;
	return text;
}

#else							/* not RA_REDIS_TLS */

RaProviderTls *
ra_redis_tls_new(const RaProviderTls *config, char *error, int error_size)
{
	(void) config;
	snprintf(error, (size_t) error_size, "hiredis has no TLS");
	return NULL;
}

void
ra_redis_tls_free(RaProviderTls *tls)
{
	(void) tls;
}

bool
ra_redis_tls_start(RaRedisLink *link)
{
	snprintf(link->error, sizeof(link->error), "hiredis has no TLS");
	return false;
}

void
ra_redis_tls_enter(const RaRedisLink *link)
{
	(void) link;
}

bool
ra_redis_tls_reads_first(const RaRedisLink *link)
{
	(void) link;
	return false;
}

bool
ra_redis_tls_pending(const RaRedisLink *link)
{
	(void) link;
	return false;
}

const char *
ra_redis_tls_error(const RaRedisLink *link, const char *otherwise)
{
	(void) link;
	return otherwise;
}

#endif							/* RA_REDIS_TLS */
