# Publishing over a cluster of three nodes: on all or on none, never half seen, and not missed by a node
# that was away.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;
use Time::HiRes;
use ZooKeeper;

plan skip_all => ZooKeeper::missing() if ZooKeeper::missing();

my $zookeeper = ZooKeeper->new(PostgreSQL::Test::Utils::tempdir('zookeeper') . '/zk');
$zookeeper->start;
my $hosts = $zookeeper->hosts;
my @nodes = member_cluster('zookeeper', $hosts, 'zookeeper');
my ($node_a, $node_b, $node_c) = @nodes;
my $members = 'SELECT string_agg(name, \' \' ORDER BY name) FROM risk_alert.nodes WHERE live';

foreach my $node (@nodes)
{
	create_payments($node);
	$node->safe_psql('postgres', q{
SELECT risk_alert.drop_rule('payments', 'large');
SELECT risk_alert.drop_rule('payments', 'velocity');
CREATE SEQUENCE event;
GRANT SELECT, TRIGGER ON payments TO operator, remote;});
}
wait_until($_, $members, 'node_a node_b node_c') foreach @nodes;

# Each node's epoch, and whether the node differs from it
sub epochs
{
	return join(' ', map { $_->safe_psql('postgres', q{SELECT coalesce(epoch::text, '-') || CASE WHEN modified THEN '*' ELSE '' END FROM risk_alert.streams WHERE stream = 'payments'}) } @_ ? @_ : @nodes);
}

# What makes up the rule set, owners left out
sub definition
{
	my ($node) = @_;
	return $node->safe_psql('postgres', q{
SELECT review_at, deny_at, suppress FROM risk_alert.streams WHERE stream = 'payments';
SELECT feature, entity, lookup, aggregate, within, filter, include_current FROM risk_alert.features WHERE stream = 'payments' ORDER BY 1;
SELECT rule, condition, points, severity, reason, status FROM risk_alert.rules WHERE stream = 'payments' ORDER BY 1;});
}

sub publish { return "SELECT risk_alert.publish_cluster('payments')"; }
sub event { return "INSERT INTO payments VALUES (nextval('event'), $_[0], 10, now())"; }

my $session = session($node_a);

# A session of psql has a time limit
sub fresh
{
	$session->quit;
	$session = session($node_a);
	return;
}

# On all nodes
{
	$node_a->safe_psql('postgres', q{
SELECT risk_alert.create_list('bad');
SELECT risk_alert.list_add('bad', '666', note => 'it''s "bad"', expires => '2100-01-01');
SELECT risk_alert.alter_stream('payments', review_at => 30, deny_at => 90);
SELECT risk_alert.create_feature('payments', 'card_max', entity => 'card_id', aggregate => 'max(amount)', within => '2 hours', filter => 'amount > 0');
SELECT risk_alert.create_rule('payments', 'first', 'card_n > 0', points => 40, reason => 'set 0');
SELECT risk_alert.create_rule('payments', 'listed', 'in_list(''bad'', card_id) AND card_max > 5', points => 1, reason => '{card_id} is bad');});
	is(epochs(), '- - -', 'nothing is published at first');
	is(answer($session, publish()), '1', 'it is published');
	is(epochs(), '1 1 1', 'all nodes have it');
	is(definition($_), definition($node_a), 'and the same rule set: ' . $_->name) foreach $node_b, $node_c;
	is($node_c->safe_psql('postgres', q{SELECT value, expires, note FROM risk_alert.list_entries WHERE list = 'bad'}), $node_a->safe_psql('postgres', q{SELECT value, expires, note FROM risk_alert.list_entries WHERE list = 'bad'}), 'a list that its rules use came along');
	$node_c->safe_psql('postgres', event(666));
	drain($node_c);
	is($node_c->safe_psql('postgres', q{SELECT epoch, score, rules FROM risk_alert.alerts}), '1|41|{first,listed}', 'an event there is scored with it');
	$node_b->safe_psql('postgres', q{SELECT risk_alert.alter_rule('payments', 'first', points => 41)});
	is(epochs(), '1 1* 1', 'a later change on one node shows');
	is(answer($session, publish()), '2', 'it is published again');
	is(epochs(), '2 2 2', 'that node has it, too');
	is(definition($node_b), definition($node_a), 'and its own change no more');
	is(one_line($node_a->safe_psql('postgres', 'SELECT node, stream, epoch, modified, error FROM risk_alert.cluster_rule_sets')),
		'node_a|payments|2|f| node_b|payments|2|f| node_c|payments|2|f|', 'a view compares the nodes');
}

