# Global transactions over three servers: whoever dies at whatever moment, money moves
# on both nodes or on none, and nothing stays prepared.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my @nodes = accounts_cluster();
my ($node_a, $node_b, $node_c) = @nodes;

my $id = 0;

# What works
{
	my $session = session($node_a);

	$id++;
	is(answer($session, on('node_b', 'SELECT FROM account')), 200, 'rows are counted');
	is(answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT'), "1\n1", 'rows that are changed, too');
	is(balances($id), '1000 990 1010', 'a commit is seen by the session at once');
	answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';ROLLBACK');
	is(balances($id), '1000 990 1010', 'a rollback leaves nothing');
	answer($session, 'BEGIN;' . take($id) . ';' . on('node_c', give($id)) . ';COMMIT');
	is(balances($id), '990 990 1020', 'local writes and a branch');
	answer($session, 'BEGIN;' . on('node_a', take($id)) . ';' . on('node_b', give($id)) . ';COMMIT');
	is(balances($id), '980 1000 1020', 'a branch to the own node');
	answer($session, 'BEGIN;' . on('node_b', 'DEALLOCATE ALL') . ';' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT');
	is(balances($id), '980 990 1030', 'a branch may deallocate all prepared statements');
	like(answer($session, on('node_c', q{DO 'BEGIN EXECUTE ''DEALLOCATE ALL''; END'})), qr/ERROR:  26000/, 'a function that does so fails,');
	is(answer($session, on('node_c', q{DO 'BEGIN EXECUTE ''DEALLOCATE ALL''; END'})), 0, 'and does not the second time');
	answer($session, 'BEGIN;' . on('node_b', give($id)) . ';' . on('node_c', take($id)) . ';COMMIT');
	is(balances($id), '980 1000 1020', 'nor do others afterwards');
	like(answer($session, 'BEGIN;' . on('node_b', give($id)) . ';' . on('node_c', "UPDATE account SET balance = -1 WHERE id = $id")),
		qr/ERROR:  23514: .*CONTEXT:  statement on node "node_c".*CONSTRAINT NAME:  account_balance_check/s, 'an error is passed on whole');
	answer($session, 'ROLLBACK');
	is(balances($id), '980 1000 1020', 'and all is rolled back');
	$session->quit;
	is(settled() < 10, 1, 'nothing stays prepared');
	ok(wait_until($node_a, 'SELECT count(*) FROM risk_alert._global_unfinished', 0), 'decisions that are carried out are known to be');
}

# Someone dies at a step of the commit
my @steps = ('prepare 1', 'prepare 2', 'decide', 'commit 1', 'commit 2');
my %deaths = (
	'the session is killed' => sub {
		kill('KILL', $_[0]);
		wait_for_restart($node_a);
	},
	'the coordinator is stopped' => sub {
		$node_a->stop('immediate');
		$node_a->start;
	},
	'the first participant is stopped' => sub {
		$node_b->stop('immediate');
		go();
		outcome($_[1]);
		$node_b->start;
	},
	'the second participant is stopped' => sub {
		$node_c->stop('immediate');
		go();
		outcome($_[1]);
		$node_c->start;
	},
	'the session is terminated' => sub {
		$node_a->safe_psql('postgres', "SELECT pg_terminate_backend($_[0])");
		go();
	},
);
foreach my $death (sort keys %deaths)
{
	foreach my $step (@steps)
	{
		my $session = session($node_a);
		my $pid = $session->query_safe('SELECT pg_backend_pid()');
		my $coordinator_dies = $death =~ /killed|coordinator/;
		my ($seconds, $after);

		$id++;
		commit_until($session, $step, on('node_b', take($id)), on('node_c', give($id)));
		$deaths{$death}->($pid, $session);
		go();
		eval { $session->quit };
		$seconds = settled();
		ok(defined $seconds && $seconds < 10, "F21 $death at \"$step\": nothing stays prepared");
		$after = balances($id);
		if ($coordinator_dies)
		{
			is($after, $step =~ /commit/ ? '1000 990 1010' : '1000 1000 1000', "F21 $death at \"$step\": all nodes agree");
		}
		else
		{
			like($after, qr/^(1000 990 1010|1000 1000 1000)$/, "F21 $death at \"$step\": all nodes agree");
		}
	}

	# the caller has written himself
	foreach my $step (@steps[ 0, 2, 3 ])
	{
		my $session = session($node_a);
		my $pid = $session->query_safe('SELECT pg_backend_pid()');

		$id++;
		commit_until($session, $step, take($id), on('node_b', give($id)));
		$deaths{$death}->($pid, $session);
		go();
		eval { $session->quit };
		ok(defined settled(), "F21 $death at \"$step\", with local writes: nothing stays prepared");
		like(balances($id), qr/^(990 1010 1000|1000 1000 1000)$/, "F21 $death at \"$step\", with local writes: all nodes agree");
	}
}

# The coordinator stays away
{
	my $session = session($node_a);
	my ($gid, $rc, $out, $err);

	$id++;
	commit_until($session, 'commit 1', on('node_b', take($id)), on('node_c', give($id)));
	is($node_b->safe_psql('postgres', q{SELECT coordinator, register, state FROM risk_alert.global_transactions}), 'node_a|local|in doubt', 'a prepared branch is shown');
	$gid = $node_b->safe_psql('postgres', q{SELECT gid FROM risk_alert.global_transactions});
	is($node_a->safe_psql('postgres', qq{SELECT state, participants FROM risk_alert.global_transactions WHERE gid = '$gid'}), 'committed|{node_b,node_c}', 'its coordinator knows more');
	is($node_b->safe_psql('postgres', qq{SELECT risk_alert.global_outcome('$gid')}), 'in progress', 'what became of it: not for others to say yet');
	$node_a->stop('immediate');
	eval { $session->quit };
	go();
	ok(wait_until($node_b, q{SELECT waiting, last_error LIKE '%could not connect to node "node_a"%' FROM risk_alert.stat_recovery}, '1|t'), 'recovery waits for the coordinator');
	is($node_b->safe_psql('postgres', qq{SELECT risk_alert.global_outcome('$gid')}), 'unknown', 'nobody knows the outcome');
	($rc, $out, $err) = $node_b->psql('postgres', qq{\\set VERBOSITY verbose\nSELECT risk_alert.resolve('$gid')});
	like($err, qr/ERROR:  08007:.*could not connect to node "node_a"/s, 'resolve() does not guess');
	($rc, $out, $err) = $node_b->psql('postgres', qq{\\set VERBOSITY verbose\nSET lock_timeout = '10ms'; } . give($id));
	like($err, qr/55P03/, 'the branch holds its locks');

	# others go on: b and c work together
	my $other = session($node_b);
	$id++;
	answer($other, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT');
	is(join(' ', map { $_->safe_psql('postgres', "SELECT balance FROM account WHERE id = $id") } $node_b, $node_c), '990 1010', 'other transactions are not held up');
	$other->quit;
	$node_a->start;
	ok(defined settled(), 'the coordinator comes back: all is finished');
	is(balances($id - 1), '1000 990 1010', 'as it has decided');
	is($node_b->safe_psql('postgres', q{SELECT committed > 0 AND aborted > 0 FROM risk_alert.stat_recovery}), 't', 'recovery counts what it does');
	ok(wait_until($node_a, qq{SELECT risk_alert.global_outcome('$gid') IN ('committed', 'aborted')}), 'the coordinator knows the outcome');
}

# F24 The coordinator is restored from a backup
{
	my $data = $node_a->data_dir;
	my ($session, $gid, $rc, $out, $err);

	$node_a->stop;
	system_or_bail('cp', '-a', $data, "$data.backup");
	$node_a->start;
	$id++;
	$session = session($node_a);
	commit_until($session, 'commit 1', on('node_b', take($id)), on('node_c', give($id)));
	$gid = $node_b->safe_psql('postgres', q{SELECT gid FROM risk_alert.global_transactions});
	$node_a->stop('immediate');
	eval { $session->quit };
	system_or_bail('rm', '-rf', $data);
	system_or_bail('mv', "$data.backup", $data);
	$node_a->start;
	ok(wait_until($node_b, q{SELECT waiting, last_error LIKE '%no memory%' FROM risk_alert.stat_recovery}, '1|t'), 'F24 a restored coordinator does not vote');
	is($node_a->safe_psql('postgres', qq{SELECT risk_alert.global_outcome('$gid')}), 'unknown', 'F24 and says so');
	($rc, $out, $err) = $node_b->psql('postgres', qq{SELECT risk_alert.resolve('$gid', 'perhaps')});
	like($err, qr/decision must be/, 'F24 an operator has to decide');
	foreach my $node ($node_b, $node_c)
	{
		($rc, $out, $err) = $node->psql('postgres', qq{SELECT risk_alert.resolve('$gid', 'commit')});
		is($out, 1, 'F24 an operator decides');
		like($err, qr/WARNING:  the register of global transaction .* could not be asked/, 'F24 with a warning');
	}
	is(balances($id), '1000 990 1010', 'F24 as he says');
	ok(defined settled(), 'F24 nothing stays prepared');
	$session = session($node_a);
	$id++;
	answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT');
	is(balances($id), '1000 990 1010', 'F24 the restored node coordinates again');
	$session->quit;
}

# resolve() does not contradict the register
{
	my $session = session($node_a);
	my ($gid, $rc, $out, $err);

	$id++;
	$_->append_conf('postgresql.conf', "risk_alert.recovery_interval = '1h'\n"), $_->restart foreach $node_b, $node_c;
	commit_until($session, 'commit 1', on('node_b', take($id)), on('node_c', give($id)));
	$gid = $node_b->safe_psql('postgres', q{SELECT gid FROM risk_alert.global_transactions});
	($rc, $out, $err) = $node_b->psql('postgres', qq{SELECT risk_alert.resolve('$gid')});
	like($err, qr/is in progress.*Its coordinator, node "node_a", may still commit it/s, 'resolve() leaves a transaction that is alive alone');
	$node_a->stop('immediate');
	eval { $session->quit };
	go();
	$node_a->start;
	($rc, $out, $err) = $node_b->psql('postgres', qq{SELECT risk_alert.resolve('$gid', 'abort')});
	like($err, qr/has committed.*Its register says so/s, 'resolve() does not contradict the register');
	is($node_b->safe_psql('postgres', qq{SELECT risk_alert.resolve('$gid', 'commit')}), 1, 'resolve() with the right decision');
	is($node_c->safe_psql('postgres', qq{SELECT risk_alert.resolve('$gid')}), 1, 'resolve() with none');
	is($node_c->safe_psql('postgres', qq{SELECT risk_alert.resolve('$gid')}), 0, 'resolve() when nothing is left');
	is(balances($id), '1000 990 1010', 'resolve() has committed');
	$_->append_conf('postgresql.conf', "risk_alert.recovery_interval = '200ms'\n"), $_->reload foreach $node_b, $node_c;
}

# Recovery uses a user mapping that works, not just the first
{
	my $session = session($node_a);

	$id++;
	$node_b->safe_psql('postgres', q{DROP USER MAPPING FOR CURRENT_USER SERVER node_a;
ALTER USER MAPPING FOR operator SERVER node_a OPTIONS (SET password 'wrong');
CREATE ROLE later; GRANT USAGE ON FOREIGN SERVER node_a TO later;
CREATE USER MAPPING FOR later SERVER node_a OPTIONS ("user" 'remote', password 't0p-secret')});
	commit_until($session, 'commit 1', on('node_b', take($id)), on('node_c', give($id)));
	$node_a->stop('immediate');
	eval { $session->quit };
	go();
	$node_a->start;
	ok(defined settled(), 'recovery tries other user mappings than the first, which has a wrong password');
	is(balances($id), '1000 990 1010', 'and finds out what was decided');
	$node_b->safe_psql('postgres', q{DROP USER MAPPING FOR later SERVER node_a; DROP OWNED BY later; DROP ROLE later;
ALTER USER MAPPING FOR operator SERVER node_a OPTIONS (SET password 't0p-secret'); CREATE USER MAPPING FOR CURRENT_USER SERVER node_a});
}

# F22 A branch is finished by somebody else, so that the answer is "does not exist"
{
	my $session = session($node_a);
	my $gid;

	$id++;
	commit_until($session, 'commit 2', on('node_b', take($id)), on('node_c', give($id)));
	$gid = $node_c->safe_psql('postgres', q{SELECT gid FROM pg_prepared_xacts});
	$node_c->safe_psql('postgres', "COMMIT PREPARED '$gid'");
	go();
	is(outcome($session), '', 'F22 a branch that is finished already is no news');
	is(balances($id), '1000 990 1010', 'F22 and no harm');
	$session->quit;
}

# F23 A node falls silent, and speaks again
{
	my $silent = sub {
		my ($step) = @_;
		my $session = session($node_a);
		my ($pid, $message);

		$id++;
		commit_until($session, $step, on('node_b', take($id)), on('node_c', give($id)));
		$pid = $node_c->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'risk_alert node_a' AND backend_type = 'client backend'
			AND (state = 'idle in transaction' OR query LIKE 'PREPARE TRANSACTION%')});
		kill('STOP', $pid);
		go();
		$message = outcome($session);
		kill('CONT', $pid);
		$session->quit;
		ok(defined settled(), "F23 a node is silent from \"$step\" on: nothing stays prepared");
		return $message;
	};
	$node_a->append_conf('postgresql.conf', "risk_alert.commit_timeout = '500ms'\n");
	$node_a->reload;
	wait_until($node_a, 'SHOW risk_alert.commit_timeout', '500ms');
	like($silent->('prepare 2'), qr/ERROR:  57014: not all nodes have prepared/, 'F23 a node that does not prepare in time');
	is(balances($id), '1000 1000 1000', 'F23 aborts all');
	$node_a->append_conf('postgresql.conf', "risk_alert.commit_timeout = '30s'\n");
	$node_a->reload;
	wait_until($node_a, 'SHOW risk_alert.commit_timeout', '30s');
	like($silent->('commit 1'), qr/^psql\S* WARNING:  01000: global transaction "\S+" is committed, but its branch on node "node_c" is not finished yet/, 'F23 one that does not commit in time');
	is(balances($id), '1000 990 1010', 'F23 commits later');
}

