/*
 * zookeeper_forget.c
 *	  How registers go.
 *
 * What is not needed any more, but shall still be found for a time, is written down: the names of
 * some hundred registers, or of what has come together in a second, make the data of one node below
 * finished/.  A change of each register itself would cost the servers as much as its creation did.
 * What was written down long enough ago is cleared: first the registers are deleted, then the node, so that who is
 * interrupted in between leaves the rest to the next one.  It deletes several with each request, since a
 * request costs every server of the ensemble a write, but not so many that a proposal behind it would have to
 * wait.
 *
 * What has not been written down (whoever should have has crashed) is found by a walk through all
 * registers, which also deletes aborts.  One that is to be forgotten after that gets its value anew, which tells
 * since when.
 *
 * Times are those of ZooKeeper, whose clock a write at the start of both walks tells.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zookeeper.h"

/* names are written down when there are so many, or when that is so long ago */
#define FORGET_AT_ONCE	256
#define FORGET_AFTER	(1000 * NS_PER_MS)

#define FORGET_TRIES	4		/* to write them down, when what the node lies in is missing */

#define DELETE_AT_ONCE	32

/* Names to be written down, as the nodes have them, each with a newline */
struct ZkForgotten
{
	ZkForgotten *next;			/* on their way */
	int			n;
	int			tries;
	int			len;
	char		names[FORGET_AT_ONCE * ZK_KEYNAME_MAX];
};

/* A walk through what was written down, the oldest first */
struct ZkClear
{
	bool		begun;
	int64_t		before;			/* ms since 1970, at first ms before now */
	char	  **nodes;			/* their names, in one piece of memory */
	int			nnodes;
	int			node;			/* the one being looked at */
	char	   *names;			/* its data, or NULL */
	char	   *rest;			/* of it */
	int			n;				/* registers being deleted */
	char		paths[DELETE_AT_ONCE][ZK_PATH_MAX];
};

/* A walk through all registers, one bucket after the other */
struct ZkSweep
{
	bool		begun;
	char		value[RA_VALUE_MAX];	/* is deleted; "": none */
	char		left[RA_VALUE_MAX]; /* is told of; "": none */
	int64_t		before;			/* ms since 1970, at first ms before now; value, */
	int64_t		left_before;	/* left, */
	int64_t		forgotten_before;	/* and left that was forgotten since */
	unsigned	bucket;			/* being looked at; any is the first */
	unsigned	nbuckets;		/* looked at */
	int			calls;			/* on their way */
	struct Candidate *candidates;	/* of this bucket */
};

typedef struct Candidate
{
	struct Candidate *next;
	ZkSweep    *sweep;
	char		path[ZK_PATH_MAX];
} Candidate;

static void write_down(RaProvider *p, ZkForgotten *f);
static void clear_node(RaProvider *p, ZkClear *clear);
static void clear_some(RaProvider *p, ZkClear *clear);
static void free_clear(RaProvider *p);
static void sweep_bucket(RaProvider *p, ZkSweep *sweep);
static void free_sweep(RaProvider *p);

/* ---- writing down ---- */

static void
register_path(RaProvider *p, const char *keyname, char *path)
{
	snprintf(path, ZK_PATH_MAX, "/%s/decisions/%03x/%s", p->cluster, ra_zk_bucket(keyname), keyname);
}

void
ra_zk_forget(RaProvider *p, const char *name, int namelen)
{
	char		keyname[ZK_KEYNAME_MAX];
	ZkForgotten *f;

	if (p->forgotten != NULL && p->forgotten->n == FORGET_AT_ONCE)
		ra_zk_forget_now(p);
	if (p->forgotten == NULL)
		p->forgotten = calloc(1, sizeof(*f));
	f = p->forgotten;
	if (f == NULL || f->n == FORGET_AT_ONCE)
		return;					/* no memory, or no connection for a while */
	ra_zk_keyname(keyname, name, namelen);
	f->len += snprintf(f->names + f->len, sizeof(f->names) - (size_t) f->len, "%s\n", keyname);
	if (++f->n == FORGET_AT_ONCE || ra_zk_now() >= p->forgotten_at + FORGET_AFTER)
		ra_zk_forget_now(p);
}

/* Only the version that it was created with: another one has been forgotten already */
void
ra_zk_forget_left(RaProvider *p, const char *name, int namelen, const char *value)
{
	char		keyname[ZK_KEYNAME_MAX];
	char		path[ZK_PATH_MAX];

	/* nor much later, when the name may mean something else */
	if (!ra_zk_ready(p) || !ra_zk_alive(p))
		return;
	ra_zk_keyname(keyname, name, namelen);
	register_path(p, keyname, path);
	ra_zk_set(p, ra_zk_ignore, NULL, path, value, (int) strlen(value), 0);
}

void
ra_zk_forget_now(RaProvider *p)
{
	ZkForgotten *f = p->forgotten;

	if (f == NULL || !ra_zk_ready(p))
		return;
	p->forgotten = NULL;
	p->forgotten_at = ra_zk_now();
	f->next = p->forgetting;
	p->forgetting = f;
	write_down(p, f);
}