# On none
{
	my $before = definition($node_b);
	my $operator = session($node_a, 'operator');

	is(answer($operator, publish()), '3', 'an administrator publishes, too');
	$node_b->safe_psql('postgres', 'REVOKE risk_alert_admin FROM remote');
	like(answer($operator, publish()), qr/ERROR:  42501: permission denied for function _publish_lock.*statement on node "node_b"/s, 'not where the role of his mapping is none');
	$node_b->safe_psql('postgres', 'GRANT risk_alert_admin TO remote; REVOKE ALL ON payments FROM remote');
	$node_a->safe_psql('postgres', q{SELECT risk_alert.create_rule('payments', 'second', 'amount > 0', points => 0, reason => 'set 0')});
	like(answer($operator, publish()), qr/ERROR:  42501: permission denied for column "amount" of table "payments".*statement on node "node_b"/s, 'nor where it may not read what rules use');
	is(epochs(), '3* 3 3', 'then no node has it');
	$node_b->safe_psql('postgres', 'GRANT SELECT ON payments TO remote');
	is(answer($operator, publish()), '4', 'with that right he does');
	is($node_b->safe_psql('postgres', q{SELECT owner FROM risk_alert.rules WHERE rule = 'second'}), 'remote', 'and what is new is owned by the role that has made it there');
	$operator->quit;

	$before = definition($node_b);
	$node_a->safe_psql('postgres', q{ALTER TABLE payments ADD country text; SELECT risk_alert.create_rule('payments', 'foreign', 'country = ''NA''', points => 1)});
	$node_b->safe_psql('postgres', q{ALTER TABLE payments ADD country text});
	like(answer($session, publish()), qr/ERROR:  42703: "country" is neither a column of table "payments" nor a feature of its stream.*statement on node "node_c"/s, 'a node lacks a column: its error is told');
	is(epochs(), '4* 4 4', 'a node lacks a column: no node has it');
	is(definition($node_b), $before, 'a node lacks a column: the others keep theirs');
	$node_c->safe_psql('postgres', q{ALTER TABLE payments ADD country text});
	is(answer($session, publish()), '5', 'with that column it is published');

	answer($session, "BEGIN; SET LOCAL risk_alert.commit_register = local; SELECT risk_alert.alter_rule('payments', 'first', points => 39)");
	is(answer($session, publish()), '6', 'with register local a change and its publication are one transaction');
	answer($session, 'ROLLBACK');
	is(epochs(), '5 5 5', 'it is rolled back');
	answer($session, "BEGIN; SET LOCAL risk_alert.commit_register = local; SELECT risk_alert.alter_rule('payments', 'first', points => 39)");
	answer($session, publish());
	answer($session, 'COMMIT');
	is(epochs(), '6 6 6', 'it is committed');
	is(definition($_), definition($node_a), 'the change with it: ' . $_->name) foreach $node_b, $node_c;
	like(answer($session, 'BEGIN; CREATE TABLE t (); ' . publish()), qr/ERROR:  25001: publishing must not follow changes/, 'with another one it is not');
	answer($session, 'ROLLBACK');

	# a killed coordinator
	foreach my $step ('prepare 2', 'decide', 'commit 1')
	{
		my $done = $step =~ /commit/;
		my ($expected) = epochs($node_b) =~ /(\d+)/;

		commit_until($session, $step, publish());
		$node_a->stop('immediate');
		eval { $session->quit };
		go();
		ok(wait_until($_, 'SELECT count(*) FROM pg_prepared_xacts', 0), "the publisher is killed at \"$step\": " . $_->name . ' finishes without it') foreach $node_b, $node_c;
		$expected++ if $done;
		is(epochs($node_b, $node_c), "$expected $expected", "the publisher is killed at \"$step\": " . ($done ? 'all' : 'none'));
		$node_a->start;
		ok(defined settled(), "the publisher is killed at \"$step\": it finishes its own share");
		is(epochs(), "$expected $expected $expected", "the publisher is killed at \"$step\": it agrees");
		wait_until($_, $members, 'node_a node_b node_c') foreach @nodes;
		$session = session($node_a);
	}

	# a killed participant
	my ($expected) = epochs($node_b) =~ /(\d+)/;
	commit_until($session, 'decide', publish());
	$node_c->stop('immediate');
	go();
	outcome($session);
	$expected++;
	is(epochs($node_a, $node_b), "$expected $expected", 'a prepared node is killed: the others have it');
	$node_c->start;
	ok(defined settled(), 'a prepared node is killed: it finishes when it is back');
	is(epochs(), "$expected $expected $expected", 'a prepared node is killed: then it has it, too');
	wait_until($_, $members, 'node_a node_b node_c') foreach @nodes;
}

