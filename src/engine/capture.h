/*
 * capture.h
 *	  From a user's statement into the queue.
 */
#ifndef RA_CAPTURE_H
#define RA_CAPTURE_H

#include "postgres.h"

#include "access/attnum.h"
#include "access/tupdesc.h"

/* Kinds of captured events, as in the queue's column op */
#define RA_OP_INSERT	'I'
#define RA_OP_UPDATE	'U'
#define RA_OP_DELETE	'D'
#define RA_OP_FORGET	'T'		/* TRUNCATE and the like: windows are void */

/*
 * Values larger than this (bytes, uncompressed) are not carried by an event;
 * the worker reads them from the table.
 */
#define RA_CAPTURE_MAX_VALUE 8192

/* Enqueue a FORGET event for the stream that watches this root table, if any */
extern void ra_capture_truncate(Oid root_relid);

/* The columns that events of one layout carry */
typedef struct RaLayout
{
	int32		layout_id;
	int			n;
	AttrNumber *attnums;		/* of the root table */
	TupleDesc	desc;			/* of the image: one attribute per column */
} RaLayout;

/* Read a layout into the given context; NULL if there is none of that id */
extern RaLayout *ra_layout_load(int32 layout_id, MemoryContext cxt);

/*
 * What a row image holds.  SUPERSEDED: its transaction had updated or deleted
 * the row already when it was captured, and that was captured first (a trigger
 * of the table does so, fired before ours); so the image is of no use but for its key.
 */
typedef enum RaImage
{
	RA_IMAGE_COMPLETE,
	RA_IMAGE_INCOMPLETE,		/* some values were too large to be carried: NULL */
	RA_IMAGE_SUPERSEDED
} RaImage;

/*
 * Unpack one row image at *data (moved behind it) into arrays of layout->n;
 * pass-by-reference values point into memory of the current context.
 */
extern RaImage ra_image_unpack(const RaLayout *layout, const char **data, const char *end,
							Datum *values, bool *nulls);

#endif							/* RA_CAPTURE_H */
