# The life of launcher and workers: databases and the extension come and go,
# settings of the site, timeouts; what an administrator does at a worker's back.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes;

my $node = new_node('life', extension => 0);

# how often a line of the log matches
sub logged
{
	my ($pattern) = @_;
	return scalar(() = slurp_file($node->logfile) =~ /$pattern/g);
}

# One alert more, from a payment just made: the whole chain works
my $payment = 0;
sub works
{
	my ($claim, $db) = @_;
	$db //= 'postgres';
	$payment++;
	$node->safe_psql($db, "INSERT INTO payments VALUES ($payment, 1, 5000, timestamptz '2026-01-01Z' + $payment * interval '1 day')");
	drain($node, $db);
	is($node->safe_psql($db, "SELECT count(*) FROM risk_alert.alerts WHERE event_key = '$payment'"), 1, $claim);
	return;
}

# A database that comes later, with the extension, has its worker: the launcher
# has looked at the others by then
sub launcher_has_looked
{
	$node->safe_psql('postgres', 'CREATE DATABASE later');
	$node->safe_psql('later', 'CREATE EXTENSION risk_alert');
	wait_for_worker($node, 'later') or die 'no worker';
	$node->safe_psql('postgres', 'DROP DATABASE later');
	return;
}

# A database without the extension has no worker; CREATE EXTENSION brings it
launcher_has_looked();
is(worker_pid($node), '', 'no extension, no worker');
$node->safe_psql('postgres', 'CREATE EXTENSION risk_alert');
isnt(wait_for_worker($node), '', 'CREATE EXTENSION: the worker comes by itself');
create_payments($node);
works('and does its work');

# CREATE EXTENSION that is rolled back, or fails half-way
$node->safe_psql('postgres', 'CREATE DATABASE undecided');
$node->safe_psql('undecided', 'BEGIN; CREATE EXTENSION risk_alert; ROLLBACK');
is($node->safe_psql('undecided', q{SELECT to_regnamespace('risk_alert') IS NULL}), 't', 'CREATE EXTENSION can be rolled back');
$node->safe_psql('undecided', 'CREATE EXTENSION risk_alert');
create_payments($node, 'undecided');
works('... and done again; two databases, two workers', 'undecided');
$node->safe_psql('postgres', 'DROP DATABASE undecided');

# A schema of that name is not the extension
$node->safe_psql('postgres', 'CREATE DATABASE decoy');
$node->safe_psql('decoy', 'CREATE SCHEMA risk_alert; CREATE TABLE risk_alert.queue_0 (x int)');
is($node->psql('decoy', 'CREATE EXTENSION risk_alert'), 3, 'CREATE EXTENSION refuses a schema that is there already');
launcher_has_looked();
is(worker_pid($node, 'decoy'), '', 'a schema of the same name brings no worker');
$node->safe_psql('postgres', 'DROP DATABASE decoy');

# Restart of the server
$node->restart;
works('after a restart of the server the workers are back');

