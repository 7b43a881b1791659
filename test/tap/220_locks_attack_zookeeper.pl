# Mutual exclusion with a ZooKeeper ensemble whose servers are killed one after
# the other, brokers that sleep longer than their session lives, connections that
# are cut, and a PostgreSQL server that crashes.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use LockCount;
use Test::More;

LockCount::attack('zookeeper', sub {
	my ($cluster, $progress, $proxy) = @_;
	my $zk = $cluster->{service};

	for my $server (1 .. 3)
	{
		$zk->kill9($server);
		$progress->("without server $server");
		$zk->start($server);
	}

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

	$cluster->node(1)->stop('immediate');
	$progress->('without a node', 1);
	$cluster->node(1)->start;

	$zk->pause;
	wait_for { status($cluster->node(0), 'lease_ms') == 0 } 'the lease has run out';
	$zk->resume;
	$progress->('after all servers slept');
});
done_testing();
