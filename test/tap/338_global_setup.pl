# What is missing for global transactions is told before anything is prepared.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use RiskAlert;
use Session;
use Test::More;

my @nodes = accounts_cluster(conf => "risk_alert.cluster_name = 'bank'\n");
my ($node_a, $node_b, $node_c) = @nodes;
my $session = session($node_a);
my $transfer = sub { return 'BEGIN;' . on('node_b', take(1)) . ';' . on('node_c', give(1)) . ';COMMIT' };
my $nothing = sub {
	my ($claim) = @_;
	is(balances(1), '1000 1000 1000', "$claim: nothing is done");
	is(join(' ', map { prepared($_) } @nodes), '0 0 0', "$claim: nothing is prepared");
};

# Registers
like(answer($session, 'SET risk_alert.commit_register = zookeeper;' . $transfer->()),
	qr/ERROR:  55000: register zookeeper can't decide the transaction\nDETAIL:  this server has no session at ZooKeeper: neither risk_alert\.lock_provider nor risk_alert\.commit_register was zookeeper when it was started\nHINT:/,
	'a server without a session at ZooKeeper');
$nothing->('a server without a session at ZooKeeper');
$node_a->safe_psql('postgres', q{ALTER SYSTEM SET risk_alert.paxos_acceptors = 'node_a, node_a'});
$node_a->reload;
wait_until($node_a, 'SHOW risk_alert.paxos_acceptors', 'node_a, node_a');
like(answer($session, 'SET risk_alert.commit_register = paxos;' . $transfer->()),
	qr/ERROR:  55000: register paxos can't decide the transaction\nDETAIL:  risk_alert\.paxos_acceptors names "node_a" twice\nHINT:/, 'acceptors that are none');
$nothing->('acceptors that are none');
answer($session, 'RESET risk_alert.commit_register');

# Nobody would look after the branch
$node_c->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node_c->restart;
like(answer($session, $transfer->()),
	qr/ERROR:  55000: node "node_c" cannot take part in global transactions\nDETAIL:  The library is not preloaded there\.\nHINT:  Add risk_alert to shared_preload_libraries/,
	'a node without the library, whose settings are still in its file');
answer($session, 'ROLLBACK');
$nothing->('a node without the library');
$node_c->append_conf('postgresql.conf', "shared_preload_libraries = 'risk_alert'\n");
$node_c->restart;
is(answer($session, $transfer->()), "1\n1", 'when all is put right, it commits');
is(balances(1), '1000 990 1010', 'on both nodes');

$session->quit;
$_->stop foreach @nodes;
done_testing();
