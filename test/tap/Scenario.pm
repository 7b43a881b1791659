# Scenario.pm
#	The fraud scenarios of test/sql/scenarios.sql once more, for being replayed
#	with random rows: what to create, how a random row looks, the value of each
#	feature in plain SQL, and hand-made rows just at and just beside each limit.
#
# A scenario's members:
#	columns		of its table, behind id and at
#	indexes		columns of the table's indexes
#	watch		further arguments of watch()
#	features	name => [entity, aggregate, within, further arguments, plain SQL], see _plain()
#	rules		name => [condition, points]; it is plain SQL as it stands
#	ambiguous	SQL: do rows of equal time leave open what lag(x) is?
#	spans		lengths to keep between two events, in seconds
#	start, range	between which random times lie: date, and seconds from there on
#	row			sub (session): the columns of a random row
#	edges		[at, columns, rules that fire or -], in order of arrival

package Scenario;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(scenarios);

use constant { MINUTE => 60, HOUR => 3600, DAY => 86400 };

sub _pick { return $_[ rand @_ ]; }

sub _chance { my ($p) = @_; return rand() < $p; }

# One of a session's n entities, as a number that no other session has.  Their
# first one is odd: it alone gets odd values, lest these make all others' sums NaN.
sub _entity { my ($session, $n) = @_; return $session * 10 + int(rand $n); }

sub _odd { my ($entity) = @_; return $entity % 10 == 0 && _chance(0.3); }

sub _or_null { my ($value) = @_; return _chance(0.04) ? 'NULL' : $value; }

# _plain(expression, condition, within, which): an aggregate query over the rows q
# that count for event e.  Which those are, as far as arrival is concerned, and the
# table stand for the two placeholders.
sub _plain
{
	my ($x, $where, $within) = @_;
	return "(SELECT $x FROM {rows} q WHERE $where"
	  . " AND q.at > e.at - interval '$within' AND q.at <= e.at AND {seen})";
}

# x of the latest event before e
sub _previous
{
	my ($x, $where, $within) = @_;
	return _plain($x, "$where AND q.id <> e.id", $within) =~ s/\)$/ ORDER BY q.at DESC LIMIT 1)/r;
}

