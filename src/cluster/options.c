/*
 * options.c
 *	  Nodes as PostgreSQL knows them: servers of the foreign-data wrapper
 *	  risk_alert_node, and their options.
 *
 * What libpq can be told is not taken over as a whole: a library that learns a
 * new option must not open a door here.  Each option we let through is listed,
 * and offered if the libpq at hand knows it.  Who somebody is, and how he
 * proves it, stands in user mappings only, which nobody but their owners
 * can read.
 *
 * Some options make the server use what is its own: files that only its
 * operating system user may read, or the trust that others put in that user.
 * They are for superusers, as is the permission to do without a password
 * (see connection.c).
 */
#include "postgres.h"

#include <errno.h>
#include <math.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "cluster/options.h"

#define MAX_WEIGHT 1000000.0

typedef enum OptionKind
{
	OPTION_TEXT,				/* left to libpq to judge */
	OPTION_INT,
	OPTION_PORT,
	OPTION_SSLMODE,
	OPTION_WEIGHT,
	OPTION_PASSWORD_REQUIRED,
	OPTION_OF_SUPERUSERS		/* names what only the server's user may read */
} OptionKind;

typedef struct NodeOption
{
	const char *name;
	Oid			catalog;
	bool		is_libpq;
	OptionKind	kind;
} NodeOption;

static const NodeOption node_options[] = {
	{"host", ForeignServerRelationId, true, OPTION_TEXT},
	{"hostaddr", ForeignServerRelationId, true, OPTION_TEXT},
	{"port", ForeignServerRelationId, true, OPTION_PORT},
	{"dbname", ForeignServerRelationId, true, OPTION_TEXT},
	{"weight", ForeignServerRelationId, false, OPTION_WEIGHT},
	{"connect_timeout", ForeignServerRelationId, true, OPTION_INT},
	{"application_name", ForeignServerRelationId, true, OPTION_TEXT},
	{"options", ForeignServerRelationId, true, OPTION_TEXT},
	{"target_session_attrs", ForeignServerRelationId, true, OPTION_TEXT},
	{"keepalives", ForeignServerRelationId, true, OPTION_INT},
	{"keepalives_idle", ForeignServerRelationId, true, OPTION_INT},
	{"keepalives_interval", ForeignServerRelationId, true, OPTION_INT},
	{"keepalives_count", ForeignServerRelationId, true, OPTION_INT},
	{"tcp_user_timeout", ForeignServerRelationId, true, OPTION_INT},
	{"sslmode", ForeignServerRelationId, true, OPTION_SSLMODE},
	{"sslnegotiation", ForeignServerRelationId, true, OPTION_TEXT},
	{"sslrootcert", ForeignServerRelationId, true, OPTION_TEXT},
	{"sslcrl", ForeignServerRelationId, true, OPTION_TEXT},
	{"sslcrldir", ForeignServerRelationId, true, OPTION_TEXT},
	{"sslsni", ForeignServerRelationId, true, OPTION_INT},
	{"ssl_min_protocol_version", ForeignServerRelationId, true, OPTION_TEXT},
	{"ssl_max_protocol_version", ForeignServerRelationId, true, OPTION_TEXT},
	{"channel_binding", ForeignServerRelationId, true, OPTION_TEXT},
	{"require_auth", ForeignServerRelationId, true, OPTION_TEXT},
	{"requirepeer", ForeignServerRelationId, true, OPTION_TEXT},
	{"gssencmode", ForeignServerRelationId, true, OPTION_TEXT},
	{"krbsrvname", ForeignServerRelationId, true, OPTION_TEXT},

	{"user", UserMappingRelationId, true, OPTION_TEXT},
	{"password", UserMappingRelationId, true, OPTION_TEXT},
	{"password_required", UserMappingRelationId, false, OPTION_PASSWORD_REQUIRED},
	{"passfile", UserMappingRelationId, true, OPTION_OF_SUPERUSERS},
	{"sslcert", UserMappingRelationId, true, OPTION_OF_SUPERUSERS},
	{"sslkey", UserMappingRelationId, true, OPTION_OF_SUPERUSERS},
	{"sslpassword", UserMappingRelationId, true, OPTION_OF_SUPERUSERS},
};

PG_FUNCTION_INFO_V1(ra_node_validator);

static const NodeOption *find_option(const char *name, Oid catalog);
static bool libpq_knows(const char *name);
static void unknown_option(const char *name, Oid catalog);
static void check_value(const NodeOption *option, DefElem *def);

/*
 * risk_alert.node_validator(options, catalog): called by CREATE and ALTER of
 * SERVER, USER MAPPING, FOREIGN DATA WRAPPER and FOREIGN TABLE, with all options
 * that the object would have.
 */
Datum
ra_node_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);
		const NodeOption *option = find_option(def->defname, catalog);

		if (option == NULL)
			unknown_option(def->defname, catalog);
		else
			check_value(option, def);
	}
	PG_RETURN_VOID();
}

static const NodeOption *
find_option(const char *name, Oid catalog)
{
	int			i;

	for (i = 0; i < lengthof(node_options); i++)
	{
		const NodeOption *option = &node_options[i];

		if (option->catalog == catalog && strcmp(option->name, name) == 0 &&
			(!option->is_libpq || libpq_knows(name)))
			return option;
	}
	return NULL;
}

