# The decision registers by themselves: the first proposal stands, whoever
# proposes what where at the same time, and whatever is down meanwhile.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use LockCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $timeout = 20000;			# ms, for what must succeed
my $names = 0;

sub propose
{
	my ($node, $kind, $gid, $decision, $ms) = @_;
	$ms //= $timeout;
	return $node->safe_psql('postgres', "SELECT risk_alert._register_propose('$kind', '$gid', '$decision', $ms)");
}

sub standing
{
	my ($node, $kind, $gid, $ms) = @_;
	$ms //= $timeout;
	return $node->safe_psql('postgres', "SELECT risk_alert._register_read('$kind', '$gid', $ms)");
}

sub new_gid { return 'test:' . ++$names; }

# Sessions that propose at the same moment; what each has found
sub race
{
	my ($kind, $gid, @proposals) = @_;
	my (@runs, @outs, @errs);
	for my $i (0 .. $#proposals)
	{
		my ($node, $decision) = @{ $proposals[$i] };
		$outs[$i] = $errs[$i] = '';
		push @runs, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'),
				'-c', "SELECT risk_alert._register_propose('$kind', '$gid', '$decision', $timeout)" ],
			'<', \undef, '>', \$outs[$i], '2>', \$errs[$i]);
	}
	$_->finish for @runs;
	chomp @outs;
	return map { $outs[$_] ne '' ? $outs[$_] : $errs[$_] } 0 .. $#proposals;
}

# Eight sessions, many times: all see the same, and so does who reads afterwards
sub first_one_stands
{
	my ($kind, $rounds, @nodes) = @_;
	my %count = (commit => 0, abort => 0);
	my $wrong = '';
	for my $round (1 .. $rounds)
	{
		my $gid = new_gid();
		my @proposals = map { [ $nodes[ $_ % @nodes ], $_ == $round % 8 ? 'commit' : 'abort' ] } 0 .. 7;
		my @found = race($kind, $gid, @proposals);
		my %seen = map { $_ => 1 } @found;
		my ($outcome) = keys %seen;
		my $read = standing($nodes[ $round % @nodes ], $kind, $gid);
		if (keys %seen != 1 || !exists $count{$outcome} || ($read ne $outcome && $read !~ /under way/))
		{
			$wrong .= "$gid: " . join(', ', sort keys %seen) . " read $read\n";
			next;
		}
		$count{$outcome}++;
	}
	is($wrong, '', "$kind: eight sessions see the same decision each time");
	note("$kind: $count{commit} commits, $count{abort} aborts");
	return;
}

# ---- the nodes' own

my @nodes = new_cluster([ 'node_a', 'node_b', 'node_c' ],
	init => { allows_streaming => 1 }, conf => "restart_after_crash = on\n");
my ($a, $b, $c) = @nodes;

like(propose($a, 'paxos', 'test:early', 'commit', 2000), qr/^unknown: no majority.*node_b.*has no vote.*not admitted/s,
	'paxos: nobody votes who was not admitted');
$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit()') for @nodes;
is($a->safe_psql('postgres', 'SELECT risk_alert._paxos_problem() IS NULL'), 't', 'paxos: admitted');

my $gid = new_gid();
is(standing($b, 'paxos', $gid), 'none', 'paxos: nothing stands at first');
is(propose($a, 'paxos', $gid, 'commit'), 'commit', 'paxos: commit');
is(propose($b, 'paxos', $gid, 'abort'), 'commit', 'paxos: an abort after it finds the commit');
is(propose($a, 'paxos', $gid, 'commit'), 'commit', 'paxos: proposing again');
is(standing($c, 'paxos', $gid), 'commit', 'paxos: reading');
$gid = new_gid();
is(propose($c, 'paxos', $gid, 'abort'), 'abort', 'paxos: abort');
is(propose($a, 'paxos', $gid, 'commit'), 'abort', 'paxos: a commit after it finds the abort');

first_one_stands('paxos', 12, @nodes);
done_testing();
