# GlobalCluster.pm
#	What tests of global transactions share: accounts on three nodes, transactions
#	that stop at a step of their commit, and what must be true afterwards.
#
#	my ($node_a, $node_b, $node_c) = accounts_cluster(conf => '...');	# node_a coordinates
#	commit_until($session, 'decide', on('node_b', take(1)), on('node_c', give(1)));
#	...										# somebody dies
#	go();									# whoever is left goes on
#	settled();								# nothing stays prepared
#	balances(1);							# '1000 990 1010'

package GlobalCluster;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;
use Time::HiRes;

our @EXPORT = qw(accounts_cluster member_cluster on take give session answer begin outcome balances settled prepared commit_until go
  leave_foreign foreign_left register_scenario);

my @nodes;
my %stops;

# Prepared by others: no names of ours, of another cluster, of no branch, of no form
my @foreign = ('mine', 'ra:other:node_a:z:5:1:1:1:1', 'ra:risk_alert:node_a:l:5:1:1:1', 'ra:risk_alert:node_a:p:5:1:1:01:1', 'ra:');
my $foreign = join(',', map { "'$_'" } @foreign);
my $prepared = "SELECT count(*) FROM pg_prepared_xacts WHERE gid NOT IN ($foreign)";

# Nodes node_a, node_b and node_c, each with 200 accounts of 1000 that "operator" may use, too
sub accounts_cluster
{
	my (%option) = @_;

	@nodes = new_cluster([ 'node_a', 'node_b', 'node_c' ], %option,
		conf => "risk_alert.recovery_interval = '200ms'\nmax_prepared_transactions = 20\n" . ($option{conf} // ''));
	foreach my $node (@nodes)
	{
		$node->safe_psql('postgres', q{CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
INSERT INTO account SELECT g, 1000 FROM generate_series(1, 200) g;
GRANT ALL ON account TO remote, operator;});
	}
	return @nodes;
}

# The same as members of a cluster through a service, whose hosts are told; register: where it is decided
sub member_cluster
{
	my ($service, $hosts, $register) = @_;

	return accounts_cluster(conf => "risk_alert.commit_register = $register
risk_alert.lock_provider = $service
risk_alert.${service}_hosts = '$hosts'
risk_alert.session_timeout = 2s
max_worker_processes = 16
");
}

sub on
{
	my ($node, $sql) = @_;
	return "SELECT risk_alert.global_execute('$node', \$on\$$sql\$on\$)";
}

sub take { return "UPDATE account SET balance = balance - 10 WHERE id = $_[0]"; }
sub give { return "UPDATE account SET balance = balance + 10 WHERE id = $_[0]"; }

# The balances of an account on all nodes
sub balances
{
	my ($id) = @_;
	return join(' ', map { $_->safe_psql('postgres', "SELECT balance FROM account WHERE id = $id") } @nodes);
}

# Until none of these nodes (default: all) has anything prepared; how long that took
sub settled
{
	my (@which) = @_;
	my $began = Time::HiRes::time;
	foreach my $node (@which ? @which : @nodes)
	{
		wait_until($node, $prepared, 0) or return undef;
	}
	return Time::HiRes::time - $began;
}

# How much a node has prepared, without what leave_foreign() has
sub prepared
{
	my ($node) = @_;
	return $node->safe_psql('postgres', $prepared);
}

# Transactions of others are prepared on all nodes
sub leave_foreign
{
	foreach my $node (@nodes)
	{
		$node->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock(1000 + $_); PREPARE TRANSACTION '$foreign[$_]'") foreach 0 .. $#foreign;
	}
	return;
}

# Whether they still are
sub foreign_left
{
	my $found = join(' ', map { $_->safe_psql('postgres', "SELECT count(*) FROM pg_prepared_xacts WHERE gid IN ($foreign)") } @nodes);
	return $found eq join(' ', (scalar @foreign) x @nodes);
}

# A transaction of node_a that stops at a step of its commit, until go() is called
sub commit_until
{
	my ($session, $step, @statements) = @_;
	my $node_a = $nodes[0];
	open(my $file, '>', $node_a->data_dir . '/risk_alert.stop') or die "could not create the file: $!";
	close $file;
	answer($session, "SET risk_alert.debug_stop_at = '$step'");
	answer($session, 'BEGIN');
	answer($session, $_) foreach @statements;
	begin($session, 'COMMIT');
	my $pattern = "stopped at \"$step\"";
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	$stops{$step}++;
	while (1)
	{
		my $n = () = slurp_file($node_a->logfile) =~ /\Q$pattern\E/g;
		last if $n >= $stops{$step};
		die "never stops at \"$step\"" if time > $deadline;
		Time::HiRes::sleep(0.01);
	}
	return;
}

sub go
{
	unlink($nodes[0]->data_dir . '/risk_alert.stop');
	return;
}

# register_scenario(register, down, up): what holds for registers that a majority of servers keeps;
# down and up: nobody can decide, and can again
sub register_scenario
{
	my ($register, $down, $up) = @_;
	my ($node_a, $node_b, $node_c) = @nodes;
	my $id = 0;
	my $session = session($node_a);
	my ($pid, $gid, $message);
	my $reload = sub {
		$node_a->append_conf('postgresql.conf', "risk_alert.commit_timeout = '$_[0]'\n");
		$node_a->reload;
		wait_until($node_a, 'SHOW risk_alert.commit_timeout', $_[0]);
	};

	$id++;
	is(answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT'), "1\n1", "$register: it commits");
	is(balances($id), '1000 990 1010', "$register: which is seen at once");
	answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';ROLLBACK');
	is(balances($id), '1000 990 1010', "$register: it is rolled back");
	like(answer($session, 'BEGIN;' . take($id) . ';' . on('node_c', give($id)) . ';COMMIT'),
		qr/ERROR:  0A000: the transaction has written to this node outside of its branches.*global_execute\('node_a', \.\.\.\)/s, "$register: writes of the caller's own are refused");
	is(answer($session, 'BEGIN;' . on('node_a', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT'), "1\n1", "$register: a branch to the own node does them");
	is(balances($id), '990 990 1020', "$register: with the others");

	# somebody takes the coordinator for gone
	$id++;
	commit_until($session, 'decide', on('node_b', take($id)), on('node_c', give($id)));
	$gid = $node_b->safe_psql('postgres', 'SELECT gid FROM risk_alert.global_transactions');
	is($node_b->safe_psql('postgres', "SELECT risk_alert.resolve('$gid', 'abort')"), 1, "$register: somebody aborts before it is decided");
	go();
	like(outcome($session), qr/ERROR:  40001: the transaction has been aborted by another node/, "$register: then it can't commit");
	ok(defined settled(), "$register: nothing stays prepared");
	is(balances($id), '1000 1000 1000', "$register: all nodes agree");

	# the register can't be asked, and can again
	$reload->('2s');
	$id++;
	commit_until($session, 'decide', on('node_b', take($id)), on('node_c', give($id)));
	$down->();
	go();
	$message = outcome($session);
	like($message, qr/NOTICE:  00000: the outcome of global transaction "(\S+)" is not known yet.*ERROR:  08007: it is not known whether the transaction has committed/s,
		"$register: it can't be decided");
	($gid) = $message =~ /global transaction "(\S+)"/;
	is($node_a->safe_psql('postgres', "SELECT risk_alert.global_outcome('$gid')"), 'unknown', "$register: nobody knows");
	$up->();
	ok(defined settled(), "$register: it can be asked again: nothing stays prepared");
	like(balances($id), qr/^(1000 990 1010|1000 1000 1000)$/, "$register: all nodes agree");
	$session->quit;
	$reload->('30s');

	# the coordinator dies and stays away: the others do not need it
	foreach my $step ('prepare 2', 'decide', 'commit 1', 'commit 2')
	{
		$id++;
		$session = session($node_a);
		commit_until($session, $step, on('node_b', take($id)), on('node_c', give($id)));
		$node_a->stop('immediate');
		eval { $session->quit };
		go();
		ok(wait_until($_, 'SELECT count(*) FROM pg_prepared_xacts', 0), "$register: the coordinator is gone at \"$step\": " . $_->name . ' finishes without it') foreach $node_b, $node_c;
		$node_a->start;
		is(balances($id), $step =~ /commit/ ? '1000 990 1010' : '1000 1000 1000', "$register: the coordinator is gone at \"$step\": all nodes agree");
	}

	# it does not have to be gone
	$id++;
	$session = session($node_a);
	$pid = $session->query_safe('SELECT pg_backend_pid()');
	commit_until($session, 'decide', on('node_a', take($id)), on('node_b', give($id)));
	kill('KILL', $pid);
	eval { $session->quit };
	go();
	wait_for_restart($node_a);
	ok(defined settled(), "$register: the session is killed: nothing stays prepared");
	is(balances($id), '1000 1000 1000', "$register: the session is killed: all nodes agree");
	return;
}

1;