/*
 * For the next connection, unless there are too many then: what is written down twice does no harm.  What could
 * never be written is given up.
 */
static void
keep_forgotten(RaProvider *p, ZkForgotten *f)
{
	ZkForgotten *other = p->forgotten;

	if (f->tries++ >= FORGET_TRIES)
		free(f);
	else if (other == NULL)
		p->forgotten = f;
	else
	{
		if (other->n + f->n <= FORGET_AT_ONCE)
		{
			memcpy(other->names + other->len, f->names, (size_t) f->len);
			other->len += f->len;
			other->n += f->n;
		}
		free(f);
	}
}

static void
unlink_forgotten(RaProvider *p, ZkForgotten *f, bool keep)
{
	ZkForgotten **at = &p->forgetting;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	f->next = NULL;
	if (keep)
		keep_forgotten(p, f);
	else
		free(f);
}

/* What fails otherwise is found by the walk through all */
static void
written_down(RaProvider *p, ZkCall *call)
{
	ZkForgotten *f = call->subject;

	if (call->rc == ZNONODE && f->tries++ < FORGET_TRIES)
	{
		ra_zk_create_base(p);
		write_down(p, f);
		return;
	}
	if (call->rc != ZOK && ra_zk_answered(call->rc))
		ra_zk_complain(p, call->rc, "write down what is finished");
	unlink_forgotten(p, f, !ra_zk_answered(call->rc));
}

static void
write_down(RaProvider *p, ZkForgotten *f)
{
	char		path[ZK_PATH_MAX];

	snprintf(path, sizeof(path), "/%s/finished/", p->cluster);
	if (!ra_zk_create(p, written_down, f, path, f->names, f->len, ZOO_SEQUENCE, true))
		unlink_forgotten(p, f, true);
}

/* ---- clearing ---- */

static void
free_clear(RaProvider *p)
{
	if (p->clear != NULL)
	{
		free(p->clear->nodes);
		free(p->clear->names);
	}
	free(p->clear);
	p->clear = NULL;
}

static void
node_path(RaProvider *p, const ZkClear *clear, char *path)
{
	snprintf(path, ZK_PATH_MAX, "/%s/finished/%.64s", p->cluster, clear->nodes[clear->node]);
}

static void
node_got(RaProvider *p, ZkCall *call)
{
	ZkClear    *clear = call->subject;

	if (call->rc != ZOK && ra_zk_answered(call->rc))
	{
		/* another one clears, too, or it can't be read */
		clear->node++;
		clear_node(p, clear);
	}
	else if (call->rc != ZOK || call->stat.ctime >= clear->before)
		free_clear(p);
	else
	{
		clear->names = clear->rest = call->value;
		call->value = NULL;
		clear_some(p, clear);
	}
}

static void
clear_node(RaProvider *p, ZkClear *clear)
{
	char		path[ZK_PATH_MAX];

	if (clear->node < clear->nnodes)
	{
		node_path(p, clear, path);
		if (ra_zk_get(p, node_got, clear, path, NULL))
			return;
	}
	free_clear(p);
}

/* One that can't be deleted, mostly as it is gone already, keeps all from being: then each for itself */
static void
some_cleared(RaProvider *p, ZkCall *call)
{
	ZkClear    *clear = call->subject;

	if (!ra_zk_answered(call->rc))
	{
		free_clear(p);
		return;
	}
	for (int i = 0; call->rc != ZOK && i < clear->n; i++)
		ra_zk_delete(p, ra_zk_ignore, NULL, clear->paths[i], -1, true);
	clear_some(p, clear);
}

static void
clear_some(RaProvider *p, ZkClear *clear)
{
	char	   *paths[DELETE_AT_ONCE];
	char		path[ZK_PATH_MAX];
	char	   *name;

	clear->n = 0;
	while (clear->n < DELETE_AT_ONCE && (name = strsep(&clear->rest, "\n")) != NULL)
	{
		if (!ra_zk_keyname_valid(name))
			continue;			/* after the last one, or not of ours */
		register_path(p, name, clear->paths[clear->n]);
		paths[clear->n] = clear->paths[clear->n];
		clear->n++;
	}
	if (clear->n > 0)
	{
		if (!ra_zk_delete_all(p, some_cleared, clear, paths, clear->n))
			free_clear(p);
		return;
	}

	/* one client's requests are carried out in their order */
	node_path(p, clear, path);
	ra_zk_delete(p, ra_zk_ignore, NULL, path, -1, true);
	free(clear->names);
	clear->names = NULL;
	clear->node++;
	clear_node(p, clear);
}

/* Of a node's name; it wraps around */
static bool
sequence_of(const char *name, int32_t *sequence)
{
	char	   *end;
	long		number = strtol(name, &end, 10);

	*sequence = (int32_t) number;
	return end != name && *end == '\0';
}

static int
compare_nodes(const void *a, const void *b)
{
	int32_t		x;
	int32_t		y;
	int32_t		difference;

	sequence_of(*(char *const *) a, &x);
	sequence_of(*(char *const *) b, &y);
	difference = (int32_t) ((uint32_t) x - (uint32_t) y);
	return difference < 0 ? -1 : difference > 0;
}

