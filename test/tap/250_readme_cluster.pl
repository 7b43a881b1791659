# The README's examples for several nodes do what it says.  (The others are run by readme.pl.)
#
# Two nodes are set up as the README does it: its lines of postgresql.conf, with other hosts, and
# on each node the examples that come before.  The examples that need a second node are run on
# node_a in their order, in one session.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Readme;
use RiskAlert;
use Session;
use Test::More;
use ZooKeeper;

plan skip_all => ZooKeeper::missing() if ZooKeeper::missing();

my @blocks = readme_blocks();
my ($conf) = grep { $_->{kind} eq 'conf' && $_->{text} =~ /node_name/ } @blocks;
my @before;
foreach my $block (@blocks)
{
	last if $block == $conf;
	push @before, $block if $block->{kind} eq 'sql' && !$block->{not_run} && $block->{text} !~ /CREATE EXTENSION/;
}
# by section
my %here;
foreach my $block (grep { $_->{kind} eq 'sql' && ($_->{not_run} // '') =~ /second server/ } @blocks)
{
	push @{ $here{ $block->{section} } }, $block;
}
is(join(', ', map { "$_: " . scalar @{ $here{$_} } } sort keys %here), 'Global transactions: 1, Publishing: 2, Several nodes: 2', 'the README has examples for several nodes');

my $zookeeper = ZooKeeper->new(PostgreSQL::Test::Utils::tempdir('zookeeper') . '/zk');
$zookeeper->start;
my $password = PostgreSQL::Test::Utils::tempdir('password') . '/zk.pass';
append_to_file($password, "bank:secret\n");
chmod 0600, $password;
my $settings = $conf->{text};
$settings =~ s/^risk_alert\.node_name = .*\n//m or die 'the README sets no risk_alert.node_name';
$settings =~ s/'zk1:\d+.*?'/"'" . $zookeeper->hosts . "'"/e or die 'the README names no ZooKeeper servers';
$settings =~ s/'zk\.pass'/'$password'/ or die 'the README names no password file';
my ($node_a, $node_b) = my @nodes = new_cluster([ 'node_a', 'node_b' ], conf => $settings);

# Runs a block; what it has to say
sub run_block
{
	my ($session, $block) = @_;
	$session->{stderr} = '';
	my $out = $session->query($block->{text});
	is(join("\n", grep { /(?:ERROR|FATAL|WARNING):|^psql/ } split /\n/, $session->{stderr}), '', "README line $block->{line}: runs without errors");
	return $out;
}

foreach my $node (@nodes)
{
	my $session = session($node);
	foreach my $block (@before)
	{
		run_block($session, $block);
		drain($node) if $node->safe_psql('postgres', q{SELECT to_regclass('payments') IS NOT NULL}) eq 't';
	}
	$session->quit;
	$node->safe_psql('postgres', 'CREATE TABLE accounts (id int PRIMARY KEY, frozen bool NOT NULL DEFAULT false, balance numeric NOT NULL DEFAULT 1000); INSERT INTO accounts VALUES (42), (43), (7)');
}
wait_until($_, q{SELECT string_agg(name, ' ' ORDER BY name) FROM risk_alert.nodes WHERE live}, 'node_a node_b') foreach @nodes;

my $session = session($node_a);
my ($score, $alerts) = map { run_block($session, $_) } @{ $here{'Several nodes'} };
like($score, qr/^\d+$/, 'on_node: a score');
is(join(' ', sort map { join '|', (split /\|/)[ 0, 1, 5 ] } split /\n/, $alerts),
	$node_a->safe_psql('postgres', q{SELECT string_agg(node || '|' || alert_id || '|{}', ' ' ORDER BY node, alert_id) FROM (VALUES ('node_a'), ('node_b')) n (node), risk_alert.open_alerts}),
	'cluster_alerts: the alerts of both nodes');

is(run_block($session, $here{'Global transactions'}[0]), "1\n1\n{1,1}\n{1,1}", 'global_execute, global_execute_all: a row on each node');
is($_->safe_psql('postgres', 'SELECT count(*) FROM accounts WHERE frozen'), 2, 'which is changed: ' . $_->name) foreach @nodes;
is(join(' ', map { $_->safe_psql('postgres', q{SELECT string_agg(id || '=' || balance, ',' ORDER BY id) FROM accounts WHERE balance <> 1000}) } @nodes), '42=900 7=1100', 'each with its own parameters');

my ($publish, $pull) = @{ $here{Publishing} };
my $epoch = q{SELECT epoch FROM risk_alert.streams WHERE stream = 'payments'};
like(run_block($session, $publish), qr/\A1\nt\nnode_a\|1\|f\|\nnode_b\|1\|f\|\n\d+\|\n/, 'publish_cluster: all nodes have its epoch');
$node_b->safe_psql('postgres', 'INSERT INTO payments (card_id, merchant_id, amount) VALUES (4711, 1, 1.00)');
drain($node_b);
is($node_b->safe_psql('postgres', q{SELECT a.epoch, r->>'rule' FROM risk_alert.alerts a, jsonb_array_elements(reasons) r WHERE a.epoch IS NOT NULL}), '1|blocked', 'an alert on the other node names it, and knows the value of the list');
$session->quit;

# as a node that is new
$node_b->safe_psql('postgres', q{SELECT risk_alert.unwatch('payments'); SELECT risk_alert.watch('payments', event_time => 'created_at')});
is($node_b->safe_psql('postgres', $epoch), '', 'a new node has no epoch');
$session = session($node_b);
is(run_block($session, $pull), 1, 'pull_cluster: it fetches what was published');
is($node_b->safe_psql('postgres', $epoch), 1, 'and has it');
my $rules = q{SELECT string_agg(rule, ' ' ORDER BY rule) FROM risk_alert.rules WHERE stream = 'payments'};
is($node_b->safe_psql('postgres', $rules), $node_a->safe_psql('postgres', $rules), 'with all rules');
$session->quit;

$_->stop foreach @nodes;
$zookeeper->stop;
done_testing();
