# Readme.pm
#	The README's code blocks, for the tests that run them.
#
#	foreach my $block (readme_blocks()) ...
#
# Each is a hash: kind (sql, text, ...), text, line, section (the last heading before it),
# follows (directly behind the block before), and not_run: what a comment "<!-- not run ... -->"
# before it says, if there is one.

package Readme;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Utils;

our @EXPORT = qw(readme_blocks);

sub readme_blocks
{
	my $readme = slurp_file('README.md');
	my @blocks;

	while ($readme =~ /^(?:<!-- (not run[^>]*?) *-->\n+)?```(\w*)\n(.*?)^```$/msg)
	{
		my ($not_run, $kind, $text) = ($1, $2, $3);
		my ($before, $until_text) = (substr($readme, 0, $-[0]), substr($readme, 0, $-[3]));
		my ($section) = $before =~ /.*^#+ ([^\n]*)$/ms;
		push @blocks, {
			kind => $kind,
			text => $text,
			line => 1 + ($until_text =~ tr/\n//),
			section => $section,
			follows => scalar($before =~ /```\n+\z/),
			not_run => $not_run,
		};
	}
	return @blocks;
}

1;
