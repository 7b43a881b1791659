# Global transactions under SIGKILL, with an ensemble of three ZooKeeper servers as register.

use strict;
use warnings FATAL => 'all';

use GlobalKill;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use ZooKeeper;

plan skip_all => ZooKeeper::missing() if ZooKeeper::missing();

my $zookeeper = ZooKeeper->new(PostgreSQL::Test::Utils::tempdir('zookeeper') . '/zk', servers => 3);
$zookeeper->start;
my $hosts = $zookeeper->hosts;
my @nodes = kill_cluster('zookeeper', "risk_alert.lock_provider = zookeeper
risk_alert.zookeeper_hosts = '$hosts'
risk_alert.session_timeout = 4s
");
wait_until($_, 'SELECT state FROM risk_alert.stat_coordination', 'connected') foreach @nodes;
kill_at_steps('zookeeper', $zookeeper);
kill_at_random('zookeeper', $zookeeper);

$_->stop foreach @nodes;
$zookeeper->stop;
done_testing();
