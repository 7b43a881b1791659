# LockCluster.pm
#	Several PostgreSQL nodes with one coordination service, for tests.
#
#	my $cluster = LockCluster->new('redis', nodes => 3, timeout => 2000);
#	$cluster->node(0)						# PostgreSQL::Test::Cluster
#	$cluster->{service}						# Redis or ZooKeeper
#	$cluster->wait_connected;				# all brokers have a session

package LockCluster;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Redis;
use RiskAlert;
use Test::More;
use ZooKeeper;

my @all;

# name of the provider; nodes, servers (of ZooKeeper), timeout (ms), conf;
# hosts: makes the list of hosts of node i with this service
sub new
{
	my ($class, $provider, %option) = @_;
	my $self = bless { provider => $provider }, $class;
	push @all, $self;
	my $dir = PostgreSQL::Test::Utils::tempdir($provider);
	my $timeout = $option{timeout} // 3000;

	if ($provider eq 'redis')
	{
		$self->{service} = Redis->new;
		$self->{service}->start;
	}
	elsif ($provider eq 'zookeeper')
	{
		$self->{service} = ZooKeeper->new("$dir/zk", servers => $option{servers} // 1);
		$self->{service}->start;
	}
	for my $i (0 .. ($option{nodes} // 1) - 1)
	{
		my $hosts = $provider eq 'local' ? '' : $self->{service}->hosts;
		$hosts = $option{hosts}->($i, $self->{service}) if $option{hosts};
		$hosts = "risk_alert.${provider}_hosts = '$hosts'" if $provider ne 'local';
		push @{ $self->{nodes} }, new_node("${provider}_$i", conf => qq{
risk_alert.node_name = 'node_$i'
risk_alert.lock_provider = $provider
risk_alert.session_timeout = ${timeout}ms
$hosts
} . ($option{conf} // ''));
	}
	$self->wait_connected;
	return $self;
}

# Nodes first, then the service
sub stop
{
	my ($self) = @_;
	$_->teardown_node for $self->nodes;
	$self->{service}->kill9 if $self->{service};
	$self->{service} = undef;
}

END
{
	my $status = $?;
	$_->{service} && $_->{service}->kill9 for @all;
	$? = $status;
}

sub node { return $_[0]{nodes}[ $_[1] ]; }
sub nodes { return @{ $_[0]{nodes} }; }

sub wait_connected
{
	my ($self, @nodes) = @_;
	return if $self->{provider} eq 'local';
	for my $node (@nodes ? @nodes : $self->nodes)
	{
		$node->poll_query_until('postgres',
			q{SELECT state = 'connected' AND lease_ms > 0 FROM risk_alert.stat_coordination})
		  or die $node->name . ' has no session: '
		  . $node->safe_psql('postgres', 'SELECT * FROM risk_alert.stat_coordination');
	}
}

1;
