/*
 * zookeeper_list.c
 *	  list(): all entries of all buckets, sorted into queues.
 *
 * The buckets are asked for at once, then the text of those keys that stand
 * there as hashes only.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zookeeper.h"

typedef struct Item
{
	char	   *name;
	unsigned	bucket;
	ZkEntry		entry;			/* pointers into name */
	char	   *key;			/* NULL: the name says it */
	int			keylen;
} Item;

struct ZkListing
{
	ZkListing  *next;
	void	   *owner;
	int			calls;			/* on their way */
	const char *error;			/* the first one */
	bool		keys_asked;
	Item	   *items;
	int			nitems;
	int			size;
	struct Part *parts;
};

/* What a call of it asks for */
typedef struct Part
{
	struct Part *next;			/* of the listing's, which frees them */
	ZkListing  *listing;
	unsigned	bucket;
	int			item;			/* whose key */
} Part;

static void part_ends(RaProvider *p, ZkListing *listing);

static void
free_listing(ZkListing *listing)
{
	for (int i = 0; i < listing->nitems; i++)
	{
		free(listing->items[i].name);
		free(listing->items[i].key);
	}
	free(listing->items);
	for (Part *part; (part = listing->parts) != NULL;)
	{
		listing->parts = part->next;
		free(part);
	}
	free(listing);
}

static Part *
add_part(ZkListing *listing, unsigned bucket, int item)
{
	Part	   *part = malloc(sizeof(*part));

	if (part == NULL)
		return NULL;
	part->listing = listing;
	part->bucket = bucket;
	part->item = item;
	part->next = listing->parts;
	listing->parts = part;
	return part;
}

static void
unlink_listing(RaProvider *p, ZkListing *listing)
{
	ZkListing **at = &p->listings;

	while (*at != listing)
		at = &(*at)->next;
	*at = listing->next;
}

static int
compare_items(const void *a, const void *b)
{
	const Item *x = a;
	const Item *y = b;
	int			len = x->entry.keyname_len < y->entry.keyname_len ? x->entry.keyname_len : y->entry.keyname_len;
	int			order = memcmp(x->entry.keyname, y->entry.keyname, (size_t) len);

	if (order == 0)
		order = x->entry.keyname_len - y->entry.keyname_len;
	if (order == 0)
	{
		int32_t		distance = (int32_t) ((uint32_t) x->entry.sequence - (uint32_t) y->entry.sequence);

		order = distance < 0 ? -1 : distance > 0;
	}
	return order;
}

static bool
same_key(const Item *a, const Item *b)
{
	return a->entry.keyname_len == b->entry.keyname_len &&
		memcmp(a->entry.keyname, b->entry.keyname, (size_t) a->entry.keyname_len) == 0;
}

static void
tell(RaProvider *p, ZkListing *listing)
{
	char		key[RA_KEY_MAX + 1];
	char		node[RA_NODE_MAX * 3 + 1];
	int			keylen = 0;
	const char *keytext = NULL;
	int			position = 0;
	bool		exclusive_before = false;

	for (int i = 0; i < listing->nitems && listing->error == NULL; i++)
	{
		Item	   *item = &listing->items[i];
		ZkEntry    *entry = &item->entry;
		RaProviderEntry out;

		if (i == 0 || !same_key(item, item - 1))
		{
			position = 0;
			exclusive_before = false;
			keytext = item->key;
			keylen = item->keylen;
			if (keytext == NULL)
			{
				keytext = key;
				keylen = ra_zk_unescape(key, sizeof(key), entry->keyname, entry->keyname_len);
				if (keylen < 0)
					keylen = snprintf(key, sizeof(key), "%.*s", entry->keyname_len, entry->keyname);
			}
		}
		if (ra_zk_unescape(node, sizeof(node), entry->node, entry->node_len) < 0)
			snprintf(node, sizeof(node), "%.*s", entry->node_len, entry->node);
		out.key = keytext;
		out.keylen = keylen;
		out.node = node;
		out.mode = entry->mode;
		out.granted = entry->mode == RA_PROVIDER_EXCLUSIVE ? position == 0 : !exclusive_before;
		out.position = position++;
		out.token = entry->session == p->session_id ? ra_zk_queue_token(p, entry->number) : 0;
		exclusive_before |= entry->mode == RA_PROVIDER_EXCLUSIVE;
		p->cb.listed(p->arg, listing->owner, &out, NULL);
	}
	p->cb.listed(p->arg, listing->owner, NULL, listing->error);
	free_listing(listing);
}

static void
fail(ZkListing *listing, int rc)
{
	if (listing->error == NULL)
		listing->error = zerror(rc);
}

static void
key_got(RaProvider *p, ZkCall *call)
{
	Part	   *part = call->subject;
	ZkListing  *listing = part->listing;

	if (call->rc == ZOK)
	{
		listing->items[part->item].key = call->value;
		listing->items[part->item].keylen = call->value_len;
		call->value = NULL;
	}
	else if (call->rc != ZNONODE)	/* gone meanwhile: show the hash */
		fail(listing, call->rc);
	part_ends(p, listing);
}

