-- check_setup(): why does it not work?
--
-- One function per subject, each returning findings; check_setup() puts the
-- worst first.  A finding has a name that programs can rely on, a level (error: it cannot
-- work; warning: it works less than it should; info; ok), and a remediation that is
-- a statement wherever one can help.

CREATE TYPE risk_alert._finding AS (
    name        text,
    level       text,
    object      text,
    description text,
    detail      text,
    remediation text
);
COMMENT ON TYPE risk_alert._finding IS 'internal: a row of check_setup()';

-- The server: library, worker, transactions that hold things up
CREATE FUNCTION risk_alert._check_server() RETURNS SETOF risk_alert._finding
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    preloaded bool := risk_alert._preloaded();
    database name := pg_catalog.current_database();
    w record;
    r record;
    slots int := pg_catalog.current_setting('max_worker_processes')::int;
    used bigint;
    installed text;
BEGIN
    RETURN NEXT ROW('preload', CASE WHEN preloaded THEN 'ok' ELSE 'error' END, 'server',
        CASE WHEN preloaded THEN 'the library is preloaded'
             ELSE 'the library is not preloaded: nothing processes events' END,
        pg_catalog.format('shared_preload_libraries = ''%s''', pg_catalog.current_setting('shared_preload_libraries')),
        CASE WHEN NOT preloaded THEN risk_alert._preload_hint() END)::risk_alert._finding;

    SELECT e.extversion INTO installed FROM pg_catalog.pg_extension e WHERE e.extname = 'risk_alert';
    IF installed = risk_alert._library_version() THEN
        RETURN NEXT ROW('version', 'ok', 'server', 'extension and library have the same version', installed, NULL)::risk_alert._finding;
    ELSE
        RETURN NEXT ROW('version', 'error', 'server', 'extension and library have different versions',
            pg_catalog.format('The extension has version %s, the loaded library %s.', installed, risk_alert._library_version()),
            'ALTER EXTENSION risk_alert UPDATE; if the library is the older one, restart the server.')::risk_alert._finding;
    END IF;

    SELECT pg_catalog.count(*) INTO used FROM pg_catalog.pg_stat_activity a
     WHERE a.backend_type NOT IN ('client backend', 'autovacuum launcher', 'autovacuum worker', 'background writer',
                                  'checkpointer', 'walwriter', 'walsender', 'walreceiver', 'startup', 'archiver',
                                  'standalone backend', 'walsummarizer', 'slotsync worker', 'io worker');
    SELECT * INTO w FROM risk_alert._worker_status() k WHERE k.database = pg_catalog.current_database();
    IF pg_catalog.pg_is_in_recovery() THEN
        RETURN NEXT ROW('worker', 'info', database, 'this server is a standby',
            'Its worker starts when it is promoted.', NULL)::risk_alert._finding;
    ELSIF w.state IN ('running', 'rebuilding') THEN
        -- a lock that somebody keeps, on a table of the worker's or a watched one
        SELECT l.locktype, l.relation, l.waitstart, b.pid, a.usename, a.application_name, a.state INTO r
          FROM pg_catalog.pg_locks l
          CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) b (pid)
          LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
         WHERE l.pid = w.pid AND NOT l.granted
           AND l.waitstart < pg_catalog.clock_timestamp() - interval '1 second'
         ORDER BY b.pid LIMIT 1;
        IF FOUND THEN
            RETURN NEXT ROW('worker', 'warning', database, 'the worker waits for a lock that another transaction holds',
                pg_catalog.format('It waits for %s since %s. %s', COALESCE(risk_alert._qualified(r.relation), r.locktype),
                    pg_catalog.date_trunc('second', r.waitstart),
                    CASE WHEN r.pid = 0 THEN 'A prepared transaction holds it.'
                         ELSE pg_catalog.format('Process %s holds it: user %s, application "%s", %s.',
                                                r.pid, r.usename, r.application_name, r.state) END),
                CASE WHEN r.pid = 0 THEN 'COMMIT PREPARED or ROLLBACK PREPARED; pg_prepared_xacts lists them'
                     ELSE pg_catalog.format('End its transaction, or SELECT pg_terminate_backend(%s)', r.pid) END)::risk_alert._finding;
        ELSE
            RETURN NEXT ROW('worker', 'ok', database, 'the worker is running',
                pg_catalog.format('Its process is %s, since %s.', w.pid, pg_catalog.date_trunc('second', w.started_at)),
                NULL)::risk_alert._finding;
        END IF;
    ELSIF preloaded THEN
        SELECT d.datallowconn, d.datistemplate INTO r FROM pg_catalog.pg_database d WHERE d.datname = database;
        RETURN NEXT ROW('worker',
            CASE WHEN w.state IN ('starting', 'paused') OR (w.state = 'waiting' AND used < slots) THEN 'warning' ELSE 'error' END, database,
            CASE w.state WHEN 'starting' THEN 'the worker is starting'
                         WHEN 'waiting' THEN 'the worker waits to be started'
                         WHEN 'paused' THEN 'the worker is paused for a command that needs the database for itself'
                         WHEN 'failed' THEN 'the worker has failed and is tried again after a pause'
                         ELSE 'no worker runs for this database' END,
            CASE WHEN w.last_error IS NOT NULL THEN pg_catalog.format('Its last error was: %s', w.last_error)
                 WHEN r.datistemplate THEN 'Template databases get no worker.'
                 WHEN NOT r.datallowconn THEN 'The database allows no connections.'
                 WHEN used >= slots THEN pg_catalog.format('All %s of max_worker_processes are in use.', slots)
                 ELSE 'The server log may tell why.' END,
            CASE WHEN r.datistemplate THEN pg_catalog.format('ALTER DATABASE %I IS_TEMPLATE false', database)
                 WHEN used >= slots AND w.last_error IS NULL
                     THEN pg_catalog.format('ALTER SYSTEM SET max_worker_processes = %s, then restart the server.', slots + 8)
                 END)::risk_alert._finding;
    END IF;
    RETURN NEXT ROW('worker_slots', CASE WHEN used < slots THEN 'ok' WHEN w.state IN ('running', 'rebuilding') THEN 'info' ELSE 'warning' END, 'server',
        pg_catalog.format('%s of %s worker processes are in use', used, slots),
        'The launcher, the worker of each database, the broker and recovery of global transactions take one each, out of max_worker_processes.',
        CASE WHEN used >= slots
             THEN pg_catalog.format('ALTER SYSTEM SET max_worker_processes = %s, then restart the server.', slots + 8) END)::risk_alert._finding;

    -- who writes without triggers
    IF pg_catalog.current_setting('session_replication_role') = 'replica' THEN
        RETURN NEXT ROW('replication_role', 'warning', 'session', 'triggers do not fire in this session',
            'session_replication_role is replica.', 'RESET session_replication_role')::risk_alert._finding;
    END IF;
    FOR r IN
        SELECT s.setdatabase, s.setrole, d.datname, pg_catalog.pg_get_userbyid(s.setrole) AS rolname
          FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
         WHERE 'session_replication_role=replica' = ANY (s.setconfig)
           AND (s.setdatabase = 0 OR d.datname = database)
         ORDER BY 1, 2
    LOOP
        RETURN NEXT ROW('replication_role', 'warning',
            CASE WHEN r.setrole = 0 THEN database ELSE r.rolname END,
            'triggers do not fire in sessions with this setting', 'session_replication_role is set to replica.',
            CASE WHEN r.setrole = 0 THEN pg_catalog.format('ALTER DATABASE %I RESET session_replication_role', r.datname)
                 WHEN r.setdatabase = 0 THEN pg_catalog.format('ALTER ROLE %I RESET session_replication_role', r.rolname)
                 ELSE pg_catalog.format('ALTER ROLE %I IN DATABASE %I RESET session_replication_role', r.rolname, r.datname)
                 END)::risk_alert._finding;
    END LOOP;

    SELECT c.since, c.behind INTO r FROM risk_alert._catching_up() c;
    IF r.since IS NOT NULL OR r.behind THEN
        RETURN NEXT ROW('catch_up', 'warning', pg_catalog.current_setting('risk_alert.node_name'),
            CASE WHEN r.since IS NOT NULL THEN 'events wait until this node has caught up with the others'
                 ELSE 'events are scored although this node has not caught up with the others' END,
            pg_catalog.concat_ws(' ', 'What was published while it was away may be missing here.',
                pg_catalog.format('Since %s.', pg_catalog.date_trunc('second', r.since)),
                (SELECT pg_catalog.format('Last error: %s.', k.last_error)
                   FROM risk_alert._recovery_status() k WHERE k.last_error IS NOT NULL)),
            'SELECT * FROM risk_alert.check_node(...) for each node tells what is wrong with it; risk_alert.catch_up_timeout limits how long events wait.')::risk_alert._finding;
    END IF;

    -- Events become visible when their transaction commits.  Who has written
    -- events holds a lock on a queue table.
    FOR r IN
        SELECT DISTINCT a.pid, a.usename, a.application_name, a.state, a.xact_start
          FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
           AND l.relation IN ('risk_alert.queue_0'::regclass, 'risk_alert.queue_1'::regclass, 'risk_alert.queue_2'::regclass)
           AND a.xact_start < pg_catalog.clock_timestamp() - interval '1 minute'
         ORDER BY a.xact_start, a.pid
    LOOP
        RETURN NEXT ROW('long_transaction', 'warning', pg_catalog.format('process %s', r.pid),
            'a transaction has written events and does not end',
            pg_catalog.format('User %s, application "%s", %s, began at %s. Its events are scored when it commits; others are not held up.',
                              r.usename, r.application_name, r.state, pg_catalog.date_trunc('second', r.xact_start)),
            pg_catalog.format('Commit it, or SELECT pg_terminate_backend(%s)', r.pid))::risk_alert._finding;
    END LOOP;
    FOR r IN
        SELECT p.gid, p.owner, p.prepared, g.transaction, g.coordinator
          FROM pg_catalog.pg_prepared_xacts p CROSS JOIN LATERAL risk_alert._gid(p.gid) g
         WHERE p.database = pg_catalog.current_database()
           AND p.prepared < pg_catalog.clock_timestamp()
               - COALESCE(pg_catalog.current_setting('risk_alert.prepared_warning', true), '5min')::interval
         ORDER BY p.prepared, p.gid
    LOOP
        -- by hand it might be finished otherwise than on the other nodes
        IF r.transaction IS NOT NULL THEN
            RETURN NEXT ROW('global_transaction', 'warning', r.gid, 'a branch of a global transaction waits for its outcome',
                pg_catalog.concat_ws(' ',
                    pg_catalog.format('Node %s coordinates it; it was prepared at %s, and holds its locks and keeps VACUUM from removing rows.',
                                      r.coordinator, pg_catalog.date_trunc('second', r.prepared)),
                    (SELECT pg_catalog.format('Last error of recovery: %s.', k.last_error)
                       FROM risk_alert._recovery_status() k WHERE k.last_error IS NOT NULL)),
                pg_catalog.format('Bring node %s back; if it is lost for good: SELECT risk_alert.resolve(%L, ''commit'') or ''abort'', as the other nodes did. Do not use ROLLBACK PREPARED.',
                                  r.coordinator, r.transaction))::risk_alert._finding;
            CONTINUE;
        END IF;
        RETURN NEXT ROW('prepared_transaction', 'warning', r.gid, 'a prepared transaction waits to be finished',
            pg_catalog.format('Prepared by %s at %s. Its events are scored when it is committed.',
                              r.owner, pg_catalog.date_trunc('second', r.prepared)),
            pg_catalog.format('COMMIT PREPARED %1$L or ROLLBACK PREPARED %1$L', r.gid))::risk_alert._finding;
    END LOOP;

    FOR r IN
        SELECT u.role FROM pg_catalog.unnest('{risk_alert_admin,risk_alert_analyst,risk_alert_monitor,risk_alert_locker}'::name[]) u (role)
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles p WHERE p.rolname = u.role)
    LOOP
        RETURN NEXT ROW('roles', 'error', r.role, 'a role of risk_alert is missing',
            'Its rights went with it.',
            pg_catalog.format('CREATE ROLE %I, then repeat the GRANT statements of the extension''s script.', r.role))::risk_alert._finding;
    END LOOP;
    IF pg_catalog.to_regrole('risk_alert_analyst') IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = pg_catalog.to_regrole('risk_alert_analyst')) THEN
        RETURN NEXT ROW('roles', 'info', 'risk_alert_analyst', 'nobody but superusers can work on alerts',
            'The role has no members.', 'GRANT risk_alert_analyst TO ...')::risk_alert._finding;
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_server() IS 'internal: findings about the server';
REVOKE ALL ON FUNCTION risk_alert._check_server() FROM PUBLIC;