# Idle: launcher and worker sleep, also when transactions are open that have
# events.  (Time that goes by is what is tested here.)
foreach my $state ('idle', 'idle beside open transactions')
{
	my $session;

	if ($state ne 'idle')
	{
		$session = $node->background_psql('postgres');
		$session->query_safe(q{BEGIN; INSERT INTO payments VALUES (-1, 1, 1, '2020-01-01Z')});
		$node->safe_psql('postgres', q{BEGIN; INSERT INTO payments VALUES (-2, 1, 1, '2020-01-01Z'); PREPARE TRANSACTION 'idle'});
		# they are not alone in the queue
		works('other events than those of open transactions are scored');
	}
	my $wakeups = q{SELECT wakeups FROM risk_alert.stat_workers WHERE database = current_database()};
	my %pid = (worker => wait_for_worker($node),
		launcher => $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'risk_alert launcher'}));
	# how often a process went to sleep, as the system counts it
	my $sleeps = sub {
		my ($of) = @_;
		return slurp_file("/proc/$pid{$of}/status") =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : die "no count for the $of";
	};
	# progress is written within a second
	wait_until($node, q{SELECT queued = 0 FROM risk_alert.stat_streams});
	my $before = $node->safe_psql('postgres', $wakeups);
	my $start = Time::HiRes::time();

	like($before, qr/^\d+$/, 'stat_workers shows how often a worker wakes up');
	my %before = -r '/proc/self/status' ? map { $_ => $sleeps->($_) } sort keys %pid : ();
	Time::HiRes::sleep(5);
	my %after = map { $_ => $sleeps->($_) } sort keys %before;
	my $most = int(Time::HiRes::time() - $start) + 2;
	cmp_ok($node->safe_psql('postgres', $wakeups) - $before, '<=', $most, "$state: a worker wakes up at most once a second");
  SKIP:
	{
		skip 'no /proc', 2 unless %before;
		cmp_ok($after{$_} - $before{$_}, '<=', $most, "$state: nor is the $_ seen to run more often") foreach sort keys %before;
	}
	if ($state eq 'idle')
	{
		# a prepared transaction without events leaves it alone, one with events does not
		$before = $node->safe_psql('postgres', $wakeups);
		$start = Time::HiRes::time();
		$node->safe_psql('postgres', "CREATE TABLE other (x int);\n" . "BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'other'; COMMIT PREPARED 'other';\n" x 100);
		cmp_ok($node->safe_psql('postgres', $wakeups) - $before, '<=', int(Time::HiRes::time() - $start) + 2,
			'COMMIT PREPARED of a transaction without events wakes no worker');
		my $woken = 0;
		foreach my $try (1 .. 10)
		{
			my $now;
			$node->safe_psql('postgres', "BEGIN; INSERT INTO payments VALUES (-100 - $try, 1, 1, '2020-01-01Z'); PREPARE TRANSACTION 'events'");
			wait_until($node, q{SELECT risk_alert.drain()});
			# until it sleeps for a second
			do
			{
				$before = $node->safe_psql('postgres', $wakeups);
				Time::HiRes::sleep(0.3);
				$now = $node->safe_psql('postgres', $wakeups);
			} while ($now ne $before);
			$node->safe_psql('postgres', q{COMMIT PREPARED 'events'});
			$woken++ if $node->safe_psql('postgres', $wakeups) > $before;
		}
		cmp_ok($woken, '>', 5, 'that of one with events does');
		wait_until($node, q{SELECT queued = 0 FROM risk_alert.stat_streams});
	}
	if ($session)
	{
		$session->query_safe('ROLLBACK');
		$session->quit;
		$node->safe_psql('postgres', q{ROLLBACK PREPARED 'idle'});
	}
}

# F6
$node->append_conf('postgresql.conf', q{
statement_timeout = 50ms
lock_timeout = 10ms
idle_in_transaction_session_timeout = 10ms
idle_session_timeout = 20ms
risk_alert.rule_timeout = 500ms
});
$node->reload;
wait_until($node, q{SELECT current_setting('statement_timeout') = '50ms'});
{
	# not in sessions of ours
	local $ENV{PGOPTIONS} = join(' ', map { "-c $_=0" } qw(statement_timeout lock_timeout idle_in_transaction_session_timeout idle_session_timeout));
	my $pid = wait_for_worker($node);

	$node->safe_psql('postgres', q{INSERT INTO payments
SELECT 100000 + g, g % 100, CASE WHEN g % 1000 = 0 THEN 2000 ELSE 1 END, timestamptz '2025-01-01Z' + g * interval '2 h' FROM generate_series(1, 20000) g;
SELECT risk_alert.drain('60 s')});
	is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alerts WHERE event_key::int > 100000}), 20,
		'F6 timeouts set for the whole server do not cut a batch short');
	is(worker_pid($node), $pid, 'F6 nor end the worker');
	is(logged(qr/risk_alert.*(?:statement|lock|idle).*timeout/), 0, 'F6 nor fill the log');

	# a rule that takes longer than the server lets statements take, and one that takes longer than rules may
	$node->safe_psql('postgres', q{
CREATE FUNCTION takes(milliseconds numeric) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_sleep(milliseconds / 1000); RETURN true; END $$;
SELECT risk_alert.create_rule('payments', 'slow', 'CASE WHEN amount = 3 THEN takes(amount * 50) END', points => 100);
SELECT risk_alert.create_rule('payments', 'slower', 'CASE WHEN amount = 4 THEN takes(amount * 5000) END', points => 100);
INSERT INTO payments SELECT 250000 + g, 1, g, timestamptz '2030-01-01Z' + g * interval '2 h' FROM generate_series(3, 5) g;
SELECT risk_alert.drain('60 s')});
	is($node->safe_psql('postgres', q{SELECT event_key, rules FROM risk_alert.alerts WHERE event_key > '250000' AND length(event_key) = 6}), '250003|{slow}',
		'F6 a rule may take longer than statement_timeout, within rule_timeout');
	like($node->safe_psql('postgres', q{SELECT last_error FROM risk_alert.stat_rules WHERE rule = 'slower'}), qr/rule_timeout/,
		'F6 and not longer than that');
	is($node->safe_psql('postgres', q{SELECT processed FROM risk_alert.stat_streams WHERE stream = 'payments'}) >= 20003, 1,
		'F6 what comes behind it is scored');
	is(worker_pid($node), $pid, 'F6 by the same worker');
	$node->safe_psql('postgres', q{SELECT risk_alert.drop_rule('payments', r) FROM unnest('{slow,slower}'::text[]) r});
}
$node->append_conf('postgresql.conf', q{
statement_timeout = 0
lock_timeout = 0
idle_in_transaction_session_timeout = 0
idle_session_timeout = 0
risk_alert.rule_timeout = 100ms
});
$node->reload;
wait_until($node, q{SELECT current_setting('idle_session_timeout') = '0'});

