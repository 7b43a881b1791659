# F27: values so large that no window and no jsonb holds them.  The INSERT
# succeeds, the event is scored, and so are the next ones of its card.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my ($available) = -r '/proc/meminfo' ? slurp_file('/proc/meminfo') =~ /^MemAvailable:\s*(\d+) kB/m : ();
plan skip_all => 'needs 4 GB of memory' if ($available // 0) < 4 * 1024 * 1024;

my $node = new_node('large', conf => "risk_alert.rule_timeout = 0\n");
my $size = 270_000_000;

$node->safe_psql('postgres', q{
CREATE TABLE calls (id int PRIMARY KEY, card int, body text, at timestamptz);
CREATE INDEX ON calls (card, at);
SELECT risk_alert.watch('calls', event_time => 'at', suppress => '0');
SELECT risk_alert.create_feature('calls', 'n', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('calls', 'last_body', entity => 'card', aggregate => 'lag(body)', within => '1 hour');
SELECT risk_alert.create_rule('calls', 'each', 'n > 0', points => 50, reason => '{n}: {body} after {last_body}');
SELECT risk_alert.create_rule('calls', 'long', 'length(last_body) > 260000000', points => 10);});

my $shown = q{SELECT event_key, score, features->>'n', length(features->>'last_body'), length(reasons->0->>'text') FROM risk_alert.alerts ORDER BY event_key};
$node->safe_psql('postgres', q{INSERT INTO calls VALUES (1, 1, 'a', '2026-01-01 10:00Z')});
drain($node);
is($node->psql('postgres', "INSERT INTO calls VALUES (2, 1, repeat('x', $size), '2026-01-01 10:01Z')"), 0, 'F27 a text of 270 MB goes in');
drain($node);
# one after the other, and a batch of several
$node->safe_psql('postgres', q{INSERT INTO calls VALUES (3, 1, 'b', '2026-01-01 10:02Z')});
drain($node);
$node->safe_psql('postgres', q{INSERT INTO calls VALUES (4, 1, 'cc', '2026-01-01 10:03Z'), (5, 1, 'd', '2026-01-01 10:04Z')});
drain($node);
# ... and one beyond the large one
$node->safe_psql('postgres', q{INSERT INTO calls VALUES (6, 1, 'e', '2026-01-01 11:02Z')});
drain($node);
my $long = length('2: ') + 200 + length('...') + length(' after a');
my $after = length('3: b after ') + 200 + length('...');
my $clipped = 1024 * 1024 + length('...');
is($node->safe_psql('postgres', $shown), join("\n", '1|50|1||15', "2|50|2|1|$long", "3|60|3|$clipped|$after", '4|50|4|1|13', '5|50|5|2|13', '6|50|3|1|12'),
	'F27 it is scored, and so are the next events of its card');
is($node->safe_psql('postgres', q{SELECT scored, skipped FROM risk_alert.stat_streams}), '6|0', 'F27 none is skipped');
is($node->safe_psql('postgres', q{SELECT rule, errors FROM risk_alert.stat_rules ORDER BY 1}), "each|0\nlong|0", 'F27 no rule fails');
is($node->safe_psql('postgres', q{SELECT score, features->>'n', length(features->>'last_body') FROM calls, risk_alert.risk_assess(calls) WHERE id = 3}),
	"60|3|$clipped", 'F27 risk_assess() says the same');
# several values that together are more than 32 bits count, when their window grows
$node->safe_psql('postgres', q{
CREATE TABLE pairs (id int PRIMARY KEY, card int, one text, other text, at timestamptz);
CREATE INDEX ON pairs (card, at);
SELECT risk_alert.watch('pairs', event_time => 'at', suppress => '0');
SELECT risk_alert.create_feature('pairs', 'n', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pairs', 'last_one', entity => 'card', aggregate => 'lag(one)', within => '1 hour');
SELECT risk_alert.create_feature('pairs', 'last_other', entity => 'card', aggregate => 'lag(other)', within => '1 hour');
SELECT risk_alert.create_rule('pairs', 'each', 'n > 0', points => 50);});
$node->safe_psql('postgres', q{INSERT INTO pairs VALUES (1, 1, repeat('x', 200000000), 'a', '2026-01-01 10:00Z')});
drain($node);
$node->safe_psql('postgres', q{INSERT INTO pairs VALUES (2, 1, repeat('x', 500000000), repeat('x', 500000000), '2026-01-01 10:01Z')});
drain($node);
$node->safe_psql('postgres', q{INSERT INTO pairs VALUES (3, 1, 'b', 'c', '2026-01-01 10:02Z')});
drain($node);
is($node->safe_psql('postgres', q{SELECT event_key, features->>'n', length(features->>'last_one'), length(features->>'last_other') FROM risk_alert.alerts WHERE stream = 'pairs' ORDER BY 1}),
	"1|1||\n2|2|$clipped|1\n3|3|$clipped|$clipped", 'F27 two values of 500 MB each');

unlike(slurp_file($node->logfile), qr/ERROR|FATAL|PANIC|TRAP|signal 11/, 'nothing went wrong');

$node->stop;
done_testing();
