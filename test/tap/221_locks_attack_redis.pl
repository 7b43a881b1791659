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

	LockCount::lose_sessions($cluster, $progress, $proxy);

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
