/*
 * zookeeper.c
 *	  The ZooKeeper provider: its session, lease and generation.
 *
 * A session's life:
 *
 * 1. If a former process of this node left a session, a handle is attached to
 *	  that and closed, which frees its entries.  The same is done with a
 *	  session of our own that was given up (see 5).
 * 2. A new handle connects.  The library would keep trying, 60 times per timeout of
 *	  the session.  That is right for as long as there is a session to be saved; before, a
 *	  handle that has tried all servers in vain is replaced, after a pause that grows,
 *	  which also resolves the names anew.
 * 3. First contact: the generation is looked at, see generation_check(), then
 *	  the session is announced and requests are sent.
 * 4. A connection lost and found again: calls on their way have an unknown
 *	  outcome, each of them is dealt with by whoever made it.
 * 5. The server says that the session has expired, or there is no contact for
 *	  twice its timeout.  A server that came back empty or with older data
 *	  refuses a client that has seen newer ones, but never tells it so; hence the second.
 *
 * Lease.  The server counts a session's timeout from a client's last sign of
 * life.  In an ensemble it is the leader that counts; a follower tells
 * it of its clients twice a tick.  So an answer by a follower alone proves
 * nothing: cut off from its leader, it goes on answering reads for
 * a while.  Only answers that need the leader count here, those to writes and
 * to sync.  And the leader may have heard of the client half a tick before the
 * request was sent: a timeout is two ticks at least, hence a quarter of it is
 * taken off, and some more for clocks that run differently.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "zookeeper.h"

#define LEASE_OF_TIMEOUT(ms) ((int64_t) (ms) * NS_PER_MS * 7 / 10)
#define HEARTBEAT_OF_TIMEOUT(ms) ((int64_t) (ms) * NS_PER_MS / 6)

#define PAUSE_MIN		100		/* ms, before a new handle */
#define PAUSE_MAX		3000
#define PAUSE_ACCESS	10000	/* access was refused: somebody must act */
#define QUIET_MAX		(50 * NS_PER_MS)	/* until quiet answers are looked at */
#define TROUBLE_AFTER	(2000 * NS_PER_MS)	/* without contact before we say so */
#define PREVIOUS_TRIES	3		/* of a handle that gets no answer */

/* What the library logs when it has tried all servers, as a warning; it tells it by no other means */
#define LINE_EXHAUSTED	"Delaying connection after exhaustively trying all servers"

static void session_over(RaProvider *p, const char *detail, bool access);
static void generation_check(RaProvider *p);

/* ---- messages ---- */

void
ra_zk_log(RaProvider *p, RaProviderLevel level, const char *hint, const char *format,...)
{
	char		message[1024];
	va_list		args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	p->cb.log(p->arg, level, message, hint);
}

/* An answer nobody expects.  The same one again is told once. */
void
ra_zk_complain(RaProvider *p, int rc, const char *what)
{
	if (rc == p->complained)
		return;
	p->complained = rc;
	ra_zk_log(p, RA_PROVIDER_WARNING,
			  rc == ZNOAUTH ? "Check user and password, and the access control list of the nodes in ZooKeeper." : NULL,
			  "ZooKeeper refuses to %s: %s", what, zerror(rc));
}

void
ra_zk_ignore(RaProvider *p, ZkCall *call)
{
	(void) p;
	(void) call;
}

/* "pid(0xthread):ZOO_ERROR@function@line: text", with a time before it */
static void
on_line(RaProvider *p, const char *line)
{
	const char *level = strstr(line, ":ZOO_");
	const char *text = level != NULL ? strstr(level, ": ") : NULL;

	text = text != NULL ? text + 2 : line;
	if (level != NULL && strncmp(level, ":ZOO_ERROR", 10) == 0)
		snprintf(p->detail, sizeof(p->detail), "%.*s", (int) strcspn(text, "\n"), text);
	if (strncmp(text, LINE_EXHAUSTED, strlen(LINE_EXHAUSTED)) == 0)
		p->exhausted = true;
	ra_zk_log(p, RA_PROVIDER_DEBUG, NULL, "ZooKeeper client: %.*s", (int) strcspn(text, "\n"), text);
}

