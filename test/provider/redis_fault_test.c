/*
 * redis_fault_test.c
 *	  Locks by Redis while connections, servers and nodes fail.
 */
#include "redis_harness.h"

#define LLEN "LLEN {test}:lock:k"

static Proxy proxy;

static void
use_proxy(void)
{
	proxy_open(&proxy, server.port);
	proxies[nproxies++] = &proxy;
}

static void
a_dead_sessions_lock_passes_on(void **state)
{
	Node		a;
	Node		b;
	Lock		held;
	Lock		waiting;
	int64_t		lease;

	(void) state;
	node_open(&a, "a", server.port, 600);
	node_open(&b, "b", server.port, 600);
	take(&held, &a, "k");
	exclusive(&waiting, &b, "k");
	pump_for(700);
	assert_int_equal(waiting.what, NOTHING);
	lease = a.lease;
	node_die(&a);
	until_(waiting.what == GRANTED, 600 + 300);
	assert_true(now_ns() > lease);
	assert_true(waiting.token > held.token);
}

/* Dead waiters don't hold up those behind them */
static void
dead_ones_in_the_queue_are_passed_over(void **state)
{
	Node		a;
	Node		b;
	Node		c;
	Lock		held;
	Lock		dead[3];
	Lock		waiting;

	(void) state;
	node_open(&a, "a", server.port, 600);
	node_open(&b, "b", server.port, 600);
	node_open(&c, "c", server.port, 600);
	take(&held, &a, "k");
	for (int i = 0; i < 3; i++)
		exclusive(&dead[i], &b, "k");
	until(admin_integer(&server, LLEN) == 4);
	exclusive(&waiting, &c, "k");
	until(admin_integer(&server, LLEN) == 5);
	node_die(&b);
	pump_for(800);
	give_up(&held);
	until_(waiting.what == GRANTED, 200);
	assert_int_equal(admin_integer(&server, LLEN), 1);
}

/* Also where nobody asks again */
static void
entries_of_dead_sessions_are_removed(void **state)
{
	static Lock lock[500];
	Node		a;
	Node		b;

	(void) state;
	node_open(&a, "a", server.port, 600);
	node_open(&b, "b", server.port, 600);
	for (int i = 0; i < 500; i++)
	{
		char		key[20];

		snprintf(key, sizeof(key), "key-%d", i);
		exclusive(&lock[i], &a, key);
	}
	for (int i = 0; i < 500; i++)
		until(lock[i].what == GRANTED);
	node_die(&a);
	until_(admin_integer(&server, "HLEN {test}:members") == 1, 3000);
	node_close(&b);
	assert_nothing_left();
}

static void
a_previous_session_is_ended_at_once(void **state)
{
	Node		a;
	Node		again;
	Node		b;
	Lock		held;
	Lock		waiting;
	char		session[RA_SESSION_MAX];
	char		hosts[64];
	RaProviderConfig config = {
		.hosts = hosts, .cluster = "test", .node = "a", .session_timeout_ms = 10000,
		.previous_session = session
	};

	(void) state;
	snprintf(hosts, sizeof(hosts), "127.0.0.1:%d", server.port);
	node_open(&a, "a", server.port, 10000);
	node_open(&b, "b", server.port, 10000);
	take(&held, &a, "k");
	exclusive(&waiting, &b, "k");
	until(admin_integer(&server, LLEN) == 2);
	strcpy(session, a.session);
	node_die(&a);
	pump_for(200);
	assert_int_equal(waiting.what, NOTHING);
	node_open_config(&again, &config);
	until_(waiting.what == GRANTED, 1000);
	until(again.sessions == 1);
	assert_string_not_equal(again.session, session);

	/* one that never was */
	strcpy(session, "nonsense");
	node_close(&again);
	node_open_config(&again, &config);
	until(again.sessions == 1);
}

