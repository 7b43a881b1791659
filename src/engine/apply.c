/*
 * apply.c
 *	  A batch's events and the windows of their entities.
 *
 * Every event is applied in order of arrival to the windows that the cache has.
 * Those that scored events need and the cache lacks, or does not hold far enough
 * back, are noted on the way, rebuilt from the table under the batch's snapshot,
 * all at once, and the events are applied to them too.  Applying is idempotent (an event that
 * the rebuild has read already is found by its key), and puts an event behind
 * the others of its time; so afterwards each window is what the table holds as of the
 * snapshot, in order of arrival, whether it came from the cache or not.  An UPDATE is
 * put behind the others as well, but did not arrive: if there are any, the rows that
 * did are put behind them once more.
 *
 * A window that doesn't fit the cache lives in the batch's memory.  One that was
 * evicted between applying and scoring is made again there.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "engine/batch.h"
#include "engine/capture.h"
#include "engine/rebuild.h"
#include "shmem.h"

/* How many events ahead memory is fetched */
#define PREFETCH_EVENT 16
#define PREFETCH_IDS 12
#define PREFETCH_CHAIN 8
#define PREFETCH_ENTRY 4
#define PREFETCH_WINDOW 2
#define PREFETCH_VALUES 1

/* A window of this batch, rebuilt */
typedef struct LocalKey
{
	uint64		h[2];
	int32		stream_id;
	int32		entity;
} LocalKey;

typedef struct LocalWindow
{
	LocalKey	key;
	int			rebuild;		/* index while being collected */
	RaWindow   *window;			/* NULL: it is in the cache */
	bool		wide;
} LocalWindow;

/* The event whose features are being computed */
static RaStream *scored_stream;
static RaBatchEvent *scored_event;

/* Windows to rebuild, of one entity definition */
typedef struct Missing
{
	int			n;
	int			nalloc;
	RaRebuild  *rebuilds;
	LocalWindow **windows;
	bool		read_own;		/* events read the windows that they are in */
} Missing;

static Missing *missing;		/* by entity */
static HTAB *locals = NULL;		/* of the stream being processed */
static MemoryContext locals_cxt;

/* Time of the oldest event that the batch scores: nothing it needs may expire */
static int64 oldest_scored;
/* Events that the snapshot sees but that belong to a later batch of the tick */
static RaSkipEvent skip_event;
/* Does the batch change rows, so that new ones have to be put behind these again? */
static bool any_update;

static uint32 later_peers(int lookup, RaEntityId id, const RaWindow *window, bool own);
static RaSkipVerdict skip_later_peer(int32 stream_id, uint64 key, TransactionId xmin);
static void note_missing(RaStream *stream, int n, const RaColumns *columns, RaEntityId id,
						 const RaRow *row);
static void note_foreign(RaStream *stream, RaBatchEvent *event);
static bool rebuild_missing(RaStream *stream, Snapshot snapshot);
static void read_windows(RaRuleSet *rs, int entity, int n, RaRebuild *rebuilds, Snapshot snapshot);
static LocalWindow *local_find(RaStream *stream, int entity, RaEntityHash hash, bool create, bool *found);
static LocalWindow *local_make(RaStream *stream, RaBatchEvent *event, int lookup, Snapshot snapshot);
static void prefetch_entities(RaStream *stream, int e, bool ranges);
static void prefetch_values(RaStream *stream, const RaBatchEvent *event, int n);
static void apply_event(RaStream *stream, RaBatchEvent *event, bool rebuilt_only);
static bool is_update(const RaBatchEvent *event);
static void apply_arrival(RaStream *stream, RaBatchEvent *event);
static bool is_rebuilt(RaStream *stream, int n, RaEntityId id);
static void apply_remove(RaStream *stream, int entity, RaEntityId id, const RaRow *row);
static void apply_add(RaStream *stream, int entity, RaEntityId id, const RaRow *row,
					  const RaValue *values, bool score);
static void local_apply(RaStream *stream, LocalWindow *local, const RaBatchEvent *event);
static bool is_local(const LocalWindow *local, RaEntityId id);
static void local_add(RaStream *stream, LocalWindow *local, const RaEvent *event);
static int64 needed_from(const RaEntity *entity, int64 time);

