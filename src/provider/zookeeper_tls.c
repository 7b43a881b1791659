/*
 * zookeeper_tls.c
 *	  TLS of the connection to ZooKeeper, where the client library was built with
 *	  it.  The Makefile finds that out and defines RA_ZOOKEEPER_TLS.
 *
 * The library wants a certificate of the client, always, and checks that of the server:
 * that it was signed by the CA it is given, or by one that the system trusts,
 * and not whose it is.  With the system's CAs, which sign for everybody, that would be no
 * check at all.  So OpenSSL is told by its environment variables that there are no others
 * than the given one; which should sign for ZooKeeper's servers only.
 */
#ifdef RA_ZOOKEEPER_TLS
#define HAVE_OPENSSL_H			/* the library's header then declares zookeeper_init_ssl() */
#endif

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zookeeper.h"

#ifdef RA_ZOOKEEPER_TLS

bool
ra_zk_tls_set(RaProvider *p, const RaProviderTls *tls, char *error, int error_size)
{
	/* so that an encrypted key without a password is an error; OpenSSL would ask the terminal */
	const char *password = tls->key_password != NULL && tls->key_password[0] != '\0' ? tls->key_password : "none";
	size_t		size;

	if (tls->cert_file == NULL)
	{
		snprintf(error, (size_t) error_size, "ZooKeeper's client library needs a certificate of the client, and its key");
		return false;
	}
	if (strchr(tls->ca_file, ',') || strchr(tls->cert_file, ',') || strchr(tls->key_file, ',') ||
		strchr(password, ','))
	{
		snprintf(error, (size_t) error_size,
				 "ZooKeeper's client library does not take names of TLS files, nor a key's password, that have a comma");
		return false;
	}
	size = strlen(tls->ca_file) + strlen(tls->cert_file) + strlen(tls->key_file) + strlen(password) + 4;
	p->tls = malloc(size);
	if (p->tls == NULL || setenv("SSL_CERT_FILE", tls->ca_file, 1) != 0 ||
		setenv("SSL_CERT_DIR", "/dev/null", 1) != 0)
	{
		snprintf(error, (size_t) error_size, "out of memory");
		return false;
	}
	snprintf(p->tls, size, "%s,%s,%s,%s", tls->ca_file, tls->cert_file, tls->key_file, password);
	return true;
}

zhandle_t *
ra_zk_tls_init(RaProvider *p, watcher_fn watcher, const clientid_t *attach, void *context,
			   log_callback_fn log)
{
	zhandle_t  *zh = zookeeper_init_ssl(p->hosts, p->tls, watcher, p->timeout_wish, attach, context,
										ZOO_NO_LOG_CLIENTENV);

	/* what its threads have said already went to standard error */
	if (zh != NULL)
		zoo_set_log_callback(zh, log);
	return zh;
}

#else							/* not RA_ZOOKEEPER_TLS */

bool
ra_zk_tls_set(RaProvider *p, const RaProviderTls *tls, char *error, int error_size)
{
	(void) p;
	(void) tls;
	snprintf(error, (size_t) error_size, "ZooKeeper's client library has no TLS");
	return false;
}

zhandle_t *
ra_zk_tls_init(RaProvider *p, watcher_fn watcher, const clientid_t *attach, void *context,
			   log_callback_fn log)
{
	(void) p;
	(void) watcher;
	(void) attach;
	(void) context;
	(void) log;
	errno = ENOTSUP;
	return NULL;
}

#endif							/* RA_ZOOKEEPER_TLS */
