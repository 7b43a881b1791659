# cluster_alerts: the open alerts of three nodes, of which some are down, hang, are slow,
# refuse, or have another version.

use strict;
use warnings FATAL => 'all';

use LockCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;
use Time::HiRes qw(time);

my @nodes = new_cluster([ 'node_a', 'node_b', 'node_c' ]);
my ($node_a, $node_b, $node_c) = @nodes;
my $alerts = q{SELECT string_agg(DISTINCT node || ':' || event_key, ' '), array_to_string(min(missing_nodes), ',') FROM risk_alert.cluster_alerts};

sub pids { my ($node) = @_; return (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0]; }

# What a session gets, its warnings included, and how long that takes
sub timed
{
	my ($session) = @_;
	my $began = time;
	$session->{stderr} = '';
	my $out = $session->query($alerts);
	return ($out, $session->{stderr}, time - $began);
}

foreach my $i (0 .. 2)
{
	create_payments($nodes[$i]);
	$nodes[$i]->safe_psql('postgres', "INSERT INTO payments VALUES ($i, 7, 2000, '2026-03-03 10:00Z')");
	drain($nodes[$i]);
}
$node_c->safe_psql('postgres', q{SELECT risk_alert.create_rule('payments', 'worse', 'amount > 3000', points => 30, severity => 'critical');
INSERT INTO payments VALUES (3, 8, 4000, '2026-03-03 10:00Z')});
drain($node_c);

# All nodes
{
	my $session = session($node_a, 'operator');
	my ($out, $warnings) = timed($session);
	is($out, 'node_a:0 node_b:1 node_c:2 node_c:3|', 'the alerts of all nodes');
	is($warnings, '', 'none is missing');
	is(answer($session, q{SELECT node, severity, score, missing_nodes FROM risk_alert.cluster_alerts LIMIT 1}), 'node_c|critical|90|{}', 'the worst of all first');
	is(answer($session, q{SET intervalstyle = sql_standard; SET datestyle = German; SET timezone = 'Asia/Tokyo';
		SELECT count(*) FROM risk_alert.cluster_alerts c
		JOIN risk_alert.on_node('node_c', 'SELECT alert_id, event_time, raised_at, reasons, features, rules FROM risk_alert.open_alerts')
			AS o (alert_id bigint, event_time timestamptz, raised_at timestamptz, reasons jsonb, features jsonb, rules text[])
			USING (alert_id, event_time, raised_at, reasons, features, rules) WHERE c.node = 'node_c' AND c.age >= '0'}),
		2, 'they are what the node itself shows');
	$node_c->safe_psql('postgres', q{SELECT risk_alert.resolve(alert_id, 'false_positive') FROM risk_alert.open_alerts WHERE event_key = '3'});
	is((timed($session))[0], 'node_a:0 node_b:1 node_c:2|', 'one that is resolved there is no longer listed');

	# what another version sends
	$node_c->safe_psql('postgres', q{CREATE DATABASE other});
	$node_c->safe_psql('other', q{CREATE SCHEMA risk_alert; GRANT USAGE ON SCHEMA risk_alert TO PUBLIC;
CREATE VIEW risk_alert.open_alerts AS SELECT 1 AS from_the_future, 'old'::text AS stream, 7::bigint AS alert_id, 50 AS score, 'e'::text AS event_key, 'low' AS severity;
GRANT SELECT ON risk_alert.open_alerts TO PUBLIC});
	$node_a->safe_psql('postgres', q{ALTER SERVER node_c OPTIONS (SET dbname 'other')});
	is(answer($session, q{SELECT alert_id, stream, entity, score, event_key, rules IS NULL FROM risk_alert.cluster_alerts WHERE node = 'node_c'}), '7|old||50|e|t', 'a view of another version: what both have');
	$node_c->safe_psql('other', q{DROP VIEW risk_alert.open_alerts; CREATE VIEW risk_alert.open_alerts AS SELECT 'many'::text AS score; GRANT SELECT ON risk_alert.open_alerts TO PUBLIC});
	my ($row, $warning) = timed($session);
	is($row, 'node_a:0 node_b:1|node_c', 'one that cannot be understood is missing, the others are there');
	like($warning, qr/WARNING:  01000: alerts of node "node_c" are missing: invalid input syntax for type integer: "many"/, 'the warning says why');
	$node_c->safe_psql('other', q{DROP SCHEMA risk_alert CASCADE});
	like((timed($session))[1], qr/"node_c" are missing: relation "risk_alert.open_alerts" does not exist/, 'a node without the extension is missing');
	$node_a->safe_psql('postgres', q{ALTER SERVER node_c OPTIONS (SET dbname 'postgres')});

	# rights there
	$node_c->safe_psql('postgres', 'REVOKE risk_alert_admin FROM remote');
	like((timed($session))[1], qr/"node_c" are missing: permission denied for schema risk_alert|"node_c" are missing: permission denied for view open_alerts/, 'a node where the role has no rights is missing');
	$node_c->safe_psql('postgres', 'GRANT risk_alert_admin TO remote');

	# rights here
	$node_a->safe_psql('postgres', 'DROP USER MAPPING FOR operator SERVER node_b');
	($row, $warning) = timed($session);
	is($row, 'node_a:0 node_c:2|node_b', 'who has no mapping for a node sees the others');
	like($warning, qr/"node_b" are missing: role operator has no user mapping for node "node_b"/, 'and is told');
	is(() = $warning =~ /WARNING/g, 1, 'once');
	$node_a->safe_psql('postgres', q{CREATE USER MAPPING FOR operator SERVER node_b OPTIONS ("user" 'remote', password 'wrong')});
	like((timed($session))[1], qr/"node_b" are missing: could not connect to node "node_b"\nDETAIL:.*password authentication failed/, 'a wrong password is told');
	$node_a->safe_psql('postgres', q{ALTER USER MAPPING FOR operator SERVER node_b OPTIONS (SET password 't0p-secret')});
	is((timed($session))[0], 'node_a:0 node_b:1 node_c:2|', 'put right, it is there again');

	# more rows than are converted at once
	$node_b->safe_psql('postgres', q{INSERT INTO payments SELECT 1000 + g, 10000 + g, 2000, '2026-03-03 10:00Z' FROM generate_series(1, 2500) g});
	drain($node_b);
	is(answer($session, q{SELECT node, count(*), count(DISTINCT alert_id), count(event_key) FROM risk_alert.cluster_alerts GROUP BY node ORDER BY node}),
		"node_a|1|1|1\nnode_b|2501|2501|2501\nnode_c|1|1|1", 'many alerts');
	$node_b->safe_psql('postgres', q{DELETE FROM risk_alert.alert WHERE event_key::bigint > 1000});
	$session->quit;
}

