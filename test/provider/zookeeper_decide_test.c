/*
 * zookeeper_decide_test.c
 *	  Registers of the ZooKeeper provider against a real server.
 */
#include <poll.h>

#include "zookeeper_harness.h"

#define SECONDS			INT64_C(1000000000)

const char *__lsan_default_suppressions(void);

/* The library loses completions when a handle is closed (ZOOKEEPER-2894) */
const char *
__lsan_default_suppressions(void)
{
	return "leak:libzookeeper_mt\n";
}

static Node *
open_through(Proxy *proxy, const char *name)
{
	return node_open(proxy_hosts(proxy), name, 8000);
}

static void
decide(Node *node, Decision *decision, const char *name, const char *value)
{
	memset(decision, 0, sizeof(*decision));
	assert_true(node->ops->decide(node->p, decision, name, (int) strlen(name), value,
								  harness_now() + 60 * SECONDS));
}

static void
ended(RaProvider *p, ZkCall *call)
{
	(void) p;
	*(int *) call->subject = call->rc;
}

/* A register goes; not by the provider's ways */
static void
take_away(Node *node, const char *name)
{
	char		path[ZK_PATH_MAX];
	char		key[ZK_KEYNAME_MAX];
	int			rc = 1;

	ra_zk_keyname(key, name, (int) strlen(name));
	snprintf(path, sizeof(path), "/%s/decisions/%03x/%s", harness_cluster, ra_zk_bucket(key), key);
	assert_true(ra_zk_delete(node->p, ended, &rc, path, -1, false));
	UNTIL(rc <= 0);
	assert_int_equal(rc, ZOK);
}

/* With everything that is so many seconds old; less than none: all */
static void
sweep_older(Node *node, const char *value, const char *left, int seconds)
{
	RaProviderSweep sweep = {
		.forgotten_ms = seconds * 1000, .value = value, .value_ms = seconds * 1000, .left = left, .left_ms = seconds * 1000
	};

	UNTIL(ra_zk_ready(node->p));
	node->ops->sweep(node->p, &sweep);
	assert_non_null(node->p->sweep);
	assert_non_null(node->p->clear);
	UNTIL(node->p->sweep == NULL && node->p->clear == NULL);
}

/* What stands, as the node sees it; "" for nothing */
static const char *
look(Node *node, const char *name)
{
	static Decision decision;

	decide(node, &decision, name, NULL);
	UNTIL(decision.answers);
	assert_string_equal(decision.error, "");
	return decision.value;
}

static void
first_one_stands(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	first;
	Decision	second;

	(void) state;
	assert_string_equal(look(a, "tx"), "");
	decide(a, &first, "tx", "commit");
	UNTIL(first.answers);
	decide(b, &second, "tx", "abort");
	UNTIL(second.answers);
	assert_string_equal(first.value, "commit");
	assert_string_equal(second.value, "commit");
	assert_string_equal(look(b, "tx"), "commit");
	decide(a, &first, "tx", "commit");
	UNTIL(first.answers);
	assert_string_equal(first.value, "commit");

	/* forgotten: as if never there */
	take_away(a, "tx");
	assert_string_equal(look(b, "tx"), "");
	assert_int_equal(a->warnings + b->warnings, 0);
}

/* Whoever waits for a proposal to succeed is told before the main thread has done anything; others aren't */
static void
told_at_once(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	first;
	Decision	second;
	Decision	read;

	(void) state;
	UNTIL(a->sessions && b->sessions);
	decide(a, &first, "tx", "commit");
	a->quiet = true;
	UNTIL(first.told && a->woken);
	assert_int_equal(first.answers, 0);
	decide(b, &second, "tx", "abort");
	decide(b, &read, "tx", NULL);
	UNTIL(second.answers && read.answers);
	assert_string_equal(second.value, "commit");
	assert_int_equal(second.told + read.told, 0);

	/* the main thread comes by */
	a->quiet = false;
	UNTIL(first.answers);
	assert_string_equal(first.value, "commit");
	assert_string_equal(first.error, "");
	assert_int_equal(first.told, 1);
	assert_int_equal(first.told_late, 0);
	assert_int_equal(a->woken, 1);
	assert_int_equal(b->woken, 0);

	/* no sooner than there is a session */
	a = node_open(NULL, "c", 8000);
	decide(a, &first, "early", "abort");
	UNTIL(first.answers);
	assert_int_equal(first.told, 1);
	assert_int_equal(first.told_late, 0);
}

