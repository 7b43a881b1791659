/*
 * recovery.h
 *	  Finishes branches of global transactions that were left prepared.
 */
#ifndef RA_RECOVERY_H
#define RA_RECOVERY_H

#include "postgres.h"

/* how long recovery waits for one node, or for a register */
#define RA_RECOVERY_ASK_MS 5000

/* For the worker of a database, often: starts recovery there when there may be something to do */
extern void ra_recovery_tick(void);

/* For the same, before it leaves: recovery leaves first */
extern void ra_recovery_leave(void);

extern PGDLLEXPORT void ra_recovery_main(Datum main_arg);

#endif							/* RA_RECOVERY_H */
