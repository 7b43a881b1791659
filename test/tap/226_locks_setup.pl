# A coordination service that is not there, does not answer or refuses; settings
# that can't work; passwords that must not be seen.

use strict;
use warnings FATAL => 'all';

use LockAttack;
use LockCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Redis;
use RiskAlert;
use Test::More;
use Time::HiRes qw(time);
use ZooKeeper;

my $secret = 'tr0ub4dor&3';
my $dir = PostgreSQL::Test::Utils::tempdir('setup');

# A server with these settings, or (without a restart, but a pause of 5 s) a broker:
# waits for its state and the reason
sub with_settings
{
	my ($node, $state, $error, %setting) = @_;
	my $restart = delete $setting{restart} // 1;
	$node->safe_psql('postgres', "ALTER SYSTEM SET risk_alert.$_ = '$setting{$_}'") for sort keys %setting;
	if ($restart)
	{
		$node->restart;
	}
	else
	{
		$node->reload;
		$node->safe_psql('postgres', q{
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'risk_alert broker'});
	}
	return wait_until($node, "SELECT state = '$state' AND coalesce(last_error, '') ~ \$re\$$error\$re\$ FROM risk_alert.stat_coordination");
}

sub quick_stop
{
	my ($node, $claim) = @_;
	my $began = time;
	$node->stop('fast');
	cmp_ok(time - $began, '<', 5, $claim);
	return;
}

# Redis or ZooKeeper
my $service;

END
{
	my $status = $?;
	$service->kill9 if $service;
	$? = $status;
}

my $port = PostgreSQL::Test::Cluster::get_free_port();

