/*
 * provider_try.c
 *	  Loads a provider's library as the broker does, without a server: says whether
 *	  it has TLS, and what becomes of a connection.
 *
 * Usage: provider_try library hosts milliseconds [ca cert key [password]]
 *
 * An empty argument is none.  Ends after so long, or earlier with a lock that was granted.
 */
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "provider/provider.h"

static bool over;
static const RaProviderOps *ops;
static RaProvider *provider;

static int64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

static void
on_session(void *arg, const char *description, uint64_t generation, int timeout_ms)
{
	(void) arg; (void) description; (void) generation; (void) timeout_ms;
	printf("session\n");
	ops->acquire(provider, NULL, "tkey", 4, RA_PROVIDER_EXCLUSIVE, false);
}

static void
on_connected(void *arg, bool connected, const char *detail)
{
	(void) arg;
	printf("%s: %s\n", connected ? "connected" : "not connected", detail);
}

static void
on_granted(void *arg, void *owner, uint64_t token, bool waited)
{
	(void) arg; (void) owner; (void) token; (void) waited;
	printf("granted\n");
	over = true;
}

static void
on_log(void *arg, RaProviderLevel level, const char *message, const char *hint)
{
	(void) arg; (void) hint;
	if (level == RA_PROVIDER_WARNING)
		printf("warning: %s\n", message);
}

static void on_text(void *arg, const char *detail) { (void) arg; (void) detail; }
static void on_lease(void *arg, int64_t until) { (void) arg; (void) until; }
static void on_owner(void *arg, void *owner) { (void) arg; (void) owner; }
static void on_contended(void *arg, void *owner, bool yes) { (void) arg; (void) owner; (void) yes; }
static void on_members(void *arg, const RaProviderMember *members, int n) { (void) arg; (void) members; (void) n; }

static const RaProviderCallbacks callbacks = {
	.session = on_session, .connected = on_connected, .session_lost = on_text, .lease = on_lease,
	.granted = on_granted, .refused = on_owner, .released = on_owner, .lost = on_owner,
	.contended = on_contended, .members = on_members, .log = on_log,
};

static const char *
argument(int argc, char **argv, int i)
{
	return i < argc && argv[i][0] != '\0' ? argv[i] : NULL;
}

int
main(int argc, char **argv)
{
	RaProviderTls tls = {
		.ca_file = argument(argc, argv, 4), .cert_file = argument(argc, argv, 5),
		.key_file = argument(argc, argv, 6), .key_password = argument(argc, argv, 7)
	};
	RaProviderConfig config = {
		.cluster = "risk", .node = "node", .session_timeout_ms = 4000, .tls = tls.ca_file ? &tls : NULL
	};
	char		error[256] = "";
	int64_t		deadline;
	void	   *library;
	RaProviderEntryPoint entry;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);	/* as in the broker */
	library = argc > 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
	entry = library ? (RaProviderEntryPoint) dlsym(library, RA_PROVIDER_SYMBOL) : NULL;
	if (entry == NULL)
	{
		fprintf(stderr, "provider_try: %s\n", argc > 3 ? dlerror() : "library hosts milliseconds [ca cert key [password]]");
		return 2;
	}
	ops = entry();
	printf("%s TLS\n", ops->tls ? "has" : "no");
	config.hosts = argv[2];
	deadline = now_ns() + (int64_t) atoi(argv[3]) * 1000000;
	provider = ops->open(&config, &callbacks, NULL, error, sizeof(error));
	if (provider == NULL)
	{
		printf("refused: %s\n", error);
		return 1;
	}
	while (!over && now_ns() < deadline)
	{
		bool		writable = false;
		int64_t		until = INT64_MAX;
		struct pollfd fd = {.fd = ops->wait_for(provider, &writable, &until)};
		int64_t		now = now_ns();

		if (until > deadline)
			until = deadline;
		fd.events = POLLIN | (writable ? POLLOUT : 0);
		if (until > now)
			poll(&fd, 1, (int) ((until - now) / 1000000) + 1);
		ops->process(provider);
	}
	ops->close(provider, now_ns() + INT64_C(1000000000));
	return over ? 0 : 1;
}