-- This node's part in the cluster: its session at the coordination service, its vote
CREATE FUNCTION risk_alert._check_cluster() RETURNS SETOF risk_alert._finding
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    node text := COALESCE(NULLIF(pg_catalog.current_setting('risk_alert.node_name', true), ''), 'server');
    l record;
    acceptors text[];
    problem text;
BEGIN
    IF NOT risk_alert._preloaded() THEN
        RETURN;
    END IF;
    SELECT * INTO l FROM risk_alert._lock_status();
    IF l.state = 'failed' THEN
        RETURN NEXT ROW('coordination', 'error', node, 'the broker cannot work as it is configured', l.last_error,
            pg_catalog.format(CASE WHEN l.last_error LIKE '%has no TLS%'
                THEN 'Run a tunnel (stunnel, for example), let risk_alert.%1$s_hosts name its local end, and set coordination_tls to off; the broker tries again by itself.'
                ELSE 'Correct risk_alert.node_name, %1$s_hosts, coordination_tls or coordination_password_file, or install library risk_alert_%1$s; the broker tries again by itself.'
                END, l.provider))::risk_alert._finding;
    ELSIF l.state = 'connected' THEN
        RETURN NEXT ROW('coordination', 'ok', node, 'this node has a session at the coordination service',
            pg_catalog.format('It is %s.', l.provider), NULL)::risk_alert._finding;
    ELSIF l.provider <> 'local' THEN
        RETURN NEXT ROW('coordination', 'warning', node, 'the coordination service cannot be asked',
            pg_catalog.concat_ws(' ', pg_catalog.format('State: %s.', l.state), l.last_error),
            'Bring it back; advisory locks wait or time out meanwhile.')::risk_alert._finding;
    END IF;

    -- whatever this session's own setting is: an acceptor once admitted is counted on
    IF pg_catalog.pg_is_in_recovery()
       OR (pg_catalog.current_setting('risk_alert.commit_register') <> 'paxos'
           AND NOT EXISTS (SELECT FROM risk_alert._paxos_admission())) THEN
        RETURN;
    END IF;
    BEGIN
        acceptors := risk_alert._paxos_acceptors();
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS problem = PG_EXCEPTION_DETAIL;
        RETURN NEXT ROW('paxos_vote', 'error', node, 'there is no Paxos register, so no global transaction can commit', problem,
            'Make a server for each node, or name the acceptors in risk_alert.paxos_acceptors.')::risk_alert._finding;
        RETURN;
    END;
    IF node <> ALL (acceptors) THEN
        RETURN NEXT ROW('paxos_vote', 'info', node, 'this node is no acceptor of the Paxos register',
            pg_catalog.format('Acceptors are %s.', pg_catalog.array_to_string(acceptors, ', ')), NULL)::risk_alert._finding;
        RETURN;
    END IF;
    problem := risk_alert._paxos_problem();
    IF problem IS NULL THEN
        SELECT pg_catalog.format('It votes as one of %s, and the acceptors are %s.', a.acceptors, risk_alert._paxos_identity()) INTO problem
          FROM risk_alert._paxos_admission() a WHERE a.acceptors <> risk_alert._paxos_identity();
    END IF;
    IF problem IS NULL THEN
        RETURN NEXT ROW('paxos_vote', 'ok', node, 'this node has a vote in the Paxos register', NULL, NULL)::risk_alert._finding;
    ELSE
        RETURN NEXT ROW('paxos_vote', CASE WHEN pg_catalog.cardinality(acceptors) = 1 THEN 'error' ELSE 'warning' END, node,
            'this node has no vote in the Paxos register', problem,
            'SELECT risk_alert.paxos_admit(), as the owner of the extension; doc/cluster.md tells what it asks for.')::risk_alert._finding;
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_cluster() IS 'internal: findings about this node''s part in the cluster';
REVOKE ALL ON FUNCTION risk_alert._check_cluster() FROM PUBLIC;

