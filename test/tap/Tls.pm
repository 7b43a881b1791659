# Tls.pm
#	A certification authority of a test's own, with openssl.
#
#	my $ca = Tls->new($dir);					# $dir/ca.crt
#	my $server = $ca->certificate('server', 'subjectAltName=IP:127.0.0.1,DNS:localhost');
#	$server->{cert}, $server->{key}, $server->{pem}			# files; pem: both in one
#	$ca->certificate('node', undef, 'secret')				# with an encrypted key

package Tls;

use strict;
use warnings FATAL => 'all';

use Carp;
use File::Path qw(make_path);

sub missing
{
	return undef if grep { -x "$_/openssl" } split /:/, $ENV{PATH};
	return 'no openssl';
}

sub openssl
{
	my ($dir, @arguments) = @_;
	system("openssl @arguments >>'$dir/openssl.log' 2>&1 </dev/null") == 0 or croak "openssl failed, see $dir/openssl.log";
	return;
}

sub slurp { my ($file) = @_; open my $fh, '<', $file or croak "$file: $!"; local $/; return <$fh>; }

sub new
{
	my ($class, $dir, $name) = @_;
	$name //= 'test';
	make_path($dir);
	openssl($dir, "req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/CN=CA of $name'",
		"-keyout '$dir/ca.key' -out '$dir/ca.crt'");
	return bless { dir => $dir, ca => "$dir/ca.crt" }, $class;
}

# names: as an extension; password: of the key
sub certificate
{
	my ($self, $name, $names, $password) = @_;
	my $base = "$self->{dir}/$name";
	my $encrypt = defined $password ? "-passout 'pass:$password'" : '-nodes';
	openssl($self->{dir}, "req -new -newkey rsa:2048 $encrypt -subj '/CN=$name' -keyout '$base.key' -out '$base.csr'",
		(defined $names ? "-addext '$names'" : ()));
	openssl($self->{dir}, "x509 -req -in '$base.csr' -CA '$self->{ca}' -CAkey '$self->{dir}/ca.key' -CAcreateserial",
		"-days 30 -copy_extensions copy -out '$base.crt'");
	open my $pem, '>', "$base.pem" or croak "$base.pem: $!";
	print $pem slurp("$base.key"), slurp("$base.crt");
	close $pem;
	chmod 0600, "$base.key", "$base.pem";
	return { cert => "$base.crt", key => "$base.key", pem => "$base.pem" };
}

1;