# Many, under load, while nodes are killed.  Both rules of a set name it, and each attempt is another one.
{
	fresh();
	my $script = $node_a->basedir . '/event.sql';
	my %load;
	my %committed;
	my $try = 0;
	my $n = 0;
	my $start = sub {
		my ($node) = @_;
		my $log = $node->basedir . '/pgbench.log';
		$load{ $node->name } = IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-R', 60, '-T', 300, '-f', $script, $node->connstr('postgres') ], '>>', $log, '2>>', $log);
	};
	my $stop = sub {
		my ($node) = @_;
		my $load = delete $load{ $node->name };
		eval { $load->kill_kill };
	};
	my $publish = sub {
		my ($epoch) = answer($session, q{SELECT epoch FROM risk_alert.streams WHERE stream = 'payments'}) =~ /(\d+)/;
		my $next = $epoch + 1;
		$try++;
		my $answer = answer($session, "SELECT risk_alert.alter_rule('payments', r, reason => 'set $next try $try') FROM (VALUES ('first'), ('second')) v (r);" . publish());
		# a node that was killed may have to finish it later
		return 0 if $answer =~ /ERROR:/;
		$committed{$next} = "set $next try $try";
		$n++;
		return 1;
	};
	append_to_file($script, event('1 + nextval(\'event\') % 100') . ";\n");
	foreach my $node (@nodes)
	{
		$node->safe_psql('postgres', q{DELETE FROM risk_alert.alert; TRUNCATE payments});
	}
	$publish->() or fail('it is published');
	drain($_) foreach @nodes;
	$start->($_) foreach @nodes;

	my $deadline = time + 2 * $PostgreSQL::Test::Utils::timeout_default;
	my %kill = (40 => $node_b, 100 => $node_c);
	my %back = (80 => $node_b, 150 => $node_c);
	my %at_once = (20 => $node_b, 170 => $node_c);
	while ($n < 200 && time < $deadline)
	{
		if (my $node = delete $kill{$n})
		{
			$node->stop('immediate');
			$stop->($node);
		}
		if (my $node = delete $back{$n})
		{
			$node->start;
			$start->($node);
		}
		if (my $node = delete $at_once{$n})
		{
			$node->stop('immediate');
			$stop->($node);
			$node->start;
			$start->($node);
		}
		Time::HiRes::sleep(0.1) if !$publish->();
	}
	is($n, 200, "200 rule sets are published, while nodes are killed (in $try attempts)");
	wait_until($_, $members, 'node_a node_b node_c') foreach @nodes;
	$publish->() or fail('it is published');
	$stop->($_) foreach @nodes;
	ok(defined settled(), 'nothing stays prepared');
	drain($_) foreach @nodes;

	my ($epoch) = epochs($node_a);
	is(epochs(), "$epoch $epoch $epoch", 'all nodes have the same epoch in the end');
	is(definition($_), definition($node_a), 'and the same rule set: ' . $_->name) foreach $node_b, $node_c;
	my $values = join(', ', map { "($_, '$committed{$_}')" } sort keys %committed);
	foreach my $node (@nodes)
	{
		my $name = $node->name;
		is($node->safe_psql('postgres', q{SELECT count(*) - (SELECT count(*) FROM payments) FROM risk_alert.alerts}), 0, "$name: each event has an alert");
		is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alerts WHERE jsonb_array_length(reasons) <> 2 OR reasons->0->>'text' <> reasons->1->>'text'}), 0, "$name: none is scored with a mixture");
		is($node->safe_psql('postgres', qq{SELECT count(*) FROM risk_alert.alerts LEFT JOIN (VALUES $values) v (e, said) ON e = epoch WHERE epoch IS NOT NULL AND said IS DISTINCT FROM reasons->0->>'text'}), 0, "$name: what alerts name is what was published");
		is($node->safe_psql('postgres', qq{SELECT count(*) FROM risk_alert.rule_set_history LEFT JOIN (VALUES $values) v (e, said) ON e = epoch WHERE definition::text ~ 'try' AND epoch IS NOT NULL AND position(said in definition::text) IS DISTINCT FROM position(substring(definition::text from 'set [0-9]+ try [0-9]+') in definition::text)}), 0, "$name: it never had one that was not committed");
		cmp_ok($node->safe_psql('postgres', 'SELECT count(DISTINCT epoch) FROM risk_alert.alerts'), '>', 20, "$name: it has scored with many of them");
		is($node->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.alerts WHERE epoch IS NULL'), 0, "$name: and with nothing else") if $node != $node_a;
	}
}

