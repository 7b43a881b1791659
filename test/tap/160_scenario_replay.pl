# The fraud scenarios, all ten at once, under whatever happens to tables and servers:
# late, corrected, deleted and rolled-back rows, prepared transactions, crashes,
# many sessions.  What each event has to come to is computed in plain SQL (Replay.pm);
# the scenarios, with odd values and limits, are in Scenario.pm.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Replay;
use RiskAlert;
use Test::More;

# Another seed makes another replay: RISK_ALERT_SEED=17
my $seed = $ENV{RISK_ALERT_SEED} // 1;
my $node = new_node('replay', conf => "max_connections = 100\nmax_prepared_transactions = 100");
my %ids;    # rows that are there and that nobody else holds locked

srand($seed);
note("RISK_ALERT_SEED=$seed");
create_scenarios($node);

sub run { my (@sql) = @_; $node->safe_psql('postgres', join "\n", @sql); return; }

sub rows { my ($most) = @_; return insert(undef, 0, $most, ids => \%ids); }

# Rows, of the same entities, that will be rolled back
sub ghosts { return insert(undef, 0, 3); }

# One transaction, scored before the next comes
sub phase
{
	my ($claim, @sql) = @_;
	run('BEGIN;', @sql, 'COMMIT;');
	expect($node);
	check($node, $claim, all => 1);
	return;
}

# A row that alerts, so that the worker needs the table of alerts
my $certain = 0;

sub certain_alert
{
	$certain++;
	return "INSERT INTO s6 (id, at, payer, payee, amount) VALUES (-1000 - $certain, '2030-01-01', 'c$certain', 'd', 300000);";
}

# hold_worker(SQL): the worker stands in the middle of a batch, that transaction's, having
# applied it and not written any alert; the session that holds it
sub hold_worker
{
	my (@sql) = @_;
	my $holder = $node->background_psql('postgres', on_error_stop => 0);

	$holder->query_safe('BEGIN; LOCK TABLE risk_alert.alert IN SHARE ROW EXCLUSIVE MODE');
	run('BEGIN;', @sql, certain_alert(), 'COMMIT;');
	ok(wait_until($node, q{
SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'risk_alert worker' AND wait_event_type = 'Lock'}),
		'the worker is held in mid batch');
	return $holder;
}

sub kill_worker
{
	my ($pid) = @_;
	kill('KILL', $pid) or die "could not kill the worker: $!";
	wait_for_worker($node, 'postgres', $pid);
	wait_for_restart($node);
	return;
}

# The limits
phase('events at exactly t - w and t, just beside, and at equal times', edges());
check_edges($node, 'the oracle says of the hand-made events what their maker did');

# Transactions of random size; times are random, so many rows are late
phase("a transaction of up to $_ rows a scenario", rows($_)) foreach 1, 2, 3, 5, 8, 13, 20, 30, 40;

ask_and_insert($node, 8, 'asked for, then inserted');

# What was scored is corrected; what comes along is scored with that
foreach my $i (1 .. 4)
{
	phase("corrected and deleted rows, then new ones ($i)", corrections(0, 5, \%ids), rows(6));
	phase("corrected and deleted rows, none new ($i)", corrections(0, 2, \%ids)) if $i == 2;
}

# What is rolled back never was: its new rows, and its corrections
foreach my $i (1 .. 3)
{
	my %copy = map { $_ => [ @{ $ids{$_} } ] } keys %ids;

	run('BEGIN;', ghosts(), corrections(0, 2, \%copy), 'ROLLBACK;');
	phase("rolled back, to a savepoint and as a whole ($i)",
		ghosts() =~ s/^/SAVEPOINT a;\n/r, 'ROLLBACK TO a;', rows(3),
		'SAVEPOINT b;', corrections(0, 2, \%copy), ghosts(), 'ROLLBACK TO b;',
		'SAVEPOINT c;', rows(2), 'RELEASE c;');
}

# A transaction that stays open while others come and go is seen when it commits
my $long = $node->background_psql('postgres');
$long->query_safe("BEGIN;\n" . rows(6) . corrections(0, 2, \%ids));
my %others = map { $_ => [] } keys %ids;
phase('beside an open transaction', insert(undef, 0, 6, ids => \%others));
phase('and corrected beside it', corrections(0, 1, \%others), insert(undef, 0, 6, ids => \%others));
$long->query_safe('COMMIT');
$long->quit;
expect($node);
check($node, 'the open transaction, once committed');

