/*
 * members.c
 *	  Which nodes of the cluster are there, as far as this node knows.
 *
 * A node that has a name and no coordination service knows itself, and leads
 * itself.  One without a name is no member of anything.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "cluster/members.h"
#include "guc.h"

int
ra_members(RaMember **members, uint64 *version)
{
	RaMember   *self;

	if (version)
		*version = 0;
	*members = NULL;
	if (ra_node_name == NULL || ra_node_name[0] == '\0')
		return 0;

	self = palloc0(sizeof(RaMember));
	strlcpy(self->name, ra_node_name, NAMEDATALEN);
	self->live = true;
	self->leader = true;
	self->self = true;
	self->last_seen = GetCurrentTimestamp();
	*members = self;
	return 1;
}
