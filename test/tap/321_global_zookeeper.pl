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

$_->stop foreach @nodes;
$zookeeper->stop;
done_testing();
