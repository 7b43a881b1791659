# The Makefile finds out whether the clients of ZooKeeper and Redis have TLS; a provider that has it
# hands over what the configuration says, and never falls back to plain text.
#
# The clients are stubs made here: what the headers declare is in the libraries, or is not.

use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RiskAlert;
use Test::More;
use Tls;

if (my $missing = Tls::missing())
{
	plan skip_all => $missing;
}

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my $tree = PostgreSQL::Test::Utils::tempdir;
my $stubs = PostgreSQL::Test::Utils::tempdir;
my $ca = Tls->new("$stubs/ca");
my $node = $ca->certificate('node');
my $other = $ca->certificate('other', undef, 'tr0ub4dor');
my @files = ($ca->{ca}, $node->{cert}, $node->{key});

delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS LIBRARY_PATH LD_LIBRARY_PATH)};

sub run
{
	my ($claim, $command) = @_;
	my $rc = system("$command >'$tree.log' 2>&1 </dev/null");
	is($rc, 0, $claim) or diag(slurp_file("$tree.log"));
	return slurp_file("$tree.log");
}

# What the provider's library says when it is to connect, and what arrives where it should:
# undef if nobody connected
sub try
{
	my ($provider, $host, @arguments) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 50) or die "no port: $!";
	my $out = `'$stubs/try' '$tree/risk_alert_$provider.so' '$host:@{[$listener->sockport]}' 1000 @{[map { "'$_'" } @arguments]} 2>&1`;
	note $out;
	my $got;
	while (IO::Select->new($listener)->can_read(0))
	{
		my $socket = $listener->accept;
		$got //= '';
		while ($socket->sysread(my $data, 4096)) { $got .= $data; }
	}
	return ($out, $got);
}

# of hiredis 1.x: shows what it is given, and fails; Debian 12 has neither library nor header
mkdir "$stubs/$_" for qw(include include/hiredis with without);
write_file("$stubs/include/hiredis/hiredis_ssl.h", <<'END');
#include <hiredis/hiredis.h>
struct ssl_st;
int redisInitiateSSL(redisContext *context, struct ssl_st *ssl);
END
write_file("$stubs/redis.c", <<'END');
#include <stdio.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static void
show(const char *what, X509 *certificate)
{
	char text[100] = "none";
	if (certificate)
		X509_NAME_oneline(X509_get_subject_name(certificate), text, sizeof(text));
	printf("%s=%s ", what, text);
}

int
redisInitiateSSL(redisContext *context, struct ssl_st *ssl)
{
	STACK_OF(X509_OBJECT) *trusted = X509_STORE_get0_objects(SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl)));
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	const char *name = X509_VERIFY_PARAM_get0_host(param, 0);
	char *address = X509_VERIFY_PARAM_get1_ip_asc(param);
	int i;

	printf("redisInitiateSSL: ");
	for (i = 0; i < sk_X509_OBJECT_num(trusted); i++)
		show("ca", X509_OBJECT_get0_X509(sk_X509_OBJECT_value(trusted, i)));
	show("certificate", SSL_get_certificate(ssl));
	printf("key=%s verify=%s name=%s sni=%s address=%s\n", SSL_check_private_key(ssl) ? "right" : "wrong",
		   SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER ? "yes" : "no", name ? name : "none",
		   SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) ? SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) : "none",
		   address ? address : "none");
	return REDIS_ERR;
}
END
# what is not here is in the real one
write_file("$stubs/zookeeper.c", <<'END');
#define HAVE_OPENSSL_H
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zookeeper/zookeeper.h>

zhandle_t *
zookeeper_init_ssl(const char *host, const char *cert, watcher_fn fn, int timeout, const clientid_t *id, void *context, int flags)
{
	printf("zookeeper_init_ssl: %s SSL_CERT_FILE=%s SSL_CERT_DIR=%s\n", cert, getenv("SSL_CERT_FILE"), getenv("SSL_CERT_DIR"));
	errno = ECONNREFUSED;
	return NULL;
}

zhandle_t *
zookeeper_init2(const char *host, watcher_fn fn, int timeout, const clientid_t *id, void *context, int flags, log_callback_fn log)
{
	printf("zookeeper_init2: plain text\n");
	errno = ECONNREFUSED;
	return NULL;
}
END
write_file("$stubs/none.c", "const char *zerror(int code) { return code ? \"error\" : \"ok\"; }\n");

my $shared = "gcc -shared -fPIC -DTHREADED -I'$stubs/include'";
my $real = '-Wl,--no-as-needed -lzookeeper_mt';
run('stubs', "$shared -o '$stubs/with/libhiredis_ssl.so' '$stubs/redis.c' -lssl -lcrypto &&"
	  . "$shared -o '$stubs/with/libzookeeper_mt.so' '$stubs/zookeeper.c' $real &&"
	  . "$shared -o '$stubs/without/libhiredis_ssl.so' '$stubs/none.c' &&"
	  . "$shared -o '$stubs/without/libzookeeper_mt.so' '$stubs/none.c' $real");
run('a program that loads providers', "gcc -Wall -Werror -Isrc -o '$stubs/try' test/tap/provider_try.c -ldl");
system("tar -cf - Makefile *.control sql src | tar -C '$tree' -xf -") == 0 or die 'could not copy the source tree';

