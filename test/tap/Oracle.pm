# Oracle.pm
#	Compares what the engine computed with the exact answers that come with the
#	public data sets (data/README.md there says how they were made).
#
# All comparing happens in SQL.  A data set becomes a table "file" and its
# answers a table "oracle" with one text column per answer; what the engine
# found becomes a table (tx_id, features jsonb) whose keys are the answers' names.

package Oracle;

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use Exporter 'import';
use File::Spec;
use RiskAlert;
use Test::More;

our @EXPORT = qw(data_path load_file load_oracle create_features play live_features
  stored_features compare);

# data_path(name): where a public data file is, undef if it isn't there
sub data_path
{
	my ($name) = @_;
	my $path = File::Spec->catfile($ENV{RISK_ALERT_DATA} // '../shared/data', $name);
	return -r $path ? abs_path($path) : undef;
}

# A shell command, as an SQL literal, that prints the first lines of a .gz file
sub _unpack
{
	my ($name, $lines) = @_;
	my $command = "gzip -dc '" . data_path($name) . "'";
	$command .= " | head -n $lines" if defined $lines;
	$command =~ s/'/''/g;
	return "'$command'";
}

# load_file(node, name, columns, rows): make table "file" from the first rows of a
# CSV file, or from all
sub load_file
{
	my ($node, $name, $columns, $rows) = @_;
	my $program = _unpack($name, defined $rows ? $rows + 1 : undef);
	return $node->safe_psql('postgres', qq{
CREATE UNLOGGED TABLE file ($columns);
COPY file FROM PROGRAM $program (FORMAT csv, HEADER);
ALTER TABLE file ADD PRIMARY KEY (tx_id);
ANALYZE file;
SELECT count(*) FROM file;});
}

# load_oracle(node, name, rows): make table "oracle"; the CSV header gives its columns
sub load_oracle
{
	my ($node, $name, $rows) = @_;
	my $header = _unpack($name, 1);
	my $program = _unpack($name, defined $rows ? $rows + 1 : undef);
	return $node->safe_psql('postgres', qq{
CREATE TEMP TABLE header (line text);
COPY header FROM PROGRAM $header (DELIMITER E'\\x01');
SELECT format('CREATE UNLOGGED TABLE oracle (%s)',
	string_agg(format('%I %s', name, CASE name WHEN 'tx_id' THEN 'bigint PRIMARY KEY' ELSE 'text' END), ', '))
FROM header, string_to_table(line, ',') name \\gexec
COPY oracle FROM PROGRAM $program (FORMAT csv, HEADER);
ANALYZE oracle;
-- the first 12 significant digits
CREATE FUNCTION digits12(v numeric) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
\$\$ SELECT CASE WHEN v = 0 THEN v ELSE round(v, 11 - floor(log(abs(v)))::int) END \$\$;
-- An answer and what was found for it.  Means and deviations were written as
-- the double nearest to the exact value, so equal doubles are equal too, where
-- the two decimals fall on different sides of a rounding boundary.
CREATE FUNCTION agrees(name text, answer text, found text) RETURNS bool LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
\$\$ SELECT CASE
	WHEN answer IS NULL OR found IS NULL THEN answer IS NOT DISTINCT FROM found
	WHEN name ~ '^(avg|std)_' THEN answer::float8 = found::float8
		OR digits12(answer::numeric) = digits12(found::numeric)
	ELSE answer::numeric = found::numeric END \$\$;
SELECT count(*) FROM oracle;});
}

# create_features(node, stream, entity, distinct column, windows): the features
# that the three data sets have in common, named as in the files, and
# "previous", from which compare() gets secs_since_prev
sub create_features
{
	my ($node, $stream, $entity, $distinct, %windows) = @_;
	my %aggregates = (
		cnt => 'count(*)',
		sum => 'sum(amount)',
		avg => 'avg(amount)',
		std => 'stddev(amount)',
		min => 'min(amount)',
		max => 'max(amount)',
		distinct => "count(DISTINCT $distinct)");
	my @sql = ("SELECT risk_alert.create_feature('$stream', 'previous', '$entity', 'lag(ts)', '10 years');");

	foreach my $w (sort keys %windows)
	{
		push @sql, "SELECT risk_alert.create_feature('$stream', '${_}_$w', '$entity', '$aggregates{$_}', '$windows{$w}');"
		  foreach sort keys %aggregates;
	}
	$node->safe_psql('postgres', join("\n", 'BEGIN;', @sql, 'COMMIT;'));
	return;
}

# play(node, table, first, last, seed): insert rows of "file", in its order, in
# transactions of random size: mostly a handful, now and then hundreds
sub play
{
	my ($node, $table, $first, $last, $seed) = @_;
	$node->safe_psql('postgres', qq{
CREATE OR REPLACE PROCEDURE play(target regclass, first bigint, last bigint, seed float8) LANGUAGE plpgsql AS \$\$
DECLARE
	size bigint;
BEGIN
	PERFORM setseed(seed);
	WHILE first <= last LOOP
		size := 1 + floor(500 * random() ^ 4);
		EXECUTE format('INSERT INTO %s SELECT * FROM file WHERE tx_id BETWEEN \$1 AND least(\$1 + \$2 - 1, \$3) ORDER BY tx_id', target)
			USING first, size, last;
		COMMIT;
		first := first + size;
	END LOOP;
END
\$\$;
CALL play('$table', $first, $last, $seed);});
	return;
}

# live_features(node, into, stream): what the worker saw when it scored each
# event, taken from the alerts
sub live_features
{
	my ($node, $into, $stream) = @_;
	$node->safe_psql('postgres', qq{
CREATE UNLOGGED TABLE $into AS
SELECT event_key::bigint AS tx_id, features FROM risk_alert.alerts WHERE stream = '$stream';
ALTER TABLE $into ADD PRIMARY KEY (tx_id);
ANALYZE $into;});
	return;
}

# stored_features(node, into, table, condition): what risk_assess() says of stored rows p
sub stored_features
{
	my ($node, $into, $table, $condition) = @_;
	$node->safe_psql('postgres', qq{
CREATE UNLOGGED TABLE $into AS
SELECT p.tx_id, a.features FROM $table p, LATERAL risk_alert.risk_assess(p) a WHERE $condition;
ALTER TABLE $into ADD PRIMARY KEY (tx_id);
ANALYZE $into;});
	return;
}

# compare(node, found, which rows o of oracle, values per row, name): every answer is
# found, and found right
sub compare
{
	my ($node, $found, $condition, $values, $name) = @_;
	my $query = qq{
FROM oracle o JOIN file f USING (tx_id) LEFT JOIN $found a USING (tx_id)
CROSS JOIN LATERAL (SELECT a.features
	|| jsonb_build_object('secs_since_prev', extract(epoch FROM f.ts - (a.features->>'previous')::timestamptz)) AS features
	OFFSET 0) x	-- once per row
CROSS JOIN LATERAL jsonb_each_text(to_jsonb(o) - '{tx_id,later_tie}'::text[]) AS v(name, answer)
CROSS JOIN LATERAL (SELECT x.features->>v.name AS found) y
CROSS JOIN LATERAL (SELECT (x.features ? v.name AND x.features ? 'previous'
	AND agrees(v.name, answer, y.found)) IS TRUE AS same) z
WHERE $condition};
	my ($rows, $compared, $wrong) = split /\|/, $node->safe_psql('postgres',
		"SELECT count(DISTINCT o.tx_id), count(*), count(*) FILTER (WHERE NOT same) $query");

	is($wrong, 0, "$name: $compared values of $rows events")
	  or diag($node->safe_psql('postgres',
			"SELECT o.tx_id, v.name, answer, y.found $query AND NOT same ORDER BY 1, 2 LIMIT 20"));
	is($compared, $rows * $values, "$name: nothing left out");
	return $rows;
}

1;
