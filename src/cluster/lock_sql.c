/*
 * lock_sql.c
 *	  The functions of advisory locks: see lock.c, which does the work.
 */
#include "postgres.h"

#include <limits.h>

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "cluster/lock.h"

static Datum lock_function(FunctionCallInfo fcinfo, bool text_key, RaLockRequest wanted);
static Datum unlock_function(FunctionCallInfo fcinfo, bool text_key, bool exclusive);
static uint64 deadline_of(const RaLockRequest *wanted);

static void
name_of_argument(FunctionCallInfo fcinfo, bool text_key, RaLockName *name, RaLockKey *key)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key of an advisory lock must not be NULL")));
	if (text_key)
		ra_lock_name_text(name, key, PG_GETARG_TEXT_PP(0));
	else
		ra_lock_name_number(name, key, PG_GETARG_INT64(0));
}

/* NAME(key text or bigint, timeout interval) and try_NAME(key) */
#define LOCK_FUNCTIONS(name, is_exclusive, is_session) \
PG_FUNCTION_INFO_V1(ra_##name##_text); \
PG_FUNCTION_INFO_V1(ra_##name##_number); \
PG_FUNCTION_INFO_V1(ra_try_##name##_text); \
PG_FUNCTION_INFO_V1(ra_try_##name##_number); \
Datum \
ra_##name##_text(PG_FUNCTION_ARGS) \
{ \
	return lock_function(fcinfo, true, (RaLockRequest) {is_exclusive, is_session, false, -1, 0}); \
} \
Datum \
ra_##name##_number(PG_FUNCTION_ARGS) \
{ \
	return lock_function(fcinfo, false, (RaLockRequest) {is_exclusive, is_session, false, -1, 0}); \
} \
Datum \
ra_try_##name##_text(PG_FUNCTION_ARGS) \
{ \
	return lock_function(fcinfo, true, (RaLockRequest) {is_exclusive, is_session, true, -1, 0}); \
} \
Datum \
ra_try_##name##_number(PG_FUNCTION_ARGS) \
{ \
	return lock_function(fcinfo, false, (RaLockRequest) {is_exclusive, is_session, true, -1, 0}); \
} \
extern int no_such_variable

LOCK_FUNCTIONS(advisory_lock, true, true);
LOCK_FUNCTIONS(advisory_lock_shared, false, true);
LOCK_FUNCTIONS(advisory_xact_lock, true, false);
LOCK_FUNCTIONS(advisory_xact_lock_shared, false, false);

#define UNLOCK_FUNCTION(name, is_text, is_exclusive) \
PG_FUNCTION_INFO_V1(name); \
Datum \
name(PG_FUNCTION_ARGS) \
{ \
	return unlock_function(fcinfo, is_text, is_exclusive); \
} \
extern int no_such_variable

UNLOCK_FUNCTION(ra_advisory_unlock_text, true, true);
UNLOCK_FUNCTION(ra_advisory_unlock_number, false, true);
UNLOCK_FUNCTION(ra_advisory_unlock_shared_text, true, false);
UNLOCK_FUNCTION(ra_advisory_unlock_shared_number, false, false);

/* Until when to wait, by the call's timeout and lock_timeout; 0: for ever */
static uint64
deadline_of(const RaLockRequest *wanted)
{
	uint64		now = ra_boottime();
	uint64		deadline = 0;

	if (wanted->timeout_us >= 0)
		deadline = now + (uint64) wanted->timeout_us * 1000;
	if (LockTimeout > 0)
	{
		uint64		limit = now + (uint64) LockTimeout * 1000000;

		if (deadline == 0 || limit < deadline)
			deadline = limit;
	}
	return deadline;
}

/* advisory_lock(key, timeout) and so on: the fencing token; NULL: not available now */
static Datum
lock_function(FunctionCallInfo fcinfo, bool text_key, RaLockRequest wanted)
{
	RaLockName	name;
	RaLockKey	key;
	Numeric		token;
	bool		at_once = false;

	name_of_argument(fcinfo, text_key, &name, &key);
	if (!wanted.nowait && !PG_ARGISNULL(1))
	{
		Interval   *timeout = PG_GETARG_INTERVAL_P(1);
		double		us;

		us = timeout->time + (double) timeout->day * USECS_PER_DAY +
			(double) timeout->month * DAYS_PER_MONTH * USECS_PER_DAY;
		if (us < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("timeout must not be negative"),
					 errhint("Leave it out, or NULL, to wait without a limit.")));
		if (us == 0)
			at_once = wanted.nowait = true; /* the service is asked all the same */
		else
			wanted.timeout_us = (int64) Min(us, (double) INT_MAX * 1000);
	}
	wanted.deadline = deadline_of(&wanted);
	if (!ra_lock_acquire(&name, &key, &wanted, &token))
	{
		if (at_once)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not obtain advisory lock \"%s\" at once",
							ra_lock_name_display(&name)),
					 errhint("Who holds it is in view risk_alert.advisory_locks.")));
		PG_RETURN_NULL();
	}
	PG_RETURN_NUMERIC(token);
}

/* advisory_unlock(key): whether this session had the lock, and has it no longer */
static Datum
unlock_function(FunctionCallInfo fcinfo, bool text_key, bool exclusive)
{
	RaLockName	name;
	RaLockKey	key;

	name_of_argument(fcinfo, text_key, &name, &key);
	PG_RETURN_BOOL(ra_lock_release(&name, &key, exclusive));
}

PG_FUNCTION_INFO_V1(ra_advisory_unlock_all);
Datum
ra_advisory_unlock_all(PG_FUNCTION_ARGS)
{
	ra_lock_release_all();
	PG_RETURN_VOID();
}
