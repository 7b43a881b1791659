/*
 * acceptor_link.c
 *	  Requests to all acceptors of the Paxos register at once.
 *
 * Unlike a session's other connections (connection.c), these must not wait for
 * each other: a majority is enough, and an acceptor that can't be reached must
 * cost nothing.  So they connect, send and receive side by side, and each
 * goes on by itself where the last request left it: an answer that nobody waits for any more
 * is read and dropped before the next request is sent.  Requests may be
 * repeated, so a connection that was lost is opened once more for the request at hand.
 *
 * They belong to the session, and are made with the user mappings of the
 * extension's owner: whoever may run a global transaction can't tamper
 * with its decision.  An interrupt or error leaves them as they are.
 */
#include "postgres.h"

#include <poll.h>

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/dbcommands.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "cluster/acceptor_link.h"
#include "cluster/locktable.h"
#include "cluster/options.h"
#include "cluster/register.h"
#include "cluster/waiting.h"
#include "compat.h"
#include "core/paxos.h"
#include "guc.h"
#include "risk_alert.h"

/* so long may connecting take, unless the server's connect_timeout says otherwise */
#define CONNECT_SECONDS 10

/* a connection that has not answered for so long is given up: its node may have gone without a word */
#define SILENCE_SECONDS 10

/* as long as an acceptor waits, say, for a lock of its table that somebody has */
#define SETTINGS "-c lock_timeout=10s -c statement_timeout=60s -c default_transaction_isolation=read\\ committed"

/* what RA_LINK_ACCEPT is prepared as, so that each commit doesn't have it parsed and planned anew */
#define ACCEPT_NAME "risk_alert_accept"

typedef enum LinkState
{
	LINK_CLOSED,
	LINK_CONNECTING,
	LINK_IDLE,
	LINK_BUSY,					/* with the current request */
	LINK_LATE					/* with an earlier one */
} LinkState;

typedef struct Link
{
	char		node[NAMEDATALEN];
	LinkState	state;
	PGconn	   *pg;
	uint64		serial;			/* of its socket, once connected */
	uint32		events;			/* to wait for */
	bool		ready;			/* they have come: only then may connecting go on */
	uint64		connect_until;
	uint64		sent_at;
	bool		prepared;		/* RA_LINK_ACCEPT is known there by ACCEPT_NAME */
	bool		invalidated;	/* server or mapping has changed */
	bool		trusted;

	/* of the current request */
	bool		asked;			/* it is for this one, too */
	bool		wanted;			/* still to be sent, or answered */
	bool		again;			/* was opened anew for it */
	PGresult   *answer;			/* not valid before the statement has ended */
} Link;

static Link links[RA_PAXOS_MAX];	/* places are reused by other names */
static int	order[RA_PAXOS_MAX];	/* acceptor: its place */
static int	nacceptors = 0;
static RaLinkRequest current;
static uint32 wait_event = 0;

static Link *find_link(const char *node);
static void invalidate(Datum arg, int cacheid, uint32 hash);
static void close_all(int code, Datum arg);
static void close_link(Link *link);
static Oid extension_owner(void);
static char *open_link(Link *link);
static char *go_on_connecting(Link *link);
static char *advance(Link *link);
static void drop_answer(Link *link);
static bool receive(Link *link, PGresult **result, char **reason);

void
ra_links_begin(char **names, int n)
{
	static bool initialized = false;
	int			i;

	if (!initialized)
	{
		CacheRegisterSyscacheCallback(FOREIGNSERVEROID, invalidate, (Datum) 0);
		CacheRegisterSyscacheCallback(USERMAPPINGOID, invalidate, (Datum) 0);
		on_proc_exit(close_all, (Datum) 0);
		initialized = true;
	}
	nacceptors = 0;
	for (i = 0; i < RA_PAXOS_MAX; i++)
		links[i].wanted = false;
	for (i = 0; i < n; i++)
	{
		Link	   *link = find_link(names[i]);

		link->wanted = true;	/* keeps its place */
		order[i] = link - links;
	}
	nacceptors = n;
	for (i = 0; i < n; i++)
		links[order[i]].wanted = false;
}

/* The link of that name, or one that nobody wants */
static Link *
find_link(const char *node)
{
	Link	   *unused = NULL;
	int			i;

	for (i = 0; i < RA_PAXOS_MAX; i++)
	{
		if (strcmp(links[i].node, node) == 0)
			return &links[i];
		if (!links[i].wanted && (unused == NULL || links[i].node[0] == '\0'))
			unused = &links[i];
	}
	close_link(unused);
	strlcpy(unused->node, node, NAMEDATALEN);
	return unused;
}

