/*
 * risk_alert.c
 *	  Entry of the library: settings, hooks, the launcher.
 *
 * Everything hangs on shared memory, so the library does nothing at all unless
 * it is loaded through shared_preload_libraries; ra_shared stays NULL then, and
 * CREATE EXTENSION says what to do (ra_require_preload()).
 */
#include "postgres.h"

#include <limits.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "cluster/broker.h"
#include "cluster/locktable.h"
#include "cluster/register.h"
#include "cluster/xact.h"
#include "compat.h"
#include "guc.h"
#include "launcher.h"
#include "risk_alert.h"
#include "shmem.h"

PG_MODULE_MAGIC;

/* settings, see define_settings() */
bool		ra_allow_superuser_rules = false;
int			ra_batch_size = 10000;
int			ra_catch_up_timeout = 300;
char	   *ra_cluster_name = "risk_alert";
int			ra_commit_register = RA_REGISTER_LOCAL;
int			ra_commit_timeout = 30000;
char	   *ra_coordination_password_file = "";
bool		ra_coordination_tls = false;
char	   *ra_coordination_tls_ca_file = "";
char	   *ra_coordination_tls_cert_file = "";
char	   *ra_coordination_tls_key_file = "";
char	   *ra_coordination_tls_key_password_file = "";
char	   *ra_debug_stop_at = "";
int			ra_feature_memory = 128 * 1024;
int			ra_lock_cohort_limit = 32;
int			ra_lock_provider = RA_LOCK_PROVIDER_LOCAL;
int			ra_max_locks = 8192;
char	   *ra_node_name = "";
char	   *ra_paxos_acceptors = "";
int			ra_prepared_warning = 300;
int			ra_queue_rotate_size = 64 * 1024;
int			ra_recovery_interval = 5000;
char	   *ra_redis_hosts = "";
int			ra_decision_retention = 3600;
int			ra_register_retention = 86400;
int			ra_rule_error_limit = 100;
int			ra_rule_timeout = 100;
int			ra_session_timeout = 10000;
char	   *ra_zookeeper_hosts = "";

static const struct config_enum_entry lock_providers[] = {
	{"local", RA_LOCK_PROVIDER_LOCAL, false},
	{"zookeeper", RA_LOCK_PROVIDER_ZOOKEEPER, false},
	{"redis", RA_LOCK_PROVIDER_REDIS, false},
	{NULL, 0, false}
};

static const struct config_enum_entry commit_registers[] = {
	{"local", RA_REGISTER_LOCAL, false},
	{"zookeeper", RA_REGISTER_ZOOKEEPER, false},
	{"paxos", RA_REGISTER_PAXOS, false},
	{NULL, 0, false}
};

static shmem_request_hook_type prev_shmem_request = NULL;
static shmem_startup_hook_type prev_shmem_startup = NULL;

/* ra_check_version() has found the versions to agree */
static bool version_checked = false;
static Oid	version_marker = InvalidOid;

void		_PG_init(void);

static void define_settings(void);
static bool check_name(const char *value);
static bool check_cluster_name(char **newval, void **extra, GucSource source);
static bool check_node_name(char **newval, void **extra, GucSource source);
static void shmem_request(void);
static void shmem_startup(void);
static void version_invalidate(Datum arg, Oid relid);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	define_settings();
	ra_xact_register();			/* before any other callback of ours */

	prev_shmem_request = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	ra_utility_init();

	/* pg_upgrade runs both servers: nothing may be processed meanwhile */
	if (!IsBinaryUpgrade)
	{
		ra_launcher_register();
		ra_broker_register();
	}
}

/*
 * All settings, sorted by name.  Those that decide about scores are not
 * settable in a session: the worker and all sessions must agree.
 */