/* First entry of each queue whose key is a hash */
static void
ask_keys(RaProvider *p, ZkListing *listing)
{
	listing->keys_asked = true;
	for (int i = 0; i < listing->nitems; i++)
	{
		Item	   *item = &listing->items[i];
		char		path[ZK_PATH_MAX];
		Part	   *part;

		if (!ra_zk_keyname_is_hash(item->entry.keyname, item->entry.keyname_len) ||
			(i > 0 && same_key(item, item - 1)))
			continue;
		part = add_part(listing, item->bucket, i);
		snprintf(path, sizeof(path), "/%s/locks/%03x/%.600s", p->cluster, item->bucket, item->name);
		if (part != NULL && ra_zk_get(p, key_got, part, path, NULL))
			listing->calls++;
	}
}

static void
part_ends(RaProvider *p, ZkListing *listing)
{
	if (--listing->calls > 0)
		return;
	if (!listing->keys_asked && listing->error == NULL)
	{
		if (listing->nitems > 0)
			qsort(listing->items, (size_t) listing->nitems, sizeof(Item), compare_items);
		ask_keys(p, listing);
		if (listing->calls > 0)
			return;
	}
	unlink_listing(p, listing);
	tell(p, listing);
}

static void
add_item(ZkListing *listing, const char *name, unsigned bucket)
{
	ZkEntry		entry;
	Item	   *item;

	if (!ra_zk_parse_entry(name, &entry))
		return;
	if (listing->nitems == listing->size)
	{
		int			size = listing->size == 0 ? 64 : listing->size * 2;
		Item	   *more = realloc(listing->items, sizeof(*more) * (size_t) size);

		if (more == NULL)
		{
			fail(listing, ZSYSTEMERROR);
			return;
		}
		listing->items = more;
		listing->size = size;
	}
	item = memset(&listing->items[listing->nitems], 0, sizeof(*item));
	item->name = strdup(name);
	item->bucket = bucket;
	if (item->name == NULL)
	{
		fail(listing, ZSYSTEMERROR);
		return;
	}
	ra_zk_parse_entry(item->name, &item->entry);
	listing->nitems++;
}

static void
bucket_got(RaProvider *p, ZkCall *call)
{
	Part	   *part = call->subject;
	ZkListing  *listing = part->listing;

	if (call->rc == ZOK)
		for (int i = 0; i < call->nnames; i++)
			add_item(listing, call->names[i], part->bucket);
	else if (call->rc != ZNONODE)
		fail(listing, call->rc);
	part_ends(p, listing);
}

static void
buckets_got(RaProvider *p, ZkCall *call)
{
	ZkListing  *listing = call->subject;

	if (call->rc != ZOK && call->rc != ZNONODE)
		fail(listing, call->rc);
	for (int i = 0; i < call->nnames; i++)
	{
		char		path[ZK_PATH_MAX];
		char	   *end;
		unsigned	bucket = (unsigned) strtoul(call->names[i], &end, 16);
		Part	   *part;

		if (end != call->names[i] + 3 || *end != '\0' || bucket >= ZK_BUCKETS)
			continue;
		part = add_part(listing, bucket, -1);
		snprintf(path, sizeof(path), "/%s/locks/%03x", p->cluster, bucket);
		if (part != NULL && ra_zk_children(p, bucket_got, part, path, NULL))
			listing->calls++;
		else
			fail(listing, ZSYSTEMERROR);
	}
	part_ends(p, listing);
}

void
ra_zk_list(RaProvider *p, void *owner)
{
	ZkListing  *listing;
	char		path[ZK_PATH_MAX];

	if (!ra_zk_ready(p))
	{
		p->cb.listed(p->arg, owner, NULL, "not connected");
		return;
	}
	listing = calloc(1, sizeof(*listing));
	snprintf(path, sizeof(path), "/%s/locks", p->cluster);
	if (listing == NULL || !ra_zk_children(p, buckets_got, listing, path, NULL))
	{
		free(listing);
		p->cb.listed(p->arg, owner, NULL, "out of memory");
		return;
	}
	listing->owner = owner;
	listing->calls = 1;
	listing->next = p->listings;
	p->listings = listing;
}

/* The session has ended: answers won't come any more */
void
ra_zk_list_over(RaProvider *p, const char *error)
{
	ZkListing  *listing;

	while ((listing = p->listings) != NULL)
	{
		p->listings = listing->next;
		listing->error = error;
		tell(p, listing);
	}
}

void
ra_zk_list_free(RaProvider *p)
{
	ZkListing  *listing;

	while ((listing = p->listings) != NULL)
	{
		p->listings = listing->next;
		free_listing(listing);
	}
}
