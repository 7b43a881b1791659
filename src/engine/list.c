/*
 * list.c
 *	  Named lists of values, for conditions: in_list(list, value).
 *
 * A process keeps each list that it uses as a hash table of the values' bytes,
 * read from risk_alert.list_entry when first needed.  Any change of the lists'
 * tables fires a statement trigger (_config_changed()) that invalidates the
 * table's relcache entry everywhere, at commit, and in its own session at once.
 * That raises our generation number; a list loaded under an older number is
 * never looked at again, so all of them are freed as soon as a list of the
 * new generation is asked for.  Nothing is in use then: a look-up runs no code but
 * ours, and the call sites compare generations before they follow pointers.
 *
 * Tables are read with the catalog snapshot, which shows what is committed now
 * and what the own transaction has done, whatever its isolation level; and by
 * scans that ask for nobody's rights, so that a rule's owner needs none on the tables.
 *
 * A list that is too long to be kept by every process is looked up in the
 * table's index for each value.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "engine/announce.h"
#include "engine/queue.h"
#include "risk_alert.h"

/* longer lists are not kept in memory */
#define LIST_MAX_ENTRIES	100000
#define LIST_MAX_BYTES		(16 * 1024 * 1024)

/* columns of risk_alert.list and risk_alert.list_entry */
#define Anum_list_id		1
#define Anum_list_name		2
#define Anum_entry_list		1
#define Anum_entry_value	2
#define Anum_entry_expires	3

/*
 * A value.  Most are short, and lie in the entry itself: a look-up in a long list
 * takes one cache miss instead of two.
 */
#define KEY_INLINE	22
#define KEY_LONG	255			/* len says: elsewhere */

typedef struct ListKey
{
	uint8		len;
	char		data[KEY_INLINE];	/* or a LongValue, unaligned */
} ListKey;

typedef struct LongValue
{
	const char *data;
	uint32		len;
} LongValue;

typedef struct ListEntry
{
	ListKey		key;
	char		status;
	TimestampTz expires;		/* DT_NOEND: never */
} ListEntry;

static ListKey make_key(const char *value, uint32 len);
static uint32 key_hash(const ListKey *key);
static bool key_equal(const ListKey *a, const ListKey *b);

#define SH_PREFIX entries
#define SH_ELEMENT_TYPE ListEntry
#define SH_KEY_TYPE ListKey
#define SH_KEY key
#define SH_HASH_KEY(tb, k) key_hash(&(k))
#define SH_EQUAL(tb, a, b) key_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct RaList
{
	struct RaList *next;
	int32		list_id;
	char	   *name;
	entries_hash *entries;		/* NULL: too long, see the table */
} RaList;

/* What a call of in_list() in an expression remembers */
typedef struct CallSite
{
	uint64		generation;		/* of list; 0: none yet */
	RaList	   *list;
	Oid			type;			/* of the value */
	FmgrInfo	output;
} CallSite;

/* Bumped by every invalidation; lists of another generation are void */
static uint64 generation = 1;

static RaList *lists = NULL;
static uint64 lists_generation = 0;
static MemoryContext lists_cxt = NULL;

/* whose invalidations concern us */
static Oid	list_relid = InvalidOid;
static Oid	entry_relid = InvalidOid;

/* index of list_entry by list and value */
static Oid	entry_index = InvalidOid;

PG_FUNCTION_INFO_V1(ra_in_list);
PG_FUNCTION_INFO_V1(ra_in_list_any);
PG_FUNCTION_INFO_V1(ra_config_changed);

static CallSite *call_site(FunctionCallInfo fcinfo);
static RaList *site_list(CallSite *site, text *name);
static RaList *list_get(const char *name, int len);
static RaList *list_load(const char *name);
static bool list_contains(const RaList *list, const char *value, int len);
static bool list_contains_on_disk(const RaList *list, const char *value, int len);
static void list_invalidate(Datum arg, Oid relid);

/*
 * risk_alert.in_list(list text, value text)
 */
Datum
ra_in_list(PG_FUNCTION_ARGS)
{
	RaList	   *list;
	text	   *value;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	value = PG_GETARG_TEXT_PP(1);
	list = site_list(call_site(fcinfo), PG_GETARG_TEXT_PP(0));
	PG_RETURN_BOOL(list_contains(list, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)));
}

/*
 * risk_alert.in_list(list text, value anyelement): the value as text, as its
 * type's output function writes it
 */
