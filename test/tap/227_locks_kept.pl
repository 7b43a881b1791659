# A lock that was let go of, and is asked for again on the same node before the broker has
# begun to release it, needs no service: with a new token each time, and
# not more often than other nodes may be kept waiting.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use LockCluster;
use RiskAlert;
use Test::More;

my $limit = 4;

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
	ok(nothing_left($cluster, 'k'), "$provider: nothing is left");
	$cluster->stop;
}
done_testing();
