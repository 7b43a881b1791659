/*
 * ruleset.c
 *	  From configuration tables to something that can be evaluated.
 *
 * Loading a rule set:
 *
 * 1. Read the rows of the stream, its features and its rules, with one snapshot: a version
 *	  and what is in it.
 * 2. Parse each feature's value and filter, and distribute the features over
 *	  entities (one per set of columns), measures (one per value, filter and
 *	  owner, shared by all functions and windows over it) and look-ups (one per
 *	  entity and list of the event's columns).
 * 3. Parse each rule's condition and reason against columns and features.
 * 4. Compile: plan, turn features' Params into Vars of the outer slot, and
 *	  prepare for execution in an EState of the rule set's own.
 *
 * Each feature and each rule is loaded in a subtransaction and as its owner.  One
 * that fails, because a function, a right, a role or a column it needs is gone,
 * is noted as a problem and does not stop the rest; rules over a broken feature
 * are broken with it.  A stream whose table, key or time is gone is broken as a whole.
 *
 * All that lasts is in the rule set's memory context; the rest stays in one
 * that is thrown away at the end.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "compat.h"
#include "engine/guard.h"
#include "engine/hash.h"
#include "engine/load.h"
#include "engine/reason.h"
#include "engine/score.h"

#define DECIMAL_DEFAULT_SCALE	6
#define DECIMAL_MAX_SCALE		18

/* A feature on its way into the rule set */
typedef struct RaFeatureDraft
{
	struct RaLoader *loader;
	RaFeatureRow *row;
	RaFeature	feature;
	char	   *error;
} RaFeatureDraft;

typedef struct RaRuleDraft
{
	struct RaLoader *loader;
	RaRuleRow  *row;
	RaRule		rule;
	bool		runs;			/* its status is shadow or active */
	char	   *error;
} RaRuleDraft;

typedef struct RaLoader
{
	RaRuleSet  *rs;
	RaStreamRow *stream;
	RaNames		names;
	Snapshot	snapshot;		/* what the rows are read with */
	RaUses	   *uses;			/* or NULL */
	RaFeatureDraft *drafts;		/* as in names.features */
	Bitmapset  *captured;
	List	  **measure_keys;	/* per entity: text that identifies each measure */
} RaLoader;

static RaRuleSet *load(int32 stream_id, MemoryContext parent, RaUses *uses);
static bool load_stream(RaLoader *loader);
static char *find_stream_columns(RaLoader *loader);
static void load_features(RaLoader *loader, List *rows);
static void load_feature(void *arg);
static void load_rules(RaLoader *loader, List *rows);
static void load_rule(void *arg);
static int	find_entity(RaLoader *loader, int n, const AttrNumber *entity, AttrNumber *lookup);
static int	find_measure(RaLoader *loader, int entity, const RaFeatureRow *row, RaAggregateFunction function,
						 Node *value, Node *filter);
static int	find_lookup(RaLoader *loader, int entity, int n, const AttrNumber *attnos);
static void finish_entities(RaLoader *loader);
static void add_problem(RaRuleSet *rs, const char *kind, const char *name, const char *error);
static ExprState *compile(RaLoader *loader, Node *expr);


RaRuleSet *
ra_ruleset_load(int32 stream_id, MemoryContext parent)
{
	return load(stream_id, parent, NULL);
}

RaRuleSet *
ra_ruleset_load_all(int32 stream_id, MemoryContext parent, RaUses *uses)
{
	memset(uses, 0, sizeof(RaUses));
	return load(stream_id, parent, uses);
}

