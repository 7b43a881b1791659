"""kazoo_lock.py: kazoo's Lock, as a peer of the advisory locks.

Takes commands from stdin and answers each with a line:

    pairs HOSTS SECONDS CLIENTS     all on one lock: pairs per second, p50 and p99 in ms

Each client is a process of its own: in one process they would wait for Python's
lock rather than for ZooKeeper's.  What the lock protects is shared memory, as in pairs.h.
"""

import ctypes
import multiprocessing
import sys
import time

from kazoo.client import KazooClient


def client(me, hosts, seconds, barrier, shared, results):
    """shared: counter, and whoever has the lock"""
    zk = KazooClient(hosts=hosts, timeout=10.0)
    zk.start()
    lock = zk.Lock("/kazoo/lock", str(me))
    with lock:
        pass
    barrier.wait()
    times = []
    broken = False
    end = time.monotonic() + seconds
    while (since := time.monotonic()) < end:
        lock.acquire()
        broken |= shared[1] != 0
        shared[1] = me
        shared[0] = shared[0] + 1
        broken |= shared[1] != me
        shared[1] = 0
        lock.release()
        times.append((time.monotonic() - since) * 1000)
    results.put((broken, times))
    zk.stop()
    zk.close()


def pairs(hosts, seconds, n):
    servers = hosts.split(",")
    barrier = multiprocessing.Barrier(n)
    shared = multiprocessing.Array(ctypes.c_long, 2, lock=False)
    results = multiprocessing.SimpleQueue()
    processes = [
        multiprocessing.Process(target=client, args=(i + 1, servers[i % len(servers)], seconds, barrier, shared, results))
        for i in range(n)
    ]
    for process in processes:
        process.start()
    times = []
    broken = False
    for _ in processes:
        its_broken, its_times = results.get()
        broken |= its_broken
        times += its_times
    for process in processes:
        process.join()
    if broken or shared[0] != len(times):
        sys.exit("EXCLUSION IS BROKEN: two had kazoo's lock at a time")
    times.sort()
    return "%.1f %.3f %.3f" % (len(times) / seconds, times[len(times) // 2], times[int(len(times) * 0.99)])


if __name__ == "__main__":
    for line in sys.stdin:
        _, hosts, seconds, n = line.split()
        print(pairs(hosts, float(seconds), int(n)), flush=True)
