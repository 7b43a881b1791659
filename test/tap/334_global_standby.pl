# A standby lists no prepared transactions before it is promoted: that it has none does not mean that its
# branches are finished.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use RiskAlert;
use Test::More;

my @nodes = accounts_cluster(init => { allows_streaming => 1 }, conf => "hot_standby_feedback = on\n");
my ($node_a, $node_b, $node_c) = @nodes;
my $session = session($node_a);
my $standby = PostgreSQL::Test::Cluster->new('node_b_standby');
my ($host, $port, $gid, $rounds);

$node_b->backup('base');
$standby->init_from_backup($node_b, 'base', has_streaming => 1);
$standby->start;
($host, $port) = ($standby->host, $standby->port);

commit_until($session, 'commit 1', on('node_b', take(1)), on('node_c', give(1)));
$gid = $node_b->safe_psql('postgres', 'SELECT gid FROM risk_alert.global_transactions');
$node_b->wait_for_catchup($standby);
$node_b->stop('immediate');
$node_a->safe_psql('postgres', "ALTER SERVER node_b OPTIONS (SET host '$host', SET port '$port')");
go();
outcome($session);
$session->quit;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 0, 'the standby lists no branch');

# two looks at what participants have
$rounds = $node_a->safe_psql('postgres', 'SELECT rounds FROM risk_alert.stat_recovery');
ok(wait_until($node_a, "SELECT rounds > $rounds + 26 FROM risk_alert.stat_recovery"), 'recovery asks it');
is($node_a->safe_psql('postgres', 'SELECT count(*) FROM risk_alert._global_unfinished'), 1, 'and does not take it for finished');
$standby->promote;
ok(wait_until($standby, 'SELECT count(*) FROM pg_prepared_xacts', 0), 'it is promoted, and finishes its branch');
is($standby->safe_psql('postgres', 'SELECT balance FROM account WHERE id = 1'), 990, 'as the others have');
ok(wait_until($node_a, 'SELECT count(*) FROM risk_alert._global_unfinished', 0), 'then it is finished');

$_->stop foreach $standby, $node_a, $node_c;
done_testing();
