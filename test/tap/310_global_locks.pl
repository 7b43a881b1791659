# A global transaction that holds an advisory lock of the cluster: it is held until all is
# committed, and if it is lost, nothing is.

use strict;
use warnings FATAL => 'all';

use LockCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes;

my $cluster = LockCluster->new('redis', nodes => 2, timeout => 1500, conf => "risk_alert.recovery_interval = '200ms'\n");
my ($a, $b) = $cluster->nodes;
my $stop = $a->data_dir . '/risk_alert.stop';

foreach my $node ($a, $b)
{
	foreach my $i (0, 1)
	{
		my ($host, $port) = ($cluster->node($i)->host, $cluster->node($i)->port);
		$node->safe_psql('postgres', qq{
CREATE SERVER node_$i FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_$i;});
	}
	$node->safe_psql('postgres', q{CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
INSERT INTO account VALUES (1, 100);});
}

# A session whose COMMIT stops at a step
sub commit_until
{
	my ($step) = @_;
	my $session = $a->background_psql('postgres', on_error_stop => 0);

	append_to_file($stop, '');
	$session->query_safe(qq{\\set VERBOSITY verbose
SET risk_alert.debug_stop_at = '$step';
BEGIN;
SELECT risk_alert.advisory_xact_lock('account:1');
SELECT risk_alert.global_execute('node_0', 'UPDATE account SET balance = balance - 1');
SELECT risk_alert.global_execute('node_1', 'UPDATE account SET balance = balance + 1');});
	$session->query_until(qr/begun/, "\\echo begun\nCOMMIT;\n");
	wait_for_logged($a, "stopped at \"$step\"", 1);
	return $session;
}

sub outcome
{
	my ($session) = @_;
	$session->{stderr} = '';
	unlink $stop;
	$session->query('');
	return $session->{stderr};
}

sub balances { return join(' ', map { $_->safe_psql('postgres', 'SELECT balance FROM account') } $a, $b); }

{
	my $session = commit_until('commit 2');

	is($b->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock('account:1') IS NULL}), 't', 'the lock is held until all branches are committed');
	unlike(outcome($session), qr/ERROR|WARNING/, 'the transaction commits');
	is(balances(), '99 101', 'on both nodes');
	ok(wait_until($b, q{SELECT risk_alert.try_advisory_lock('account:1') IS NOT NULL}), 'then the lock is free');
	$session->quit;
}

# The session is terminated, and the other node takes its time to roll back: the lock is held until it has
{
	my $session = $a->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $free = q{SELECT count(*) FROM (SELECT risk_alert.try_advisory_lock('account:1') t) x WHERE t IS NOT NULL};
	my ($remote, $early);

	$session->query_safe(q{BEGIN;
SELECT risk_alert.advisory_xact_lock('account:1');
SELECT risk_alert.global_execute('node_1', 'UPDATE account SET balance = balance + 1');});
	$remote = $b->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'});
	kill('STOP', $remote);
	$a->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	$early = 0;
	$early += $b->safe_psql('postgres', $free) foreach 1 .. 20;
	is($early, 0, 'the session is terminated: the lock is held while its branch is there');
	is($a->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"), 1, 'its process waits for that');
	kill('CONT', $remote);
	ok(wait_until($b, $free, 1), 'then it is free');
	is(balances(), '99 101', 'nothing is done');
	eval { $session->quit };
}
{
	my $session = commit_until('decide');

	is($a->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 1, 'the branches are prepared');
	$cluster->{service}->stop;
	ok(wait_until($a, 'SELECT COALESCE(lease_ms, 0) <= 0 FROM risk_alert.stat_coordination'), 'the lock is lost');
	like(outcome($session), qr/ERROR:  40001: advisory lock "account:1" was lost/, 'so the transaction does not commit');
	ok(wait_until($_, 'SELECT count(*) FROM pg_prepared_xacts', 0), 'nothing stays prepared') foreach $a, $b;
	is(balances(), '99 101', 'nothing is done');
	$session->quit;
}

$cluster->stop;
done_testing();
