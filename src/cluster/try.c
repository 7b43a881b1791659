/*
 * try.c
 *	  Steps that may fail, where the failure is an answer and not an ERROR.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "cluster/try.h"

ErrorData *
ra_try(void (*step) (void *arg), void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		step(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;

	/* with the subtransaction over: whoever catches it ends his own only */
	if (error && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	/* a request to cancel that came during another error */
	if (error)
		CHECK_FOR_INTERRUPTS();
	return error;
}

char *
ra_error_reason(const char *message, const char *detail)
{
	return detail ? psprintf("%s: %s", message, detail) : pstrdup(message);
}
