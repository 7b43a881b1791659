/*
 * zookeeper_fault_test.c
 *	  The ZooKeeper provider against a real server: what becomes of locks and
 *	  members when connections, sessions, processes and servers fail.
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "zookeeper_harness.h"

/* ---- unknown outcomes ---- */

/* The answer to a create is lost: one entry, not none, not two */
static void
create_unknown(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Lock	   *warm = lock_acquire(a, "k", X, false);

	(void) state;
	UNTIL(warm->granted && b->sessions);
	lock_end(warm);
	for (int round = 0; round < 4; round++)
	{
		Lock	   *lock;
		Lock	   *waits = NULL;
		uint64_t	token;

		proxy_swallow(proxy, true);
		lock = lock_acquire(a, "k", X, false);
		UNTIL(proxy_swallowed(proxy) > 0 && node_list(b) == 1);
		if (round == 1)
			lock_release(lock); /* gives up while it does not know */
		if (round == 2)
		{
			waits = lock_queue(b, "k", X, 2);
		}
		proxy_cut(proxy);
		proxy_swallow(proxy, false);
		if (round != 1)
		{
			UNTIL(lock->granted);
			token = lock->token;
			assert_int_equal(node_list(b), round == 2 ? 2 : 1);
			assert_true(token > warm->token);
			lock_release(lock);
		}
		UNTIL(lock->released);
		if (waits != NULL)
		{
			UNTIL(waits->granted);
			assert_true(waits->token > lock->token);
			lock_end(waits);
		}
		assert_int_equal(node_list(b), 0);
	}
	assert_int_equal(a->sessions, 1);
	assert_int_equal(a->connects, 5);

	/* the request itself is lost: it must be made again */
	proxy_hold(proxy, true);
	warm = lock_acquire(a, "k", X, false);
	pump_for(50);
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(warm->granted);
	assert_int_equal(node_list(b), 1);
	assert_int_equal(a->sessions, 1);
}

static char forged_path[ZK_PATH_MAX];

static void
forged(RaProvider *p, ZkCall *call)
{
	(void) p;
	assert_int_equal(call->rc, ZOK);
	snprintf(forged_path, sizeof(forged_path), "%s", call->value);
}

static int	changes;			/* of the bucket's entries, so far */

static void
bucket_seen(RaProvider *p, ZkCall *call)
{
	(void) p;
	assert_int_equal(call->rc, ZOK);
	changes = call->stat.cversion;
}

/*
 * An entry found under a request's name is not its own unless its session has made it.
 * It tries again, but not without pause.
 */
static void
adopts_only_its_own(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Lock	   *lock = lock_acquire(a, "k", X, false);
	char		path[ZK_PATH_MAX];
	int			before;

	(void) state;
	UNTIL(lock->granted && b->sessions);
	lock_end(lock);

	/* the create does not arrive, and somebody else makes one that looks like it */
	proxy_hold(proxy, true);
	lock = lock_acquire(a, "k", X, false);
	snprintf(path, sizeof(path), "/%s/locks/%03x/k;x;a;%016" PRIx64 ";%" PRIx64 ";", harness_cluster,
			 ra_zk_bucket("k"), (uint64_t) a->p->session_id, a->p->last_number);
	assert_true(ra_zk_create(b->p, forged, NULL, path, "", 0, ZOO_EPHEMERAL_SEQUENTIAL, false));
	UNTIL(forged_path[0] != '\0');
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(a->connects == 2);
	UNTIL(a->warnings == 1);
	assert_non_null(strstr(a->log, "another session made"));
	snprintf(path, sizeof(path), "/%s/locks/%03x", harness_cluster, ra_zk_bucket("k"));
	for (int i = 0; i < 2; i++)
	{
		before = changes;
		changes = -1;
		assert_true(ra_zk_exists(b->p, bucket_seen, NULL, path));
		UNTIL(changes >= 0);
		if (i == 0)
			pump_for(1200);
	}
	assert_in_range(changes - before, 1, 8);	/* two attempts, or three */
	assert_int_equal(lock->granted, 0);
	assert_int_equal(a->sessions, 1);
	assert_int_equal(a->warnings, 1);

	assert_true(ra_zk_delete(b->p, ra_zk_ignore, NULL, forged_path, -1, false));
	UNTIL(lock->granted);
	assert_int_equal(node_list(b), 1);
	lock_end(lock);
	assert_int_equal(node_list(b), 0);
}

