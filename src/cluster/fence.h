/*
 * fence.h
 *	  Fencing tokens: numbers that grow with each grant of a lock, and the
 *	  table that lets a resource refuse the holder of an older one.
 */
#ifndef RA_FENCE_H
#define RA_FENCE_H

#include "postgres.h"

#include "utils/numeric.h"

/* most grants of a lock under one token of the service */
#define RA_TOKEN_SEQUENCE_MAX 99999

/* As users see it: ordered by generation, token, sequence */
extern Numeric ra_token_numeric(uint64 generation, uint64 token, int sequence);

/* Highest generation this server has ever used or seen; durable */
extern uint64 ra_generation_seen(void);

/* The service's generation is this: remember it, if it is higher */
extern void ra_generation_note(uint64 generation);

/* A generation higher than any seen, remembered */
extern uint64 ra_generation_raise(void);

#endif							/* RA_FENCE_H */
