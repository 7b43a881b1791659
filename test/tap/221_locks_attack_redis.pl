# Mutual exclusion with Redis: brokers that sleep longer than their session
# lives, connections that are cut, a service that sleeps or restarts without its
# data, and a PostgreSQL server that crashes.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use LockCount;
use Test::More;

LockCount::attack('redis', sub {
	my ($cluster, $progress, $proxy) = @_;
	my $redis = $cluster->{service};

	my $sleeper = LockCount::stop_holder($cluster->node(1));
	wait_for { $cluster->node(0)->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.nodes WHERE name = 'node_1' AND live}) == 0 }
	'its session has expired';
	$progress->('after it has lost its session', 1);
	LockCount::holder_awake($cluster->node(1));
	kill 'CONT', $sleeper;
	wait_for { status($cluster->node(1), 'losses') >= 1 } 'the sleeper knows that it has lost its session';
	$progress->('after it has woken up');

	for (1 .. 2)
	{
		$proxy->cut;
		$proxy->mend;
		$progress->('after connections were cut');
		LockCount::cut_release($cluster->node(2), $proxy);
		$progress->('after a release was lost with the connection');
	}
	$proxy->cut;
	wait_for { status($cluster->node(2), 'lease_ms') == 0 } 'the lease has run out';
	$progress->('while a node is cut off', 1);
	$proxy->mend;

	$redis->pause;
	wait_for { status($cluster->node(0), 'lease_ms') == 0 } 'the lease has run out';
	$redis->resume;
	$progress->('after Redis slept');

	$cluster->node(1)->stop('immediate');
	$progress->('without a node', 1);
	$cluster->node(1)->start;
	$progress->('with it');

	# it comes back empty
	$redis->kill9;
	$redis->start;
	$progress->('after Redis was killed and lost its data');
	$redis->command('FLUSHALL');
	$progress->('after its data was removed');
});
done_testing();
