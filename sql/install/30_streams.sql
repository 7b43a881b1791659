-- Streams: watched tables.

-- A unique index other than the one asked for, to be named in hints
CREATE FUNCTION risk_alert._other_key(relation regclass) RETURNS name[]
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT pg_catalog.array_agg(a.attname ORDER BY n)
              FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) n
              JOIN pg_catalog.pg_attribute a ON a.attrelid = relation AND a.attnum = i.indkey[n])
      FROM pg_catalog.pg_index i
     WHERE i.indrelid = relation AND i.indisunique AND i.indimmediate AND i.indisvalid
       AND i.indpred IS NULL AND i.indexprs IS NULL
     ORDER BY i.indexrelid
     LIMIT 1
$$;
COMMENT ON FUNCTION risk_alert._other_key(regclass) IS 'internal: columns that a unique index makes a key of the table';
REVOKE ALL ON FUNCTION risk_alert._other_key(regclass) FROM PUBLIC;

-- Can the table be watched at all?
CREATE FUNCTION risk_alert._check_relation(relation regclass) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c record;
    fullname text := risk_alert._qualified(relation);
    root regclass;
BEGIN
    SELECT t.relkind, t.relpersistence, t.relispartition, t.relhassubclass, n.nspname INTO c
      FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
     WHERE t.oid = relation;
    IF NOT FOUND THEN
        RAISE undefined_table USING
            MESSAGE = pg_catalog.format('table with OID %s does not exist', relation::oid);
    END IF;

    IF c.relkind IN ('v', 'm') THEN
        RAISE wrong_object_type USING
            MESSAGE = pg_catalog.format('cannot watch %s', fullname),
            DETAIL = pg_catalog.format('It is a %s; no rows are inserted into it.',
                                       CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END),
            HINT = 'Watch the table that it reads.';
    ELSIF c.relkind = 'f' THEN
        RAISE wrong_object_type USING
            MESSAGE = pg_catalog.format('cannot watch %s', fullname),
            DETAIL = 'It is a foreign table; its rows may change without a notice here.',
            HINT = 'Watch the table on the server where it lives.';
    ELSIF c.relkind NOT IN ('r', 'p') THEN
        RAISE wrong_object_type USING
            MESSAGE = pg_catalog.format('cannot watch %s', fullname),
            DETAIL = 'It is not a table.';
    ELSIF c.relpersistence = 't' THEN
        RAISE wrong_object_type USING
            MESSAGE = pg_catalog.format('cannot watch temporary table %s', fullname),
            DETAIL = 'The worker, a process of its own, could not read it.',
            HINT = 'Use a permanent table.';
    ELSIF c.nspname IN ('pg_catalog', 'pg_toast', 'information_schema', 'risk_alert') THEN
        RAISE wrong_object_type USING
            MESSAGE = pg_catalog.format('cannot watch system table %s', fullname),
            HINT = 'Watch the table where your events arrive.';
    ELSIF c.relispartition THEN
        root := pg_catalog.pg_partition_root(relation);
        RAISE wrong_object_type USING
            MESSAGE = pg_catalog.format('cannot watch partition %s on its own', fullname),
            DETAIL = pg_catalog.format('It is a partition of %s.', risk_alert._qualified(root)),
            HINT = pg_catalog.format('SELECT risk_alert.watch(%L, ...)', risk_alert._qualified(root));
    ELSIF c.relkind = 'r' AND c.relhassubclass
          AND EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = relation) THEN
        RAISE feature_not_supported USING
            MESSAGE = pg_catalog.format('cannot watch %s', fullname),
            DETAIL = 'Other tables inherit from it, and triggers are not inherited.',
            HINT = 'Use declarative partitioning, or watch the inheriting tables.';
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_relation(regclass) IS 'internal: refuses tables that cannot be watched';
REVOKE ALL ON FUNCTION risk_alert._check_relation(regclass) FROM PUBLIC;

CREATE FUNCTION risk_alert._check_event_time(relation regclass, event_time text) RETURNS name
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    columns name[] := risk_alert._columns(relation, event_time);
    type regtype;