# F6 A lock on a table the worker needs: it waits or comes back, and goes on afterwards
{
	my $locker = $node->background_psql('postgres');
	$locker->query_safe('BEGIN; LOCK TABLE risk_alert.alert IN ACCESS EXCLUSIVE MODE');
	$node->safe_psql('postgres', q{INSERT INTO payments VALUES (200001, 1, 5000, '2024-01-01Z')});
	is($node->safe_psql('postgres', q{SELECT risk_alert.drain('1 second')}), 'f', 'F6 somebody locks the alerts: the worker waits');
	$locker->query_safe('COMMIT');
	$locker->quit;
	drain($node);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alerts WHERE event_key = '200001'}), 1,
		'F6 the lock is gone: the alert is raised');
}

# Settings of a database must not change a decision or stop the worker
{
	my @hostile = ('default_transaction_read_only = on', "search_path = 'nowhere'", 'row_security = off', 'DateStyle = German',
		'IntervalStyle = sql_standard', "TimeZone = 'Pacific/Apia'", 'extra_float_digits = -15', 'bytea_output = escape',
		"lc_messages = 'C'", 'standard_conforming_strings = off', 'default_transaction_isolation = serializable',
		'default_transaction_deferrable = on', "work_mem = '64kB'", 'enable_indexscan = off', 'enable_seqscan = off',
		'client_encoding = LATIN1', 'quote_all_identifiers = on', 'transform_null_equals = on', 'synchronous_commit = off',
		'vacuum_cost_delay = 10', "default_tablespace = ''", 'session_replication_role = replica', 'check_function_bodies = off',
		"temp_tablespaces = ''", 'array_nulls = off', 'escape_string_warning = off', 'jit = on', 'jit_above_cost = 0');

	$node->safe_psql('postgres', 'CREATE DATABASE hostile');
	$node->safe_psql('hostile', 'CREATE EXTENSION risk_alert');
	create_payments($node, 'hostile');
	$node->safe_psql('hostile', q{SELECT risk_alert.create_rule('payments', 'dated',
		'created_at::text = ''2026-03-04 05:06:07+00'' AND amount::text = ''12.50'' AND (created_at - timestamptz ''2026-01-01Z'')::text = ''62 days 05:06:07''',
		points => 100, reason => 'at {created_at}')});
	$node->safe_psql('postgres', "ALTER DATABASE hostile SET $_") foreach @hostile;
	my $old = worker_pid($node, 'hostile');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($old)") if $old;
	wait_for_worker($node, 'hostile', $old);
	$node->safe_psql('hostile', q{SET session_replication_role = origin; SET default_transaction_read_only = off;
SET transaction_isolation = 'read committed'; SET standard_conforming_strings = on;
INSERT INTO public.payments VALUES (1, 1, 12.50, '2026-03-04 05:06:07Z'), (2, 1, 5000, '2026-03-04 05:06:08Z')});
	$node->safe_psql('hostile', 'SET default_transaction_read_only = off; SELECT risk_alert.drain()');
	is($node->safe_psql('hostile', q{SELECT event_key, score, reasons->0->>'text' FROM risk_alert.alerts ORDER BY 1}),
		"1|100|at 2026-03-04 05:06:07+00\n2|60|large",
		'ALTER DATABASE SET of whatever it may be changes no decision and does not stop the worker');
	$node->safe_psql('postgres', 'DROP DATABASE hostile');
}

