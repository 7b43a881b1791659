# Running out of things: disk space (F17), address space (F18), shared memory
# for features (F19).

use strict;
use warnings FATAL => 'all';

use IO::Handle;
use IPC::Open2;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Time::HiRes;

my $node;

# Start a node's server by a command line of ours that ends in "pg_ctl ..."
sub start_by
{
	my ($server, @command) = @_;
	local %ENV = $server->_get_env();
	my $rc = PostgreSQL::Test::Utils::system_log(@command, 'pg_ctl', '-w', '-D', $server->data_dir,
		'-l', $server->logfile, 'start');
	$server->_update_pid($rc == 0 ? 1 : -1);
	return $rc == 0;
}

# F17: servers with a small tmpfs, in a mount namespace of their own.  A shell
# stays in it and does what we say.
my $small = PostgreSQL::Test::Utils::tempdir;
my ($answers, $orders);

sub in_namespace
{
	my ($command) = @_;
	print $orders "{ $command; } >/dev/null 2>&1 </dev/null; echo \$?\n";
	my $rc = <$answers> // 255;
	return $rc == 0;
}

sub fill_disk { in_namespace("dd if=/dev/zero of=$small/filler bs=64k") and die 'the disk is not full'; return; }
sub free_disk { in_namespace("rm $small/filler") or die 'could not remove what fills the disk'; return; }

SKIP:
{
	my ($uid, $gid) = ($>, $) + 0);

	# a first namespace to mount in, as its root; in it a second one, where the user
	# is who he was: PostgreSQL refuses root
	my $shell = open2($answers, $orders, 'unshare', '--user', '--mount', '--map-root-user', 'sh', '-c',
		"mount -t tmpfs -o size=40m none $small && exec unshare --user --map-user=$uid --map-group=$gid sh");
	local $SIG{PIPE} = 'IGNORE';
	$orders->autoflush(1);
	skip 'no private mount namespace to be had', 15 unless in_namespace("touch $small/x");

	$node = new_node('disk', start => 0);
	my $start = 'PGHOST=' . $node->host . " pg_ctl -w -D '" . $node->data_dir . "' -l '" . $node->logfile . "' start";
	in_namespace($start) or BAIL_OUT('could not start the server in its namespace');
	$node->_update_pid(1);
	$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$small'; CREATE DATABASE app TABLESPACE small");
	$node->safe_psql('app', 'CREATE EXTENSION risk_alert');
	create_payments($node, 'app');
	$node->safe_psql('app', 'ALTER TABLE payments SET TABLESPACE pg_default; ALTER INDEX payments_pkey SET TABLESPACE pg_default;
ALTER INDEX payments_card_id_created_at_idx SET TABLESPACE pg_default');
	$node->safe_psql('app', q{INSERT INTO payments VALUES (1, 1, 5000, '2026-01-01Z')});
	drain($node, 'app');

	fill_disk();
	my ($rc, $out, $err) = $node->psql('app', q{\set VERBOSITY verbose
INSERT INTO payments SELECT g, g % 1000, 5000, timestamptz '2026-01-01Z' + g * interval '1 s' FROM generate_series(2, 30000) g});
	like($err, qr/53100.*No space left/s, 'F17 no room for the queue: the user gets "disk full", as for any write');
	is($node->safe_psql('app', 'SELECT count(*) FROM payments'), 1, 'F17 and nothing is half done');
	free_disk();

	# the queue has room, but alerts have not
	$node->safe_psql('app', "ALTER TABLE risk_alert.queue_$_ SET TABLESPACE pg_default") foreach 0 .. 2;
	fill_disk();
	my $in = 400;
	is($node->psql('app', qq{INSERT INTO payments SELECT g, g, 5000, '2026-01-01Z' FROM generate_series(2, $in) g}), 0,
		'F17 no room for alerts: users are not disturbed');
	wait_for_logged($node, 'ERROR:[^\n]*No space left', 9, 'app');
	cmp_ok($node->safe_psql('app', q{SELECT count(*) FROM risk_alert.alerts}), '<', $in, 'F17 the worker tries again and again');
	free_disk();
	drain($node, 'app');
	is($node->safe_psql('app', q{SELECT count(*), count(DISTINCT event_key) FROM risk_alert.alerts}), "$in|$in",
		'F17 there is room again: all alerts are raised, without a restart of the server');
	is($node->psql('app', q{INSERT INTO payments SELECT g, g % 1000, 5000, timestamptz '2026-01-01Z' + g * interval '1 s' FROM generate_series(1001, 2000) g}), 0,
		'F17 and rows go in again');
	drain($node, 'app');
	is($node->safe_psql('app', q{SELECT count(*) FROM risk_alert.alerts WHERE event_key::int > 1000}), 1000, 'F17 and are scored');
	cmp_ok(scalar(() = slurp_file($node->logfile) =~ /ERROR|FATAL/g), '<', 40, 'F17 the log is not flooded');
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'F17 nothing crashed');
	$node->stop;

	# no room for WAL: the server stops, for whatever writes first, us or others
	$node = new_node('wal', start => 0, init => { extra => [ '--encoding=UTF8', '--locale=C', '--wal-segsize=1' ] },
		conf => "min_wal_size = 2MB\nmax_wal_size = 4MB\nwal_keep_size = 1GB\n");
	my $wal = $node->data_dir . '/pg_wal';
	$start = 'PGHOST=' . $node->host . " pg_ctl -w -D '" . $node->data_dir . "' -l '" . $node->logfile . "' start";
	in_namespace("mv '$wal' $small/wal && ln -s $small/wal '$wal'") or die 'could not move pg_wal';
	in_namespace($start) or BAIL_OUT('could not start the server in its namespace');
	$node->_update_pid(1);
	$node->safe_psql('postgres', 'CREATE EXTENSION risk_alert');
	create_payments($node);
	fill_disk();
	my $committed = 0;
	while ($node->psql('postgres', "INSERT INTO payments SELECT $committed + g, g % 100, 5000, timestamptz '2026-01-01Z' + ($committed + g) * interval '7 s' FROM generate_series(1, 100) g") == 0)
	{
		$committed += 100;
		die 'the disk is not full' if $committed > 100000;
	}
	# it comes back by itself, or gives up
	$node->wait_for_log(qr/PANIC.*database system is (?:shut down|ready to accept connections)/s);
	free_disk();
	# ("shut down" is logged by a server that is still there for a moment)
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while ($node->psql('postgres', 'SELECT 1') != 0 && time < $deadline)
	{
		in_namespace("pg_ctl -D '" . $node->data_dir . "' status") or in_namespace($start);
		Time::HiRes::sleep(0.05);
	}
	$node->_update_pid(1);
	wait_for_restart($node);
	like(slurp_file($node->logfile), qr/PANIC:[^\n]*No space left/, 'F17 no room for WAL: the server went down');
	# (the last one may have committed before another process took the server down, and nobody could say so)
	my $there = $node->safe_psql('postgres', 'SELECT count(*) FROM payments');
	ok($there == $committed || $there == $committed + 100, "F17 what was committed is there: $committed rows") or diag("there are $there");
	$committed = $there;
	drain($node);
	is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT event_key), sum(events) FROM risk_alert.alerts}), "$committed|$committed|$committed",
		'F17 each of them has its alert');
	is($node->psql('postgres', q{INSERT INTO payments VALUES (0, 1, 5000, '2025-01-01Z')}), 0, 'F17 and rows go in again');
	drain($node);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alerts WHERE event_key = '0'}), 1, 'F17 and are scored');
	$node->stop;

	close $orders;
	waitpid($shell, 0);
}

