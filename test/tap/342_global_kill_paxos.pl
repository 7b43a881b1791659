# Global transactions under SIGKILL, with the nodes' own majority as register.

use strict;
use warnings FATAL => 'all';

use GlobalKill;
use Test::More;

my @nodes = kill_cluster('paxos');
$_->safe_psql('postgres', 'SELECT risk_alert.paxos_admit(force => true)') foreach @nodes;
kill_at_steps('paxos');
kill_at_random('paxos');

$_->stop foreach @nodes;
done_testing();
