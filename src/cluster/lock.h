/*
 * lock.h
 *	  Advisory locks of the cluster, as sessions use them.
 */
#ifndef RA_LOCK_H
#define RA_LOCK_H

#include "postgres.h"

#include "access/xact.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "cluster/locktable.h"

/* The name and its digest; ERROR if it is too long */
extern void ra_lock_name_text(RaLockName *name, RaLockKey *key, const text *t);
extern void ra_lock_name_number(RaLockName *name, RaLockKey *key, int64 number);

/*
 * What users call the lock, in this database's encoding.  Names come from other
 * databases and nodes too: bytes of one that can't be had in it are shown as \xNN.
 */
extern char *ra_lock_name_display(const RaLockName *name);

/* How a session wants a lock */
typedef struct RaLockRequest
{
	bool		exclusive;
	bool		session;		/* else until the end of the transaction */
	bool		nowait;
	int64		timeout_us;		/* -1: none */
	uint64		deadline;		/* of ra_boottime(), by timeout_us and lock_timeout; 0: none */
} RaLockRequest;

/* Takes the lock, and gives the fencing token; false: not available now (nowait) */
extern bool ra_lock_acquire(const RaLockName *name, const RaLockKey *key,
							const RaLockRequest *wanted, Numeric *token);

/*
 * Undoes one request of the session kind in this mode.  False, with a warning, if
 * there is none, or the lock was lost.
 */
extern bool ra_lock_release(const RaLockName *name, const RaLockKey *key, bool exclusive);
extern void ra_lock_release_all(void);

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