-- A stream's table: does each change of it reach the queue?
CREATE FUNCTION risk_alert._check_capture(s risk_alert.stream) RETURNS SETOF risk_alert._finding
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fullname text := risk_alert._qualified(s.relation);
    problem text := risk_alert._capture_problem(s.relation);
    repair text := pg_catalog.format('SELECT risk_alert.alter_stream(%L)', s.name);
    r record;
    missing name[];
BEGIN
    FOR r IN SELECT w.* FROM risk_alert._wrong_triggers(s.relation) w LOOP
        RETURN NEXT ROW('trigger', 'error', s.name, 'a trigger makes statements on the table fail',
            pg_catalog.format('Trigger "%s" on table %s. %s', r.trigger, risk_alert._qualified(r.on_table), r.reason),
            pg_catalog.format('DROP TRIGGER %I ON %s; %s', r.trigger, risk_alert._qualified(r.on_table), repair))::risk_alert._finding;
    END LOOP;
    FOR r IN SELECT i.* FROM risk_alert._idle_triggers(s.relation) i LOOP
        RETURN NEXT ROW('trigger', 'info', s.name, 'a trigger captures nothing: others capture all that it fires for',
            pg_catalog.format('Trigger "%s" on table %s.', r.trigger, risk_alert._qualified(r.on_table)),
            pg_catalog.format('DROP TRIGGER %I ON %s', r.trigger, risk_alert._qualified(r.on_table)))::risk_alert._finding;
    END LOOP;
    FOR r IN
        SELECT g.tgname, g.tgenabled, g.tgqual IS NOT NULL AS conditional,
               pg_catalog.cardinality(g.tgattr::int2[]) > 0 AS by_column
          FROM pg_catalog.pg_trigger g
         WHERE g.tgrelid = s.relation AND g.tgfoid = 'risk_alert.capture()'::regprocedure
           AND g.tgtype & 1 = 1 AND g.tgtype & 66 = 0
           AND g.tgname NOT IN (SELECT i.trigger FROM risk_alert._idle_triggers(s.relation) i WHERE i.on_table = s.relation)
         ORDER BY g.tgname
    LOOP
        IF r.tgenabled IN ('D', 'R') THEN
            RETURN NEXT ROW('trigger', 'error', s.name,
                CASE r.tgenabled WHEN 'D' THEN 'a trigger that captures rows is disabled'
                                 ELSE 'a trigger that captures rows fires for replicated rows only' END,
                pg_catalog.format('Trigger "%s" on table %s.', r.tgname, fullname),
                pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER %I', fullname, r.tgname))::risk_alert._finding;
        ELSIF r.conditional OR r.by_column THEN
            RETURN NEXT ROW('trigger', 'warning', s.name, 'a trigger captures only some of the changes',
                pg_catalog.format('Trigger "%s" on table %s has a %s. What it leaves out is missing from features.',
                                  r.tgname, fullname, CASE WHEN r.conditional THEN 'condition' ELSE 'list of columns' END),
                pg_catalog.format('DROP TRIGGER %I ON %s; %s', r.tgname, fullname, repair))::risk_alert._finding;
        END IF;
    END LOOP;
    IF problem IN ('no trigger', 'trigger incomplete') THEN
        RETURN NEXT ROW('trigger', 'error', s.name,
            CASE problem WHEN 'no trigger' THEN 'no trigger captures the rows of the table'
                         ELSE 'the triggers capture only some of INSERT, UPDATE and DELETE' END,
            pg_catalog.format('Table %s.', fullname), repair)::risk_alert._finding;
    ELSIF problem IS NULL THEN
        RETURN NEXT ROW('trigger', 'ok', s.name, 'changes of the table are captured',
                        pg_catalog.format('Table %s.', fullname), NULL)::risk_alert._finding;
    END IF;

    -- a partition's copy of the trigger can be disabled by itself
    FOR r IN
        SELECT c.oid::regclass AS partition, c.relkind, risk_alert._capture_problem(c.oid) AS problem,
               (SELECT pg_catalog.min(g.tgname) FROM pg_catalog.pg_trigger g
                 WHERE g.tgrelid = c.oid AND g.tgfoid = 'risk_alert.capture()'::regprocedure
                   AND g.tgtype & 1 = 1 AND g.tgenabled IN ('D', 'R')) AS disabled
          FROM pg_catalog.pg_partition_tree(s.relation) t JOIN pg_catalog.pg_class c ON c.oid = t.relid
         WHERE t.isleaf AND t.relid <> s.relation
         ORDER BY c.oid
    LOOP
        IF r.relkind = 'f' THEN
            RETURN NEXT ROW('partition', 'warning', s.name, 'a partition is a foreign table',
                pg_catalog.format('Changes of %s on its own server are not captured.', risk_alert._qualified(r.partition)),
                NULL)::risk_alert._finding;
        ELSIF r.problem IS NOT NULL AND problem IS NULL THEN
            RETURN NEXT ROW('partition', 'error', s.name, 'rows of a partition are not captured',
                pg_catalog.format('Partition %s: %s.', risk_alert._qualified(r.partition), r.problem),
                CASE WHEN r.disabled IS NOT NULL
                     THEN pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER %I', risk_alert._qualified(r.partition), r.disabled)
                     ELSE repair END)::risk_alert._finding;
        END IF;
    END LOOP;

    SELECT pg_catalog.min(g.tgname) FILTER (WHERE g.tgenabled IN ('D', 'R')) AS disabled,
           pg_catalog.bool_or(g.tgenabled IN ('O', 'A')) AS fires INTO r
      FROM pg_catalog.pg_trigger g
     WHERE g.tgrelid = s.relation AND g.tgfoid = 'risk_alert.capture()'::regprocedure AND g.tgtype & 32 <> 0;
    IF r.fires IS NOT TRUE THEN
        RETURN NEXT ROW('truncate_trigger', 'warning', s.name, 'TRUNCATE goes unnoticed',
            pg_catalog.format('Features would still count the rows that it removes from table %s.', fullname),
            CASE WHEN r.disabled IS NULL THEN repair
                 ELSE pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER %I', fullname, r.disabled) END)::risk_alert._finding;
    END IF;

    IF problem IS NULL AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_depend d ON d.objid = g.oid
             WHERE g.tgrelid = s.relation AND g.tgfoid = 'risk_alert.capture()'::regprocedure
               AND d.classid = 'pg_catalog.pg_trigger'::regclass
               AND d.refclassid = 'pg_catalog.pg_class'::regclass
               AND d.refobjid = s.relation AND d.refobjsubid > 0) THEN
        RETURN NEXT ROW('dependencies', 'warning', s.name, 'nothing keeps columns and functions that rules use from being dropped',
            'The triggers come from a dump, or were made by hand after watch().', repair)::risk_alert._finding;
    END IF;

    IF EXISTS (SELECT FROM pg_catalog.pg_subscription_rel b
                WHERE b.srrelid IN (SELECT s.relation UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(s.relation) p))
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
                        WHERE g.tgrelid = s.relation AND g.tgfoid = 'risk_alert.capture()'::regprocedure
                          AND g.tgtype & 1 = 1 AND g.tgenabled = 'A') THEN
        RETURN NEXT ROW('subscription', 'warning', s.name, 'rows that arrive by logical replication are not captured',
            'A trigger fires for them only if it is enabled ALWAYS.',
            pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER risk_alert_capture', fullname))::risk_alert._finding;
    END IF;

    IF s.layout_id IS NULL THEN
        RETURN NEXT ROW('layout', 'error', s.name, 'events of this stream cannot be captured yet',
            'Its configuration comes from a dump and was not refreshed since.', repair)::risk_alert._finding;
    END IF;

    SELECT pg_catalog.array_agg(k ORDER BY k) INTO missing
      FROM pg_catalog.unnest(s.key || s.event_time) k
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = s.relation AND a.attname = k AND NOT a.attisdropped);
    IF missing IS NOT NULL THEN
        RETURN NEXT ROW('columns', 'error', s.name, 'the table lacks columns that the stream needs',
            pg_catalog.format('Key or event time: %s.', risk_alert._column_list(missing)),
            pg_catalog.format('SELECT risk_alert.unwatch(%L), then watch the table with other columns.', s.name))::risk_alert._finding;
    ELSIF risk_alert._key_index(s.relation, s.key) IS NULL THEN
        RETURN NEXT ROW('key', 'error', s.name, 'nothing keeps the key of the table unique',
            'Events are told apart by it: of two with the same key one counts.',
            risk_alert._create_index(s.relation, s.key, true))::risk_alert._finding;
    ELSE
        RETURN NEXT ROW('key', 'ok', s.name, 'the key of the table has a unique index',
            risk_alert._column_list(s.key), NULL)::risk_alert._finding;
    END IF;

    IF EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.relation AND c.relpersistence = 'u') THEN
        RETURN NEXT ROW('unlogged', 'info', s.name, 'the table is unlogged',
            'After a crash it is empty, and so are all features; alerts stay.', NULL)::risk_alert._finding;
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_capture(risk_alert.stream) IS 'internal: findings about a stream''s table';
REVOKE ALL ON FUNCTION risk_alert._check_capture(risk_alert.stream) FROM PUBLIC;

