# What is shown of the work: stat_streams, stat_rules, stat_features and
# stat_workers, while events wait, after they are done, after a restart, and
# when somebody cancels a rule that takes too long (F5).

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('statistics', conf => "risk_alert.rule_timeout = 0\n");
create_payments($node);
$node->safe_psql('postgres', q{
SELECT risk_alert.alter_stream('payments', suppress => '1 hour');
-- (of an entity, so that its alerts fold)
SELECT risk_alert.alter_rule('payments', 'large', condition => 'card_n > 0 AND amount > 1000');
CREATE FUNCTION sleeps(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$
BEGIN
	PERFORM pg_sleep(CASE amount WHEN 77 THEN 3600 WHEN 78 THEN 0.2 ELSE 0 END);
	RETURN false;
END $$;
INSERT INTO payments SELECT -g, g, 1, '2026-01-01Z' FROM generate_series(1, 10) g;});
drain($node);

my $stream = q{SELECT queued, lag > '0', processed, scored, alerts, folded, skipped, state FROM risk_alert.stat_streams};

# Events wait while the worker stands still
{
	is($node->safe_psql('postgres', $stream), '0|f|10|10|0|0|0|running', 'stat_streams: nothing waits');
	my $pid = stop_worker($node);
	$node->safe_psql('postgres', q{
INSERT INTO payments SELECT g, 1, 5000, timestamptz '2026-01-02Z' + g * interval '1 minute' FROM generate_series(1, 3) g;
INSERT INTO payments VALUES (4, 2, 5000, '2026-01-02Z'), (5, 3, 1, '2026-01-02Z'), (6, 3, 1, NULL);
UPDATE payments SET amount = 2 WHERE payment_id = 5;});
	is($node->safe_psql('postgres', $stream), '7|t|10|10|0|0|0|running', 'stat_streams: the worker stands still, events wait');
	my ($before) = $node->safe_psql('postgres', q{SELECT extract(epoch FROM lag) FROM risk_alert.stat_streams});
	ok(wait_until($node, "SELECT extract(epoch FROM lag) > $before + 0.2 FROM risk_alert.stat_streams"), 'their lag grows');
	kill('CONT', $pid);
	drain($node);
	is($node->safe_psql('postgres', $stream), '0|f|17|15|2|2|1|running', 'stat_streams: they are scored, raise alerts, fold, are skipped');
	is($node->safe_psql('postgres', q{SELECT last_skip <> '', last_event_time = '2026-01-02 00:03Z', last_processed_at > now() - interval '10 minutes' FROM risk_alert.stat_streams}),
		't|t|t', 'with the last reason and times');
	is($node->safe_psql('postgres', q{SELECT sum(events), count(*) FROM risk_alert.alerts}), '4|2', 'as the alerts tell');
}

# Rules
is($node->safe_psql('postgres', q{SELECT rule, evaluated, fired, errors, total_time >= 0 FROM risk_alert.stat_rules ORDER BY 1}),
	"large|15|4|0|t\nvelocity|15|0|0|t", 'stat_rules: evaluated, fired');
$node->safe_psql('postgres', q{SELECT risk_alert.create_rule('payments', 'sleeps', 'sleeps(amount)');
INSERT INTO payments SELECT 10 + g, 4, 78, timestamptz '2026-01-03Z' + g * interval '1 hour' FROM generate_series(1, 2) g});
drain($node);
like($node->safe_psql('postgres', q{SELECT evaluated, fired, errors, total_time >= 400, total_time < 60000, mean_time >= 200 FROM risk_alert.stat_rules WHERE rule = 'sleeps'}),
	qr/^2\|0\|0\|t\|t\|t$/, 'stat_rules: the time that a rule takes, in milliseconds');

# Workers
{
	my $pid = wait_for_worker($node);
	my $worker = q{SELECT batches, events FROM risk_alert.stat_workers WHERE database = 'postgres'};

	is($node->safe_psql('postgres', q{SELECT pid, state, started_at < now(), wakeups > 0, last_batch_at > started_at, last_error IS NULL FROM risk_alert.stat_workers}),
		"$pid|running|t|t|t|t", 'stat_workers: the worker and its state');
	my ($batches, $events) = split /\|/, $node->safe_psql('postgres', $worker);
	is($events, 19, 'stat_workers: as many events as there were');
	cmp_ok($batches, '>=', 3, 'stat_workers: in as many batches, at least, as were waited for');
	cmp_ok($batches, '<=', $events, 'stat_workers: none without events');
}

# Windows in memory
my $features = q{SELECT entity, entities, memory > 0, hits, rebuilds, evictions FROM risk_alert.stat_features};
{
	my @shown = split /\|/, $node->safe_psql('postgres', $features);

	is("@shown[0, 1, 2, 5]", 'card_id 10 t 0', 'stat_features: ten cards are in memory');
	cmp_ok($shown[3], '>', 0, 'stat_features: found there');
	cmp_ok($shown[4], '>=', 4, 'stat_features: read from the table before');
	my $memory = $node->safe_psql('postgres', 'SELECT memory FROM risk_alert.stat_features');
	$node->safe_psql('postgres', q{INSERT INTO payments SELECT 1000 + g, 100 + g, 1, '2026-01-04Z' FROM generate_series(1, 500) g});
	drain($node);
	cmp_ok($node->safe_psql('postgres', 'SELECT memory FROM risk_alert.stat_features'), '>', $memory + 500 * 50, 'stat_features: more cards take more memory');
	is($node->safe_psql('postgres', 'SELECT entities FROM risk_alert.stat_features'), 510, 'stat_features: as many as there are');
}

# After a restart and after a crash there are none, and each comes from the table once (F2)
foreach my $how ('fast', 'immediate')
{
	my $id = $how eq 'fast' ? 2000 : 2100;
	# (progress is written with an alert, else once a second: a crash may come first)
	$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id, $id, 5000, '2026-01-04Z')");
	drain($node);
	my $before = $node->safe_psql('postgres', q{SELECT processed, scored, alerts, folded, skipped FROM risk_alert.stat_streams});

	$node->stop($how);
	$node->start;
	drain($node);
	is($node->safe_psql('postgres', q{SELECT coalesce(sum(entities), 0), coalesce(sum(rebuilds), 0) FROM risk_alert.stat_features}), '0|0', "F2 $how shutdown: no windows are left");
	is($node->safe_psql('postgres', q{SELECT processed, scored, alerts, folded, skipped FROM risk_alert.stat_streams}), $before, "$how shutdown: a stream's counters are kept");
	$node->safe_psql('postgres', "INSERT INTO payments SELECT $id + g, 100 + g, 1, '2026-01-04 00:01Z' FROM generate_series(1, 7) g");
	drain($node);
	# (where they are found from then on)
	is($node->safe_psql('postgres', $features), 'card_id|7|t|7|7|0', "F2 $how shutdown: seven cards come, seven windows are read from the table");
	$node->safe_psql('postgres', "INSERT INTO payments SELECT $id + 10 + g, 100 + g, 1, '2026-01-04 00:02Z' FROM generate_series(1, 7) g");
	drain($node);
	is($node->safe_psql('postgres', $features), 'card_id|7|t|14|7|0', "F2 $how shutdown: then they are found in memory");
}

