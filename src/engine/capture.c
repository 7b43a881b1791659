/*
 * capture.c
 *	  The trigger that turns a row change into a queued event.
 *
 * The trigger runs in the user's transaction and must be cheap and must not
 * fail for reasons of ours: it copies only the columns that features and rules
 * use, converts nothing, and leaves all thinking to the worker.  The queue row
 * is written like any other row, so that it commits, rolls back and is prepared with the
 * user's own change.
 *
 * Which columns to take is configuration (risk_alert.stream and
 * capture_layout), cached per table of this session until a relcache
 * invalidation of the table, or of the partitioned table above it, arrives.
 * The look-up uses the catalog snapshot, so that a change of configuration is
 * seen as soon as it has committed, whatever the transaction's isolation level.
 *
 * A row image is: uint32 length of data, uint8 flags, null bitmap if any, data
 * as heap_fill_tuple() would lay it out.  An UPDATE carries the old image, then the
 * new one; an UPDATE that leaves all columns of interest as they were is not
 * captured at all.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/itup.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "port/pg_bitutils.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "capture.h"
#include "engine/queue.h"
#include "engine/ruleset.h"
#include "shmem.h"

/* flags of a row image */
#define IMAGE_HAS_NULLS		0x01
#define IMAGE_INCOMPLETE	0x02	/* a value was too large to be carried */
#define IMAGE_SUPERSEDED	0x04	/* no longer the row, when it was captured */

/* columns of risk_alert.capture_layout that are read here */
#define Anum_layout_id		1
#define Anum_layout_attnums 3
#define Anum_layout_types	4

/* A column of the layout, and what laying out its values takes */
typedef struct CaptureColumn
{
	AttrNumber	attno;			/* in this table */
	int16		len;			/* as in pg_type: > 0, -1 or -2 */
	uint8		align;			/* bytes */
	bool		byval;
	bool		packable;		/* its values may have a header of one byte */
} CaptureColumn;

typedef struct CaptureTarget
{
	Oid			relid;			/* hash key: the table the trigger fires on */
	bool		valid;
	bool		changed;		/* invalidated while it was loaded */
	Oid			root;			/* topmost partitioned table, or relid */
	int32		stream_id;		/* 0: not watched */
	RaLayout   *layout;			/* NULL: nothing can be carried */
	CaptureColumn *columns;
	AttrNumber	max_attno;
	MemoryContext cxt;
} CaptureTarget;

static HTAB *targets = NULL;
static bool wake_at_commit = false;

PG_FUNCTION_INFO_V1(ra_capture);
PG_FUNCTION_INFO_V1(ra_forget_windows);

static bool is_responsible(const TriggerData *trigdata, Oid function);
static int	trigger_rank(const Trigger *trigger);
static CaptureTarget *capture_target(Oid relid);
static void target_load(CaptureTarget *target);
static void target_invalidate(Datum arg, Oid relid);
static void capture_xact_callback(XactEvent event, void *arg);
static void capture_release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
									 void *arg);
static void column_init(CaptureColumn *column, AttrNumber attno, Form_pg_attribute att);
static void append(CaptureTarget *target, char op, TupleTableSlot *first, TupleTableSlot *second);
static bool superseded(TupleTableSlot *slot);
static Size image_measure(CaptureTarget *target, TupleTableSlot *slot, Datum *values, bool *nulls,
						  uint8 *flags, Size *data_len);
static Size column_place(const CaptureColumn *column, Datum value, Size offset, Size *len);
static bool column_shortens(const CaptureColumn *column, const struct varlena *v);
static char *image_write(CaptureTarget *target, char *out, const Datum *values, const bool *nulls,
						 uint8 flags, Size data_len);
static void value_write(const CaptureColumn *column, char *out, Datum value, Size len);
static bool same_image(CaptureTarget *target, TupleTableSlot *a, TupleTableSlot *b);

/*
 * risk_alert.capture(): AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW, and
 * AFTER TRUNCATE FOR EACH STATEMENT.
 */
