# F26: the server's clock jumps, back by an hour and forth by ninety days.
# Windows follow event time; nothing may hang or expire because of the clock.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my ($library) = grep { -e $_ } glob('/usr/lib/*/faketime/libfaketime.so.1'), '/usr/lib/faketime/libfaketime.so.1';
plan skip_all => 'libfaketime is not installed' unless $library;

my $node = new_node('clock', start => 0);
my $clock = $node->basedir . '/clock';

# Set the server's clock off by so much; without a cache it takes effect at once
sub set_clock
{
	my ($offset) = @_;
	open(my $file, '>', "$clock.new") or die "could not write \"$clock.new\": $!";
	print $file "$offset\n";
	close $file;
	rename("$clock.new", $clock) or die "could not rename: $!";
	return;
}

set_clock('+0');
{
	local %ENV = (%ENV, $node->_get_env(), LD_PRELOAD => $library, FAKETIME_TIMESTAMP_FILE => $clock,
		FAKETIME_NO_CACHE => 1, FAKETIME_DONT_FAKE_MONOTONIC => 1);
	my $rc = PostgreSQL::Test::Utils::system_log('pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start');
	BAIL_OUT('could not start the server with libfaketime') if $rc != 0;
	$node->_update_pid(1);
}
$node->safe_psql('postgres', 'CREATE EXTENSION risk_alert');
create_payments($node);
$node->safe_psql('postgres', q{
SELECT risk_alert.create_list('blocked');
SELECT risk_alert.list_add('blocked', '9', expires => now() + interval '1 day');
SELECT risk_alert.create_rule('payments', 'blocked', 'in_list(''blocked'', card_id)', points => 100);});

my $id = 0;
# three payments of a new card, a fourth for which "velocity" fires
sub works
{
	my ($claim, $card) = @_;
	my $t = q{timestamptz '2026-05-05Z'};

	foreach my $i (1 .. 4)
	{
		$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + $i, $card, 10, $t + $i * interval '10 min')");
	}
	$id += 4;
	my $started = time;
	drain($node);
	is($node->safe_psql('postgres', qq{SELECT event_key, features->>'card_n', features->>'card_sum' FROM risk_alert.alerts WHERE event_key::int > $id - 4}),
		"$id|4|40.00", "F26 $claim: windows are those of event time");
	cmp_ok(time - $started, '<', 15, "F26 $claim: nothing hangs");
	return;
}

works('the clock is right', 1);
set_clock('-3600');
works('the clock is set back by an hour', 2);
{
	my $pid = wait_for_worker($node);
	my $started = time;
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	isnt(wait_for_worker($node, 'postgres', $pid), '', 'F26 a worker that ends now comes back');
	cmp_ok(time - $started, '<', 15, 'F26 at once, not when the clock has caught up');
	works('after that', 3);

	# the same for one that ended just before the clock is set back
	set_clock('+0');
	$pid = wait_for_worker($node);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	set_clock('-7200');
	$started = time;
	isnt(wait_for_worker($node, 'postgres', $pid), '', 'F26 the clock is set back while the worker\'s restart is due: it comes back');
	cmp_ok(time - $started, '<', 15, 'F26 at once');
	works('after that, too', 4);
}
is($node->safe_psql('postgres', q{SELECT coalesce(max(extract(epoch FROM lag)), 0) >= 0 FROM risk_alert.stat_streams}), 't', 'F26 no negative lag is shown');
{
	my ($rc, $out, $err) = $node->psql('postgres', q{SELECT risk_alert.drain('2 s')});
	is($out, 't', 'F26 drain() with a timeout works');
}

set_clock('+90d');
works('the clock is ninety days ahead', 5);
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 1, 10, '2026-05-05 00:45Z')");
$id++;
drain($node);
is($node->safe_psql('postgres', qq{SELECT features->>'card_n' FROM risk_alert.alerts WHERE event_key = '$id'}), 5,
	'F26 ninety days ahead: no window has expired, it goes by event time');
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 9, 10, '2026-05-05Z')");
$id++;
drain($node);
is($node->safe_psql('postgres', qq{SELECT count(*) FROM risk_alert.alerts WHERE event_key = '$id'}), 0,
	'F26 ninety days ahead: an entry of a list has expired');
set_clock('+0');
works('the clock is right again', 6);
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 9, 10, '2026-05-05Z')");
$id++;
drain($node);
is($node->safe_psql('postgres', qq{SELECT count(*) FROM risk_alert.alerts WHERE event_key = '$id'}), 1,
	'F26 the clock is right again: the entry of the list holds again');

# order of arrival across the jumps: among equal times the later arrival sees the earlier
is($node->safe_psql('postgres', q{SELECT check_setup.level FROM risk_alert.check_setup() WHERE name = 'clock' AND level = 'error'}), '', 'F26 check_setup() finds no fault with a right clock');

set_clock('+90d');
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 1, 7, 10, '2026-06-06Z')");
set_clock('-3600');
$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id + 2, 7, 5000, '2026-06-06Z')");
drain($node);
is($node->safe_psql('postgres', qq{SELECT features->>'card_n' FROM risk_alert.alerts WHERE event_key = ($id + 2)::text}), 2,
	'F26 events keep their order of arrival whatever the clock says');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11/, 'nothing crashed');

$node->stop;
done_testing();