# Prepared transactions count from COMMIT PREPARED, also when the server crashes in between.
# (What they hold locked, nobody corrects.)
run('BEGIN;', insert(undef, 0, 6, ids => \%others), corrections(0, 2, \%ids), q{PREPARE TRANSACTION 'one';},
	'BEGIN;', ghosts(), corrections(0, 2, \%ids), q{PREPARE TRANSACTION 'two';},
	'BEGIN;', insert(undef, 0, 6, ids => \%others), corrections(0, 2, \%ids), q{PREPARE TRANSACTION 'three';});
phase('beside prepared transactions', insert(undef, 0, 6, ids => \%others));
kill_worker(wait_for_worker($node));
phase('beside prepared transactions, after a crash', insert(undef, 0, 6, ids => \%others));
run(q{COMMIT PREPARED 'one'; ROLLBACK PREPARED 'two';});
expect($node);
check($node, 'COMMIT PREPARED and ROLLBACK PREPARED');
$node->stop('immediate');
$node->start;
run(q{COMMIT PREPARED 'three';});
expect($node);
check($node, 'COMMIT PREPARED after an immediate shutdown');
push @{ $ids{$_} }, @{ $others{$_} } foreach keys %others;

# Several transactions that the worker meets at once: it sees each row as it is by then,
# a deleted one with its last values
sub unscored
{
	my %new;
	my @sql = map { ('BEGIN;', insert(undef, 0, 3, ids => \%new, touch => 1), 'COMMIT;',
			'BEGIN;', corrections(0, 1, \%new, unscored => 1), 'COMMIT;') } 1 .. 3;
	push @sql, 'BEGIN;', corrections(0, 1, \%ids), 'COMMIT;';
	push @{ $ids{$_} }, @{ $new{$_} } foreach keys %new;
	return @sql;
}

foreach my $i (1 .. 2)
{
	my $pid = stop_worker($node);
	run(unscored());
	expect($node);
	kill('CONT', $pid);
	check($node, "corrected and deleted before they are scored ($i)");
}

# A batch in mid air sees nothing of what commits behind it, which comes next
{
	my $holder = hold_worker(rows(6), corrections(0, 2, \%ids));
	expect($node);
	run('BEGIN;', rows(6), corrections(0, 3, \%ids), 'COMMIT;');
	expect($node);
	$holder->query_safe('ROLLBACK');
	$holder->quit;
	check($node, 'what commits while a batch is scored is not in it, but in the next');
}

# A rule set that is published in the middle: in the transaction of the rows, while they
# wait, while others are scored
phase('published with the rows', republish(), rows(6));
phase('and between them', rows(3), corrections(0, 2, \%ids), republish(), rows(3));
run('BEGIN;', ghosts(), republish(), 'ROLLBACK;');
phase('and rolled back', rows(3), 'SAVEPOINT a;', republish(), ghosts(), 'ROLLBACK TO a;', rows(3));
{
	my $pid = stop_worker($node);
	my %new;

	foreach my $i (1 .. 3)
	{
		run('BEGIN;', insert(undef, 0, 3, ids => \%new, touch => 1), 'COMMIT;',
			'BEGIN;', corrections(0, 1, \%new, unscored => 1), 'COMMIT;');
		run('BEGIN;', republish(), 'COMMIT;') if $i < 3;
	}
	push @{ $ids{$_} }, @{ $new{$_} } foreach keys %new;
	expect($node);
	kill('CONT', $pid);
	check($node, 'published while events wait');

	my $holder = hold_worker(rows(6), corrections(0, 2, \%ids));
	expect($node);
	run('BEGIN;', republish(), 'COMMIT;');
	run('BEGIN;', rows(6), corrections(0, 2, \%ids), 'COMMIT;');
	expect($node);
	$holder->query_safe('ROLLBACK');
	$holder->quit;
	check($node, 'published while a batch is scored');
	cmp_ok($node->safe_psql('postgres', q{
SELECT count(*) FROM (SELECT FROM risk_alert.alerts GROUP BY rule_set_version HAVING count(*) >= 5) v}), '>=', 4,
		'events have been scored with several of these rule sets');
}

