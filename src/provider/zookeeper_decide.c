/*
 * zookeeper_decide.c
 *	  Registers: persistent nodes that are created once.
 *
 * The first create of a path succeeds, all others find that it exists, and
 * read it.  A create whose outcome is unknown (the connection was lost) is repeated:
 * if it had succeeded, it finds its own value now.  Nothing else is needed, neither
 * locks nor the session.
 *
 * A look asks for sync first, since a follower may lag behind.  That is not
 * needed after a create that failed: its answer comes from the server that
 * has seen the node by then.
 *
 * With the first proposal all buckets are made that are missing, many with each request,
 * since a request costs every server of the ensemble a write.  One that is
 * needed before that is made right before the node, without waiting for it: one client's
 * requests are carried out in their order.
 *
 * What is to be forgotten is deleted several at a time, if much is to be, since each request costs every server of the
 * ensemble a write.
 *
 * Whoever waits for a create is told that it has succeeded by the library's thread, stands(), and need not
 * wait until the main thread is awake.  That one learns of it with the next thing it does, or when
 * QUIET_MAX has passed (zookeeper.c).
 *
 * Requests that were not sent wait for a connection, those on their way for
 * their answer; whichever comes first, that or the deadline, ends them.  A
 * request that ends while a call of it is on its way stays in the list, without an owner.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zookeeper.h"

#define RETRY_AFTER		(200 * NS_PER_MS)
#define PARENT_TRIES	4

#define BUCKETS_AT_ONCE	256		/* a request of about 30 kB */
#define BUCKET_PATH_MAX	(ZK_CLUSTER_MAX + 24)

/* What is known of a bucket */
typedef enum ZkBucketState
{
	BUCKET_UNKNOWN,
	BUCKET_ASKED,				/* for itself, with what is to be in it */
	BUCKET_THERE
} ZkBucketState;

/* what is to be forgotten goes when there is so much, or when that is so long ago */
#define FORGET_AT_ONCE	32
#define FORGET_AFTER	(1000 * NS_PER_MS)

struct ZkDecision
{
	ZkDecision *next;
	void	   *owner;
	bool		over;			/* answered; waits for its call.  Changed under the provider's lock */
	bool		told;			/* stands() was called; under the provider's lock */
	bool		flies;
	int			parent_missing; /* how often it was found so */
	int64_t		deadline;
	int64_t		retry_at;		/* without a connection: as soon as there is one */
	unsigned	bucket;
	char		keyname[ZK_KEYNAME_MAX];
	char		value[RA_VALUE_MAX];	/* empty: look */
};

struct ZkForgotten
{
	ZkForgotten *next;			/* on their way */
	char		value[RA_VALUE_MAX];	/* what they become; "": deleted */
	int			n;
	char	   *paths[FORGET_AT_ONCE];
};

/* A walk through all registers, one bucket after the other */
struct ZkSweep
{
	char		value[RA_VALUE_MAX];
	char		left[RA_VALUE_MAX]; /* is told of; "": none */
	int64_t		before;			/* ms since 1970 */
	unsigned	bucket;			/* being looked at */
	int			calls;			/* on their way */
	struct Candidate *candidates;	/* of this bucket */
};

typedef struct Candidate
{
	struct Candidate *next;
	ZkSweep    *sweep;
	char		path[ZK_PATH_MAX];
} Candidate;

static void send_decision(RaProvider *p, ZkDecision *d);
static void sweep_bucket(RaProvider *p, ZkSweep *sweep);
static void free_sweep(RaProvider *p);

static void
decision_path(RaProvider *p, const ZkDecision *d, char *path)
{
	snprintf(path, ZK_PATH_MAX, "/%s/decisions/%03x/%s", p->cluster, d->bucket, d->keyname);
}

static void
bucket_path(RaProvider *p, unsigned bucket, char *path)
{
	snprintf(path, BUCKET_PATH_MAX, "/%s/decisions/%03x", p->cluster, bucket);
}

static void
unlink_decision(RaProvider *p, ZkDecision *d)
{
	ZkDecision **at = &p->decisions;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	free(d);
}

/* Library's thread, under the lock */
static void *
stands(RaProvider *p, ZkCall *call)
{
	ZkDecision *d = call->subject;

	if (d->over || p->cb.stands == NULL)
		return NULL;
	d->told = true;
	return p->cb.stands(p->arg, d->owner);
}

/* Answers; the request is gone then, or will be with its call */
static void
answer(RaProvider *p, ZkDecision *d, const char *value, const char *error)
{
	bool		told;

	pthread_mutex_lock(&p->lock);
	d->over = true;
	told = d->told;
	pthread_mutex_unlock(&p->lock);
	if (told)
	{
		/* whatever we have learned or missed since */
		value = d->value;
		error = NULL;
	}
	p->cb.decided(p->arg, d->owner, value, error);
	if (!d->flies)
		unlink_decision(p, d);
}