-- A stream's features and rules: can each be evaluated, by its owner?
CREATE FUNCTION risk_alert._check_rules(s risk_alert.stream) RETURNS SETOF risk_alert._finding
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    problem text;
    lost name[] := '{}';    -- features that cannot be computed, and take their rules with them
    broken text[] := '{}';
    reachable bigint;
BEGIN
    FOR r IN SELECT * FROM risk_alert.feature f WHERE f.stream_id = s.stream_id ORDER BY f.name LOOP
        problem := NULL;
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles p WHERE p.oid = r.owner) THEN
            problem := 'Its owner no longer exists.';
        ELSE
            BEGIN
                PERFORM risk_alert._check_feature(s.stream_id, risk_alert._column_list(r.entity),
                            risk_alert._column_list(r.lookup), risk_alert._aggregate(r.function, r.value),
                            r.filter, r.within, 'pg_catalog', r.owner);
            EXCEPTION WHEN OTHERS THEN
                problem := SQLERRM;
            END;
        END IF;
        IF problem IS NOT NULL THEN
            lost := lost || r.name;
            RETURN NEXT ROW('feature', 'error', pg_catalog.format('%s.%s', s.name, r.name), 'a feature cannot be computed',
                problem, pg_catalog.format('Put right what it uses, or SELECT risk_alert.drop_feature(%L, %L) and create it anew.',
                                           s.name, pg_catalog.quote_ident(r.name)))::risk_alert._finding;
        ELSIF NOT risk_alert._entity_index(s.relation, r.entity, s.event_time) THEN
            RETURN NEXT ROW('index', 'warning', pg_catalog.format('%s.%s', s.name, r.name), 'a feature has no index',
                'Each entity that is not in memory is read from the table, by a sequential scan.',
                risk_alert._create_index(s.relation, r.entity || s.event_time, false))::risk_alert._finding;
        ELSE
            RETURN NEXT ROW('index', 'ok', pg_catalog.format('%s.%s', s.name, r.name), 'an index finds the entity''s events',
                risk_alert._column_list(r.entity || s.event_time), NULL)::risk_alert._finding;
        END IF;
    END LOOP;

    FOR r IN
        SELECT u.*, st.errors, st.errors_in_row, st.last_error, st.last_error_at
          FROM risk_alert.rule u LEFT JOIN risk_alert.rule_stat st USING (rule_id)
         WHERE u.stream_id = s.stream_id AND u.status <> 'retired'
         ORDER BY u.name
    LOOP
        problem := NULL;
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles p WHERE p.oid = r.owner) THEN
            problem := 'Its owner no longer exists.';
        ELSE
            BEGIN
                PERFORM risk_alert._check_condition(s.stream_id, r.condition, 'pg_catalog', r.owner);
                PERFORM risk_alert._check_reason(s.stream_id, r.reason, r.owner);
                SELECT pg_catalog.format('Feature "%s" cannot be computed.', f) INTO problem
                  FROM pg_catalog.unnest(lost) f
                 WHERE risk_alert._uses_feature(s.stream_id, f, r.condition, r.reason, r.owner) LIMIT 1;
            EXCEPTION WHEN OTHERS THEN
                problem := SQLERRM;
            END;
        END IF;
        IF problem IS NOT NULL THEN
            broken := broken || r.name;
            RETURN NEXT ROW('rule', CASE r.status WHEN 'draft' THEN 'warning' ELSE 'error' END,
                pg_catalog.format('%s.%s', s.name, r.name), 'a rule cannot be evaluated', problem,
                pg_catalog.format('SELECT risk_alert.alter_rule(%L, %L, condition => %L), corrected', s.name, r.name, r.condition))::risk_alert._finding;
        ELSIF risk_alert._missing_lists(r.condition) IS NOT NULL THEN
            broken := broken || r.name;
            RETURN NEXT ROW('rule', 'error', pg_catalog.format('%s.%s', s.name, r.name), 'a rule looks up a list that does not exist',
                pg_catalog.format('Lists: %s.', pg_catalog.array_to_string(risk_alert._missing_lists(r.condition), ', ')),
                pg_catalog.format('SELECT risk_alert.create_list(%L)', (risk_alert._missing_lists(r.condition))[1]))::risk_alert._finding;
        ELSIF r.suspended_at IS NOT NULL THEN
            RETURN NEXT ROW('rule', 'error', pg_catalog.format('%s.%s', s.name, r.name), 'a rule is suspended after repeated errors',
                r.suspended_for,
                pg_catalog.format('Correct its condition, or SELECT risk_alert.alter_rule(%L, %L, status => %L)', s.name, r.name, r.status))::risk_alert._finding;
        ELSIF r.errors_in_row > 0 OR r.last_error_at > pg_catalog.clock_timestamp() - interval '1 day' THEN
            RETURN NEXT ROW('rule', CASE WHEN r.errors_in_row > 0 THEN 'warning' ELSE 'info' END,
                pg_catalog.format('%s.%s', s.name, r.name),
                CASE WHEN r.errors_in_row > 0 THEN 'a rule fails' ELSE 'a rule has failed for some events' END,
                pg_catalog.format('%s times, the last time with: %s', r.errors, r.last_error),
                pg_catalog.format('SELECT risk_alert.alter_rule(%L, %L, condition => %L), corrected', s.name, r.name, r.condition))::risk_alert._finding;
        END IF;
    END LOOP;

    SELECT COALESCE(pg_catalog.sum(u.points) FILTER (WHERE u.points > 0), 0) INTO reachable
      FROM risk_alert.rule u
     WHERE u.stream_id = s.stream_id AND u.status = 'active' AND u.suspended_at IS NULL AND u.name <> ALL (broken);
    SELECT pg_catalog.count(*) FILTER (WHERE u.status = 'active') AS active,
           pg_catalog.count(*) FILTER (WHERE u.status = 'shadow') AS shadow,
           pg_catalog.count(*) FILTER (WHERE u.status = 'draft') AS draft,
           pg_catalog.count(*) FILTER (WHERE u.status = 'retired') AS retired INTO r
      FROM risk_alert.rule u WHERE u.stream_id = s.stream_id;
    IF r.active = 0 THEN
        RETURN NEXT ROW('rules', 'warning', s.name, 'no rule is active, so every score is 0',
            pg_catalog.format('Rules: %s shadow, %s draft, %s retired.', r.shadow, r.draft, r.retired),
            CASE WHEN r.shadow + r.draft + r.retired > 0
                 THEN pg_catalog.format('SELECT risk_alert.alter_rule(%L, ..., status => ''active'')', s.name)
                 ELSE pg_catalog.format('SELECT risk_alert.create_rule(%L, ...)', s.name) END)::risk_alert._finding;
    ELSIF reachable < s.review_at THEN
        RETURN NEXT ROW('thresholds', 'warning', s.name, 'no score can reach review_at, so there will be no alerts',
            pg_catalog.format('The active rules add up to %s points at most; review_at is %s.', reachable, s.review_at),
            pg_catalog.format('SELECT risk_alert.alter_stream(%L, review_at => %s), or give rules more points.', s.name, reachable))::risk_alert._finding;
    ELSE
        RETURN NEXT ROW('rules', 'ok', s.name, pg_catalog.format('active rules: %s', r.active),
            pg_catalog.format('They add up to %s points at most; review_at is %s, deny_at is %s.', reachable, s.review_at, s.deny_at),
            NULL)::risk_alert._finding;
        IF reachable < s.deny_at THEN
            RETURN NEXT ROW('thresholds', 'info', s.name, 'no score can reach deny_at',
                pg_catalog.format('The active rules add up to %s points at most; deny_at is %s.', reachable, s.deny_at), NULL)::risk_alert._finding;
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_rules(risk_alert.stream) IS 'internal: findings about a stream''s features and rules';
REVOKE ALL ON FUNCTION risk_alert._check_rules(risk_alert.stream) FROM PUBLIC;

