/*
 * batch.h
 *	  One round of the worker: take events from the queue, score them.
 */
#ifndef RA_BATCH_H
#define RA_BATCH_H

#include "postgres.h"

#include "engine/cache.h"
#include "engine/feature.h"
#include "engine/queue.h"
#include "engine/rebuild.h"
#include "engine/score.h"
#include "shmem.h"

/* Prepare this process; called in a transaction, again when the extension is new */
extern void ra_batch_init(void);

/*
 * Process one batch in a transaction of its own, and answer drain() calls.
 * True if there is more to do right away.
 */
extern bool ra_batch_run(RaDatabase *db);

typedef struct RaStreamCounters
{
	int64		processed;		/* events taken from the queue */
	int64		scored;
	int64		alerts;			/* raised */
	int64		folded;			/* events folded into an alert */
	int64		skipped;		/* events that could not be scored */
} RaStreamCounters;

/* A stream as this worker maintains it */
typedef struct RaStream
{
	int32		stream_id;		/* hash key */
	RaRuleSet  *rs;				/* NULL: no such stream */
	uint64		generation;		/* of the configuration when rs was fetched */
	int			nentities;
	uint64	   *layout_hashes;	/* of the instances */
	RaInstance *instances;		/* by entity */

	/* of the batch at hand */
	struct RaBatchEvent *events;
	int			nevents;
	int			nalloc;

	bool		forget;			/* its windows are void */
	int			forgotten;		/* events before this one are covered by rebuilding */

	/* counted since statistics were last written ... */
	RaStreamCounters total;
	/* ... and in this batch: added to total when it has committed */
	RaStreamCounters batch;
	const char *last_skip;		/* why an event could not be scored */
	int64		last_event_time;
	bool		has_event_time;
} RaStream;

/* A captured event, unpacked */
typedef struct RaBatchEvent
{
	char		op;
	bool		score;			/* to be scored */
	bool		usable;			/* row can be read */
	bool		arrived;		/* an INSERT of a row that is new: here is its place
								 * among those of its time */
	bool		gone;			/* its row was deleted later in the batch */
	uint64		xid;
	RaRow		row;			/* the new row; of a DELETE: the old one */
	RaRow		old;			/* of an UPDATE */
	RaRow	   *scored_row;		/* an UPDATE's row that row gives way to */
	RaEntityId *ids;			/* row's own entities, by entity */
	RaEntityId *old_ids;		/* old's */
	RaEntityId *lookups;		/* row's, by lookup */
	RaValue   **measures;		/* row's, by entity; NULL: too large */
} RaBatchEvent;

/* Is progress waiting to be written, which no latch will announce? */
extern bool ra_batch_waiting(void);

/* From queued events to rows: events.c */

/* Prepare this process; what is kept goes into the given context */
extern void ra_events_init(MemoryContext cxt);

/* Unpack a queued event into its stream's list */
extern void ra_events_take(RaStream *stream, const RaQueueEvent *queued, Snapshot snapshot);

/* The row of a queued INSERT or DELETE; false: its columns are not known any more */
extern bool ra_events_row(RaStream *stream, const RaQueueEvent *queued, RaRow *row);

/* Of a stream's events: which are scored, and with which values */
extern void ra_events_settle(RaStream *stream);

/* Hash what the windows are found by, and evaluate values and filters */
extern void ra_events_identify(RaStream *stream);

/* The windows' side of a batch: apply.c */

/* Bring windows up to date with the batch's events; what is missing is rebuilt */
extern void ra_apply(RaStream *stream, Snapshot snapshot, RaSkipEvent skip);

/*
 * Compute the features of an event of the batch into rs->values, from windows that
 * ra_apply() left.
 */
extern void ra_apply_features(RaStream *stream, RaBatchEvent *event, Snapshot snapshot,
							  RaFeatureResult *results);

/* Event number e is about to be scored: fetch ahead */
extern void ra_apply_prefetch(RaStream *stream, int e);

/* Which windows this worker maintains for the stream's present rule set */
extern void ra_apply_instances(RaStream *stream);

/* Void all windows of the stream */
extern void ra_apply_forget(RaStream *stream);

#endif							/* RA_BATCH_H */