# Cancelling, time limits
{
	my $session = session($node_a);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $sleeping = q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1000)%' AND state = 'active' AND pid <> pg_backend_pid()};

	$id++;
	answer($session, 'BEGIN;' . on('node_b', take($id)));
	begin($session, on('node_c', 'SELECT pg_sleep(1000)'));
	ok(wait_until($node_c, $sleeping, 1), 'a statement runs in a branch');
	$node_a->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	like(outcome($session), qr/57014/, 'cancelled');
	ok(wait_until($node_c, $sleeping, 0), 'there, too');
	answer($session, 'ROLLBACK');
	like(answer($session, q{SET statement_timeout = '100ms'; } . on('node_c', 'SELECT pg_sleep(1000)')), qr/57014: canceling statement due to statement timeout/, 'statement_timeout');
	answer($session, 'RESET statement_timeout');
	ok(wait_until($node_c, $sleeping, 0), 'statement_timeout ends it there');

	# in a savepoint: what came before stays
	answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';SAVEPOINT s');
	begin($session, on('node_c', 'SELECT pg_sleep(1000)'));
	wait_until($node_c, $sleeping, 1);
	$node_a->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	like(outcome($session), qr/57014/, 'cancelled in a savepoint');
	answer($session, 'ROLLBACK TO s');
	is(answer($session, 'COMMIT'), '', 'the transaction commits');
	is(balances($id), '1000 990 1010', 'with what came before the savepoint');

	# PREPARE waits for a deferred trigger: commit_timeout
	$node_c->safe_psql('postgres', q{CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1000); RETURN NULL; END';
CREATE TABLE slow (id int);
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();});
	$node_a->append_conf('postgresql.conf', "risk_alert.commit_timeout = '500ms'\n");
	$node_a->reload;
	wait_until($node_a, 'SHOW risk_alert.commit_timeout', '500ms');
	answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', 'INSERT INTO slow VALUES (1)'));
	like(answer($session, 'COMMIT'), qr/57014: not all nodes have prepared the transaction within 500 ms/, 'commit_timeout');
	ok(defined settled(), 'commit_timeout: nothing stays prepared');
	is(balances($id), '1000 990 1010', 'commit_timeout: all is rolled back');
	$node_c->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'risk_alert node_a'; DROP TABLE slow});
	$node_a->append_conf('postgresql.conf', "risk_alert.commit_timeout = '30s'\n");
	$node_a->reload;
	$session->quit;
}

