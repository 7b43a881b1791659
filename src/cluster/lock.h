/*
 * lock.h
 *	  Advisory locks of the cluster, as sessions use them.
 */
#ifndef RA_LOCK_H
#define RA_LOCK_H

#include "postgres.h"

#include "access/xact.h"
#include "cluster/locktable.h"

/* The name and its digest; ERROR if it is too long */
extern void ra_lock_name_text(RaLockName *name, RaLockKey *key, const text *t);
extern void ra_lock_name_number(RaLockName *name, RaLockKey *key, int64 number);

/* What users call the lock, in this database's encoding */
extern char *ra_lock_name_display(const RaLockName *name);

/* What this session holds */
typedef struct RaHeldInfo
{
	bool		exclusive;
	bool		lost;			/* by the end of the coordination session, or may be by now */
	uint64		generation;
	uint64		token;
	int			sequence;
} RaHeldInfo;

/* Does this session hold the lock? */
extern bool ra_lock_held(const RaLockKey *key, RaHeldInfo *info);

/* ERROR if a lock that this transaction holds is lost */
extern void ra_lock_check_xact(void);

/* Called by xact.c */
extern void ra_lock_xact(XactEvent event);
extern void ra_lock_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent);

#endif							/* RA_LOCK_H */
