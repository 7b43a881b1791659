/*
 * queue.c
 *	  The event queue: three rotating tables, read by commit visibility.
 *
 * Writing.  capture.c appends rows to the current one of the tables queue_0 to
 * queue_2 in the user's transaction.  There is no index, and pages are never
 * reused before a TRUNCATE.  Which table is current is a hint in shared memory:
 * a row in another table is found as well.
 *
 * Reading.  "Larger than the last id seen" loses events, because ids commit
 * out of order.  Instead, as PgQ does, a tick takes a snapshot, and its events
 * are the rows visible now whose transaction had not ended at the previous
 * tick.  Rows carry their top-level transaction id, so the previous tick is just
 * an RaXidSet, which is stored in risk_alert.queue_position.
 *
 * A transaction that runs for hours keeps its own rows back and nothing else.
 * To make that cheap as well, the reader remembers per page whether
 *	 - there is nothing unread in it (DONE),
 *	 - all its unread rows belong to one transaction that runs (that xid), or
 *	 - it has to be looked at (OPEN).
 * That alone would miss a row written to a DONE page later.  So a writer, after
 * it has written a row and thus before it commits, notes the block in shared
 * memory (the lowest one, by table), and the reader, after it has taken its snapshot,
 * takes the note away and looks at all pages from there on.  For every row that the snapshot
 * sees: its note was made before the snapshot, so it is taken now, or it was taken
 * by an earlier tick, which found the row on its page and remembers it.  Rows
 * go to the end of a table, but for sessions that fill a page begun earlier, so
 * the notes point near the end.
 *
 * Rotation.  When the current table has grown large and another one is empty,
 * the hint moves on.  A table is truncated when its lock can be had at once (so no transaction
 * that wrote to it is open, prepared ones included) and every row in it is
 * either dead or covered by the durably stored position.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/tablecmds.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "engine/queue.h"
#include "guc.h"
#include "shmem.h"

/* the columns before it: QueueRow */
#define Anum_queue_data		6
#define Natts_queue			6

#define Anum_stream_id		1
#define Anum_stream_layout	10

/* states of a page; any other value is the one xid it waits for */
#define PAGE_OPEN			UINT64CONST(0)
#define PAGE_DONE			PG_UINT64_MAX

typedef struct QueueTable
{
	Oid			relid;
	Oid			storage;		/* relfilenode: changes with TRUNCATE */
	Relation	rel;			/* open during a tick */
	BlockNumber nblocks;		/* pages known so far */
	BlockNumber nalloc;
	uint64	   *pages;			/* state of each */
	BlockNumber first;			/* all before are DONE */
	BlockNumber touched;		/* look at all from here on, whatever their state */
} QueueTable;

struct RaQueueReader
{
	MemoryContext cxt;
	QueueTable	tables[RA_QUEUE_TABLES];
	Buffer		buffer;			/* pinned by ra_queue_fetch */
	int			buffer_table;
};

static Oid	queue_relids[RA_QUEUE_TABLES];
static bool queue_relids_valid = false;
static uint64 queue_invalidations = 0;

static void note_block(int table, BlockNumber block);
static Oid	queue_relid(int i);
static void queue_invalidate(Datum arg, Oid relid);
static void forget_pages(RaQueueReader *reader);
static void table_collect(RaQueueReader *reader, int t, Snapshot snapshot, const RaXidSet *now,
						  const RaXidSet *low, const RaXidSet *high, int64 done_through,
						  RaQueueItem **items, uint64 *n, uint64 *nalloc);
static bool table_covered(Relation rel, const RaXidSet *low);
static int	item_cmp(const void *a, const void *b);

/*
 * The fixed part of a row.  All four columns are NOT NULL and aligned, so it
 * can be read from the page as it is.
 */
typedef struct QueueRow
{
	int64		arrived;
	uint64		xid;
	int32		stream_id;
	int32		layout_id;
	char		op;
	/* data follows: at once if its length takes a byte, else aligned */
} QueueRow;

#define QUEUE_ROW_SIZE		(offsetof(QueueRow, op) + sizeof(char))

static inline QueueRow *
queue_row(HeapTupleHeader tuple)
{
	return (QueueRow *) ((char *) tuple + tuple->t_hoff);
}

/*
 * What heap_form_tuple() would make, in a fraction of its time.  This runs once
 * for each row that a user writes.
 */