# S1: card testing
sub _s1
{
	my $declined = [ map { [ "2024-05-01 1$_:00:00", "'10.255.0.3', NULL, NULL, NULL, 20, false", '-' ] } 0 .. 9 ];

	return {
		columns => 'ip inet, device text, email text, card text, amount numeric(10,2), approved bool',
		indexes => [ 'ip, at', 'device, at', 'email, at' ],
		features => {
			device_cards => [ 'device', 'count(DISTINCT card)', '1 day', '',
				_plain('count(DISTINCT q.card)', 'q.device = e.device', '1 day') ],
			email_cards => [ 'email', 'count(DISTINCT card)', '24 hours', '',
				_plain('count(DISTINCT q.card)', 'q.email = e.email', '24 hours') ],
			ip_cards => [ 'ip', 'count(DISTINCT card)', '1 hour', '',
				_plain('count(DISTINCT q.card)', 'q.ip = e.ip', '1 hour') ],
			ip_1m => [ 'ip', 'count(*)', '1 minute', '', _plain('count(*)', 'q.ip = e.ip', '1 minute') ],
			ip_1d => [ 'ip', 'count(*)', '1 day', '', _plain('count(*)', 'q.ip = e.ip', '1 day') ],
			ip_declined => [ 'ip', 'count(*)', '1 day', ", filter => 'NOT approved'",
				_plain('count(*)', 'q.ip = e.ip AND NOT q.approved', '1 day') ],
		},
		rules => {
			cards_of_device => [ 'device_cards > 3 AND amount <= 1', 60 ],
			cards_of_email => [ 'email_cards > 3 AND amount <= 1', 40 ],
			cards_of_ip => [ 'ip_cards > 3', 20 ],
			burst => [ 'ip_1m > 5', 30 ],
			declined => [ 'ip_1d >= 10 AND ip_declined > 0.9 * ip_1d', 30 ],
		},
		spans => [ MINUTE, HOUR, DAY ],
		start => '2024-05-01',
		range => 20 * MINUTE,
		row => sub {
			my ($session) = @_;
			my $n = _entity($session, 2);
			return (
				_or_null(sprintf "'10.%d.%d.%d'", $session / 100, $session % 100, $n % 10),
				_or_null("'d" . _entity($session, 3) . "'"), _or_null("'m" . _entity($session, 3) . "'"),
				_or_null("'" . _pick('A' .. 'F') . "'"),
				_odd($n) ? _pick("'NaN'", 'NULL', '-99999999.99') : _pick('0', '0.50', '1.00', '1.01', '20'),
				_chance(0.06) ? _pick('true', 'NULL') : 'false');
		},
		edges => [
			[ '2024-05-01 10:00:00', "NULL, 'x1', NULL, 'A', 0.10, true", '-' ],
			[ '2024-05-01 11:00:00', "NULL, 'x1', NULL, 'B', 0.10, true", '-' ],
			[ '2024-05-01 12:00:00', "NULL, 'x1', NULL, 'C', 0.10, true", '-' ],
			[ '2024-05-02 10:00:00', "NULL, 'x1', NULL, 'D', 0.10, true", '-' ],
			[ '2024-05-01 10:00:00.000001', "NULL, 'x2', 'y2', 'A', 0.10, true", '-' ],
			[ '2024-05-01 11:00:00', "NULL, 'x2', 'y2', 'B', 0.10, true", '-' ],
			[ '2024-05-01 12:00:00', "NULL, 'x2', 'y2', 'C', 0.10, true", '-' ],
			[ '2024-05-01 13:00:00', "NULL, 'x2', 'y2', 'C', 0.10, true", '-' ],
			[ '2024-05-02 10:00:00', "NULL, 'x2', NULL, 'D', 1.00, true", 'cards_of_device' ],
			[ '2024-05-02 10:00:00', "NULL, NULL, 'y2', 'D', 1.00, true", 'cards_of_email' ],
			[ '2024-05-02 10:00:00', "NULL, 'x2', 'y2', 'D', 1.01, true", '-' ],
			(map { [ '2024-05-01 10:00:00', "'10.255.0.1', NULL, NULL, NULL, 20, true", '-' ] } 1 .. 5),
			[ '2024-05-01 10:01:00', "'10.255.0.1', NULL, NULL, NULL, 20, true", '-' ],
			(map { [ '2024-05-01 10:00:00', "'10.255.0.2', NULL, NULL, NULL, 20, true", '-' ] } 1 .. 5),
			[ '2024-05-01 10:00:59.999999', "'10.255.0.2', NULL, NULL, NULL, 20, true", 'burst' ],
			[ '2024-05-01 09:00:00', "'10.255.0.3', NULL, NULL, NULL, 20, true", '-' ],
			@$declined[ 0 .. 8 ],
			[ '2024-05-01 19:00:00', "'10.255.0.3', NULL, NULL, NULL, 20, false", 'declined' ],
			[ '2024-05-01 10:00:00', "'10.255.0.4', NULL, NULL, 'A', 20, true", '-' ],
			[ '2024-05-01 10:00:00', "'10.255.0.4', NULL, NULL, 'B', 20, true", '-' ],
			[ '2024-05-01 10:00:00.000001', "'10.255.0.4', NULL, NULL, 'C', 20, true", '-' ],
			[ '2024-05-01 11:00:00', "'10.255.0.4', NULL, NULL, 'D', 20, true", '-' ],
			[ '2024-05-01 11:00:00', "'10.255.0.4', NULL, NULL, 'E', 20, true", '-' ],
			[ '2024-05-01 11:00:00', "'10.255.0.4', NULL, NULL, 'F', 20, true", 'cards_of_ip' ],
		],
	};
}

