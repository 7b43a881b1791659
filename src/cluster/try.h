/*
 * try.h
 *	  Steps that may fail, where the failure is an answer and not an ERROR.
 */
#ifndef RA_TRY_H
#define RA_TRY_H

#include "postgres.h"

/*
 * Runs step(arg) in a subtransaction and in the caller's memory context, where what it makes
 * stays.  NULL if it has succeeded; otherwise what it did to the transaction is undone (who the
 * current user is, too; connections that it took are given back), and the result is its error, in
 * the caller's memory context.  Only a cancellation is thrown on.
 */
extern ErrorData *ra_try(void (*step) (void *arg), void *arg);

/* An error's message and detail, on one line */
extern char *ra_error_reason(const char *message, const char *detail);

#endif							/* RA_TRY_H */
