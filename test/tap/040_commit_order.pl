# Events count by commit, not by the order of ids: two-phase commit across
# crashes (F14), late commits, a hundred sessions in random order (F15), a
# transaction that stays open while the queue turns over.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('order', conf => "max_connections = 130\nrisk_alert.queue_rotate_size = 64kB\nrisk_alert.batch_size = 500");
create_payments($node);

sub alerted
{
	my ($which) = @_;
	drain($node);
	return one_line($node->safe_psql('postgres',
		"SELECT event_key FROM risk_alert.alert_event WHERE event_key::bigint $which ORDER BY event_key::bigint"));
}

# F14
$node->safe_psql('postgres', q{
BEGIN; INSERT INTO payments VALUES (1, 1, 5000, '2026-01-01Z'); PREPARE TRANSACTION 'kept';
BEGIN; INSERT INTO payments VALUES (2, 1, 5000, '2026-01-01Z'); PREPARE TRANSACTION 'gone';
BEGIN; SAVEPOINT a; INSERT INTO payments VALUES (3, 1, 5000, '2026-01-01Z'); ROLLBACK TO a;
	INSERT INTO payments VALUES (4, 1, 5000, '2026-01-01Z'); PREPARE TRANSACTION 'savepoints';
INSERT INTO payments VALUES (5, 1, 5000, '2026-01-01Z');});
is(alerted('< 100'), '5', 'F14 prepared events wait for COMMIT PREPARED, others do not wait for them');
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', q{INSERT INTO payments VALUES (6, 1, 5000, '2026-01-01Z')});
is(alerted('< 100'), '5 6', 'F14 so after a crash');
$node->safe_psql('postgres', q{COMMIT PREPARED 'kept'});
wait_until($node, q{SELECT count(*) = 1 FROM risk_alert.alert_event WHERE event_key = '1'});
is(alerted('< 100'), '1 5 6', 'F14 COMMIT PREPARED: the event is found without anybody calling for it');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'gone'; COMMIT PREPARED 'savepoints'});
is(alerted('< 100'), '1 4 5 6', 'F14 ROLLBACK PREPARED: never; savepoints inside count as ever');
$node->stop('immediate');
$node->start;
is(alerted('< 100'), '1 4 5 6', 'F14 after another crash: each event once');

# F14 A prepared transaction that outlives many turns of the queue
$node->safe_psql('postgres', q{
BEGIN; INSERT INTO payments SELECT g, 2, 5000, '2026-01-01Z' FROM generate_series(101, 110) g; PREPARE TRANSACTION 'old'});
foreach my $round (1 .. 10)
{
	$node->safe_psql('postgres', qq{INSERT INTO payments SELECT 1000 * $round + g, 1000 * $round + g, 1, '2026-01-01Z' FROM generate_series(0, 999) g});
	drain($node);
}
my $size = q{SELECT sum(pg_relation_size(('risk_alert.queue_' || n)::regclass)) FROM generate_series(0, 2) n};
cmp_ok($node->safe_psql('postgres', $size), '<', 1024 * 1024, 'F14 the queue keeps turning over beside an old prepared transaction');
$node->safe_psql('postgres', q{COMMIT PREPARED 'old'});
is(alerted('BETWEEN 101 AND 110'), '101 102 103 104 105 106 107 108 109 110', 'F14 whose events are there when it is committed');

# F15 Late commit with a lower id
{
	my @open;
	foreach my $i (1 .. 5)
	{
		my $session = $node->background_psql('postgres');
		$session->query_safe("BEGIN; INSERT INTO payments VALUES (200 + $i, 3, 5000, timestamptz '2026-01-01Z' + $i * interval '1 min')");
		push @open, $session;
	}
	$node->safe_psql('postgres', q{INSERT INTO payments VALUES (206, 3, 5000, '2026-01-01 00:06Z')});
	is(alerted('BETWEEN 201 AND 206'), '206', 'F15 an event does not wait for transactions that began earlier');
	foreach my $i (reverse 0 .. 4)
	{
		$open[$i]->query_safe('COMMIT');
		is(alerted('BETWEEN 201 AND 206'), join(' ', $i + 201 .. 206), "F15 late commit of a lower id: 20" . ($i + 1));
		$open[$i]->quit;
	}
	is($node->safe_psql('postgres', q{SELECT features->>'card_n' FROM risk_alert.alerts WHERE event_key = '201'}), 1,
		'F15 a late event is scored as of its own time');
	$node->safe_psql('postgres', q{INSERT INTO payments VALUES (207, 3, 5000, '2026-01-01 00:07Z')});
	is(alerted('= 207'), '207', 'F15 and the next one');
	is($node->safe_psql('postgres', q{SELECT features->>'card_n' FROM risk_alert.alerts WHERE event_key = '207'}), 7,
		'F15 sees all that came late');
}

