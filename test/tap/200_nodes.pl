# Nodes: statements on other servers, and what happens when those, or the
# statement, or the session, come to an end before their time.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Session;
use Test::More;

my ($node_a, $node_b, $node_c) = new_cluster([ 'node_a', 'node_b', 'node_c' ], init => { allows_streaming => 1 });	# one is made a standby
my $secret = 't0p-secret';

sub on
{
	my ($node, $sql, $columns) = @_;
	return "SELECT * FROM risk_alert.on_node('$node', \$on\$$sql\$on\$) AS t ($columns)";
}

# Sessions of other nodes in a node, by what they do
my $sleeping = q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1000)%' AND state = 'active' AND pid <> pg_backend_pid() AND application_name LIKE 'risk_alert %'};
my $asking = q{SELECT pid FROM pg_stat_activity WHERE query LIKE '%on_node%pg_sleep(1000)%' AND state = 'active' AND pid <> pg_backend_pid()};
my $sleep = on('node_b', 'SELECT pg_sleep(1000)', 'x text');
my $pid_there = on('node_b', 'SELECT pg_backend_pid()', 'pid int');

# Each answers for itself
{
	foreach my $from ($node_a, $node_b, $node_c)
	{
		is($from->safe_psql('postgres', join(';', map { on($_, q{SELECT current_setting('risk_alert.node_name')}, 'name text') } 'node_a', 'node_b', 'node_c')),
			"node_a\nnode_b\nnode_c", $from->name . ' reaches all nodes, itself included');
	}
	create_payments($node_b);
	$node_b->safe_psql('postgres', q{INSERT INTO payments SELECT g, 7, 10, '2026-03-03 10:00Z' FROM generate_series(1, 3) g});
	drain($node_b);
	is($node_a->safe_psql('postgres', q{SELECT t.* FROM (VALUES (7), (8)) v (card), risk_alert.on_node('node_b',
		'SELECT score, features ->> ''card_n'' FROM risk_alert.risk_assess(''payments'', $1::jsonb)',
		ARRAY[jsonb_build_object('card_id', v.card, 'amount', 5, 'created_at', '2026-03-03 10:10Z')::text]) AS t (score int, n bigint)}),
		"50|4\n0|1", 'risk_assess() runs on the node that has the events');
	is($node_a->safe_psql('postgres', q{SELECT * FROM risk_alert.on_node('node_b', 'SELECT length($1)', ARRAY[repeat('x', 20000000)]) AS t (n int)}),
		20000000, 'a parameter that is larger than any buffer arrives');
}

# A password, and nobody else's identity
{
	my $session = session($node_a, 'operator');
	is(answer($session, on('node_b', 'SELECT current_user', 'who text')), 'remote', 'a role with a password in its mapping is who the mapping says');
	is(answer($session, on('node_b', 'SELECT score FROM risk_alert.risk_assess(\'payments\', \'{"card_id": 1}\')', 'score int')), 0, 'and has the rights of that role');
	like(answer($session, on('node_b', 'TABLE payments', 'id bigint, card int, amount numeric, at timestamptz')),
		qr/ERROR:  42501: permission denied for table payments\n.*CONTEXT:  statement on node "node_b"/s, 'and no others');
	answer($session, q{ALTER USER MAPPING FOR operator SERVER node_b OPTIONS (SET password 'wr0ng-secret')});
	my $error = answer($session, on('node_b', 'SELECT 1', 'x int'));
	like($error, qr/ERROR:  08001: could not connect to node "node_b"\nDETAIL:.*password authentication failed for user "remote"/, 'a wrong password is told');
	unlike($error, qr/wr0ng/, 'without telling it');
	like(answer($session, q{SELECT detail FROM risk_alert.check_node('node_b')}), qr/password authentication failed/, 'check_node() says the same');
	answer($session, q{ALTER USER MAPPING FOR operator SERVER node_b OPTIONS (SET "user" 'operator')});
	like(answer($session, on('node_b', 'SELECT 1', 'x int')), qr/ERROR:  2F003: a password is required.*did not ask for it/s, 'a node that trusts without a password is not used');
	is($node_b->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'operator'}), 0, 'that connection does not stay');
	answer($session, qq{ALTER USER MAPPING FOR operator SERVER node_b OPTIONS (SET "user" 'remote', SET password '$secret')});
	is(answer($session, on('node_b', 'SELECT current_user', 'who text')), 'remote', 'the mapping put right, the next statement works');

	my $seen = $session->query_safe(q{SELECT row_to_json(n) FROM risk_alert.nodes n; SELECT row_to_json(n) FROM risk_alert.stat_nodes n;
		SELECT row_to_json(n) FROM risk_alert.check_node('node_b') n});
	foreach my $node ($node_a, $node_b)
	{
		$seen .= $node->safe_psql('postgres', q{SELECT row_to_json(x) FROM pg_stat_activity x});
		$seen .= $node->safe_psql('postgres', q{SELECT row_to_json(x) FROM pg_settings x});
	}
	unlike($seen, qr/secret/, 'no password is seen in views, in activity or in settings');
	unlike(slurp_file($node_b->logfile), qr/wr0ng-secret/, 'nor in the log of the node');
	like($node_a->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.nodes'), qr/^3$/, 'three nodes are listed');
	$session->quit;
}

