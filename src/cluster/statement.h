/*
 * statement.h
 *	  What a statement for another node begins with.
 */
#ifndef RA_STATEMENT_H
#define RA_STATEMENT_H

/*
 * Would the statement end the branch's transaction, or disturb its savepoints?  What it begins
 * with is all that matters.  *writes: it writes where it affects rows.  *notifies: it is one that
 * PREPARE TRANSACTION refuses, but takes no transaction ID.  *deallocates: it may take our own
 * prepared statements away.  They are false before.
 */
extern bool ra_control_statement(const char *sql, bool *writes, bool *notifies, bool *deallocates);

/*
 * Does the text alone say of which types its constants and parameters are?  That is, it has no string constant, and
 * each parameter is followed by its type: $1::int.
 */
extern bool ra_fixed_types(const char *sql);

#endif							/* RA_STATEMENT_H */
