/*
 * cluster_alerts.c
 *	  The open alerts of all nodes, for a view.
 *
 * This node's alerts are read here; the other nodes are asked side by side, with the
 * rights of the caller's user mappings, each phase within a time limit of its own.  A
 * node that can't be asked is no error but a warning, and is named in each row.
 *
 * Which nodes.  Those that this database has a server for, and those that are
 * members of the cluster.  Who is known not to be a live member is not asked: that
 * could only take time.  Without a coordination service, or a connection to it, that is not
 * known, so all are asked.
 *
 * Alerts travel as JSON, by the names of their columns.  What one version of the
 * view has and the other has not is NULL here, or left out.
 *
 * What may fail for one node happens in a subtransaction, so the others are not
 * concerned.  Connections are taken in such a one too, and are the calling
 * transaction's when it has ended.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"

#include "cluster/connection.h"
#include "cluster/locktable.h"
#include "cluster/members.h"
#include "cluster/options.h"
#include "cluster/try.h"
#include "guc.h"
#include "risk_alert.h"
#include "shmem.h"

/* time limits of the phases, for all nodes together: connect, answer, be cancelled */
#define CONNECT_MS 3000
#define ANSWER_MS 5000
#define CANCEL_SECONDS 1

/* rows that are converted by one statement */
#define ROWS_AT_ONCE 1000

#define COLUMNS 3

/* One row at least: an alert that is NULL if there is none */
#define REMOTE_QUERY \
	"SELECT n.name, pg_catalog.to_jsonb(a)" \
	"  FROM (SELECT pg_catalog.current_setting('risk_alert.node_name', true) AS name) n" \
	"  LEFT JOIN risk_alert.open_alerts a ON true"

typedef struct Asked
{
	const char *name;			/* NULL: this one, which has no name */
	bool		self;
	bool		has_server;
	bool		gone;			/* known not to be live */

	RaConn	   *conn;			/* NULL: not asked, or has answered */
	bool		missing;
	RaConnFailure why;
	Datum	   *alerts;			/* of type open_alerts */
	int			nalerts;
} Asked;

PG_FUNCTION_INFO_V1(ra_cluster_alerts);

static int	list_nodes(Asked **list);
static int	compare_nodes(const void *a, const void *b);
static void ask_all(Asked *nodes, int n);
static void try_step(void (*step) (void *arg), Asked *node);
static void connect_step(void *arg);
static void send_step(void *arg);
static void receive_step(void *arg);
static void receive(Asked *node);
static void read_local(Asked *node);
static void add_alerts(Asked *node, const char *sql, Datum param, MemoryContext cxt);
static void miss(Asked *node, const char *message, const char *detail, const char *hint);
static void warn(const Asked *node);

/*
 * risk_alert._cluster_alerts(): node, alert, missing_nodes
 */