static void
define_settings(void)
{
	DefineCustomBoolVariable("risk_alert.allow_superuser_rules",
							 "Lets rules and features of superusers call functions of other roles.",
							 "They run with a superuser's rights then, so whoever owns such a function "
							 "can act as superuser; leave it off unless all owners are trusted.",
							 &ra_allow_superuser_rules,
							 false,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.batch_size",
							"Sets how many events a worker processes in one transaction at most.",
							"More give a higher rate while a backlog is worked off, and make alerts "
							"of that time visible later and in larger steps.",
							&ra_batch_size,
							10000, 1, 1000000,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.catch_up_timeout",
							"Sets how long events wait for this node to catch up with what was published while it was away.",
							"Then they are scored with what is in use here; 0: they wait as long as it takes.",
							&ra_catch_up_timeout,
							300, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.cluster_name",
							   "Sets the name of the cluster that this node belongs to.",
							   "Nodes of one cluster have the same; whatever they share is kept under it.",
							   &ra_cluster_name,
							   "risk_alert",
							   PGC_POSTMASTER, 0,
							   check_cluster_name, NULL, NULL);

	DefineCustomEnumVariable("risk_alert.commit_register",
							 "Sets where it is decided whether a global transaction commits.",
							 "local: in the node that coordinates it, and the others wait while that is down; "
							 "zookeeper and paxos: where any node that survives can learn it.",
							 &ra_commit_register,
							 RA_REGISTER_LOCAL, commit_registers,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.commit_timeout",
							"Sets how long the nodes of a global transaction may take to prepare it.",
							"One that takes longer is rolled back; other nodes leave a prepared transaction "
							"to its coordinator for that long.",
							&ra_commit_timeout,
							30000, 100, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.coordination_password_file",
							   "Sets the file that holds user:password for the coordination service.",
							   "One line; others must not be able to read it.  Read whenever the broker "
							   "starts; empty if the service asks for no password.",
							   &ra_coordination_password_file,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomBoolVariable("risk_alert.coordination_tls",
							 "Encrypts the connection to the coordination service.",
							 "Needs a client library that can; without one the broker does not connect at all. "
							 "Read whenever the broker starts, as are the names of the files.",
							 &ra_coordination_tls,
							 false,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.coordination_tls_ca_file",
							   "Sets the file of the certificates that may have signed the coordination service's own.",
							   "No others are trusted, not even those that the system trusts.",
							   &ra_coordination_tls_ca_file,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.coordination_tls_cert_file",
							   "Sets the file of this node's certificate for the coordination service.",
							   "ZooKeeper's library needs one; empty if Redis asks for none.",
							   &ra_coordination_tls_cert_file,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.coordination_tls_key_file",
							   "Sets the file of the key that belongs to coordination_tls_cert_file.",
							   "Others must not be able to read it.",
							   &ra_coordination_tls_key_file,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.coordination_tls_key_password_file",
							   "Sets the file that holds the password of coordination_tls_key_file.",
							   "One line; others must not be able to read it.  Empty if the key is not encrypted.",
							   &ra_coordination_tls_key_password_file,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.debug_stop_at",
							   "For tests: stops the commit of a global transaction at the step of that name.",
							   "While file risk_alert.stop is in the data directory.",
							   &ra_debug_stop_at,
							   "",
							   PGC_SUSET, GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							   NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.decision_retention",
							"Sets how long the decision to commit a global transaction is kept after all its branches are finished.",
							"By registers local and zookeeper, for nodes that are restored from a backup; a branch that "
							"is prepared for longer, and that nobody knows of, is left to an operator.  The same on all nodes.",
							&ra_decision_retention,
							3600, 1, 30 * 86400,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.feature_memory",
							"Sets the amount of shared memory that keeps features of recently active entities.",
							"What does not fit is rebuilt from the watched table when it is needed: "
							"too little costs speed, never correctness.",
							&ra_feature_memory,
							128 * 1024, 1024, MAX_KILOBYTES,
							PGC_POSTMASTER, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.lock_cohort_limit",
							"Sets how often in a row a node may pass a lock on among its own sessions while others wait.",
							"Passing it on costs no round trip to the coordination service; 0 gives it "
							"back each time.",
							&ra_lock_cohort_limit,
							32, 0, 10000,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	DefineCustomEnumVariable("risk_alert.lock_provider",
							 "Sets what the advisory locks of the cluster rest on.",
							 "local: one node, no service; zookeeper and redis: a coordination service, "
							 "the same for all nodes.",
							 &ra_lock_provider,
							 RA_LOCK_PROVIDER_LOCAL, lock_providers,
							 PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.max_locks",
							"Sets how many different advisory locks of the cluster can be in use on this server.",
							"Each takes about 600 bytes of shared memory.",
							&ra_max_locks,
							8192, 16, 10000000,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.node_name",
							   "Sets this node's name in the cluster.",
							   "No two nodes may have the same, and the others know it as a foreign server "
							   "of that name; empty if the server is not part of a cluster.",
							   &ra_node_name,
							   "",
							   PGC_POSTMASTER, 0,
							   check_node_name, NULL, NULL);

	DefineCustomStringVariable("risk_alert.paxos_acceptors",
							   "Sets the nodes whose majority decides global transactions with commit_register paxos.",
							   "Names separated by commas, the same on all nodes; 3 or 5 of them are enough. Empty: all nodes. "
							   "After a change, risk_alert.paxos_admit() must be run on each.",
							   &ra_paxos_acceptors,
							   "",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.prepared_warning",
							"Sets how long a branch may be prepared before check_setup() and the log warn of it.",
							"It holds its locks, and keeps VACUUM from removing rows, until it is finished.",
							&ra_prepared_warning,
							300, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.queue_rotate_size",
							"Sets the size of the current queue table from which events go to the next one.",
							"A table is emptied as a whole some time after: larger ones take more disk "
							"space, smaller ones are switched and emptied more often.",
							&ra_queue_rotate_size,
							64 * 1024, 64, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.recovery_interval",
							"Sets how often a node looks for branches of global transactions that nobody finishes.",
							"Shorter frees their locks earlier.",
							&ra_recovery_interval,
							5000, 100, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.redis_hosts",
							   "Sets where Redis is: host:port, or several separated by commas.",
							   "Read whenever the broker starts.",
							   &ra_redis_hosts,
							   "",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.register_retention",
							"Sets how long the outcome of a finished global transaction is kept by registers zookeeper and paxos.",
							"Longer than any transaction may take to be decided: a commit that arrives "
							"after its abort was removed would count.",
							&ra_register_retention,
							86400, 7200, 30 * 86400,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.rule_error_limit",
							"Sets how many errors in a row suspend a rule.",
							"A suspended rule does not fire until it is altered; 0 never suspends, so a "
							"rule that always fails slows down every event.",
							&ra_rule_error_limit,
							100, 0, INT_MAX,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.rule_timeout",
							"Sets how long a rule may take for one event.",
							"A rule that takes longer counts as failed for that event, and holds up all "
							"events behind it for that long; 0 sets no limit.",
							&ra_rule_timeout,
							100, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("risk_alert.session_timeout",
							"Sets how long the coordination service waits for a silent node before its locks go to others.",
							"ZooKeeper may choose another value, between 2 and 20 of its ticks.  Read whenever "
							"the broker starts.",
							&ra_session_timeout,
							10000, 100, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomStringVariable("risk_alert.zookeeper_hosts",
							   "Sets where ZooKeeper is: host:port of its servers, separated by commas.",
							   "Read whenever the broker starts.",
							   &ra_zookeeper_hosts,
							   "",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);

	MarkGUCPrefixReserved("risk_alert");
}

/* Such names can be part of a path in any coordination service */
static bool
check_name(const char *value)
{
	if (strlen(value) < NAMEDATALEN &&
		strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == strlen(value))
		return true;
	GUC_check_errdetail("Names have up to %d characters, which are letters and digits of ASCII, \"_\", \".\" and \"-\".",
						NAMEDATALEN - 1);
	return false;
}

static bool
check_cluster_name(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] == '\0')
	{
		GUC_check_errdetail("The name of a cluster is not empty.");
		return false;
	}
	return check_name(*newval);
}

static bool
check_node_name(char **newval, void **extra, GucSource source)
{
	return check_name(*newval);
}

static void
shmem_request(void)
{
	if (prev_shmem_request)
		prev_shmem_request();
	ra_shmem_request();
}

static void
shmem_startup(void)
{
	if (prev_shmem_startup)
		prev_shmem_startup();
	ra_shmem_startup();
}

Oid
ra_extension_oid(char **version)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	Oid			oid = InvalidOid;

	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(RA_EXTENSION));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		oid = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		if (version)
		{
			bool		isnull;
			Datum		d = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

			*version = isnull ? pstrdup("") : TextDatumGetCString(d);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return oid;
}

Oid
ra_extension_marker(void)
{
	Oid			schema = get_namespace_oid(RA_EXTENSION, true);

	return OidIsValid(schema) ? get_relname_relid("stream", schema) : InvalidOid;
}

void
ra_check_version(void)
{
	static bool registered = false;
	char	   *version;

	/* the scripts of the extension may call anything */
	if (version_checked || creating_extension)
		return;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(version_invalidate, (Datum) 0);
		registered = true;
	}

	/* in this order: an invalidation while we look must win */
	version_marker = ra_extension_marker();
	version_checked = OidIsValid(version_marker);
	if (!OidIsValid(ra_extension_oid(&version)))
	{
		version_checked = false;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" does not exist in this database", RA_EXTENSION),
				 errhint("Run CREATE EXTENSION risk_alert.")));
	}
	if (strcmp(version, RA_VERSION) != 0)
	{
		version_checked = false;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" has version %s here, but the server has loaded its library of version %s",
						RA_EXTENSION, version, RA_VERSION),
				 errhint("Run ALTER EXTENSION risk_alert UPDATE; if the library is the older one, restart the server.")));
	}
	pfree(version);
}

static void
version_invalidate(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == version_marker)
		version_checked = false;
}

/* _library_version(): what ALTER EXTENSION ... UPDATE should lead to */
PG_FUNCTION_INFO_V1(ra_library_version);
Datum
ra_library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(RA_VERSION));
}
