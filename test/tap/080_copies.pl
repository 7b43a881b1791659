# Rows that come by other ways than a user's statement: logical replication,
# its initial copy, pg_dump and restore, of data only and of the whole database;
# a standby.  And databases of other encodings and settings (F28).

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $origin = new_node('origin', init => { allows_streaming => 'logical' }, conf => "shared_buffers = 16MB\nmax_connections = 30\n");
create_payments($origin);
$origin->safe_psql('postgres', q{
CREATE PUBLICATION all_payments FOR TABLE payments;
INSERT INTO payments SELECT g, 1, 5000, timestamptz '2026-01-01Z' + g * interval '1 day' FROM generate_series(1, 3) g});
drain($origin);

my $alerted = q{SELECT string_agg(event_key, ' ' ORDER BY event_key::int) FROM risk_alert.alert_event};

# Logical replication: what was scored at its origin is not scored again, unless
# the subscriber asks for it with ENABLE ALWAYS
{
	my $subscriber = new_node('subscriber', conf => "shared_buffers = 16MB\nmax_connections = 30\n");
	create_payments($subscriber);
	my $connstr = $origin->connstr . ' dbname=postgres';
	my $count = q{SELECT count(*) FROM payments};

	$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION mirror CONNECTION '$connstr' PUBLICATION all_payments");
	wait_until($subscriber, $count, 3);
	$origin->safe_psql('postgres', q{INSERT INTO payments VALUES (4, 1, 5000, '2026-01-05Z')});
	wait_until($subscriber, $count, 4);
	drain($subscriber);
	is($subscriber->safe_psql('postgres', $alerted), '', 'logical replication: rows of a subscription (initial copy and changes) are not scored');

	# the subscriber's own rows see them in the windows all the same, as they
	# are in the table
	$subscriber->safe_psql('postgres', q{INSERT INTO payments VALUES (1001, 1, 1, '2026-01-05 00:30Z')});
	drain($subscriber);
	is($subscriber->safe_psql('postgres', q{
SELECT features->>'card_n' FROM risk_alert.risk_assess('payments', '{"payment_id": 0, "card_id": 1, "amount": 1, "created_at": "2026-01-05 00:31Z"}')}), 3,
		'but they are history for the subscriber\'s own');

	my $finding = q{SELECT level, object, description, remediation FROM risk_alert.check_setup() WHERE name = 'subscription'};
	is($subscriber->safe_psql('postgres', $finding),
		'warning|payments|rows that arrive by logical replication are not captured|ALTER TABLE public.payments ENABLE ALWAYS TRIGGER risk_alert_capture',
		'check_setup() tells, and how to have them scored');
	$subscriber->safe_psql('postgres', 'ALTER TABLE payments ENABLE ALWAYS TRIGGER risk_alert_capture');
	is($subscriber->safe_psql('postgres', $finding), '', '  and does so no longer');
	$origin->safe_psql('postgres', q{INSERT INTO payments SELECT 10 + g, 2, 5000, timestamptz '2026-01-01Z' + g * interval '5 minutes' FROM generate_series(1, 5) g});
	wait_until($subscriber, q{SELECT count(*) = 5 FROM risk_alert.alert_event});
	is($subscriber->safe_psql('postgres', $alerted), '11 12 13 14 15', 'with ENABLE ALWAYS they are');
	# only now: a row that is updated before the worker has come to it is scored as it was updated
	$origin->safe_psql('postgres', q{UPDATE payments SET amount = 7 WHERE payment_id = 11; DELETE FROM payments WHERE payment_id = 12});
	wait_until($subscriber, q{SELECT count(*) = 0 FROM payments WHERE payment_id = 12});
	drain($subscriber);
	is($subscriber->safe_psql('postgres', q{
SELECT features->>'card_n', features->>'card_sum'
FROM risk_alert.risk_assess('payments', '{"payment_id": 0, "card_id": 2, "amount": 1, "created_at": "2026-01-01 00:30Z"}')}), '5|15008.00',
		'and their changes correct the windows');
	$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION mirror');
	$subscriber->stop;
}
drain($origin);

