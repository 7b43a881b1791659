# NOTIFY: who listens on channel risk_alert gets one message for each new alert,
# when the alert is there to be read; none for an event that folds into it.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

my $node = new_node('notify');
$node->safe_psql('postgres', q{
CREATE TABLE payments (payment_id int PRIMARY KEY, card text, amount numeric, created_at timestamptz);
CREATE TABLE plain (id int PRIMARY KEY, at timestamptz);
SET client_min_messages = error;	-- no index: a card may be too long for one
SELECT risk_alert.watch('payments', event_time => 'created_at', name => 'all "payments"');
SELECT risk_alert.create_feature('all "payments"', 'n', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_rule('all "payments"', 'large', 'n > 0 AND amount > 1000', points => 60, severity => 'high');
SELECT risk_alert.create_rule('all "payments"', 'huge', 'amount > 5000', points => 25, severity => 'critical');
SELECT risk_alert.watch('plain', event_time => 'at');
SELECT risk_alert.create_rule('plain', 'any', 'true', points => 70);});

my $listener = $node->background_psql('postgres');
my $other = $node->background_psql('postgres');
$listener->query_safe('LISTEN risk_alert');
$other->query_safe('LISTEN "risk_alert.alert"; LISTEN risk_alerts');

# What the listener gets, until that many messages are there: (channel, payload) each
sub received
{
	my ($count) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $text = '';
	my @messages;

	while (1)
	{
		$text .= $listener->query_safe('SELECT') . "\n";
		@messages = ();
		push @messages, [ $1, $2 ]
		  while $text =~ /^Asynchronous notification "(.*?)" with payload "(.*)" received from server process with PID \d+\.$/mg;
		last if @messages >= $count || time > $deadline;
	}
	return @messages;
}

sub insert
{
	my ($id, $card, $amount, $minute) = @_;
	$node->safe_psql('postgres', "INSERT INTO payments VALUES ($id, $card, $amount, timestamptz '2026-01-01Z' + $minute * interval '1 minute')");
	return drain($node);
}

# One alert, one message
{
	insert(1, "'c1'", 2000, 0);
	my ($message, @more) = received(1);
	is(scalar(@more), 0, 'an alert sends one message');
	is($message->[0], 'risk_alert', 'on channel risk_alert');
	my $payload = decode_json($message->[1]);
	is(join(' ', sort keys %$payload), 'alert_id entity score severity stream', 'its payload is JSON with these keys');
	my ($alert_id) = $node->safe_psql('postgres', 'SELECT alert_id FROM risk_alert.alerts');
	is_deeply($payload, { alert_id => $alert_id, stream => 'all "payments"', severity => 'high', score => 60, entity => 'card=c1' },
		'with the alert\'s values');
	is($message->[1], qq({"alert_id": $alert_id, "stream": "all \\"payments\\"", "severity": "high", "score": 60, "entity": "card=c1"}),
		'as the documentation shows it');
}

# Folded events and those that raise nothing send none: the next message is the next alert's
insert(2, "'c1'", 9000, 1);
insert(3, "'c1'", 10, 2);
insert(4, "'c2'", 10, 3);
insert(5, "'c2'", 9000, 4);
is($node->safe_psql('postgres', q{SELECT event_key, events FROM risk_alert.alerts ORDER BY 1}), "1|2\n5|1", 'one event has folded');
{
	my @messages = received(1);
	is(scalar(@messages), 1, 'a folded event sends no message, nor does one without alert');
	my $payload = decode_json($messages[0][1]);
	is("$payload->{entity} $payload->{severity} $payload->{score}", 'card=c2 critical 85', 'the next message is of the next alert');
}

# Several of one batch, in their order; of a stream without entities
$node->safe_psql('postgres', q{
BEGIN;
INSERT INTO payments SELECT 10 + g, 'b' || g, 2000, '2026-01-01Z' FROM generate_series(1, 5) g;
INSERT INTO plain VALUES (1, '2026-01-01Z');
COMMIT});
drain($node);
{
	my @messages = received(6);
	is(join(' ', map { decode_json($_->[1])->{entity} // 'null' } @messages), 'card=b1 card=b2 card=b3 card=b4 card=b5 null',
		'alerts of one transaction: a message each, in their order');
	is(decode_json($messages[5][1])->{stream}, 'plain', 'one of another stream');
	like($messages[5][1], qr/"entity": null}$/, 'which has no entity: null');
}

# A message comes when the alert can be read; what is rolled back sends none
$node->safe_psql('postgres', q{BEGIN; INSERT INTO payments VALUES (20, 'r1', 2000, '2026-01-01Z'); ROLLBACK;
INSERT INTO payments VALUES (21, 'r2', 2000, '2026-01-01Z')});
{
	# (not drained: the message alone tells)
	my @messages = received(1);
	my $payload = decode_json($messages[0][1]);
	is($payload->{entity}, 'card=r2', 'an event that is rolled back sends none');
	is($listener->query_safe("SELECT event_key FROM risk_alert.alerts WHERE alert_id = $payload->{alert_id}"), '21',
		'who gets a message can read its alert');
}

# Any characters, any length: always valid JSON, and short enough for NOTIFY
my $id = 100;
foreach my $card (
	[ 'quotes and backslashes', q{'say "\\" / ''x'''} ],
	[ 'control characters', q{E'a\\tb\\rc\\x01d\\x1fe\\x7f'} ],
	[ 'a long one of control characters, which JSON makes six bytes each', q{repeat(chr(1), 9000)} ],
	[ 'a long one of quotes', q{repeat('"', 9000)} ],
	[ 'a long one of one byte each', q{repeat('x', 100000)} ],
	[ 'two bytes each', q{repeat(chr(233), 5000)} ],
	[ 'three bytes each', q{repeat(chr(26085), 5000)} ],
	[ 'three bytes each, shifted by one', q{'a' || repeat(chr(26085), 5000)} ],
	[ 'three bytes each, shifted by two', q{'ab' || repeat(chr(26085), 5000)} ],
	[ 'four bytes each', q{repeat(chr(128176), 5000)} ],
	[ 'four bytes each, shifted by one', q{'a' || repeat(chr(128176), 5000)} ],
	[ 'four bytes each, shifted by two', q{'ab' || repeat(chr(128176), 5000)} ],
	[ 'four bytes each, shifted by three', q{'abc' || repeat(chr(128176), 5000)} ])
{
	my ($name, $value) = @$card;

	$id++;
	insert($id, $value, 2000, $id);
	my @messages = received(1);
	is(scalar(@messages), 1, "$name: a message");
	cmp_ok(length($messages[0][1]), '<', 8000, "$name: less than 8000 bytes");
	my $payload = eval { JSON::PP->new->utf8->decode($messages[0][1]) };
	is($@, '', "$name: valid JSON");
	my $entity = $payload->{entity} // '';
	utf8::encode($entity);
	my $whole = $node->safe_psql('postgres', "SELECT 'card=' || $value");
	ok($whole eq $entity || (length($entity) > 600 && index($whole, $entity) == 0), "$name: the entity, or its beginning");
	is($node->safe_psql('postgres', "SELECT alert_id = $payload->{alert_id} FROM risk_alert.alerts WHERE event_key = '$id'"), 't', "$name: of its alert");
}

is($other->query_safe('SELECT'), '', 'nothing on other channels');
is(scalar(received(0)), 0, 'no message besides');
is($node->safe_psql('postgres', 'SELECT count(*) FROM risk_alert.alerts'), 9 + 13, 'as many alerts as messages');
$listener->quit;
$other->quit;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11|payload string too long/, 'nothing went wrong');
$node->stop;
done_testing();
