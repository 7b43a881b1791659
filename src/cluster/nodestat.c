/*
 * nodestat.c
 *	  What this server has asked of each node, and what is under way.
 *
 * A fixed number of slots in shared memory, one per name of a node.  A slot is
 * made when a node is first asked something.  When all are in use, the one that
 * was asked longest ago makes room, unless something is under way there; if
 * that is so with all, the newcomer is not counted, and a request that found no
 * slot may end without one.
 *
 * One lock protects everything, and is held for a search through the names at
 * most: nothing under it can throw.  Next to a round trip it costs nothing.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "cluster/nodestat.h"

#define MAX_NODES 64
#define TRANCHE "risk_alert_nodes"
#define STATUS_COLUMNS 9

typedef struct NodeStat
{
	char		name[NAMEDATALEN];	/* empty: free */
	uint32		in_flight;
	int64		requests;
	int64		errors;
	double		total_ms;
	double		min_ms;
	double		max_ms;
	double		last_ms;
	TimestampTz last_at;		/* of the latest beginning or end */
} NodeStat;

typedef struct NodeStats
{
	LWLock	   *lock;			/* protects the slots */
	pg_atomic_uint32 turn;		/* free of locks */
	NodeStat	nodes[MAX_NODES];
} NodeStats;

static NodeStats *stats = NULL;

PG_FUNCTION_INFO_V1(ra_node_status);

static NodeStat *find(const char *node);
static NodeStat *find_or_make(const char *node);

void
ra_nodestat_shmem_request(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(NodeStats)));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

/* The caller holds AddinShmemInitLock */
void
ra_nodestat_shmem_startup(void)
{
	bool		found;

	stats = ShmemInitStruct("risk_alert nodes", sizeof(NodeStats), &found);
	if (!found)
	{
		memset(stats, 0, sizeof(NodeStats));
		stats->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
		pg_atomic_init_u32(&stats->turn, 0);
	}
}

void
ra_nodestat_begin(const char *node)
{
	NodeStat   *stat;

	if (stats == NULL)
		return;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	stat = find_or_make(node);
	if (stat)
	{
		stat->in_flight++;
		stat->last_at = GetCurrentTimestamp();
	}
	LWLockRelease(stats->lock);
}

void
ra_nodestat_end(const char *node)
{
	NodeStat   *stat;

	if (stats == NULL)
		return;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	stat = find(node);
	if (stat && stat->in_flight > 0)
		stat->in_flight--;
	LWLockRelease(stats->lock);
}

void
ra_nodestat_count(const char *node, double ms, bool failed)
{
	NodeStat   *stat;

	if (stats == NULL)
		return;
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	stat = find_or_make(node);
	if (stat)
	{
		if (stat->requests == 0 || ms < stat->min_ms)
			stat->min_ms = ms;
		if (stat->requests == 0 || ms > stat->max_ms)
			stat->max_ms = ms;
		stat->last_ms = ms;
		stat->total_ms += ms;
		stat->requests++;
		if (failed)
			stat->errors++;
		stat->last_at = GetCurrentTimestamp();
	}
	LWLockRelease(stats->lock);
}

uint32
ra_nodestat_in_flight(const char *node)
{
	NodeStat   *stat;
	uint32		in_flight;

	if (stats == NULL)
		return 0;
	LWLockAcquire(stats->lock, LW_SHARED);
	stat = find(node);
	in_flight = stat ? stat->in_flight : 0;
	LWLockRelease(stats->lock);
	return in_flight;
}

uint32
ra_nodestat_turn(void)
{
	static uint32 mine = 0;

	return stats ? pg_atomic_fetch_add_u32(&stats->turn, 1) : mine++;
}

static NodeStat *
find(const char *node)
{
	int			i;

	for (i = 0; i < MAX_NODES; i++)
	{
		if (strcmp(stats->nodes[i].name, node) == 0)
			return &stats->nodes[i];
	}
	return NULL;
}

static NodeStat *
find_or_make(const char *node)
{
	NodeStat   *stat = find(node);
	int			i;

	if (stat)
		return stat;
	for (i = 0; i < MAX_NODES; i++)
	{
		NodeStat   *other = &stats->nodes[i];

		/* a free slot has last_at 0 */
		if (other->in_flight == 0 && (stat == NULL || other->last_at < stat->last_at))
			stat = other;
	}
	if (stat)
	{
		memset(stat, 0, sizeof(NodeStat));
		strlcpy(stat->name, node, NAMEDATALEN);
	}
	return stat;
}

/*
 * risk_alert._node_status(): one row per node that was asked something
 */
Datum
ra_node_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	NodeStat   *copies;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	if (stats == NULL)
		PG_RETURN_NULL();

	copies = palloc(sizeof(stats->nodes));
	LWLockAcquire(stats->lock, LW_SHARED);
	memcpy(copies, stats->nodes, sizeof(stats->nodes));
	LWLockRelease(stats->lock);

	for (i = 0; i < MAX_NODES; i++)
	{
		NodeStat   *stat = &copies[i];
		Datum		values[STATUS_COLUMNS];
		bool		nulls[STATUS_COLUMNS] = {false};

		/* another database may have named it in an encoding of its own */
		if (stat->name[0] == '\0' ||
			!pg_verify_mbstr(GetDatabaseEncoding(), stat->name, strlen(stat->name), true))
			continue;
		values[0] = CStringGetTextDatum(stat->name);
		values[1] = Int64GetDatum(stat->requests);
		values[2] = Int64GetDatum(stat->errors);
		values[3] = Int32GetDatum((int32) stat->in_flight);
		values[4] = Float8GetDatum(stat->requests ? stat->total_ms / stat->requests : 0);
		values[5] = Float8GetDatum(stat->min_ms);
		values[6] = Float8GetDatum(stat->max_ms);
		values[7] = Float8GetDatum(stat->last_ms);
		values[8] = TimestampTzGetDatum(stat->last_at);
		nulls[4] = nulls[5] = nulls[6] = nulls[7] = stat->requests == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	PG_RETURN_NULL();
}