# pg_dump --data-only into a watched table: its rows are new rows there
my $dump = $origin->basedir . '/payments.sql';
{
	$origin->safe_psql('postgres', 'CREATE DATABASE data_only');
	$origin->safe_psql('data_only', 'CREATE EXTENSION risk_alert');
	create_payments($origin, 'data_only');
	$origin->command_ok([ 'pg_dump', '--data-only', '-t', 'payments', '-f', $dump, $origin->connstr('postgres') ], 'pg_dump --data-only');
	$origin->command_ok([ 'psql', '-Xqo', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $origin->connstr('data_only'), '-f', $dump ], 'restored into a watched table');
	drain($origin, 'data_only');
	is($origin->safe_psql('data_only', $alerted), '1 2 3 4 13 14 15', 'data-only restore: the restored rows are scored, as any new row');
	$origin->safe_psql('postgres', 'DROP DATABASE data_only');
}

# The whole database: rules and alerts come along, the old rows are not scored again
{
	# a rule of a role that is gone: its number may be another role's elsewhere
	$origin->safe_psql('postgres', q{
CREATE ROLE alice IN ROLE risk_alert_admin;
GRANT SELECT ON payments TO alice;
SET ROLE alice;
SELECT risk_alert.create_rule('payments', 'of_alice', 'amount > 1');
RESET ROLE;
REVOKE ALL ON payments FROM alice;
DROP ROLE alice});
	$origin->command_ok([ 'pg_dump', '-f', $dump, $origin->connstr('postgres') ], 'pg_dump of the whole database');
	$origin->safe_psql('postgres', 'CREATE DATABASE restored');
	$origin->command_ok([ 'psql', '-Xqo', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $origin->connstr('restored'), '-f', $dump ], 'restored into an empty one');
	drain($origin, 'restored');
	foreach my $what ("SELECT rule, condition, points, status FROM risk_alert.rules ORDER BY 1", "SELECT feature, entity, aggregate, within FROM risk_alert.features ORDER BY 1",
		'SELECT alert_id, event_key, score, rules, reasons, features FROM risk_alert.alerts ORDER BY 1')
	{
		is($origin->safe_psql('restored', $what), $origin->safe_psql('postgres', $what), "  as in the original: $what");
	}
	is($origin->safe_psql('restored', q{SELECT owner, owner::oid FROM risk_alert.rule WHERE name = 'of_alice'}), '-|0', 'a dropped role\'s rule is nobody\'s');
	$origin->safe_psql('restored', q{SELECT risk_alert.alter_stream('payments')});
	$origin->safe_psql('restored', q{INSERT INTO payments VALUES (2001, 1, 1, '2026-01-05 00:30Z'), (2002, 1, 5000, '2026-01-05 00:31Z')});
	drain($origin, 'restored');
	is($origin->safe_psql('restored', q{SELECT event_key, score, features->>'card_n' FROM risk_alert.alerts WHERE event_key > '2'  AND event_key LIKE '200%'}), '2002|60|3',
		'new rows in the restored database are scored, with the restored ones as history');
	$origin->safe_psql('postgres', 'DROP DATABASE restored');
	$origin->safe_psql('postgres', q{SELECT risk_alert.drop_rule('payments', 'of_alice')});
}

# A standby: no worker, reading works, writing is refused; after promotion it goes on
{
	my $standby = PostgreSQL::Test::Cluster->new('standby');

	$origin->backup('base');
	$standby->init_from_backup($origin, 'base', has_streaming => 1);
	$standby->start;
	$origin->safe_psql('postgres', q{INSERT INTO payments VALUES (3001, 5, 5000, '2026-01-05Z')});
	drain($origin);
	$origin->wait_for_catchup($standby);
	is($standby->safe_psql('postgres', $alerted), $origin->safe_psql('postgres', $alerted), 'standby: alerts can be read');
	is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'risk_alert worker'}), 0, 'standby: no worker');
	is($standby->safe_psql('postgres', q{SELECT risk_alert.risk_score(p) FROM payments p WHERE payment_id = 3001}), 60, 'standby: risk_score() works');
	is($standby->safe_psql('postgres', q{SELECT level, object, description FROM risk_alert.check_setup() WHERE name = 'worker'}),
		'info|postgres|this server is a standby', 'standby: check_setup() works, and says what it is');
	my ($rc, $out, $err) = $standby->psql('postgres', q{\set VERBOSITY verbose
SELECT risk_alert.create_rule('payments', 'x', 'amount > 1')});
	like($err, qr/25006/, 'standby: what writes is refused');
	($rc, $out, $err) = $standby->psql('postgres', q{\set VERBOSITY verbose
SELECT risk_alert.drain()});
	like($err, qr/25006|55000/, 'standby: drain() says that there is nothing to wait for');

	# events that the origin's worker has not done when it goes
	my $pid = stop_worker($origin);
	$origin->safe_psql('postgres', q{INSERT INTO payments SELECT 3001 + g, 5, 5000, timestamptz '2026-01-05Z' + g * interval '1 min' FROM generate_series(1, 5) g});
	$origin->wait_for_catchup($standby);
	kill('CONT', $pid);
	$origin->stop('immediate');
	$standby->promote;
	isnt(wait_for_worker($standby), '', 'promoted: a worker comes');
	drain($standby);
	is($standby->safe_psql('postgres', q{SELECT event_key, score FROM risk_alert.alerts WHERE event_key::int BETWEEN 3001 AND 3006 ORDER BY 1}),
		"3001|60\n3002|60\n3003|60\n3004|100\n3005|100\n3006|100", 'promoted: the rest is scored, each once');
	$standby->stop;
}

