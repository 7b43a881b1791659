# When an acceptor may vote: not before all proposals that could count on votes which it may have
# forgotten are over.

use strict;
use warnings FATAL => 'all';

use RiskAlert;
use Test::More;

my ($node) = new_cluster(['node_a']);
my ($rc, $out, $err);

($rc, $out, $err) = $node->psql('postgres', 'SELECT risk_alert.paxos_admit()');
like($err, qr/ERROR:  this server has had this database for less than 65 seconds.*HINT:  Wait for \d\d s/s, 'it does not vote at once, although nobody knows of any transaction');
ok(wait_until($node, q{SELECT risk_alert._run_age() >= '65 s'}), 'time goes by');
is($node->safe_psql('postgres', 'SELECT risk_alert.paxos_admit()'), 'risk_alert:node_a', 'then it does');
is($node->safe_psql('postgres', q{SELECT risk_alert._register_propose('paxos', 'test:1', 'commit')}), 'commit', 'it votes');

# a copy of the database
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
is($node->safe_psql('copy', 'SELECT risk_alert._paxos_problem()'), 'Its database is a copy of the one that was admitted.', 'a copy of the database has no vote');
($rc, $out, $err) = $node->psql('copy', 'SELECT risk_alert.paxos_admit()');
like($err, qr/less than 65 seconds/, 'nor at once');

# a standby that was promoted is covered by its run; an extension that is made anew has to be noted anew
is($node->safe_psql('postgres', q{SELECT now() > pg_postmaster_start_time() + interval '65 s'}), 't', 'the server runs for long');
$node->safe_psql('postgres', 'DROP EXTENSION risk_alert CASCADE; CREATE EXTENSION risk_alert');
my ($host, $port) = ($node->host, $node->port);
$node->safe_psql('postgres', "CREATE SERVER node_a FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'postgres'); CREATE USER MAPPING FOR CURRENT_USER SERVER node_a");
($rc, $out, $err) = $node->psql('postgres', 'SELECT risk_alert.paxos_admit()');
like($err, qr/less than 65 seconds/, 'an extension that was dropped and made anew has forgotten its votes');
ok(wait_until($node, q{SELECT risk_alert._run_age() < '60 s'}), 'the time counts from then');
is($node->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)'), 'risk_alert:node_a', 'an operator knows better');

$node->stop;
done_testing();
