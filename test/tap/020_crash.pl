# Crashes: of the worker, of any backend, of the whole server, in the middle of
# a burst; a worker that stands still, is terminated or cancelled.  Whatever
# happens, each committed event is scored once, with the windows it would have
# had without the fault.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('crash', conf => 'risk_alert.batch_size = 200');
create_payments($node);

# Alerts as they must be: computed by SQL from what is in the table.  Every
# card's payments come in order of time, so each event's window is known.
my $truth = q{
SELECT payment_id, least(100, 60 * (amount > 1000)::int + 50 * (n > 3)::int),
	concat_ws('+', CASE WHEN amount > 1000 THEN 'large' END, CASE WHEN n > 3 THEN 'velocity' END)
FROM (SELECT *, count(*) OVER (PARTITION BY card_id ORDER BY created_at
		RANGE BETWEEN interval '59:59.999999' PRECEDING AND CURRENT ROW) AS n FROM payments) p
WHERE amount > 1000 OR n > 3 ORDER BY payment_id::text COLLATE "C"};

my $seen = q{
SELECT e.event_key, e.score, array_to_string(ARRAY(SELECT unnest(e.rules) ORDER BY 1), '+')
FROM risk_alert.alert_event e ORDER BY e.event_key COLLATE "C"};

sub exact
{
	my ($claim) = @_;
	drain($node);
	is($node->safe_psql('postgres', $seen), $node->safe_psql('postgres', $truth), $claim);
	return;
}

# n payments of 50 cards from number first on, some large, some close together
sub payments
{
	my ($first, $n) = @_;
	return qq{
INSERT INTO payments SELECT g, g % 50, CASE WHEN g % 37 = 0 THEN 5000 ELSE g % 900 END,
	timestamptz '2026-01-01Z' + g * interval '17 s'
FROM generate_series($first, $first + $n - 1) g;};
}

my $next = 1;

sub insert
{
	my ($n) = @_;
	$node->safe_psql('postgres', payments($next, $n));
	$next += $n;
	return;
}

insert(1000);
exact('undisturbed: the alerts are those that SQL computes');

# F1
foreach my $round (1 .. 5)
{
	my $before = $node->safe_psql('postgres', 'SELECT sum(processed) FROM risk_alert.stream_stat');
	my $pid = stop_worker($node, 'postgres');
	insert(3000);
	kill('CONT', $pid);
	# a few batches into the backlog (or done with it, on a fast day)
	wait_until($node, "SELECT sum(processed) > $before + 100 * $round FROM risk_alert.stream_stat");
	kill('KILL', $pid);
	wait_for_worker($node, 'postgres', $pid);
	wait_for_restart($node);
}
exact('F1 kill -9 of the worker in mid batch: each event is scored once, windows as if nothing had happened');

# F2
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $old = wait_for_worker($node, 'postgres');

	$session->query_safe('BEGIN');
	$session->query_safe(payments(9_000_000, 10));
	insert(2000);
	kill('KILL', $pid);
	wait_for_worker($node, 'postgres', $old);
	wait_for_restart($node);
	eval { $session->quit };
	exact('F2 kill -9 of a session: its open transaction left nothing, the rest is scored');
	$node->safe_psql('postgres', q{
INSERT INTO payments SELECT 500000 + g, 1000, 1, timestamptz '2026-01-01Z' + g * interval '1 s' FROM generate_series(1, 3) g});
	drain($node);
	$session = $node->background_psql('postgres', on_error_stop => 0);
	$pid = $session->query_safe('SELECT pg_backend_pid()');
	$old = wait_for_worker($node, 'postgres');
	kill('KILL', $pid);
	wait_for_worker($node, 'postgres', $old);
	wait_for_restart($node);
	eval { $session->quit };
	$node->safe_psql('postgres', q{INSERT INTO payments VALUES (500004, 1000, 1, timestamptz '2026-01-01 00:00:04Z')});
	exact('F2 the windows lost in a crash are rebuilt before the first rule is evaluated');
}

# F3
{
	my $rounds = 20;
	my $lost = 0;

	foreach my $seed (1 .. $rounds)
	{
		my $from = 1_000_000 * $seed;
		# one payment per transaction, until the server goes
		my $script = $node->basedir . '/burst.sql';
		unlink $script;
		append_to_file($script, join('', map { payments($from + $_, 1) . "\n" } 0 .. 1999));
		my $err = '';
		my $psql = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-f', $script ],
			'<', \undef, '2>', \$err);
		my $wanted = 1 + ($seed * 7919) % 300;

		wait_until($node, "SELECT count(*) >= $wanted FROM payments WHERE payment_id >= $from");
		$node->stop('immediate');
		$psql->finish;
		$node->start;
		$lost++ if $node->safe_psql('postgres', "SELECT count(*) FROM payments WHERE payment_id >= $from") < $wanted;
	}
	is($lost, 0, "committed rows outlive $rounds immediate shutdowns");
	exact("F3 immediate shutdown during a burst, $rounds times: committed rows are events are decisions");
}

# F4
{
	my $pid = stop_worker($node, 'postgres');
	insert(500);
	is($node->safe_psql('postgres', q{SELECT risk_alert.drain('30 seconds')}), 'f',
		'F4 the worker stands still (SIGSTOP) for half a minute: drain() gives up after its timeout, users go on');
	is(worker_pid($node, 'postgres'), $pid, 'F4 no second worker is started beside it');
	kill('CONT', $pid);
	exact('F4 it goes on (SIGCONT): no alert is missing, none is doubled');

	$pid = stop_worker($node, 'postgres');
	insert(500);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	kill('CONT', $pid);
	isnt(wait_for_worker($node, 'postgres', $pid), '', 'F4 terminated while it stood still: replaced as soon as it runs');
	exact('F4 and exact again');
}

# F5
my $soonest;
foreach my $round (1 .. 3)
{
	my $pid = wait_for_worker($node, 'postgres');

	insert(2000);
	my $asked = $node->safe_psql('postgres', "SELECT clock_timestamp() FROM pg_terminate_backend($pid)");
	isnt(wait_for_worker($node, 'postgres', $pid), '', 'F5 pg_terminate_backend: a new worker comes');
	my $away = $node->safe_psql('postgres', "SELECT extract(epoch FROM started_at - '$asked') FROM risk_alert.stat_workers WHERE database = 'postgres'");
	$soonest = $away if !defined $soonest || $away < $soonest;
}
# (any pause would be of a second at least; of three times, as the machine may be busy)
cmp_ok($soonest, '<', 1, 'F5 pg_terminate_backend: there is no pause before it');
exact('F5 pg_terminate_backend: alerts are exact');
{
	my $pid = wait_for_worker($node, 'postgres');

	foreach my $round (1 .. 5)
	{
		insert(500);
		$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	}
	exact('F5 pg_cancel_backend in mid batch: no event is lost');
	isnt(wait_for_worker($node, 'postgres'), '', 'F5 pg_cancel_backend: a worker runs afterwards');
}

is($node->safe_psql('postgres', q{
SELECT count(*) FROM (SELECT stream, event_key FROM risk_alert.alert GROUP BY 1, 2 HAVING count(*) > 1) a}),
	0, 'no event has two alerts');
is($node->safe_psql('postgres', 'SELECT sum(events) = (SELECT count(*) FROM risk_alert.alert_event) FROM risk_alert.alert'),
	't', 'every scored event belongs to one alert');
# vacuum must find tables that it can handle, whatever crashed
$node->safe_psql('postgres', 'VACUUM');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed but what was killed');

$node->stop;
done_testing();
