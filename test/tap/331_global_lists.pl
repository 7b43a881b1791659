# A list that changes together with events: these are judged by it, also where the transaction is
# prepared first, or has branches that take their time to commit.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes;

my @nodes = accounts_cluster(conf => "max_locks_per_transaction = 200\n");
my ($node_a, $node_b) = @nodes;
my $alerts = q{SELECT count(*) FROM risk_alert.alerts WHERE stream = 'pay' AND event_key = '%s'};

$node_a->safe_psql('postgres', q{CREATE TABLE pay (id text PRIMARY KEY, merchant text, at timestamptz DEFAULT now());
SELECT risk_alert.watch('pay', event_time => 'at', review_at => 1, suppress => '0', name => 'pay');
SELECT risk_alert.create_list('block');
SELECT risk_alert.create_rule('pay', 'blocked', 'in_list(''block'', merchant)', points => 60);
INSERT INTO pay VALUES ('first', 'x');});
drain($node_a);

# A transaction that changes the list, has an event, and changes accounts elsewhere
sub publish
{
	my ($name) = @_;
	return (qq{SELECT risk_alert.list_add('block', '$name')}, qq{INSERT INTO pay VALUES ('$name', '$name')});
}

# Its branch is still to be committed: nobody waits for that
{
	my $session = session($node_a);
	my $began;

	commit_until($session, 'commit 1', publish('a'), on('node_b', take(1)));
	$began = Time::HiRes::time;
	drain($node_a);
	cmp_ok(Time::HiRes::time - $began, '<', 0.9, 'the worker does not wait for branches to commit');
	is($node_a->safe_psql('postgres', sprintf($alerts, 'a')), 1, 'and judges by the list as the transaction has left it');
	go();
	is(outcome($session), '', 'it commits');

	# nor for them to prepare
	commit_until($session, 'decide', publish('b'), on('node_b', take(1)));
	$node_a->safe_psql('postgres', q{INSERT INTO pay VALUES ('before', 'b')});
	$began = Time::HiRes::time;
	drain($node_a);
	cmp_ok(Time::HiRes::time - $began, '<', 0.9, 'the worker does not wait for a decision');
	is($node_a->safe_psql('postgres', sprintf($alerts, 'before')), 0, 'and judges by the list as it was before');
	go();
	outcome($session);
	drain($node_a);
	is($node_a->safe_psql('postgres', sprintf($alerts, 'b')), 1, 'after it, as it is then');
	$session->quit;
}

# COMMIT PREPARED: the files of many tables are removed between the moment when its rows can be seen
# and the one when others are told
foreach my $restart (0, 1)
{
	my $name = "prepared$restart";
	my ($events, $log) = ($node_a->basedir . '/events.sql', $node_a->basedir . '/events.log');
	my ($pgbench, $seen);

	$node_a->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY)', i); END LOOP; END $$});
	$node_a->safe_psql('postgres', 'BEGIN;' . join(';', publish($name))
		. q{; DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('DROP TABLE many_%s', i); END LOOP; END $$; PREPARE TRANSACTION 'many'});
	$node_a->restart if $restart;
	append_to_file($events, "INSERT INTO pay VALUES (gen_random_uuid()::text, 'x');\n") if !$restart;
	$pgbench = IPC::Run::start([ 'pgbench', '-n', '-c', 1, '-T', 3, '-f', $events, $node_a->connstr('postgres') ], '>', $log, '2>', "$log.err");
	wait_until($node_a, q{SELECT count(*) > 200 FROM pay});
	$node_a->safe_psql('postgres', q{COMMIT PREPARED 'many'});
	$pgbench->finish;
	drain($node_a);
	is($node_a->safe_psql('postgres', sprintf($alerts, $name)), 1, $restart ? 'so it is after a restart' : 'a prepared transaction is judged by its own list');
	$node_a->safe_psql('postgres', q{TRUNCATE pay});
}

$_->stop foreach @nodes;
done_testing();