# A single branch whose connection breaks while it commits: the outcome is unknown, and can be learnt
{
	my $session = session($node_a);
	my ($message, $xid);

	$id++;
	commit_until($session, 'commit 1', on('node_b', take($id)));
	$node_b->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'risk_alert node_a' AND state = 'idle in transaction'});
	go();
	$message = outcome($session);
	like($message, qr/ERROR:  08007: it is not known whether the transaction has committed on node "node_b".*HINT:.*SELECT pg_xact_status\('(\d+)'\) tells/s, 'one branch: an unknown outcome is told');
	($xid) = $message =~ /pg_xact_status\('(\d+)'\)/;
	is($node_b->safe_psql('postgres', "SELECT pg_xact_status('$xid')"), 'aborted', 'one branch: its node knows');
	is(balances($id), '1000 1000 1000', 'one branch: as it says');
	$session->quit;
}

# The lock of the transaction outlives its branches
{
	my $session = session($node_a);

	$id++;
	commit_until($session, 'commit 2', q{SELECT risk_alert.advisory_xact_lock('account')}, on('node_b', take($id)), on('node_c', give($id)));
	is($node_a->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock('account') IS NULL}), 't', 'a lock is held while branches are committed');
	go();
	is(outcome($session), '', 'it commits');
	is($node_a->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock('account') IS NULL}), 'f', 'and is free afterwards');
	is(balances($id), '1000 990 1010', 'when all is committed');
	$session->quit;
}