/*
 * The session ends before the main thread has seen the answer of what was told: it hears of the end
 * first, as it has not looked since the connection was lost.  What was told remains true.
 */
static void
told_and_session_expires(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 1000);
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	decision;
	Decision	other;
	zhandle_t  *zh;

	(void) state;
	a->ops->set_member(a->p, "");
	b->ops->set_member(b->p, "");
	UNTIL(strstr(b->members, "a="));
	zh = a->p->handle->zh;
	a->quiet = true;
	proxy_cut(proxy);
	UNTIL(zoo_state(zh) != ZOO_CONNECTED_STATE);
	UNTIL(zoo_state(zh) == ZOO_CONNECTED_STATE);
	decide(a, &decision, "tx", "commit");
	UNTIL(decision.told);
	proxy_hold(proxy, true);
	UNTIL(!strstr(b->members, "a="));
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(zoo_state(zh) == ZOO_EXPIRED_SESSION_STATE);

	/* forgotten by those who were told: must not be made anew */
	take_away(b, "tx");
	a->quiet = false;
	UNTIL(decision.answers);
	assert_string_equal(decision.value, "commit");
	UNTIL(a->sessions == 2);
	decide(a, &other, "other", "commit");
	UNTIL(other.answers);
	assert_string_equal(look(a, "tx"), "");
	assert_int_equal(decision.answers, 1);
	assert_int_equal(decision.told, 1);
	assert_int_equal(decision.told_late, 0);
}

static void
counted(RaProvider *p, ZkCall *call)
{
	(void) p;
	*(int *) call->subject = call->nnames;
}

/* All that registers lie in has been made */
static void
until_buckets(Node *node)
{
	char		path[ZK_PATH_MAX];
	int			n = 0;

	snprintf(path, sizeof(path), "/%s/decisions", harness_cluster);
	while (n < ZK_BUCKETS)
	{
		n = -1;
		assert_true(ra_zk_children(node->p, counted, &n, path, NULL));
		UNTIL(n >= 0);
	}
}

/* The first proposal has all buckets made; after that a proposal is one write, whoever makes it */
static void
buckets(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	first;
	char		name[32];
	uint64_t	creates;

	(void) state;
	for (int i = 0; i < 2; i++)
	{
		Node	   *node = i == 0 ? a : b;

		snprintf(name, sizeof(name), "first of %d", i);
		decide(node, &first, name, "commit");
		UNTIL(first.answers);
		until_buckets(node);
		creates = node->p->stats.creates;
		for (int j = 0; j < 200; j++)
		{
			snprintf(name, sizeof(name), "%d of %d", j, i);
			decide(node, &first, name, "commit");
			UNTIL(first.answers);
			assert_string_equal(first.value, "commit");
		}
		assert_int_equal(node->p->stats.creates - creates, 200);
	}
	assert_int_equal(a->warnings + b->warnings, 0);
}

/* Would a process that waits for the provider be woken?  It is not told to go on at once, for ever. */
static bool
readable(Node *node)
{
	bool		writable;
	int64_t		until;
	struct pollfd fd = {.fd = node->ops->wait_for(node->p, &writable, &until), .events = POLLIN};

	assert_true(until > harness_now() - 60 * SECONDS);
	return poll(&fd, 1, 0) > 0;
}