# A node that was away
my $away = sub {
	my ($node) = @_;
	my $pid = stop_worker($node);
	$node->safe_psql('postgres', event(77));
	$node->stop('immediate');
	wait_until($node_a, $members, join(' ', map { $_->name } grep { $_ != $node } @nodes));
};
my $waited = q{SELECT epoch, reasons->0->>'text' FROM risk_alert.alerts WHERE event_key = (SELECT max(payment_id)::text FROM payments WHERE card_id = 77)};
{
	fresh();
	$node_a->safe_psql('postgres', q{SELECT risk_alert.create_list('old', cluster => true)});
	is($node_c->safe_psql('postgres', q{SELECT epoch FROM risk_alert.lists WHERE list = 'old'}), 1, 'a list is made on all nodes');
	is($node_a->safe_psql('postgres', q{SELECT risk_alert.list_add('bad', '13', cluster => true)}), 't', 'and a value put on one');
	is($node_b->safe_psql('postgres', q{SELECT epoch, entries FROM risk_alert.lists WHERE list = 'bad'}), '1|2', 'which all nodes have');
	$node_c->safe_psql('postgres', q{SELECT risk_alert.drop_list('old')});
	my ($rc, $out, $err) = $node_a->psql('postgres', q{SELECT risk_alert.list_add('old', 'x', cluster => true)});
	like($err, qr/list "old" does not exist.*statement on node "node_c"/s, 'a node lacks the list: its error is told');
	is($node_b->safe_psql('postgres', q{SELECT entries FROM risk_alert.lists WHERE list = 'old'}), 0, 'a node lacks the list: no node has the value');
	$node_c->safe_psql('postgres', q{SELECT risk_alert.create_list('old')});

	# as if it had not caught up yet
	$node_c->safe_psql('postgres', q{UPDATE risk_alert.list_epoch SET epoch = 0 WHERE name = 'bad'; DELETE FROM risk_alert.list_entry WHERE value = '13'});
	$node_a->safe_psql('postgres', q{SELECT risk_alert.list_add('bad', '14', cluster => true)});
	is(one_line($node_c->safe_psql('postgres', q{SELECT value FROM risk_alert.list_entries WHERE list = 'bad' ORDER BY value})), '13 14 666', 'a node that lacks earlier changes of a list gets all of it');

	$away->($node_c);
	foreach my $i (1 .. 3)
	{
		$node_a->safe_psql('postgres', "SELECT risk_alert.alter_rule('payments', 'first', reason => 'away $i')");
		answer($session, publish());
	}
	$node_a->safe_psql('postgres', q{SELECT risk_alert.create_list('made', cluster => true)});
	$node_a->safe_psql('postgres', q{SELECT risk_alert.list_add('made', v, cluster => true) FROM (VALUES ('1'), ('2')) v (v)});
	$node_a->safe_psql('postgres', q{SELECT risk_alert.list_remove('bad', '666', cluster => true)});
	$node_a->safe_psql('postgres', q{SELECT risk_alert.drop_list('old', cluster => true)});
	my ($epoch) = epochs($node_a);
	my $idle = session($node_b);
	answer($idle, q{BEGIN; SELECT risk_alert.alter_rule('payments', 'first', points => 1); SELECT risk_alert.list_add('made', '3')});
	$node_c->start;
	drain($node_c);
	answer($idle, 'ROLLBACK');
	$idle->quit;
	is($node_c->safe_psql('postgres', $waited), "$epoch|away 3", 'a node was away: an event that waited there is scored with the newest rule set');
	is(definition($node_c), definition($node_a), 'a node was away: it has that rule set');
	my $lists = q{SELECT list, entries, epoch, modified FROM risk_alert.lists ORDER BY list; SELECT list, value, expires, note FROM risk_alert.list_entries ORDER BY 1, 2};
	is($node_c->safe_psql('postgres', $lists), $node_a->safe_psql('postgres', $lists), 'a node was away: it has all lists');
	wait_until($_, $members, 'node_a node_b node_c') foreach @nodes;
}

