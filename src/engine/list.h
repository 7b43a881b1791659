/*
 * list.h
 *	  Named lists of values, for conditions: in_list(list, value).
 */
#ifndef RA_LIST_H
#define RA_LIST_H

#include "postgres.h"

/*
 * Is the value (not terminated) on the list and not expired, as of the current
 * transaction's start?  ERROR if there is no such list.
 */
extern bool ra_in_list_lookup(const char *list, const char *value, int len);

#endif							/* RA_LIST_H */