Datum
ra_in_list_any(PG_FUNCTION_ARGS)
{
	CallSite   *site;
	RaList	   *list;
	char		buf[MAXINT8LEN + 1];
	char	   *value;
	int			len;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();

	site = call_site(fcinfo);
	if (!OidIsValid(site->type))
	{
		Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 1);
		Oid			output;
		bool		is_varlena;

		if (!OidIsValid(type))
			elog(ERROR, "could not determine the type of in_list()'s second argument");
		getTypeOutputInfo(type, &output, &is_varlena);
		fmgr_info_cxt(output, &site->output, fcinfo->flinfo->fn_mcxt);
		site->type = getBaseType(type);
	}

	switch (site->type)
	{
		case INT2OID:
			value = buf;
			len = pg_itoa(PG_GETARG_INT16(1), buf);
			break;
		case INT4OID:
			value = buf;
			len = pg_ltoa(PG_GETARG_INT32(1), buf);
			break;
		case INT8OID:
			value = buf;
			len = pg_lltoa(PG_GETARG_INT64(1), buf);
			break;
		case TEXTOID:
		case VARCHAROID:
			{
				text	   *t = PG_GETARG_TEXT_PP(1);

				value = VARDATA_ANY(t);
				len = VARSIZE_ANY_EXHDR(t);
				break;
			}
		default:
			value = OutputFunctionCall(&site->output, PG_GETARG_DATUM(1));
			len = strlen(value);
			break;
	}

	/* the list last: nothing that runs other code may follow */
	list = site_list(site, PG_GETARG_TEXT_PP(0));
	PG_RETURN_BOOL(list_contains(list, value, len));
}

/*
 * risk_alert._config_changed(): trigger for each statement that changes a table
 * which processes keep a copy of
 */
Datum
ra_config_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as a trigger", "risk_alert._config_changed")));
	ra_announce_change();
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

static CallSite *
call_site(FunctionCallInfo fcinfo)
{
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt,
														  sizeof(CallSite));
	return fcinfo->flinfo->fn_extra;
}

/* The list of that name; usually the one of the call before */
static RaList *
site_list(CallSite *site, text *name)
{
	const char *data = VARDATA_ANY(name);
	int			len = VARSIZE_ANY_EXHDR(name);

	if (site->generation != generation ||
		strncmp(site->list->name, data, len) != 0 || site->list->name[len] != '\0')
	{
		site->generation = 0;
		site->list = list_get(data, len);
		site->generation = lists_generation;
	}
	return site->list;
}

static RaList *
list_get(const char *name, int len)
{
	static bool registered = false;
	RaList	   *list;
	char	   *copy;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(list_invalidate, (Datum) 0);
		lists_cxt = AllocSetContextCreate(TopMemoryContext, "risk_alert lists",
										  ALLOCSET_DEFAULT_SIZES);
		registered = true;
	}

	if (lists_generation != generation)
	{
		lists = NULL;
		MemoryContextReset(lists_cxt);	/* and what hangs below it */
		lists_generation = generation;
	}
	for (list = lists; list; list = list->next)
	{
		if (strncmp(list->name, name, len) == 0 && list->name[len] == '\0')
			return list;
	}

	/*
	 * Should an invalidation arrive while we load, the number has changed at
	 * the next call, and the list is loaded again.
	 */
	copy = pnstrdup(name, len);
	list = list_load(copy);
	pfree(copy);
	list->next = lists;
	lists = list;
	return list;
}

/*
 * Read a list into a context of its own, which joins lists_cxt only when it is
 * complete.
 */
