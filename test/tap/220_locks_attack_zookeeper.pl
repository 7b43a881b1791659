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

	LockCount::lose_sessions($cluster, $progress, $proxy);

	$cluster->node(1)->stop('immediate');
	$progress->('without a node', 1);
	$cluster->node(1)->start;

	$zk->pause;
	wait_for { status($cluster->node(0), 'lease_ms') == 0 } 'the lease has run out';
	$zk->resume;
	$progress->('after all servers slept');
});
done_testing();
