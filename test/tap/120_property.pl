# Random streams: whatever happens to the table, the features' values are those
# that plain SQL aggregate queries give; live, on stored rows, from the cache,
# rebuilt, and while most of it is evicted.

use strict;
use warnings FATAL => 'all';

use Plain;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

# Another seed makes other streams: RISK_ALERT_SEED=17
my $seed = $ENV{RISK_ALERT_SEED} // 1;
my $sessions = 3;
my $node = new_node('property');

install_plain($node);
note("RISK_ALERT_SEED=$seed");

# Several sessions change the table as they like; a round has fresh ids
sub play
{
	my ($o, $round, $transactions) = @_;

	run_sessions($node, map { change(%$o, session => $_, sessions => $sessions, round => $round,
				transactions => $transactions) } 1 .. $sessions);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 0,
		"$o->{table}: no transaction left open");
	drain($node);
	return;
}

# Inserts, deletes, updates of values, entities, times and keys, late rows, savepoints ...
my @changes;
foreach my $type ('timestamptz', 'timestamp', 'date')
{
	my $i = @changes;
	my $o = { table => "changes_$i", type => $type, seed => $seed + $i, wide => $i == 1 };
	my $name = $type . ($o->{wide} ? ', numbers of any size, partitioned' : '');

	$o->{features} = [ features($o->{wide}) ];
	push @changes, $o;
	create_stream($node, $o->{table}, $type, $o->{features}, $o->{wide});
	play($o, 0, 30);
	compare_stored($node, $o->{table}, $o->{features}, "changes, $name");
}

# An event that comes as jsonb is the same event
is( $node->safe_psql('postgres', q{
SELECT count(*) FROM changes_0 p, LATERAL risk_alert.risk_assess(p) AS stored,
	LATERAL risk_alert.risk_assess('changes_0', to_jsonb(p)) AS given
WHERE isfinite(p.ts) AND (stored IS DISTINCT FROM given OR stored.score <> 100 OR risk_alert.risk_score(p) <> 100)}),
	0, 'risk_assess() of jsonb');

# TRUNCATE empties the windows, but for one that is rolled back
my $o = $changes[1];
$node->safe_psql('postgres', "BEGIN; TRUNCATE $o->{table}; ROLLBACK");
play($o, 1, 5);
compare_stored($node, $o->{table}, $o->{features}, 'after a TRUNCATE that was rolled back');
$node->safe_psql('postgres', "TRUNCATE $o->{table}");
play($o, 2, 20);
compare_stored($node, $o->{table}, $o->{features}, 'after TRUNCATE');

# Another worker starts with whatever the cache holds; after a crash there is none
$o = $changes[0];
my $pid = wait_for_worker($node);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_for_worker($node, 'postgres', $pid);
play($o, 1, 10);
compare_stored($node, $o->{table}, $o->{features}, 'changes after another worker started');
$node->stop('immediate');
$node->start;
compare_stored($node, $o->{table}, $o->{features}, 'after a crash');
play($o, 2, 10);
compare_stored($node, $o->{table}, $o->{features}, 'changes after a crash');

# What the worker saw, event by event
sub check_inserts
{
	my (%o) = @_;
	my @features = features($o{wide});
	my $name = "inserts, $o{type}, "
	  . ($o{ordered} ? 'in the order of time' : 'many of them late')
	  . ($o{wide} ? ', numbers of any size' : '')
	  . ($o{how} // '');

	create_stream($node, $o{table}, $o{type}, \@features);
	fill($node, rows => 200, %o);
	arrive($node, $o{table}, !$o{ordered});
	compare_live($node, $o{table}, $o{ordered} && !$o{wide}, \@features, "$name, live");
	compare_stored($node, $o{table}, \@features, "$name, stored");
	return;
}

check_inserts(table => 'inserts_0', type => 'timestamptz', seed => $seed, ordered => 1);
check_inserts(table => 'inserts_1', type => 'timestamp', seed => $seed + 1, ordered => 0);
check_inserts(table => 'inserts_2', type => 'date', seed => $seed + 2, ordered => 1);
check_inserts(table => 'inserts_3', type => 'date', seed => $seed + 3, ordered => 0);
check_inserts(table => 'inserts_4', type => 'date', seed => $seed + 31, ordered => 1, wide => 1);
check_inserts(table => 'inserts_5', type => 'timestamptz', seed => $seed + 5, ordered => 0, wide => 1);

# A backlog that takes many batches, while more arrives
$node->safe_psql('postgres', 'ALTER SYSTEM SET risk_alert.batch_size = 3');
$node->reload;
check_inserts(table => 'batches_0', type => 'date', seed => $seed + 7, ordered => 1, how => ', in small batches');
check_inserts(table => 'batches_1', type => 'timestamptz', seed => $seed + 8, ordered => 1, how => ', in small batches');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET risk_alert.batch_size');

# F19: with the least memory, and many more entities than fit, windows are
# evicted again and again; values stay right
my $least = $node->safe_psql('postgres', "SELECT min_val FROM pg_settings WHERE name = 'risk_alert.feature_memory'");
$node->append_conf('postgresql.conf', "risk_alert.feature_memory = $least");
$node->restart;
$o = { table => 'small', type => 'timestamptz', seed => $seed + 6, entities => 1000, rows => 400,
	ordered => 0, how => ', little memory', features => [ features(0) ] };
check_inserts(%$o);
play($o, 1, 15);
compare_stored($node, $o->{table}, $o->{features}, 'little memory, changes');
cmp_ok($node->safe_psql('postgres', "SELECT sum(evictions) FROM risk_alert.stat_features"),
	'>', 0, 'windows were evicted');

$node->stop;
done_testing();