static RaRuleSet *
load(int32 stream_id, MemoryContext parent, RaUses *uses)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch;
	RaLoader	loader;
	RaRuleSet  *rs;
	int			nestlevel;
	int			i = 0;

	scratch = AllocSetContextCreate(caller, "risk_alert loading", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(scratch);

	memset(&loader, 0, sizeof(loader));
	loader.uses = uses;
	/*
	 * Who renames a column renames it in the rules, too: after the snapshot he must wait
	 * for us.
	 */
	loader.stream = ra_read_stream(stream_id, NULL);
	if (loader.stream != NULL)
	{
		loader.names.rel = try_relation_open(loader.stream->relid, AccessShareLock);
		loader.snapshot = ra_config_snapshot();
		loader.stream = loader.snapshot ? ra_read_stream(stream_id, loader.snapshot) : NULL;
	}
	if (loader.stream == NULL)
	{
		if (loader.snapshot != NULL)
			UnregisterSnapshot(loader.snapshot);
		if (loader.names.rel != NULL)
			relation_close(loader.names.rel, AccessShareLock);
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(scratch);
		return NULL;
	}

	{
		/* child of scratch until complete, lest it leak by an error */
		MemoryContext cxt = AllocSetContextCreate(scratch, "risk_alert rule set",
												  ALLOCSET_DEFAULT_SIZES);

		rs = MemoryContextAllocZero(cxt, sizeof(RaRuleSet));
		rs->cxt = cxt;
	}
	loader.rs = rs;
	nestlevel = ra_settings_enter();

	if (load_stream(&loader))
	{
		load_features(&loader, ra_read_features(stream_id, loader.snapshot));
		load_rules(&loader, ra_read_rules(stream_id, loader.snapshot));
		finish_entities(&loader);

		rs->ncaptured = bms_num_members(loader.captured);
		rs->captured = MemoryContextAlloc(rs->cxt, Max(rs->ncaptured, 1) * sizeof(AttrNumber));
		for (int attno = -1; (attno = bms_next_member(loader.captured, attno)) >= 0;)
			rs->captured[i++] = attno;
	}
	if (loader.names.rel != NULL)
		relation_close(loader.names.rel, AccessShareLock);
	UnregisterSnapshot(loader.snapshot);
	ra_settings_leave(nestlevel);

	if (uses != NULL)
	{
		MemoryContextSwitchTo(caller);
		uses->exprs = copyObject(uses->exprs);
		uses->columns = bms_copy(uses->columns);
		if (uses->excess != NULL)
			uses->excess = pstrdup(uses->excess);
	}
	MemoryContextSetParent(rs->cxt, parent);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	return rs;
}

/*
 * What does not depend on features and rules.  False: the stream is broken.
 */
static bool
load_stream(RaLoader *loader)
{
	RaRuleSet  *rs = loader->rs;
	RaStreamRow *stream = loader->stream;

	rs->stream_id = stream->stream_id;
	rs->name = MemoryContextStrdup(rs->cxt, stream->name);
	rs->relid = stream->relid;
	rs->version = stream->version;
	rs->epoch = stream->epoch;
	rs->review_at = stream->review_at;
	rs->deny_at = stream->deny_at;
	rs->suppress = stream->suppress;
	rs->layout_id = stream->layout_id;

	if (loader->names.rel == NULL)
		rs->broken = psprintf("its table (OID %u) no longer exists", stream->relid);
	else
		rs->broken = find_stream_columns(loader);
	if (rs->broken != NULL)
	{
		rs->broken = MemoryContextStrdup(rs->cxt, rs->broken);
		return false;
	}
	return true;
}

/*
 * Find key and time; returns what is wrong, or NULL
 */
static char *
find_stream_columns(RaLoader *loader)
{
	RaRuleSet  *rs = loader->rs;
	Relation	rel = loader->names.rel;
	const char *relname = RelationGetRelationName(rel);
	MemoryContext old;
	AttrNumber *key;
	int			nkey = 0;
	ListCell   *lc;
	Oid			type;

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return psprintf("\"%s\" is not a table", relname);

	key = palloc(Max(list_length(loader->stream->key), 1) * sizeof(AttrNumber));
	foreach(lc, loader->stream->key)
	{
		const char *name = lfirst(lc);
		AttrNumber	attno = ra_column_by_name(rel, name);

		if (attno == 0)
			return psprintf("key column \"%s\" of table \"%s\" no longer exists", name, relname);
		type = getBaseType(TupleDescAttr(RelationGetDescr(rel), attno - 1)->atttypid);
		if (!OidIsValid(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc))
			return psprintf("key column \"%s\" of table \"%s\" has type %s, which cannot be hashed",
							name, relname, format_type_be(type));
		key[nkey++] = attno;
		loader->captured = bms_add_member(loader->captured, attno);
	}

	rs->time_attno = ra_column_by_name(rel, loader->stream->event_time);
	if (rs->time_attno == 0)
		return psprintf("event time column \"%s\" of table \"%s\" no longer exists",
						loader->stream->event_time, relname);
	type = getBaseType(TupleDescAttr(RelationGetDescr(rel), rs->time_attno - 1)->atttypid);
	if (type != TIMESTAMPTZOID && type != TIMESTAMPOID && type != DATEOID)
		return psprintf("event time column \"%s\" of table \"%s\" has type %s, which is no timestamp or date",
						loader->stream->event_time, relname, format_type_be(type));
	rs->time_type = type;
	loader->captured = bms_add_member(loader->captured, rs->time_attno);

	if (loader->uses != NULL)
		loader->uses->columns = bms_copy(loader->captured);

	old = MemoryContextSwitchTo(rs->cxt);
	rs->key = ra_columns_build(rel, nkey, key);
	rs->row = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)),
									   &TTSOpsVirtual);
	rs->estate = CreateExecutorState();
	rs->econtext = CreateExprContext(rs->estate);
	rs->econtext->ecxt_scantuple = rs->row;
	MemoryContextSwitchTo(old);
	return NULL;
}