static void
delete_unknown(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);

	(void) state;
	for (int round = 0; round < 2; round++)
	{
		Lock	   *lock = lock_take(a, "k", X);
		Lock	   *waits = lock_queue(b, "k", X, 2);

		if (round == 0)
			proxy_swallow(proxy, true);
		else
			proxy_hold(proxy, true);
		lock_release(lock);
		if (round == 0)
			UNTIL(waits->granted);
		else
			pump_for(50);
		assert_int_equal(lock->released, 0);
		proxy_cut(proxy);
		proxy_swallow(proxy, false);
		proxy_hold(proxy, false);
		UNTIL(lock->released && waits->granted);
		lock_end(waits);
		assert_int_equal(node_list(b), 0);
	}
	assert_int_equal(a->sessions, 1);
}

/* The same at random, many requests on their way each time */
static void
cut_at_random(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 8000);
	Node	   *b = node_open(NULL, "b", 8000);
	Lock	   *locks[40];
	unsigned	seed = 1;

	(void) state;
	UNTIL(a->sessions && b->sessions);
	for (int round = 0; round < 25; round++)
	{
		for (int i = 0; i < 40; i++)
		{
			char		key[16];

			snprintf(key, sizeof(key), "k%d", i % 10);
			locks[i] = lock_acquire(i % 4 == 3 ? b : a, key, rand_r(&seed) % 3 ? X : S, false);
		}
		for (int i = 0; i < 40;)
		{
			if (rand_r(&seed) % 8 == 0)
			{
				proxy_swallow(proxy, rand_r(&seed) % 2);
				pump(2);
				proxy_cut(proxy);
				proxy_swallow(proxy, false);
			}
			pump(1);

			/* in any order: granted or not */
			if (rand_r(&seed) % 2)
				lock_release(locks[i++]);
		}
		for (int i = 0; i < 40; i++)
			UNTIL(locks[i]->released);
		assert_int_equal(node_list(b), 0);
	}
	assert_int_equal(a->sessions, 1);
	assert_int_equal(a->warnings, 0);
}

/* ---- sessions ---- */

static void
session_expires(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 1000);
	Node	   *b = node_open(NULL, "b", 8000);
	Lock	   *held = lock_acquire(a, "held", X, false);
	Lock	   *other = lock_acquire(b, "other", X, false);
	Lock	   *waits;
	Lock	   *next;
	Lock	   *gives_up;
	Lock	   *releases = lock_acquire(a, "releases", X, false);

	(void) state;
	UNTIL(held->granted && other->granted && releases->granted);
	waits = lock_acquire(a, "other", X, false);
	gives_up = lock_acquire(a, "other", X, false);
	next = lock_queue(b, "held", X, 6);

	proxy_hold(proxy, true);
	lock_release(releases);
	lock_release(gives_up);
	UNTIL(next->granted);
	assert_true(a->lease < harness_now());	/* had ended by itself before */
	assert_int_equal(held->lost, 0);	/* nobody could tell */
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(a->sessions == 2);
	assert_int_equal(a->sessions_lost, 1);
	assert_int_equal(held->lost, 1);
	assert_int_equal(releases->released, 1);
	assert_int_equal(gives_up->released, 1);
	assert_int_equal(waits->granted + waits->lost, 0);
	UNTIL(node_list(b) == 3);	/* it waits again */
	lock_release(other);
	UNTIL(waits->granted);
	assert_true(a->lease > harness_now());
	lock_release(next);
	held = lock_take(a, "held", X);
	assert_true(held->token > next->token);
}

