/*
 * prepared.h
 *	  Statements that come again and again are prepared on their connection.
 */
#ifndef RA_PREPARED_H
#define RA_PREPARED_H

#include "postgres.h"

typedef enum RaPreparedState
{
	RA_PREPARED_NOT,			/* not come often enough yet -> LATER */
	RA_PREPARED_NEVER,			/* it must not be */
	RA_PREPARED_LATER,			/* to be prepared with the message that has it next -> DONE, NOT */
	RA_PREPARED_DONE			/* the node knows it by its name -> NOT */
} RaPreparedState;

typedef struct RaPrepared
{
	uint64		hash;			/* of the text; 0: unused */
	uint32		times;			/* it has come, and has run */
	RaPreparedState state;
	char	   *sql;			/* NULL if NOT or NEVER */
	char		name[32];
} RaPrepared;

/* Those of a connection.  NULL: none yet. */
typedef struct RaPreparedSet RaPreparedSet;

/*
 * The entry of a statement that is about to be sent, or NULL if it gets none.  It stays in its place until the
 * next call for the connection.  ERROR for want of memory.
 */
extern RaPrepared *ra_prepared_find(RaPreparedSet **set, const char *sql);

/* It has run */
extern void ra_prepared_ran(RaPrepared *entry);

/* What it was prepared as is not used any more; it may be prepared anew */
extern void ra_prepared_start_over(RaPrepared *entry);

/* With the connection */
extern void ra_prepared_free(RaPreparedSet *set);

#endif							/* RA_PREPARED_H */
