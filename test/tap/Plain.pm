# Plain.pm
#	What features' values are, said in plain SQL: for every event and feature one
#	aggregate query over the watched table, as slow as it is obvious.  And
#	random tables and changes to compare the engine with it on.

package Plain;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;

our @EXPORT = qw(features create_stream install_plain change run_sessions fill arrive
  compare_stored compare_live);

#
# Features
#

# A feature's value is of a kind that says how to compare it:
#	exact	a number, equal to the last digit
#	float	a double, equal but for rounding
#	time	a date or timestamp
#	text	anything else
sub _feature
{
	my ($name, $entity, $aggregate, $within, %more) = @_;
	return { kind => 'exact', current => 1, lookup => $entity, %more,
		name => $name, entity => $entity, aggregate => $aggregate, within => $within };
}

# All aggregates, over columns of every type, in windows from a second to ten
# years; wide: also one whose values have more digits than windows keep
sub features
{
	my ($wide) = @_;
	my @features = (
		_feature('n_second', 'card', 'count(*)', '1 second'),
		_feature('n_hour', 'card', 'count(*)', '1 hour'),
		_feature('n_day', 'card', 'count(*)', '1 day'),
		_feature('n_month', 'card', 'count(*)', '1 month'),
		_feature('n_odd', 'card', 'count(*)', '1 month 2 days 3 hours'),
		_feature('n_years', 'card', 'count(*)', '10 years'),
		_feature('n_before', 'card', 'count(*)', '1 hour', current => 0),
		_feature('n_ok', 'card', 'count(*)', '1 day', filter => 'ok'),
		_feature('n_not_ok', 'card', 'count(*)', '1 day', filter => 'NOT ok', current => 0),
		_feature('n_i', 'card', 'count(i)', '1 day'),
		_feature('n_pair', 'device, country', 'count(*)', '1 day'),
		_feature('n_pair_before', 'device, country', 'count(*)', '2 hours', current => 0),
		_feature('n_merchant', 'merchant', 'count(*)', '2 hours'),
		_feature('n_quoted', '"Terminal"', 'count(*)', '2 hours'));

	foreach my $function (qw(sum avg stddev variance min max))
	{
		# SQL's stddev(numeric) has no more decimals than the variance, which is few
		# for large values; ours has 16 significant digits always
		my $plain = $function eq 'stddev' ? sub { "sqrt(variance($_[0]))" } : sub { "$function($_[0])" };

		push @features, _feature("${function}_$_", 'card', "$function($_)", '2 hours', plain => &$plain($_))
		  foreach qw(i s b n u);
		push @features, _feature("${function}_$_", 'card', "$function($_)", '2 hours',
			kind => 'float', plain => "$function(${_}::float8)")
		  foreach qw(f g);
		push @features, _feature("${function}_filtered", 'device, country', "$function(n)", '1 day',
			current => 0, filter => 'ok AND i > 2', plain => &$plain('n'));
	}
	push @features, _feature("${_}_h", 'merchant', "$_(h)", '1 day', kind => 'float')
	  foreach qw(sum avg min max);
	foreach my $function (qw(min max))
	{
		push @features, _feature("${function}_$_", 'merchant', "$function($_)", '1 day', kind => 'time')
		  foreach qw(dt tm tz);
	}

	push @features,
	  _feature('signed', 'card', 'sum(CASE WHEN ok THEN n ELSE -n END)', '2 hours'),
	  _feature('product', 'merchant', 'avg(n * i)', '1 day'),
	  _feature('longest', 'merchant', 'max(length(t))', '1 day', filter => 't IS NOT NULL');

	push @features, _feature("distinct_$_", 'card', "count(DISTINCT $_)", '1 day')
	  foreach qw(i n u f t merchant ok);
	push @features,
	  _feature('distinct_lower', 'merchant', 'count(DISTINCT lower(t))', '1 day'),
	  _feature('distinct_cards', '"Terminal"', 'count(DISTINCT card)', '1 day',
		current => 0, filter => 'n > 10');

	push @features,
	  _feature('lag_ts', 'card', 'lag(ts)', '10 years', kind => 'time'),
	  _feature('lag_n', 'card', 'lag(n)', '1 day'),
	  _feature('lag_t', 'device, country', 'lag(t)', '1 day', kind => 'text'),
	  _feature('lag_ok', 'card', 'lag(i)', '1 day', filter => 'ok'),
	  _feature('first_ts', 'merchant', 'first(ts)', '1 day', kind => 'time'),
	  _feature('first_n', 'card', 'first(n)', '2 hours', filter => 'ok'),
	  _feature('first_before', 'card', 'first(merchant)', '2 hours', kind => 'text', current => 0);

	push @features, _feature('thirds', 'merchant', 'sum(n / 3)', '1 day') if $wide;

	# what the card's peer did
	push @features,
	  _feature('peer_sum', 'card', 'sum(n)', '1 day', lookup => 'peer'),
	  _feature('peer_lag', 'card', 'lag(n)', '1 day', lookup => 'peer');
	return @features;
}

