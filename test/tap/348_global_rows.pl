# Decisions of register local: which of them may still be asked for is known as ranges of numbers, that rows are
# removed after their time depends on it, and no row is taken for over too early.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;

my @nodes = accounts_cluster();
my ($node_a, $node_b, $node_c) = @nodes;
my $unfinished = 'SELECT count(*) FROM risk_alert._global_unfinished';
my $ranges = 'SELECT max(n) FROM (SELECT count(*) AS n FROM risk_alert.global_over o, unnest(o.numbers) GROUP BY o.epoch) x';
my $rows = 'SELECT count(*) FROM risk_alert.global_commit';
# what should be in which table, by plain comparison
my $missed = 'SELECT count(*) FROM risk_alert.global_commit c WHERE NOT EXISTS (SELECT FROM risk_alert.global_finished f WHERE f.epoch = c.epoch AND f.numbers @> c.number)'
  . ' OR NOT EXISTS (SELECT FROM risk_alert.global_over o WHERE o.epoch = c.epoch AND o.numbers @> c.number)';

# so that recovery never rests: a branch of which nobody can tell
my $forever = 'ra:risk_alert:nobody:z:5:1:1:1:1';
$node_a->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock(7); PREPARE TRANSACTION '$forever'");

# At least one look at what participants have, and two at which numbers are nobody's, begin and end after this
sub sweeps
{
	my $rounds = $node_a->safe_psql('postgres', 'SELECT rounds FROM risk_alert.stat_recovery');
	return wait_until($node_a, "SELECT rounds > $rounds + 60 FROM risk_alert.stat_recovery");
}

# Two databases of one server take their numbers in turn; some abort, some are decided elsewhere
$node_a->safe_psql('postgres', 'CREATE DATABASE ledger');
$node_a->safe_psql('ledger', 'CREATE EXTENSION risk_alert');
foreach my $node ($node_b, $node_c)
{
	my ($name, $host, $port) = ($node->name, $node->host, $node->port);
	$node_a->safe_psql('ledger', qq{CREATE SERVER $name FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER $name});
}
$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') foreach @nodes;
{
	my %session = map { $_ => $node_a->background_psql($_) } 'postgres', 'ledger';
	my $transfer = 'BEGIN;' . on('node_b', take(1)) . ';' . on('node_c', give(1)) . ';COMMIT';

	foreach my $i (1 .. 20)
	{
		$_->query_safe($transfer) foreach values %session;
		$session{postgres}->query_safe("SET risk_alert.commit_register = paxos; $transfer; RESET risk_alert.commit_register") if $i % 5 == 0;
		$session{ledger}->query_safe('BEGIN; SELECT risk_alert.global_execute_all($${node_b,node_c}$$, $${UPDATE account SET balance = balance WHERE id = 2}$$, prepare => true); ROLLBACK') if $i % 4 == 0;
	}
	$_->quit foreach values %session;
}
foreach my $database ('postgres', 'ledger')
{
	ok(wait_until($node_a, $unfinished, 0, $database), "$database: all are finished");
	is($node_a->safe_psql($database, $rows), 20, "$database: each has its row");
	is($node_a->safe_psql($database, $missed), 0, "$database: and is known to be finished");
}
ok(wait_until($node_a, "$ranges", 1), 'the numbers of others are closed');

# A transaction takes longer than several looks, and then can't finish all branches
{
	my $session = session($node_a);

	commit_until($session, 'decide', on('node_b', take(1)), on('node_c', give(1)));
	ok(sweeps(), 'a transaction is about to commit, while recovery looks');
	for my $i (1 .. 5)
	{
		$node_a->safe_psql($_, 'BEGIN;' . on('node_b', take(3)) . ';' . on('node_c', give(3)) . ';COMMIT') foreach 'ledger', 'postgres';
	}
	ok(wait_until($node_a, $unfinished, 0, 'ledger'), 'later ones, of another database, are over');
	ok(sweeps(), 'and recovery looks');
	$node_c->stop('immediate');
	go();
	like(outcome($session), qr/WARNING:  01000: .*its branch on node "node_c" is not finished yet/, 'a participant is gone when it commits');
	is($node_a->safe_psql('postgres', $unfinished), 1, 'it is not over');
	cmp_ok($node_a->safe_psql('postgres', $ranges), '<=', 2, 'nor has it kept other numbers from being closed');
	ok(sweeps(), 'whatever recovery looks at:');
	is($node_a->safe_psql('postgres', q{SELECT state, participants FROM risk_alert.global_transactions WHERE coordinator <> 'nobody'}), 'committed|{node_b,node_c}', 'it is shown');
	$node_c->start;
	ok(wait_until($node_a, $unfinished, 0), 'until the participant is back');
	is($node_a->safe_psql('postgres', $missed), 0, 'then it is finished');
	$session->quit;
}

