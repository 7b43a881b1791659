# Redis.pm
#	A private Redis server on the loopback interface.
#
#	my $redis = Redis->new(options => [ '--appendonly' => 'yes' ]);
#	$redis->start;
#	$redis->command('SET', 'k', 'v');
#	$redis->kill9; $redis->start;
#
# new() takes port (default: a free one), password (of the user "default"), acl (rules
# for a further user, as { risk => 'on >pw ~{risk}:* ...' }) and options of redis-server.
# Nothing is saved unless options say so, or save() is called.

package Redis;

use strict;
use warnings FATAL => 'all';

use File::Temp;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes;

our $timeout = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 120;

# Why there can't be a server, or undef
sub missing
{
	return undef if grep { -x "$_/redis-server" } split /:/, $ENV{PATH};
	return 'no redis-server';
}

sub _free_port
{
	my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "no port: $!";
	return $socket->sockport;
}

sub new
{
	my ($class, %args) = @_;
	return bless {
		port => $args{port} // _free_port(),
		password => $args{password},
		acl => $args{acl} // {},
		options => $args{options} // [],
		dir => File::Temp->newdir('redis-XXXXXX', TMPDIR => 1),
		parent => $$,
	}, $class;
}

sub port { return $_[0]->{port}; }
sub dir { return "$_[0]->{dir}"; }
sub host { return "127.0.0.1:$_[0]->{port}"; }
sub hosts { return $_[0]->host; }
sub pid { return $_[0]->{pid}; }

# Further options replace those of new()
sub start
{
	my ($self, @options) = @_;
	$self->{options} = \@options if @options;
	my @acl = map { ('--user', $_, split ' ', $self->{acl}->{$_}) } sort keys %{ $self->{acl} };
	my @command = (
		'redis-server', '--bind' => '127.0.0.1', '--port' => $self->{port}, '--dir' => $self->dir,
		'--logfile' => 'redis.log', '--save' => '',
		(defined $self->{password} ? ('--requirepass' => $self->{password}) : ()),
		@acl, @{ $self->{options} });

	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	$self->wait_until_up;
	return $self;
}

sub wait_until_up
{
	my ($self) = @_;
	my $deadline = Time::HiRes::time() + $timeout;
	while (Time::HiRes::time() < $deadline)
	{
		return if (eval { $self->command('PING') } // '') eq 'PONG';
		die "redis-server ended; see " . $self->dir . "/redis.log\n"
		  if waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid};
		Time::HiRes::sleep(0.02);
	}
	die "redis-server does not answer";
}

sub _end
{
	my ($self, $signal) = @_;
	my $pid = delete $self->{pid} or return;
	kill $signal, $pid;
	kill 'CONT', $pid;
	local $?;
	waitpid $pid, 0;
	delete $self->{socket};
	return;
}

sub stop { $_[0]->_end('TERM'); return; }
sub kill9 { $_[0]->_end('KILL'); return; }
sub restart { my ($self, @options) = @_; $self->stop; return $self->start(@options); }
sub pause { kill 'STOP', $_[0]->{pid}; return; }
sub resume { kill 'CONT', $_[0]->{pid}; return; }
sub save { $_[0]->command('SAVE'); return; }

# Run a command; arrays come as references, nil as undef, an error dies
sub command
{
	my ($self, @words) = @_;
	if (!$self->{socket})
	{
		$self->{socket} = IO::Socket::INET->new(PeerAddr => $self->host, Timeout => $timeout)
		  or die "no connection to Redis: $!\n";
		$self->command('AUTH', $self->{password}) if defined $self->{password};
	}
	my $text = '*' . @words . "\r\n" . join '', map { '$' . length($_) . "\r\n$_\r\n" } @words;
	my $reply = eval { $self->{socket}->syswrite($text) // die "write: $!\n"; $self->_reply };
	if (my $error = $@)
	{
		delete $self->{socket} unless $error =~ /^Redis: /;
		die $error;
	}
	return $reply;
}

sub _reply
{
	my ($self) = @_;
	my $socket = $self->{socket};
	my $line = $socket->getline // die "Redis has closed the connection\n";
	$line =~ s/\r\n\z//;
	my ($type, $rest) = (substr($line, 0, 1), substr($line, 1));
	die "Redis: $rest\n" if $type eq '-';
	return $rest if $type eq '+' || $type eq ':';
	return undef if $rest < 0;
	if ($type eq '$')
	{
		my $read = 0;
		my $data = '';
		while ($read < $rest + 2)
		{
			my $n = $socket->read($data, $rest + 2 - $read, $read) or die "Redis has closed the connection\n";
			$read += $n;
		}
		return substr($data, 0, $rest);
	}
	# all elements are read, so that an error among them leaves the connection usable
	my @elements = map { my $e = eval { $self->_reply }; $@ ? $@ : $e } 1 .. $rest;
	return \@elements;
}

sub log_text
{
	my ($self) = @_;
	open my $file, '<', $self->dir . '/redis.log' or return '';
	local $/;
	return <$file>;
}

sub DESTROY
{
	my ($self) = @_;
	$self->kill9 if $self->{pid} && $self->{parent} == $$;
	return;
}

1;