Datum
ra_capture(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	CaptureTarget *target;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as a trigger", "risk_alert.capture")));
	if (!TRIGGER_FIRED_AFTER(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" with function risk_alert.capture() must be an AFTER trigger",
						trigdata->tg_trigger->tgname),
				 errhint("Create it AFTER INSERT OR UPDATE OR DELETE ... FOR EACH ROW.")));

	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
	{
		target = capture_target(RelationGetRelid(trigdata->tg_relation));
		ra_capture_truncate(target->root);
		return PointerGetDatum(NULL);
	}
	if (!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" with function risk_alert.capture() must be FOR EACH ROW",
						trigdata->tg_trigger->tgname),
				 errhint("Create it AFTER INSERT OR UPDATE OR DELETE ... FOR EACH ROW.")));
	if (!is_responsible(trigdata, fcinfo->flinfo->fn_oid))
		return PointerGetDatum(NULL);

	target = capture_target(RelationGetRelid(trigdata->tg_relation));
	if (target->stream_id == 0)
		return PointerGetDatum(NULL);

	if (target->layout == NULL)
	{
		ra_capture_truncate(target->root);
		return PointerGetDatum(NULL);
	}

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		append(target, RA_OP_INSERT, trigdata->tg_trigslot, NULL);
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		append(target, RA_OP_DELETE, trigdata->tg_trigslot, NULL);
	else if (!same_image(target, trigdata->tg_trigslot, trigdata->tg_newslot))
		append(target, RA_OP_UPDATE, trigdata->tg_trigslot, trigdata->tg_newslot);

	return PointerGetDatum(NULL);
}

void
ra_capture_truncate(Oid root_relid)
{
	CaptureTarget *target = capture_target(root_relid);
	RaQueueRow	row;

	if (target->stream_id == 0)
		return;
	ra_queue_make_row(&row, 0);
	ra_queue_append(&row, target->stream_id, 0, RA_OP_FORGET);
	wake_at_commit = true;
}

/* _forget_windows(relation regclass) */
Datum
ra_forget_windows(PG_FUNCTION_ARGS)
{
	ra_capture_truncate(PG_GETARG_OID(0));
	PG_RETURN_VOID();
}

RaLayout *
ra_layout_load(int32 layout_id, MemoryContext cxt)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	RaLayout   *layout = NULL;
	Oid			relid;

	relid = ra_extension_relid("capture_layout");
	if (!OidIsValid(relid))
		return NULL;
	rel = table_open(relid, AccessShareLock);
	ScanKeyInit(&key, Anum_layout_id, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(layout_id));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		bool		isnull;
		ArrayType  *attnums;
		ArrayType  *types;
		int			i;

		attnums = DatumGetArrayTypePCopy(heap_getattr(tuple, Anum_layout_attnums,
													  RelationGetDescr(rel), &isnull));
		types = DatumGetArrayTypePCopy(heap_getattr(tuple, Anum_layout_types,
													RelationGetDescr(rel), &isnull));
		layout = palloc0(sizeof(RaLayout));
		layout->layout_id = layout_id;
		layout->n = ARR_DIMS(attnums)[0];
		layout->attnums = palloc(layout->n * sizeof(AttrNumber));
		memcpy(layout->attnums, ARR_DATA_PTR(attnums), layout->n * sizeof(AttrNumber));
		layout->desc = CreateTemplateTupleDesc(layout->n);
		for (i = 0; i < layout->n; i++)
		{
			Oid			type = ((Oid *) ARR_DATA_PTR(types))[i];

			/* a type that is gone: the layout can't be read any more */
			if (get_typlen(type) == 0)
			{
				layout = NULL;
				break;
			}
			TupleDescInitEntry(layout->desc, i + 1, NULL, type, -1, 0);
		}
		MemoryContextSwitchTo(old);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return layout;
}