# F18: address space limited, so that a large allocation fails
SKIP:
{
	$node = new_node('memory', start => 0, conf => "shared_buffers = 16MB\nrisk_alert.feature_memory = 8MB\nmax_connections = 20\nrisk_alert.rule_timeout = 0\n");
	my @limited = ('sh', '-c', 'ulimit -v 900000 && exec "$0" "$@"');
	skip 'no limit of the address space to be had', 7 if system(@limited, 'true') != 0;
	skip 'the server does not start under the limit', 7 unless start_by($node, @limited);
	$node->safe_psql('postgres', 'CREATE EXTENSION risk_alert');
	create_payments($node);
	# more as an intermediate result than the limit leaves, whatever else is there
	$node->safe_psql('postgres', q{
SELECT risk_alert.create_rule('payments', 'greedy', 'length(repeat(''x'', CASE WHEN amount = 77 THEN 1000000000 ELSE 1 END)) > 1', points => 10);
INSERT INTO payments VALUES (1, 1, 5000, '2026-01-01Z'), (2, 2, 77, '2026-01-01Z'), (3, 3, 5000, '2026-01-01Z')});
	my $pid = wait_for_worker($node);
	drain($node);
	is(one_line($node->safe_psql('postgres', 'SELECT event_key FROM risk_alert.alerts ORDER BY 1')), '1 3',
		'F18 a rule that runs out of memory fails for its event, the others are scored');
	like($node->safe_psql('postgres', q{SELECT errors, last_error FROM risk_alert.stat_rules WHERE rule = 'greedy'}), qr/^1\|out of memory/,
		'F18 and it shows in stat_rules');
	my ($rc, $out, $err) = $node->psql('postgres', q{\set VERBOSITY verbose
SELECT * FROM risk_alert.risk_assess('payments', '{"payment_id": 9, "card_id": 1, "amount": 77, "created_at": "2026-01-01Z"}')});
	like($err, qr/ERROR:  53200: out of memory/, 'F18 synchronous scoring: the caller is told, as it is not the rule alone that is short of memory');
	is($out, '', 'F18 and gets no score');
	is($node->safe_psql('postgres', 'SELECT 1'), 1, 'F18 the session goes on');
	is(worker_pid($node), $pid, 'F18 the worker goes on');

	# one transaction with many events
	$node->safe_psql('postgres', q{INSERT INTO payments SELECT 1000 + g, g % 5000, CASE WHEN g % 10000 = 0 THEN 5000 ELSE 1 END,
timestamptz '2026-01-02Z' + g * interval '2 h' FROM generate_series(1, 300000) g});
	drain($node);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM risk_alert.alerts WHERE event_key::int > 1000}), 30,
		'F18 a large transaction is handled within limited memory');
	unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'F18 nothing crashed');
	$node->stop;
}

