# More sessions than the broker has places for wait for ZooKeeper's decision at the same time: none is
# forgotten, and no place is lost.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use ZooKeeper;

plan skip_all => ZooKeeper::missing() if ZooKeeper::missing();

my $sessions = 150;				# the broker has 128 places
my $zookeeper = ZooKeeper->new(PostgreSQL::Test::Utils::tempdir('zookeeper') . '/zk');
$zookeeper->start;
my $hosts = $zookeeper->hosts;
my @nodes = accounts_cluster(conf => "risk_alert.commit_register = zookeeper
risk_alert.lock_provider = zookeeper
risk_alert.zookeeper_hosts = '$hosts'
risk_alert.session_timeout = 60s
max_connections = 250
max_prepared_transactions = 250
");
my ($node_a, $node_b, $node_c) = @nodes;
my $script = PostgreSQL::Test::Utils::tempdir('pgbench') . '/transfer.sql';
my $waiting = q{SELECT count(*) FROM pg_stat_activity WHERE query = 'COMMIT;' AND state = 'active' AND wait_event IN ('Extension', 'RiskAlertDecision')};

append_to_file($script, q{\set id :client_id + 1
BEGIN;
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = balance - 1 WHERE id = $1::int', ARRAY[:id::text]);
SELECT risk_alert.global_execute('node_c', 'UPDATE account SET balance = balance + 1 WHERE id = $1::int', ARRAY[:id::text]);
COMMIT;
});

# So many times in each session
sub pgbench
{
	my ($times, %harness) = @_;
	my ($out, $err) = ('', '');
	my $h = IPC::Run::start(
		[   'pgbench', '-n', '-c', $sessions, '-j', 2, '-t', $times, '-f', $script, '-h', $node_a->host,
			'-p', $node_a->port, 'postgres'
		],
		'>', \$out, '2>', \$err, IPC::Run::timer(300));

	return { h => $h, out => \$out, err => \$err };
}

sub done
{
	my ($run) = @_;

	$run->{h}->finish;
	return ${ $run->{out} } =~ m{actually processed: (\d+/\d+)} ? $1 : 'none';
}

# Money moved from node_b, and to node_c
sub moved
{
	return join(' ', map { $_->safe_psql('postgres', 'SELECT abs(sum(balance) - 200 * 1000) FROM account') } ($node_b, $node_c));
}

# ZooKeeper pauses until all of them wait for it
sub pile_up
{
	my $run;

	$zookeeper->pause;
	$run = pgbench(1);
	ok(wait_until($node_a, $waiting, $sessions), "$sessions sessions wait for the decision");
	return $run;
}

wait_until($_, 'SELECT state FROM risk_alert.stat_coordination', 'connected') foreach @nodes;
my $run = pile_up();
$zookeeper->resume;
is(done($run), "$sessions/$sessions", 'and get it');
is(moved(), "$sessions $sessions", 'once each');

# Half of them are cancelled, the others terminated, while it is asked for
$run = pile_up();
$node_a->safe_psql('postgres', "SELECT CASE WHEN pid % 2 = 0 THEN pg_cancel_backend(pid) ELSE pg_terminate_backend(pid) END
	FROM ($waiting) n, pg_stat_activity WHERE query = 'COMMIT;'");
ok(wait_until($node_a, $waiting, 0), 'those who are cancelled or terminated wait no longer');
$run->{h}->finish;
$zookeeper->resume;
ok(defined settled(), 'what became of them is settled');

# Each place is there again
$run = pgbench(10);
is(done($run), $sessions * 10 . '/' . $sessions * 10, 'all sessions go on');
my ($from, $to) = split(' ', moved());
is($from, $to, 'no money is made or lost');
cmp_ok($from, '>=', $sessions * 11, 'nor a transfer');
cmp_ok($from, '<=', $sessions * 12, 'or made twice');

$_->stop foreach @nodes;
$zookeeper->stop;
done_testing();
