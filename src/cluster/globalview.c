/*
 * globalview.c
 *	  Global transactions as users see them, and what operators do about them.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "cluster/globalstate.h"
#include "cluster/register.h"
#include "cluster/register_local.h"
#include "core/gid.h"
#include "guc.h"
#include "risk_alert.h"
#include "shmem.h"

#define ASK_TIMEOUT 10000		/* ms */
#define GID_COLUMNS 8
#define STATUS_COLUMNS 8

PG_FUNCTION_INFO_V1(ra_global_outcome);
PG_FUNCTION_INFO_V1(ra_local_outcome_fn);
PG_FUNCTION_INFO_V1(ra_coordinator_alive_fn);
PG_FUNCTION_INFO_V1(ra_gid_parts);
PG_FUNCTION_INFO_V1(ra_recovery_status);
PG_FUNCTION_INFO_V1(ra_resolve_branches);

static void read_gid(text *argument, RaGid *gid);
static const RaRegister *register_of(const RaGid *gid, char *name);
static Datum outcome_row(FunctionCallInfo fcinfo, const char *outcome, const char *reason);
static bool wanted_commit(text *decision);
static bool may_be_forgotten(RaRegisterKind kind, const char *name);

/* ERROR if it is not the name of a global transaction, or a branch of one, of this cluster */
static void
read_gid(text *argument, RaGid *gid)
{
	ra_require_preload();
	ra_check_version();
	if (!ra_gid_parse(VARDATA_ANY(argument), VARSIZE_ANY_EXHDR(argument), gid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not the name of a global transaction", text_to_cstring(argument)),
				 errhint("View risk_alert.global_transactions shows those that are not finished.")));
	if (strcmp(gid->cluster, ra_cluster_name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the transaction is of another cluster, \"%s\"", gid->cluster),
				 errdetail("This server belongs to \"%s\".", ra_cluster_name)));
}

/* The transaction's register, and its name there */
static const RaRegister *
register_of(const RaGid *gid, char *name)
{
	RaGid		transaction = *gid;
	RaRegisterKind kind;

	transaction.branch = 0;
	if (!ra_register_by_letter(gid->register_letter, &kind) || !ra_gid_format(&transaction, name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown register \"%c\"", gid->register_letter)));
	return ra_register(kind);
}

static Datum
outcome_row(FunctionCallInfo fcinfo, const char *outcome, const char *reason)
{
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, reason == NULL};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(outcome);
	values[1] = reason ? CStringGetTextDatum(reason) : (Datum) 0;
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
ra_global_outcome(PG_FUNCTION_ARGS)
{
	RaGid		gid;
	char		name[RA_GID_SIZE];
	char	   *reason = NULL;

	read_gid(PG_GETARG_TEXT_PP(0), &gid);
	switch (register_of(&gid, name)->read(name, ASK_TIMEOUT, &reason))
	{
		case RA_DECISION_COMMIT:
			return outcome_row(fcinfo, "committed", reason);
		case RA_DECISION_ABORT:
			return outcome_row(fcinfo, "aborted", reason);
		case RA_DECISION_NONE:
			return outcome_row(fcinfo, "in progress", reason);
		case RA_DECISION_UNKNOWN:
			break;
	}
	return outcome_row(fcinfo, "unknown", reason);
}

/* For other nodes, which don't want us to ask on */
Datum
ra_local_outcome_fn(PG_FUNCTION_ARGS)
{
	RaGid		gid;
	char	   *reason = NULL;

	read_gid(PG_GETARG_TEXT_PP(0), &gid);
	switch (ra_local_outcome(&gid, &reason))
	{
		case RA_OUTCOME_COMMITTED:
			return outcome_row(fcinfo, "committed", reason);
		case RA_OUTCOME_ABORTED:
			return outcome_row(fcinfo, "aborted", reason);
		case RA_OUTCOME_IN_PROGRESS:
			return outcome_row(fcinfo, "in progress", reason);
		case RA_OUTCOME_UNKNOWN:
			break;
	}
	return outcome_row(fcinfo, "unknown", reason);
}

/* NULL if it is not for this server to say */
Datum
ra_coordinator_alive_fn(PG_FUNCTION_ARGS)
{
	RaGid		gid;

	read_gid(PG_GETARG_TEXT_PP(0), &gid);
	if (strcmp(gid.coordinator, ra_node_name) != 0 || gid.database != MyDatabaseId)
		PG_RETURN_NULL();
	PG_RETURN_BOOL(ra_coordinator_alive(&gid));
}

Datum
ra_gid_parts(PG_FUNCTION_ARGS)
{
	text	   *argument = PG_GETARG_TEXT_PP(0);
	TupleDesc	desc;
	Datum		values[GID_COLUMNS];
	bool		nulls[GID_COLUMNS] = {false};
	RaGid		gid;
	RaGid		transaction;
	RaRegisterKind kind;
	char		name[RA_GID_SIZE];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!ra_gid_parse(VARDATA_ANY(argument), VARSIZE_ANY_EXHDR(argument), &gid))
		PG_RETURN_NULL();
	transaction = gid;
	transaction.branch = 0;
	(void) ra_gid_format(&transaction, name);
	values[0] = CStringGetTextDatum(gid.cluster);
	values[1] = CStringGetTextDatum(gid.coordinator);
	if (ra_register_by_letter(gid.register_letter, &kind))
		values[2] = CStringGetTextDatum(ra_register_name(kind));
	else
		nulls[2] = true;
	values[3] = CStringGetTextDatum(name);
	values[4] = ObjectIdGetDatum(gid.database);
	values[5] = Int64GetDatum((int64) gid.epoch);
	values[6] = Int64GetDatum((int64) gid.number);
	values[7] = Int32GetDatum((int32) gid.branch);
	nulls[7] = gid.branch == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

