# Branches that are prepared with their last statements, long before COMMIT perhaps: whoever dies, all
# nodes agree and nothing stays prepared.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my @nodes = accounts_cluster();
my ($node_a, $node_b, $node_c) = @nodes;
my $id = 0;

sub early
{
	return "SELECT risk_alert.global_execute_all('{node_b,node_c}', ARRAY[\$\$" . take($id) . '$$,$$' . give($id) . '$$], prepare => true)';
}

sub prepared_branches
{
	return prepared($node_b) . prepared($node_c);
}

# A session that has its branches prepared
sub begun
{
	my $session = session($node_a);
	$id++;
	is(answer($session, 'BEGIN;' . early()), '{1,1}', 'rows are counted');
	is(prepared_branches(), '11', 'both branches are prepared');
	return $session;
}

my $session = begun();
is(answer($session, 'COMMIT'), '', 'COMMIT');
is(prepared_branches(), '00', 'commits them');
is(balances($id), '1000 990 1010', 'and is seen at once');
$session->quit;

# before COMMIT
$session = begun();
kill('KILL', $session->query_safe('SELECT pg_backend_pid()'));
wait_for_restart($node_a);
eval { $session->quit };
ok(defined settled(), 'F21 the session is killed: nothing stays prepared');
is(balances($id), '1000 1000 1000', 'F21 the session is killed: all is rolled back');

$session = begun();
$session->quit;
ok(defined settled(), 'the client goes away: nothing stays prepared');
is(balances($id), '1000 1000 1000', 'the client goes away: all is rolled back');

$session = begun();
$node_a->stop('immediate');
$node_a->start;
eval { $session->quit };
ok(defined settled(), 'F21 the coordinator is stopped: nothing stays prepared');
is(balances($id), '1000 1000 1000', 'F21 the coordinator is stopped: all is rolled back');

$session = begun();
$node_c->stop('immediate');
like(answer($session, 'COMMIT'), qr/WARNING:  01000: global transaction "\S+" is committed, but its branch on node "node_c" is not finished yet/,
	'F21 a participant is stopped: what is prepared is committed');
$session->quit;
$node_c->start;
ok(defined settled(), 'F21 a participant is stopped: nothing stays prepared');
is(balances($id), '1000 990 1010', 'F21 a participant is stopped: its part is committed later');

# while COMMIT is at work
foreach my $step ('decide', 'commit 1', 'commit 2')
{
	$session = session($node_a);
	$id++;
	commit_until($session, $step, early());
	$node_a->stop('immediate');
	$node_a->start;
	go();
	eval { $session->quit };
	ok(defined settled(), "F21 the coordinator is stopped at \"$step\": nothing stays prepared");
	is(balances($id), $step eq 'decide' ? '1000 1000 1000' : '1000 990 1010', "F21 the coordinator is stopped at \"$step\": all nodes agree");
}

# Cancelled while one of them waits for a lock: that one must not be prepared later
{
	my $other = session($node_c);
	$session = session($node_a);
	$id++;
	answer($other, 'BEGIN;' . take($id));
	begin($session, early());
	ok(wait_until($node_c, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'client backend'}, 1), 'a branch waits');
	$node_a->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%global_execute_all%' AND pid <> pg_backend_pid()});
	like(outcome($session), qr/57014/, 'and is cancelled');
	is(prepared_branches(), '00', 'the other one is rolled back');
	answer($other, 'COMMIT');
	ok(wait_until($node_c, q{SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND backend_type = 'client backend' AND pid <> pg_backend_pid()}, 0), 'all is quiet');
	is(prepared_branches(), '00', 'nothing is prepared later');
	is(balances($id), '1000 1000 990', 'and nothing was changed');
	$_->quit foreach $session, $other;
}

# Who comes to COMMIT late is too late
$node_a->append_conf('postgresql.conf', "risk_alert.commit_timeout = '500ms'\n");
$node_a->reload;
wait_until($node_a, 'SHOW risk_alert.commit_timeout', '500ms');
$session = begun();
is(answer($session, 'SELECT pg_sleep(0.6)'), '', 'time passes');
like(answer($session, 'COMMIT'), qr/57014: the transaction has taken more than 500 ms from its first PREPARE on/, 'commit_timeout counts from the first PREPARE');
ok(defined settled(), 'commit_timeout: nothing stays prepared');
is(balances($id), '1000 1000 1000', 'commit_timeout: all is rolled back');
$session->quit;

$_->stop foreach @nodes;
done_testing();
