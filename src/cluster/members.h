/*
 * members.h
 *	  Which nodes of the cluster are there, as far as this node knows.
 */
#ifndef RA_MEMBERS_H
#define RA_MEMBERS_H

#include "postgres.h"

#include "datatype/timestamp.h"

#define RA_MEMBER_DATA_MAX 192

typedef struct RaMember
{
	char		name[NAMEDATALEN];
	bool		live;
	bool		leader;
	bool		self;
	double		load;			/* as the node published it; 0: idle */
	TimestampTz last_seen;
	char		data[RA_MEMBER_DATA_MAX];	/* what else it published */
} RaMember;

/*
 * The members, in a palloc'd array sorted by name; their number.  *version, if
 * wanted, changes whenever a member comes or goes: nodes that know the same
 * version know the same members.
 */
extern int	ra_members(RaMember **members, uint64 *version);

/* What this node publishes about itself; for the broker */
extern void ra_member_describe(char *data, Size size, bool leading);

/* Does it publish word=value about itself? */
extern bool ra_member_says(const RaMember *member, const char *word, const char *value);

#endif							/* RA_MEMBERS_H */
