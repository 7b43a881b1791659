/*
 * events.c
 *	  From queued events to the rows that a batch applies and scores.
 *
 * An event is unpacked by the layout that it was captured with, whose columns may
 * be others than those of the present rule set.  Then the events of a stream are
 * settled: of what happened to a row within the batch, which values is it scored
 * with, if at all?
 */
#include "postgres.h"

#include "executor/executor.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "engine/batch.h"
#include "engine/capture.h"
#include "engine/rebuild.h"

/* A layout of captured rows, and where its columns go in a rule set */
typedef struct LayoutMap
{
	int32		layout_id;		/* hash key */
	RaLayout   *layout;			/* NULL: unknown */
	RaRuleSet  *rs;				/* that map is for */
	uint64		generation;
	int		   *map;			/* by captured column: index in layout, or -1 */
	bool		complete;		/* no -1 */
	bool		identical;		/* the same columns in the same order */
} LayoutMap;

static MemoryContext kept_cxt;	/* lives as long as the worker */
static HTAB *layouts;

static LayoutMap *layout_get(int32 layout_id, RaRuleSet *rs);
static void forget_windows(RaStream *stream);
static RaImage unpack_row(RaStream *stream, LayoutMap *map, const char **data, const char *end,
						  RaRow *row);

void
ra_events_init(MemoryContext cxt)
{
	HASHCTL		ctl;

	kept_cxt = cxt;
	memset(&ctl, 0, sizeof(ctl));
	ctl.hcxt = cxt;
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(LayoutMap);
	layouts = hash_create("risk_alert layouts", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

bool
ra_events_row(RaStream *stream, const RaQueueEvent *queued, RaRow *row)
{
	LayoutMap  *map = layout_get(queued->layout_id, stream->rs);
	const char *data = queued->data;

	if (map->layout == NULL)
		return false;
	(void) unpack_row(stream, map, &data, queued->data + queued->len, row);
	return true;
}

void
ra_events_take(RaStream *stream, const RaQueueEvent *queued, Snapshot snapshot)
{
	RaRuleSet  *rs = stream->rs;
	RaBatchEvent *event;
	LayoutMap  *map;
	const char *data = queued->data;
	const char *end = queued->data + queued->len;
	RaImage		image;

	/* the stream is no longer watched: its events are nobody's */
	if (rs == NULL)
		return;

	stream->batch.processed++;
	if (rs->broken)
	{
		stream->batch.skipped++;
		if (stream->last_skip == NULL || strcmp(stream->last_skip, rs->broken) != 0)
			stream->last_skip = MemoryContextStrdup(kept_cxt, rs->broken);
		return;
	}
	if (queued->op == RA_OP_FORGET)
	{
		forget_windows(stream);
		if (stream->nevents == 0)
			ra_apply_forget(stream);
		return;
	}

	map = layout_get(queued->layout_id, rs);
	if (map->layout == NULL)
	{
		stream->batch.skipped++;
		stream->last_skip = "the event's columns are not known any more";
		forget_windows(stream);
		if (stream->nevents == 0)
			ra_apply_forget(stream);
		return;
	}

	if (stream->nevents == stream->nalloc)
	{
		stream->nalloc = stream->nalloc ? stream->nalloc * 2 : 64;
		if (stream->events)
			stream->events = repalloc_huge(stream->events, stream->nalloc * sizeof(RaBatchEvent));
		else
			stream->events = palloc(stream->nalloc * sizeof(RaBatchEvent));
	}
	event = &stream->events[stream->nevents++];
	memset(event, 0, sizeof(RaBatchEvent));
	event->op = queued->op;
	event->xid = queued->xid;
	event->usable = true;
	event->score = event->arrived = queued->op == RA_OP_INSERT;

	if (queued->op == RA_OP_UPDATE &&
		unpack_row(stream, map, &data, end, &event->old) != RA_IMAGE_COMPLETE)
		forget_windows(stream);
	image = unpack_row(stream, map, &data, end, &event->row);
	if (image == RA_IMAGE_COMPLETE)
		return;
	if (queued->op == RA_OP_DELETE)
		forget_windows(stream);
	else if (!ra_reread_row(rs, &event->row, snapshot) && image == RA_IMAGE_SUPERSEDED)
	{
		/* deleted, or given another key, as an earlier event has told */
		event->score = false;
		if (queued->op == RA_OP_UPDATE)
		{
			event->op = RA_OP_DELETE;
			event->row = event->old;
		}
		else
			event->usable = false;
	}
}

/*
 * What becomes of each inserted row within the batch: an UPDATE replaces the
 * values it is scored with, a DELETE in the same transaction means it never
 * existed, and DELETE and INSERT of a key in one transaction (a row that moves to
 * another partition) is an update, not a new event, if the row was there before.
 */
typedef struct Settled
{
	uint64		key;			/* hash key */
	int			event;			/* last INSERT still alive, or -1 */
	uint64		deleted_by;		/* transaction that deleted the key last, if it had not inserted it */
	int			deleted;		/* what was the event then */
} Settled;

void
ra_events_settle(RaStream *stream)
{
	HTAB	   *keys;
	HASHCTL		ctl;
	int			e;
	bool		inserts_only = true;

	for (e = 0; e < stream->nevents && inserts_only; e++)
		inserts_only = stream->events[e].op == RA_OP_INSERT;
	if (inserts_only)
		return;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(Settled);
	ctl.hcxt = CurrentMemoryContext;
	keys = hash_create("risk_alert keys of a batch", stream->nevents, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (e = 0; e < stream->nevents; e++)
	{
		RaBatchEvent *event = &stream->events[e];
		Settled    *at;
		Settled    *to;
		int			inserted;
		bool		found;

		if (!event->usable)
			continue;
		at = hash_search(keys, event->op == RA_OP_UPDATE ? &event->old.key : &event->row.key,
						 HASH_ENTER, &found);
		if (!found)
		{
			at->event = -1;
			at->deleted_by = 0;
		}
		switch (event->op)
		{
			case RA_OP_INSERT:
				at->event = e;
				if (at->deleted_by == event->xid)
				{
					event->score = event->arrived = false;
					at->event = at->deleted;
					if (at->event >= 0)
					{
						stream->events[at->event].scored_row = &event->row;
						stream->events[at->event].gone = false;
					}
				}
				at->deleted_by = 0;
				break;
			case RA_OP_UPDATE:
				inserted = at->event;
				if (inserted >= 0)
					stream->events[inserted].scored_row = &event->row;
				if (event->row.key != event->old.key)
				{
					at->event = -1;
					to = hash_search(keys, &event->row.key, HASH_ENTER, &found);
					if (!found)
						to->deleted_by = 0;
					to->event = inserted;
				}
				break;
			case RA_OP_DELETE:
				at->deleted = at->event;
				at->deleted_by = event->xid;
				if (at->event >= 0)
				{
					RaBatchEvent *inserted_event = &stream->events[at->event];

					inserted_event->gone = true;
					if (inserted_event->xid == event->xid)
					{
						inserted_event->score = inserted_event->arrived = false;
						at->deleted_by = 0;
					}
				}
				at->event = -1;
				break;
		}
	}

	/* an inserted row that was updated since is scored as it is now */
	for (e = 0; e < stream->nevents; e++)
	{
		RaBatchEvent *event = &stream->events[e];

		if (event->scored_row)
			event->row = *event->scored_row;
	}
}

void
ra_events_identify(RaStream *stream)
{
	RaRuleSet  *rs = stream->rs;
	Size		ids_size = (2 * rs->nentities + rs->nlookups) * sizeof(RaEntityId);
	Size		size = ids_size + rs->nentities * sizeof(RaValue *);
	char	   *memory;
	int			e,
				i;

	/*
	 * One piece of memory for all: while events are applied and scored, it is
	 * read from beginning to end.
	 */
	for (i = 0; i < rs->nentities; i++)
		size += rs->entities[i].spec.nmeasures * sizeof(RaValue);
	memory = MemoryContextAllocHuge(CurrentMemoryContext, Max(size * stream->nevents, 1));

	for (e = 0; e < stream->nevents; e++)
	{
		RaBatchEvent *event = &stream->events[e];
		RaValue    *values;

		if (!event->row.timed && event->score)
		{
			event->score = false;
			stream->batch.skipped++;
			stream->last_skip = "the event time is null or infinite";
		}
		event->ids = (RaEntityId *) (memory + e * size);
		event->old_ids = event->ids + rs->nentities;
		event->lookups = event->old_ids + rs->nentities;
		event->measures = (RaValue **) ((char *) event->ids + ids_size);
		values = (RaValue *) (event->measures + rs->nentities);
		for (i = 0; i < rs->nentities; i++)
			event->ids[i] = ra_entity_id(rs, &rs->entities[i].columns, &event->row);
		if (event->op == RA_OP_UPDATE)
			for (i = 0; i < rs->nentities; i++)
				event->old_ids[i] = ra_entity_id(rs, &rs->entities[i].columns, &event->old);
		if (event->op == RA_OP_DELETE || !event->row.timed)
			continue;
		for (i = 0; i < rs->nlookups; i++)
			event->lookups[i] = rs->lookups[i].own ? event->ids[rs->lookups[i].entity]
				: ra_entity_id(rs, &rs->lookups[i].columns, &event->row);

		ra_row_store(rs, &event->row);
		ResetExprContext(rs->econtext);
		for (i = 0; i < rs->nentities; i++)
		{
			RaEntity   *entity = &rs->entities[i];

			event->measures[i] = ra_measure_row(rs, entity, values) ? values : NULL;
			values += entity->spec.nmeasures;
		}
	}
}

/* How rows of a layout become rows of the rule set */
static LayoutMap *
layout_get(int32 layout_id, RaRuleSet *rs)
{
	LayoutMap  *map;
	bool		found;
	int			i,
				k;

	map = hash_search(layouts, &layout_id, HASH_ENTER, &found);
	if (!found)
	{
		map->layout = NULL;
		map->map = NULL;
		map->rs = NULL;
	}
	if (map->layout == NULL)
		map->layout = ra_layout_load(layout_id, kept_cxt);
	if (map->layout == NULL || (map->rs == rs && map->generation == ra_config_generation))
		return map;

	if (map->map)
		pfree(map->map);
	map->map = MemoryContextAlloc(kept_cxt, Max(rs->ncaptured, 1) * sizeof(int));
	map->rs = rs;
	map->generation = ra_config_generation;
	map->complete = true;
	map->identical = rs->ncaptured == map->layout->n;
	for (i = 0; i < rs->ncaptured; i++)
	{
		map->map[i] = -1;
		for (k = 0; k < map->layout->n; k++)
		{
			/* a column that has changed its type meanwhile is read anew */
			if (map->layout->attnums[k] == rs->captured[i] &&
				TupleDescAttr(map->layout->desc, k)->atttypid ==
				TupleDescAttr(rs->row->tts_tupleDescriptor, rs->captured[i] - 1)->atttypid)
				map->map[i] = k;
		}
		if (map->map[i] < 0)
			map->complete = false;
		if (map->map[i] != i)
			map->identical = false;
	}
	return map;
}

/*
 * The stream's windows are to be read from the table anew, as of the batch's
 * snapshot.  What the events so far did is in it, or was undone by what makes us forget.
 */
static void
forget_windows(RaStream *stream)
{
	stream->forget = true;
	stream->forgotten = stream->nevents;
}

/* Of an incomplete image, what the event does not carry is NULL */
static RaImage
unpack_row(RaStream *stream, LayoutMap *map, const char **data, const char *end, RaRow *row)
{
	RaRuleSet  *rs = stream->rs;
	RaImage		image;

	row->values = palloc(Max(rs->ncaptured, 1) * sizeof(Datum));
	row->nulls = palloc(Max(rs->ncaptured, 1) * sizeof(bool));
	if (map->identical)
		image = ra_image_unpack(map->layout, data, end, row->values, row->nulls);
	else
	{
		Datum	   *values = palloc(map->layout->n * sizeof(Datum));
		bool	   *nulls = palloc(map->layout->n * sizeof(bool));
		int			i;

		image = ra_image_unpack(map->layout, data, end, values, nulls);
		if (image == RA_IMAGE_COMPLETE && !map->complete)
			image = RA_IMAGE_INCOMPLETE;
		for (i = 0; i < rs->ncaptured; i++)
		{
			int			k = map->map[i];

			row->values[i] = k >= 0 ? values[k] : (Datum) 0;
			row->nulls[i] = k >= 0 ? nulls[k] : true;
		}
	}
	ra_row_identify(rs, row);
	return image;
}