static void
nodes_listed(RaProvider *p, ZkCall *call)
{
	ZkClear    *clear = call->subject;
	int32_t		sequence;

	clear->nodes = call->names;
	call->names = NULL;
	for (int i = 0; i < call->nnames; i++)
		if (sequence_of(clear->nodes[i], &sequence))
			clear->nodes[clear->nnodes++] = clear->nodes[i];
	if (clear->nnodes > 1)
		qsort(clear->nodes, (size_t) clear->nnodes, sizeof(*clear->nodes), compare_nodes);
	clear_node(p, clear);
}

static void
begin_clear(RaProvider *p, int64_t now)
{
	char		path[ZK_PATH_MAX];

	p->clear->begun = true;
	p->clear->before = now - p->clear->before;
	snprintf(path, sizeof(path), "/%s/finished", p->cluster);
	if (!ra_zk_children(p, nodes_listed, p->clear, path, NULL))
		free_clear(p);
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
	sweep->bucket = (sweep->bucket + 1) % ZK_BUCKETS;
	if (++sweep->nbuckets < ZK_BUCKETS)
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
	bool		gone = false;

	if (call->rc == ZOK && sweep->left[0] != '\0' && strcmp(call->value, sweep->left) == 0)
	{
		if (call->stat.version == 0 && call->stat.ctime < sweep->left_before)
			tell_left(p, strrchr(candidate->path, '/') + 1);
		gone = call->stat.version > 0 && call->stat.mtime < sweep->forgotten_before;
	}
	else if (call->rc == ZOK && sweep->value[0] != '\0' && strcmp(call->value, sweep->value) == 0)
		gone = call->stat.ctime < sweep->before;
	if (gone)
		ra_zk_delete(p, ra_zk_ignore, NULL, candidate->path, call->stat.version, false);
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

	ra_zk_decisions_path(p, sweep->bucket, path);
	sweep->calls = 1;
	if (!ra_zk_children(p, swept_bucket, sweep, path, NULL))
		free_sweep(p);
}

/* The write whose time is now */
static void
marked(RaProvider *p, ZkCall *call)
{
	int64_t		now = call->stat.mtime;

	if (p->sweep != NULL && !p->sweep->begun)
	{
		p->sweep->begun = true;
		p->sweep->before = now - p->sweep->before;
		p->sweep->left_before = now - p->sweep->left_before;
		p->sweep->forgotten_before = now - p->sweep->forgotten_before;
		if (call->rc == ZOK)
			sweep_bucket(p, p->sweep);
		else
			free_sweep(p);
	}
	if (p->clear != NULL && !p->clear->begun)
	{
		if (call->rc == ZOK)
			begin_clear(p, now);
		else
			free_clear(p);
	}
}

/* Of what is under way, nothing is begun */
void
ra_zk_sweep(RaProvider *p, const RaProviderSweep *wanted)
{
	char		path[ZK_PATH_MAX];

	if (!ra_zk_ready(p))
		return;
	if (p->sweep == NULL && (p->sweep = calloc(1, sizeof(*p->sweep))) != NULL)
	{
		snprintf(p->sweep->value, sizeof(p->sweep->value), "%s", wanted->value != NULL ? wanted->value : "");
		snprintf(p->sweep->left, sizeof(p->sweep->left), "%s", wanted->left != NULL ? wanted->left : "");
		/* who is told of what is left may not take all of it, but always the same */
		p->sweep->bucket = (unsigned) ra_zk_now() % ZK_BUCKETS;
		p->sweep->before = wanted->value_ms;
		p->sweep->left_before = wanted->left_ms;
		p->sweep->forgotten_before = wanted->forgotten_ms;
	}
	if (p->clear == NULL && (p->clear = calloc(1, sizeof(*p->clear))) != NULL)
		p->clear->before = wanted->forgotten_ms;
	snprintf(path, sizeof(path), "/%s/decisions", p->cluster);
	if (!ra_zk_set(p, marked, NULL, path, "", 0, -1))
	{
		if (p->sweep != NULL && !p->sweep->begun)
			free_sweep(p);
		if (p->clear != NULL && !p->clear->begun)
			free_clear(p);
	}
}

/* ---- time, sessions ---- */

void
ra_zk_forget_tick(RaProvider *p, int64_t now)
{
	if (p->forgotten != NULL && now >= p->forgotten_at + FORGET_AFTER)
		ra_zk_forget_now(p);
}

int64_t
ra_zk_forget_until(const RaProvider *p)
{
	return p->forgotten != NULL && ra_zk_ready(p) ? p->forgotten_at + FORGET_AFTER : INT64_MAX;
}

/* The session has ended: its calls are not answered any more */
void
ra_zk_forget_over(RaProvider *p)
{
	for (ZkForgotten *f; (f = p->forgetting) != NULL;)
	{
		p->forgetting = f->next;
		f->next = NULL;
		keep_forgotten(p, f);
	}
	free_clear(p);
	free_sweep(p);
}

void
ra_zk_forget_free(RaProvider *p)
{
	ra_zk_forget_over(p);
	free(p->forgotten);
	p->forgotten = NULL;
}
