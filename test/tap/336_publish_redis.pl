# Publishing where the members are known from Redis, and the nodes themselves decide (register paxos).
# What holds with any service and register is in 330_publish.pl.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Redis;
use RiskAlert;
use Session;
use Test::More;

plan skip_all => Redis::missing() if Redis::missing();

my $redis = Redis->new;
$redis->start;
my $hosts = $redis->hosts;
my @nodes = member_cluster('redis', $hosts, 'paxos');
my ($node_a, $node_b, $node_c) = @nodes;
my $members = 'SELECT string_agg(name, \' \' ORDER BY name) FROM risk_alert.nodes WHERE live';

foreach my $node (@nodes)
{
	create_payments($node);
	$node->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)');
}
wait_until($_, $members, 'node_a node_b node_c') foreach @nodes;

sub all_live { wait_until($_, $members, 'node_a node_b node_c') foreach @nodes; return; }
sub on_each { my ($sql, @on) = @_; return join(' ', map { $_->safe_psql('postgres', $sql) } @on ? @on : @nodes); }
sub epochs { return on_each(q{SELECT coalesce(epoch::text, '-') FROM risk_alert.streams WHERE stream = 'payments'}, @_); }
sub points { return on_each(q{SELECT points FROM risk_alert.rules WHERE rule = 'large'}, @_); }
sub values_of { my ($list, @on) = @_; return on_each("SELECT coalesce(string_agg(value, ',' ORDER BY value), '-') FROM risk_alert.list_entries WHERE list = '$list'", @on); }

my $publish = q{SELECT risk_alert.publish_cluster('payments')};
my $session = session($node_a);

# a change on node_a, committed, as it must be before it is published
sub change { return $node_a->safe_psql('postgres', "SELECT risk_alert.alter_rule('payments', 'large', points => $_[0])"); }

# All nodes
change(61);
is(answer($session, $publish), 1, 'a rule set is published');
is(epochs() . ', ' . points(), '1 1 1, 61 61 61', 'all nodes have it');
like(answer($session, "BEGIN; SELECT risk_alert.alter_rule('payments', 'large', points => 99); $publish"),
	qr/ERROR:  25001: publishing must not follow changes in the same transaction\nDETAIL:  With risk_alert\.commit_register = paxos/, 'what is published must be committed before');
answer($session, 'ROLLBACK');
answer($session, 'BEGIN');
is(answer($session, $publish), 2, 'in a transaction that goes on');
answer($session, 'ROLLBACK');
is(epochs(), '1 1 1', 'which is rolled back');

is(answer($session, q{SELECT risk_alert.create_list('bad', cluster => true)}), '', 'a list is made');
is(answer($session, q{SELECT risk_alert.list_add('bad', v, cluster => true) FROM (VALUES ('1'), ('2')) v (v)}), "t\nt", 'values are put on it, several in a transaction');
is(values_of('bad'), '1,2 1,2 1,2', 'all nodes have them');
is(answer($session, q{SELECT risk_alert.list_remove('bad', '1', cluster => true)}), 't', 'one is taken off');
is(values_of('bad'), '2 2 2', 'on all nodes');

# None: a node refuses
$node_c->safe_psql('postgres', q{SELECT risk_alert.drop_list('bad')});
like(answer($session, q{SELECT risk_alert.list_add('bad', '3', cluster => true)}), qr/list "bad" does not exist.*statement on node "node_c"/s, 'a node lacks the list');
is(values_of('bad'), '2 2 -', 'then no node has the value');
$node_c->safe_psql('postgres', q{SELECT risk_alert.create_list('bad')});

# The publisher is killed: a majority of the others finishes without it
my $epoch = 1;
foreach my $step ('decide', 'commit 1')
{
	my $done = $step =~ /commit/;
	$epoch++ if $done;
	commit_until($session, $step, $publish, q{SELECT risk_alert.list_add('bad', '4', cluster => true)});
	$node_a->stop('immediate');
	eval { $session->quit };
	go();
	ok(wait_until($_, 'SELECT count(*) FROM pg_prepared_xacts', 0), "the publisher is killed at \"$step\": " . $_->name . ' finishes without it') foreach $node_b, $node_c;
	is(epochs($node_b, $node_c), "$epoch $epoch", "the publisher is killed at \"$step\": " . ($done ? 'both have it' : 'neither has it'));
	is(values_of('bad', $node_b), $done ? '2,4' : '2', "the publisher is killed at \"$step\": the list, too");
	$node_a->start;
	ok(defined settled(), "the publisher is killed at \"$step\": it finishes its own share");
	is(epochs(), "$epoch $epoch $epoch", "the publisher is killed at \"$step\": it agrees");
	all_live();
	$session = session($node_a);
}

# A node is away, and fetches what it has missed before it scores
my $waited = q{SELECT a.epoch, a.score FROM risk_alert.alerts a WHERE a.event_key = '1'};
stop_worker($node_c);
$node_c->safe_psql('postgres', q{INSERT INTO payments VALUES (1, 7, 2000, now())});
$node_c->stop('immediate');
wait_until($node_a, $members, 'node_a node_b');
change(63);
is(answer($session, $publish), ++$epoch, 'a node is away: it is published');
is(answer($session, q{SELECT risk_alert.list_add('bad', '5', cluster => true)}), 't', 'a node is away: a list is changed');
is(epochs($node_a, $node_b), "$epoch $epoch", 'a node is away: the others have it');
$node_c->start;
drain($node_c);
is($node_c->safe_psql('postgres', $waited), "$epoch|63", 'a node was away: an event that waited there is scored with what it has missed');
is(values_of('bad'), '2,4,5 2,4,5 2,4,5', 'a node was away: it has the list');
all_live();

# Redis is gone: nobody knows who is live
$redis->kill9;
wait_until($node_a, $members, '');
like(answer($session, $publish), qr/ERROR:  55000: node "node_a" is not a member of the cluster at present/, 'without Redis nothing is published');
like(answer($session, q{SELECT risk_alert.list_add('bad', '6', cluster => true)}), qr/ERROR:  55000: node "node_a" is not a member of the cluster at present/, 'nor on a list');
is(epochs() . ', ' . values_of('bad'), "$epoch $epoch $epoch, 2,4,5 2,4,5 2,4,5", 'all nodes keep what they have');

# It comes back, and has forgotten everything; epochs are kept by the nodes
$redis->start;
all_live();
change(64);
is(answer($session, $publish), ++$epoch, 'Redis has lost its memory: epochs go on');
is(answer($session, q{SELECT risk_alert.list_add('bad', '6', cluster => true)}), 't', 'Redis has lost its memory: a list is changed');
is(epochs() . ', ' . points(), "$epoch $epoch $epoch, 64 64 64", 'Redis has lost its memory: all nodes have the rule set');
is(values_of('bad'), '2,4,5,6 2,4,5,6 2,4,5,6', 'Redis has lost its memory: and the list');

# A minority
$_->stop('immediate') foreach $node_b, $node_c;
wait_until($node_a, $members, 'node_a');
like(answer($session, $publish), qr/ERROR:  55000: too few nodes are live to publish\nDETAIL:  Live are 1 of 3: node_a\./, 'a minority does not publish');
$_->start foreach $node_b, $node_c;
all_live();
is(answer($session, $publish), ++$epoch, 'when the others are back, it does');
is(epochs(), "$epoch $epoch $epoch", 'on all nodes');
is(on_each(q{SELECT count(*) FROM pg_prepared_xacts}), '0 0 0', 'nothing stays prepared');

$session->quit;
$_->stop foreach @nodes;
$redis->kill9;
done_testing();
