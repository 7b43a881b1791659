/*
 * prepared.c
 *	  Statements that come again and again are prepared on their connection.
 *
 * Parsing and planning an UPDATE of one row takes a node about as long as running it.  So a text that has come to
 * a connection some times, with parameters or without, is prepared there from then on, as drivers do
 * for statements of their clients.  Texts that are put together with their values never come
 * again; they only pass through the table of what has come lately.
 *
 * Only for what a node can't refuse to run again: INSERT, UPDATE, DELETE and MERGE without
 * RETURNING, since the result of a prepared statement must not change its columns.  Who calls
 * (branch.c) says which have run, and which must not be prepared any more because that has failed.
 *
 * Nothing is taken back before the connection is closed: DEALLOCATE of what is not there would fail
 * the transaction it is said in.  So a connection has up to MAX_MADE of them, which come first.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "cluster/prepared.h"

#define SIZE 64					/* texts that have come lately */
#define MAX_MADE 48				/* of these */
#define MAX_LENGTH 8192			/* of a text, in bytes */

/* times that a text comes before it is prepared: less often, it would cost more than it saves */
#define TIMES 3

struct RaPreparedSet
{
	RaPrepared	entries[SIZE];
	int			nmade;			/* or to be made */
	uint64		clock;
};

RaPrepared *
ra_prepared_find(RaPreparedSet **set, const char *sql, bool *use)
{
	size_t		len = strlen(sql);
	RaPrepared *oldest = NULL;
	uint64		hash;
	int			i;

	*use = false;
	if (len > MAX_LENGTH)
		return NULL;
	if (*set == NULL)
		*set = MemoryContextAllocZero(TopMemoryContext, sizeof(RaPreparedSet));
	hash = hash_bytes_extended((const unsigned char *) sql, (int) len, 0) | 1;
	for (i = 0; i < SIZE; i++)
	{
		RaPrepared *e = &(*set)->entries[i];

		if (e->hash == hash)
			break;
		if (e->sql == NULL && (oldest == NULL || e->last < oldest->last))
			oldest = e;
	}
	if (i == SIZE)
	{
		/* places of the made ones stay, so there is one */
		memset(oldest, 0, sizeof(RaPrepared));
		oldest->hash = hash;
		oldest->last = ++(*set)->clock;
		return oldest;
	}

	oldest = &(*set)->entries[i];
	oldest->last = ++(*set)->clock;
	if (oldest->never || oldest->times < TIMES)
		return oldest;
	if (oldest->sql == NULL)
	{
		if ((*set)->nmade == MAX_MADE)
			return oldest;
		oldest->sql = MemoryContextStrdup(TopMemoryContext, sql);
		snprintf(oldest->name, sizeof(oldest->name), "risk_alert_%d", ++(*set)->nmade);
	}
	/* two texts with one hash */
	if (strcmp(oldest->sql, sql) != 0)
		return NULL;
	*use = true;
	return oldest;
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
