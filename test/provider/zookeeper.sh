# zookeeper.sh
#	  What test/provider/run has to know about ZooKeeper.

kinds='address thread'			# its client library has threads
harness=harness.c
libraries='-DTHREADED -lzookeeper_mt'

missing() {
	echo '#include <zookeeper/zookeeper.h>' | gcc -E -o /dev/null - 2>/dev/null || echo 'no zookeeper/zookeeper.h'
	perl -I ../tap -MZooKeeper -e 'print ZooKeeper::missing() // ""'
}

# A server for all tests; an ensemble is made by those that need one
start_servers() {
	export ZK_SERVER=$PWD/zookeeper_server ZK_DIR=$out/zookeeper ZK_HOSTS
	end_servers='"$ZK_SERVER" stop "$ZK_DIR"; [ ! -d "$ZK_DIR/ensemble" ] || "$ZK_SERVER" stop "$ZK_DIR/ensemble"'
	ZK_HOSTS=$("$ZK_SERVER" start "$ZK_DIR")
}