static void
add_problem(RaRuleSet *rs, const char *kind, const char *name, const char *error)
{
	MemoryContext old = MemoryContextSwitchTo(rs->cxt);

	if (rs->problems == NULL)
		rs->problems = palloc(sizeof(RaProblem));
	else
		rs->problems = repalloc(rs->problems, (rs->nproblems + 1) * sizeof(RaProblem));
	rs->problems[rs->nproblems].kind = kind;
	rs->problems[rs->nproblems].name = pstrdup(name);
	rs->problems[rs->nproblems].error = pstrdup(error);
	rs->nproblems++;
	MemoryContextSwitchTo(old);
}


/*
 * Features
 */

static void
load_features(RaLoader *loader, List *rows)
{
	RaRuleSet  *rs = loader->rs;
	int			n = list_length(rows);
	TupleDesc	desc;
	MemoryContext old;
	ListCell   *lc;

	loader->names.nfeatures = 0;	/* features can't use features */
	loader->names.features = palloc0(Max(n, 1) * sizeof(RaFeatureName));
	loader->drafts = palloc0(Max(n, 1) * sizeof(RaFeatureDraft));
	loader->measure_keys = palloc0(Max(n, 1) * sizeof(List *));

	rs->entities = MemoryContextAllocZero(rs->cxt, Max(n, 1) * sizeof(RaEntity));
	rs->lookups = MemoryContextAllocZero(rs->cxt, Max(n, 1) * sizeof(RaLookup));
	rs->features = MemoryContextAllocZero(rs->cxt, Max(n, 1) * sizeof(RaFeature));

	/*
	 * count(x) can share the measure of another function over x, so these
	 * come last.
	 */
	for (int pass = 0; pass < 2; pass++)
	{
		foreach(lc, rows)
		{
			RaFeatureDraft *draft = &loader->drafts[foreach_current_index(lc)];
			RaFeatureRow *row = lfirst(lc);

			draft->loader = loader;
			draft->row = row;
			if ((strcmp(row->function, "count") == 0 && row->value != NULL) != (pass == 1))
				continue;
			draft->error = ra_attempt(row->owner, load_feature, draft);
		}
	}

	/* their final order is that of their ids, without the broken ones */
	loader->names.nfeatures = n;
	for (int i = 0; i < n; i++)
	{
		RaFeatureDraft *draft = &loader->drafts[i];
		RaFeatureName *name = &loader->names.features[i];

		name->name = draft->row->name;
		name->error = draft->error;
		name->slot = -1;
		if (draft->error != NULL)
		{
			name->type = draft->row->result_type;
			add_problem(rs, "feature", name->name, draft->error);
			continue;
		}
		name->type = draft->feature.result_type;
		name->slot = rs->nfeatures;
		rs->features[rs->nfeatures++] = draft->feature;
	}

	old = MemoryContextSwitchTo(rs->cxt);
	desc = CreateTemplateTupleDesc(rs->nfeatures);
	for (int i = 0; i < rs->nfeatures; i++)
		TupleDescInitEntry(desc, i + 1, rs->features[i].name, rs->features[i].result_type, -1, 0);
	rs->values = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	rs->econtext->ecxt_outertuple = rs->values;
	rs->econtext->ecxt_scantuple = rs->row;
	rs->econtext->ecxt_outertuple = rs->values;
	MemoryContextSwitchTo(old);
}

