/*
 * global_sql.c
 *	  SQL functions that run statements in branches of the caller's transaction.
 *
 * What becomes of the branches is in global.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "cluster/branch.h"
#include "cluster/global.h"
#include "compat.h"
#include "guc.h"
#include "risk_alert.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(ra_global_execute);
PG_FUNCTION_INFO_V1(ra_global_execute_all);

static void require_cluster(void);
pg_noreturn static void refuse_null(const char *what);
static int	strings_of(FunctionCallInfo fcinfo, int arg, const char *what, int rows, int *row, char ***strings);

/*
 * risk_alert.global_execute(node, sql, params): runs one statement on the node, in
 * this transaction's branch there; how many rows it affected or returned.
 */
Datum
ra_global_execute(PG_FUNCTION_ARGS)
{
	RaBranch   *branch;
	char	  **params;
	int			nparams;

	require_cluster();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		refuse_null(PG_ARGISNULL(0) ? "node" : "sql");
	nparams = strings_of(fcinfo, 2, NULL, 0, NULL, &params);
	branch = ra_branch_get(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	ra_branch_start(branch, text_to_cstring(PG_GETARG_TEXT_PP(1)), nparams, (const char *const *) params, false);
	ra_branch_wait_started();
	PG_RETURN_INT64(ra_branch_finish(branch));
}

/*
 * risk_alert.global_execute_all(nodes, sql, params, prepare): the same on several nodes at the
 * same time, one statement for each node or one for all, and so are params, of which those for each are a row
 * of an array with two dimensions; the rows of each.  prepare: these are the last ones there, so
 * PREPARE goes with them, if it will be needed, and can be undone as a whole.
 */
Datum
ra_global_execute_all(PG_FUNCTION_ARGS)
{
	char	  **nodes;
	char	  **sql;
	char	  **params;
	int			nnodes;
	int			nsql;
	int			nparams;
	int			row;			/* so many params are for each node; 0: all are for all */
	RaBranch  **branches;
	Datum	   *rows;
	bool		early;
	int			i;
	int			j;

	require_cluster();
	nnodes = strings_of(fcinfo, 0, "nodes", 0, NULL, &nodes);
	nsql = strings_of(fcinfo, 1, "sql", 0, NULL, &sql);
	nparams = strings_of(fcinfo, 2, NULL, nnodes, &row, &params);
	if (row > 0)
		nparams = row;
	if (nsql != nnodes && nsql != 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("there are %d statements for %d nodes", nsql, nnodes),
				 errhint("Give one statement for each node, or one for all.")));

	/* a connection that has to be made first shall not keep one waiting that has its statement */
	branches = palloc(nnodes * sizeof(RaBranch *));
	for (i = 0; i < nnodes; i++)
	{
		branches[i] = ra_branch_get(nodes[i]);
		for (j = 0; j < i; j++)
		{
			if (branches[j] == branches[i])
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("node \"%s\" is named twice", nodes[i]),
						 errhint("Statements for the same node run one after the other: call the function again.")));
		}
	}
	early = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3) && ra_global_prepare_early(branches, nnodes);
	for (i = 0; i < nnodes; i++)
		ra_branch_start(branches[i], sql[nsql == 1 ? 0 : i], nparams,
						(const char *const *) params + i * row, early);
	ra_branch_wait_started();
	rows = palloc(nnodes * sizeof(Datum));
	for (i = 0; i < nnodes; i++)
		rows[i] = Int64GetDatum(ra_branch_finish(branches[i]));
	if (early)
		ra_global_check_early();
	PG_RETURN_ARRAYTYPE_P(construct_array(rows, nnodes, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
require_cluster(void)
{
	ra_require_preload();
	ra_check_version();
	if (ra_node_name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is not part of a cluster"),
				 errdetail("risk_alert.node_name is empty, so a global transaction could not be told from those of others."),
				 errhint("ALTER SYSTEM SET risk_alert.node_name = ..., then restart the server.")));
}

static void
refuse_null(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", what)));
}

/*
 * An argument that is text[], and how many there are.  what: its name, if neither it nor they may be null.
 * rows: if it has two dimensions, it has so many rows (0: it must not), each of *row, which else is 0.
 */
static int
strings_of(FunctionCallInfo fcinfo, int arg, const char *what, int rows, int *row, char ***strings)
{
	Datum	   *values;
	bool	   *nulls;
	int			n = 0;
	int			i;

	*strings = NULL;
	if (row)
		*row = 0;
	if (!PG_ARGISNULL(arg))
	{
		ArrayType  *array = PG_GETARG_ARRAYTYPE_P(arg);

		if (ARR_NDIM(array) > (rows > 0 ? 2 : 1))
			ereport(ERROR,
					(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
					 errmsg("the array has %d dimensions", ARR_NDIM(array)),
					 rows > 0 ? errhint("Parameters are an array of one dimension for all nodes, or of two with a row for each.") :
					 errhint("Give an array of one dimension.")));
		if (ARR_NDIM(array) == 2 && ARR_DIMS(array)[0] != rows)
			ereport(ERROR,
					(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
					 errmsg("there are %d rows of parameters for %d nodes", ARR_DIMS(array)[0], rows),
					 errhint("Give one row for each node, or an array of one dimension for all.")));
		if (ARR_NDIM(array) == 2)
			*row = ARR_DIMS(array)[1];
		deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
		*strings = palloc(n * sizeof(char *));
	}
	else if (what)
		refuse_null(what);
	for (i = 0; i < n; i++)
	{
		if (nulls[i] && what)
			refuse_null(what);
		(*strings)[i] = nulls[i] ? NULL : TextDatumGetCString(values[i]);
	}
	return n;
}
