/*
 * fence.c
 *	  Fencing tokens, and the generations that keep them growing.
 *
 * Tokens come from counters that somebody may lose: the service's data is
 * wiped or restored from a backup, this server's memory is gone with a
 * restart.  A generation number in front keeps them growing all the same.  Each
 * server remembers the highest one it has seen in a file of its data directory,
 * and a new one is also never below the seconds since 1970, so that one is
 * higher even if all who knew the last one are gone.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"

#include "cluster/fence.h"

#define GENERATION_FILE "risk_alert.generation"

static void generation_write(uint64 generation);

Numeric
ra_token_numeric(uint64 generation, uint64 token, int sequence)
{
	char		digits[64];

	snprintf(digits, sizeof(digits), UINT64_FORMAT "%019llu%05d", generation,
			 (unsigned long long) token, sequence);
	return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

uint64
ra_generation_seen(void)
{
	char		text[32];
	int			fd;
	int			n;
	char	   *end;
	uint64		generation;

	fd = OpenTransientFile(GENERATION_FILE, O_RDONLY | PG_BINARY);
	if (fd < 0)
	{
		if (errno != ENOENT)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", GENERATION_FILE)));
		return 0;
	}
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
	{
		int			saved_errno = errno;

		CloseTransientFile(fd);
		errno = saved_errno;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", GENERATION_FILE)));
	}
	CloseTransientFile(fd);
	text[n] = '\0';
	errno = 0;
	generation = strtoull(text, &end, 10);
	if (n == 0 || end == text || *end != '\n' || errno != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("file \"%s\" does not hold a number", GENERATION_FILE),
				 errdetail("It keeps the generation of the fencing tokens."),
				 errhint("Remove the file: a new generation will not be below the current time in seconds.")));
	return generation;
}

void
ra_generation_note(uint64 generation)
{
	if (generation > ra_generation_seen())
		generation_write(generation);
}

uint64
ra_generation_raise(void)
{
	uint64		generation = Max(ra_generation_seen() + 1, (uint64) time(NULL));

	generation_write(generation);
	return generation;
}

static void
generation_write(uint64 generation)
{
	const char *temporary = GENERATION_FILE ".tmp";
	char		text[32];
	int			fd;
	int			n;

	n = snprintf(text, sizeof(text), UINT64_FORMAT "\n", generation);
	fd = OpenTransientFile(temporary, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", temporary)));
	errno = 0;
	if (write(fd, text, n) != n)
	{
		int			saved_errno = errno ? errno : ENOSPC;

		/* the broker has no transaction that would close it */
		CloseTransientFile(fd);
		errno = saved_errno;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", temporary)));
	}
	if (CloseTransientFile(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close file \"%s\": %m", temporary)));
	/* flushes the file before and the directory after */
	durable_rename(temporary, GENERATION_FILE, ERROR);
}