static AttrNumber *
find_columns(Relation rel, List *names)
{
	AttrNumber *attnos = palloc(Max(list_length(names), 1) * sizeof(AttrNumber));
	ListCell   *lc;

	foreach(lc, names)
	{
		const char *name = lfirst(lc);
		AttrNumber	attno = ra_column_by_name(rel, name);

		if (attno == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of table \"%s\" does not exist",
							name, RelationGetRelationName(rel))));
		attnos[foreach_current_index(lc)] = attno;
	}
	return attnos;
}

/*
 * A step of ra_attempt(): the rule set is changed only when nothing can go
 * wrong any more (new entities and measures without a feature do no harm).
 */
static void
load_feature(void *arg)
{
	RaFeatureDraft *draft = arg;
	RaFeatureRow *row = draft->row;
	RaLoader   *loader = draft->loader;
	RaNames    *names = &loader->names;
	Relation	rel = names->rel;
	RaFeature  *feature = &draft->feature;
	int			n = list_length(row->entity);
	AttrNumber *entity;
	AttrNumber *lookup;
	Node	   *value = NULL;
	Node	   *filter = NULL;
	RaValueClass value_class;
	int			entity_index;
	Bitmapset  *columns = NULL;
	bool		varlena;

	ra_loading_begin(loader->rs, true, row->feature_id, row->name);
	if (!ra_aggregate_by_name(row->function, &feature->function))
		elog(ERROR, "unknown function \"%s\"", row->function);
	entity = find_columns(rel, row->entity);
	lookup = find_columns(rel, row->lookup);
	if (n == 0 || list_length(row->lookup) != n)
		elog(ERROR, "feature has %d entity and %d lookup columns", n, list_length(row->lookup));
	for (int i = 0; i < n; i++)
	{
		ra_check_entity_column(rel, entity[i]);
		ra_check_column_rights(rel, entity[i], row->owner);
		ra_check_column_rights(rel, lookup[i], row->owner);
		columns = bms_add_member(columns, entity[i]);
		columns = bms_add_member(columns, lookup[i]);
	}
	ra_check_lookup(rel, n, entity, lookup);
	ra_check_within(&row->within, &feature->span, &feature->span_months);

	if (row->value != NULL)
		value = ra_expr_parse(names, row->value, RA_EXPR_VALUE, row->owner);
	if (row->filter != NULL)
		filter = ra_expr_parse(names, row->filter, RA_EXPR_FILTER, row->owner);
	ra_aggregate_types(feature->function,
					   value != NULL ? getBaseType(exprType(value)) : InvalidOid,
					   &value_class, &feature->result_type);

	feature->feature_id = row->feature_id;
	feature->name = MemoryContextStrdup(loader->rs->cxt, row->name);
	feature->include_current = row->include_current;
	getTypeOutputInfo(feature->result_type, &feature->result_output, &varlena);
	get_typlenbyval(feature->result_type, &feature->result_typlen, &feature->result_typbyval);

	entity_index = find_entity(loader, n, entity, lookup);
	feature->measure = find_measure(loader, entity_index, row, feature->function, value, filter);
	/* whose value it is, NULL or not */
	if (feature->function == RA_AGG_LAG)
		feature->which = find_measure(loader, entity_index, row, RA_AGG_COUNT, NULL, filter);
	feature->lookup = find_lookup(loader, entity_index, n, lookup);

	if (value != NULL)
		columns = ra_expr_columns(value, columns);
	if (filter != NULL)
		columns = ra_expr_columns(filter, columns);
	loader->captured = bms_add_members(loader->captured, columns);
	if (loader->uses != NULL)
	{
		loader->uses->columns = bms_add_members(loader->uses->columns, columns);
		if (value != NULL)
			loader->uses->exprs = lappend(loader->uses->exprs, value);
		if (filter != NULL)
			loader->uses->exprs = lappend(loader->uses->exprs, filter);
	}
}

/*
 * The entity of these columns in whatever order; lookup is put into its order.
 */
