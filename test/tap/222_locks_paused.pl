# A holder that is paused for longer than its node's session lives, and wakes up
# when others have the lock: it must not commit, nor write what a fence guards, nor
# let go of what is theirs.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use LockCluster;
use RiskAlert;
use Test::More;

for my $provider (qw(redis zookeeper))
{
	my $cluster = LockCluster->new($provider, nodes => 2, timeout => 1500);
	my ($a, $b) = $cluster->nodes;
	$b->safe_psql('postgres', 'CREATE TABLE resource (writer text)');

	my ($xact, $kept, $reader, $other) = (session($a), session($a), session($a), session($b));
	my ($old) = ask($xact, q{BEGIN; SELECT risk_alert.advisory_xact_lock('xact')});
	my ($kept_token) = ask($kept, q{SELECT risk_alert.advisory_lock('kept')});
	ask($reader, q{SELECT risk_alert.advisory_lock_shared('doc')});
	my ($backend) = ask($xact, 'SELECT pg_backend_pid()');
	my $broker = broker_pid($a);

	kill 'STOP', $backend, $broker;
	my ($new, $err) = ask($other, q{SELECT risk_alert.advisory_lock('xact', '30s')});
	like($new, qr/^\d+$/, "$provider: another node gets it");
	my ($others) = ask($other, q{SELECT risk_alert.advisory_lock('kept', '30s')});
	is(join(' ', ask($other, "SELECT $new > $old AND $others > $kept_token")), 't ', "$provider: with a higher token");

	my $write = "BEGIN; SELECT risk_alert.check_fence('xact', %s); INSERT INTO resource VALUES ('%s'); COMMIT;";
	my $guard = session($b);
	(undef, $err) = ask($guard, sprintf($write, $new, 'new'));
	is($err, '', "$provider: the new holder writes");
	ask($other, q{SELECT risk_alert.advisory_unlock('xact')});

	kill 'CONT', $backend;
	(undef, $err) = ask($guard, sprintf($write, $old, 'old'));
	like($err, qr/40001: .*token of advisory lock "xact" is out of date/, "$provider: the old holder's write is refused");
	ask($guard, 'ROLLBACK');
	is($b->safe_psql('postgres', 'SELECT string_agg(writer, \' \') FROM resource'), 'new', "$provider: and not there");

	# the broker still sleeps: nobody has told
	is($a->safe_psql('postgres', q{SELECT key, lost FROM risk_alert._lock_entries() WHERE key = 'kept'}), 'kept|t',
		"$provider: it is shown as lost");
	(undef, $err) = ask($xact, 'COMMIT');
	like($err, qr/40001: .*advisory lock "xact" was lost/, "$provider: COMMIT fails, without being told");

	kill 'CONT', $broker;
	wait_for { status($a, q{losses > 0 AND state = 'connected' AND lease_ms > 0}) eq 't' } 'a new session';
	is($a->safe_psql('postgres', q{SELECT granted, lost FROM risk_alert.advisory_locks WHERE key = 'kept' AND pid IS NOT NULL}),
		'f|t', "$provider: still shown as lost in the new session");
	(undef, $err) = ask($kept, q{SELECT risk_alert.advisory_lock('kept')});
	like($err, qr/40001: .*advisory lock "kept" was lost/, "$provider: the next call that takes it fails");
	(my $out, $err) = ask($kept, q{SELECT risk_alert.advisory_unlock('kept')});
	is($out, 'f', "$provider: unlock returns false");
	like($err, qr/WARNING: .*advisory lock "kept" had been lost/, "$provider: with a warning");
	($out, $err) = sql($a, q{SELECT risk_alert.advisory_lock('kept', '500ms')});
	like($err, qr/55P03/, "$provider: and does not free the other's lock");
	is((ask($other, q{SELECT risk_alert.advisory_unlock('kept')}))[0], 't', "$provider: who still has it");

	# a lost reader does not let go of what a later one of the same node has
	my $later = session($a);
	($out) = ask($later, q{SELECT risk_alert.advisory_lock_shared('doc', '10s') IS NOT NULL});
	is($out, 't', "$provider: a later reader");
	is((ask($reader, q{SELECT risk_alert.advisory_unlock_shared('doc')}))[0], 'f', "$provider: the lost one lets go");
	(undef, $err) = sql($b, q{SELECT risk_alert.advisory_lock('doc', '1s')});
	like($err, qr/55P03/, "$provider: no writer beside the later one");
	is((ask($later, q{SELECT risk_alert.advisory_unlock_shared('doc')}))[0], 't', "$provider: which has it till it lets go");

	if ($provider eq 'redis')
	{
		# the lock alone is removed at the service, the session lives
		ask($xact, q{BEGIN; SELECT risk_alert.advisory_xact_lock('gone')});
		is($cluster->{service}->command('DEL', '{risk_alert}:lock:tgone'), 1, 'redis: a lock is removed');
		$cluster->{service}->command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
		ok(RiskAlert::wait_until($a, q{SELECT lost FROM risk_alert._lock_entries() WHERE key = 'gone'}), 'redis: and found missing');
		(undef, $err) = ask($xact, 'COMMIT');
		like($err, qr/40001: .*"gone" was lost.*removed it there/s, 'redis: COMMIT fails');
	}

	$_->quit for $xact, $kept, $reader, $other, $guard, $later;
	ok(nothing_left($cluster, 'kept'), "$provider: nothing is left");
	$cluster->stop;
}
done_testing();