RaImage
ra_image_unpack(const RaLayout *layout, const char **data, const char *end,
				Datum *values, bool *nulls)
{
	const char *p = *data;
	uint32		len;
	uint8		flags;
	bits8	   *bitmap = NULL;
	char	   *aligned;

	if (end - p < (ptrdiff_t) (sizeof(len) + 1))
		elog(ERROR, "malformed event in the queue");
	memcpy(&len, p, sizeof(len));
	p += sizeof(len);
	flags = *(const uint8 *) p++;
	if (flags & IMAGE_HAS_NULLS)
	{
		bitmap = (bits8 *) p;
		p += BITMAPLEN(layout->n);
	}
	if (end < p || (Size) (end - p) < len)
		elog(ERROR, "malformed event in the queue");

	/* the data is aligned relative to its own start only */
	aligned = palloc(Max(len, 1));
	memcpy(aligned, p, len);
	index_deform_tuple_internal(layout->desc, values, nulls, aligned, bitmap,
								(flags & IMAGE_HAS_NULLS) != 0);
	*data = p + len;
	if (flags & IMAGE_SUPERSEDED)
		return RA_IMAGE_SUPERSEDED;
	return (flags & IMAGE_INCOMPLETE) ? RA_IMAGE_INCOMPLETE : RA_IMAGE_COMPLETE;
}

/*
 * Of several triggers with our function that fire for a change one captures it, or it
 * would count twice: that of the highest rank, and of equal ones the first by name; if one of them
 * fires for all changes of the kind.
 * _idle_triggers() (SQL) tells which ones never do.
 */
static bool
is_responsible(const TriggerData *trigdata, Oid function)
{
	const TriggerDesc *desc = trigdata->tg_relation->trigdesc;
	const Trigger *first = NULL;
	char		not_firing = SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ?
		TRIGGER_FIRES_ON_ORIGIN : TRIGGER_FIRES_ON_REPLICA;
	int16		event = TRIGGER_TYPE_UPDATE;

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		event = TRIGGER_TYPE_INSERT;
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		event = TRIGGER_TYPE_DELETE;

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		const Trigger *t = &desc->triggers[i];

		if (t->tgfoid != function || !(t->tgtype & event) ||
			!TRIGGER_FOR_ROW(t->tgtype) || !TRIGGER_FOR_AFTER(t->tgtype) ||
			t->tgenabled == TRIGGER_DISABLED || t->tgenabled == not_firing)
			continue;
		if (first == NULL || trigger_rank(t) > trigger_rank(first))
			first = t;
	}

	/* where each lets some pass by, none knows whether another one fires: better twice than never */
	return first == NULL || trigger_rank(first) <= 0 || first->tgoid == trigdata->tg_trigger->tgoid;
}

/* By the kinds of changes it fires for; at most 0 if a condition or a list of columns lets some pass by */
static int
trigger_rank(const Trigger *trigger)
{
	int			kinds = pg_popcount32(trigger->tgtype &
									  (TRIGGER_TYPE_INSERT | TRIGGER_TYPE_DELETE | TRIGGER_TYPE_UPDATE));

	return trigger->tgqual == NULL && trigger->tgnattr == 0 ? kinds : kinds - 3;
}

