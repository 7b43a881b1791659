/*
 * identity.c
 *	  As whom, and under which settings, users' expressions are parsed,
 *	  printed and evaluated.
 *
 * An expression means the same in the worker, in any session and in a dump that
 * is restored elsewhere.  So what a session may set and an expression's meaning
 * depends on is fixed here.  Entering costs nothing if the settings are in force
 * already, as in the worker; else only what differs is set, and undone at the end
 * (or by the server, at the end of the (sub)transaction).
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "parser/parse_expr.h"
#include "parser/parser.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/pg_locale.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "engine/load.h"
#include "engine/score.h"

#define RA_SEARCH_PATH "pg_catalog, pg_temp"

static void
set(int *nestlevel, const char *name, const char *value)
{
	if (*nestlevel < 0)
		*nestlevel = NewGUCNestLevel();
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

int
ra_settings_enter(void)
{
	int			nestlevel = -1;

	if (strcmp(namespace_search_path, RA_SEARCH_PATH) != 0)
		set(&nestlevel, "search_path", RA_SEARCH_PATH);
	if (strcmp(pg_get_timezone_name(session_timezone), "UTC") != 0)
		set(&nestlevel, "timezone", "UTC");
	if (DateStyle != USE_ISO_DATES || DateOrder != DATEORDER_MDY)
		set(&nestlevel, "datestyle", "ISO, MDY");
	if (IntervalStyle != INTSTYLE_POSTGRES)
		set(&nestlevel, "intervalstyle", "postgres");
	if (extra_float_digits != 1)
		set(&nestlevel, "extra_float_digits", "1");
	if (bytea_output != BYTEA_OUTPUT_HEX)
		set(&nestlevel, "bytea_output", "hex");
	if (strcmp(locale_monetary, "C") != 0)
		set(&nestlevel, "lc_monetary", "C");
	if (strcmp(locale_numeric, "C") != 0)
		set(&nestlevel, "lc_numeric", "C");
	if (strcmp(locale_time, "C") != 0)
		set(&nestlevel, "lc_time", "C");
	if (quote_all_identifiers)
		set(&nestlevel, "quote_all_identifiers", "off");
	if (!standard_conforming_strings)
		set(&nestlevel, "standard_conforming_strings", "on");
	if (Transform_null_equals)
		set(&nestlevel, "transform_null_equals", "off");
	if (!row_security)
		set(&nestlevel, "row_security", "on");
	return nestlevel;
}

void
ra_settings_leave(int nestlevel)
{
	if (nestlevel >= 0)
		AtEOXact_GUC(false, nestlevel);
}

/*
 * No SET ROLE, no temporary tables, no deferred triggers, nothing by which what
 * runs could outlast ra_unbecome(), which also undoes what was SET.  After an error the server restores the
 * identity with the (sub)transaction.
 */
void
ra_become(Oid owner, RaIdentity *save)
{
	GetUserIdAndSecContext(&save->userid, &save->sec_context);
	save->gucs = NewGUCNestLevel();
	SetUserIdAndSecContext(owner, save->sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

void
ra_unbecome(const RaIdentity *save)
{
	AtEOXact_GUC(false, save->gucs);
	SetUserIdAndSecContext(save->userid, save->sec_context);
}

/* No subtransactions there */
static void
parallel_context(void *arg)
{
	errcontext("loading of rules in a parallel query, where broken ones cannot be left out");
}

char *
ra_attempt(Oid owner, void (*step) (void *arg), void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner resowner = CurrentResourceOwner;
	RaIdentity	save;
	char	   *volatile message = NULL;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
		return psprintf("its owner, the role with OID %u, no longer exists", owner);

	if (IsInParallelMode())
	{
		ErrorContextCallback callback;

		callback.callback = parallel_context;
		callback.arg = NULL;
		callback.previous = error_context_stack;
		error_context_stack = &callback;
		ra_become(owner, &save);
		step(arg);
		ra_unbecome(&save);
		error_context_stack = callback.previous;
		return NULL;
	}

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		ra_become(owner, &save);
		step(arg);
		if (ra_loading_end())
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("evaluating its constant parts took too long")));
		ra_unbecome(&save);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = resowner;
	}
	PG_CATCH();
	{
		bool		too_long = ra_loading_end();
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = resowner;

		/* that was our own cancellation */
		if (too_long)
			message = "evaluating its constant parts took too long";
		else
			message = edata->message != NULL ? edata->message : "unknown error";
		switch (too_long ? 0 : ERRCODE_TO_CATEGORY(edata->sqlerrcode))
		{
			case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
			case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* cancelled */
			case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* I/O */
			case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* deadlock */
				ReThrowError(edata);
		}
	}
	PG_END_TRY();
	return message;
}
