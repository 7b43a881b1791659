/*
 * role.c
 *	  The type of columns that hold a role, risk_alert._role.
 *
 * Like regrole it is a role's number that reads and prints as the role's name,
 * so it follows renames and means the same in a dump restored elsewhere.  But
 * regrole prints the number of a role that is gone, and reads any number: a
 * dropped role's rules, restored in another cluster, would belong to whatever
 * role has that number there and run with its rights.  Here such a role prints as
 * "-", which reads as nobody (0); so does a number.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

PG_FUNCTION_INFO_V1(ra_role_in);
PG_FUNCTION_INFO_V1(ra_role_out);

Datum
ra_role_in(PG_FUNCTION_ARGS)
{
	char	   *text = PG_GETARG_CSTRING(0);

	/* a role may be called 123, but its name would be quoted */
	if (text[0] != '\0' && strspn(text, "0123456789") == strlen(text))
		PG_RETURN_OID(InvalidOid);
	return DirectFunctionCall1(regrolein, CStringGetDatum(text));
}

Datum
ra_role_out(PG_FUNCTION_ARGS)
{
	char	   *name = GetUserNameFromId(PG_GETARG_OID(0), true);

	PG_RETURN_CSTRING(pstrdup(name != NULL ? quote_identifier(name) : "-"));
}
