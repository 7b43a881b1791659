/*
 * session_file.c
 *	  What the broker leaves for its successor: its session, to be ended.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "cluster/session_file.h"
#include "provider/provider.h"

/*
 * Where the session is described for a successor.  In this directory, since the file must
 * not get into base backups: a copy of this server would end our session.
 */
#define SESSION_FILE "pg_stat_tmp/risk_alert.session"

char *
ra_session_read(void)
{
	char	   *text;
	int			fd;
	int			n;

	fd = open(SESSION_FILE, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return NULL;
	text = palloc(RA_SESSION_MAX);
	n = read(fd, text, RA_SESSION_MAX - 1);
	close(fd);
	if (n <= 0)
	{
		pfree(text);
		return NULL;
	}
	text[n] = '\0';
	return text;
}

/*
 * Not flushed: what it is for, ending a session soon, is done by the service
 * anyhow after a crash of the whole machine.
 */
void
ra_session_write(const char *description)
{
	int			fd;

	unlink(SESSION_FILE);
	fd = open(SESSION_FILE, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY, S_IRUSR | S_IWUSR);
	errno = fd < 0 ? errno : ENOSPC;	/* unless write() knows better */
	if (fd < 0 || write(fd, description, strlen(description)) != (ssize_t) strlen(description))
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", SESSION_FILE)));
		unlink(SESSION_FILE);	/* half a description might be another session's */
	}
	if (fd >= 0)
		close(fd);
}

void
ra_session_forget(void)
{
	unlink(SESSION_FILE);
}