/* Until the server knows the session no more.  For a child: it uses no library. */
static bool
wait_for_expiry(int64_t session)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons((uint16_t) harness_port()), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	static char text[65536];
	int64_t		end = harness_now() + DEADLINE * INT64_C(1000000000);
	char		name[32];

	snprintf(name, sizeof(name), "0x%llx", (unsigned long long) session);
	while (harness_now() < end)
	{
		int			fd = socket(AF_INET, SOCK_STREAM, 0);
		size_t		len = 0;
		ssize_t		n = 0;

		if (connect(fd, (struct sockaddr *) &address, sizeof(address)) == 0 && write(fd, "dump", 4) == 4)
			while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
				len += (size_t) n;
		close(fd);
		text[len] = '\0';
		if (n == 0 && strstr(text, "SessionTracker") != NULL && strstr(text, name) == NULL)
			return true;
		usleep(20000);
	}
	return false;
}

/* A process that was stopped takes no lease for what it had sent before */
static void
stopped_process(void **state)
{
	Node	   *a = node_open(NULL, "a", 1000);
	Lock	   *held = lock_acquire(a, "k", X, false);
	int64_t		stopped;
	int64_t		lease;
	pid_t		waker;
	pid_t		self = getpid();
	int			status;
	bool		expired;

	(void) state;
	UNTIL(held->granted && a->leases > 3);
	waker = fork();
	if (waker == 0)
	{
		expired = wait_for_expiry(a->p->session_id);
		kill(self, SIGCONT);
		_exit(expired ? 0 : 1);
	}
	stopped = harness_now();
	kill(self, SIGSTOP);
	assert_int_equal(waitpid(waker, &status, 0), waker);
	assert_int_equal(status, 0);
	assert_true(a->lease < harness_now());
	while (a->sessions_lost == 0)
	{
		lease = a->lease;
		assert_true(lease < stopped + 1000 * INT64_C(1000000));
		pump(10);
	}
	assert_int_equal(held->lost, 1);
	UNTIL(a->sessions == 2 && a->lease > harness_now());
}

static void
lease_goes_on(void **state)
{
	Node	   *a = node_open(NULL, "a", 1500);
	int64_t		end = harness_now() + INT64_C(4000000000);
	int64_t		least = INT64_MAX;

	(void) state;
	UNTIL(a->lease > 0);
	while (harness_now() < end)
	{
		int64_t		left;

		pump(50);
		left = a->lease - harness_now();
		if (left < least)
			least = left;
	}
	print_message("# timeout %d ms: at least %d ms of lease at any time\n", a->timeout, (int) (least / 1000000));
	assert_true(least > 0);
	assert_int_equal(a->sessions, 1);
}

static void
previous_session(void **state)
{
	RaProviderConfig config = node_config("a", 4000);
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *dead = node_open(proxy_hosts(proxy), "a", 4000);
	Node	   *b = node_open(NULL, "b", 4000);
	Node	   *a;
	Lock	   *held = lock_acquire(dead, "k", X, false);
	Lock	   *next;
	int64_t		start;

	(void) state;
	dead->ops->set_member(dead->p, "old");
	UNTIL(held->granted && strcmp(b->members, "a=old ") == 0);
	next = lock_queue(b, "k", X, 2);

	/* as good as killed */
	proxy_hold(proxy, true);
	dead->quiet = true;
	start = harness_now();
	config.previous_session = dead->session;
	a = node_open_config(&config);
	a->ops->set_member(a->p, "new");
	UNTIL(a->sessions == 1);
	UNTIL(next->granted);
	assert_true(harness_now() - start < INT64_C(2000000000));
	UNTIL(strcmp(b->members, "a=new ") == 0);

	/* it has ended: no harm */
	node_close(a);
	start = harness_now();
	a = node_open_config(&config);
	UNTIL(a->sessions == 1);
	assert_true(harness_now() - start < INT64_C(2000000000));
	node_close(a);
	config.previous_session = "something else";
	a = node_open_config(&config);
	UNTIL(a->sessions == 1);
}

/* ---- generation ---- */

static void
generation(void **state)
{
	RaProviderConfig config = node_config("a", 4000);
	Node	   *a = node_open_config(&config);
	Node	   *b;
	Lock	   *lock;

	(void) state;
	UNTIL(a->sessions == 1);
	config.node = "b";
	config.generation_seen = a->generation;
	b = node_open_config(&config);
	UNTIL(b->sessions == 1);
	assert_true(b->generation == a->generation);
	node_close(b);

	/* one that has seen more raises it; the others are told before they are granted anything */
	config.generation_seen = a->generation + 10;
	b = node_open_config(&config);
	lock = lock_take(b, "k", X);
	assert_true(b->generation > config.generation_seen);
	lock_release(lock);
	lock = lock_take(a, "k", X);
	assert_true(lock->generation == b->generation);
	assert_int_equal(a->sessions_lost, 0);
}