/* What is known of the table, loaded when it isn't */
static CaptureTarget *
capture_target(Oid relid)
{
	static CaptureTarget *latest = NULL;
	CaptureTarget *target;
	bool		found;

	/* entries stay where they are for good */
	if (latest != NULL && latest->relid == relid && latest->valid)
		return latest;
	if (targets == NULL)
	{
		HASHCTL		ctl;

		memset(&ctl, 0, sizeof(ctl));
		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(CaptureTarget);
		ctl.hcxt = TopMemoryContext;
		targets = hash_create("risk_alert capture targets", 16, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		CacheRegisterRelcacheCallback(target_invalidate, (Datum) 0);
		RegisterXactCallback(capture_xact_callback, NULL);
		RegisterResourceReleaseCallback(capture_release_callback, NULL);
	}

	target = hash_search(targets, &relid, HASH_ENTER, &found);
	if (!found)
	{
		target->valid = false;
		target->cxt = NULL;
		target->root = InvalidOid;
	}
	if (!target->valid)
		target_load(target);
	latest = target;
	return target;
}

static void
target_load(CaptureTarget *target)
{
	List	   *ancestors = NIL;
	int			i;

	if (target->cxt)
		MemoryContextReset(target->cxt);
	else
		target->cxt = AllocSetContextCreate(TopMemoryContext, "risk_alert capture target",
											ALLOCSET_SMALL_SIZES);
	target->root = target->relid;
	target->stream_id = 0;
	target->layout = NULL;
	target->columns = NULL;
	target->max_attno = 0;

	/*
	 * Valid only when all has been read, and nothing of it changed meanwhile:
	 * after an error, or an invalidation, the next call reads anew.
	 */
	target->changed = false;

	if (get_rel_relispartition(target->relid))
		ancestors = get_partition_ancestors(target->relid);
	if (ancestors != NIL)
		target->root = llast_oid(ancestors);

	target->stream_id = ra_stream_by_relid(target->root);
	if (target->stream_id != 0)
	{
		int32		layout_id = ra_queue_stream_layout(target->stream_id);
		RaLayout   *layout = NULL;

		if (layout_id != 0)
			layout = ra_layout_load(layout_id, target->cxt);
		if (layout)
		{
			target->columns = MemoryContextAlloc(target->cxt, layout->n * sizeof(CaptureColumn));
			for (i = 0; i < layout->n; i++)
			{
				AttrNumber	attno = layout->attnums[i];
				Form_pg_attribute att = TupleDescAttr(layout->desc, i);

				if (target->root != target->relid)
				{
					char	   *name = get_attname(target->root, attno, true);

					attno = name ? get_attnum(target->relid, name) : InvalidAttrNumber;
				}

				/*
				 * A column that is gone or of another type than the layout
				 * says: nothing can be carried until the stream is refreshed.
				 */
				if (attno <= 0 || get_atttype(target->relid, attno) != att->atttypid)
				{
					layout = NULL;
					break;
				}
				column_init(&target->columns[i], attno, att);
				target->max_attno = Max(target->max_attno, attno);
			}
		}
		target->layout = layout;
	}
	target->valid = !target->changed;
}

static void
column_init(CaptureColumn *column, AttrNumber attno, Form_pg_attribute att)
{
	column->attno = attno;
	column->len = att->attlen;
	column->byval = att->attbyval;
	column->packable = att->attlen == -1 && att->attstorage != TYPSTORAGE_PLAIN;
	switch (att->attalign)
	{
		case TYPALIGN_CHAR:
			column->align = 1;
			break;
		case TYPALIGN_SHORT:
			column->align = ALIGNOF_SHORT;
			break;
		case TYPALIGN_INT:
			column->align = ALIGNOF_INT;
			break;
		default:
			column->align = ALIGNOF_DOUBLE;
			break;
	}
}

static void
target_invalidate(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	CaptureTarget *target;

	hash_seq_init(&seq, targets);
	while ((target = hash_seq_search(&seq)) != NULL)
	{
		if (relid == InvalidOid || relid == target->relid || relid == target->root)
		{
			target->valid = false;
			target->changed = true;
		}
	}
}

static void
capture_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wake_at_commit = false;
}

/*
 * The worker is woken once, when the rows can be seen, and not before others have been
 * told what else the transaction changed: a list, say, that its rows are
 * to be judged by.  (For COMMIT PREPARED, which runs in another session, src/utility.c does it.)
 */
static void
capture_release_callback(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (!wake_at_commit || phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_commit || !is_top_level)
		return;
	wake_at_commit = false;
	ra_wake_worker();
}

