/*
 * acceptor.c
 *	  This node's vote in the Paxos register: table paxos_acceptor, and the
 *	  functions by which other nodes ask for it.
 *
 * Each request is a transaction of its own, in which src/core/paxos.c says
 * what becomes of the row.  Its answer leaves after the commit, hence after the flush
 * of its WAL: synchronous_commit is raised for it if need be, and within a
 * transaction block requests are refused.  The row is locked, so requests for the
 * same transaction come one after the other.
 *
 * Amnesia.  An acceptor that has forgotten a vote can make two majorities
 * disagree.  So a node votes only if it is the very server that was admitted
 * (paxos_admit()) and has been since.  Table paxos_admission and a file have the same
 * random incarnation.  The file lies where base backups leave files out, and
 * holds its own inode, so that a copy of the directory is told apart.  A restored
 * backup or a promoted standby lacks the file or has another timeline, a
 * dropped and restored database lacks the row, and a copied one has another OID.  What can't be told from here is a machine
 * that is set back as a whole, to a snapshot of its disk.
 *
 * Membership.  Requests name the whole set of acceptors, and whom they are for.  A vote
 * counts for the set that the node was admitted to; with another one, the same
 * transaction might have majorities that do not meet.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "cluster/acceptor.h"
#include "cluster/globalstate.h"
#include "cluster/options.h"
#include "guc.h"
#include "risk_alert.h"
#include "shmem.h"

#define ADMISSION_FILE "pg_stat_tmp/risk_alert.acceptor"

#define ADMISSION_COLUMNS 7

/* Who this server is, as the file or the table has it */
typedef struct Admission
{
	char		incarnation[48];
	uint64		system;
	uint32		timeline;
	Oid			database;		/* of the table only */
	char	   *acceptors;		/* of the table only */
} Admission;

/* A row's columns as parameters: gid, and its state.  These come first in the table; the others are times. */
#define STATE_PARAMS 7
#define CREATED_AT 7
#define CHANGED_AT 8
#define ACCEPTOR_COLUMNS 9

typedef struct StateParams
{
	Datum		values[STATE_PARAMS];
	char		nulls[STATE_PARAMS];
} StateParams;

static Oid	state_types[STATE_PARAMS] = {TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID, TEXTOID};

PG_FUNCTION_INFO_V1(ra_acceptor_promise);
PG_FUNCTION_INFO_V1(ra_acceptor_accept);
PG_FUNCTION_INFO_V1(ra_acceptor_learn);
PG_FUNCTION_INFO_V1(ra_acceptor_decided);
PG_FUNCTION_INFO_V1(ra_acceptor_forget);
PG_FUNCTION_INFO_V1(ra_acceptor_problem);
PG_FUNCTION_INFO_V1(ra_acceptor_names);
PG_FUNCTION_INFO_V1(ra_acceptor_identity);
PG_FUNCTION_INFO_V1(ra_acceptor_admit);

static int	compare_names(const void *a, const void *b);
static int	read_acceptors(char ***names, char **identity, char **reason);
static void servers_changed(Datum arg, int cacheid, uint32 hash);
static Datum serve(FunctionCallInfo fcinfo, const RaPaxosRequest *request);
static void begin_request(FunctionCallInfo fcinfo, SyncCommitLevel level);
static void check_admission(const char *acceptors, const char *node);
static char *problem(Admission *admission);
static bool read_file(Admission *admission, bool *copied);
static bool read_table(Admission *admission);
static void write_file(const char *incarnation);
static bool first_request(const char *gid, const RaPaxosRequest *request, RaPaxosAcceptor *state,
						  RaPaxosAnswer *answer);
static bool has_row(Relation rel, Datum gid);
static void load(const char *gid, bool make, RaPaxosAcceptor *state);
static void fill_params(StateParams *params, const char *gid, const RaPaxosAcceptor *state);
static void store(const char *gid, const RaPaxosAcceptor *state);
static void execute(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types, Datum *values,
					const char *nulls, bool read_only, int expected);