static void
counted(RaProvider *p, ZkCall *call)
{
	(void) p;
	*(int *) call->subject = call->nnames;
}

/* The server comes back so late that the session was given up, and has it still: it is ended before the next one begins */
static void
given_up_session(void **state)
{
	Node	   *a = node_open(NULL, "a", 8000);
	Node	   *b;
	Lock	   *lock = lock_take(a, "k", X);
	char		path[ZK_PATH_MAX];
	int			entries = -1;

	(void) state;
	server("stop");
	UNTIL(a->sessions_lost == 1);
	assert_int_equal(lock->lost, 1);
	server("start");
	UNTIL(a->sessions == 2);
	b = node_open(NULL, "b", 8000);
	UNTIL(b->sessions == 1);
	snprintf(path, sizeof(path), "/%s/locks/%03x", harness_cluster, ra_zk_bucket("k"));
	assert_true(ra_zk_children(b->p, counted, &entries, path, NULL));
	UNTIL(entries >= 0);
	assert_int_equal(entries, 0);
}

static void
wiped_server(void **state)
{
	Node	   *a = node_open(NULL, "a", 1000);
	Node	   *b = node_open(NULL, "b", 1000);
	Lock	   *lock = lock_take(a, "k", X);
	Lock	   *waits = lock_queue(b, "k", X, 2);
	Lock	   *again;
	uint64_t	before;

	(void) state;
	before = a->generation;
	server("stop");
	server("wipe");
	server("start");
	UNTIL(a->sessions > 1 && b->sessions > 1);
	assert_int_equal(lock->lost, 1);
	UNTIL(waits->granted);
	assert_true(a->generation > before);
	UNTIL(a->generation == b->generation);
	again = lock_take(a, "other", X);
	assert_true(again->generation > lock->generation);
}

/* The server comes back with data from before */
static void
restored_server(void **state)
{
	Node	   *a = node_open(NULL, "a", 1000);
	Lock	   *lock = NULL;
	Lock	   *again;

	(void) state;
	UNTIL(a->sessions);
	server("stop");
	server("save");
	server("start");
	for (int i = 0; i < 50; i++)
	{
		lock = lock_take(a, "k", X);
		lock_end(lock);
	}
	server("stop");
	server("restore");
	server("start");
	again = lock_take(a, "k", X);
	assert_true(again->token < lock->token);
	assert_true(again->generation > lock->generation);
}

static void
remove_tree(zhandle_t *zh, const char *path)
{
	struct String_vector names;

	assert_int_equal(zoo_get_children(zh, path, 0, &names), ZOK);
	for (int i = 0; i < names.count; i++)
	{
		char		child[ZK_PATH_MAX];

		snprintf(child, sizeof(child), "%s/%s", path, names.data[i]);
		remove_tree(zh, child);
	}
	deallocate_String_vector(&names);
	assert_int_equal(zoo_delete(zh, path, -1), ZOK);
}

static bool
later(const Lock *lock, const Lock *before)
{
	return lock->generation > before->generation ||
		(lock->generation == before->generation && lock->token > before->token);
}

/* Somebody removes what locks are below: they are lost, and tokens grow nevertheless */
static void
parents_made_again(void **state)
{
	static const char *const what[] = {"/locks", "/locks", "/locks", ""};
	Node	   *a = node_open(NULL, "a", 4000);
	Node	   *b = node_open(NULL, "b", 4000);
	zhandle_t  *zh = zookeeper_init(harness_hosts, NULL, 8000, NULL, NULL, 0);
	Lock	   *last = lock_take(a, "k", X);
	char		path[80];

	(void) state;
	UNTIL(b->sessions);
	while (zoo_state(zh) != ZOO_CONNECTED_STATE)
		pump(1);
	for (int i = 0; i < 4; i++)
	{
		Lock	   *waits = i == 0 ? NULL : lock_queue(b, "k", X, 2);
		Lock	   *next;

		/* nothing held; held and waited for; all of the cluster */
		if (i == 0)
			lock_end(last);
		snprintf(path, sizeof(path), "/%s%s", harness_cluster, what[i]);
		remove_tree(zh, path);
		if (waits != NULL)
		{
			UNTIL(waits->granted);
			assert_true(later(waits, last));
			lock_end(waits);
			lock_end(last);
			last = waits;
		}
		next = lock_take(a, "k", X);
		assert_true(later(next, last));
		last = next;
	}
	zookeeper_close(zh);
}