void
ra_queue_make_row(RaQueueRow *row, Size len)
{
	Size		hoff = MAXALIGN(SizeofHeapTupleHeader + (len == 0 ? BITMAPLEN(Natts_queue) : 0));
	Size		at = hoff + QUEUE_ROW_SIZE;
	bool		is_short = len + VARHDRSZ_SHORT <= VARATT_SHORT_MAX;
	HeapTupleHeader tuple;

	if (len > 0 && !is_short)
		at = INTALIGN(at);
	row->tuple.t_len = at;
	if (len > 0)
		row->tuple.t_len += (is_short ? VARHDRSZ_SHORT : VARHDRSZ) + len;
	row->tuple.t_data = tuple = palloc(row->tuple.t_len);
	ItemPointerSetInvalid(&row->tuple.t_self);
	row->tuple.t_tableOid = InvalidOid;

	/* the header, the fixed part and what stands between it and the data */
	memset(tuple, 0, at);
	ItemPointerSetInvalid(&tuple->t_ctid);
	HeapTupleHeaderSetNatts(tuple, Natts_queue);
	tuple->t_hoff = (uint8) hoff;
	if (len == 0)
	{
		tuple->t_infomask = HEAP_HASNULL;
		tuple->t_bits[0] = (1 << (Natts_queue - 1)) - 1;
		row->data = NULL;
	}
	else
	{
		char	   *value = (char *) tuple + at;

		tuple->t_infomask = HEAP_HASVARWIDTH;
		if (is_short)
			SET_VARSIZE_SHORT(value, len + VARHDRSZ_SHORT);
		else
			SET_VARSIZE(value, len + VARHDRSZ);
		row->data = VARDATA_ANY(value);
	}
}

void
ra_queue_append(RaQueueRow *row, int32 stream_id, int32 layout_id, char op)
{
	RaDatabase *db = ra_my_database();
	int			current = db ? pg_atomic_read_u32(&db->queue_current) % RA_QUEUE_TABLES : 0;
	Relation	rel = table_open(queue_relid(current), RowExclusiveLock);
	QueueRow   *fixed = queue_row(row->tuple.t_data);

	fixed->arrived = ra_arrival();
	fixed->xid = U64FromFullTransactionId(GetTopFullTransactionId());
	fixed->stream_id = stream_id;
	fixed->layout_id = layout_id;
	fixed->op = op;
	heap_insert(rel, &row->tuple, GetCurrentCommandId(true), HEAP_INSERT_SKIP_FSM, NULL);
	note_block(current, ItemPointerGetBlockNumber(&row->tuple.t_self));
	pfree(row->tuple.t_data);

	/* the lock stays until commit: it tells the reader that rows may come */
	table_close(rel, NoLock);
}

/*
 * Tell the reader where a row was written.  The slot is looked up only now: if
 * there is none yet, its worker has not begun, and will read everything.
 */
static void
note_block(int table, BlockNumber block)
{
	RaDatabase *db = ra_my_database();
	uint32		lowest;

	if (db == NULL)
		return;

	/*
	 * The row is on its page before the note is read: a reader that takes a
	 * note which covers the block looks at the page after that.
	 */
	pg_memory_barrier();
	lowest = pg_atomic_read_u32(&db->queue_touched[table]);
	while (block < lowest &&
		   !pg_atomic_compare_exchange_u32(&db->queue_touched[table], &lowest, block))
		;
}

bool
ra_queue_unsettled(void)
{
	RaDatabase *db = ra_my_database();
	int			t;

	if (db == NULL)
		return true;
	pg_memory_barrier();		/* what has been committed is visible */
	for (t = 0; t < RA_QUEUE_TABLES; t++)
	{
		if (pg_atomic_read_u32(&db->queue_touched[t]) != PG_UINT32_MAX)
			return true;
	}
	pg_read_barrier();			/* a note is taken after that was set */
	return pg_atomic_read_u32(&db->queue_unsettled) != 0;
}

int32
ra_queue_stream_layout(int32 stream_id)
{
	Oid			relid = ra_extension_relid("stream");
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	int32		layout = 0;

	if (!OidIsValid(relid))
		return 0;
	rel = table_open(relid, AccessShareLock);
	ScanKeyInit(&key, Anum_stream_id, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(stream_id));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		d = heap_getattr(tuple, Anum_stream_layout, RelationGetDescr(rel), &isnull);

		if (!isnull)
			layout = DatumGetInt32(d);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return layout;
}

Oid
ra_extension_relid(const char *name)
{
	Oid			schema = get_namespace_oid("risk_alert", true);

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

uint64
ra_widen_xid(TransactionId xid)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

	return next - (uint32) ((uint32) next - (uint32) xid);
}

