/*
 * zookeeper_handle.c
 *	  The threads, and what passes between them and the main one.
 *
 * The library makes two threads for each handle.  They run with all signals
 * blocked, since handlers of the process must not run there, and call the
 * functions marked "library's thread" here, which do no more than described in zookeeper.h.
 *
 * Opening a handle resolves host names, and closing one joins the threads and
 * may wait for the server's answer, seconds in both cases.  So a helper thread
 * of ours does either.  It is not one of the library's, from which a handle
 * must not be closed.  After zookeeper_close() none of the library's threads
 * runs; calls that it never answered are freed then.
 *
 * Lock order: lines_lock, then a provider's lock.
 */
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "zookeeper.h"

#define LINES_MAX		64		/* of log, waiting to be looked at */

/* The library hands over a line without saying whose it is: all get it */
static pthread_mutex_t lines_lock = PTHREAD_MUTEX_INITIALIZER;
static RaProvider *lines_wanted;

int64_t
ra_zk_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* ---- events ---- */

/*
 * Under the lock.  An event that waits already need not be there twice.
 * A quiet one waits until the main thread comes by for another reason.
 */
static void
push_locked(RaProvider *p, ZkEvent *event, bool quiet)
{
	uint64_t	one = 1;

	if (event->queued)
		return;
	event->queued = true;
	event->next = NULL;
	/* the write fails only if it is readable for long */
	if (!quiet && !p->signalled)
		p->signalled = write(p->eventfd, &one, sizeof(one)) == sizeof(one);
	*p->events_end = event;
	p->events_end = &event->next;
}

/*
 * The oldest event, or NULL.  The descriptor is read empty when the queue is
 * found empty, under the lock, so that it is readable whenever an event waits
 * that isn't quiet.
 */
ZkEvent *
ra_zk_pop(RaProvider *p)
{
	ZkEvent    *event;

	pthread_mutex_lock(&p->lock);
	event = p->events;
	if (event != NULL)
	{
		p->events = event->next;
		if (p->events == NULL)
			p->events_end = &p->events;
		event->queued = false;
		if (event->kind == ZK_EVENT_LINE)
			p->nlines--;
	}
	else if (p->signalled)
	{
		uint64_t	count;
		ssize_t		got = read(p->eventfd, &count, sizeof(count));

		(void) got;
		p->signalled = false;
	}
	pthread_mutex_unlock(&p->lock);
	return event;
}

static ZkHandle *
event_handle(ZkEvent *event)
{
	switch (event->kind)
	{
		case ZK_EVENT_CALL:
			return ((ZkCall *) event)->handle;
		case ZK_EVENT_WATCH:
			return ((ZkWatch *) event)->handle;
		case ZK_EVENT_HANDLE:
			return (ZkHandle *) event;
		case ZK_EVENT_LINE:
			break;
	}
	return NULL;
}

/* ---- library's thread: session and log ---- */

