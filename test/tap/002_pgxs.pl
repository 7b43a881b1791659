# make, make install, make installcheck and the like, as for any PGXS extension:
# in a copy of the source tree, and into a directory of its own.

use strict;
use warnings FATAL => 'all';

use File::Find;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my $tree = PostgreSQL::Test::Utils::tempdir;
my $root = PostgreSQL::Test::Utils::tempdir;

# as a user would call it, and not as part of the tests' own make
delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS PGPORT PGHOST)};

# files under a directory, without what is in test/results and the like
sub files
{
	my ($directory) = @_;
	my @files;
	find(sub { push @files, substr($File::Find::name, 1 + length $directory) if -f }, $directory);
	return join "\n", sort @files;
}

sub make
{
	my ($claim, @arguments) = @_;
	my $log = "$tree.log";
	my $rc = system("make -C '$tree' PG_CONFIG='$pg_config' @arguments >'$log' 2>&1 </dev/null");
	is($rc, 0, $claim) or diag(slurp_file($log));
	return slurp_file($log);
}

# what is in the repository, and what has been built from it
system("tar -cf - Makefile *.control sql src test expected | tar -C '$tree' -xf -") == 0 or die 'could not copy the source tree';
make('make clean', 'clean');
my $source = files($tree);
unlike($source, qr/\.(?:o|bc|so)$/m, '  leaves nothing that was built');

# Each is one call.  (PGXS's files are of the server that "make check" was started for)
make('make', '-j2');
make('make install', 'install', "DESTDIR='$root'");
my $installed = files($root);
my ($version) = slurp_file('risk_alert.control') =~ /default_version = '([^']+)'/;
like($installed, qr{/lib/risk_alert\.so$}m, '  the library');
like($installed, qr{/extension/risk_alert\.control$}m, '  the control file');
like($installed, qr{/extension/risk_alert--\Q$version\E\.sql$}m, '  the script of the version that it names');
like(make('make again', '-n', 'all'), qr/^(?!.*\b(?:gcc|clang|cc)\b)/s, 'and there is nothing left to do');
make('make uninstall', 'uninstall', "DESTDIR='$root'");
is(files($root), '', '  leaves nothing');

# installcheck: the tests by name, against a server that runs
my $node = new_node('pgxs', extension => 0, start => 0, conf => slurp_file('test/regress.conf'));
$node->start;
{
	local %ENV = (%ENV, $node->_get_env());
	my $out = make('make installcheck', 'installcheck', 'REGRESS="streams lists"', 'ISOLATION=config-versions');
	like($out, qr/^test streams\b.*\bok\b.*^test lists\b.*\bok\b/ms, '  runs regression tests');
	like($out, qr/^test config-versions\b.*\bok\b/m, '  and isolation tests');

	# without names it would run all
	my $all = make('make -n installcheck', '-n', 'installcheck');
	my @missing = grep { $all !~ /\s\Q$_\E(?=\s)/ } map { /([^\/]+)\.(?:sql|spec)$/ } glob('test/sql/*.sql test/isolation/specs/*.spec');
	is("@missing", '', '  which would run all of them');
}
make('make clean', 'clean');
is(files($tree), $source, '  leaves what was there before');

$node->stop;
done_testing();
