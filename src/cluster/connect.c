/*
 * connect.c
 *	  Making connections to nodes, any number side by side.
 *
 * Passwords.  Without one, the node would let us in for what it believes of the
 * server's operating system user: trust, peer, a password file, a client certificate.
 * That identity is not the local user's to use.  So, unless he is a superuser or the
 * mapping says (which takes a superuser) password_required 'false', the
 * mapping must have a password and the node must have asked for it.
 *
 * Waiting.  Nothing here blocks but on the process latch, with sockets besides.
 * libpq leaves connect_timeout to us then; it holds for all of connecting, and is
 * 10 seconds unless set.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/builtins.h"

#include "cluster/connect.h"
#include "cluster/connection.h"
#include "cluster/options.h"
#include "compat.h"
#include "guc.h"

#define DEFAULT_CONNECT_TIMEOUT 10	/* seconds */

static void check_mapping(UserMapping *mapping, const char *node);

void
ra_connect_start(RaConnecting *c, ForeignServer *server, UserMapping *mapping, bool trusted)
{
	int			max = list_length(server->options) + list_length(mapping->options) + 6;
	const char **keywords = palloc(max * sizeof(char *));
	const char **values = palloc(max * sizeof(char *));
	const char *options = ra_option(server->options, "options");
	const char *timeout = ra_option(server->options, "connect_timeout");
	int			n = 0;

	c->trusted = trusted;
	if (!trusted)
		check_mapping(mapping, server->servername);

	/* a later value replaces an earlier one */
	keywords[n] = "user";
	values[n++] = GetUserNameFromId(GetUserId(), false);
	keywords[n] = "dbname";
	values[n++] = get_database_name(MyDatabaseId);
	keywords[n] = "application_name";
	values[n++] = ra_node_name[0] ? psprintf("risk_alert %s", ra_node_name) : "risk_alert";
	n = ra_libpq_options(server->options, keywords, values, n);
	n = ra_libpq_options(mapping->options, keywords, values, n);
	keywords[n] = "options";
	values[n++] = options ? psprintf("%s %s", options, RA_CONN_SETTINGS) : RA_CONN_SETTINGS;
	keywords[n] = "client_encoding";
	values[n++] = GetDatabaseEncodingName();
	keywords[n] = values[n] = NULL;
	Assert(n < max);

	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to node \"%s\"", server->servername),
				 errdetail("There are too many open files on this server."),
				 errhint("Raise max_files_per_process or \"ulimit -n\".")));
	c->pg = PQconnectStartParams(keywords, values, 0);
	if (c->pg == NULL)
	{
		ReleaseExternalFD();
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	}
	c->seconds = timeout ? atoi(timeout) : DEFAULT_CONNECT_TIMEOUT;
	INSTR_TIME_SET_CURRENT(c->start);
	c->status = PGRES_POLLING_WRITING;
	c->ended = PQstatus(c->pg) == CONNECTION_BAD;
}

static void
check_mapping(UserMapping *mapping, const char *node)
{
	const char *password = ra_option(mapping->options, "password");

	if (password == NULL || password[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("a password is required to connect to node \"%s\"", node),
				 errdetail("The user mapping has none, and only superusers may connect without."),
				 errhint("Set option \"password\" of the user mapping, or let a superuser set its option \"password_required\" to false.")));
}

bool
ra_connect_wait(RaConnecting **all, int n, int timeout)
{
	static uint32 wait_event = 0;
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		WaitEventSet *set = ra_create_wait_event_set(n + 2, false);
		WaitEvent	event;
		long		left = -1;
		int			waiting = 0;
		int			happened = 0;
		int			i;

		AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		if (timeout >= 0)
		{
			instr_time	now;

			INSTR_TIME_SET_CURRENT(now);
			INSTR_TIME_SUBTRACT(now, start);
			left = Max(timeout - (long) INSTR_TIME_GET_MILLISEC(now), 0);
		}
		for (i = 0; i < n; i++)
		{
			RaConnecting *c = all[i];

			if (!c->ended && c->seconds > 0)
			{
				int			own = ra_ms_left(c->start, c->seconds);

				c->ended = own == 0;
				if (!c->ended)
					left = left < 0 ? own : Min(left, own);
			}
			if (c->ended)
				continue;
			/* libpq may have gone on to another socket */
			AddWaitEventToSet(set, c->status == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE,
							  PQsocket(c->pg), NULL, c);
			waiting++;
		}
		if (waiting > 0 && left != 0)
			happened = WaitEventSetWait(set, left, &event, 1, ra_wait_event(&wait_event, "RiskAlertNode"));
		FreeWaitEventSet(set);
		if (waiting == 0)
			return true;
		if (left == 0)
			return false;

		if (happened > 0 && (event.events & WL_LATCH_SET))
		{
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		else if (happened > 0)
		{
			RaConnecting *c = event.user_data;

			c->status = PQconnectPoll(c->pg);
			c->ended = PQstatus(c->pg) == CONNECTION_BAD ||
				c->status == PGRES_POLLING_OK || c->status == PGRES_POLLING_FAILED;
		}
	}
}

void
ra_connect_finish(RaConnecting *c, const char *node)
{
	if (PQstatus(c->pg) == CONNECTION_BAD || c->status == PGRES_POLLING_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to node \"%s\"", node),
				 errdetail_internal("%s", pchomp(PQerrorMessage(c->pg)))));
	if (c->status != PGRES_POLLING_OK)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to node \"%s\"", node),
				 c->ended ? errdetail("There was no answer within %d s.", c->seconds) :
				 errdetail("There was no answer in time."),
				 c->ended ? errhint("See whether the node is up and reachable; option \"connect_timeout\" of the server sets the time limit.") :
				 errhint("See whether the node is up and reachable.")));

	if (!c->trusted && !PQconnectionUsedPassword(c->pg))
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("a password is required to connect to node \"%s\"", node),
				 errdetail("The node did not ask for it, so it has taken this server's word for the user; only superusers may connect like that."),
				 errhint("Have the node's pg_hba.conf ask for a password, or let a superuser set option \"password_required\" of the user mapping to false.")));
	if (PQsetnonblocking(c->pg, 1) != 0)
		elog(ERROR, "could not make the connection to node \"%s\" non-blocking", node);
}