# F15 A hundred sessions, transactions of random length, savepoints, rollbacks,
# prepared transactions; events of all cards interleave.
{
	my $script = q{
\set n random(1, 6)
\set end random(1, 10)
\set card random(1, 200)
BEGIN;
INSERT INTO payments SELECT nextval('ids'), :card, CASE WHEN g % 2 = 0 THEN 2000 ELSE 10 END, '2026-02-01Z' FROM generate_series(1, :n) g;
SAVEPOINT s;
INSERT INTO payments SELECT nextval('ids'), :card, 3000, '2026-02-01Z' FROM generate_series(1, 2) g;
\if :end < 4
ROLLBACK TO s;
\endif
INSERT INTO payments SELECT nextval('ids'), :card, 4000, '2026-02-01Z';
\if :end = 5
ROLLBACK;
\elif :end = 6
PREPARE TRANSACTION 'p:client_id';
COMMIT PREPARED 'p:client_id';
\else
COMMIT;
\endif
};
	$node->safe_psql('postgres', q{CREATE SEQUENCE ids START 1000000; ALTER SYSTEM SET max_prepared_transactions = 110});
	$node->restart;
	$node->pgbench('-n -c 100 -j 2 -t 30 --random-seed=40', 0, [qr{processed: 3000/3000}], [qr{^pgbench: setting random seed to 40$}], 'F15 a hundred sessions', { '040_random' => $script });
	drain($node);
	is($node->safe_psql('postgres', q{
SELECT count(*) FILTER (WHERE a.event_key IS NULL) AS lost, count(*) FILTER (WHERE p.payment_id IS NULL) AS made_up
FROM (SELECT * FROM payments WHERE payment_id >= 1000000 AND amount > 1000) p
FULL JOIN (SELECT * FROM risk_alert.alert_event WHERE 'large' = ANY (rules) AND event_key::bigint >= 1000000) a ON a.event_key = p.payment_id::text}),
		'0|0', 'F15 no event is lost, none is made up');
	# an event a second later sees them all, and itself
	is($node->safe_psql('postgres', q{
SELECT count(*), count(*) FILTER (WHERE (features->>'card_n')::int = n + 1)
FROM (SELECT card_id, count(*) AS n FROM payments WHERE created_at = '2026-02-01Z' GROUP BY card_id) c,
	risk_alert.risk_assess('payments', jsonb_build_object('payment_id', 0, 'card_id', card_id, 'amount', 0,
		'created_at', timestamptz '2026-02-01 00:00:01Z'))}),
		'200|200', 'F15 the windows hold what was committed, no more and no less');
	cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alert_event WHERE event_key::bigint >= 1000000}), '>', 5000, 'F15 there were enough of them');
}

# One long transaction delays only its own events, and what it wrote is not
# forgotten however often the queue tables are switched meanwhile.
{
	my $old = $node->background_psql('postgres');
	$old->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO payments VALUES (301, 4, 5000, '2026-01-01Z')});
	foreach my $round (1 .. 20)
	{
		my $base = 2_000_000 + 1000 * $round;
		$node->safe_psql('postgres', qq{INSERT INTO payments SELECT $base + g, $base + g, 1, '2026-01-01Z' FROM generate_series(0, 999) g});
		drain($node);
	}
	cmp_ok($node->safe_psql('postgres', $size), '<', 1024 * 1024, 'the queue stays small beside a long transaction');
	$old->query_safe(q{INSERT INTO payments VALUES (302, 4, 5000, '2026-01-01Z')});
	$old->query_safe('COMMIT');
	$old->quit;
	is(alerted('IN (301, 302)'), '301 302', 'events of a long transaction, first and last, are scored when it commits');
}

# An old snapshot of a reader does not hold up the queue
{
	my $reader = $node->background_psql('postgres');
	$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM payments');
	foreach my $round (1 .. 10)
	{
		my $base = 3_000_000 + 1000 * $round;
		$node->safe_psql('postgres', qq{INSERT INTO payments SELECT $base + g, $base + g, 1, '2026-01-01Z' FROM generate_series(0, 999) g});
		drain($node);
	}
	cmp_ok($node->safe_psql('postgres', $size), '<', 1024 * 1024, 'the queue stays small beside an old snapshot');
	$reader->query_safe('COMMIT');
	$reader->quit;
}

is($node->safe_psql('postgres', 'SELECT sum(events) = (SELECT count(*) FROM risk_alert.alert_event) FROM risk_alert.alert'),
	't', 'every scored event belongs to one alert');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed');
