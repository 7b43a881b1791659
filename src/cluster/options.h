/*
 * options.h
 *	  Nodes as PostgreSQL knows them: servers of the foreign-data wrapper
 *	  risk_alert_node, and their options.
 */
#ifndef RA_OPTIONS_H
#define RA_OPTIONS_H

#include "postgres.h"

#include "foreign/foreign.h"
#include "nodes/pg_list.h"

#define RA_NODE_FDW "risk_alert_node"

/*
 * The node of that name; NULL if there is none (missing_ok), else an ERROR
 * with a hint.  Whether the caller may use it is not asked.
 */
extern ForeignServer *ra_node_server(const char *name, bool missing_ok);

/* Names of all nodes that this database has a server for */
extern List *ra_node_names(void);

/* An option's value, or NULL */
extern const char *ra_option(List *options, const char *name);

extern bool ra_option_bool(List *options, const char *name, bool otherwise);

/* The node's share when requests are spread; 1 if there is no such node */
extern double ra_node_weight(const char *name);

/*
 * Appends those of the options that are libpq's to keywords and values, which
 * have the room; the new number.
 */
extern int	ra_libpq_options(List *options, const char **keywords, const char **values, int n);

#endif							/* RA_OPTIONS_H */