# F5 pg_cancel_backend() while a rule takes its time: that rule fails for that event
{
	my $pid = wait_for_worker($node);
	my $done = q{SELECT risk_alert.drain('200 ms')};
	my $cancelled = 0;

	$node->safe_psql('postgres', q{INSERT INTO payments SELECT 5000 + g, 5000 + g, CASE g WHEN 3 THEN 77 ELSE 5000 END, '2026-01-05Z' FROM generate_series(1, 5) g});
	ok(wait_until($node, "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $pid"), 'F5 a rule sleeps');
	is($node->safe_psql('postgres', $done), 'f', 'F5 and the worker with it, as there is no rule_timeout');
	while ($cancelled < 5 && $node->safe_psql('postgres', $done) eq 'f')
	{
		$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid) FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'PgSleep'");
		$cancelled++;
	}
	drain($node);
	note("cancelled $cancelled times");
	is(one_line($node->safe_psql('postgres', 'SELECT event_key FROM risk_alert.alerts WHERE event_key::int > 5000 ORDER BY 1')), '5001 5002 5004 5005',
		'F5 pg_cancel_backend while a rule runs: the others are scored');
	is($node->safe_psql('postgres', q{SELECT errors, last_error FROM risk_alert.stat_rules WHERE rule = 'sleeps'}),
		'1|canceling statement due to user request', 'F5 one rule has failed for one event');
	is($node->safe_psql('postgres', q{SELECT skipped FROM risk_alert.stat_streams}), 1, 'F5 no event was skipped');
	is(worker_pid($node), $pid, 'F5 the same worker goes on');
}

