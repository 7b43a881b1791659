# LockAttack.pm
#	What tests share that attack the cluster's advisory locks.
#
#	my $psql = session($node);				# goes on after errors, tells SQLSTATEs
#	my ($out, $err) = ask($psql, $sql);
#	start($psql, $sql); finish($psql);		# does not wait for the answer; waits
#	wait_for { condition } 'what';
#	my $proxy = LockAttack::Proxy->new($port, ...);  $proxy->cut; $proxy->mend;

package LockAttack;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes qw(time sleep);

our @EXPORT = qw(session ask start finish wait_for broker_pid status hammer_program nothing_left sql);

sub session
{
	my ($node) = @_;
	my $psql = $node->background_psql('postgres', on_error_stop => 0);
	$psql->set_query_timer_restart;
	$psql->query_safe('\set VERBOSITY verbose');
	return $psql;
}

# Output and error of one query
sub ask
{
	my ($psql, $sql) = @_;
	$psql->{stderr} = '';
	my ($out) = $psql->query($sql);
	return ($out, $psql->{stderr});
}

my $started = 0;

sub start
{
	my ($psql, $sql) = @_;
	$started++;
	$psql->{stderr} = '';
	$sql .= ';' unless $sql =~ /\\gset$/;
	$psql->query_until(qr/started $started\n/, "\\echo started $started\n$sql\n");
	return;
}

# ($output, $error) of what was started
sub finish
{
	my ($psql) = @_;
	my ($out) = $psql->query('\echo');
	return ($out, $psql->{stderr});
}

# One statement in a session of its own: output and error
sub sql
{
	my ($node, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", timeout => 60);
	return ($out, $err);
}

# Poll until true; dies if it never is
sub wait_for(&$;$)
{
	my ($condition, $what, $seconds) = @_;
	my $end = time + ($seconds // $PostgreSQL::Test::Utils::timeout_default);

	while (1)
	{
		my $done = $condition->();
		return $done if $done;
		last if time > $end;
		sleep 0.02;
	}
	diag("waited in vain: $what");
	die "waited in vain: $what\n";
}

sub status
{
	my ($node, $columns) = @_;
	return $node->safe_psql('postgres', "SELECT $columns FROM risk_alert.stat_coordination");
}

sub broker_pid
{
	my ($node) = @_;
	return status($node, 'pid');
}

# Compiled once per test file
my $hammer;

sub hammer_program
{
	return $hammer if $hammer;
	my $program = PostgreSQL::Test::Utils::tempdir('hammer') . '/lock_hammer';
	my $config = $ENV{PG_CONFIG} // 'pg_config';
	chomp(my $include = `$config --includedir`);
	chomp(my $lib = `$config --libdir`);
	return undef
	  if system('cc', '-O', '-Wall', '-o', $program, 'test/tap/lock_hammer.c', "-I$include", "-L$lib", '-lpq', '-lpthread') != 0;
	return $hammer = $program;
}

# No entry of any lock, on any node nor at the service, and the lock can be had at once
sub nothing_left
{
	my ($cluster, $key) = @_;
	for my $node ($cluster->nodes)
	{
		return 0
		  if !RiskAlert::wait_until($node,
			'SELECT (SELECT count(*) FROM risk_alert.advisory_locks) + (SELECT count(*) FROM risk_alert._lock_entries())', '0');
	}
	for my $node ($cluster->nodes)
	{
		my ($out, $err) = sql($node, "SELECT risk_alert.advisory_lock('$key', '5s') IS NOT NULL");
		if ($out ne 't')
		{
			diag('no lock at ' . $node->name . ": $err");
			return 0;
		}
	}
	return 1;
}

# A TCP proxy: a process that can be ended, which cuts all its connections
package LockAttack::Proxy;

use IO::Select;
use IO::Socket::INET;
use POSIX ();

my @all;

# ports to connect to
sub new
{
	my ($class, @targets) = @_;
	my $self = bless {}, $class;
	for my $target (@targets)
	{
		push @{ $self->{map} }, [ PostgreSQL::Test::Cluster::get_free_port(), $target ];
	}
	push @all, $self;
	$self->mend;
	return $self;
}

sub hosts { return join ',', map { "127.0.0.1:$_->[0]" } @{ $_[0]{map} }; }

sub cut
{
	my ($self) = @_;
	return unless $self->{pid};
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
	return;
}

# Nothing gets through, nor is anything cut
sub stall { kill 'STOP', $_[0]{pid}; return; }
sub resume { kill 'CONT', $_[0]{pid}; return; }

sub mend
{
	my ($self) = @_;
	return if $self->{pid};
	my %target;
	my $select = IO::Select->new;
	for my $pair (@{ $self->{map} })
	{
		my $listener = IO::Socket::INET->new(
			LocalAddr => '127.0.0.1', LocalPort => $pair->[0], Listen => 16, ReuseAddr => 1)
		  or die "could not listen: $!";
		$target{ fileno $listener } = $pair->[1];
		$select->add($listener);
	}
	$self->{pid} = fork() // die "fork: $!";
	return if $self->{pid};

	$SIG{PIPE} = 'IGNORE';
	my %peer;
	my $parent = getppid;
	while (getppid == $parent)
	{
		for my $socket ($select->can_read(1))
		{
			next unless defined fileno $socket;
			if (my $port = $target{ fileno $socket })
			{
				my $client = $socket->accept or next;
				my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
				next unless $server;
				$peer{ fileno $client } = $server;
				$peer{ fileno $server } = $client;
				$select->add($client, $server);
				next;
			}
			my $other = $peer{ fileno $socket } or next;
			my $data;
			if (sysread($socket, $data, 65536) and defined syswrite($other, $data))
			{
				next;
			}
			delete $peer{ fileno $_ } for $socket, $other;
			$select->remove($socket, $other);
			close $_ for $socket, $other;
		}
	}
	POSIX::_exit(0);
}

END
{
	my $status = $?;
	$_->cut for @all;
	$? = $status;
}

1;