static void
trouble(RaProvider *p, const char *detail)
{
	if (p->trouble_told)
		return;
	p->trouble_told = true;
	ra_zk_log(p, RA_PROVIDER_WARNING, p->tls == NULL ?
			  "Check that the servers run, and the list of hosts. Attempts go on." :
			  "Check that the servers run, the list of hosts (of their secure ports), and the certificates of both sides. Attempts go on.",
			  "could not reach ZooKeeper at \"%s\": %s", p->hosts,
			  detail[0] != '\0' ? detail : "no answer");
}

/* ---- lease ---- */

/* Called for each answer */
static void
answer_proves(RaProvider *p, const ZkCall *call)
{
	int64_t		until = call->sent + LEASE_OF_TIMEOUT(p->timeout);

	if (!call->proves || !ra_zk_answered(call->rc) || p->session_id == 0)
		return;
	if (until > p->lease_until)
		p->lease_until = until;
	if (call->sent + HEARTBEAT_OF_TIMEOUT(p->timeout) > p->heartbeat_at)
		p->heartbeat_at = call->sent + HEARTBEAT_OF_TIMEOUT(p->timeout);
}

/* Not each time it grows by microseconds */
static void
lease_tell(RaProvider *p)
{
	if (p->phase != ZK_UP ||
		(p->lease_told != 0 &&
		 p->lease_until - p->lease_told < LEASE_OF_TIMEOUT(p->timeout) / 32))
		return;
	if (p->lease_until > p->lease_told)
	{
		p->lease_told = p->lease_until;
		p->cb.lease(p->arg, p->lease_told);
	}
}

static void
heartbeat_done(RaProvider *p, ZkCall *call)
{
	(void) call;
	p->heartbeat_flies = false;
}

static void
heartbeat(RaProvider *p)
{
	char		path[ZK_PATH_MAX];

	snprintf(path, sizeof(path), "/%s", p->cluster);
	p->heartbeat_flies = ra_zk_sync(p, heartbeat_done, NULL, path);
	p->heartbeat_at = ra_zk_now() + HEARTBEAT_OF_TIMEOUT(p->timeout);
}

/* ---- generation ---- */

static void
base_done(RaProvider *p, ZkCall *call)
{
	if (ra_zk_answered(call->rc) && call->rc != ZOK && call->rc != ZNODEEXISTS && call->rc != ZNONODE)
		ra_zk_complain(p, call->rc, "create the cluster's nodes");
}

/* What all else lies in.  Exists already, but for the first node of a cluster */
void
ra_zk_create_base(RaProvider *p)
{
	char		path[ZK_PATH_MAX];

	snprintf(path, sizeof(path), "/%s", p->cluster);
	ra_zk_create(p, base_done, NULL, path, "", 0, ZOO_PERSISTENT, false);
	snprintf(path, sizeof(path), "/%s/locks", p->cluster);
	ra_zk_create(p, base_done, NULL, path, "", 0, ZOO_PERSISTENT, false);
	snprintf(path, sizeof(path), "/%s/members", p->cluster);
	ra_zk_create(p, base_done, NULL, path, "", 0, ZOO_PERSISTENT, false);
	snprintf(path, sizeof(path), "/%s/decisions", p->cluster);
	ra_zk_create(p, base_done, NULL, path, "", 0, ZOO_PERSISTENT, false);
	snprintf(path, sizeof(path), "/%s/finished", p->cluster);
	ra_zk_create(p, base_done, NULL, path, "", 0, ZOO_PERSISTENT, false);
}

