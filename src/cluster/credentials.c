/*
 * credentials.c
 *	  Who this node is at the coordination service: user and password, TLS.
 *
 * Secrets stand in files that settings name, never in settings themselves.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "storage/fd.h"

#include "cluster/credentials.h"
#include "guc.h"

/* Open a file that we need; one with a secret must not be open to others */
static FILE *
open_file(const char *name, bool secret)
{
	FILE	   *file = AllocateFile(name, "r");
	struct stat st;

	if (file == NULL || fstat(fileno(file), &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", name)));
	if (secret && (st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("file \"%s\" must not be accessible to others (mode 0640 at most)", name)));
	return file;
}

/* The one line of a file with a secret */
static void
read_secret(const char *name, char *line, int size)
{
	FILE	   *file = open_file(name, true);

	if (fgets(line, size, file) == NULL)
		line[0] = '\0';
	FreeFile(file);
	if ((int) strlen(line) == size - 1 && line[size - 2] != '\n')
	{
		explicit_bzero(line, size);
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the line of file \"%s\" is too long", name),
				 errdetail("It may have up to %d bytes.", size - 2)));
	}
	line[strcspn(line, "\r\n")] = '\0';
}

/* risk_alert.coordination_password_file: one line, user:password or :password */
static void
read_password(RaProviderConfig *config)
{
	char		line[512];
	char	   *colon;

	if (ra_coordination_password_file[0] == '\0')
		return;
	read_secret(ra_coordination_password_file, line, sizeof(line));
	colon = strchr(line, ':');
	if (colon == NULL || colon[1] == '\0')
	{
		explicit_bzero(line, sizeof(line));
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("file \"%s\" does not hold user:password", ra_coordination_password_file)));
	}
	*colon = '\0';
	if (line[0] != '\0')
		config->user = pstrdup(line);
	config->password = pstrdup(colon + 1);
	explicit_bzero(line, sizeof(line));
}

/* A file that the client library will read itself; NULL if the setting is empty */
static const char *
check_file(const char *name, bool secret)
{
	if (name[0] == '\0')
		return NULL;
	FreeFile(open_file(name, secret));
	return name;
}

/* Whoever has set anything of it wants no plain text */
static void
read_tls(const RaProviderOps *ops, RaProviderConfig *config)
{
	RaProviderTls *tls;
	const char *names[] = {"ca_file", "cert_file", "key_file", "key_password_file"};
	const char *values[] = {
		ra_coordination_tls_ca_file, ra_coordination_tls_cert_file,
		ra_coordination_tls_key_file, ra_coordination_tls_key_password_file
	};

	if (!ra_coordination_tls)
	{
		for (int i = 0; i < lengthof(names); i++)
			if (values[i][0] != '\0')
				ereport(ERROR,
						(errcode(ERRCODE_CONFIG_FILE_ERROR),
						 errmsg("risk_alert.coordination_tls_%s is set, but risk_alert.coordination_tls is off", names[i]),
						 errhint("Set coordination_tls to on; or, for a connection in plain text, reset coordination_tls_%s.", names[i])));
		return;
	}
	if (!ops->tls)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("risk_alert.coordination_tls is on, but the client library of %s has no TLS: a tunnel is needed",
						ops->name),
				 errhint("Run a tunnel (stunnel, for example) on this server, let risk_alert.%s_hosts name its local end, and set "
						 "coordination_tls to off; or build risk_alert with a client library that has TLS.",
						 ops->name)));
	if (ra_coordination_tls_ca_file[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("risk_alert.coordination_tls is on, but risk_alert.coordination_tls_ca_file is not set")));
	if ((ra_coordination_tls_cert_file[0] == '\0') != (ra_coordination_tls_key_file[0] == '\0'))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("of risk_alert.coordination_tls_cert_file and coordination_tls_key_file, only one is set")));
	if (ra_coordination_tls_key_file[0] == '\0' && ra_coordination_tls_key_password_file[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("risk_alert.coordination_tls_key_password_file is set, but coordination_tls_key_file is not")));

	tls = palloc0(sizeof(*tls));
	tls->ca_file = check_file(ra_coordination_tls_ca_file, false);
	tls->cert_file = check_file(ra_coordination_tls_cert_file, false);
	tls->key_file = check_file(ra_coordination_tls_key_file, true);
	if (ra_coordination_tls_key_password_file[0] != '\0')
	{
		char		line[512];

		read_secret(ra_coordination_tls_key_password_file, line, sizeof(line));
		tls->key_password = pstrdup(line);
		explicit_bzero(line, sizeof(line));
	}
	config->tls = tls;
}

void
ra_coordination_credentials(const RaProviderOps *ops, RaProviderConfig *config)
{
	read_tls(ops, config);
	read_password(config);
}

static void
wipe(const char *secret)
{
	if (secret)
	{
		explicit_bzero((char *) secret, strlen(secret));
		pfree((char *) secret);
	}
}

void
ra_coordination_forget(RaProviderConfig *config)
{
	wipe(config->password);
	config->password = NULL;
	if (config->tls)
	{
		wipe(config->tls->key_password);
		pfree((RaProviderTls *) config->tls);
		config->tls = NULL;
	}
}
