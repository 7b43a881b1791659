# Global transactions under SIGKILL, with the register that is a table of the coordinator.

use strict;
use warnings FATAL => 'all';

use GlobalKill;
use Test::More;

my @nodes = kill_cluster('local');
kill_at_steps('local');
kill_at_random('local');

$_->stop foreach @nodes;
done_testing();
