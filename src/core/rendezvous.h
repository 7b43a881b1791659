/*
 * rendezvous.h
 *	  Which of several nodes a key belongs to, by weighted rendezvous hashing.
 */
#ifndef RA_RENDEZVOUS_H
#define RA_RENDEZVOUS_H

#include <stddef.h>

typedef struct RaRendezvousNode
{
	const char *name;			/* differs from the others' */
	size_t		name_len;
	double		weight;			/* finite and above 0 */
} RaRendezvousNode;

/*
 * The index of the node that the key belongs to, -1 if there is none.  The
 * choice depends on the set of names and weights and on the key; not on the
 * order of the nodes.
 */
extern int	ra_rendezvous_pick(const RaRendezvousNode *nodes, int n,
							   const char *key, size_t key_len);

#endif							/* RA_RENDEZVOUS_H */
