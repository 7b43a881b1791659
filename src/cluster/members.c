/*
 * members.c
 *	  Which nodes of the cluster are there, as far as this node knows.
 *
 * With a coordination service, those that have an entry there, as its broker
 * heard last (broker.c); each publishes a few words about itself.  Without
 * one, a node that has a name knows itself, and leads itself.  One without a
 * name is no member of anything.
 */
#include "postgres.h"

#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/backend_status.h"
#include "utils/timestamp.h"

#include "cluster/catchup.h"
#include "cluster/locktable.h"
#include "cluster/members.h"
#include "guc.h"
#include "risk_alert.h"

static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const RaMember *) a)->name, ((const RaMember *) b)->name);
}

/* The value of word=value in what a member published; NULL: it isn't there */
static const char *
published(const char *data, const char *word)
{
	size_t		len = strlen(word);

	while (data && *data)
	{
		if (strncmp(data, word, len) == 0 && data[len] == '=')
			return data + len + 1;
		data = strchr(data, ' ');
		if (data)
			data++;
	}
	return NULL;
}

void
ra_member_describe(char *data, Size size, bool leading)
{
	char		run[64];
	int			running = 0;
	int			n;
	int			i;

	pgstat_clear_backend_activity_snapshot();
	n = pgstat_fetch_stat_numbackends();
	for (i = 1; i <= n; i++)
	{
#if PG_VERSION_NUM >= 160000
		LocalPgBackendStatus *local = pgstat_get_local_beentry_by_index(i);
#else
		LocalPgBackendStatus *local = pgstat_fetch_stat_local_beentry(i);
#endif

		if (local && local->backendStatus.st_backendType == B_BACKEND &&
			local->backendStatus.st_state == STATE_RUNNING)
			running++;
	}
	ra_catch_up_run(run, sizeof(run));
	snprintf(data, size, "version=%s load=%.2f leader=%d run=%s", RA_VERSION,
			 (double) running / Max(1, (int) sysconf(_SC_NPROCESSORS_ONLN)), leading ? 1 : 0, run);
}

bool
ra_member_says(const RaMember *member, const char *word, const char *value)
{
	const char *said = published(member->data, word);
	size_t		len = strlen(value);

	return said && len > 0 && strncmp(said, value, len) == 0 && (said[len] == ' ' || said[len] == '\0');
}

int
ra_members(RaMember **members, uint64 *version)
{
	RaMember   *list;
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;
	int			i;

	if (version)
		*version = 0;
	*members = NULL;
	if (ra_node_name == NULL || ra_node_name[0] == '\0')
		return 0;

	if (ra_cluster == NULL || ra_lock_provider == RA_LOCK_PROVIDER_LOCAL)
	{
		list = palloc0(sizeof(RaMember));
		strlcpy(list->name, ra_node_name, NAMEDATALEN);
		list->live = list->leader = list->self = true;
		list->last_seen = now;
		*members = list;
		return 1;
	}

	list = palloc0(RA_MAX_MEMBERS * sizeof(RaMember));
	LWLockAcquire(ra_cluster->lock, LW_SHARED);
	for (i = 0; i < ra_cluster->nmembers; i++)
	{
		const RaMemberSlot *slot = &ra_cluster->members[i];

		strlcpy(list[n].name, slot->name, NAMEDATALEN);
		strlcpy(list[n].data, slot->data, RA_MEMBER_DATA_MAX);
		list[n].live = ra_cluster->state == RA_BROKER_CONNECTED;
		list[n].self = slot->self;
		list[n].last_seen = list[n].live ? now : ra_cluster->since;
		n++;
	}
	if (version)
		*version = ra_cluster->members_version;
	LWLockRelease(ra_cluster->lock);

	for (i = 0; i < n; i++)
	{
		const char *load = published(list[i].data, "load");
		const char *leader = published(list[i].data, "leader");

		list[i].load = load ? strtod(load, NULL) : 0;
		/* of itself a node knows better than what it has published */
		if (list[i].self)
			list[i].leader = ra_epoch_valid(pg_atomic_read_u64(&ra_cluster->leader_epoch));
		else
			list[i].leader = list[i].live && leader && *leader == '1';
	}
	qsort(list, n, sizeof(RaMember), compare_names);
	*members = list;
	return n;
}
