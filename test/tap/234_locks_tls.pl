# TLS to the coordination service, as the settings ask for it: with a client library that has none
# (Debian 12's), a clear refusal; with one that has, the real thing.

use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use LockAttack;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Redis;
use RiskAlert;
use Test::More;
use Tls;
use ZooKeeper;

if (my $missing = Tls::missing())
{
	plan skip_all => $missing;
}

my $dir = PostgreSQL::Test::Utils::tempdir('tls');
my $password = 'tr0ub4dor&3';
my $ca = Tls->new("$dir/ca");
my $server = $ca->certificate('server', 'subjectAltName=IP:127.0.0.1,DNS:localhost');
my $elsewhere = $ca->certificate('elsewhere', 'subjectAltName=IP:127.0.0.2,DNS:elsewhere');
my $client = $ca->certificate('client', undef, $password);
my $other = Tls->new("$dir/other", 'others');
my $foreign = $other->certificate('foreign', 'subjectAltName=IP:127.0.0.1');

my @services;

END
{
	my $status = $?;
	$_->kill9 for @services;
	$? = $status;
}

# A restart with these settings: waits for the broker's state, and the reason
sub with_settings
{
	my ($node, $claim, $state, $error, %setting) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET risk_alert.$_ = '$setting{$_}'") for sort keys %setting;
	$node->restart;
	my $ok = wait_until($node, "SELECT state = '$state' AND coalesce(last_error, '') ~ \$re\$$error\$re\$ FROM risk_alert.stat_coordination");
	ok($ok, $claim) or diag($node->safe_psql('postgres', 'SELECT state, last_error FROM risk_alert.stat_coordination'));
	return;
}

my %tls = (
	coordination_tls => 'on',
	coordination_tls_ca_file => $ca->{ca},
	coordination_tls_cert_file => $client->{cert},
	coordination_tls_key_file => $client->{key},
	coordination_tls_key_password_file => write_file("$dir/key.pass", "$password\n", 0600));
my %no_tls = (coordination_tls => 'off', map { ("coordination_tls_${_}_file" => '') } qw(ca cert key key_password));
my $finding = q{SELECT level, detail, remediation FROM risk_alert.check_setup() WHERE name = 'coordination'};

