# Many locks, few places for them, deadlocks, errors in the middle, and what is
# passed on within a node.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use LockCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

sub memory
{
	my ($pid) = @_;
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^VmRSS:\s+(\d+)/m;
	return $kb;
}

# clients x n locks with keys of their own, one after the other
sub many
{
	my ($node, $name, $n) = @_;
	my $script = $node->basedir . '/many.sql';
	append_to_file($script, '') unless -e $script;
	open(my $file, '>', $script) or die "could not write \"$script\": $!";
	print $file qq{
SELECT risk_alert.advisory_lock('$name ' || :client_id || ' ' || nextval('n')) IS NOT NULL;
SELECT risk_alert.advisory_unlock_all();
};
	close $file;
	$node->command_ok([ 'pgbench', '-n', '-c', 4, '-t', $n / 4, '-f', $script, '-d', 'postgres' ], "$n locks ($name)");
	return;
}

for my $provider (qw(redis zookeeper))
{
	my $cluster = LockCluster->new($provider, nodes => 2, timeout => 4000, conf => 'risk_alert.max_locks = 64');
	my ($a, $b) = $cluster->nodes;
	my ($one, $two, $three) = map { session($a) } 1 .. 3;
	my ($out, $err);

	# 10,000 keys; a first round fills caches
	$a->safe_psql('postgres', 'CREATE SEQUENCE n CACHE 100');
	my $broker = broker_pid($a);
	many($a, 'warm', 2000);
	my $size = $provider eq 'redis' ? $cluster->{service}->command('DBSIZE') : 0;
	my $memory = memory($broker);
	many($a, 'keys', 10000);
	cmp_ok(memory($broker) - $memory, '<', 2048, "$provider: the broker does not grow ($memory kB before)");
	is($a->safe_psql('postgres', 'SELECT (SELECT count(*) FROM risk_alert.advisory_locks), (SELECT count(*) FROM risk_alert._lock_entries())'),
		'0|0', "$provider: no entry is left");
	is($b->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.advisory_locks'), '0', "$provider: nor at the service");
	is($cluster->{service}->command('DBSIZE'), $size, 'redis: nor a key') if $provider eq 'redis';

	# more keys at a time than there are places for
	($out, $err) = ask($one, q{SELECT count(risk_alert.advisory_lock('full ' || i)) FROM generate_series(1, 300) i});
	like($err, qr/53200: .*too many advisory locks.*Increase risk_alert.max_locks/s, "$provider: out of places");
	($out) = ask($one, q{SELECT risk_alert.advisory_unlock('full 1'), count(*) >= 64 FROM risk_alert._lock_entries()});
	is($out, 't|t', "$provider: what was had before is kept");
	ask($one, 'SELECT risk_alert.advisory_unlock_all()');
	ok(wait_until($a, 'SELECT count(*) FROM risk_alert._lock_entries()', 0), "$provider: all places are free again");
	is($b->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock('full 2') IS NOT NULL}), 't', "$provider: for everybody");

	is((sql($b, q{SELECT risk_alert.advisory_lock('free', '0') IS NOT NULL}))[0], 't',
		"$provider: a timeout of 0 gets what is free, though the service has to be asked");

	# a failed attempt leaves nothing behind, nor does its session's end
	ask($one, q{SELECT risk_alert.advisory_lock('k')});
	(undef, $err) = ask($two, q{SELECT risk_alert.advisory_lock('k', '0')});
	like($err, qr/55P03: .*could not obtain advisory lock "k" at once/, "$provider: a timeout of 0");
	my $other = session($a);
	ask($other, q{SELECT risk_alert.advisory_lock('k', '0')});
	$other->quit;
	($out, $err) = sql($b, q{SELECT risk_alert.advisory_lock('k', '300ms')});
	like($err, qr/55P03/, "$provider: who failed can't let go of it");
	is((ask($one, q{SELECT risk_alert.advisory_unlock('k')}))[0], 't', "$provider: which is still the holder's");
	($out, $err) = ask($two, q{SELECT risk_alert.advisory_lock('k') IS NOT NULL, risk_alert.advisory_unlock('k')});
	is($out . $err, 't|t', "$provider: who failed can try again");

	# savepoints: an inner transaction's lock ends with it
	ask($one, q{BEGIN; SAVEPOINT s; SELECT risk_alert.advisory_xact_lock('inner'); ROLLBACK TO s});
	is($b->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('inner', '5s') IS NOT NULL}), 't', "$provider: rolled back to a savepoint");
	ask($one, q{SAVEPOINT s; SELECT risk_alert.advisory_xact_lock('inner'); RELEASE s});
	(undef, $err) = sql($b, q{SELECT risk_alert.advisory_lock('inner', '300ms')});
	like($err, qr/55P03/, "$provider: a released savepoint keeps it");
	(undef, $err) = ask($one, q{PREPARE TRANSACTION 'p'});
	like($err, qr/0A000/, "$provider: no PREPARE TRANSACTION");
	is($b->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('inner', '5s') IS NOT NULL}), 't', "$provider: which ends the transaction");

	# shared to exclusive; readers that are many
	ask($one, q{SELECT risk_alert.advisory_lock_shared('doc')});
	(undef, $err) = ask($one, q{SELECT risk_alert.advisory_lock('doc')});
	like($err, qr/55000: .*can't be changed from shared to exclusive/, "$provider: not from shared to exclusive");
	(undef, $err) = ask($two, q{SET statement_timeout = '60s';
DO $$ BEGIN FOR i IN 1 .. 100100 LOOP
	PERFORM risk_alert.advisory_lock_shared('doc');
	PERFORM risk_alert.advisory_unlock_shared('doc');
END LOOP; END $$});
	is($err, '', "$provider: readers join a reader more often than a token counts");
	ask($one, q{SELECT risk_alert.advisory_unlock_shared('doc')});
	is($a->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('doc', '5s') IS NOT NULL}), 't', "$provider: and the lock goes on");

	# a try never waits for readers, even if a writer elsewhere waits for them
	ask($one, q{SELECT risk_alert.advisory_lock_shared('doc')});
	my $far = session($b);
	start($far, q{SELECT risk_alert.advisory_lock('doc')});
	wait_until($a, q{SELECT count(*) FROM risk_alert.advisory_locks WHERE key = 'doc' AND node = 'node_1' AND NOT granted}, 1);
	($out, $err) = ask($two, q{SET statement_timeout = '20s';
SELECT bool_or(CASE WHEN risk_alert.try_advisory_lock_shared('doc') IS NULL THEN true
	ELSE NOT risk_alert.advisory_unlock_shared('doc') END) FROM generate_series(1, 80)});
	is($out . $err, 't', "$provider: readers don't keep a writer out for ever, and a try does not wait");
	ask($two, 'SELECT risk_alert.advisory_unlock_all()');
	ask($one, 'SELECT risk_alert.advisory_unlock_all()');
	like((finish($far))[0], qr/^\d/, "$provider: the writer gets it");
	ask($far, 'SELECT risk_alert.advisory_unlock_all()');

	# readers of what a writer was granted are no strangers to each other's fence
	ask($one, q{SELECT risk_alert.advisory_lock('fence')});
	start($two, q{SELECT risk_alert.advisory_lock_shared('fence') AS t \gset});
	start($three, q{SELECT risk_alert.advisory_lock_shared('fence') AS t \gset});
	wait_until($a, q{SELECT count(*) FROM pg_locks WHERE objsubid = 21057 AND NOT granted}, 2);
	ask($one, q{SELECT risk_alert.advisory_unlock('fence')});
	finish($two);
	finish($three);
	$err = join '', map { (ask($_, q{SELECT risk_alert.check_fence('fence', :t, shared => true)}))[1] } $two, $three;
	is($err, '', "$provider: readers share a writer's grant");
	ask($_, 'SELECT risk_alert.advisory_unlock_all()') for $two, $three;

	# deadlocks: found within a node, timed out over nodes
	ask($one, q{SET deadlock_timeout = '100ms'; SELECT risk_alert.advisory_lock('d1')});
	ask($two, q{SELECT risk_alert.advisory_lock('d2')});
	start($two, q{SELECT risk_alert.advisory_lock('d1')});
	wait_until($a, q{SELECT count(*) FROM pg_locks WHERE objsubid = 21057 AND NOT granted}, 1);
	(undef, $err) = ask($one, q{SELECT risk_alert.advisory_lock('d2')});
	like($err, qr/40P01: deadlock detected/, "$provider: a deadlock within a node");
	ask($one, q{SELECT risk_alert.advisory_unlock('d1')});
	finish($two);
	ask($far, q{SELECT risk_alert.advisory_lock('d3')});
	start($far, q{SELECT risk_alert.advisory_lock('d2', '10s')});
	(undef, $err) = ask($two, q{SELECT risk_alert.advisory_lock('d3', '300ms')});
	like($err, qr/55P03: .*in time.*Another node holds it/s, "$provider: a deadlock over nodes is a time-out");
	ask($two, 'SELECT risk_alert.advisory_unlock_all()');
	like((finish($far))[0], qr/^\d/, "$provider: then the other goes on");
	$_->quit for $one, $two, $three, $far;

	# eight sessions pass one lock on among themselves
	my $script = $a->basedir . '/cohort.sql';
	append_to_file($script, q{SELECT risk_alert.advisory_lock('cohort') IS NOT NULL;
SELECT risk_alert.advisory_unlock('cohort');
});
	my ($grants, $requests) = split /\|/, status($a, 'grants, requests');
	$a->command_ok([ 'pgbench', '-n', '-c', 8, '-t', 500, '-f', $script, '-d', 'postgres' ], "$provider: 4000 grants");
	is(status($a, "grants - $grants"), 4000, "$provider: are counted");
	cmp_ok($requests = status($a, "requests - $requests"), '<', 800, "$provider: for few requests to the service ($requests)");

	ok(nothing_left($cluster, 'k'), "$provider: nothing is left");
	$cluster->stop;
}
done_testing();