# Cancelling
{
	my $session = session($node_a);
	my $pid = answer($session, $pid_there);

	answer($session, q{SET statement_timeout = '300ms'});
	like(answer($session, $sleep), qr/ERROR:  57014: canceling statement due to statement timeout/, 'statement_timeout ends a statement on a node');
	is($node_b->safe_psql('postgres', $sleeping), 0, 'there, too');
	answer($session, q{RESET statement_timeout});
	is(answer($session, $pid_there), $pid, 'its connection goes on');

	# also when it comes about as late as the answer
	my %answers;
	foreach my $i (1 .. 40)
	{
		answer($session, qq{SET statement_timeout = '10ms'});
		my $short = 0.0085 + $i * 0.00005;
		answer($session, on('node_b', "SELECT pg_sleep($short)", 'x text'));
		answer($session, q{RESET statement_timeout});
		$answers{ answer($session, $pid_there) }++;
	}
	is_deeply(\%answers, { $pid => 40 }, 'a cancellation never hits a later statement');

	begin($session, $sleep);
	wait_until($node_b, $sleeping, 1);
	is($node_a->safe_psql('postgres', q{SELECT in_flight FROM risk_alert.stat_nodes WHERE name = 'node_b'}), 1, 'stat_nodes shows it under way');
	is($node_a->safe_psql('postgres', "SELECT pg_cancel_backend(($asking))"), 't', 'the statement is cancelled');
	like(outcome($session), qr/ERROR:  57014: canceling statement due to user request/, 'pg_cancel_backend() ends a statement on a node');
	is($node_b->safe_psql('postgres', $sleeping), 0, 'there, too');
	is($node_a->safe_psql('postgres', q{SELECT in_flight FROM risk_alert.stat_nodes WHERE name = 'node_b'}), 0, 'and it is no longer under way');

	# rows that have not been fetched
	answer($session, q{SET statement_timeout = '500ms'});
	like(answer($session, on('node_b', 'SELECT g FROM generate_series(1, 1000000000) g', 'g int')), qr/ERROR:  57014/, 'endless rows are cancelled');
	answer($session, q{RESET statement_timeout});
	like(answer($session, on('node_b', 'SELECT CASE WHEN g < 500000 THEN g::text ELSE \'x\' END FROM generate_series(1, 1000000) g', 'g int')),
		qr/ERROR:  22P02: invalid input syntax.*column "g" of a row of node "node_b"/s, 'a row that cannot be read ends the statement');
	is(answer($session, $pid_there), $pid, 'still the same connection');

	# within a transaction
	answer($session, q{BEGIN; SAVEPOINT s; SET statement_timeout = '300ms'});
	like(answer($session, $sleep), qr/ERROR:  57014/, 'cancelled in a subtransaction');
	answer($session, q{ROLLBACK TO s});
	is(answer($session, $pid_there), $pid, 'the transaction can go on asking');
	answer($session, q{COMMIT});

	begin($session, $sleep);
	wait_until($node_b, $sleeping, 1);
	$node_a->safe_psql('postgres', "SELECT pg_terminate_backend(($asking))");
	ok(wait_until($node_b, $sleeping, 0), 'the end of a session ends its statement on a node');
	ok(wait_until($node_b, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'risk_alert node_a'}, 0), 'and its connections');
	ok(wait_until($node_a, q{SELECT in_flight FROM risk_alert.stat_nodes WHERE name = 'node_b'}, 0), 'and it is no longer under way');
	eval { $session->quit };
}