static void
a_swallowed_reply_makes_no_second_entry(void **state)
{
	Node		a;
	Lock		lock;
	Lock		other;

	(void) state;
	use_proxy();
	node_open(&a, "a", proxy.port, 3000);
	until(a.sessions == 1);

	/* of acquire */
	proxy.swallow_down = true;
	exclusive(&lock, &a, "k");
	until(admin_integer(&server, LLEN) == 1);
	assert_int_equal(lock.what, NOTHING);
	proxy_cut(&proxy);
	proxy.swallow_down = false;
	until(lock.what == GRANTED);
	assert_int_equal(a.losses, 0);
	assert_int_equal(admin_integer(&server, LLEN), 1);

	/* of one that waits */
	proxy.swallow_down = true;
	shared(&other, &a, "k");
	until(admin_integer(&server, LLEN) == 2);
	proxy_cut(&proxy);
	proxy.swallow_down = false;
	until(a.connected);
	pump_for(200);
	assert_int_equal(admin_integer(&server, LLEN), 2);

	/* of release */
	proxy.swallow_down = true;
	give_up(&lock);
	until(admin_integer(&server, LLEN) == 1);
	assert_int_equal(lock.what, GRANTED);
	proxy_cut(&proxy);
	proxy.swallow_down = false;
	until(lock.what == RELEASED && other.what == GRANTED);

	/* given up while nobody knows whether it is there */
	proxy.swallow_down = true;
	exclusive(&lock, &a, "k2");
	until(admin_integer(&server, "LLEN {test}:lock:k2") == 1);
	proxy_cut(&proxy);
	give_up(&lock);
	proxy.swallow_down = false;
	until(lock.what == RELEASED);
	assert_int_equal(lock.grants, 0);
	assert_int_equal(admin_integer(&server, "EXISTS {test}:lock:k2"), 0);
	assert_int_equal(a.sessions, 1);
	give_up(&other);
	node_close(&a);
	assert_nothing_left();
}

/* A lost connection's commands reach the server after the next one's */
static void
late_commands_do_nothing(void **state)
{
	Node		a;
	Lock		lock;

	(void) state;
	use_proxy();
	node_open(&a, "a", proxy.port, 3000);
	until(a.sessions == 1);
	pump_for(100);
	proxy.hold_up = true;
	exclusive(&lock, &a, "k");
	pump_for(50);
	proxy_cut_clients(&proxy);
	give_up(&lock);
	until(!a.connected);

	/* new connections pass, the old one's bytes are still held */
	for (int i = 0; i < 400 && lock.what == NOTHING; i++)
	{
		for (int j = 0; j < proxy.npipes; j++)
		{
			if (proxy.pipes[j].client >= 0)
				proxy_deliver(&proxy.pipes[j]);
		}
		pump(10);
	}
	assert_int_equal(lock.what, RELEASED);
	assert_int_equal(lock.grants, 0);
	proxy.hold_up = false;		/* now they arrive */
	pump_for(200);
	assert_int_equal(admin_integer(&server, "EXISTS {test}:lock:k"), 0);
	assert_int_equal(a.losses, 0);
}

static void
a_stalled_node_loses_its_session(void **state)
{
	Node		a;
	Node		b;
	Lock		held;
	Lock		queued;
	Lock		other;
	Lock		later;
	Lock		leaving;
	int64_t		lease;

	(void) state;
	use_proxy();
	node_open(&a, "a", proxy.port, 900);
	node_open(&b, "b", server.port, 900);
	take(&held, &a, "k");
	take(&other, &b, "k2");
	exclusive(&queued, &a, "k2");
	until(admin_integer(&server, "LLEN {test}:lock:k2") == 2);
	exclusive(&later, &b, "k");
	until(admin_integer(&server, LLEN) == 2);

	proxy.hold_up = true;
	until(later.what == GRANTED);
	lease = a.lease;
	assert_true(now_ns() > lease);
	assert_int_equal(held.what, GRANTED);	/* it can't know */
	assert_int_equal(a.losses, 0);
	exclusive(&leaving, &a, "k3");

	proxy_cut(&proxy);
	proxy.hold_up = false;
	until(held.what == LOST);
	assert_int_equal(a.losses, 1);
	until(a.sessions == 2);
	until(leaving.what == GRANTED);
	assert_int_equal(queued.what, NOTHING);
	give_up(&other);
	until(queued.what == GRANTED);
	give_up(&later);
	give_up(&leaving);
	give_up(&queued);
	until(queued.what == RELEASED && leaving.what == RELEASED && later.what == RELEASED);
	node_close(&a);
	node_close(&b);
	pump_for(10);
	assert_int_equal(admin_integer(&server, "EXISTS {test}:lock:k {test}:lock:k2 {test}:lock:k3"), 0);
}

