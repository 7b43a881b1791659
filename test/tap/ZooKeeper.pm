# ZooKeeper.pm
#	Private ZooKeeper servers for tests: on the loopback address, on free ports,
#	in a directory of the test's own.
#
#	my $zk = ZooKeeper->new($dir, servers => 3);	# default: 1
#	$zk->start;  $zk->hosts;  $zk->port(2);
#	$zk->stop; $zk->kill(1); $zk->pause; $zk->resume; $zk->restart; $zk->wipe;
#
# Methods act on all servers, or on those whose numbers (from 1) are given.
# All that is known stands in files below the directory, so that another process
# can go on with the same servers: ZooKeeper->new($dir) finds them.  They end with the
# process that has started them, unless new() is told keep => 1.
# zookeeper_server in test/provider does this for programs in other languages.

package ZooKeeper;

use strict;
use warnings;

use Carp;
use File::Path qw(make_path remove_tree);
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);

my $jars = $ENV{ZOOKEEPER_JARS} || '/usr/share/java';
my @jvm = qw(-Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xshare:auto);

# Whose servers end with us
my @ours;

END
{
	my $status = $?;
	$_->[0] == $$ && $_->[1]->signal('KILL') foreach @ours;
	$? = $status;
}

# Whether these servers can be run here; else why not
sub missing
{
	return "java is not installed" unless grep { -x "$_/java" } split /:/, $ENV{PATH};
	return "$jars/zookeeper.jar is not there" unless -e "$jars/zookeeper.jar";
	return;
}

