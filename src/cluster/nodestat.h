/*
 * nodestat.h
 *	  What this server has asked of each node, and what is under way.
 */
#ifndef RA_NODESTAT_H
#define RA_NODESTAT_H

#include "postgres.h"

extern void ra_nodestat_shmem_request(void);
extern void ra_nodestat_shmem_startup(void);

/* A request begins, and ends.  Both never throw; without shared memory they do nothing. */
extern void ra_nodestat_begin(const char *node);
extern void ra_nodestat_end(const char *node);

/* What became of a request that took so many milliseconds, connecting included */
extern void ra_nodestat_count(const char *node, double ms, bool failed);

/* Requests under way from this server to the node */
extern uint32 ra_nodestat_in_flight(const char *node);

/* A number for each call in the server, to take turns by */
extern uint32 ra_nodestat_turn(void);

#endif							/* RA_NODESTAT_H */
