# Branches are prepared and committed at the same time; recovery of some is not held up by a coordinator that
# does not answer to others.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;
use Time::HiRes;

my @nodes = accounts_cluster(init => { allows_streaming => 1 }, conf => "synchronous_commit = on\n");
my ($node_a, $node_b, $node_c) = @nodes;

# A branch of a transaction of which node_c, its coordinator, knows that it has aborted
sub known
{
	return $node_c->safe_psql('postgres', q{SELECT format('ra:risk_alert:node_c:l:%s:%s:7fffffff:%s:1', to_hex(d.oid::bigint), to_hex(e.epoch), to_hex((pg_current_wal_flush_lsn() - '0/0')::bigint))
		FROM pg_database d, risk_alert.global_epoch e WHERE d.datname = 'postgres' ORDER BY e.began_at DESC LIMIT 1});
}

# Each of the two commands waits for a standby that is not there, until it is cancelled, which is a warning
{
	my $session = session($node_a);

	answer($session, on($_, 'SELECT')) foreach 'node_b', 'node_c';
	foreach my $node ($node_b, $node_c)
	{
		$node->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
		$node->reload;
		wait_until($node, 'SHOW synchronous_standby_names', 'nobody');
	}
	answer($session, 'BEGIN;' . on('node_b', take(1)) . ';' . on('node_c', give(1)));
	begin($session, 'COMMIT');
	foreach my $command ('PREPARE TRANSACTION', 'COMMIT PREPARED')
	{
		my $waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'risk_alert node_a' AND starts_with(query, '$command')";
		ok(wait_until($_, "SELECT count(*) $waiting", 1), "$command: " . $_->name . ' is at it') foreach $node_b, $node_c;
		is(join(' ', map { $_->safe_psql('postgres', "SELECT count(*) $waiting") } $node_b, $node_c), '1 1', "$command: at the same time");
		$_->safe_psql('postgres', "SELECT pg_cancel_backend(pid) $waiting") foreach $node_b, $node_c;
	}
	is(outcome($session), '', 'it commits');
	is(balances(1), '1000 990 1010', 'on both nodes');
	foreach my $node ($node_b, $node_c)
	{
		$node->safe_psql('postgres', q{SET synchronous_commit = local; ALTER SYSTEM RESET synchronous_standby_names});
		$node->reload;
		wait_until($node, 'SHOW synchronous_standby_names', '');
	}
	$session->quit;
}

# Nine branches of node_a, which hangs, and one of node_c, which knows that it has aborted
{
	my ($postmaster) = slurp_file($node_a->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my $left = q{SELECT count(*) FROM pg_prepared_xacts WHERE starts_with(gid, 'ra:risk_alert:node_%s:')};
	my $known = known();
	my $began;

	$node_b->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'risk_alert recovery'});
	kill('STOP', $postmaster);
	$node_b->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock($_); PREPARE TRANSACTION 'ra:risk_alert:node_a:l:5:1:$_:1:1'") foreach 1 .. 9;
	ok(wait_until($node_b, q{SELECT last_error LIKE '%could not connect to node "node_a"%' FROM risk_alert.stat_recovery}), 'a coordinator hangs: recovery waits for it');
	$node_b->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock(10); PREPARE TRANSACTION '$known'");
	$began = Time::HiRes::time;
	ok(wait_until($node_b, sprintf($left, 'c'), 0), 'a coordinator hangs: a branch of another one is finished');
	cmp_ok(Time::HiRes::time - $began, '<', 15, 'a coordinator hangs: without waiting for each of those of the first');
	is($node_b->safe_psql('postgres', sprintf($left, 'a')), 9, 'a coordinator hangs: its branches wait');
	kill('CONT', $postmaster);
	ok(wait_until($node_b, q{SELECT last_error LIKE '%node "node_a" does not know%' FROM risk_alert.stat_recovery}), 'it answers again: it does not know transactions that are none of its own');
	is($node_b->safe_psql('postgres', sprintf($left, 'a')), 9, 'and nobody guesses');
}

# Nine whose register is not there, while a majority of its acceptors hangs, and a younger one of register local
{
	my $postmaster;
	my $left = q{SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'ra:risk\_alert:node\__:%s:%%'};
	my ($known, $began);

	$node_b->safe_psql('postgres', "ROLLBACK PREPARED 'ra:risk_alert:node_a:l:5:1:$_:1:1'") foreach 1 .. 9;
	$_->append_conf('postgresql.conf', "risk_alert.paxos_acceptors = 'node_a, node_b'\n") foreach @nodes;
	$_->reload foreach @nodes;
	foreach my $node ($node_a, $node_b)
	{
		wait_until($node, 'SHOW risk_alert.paxos_acceptors', 'node_a, node_b');
		$node->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)');
	}
	$known = known();
	($postmaster) = slurp_file($node_a->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	kill('STOP', $postmaster);
	$node_b->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock($_); PREPARE TRANSACTION 'ra:risk_alert:node_c:p:5:1:$_:1:1'") foreach 1 .. 9;
	ok(wait_until($node_b, q{SELECT last_error LIKE '%no majority of the 2 acceptors%' FROM risk_alert.stat_recovery}), 'a register can not be asked: recovery waits for it');
	$node_b->safe_psql('postgres', "BEGIN; SELECT pg_advisory_xact_lock(10); PREPARE TRANSACTION '$known'");
	$began = Time::HiRes::time;
	ok(wait_until($node_b, sprintf($left, 'l'), 0), 'a register can not be asked: a branch of another one is finished');
	cmp_ok(Time::HiRes::time - $began, '<', 15, 'a register can not be asked: without waiting for each of its own');
	is($node_b->safe_psql('postgres', sprintf($left, 'p')), 9, 'a register can not be asked: its branches wait');
	kill('CONT', $postmaster);
	ok(wait_until($node_b, sprintf($left, 'p'), 0), 'it can be asked again: all are finished');
}

$_->stop foreach @nodes;
done_testing();
