# Every answer of features_oracle.csv.gz, found by the worker as the events
# arrive and by risk_assess() on the stored rows: from an empty table, and in
# the middle of a history.

use strict;
use warnings FATAL => 'all';

use Oracle;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

plan skip_all => 'the public data sets are not there (RISK_ALERT_DATA)'
  if !defined data_path('payments.csv.gz') || !defined data_path('features_oracle.csv.gz');

my $columns = q{tx_id bigint, ts timestamptz, card_id int, terminal_id int,
	amount numeric(10,2), is_fraud int, fraud_scenario int};

# The two stretches of the oracle
my ($cold_last, $warm_first, $warm_last) = (9999, 598062, 623061);
my $answers = 5 * 7 + 1 + 5;

my $node = new_node('payments', conf => "shared_buffers = 256MB\nmax_wal_size = 4GB\n");

is(load_file($node, 'payments.csv.gz', $columns, $warm_last + 1), $warm_last + 1, 'payments loaded');
is(load_oracle($node, 'features_oracle.csv.gz'), $cold_last + 1 + $warm_last - $warm_first + 1, 'answers loaded');

# prepare(stream): a table of payments, watched, with the features to compare and a
# rule that alerts on every event
sub prepare
{
	my ($stream, $history) = @_;

	$node->safe_psql('postgres', qq{
CREATE TABLE $stream ($columns, PRIMARY KEY (tx_id));
INSERT INTO $stream SELECT * FROM file WHERE $history ORDER BY tx_id;
CREATE INDEX ON $stream (card_id, ts);
CREATE INDEX ON $stream (terminal_id, ts);
ANALYZE $stream;
SELECT risk_alert.watch('$stream', event_time => 'ts', suppress => '0 seconds');
SELECT risk_alert.create_rule('$stream', 'everything', 'true', points => 100);});
	create_features($node, $stream, 'card_id', 'terminal_id',
		'10m' => '10 minutes', '1h' => '1 hour', '1d' => '1 day', '7d' => '7 days', '30d' => '30 days');
	$node->safe_psql('postgres', qq{
SELECT risk_alert.create_feature('$stream', 'term_cnt_1d', 'terminal_id', 'count(*)', '1 day');
SELECT risk_alert.create_feature('$stream', 'term_cnt_7d', 'terminal_id', 'count(*)', '7 days');
SELECT risk_alert.create_feature('$stream', 'term_cnt_30d', 'terminal_id', 'count(*)', '30 days');
SELECT risk_alert.create_feature('$stream', 'term_sum_1d', 'terminal_id', 'sum(amount)', '1 day');
SELECT risk_alert.create_feature('$stream', 'term_distinct_cards_1d', 'terminal_id', 'count(DISTINCT card_id)', '1 day');});
	return;
}

sub check
{
	my ($stream, $history, $first, $last, $seed) = @_;
	my $stretch = "o.tx_id BETWEEN $first AND $last";

	prepare($stream, $history);
	play($node, $stream, $first, $last, $seed);
	drain($node);
	is( $node->safe_psql('postgres', "SELECT count(*), count(DISTINCT event_key) FROM risk_alert.alerts WHERE stream = '$stream'"),
		($last - $first + 1) . '|' . ($last - $first + 1),
		"$stream: one alert per event");
	live_features($node, "${stream}_live", $stream);
	compare($node, "${stream}_live", $stretch, $answers, "$stream, live");

	# A stored row's peers all count, whenever they arrived: set those rows aside
	# that the oracle says have a later one, and likewise for terminals
	my $alone = qq{$stretch AND o.later_tie = '0' AND NOT EXISTS
		(SELECT FROM $stream l WHERE l.terminal_id = f.terminal_id AND l.ts = f.ts AND l.tx_id > f.tx_id)};
	stored_features($node, "${stream}_stored", $stream, "tx_id BETWEEN $first AND $last");
	my $rows = compare($node, "${stream}_stored", $alone, $answers, "$stream, risk_assess() on stored rows");
	cmp_ok($rows, '>=', $last - $first + 1 - 10, "$stream: next to all rows compared");

	# The same without anything cached
	$node->restart;
	stored_features($node, "${stream}_cold", $stream, "tx_id BETWEEN $first AND $last AND tx_id % 10 = 3");
	compare($node, "${stream}_cold", "$alone AND o.tx_id % 10 = 3", $answers, "$stream, risk_assess() after a restart");
	return;
}

# All rows as they arrive, so that the longest windows fill and move on: only the stretches of the oracle are asked for
{
	prepare('whole', 'false');
	$node->safe_psql('postgres', "SELECT risk_alert.alter_rule('whole', 'everything', condition => 'tx_id <= $cold_last OR tx_id >= $warm_first')");
	play($node, 'whole', 0, $warm_last, 0.3);
	drain($node);
	is($node->safe_psql('postgres', q{SELECT processed, scored FROM risk_alert.stat_streams WHERE stream = 'whole'}), ($warm_last + 1) . '|' . ($warm_last + 1),
		'whole: all rows came live');
	live_features($node, 'whole_live', 'whole');
	is(compare($node, 'whole_live', 'true', $answers, 'whole, live'), $cold_last + 1 + $warm_last - $warm_first + 1, 'whole: all answers compared');
	$node->safe_psql('postgres', q{SELECT risk_alert.unwatch('whole'); DROP TABLE whole; DELETE FROM risk_alert.alert});
}

check('cold', 'false', 0, $cold_last, 0.1);
check('warm', "tx_id < $warm_first", $warm_first, $warm_last, 0.2);

$node->stop;
done_testing();
