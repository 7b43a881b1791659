# Members, the leader, and the choice among live nodes, with three nodes and each
# coordination service: who is gone is not chosen, there are never two leaders.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use LockCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes qw(time);

sub live { my ($node) = @_; return $node->safe_psql('postgres', q{SELECT string_agg(name, ',' ORDER BY name) FROM risk_alert.nodes WHERE live}); }
sub leads { my ($node) = @_; return $node->safe_psql('postgres', 'SELECT risk_alert.is_leader()') eq 't'; }

for my $provider (qw(redis zookeeper))
{
	my $cluster = LockCluster->new($provider, nodes => 3, timeout => 2000);
	my @node = $cluster->nodes;

	for my $node (@node)
	{
		for my $i (0 .. 2)
		{
			$node->safe_psql('postgres',
				"CREATE SERVER node_$i FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '"
				  . $node[$i]->host . "', port '" . $node[$i]->port . "', dbname 'postgres');"
				  . "CREATE USER MAPPING FOR CURRENT_USER SERVER node_$i");
		}
		ok($node->poll_query_until('postgres',
				q{SELECT count(*) = 3 FROM risk_alert.nodes WHERE live AND load >= 0}),
			"$provider: all know all: " . live($node));
	}

	# the choice
	is($node[0]->safe_psql('postgres', q{
SELECT string_agg(DISTINCT n, ',' ORDER BY n), max(c) - min(c)
  FROM (SELECT n, count(*) AS c FROM (SELECT risk_alert.pick_node('round_robin') AS n FROM generate_series(1, 30)) p GROUP BY n) q}),
		'node_0,node_1,node_2|0', "$provider: round_robin takes turns");
	my $owners = q{SELECT string_agg(risk_alert.pick_node('hash', key => 'card ' || i), ',' ORDER BY i) FROM generate_series(1, 300) i};
	my @before = split /,/, $node[0]->safe_psql('postgres', $owners);
	is($node[2]->safe_psql('postgres', $owners), join(',', @before), "$provider: all nodes choose the same by hash");
	is(scalar(grep { $_ eq 'node_1' } @before) > 50, 1, "$provider: each has its share");
	is($node[0]->safe_psql('postgres', q{
SELECT count(DISTINCT p) FROM (SELECT risk_alert.pick_node('random') AS p FROM generate_series(1, 300)) q}), 3,
		"$provider: random chooses each");

	# in proportion to weights
	$node[0]->safe_psql('postgres', q{ALTER SERVER node_2 OPTIONS (ADD weight '50')});
	for my $strategy (q{'random'}, q{'hash', 'key ' || g})
	{
		cmp_ok($node[0]->safe_psql('postgres',
				"SELECT count(*) FILTER (WHERE p = 'node_2') FROM (SELECT risk_alert.pick_node($strategy) AS p FROM generate_series(1, 300) g) q"),
			'>', 250, "$provider: a weighty node is chosen more often: $strategy");
	}
	$node[0]->safe_psql('postgres', q{ALTER SERVER node_2 OPTIONS (DROP weight)});

	# one with sessions at work is not chosen
	my @busy = map { session($node[1]) } 1 .. 4;
	start($_, 'SELECT pg_sleep(1000)') for @busy;
	ok(wait_until($node[0], q{
SELECT max(load) FILTER (WHERE name = 'node_1') > max(load) FILTER (WHERE name <> 'node_1') + 1 FROM risk_alert.nodes}),
		"$provider: the load of a busy node is known");
	is($node[0]->safe_psql('postgres', q{
SELECT string_agg(DISTINCT p, ',' ORDER BY p) FROM (SELECT risk_alert.pick_node('least_loaded') AS p FROM generate_series(1, 300)) q}),
		'node_0,node_2', "$provider: least_loaded does not choose it");
	$node[1]->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'});
	eval { $_->quit } for @busy;

	is($node[0]->safe_psql('postgres', q{
SELECT name FROM risk_alert.on_node(risk_alert.pick_node('hash', key => 'card 1'),
	'SELECT current_setting(''risk_alert.node_name'')') AS t (name text)}),
		$before[0], "$provider: and a statement can be sent to the owner of a key");

	# the leader; the one that is paused must know that it is none before another is
	ok($node[0]->poll_query_until('postgres', 'SELECT count(*) = 1 FROM risk_alert.nodes WHERE leader'),
		"$provider: one leader");
	my ($old) = grep { leads($node[$_]) } 0 .. 2;
	my @others = grep { $_ != $old } 0 .. 2;
	my $broker = $node[$old]->safe_psql('postgres', 'SELECT pid FROM risk_alert.stat_coordination');
	my $stopped = time;
	kill 'STOP', $broker;
	my ($new, $both) = (undef, 0);
	wait_for { ($new) = grep { leads($node[$_]) } @others; defined $new } 'a new leader';
	$both = 1 if leads($node[$old]);
	# two ticks of ZooKeeper, and what the queries take
	cmp_ok(time - $stopped, '<', 2 + 1, "$provider: another leads when its session has expired");
	is($both, 0, "$provider: a leader that is paused no longer leads when the next one does");
	kill 'CONT', $broker;
	$cluster->wait_connected;
	ok(!leads($node[$old]) || !leads($node[$new]), "$provider: nor do both when it is back");
	ok($node[$old]->poll_query_until('postgres',
			"SELECT string_agg(name, ',') = 'node_$new' FROM risk_alert.nodes WHERE leader"),
		"$provider: and it knows who leads");

	# a node that dies is gone for all, and only its keys move
	my ($gone) = grep { $_ != $new && $_ != 0 } 0 .. 2;
	my ($watcher) = grep { $_ != $gone } (0, $new);
	$node[$gone]->stop('immediate');
	ok($node[$watcher]->poll_query_until('postgres',
			"SELECT count(*) = 2 AND bool_and(name <> 'node_$gone') FROM risk_alert.nodes WHERE live"),
		"$provider: a dead node is no longer live");
	my @after = split /,/, $node[$watcher]->safe_psql('postgres', $owners);
	is(scalar(grep { $before[$_] ne "node_$gone" && $before[$_] ne $after[$_] } 0 .. $#before), 0,
		"$provider: the keys of the others stay where they are");
	is(scalar(grep { $_ eq "node_$gone" } @after), 0, "$provider: and its own go to others");
	for my $strategy ('random', 'round_robin', 'least_loaded')
	{
		is($node[$watcher]->safe_psql('postgres', "
SELECT count(*) FILTER (WHERE p = 'node_$gone'), count(*) FROM (SELECT risk_alert.pick_node('$strategy') AS p FROM generate_series(1, 300)) q"),
			'0|300', "$provider: nor is it chosen by another strategy: $strategy");
	}
	$node[$gone]->start;
	$cluster->wait_connected($node[$gone]);
	ok($node[$watcher]->poll_query_until('postgres', 'SELECT count(*) = 3 FROM risk_alert.nodes WHERE live'),
		"$provider: it is back");
	is($node[$watcher]->safe_psql('postgres', $owners), join(',', @before), "$provider: with its keys");
	$cluster->stop;
}

done_testing();