# The node ends it
{
	my $session = session($node_a);
	my $pid = answer($session, $pid_there);

	$node_b->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
	isnt(answer($session, $pid_there), $pid, 'a connection that was ended while idle is replaced without an error');
	$pid = answer($session, $pid_there);
	begin($session, $sleep);
	wait_until($node_b, $sleeping, 1);
	$node_b->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
	like(outcome($session), qr/ERROR:  08006: the connection to node "node_b" was lost\nDETAIL:  terminating connection due to administrator command\nHINT:.*not known/,
		'one that is ended in the middle is an error that says what happened');
	like(answer($session, $pid_there), qr/^\d+$/, 'the next statement connects anew');

	begin($session, $sleep);
	wait_until($node_b, $sleeping, 1);
	$node_b->stop('fast');
	like(outcome($session), qr/ERROR:  08006: the connection to node "node_b" was lost/, 'a node that is shut down: an error');
	like(answer($session, $pid_there), qr/ERROR:  08001: could not connect to node "node_b"\nDETAIL:/, 'a node that is down: another');
	is(answer($session, on('node_c', 'SELECT 1', 'x int')), 1, 'other nodes are not concerned');
	is($node_a->safe_psql('postgres', q{SELECT name, level FROM risk_alert.check_node('node_b')}), 'connection|error', 'check_node() tells that it cannot be asked');
	$node_b->start;
	like(answer($session, $pid_there), qr/^\d+$/, 'once it is up again, the same session asks it again');

	begin($session, $sleep);
	wait_until($node_b, $sleeping, 1);
	kill('KILL', $node_b->safe_psql('postgres', $sleeping =~ s/count\(\*\)/pid/r));
	like(outcome($session), qr/ERROR:  08006: the connection to node "node_b" was lost/, 'a node that crashes: an error');
	wait_for_restart($node_b);
	like(answer($session, $pid_there), qr/^\d+$/, 'and when it has recovered, it is asked again');
	$session->quit;
}

# A node that does not move at all
{
	my $session = session($node_a);
	my $postmaster = (split /\n/, slurp_file($node_c->data_dir . '/postmaster.pid'))[0];
	my $pid = answer($session, on('node_c', 'SELECT pg_backend_pid()', 'pid int'));

	$node_a->safe_psql('postgres', q{ALTER SERVER node_c OPTIONS (ADD connect_timeout '1')});
	$pid = answer($session, on('node_c', 'SELECT pg_backend_pid()', 'pid int'));
	kill('STOP', $postmaster, $pid) == 2 or die 'could not stop node_c';
	my $began = time;
	like($node_a->psql_error('SELECT 1'), qr/ERROR:  could not connect to node "node_c"\nDETAIL:  There was no answer within 1 s/, 'a node that hangs: connecting ends after connect_timeout');
	answer($session, q{SET statement_timeout = '300ms'});
	like(answer($session, on('node_c', 'SELECT 1', 'x int')), qr/ERROR:  57014/, 'so does a statement, though the node cannot be told');
	answer($session, q{RESET statement_timeout});
	cmp_ok(time - $began, '<', 30, 'within seconds');
	like(answer($session, on('node_c', 'SELECT 1', 'x int')), qr/ERROR:  08001.*no answer/s, 'the stuck connection is not used again');
	kill('CONT', $postmaster, $pid);
	is(answer($session, on('node_c', 'SELECT 1', 'x int')), 1, 'when the node moves again, the session asks it again');
	$session->quit;
}

sub PostgreSQL::Test::Cluster::psql_error
{
	my ($node, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', on('node_c', $sql, 'x int'));
	return $err;
}

# Few connections, however many servers
{
	my $session = session($node_a);
	my ($host, $port) = ($node_c->host, $node_c->port);
	foreach my $i (1 .. 24)
	{
		$session->query_safe(qq{CREATE SERVER c_$i FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port');
CREATE USER MAPPING FOR CURRENT_USER SERVER c_$i;});
		$session->query_safe(on("c_$i", 'SELECT 1', 'x int'));
	}
	my $count = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'risk_alert node_a'};
	ok(wait_until($node_c, "$count AND state = 'idle'", 16), 'a session keeps 16 connections at most');
	$session->query_safe('SET client_min_messages = warning');
	$session->query_safe(join(';', map { "DROP SERVER c_$_ CASCADE" } 1 .. 20));
	$session->query_safe('SELECT 1');
	ok(wait_until($node_c, $count, 4), 'those of servers that are dropped are closed');
	$session->quit;
	ok(wait_until($node_c, $count, 0), 'and all at the end of the session');
	$node_a->safe_psql('postgres', join(';', map { "DROP SERVER c_$_ CASCADE" } 21 .. 24));
}

