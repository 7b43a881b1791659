# F23: the network between the coordinator and a node drops what goes one way, or both, and heals: calls end at
# their time limit, and all nodes agree, also when a command is heard whose answer is not.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;

my @nodes = accounts_cluster(conf => "risk_alert.commit_timeout = 2s\n");
my ($node_a, $node_b, $node_c) = @nodes;
my $dir = PostgreSQL::Test::Utils::tempdir('network');

# Carries connections to node_c; what goes a way is held back while a file of that name is there, as
# TCP does when packets are lost
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 10, ReuseAddr => 1) or die "could not listen: $!";
my $network = fork // die "could not fork: $!";
if ($network == 0)
{
	my $parent = getppid();
	my (%peer, %way);
	$SIG{__DIE__} = sub { warn @_; POSIX::_exit(1) };	# the servers are not ours to stop
	$SIG{PIPE} = 'IGNORE';
	while (getppid() == $parent)
	{
		my $select = IO::Select->new($listener, map { $_->[0] } grep { !-e "$dir/$way{ $_->[0] }" } values %peer);
		foreach my $from ($select->can_read(0.02))
		{
			if ($from == $listener)
			{
				my $client = $listener->accept or next;
				my $server = IO::Socket::UNIX->new(Peer => $node_c->host . '/.s.PGSQL.' . $node_c->port) or next;
				$peer{$client} = [ $client, $server ];
				$peer{$server} = [ $server, $client ];
				@way{ $client, $server } = ('requests', 'answers');
				next;
			}
			next if !$peer{$from} || -e "$dir/$way{$from}";
			my $to = $peer{$from}[1];
			my $data;
			if (!sysread($from, $data, 65536) || !syswrite($to, $data))
			{
				delete @peer{ $from, $to };
				$_->close foreach $from, $to;
			}
		}
	}
	POSIX::_exit(0);
}
close $listener;
sub drop { append_to_file("$dir/$_", '') foreach @_; return; }
sub heal { unlink glob "$dir/*"; return; }

$node_a->safe_psql('postgres', "ALTER SERVER node_c OPTIONS (SET host '127.0.0.1', SET port '$port')");
is($node_a->safe_psql('postgres', 'BEGIN;' . on('node_b', take(1)) . ';' . on('node_c', give(1)) . ';COMMIT'), "1\n1", 'through the network it commits');
is(balances(1), '1000 990 1010', 'on both nodes');

my $id = 1;
foreach my $ways ([ 'answers' ], [ 'requests' ], [ 'answers', 'requests' ])
{
	my $claim = join(' and ', @$ways) . ' are dropped';
	my $session;

	$id++;
	$session = session($node_a);
	commit_until($session, 'prepare 2', on('node_b', take($id)), on('node_c', give($id)));
	drop(@$ways);
	go();
	like(outcome($session), qr/ERROR:  57014: not all nodes have prepared the transaction within 2000 ms/, "$claim before the second branch is prepared: COMMIT fails in time");
	ok(defined settled($node_a, $node_b), "$claim before the second branch is prepared: the others go on");
	heal();
	ok(defined settled(), "$claim before the second branch is prepared, and heals: nothing stays prepared");
	is(balances($id), '1000 1000 1000', "$claim before the second branch is prepared: nothing is done");
	$session->quit;

	$id++;
	$session = session($node_a);
	commit_until($session, 'commit 1', on('node_b', take($id)), on('node_c', give($id)));
	drop(@$ways);
	go();
	like(outcome($session), qr/^psql\S* WARNING:  01000: global transaction "\S+" is committed, but its branch on node "node_c" is not finished yet/, "$claim when it is decided: COMMIT ends in time, and has committed");
	ok(defined settled(), "$claim when it is decided: node_c finishes without being told");
	is(balances($id), '1000 990 1010', "$claim when it is decided: all nodes agree");
	heal();
	$session->quit;
}

is($node_a->safe_psql('postgres', 'BEGIN;' . on('node_b', take(1)) . ';' . on('node_c', give(1)) . ';COMMIT'), "1\n1", 'it has healed: it commits');
is(balances(1), '1000 980 1020', 'on both nodes');
kill('TERM', $network);
waitpid($network, 0);
$_->stop foreach @nodes;
done_testing();
