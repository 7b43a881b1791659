# RiskAlert.pm
#	What the TAP tests share: a server with the library preloaded, waiting for
#	states (never for a time), and the public data sets.
#
# A test reads
#	use RiskAlert;
#	my $node = new_node('main');			# started, extension created
#	drain($node);							# all that was committed is scored

package RiskAlert;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Spec;
use IO::Uncompress::Gunzip qw($GunzipError);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

our @EXPORT = qw(new_node new_cluster create_payments drain wait_until worker_pid wait_for_worker stop_worker
  wait_for_restart wait_for_logged one_line data_file write_file own_pg_config);

# new_node(name, conf => 'lines of postgresql.conf', start => 0, extension => 0):
# a server of its own with settings that make tests quick.  Crashes restart it.
sub new_node
{
	my ($name, %option) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ], %{ $option{init} // {} });
	$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'risk_alert'
max_prepared_transactions = 10
max_connections = 40
restart_after_crash = on
log_statement = none
autovacuum_naptime = 1d
timezone = 'UTC'
datestyle = 'ISO, YMD'
});
	$node->append_conf('postgresql.conf', $option{conf}) if defined $option{conf};
	if ($option{start} // 1)
	{
		$node->start;
		$node->safe_psql('postgres', 'CREATE EXTENSION risk_alert')
		  if $option{extension} // 1;
	}
	return $node;
}

