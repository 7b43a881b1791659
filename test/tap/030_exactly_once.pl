# Exactly once.  Eight sessions insert, update, delete and roll back while the
# worker is killed (SIGKILL), terminated (pg_terminate_backend) and the server
# is shut down immediately and started, again and again.  At the end the alerts
# (key, entity, rules, score, features, folding) are those of an undisturbed
# run over the same rows: none is missing, none is there twice.

use strict;
use warnings FATAL => 'all';

use IO::Handle;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $sessions = 8;
my $per_session = 6000;
my $disturbances = 24;

my $node = new_node('chaos', conf => "risk_alert.batch_size = 100\nrisk_alert.queue_rotate_size = 64kB");

my $problems = $node->basedir . '/problems';

# Entities belong to one session each, whose events come in order: so what an
# event sees does not depend on how sessions interleave.
my $setup = q{
CREATE TABLE payments (session int, n int, card_id text, amount numeric(12,2), shop int, at timestamptz,
	PRIMARY KEY (session, n));
CREATE INDEX ON payments (card_id, at);
CREATE INDEX ON payments (session, shop, at);
SELECT risk_alert.watch('payments', event_time => 'at', suppress => '10 minutes');
SELECT risk_alert.create_feature('payments', 'card_n', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('payments', 'card_sum', entity => 'card_id', aggregate => 'sum(amount)', within => '1 day',
	filter => 'amount > 0');
SELECT risk_alert.create_feature('payments', 'card_shops', entity => 'card_id', aggregate => 'count(DISTINCT shop)', within => '30 minutes');
SELECT risk_alert.create_feature('payments', 'shop_max', entity => 'session, shop', aggregate => 'max(amount)', within => '2 hours',
	include_current => false);
SELECT risk_alert.create_rule('payments', 'burst', 'card_n > 12', points => 50, reason => '{card_n} of {card_id}');
SELECT risk_alert.create_rule('payments', 'shops', 'card_shops >= 5', points => 60, severity => 'high');
SELECT risk_alert.create_rule('payments', 'spent', 'card_sum > 9000 AND amount > 100', points => 70, severity => 'critical');
SELECT risk_alert.create_rule('payments', 'record', 'amount > 3 * shop_max', points => 55);
};
$node->safe_psql('postgres', $setup);
$node->safe_psql('postgres', "CREATE DATABASE calm");
$node->safe_psql('calm', "CREATE EXTENSION risk_alert; $setup");

# The statements of a session from its event n on, in transactions of 1 to 8
# events; a session that was cut off goes on behind its last committed event.
sub transactions
{
	my ($session, $n, $limit) = @_;
	my @sql;

	while ($n <= $limit)
	{
		my $size = 1 + ($n * 7 + $session) % 8;
		my $to = $n + $size - 1;
		$to = $limit if $to > $limit;
		my $ghosts = "INSERT INTO payments SELECT $session, 100000 + g, 'c$session-' || g % 9, 99999, 1, '2026-01-01Z' FROM generate_series(1, 3) g;";

		my $events = qq{
INSERT INTO payments SELECT $session, g, 'c$session-' || (g * g) % 9, (g * 7919 + $session * 104729) % 40000 / 100.0,
	g % 6, timestamptz '2026-01-01Z' + g * interval '31 s' FROM generate_series($n, $to) g;};

		push @sql, "BEGIN; $ghosts ROLLBACK;" if $n % 5 == 0;
		# updates and deletes of a card that stays quiet
		push @sql, "INSERT INTO payments VALUES ($session, -1, 'quiet$session', 1, 100, '2026-01-01Z');",
		  "UPDATE payments SET amount = 2 WHERE session = $session AND n = -1;",
		  "DELETE FROM payments WHERE session = $session AND n = -1;" if $n % 11 == 0;
		if ($n % 3 == 0)
		{
			push @sql, "BEGIN; SAVEPOINT s; $ghosts ROLLBACK TO s; $events COMMIT;";
		}
		else
		{
			push @sql, "BEGIN; $events COMMIT;";
		}
		$n = $to + 1;
	}
	return join("\n", @sql) . "\n";
}

# A session: told (through its pipe) how far to go, it goes there, however
# often it is cut off
sub run_session
{
	my ($session, $db, $orders, $parent) = @_;
	my $connstr = $node->connstr($db);

	while (my $limit = <$orders>)
	{
		chomp $limit;
		# (nobody to work for: the test was cut off)
		while (getppid() == $parent)
		{
			my $last = `psql -XAtc "SELECT max(n) FROM payments WHERE session = $session AND n < 100000" -d "$connstr" 2>/dev/null`;
			my $psql;

			if ($? != 0)
			{
				wait_until($node, 'SELECT true', 't', $db);
				next;
			}
			$last = $last =~ /(\d+)/ ? $1 : 0;
			last if $last >= $limit;
			open($psql, '|-', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $connstr, '-o', '/dev/null')
			  or die "could not run psql: $!";
			local $SIG{PIPE} = 'IGNORE';
			# cut off between the two, the quiet card's row is still there
			print $psql "DELETE FROM payments WHERE session = $session AND n = -1;\n",
			  transactions($session, $last + 1, $limit);
			close($psql);
		}
	}
	return;
}

sub start_sessions
{
	my ($db) = @_;
	my @children;
	my $test = $$;

	foreach my $session (1 .. $sessions)
	{
		pipe(my $read, my $write) or die "could not make a pipe: $!";
		my $pid = fork() // die "could not fork: $!";
		if ($pid == 0)
		{
			close $write;
			close $_->{orders} foreach @children;
			open(STDERR, '>', '/dev/null');
			open(STDOUT, '>', '/dev/null');
			# without the end blocks that would stop the server
			eval { run_session($session, $db, $read, $test); 1 } or append_to_file($problems, $@);
			POSIX::_exit(0);
		}
		close $read;
		$write->autoflush(1);
		push @children, { pid => $pid, orders => $write };
	}
	return @children;
}

sub go_to
{
	my ($limit, @children) = @_;
	print { $_->{orders} } "$limit\n" foreach @children;
	return;
}

sub finish
{
	my (@children) = @_;
	close $_->{orders} foreach @children;
	waitpid($_->{pid}, 0) foreach @children;
	return;
}

# The undisturbed run
my @children = start_sessions('calm');
go_to($per_session, @children);
finish(@children);
drain($node, 'calm');

# The disturbed one: in steps, so that the disturbances fall all over it; each
# comes while a step is under way, or (the last of them) just as it ends.
@children = start_sessions('postgres');
my %done;

for my $i (1 .. $disturbances)
{
	my $from = int($per_session * ($i - 1) / $disturbances);
	my $to = int($per_session * $i / $disturbances);
	my $pid = wait_for_worker($node);

	go_to($to, @children);
	wait_until($node, "SELECT count(*) > $sessions * $from + 20 * $i FROM payments WHERE n < 100000")
	  or BAIL_OUT('the sessions do not get on');
	if ($i % 3 == 0)
	{
		$node->stop('immediate');
		$node->start;
		$done{'immediate shutdown'}++;
	}
	elsif ($i % 3 == 1)
	{
		kill('KILL', $pid) or die "could not kill the worker: $!";
		wait_for_worker($node, 'postgres', $pid);
		$done{'SIGKILL'}++;
	}
	else
	{
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
		wait_for_worker($node, 'postgres', $pid);
		$done{'pg_terminate_backend'}++;
	}
}
finish(@children);

foreach my $what ('SIGKILL', 'pg_terminate_backend', 'immediate shutdown')
{
	cmp_ok($done{$what} // 0, '>=', 8, "disturbed often enough: $what");
}

is(-e $problems ? slurp_file($problems) : '', '', 'sessions had no other trouble than being cut off');

my $digest = q{SELECT count(*), md5(string_agg(p::text, ',' ORDER BY session, n)) FROM payments p};
is($node->safe_psql('postgres', $digest), $node->safe_psql('calm', $digest), 'both runs have the same rows');

drain($node);
my $events = q{
SELECT event_key, event_time, score, rules FROM risk_alert.alert_event ORDER BY event_key COLLATE "C"};
my $alerts = q{
SELECT event_key, entity, lead_rule, event_time, score, decision, severity, rules, reasons, features, events, last_event_time
FROM risk_alert.alert ORDER BY event_key COLLATE "C"};
my $expected = $node->safe_psql('calm', $events);
cmp_ok(scalar(split /\n/, $expected), '>', 1000, 'there is something to lose');
ok($node->safe_psql('postgres', $events) eq $expected,
	'every event that alerts without faults has alerted once, with the same score and rules');
ok($node->safe_psql('postgres', $alerts) eq $node->safe_psql('calm', $alerts),
	'the alerts are the same: entity, reasons, features, folded events');
is($node->safe_psql('postgres', 'SELECT sum(events) = (SELECT count(*) FROM risk_alert.alert_event) FROM risk_alert.alert'),
	't', 'every event is counted in one alert');
is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alert_event WHERE event_key ~ '10000'}),
	0, 'nothing that was rolled back has alerted');

