# Connections to acceptors that a session did not have to wait for: they get on, and are
# not given up for an answer that only nobody has read yet.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;

my ($a, $b, $c) = my @nodes = new_cluster([ 'node_a', 'node_b', 'node_c' ]);
my $names = 0;
my $waits = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'risk_alert node_a' AND query LIKE '%_paxos_%' AND wait_event_type = 'Lock'};

sub new_gid { return 'test:' . ++$names; }

sub propose
{
	my ($gid) = @_;
	return "SELECT risk_alert._register_propose('paxos', '$gid', 'commit', 20000)";
}

sub forget
{
	my ($gid) = @_;
	return "SELECT risk_alert._register_forget('paxos', '$gid')";
}

sub forgotten
{
	my ($gid) = @_;
	return "SELECT count(*) FROM risk_alert.paxos_acceptor a WHERE gid = '$gid' AND EXISTS (SELECT FROM risk_alert.paxos_forgotten f WHERE a.gid = ANY (f.gids))";
}

# Proposes while node_b is held up, until node_c is asked, too; meanwhile() runs then
sub propose_slowly
{
	my ($session, $gid, $meanwhile) = @_;
	my $lock = $b->background_psql('postgres');
	$lock->query_safe('BEGIN; LOCK TABLE risk_alert.paxos_acceptor');
	$session->query_until(qr/begun/, "\\echo begun\n" . propose($gid) . ";\n");
	ok(wait_until($b, $waits, 1), 'node_b holds a request up');
	$meanwhile->();
	$lock->query_safe('COMMIT');
	$lock->quit;
	like($session->query(''), qr/^commit/m, 'it commits');
	return;
}

$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') foreach @nodes;

# a first vote is a write, as the later ones are
{
	my ($rc, $out, $err) = $a->psql('postgres', q{SET default_transaction_read_only = on; SELECT risk_alert._paxos_accept(risk_alert._paxos_identity(), 'node_a', 'test:read_only', 0, 0, 'commit')});
	like($err, qr/cannot execute INSERT in a read-only transaction/, 'nobody votes in a read-only transaction');
}

# node_c does not let anybody connect for a while
{
	my $session = $a->background_psql('postgres');
	my $gid = new_gid();
	my ($pid) = slurp_file($c->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my $connected = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'risk_alert node_a' AND query LIKE '%_paxos_%'};
	my $before = $c->safe_psql('postgres', $connected);

	# its answer comes when node_c has been asked to connect
	kill 'STOP', $pid;
	propose_slowly($session, $gid, sub { select(undef, undef, undef, 0.2); });
	kill 'CONT', $pid;
	ok(wait_until($c, 'SELECT 1', 1), 'node_c goes on');
	my $told = 0;
	for (1 .. 20)
	{
		my $next = new_gid();
		$session->query_safe(propose($next));
		$session->query_safe(forget($next));
		$session->query_safe(forget($gid));
		$told = $b->safe_psql('postgres', forgotten($gid)) and last;
		select(undef, undef, undef, 0.3);
	}
	ok($told, 'a connection that nobody waits for does not keep the others from being told what is over');
	$session->quit;
}

# node_c has answered, but nobody has read that for a time
{
	my $session = $a->background_psql('postgres');
	my $gid = new_gid();
	my $next = new_gid();
	my $since;

	propose_slowly($session, $gid, sub { ok(wait_until($c, "SELECT count(*) FROM risk_alert.paxos_acceptor WHERE gid = '$gid'", 1), 'node_c votes, too'); });
	$since = $a->safe_psql('postgres', 'SELECT clock_timestamp()');
	wait_until($a, "SELECT clock_timestamp() > '$since'::timestamptz + interval '10.5 s'");
	$session->query_safe(propose($next));
	$session->query_safe(forget($gid));
	$session->quit;
	ok(wait_until($_, forgotten($gid), 1), 'it is told: ' . $_->name) foreach @nodes;
}

$_->stop foreach @nodes;
done_testing();
