/*
 * CuratorLocks.java
 *	  Apache Curator's lock, InterProcessMutex, as a peer of the advisory locks.
 *
 * One JVM for all rounds, so that it stays warm.  Takes commands from stdin, answers
 * each with a line:
 *
 *	pairs HOSTS SECONDS CLIENTS THREADS own|one		pairs per second, p50 and p99 in ms
 *	drain HOSTS CLIENTS THREADS						seconds
 *	close											leaves ZooKeeper
 *
 * A client is a connection with THREADS threads, as a node with its sessions.  Clients are
 * dealt to the servers of HOSTS in turn.
 */
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryOneTime;

public class CuratorLocks
{
	/* As in pairs.h: counters that nothing protects but the lock */
	static volatile long count;
	static volatile int owner;

	static final List<CuratorFramework> clients = new ArrayList<>();

	static String connected = "";

	static void connect(String hosts, int n) throws Exception
	{
		String[] servers = hosts.split(",");

		if (!hosts.equals(connected))
			close();
		connected = hosts;
		while (clients.size() < n)
		{
			CuratorFramework client = CuratorFrameworkFactory.builder().connectString(servers[clients.size() % servers.length])
				.sessionTimeoutMs(10000).connectionTimeoutMs(10000).retryPolicy(new RetryOneTime(100)).build();
			client.start();
			if (!client.blockUntilConnected(10, java.util.concurrent.TimeUnit.SECONDS))
				throw new Exception("no connection to " + hosts);
			clients.add(client);
		}
	}

	static void close()
	{
		for (CuratorFramework client : clients)
			client.close();
		clients.clear();
	}

	static void broken()
	{
		System.err.println("EXCLUSION IS BROKEN: two had Curator's lock at a time");
		System.exit(3);
	}

	static void critical(int me)
	{
		if (owner != 0)
			broken();
		owner = me;
		count = count + 1;
		if (owner != me)
			broken();
		owner = 0;
	}

	interface Body
	{
		void run(int me) throws Exception;
	}

	static Thread thread(int me, Body body)
	{
		Thread t = new Thread(null, () ->
			{
				try
				{
					body.run(me);
				}
				catch (Exception e)
				{
					e.printStackTrace();
					System.exit(1);
				}
			}, "locker", 256 * 1024);
		t.start();
		return t;
	}

	static String pairs(double seconds, int nclients, int nthreads, boolean own) throws Exception
	{
		int n = nclients * nthreads;
		double[][] ms = new double[n][];
		CyclicBarrier barrier = new CyclicBarrier(n);
		List<Thread> threads = new ArrayList<>();

		count = 0;
		for (int i = 0; i < n; i++)
		{
			threads.add(thread(i + 1, me ->
				{
					String path = own ? "/curator/lock" + me : "/curator/lock";
					InterProcessMutex mutex = new InterProcessMutex(clients.get((me - 1) % nclients), path);
					double[] mine = new double[1 << 16];
					int done = 0;

					mutex.acquire();
					mutex.release();
					barrier.await();
					long end = System.nanoTime() + (long) (seconds * 1e9);
					long now = System.nanoTime();
					while (now < end)
					{
						mutex.acquire();
						if (!own)
							critical(me);
						mutex.release();
						long then = System.nanoTime();
						mine[done++] = (then - now) / 1e6;
						now = then;
					}
					ms[me - 1] = Arrays.copyOf(mine, done);
				}));
		}
		for (Thread t : threads)
			t.join();
		int total = 0;
		for (double[] mine : ms)
			total += mine.length;
		if (!own && count != total)
			broken();
		double[] all = new double[total];
		int at = 0;
		for (double[] mine : ms)
		{
			System.arraycopy(mine, 0, all, at, mine.length);
			at += mine.length;
		}
		Arrays.sort(all);
		return String.format("%.1f %.3f %.3f", total / seconds, all[total / 2], all[(int) (total * 0.99)]);
	}

	static String drain(int nclients, int nthreads) throws Exception
	{
		int n = nclients * nthreads;
		CountDownLatch done = new CountDownLatch(n);
		InterProcessMutex mutex = new InterProcessMutex(clients.get(0), "/curator/drain");

		count = 0;
		mutex.acquire();
		for (int i = 0; i < n; i++)
		{
			thread(i + 1, me ->
				{
					InterProcessMutex mine = new InterProcessMutex(clients.get((me - 1) % nclients), "/curator/drain");

					mine.acquire();
					critical(me);
					mine.release();
					done.countDown();
				});
		}
		while (mutex.getParticipantNodes().size() < n + 1)
			Thread.sleep(50);
		Thread.sleep(500);
		long since = System.nanoTime();
		mutex.release();
		done.await();
		if (count != n)
			broken();
		return String.format("%.3f", (System.nanoTime() - since) / 1e9);
	}

	public static void main(String[] args) throws Exception
	{
		BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
		String line;

		while ((line = in.readLine()) != null)
		{
			String[] word = line.split(" ");

			if (word[0].equals("close"))
			{
				close();
				System.out.println("closed");
			}
			else if (word[0].equals("pairs"))
			{
				connect(word[1], Integer.parseInt(word[3]));
				System.out.println(pairs(Double.parseDouble(word[2]), Integer.parseInt(word[3]),
										 Integer.parseInt(word[4]), word[5].equals("own")));
			}
			else
			{
				connect(word[1], Integer.parseInt(word[2]));
				System.out.println(drain(Integer.parseInt(word[2]), Integer.parseInt(word[3])));
			}
		}
		System.exit(0);
	}
}
