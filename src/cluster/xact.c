/*
 * xact.c
 *	  What the cluster does when (sub)transactions end, in order.
 *
 * PostgreSQL calls callbacks in the reverse order of their registration.  Ours is
 * registered when the library is loaded, so that those which sessions register later (postgres_fdw's, say, which
 * commits elsewhere, and may fail) come before it: what is decided here can't be undone.
 * Libraries before this one in shared_preload_libraries may come after it.  There is one
 * callback, and the order stands here:
 *
 *	- Before commit: is a lock lost?  Then branches prepare, and are decided (with
 *	  another look at the locks in between).  Last, changes of configuration are announced: workers
 *	  wait for a transaction that has been.
 *	- After commit or abort: the branches end.  Only then are their connections anybody's,
 *	  and only then the locks that have protected what they did.
 */
#include "postgres.h"

#include "access/xact.h"

#include "cluster/connection.h"
#include "cluster/global.h"
#include "cluster/lock.h"
#include "cluster/xact.h"
#include "engine/announce.h"

static void xact_callback(XactEvent event, void *arg);
static void subxact_callback(SubXactEvent event, SubTransactionId subid,
							 SubTransactionId parent, void *arg);

void
ra_xact_register(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			ra_lock_xact(event);
			ra_global_xact(event);
			ra_announce_xact(event);
			break;
		default:
			ra_global_xact(event);
			ra_conn_xact(event);
			ra_lock_xact(event);
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	ra_global_subxact(event);
	ra_conn_subxact(event);
	ra_lock_subxact(event, subid, parent);
}
