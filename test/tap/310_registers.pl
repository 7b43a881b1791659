# The decision registers by themselves: the first proposal stands, whoever
# proposes what where at the same time, and whatever is down meanwhile.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use LockCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;
use Time::HiRes;

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

# A server is killed and started again, once the last of its processes has gone
sub crash
{
	my ($node) = @_;
	$node->kill9;
	for (1 .. 200)
	{
		$node->{_pid} = undef;	# as the file says that it leaves behind
		return if $node->start(fail_ok => 1);
		Time::HiRes::sleep(0.1);
	}
	die $node->name . ' does not start again';
}

# Sessions that propose all of these, the first two commits; their outputs, and what runs
sub many
{
	my ($kind, $gids, @nodes) = @_;
	my (@runs, @outs);
	for my $i (0 .. 5)
	{
		my $decision = $i < 2 ? 'commit' : 'abort';
		my $file = PostgreSQL::Test::Utils::tempdir() . "/many_$i.sql";
		append_to_file($file, join '', map { "SELECT '$_', risk_alert._register_propose('$kind', '$_', '$decision', $timeout);\n" } @$gids);
		$outs[$i] = '';
		push @runs, IPC::Run::start([ 'psql', '-XAtq', '-d', $nodes[ $i % @nodes ]->connstr('postgres'), '-f', $file ],
			'<', \undef, '>', \$outs[$i], '2>', \my $ignored);
	}
	return (\@outs, @runs);
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
		if (keys %seen != 1 || !exists $count{$outcome} || $read ne $outcome)
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

my $vote = q{SELECT level, description, detail FROM risk_alert.check_setup() WHERE name = 'paxos_vote'};
is($a->safe_psql('postgres', $vote), '', 'check_setup() has nothing to say about a register that is not used');
is($a->safe_psql('postgres', "SET risk_alert.commit_register = paxos; $vote"), 'warning|this node has no vote in the Paxos register|It was not admitted.',
	'check_setup() finds a node without a vote');
like(propose($a, 'paxos', 'test:early', 'commit', 2000), qr/^unknown: no majority.*node_b.*has no vote.*not admitted/s,
	'paxos: nobody votes who was not admitted');
$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') for @nodes;
is($a->safe_psql('postgres', 'SELECT risk_alert._paxos_problem() IS NULL'), 't', 'paxos: admitted');
is($a->safe_psql('postgres', $vote), 'ok|this node has a vote in the Paxos register|', 'check_setup() finds it in order');
$a->safe_psql('postgres', q{ALTER SYSTEM SET risk_alert.paxos_acceptors = 'node_a'; SELECT pg_reload_conf()});
ok(wait_until($a, $vote, 'error|this node has no vote in the Paxos register|It votes as one of risk_alert:node_a,node_b,node_c, and the acceptors are risk_alert:node_a.'),
	'check_setup() finds another set of acceptors');
$a->safe_psql('postgres', q{ALTER SYSTEM SET risk_alert.paxos_acceptors = 'node_b, node_c'; SELECT pg_reload_conf()});
ok(wait_until($a, $vote, 'info|this node is no acceptor of the Paxos register|Acceptors are node_b, node_c.'), 'check_setup() says when it is none');
$a->safe_psql('postgres', q{ALTER SYSTEM RESET risk_alert.paxos_acceptors; SELECT pg_reload_conf()});
ok(wait_until($a, $vote, 'ok|this node has a vote in the Paxos register|'), 'and when it is one again');

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

# within a transaction block the answer would come before the commit
my ($rc, $out, $err) = $a->psql('postgres', q{BEGIN; SELECT risk_alert._paxos_accept(risk_alert._paxos_identity(), 'node_a', 'test:block', 0, 0, 'commit')});
like($err, qr/can't answer within a transaction block/, 'paxos: no answer that is not durable');
is($a->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_commit = off; SELECT pg_reload_conf()}), 't', 'reloaded');
$b->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_commit = off; SELECT pg_reload_conf()});

