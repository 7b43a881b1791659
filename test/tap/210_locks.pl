# Advisory locks over several nodes, with each coordination service: exclusion,
# modes, time-outs, views, and what happens to locks of who goes away.

use strict;
use warnings FATAL => 'all';

use LockCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

for my $provider (qw(redis zookeeper))
{
	my $cluster = LockCluster->new($provider, nodes => 2, timeout => 3000);
	my ($a, $b) = $cluster->nodes;

	my $one = $a->background_psql('postgres', on_error_stop => 0);
	my $token = $one->query_safe(q{SELECT risk_alert.advisory_lock('account:42')});
	like($token, qr/^\d+$/, "$provider: a lock has a token");

	is($a->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock('account:42') IS NULL}), 't',
		"$provider: it is not free on the same node");
	is($b->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock('account:42') IS NULL}), 't',
		"$provider: nor on another one");
	is($b->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock('account:43') IS NULL}), 'f',
		"$provider: another one is");

	my ($rc, $out, $err) = $b->psql('postgres', q{\set VERBOSITY verbose
SELECT risk_alert.advisory_lock('account:42', timeout => '100ms')});
	like($err, qr/55P03: could not obtain advisory lock "account:42" in time.*Another node holds it/s,
		"$provider: timeout");
	($rc, $out, $err) = $b->psql('postgres', q{\set VERBOSITY verbose
SET lock_timeout = '100ms'; SELECT risk_alert.advisory_lock('account:42')});
	like($err, qr/55P03/, "$provider: lock_timeout");
	($rc, $out, $err) = $b->psql('postgres', q{\set VERBOSITY verbose
SET statement_timeout = '100ms'; SELECT risk_alert.advisory_lock('account:42')});
	like($err, qr/57014/, "$provider: statement_timeout");

	my $pid = $one->query_safe('SELECT pg_backend_pid()');
	for my $limit (q{SELECT risk_alert.advisory_lock_shared('account:42', timeout => '100ms')}, q{SET lock_timeout = '100ms'; SELECT risk_alert.advisory_lock('account:42')})
	{
		($rc, $out, $err) = $a->psql('postgres', "\\set VERBOSITY verbose\n$limit");
		like($err, qr/55P03: could not obtain advisory lock "account:42" in time.*Process $pid of this node holds it\./s,
			"$provider: who holds it on the same node");
	}

	is($b->safe_psql('postgres',
			q{SELECT key, node, mode, granted, pid IS NULL FROM risk_alert.advisory_locks}),
		'account:42|node_0|exclusive|t|t', "$provider: the other node sees who has it");

	my $two = $b->background_psql('postgres', on_error_stop => 0);
	$two->query_until(qr/waits/, q{\echo waits
SELECT risk_alert.advisory_lock('account:42') AS token \gset
});
	ok($a->poll_query_until('postgres',
			q{SELECT count(*) = 1 FROM risk_alert.advisory_locks WHERE node = 'node_1' AND NOT granted}),
		"$provider: a waiter of another node is seen");
	is($one->query_safe(q{SELECT risk_alert.advisory_unlock('account:42')}), 't', "$provider: unlocked");
	my $got = $two->query_safe('SELECT :token');
	is($a->safe_psql('postgres', "SELECT $got > $token"), 't', "$provider: the waiter gets it, with a higher token ($got)");
	$two->query_safe(q{SELECT risk_alert.advisory_unlock_all()});

	# readers share, over nodes; a writer waits for all of them
	$one->query_safe(q{SELECT risk_alert.advisory_lock_shared('doc')});
	$two->query_safe(q{SELECT risk_alert.advisory_lock_shared('doc')});
	is($b->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock_shared('doc') IS NULL}), 'f',
		"$provider: readers share");
	is($b->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock('doc') IS NULL}), 't',
		"$provider: no writer among them");
	$one->query_safe(q{SELECT risk_alert.advisory_unlock_all()});
	is($a->safe_psql('postgres', q{SELECT risk_alert.try_advisory_lock('doc') IS NULL}), 't',
		"$provider: nor with one left");
	$two->query_safe(q{SELECT risk_alert.advisory_unlock_all()});
	ok($a->poll_query_until('postgres', q{SELECT risk_alert.try_advisory_lock('doc') IS NOT NULL}),
		"$provider: but then");

	# every function, and both kinds of keys: what another node can have meanwhile, and when it ends
	my %try = (exclusive => 'try_advisory_lock', shared => 'try_advisory_lock_shared');
	for my $function (map { my $f = $_; map { "$_$f" } '', 'try_' }
		qw(advisory_lock advisory_lock_shared advisory_xact_lock advisory_xact_lock_shared))
	{
		my $shared = $function =~ /shared$/;
		my $xact = $function =~ /xact/;
		for my $key (q{'7'}, '7')
		{
			my ($other_key) = grep { $_ ne $key } q{'7'}, '7';
			$one->query_safe("BEGIN; SELECT risk_alert.$function($key), risk_alert.$function($key)");
			# with session level, one unlock is not enough; a COMMIT is for transaction level
			$one->query_safe('COMMIT; SELECT risk_alert.advisory_unlock' . ($shared ? '_shared' : '') . "($key)") unless $xact;
			is( $b->safe_psql('postgres', "
SELECT risk_alert.$try{exclusive}($key) IS NOT NULL, risk_alert.$try{shared}($key) IS NOT NULL,
	risk_alert.$try{exclusive}($other_key) IS NOT NULL, (SELECT string_agg(concat_ws(' ', key_type, key, mode, granted), ',')
	FROM risk_alert.advisory_locks WHERE node = 'node_0')"),
				'f|' . ($shared ? 't' : 'f') . '|t|' . ($key eq '7' ? 'bigint' : 'text') . ' 7 ' . ($shared ? 'shared' : 'exclusive') . ' t',
				"$provider: $function($key)");
			$one->query_safe($xact ? 'COMMIT' : 'SELECT risk_alert.advisory_unlock' . ($shared ? '_shared' : '') . "($key)");
			ok($b->poll_query_until('postgres', "SELECT risk_alert.$try{exclusive}($key) IS NOT NULL"), "$provider: and its end");
		}
	}

	# members and leader
	is($a->safe_psql('postgres', q{SELECT string_agg(name || live, ',' ORDER BY name) FROM risk_alert.nodes}),
		'node_0true,node_1true', "$provider: members");
	ok($a->poll_query_until('postgres', q{SELECT count(*) = 1 FROM risk_alert.nodes WHERE leader}),
		"$provider: one leader");
	my @leaders = map { $_->safe_psql('postgres', 'SELECT risk_alert.is_leader()') } $a, $b;
	is(scalar(grep { $_ eq 't' } @leaders), 1, "$provider: which knows that it is");

	# who ends, lets go
	$one->query_safe(q{SELECT risk_alert.advisory_lock('account:42')});
	$one->quit;
	is($b->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('account:42', '10s') IS NOT NULL}), 't',
		"$provider: the end of a session releases its locks");

	# nothing is left
	$two->quit;
	ok($a->poll_query_until('postgres', q{SELECT count(*) = 0 FROM risk_alert.advisory_locks}),
		"$provider: nothing is left");
	$cluster->stop;
}

done_testing();
