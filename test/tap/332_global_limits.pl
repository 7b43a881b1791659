# How many branches a global transaction can have.

use strict;
use warnings FATAL => 'all';

use GlobalCluster;
use RiskAlert;
use Test::More;

my ($node) = new_cluster(['node_a'], conf => "max_prepared_transactions = 80\nmax_connections = 120\n");
my $session;

my ($host, $port) = ($node->host, $node->port);
$node->safe_psql('postgres', 'CREATE TABLE t (id int)');
$node->safe_psql('postgres', join '', map {
	"CREATE SERVER s$_ FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'postgres'); CREATE USER MAPPING FOR CURRENT_USER SERVER s$_;"
} 1 .. 65);
$session = session($node);
answer($session, 'BEGIN');
answer($session, qq{SELECT count(risk_alert.global_execute('s' || i, 'INSERT INTO t VALUES (' || i || ')')) FROM generate_series(1, 64) i});
answer($session, 'SAVEPOINT s');
like(answer($session, on('s65', 'INSERT INTO t VALUES (65)')), qr/ERROR:  54000: a global transaction cannot have more than 64 branches/, 'the 65th branch is refused');
answer($session, 'ROLLBACK TO s');
is(answer($session, on('s64', 'INSERT INTO t VALUES (65)')), 1, 'one that is there is not');
is(answer($session, 'COMMIT'), '', 'the 64 commit');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), 65, 'all of them');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 0, 'nothing stays prepared');
$session->quit;
$node->stop;
done_testing();
