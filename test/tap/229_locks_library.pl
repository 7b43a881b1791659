# The clients of ZooKeeper and Redis are not there: all but the two libraries that use them is
# built, installed and works; who asks for a lock of the cluster is told what is missing, and has it as
# soon as it is installed.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Redis;
use RiskAlert;
use Test::More;
use Time::HiRes qw(time);
use ZooKeeper;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my %header = (redis => 'hiredis/hiredis.h', zookeeper => 'zookeeper/zookeeper.h');
my $tree = PostgreSQL::Test::Utils::tempdir;
my $home = PostgreSQL::Test::Utils::tempdir;

# This builds and installs, so it gets a PostgreSQL of its own: a copy (by links) of the tests'
my ($bindir) = map { s/\n//r } `pg_config --bindir`;
my ($top) = $bindir =~ m{^(.*/pg)/} or plan skip_all => 'needs the installation that test/run makes';
delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS PGPORT PGHOST)};
system('cp', '-al', $top, "$home/pg") == 0 or die 'could not copy the installation';
$bindir =~ s/^\Q$top\E/$home\/pg/;
$ENV{PATH} = "$bindir:$ENV{PATH}";
my ($libdir) = map { s/\n//r } `pg_config --pkglibdir`;
like($libdir, qr/^\Q$home\E/, 'an installation of its own');

# A compiler that does not find the headers of these clients.  (What is not there can't be
# told from what can't be included.)
sub compiler_without
{
	my $directory = PostgreSQL::Test::Utils::tempdir;
	for my $header (map { $header{$_} } @_)
	{
		mkdir "$directory/" . $header =~ s{/.*}{}r;
		append_to_file("$directory/$header", "#error \"$header: no such file\"\n");
	}
	return "CC='gcc -I$directory'";
}

sub make
{
	my ($claim, @arguments) = @_;
	my $rc = system("make -C '$tree' PG_CONFIG='$pg_config' DESTDIR='$home/pg' @arguments >'$tree.log' 2>&1 </dev/null");
	my $out = slurp_file("$tree.log");
	is($rc, 0, $claim) or diag(substr($out, -3000));
	return $out;
}

sub installed { return join ' ', sort map { s/^\Q$home\E//r } split /\n/, `find '$home/pg' -name 'risk_alert*' -not -path '*/bitcode/*'`; }

my $all = installed();
unlink grep { /risk_alert/ } split /\n/, `find '$home/pg' -name 'risk_alert*' -type f`;
is(installed(), '', 'nothing of it is installed');
system("tar -cf - --exclude='*.o' --exclude='*.so' --exclude='*.bc' Makefile *.control sql src test expected | tar -C '$tree' -xf -") == 0
  or die 'could not copy the source tree';

# optimising takes long, and is of no interest here
my @make = ('-j2', 'CFLAGS="-O0 -Wall -fPIC"');
make('without both headers: make', @make, compiler_without(qw(redis zookeeper)));
make('  and make install', 'install', compiler_without(qw(redis zookeeper)));
is(installed(), join(' ', grep { !m{/risk_alert_(?:redis|zookeeper)\.so$} } split / /, $all), '  install all but the two libraries');
isnt(installed(), $all, '  which are among what is installed otherwise');
unlike(`readelf -d '$libdir/risk_alert.so'`, qr/NEEDED.*(?:hiredis|zookeeper)/, '  and the library needs neither client');
for my $provider (qw(redis zookeeper))
{
	my ($other) = grep { $_ ne $provider } keys %header;
	my $out = make("with the header of $provider only: make", '-n', 'all', compiler_without($other));
	is(join(' ', sort $out =~ /-o risk_alert_(\w+)\.so/g), $provider, '  builds its library, and not the other');
}

my (%node, %service);
for my $provider (qw(redis zookeeper))
{
	$service{$provider} = $provider eq 'redis' ? Redis->new : ZooKeeper->new(PostgreSQL::Test::Utils::tempdir('zk') . '/zk');
	$service{$provider}->start;
	my $node = $node{$provider} = new_node("library_$provider", conf => qq{
risk_alert.node_name = 'alone'
risk_alert.lock_provider = $provider
risk_alert.${provider}_hosts = '} . $service{$provider}->hosts . q{'
risk_alert.session_timeout = 3000ms});
	my $file = qr/could not access file "\$libdir\/risk_alert_$provider": No such file or directory/;
	my ($out, $err);

	# what is told, and where
	ok(wait_until($node, q{SELECT state = 'failed' FROM risk_alert.stat_coordination}), "$provider: no library: failed");
	like(status($node, 'last_error'), $file, "$provider: the view says which is missing");
	for my $call (q{advisory_lock('k', '20s')}, q{advisory_lock_shared('k')}, q{try_advisory_lock('k')}, q{advisory_xact_lock(7)})
	{
		my $began = time;
		(undef, $err) = sql($node, "SELECT risk_alert.$call");
		like($err, qr/ERROR:  F0000: advisory lock "[k7]" can't be had: the broker can't work\nDETAIL:  $file\nHINT:  Correct .*library risk_alert_$provider must be installed/,
			"$provider: $call says so");
		cmp_ok(time - $began, '<', 10, "$provider:   without waiting");
	}
	like($node->safe_psql('postgres', q{SELECT level, detail, remediation FROM risk_alert.check_setup() WHERE name = 'coordination'}),
		qr/^error\|$file\|.*install library risk_alert_$provider/, "$provider: so does check_setup()");
	like(slurp_file($node->logfile), qr/FATAL:  risk_alert broker can't work: $file\n.*HINT:  .*install what is missing/, "$provider: and the log");

	# all else works
	create_payments($node);
	$node->safe_psql('postgres', q{INSERT INTO payments VALUES (1, 1, 2000, '2026-05-05')});
	ok(drain($node), "$provider: events are scored");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.alerts'), 1, "$provider: there is an alert");
	my ($host, $port) = ($node->host, $node->port);
	$node->safe_psql('postgres', qq{
CREATE SERVER alone FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER alone;});
	is($node->safe_psql('postgres', q{SELECT n FROM risk_alert.on_node('alone', 'SELECT count(*) FROM risk_alert.alerts') AS t (n int)}), 1,
		"$provider: nodes are asked");
	($out, $err) = sql($node, q{SELECT live FROM risk_alert.nodes; SELECT count(*) FROM risk_alert.advisory_locks; SELECT risk_alert.is_leader()});
	is(one_line($out), 'f 0 f', "$provider: views can be read");
	($out, $err) = sql($node, q{BEGIN;
SELECT risk_alert.global_execute('alone', 'UPDATE payments SET amount = 3000');
COMMIT;
SELECT amount FROM payments;});
	is(one_line($out), '1 3000.00', "$provider: a global transaction commits");

	# one that needs the register: before anything is prepared, it is told
	$node->safe_psql('postgres', qq{
CREATE SERVER second FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER second;
CREATE TABLE t (id int)});
	my $commit = time;
	($out, $err) = sql($node, q{SET risk_alert.commit_register = zookeeper;
BEGIN;
SELECT risk_alert.global_execute_all('{alone,second}', '{INSERT INTO t VALUES (1)}');
COMMIT;});
	like($err, qr/ERROR:  55000: register zookeeper can't decide the transaction\nDETAIL:  .*@{[$provider eq 'zookeeper' ? $file : qr{Redis, which has no registers}]}.*\nHINT:.*check_setup\(\)/, "$provider: a decision there can't be had");
	cmp_ok(time - $commit, '<', 10, "$provider:   without waiting");
	is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM pg_prepared_xacts)'), '0|0', "$provider:   and nothing is done or left");
	my $began = time;
	$node->restart;
	cmp_ok(time - $began, '<', 10, "$provider: a restart is quick");
}

# The headers are installed, and then the libraries
make('with both headers: make', @make);
make('  and make install', 'install');
is(installed(), $all, '  install them');
for my $provider (qw(redis zookeeper))
{
	my $node = $node{$provider};
	my $began = time;
	ok(wait_until($node, q{SELECT state = 'connected' AND lease_ms > 0 FROM risk_alert.stat_coordination}), "$provider: its library, without a restart");
	cmp_ok(time - $began, '<', 10, "$provider: the broker tries again every five seconds");
	is($node->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('k', '10s') IS NOT NULL}), 't', "$provider: a lock can be had");
	is($node->safe_psql('postgres', q{SELECT level FROM risk_alert.check_setup() WHERE name = 'coordination'}), 'ok', "$provider: nothing is missing");
	my ($bad) = sql($node, q{SET client_min_messages = error; SELECT count(*) FROM risk_alert._lock_entries()});
	is($bad, 0, "$provider: nothing is left of those that could not be had");
	$node->stop;
	$service{$provider}->kill9;
}
done_testing();