/* ---- ensembles ---- */

static char ensemble_dir[512];

/* Runs the command on the three servers, or on one; gives its output */
static const char *
ensemble(const char *command, int which)
{
	static char output[256];
	char		line[1024];
	FILE	   *pipe;

	snprintf(line, sizeof(line), "%s %s %s ", getenv("ZK_SERVER"), command, ensemble_dir);
	if (which > 0)
		snprintf(line + strlen(line), sizeof(line) - strlen(line), "%d", which);
	pipe = popen(line, "r");
	assert_non_null(pipe);
	if (fgets(output, sizeof(output), pipe) == NULL)
		output[0] = '\0';
	assert_int_equal(pclose(pipe), 0);
	output[strcspn(output, "\n")] = '\0';
	return output;
}

/* Host list of the three */
static int
ensemble_hosts(char *hosts, size_t size)
{
	char		path[600];
	FILE	   *file;
	int			port;
	int			n = 0;

	snprintf(path, sizeof(path), "%s/ports", ensemble_dir);
	file = fopen(path, "r");
	assert_non_null(file);
	hosts[0] = '\0';
	while (fscanf(file, "%d", &port) == 1)
		snprintf(hosts + strlen(hosts), size - strlen(hosts), "%s127.0.0.1:%d", n++ > 0 ? "," : "", port);
	fclose(file);
	return n;
}

static int
start_ensemble(void **state)
{
	snprintf(ensemble_dir, sizeof(ensemble_dir), "%s/ensemble", getenv("ZK_DIR"));

	/* the number is that of servers to make; later, of one to start */
	ensemble("start", access(ensemble_dir, F_OK) == 0 ? 0 : 3);
	return new_cluster(state);
}

static int
stop_ensemble(void **state)
{
	end_test(state);
	ensemble("stop", 0);
	return 0;
}

/* A leader that dies costs no lock; a follower that is cut off renews no lease */
static void
three_servers(void **state)
{
	char		hosts[256];
	char		host[64];
	int			leader = atoi(ensemble("leader", 0));
	int			follower = leader % 3 + 1;
	int			other = follower % 3 + 1;
	char	   *at;
	Node	   *a;
	Node	   *b;
	Lock	   *lock;
	Lock	   *waits;
	int64_t		paused;

	(void) state;
	assert_int_equal(ensemble_hosts(hosts, sizeof(hosts)), 3);
	at = hosts;
	for (int i = 1; i < follower; i++)
		at = strchr(at, ',') + 1;
	snprintf(host, sizeof(host), "%.*s", (int) strcspn(at, ","), at);

	a = node_open(host, "a", 4000);
	lock = lock_acquire(a, "k", X, false);
	UNTIL(lock->granted && a->leases > 1);
	ensemble("pause", leader);
	ensemble("pause", other);
	paused = harness_now();
	while (harness_now() < paused + 1500 * INT64_C(1000000))
	{
		pump(20);
		assert_true(a->lease <= paused + a->timeout * INT64_C(700000));
	}
	ensemble("resume", leader);
	ensemble("resume", other);
	UNTIL(a->lease > harness_now() + a->timeout * INT64_C(600000));

	b = node_open(hosts, "b", 4000);
	waits = lock_queue(b, "k", X, 2);
	ensemble("kill", atoi(ensemble("leader", 0)));
	UNTIL(a->connected && a->connects >= 2 && node_list(a) == 2);
	assert_int_equal(a->sessions + b->sessions, 2);
	assert_int_equal(lock->lost + waits->granted, 0);
	assert_true(a->entries[0].token == lock->token);
	lock_release(lock);
	UNTIL(waits->granted);
	assert_true(waits->token > lock->token);
}