/* ---- values and sets ---- */

const char *
ra_paxos_value_name(RaPaxosValue value)
{
	switch (value)
	{
		case RA_PAXOS_COMMIT:
			return "commit";
		case RA_PAXOS_ABORT:
			return "abort";
		case RA_PAXOS_NONE:
			break;
	}
	return NULL;
}

RaPaxosValue
ra_paxos_value(const char *name)
{
	if (name == NULL)
		return RA_PAXOS_NONE;
	if (strcmp(name, "commit") == 0)
		return RA_PAXOS_COMMIT;
	if (strcmp(name, "abort") == 0)
		return RA_PAXOS_ABORT;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid decision: \"%s\"", name),
			 errhint("A decision is commit or abort.")));
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static int
read_acceptors(char ***names, char **identity, char **reason)
{
	List	   *list;
	ListCell   *lc;
	StringInfoData text;
	int			n = 0;
	int			i;

	if (ra_paxos_acceptors[0] == '\0')
		list = ra_node_names();
	else if (!SplitIdentifierString(pstrdup(ra_paxos_acceptors), ',', &list))
	{
		*reason = pstrdup("risk_alert.paxos_acceptors is not a list of names");
		return -1;
	}
	if (list == NIL)
	{
		*reason = pstrdup("this database has no server for any node, so there are no acceptors");
		return -1;
	}
	if (list_length(list) > RA_PAXOS_MAX)
	{
		*reason = psprintf("there are %d nodes, and at most %d can be acceptors: name them in risk_alert.paxos_acceptors",
						   list_length(list), RA_PAXOS_MAX);
		return -1;
	}

	*names = palloc(list_length(list) * sizeof(char *));
	foreach(lc, list)
		(*names)[n++] = lfirst(lc);
	qsort(*names, n, sizeof(char *), compare_names);
	initStringInfo(&text);
	appendStringInfo(&text, "%s:", ra_cluster_name);
	for (i = 0; i < n; i++)
	{
		if (i > 0 && strcmp((*names)[i - 1], (*names)[i]) == 0)
		{
			*reason = psprintf("risk_alert.paxos_acceptors names \"%s\" twice", (*names)[i]);
			return -1;
		}
		appendStringInfo(&text, "%s%s", i > 0 ? "," : "", quote_identifier((*names)[i]));
	}
	*identity = text.data;
	return n;
}

/* The set as it was found last; each global transaction asks for it, and more than once */
static struct
{
	bool		valid;			/* all below is there, and no server has changed since */
	uint64		changes;		/* of servers, as far as we have heard */
	char	   *setting;		/* risk_alert.paxos_acceptors then */
	int			n;
	char	   *names[RA_PAXOS_MAX];
	char	   *identity;
	MemoryContext cxt;
}			known = {0};

static void
servers_changed(Datum arg, int cacheid, uint32 hash)
{
	known.changes++;
	known.valid = false;
}

int
ra_acceptors(char ***names, char **identity, char **reason)
{
	int			i;

	if (!known.valid || strcmp(known.setting, ra_paxos_acceptors) != 0)
	{
		MemoryContext before;
		uint64		changes;
		int			n;

		known.valid = false;	/* whatever is thrown below */
		if (known.cxt == NULL)
		{
			known.cxt = AllocSetContextCreate(TopMemoryContext, "risk_alert acceptors", ALLOCSET_SMALL_SIZES);
			CacheRegisterSyscacheCallback(FOREIGNSERVEROID, servers_changed, (Datum) 0);
		}
		changes = known.changes;
		n = read_acceptors(names, identity, reason);
		if (n < 0)
			return n;
		MemoryContextReset(known.cxt);
		before = MemoryContextSwitchTo(known.cxt);
		known.n = n;
		for (i = 0; i < n; i++)
			known.names[i] = pstrdup((*names)[i]);
		known.identity = pstrdup(*identity);
		known.setting = pstrdup(ra_paxos_acceptors);
		MemoryContextSwitchTo(before);
		known.valid = known.changes == changes;
	}
	*names = palloc(known.n * sizeof(char *));
	for (i = 0; i < known.n; i++)
		(*names)[i] = pstrdup(known.names[i]);
	*identity = pstrdup(known.identity);
	return known.n;
}

