/*
 * queue.h
 *	  The event queue: three rotating tables, read by commit visibility.
 */
#ifndef RA_QUEUE_H
#define RA_QUEUE_H

#include "postgres.h"

#include "access/htup.h"
#include "storage/itemptr.h"
#include "utils/snapshot.h"

#define RA_QUEUE_TABLES 3

/* A row that is being written */
typedef struct RaQueueRow
{
	HeapTupleData tuple;
	char	   *data;			/* to be filled by the caller; NULL: it has none */
} RaQueueRow;

/* Make a row with room for so many bytes of data, 0: none; it is palloc'd */
extern void ra_queue_make_row(RaQueueRow *row, Size len);

/* Append it as an event in the current transaction; frees it */
extern void ra_queue_append(RaQueueRow *row, int32 stream_id, int32 layout_id, char op);

/* The stream's current capture layout as of now, or 0 */
extern int32 ra_queue_stream_layout(int32 stream_id);

/* OID of a table of schema risk_alert, InvalidOid if there is none */
extern Oid	ra_extension_relid(const char *name);

/*
 * Which transactions had ended: top-level transactions only, with full 64-bit
 * ids, so that it can be kept for as long as one likes.
 */
typedef struct RaXidSet
{
	uint64		xmin;			/* all below have ended */
	uint64		xmax;			/* none from here on has */
	int			n;
	uint64	   *running;		/* sorted, those between that had not */
} RaXidSet;

/* The 64-bit form of a transaction id not older than 2^31 transactions */
extern uint64 ra_widen_xid(TransactionId xid);
extern RaXidSet *ra_xidset_from_snapshot(Snapshot snapshot, MemoryContext cxt);
extern RaXidSet *ra_xidset_from_text(const char *text, MemoryContext cxt);
extern char *ra_xidset_to_text(const RaXidSet *set);
extern bool ra_xidset_ended(const RaXidSet *set, uint64 xid);

/* A place in the queue */
typedef struct RaQueueItem
{
	int64		arrived;
	uint8		table;
	ItemPointerData tid;
} RaQueueItem;

typedef struct RaQueueEvent
{
	int64		arrived;
	uint64		xid;
	int32		stream_id;
	int32		layout_id;
	char		op;
	char	   *data;			/* may be NULL */
	uint32		len;
} RaQueueEvent;

/* The reader's memory of what it has seen; one per worker */
typedef struct RaQueueReader RaQueueReader;

extern RaQueueReader *ra_queue_reader(MemoryContext cxt);

/* Forget what was seen: everything is looked at again next time */
extern void ra_queue_reader_reset(RaQueueReader *reader);

/*
 * May there be rows that the worker has not seen as those of an ended transaction?  False once
 * it has, if nothing was written since.
 */
extern bool ra_queue_unsettled(void);

/*
 * Collect, ordered by arrival, the events visible in snapshot (whose running transactions are now)
 * that low does not cover; with high, only those that high covers and that
 * arrived after done_through.  The snapshot must have been taken before the call.  Result in
 * the current context.
 */
extern RaQueueItem *ra_queue_collect(RaQueueReader *reader, Snapshot snapshot, const RaXidSet *now,
									 const RaXidSet *low, const RaXidSet *high, int64 done_through,
									 uint64 *nitems);

/* How the tables are found in a further transaction */
typedef enum RaQueueState
{
	RA_QUEUE_SAME,
	RA_QUEUE_MOVED,				/* rewritten since (VACUUM FULL, TRUNCATE): collect again */
	RA_QUEUE_GONE				/* with the extension */
} RaQueueState;

/* Open the tables for ra_queue_fetch in a further transaction */
extern RaQueueState ra_queue_open(RaQueueReader *reader);

/* Read the event at that place; data is palloc'd */
extern void ra_queue_fetch(RaQueueReader *reader, const RaQueueItem *item, RaQueueEvent *event);

/* Release the tables and pins that collect and fetch hold; before the transaction ends */
extern void ra_queue_release(RaQueueReader *reader);

/* Would ra_queue_rotate() have something to do? */
extern bool ra_queue_rotation_due(RaQueueReader *reader);

/*
 * Switch tables if the current one is large, and truncate those whose events
 * are all covered by low, which must be what is stored durably.  Runs in the
 * caller's transaction; never waits for a lock.
 */
extern void ra_queue_rotate(RaQueueReader *reader, const RaXidSet *low);

/* Throw away all events (a database copied from a template); waits for locks */
extern void ra_queue_clear(void);

#endif							/* RA_QUEUE_H */
