/*
 * credentials.h
 *	  Who this node is at the coordination service: user and password, TLS.
 */
#ifndef RA_CREDENTIALS_H
#define RA_CREDENTIALS_H

#include "postgres.h"

#include "provider/provider.h"

/*
 * Sets user, password and tls as the settings and their files have them.  ERROR if
 * that can't be: a file that can't be read, or TLS that this provider does not have.
 */
extern void ra_coordination_credentials(const RaProviderOps *ops, RaProviderConfig *config);

/* The provider has its own copies: wipe ours */
extern void ra_coordination_forget(RaProviderConfig *config);

#endif							/* RA_CREDENTIALS_H */
