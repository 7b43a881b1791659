/*
 * zookeeper_module.c
 *	  The ZooKeeper provider as a library that the broker loads.
 *
 * The server loads libraries so that all symbols of theirs are in one heap: all
 * but those that the loader looks for stay hidden.
 */
#include "postgres.h"

#include "fmgr.h"

#include "provider.h"

extern const RaProviderOps *ra_zookeeper_ops(void);

#pragma GCC visibility push(default)

PG_MODULE_MAGIC;

extern const RaProviderOps *ra_provider(void);

#pragma GCC visibility pop

const RaProviderOps *
ra_provider(void)
{
	return ra_zookeeper_ops();
}