# A look at the queue that finds nothing, and fails while it writes progress, must
# not make the next one pass over what has become visible since.  The progress of the second
# event is written after it has been processed, by such a look.
{
	$node->safe_psql('postgres', q{
CREATE SEQUENCE written;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('public.written') BETWEEN 2 AND 6 THEN
		RAISE 'no progress, please';
	END IF;
	RETURN NEW;
END $$;
BEGIN; INSERT INTO payments VALUES (9000001, 9001, 5000, '2026-01-01Z'); PREPARE TRANSACTION 'before';
CREATE TRIGGER fail BEFORE UPDATE ON risk_alert.queue_position FOR EACH ROW EXECUTE FUNCTION fail();
INSERT INTO payments VALUES (9000002, 9002, 5000, '2026-01-01Z');
INSERT INTO payments VALUES (9000003, 9003, 1, '2026-01-01Z');});
	wait_until($node, q{SELECT last_value >= 3 FROM written});
	$node->safe_psql('postgres', q{COMMIT PREPARED 'before'});
	wait_until($node, q{SELECT last_value >= 7 FROM written});
	is(alerted('BETWEEN 9000001 AND 9000010'), '9000001 9000002', 'an event that commits while progress cannot be written is not passed over');
	$node->safe_psql('postgres', 'DROP TRIGGER fail ON risk_alert.queue_position; DROP FUNCTION fail; DROP SEQUENCE written');
}

# Whoever rewrites the queue's tables in the middle of a large transaction's events
# changes nothing
{
	$node->safe_psql('postgres', q{INSERT INTO payments SELECT 9100000 + g, 9100000 + g, 5000, '2026-01-01Z' FROM generate_series(1, 20000) g});
	wait_until($node, q{SELECT count(*) > 0 FROM risk_alert.alert_event WHERE event_key::bigint > 9100000});
	$node->safe_psql('postgres', "VACUUM FULL risk_alert.queue_$_") foreach 0 .. 2;
	drain($node);
	is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT event_key) FROM risk_alert.alert_event WHERE event_key::bigint > 9100000}),
		'20000|20000', 'VACUUM FULL of the queue: each event once');
	is($node->safe_psql('postgres', q{SELECT sum(skipped) FROM risk_alert.stat_streams}), 0, 'and none is skipped');
}

# Events of one time count in the order of their INSERTs, whatever becomes of them before
# the worker has come to them
sub seen_together
{
	my ($which, @transactions) = @_;
	my $pid = stop_worker($node);

	$node->safe_psql('postgres', $_) foreach @transactions;
	kill('CONT', $pid);
	drain($node);
	return one_line($node->safe_psql('postgres', qq{
SELECT event_key || ':' || (features->>'card_n') || ',' || (features->>'card_sum')::numeric(12,0) FROM risk_alert.alerts
WHERE event_key::bigint $which ORDER BY event_key::bigint}));
}

is(seen_together('BETWEEN 9300001 AND 9300003',
		q{INSERT INTO payments VALUES (9300001, 889301, 5000, '2026-01-01Z')},
		q{INSERT INTO payments VALUES (9300002, 889301, 5000, '2026-01-01Z'), (9300003, 889301, 5000, '2026-01-01Z')},
		'DELETE FROM payments WHERE payment_id = 9300001'),
	'9300001:1,5000 9300002:1,5000 9300003:2,10000', 'a deleted event does not see those that arrived after it');

$node->safe_psql('postgres', q{INSERT INTO payments VALUES (9310001, 889311, 100, '2026-01-01Z'), (9310002, 889311, 100, '2025-12-31Z')});
drain($node);
is(seen_together('BETWEEN 9310001 AND 9310004',
		q{INSERT INTO payments VALUES (9310003, 889311, 5000, '2026-01-01Z'), (9310004, 889311, 5000, '2026-01-01Z')},
		'UPDATE payments SET amount = 200 WHERE payment_id = 9310001',
		q{UPDATE payments SET created_at = '2026-01-01Z' WHERE payment_id = 9310002},
		'UPDATE payments SET amount = 6000 WHERE payment_id = 9310003'),
	'9310003:3,6300 9310004:4,11300', 'an UPDATE does not make a row arrive anew');

is(seen_together('= 9320001',
		q{INSERT INTO payments VALUES (9320001, 889321, 5000, '2026-01-01Z')},
		q{BEGIN; DELETE FROM payments WHERE payment_id = 9320001; INSERT INTO payments VALUES (9320001, 889321, 7000, '2026-01-01Z'); COMMIT}),
	'9320001:1,7000', 'DELETE and INSERT of an event that is not scored yet: scored as updated');
is(seen_together('= 9320002',
		q{BEGIN; INSERT INTO payments VALUES (9320002, 889322, 5000, '2026-01-01Z'); DELETE FROM payments WHERE payment_id = 9320002;
INSERT INTO payments VALUES (9320002, 889322, 7000, '2026-01-01Z'); COMMIT}),
	'9320002:1,7000', 'INSERT, DELETE and INSERT in one transaction: a new event');
is(seen_together('= 9320002',
		q{BEGIN; DELETE FROM payments WHERE payment_id = 9320002; INSERT INTO payments VALUES (9320002, 889322, 1, '2026-01-01Z');
DELETE FROM payments WHERE payment_id = 9320002; INSERT INTO payments VALUES (9320002, 889322, 9000, '2026-01-01Z'); COMMIT}),
	'9320002:1,7000', 'DELETE and INSERT, twice, of one that is: an update');

$node->stop;
done_testing();
