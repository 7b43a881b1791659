# Provider local: no broker, and tokens that grow over every life of the server.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('local');
my $file = $node->data_dir . '/risk_alert.generation';
my $last = 0;

sub token_grows
{
	my ($after) = @_;
	my $token = $node->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('k')});
	is($node->safe_psql('postgres', "SELECT $token > $last"), 't', "a token is higher $after");
	$last = $token;
	return;
}

is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'risk_alert broker'}), '0', 'no broker');
token_grows('at first');
token_grows('in a later session');

# more often than once a second: the time alone would not do
for (1 .. 3)
{
	$node->restart('immediate');
	token_grows('after a crash of the server');
}
my $holder = session($node);
ask($holder, q{SELECT risk_alert.advisory_lock('k')});
my ($backend) = ask($holder, 'SELECT pg_backend_pid()');
kill 'KILL', $backend;
eval { $holder->quit };
wait_for_restart($node);
token_grows('after a session was killed, which had it');
is($node->safe_psql('postgres', q{SELECT lost FROM risk_alert._lock_entries()}), '', 'and no lock is left');

# a clock that is set back
my $ahead = time + 1000000;
$node->stop;
unlink $file;
append_to_file($file, "$ahead\n");
$node->start;
token_grows('than those of a time to come');
$node->restart;
token_grows('and after these');
is(slurp_file($file), $ahead + 2 . "\n", 'by counting');

# what is not a number is not guessed
$node->stop;
append_to_file("$file.new", "rubbish\n");
rename "$file.new", $file;
ok(!$node->start(fail_ok => 1), 'a file that was spoilt: no start');
like(slurp_file($node->logfile), qr/"risk_alert.generation" does not hold a number.*HINT:  Remove the file/s, 'which says what to do');
unlink $file;
$node->start;
ok($node->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('k') IS NOT NULL}), 'and without the file');
done_testing();