BEGIN
    IF pg_catalog.cardinality(columns) <> 1 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'event_time must be one column',
            DETAIL = pg_catalog.format('It is "%s".', event_time);
    END IF;
    -- of a domain, the type below it
    WITH RECURSIVE below AS (
        SELECT a.atttypid AS oid FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = relation AND a.attname = columns[1] AND NOT a.attisdropped
         UNION ALL
        SELECT y.typbasetype FROM below JOIN pg_catalog.pg_type y ON y.oid = below.oid WHERE y.typtype = 'd'
    )
    SELECT b.oid INTO type FROM below b JOIN pg_catalog.pg_type y ON y.oid = b.oid AND y.typtype <> 'd';
    IF type NOT IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) THEN
        RAISE datatype_mismatch USING
            MESSAGE = pg_catalog.format('column "%s" of table %s cannot be the event time',
                                        columns[1], risk_alert._qualified(relation)),
            DETAIL = pg_catalog.format('Its type is %s; it must be timestamp with time zone, timestamp or date.',
                                       pg_catalog.format_type(type, NULL)),
            HINT = pg_catalog.format(
                CASE WHEN type IN ('int4'::regtype, 'int8'::regtype, 'float8'::regtype, 'numeric'::regtype)
                     THEN 'ALTER TABLE %1$s ADD COLUMN event_time timestamptz GENERATED ALWAYS AS (to_timestamp(%2$I)) STORED'
                     ELSE 'ALTER TABLE %1$s ALTER COLUMN %2$I TYPE timestamptz USING %2$I::text::timestamptz' END
                || ', or name another column.', risk_alert._qualified(relation), columns[1]);
    END IF;
    RETURN columns[1];
END
$$;
COMMENT ON FUNCTION risk_alert._check_event_time(regclass, text) IS 'internal: the column that holds the event time';
REVOKE ALL ON FUNCTION risk_alert._check_event_time(regclass, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._check_key(relation regclass, key text) RETURNS name[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fullname text := risk_alert._qualified(relation);
    columns name[];
    other name[] := risk_alert._other_key(relation);
    partitioning name[];
    nullable name[];
BEGIN
    SELECT pg_catalog.array_agg(a.attname ORDER BY a.attnum) INTO partitioning
      FROM pg_catalog.pg_partitioned_table p
      JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[])
     WHERE p.partrelid = relation;

    IF key IS NULL THEN
        SELECT (SELECT pg_catalog.array_agg(a.attname ORDER BY n)
                  FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) n
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = relation AND a.attnum = i.indkey[n])
          INTO columns
          FROM pg_catalog.pg_index i
         WHERE i.indrelid = relation AND i.indisprimary;
        IF columns IS NULL THEN
            RAISE invalid_table_definition USING
                MESSAGE = pg_catalog.format('table %s has no primary key', fullname),
                DETAIL = 'Events are told apart by the key of their row.',
                HINT = CASE
                    WHEN other IS NOT NULL THEN
                        pg_catalog.format('Name the columns of a unique index: key => %L.', risk_alert._column_list(other))
                    WHEN partitioning IS NOT NULL THEN
                        pg_catalog.format('ALTER TABLE %s ADD PRIMARY KEY (..., %s)', fullname, risk_alert._column_list(partitioning))
                    ELSE
                        pg_catalog.format('ALTER TABLE %s ADD COLUMN event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY', fullname)
                    END;
        END IF;
    ELSE
        columns := risk_alert._columns(relation, key);
    END IF;

    IF risk_alert._key_index(relation, columns) IS NULL THEN
        RAISE invalid_table_definition USING
            MESSAGE = pg_catalog.format('columns (%s) are not a key of table %s', risk_alert._column_list(columns), fullname),
            DETAIL = 'A key needs a unique index on just these columns that is valid, without a WHERE clause, and not deferrable.',
            HINT = CASE
                WHEN partitioning IS NOT NULL AND NOT columns @> partitioning THEN
                    pg_catalog.format('The key of a partitioned table includes the columns it is partitioned by: %s',
                                      risk_alert._create_index(relation, columns || ARRAY(
                                          SELECT p FROM pg_catalog.unnest(partitioning) p WHERE p <> ALL (columns)), true))
                ELSE risk_alert._create_index(relation, columns, true)
                END;
    END IF;

    SELECT pg_catalog.array_agg(a.attname ORDER BY a.attnum) INTO nullable
      FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = relation AND a.attname = ANY (columns) AND NOT a.attnotnull;
    IF nullable IS NOT NULL THEN
        RAISE WARNING USING
            MESSAGE = pg_catalog.format('key columns of table %s may be NULL: %s', fullname, risk_alert._column_list(nullable)),
            DETAIL = 'Events whose key has a NULL in it cannot be told apart.',
            HINT = pg_catalog.format('ALTER TABLE %s %s', fullname,
                (SELECT pg_catalog.string_agg(pg_catalog.format('ALTER COLUMN %I SET NOT NULL', n), ', ')
                   FROM pg_catalog.unnest(nullable) n));
    END IF;
    RETURN columns;