static void
invalidate(Datum arg, int cacheid, uint32 hash)
{
	int			i;

	for (i = 0; i < RA_PAXOS_MAX; i++)
		links[i].invalidated = true;
}

static void
close_all(int code, Datum arg)
{
	int			i;

	for (i = 0; i < RA_PAXOS_MAX; i++)
		close_link(&links[i]);
}

static void
close_link(Link *link)
{
	if (link->pg)
	{
		PQfinish(link->pg);
		ReleaseExternalFD();
	}
	PQclear(link->answer);
	link->answer = NULL;
	link->pg = NULL;
	link->prepared = false;
	link->state = LINK_CLOSED;
}

void
ra_links_send(const RaLinkRequest *request, int n)
{
	int			own = 0;
	int			pass;
	int			i;

	current = *request;
	for (i = 0; i < nacceptors; i++)
	{
		Link	   *link = &links[order[i]];

		if (link->state == LINK_BUSY)
			link->state = LINK_LATE;
		PQclear(link->answer);
		link->answer = NULL;
		if (link->state == LINK_LATE)
			drop_answer(link);	/* it may have come long ago */
		if ((link->invalidated && link->state != LINK_CONNECTING) ||
			(link->state == LINK_LATE && ra_boottime() - link->sent_at > (uint64) SILENCE_SECONDS * 1000000000))
			close_link(link);
		link->wanted = false;
		link->asked = false;
		link->again = false;
		if (strcmp(link->node, ra_node_name) == 0)
			own = i;
	}
	for (pass = 0; pass < 2; pass++)
	{
		for (i = 0; i < nacceptors && n > 0; i++)
		{
			Link	   *link = &links[order[(own + i) % nacceptors]];

			if (link->asked || (pass == 0 && link->state != LINK_IDLE))
				continue;
			link->wanted = link->asked = true;
			n--;
		}
	}
}

void
ra_links_send_rest(void)
{
	int			i;

	for (i = 0; i < nacceptors; i++)
	{
		Link	   *link = &links[order[i]];

		if (!link->asked)
			link->wanted = link->asked = true;
	}
}

bool
ra_links_quiet(int timeout)
{
	uint64		until = ra_boottime() + (uint64) timeout * 1000000;

	for (;;)
	{
		struct pollfd sockets[RA_PAXOS_MAX];
		uint64		now = ra_boottime();
		bool		connecting = false;
		int			n = 0;
		int			i;

		for (i = 0; i < nacceptors; i++)
		{
			Link	   *link = &links[order[i]];

			connecting |= link->state == LINK_CONNECTING;
			if (link->state != LINK_BUSY && link->state != LINK_LATE)
				continue;
			link->state = LINK_LATE;
			(void) PQflush(link->pg);
			drop_answer(link);
			if (link->state == LINK_LATE && PQstatus(link->pg) == CONNECTION_OK)
				sockets[n++] = (struct pollfd) {.fd = PQsocket(link->pg),.events = POLLIN};
		}
		if (n == 0)
			return !connecting;
		if (now >= until || poll(sockets, n, (int) ((until - now) / 1000000 + 1)) < 0)
			return false;
	}
}

bool
ra_links_tell(const RaLinkRequest *request, int from, int to)
{
	int			i;

	ra_links_send(request, 0);
	for (i = from; i < Min(to, nacceptors); i++)
	{
		Link	   *link = &links[order[i]];

		/* one that was lost stays so: it takes a transaction to open it anew */
		link->again = true;
		if (link->state != LINK_CLOSED && link->state != LINK_CONNECTING)
			(void) advance(link);
		link->wanted = false;
	}
	return to >= nacceptors;
}