static RaList *
list_load(const char *name)
{
	MemoryContext cxt;
	MemoryContext old;
	RaList	   *list;
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		found;
	bool		isnull;
	Size		bytes = 0;

	/* the columns are as this library knows them */
	ra_check_version();

	list_relid = ra_extension_relid("list");
	entry_relid = ra_extension_relid("list_entry");
	entry_index = ra_extension_relid("list_entry_pkey");
	if (!OidIsValid(list_relid) || !OidIsValid(entry_relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("tables of extension \"%s\" are missing", RA_EXTENSION)));

	cxt = AllocSetContextCreate(CurrentMemoryContext, "risk_alert list", ALLOCSET_DEFAULT_SIZES);
	list = MemoryContextAllocZero(cxt, sizeof(RaList));
	list->name = MemoryContextStrdup(cxt, name);

	/* lists are few: no index needed, and none of ours is ordered bytewise */
	rel = table_open(list_relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	found = false;
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		text	   *t = DatumGetTextPP(heap_getattr(tuple, Anum_list_name, RelationGetDescr(rel),
													&isnull));

		if (VARSIZE_ANY_EXHDR(t) == strlen(name) &&
			memcmp(VARDATA_ANY(t), name, strlen(name)) == 0)
		{
			found = true;
			list->list_id = DatumGetInt32(heap_getattr(tuple, Anum_list_id, RelationGetDescr(rel),
													   &isnull));
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("list \"%s\" does not exist", name),
				 errhint("Create it with risk_alert.create_list().")));

	rel = table_open(entry_relid, AccessShareLock);
	ScanKeyInit(&key, Anum_entry_list, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(list->list_id));
	scan = systable_beginscan(rel, entry_index, OidIsValid(entry_index), NULL, 1, &key);
	list->entries = entries_create(cxt, 64, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		d = heap_getattr(tuple, Anum_entry_value, RelationGetDescr(rel), &isnull);
		text	   *t = DatumGetTextPP(d);
		uint32		len = VARSIZE_ANY_EXHDR(t);
		const char *data = VARDATA_ANY(t);
		ListEntry  *entry;

		bytes += len;
		if (list->entries->members >= LIST_MAX_ENTRIES || bytes > LIST_MAX_BYTES)
			break;

		if (len > KEY_INLINE)
			data = memcpy(MemoryContextAlloc(cxt, len), data, len);
		entry = entries_insert(list->entries, make_key(data, len), &found);
		if ((Pointer) t != DatumGetPointer(d))
			pfree(t);
		d = heap_getattr(tuple, Anum_entry_expires, RelationGetDescr(rel), &isnull);
		entry->expires = isnull ? DT_NOEND : DatumGetTimestampTz(d);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (HeapTupleIsValid(tuple))
	{
		/* too long: keep the head only */
		RaList	   *head;

		old = MemoryContextSwitchTo(lists_cxt);
		head = palloc0(sizeof(RaList));
		head->list_id = list->list_id;
		head->name = pstrdup(name);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);
		return head;
	}
	MemoryContextSetParent(cxt, lists_cxt);
	return list;
}

/* A key of that value, which has to stay where it is if it is a long one */
static ListKey
make_key(const char *value, uint32 len)
{
	ListKey		key;

	if (len <= KEY_INLINE)
	{
		key.len = len;
		memcpy(key.data, value, len);
	}
	else
	{
		LongValue	elsewhere = {value, len};

		key.len = KEY_LONG;
		memcpy(key.data, &elsewhere, sizeof(elsewhere));
	}
	return key;
}

static inline LongValue
key_value(const ListKey *key)
{
	LongValue	value = {key->data, key->len};

	if (key->len == KEY_LONG)
		memcpy(&value, key->data, sizeof(value));
	return value;
}

static uint32
key_hash(const ListKey *key)
{
	LongValue	value = key_value(key);

	return hash_bytes((const unsigned char *) value.data, value.len);
}

static bool
key_equal(const ListKey *a, const ListKey *b)
{
	LongValue	v;
	LongValue	w;

	if (a->len != b->len)
		return false;
	v = key_value(a);
	w = key_value(b);
	return v.len == w.len && memcmp(v.data, w.data, v.len) == 0;
}

static bool
list_contains(const RaList *list, const char *value, int len)
{
	ListEntry  *entry;

	if (list->entries == NULL)
		return list_contains_on_disk(list, value, len);
	entry = entries_lookup(list->entries, make_key(value, len));
	return entry != NULL && entry->expires > GetCurrentTransactionStartTimestamp();
}

static bool
list_contains_on_disk(const RaList *list, const char *value, int len)
{
	Relation	rel = table_open(entry_relid, AccessShareLock);
	text	   *t = cstring_to_text_with_len(value, len);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result = false;

	ScanKeyInit(&keys[0], Anum_entry_list, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(list->list_id));
	/* the index's order is its column's collation's */
	ScanKeyEntryInitialize(&keys[1], 0, Anum_entry_value, BTEqualStrategyNumber, InvalidOid,
						   TupleDescAttr(RelationGetDescr(rel), Anum_entry_value - 1)->attcollation,
						   F_TEXTEQ, PointerGetDatum(t));
	scan = systable_beginscan(rel, entry_index, OidIsValid(entry_index), NULL, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		d = heap_getattr(tuple, Anum_entry_expires, RelationGetDescr(rel), &isnull);

		result = isnull || DatumGetTimestampTz(d) > GetCurrentTransactionStartTimestamp();
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	pfree(t);
	return result;
}

static void
list_invalidate(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == list_relid || relid == entry_relid)
		generation++;
}
