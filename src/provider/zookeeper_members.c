/*
 * zookeeper_members.c
 *	  The list of members: our entry in it, and what the others say.
 *
 * The list and each entry are watched, so that a change costs one read.  An
 * entry of ours that another session made is in the way at first: if that was a session of
 * ours, it is deleted, else it goes by itself unless two nodes use one name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zookeeper.h"

#define SEND_EVERY		(1000 * NS_PER_MS)

static void member_drive(RaProvider *p);
static void members_drive(RaProvider *p);

static void
member_path(RaProvider *p, const char *name, char *path)
{
	snprintf(path, ZK_PATH_MAX, "/%s/members/%s", p->cluster, name);
}

/* ---- our entry ---- */

/* Also ends the turn if it has failed: time or a new connection begins another */
static void
turn_ends(RaProvider *p, const ZkCall *call, const char *what)
{
	p->member_flies = false;
	if (call->rc == ZNONODE || !ra_zk_answered(call->rc))
		return;
	ra_zk_complain(p, call->rc, what);
}

static void
delete_done(RaProvider *p, ZkCall *call)
{
	p->member_flies = false;
	if (call->rc == ZOK || call->rc == ZNONODE)
		p->member_at = 0;
}

/* Somebody has an entry of our name */
static void
owner_got(RaProvider *p, ZkCall *call)
{
	char		path[ZK_PATH_MAX];
	int64_t		owner = call->stat.ephemeralOwner;

	if (call->rc != ZOK)
	{
		turn_ends(p, call, "read this node's entry among the members");
		return;
	}
	p->member_flies = false;
	if (owner == p->session_id)
	{
		/* it was made, only the answer was lost */
		p->member_there = true;
		p->member_blocked = 0;
		free(p->member_sent);
		p->member_sent = strdup(call->value);
	}
	else if (owner != 0 && (owner == p->last_session || owner == p->last_session2))
	{
		member_path(p, p->nodename, path);
		p->member_flies = ra_zk_delete(p, delete_done, NULL, path, call->stat.version, false);
	}
	else if (p->member_blocked == 0)
		p->member_blocked = ra_zk_now();
	else if (!p->member_told && ra_zk_now() - p->member_blocked > NS_PER_MS * 2 * p->timeout)
	{
		p->member_told = true;
		ra_zk_log(p, RA_PROVIDER_WARNING, "Give each node a name of its own.",
				  "another process is a member by the name \"%s\"", p->node);
	}
}

static void
create_done(RaProvider *p, ZkCall *call)
{
	char		path[ZK_PATH_MAX];

	if (call->rc == ZOK)
	{
		p->member_flies = false;
		p->member_there = true;
		p->member_blocked = 0;
		p->member_told = false;
		return;
	}
	free(p->member_sent);
	p->member_sent = NULL;
	if (call->rc == ZNODEEXISTS)
	{
		member_path(p, p->nodename, path);
		p->member_flies = ra_zk_get(p, owner_got, NULL, path, NULL);
		return;
	}
	if (call->rc == ZNONODE)
		ra_zk_create_base(p);
	turn_ends(p, call, "create this node's entry among the members");
}

static void
set_done(RaProvider *p, ZkCall *call)
{
	if (call->rc == ZOK)
	{
		p->member_flies = false;
		return;
	}
	free(p->member_sent);
	p->member_sent = NULL;
	if (call->rc == ZNONODE)
		p->member_there = false;
	turn_ends(p, call, "change this node's entry among the members");
}

static bool
member_wants(RaProvider *p)
{
	return p->member_data != NULL && !p->member_flies &&
		(!p->member_there || p->member_sent == NULL || strcmp(p->member_data, p->member_sent) != 0);
}

static void
member_drive(RaProvider *p)
{
	char		path[ZK_PATH_MAX];
	int			len;

	if (!ra_zk_ready(p) || !member_wants(p) || ra_zk_now() < p->member_at)
		return;
	member_path(p, p->nodename, path);
	p->member_at = ra_zk_now() + SEND_EVERY;
	free(p->member_sent);
	p->member_sent = strdup(p->member_data);
	if (p->member_sent == NULL)
		return;
	len = (int) strlen(p->member_sent);
	p->member_flies = p->member_there ?
		ra_zk_set(p, set_done, NULL, path, p->member_sent, len, -1) :
		ra_zk_create(p, create_done, NULL, path, p->member_sent, len, ZOO_EPHEMERAL, false);
}

