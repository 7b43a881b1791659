/*
 * register_local.h
 *	  The register that is a table of the coordinator's database.
 */
#ifndef RA_REGISTER_LOCAL_H
#define RA_REGISTER_LOCAL_H

#include "postgres.h"

#include "core/gid.h"

typedef enum RaOutcome
{
	RA_OUTCOME_UNKNOWN,			/* this server can't tell, nor ever will: it has been restored */
	RA_OUTCOME_IN_PROGRESS,
	RA_OUTCOME_COMMITTED,
	RA_OUTCOME_ABORTED
} RaOutcome;

/* The coordinator that was asked last, when the register was read, has not answered */
extern bool ra_coordinator_silent;

/*
 * What became of a transaction that this node has coordinated with register
 * local, in this database; *reason, if it is not known.
 */
extern RaOutcome ra_local_outcome(const RaGid *gid, char **reason);

/* Is the transaction of this server, and its session alive? */
extern bool ra_coordinator_alive(const RaGid *gid);

/* Who takes part in the transaction that is about to commit, for propose() */
extern void ra_local_participants(const char *names);

/* ERROR if no transaction can be decided here yet */
extern void ra_local_require_epoch(void);

/* For the worker of a database: remembers this run of the server.  Runs a transaction. */
extern void ra_local_note_epoch(void);

#endif							/* RA_REGISTER_LOCAL_H */
