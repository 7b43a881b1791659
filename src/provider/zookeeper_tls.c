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

#include "zookeeper.h"

#ifdef RA_ZOOKEEPER_TLS

#include "tls_context.h"

struct ZkTls
{
	RaProviderTls *files;
	char	   *text;			/* as the library wants to be told */
};

ZkTls *
ra_zk_tls_new(const RaProviderTls *config, char *error, int error_size)
{
	/* so that an encrypted key without a password is an error; OpenSSL would ask the terminal */
	const char *password = config->key_password != NULL && config->key_password[0] != '\0' ? config->key_password : "none";
	ZkTls	   *tls;
	size_t		size;

	if (config->cert_file == NULL)
	{
		snprintf(error, (size_t) error_size, "ZooKeeper's client library needs a certificate of the client, and its key");
		return NULL;
	}
	size = strlen(config->ca_file) + strlen(config->cert_file) + strlen(config->key_file) + strlen(password) + 4;
	tls = calloc(1, sizeof(*tls));
	if (tls != NULL && (tls->text = malloc(size)) != NULL &&
		setenv("SSL_CERT_FILE", config->ca_file, 1) == 0 && setenv("SSL_CERT_DIR", "/dev/null", 1) == 0)
	{
		snprintf(tls->text, size, "%s,%s,%s,%s", config->ca_file, config->cert_file, config->key_file, password);
		if (strchr(config->ca_file, ',') || strchr(config->cert_file, ',') || strchr(config->key_file, ',') ||
			strchr(password, ','))
			snprintf(error, (size_t) error_size,
					 "ZooKeeper's client library takes no comma in the names of TLS files and in a key's password");
		else if ((tls->files = tls_config_copy(config, error, error_size)) != NULL)
			return tls;
	}
	else
		snprintf(error, (size_t) error_size, "out of memory");
	ra_zk_tls_free(tls);
	return NULL;
}

void
ra_zk_tls_free(ZkTls *tls)
{
	if (tls == NULL)
		return;
	if (tls->text != NULL)
		explicit_bzero(tls->text, strlen(tls->text));
	free(tls->text);
	tls_config_free(tls->files);
	free(tls);
}

/* With files that it can't use, the library would try again without any pause: it does not get them */
zhandle_t *
ra_zk_tls_init(ZkHandle *handle, watcher_fn watcher, const clientid_t *attach, log_callback_fn log)
{
	RaProvider *p = handle->provider;
	SSL_CTX    *context = tls_context(p->tls->files, handle->problem, sizeof(handle->problem));
	zhandle_t  *zh;

	if (context == NULL)
		return NULL;
	SSL_CTX_free(context);
	zh = zookeeper_init_ssl(p->hosts, p->tls->text, watcher, p->timeout_wish, attach, handle,
							ZOO_NO_LOG_CLIENTENV);
	/* what its threads have said already went to standard error */
	if (zh != NULL)
		zoo_set_log_callback(zh, log);
	return zh;
}

#else							/* not RA_ZOOKEEPER_TLS */

ZkTls *
ra_zk_tls_new(const RaProviderTls *config, char *error, int error_size)
{
	(void) config;
	snprintf(error, (size_t) error_size, "ZooKeeper's client library has no TLS");
	return NULL;
}

void
ra_zk_tls_free(ZkTls *tls)
{
	(void) tls;
}

zhandle_t *
ra_zk_tls_init(ZkHandle *handle, watcher_fn watcher, const clientid_t *attach, log_callback_fn log)
{
	(void) handle;
	(void) watcher;
	(void) attach;
	(void) log;
	errno = ENOTSUP;
	return NULL;
}

#endif							/* RA_ZOOKEEPER_TLS */
