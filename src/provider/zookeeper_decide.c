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
 * Requests cost the ensemble much more than what is in them.  So no more than PROPOSALS_FLY are on their way;
 * what is proposed meanwhile goes together with the next one, a group commit of decisions.  If some of these
 * can't be made, then none is, and each is sent alone.
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

/* requests to create registers that are on their way at a time; what comes then waits for the end of one */
#define PROPOSALS_FLY	2

#define BUCKETS_AT_ONCE	256		/* a request of about 30 kB */

/* What is known of a bucket */
typedef enum ZkBucketState
{
	BUCKET_UNKNOWN,
	BUCKET_ASKED,				/* for itself, with what is to be in it */
	BUCKET_THERE
} ZkBucketState;

struct ZkDecision
{
	ZkDecision *next;
	void	   *owner;
	bool		over;			/* answered; waits for its call.  Changed under the provider's lock */
	bool		told;			/* stands() was called; under the provider's lock */
	bool		flies;
	bool		alone;			/* could not be made together with others */
	int			parent_missing; /* how often it was found so */
	int64_t		deadline;
	int64_t		retry_at;		/* without a connection: as soon as there is one */
	unsigned	bucket;
	char		keyname[ZK_KEYNAME_MAX];
	char		value[RA_VALUE_MAX];	/* empty: look */
};

/* What is created with one request */
struct ZkProposals
{
	ZkProposals *next;
	int			n;
	ZkDecision *decisions[ZK_PROPOSALS_MAX];
};

static void propose(RaProvider *p);

