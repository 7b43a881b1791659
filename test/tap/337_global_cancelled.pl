# Statements on several nodes at the same time, of which one fails, is cancelled, or loses its connection.  If a
# branch is cancelled before its statement has begun, what it did before is not lost in silence.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;
use Time::HiRes;

my @nodes = accounts_cluster();
my ($node_a, $node_b, $node_c) = @nodes;

# The process that writes the node's log, and how often a process has gone to sleep
sub logger
{
	my ($node) = @_;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	foreach my $stat (glob '/proc/[0-9]*/stat')
	{
		open(my $file, '<', $stat) or next;
		my ($pid, $parent) = (<$file> // '') =~ /^(\d+) \(.*\) \S (\d+)/ or next;
		return $pid if $parent == $postmaster && (eval { slurp_file("/proc/$pid/cmdline") } // '') =~ /logger/;
	}
	die 'no logger';
}

sub sleeps { return slurp_file("/proc/$_[0]/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : die 'no such process'; }

# Commands of node_b's branches are logged before they are run, for which it has to wait when nobody reads
$node_b->append_conf('postgresql.conf', "logging_collector = on\n");
$node_b->restart;
$node_b->safe_psql('postgres', q{ALTER ROLE remote SET log_statement = 'all'});
$node_a->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER node_b OPTIONS (ADD "user" 'remote', ADD password 't0p-secret')});

# Its branch is at $command, as the first of a message that ends with the user's statement, when the other one fails
sub cancel_at
{
	my ($session, $command) = @_;
	my $there = qq{SELECT pid FROM pg_stat_activity WHERE usename = 'remote' AND state = 'active' AND starts_with(query, '$command')};
	my $logger = logger($node_b);
	my $filler = session($node_b);
	my $gate = session($node_c);
	my ($pid, $before, $deadline);

	answer($gate, 'SELECT pg_advisory_lock(1)');
	answer($filler, q{SET log_statement = 'all'});
	kill('STOP', $logger);
	begin($filler, q{SELECT length('} . 'x' x 200000 . q{')});
	wait_until($node_b, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT length%'}, 1);
	begin($session, sprintf(q{SELECT risk_alert.global_execute_all('{node_c,node_b}', ARRAY[$one$%s$one$, $two$%s$two$])},
			q{DO 'BEGIN PERFORM pg_advisory_lock(1); RAISE ''it fails''; END'}, give(1)));
	ok(wait_until($node_b, "SELECT count(*) FROM ($there) t", 1), "the branch is at $command");
	$pid = $node_b->safe_psql('postgres', $there);
	$before = sleeps($pid);
	answer($gate, 'SELECT pg_advisory_unlock(1)');
	$deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (sleeps($pid) == $before)
	{
		die 'it is never cancelled' if time > $deadline;
		Time::HiRes::sleep(0.01);
	}
	kill('CONT', $logger);
	like(outcome($session), qr/ERROR:  P0001: it fails/, "cancelled at $command: the other one has failed");
	outcome($filler);
	$_->quit foreach $filler, $gate;
	return;
}

# What is released belongs to the transaction, and is undone with the branch
{
	my $session = session($node_a);

	answer($session, $_) foreach 'BEGIN', 'SAVEPOINT s', on('node_b', take(1)), 'RELEASE s', on('node_c', take(1)), 'SAVEPOINT s';
	cancel_at($session, 'RELEASE SAVEPOINT');
	answer($session, 'ROLLBACK TO s');
	like(answer($session, 'COMMIT'), qr/ERROR:  08006: the branch on node "node_b" was lost/, 'the transaction can\'t commit without it');
	is(balances(1), '1000 1000 1000', 'nor does it in part');
	$session->quit;
}

# Nothing was done before: nothing is lost
{
	my $session = session($node_a);

	answer($session, $_) foreach on('node_b', 'SELECT'), 'BEGIN', on('node_c', take(1)), 'SAVEPOINT s';
	cancel_at($session, 'BEGIN');
	answer($session, 'ROLLBACK TO s');
	is(answer($session, on('node_b', give(1))), 1, 'a branch that had done nothing yet is begun anew');
	is(answer($session, 'COMMIT'), '', 'and commits');
	is(balances(1), '1000 1010 990', 'with the other one');
	$session->quit;
}

# All that run are ended with the one that ends
my $sleeping = q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(1000)%' AND state = 'active'};
my $all = q{SELECT risk_alert.global_execute_all('{node_b,node_c}', '{%s}')};
foreach my $end ('cancelled', 'lost')
{
	my $session = session($node_a);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	answer($session, $_) foreach 'BEGIN', on('node_c', take(2)), 'SAVEPOINT s';
	begin($session, sprintf($all, 'SELECT pg_sleep(1000)'));
	ok(wait_until($_, $sleeping, 1), "$end: a statement runs: " . $_->name) foreach $node_b, $node_c;
	$node_a->safe_psql('postgres', "SELECT pg_cancel_backend($pid)") if $end eq 'cancelled';
	$node_b->safe_psql('postgres', $sleeping =~ s/count\(\*\)/pg_terminate_backend(pid)/r) if $end eq 'lost';
	like(outcome($session), $end eq 'cancelled' ? qr/ERROR:  57014: canceling/ : qr/ERROR:  08006: the connection to node "node_b" was lost/, "$end: that is an error");
	ok(wait_until($_, $sleeping, 0), "$end: it does not run any more: " . $_->name) foreach $node_b, $node_c;
	answer($session, 'ROLLBACK TO s');
	is(answer($session, sprintf($all, give(2))), '{1,1}', "$end: after a savepoint it goes on");
	is(answer($session, 'COMMIT'), '', "$end: and commits");
	$session->quit;
}
is(balances(2), '1000 1020 1000', 'all that was not rolled back, and nothing else');

# On whose behalf
{
	my $session = session($node_a);

	$node_a->safe_psql('postgres', q{CREATE FUNCTION two_nodes(sql text) RETURNS bigint[] LANGUAGE sql SECURITY DEFINER
		RETURN risk_alert.global_execute_all('{node_b,node_c}', ARRAY[sql]);
ALTER FUNCTION two_nodes OWNER TO operator;});
	answer($session, 'BEGIN');
	is(answer($session, q{SELECT two_nodes('SELECT WHERE current_user = ''remote''')}), '{1,1}', 'in a SECURITY DEFINER function, its owner\'s mappings are used');
	is(answer($session, on('node_c', q{SELECT WHERE current_user <> 'remote'})), 1, 'outside of it, the caller\'s');
	answer($session, "SELECT two_nodes('" . give(3) . "')");
	answer($session, on('node_c', take(4)));
	is(answer($session, 'COMMIT'), '', 'the branches of both commit');
	is(balances(3) . ', ' . balances(4), '1000 1010 1010, 1000 1000 990', 'together');
	ok(defined settled(), 'nothing stays prepared');
	$session->quit;
}

$_->stop foreach @nodes;
done_testing();
