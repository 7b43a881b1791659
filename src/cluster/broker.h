/*
 * broker.h
 *	  The one process of a server that talks to the coordination service.
 */
#ifndef RA_BROKER_H
#define RA_BROKER_H

#include "postgres.h"

/* Have the postmaster start it, unless the provider of locks is "local" */
extern void ra_broker_register(void);

extern PGDLLEXPORT void ra_broker_main(Datum main_arg);

#endif							/* RA_BROKER_H */