/* What is left of the only session's time, by the server's clock, ms; or less than 0 */
static long long
session_left(void)
{
	redisReply *reply = admin(&server, "EVAL %s 0", "local keys = redis.call('KEYS', '{test}:session:*') "
							  "return keys[1] and redis.call('PTTL', keys[1]) or -2");
	long long	left = reply->integer;

	assert_int_equal(reply->type, REDIS_REPLY_INTEGER);
	freeReplyObject(reply);
	return left;
}

/*
 * A node that reads answers late counts its lease from when it asked: it ends a
 * tenth of the timeout before the server would give the session up, or sooner.
 */
static void
a_late_answer_does_not_lengthen_the_lease(void **state)
{
	Node		a;
	int			leases = 0;
	int64_t		last;
	long long	left;

	(void) state;
	use_proxy();
	node_open(&a, "a", proxy.port, 2000);

	/* the session begins, and cannot be renewed yet */
	while (session_left() < 0)
	{
		ops->process(a.provider);
		proxy_pump(&proxy);
		poll(NULL, 0, 1);
	}
	proxy.hold_up = true;
	poll(NULL, 0, 400);			/* the answer is there, and not looked at */
	until(a.lease > 0);
	left = session_left();
	assert_in_range(left, 1, 1700);
	assert_true(a.lease <= now_ns() + (left + 1 - 200) * MS);
	proxy.hold_up = false;

	/* and is renewed */
	last = a.lease;
	for (int i = 0; leases < 4; i++)
	{
		assert_true(i < 100);
		pump(1);
		if (a.lease > last && (left = session_left()) > 0)
		{
			assert_true(a.lease <= now_ns() + (left + 1 - 200) * MS);
			leases++;
		}
		last = a.lease;
		for (int j = 0; j < 20; j++)
		{
			proxy_pump(&proxy);	/* what is asked arrives, and what is answered waits */
			poll(NULL, 0, 20);
		}
	}
	node_close(&a);
}

/* Released while disconnected, and the session is lost before that can be told */
static void
what_was_released_is_not_lost(void **state)
{
	Node		a;
	Lock		lock;

	(void) state;
	use_proxy();
	node_open(&a, "a", proxy.port, 600);
	take(&lock, &a, "k");
	proxy.refuse = true;
	proxy_cut(&proxy);
	until(!a.connected);
	give_up(&lock);
	pump_for(1000);
	assert_int_equal(lock.what, GRANTED);
	proxy.refuse = false;
	until(lock.what == RELEASED);
	assert_int_equal(a.losses, 1);
}

static void
a_lost_wake_up_costs_half_a_second(void **state)
{
	Node		a;
	Node		b;
	Lock		held;
	Lock		waiting;

	(void) state;
	node_open(&a, "a", server.port, 10000);
	node_open(&b, "b", server.port, 10000);
	take(&held, &a, "k");
	exclusive(&waiting, &b, "k");
	pump_for(300);
	give_up(&held);
	ops->process(a.provider);
	while (admin_integer(&server, "EXISTS {test}:lock:k") == 1 && held.what == GRANTED)
	{
		/* b isn't running now, and then its subscription is gone with what it said */
		ops->process(a.provider);
	}
	admin_do(&server, "CLIENT KILL TYPE pubsub");
	until_(waiting.what == GRANTED, 1000);
	assert_int_equal(b.losses, 0);
	pump_for(300);
	assert_true(admin_info(&server, "clients", "pubsub_clients:") >= 0);

	/* and the new subscription works */
	exclusive(&held, &a, "k");
	until(admin_integer(&server, LLEN) == 2);
	pump_for(100);
	give_up(&waiting);
	until_(held.what == GRANTED, 100);
}

static void
scripts_are_loaded_again(void **state)
{
	Node		a;
	Lock		lock[2];

	(void) state;
	node_open(&a, "a", server.port, 2000);
	take(&lock[0], &a, "k");
	admin_do(&server, "SCRIPT FLUSH");
	exclusive(&lock[1], &a, "k2");
	give_up(&lock[0]);
	until(lock[0].what == RELEASED && lock[1].what == GRANTED);
	assert_int_equal(a.losses, 0);
	assert_int_equal(admin_integer(&server, "LLEN {test}:lock:k2"), 1);
}

/*
 * Generations
 */

