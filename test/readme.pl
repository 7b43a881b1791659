# The README's commands and examples do what it says.
#
# Its sql blocks are run in their order, in one database, in one session; what
# they commit is processed before the next one starts.  A text block behind
# one holds the output of its last statement, which must be just that (widths of columns
# aside).  Its sh blocks may hold make (the target must exist), psql (is run), and a
# few commands that are only looked at.  "<!-- not run -->" before a block
# exempts it; those for several nodes are run by tap/250_readme_cluster.pl.  Of the others,
# a statement that fails ("=> ...") fails with what stands behind it, and a
# notification is one of those that came.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Readme;
use RiskAlert;
use Test::More;

my @blocks = readme_blocks();

cmp_ok(scalar(grep { $_->{kind} eq 'sql' } @blocks), '>', 0, 'the README has examples in SQL');
cmp_ok(scalar(grep { $_->{kind} eq 'sh' } @blocks), '>', 0, 'the README has commands');

# Output with single blanks, without rulers, row counts and empty lines
sub normal
{
	my ($text) = @_;
	my @lines;
	foreach my $line (split /\n/, $text)
	{
		next if $line =~ /^[-+\s]*$/ || $line =~ /^\(\d+ rows?\)$/;
		$line =~ s/\s+/ /g;
		$line =~ s/^ | $//g;
		push @lines, $line;
	}
	return join("\n", @lines);
}

my $node = new_node('readme', extension => 0, start => 0, conf => "risk_alert.node_name = 'node_a'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');

# One psql for all blocks: each is a file of its own, between marks
my $script = "\\set ON_ERROR_STOP off\n\\pset null ''\n";
my $i = 0;
foreach my $block (grep { ($_->{not_run} // '') eq 'not run: it fails' } @blocks)
{
	@$block{ 'statement', 'fails_with' } = $block->{text} =~ /^=> (.*?;)\n(.*)/s or die "README line $block->{line}: no statement";
}
my @sql = grep { $_->{fails_with} || ($_->{kind} eq 'sql' && !$_->{not_run}) } @blocks;
my $listener = $node->background_psql('app');
$listener->query_safe('LISTEN risk_alert');

foreach my $block (@sql)
{
	$script .= "\\warn BLOCK $i\n\\echo BLOCK $i\n" . ($block->{statement} // $block->{text}) . "\n";
	$script .= "\\warn BLOCK -\n\\echo BLOCK -\n\\o /dev/null\nSELECT to_regproc('risk_alert.drain') IS NOT NULL AS installed \\gset\n\\if :installed\nSELECT risk_alert.drain();\n\\endif\n\\o\n";
	$i++;
}
my ($out, $err) = ('', '');
IPC::Run::run([ 'psql', '-Xq', '-d', $node->connstr('app'), '-f', '-' ], '<', \$script, '>', \$out, '2>', \$err);

# what came between a block's marks
sub of_block
{
	my ($text, $number) = @_;
	return $text =~ /^BLOCK $number\n(.*?)^BLOCK -$/ms ? $1 : '';
}

$i = 0;
foreach my $block (@sql)
{
	if ($block->{fails_with})
	{
		(my $error = of_block($err, $i++)) =~ s/^psql:\S+ //mg;
		$error =~ s/^(?:QUERY|CONTEXT):.*//ms;
		is($error, $block->{fails_with}, "README line $block->{line}: fails with this error");
		next;
	}
	my $errors = join("\n", grep { /(?:ERROR|FATAL|WARNING):|^psql/ } split /\n/, of_block($err, $i));
	is($errors, '', "README line $block->{line}: runs without errors");
	$block->{output} = of_block($out, $i);
	$i++;
}
for (my $n = 1; $n < @blocks; $n++)
{
	my ($shown, $before) = ($blocks[$n], $blocks[ $n - 1 ]);
	next unless $shown->{kind} =~ /^(?:text)?$/ && !$shown->{not_run} && $shown->{follows} && defined $before->{output};
	# the last result that the block printed
	my $is = normal($before->{output});
	my $should = normal($shown->{text});
	$is = substr($is, -length($should)) if length($is) > length($should);
	is($is, $should, "README line $shown->{line}: shows what comes out");
}

my $notifications = $listener->query_safe('SELECT');
$listener->quit;
foreach my $block (grep { ($_->{not_run} // '') =~ /notifications/ } @blocks)
{
	chomp(my $payload = $block->{text});
	ok(index($notifications, qq("risk_alert" with payload "$payload")) >= 0, "README line $block->{line}: this notification has come") or diag($notifications);
}

foreach my $block (grep { $_->{kind} eq 'sh' && !$_->{not_run} } @blocks)
{
	foreach my $line (split /\n/, $block->{text})
	{
		$line =~ s/\s+#.*//;
		next if $line =~ /^\s*(?:#|$)/;
		my $where = "README line $block->{line}: \"$line\"";

		if ($line =~ /^(?:sudo )?make\b([^&|;<>]*)$/)
		{
			my @arguments = split ' ', $1;
			is(system("make -n @arguments >/dev/null 2>&1"), 0, "$where is a target");
		}
		elsif ($line =~ /^psql\b/)
		{
			local %ENV = (%ENV, $node->_get_env(), PGDATABASE => 'app');
			is(system("$line >/dev/null"), 0, "$where works");
		}
		else
		{
			like($line, qr/^(?:sudo )?(?:git clone|cd|apt-get|systemctl|service|echo|pg_ctlcluster|pg_ctl)\b/, "$where is of a known kind");
		}
	}
}

$node->stop;
done_testing();