for my $provider (qw(redis zookeeper))
{
	# hears whatever is said, and does not answer
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 50) or die "no port: $!";
	my $node = new_node("tls_$provider", conf => qq{
risk_alert.node_name = 'alone'
risk_alert.lock_provider = $provider
risk_alert.${provider}_hosts = '127.0.0.1:@{[$listener->sockport]}'
risk_alert.session_timeout = 3000ms
} . join "\n", map { "risk_alert.$_ = '$tls{$_}'" } sort keys %tls);
	ok(wait_until($node, q{SELECT state = 'failed' OR (state = 'connecting' AND last_error ~ 'no answer') FROM risk_alert.stat_coordination}),
		"$provider: the broker has begun");
	my $error = $node->safe_psql('postgres', 'SELECT last_error FROM risk_alert.stat_coordination');
	note $error;
	my $said;
	while (IO::Select->new($listener)->can_read(0))
	{
		$listener->accept->sysread($said, 4096);
		last;
	}

	if ($error =~ /has no TLS/)
	{
		is($error, "risk_alert.coordination_tls is on, but the client library of $provider has no TLS: a tunnel is needed",
			"$provider: TLS that there is not is an error");
		is($said, undef, "$provider: there is no connection");
		like(slurp_file($node->logfile), qr/FATAL:  risk_alert broker can't work: \Q$error\E\n.*HINT:  Run a tunnel \(stunnel, .*${provider}_hosts name its local end/,
			"$provider: the log says so, and what to do");
		my (undef, $err) = sql($node, q{SELECT risk_alert.advisory_lock('k', '20s')});
		like($err, qr/F0000: .*the broker can't work.*DETAIL:  \Q$error\E/s, "$provider: a lock says so at once");
		like($node->safe_psql('postgres', $finding), qr/^error\|\Q$error\E\|Run a tunnel/, "$provider: check_setup() says what to do");
		with_settings($node, "$provider: not even with files that are not there", 'failed', 'has no TLS', coordination_tls_ca_file => '/nowhere');
	}
	else
	{
		like($said, qr/^\x16\x03/, "$provider: what is said first is TLS");

		# with redis-server, one for each certificate; ZooKeeper's library does not ask for names
		my $certificates = $provider eq 'redis' ? [ $server, $elsewhere, $foreign ] : [ $server, $foreign ];
		my (@tls, @plain);
		for my $certificate (@$certificates)
		{
			my $service;
			if ($provider eq 'redis')
			{
				my ($port) = ZooKeeper::free_ports(1);
				$service = Redis->new(options => [
					'--tls-port' => $port, '--tls-cert-file' => $certificate->{cert},
					'--tls-key-file' => $certificate->{key}, '--tls-ca-cert-file' => $ca->{ca} ]);
				push @tls, $port;
			}
			else
			{
				$service = ZooKeeper->new("$dir/zk" . @plain, tls => { pem => $certificate->{pem}, ca => $ca->{ca} });
				push @tls, $service->tls_port;
			}
			$service->start;
			push @plain, $service->port;
			push @services, $service;
		}
		my $hosts = "${provider}_hosts";
		with_settings($node, "$provider: connected", 'connected', '', $hosts => "localhost:$tls[0]");
		with_settings($node, "$provider: connected, by address", 'connected', '', $hosts => "127.0.0.1:$tls[0]");
		is($node->safe_psql('postgres', q{SELECT risk_alert.advisory_lock('k', '10s') IS NOT NULL}), 't', "$provider: a lock");
		if ($provider eq 'redis')
		{
			my $connections = sub { my $list = $services[0]->command('CLIENT', 'LIST'); return scalar(() = $list =~ /laddr=127.0.0.1:$_[0] /g); };
			wait_for { $connections->($tls[0]) == 2 } 'redis: two connections';
			is($connections->($tls[0]), 2, 'redis: both connections are encrypted');
			note $services[0]->command('CLIENT', 'LIST');
			is($connections->($plain[0]), 1, 'redis: none but the test\'s is not');
		}

		# many, and large ones: more than a record of TLS holds
		my $big = join ',', map { sprintf "risk_alert.advisory_lock('%s', '20s')", $_ . 'x' x 250 } 1 .. 400;
		is($node->safe_psql('postgres', "SELECT cardinality(ARRAY[$big])"), 400, "$provider: many locks at a time");
		with_settings($node, "$provider: a server without TLS", 'connecting', 'no answer|ssl connect', $hosts => "127.0.0.1:$plain[0]");
		with_settings($node, "$provider: a server that another authority knows", 'connecting', 'certificate is not accepted|ssl connect',
			$hosts => "127.0.0.1:$tls[-1]");
		with_settings($node, 'redis: a server of another name', 'connecting', 'certificate is not accepted: .*mismatch',
			$hosts => "127.0.0.1:$tls[1]") if $provider eq 'redis';

		$node->append_conf('postgresql.conf', "risk_alert.$hosts = '127.0.0.1:$tls[0]'");
		$node->safe_psql('postgres', "ALTER SYSTEM RESET risk_alert.$hosts");
		with_settings($node, "$provider: a certificate that the server does not know", 'connecting', 'does not accept|ssl connect',
			coordination_tls_cert_file => $foreign->{cert}, coordination_tls_key_file => $foreign->{key});
		with_settings($node, "$provider: the key of another certificate", 'failed', 'could not use the key in .*mismatch',
			coordination_tls_cert_file => $client->{cert});
		with_settings($node, "$provider: a wrong password of the key", 'failed', 'could not use the key in',
			coordination_tls_key_file => $client->{key}, coordination_tls_key_password_file => write_file("$dir/wrong", "x$password\n", 0600));
		chmod 0644, $client->{key};
		with_settings($node, "$provider: a key that all can read", 'failed', 'client.key" must not be accessible to others',
			coordination_tls_key_password_file => $tls{coordination_tls_key_password_file});
		chmod 0600, $client->{key};
		with_settings($node, "$provider: a password file that all can read", 'failed', 'open.pass" must not be accessible to others',
			coordination_tls_key_password_file => write_file("$dir/open.pass", "$password\n", 0644));
		with_settings($node, "$provider: a key without its certificate", 'failed', 'only one is set', coordination_tls_cert_file => '');
		with_settings($node, "$provider: a key's password without the key", 'failed', 'coordination_tls_key_file is not', coordination_tls_cert_file => '', coordination_tls_key_file => '');
		with_settings($node, "$provider: no authority", 'failed', 'ca_file is not set', coordination_tls_ca_file => '');
		with_settings($node, "$provider: all right again", 'connected', '', %tls);
		unlike(slurp_file($node->logfile), qr/\Q$password\E/, "$provider: the key's password is in no log");
		$_->kill9 for @services;
		@services = ();
	}

	# half of it is not plain text either
	for my $setting (qw(ca_file cert_file key_file key_password_file))
	{
		with_settings($node, "$provider: $setting without coordination_tls", 'failed', "${setting} is set, but risk_alert.coordination_tls is off",
			%no_tls, "coordination_tls_$setting" => $tls{"coordination_tls_$setting"});
	}
	$node->stop;
}
done_testing();
