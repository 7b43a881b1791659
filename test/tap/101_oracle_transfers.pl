# Every answer of transfers_oracle.csv.gz (mobile-money movements, windows per
# destination account, a text), live and by risk_assess() on the stored rows.

use strict;
use warnings FATAL => 'all';

use Oracle;
use RiskAlert;
use Test::More;

plan skip_all => 'the public data sets are not there (RISK_ALERT_DATA)'
  if !defined data_path('transfers.csv.gz') || !defined data_path('transfers_oracle.csv.gz');

my $columns = q{tx_id int, ts timestamptz, step int, type text, amount numeric,
	orig_account text, orig_balance_before numeric, orig_balance_after numeric,
	dest_account text, dest_balance_before numeric, dest_balance_after numeric,
	is_fraud int, is_flagged_fraud int};
my $answers = 3 * 7 + 1;

my $node = new_node('transfers');

is(load_file($node, 'transfers.csv.gz', $columns), 50000, 'transfers loaded');
is(load_oracle($node, 'transfers_oracle.csv.gz'), 20000, 'answers loaded');

# amount: once of a fixed scale, once a numeric of any
foreach my $type ('numeric(12,2)', 'numeric')
{
	my $stream = $type eq 'numeric' ? 'free' : 'fixed';

	$node->safe_psql('postgres', qq{
CREATE TABLE $stream ($columns, PRIMARY KEY (tx_id));
ALTER TABLE $stream ALTER amount TYPE $type;
CREATE INDEX ON $stream (dest_account, ts);
SELECT risk_alert.watch('$stream', event_time => 'ts', suppress => '0 seconds');
SELECT risk_alert.create_rule('$stream', 'everything', 'tx_id > 30000', points => 100);});
	create_features($node, $stream, 'dest_account', 'orig_account',
		'5m' => '5 minutes', '1h' => '1 hour', '6h' => '6 hours');
	play($node, $stream, 1, 50000, 0.3);
	drain($node);
	is( $node->safe_psql('postgres', "SELECT count(*), min(event_key::int), max(event_key::int) FROM risk_alert.alerts WHERE stream = '$stream'"),
		'20000|30001|50000',
		"$stream: one alert per event that fires");
	live_features($node, "${stream}_live", $stream);
	compare($node, "${stream}_live", 'true', $answers, "amount $type, live");
	stored_features($node, "${stream}_stored", $stream, 'tx_id > 30000');
	is(compare($node, "${stream}_stored", "o.later_tie = '0'", $answers, "amount $type, risk_assess() on stored rows"),
		20000, "amount $type: no two rows at the same time");
	$node->safe_psql('postgres', "SELECT risk_alert.unwatch('$stream')");
}

$node->stop;
done_testing();