static void
a_generation_seen_raises_it(void **state)
{
	Node		a;
	Node		b;
	Lock		held;
	Lock		lock;
	char		hosts[64];
	RaProviderConfig config = {
		.hosts = hosts, .cluster = "test", .node = "b", .session_timeout_ms = 600,
		.generation_seen = UINT64_C(4000000000000)
	};

	(void) state;
	snprintf(hosts, sizeof(hosts), "127.0.0.1:%d", server.port);
	node_open(&a, "a", server.port, 600);
	take(&held, &a, "k");
	assert_int_equal(held.generation, 5);
	node_open_config(&b, &config);
	exclusive(&lock, &b, "k");
	until(held.what == LOST);
	until(lock.what == GRANTED);
	assert_true(b.generation == UINT64_C(4000000000001));
	until(a.generation == b.generation);
	assert_true(now_ns() > a.lease - 600 * MS);
}

/* a holds k; what is done to the server must not let b have it before a's lease ends */
static void
lose_everything(void (*what) (void), bool same_server)
{
	Node		a;
	Node		b;
	Node		c;
	Lock		held;
	Lock		lock;
	Lock		none;
	int64_t		lease;

	(void) same_server;
	node_open(&a, "a", server.port, 1500);
	node_open(&b, "b", server.port, 1500);
	exclusive(&held, &a, "k");
	exclusive(&none, &b, "k2");
	until(held.what == GRANTED && none.what == GRANTED);
	pump_for(600);				/* a heartbeat */
	lease = a.lease;
	what();

	/* c is the first to come */
	node_open(&c, "c", server.port, 1500);
	exclusive(&lock, &c, "k");
	while (now_ns() < lease)
	{
		pump(10);
		assert_int_equal(lock.what, NOTHING);
	}
	until(held.what == LOST && none.what == LOST);
	until(lock.what == GRANTED);
	assert_true(lock.generation > held.generation);
	assert_int_equal(a.losses, 1);
	until(a.sessions == 2 && a.generation == c.generation && b.generation == c.generation);
	assert_int_equal(admin_integer(&server, LLEN), 1);
	let_go(&lock);
	take(&lock, &a, "k");
	node_close(&a);
	node_close(&b);
	until_(admin_integer(&server, "HLEN {test}:members") == 1, 5000);	/* the old ones are swept away */
	node_close(&c);
	assert_nothing_left();
}

static void
flush(void)
{
	admin_do(&server, "FLUSHALL");
}

static void
flush_and_recreate(void)
{
	admin_do(&server, "FLUSHALL");
	server_seed(&server, "test");
}

static void
restart_empty(void)
{
	server_kill(&server);
	server_start(&server, "");
}

static void
restart_with_data(void)
{
	admin_do(&server, "SAVE");
	server_kill(&server);
	server_start(&server, "");
}

/* The last save was before the locks were granted */
static void
restart_with_old_data(void)
{
	server_kill(&server);
	server_start(&server, "");
}

static void
nothing_is_granted_twice_after_flushall(void **state)
{
	(void) state;
	lose_everything(flush, true);
}

static void
nothing_is_granted_twice_after_an_empty_restart(void **state)
{
	(void) state;
	lose_everything(restart_empty, false);
}

static void
nothing_is_granted_twice_after_a_restart(void **state)
{
	(void) state;
	lose_everything(restart_with_data, false);
}

static void
nothing_is_granted_twice_after_lost_writes(void **state)
{
	(void) state;
	admin_do(&server, "SAVE");
	lose_everything(restart_with_old_data, false);
}

/* The hash comes back by itself with a lower generation */
static void
a_forged_generation_ends_sessions(void **state)
{
	Node		a;
	Lock		held;

	(void) state;
	node_open(&a, "a", server.port, 900);
	take(&held, &a, "k");
	flush_and_recreate();
	until(held.what == LOST && a.sessions == 2);
	assert_int_equal(a.generation, 5);
	admin_do(&server, "HSET {test}:generation generation 4");
	until(a.sessions == 3);
	assert_true(a.generation > 5);
}

/* A server that is paused longer than any session */
static void
a_paused_server_forgets_all(void **state)
{
	Node		a;
	Node		b;
	Lock		held;
	Lock		waiting;

	(void) state;
	node_open(&a, "a", server.port, 600);
	node_open(&b, "b", server.port, 600);
	take(&held, &a, "k");
	exclusive(&waiting, &b, "k");
	until(admin_integer(&server, LLEN) == 2);
	kill(server.pid, SIGSTOP);
	pump_for(1200);
	assert_false(a.connected);
	assert_int_equal(held.what, GRANTED);
	assert_true(a.lease < now_ns());
	kill(server.pid, SIGCONT);
	until(held.what == LOST);
	until(waiting.what == GRANTED);
	assert_true(a.warnings <= 2);
}

