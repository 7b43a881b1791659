# Global transactions whose outcome is decided by a majority of the nodes themselves.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use Test::More;

my @nodes = accounts_cluster(conf => "risk_alert.commit_register = paxos\n");
my (undef, @others) = @nodes;

$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') foreach @nodes;
register_scenario('paxos',
	sub { $_->stop('immediate') foreach @others },
	sub { $_->start foreach @others });

$_->stop foreach @nodes;
done_testing();
