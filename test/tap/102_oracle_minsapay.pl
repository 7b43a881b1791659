# Every answer of minsapay_oracle.csv.gz (real payments of a school festival,
# windows per user, sums up to 2^31), live and by risk_assess() on the stored
# rows; with the amount in each of the types that count money.

use strict;
use warnings FATAL => 'all';

use Oracle;
use RiskAlert;
use Test::More;

plan skip_all => 'the public data sets are not there (RISK_ALERT_DATA)'
  if !defined data_path('minsapay.csv.gz') || !defined data_path('minsapay_oracle.csv.gz');

my $columns = q{tx_id int, ts timestamptz, user_id text, booth_id text, type text,
	amount bigint, balance_after bigint};
my $answers = 3 * 7 + 1;

my $node = new_node('minsapay');

is(load_file($node, 'minsapay.csv.gz', $columns), 2900, 'payments loaded');
is(load_oracle($node, 'minsapay_oracle.csv.gz'), 2900, 'answers loaded');

foreach my $type ('int', 'bigint', 'numeric(10,0)', 'numeric(20,4)', 'numeric', 'float8')
{
	(my $stream = "won_$type") =~ s/\W+/_/g;

	$node->safe_psql('postgres', qq{
CREATE TABLE $stream ($columns, PRIMARY KEY (tx_id));
ALTER TABLE $stream ALTER amount TYPE $type;
CREATE INDEX ON $stream (user_id, ts);
SELECT risk_alert.watch('$stream', event_time => 'ts', suppress => '0 seconds');
SELECT risk_alert.create_rule('$stream', 'everything', 'true', points => 100);});
	create_features($node, $stream, 'user_id', 'booth_id',
		'1m' => '1 minute', '1h' => '1 hour', '1d' => '1 day');
	play($node, $stream, 0, 2899, 0.4);
	drain($node);
	live_features($node, "${stream}_live", $stream);
	is(compare($node, "${stream}_live", 'true', $answers, "$type, live"), 2900, "$type: all events");
	stored_features($node, "${stream}_stored", $stream, 'true');
	cmp_ok(compare($node, "${stream}_stored", "o.later_tie = '0'", $answers, "$type, risk_assess() on stored rows"),
		'>', 2800, "$type: next to all rows compared");
}

$node->stop;
done_testing();