static int
find_entity(RaLoader *loader, int n, const AttrNumber *entity, AttrNumber *lookup)
{
	RaRuleSet  *rs = loader->rs;
	AttrNumber *reordered = palloc(n * sizeof(AttrNumber));
	RaEntity   *e;
	StringInfoData label;
	MemoryContext old;

	for (int i = 0; i < rs->nentities; i++)
	{
		int			matched = 0;

		e = &rs->entities[i];
		if (e->columns.n != n)
			continue;
		for (int j = 0; j < n; j++)
		{
			for (int k = 0; k < n; k++)
			{
				if (entity[k] == e->columns.attnos[j])
				{
					reordered[j] = lookup[k];
					matched++;
					break;
				}
			}
		}
		if (matched == n)
		{
			memcpy(lookup, reordered, n * sizeof(AttrNumber));
			return i;
		}
	}

	e = &rs->entities[rs->nentities];
	memset(e, 0, sizeof(RaEntity));
	old = MemoryContextSwitchTo(rs->cxt);
	e->columns = ra_columns_build(loader->names.rel, n, entity);
	e->measures = palloc0(RA_MAX_MEASURES * sizeof(RaMeasure));
	initStringInfo(&label);
	for (int i = 0; i < n; i++)
		appendStringInfo(&label, "%s%s", i > 0 ? ", " : "", e->columns.names[i]);
	e->label = label.data;
	MemoryContextSwitchTo(old);
	e->has_index = ra_entity_has_index(loader->names.rel, n, entity, rs->time_attno);
	return rs->nentities++;
}

static int
find_lookup(RaLoader *loader, int entity, int n, const AttrNumber *attnos)
{
	RaRuleSet  *rs = loader->rs;
	RaLookup   *l;
	MemoryContext old;

	for (int i = 0; i < rs->nlookups; i++)
	{
		l = &rs->lookups[i];
		if (l->entity == entity &&
			memcmp(l->columns.attnos, attnos, n * sizeof(AttrNumber)) == 0)
			return i;
	}
	l = &rs->lookups[rs->nlookups];
	memset(l, 0, sizeof(RaLookup));
	l->entity = entity;
	l->own = memcmp(rs->entities[entity].columns.attnos, attnos, n * sizeof(AttrNumber)) == 0;
	old = MemoryContextSwitchTo(rs->cxt);
	l->columns = ra_columns_build(loader->names.rel, n, attnos);
	MemoryContextSwitchTo(old);
	return rs->nlookups++;
}

/*
 * Functions whose definition a window's contents depend on: their catalog rows'
 * identity goes into the measure's.
 */
static bool
add_function_version(Oid funcid, void *context)
{
	if (funcid >= FirstNormalObjectId)
	{
		HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));

		if (HeapTupleIsValid(tuple))
		{
			appendStringInfo((StringInfo) context, " %u/%u/%u.%u", funcid,
							 HeapTupleHeaderGetRawXmin(tuple->t_data),
							 ItemPointerGetBlockNumber(&tuple->t_self),
							 ItemPointerGetOffsetNumber(&tuple->t_self));
			ReleaseSysCache(tuple);
		}
	}
	return false;
}

static bool
function_version_walker(Node *node, StringInfo buf)
{
	if (node == NULL)
		return false;
	check_functions_in_node(node, add_function_version, buf);
	return expression_tree_walker(node, function_version_walker, (void *) buf);
}

static uint8
measure_kind(RaValueClass value_class)
{
	switch (value_class)
	{
		case RA_CLASS_NONE:
			return RA_MEASURE_COUNT;
		case RA_CLASS_INT2:
		case RA_CLASS_INT4:
		case RA_CLASS_INT8:
		case RA_CLASS_NUMERIC:
		case RA_CLASS_DATE:
		case RA_CLASS_TIMESTAMP:
			return RA_MEASURE_INT;
		case RA_CLASS_FLOAT8:
			return RA_MEASURE_FLOAT;
		case RA_CLASS_HASH:
			return RA_MEASURE_HASH;
		case RA_CLASS_WORD:
			return RA_MEASURE_WORD;
		case RA_CLASS_BYTES:
			return RA_MEASURE_BYTES;
	}
	return RA_MEASURE_COUNT;
}