# new_cluster(names, option => ...): one node for each name, and on each of them a
# server for every node.  Options are as for new_node.  Two roles ask other nodes: whoever made
# the node, who is a superuser there, too; and operator, a member of
# risk_alert_admin who is role remote on other nodes and needs its password there
# ("t0p-secret").
sub new_cluster
{
	my ($names, %option) = @_;
	my @nodes;

	foreach my $name (@$names)
	{
		my $node = new_node($name, %option,
			conf => ($option{conf} // '') . "\nrisk_alert.node_name = '$name'\n", start => 0);
		my $hba = slurp_file($node->data_dir . '/pg_hba.conf');
		open(my $file, '>', $node->data_dir . '/pg_hba.conf') or die "could not write pg_hba.conf: $!";
		print $file "local all remote scram-sha-256\n$hba";
		close $file;
		$node->start;
		$node->safe_psql('postgres', q{CREATE EXTENSION risk_alert;
CREATE ROLE operator LOGIN;
CREATE ROLE remote LOGIN PASSWORD 't0p-secret';
GRANT risk_alert_admin TO operator, remote;});
		push @nodes, $node;
	}
	foreach my $node (@nodes)
	{
		foreach my $other (@nodes)
		{
			my ($name, $host, $port) = ($other->name, $other->host, $other->port);
			$node->safe_psql('postgres', qq{
CREATE SERVER $name FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '$host', port '$port', dbname 'postgres');
GRANT USAGE ON FOREIGN SERVER $name TO operator;
CREATE USER MAPPING FOR CURRENT_USER SERVER $name;
CREATE USER MAPPING FOR operator SERVER $name OPTIONS ("user" 'remote', password 't0p-secret');});
		}
	}
	return @nodes;
}

# create_payments(node, db): a small stream that most tests can use.  Rule
# "large" alerts on every payment above 1000, "velocity" on a card's fourth
# payment within an hour; a card's alerts fold only when they are of one instant.
sub create_payments
{
	my ($node, $db) = @_;
	$node->safe_psql($db // 'postgres', q{
CREATE TABLE payments (payment_id bigint PRIMARY KEY, card_id int,
	amount numeric(12,2), created_at timestamptz);
CREATE INDEX ON payments (card_id, created_at);
SELECT risk_alert.watch('payments', event_time => 'created_at', suppress => '0');
SELECT risk_alert.create_feature('payments', 'card_n', entity => 'card_id',
	aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('payments', 'card_sum', entity => 'card_id',
	aggregate => 'sum(amount)', within => '1 hour');
SELECT risk_alert.create_rule('payments', 'large', 'amount > 1000', points => 60);
SELECT risk_alert.create_rule('payments', 'velocity', 'card_n > 3', points => 50,
	reason => 'card {card_id}: {card_n} payments, {card_sum} in all');
});
}

# drain(node, db): all events committed before are processed; fails the test if not
sub drain
{
	my ($node, $db) = @_;
	my $done = $node->safe_psql($db // 'postgres', q{SELECT risk_alert.drain('60 seconds')});
	fail('drain') if $done ne 't';
	return $done eq 't';
}

# wait_until(node, query, expected (default t), db): poll until the query's output
# is as expected; also while the server restarts.  False, with diagnostics, when it never is.
# (Cluster's poll_query_until dies when psql is gone before it has read the query,
# as it is when the server does not accept connections.)
sub wait_until
{
	my ($node, $query, $expected, $db) = @_;
	my $connstr = $node->connstr($db // 'postgres');
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my ($out, $err);

	$expected //= 't';
	while (1)
	{
		$out = $err = '';
		IPC::Run::run([ 'psql', '-XAt', '-d', $connstr, '-c', $query ], '<', \undef, '>', \$out, '2>', \$err);
		chomp($out, $err);
		return 1 if $out eq $expected && $err eq '';
		last if time > $deadline;
		Time::HiRes::sleep(0.02);
	}
	diag("still not \"$expected\" but \"$out\" ($err): $query");
	return 0;
}

# The process id of the database's worker; '' when none runs
sub worker_pid
{
	my ($node, $db) = @_;
	$db //= 'postgres';
	return $node->safe_psql('postgres', qq{
SELECT pid FROM pg_stat_activity WHERE backend_type = 'risk_alert worker' AND datname = '$db'});
}

# wait_for_worker(node, db, old pid): a worker other than the old one runs; its pid
sub wait_for_worker
{
	my ($node, $db, $old) = @_;
	$db //= 'postgres';
	my $but = $old ? "AND pid <> $old" : '';
	wait_until($node, qq{
SELECT count(*) = 1 FROM pg_stat_activity
WHERE backend_type = 'risk_alert worker' AND datname = '$db' $but}) or return '';
	return worker_pid($node, $db);
}

# stop_worker(node, db): SIGSTOP, while it sleeps and so holds nothing that others may
# wait for; its pid, for SIGCONT
sub stop_worker
{
	my ($node, $db) = @_;
	my $pid = wait_for_worker($node, $db);
	my $idle = "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $pid AND wait_event_type = 'Extension'";
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while (1)
	{
		wait_until($node, $idle);
		kill('STOP', $pid) or die "could not stop the worker: $!";
		# it may have woken up in between
		last if $node->safe_psql('postgres', $idle) eq 't';
		kill('CONT', $pid);
		die 'the worker never sleeps' if time > $deadline;
	}
	return $pid;
}

# After a crash that the postmaster mends by itself: until sessions work again
sub wait_for_restart
{
	my ($node, $db) = @_;
	return wait_until($node, 'SELECT NOT pg_is_in_recovery()', 't', $db);
}

# wait_for_logged(node, pattern, count, db): the server log has that many matches
sub wait_for_logged
{
	my ($node, $pattern, $count, $db) = @_;
	my $log = $node->logfile;
	return wait_until($node,
		"SELECT count(*) >= $count FROM regexp_matches(pg_read_file('$log'), \$re\$$pattern\$re\$, 'g')", 't', $db);
}

# one_line(text): lines joined by blanks, for short comparisons
sub one_line
{
	my ($text) = @_;
	$text =~ s/\n/ /g;
	return $text;
}

# own_pg_config(directory [, bindir]): a pg_config, made in that directory, for programs that build with
# what the system has and run the servers of the tests, or those of that bindir
sub own_pg_config
{
	my ($dir, $bindir) = @_;
	my $system = $ENV{PG_CONFIG} // 'pg_config';
	$bindir //= `pg_config --bindir` =~ s/\n//r;
	return write_file("$dir/pg_config", qq{#!/bin/sh
case \$1 in
	--bindir | --sharedir | --pkglibdir) exec '$bindir/pg_config' "\$1" ;;
	*) exec '$system' "\$@" ;;
esac
}, 0755);
}

# write_file(path, text [, mode]): a file, whose path it returns
sub write_file
{
	my ($path, $text, $mode) = @_;
	open(my $file, '>', $path) or die "could not write \"$path\": $!";
	print $file $text;
	close $file or die "could not write \"$path\": $!";
	chmod $mode, $path if defined $mode;
	return $path;
}

# data_file(name): the text of a public data set, ".gz" files unpacked; undef when the folder is
# not there, so that the test can skip
sub data_file
{
	my ($name) = @_;
	my $folder = $ENV{RISK_ALERT_DATA} // '../shared/data';
	my $path = File::Spec->catfile($folder, $name);
	return undef unless -r $path;
	return slurp_file($path) unless $path =~ /\.gz$/;

	my $text = '';
	my $in = IO::Uncompress::Gunzip->new($path, MultiStream => 1)
	  or die "could not read \"$path\": $GunzipError";
	my $buffer;
	$text .= $buffer while $in->read($buffer, 1 << 20) > 0;
	return $text;
}

1;
