-- Advisory locks of the cluster, as one session sees them (provider local).
-- Between sessions: test/isolation; with a coordination service: test/tap.

SET client_min_messages = warning;

-- Tokens are numbers that grow
SELECT risk_alert.advisory_lock('a') AS a1 \gset
SELECT risk_alert.advisory_unlock('a');
SELECT risk_alert.advisory_lock('a') AS a2 \gset
SELECT :a2 > :a1 AS grows;

-- Re-entrant: the same token, as many unlocks as locks
SELECT risk_alert.advisory_lock('a') = :a2 AS same_token;
SELECT risk_alert.advisory_lock_shared('a') = :a2 AS shared_is_covered;
SELECT key, key_type, mode, granted, lost, token = :a2 AS token FROM risk_alert.advisory_locks;
SELECT risk_alert.advisory_unlock('a'), risk_alert.advisory_unlock_shared('a');
SELECT count(*) FROM risk_alert.advisory_locks;
SELECT risk_alert.advisory_unlock('a');
SELECT count(*) FROM risk_alert.advisory_locks;

-- Not held: a warning, as pg_advisory_unlock() gives
SELECT risk_alert.advisory_unlock('a');
SELECT risk_alert.advisory_lock_shared('a') > :a2 AS grows;
SELECT risk_alert.advisory_unlock('a');

-- From shared to exclusive would be a deadlock of two
SELECT risk_alert.advisory_lock('a');
SELECT risk_alert.try_advisory_lock('a');
SELECT risk_alert.advisory_unlock_shared('a');

-- From exclusive to shared, by unlocking the exclusive one
SELECT risk_alert.advisory_lock('a') IS NOT NULL AS granted, risk_alert.advisory_lock_shared('a') IS NOT NULL AS granted;
SELECT risk_alert.advisory_unlock('a');
SELECT key, mode FROM risk_alert.advisory_locks;
SELECT risk_alert.advisory_unlock_shared('a');

-- Numbers and texts are different locks, and PostgreSQL's own are others again
SELECT risk_alert.advisory_lock(7) IS NOT NULL AS number, risk_alert.advisory_lock('7') IS NOT NULL AS text;
SELECT pg_advisory_lock(7);
SELECT key, key_type, mode FROM risk_alert.advisory_locks ORDER BY 1, 2;
SELECT pg_advisory_unlock(7);
SELECT risk_alert.advisory_unlock_all();
SELECT count(*) FROM risk_alert.advisory_locks;

-- What releases PostgreSQL's own releases ours
SELECT risk_alert.advisory_lock('a') IS NOT NULL AS granted;
SELECT pg_advisory_unlock_all();
SELECT count(*) FROM risk_alert.advisory_locks;
SELECT risk_alert.advisory_unlock('a');
SELECT risk_alert.advisory_lock('a') IS NOT NULL AS granted;
DISCARD ALL;
SET client_min_messages = warning;
SELECT count(*) FROM risk_alert.advisory_locks;

-- Session level survives a rollback, transaction level does not, nor its savepoint
BEGIN;
SELECT risk_alert.advisory_lock('session') IS NOT NULL AS granted;
SELECT risk_alert.advisory_xact_lock('xact') IS NOT NULL AS granted;
SAVEPOINT s;
SELECT risk_alert.advisory_xact_lock('sub') IS NOT NULL AS granted, risk_alert.advisory_xact_lock('xact') IS NOT NULL AS again;
SELECT key FROM risk_alert.advisory_locks ORDER BY 1;
ROLLBACK TO s;
SELECT key FROM risk_alert.advisory_locks ORDER BY 1;
SELECT risk_alert.advisory_xact_lock_shared('sub') IS NOT NULL AS granted;
RELEASE s;
SELECT key, mode FROM risk_alert.advisory_locks ORDER BY 1;
SELECT risk_alert.advisory_unlock('xact');
ROLLBACK;
SELECT key FROM risk_alert.advisory_locks ORDER BY 1;
SELECT risk_alert.advisory_unlock('session');