/* What is proposed while others are on their way goes together; some of it stands already, and what it lies in is gone */
static void
together(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());	/* no answer comes but in UNTIL() */
	Node	   *a = open_through(proxy, "a");
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	decisions[100];
	Decision	other;
	char		name[32];
	uint64_t	creates;
	int			told = 0;
	int			deleted = 1;

	(void) state;
	decide(a, &other, "first", "commit");
	UNTIL(other.answers);
	until_buckets(a);
	for (int turn = 0; turn < 3; turn++)
	{
		if (turn == 1)
		{
			snprintf(name, sizeof(name), "1, 50");
			decide(b, &other, name, "abort");
			UNTIL(other.answers);
		}
		UNTIL(!readable(a));
		creates = a->p->stats.creates;
		for (int i = 0; i < 100; i++)
		{
			snprintf(name, sizeof(name), "%d, %d", turn, i);
			decide(a, &decisions[i], name, i % 10 == 0 && i != 50 ? "abort" : "commit");
			if (turn == 2 && i == 60)
			{
				char		path[ZK_PATH_MAX];
				char		key[ZK_KEYNAME_MAX];

				/* empty as yet, as the last one has not been sent */
				ra_zk_keyname(key, name, (int) strlen(name));
				snprintf(path, sizeof(path), "/%s/decisions/%03x", harness_cluster, ra_zk_bucket(key));
				assert_true(ra_zk_delete(a->p, ended, &deleted, path, -1, false));
			}
		}

		/* who waits hears of the end of one before them, though the main thread hasn't asked */
		a->quiet = true;
		UNTIL(readable(a));
		a->quiet = false;
		for (int i = 0; i < 100; i++)
		{
			UNTIL(decisions[i].answers);
			assert_string_equal(decisions[i].error, "");
			assert_string_equal(decisions[i].value,
								(turn == 1 && i == 50) || (i % 10 == 0 && i != 50) ? "abort" : "commit");
			assert_int_equal(decisions[i].answers, 1);
			assert_int_equal(decisions[i].told_late, 0);
			told += decisions[i].told;
		}
		/* two alone, and the rest together; or these each alone after all */
		assert_in_range(a->p->stats.creates - creates, 3, turn == 0 ? 3 : 110);
	}
	assert_int_equal(told, 299);
	assert_int_equal(deleted, ZOK);
	assert_string_equal(look(b, "2, 60"), "abort");
	assert_string_equal(look(b, "2, 99"), "commit");
	assert_int_equal(a->p->proposing, 0);
	assert_null(a->p->proposals);
	assert_int_equal(a->warnings + b->warnings, 0);
}

/* They end, too, if the connection is lost, or the session; each once */
static void
together_lost(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 1000);
	Node	   *b = node_open(NULL, "b", 8000);
	static Decision decisions[2][100];
	Decision	other;
	char		name[32];
	uint64_t	creates;

	(void) state;
	decide(a, &other, "first", "commit");
	UNTIL(other.answers);
	until_buckets(a);
	for (int turn = 0; turn < 2; turn++)
	{
		creates = a->p->stats.creates;
		proxy_hold(proxy, turn == 1);
		for (int i = 0; i < 100; i++)
		{
			snprintf(name, sizeof(name), "%d, %d", turn, i);
			decide(a, &decisions[turn][i], name, "commit");
		}
		/* the third request has all but two of them */
		if (turn == 0)
			UNTIL(a->p->stats.creates == creates + 3);
		proxy_swallow(proxy, turn == 0);
		if (turn == 0)
			UNTIL(strcmp(look(b, "0, 99"), "commit") == 0 && strcmp(look(b, "0, 2"), "commit") == 0);
		else
			UNTIL(a->sessions_lost == 1);
		proxy_cut(proxy);
		proxy_swallow(proxy, false);
		proxy_hold(proxy, false);
		for (int i = 0; i < 100; i++)
		{
			UNTIL(decisions[turn][i].answers);
			assert_string_equal(decisions[turn][i].error, "");
			assert_string_equal(decisions[turn][i].value, "commit");
		}
	}
	assert_int_equal(a->p->proposing, 0);
	decide(a, &other, "last", "commit");
	UNTIL(other.answers);
	for (int i = 0; i < 200; i++)
	{
		assert_int_equal(decisions[i / 100][i % 100].answers, 1);
		assert_int_equal(decisions[i / 100][i % 100].told_late, 0);
	}
}

/* How many nodes names were written down in */
static int
written_down(Node *node)
{
	char		path[ZK_PATH_MAX];
	int			n = -1;

	snprintf(path, sizeof(path), "/%s/finished", harness_cluster);
	assert_true(ra_zk_children(node->p, counted, &n, path, NULL));
	UNTIL(n >= 0);
	return n;
}