# create_stream(node, table, type of the event time, features, partitioned): a
# watched table, every event of which alerts.  Columns tx and seq are for compare_live().
sub create_stream
{
	my ($node, $table, $type, $features, $partitioned) = @_;
	my $by = $partitioned ? 'PARTITION BY HASH (id)' : '';
	my $partitions = '';
	if ($partitioned)
	{
		$partitions .= "CREATE TABLE ${table}_$_ PARTITION OF $table FOR VALUES WITH (MODULUS 3, REMAINDER $_);\n"
		  foreach 0 .. 2;
	}
	my @sql = (qq{
CREATE TABLE $table (id bigint PRIMARY KEY, ts $type, card int, peer int, device text,
	country varchar(2), merchant uuid, "Terminal" bigint, i int, s smallint, b bigint,
	n numeric(12,2), u numeric, f float8, g float4, h float8, dt date, tm timestamp,
	tz timestamptz, t text, ok bool, tx int, seq int) $by;
$partitions
CREATE INDEX ON $table (card, ts);
CREATE INDEX ON $table (device, country, ts);
CREATE INDEX ON $table (merchant, ts);
CREATE INDEX ON $table ("Terminal", ts);
BEGIN;
SELECT risk_alert.watch('$table', event_time => 'ts', suppress => '0 seconds');
SELECT risk_alert.create_rule('$table', 'everything', 'true', points => 100);});

	foreach my $f (@$features)
	{
		my $filter = defined $f->{filter} ? "'$f->{filter}'" : 'NULL';
		my $current = $f->{current} ? 'true' : 'false';
		push @sql, "SELECT risk_alert.create_feature('$table', '$f->{name}', entity => '$f->{entity}',"
		  . " aggregate => '$f->{aggregate}', within => '$f->{within}', filter => $filter,"
		  . " include_current => $current, lookup => '$f->{lookup}');";
	}
	$node->safe_psql('postgres', join("\n", @sql, 'COMMIT;'));
	return;
}

#
# Comparing
#