# Nobody can tell it anything
{
	fresh();
	$away->($node_c);
	$node_a->safe_psql('postgres', q{SELECT risk_alert.alter_rule('payments', 'first', reason => 'unheard')});
	answer($session, publish());
	my ($epoch) = epochs($node_a);
	$zookeeper->stop;
	$node_c->append_conf('postgresql.conf', "risk_alert.session_timeout = 6s\n");
	$node_c->start;
	is($node_c->safe_psql('postgres', q{SELECT risk_alert.drain('1 second')}), 'f', 'a node that can\'t be a member gives itself some time to become one');
	drain($node_c);
	is($node_c->safe_psql('postgres', $waited), $epoch - 1 . '|away 3', 'a node that can\'t be a member scores with what it has');
	$zookeeper->start;
	ok(wait_until($node_c, q{SELECT epoch FROM risk_alert.streams WHERE stream = 'payments'}, $epoch), 'and catches up when it can');
	wait_until($_, $members, 'node_a node_b node_c') foreach @nodes;

	# a live node does not answer
	$away->($node_c);
	$node_a->safe_psql('postgres', q{SELECT risk_alert.alter_rule('payments', 'first', reason => 'late')});
	answer($session, publish());
	$epoch++;
	$node_c->append_conf('postgresql.conf', "risk_alert.catch_up_timeout = 0\n");
	$node_c->start;
	$node_c->safe_psql('postgres', q{ALTER SERVER node_b OPTIONS (SET port '1')});
	ok(wait_until($node_c, q{SELECT level, description FROM risk_alert.check_setup() WHERE name = 'catch_up'}, 'warning|events wait until this node has caught up with the others'), 'a live node does not answer: check_setup() tells that events wait');
	is($node_c->safe_psql('postgres', q{SELECT risk_alert.drain('1 second')}), 'f', 'a live node does not answer: they wait');
	$node_c->safe_psql('postgres', q{ALTER SYSTEM SET risk_alert.catch_up_timeout = '1s'});
	$node_c->reload;
	drain($node_c);
	is($node_c->safe_psql('postgres', $waited), $epoch - 1 . '|unheard', 'a live node does not answer: after catch_up_timeout events are scored with what there is');
	wait_for_logged($node_c, 'events are scored although this node has not caught up', 1);
	$node_c->safe_psql('postgres', 'ALTER SERVER node_b OPTIONS (SET port \'' . $node_b->port . '\')');
	ok(wait_until($node_c, q{SELECT epoch FROM risk_alert.streams WHERE stream = 'payments'}, $epoch), 'a live node does not answer: it catches up when it does');
}

# Those that have published come back later than a node that was away meanwhile
{
	fresh();
	$away->($node_c);
	$node_a->safe_psql('postgres', q{SELECT risk_alert.alter_rule('payments', 'first', reason => 'later')});
	answer($session, publish());
	my ($epoch) = epochs($node_a);
	$_->stop('immediate') foreach $node_a, $node_b;
	eval { $session->quit };
	$node_c->start;
	drain($node_c);
	like($node_c->safe_psql('postgres', $waited), qr/^@{[$epoch - 1]}\|/, 'the only member scores with what it has');
	wait_until($node_c, $members, 'node_c');
	ok(wait_until($node_c, 'SELECT behind FROM risk_alert._catching_up()', 'f'), 'and has nobody to ask');
	$_->start foreach $node_a, $node_b;
	ok(wait_until($node_c, q{SELECT epoch FROM risk_alert.streams WHERE stream = 'payments'}, $epoch), 'and catches up when others become members');
	$session = session($node_a);
	wait_until($_, $members, 'node_a node_b node_c') foreach @nodes;
}

# A minority does not publish; a new node joins
{
	fresh();
	$node_b->stop('immediate');
	$node_c->stop('immediate');
	wait_until($node_a, $members, 'node_a');
	like(answer($session, publish()), qr/ERROR:  55000: too few nodes are live to publish\nDETAIL:  Live are 1 of 3: node_a\./, 'a minority does not publish');
	$_->start foreach $node_b, $node_c;
	wait_until($_, $members, 'node_a node_b node_c') foreach @nodes;
	my ($epoch) = epochs($node_a);
	$node_c->safe_psql('postgres', q{SELECT risk_alert.unwatch('payments'); SELECT risk_alert.watch('payments', event_time => 'created_at')});
	my $new = session($node_c);
	like(answer($new, publish()), qr/ERROR:  55000: node "node_c" has not caught up with what was published of stream "payments"\nDETAIL:  Node "node_a" has epoch $epoch of it, and this one none\./, 'a node that lacks what was published does not undo it');
	$new->quit;
	is($node_c->safe_psql('postgres', q{SELECT risk_alert.pull_cluster('payments', 'node_b')}), $epoch, 'a new node fetches what was published');
	is(epochs(), "$epoch $epoch $epoch", 'and has the same epoch');
	is(definition($node_c), definition($node_a), 'and the same rule set');
}

$session->quit;
$_->stop foreach @nodes;
$zookeeper->stop;
done_testing();
