/*
 * zookeeper_queue.c
 *	  Requests for locks: their entries, made, watched and deleted.
 *
 * Each request is in one state.  drive() sends what the state calls for; the
 * answers move the request on.  An answer that was lost with the connection
 * moves it to a state that finds out (UNSURE after a create) or just repeats
 * (DELETE); nothing is sent until there is a connection.
 *
 *	IDLE		no entry; CREATING when session and connection are there
 *	CREATING	create and list are on their way, in one flight
 *	UNSURE		there may be an entry
 *	SEEKING		looking for it; the sync before the list brings the server up to
 *				what the former one may have done for us.  A create that is still
 *				under way there is refused, since the session has moved.
 *	FOUND		there is one; its transaction and owner are not known
 *	ADOPTING	asking for these
 *	ENTERED		entry is known, its place is not
 *	LISTING		the list is on its way
 *	WATCHING	waits for the last of the entries before it to go
 *	GRANTED
 *	DELETE		entry must go
 *	DELETING	that is on its way
 *
 * A session's end moves all to IDLE or ends them.
 *
 * One transition needs no look at the list: when an entry waited for just one
 * other and that is gone, the lock is free.  Else a vanished entry may have been a
 * waiter that gave up, and the list is read again.
 *
 * Callbacks may release or make requests, and so free the one at hand: they
 * are the last thing done with it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zookeeper.h"

#define RETRY_AFTER		(500 * NS_PER_MS)	/* after an answer nobody expects */

typedef enum State
{
	IDLE,
	CREATING,
	UNSURE,
	SEEKING,
	FOUND,
	ADOPTING,
	ENTERED,
	LISTING,
	WATCHING,
	GRANTED,
	DELETE,
	DELETING
} State;

struct RaProviderRequest
{
	/* Immutable */
	void	   *owner;
	uint64_t	number;
	RaProviderMode mode;
	bool		nowait;
	bool		hashed;			/* keyname is a hash: key is the entry's data */
	unsigned	bucket;
	int			keylen;
	char	   *key;
	char		keyname[ZK_KEYNAME_MAX];

	/* In the provider's list and table */
	RaProviderRequest *next;
	RaProviderRequest **prev;
	RaProviderRequest *next_number;

	State		state;
	bool		ending;			/* release() was called, or it was refused: delete the entry */
	bool		waited;			/* for entries before it */
	bool		tell;			/* released() is owed */
	bool		finished;		/* among the zombies, waits for its last call */
	int			calls;			/* on their way */
	bool		list_flies;
	bool		foreign;		/* an entry of its name was found that was another's */
	int			bucket_missing; /* how often it was found so */
	int64_t		retry_at;		/* nothing is sent before */

	char	   *name;			/* of the entry, if known */
	int64_t		czxid;
	int			nblockers;

	ZkWatch    *watch;
	RaProviderRequest *next_waiter;

	bool		verify;			/* after a new connection: is the entry still there? */
	bool		verifying;
	bool		look;
	bool		looking;
};

static void drive(RaProvider *p, RaProviderRequest *r);

/* ---- helpers ---- */

static void
bucket_path(RaProvider *p, RaProviderRequest *r, char *path)
{
	snprintf(path, ZK_PATH_MAX, "/%s/locks/%03x", p->cluster, r->bucket);
}

static void
entry_path(RaProvider *p, RaProviderRequest *r, const char *name, char *path)
{
	snprintf(path, ZK_PATH_MAX, "/%s/locks/%03x/%s", p->cluster, r->bucket, name);
}

static RaProviderRequest **
number_slot(RaProvider *p, uint64_t number)
{
	return &p->by_number[number % ZK_REQUEST_HASH];
}

static void
free_request(RaProviderRequest *r)
{
	free(r->key);
	free(r->name);
	free(r);
}

static void
leave_watch(RaProviderRequest *r)
{
	RaProviderRequest **at;

	if (r->watch == NULL)
		return;
	for (at = &r->watch->waiters; *at != r; at = &(*at)->next_waiter)
		;
	*at = r->next_waiter;
	r->watch = NULL;
}

static void
forget_entry(RaProviderRequest *r)
{
	free(r->name);
	r->name = NULL;
	r->czxid = 0;
}

static void
list_remove(RaProviderRequest *r)
{
	*r->prev = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
}

static void
list_add(RaProviderRequest **list, RaProviderRequest *r)
{
	r->prev = list;
	r->next = *list;
	if (r->next != NULL)
		r->next->prev = &r->next;
	*list = r;
}

