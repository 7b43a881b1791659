# zookeeper.sh
#	  What test/provider/run has to know about ZooKeeper.

sources='zookeeper zookeeper_handle zookeeper_queue zookeeper_members zookeeper_list zookeeper_decide
	zookeeper_names zookeeper_open ../../test/provider/harness'
libraries='-D_GNU_SOURCE -DTHREADED -I../../src/provider -lzookeeper_mt'

# Why it can't be tested here, or nothing; a server is started for the programs
missing() {
	command -v java >/dev/null || echo 'no java'
	[ -e /usr/share/java/zookeeper.jar ] || echo 'no zookeeper.jar'
	[ -e /usr/include/zookeeper/zookeeper.h ] || echo 'no libzookeeper-mt-dev'
}

start() {
	ZK_DIR=$(mktemp -d)
	ZK_SERVER=$PWD/zookeeper_server
	ZK_HOSTS=$("$ZK_SERVER" start "$ZK_DIR") || return 1
	export ZK_DIR ZK_SERVER ZK_HOSTS
	trap '"$ZK_SERVER" kill "$ZK_DIR"; rm -rf "$ZK_DIR"' EXIT
}