for my $provider (qw(redis zookeeper))
{
	# nobody listens; everything else works
	my $began = time;
	my $node = new_node("setup_$provider", conf => qq{
risk_alert.node_name = 'alone'
risk_alert.lock_provider = $provider
risk_alert.${provider}_hosts = '127.0.0.1:$port'
risk_alert.session_timeout = 2000ms
log_min_messages = debug2});
	ok(wait_until($node, q{SELECT state = 'connecting' AND last_error IS NOT NULL FROM risk_alert.stat_coordination}),
		"$provider: a closed port: connecting");
	ok(wait_until($node, q{SELECT last_error ~* 'refused|could not reach|no connection' FROM risk_alert.stat_coordination}),
		"$provider: and why it does not");
	note status($node, 'last_error');
	create_payments($node);
	$node->safe_psql('postgres', q{INSERT INTO payments VALUES (1, 1, 2000, '2026-05-05')});
	ok(drain($node), "$provider: alerts work");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.alerts'), 1, "$provider: there is one");
	my (undef, $err) = sql($node, q{SELECT risk_alert.advisory_lock('k', '100ms')});
	like($err, qr/55P03: .*no connection to the coordination service: \S/s, "$provider: a lock times out and says why");
	(undef, $err) = sql($node, q{SELECT risk_alert.try_advisory_lock('k')});
	like($err, qr/08006: .*can't be had: no connection.*\n.*DETAIL:  \S/, "$provider: a try fails and says why");
	my ($out) = sql($node, q{SET client_min_messages = error; SELECT count(*) FROM risk_alert.advisory_locks});
	is($out, '0', "$provider: views work");

	ok(with_settings($node, 'connecting', 'no-such-host', "${provider}_hosts" => "no-such-host.invalid:$port"),
		"$provider: a wrong address, and why it does not");
	note status($node, 'last_error');
	(undef, $err) = sql($node, q{SELECT risk_alert.advisory_lock('k', '100ms')});
	like($err, qr/55P03: .*no connection to the coordination service: .*no-such-host/s, "$provider: a lock says so");

	# what can't work at all
	ok(with_settings($node, 'failed', 'No such file', coordination_password_file => "$dir/none"), "$provider: no password file");
	(undef, $err) = sql($node, q{SELECT risk_alert.advisory_lock('k', '20s')});
	like($err, qr/F0000: .*the broker can't work.*DETAIL:  could not open file.*HINT:.*${provider}_hosts.*coordination_password_file.*library risk_alert_$provider/s, "$provider: a lock says so at once");
	my $finding = q{SELECT level, detail, remediation FROM risk_alert.check_setup() WHERE name = 'coordination'};
	like($node->safe_psql('postgres', $finding), qr/^error\|could not open file.*\|Correct .*${provider}_hosts, coordination_tls or coordination_password_file, or install library risk_alert_$provider/,
		"$provider: check_setup() says so");
	ok(wait_until($node, 'SELECT count(*) FROM risk_alert._lock_entries()', 0), "$provider: what can't be had takes no place");
	ok(with_settings($node, 'failed', 'must not be accessible to others',
			coordination_password_file => write_file("$dir/open", "risk:$secret\n", 0644)), "$provider: one that all can read");
	ok(with_settings($node, 'failed', 'does not hold user:password',
			coordination_password_file => write_file("$dir/empty", "\n", 0600)), "$provider: an empty one");
	ok(with_settings($node, 'failed', 'the line of file .* is too long',
			coordination_password_file => write_file("$dir/long", 'risk:' . 'x' x 506 . "\n", 0600)), "$provider: one that would be cut off");
	ok(with_settings($node, 'failed', 'list of', coordination_password_file => '', "${provider}_hosts" => 'no such host:x'),
		"$provider: a malformed list of hosts");
	ok(with_settings($node, 'failed', "${provider}_hosts is not set", "${provider}_hosts" => ''), "$provider: an empty list");
	quick_stop($node, "$provider: a stop is quick");

	$node->append_conf('postgresql.conf', "risk_alert.node_name = ''");
	$node->start;
	ok(wait_until($node, q{SELECT state = 'failed' AND last_error ~ 'node_name is not set' FROM risk_alert.stat_coordination}),
		"$provider: no node_name");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.nodes WHERE live'), '0', "$provider: is no member");

	# with a password
	my $wrong;
	if ($provider eq 'redis')
	{
		$service = Redis->new(password => $secret);
		$wrong = write_file("$dir/wrong", ":guess-$secret\n", 0600);
	}
	else
	{
		$service = ZooKeeper->new("$dir/zk");
		$wrong = write_file("$dir/wrong", "risk:guess-$secret\n", 0600);
	}
	$service->start;
	my $right = write_file("$dir/right", ($provider eq 'redis' ? '' : 'risk') . ":$secret\n", 0640);
	$node->append_conf('postgresql.conf', "risk_alert.node_name = 'alone'");
	$node->safe_psql('postgres', "ALTER SYSTEM SET risk_alert.${provider}_hosts = '" . $service->hosts . "'");
	$node->safe_psql('postgres', "ALTER SYSTEM SET risk_alert.coordination_password_file = '$right'");
	$node->restart;
	ok(wait_until($node, q{SELECT state FROM risk_alert.stat_coordination}, 'connected'), "$provider: the right password");
	is($node->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('k', '10s') IS NOT NULL}), 't', "$provider: a lock");
	is($node->safe_psql('postgres', $finding), "ok|It is $provider.|", "$provider: check_setup() finds nothing wrong");

	# the client library, and so its threads, are in no other process
	my $pattern = $provider eq 'redis' ? qr/libhiredis/ : qr/libzookeeper/;
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my $with_lock = session($node);
	ask($with_lock, q{SELECT risk_alert.advisory_lock('maps')});
	my @loaded = grep { slurp_file("/proc/$_/maps") =~ $pattern } $postmaster, map { /(\d+)/ } `ps -o pid= --ppid $postmaster`;
	is("@loaded", broker_pid($node), "$provider: only the broker has loaded the client library");
	$with_lock->quit;
	if ($provider eq 'zookeeper')
	{
		my ($main) = @loaded;
		my ($blocked) = slurp_file("/proc/$main/status") =~ /^SigBlk:\s+(\w+)/m;
		my @threads = map { slurp_file($_) =~ /^SigBlk:\s+(\w+)/m } grep { !m{/$main/status$} } glob "/proc/$main/task/*/status";
		isnt($blocked, 'fffffffe7ffbfeff', 'zookeeper: signals reach the broker');
		# all but those that can't be blocked, and two of the C library's
		is("@threads", 'fffffffe7ffbfeff fffffffe7ffbfeff', 'zookeeper: and no thread of the library');
	}
	for my $file ($wrong, '')
	{
		ok(with_settings($node, 'connecting', 'WRONGPASS|NOAUTH|invalid password|refuse', coordination_password_file => $file),
			"$provider: " . ($file ? 'a wrong password' : 'none'));
		note status($node, 'last_error');
		(undef, $err) = sql($node, q{SELECT risk_alert.advisory_lock('k', '100ms')});
		like($err, qr/55P03/, "$provider: no lock");
	}
	ok(with_settings($node, 'connected', '', coordination_password_file => $right, restart => 0),
		"$provider: the right one again, without a restart");

	# a service that does not answer
	my $holder = session($node);
	ask($holder, q{SELECT risk_alert.advisory_lock('k')});
	$service->pause;
	quick_stop($node, "$provider: a stop is quick while the service sleeps");
	eval { $holder->quit };
	$began = time;
	$node->start;
	cmp_ok(time - $began, '<', 10, "$provider: so is a start");
	$node->safe_psql('postgres', q{INSERT INTO payments VALUES (2, 2, 2000, '2026-05-05')});
	ok(drain($node), "$provider: alerts work");
	$service->resume;
	ok(wait_until($node, q{SELECT state FROM risk_alert.stat_coordination}, 'connected'), "$provider: connected when it wakes up");

	# the password is nowhere
	unlike(slurp_file($node->logfile), qr/\Q$secret\E/, "$provider: the password is in no log");
	is($node->safe_psql('postgres', qq{
SELECT (SELECT count(*) FROM pg_settings s WHERE s::text LIKE '%$secret%') +
	(SELECT count(*) FROM risk_alert.stat_coordination s WHERE s::text LIKE '%$secret%') +
	(SELECT count(*) FROM risk_alert.nodes n WHERE n::text LIKE '%$secret%')}), '0', "$provider: nor in a view");
	my $dump = join '', map { `$_ -h @{[$node->host]} -p @{[$node->port]}` } 'pg_dump postgres', 'pg_dumpall -g';
	like($dump, qr/CREATE EXTENSION.*risk_alert.*CREATE ROLE/s, "$provider: a dump");
	unlike($dump, qr/\Q$secret\E/, "$provider: nor there");
	is(`cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'risk:\\Q$secret\\E'` + 0, 0, "$provider: nor in a command line");
	is((stat($node->data_dir . '/pg_stat_tmp/risk_alert.session'))[2] & 0777, 0600, "$provider: the session's file is private");
	quick_stop($node, "$provider: a last stop is quick");
	ok(!-e $node->data_dir . '/pg_stat_tmp/risk_alert.session', "$provider: it is gone with the session");
	$service->kill9;
	undef $service;
}
done_testing();