# The windows are those of the table, whatever was updated, deleted or rolled back:
# for each card's last payments, and for the cards whose rows went again
is($node->safe_psql('postgres', q{
SELECT count(*), count(*) FILTER (WHERE (features->>'card_n', (features->>'card_sum')::numeric, features->>'card_shops', (features->>'shop_max')::numeric)
	IS DISTINCT FROM (c::text, s, k::text, m))
FROM (SELECT p.*, row_number() OVER (PARTITION BY card_id ORDER BY at DESC) AS back FROM payments p WHERE n < 100000) p,
	LATERAL (SELECT count(*) FILTER (WHERE o.at > p.at - interval '1 hour') AS c,
		sum(o.amount) FILTER (WHERE o.amount > 0) AS s,
		count(DISTINCT o.shop) FILTER (WHERE o.at > p.at - interval '30 minutes') AS k
	 FROM payments o WHERE o.card_id = p.card_id AND o.at > p.at - interval '1 day' AND o.at <= p.at) card,
	LATERAL (SELECT max(o.amount) AS m FROM payments o
	 WHERE o.session = p.session AND o.shop = p.shop AND o.at > p.at - interval '2 hours' AND o.at <= p.at AND o.n <> p.n) shop,
	LATERAL (SELECT features FROM risk_alert.risk_assess(ROW(p.session, p.n, p.card_id, p.amount, p.shop, p.at)::payments)) a
WHERE back <= 5}), $node->safe_psql('postgres', q{SELECT 5 * count(DISTINCT card_id) FROM payments WHERE n < 100000}) . '|0',
	'at the end the windows are what SQL computes from the table');
$node->safe_psql('postgres', "INSERT INTO payments SELECT s, -2, 'quiet' || s, 9001, 100, '2026-01-01 00:10Z' FROM generate_series(1, $sessions) s");
drain($node);
is($node->safe_psql('postgres', q{
SELECT count(*), string_agg(DISTINCT features->>'card_n' || ' ' || (features->>'card_sum')::numeric(12,2), ',') FROM risk_alert.alerts WHERE entity LIKE 'card_id=quiet%'}),
	"$sessions|1 9001.00", 'rows that were updated and deleted have left nothing in the worker\'s windows');

# The queue was emptied meanwhile, though it was never vacuumed
wait_until($node, q{
SELECT sum(pg_relation_size(('risk_alert.queue_' || n)::regclass)) < 3 * 1024 * 1024 FROM generate_series(0, 2) n});
ok(1, 'the queue has not grown with the number of events');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed but what was killed');

$node->stop;
done_testing();