/* _paxos_acceptors(): names of the acceptors */
Datum
ra_acceptor_names(PG_FUNCTION_ARGS)
{
	char	  **names;
	char	   *identity;
	char	   *reason;
	int			n = ra_acceptors(&names, &identity, &reason);
	Datum	   *values;
	int			i;

	if (n < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no Paxos register"),
				 errdetail_internal("%s", reason)));
	values = palloc(n * sizeof(Datum));
	for (i = 0; i < n; i++)
		values[i] = CStringGetTextDatum(names[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* _paxos_identity(): the set of acceptors as requests name it */
Datum
ra_acceptor_identity(PG_FUNCTION_ARGS)
{
	char	  **names;
	char	   *identity;
	char	   *reason;

	if (ra_acceptors(&names, &identity, &reason) < 0)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(identity));
}

/* ---- requests ---- */

/* _paxos_promise(acceptors, node, gid, ballot, proposer) */
Datum
ra_acceptor_promise(PG_FUNCTION_ARGS)
{
	RaPaxosRequest request = {
		.kind = RA_PAXOS_PROMISE,
		.ballot = {PG_GETARG_INT64(3), PG_GETARG_INT64(4)}
	};

	return serve(fcinfo, &request);
}

/* _paxos_accept(acceptors, node, gid, ballot, proposer, value) */
Datum
ra_acceptor_accept(PG_FUNCTION_ARGS)
{
	RaPaxosRequest request = {
		.kind = RA_PAXOS_ACCEPT,
		.ballot = {PG_GETARG_INT64(3), PG_GETARG_INT64(4)},
		.value = ra_paxos_value(text_to_cstring(PG_GETARG_TEXT_PP(5)))
	};

	return serve(fcinfo, &request);
}

/* _paxos_learn(acceptors, node, gid): what this acceptor has accepted */
Datum
ra_acceptor_learn(PG_FUNCTION_ARGS)
{
	RaPaxosRequest request = {.kind = RA_PAXOS_READ};

	return serve(fcinfo, &request);
}

/* _paxos_decided(acceptors, node, gid, value): the outcome, as a majority has accepted it */
Datum
ra_acceptor_decided(PG_FUNCTION_ARGS)
{
	RaPaxosRequest request = {
		.kind = RA_PAXOS_DECIDED,
		.value = ra_paxos_value(text_to_cstring(PG_GETARG_TEXT_PP(3)))
	};

	return serve(fcinfo, &request);
}

static Datum
serve(FunctionCallInfo fcinfo, const RaPaxosRequest *request)
{
	char	   *gid = text_to_cstring(PG_GETARG_TEXT_PP(2));
	RaPaxosAcceptor state;
	RaPaxosAnswer answer;
	TupleDesc	desc;
	Datum		values[RA_ACCEPTOR_COLUMNS];
	bool		nulls[RA_ACCEPTOR_COLUMNS] = {0};
	const char *value;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	begin_request(fcinfo, SYNCHRONOUS_COMMIT_LOCAL_FLUSH);
	if (!first_request(gid, request, &state, &answer))
	{
		load(gid, request->kind != RA_PAXOS_READ, &state);
		if (ra_paxos_acceptor(&state, request, &answer))
			store(gid, &state);
	}
	SPI_finish();

	values[RA_ACCEPTOR_GRANTED] = BoolGetDatum(answer.granted);
	values[RA_ACCEPTOR_PROMISED] = Int64GetDatum(state.promised.counter);
	values[RA_ACCEPTOR_PROMISED_BY] = Int64GetDatum(state.promised.proposer);
	values[RA_ACCEPTOR_ACCEPTED] = Int64GetDatum(state.accepted.counter);
	values[RA_ACCEPTOR_ACCEPTED_BY] = Int64GetDatum(state.accepted.proposer);
	value = ra_paxos_value_name(state.value);
	nulls[RA_ACCEPTOR_VALUE] = value == NULL;
	values[RA_ACCEPTOR_VALUE] = value ? CStringGetTextDatum(value) : (Datum) 0;
	value = ra_paxos_value_name(state.decided);
	nulls[RA_ACCEPTOR_DECIDED] = value == NULL;
	values[RA_ACCEPTOR_DECIDED] = value ? CStringGetTextDatum(value) : (Datum) 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/*
 * _paxos_forget(acceptors, node, gids): the entries may go after register_retention, see
 * ra_forget_expired().  If a crash undoes that, they stay: so nobody has to wait for the disk.
 */
Datum
ra_acceptor_forget(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[1] = {TEXTARRAYOID};
	Datum		values[1] = {PG_GETARG_DATUM(2)};

	begin_request(fcinfo, SYNCHRONOUS_COMMIT_OFF);
	execute(&plan, "INSERT INTO risk_alert.paxos_forgotten (gids) VALUES ($1)",
			1, types, values, NULL, false, SPI_OK_INSERT);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Checks whether this node may answer, and prepares its transaction: how durable its commit is */
static void
begin_request(FunctionCallInfo fcinfo, SyncCommitLevel level)
{
	char	   *acceptors = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *node = text_to_cstring(PG_GETARG_TEXT_PP(1));

	ra_require_preload();
	if (IsTransactionBlock() || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("an acceptor can't answer within a transaction block"),
				 errdetail("The answer would leave before what it says is durable.")));
	SPI_connect();
	check_admission(acceptors, node);

	/* lasts until the end of the transaction; a vote's commit must be flushed */
	if (level == SYNCHRONOUS_COMMIT_OFF)
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	else if (synchronous_commit < level)
		(void) set_config_option("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
}

/* ---- admission ---- */

static void
check_admission(const char *acceptors, const char *node)
{
	Admission	admission;
	char	   *why;

	if (strcmp(node, ra_node_name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a request to acceptor \"%s\" has reached node \"%s\"", node, ra_node_name),
				 errhint("Correct the options of server \"%s\" on the node that has sent it.", node)));
	why = problem(&admission);
	if (why)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" has no vote in the Paxos register", ra_node_name),
				 errdetail_internal("%s", why),
				 errhint("Run SELECT risk_alert.paxos_admit() there, after reading what it asks for.")));
	if (strcmp(acceptors, admission.acceptors) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" votes in another set of acceptors", ra_node_name),
				 errdetail("It was admitted to %s, and is asked as one of %s.", admission.acceptors, acceptors),
				 errhint("All nodes must know the same acceptors; after a change, finish all global transactions and run risk_alert.paxos_admit() on each.")));
}

