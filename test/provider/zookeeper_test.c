/*
 * zookeeper_test.c
 *	  The ZooKeeper provider against a real server: locks, members, names.
 */
#include <dirent.h>

#include "zookeeper_harness.h"

/* ---- names ---- */

static void
names(void **state)
{
	char		text[ZK_KEYNAME_MAX];
	char		back[RA_KEY_MAX + 1];
	ZkEntry		entry;
	ZkPlace		place;
	char	   *list[] = {
		"k;x;n;00000000000000aa;1;2147483646",
		"k;s;n;00000000000000bb;2;2147483647",
		"k;s;n;00000000000000aa;3;-2147483648",
		"k;x;n;00000000000000cc;4;-2147483647",
		"k2;x;n;00000000000000cc;5;-000000001",
		"k", "k;x", "k;y;n;1;1;1", "k;x;n;1;1;", "k;x;n;z;1;0000000001", ";;;;;;", "other"
	};
	int			n = sizeof(list) / sizeof(*list);

	(void) state;
	assert_false(ra_zk_keyname(text, "a b", 3));
	assert_string_equal(text, "a%20b");
	assert_int_equal(ra_zk_unescape(back, sizeof(back), text, 5), 3);
	assert_string_equal(back, "a b");
	assert_int_equal(ra_zk_unescape(back, sizeof(back), "%2", 2), -1);
	assert_int_equal(ra_zk_unescape(back, sizeof(back), "%2g", 3), -1);
	memset(back, 'a', sizeof(back));
	assert_false(ra_zk_keyname(text, back, ZK_KEYNAME_MAX - 1));
	assert_true(ra_zk_keyname(text, back, 200));
	/* printf 'a%.0s' {1..200} | sha256sum */
	assert_string_equal(text, "%hc2a908d98f5df987ade41b5fce213067efbcc21ef2240212a41e54b5e7c28ae5");
	assert_true(ra_zk_keyname_is_hash(text, (int) strlen(text)));

	assert_true(ra_zk_parse_entry("a%3b;s;no;ffffffffffffffff;1f;-000000007", &entry));
	assert_int_equal(entry.keyname_len, 4);
	assert_int_equal(entry.mode, S);
	assert_int_equal(entry.node_len, 2);
	assert_true(entry.session == -1);
	assert_true(entry.number == 31);
	assert_int_equal(entry.sequence, -7);

	/* the sequence wraps around */
	ra_zk_place(list, n, "k", X, 0xcc, 4, &place);
	assert_string_equal(place.self, list[3]);
	assert_string_equal(place.blocker, list[2]);
	assert_int_equal(place.nblockers, 3);
	assert_int_equal(place.nothers, 3);
	ra_zk_place(list, n, "k", S, 0xaa, 3, &place);
	assert_string_equal(place.blocker, list[0]);
	assert_int_equal(place.nblockers, 1);
	ra_zk_place(list, n, "k", X, 0xaa, 1, &place);
	assert_null(place.blocker);
	assert_int_equal(place.nothers, 3);
	ra_zk_place(list, n, "k", X, 0xdd, 1, &place);
	assert_null(place.self);
	ra_zk_place(list, n, "k2", X, 0xcc, 5, &place);
	assert_int_equal(place.nothers, 0);
}

static void
bad_configuration(void **state)
{
	static const char *const hosts[] = {
		"", "host", "host:", "host:0", "host:65536", "host:1,", ":1", "host:1/chroot", "ho st:1", "[::1:1", "host:1x"
	};
	static const char *const clusters[] = {"", ".", "..", "a/b", "zookeeper", "ä", "a b"};
	RaProviderConfig config = {.hosts = "h:1", .cluster = "c", .node = "n", .session_timeout_ms = 1000};
	RaProviderCallbacks none = {0};
	char		error[256];

	(void) state;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++)
	{
		config.hosts = hosts[i];
		error[0] = '\0';
		assert_null(harness_ops->open(&config, &none, NULL, error, sizeof(error)));
		assert_true(error[0] != '\0');
	}
	config.hosts = "h:1,[::1]:2";
	for (size_t i = 0; i < sizeof(clusters) / sizeof(*clusters); i++)
	{
		config.cluster = clusters[i];
		error[0] = '\0';
		assert_null(harness_ops->open(&config, &none, NULL, error, sizeof(error)));
		assert_true(error[0] != '\0');
	}
}

