/*
 * rulecache.c
 *	  Rule sets that this process keeps, and how it learns that they changed.
 *
 * Who changes a stream's configuration invalidates, with the transaction, the
 * relcache entries of the watched table and of risk_alert.stream (depend.c).
 * Every process is told at the start of its next transaction, or when it takes
 * the next lock, and reloads on demand.  DDL on the table, and changes of
 * functions, types, roles and schemas that rules depend on, are learnt in the same way.
 *
 * Loading reads what is committed at the time, not what the transaction's
 * snapshot shows (config.c).  Invalidations that arrive while loading mark the
 * result as stale at once.
 *
 * A replaced rule set may still be in use up the stack (a rule that calls
 * risk_score()); it lives until the transaction ends.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "engine/queue.h"
#include "engine/ruleset.h"
#include "guc.h"

#define LOAD_TRIES 3

typedef struct RaCacheEntry
{
	int32		stream_id;		/* hash key */
	RaRuleSet  *rs;				/* may be NULL */
} RaCacheEntry;

/* A load in progress.  What planning evaluates can't score (assess.c), so they hardly nest. */
typedef struct RaLoading
{
	struct RaLoading *outer;
	bool		invalidated;
} RaLoading;

uint64		ra_config_generation = 1;

static MemoryContext cache_cxt = NULL;
static HTAB *cache = NULL;
static List *retired = NIL;		/* RaRuleSets, freed at the end of transaction */
static RaLoading *loading = NULL;
static bool superuser_rules_allowed = false;	/* what the rule sets were loaded with */
static Oid	stream_table = InvalidOid;	/* OID of risk_alert.stream, once known */

static void initialise(void);
static RaRuleSet *load(int32 stream_id, bool *invalidated);
static void carry_over(RaRuleSet *new, const RaRuleSet *old);
static void relcache_callback(Datum arg, Oid relid);
static void object_callback(Datum arg, int cacheid, uint32 hashvalue);
static void everything_callback(Datum arg, int cacheid, uint32 hashvalue);
static void xact_callback(XactEvent event, void *arg);


RaRuleSet *
ra_ruleset_get(int32 stream_id)
{
	RaCacheEntry *entry;
	RaRuleSet  *rs;
	int			tries = 0;
	bool		invalidated;
	bool		pushed;
	bool		found;

	if (cache == NULL)
		initialise();
	if (superuser_rules_allowed != ra_allow_superuser_rules)
	{
		superuser_rules_allowed = ra_allow_superuser_rules;
		everything_callback((Datum) 0, 0, 0);
	}
	entry = hash_search(cache, &stream_id, HASH_FIND, NULL);
	if (entry != NULL && entry->rs != NULL && !entry->rs->stale)
		return entry->rs;

	/* before anything is read, or we'd miss that it changes */
	stream_table = ra_extension_relid("stream");

	/* functions that planning evaluates may want one */
	pushed = !ActiveSnapshotSet();
	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());

	/*
	 * What is broken may only have been read while somebody renamed a function: rules
	 * with the old name, and the catalogs with the new one.
	 */
	while (rs = load(stream_id, &invalidated),
		   rs != NULL && invalidated && (rs->nproblems > 0 || rs->broken != NULL) && ++tries < LOAD_TRIES)
		MemoryContextDelete(rs->cxt);
	if (pushed)
		PopActiveSnapshot();

	entry = hash_search(cache, &stream_id, HASH_ENTER, &found);
	if (!found)
		entry->rs = NULL;
	if (entry->rs != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(cache_cxt);

		retired = lappend(retired, entry->rs);
		MemoryContextSwitchTo(old);
		if (rs != NULL)
			carry_over(rs, entry->rs);
		/* who compares pointers must not be fooled by one that is used again */
		ra_config_generation++;
	}
	entry->rs = rs;
	if (rs == NULL)
		hash_search(cache, &stream_id, HASH_REMOVE, NULL);
	else if (invalidated)
		rs->stale = true;
	return rs;
}

