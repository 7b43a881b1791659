-- check_node(): can this node work with that one?
--
-- Runs with the caller's rights, since it is his user mapping that is tried out.
-- Levels and order are those of check_setup().

CREATE FUNCTION risk_alert._check_node(node text) RETURNS SETOF risk_alert._finding
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    f record;
    message text;
    more text;
    hint text;
    before timestamptz;
    after timestamptz;
    there timestamptz;
    round_trip interval;
    ahead interval;
    local_node text := pg_catalog.current_setting('risk_alert.node_name', true);
    local_cluster text := pg_catalog.current_setting('risk_alert.cluster_name', true);
    local_provider text := pg_catalog.current_setting('risk_alert.lock_provider', true);
    library text := risk_alert._library_version();
    lacks text;
BEGIN
    BEGIN
        SELECT * INTO STRICT f FROM risk_alert.on_node(node, $q$
            SELECT pg_catalog.current_setting('server_version_num'),
                   pg_catalog.current_setting('server_version'),
                   (SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'risk_alert'),
                   (SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) 'risk_alert.node_name'),
                   pg_catalog.current_setting('risk_alert.cluster_name', true),
                   pg_catalog.current_setting('risk_alert.lock_provider', true),
                   pg_catalog.current_setting('max_prepared_transactions'),
                   pg_catalog.pg_is_in_recovery(),
                   pg_catalog.current_database(),
                   current_user,
                   (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user),
                   (SELECT pg_catalog.string_agg(r.rolname::text, ', ' ORDER BY r.rolname)
                      FROM pg_catalog.pg_roles r
                     WHERE r.rolname IN ('risk_alert_admin', 'risk_alert_analyst', 'risk_alert_monitor', 'risk_alert_locker')
                       AND pg_catalog.pg_has_role(r.oid, 'USAGE')),
                   (SELECT s.ssl FROM pg_catalog.pg_stat_ssl s WHERE s.pid = pg_catalog.pg_backend_pid()),
                   pg_catalog.inet_server_addr()
            $q$) AS t (version_num int, version text, extension text, node_name text, cluster_name text,
                       lock_provider text, prepared int, recovery bool, database text, usename text, super bool, roles text,
                       ssl bool, address inet);

        -- The node reads its clock somewhere between sending and receiving.
        -- The shortest round trip leaves the least doubt about where.
        FOR i IN 1..3 LOOP
            before := pg_catalog.clock_timestamp();
            SELECT t.now INTO STRICT there
              FROM risk_alert.on_node(node, 'SELECT pg_catalog.clock_timestamp()') AS t (now timestamptz);
            after := pg_catalog.clock_timestamp();
            IF round_trip IS NULL OR after - before < round_trip THEN
                round_trip := after - before;
                ahead := there - (before + round_trip / 2);
            END IF;
        END LOOP;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
        RETURN NEXT ROW('connection', 'error', node, 'the node cannot be asked',
                        pg_catalog.concat_ws(': ', message, NULLIF(more, '')), NULLIF(hint, ''))::risk_alert._finding;
        RETURN;
    END;
    RETURN NEXT ROW('connection', 'ok', node, 'the node answers',
        pg_catalog.format('A round trip takes %s ms.',
                          pg_catalog.round(pg_catalog.date_part('epoch', round_trip)::numeric * 1000, 1)),
        NULL)::risk_alert._finding;

    IF f.version_num < 150000 THEN
        RETURN NEXT ROW('version', 'error', node, 'PostgreSQL is too old there',
            pg_catalog.format('It has version %s, and 15 is needed.', f.version), 'Upgrade PostgreSQL on that server.')::risk_alert._finding;
    ELSE
        RETURN NEXT ROW('version', 'ok', node, pg_catalog.format('PostgreSQL %s', f.version), NULL, NULL)::risk_alert._finding;
    END IF;

    IF f.extension IS NULL THEN
        RETURN NEXT ROW('extension', 'error', node, 'the database there does not have the extension',
            pg_catalog.format('It is database %I.', f.database),
            'CREATE EXTENSION risk_alert there, or name another database with option dbname of the server.')::risk_alert._finding;
    ELSIF f.extension <> library THEN
        RETURN NEXT ROW('extension', 'warning', node, 'the extension has another version there',
            pg_catalog.format('It has %s, and this server %s.', f.extension, library),
            'Update the older one.')::risk_alert._finding;
    ELSE
        RETURN NEXT ROW('extension', 'ok', node, 'the extension has the same version', f.extension, NULL)::risk_alert._finding;
    END IF;

    -- the library defines the setting; without it, what stands in a configuration file is not in the view
    IF f.node_name IS NULL THEN
        RETURN NEXT ROW('preload', 'error', node, 'the library is not preloaded there', NULL,
            'ALTER SYSTEM SET shared_preload_libraries = risk_alert on that server, then restart it.')::risk_alert._finding;
    ELSE
        RETURN NEXT ROW('preload', 'ok', node, 'the library is preloaded', NULL, NULL)::risk_alert._finding;
        IF f.node_name = '' THEN
            RETURN NEXT ROW('node_name', 'error', node, 'the node does not know its own name', 'risk_alert.node_name is empty there.',
                pg_catalog.format('ALTER SYSTEM SET risk_alert.node_name = %L on that server, then restart it.', node))::risk_alert._finding;
        ELSIF f.node_name <> node THEN
            RETURN NEXT ROW('node_name', 'error', node, 'the node calls itself otherwise',
                pg_catalog.format('risk_alert.node_name is "%s" there.', f.node_name),
                pg_catalog.format('ALTER SERVER %I RENAME TO %I, or see whether its host and port are right.', node, f.node_name))::risk_alert._finding;
        ELSE
            RETURN NEXT ROW('node_name', 'ok', node, 'the node has the same name for itself', NULL, NULL)::risk_alert._finding;
        END IF;
        IF f.cluster_name IS DISTINCT FROM local_cluster THEN
            RETURN NEXT ROW('cluster_name', 'error', node, 'the node is of another cluster',
                pg_catalog.format('risk_alert.cluster_name is "%s" there, and "%s" here.', f.cluster_name, local_cluster),
                'Set risk_alert.cluster_name on the server where it is wrong, and restart that.')::risk_alert._finding;
        ELSE
            RETURN NEXT ROW('cluster_name', 'ok', node, pg_catalog.format('cluster "%s"', f.cluster_name), NULL, NULL)::risk_alert._finding;
        END IF;
        IF f.lock_provider IS DISTINCT FROM local_provider THEN
            RETURN NEXT ROW('lock_provider', 'error', node, 'the node takes its locks elsewhere',
                pg_catalog.format('risk_alert.lock_provider is "%s" there, and "%s" here.', f.lock_provider, local_provider),
                'Set risk_alert.lock_provider to the same value on all nodes.')::risk_alert._finding;
        END IF;
    END IF;
    IF local_node = '' THEN
        RETURN NEXT ROW('this_node', 'warning', node, 'this server is not part of a cluster', 'risk_alert.node_name is empty here.',
            'ALTER SYSTEM SET risk_alert.node_name = ..., then restart the server.')::risk_alert._finding;
    END IF;

    IF f.recovery THEN
        RETURN NEXT ROW('recovery', 'warning', node, 'the node is a standby', 'It can be read only.',
            'Promote it, or let the server''s host name the primary.')::risk_alert._finding;
    END IF;
    IF f.prepared = 0 THEN
        RETURN NEXT ROW('prepared_transactions', 'warning', node, 'the node cannot take part in global transactions',
            'max_prepared_transactions is 0 there.',
            'ALTER SYSTEM SET max_prepared_transactions = 100 on that server, then restart it.')::risk_alert._finding;
    ELSE
        RETURN NEXT ROW('prepared_transactions', 'ok', node, 'the node can take part in global transactions',
            pg_catalog.format('max_prepared_transactions is %s there.', f.prepared), NULL)::risk_alert._finding;
    END IF;

    IF GREATEST(ahead, -ahead) - round_trip / 2 > interval '500 milliseconds' THEN
        RETURN NEXT ROW('clock', 'warning', node, 'the clocks differ',
            pg_catalog.format('The clock there is %s s %s.',
                              pg_catalog.abs(pg_catalog.round(pg_catalog.date_part('epoch', ahead)::numeric, 1)),
                              CASE WHEN ahead > '0' THEN 'ahead' ELSE 'behind' END),
            'Synchronise the clocks of all nodes, by NTP for example.')::risk_alert._finding;
    ELSE
        RETURN NEXT ROW('clock', 'ok', node, 'the clocks agree',
            pg_catalog.format('The difference is %s ms, or less than can be measured.',
                              pg_catalog.abs(pg_catalog.round(pg_catalog.date_part('epoch', ahead)::numeric * 1000))), NULL)::risk_alert._finding;
    END IF;

    IF f.super THEN
        RETURN NEXT ROW('remote_role', 'info', node, 'statements run there as a superuser',
            pg_catalog.format('The user mapping names role %I.', f.usename),
            'A role that is a member of risk_alert_admin is enough.')::risk_alert._finding;
    ELSIF f.roles IS NULL THEN
        RETURN NEXT ROW('remote_role', 'warning', node, 'the role that statements run as has no rights in risk_alert there',
            pg_catalog.format('The user mapping names role %I.', f.usename),
            pg_catalog.format('GRANT risk_alert_admin TO %I on that server.', f.usename))::risk_alert._finding;
    ELSE
        SELECT pg_catalog.string_agg(pg_catalog.format('%s (%s)', u.use, pg_catalog.array_to_string(u.roles, ' or ')), '; ' ORDER BY u.n) INTO lacks
          FROM (VALUES (1, 'read alerts, score', '{risk_alert_admin,risk_alert_analyst}'::text[]),
                       (2, 'work on alerts', '{risk_alert_analyst}'),
                       (3, 'configure, answer recovery, vote as Paxos acceptor', '{risk_alert_admin}'),
                       (4, 'take advisory locks', '{risk_alert_admin,risk_alert_locker}')) u (n, use, roles)
         WHERE NOT u.roles && pg_catalog.string_to_array(f.roles, ', ');
        RETURN NEXT ROW('remote_role', CASE WHEN f.roles ~ 'admin|analyst' THEN 'ok' ELSE 'info' END, node,
            'the role that statements run as has rights in risk_alert there',
            pg_catalog.concat_ws(' ', pg_catalog.format('Role %I has those of %s.', f.usename, f.roles),
                                 'It can''t: ' || lacks || '.'),
            CASE WHEN f.roles !~ 'admin|analyst' THEN pg_catalog.format('GRANT what is needed TO %I on that server.', f.usename) END)::risk_alert._finding;

        -- recovery and the Paxos register ask as the owner of the extension
        IF f.roles !~ 'risk_alert_admin'
           AND (current_user = (SELECT pg_catalog.pg_get_userbyid(e.extowner) FROM pg_catalog.pg_extension e WHERE e.extname = 'risk_alert')
                OR NOT EXISTS (SELECT FROM pg_catalog.pg_user_mappings m WHERE m.srvname = node AND m.usename = current_user)) THEN
            RETURN NEXT ROW('recovery_role', 'warning', node, 'recovery of global transactions and the Paxos register have no rights there',
                pg_catalog.format('They use this user mapping, and role %I is no member of risk_alert_admin.', f.usename),
                pg_catalog.format('GRANT risk_alert_admin TO %I on that server.', f.usename))::risk_alert._finding;
        END IF;
    END IF;

    -- (a connection over a socket of the same machine has no address)
    IF NOT f.ssl AND f.address IS NOT NULL AND NOT f.address <<= '127.0.0.0/8' AND f.address <> '::1' THEN
        RETURN NEXT ROW('encryption', 'warning', node, 'the connection is not encrypted',
            pg_catalog.format('The node''s address is %s.', pg_catalog.host(f.address)),
            pg_catalog.format('Set up TLS there, then ALTER SERVER %I OPTIONS (ADD sslmode ''verify-full'').', node))::risk_alert._finding;
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_node(text) IS 'internal: findings about a node';
REVOKE ALL ON FUNCTION risk_alert._check_node(text) FROM PUBLIC;

CREATE FUNCTION risk_alert.check_node(node text,
        OUT name text, OUT level text, OUT description text, OUT detail text, OUT remediation text)
    RETURNS SETOF record
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT f.name, f.level, f.description, f.detail, f.remediation
      FROM risk_alert._check_node(node) WITH ORDINALITY f
     ORDER BY CASE f.level WHEN 'error' THEN 1 WHEN 'warning' THEN 2 WHEN 'info' THEN 3 ELSE 4 END, f.ordinality
$$;
COMMENT ON FUNCTION risk_alert.check_node(text) IS
    'what keeps this server from working with a node, and what to do about it, tried out with the caller''s user mapping; worst first';
REVOKE ALL ON FUNCTION risk_alert.check_node(text) FROM PUBLIC;
