/*
 * acceptor.h
 *	  This node's vote in the Paxos register, and who else has one.
 */
#ifndef RA_ACCEPTOR_H
#define RA_ACCEPTOR_H

#include "postgres.h"

#include "core/paxos.h"

/* Columns of what the acceptor functions return */
typedef enum RaAcceptorColumn
{
	RA_ACCEPTOR_GRANTED,
	RA_ACCEPTOR_PROMISED,
	RA_ACCEPTOR_PROMISED_BY,
	RA_ACCEPTOR_ACCEPTED,
	RA_ACCEPTOR_ACCEPTED_BY,
	RA_ACCEPTOR_VALUE,
	RA_ACCEPTOR_DECIDED,
	RA_ACCEPTOR_COLUMNS
} RaAcceptorColumn;

/*
 * The acceptors as this database knows them, sorted by name; their number, or -1 and
 * a reason if there can be no register.  *identity: the set in a form that all
 * its members must agree on.  Palloc'd.
 */
extern int	ra_acceptors(char ***names, char **identity, char **reason);

/* NULL for NONE */
extern const char *ra_paxos_value_name(RaPaxosValue value);

/* ERROR unless it is "commit" or "abort"; NULL is NONE */
extern RaPaxosValue ra_paxos_value(const char *name);

#endif							/* RA_ACCEPTOR_H */