/* Much that is forgotten takes few requests; it goes in its time, with few again, also if some of it is gone already */
static void
forget_many(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	decisions[70];
	char		name[32];

	(void) state;
	for (int gone = 0; gone < 2; gone++)
	{
		uint64_t	creates;
		uint64_t	deletes;

		for (int i = 0; i < 70; i++)
		{
			snprintf(name, sizeof(name), "many %d", i);
			decide(a, &decisions[i], name, "commit");
		}
		for (int i = 0; i < 70; i++)
			UNTIL(decisions[i].answers);
		until_buckets(a);
		creates = a->p->stats.creates;
		for (int i = 0; i < 70; i++)
		{
			snprintf(name, sizeof(name), "many %d", i);
			a->ops->forget(a->p, name, (int) strlen(name));
		}
		UNTIL(a->p->forgotten == NULL && a->p->forgetting == NULL);
		assert_in_range(a->p->stats.creates - creates, 1, 3);
		assert_int_equal(written_down(b), a->p->stats.creates - creates);
		if (gone)
		{
			take_away(b, "many 20");
		}
		sweep_older(b, NULL, NULL, 3600);
		assert_string_equal(look(a, "many 0"), "commit");
		assert_string_equal(look(a, "many 69"), "commit");

		deletes = b->p->stats.deletes;
		sweep_older(b, NULL, NULL, -3600);
		for (int i = 0; i < 70; i++)
		{
			snprintf(name, sizeof(name), "many %d", i);
			assert_string_equal(look(a, name), "");
		}
		assert_int_equal(written_down(a), 0);
		/* with each other, and the nodes they were written down in; one by one, where one of them was gone */
		assert_in_range(b->p->stats.deletes - deletes, 1, 8 + (gone ? 32 : 0));
	}
	assert_int_equal(a->warnings + b->warnings, 0);
}

/* What can't be written down now, or may not have been, is written down with the next connection, or session */
static void
forget_without_connection(void **state)
{
	static const char *const names[] = {"before", "swallowed", "expired"};
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a;
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	decision;
	int			n = 0;

	(void) state;
	proxy_refuse(proxy, true);
	a = node_open(proxy_hosts(proxy), "a", 1000);
	UNTIL(b->sessions);
	for (int i = 0; i < 3; i++)
	{
		decide(b, &decision, names[i], "commit");
		UNTIL(decision.answers);
		if (i == 0)
			assert_int_equal(a->sessions, 0);
		else
		{
			UNTIL(ra_zk_ready(a->p));
			proxy_swallow(proxy, i == 1);
			proxy_hold(proxy, i == 2);
		}
		a->ops->forget(a->p, names[i], (int) strlen(names[i]));
		ra_zk_forget_now(a->p);
		if (i == 0)
		{
			assert_non_null(a->p->forgotten);
			proxy_refuse(proxy, false);
		}
		else
		{
			assert_non_null(a->p->forgetting);
			if (i == 1)
				UNTIL(proxy_swallowed(proxy) > 0 && written_down(b) > n);
			else
				UNTIL(a->sessions_lost == 1);
			proxy_cut(proxy);
			proxy_swallow(proxy, false);
			proxy_hold(proxy, false);
		}
		/* twice at least, if it had been, but for the answer */
		n += i == 1 ? 2 : 1;
		UNTIL(a->p->forgotten == NULL && a->p->forgetting == NULL);
		assert_true(written_down(b) >= n);
		n = written_down(b);
	}
	sweep_older(b, NULL, NULL, -3600);
	assert_int_equal(written_down(b), 0);
	for (int i = 0; i < 3; i++)
		assert_string_equal(look(b, names[i]), "");

	/* not without limit: in one node */
	proxy_refuse(proxy, true);
	proxy_cut(proxy);
	UNTIL(!a->connected);
	for (int i = 0; i < 1000; i++)
		a->ops->forget(a->p, "many", 4);
	proxy_refuse(proxy, false);
	UNTIL(written_down(b) == 1);
}

/* What names are written down in is missing; what is written down there is not of ours */
static void
forget_amid_strangers(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Decision	decision;
	char		path[ZK_PATH_MAX];
	const char *strange = "\n../../generation\n\n..\n.\na\tb\n\303\244\nno%20such%20name\n/\nno end";

	(void) state;
	decide(a, &decision, "tx", "commit");
	UNTIL(decision.answers);
	snprintf(path, sizeof(path), "/%s/finished", harness_cluster);
	assert_true(ra_zk_delete(a->p, ra_zk_ignore, NULL, path, -1, false));
	a->ops->forget(a->p, "tx", 2);
	UNTIL(a->p->forgotten == NULL && a->p->forgetting == NULL);
	assert_int_equal(written_down(a), 1);

	snprintf(path, sizeof(path), "/%s/finished/", harness_cluster);
	assert_true(ra_zk_create(a->p, ra_zk_ignore, NULL, path, strange, (int) strlen(strange), ZOO_SEQUENCE, false));
	assert_true(ra_zk_create(a->p, ra_zk_ignore, NULL, path, "", 0, ZOO_SEQUENCE, false));
	snprintf(path, sizeof(path), "/%s/finished/0 of others", harness_cluster);
	assert_true(ra_zk_create(a->p, ra_zk_ignore, NULL, path, "tx\n", 3, 0, false));
	assert_int_equal(written_down(a), 4);
	sweep_older(a, NULL, NULL, -3600);
	assert_int_equal(written_down(a), 1);
	assert_string_equal(look(a, "tx"), "");
	sweep_older(a, NULL, NULL, -3600);		/* nothing to do */
	assert_int_equal(a->warnings, 0);
}

