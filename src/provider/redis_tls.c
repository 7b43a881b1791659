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
#include <stdlib.h>
#include <string.h>

#include "redis_tls.h"

#ifdef RA_REDIS_TLS

#include <arpa/inet.h>

#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

struct RaRedisTls
{
	char	   *ca_file;
	char	   *cert_file;
	char	   *key_file;
	char	   *key_password;
};

/* OpenSSL would ask the terminal */
static int
key_password(char *buffer, int size, int writing, void *arg)
{
	const char *password = arg;
	int			len = password != NULL ? (int) strlen(password) : 0;

	(void) writing;
	if (len > size)
		return -1;
	memcpy(buffer, password != NULL ? password : "", (size_t) len);
	return len;
}

/* In what OpenSSL says the innermost reason is the first one */
static bool
explain(char *error, int error_size, const char *what, const char *name)
{
	unsigned long code = ERR_peek_error();
	const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;

	snprintf(error, (size_t) error_size, "%s \"%s\": %s", what, name,
			 reason != NULL ? reason : code != 0 ? strerror(ERR_GET_REASON(code)) : "unknown error");
	ERR_clear_error();
	return false;
}

static bool
load(SSL_CTX *context, const RaRedisTls *tls, char *error, int error_size)
{
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	if (SSL_CTX_load_verify_locations(context, tls->ca_file, NULL) != 1)
		return explain(error, error_size, "could not use the certificates in", tls->ca_file);
	if (tls->cert_file == NULL)
		return true;
	SSL_CTX_set_default_passwd_cb(context, key_password);
	SSL_CTX_set_default_passwd_cb_userdata(context, tls->key_password);
	if (SSL_CTX_use_certificate_chain_file(context, tls->cert_file) != 1)
		return explain(error, error_size, "could not use the certificate in", tls->cert_file);
	if (SSL_CTX_use_PrivateKey_file(context, tls->key_file, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_check_private_key(context) != 1)
		return explain(error, error_size, "could not use the key in", tls->key_file);
	return true;
}

static SSL_CTX *
new_context(const RaRedisTls *tls, char *error, int error_size)
{
	SSL_CTX    *context;

	ERR_clear_error();
	context = SSL_CTX_new(TLS_client_method());
	if (context == NULL)
		explain(error, error_size, "could not start", "OpenSSL");
	else if (!load(context, tls, error, error_size))
	{
		SSL_CTX_free(context);
		context = NULL;
	}
	return context;
}

static bool
copy(char **to, const char *text)
{
	*to = text != NULL ? strdup(text) : NULL;
	return text == NULL || *to != NULL;
}

RaRedisTls *
ra_redis_tls_new(const RaProviderTls *config, char *error, int error_size)
{
	RaRedisTls *tls = calloc(1, sizeof(*tls));
	SSL_CTX    *context = NULL;

	if (tls == NULL || !copy(&tls->ca_file, config->ca_file) || !copy(&tls->cert_file, config->cert_file) ||
		!copy(&tls->key_file, config->key_file) || !copy(&tls->key_password, config->key_password))
		snprintf(error, (size_t) error_size, "out of memory");
	else
		context = new_context(tls, error, error_size);
	if (context == NULL)
	{
		ra_redis_tls_free(tls);
		return NULL;
	}
	SSL_CTX_free(context);
	return tls;
}

void
ra_redis_tls_free(RaRedisTls *tls)
{
	if (tls == NULL)
		return;
	if (tls->key_password != NULL)
		explicit_bzero(tls->key_password, strlen(tls->key_password));
	free(tls->key_password);
	free(tls->key_file);
	free(tls->cert_file);
	free(tls->ca_file);
	free(tls);
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
	SSL_CTX    *context = new_context(link->tls, link->error, sizeof(link->error));

	if (context == NULL)
		return false;
	link->ssl = SSL_new(context);
	SSL_CTX_free(context);		/* the connection has its own reference */
	if (link->ssl == NULL || !expect(link->ssl, link->host))
		explain(link->error, sizeof(link->error), "could not set up TLS for", link->host);
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
	const char *reason;

	if (link->ssl == NULL)
		return otherwise;
	verified = SSL_get_verify_result(link->ssl);
	reason = ERR_reason_error_string(ERR_peek_error());
	ERR_clear_error();
	if (verified != X509_V_OK)
		snprintf(text, sizeof(text), "the server's certificate is not accepted: %s",
				 X509_verify_cert_error_string(verified));
	else if (reason != NULL)
		snprintf(text, sizeof(text), "TLS: %s", reason);
	else
		return otherwise;
	return text;
}

#else							/* not RA_REDIS_TLS */

RaRedisTls *
ra_redis_tls_new(const RaProviderTls *config, char *error, int error_size)
{
	(void) config;
	snprintf(error, (size_t) error_size, "hiredis has no TLS");
	return NULL;
}

void
ra_redis_tls_free(RaRedisTls *tls)
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
