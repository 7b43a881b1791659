/*
 * reason.h
 *	  Reason templates: text with {names} in it.
 */
#ifndef RA_REASON_H
#define RA_REASON_H

#include "postgres.h"

#include "engine/expr.h"

/* Literal text, then perhaps a value */
typedef struct RaReasonPiece
{
	char	   *literal;		/* never NULL */
	AttrNumber	attno;			/* a column, or 0 */
	int			feature;		/* index in RaNames.features, or -1 */
} RaReasonPiece;

/*
 * List of RaReasonPiece; ERROR with position if a name isn't known, or owner (if
 * valid) may not read a column.
 */
extern List *ra_reason_parse(const RaNames *names, const char *text, Oid owner);

/* The template that parses to these pieces */
extern char *ra_reason_print(const RaNames *names, List *pieces);

#endif							/* RA_REASON_H */
