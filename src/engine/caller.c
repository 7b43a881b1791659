/*
 * caller.c
 *	  Who calls a configuration function, SECURITY DEFINER notwithstanding.
 *
 * Configuration functions write tables that only the extension's owner may
 * write, so they are SECURITY DEFINER; and they must know their caller, since a
 * rule runs with the rights of the role that wrote it.  The server does not
 * tell: inside, GetUserId() is the function's owner, while GetOuterUserId() and
 * GetSessionUserId() are what the session runs as, however many SECURITY DEFINER
 * functions of other people lie between.  Trusting those, an administrator of
 * risk_alert could lay a SECURITY DEFINER function (or an index expression, a
 * trigger, ...) in a superuser's way and so make rules in the superuser's name.
 *
 * Hence each configuration function is a pair.  The outer one, SECURITY INVOKER
 * and nothing but one expression, calls the inner one with a ticket, which it
 * takes from _ticket() while the caller is still the current user.  The inner
 * one, SECURITY DEFINER, redeems it with _caller().  A ticket is a random number
 * known to this process and valid once, and names the role that was current
 * when it was taken; so calling the inner function directly gains nothing.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

/* the ticket that was taken last */
static struct
{
	int64		number;			/* 0: none, or redeemed */
	Oid			userid;
} ticket;

PG_FUNCTION_INFO_V1(ra_ticket);
PG_FUNCTION_INFO_V1(ra_redeem_ticket);

/*
 * risk_alert._ticket(): a ticket for the current role
 */
Datum
ra_ticket(PG_FUNCTION_ARGS)
{
	int64		number = 0;

	while (number == 0)
	{
		if (!pg_strong_random(&number, sizeof(number)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random number")));
	}
	ticket.number = number;
	ticket.userid = GetUserId();
	PG_RETURN_INT64(number);
}

/*
 * risk_alert._caller(ticket): the role that took the ticket
 */
Datum
ra_redeem_ticket(PG_FUNCTION_ARGS)
{
	int64		number = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);

	if (number == 0 || number != ticket.number)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("internal functions of risk_alert cannot be called directly"),
				 errhint("Call the function of the same name without the leading underscore.")));
	ticket.number = 0;
	PG_RETURN_OID(ticket.userid);
}
