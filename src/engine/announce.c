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
 *
 * A global transaction commits its branches in between (cluster/xact.c), which takes much longer.
 * So it announces after all that it has to wait for before its commit, and sends its
 * invalidations itself after it, before it goes on.
 *
 * One that is prepared tells so, too: its rows can be seen a moment before
 * COMMIT PREPARED sends its invalidations.  It has its transaction ID locked until
 * after that, so a worker whose snapshot sees it waits for this lock.  What is prepared when
 * the worker starts may have been announced in an earlier life of the server: any
 * may be such a transaction.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
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

static void announce(TransactionId xid);
static void announce_prepared(RaDatabase *db, TransactionId xid);
static void find_prepared(RaDatabase *db);
static void release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg);

void
ra_announce_change(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterResourceReleaseCallback(release_callback, NULL);
		registered = true;
	}
	changed = true;
}

void
ra_announce_xact(XactEvent event)
{
	TransactionId xid = InvalidTransactionId;

	if (changed)
		xid = GetTopTransactionIdIfAny();
	if (!TransactionIdIsValid(xid) || ra_my_database() == NULL)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
		announce(xid);
	else if (event == XACT_EVENT_PRE_PREPARE)
		announce_prepared(ra_my_database(), xid);
}

static void
announce(TransactionId xid)
{
	RaDatabase *db = ra_my_database();
	int			i;

	/* without a free place, what this is about may happen */
	for (i = 0; i < RA_MAX_CHANGING && announced == NULL; i++)
	{
		uint32		none = InvalidTransactionId;

		if (pg_atomic_compare_exchange_u32(&db->changing[i], &none, xid))
			announced = &db->changing[i];
	}
}

/* It stays until a worker has seen the transaction's end.  As above, without a place. */
static void
announce_prepared(RaDatabase *db, TransactionId xid)
{
	int			i;

	for (i = 0; i < RA_MAX_CHANGING; i++)
	{
		uint32		there = pg_atomic_read_u32(&db->prepared[i]);

		if (there == xid)
			break;

		/* a database that no worker serves has old ones */
		if ((!TransactionIdIsValid(there) || !TransactionIdIsInProgress(there)) &&
			pg_atomic_compare_exchange_u32(&db->prepared[i], &there, xid))
			break;
	}
}

/*
 * The transaction has committed, and goes on to do what may take long: others
 * must not wait for that.  What PostgreSQL has still to do is less by that.
 */
void
ra_announce_sent(void)
{
	if (announced == NULL)
		return;
	AtEOXact_Inval(true);
	pg_atomic_write_u32(announced, InvalidTransactionId);
	announced = NULL;
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

/* Once: what was prepared before this process could have been told */
static void
find_prepared(RaDatabase *db)
{
	static bool done = false;
	uint64		i;

	if (done || db == NULL || max_prepared_xacts == 0)
		return;
	SPI_connect();
	if (SPI_execute("SELECT p.transaction FROM pg_catalog.pg_prepared_xact() AS p (transaction, gid, prepared, ownerid, dbid)"
					" WHERE p.dbid OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list prepared transactions");
	for (i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		announce_prepared(db, DatumGetTransactionId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
	}
	SPI_finish();
	done = true;
}

void
ra_await_announcements(Snapshot snapshot)
{
	RaDatabase *db = ra_my_database();
	int			i;

	find_prepared(db);
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

	for (i = 0; db != NULL && i < RA_MAX_CHANGING; i++)
	{
		uint32		xid = pg_atomic_read_u32(&db->prepared[i]);

		if (!TransactionIdIsValid(xid) || XidInMVCCSnapshot(xid, snapshot))
			continue;
		XactLockTableWait(xid, NULL, NULL, XLTW_None);
		(void) pg_atomic_compare_exchange_u32(&db->prepared[i], &xid, InvalidTransactionId);
	}

	/*
	 * Whether there are messages is looked at without a lock; not before the places
	 * above were seen to be free.
	 */
	pg_memory_barrier();
	AcceptInvalidationMessages();
}