static void
access_refused(RaProvider *p)
{
	if (!p->access_told)
	{
		p->access_told = true;
		ra_zk_log(p, RA_PROVIDER_WARNING,
				  p->credentials != NULL ?
				  "Check user and password: the nodes belong to whoever created them." :
				  "The nodes were created with a user and password; set these here, too.",
				  "ZooKeeper refuses access to \"/%s\"", p->cluster);
	}
	snprintf(p->detail, sizeof(p->detail), "access to \"/%s\" refused: check user and password", p->cluster);
	session_over(p, "access refused", true);
}

/* A write at the start of a session tells whether the data is older than what we have seen */
static void
probe_done(RaProvider *p, ZkCall *call)
{
	if (call->rc != ZOK)
		return;
	if (call->stat.mzxid <= p->zxid_seen)
		p->generation_raise = true;
	p->zxid_seen = call->stat.mzxid;
}

/* Or a place in a queue turned out to be so: tokens would repeat */
void
ra_zk_generation_raise(RaProvider *p)
{
	p->generation_raise = true;
	p->generation_known = false;
	generation_check(p);
}

static void
generation_settled(RaProvider *p)
{
	char		description[RA_SESSION_MAX];
	const clientid_t *client = zoo_client_id(p->handle->zh);
	bool		first = p->phase == ZK_PREPARING;
	int			len;

	p->generation_known = true;
	if (p->generation > p->generation_seen)
		p->generation_seen = p->generation;
	if (!first && p->generation == p->generation_told)
	{
		ra_zk_queue_drive(p);
		return;
	}

	p->generation_told = p->generation;
	p->phase = ZK_UP;
	if (first)
	{
		p->pause = 0;
		p->access_told = false;
		p->complained = 0;
	}
	len = snprintf(description, sizeof(description), "zk1:%016" PRIx64 ":", (uint64_t) client->client_id);
	for (size_t i = 0; i < sizeof(client->passwd); i++)
		len += snprintf(description + len, sizeof(description) - len, "%02x",
						(unsigned char) client->passwd[i]);
	p->cb.session(p->arg, description, p->generation, p->timeout);
	lease_tell(p);
	if (first)
		ra_zk_members_up(p);
	ra_zk_queue_drive(p);
	ra_zk_decide_drive(p);
}

static void
generation_set_done(RaProvider *p, ZkCall *call)
{
	p->generation_flies = false;
	if (call->rc == ZNOAUTH)
		access_refused(p);
	else if (call->rc == ZOK || call->rc == ZBADVERSION || call->rc == ZNODEEXISTS)
	{
		/* Done, or somebody else was faster: what does it say now? */
		if (call->rc == ZOK)
			p->generation_raise = false;
		generation_check(p);
	}
	else
	{
		if (ra_zk_answered(call->rc))
			ra_zk_complain(p, call->rc, "write the generation");
		p->generation_at = ra_zk_now() + 1000 * NS_PER_MS;
	}
}

