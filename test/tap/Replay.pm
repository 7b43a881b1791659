# Replay.pm
#	Replays scenarios: random transactions of their streams, and what has to come of
#	them according to plain SQL.
#
# A replay goes in phases.  The rows that a phase inserts are to be scored with the
# tables as they are at its end: a phase is one transaction, or several that the
# worker meets all at once, or sessions whose events don't see each other.  So
#	expect()	computes at the phase's end what each new row has to come to, by
#				aggregate queries over the table and the order of arrival,
#	check()		compares alerts with that, once the worker is through,
#				and risk_assess() of the stored rows with the tables as they are.
#
# Columns of every table besides the scenario's own: seq (order of arrival) and phase
# (when it arrived; NULL: in the present one).

package Replay;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Run;
use POSIX ();
use RiskAlert;
use Scenario;
use Test::More;

our @EXPORT = qw(create_scenarios republish insert corrections session_script run_sessions
  expect check check_all ask_and_insert edges check_edges);

my @scenarios = scenarios();
my $phase = 0;
my $checked = 0;

#
# Tables, streams, and the oracle
#

sub _columns { my ($s) = @_; return join ', ', 'id', 'at', map { /^(\w+)/ } split /, /, $s->{columns}; }

# _oracle(scenario, events, seen): a query over events e: id, at, phase, the features' values, which
# rules fire, score and decision, and whether there are several right answers
sub _oracle
{
	my ($s, $from, $seen) = @_;
	my ($review_at) = $s->{watch} =~ /review_at => (\d+)/;
	my ($deny_at) = $s->{watch} =~ /deny_at => (\d+)/;
	my @features = sort keys %{ $s->{features} };
	my @rules = sort keys %{ $s->{rules} };
	my %fires = map { $_ => 'CASE WHEN isfinite(e.at) THEN ' . ($s->{rules}{$_}[2] // $s->{rules}{$_}[0]) . ' END' } @rules;
	my $values = join ', ', 'true', map { "$s->{features}{$_}[-1] AS $_" } @features;
	my $fired = join ', ', map { "CASE WHEN $fires{$_} THEN '$_' END" } @rules;
	my $points = join ' + ', map { "CASE WHEN $fires{$_} THEN $s->{rules}{$_}[1] ELSE 0 END" } @rules;
	my $json = join ', ', map { "'$_', f.$_" } @features;
	my $several = $s->{ambiguous} // 'false';
	my $sql = qq{
SELECT e.id, e.at, e.phase, jsonb_build_object($json) AS features, r.fired, r.score,
	CASE WHEN r.score >= @{[ $deny_at // 80 ]} THEN 'deny' WHEN r.score >= $review_at THEN 'review' ELSE 'approve' END AS decision,
	isfinite(e.at) IS TRUE AND $several AS skip
FROM $from e
CROSS JOIN LATERAL (SELECT $values OFFSET 0) f
CROSS JOIN LATERAL (SELECT coalesce(nullif(concat_ws('+', $fired), ''), '-') AS fired,
	greatest(0, least(100, $points)) AS score OFFSET 0) r};

	# the event itself is there, even if it was deleted before it was scored
	$sql =~ s/\{rows\}/(SELECT * FROM $s->{name} WHERE id <> e.id UNION ALL SELECT e.*)/g;
	$sql =~ s/\{seen\}/$seen/g;
	return $sql;
}

# Statements that create a scenario's features and rules
sub _definitions
{
	my ($s) = @_;
	my $sql = '';

	foreach my $name (sort keys %{ $s->{features} })
	{
		my ($entity, $aggregate, $within, $more) = @{ $s->{features}{$name} };
		$sql .= "SELECT risk_alert.create_feature('$s->{name}', '$name', '$entity', '$aggregate', '$within'$more);\n";
	}
	foreach my $name (sort keys %{ $s->{rules} })
	{
		my ($condition, $points) = @{ $s->{rules}{$name} };
		$sql .= "SELECT risk_alert.create_rule('$s->{name}', '$name', \$_\$$condition\$_\$, points => $points);\n";
	}
	return $sql;
}

# republish(): statements that drop all features and rules, and create them anew
sub republish
{
	my $sql = '';

	foreach my $s (@scenarios)
	{
		$sql .= "SELECT risk_alert.drop_rule('$s->{name}', '$_');\n" foreach sort keys %{ $s->{rules} };
		$sql .= "SELECT risk_alert.drop_feature('$s->{name}', '$_');\n" foreach sort keys %{ $s->{features} };
		$sql .= _definitions($s);
	}
	return $sql;
}

# create_scenarios(node): tables with some history, watched, with features and rules
sub create_scenarios
{
	my ($node) = @_;
	my $sql = q{
CREATE TABLE arrival (stream text, id int, seq bigint GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (stream, id));
-- a row that is deleted and inserted again by one transaction does not arrive anew
CREATE FUNCTION arrive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO arrival VALUES (TG_TABLE_NAME, NEW.id) ON CONFLICT DO NOTHING;
	NEW.seq := (SELECT seq FROM arrival a WHERE a.stream = TG_TABLE_NAME AND a.id = NEW.id);
	NEW.phase := (SELECT phase FROM expected x WHERE x.stream = TG_TABLE_NAME AND x.id = NEW.id);
	RETURN NEW;
END
$$;
CREATE FUNCTION alike(a text, b text, rounded bool) RETURNS bool LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN a IS NULL OR b IS NULL OR a = b THEN a IS NOT DISTINCT FROM b
		WHEN a ~ '^\d+-\d\d-' THEN a::timestamptz = b::timestamptz
		WHEN a::numeric = b::numeric THEN true
		-- roots: SQL's have 16 digits, ours some more
		ELSE rounded AND abs(a::numeric - b::numeric) < 1e-14 * abs(a::numeric) END $$;
CREATE FUNCTION alike(a jsonb, b jsonb) RETURNS bool LANGUAGE sql IMMUTABLE AS $$
	SELECT count(*) = count(y.key) AND count(*) = count(x.key) AND coalesce(bool_and(alike(x.value, y.value, key = 'deviation')), true)
	FROM jsonb_each_text(a) x FULL JOIN jsonb_each_text(b) y USING (key) $$;
CREATE TABLE scenario (name text PRIMARY KEY);
CREATE TABLE expected (stream text, id int, phase int, features jsonb, fired text, score int, decision text,
	skip bool, PRIMARY KEY (stream, id));
CREATE TABLE edge (stream text, id int, fired text);
CREATE TABLE asked (stream text, id int, score int, decision text, features jsonb);
CREATE VIEW came AS
	SELECT stream, event_key::int AS id, score, decision, features,
		array_to_string(ARRAY(SELECT unnest(rules) COLLATE "C" ORDER BY 1), '+') AS fired
	FROM risk_alert.alerts;
};
	foreach my $s (@scenarios)
	{
		my $t = $s->{name};
		$s->{watch} //= ', review_at => 1';
		$sql .= qq{
INSERT INTO scenario VALUES ('$t');
CREATE TABLE $t (id int PRIMARY KEY, at timestamptz, $s->{columns}, seq bigint, phase int);
CREATE INDEX ON $t (phase) WHERE phase IS NULL;
CREATE INDEX ON $t (at);
} . join('', map { "CREATE INDEX ON $t ($_);\n" } @{ $s->{indexes} // [] }) . qq{
CREATE TABLE ${t}_gone (LIKE $t);
CREATE TABLE ${t}_feed (LIKE $t);
CREATE TRIGGER arrive BEFORE INSERT ON $t FOR EACH ROW EXECUTE FUNCTION arrive();
CREATE VIEW ${t}_new AS
	SELECT * FROM (SELECT * FROM $t WHERE phase IS NULL UNION ALL SELECT * FROM ${t}_gone WHERE phase IS NULL) n
	WHERE NOT EXISTS (SELECT FROM expected x WHERE x.stream = '$t' AND x.id = n.id);
CREATE VIEW ${t}_live AS } . _oracle($s, "${t}_new", '(q.at < e.at OR q.phase IS NOT NULL OR q.seq <= e.seq)') . qq{;
CREATE VIEW ${t}_now AS } . _oracle($s, $t, 'true') . qq{;
CREATE VIEW ${t}_assessed AS
	SELECT '$t' AS stream, o.*, a.score AS got_score, a.decision AS got_decision, a.features AS got_features,
		coalesce((SELECT string_agg(r->>'rule', '+' ORDER BY r->>'rule' COLLATE "C") FROM jsonb_array_elements(a.reasons) r), '-') AS got_fired,
		risk_alert.risk_score(e) AS alone, risk_alert.risk_score('$t', to_jsonb(e)) AS as_json
	FROM ${t}_now o JOIN $t e USING (id) CROSS JOIN LATERAL risk_alert.risk_assess(e) a
	WHERE isfinite(o.at) AND NOT o.skip;
};
		$sql .= insert([$s], 0, 20) =~ s/^/BEGIN; /r . 'COMMIT;';
		$sql .= qq{
INSERT INTO expected SELECT '$t', id, 0, '{}', '-', 0, 'approve', false FROM $t;
UPDATE $t SET phase = 0;
BEGIN;
SELECT risk_alert.watch('$t', event_time => 'at', suppress => '0 seconds'$s->{watch});
};
		$sql .= _definitions($s);
		$sql .= "COMMIT;\n";
	}
	$node->safe_psql('postgres', $sql . q{
CREATE PROCEDURE expect(k int) LANGUAGE plpgsql AS $$
DECLARE
	s text;
BEGIN
	FOR s IN SELECT name FROM scenario LOOP
		EXECUTE format('INSERT INTO expected SELECT %1$L, id, %2$s, features, fired, score, decision, skip FROM %1$I_live', s, k);
		EXECUTE format('UPDATE %1$I SET phase = %2$s WHERE phase IS NULL', s, k);
		EXECUTE format('UPDATE %1$I_gone SET phase = %2$s WHERE phase IS NULL', s, k);
	END LOOP;
END
$$;});
	return;
}

# expect(node): to be called when the phase's last transaction has been committed
sub expect
{
	my ($node) = @_;
	$phase++;
	$node->safe_psql('postgres', "SET jit = off; CALL expect($phase)");
	return;
}

# What came is not what was expected: a line each, at most ten; at the end "alerts, events"
sub _wrong_alerts
{
	my ($which) = @_;
	return qq{
SELECT 'alerts', coalesce(x.stream, c.stream), coalesce(x.id, c.id), x.phase, x.fired, x.score, x.features, 'came:',
	 c.fired, c.score, c.decision, c.features
FROM (SELECT * FROM expected WHERE $which) x FULL JOIN came c USING (stream, id)
WHERE NOT coalesce(x.skip, false)
AND CASE WHEN x.id IS NULL THEN NOT EXISTS (SELECT FROM expected y WHERE y.stream = c.stream AND y.id = c.id)
	WHEN x.decision = 'approve' THEN c.id IS NOT NULL
	ELSE (x.fired, x.score, x.decision) IS DISTINCT FROM (c.fired, c.score, c.decision) OR NOT alike(x.features, c.features) END
LIMIT 10;
};
}

sub _wrong_assessments
{
	my ($which) = @_;
	return join '', map { qq{
SELECT 'assess', stream, id, phase, fired, score, features, 'came:', got_fired, got_score, got_decision, got_features, alone, as_json
FROM $_->{name}_assessed WHERE $which
AND ((fired, score, decision) IS DISTINCT FROM (got_fired, got_score, got_decision) OR NOT alike(features, got_features)
	OR alone IS DISTINCT FROM score OR as_json IS DISTINCT FROM score) LIMIT 10;} } @scenarios;
}

# check(node, claim): the alerts of the phases since the last check are there; risk_assess()
# of the rows that arrived in them is right.  all: and of all other rows.
sub check
{
	my ($node, $claim, %o) = @_;
	my $which = "phase > $checked";
	drain($node);
	my $wrong = $node->safe_psql('postgres',
		'SET jit = off;' . _wrong_alerts($which) . _wrong_assessments($o{all} ? 'true' : $which));
	my $n = $node->safe_psql('postgres', "SELECT count(*) FROM expected WHERE $which");
	$checked = $phase;
	is($wrong, '', "$claim ($n events)");
	return;
}

# check_all(node, claim): all alerts, and all rows as they are by now
sub check_all
{
	my ($node, $claim) = @_;
	drain($node);
	is($node->safe_psql('postgres', 'SET jit = off;' . _wrong_alerts('true')), '', "$claim: alerts, of all phases");
	is($node->safe_psql('postgres', 'SET jit = off;' . _wrong_assessments('true')), '', "$claim: risk_assess(), of all rows");
	return;
}

#
# Random rows and changes.  All is derived from srand(), so a seed tells a replay.
#

sub _pick { return $_[ rand @_ ]; }

sub _chance { my ($p) = @_; return rand() < $p; }

sub _literal
{
	my ($us) = @_;
	my $s = POSIX::floor($us / 1e6);
	return POSIX::strftime("'%Y-%m-%d %H:%M:%S", gmtime $s) . sprintf(".%06d+00'", $us - $s * 1_000_000);
}

# A time: that of another event of the session, or a window's length from it, exactly or
# next to that, or somewhere.  ordered: not before the session's previous ones.
sub _time
{
	my ($s, $session, $ordered) = @_;
	my $times = $s->{times}{$session} //= [];
	my $span = 1_000_000 * _pick(@{ $s->{spans} });
	my ($y, $m, $d) = split /-/, $s->{start};
	my $start = 1_000_000 * POSIX::mktime(0, 0, 0, $d, $m - 1, $y - 1900);
	my $somewhere = int rand $s->{range};
	my $time;

	if ($ordered)
	{
		$time = ($times->[-1] // $start)
		  + _pick(0, 0, 1, map { int rand 1_000_000 * $s->{range} / $_ } (20, 50, 200), 1000);
		$time = $times->[-1] + $span + _pick(-1, 0, 1) if @$times && _chance(0.15);
	}
	elsif (@$times && _chance(0.6))
	{
		$time = _pick(@$times) + _pick(0, 0, -$span, $span) + _pick(0, 0, -1, 1);
	}
	else
	{
		$time = $start + 1_000_000 * $somewhere;
	}
	push @$times, $time;
	return _literal($time);
}

sub _odd_time { return _pick('NULL', "'infinity'", "'-infinity'"); }

sub _row
{
	my ($s, $session, $id, $ordered) = @_;
	my $time = _chance(0.03) ? _odd_time() : _time($s, $session, $ordered);
	return '(' . join(', ', $id, $time, $s->{row}->($session)) . ')';
}

sub _new_id
{
	my ($s, $session) = @_;
	return 10_000 * $session + ++$s->{last_id}{$session};
}

# insert(scenarios (undef: all), session, up to how many rows of each, options): statements.
#	ordered		times don't go back
#	ids			{ name => [ids] }: where to put the new ids
#	touch		some rows are updated, deleted, or both and inserted again, by the same transaction
sub insert
{
	my ($which, $session, $most, %o) = @_;
	my $sql = '';

	foreach my $s (@{ $which // \@scenarios })
	{
		my $n = int rand $most + 1;
		my @ids = map { _new_id($s, $session) } 1 .. $n;

		next if $n == 0;
		$sql .= "INSERT INTO $s->{name} (" . _columns($s) . ") VALUES\n\t"
		  . join(",\n\t", map { _row($s, $session, $_, $o{ordered}) } @ids) . ";\n";
		push @{ $o{ids}{ $s->{name} } }, @ids if $o{ids};
		if ($o{touch} && _chance(0.3))
		{
			my $id = $ids[-1];
			my $delete = "DELETE FROM $s->{name} WHERE id = $id;\n";
			my $row = _row($s, $session, $id, $o{ordered});

			my $change = _pick("UPDATE $s->{name} SET (@{[ _columns($s) ]}) = ROW$row WHERE id = $id;\n",
				"${delete}INSERT INTO $s->{name} (@{[ _columns($s) ]}) VALUES $row;\n", $delete);

			$sql .= $change;
			pop @{ $o{ids}{ $s->{name} } } if $change eq $delete;
		}
	}
	return $sql;
}

# corrections(session, how many, ids, options): updates and deletes of rows with those ids, which
# are taken from there.
#	unscored	the worker has not come to these rows yet
sub corrections
{
	my ($session, $n, $ids, %o) = @_;
	my $sql = '';

	foreach my $s (@scenarios)
	{
		my $t = $s->{name};
		my $pool = $ids->{$t} // [];

		foreach my $i (1 .. $n)
		{
			last if !@$pool;
			my $id = splice @$pool, int(rand @$pool), 1;
			my $where = "WHERE id = $id" . ($o{unscored} ? ' AND isfinite(at)' : '');
			my $die = rand 100;
			my $new = join ', ', $s->{row}->($session);
			my $columns = _columns($s) =~ s/^id, at, //r;

			if ($die < 40) { $sql .= "UPDATE $t SET ($columns) = ROW($new) $where;\n"; }
			elsif ($die < 60) { $sql .= "UPDATE $t SET at = " . _time($s, $session) . " $where;\n"; }
			elsif ($die < 70) { $sql .= "UPDATE $t SET at = at " . _pick('+', '-') . " interval '1 microsecond' $where;\n"; }
			elsif ($o{unscored} && $die < 85)
			{
				my $row = "($id, " . _time($s, $session) . ", $new)";
				$sql .= "DELETE FROM $t $where;\nINSERT INTO $t (@{[ _columns($s) ]}) VALUES $row ON CONFLICT DO NOTHING;\n";
			}
			elsif ($o{unscored})
			{
				$sql .= "WITH d AS (DELETE FROM $t $where RETURNING *) INSERT INTO ${t}_gone SELECT * FROM d;\n";
			}
			elsif ($die < 75) { $sql .= "UPDATE $t SET at = " . _odd_time() . " $where;\n"; }
			elsif ($die < 90) { $sql .= "DELETE FROM $t $where;\n"; }
			else
			{
				$sql .= "DELETE FROM $t $where;\nINSERT INTO $t ("
				  . _columns($s) . ") VALUES " . _row($s, $session, $id) . ";\n";
			}
		}
	}
	return $sql;
}

# session_script(session, transactions, most => rows of a scenario in each, options): whatever a session does: transactions of random
# size, savepoints, rollbacks, prepared transactions.  ordered as in insert(); without it
# the session changes its rows afterwards, which the worker must not have seen yet.
sub session_script
{
	my ($session, $transactions, %o) = @_;
	my @sql = 'SET TimeZone = ' . _pick(qw('UTC' 'Pacific/Auckland' 'America/New_York')) . ';';
	my %ids;

	foreach my $i (1 .. $transactions)
	{
		my $rows = insert(undef, $session, $o{most}, %o, ids => \%ids, touch => 1);
		my $ghosts = insert(undef, $session, 1, %o);
		my $die = rand 100;
		my $gid = "'session_${session}_$i'";

		if ($die < 40) { push @sql, 'BEGIN;', $rows, 'COMMIT;'; }
		elsif ($die < 55) { push @sql, 'BEGIN;', $ghosts, 'ROLLBACK;', 'BEGIN;', $rows, 'COMMIT;'; }
		elsif ($die < 80) { push @sql, 'BEGIN;', 'SAVEPOINT a;', $ghosts, 'ROLLBACK TO a;', $rows, 'SAVEPOINT b;', $ghosts, 'ROLLBACK TO b;', 'COMMIT;'; }
		elsif ($die < 90) { push @sql, 'BEGIN;', $rows, "PREPARE TRANSACTION $gid;", "COMMIT PREPARED $gid;"; }
		else
		{
			push @sql, 'BEGIN;', $ghosts, "PREPARE TRANSACTION $gid;", 'BEGIN;', $rows, 'COMMIT;', "ROLLBACK PREPARED $gid;";
		}
		push @sql, 'BEGIN;', corrections($session, 1, \%ids, unscored => 1), 'COMMIT;' if !$o{ordered} && _chance(0.6);
	}
	return join "\n", @sql, '';
}

# run_sessions(node, scripts): each in a session of its own, all at the same time; what they complain of
sub run_sessions
{
	my ($node, @scripts) = @_;
	my $output = '';
	my @runs = map {
		my $script = $_;
		IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') ],
			'<', \$script, '>', \$output, '2>', \$output)
	} @scripts;

	$_->finish foreach @runs;
	return $output;
}

# ask_and_insert(node, n, claim): n times, a row of each scenario: what would become of it, and what becomes
sub ask_and_insert
{
	my ($node, $n, $claim) = @_;

	foreach my $i (1 .. $n)
	{
		my $feed = '';
		my $ask = '';
		foreach my $s (@scenarios)
		{
			my $t = $s->{name};
			my $id = _new_id($s, 0);
			my $time = _time($s, 0);
			$feed .= "INSERT INTO ${t}_feed (" . _columns($s) . ") VALUES ($id, $time, " . join(', ', $s->{row}->(0)) . ");\n";
			$ask .= "INSERT INTO asked SELECT '$t', f.id, a.score, a.decision, a.features\nFROM ${t}_feed f, risk_alert.risk_assess('$t', to_jsonb(f)) a WHERE id = $id;\n"
			  . "INSERT INTO $t SELECT * FROM ${t}_feed WHERE id = $id;\n";
		}
		$node->safe_psql('postgres', "$feed $ask");
		expect($node);
		drain($node);
	}
	is($node->safe_psql('postgres', q{
SELECT a.*, x.* FROM asked a JOIN expected x USING (stream, id)
WHERE NOT x.skip AND ((a.score, a.decision) IS DISTINCT FROM (x.score, x.decision) OR NOT alike(a.features, x.features))}),
		'', "$claim: risk_assess() before");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM asked JOIN expected USING (stream, id)'), $n * @scenarios,
		"$claim: all were asked for");
	is($node->safe_psql('postgres', _wrong_alerts('(stream, id) IN (SELECT stream, id FROM asked)')),
		'', "$claim: alerts after");
	return;
}

# Statements that insert the hand-made rows, at and beside each limit
sub edges
{
	my $sql = '';

	foreach my $s (@scenarios)
	{
		my $id = 0;
		foreach my $edge (@{ $s->{edges} })
		{
			my ($at, $row, $fired) = @$edge;
			$id--;
			$sql .= "INSERT INTO $s->{name} (" . _columns($s) . ") VALUES ($id, '$at+00', $row);\n"
			  . "INSERT INTO edge VALUES ('$s->{name}', $id, '$fired');\n";
		}
	}
	return $sql;
}

# Is what plain SQL expects of the hand-made rows what their maker expected?
sub check_edges
{
	my ($node, $claim) = @_;
	is($node->safe_psql('postgres', q{
SELECT g.*, x.fired, x.score, x.features FROM edge g LEFT JOIN expected x USING (stream, id)
WHERE g.fired IS DISTINCT FROM x.fired || CASE WHEN x.stream = 's22' THEN ' ' || x.decision ELSE '' END}),
		'', $claim);
	return;
}

1;
