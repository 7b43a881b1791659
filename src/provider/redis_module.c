/*
 * redis_module.c
 *	  The library that the broker loads; all the rest of it is free of PostgreSQL.
 */
#include "postgres.h"

#include "fmgr.h"

#include "provider.h"

PG_MODULE_MAGIC;

extern const RaProviderOps *ra_redis_provider(void);
extern PGDLLEXPORT const RaProviderOps *ra_provider(void);

const RaProviderOps *
ra_provider(void)
{
	return ra_redis_provider();
}