/* A call has ended; true: nobody waits for it any more */
static bool
call_back(RaProvider *p, ZkDecision *d)
{
	d->flies = false;
	if (!d->over)
		return false;
	unlink_decision(p, d);
	return true;
}

static void
later(ZkDecision *d)
{
	d->retry_at = ra_zk_now() + RETRY_AFTER;
}

static void
got(RaProvider *p, ZkCall *call)
{
	ZkDecision *d = call->subject;

	if (call_back(p, d))
		return;
	if (call->rc == ZOK)
		answer(p, d, call->value, NULL);
	else if (call->rc == ZNONODE && d->value[0] == '\0')
		answer(p, d, NULL, NULL);
	else if (call->rc == ZNONODE || !ra_zk_answered(call->rc))
		later(d);				/* forgotten meanwhile, or no answer */
	else
		answer(p, d, NULL, zerror(call->rc));
}

static void
created(RaProvider *p, ZkCall *call)
{
	ZkDecision *d = call->subject;
	char		path[ZK_PATH_MAX];

	if (call_back(p, d))
		return;
	if (call->rc == ZOK)
		answer(p, d, d->value, NULL);
	else if (call->rc == ZNODEEXISTS)
	{
		decision_path(p, d, path);
		d->flies = ra_zk_get(p, got, d, path, NULL);
		if (!d->flies)
			later(d);
	}
	else if (call->rc == ZNONODE && d->parent_missing++ < PARENT_TRIES)
	{
		p->buckets[d->bucket] = BUCKET_UNKNOWN;
		send_decision(p, d);
	}
	else if (!ra_zk_answered(call->rc))
		later(d);
	else
		answer(p, d, NULL, zerror(call->rc));
}

static void
bucket_made(RaProvider *p, ZkCall *call)
{
	(void) p;
	if (call->rc == ZOK || call->rc == ZNODEEXISTS)
		*(unsigned char *) call->subject = BUCKET_THERE;
}

/* A request for several has ended, whose first would be the subject */
static void
buckets_made(RaProvider *p, ZkCall *call)
{
	unsigned char *first = call->subject;

	if (call->rc == ZOK)
		memset(first, BUCKET_THERE, BUCKETS_AT_ONCE);
	else if (call->rc == ZNODEEXISTS || !ra_zk_answered(call->rc))
		p->buckets_sought = false;	/* somebody else was faster, or nobody knows: look again */
}

/* Those that are missing, of BUCKETS_AT_ONCE */
static void
make_buckets(RaProvider *p, unsigned first)
{
	char		paths[BUCKETS_AT_ONCE][BUCKET_PATH_MAX];
	char	   *missing[BUCKETS_AT_ONCE];
	int			n = 0;

	for (unsigned i = first; i < first + BUCKETS_AT_ONCE; i++)
	{
		if (p->buckets[i] != BUCKET_UNKNOWN)
			continue;
		bucket_path(p, i, paths[n]);
		missing[n] = paths[n];
		n++;
	}
	if (n > 0 && !ra_zk_create_all(p, buckets_made, &p->buckets[first], missing, n))
		p->buckets_sought = false;
}

static void
buckets_listed(RaProvider *p, ZkCall *call)
{
	if (call->rc != ZOK)
	{
		p->buckets_sought = false;	/* not even their parent is there */
		return;
	}
	for (int i = 0; i < call->nnames; i++)
	{
		char	   *end;
		unsigned long bucket = strtoul(call->names[i], &end, 16);

		if (end == call->names[i] + 3 && *end == '\0' && bucket < ZK_BUCKETS)
			p->buckets[bucket] = BUCKET_THERE;
	}
	for (unsigned first = 0; first < ZK_BUCKETS; first += BUCKETS_AT_ONCE)
		make_buckets(p, first);
}

static void
seek_buckets(RaProvider *p)
{
	char		path[ZK_PATH_MAX];

	snprintf(path, sizeof(path), "/%s/decisions", p->cluster);
	p->buckets_sought = ra_zk_children(p, buckets_listed, NULL, path, NULL);
}

/* The parent of all is made only if it was found missing */
static void
send_decision(RaProvider *p, ZkDecision *d)
{
	char		path[ZK_PATH_MAX];

	if (d->parent_missing > 0)
		ra_zk_create_base(p);
	if (d->value[0] != '\0' && p->buckets[d->bucket] != BUCKET_THERE)
	{
		bucket_path(p, d->bucket, path);
		p->buckets[d->bucket] = BUCKET_ASKED;
		ra_zk_create(p, bucket_made, &p->buckets[d->bucket], path, "", 0, ZOO_PERSISTENT, false);
	}
	decision_path(p, d, path);
	if (d->value[0] == '\0')
	{
		ra_zk_sync(p, ra_zk_ignore, NULL, path);
		d->flies = ra_zk_get(p, got, d, path, NULL);
	}
	else
		d->flies = ra_zk_create_at_once(p, created, stands, d, path, d->value, (int) strlen(d->value));
	if (!d->flies)
		later(d);
	else if (d->value[0] != '\0' && !p->buckets_sought)
		seek_buckets(p);
}