# Who may, and what nodes must have
{
	my $session = session($node_a, 'operator');

	$id++;
	is(answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)) . ';COMMIT'), "1\n1", 'an administrator may');
	is(balances($id), '1000 990 1010', 'with the rights of his user mapping');
	like(answer($session, on('node_b', 'SELECT * FROM pg_authid')), qr/42501/, 'and no others');
	$node_a->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER node_b FROM operator');
	like(answer($session, on('node_b', take($id))), qr/42501: permission denied for node "node_b"/, 'USAGE of the server is needed');
	$node_a->safe_psql('postgres', 'GRANT USAGE ON FOREIGN SERVER node_b TO operator; REVOKE risk_alert_admin FROM operator');
	like(answer($session, on('node_b', take($id))), qr/42501: permission denied for function global_execute/, 'and to be an administrator');
	$node_a->safe_psql('postgres', 'GRANT risk_alert_admin TO operator');

	# killed between decision and commit, it is finished on behalf of the role
	$id++;
	commit_until(session($node_a), 'commit 1', 'SELECT 1', on('node_b', take($id)), on('node_c', give($id)));
	go();
	$session->quit;
	ok(defined settled(), 'nothing stays prepared');
}

# F20 No place for prepared transactions
{
	my $session = session($node_a);

	$id++;
	$node_c->append_conf('postgresql.conf', "max_prepared_transactions = 0\n");
	$node_c->restart;
	answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)));
	like(answer($session, 'COMMIT'), qr/ERROR:  55000: prepared transactions are disabled\nHINT:.*max_prepared_transactions.*statement on node "node_c"/s, 'F20 max_prepared_transactions = 0 is told');
	is(balances($id), '1000 1000 1000', 'F20 and nothing is done');
	is(answer($session, on('node_c', give($id))), 1, 'F20 one branch alone works');
	is(answer($session, 'BEGIN;' . on('node_a', take($id)) . ';' . on('node_b', give($id)) . ';' . on('node_c', 'SELECT FROM account') . ';COMMIT'), "1\n1\n200", 'F20 a branch that has only read needs none');
	is(answer($session, 'BEGIN;' . on('node_a', give($id)) . ';' . on('node_b', take($id)) . ';COMMIT'), "1\n1", 'F20 nor do other nodes');
	$node_c->append_conf('postgresql.conf', "max_prepared_transactions = 1\n");
	$node_c->restart;
	$node_c->safe_psql('postgres', q{BEGIN; CREATE TABLE mine (); PREPARE TRANSACTION 'mine'});
	answer($session, 'BEGIN;' . on('node_b', take($id)) . ';' . on('node_c', give($id)));
	like(answer($session, 'COMMIT'), qr/ERROR:  53200: maximum number of prepared transactions reached\nHINT:.*max_prepared_transactions.*statement on node "node_c"/s, 'F20 a full table is told');
	is(balances($id), '1000 1000 1010', 'F20 and nothing is done');
	is($node_c->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts'), 'mine', 'what is not ours is not touched');
	$node_c->safe_psql('postgres', q{ROLLBACK PREPARED 'mine'});
	$node_c->append_conf('postgresql.conf', "max_prepared_transactions = 20\n");
	$node_c->restart;

	$node_c->append_conf('postgresql.conf', "risk_alert.cluster_name = 'other'\n");
	$node_c->restart;
	like(answer($session, on('node_c', give($id))), qr/ERROR:  55000: node "node_c" is of another cluster/, 'a node of another cluster is refused');
	$node_c->adjust_conf('postgresql.conf', 'risk_alert.cluster_name', undef);
	$node_c->restart;
	$node_a->safe_psql('postgres', q{ALTER SERVER node_c OPTIONS (SET dbname 'template1')});
	like(answer($session, on('node_c', give($id))), qr/ERROR:  55000: node "node_c" cannot take part.*does not have the extension/s, 'a database without the extension is refused');
	$node_a->safe_psql('postgres', q{ALTER SERVER node_c OPTIONS (SET dbname 'postgres')});
	$session->quit;
}