/* invalidated: something changed meanwhile */
static RaRuleSet *
load(int32 stream_id, bool *invalidated)
{
	RaRuleSet  *rs;
	RaLoading	this;

	this.outer = loading;
	this.invalidated = false;
	loading = &this;
	PG_TRY();
	{
		rs = ra_ruleset_load(stream_id, cache_cxt);
	}
	PG_FINALLY();
	{
		loading = this.outer;
	}
	PG_END_TRY();
	*invalidated = this.invalidated;
	return rs;
}

bool
ra_ruleset_loading(void)
{
	return loading != NULL;
}

static void
initialise(void)
{
	HASHCTL		ctl;

	if (cache_cxt == NULL)
		cache_cxt = AllocSetContextCreate(TopMemoryContext, "risk_alert rule sets",
										  ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(RaCacheEntry);
	ctl.hcxt = cache_cxt;
	cache = hash_create("risk_alert rule sets", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, object_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, object_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, everything_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, everything_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, everything_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(OPEROID, everything_callback, (Datum) 0);
	RegisterXactCallback(xact_callback, NULL);
}

/*
 * What was counted and not yet written belongs to the rule, not to its version
 */
static void
carry_over(RaRuleSet *new, const RaRuleSet *old)
{
	for (int i = 0, j = 0; i < new->nrules; i++)
	{
		RaRule	   *n = &new->rules[i];
		const RaRule *o;

		while (j < old->nrules && old->rules[j].rule_id < n->rule_id)
			j++;
		if (j == old->nrules || old->rules[j].rule_id != n->rule_id)
			continue;
		o = &old->rules[j];
		n->evaluated = o->evaluated;
		n->fired = o->fired;
		n->evaluated_before = o->evaluated_before;
		n->fired_before = o->fired_before;
		n->errors_before = o->errors_before;
		n->errors = o->errors;
		n->time_ns = o->time_ns;
		if (new->version == old->version)
		{
			n->errors_in_row = o->errors_in_row;
			n->careful = o->careful;
		}
		n->errors_in_row_before = n->errors_in_row;
		n->suspended_before = n->suspended;
		if (o->last_error != NULL)
			n->last_error = MemoryContextStrdup(new->cxt, o->last_error);
	}
}

/*
 * Callbacks: they can come at any time, and must not touch catalogs
 */

static void
mark_stale(RaRuleSet *rs)
{
	rs->stale = true;
	ra_config_generation++;
}

static void
relcache_callback(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	RaCacheEntry *entry;
	bool		all = !OidIsValid(relid) || relid == stream_table;

	if (all)
		ra_config_generation++;
	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->rs != NULL && (all || entry->rs->relid == relid))
			mark_stale(entry->rs);
	}

	for (RaLoading *l = loading; l != NULL; l = l->outer)
		l->invalidated = true;
}

/*
 * A function or a type: of interest to who uses it, and to who misses it
 */
static void
object_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS status;
	RaCacheEntry *entry;

	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		RaRuleSet  *rs = entry->rs;
		ListCell   *lc;

		if (rs == NULL || rs->stale)
			continue;
		if (hashvalue == 0 || rs->nproblems > 0)
			mark_stale(rs);
		foreach(lc, rs->inval_items)
		{
			PlanInvalItem *item = lfirst(lc);

			if (item->cacheId == cacheid && item->hashValue == hashvalue)
			{
				mark_stale(rs);
				break;
			}
		}
	}
	for (RaLoading *l = loading; l != NULL; l = l->outer)
		l->invalidated = true;
}

static void
everything_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	relcache_callback(arg, InvalidOid);
}

static void
xact_callback(XactEvent event, void *arg)
{
	ListCell   *lc;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			loading = NULL;
			foreach(lc, retired)
				MemoryContextDelete(((RaRuleSet *) lfirst(lc))->cxt);
			list_free(retired);
			retired = NIL;
			break;
		default:
			break;
	}
}