END
$$;
COMMENT ON FUNCTION risk_alert._check_key(regclass, text) IS 'internal: the columns that tell a table''s rows apart';
REVOKE ALL ON FUNCTION risk_alert._check_key(regclass, text) FROM PUBLIC;

-- A stream that is not made by watch() comes from a dump.  The layout it had
-- there means nothing here, and could be taken for another one.
CREATE FUNCTION risk_alert._restore_stream() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.layout_id := NULL;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION risk_alert._restore_stream() IS 'internal: trigger function that marks a new stream as one to be refreshed';
REVOKE ALL ON FUNCTION risk_alert._restore_stream() FROM PUBLIC;
CREATE TRIGGER restore_stream
    BEFORE INSERT ON risk_alert.stream
    FOR EACH ROW EXECUTE FUNCTION risk_alert._restore_stream();
COMMENT ON TRIGGER restore_stream ON risk_alert.stream IS 'marks a stream from a dump as one to be refreshed';

-- Which row events (bits of pg_trigger.tgtype: 4 INSERT, 8 DELETE, 16 UPDATE)
-- reach capture() by triggers of the user's, or by our own.  A trigger with a condition or a list
-- of columns lets events pass by.
CREATE FUNCTION risk_alert._captured_events(relation regclass, by_us bool) RETURNS int
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(pg_catalog.bit_or(t.tgtype::int) & 28, 0)
      FROM pg_catalog.pg_trigger t
     WHERE t.tgrelid = relation AND t.tgfoid = 'risk_alert.capture()'::regprocedure
       AND t.tgtype & 1 = 1 AND t.tgtype & 66 = 0 AND t.tgparentid = 0
       AND CASE WHEN by_us THEN t.tgname = 'risk_alert_capture'
                ELSE t.tgname <> 'risk_alert_capture' AND t.tgenabled IN ('O', 'A')
                     AND t.tgqual IS NULL AND pg_catalog.cardinality(t.tgattr::int2[]) = 0 END
$$;
COMMENT ON FUNCTION risk_alert._captured_events(regclass, bool) IS 'internal: which events of a table''s rows are captured';
REVOKE ALL ON FUNCTION risk_alert._captured_events(regclass, bool) FROM PUBLIC;

-- Triggers, on a table or its partitions, from which capture() cannot capture:
-- it refuses them, so the statements that fire them fail.
CREATE FUNCTION risk_alert._wrong_triggers(relation regclass, OUT on_table regclass, OUT trigger name, OUT reason text)
    RETURNS SETOF record
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT g.tgrelid::regclass, g.tgname,
           CASE WHEN g.tgtype & 2 <> 0 THEN 'It fires BEFORE; risk_alert.capture() must be called AFTER.'
                ELSE 'It fires FOR EACH STATEMENT; risk_alert.capture() must be called FOR EACH ROW.' END
      FROM (SELECT relation AS oid
             UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(relation) p) tree
      JOIN pg_catalog.pg_trigger g ON g.tgrelid = tree.oid
     WHERE g.tgfoid = 'risk_alert.capture()'::regprocedure AND g.tgparentid = 0 AND g.tgenabled <> 'D'
       AND (g.tgtype & 2 <> 0 OR (g.tgtype & 1 = 0 AND g.tgtype & 28 <> 0))
     ORDER BY g.tgrelid, g.tgname
$$;
COMMENT ON FUNCTION risk_alert._wrong_triggers(regclass) IS 'internal: triggers that make the statements of a table fail';
REVOKE ALL ON FUNCTION risk_alert._wrong_triggers(regclass) FROM PUBLIC;