/* ---- locks ---- */

static void
acquire_release(void **state)
{
	Node	   *a = node_open(NULL, "a", 5000);
	Lock	   *lock = lock_acquire(a, "key", X, false);	/* before there is a session */
	Lock	   *again;

	(void) state;
	UNTIL(lock->granted);
	assert_int_equal(a->sessions, 1);
	assert_true(lock->token > 0);
	assert_true(a->generation > 1700000000);
	assert_true(a->lease > harness_now());
	assert_int_equal(node_list(a), 1);
	assert_string_equal(a->entries[0].key, "key");
	assert_string_equal(a->entries[0].node, "a");
	assert_true(a->entries[0].granted);
	assert_true(a->entries[0].token == lock->token);
	lock_end(lock);
	assert_int_equal(node_list(a), 0);

	again = lock_take(a, "key", X);
	assert_true(again->token > lock->token);
	assert_int_equal(a->warnings, 0);
}

static void
first_come_first_served(void **state)
{
	Node	   *nodes[3] = {node_open(NULL, "a", 5000), node_open(NULL, "b", 5000), node_open(NULL, "c", 5000)};
	Lock	   *locks[9];

	(void) state;
	for (int i = 0; i < 9; i++)
	{
		Node	   *node = nodes[i * 2 % 3];
		int			before = i;

		locks[i] = lock_acquire(node, "fifo", X, false);
		UNTIL(node_list(node) > before);	/* it stands in the queue */
	}
	for (int i = 0; i < 9; i++)
	{
		UNTIL(locks[i]->granted);
		for (int j = i + 1; j < 9; j++)
			assert_int_equal(locks[j]->granted, 0);
		if (i > 0)
			assert_true(locks[i]->token > locks[i - 1]->token);
		assert_int_equal(locks[i]->waited, i > 0);
		lock_release(locks[i]);
	}
	UNTIL(locks[8]->released);
	assert_int_equal(node_list(nodes[0]), 0);
}

static void
shared_and_exclusive(void **state)
{
	static const RaProviderMode modes[] = {S, S, X, S, S, X};
	Node	   *nodes[2] = {node_open(NULL, "a", 5000), node_open(NULL, "b", 5000)};
	Lock	   *l[6];

	(void) state;
	for (int i = 0; i < 6; i++)
	{
		l[i] = lock_acquire(nodes[i % 2], "rw", modes[i], false);
		UNTIL(node_list(nodes[i % 2]) > i);
	}
	UNTIL(l[0]->granted && l[1]->granted);
	for (int i = 0; i < 6; i++)
	{
		assert_int_equal(nodes[1]->entries[i].granted, i < 2);
		assert_int_equal(nodes[1]->entries[i].mode, modes[i]);
		assert_int_equal(nodes[1]->entries[i].position, i);
	}
	lock_release(l[1]);			/* leaves the other reader */
	UNTIL(l[1]->released);
	node_list(nodes[0]);
	assert_int_equal(l[2]->granted, 0);
	lock_release(l[0]);
	UNTIL(l[2]->granted);
	assert_int_equal(l[3]->granted, 0);
	lock_release(l[2]);
	UNTIL(l[3]->granted && l[4]->granted);
	assert_int_equal(l[5]->granted, 0);
	lock_release(l[4]);
	lock_release(l[3]);
	UNTIL(l[5]->granted);
}