/* Take a request out of all lists; it lives on until its calls have ended */
static void
finish(RaProvider *p, RaProviderRequest *r)
{
	RaProviderRequest **at;

	leave_watch(r);
	if (p->cursor == r)
		p->cursor = r->next;
	if (p->requests_end == &r->next)
		p->requests_end = r->prev;
	list_remove(r);
	for (at = number_slot(p, r->number); *at != r; at = &(*at)->next_number)
		;
	*at = r->next_number;
	r->finished = true;
	if (r->calls == 0)
		free_request(r);
	else
		list_add(&p->zombies, r);
}

static void
finish_released(RaProvider *p, RaProviderRequest *r)
{
	void	   *owner = r->owner;
	bool		tell = r->tell;

	finish(p, r);
	if (tell)
		p->cb.released(p->arg, owner);
}

/* Try again a little later */
static void
later(RaProvider *p, RaProviderRequest *r)
{
	r->retry_at = ra_zk_now() + RETRY_AFTER;
	if (r->retry_at < p->requests_at)
		p->requests_at = r->retry_at;
}

/* A call has ended: true if the request has ended before */
static bool
call_back(RaProviderRequest *r)
{
	r->calls--;
	if (!r->finished)
		return false;
	if (r->calls == 0)
	{
		list_remove(r);
		free_request(r);
	}
	return true;
}

static bool
set_name(RaProviderRequest *r, const char *name)
{
	char	   *copy = strdup(name);

	if (copy == NULL)
		return false;
	free(r->name);
	r->name = copy;
	return true;
}

/*
 * An answer did not come, or was not understood.  The next connection drives all
 * requests; if this one still stands it was memory that lacked.
 */
static void
unanswered(RaProvider *p, RaProviderRequest *r, const ZkCall *call)
{
	if (call->rc != ZCONNECTIONLOSS && call->rc != ZOPERATIONTIMEOUT)
		later(p, r);
}

/* ---- answers ---- */

static void
grant(RaProvider *p, RaProviderRequest *r)
{
	r->state = GRANTED;
	p->cb.granted(p->arg, r->owner, (uint64_t) r->czxid, r->waited);
}

/* What requests waited for is gone, or isn't watched any more */
static void
wake(RaProvider *p, ZkWatch *watch, bool gone)
{
	RaProviderRequest *r;

	/* Callbacks may take others of its waiters away, or set a new watch there */
	ra_zk_watch_unlink(watch);
	while ((r = watch->waiters) != NULL)
	{
		leave_watch(r);
		r->state = ENTERED;
		if (gone && r->nblockers == 1 && p->generation_known && ra_zk_ready(p))
			grant(p, r);
		else
			drive(p, r);
	}
	free(watch);
}

void
ra_zk_queue_fired(RaProvider *p, ZkWatch *watch)
{
	wake(p, watch, watch->type == ZOO_DELETED_EVENT);
}

static void
watch_got(RaProvider *p, ZkCall *call)
{
	ZkWatch    *watch = call->subject;
	RaProviderRequest *r = watch->waiters;

	if (call->rc != ZOK)
		wake(p, watch, call->rc == ZNONODE);
	else if (r != NULL && r->hashed &&
			 (call->value_len != r->keylen || memcmp(call->value, r->key, (size_t) r->keylen) != 0))
		ra_zk_log(p, RA_PROVIDER_WARNING, NULL,
				  "two keys have the same name in ZooKeeper, and exclude each other: \"%s\"", r->keyname);
}

static void
wait_for_entry(RaProvider *p, RaProviderRequest *r, const char *name)
{
	char		path[ZK_PATH_MAX];
	ZkWatch    *watch;

	entry_path(p, r, name, path);
	watch = ra_zk_watch_find(p, path);
	if (watch == NULL)
	{
		watch = ra_zk_watch_new(p, path, ZK_WATCH_ENTRY);
		if (watch != NULL && !ra_zk_get(p, watch_got, watch, path, watch))
		{
			ra_zk_watch_unlink(watch);
			free(watch);
			watch = NULL;
		}
	}
	if (watch == NULL)
	{
		r->state = ENTERED;
		later(p, r);
		return;
	}
	r->state = WATCHING;
	r->waited = true;
	r->watch = watch;
	r->next_waiter = watch->waiters;
	watch->waiters = r;
}

