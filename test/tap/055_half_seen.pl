# A rule set that is published while the worker reads it: the worker sees all of it, or nothing.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use RiskAlert;
use Session;
use Test::More;

my $node = new_node('main', conf => "risk_alert.rule_timeout = 0\nrisk_alert.allow_superuser_rules = on\n");
create_payments($node);

# Planning the feature's filter waits for whoever holds the lock, so reading the rule set stops between
# the features and the rules
$node->safe_psql('postgres', q{
CREATE FUNCTION gate() RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$BEGIN PERFORM pg_advisory_lock_shared(42); PERFORM pg_advisory_unlock_shared(42); RETURN true; END$$;
SELECT risk_alert.create_feature('payments', 'gated', entity => 'card_id', aggregate => 'count(*)', within => '1 hour', filter => 'gate()');
SELECT risk_alert.alter_rule('payments', 'large', reason => 'version ' || version + 1) FROM risk_alert.streams;});

my $session = session($node);
my $worker = worker_pid($node);
foreach my $i (1 .. 3)
{
	answer($session, 'SELECT pg_advisory_lock(42)');
	answer($session, q{SELECT risk_alert.alter_rule('payments', 'large', reason => 'version ' || version + 1) FROM risk_alert.streams});
	answer($session, "INSERT INTO payments VALUES ($i, $i, 2000, now())");
	ok(wait_until($node, "SELECT count(*) FROM pg_locks WHERE pid = $worker AND locktype = 'advisory' AND NOT granted", 1), 'the worker is reading the rule set');
	answer($session, q{SELECT risk_alert.alter_rule('payments', 'large', reason => 'version ' || version + 1) FROM risk_alert.streams});
	answer($session, 'SELECT pg_advisory_unlock(42)');
	drain($node);
	is($node->safe_psql('postgres', "SELECT reasons->0->>'text' = 'version ' || rule_set_version FROM risk_alert.alerts WHERE event_key = '$i'"), 't', 'its version and its rules belong together');
}

# A function is renamed meanwhile, and in the rules with it: the worker has read these with the old name
$node->safe_psql('postgres', q{
CREATE FUNCTION big(numeric) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 >= 1000';
SELECT risk_alert.alter_rule('payments', 'large', condition => 'big(amount)');});
answer($session, 'SELECT pg_advisory_lock(42)');
answer($session, q{SELECT risk_alert.alter_rule('payments', 'large', points => 71)});
answer($session, 'INSERT INTO payments VALUES (4, 4, 2000, now())');
ok(wait_until($node, "SELECT count(*) FROM pg_locks WHERE pid = $worker AND locktype = 'advisory' AND NOT granted", 1), 'the worker is reading the rule set');
answer($session, 'ALTER FUNCTION big(numeric) RENAME TO bigger');
answer($session, 'SELECT pg_advisory_unlock(42)');
drain($node);
is($node->safe_psql('postgres', "SELECT score FROM risk_alert.alerts WHERE event_key = '4'"), '71', 'a rule counts though a function in it is renamed while it is read');
$session->quit;
$node->stop;
done_testing();
