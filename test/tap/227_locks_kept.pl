# A lock that was let go of, and is asked for again on the same node before the broker has
# begun to release it, needs no service: with a new token each time, and
# not more often than other nodes may be kept waiting.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use LockCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $limit = 4;

# What the service itself has counted: requests of clients, and what was taken and let go of
sub served
{
	my ($cluster) = @_;
	my $service = $cluster->{service};
	if ($cluster->{provider} eq 'redis')
	{
		my ($scripts) = $service->command('INFO', 'commandstats') =~ /^cmdstat_evalsha:calls=(\d+)/m;
		return ($scripts, $scripts);
	}
	my ($received, $zxid) = $service->srvr(1) =~ /^Received: (\d+).*^Zxid: 0x(\w+)/ms;
	return ($received, hex $zxid);
}

for my $provider (qw(zookeeper redis))
{
	my $cluster = LockCluster->new($provider, nodes => 2, timeout => 40000, conf => "risk_alert.lock_cohort_limit = $limit");
	my ($a, $b) = $cluster->nodes;
	my ($first, $second, $far) = (session($a), session($a), session($b));
	my ($out, $err);

	my ($token) = ask($first, q{SELECT risk_alert.advisory_lock('k')});
	start($far, q{SELECT risk_alert.advisory_lock('k')});
	wait_until($b, q{SELECT count(*) FROM risk_alert.advisory_locks WHERE key = 'k' AND NOT granted}, 1);
	my $requests = status($a, 'requests');
	my $broker = broker_pid($a);
	kill 'STOP', $broker;
	ask($first, q{SELECT risk_alert.advisory_unlock('k')});
	for my $round (1 .. $limit)
	{
		my $session = $round % 2 ? $second : $first;
		my $last = $token;
		($token, $err) = ask($session, q{SELECT risk_alert.advisory_lock('k', '10s')});
		is($err, '', "$provider: it is had again while the broker sleeps ($round)");
		is((ask($session, "SELECT $token > $last"))[0], 't', "$provider: with a higher token");
		ask($session, q{SELECT risk_alert.advisory_unlock('k')});
	}
	(undef, $err) = ask($second, q{SELECT risk_alert.advisory_lock('k', '200ms')});
	like($err, qr/55P03/, "$provider: but not more than lock_cohort_limit times");
	is(status($a, 'requests'), $requests, "$provider: the service was not asked");

	kill 'CONT', $broker;
	($out) = finish($far);
	like($out, qr/^\d+/, "$provider: another node gets it when the broker acts");
	is((ask($far, "SELECT $out > $token"))[0], 't', "$provider: with a higher token");
	ask($far, q{SELECT risk_alert.advisory_unlock('k')});

	# nor where nobody queues, as try_ functions of other nodes don't.  Half way to the limit
	# the service is asked who queues; its answer is there before that to a later request.
	ask($first, q{SELECT risk_alert.advisory_lock('k')});
	for my $part (1 .. 2)
	{
		kill 'STOP', $broker;
		for (1 .. $limit / 2)
		{
			ask($first, q{SELECT risk_alert.advisory_unlock('k')});
			(undef, $err) = ask($first, q{SELECT risk_alert.advisory_lock('k', '10s')});
			is($err, '', "$provider: it is had again though nobody queues ($part)");
		}
		last if $part == 2;
		kill 'CONT', $broker;
		ask($second, q{SELECT risk_alert.advisory_lock('other')});
	}
	ask($first, q{SELECT risk_alert.advisory_unlock('k')});
	(undef, $err) = ask($first, q{SELECT risk_alert.advisory_lock('k', '200ms')});
	like($err, qr/55P03/, "$provider: but not more than lock_cohort_limit times");
	kill 'CONT', $broker;
	ask($second, q{SELECT risk_alert.advisory_unlock('other')});

	# with a limit of 0 it goes back each time
	$a->append_conf('postgresql.conf', 'risk_alert.lock_cohort_limit = 0');
	$a->reload;
	wait_until($a, q{SELECT current_setting('risk_alert.lock_cohort_limit') = '0'});
	ask($first, q{SELECT risk_alert.advisory_lock('k')});
	kill 'STOP', $broker;
	ask($first, q{SELECT risk_alert.advisory_unlock('k')});
	(undef, $err) = ask($first, q{SELECT risk_alert.advisory_lock('k', '200ms')});
	like($err, qr/55P03/, "$provider: with a limit of 0 not once");
	kill 'CONT', $broker;

	# a session that locks and unlocks in a loop, with a broker that is awake
	$a->append_conf('postgresql.conf', 'risk_alert.lock_cohort_limit = 15');
	$a->reload;
	wait_until($a, q{SELECT current_setting('risk_alert.lock_cohort_limit') = '15'});
	my $loop = q{DO $$ BEGIN FOR i IN 1 .. %d LOOP
	PERFORM risk_alert.advisory_lock('loop'); PERFORM risk_alert.advisory_unlock('loop');
END LOOP; END $$};
	my $grants = status($a, 'grants');
	$requests = status($a, 'requests');
	my ($asked, $taken) = served($cluster);
	(undef, $err) = ask($first, sprintf($loop, 4000));
	is($err, '', "$provider: a lock is had 4000 times in a loop");
	my @served = served($cluster);
	is(status($a, "grants - $grants"), 4000, "$provider: each time is counted");
	$requests = status($a, "requests - $requests");
	cmp_ok($requests, '<', 2000, "$provider: for fewer requests ($requests)");
	cmp_ok($asked = $served[0] - $asked, '<', 4000, "$provider: fewer messages to the service, too ($asked)");
	cmp_ok($requests, '>=', 250, "$provider: but not more than 16 times for one request");
	cmp_ok($taken = $served[1] - $taken, '>=', 500, "$provider: with which it is taken and let go of there ($taken)");

	my $script = $a->basedir . '/loop.sql';
	append_to_file($script, q{SELECT risk_alert.advisory_lock('loop') IS NOT NULL;
SELECT risk_alert.advisory_unlock('loop');
});

	# a client comes back a little later, for which the broker waits; on a busy machine not always long enough
	for my $try (1 .. 10)
	{
		$requests = status($a, 'requests');
		$a->run_log([ 'pgbench', '-n', '-c', 1, '-t', 1000, '-M', 'prepared', '-f', $script, '-d', 'postgres' ]);
		$requests = status($a, "requests - $requests");
		last if $requests < 500;
	}
	cmp_ok($requests, '<', 500, "$provider: a client has it 1000 times for fewer requests ($requests)");

	# which keeps nobody elsewhere waiting
	$grants = status($a, 'grants');
	start($first, sprintf($loop, 100000000));
	wait_until($a, "SELECT grants > $grants + 1000 FROM risk_alert.stat_coordination");
	(undef, $err) = ask($far, q{DO $$
DECLARE began timestamptz; longest interval := '0';
BEGIN FOR i IN 1 .. 30 LOOP
	began := clock_timestamp();
	PERFORM risk_alert.advisory_lock('loop', '60s');
	longest := greatest(longest, clock_timestamp() - began);
	PERFORM risk_alert.advisory_unlock('loop');
	PERFORM pg_sleep(0.005);
END LOOP;
RAISE NOTICE 'longest: % ms', ceil(1000 * extract(epoch FROM longest)); END $$});
	my ($longest) = $err =~ /longest: (\d+) ms/;
	cmp_ok($longest // 60000, '<', 1000, "$provider: another node waits for $longest ms at most");
	$a->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'});
	like((finish($first))[1], qr/57014/, "$provider: it has gone on all the time");
	ask($first, 'SELECT risk_alert.advisory_unlock_all()');
	$_->quit for $first, $second, $far;

	ok(nothing_left($cluster, 'k'), "$provider: nothing is left");
	$cluster->stop;
}
done_testing();
