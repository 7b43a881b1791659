# redis.sh
#	  What test/provider/run has to know about Redis.

sources='redis redis_session redis_walk redis_link redis_scripts'
libraries=-lhiredis

# Why it can't be tested here, or nothing
missing() {
	command -v redis-server >/dev/null || echo 'no redis-server'
	[ -e /usr/include/hiredis/hiredis.h ] || echo 'no hiredis'
}