/*
 * Transactions as of a snapshot.  32-bit ids in it are close to the next id to
 * be given out, which tells their epoch.
 */
RaXidSet *
ra_xidset_from_snapshot(Snapshot snapshot, MemoryContext cxt)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	RaXidSet   *set = MemoryContextAlloc(cxt, sizeof(RaXidSet));
	uint32		i;

#define WIDEN(xid) (next - (uint32) ((uint32) next - (uint32) (xid)))
	set->xmin = WIDEN(snapshot->xmin);
	set->xmax = WIDEN(snapshot->xmax);
	set->n = 0;
	set->running = NULL;
	if (snapshot->xcnt > 0)
	{
		set->running = MemoryContextAlloc(cxt, snapshot->xcnt * sizeof(uint64));
		for (i = 0; i < snapshot->xcnt; i++)
			set->running[set->n++] = WIDEN(snapshot->xip[i]);
	}
#undef WIDEN
	if (set->n > 1)
		qsort(set->running, set->n, sizeof(uint64), item_cmp);
	return set;
}

/* pg_snapshot's text form: xmin:xmax:xip,xip... */
RaXidSet *
ra_xidset_from_text(const char *text, MemoryContext cxt)
{
	RaXidSet   *set = MemoryContextAllocZero(cxt, sizeof(RaXidSet));
	char	   *end;
	int			nalloc = 0;

	set->xmin = strtou64(text, &end, 10);
	if (*end == ':')
		set->xmax = strtou64(end + 1, &end, 10);
	while ((*end == ':' || *end == ',') && end[1] != '\0')
	{
		if (set->n == nalloc)
		{
			nalloc = nalloc ? nalloc * 2 : 16;
			if (set->running)
				set->running = repalloc(set->running, nalloc * sizeof(uint64));
			else
				set->running = MemoryContextAlloc(cxt, nalloc * sizeof(uint64));
		}
		set->running[set->n++] = strtou64(end + 1, &end, 10);
	}
	return set;
}

char *
ra_xidset_to_text(const RaXidSet *set)
{
	StringInfoData buf;
	int			i;

	initStringInfo(&buf);
	appendStringInfo(&buf, UINT64_FORMAT ":" UINT64_FORMAT ":", set->xmin, set->xmax);
	for (i = 0; i < set->n; i++)
		appendStringInfo(&buf, "%s" UINT64_FORMAT, i > 0 ? "," : "", set->running[i]);
	return buf.data;
}