Datum
ra_cluster_alerts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Asked	   *nodes;
	int			n;
	Datum	   *missing;
	int			nmissing = 0;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {false};
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	ra_require_preload();
	ra_check_version();

	n = list_nodes(&nodes);
	ask_all(nodes, n);
	missing = palloc(n * sizeof(Datum));
	for (i = 0; i < n; i++)
	{
		if (nodes[i].self)
			read_local(&nodes[i]);
		if (nodes[i].missing)
		{
			missing[nmissing++] = CStringGetTextDatum(nodes[i].name);
			warn(&nodes[i]);
		}
	}

	values[2] = PointerGetDatum(construct_array(missing, nmissing, TEXTOID, -1, false, TYPALIGN_INT));
	for (i = 0; i < n; i++)
	{
		nulls[0] = nodes[i].name == NULL;
		values[0] = nodes[i].name ? CStringGetTextDatum(nodes[i].name) : (Datum) 0;
		for (int j = 0; j < nodes[i].nalerts; j++)
		{
			CHECK_FOR_INTERRUPTS();
			values[1] = nodes[i].alerts[j];
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	PG_RETURN_NULL();
}

/* This one first, the others by name */
static int
list_nodes(Asked **list)
{
	List	   *servers = ra_node_names();
	ListCell   *lc;
	RaMember   *members;
	int			nmembers = ra_members(&members, NULL);
	bool		known = false;
	Asked	   *nodes = palloc0((1 + list_length(servers) + nmembers) * sizeof(Asked));
	int			n = 1;
	int			i;

	/* who is not told of itself is told of nobody yet */
	for (i = 0; i < nmembers; i++)
		known = known || (members[i].self && members[i].live && ra_lock_provider != RA_LOCK_PROVIDER_LOCAL);

	nodes[0].self = true;
	nodes[0].name = ra_node_name[0] ? ra_node_name : NULL;
	foreach(lc, servers)
	{
		if (strcmp(lfirst(lc), ra_node_name) == 0)
			continue;
		nodes[n].name = lfirst(lc);
		nodes[n].has_server = true;
		nodes[n++].gone = known;
	}
	for (i = 0; i < nmembers; i++)
	{
		int			j = 1;

		if (strcmp(members[i].name, ra_node_name) == 0)
			continue;
		while (j < n && strcmp(nodes[j].name, members[i].name) != 0)
			j++;
		if (j < n)
			nodes[j].gone = known && !members[i].live;
		else
			nodes[n++].name = members[i].name;
	}
	qsort(nodes + 1, n - 1, sizeof(Asked), compare_nodes);
	*list = nodes;
	return n;
}

static int
compare_nodes(const void *a, const void *b)
{
	return strcmp(((const Asked *) a)->name, ((const Asked *) b)->name);
}

static void
ask_all(Asked *nodes, int n)
{
	RaConn	  **conns = palloc(n * sizeof(RaConn *));
	int			nconns = 0;
	int			nbusy = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		Asked	   *node = &nodes[i];

		if (node->self)
			continue;
		if (!node->has_server)
			miss(node, "this database has no server for it", NULL,
				 psprintf("CREATE SERVER %s FOREIGN DATA WRAPPER %s OPTIONS (host '...', port '...', dbname '...')",
						  quote_identifier(node->name), RA_NODE_FDW));
		else if (node->gone)
			miss(node, "it is not a live member of the cluster", NULL, NULL);
		else
			try_step(connect_step, node);
		if (node->conn)
			conns[nconns++] = node->conn;
	}
	(void) ra_conn_connect_all(conns, nconns, CONNECT_MS);

	nconns = 0;
	for (i = 0; i < n; i++)
	{
		if (nodes[i].conn)
			try_step(send_step, &nodes[i]);
		if (nodes[i].conn)
			conns[nconns++] = nodes[i].conn;
	}
	(void) ra_conn_wait_all_for(conns, nconns, ANSWER_MS);

	/* those that have not answered first, as the rest takes time of our own */
	for (i = 0; i < n; i++)
	{
		Asked	   *node = &nodes[i];

		if (node->conn == NULL || !ra_conn_busy(node->conn))
			continue;
		miss(node, "it did not answer in time", psprintf("It has been given %d s.", ANSWER_MS / 1000), NULL);
		conns[nbusy++] = node->conn;
		node->conn = NULL;
	}
	ra_conn_abandon_all(conns, nbusy, CANCEL_SECONDS);

	for (i = 0; i < n; i++)
	{
		if (nodes[i].conn)
			receive(&nodes[i]);
	}
}

/* What fails makes the node a missing one */
static void
try_step(void (*step) (void *arg), Asked *node)
{
	ErrorData  *error = ra_try(step, node);

	if (error == NULL)
		return;
	miss(node, error->message, error->detail, error->hint);

	/* one that an earlier step has taken */
	if (node->conn)
		ra_conn_abandon_all(&node->conn, 1, 0);
	node->conn = NULL;
}

static void
connect_step(void *arg)
{
	Asked	   *node = arg;

	/* not to be seen by try_step() if it fails: then it is given back already */
	node->conn = ra_conn_begin(node->name);
}

