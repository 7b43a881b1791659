/*
 * rename.c
 *	  Expressions follow what is renamed.
 *
 * Configuration is stored as text, which names columns, functions and types.
 * Before a command renames one of them, the texts are parsed; afterwards the
 * trees, which know objects by number, are printed again.  What has changed is
 * stored as a change of the stream's configuration like any other, so it gets a
 * version of its own.  Texts that could not be parsed before are left alone.
 *
 * The caller holds the locks by which nothing else can happen to the names in
 * between.  Of functions, types and schemas nobody can; and nobody who renames
 * one should have to lock all streams.  So streams are read without a lock.  When
 * texts are to be stored, the stream is locked, and if its version is another one
 * than that of the texts, the command fails and can be repeated: with the old names,
 * which the newer texts may have been written with, nothing can be parsed any more.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "engine/depend.h"
#include "engine/load.h"
#include "engine/reason.h"

/* A text of a feature or rule, with what it parses to */
typedef struct RaRenameText
{
	const char *table;			/* where it is stored ... */
	const char *column;
	int32		id;
	Oid			owner;
	const char *text;
	bool		is_reason;		/* else an expression, of this kind: */
	RaExprKind	kind;
	Node	   *expr;			/* NULL: could not be parsed */
	List	   *pieces;			/* of a reason */
	const RaNames *names;
} RaRenameText;

/* A list of columns, by number */
typedef struct RaRenameColumns
{
	const char *table;
	const char *column;
	int32		id;
	bool		is_list;		/* name[], else name */
	List	   *names;
	List	   *attnos;
} RaRenameColumns;

typedef struct RaRenameStream
{
	RaStreamRow *row;
	RaNames		names;
	List	   *texts;
	List	   *columns;
} RaRenameStream;

static RaRenameStream *prepare(RaStreamRow *row);
static void add_text(RaRenameStream *stream, const char *table, const char *column, int32 id,
					 Oid owner, const char *text, bool is_reason, RaExprKind kind);
static void parse_text(void *arg);
static void print_text(void *arg);
static void add_columns(RaRenameStream *stream, const char *table, const char *column, int32 id,
						bool is_list, List *names);
static void finish(RaRenameStream *stream);
static void begin_change(RaRenameStream *stream, bool *changed, Oid user);
static bool lock_stream(int32 stream_id, int64 *version);
static void changed_meanwhile(const RaRenameStream *stream);
static void update(const char *table, const char *column, int32 id, Oid type, Datum value);


void *
ra_rename_begin(Oid relid)
{
	List	   *rows = NIL;
	List	   *streams = NIL;
	int			nestlevel;
	ListCell   *lc;

	nestlevel = ra_settings_enter();
	if (OidIsValid(relid))
	{
		int32		stream_id = ra_stream_by_relid(relid);

		if (stream_id != 0)
			rows = list_make1(ra_read_stream(stream_id, NULL));
	}
	else
		rows = ra_read_streams();

	foreach(lc, rows)
	{
		RaRenameStream *stream = prepare(lfirst(lc));

		if (stream != NULL)
			streams = lappend(streams, stream);
	}
	ra_settings_leave(nestlevel);
	return streams;
}

void
ra_rename_end(void *state)
{
	List	   *streams = state;
	int			nestlevel;
	ListCell   *lc;

	if (streams == NIL)
		return;
	CommandCounterIncrement();
	nestlevel = ra_settings_enter();
	foreach(lc, streams)
		finish(lfirst(lc));
	ra_settings_leave(nestlevel);
}

void
ra_rename_lock(int32 stream_id)
{
	Oid			user;
	int			sec_context;
	int64		version;
	int			nestlevel = ra_settings_enter();

	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	(void) lock_stream(stream_id, &version);
	SPI_finish();
	SetUserIdAndSecContext(user, sec_context);
	ra_settings_leave(nestlevel);
}

/*
 * What the stream's texts mean before the command; NULL if its table is gone
 */
static RaRenameStream *
prepare(RaStreamRow *row)
{
	RaRenameStream *stream = palloc0(sizeof(RaRenameStream));
	List	   *features = ra_read_features(row->stream_id, NULL);
	List	   *rules = ra_read_rules(row->stream_id, NULL);
	Relation	rel = try_relation_open(row->relid, AccessShareLock);
	ListCell   *lc;

	if (rel == NULL)
		return NULL;
	stream->row = row;
	ra_names_load(row, features, &stream->names);
	relation_close(rel, AccessShareLock);

	add_columns(stream, "stream", "key", row->stream_id, true, row->key);
	add_columns(stream, "stream", "event_time", row->stream_id, false, list_make1(row->event_time));
	foreach(lc, features)
	{
		RaFeatureRow *f = lfirst(lc);

		add_columns(stream, "feature", "entity", f->feature_id, true, f->entity);
		add_columns(stream, "feature", "lookup", f->feature_id, true, f->lookup);
		add_text(stream, "feature", "value", f->feature_id, f->owner, f->value, false, RA_EXPR_VALUE);
		add_text(stream, "feature", "filter", f->feature_id, f->owner, f->filter, false, RA_EXPR_FILTER);
	}
	foreach(lc, rules)
	{
		RaRuleRow  *r = lfirst(lc);

		add_text(stream, "rule", "condition", r->rule_id, r->owner, r->condition, false, RA_EXPR_CONDITION);
		add_text(stream, "rule", "reason", r->rule_id, r->owner, r->reason, true, RA_EXPR_CONDITION);
	}

	/* the command wants no open references to the table */
	relation_close(stream->names.rel, NoLock);
	stream->names.rel = NULL;
	return stream;
}

