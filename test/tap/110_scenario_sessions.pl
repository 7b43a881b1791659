# S3, card velocity, with payments of one card in several sessions at a time: the
# later to commit sees the others, whoever inserted first.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('sessions');

$node->safe_psql('postgres', q{
CREATE TABLE s3 (id int PRIMARY KEY, at timestamptz, card int, amount numeric(10,2));
CREATE INDEX ON s3 (card, at);
SELECT risk_alert.watch('s3', event_time => 'at', review_at => 1, suppress => '0 seconds');
SELECT risk_alert.create_feature('s3', 'n_2h', 'card', 'count(*)', '2 hours');
SELECT risk_alert.create_feature('s3', 'n_24h', 'card', 'count(*)', '24 hours');
SELECT risk_alert.create_feature('s3', 'sum_24h', 'card', 'sum(amount)', '24 hours');
SELECT risk_alert.create_rule('s3', 'often', 'n_2h > 3', points => 50);
SELECT risk_alert.create_rule('s3', 'much', 'n_24h > 1 AND sum_24h > 100', points => 40);
});

# What became of a card's payments: "id rules sum", or "id -" if it did not alert
sub outcome
{
	my ($card) = @_;
	drain($node);
	return $node->safe_psql('postgres', qq{
SELECT string_agg(concat_ws(' ', p.id, coalesce((SELECT string_agg(r, '+' ORDER BY r) FROM unnest(a.rules) r), '-'), a.features->>'sum_24h'), ', ' ORDER BY p.id)
FROM s3 p LEFT JOIN risk_alert.alerts a ON a.event_key = p.id::text WHERE card = $card});
}

my $a = $node->background_psql('postgres');
my $b = $node->background_psql('postgres');

$a->query_safe(q{BEGIN; INSERT INTO s3 VALUES (1, '2024-05-01 10:00', 1, 60)});
$b->query_safe(q{BEGIN; INSERT INTO s3 VALUES (2, '2024-05-01 10:00', 1, 50)});
$b->query_safe('COMMIT');
is(outcome(1), '2 -', 'what is not committed does not count');
$a->query_safe('COMMIT');
is(outcome(1), '1 much 110.00, 2 -', 'the later to commit sees the other, at the same time');

$a->query_safe(q{BEGIN; INSERT INTO s3 VALUES (11, '2024-05-01 10:05', 2, 60)});
$b->query_safe(q{INSERT INTO s3 VALUES (12, '2024-05-01 10:00', 2, 50)});
is(outcome(2), '12 -', 'another card, nothing yet');
$a->query_safe('ROLLBACK');
$b->query_safe(q{INSERT INTO s3 VALUES (13, '2024-05-01 10:10', 2, 50)});
is(outcome(2), '12 -, 13 -', 'what was rolled back never counts');

# Refunds subtract, also from another session
$a->query_safe(q{BEGIN; INSERT INTO s3 VALUES (21, '2024-05-01 10:00', 3, 90)});
$b->query_safe(q{BEGIN; INSERT INTO s3 VALUES (22, '2024-05-01 10:01', 3, -30)});
$a->query_safe('COMMIT');
outcome(3);
$b->query_safe('COMMIT');
outcome(3);
$a->query_safe(q{INSERT INTO s3 VALUES (23, '2024-05-01 10:02', 3, 40)});
is(outcome(3), '21 -, 22 -, 23 -', '90 - 30 + 40 is 100, not more');
$b->query_safe(q{INSERT INTO s3 VALUES (24, '2024-05-01 10:03', 3, 0.01)});
is(outcome(3), '21 -, 22 -, 23 -, 24 much+often 100.01', '100.01 is, and the fourth');

# A prepared transaction counts from COMMIT PREPARED on
$a->query_safe(q{BEGIN; INSERT INTO s3 VALUES (31, '2024-05-01 10:00', 4, 80); PREPARE TRANSACTION 'p31'});
$b->query_safe(q{INSERT INTO s3 VALUES (32, '2024-05-01 10:01', 4, 30)});
is(outcome(4), '32 -', 'a prepared payment does not count');
$b->query_safe(q{COMMIT PREPARED 'p31'});
$b->query_safe(q{INSERT INTO s3 VALUES (33, '2024-05-01 10:02', 4, 1)});
is(outcome(4), '31 -, 32 -, 33 much 111.00', 'it does after COMMIT PREPARED');

# Many at once: all count, for whoever comes last
my @sessions = map { $node->background_psql('postgres') } 1 .. 8;
foreach my $i (0 .. $#sessions)
{
	$sessions[$i]->query_safe("BEGIN; INSERT INTO s3 VALUES (4$i, '2024-05-01 10:00', 5, 10)");
}
foreach my $i (reverse 0 .. $#sessions)
{
	$sessions[$i]->query_safe('COMMIT');
	drain($node);
}
is(outcome(5), '40 often 80.00, 41 often 70.00, 42 often 60.00, 43 often 50.00, 44 often 40.00, 45 -, 46 -, 47 -',
	'8 sessions: those see most that commit last');

$_->quit foreach $a, $b, @sessions;
$node->stop;
done_testing();