static void
generation_got(RaProvider *p, ZkCall *call)
{
	char		path[ZK_PATH_MAX];
	char		data[32];
	uint64_t	found = 0;
	uint64_t	wanted;
	char	   *end;
	int			len;

	p->generation_flies = false;
	snprintf(path, sizeof(path), "/%s/generation", p->cluster);

	if (call->rc != ZOK && call->subject != NULL)
		ra_zk_watch_drop(call->subject);
	if (!ra_zk_answered(call->rc))
	{
		/* the next connection brings us here again; without memory, time does */
		p->generation_at = ra_zk_now() + 1000 * NS_PER_MS;
		return;
	}
	if (call->rc == ZNOAUTH)
	{
		access_refused(p);
		return;
	}
	if (call->rc != ZOK && call->rc != ZNONODE)
	{
		ra_zk_complain(p, call->rc, "read the generation");
		p->generation_at = ra_zk_now() + 1000 * NS_PER_MS;
		return;
	}

	if (call->rc == ZOK)
	{
		errno = 0;
		found = strtoull(call->value, &end, 10);
		if (end == call->value || *end != '\0' || errno != 0)
		{
			ra_zk_log(p, RA_PROVIDER_WARNING, NULL, "\"%s\" in ZooKeeper is not a number: replacing it", path);
			found = 0;
		}
		if (found != 0 && found >= p->generation_seen && !p->generation_raise)
		{
			/* its watch has fired while this answer was on its way */
			if (ra_zk_watch_find(p, path) == NULL)
			{
				generation_check(p);
				return;
			}
			p->generation = found;
			generation_settled(p);
			return;
		}
	}

	/* Seconds: whoever has seen a generation nobody here knows of saw a lower one */
	wanted = (p->generation_seen > found ? p->generation_seen : found) + 1;
	if (found == 0 && wanted < (uint64_t) time(NULL))
		wanted = (uint64_t) time(NULL);
	len = snprintf(data, sizeof(data), "%" PRIu64, wanted);
	if (call->rc == ZOK)
		p->generation_flies = ra_zk_set(p, generation_set_done, NULL, path, data, len, call->stat.version);
	else
	{
		/* an empty service: its transactions may count from 0 */
		p->zxid_seen = 0;
		ra_zk_create_base(p);
		p->generation_flies = ra_zk_create(p, generation_set_done, NULL, path, data, len, ZOO_PERSISTENT, false);
	}
	if (!p->generation_flies)
		p->generation_at = ra_zk_now() + 1000 * NS_PER_MS;
}

/*
 * Find out the generation, and raise it if it must be.  Grants wait meanwhile.
 * It is watched: another node may raise it.  The server tells of that before
 * it shows us anything later, so no grant that follows a raise escapes it.
 */
static void
generation_check(RaProvider *p)
{
	char		path[ZK_PATH_MAX];
	ZkWatch    *watch;
	ZkWatch    *fresh = NULL;

	p->generation_at = INT64_MAX;
	if (p->generation_flies || !p->connected || (p->phase != ZK_PREPARING && p->phase != ZK_UP))
		return;

	/* in case this server lags behind */
	snprintf(path, sizeof(path), "/%s", p->cluster);
	ra_zk_sync(p, ra_zk_ignore, NULL, path);

	if (p->phase == ZK_PREPARING)
	{
		snprintf(path, sizeof(path), "/%s/locks", p->cluster);
		ra_zk_set(p, probe_done, NULL, path, "", 0, -1);
	}
	snprintf(path, sizeof(path), "/%s/generation", p->cluster);
	watch = ra_zk_watch_find(p, path);
	if (watch == NULL)
		watch = fresh = ra_zk_watch_new(p, path, ZK_WATCH_GENERATION);
	if (watch != NULL)
		p->generation_flies = ra_zk_get(p, generation_got, fresh, path, fresh);
	if (!p->generation_flies)
	{
		if (fresh != NULL)
			ra_zk_watch_drop(fresh);
		p->generation_at = ra_zk_now() + 1000 * NS_PER_MS;
	}
}

/* ---- session ---- */

static void
acl_got(RaProvider *p, ZkCall *call)
{
	if (!ra_zk_answered(call->rc))
		return;
	p->acl_checked = true;
	if (call->rc == ZOK && call->world)
		ra_zk_log(p, RA_PROVIDER_WARNING,
				  "Give it an access control list with that user only (setAcl), or remove it while no node is connected.",
				  "\"/%s\" in ZooKeeper is open to everybody although a user and password are set", p->cluster);
}

static void
prepare(RaProvider *p)
{
	char		path[ZK_PATH_MAX];

	if (p->credentials != NULL && !p->acl_checked)
	{
		snprintf(path, sizeof(path), "/%s", p->cluster);
		ra_zk_get_acl(p, acl_got, NULL, path);
	}
	generation_check(p);
}

static void
auth_done(RaProvider *p, ZkCall *call)
{
	if (call->rc == ZAUTHFAILED)
		access_refused(p);
}