# stat_nodes counts
{
	my $row = q{SELECT requests, errors, in_flight FROM risk_alert.stat_nodes WHERE name = 'node_c'};
	my ($requests, $errors) = split /\|/, $node_a->safe_psql('postgres', $row);
	my $session = session($node_a);

	answer($session, on('node_c', 'SELECT 1', 'x int')) foreach 1 .. 5;
	answer($session, on('node_c', 'SELECT 1/0', 'x int')) foreach 1 .. 2;
	answer($session, on('node_c', 'SELECT pg_sleep(0.2)', 'x text'));
	is($node_a->safe_psql('postgres', $row), join('|', $requests + 8, $errors + 2, 0), 'requests and errors are counted');
	is($node_a->safe_psql('postgres', q{SELECT last_time >= 200, max_time >= last_time, min_time < 200, mean_time BETWEEN min_time AND max_time
		FROM risk_alert.stat_nodes WHERE name = 'node_c'}), 't|t|t|t', 'times are plausible');
	$session->quit;

	# what is under way when the server crashes is not counted for ever
	$session = session($node_a);
	begin($session, $sleep);
	wait_until($node_b, $sleeping, 1);
	kill('KILL', $node_a->safe_psql('postgres', $asking));
	wait_for_restart($node_a);
	is($node_a->safe_psql('postgres', q{SELECT sum(in_flight), sum(requests) FROM risk_alert.stat_nodes}), '0|0', 'counters begin anew after a crash');
	ok(wait_until($node_b, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'risk_alert node_a' AND state = 'idle'}, 0), 'no connection is left idle on the node');
	$node_b->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'risk_alert node_a'});
	eval { $session->quit };
}

