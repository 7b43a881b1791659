/*
 * waiting.c
 *	  Wait event sets that are kept: see waiting.h.
 *
 * A set is found by the serials of its connections, in order.  That of a
 * connection which was closed is never found again, and gives way to others in time; the
 * kernel has taken the socket out of it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "cluster/waiting.h"
#include "compat.h"

#define KEPT_SETS 6				/* each of the nodes of a transaction, all of them, its acceptors */
#define KEPT_SOCKETS 8			/* what waits for more makes its set anew */

typedef struct KeptSet
{
	WaitEventSet *set;			/* NULL: none */
	int			n;
	uint64		serials[KEPT_SOCKETS];
	uint64		used;			/* in order */
} KeptSet;

static KeptSet kept[KEPT_SETS];

static WaitEventSet *find_set(const RaSocket *sockets, int n);
static void add_events(WaitEventSet *set, const RaSocket *sockets, int n);

uint64
ra_socket_serial(void)
{
	static uint64 last = 0;

	return ++last;
}

bool
ra_wait_for_sockets(RaSocket *sockets, int n, long timeout, uint32 wait_event)
{
	WaitEvent	events[KEPT_SOCKETS + 2];
	WaitEventSet *found = find_set(sockets, n);
	WaitEventSet *set = found;
	bool		latch = false;
	int			happened;
	int			i;

	if (found == NULL)
	{
		set = ra_create_wait_event_set(n + 2, false);
		add_events(set, sockets, n);
	}
	happened = WaitEventSetWait(set, timeout, events, lengthof(events), wait_event);
	if (found == NULL)
		FreeWaitEventSet(set);

	for (i = 0; i < n; i++)
		sockets[i].ready = false;
	for (i = 0; i < happened; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			latch = true;
		else
			sockets[events[i].pos - 2].ready = true;
	}
	if (latch)
		ResetLatch(MyLatch);
	return latch;
}

/* With the events that are wanted; NULL: such a set is not kept */
static WaitEventSet *
find_set(const RaSocket *sockets, int n)
{
	static uint64 uses = 0;
	KeptSet    *oldest = &kept[0];
	int			i;
	int			k;

	if (n == 0 || n > KEPT_SOCKETS)
		return NULL;
	for (i = 0; i < n; i++)
	{
		if (sockets[i].serial == 0)
			return NULL;
	}
	for (k = 0; k < KEPT_SETS; k++)
	{
		KeptSet    *each = &kept[k];

		for (i = 0; i < n && each->n == n && each->serials[i] == sockets[i].serial;)
			i++;
		if (i == n && each->n == n)
		{
			for (i = 0; i < n; i++)
				ModifyWaitEvent(each->set, i + 2, sockets[i].events, NULL);
			each->used = ++uses;
			return each->set;
		}
		if (each->used < oldest->used)
			oldest = each;
	}

	oldest->n = 0;				/* until it is complete */
	if (oldest->set)
		FreeWaitEventSet(oldest->set);
	oldest->set = NULL;
	oldest->set = ra_create_wait_event_set(n + 2, true);
	add_events(oldest->set, sockets, n);
	for (i = 0; i < n; i++)
		oldest->serials[i] = sockets[i].serial;
	oldest->n = n;
	oldest->used = ++uses;
	return oldest->set;
}

static void
add_events(WaitEventSet *set, const RaSocket *sockets, int n)
{
	int			i;

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (i = 0; i < n; i++)
		AddWaitEventToSet(set, sockets[i].events, sockets[i].fd, NULL, NULL);
}