/* The bucket's list is there: has r an entry, and what is before it? */
static void
evaluate(RaProvider *p, RaProviderRequest *r, ZkCall *call)
{
	ZkPlace		place;

	ra_zk_place(call->names, call->nnames, r->keyname, r->mode, p->session_id, r->number, &place);
	if (place.twin != NULL)
	{
		char		path[ZK_PATH_MAX];

		entry_path(p, r, place.twin, path);
		ra_zk_delete(p, ra_zk_ignore, NULL, path, -1, false);
	}

	if (place.self == NULL)
	{
		/* it never came to be; or somebody has removed it */
		forget_entry(r);
		r->state = IDLE;
		drive(p, r);
	}
	else if (r->name == NULL || strcmp(r->name, place.self) != 0)
	{
		if (set_name(r, place.self))
			r->state = FOUND;
		else
		{
			r->state = UNSURE;
			later(p, r);
		}
		drive(p, r);
	}
	else
	{
		r->nblockers = place.nblockers;
		if (!p->generation_known)
			r->state = ENTERED; /* comes back when it is */
		else if (r->nblockers == 0)
			grant(p, r);
		else if (!r->nowait)
			wait_for_entry(p, r, place.blocker);
		else
		{
			void	   *owner = r->owner;

			r->ending = true;
			r->state = DELETE;
			drive(p, r);
			p->cb.refused(p->arg, owner);
		}
	}
}

static void
list_done(RaProvider *p, ZkCall *call)
{
	RaProviderRequest *r = call->subject;
	State		before = r->state == SEEKING ? UNSURE : ENTERED;

	r->list_flies = false;
	if (call_back(r))
		return;
	if (r->state == LISTING || r->state == SEEKING)
	{
		if (call->rc == ZOK)
		{
			evaluate(p, r, call);
			return;
		}
		r->state = before;
		if (call->rc == ZNONODE)
		{
			/* no bucket, so no entry */
			forget_entry(r);
			r->state = IDLE;
		}
		else if (ra_zk_answered(call->rc))
		{
			ra_zk_complain(p, call->rc, "list entries");
			later(p, r);
		}
		else
			unanswered(p, r, call);
	}
	drive(p, r);
}

static void
create_done(RaProvider *p, ZkCall *call)
{
	RaProviderRequest *r = call->subject;

	if (call_back(r))
		return;
	if (call->rc == ZOK)
	{
		const char *name = strrchr(call->value, '/');

		r->bucket_missing = 0;
		if (name == NULL || call->stat.ephemeralOwner != p->session_id || !set_name(r, name + 1))
		{
			r->state = UNSURE;
			later(p, r);
		}
		else
		{
			r->czxid = call->stat.czxid;
			r->state = r->ending ? DELETE : r->list_flies ? LISTING : ENTERED;
			if (r->czxid <= p->zxid_seen)
			{
				p->zxid_seen = r->czxid;
				ra_zk_generation_raise(p);
			}
			p->zxid_seen = r->czxid;
		}
	}
	else if (!ra_zk_answered(call->rc))
	{
		r->state = UNSURE;
		unanswered(p, r, call);
	}
	else
	{
		r->state = IDLE;
		if (call->rc != ZNONODE || ++r->bucket_missing > 3)
		{
			ra_zk_complain(p, call->rc, "create an entry");
			later(p, r);
		}
	}
	drive(p, r);
}

static void
adopt_done(RaProvider *p, ZkCall *call)
{
	RaProviderRequest *r = call->subject;

	if (call_back(r))
		return;
	if (r->state == ADOPTING)
	{
		r->state = FOUND;
		if (call->rc == ZOK && call->stat.ephemeralOwner == p->session_id)
		{
			r->czxid = call->stat.czxid;
			r->state = ENTERED;
		}
		else if (ra_zk_answered(call->rc))
		{
			/* what stays under our name would be found again with the next attempt, too */
			if (call->rc == ZOK)
			{
				if (!r->foreign)
					ra_zk_log(p, RA_PROVIDER_WARNING, "Its lock can't be had by this request until it is removed.",
							  "an entry that another session made bears the name of this node's: \"%s\"", r->name);
				r->foreign = true;
				later(p, r);
			}
			forget_entry(r);
			r->state = IDLE;
		}
		else
			unanswered(p, r, call);
	}
	drive(p, r);
}

static void
delete_done(RaProvider *p, ZkCall *call)
{
	RaProviderRequest *r = call->subject;

	if (call_back(r))
		return;
	if (call->rc == ZOK || call->rc == ZNONODE)
	{
		finish_released(p, r);
		return;
	}
	r->state = DELETE;
	if (ra_zk_answered(call->rc))
	{
		ra_zk_complain(p, call->rc, "delete an entry");
		later(p, r);
	}
	else
		unanswered(p, r, call);
	drive(p, r);
}

