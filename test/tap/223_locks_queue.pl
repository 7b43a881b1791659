# A thousand sessions of three nodes queue for one lock: all get it, nodes take
# turns, and few requests reach the service.  An ensemble without one
# server goes on; without two it says so, and recovers by itself.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use List::Util qw(sum max);
use LockAttack;
use LockCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes qw(time);

my $hammer = hammer_program() or plan skip_all => 'no C compiler';
my $limit = 16;

sub queue
{
	my ($cluster, $sessions, $while) = @_;
	my $provider = $cluster->{provider};
	my $dir = PostgreSQL::Test::Utils::tempdir('queue');
	my @nodes = $cluster->nodes;
	my $holder = session($nodes[0]);
	ask($holder, q{SELECT risk_alert.advisory_lock('queue')});
	my $requests = sum map { status($_, 'requests') } @nodes;

	my $run = IPC::Run::start([ $hammer, 'queue', 'queue', $sessions, "$dir/ready", map { $_->connstr('postgres') } @nodes ],
		'<', \undef, '>', "$dir/out", '2>', "$dir/err");
	wait_for { -e "$dir/ready" } 'connections';
	wait_until($_, "SELECT count(*) = $sessions FROM pg_stat_activity
 WHERE application_name = 'hammer' AND wait_event IN ('advisory', 'RiskAlertLock', 'Extension')") for @nodes;
	my $began = time;
	ask($holder, q{SELECT risk_alert.advisory_unlock('queue')});
	$while->() if $while;
	$run->finish;
	note sprintf '%s: %.1f s', $provider, time - $began;
	$holder->quit;
	$requests = sum(map { status($_, 'requests') } @nodes) - $requests;

	my $out = slurp_file("$dir/out");
	my @granted = map { [ (split)[ 1 .. 5 ] ] } grep { /^granted/ } split /\n/, $out;
	my $all = 3 * $sessions;
	is(scalar(@granted), $all, "$provider: all of $all waiters are served");
	is(join(' ', $out =~ /^error .*$/mg), '', "$provider: without an error");

	# in the order of grants; printed a little later, so neighbours of one node may be swapped
	my ($longest, $length, $last) = (0, 0, -1);
	my @share = (0, 0, 0);
	my $i = 0;
	my $first = int($all * 0.6);
	for my $grant (sort { length $a->[1] <=> length $b->[1] || $a->[1] cmp $b->[1] } @granted)
	{
		my ($node, $token, @left) = @$grant;
		$length = $node == $last ? $length + 1 : 1;
		$last = $node;
		# while others still wait
		$longest = max($longest, $length) if (grep { $_ > 0 } @left) == 3;
		$share[$node]++ if $i++ < $first;
	}
	cmp_ok($longest, '<=', $limit + 1, "$provider: no node has it more than $limit times more in a row ($longest)");
	for my $node (0 .. 2)
	{
		cmp_ok(abs($share[$node] - $first / 3), '<=', 2 * ($limit + 1),
			"$provider: node $node has its share of the first $first ($share[$node])");
	}
	cmp_ok($requests, '<=', $all / $limit + 12, "$provider: $requests requests for $all grants");
	return;
}

for my $provider (qw(zookeeper redis))
{
	my $sessions = 334;
	my $cluster = LockCluster->new($provider, nodes => 3, servers => 3, timeout => 4000, conf => qq{
max_connections = 400
risk_alert.lock_cohort_limit = $limit});
	my ($a) = $cluster->nodes;
	local $ENV{PGAPPNAME} = 'hammer';

	queue($cluster, $sessions, $provider eq 'redis' ? undef : sub { $cluster->{service}->kill9(3); });
	if ($provider eq 'zookeeper')
	{
		my $broker = broker_pid($a);
		$cluster->{service}->kill9(2);
		wait_until($a, q{SELECT state <> 'connected' FROM risk_alert.stat_coordination});
		my ($out, $err) = sql($a, q{SELECT risk_alert.advisory_lock('q2', '300ms')});
		like($err, qr/55P03: .*There is no connection to the coordination service/s, 'two servers down: a time-out that says why');
		($out, $err) = sql($a, q{SELECT risk_alert.try_advisory_lock('q2')});
		like($err, qr/08006: .*no connection to the coordination service/s, 'two servers down: nor at once');
		$cluster->{service}->start(2, 3);
		is($_->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('q2', '60s') IS NOT NULL}), 't',
			'they are back: the lock can be had')
		  for $cluster->nodes;
		is(broker_pid($a), $broker, 'by the same broker');
	}
	ok(nothing_left($cluster, 'queue'), "$provider: nothing is left");
	$cluster->stop;
}
done_testing();