# F19: feature memory is a cache: too little of it costs time, never a value
{
	$node = new_node('cache', conf => "risk_alert.feature_memory = 1MB\nrisk_alert.batch_size = 1000\n");
	create_payments($node);
	$node->safe_psql('postgres', q{
SELECT risk_alert.create_feature('payments', 'card_max', entity => 'card_id', aggregate => 'max(amount)', within => '30 days');
SELECT risk_alert.create_feature('payments', 'card_kinds', entity => 'card_id', aggregate => 'count(DISTINCT amount)', within => '30 days');
SELECT risk_alert.create_rule('payments', 'all', 'card_max >= 0 AND card_kinds > 0', points => 50);});

	# far more entities and events than fit, each entity coming back later, one of
	# them large
	foreach my $round (0 .. 3)
	{
		$node->safe_psql('postgres', qq{INSERT INTO payments
SELECT $round * 100000 + g, CASE WHEN g % 20 = 0 THEN -1 ELSE g % 20000 END, (g * 7919 + $round * 31) % 100000 / 100.0,
	timestamptz '2026-01-01Z' + ($round * 20000 + g) * interval '7 s'
FROM generate_series(1, 20000) g});
		drain($node);
	}
	my $evictions = $node->safe_psql('postgres', q{SELECT coalesce(sum(evictions), 0) FROM risk_alert.stat_features});
	cmp_ok($evictions, '>', 0, 'F19 entities were evicted');
	is($node->safe_psql('postgres', q{SELECT level, object, description FROM risk_alert.check_setup() WHERE name = 'feature_memory'}),
		'warning|payments|there is too little memory for features', 'F19 check_setup() says so');
	is($node->safe_psql('postgres', q{
SELECT count(*), count(*) FILTER (WHERE (features->>'card_n')::int = n AND (features->>'card_sum')::numeric = s
	AND (features->>'card_max')::numeric = m)
FROM risk_alert.alerts a JOIN (
	SELECT payment_id, count(*) OVER hour AS n, sum(amount) OVER hour AS s, max(amount) OVER month AS m FROM payments
	WINDOW hour AS (PARTITION BY card_id ORDER BY created_at RANGE BETWEEN interval '59:59.999999' PRECEDING AND CURRENT ROW),
		month AS (PARTITION BY card_id ORDER BY created_at RANGE BETWEEN interval '29 days 23:59:59.999999' PRECEDING AND CURRENT ROW)) p
	ON a.event_key = p.payment_id::text}), '80000|80000', 'F19 all values are exact');
	is($node->safe_psql('postgres', q{
SELECT count(*) FILTER (WHERE k <> (features->>'card_kinds')::int)
FROM (SELECT * FROM risk_alert.alerts WHERE event_key::int % 5 = 0 AND entity <> 'card_id=-1' AND event_key::int > 300000) a, LATERAL (
	SELECT count(DISTINCT o.amount) AS k FROM payments p JOIN payments o ON o.card_id = p.card_id
		AND o.created_at > p.created_at - interval '30 days' AND o.created_at <= p.created_at
	WHERE p.payment_id = a.event_key::int) t}), 0, 'F19 distinct counts, too');
	$node->stop;
}

done_testing();