# one node down
$c->stop('immediate');
$gid = new_gid();
is(propose($a, 'paxos', $gid, 'commit'), 'commit', 'paxos: one of three is down');
is(propose($b, 'paxos', $gid, 'abort'), 'commit', 'paxos: and another node finds it');

# a coordinator that died when one acceptor had accepted
$gid = new_gid();
$a->safe_psql('postgres', "SELECT granted FROM risk_alert._paxos_accept(risk_alert._paxos_identity(), 'node_a', '$gid', 0, 0, 'commit')");
is(standing($b, 'paxos', $gid), 'commit', 'paxos: a reader finishes what somebody has begun');
is(standing($b, 'paxos', new_gid()), 'none', 'paxos: and begins nothing');

# two down: unknown, with the reason; and what was decided before is still that
$b->stop('immediate');
my $unknown = new_gid();
like(propose($a, 'paxos', $unknown, 'commit', 1500), qr/^unknown: no majority of the 3 acceptors.*node_b.*node_c/s,
	'paxos: two of three are down');
like(standing($a, 'paxos', $gid, 500), qr/^unknown: no majority/, 'paxos: nor is there an answer to a reader');
$b->start;
is(propose($b, 'paxos', $unknown, 'abort'), propose($a, 'paxos', $unknown, 'commit'),
	'paxos: once one is back, there is a decision');
is(standing($a, 'paxos', $gid), 'commit', 'paxos: what was decided is still that, without synchronous_commit');
$c->start;

# who does not answer at all costs nothing
{
	my $pid = slurp_file($c->data_dir . '/postmaster.pid');
	($pid) = $pid =~ /^(\d+)/;
	$c->safe_psql('postgres', 'SELECT 1');
	my $session = $a->background_psql('postgres');
	$session->query_safe("SELECT risk_alert._register_propose('paxos', '@{[new_gid()]}', 'commit', 20000)");
	my @backends = split /\n/, $c->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
	kill 'STOP', $pid, @backends;
	my $start = time;
	is($session->query_safe("SELECT risk_alert._register_propose('paxos', '@{[new_gid()]}', 'commit', 20000)"), 'commit',
		'paxos: one of three is frozen');
	is(propose($b, 'paxos', new_gid(), 'abort'), 'abort', 'paxos: also for a new session');
	cmp_ok(time - $start, '<', 5, 'paxos: which delays nobody');
	kill 'CONT', $pid, @backends;
	is($session->query_safe("SELECT risk_alert._register_propose('paxos', '@{[new_gid()]}', 'abort', 20000)"), 'abort',
		'paxos: the session goes on');
	$session->quit;
}

# an answer whose acceptor can't commit it is none, though it has left
{
	$_->safe_psql('postgres', q{CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.gid = 'test:late' THEN RAISE 'too late'; END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON risk_alert.paxos_acceptor DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();}) foreach $b, $c;
	like(propose($a, 'paxos', 'test:late', 'commit', 1500), qr/^unknown: no majority.*too late/s, 'paxos: a vote that is not durable does not count');
	$_->safe_psql('postgres', 'DROP FUNCTION late CASCADE') foreach $b, $c;
	like(propose($b, 'paxos', 'test:late', 'abort'), qr/^(commit|abort)$/, 'paxos: it is decided when they can');
}

