# Databases that come, go and change in other ways than those of F10: templates,
# databases closed to sessions, tablespaces, two-phase CREATE and DROP EXTENSION,
# and owners who are no superusers.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('databases', conf => "max_worker_processes = 20\n");

# One alert more, from a payment just made
my $payment = 0;
sub works
{
	my ($claim, $db) = @_;
	$payment++;
	$node->safe_psql($db, "INSERT INTO payments VALUES ($payment, 1, 5000, timestamptz '2026-01-01Z' + $payment * interval '1 day')");
	drain($node, $db);
	is($node->safe_psql($db, "SELECT count(*) FROM risk_alert.alerts WHERE event_key = '$payment'"), 1, $claim);
	return;
}

sub no_worker
{
	my ($claim, $db) = @_;
	ok(wait_until($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'risk_alert worker' AND datname = '$db'"), $claim);
	return;
}

# A launcher that has looked at all databases: it has seen one that came later
sub launcher_has_looked
{
	$node->safe_psql('postgres', 'CREATE DATABASE later TEMPLATE template0');
	$node->safe_psql('later', 'CREATE EXTENSION risk_alert');
	wait_for_worker($node, 'later') or die 'no worker';
	$node->safe_psql('postgres', 'DROP DATABASE later');
	return;
}

sub worker_finding
{
	my ($db) = @_;
	return $node->safe_psql($db, q{SELECT level, detail, remediation FROM risk_alert.check_setup() WHERE name = 'worker'});
}

# CREATE EXTENSION and DROP EXTENSION that are prepared
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', q{BEGIN; CREATE EXTENSION risk_alert; PREPARE TRANSACTION 'create'});
launcher_has_looked();
is(worker_pid($node, 'app'), '', 'a prepared CREATE EXTENSION brings no worker');
$node->safe_psql('app', q{COMMIT PREPARED 'create'});
isnt(wait_for_worker($node, 'app'), '', '  COMMIT PREPARED does');
create_payments($node, 'app');
works('  which works', 'app');
$node->safe_psql('app', q{SET client_min_messages = warning; BEGIN; DROP EXTENSION risk_alert CASCADE; PREPARE TRANSACTION 'drop'});
$node->safe_psql('app', q{ROLLBACK PREPARED 'drop'});
works('a prepared DROP EXTENSION that is rolled back changes nothing', 'app');
$node->safe_psql('app', q{SET client_min_messages = warning; BEGIN; DROP EXTENSION risk_alert CASCADE; PREPARE TRANSACTION 'drop'});
$node->safe_psql('app', q{COMMIT PREPARED 'drop'});
no_worker('one that is committed sends the worker away', 'app');
is($node->psql('app', q{INSERT INTO payments VALUES (0, 1, 5000, '2026-01-01Z')}), 0, '  and the table stays usable');

# Templates, made in each of the two ways, and template1
$node->safe_psql('app', 'DROP TABLE payments; CREATE EXTENSION risk_alert');
create_payments($node, 'app');
works('created again', 'app');
$node->safe_psql('postgres', 'ALTER DATABASE app IS_TEMPLATE true');
no_worker('a template database has no worker', 'app');
is(worker_finding('app'), 'warning|Template databases get no worker.|ALTER DATABASE app IS_TEMPLATE false', '  check_setup() says so');
foreach my $strategy ('wal_log', 'file_copy')
{
	$node->safe_psql('postgres', "CREATE DATABASE copy TEMPLATE app STRATEGY $strategy");
	works("a copy of it, made by $strategy, has", 'copy');
	$node->safe_psql('postgres', 'DROP DATABASE copy');
}
$node->safe_psql('postgres', 'ALTER DATABASE app IS_TEMPLATE false');
works('so has it when it is no template any more', 'app');
$node->safe_psql('template1', 'CREATE EXTENSION risk_alert');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
create_payments($node, 'copy');
works('an extension that is in template1 works in new databases', 'copy');
is(worker_pid($node, 'template1'), '', '  and has no worker in template1');
$node->safe_psql('postgres', 'DROP DATABASE copy');

# A database that is closed to sessions, for a while or to all but superusers
{
	$node->safe_psql('postgres', 'ALTER DATABASE app ALLOW_CONNECTIONS false');
	no_worker('a database that allows no connections has no worker', 'app');
	launcher_has_looked();
	is(worker_pid($node, 'app'), '', '  nor gets one');
	$node->safe_psql('postgres', 'ALTER DATABASE app ALLOW_CONNECTIONS true');
	works('  until it allows them again', 'app');
	my $pid = wait_for_worker($node, 'app');
	$node->safe_psql('postgres', 'ALTER DATABASE app CONNECTION LIMIT 0');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
	works('a limit of connections keeps no worker away', 'app');
	$node->safe_psql('postgres', 'ALTER DATABASE app CONNECTION LIMIT -1');
}

# ALTER DATABASE ... SET TABLESPACE, and what is refused
{
	my $directory = PostgreSQL::Test::Utils::tempdir;

	$node->safe_psql('postgres', "CREATE TABLESPACE space LOCATION '$directory'");
	is($node->psql('postgres', 'ALTER DATABASE app SET TABLESPACE space'), 0, 'ALTER DATABASE SET TABLESPACE works');
	works('  and so does the database afterwards', 'app');
}

# An owner who is no superuser may do all this with his database, and nothing with others'
{
	my @joe = (extra_params => [ '-U', 'joe' ]);
	my ($rc, $out, $err);

	$node->safe_psql('postgres', 'CREATE ROLE joe LOGIN CREATEDB; CREATE DATABASE his TEMPLATE app; ALTER DATABASE his OWNER TO joe');
	wait_for_worker($node, 'his');
	is($node->psql('postgres', 'ALTER DATABASE his RENAME TO renamed', @joe), 0, 'an owner renames his database');
	wait_for_worker($node, 'renamed');
	is($node->psql('postgres', 'CREATE DATABASE copied TEMPLATE renamed', @joe), 0, '  copies it');
	wait_for_worker($node, 'renamed');
	is($node->psql('postgres', 'DROP DATABASE renamed', @joe), 0, '  and drops it');
	my $pid = wait_for_worker($node, 'app');
	foreach my $command ('DROP DATABASE app', 'ALTER DATABASE app RENAME TO mine', 'CREATE DATABASE mine TEMPLATE app')
	{
		($rc, $out, $err) = $node->psql('postgres', $command, @joe);
		like($err, qr/permission denied|must be owner/, "$command: another's is refused");
	}
	is(worker_pid($node, 'app'), $pid, '  and its worker stays');
}
is(scalar(() = slurp_file($node->logfile) =~ /FATAL|PANIC|TRAP|signal 11/g), 0, 'nothing went wrong');

$node->stop;
done_testing();