-- Triggers, on a table or its partitions, that leave all they fire for to another
-- one: as is_responsible() in src/engine/capture.c has it.
CREATE FUNCTION risk_alert._idle_triggers(relation regclass, OUT on_table regclass, OUT trigger name)
    RETURNS SETOF record
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH t AS (
        SELECT g.tgrelid, g.tgname, g.tgtype, g.tgparentid,
               CASE WHEN g.tgqual IS NULL AND pg_catalog.cardinality(g.tgattr::int2[]) = 0 THEN 0 ELSE 3 END
                   - pg_catalog.bit_count((g.tgtype::int & 28)::bit(5)) AS turn
          FROM (SELECT relation AS oid
                 UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(relation) p) tree
          JOIN pg_catalog.pg_trigger g ON g.tgrelid = tree.oid
         WHERE g.tgfoid = 'risk_alert.capture()'::regprocedure
           AND g.tgtype & 1 = 1 AND g.tgtype & 66 = 0 AND g.tgenabled IN ('O', 'A')
    )
    SELECT t.tgrelid::regclass, t.tgname
      FROM t
     WHERE t.tgparentid = 0
       AND t.tgtype & 28 & ~(SELECT COALESCE(pg_catalog.bit_or(o.tgtype::int), 0) FROM t o
                              WHERE o.tgrelid = t.tgrelid AND o.turn < 0 AND (o.turn, o.tgname) < (t.turn, t.tgname)) = 0
     ORDER BY t.tgrelid, t.tgname
$$;
COMMENT ON FUNCTION risk_alert._idle_triggers(regclass) IS 'internal: triggers that capture nothing, since others do';
REVOKE ALL ON FUNCTION risk_alert._idle_triggers(regclass) FROM PUBLIC;

-- Attach the triggers that are missing.  Row triggers of a partitioned table
-- reach its partitions, present and future; triggers on TRUNCATE do not, but
-- src/utility.c sees when a partition is emptied.
CREATE FUNCTION risk_alert._attach(relation regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    needed int := 28 & ~risk_alert._captured_events(relation, false);
    ours int := risk_alert._captured_events(relation, true);
    t record;
BEGIN
    SELECT n.nspname, c.relname INTO t
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = relation;
    IF needed & ~ours <> 0 THEN
        IF ours <> 0 THEN
            EXECUTE pg_catalog.format('DROP TRIGGER risk_alert_capture ON %I.%I', t.nspname, t.relname);
        END IF;
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER risk_alert_capture AFTER '
            || pg_catalog.concat_ws(' OR ', CASE WHEN needed & 4 <> 0 THEN 'INSERT' END,
                                    CASE WHEN needed & 16 <> 0 THEN 'UPDATE' END,
                                    CASE WHEN needed & 8 <> 0 THEN 'DELETE' END)
            || ' ON %I.%I FOR EACH ROW EXECUTE FUNCTION risk_alert.capture()', t.nspname, t.relname);
        EXECUTE pg_catalog.format('COMMENT ON TRIGGER risk_alert_capture ON %I.%I IS %L', t.nspname, t.relname,
                                  'made by risk_alert: captures rows as events');
    END IF;

    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
                    WHERE g.tgrelid = relation AND g.tgfoid = 'risk_alert.capture()'::regprocedure
                      AND g.tgtype & 32 <> 0) THEN
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER risk_alert_truncate AFTER TRUNCATE ON %I.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION risk_alert.capture()', t.nspname, t.relname);
        EXECUTE pg_catalog.format('COMMENT ON TRIGGER risk_alert_truncate ON %I.%I IS %L', t.nspname, t.relname,
                                  'made by risk_alert: forgets the windows of a table that is emptied');
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._attach(regclass) IS 'internal: attaches the missing triggers to a watched table';
REVOKE ALL ON FUNCTION risk_alert._attach(regclass) FROM PUBLIC;

