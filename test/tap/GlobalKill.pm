# GlobalKill.pm
#	The acceptance of global transactions: processes, nodes and servers of the register are
#	killed (SIGKILL) at each step of the commit and at random, while money moves between
#	accounts on three nodes.
#
#	kill_at_steps('paxos', $zookeeper);		# each step, each victim; what must follow
#	kill_at_random('paxos', $zookeeper);	# 8 sessions; for RISK_ALERT_KILL_SECONDS (15)
#
# The nodes are GlobalCluster's, of which node_a coordinates where only one does.  The random
# choices depend on RISK_ALERT_SEED, which is printed.

package GlobalKill;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use GlobalCluster;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(kill_cluster kill_at_steps kill_at_random kill_node);

my $limit = 10;					# seconds, in which all must be finished
my $accounts = 60;
my $branch = qr/^(ra:risk_alert:\w+:\w(?::[1-9a-f][0-9a-f]*){4}):[1-9a-f][0-9a-f]*$/;	# without what leave_foreign() leaves
my @nodes;

# Three nodes with this register.  What bounds recovery: recovery_interval is 200 ms (as
# GlobalCluster sets it), and a transaction whose coordinator doesn't answer is over after two of
# these; 341_global_kill_zookeeper sets session_timeout to 4 s, too.
sub kill_cluster
{
	my ($register, $conf) = @_;

	@nodes = accounts_cluster(conf => "risk_alert.commit_register = $register
max_prepared_transactions = 60
max_connections = 100
" . ($conf // ''));
	foreach my $node (@nodes)
	{
		$node->safe_psql('postgres', q{CREATE TABLE transfer (round int, client int, number int, participants text NOT NULL, PRIMARY KEY (round, client, number))});
	}
	leave_foreign();
	return @nodes;
}

# ---- killing

# The node's processes, but its postmaster
sub children
{
	my ($node) = @_;
	my @children;
	foreach my $stat (glob '/proc/[0-9]*/stat')
	{
		open(my $file, '<', $stat) or next;
		my $line = <$file> // next;
		push @children, $1 if $line =~ /^(\d+) \(.*\) [^Z] (\d+)/ && $2 == ($node->{_pid} // 0);
	}
	return sort { $a <=> $b } @children;
}

# All processes of the node at a time, as if it lost its power; returns when none is left
sub kill_node
{
	my ($node) = @_;
	my $postmaster = $node->{_pid};
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my @all;

	# it must neither make new ones nor be missed by those that are there
	kill('STOP', $postmaster);
	until (slurp_file("/proc/$postmaster/stat") =~ /\) T/)
	{
		die $node->name . ' does not stop' if time > $deadline;
		sleep(0.001);
	}
	@all = (children($node), $postmaster);
	kill('KILL', @all);

	# while its number is in use the next one does not start
	while (grep { kill(0, $_) } @all)
	{
		die 'processes of ' . $node->name . ' do not end' if time > $deadline;
		sleep(0.01);
	}
	$node->{_pid} = undef;
	return;
}

# Until all are up
sub up
{
	defined $_->{_pid} || $_->start foreach @nodes;
	wait_for_restart($_) foreach @nodes;
	return;
}

# ---- at each step

# How often the nodes look for branches.  While transactions are to stand at a step, hardly ever:
# recovery would finish those that are decided before anybody is killed.
sub recovery
{
	my ($interval) = @_;
	foreach my $node (@nodes)
	{
		$node->append_conf('postgresql.conf', "risk_alert.recovery_interval = '$interval'\n");
		$node->reload if defined $node->{_pid};
	}
	return;
}

# Somebody has been killed: all others go on
sub release
{
	recovery('200ms');
	go();
	return;
}

# Transactions of node_a that stand at each step of their commit:
# [ account, session, step, from, to, process id of the session's backend ]
sub stop_at_steps
{
	my ($id) = @_;
	my @stopped;
	recovery('1h');
	wait_until($_, 'SHOW risk_alert.recovery_interval', '1h') foreach @nodes;
	foreach my $step ('prepare 1', 'prepare 2', 'decide', 'commit 1', 'commit 2')
	{
		foreach my $pair ([ 1, 2 ], [ 0, 1 ])
		{
			my ($from, $to) = @$pair;
			my $session = session($nodes[0]);
			my $pid = $session->query_safe('SELECT pg_backend_pid()');
			$$id++;
			commit_until($session, $step, on($nodes[$from]->name, take($$id)), on($nodes[$to]->name, give($$id)));
			push @stopped, [ $$id, $session, $step, $from, $to, $pid ];
		}
	}
	return @stopped;
}

# What must become of them when this node is killed (-1: none; "backend": of node_a)
sub must_commit
{
	my ($stopped, $victim) = @_;
	my (undef, undef, $step, $from, $to) = @$stopped;

	return $step =~ /commit/ if $victim eq 'backend' || $victim eq '0';
	return 0 if $step eq 'prepare 1' && ($victim == $from || $victim == $to);
	return 0 if $step eq 'prepare 2' && $victim == $to;
	return 1;
}

# All of them, in words; the accounts must say the same on all nodes
sub fates
{
	my @stopped = @_;
	my @of = map { { map { split /:/ } split / /, $_->safe_psql('postgres', q{SELECT string_agg(id || ':' || balance, ' ') FROM account}) } } @nodes;
	return join("\n", map
		{
			my ($id, undef, $step, $from, $to) = @$_;
			my @moved = map { $of[$_]{$id} - 1000 } 0 .. 2;
			my $fate = "@moved" eq '0 0 0' ? 'aborted' : $moved[$from] == -10 && $moved[$to] == 10 ? 'committed' : "TORN (@moved)";
			"$step, " . $nodes[$from]->name . ' to ' . $nodes[$to]->name . ": $fate";
		} @stopped);
}

sub fates_expected
{
	my ($victim, @stopped) = @_;
	return join("\n", map
		{
			my (undef, undef, $step, $from, $to) = @$_;
			"$step, " . $nodes[$from]->name . ' to ' . $nodes[$to]->name . ': ' . (must_commit($_, $victim) ? 'committed' : 'aborted');
		} @stopped);
}

# What each session was told: COMMIT has succeeded, or a clear error
sub answers
{
	return join("\n", map
		{
			my ($id, $session, $step, $from, $to) = @$_;
			my $said = outcome($session);
			$session->quit;
			my $what = $said =~ /ERROR:  (\w+)/ ? ($1 eq '08007' ? 'unknown' : 'aborted') : 'committed';
			"$step, " . $nodes[$from]->name . ' to ' . $nodes[$to]->name . ": $what";
		} @_);
}

sub within
{
	my ($seconds, $claim) = @_;
	ok(defined $seconds && $seconds < $limit, $claim);
	note(sprintf('%.1f s', $seconds)) if defined $seconds;
	return;
}

sub kill_at_steps
{
	my ($register, $zookeeper) = @_;
	my ($node_a, $node_b, $node_c) = @nodes;
	my $durable = $register ne 'local';
	my $id = 100;				# beyond the accounts of the random part
	my @stopped;
	my $check = sub {
		my ($claim, $victim) = @_;
		within(settled(), "$claim, all is up: nothing stays prepared");
		is(fates(@stopped), fates_expected($victim, @stopped), "$claim: all nodes agree, as they must");
	};
	my $abandon = sub { eval { $_->[1]->quit } foreach @stopped; release(); };

	# 300_global does it with register "local"
	if ($durable)
	{
		@stopped = stop_at_steps(\$id);
		kill('KILL', $stopped[0][5]);
		$abandon->();
		up();
		$check->("$register: the coordinator's backend is killed", 'backend');
	}

	@stopped = stop_at_steps(\$id);
	kill_node($node_a);
	$abandon->();
	within(settled($node_b, $node_c), "$register: the coordinator's node is killed, and stays down: the others finish without it") if $durable;
	$node_a->start;
	$check->("$register: the coordinator's node is killed", 0);

	foreach my $victim (1, 2)
	{
		my $name = $nodes[$victim]->name;
		@stopped = stop_at_steps(\$id);
		kill_node($nodes[$victim]);
		release();
		is(answers(@stopped), fates_expected($victim, @stopped), "$register: $name is killed: the coordinator knows what it does");
		within(settled(grep { $_ != $nodes[$victim] } @nodes), "$register: $name stays down: the others finish without it");
		$nodes[$victim]->start;
		$check->("$register: $name is killed", $victim);
	}

	if ($zookeeper)
	{
		my $leader = $zookeeper->leader;
		@stopped = stop_at_steps(\$id);
		$zookeeper->kill9($leader);
		release();
		is(answers(@stopped), fates_expected(-1, @stopped), "$register: the register's leader is killed: all commit");
		$check->("$register: the register's leader is killed", -1);
		$zookeeper->start($leader);

		# a minority of the register, and the coordinator with it
		$leader = $zookeeper->leader;
		@stopped = stop_at_steps(\$id);
		kill_node($node_a);
		$zookeeper->kill9($leader);
		$abandon->();
		within(settled($node_b, $node_c), "$register: the register's leader and the coordinator's node stay down: the others finish");
		$node_a->start;
		$check->("$register: the register's leader and the coordinator's node are killed", 0);
		$zookeeper->start($leader);
	}

	# nobody can know: nobody guesses
	if ($durable)
	{
		my @servers;
		my $waiting;
		@stopped = stop_at_steps(\$id);
		if ($zookeeper)
		{
			@servers = ($zookeeper->leader);
			push @servers, (grep { $_ != $servers[0] } 1 .. 3)[0];
			$zookeeper->kill9(@servers);
		}
		else
		{
			kill_node($node_c);
		}
		kill_node($node_a);
		$abandon->();
		$waiting = prepared($node_b);
		ok($waiting > 0, "$register: a majority of the register and the coordinator's node are killed: $waiting branches are in doubt");
		ok(wait_until($node_b, q{SELECT last_error ~ '^branch "ra:risk_alert:node_a:' FROM risk_alert.stat_recovery}), "$register: recovery asks in vain, and says so");
		is(prepared($node_b), $waiting, "$register: nobody guesses");
		$zookeeper ? $zookeeper->start(@servers) : $node_c->start;
		within(settled($node_b, $node_c), "$register: its majority is back, the coordinator's node stays down: the others finish");
		$node_a->start;
		$check->("$register: a majority of the register and the coordinator's node were killed", 0);
	}
	ok(foreign_left(), "$register: what others have prepared is not touched");
	return;
}

# ---- at random

# Compiled once per test file
my $program;

sub clients_program
{
	return $program if $program;
	my $file = PostgreSQL::Test::Utils::tempdir('clients') . '/transfer_clients';
	my $config = $ENV{PG_CONFIG} // 'pg_config';
	chomp(my $include = `$config --includedir`);
	chomp(my $lib = `$config --libdir`);
	return undef
	  if system('cc', '-O', '-Wall', '-o', $file, 'test/tap/transfer_clients.c', "-I$include", "-L$lib", '-lpq', '-lpthread') != 0;
	return $program = $file;
}

# 8 sessions, whose output goes to that file.  They end when the pipe is closed: also
# when this process ends.
sub start_clients
{
	my ($register, $round, $file) = @_;
	my @command = (clients_program(), int(rand(1 << 30)), 8, $round, $accounts, $register eq 'local' ? 1 : 0,
		map { ($_->name, $_->connstr('postgres')) } @nodes);
	my $pid = open(my $pipe, '|-') // die "could not fork: $!";
	if ($pid == 0)
	{
		open(STDOUT, '>', $file) or POSIX::_exit(1);
		exec { $command[0] } @command or POSIX::_exit(1);
	}
	$pipe->autoflush;
	return $pipe;
}

# No more transfers; returns when those that are under way have ended
sub stop_clients
{
	my ($pipe) = @_;
	print $pipe "\n";
	close($pipe) or die 'the clients have failed';
	return;
}

# Any process of a node but its postmaster: a session that coordinates, a branch, the
# worker, recovery, the broker.  Its postmaster restarts the node then.
sub kill_process
{
	my ($node) = @_;
	my @all = children($node);
	my $pid = $all[ rand @all ];
	my $what = '';
	if ($pid && open(my $file, '<', "/proc/$pid/cmdline"))
	{
		$what = <$file> // '';
		$what =~ s/[\0\s]+$//;
	}
	kill('KILL', $pid) if $pid;
	return $what;
}

# One event of a round: what is killed comes back at the end of the round, or before
sub kill_something
{
	my ($zookeeper) = @_;
	my $node = $nodes[ rand @nodes ];
	my $kind = rand;

	if ($zookeeper && $kind < 0.35)
	{
		my @alive = grep { $zookeeper->pid($_) } 1 .. 3;
		my $leader = $zookeeper->leader;
		my $server = $leader && rand() < 0.5 ? $leader : $alive[ rand @alive ];
		if (@alive < 3)
		{
			$zookeeper->start(grep { !$zookeeper->pid($_) } 1 .. 3);
			return 'register servers are up';
		}
		my @servers = rand() < 0.3 ? ($server, (grep { $_ != $server } @alive)[0]) : ($server);
		$zookeeper->kill9(@servers);
		return "register servers @servers";
	}
	if (!defined $node->{_pid})
	{
		$node->start;
		return $node->name . ' is up';
	}
	return 'of ' . $node->name . ': ' . (kill_process($node) || 'nothing') if $kind < 0.65;
	kill_node($node);
	return $node->name;
}

# What is true of a round, when all is finished
sub check_round
{
	my ($register, $round, $file, $count) = @_;
	my %node = map { $nodes[$_]->name => $_ } 0 .. $#nodes;
	my @wrong;
	my (@there, @by_xid);
	my $total = 0;

	foreach my $i (0 .. $#nodes)
	{
		$total += $nodes[$i]->safe_psql('postgres', 'SELECT sum(balance) FROM account');
		foreach my $line (split /\n/, $nodes[$i]->safe_psql('postgres', "SELECT xmin, client || ' ' || number FROM transfer WHERE round = $round"))
		{
			my ($xid, $key) = split /\|/, $line;
			$there[$i]{$key} = 1;
			$by_xid[$i]{$xid} = 1;
		}
	}
	is($total, 3 * 200 * 1000, "$register, round $round: no money is lost or made");

	# each transfer is on all of its nodes or on none, as its client was told
	my (%told, %prepared);
	foreach my $line (split /\n/, slurp_file($file))
	{
		my @word = split / /, $line;
		if ($word[0] eq 'prepared')
		{
			my ($transaction) = $word[2] =~ $branch or next;
			$prepared{$transaction}{ $word[1] } = $word[3];
			next;
		}
		my (undef, $client, $number, undef, $participants, $fate, $state, $gid) = @word;
		my @on = map { $there[ $node{$_} ]{"$client $number"} ? 1 : 0 } split /,/, $participants;
		my $n = grep { $_ } @on;
		my $all = $n == @on;
		$count->{$fate}++;
		$count->{states}{$state}++ if $fate ne 'committed';
		push @wrong, "torn (@on): $line" if $n && !$all;
		push @wrong, "lost: $line" if $fate eq 'committed' && !$all;
		push @wrong, "there: $line" if $fate eq 'failed' && $n;
		if ($gid ne '-' && $state eq '08007')
		{
			$told{$gid} = $all;
			$count->{told}++;
		}
		delete $there[ $node{$_} ]{"$client $number"} foreach split /,/, $participants;
	}
	# clients that lost their connection have told of each transfer, so nothing is left
	push @wrong, 'of no transfer: ' . join(', ', keys %$_) foreach grep { %$_ } map { $_ // {} } @there;
	is(join("\n", @wrong), '', "$register, round $round: each transfer is on all of its nodes or on none, as its client was told");

	# the register says what the nodes have done; of what it has forgotten, nothing else
	@wrong = ();
	my %ask = %told;
	foreach my $transaction (keys %prepared)
	{
		my @on = map { $by_xid[ $node{$_} ]{ $prepared{$transaction}{$_} } ? 1 : 0 } keys %{ $prepared{$transaction} };
		my $n = grep { $_ } @on;
		push @wrong, "torn (@on): $transaction" if $n && $n != @on;
		$prepared{$transaction} = $n > 0;
	}
	my @aborted = grep { !$prepared{$_} } sort keys %prepared;
	my @committed = grep { $prepared{$_} } sort keys %prepared;
	$ask{$_} = $prepared{$_} foreach @aborted[ 0 .. min(99, $#aborted) ], @committed[ 0 .. min(29, $#committed) ];
	if (%ask)
	{
		my $list = join(',', map { "('$_')" } sort keys %ask);
		my %allowed = (
			local => { 1 => 'committed|aborted', 0 => 'aborted' },
			zookeeper => { 1 => 'committed|in progress', 0 => 'aborted|in progress' },
			paxos => { 1 => 'committed', 0 => 'aborted|in progress' });
		foreach my $line (split /\n/, $nodes[ rand @nodes ]->safe_psql('postgres', "SELECT gid, risk_alert.global_outcome(gid) FROM (VALUES $list) g (gid)"))
		{
			my ($gid, $outcome) = split /\|/, $line;
			my $allowed = exists $told{$gid} ? ($told{$gid} ? 'committed' : 'aborted') : $allowed{$register}{ $ask{$gid} ? 1 : 0 };
			push @wrong, "$gid is said to be $outcome, not $allowed" if $outcome !~ /^($allowed)$/;
			$count->{asked}++;
		}
	}
	is(join("\n", @wrong), '', "$register, round $round: global_outcome() agrees with the data");
	return;
}

sub min { return $_[0] < $_[1] ? $_[0] : $_[1]; }

# All servers of the register, but so many
sub start_register
{
	my ($zookeeper, $but) = @_;
	my @dead = $zookeeper ? grep { !$zookeeper->pid($_) } 1 .. 3 : ();
	splice(@dead, 0, $but);
	$zookeeper->start(@dead) if @dead;
	return;
}

# Transfers go on while something is killed a few times; then either all is brought up, or
# a node, and perhaps a server of the register, is left down for a while
sub play_round
{
	my ($register, $zookeeper, $round, $file, $count) = @_;
	my $pipe = start_clients($register, $round, $file);
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my ($down, $began, @what);
	my $finished = sub {
		my ($claim, @which) = @_;
		my $took = defined settled(@which) ? time - $began : undef;
		within($took, "$register, round $round: $claim: nothing stays prepared");
		$count->{slowest} = $took if defined $took && $took > $count->{slowest};
	};

	until (grep { $_->safe_psql('postgres', "SELECT count(*) FROM transfer WHERE round = $round") > 0 } @nodes)
	{
		die 'no transfer begins' if time > $deadline;
	}
	for (1 .. 1 + int(rand(4)))
	{
		sleep(0.2 + rand(0.8));	# a moment as good as any
		push @what, kill_something($zookeeper);
	}
	if ($register ne 'local' && $round % 2)
	{
		# it coordinates for some of the clients
		start_register($zookeeper, int(rand(2)));
		up();
		sleep(rand(0.5));		# as above
		$down = $nodes[ rand @nodes ];
		kill_node($down);
		$began = time;
		push @what, $down->name . ' stays down';
	}
	note("$register, round $round: " . join('; ', @what));
	if ($down)
	{
		stop_clients($pipe);
		$finished->($down->name . ' stays down', grep { $_ != $down } @nodes);
	}
	start_register($zookeeper, 0);
	up();
	$began = time;
	stop_clients($pipe) unless $down;
	$finished->('all is up');
	check_round($register, $round, $file, $count);
	return;
}

sub kill_at_random
{
	my ($register, $zookeeper) = @_;
	my $seed = $ENV{RISK_ALERT_SEED} // (int(time) ^ $$) & 0x7fffffff;
	my $seconds = $ENV{RISK_ALERT_KILL_SECONDS} // 15;
	my $file = PostgreSQL::Test::Utils::tempdir('clients') . '/out';
	my %count = (committed => 0, failed => 0, unknown => 0, states => {}, told => 0, asked => 0, slowest => 0);
	my $until = time + $seconds;
	my $round = 0;

	SKIP:
	{
		clients_program() or skip 'no C compiler', 1;
		diag("$register: RISK_ALERT_SEED=$seed");
		srand($seed);

		# so long may a session wait for a register that is down
		foreach my $node (@nodes)
		{
			$node->append_conf('postgresql.conf', "risk_alert.commit_timeout = '3s'\n");
			$node->reload;
			wait_until($node, 'SHOW risk_alert.commit_timeout', '3s');
		}
		play_round($register, $zookeeper, ++$round, $file, \%count) while $round < 2 || time < $until;
		cmp_ok($count{committed}, '>', 20, "$register: transfers have committed");
		ok(foreign_left(), "$register: what others have prepared is not touched");
		diag("$register: $round rounds, $count{committed} transfers committed, $count{failed} failed, $count{unknown} unknown ($count{told} of them named); "
			  . "$count{asked} asked for; the last branch was finished after " . sprintf('%.1f s', $count{slowest}) . '; '
			  . join(' ', map { "$_:$count{states}{$_}" } sort keys %{ $count{states} }));
	}
	return;
}

1;