/*
 * Servers that are of no use
 */

static void
a_closed_port_is_told_once(void **state)
{
	Node		a;
	Lock		lock;
	char		hosts[100];
	int			closed = free_port();
	RaProviderConfig config = {
		.hosts = hosts, .cluster = "test", .node = "a", .session_timeout_ms = 2000
	};

	(void) state;
	node_open(&a, "a", closed, 2000);
	exclusive(&lock, &a, "k");
	pump_for(1000);
	assert_int_equal(a.warnings, 1);
	assert_non_null(strstr(a.log, "Connection refused"));
	assert_false(a.connected);
	let_go(&lock);
	ops->close(a.provider, now_ns() + 5000 * MS);
	node_forget(&a);

	/* the next host is used */
	snprintf(hosts, sizeof(hosts), "127.0.0.1:%d,127.0.0.1:%d", closed, server.port);
	node_open_config(&a, &config);
	until_(a.sessions == 1, 500);
	assert_int_equal(a.warnings, 1);
}

static void
a_replica_is_passed_over(void **state)
{
	Server		replica = {0};
	char		options[64];
	char		hosts[100];
	Node		a;
	RaProviderConfig config = {
		.hosts = hosts, .cluster = "test", .node = "a", .session_timeout_ms = 2000
	};

	(void) state;
	snprintf(options, sizeof(options), "--replicaof 127.0.0.1 %d", server.port);
	server_start(&replica, options);
	node_open(&a, "a", replica.port, 2000);
	pump_for(500);
	assert_int_equal(a.sessions, 0);
	assert_int_equal(a.warnings, 1);
	assert_non_null(strstr(a.log, "replica"));
	node_close(&a);

	snprintf(hosts, sizeof(hosts), "127.0.0.1:%d,127.0.0.1:%d", replica.port, server.port);
	node_open_config(&a, &config);
	until_(a.sessions == 1, 500);
	server_remove(&replica);
}

/* The replica becomes the primary, and the old one its replica */
static void
a_fail_over_loses_all_locks(void **state)
{
	Server		replica = {0};
	char		options[64];
	char		hosts[100];
	Node		a;
	Lock		held;
	Lock		waiting;
	int64_t		lease;
	RaProviderConfig config = {
		.hosts = hosts, .cluster = "test", .node = "a", .session_timeout_ms = 1500
	};

	(void) state;
	snprintf(options, sizeof(options), "--replicaof 127.0.0.1 %d", server.port);
	server_start(&replica, options);
	snprintf(hosts, sizeof(hosts), "127.0.0.1:%d,127.0.0.1:%d", server.port, replica.port);
	node_open_config(&a, &config);
	take(&held, &a, "k");
	until(admin_info(&replica, "replication", "master_link_status:up") == 0 &&
		  admin_integer(&replica, "EXISTS {test}:lock:k") == 1);
	lease = a.lease;
	admin_do(&replica, "REPLICAOF NO ONE");
	snprintf(options, sizeof(options), "REPLICAOF 127.0.0.1 %d", replica.port);
	admin_do(&server, options);
	until(held.what == LOST);
	take(&waiting, &a, "k");
	assert_true(now_ns() > lease);
	assert_true(waiting.generation > held.generation);
	node_close(&a);
	server_remove(&replica);
}