# tick: milliseconds; sessions last 2 to 20 of them.  fsync: whether the log is
# flushed to disk, as it must be where data counts.  ports: in place of free ones.  jvm: its options, in place of
# those that start soon and take little.  keep: they outlive this process.
# tls: a server's key and certificate in one file, and a CA's (pem, ca): there is a second
# port, tls_port(), which wants a certificate of that CA from the client, too.
sub new
{
	my ($class, $dir, %opt) = @_;
	my $self = bless { dir => $dir, ports => [], jvm => $opt{jvm} // \@jvm, tls => $opt{tls} }, $class;
	push @ours, [ $$, $self ] unless $opt{keep};

	if (-e "$dir/ports")
	{
		$self->{ports} = [ split ' ', slurp("$dir/ports") ];
		$self->{fsync} = -e "$dir/fsync";
		return $self;
	}

	my $n = $opt{servers} // 1;
	my @ports = @{ $opt{ports} // [ free_ports($n == 1 ? 1 : 3 * $n) ] };
	$self->{ports} = [ @ports[ 0 .. $n - 1 ] ];
	$self->{fsync} = $opt{fsync};
	my $tick = $opt{tick} // 200;
	my $ensemble = '';
	if ($n > 1)
	{
		$ensemble .= "server.$_=127.0.0.1:$ports[$n + $_ - 1]:$ports[2 * $n + $_ - 1]\n" for 1 .. $n;
	}
	for my $i (1 .. $n)
	{
		make_path("$dir/$i/data");
		spew("$dir/$i/data/myid", "$i\n") if $n > 1;
		spew("$dir/$i/zoo.cfg", <<"END" . $ensemble);
tickTime=$tick
initLimit=50
syncLimit=20
dataDir=$dir/$i/data
clientPort=$self->{ports}[$i - 1]
clientPortAddress=127.0.0.1
maxClientCnxns=0
snapCount=10000
admin.enableServer=false
4lw.commands.whitelist=srvr,dump
END
		add_tls($self, $i) if $self->{tls};
	}
	spew("$dir/fsync", '') if $opt{fsync};
	spew("$dir/ports", "@{$self->{ports}}\n");
	return $self;
}

sub add_tls
{
	my ($self, $i) = @_;
	my $config = "$self->{dir}/$i/zoo.cfg";

	($self->{tls_ports}[ $i - 1 ]) = free_ports(1);
	spew($config, slurp($config) . <<"END");
secureClientPort=$self->{tls_ports}[$i - 1]
secureClientPortAddress=127.0.0.1
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory
ssl.keyStore.location=$self->{tls}{pem}
ssl.keyStore.type=PEM
ssl.trustStore.location=$self->{tls}{ca}
ssl.trustStore.type=PEM
END
	return;
}

sub tls_port { my ($self, $i) = @_; return $self->{tls_ports}[ ($i // 1) - 1 ]; }

sub port { my ($self, $i) = @_; return $self->{ports}[ ($i // 1) - 1 ]; }

sub hosts { my $self = shift; return join ',', map { "127.0.0.1:$_" } @{ $self->{ports} }; }

sub which
{
	my ($self, @which) = @_;
	@which = (1 .. @{ $self->{ports} }) unless @which;
	return @which;
}

# Start, and wait until they serve
sub start
{
	my ($self, @which) = @_;

	for my $i ($self->which(@which))
	{
		croak "server $i runs already" if $self->pid($i);
		my $dir = "$self->{dir}/$i";
		my @command = ('java', @{ $self->{jvm} },
			'-cp', join(':', map { "$jars/$_" } qw(zookeeper.jar slf4j-simple.jar), $self->{tls} ? map { s{.*/}{}r } glob "$jars/netty-*.jar" : ()),
			'-Dorg.slf4j.simpleLogger.defaultLogLevel=' . ($ENV{ZOOKEEPER_LOG} || 'error'),
			'-Dzookeeper.forceSync=' . ($self->{fsync} ? 'yes' : 'no'),
			'org.apache.zookeeper.server.quorum.QuorumPeerMain', "$dir/zoo.cfg");

		# a grandchild, so that nobody has to wait for it
		my $child = fork // croak "could not fork: $!";
		if ($child == 0)
		{
			POSIX::setsid();
			my $pid = fork;
			POSIX::_exit(1) unless defined $pid;
			if ($pid)
			{
				spew("$dir/pid", "$pid\n");
				POSIX::_exit(0);
			}
			open STDIN, '<', '/dev/null';
			open STDOUT, '>>', "$dir/log";
			open STDERR, '>&', \*STDOUT;
			POSIX::close($_) for 3 .. 255;
			exec @command or POSIX::_exit(1);
		}
		waitpid $child, 0;
	}
	$self->wait_until_serving(@which);
	return $self;
}

sub wait_until_serving
{
	my ($self, @which) = @_;
	my $deadline = time + 60;

	for my $i ($self->which(@which))
	{
		until ($self->mode($i))
		{
			croak "server $i does not start:\n" . substr(slurp("$self->{dir}/$i/log"), -2000)
			  if time > $deadline || !$self->pid($i);
			sleep 0.05;
		}
	}
	return;
}

# standalone, leader, follower; or empty if it does not serve
sub mode
{
	my ($self, $i) = @_;
	return $self->srvr($i) =~ /^Mode: (\w+)/m ? $1 : '';
}

# What a server says about itself; empty if it does not serve.  One that is just
# starting may fail to close the connection: don't wait for that.
sub srvr
{
	my ($self, $i) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->port($i), Timeout => 2)
	  or return '';

	# one that is just starting may take a connection and forget it
	my $answer = '';
	my $deadline = time + 2;
	$socket->blocking(0);
	$socket->syswrite('srvr');
	while (time < $deadline && IO::Select->new($socket)->can_read($deadline - time))
	{
		last unless $socket->sysread($answer, 4096, length $answer);
	}
	return $answer;
}

# Number of the leader
sub leader
{
	my $self = shift;
	my ($leader) = grep { $self->mode($_) eq 'leader' } $self->which;
	return $leader;
}

# Only if that process is the server, and not a later one with its number
sub pid
{
	my ($self, $i) = @_;
	my $dir = "$self->{dir}/$i";

	return unless -s "$dir/pid";
	my ($pid) = slurp("$dir/pid") =~ /(\d+)/;
	my $command = -e "/proc/$pid/cmdline" ? slurp("/proc/$pid/cmdline") : '';
	my $state = -e "/proc/$pid/stat" ? slurp("/proc/$pid/stat") : '';
	return if $state eq '' || $state =~ /\) Z/;

	# before and while it becomes java it is called otherwise
	return if $command ne '' && index($command, "$dir/zoo.cfg") < 0 && index($command, $0) < 0;
	return $pid;
}

sub signal
{
	my ($self, $signal, @which) = @_;
	kill $signal, $_ for grep { defined } map { $self->pid($_) } $self->which(@which);
	return;
}

sub wait_until_gone
{
	my ($self, @which) = @_;
	my $deadline = time + 30;

	for my $i ($self->which(@which))
	{
		while ($self->pid($i))
		{
			croak "server $i does not end" if time > $deadline;
			sleep 0.02;
		}
		unlink "$self->{dir}/$i/pid";
	}
	return;
}

sub stop { my ($self, @which) = @_; $self->signal('CONT', @which); $self->signal('TERM', @which); $self->wait_until_gone(@which); return; }
sub kill9 { my ($self, @which) = @_; $self->signal('KILL', @which); $self->wait_until_gone(@which); return; }
sub pause { my ($self, @which) = @_; $self->signal('STOP', @which); return; }
sub resume { my ($self, @which) = @_; $self->signal('CONT', @which); return; }
sub restart { my ($self, @which) = @_; $self->stop(@which); $self->start(@which); return; }

# Forget all data of servers that are stopped
sub wipe
{
	my ($self, @which) = @_;
	remove_tree("$self->{dir}/$_/data/version-2") for $self->which(@which);
	return;
}

# Put data aside while stopped, and bring it back
sub save
{
	my ($self) = @_;
	remove_tree("$self->{dir}/saved");
	system('cp', '-a', "$self->{dir}/1/data", "$self->{dir}/saved") == 0 or croak 'cp failed';
	return;
}

sub restore
{
	my ($self) = @_;
	$self->wipe(1);
	system('cp', '-a', "$self->{dir}/saved/version-2", "$self->{dir}/1/data/") == 0 or croak 'cp failed';
	return;
}

# Below those that the system gives to outgoing connections, so that a port is
# still free when its server is started again
sub free_ports
{
	my ($n) = @_;
	my @sockets;

	for (my $try = 0; @sockets < $n; $try++)
	{
		croak 'no free ports' if $try > 1000;
		my $socket = IO::Socket::INET->new(
			LocalAddr => '127.0.0.1', LocalPort => 10000 + int rand 22000, Listen => 1, ReuseAddr => 1);
		push @sockets, $socket if $socket;
	}
	return map { $_->sockport } @sockets;
}

sub slurp
{
	my ($file) = @_;
	open my $fh, '<', $file or return '';
	local $/;
	return scalar(<$fh>) // '';
}

sub spew
{
	my ($file, $text) = @_;
	open my $fh, '>', "$file.tmp" or croak "$file: $!";
	print $fh $text;
	close $fh or croak "$file: $!";
	rename "$file.tmp", $file or croak "$file: $!";
	return;
}

1;
