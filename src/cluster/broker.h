/*
 * broker.h
 *	  The one process of a server that talks to the coordination service.
 */
#ifndef RA_BROKER_H
#define RA_BROKER_H

#include "postgres.h"

/* Have the postmaster start it, if locks or global transactions need a coordination service */
extern void ra_broker_register(void);

/* Is that ZooKeeper?  By the settings at server start. */
extern bool ra_broker_serves_zookeeper(void);

extern PGDLLEXPORT void ra_broker_main(Datum main_arg);

#endif							/* RA_BROKER_H */
