# redis.sh
#	  What test/provider/run has to know about Redis.  Tests start their own servers.

libraries=-lhiredis

missing() {
	command -v redis-server >/dev/null || echo 'no redis-server'
	echo '#include <hiredis/hiredis.h>' | gcc -E -o /dev/null - 2>/dev/null || echo 'no hiredis/hiredis.h'
}