/* Append an event with the images of one or two rows */
static void
append(CaptureTarget *target, char op, TupleTableSlot *first, TupleTableSlot *second)
{
	int			n = target->layout->n;
	Datum		stack_values[2][32];
	bool		stack_nulls[2][32];
	Datum	   *values[2];
	bool	   *nulls[2];
	uint8		flags[2] = {0, 0};
	Size		data_len[2] = {0, 0};
	Size		size;
	RaQueueRow	row;
	char	   *out;

	values[0] = n <= 32 ? stack_values[0] : palloc(n * sizeof(Datum));
	nulls[0] = n <= 32 ? stack_nulls[0] : palloc(n * sizeof(bool));
	size = image_measure(target, first, values[0], nulls[0], &flags[0], &data_len[0]);
	if (second)
	{
		values[1] = n <= 32 ? stack_values[1] : palloc(n * sizeof(Datum));
		nulls[1] = n <= 32 ? stack_nulls[1] : palloc(n * sizeof(bool));
		size += image_measure(target, second, values[1], nulls[1], &flags[1], &data_len[1]);
	}

	/* of a DELETE, or the old row of an UPDATE, that is no news */
	if (op != RA_OP_DELETE && superseded(second ? second : first))
		flags[second ? 1 : 0] |= IMAGE_SUPERSEDED;

	ra_queue_make_row(&row, size);
	out = image_write(target, row.data, values[0], nulls[0], flags[0], data_len[0]);
	if (second)
		out = image_write(target, out, values[1], nulls[1], flags[1], data_len[1]);
	Assert(out == row.data + size);
	ra_queue_append(&row, target->stream_id, target->layout->layout_id, op);
	wake_at_commit = true;
}

/*
 * Has our transaction updated or deleted this row since the statement that the
 * trigger fires for?  Only a trigger can have done that; what it did is captured
 * already.
 */
static bool
superseded(TupleTableSlot *slot)
{
	HeapTupleHeader tuple;

	if (!TTS_IS_BUFFERTUPLE(slot) || ((HeapTupleTableSlot *) slot)->tuple == NULL)
		return false;
	tuple = ((HeapTupleTableSlot *) slot)->tuple->t_data;
	return !(tuple->t_infomask & HEAP_XMAX_INVALID) &&
		!HEAP_XMAX_IS_LOCKED_ONLY(tuple->t_infomask) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(tuple));
}

/*
 * Fetch the columns of interest, made self-contained, and say how large their
 * image will be.
 */
static Size
image_measure(CaptureTarget *target, TupleTableSlot *slot, Datum *values, bool *nulls,
			  uint8 *flags, Size *data_len)
{
	int			n = target->layout->n;
	Size		offset = 0;
	int			i;

	slot_getsomeattrs(slot, target->max_attno);
	for (i = 0; i < n; i++)
	{
		const CaptureColumn *column = &target->columns[i];
		struct varlena *v;
		Size		len;

		values[i] = slot->tts_values[column->attno - 1];
		nulls[i] = slot->tts_isnull[column->attno - 1];
		if (!nulls[i] && column->len == -1)
		{
			v = (struct varlena *) DatumGetPointer(values[i]);
			if (VARATT_IS_EXTENDED(v) && !VARATT_IS_SHORT(v))
			{
				if (toast_raw_datum_size(values[i]) <= RA_CAPTURE_MAX_VALUE + VARHDRSZ)
					values[i] = PointerGetDatum(detoast_attr(v));
				else
					nulls[i] = true;
			}
			else if (VARSIZE_ANY(v) > RA_CAPTURE_MAX_VALUE + VARHDRSZ)
				nulls[i] = true;
			if (nulls[i])
				*flags |= IMAGE_INCOMPLETE;
		}
		if (nulls[i])
			*flags |= IMAGE_HAS_NULLS;
		else
		{
			offset = column_place(column, values[i], offset, &len);
			offset += len;
		}
	}
	*data_len = offset;
	return sizeof(uint32) + 1 + ((*flags & IMAGE_HAS_NULLS) ? BITMAPLEN(n) : 0) + offset;
}

