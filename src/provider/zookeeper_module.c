/*
 * zookeeper_module.c
 *	  The ZooKeeper provider as a library that the broker loads.
 */
#include "postgres.h"

#include "fmgr.h"

#include "provider.h"

PG_MODULE_MAGIC;

extern const RaProviderOps *ra_zookeeper_ops(void);
extern PGDLLEXPORT const RaProviderOps *ra_provider(void);

const RaProviderOps *
ra_provider(void)
{
	return ra_zookeeper_ops();
}