# _answers(feature, table, visible, recorded): an SQL expression over row p for the
# values that will do, as a jsonb array.  visible: which other rows q count, as far as
# arrival is concerned; undef: all.  Unless the order of arrival is recorded, lag and
# first may give any of several rows of the same time.
sub _answers
{
	my ($f, $table, $visible, $recorded) = @_;
	my @entity = split /, /, $f->{entity};
	my @lookup = split /, /, $f->{lookup};
	my ($function, $x) = $f->{aggregate} =~ /^(\w+)\((.*)\)$/;
	my @where = ((map { "q.$entity[$_] = p.$lookup[$_]" } 0 .. $#entity),
		"q.ts > p.ts - interval '$f->{within}'", 'q.ts <= p.ts');

	push @where, $visible if defined $visible;
	push @where, 'q.id <> p.id' if !$f->{current} || $function eq 'lag';
	push @where, "($f->{filter})" if defined $f->{filter};

	if ($function eq 'lag' || $function eq 'first')
	{
		my $order = $function eq 'lag' ? 'DESC' : 'ASC';
		my $which = "ORDER BY q.ts $order FETCH FIRST ROW WITH TIES";
		$which = "ORDER BY q.ts $order, q.seq $order LIMIT 1" if $recorded;
		push @where, "$x IS NOT NULL" if $function eq 'first';    # as aggregates do, it passes over NULL
		return qq{(SELECT coalesce(jsonb_agg(x), '[null]')
	FROM (SELECT to_jsonb($x) AS x FROM $table q WHERE @{[ join ' AND ', @where ]} $which) w)};
	}
	return "(SELECT jsonb_build_array(@{[ $f->{plain} // $f->{aggregate} ]})"
	  . " FROM $table q WHERE @{[ join ' AND ', @where ]})";
}

# Functions for comparing
sub install_plain
{
	my ($node) = @_;
	$node->safe_psql('postgres', q{
CREATE FUNCTION alike(kind text, answer text, got text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF answer IS NULL OR got IS NULL OR answer = got THEN
		RETURN answer IS NOT DISTINCT FROM got;
	END IF;
	CASE kind
		WHEN 'exact' THEN
			RETURN answer::numeric = got::numeric;
		WHEN 'time' THEN
			RETURN answer::timestamptz = got::timestamptz;
		WHEN 'float' THEN
			RETURN answer::float8 = got::float8
				OR (answer !~ '[Ny]' AND got !~ '[Ny]'	-- NaN, Infinity
					AND abs(answer::float8 - got::float8) <= 1e-12 * abs(answer::float8));
		ELSE
			RETURN false;
	END CASE;
END
$$;
CREATE FUNCTION one_of(kind text, answers jsonb, found text) RETURNS bool LANGUAGE sql IMMUTABLE AS
$$ SELECT bool_or(alike(kind, answer, found)) FROM jsonb_array_elements_text(answers) AS x(answer) $$;
});
	return;
}

# The same number of events as the table has with a time, each feature of each right
sub _compare
{
	my ($node, $table, $from, $visible, $recorded, $features, $name) = @_;
	my $values = join ",\n",
	  map { "('$_->{name}', '$_->{kind}', " . _answers($_, $table, $visible, $recorded) . ')' } @$features;
	my $result = $node->safe_psql('postgres', qq{
SET jit = off;
CREATE TEMP TABLE compared AS
SELECT p.id, v.name, v.answers, p.features->>v.name AS found,
	(p.features ? v.name AND one_of(v.kind, v.answers, p.features->>v.name)) IS TRUE AS same
FROM (SELECT p.*, a.features FROM $from WHERE isfinite(p.ts) OFFSET 0) p
CROSS JOIN LATERAL (VALUES $values) AS v(name, kind, answers);
SELECT 'all', count(*) FROM $table p WHERE isfinite(p.ts);
SELECT 'compared', count(DISTINCT id), count(*), count(*) FILTER (WHERE NOT same) FROM compared;
SELECT 'wrong', name, count(*), min(id) FROM compared WHERE NOT same GROUP BY 2 ORDER BY 2;
SELECT 'example', id, name, answers, found FROM compared WHERE NOT same ORDER BY name, id LIMIT 10;});
	my ($all) = $result =~ /^all\|(\d+)$/m;
	my ($events, $values_compared, $wrong) = $result =~ /^compared\|(\d+)\|(\d+)\|(\d+)$/m;

	is($wrong, 0, "$name: $values_compared values of $events events") or diag(substr $result, 0, 6000);
	is($events, $all, "$name: all events");
	cmp_ok($events, '>=', 50, "$name: enough events");
	return;
}

# compare_stored(node, table, features, name): risk_assess() of every row agrees with
# plain SQL.  It can't know what arrived when: all rows of the same time count.
sub compare_stored
{
	my ($node, $table, $features, $name) = @_;
	_compare($node, $table, "$table p CROSS JOIN LATERAL risk_alert.risk_assess(p) a",
		undef, 0, $features, $name);
	return;
}

# compare_live(node, table, recorded, features, name): so do the values that the worker
# saw, according to the alerts, in a stream of inserts alone.  Rows up to the same tx had
# been committed by then, and of the row's own time those with a lower seq had arrived
# before.  recorded: windows were in memory from their first event on, so that they know
# in which order earlier rows of the same time arrived.
sub compare_live
{
	my ($node, $table, $recorded, $features, $name) = @_;
	_compare($node, $table, "$table p JOIN risk_alert.alerts a ON a.stream = '$table' AND a.event_key = p.id::text",
		'q.tx <= p.tx AND (q.ts < p.ts OR q.seq <= p.seq)', $recorded, $features, $name);
	return;
}

#
# Random rows and changes.  All is derived from srand(), so a seed tells a stream.
#

sub _pick { return $_[ rand @_ ]; }

sub _chance { my ($p) = @_; return rand() < $p; }

my @spans = ('1 second', '1 hour', '2 hours', '1 day', '1 month');

# A time: somewhere in three hours, the same as another's, or a window's length from
# it, exactly or next to that
sub _time
{
	my ($state) = @_;
	my $times = $state->{times};

	if (@$times && _chance(0.5))
	{
		return _pick(@$times) if _chance(0.5);
		return _pick(@$times) . _pick(' + ', ' - ') . "interval '" . _pick(@spans) . "'"
		  . _pick('', '', " + interval '1 microsecond'", " - interval '1 microsecond'");
	}
	push @$times, sprintf "timestamptz '2024-03-30 %02d:%02d:%02d+00'", 9 + rand 3, rand 60, rand 60;
	return $times->[-1];
}

# A row, but for tx and seq.  Ids, terminals and the signs of u are such that
# PostgreSQL's hash functions take some for equal that are not.
sub _row
{
	my ($state, $id) = @_;
	my @odd_double = ("'NaN'", "'Infinity'", "'-Infinity'", "'-0'");
	my $entities = $state->{entities} // 5;
	my @values = (
		int(rand $entities), int(rand $entities), _pick("'phone'", "'tablet'"), _pick("'DE'", "'FR'", "'IT'"),
		sprintf("'00000000-0000-0000-0000-%012d'", rand 0.6 * $entities), _pick(-1, 4_294_967_295, 1, 4_294_967_296),
		int(rand 9) - 2, int(rand 65535) - 32767,
		$state->{wide} ? _pick('9223372036854775807', '-9223372036854775808', int(rand 1000))
		: int(rand 1e9) * 1e6,
		sprintf('%.2f', _chance(0.02) ? -rand 1e9 : rand 100),
		_chance(0.03) ? _pick(@odd_double[ 0 .. 2 ])
		: $state->{wide} && _chance(0.3) ? _pick('1e30', '-1e-20', '12345678901234567890.123456789', sprintf('%.9f', rand 1e6))
		: _pick('0.1', '0.10', '-0.1', int(rand 100), sprintf('%.6f', rand 1e6)),
		# eighths: their sums have no rounding, whatever the order
		_chance(0.03) ? _pick(@odd_double) : int(rand 1000) / 8,
		_chance(0.03) ? _pick(@odd_double) : int(rand 1000) / 8,
		sprintf('%.17g', rand 1000),
		_pick("'2024-02-29'", "'1999-12-31'", "'2024-03-30'"),
		sprintf("'2024-03-30 10:00:%02d.5'", rand 60),
		sprintf("'2024-03-30 10:00:%02d+02'", rand 60),
		# long: too large for the queue
		_chance(0.02) ? "repeat('" . _pick('long', 'LONG') . "', 4000)" : _pick("'a'", "'A'", "'b'", "'ab'", "''"),
		_pick('true', 'false'));

	$_ = _chance(0.08) ? 'NULL' : $_ foreach @values;
	return '(' . join(', ', $id, '(' . _time($state) . ")::$state->{type}", @values) . ')';
}

sub _new_rows
{
	my ($state, $n) = @_;
	my @ids = map { my $id = $state->{next_id}++; _chance(0.1) ? ($id, $id * 4_294_967_296) : $id } 1 .. $n;
	return "INSERT INTO $state->{table} VALUES " . join(",\n", map { _row($state, $_) } @ids);
}

# Some statement that changes the table, on rows of any session
sub _statement
{
	my ($state) = @_;
	my $table = $state->{table};
	my @ids = map { 10000 * (1 + int(rand $state->{sessions})) + int(rand 150) } 0 .. int(rand 6);
	my $where = 'WHERE id IN (' . join(', ', sort { $a <=> $b } @ids) . ')';
	my $id = $ids[0];
	my $die = rand 100;
	my $time = "(@{[ _time($state) ]})::$state->{type}";

	return _new_rows($state, 1 + int(rand 7)) . ';' if $die < 50;
	return "UPDATE $table SET n = n + 1, f = f / 2, i = NULLIF(i + 1, 3) $where;" if $die < 57;
	return "UPDATE $table SET ok = NOT ok, t = upper(t), u = -u $where;" if $die < 63;
	return "UPDATE $table SET card = (card + 1) % 5, merchant = NULL $where;" if $die < 68;
	return "UPDATE $table SET device = 'phone', country = 'FR' $where;" if $die < 71;
	return "UPDATE $table SET ts = ts + interval '" . _pick(@spans) . "' $where;" if $die < 74;
	return "UPDATE $table SET ts = ts - interval '1 microsecond' $where;" if $die < 77;
	return "UPDATE $table SET ts = " . _pick('NULL', "'infinity'", "'-infinity'", $time) . " $where;" if $die < 80;
	return "UPDATE $table SET id = -id WHERE id = $id;" if $die < 82;
	return "DELETE FROM $table $where;" if $die < 88;
	return "DELETE FROM $table WHERE id = $id;\n"
	  . 'INSERT INTO ' . "$table VALUES " . _row($state, $id) . ';'
	  if $die < 91;
	return "INSERT INTO $table VALUES " . _row($state, $id) . ' ON CONFLICT DO NOTHING;' if $die < 93;
	return "INSERT INTO $table VALUES " . _row($state, $id)
	  . ' ON CONFLICT (id) DO UPDATE SET n = excluded.n, ts = excluded.ts, card = excluded.card;'
	  if $die < 96;
	return "COPY $table (id, ts, card, n, ok) FROM stdin;\n"
	  . join('', map { $state->{next_id}++ . "\t2024-03-30 10:00:0$_\t2\t$_.25\tt\n" } 1 .. 3) . "\\.\n"
	  if $die < 98;
	return "MERGE INTO $table p USING (VALUES ($id), (@{[ $state->{next_id}++ ]})) v (id) ON p.id = v.id
WHEN MATCHED AND p.ok THEN DELETE
WHEN MATCHED THEN UPDATE SET n = 5, ts = $time
WHEN NOT MATCHED THEN INSERT (id, ts, card, n, ok) VALUES (v.id, $time, 1, 2.5, true);";
}

# change(seed, session, sessions, table, type of the event time, wide, entities,
# transactions, round): a session's script.  Its statements may well fail, on conflicts or in deadlocks;
# then the transaction is gone.
sub change
{
	my (%o) = @_;
	my $state = { %o, times => [], next_id => 10000 * $o{session} + 1000 * $o{round} };
	my @script = ("SET deadlock_timeout = '10ms';");

	srand($o{seed} * 10000 + $o{round} * 100 + $o{session});
	foreach my $i (1 .. $o{transactions})
	{
		my @s = map { _statement($state) } 1 .. 4;
		my $gid = "'$o{table}_$o{round}_$o{session}_$i'";
		my $die = rand 100;

		if ($die < 45)    { push @script, $s[0]; }
		elsif ($die < 65) { push @script, 'BEGIN;', @s[ 0 .. rand 4 ], 'COMMIT;'; }
		elsif ($die < 75) { push @script, 'BEGIN;', @s[ 0 .. rand 4 ], 'ROLLBACK;'; }
		elsif ($die < 92)
		{
			push @script, 'BEGIN;', $s[0], 'SAVEPOINT a;', $s[1], 'SAVEPOINT b;', $s[2],
			  _pick('ROLLBACK TO a;', 'ROLLBACK TO b;', 'RELEASE a;'), $s[3],
			  _pick('COMMIT;', 'COMMIT;', 'ROLLBACK;');
		}
		else
		{
			push @script, 'BEGIN;', $s[0], 'SAVEPOINT a;', $s[1], 'ROLLBACK TO a;', $s[2],
			  "PREPARE TRANSACTION $gid;",
			  _pick("COMMIT PREPARED $gid;", "COMMIT PREPARED $gid;", "ROLLBACK PREPARED $gid;");
		}
	}
	return join "\n", @script, '';
}

# run_sessions(node, scripts): each in a session of its own, all at the same time
sub run_sessions
{
	my ($node, @scripts) = @_;
	my @runs;

	foreach my $script (@scripts)
	{
		my $output = '';
		push @runs,
		  IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ],
			'<', \$script, '>', \$output, '2>', \$output);
	}
	$_->finish foreach @runs;
	return;
}

