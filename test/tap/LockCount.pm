# LockCount.pm
#	Sessions on three nodes count together under one lock, while whatever they
#	rely on is killed, paused and cut off.
#
#	LockCount::attack('redis');

package LockCount;

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use LockAttack;
use LockCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes qw(sleep);

my $sessions = 8;
my $timeout = 2000;
my $run;
my $sleeping = q{
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE objsubid = 21057 AND granted AND a.state LIKE 'idle%' AND a.state_change < clock_timestamp() - interval '200 ms'};

sub attack
{
	my ($provider, $phases) = @_;
	my $hammer = hammer_program() or plan skip_all => 'no C compiler';
	my $proxy;

	# node 2 reaches the service by a proxy, whose connections can be cut
	my $cluster = LockCluster->new($provider,
		nodes => 3, servers => 3, timeout => $timeout,
		hosts => sub {
			my ($i, $service) = @_;
			return $service->hosts if $i != 2;
			$proxy = LockAttack::Proxy->new($service->hosts =~ /:(\d+)/g);
			return $proxy->hosts;
		});
	my $resource = $cluster->node(0);
	$resource->safe_psql('postgres', q{
CREATE TABLE counter (n int);
INSERT INTO counter VALUES (0);
CREATE TABLE log (id serial, token numeric, node int, session int);});

	my $dir = PostgreSQL::Test::Utils::tempdir('count');
	$run = IPC::Run::start(
		[ $hammer, 'count', 'counter', $sessions, map { $_->connstr('postgres') } $resource, $cluster->nodes ],
		'<pipe', \*IN, '>', "$dir/out", '2>', "$dir/err");

	my $progress = sub {
		my ($what, $but) = @_;
		my $nodes = 3 - ($but // 0);
		my $last = $resource->safe_psql('postgres', 'SELECT coalesce(max(id), 0) FROM log');
		ok( RiskAlert::wait_until($resource,
				"SELECT count(*) >= 30 AND count(DISTINCT node) >= $nodes FROM log WHERE id > $last"),
			"$provider: progress on $nodes nodes $what");
	};

	$progress->('before all');
	$phases->($cluster, $progress, $proxy);
	$progress->('after all');

	# other processes may have the pipe open
	syswrite(IN, "\n");
	close IN;
	$run->finish;
	check($provider, $cluster, slurp_file("$dir/out"), slurp_file("$dir/err"));
	$cluster->stop;
	$proxy->cut;
	return;
}

# Stop node 1's broker while one of its sessions holds the lock, and goes on doing so
# for longer than the node's session lives; the broker's process id
sub stop_holder
{
	my ($node) = @_;
	my $broker = broker_pid($node);
	$run->signal('USR1');
	RiskAlert::wait_until($node, $sleeping, 1);
	kill 'STOP', $broker;
	return $broker;
}

# The holder has woken up, while its broker still sleeps: only the lease tells
sub holder_awake
{
	my ($node) = @_;
	return RiskAlert::wait_until($node, $sleeping, 0);
}

# Cut node 2's connections when its release of the lock has been sent, and not arrived
sub cut_release
{
	my ($node, $proxy) = @_;
	my $state = sub { return $node->safe_psql('postgres', q{SELECT state FROM risk_alert._lock_entries() WHERE key = 'counter'}); };
	wait_for {
		$proxy->stall;
		return 1 if $state->() eq 'held';
		$proxy->resume;
		return 0;
	} 'the node has the lock';
	wait_for { $state->() eq 'waiting' } 'it has let go, and queues again';
	$proxy->cut;
	$proxy->mend;
	return;
}

# A broker sleeps for longer than its session lives, connections are cut, and a node is cut off
sub lose_sessions
{
	my ($cluster, $progress, $proxy) = @_;

	my $sleeper = stop_holder($cluster->node(1));
	wait_for { $cluster->node(0)->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.nodes WHERE name = 'node_1' AND live}) == 0 }
	'its session has expired';
	$progress->('after it has lost its session', 1);
	holder_awake($cluster->node(1));
	kill 'CONT', $sleeper;
	wait_for { status($cluster->node(1), 'losses') >= 1 } 'the sleeper knows that it has lost its session';
	$progress->('after it has woken up');

	for (1 .. 2)
	{
		$proxy->cut;
		$proxy->mend;
		$progress->('after connections were cut');
		cut_release($cluster->node(2), $proxy);
		$progress->('after a release was lost with the connection');
	}
	$proxy->cut;
	wait_for { status($cluster->node(2), 'lease_ms') == 0 } 'the lease has run out';
	$progress->('while a node is cut off', 1);
	$proxy->mend;
	return;
}

sub check
{
	my ($provider, $cluster, $out, $err) = @_;
	my $resource = $cluster->node(0);
	my %sum = $out =~ /^sum (\w+) (\d+)$/mg;

	is($err, '', "$provider: nothing said on standard error");
	note($_) for grep { /^(sum|error)/ } split /\n/, $out;

	# what was written under the fence
	is($resource->safe_psql('postgres', 'SELECT n - (SELECT count(*) FROM log) FROM counter'), '0',
		"$provider: no increment is lost or made twice");
	cmp_ok($resource->safe_psql('postgres', 'SELECT n FROM counter'), '>=', $sum{writes},
		"$provider: what was confirmed is there ($sum{writes} of $sum{grants} grants)");
	is($resource->safe_psql('postgres', q{
SELECT count(*) FROM (SELECT token <= lag(token) OVER (ORDER BY id) AS wrong FROM log) t WHERE wrong}),
		'0', "$provider: tokens grow from each accepted write to the next");

	# without a fence: whoever was told that the lock was theirs till the end
	my @valid = sort { $a->[1] <=> $b->[1] } map { [ (split)[ 1 .. 4 ] ] } grep { /^valid/ } split /\n/, $out;
	my $overlaps = 0;
	for my $i (1 .. $#valid)
	{
		next if $valid[$i][1] >= $valid[ $i - 1 ][2];
		$overlaps++;
		diag("overlap: @{$valid[$i - 1]} and @{$valid[$i]}");
	}
	is($overlaps, 0, "$provider: of " . @valid . ' confirmed times of holding no two overlap');

	cmp_ok($sum{refused}, '>', 0, "$provider: a write of who had lost it was refused");
	cmp_ok($sum{commits_refused} + $sum{unlocks_refused}, '>', 0, "$provider: and it was told");

	# errors that are of the attack
	my %allowed = map { $_ => 1 } qw(55P03 40001 08006 57P01 57P02 57P03 LOST F0000);
	my %errors;
	$errors{$2} += $3 while $out =~ /^error (\d) (\w+) (\d+)$/mg;
	is(join(' ', grep { !$allowed{$_} } sort keys %errors), '', "$provider: no other errors");

	ok(nothing_left($cluster, 'counter'), "$provider: nothing is left, and the lock can be had at once");
	return;
}

1;