int
ra_links_wait(uint64 until, PGresult **result, char **reason)
{
	for (;;)
	{
		RaSocket	sockets[RA_PAXOS_MAX];
		Link	   *waiting[RA_PAXOS_MAX];
		uint64		now;
		uint64		wake = until;
		int			left = 0;
		int			n = 0;
		int			i;

		*result = NULL;
		*reason = NULL;
		for (i = 0; i < nacceptors; i++)
		{
			Link	   *link = &links[order[i]];

			if (link->wanted)
				*reason = advance(link);

			/* who connects goes on with it, though nobody waits */
			else if (link->state != LINK_CONNECTING || go_on_connecting(link) || link->state != LINK_CONNECTING)
				continue;
			if (*reason || (link->state == LINK_BUSY && receive(link, result, reason)))
			{
				if (*result == NULL && *reason == NULL)
				{
					i--;		/* it is opened anew */
					continue;
				}
				link->wanted = false;
				return i;
			}
			left += link->wanted;
			waiting[n] = link;
			sockets[n++] = (RaSocket)
			{
				.fd = PQsocket(link->pg),.serial = link->state == LINK_CONNECTING ? 0 : link->serial,
					.events = link->events
			};
			if (link->state == LINK_CONNECTING)
				wake = Min(wake, link->connect_until);
		}
		now = ra_boottime();
		if (left == 0 || now >= until || ra_register_given_up())
			return -1;

		(void) ra_wait_for_sockets(sockets, n, wake > now ? (long) ((wake - now) / 1000000 + 1) : 0,
								   ra_wait_event(&wait_event, "RiskAlertAcceptors"));
		for (i = 0; i < n; i++)
			waiting[i]->ready |= sockets[i].ready;
		CHECK_FOR_INTERRUPTS();
	}
}

static char *
failure(Link *link, const char *otherwise)
{
	char	   *reason = pchomp(link->pg ? PQerrorMessage(link->pg) : "");

	if (reason[0] == '\0')
		reason = pstrdup(otherwise);
	close_link(link);
	return reason;
}

/* One step of connecting.  Why it can't be, or NULL. */
static char *
go_on_connecting(Link *link)
{
	PostgresPollingStatusType status = PGRES_POLLING_READING;

	if (link->ready)
	{
		status = PQconnectPoll(link->pg);
		link->events = status == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		link->ready = false;
	}
	if (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING)
	{
		if (ra_boottime() < link->connect_until)
			return NULL;
		close_link(link);
		return pstrdup("no answer to an attempt to connect");
	}
	if (status != PGRES_POLLING_OK)
		return failure(link, "could not connect");
	if (!link->trusted && !PQconnectionUsedPassword(link->pg))
	{
		close_link(link);
		return pstrdup("the extension's owner is no superuser, so the node must ask for a password");
	}
	if (PQsetnonblocking(link->pg, 1) != 0)
		return failure(link, "could not make the connection non-blocking");

	link->serial = ra_socket_serial();

	/* its answer is the first one to be read and dropped */
	if (!PQsendPrepare(link->pg, ACCEPT_NAME, RA_LINK_ACCEPT, 0, NULL))
		return failure(link, "could not send");
	link->state = LINK_LATE;
	link->sent_at = ra_boottime();
	return NULL;
}

/*
 * Does what can be done without waiting, until the request is sent.  Why it
 * can't be, or NULL.
 */
static char *
advance(Link *link)
{
	char	   *reason;

	if (link->state == LINK_CLOSED && (reason = open_link(link)) != NULL)
		return reason;

	if (link->state == LINK_CONNECTING && (reason = go_on_connecting(link)) != NULL)
		return reason;
	if (link->state == LINK_CONNECTING)
		return NULL;

	/* what is left of an earlier request */
	if (link->state == LINK_LATE || link->state == LINK_IDLE)
	{
		link->events = WL_SOCKET_READABLE | (PQflush(link->pg) > 0 ? WL_SOCKET_WRITEABLE : 0);
		drop_answer(link);
		if (PQstatus(link->pg) != CONNECTION_OK)
		{
			/* it was lost since; nothing of this request has been sent */
			if (link->again)
				return failure(link, "connection lost");
			link->again = true;
			close_link(link);
			return advance(link);
		}
	}

	if (link->state == LINK_IDLE)
	{
		RaLinkRequest request = current;

		request.params[1] = link->node;
		if (link->prepared && strcmp(request.sql, RA_LINK_ACCEPT) == 0 ?
			!PQsendQueryPrepared(link->pg, ACCEPT_NAME, request.nparams, request.params, NULL, NULL, 0) :
			!PQsendQueryParams(link->pg, request.sql, request.nparams, NULL, request.params, NULL, NULL, 0))
			return failure(link, "could not send");
		link->state = LINK_BUSY;
		link->sent_at = ra_boottime();
	}
	if (link->state == LINK_BUSY)
		link->events = WL_SOCKET_READABLE | (PQflush(link->pg) > 0 ? WL_SOCKET_WRITEABLE : 0);
	return NULL;
}

/*
 * True: an answer is there, or the reason why there is none; neither: the link was closed.
 * An answer counts when the acceptor is ready for the next statement.  It commits only after its row and
 * command tag, which leave before that if its session or server is ended in between.
 */
