/*
 * depend.h
 *	  What a stream's configuration depends on, and what follows from changes.
 */
#ifndef RA_DEPEND_H
#define RA_DEPEND_H

#include "postgres.h"

/*
 * After a change of a stream's configuration: validate it, renew which columns
 * are captured and what the capture trigger depends on, and make all processes
 * reload it.  The current user must be a superuser.
 */
extern void ra_stream_refresh(int32 stream_id);

/*
 * Does the stream need a refresh although nobody has changed it?  So it is after
 * dump and restore or pg_upgrade, which lose dependencies and may number columns
 * anew.
 */
extern bool ra_stream_needs_refresh(int32 stream_id);

/* Make all processes reload the stream when this transaction commits */
extern void ra_stream_invalidate(int32 stream_id);

/*
 * Before and after a command that renames something, or moves it to another schema:
 * the texts that name it are rewritten.  relid: the table one of whose columns is renamed
 * (its children's are then, too); InvalidOid: anything else (function, type,
 * operator, schema, ...), the texts of all streams are looked at.  begin may
 * return NULL (nothing to do), which end takes.
 */
extern void *ra_rename_begin(Oid relid);
extern void ra_rename_end(void *state);

/*
 * Before the table of a stream is locked for ra_rename_begin(): lock the stream's
 * row, lest whoever changes the stream waits for the table, and we for him.
 */
extern void ra_rename_lock(int32 stream_id);

#endif							/* RA_DEPEND_H */
