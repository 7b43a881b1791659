# What goes wrong at installation, and whether we say so.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

# F37
my $node = new_node('setup', extension => 0, start => 0);
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
{
	my ($rc, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION risk_alert');
	like($err, qr/ERROR.*HINT:.*shared_preload_libraries = 'risk_alert'/s, 'F37 CREATE EXTENSION without preloading is refused, the hint says what to do');
}
# Preloaded, then no longer: somebody has edited the setting
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'risk_alert'");
$node->restart;
$node->safe_psql('postgres', 'CREATE EXTENSION risk_alert');
create_payments($node);
is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.check_setup() WHERE level = 'error'}), 0,
	'preloaded: check_setup() finds no error');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
{
	my ($rc, $out, $err);

	is($node->psql('postgres', q{INSERT INTO payments VALUES (1, 1, 5000, '2026-01-01Z')}), 0,
		'F37 no longer preloaded: a watched table takes rows all the same');
	($rc, $out, $err) = $node->psql('postgres', q{SELECT risk_alert.drain()});
	like($err, qr/ERROR.*risk_alert.*HINT.*shared_preload_libraries/s, 'F37 drain() cannot work, and its hint says why');
	like($node->safe_psql('postgres', q{SELECT string_agg(concat_ws(' ', level, name, remediation), ';') FROM risk_alert.check_setup() WHERE level = 'error'}),
		qr/shared_preload_libraries/, 'F37 check_setup() says so, too');
	($rc, $out, $err) = $node->psql('postgres', q{CREATE TABLE more (id int PRIMARY KEY, at timestamptz);
SELECT risk_alert.watch('more', event_time => 'at')});
	like($err, qr/shared_preload_libraries/, 'F37 so does watch()');
}
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'risk_alert'");
$node->restart;
drain($node);
is($node->safe_psql('postgres', q{SELECT event_key, score FROM risk_alert.alerts}), '1|60',
	'F37 preloaded again: what was captured meanwhile is scored');
$node->safe_psql('postgres', q{SET client_min_messages = warning;
SELECT risk_alert.unwatch(stream) FROM risk_alert.streams; DROP TABLE payments; DELETE FROM risk_alert.alert});

# LOAD is not preloading
{
	my ($rc, $out, $err) = $node->psql('postgres', q{ALTER SYSTEM SET "risk_alert.no_such_setting" = 1});
	like($err, qr/risk_alert.no_such_setting/, 'unknown settings under our prefix are refused');
}

# F36: the library on disk is of another version than the SQL objects
create_payments($node);
foreach my $version ('0.0.1', '99')
{
	$node->safe_psql('postgres', "UPDATE pg_extension SET extversion = '$version' WHERE extname = 'risk_alert'");
	my ($rc, $out, $err) = $node->psql('postgres', q{SELECT risk_alert.drain('5 s')});
	like($err, qr/ERROR.*HINT.*ALTER EXTENSION risk_alert UPDATE/s, "F36 SQL objects of version $version: an error that names ALTER EXTENSION UPDATE");
	is($node->psql('postgres', "INSERT INTO payments VALUES ((SELECT count(*) + 1 FROM payments), 1, 5000, '2026-01-01Z')"), 0, 'F36 users are not disturbed');
	like($node->safe_psql('postgres', q{SELECT string_agg(concat_ws(' ', level, name, remediation), ';') FROM risk_alert.check_setup() WHERE level = 'error'}),
		qr/ALTER EXTENSION risk_alert UPDATE/, 'F36 check_setup() reports it');
}
$node->safe_psql('postgres', q{UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'risk_alert') WHERE extname = 'risk_alert'});
drain($node);
is($node->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.alerts'), 2, 'F36 versions agree again: what waited is scored');

# A function of the SQL script that the library lacks (an old library)
{
	$node->safe_psql('postgres', q{UPDATE pg_proc SET prosrc = 'ra_of_the_future' WHERE oid = 'risk_alert.drain'::regproc});
	my ($rc, $out, $err) = $node->psql('postgres', 'SELECT risk_alert.drain()');
	like($err, qr/could not find function/, 'F36 a function that the library lacks is an error, not a crash');
}
$node->stop;

# F34
$node = new_node('slots', extension => 0, conf => "max_worker_processes = 2\n");
foreach my $db ('a', 'b', 'c')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION risk_alert');
	create_payments($node, $db);
	is($node->psql($db, "INSERT INTO payments VALUES (1, 1, 5000, '2026-01-01Z')"), 0, "F34 no free worker slot: database $db takes rows all the same");
}
ok($node->wait_for_log(qr/WARNING:.*worker.*HINT:.*max_worker_processes/s), 'F34 the log warns, with a hint');
like($node->safe_psql('a', q{SELECT string_agg(concat_ws(' ', level, name, description, detail, remediation), ';') FROM risk_alert.check_setup() WHERE level IN ('error', 'warning')}),
	qr/max_worker_processes/, 'F34 check_setup() says what to do');
{
	my $from = $node->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())');
	wait_until($node, "SELECT extract(epoch FROM clock_timestamp()) > $from + 4");
	my $warnings = () = slurp_file($node->logfile) =~ /WARNING:/g;
	cmp_ok($warnings, '<=', 4, 'F34 the log is not filled with it');
}
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
foreach my $db ('a', 'b', 'c')
{
	drain($node, $db);
	is($node->safe_psql($db, 'SELECT count(*) FROM risk_alert.alerts'), 1, "F34 with more slots, what waited in $db is scored");
}

# ... and a server without any room for workers
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
is($node->psql('a', "INSERT INTO payments VALUES (2, 1, 5000, '2026-01-01Z')"), 0, 'F34 max_worker_processes = 0: the server starts and takes rows');
like($node->safe_psql('a', q{SELECT string_agg(concat_ws(' ', level, name, description, detail, remediation), ';') FROM risk_alert.check_setup() WHERE level = 'error'}),
	qr/max_worker_processes/, 'F34 check_setup() says that nothing will happen');
is($node->safe_psql('a', q{SELECT level, description, detail FROM risk_alert.check_setup() WHERE name = 'activity'}),
	'error|events are captured but not processed|1 events wait; state: worker waiting.', 'F34 and that an event waits');
{
	my ($rc, $out, $err) = $node->psql('a', q{SELECT risk_alert.drain('2 s')});
	ok($rc != 0 || $out eq 'f', 'F34 drain() does not pretend');
}

$node->stop;
done_testing();
