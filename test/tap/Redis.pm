# Redis.pm
#	A private Redis server for tests, on loopback and a free port.
#
#	my $redis = Redis->new($directory, options => [ '--appendonly', 'yes' ]);
#	$redis->start; $redis->stop; $redis->kill9; $redis->restart;
#	$redis->pause; $redis->resume;			# SIGSTOP, SIGCONT
#	$redis->hosts							# 127.0.0.1:port
#	$redis->cli('DBSIZE')

package Redis;

use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Cluster;
use Time::HiRes qw(usleep);

my @all;

sub new
{
	my ($class, $dir, %option) = @_;
	mkdir $dir;
	my $self = bless {
		dir => $dir,
		port => PostgreSQL::Test::Cluster::get_free_port(),
		options => $option{options} // [],
	}, $class;
	push @all, $self;
	return $self;
}

sub hosts { return '127.0.0.1:' . $_[0]{port}; }

sub start
{
	my ($self) = @_;
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		exec 'redis-server', '--bind', '127.0.0.1', '--port', $self->{port}, '--dir', $self->{dir},
		  '--logfile', "$self->{dir}/redis.log", '--daemonize', 'no', '--save', '',
		  @{ $self->{options} }
		  or POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	for (1 .. 1000)
	{
		my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port});
		if ($socket)
		{
			# one that needs a password, or loads its data, answers too
			print $socket "PING\r\n";
			my $answer = <$socket> // '';
			return if $answer =~ /PONG|NOAUTH/;
		}
		die "redis-server has ended, see $self->{dir}/redis.log\n"
		  if waitpid($pid, POSIX::WNOHANG()) != 0;
		usleep(20_000);
	}
	die "redis-server does not answer\n";
}

sub end_process
{
	my ($self, $signal) = @_;
	return unless $self->{pid};
	kill 'CONT', $self->{pid};
	kill $signal, $self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
}

sub stop { $_[0]->end_process('TERM'); }
sub kill9 { $_[0]->end_process('KILL'); }
sub restart { $_[0]->kill9; $_[0]->start; }
sub pause { kill 'STOP', $_[0]{pid}; }
sub resume { kill 'CONT', $_[0]{pid}; }

sub cli
{
	my ($self, @command) = @_;
	open(my $out, '-|', 'redis-cli', '-p', $self->{port}, @command) or die "redis-cli: $!";
	local $/;
	my $answer = <$out>;
	close $out;
	chomp $answer;
	return $answer;
}

END
{
	my $status = $?;
	$_->kill9 for @all;
	$? = $status;
}

1;