static int
find_measure(RaLoader *loader, int entity, const RaFeatureRow *row, RaAggregateFunction function,
			 Node *value, Node *filter)
{
	RaRuleSet  *rs = loader->rs;
	RaEntity   *e = &rs->entities[entity];
	RaMeasureSpec *spec;
	RaMeasure  *m;
	RaMeasure	new;
	RaMeasureSpec new_spec;
	StringInfoData key;
	int			index = -1;
	ListCell   *lc;

	memset(&new, 0, sizeof(new));
	memset(&new_spec, 0, sizeof(new_spec));
	new.owner = row->owner;
	if (value != NULL)
	{
		Oid			result_type;

		new.type = exprType(value);
		new.collation = exprCollation(value);
		if (IsA(value, Var))
			new.attno = ((Var *) value)->varattno;
		ra_aggregate_types(function, getBaseType(new.type), &new.value_class, &result_type);
		if (new.value_class == RA_CLASS_NUMERIC)
		{
			new.scale = ra_expr_scale(value);
			if (new.scale < 0)
			{
				new.scale = DECIMAL_DEFAULT_SCALE;
				new.any_scale = true;
			}
			new.scale = Min(new.scale, DECIMAL_MAX_SCALE);
		}
		new.type = getBaseType(new.type);
	}

	initStringInfo(&key);
	appendStringInfo(&key, "owner %u value %s filter %s", new.owner,
					 value != NULL ? quote_literal_cstr(row->value) : "-",
					 row->filter != NULL ? quote_literal_cstr(row->filter) : "-");
	if (value != NULL)
		function_version_walker(value, &key);
	if (filter != NULL)
		function_version_walker(filter, &key);

	if (function == RA_AGG_COUNT && value != NULL)
	{
		NullTest   *test;

		/* a measure over the same values knows how many there are */
		foreach(lc, loader->measure_keys[entity])
		{
			m = &e->measures[foreach_current_index(lc)];
			if ((m->value_class == RA_CLASS_INT2 || m->value_class == RA_CLASS_INT4 ||
				 m->value_class == RA_CLASS_INT8 || m->value_class == RA_CLASS_FLOAT8) &&
				strcmp(lfirst(lc), key.data) == 0)
				return foreach_current_index(lc);
		}

		/* else it is count(*) with one more condition */
		if (new.attno > 0 &&
			ra_attribute_is_not_null(RelationGetDescr(loader->names.rel), new.attno))
		{
			resetStringInfo(&key);
			appendStringInfo(&key, "owner %u value - filter %s", new.owner,
							 row->filter != NULL ? quote_literal_cstr(row->filter) : "-");
			if (filter != NULL)
				function_version_walker(filter, &key);
		}
		else
		{
			test = makeNode(NullTest);
			test->arg = (Expr *) value;
			test->nulltesttype = IS_NOT_NULL;
			test->argisrow = false;
			test->location = -1;
			filter = filter == NULL ? (Node *) test :
				(Node *) makeBoolExpr(AND_EXPR, list_make2(filter, test), -1);
		}
		value = NULL;
		new.attno = 0;
		new.type = InvalidOid;
		new.collation = InvalidOid;
	}

	/* find it, or make it */
	foreach(lc, loader->measure_keys[entity])
	{
		if (e->measures[foreach_current_index(lc)].value_class == new.value_class &&
			strcmp(lfirst(lc), key.data) == 0)
			index = foreach_current_index(lc);
	}
	if (index < 0)
	{
		if (e->spec.nmeasures >= RA_MAX_MEASURES)
		{
			if (loader->uses != NULL)
				loader->uses->excess =
					psprintf("features of entity \"%s\" aggregate more than %d different values and filters",
							 e->label, RA_MAX_MEASURES);
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("features of entity \"%s\" aggregate more than %d different values and filters",
							e->label, RA_MAX_MEASURES)));
		}
		if (OidIsValid(new.type))
			get_typlenbyval(new.type, &new.typlen, &new.typbyval);
		if (new.value_class == RA_CLASS_HASH)
			ra_hash_lookup(new.type, &new.hash, rs->cxt);
		if (value != NULL && new.attno == 0)
			new.value = compile(loader, value);
		if (filter != NULL)
			new.filter = compile(loader, filter);
		new.feature = MemoryContextStrdup(rs->cxt, row->name);
		new.feature_id = row->feature_id;

		new_spec.kind = measure_kind(new.value_class);
		new_spec.always = filter == NULL &&
			(value == NULL ||
			 (new.attno > 0 &&
			  ra_attribute_is_not_null(RelationGetDescr(loader->names.rel), new.attno)));
		new_spec.special = new.value_class == RA_CLASS_NUMERIC;

		loader->measure_keys[entity] = lappend(loader->measure_keys[entity], key.data);
		index = e->spec.nmeasures++;
		e->measures[index] = new;
		e->spec.measures[index] = new_spec;
	}

	spec = &e->spec.measures[index];
	if (spec->kind == RA_MEASURE_INT || spec->kind == RA_MEASURE_FLOAT)
	{
		if (function == RA_AGG_MIN || function == RA_AGG_MAX)
			spec->minmax = true;
		else if (function != RA_AGG_COUNT && spec->kind == RA_MEASURE_INT)
		{
			spec->sum = true;
			if (function == RA_AGG_STDDEV || function == RA_AGG_VARIANCE)
				spec->sumsq = true;
		}
	}
	return index;
}