static void
send_step(void *arg)
{
	Asked	   *node = arg;

	ra_conn_connected(node->conn, CONNECT_MS);
	ra_conn_send(node->conn, REMOTE_QUERY, 0, NULL, false);
}

/* An answer, of whatever kind, is there */
static void
receive(Asked *node)
{
	PGresult   *res = ra_conn_result(node->conn);

	if (ra_conn_failed(node->conn, &node->why))
		node->missing = true;
	else if (PQnfields(res) != 2 || PQntuples(res) < 1)
		miss(node, "it did not answer as expected", NULL, NULL);
	else if (!PQgetisnull(res, 0, 0) && PQgetvalue(res, 0, 0)[0] &&
			 strcmp(PQgetvalue(res, 0, 0), node->name) != 0)
		miss(node, psprintf("it calls itself \"%s\"", PQgetvalue(res, 0, 0)),
			 "Its alerts might be counted twice.",
			 psprintf("SELECT * FROM risk_alert.check_node(%s)", quote_literal_cstr(node->name)));
	else
		try_step(receive_step, node);
	if (node->conn)
		ra_conn_abandon_all(&node->conn, 1, 0);
	node->conn = NULL;
}

static void
receive_step(void *arg)
{
	Asked	   *node = arg;
	PGresult   *res = ra_conn_result(node->conn);
	MemoryContext cxt = CurrentMemoryContext;
	Datum	   *texts = palloc(ROWS_AT_ONCE * sizeof(Datum));
	int			n = PQntuples(res);
	int			row = 0;

	if (PQgetisnull(res, 0, 1))
		return;
	node->alerts = MemoryContextAllocHuge(cxt, n * sizeof(Datum));
	while (row < n)
	{
		int			batch = 0;
		ArrayType  *array;

		for (; row < n && batch < ROWS_AT_ONCE; row++)
			texts[batch++] = CStringGetTextDatum(PQgetvalue(res, row, 1));
		array = construct_array(texts, batch, TEXTOID, -1, false, TYPALIGN_INT);
		while (batch > 0)
			pfree(DatumGetPointer(texts[--batch]));
		add_alerts(node, "SELECT pg_catalog.jsonb_populate_record(NULL::risk_alert.open_alerts, t::pg_catalog.jsonb)"
				   "  FROM pg_catalog.unnest($1) t", PointerGetDatum(array), cxt);
		pfree(array);
	}
}

/* Appends a statement's rows, each one value of type open_alerts; node->alerts has the room */
static void
add_alerts(Asked *node, const char *sql, Datum param, MemoryContext cxt)
{
	Oid			types[1] = {TEXTARRAYOID};

	SPI_connect();
	if (SPI_execute_with_args(sql, param ? 1 : 0, types, &param, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read open alerts");
	if (node->alerts == NULL)
		node->alerts = MemoryContextAllocHuge(cxt, Max(SPI_processed, 1) * sizeof(Datum));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		alert = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
		MemoryContext before = MemoryContextSwitchTo(cxt);

		node->alerts[node->nalerts++] = datumCopy(alert, false, -1);
		MemoryContextSwitchTo(before);
	}
	SPI_finish();
}

static void
read_local(Asked *node)
{
	add_alerts(node, "SELECT a FROM risk_alert.open_alerts a", (Datum) 0, CurrentMemoryContext);
}

static void
miss(Asked *node, const char *message, const char *detail, const char *hint)
{
	node->missing = true;
	node->nalerts = 0;
	node->why.message = pstrdup(message);
	node->why.detail = detail ? pstrdup(detail) : NULL;
	node->why.hint = hint ? pstrdup(hint) : NULL;
}

static void
warn(const Asked *node)
{
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("alerts of node \"%s\" are missing: %s", node->name, node->why.message),
			 node->why.detail ? errdetail_internal("%s", node->why.detail) : 0,
			 node->why.hint ? errhint("%s", node->why.hint) : 0));
}
