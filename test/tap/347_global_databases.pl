# A branch in another database of the coordinator's own server: its recovery asks the coordinator's database

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;

my @nodes = accounts_cluster(conf => "risk_alert.paxos_acceptors = 'node_a, node_b, node_c'\n");
my ($node_a, $node_b, $node_c) = @nodes;
my $gids = q{SELECT count(*) FROM pg_prepared_xacts};
my $ledger = 'SELECT balance FROM account WHERE id = 1';

$node_a->safe_psql('postgres', 'CREATE DATABASE ledger');
$node_a->safe_psql('ledger', q{CREATE EXTENSION risk_alert;
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
INSERT INTO account VALUES (1, 1000)});
my ($host, $port) = ($node_a->host, $node_a->port);
$node_a->safe_psql('postgres', qq{CREATE SERVER ledger FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'ledger');
CREATE USER MAPPING FOR CURRENT_USER SERVER ledger});

# Without a way to ask, it waits, and tells why; it is not taken for aborted
my $session = session($node_a);
commit_until($session, 'commit 1', on('ledger', take(1)), on('node_b', give(1)));
$node_a->stop('immediate');
eval { $session->quit };
go();
$node_a->start;
ok(settled($node_b), 'the coordinator crashes when it has decided: another server finishes its branch');
ok(wait_until($node_a, q{SELECT waiting, last_error LIKE '%node "node_a"%' FROM risk_alert.stat_recovery}, '1|t', 'ledger'),
	'its own server, in a database that knows no server for it, can not ask');
is($node_a->safe_psql('postgres', $gids), 1, 'that branch stays');

$node_a->safe_psql('ledger', qq{CREATE SERVER node_a FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_a});
ok(wait_until($node_a, $gids, 0), 'with a server for it, it asks');
is($node_a->safe_psql('ledger', $ledger), 990, 'and has committed');
is(balances(1), '1000 1010 1000', 'as the other one has');

# One that its coordinator knows nothing of, an older one, holds up no other
{
	my $unknown = 'ra:risk_alert:node_a:l:5:1:1:1:1';

	$node_b->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock(7); PREPARE TRANSACTION '$unknown'");
	ok(wait_until($node_b, q{SELECT waiting, last_error LIKE '%node "node_a" does not know%' FROM risk_alert.stat_recovery}, '1|t'), 'a branch whose coordinator does not know it waits');
	$session = session($node_a);
	commit_until($session, 'commit 1', on('node_b', take(1)), on('node_c', give(1)));
	$node_a->stop('immediate');
	eval { $session->quit };
	go();
	$node_a->start;
	ok(wait_until($node_b, "SELECT count(*) FROM pg_prepared_xacts WHERE gid <> '$unknown'", 0), 'a younger one, whose coordinator knows it, does not wait for that');
	is($node_b->safe_psql('postgres', "ROLLBACK PREPARED '$unknown'; SELECT balance FROM account WHERE id = 1"), 1000, 'and has committed');
	ok(settled(), 'nothing stays prepared');
}

foreach my $node ($node_b, $node_c)
{
	my ($name, $there, $at) = ($node->name, $node->host, $node->port);
	$node_a->safe_psql('ledger', qq{CREATE SERVER $name FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$there', port '$at', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER $name});
}

# While the coordinator is at work, nobody ends the transaction; a register that others may write, too
$session = session($node_a);
foreach my $register ('local', 'paxos')
{
	$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') foreach $register eq 'paxos' ? @nodes : ();
	answer($session, "SET risk_alert.commit_register = $register");
	commit_until($session, 'decide', on('ledger', take(1)), on('node_b', give(1)));
	like($node_a->safe_psql('ledger', q{SELECT gid FROM pg_prepared_xacts WHERE database = 'ledger'}), $register eq 'paxos' ? qr/:node_a:p:/ : qr/:node_a:l:/, "$register: it is prepared");
	my $rounds = $node_a->safe_psql('ledger', q{SELECT rounds FROM risk_alert.stat_recovery});
	ok(wait_until($node_a, "SELECT rounds > $rounds + 2 FROM risk_alert.stat_recovery", 't', 'ledger'), "$register: recovery looks while the coordinator decides");
	go();
	is(outcome($session), '', "$register: it commits");
	ok(settled(), "$register: nothing stays prepared");
}
is($node_a->safe_psql('ledger', $ledger), 970, 'all have committed');
is(balances(1), '1000 1020 1010', 'as the others have');
$session->quit;

$_->stop foreach @nodes;
done_testing();