static void
verify_done(RaProvider *p, ZkCall *call)
{
	RaProviderRequest *r = call->subject;

	r->verifying = false;
	if (call_back(r))
		return;
	if (r->state == GRANTED)
	{
		if (call->rc == ZNONODE ||
			(call->rc == ZOK && (call->stat.ephemeralOwner != p->session_id || call->stat.czxid != r->czxid)))
		{
			void	   *owner = r->owner;

			ra_zk_log(p, RA_PROVIDER_WARNING, NULL, "an entry of this node was removed in ZooKeeper: \"%s\"",
					  r->name);
			finish(p, r);
			p->cb.lost(p->arg, owner);
			return;
		}
		if (call->rc != ZOK)
		{
			r->verify = true;
			unanswered(p, r, call);
		}
	}
	drive(p, r);
}

static void
look_done(RaProvider *p, ZkCall *call)
{
	RaProviderRequest *r = call->subject;
	ZkPlace		place;

	r->looking = false;
	if (call_back(r) || r->state != GRANTED)
		return;
	if (call->rc != ZOK)
	{
		r->look = true;
		unanswered(p, r, call);
		drive(p, r);
		return;
	}
	ra_zk_place(call->names, call->nnames, r->keyname, r->mode, p->session_id, r->number, &place);
	p->cb.contended(p->arg, r->owner, place.nothers > 0);
}

/* ---- sending ---- */

/* Count a call that was sent; without memory, try again later */
static bool
sent(RaProvider *p, RaProviderRequest *r, bool was_sent)
{
	if (was_sent)
		r->calls++;
	else
		later(p, r);
	return was_sent;
}

static void
send_create(RaProvider *p, RaProviderRequest *r)
{
	char		bucket[ZK_PATH_MAX];
	char		path[ZK_PATH_MAX];

	bucket_path(p, r, bucket);
	if (r->bucket_missing > 1)
		ra_zk_create_base(p);
	if (r->bucket_missing > 0)
		ra_zk_create(p, ra_zk_ignore, NULL, bucket, "", 0, ZOO_PERSISTENT, false);

	snprintf(path, sizeof(path), "/%s/locks/%03x/%s;%c;%s;%016" PRIx64 ";%" PRIx64 ";",
			 p->cluster, r->bucket, r->keyname, r->mode == RA_PROVIDER_EXCLUSIVE ? 'x' : 's',
			 p->nodename, (uint64_t) p->session_id, r->number);
	if (!sent(p, r, ra_zk_create(p, create_done, r, path, r->key, r->hashed ? r->keylen : 0,
								 ZOO_EPHEMERAL_SEQUENTIAL, true)))
		return;
	r->state = CREATING;

	/* Its answer comes last, and wakes us for both */
	r->list_flies = ra_zk_children(p, list_done, r, bucket, NULL);
	if (r->list_flies)
		r->calls++;
}

/* Do what the state calls for, if it can be done now.  May end r. */
static void
drive(RaProvider *p, RaProviderRequest *r)
{
	char		path[ZK_PATH_MAX];

	if (r->state == IDLE && r->ending)
	{
		finish_released(p, r);
		return;
	}
	if ((r->state == FOUND || r->state == ENTERED) && r->ending)
		r->state = DELETE;
	if (!ra_zk_ready(p))
		return;
	if (r->retry_at != 0)
	{
		if (ra_zk_now() < r->retry_at)
		{
			if (r->retry_at < p->requests_at)
				p->requests_at = r->retry_at;
			return;
		}
		r->retry_at = 0;
	}

	switch (r->state)
	{
		case IDLE:
			if (r->calls == 0 && p->generation_known)
				send_create(p, r);
			break;
		case UNSURE:
			if (r->calls > 0)
				break;
			bucket_path(p, r, path);
			ra_zk_sync(p, ra_zk_ignore, NULL, path);
			if (sent(p, r, ra_zk_children(p, list_done, r, path, NULL)))
				r->state = SEEKING;
			break;
		case FOUND:
			entry_path(p, r, r->name, path);
			if (sent(p, r, ra_zk_exists(p, adopt_done, r, path)))
				r->state = ADOPTING;
			break;
		case ENTERED:
			if (r->calls > 0 || !p->generation_known)
				break;
			bucket_path(p, r, path);
			if (sent(p, r, ra_zk_children(p, list_done, r, path, NULL)))
				r->state = LISTING;
			break;
		case GRANTED:
			if (r->verify && !r->verifying)
			{
				entry_path(p, r, r->name, path);
				r->verifying = sent(p, r, ra_zk_exists(p, verify_done, r, path));
				r->verify = !r->verifying;
			}
			if (r->look && !r->looking)
			{
				bucket_path(p, r, path);
				r->looking = sent(p, r, ra_zk_children(p, look_done, r, path, NULL));
				r->look = !r->looking;
			}
			break;
		case DELETE:
			entry_path(p, r, r->name, path);
			if (sent(p, r, ra_zk_delete(p, delete_done, r, path, -1, true)))
				r->state = DELETING;
			break;
		case CREATING:
		case SEEKING:
		case ADOPTING:
		case LISTING:
		case WATCHING:
		case DELETING:
			break;
	}
}

