# More databases with the extension than there are places for workers: those that
# come too late lose nothing, and get their worker when a place is free again.  (A
# library of its own has two places.)

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

# A source tree and an installation of the test's own
my $home = PostgreSQL::Test::Utils::tempdir;
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my ($bindir, $libdir) = map { s/\n//r } `pg_config --bindir --pkglibdir`;
my ($top) = $bindir =~ m{^(.*/pg)/} or plan skip_all => 'needs the installation that test/run makes';

chmod 0755, $home;
system('cp', '-al', $top, "$home/pg") == 0 or die 'could not copy the installation';
system("mkdir '$home/tree' && cp -rp Makefile *.control sql src '$home/tree'") == 0 or die 'could not copy the source tree';
(my $own_bin = $bindir) =~ s/^\Q$top\E/$home\/pg/;
(my $own_lib = $libdir) =~ s/^\Q$top\E/$home\/pg/;
{
	delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS)};
	my $log = "$home/make.log";
	is(system("cd '$home/tree' && rm -f src/launcher.o src/shmem.o src/utility.o src/worker.o risk_alert.so && make PG_CONFIG='$pg_config' with_llvm=no COPT=-DRA_MAX_DATABASES=2 risk_alert.so >'$log' 2>&1"),
		0, 'a library with places for two databases') or diag(slurp_file($log));
}
unlink "$own_lib/risk_alert.so" or die 'no library there';
system('cp', "$home/tree/risk_alert.so", $own_lib) == 0 or die 'could not copy the library';
$ENV{PATH} = "$own_bin:$ENV{PATH}";

my $node = new_node('many', extension => 0);
my $payment = 0;

sub payment
{
	my ($db) = @_;
	$payment++;
	$node->safe_psql($db, "INSERT INTO payments VALUES ($payment, 1, 5000, timestamptz '2026-01-01Z' + $payment * interval '1 day')");
	return;
}

sub alerts { my ($db) = @_; return $node->safe_psql($db, 'SELECT count(*) FROM risk_alert.alerts'); }

foreach my $db ('a', 'b')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION risk_alert');
	create_payments($node, $db);
	payment($db);
	drain($node, $db);
	is(alerts($db), 1, "database $db has a worker");
}
foreach my $db ('c', 'd')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	is($node->psql($db, 'SET client_min_messages = error; CREATE EXTENSION risk_alert'), 0, "CREATE EXTENSION in database $db, one too many, works");
	create_payments($node, $db);
	payment($db);
	my ($rc, $out, $err) = $node->psql($db, "\\set VERBOSITY verbose\nSELECT risk_alert.drain('1 s')");
	like($err, qr/ERROR:  53400: no worker can serve this database.*At most 2 databases/s, '  drain() says that no worker will come');
	like($node->safe_psql($db, q{SELECT level, description, detail FROM risk_alert.check_setup() WHERE name = 'worker'}),
		qr/^error\|no worker runs for this database\|/, '  so does check_setup()');
	is($node->safe_psql($db, q{SELECT queued, state FROM risk_alert.stat_streams}), '1|no worker', '  and stat_streams: its events wait');
	is($node->safe_psql($db, 'SELECT risk_alert.risk_score(p) FROM payments p'), 60, '  scoring on demand works');
}
wait_for_logged($node, 'WARNING:[^\n]*no worker for database "c": too many databases use risk_alert', 1);
like(slurp_file($node->logfile), qr/DETAIL:[^\n]*At most 2 databases.*HINT:/s, 'the log tells, with a hint');
foreach my $db ('a', 'b')
{
	payment($db);
	drain($node, $db);
	is(alerts($db), 2, "database $db is not disturbed");
}

# A place becomes free by DROP EXTENSION, or DROP DATABASE.  The launcher does not wait
# for its next look at all databases, in a minute.
my $started = time;
$node->safe_psql('a', 'SET client_min_messages = warning; DROP EXTENSION risk_alert CASCADE');
isnt(wait_for_worker($node, 'c'), '', 'DROP EXTENSION elsewhere: the next database has a worker');
drain($node, 'c');
is(alerts('c'), 1, '  what waited there is scored');
is(worker_pid($node, 'd'), '', '  the last one still has none');
$node->safe_psql('postgres', 'DROP DATABASE b');
isnt(wait_for_worker($node, 'd'), '', 'DROP DATABASE: it has, too');
drain($node, 'd');
is(alerts('d'), 1, '  what waited there is scored');
cmp_ok(time - $started, '<', 45, 'both at once');
cmp_ok(scalar(() = slurp_file($node->logfile) =~ /too many databases use risk_alert/g), '<=', 2, 'the log is not filled with it');

$node->stop;
done_testing();