# F28: the same decisions whatever the encoding and the settings
{
	# a locale with other ways to write numbers, money and dates
	my $locales = PostgreSQL::Test::Utils::tempdir;
	my $german = system('localedef', '-i', 'de_DE', '-f', 'UTF-8', "$locales/de_DE.UTF-8") == 0;
	local $ENV{LOCPATH} = $locales if $german;
	my $node = new_node('encodings', conf => "max_worker_processes = 20\n");
	my %first;

	ok($german, 'F28 there is a German locale') or diag('localedef failed: install package "locales"');

	foreach my $encoding ('UTF8', 'SQL_ASCII', 'LATIN1', 'EUC_JP')
	{
		my $db = 'db_' . lc $encoding;
		# a word that each of them can hold, as its own bytes
		my $name = { UTF8 => "caf\xc3\xa9", SQL_ASCII => "caf\xe9", LATIN1 => "caf\xe9", EUC_JP => "\xc6\xfc\xcb\xdc" }->{$encoding};

		$node->safe_psql('postgres', "CREATE DATABASE $db ENCODING '$encoding' TEMPLATE template0 LOCALE 'C'");
		$node->safe_psql('postgres', "ALTER DATABASE $db SET datestyle = 'German'; ALTER DATABASE $db SET timezone = 'Asia/Tokyo'")
		  if $encoding ne 'UTF8';
		my ($out, $err) = ('', '');
		my $sql = qq{
SET client_encoding = '$encoding'; SET datestyle = 'ISO'; SET timezone = 'UTC';
CREATE EXTENSION risk_alert;
CREATE TABLE pay (id text PRIMARY KEY, shop text, amount numeric, at timestamptz);
CREATE INDEX ON pay (shop, at);
SELECT risk_alert.watch('pay', 'at', suppress => '0');
SELECT risk_alert.create_feature('pay', 'n', 'shop', 'count(*)', '1 day');
SELECT risk_alert.create_feature('pay', 's', 'shop', 'sum(amount)', '1 day');
SELECT risk_alert.create_list('names');
SELECT risk_alert.list_add('names', '$name');
SELECT risk_alert.create_rule('pay', 'r', 'n > 1 AND in_list(''names'', shop) AND at::text < ''2026-01-01 12:00:00+00'' AND amount = 0.5', points => 60, reason => '{shop} {s} at {at}');
INSERT INTO pay VALUES ('$name 1', '$name', 0.5, '2026-01-01 10:00Z'), ('$name 2', '$name', 0.5, '2026-01-01 11:59Z'), ('$name 3', '$name', 0.5, '2026-01-01 12:00Z'), ('4', 'other', 0.5, '2026-01-01 10:00Z');
SELECT risk_alert.drain();
SELECT 'RESULT', replace(event_key, '$name', 'N'), replace(entity, '$name', 'N'), score, replace(reasons::text, '$name', 'N'), features FROM risk_alert.alerts ORDER BY 1;
};
		IPC::Run::run([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', '-' ], '<', \$sql, '>', \$out, '2>', \$err);
		is($err, '', "F28 $encoding: no error");
		my ($result) = join("\n", grep { /^RESULT/ } split /\n/, $out);
		$first{result} //= $result;
		is($result, $first{result}, "F28 $encoding: the same decision");
	}
	like($first{result}, qr/^RESULT\|N 2\|shop=N\|60\|/, 'F28 which is the right one');
	unlike($first{result}, qr/\n/, 'F28 and the only one');

	# Expressions that depend on how numbers, money, dates and times are read and
	# written, in databases with different settings: features, conditions, reasons
	my $stream = q{
CREATE TABLE pay (id int PRIMARY KEY, shop text, amount numeric, price money, day date, at timestamptz, took interval, raw bytea);
CREATE INDEX ON pay (shop, at);
SELECT risk_alert.watch('pay', 'at', suppress => '0');
SELECT risk_alert.create_feature('pay', 'days', 'shop', 'count(DISTINCT day)', '1 day');
SELECT risk_alert.create_feature('pay', 'total', 'shop', 'sum(amount)', '1 day', filter => 'day > ''2026-03-01''');
SELECT risk_alert.create_feature('pay', 'last_day', 'shop', 'lag(day)', '1 day');
SELECT risk_alert.create_rule('pay', 'all', 'days > 0', points => 50, reason => '{shop} {amount} {price} {day} {at} {took} {raw} {total} {last_day}');
SELECT risk_alert.create_rule('pay', 'number', 'to_char(amount, ''9G999D99'') = '' 1,234.50''', points => 1);
SELECT risk_alert.create_rule('pay', 'number read', 'to_number(''1,234.50'', ''9G999D99'') = amount', points => 2);
SELECT risk_alert.create_rule('pay', 'money', 'price::text = ''$1,234.50'' AND price = ''1234.50''::text::money', points => 4);
SELECT risk_alert.create_rule('pay', 'month', 'to_char(day, ''TMMonth'') = ''March''', points => 8);
SELECT risk_alert.create_rule('pay', 'date', 'day::text = ''2026-03-02'' AND last_day::text = ''2026-03-01''', points => 16);
SELECT risk_alert.create_rule('pay', 'hour', 'extract(hour FROM at) = 23 AND at::date = day', points => 19);
};
	my $rows = q{
INSERT INTO pay VALUES (1, 's', 1.5, 99.5::numeric::money, '2026-03-01', '2026-03-02 22:59Z', '-1 day 02:03:04', '\x00ff'),
	(2, 's', 1234.50, 1234.50::numeric::money, '2026-03-02', '2026-03-02 23:30Z', '1 year 2 mons', '\x61'),
	(3, 's', -0.000001, 0::numeric::money, '0044-03-15 BC', '2026-03-03 00:30Z', '00:00:00.000001', '');
SELECT risk_alert.drain();
};
	my $shown = q{SELECT event_key, score, entity, reasons, features FROM risk_alert.alerts ORDER BY event_key};
	my %seen;
	foreach my $settings (
		[ 'plain', 'UTC' ],
		[ 'german', 'Asia/Tokyo', ($german ? map { "lc_$_ = 'de_DE.UTF-8'" } qw(numeric monetary time messages) : ()), 'DateStyle = German', 'IntervalStyle = iso_8601' ],
		[ 'american', 'America/Los_Angeles', "DateStyle = 'SQL, MDY'", 'IntervalStyle = postgres_verbose', 'bytea_output = escape' ],
		[ 'apian', 'Pacific/Apia', "DateStyle = 'Postgres, DMY'", 'extra_float_digits = -10' ])
	{
		my ($name, $zone, @set) = @$settings;

		$node->safe_psql('postgres', "CREATE DATABASE settings_$name");
		$node->safe_psql('postgres', "ALTER DATABASE settings_$name SET $_") foreach "TimeZone = '$zone'", @set;
		$node->safe_psql("settings_$name", "CREATE EXTENSION risk_alert; $stream");
		# a session's own settings say how its literals are read, and nothing else
		$node->safe_psql("settings_$name", "SET DateStyle = ISO; $rows");
		$seen{$name} = $node->safe_psql("settings_$name", $shown);
		is($seen{$name}, $seen{plain}, "F28 settings of database \"$name\": the same decisions");
		is($node->safe_psql("settings_$name", q{SELECT p.id, r.score, r.reasons, r.features FROM pay p, risk_alert.risk_assess(p) r ORDER BY p.id}),
			$node->safe_psql('settings_plain', q{SELECT event_key, score, reasons, features FROM risk_alert.alerts ORDER BY event_key}), '  and for risk_assess()');
	}
	is($node->safe_psql('settings_german', q{SELECT to_char(1234.5, '9G999D99')}), ' 1.234,50', 'F28 though numbers look different in a session') if $german;
	like($seen{plain}, qr/^2\|100\|/m, 'F28 which are the right ones') or diag($seen{plain});
	$node->stop;
}

done_testing();
