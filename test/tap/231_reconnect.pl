# How often a broker tries to connect while the coordination service is of no use: at a
# port that takes each connection and closes it, which counts them.  Its pauses grow, have a limit,
# and what comes back is noticed after no more than one of them.

use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use List::Util qw(max min);
use LockAttack;
use LockCluster;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Redis;
use RiskAlert;
use Test::More;
use Time::HiRes qw(time);
use ZooKeeper;

my $dir = PostgreSQL::Test::Utils::tempdir('reconnect');
my @children;

END
{
	my $status = $?;
	kill 'KILL', @children;
	$? = $status;
}

# A process that listens there, and writes down when somebody came
sub refuse
{
	my ($port, $file) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 16, ReuseAddr => 1)
	  or die "could not listen: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		my $parent = getppid;
		open(my $out, '>>', $file) or POSIX::_exit(1);
		$out->autoflush;
		while (getppid == $parent)
		{
			my $client = $listener->accept or next;
			print $out time, "\n";
			close $client;
		}
		POSIX::_exit(0);
	}
	push @children, $pid;
	return $pid;
}

# As the documentation says; and what a busy machine may add
my $longest = 5;
my $slack = 1.5;

my %port;
my %listener;
my %node;
for my $provider (qw(redis zookeeper))
{
	($port{$provider}) = ZooKeeper::free_ports(1);
	$listener{$provider} = refuse($port{$provider}, "$dir/$provider");
	$node{$provider} = new_node("refused_$provider", conf => qq{
risk_alert.node_name = 'alone'
risk_alert.lock_provider = $provider
risk_alert.${provider}_hosts = '127.0.0.1:$port{$provider}'
risk_alert.session_timeout = 4000ms});
}

# both at the same time, as it takes some
for my $provider (qw(redis zookeeper))
{
	my @gap;
	wait_for {
		my @at = split /\n/, slurp_file("$dir/$provider");
		# ZooKeeper's client makes two attempts without a pause
		@gap = grep { $_ > 0.01 } map { $at[$_] - $at[ $_ - 1 ] } 1 .. $#at;
		return @gap >= 8 && @at <= 2 * @gap + 2;
	}
	'attempts to connect';
	my $gaps = join ' ', map { sprintf '%.2f', $_ } @gap;
	cmp_ok($gap[0], '<', 0.5, "$provider: the second attempt comes soon ($gaps)");
	is(join(' ', grep { $gap[ $_ + 2 ] <= 1.3 * $gap[$_] } 0 .. 2), '', "$provider: pauses grow");
	cmp_ok(min(@gap[ 6, 7 ]), '>', 1, "$provider: up to seconds");
	cmp_ok(max(@gap), '<', $longest + $slack, "$provider: and not for ever");
	is(status($node{$provider}, 'state'), 'connecting', "$provider: it is not connected");
	isnt(status($node{$provider}, 'last_error'), '', "$provider: for a reason that is told");

	# at any moment of that, it can be stopped
	my $slowest = 0;
	for (1 .. 5)
	{
		my $count = () = slurp_file("$dir/$provider") =~ /\n/g;
		my $began = time;
		$node{$provider}->stop('fast');
		$slowest = max($slowest, time - $began);
		$node{$provider}->start;
		wait_for { (() = slurp_file("$dir/$provider") =~ /\n/g) > $count + 2 } 'attempts to connect';
	}
	cmp_ok($slowest, '<', 5, sprintf('%s: a stop is quick (%.2f s)', $provider, $slowest));
}

my @services;
for my $provider (qw(redis zookeeper))
{
	my $node = $node{$provider};
	my $service = $provider eq 'redis' ? Redis->new(port => $port{redis}) : ZooKeeper->new("$dir/zk", ports => [ $port{zookeeper} ]);
	my $waiter = session($node);
	# who waits meanwhile can stop to
	my %limit = (
		57014 => q{SET statement_timeout = '100ms'; SELECT risk_alert.advisory_lock('k')},
		'55P03' => q{SET lock_timeout = '100ms'; SELECT risk_alert.advisory_lock('k')});
	for my $state (sort keys %limit)
	{
		my (undef, $err) = sql($node, $limit{$state});
		like($err, qr/ERROR:  $state/, "$provider: a wait for what is not there ends by $limit{$state}");
	}
	my ($pid) = ask($waiter, 'SELECT pg_backend_pid()');
	start($waiter, q{SELECT risk_alert.advisory_lock('k')});
	wait_until($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND wait_event_type = 'Extension'", 1);
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	like((finish($waiter))[1], qr/57014: canceling statement due to user request/, "$provider: and when it is cancelled");

	my $broker = broker_pid($node);
	start($waiter, q{SELECT risk_alert.advisory_lock('k')});
	kill 'KILL', $listener{$provider};
	waitpid $listener{$provider}, 0;
	$service->start;
	my $began = time;
	wait_until($node, q{SELECT state = 'connected' AND lease_ms > 0 FROM risk_alert.stat_coordination});
	my $took = time - $began;
	cmp_ok($took, '<', $longest + $slack, sprintf('%s: what comes back is noticed (%.1f s)', $provider, $took));
	like((finish($waiter))[0], qr/^\d+$/, "$provider: and who has waited all the time gets his lock");
	is(status($node, 'losses'), 0, "$provider: no session was lost, as there was none");
	$waiter->quit;

	# it is restarted, and keeps what it has or not
	for my $round (1 .. 2)
	{
		$service->kill9;
		wait_until($node, q{SELECT state <> 'connected' FROM risk_alert.stat_coordination});
		$service->start;
		wait_until($node, q{SELECT state = 'connected' AND lease_ms > 0 FROM risk_alert.stat_coordination});
		is($node->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('k', '30s') IS NOT NULL}), 't',
			"$provider: the service was restarted: a lock can be had ($round)");
	}
	is(broker_pid($node), $broker, "$provider: all the time it was one and the same broker");
	$node->stop;
	$service->kill9;
}
done_testing();
