# What a client is told of a global transaction is so: an error means that it has not committed,
# and where that is not known, it is said.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my @nodes = accounts_cluster();
my ($node_a, $node_b, $node_c) = @nodes;
my $id = 0;

$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') foreach @nodes;

# A session of node_a with that register, and its process id
sub deciding
{
	my ($register) = @_;
	my $session = session($node_a);
	answer($session, "SET risk_alert.commit_register = '$register'");
	return ($session, $session->query_safe('SELECT pg_backend_pid()'));
}

# Where it has come so far as to be committed, a request to cancel or to end the session is no error
foreach my $register ('paxos', 'local')
{
	foreach my $request ('cancel', 'terminate')
	{
		foreach my $step ($register eq 'paxos' ? ('decided', 'commit 1', 'commit 2') : ('commit 1', 'commit 2'))
		{
			my ($session, $pid) = deciding($register);

			$id++;
			commit_until($session, $step, on('node_b', take($id)), on('node_c', give($id)));
			$node_a->safe_psql('postgres', "SELECT pg_${request}_backend($pid)");
			go();
			unlike(eval { outcome($session) } // $session->{stderr}, qr/ERROR/, "$register: $request at \"$step\": it has committed, and that is no error");
			ok(defined settled(), "$register: $request at \"$step\": nothing stays prepared");
			is(balances($id), '1000 990 1010', "$register: $request at \"$step\": all nodes agree");
			is(answer($session, 'SELECT 1'), 1, "$register: $request at \"$step\": nor is it one later") if $request eq 'cancel';
			eval { $session->quit };
		}
	}
}

# A branch that is alone decides, too
foreach my $request ('cancel', 'terminate')
{
	my ($session, $pid) = deciding('paxos');

	$id++;
	commit_until($session, 'decided', on('node_b', take($id)));
	$node_a->safe_psql('postgres', "SELECT pg_${request}_backend($pid)");
	go();
	unlike(eval { outcome($session) } // $session->{stderr}, qr/ERROR/, "one branch: $request after it has committed is no error");
	is(balances($id), '1000 990 1000', "one branch: $request after it has committed: it has");
	eval { $session->quit };
}

# The register can't be asked: whoever stops the wait hears that the outcome is not known.  (No
# statement_timeout is in force in a COMMIT, but for that of a procedure.)
foreach my $request ('cancel', 'terminate', 'statement_timeout')
{
	my ($session, $pid) = deciding('paxos');
	my ($message, $gid, $outcome);

	$id++;
	commit_until($session, 'decide', on('node_a', take($id)), on('node_c', give($id))) if $request ne 'statement_timeout';
	$_->safe_psql('postgres', 'ALTER TABLE risk_alert.paxos_admission RENAME TO hidden') foreach $node_b, $node_c;
	go();
	if ($request eq 'statement_timeout')
	{
		answer($session, q{SET statement_timeout = '2s'});
		$message = answer($session, sprintf('DO $do$ BEGIN PERFORM risk_alert.global_execute(\'node_a\', \'%s\'); PERFORM risk_alert.global_execute(\'node_c\', \'%s\'); COMMIT; END $do$', take($id), give($id)));
	}
	else
	{
		wait_until($node_a, q{SELECT count(*) > 0 FROM risk_alert.paxos_acceptor WHERE gid = (SELECT g.transaction FROM pg_prepared_xacts x, risk_alert._gid(x.gid) g)});
		$node_a->safe_psql('postgres', "SELECT pg_${request}_backend($pid)");
		eval { outcome($session) };
		$message = $session->{stderr};
	}
	like($message, qr/NOTICE:  00000: the outcome of global transaction "(\S+)" is not known yet.*ERROR:  08007: it is not known whether the transaction has committed.*asked to stop waiting/s,
		"paxos: $request while it waits for the register");
	($gid) = $message =~ /global transaction "(\S+)"/;
	$_->safe_psql('postgres', 'ALTER TABLE risk_alert.hidden RENAME TO paxos_admission') foreach $node_b, $node_c;
	ok(defined settled(), "paxos: $request: nothing stays prepared");
	$outcome = $node_a->safe_psql('postgres', "SELECT risk_alert.global_outcome('$gid')");
	is(balances($id), $outcome eq 'committed' ? '990 1000 1010' : '1000 1000 1000', "paxos: $request: all nodes agree ($outcome)");
	eval { $session->quit };
}

# What could fail after the decision is refused, unless the caller's own commit is the decision
{
	my ($session) = deciding('paxos');

	answer($session, 'CREATE TEMP TABLE t (id int) ON COMMIT DELETE ROWS');
	foreach my $case (
		[ 'NOTIFY x', qr/ERROR:  0A000: the transaction has used NOTIFY, LISTEN or UNLISTEN/ ],
		[ 'LISTEN x', qr/ERROR:  0A000: the transaction has used NOTIFY, LISTEN or UNLISTEN/ ],
		[ 'SELECT FROM t', qr/ERROR:  0A000: the transaction has used temporary objects/ ])
	{
		my ($statement, $error) = @$case;

		$id++;
		like(answer($session, "BEGIN;$statement;" . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT'), $error, "paxos: $statement is refused");
		like(answer($session, "BEGIN;$statement;" . on('node_b', take($id)) . ';COMMIT'), $error, "paxos: $statement is refused with one branch");
		is(balances($id), '1000 1000 1000', "paxos: $statement: nothing is done");
		answer($session, q{SET risk_alert.commit_register = local});
		answer($session, "BEGIN;$statement;" . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT');
		is(balances($id), '1000 990 1010', "local: $statement is not");
		answer($session, q{SET risk_alert.commit_register = paxos});
	}
	$session->quit;
}

# Another library's callback that fails does so before the decision
{
	my ($session) = deciding('paxos');
	my ($host, $port) = ($node_b->host, $node_b->port);

	$node_b->safe_psql('postgres', q{CREATE TABLE child (id int REFERENCES account DEFERRABLE INITIALLY DEFERRED)});
	$node_a->safe_psql('postgres', qq{CREATE EXTENSION postgres_fdw;
CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER remote;
CREATE FOREIGN TABLE child (id int) SERVER remote;});
	$id++;
	foreach my $register ('paxos', 'local')
	{
		answer($session, "SET risk_alert.commit_register = $register");
		like(answer($session, 'BEGIN; INSERT INTO child VALUES (-1);' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT'),
			qr/ERROR:  23503/, "$register: the commit of a foreign table fails");
		ok(defined settled(), "$register: the commit of a foreign table fails: nothing stays prepared");
		is(balances($id), '1000 1000 1000', "$register: the commit of a foreign table fails: so does the rest");
	}
	$session->quit;
}

$_->stop foreach @nodes;
done_testing();
