/*
 * prepared.c
 *	  Statements that come again and again are prepared on their connection.
 *
 * Parsing and planning an UPDATE of one row takes a node about as long as running it.  So a text that has come to
 * a connection some times is prepared there from then on, as drivers do for statements of
 * their clients.  Texts that are put together with their values don't come again; they only
 * pass through the table of what has come lately.
 *
 * It must do what it would do as a text.  So only where the text alone says what its constants
 * and parameters are (ra_fixed_types()): those that the parser would take for what
 * they are compared with or assigned to would keep the type of a column, or the value of 'now', of the time when they were
 * prepared.  And only INSERT, UPDATE, DELETE and MERGE without RETURNING, as columns of a result must not
 * change.
 *
 * Nothing is taken back before the connection is closed: DEALLOCATE of what is not there would fail
 * the transaction it is said in.  So up to MAX_MADE are prepared on a connection.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "cluster/prepared.h"
#include "cluster/statement.h"

#define SIZE 64					/* texts that have come lately */
#define MAX_MADE 48
#define MAX_LENGTH 8192			/* of a text, in bytes */

/* times that a text comes before it is prepared: less often, it would cost more than it saves */
#define TIMES 3

struct RaPreparedSet
{
	RaPrepared	entries[SIZE];
	int			nmade;			/* names given */
};

static RaPrepared *replaceable(RaPreparedSet *set, uint64 hash);

RaPrepared *
ra_prepared_find(RaPreparedSet **set, const char *sql)
{
	size_t		len = strlen(sql);
	RaPrepared *e = NULL;
	uint64		hash;
	int			i;

	if (len > MAX_LENGTH)
		return NULL;
	if (*set == NULL)
		*set = MemoryContextAllocZero(TopMemoryContext, sizeof(RaPreparedSet));
	hash = hash_bytes_extended((const unsigned char *) sql, (int) len, 0) | 1;
	for (i = 0; i < SIZE && e == NULL; i++)
	{
		if ((*set)->entries[i].hash == hash)
			e = &(*set)->entries[i];
	}
	if (e == NULL)
	{
		e = replaceable(*set, hash);
		memset(e, 0, sizeof(RaPrepared));
		e->hash = hash;
		e->state = ra_fixed_types(sql) ? RA_PREPARED_NOT : RA_PREPARED_NEVER;
	}
	if (e->state == RA_PREPARED_NOT && e->times >= TIMES && (*set)->nmade < MAX_MADE)
	{
		e->sql = MemoryContextStrdup(TopMemoryContext, sql);
		e->state = RA_PREPARED_LATER;
		snprintf(e->name, sizeof(e->name), "risk_alert statement %d", ++(*set)->nmade);
	}
	/* two texts with one hash */
	if (e->sql && strcmp(e->sql, sql) != 0)
		return NULL;
	return e;
}

/* One without a name, of those that have run least: by chance, or texts that come in turn would all be gone by then */
static RaPrepared *
replaceable(RaPreparedSet *set, uint64 hash)
{
	RaPrepared *best = NULL;
	uint64		i = hash >> 8;

	for (int n = 0; n < SIZE; n++, i++)
	{
		RaPrepared *e = &set->entries[i % SIZE];

		if (e->sql == NULL && (best == NULL || e->times < best->times))
			best = e;
	}
	return best;				/* not all have a name */
}

void
ra_prepared_ran(RaPrepared *entry)
{
	/* what has run often but may not be prepared shall not keep others out for ever */
	if (entry->state == RA_PREPARED_NOT && entry->times < TIMES)
		entry->times++;
}

void
ra_prepared_start_over(RaPrepared *entry)
{
	if (entry->sql)
		pfree(entry->sql);
	entry->sql = NULL;
	entry->times = 0;
	entry->state = RA_PREPARED_NOT;
}

void
ra_prepared_free(RaPreparedSet *set)
{
	if (set == NULL)
		return;
	for (int i = 0; i < SIZE; i++)
	{
		if (set->entries[i].sql)
			pfree(set->entries[i].sql);
	}
	pfree(set);
}