sub build
{
	my ($libraries) = @_;
	local $ENV{CPATH} = "$stubs/include";
	unlink glob "$tree/src/provider/*.o $tree/risk_alert_*.so";
	return run("a build with libraries that are $libraries it",
		"make -C '$tree' PG_CONFIG='$pg_config' PG_LDFLAGS='-L$stubs/$libraries -Wl,-rpath,$stubs/$libraries'"
		  . ' risk_alert_redis.so risk_alert_zookeeper.so');
}

# Nor is a provider built whose client is not there at all
$_ = run('no headers', "make -n -C '$tree' PG_CONFIG='$pg_config' CC='gcc -nostdinc' all");
like($_, qr/risk_alert\.so/, '  all else is built');
unlike($_, qr/risk_alert_(?:redis|zookeeper)/, '  but no provider');

# Declared, but not in the libraries: Debian 12's ZooKeeper is like that
my $log = build('without');
unlike($log, qr/-DRA_\w+_TLS/, 'TLS is not found');
unlike($log, qr/-lssl|-lhiredis_ssl/, '  and nothing is linked for it');
for my $provider (qw(redis zookeeper))
{
	my ($out, $got) = try($provider, '127.0.0.1', @files);
	like($out, qr/\Ano TLS\nrefused: .*has no TLS$/m, "$provider: to ask for it is an error");
	is($got, undef, '  and there is no connection');
}
my ($out, $got) = try('redis', '127.0.0.1');
like($got, qr/SCRIPT/, 'redis: plain text, if that is wanted');
($out, $got) = try('zookeeper', '127.0.0.1');
like($got, qr/./s, 'zookeeper: plain text, if that is wanted');

$log = build('with');
like($log, qr/-DRA_$_\_TLS/, "TLS of $_ is found") for qw(REDIS ZOOKEEPER);
($out, $got) = try('redis', '127.0.0.1');
like($out, qr/\Ahas TLS$/m, 'redis has it');
unlike($out, qr/redisInitiateSSL/, '  and does not use it unasked');
like($got, qr/SCRIPT/, '  but plain text');
($out, $got) = try('redis', '127.0.0.1', @files);
like($out, qr{^redisInitiateSSL: ca=/CN=CA of test certificate=/CN=node key=right verify=yes name=none sni=none address=127\.0\.0\.1$}m,
	'redis: hiredis is given what was configured, and the address');
like($out, qr/^warning: no connection to Redis at \S+: the server does not accept the TLS connection/m, '  its error is told');
is($got, '', '  and not a byte is sent in plain text');
($out, $got) = try('redis', 'localhost', $ca->{ca}, $other->{cert}, $other->{key}, 'tr0ub4dor');
like($out, qr{^redisInitiateSSL: ca=\S+ of test certificate=/CN=other key=right verify=yes name=localhost sni=localhost address=none$}m,
	'redis: or the name; a key with a password');
($out, $got) = try('redis', 'localhost', $ca->{ca});
like($out, qr{^redisInitiateSSL: ca=\S+ of test certificate=none .* verify=yes name=localhost}m, 'redis: without a certificate of its own');

($out, $got) = try('zookeeper', '127.0.0.1');
like($out, qr/\Ahas TLS\nzookeeper_init2: plain text$/m, 'zookeeper has it, and does not use it unasked');
($out, $got) = try('zookeeper', '127.0.0.1', @files);
like($out, qr/^zookeeper_init_ssl: \Q@{[join ',', @files]}\E,none SSL_CERT_FILE=\Q$files[0]\E SSL_CERT_DIR=\/dev\/null$/m,
	'zookeeper: its library is given what was configured, and no other authority is trusted');
like($out, qr/^warning: could not reach ZooKeeper .*refused/m, '  its error is told');
unlike($out, qr/plain text/, '  and plain text is not tried');
is($got, undef, '  there is no connection');
($out, $got) = try('zookeeper', '127.0.0.1', $ca->{ca}, $other->{cert}, $other->{key}, 'tr0ub4dor');
like($out, qr/^zookeeper_init_ssl: \S+,tr0ub4dor SSL_CERT_FILE/m, 'zookeeper: a key with a password');
($out, $got) = try('zookeeper', '127.0.0.1', $ca->{ca});
like($out, qr/^refused: .*needs a certificate of the client/m, 'zookeeper: not without a certificate of its own');
($out, $got) = try('zookeeper', '127.0.0.1', $ca->{ca}, $other->{cert}, $other->{key}, 'a,b');
like($out, qr/^refused: .*takes no comma/m, 'zookeeper: what its library would take for something else');

# files of no use
for my $provider (qw(redis zookeeper))
{
	for my $case (
		[ 'an authority', qr/could not use the certificates in/, '/dev/null', @files[ 1, 2 ] ],
		[ 'a certificate', qr/could not use the certificate in/, $files[0], '/dev/null', $files[2] ],
		[ 'a key of another certificate', qr/could not use the key in .*mismatch/, @files[ 0, 1 ], $ca->certificate("third.$provider")->{key} ],
		[ 'an encrypted key without a password', qr/could not use the key in/, $files[0], @$other{qw(cert key)} ],
		[ 'a wrong password', qr/could not use the key in/, $files[0], @$other{qw(cert key)}, 'guess' ])
	{
		my ($what, $error, @arguments) = @$case;
		($out, $got) = try($provider, '127.0.0.1', @arguments);
		like($out, qr/^refused: $error/m, "$provider: $what of no use");
		is($got, undef, '  there is no connection');
	}
}
done_testing();