static void
add_text(RaRenameStream *stream, const char *table, const char *column, int32 id,
		 Oid owner, const char *text, bool is_reason, RaExprKind kind)
{
	RaRenameText *t = palloc0(sizeof(RaRenameText));

	if (text == NULL)
		return;
	t->table = table;
	t->column = column;
	t->id = id;
	t->owner = owner;
	t->text = text;
	t->is_reason = is_reason;
	t->kind = kind;
	t->names = &stream->names;
	if (ra_attempt(owner, parse_text, t) == NULL)
		stream->texts = lappend(stream->texts, t);
}

static void
parse_text(void *arg)
{
	RaRenameText *t = arg;

	if (t->is_reason)
		t->pieces = ra_reason_parse(t->names, t->text, t->owner);
	else
		t->expr = ra_expr_parse(t->names, t->text, t->kind, t->owner);
}

static void
print_text(void *arg)
{
	RaRenameText *t = arg;

	t->text = t->is_reason ? ra_reason_print(t->names, t->pieces) :
		ra_expr_print(t->names, t->expr, t->kind);
}

static void
add_columns(RaRenameStream *stream, const char *table, const char *column, int32 id,
			bool is_list, List *names)
{
	RaRenameColumns *c = palloc0(sizeof(RaRenameColumns));
	ListCell   *lc;

	c->table = table;
	c->column = column;
	c->id = id;
	c->is_list = is_list;
	c->names = names;
	foreach(lc, names)
	{
		AttrNumber	attno = ra_column_by_name(stream->names.rel, lfirst(lc));

		if (attno == 0)
			return;				/* broken anyway */
		c->attnos = lappend_int(c->attnos, attno);
	}
	stream->columns = lappend(stream->columns, c);
}

/*
 * Store what reads differently now
 */
static void
finish(RaRenameStream *stream)
{
	Oid			user;
	int			sec_context;
	bool		changed = false;
	ListCell   *lc;
	RaStreamRow *row = ra_read_stream(stream->row->stream_id, NULL);
	Relation	rel;

	if (row == NULL)
		return;					/* not watched any more */
	if (row->version != stream->row->version)
		changed_meanwhile(stream);
	rel = try_relation_open(stream->row->relid, AccessShareLock);
	if (rel == NULL)
		return;
	stream->names.rel = rel;

	/* whoever may rename a column need not have rights on our tables */
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();

	foreach(lc, stream->columns)
	{
		RaRenameColumns *c = lfirst(lc);
		int			n = list_length(c->attnos);
		Datum	   *names = palloc(n * sizeof(Datum));
		bool		differs = false;

		for (int i = 0; i < n; i++)
		{
			Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel),
												  list_nth_int(c->attnos, i) - 1);

			names[i] = NameGetDatum(&att->attname);
			if (strcmp(NameStr(att->attname), list_nth(c->names, i)) != 0)
				differs = true;
		}
		if (!differs)
			continue;
		begin_change(stream, &changed, user);
		if (c->is_list)
			update(c->table, c->column, c->id, NAMEARRAYOID,
				   PointerGetDatum(construct_array(names, n, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR)));
		else
			update(c->table, c->column, c->id, NAMEOID, names[0]);
	}

	foreach(lc, stream->texts)
	{
		RaRenameText *t = lfirst(lc);
		const char *old = t->text;

		if (ra_attempt(BOOTSTRAP_SUPERUSERID, print_text, t) != NULL || strcmp(old, t->text) == 0)
			continue;
		begin_change(stream, &changed, user);
		update(t->table, t->column, t->id, TEXTOID, CStringGetTextDatum(t->text));
	}

	if (changed)
	{
		Oid			type = INT4OID;
		Datum		value = Int32GetDatum(stream->row->stream_id);

		if (SPI_execute_with_args("SELECT risk_alert._end_change($1)", 1, &type, &value,
								  NULL, false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not end the change of stream \"%s\"", stream->row->name);
	}
	SPI_finish();
	SetUserIdAndSecContext(user, sec_context);
	relation_close(rel, NoLock);
	stream->names.rel = NULL;
}

static void
begin_change(RaRenameStream *stream, bool *changed, Oid user)
{
	Oid			types[2] = {TEXTOID, REGROLEOID};
	Datum		values[2];
	int64		version;

	if (*changed)
		return;
	*changed = true;
	if (!lock_stream(stream->row->stream_id, &version) || version != stream->row->version)
		changed_meanwhile(stream);
	values[0] = CStringGetTextDatum(stream->row->name);
	values[1] = ObjectIdGetDatum(user);
	if (SPI_execute_with_args("SELECT risk_alert._begin_change($1, $2)", 2, types, values,
							  NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not change stream \"%s\"", stream->row->name);
}

/*
 * Wait for others that change the stream; false if it is gone then
 */
static bool
lock_stream(int32 stream_id, int64 *version)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(stream_id);
	bool		isnull;

	if (SPI_execute_with_args("SELECT version FROM risk_alert.stream WHERE stream_id = $1 FOR UPDATE",
							  1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock stream %d", stream_id);
	if (SPI_processed == 0)
		return false;
	*version = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	return true;
}

static void
changed_meanwhile(const RaRenameStream *stream)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("stream \"%s\" has been changed while something was renamed that its rules may use",
					stream->row->name),
			 errhint("Repeat the command.")));
}

static void
update(const char *table, const char *column, int32 id, Oid type, Datum value)
{
	Oid			types[2] = {INT4OID, type};
	Datum		values[2] = {Int32GetDatum(id), value};
	char	   *query = psprintf("UPDATE risk_alert.%s SET %s = $2 WHERE %s_id = $1",
								 table, column, table);

	if (SPI_execute_with_args(query, 2, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update risk_alert.%s", table);
}
