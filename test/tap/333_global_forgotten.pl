# Decisions are kept for a time after all branches are finished: a participant that is restored from a
# backup may have one again.  When nobody can know any more, nobody guesses.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my @nodes = accounts_cluster();
my ($node_a, $node_b, $node_c) = @nodes;
my $data = $node_b->data_dir;
my $session = session($node_a);
my $gid;

$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') foreach @nodes;

# The participant as it was when its branch was prepared
sub restore
{
	$node_b->stop('immediate');
	system_or_bail('rm', '-rf', $data);
	system_or_bail('cp', '-a', "$data.backup", $data);
	$node_b->start;
	return;
}

# Register local
commit_until($session, 'commit 1', on('node_b', take(1)), on('node_c', give(1)));
$gid = $node_b->safe_psql('postgres', 'SELECT gid FROM risk_alert.global_transactions');
$node_b->stop('immediate');
system_or_bail('cp', '-a', $data, "$data.backup");
$node_b->start;
go();
outcome($session);
ok(defined settled(), 'the transaction is finished');
ok(wait_until($node_a, 'SELECT count(*) FROM risk_alert.global_finished', 1), 'its coordinator knows');
is($node_a->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.global_transactions'), 0, 'and does not show it any more');
is(balances(1), '1000 990 1010', 'it has committed');
restore();
ok(defined settled(), 'a participant is restored to the moment before: it finishes its branch again');
is(balances(1), '1000 990 1010', 'as the others have');

$node_a->append_conf('postgresql.conf', "risk_alert.decision_retention = '1s'\n");
$node_a->reload;
ok(wait_until($node_a, 'SELECT count(*) FROM risk_alert.global_commit', 0), 'the decision is removed after its time');
is($node_a->safe_psql('postgres', "SELECT risk_alert.global_outcome('$gid')"), 'unknown', 'then it is not known');
restore();
ok(wait_until($node_b, q{SELECT waiting, last_error LIKE '%older than risk_alert.decision_retention%' FROM risk_alert.stat_recovery}, '1|t'), 'a participant is restored then: it does not guess');
is($node_b->safe_psql('postgres', "SELECT risk_alert.resolve('$gid', 'commit')"), 1, 'an operator decides');
is(balances(1), '1000 990 1010', 'as the others have');

# one that has aborted later is known to have
commit_until($session, 'decide', on('node_b', take(2)), on('node_c', give(2)));
$gid = $node_b->safe_psql('postgres', 'SELECT gid FROM risk_alert.global_transactions');
$node_a->stop('immediate');
eval { $session->quit };
go();
$node_a->start;
ok(defined settled(), 'the coordinator crashes before it decides: nothing stays prepared');
is($node_a->safe_psql('postgres', "SELECT risk_alert.global_outcome('$gid')"), 'aborted', 'and its outcome is known');

# Register paxos: the coordinator crashes when it has decided.  (The restored node had lost its vote.)
$node_b->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)');
$session = session($node_a);
answer($session, q{SET risk_alert.commit_register = paxos});
commit_until($session, 'commit 1', on('node_b', take(3)), on('node_c', give(3)));
$gid = $node_a->safe_psql('postgres', 'SELECT gid FROM risk_alert.paxos_acceptor ORDER BY created_at DESC LIMIT 1');
$node_a->stop('immediate');
eval { $session->quit };
go();
ok(wait_until($_, 'SELECT count(*) FROM pg_prepared_xacts', 0), 'paxos: ' . $_->name . ' finishes its branch') foreach $node_b, $node_c;
$node_a->start;
ok(wait_until($_, 'SELECT count(*) FROM risk_alert.global_recovered', 0), 'paxos: ' . $_->name . ' has told the register') foreach $node_b, $node_c;
ok(wait_until($_, "SELECT count(*) FROM risk_alert.paxos_acceptor a WHERE gid = '$gid' AND EXISTS (SELECT FROM risk_alert.paxos_forgotten f WHERE a.gid = ANY (f.gids))", 1), 'paxos: ' . $_->name . ' is told that it may forget') foreach @nodes;
is(balances(3), '1000 990 1010', 'paxos: it has committed');

$_->stop foreach @nodes;
done_testing();