# who was held up while answers came has not heard them in time
{
	my $session = $a->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $gid = new_gid();
	my $waits = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'risk_alert node_a' AND query LIKE '%_paxos_%' AND wait_event_type = 'Lock'};
	my @locks = map { $_->background_psql('postgres') } $b, $c;
	my $since;

	$session->query_safe("SELECT risk_alert._register_propose('paxos', '@{[new_gid()]}', 'commit', $timeout)");
	$_->query_safe('BEGIN; LOCK TABLE risk_alert.paxos_acceptor') foreach @locks;
	$since = $a->safe_psql('postgres', 'SELECT clock_timestamp()');
	$session->query_until(qr/begun/, "\\echo begun\nSELECT risk_alert._register_propose('paxos', '$gid', 'commit', 3000);\n");
	ok(wait_until($_, $waits, 1), 'paxos: a request waits') foreach $b, $c;
	kill('STOP', $pid);
	$_->query_safe('COMMIT') foreach @locks;
	ok(wait_until($_, "SELECT count(*) FROM risk_alert.paxos_acceptor WHERE gid = '$gid' AND value = 'commit'", 1), 'paxos: and is answered') foreach $b, $c;
	wait_until($a, "SELECT clock_timestamp() > '$since'::timestamptz + interval '3.1 s'");
	kill('CONT', $pid);
	like($session->query(''), qr/^unknown/m, 'paxos: an answer that is read too late does not count');
	is(standing($a, 'paxos', $gid), 'commit', 'paxos: who asks anew finds it');
	$_->quit foreach $session, @locks;
}

# kill -9 in the middle of it
{
	my $wrong = '';
	my %count;
	for my $round (1 .. 6)
	{
		my $victim = $nodes[ $round % 3 ];
		my @others = grep { $_ != $victim } @nodes;
		my @gids = map { new_gid() } 1 .. 20;
		my ($outs, @runs) = many('paxos', \@gids, @nodes);
		ok(wait_until($victim, 'SELECT count(*) > 0 FROM risk_alert.paxos_acceptor WHERE gid = ' . "'$gids[3]'"),
			"round $round is under way");
		if ($round % 2)
		{
			crash($victim);
		}
		else
		{
			$victim->psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
		}
		eval { $_->finish } for @runs;
		wait_for_restart($victim);
		for my $gid (@gids)
		{
			my %seen;
			for my $out (@$outs)
			{
				$seen{$1} = 1 if $out =~ /^\Q$gid\E\|(commit|abort)$/m;
			}
			$seen{ propose($others[0], 'paxos', $gid, 'abort') } = 1;
			$seen{ propose($victim, 'paxos', $gid, 'abort') } = 1;
			$count{$_}++ for keys %seen;
			$wrong .= "$gid: " . join(', ', sort keys %seen) . "\n"
			  if keys %seen != 1 || exists $seen{unknown};
		}
	}
	is($wrong, '', 'paxos: no two decisions although nodes were killed');
	note(join ', ', map { "$count{$_} $_" } sort keys %count);
}

# forget: kept for a time
$gid = new_gid();
{
	my $session = session($a);
	$session->query_safe("SELECT risk_alert._register_propose('paxos', '$gid', 'commit')");
	# a majority has it: the others may still be connecting
	wait_until($b, "SELECT count(*) FROM risk_alert.paxos_acceptor WHERE gid = '$gid'", 1);
	$session->query_safe("SELECT risk_alert._register_forget('paxos', '$gid')");
	$session->quit;
}
my $told = 'EXISTS (SELECT FROM risk_alert.paxos_forgotten f WHERE a.gid = ANY (f.gids))';
my $not_told = "SELECT count(*) FROM risk_alert.paxos_acceptor a WHERE NOT $told AND value = 'commit'";
ok(wait_until($b, "SELECT $told FROM risk_alert.paxos_acceptor a WHERE gid = '$gid'"), 'paxos: forgotten, but still there');
my $before = $b->safe_psql('postgres', $not_told);
$b->safe_psql('postgres', q{
UPDATE risk_alert.paxos_acceptor SET created_at = created_at - interval '2 days', changed_at = changed_at - interval '2 days';
UPDATE risk_alert.paxos_forgotten SET forgotten_at = forgotten_at - interval '2 days'});
ok(wait_until($b, "SELECT count(*) = 0 FROM risk_alert.paxos_acceptor WHERE gid = '$gid'"), 'paxos: it goes after its time');
ok(wait_until($b, 'SELECT count(*) = 0 FROM risk_alert.paxos_forgotten'), 'paxos: and what was told about it');
is($b->safe_psql('postgres', $not_told), $before,
	'paxos: a commit that nobody has finished stays');