static void
pause_phase(RaProvider *p, int ms)
{
	/* up to a half more, so that nodes don't come all at once */
	p->random = p->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	p->phase = ZK_PAUSE;
	p->phase_until = ra_zk_now() + ms * NS_PER_MS +
		(int64_t) ((p->random >> 33) % (uint64_t) (ms * (NS_PER_MS / 2) + 1));
}

static void
pause_longer(RaProvider *p)
{
	p->pause = p->pause == 0 ? PAUSE_MIN : p->pause * 2;
	if (p->pause > PAUSE_MAX)
		p->pause = PAUSE_MAX;
	pause_phase(p, p->pause);
}

/* How long a handle may try to connect */
static int64_t
connecting_time(RaProvider *p)
{
	return NS_PER_MS * ((p->ending ? 3 : 6) * p->timeout_wish + 5000);
}

void
ra_zk_start(RaProvider *p)
{
	ZkHandle   *handle = calloc(1, sizeof(*handle));

	if (handle == NULL)
	{
		pause_longer(p);
		return;
	}
	handle->event.kind = ZK_EVENT_HANDLE;
	handle->provider = p;
	p->ending = p->previous.client_id != 0;
	if (p->ending)
	{
		handle->attach = p->previous;
		if (p->previous_until == 0)
			p->previous_until = ra_zk_now() + PREVIOUS_TRIES * connecting_time(p);
	}
	p->handle = handle;
	p->connects_seen = 0;
	p->exhausted = false;
	if (!ra_zk_helper_start(handle, ZK_TASK_OPEN))
	{
		p->handle = NULL;
		free(handle);
		pause_longer(p);
		return;
	}
	p->phase = ZK_OPENING;
	p->phase_until = INT64_MAX;
}

/* The handle is of no more use.  When it is closed, see handle_closed(). */
static void
close_handle(RaProvider *p)
{
	ra_zk_handle_dead(p->handle);
	p->phase = ZK_CLOSING;
	p->phase_until = INT64_MAX;
	if (!ra_zk_helper_start(p->handle, ZK_TASK_CLOSE))
		p->phase_until = ra_zk_now() + 1000 * NS_PER_MS;
}

static void
handle_closed(RaProvider *p)
{
	ra_zk_handle_free(p->handle);
	p->handle = NULL;
	if (p->ending && p->previous.client_id == 0)
	{
		p->ending = false;
		ra_zk_start(p);
	}
	else if (p->pause >= PAUSE_ACCESS)
		pause_phase(p, p->pause);
	else
		pause_longer(p);
}

static void
set_disconnected(RaProvider *p)
{
	if (!p->connected)
		return;
	p->connected = false;
	p->disconnected_at = ra_zk_now();
	p->cb.connected(p->arg, false, p->detail[0] != '\0' ? p->detail : "connection lost");
}

/* The session ends, or never came to be */
static void
session_over(RaProvider *p, const char *detail, bool access)
{
	bool		announced = p->phase == ZK_UP;

	ra_zk_handle_dead(p->handle);
	p->phase = ZK_CLOSING;		/* callbacks may come back to us */
	set_disconnected(p);
	if (access)
	{
		p->pause = PAUSE_ACCESS;
		p->unreached_at = 0;
	}
	if (p->session_id != 0)
	{
		p->last_session2 = p->last_session;
		p->last_session = p->session_id;
	}
	p->session_id = 0;
	p->lease_until = p->lease_told = 0;
	p->heartbeat_flies = false;
	p->generation_flies = false;
	p->generation_known = false;
	p->generation_at = INT64_MAX;
	ra_zk_list_over(p, "session lost");
	ra_zk_members_over(p);
	ra_zk_queue_over(p);
	ra_zk_decide_over(p);
	if (announced)
		p->cb.session_lost(p->arg, detail);
	close_handle(p);
}

