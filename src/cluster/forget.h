/*
 * forget.h
 *	  Recovery's part in forgetting: entries of registers whose coordinators can't have them forgotten.
 */
#ifndef RA_FORGET_H
#define RA_FORGET_H

#include "postgres.h"

#include "nodes/pg_list.h"

/*
 * The gids with that beginning that are prepared on a node, in one text (palloc'd); NULL: it
 * doesn't answer, or it is another one that has none of the branches, or a standby: that
 * lists none before it is promoted
 */
extern char *ra_prepared_there(const char *node, const char *beginning);

/*
 * All gids of the cluster that are prepared on these nodes (char *), or here; NULL: one can't be
 * asked, and may have any.  Within SPI.
 */
extern char *ra_prepared_anywhere(List *nodes);

/* Is a branch of the transaction among these gids? */
extern bool ra_has_branch(const char *prepared, const char *gid);

/* Recovery finishes a branch for commit, in this transaction.  If we crash before that commits, the entry stays. */
extern void ra_recovered_note(const char *gid);

/* Tells the registers of such, once no node has a branch.  How many are left. */
extern int	ra_recovered_tell(void);

/* Whatever else is old enough, and has no branch anywhere */
extern void ra_forget_left(void);

/* Votes whose coordinators have told that they may go, and that have become old enough: some.  Are there more? */
extern bool ra_forget_expired(void);

/* Is there anything of either kind, as it seems?  Within SPI. */
extern bool ra_anything_to_forget(void);

#endif							/* RA_FORGET_H */
