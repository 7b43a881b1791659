/*
 * sessionfile.h
 *	  Where the broker's session is described for its successor.
 */
#ifndef RA_SESSIONFILE_H
#define RA_SESSIONFILE_H

#include "postgres.h"

/* In palloc'd memory; NULL: there is none */
extern char *ra_session_file_read(void);

/* False: it could not be written, see errno.  Throws nothing. */
extern bool ra_session_file_write(const char *description);

extern void ra_session_file_remove(void);

#endif							/* RA_SESSIONFILE_H */