void
ra_apply_instances(RaStream *stream)
{
	RaRuleSet  *rs = stream->rs;
	int			n = rs ? rs->nentities : 0;
	RaInstance *instances = MemoryContextAllocZero(TopMemoryContext, Max(n, 1) * sizeof(RaInstance));
	uint64	   *hashes = MemoryContextAllocZero(TopMemoryContext, Max(n, 1) * sizeof(uint64));
	int			i,
				k;

	/* keep what is defined as before, end what is not, begin what is new */
	for (i = 0; i < n; i++)
	{
		hashes[i] = rs->entities[i].layout_hash;
		for (k = 0; k < stream->nentities; k++)
		{
			if (stream->layout_hashes[k] == hashes[i] && stream->instances[k].serial != 0)
			{
				instances[i] = stream->instances[k];
				stream->instances[k].serial = 0;
			}
		}
	}
	for (k = 0; k < stream->nentities; k++)
		ra_cache_end_instance(stream->instances[k]);
	for (i = 0; i < n; i++)
	{
		if (instances[i].serial == 0)
			instances[i] = ra_cache_begin_instance(hashes[i], stream->stream_id,
												   rs->entities[i].label);
	}
	if (stream->instances)
	{
		pfree(stream->instances);
		pfree(stream->layout_hashes);
	}
	stream->instances = instances;
	stream->layout_hashes = hashes;
	stream->nentities = n;
}

void
ra_apply_forget(RaStream *stream)
{
	int			i;

	for (i = 0; i < stream->nentities; i++)
	{
		ra_cache_end_instance(stream->instances[i]);
		stream->instances[i] = ra_cache_begin_instance(stream->layout_hashes[i], stream->stream_id,
													   stream->rs->entities[i].label);
	}
}

