# The clock of a node jumps by a day while it holds locks, and waits for some: the lease, time-outs and
# what others are told go by the monotonic one.  And tokens grow even if all nodes are stopped, the
# service has lost its data, and clocks are set back.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use LockCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes qw(time);

my $dir = PostgreSQL::Test::Utils::tempdir('clock');
my $library = "$dir/clock_shim.so";
my $day = 24 * 3600;
my $timeout = 3;

plan skip_all => 'no C compiler'
  if system('cc', '-shared', '-fPIC', '-O', '-Wall', '-o', $library, 'test/tap/clock_shim.c') != 0;

# Off by so many seconds, as of now
sub set_clock
{
	my ($offset) = @_;
	open(my $file, -e "$dir/clock" ? '+<' : '>', "$dir/clock") or die "could not write \"$dir/clock\": $!";
	binmode $file;
	syswrite($file, pack('q', $offset)) == 8 or die "could not write \"$dir/clock\": $!";
	close $file;
	return;
}

# The environment of programs that have that clock
sub other_clock { return (%ENV, LD_PRELOAD => $library, CLOCK_OFFSET_FILE => "$dir/clock"); }

sub start_with_clock
{
	my ($node) = @_;
	local %ENV = (other_clock(), $node->_get_env());
	PostgreSQL::Test::Utils::system_log('pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start') == 0
	  or BAIL_OUT('could not start the server with a clock of its own');
	$node->_update_pid(1);
	return;
}

# The lease is made longer once more
sub renewed
{
	my ($node) = @_;
	my $last;
	return wait_for {
		my $lease = status($node, 'lease_ms');
		my $longer = defined $last && $lease > $last;
		$last = $lease;
		return $longer;
	} 'the lease is renewed';
}

for my $provider (qw(redis zookeeper))
{
	set_clock(0);
	my $cluster = LockCluster->new($provider, nodes => 2, timeout => 1000 * $timeout);
	my $service = $cluster->{service};
	my ($a, $b) = $cluster->nodes;
	$a->stop;
	start_with_clock($a);
	$cluster->wait_connected;

	my ($holder, $waiter, $far) = (session($a), session($a), session($b));
	my ($token) = ask($holder, q{SELECT risk_alert.advisory_lock('k')});
	ask($far, q{SELECT risk_alert.advisory_lock('far')});
	for my $offset ($day, -$day)
	{
		my $jump = $offset > 0 ? 'forth' : 'back';
		start($waiter, q{SELECT risk_alert.advisory_lock('far', '1s')});
		wait_until($b, q{SELECT count(*) FROM risk_alert.advisory_locks WHERE key = 'far' AND NOT granted}, 1);
		set_clock($offset);
		my $began = time;
		my (undef, $err) = finish($waiter);
		like($err, qr/55P03/, "$provider: the clock jumps $jump: a waiter's time ends");
		cmp_ok(time - $began, '<', 10, "$provider:   when it is over");
		renewed($a) for 1 .. 2;
		is(status($a, 'state, losses'), 'connected|0', "$provider: the session goes on");
		cmp_ok(status($a, 'lease_ms'), '<=', 1000 * $timeout, "$provider: the lease is no longer than ever");
		is((ask($holder, q{SELECT risk_alert.advisory_lock('k')}))[0], $token, "$provider: the lock is kept");
		ask($holder, q{SELECT risk_alert.advisory_unlock('k')});
	}

	# other nodes still hear of this one
	my @busy = map { session($a) } 1 .. 8;
	start($_, 'SELECT pg_sleep(1000)') for @busy;
	ok(wait_until($b, q{SELECT max(load) FILTER (WHERE name = 'node_0') > max(load) FILTER (WHERE name = 'node_1') + 1 FROM risk_alert.nodes}),
		"$provider: its load is told to others");
	$a->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'});
	eval { $_->quit } for @busy;

	# the lease ends in time
	$service->pause;
	set_clock(-2 * $day);
	my $began = time;
	wait_for { status($a, 'lease_ms') == 0 } 'the lease has run out';
	cmp_ok(time - $began, '<', $timeout + 1, "$provider: it ends in time, though the clock was set back");
	my (undef, $err) = ask($holder, q{SELECT risk_alert.advisory_lock('k')});
	like($err, qr/40001: .*was lost/, "$provider: with it the lock");
	$service->resume;
	ask($_, 'SELECT risk_alert.advisory_unlock_all()') for $holder, $far;
	$_->quit for $holder, $waiter, $far;

	# tokens of a service that has lost its data, whose clock and all the nodes' are behind
	$cluster->wait_connected;
	my $last = $a->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('k', '60s')});
	is($a->safe_psql('postgres', "SELECT $last > $token"), 't', "$provider: a later token is higher");
	$_->stop for $a, $b;
	$service->kill9;
	$service->wipe if $provider eq 'zookeeper';
	{
		local %ENV = other_clock();
		$service->start;
	}
	for my $node ($a, $b)
	{
		start_with_clock($node);
		$cluster->wait_connected($node);
		my $next = $node->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('k', '60s')});
		is($node->safe_psql('postgres', "SELECT $next > $last AND now() < to_timestamp(" . (time - $day) . ')'), 't',
			"$provider: so it is after all was stopped and lost, with clocks that were set back");
		$last = $next;
	}
	$cluster->stop;
}
done_testing();