/* What is to be forgotten when the provider is closed is written down; and others clear it, one or several */
static void
forget_at_close(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Node	   *c = node_open(NULL, "c", 8000);
	RaProviderSweep all = {.forgotten_ms = -3600000};
	Decision	decisions[2];

	(void) state;
	UNTIL(b->sessions && c->sessions);
	decide(a, &decisions[0], "close 0", "commit");
	decide(a, &decisions[1], "close 1", "commit");
	UNTIL(decisions[0].answers && decisions[1].answers);
	a->ops->forget(a->p, "close 0", 7);
	a->ops->forget(a->p, "close 1", 7);
	node_close(a);
	UNTIL(written_down(b) == 2);
	c->ops->sweep(c->p, &all);
	sweep_older(b, NULL, NULL, -3600);
	UNTIL(c->p->clear == NULL);
	assert_string_equal(look(b, "close 0"), "");
	assert_string_equal(look(b, "close 1"), "");
	assert_int_equal(written_down(b), 0);
	c->ops->sweep(c->p, &all);	/* closed while it is under way */
}

/* Before there is a session, and names of any length and kind */
static void
any_name(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	char		names[4][256];
	Decision	decisions[4];

	(void) state;
	memset(names, 0, sizeof(names));
	memset(names[0], 'x', 200);
	memset(names[1], 'x', 199);
	strcpy(names[2], "ra:c/l;u%ster:..");
	for (int i = 0; i < 4; i++)	/* the last one is empty */
		decide(a, &decisions[i], names[i], i == 1 ? "abort" : "commit");
	for (int i = 0; i < 4; i++)
	{
		UNTIL(decisions[i].answers);
		assert_string_equal(decisions[i].error, "");
		assert_string_equal(look(a, names[i]), i == 1 ? "abort" : "commit");
	}
}

static void
many_at_once(void **state)
{
	enum
	{
		NODES = 4, NAMES = 50
	};
	static Decision decisions[NODES][NAMES];
	Node	   *nodes[NODES];
	char		name[16];
	int			commits = 0;

	(void) state;
	for (int i = 0; i < NODES; i++)
	{
		snprintf(name, sizeof(name), "n%d", i);
		nodes[i] = node_open(NULL, name, 8000);
	}
	for (int j = 0; j < NAMES; j++)
		for (int i = 0; i < NODES; i++)
		{
			snprintf(name, sizeof(name), "t%d", j);
			decide(nodes[(i + j) % NODES], &decisions[(i + j) % NODES][j], name,
				   (i + j) % NODES == 0 ? "commit" : "abort");
		}
	for (int j = 0; j < NAMES; j++)
	{
		for (int i = 0; i < NODES; i++)
			UNTIL(decisions[i][j].answers);
		for (int i = 1; i < NODES; i++)
			assert_string_equal(decisions[i][j].value, decisions[0][j].value);
		commits += strcmp(decisions[0][j].value, "commit") == 0;
	}
	print_message("# %d of %d committed\n", commits, NAMES);
}

/* The answer to the create is lost: it is repeated, and finds itself, or who was faster */
static void
answer_lost(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = open_through(proxy, "a");
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	mine;
	Decision	other;

	(void) state;
	UNTIL(a->sessions && b->sessions);
	decide(a, &mine, "tx", "abort");	/* makes what it lies in */
	UNTIL(mine.answers);
	take_away(a, "tx");

	proxy_swallow(proxy, true);
	decide(a, &mine, "tx", "commit");
	UNTIL(proxy_swallowed(proxy) > 0 && strcmp(look(b, "tx"), "commit") == 0);
	decide(b, &other, "tx", "abort");
	UNTIL(other.answers);
	assert_string_equal(other.value, "commit");
	assert_int_equal(mine.answers, 0);
	proxy_cut(proxy);
	proxy_swallow(proxy, false);
	UNTIL(mine.answers);
	assert_string_equal(mine.value, "commit");
	assert_string_equal(mine.error, "");

	/* the create itself is lost, and somebody else comes first */
	proxy_hold(proxy, true);
	decide(a, &mine, "tx2", "commit");
	pump_for(50);
	proxy_cut(proxy);
	decide(b, &other, "tx2", "abort");
	UNTIL(other.answers);
	assert_string_equal(other.value, "abort");
	proxy_hold(proxy, false);
	UNTIL(mine.answers);
	assert_string_equal(mine.value, "abort");
	pump_for(100);
	assert_int_equal(mine.answers, 1);
	assert_int_equal(other.answers, 1);
	assert_int_equal(mine.told, 0);
}