-- Both levels of one lock: it is ours until both are gone
BEGIN;
SELECT risk_alert.advisory_xact_lock('both') = risk_alert.advisory_lock('both') AS same_token;
COMMIT;
SELECT key FROM risk_alert.advisory_locks;
BEGIN;
SELECT risk_alert.advisory_xact_lock('both') IS NOT NULL AS granted;
SELECT risk_alert.advisory_unlock('both');
SELECT key FROM risk_alert.advisory_locks;
COMMIT;
SELECT count(*) FROM risk_alert.advisory_locks;

-- An error ends the transaction's, not the session's
SELECT risk_alert.advisory_lock('kept') IS NOT NULL AS granted;
DO $$
BEGIN
    PERFORM risk_alert.advisory_xact_lock('outer');
    BEGIN
        PERFORM risk_alert.advisory_xact_lock('inner');
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
        RAISE WARNING '%', (SELECT array_agg(key ORDER BY key) FROM risk_alert.advisory_locks);
    END;
    RAISE EXCEPTION 'over';
END
$$;
SELECT key FROM risk_alert.advisory_locks;
SELECT risk_alert.advisory_unlock_all();

-- A transaction can't take such a lock along when it is prepared
BEGIN;
SELECT risk_alert.advisory_xact_lock('a') IS NOT NULL AS granted;
PREPARE TRANSACTION 'locks';
SELECT count(*) FROM risk_alert.advisory_locks;

-- Bad input
SELECT risk_alert.advisory_lock(NULL::text);
SELECT risk_alert.advisory_lock(NULL::bigint);
SELECT risk_alert.advisory_lock(repeat('x', 256));
SELECT risk_alert.advisory_lock('a', timeout => '-1 second');
SELECT risk_alert.advisory_lock(repeat('x', 255), timeout => '0') IS NOT NULL AS granted;
SELECT risk_alert.advisory_lock('') IS NOT NULL AS empty_key, risk_alert.advisory_lock(-9223372036854775808) IS NOT NULL AS granted;
SELECT length(key), key_type FROM risk_alert.advisory_locks ORDER BY 1;
SELECT risk_alert.advisory_unlock_all();

-- Sessions of a pool leave no entries behind
SELECT count(risk_alert.advisory_lock(i)) FROM generate_series(1, 50) i;
DISCARD ALL;
SET client_min_messages = warning;
SELECT count(*) FROM risk_alert._lock_entries();

-- Fences: a token as high as any seen is good, a lower one is not
SELECT risk_alert.advisory_lock('account:42') AS old \gset
SELECT risk_alert.check_fence('account:42', :old);
SELECT risk_alert.check_fence('account:42', :old);
SELECT risk_alert.advisory_unlock('account:42');
SELECT risk_alert.advisory_lock('account:42') AS new \gset
-- granted to somebody else, though not yet seen here
SELECT risk_alert.check_fence('account:42', :old) \g /dev/null
SELECT risk_alert.check_fence('account:42', :new);
SELECT risk_alert.advisory_unlock('account:42');
-- seen here
\set VERBOSITY terse
SELECT risk_alert.check_fence('account:42', 7);
SELECT risk_alert.check_fence('account:42', 7, shared => true);
\set VERBOSITY default
SELECT risk_alert.check_fence('account:42', :new, shared => true);
SELECT risk_alert.check_fence(42, 7);
SELECT key, key_type, token FROM risk_alert.fence WHERE key = '42';
SELECT risk_alert.check_fence('account:42', NULL);
-- undone with the transaction
BEGIN;
SELECT risk_alert.check_fence(42, 8);
ROLLBACK;
SELECT token FROM risk_alert.fence WHERE key = '42';
DELETE FROM risk_alert.fence;

-- Rights
CREATE ROLE regress_locker;
SET ROLE regress_locker;
SELECT risk_alert.advisory_lock('a');
RESET ROLE;
GRANT risk_alert_locker TO regress_locker;
SET ROLE regress_locker;
SELECT risk_alert.advisory_lock('a') IS NOT NULL AS granted;
SELECT risk_alert.check_fence('a', 1e40);
SELECT key FROM risk_alert.advisory_locks;
SELECT * FROM risk_alert.fence;
RESET ROLE;
SELECT risk_alert.advisory_unlock_all();
DELETE FROM risk_alert.fence;
REVOKE risk_alert_locker FROM regress_locker;
DROP ROLE regress_locker;

SELECT provider, state, pid, last_error FROM risk_alert.stat_coordination;
