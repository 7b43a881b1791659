# F26: the server's clock jumps, back by an hour and forth by ninety days.
# Windows follow event time; nothing may hang or expire because of the clock.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('clock', start => 0);
my $clock = $node->basedir . '/clock';
my $library = $node->basedir . '/clock_shim.so';

plan skip_all => 'no C compiler'
  if system('cc', '-shared', '-fPIC', '-O', '-Wall', '-o', $library, 'test/tap/clock_shim.c') != 0;

# Set the server's clock off by so many seconds, as of now
sub set_clock
{
	my ($offset) = @_;
	open(my $file, -e $clock ? '+<' : '>', $clock) or die "could not write \"$clock\": $!";
	binmode $file;
	syswrite($file, pack('q', $offset)) == 8 or die "could not write \"$clock\": $!";
	close $file;
	return;
}

my $hour = 3600;
my $day = 24 * $hour;

set_clock(0);
{
	local %ENV = (%ENV, $node->_get_env(), LD_PRELOAD => $library, CLOCK_OFFSET_FILE => $clock);
	my $rc = PostgreSQL::Test::Utils::system_log('pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start');
	BAIL_OUT('could not start the server with a clock of its own') if $rc != 0;
	$node->_update_pid(1);
}
$node->safe_psql('postgres', 'CREATE EXTENSION risk_alert');
create_payments($node);
$node->safe_psql('postgres', q{
SELECT risk_alert.create_list('blocked');
SELECT risk_alert.list_add('blocked', '9', expires => now() + interval '1 day');
SELECT risk_alert.create_rule('payments', 'blocked', 'in_list(''blocked'', card_id)', points => 100);});

my $id = 0;
# three payments of a new card, a fourth for which "velocity" fires
sub works
{
	my ($claim, $card, $offset) = @_;
	my $now = time;
	my $t = q{timestamptz '2026-05-05Z'};

	foreach my $i (1 .. 4)
	{
		$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + $i, $card, 10, $t + $i * interval '10 min')");
	}
	$id += 4;
	my $started = time;
	drain($node);
	is($node->safe_psql('postgres', qq{SELECT event_key, features->>'card_n', features->>'card_sum' FROM risk_alert.alerts WHERE event_key::int > $id - 4}),
		"$id|4|40.00", "F26 $claim: windows are those of event time");
	cmp_ok(time - $started, '<=', $PostgreSQL::Test::Utils::timeout_default, "F26 $claim: nothing hangs");
	is($node->safe_psql('postgres', qq{
SELECT extract(epoch FROM raised_at) - $now BETWEEN $offset - 60 AND $offset + 60 FROM risk_alert.alerts WHERE event_key = '$id'}), 't',
		"F26 $claim: so it is for the worker");
	return;
}

works('the clock is right', 1, 0);

# check_setup() tells for whom the worker waits, after a second, and that it is
# behind, after ten (before the clock goes back: events' arrival never does)
{
	my $findings = q{SELECT level, name, object, description, remediation FROM risk_alert.check_setup()
WHERE name IN ('worker', 'activity') AND level <> 'ok' ORDER BY name DESC};
	my $detail = q{SELECT detail FROM risk_alert.check_setup() WHERE name = 'worker'};
	my $behind = 'warning|activity|payments|the worker is behind|SELECT * FROM risk_alert.stat_rules ORDER BY total_time DESC, and look for features without an index.';
	my $waits = q{SELECT count(*) = 1 FROM pg_locks l JOIN risk_alert.stat_workers w USING (pid)
WHERE NOT granted AND waitstart IS NOT NULL AND relation = 'risk_alert.alert'::regclass};
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $what = 'the worker waits for a lock that another transaction holds';

	$session->query_safe('BEGIN; LOCK TABLE risk_alert.alert IN ACCESS EXCLUSIVE MODE');
	$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 9, 5000, '2026-05-05Z')");
	$id++;
	wait_until($node, $waits);
	set_clock(30);
	is($node->safe_psql('postgres', $findings),
		"warning|worker|postgres|$what|End its transaction, or SELECT pg_terminate_backend($pid)\n$behind",
		'check_setup(): a session keeps a table locked that the worker needs');
	like($node->safe_psql('postgres', $detail), qr/^It waits for risk_alert\.alert since [-0-9: +]+\. Process $pid holds it: user \S+, application "[^"]*", idle in transaction\.$/,
		'  which table, since when, and who');
	$session->query_safe(q{PREPARE TRANSACTION 'locker'});
	is($node->safe_psql('postgres', $findings),
		"warning|worker|postgres|$what|COMMIT PREPARED or ROLLBACK PREPARED; pg_prepared_xacts lists them\n$behind",
		'check_setup(): a prepared transaction does');
	like($node->safe_psql('postgres', $detail), qr/A prepared transaction holds it\.$/, '  as it says');
	$node->safe_psql('postgres', q{ROLLBACK PREPARED 'locker'});
	drain($node);
	is($node->safe_psql('postgres', $findings), '', 'check_setup(): the lock is gone, and nothing is left to tell of');
	$session->quit;
	set_clock(0);
}
set_clock(-$hour);
works('the clock is set back by an hour', 2, -$hour);
{
	my $pid = wait_for_worker($node);
	my $started = time;
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	isnt(wait_for_worker($node, 'postgres', $pid), '', 'F26 a worker that ends now comes back');
	cmp_ok(time - $started, '<=', $PostgreSQL::Test::Utils::timeout_default, 'F26 at once, not when the clock has caught up');
	works('after that', 3, -$hour);

	# the same for one that ended just before the clock is set back
	set_clock(0);
	$pid = wait_for_worker($node);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	set_clock(-2 * $hour);
	$started = time;
	isnt(wait_for_worker($node, 'postgres', $pid), '', 'F26 the clock is set back while the worker\'s restart is due: it comes back');
	cmp_ok(time - $started, '<=', $PostgreSQL::Test::Utils::timeout_default, 'F26 at once');
	works('after that, too', 4, -2 * $hour);
}
{
	my $pid = stop_worker($node);
	$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 77, 10, '2026-05-05Z')");
	$id++;
	is($node->safe_psql('postgres', q{SELECT queued, lag FROM risk_alert.stat_streams}), '1|00:00:00',
		'F26 an event waits that seems to come from the future: its lag is 0, not less');
	kill('CONT', $pid);
	drain($node);
}
{
	my ($rc, $out, $err) = $node->psql('postgres', q{SELECT risk_alert.drain('2 s')});
	is($out, 't', 'F26 drain() with a timeout works');
}