void
ra_apply(RaStream *stream, Snapshot snapshot, RaSkipEvent skip)
{
	HASHCTL		ctl;
	int			e;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(LocalKey);
	ctl.entrysize = sizeof(LocalWindow);
	ctl.hcxt = CurrentMemoryContext;
	locals = hash_create("risk_alert windows of a batch", 64, &ctl,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	locals_cxt = CurrentMemoryContext;
	skip_event = skip;
	oldest_scored = PG_INT64_MAX;
	for (e = 0; e < stream->nevents; e++)
		if (stream->events[e].score)
			oldest_scored = Min(oldest_scored, stream->events[e].row.time);

	missing = palloc0(Max(stream->nentities, 1) * sizeof(Missing));
	for (e = 0; e < stream->rs->nlookups; e++)
		if (stream->rs->lookups[e].own)
			missing[stream->rs->lookups[e].entity].read_own = true;
	for (e = 0; e < stream->nevents; e++)
	{
		prefetch_entities(stream, e, false);
		apply_event(stream, &stream->events[e], false);
		note_foreign(stream, &stream->events[e]);
	}

	if (rebuild_missing(stream, snapshot))
	{
		for (e = 0; e < stream->nevents; e++)
			apply_event(stream, &stream->events[e], true);
	}

	any_update = false;
	for (e = 0; e < stream->nevents && !any_update; e++)
		any_update = is_update(&stream->events[e]);
	for (e = 0; e < stream->nevents && any_update; e++)
		apply_arrival(stream, &stream->events[e]);
}

void
ra_apply_prefetch(RaStream *stream, int e)
{
	prefetch_entities(stream, e, true);
}

void
ra_apply_features(RaStream *stream, RaBatchEvent *event, Snapshot snapshot, RaFeatureResult *results)
{
	RaRuleSet  *rs = stream->rs;
	int64	   *lower = palloc(Max(rs->nfeatures, 1) * sizeof(int64));
	bool	   *wide = palloc0(Max(rs->nlookups, 1) * sizeof(bool));
	int			l,
				f;

	scored_stream = stream;
	scored_event = event;
	ra_features_bounds(rs, event->row.time, lower);
	for (l = 0; l < rs->nlookups; l++)
	{
		RaLookup   *lookup = &rs->lookups[l];
		RaEntity   *entity = &rs->entities[lookup->entity];
		RaEntityId	id = event->lookups[l];
		RaInstance	instance = stream->instances[lookup->entity];
		RaEntityId	own = event->ids[lookup->entity];
		const RaValue *self = NULL;
		bool		done = false;

		if (!id.present)
		{
			ra_features_look(rs, l, NULL, false, &event->row, NULL, false, 0, lower, results);
			continue;
		}
		if (own.present && own.hash.h[0] == id.hash.h[0] && own.hash.h[1] == id.hash.h[1])
		{
			self = event->measures[lookup->entity];
			if (self == NULL)
				wide[l] = true;
		}

		while (!done && !wide[l])
		{
			bool		is_wide;
			RaWindow   *window;
			bool		again = false;

			window = ra_cache_lock(instance, id.hash, RA_CACHE_READ_NOTE, &is_wide);
			if (window != NULL && is_wide)
				wide[l] = true;
			else if (window != NULL &&
					 window->complete_from <= needed_from(entity, event->row.time))
			{
				ra_features_look(rs, l, window, true, &event->row, self, false,
								 later_peers(l, id, window, self != NULL), lower, results);
				done = true;
			}
			ra_cache_unlock(instance, id.hash);

			if (!done && !wide[l])
			{
				LocalWindow *local = local_make(stream, event, l, snapshot);

				if (local->wide)
				{
					wide[l] = true;
					break;
				}
				ra_features_look(rs, l, local->window, true, &event->row, self, false,
								 later_peers(l, id, local->window, self != NULL), lower, results);
				done = true;
			}

			/* a value that needs more room than expected: look again */
			for (f = 0; f < rs->nfeatures && done; f++)
			{
				RaFeatureResult *result = &results[f];

				if (rs->features[f].lookup == l && result->found && result->needed > result->room)
				{
					result->room = result->needed;
					result->bytes = MemoryContextAlloc(GetMemoryChunkContext(results), result->room);
					again = true;
				}
			}
			if (again)
				done = false;
		}
	}

	/* what was looked up before it turned out that the window is none */
	for (f = 0; f < rs->nfeatures; f++)
		if (wide[rs->features[f].lookup])
			results[f].empty = true;
	ra_features_store(rs, results);
	for (l = 0; l < rs->nlookups; l++)
	{
		if (wide[l])
		{
			RaEntityId	own = event->ids[rs->lookups[l].entity];
			RaEntityId	id = event->lookups[l];

			ra_exact_features(rs, l, &event->row,
							  own.present && own.hash.h[0] == id.hash.h[0] &&
							  own.hash.h[1] == id.hash.h[1],
							  lower, snapshot, skip_later_peer);
		}
	}
}

/*
 * How many of the batch's events behind the one at hand have its time and belong
 * to the entity that it looks up.  (A window that holds it needs no counting, its
 * place tells; it does unless the event is of another entity, or deleted by now.)
 */
static uint32
later_peers(int lookup, RaEntityId id, const RaWindow *window, bool own)
{
	int			entity = scored_stream->rs->lookups[lookup].entity;
	uint32		hi;
	uint32		n = 0;
	RaBatchEvent *event;

	hi = ra_window_bound(window, scored_event->row.time);
	if (hi == 0 || ra_window_time(window, hi - 1) != scored_event->row.time)
		return 0;
	if (own && ra_window_find(window, scored_event->row.time, scored_event->row.key) >= 0)
		return 0;
	for (event = scored_event + 1; event < scored_stream->events + scored_stream->nevents; event++)
	{
		if (event->usable && event->arrived && !event->gone && event->row.timed &&
			event->row.time == scored_event->row.time && event->ids[entity].present &&
			event->ids[entity].hash.h[0] == id.hash.h[0] &&
			event->ids[entity].hash.h[1] == id.hash.h[1] &&
			ra_window_find(window, event->row.time, event->row.key) >= 0)
			n++;
	}
	return n;
}

/* Did the event of that key, of the same time as the one at hand, arrive later? */
static RaSkipVerdict
skip_later_peer(int32 stream_id, uint64 key, TransactionId xmin)
{
	RaBatchEvent *event;

	for (event = scored_event + 1; event < scored_stream->events + scored_stream->nevents; event++)
	{
		if (event->arrived && event->row.key == key)
			return RA_SKIP;
	}
	return skip_event ? skip_event(stream_id, key, xmin) : RA_KEEP;
}

/* From when on a window must be complete for an event at time */
static int64
needed_from(const RaEntity *entity, int64 time)
{
	return time < PG_INT64_MIN + entity->max_span ? PG_INT64_MIN : time - entity->max_span;
}

/*
 * What is rebuilt goes back a little further than needed, so that events that
 * arrive late find their window complete.
 */
static int64
rebuild_from(const RaEntity *entity, int64 time)
{
	int64		slack = entity->max_span / 16;
	int64		from = needed_from(entity, time);

	return from < PG_INT64_MIN + slack ? PG_INT64_MIN : from - slack;
}

/* A scored event needs a window that isn't there, or doesn't go far enough back */
static void
note_missing(RaStream *stream, int n, const RaColumns *columns, RaEntityId id, const RaRow *row)
{
	RaEntity   *entity = &stream->rs->entities[n];
	Missing    *m = &missing[n];
	LocalWindow *local;
	RaRebuild  *rebuild;
	bool		found;
	int			i;

	local = local_find(stream, n, id.hash, true, &found);
	if (found)
	{
		rebuild = &m->rebuilds[local->rebuild];
		rebuild->lower = Min(rebuild->lower, rebuild_from(entity, row->time));
		return;
	}

	if (m->n == m->nalloc)
	{
		m->nalloc = m->nalloc ? m->nalloc * 2 : 64;
		m->rebuilds = m->rebuilds ? repalloc_huge(m->rebuilds, m->nalloc * sizeof(RaRebuild))
			: palloc(m->nalloc * sizeof(RaRebuild));
		m->windows = m->windows ? repalloc_huge(m->windows, m->nalloc * sizeof(LocalWindow *))
			: palloc(m->nalloc * sizeof(LocalWindow *));
	}
	local->rebuild = m->n;
	local->window = NULL;
	local->wide = false;
	rebuild = &m->rebuilds[m->n];
	rebuild->lower = rebuild_from(entity, row->time);
	rebuild->values = palloc(columns->n * sizeof(Datum));
	for (i = 0; i < columns->n; i++)
	{
		bool		isnull;

		rebuild->values[i] = ra_row_value(stream->rs, row, columns->attnos[i], &isnull);
	}
	m->windows[m->n++] = local;
}

/* Windows that an event reads without being in them: those of other lookups */
static void
note_foreign(RaStream *stream, RaBatchEvent *event)
{
	RaRuleSet  *rs = stream->rs;
	int			l;

	if (!event->score)
		return;
	for (l = 0; l < rs->nlookups; l++)
	{
		RaLookup   *lookup = &rs->lookups[l];
		RaEntityId	id = event->lookups[l];
		RaWindow   *window;
		bool		present;
		bool		wide;

		if (lookup->own || !id.present)
			continue;
		window = ra_cache_lock(stream->instances[lookup->entity], id.hash, RA_CACHE_READ, &wide);
		present = window != NULL &&
			(wide || window->complete_from <= needed_from(&rs->entities[lookup->entity],
														  event->row.time));
		ra_cache_unlock(stream->instances[lookup->entity], id.hash);
		if (!present)
			note_missing(stream, lookup->entity, &lookup->columns, id, &event->row);
	}
}

/* Rebuild windows from the stream's table, which the worker's state says meanwhile */
static void
read_windows(RaRuleSet *rs, int entity, int n, RaRebuild *rebuilds, Snapshot snapshot)
{
	RaDatabase *db = ra_my_database();

	pg_atomic_write_u32(&db->rebuilding, 1);
	ra_rebuild(rs, entity, n, rebuilds, PG_INT64_MAX, snapshot, skip_event);
	pg_atomic_write_u32(&db->rebuilding, 0);	/* after an error: ra_batch_run() */
}

/* Read what is missing; false: nothing was */
static bool
rebuild_missing(RaStream *stream, Snapshot snapshot)
{
	bool		any = false;
	int			n,
				i;

	for (n = 0; n < stream->nentities; n++)
	{
		Missing    *m = &missing[n];

		if (m->n == 0)
			continue;
		any = true;
		read_windows(stream->rs, n, m->n, m->rebuilds, snapshot);
		for (i = 0; i < m->n; i++)
		{
			LocalWindow *local = m->windows[i];
			RaEntityHash hash = {{local->key.h[0], local->key.h[1]}};

			local->wide = m->rebuilds[i].wide;
			local->window = m->rebuilds[i].window;
			if (ra_cache_put(stream->instances[n], hash, m->rebuilds[i].window, m->rebuilds[i].wide))
			{
				pfree(m->rebuilds[i].window);
				local->window = NULL;
			}
		}
	}
	return any;
}

static LocalWindow *
local_find(RaStream *stream, int entity, RaEntityHash hash, bool create, bool *found)
{
	LocalKey	key;

	/* mostly nothing is rebuilt */
	if (!create && hash_get_num_entries(locals) == 0)
	{
		*found = false;
		return NULL;
	}
	memset(&key, 0, sizeof(key));
	key.h[0] = hash.h[0];
	key.h[1] = hash.h[1];
	key.stream_id = stream->stream_id;
	key.entity = entity;
	return hash_search(locals, &key, create ? HASH_ENTER : HASH_FIND, found);
}

/* The window that a scored event needs and the cache lacks by now */
static LocalWindow *
local_make(RaStream *stream, RaBatchEvent *event, int lookup_no, Snapshot snapshot)
{
	RaRuleSet  *rs = stream->rs;
	RaLookup   *lookup = &rs->lookups[lookup_no];
	RaEntity   *entity = &rs->entities[lookup->entity];
	MemoryContext old = MemoryContextSwitchTo(locals_cxt);
	RaEntityHash hash = event->lookups[lookup_no].hash;
	LocalWindow *local;
	RaRebuild	rebuild;
	bool		found;
	int			i,
				e;

	local = local_find(stream, lookup->entity, hash, true, &found);
	if (found && (local->wide ||
				  (local->window &&
				   local->window->complete_from <= needed_from(entity, event->row.time))))
	{
		MemoryContextSwitchTo(old);
		return local;
	}

	rebuild.lower = rebuild_from(entity, event->row.time);
	rebuild.values = palloc(entity->columns.n * sizeof(Datum));
	for (i = 0; i < entity->columns.n; i++)
	{
		bool		isnull;

		rebuild.values[i] = ra_row_value(rs, &event->row, lookup->columns.attnos[i], &isnull);
	}
	read_windows(rs, lookup->entity, 1, &rebuild, snapshot);
	local->window = rebuild.window;
	local->wide = rebuild.wide;
	if (!local->wide)
	{
		/* put the batch's own events in order of arrival */
		for (e = stream->forgotten; e < stream->nevents && !local->wide; e++)
			local_apply(stream, local, &stream->events[e]);
		for (e = stream->forgotten; e < stream->nevents && !local->wide && any_update; e++)
		{
			if (stream->events[e].arrived && !stream->events[e].gone)
				local_apply(stream, local, &stream->events[e]);
		}
	}

	/* rebuilding stored other rows: this event's is the one to score */
	ra_row_store(rs, &event->row);
	MemoryContextSwitchTo(old);
	return local;
}

/* Bring a window of this batch up to date */
static void
local_apply(RaStream *stream, LocalWindow *local, const RaBatchEvent *event)
{
	int			n = local->key.entity;
	RaWindowSpec *spec = &stream->rs->entities[n].spec;
	RaEvent		add;

	if (!event->usable)
		return;
	if (event->op == RA_OP_UPDATE && event->old.timed && is_local(local, event->old_ids[n]))
		ra_window_remove(local->window, spec, event->old.time, event->old.key);
	if (!event->row.timed || !is_local(local, event->ids[n]))
		return;
	if (event->op == RA_OP_DELETE)
		ra_window_remove(local->window, spec, event->row.time, event->row.key);
	else if (event->measures[n] == NULL)
		local->wide = true;
	else
	{
		add.time = event->row.time;
		add.key = event->row.key;
		add.values = event->measures[n];
		local_add(stream, local, &add);
	}
}

static bool
is_local(const LocalWindow *local, RaEntityId id)
{
	return id.present && id.hash.h[0] == local->key.h[0] && id.hash.h[1] == local->key.h[1];
}

/*
 * Fetch ahead what the events behind event number e will need to be applied, or
 * (ranges) to be scored.
 */
static void
prefetch_entities(RaStream *stream, int e, bool ranges)
{
	int			n;

	if (e + PREFETCH_EVENT < stream->nevents)
		__builtin_prefetch(&stream->events[e + PREFETCH_EVENT].ids);
	if (e + PREFETCH_IDS < stream->nevents)
		__builtin_prefetch(stream->events[e + PREFETCH_IDS].ids);
	for (n = 0; n < stream->nentities; n++)
	{
		if (e + PREFETCH_CHAIN < stream->nevents)
		{
			RaEntityId *id = &stream->events[e + PREFETCH_CHAIN].ids[n];

			if (id->present)
				ra_cache_prefetch_chain(stream->instances[n], id->hash);
		}
		if (e + PREFETCH_ENTRY < stream->nevents)
		{
			RaEntityId *id = &stream->events[e + PREFETCH_ENTRY].ids[n];

			if (id->present)
				ra_cache_prefetch_entry(stream->instances[n], id->hash);
		}
		if (e + PREFETCH_WINDOW < stream->nevents)
		{
			RaEntityId *id = &stream->events[e + PREFETCH_WINDOW].ids[n];

			if (id->present)
				ra_cache_prefetch_window(stream->instances[n], id->hash,
										 &stream->rs->entities[n].spec, ranges);
		}
		if (!ranges && e + PREFETCH_VALUES < stream->nevents && stream->rs->entities[n].has_distinct)
			prefetch_values(stream, &stream->events[e + PREFETCH_VALUES], n);
	}
}

/* Fetch ahead what an event's values will be compared with where they are looked for */
static void
prefetch_values(RaStream *stream, const RaBatchEvent *event, int n)
{
	RaWindow   *window;
	bool		wide;

	if (!event->usable || event->op == RA_OP_DELETE || !event->row.timed || !event->ids[n].present ||
		event->measures[n] == NULL)
		return;
	window = ra_cache_lock(stream->instances[n], event->ids[n].hash, RA_CACHE_WRITE, &wide);
	if (window && !wide)
		ra_window_prefetch_values(window, &stream->rs->entities[n].spec, event->measures[n]);
	ra_cache_unlock(stream->instances[n], event->ids[n].hash);
}

/* Bring the event's windows up to date; rebuilt_only: those rebuilt just now */
static void
apply_event(RaStream *stream, RaBatchEvent *event, bool rebuilt_only)
{
	int			n;

	if (!event->usable || event - stream->events < stream->forgotten)
		return;
	for (n = 0; n < stream->nentities; n++)
	{
		if (event->op == RA_OP_UPDATE && event->old.timed &&
			(!rebuilt_only || is_rebuilt(stream, n, event->old_ids[n])))
			apply_remove(stream, n, event->old_ids[n], &event->old);
		if (!event->row.timed || (rebuilt_only && !is_rebuilt(stream, n, event->ids[n])))
			continue;
		if (event->op == RA_OP_DELETE)
			apply_remove(stream, n, event->ids[n], &event->row);
		else
			apply_add(stream, n, event->ids[n], &event->row, event->measures[n],
					  event->score && !rebuilt_only);
	}
}

static bool
is_update(const RaBatchEvent *event)
{
	return event->usable && (event->op == RA_OP_UPDATE ||
							 (event->op == RA_OP_INSERT && !event->arrived));
}

/* A new row, as it is by now, goes behind all others of its time so far */
static void
apply_arrival(RaStream *stream, RaBatchEvent *event)
{
	int			n;

	if (!event->usable || !event->arrived || event->gone || !event->row.timed ||
		event - stream->events < stream->forgotten)
		return;
	for (n = 0; n < stream->nentities; n++)
		apply_add(stream, n, event->ids[n], &event->row, event->measures[n], false);
}

static bool
is_rebuilt(RaStream *stream, int n, RaEntityId id)
{
	bool		found;

	return id.present && local_find(stream, n, id.hash, false, &found) != NULL;
}

static void
apply_remove(RaStream *stream, int n, RaEntityId id, const RaRow *row)
{
	RaEntity   *entity = &stream->rs->entities[n];
	LocalWindow *local;
	RaWindow   *window;
	bool		wide;
	bool		found;

	if (!id.present)
		return;
	window = ra_cache_lock(stream->instances[n], id.hash, RA_CACHE_WRITE, &wide);
	if (window && !wide)
		ra_window_remove(window, &entity->spec, row->time, row->key);
	ra_cache_unlock(stream->instances[n], id.hash);

	local = local_find(stream, n, id.hash, false, &found);
	if (local && local->window && !local->wide)
		ra_window_remove(local->window, &entity->spec, row->time, row->key);
}

/*
 * values NULL: too large a number, the entity is computed from the table from
 * now on.  score: the event will be scored, so its window must be there.
 */
static void
apply_add(RaStream *stream, int n, RaEntityId id, const RaRow *row, const RaValue *values, bool score)
{
	RaEntity   *entity = &stream->rs->entities[n];
	RaInstance	instance = stream->instances[n];
	LocalWindow *local;
	RaEvent		event;
	bool		too_large = values == NULL;
	bool		found;
	int			attempt;

	if (!id.present)
		return;
	event.time = row->time;
	event.key = row->key;
	event.values = values;

	for (attempt = 0; attempt < 2; attempt++)
	{
		RaWindowResult result = RA_WINDOW_OLD;
		RaWindow   *window;
		int64		newest = row->time;
		bool		incomplete;
		bool		wide;

		window = ra_cache_lock(instance, id.hash, RA_CACHE_WRITE, &wide);
		if (window == NULL || wide)
		{
			ra_cache_unlock(instance, id.hash);
			if (window == NULL && score && missing[n].read_own)
				note_missing(stream, n, &entity->columns, id, row);
			break;
		}
		incomplete = window->complete_from > needed_from(entity, row->time);
		if (!too_large)
			result = ra_window_add(window, &entity->spec, &event);
		if (window->count > 0)
			newest = Max(newest, ra_window_time(window, window->count - 1));
		ra_cache_unlock(instance, id.hash);
		if (incomplete && score && missing[n].read_own)
			note_missing(stream, n, &entity->columns, id, row);

		if (too_large || result == RA_WINDOW_RANGE)
		{
			Size		size = ra_window_size(&entity->spec, 0, 0, 0);
			RaWindow   *empty = ra_window_init(palloc(size), &entity->spec, 0, 0, 0, PG_INT64_MIN);

			if (!ra_cache_put(instance, id.hash, empty, true))
				ra_cache_drop(instance, id.hash);
			pfree(empty);
			break;
		}
		if (result != RA_WINDOW_FULL)
			break;
		/* an event dated in the future must not expire what is current */
		newest = Min(Min(newest, GetCurrentTimestamp()), oldest_scored);
		if (!ra_cache_grow(instance, id.hash, &entity->spec, &event, rebuild_from(entity, newest)))
			break;
	}

	local = local_find(stream, n, id.hash, false, &found);
	if (local && local->window && !local->wide)
	{
		if (too_large)
			local->wide = true;
		else
			local_add(stream, local, &event);
	}
}

static void
local_add(RaStream *stream, LocalWindow *local, const RaEvent *event)
{
	RaWindowSpec *spec = &stream->rs->entities[local->key.entity].spec;
	RaWindowResult result = ra_window_add(local->window, spec, event);

	if (result == RA_WINDOW_FULL)
	{
		RaWindow   *window = local->window;
		uint32		capacity = window->count + Max(window->count / 2, 8);
		uint64		bytes = (uint64) window->bytes_used * 2 + (uint64) ra_window_event_bytes(spec, event) * 4;
		uint64		long_sums = ra_window_long_sums(window, spec, event);
		Size		size = ra_window_size(spec, long_sums, capacity, bytes);
		MemoryContext old = MemoryContextSwitchTo(locals_cxt);

		if (size == 0)
		{
			local->wide = true;
			MemoryContextSwitchTo(old);
			return;
		}
		local->window = ra_window_init(palloc_extended(size, MCXT_ALLOC_HUGE), spec, long_sums,
									   capacity, bytes, window->complete_from);
		ra_window_copy(local->window, window, spec);
		pfree(window);
		result = ra_window_add(local->window, spec, event);
		MemoryContextSwitchTo(old);
	}
	if (result == RA_WINDOW_RANGE)
		local->wide = true;
}