/* One that stops waiting is no release of what was before it */
static void
waiter_gives_up(void **state)
{
	Node	   *a = node_open(NULL, "a", 5000);
	Node	   *b = node_open(NULL, "b", 5000);
	Lock	   *first = lock_take(a, "k", X);
	Lock	   *second = lock_queue(b, "k", X, 2);
	Lock	   *third = lock_queue(a, "k", X, 3);

	(void) state;
	lock_end(second);
	pump_for(200);
	assert_int_equal(third->granted, 0);
	lock_release(first);
	UNTIL(third->granted);
	assert_int_equal(second->granted, 0);

	/* given up at once, before anything was answered */
	second = lock_acquire(b, "k", X, false);
	lock_end(second);
	lock_end(third);
	assert_int_equal(node_list(a), 0);
}

static void
no_waiting(void **state)
{
	Node	   *a = node_open(NULL, "a", 5000);
	Node	   *b = node_open(NULL, "b", 5000);
	Lock	   *held = lock_acquire(a, "k", S, true);
	Lock	   *other;

	(void) state;
	UNTIL(held->granted);
	other = lock_acquire(b, "k", X, true);
	UNTIL(other->refused);
	assert_int_equal(other->granted, 0);
	other = lock_acquire(b, "k", S, true);
	UNTIL(other->granted);
	lock_release(other);
	lock_release(held);
	UNTIL(other->released && held->released);
	other = lock_acquire(b, "k", X, true);
	UNTIL(other->granted);
	assert_int_equal(node_list(a), 1);
}

static void
look(void **state)
{
	Node	   *a = node_open(NULL, "a", 5000);
	Node	   *b = node_open(NULL, "b", 5000);
	Lock	   *held = lock_take(a, "k", X);
	Lock	   *waits;

	(void) state;
	a->ops->look(a->p, held->request);
	UNTIL(held->contended == 0);
	waits = lock_queue(b, "k", X, 2);
	a->ops->look(a->p, held->request);
	UNTIL(held->contended == 1);
	assert_int_equal(waits->granted, 0);
}

/* Keys are bytes, short and long; lists show them as they are */
static void
any_key(void **state)
{
	Node	   *a = node_open(NULL, "no/de;ä.", 5000);
	Lock	   *locks[6];
	char		bytes[256];
	char		longest[RA_KEY_MAX];
	char		other[RA_KEY_MAX];
	int			found = 0;

	(void) state;
	for (int i = 0; i < 256; i++)
		bytes[i] = (char) i;
	memset(longest, '/', sizeof(longest));
	memcpy(other, longest, sizeof(other));
	other[RA_KEY_MAX - 1] = '.';
	locks[0] = lock_acquire_bytes(a, bytes, 256, X, false);
	locks[1] = lock_acquire_bytes(a, longest, sizeof(longest), X, false);
	locks[2] = lock_acquire_bytes(a, other, sizeof(other), X, false);
	locks[3] = lock_acquire(a, "", X, false);
	locks[4] = lock_acquire(a, ".", X, false);
	locks[5] = lock_acquire(a, "a;b/%c\n", X, false);
	for (int i = 0; i < 6; i++)
		UNTIL(locks[i]->granted);
	assert_int_equal(node_list(a), 6);
	for (int i = 0; i < 6; i++)
	{
		Entry	   *e = &a->entries[i];

		found += e->keylen == 256 && memcmp(e->key, bytes, 256) == 0;
		found += e->keylen == RA_KEY_MAX && memcmp(e->key, longest, RA_KEY_MAX) == 0;
		found += e->keylen == RA_KEY_MAX && memcmp(e->key, other, RA_KEY_MAX) == 0;
		found += e->keylen == 0;
		found += strcmp(e->key, ".") == 0;
		found += strcmp(e->key, "a;b/%c\n") == 0;
		assert_string_equal(e->node, "no/de;ä.");
	}
	assert_int_equal(found, 6);
	assert_int_equal(a->warnings, 0);

	/* a long one excludes as well */
	locks[0] = lock_acquire_bytes(a, longest, sizeof(longest), X, false);
	UNTIL(node_list(a) == 7);
	assert_int_equal(locks[0]->granted, 0);
	lock_release(locks[1]);
	UNTIL(locks[0]->granted);
}

