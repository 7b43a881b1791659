# Global transactions whose outcome is decided by ZooKeeper.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
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
	ok(wait_until($node_c, "SELECT risk_alert.global_outcome('$gid')", 'in progress'), 'the register forgets it');
	kill('CONT', $pid);
	ok(wait_until($node_c, "SELECT rounds > $rounds + 2 FROM risk_alert.stat_recovery"), 'recovery goes on');
	isnt($node_c->safe_psql('postgres', "SELECT risk_alert.global_outcome('$gid')"), 'aborted', 'nobody says that it was aborted');
	is(balances(100), '1000 990 1010', 'as it was not');
	$session->quit;
}

$_->stop foreach @nodes;
$zookeeper->stop;
done_testing();
