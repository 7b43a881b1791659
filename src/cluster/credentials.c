/*
 * credentials.c
 *	  User and password at the coordination service.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "storage/fd.h"

#include "cluster/credentials.h"
#include "guc.h"

/* risk_alert.coordination_password_file: one line, user:password or :password */
void
ra_coordination_password(char **user, char **password)
{
	FILE	   *file;
	struct stat st;
	char		line[512];
	char	   *colon;

	*user = *password = NULL;
	if (ra_coordination_password_file[0] == '\0')
		return;
	file = AllocateFile(ra_coordination_password_file, "r");
	if (file == NULL || fstat(fileno(file), &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", ra_coordination_password_file)));
	if (st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("file \"%s\" must not be accessible to others (mode 0640 at most)",
						ra_coordination_password_file)));
	if (fgets(line, sizeof(line), file) == NULL)
		line[0] = '\0';
	FreeFile(file);
	line[strcspn(line, "\r\n")] = '\0';
	colon = strchr(line, ':');
	if (colon == NULL || colon[1] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("file \"%s\" does not hold user:password", ra_coordination_password_file)));
	*colon = '\0';
	if (line[0] != '\0')
		*user = pstrdup(line);
	*password = pstrdup(colon + 1);
	explicit_bzero(line, sizeof(line));
}
