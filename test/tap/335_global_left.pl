# A coordinator crashes when all branches are finished, but its register has not been told: the entry goes
# after its time, when no node has a branch, and not before anybody knows that.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes;
use ZooKeeper;

my $zookeeper;
my $conf = "log_statement = all\n";	# the names of transactions are read there
if (!ZooKeeper::missing())
{
	$zookeeper = ZooKeeper->new(PostgreSQL::Test::Utils::tempdir('zookeeper') . '/zk');
	$zookeeper->start;
	$conf .= "risk_alert.lock_provider = zookeeper\nrisk_alert.session_timeout = 4s\nrisk_alert.zookeeper_hosts = '" . $zookeeper->hosts . "'\n";
}

my @nodes = accounts_cluster(conf => $conf);
my ($node_a, $node_b, $node_c) = @nodes;
my $gid;

# Recovery does not touch branches in a database without the extension
$node_b->safe_psql('postgres', 'CREATE DATABASE other');
sub prepare { $node_b->safe_psql('other', "BEGIN; CREATE TABLE t(); PREPARE TRANSACTION '$gid:1'"); return; }
sub finish { $node_b->safe_psql('other', "ROLLBACK PREPARED '$gid:1'"); return; }

# Recovery of these nodes has looked at what is left, since now
sub looked
{
	my %rounds = map { $_->name => $_->safe_psql('postgres', 'SELECT rounds FROM risk_alert.stat_recovery') } @_;
	wait_until($_, 'SELECT rounds > 12 + ' . $rounds{ $_->name } . ' FROM risk_alert.stat_recovery') foreach @_;
	return;
}

# A transaction that has committed everywhere, which its register is not told of
sub leave
{
	my ($register, $id) = @_;
	my $session = session($node_a);

	answer($session, "SET risk_alert.commit_register = $register");
	commit_until($session, 'forget', on('node_b', take($id)), on('node_c', give($id)));
	($gid) = slurp_file($node_b->logfile) =~ /.*COMMIT PREPARED '(ra:[^']*):/s;
	$node_a->stop('immediate');
	eval { $session->quit };
	go();
	$node_a->start;
	is(balances($id), '1000 990 1010', "$register: it has committed");
	is($_->safe_psql('postgres', "SELECT count(*) FROM pg_prepared_xacts WHERE starts_with(gid, 'ra:')"), 0, "$register: everywhere") foreach @nodes;
	return;
}

# ---- Each acceptor forgets for itself
{
	my $votes = 'SELECT count(*) FROM risk_alert.paxos_acceptor';
	my $forgotten = sub { return "$votes WHERE gid = '$gid' AND (value = 'commit' OR decided = 'commit') AND NOT EXISTS (SELECT FROM risk_alert.paxos_forgotten f WHERE gid = ANY (f.gids))" };
	my $other;

	$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') foreach @nodes;
	leave('paxos', 1);

	# a majority has voted; so may all have
	$_->safe_psql('postgres', "INSERT INTO risk_alert.paxos_acceptor (gid, accepted, value) VALUES ('$gid', 0, 'commit') ON CONFLICT DO NOTHING") foreach @nodes;
	is($_->safe_psql('postgres', $forgotten->()), 1, 'paxos: ' . $_->name . ' has not heard that it may forget') foreach @nodes;
	$other = $gid =~ s/^ra:\w+:/ra:other:/r;
	prepare();
	foreach my $node (@nodes)
	{
		# what is not ours, or young, and others that may go
		$node->safe_psql('postgres', qq{
INSERT INTO risk_alert.paxos_acceptor (gid, accepted, value) VALUES
	('$other', 0, 'commit'), ('mine', 0, 'commit'), ('may go', 0, 'commit'), ('abort', 1, 'abort');
UPDATE risk_alert.paxos_acceptor SET created_at = created_at - interval '2 days', changed_at = changed_at - interval '2 days';
INSERT INTO risk_alert.paxos_acceptor (gid, accepted, value, created_at) VALUES ('voted again', 0, 'commit', now() - interval '2 days');
INSERT INTO risk_alert.paxos_forgotten VALUES (now() - interval '47 hours', '{may go,voted again,never heard of}'), (now(), '{mine}');
INSERT INTO risk_alert.paxos_acceptor (gid, accepted, value) VALUES ('${gid}0', 0, 'commit');
INSERT INTO risk_alert.paxos_acceptor (gid, accepted, value, created_at) VALUES ('${gid}1', 0, 'commit', now() - interval '2 days');});
	}
	ok(wait_until($_, "$votes WHERE gid IN ('may go', 'abort')", 0), 'paxos: what may go goes, though nobody commits any more: ' . $_->name) foreach @nodes;
	looked(@nodes);
	is($_->safe_psql('postgres', $forgotten->()), 1, 'paxos: a node has a branch of it: ' . $_->name . ' keeps it') foreach @nodes;

	$node_c->stop;
	finish();
	looked($node_a, $node_b);
	is($_->safe_psql('postgres', $forgotten->()), 1, 'paxos: a node can\'t be asked: ' . $_->name . ' keeps it') foreach $node_a, $node_b;

	my ($host, $port) = ($node_c->host, PostgreSQL::Test::Cluster::get_free_port());
	$node_a->safe_psql('postgres', qq{CREATE SERVER node_d FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_d});
	$node_c->start;
	looked(@nodes);
	is($_->safe_psql('postgres', $forgotten->()), 1, 'paxos: the coordinator knows a node that may have one: ' . $_->name . ' keeps it') foreach @nodes;

	$node_a->safe_psql('postgres', 'DROP SERVER node_d CASCADE');
	ok(wait_until($_, $forgotten->(), 0), 'paxos: no node has a branch: ' . $_->name . ' forgets it') foreach @nodes;
	is($_->safe_psql('postgres', "$votes WHERE gid IN ('${gid}0', '${gid}1', 'voted again', 'mine')"), 4, 'paxos: ' . $_->name . ' keeps what is young') foreach @nodes;
	is($_->safe_psql('postgres', "$votes WHERE gid IN ('mine', '$other')"), 2, 'paxos: ' . $_->name . ' keeps what is not ours') foreach @nodes;
}

# ---- ZooKeeper's leader finds them
SKIP:
{
	skip ZooKeeper::missing(), 1 if ZooKeeper::missing();
	my $standing = sub { return "SELECT risk_alert._register_read('zookeeper', '$gid')" };
	my $leader;

	wait_until($_, 'SELECT state FROM risk_alert.stat_coordination', 'connected') foreach @nodes;
	leave('zookeeper', 2);
	prepare();
	$_->append_conf('postgresql.conf', "risk_alert.decision_retention = '1s'\n"), $_->reload foreach @nodes;
	wait_until($node_a, 'SELECT state FROM risk_alert.stat_coordination', 'connected');
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		($leader) = grep { $_->safe_psql('postgres', 'SELECT risk_alert.is_leader()') eq 't' } @nodes;
		last if $leader;
		Time::HiRes::sleep(0.1);
	}
	looked($leader) foreach 1 .. 3;
	is($node_c->safe_psql('postgres', $standing->()), 'commit', 'zookeeper: a node has a branch of it: it is kept');
	finish();
	ok(wait_until($node_c, $standing->(), 'none'), 'zookeeper: no node has a branch: it goes');
}

$_->stop foreach @nodes;
$zookeeper->stop if $zookeeper;
done_testing();