# Who may stop a worker
$node->safe_psql('postgres', 'CREATE ROLE operator LOGIN; GRANT pg_signal_backend TO operator');
{
	my $pid = wait_for_worker($node);
	my ($rc, $out, $err) = $node->psql('postgres', "SELECT pg_terminate_backend($pid)", extra_params => [ '-U', 'operator' ]);
	like($err, qr/permission denied|must be a superuser/, 'pg_signal_backend is not enough to stop a worker');
}

# F9
my $drop_notices = 'SET client_min_messages = warning;';
{
	my ($rc, $out, $err) = $node->psql('postgres', 'DROP EXTENSION risk_alert');
	isnt($rc, 0, 'F9 DROP EXTENSION is refused while triggers depend on it');
	like($err, qr/HINT:.*CASCADE/s, 'F9 with a hint');

	my $pid = stop_worker($node);
	$node->safe_psql('postgres', q{INSERT INTO payments SELECT 300000 + g, g, 5000, '2026-01-01Z' FROM generate_series(1, 20000) g});
	kill('CONT', $pid);
	$node->safe_psql('postgres', "$drop_notices DROP EXTENSION risk_alert CASCADE");
	is($node->psql('postgres', q{INSERT INTO payments VALUES (400000, 1, 5000, '2026-01-01Z')}), 0,
		'F9 DROP EXTENSION CASCADE in mid batch: the tables stay usable');
	wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'risk_alert worker' AND datname = 'postgres'});
	ok(1, 'F9 the worker goes away');
	$node->safe_psql('postgres', 'DROP TABLE payments; CREATE EXTENSION risk_alert');
	create_payments($node);
	works('F9 CREATE EXTENSION again: all works, the old events are gone');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.alerts'), 1, 'F9 ... all of them');

	$node->safe_psql('postgres', q{INSERT INTO payments SELECT 300000 + g, g, 5000, '2026-01-01Z' FROM generate_series(1, 20000) g});
	$node->safe_psql('postgres', "$drop_notices BEGIN; DROP EXTENSION risk_alert CASCADE; DROP TABLE payments; CREATE EXTENSION risk_alert; COMMIT");
	create_payments($node);
	works('F9 dropped and created in one transaction, mid batch: all works');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.alerts'), 1, 'F9 with the new extension\'s events only');

	$node->safe_psql('postgres', "$drop_notices BEGIN; DROP EXTENSION risk_alert CASCADE; ROLLBACK");
	works('F9 a DROP EXTENSION that is rolled back changes nothing');
	cmp_ok(logged(qr/ERROR|FATAL/), '<', 40, 'F9 no loop of errors in the log');
}