static void
set_connected(RaProvider *p, unsigned connects, int timeout, const char *peer)
{
	if (p->ending)
	{
		/* it is ours: closing it ends the session */
		p->previous.client_id = 0;
		p->unreached_at = 0;
		close_handle(p);
		return;
	}

	p->connected = true;
	p->connects_seen = connects;
	p->timeout = timeout;
	p->session_id = zoo_client_id(p->handle->zh)->client_id;
	p->trouble_told = false;
	p->unreached_at = 0;
	p->detail[0] = '\0';
	p->cb.connected(p->arg, true, peer);
	if (p->phase == ZK_CONNECTING)
	{
		p->phase = ZK_PREPARING;
		p->phase_until = INT64_MAX;
		p->heartbeat_at = 0;
		prepare(p);
	}
	else if (p->phase == ZK_PREPARING)
		prepare(p);
	else
	{
		heartbeat(p);
		if (!p->generation_known)
			generation_check(p);
		ra_zk_members_reconnected(p);
		ra_zk_queue_reconnected(p);
		ra_zk_decide_drive(p);
	}
}

/* What the library's threads and the helper have noted in the handle */
static void
handle_event(RaProvider *p)
{
	ZkHandle   *handle = p->handle;
	int			state;
	unsigned	connects;
	int			timeout;
	bool		done;
	char		peer[sizeof(handle->peer)];

	pthread_mutex_lock(&p->lock);
	state = handle->state;
	connects = handle->connects;
	timeout = handle->timeout;
	done = handle->done;
	memcpy(peer, handle->peer, sizeof(peer));
	pthread_mutex_unlock(&p->lock);

	if (handle->helper_runs)
	{
		if (!done)
			return;
		pthread_join(handle->helper, NULL);
		handle->helper_runs = false;
		if (handle->task == ZK_TASK_CLOSE)
		{
			handle_closed(p);
			return;
		}
		if (handle->zh == NULL)
		{
			char		detail[sizeof(handle->problem)];

			snprintf(detail, sizeof(detail), "%s", handle->problem[0] != '\0' ? handle->problem :
					 handle->open_error == ENOENT || handle->open_error == EINVAL || handle->open_error == 0 ?
					 "host names can't be resolved" : strerror(handle->open_error));
			trouble(p, detail);
			ra_zk_handle_free(handle);
			p->handle = NULL;
			pause_longer(p);
			return;
		}
		p->phase = ZK_CONNECTING;
		p->disconnected_at = ra_zk_now();
		if (p->unreached_at == 0)
			p->unreached_at = p->disconnected_at;
		p->phase_until = p->disconnected_at + connecting_time(p);
		if (p->credentials != NULL && !p->ending)
			ra_zk_add_auth(p, auth_done);
	}
	if (handle->dead)
		return;

	if (state == ZOO_EXPIRED_SESSION_STATE)
	{
		if (!p->ending)
		{
			session_over(p, "session expired", false);
			return;
		}
		p->previous.client_id = 0;
		close_handle(p);
		return;
	}
	if (state == ZOO_AUTH_FAILED_STATE)
	{
		access_refused(p);
		return;
	}

	/* States in between may have been missed; a reconnect counts, though */
	if (p->connected && (state != ZOO_CONNECTED_STATE || connects != p->connects_seen))
		set_disconnected(p);
	if (!p->connected && state == ZOO_CONNECTED_STATE)
		set_connected(p, connects, timeout, peer);
}

static void
watch_fired(RaProvider *p, ZkWatch *watch)
{
	p->stats.fired++;
	if (watch->handle->dead)
		return;
	switch (watch->kind)
	{
		case ZK_WATCH_ENTRY:
			ra_zk_queue_fired(p, watch);
			break;
		case ZK_WATCH_GENERATION:
			ra_zk_watch_drop(watch);
			p->generation_known = false;
			generation_check(p);
			break;
		case ZK_WATCH_MEMBERS:
		case ZK_WATCH_MEMBER:
			ra_zk_members_fired(p, watch);
			break;
	}
}