# S3: card velocity
sub _s3
{
	my $card = 'q.card = e.card';
	return {
		columns => 'card int, amount numeric(10,2)',
		indexes => ['card, at'],
		features => {
			n_2h => [ 'card', 'count(*)', '2 hours', '', _plain('count(*)', $card, '2 hours') ],
			n_24h => [ 'card', 'count(*)', '24 hours', '', _plain('count(*)', $card, '24 hours') ],
			sum_24h => [ 'card', 'sum(amount)', '24 hours', '', _plain('sum(q.amount)', $card, '24 hours') ],
		},
		rules => {
			often => [ 'n_2h > 3', 50 ],
			much => [ 'n_24h > 1 AND sum_24h > 100', 40 ],
		},
		spans => [ 2 * HOUR, DAY ],
		start => '2024-05-01',
		range => 12 * HOUR,
		row => sub {
			my ($session) = @_;
			my $card = _entity($session, 4);
			return (_or_null($card),
				_odd($card) ? _pick("'NaN'", 'NULL', '99999999.99', '-99999999.99')
				: _pick('60', '40', '0.01', '-50', '1', '-0.01'));
		},
		edges => [
			[ '2024-05-01 10:00:00', '-1, 1', '-' ], [ '2024-05-01 10:30:00', '-1, 1', '-' ],
			[ '2024-05-01 11:00:00', '-1, 1', '-' ],
			[ '2024-05-01 11:59:59.999999', '-1, 1', 'often' ],
			[ '2024-05-01 10:00:00', '-2, 1', '-' ], [ '2024-05-01 10:30:00', '-2, 1', '-' ],
			[ '2024-05-01 11:00:00', '-2, 1', '-' ], [ '2024-05-01 12:00:00', '-2, 1', '-' ],
			[ '2024-05-01 12:00:00', '-2, 1', 'often' ],
			[ '2024-05-01 10:00:00', '-3, 90', '-' ], [ '2024-05-02 10:00:00', '-3, 20', '-' ],
			[ '2024-05-01 10:00:00', '-4, 90', '-' ], [ '2024-05-02 09:59:59.999999', '-4, 20', 'much' ],
			[ '2024-05-01 10:00:00', '-5, 60', '-' ], [ '2024-05-01 10:00:00', '-5, 40', '-' ],
			[ '2024-05-01 10:00:00', '-5, 0.01', 'much' ], [ '2024-05-01 10:00:00', '-5, -0.01', 'often' ],
		],
	};
}

# S4: an amount against the customer's own history
sub _s4
{
	my $before = 'q.customer = e.customer AND q.id <> e.id';
	my $current = ', include_current => false';
	return {
		columns => 'customer int, amount numeric',
		indexes => ['customer, at'],
		features => {
			n => [ 'customer', 'count(*)', '90 days', $current, _plain('count(*)', $before, '90 days') ],
			average => [ 'customer', 'avg(amount)', '90 days', $current, _plain('avg(q.amount)', $before, '90 days') ],
			# (SQL's stddev(numeric) has the decimals of the variance, which may be few)
			deviation => [ 'customer', 'stddev(amount)', '90 days', $current,
				_plain('sqrt(variance(q.amount))', $before, '90 days') ],
			maximum => [ 'customer', 'max(amount)', '90 days', $current, _plain('max(q.amount)', $before, '90 days') ],
		},
		rules => {
			ten_times => [ 'n >= 5 AND amount > 10 * average', 30 ],
			z_score => [ 'n >= 5 AND (amount - average) / nullif(deviation, 0) > 3', 20 ],
			above => [ 'n >= 5 AND amount > 3 * maximum', 10 ],
		},
		spans => [ 90 * DAY ],
		start => '2024-01-01',
		range => 120 * DAY,
		row => sub {
			my ($session) = @_;
			my $customer = _entity($session, 3);
			return (_or_null($customer),
				_odd($customer)
				? _pick("'NaN'", "'Infinity'", "'-Infinity'", '1e30', '12345678901234567890.123456789', 'NULL')
				: _chance(0.15) ? 10**_pick(2 .. 7) : _pick(10, 10, 10, 11, 12.5, 9.99, 30, 30.01, -20));
		},
		edges => [
			(map { [ "2024-02-01 1$_:00:00", '-1, 10', '-' ] } 0 .. 4),
			[ '2024-05-01 10:00:00', '-1, 1000', '-' ],
			(map { [ "2024-02-01 1$_:00:00.000001", '-2, 10', '-' ] } 0 .. 4),
			[ '2024-05-01 10:00:00', '-2, 1000', 'above+ten_times' ],
			(map { [ '2024-02-01 10:00:00', '-3, 10', '-' ] } 1 .. 5),
			[ '2024-02-01 10:00:00', '-3, 30.00', '-' ],
			(map { [ '2024-02-01 10:00:00', '-4, 10', '-' ] } 1 .. 5),
			[ '2024-02-01 10:00:00', '-4, 30.01', 'above' ],
			(map { [ '2024-02-01 10:00:00', '-5, ' . ($_ + 7), '-' ] } 1 .. 5),
			[ '2024-02-01 11:00:00', '-5, 14.74', '-' ],
			(map { [ '2024-02-01 10:00:00', '-6, ' . ($_ + 7), '-' ] } 1 .. 5),
			[ '2024-02-01 11:00:00', '-6, 14.75', 'z_score' ],
		],
	};
}

