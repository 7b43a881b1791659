/*
 * globalstate.c
 *	  What the processes of a server share about global transactions.
 *
 * It vanishes when the server stops or crashes, and nothing here needs to survive that.
 * The epoch tells such lives of the server apart: it is drawn anew whenever shared memory
 * is made.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"

#include "cluster/globalstate.h"

#define TRANCHE "risk_alert_global"

/* once half full, recovery is asked so often to make room */
#define WAKE_EVERY 512

RaGlobalState *ra_global_state = NULL;

void
ra_global_shmem_request(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(RaGlobalState)));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

void
ra_global_shmem_startup(void)
{
	bool		found;

	ra_global_state = ShmemInitStruct("risk_alert global transactions", sizeof(RaGlobalState), &found);
	if (found)
		return;
	memset(ra_global_state, 0, sizeof(RaGlobalState));
	ra_global_state->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
	pg_atomic_init_u64(&ra_global_state->number, 0);
	pg_atomic_init_u64(&ra_global_state->admissions, 0);
	while (ra_global_state->epoch == 0)
	{
		if (!pg_strong_random(&ra_global_state->epoch, sizeof(ra_global_state->epoch)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
	}
}

RaRecovery *
ra_recovery_slot(Oid dboid, bool make)
{
	RaRecovery *unused = NULL;
	int			i;

	Assert(LWLockHeldByMe(ra_global_state->lock));
	for (i = 0; i < RA_MAX_DATABASES; i++)
	{
		RaRecovery *slot = &ra_global_state->databases[i];

		if (slot->dboid == dboid)
			return slot;
		if (unused == NULL && !OidIsValid(slot->dboid))
			unused = slot;
	}
	if (!make)
		return NULL;
	if (unused == NULL)
	{
		/* dropped databases are not told to us: any one that nobody serves */
		for (i = 0; i < RA_MAX_DATABASES && unused == NULL; i++)
		{
			if (ra_global_state->databases[i].pid == 0)
				unused = &ra_global_state->databases[i];
		}
		if (unused == NULL)
			return NULL;
	}
	memset(unused, 0, sizeof(RaRecovery));
	unused->dboid = dboid;
	return unused;
}

void
ra_global_done(uint64 number)
{
	RaGlobalState *state = ra_global_state;
	RaRecovery *slot = NULL;
	pid_t		pid = 0;

	LWLockAcquire(state->lock, LW_EXCLUSIVE);
	if (state->ndone < RA_DONE_MAX)
		state->done[state->ndone++] = (RaDone) {MyDatabaseId, number};
	if (state->ndone >= RA_DONE_MAX / 2 && state->ndone < RA_DONE_MAX && state->ndone % WAKE_EVERY == 0)
		slot = ra_recovery_slot(MyDatabaseId, false);
	if (slot)
		pid = slot->pid;
	LWLockRelease(state->lock);

	/* before there is no room for more */
	if (pid != 0)
		ra_recovery_wake(pid);
}

void
ra_recovery_wake(pid_t pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	if (proc)
		SetLatch(&proc->procLatch);
}

void
ra_global_lock_tag(LOCKTAG *tag, uint64 number)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (number >> 32), (uint32) number, RA_GLOBAL_LOCK_CLASS);
}
