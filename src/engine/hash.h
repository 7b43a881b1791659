/*
 * hash.h
 *	  Hashes that stand for values: of keys, entities, and distinct values.
 */
#ifndef RA_HASH_H
#define RA_HASH_H

#include "postgres.h"

#include "fmgr.h"

/*
 * Make *finfo a function (value, int64 seed) -> 64-bit hash for values of the
 * base type: equal values hash equal, and different values hash differently as
 * a matter of chance only, whoever chose them.  The type must have an extended
 * hash function.
 */
extern void ra_hash_lookup(Oid type, FmgrInfo *finfo, MemoryContext cxt);

#endif							/* RA_HASH_H */