# The coordinator crashes before it says so
{
	my $session = session($node_a);

	commit_until($session, 'forget', on('node_b', take(1)), on('node_c', give(1)));
	$node_a->stop('immediate');
	eval { $session->quit };
	go();
	$node_a->start;
	ok(wait_until($node_a, $unfinished, 0), 'the coordinator crashes before it says that it is finished: recovery finds out');
	is($node_a->safe_psql('postgres', $missed), 0, 'and notes that');
	is($node_a->safe_psql('postgres', $rows), 27, 'no row is gone');
}

# The next run of the server gives the same numbers again
$node_a->safe_psql('postgres', 'BEGIN;' . on('node_b', take(4)) . ';' . on('node_c', give(4)) . ';COMMIT');
ok(wait_until($node_a, $unfinished, 0), 'a transaction of the next run is finished');
is($node_a->safe_psql('postgres', 'SELECT count(DISTINCT epoch) FROM risk_alert.global_commit'), 2, 'beside those of the one before');
is($node_a->safe_psql('postgres', $missed), 0, 'and finished ones, too');

# Their time is over
$node_a->append_conf('postgresql.conf', "risk_alert.decision_retention = '1s'\n");
$node_a->reload;
ok(wait_until($node_a, $rows, 0), 'rows are removed after their time');
is($node_a->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.global_finished'), 0, 'and what tells of them');
is($node_a->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.global_epoch WHERE removed_to = 0'), 0, 'up to which number, is kept of each run');
is($node_a->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.global_transactions WHERE coordinator <> 'nobody'}), 0, 'no transaction is shown');
is(balances(1), '1000 540 1460', 'all have committed');

# More than are kept in memory, and it is long until the next round
{
	my $many = 8500;		# twice that is more than RA_DONE_MAX

	$node_a->append_conf('postgresql.conf', "risk_alert.recovery_interval = '1h'\nrisk_alert.decision_retention = '1h'\n");
	$node_a->reload;
	wait_until($node_a, 'SHOW risk_alert.recovery_interval', '1h');
	# the round that the change has begun is over
	ok(wait_until($node_a, q{SELECT bool_and(state = 'idle') FROM pg_stat_activity WHERE backend_type = 'risk_alert recovery'}), 'recovery rests');
	$node_a->safe_psql('postgres', qq{CREATE PROCEDURE transfers() LANGUAGE plpgsql AS \$\$
BEGIN
	FOR i IN 1..$many LOOP
		PERFORM risk_alert.global_execute_all('{node_b,node_c}', '{UPDATE account SET balance = balance + \$1::int WHERE id = 5}', '{{-1},{1}}');
		COMMIT;
		PERFORM risk_alert.global_execute_all('{node_b,node_c}', '{UPDATE account SET balance = balance + \$1::int WHERE id = 5}', '{{1},{-1}}');
		ROLLBACK;
		PERFORM risk_alert.global_execute_all('{node_b,node_c}', '{UPDATE account SET balance = balance + \$1::int WHERE id = 5}', '{{1},{-1}}');
		COMMIT;
	END LOOP;
END \$\$;
CALL transfers()});
	is($node_a->safe_psql('postgres', $rows), 2 * $many, "$many transfers there and back commit");
	cmp_ok($node_a->safe_psql('postgres', $unfinished), '<', 10000, 'recovery is woken before there are too many to remember');
	is(balances(5), '1000 1000 1000', 'no money is made or lost');
}

$node_a->safe_psql('postgres', "ROLLBACK PREPARED '$forever'");
$_->stop foreach @nodes;
done_testing();