static bool
receive(Link *link, PGresult **result, char **reason)
{
	PGresult   *res;

	for (;;)
	{
		/* read once for all that is there; who can't be read from will say so */
		if (!link->ready || PQconsumeInput(link->pg))
		{
			link->ready = false;
			if (PQisBusy(link->pg))
				return false;
		}
		link->ready = false;
		res = PQgetResult(link->pg);
		if (res == NULL || PQresultStatus(res) != PGRES_TUPLES_OK || link->answer)
			break;
		link->answer = res;
	}
	if (res == NULL && link->answer && PQstatus(link->pg) == CONNECTION_OK)
	{
		link->state = LINK_IDLE;
		*result = link->answer;
		link->answer = NULL;
		return true;
	}
	PQclear(link->answer);
	link->answer = NULL;
	if (PQstatus(link->pg) != CONNECTION_OK)
	{
		PQclear(res);
		if (link->again)
			*reason = failure(link, "connection lost");
		else
		{
			link->again = true;
			close_link(link);
		}
		return true;
	}
	*reason = res ? pstrdup(PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) ?
							PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : "no answer") : pstrdup("no answer");
	if (res && PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL))
		*reason = psprintf("%s (%s)", *reason, PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL));
	PQclear(res);
	link->state = LINK_LATE;
	return true;
}

/* Reads what has come of an earlier request */
static void
drop_answer(Link *link)
{
	while (PQconsumeInput(link->pg) && !PQisBusy(link->pg) && PQstatus(link->pg) == CONNECTION_OK)
	{
		PGresult   *res = PQgetResult(link->pg);

		if (res == NULL)
		{
			link->state = LINK_IDLE;
			break;
		}
		if (PQresultStatus(res) == PGRES_COMMAND_OK)
			link->prepared = true;	/* all else returns rows */
		PQclear(res);
	}
}

static Oid
extension_owner(void)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(ra_extension_marker()));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "extension \"%s\" is not complete", RA_EXTENSION);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Begins to connect.  Why it can't, or NULL. */
static char *
open_link(Link *link)
{
	ForeignServer *server = ra_node_server(link->node, true);
	UserMapping *mapping;
	Oid			owner;
	const char *password;
	const char *options;
	const char *timeout;
	const char **keywords;
	const char **values;
	int			seconds;
	int			n = 0;

	if (server == NULL)
		return pstrdup("this database has no server of that name");
	owner = extension_owner();
	if (!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(owner), ObjectIdGetDatum(server->serverid)) &&
		!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(server->serverid)))
		return psprintf("role %s, which owns the extension, has no user mapping for it",
						quote_identifier(GetUserNameFromId(owner, false)));
	mapping = GetUserMapping(owner, server->serverid);
	password = ra_option(mapping->options, "password");
	link->trusted = superuser_arg(owner) || !ra_option_bool(mapping->options, "password_required", true);
	if (!link->trusted && (password == NULL || password[0] == '\0'))
		return pstrdup("the user mapping has no password");

	keywords = palloc((list_length(server->options) + list_length(mapping->options) + 6) * sizeof(char *));
	values = palloc((list_length(server->options) + list_length(mapping->options) + 6) * sizeof(char *));
	keywords[n] = "user";
	values[n++] = GetUserNameFromId(owner, false);
	keywords[n] = "dbname";
	values[n++] = get_database_name(MyDatabaseId);
	keywords[n] = "application_name";
	values[n++] = psprintf("risk_alert %s", ra_node_name);
	n = ra_libpq_options(server->options, keywords, values, n);
	n = ra_libpq_options(mapping->options, keywords, values, n);
	options = ra_option(server->options, "options");
	keywords[n] = "options";
	values[n++] = options ? psprintf("%s %s", options, SETTINGS) : SETTINGS;
	keywords[n] = "client_encoding";
	values[n++] = GetDatabaseEncodingName();
	keywords[n] = values[n] = NULL;

	if (!AcquireExternalFD())
		return pstrdup("too many open files on this server");
	link->invalidated = false;
	link->pg = PQconnectStartParams(keywords, values, 0);
	if (link->pg == NULL)
	{
		ReleaseExternalFD();
		return pstrdup("out of memory");
	}
	timeout = ra_option(server->options, "connect_timeout");
	seconds = timeout && atoi(timeout) > 0 ? atoi(timeout) : CONNECT_SECONDS;
	link->connect_until = ra_boottime() + (uint64) seconds * 1000000000;
	link->state = LINK_CONNECTING;
	link->events = WL_SOCKET_WRITEABLE;
	link->ready = false;
	if (PQstatus(link->pg) == CONNECTION_BAD)
		return failure(link, "could not connect");
	return NULL;
}