void
ra_zk_set_member(RaProvider *p, const char *data)
{
	char	   *copy = strdup(data);

	if (copy == NULL)
		return;
	free(p->member_data);
	p->member_data = copy;
	member_drive(p);
}

/* ---- all of them ---- */

static void
free_member(ZkMember *member)
{
	free(member->name);
	free(member->node);
	free(member->data);
}

static ZkMember *
find_member(RaProvider *p, const char *name)
{
	for (int i = 0; i < p->nmembers; i++)
		if (strcmp(p->members[i].name, name) == 0)
			return &p->members[i];
	return NULL;
}

static void
remove_member(RaProvider *p, ZkMember *member)
{
	free_member(member);
	*member = p->members[--p->nmembers];
	p->members_changed = true;
}

static bool
add_member(RaProvider *p, const char *name)
{
	ZkMember   *more = realloc(p->members, sizeof(*more) * (size_t) (p->nmembers + 1));
	ZkMember   *member;
	char		node[RA_NODE_MAX * 3 + 1];

	if (more == NULL)
		return false;
	p->members = more;
	member = memset(&more[p->nmembers], 0, sizeof(*member));
	if (ra_zk_unescape(node, sizeof(node), name, (int) strlen(name)) < 0)
		snprintf(node, sizeof(node), "%s", name);	/* not ours; show it */
	member->name = strdup(name);
	member->node = strdup(node);
	if (member->name == NULL || member->node == NULL)
	{
		free_member(member);
		return false;
	}
	member->stale = true;
	member->listed = true;
	p->nmembers++;
	return true;
}

static void
member_got(RaProvider *p, ZkCall *call)
{
	ZkWatch    *watch = call->subject;
	ZkMember   *member = find_member(p, strrchr(watch->path, '/') + 1);

	if (member != NULL)
		member->reading = false;
	if (call->rc != ZOK)
	{
		ra_zk_watch_drop(watch);
		if (member == NULL)
			return;
		if (call->rc == ZNONODE)
			remove_member(p, member);	/* the list will say so, too */
		else
			member->stale = true;
	}
	else if (member != NULL)
	{
		free(member->data);
		member->data = call->value;
		call->value = NULL;
		member->owner = call->stat.ephemeralOwner;
		p->members_changed = true;
	}
	if (call->rc != ZCONNECTIONLOSS)
		members_drive(p);
}

static void
members_got(RaProvider *p, ZkCall *call)
{
	ZkWatch    *watch = call->subject;

	p->members_fly = false;
	if (call->rc != ZOK)
	{
		if (watch != NULL)
			ra_zk_watch_drop(watch);
		p->members_stale = true;
		if (call->rc == ZNONODE)
			ra_zk_create_base(p);
		return;
	}

	for (int i = 0; i < p->nmembers; i++)
		p->members[i].listed = false;
	for (int i = 0; i < call->nnames; i++)
	{
		ZkMember   *member = find_member(p, call->names[i]);

		if (member != NULL)
			member->listed = true;
		else if (!add_member(p, call->names[i]))
			p->members_stale = true;
	}
	for (int i = p->nmembers - 1; i >= 0; i--)
		if (!p->members[i].listed)
			remove_member(p, &p->members[i]);
	if (!p->members_complete)
	{
		p->members_complete = true;
		p->members_changed = true;
	}
	members_drive(p);
}