/* Address of the server, as text; best effort */
static void
peer_name(zhandle_t *zh, char *text, size_t size)
{
	struct sockaddr_storage address;
	socklen_t	len = sizeof(address);
	char		host[46];
	char		port[8];

	text[0] = '\0';
	if (zookeeper_get_connected_host(zh, (struct sockaddr *) &address, &len) != NULL &&
		getnameinfo((struct sockaddr *) &address, len, host, sizeof(host), port, sizeof(port),
					NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(text, size, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

static void
on_session(zhandle_t *zh, int type, int state, const char *path, void *context)
{
	ZkHandle   *handle = context;
	char		peer[sizeof(handle->peer)];
	int			timeout = 0;

	(void) path;
	if (type != ZOO_SESSION_EVENT)
		return;
	if (state == ZOO_CONNECTED_STATE)
	{
		peer_name(zh, peer, sizeof(peer));
		timeout = zoo_recv_timeout(zh);
	}

	pthread_mutex_lock(&handle->provider->lock);
	handle->state = state;
	if (state == ZOO_CONNECTED_STATE)
	{
		handle->connects++;
		handle->timeout = timeout;
		memcpy(handle->peer, peer, sizeof(peer));
	}
	push_locked(handle->provider, &handle->event, false);
	pthread_mutex_unlock(&handle->provider->lock);
}

static void
on_line(const char *message)
{
	size_t		len = strlen(message) + 1;

	pthread_mutex_lock(&lines_lock);
	for (RaProvider *p = lines_wanted; p != NULL; p = p->next_provider)
	{
		ZkLine	   *line;

		pthread_mutex_lock(&p->lock);
		if (p->nlines < LINES_MAX && (line = calloc(1, sizeof(*line) + len)) != NULL)
		{
			line->event.kind = ZK_EVENT_LINE;
			memcpy(line->text, message, len);
			p->nlines++;
			push_locked(p, &line->event, false);
		}
		pthread_mutex_unlock(&p->lock);
	}
	pthread_mutex_unlock(&lines_lock);
}

void
ra_zk_log_sink(RaProvider *p, bool add)
{
	pthread_mutex_lock(&lines_lock);
	if (add)
	{
		p->next_provider = lines_wanted;
		lines_wanted = p;
	}
	else
		for (RaProvider **at = &lines_wanted; *at != NULL; at = &(*at)->next_provider)
			if (*at == p)
			{
				*at = p->next_provider;
				break;
			}
	pthread_mutex_unlock(&lines_lock);
}

/* ---- opening and closing ---- */

/* Our own thread */
static void *
helper_main(void *arg)
{
	ZkHandle   *handle = arg;
	RaProvider *p = handle->provider;
	zhandle_t  *zh = handle->zh;
	int			open_error = 0;
	bool		abandoned;

	if (handle->task == ZK_TASK_OPEN)
	{
		const clientid_t *attach = handle->attach.client_id != 0 ? &handle->attach : NULL;

		if (p->tls != NULL)
			zh = ra_zk_tls_init(handle, on_session, attach, on_line);
		else
			zh = zookeeper_init2(p->hosts, on_session, p->timeout_wish, attach, handle,
								 ZOO_NO_LOG_CLIENTENV, on_line);
		open_error = errno;

		/* else it would resolve the names before each request */
		if (zh != NULL)
			zoo_set_servers_resolution_delay(zh, -1);
	}
	else
	{
		zookeeper_close(zh);
		zh = NULL;
	}

	pthread_mutex_lock(&p->lock);
	handle->zh = zh;
	handle->open_error = open_error;
	handle->done = true;
	push_locked(p, &handle->event, false);
	abandoned = p->abandoned;
	pthread_mutex_unlock(&p->lock);

	if (abandoned)
	{
		if (zh != NULL)
			zookeeper_close(zh);
		handle->zh = NULL;
		ra_zk_handle_free(handle);
		p->handle = NULL;
		ra_zk_provider_free(p);
	}
	return NULL;
}

bool
ra_zk_helper_start(ZkHandle *handle, ZkTask task)
{
	sigset_t	all;
	sigset_t	before;
	int			rc;

	handle->task = task;
	handle->done = false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&handle->helper, NULL, helper_main, handle);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	handle->helper_runs = rc == 0;
	return rc == 0;
}

static void
call_free(ZkCall *call)
{
	free(call->value);
	free(call->names);
	free(call->results);
	free(call);
}

/* From here on nothing is told at once */
void
ra_zk_handle_dead(ZkHandle *handle)
{
	pthread_mutex_lock(&handle->provider->lock);
	handle->dead = true;
	pthread_mutex_unlock(&handle->provider->lock);
}

/* Of a handle that is closed, or never was open */
void
ra_zk_handle_free(ZkHandle *handle)
{
	RaProvider *p = handle->provider;
	ZkCall	   *call;
	ZkWatch    *watch;

	pthread_mutex_lock(&p->lock);
	for (ZkEvent **at = &p->events; *at != NULL;)
	{
		if (event_handle(*at) == handle)
			*at = (*at)->next;
		else
			at = &(*at)->next;
	}
	p->events_end = &p->events;
	while (*p->events_end != NULL)
		p->events_end = &(*p->events_end)->next;
	pthread_mutex_unlock(&p->lock);

	while ((call = handle->calls) != NULL)
	{
		handle->calls = call->next;
		call_free(call);
	}
	for (int i = 0; i < ZK_WATCH_HASH; i++)
		while ((watch = handle->watches[i]) != NULL)
		{
			handle->watches[i] = watch->next;
			free(watch);
		}
	free(handle);
}

/* ---- library's thread: completions ---- */

static void
complete(ZkCall *call, int rc)
{
	RaProvider *p = call->handle->provider;
	bool		quiet = call->quiet && rc == ZOK;
	ZkTold		told;

	call->rc = rc;
	told.n = 0;
	pthread_mutex_lock(&p->lock);
	if (call->at_once != NULL && !call->handle->dead)
		quiet = call->at_once(p, call, &told);
	push_locked(p, &call->event, quiet);
	pthread_mutex_unlock(&p->lock);

	/* whoever wakes up may take this processor: not while others wait for the lock */
	for (int i = 0; i < told.n; i++)
		p->cb.wake(p->arg, told.whom[i]);
}

static bool
copy_value(ZkCall *call, const char *value, int len)
{
	if (value == NULL || len < 0)
		len = 0;
	call->value = malloc((size_t) len + 1);
	if (call->value == NULL)
		return false;
	if (len > 0)
		memcpy(call->value, value, (size_t) len);
	call->value[len] = '\0';
	call->value_len = len;
	return true;
}

static bool
copy_names(ZkCall *call, const struct String_vector *names)
{
	size_t		size = (size_t) names->count * sizeof(char *) + 1;
	char	   *text;

	for (int i = 0; i < names->count; i++)
		size += strlen(names->data[i]) + 1;
	call->names = malloc(size);
	if (call->names == NULL)
		return false;
	text = (char *) (call->names + names->count);
	for (int i = 0; i < names->count; i++)
	{
		size_t		len = strlen(names->data[i]) + 1;

		call->names[i] = memcpy(text, names->data[i], len);
		text += len;
	}
	call->nnames = names->count;
	return true;
}

static void
on_void(int rc, const void *data)
{
	complete((ZkCall *) data, rc);
}

static void
on_stat(int rc, const struct Stat *stat, const void *data)
{
	ZkCall	   *call = (ZkCall *) data;

	if (rc == ZOK && stat != NULL)
		call->stat = *stat;
	complete(call, rc);
}

static void
on_data(int rc, const char *value, int len, const struct Stat *stat, const void *data)
{
	ZkCall	   *call = (ZkCall *) data;

	if (rc == ZOK)
	{
		if (!copy_value(call, value, len))
			rc = ZSYSTEMERROR;
		if (stat != NULL)
			call->stat = *stat;
	}
	complete(call, rc);
}

static void
on_string(int rc, const char *value, const void *data)
{
	(void) value;
	complete((ZkCall *) data, rc);
}

static void
on_string_stat(int rc, const char *value, const struct Stat *stat, const void *data)
{
	ZkCall	   *call = (ZkCall *) data;

	if (rc == ZOK)
	{
		if (value == NULL || stat == NULL || !copy_value(call, value, (int) strlen(value)))
			rc = ZSYSTEMERROR;
		else
			call->stat = *stat;
	}
	complete(call, rc);
}

static void
on_names(int rc, const struct String_vector *names, const void *data)
{
	ZkCall	   *call = (ZkCall *) data;

	if (rc == ZOK && (names == NULL || !copy_names(call, names)))
		rc = ZSYSTEMERROR;
	complete(call, rc);
}

static void
on_acl(int rc, struct ACL_vector *acl, struct Stat *stat, const void *data)
{
	ZkCall	   *call = (ZkCall *) data;

	(void) stat;
	if (rc == ZOK && acl != NULL)
		for (int i = 0; i < acl->count; i++)
			if (strcmp(acl->data[i].id.scheme, "world") == 0 && acl->data[i].perms != 0)
				call->world = true;
	complete(call, rc);
}

/* Session events go to every watch as well; only on_session() needs them */
static void
on_watch(zhandle_t *zh, int type, int state, const char *path, void *context)
{
	ZkWatch    *watch = context;

	(void) zh;
	(void) state;
	(void) path;
	if (type == ZOO_SESSION_EVENT)
		return;
	pthread_mutex_lock(&watch->handle->provider->lock);
	watch->type = type;
	push_locked(watch->handle->provider, &watch->event, false);
	pthread_mutex_unlock(&watch->handle->provider->lock);
}

/* ---- calls ---- */

static ZkCall *
call_new(RaProvider *p, ZkDone done, void *subject)
{
	ZkHandle   *handle = p->handle;
	ZkCall	   *call = calloc(1, sizeof(*call));

	if (call == NULL)
		return NULL;
	call->event.kind = ZK_EVENT_CALL;
	call->handle = handle;
	call->done = done;
	call->subject = subject;
	call->next = handle->calls;
	if (call->next != NULL)
		call->next->prev = call;
	handle->calls = call;
	call->sent = ra_zk_now();
	return call;
}

static void
call_quiet(ZkCall *call, bool quiet)
{
	call->quiet = quiet;
	if (quiet)
		call->handle->nquiet++;
}

/* A call that the library refused ends by the same way as the others */
static bool
call_sent(ZkCall *call, int rc)
{
	if (rc != ZOK)
		complete(call, rc);
	return true;
}

/*
 * Is there a connection, not only as far as the main thread has heard?  zoo_amulti() on a session that has
 * expired frees paths that are not its own (3.8.0), as it does if any path but the last one is malformed.  And what
 * is sent without a connection would be kept by the library until there is one.  The state may change right after; to
 * expired it does so by way of a new connection only.
 */
bool
ra_zk_alive(RaProvider *p)
{
	return zoo_state(p->handle->zh) == ZOO_CONNECTED_STATE;
}

/* From the queue, by the main thread: make the call's end known, and free it */
void
ra_zk_call_end(RaProvider *p, ZkCall *call)
{
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		call->handle->calls = call->next;
	if (call->next != NULL)
		call->next->prev = call->prev;
	if (call->quiet)
		call->handle->nquiet--;
	if (!call->handle->dead)
		call->done(p, call);
	call_free(call);
}

static bool
create(RaProvider *p, ZkDone done, ZkAtOnce at_once, void *subject, const char *path,
	   const char *data, int len, int mode, bool quiet)
{
	ZkCall	   *call = call_new(p, done, subject);

	if (call == NULL)
		return false;
	p->stats.creates++;
	call->at_once = at_once;
	call_quiet(call, quiet);
	call->proves = true;
	if (at_once != NULL && !ra_zk_alive(p))
		return call_sent(call, ZCONNECTIONLOSS);
	return call_sent(call, zoo_acreate2(p->handle->zh, path, data, len, p->acl, mode,
										on_string_stat, call));
}

bool
ra_zk_create(RaProvider *p, ZkDone done, void *subject, const char *path,
			 const char *data, int len, int mode, bool quiet)
{
	return create(p, done, NULL, subject, path, data, len, mode, quiet);
}

/* A persistent node whose creation somebody waits for */
bool
ra_zk_create_at_once(RaProvider *p, ZkDone done, ZkAtOnce at_once, void *subject,
					 const char *path, const char *data, int len)
{
	return create(p, done, at_once, subject, path, data, len, ZOO_PERSISTENT, true);
}

bool
ra_zk_delete(RaProvider *p, ZkDone done, void *subject, const char *path, int version, bool quiet)
{
	ZkCall	   *call = call_new(p, done, subject);

	if (call == NULL)
		return false;
	p->stats.deletes++;
	call_quiet(call, quiet);
	call->proves = true;
	return call_sent(call, zoo_adelete(p->handle->zh, path, version, on_void, call));
}

/* All of the operations or none; they are n, and freed */
static bool
send_multi(RaProvider *p, ZkCall *call, zoo_op_t *ops, int n)
{
	int			rc;

	call->proves = true;
	call->results = calloc(n, sizeof(*call->results));
	if (ops == NULL || call->results == NULL)
		rc = ZSYSTEMERROR;
	else if (!ra_zk_alive(p))
		rc = ZCONNECTIONLOSS;
	else
		rc = zoo_amulti(p->handle->zh, n, ops, call->results, on_void, call);
	free(ops);					/* the library has written the request */
	return call_sent(call, rc);
}

/* All of them or none */
bool
ra_zk_delete_all(RaProvider *p, ZkDone done, void *subject, char *const *paths, int n)
{
	ZkCall	   *call = call_new(p, done, subject);
	zoo_op_t   *ops;

	if (call == NULL)
		return false;
	p->stats.deletes++;
	ops = calloc(n, sizeof(*ops));
	for (int i = 0; ops != NULL && i < n; i++)
		zoo_delete_op_init(&ops[i], paths[i], -1);
	return send_multi(p, call, ops, n);
}

/* All of them or none: persistent nodes.  values: NULL for none; at_once: NULL if nobody waits */
bool
ra_zk_create_all(RaProvider *p, ZkDone done, ZkAtOnce at_once, void *subject,
				 char *const *paths, char *const *values, int n)
{
	ZkCall	   *call = call_new(p, done, subject);
	zoo_op_t   *ops;

	if (call == NULL)
		return false;
	p->stats.creates++;
	call->at_once = at_once;
	call_quiet(call, at_once != NULL);
	ops = calloc(n, sizeof(*ops));
	for (int i = 0; ops != NULL && i < n; i++)
	{
		const char *value = values != NULL ? values[i] : "";

		zoo_create_op_init(&ops[i], paths[i], value, (int) strlen(value), p->acl, ZOO_PERSISTENT, NULL, 0);
	}
	return send_multi(p, call, ops, n);
}

bool
ra_zk_set(RaProvider *p, ZkDone done, void *subject, const char *path,
		  const char *data, int len, int version)
{
	ZkCall	   *call = call_new(p, done, subject);

	if (call == NULL)
		return false;
	call->proves = true;
	return call_sent(call, zoo_aset(p->handle->zh, path, data, len, version, on_stat, call));
}

/* With a watch, or NULL: the library keeps it only if the node exists */
bool
ra_zk_get(RaProvider *p, ZkDone done, void *subject, const char *path, ZkWatch *watch)
{
	ZkCall	   *call = call_new(p, done, subject);

	if (call == NULL)
		return false;
	return call_sent(call, zoo_awget(p->handle->zh, path, watch != NULL ? on_watch : NULL, watch,
									 on_data, call));
}

bool
ra_zk_exists(RaProvider *p, ZkDone done, void *subject, const char *path)
{
	ZkCall	   *call = call_new(p, done, subject);

	if (call == NULL)
		return false;
	return call_sent(call, zoo_aexists(p->handle->zh, path, 0, on_stat, call));
}

bool
ra_zk_children(RaProvider *p, ZkDone done, void *subject, const char *path, ZkWatch *watch)
{
	ZkCall	   *call = call_new(p, done, subject);

	if (call == NULL)
		return false;
	p->stats.lists++;
	return call_sent(call, zoo_awget_children(p->handle->zh, path, watch != NULL ? on_watch : NULL,
											  watch, on_names, call));
}

bool
ra_zk_sync(RaProvider *p, ZkDone done, void *subject, const char *path)
{
	ZkCall	   *call = call_new(p, done, subject);

	if (call == NULL)
		return false;
	call->proves = true;
	return call_sent(call, zoo_async(p->handle->zh, path, on_string, call));
}

bool
ra_zk_get_acl(RaProvider *p, ZkDone done, void *subject, const char *path)
{
	ZkCall	   *call = call_new(p, done, subject);

	if (call == NULL)
		return false;
	return call_sent(call, zoo_aget_acl(p->handle->zh, path, on_acl, call));
}

bool
ra_zk_add_auth(RaProvider *p, ZkDone done)
{
	ZkCall	   *call = call_new(p, done, NULL);

	if (call == NULL)
		return false;
	return call_sent(call, zoo_add_auth(p->handle->zh, "digest", p->credentials,
										(int) strlen(p->credentials), on_void, call));
}

/* ---- watches ---- */

static ZkWatch **
watch_slot(ZkHandle *handle, const char *path)
{
	uint32_t	hash = UINT32_C(2166136261);

	for (const char *c = path; *c != '\0'; c++)
		hash = (hash ^ (unsigned char) *c) * UINT32_C(16777619);
	return &handle->watches[(hash ^ hash >> 16) % ZK_WATCH_HASH];
}

ZkWatch *
ra_zk_watch_find(RaProvider *p, const char *path)
{
	ZkWatch    *watch = *watch_slot(p->handle, path);

	while (watch != NULL && strcmp(watch->path, path) != 0)
		watch = watch->next;
	return watch;
}

ZkWatch *
ra_zk_watch_new(RaProvider *p, const char *path, ZkWatchKind kind)
{
	ZkWatch   **slot = watch_slot(p->handle, path);
	ZkWatch    *watch = calloc(1, sizeof(*watch) + strlen(path) + 1);

	if (watch == NULL)
		return NULL;
	watch->event.kind = ZK_EVENT_WATCH;
	watch->handle = p->handle;
	watch->kind = kind;
	strcpy(watch->path, path);
	watch->next = *slot;
	*slot = watch;
	return watch;
}

/* It has fired, or the library never took it: the caller frees it */
void
ra_zk_watch_unlink(ZkWatch *watch)
{
	ZkWatch   **at = watch_slot(watch->handle, watch->path);

	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
}

void
ra_zk_watch_drop(ZkWatch *watch)
{
	ra_zk_watch_unlink(watch);
	free(watch);
}