# Crashes
{
	my $open = $node->background_psql('postgres', on_error_stop => 0);
	my %copy = map { $_ => [ @{ $ids{$_} } ] } keys %ids;
	my $pid = stop_worker($node);
	run(unscored());
	expect($node);
	$open->query_safe("BEGIN;\n" . ghosts());
	kill_worker($pid);
	eval { $open->quit };
	check($node, 'SIGKILL of the worker behind a commit and before another: what was committed is scored');
	phase('and the windows are right afterwards', corrections(0, 2, \%ids), rows(6));
}
foreach my $how ('SIGKILL', 'immediate shutdown')
{
	my $holder = hold_worker(rows(5), corrections(0, 2, \%ids));
	my $open = $node->background_psql('postgres', on_error_stop => 0);

	$open->query_safe("BEGIN;\n" . ghosts());
	expect($node);
	if ($how eq 'SIGKILL')
	{
		kill_worker(worker_pid($node));
	}
	else
	{
		$node->stop('immediate');
		$node->start;
	}
	eval { $_->quit } foreach $holder, $open;
	check($node, "$how in mid batch: each event is scored once, as if nothing had happened");
	phase("and so is what comes after $how", corrections(0, 2, \%ids), rows(6));
	# crash with nothing left to do, and go on from the table
	kill_worker(wait_for_worker($node)) if $how ne 'SIGKILL';
	$node->restart if $how eq 'SIGKILL';
	phase("windows are read from the table after $how and another restart", corrections(0, 2, \%ids), rows(6));
}

# Sessions, each with entities of its own.  While the worker runs, it may meet their
# transactions one by one or together: a session's times only grow then, so that it is the same.
my $session = 1;

foreach my $n (1, 8, 64)
{
	my @scripts = map { session_script($session++, $n == 1 ? 30 : $n == 8 ? 8 : 2, most => $n == 64 ? 2 : 5, ordered => 1) } 1 .. $n;
	is(run_sessions($node, @scripts), '', "$n sessions at a time, beside the worker: no error");
	expect($node);
	check($node, "$n sessions at a time, beside the worker");
}
foreach my $n (1, 8, 64)
{
	my $pid = stop_worker($node);
	my @scripts = map { session_script($session++, $n == 1 ? 20 : $n == 8 ? 6 : 2, most => $n == 64 ? 2 : 5) } 1 .. $n;
	is(run_sessions($node, @scripts), '', "$n sessions at a time, ahead of the worker: no error");
	expect($node);
	$n == 8 ? kill_worker($pid) : kill('CONT', $pid);
	check($node, "$n sessions at a time, ahead of the worker, late and corrected rows" . ($n == 8 ? ', and SIGKILL' : ''));
}

check_all($node, 'at the end');

# Enough of everything: events, alerts, rules that fire, and not much left open by equal times
is($node->safe_psql('postgres', q{
SELECT stream, count(*), count(*) FILTER (WHERE decision <> 'approve'), count(*) FILTER (WHERE skip) FROM expected GROUP BY 1
HAVING count(*) < 500 OR count(*) FILTER (WHERE decision <> 'approve') < 20 OR count(*) FILTER (WHERE skip) > 0.05 * count(*)}),
	'', 'each scenario has enough events and alerts');
my $fired = $node->safe_psql('postgres', q{
SELECT stream, r, count(*) FROM expected, unnest(string_to_array(fired, '+')) r WHERE r <> '-' GROUP BY 1, 2 ORDER BY 3});
note($fired);
cmp_ok(scalar(split /\n/, $fired), '==', 26, 'all rules fire');
unlike($fired, qr/\|[12]$/m, 'each three times at least');
is($node->safe_psql('postgres', q{
SELECT sum(events) = (SELECT count(*) FROM risk_alert.alert_event) AND count(*) = (SELECT count(*) FROM risk_alert.alert_event)
FROM risk_alert.alert}), 't', 'each event that alerts has one alert of its own');
is($node->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.stat_rules WHERE suspended_at IS NOT NULL'), 0, 'no rule was suspended');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed but what was killed');

$node->stop;
done_testing();
