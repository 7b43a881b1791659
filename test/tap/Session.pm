# Session.pm
#	Sessions of psql that tests talk to, with errors as part of the talk.
#
#	my $session = session($node, 'operator');
#	like(answer($session, $sql), qr/ERROR:  57014/);
#	begin($session, $sql); ...; outcome($session);

package Session;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT = qw(session answer begin outcome);

# A session that goes on after errors; of that user, if one is named
sub session
{
	my ($node, $user) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0,
		$user ? (extra_params => [ '-U', $user ]) : ());
	$session->query_safe('\set VERBOSITY verbose');
	return $session;
}

# What it has to say to a statement: its errors and notices, or else its output
sub answer
{
	my ($session, $sql) = @_;
	$session->{stderr} = '';
	my $out = $session->query($sql);
	return $session->{stderr} ne '' ? $session->{stderr} : $out;
}

# Begins a statement, whose outcome() comes later
sub begin
{
	my ($session, $sql) = @_;
	$session->{stderr} = '';
	$session->query_until(qr/begun/, "\\echo begun\n$sql;\n");
	return;
}

sub outcome
{
	my ($session) = @_;
	my $out = $session->query('');
	return $session->{stderr} ne '' ? $session->{stderr} : $out;
}

1;