# fill(node, seed, table, type of the event time, wide, entities, rows, ordered): random
# rows in table "<table>_feed", divided into transactions of random size; ordered: times only grow
sub fill
{
	my ($node, %o) = @_;
	my $state = { %o, times => [] };
	my $order = $o{ordered} ? 'ts, id' : 'id';

	srand($o{seed});
	my $rows = join ",\n", map { _row($state, $_) } 1 .. $o{rows};
	$node->safe_psql('postgres', qq{
CREATE TABLE $o{table}_feed (LIKE $o{table});
INSERT INTO $o{table}_feed VALUES $rows;
SELECT setseed(1.0 / $o{seed});
WITH numbered AS (
	SELECT id, row_number() OVER (ORDER BY $order) AS seq FROM $o{table}_feed
), cut AS (
	SELECT id, seq, CASE WHEN random() < 0.2 THEN 1 ELSE 0 END AS first FROM numbered
), divided AS (
	SELECT id, seq, sum(first) OVER (ORDER BY seq) AS tx FROM cut
)
UPDATE $o{table}_feed f SET seq = d.seq, tx = d.tx FROM divided d WHERE f.id = d.id;});
	return;
}

# arrive(node, table, drain): insert them; with drain, each transaction is
# scored before the next one comes
sub arrive
{
	my ($node, $table, $drain) = @_;
	my $wait = $drain ? "ASSERT risk_alert.drain('1 minute');" : '';

	$node->safe_psql('postgres', qq{
CREATE OR REPLACE PROCEDURE arrive() LANGUAGE plpgsql AS \$\$
DECLARE
	next_tx int;
BEGIN
	FOR next_tx IN SELECT DISTINCT tx FROM ${table}_feed ORDER BY tx LOOP
		INSERT INTO $table SELECT * FROM ${table}_feed WHERE tx = next_tx ORDER BY seq;
		COMMIT;
		$wait
	END LOOP;
END
\$\$;
CALL arrive();});
	drain($node);
	return;
}

1;