static void
passwords_are_checked(void **state)
{
	Server		closed = {.password = "secret"};
	Node		a;
	Lock		lock[3];
	char		hosts[64];
	long long	connections;
	RaProviderConfig config = {
		.hosts = hosts, .cluster = "risk", .node = "a", .session_timeout_ms = 500,
		.password = "wrong-one"
	};

	(void) state;
	server_start(&closed, "--requirepass secret");
	snprintf(hosts, sizeof(hosts), "127.0.0.1:%d", closed.port);
	node_open_config(&a, &config);
	until(a.warnings == 1);
	connections = admin_info(&closed, "stats", "total_connections_received:");
	pump_for(1500);
	assert_int_equal(a.warnings, 1);
	assert_int_equal(admin_info(&closed, "stats", "total_connections_received:"), connections);
	assert_non_null(strstr(a.log, "WRONGPASS"));
	assert_non_null(strstr(a.log, "Check the user name and the password"));
	assert_null(strstr(a.log, "wrong-one"));
	node_close(&a);

	config.password = NULL;
	node_open_config(&a, &config);
	until(a.warnings == 1);
	assert_non_null(strstr(a.log, "NOAUTH"));
	node_close(&a);

	config.password = "secret";
	node_open_config(&a, &config);
	until(a.sessions == 1);
	node_close(&a);

	/* the rules that redis.c names are enough */
	freeReplyObject(admin(&closed, "FLUSHALL"));
	server_seed(&closed, "risk");
	admin_do(&closed, "ACL SETUSER risk on >pw ~{risk}:* &{risk}:* +info +scan +lrange +llen "
			 "+lindex +lpos +lrem +lset +rpush +get +set +del +exists +pexpire +hget +hmget +hset "
			 "+hdel +hkeys +hgetall +hincrby +time +publish +subscribe +ping +evalsha +script|load");
	config.user = "risk";
	config.password = "pw";
	node_open_config(&a, &config);
	ops->set_member(a.provider, "x");
	take(&lock[0], &a, "k");
	exclusive(&lock[1], &a, "k");
	ask(&lock[2], &a, "k", RA_PROVIDER_SHARED, true);
	until(lock[2].what == REFUSED);
	ops->look(a.provider, lock[0].request);
	until(lock[0].contended == 1);
	ops->list(a.provider, NULL);
	until(a.list_done);
	assert_int_equal(a.listed, 2);
	pump_for(600);
	give_up(&lock[0]);
	until(lock[1].what == GRANTED);
	until(strcmp(a.members, "a=x*") == 0);
	assert_int_equal(a.warnings, 0);
	node_die(&a);
	node_open_config(&a, &config);	/* sweeps */
	until_(admin_integer(&closed, "EXISTS {risk}:lock:k") == 0, 2000);
	assert_int_equal(a.warnings, 0);

	/* a right that is taken away */
	admin_do(&closed, "ACL SETUSER risk -evalsha");
	until(a.warnings == 1);
	assert_non_null(strstr(a.log, "NOPERM"));
	assert_non_null(strstr(a.log, "needs the commands"));
	node_die(&a);
	server_remove(&closed);
}

static void
a_full_server_is_waited_for(void **state)
{
	Node		a;
	Lock		held;
	Lock		lock;

	(void) state;
	node_open(&a, "a", server.port, 1500);
	take(&held, &a, "k");
	admin_do(&server, "CONFIG SET maxmemory 1");
	exclusive(&lock, &a, "k2");
	give_up(&held);
	pump_for(1200);
	assert_int_equal(lock.what, NOTHING);
	assert_int_equal(a.warnings, 1);
	assert_non_null(strstr(a.log, "maxmemory"));
	admin_do(&server, "CONFIG SET maxmemory 0");
	until(lock.what == GRANTED && held.what == RELEASED);
	node_close(&a);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(a_dead_sessions_lock_passes_on),
		TEST(dead_ones_in_the_queue_are_passed_over),
		TEST(entries_of_dead_sessions_are_removed),
		TEST(a_previous_session_is_ended_at_once),
		TEST(a_swallowed_reply_makes_no_second_entry),
		TEST(late_commands_do_nothing),
		TEST(a_stalled_node_loses_its_session),
		TEST(a_late_answer_does_not_lengthen_the_lease),
		TEST(what_was_released_is_not_lost),
		TEST(a_lost_wake_up_costs_half_a_second),
		TEST(scripts_are_loaded_again),
		TEST(a_generation_seen_raises_it),
		TEST(nothing_is_granted_twice_after_flushall),
		TEST_OF_SERVER(nothing_is_granted_twice_after_an_empty_restart),
		TEST_OF_SERVER(nothing_is_granted_twice_after_a_restart),
		TEST_OF_SERVER(nothing_is_granted_twice_after_lost_writes),
		TEST(a_forged_generation_ends_sessions),
		TEST(a_paused_server_forgets_all),
		TEST(a_closed_port_is_told_once),
		TEST(a_replica_is_passed_over),
		TEST_OF_SERVER(a_fail_over_loses_all_locks),
		TEST(passwords_are_checked),
		TEST(a_full_server_is_waited_for),
	};

	return run_all("redis-faults", tests, LENGTH(tests), argc, argv);
}
