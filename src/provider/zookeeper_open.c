/*
 * zookeeper_open.c
 *	  The ZooKeeper provider's beginning and end, and its table of operations.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "zookeeper.h"

static bool
valid_hosts(const char *hosts)
{
	const char *at = hosts;

	for (;;)
	{
		size_t		len;
		char	   *end;
		long		port;

		if (*at == '[')
		{
			len = strspn(at + 1, "0123456789abcdefABCDEF:.%");
			if (len == 0 || at[len + 1] != ']')
				return false;
			at += len + 2;
		}
		else
		{
			len = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
			if (len == 0)
				return false;
			at += len;
		}
		if (*at++ != ':' || !isdigit((unsigned char) *at))
			return false;
		port = strtol(at, &end, 10);
		if (port < 1 || port > 65535)
			return false;
		at = end;
		if (*at == '\0')
			return true;
		if (*at++ != ',')
			return false;
	}
}

/* "zookeeper" is the service's own */
static bool
valid_cluster(const char *cluster)
{
	size_t		len = strlen(cluster);

	return len > 0 && len <= ZK_CLUSTER_MAX &&
		strspn(cluster, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == len &&
		strcmp(cluster, ".") != 0 && strcmp(cluster, "..") != 0 && strcmp(cluster, "zookeeper") != 0;
}

/* As generation_settled() writes it; anything else is of another provider */
static void
parse_description(const char *description, clientid_t *client)
{
	uint64_t	id;
	int			at = 0;

	if (sscanf(description, "zk1:%16" SCNx64 ":%n", &id, &at) != 1 || at == 0 ||
		strlen(description + at) != 2 * sizeof(client->passwd))
		return;
	for (size_t i = 0; i < sizeof(client->passwd); i++)
	{
		unsigned	byte;

		if (sscanf(description + at + 2 * i, "%2x", &byte) != 1)
			return;
		client->passwd[i] = (char) byte;
	}
	client->client_id = (int64_t) id;
}

void
ra_zk_provider_free(RaProvider *p)
{
	ZkEvent    *event;

	ra_zk_queue_free(p);
	ra_zk_members_free(p);
	ra_zk_list_free(p);
	ra_zk_decide_free(p);
	while ((event = ra_zk_pop(p)) != NULL)
		free(event);			/* lines: handles take theirs with them */
	if (p->eventfd >= 0)
		close(p->eventfd);
	pthread_mutex_destroy(&p->lock);
	if (p->credentials != NULL)
		explicit_bzero(p->credentials, strlen(p->credentials));
	free(p->credentials);
	ra_zk_tls_free(p->tls);
	free(p->hosts);
	free(p->node);
	free(p);
}

static RaProvider *
zk_open(const RaProviderConfig *config, const RaProviderCallbacks *callbacks, void *arg,
		char *error, int error_size)
{
	RaProvider *p;

	if (!valid_hosts(config->hosts))
	{
		snprintf(error, (size_t) error_size, "\"%s\" is not a list of host:port", config->hosts);
		return NULL;
	}
	if (!valid_cluster(config->cluster))
	{
		snprintf(error, (size_t) error_size,
				 "\"%s\" can't be a cluster's name: up to %d letters, digits, \"_\", \"-\" and \".\", and not \"zookeeper\"",
				 config->cluster, ZK_CLUSTER_MAX);
		return NULL;
	}
	if (config->node[0] == '\0' || strlen(config->node) > RA_NODE_MAX)
	{
		snprintf(error, (size_t) error_size, "a node's name has 1 to %d bytes", RA_NODE_MAX);
		return NULL;
	}
	if (config->session_timeout_ms <= 0)
	{
		snprintf(error, (size_t) error_size, "the session's timeout must be positive");
		return NULL;
	}

	p = calloc(1, sizeof(*p));
	if (p == NULL)
	{
		snprintf(error, (size_t) error_size, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&p->lock, NULL);
	p->cb = *callbacks;
	p->arg = arg;
	p->events_end = &p->events;
	p->requests_end = &p->requests;
	p->requests_at = p->generation_at = INT64_MAX;
	p->timeout_wish = p->timeout = config->session_timeout_ms;
	p->generation_seen = config->generation_seen;
	strcpy(p->cluster, config->cluster);
	ra_zk_escape(p->nodename, sizeof(p->nodename), config->node, (int) strlen(config->node));
	p->acl = config->user != NULL ? &ZOO_CREATOR_ALL_ACL : &ZOO_OPEN_ACL_UNSAFE;
	if (config->previous_session != NULL)
		parse_description(config->previous_session, &p->previous);
	p->last_session = p->previous.client_id;
	if (getrandom(&p->random, sizeof(p->random), GRND_NONBLOCK) < 0)
		p->random = (uint64_t) ra_zk_now();

	p->hosts = strdup(config->hosts);
	p->node = strdup(config->node);
	if (config->user != NULL)
	{
		const char *password = config->password != NULL ? config->password : "";
		size_t		size = strlen(config->user) + strlen(password) + 2;

		p->credentials = malloc(size);
		if (p->credentials != NULL)
			snprintf(p->credentials, size, "%s:%s", config->user, password);
	}
	p->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (p->eventfd < 0 || p->hosts == NULL || p->node == NULL ||
		(config->user != NULL && p->credentials == NULL))
	{
		snprintf(error, (size_t) error_size, "could not start: %s", strerror(errno));
		ra_zk_provider_free(p);
		return NULL;
	}
	if (config->tls != NULL && (p->tls = ra_zk_tls_new(config->tls, error, error_size)) == NULL)
	{
		ra_zk_provider_free(p);
		return NULL;
	}

	/* Debugging has a bug there that makes it use freed memory (ZOOKEEPER-4809) */
	zoo_set_debug_level(ZOO_LOG_LEVEL_WARN);
	ra_zk_log_sink(p, true);
	ra_zk_start(p);
	return p;
}

/* Wait for the helper; false at the deadline */
static bool
helper_wait(RaProvider *p, int64_t deadline)
{
	for (;;)
	{
		struct pollfd fd = {.fd = p->eventfd, .events = POLLIN};
		uint64_t	count;
		ssize_t		got;
		int64_t		left;
		bool		done;

		pthread_mutex_lock(&p->lock);
		done = p->handle->done;
		got = read(p->eventfd, &count, sizeof(count));
		p->signalled = false;
		left = deadline - ra_zk_now();
		if (!done && left <= 0)
		{
			pthread_detach(p->handle->helper);
			p->abandoned = true;
		}
		pthread_mutex_unlock(&p->lock);
		(void) got;
		if (done)
			pthread_join(p->handle->helper, NULL);
		if (done || left <= 0)
			return done;
		poll(&fd, 1, left > 1000 * NS_PER_MS ? 1000 : (int) (left / NS_PER_MS) + 1);
	}
}

static void
zk_close(RaProvider *p, int64_t deadline)
{
	ZkHandle   *handle = p->handle;

	ra_zk_forget_now(p);
	ra_zk_log_sink(p, false);
	if (handle != NULL)
	{
		ra_zk_handle_dead(handle);	/* no callback is made any more */

		/*
		 * If the helper is not done in time it frees all of it, provided this
		 * process lives so long: p is not ours any more.
		 */
		if (handle->helper_runs && !helper_wait(p, deadline))
			return;
		if (handle->zh != NULL &&
			(!ra_zk_helper_start(handle, ZK_TASK_CLOSE) || !helper_wait(p, deadline)))
			return;				/* without a thread to close it, it leaks */
		ra_zk_handle_free(handle);
		p->handle = NULL;
	}
	ra_zk_provider_free(p);
}

static const RaProviderOps zookeeper_ops = {
	.api = RA_PROVIDER_API,
	.name = "zookeeper",
	.tls = RA_ZOOKEEPER_HAS_TLS,
	.open = zk_open,
	.close = zk_close,
	.wait_for = ra_zk_wait_for,
	.process = ra_zk_process,
	.acquire = ra_zk_acquire,
	.release = ra_zk_release,
	.look = ra_zk_look,
	.set_member = ra_zk_set_member,
	.list = ra_zk_list,
	.decide = ra_zk_decide,
	.forget = ra_zk_forget,
	.forget_left = ra_zk_forget_left,
	.sweep = ra_zk_sweep,
};

const RaProviderOps *
ra_zookeeper_ops(void)
{
	return &zookeeper_ops;
}