bool
ra_zk_decide(RaProvider *p, void *owner, const char *name, int namelen, const char *value, int64_t deadline)
{
	ZkDecision *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return false;
	d->owner = owner;
	d->deadline = deadline;
	ra_zk_keyname(d->keyname, name, namelen);
	d->bucket = ra_zk_bucket(d->keyname);
	if (value != NULL)
		snprintf(d->value, sizeof(d->value), "%s", value);
	d->next = p->decisions;
	p->decisions = d;
	if (ra_zk_ready(p))
		send_decision(p, d);
	return true;
}

void
ra_zk_forget(RaProvider *p, const char *name, int namelen, const char *value)
{
	ZkForgotten *f = p->forgotten;
	char		keyname[ZK_KEYNAME_MAX];
	char		path[ZK_PATH_MAX];

	if (!ra_zk_ready(p))
		return;
	if (f != NULL && strcmp(f->value, value != NULL ? value : "") != 0)
	{
		ra_zk_forget_now(p);
		f = NULL;
	}
	if (f == NULL)
		f = p->forgotten = calloc(1, sizeof(*f));
	if (f == NULL)
		return;
	snprintf(f->value, sizeof(f->value), "%s", value != NULL ? value : "");
	ra_zk_keyname(keyname, name, namelen);
	snprintf(path, sizeof(path), "/%s/decisions/%03x/%s", p->cluster, ra_zk_bucket(keyname), keyname);
	f->paths[f->n] = strdup(path);
	if (f->paths[f->n] == NULL)
		return;
	if (++f->n == FORGET_AT_ONCE || ra_zk_now() >= p->forgotten_at + FORGET_AFTER)
		ra_zk_forget_now(p);
}

static void
free_forgotten(ZkForgotten *f)
{
	while (f != NULL)
	{
		ZkForgotten *next = f->next;

		for (int i = 0; i < f->n; i++)
			free(f->paths[i]);
		free(f);
		f = next;
	}
}

static void
forget_one(RaProvider *p, const ZkForgotten *f, int i)
{
	if (f->value[0] != '\0')
		ra_zk_set(p, ra_zk_ignore, NULL, f->paths[i], f->value, (int) strlen(f->value), -1);
	else
		ra_zk_delete(p, ra_zk_ignore, NULL, f->paths[i], -1, true);
}

/* One that is gone already keeps all from being changed: then each for itself */
static void
forgot(RaProvider *p, ZkCall *call)
{
	ZkForgotten *f = call->subject;
	ZkForgotten **at = &p->forgetting;

	for (int i = 0; call->rc == ZNONODE && i < f->n; i++)
		forget_one(p, f, i);
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	f->next = NULL;
	free_forgotten(f);
}

void
ra_zk_forget_now(RaProvider *p)
{
	ZkForgotten *f = p->forgotten;

	if (f == NULL || !ra_zk_ready(p))
		return;
	p->forgotten = NULL;
	p->forgotten_at = ra_zk_now();
	if (f->n == 1)
	{
		forget_one(p, f, 0);
		free_forgotten(f);
	}
	else if (ra_zk_change_all(p, forgot, f, f->paths, f->n, f->value[0] ? f->value : NULL))
	{
		f->next = p->forgetting;
		p->forgetting = f;
	}
	else
		free_forgotten(f);
}

/* ---- time, connections, sessions ---- */

/* There is a connection: all that is not on its way goes now */
void
ra_zk_decide_drive(RaProvider *p)
{
	for (ZkDecision *d = p->decisions; d != NULL && ra_zk_ready(p); d = d->next)
		if (!d->flies && !d->over)
			send_decision(p, d);
}

/* Answers may call back and change the list: begin anew after each */
void
ra_zk_decide_tick(RaProvider *p, int64_t now)
{
	for (ZkDecision *d = p->decisions; d != NULL;)
	{
		if (!d->over && now >= d->deadline)
		{
			answer(p, d, NULL, p->connected ? "no answer in time" : "not connected");
			d = p->decisions;
			continue;
		}
		if (!d->over && !d->flies && now >= d->retry_at && ra_zk_ready(p))
			send_decision(p, d);
		d = d->next;
	}
	if (p->forgotten != NULL && now >= p->forgotten_at + FORGET_AFTER)
		ra_zk_forget_now(p);
}

