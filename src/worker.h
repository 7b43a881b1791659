/*
 * worker.h
 *	  The process that handles one database's events.
 */
#ifndef RA_WORKER_H
#define RA_WORKER_H

#include "postgres.h"

/*
 * For batch.c, at the start of each of its transactions: keep the extension
 * from being dropped or replaced until the transaction ends.  False: it is gone
 * already (the worker ends after this batch); touch none of its tables then.
 */
extern bool ra_worker_lock_extension(void);

/*
 * For long work within a transaction: has somebody asked this worker to get out
 * of its database (DROP DATABASE and the like)?  Ending the batch early is a
 * courtesy; a second later the worker is terminated.
 */
extern bool ra_worker_must_leave(void);

/* The settings that all our workers in databases run with */
extern void ra_worker_settings(const char *application_name);

extern PGDLLEXPORT void ra_worker_main(Datum main_arg);

#endif							/* RA_WORKER_H */