-- What happens with a stream's events, and if nothing does, the first reason on
-- their way from the table to an alert.
CREATE FUNCTION risk_alert._check_activity(s risk_alert.stream) RETURNS SETOF risk_alert._finding
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    st record;
    r record;
    f risk_alert._finding;
BEGIN
    SELECT * INTO st FROM risk_alert.stat_streams v WHERE v.stream = s.name;
    SELECT pg_catalog.count(*) FILTER (WHERE u.status = 'active') AS active,
           COALESCE(pg_catalog.sum(k.fired) FILTER (WHERE u.status = 'active'), 0) AS fired,
           COALESCE(pg_catalog.sum(k.errors) FILTER (WHERE u.status = 'active'), 0) AS errors INTO r
      FROM risk_alert.rule u LEFT JOIN risk_alert.rule_stat k USING (rule_id)
     WHERE u.stream_id = s.stream_id;

    f.name := 'activity';
    f.object := s.name;
    f.level := 'warning';
    IF st.state NOT IN ('running', 'rebuilding') AND st.queued > 0 AND risk_alert._capture_problem(s.relation) IS NULL THEN
        f.level := 'error';
        f.description := 'events are captured but not processed';
        f.detail := pg_catalog.format('%s events wait; state: %s.', st.queued, st.state);
        f.remediation := 'See the findings with level error.';
    ELSIF st.state NOT IN ('running', 'rebuilding') THEN
        f.level := 'error';
        f.description := 'nothing happens with new rows';
        f.detail := pg_catalog.format('State: %s.', st.state);
        f.remediation := 'See the findings with level error.';
    ELSIF st.lag > interval '10 seconds' THEN
        f.description := 'the worker is behind';
        f.detail := pg_catalog.format('%s events wait, the oldest for %s.', st.queued, pg_catalog.date_trunc('second', st.lag));
        f.remediation := 'SELECT * FROM risk_alert.stat_rules ORDER BY total_time DESC, and look for features without an index.';
    ELSIF st.scored = 0 AND st.skipped > 0 THEN
        f.description := 'no event could be scored';
        f.detail := pg_catalog.format('%s events were skipped, the last one because: %s', st.skipped, st.last_skip);
    ELSIF st.scored = 0 THEN
        f.level := 'info';
        f.description := 'no row has been inserted since the table is watched';
        f.detail := pg_catalog.format('Watched since %s. Rows that were there before are history: features count them, '
                                      'but they are not scored. Nor are updates and deletes, of which there were %s.',
                                      pg_catalog.date_trunc('second', s.created_at), st.processed);
        f.remediation := pg_catalog.format('SELECT (risk_alert.risk_assess(t)).* FROM %s t LIMIT 10', risk_alert._qualified(s.relation));
    ELSIF r.active = 0 THEN
        f.description := 'events are scored, but no rule is active';
        f.detail := pg_catalog.format('%s events were scored.', st.scored);
        f.remediation := pg_catalog.format('SELECT risk_alert.create_rule(%L, ...)', s.name);
    ELSIF st.alerts + st.folded = 0 AND r.fired = 0 THEN
        f.level := 'info';
        f.description := 'no active rule has fired yet';
        f.detail := pg_catalog.format('%s events were scored, by %s active rules; their conditions failed with an error %s times.',
                                      st.scored, r.active, r.errors);
        f.remediation := pg_catalog.format('SELECT (risk_alert.risk_assess(t)).* FROM %s t LIMIT 10 shows the values of the features.',
                                           risk_alert._qualified(s.relation));
    ELSIF st.alerts + st.folded = 0 THEN
        f.level := 'info';
        f.description := 'rules have fired, but no score has reached review_at';
        f.detail := pg_catalog.format('Rules fired %s times; review_at is %s.', r.fired, s.review_at);
        f.remediation := pg_catalog.format('SELECT risk_alert.alter_stream(%L, review_at => ...), or give rules more points.', s.name);
    ELSE
        f.level := 'ok';
        f.description := 'events are scored and alerts are raised';
        f.detail := pg_catalog.format('%s events scored, %s alerts, %s events folded into open alerts.', st.scored, st.alerts, st.folded);
    END IF;
    RETURN NEXT f;

    IF st.skipped > 0 AND st.scored > 0 THEN
        RETURN NEXT ROW('skipped', CASE WHEN st.skipped > st.scored / 100 THEN 'warning' ELSE 'info' END, s.name, 'some events could not be scored',
            pg_catalog.format('%s events, the last one because: %s', st.skipped, st.last_skip), NULL)::risk_alert._finding;
    END IF;
    IF st.last_event_time > pg_catalog.clock_timestamp() + interval '5 minutes' THEN
        RETURN NEXT ROW('clock', 'warning', s.name, 'events come from the future',
            pg_catalog.format('The latest is of %s, the server''s clock says %s. A window ends at the event''s own time.',
                              pg_catalog.date_trunc('second', st.last_event_time),
                              pg_catalog.date_trunc('second', pg_catalog.clock_timestamp())),
            'Set the clocks; a column of type timestamp is read as UTC.')::risk_alert._finding;
    END IF;
    -- (what was read from the table is found in memory at once, which counts as a hit)
    FOR r IN
        SELECT * FROM risk_alert._cache_status() c
         WHERE c.stream_id = s.stream_id AND c.evictions > 0 AND c.rebuilds > c.hits - c.rebuilds
    LOOP
        RETURN NEXT ROW('feature_memory', 'warning', s.name, 'there is too little memory for features',
            pg_catalog.format('Entities by %s: found in memory %s times, read from the table %s times, %s times to make room.',
                              r.entity, r.hits, r.rebuilds, r.evictions),
            'ALTER SYSTEM SET risk_alert.feature_memory = ..., then restart the server.')::risk_alert._finding;
    END LOOP;
