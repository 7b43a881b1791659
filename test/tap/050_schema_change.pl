# F11: the watched table changes while its events wait: they were captured with
# the columns of their time, and can still be read.  The worker is held (SIGSTOP) to
# have them wait.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('schema');
my $base = 0;

# A new table and stream; ten events of it wait when the statements are run
sub changed
{
	my ($claim, $statements, $alerts) = @_;
	my $pid;

	$base += 100;
	$node->safe_psql('postgres', q{
SET client_min_messages = warning;
DROP TABLE IF EXISTS payments, moved, archive.payments CASCADE;
SELECT risk_alert.unwatch(stream) FROM risk_alert.streams WHERE stream = 'payments';
DELETE FROM risk_alert.alert;});
	create_payments($node);
	$node->safe_psql('postgres', q{
ALTER TABLE payments ADD COLUMN note text DEFAULT 'n';
INSERT INTO payments VALUES (1, 1, 10, '2026-01-01Z')});
	drain($node);
	$pid = stop_worker($node);
	$node->safe_psql('postgres', q{
INSERT INTO payments SELECT 10 + g, 1, CASE WHEN g % 2 = 0 THEN 5000 ELSE 1 END, timestamptz '2026-01-01Z' + g * interval '1 min'
FROM generate_series(1, 4) g;
DELETE FROM payments WHERE payment_id = 1;});
	my ($rc, $out, $err) = $node->psql('postgres', "SET client_min_messages = warning; $statements");
	kill('CONT', $pid);
	drain($node);
	is(one_line($node->safe_psql('postgres', q{SELECT event_key, score FROM risk_alert.alerts ORDER BY event_key})), $alerts, $claim);
	is(wait_for_worker($node), $pid, '  the same worker goes on');
	return $err;
}

my $all = '12|60 14|100';

# alert 14 has both rules: 14 is the fourth payment within an hour (1 is deleted)
changed('F11 nothing changes', '', $all);
changed('F11 renamed table', 'ALTER TABLE payments RENAME TO moved', $all);
$node->safe_psql('postgres', q{INSERT INTO moved VALUES (20, 2, 5000, '2026-01-01Z')});
drain($node);
is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alerts WHERE event_key = '20'}), 1, '  and its new rows are events');

changed('F11 moved to another schema', 'CREATE SCHEMA archive; ALTER TABLE payments SET SCHEMA archive', $all);
$node->safe_psql('postgres', q{INSERT INTO archive.payments VALUES (20, 2, 5000, '2026-01-01Z')});
drain($node);
is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alerts WHERE event_key = '20'}), 1, '  and its new rows are events');

changed('F11 an unused column dropped, others added', 'ALTER TABLE payments DROP COLUMN note; ALTER TABLE payments ADD COLUMN a int DEFAULT 1, ADD COLUMN b text', $all);
changed('F11 used columns renamed', 'ALTER TABLE payments RENAME amount TO value; ALTER TABLE payments RENAME card_id TO card; ALTER TABLE payments RENAME created_at TO at', $all);
$node->safe_psql('postgres', q{INSERT INTO payments VALUES (20, 2, 5000, '2026-01-01Z')});
drain($node);
is($node->safe_psql('postgres', q{SELECT condition FROM risk_alert.rules WHERE rule = 'large'}), 'value > (1000)::numeric', '  the rule follows');
is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alerts WHERE event_key = '20'}), 1, '  and fires');

changed('F11 rewritten table (VACUUM FULL, CLUSTER)', 'CLUSTER payments USING payments_pkey', $all);
changed('F11 SET UNLOGGED', 'ALTER TABLE payments SET UNLOGGED', $all);

like(changed('F11 dropping a used column is refused', 'ALTER TABLE payments DROP COLUMN amount', $all),
	qr/ERROR.*cannot drop column amount/, '  with an error');
like(changed('F11 changing the type of a used column is refused', 'ALTER TABLE payments ALTER amount TYPE float8', $all),
	qr/ERROR.*cannot alter type of a column/, '  with an error');
like(changed('F11 dropping the key is refused', 'ALTER TABLE payments DROP COLUMN payment_id', $all), qr/ERROR/, '  with an error');
changed('F11 changing the type of an unused column', 'ALTER TABLE payments ALTER note TYPE varchar(10)', $all);

# With CASCADE the trigger goes, too: no more events, and check_setup() says so
changed('F11 DROP COLUMN ... CASCADE of a used column: events that wait are not lost silently',
	'ALTER TABLE payments DROP COLUMN amount CASCADE', '');
is($node->safe_psql('postgres', q{SELECT level, name, object, description FROM risk_alert.check_setup()
WHERE object ~ '^payments' AND name IN ('trigger', 'activity') ORDER BY name DESC}),
	"error|trigger|payments|no trigger captures the rows of the table\nerror|activity|payments|nothing happens with new rows", '  check_setup() says so');
is($node->safe_psql('postgres', q{SELECT state, processed, scored, skipped, last_skip FROM risk_alert.stat_streams}),
	'no trigger|6|5|0|', '  stat_streams shows the state; the events that waited are scored, none is skipped');
is($node->safe_psql('postgres', q{SELECT rule, evaluated, errors, last_error FROM risk_alert.stat_rules ORDER BY 1}),
	"large|1|0|\nvelocity|1|0|", '  without the rules that lost what they use');
is($node->safe_psql('postgres', q{SELECT level, name, object, detail FROM risk_alert.check_setup() WHERE object ~ '^payments[.]' AND level = 'error' ORDER BY 2, 3}),
	qq(error|feature|payments.card_sum|column "amount" of table "payments" does not exist\nerror|rule|payments.large|"amount" is neither a column of table "payments" nor a feature of its stream\nerror|rule|payments.velocity|Feature "card_sum" cannot be computed.),
	'  check_setup() names the feature, and the rules that did or use it');
is($node->psql('postgres', q{INSERT INTO payments VALUES (20, 2, '2026-01-01Z')}), 0, '  rows go in all the same');

# The table is dropped: nothing to score any more, and the worker lives
changed('F11 dropped table: its waiting events are void', 'DROP TABLE payments', '');
like($node->safe_psql('postgres', q{SELECT string_agg(concat_ws(' ', level, name, object, description, detail, remediation), ';') FROM risk_alert.check_setup()}),
	qr/payments.*unwatch/s, '  check_setup() names the stream and what to do');
$node->safe_psql('postgres', q{SELECT risk_alert.unwatch('payments')});

# unwatch with events waiting
changed('unwatch() with events waiting: they are void', q{SELECT risk_alert.unwatch('payments')}, '');
changed('unwatch() and watch() again with events waiting: the new stream does not get the old one\'s events',
	q{SELECT risk_alert.unwatch('payments'); SELECT risk_alert.watch('payments', event_time => 'created_at');
	SELECT risk_alert.create_rule('payments', 'large', 'amount > 1000', points => 60)}, '');

# Rules and features change while events wait: one version for each event
changed('a rule altered while events wait applies to them', q{SELECT risk_alert.alter_rule('payments', 'large', points => 75)}, '12|75 14|100');
changed('a feature more while events wait', q{SELECT risk_alert.create_feature('payments', 'notes', 'card_id', 'count(note)', '1 day');
	SELECT risk_alert.create_rule('payments', 'noted', 'notes > 3', points => 10)}, '12|60 14|100');
changed('a rule retired while events wait', q{SELECT risk_alert.alter_rule('payments', 'large', status => 'retired')}, '14|50');

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed');
$node->stop;
done_testing();