/* What has no answer in time ends, and is not sent any more */
static void
deadline(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = open_through(proxy, "a");
	Decision	sent;
	Decision	waits;

	(void) state;
	UNTIL(a->sessions);
	proxy_hold(proxy, true);
	memset(&sent, 0, sizeof(sent));
	assert_true(a->ops->decide(a->p, &sent, "sent", 4, "commit", harness_now() + SECONDS / 2));
	UNTIL(sent.answers);
	assert_string_equal(sent.error, "no answer in time");
	proxy_refuse(proxy, true);
	proxy_cut(proxy);
	UNTIL(!a->connected);
	memset(&waits, 0, sizeof(waits));
	assert_true(a->ops->decide(a->p, &waits, "waits", 5, "commit", harness_now() + SECONDS / 2));
	UNTIL(waits.answers);
	assert_string_equal(waits.error, "not connected");
	proxy_refuse(proxy, false);
	proxy_hold(proxy, false);
	assert_string_equal(look(a, "waits"), "");
	assert_int_equal(sent.answers, 1);
	assert_int_equal(waits.answers, 1);
}

/* Who has been told that there is no answer is not told of success later */
static void
not_told_after_deadline(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = open_through(proxy, "a");
	Decision	decision;

	(void) state;
	decide(a, &decision, "before", "commit");
	UNTIL(decision.answers);
	proxy_hold(proxy, true);
	memset(&decision, 0, sizeof(decision));
	assert_true(a->ops->decide(a->p, &decision, "tx", 2, "commit", harness_now() + SECONDS / 4));
	UNTIL(decision.answers);
	assert_string_equal(decision.error, "no answer in time");
	proxy_hold(proxy, false);
	assert_string_equal(look(a, "tx"), "commit");
	assert_int_equal(decision.told, 0);
	assert_int_equal(decision.answers, 1);
}

/* Nor is anybody once the session is over, whatever the service still says */
static void
not_told_by_dead_handle(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = open_through(proxy, "a");
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	decision;

	(void) state;
	decide(a, &decision, "before", "commit");
	UNTIL(decision.answers);
	UNTIL(a->p->handle->nquiet == 0);
	decide(a, &decision, "tx", "commit");
	ra_zk_handle_dead(a->p->handle);
	UNTIL(a->p->handle->nquiet == 0);	/* its call has ended */
	assert_string_equal(look(b, "tx"), "commit");
	assert_int_equal(decision.told, 0);
	assert_int_equal(decision.answers, 0);
	a->p->handle->dead = false;		/* as if never; the call is lost */
}

/* The session ends: requests go on with the next one */
static void
session_expires(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a;
	Decision	decision;
	char		hosts[32];

	(void) state;
	snprintf(hosts, sizeof(hosts), "127.0.0.1:%d", proxy_port(proxy));
	a = node_open(hosts, "a", 1000);
	UNTIL(a->sessions == 1);
	proxy_hold(proxy, true);
	decide(a, &decision, "tx", "commit");
	UNTIL(a->sessions_lost == 1);
	assert_int_equal(decision.answers, 0);
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(decision.answers);
	assert_string_equal(decision.value, "commit");
	assert_int_equal(a->sessions, 2);
}

static void
server_crashes(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Decision	before;
	Decision	between;

	(void) state;
	decide(a, &before, "before", "commit");
	UNTIL(before.answers);
	server("kill");
	decide(a, &between, "between", "abort");
	server("start");
	UNTIL(between.answers);
	assert_string_equal(between.value, "abort");
	assert_string_equal(look(a, "before"), "commit");
}