/* A release wakes one waiter, whatever their number */
static void
many_waiters(void **state)
{
	enum
	{
		N = 200
	};
	Node	   *nodes[4] = {
		node_open(NULL, "a", 8000), node_open(NULL, "b", 8000), node_open(NULL, "c", 8000), node_open(NULL, "d", 8000)
	};
	Lock	   *locks[N + 1];
	uint64_t	fired = 0;
	uint64_t	lists = 0;
	int			last = 0;

	(void) state;
	locks[N] = lock_take(nodes[0], "crowd", X);
	for (int i = 0; i < N; i++)
		locks[i] = lock_acquire(nodes[i % 4], "crowd", X, false);
	UNTIL(node_list(nodes[0]) == N + 1);
	pump_for(100);				/* watches are set, too */
	for (int i = 0; i < 4; i++)
	{
		fired -= nodes[i]->p->stats.fired;
		lists -= nodes[i]->p->stats.lists;
	}
	lock_release(locks[N]);
	for (int done = 0; done < N;)
	{
		int			granted = -1;

		pump(100);
		for (int i = 0; i < N; i++)
			if (locks[i]->granted && !locks[i]->released && locks[i]->contended == -1)
			{
				assert_int_equal(granted, -1);
				granted = i;
			}
		if (granted < 0)
			continue;
		assert_true(locks[granted]->order > last);
		last = locks[granted]->order;
		locks[granted]->contended = 0;	/* seen */
		lock_release(locks[granted]);
		done++;
	}
	for (int i = 0; i < N; i++)
		UNTIL(locks[i]->released);
	for (int i = 0; i < 4; i++)
	{
		fired += nodes[i]->p->stats.fired;
		lists += nodes[i]->p->stats.lists;
	}
	print_message("# %d waiters drained with %d wake-ups, %d lists\n", N, (int) fired, (int) lists);
	assert_true(fired <= N);
	assert_true(lists <= N);
	assert_int_equal(node_list(nodes[0]), 0);
}

static void
passwords(void **state)
{
	RaProviderConfig config = node_config("a", 4000);
	Node	   *a;
	Node	   *b;
	char		cluster[sizeof(harness_cluster) + 8];

	(void) state;
	config.user = "someone";
	config.password = "secret";
	a = node_open_config(&config);
	lock_take(a, "k", X);
	assert_int_equal(a->warnings, 0);

	config.node = "b";
	config.password = "secret, but wrong";
	b = node_open_config(&config);
	UNTIL(b->warnings == 1);
	assert_non_null(strstr(b->log, "refuses access"));
	assert_int_equal(b->sessions, 0);
	node_close(b);
	b = node_open(NULL, "c", 4000);
	UNTIL(b->warnings == 1);
	assert_non_null(strstr(b->log, "set these here"));
	node_close(b);

	/* an open cluster, and then a password */
	snprintf(cluster, sizeof(cluster), "%s.open", harness_cluster);
	config.cluster = cluster;
	config.user = NULL;
	b = node_open_config(&config);
	UNTIL(b->sessions == 1);
	node_close(b);
	config.user = "someone";
	b = node_open_config(&config);
	UNTIL(b->sessions == 1 && b->warnings == 1);
	assert_non_null(strstr(b->log, "open to everybody"));
}

/* Every node below path is its creator's alone; their number */
static int
closed_to_others(zhandle_t *zh, const char *path)
{
	struct String_vector names;
	struct ACL_vector acl;
	struct Stat stat;
	int			n = 1;

	assert_int_equal(zoo_get_acl(zh, path, &acl, &stat), ZOK);
	assert_int_equal(acl.count, 1);
	if (strcmp(acl.data[0].id.scheme, "digest") != 0 || strncmp(acl.data[0].id.id, "someone:", 8) != 0)
		fail_msg("%s: %s %s", path, acl.data[0].id.scheme, acl.data[0].id.id);
	deallocate_ACL_vector(&acl);
	assert_int_equal(zoo_get_children(zh, path, 0, &names), ZOK);
	for (int i = 0; i < names.count; i++)
	{
		char		child[ZK_PATH_MAX];

		snprintf(child, sizeof(child), "%s/%s", path, names.data[i]);
		n += closed_to_others(zh, child);
	}
	deallocate_String_vector(&names);
	return n;
}

