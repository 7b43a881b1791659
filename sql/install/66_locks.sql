-- Advisory locks of the cluster.

-- The highest token seen per key: what makes a guarded write safe.
CREATE TABLE risk_alert.fence (
    key_type text NOT NULL CHECK (key_type IN ('text', 'bigint')),
    key      text NOT NULL,
    token    numeric NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT fence_pkey PRIMARY KEY (key, key_type)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE risk_alert.fence IS 'highest fencing token seen per key, written by check_fence()';
COMMENT ON COLUMN risk_alert.fence.key_type IS 'type of the key: the text ''7'' and the number 7 are different locks';
COMMENT ON COLUMN risk_alert.fence.key IS 'key of the advisory lock';
COMMENT ON COLUMN risk_alert.fence.token IS 'a lower token is refused';
COMMENT ON COLUMN risk_alert.fence.seen_at IS 'when this token was first seen';
REVOKE ALL ON risk_alert.fence FROM PUBLIC;
-- tokens must not go back with a dump and restore
SELECT pg_catalog.pg_extension_config_dump('risk_alert.fence', '');

CREATE FUNCTION risk_alert.advisory_lock(key text, timeout interval DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_lock_text';
COMMENT ON FUNCTION risk_alert.advisory_lock(text, interval) IS
    'takes the cluster''s advisory lock in exclusive mode until the session ends or advisory_unlock() is called, and returns its fencing token; waits at most for the timeout';
REVOKE ALL ON FUNCTION risk_alert.advisory_lock(text, interval) FROM PUBLIC;

CREATE FUNCTION risk_alert.try_advisory_lock(key text) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_try_advisory_lock_text';
COMMENT ON FUNCTION risk_alert.try_advisory_lock(text) IS
    'as advisory_lock(), but returns NULL instead of waiting if another session has the lock';
REVOKE ALL ON FUNCTION risk_alert.try_advisory_lock(text) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_lock(key bigint, timeout interval DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_lock_number';
COMMENT ON FUNCTION risk_alert.advisory_lock(bigint, interval) IS
    'takes the cluster''s advisory lock in exclusive mode until the session ends or advisory_unlock() is called, and returns its fencing token; waits at most for the timeout';
REVOKE ALL ON FUNCTION risk_alert.advisory_lock(bigint, interval) FROM PUBLIC;

CREATE FUNCTION risk_alert.try_advisory_lock(key bigint) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_try_advisory_lock_number';
COMMENT ON FUNCTION risk_alert.try_advisory_lock(bigint) IS
    'as advisory_lock(), but returns NULL instead of waiting if another session has the lock';
REVOKE ALL ON FUNCTION risk_alert.try_advisory_lock(bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_lock_shared(key text, timeout interval DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_lock_shared_text';
COMMENT ON FUNCTION risk_alert.advisory_lock_shared(text, interval) IS
    'takes the cluster''s advisory lock in shared mode until the session ends or advisory_unlock_shared() is called, and returns its fencing token; waits at most for the timeout';
REVOKE ALL ON FUNCTION risk_alert.advisory_lock_shared(text, interval) FROM PUBLIC;

CREATE FUNCTION risk_alert.try_advisory_lock_shared(key text) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_try_advisory_lock_shared_text';
COMMENT ON FUNCTION risk_alert.try_advisory_lock_shared(text) IS
    'as advisory_lock_shared(), but returns NULL instead of waiting if another session has the lock';
REVOKE ALL ON FUNCTION risk_alert.try_advisory_lock_shared(text) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_lock_shared(key bigint, timeout interval DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_lock_shared_number';
COMMENT ON FUNCTION risk_alert.advisory_lock_shared(bigint, interval) IS
    'takes the cluster''s advisory lock in shared mode until the session ends or advisory_unlock_shared() is called, and returns its fencing token; waits at most for the timeout';
REVOKE ALL ON FUNCTION risk_alert.advisory_lock_shared(bigint, interval) FROM PUBLIC;

CREATE FUNCTION risk_alert.try_advisory_lock_shared(key bigint) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_try_advisory_lock_shared_number';
COMMENT ON FUNCTION risk_alert.try_advisory_lock_shared(bigint) IS
    'as advisory_lock_shared(), but returns NULL instead of waiting if another session has the lock';
REVOKE ALL ON FUNCTION risk_alert.try_advisory_lock_shared(bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_xact_lock(key text, timeout interval DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_xact_lock_text';
COMMENT ON FUNCTION risk_alert.advisory_xact_lock(text, interval) IS
    'takes the cluster''s advisory lock in exclusive mode until the transaction ends, and returns its fencing token; waits at most for the timeout';
REVOKE ALL ON FUNCTION risk_alert.advisory_xact_lock(text, interval) FROM PUBLIC;

CREATE FUNCTION risk_alert.try_advisory_xact_lock(key text) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_try_advisory_xact_lock_text';
COMMENT ON FUNCTION risk_alert.try_advisory_xact_lock(text) IS
    'as advisory_xact_lock(), but returns NULL instead of waiting if another session has the lock';
REVOKE ALL ON FUNCTION risk_alert.try_advisory_xact_lock(text) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_xact_lock(key bigint, timeout interval DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_xact_lock_number';
COMMENT ON FUNCTION risk_alert.advisory_xact_lock(bigint, interval) IS
    'takes the cluster''s advisory lock in exclusive mode until the transaction ends, and returns its fencing token; waits at most for the timeout';
REVOKE ALL ON FUNCTION risk_alert.advisory_xact_lock(bigint, interval) FROM PUBLIC;

CREATE FUNCTION risk_alert.try_advisory_xact_lock(key bigint) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_try_advisory_xact_lock_number';
COMMENT ON FUNCTION risk_alert.try_advisory_xact_lock(bigint) IS
    'as advisory_xact_lock(), but returns NULL instead of waiting if another session has the lock';
REVOKE ALL ON FUNCTION risk_alert.try_advisory_xact_lock(bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_xact_lock_shared(key text, timeout interval DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_xact_lock_shared_text';
COMMENT ON FUNCTION risk_alert.advisory_xact_lock_shared(text, interval) IS
    'takes the cluster''s advisory lock in shared mode until the transaction ends, and returns its fencing token; waits at most for the timeout';
REVOKE ALL ON FUNCTION risk_alert.advisory_xact_lock_shared(text, interval) FROM PUBLIC;

CREATE FUNCTION risk_alert.try_advisory_xact_lock_shared(key text) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_try_advisory_xact_lock_shared_text';
COMMENT ON FUNCTION risk_alert.try_advisory_xact_lock_shared(text) IS
    'as advisory_xact_lock_shared(), but returns NULL instead of waiting if another session has the lock';
REVOKE ALL ON FUNCTION risk_alert.try_advisory_xact_lock_shared(text) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_xact_lock_shared(key bigint, timeout interval DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_xact_lock_shared_number';
COMMENT ON FUNCTION risk_alert.advisory_xact_lock_shared(bigint, interval) IS
    'takes the cluster''s advisory lock in shared mode until the transaction ends, and returns its fencing token; waits at most for the timeout';
REVOKE ALL ON FUNCTION risk_alert.advisory_xact_lock_shared(bigint, interval) FROM PUBLIC;

CREATE FUNCTION risk_alert.try_advisory_xact_lock_shared(key bigint) RETURNS numeric
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_try_advisory_xact_lock_shared_number';
COMMENT ON FUNCTION risk_alert.try_advisory_xact_lock_shared(bigint) IS
    'as advisory_xact_lock_shared(), but returns NULL instead of waiting if another session has the lock';
REVOKE ALL ON FUNCTION risk_alert.try_advisory_xact_lock_shared(bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_unlock(key text) RETURNS bool
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_unlock_text';
COMMENT ON FUNCTION risk_alert.advisory_unlock(text) IS
    'undoes one call of advisory_lock(); false, with a warning, if this session does not have the lock in exclusive mode or had lost it';
REVOKE ALL ON FUNCTION risk_alert.advisory_unlock(text) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_unlock(key bigint) RETURNS bool
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_unlock_number';
COMMENT ON FUNCTION risk_alert.advisory_unlock(bigint) IS
    'undoes one call of advisory_lock(); false, with a warning, if this session does not have the lock in exclusive mode or had lost it';
REVOKE ALL ON FUNCTION risk_alert.advisory_unlock(bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_unlock_shared(key text) RETURNS bool
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_unlock_shared_text';
COMMENT ON FUNCTION risk_alert.advisory_unlock_shared(text) IS
    'undoes one call of advisory_lock_shared(); false, with a warning, if this session does not have the lock in shared mode or had lost it';
REVOKE ALL ON FUNCTION risk_alert.advisory_unlock_shared(text) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_unlock_shared(key bigint) RETURNS bool
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_unlock_shared_number';
COMMENT ON FUNCTION risk_alert.advisory_unlock_shared(bigint) IS
    'undoes one call of advisory_lock_shared(); false, with a warning, if this session does not have the lock in shared mode or had lost it';
REVOKE ALL ON FUNCTION risk_alert.advisory_unlock_shared(bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.advisory_unlock_all() RETURNS void
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_advisory_unlock_all';
COMMENT ON FUNCTION risk_alert.advisory_unlock_all() IS 'releases all advisory locks of the cluster that this session holds at session level';
REVOKE ALL ON FUNCTION risk_alert.advisory_unlock_all() FROM PUBLIC;

CREATE FUNCTION risk_alert._check_fence(lock_type text, lock_key text, given numeric, is_shared bool) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    seen numeric;
BEGIN
    IF lock_key IS NULL OR given IS NULL OR is_shared IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'arguments of check_fence() must not be NULL';
    END IF;
    IF is_shared THEN
        -- A reader does not raise the token, or readers would refuse each other;
        -- the lock on the row makes it wait for a writer that has raised it.
        SELECT f.token INTO seen FROM risk_alert.fence f
         WHERE f.key = lock_key AND f.key_type = lock_type FOR SHARE;
        IF seen <= given THEN
            seen := NULL;
        END IF;
    ELSE
        -- The row stays locked until the transaction ends: whoever comes with
        -- another token waits for that, and then compares again.
        INSERT INTO risk_alert.fence AS f (key_type, key, token) VALUES (lock_type, lock_key, given)
            ON CONFLICT (key, key_type) DO UPDATE
            SET token = EXCLUDED.token, seen_at = EXCLUDED.seen_at
            WHERE f.token <= EXCLUDED.token;
        IF NOT FOUND THEN
            SELECT f.token INTO seen FROM risk_alert.fence f WHERE f.key = lock_key AND f.key_type = lock_type;
            seen := COALESCE(seen, 'Infinity');
        END IF;
    END IF;
    IF seen IS NOT NULL THEN
        RAISE serialization_failure USING
            MESSAGE = pg_catalog.format('token of advisory lock "%s" is out of date', lock_key),
            DETAIL = pg_catalog.format('Token %s was given, %s has been seen.', given, seen),
            HINT = 'The lock has been granted to somebody else meanwhile: retry what it protects.';
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_fence(text, text, numeric, bool) IS 'internal: see check_fence()';
REVOKE ALL ON FUNCTION risk_alert._check_fence(text, text, numeric, bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._lock_check_token(key text, token numeric) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_lock_check_token_text';
COMMENT ON FUNCTION risk_alert._lock_check_token(text, numeric) IS
    'internal: an error if this session has lost the lock, or this server knows of a newer grant';
REVOKE ALL ON FUNCTION risk_alert._lock_check_token(text, numeric) FROM PUBLIC;

CREATE FUNCTION risk_alert.check_fence(key text, token numeric, shared bool DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM risk_alert._check_fence('text', check_fence.key, check_fence.token, check_fence.shared);
    PERFORM risk_alert._lock_check_token(check_fence.key, check_fence.token);
END
$$;
COMMENT ON FUNCTION risk_alert.check_fence(text, numeric, bool) IS
    'guards a write, in its transaction: an error if a newer token of the lock was granted or seen; remembers this one, unless it is of a shared lock';
REVOKE ALL ON FUNCTION risk_alert.check_fence(text, numeric, bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._lock_check_token(key bigint, token numeric) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_lock_check_token_number';
COMMENT ON FUNCTION risk_alert._lock_check_token(bigint, numeric) IS
    'internal: an error if this session has lost the lock, or this server knows of a newer grant';
REVOKE ALL ON FUNCTION risk_alert._lock_check_token(bigint, numeric) FROM PUBLIC;

CREATE FUNCTION risk_alert.check_fence(key bigint, token numeric, shared bool DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM risk_alert._check_fence('bigint', check_fence.key::text, check_fence.token, check_fence.shared);
    PERFORM risk_alert._lock_check_token(check_fence.key, check_fence.token);
END
$$;
COMMENT ON FUNCTION risk_alert.check_fence(bigint, numeric, bool) IS
    'guards a write, in its transaction: an error if a newer token of the lock was granted or seen; remembers this one, unless it is of a shared lock';
REVOKE ALL ON FUNCTION risk_alert.check_fence(bigint, numeric, bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._lock_entries(
        OUT key_type text, OUT key text, OUT lock_number bigint, OUT state text, OUT exclusive bool, OUT lost bool,
        OUT token numeric)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'ra_lock_entries';
COMMENT ON FUNCTION risk_alert._lock_entries() IS 'internal: see view advisory_locks';
REVOKE ALL ON FUNCTION risk_alert._lock_entries() FROM PUBLIC;

CREATE FUNCTION risk_alert._lock_list(
        OUT key_type text, OUT key text, OUT node text, OUT exclusive bool, OUT granted bool, OUT queue_position int)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'ra_lock_list';
COMMENT ON FUNCTION risk_alert._lock_list() IS 'internal: see view advisory_locks';
REVOKE ALL ON FUNCTION risk_alert._lock_list() FROM PUBLIC;

CREATE FUNCTION risk_alert._lock_status(
        OUT provider text, OUT state text, OUT since timestamptz, OUT pid int, OUT last_error text, OUT lease_ms bigint,
        OUT generation bigint, OUT grants bigint, OUT handovers bigint, OUT requests bigint, OUT losses bigint)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'ra_lock_status';
COMMENT ON FUNCTION risk_alert._lock_status() IS 'internal: see view stat_coordination';
REVOKE ALL ON FUNCTION risk_alert._lock_status() FROM PUBLIC;

-- Sessions of this server from its lock manager; of another one it is known only what the service knows
CREATE VIEW risk_alert.advisory_locks AS
    SELECT e.key, e.key_type,
           NULLIF(pg_catalog.current_setting('risk_alert.node_name'), '') AS node,
           l.pid,
           CASE l.mode WHEN 'ExclusiveLock' THEN 'exclusive' ELSE 'shared' END AS mode,
           l.granted AND e.state = 'held' AS granted,
           l.granted AND e.lost AS lost,
           CASE WHEN l.granted THEN e.token END AS token,
           l.waitstart AS waiting_since,
           NULL::int AS queue_position
      FROM risk_alert._lock_entries() e
      JOIN pg_catalog.pg_locks l
        ON l.locktype = 'advisory' AND l.database = 0 AND l.objsubid = 21057
       AND l.classid = ((e.lock_number >> 32) & 4294967295)::oid
       AND l.objid = (e.lock_number & 4294967295)::oid
    UNION ALL
    SELECT r.key, r.key_type, r.node, NULL, CASE WHEN r.exclusive THEN 'exclusive' ELSE 'shared' END,
           r.granted, false, NULL, NULL, r.queue_position
      FROM risk_alert._lock_list() r
     WHERE r.node <> pg_catalog.current_setting('risk_alert.node_name');
COMMENT ON VIEW risk_alert.advisory_locks IS
    'who holds the cluster''s advisory locks and who waits for them: sessions of this server, and the other nodes';
COMMENT ON COLUMN risk_alert.advisory_locks.key IS 'key of the lock';
COMMENT ON COLUMN risk_alert.advisory_locks.key_type IS 'text or bigint: the text ''7'' and the number 7 are different locks';
COMMENT ON COLUMN risk_alert.advisory_locks.node IS 'node of the cluster; NULL for a server without a name';
COMMENT ON COLUMN risk_alert.advisory_locks.pid IS 'process of the session; NULL for other nodes';
COMMENT ON COLUMN risk_alert.advisory_locks.mode IS 'exclusive or shared';
COMMENT ON COLUMN risk_alert.advisory_locks.granted IS 'does it have the lock, or wait?';
COMMENT ON COLUMN risk_alert.advisory_locks.lost IS 'had the lock, and lost it with the session at the coordination service';
COMMENT ON COLUMN risk_alert.advisory_locks.token IS 'latest fencing token given on this server';
COMMENT ON COLUMN risk_alert.advisory_locks.waiting_since IS 'since when the session waits for another one of this server';
COMMENT ON COLUMN risk_alert.advisory_locks.queue_position IS 'place of the other node in the queue of the lock, from 0';
REVOKE ALL ON risk_alert.advisory_locks FROM PUBLIC;

CREATE VIEW risk_alert.stat_coordination AS
    SELECT s.provider, s.state, s.since, s.pid, s.last_error, s.lease_ms, s.generation, s.grants, s.handovers, s.requests, s.losses
      FROM risk_alert._lock_status() s;
COMMENT ON VIEW risk_alert.stat_coordination IS 'this server''s session at the coordination service, and what its locks cost since the server started';
COMMENT ON COLUMN risk_alert.stat_coordination.provider IS 'local, zookeeper or redis';
COMMENT ON COLUMN risk_alert.stat_coordination.state IS
    'starting (no broker runs), connecting (no session), connected, disconnected (the session may live on), failed (the configuration can''t work), none (provider local)';
COMMENT ON COLUMN risk_alert.stat_coordination.since IS 'since when it has been so';
COMMENT ON COLUMN risk_alert.stat_coordination.pid IS 'process of the broker';
COMMENT ON COLUMN risk_alert.stat_coordination.last_error IS 'why there is no connection';
COMMENT ON COLUMN risk_alert.stat_coordination.lease_ms IS 'how long locks are safe if nothing more is heard from the service, in milliseconds';
COMMENT ON COLUMN risk_alert.stat_coordination.generation IS 'first part of the fencing tokens';
COMMENT ON COLUMN risk_alert.stat_coordination.grants IS 'locks granted to sessions';
COMMENT ON COLUMN risk_alert.stat_coordination.handovers IS 'those of them that were passed on by a session of this server';
COMMENT ON COLUMN risk_alert.stat_coordination.requests IS 'requests to the service';
COMMENT ON COLUMN risk_alert.stat_coordination.losses IS 'sessions lost, and all locks with them';
REVOKE ALL ON risk_alert.stat_coordination FROM PUBLIC;