# S5: test, then take
sub _s5
{
	my $account = 'q.account = e.account';
	return {
		columns => 'account int, amount float8',
		indexes => ['account, at'],
		features => {
			previous => [ 'account', 'lag(amount)', '1 hour', '', _previous('q.amount', $account, '1 hour') ],
			previous_at => [ 'account', 'lag(at)', '1 hour', '', _previous('q.at', $account, '1 hour') ],
		},
		ambiguous => '(SELECT count(DISTINCT x) > 1 FROM '
		  . _previous('q.amount', $account, '1 hour') =~ s/SELECT q.amount/SELECT q.amount AS x/r
		  =~ s/LIMIT 1/FETCH FIRST ROW WITH TIES/r . ' AS t)',
		rules => {
			test_then_take => [ "previous < 1 AND amount >= 500 AND at - previous_at <= interval '1 minute'", 90 ],
		},
		spans => [ MINUTE, HOUR ],
		start => '2024-05-01',
		range => 20 * MINUTE,
		row => sub {
			my ($session) = @_;
			my $account = _entity($session, 4);
			return (_or_null($account),
				_odd($account) ? _pick("'NaN'", "'Infinity'", "'-Infinity'", '1e308', 'NULL')
				: _pick(0, 0.5, 0.5, 0.99, 1, 499.99, 500, 500, 700));
		},
		edges => [
			[ '2024-05-01 10:00:00', '-1, 0.99', '-' ], [ '2024-05-01 10:01:00', '-1, 500', 'test_then_take' ],
			[ '2024-05-01 10:00:00', '-2, 0.99', '-' ], [ '2024-05-01 10:01:00.000001', '-2, 500', '-' ],
			[ '2024-05-01 10:00:00', '-3, 1', '-' ], [ '2024-05-01 10:00:30', '-3, 500', '-' ],
			[ '2024-05-01 10:00:00', '-4, 0.5', '-' ], [ '2024-05-01 10:00:30', '-4, 499.99', '-' ],
			[ '2024-05-01 10:00:00', '-5, 0.5', '-' ], [ '2024-05-01 10:00:00', '-5, 500', 'test_then_take' ],
			[ '2024-05-01 10:00:00', '-6, 500', '-' ], [ '2024-05-01 10:00:00', '-6, 0.5', '-' ],
			[ '2024-05-01 10:00:00', "-7, '-Infinity'", '-' ], [ '2024-05-01 10:00:01', "-7, 'NaN'", 'test_then_take' ],
		],
	};
}

# S6: a large sum to one beneficiary
sub _s6
{
	return {
		columns => 'payer text, payee text, amount numeric(30,2)',
		indexes => ['payer, payee, at'],
		features => {
			pair_sum => [ 'payer, payee', 'sum(amount)', '24 hours', '',
				_plain('sum(q.amount)', 'q.payer = e.payer AND q.payee = e.payee', '24 hours') ],
		},
		rules => { large_sum => [ 'pair_sum > 200000', 80 ] },
		spans => [DAY],
		start => '2024-05-01',
		range => 36 * HOUR,
		row => sub {
			my ($session) = @_;
			my $payer = _entity($session, 2);
			return (_or_null("'a$payer'"), _or_null("'b" . _entity($session, 2) . "'"),
				_odd($payer) ? _pick("'NaN'", 'NULL', '9999999999999999999999999999.99', '-9999999999999999999999999999.99')
				: _pick('50000', '10000', '60000', '0.01', '200000', '200000.01', '-90000', '-150000', '-199999.99'));
		},
		edges => [
			[ '2024-05-01 10:00:00', "'a', 'b', 100000", '-' ], [ '2024-05-01 10:00:00', "'a', 'b', 100000", '-' ],
			[ '2024-05-01 10:00:00', "'a', 'b', 0.01", 'large_sum' ], [ '2024-05-01 10:00:00', "'b', 'a', 150000", '-' ],
			[ '2024-05-01 10:00:00', "'a', 'c', 150000", '-' ], [ '2024-05-02 10:00:00', "'a', 'c', 60000", '-' ],
			[ '2024-05-01 10:00:00', "'a', 'd', 150000", '-' ],
			[ '2024-05-02 09:59:59.999999', "'a', 'd', 60000", 'large_sum' ],
			[ '2024-05-01 10:00:00', "'a', NULL, 300000", '-' ],
		],
	};
}

