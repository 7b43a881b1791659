/*
 * register.c
 *	  The registers there are.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "cluster/register.h"
#include "guc.h"

/* by kind; NULL: not in this build */
static const RaRegister *const registers[] = {
	[RA_REGISTER_LOCAL] = &ra_register_local,
	[RA_REGISTER_ZOOKEEPER] = &ra_register_zookeeper,
	[RA_REGISTER_PAXOS] = &ra_register_paxos,
};

static const char *const names[] = {
	[RA_REGISTER_LOCAL] = "local",
	[RA_REGISTER_ZOOKEEPER] = "zookeeper",
	[RA_REGISTER_PAXOS] = "paxos",
};

const RaRegister *
ra_register(RaRegisterKind kind)
{
	if (registers[kind] == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("commit register \"%s\" is not available on this server", names[kind]),
				 errhint("Set risk_alert.commit_register to local.")));
	return registers[kind];
}

const char *
ra_register_name(RaRegisterKind kind)
{
	return names[kind];
}

char
ra_register_letter(RaRegisterKind kind)
{
	return names[kind][0];
}

bool
ra_register_by_letter(char letter, RaRegisterKind *kind)
{
	int			i;

	for (i = 0; i < lengthof(names); i++)
	{
		if (names[i][0] == letter)
		{
			*kind = (RaRegisterKind) i;
			return true;
		}
	}
	return false;
}

/*
 * Decisions are kept for a time after all branches are finished, which is later than any was prepared.
 * So only a branch that is back, since its node was restored from a backup,
 * can be older.  Durations on two clocks are compared: a tenth is for their errors, and one
 * that was set back tells nothing.  Register local knows better (register_local.c).
 */
bool
ra_may_be_forgotten(RaRegisterKind kind, TimestampTz prepared)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		kept = (int64) (kind == RA_REGISTER_PAXOS ? ra_register_retention : ra_decision_retention) * USECS_PER_SEC;

	return kind != RA_REGISTER_LOCAL && (now < prepared || now - prepared > kept / 10 * 9);
}