/* ---- trouble ---- */

static void
restart_keeps_locks(void **state)
{
	Node	   *a = node_open(NULL, "a", 4000);
	Node	   *b = node_open(NULL, "b", 4000);
	Lock	   *lock = lock_take(a, "k", X);
	Lock	   *waits = lock_queue(b, "k", X, 2);

	(void) state;
	server("restart");
	UNTIL(a->connects == 2 && b->connects == 2);
	assert_int_equal(node_list(a), 2);
	assert_true(a->entries[0].token == lock->token);
	assert_int_equal(lock->lost + waits->granted, 0);
	lock_release(lock);
	UNTIL(waits->granted);
	assert_int_equal(a->sessions + b->sessions, 2);
}

static void
closed_port(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a;
	Lock	   *lock;
	int64_t		start;

	(void) state;
	proxy_refuse(proxy, true);
	a = node_open(proxy_hosts(proxy), "a", 2000);
	lock = lock_acquire(a, "k", X, false);
	UNTIL(a->warnings == 1);
	assert_non_null(strstr(a->log, "could not reach ZooKeeper"));
	pump_for(1000);
	assert_int_equal(a->warnings, 1);
	proxy_refuse(proxy, false);
	UNTIL(lock->granted);

	proxy_refuse(proxy, true);
	proxy_cut(proxy);
	UNTIL(!a->connected);
	start = harness_now();
	node_close(a);
	assert_true(harness_now() - start < INT64_C(1000000000));
}

static void
unknown_host(void **state)
{
	Node	   *a = node_open("no-such-host.invalid:2181", "a", 2000);
	Lock	   *lock = lock_acquire(a, "k", X, false);

	(void) state;
	UNTIL(a->warnings == 1);
	assert_non_null(strstr(a->log, "resolved"));
	lock_end(lock);
}

static void
frozen_server(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 8000);
	int64_t		start;

	(void) state;
	UNTIL(a->sessions);
	proxy_hold(proxy, true);
	start = harness_now();
	a->ops->close(a->p, start + 300 * INT64_C(1000000));
	assert_true(harness_now() - start < INT64_C(900000000));
	node_free(a);
	pump_for(2500);				/* until the helper has given up, too */
}

static void
member_stays(void **state)
{
	Proxy	   *proxy = proxy_start(harness_port());
	Node	   *a = node_open(proxy_hosts(proxy), "a", 1000);
	Node	   *b = node_open(NULL, "b", 8000);

	(void) state;

	/* the answer to its creation is lost */
	UNTIL(a->sessions);
	proxy_swallow(proxy, true);
	a->ops->set_member(a->p, "x");
	UNTIL(strcmp(b->members, "a=x ") == 0);
	proxy_cut(proxy);
	proxy_swallow(proxy, false);
	UNTIL(strcmp(a->members, "*a=x ") == 0);
	a->ops->set_member(a->p, "y");
	UNTIL(strcmp(b->members, "a=y ") == 0);

	/* its session expires */
	proxy_hold(proxy, true);
	UNTIL(strcmp(b->members, "") == 0);
	proxy_cut(proxy);
	proxy_hold(proxy, false);
	UNTIL(strcmp(b->members, "a=y ") == 0 && strcmp(a->members, "*a=y ") == 0);
	assert_int_equal(a->sessions, 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(create_unknown),
		TEST(adopts_only_its_own),
		TEST(delete_unknown),
		TEST(cut_at_random),
		TEST(session_expires),
		TEST(stopped_process),
		TEST(lease_goes_on),
		TEST(previous_session),
		TEST(generation),
		TEST(restart_keeps_locks),
		TEST(closed_port),
		TEST(unknown_host),
		TEST(frozen_server),
		TEST(member_stays),
		TEST(given_up_session),
		TEST(wiped_server),
		TEST(restored_server),
		TEST(parents_made_again),
		cmocka_unit_test_setup_teardown(three_servers, start_ensemble, stop_ensemble),
	};

	zookeeper_setup();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