# S8: structuring.  (Amounts are such that sums of doubles have no rounding.)
sub _s8
{
	my $customer = 'q.customer = e.customer';
	return {
		columns => 'customer int, channel text, amount float8',
		indexes => ['customer, at'],
		features => {
			band_7d => [ 'customer', 'count(*)', '7 days', ", filter => 'amount >= 9000 AND amount < 10000'",
				_plain('count(*)', "$customer AND q.amount >= 9000 AND q.amount < 10000", '7 days') ],
			below_24h => [ 'customer', 'sum(amount)', '24 hours', ", filter => 'amount < 10000'",
				_plain('sum(q.amount)', "$customer AND q.amount < 10000", '24 hours') ],
		},
		rules => {
			band => [ 'amount >= 9000 AND amount < 10000 AND band_7d > 2', 50 ],
			split => [ 'amount < 10000 AND below_24h > 10000', 40 ],
		},
		spans => [ DAY, 7 * DAY ],
		start => '2024-05-01',
		range => 8 * DAY,
		row => sub {
			my ($session) = @_;
			my $customer = _entity($session, 3);
			return (_or_null($customer), _pick("'branch'", "'machine'", 'NULL'),
				_odd($customer) ? _pick("'NaN'", "'Infinity'", "'-Infinity'", '1e300', '-1e300', 'NULL')
				: _pick(9000, 9999.75, 10000, 8999.75, 4000, 0.25, -9000, -5000));
		},
		edges => [
			[ '2024-05-01 10:00:00', "-1, 'branch', 9100", '-' ], [ '2024-05-04 10:00:00', "-1, 'machine', 9999.75", '-' ],
			[ '2024-05-08 10:00:00', "-1, 'branch', 9300", '-' ],
			[ '2024-05-01 10:00:00.000001', "-2, 'branch', 9000", '-' ],
			[ '2024-05-04 10:00:00', "-2, 'machine', 9200", '-' ], [ '2024-05-05 10:00:00', "-2, 'branch', 10000", '-' ],
			[ '2024-05-08 10:00:00', "-2, 'branch', 9300", 'band' ],
			[ '2024-05-01 10:00:00', "-3, 'branch', 4000", '-' ], [ '2024-05-01 10:00:00', "-3, 'machine', 6000", '-' ],
			[ '2024-05-01 10:00:00', "-3, 'branch', 0.25", 'split' ],
			[ '2024-05-01 10:00:00', "-4, 'branch', 8000", '-' ], [ '2024-05-02 10:00:00', "-4, 'branch', 8000", '-' ],
			[ '2024-05-03 09:59:59.999999', "-4, 'branch', 8000", 'split' ],
		],
	};
}

