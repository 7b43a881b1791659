/*
 * launcher.h
 *	  The process that keeps one worker per database running.
 */
#ifndef RA_LAUNCHER_H
#define RA_LAUNCHER_H

#include "postgres.h"

/* From _PG_init: have the postmaster start the launcher */
extern void ra_launcher_register(void);

/* When to try again after so many failures in a row: milliseconds */
extern int	ra_restart_delay(int failures);

extern PGDLLEXPORT void ra_launcher_main(Datum main_arg);

#endif							/* RA_LAUNCHER_H */