-- Drop the triggers that _attach() made
CREATE FUNCTION risk_alert._detach(relation regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT g.tgname, n.nspname, c.relname,
               g.tgname IN ('risk_alert_capture', 'risk_alert_truncate') AS ours
          FROM (SELECT relation AS oid
                 UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(relation) p) tree
          JOIN pg_catalog.pg_class c ON c.oid = tree.oid
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_trigger g ON g.tgrelid = c.oid
         WHERE g.tgfoid = 'risk_alert.capture()'::regprocedure AND g.tgparentid = 0
         ORDER BY c.oid, g.tgname
    LOOP
        IF t.ours THEN
            EXECUTE pg_catalog.format('DROP TRIGGER %I ON %I.%I', t.tgname, t.nspname, t.relname);
        ELSE
            RAISE NOTICE USING
                MESSAGE = pg_catalog.format('trigger "%s" on table %I.%I stays', t.tgname, t.nspname, t.relname),
                DETAIL = 'It was not made by risk_alert, and captures nothing any more.',
                HINT = pg_catalog.format('DROP TRIGGER %I ON %I.%I', t.tgname, t.nspname, t.relname);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION risk_alert._detach(regclass) IS 'internal: drops the triggers that were attached to a watched table';
REVOKE ALL ON FUNCTION risk_alert._detach(regclass) FROM PUBLIC;

CREATE FUNCTION risk_alert._watch(table_name regclass, time_column text, key_columns text, review int, deny int,
                                  fold_within interval, stream_name text, ticket bigint) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    taken risk_alert.stream;
    t record;
    g record;
    new_id int;
BEGIN
    PERFORM risk_alert._not_null('table_name,event_time,review_at,deny_at,suppress',
                                 table_name::oid::text, time_column, review::text, deny::text, fold_within::text);
    PERFORM risk_alert._check_relation(table_name);
    PERFORM risk_alert._check_access(table_name, caller, true);
    PERFORM risk_alert._check_thresholds(review, deny, fold_within);

    -- as CREATE TRIGGER will: from here on the table stays as it is checked
    SELECT n.nspname, c.relname INTO t
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = table_name;
    EXECUTE pg_catalog.format('LOCK TABLE %I.%I IN SHARE ROW EXCLUSIVE MODE', t.nspname, t.relname);
    SELECT w.* INTO g FROM risk_alert._wrong_triggers(table_name) w LIMIT 1;
    IF FOUND THEN
        RAISE invalid_object_definition USING
            MESSAGE = pg_catalog.format('trigger "%s" on table %s cannot capture', g.trigger, risk_alert._qualified(g.on_table)),
            DETAIL = g.reason,
            HINT = pg_catalog.format('DROP TRIGGER %I ON %s; watch() makes the triggers that it needs.',
                                     g.trigger, risk_alert._qualified(g.on_table));
    END IF;

    stream_name := risk_alert._label('stream', COALESCE(stream_name, t.relname));
    SELECT * INTO taken FROM risk_alert.stream WHERE relation = table_name;
    IF FOUND THEN
        RAISE duplicate_object USING
            MESSAGE = pg_catalog.format('table %s is watched already', risk_alert._qualified(table_name)),
            DETAIL = pg_catalog.format('Its stream is "%s".', taken.name),
            HINT = pg_catalog.format('Change it with risk_alert.alter_stream(%1$L, ...), or end it first: SELECT risk_alert.unwatch(%1$L)', taken.name);
    END IF;
    SELECT * INTO taken FROM risk_alert.stream WHERE name = stream_name;
    IF FOUND THEN
        RAISE duplicate_object USING
            MESSAGE = pg_catalog.format('stream "%s" exists already', stream_name),
            DETAIL = COALESCE('It watches table ' || risk_alert._qualified(taken.relation) || '.',
                              'Its table no longer exists.'),
            HINT = CASE WHEN risk_alert._qualified(taken.relation) IS NULL
                        THEN pg_catalog.format('SELECT risk_alert.unwatch(%L)', stream_name)
                        ELSE pg_catalog.format('Give it another name: name => %L.', t.nspname || '.' || t.relname) END;
    END IF;

    INSERT INTO risk_alert.stream (name, relation, key, event_time, review_at, deny_at, suppress, version, owner)
        VALUES (stream_name, table_name, risk_alert._check_key(table_name, key_columns),
                risk_alert._check_event_time(table_name, time_column), review, deny, fold_within, 1, caller)
        RETURNING stream_id INTO new_id;
    INSERT INTO risk_alert.rule_set (stream_id, stream, version, made_by)
        VALUES (new_id, stream_name, 1, pg_catalog.pg_get_userbyid(caller));

    -- What unwatch() has left, lest it wait for the worker
    DELETE FROM risk_alert.stream_stat st
     WHERE NOT EXISTS (SELECT FROM risk_alert.stream s WHERE s.stream_id = st.stream_id);
    DELETE FROM risk_alert.rule_stat st
     WHERE NOT EXISTS (SELECT FROM risk_alert.rule r WHERE r.rule_id = st.rule_id);
    DELETE FROM risk_alert.capture_layout l
     WHERE NOT EXISTS (SELECT FROM risk_alert.stream s WHERE s.stream_id = l.stream_id);

    PERFORM risk_alert._attach(table_name);
    PERFORM risk_alert._end_change(new_id);
    FOR g IN SELECT i.* FROM risk_alert._idle_triggers(table_name) i LOOP
        RAISE WARNING USING
            MESSAGE = pg_catalog.format('trigger "%s" on table %s captures nothing', g.trigger, risk_alert._qualified(g.on_table)),
            DETAIL = 'Another trigger captures all that it fires for, and no event counts twice.',
            HINT = pg_catalog.format('DROP TRIGGER %I ON %s', g.trigger, risk_alert._qualified(g.on_table));
    END LOOP;

    IF NOT risk_alert._preloaded() THEN
        RAISE WARNING USING
            MESSAGE = 'events are captured, but nothing processes them',
            DETAIL = 'risk_alert is not in shared_preload_libraries, so it has no worker.',
            HINT = risk_alert._preload_hint();
    END IF;
    RETURN stream_name;
END
$$;
COMMENT ON FUNCTION risk_alert._watch(regclass, text, text, int, int, interval, text, bigint) IS 'internal: see watch()';
REVOKE ALL ON FUNCTION risk_alert._watch(regclass, text, text, int, int, interval, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.watch(table_name regclass, event_time text, key text DEFAULT NULL,
                                 review_at int DEFAULT 50, deny_at int DEFAULT 80,
                                 suppress interval DEFAULT '1 hour', name text DEFAULT NULL) RETURNS text
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._watch(table_name, event_time, key, review_at, deny_at, suppress, name, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.watch(regclass, text, text, int, int, interval, text) IS
    'makes a table a stream: each new row becomes an event that is scored; returns the stream''s name (default: the table''s)';
REVOKE ALL ON FUNCTION risk_alert.watch(regclass, text, text, int, int, interval, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._unwatch(stream_name text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s risk_alert.stream := risk_alert._begin_change(stream_name, risk_alert._caller(ticket));
BEGIN
    DELETE FROM risk_alert.rule WHERE stream_id = s.stream_id;
    DELETE FROM risk_alert.feature WHERE stream_id = s.stream_id;
    PERFORM risk_alert._refresh_stream(s.stream_id);    -- depends on nothing they used
    PERFORM risk_alert._invalidate_stream(s.stream_id);
    DELETE FROM risk_alert.stream WHERE stream_id = s.stream_id;
    IF risk_alert._qualified(s.relation) IS NOT NULL THEN
        PERFORM risk_alert._detach(s.relation);
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._unwatch(text, bigint) IS 'internal: see unwatch()';
REVOKE ALL ON FUNCTION risk_alert._unwatch(text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.unwatch(stream text) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._unwatch(stream, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.unwatch(text) IS
    'ends a stream: drops its features, its rules and the triggers on its table; its alerts stay';
REVOKE ALL ON FUNCTION risk_alert.unwatch(text) FROM PUBLIC;

-- Without settings to change it makes no version, but puts right what a
-- restored dump or a new partition lacks.
CREATE FUNCTION risk_alert._alter_stream(stream_name text, review int, deny int, fold_within interval, ticket bigint)
    RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    s risk_alert.stream;
BEGIN
    IF review IS NULL AND deny IS NULL AND fold_within IS NULL THEN
        s := risk_alert._find_stream(stream_name);
        PERFORM risk_alert._check_table_exists(s);
        PERFORM risk_alert._attach(s.relation);
        PERFORM risk_alert._refresh_stream(s.stream_id);
        -- rows may have come that no trigger saw
        PERFORM risk_alert._forget_windows(s.relation);
        RETURN;
    END IF;

    s := risk_alert._begin_change(stream_name, caller);
    PERFORM risk_alert._check_table_exists(s);
    PERFORM risk_alert._check_thresholds(COALESCE(review, s.review_at), COALESCE(deny, s.deny_at),
                                         COALESCE(fold_within, s.suppress));
    UPDATE risk_alert.stream
       SET review_at = COALESCE(review, review_at),
           deny_at = COALESCE(deny, deny_at),
           suppress = COALESCE(fold_within, suppress)
     WHERE stream_id = s.stream_id;
    PERFORM risk_alert._attach(s.relation);
    PERFORM risk_alert._end_change(s.stream_id);
END
$$;
COMMENT ON FUNCTION risk_alert._alter_stream(text, int, int, interval, bigint) IS 'internal: see alter_stream()';
REVOKE ALL ON FUNCTION risk_alert._alter_stream(text, int, int, interval, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.alter_stream(stream text, review_at int DEFAULT NULL, deny_at int DEFAULT NULL,
                                        suppress interval DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._alter_stream(stream, review_at, deny_at, suppress, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.alter_stream(text, int, int, interval) IS
    'changes what is given of a stream''s settings; in any case attaches triggers that are missing';
REVOKE ALL ON FUNCTION risk_alert.alter_stream(text, int, int, interval) FROM PUBLIC;