# Every finding of check_node()
{
	my $findings = sub {
		my ($node, $from) = @_;
		return $node_a->safe_psql('postgres', qq{SELECT string_agg(level || ' ' || name, ', ') FROM risk_alert.check_node('$node') WHERE level <> 'ok'}) unless $from;
		return $from->safe_psql('postgres', qq{SELECT string_agg(level || ' ' || name, ', ') FROM risk_alert.check_node('$node') WHERE level <> 'ok'});
	};
	my ($host, $port) = ($node_c->host, $node_c->port);

	is($findings->('node_c'), 'info remote_role', 'a superuser in the mapping is mentioned');
	is($node_a->safe_psql('postgres', q{SET SESSION AUTHORIZATION operator; SELECT DISTINCT level FROM risk_alert.check_node('node_c')}), 'ok', 'nothing else is wrong with a node');

	$node_c->safe_psql('postgres', 'REVOKE risk_alert_admin FROM remote');
	is($node_a->safe_psql('postgres', q{SET SESSION AUTHORIZATION operator; SELECT level, name, remediation FROM risk_alert.check_node('node_c') WHERE level <> 'ok'}),
		'warning|remote_role|GRANT risk_alert_admin TO remote on that server.', 'a role without rights is found');

	# what each use needs
	my $role = q{SET SESSION AUTHORIZATION operator; SELECT level, detail FROM risk_alert.check_node('node_c') WHERE name = 'remote_role'};
	$node_c->safe_psql('postgres', 'GRANT risk_alert_locker TO remote');
	is($node_a->safe_psql('postgres', $role), 'info|Role remote has those of risk_alert_locker. It can\'t: read alerts, score (risk_alert_admin or risk_alert_analyst); '
		. 'work on alerts (risk_alert_analyst); configure, answer recovery, vote as Paxos acceptor (risk_alert_admin).', 'a role that may lock only');
	$node_c->safe_psql('postgres', 'REVOKE risk_alert_locker FROM remote; GRANT risk_alert_analyst TO remote');
	is($node_a->safe_psql('postgres', $role), 'ok|Role remote has those of risk_alert_analyst. It can\'t: configure, answer recovery, vote as Paxos acceptor (risk_alert_admin); '
		. 'take advisory locks (risk_alert_admin or risk_alert_locker).', 'one of an analyst');
	$node_a->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER node_c OPTIONS (ADD "user" 'remote', ADD password 't0p-secret')});
	is($findings->('node_c'), 'warning recovery_role', 'a mapping that recovery uses, and that has too few rights');
	$node_c->safe_psql('postgres', 'REVOKE risk_alert_analyst FROM remote; GRANT risk_alert_admin TO remote');
	is($findings->('node_c'), '', 'with those of an administrator nothing is wrong');
	$node_a->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER node_c OPTIONS (DROP "user", DROP password)});
	$node_c->safe_psql('postgres', 'REVOKE risk_alert_admin FROM remote');

	$node_a->safe_psql('postgres', qq{CREATE SERVER alias FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'template1');
CREATE USER MAPPING FOR CURRENT_USER SERVER alias;});
	is($findings->('alias'), 'error extension, error node_name, info remote_role', 'a database without the extension, and a server of another name, are found');
	like($node_a->safe_psql('postgres', q{SELECT remediation FROM risk_alert.check_node('alias') WHERE name = 'node_name'}), qr/ALTER SERVER alias RENAME TO node_c/, 'and how to put the name right');

	$node_c->safe_psql('postgres', q{UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'risk_alert'});
	is($findings->('node_c'), 'warning extension, info remote_role', 'another version is found');
	$node_c->safe_psql('postgres', q{UPDATE pg_extension SET extversion = '0.1' WHERE extname = 'risk_alert'});

	$node_c->append_conf('postgresql.conf', "max_prepared_transactions = 0\nrisk_alert.cluster_name = 'other'\nrisk_alert.node_name = ''\n");
	$node_c->restart;
	is($findings->('node_c'), 'error node_name, error cluster_name, warning prepared_transactions, info remote_role',
		'a node without a name, of another cluster, or without prepared transactions, is found');
	like($findings->('node_a', $node_c), qr/error cluster_name, warning this_node/, 'a server without a name finds that about itself');
	like($node_c->psql_pick(), qr/no live node is known\nHINT:.*risk_alert.node_name/, 'and can choose none');

	$node_c->append_conf('postgresql.conf', "max_prepared_transactions = 10\nrisk_alert.cluster_name = 'risk_alert'\nrisk_alert.node_name = 'node_c'\nshared_preload_libraries = ''\n");
	$node_c->restart;
	is($findings->('node_c'), 'error preload, info remote_role', 'a server without the library is found, though its settings are still in its file');

	$node_c->append_conf('postgresql.conf', "shared_preload_libraries = 'risk_alert'\nrisk_alert.node_name = 'node_c'\n");
	$node_c->set_standby_mode;
	$node_c->restart;
	is($findings->('node_c'), 'warning recovery, info remote_role', 'a standby is found');
	$node_c->promote;

	$node_c->append_conf('postgresql.conf', "risk_alert.lock_provider = 'redis'\nrisk_alert.redis_hosts = '127.0.0.1:1'\n");
	$node_c->restart;
	is($findings->('node_c'), 'error lock_provider, info remote_role', 'locks that are taken elsewhere are found');
	$node_c->adjust_conf('postgresql.conf', 'risk_alert.lock_provider', undef);

	# a clock of its own
	my $clock = $node_c->basedir . '/clock';
	my $library = $node_c->basedir . '/clock_shim.so';
  SKIP:
	{
		skip 'no C compiler', 2
		  if system('cc', '-shared', '-fPIC', '-O', '-Wall', '-o', $library, 'test/tap/clock_shim.c') != 0;
		open(my $file, '>', $clock) or die "could not write \"$clock\": $!";
		binmode $file;
		syswrite($file, pack('q', -60)) == 8 or die "could not write \"$clock\": $!";
		close $file;
		$node_c->stop;
		{
			local %ENV = (%ENV, $node_c->_get_env(), LD_PRELOAD => $library, CLOCK_OFFSET_FILE => $clock);
			PostgreSQL::Test::Utils::system_log('pg_ctl', '-w', '-D', $node_c->data_dir, '-l', $node_c->logfile, 'start') == 0
			  or BAIL_OUT('could not start the server with a clock of its own');
			$node_c->_update_pid(1);
		}
		is($findings->('node_c'), 'warning clock, info remote_role', 'a clock that is off is found');
		like($node_a->safe_psql('postgres', q{SELECT detail FROM risk_alert.check_node('node_c') WHERE name = 'clock'}), qr/is (59\.9|60\.0|60\.1) s behind/, 'and by how much');
	}
}

sub PostgreSQL::Test::Cluster::psql_pick
{
	my ($node) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', q{SELECT risk_alert.pick_node('random')});
	return $err;
}

# Each node knows itself, as long as nobody tells it of others
is($node_a->safe_psql('postgres', q{SELECT name, live, leader, self FROM risk_alert.nodes WHERE name <> 'alias' ORDER BY name}), "node_a|t|t|t\nnode_b|f|f|f\nnode_c|f|f|f", 'view nodes');
is($node_a->safe_psql('postgres', q{SELECT risk_alert.pick_node('random')}), 'node_a', 'a node that is not live is not chosen');

$_->stop foreach $node_a, $node_b, $node_c;
done_testing();