# Rows of the register that crashes have left
ok(wait_until($node_a, 'SELECT count(*) FROM risk_alert._global_unfinished', 0), 'what is left of the register after crashes is swept away');
is($node_a->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.global_transactions}), 0, 'no transaction is left');

# A branch that waits for long is a finding
{
	my $session = session($node_a);

	$id++;
	$node_b->append_conf('postgresql.conf', "risk_alert.prepared_warning = '1s'\n");
	$node_b->reload;
	commit_until($session, 'commit 1', on('node_b', take($id)), on('node_c', give($id)));
	ok(wait_until($node_b, q{SELECT level, description FROM risk_alert.check_setup() WHERE name = 'global_transaction'}, 'warning|a branch of a global transaction waits for its outcome'),
		'check_setup() warns of a branch that stays prepared');
	go();
	outcome($session);
	$session->quit;
	is($node_b->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.check_setup() WHERE name = 'global_transaction'}), 0, 'until it is finished');
}

# The process that recovers is in nobody's way
{
	my $in_x = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'risk_alert recovery' AND datname = 'x'};
	my $leave = sub {
		my ($name) = @_;
		my $gid = $node_a->safe_psql('x', q{SELECT format('ra:risk_alert:node_a:l:%s:%s:7fffffff:%s:1', to_hex(d.oid::bigint), to_hex(e.epoch), to_hex((pg_current_wal_flush_lsn() - '0/0')::bigint))
			FROM pg_database d, risk_alert.global_epoch e WHERE d.datname = 'x' ORDER BY e.began_at DESC LIMIT 1});
		$node_a->safe_psql('x', "BEGIN; CREATE TABLE $name (); PREPARE TRANSACTION '$gid'");
		ok(wait_until($node_a, 'SELECT count(*) FROM pg_prepared_xacts', 0, 'x'), "a branch is found in another database ($name)");
		is($node_a->safe_psql('postgres', $in_x), 1, 'by a process there');
	};

	$node_a->append_conf('postgresql.conf', "risk_alert.recovery_interval = '2s'\n");
	$node_a->reload;
	$node_a->safe_psql('postgres', 'CREATE DATABASE x');
	$node_a->safe_psql('x', 'CREATE EXTENSION risk_alert');
	wait_until($node_a, 'SELECT count(*) FROM risk_alert.global_epoch', 1, 'x');
	$leave->('one');
	$node_a->safe_psql('postgres', 'CREATE DATABASE y TEMPLATE x');
	is($node_a->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'y'}), 1, 'its database can be copied');
	wait_for_worker($node_a, 'x');
	$leave->('two');
	$node_a->safe_psql('postgres', 'DROP DATABASE x; DROP DATABASE y');
	is($node_a->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname IN ('x', 'y')}), 0, 'and dropped');
	$node_a->append_conf('postgresql.conf', "risk_alert.recovery_interval = '200ms'\n");
	$node_a->reload;
}