/*
 * What can be said about entities only when all features are known
 */
static void
finish_entities(RaLoader *loader)
{
	RaRuleSet  *rs = loader->rs;
	StringInfoData buf;
	int			kept = 0;

	/* a broken feature may have left an entity that no other one has */
	for (int i = 0; i < rs->nentities; i++)
	{
		bool		used = false;

		for (int j = 0; j < rs->nlookups; j++)
		{
			if (rs->lookups[j].entity == i)
			{
				rs->lookups[j].entity = kept;
				used = true;
			}
		}
		if (used)
		{
			rs->entities[kept] = rs->entities[i];
			loader->measure_keys[kept++] = loader->measure_keys[i];
		}
	}
	rs->nentities = kept;

	ra_features_arrange(rs);

	/* all that windows' contents depend on */
	initStringInfo(&buf);
	for (int i = 0; i < rs->nentities; i++)
	{
		RaEntity   *e = &rs->entities[i];
		ListCell   *lc;

		resetStringInfo(&buf);
		appendStringInfo(&buf, "%u %u time %d %u key", MyDatabaseId, rs->relid,
						 rs->time_attno, rs->time_type);
		for (int j = 0; j < rs->key.n; j++)
			appendStringInfo(&buf, " %d %u %u", rs->key.attnos[j], rs->key.types[j],
							 rs->key.collations[j]);
		appendStringInfoString(&buf, " entity");
		for (int j = 0; j < e->columns.n; j++)
			appendStringInfo(&buf, " %d %u %u", e->columns.attnos[j], e->columns.types[j],
							 e->columns.collations[j]);
		foreach(lc, loader->measure_keys[i])
		{
			RaMeasure  *m = &e->measures[foreach_current_index(lc)];
			RaMeasureSpec *s = &e->spec.measures[foreach_current_index(lc)];

			appendStringInfo(&buf, "; %s class %d %u %u %d %d %d%d%d%d%d " INT64_FORMAT, (char *) lfirst(lc),
							 (int) m->value_class, m->type, m->collation, m->scale, s->kind,
							 s->always, s->sum, s->sumsq, s->minmax, s->special, s->span);
		}
		e->layout_hash = hash_bytes_extended((unsigned char *) buf.data, buf.len, 0);
	}
}


/*
 * Rules
 */

static void
load_rules(RaLoader *loader, List *rows)
{
	static const char *const statuses[] = {"draft", "shadow", "active", "retired"};
	static const char *const severities[] = {"low", "medium", "high", "critical"};
	RaRuleSet  *rs = loader->rs;
	ListCell   *lc;

	rs->rules = MemoryContextAllocZero(rs->cxt, Max(list_length(rows), 1) * sizeof(RaRule));
	foreach(lc, rows)
	{
		RaRuleDraft draft;
		RaRuleRow  *row = lfirst(lc);

		memset(&draft, 0, sizeof(draft));
		draft.loader = loader;
		draft.row = row;
		draft.rule.lookup = -1;
		for (int i = 0; i < lengthof(statuses); i++)
		{
			if (strcmp(row->status, statuses[i]) == 0)
				draft.rule.status = (RaRuleStatus) i;
		}
		for (int i = 0; i < lengthof(severities); i++)
		{
			if (strcmp(row->severity, severities[i]) == 0)
				draft.rule.severity = (RaSeverity) i;
		}
		draft.runs = draft.rule.status == RA_RULE_SHADOW || draft.rule.status == RA_RULE_ACTIVE;
		if (!draft.runs && loader->uses == NULL)
			continue;

		draft.rule.rule_id = row->rule_id;
		draft.rule.name = MemoryContextStrdup(rs->cxt, row->name);
		draft.rule.owner = row->owner;
		draft.rule.points = row->points;
		draft.rule.suspended = row->suspended;

		draft.error = ra_attempt(row->owner, load_rule, &draft);
		if (draft.error != NULL)
		{
			add_problem(rs, "rule", row->name, draft.error);
			draft.rule.condition = NULL;
			draft.rule.error = MemoryContextStrdup(rs->cxt, draft.error);
			draft.rule.nreason = 0;
			draft.rule.lookup = -1;
		}
		if (draft.runs)
			rs->rules[rs->nrules++] = draft.rule;
	}
}

