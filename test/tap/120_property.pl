# Random streams: whatever happens to the table, the features' values are those
# that plain SQL aggregate queries give; live, on stored rows, from the cache,
# rebuilt, and while most of it is evicted.

use strict;
use warnings FATAL => 'all';

use Plain;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes;

# Seeds differ from run to run only if one wants them to
my $seed = $ENV{RISK_ALERT_SEED} // 1;
note("RISK_ALERT_SEED=$seed");

my @types = ('timestamptz', 'timestamp', 'date');
my @features = features();
my $sessions = 3;

my $node = new_node('property');
install_plain($node);

# Several sessions change what they like; round: ids are fresh in each
sub play_round
{
	my ($table, $type, $stream_seed, $round, $transactions) = @_;

	run_sessions($node,
		map { change(seed => $stream_seed, session => $_, sessions => $sessions, table => $table,
				type => $type, transactions => $transactions, round => $round) } 1 .. $sessions);
	# a script that was cut short leaves nothing behind
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 0, "$table: no transaction left");
	drain($node);
	return;
}

foreach my $i (0 .. $#types)
{
	my $table = "changes_$i";

	create_stream($node, $table, $types[$i], @features);
	play_round($table, $types[$i], $seed + $i, 0, 40);
	compare_stored($node, $table, \@features, "changes, $types[$i]");
}

# Another worker starts with whatever the cache holds; then with nothing
my $pid = worker_pid($node);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_for_worker($node, 'postgres', $pid);
compare_stored($node, 'changes_0', \@features, 'after another worker started');
play_round('changes_0', $types[0], $seed, 1, 20);
compare_stored($node, 'changes_0', \@features, 'more changes');

$node->stop('immediate');
$node->start;
compare_stored($node, 'changes_0', \@features, 'after a crash');
play_round('changes_0', $types[0], $seed, 2, 20);
compare_stored($node, 'changes_0', \@features, 'changes after a crash');

# What the worker saw, event by event
foreach my $i (0 .. $#types)
{
	my $ordered = $i != 1;
	my $table = "inserts_$i";
	my $how = $ordered ? 'inserts in the order of time' : 'inserts, many of them late';

	create_stream($node, $table, $types[$i], @features);
	fill($node, seed => $seed + $i, table => $table, type => $types[$i], rows => 200, ordered => $ordered);
	arrive($node, $table, !$ordered);
	compare_live($node, $table, \@features, "$how, $types[$i], live");
	compare_stored($node, $table, \@features, "$how, $types[$i], stored");
}

# F19: with the smallest memory nearly everything is evicted again and again; values stay right
my $least = $node->safe_psql('postgres', "SELECT min_val FROM pg_settings WHERE name = 'risk_alert.feature_memory'");
$node->append_conf('postgresql.conf', "risk_alert.feature_memory = $least");
$node->restart;

create_stream($node, 'small', 'timestamptz', @features);
fill($node, seed => $seed + 7, table => 'small', type => 'timestamptz', rows => 300, ordered => 0);
arrive($node, 'small', 1);
compare_live($node, 'small', \@features, 'little memory, live');
play_round('small', 'timestamptz', $seed, 1, 40);
compare_stored($node, 'small', \@features, 'little memory, changes');

$node->stop;
done_testing();