bool
ra_xidset_ended(const RaXidSet *set, uint64 xid)
{
	int			lo = 0;
	int			hi = set->n;

	if (xid < set->xmin)
		return true;
	if (xid >= set->xmax)
		return false;
	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;

		if (set->running[mid] == xid)
			return false;
		if (set->running[mid] < xid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return true;
}

RaQueueReader *
ra_queue_reader(MemoryContext cxt)
{
	RaQueueReader *reader = MemoryContextAllocZero(cxt, sizeof(RaQueueReader));
	int			t;

	reader->cxt = cxt;
	reader->buffer = InvalidBuffer;
	for (t = 0; t < RA_QUEUE_TABLES; t++)
		reader->tables[t].touched = PG_UINT32_MAX;
	return reader;
}

void
ra_queue_reader_reset(RaQueueReader *reader)
{
	int			t;

	forget_pages(reader);
	for (t = 0; t < RA_QUEUE_TABLES; t++)
		reader->tables[t].rel = NULL;
	/* whatever was pinned or open went with its transaction */
	reader->buffer = InvalidBuffer;
}

static void
forget_pages(RaQueueReader *reader)
{
	int			t;

	for (t = 0; t < RA_QUEUE_TABLES; t++)
	{
		reader->tables[t].nblocks = 0;
		reader->tables[t].first = 0;
	}
}

RaQueueItem *
ra_queue_collect(RaQueueReader *reader, Snapshot snapshot, const RaXidSet *now,
				 const RaXidSet *low, const RaXidSet *high, int64 done_through,
				 uint64 *nitems)
{
	RaQueueItem *items = NULL;
	uint64		n = 0;
	uint64		nalloc = 0;
	bool		settled = true;
	int			t;

	/* before notes are taken: what ra_queue_unsettled() does not find in one it finds in the other */
	pg_atomic_write_u32(&ra_my_database()->queue_unsettled, 1);
	for (t = 0; t < RA_QUEUE_TABLES; t++)
	{
		table_collect(reader, t, snapshot, now, low, high, done_through,
					  &items, &n, &nalloc);
		settled = settled && reader->tables[t].first == reader->tables[t].nblocks;
	}
	if (settled)
		pg_atomic_write_u32(&ra_my_database()->queue_unsettled, 0);

	/* mostly in order already, but for sessions that write to pages of their own */
	if (n > 1)
		qsort(items, n, sizeof(RaQueueItem), item_cmp);
	*nitems = n;
	return items;
}

RaQueueState
ra_queue_open(RaQueueReader *reader)
{
	RaQueueState state = RA_QUEUE_SAME;
	int			t;

	for (t = 0; t < RA_QUEUE_TABLES; t++)
	{
		if (reader->tables[t].rel == NULL)
			reader->tables[t].rel = try_relation_open(queue_relid(t), AccessShareLock);
		if (reader->tables[t].rel == NULL)
			return RA_QUEUE_GONE;
		if (RelationGetForm(reader->tables[t].rel)->relfilenode != reader->tables[t].storage)
			state = RA_QUEUE_MOVED;
	}

	/* what is collected again is looked for on all pages of all tables */
	if (state == RA_QUEUE_MOVED)
		forget_pages(reader);
	return state;
}

void
ra_queue_fetch(RaQueueReader *reader, const RaQueueItem *item, RaQueueEvent *event)
{
	QueueTable *table = &reader->tables[item->table];
	BlockNumber block = ItemPointerGetBlockNumber(&item->tid);
	Page		page;
	ItemId		lp;
	HeapTupleData tuple;
	const QueueRow *row;
	bool		isnull;
	Datum		data;

	if (reader->buffer == InvalidBuffer || reader->buffer_table != item->table ||
		BufferGetBlockNumber(reader->buffer) != block)
	{
		if (reader->buffer != InvalidBuffer)
			ReleaseBuffer(reader->buffer);
		reader->buffer = ReadBuffer(table->rel, block);
		reader->buffer_table = item->table;

		/*
		 * A committed queue row never changes, and moves within its page only
		 * under a lock for which nobody else may have a pin.  So ours is enough
		 * to read rows, once whoever had that lock is done.
		 */
		LockBuffer(reader->buffer, BUFFER_LOCK_SHARE);
		LockBuffer(reader->buffer, BUFFER_LOCK_UNLOCK);
	}

	page = BufferGetPage(reader->buffer);
	if (ItemPointerGetOffsetNumber(&item->tid) > PageGetMaxOffsetNumber(page) ||
		!ItemIdIsNormal(PageGetItemId(page, ItemPointerGetOffsetNumber(&item->tid))))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("event (%u,%u) of queue table \"%s\" is missing", block,
						ItemPointerGetOffsetNumber(&item->tid), RelationGetRelationName(table->rel))));
	lp = PageGetItemId(page, ItemPointerGetOffsetNumber(&item->tid));
	tuple.t_data = (HeapTupleHeader) PageGetItem(page, lp);
	tuple.t_len = ItemIdGetLength(lp);
	tuple.t_tableOid = RelationGetRelid(table->rel);
	tuple.t_self = item->tid;

	row = queue_row(tuple.t_data);
	event->arrived = row->arrived;
	event->xid = row->xid;
	event->stream_id = row->stream_id;
	event->layout_id = row->layout_id;
	event->op = row->op;
	event->data = NULL;
	event->len = 0;
	data = heap_getattr(&tuple, Anum_queue_data, RelationGetDescr(table->rel), &isnull);
	if (!isnull)
	{
		bytea	   *b = DatumGetByteaPCopy(data);

		event->data = VARDATA(b);
		event->len = VARSIZE(b) - VARHDRSZ;
	}
}

void
ra_queue_release(RaQueueReader *reader)
{
	int			t;

	if (reader->buffer != InvalidBuffer)
		ReleaseBuffer(reader->buffer);
	reader->buffer = InvalidBuffer;
	for (t = 0; t < RA_QUEUE_TABLES; t++)
	{
		if (reader->tables[t].rel)
			table_close(reader->tables[t].rel, NoLock);
		reader->tables[t].rel = NULL;
	}
}

bool
ra_queue_rotation_due(RaQueueReader *reader)
{
	uint32		current = pg_atomic_read_u32(&ra_my_database()->queue_current) % RA_QUEUE_TABLES;
	int			i;

	if ((uint64) reader->tables[current].nblocks * BLCKSZ >= (uint64) ra_queue_rotate_size * 1024)
		return true;
	for (i = 0; i < RA_QUEUE_TABLES; i++)
	{
		QueueTable *table = &reader->tables[i];

		if (i != (int) current && table->nblocks > 0 && table->first == table->nblocks)
			return true;
	}
	return false;
}

