# Publishing where what tells who is a member and what decides are two: members of ZooKeeper or nobody who
# tells them, register local or paxos.  The others are in 330_publish.pl and 336_publish_redis.pl.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;
use ZooKeeper;

my $publish = q{SELECT risk_alert.publish_cluster('payments')};
my $zookeeper;
my @nodes;
my ($node_a, $node_b, $node_c);

sub on_each { my ($sql, @on) = @_; return join(' ', map { $_->safe_psql('postgres', $sql) } @on ? @on : @nodes); }
sub epochs { return on_each(q{SELECT coalesce(epoch::text, '-') FROM risk_alert.streams WHERE stream = 'payments'}, @_); }
sub points { return on_each(q{SELECT points FROM risk_alert.rules WHERE rule = 'large'}, @_); }
sub change { return $node_a->safe_psql('postgres', "SELECT risk_alert.alter_rule('payments', 'large', points => $_[0])"); }

if (!ZooKeeper::missing())
{
	$zookeeper = ZooKeeper->new(PostgreSQL::Test::Utils::tempdir('zookeeper') . '/zk');
	$zookeeper->start;
}

foreach my $provider ('local', 'zookeeper')
{
  SKIP:
	{
		skip ZooKeeper::missing(), 1 if $provider eq 'zookeeper' && !$zookeeper;
		my $members = $provider eq 'local' ? sub { } :
		  sub { wait_until($_, q{SELECT string_agg(name, ' ' ORDER BY name) FROM risk_alert.nodes WHERE live}, 'node_a node_b node_c') foreach @nodes };
		my $points = 60;
		my $epoch = 0;

		@nodes = $provider eq 'local' ? accounts_cluster() : member_cluster('zookeeper', $zookeeper->hosts, 'local');
		($node_a, $node_b, $node_c) = @nodes;
		foreach my $node (@nodes)
		{
			create_payments($node);
			$node->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)');
		}
		foreach my $register ('local', 'paxos')
		{
			my $claim = "members $provider, register $register";
			my $session;
			my $begin = sub { $session = session($node_a); answer($session, "SET risk_alert.commit_register = $register"); };

			$members->();
			$begin->();
			change(++$points);
			is(answer($session, $publish), ++$epoch, "$claim: it is published");
			is(epochs() . ', ' . points(), "$epoch $epoch $epoch, $points $points $points", "$claim: on all nodes");
			answer($session, q{SELECT risk_alert.create_list('bad', cluster => true)}) if $register eq 'local';
			is(answer($session, "SELECT risk_alert.list_add('bad', '$register', cluster => true)"), 't', "$claim: a list is changed");
			is(on_each("SELECT count(*) FROM risk_alert.list_entries WHERE list = 'bad' AND value = '$register'"), '1 1 1', "$claim: on all nodes");

			# an event is scored with it, and its alert names it
			$node_c->safe_psql('postgres', "INSERT INTO payments VALUES ($points, $points, 2000, now())");
			drain($node_c);
			is($node_c->safe_psql('postgres', "SELECT epoch, score FROM risk_alert.alerts WHERE event_key = '$points'"), "$epoch|$points", "$claim: an alert names it");

			# a node is down
			if ($provider eq 'local')
			{
				$node_c->stop('immediate');
				change(99);
				like(answer($session, $publish), qr/ERROR:  08001: could not connect to node "node_c"/, "$claim: a node is down: that is an error");
				is(epochs($node_a, $node_b) . ', ' . points($node_b), "$epoch $epoch, $points", "$claim: a node is down: nothing is published");
				$node_c->start;
				change($points);
				is(answer($session, $publish), ++$epoch, "$claim: it is up again: it is published");
			}

			# the publisher is killed
			foreach my $step ('decide', 'commit 1')
			{
				my $done = $step =~ /commit/;
				my $new = $points + 1;
				change($new);
				commit_until($session, $step, $publish);
				$node_a->stop('immediate');
				eval { $session->quit };
				go();
				if ($register eq 'paxos')
				{
					ok(wait_until($_, 'SELECT count(*) FROM pg_prepared_xacts', 0), "$claim: the publisher is killed at \"$step\": " . $_->name . ' finishes without it') foreach $node_b, $node_c;
				}
				$epoch++, $points++ if $done;
				$node_a->start;
				ok(defined settled(), "$claim: the publisher is killed at \"$step\": all is finished when it is back");
				is(epochs() . ', ' . points($node_b, $node_c), "$epoch $epoch $epoch, $points $points", "$claim: the publisher is killed at \"$step\": " . ($done ? 'all have it' : 'none has it'));
				$members->();
				$begin->();
			}
			$session->quit;
		}
		$_->stop, $_->clean_node foreach @nodes;
	}
}

$zookeeper->stop if $zookeeper;
done_testing();
