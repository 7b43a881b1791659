/*
 * prepared.h
 *	  Statements that come again and again are prepared on their connection.
 */
#ifndef RA_PREPARED_H
#define RA_PREPARED_H

#include "postgres.h"

typedef struct RaPrepared
{
	uint64		hash;			/* of the text; 0: unused */
	uint32		times;			/* it has come and done what is counted */
	uint64		last;			/* time, in order */
	bool		made;			/* the node knows it by its name */
	bool		never;			/* it must not be prepared */
	char	   *sql;			/* once it is to be made */
	char		name[24];
} RaPrepared;

/* Those of a connection.  All zero: none yet. */
typedef struct RaPreparedSet RaPreparedSet;

/*
 * The statement's entry, or NULL if it has none and gets none.  *use: it is prepared by its name, or, unless
 * made, shall be made with this message.  Never throws once *set is there, but for want of memory.
 */
extern RaPrepared *ra_prepared_find(RaPreparedSet **set, const char *sql, bool *use);

/* With the connection */
extern void ra_prepared_free(RaPreparedSet *set);

#endif							/* RA_PREPARED_H */