# F10
{
	$node->safe_psql('postgres', 'CREATE DATABASE app');
	$node->safe_psql('app', 'CREATE EXTENSION risk_alert');
	create_payments($node, 'app');
	works('F10 a second database', 'app');

	is($node->psql('postgres', 'CREATE DATABASE copy TEMPLATE app'), 0, 'F10 CREATE DATABASE ... TEMPLATE of a database with a worker');
	isnt(wait_for_worker($node, 'copy'), '', 'F10 the copy gets a worker of its own');
	is($node->safe_psql('copy', 'SELECT count(*) FROM risk_alert.alerts'),
		$node->safe_psql('app', 'SELECT count(*) FROM risk_alert.alerts'), 'F10 which does not process the origin\'s events again');
	works('F10 but the copy\'s own', 'copy');
	works('F10 and the origin goes on', 'app');

	# a copy that is made while events wait: they are the origin's
	my $n = 50000;
	$node->safe_psql('app', qq{
INSERT INTO payments SELECT 700000 + g, g, 5000, '2026-01-01Z' FROM generate_series(1, $n) g;
\\c postgres
CREATE DATABASE early TEMPLATE app;});
	wait_for_worker($node, 'early');
	drain($node, 'early');
	drain($node, 'app');
	my $alerts = q{SELECT count(*) FROM risk_alert.alerts WHERE event_key::int > 700000};
	is($node->safe_psql('app', $alerts), $n, 'F10 a copy is made while events wait: the origin raises their alerts');
	cmp_ok($node->safe_psql('early', $alerts), '<', $n, 'F10 and the copy does not');
	is($node->safe_psql('early', q{SELECT queued FROM risk_alert.stat_streams}), 0, 'F10 where they do not wait either');
	works('F10 its own events it does', 'early');
	$node->safe_psql('postgres', 'DROP DATABASE early');

	is($node->psql('postgres', 'ALTER DATABASE app RENAME TO application'), 0, 'F10 ALTER DATABASE RENAME works');
	isnt(wait_for_worker($node, 'application'), '', 'F10 the worker is back under the new name');
	works('F10 and works', 'application');

	# (PostgreSQL itself gives up after five seconds)
	is($node->psql('copy', qq{
INSERT INTO payments SELECT 700000 + g, g, 5000, '2026-01-01Z' FROM generate_series(1, $n) g;
\\c postgres
DROP DATABASE copy;}, on_error_stop => 1), 0, 'F10 DROP DATABASE works, while its worker is busy');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'copy'}), 0, 'F10 it is gone');
	is($node->psql('postgres', 'DROP DATABASE application WITH (FORCE)'), 0, 'F10 DROP DATABASE ... WITH (FORCE) works');
	is($node->psql('postgres', 'DROP DATABASE application'), 3, 'F10 it is gone');
	works('F10 other databases are not disturbed');

	my $errors = logged(qr/FATAL.*(?:does not exist|application|copy)/);
	my $from = $node->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())');
	wait_until($node, "SELECT extract(epoch FROM clock_timestamp()) > $from + 3");
	cmp_ok(logged(qr/FATAL.*(?:does not exist|application|copy)/) - $errors, '<=', 0, 'F10 the log is not flooded');

	# refused for another reason: the worker must be back
	$node->safe_psql('postgres', 'CREATE DATABASE busy');
	$node->safe_psql('busy', 'CREATE EXTENSION risk_alert');
	create_payments($node, 'busy');
	my $session = $node->background_psql('busy');
	my ($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE busy');
	like($err, qr/being accessed by other users/, 'F10 DROP DATABASE is refused while a user is connected');
	$session->quit;
	works('F10 and the worker is back after the refusal', 'busy');
	$node->psql('postgres', 'BEGIN; DROP DATABASE busy');
	works('F10 nor is it lost by a DROP DATABASE that can\'t be', 'busy');
	$node->safe_psql('postgres', 'DROP DATABASE busy');
}

# The worker shows up for who looks after the server
like($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT backend_type, ',' ORDER BY backend_type) FROM pg_stat_activity WHERE backend_type ~ 'risk_alert'}),
	qr/risk_alert launcher.*risk_alert worker/, 'pg_stat_activity shows launcher and worker by their own types');

# The launcher comes back, too
{
	my $launcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'risk_alert launcher'};
	my $pid = $node->safe_psql('postgres', $launcher);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_until($node, "SELECT count(*) = 1 FROM ($launcher AND pid <> $pid) l");
	works('the launcher is terminated: it comes back, workers go on');
}

# Shutdown is not held up by a busy worker
{
	$node->safe_psql('postgres', q{INSERT INTO payments SELECT 500000 + g, g, 5000, '2026-01-01Z' FROM generate_series(1, 50000) g});
	$node->stop('fast');
	$node->start;
	drain($node);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alerts WHERE event_key::int > 500000}), 50000,
		'a fast shutdown in mid batch: the rest is done after the start');
}
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed');

$node->stop;
done_testing();
