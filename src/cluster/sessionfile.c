/*
 * sessionfile.c
 *	  Where the broker's session is described for its successor.
 *
 * Not flushed: what it is for, ending a session soon, is done by the service
 * anyhow after a crash of the whole machine.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/sessionfile.h"
#include "provider/provider.h"

/*
 * In this directory, since the file must not get into base backups: a copy of
 * this server would end our session.
 */
#define SESSION_FILE "pg_stat_tmp/risk_alert.session"

char *
ra_session_file_read(void)
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

bool
ra_session_file_write(const char *description)
{
	int			fd;
	bool		done;
	int			error;

	unlink(SESSION_FILE);
	fd = open(SESSION_FILE, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY, S_IRUSR | S_IWUSR);
	if (fd < 0)
		return false;
	errno = 0;
	done = write(fd, description, strlen(description)) == (ssize_t) strlen(description);
	error = errno ? errno : ENOSPC;
	close(fd);
	if (!done)
		unlink(SESSION_FILE);	/* half a description might be another session's */
	errno = error;
	return done;
}

void
ra_session_file_remove(void)
{
	unlink(SESSION_FILE);
}
