# Global transactions whose outcome is decided by ZooKeeper.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;
use ZooKeeper;

plan skip_all => ZooKeeper::missing() if ZooKeeper::missing();

my $zookeeper = ZooKeeper->new(PostgreSQL::Test::Utils::tempdir('zookeeper') . '/zk');
$zookeeper->start;
my $hosts = $zookeeper->hosts;
my @nodes = accounts_cluster(conf => "risk_alert.commit_register = zookeeper
risk_alert.lock_provider = zookeeper
risk_alert.zookeeper_hosts = '$hosts'
risk_alert.session_timeout = 4s
");

wait_until($_, 'SELECT state FROM risk_alert.stat_coordination', 'connected') foreach @nodes;
register_scenario('zookeeper', sub { $zookeeper->stop }, sub { $zookeeper->start });

# Recovery reads the register before the decision, and hears that the coordinator is gone after
# that has committed, and made the register forget it: it must not put an abort there
{
	my ($node_a, undef, $node_c) = @nodes;
	my $session = session($node_a);
	my $asked = q{SELECT pid FROM pg_stat_activity WHERE application_name = 'risk_alert node_c' AND query LIKE '%_coordinator_alive%'};
	my ($gid, $pid, $rounds);

	commit_until($session, 'decide', on('node_b', take(100)), on('node_c', give(100)));
	($gid) = $node_c->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts') =~ /^(.*):\d+$/;
	wait_until($node_a, "SELECT count(*) FROM ($asked) a", 1);
	$pid = $node_a->safe_psql('postgres', $asked);
	$rounds = $node_c->safe_psql('postgres', 'SELECT rounds FROM risk_alert.stat_recovery');
	kill('STOP', $pid);
	ok(wait_until($node_c, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'risk_alert recovery' AND state = 'active'
			AND state_change < clock_timestamp() - interval '1 second'}, 1), 'recovery has read the register, and asks the coordinator');
	go();
	is(outcome($session), '', 'which commits meanwhile');
	kill('CONT', $pid);
	ok(wait_until($node_c, "SELECT rounds > $rounds + 2 FROM risk_alert.stat_recovery"), 'recovery goes on');
	is($node_c->safe_psql('postgres', "SELECT risk_alert.global_outcome('$gid')"), 'committed', 'nobody says that it was aborted');
	is(balances(100), '1000 990 1010', 'as it was not');
	$session->quit;
}

# Recovery finishes a branch: the entry goes when no node has one any more, after its time.  A participant
# that is restored to an earlier moment then does not guess.
{
	my ($node_a, $node_b, $node_c) = @nodes;
	my $data = $node_b->data_dir;
	my $session = session($node_a);
	my $gid;

	commit_until($session, 'decide', on('node_b', take(101)), on('node_c', give(101)));
	$gid = $node_b->safe_psql('postgres', 'SELECT gid FROM risk_alert.global_transactions');
	$node_b->stop('immediate');
	system_or_bail('cp', '-a', $data, "$data.backup");
	$node_b->start;
	go();
	like(outcome($session), qr/WARNING.*is committed, but its branch on node "node_b" is not finished yet/, 'zookeeper: a branch is left to recovery');
	$session->quit;
	ok(defined settled(), 'zookeeper: which finishes it');
	ok(wait_until($_, 'SELECT count(*) FROM risk_alert.global_recovered', 0), 'zookeeper: the register is told') foreach @nodes;
	is($node_c->safe_psql('postgres', "SELECT risk_alert._register_read('zookeeper', '$gid')"), 'commit', 'zookeeper: and keeps it for a time');
	$_->append_conf('postgresql.conf', "risk_alert.decision_retention = '1s'\n"), $_->reload foreach @nodes;
	ok(wait_until($node_c, "SELECT risk_alert._register_read('zookeeper', '$gid')", 'none'), 'zookeeper: then it is removed');
	$node_b->stop('immediate');
	system_or_bail('rm', '-rf', $data);
	system_or_bail('mv', "$data.backup", $data);
	$node_b->append_conf('postgresql.conf', "risk_alert.decision_retention = '1s'\n");
	$node_b->start;
	ok(wait_until($node_b, q{SELECT waiting, last_error LIKE '%older than decisions are kept%' FROM risk_alert.stat_recovery}, '1|t'), 'zookeeper: a participant is restored then: it does not guess');
	is($node_b->safe_psql('postgres', "SELECT risk_alert.resolve('$gid', 'commit')"), 1, 'zookeeper: an operator decides');
	is(balances(101), '1000 990 1010', 'zookeeper: as the others have');
}

$_->stop foreach @nodes;
$zookeeper->stop;
done_testing();