/* Aborts go in their time; commits are told of, until they have been forgotten, and go then */
static void
sweep(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	RaProviderSweep all = {.forgotten_ms = -3600000};
	Decision	decisions[3];

	(void) state;
	decide(a, &decisions[0], "old commit", "commit");
	decide(a, &decisions[1], "old abort", "abort");
	UNTIL(decisions[0].answers && decisions[1].answers);
	sweep_older(a, "abort", "commit", 3600);
	assert_string_equal(look(a, "old abort"), "abort");
	assert_string_equal(a->left, "");
	sweep_older(a, NULL, "abort", -3600);
	assert_string_equal(look(a, "old abort"), "abort");
	assert_string_equal(a->left, "old abort ");
	a->left[0] = '\0';

	/* each has an age of its own */
	all.value = "abort";
	all.value_ms = -3600000;
	all.left = "commit";
	all.left_ms = 3600000;
	a->ops->sweep(a->p, &all);
	UNTIL(a->p->sweep == NULL);
	assert_string_equal(look(a, "old abort"), "");
	assert_string_equal(a->left, "");
	decide(a, &decisions[1], "old abort", "abort");
	UNTIL(decisions[1].answers);
	all.value_ms = 3600000;
	all.left_ms = -3600000;
	a->ops->sweep(a->p, &all);
	UNTIL(a->p->sweep == NULL);
	assert_string_equal(look(a, "old abort"), "abort");
	assert_string_equal(a->left, "old commit ");
	a->left[0] = '\0';
	sweep_older(a, "abort", NULL, -3600);
	assert_string_equal(a->left, "");
	decide(a, &decisions[1], "old abort", "abort");
	UNTIL(decisions[1].answers);
	sweep_older(a, "abort", "commit", -3600);
	assert_string_equal(look(a, "old abort"), "");
	assert_string_equal(look(a, "old commit"), "commit");
	assert_string_equal(a->left, "old commit ");

	/* forgotten: told of no more, and kept for its time from now on */
	a->left[0] = '\0';
	a->ops->forget_left(a->p, "old commit", 10, "commit");
	all.forgotten_ms = 3600000;
	a->ops->sweep(a->p, &all);
	UNTIL(a->p->sweep == NULL);
	assert_string_equal(look(a, "old commit"), "commit");
	assert_string_equal(a->left, "");
	sweep_older(a, NULL, "commit", -3600);
	assert_string_equal(look(a, "old commit"), "");
	assert_string_equal(a->left, "");
	a->ops->sweep(a->p, &all);	/* closed while it is under way */
	decide(a, &decisions[2], "last", "abort");
}

/* Requests for several, when the session has expired as far as the library knows, but the main thread doesn't */
static void
together_too_late(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 1000);
	Node	   *b = node_open(NULL, "b", 8000);
	Decision	decisions[5];
	char		name[32];
	zhandle_t  *zh;

	(void) state;
	a->ops->set_member(a->p, "");
	b->ops->set_member(b->p, "");
	decide(a, &decisions[0], "first", "commit");
	UNTIL(decisions[0].answers && strstr(b->members, "a="));
	zh = a->p->handle->zh;
	a->quiet = true;
	proxy_hold(proxy, true);
	for (int i = 0; i < 4; i++)
	{
		snprintf(name, sizeof(name), "late %d", i);
		decide(a, &decisions[i], name, "commit");
	}
	UNTIL(!strstr(b->members, "a="));
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(zoo_state(zh) == ZOO_EXPIRED_SESSION_STATE);
	decide(a, &decisions[4], "late 4", "commit");
	assert_true(a->p->connected);
	a->quiet = false;
	for (int i = 0; i < 5; i++)
	{
		UNTIL(decisions[i].answers);
		assert_string_equal(decisions[i].error, "");
		assert_string_equal(decisions[i].value, "commit");
	}
	assert_int_equal(a->sessions, 2);
	assert_int_equal(a->p->proposing, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(first_one_stands),
		TEST(told_at_once),
		TEST(told_and_session_expires),
		TEST(buckets),
		TEST(together),
		TEST(together_lost),
		TEST(together_too_late),
		TEST(forget_many),
		TEST(forget_without_connection),
		TEST(forget_amid_strangers),
		TEST(forget_at_close),
		TEST(any_name),
		TEST(many_at_once),
		TEST(answer_lost),
		TEST(deadline),
		TEST(not_told_after_deadline),
		TEST(not_told_by_dead_handle),
		TEST(session_expires),
		TEST(server_crashes),
		TEST(sweep),
	};

	zookeeper_setup();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
