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
use Test::More;
use Time::HiRes;

our @EXPORT = qw(accounts_cluster on take give session answer begin outcome balances settled commit_until go);

my @nodes;
my %stops;

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

sub on
{
	my ($node, $sql) = @_;
	return "SELECT risk_alert.global_execute('$node', \$on\$$sql\$on\$)";
}

sub take { return "UPDATE account SET balance = balance - 10 WHERE id = $_[0]"; }
sub give { return "UPDATE account SET balance = balance + 10 WHERE id = $_[0]"; }

# A session that goes on after errors
sub session
{
	my ($node, $user) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0,
		$user ? (extra_params => [ '-U', $user ]) : ());
	$session->query_safe('\set VERBOSITY verbose');
	return $session;
}

sub answer
{
	my ($session, $sql) = @_;
	$session->{stderr} = '';
	my $out = $session->query($sql);
	return $session->{stderr} ne '' ? $session->{stderr} : $out;
}

# Begins a statement, whose outcome comes later
sub begin
{
	my ($session, $sql) = @_;
	$session->{stderr} = '';
	$session->query_until(qr/begun/, "\\echo begun\n$sql;\n");
	return;
}

sub outcome
{
	my ($session) = @_;
	my $out = $session->query('');
	return $session->{stderr} ne '' ? $session->{stderr} : $out;
}

# The balances of an account on all nodes
sub balances
{
	my ($id) = @_;
	return join(' ', map { $_->safe_psql('postgres', "SELECT balance FROM account WHERE id = $id") } @nodes);
}

# Until nobody has anything prepared; how long that took
sub settled
{
	my $began = Time::HiRes::time;
	foreach my $node (@nodes)
	{
		wait_until($node, 'SELECT count(*) FROM pg_prepared_xacts', 0) or return undef;
	}
	return Time::HiRes::time - $began;
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

1;