# Why no worker runs
{
	my $finding = q{SELECT level, description, detail FROM risk_alert.check_setup() WHERE name = 'worker'};
	my $state = q{SELECT state FROM risk_alert.stat_workers WHERE database = current_database()};

	$node->safe_psql('postgres', q{CREATE TABLE saved AS TABLE risk_alert.queue_position; DELETE FROM risk_alert.queue_position;
SELECT pg_terminate_backend(pid) FROM risk_alert.stat_workers WHERE database = 'postgres'});
	ok(wait_until($node, $state, 'failed'), 'a worker that can not start has failed');
	like($node->safe_psql('postgres', $finding), qr/^error\|the worker has failed and is tried again after a pause\|Its last error was: table risk_alert\.queue_position has no row$/,
		'check_setup: that it has, and why');
	is($node->safe_psql('postgres', q{SELECT last_error FROM risk_alert.stat_workers WHERE database = 'postgres'}), 'table risk_alert.queue_position has no row', 'stat_workers, too');
	$node->safe_psql('postgres', 'INSERT INTO risk_alert.queue_position SELECT * FROM saved; DROP TABLE saved');
	ok(wait_until($node, $state, 'running'), 'it is tried again');
	like($node->safe_psql('postgres', $finding), qr/^ok\|the worker is running/, 'check_setup: and runs');

	# who can't look for its extension does not run yet
	my $holder = $node->background_psql('postgres');
	$holder->query_safe("BEGIN; LOCK TABLE pg_extension IN ACCESS EXCLUSIVE MODE; SELECT pg_terminate_backend(pid) FROM risk_alert.stat_workers WHERE database = 'postgres'");
	is($holder->query_safe(q{DO $$BEGIN FOR i IN 1 .. 1000 LOOP
EXIT WHEN (SELECT state FROM risk_alert.stat_workers WHERE database = 'postgres') = 'starting'; PERFORM pg_sleep(0.1); END LOOP; END$$;
} . $state), 'starting', 'a worker that is about to run');
	is($holder->query_safe($finding), 'warning|the worker is starting|Its last error was: table risk_alert.queue_position has no row', 'check_setup: that it starts');
	is($holder->query_safe('SELECT state FROM risk_alert.stat_streams'), 'worker starting', 'stat_streams, too');
	$holder->query_safe('COMMIT');
	$holder->quit;
	ok(wait_until($node, $state, 'running'), 'and it runs');

	# F2: while windows are read from the table, that is what the state says
	my $worker = wait_for_worker($node);
	kill('STOP', $worker);
	$node->safe_psql('postgres', q{INSERT INTO payments VALUES (7001, 7001, 1, '2026-01-06Z')});
	my $locker = $node->background_psql('postgres');
	$locker->query_safe('BEGIN; REINDEX INDEX payments_card_id_created_at_idx');
	kill('CONT', $worker);
	ok(wait_until($node, $state, 'rebuilding'), 'F2 stat_workers: the worker reads windows from the table');
	is($node->safe_psql('postgres', 'SELECT state FROM risk_alert.stat_streams'), 'rebuilding', 'F2 stat_streams, too');
	ok(wait_until($node, q{SELECT description FROM risk_alert.check_setup() WHERE name = 'worker'}, 'the worker waits for a lock that another transaction holds'),
		'check_setup: that it waits for the index');
	$locker->query_safe('COMMIT');
	$locker->quit;
	drain($node);
	is($node->safe_psql('postgres', $state), 'running', 'F2 then it runs as before');

	# a command that wants the database for itself waits for this session, for some seconds
	my $session = $node->background_psql('postgres');
	my $other = $node->background_psql('template1', on_error_stop => 0);
	$other->query_until(qr/begun/, "\\echo begun\nCREATE DATABASE copy TEMPLATE postgres;\n");
	my $found = '';
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	$found = $session->query_safe($finding) while $found !~ /paused/ && time < $deadline;
	like($found, qr/^warning\|the worker is paused for a command that needs the database for itself/, 'check_setup: it is paused');
	$session->quit;
	eval { $other->quit };
	ok(wait_until($node, $state, 'running'), 'it runs again afterwards');
}

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed');
$node->stop;
done_testing();