void
ra_queue_rotate(RaQueueReader *reader, const RaXidSet *low)
{
	RaDatabase *db = ra_my_database();
	uint32		current = pg_atomic_read_u32(&db->queue_current) % RA_QUEUE_TABLES;
	int			i;

	if ((uint64) reader->tables[current].nblocks * BLCKSZ >= (uint64) ra_queue_rotate_size * 1024)
	{
		for (i = 1; i < RA_QUEUE_TABLES; i++)
		{
			uint32		next = (current + i) % RA_QUEUE_TABLES;

			if (reader->tables[next].nblocks == 0)
			{
				pg_atomic_write_u32(&db->queue_current, next);
				current = next;
				break;
			}
		}
	}

	for (i = 0; i < RA_QUEUE_TABLES; i++)
	{
		QueueTable *table = &reader->tables[i];
		Relation	rel;
		bool		covered;

		if (i == (int) current || table->nblocks == 0 || table->first < table->nblocks)
			continue;
		if (!ConditionalLockRelationOid(table->relid, AccessExclusiveLock))
			continue;
		rel = try_relation_open(table->relid, NoLock);
		if (rel == NULL)
			continue;
		covered = table_covered(rel, low);
		relation_close(rel, NoLock);
		if (covered)
		{
			char	   *sql = psprintf("TRUNCATE risk_alert.queue_%d", i);
			int			rc;

			SPI_connect();
			rc = SPI_execute(sql, false, 0);
			if (rc != SPI_OK_UTILITY)
				elog(ERROR, "could not truncate queue table: %s", SPI_result_code_string(rc));
			SPI_finish();
			table->nblocks = 0;
			table->first = 0;
		}
	}
}

void
ra_queue_clear(void)
{
	int			rc;

	SPI_connect();
	rc = SPI_execute("TRUNCATE risk_alert.queue_0, risk_alert.queue_1, risk_alert.queue_2", false, 0);
	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "could not truncate queue tables: %s", SPI_result_code_string(rc));
	SPI_finish();
}

static Oid
queue_relid(int i)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(queue_invalidate, (Datum) 0);
		registered = true;
	}
	if (!queue_relids_valid)
	{
		Oid			schema = get_namespace_oid("risk_alert", false);
		uint64		before = queue_invalidations;
		Oid			relids[RA_QUEUE_TABLES];
		int			t;

		for (t = 0; t < RA_QUEUE_TABLES; t++)
		{
			char		name[NAMEDATALEN];

			snprintf(name, sizeof(name), "queue_%d", t);
			relids[t] = get_relname_relid(name, schema);
			if (!OidIsValid(relids[t]))
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_TABLE),
						 errmsg("table \"risk_alert.%s\" does not exist", name),
						 errhint("Create the extension anew, or drop the trigger.")));
		}
		memcpy(queue_relids, relids, sizeof(queue_relids));
		queue_relids_valid = queue_invalidations == before;
	}
	return queue_relids[i];
}

static void
queue_invalidate(Datum arg, Oid relid)
{
	int			t;

	queue_invalidations++;
	if (relid == InvalidOid)
		queue_relids_valid = false;
	for (t = 0; t < RA_QUEUE_TABLES; t++)
		if (relid == queue_relids[t])
			queue_relids_valid = false;
}

/*
 * Look at the pages of one table that can hold something new.
 */