/* With a password, all that is made in ZooKeeper is protected by it */
static void
all_is_protected(void **state)
{
	RaProviderConfig config = {
		.hosts = harness_hosts, .cluster = harness_cluster, .node = "a", .session_timeout_ms = 8000,
		.user = "someone", .password = "secret"
	};
	Node	   *a = node_open_config(&config);
	Lock	   *held = lock_acquire(a, "k", X, false);
	Lock	   *waits;
	Decision	decision = {0};
	zhandle_t  *zh;
	char		path[80];

	(void) state;
	UNTIL(held->granted);
	waits = lock_acquire(a, "k", X, false);
	a->ops->set_member(a->p, "x");
	assert_true(a->ops->decide(a->p, &decision, "gid", 3, "commit", harness_now() + INT64_C(60000000000)));
	UNTIL(strcmp(a->members, "*a=x ") == 0 && decision.answers == 1);
	UNTIL(node_list(a) == 2);

	zh = zookeeper_init(harness_hosts, NULL, 8000, NULL, NULL, 0);
	assert_non_null(zh);
	assert_int_equal(zoo_add_auth(zh, "digest", "someone:secret", 14, NULL, NULL), ZOK);
	snprintf(path, sizeof(path), "/%s", harness_cluster);
	/* the cluster, locks, bucket, two entries, members, member, decisions, bucket, decision, and the generation */
	assert_true(closed_to_others(zh, path) >= 11);
	zookeeper_close(zh);
	lock_release(waits);
	UNTIL(waits->released);
}

/* ---- members ---- */

static void
members(void **state)
{
	Node	   *a = node_open(NULL, "a", 2000);
	Node	   *b = node_open(NULL, "b", 2000);
	Node	   *twin;
	int			told;

	(void) state;
	UNTIL(a->members_told > 0);
	assert_string_equal(a->members, "");
	a->ops->set_member(a->p, "one");
	b->ops->set_member(b->p, "two");
	UNTIL(strcmp(a->members, "*a=one b=two ") == 0 && strcmp(b->members, "a=one *b=two ") == 0);

	/* the last of many is sent, not each */
	told = b->members_told;
	for (int i = 0; i < 100; i++)
	{
		char		data[16];

		snprintf(data, sizeof(data), "%d", i);
		a->ops->set_member(a->p, data);
		pump(1);
	}
	UNTIL(strcmp(b->members, "a=99 *b=two ") == 0);
	assert_true(b->members_told - told <= 4);

	/* a second process by that name is no member, and says why */
	twin = node_open(NULL, "a", 2000);
	twin->ops->set_member(twin->p, "three");
	UNTIL(twin->warnings == 1);
	assert_non_null(strstr(twin->log, "another process"));
	assert_string_equal(twin->members, "a=99 b=two ");
	node_close(a);
	UNTIL(strcmp(b->members, "a=three *b=two ") == 0);
	node_close(twin);
	UNTIL(strcmp(b->members, "*b=two ") == 0);
}

/* ---- endurance ---- */

static int
cycles(int most)
{
	const char *sanitizer = getenv("SANITIZER");
	/* endurance is about memory; races show sooner, and that sanitizer is slow */
	int			wish = sanitizer && strcmp(sanitizer, "thread") == 0 ? 5000 : 100000;

	return wish < most ? wish : most;
}