static void
decision_path(RaProvider *p, const ZkDecision *d, char *path)
{
	snprintf(path, ZK_PATH_MAX, "/%s/decisions/%03x/%s", p->cluster, d->bucket, d->keyname);
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

/* A request to create registers has ended: see ZkAtOnce */
static bool
proposed(RaProvider *p, ZkCall *call, ZkTold *told)
{
	ZkProposals *proposals = call->subject;

	p->proposing--;
	if (call->rc != ZOK || p->cb.stands == NULL)
		return false;
	for (int i = 0; i < proposals->n; i++)
	{
		ZkDecision *d = proposals->decisions[i];

		if (d->over)
			continue;
		d->told = true;
		told->whom[told->n++] = p->cb.stands(p->arg, d->owner);
	}
	return !p->proposals_wait;
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
created(RaProvider *p, ZkDecision *d, int rc)
{
	char		path[ZK_PATH_MAX];

	if (call_back(p, d))
		return;
	if (rc == ZOK)
		answer(p, d, d->value, NULL);
	else if (rc == ZNODEEXISTS)
	{
		decision_path(p, d, path);
		d->flies = ra_zk_get(p, got, d, path, NULL);
		if (!d->flies)
			later(d);
	}
	else if (rc == ZNONODE && d->parent_missing++ < PARENT_TRIES)
		p->buckets[d->bucket] = BUCKET_UNKNOWN;	/* goes again, at once */
	else if (!ra_zk_answered(rc))
		later(d);
	else
		answer(p, d, NULL, zerror(rc));
}

static void
all_created(RaProvider *p, ZkCall *call)
{
	ZkProposals *proposals = call->subject;
	ZkProposals **at = &p->proposals;
	bool		apart = proposals->n > 1 && (call->rc == ZNODEEXISTS || call->rc == ZNONODE);

	while (*at != proposals)
		at = &(*at)->next;
	*at = proposals->next;
	for (int i = 0; i < proposals->n; i++)
	{
		ZkDecision *d = proposals->decisions[i];

		if (!apart)
			created(p, d, call->rc);
		else if (!call_back(p, d))
			d->alone = true;
	}
	free(proposals);
	propose(p);
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
	char		paths[BUCKETS_AT_ONCE][ZK_BUCKET_PATH_MAX];
	char	   *missing[BUCKETS_AT_ONCE];
	int			n = 0;

	for (unsigned i = first; i < first + BUCKETS_AT_ONCE; i++)
	{
		if (p->buckets[i] != BUCKET_UNKNOWN)
			continue;
		ra_zk_decisions_path(p, i, paths[n]);
		missing[n] = paths[n];
		n++;
	}
	if (n > 0 && !ra_zk_create_all(p, buckets_made, NULL, &p->buckets[first], missing, NULL, n))
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

static void
look(RaProvider *p, ZkDecision *d)
{
	char		path[ZK_PATH_MAX];

	decision_path(p, d, path);
	ra_zk_sync(p, ra_zk_ignore, NULL, path);
	d->flies = ra_zk_get(p, got, d, path, NULL);
	if (!d->flies)
		later(d);
}

/* What a register lies in, if it is not known to be there; the parent of all is made only if it was found missing */
static void
make_parents(RaProvider *p, const ZkDecision *d)
{
	char		path[ZK_BUCKET_PATH_MAX];

	if (d->parent_missing > 0)
		ra_zk_create_base(p);
	if (p->buckets[d->bucket] == BUCKET_THERE)
		return;
	ra_zk_decisions_path(p, d->bucket, path);
	p->buckets[d->bucket] = BUCKET_ASKED;
	ra_zk_create(p, bucket_made, &p->buckets[d->bucket], path, "", 0, ZOO_PERSISTENT, false);
}

static bool
send_proposals(RaProvider *p, ZkProposals *proposals)
{
	ZkDecision **d = proposals->decisions;
	int			n = proposals->n;
	char	   *paths[ZK_PROPOSALS_MAX];
	char	   *values[ZK_PROPOSALS_MAX];
	char	   *text = malloc((size_t) n * ZK_PATH_MAX);
	bool		sent;

	if (text == NULL)
		return false;
	for (int i = 0; i < n; i++)
	{
		make_parents(p, d[i]);
		paths[i] = text + (size_t) i * ZK_PATH_MAX;
		decision_path(p, d[i], paths[i]);
		values[i] = d[i]->value;
	}
	if (n == 1)
		sent = ra_zk_create_at_once(p, all_created, proposed, proposals, paths[0], values[0], (int) strlen(values[0]));
	else
		sent = ra_zk_create_all(p, all_created, proposed, proposals, paths, values, n);
	free(text);
	return sent;
}

/* All that are due, or one that must be alone; NULL: none, or no memory */
static ZkProposals *
due_proposals(RaProvider *p)
{
	ZkProposals *proposals = NULL;
	int64_t		now = ra_zk_now();

	for (ZkDecision *d = p->decisions; d != NULL; d = d->next)
	{
		if (d->value[0] == '\0' || d->flies || d->over || now < d->retry_at || now >= d->deadline)
			continue;
		if (proposals == NULL && (proposals = calloc(1, sizeof(*proposals))) == NULL)
			return NULL;
		if (d->alone)
			proposals->n = 0;
		proposals->decisions[proposals->n++] = d;
		if (d->alone || proposals->n == ZK_PROPOSALS_MAX)
			break;
	}
	return proposals;
}

/* May a request be sent?  If not, who waits will be told of the end of another one. */
static bool
may_propose(RaProvider *p, bool alone)
{
	bool		may;

	pthread_mutex_lock(&p->lock);
	may = alone || p->proposing < PROPOSALS_FLY;
	p->proposing += may;
	p->proposals_wait = !may;
	pthread_mutex_unlock(&p->lock);
	return may;
}

/* Send what is proposed, and may be sent now */
static void
propose(RaProvider *p)
{
	ZkProposals *proposals;

	while (ra_zk_ready(p) && (proposals = due_proposals(p)) != NULL)
	{
		if (!may_propose(p, proposals->decisions[0]->alone))
		{
			free(proposals);
			return;
		}
		for (int i = 0; i < proposals->n; i++)
			proposals->decisions[i]->flies = true;
		proposals->next = p->proposals;
		p->proposals = proposals;
		if (!send_proposals(p, proposals))
		{
			p->proposals = proposals->next;
			for (int i = 0; i < proposals->n; i++)
			{
				proposals->decisions[i]->flies = false;
				later(proposals->decisions[i]);
			}
			free(proposals);
			pthread_mutex_lock(&p->lock);
			p->proposing--;
			pthread_mutex_unlock(&p->lock);
			return;
		}
		if (!p->buckets_sought)
			seek_buckets(p);
	}
	if (p->proposals_wait)
	{
		pthread_mutex_lock(&p->lock);
		p->proposals_wait = false;
		pthread_mutex_unlock(&p->lock);
	}
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
	if (value != NULL)
		propose(p);
	else if (ra_zk_ready(p))
		look(p, d);
	return true;
}

/* ---- time, connections, sessions ---- */

/* There is a connection: all that is not on its way goes now */
void
ra_zk_decide_drive(RaProvider *p)
{
	for (ZkDecision *d = p->decisions; d != NULL && ra_zk_ready(p); d = d->next)
	{
		d->retry_at = 0;
		if (d->value[0] == '\0' && !d->flies && !d->over)
			look(p, d);
	}
	propose(p);
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
		if (d->value[0] == '\0' && !d->over && !d->flies && now >= d->retry_at && ra_zk_ready(p))
			look(p, d);
		d = d->next;
	}
	propose(p);
	ra_zk_forget_tick(p, now);
}

int64_t
ra_zk_decide_until(const RaProvider *p)
{
	int64_t		until = ra_zk_forget_until(p);

	for (const ZkDecision *d = p->decisions; d != NULL; d = d->next)
	{
		if (d->over)
			continue;
		if (d->deadline < until)
			until = d->deadline;
		/* what waits for the end of a request is told of it */
		if (!d->flies && ra_zk_ready(p) && d->retry_at < until && !(p->proposals_wait && d->value[0] != '\0'))
			until = d->retry_at;
	}
	return until;
}

static void
free_proposals(RaProvider *p)
{
	for (ZkProposals *proposals; (proposals = p->proposals) != NULL;)
	{
		p->proposals = proposals->next;
		free(proposals);
	}
	pthread_mutex_lock(&p->lock);
	p->proposing = 0;
	p->proposals_wait = false;
	pthread_mutex_unlock(&p->lock);
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
	free_proposals(p);
	p->buckets_sought = false;
	memset(p->buckets, BUCKET_UNKNOWN, sizeof(p->buckets));	/* the data may be older next time */
	ra_zk_forget_over(p);
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
	free_proposals(p);
	ra_zk_forget_free(p);
}