int64_t
ra_zk_decide_until(const RaProvider *p)
{
	int64_t		until = INT64_MAX;

	if (p->forgotten != NULL && ra_zk_ready(p))
		until = p->forgotten_at + FORGET_AFTER;
	for (const ZkDecision *d = p->decisions; d != NULL; d = d->next)
	{
		if (d->over)
			continue;
		if (d->deadline < until)
			until = d->deadline;
		if (!d->flies && ra_zk_ready(p) && d->retry_at < until)
			until = d->retry_at;
	}
	return until;
}

/*
 * The session has ended: its calls are not answered any more, requests wait for the next one.  Its handle is
 * dead, so that none is told at once any more; one that was needs nothing else.
 */
void
ra_zk_decide_over(RaProvider *p)
{
	ZkDecision **at = &p->decisions;

	while (*at != NULL)
	{
		ZkDecision *d = *at;

		d->flies = false;
		if (d->over)
		{
			*at = d->next;
			free(d);
		}
		else if (d->told)
		{
			answer(p, d, d->value, NULL);	/* which may call back and change the list */
			at = &p->decisions;
		}
		else
			at = &d->next;
	}
	p->buckets_sought = false;
	free_forgotten(p->forgetting);
	p->forgetting = NULL;
	free_sweep(p);
}

void
ra_zk_decide_free(RaProvider *p)
{
	ZkDecision *d;

	while ((d = p->decisions) != NULL)
	{
		p->decisions = d->next;
		free(d);
	}
	free_forgotten(p->forgotten);
	free_forgotten(p->forgetting);
	p->forgotten = p->forgetting = NULL;
	free_sweep(p);
}

/* ---- sweeping ---- */

static void
free_candidates(ZkSweep *sweep)
{
	for (Candidate *candidate; (candidate = sweep->candidates) != NULL;)
	{
		sweep->candidates = candidate->next;
		free(candidate);
	}
}

static void
free_sweep(RaProvider *p)
{
	if (p->sweep != NULL)
		free_candidates(p->sweep);
	free(p->sweep);
	p->sweep = NULL;
}

static void
sweep_call_ends(RaProvider *p, ZkSweep *sweep)
{
	if (--sweep->calls > 0)
		return;
	free_candidates(sweep);
	if (++sweep->bucket < ZK_BUCKETS)
		sweep_bucket(p, sweep);
	else
		free_sweep(p);
}

/* A hash does not tell the name */
static void
tell_left(RaProvider *p, const char *keyname)
{
	char		name[ZK_KEYNAME_MAX];
	int			namelen = ra_zk_unescape(name, sizeof(name), keyname, (int) strlen(keyname));

	if (namelen > 0)
		p->cb.left(p->arg, name, namelen);
}

static void
swept_value(RaProvider *p, ZkCall *call)
{
	Candidate  *candidate = call->subject;
	ZkSweep    *sweep = candidate->sweep;

	if (call->rc == ZOK && call->stat.ctime < sweep->before)
	{
		if (strcmp(call->value, sweep->value) == 0)
			ra_zk_delete(p, ra_zk_ignore, NULL, candidate->path, call->stat.version, false);
		else if (sweep->left[0] != '\0' && strcmp(call->value, sweep->left) == 0)
			tell_left(p, strrchr(candidate->path, '/') + 1);
	}
	sweep_call_ends(p, sweep);
}

static void
swept_bucket(RaProvider *p, ZkCall *call)
{
	ZkSweep    *sweep = call->subject;

	for (int i = 0; i < call->nnames; i++)
	{
		Candidate  *candidate = calloc(1, sizeof(*candidate));

		if (candidate == NULL)
			break;
		candidate->sweep = sweep;
		candidate->next = sweep->candidates;
		sweep->candidates = candidate;
		snprintf(candidate->path, sizeof(candidate->path), "/%s/decisions/%03x/%.160s", p->cluster,
				 sweep->bucket, call->names[i]);
		if (ra_zk_get(p, swept_value, candidate, candidate->path, NULL))
			sweep->calls++;
	}
	sweep_call_ends(p, sweep);
}

static void
sweep_bucket(RaProvider *p, ZkSweep *sweep)
{
	char		path[ZK_PATH_MAX];

	bucket_path(p, sweep->bucket, path);
	sweep->calls = 1;
	if (!ra_zk_children(p, swept_bucket, sweep, path, NULL))
		free_sweep(p);
}

void
ra_zk_sweep(RaProvider *p, const char *value, const char *left, int64_t before)
{
	ZkSweep    *sweep;

	if (p->sweep != NULL || !ra_zk_ready(p))
		return;
	sweep = calloc(1, sizeof(*sweep));
	if (sweep == NULL)
		return;
	snprintf(sweep->value, sizeof(sweep->value), "%s", value);
	snprintf(sweep->left, sizeof(sweep->left), "%s", left != NULL ? left : "");
	sweep->before = before;
	p->sweep = sweep;
	sweep_bucket(p, sweep);
}