static bool
libpq_knows(const char *name)
{
	static PQconninfoOption *known = NULL;
	PQconninfoOption *option;

	if (known == NULL)
		known = PQconndefaults();
	if (known == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	for (option = known; option->keyword; option++)
	{
		if (strcmp(option->keyword, name) == 0)
			return true;
	}
	return false;
}

static void
unknown_option(const char *name, Oid catalog)
{
	StringInfoData valid;
	Oid			other = catalog == ForeignServerRelationId ? UserMappingRelationId : ForeignServerRelationId;
	int			i;

	initStringInfo(&valid);
	for (i = 0; i < lengthof(node_options); i++)
	{
		const NodeOption *option = &node_options[i];

		if (option->catalog == catalog && (!option->is_libpq || libpq_knows(option->name)))
			appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "", option->name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 find_option(name, other) == NULL ? 0 :
			 other == UserMappingRelationId ?
			 errdetail("It is an option of user mappings.") :
			 errdetail("It is an option of servers."),
			 valid.len > 0 ?
			 errhint("Valid options in this context are: %s.", valid.data) :
			 errhint("There are no valid options in this context.")));
}

static void
check_value(const NodeOption *option, DefElem *def)
{
	static const char *const sslmodes[] = {
		"disable", "allow", "prefer", "require", "verify-ca", "verify-full"
	};
	char	   *value = defGetString(def);
	char	   *end;
	int			number;
	double		weight;
	int			i;

	switch (option->kind)
	{
		case OPTION_TEXT:
			break;

		case OPTION_INT:
			if (!parse_int(value, &number, 0, NULL) || number < 0)
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						 errmsg("invalid value for option \"%s\": \"%s\"", def->defname, value),
						 errhint("It must be an integer that is not negative.")));
			break;

		case OPTION_PORT:
			if (!parse_int(value, &number, 0, NULL) || number < 1 || number > 65535)
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						 errmsg("invalid value for option \"%s\": \"%s\"", def->defname, value),
						 errhint("It must be an integer between 1 and 65535.")));
			break;

		case OPTION_SSLMODE:
			for (i = 0; i < lengthof(sslmodes); i++)
			{
				if (strcmp(value, sslmodes[i]) == 0)
					return;
			}
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("invalid value for option \"%s\": \"%s\"", def->defname, value),
					 errhint("Valid values are: disable, allow, prefer, require, verify-ca, verify-full.")));
			break;

		case OPTION_WEIGHT:
			errno = 0;
			weight = strtod(value, &end);
			if (end == value || *end != '\0' || errno != 0 || !(weight > 0 && weight <= MAX_WEIGHT))
				ereport(ERROR,
						(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						 errmsg("invalid value for option \"%s\": \"%s\"", def->defname, value),
						 errhint("It must be a number above 0, and at most %.0f.", MAX_WEIGHT)));
			break;

		case OPTION_PASSWORD_REQUIRED:
			if (!defGetBoolean(def) && !superuser())
				ereport(ERROR,
						(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						 errmsg("only superusers can set password_required to false"),
						 errdetail("Such a mapping may use the identity of the server's operating system user.")));
			break;

		case OPTION_OF_SUPERUSERS:
			if (!superuser())
				ereport(ERROR,
						(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						 errmsg("only superusers can set option \"%s\"", def->defname),
						 errdetail("It makes the server use files of its own.")));
			break;
	}
}

ForeignServer *
ra_node_server(const char *name, bool missing_ok)
{
	ForeignServer *server = GetForeignServerByName(name, true);

	if (server == NULL && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node \"%s\" does not exist", name),
				 errhint("View risk_alert.nodes shows those that there are; CREATE SERVER ... FOREIGN DATA WRAPPER %s makes one.",
						 RA_NODE_FDW)));
	if (server && strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, RA_NODE_FDW) != 0)
	{
		if (missing_ok)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a node", name),
				 errhint("Nodes are servers of the foreign-data wrapper %s.", RA_NODE_FDW)));
	}
	return server;
}

List *
ra_node_names(void)
{
	Oid			wrapper = get_foreign_data_wrapper_oid(RA_NODE_FDW, true);
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	List	   *names = NIL;

	while ((tuple = systable_getnext(scan)) != NULL)
	{
		Form_pg_foreign_server server = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (server->srvfdw == wrapper)
			names = lappend(names, pstrdup(NameStr(server->srvname)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return names;
}

const char *
ra_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return NULL;
}

bool
ra_option_bool(List *options, const char *name, bool otherwise)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, name) == 0)
			return defGetBoolean(def);
	}
	return otherwise;
}

double
ra_node_weight(const char *name)
{
	ForeignServer *server = ra_node_server(name, true);
	const char *weight = server ? ra_option(server->options, "weight") : NULL;

	return weight ? strtod(weight, NULL) : 1.0;
}

int
ra_libpq_options(List *options, const char **keywords, const char **values, int n)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);
		int			i;

		for (i = 0; i < lengthof(node_options); i++)
		{
			if (node_options[i].is_libpq && strcmp(node_options[i].name, def->defname) == 0)
			{
				keywords[n] = def->defname;
				values[n++] = defGetString(def);
				break;
			}
		}
	}
	return n;
}