# S9: a mule account passes on what it gets
sub _s9
{
	return {
		columns => 'payer text, payee text, amount numeric',
		indexes => [ 'payer, at', 'payee, at' ],
		features => {
			paid => [ 'payer', 'sum(amount)', '48 hours', '', _plain('sum(q.amount)', 'q.payer = e.payer', '48 hours') ],
			received => [ 'payee', 'sum(amount)', '48 hours', ", lookup => 'payer'",
				_plain('sum(q.amount)', 'q.payee = e.payer', '48 hours') ],
			senders => [ 'payee', 'count(DISTINCT payer)', '48 hours', ", lookup => 'payer'",
				_plain('count(DISTINCT q.payer)', 'q.payee = e.payer', '48 hours') ],
		},
		rules => {
			pass_through => [ 'received > 5000 AND paid >= 0.8 * received', 60 ],
			collector => [ 'received > 5000 AND paid >= 0.8 * received AND senders >= 3', 20 ],
		},
		spans => [ 2 * DAY ],
		start => '2024-05-01',
		range => 3 * DAY,
		row => sub {
			my ($session) = @_;
			my $payer = _entity($session, 4);
			my $payee = _entity($session, 4);
			return (_or_null("'$payer'"), _or_null("'$payee'"),
				_odd($payer) && _odd($payee) ? _pick("'NaN'", "'Infinity'", "'-Infinity'", '1e40', '1e-20', 'NULL')
				: _pick('3000', '2500', '4399.99', '0.01', '1000', '700', '5000', '6000'));
		},
		edges => [
			[ '2024-05-01 10:00:00', "'x', 'm1', 3000", '-' ], [ '2024-05-01 10:00:00', "'y', 'm1', 2500", '-' ],
			[ '2024-05-01 10:00:00', "'m1', 'z', 4399.99", '-' ],
			[ '2024-05-01 10:00:00', "'m1', 'z', 0.01", 'pass_through' ],
			[ '2024-05-01 10:00:00', "'w', 'm1', 0.01", '-' ], [ '2024-05-01 10:00:00', "'m1', 'z', 1", 'collector+pass_through' ],
			[ '2024-05-01 10:00:00', "'x', 'm2', 5000", '-' ], [ '2024-05-01 11:00:00', "'m2', 'z', 5000", '-' ],
			[ '2024-05-01 10:00:00', "'x', 'm3', 6000", '-' ], [ '2024-05-03 10:00:00', "'m3', 'z', 6000", '-' ],
			[ '2024-05-01 10:00:00', "'x', 'm4', 6000", '-' ],
			[ '2024-05-03 09:59:59.999999', "'m4', 'z', 6000", 'pass_through' ],
			[ '2024-05-01 10:00:00', "'m5', 'z', 6000", '-' ], [ '2024-05-01 10:00:00', "'x', 'm5', 6000", '-' ],
			[ '2024-05-01 10:00:00', "'m6', 'm6', 6000", 'pass_through' ],
		],
	};
}

# S11: a dormant account wakes
sub _s11
{
	return {
		columns => 'account int, kind text, amount numeric',
		indexes => ['account, at'],
		features => {
			last_moved => [ 'account', 'lag(at)', '10 years', ", filter => 'kind NOT IN (''interest'', ''fee'')'",
				_previous('q.at', "q.account = e.account AND q.kind NOT IN ('interest', 'fee')", '10 years') ],
		},
		rules => {
			wakes => [ "kind = 'out' AND amount > 1000 AND at - last_moved >= interval '365 days'", 50 ],
		},
		spans => [ 365 * DAY, 3652 * DAY, 3653 * DAY ],
		start => '2000-01-01',
		range => 9000 * DAY,
		row => sub {
			my ($session) = @_;
			my $account = _entity($session, 3);
			return (_or_null($account), _or_null(_pick("'out'", "'out'", "'out'", "'in'", "'interest'", "'fee'")),
				_odd($account) ? _pick("'NaN'", "'Infinity'", "'-Infinity'", '1e40', 'NULL') : _pick('20', '1000', '1000.01', '5000'));
		},
		edges => [
			[ '2023-03-01 00:00:00', "-1, 'out', 20", '-' ], [ '2024-02-29 00:00:00', "-1, 'out', 1000.01", 'wakes' ],
			[ '2024-02-29 00:00:00', "-1, 'out', 1000.01", '-' ],
			[ '2023-03-01 00:00:00', "-2, 'out', 20", '-' ], [ '2024-02-28 23:59:59.999999', "-2, 'out', 5000", '-' ],
			[ '2023-03-01 00:00:00', "-3, 'out', 20", '-' ], [ '2023-09-01 00:00:00', "-3, 'interest', 1", '-' ],
			[ '2024-03-01 00:00:00', "-3, 'out', 1000.00", '-' ],
			[ '2023-03-01 00:00:00', "-4, 'in', 20", '-' ], [ '2023-09-01 00:00:00', "-4, 'fee', 1", '-' ],
			[ '2024-03-01 00:00:00', "-4, 'out', 5000", 'wakes' ],
			[ '2014-03-01 00:00:00', "-5, 'out', 20", '-' ], [ '2024-03-01 00:00:00', "-5, 'out', 5000", '-' ],
			[ '2014-03-01 00:00:00.000001', "-6, 'out', 20", '-' ], [ '2024-03-01 00:00:00', "-6, 'out', 5000", 'wakes' ],
		],
	};
}