/* A different key each time; 100 of them at a time */
static void
nothing_is_left(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Lock	   *locks[100];
	int			n = cycles(10000);

	(void) state;
	for (int i = 0; i < n; i += 100)
	{
		for (int j = 0; j < 100; j++)
		{
			char		key[32];

			snprintf(key, sizeof(key), "key number %d", i + j);
			locks[j] = lock_acquire(a, key, X, false);
		}
		for (int j = 0; j < 100; j++)
			UNTIL(locks[j]->granted);
		for (int j = 0; j < 100; j++)
			lock_release(locks[j]);
		for (int j = 0; j < 100; j++)
			UNTIL(locks[j]->released);
		locks_free();
	}
	assert_int_equal(node_list(a), 0);
	assert_null(a->p->requests);
	assert_null(a->p->zombies);
	for (int i = 0; i < ZK_WATCH_HASH; i++)
		for (ZkWatch *watch = a->p->handle->watches[i]; watch != NULL; watch = watch->next)
			assert_int_not_equal(watch->kind, ZK_WATCH_ENTRY);
}

static long
memory_kb(void)
{
	FILE	   *file = fopen("/proc/self/statm", "r");
	long		size;
	long		resident;

	assert_int_equal(fscanf(file, "%ld %ld", &size, &resident), 2);
	fclose(file);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Two nodes that compete for ten keys */
static void
endurance(void **state)
{
	Node	   *nodes[2] = {node_open(NULL, "a", 8000), node_open(NULL, "b", 8000)};
	Lock	   *locks[64];
	int			n = cycles(100000);
	long		before = 0;
	long		after;

	(void) state;
	for (int i = 0; i < n; i += 64)
	{
		for (int j = 0; j < 64; j++)
		{
			char		key[32];

			snprintf(key, sizeof(key), "key %d", j % 32);
			locks[j] = lock_acquire(nodes[j / 32], key, X, false);
		}
		for (int left = 64; left > 0;)
		{
			left = 64;
			for (int j = 0; j < 64; j++)
			{
				if (locks[j]->granted && locks[j]->contended == -1)
				{
					locks[j]->contended = 0;
					lock_release(locks[j]);
				}
				left -= locks[j]->released;
			}
			if (left > 0)
				pump(100);
		}
		locks_free();
		if (i <= n / 10)
			before = memory_kb();
	}
	after = memory_kb();
	print_message("# %d locks; %ld kB of memory after a tenth of them, %ld kB at the end\n", n, before, after);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_true(after - before < 4096);
#endif
	assert_int_equal(node_list(nodes[0]), 0);
}

/* Threads of the library run no signal handler of ours */
static void
signals_blocked(void **state)
{
	Node	   *a = node_open(NULL, "a", 4000);
	DIR		   *dir;
	struct dirent *task;
	int			threads = 0;

	(void) state;
	UNTIL(a->sessions);
	dir = opendir("/proc/self/task");
	while ((task = readdir(dir)) != NULL)
	{
		char		path[300];
		char		line[256];
		FILE	   *file;
		char		name[64] = "";

		if (atoi(task->d_name) == 0 || atoi(task->d_name) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", task->d_name);
		file = fopen(path, "r");
		while (fgets(line, sizeof(line), file) != NULL)
		{
			unsigned long long blocked;

			sscanf(line, "Name: %63s", name);
			if (sscanf(line, "SigBlk: %llx", &blocked) != 1)
				continue;
			/* all but what can't be, and two of the C library's own */
			if (blocked == 0xfffffffe7ffbfeffULL)
				threads++;
			else
				print_message("# thread %s blocks %llx\n", name, blocked);
		}
		fclose(file);
	}
	closedir(dir);
#ifdef __SANITIZE_THREAD__
	assert_true(threads >= 2);	/* the sanitizer has threads of its own */
#else
	assert_int_equal(threads, 2);
#endif
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(names),
		TEST(bad_configuration),
		TEST(acquire_release),
		TEST(first_come_first_served),
		TEST(shared_and_exclusive),
		TEST(waiter_gives_up),
		TEST(no_waiting),
		TEST(look),
		TEST(any_key),
		TEST(many_waiters),
		TEST(passwords),
		TEST(all_is_protected),
		TEST(members),
		TEST(nothing_is_left),
		TEST(endurance),
		TEST(signals_blocked),
	};

	zookeeper_setup();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