# A node that is slow
{
	my $session = session($node_a, 'operator');
	my $locker = session($node_b);
	my $waiting = q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'remote' AND wait_event_type = 'Lock'};

	answer($locker, 'BEGIN; LOCK TABLE risk_alert.alert');
	begin($session, $alerts);
	ok(wait_until($node_b, $waiting, 1), 'a node is waited for');
	$node_a->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'operator' AND state = 'active'});
	like(outcome($session), qr/ERROR:  57014: canceling statement due to user request/, 'which can be cancelled');
	is($node_b->safe_psql('postgres', $waiting), 0, 'there, too');

	my ($out, $warning, $took) = timed($session);
	is($out, 'node_a:0 node_c:2|node_b', 'a node that does not answer in time is missing');
	like($warning, qr/"node_b" are missing: it did not answer in time/, 'the warning says why');
	is($node_b->safe_psql('postgres', $waiting), 0, 'its statement is cancelled');
	cmp_ok($took, '<', 10, "within the bound: $took s");

	# what a node cancels by itself is no cancellation here
	$node_b->safe_psql('postgres', q{ALTER ROLE remote SET statement_timeout = '100ms'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'remote'});
	($out, $warning) = timed($session);
	is($out, 'node_a:0 node_c:2|node_b', 'a node that cancels the statement is missing');
	like($warning, qr/"node_b" are missing: canceling statement due to statement timeout/, 'the warning says why');
	$node_b->safe_psql('postgres', 'ALTER ROLE remote RESET ALL');
	answer($locker, 'ROLLBACK');
	$locker->quit;
	$session->quit;
}

