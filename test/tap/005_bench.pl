# bench/run --short: the harness works, and prints what it says it measures.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $home = PostgreSQL::Test::Utils::tempdir;
chmod 0755, $home;

my ($out, $err) = ('', '');
{
	local %ENV = (%ENV, PG_CONFIG => own_pg_config($home), TMPDIR => $home);
	delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS PGPORT PGHOST)};
	IPC::Run::run([ qw(bench/run --short --no-build consume windows latency global) ], '<', \undef, '>', \$out, '2>', \$err);
	is($?, 0, 'bench/run --short') or diag("$out\n$err");
}
note($out);
is($err, '', '  without a complaint');

my @targets = $out =~ /^  target: (.*)$/mg;
cmp_ok(scalar(@targets), '>=', 30, '  it prints targets');
is(scalar(grep { !/measured .*\d.*(?:reached|missed|\((?:no target|for orientation)\))$/ } @targets), 0,
	'  each with a figure and what that means')
  or diag(join("\n", @targets));
unlike($out, qr/\bnan\b|\binf\b|ALERTS THAT NEVER CAME/i, '  and nothing that could not be measured');
like($out, qr/^targets reached: [1-9]\d*, missed: \d+, not measured: 0$/m, '  and their number');

# what the tables show makes sense: rates are positive, and percentiles in order
my %latency = map { $out =~ /\Q$_\E +([\d.]+) +([\d.]+) +([\d.]+)$/m ? ($_ => [ $1, $2, $3 ]) : () }
  'risk_alert: COMMIT to alert', 'PL/pgSQL consumer: COMMIT to alert';
foreach my $who (sort keys %latency)
{
	my ($p50, $p90, $p99) = @{ $latency{$who} };
	ok(0 < $p50 && $p50 <= $p90 && $p90 <= $p99, "  $who: $p50, $p90, $p99 ms");
}
is(scalar(keys %latency), 2, '  latency of both');
my @windows = $out =~ /^  (?:10 minutes|365 days).* (\d+)$/mg;
is(scalar(grep { $_ > 0 } @windows), 4, '  rates with four kinds of windows');
my @global = $out =~ /^  (?:risk_alert|by hand): .* (\d+) +[\d.]+ +[\d.]+ +\d+ +[\d.]+$/mg;
is(scalar(grep { $_ > 0 } @global), 2 * 19, '  rates of global transactions, with 1 client and with 8');

is(join(' ', grep { !/^pg_config$/ } map { s{.*/}{}r } glob("$home/*")), '', 'it leaves nothing behind');

done_testing();
