/*
 * ask.h
 *	  Questions of the server itself to other nodes, not of a user.
 */
#ifndef RA_ASK_H
#define RA_ASK_H

#include "postgres.h"

/*
 * Asks a node, with one parameter, for one row of so many columns (answers[], as text,
 * NULL for SQL NULL).  As the present user if he, or PUBLIC, has a user mapping for the node
 * that works, else as somebody who has one.  False, with a reason, if there is no answer within
 * timeout milliseconds (and the time that connecting takes).  In a transaction; an ERROR only
 * when cancelled.
 */
extern bool ra_ask_node(const char *node, const char *sql, const char *param, int timeout,
						char **answers, int n, char **reason);

#endif							/* RA_ASK_H */