/* Where behind offset a value begins, and how long it is there */
static inline Size
column_place(const CaptureColumn *column, Datum value, Size offset, Size *len)
{
	const struct varlena *v;

	if (column->len > 0)
	{
		*len = column->len;
		return TYPEALIGN(column->align, offset);
	}
	if (column->len == -2)
	{
		*len = strlen(DatumGetCString(value)) + 1;
		return TYPEALIGN(column->align, offset);
	}
	v = (const struct varlena *) DatumGetPointer(value);
	if (column_shortens(column, v))
	{
		*len = VARATT_CONVERTED_SHORT_SIZE(v);
		return offset;
	}
	*len = VARSIZE_ANY(v);
	return VARATT_IS_SHORT(v) ? offset : TYPEALIGN(column->align, offset);
}

/* Does a value (which is not toasted) exchange its header for one of a byte? */
static inline bool
column_shortens(const CaptureColumn *column, const struct varlena *v)
{
	return column->packable && VARATT_CAN_MAKE_SHORT(v);
}

static char *
image_write(CaptureTarget *target, char *out, const Datum *values, const bool *nulls, uint8 flags,
			Size data_len)
{
	int			n = target->layout->n;
	uint32		len = (uint32) data_len;
	bits8	   *bitmap = NULL;
	Size		offset = 0;
	int			i;

	memcpy(out, &len, sizeof(len));
	out += sizeof(len);
	*(uint8 *) out++ = flags;
	if (flags & IMAGE_HAS_NULLS)
	{
		bitmap = (bits8 *) out;
		memset(bitmap, 0, BITMAPLEN(n));
		out += BITMAPLEN(n);
	}

	/* the padding too: it tells that a header of four bytes follows */
	memset(out, 0, data_len);
	for (i = 0; i < n; i++)
	{
		Size		value_len;

		if (nulls[i])
			continue;
		if (bitmap)
			bitmap[i / 8] |= 1 << (i % 8);
		offset = column_place(&target->columns[i], values[i], offset, &value_len);
		value_write(&target->columns[i], out + offset, values[i], value_len);
		offset += value_len;
	}
	Assert(offset == data_len);
	return out + data_len;
}

/* To a place that is aligned relative to the image's data only */
static inline void
value_write(const CaptureColumn *column, char *out, Datum value, Size len)
{
	if (column->byval)
	{
		uint8		i8 = DatumGetUInt8(value);
		uint16		i16 = DatumGetUInt16(value);
		uint32		i32 = DatumGetUInt32(value);

		switch (column->len)
		{
			case sizeof(i8):
				memcpy(out, &i8, sizeof(i8));
				break;
			case sizeof(i16):
				memcpy(out, &i16, sizeof(i16));
				break;
			case sizeof(i32):
				memcpy(out, &i32, sizeof(i32));
				break;
			case sizeof(Datum):
				memcpy(out, &value, sizeof(Datum));
				break;
			default:
				elog(ERROR, "unsupported length of a type passed by value: %d", column->len);
		}
	}
	else if (column->len == -1 &&
			 column_shortens(column, (const struct varlena *) DatumGetPointer(value)))
	{
		SET_VARSIZE_SHORT(out, len);
		memcpy(out + VARHDRSZ_SHORT, VARDATA(DatumGetPointer(value)), len - VARHDRSZ_SHORT);
	}
	else
		memcpy(out, DatumGetPointer(value), len);
}

/* Are all columns of interest bitwise the same? */
static bool
same_image(CaptureTarget *target, TupleTableSlot *a, TupleTableSlot *b)
{
	int			i;

	slot_getsomeattrs(a, target->max_attno);
	slot_getsomeattrs(b, target->max_attno);
	for (i = 0; i < target->layout->n; i++)
	{
		const CaptureColumn *column = &target->columns[i];
		int			c = column->attno - 1;

		if (a->tts_isnull[c] != b->tts_isnull[c])
			return false;
		if (!a->tts_isnull[c] &&
			!datumIsEqual(a->tts_values[c], b->tts_values[c], column->byval, column->len))
			return false;
	}
	return true;
}