# a session that commits much tells of several at a time, and of the rest when it ends
{
	my $many = new_gid();
	$a->safe_psql('postgres', join('', map { "SELECT risk_alert._register_propose('paxos', '$many-\\\"$_', 'commit'); SELECT risk_alert._register_forget('paxos', '$many-\\\"$_');" } 1 .. 40));
	my $forgotten = 0;
	for (1 .. 1000)
	{
		# an acceptor that is late may miss one or the other
		$forgotten = (sort { $::b <=> $::a } map { $_->safe_psql('postgres', "SELECT count(*) FROM risk_alert.paxos_acceptor a WHERE starts_with(gid, '$many') AND $told") } @nodes)[0];
		last if $forgotten > 36;
		Time::HiRes::sleep(0.02);
	}
	ok($forgotten > 36, "paxos: what a session has done is forgotten when it ends, not only every 32nd: $forgotten of 40");
}

# rights: another role's global transaction is decided with the owner's mappings, and can't be tampered with
($rc, $out, $err) = $a->psql('postgres', q{SELECT risk_alert._register_propose('paxos', 'x', 'abort')}, extra_params => [ '-U', 'operator' ]);
like($err, qr/permission denied/, 'a register is not asked by anybody');

# amnesia: a restored backup has no vote, though it looks the same
{
	$b->backup('early');
	my $lost = new_gid();
	$c->stop('immediate');
	is(propose($a, 'paxos', $lost, 'commit'), 'commit', 'paxos: decided by a and b');
	$b->stop('immediate');
	my $restored = PostgreSQL::Test::Cluster->new('node_b_restored');
	$restored->init_from_backup($b, 'early');
	$restored->start;
	is($restored->safe_psql('postgres', 'SELECT risk_alert._paxos_problem()'),
		'It is a copy of the server that was admitted, restored from a backup or promoted.',
		'paxos: a restored backup knows that it is one');
	like($restored->safe_psql('postgres', $vote), qr/^warning\|.*no vote.*\|It is a copy/, 'check_setup() says so');
	$c->start;
	my ($host, $port) = ($restored->host, $restored->port);
	$_->safe_psql('postgres', "ALTER SERVER node_b OPTIONS (SET host '$host', SET port '$port')") for $a, $c, $restored;
	$a->stop('immediate');
	like(propose($c, 'paxos', $lost, 'abort', 1500), qr/^unknown: no majority.*has no vote/s,
		'paxos: it does not help to forget a decision');
	($rc, $out, $err) = $restored->psql('postgres', 'SELECT risk_alert.paxos_admit()');
	like($err, qr/less than 65 seconds/, 'paxos: it is not admitted while proposals can be under way');

	# time is what the test does without; the rest of it is done here
	($rc, $out, $err) = $restored->psql('postgres', 'SELECT risk_alert._paxos_settle()');
	like($err, qr/acceptor "node_a" could not be asked/, 'paxos: nor without the others');
	$a->start;
	$restored->safe_psql('postgres', 'SELECT risk_alert._paxos_settle()');
	is($a->safe_psql('postgres', "SELECT decided FROM risk_alert.paxos_acceptor WHERE gid = '$lost'"), 'commit',
		'paxos: all others know the outcome');
	$restored->safe_psql('postgres', q{SELECT risk_alert.paxos_admit(force => true)});
	$a->stop('immediate');
	is(standing($c, 'paxos', $lost), 'commit', 'paxos: what it had voted for is not lost');
	is(propose($c, 'paxos', new_gid(), 'abort'), 'abort', 'paxos: and it votes again');
	$a->start;

	# another set of acceptors
	$c->safe_psql('postgres', q{ALTER SYSTEM SET risk_alert.paxos_acceptors = 'node_c'; SELECT pg_reload_conf()});
	ok(wait_until($c, q{SELECT risk_alert._paxos_acceptors()}, '{node_c}'), 'another set');
	like(propose($c, 'paxos', new_gid(), 'commit', 1000), qr/^unknown: .*votes in another set of acceptors/s,
		'paxos: nobody votes in a set that it was not admitted to');
	$restored->stop;
}
$_->stop('immediate') for $a, $c;