/* Why this server may not vote, or NULL */
static char *
problem(Admission *admission)
{
	/* the file as this session has read it: while the server runs only admissions change it, in whatever database */
	static Admission file;
	static uint64 read_at = 0;
	uint64		admissions = pg_atomic_read_u64(&ra_global_state->admissions) + 1;
	bool		copied = false;

	if (RecoveryInProgress())
		return pstrdup("It is a standby.");
	if (!read_table(admission))
		return pstrdup("It was not admitted.");
	if (admission->database != MyDatabaseId)
		return pstrdup("Its database is a copy of the one that was admitted.");
	if (read_at != admissions)
	{
		if (!read_file(&file, &copied))
			return pstrdup("It is a copy of the server that was admitted, restored from a backup or promoted.");
		read_at = copied ? 0 : admissions;
	}
	if (copied || file.system != GetSystemIdentifier() || admission->system != file.system ||
		strcmp(admission->incarnation, file.incarnation) != 0)
		return pstrdup("It is another server, or a copy of the one, that was admitted.");
	if (file.timeline != GetWALInsertionTimeLine() || admission->timeline != file.timeline)
		return pstrdup("It was restored or promoted since it was admitted.");
	return NULL;
}

/* copied: it is not the file that was written here */
static bool
read_file(Admission *admission, bool *copied)
{
	char		text[256];
	struct stat st;
	unsigned long long system;
	unsigned long long inode;
	int			fd = OpenTransientFile(ADMISSION_FILE, O_RDONLY | PG_BINARY);
	int			n;

	if (fd < 0)
	{
		if (errno != ENOENT)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", ADMISSION_FILE)));
		return false;
	}
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0 || fstat(fd, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", ADMISSION_FILE)));
	CloseTransientFile(fd);
	text[n] = '\0';
	if (sscanf(text, "%47s %llu %u %llu", admission->incarnation, &system, &admission->timeline, &inode) != 4)
		return false;
	admission->system = system;
	*copied = (unsigned long long) st.st_ino != inode;
	return true;
}

/* Each request asks: a plain look at the one row costs a fraction of what a query does */
static bool
read_table(Admission *admission)
{
	Oid			relid = get_relname_relid("paxos_admission", get_namespace_oid(RA_EXTENSION, false));
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple = systable_getnext(scan);
	bool		found = HeapTupleIsValid(tuple);

	if (found)
	{
		Datum		values[ADMISSION_COLUMNS];
		bool		nulls[ADMISSION_COLUMNS];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		strlcpy(admission->incarnation, TextDatumGetCString(values[1]), sizeof(admission->incarnation));
		admission->system = strtoull(DatumGetCString(DirectFunctionCall1(numeric_out, values[2])), NULL, 10);
		admission->timeline = (uint32) DatumGetInt64(values[3]);
		admission->database = DatumGetObjectId(values[4]);
		admission->acceptors = TextDatumGetCString(values[5]);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

static void
write_file(const char *incarnation)
{
	static const char *const temporary = ADMISSION_FILE ".tmp";
	struct stat st;
	char		text[256];
	int			fd;
	int			len;

	if (unlink(temporary) != 0 && errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", temporary)));
	fd = OpenTransientFile(temporary, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY);
	if (fd < 0 || fstat(fd, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", temporary)));
	len = snprintf(text, sizeof(text), "%s %llu %u %llu\n", incarnation,
				   (unsigned long long) GetSystemIdentifier(), GetWALInsertionTimeLine(),
				   (unsigned long long) st.st_ino);
	if (write(fd, text, len) != len)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", temporary)));
	if (CloseTransientFile(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close file \"%s\": %m", temporary)));
	/* counted before, too: who reads the old file in between shall read again */
	pg_atomic_fetch_add_u64(&ra_global_state->admissions, 1);
	durable_rename(temporary, ADMISSION_FILE, ERROR);
	pg_atomic_fetch_add_u64(&ra_global_state->admissions, 1);
}

/* _paxos_problem(): why this node has no vote; NULL: it has one */
Datum
ra_acceptor_problem(PG_FUNCTION_ARGS)
{
	Admission	admission;
	MemoryContext context = CurrentMemoryContext;
	char	   *why;
	text	   *result = NULL;

	ra_require_preload();
	SPI_connect();
	why = problem(&admission);
	if (why)
	{
		MemoryContextSwitchTo(context);
		result = cstring_to_text(why);
	}
	SPI_finish();
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

/*
 * _paxos_admit(incarnation): this server is the one that votes from now on, in
 * the set of acceptors that it knows.  The file comes first: if the transaction does
 * not commit, file and table differ, and the node has no vote.
 */
Datum
ra_acceptor_admit(PG_FUNCTION_ARGS)
{
	char	  **names;
	char	   *identity;
	char	   *reason;
	char	   *incarnation = text_to_cstring(PG_GETARG_TEXT_PP(0));
	SPIPlanPtr	plan = NULL;
	Oid			types[5] = {TEXTOID, TEXTOID, INT8OID, TEXTOID, OIDOID};
	Datum		values[5];
	int			n = ra_acceptors(&names, &identity, &reason);
	int			i;

	ra_require_preload();
	if (n < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no Paxos register"),
				 errdetail_internal("%s", reason)));
	for (i = 0; i < n; i++)
	{
		if (strcmp(names[i], ra_node_name) == 0)
			break;
	}
	if (i == n)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is none of the acceptors", ra_node_name),
				 errdetail("These are %s.", identity),
				 errhint("An acceptor needs a server for itself, under its risk_alert.node_name.")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("a standby can't be an acceptor")));
	write_file(incarnation);
	values[0] = CStringGetTextDatum(incarnation);
	values[1] = CStringGetTextDatum(psprintf(UINT64_FORMAT, GetSystemIdentifier()));
	values[2] = Int64GetDatum(GetWALInsertionTimeLine());
	values[3] = CStringGetTextDatum(identity);
	values[4] = ObjectIdGetDatum(MyDatabaseId);
	SPI_connect();
	execute(&plan,
			"INSERT INTO risk_alert.paxos_admission (incarnation, system_identifier, timeline, acceptors, database, admitted_at)"
			" VALUES ($1, $2::numeric, $3, $4, $5, now())"
			" ON CONFLICT (one) DO UPDATE SET incarnation = EXCLUDED.incarnation,"
			"  system_identifier = EXCLUDED.system_identifier, timeline = EXCLUDED.timeline,"
			"  acceptors = EXCLUDED.acceptors, database = EXCLUDED.database, admitted_at = EXCLUDED.admitted_at",
			5, types, values, NULL, false, SPI_OK_INSERT);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(identity));
}

/* ---- the table ---- */

/*
 * The common case: nothing is known of the transaction, and the request is granted.  False: it
 * is another case, and nothing was done.  By hand, as each commit of the cluster waits for this: a
 * statement takes several times as long.  When two sessions make the same row in the same
 * moment, one of them fails, and whoever it was for asks again.
 */
static bool
first_request(const char *gid, const RaPaxosRequest *request, RaPaxosAcceptor *state, RaPaxosAnswer *answer)
{
	Relation	rel;
	StateParams params;
	Datum		values[ACCEPTOR_COLUMNS];
	bool		nulls[ACCEPTOR_COLUMNS];
	bool		first;
	int			i;

	ra_paxos_acceptor_init(state);
	if (request->kind == RA_PAXOS_READ || !ra_paxos_acceptor(state, request, answer))
		return false;
	PreventCommandIfReadOnly("INSERT");	/* as the executor does */
	fill_params(&params, gid, state);
	rel = table_open(get_relname_relid("paxos_acceptor", get_namespace_oid(RA_EXTENSION, false)), RowExclusiveLock);
	/* if somebody has put triggers on the table, they shall fire */
	first = rel->trigdesc == NULL && !has_row(rel, params.values[0]);
	if (first)
	{
		memset(nulls, true, sizeof(nulls));
		for (i = 0; i < STATE_PARAMS; i++)
		{
			values[i] = params.values[i];
			nulls[i] = params.nulls[i] == 'n';
		}
		values[CREATED_AT] = values[CHANGED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
		nulls[CREATED_AT] = nulls[CHANGED_AT] = false;
		CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
	}
	table_close(rel, NoLock);
	return first;
}

/* Even one that is not committed yet */
static bool
has_row(Relation rel, Datum gid)
{
	SnapshotData snapshot;
	SysScanDesc scan;
	ScanKeyData key;
	bool		found;

	list_free(RelationGetIndexList(rel));	/* sets rd_pkindex */
	InitDirtySnapshot(snapshot);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, gid);	/* collation "C", as the column */
	scan = systable_beginscan(rel, rel->rd_pkindex, true, &snapshot, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return found;
}

/* The row's state, locked; make: a row is made if there is none */
static void
load(const char *gid, bool make, RaPaxosAcceptor *state)
{
	static SPIPlanPtr lock = NULL;
	static SPIPlanPtr look = NULL;
	static SPIPlanPtr insert = NULL;
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(gid)};
	HeapTuple	tuple;
	TupleDesc	desc;
	bool		isnull;
	int			turn;

	ra_paxos_acceptor_init(state);
	for (turn = 0; turn < 2; turn++)
	{
		if (make)
			execute(&lock,
					"SELECT promised, promised_by, accepted, accepted_by, value, decided"
					" FROM risk_alert.paxos_acceptor WHERE gid = $1 FOR UPDATE",
					1, types, values, NULL, false, SPI_OK_SELECT);
		else
			execute(&look,
					"SELECT promised, promised_by, accepted, accepted_by, value, decided"
					" FROM risk_alert.paxos_acceptor WHERE gid = $1",
					1, types, values, NULL, true, SPI_OK_SELECT);
		if (SPI_processed > 0 || !make)
			break;
		execute(&insert,
				"INSERT INTO risk_alert.paxos_acceptor (gid) VALUES ($1) ON CONFLICT (gid) DO NOTHING",
				1, types, values, NULL, false, SPI_OK_INSERT);
	}
	if (SPI_processed == 0)
	{
		/* removed in that very moment */
		if (make)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("the entry of \"%s\" was removed meanwhile", gid)));
		return;
	}
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	state->promised.counter = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	state->promised.proposer = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
	state->accepted.counter = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
	state->accepted.proposer = DatumGetInt64(SPI_getbinval(tuple, desc, 4, &isnull));
	state->value = ra_paxos_value(SPI_getvalue(tuple, desc, 5));
	state->decided = ra_paxos_value(SPI_getvalue(tuple, desc, 6));
}

