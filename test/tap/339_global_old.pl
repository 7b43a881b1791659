# Branches and proposals that are older than what the Paxos register remembers: nobody guesses, and the
# operator is told.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;

my @nodes = accounts_cluster(conf => "risk_alert.commit_register = paxos\n");
my ($node_a, $node_b, $node_c) = @nodes;
my $votes = sub { my ($gid) = @_; return join(' ', map { $_->safe_psql('postgres', "SELECT count(*) FROM risk_alert.paxos_acceptor WHERE gid = '$gid'") } @nodes) };

$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') foreach @nodes;

# A coordinator is held up so long that others have aborted, and the register has forgotten it
{
	my $session = session($node_a);
	my $gid;

	$node_a->append_conf('postgresql.conf', "risk_alert.commit_timeout = '1s'\n");
	$node_a->reload;
	wait_until($node_a, 'SHOW risk_alert.commit_timeout', '1s');
	commit_until($session, 'decide', on('node_b', take(1)), on('node_c', give(1)));
	$gid = $node_b->safe_psql('postgres', 'SELECT gid FROM risk_alert.global_transactions');
	$_->safe_psql('postgres', "SELECT risk_alert.resolve('$gid', 'abort')") foreach $node_b, $node_c;
	$_->safe_psql('postgres', "DELETE FROM risk_alert.paxos_acceptor WHERE gid = '$gid'") foreach @nodes;
	ok(wait_until($node_a, q{SELECT query_start < clock_timestamp() - interval '1.1 s' FROM pg_stat_activity WHERE query LIKE 'COMMIT%' AND state = 'active'}), 'its time goes by');
	go();
	like(outcome($session), qr/ERROR:  57014: the transaction has taken more than 1000 ms from its first PREPARE on/, 'a proposal that is too late is not made');
	is($votes->($gid), '0 0 0', 'the register has heard nothing');
	is(balances(1), '1000 1000 1000', 'nothing is done');
	$session->quit;
	$node_a->append_conf('postgresql.conf', "risk_alert.commit_timeout = '30s'\n");
	$node_a->reload;
}

# An operator is refused what contradicts the register
{
	my $session = session($node_a);
	my ($gid, $rc, $out, $err);

	foreach my $node ($node_b, $node_c)
	{
		$node->append_conf('postgresql.conf', "risk_alert.recovery_interval = '1h'\n");
		$node->restart;
	}
	commit_until($session, 'commit 1', on('node_b', take(2)), on('node_c', give(2)));
	$gid = $node_b->safe_psql('postgres', 'SELECT gid FROM risk_alert.global_transactions');
	$node_a->stop('immediate');
	eval { $session->quit };
	go();
	($rc, $out, $err) = $node_b->psql('postgres', "SELECT risk_alert.resolve('$gid', 'abort')");
	like($err, qr/global transaction "\Q$gid\E" has committed\nDETAIL:  Its register says so/, 'resolve() does not contradict the register');
	is($_->safe_psql('postgres', "SELECT risk_alert.resolve('$gid', 'commit')"), 1, 'resolve() with the right decision: ' . $_->name) foreach $node_b, $node_c;
	$node_a->start;
	is(balances(2), '1000 990 1010', 'all nodes agree');
	is($node_b->safe_psql('postgres', "SELECT risk_alert.resolve('$gid', 'commit')"), 0, 'what is left in the register is no branch');
	($rc, $out, $err) = $node_b->psql('postgres', "SELECT risk_alert.resolve('$gid', 'abort')");
	like($err, qr/has committed/, 'and can\'t be undone');
	foreach my $node ($node_b, $node_c)
	{
		$node->append_conf('postgresql.conf', "risk_alert.recovery_interval = '200ms'\n");
		$node->reload;
	}
}

# A branch of a transaction that the register knows nothing of: node_b was away for long, as its clock has it
SKIP:
{
	my $clock = $node_b->basedir . '/clock';
	my $library = $node_b->basedir . '/clock_shim.so';
	my $gid = 'ra:risk_alert:node_a:p:5:1:1:';
	my ($rc, $out, $err);
	my $prepare = sub { $node_b->safe_psql('postgres', 'BEGIN;' . take(3) . ";PREPARE TRANSACTION '$gid$_[0]:1'") };
	my $time = sub {
		my $mode = -e $clock ? '+<' : '>';	# it is mapped
		open(my $file, $mode, $clock) or die "could not write \"$clock\": $!";
		binmode $file;
		syswrite($file, pack('q', 3600 * $_[0])) == 8 or die "could not write \"$clock\": $!";
		close $file;
	};

	skip 'no C compiler', 1
	  if system('cc', '-shared', '-fPIC', '-O', '-Wall', '-o', $library, 'test/tap/clock_shim.c') != 0;
	$time->(0);
	$node_b->stop;
	{
		local %ENV = (%ENV, $node_b->_get_env(), LD_PRELOAD => $library, CLOCK_OFFSET_FILE => $clock);
		PostgreSQL::Test::Utils::system_log('pg_ctl', '-w', '-D', $node_b->data_dir, '-l', $node_b->logfile, 'start') == 0
		  or BAIL_OUT('could not start the server with a clock of its own');
		$node_b->_update_pid(1);
	}

	# register_retention is a day, less a tenth
	$prepare->(1);
	$time->(20);
	ok(defined settled($node_b), 'a branch that is younger than the register\'s memory: nobody has decided it, so it is aborted');
	is($node_c->safe_psql('postgres', "SELECT risk_alert._register_read('paxos', '${gid}1')"), 'abort', 'which its register knows');
	$prepare->(2);
	$time->(42);
	ok(wait_until($node_b, q{SELECT waiting, last_error LIKE '%register paxos knows nothing of the transaction, but may have known: the branch is older than decisions are kept; decide with risk\_alert.resolve()%' FROM risk_alert.stat_recovery}, '1|t'),
		'one that is older may have been committed: nobody guesses');
	is($votes->("${gid}2"), '0 0 0', 'nor proposes anything');
	is($node_b->safe_psql('postgres', q{SELECT gid, state FROM risk_alert.global_transactions}), "${gid}2|in doubt", 'view global_transactions shows it');
	like($node_b->safe_psql('postgres', q{SELECT level, object, detail, remediation FROM risk_alert.check_setup() WHERE name = 'global_transaction'}),
		qr/^warning\|\Q${gid}2\E:1\|Node node_a coordinates it; .*older than decisions are kept.*\|.*resolve\('\Q${gid}2\E', 'commit'\)/, 'so does check_setup(), with what to do');
	ok(wait_for_logged($node_b, "WARNING:  branch \"${gid}2:1\" of a global transaction is prepared for longer than risk_alert.prepared_warning", 1), 'and the log');
	($rc, $out, $err) = $node_b->psql('postgres', "\\set VERBOSITY verbose\nSELECT risk_alert.resolve('${gid}2')");
	like($err, qr/ERROR:  08007:.*older than decisions are kept/s, 'resolve() does not guess either');
	($rc, $out, $err) = $node_b->psql('postgres', "SELECT risk_alert.resolve('${gid}2', 'commit')");
	is($out, 1, 'an operator decides');
	like($err, qr/WARNING:  the register of global transaction .* could not be asked\nDETAIL:  It knows nothing of it, but may have known/, 'and is warned');
	is($node_b->safe_psql('postgres', 'SELECT balance FROM account WHERE id = 3'), 990, 'as he says');
}

$_->stop foreach @nodes;
done_testing();