static void
table_collect(RaQueueReader *reader, int t, Snapshot snapshot, const RaXidSet *now,
			  const RaXidSet *low, const RaXidSet *high, int64 done_through,
			  RaQueueItem **items, uint64 *n, uint64 *nalloc)
{
	QueueTable *table = &reader->tables[t];
	BlockNumber nblocks;
	BlockNumber block;
	BlockNumber touched;
	Oid			storage;

	/* after the snapshot, before the table's size is read */
	touched = pg_atomic_exchange_u32(&ra_my_database()->queue_touched[t], PG_UINT32_MAX);
	table->touched = Min(table->touched, touched);

	if (table->rel == NULL)
		table->rel = table_open(queue_relid(t), AccessShareLock);
	table->relid = RelationGetRelid(table->rel);
	storage = RelationGetForm(table->rel)->relfilenode;
	if (storage != table->storage)
	{
		table->storage = storage;
		table->nblocks = 0;
		table->first = 0;
	}

	nblocks = RelationGetNumberOfBlocks(table->rel);
	if (nblocks > table->nalloc)
	{
		BlockNumber want = Max(nblocks + nblocks / 2, 1024);

		if (table->pages)
			table->pages = repalloc_huge(table->pages, want * sizeof(uint64));
		else
			table->pages = MemoryContextAllocHuge(reader->cxt, want * sizeof(uint64));
		table->nalloc = want;
	}
	while (table->nblocks < nblocks)
		table->pages[table->nblocks++] = PAGE_OPEN;

	for (block = Min(table->first, table->touched); block < nblocks; block++)
	{
		uint64		state = table->pages[block];
		uint64		waits_for = 0;
		bool		waits_for_many = false;
		Buffer		buffer;
		Page		page;
		OffsetNumber off,
					max;

		if (block < table->touched)
		{
			if (state == PAGE_DONE)
				continue;
			if (state != PAGE_OPEN && !ra_xidset_ended(now, state))
				continue;
		}
		CHECK_FOR_INTERRUPTS();

		buffer = ReadBuffer(table->rel, block);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		page = BufferGetPage(buffer);
		max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
		for (off = FirstOffsetNumber; off <= max; off++)
		{
			ItemId		lp = PageGetItemId(page, off);
			HeapTupleData tuple;
			const QueueRow *row;

			if (!ItemIdIsNormal(lp))
				continue;
			tuple.t_data = (HeapTupleHeader) PageGetItem(page, lp);
			tuple.t_len = ItemIdGetLength(lp);
			tuple.t_tableOid = table->relid;
			ItemPointerSet(&tuple.t_self, block, off);
			row = queue_row(tuple.t_data);

			if (ra_xidset_ended(low, row->xid))
				continue;		/* processed, or rolled back */
			if (!ra_xidset_ended(now, row->xid))
			{
				if (waits_for != 0 && waits_for != row->xid)
					waits_for_many = true;
				waits_for = row->xid;
				continue;
			}
			if (high && (!ra_xidset_ended(high, row->xid) || row->arrived <= done_through))
			{
				/* of a later tick, or processed already */
				if (!ra_xidset_ended(high, row->xid))
					waits_for_many = true;
				continue;
			}
			if (!HeapTupleSatisfiesVisibility(&tuple, snapshot, buffer))
				continue;		/* rolled back, perhaps to a savepoint */

			if (*n == *nalloc)
			{
				*nalloc = *nalloc ? *nalloc * 2 : 256;
				if (*items)
					*items = repalloc_huge(*items, *nalloc * sizeof(RaQueueItem));
				else
					*items = palloc(*nalloc * sizeof(RaQueueItem));
			}
			(*items)[*n].arrived = row->arrived;
			(*items)[*n].table = t;
			(*items)[*n].tid = tuple.t_self;
			(*n)++;
		}

		if (waits_for_many)
			table->pages[block] = PAGE_OPEN;
		else if (waits_for != 0)
			table->pages[block] = waits_for;
		else
			table->pages[block] = PAGE_DONE;
		UnlockReleaseBuffer(buffer);
	}

	table->first = Min(table->first, table->touched);
	table->touched = PG_UINT32_MAX;
	while (table->first < table->nblocks && table->pages[table->first] == PAGE_DONE)
		table->first++;
}

/*
 * Is every row dead or covered by low?  The caller holds an exclusive lock, so
 * all transactions that wrote here have ended.
 */
static bool
table_covered(Relation rel, const RaXidSet *low)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	BlockNumber block;
	bool		covered = true;

	for (block = 0; block < nblocks && covered; block++)
	{
		Buffer		buffer = ReadBuffer(rel, block);
		Page		page;
		OffsetNumber off,
					max;

		CHECK_FOR_INTERRUPTS();
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		page = BufferGetPage(buffer);
		max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
		for (off = FirstOffsetNumber; off <= max && covered; off++)
		{
			ItemId		lp = PageGetItemId(page, off);
			HeapTupleHeader tuple;

			if (!ItemIdIsNormal(lp))
				continue;
			tuple = (HeapTupleHeader) PageGetItem(page, lp);
			covered = ra_xidset_ended(low, queue_row(tuple)->xid);
		}
		UnlockReleaseBuffer(buffer);
	}
	return covered;
}

/* Both RaQueueItem and uint64 arrays: each begins with its 64-bit sort key */
static int
item_cmp(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}
