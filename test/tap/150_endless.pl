# Rules and features that don't end, and don't let themselves be cancelled: the
# worker ends itself, and its successor leaves them out.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('endless', conf => "risk_alert.rule_timeout = 20ms\n");
create_payments($node);

# in the worker only, so that sessions can define rules that call them
$node->safe_psql('postgres', q{
CREATE FUNCTION in_worker() RETURNS bool LANGUAGE sql STABLE AS $$ SELECT current_setting('application_name') = 'risk_alert worker' $$;
CREATE FUNCTION stubborn(x numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	WHILE public.in_worker() LOOP
		BEGIN
			PERFORM pg_sleep(60);
		EXCEPTION WHEN query_canceled THEN
			NULL;
		END;
	END LOOP;
	RETURN x;
END $$;
CREATE FUNCTION endless(x numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	WHILE public.in_worker() LOOP
		NULL;
	END LOOP;
	RETURN x;
END $$});

my $payment = 0;
sub scored
{
	my ($claim, $rules) = @_;
	$payment++;
	$node->safe_psql('postgres', "INSERT INTO payments VALUES ($payment, 1, 5000, timestamptz '2026-01-01Z' + $payment * interval '1 day')");
	drain($node);
	is($node->safe_psql('postgres', "SELECT rules FROM risk_alert.alerts WHERE event_key = '$payment'"), $rules, $claim);
	return;
}

sub suspended
{
	my ($rule) = @_;
	return $node->safe_psql('postgres', "SELECT suspended_for FROM risk_alert.stat_rules WHERE rule = '$rule' AND suspended_at IS NOT NULL");
}

scored('before', '{large}');
my $pid = worker_pid($node);

# a condition
$node->safe_psql('postgres', q{SELECT risk_alert.create_rule('payments', 'stubborn', 'stubborn(amount) > 0', points => 10)});
scored('a rule that catches each cancellation is left out, the others go on', '{large}');
like(suspended('stubborn'), qr/does not end/, '... and suspended');
isnt(worker_pid($node), $pid, '... by another worker');
like(slurp_file($node->logfile), qr/FATAL:  rule "stubborn" of stream "payments" does not end/, '... as the log tells');
$pid = worker_pid($node);
scored('the next event finds it suspended', '{large}');
is(worker_pid($node), $pid, '... and the worker stays');
$node->safe_psql('postgres', q{SELECT risk_alert.alter_rule('payments', 'stubborn', condition => 'amount > 0')});
scored('corrected, it is a rule again', '{large,stubborn}');
$node->safe_psql('postgres', q{SELECT risk_alert.drop_rule('payments', 'stubborn')});

# what planning evaluates
$node->safe_psql('postgres', q{SELECT risk_alert.create_rule('payments', 'endless', 'amount > endless(1)', points => 10)});
scored('a rule whose constant part takes too long is broken, the others go on', '{large}');
is(worker_pid($node), $pid, '... and the worker stays');
$node->safe_psql('postgres', q{SELECT risk_alert.drop_rule('payments', 'endless')});
$node->safe_psql('postgres', q{SELECT risk_alert.create_rule('payments', 'folded', 'amount > stubborn(1)', points => 10)});
scored('one whose constant part catches cancellations, too', '{large}');
like(suspended('folded'), qr/does not end/, '... and is suspended');
isnt(worker_pid($node), $pid, '... by another worker');
$pid = worker_pid($node);
$node->safe_psql('postgres', q{SELECT risk_alert.alter_stream('payments', review_at => 30)});
scored('suspended, it is not even loaded', '{large}');
is(worker_pid($node), $pid, '... so the worker stays');
$node->safe_psql('postgres', q{SELECT risk_alert.drop_rule('payments', 'folded')});

# a feature
$node->safe_psql('postgres', q{
SELECT risk_alert.create_feature('payments', 'stubborn', entity => 'card_id', aggregate => 'sum(stubborn(amount))', within => '1 hour');
SELECT risk_alert.create_rule('payments', 'sum', 'coalesce(stubborn, 0) >= 0', points => 10)});
scored('a feature that catches cancellations is left out, with the rules over it', '{large}');
like(slurp_file($node->logfile), qr/FATAL:  feature "stubborn" of stream "payments" does not end/, '... as the log tells');
$pid = worker_pid($node);
scored('... for good', '{large}');
is(worker_pid($node), $pid, '... and the worker stays');

$node->stop;
done_testing();