# Many at once, while servers crash
{
	my $script = $node_a->basedir . '/transfer.sql';
	my $log = $node_a->basedir . '/pgbench.log';
	my ($sum, $before);

	$sum = sub {
		my $total = 0;
		$total += $_->safe_psql('postgres', 'SELECT sum(balance) FROM account') foreach @nodes;
		return $total;
	};
	append_to_file($script, q{\set id random(1, 200)
\set n random(1, 3)
BEGIN;
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = balance - $1::int WHERE id = $2::int', ARRAY[':n', ':id']);
SELECT risk_alert.global_execute('node_c', 'UPDATE account SET balance = balance + $1::int WHERE id = $2::int', ARRAY[':n', ':id']);
COMMIT;
});
	$before = $sum->();
	foreach my $victim ($node_c, $node_b, $node_a)
	{
		my $pgbench = IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-T', 3, '-f', $script, $node_a->connstr('postgres') ], '>', $log, '2>', "$log.err");
		my $done = $node_a->safe_psql('postgres', 'SELECT sum(xact_commit) FROM pg_stat_database');
		wait_until($node_a, "SELECT sum(xact_commit) > $done + 20 FROM pg_stat_database");
		$victim->stop('immediate');
		$victim->start;
		eval { $pgbench->finish };
		ok(defined settled(), 'under load, ' . $victim->name . ' crashes: nothing stays prepared');
		is($sum->(), $before, 'under load, ' . $victim->name . ' crashes: no money is lost or made');
	}
}

$_->stop foreach @nodes;
done_testing();
