/*
 * credentials.h
 *	  User and password at the coordination service.
 */
#ifndef RA_CREDENTIALS_H
#define RA_CREDENTIALS_H

#include "postgres.h"

/* As the setting's file has them, palloc'd; NULL: none.  ERROR if it can't be read. */
extern void ra_coordination_password(char **user, char **password);

#endif							/* RA_CREDENTIALS_H */