# Nodes that hang: with a connection, and without; each phase takes them all at once
{
	my $session = session($node_a);
	is((timed($session))[0], 'node_a:0 node_b:1 node_c:2|', 'connected to all');
	my @there = map { pids($_), $_->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'risk_alert node_a' AND pid <> pg_backend_pid()}) } $node_b, $node_c;
	my $new = session($node_a);

	kill('STOP', @there) == @there or die 'could not stop the nodes';
	my ($out, $warning, $took) = timed($session);
	is($out, 'node_a:0|node_b,node_c', 'nodes that hang are missing');
	like($warning, qr/"node_b" are missing: it did not answer in time.*"node_c" are missing: it did not answer in time/s, 'in the middle of a connection');
	cmp_ok($took, '<', 9, "two take no longer than one: $took s");
	($out, $warning, $took) = timed($new);
	is($out, 'node_a:0|node_b,node_c', 'and for a new session');
	like($warning, qr/"node_b" are missing: could not connect.*There was no answer.*"node_c" are missing: could not connect/s, 'that cannot connect');
	cmp_ok($took, '<', 5.9, "two take no longer than one: $took s");
	begin($new, $alerts);
	wait_until($node_a, q{SELECT count(*) FROM pg_stat_activity WHERE query ~ 'cluster_alerts' AND wait_event_type = 'Extension'}, 1);
	$node_a->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ 'cluster_alerts' AND state = 'active' AND pid <> pg_backend_pid()});
	like(outcome($new), qr/ERROR:  57014/, 'connecting can be cancelled');
	begin($new, q{DO $$ BEGIN PERFORM FROM risk_alert.cluster_rule_sets; EXCEPTION WHEN query_canceled THEN RAISE NOTICE 'caught'; END $$});
	wait_until($node_a, q{SELECT count(*) FROM pg_stat_activity WHERE query ~ '^DO.*cluster_rule_sets' AND wait_event_type = 'Extension'}, 1);
	$node_a->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ '^DO.*cluster_rule_sets'});
	like(outcome($new), qr/caught/, 'and the cancellation can be caught');
	is(answer($new, 'BEGIN'), '', 'with no subtransaction left open');
	answer($new, 'ROLLBACK');
	kill('CONT', @there);
	is((timed($session))[0], 'node_a:0 node_b:1 node_c:2|', 'when they move again, they are asked again');
	is((timed($new))[0], 'node_a:0 node_b:1 node_c:2|', 'by all sessions');

	# a node that is down
	$node_c->stop;
	($out, $warning, $took) = timed($session);
	is($out, 'node_a:0 node_b:1|node_c', 'a node that is down is missing');
	like($warning, qr/"node_c" are missing: could not connect to node "node_c"\nDETAIL:  .*(refused|No such file)/, 'the warning says why');
	cmp_ok($took, '<', 3, "and nobody waits for it: $took s");
	$node_c->start;
	is((timed($session))[0], 'node_a:0 node_b:1 node_c:2|', 'when it is up, it is there again');
	$_->quit foreach $session, $new;
}
$_->stop foreach @nodes;

# Who is no live member is not asked
{
	my $cluster = LockCluster->new('redis', nodes => 3, timeout => 2000);
	my @node = $cluster->nodes;
	my $missing = sub { my ($rc, $out, $err) = $node[0]->psql('postgres', 'SELECT node FROM risk_alert.cluster_alerts'); return $err };

	foreach my $i (1, 3)
	{
		my $to = $node[ $i % 3 ];
		$node[0]->safe_psql('postgres', "CREATE SERVER node_$i FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '"
			  . $to->host . "', port '" . $to->port . "', dbname 'postgres'); CREATE USER MAPPING FOR CURRENT_USER SERVER node_$i");
	}
	ok(wait_until($node[0], 'SELECT count(*) FROM risk_alert.nodes WHERE live', 3), 'three members');
	my $warnings = $missing->();
	like($warnings, qr/"node_2" are missing: this database has no server for it/, 'a member without a server is missing');
	like($warnings, qr/"node_3" are missing: it is not a live member of the cluster/, 'one with a server that is no member, too');
	unlike($warnings, qr/"node_[01]"/, 'the others are not');
	$node[1]->stop('immediate');
	ok(wait_until($node[0], 'SELECT count(*) FROM risk_alert.nodes WHERE live', 2), 'two are left');
	like($missing->(), qr/"node_1" are missing: it is not a live member of the cluster/, 'a node that is gone is not asked');
	$node[1]->start;
	$cluster->wait_connected($node[1]);
	$cluster->{service}->pause;
	ok(wait_until($node[0], q{SELECT state <> 'connected' FROM risk_alert.stat_coordination}), 'the service does not answer');
	$warnings = $missing->();
	unlike($warnings, qr/"node_1"/, 'then all nodes are asked');
	like($warnings, qr/"node_3" are missing: it calls itself "node_0"/, 'as it is not known who lives');
	$cluster->{service}->resume;
	$cluster->stop;
}

done_testing();