static void
fill_params(StateParams *params, const char *gid, const RaPaxosAcceptor *state)
{
	const char *value = ra_paxos_value_name(state->value);
	const char *decided = ra_paxos_value_name(state->decided);

	memset(params->nulls, ' ', sizeof(params->nulls));
	params->values[0] = CStringGetTextDatum(gid);
	params->values[1] = Int64GetDatum(state->promised.counter);
	params->values[2] = Int64GetDatum(state->promised.proposer);
	params->values[3] = Int64GetDatum(state->accepted.counter);
	params->values[4] = Int64GetDatum(state->accepted.proposer);
	params->values[5] = value ? CStringGetTextDatum(value) : (Datum) 0;
	params->values[6] = decided ? CStringGetTextDatum(decided) : (Datum) 0;
	if (value == NULL)
		params->nulls[5] = 'n';
	if (decided == NULL)
		params->nulls[6] = 'n';
}

static void
store(const char *gid, const RaPaxosAcceptor *state)
{
	static SPIPlanPtr plan = NULL;
	StateParams params;

	fill_params(&params, gid, state);
	execute(&plan,
			"UPDATE risk_alert.paxos_acceptor SET promised = $2, promised_by = $3, accepted = $4, accepted_by = $5,"
			" value = $6, decided = $7, changed_at = clock_timestamp() WHERE gid = $1",
			STATE_PARAMS, state_types, params.values, params.nulls, false, SPI_OK_UPDATE);
	if (SPI_processed != 1)
		elog(ERROR, "the entry of \"%s\" is gone", gid);
}

static void
execute(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types, Datum *values,
		const char *nulls, bool read_only, int expected)
{
	int			rc;

	if (*plan == NULL)
	{
		*plan = SPI_prepare(sql, nargs, types);
		if (*plan == NULL || SPI_keepplan(*plan) != 0)
			elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
	}
	rc = SPI_execute_plan(*plan, values, nulls, read_only, 0);
	if (rc != expected)
		elog(ERROR, "a statement has failed: %s", SPI_result_code_string(rc));
}
