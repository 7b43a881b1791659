/*
 * redis_link.c
 *	  One connection to Redis that never blocks.
 *
 * hiredis formats commands, keeps the buffers and parses replies; its
 * asynchronous interface isn't used, because the order of its callbacks at a
 * disconnect leaves it open which replies are still to come.  Here a reply is
 * fetched, and a broken link stays as it is until its owner closes it.
 *
 * hiredis writes with write(), so the process must ignore SIGPIPE (PostgreSQL's
 * processes do).  A host given by name is resolved by getaddrinfo() at
 * each attempt to connect, which may block: give addresses, or names from
 * /etc/hosts, where that matters.
 *
 * With TLS (redis_tls.c) a link is in the state "connecting" until the SSL object is in
 * its place, and nothing is written before.  The handshake then happens within the
 * first writes and reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "redis_link.h"
#include "redis_tls.h"

static void watch(RaRedisLink *link);
static bool fail(RaRedisLink *link, const char *error);

int64_t
ra_redis_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

void
ra_redis_link_init(RaRedisLink *link, int epoll_fd)
{
	memset(link, 0, sizeof(*link));
	link->epoll_fd = epoll_fd;
	link->end = &link->first;
}

/* Begin to connect; false: failed at once, see error */
bool
ra_redis_link_open(RaRedisLink *link, const char *host, int port)
{
	ra_redis_link_close(link);
	link->host = host;
	link->context = redisConnectNonBlock(host, port);
	if (link->context == NULL)
		return fail(link, "out of memory");
	if (link->context->err)
		return fail(link, link->context->errstr);
	link->connecting = true;
	fcntl(link->context->fd, F_SETFD, FD_CLOEXEC);
	watch(link);
	return link->error[0] == '\0';
}

/* Commands whose reply is outstanding must have been taken by the owner */
void
ra_redis_link_close(RaRedisLink *link)
{
	const RaProviderTls *tls = link->tls;
	RaRedisCommand *command;

	while ((command = ra_redis_link_shift(link)) != NULL)
		free(command);
	if (link->context != NULL)
	{
		if (link->watched)
			epoll_ctl(link->epoll_fd, EPOLL_CTL_DEL, link->context->fd, NULL);
		redisFree(link->context);
	}
	ra_redis_link_init(link, link->epoll_fd);
	link->tls = tls;
}

/* Send a command and remember that its reply is due */
bool
ra_redis_link_send(RaRedisLink *link, int kind, void *ref, uint64_t number,
				   int argc, const char **argv, const size_t *lengths)
{
	RaRedisCommand *command;

	if (link->context == NULL || link->error[0] != '\0')
		return false;
	command = malloc(sizeof(*command));
	if (command == NULL)
		return fail(link, "out of memory");
	*command = (RaRedisCommand) {
		.kind = kind, .ref = ref, .number = number, .sent_at = ra_redis_clock()
	};
	if (!ra_redis_link_append(link, argc, argv, lengths))
	{
		free(command);
		return false;
	}
	*link->end = command;
	link->end = &command->next;
	return true;
}

/* Send a command whose reply belongs to nobody, as a subscription's */
bool
ra_redis_link_append(RaRedisLink *link, int argc, const char **argv, const size_t *lengths)
{
	if (link->context == NULL || link->error[0] != '\0')
		return false;
	if (redisAppendCommandArgv(link->context, argc, argv, lengths) != REDIS_OK)
		return fail(link, "out of memory");
	link->unsent = true;
	return true;
}

/* Write what can be written now */
void
ra_redis_link_flush(RaRedisLink *link)
{
	int			done = 1;

	if (!link->unsent || link->connecting || link->error[0] != '\0')
		return;
	ra_redis_tls_enter(link);
	if (redisBufferWrite(link->context, &done) != REDIS_OK)
	{
		fail(link, ra_redis_tls_error(link, link->context->errstr));
		return;
	}
	link->unsent = !done;
	link->reads_first = link->unsent && ra_redis_tls_reads_first(link);
	watch(link);
}

/* Epoll says that something can be done: connect, write, read */
void
ra_redis_link_ready(RaRedisLink *link)
{
	if (link->context == NULL || link->error[0] != '\0')
		return;
	if (link->connecting)
	{
		int			error = 0;
		socklen_t	size = sizeof(error);

		if (getsockopt(link->context->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
			error = errno;
		if (error != 0)
		{
			fail(link, strerror(error));
			return;
		}
		link->context->flags |= REDIS_CONNECTED;
		if (link->tls != NULL && !ra_redis_tls_start(link))
			return;
		link->connecting = false;
		ra_redis_link_flush(link);
		watch(link);
		return;
	}
	ra_redis_link_flush(link);
	if (link->error[0] != '\0')
		return;
	do
	{
		ra_redis_tls_enter(link);
		if (redisBufferRead(link->context) != REDIS_OK)
		{
			fail(link, ra_redis_tls_error(link, link->context->err == REDIS_ERR_EOF ?
										  "the server closed the connection" : link->context->errstr));
			return;
		}
		link->last_read = ra_redis_clock();
	} while (ra_redis_tls_pending(link));
}

/*
 * Since when the server owes an answer, INT64_MAX: it owes none.  As long as it says
 * something it isn't late; it may be this process that was.
 */
int64_t
ra_redis_link_due(const RaRedisLink *link)
{
	if (link->first == NULL)
		return INT64_MAX;
	return link->first->sent_at > link->last_read ? link->first->sent_at : link->last_read;
}

/* Next reply that has arrived completely, or NULL */
redisReply *
ra_redis_link_reply(RaRedisLink *link)
{
	void	   *reply = NULL;

	if (link->context == NULL || link->connecting)
		return NULL;

	/* what had arrived before the link broke counts */
	if (redisReaderGetReply(link->context->reader, &reply) != REDIS_OK)
	{
		if (link->error[0] == '\0')
			fail(link, link->context->reader->errstr);
		return NULL;
	}
	link->answered |= reply != NULL;
	return reply;
}

/* The command sent longest ago, which the next reply answers; caller frees it */
RaRedisCommand *
ra_redis_link_shift(RaRedisLink *link)
{
	RaRedisCommand *command = link->first;

	if (command != NULL)
	{
		link->first = command->next;
		if (link->first == NULL)
			link->end = &link->first;
	}
	return command;
}

static void
watch(RaRedisLink *link)
{
	struct epoll_event event = {.data.ptr = link};

	event.events = link->connecting ? EPOLLOUT :
		EPOLLIN | (link->unsent && !link->reads_first ? EPOLLOUT : 0);
	if (event.events == link->watched)
		return;
	if (epoll_ctl(link->epoll_fd, link->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
				  link->context->fd, &event) != 0)
		fail(link, strerror(errno));
	else
		link->watched = event.events;
}

static bool
fail(RaRedisLink *link, const char *error)
{
	snprintf(link->error, sizeof(link->error), "%s", error[0] ? error : "unknown error");
	return false;
}
