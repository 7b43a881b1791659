/*
 * announce.c
 *	  Configuration that changes together with events.
 *
 * A transaction's rows can be seen a moment before its invalidations are sent.
 * A worker that takes its snapshot in that moment would judge events by a list or
 * a rule as it was before the transaction that wrote both.  So such a
 * transaction tells in shared memory, before it commits, that it is about to,
 * and, after its invalidations are sent, that it has; a worker whose snapshot sees
 * it waits for the latter.  That takes microseconds, and hardly ever happens.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "engine/announce.h"
#include "shmem.h"

/* nobody waits longer for a process that doesn't get to run */
#define LONGEST_WAIT_US 1000000

#define PAUSE_US 20

static bool changed = false;
static pg_atomic_uint32 *announced = NULL;

static void xact_callback(XactEvent event, void *arg);
static void release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg);

void
ra_announce_change(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(xact_callback, NULL);
		RegisterResourceReleaseCallback(release_callback, NULL);
		registered = true;
	}
	changed = true;
}

static void
xact_callback(XactEvent event, void *arg)
{
	TransactionId xid;
	RaDatabase *db;
	int			i;

	if (event != XACT_EVENT_PRE_COMMIT || !changed || announced != NULL)
		return;
	xid = GetTopTransactionIdIfAny();
	db = ra_my_database();
	if (db == NULL || !TransactionIdIsValid(xid))
		return;
	/* without a free place, what this is about may happen */
	for (i = 0; i < RA_MAX_CHANGING; i++)
	{
		uint32		none = InvalidTransactionId;

		if (pg_atomic_compare_exchange_u32(&db->changing[i], &none, xid))
		{
			announced = &db->changing[i];
			break;
		}
	}
}

/* In this phase invalidations have been sent */
static void
release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level)
		return;
	changed = false;
	if (announced != NULL)
	{
		pg_atomic_write_u32(announced, InvalidTransactionId);
		announced = NULL;
	}
}

void
ra_await_announcements(Snapshot snapshot)
{
	RaDatabase *db = ra_my_database();
	int			i;

	for (i = 0; db != NULL && i < RA_MAX_CHANGING; i++)
	{
		TransactionId xid = pg_atomic_read_u32(&db->changing[i]);
		int			waited = 0;

		if (!TransactionIdIsValid(xid) || XidInMVCCSnapshot(xid, snapshot))
			continue;
		while (pg_atomic_read_u32(&db->changing[i]) == xid && waited < LONGEST_WAIT_US)
		{
			pg_usleep(PAUSE_US);
			waited += PAUSE_US;
		}
	}

	/*
	 * Whether there are messages is looked at without a lock; not before the places
	 * above were seen to be free.
	 */
	pg_memory_barrier();
	AcceptInvalidationMessages();
}