set_clock(90 * $day);
works('the clock is ninety days ahead', 5, 90 * $day);
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 1, 10, '2026-05-05 00:45Z')");
$id++;
drain($node);
is($node->safe_psql('postgres', qq{SELECT features->>'card_n' FROM risk_alert.alerts WHERE event_key = '$id'}), 5,
	'F26 ninety days ahead: no window has expired, it goes by event time');
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 9, 10, '2026-05-05Z')");
$id++;
drain($node);
is($node->safe_psql('postgres', qq{SELECT count(*) FROM risk_alert.alerts WHERE event_key = '$id'}), 0,
	'F26 ninety days ahead: an entry of a list has expired');
set_clock(0);
works('the clock is right again', 6, 0);
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 9, 10, '2026-05-05Z')");
$id++;
drain($node);
is($node->safe_psql('postgres', qq{SELECT count(*) FROM risk_alert.alerts WHERE event_key = '$id'}), 1,
	'F26 the clock is right again: the entry of the list holds again');

# order of arrival across the jumps: among equal times the later arrival sees the earlier
{
	my $now = time;
	my $finding = q{SELECT level, object, description FROM risk_alert.check_setup() WHERE name = 'clock' AND object = 'present'};

	$node->safe_psql('postgres', qq{
CREATE TABLE present (id int PRIMARY KEY, at timestamptz);
SELECT risk_alert.watch('present', event_time => 'at');
INSERT INTO present VALUES (1, to_timestamp($now))});
	drain($node);
	is($node->safe_psql('postgres', $finding), '', 'F26 check_setup() finds no fault with a right clock');
	set_clock(-$hour);
	is($node->safe_psql('postgres', $finding), 'warning|present|events come from the future', 'F26 and does with one that is an hour slow');
	$node->safe_psql('postgres', q{SELECT risk_alert.unwatch('present')});
}

set_clock(90 * $day);
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 7, 10, '2026-06-06Z')");
set_clock(-$hour);
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 2, 7, 5000, '2026-06-06Z')");
drain($node);
is($node->safe_psql('postgres', qq{SELECT features->>'card_n' FROM risk_alert.alerts WHERE event_key = ($id + 2)::text}), 2,
	'F26 events keep their order of arrival whatever the clock says');

# check_setup() tells of transactions that hold back their events, after a minute
# (prepared ones: after five)
{
	my $findings = q{SELECT level, name, object, description, remediation FROM risk_alert.check_setup() WHERE name ~ 'transaction' ORDER BY name};
	my $session = $node->background_psql('postgres');

	$node->safe_psql('postgres', "BEGIN; INSERT INTO payments VALUES ($id + 3, 8, 5000, '2026-07-07Z'); PREPARE TRANSACTION 'forgotten'");
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe("BEGIN; INSERT INTO payments VALUES ($id + 4, 8, 5000, '2026-07-07Z')");
	is($node->safe_psql('postgres', $findings), '', 'check_setup(): a transaction that has just begun is nothing to tell of');
	set_clock(-$hour + 61);
	my $long = "warning|long_transaction|process $pid|a transaction has written events and does not end|Commit it, or SELECT pg_terminate_backend($pid)";
	is($node->safe_psql('postgres', $findings), $long, 'check_setup(): a transaction that does not end');
	set_clock(-$hour + 301);
	is($node->safe_psql('postgres', $findings),
		"$long\nwarning|prepared_transaction|forgotten|a prepared transaction waits to be finished|COMMIT PREPARED 'forgotten' or ROLLBACK PREPARED 'forgotten'",
		'check_setup(): a prepared transaction that waits');
	like($node->safe_psql('postgres', q{SELECT detail FROM risk_alert.check_setup() WHERE name = 'long_transaction'}),
		qr/^User \S+, application "[^"]*", idle in transaction, began at /, '  with who and since when');

	# others are not held up, as it says; nor are these when they end
	$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 5, 8, 5000, '2026-07-07Z')");
	drain($node);
	my $alerted = "SELECT string_agg(((event_key::int) - $id)::text, ' ' ORDER BY event_key::int) FROM risk_alert.alert_event WHERE event_key::int > $id + 2";
	is($node->safe_psql('postgres', $alerted), '5', '  other events are scored meanwhile');
	$session->query_safe('COMMIT');
	$node->safe_psql('postgres', q{COMMIT PREPARED 'forgotten'});
	drain($node);
	is($node->safe_psql('postgres', $alerted), '3 4 5', '  and theirs when they end');
	is($node->safe_psql('postgres', $findings), '', 'check_setup(): nothing is left to tell of');
	$session->quit;
}
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed');

$node->stop;
done_testing();