/* Read what is stale */
static void
members_drive(RaProvider *p)
{
	char		path[ZK_PATH_MAX];
	ZkWatch    *watch;

	if (!ra_zk_ready(p))
		return;
	if (p->members_stale && !p->members_fly)
	{
		snprintf(path, sizeof(path), "/%s/members", p->cluster);
		watch = ra_zk_watch_find(p, path) == NULL ? ra_zk_watch_new(p, path, ZK_WATCH_MEMBERS) : NULL;
		p->members_fly = ra_zk_children(p, members_got, watch, path, watch);
		p->members_stale = !p->members_fly;
		if (watch != NULL && !p->members_fly)
			ra_zk_watch_drop(watch);
	}
	for (int i = 0; i < p->nmembers; i++)
	{
		ZkMember   *member = &p->members[i];

		if (!member->stale || member->reading)
			continue;
		member_path(p, member->name, path);

		/* a watch still set means that nothing has changed since */
		if (ra_zk_watch_find(p, path) != NULL)
		{
			member->stale = member->data == NULL;
			continue;
		}
		watch = ra_zk_watch_new(p, path, ZK_WATCH_MEMBER);
		if (watch == NULL)
			continue;
		member->reading = ra_zk_get(p, member_got, watch, path, watch);
		member->stale = !member->reading;
		if (!member->reading)
			ra_zk_watch_drop(watch);
	}
}

void
ra_zk_members_fired(RaProvider *p, ZkWatch *watch)
{
	if (watch->kind == ZK_WATCH_MEMBERS)
		p->members_stale = true;
	else
	{
		const char *name = strrchr(watch->path, '/') + 1;
		ZkMember   *member = find_member(p, name);

		if (member != NULL)
			member->stale = true;
		if (strcmp(name, p->nodename) == 0 && watch->type == ZOO_DELETED_EVENT && !p->member_flies)
			p->member_there = false;	/* by somebody else: make it again */
	}
	ra_zk_watch_drop(watch);
	members_drive(p);
	member_drive(p);
}

/* Once all is read */
void
ra_zk_members_tell(RaProvider *p)
{
	RaProviderMember *members;
	int			n = 0;

	if (!p->members_changed || !p->members_complete || p->members_stale || p->members_fly)
		return;
	for (int i = 0; i < p->nmembers; i++)
		if (p->members[i].stale || p->members[i].data == NULL)
			return;
	members = malloc(sizeof(*members) * (size_t) (p->nmembers + 1));
	if (members == NULL)
		return;
	for (int i = 0; i < p->nmembers; i++, n++)
	{
		members[n].node = p->members[i].node;
		members[n].data = p->members[i].data;
		members[n].self = p->members[i].owner == p->session_id;
	}
	p->members_changed = false;
	p->cb.members(p->arg, members, n);
	free(members);
}

/* ---- session and time ---- */

void
ra_zk_members_up(RaProvider *p)
{
	p->members_stale = true;
	members_drive(p);
	member_drive(p);
}

/*
 * The library renews the watches, but of nodes deleted and created meanwhile
 * it may learn nothing: compare the list at least.
 */
void
ra_zk_members_reconnected(RaProvider *p)
{
	p->members_stale = true;
	members_drive(p);
	member_drive(p);
}

/* Does what is due at that time; says when the next thing is */
int64_t
ra_zk_members_tick(RaProvider *p, int64_t now)
{
	bool		stale = p->members_stale && !p->members_fly;

	for (int i = 0; i < p->nmembers && !stale; i++)
		stale = p->members[i].stale && !p->members[i].reading;
	if (now != 0)
	{
		if (stale && now >= p->members_at)
		{
			p->members_at = now + SEND_EVERY;
			members_drive(p);
		}
		member_drive(p);
		return 0;
	}
	if (member_wants(p) && (!stale || p->member_at < p->members_at))
		return p->member_at;
	return stale ? p->members_at : INT64_MAX;
}

void
ra_zk_members_over(RaProvider *p)
{
	while (p->nmembers > 0)
		free_member(&p->members[--p->nmembers]);
	free(p->member_sent);
	p->member_sent = NULL;
	p->member_there = false;
	p->member_flies = false;
	p->member_at = 0;
	p->member_blocked = 0;
	p->members_stale = true;
	p->members_fly = false;
	p->members_changed = false;
	p->members_complete = false;
}

void
ra_zk_members_free(RaProvider *p)
{
	ra_zk_members_over(p);
	free(p->members);
	free(p->member_data);
}
