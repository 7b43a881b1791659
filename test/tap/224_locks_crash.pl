# What happens to locks when backends, brokers, servers and the ensemble's leader
# are killed or terminated.

use strict;
use warnings FATAL => 'all';

use List::Util qw(max);
use LockAttack;
use LockCluster;
use RiskAlert;
use Test::More;
use Time::HiRes qw(time);

my $timeout = 4;

sub children
{
	my ($parent) = @_;
	return map { /(\d+)/ } `ps -o pid= --ppid $parent`;
}

for my $provider (qw(zookeeper redis))
{
	my $cluster = LockCluster->new($provider, nodes => 2, servers => 3, timeout => 1000 * $timeout);
	my ($a, $b) = $cluster->nodes;
	my ($holder, $waiter, $second) = (session($a), session($a), session($a));
	my ($out, $err);
	my $waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%advisory_lock(''%s'')%%'
 AND pid <> pg_backend_pid() AND wait_event IS NOT NULL AND wait_event_type <> 'Client'";
	my $pid = sub { return (ask($_[0], 'SELECT pg_backend_pid()'))[0]; };

	# waiters that go away: first of each step, then who lives gets it
	my $far = session($b);
	ask($far, q{SELECT risk_alert.advisory_lock('k')});
	my %pid = (waiter => $pid->($waiter), second => $pid->($second));
	for my $how ('cancel', 'terminate')
	{
		start($waiter, q{SELECT risk_alert.advisory_lock('k')});
		wait_until($a, sprintf($waits, 'k'), 1);
		start($second, q{SELECT risk_alert.advisory_lock('k')});
		wait_until($a, sprintf($waits, 'k'), 2);
		if ($how eq 'cancel')
		{
			# the one that waits for the service; the next one takes its place; then that one
			$a->safe_psql('postgres', "SELECT pg_cancel_backend($pid{waiter})");
			(undef, $err) = finish($waiter);
			like($err, qr/57014/, "$provider: a waiter for the service is cancelled");
			$a->safe_psql('postgres', "SELECT pg_cancel_backend($pid{second})");
			(undef, $err) = finish($second);
			like($err, qr/57014/, "$provider: and the next one");
		}
		else
		{
			$a->safe_psql('postgres', "SELECT pg_terminate_backend($pid{second})");
			$a->safe_psql('postgres', "SELECT pg_terminate_backend($pid{waiter})");
		}
		ok(wait_until($b, q{SELECT count(*) FROM risk_alert.advisory_locks WHERE key = 'k'}, 1),
			"$provider: waiters that go away leave the queue ($how)");
	}
	eval { $_->quit } for $waiter, $second;
	($waiter, $second) = (session($a), session($a));

	# holder terminated, also in a transaction
	start($waiter, q{SELECT risk_alert.advisory_lock('k')});
	wait_until($a, sprintf($waits, 'k'), 1);
	$b->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $pid->($far) . ')');
	($out, $err) = finish($waiter);
	like($out, qr/^\d+/, "$provider: a holder is terminated, the waiter gets it");
	eval { $far->quit };
	ask($waiter, q{SELECT risk_alert.advisory_unlock('k')});
	ask($holder, q{BEGIN; SELECT risk_alert.advisory_xact_lock('k')});
	$a->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $pid->($holder) . ')');
	is($b->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('k', '10s') IS NOT NULL}), 't',
		"$provider: so in a transaction");
	eval { $holder->quit };

	# the broker is terminated: holders know, waiters wait on
	($holder, $far) = (session($a), session($b));
	ask($far, q{SELECT risk_alert.advisory_lock('k')});
	ask($holder, q{SELECT risk_alert.advisory_lock('own'); BEGIN; SELECT risk_alert.advisory_xact_lock('x')});
	start($waiter, q{SELECT risk_alert.advisory_lock('k')});
	wait_until($a, sprintf($waits, 'k'), 1);
	my $broker = broker_pid($a);
	$a->safe_psql('postgres', "SELECT pg_terminate_backend($broker)");
	wait_until($a, "SELECT pid <> $broker AND state = 'connected' FROM risk_alert.stat_coordination");
	is($a->safe_psql('postgres', q{SELECT count(*) FROM risk_alert._lock_entries() WHERE lost}), 2,
		"$provider: broker terminated: its locks are lost");
	(undef, $err) = ask($holder, 'COMMIT');
	like($err, qr/40001/, "$provider: a holder's COMMIT fails");
	is((ask($holder, q{SELECT risk_alert.advisory_unlock('own')}))[0], 'f', "$provider: an unlock says so");
	ask($far, q{SELECT risk_alert.advisory_unlock('k')});
	($out, $err) = finish($waiter);
	like($out, qr/^\d+/, "$provider: a waiter is queued again, and gets it");
	ask($waiter, q{SELECT risk_alert.advisory_unlock('k')});
	$far->quit;

	# the broker is cancelled, and then told of something that it logs: nothing is thrown
	# out of the client library's frames
	$broker = broker_pid($a);
	$far = session($b);
	my $losses = status($a, 'losses');
	ask($holder, q{SELECT risk_alert.advisory_lock('own')});
	$a->safe_psql('postgres', "SELECT pg_cancel_backend($broker)");
	kill 'STOP', $broker;
	ask($far, q{SELECT risk_alert.advisory_lock('own', '30s')});
	kill 'CONT', $broker;
	wait_until($a, "SELECT losses > $losses AND state = 'connected' AND lease_ms > 0 FROM risk_alert.stat_coordination");
	is(broker_pid($a), $broker, "$provider: a broker that was cancelled goes on when its session is lost");
	ask($_, q{SELECT risk_alert.advisory_unlock('own')}) for $holder, $far;
	$far->quit;

	# the leader of the ensemble is killed
	if ($provider eq 'zookeeper')
	{
		my $zk = $cluster->{service};
		my ($token) = ask($holder, q{SELECT risk_alert.advisory_lock('k')});
		my ($leader) = grep { $zk->mode($_) eq 'leader' } 1 .. 3;
		$zk->kill9($leader);
		wait_for { grep { $zk->mode($_) eq 'leader' } grep { $_ != $leader } 1 .. 3 } 'another leader';
		$cluster->wait_connected;
		is((ask($holder, q{SELECT risk_alert.advisory_lock('k')}))[0], $token, 'zookeeper: leader killed: the lock is kept');
		($out, $err) = sql($b, q{SELECT risk_alert.advisory_lock('k', '500ms')});
		like($err, qr/55P03/, 'zookeeper: and nobody else gets it');
		is((ask($holder, q{SELECT bool_and(risk_alert.advisory_unlock('k')) FROM generate_series(1, 2)}))[0], 't', 'zookeeper: it is unlocked');
		$zk->start($leader);
	}
	else
	{
		my $lost = status($a, 'losses');
		my ($token) = ask($holder, q{SELECT risk_alert.advisory_lock('k')});
		cmp_ok($cluster->{service}->command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'), '>=', 2, 'redis: connections are cut');
		# what is asked for now needs a new one
		sql($_, q{SELECT risk_alert.advisory_lock('new', '20s')}) for $a, $b;
		is((ask($holder, q{SELECT risk_alert.advisory_lock('k')}))[0], $token, 'redis: the lock is kept');
		($out, $err) = sql($b, q{SELECT risk_alert.advisory_lock('k', '500ms')});
		like($err, qr/55P03/, 'redis: and nobody else gets it');
		is((ask($holder, q{SELECT bool_and(risk_alert.advisory_unlock('k')) FROM generate_series(1, 2)}))[0], 't', 'redis: it is unlocked');
		is(status($a, 'losses'), $lost, 'redis: in the same session');
	}

	# a backend is killed: the server restarts, and its new broker ends the old session
	my @took;
	$far = session($b);
	for my $round (1 .. 5)
	{
		($holder) = session($a) if $round > 1;
		ask($holder, q{BEGIN; SELECT risk_alert.advisory_xact_lock('k')});
		my $backend = $pid->($holder);
		start($far, q{SELECT risk_alert.advisory_lock('k', '20s') IS NOT NULL});
		wait_until($a, q{SELECT count(*) FROM risk_alert.advisory_locks WHERE key = 'k' AND NOT granted}, 1);
		my $began = time;
		kill 'KILL', $backend;
		($out) = finish($far);
		push @took, time - $began;
		like($out, qr/^t$/m, "$provider: a backend is killed: a waiter of another node gets its lock ($round)");
		eval { $holder->quit };
		ask($far, q{SELECT risk_alert.advisory_unlock('k')});
		wait_for_restart($a);
		$cluster->wait_connected;
	}
	my $longest = max @took;
	cmp_ok($longest, '<', 2, sprintf('%s: within 2 seconds of the kill, at most %.2f', $provider, $longest));
	eval { $_->quit } for $waiter, $second;

	# the whole node is killed at once
	$holder = session($a);
	ask($holder, q{SELECT risk_alert.advisory_lock('k')});
	my $postmaster = (split /\n/, PostgreSQL::Test::Utils::slurp_file($a->data_dir . '/postmaster.pid'))[0];
	my @processes = ($postmaster, children($postmaster));
	kill 'STOP', @processes;
	my $began = time;
	kill 'KILL', @processes;
	($out) = ask($far, q{SELECT risk_alert.advisory_lock('k', '20s') IS NOT NULL});
	my $took = time - $began;
	is($out, 't', "$provider: a node is killed: others get its lock");
	# two ticks; with Redis, a dead holder is found by those who wait, twice a second
	cmp_ok($took, '<', $timeout + ($provider eq 'zookeeper' ? 0.4 : 1.5), sprintf('%s: when its session has expired (%.2f s)', $provider, $took));
	eval { $holder->quit };
	$far->quit;
	$a->{_pid} = undef;
	$a->start;
	$cluster->wait_connected;
	ok(nothing_left($cluster, 'k'), "$provider: nothing is left");
	$cluster->stop;
}
done_testing();
