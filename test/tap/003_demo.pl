# make demo KEEP=1: it says what it has caught, and leaves a server to look around in.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

# It installs, so it gets a PostgreSQL of its own: links to the tests'.  Where
# to build from is the system's.
my $home = PostgreSQL::Test::Utils::tempdir;
my ($bindir) = map { s/\n//r } `pg_config --bindir`;
my ($top) = $bindir =~ m{^(.*/pg)/} or plan skip_all => 'needs the installation that test/run makes';

chmod 0755, $home;
system('cp', '-al', $top, "$home/pg") == 0 or die 'could not copy the installation';
(my $own = $bindir) =~ s/^\Q$top\E/$home\/pg/;
my $pg_config = own_pg_config($home, $own);

my ($out, $err) = ('', '');
{
	local %ENV = (%ENV, PG_CONFIG => $pg_config, KEEP => 1, RATE => 100000, TMPDIR => $home);
	delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS PGPORT PGHOST)};
	IPC::Run::run([ 'make', 'demo' ], '<', \undef, '>', \$out, '2>', \$err);
	is($?, 0, 'make demo KEEP=1') or diag("$out\n$err");
}
note($out);
unlike($err, qr/error|warning/i, '  without an error');

# the lines "command" in the output that begin so
sub command
{
	my ($pattern) = @_;
	my ($line) = $out =~ /^\s+($pattern.*)$/m;
	return $line // '';
}

my $server = command(qr{\S*/pg_ctl }) =~ m{-D (\S+)/data} ? $1 : '';
isnt($server, '', '  it says how to stop the server');
END { local $?; system("pg_ctl -D '$server/data' -m immediate stop >/dev/null 2>&1") if $server && -e "$server/data/postmaster.pid"; }

(my $numbers = $out) =~ s/(?<=\d),(?=\d{3})//g;
my ($events) = $numbers =~ /(\d+) events in all/;
cmp_ok($events // 0, '>=', 200_000, '  at least 200,000 events');
like($out, qr/events in, .* alerts, /, '  it prints its progress');
# (psql draws lines between columns)
(my $tables = $out) =~ s/\xe2\x94\x82/|/g;
my ($some) = $tables =~ /Some alerts:\n(.*?)\n\s*\n/s;
cmp_ok(scalar(() = ($some // '') =~ /^ *\d+ *\|.*\| *(?:review|deny) *\| *\w+ *\| *\S.*\d.*$/mg), '>=', 3, '  some alerts, with rules and reasons');
my ($heading, $shares) = map { $tables =~ /^( *$_.*)$/m ? $1 : '' } 'rule .*precision', 'all together';
like($heading, qr/precision *\| *recall *\| *large amounts *\| *bad terminals *\| *stolen cards/, '  precision, and recall of each kind of fraud');
my @shares = $shares =~ /(\d+) %/g;
is(scalar(grep { $_ > 0 } @shares), 5, '  which are figures of all rules together: ' . join(' ', @shares));
like($out, qr/p50 [\d.]+ ms, p99 [\d.]+ ms/, '  latency from commit to alert');
like($numbers, qr/streamed at \d+ a second/, '  and rate');

# the hints: the command for psql, and what to type there
my $psql = command(qr{\S*/psql });
isnt($psql, '', '  it says how to connect');
my @typed = $out =~ /^\s+(SELECT .*;)$/mg;
cmp_ok(scalar(@typed), '>=', 3, '  and what to ask');
foreach my $query (@typed)
{
	my ($rows, $trouble) = ('', '');
	IPC::Run::run([ 'sh', '-c', "$psql -XAtq -v ON_ERROR_STOP=1 -f -" ], '<', \$query, '>', \$rows, '2>', \$trouble);
	is($trouble, '', "  $query");
	isnt($rows, '', '    which finds something');
}

# what it has caught, against the labels: most, and few others
my $check = q{SELECT count(*) FILTER (WHERE is_fraud) > 0.5 * sum(count(*)) OVER () FROM payments p JOIN risk_alert.alert_event e ON e.event_key = p.payment_id::text;
SELECT (SELECT count(*) FROM risk_alert.alert_event) > 100;
SELECT risk_alert.drain();
SELECT count(*) = 0 FROM risk_alert.check_setup() WHERE level IN ('error', 'warning');};
my $rows = '';
IPC::Run::run([ 'sh', '-c', "$psql -XAtq -v ON_ERROR_STOP=1 -f -" ], '<', \$check, '>', \$rows, '2>&1');
is($rows, "t\nt\nt\nt\n", '  more of its alerts are frauds than not, there are hundreds, and all is in order');

my $stop = command(qr{\S*/pg_ctl });
is(system("$stop >/dev/null 2>&1"), 0, 'the command to stop it works');
ok(!-e $server, '  and leaves nothing');

done_testing();
