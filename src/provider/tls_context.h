/*
 * tls_context.h
 *	  From the files that the configuration names to a context of OpenSSL's.
 *
 * For the one file of each provider that includes it, and only where its client has TLS: a
 * provider is linked with OpenSSL then.
 */
#ifndef RA_TLS_CONTEXT_H
#define RA_TLS_CONTEXT_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "provider.h"

/* Without it, OpenSSL would ask the terminal */
static int
tls_key_password(char *buffer, int size, int writing, void *arg)
{
	const char *password = arg != NULL ? arg : "";
	int			len = (int) strlen(password);

	(void) writing;
	if (len > size)
		return -1;
	memcpy(buffer, password, (size_t) len);
	return len;
}

/* The first of OpenSSL's reasons is the innermost one */
static bool
tls_explain(char *error, int error_size, const char *what, const char *name)
{
	const char *reason = ERR_reason_error_string(ERR_peek_error());

	snprintf(error, (size_t) error_size, "%s \"%s\": %s", what, name, reason != NULL ? reason : "unknown error");
	ERR_clear_error();
	return false;
}

static bool
tls_load(SSL_CTX *context, const RaProviderTls *tls, char *error, int error_size)
{
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	if (SSL_CTX_load_verify_locations(context, tls->ca_file, NULL) != 1)
		return tls_explain(error, error_size, "could not use the certificates in", tls->ca_file);
	if (tls->cert_file == NULL)
		return true;
	SSL_CTX_set_default_passwd_cb(context, tls_key_password);
	SSL_CTX_set_default_passwd_cb_userdata(context, (void *) tls->key_password);
	if (SSL_CTX_use_certificate_chain_file(context, tls->cert_file) != 1)
		return tls_explain(error, error_size, "could not use the certificate in", tls->cert_file);
	if (SSL_CTX_use_PrivateKey_file(context, tls->key_file, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_check_private_key(context) != 1)
		return tls_explain(error, error_size, "could not use the key in", tls->key_file);
	return true;
}

/* NULL and a message in error if the files are of no use */
static SSL_CTX *
tls_context(const RaProviderTls *tls, char *error, int error_size)
{
	SSL_CTX    *context;

	ERR_clear_error();
	context = SSL_CTX_new(TLS_client_method());
	if (context == NULL)
		tls_explain(error, error_size, "could not start", "OpenSSL");
	else if (!tls_load(context, tls, error, error_size))
	{
		SSL_CTX_free(context);
		context = NULL;
	}
	return context;
}

static void
tls_config_free(RaProviderTls *tls)
{
	if (tls == NULL)
		return;
	if (tls->key_password != NULL)
		explicit_bzero((char *) tls->key_password, strlen(tls->key_password));
	free((char *) tls->key_password);
	free((char *) tls->key_file);
	free((char *) tls->cert_file);
	free((char *) tls->ca_file);
	free(tls);
}

/* A copy of a configuration whose files can be used now; else NULL and a message in error */
static RaProviderTls *
tls_config_copy(const RaProviderTls *from, char *error, int error_size)
{
	RaProviderTls *tls = calloc(1, sizeof(*tls));
	SSL_CTX    *context = tls_context(from, error, error_size);

	SSL_CTX_free(context);
	if (tls != NULL && context != NULL)
	{
		tls->ca_file = strdup(from->ca_file);
		tls->cert_file = from->cert_file != NULL ? strdup(from->cert_file) : NULL;
		tls->key_file = from->key_file != NULL ? strdup(from->key_file) : NULL;
		tls->key_password = from->key_password != NULL ? strdup(from->key_password) : NULL;
		if (tls->ca_file != NULL && !tls->cert_file == !from->cert_file &&
			!tls->key_file == !from->key_file && !tls->key_password == !from->key_password)
			return tls;
	}
	if (context != NULL)
		snprintf(error, (size_t) error_size, "out of memory");
	tls_config_free(tls);
	return NULL;
}

#endif							/* RA_TLS_CONTEXT_H */
