/*
 * cancel.c
 *	  Cancels what runs on another server, within a time limit.
 *
 * PQcancel() blocks, and for how long is up to the network and to the other
 * server's postmaster; libpq has no other way before version 17.  So a process of
 * its own calls it, as a signal handler might, and does nothing else: no
 * allocation, no shared memory, no exit callbacks.  All signals are blocked there but the
 * alarm that ends it if we don't.  The other end of its pipe is closed as it
 * ends.
 *
 * PQcancel() returns when the other server has closed its connection, which it does
 * after it has sent the signal.  If that has not happened in time, the signal
 * might still come, and hit a later statement: such a connection must not be used again.
 */
#include "postgres.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/cancel.h"

void
ra_cancel_start(RaCancel *cancel, PGconn *conn, int seconds)
{
	PGcancel   *key = PQgetCancel(conn);
	int			fds[2];
	sigset_t	all;
	sigset_t	before;

	cancel->pid = -1;
	if (key == NULL)
		return;
	if (pipe(fds) != 0)
	{
		PQfreeCancel(key);
		return;
	}

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	cancel->pid = fork();
	if (cancel->pid == 0)
	{
		struct sigaction action = {.sa_handler = SIG_DFL};
		sigset_t	alarm_only;
		char		message[256];

		sigaction(SIGALRM, &action, NULL);
		sigemptyset(&alarm_only);
		sigaddset(&alarm_only, SIGALRM);
		sigprocmask(SIG_UNBLOCK, &alarm_only, NULL);
		alarm(seconds);
		_exit(PQcancel(key, message, sizeof(message)) ? 0 : 1);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);

	close(fds[1]);
	if (cancel->pid < 0)
		close(fds[0]);
	else
		cancel->pipe = fds[0];
	PQfreeCancel(key);
}

bool
ra_cancel_end(RaCancel *cancel, int ms)
{
	struct pollfd end = {.fd = cancel->pipe,.events = POLLIN};
	int			status;
	int			rc;

	if (cancel->pid < 0)
		return false;
	do
	{
		rc = poll(&end, 1, ms);
	} while (rc < 0 && errno == EINTR);
	close(cancel->pipe);
	if (rc <= 0)
		kill(cancel->pid, SIGKILL);
	do
	{
		rc = waitpid(cancel->pid, &status, 0);
	} while (rc < 0 && errno == EINTR);
	return rc == cancel->pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