# ---- ZooKeeper

SKIP:
{
	my $missing = ZooKeeper::missing();
	skip $missing, 1 if $missing;
	my $cluster = LockCluster->new('zookeeper', nodes => 3, servers => 3, timeout => 4000);
	my @zk = $cluster->nodes;
	my $service = $cluster->{service};
	my $gid = new_gid();

	is(standing($zk[1], 'zookeeper', $gid), 'none', 'zookeeper: nothing stands at first');
	is(propose($zk[0], 'zookeeper', $gid, 'commit'), 'commit', 'zookeeper: commit');
	is(propose($zk[1], 'zookeeper', $gid, 'abort'), 'commit', 'zookeeper: an abort after it finds the commit');
	is(standing($zk[2], 'zookeeper', $gid), 'commit', 'zookeeper: reading');
	first_one_stands('zookeeper', 12, @zk);

	# the register alone: paxos is not set up here
	like(propose($zk[0], 'paxos', new_gid(), 'commit', 300), qr/^unknown: this database has no server/, 'no servers, no Paxos');

	my ($leader) = grep { $service->mode($_) eq 'leader' } 1 .. 3;
	$service->kill9($leader);
	is(propose($zk[0], 'zookeeper', $gid, 'abort'), 'commit', 'zookeeper: one of three servers is down');
	is(propose($zk[2], 'zookeeper', new_gid(), 'abort'), 'abort', 'zookeeper: new decisions as well');
	my ($next) = grep { $_ != $leader } 1 .. 3;
	$service->kill9($next);
	my $unknown = new_gid();
	like(propose($zk[0], 'zookeeper', $unknown, 'commit', 1000), qr/^unknown: /, 'zookeeper: two are down');
	$service->start($leader, $next);
	$cluster->wait_connected;
	is(propose($zk[0], 'zookeeper', $unknown, 'commit'), propose($zk[1], 'zookeeper', $unknown, 'abort'),
		'zookeeper: once they are back, there is a decision');
	is(standing($zk[2], 'zookeeper', $gid), 'commit', 'zookeeper: what was decided is still that');

	# brokers and sessions that go away while they propose
	my @gids = map { new_gid() } 1 .. 60;
	my ($outs, @runs) = many('zookeeper', \@gids, @zk);
	$zk[0]->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'risk_alert broker'});
	$zk[1]->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%_register_propose%' AND pid <> pg_backend_pid() LIMIT 1});
	crash($zk[2]);
	eval { $_->finish } for @runs;
	$cluster->wait_connected;
	my $wrong = '';
	for my $gid (@gids)
	{
		my %seen = (propose($zk[1], 'zookeeper', $gid, 'abort') => 1);
		for my $out (@$outs)
		{
			$seen{$1} = 1 if $out =~ /^\Q$gid\E\|(commit|abort)$/m;
		}
		$wrong .= "$gid: " . join(', ', sort keys %seen) . "\n" if keys %seen != 1 || exists $seen{unknown};
	}
	is($wrong, '', 'zookeeper: no two decisions although brokers, sessions and nodes were killed');

	$zk[0]->safe_psql('postgres', "SELECT risk_alert._register_forget('zookeeper', '$gid')");
	$_->safe_psql('postgres', q{ALTER SYSTEM SET risk_alert.decision_retention = '1s'; SELECT pg_reload_conf()}) foreach @zk;
	ok(wait_until($zk[1], "SELECT risk_alert._register_read('zookeeper', '$gid')", 'none'), 'zookeeper: forgotten after its time');
	$cluster->stop;
}

done_testing();
