/*
 * register_sql.c
 *	  The registers by themselves, without a global transaction: for tests, and for who
 *	  has to find out what stands there.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "cluster/register.h"
#include "shmem.h"

#define FORGET_READ_MS 5000

PG_FUNCTION_INFO_V1(ra_register_propose_fn);
PG_FUNCTION_INFO_V1(ra_register_read_fn);
PG_FUNCTION_INFO_V1(ra_register_forget_fn);

static const RaRegister *
register_arg(text *kind)
{
	char	   *name = text_to_cstring(kind);

	ra_require_preload();
	if (strcmp(name, ra_register_zookeeper.name) == 0)
		return &ra_register_zookeeper;
	if (strcmp(name, ra_register_paxos.name) == 0)
		return &ra_register_paxos;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid register: \"%s\"", name),
			 errhint("Registers that can be asked like this are zookeeper and paxos.")));
}

static Datum
decision_datum(RaDecision decision, const char *reason)
{
	static const char *const names[] = {
		[RA_DECISION_UNKNOWN] = "unknown",
		[RA_DECISION_NONE] = "none",
		[RA_DECISION_COMMIT] = "commit",
		[RA_DECISION_ABORT] = "abort"
	};

	if (reason)
		return CStringGetTextDatum(psprintf("%s: %s", names[decision], reason));
	return CStringGetTextDatum(names[decision]);
}

/* _register_propose(kind, gid, decision, timeout): what stands */
Datum
ra_register_propose_fn(PG_FUNCTION_ARGS)
{
	const RaRegister *reg = register_arg(PG_GETARG_TEXT_PP(0));
	char	   *gid = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *wish = text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *reason = NULL;
	RaDecision	decision;

	if (strcmp(wish, "commit") != 0 && strcmp(wish, "abort") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid decision: \"%s\"", wish),
				 errhint("A decision is commit or abort.")));
	decision = reg->propose(gid, wish[0] == 'c' ? RA_DECISION_COMMIT : RA_DECISION_ABORT,
							PG_GETARG_INT32(3), &reason);
	return decision_datum(decision, reason);
}

/* _register_read(kind, gid, timeout): what stands */
Datum
ra_register_read_fn(PG_FUNCTION_ARGS)
{
	const RaRegister *reg = register_arg(PG_GETARG_TEXT_PP(0));
	char	   *reason = NULL;
	RaDecision	decision = reg->read(text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_INT32(2), &reason);

	return decision_datum(decision, reason);
}

/* _register_forget(kind, gid): looks first, so that there is somebody to tell */
Datum
ra_register_forget_fn(PG_FUNCTION_ARGS)
{
	const RaRegister *reg = register_arg(PG_GETARG_TEXT_PP(0));
	char	   *gid = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *reason = NULL;

	/* an abort would become a commit in ZooKeeper */
	if (reg->read(gid, FORGET_READ_MS, &reason) == RA_DECISION_COMMIT || reg->kind == RA_REGISTER_PAXOS)
		reg->forget(gid);
	PG_RETURN_VOID();
}