END
$$;
COMMENT ON FUNCTION risk_alert._check_activity(risk_alert.stream) IS 'internal: findings about what happens with a stream''s events';
REVOKE ALL ON FUNCTION risk_alert._check_activity(risk_alert.stream) FROM PUBLIC;

CREATE FUNCTION risk_alert._check_streams() RETURNS SETOF risk_alert._finding
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s risk_alert.stream;
    r record;
BEGIN
    IF NOT EXISTS (SELECT FROM risk_alert.stream) THEN
        RETURN NEXT ROW('streams', 'info', pg_catalog.current_database(), 'no table is watched', NULL,
                        'SELECT risk_alert.watch(...)')::risk_alert._finding;
    END IF;
    FOR s IN SELECT * FROM risk_alert.stream ORDER BY name LOOP
        IF risk_alert._qualified(s.relation) IS NULL THEN
            RETURN NEXT ROW('table', 'error', s.name, 'the table no longer exists',
                pg_catalog.format('Its OID was %s.', s.relation::oid),
                pg_catalog.format('SELECT risk_alert.unwatch(%L)', s.name))::risk_alert._finding;
        ELSE
            RETURN QUERY SELECT * FROM risk_alert._check_capture(s);
            RETURN QUERY SELECT * FROM risk_alert._check_rules(s);
            RETURN QUERY SELECT * FROM risk_alert._check_activity(s);
        END IF;
    END LOOP;

    FOR r IN
        SELECT g.tgname, c.oid::regclass AS relation
          FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
         WHERE g.tgfoid = 'risk_alert.capture()'::regprocedure AND g.tgparentid = 0
           AND NOT EXISTS (SELECT FROM risk_alert.stream t
                            WHERE t.relation = c.oid OR t.relation = pg_catalog.pg_partition_root(c.oid))
         ORDER BY c.oid, g.tgname
    LOOP
        RETURN NEXT ROW('trigger', 'warning', risk_alert._qualified(r.relation), 'a trigger captures nothing',
            pg_catalog.format('Trigger "%s" calls risk_alert.capture(), but the table is not watched.', r.tgname),
            pg_catalog.format('SELECT risk_alert.watch(%L, ...), or DROP TRIGGER %I ON %s',
                              risk_alert._qualified(r.relation), r.tgname, risk_alert._qualified(r.relation)))::risk_alert._finding;
    END LOOP;
END
$$;
COMMENT ON FUNCTION risk_alert._check_streams() IS 'internal: findings about all streams';
REVOKE ALL ON FUNCTION risk_alert._check_streams() FROM PUBLIC;

CREATE FUNCTION risk_alert.check_setup(
        OUT name text, OUT level text, OUT object text, OUT description text, OUT detail text, OUT remediation text)
    RETURNS SETOF record
    LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT f.name, f.level, f.object, f.description, f.detail, f.remediation
      FROM (SELECT 1 AS part, a.* FROM risk_alert._check_server() WITH ORDINALITY a
             UNION ALL
            SELECT 2, b.* FROM risk_alert._check_cluster() WITH ORDINALITY b
             UNION ALL
            SELECT 3, c.* FROM risk_alert._check_streams() WITH ORDINALITY c) f
     ORDER BY CASE f.level WHEN 'error' THEN 1 WHEN 'warning' THEN 2 WHEN 'info' THEN 3 ELSE 4 END,
              f.part, f.ordinality
$$;
COMMENT ON FUNCTION risk_alert.check_setup() IS
    'what is wrong, and what to do about it: the first thing to run when something does not work; worst first';
REVOKE ALL ON FUNCTION risk_alert.check_setup() FROM PUBLIC;