# S12: a new account.  Rules fail on an infinite date, and so do not fire.
sub _s12
{
	my $age = "CASE WHEN isfinite(opened) THEN at - opened END";
	return {
		columns => 'account int, opened date',
		watch => ', review_at => 10, deny_at => 50',
		features => {},
		rules => {
			day => [ "at - opened < interval '1 day'", 50, "$age < interval '1 day'" ],
			month => [ "at - opened >= interval '1 day' AND at - opened < interval '30 days'", 30,
				"$age >= interval '1 day' AND $age < interval '30 days'" ],
			quarter => [ "at - opened >= interval '30 days' AND at - opened < interval '90 days'", 10,
				"$age >= interval '30 days' AND $age < interval '90 days'" ],
		},
		spans => [ DAY, 30 * DAY, 90 * DAY ],
		start => '2024-05-01',
		range => 90 * DAY,
		row => sub {
			my ($session) = @_;
			return (_entity($session, 3),
				_chance(0.08) ? _pick("'infinity'", "'-infinity'", 'NULL')
				: sprintf "date '2024-05-01' + %d", _pick(0, 0, 1, 30, 90, int(rand 120) - 30));
		},
		edges => [
			[ '2020-03-10 00:00:00', "1, '2020-03-10'", 'day' ], [ '2020-03-10 23:59:59.999999', "1, '2020-03-10'", 'day' ],
			[ '2020-03-11 00:00:00', "1, '2020-03-10'", 'month' ],
			[ '2020-04-08 23:59:59.999999', "1, '2020-03-10'", 'month' ], [ '2020-04-09 00:00:00', "1, '2020-03-10'", 'quarter' ],
			[ '2020-06-07 23:59:59.999999', "1, '2020-03-10'", 'quarter' ], [ '2020-06-08 00:00:00', "1, '2020-03-10'", '-' ],
			[ '2020-03-10 00:00:00', '1, NULL', '-' ], [ '2020-03-10 00:00:00', "1, '-infinity'", '-' ],
		],
	};
}

# S22: the combined score (what it leads to stands behind the rules that fire)
sub _s22
{
	my %points = (one => 1, nineteen => 19, twenty => 20, sixty => 60, hundred => 100, trusted => -30);
	my @names = sort keys %points;
	return {
		columns => 'flags text[]',
		watch => ', review_at => 20, deny_at => 80',
		features => {},
		rules => { map { $_ => [ "'$_' = ANY (flags)", $points{$_} ] } @names },
		spans => [DAY],
		start => '2024-05-01',
		range => DAY,
		row => sub {
			my @flags = grep { _chance(0.35) } @names;
			push @flags, 'NULL' if _chance(0.1);
			return _or_null("'{" . join(',', @flags) . "}'");
		},
		edges => [
			[ '2024-05-01', "'{}'", '- approve' ], [ '2024-05-01', "'{nineteen}'", 'nineteen approve' ],
			[ '2024-05-01', "'{nineteen,one}'", 'nineteen+one review' ],
			[ '2024-05-01', "'{trusted,twenty}'", 'trusted+twenty approve' ],
			[ '2024-05-01', "'{sixty,nineteen}'", 'nineteen+sixty review' ],
			[ '2024-05-01', "'{sixty,nineteen,one}'", 'nineteen+one+sixty deny' ],
			[ '2024-05-01', "'{trusted,hundred}'", 'hundred+trusted review' ],
			[ '2024-05-01', "'{trusted,hundred,sixty}'", 'hundred+sixty+trusted deny' ],
			[ '2024-05-01', 'NULL', '- approve' ],
		],
	};
}

sub scenarios
{
	my %all = (s1 => _s1(), s3 => _s3(), s4 => _s4(), s5 => _s5(), s6 => _s6(), s8 => _s8(), s9 => _s9(),
		s11 => _s11(), s12 => _s12(), s22 => _s22());

	$all{$_}{name} = $_ foreach keys %all;
	return map { $all{$_} } sort { substr($a, 1) <=> substr($b, 1) } keys %all;
}

1;