Datum
ra_recovery_status(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	RaRecovery	copy = {0};
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS] = {false};
	int			len;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (ra_global_state)
	{
		RaRecovery *slot;

		LWLockAcquire(ra_global_state->lock, LW_SHARED);
		slot = ra_recovery_slot(MyDatabaseId, false);
		if (slot)
			copy = *slot;
		LWLockRelease(ra_global_state->lock);
	}
	values[0] = Int32GetDatum((int32) copy.pid);
	nulls[0] = copy.pid == 0;
	values[1] = Int64GetDatum(copy.rounds);
	values[2] = Int64GetDatum(copy.committed);
	values[3] = Int64GetDatum(copy.aborted);
	values[4] = Int64GetDatum(copy.waiting);
	values[5] = TimestampTzGetDatum(copy.last_run);
	nulls[5] = copy.last_run == 0;

	/* it may have been cut in the middle of a character */
	len = pg_mbcliplen(copy.last_error, strlen(copy.last_error), sizeof(copy.last_error) - 2);
	values[6] = PointerGetDatum(cstring_to_text_with_len(copy.last_error, len));
	nulls[6] = len == 0;
	values[7] = TimestampTzGetDatum(copy.last_error_at);
	nulls[7] = copy.last_error_at == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

static bool
wanted_commit(text *decision)
{
	char	   *word = text_to_cstring(decision);

	if (strcmp(word, "commit") != 0 && strcmp(word, "abort") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("decision must be \"commit\" or \"abort\", not \"%s\"", word)));
	return strcmp(word, "commit") == 0;
}

/* Is a branch of the transaction prepared here for so long? */
static bool
may_be_forgotten(RaRegisterKind kind, const char *name)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(psprintf("%s:", name))};
	bool		isnull;
	TimestampTz prepared;

	SPI_connect();
	if (SPI_execute_with_args("SELECT pg_catalog.min(x.prepared) FROM pg_catalog.pg_prepared_xacts x"
							  " WHERE x.database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
							  "   AND pg_catalog.starts_with(x.gid, $1)",
							  1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list prepared transactions");
	prepared = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return !isnull && ra_may_be_forgotten(kind, prepared);
}

/*
 * risk_alert._resolve_branches(gid, decision): finishes branches that are prepared
 * here.  What the register says goes; only where it doesn't answer does the operator decide.
 * An abort is proposed to the register, so that nobody decides otherwise later.
 */
Datum
ra_resolve_branches(PG_FUNCTION_ARGS)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];
	RaGid		gid;
	char		name[RA_GID_SIZE];
	char	   *reason = NULL;
	const RaRegister *decider;
	RaDecision	decision;
	char	  **branches;
	int			n;
	int			i;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("gid must not be null")));
	read_gid(PG_GETARG_TEXT_PP(0), &gid);
	decider = register_of(&gid, name);
	if (!PG_ARGISNULL(1) && !wanted_commit(PG_GETARG_TEXT_PP(1)) && !decider->with_caller)
		decision = decider->propose(name, RA_DECISION_ABORT, ASK_TIMEOUT, &reason);
	else
		decision = decider->read(name, ASK_TIMEOUT, &reason);
	if (decision == RA_DECISION_NONE && may_be_forgotten(decider->kind, name))
	{
		reason = pstrdup("It knows nothing of it, but may have known: the branch is older than decisions are kept.");
		decision = RA_DECISION_UNKNOWN;
	}
	switch (decision)
	{
		case RA_DECISION_NONE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("global transaction \"%s\" is in progress", name),
					 errdetail("Its coordinator, node \"%s\", may still commit it.", gid.coordinator)));
			break;
		case RA_DECISION_UNKNOWN:
			if (PG_ARGISNULL(1))
				ereport(ERROR,
						(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
						 errmsg("the outcome of global transaction \"%s\" is not known", name),
						 errdetail("%s", reason ? reason : "Its register can't be asked."),
						 errhint("Recovery tries again by itself. If the register is lost for good, find out what the other nodes did, and decide: risk_alert.resolve(gid, 'commit') or 'abort'.")));
			ereport(WARNING,
					(errmsg("the register of global transaction \"%s\" could not be asked", name),
					 errdetail("%s", reason ? reason : "No reason is known.")));
			decision = wanted_commit(PG_GETARG_TEXT_PP(1)) ? RA_DECISION_COMMIT : RA_DECISION_ABORT;
			break;
		case RA_DECISION_COMMIT:
		case RA_DECISION_ABORT:
			if (!PG_ARGISNULL(1) && wanted_commit(PG_GETARG_TEXT_PP(1)) != (decision == RA_DECISION_COMMIT))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("global transaction \"%s\" has %s", name,
								decision == RA_DECISION_COMMIT ? "committed" : "aborted"),
						 errdetail("Its register says so, and the other nodes act on that.")));
			break;
	}

	values[0] = CStringGetTextDatum(psprintf("%s:", name));
	SPI_connect();
	if (SPI_execute_with_args("SELECT x.gid FROM pg_catalog.pg_prepared_xacts x"
							  " WHERE x.database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
							  "   AND pg_catalog.starts_with(x.gid, $1)",
							  1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list prepared transactions");
	n = (int) SPI_processed;
	branches = SPI_palloc(Max(n, 1) * sizeof(char *));
	for (i = 0; i < n; i++)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

		branches[i] = SPI_palloc(strlen(text) + 1);
		strcpy(branches[i], text);
	}
	SPI_finish();
	for (i = 0; i < n; i++)
		FinishPreparedTransaction(branches[i], decision == RA_DECISION_COMMIT);
	if (n > 0)
		ra_wake_worker();
	PG_RETURN_INT64(n);
}