/*
 * Another step of ra_attempt()
 */
static void
load_rule(void *arg)
{
	RaRuleDraft *draft = arg;
	RaRuleRow  *row = draft->row;
	RaLoader   *loader = draft->loader;
	RaRuleSet  *rs = loader->rs;
	RaNames    *names = &loader->names;
	Node	   *condition;
	List	   *pieces;
	Bitmapset  *columns;
	int			feature;
	MemoryContext old;
	ListCell   *lc;

	ra_loading_begin(rs, false, row->rule_id, row->name);
	condition = ra_expr_parse(names, row->condition, RA_EXPR_CONDITION, row->owner);
	pieces = ra_reason_parse(names, row->reason, row->owner);
	columns = ra_expr_columns(condition, NULL);

	draft->rule.reason = MemoryContextAllocZero(rs->cxt, list_length(pieces) * sizeof(RaReasonPart));
	foreach(lc, pieces)
	{
		RaReasonPiece *piece = lfirst(lc);
		RaReasonPart *part = &draft->rule.reason[draft->rule.nreason++];
		Oid			output = InvalidOid;
		bool		varlena;

		part->literal = MemoryContextStrdup(rs->cxt, piece->literal);
		if (piece->attno > 0)
		{
			part->column = piece->attno;
			columns = bms_add_member(columns, piece->attno);
			getTypeOutputInfo(TupleDescAttr(RelationGetDescr(names->rel), piece->attno - 1)->atttypid,
							  &output, &varlena);
		}
		else if (piece->feature >= 0)
		{
			int			slot = names->features[piece->feature].slot;

			part->column = -(slot + 1);
			output = rs->features[slot].result_output;
		}
		if (OidIsValid(output))
			fmgr_info_cxt(output, &part->output, rs->cxt);
	}

	feature = ra_expr_first_feature(condition);
	if (feature >= 0)
		draft->rule.lookup = rs->features[names->features[feature].slot].lookup;
	/* what is suspended perhaps for not ending isn't evaluated here either */
	if (!row->suspended || loader->uses != NULL)
	{
		draft->rule.condition = compile(loader, condition);
		old = MemoryContextSwitchTo(rs->cxt);
		draft->rule.guard = ra_guard_find(draft->rule.condition->expr);
		MemoryContextSwitchTo(old);
	}

	if (draft->runs)
		loader->captured = bms_add_members(loader->captured, columns);
	if (loader->uses != NULL)
	{
		loader->uses->columns = bms_add_members(loader->uses->columns, columns);
		loader->uses->exprs = lappend(loader->uses->exprs, condition);
	}
}


/*
 * Compiling
 */

static Node *
slots_mutator(Node *node, RaLoader *loader)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Param))
	{
		Param	   *param = (Param *) node;
		int			slot = loader->names.features[param->paramid - 1].slot;

		return (Node *) makeVar(OUTER_VAR, slot + 1, param->paramtype, param->paramtypmod,
								param->paramcollid, 0);
	}
	return expression_tree_mutator(node, slots_mutator, (void *) loader);
}

/*
 * The current user must be the owner: planning evaluates what is constant,
 * preparation checks the right to call functions.
 */
static ExprState *
compile(RaLoader *loader, Node *expr)
{
	RaRuleSet  *rs = loader->rs;
	List	   *relids;
	List	   *inval_items;
	Expr	   *planned;
	ExprState  *state;
	MemoryContext old;

	planned = expression_planner_with_deps(copyObject((Expr *) expr), &relids, &inval_items);
	planned = (Expr *) slots_mutator((Node *) planned, loader);

	old = MemoryContextSwitchTo(rs->cxt);
	state = ExecInitExpr(copyObject(planned), NULL);
	rs->inval_items = list_concat(rs->inval_items, copyObject(inval_items));
	MemoryContextSwitchTo(old);
	return state;
}