void
ra_zk_queue_drive(RaProvider *p)
{
	RaProviderRequest *r;

	p->requests_at = INT64_MAX;
	for (p->cursor = p->requests; (r = p->cursor) != NULL;)
	{
		p->cursor = r->next;
		drive(p, r);
	}
}

/* Same session, another connection, maybe to another server */
void
ra_zk_queue_reconnected(RaProvider *p)
{
	for (RaProviderRequest *r = p->requests; r != NULL; r = r->next)
	{
		if (r->state == GRANTED)
			r->verify = true;
		else if (r->state == WATCHING)
		{
			/* the library renews its watch; still, don't rely on it alone */
			leave_watch(r);
			r->state = ENTERED;
		}
	}
	ra_zk_queue_drive(p);
}

/* The session has ended, and all entries with it */
void
ra_zk_queue_over(RaProvider *p)
{
	RaProviderRequest *r;

	while ((r = p->zombies) != NULL)
	{
		list_remove(r);
		free_request(r);
	}
	for (p->cursor = p->requests; (r = p->cursor) != NULL;)
	{
		p->cursor = r->next;
		r->calls = 0;
		if (r->ending)
			finish_released(p, r);
		else if (r->state == GRANTED)
		{
			void	   *owner = r->owner;

			finish(p, r);
			p->cb.lost(p->arg, owner);
		}
		else
		{
			leave_watch(r);
			forget_entry(r);
			r->state = IDLE;
			r->list_flies = false;
			r->bucket_missing = 0;
			r->retry_at = 0;
		}
	}
}

void
ra_zk_queue_free(RaProvider *p)
{
	RaProviderRequest *r;

	while ((r = p->zombies) != NULL || (r = p->requests) != NULL)
	{
		list_remove(r);
		free_request(r);
	}
}

/* Token of an entry of ours, or 0 */
uint64_t
ra_zk_queue_token(RaProvider *p, uint64_t number)
{
	RaProviderRequest *r = *number_slot(p, number);

	while (r != NULL && r->number != number)
		r = r->next_number;
	return r != NULL ? (uint64_t) r->czxid : 0;
}

/* ---- operations ---- */

RaProviderRequest *
ra_zk_acquire(RaProvider *p, void *owner, const char *key, int keylen,
			  RaProviderMode mode, bool nowait)
{
	RaProviderRequest *r = calloc(1, sizeof(*r));
	RaProviderRequest **slot;

	if (r == NULL || (r->key = malloc((size_t) keylen + 1)) == NULL)
	{
		free(r);
		return NULL;
	}
	memcpy(r->key, key, (size_t) keylen);
	r->keylen = keylen;
	r->owner = owner;
	r->mode = mode;
	r->nowait = nowait;
	r->hashed = ra_zk_keyname(r->keyname, key, keylen);
	r->bucket = ra_zk_bucket(r->keyname);
	r->number = ++p->last_number;

	r->prev = p->requests_end;
	*p->requests_end = r;
	p->requests_end = &r->next;
	slot = number_slot(p, r->number);
	r->next_number = *slot;
	*slot = r;

	drive(p, r);
	return r;
}

void
ra_zk_release(RaProvider *p, RaProviderRequest *r)
{
	r->ending = true;
	r->tell = true;
	if (r->state == ENTERED || r->state == LISTING || r->state == WATCHING || r->state == GRANTED)
	{
		leave_watch(r);
		r->state = DELETE;
	}
	drive(p, r);
}

void
ra_zk_look(RaProvider *p, RaProviderRequest *r)
{
	r->look = true;
	drive(p, r);
}