/* ---- time ---- */

static int64_t
earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* When to give a session up, see 5. at the top */
static int64_t
give_up_at(RaProvider *p)
{
	return p->disconnected_at + NS_PER_MS * 2 * p->timeout;
}

static void
tick(RaProvider *p)
{
	int64_t		now = ra_zk_now();

	if (p->phase == ZK_PAUSE && now >= p->phase_until)
	{
		if (p->previous.client_id != 0 && p->previous_until != 0 && now >= p->previous_until)
			p->previous.client_id = 0;
		ra_zk_start(p);
	}
	else if (p->phase == ZK_CLOSING && now >= p->phase_until)
		close_handle(p);
	else if (p->phase == ZK_CONNECTING && (p->exhausted || now >= p->phase_until))
	{
		if (!p->exhausted || now >= p->unreached_at + TROUBLE_AFTER)
			trouble(p, p->detail);
		session_over(p, "no contact", false);
	}
	else if ((p->phase == ZK_UP || p->phase == ZK_PREPARING) && !p->connected && now >= give_up_at(p))
	{
		trouble(p, p->detail);
		p->previous = *zoo_client_id(p->handle->zh);
		p->previous_until = 0;
		session_over(p, "no contact for twice the session's timeout", false);
	}

	if ((p->phase == ZK_CONNECTING || p->phase == ZK_UP) && !p->connected && !p->trouble_told &&
		now >= p->disconnected_at + TROUBLE_AFTER)
		trouble(p, p->detail);

	ra_zk_decide_tick(p, now);
	if (!p->connected)
		return;
	if (p->generation_at <= now)
		generation_check(p);
	if (!ra_zk_ready(p))
		return;
	if (!p->heartbeat_flies && now >= p->heartbeat_at)
		heartbeat(p);
	if (p->requests_at <= now)
		ra_zk_queue_drive(p);
	ra_zk_members_tick(p, now);
}

int
ra_zk_wait_for(RaProvider *p, bool *writable, int64_t *until)
{
	int64_t		next = INT64_MAX;

	if (p->phase == ZK_PAUSE || p->phase == ZK_CONNECTING || p->phase == ZK_CLOSING)
		next = p->phase_until;
	if ((p->phase == ZK_UP || p->phase == ZK_PREPARING) && !p->connected)
		next = earlier(next, give_up_at(p));
	if ((p->phase == ZK_CONNECTING || p->phase == ZK_UP) && !p->connected && !p->trouble_told)
		next = earlier(next, p->disconnected_at + TROUBLE_AFTER);
	if (p->connected)
		next = earlier(next, p->generation_at);
	next = earlier(next, ra_zk_decide_until(p));
	if (ra_zk_ready(p))
	{
		if (p->handle->nquiet > 0)
			next = earlier(next, ra_zk_now() + QUIET_MAX);
		if (!p->heartbeat_flies)
			next = earlier(next, p->heartbeat_at);
		next = earlier(next, p->requests_at);
		next = earlier(next, ra_zk_members_tick(p, 0));
	}
	*writable = false;
	*until = next;
	return p->eventfd;
}

void
ra_zk_process(RaProvider *p)
{
	ZkEvent    *event;

	while ((event = ra_zk_pop(p)) != NULL)
	{
		switch (event->kind)
		{
			case ZK_EVENT_CALL:
				if (!((ZkCall *) event)->handle->dead)
					answer_proves(p, (ZkCall *) event);
				ra_zk_call_end(p, (ZkCall *) event);
				break;
			case ZK_EVENT_WATCH:
				watch_fired(p, (ZkWatch *) event);
				break;
			case ZK_EVENT_HANDLE:
				handle_event(p);
				break;
			case ZK_EVENT_LINE:
				on_line(p, ((ZkLine *) event)->text);
				free(event);
				break;
		}
		lease_tell(p);
	}
	tick(p);
	ra_zk_members_tell(p);
}
