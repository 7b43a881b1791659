-- Publishing over the cluster: a rule set, or a change of a list, on all nodes or on none.
--
-- A publication is one global transaction.  It locks the stream's row on every live node, in the order
-- of the nodes' names, so that two publishers never wait for each other; then looks once more who is
-- live, since a node that joins later asks for what it has missed behind these locks (src/cluster/catchup.c);
-- gives the publication a number, its epoch, above all that any node has; and makes each node's
-- configuration equal to this node's.  What is the same already stays as it is: its windows,
-- statistics and owners.
--
-- Its own share a node does in the publisher's own transaction, with register local; otherwise in
-- a branch like any other, over the server that has its own name.
--
-- Epochs are numbers that are never given twice: any two publications have a node in
-- common, since each takes more than half of the nodes that are known.

CREATE FUNCTION risk_alert._publish_nodes() RETURNS text[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own text := current_setting('risk_alert.node_name', true);
    known text[];
    live text[];
BEGIN
    IF COALESCE(own, '') = '' THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = 'this server is not part of a cluster',
            DETAIL = 'risk_alert.node_name is empty.',
            HINT = 'ALTER SYSTEM SET risk_alert.node_name = ..., then restart the server.';
    END IF;
    SELECT array_agg(n.name ORDER BY n.name COLLATE "C"),
           array_agg(n.name ORDER BY n.name COLLATE "C") FILTER (WHERE n.live)
      INTO known, live
      FROM risk_alert.nodes n;
    IF current_setting('risk_alert.lock_provider') = 'local' THEN
        RETURN known;               -- nobody tells who is live
    END IF;
    IF own <> ALL (COALESCE(live, '{}')) THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('node "%s" is not a member of the cluster at present', own),
            DETAIL = 'So it does not know which nodes are.',
            HINT = 'SELECT * FROM risk_alert.stat_coordination tells why it has no session.';
    ELSIF cardinality(live) * 2 <= cardinality(known) THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = 'too few nodes are live to publish',
            DETAIL = format('Live are %s of %s: %s.', cardinality(live), cardinality(known), array_to_string(live, ', ')),
            HINT = 'Publishing takes more than half of the nodes, lest two halves publish different things. DROP SERVER removes a node that does not come back.';
    END IF;
    RETURN live;
END
$$;
COMMENT ON FUNCTION risk_alert._publish_nodes() IS 'internal: the nodes that a publication goes to';
REVOKE ALL ON FUNCTION risk_alert._publish_nodes() FROM PUBLIC;

-- A branch to this very node would wait for locks of its own caller
CREATE FUNCTION risk_alert._publish_check() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('risk_alert.commit_register') <> 'local' AND pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE active_sql_transaction USING
            MESSAGE = 'publishing must not follow changes in the same transaction',
            DETAIL = format('With risk_alert.commit_register = %s what is published must be committed before.',
                            current_setting('risk_alert.commit_register')),
            HINT = 'COMMIT first, then publish.';
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._publish_check() IS 'internal: refuses to publish in a transaction that has changes of its own';
REVOKE ALL ON FUNCTION risk_alert._publish_check() FROM PUBLIC;

-- One step of a publication on a node
CREATE FUNCTION risk_alert._publish_run(node text, sql text, VARIADIC params text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF node = current_setting('risk_alert.node_name') AND current_setting('risk_alert.commit_register') = 'local' THEN
        EXECUTE sql USING params[1], params[2], params[3], params[4], params[5], params[6];
    ELSE
        PERFORM risk_alert.global_execute(node, sql, params);
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._publish_run(text, text, text[]) IS 'internal: runs one step of a publication on a node';
REVOKE ALL ON FUNCTION risk_alert._publish_run(text, text, text[]) FROM PUBLIC;

-- Locks what is published on all nodes; which they are.  Who has come meanwhile is
-- locked out of order, so nobody waits for it.
CREATE FUNCTION risk_alert._publish_lock_all(sql text, object text) RETURNS text[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    nodes text[] := risk_alert._publish_nodes();
    node text;
BEGIN
    FOREACH node IN ARRAY nodes LOOP
        PERFORM risk_alert._publish_run(node, sql, object, 'true');
    END LOOP;
    FOREACH node IN ARRAY risk_alert._publish_nodes() LOOP
        CONTINUE WHEN node = ANY (nodes);
        PERFORM risk_alert._publish_run(node, sql, object, 'false');
        nodes := nodes || node;
    END LOOP;
    RETURN nodes;
END
$$;
COMMENT ON FUNCTION risk_alert._publish_lock_all(text, text) IS 'internal: locks what is to be published on all nodes, and names them';
REVOKE ALL ON FUNCTION risk_alert._publish_lock_all(text, text) FROM PUBLIC;

-- Rule sets

-- The table's lock is for those who ask what was published
CREATE FUNCTION risk_alert._publish_begin(wait bool) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before text := current_setting('lock_timeout');
BEGIN
    IF NOT wait THEN
        PERFORM set_config('lock_timeout', '1s', true);
    END IF;
    LOCK TABLE risk_alert.list_epoch IN ROW EXCLUSIVE MODE;
    RETURN before;
END
$$;
COMMENT ON FUNCTION risk_alert._publish_begin(bool) IS
    'internal: begins to lock what is published; returns the lock_timeout to be restored';
REVOKE ALL ON FUNCTION risk_alert._publish_begin(bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._publish_lock(stream_name text, wait bool) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id int := (risk_alert._find_stream(stream_name)).stream_id;
    before text := risk_alert._publish_begin(wait);
BEGIN
    PERFORM FROM risk_alert.stream s WHERE s.stream_id = id FOR UPDATE;
    IF NOT FOUND THEN               -- dropped while we waited
        PERFORM risk_alert._find_stream(stream_name);
    END IF;
    PERFORM set_config('lock_timeout', before, true);
END
$$;
COMMENT ON FUNCTION risk_alert._publish_lock(text, bool) IS 'internal: locks a stream''s configuration until the transaction ends';
REVOKE ALL ON FUNCTION risk_alert._publish_lock(text, bool) FROM PUBLIC;

-- What a publisher must know of a node, of these lists and of the stream
CREATE FUNCTION risk_alert._publish_state(stream_name text, lists text[], OUT epoch bigint, OUT missing text[])
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    epoch := COALESCE((risk_alert._find_stream(stream_name)).epoch, 0);
    missing := ARRAY(SELECT u.name FROM unnest(lists) u (name)
                      WHERE NOT EXISTS (SELECT FROM risk_alert.list l WHERE l.name = u.name));
END
$$;
COMMENT ON FUNCTION risk_alert._publish_state(text, text[]) IS 'internal: a stream''s epoch, 0 if it was never published, and which of the lists are not there';
REVOKE ALL ON FUNCTION risk_alert._publish_state(text, text[]) FROM PUBLIC;

CREATE FUNCTION risk_alert._current_rule_set(stream_name text, OUT version bigint, OUT definition jsonb, OUT lists text[])
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s risk_alert.stream := risk_alert._find_stream(stream_name);
BEGIN
    version := s.version;
    definition := risk_alert._definition(s.stream_id);
    lists := ARRAY(SELECT DISTINCT u.name FROM risk_alert.rule r CROSS JOIN risk_alert._lists_used(r.condition) u (name)
                    WHERE r.stream_id = s.stream_id);
END
$$;
COMMENT ON FUNCTION risk_alert._current_rule_set(text) IS 'internal: a stream''s configuration here, and the lists that it uses';
REVOKE ALL ON FUNCTION risk_alert._current_rule_set(text) FROM PUBLIC;

-- What was published last, though it may have been changed here since
CREATE FUNCTION risk_alert._published_rule_set(stream_name text, OUT epoch bigint, OUT definition jsonb, OUT lists text[])
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s risk_alert.stream := risk_alert._find_stream(stream_name);
BEGIN
    epoch := s.epoch;
    SELECT r.definition INTO definition
      FROM risk_alert.rule_set r WHERE r.stream_id = s.stream_id AND r.version = s.epoch_version;
    lists := ARRAY(SELECT DISTINCT u.name
                     FROM jsonb_array_elements(definition -> 'rules') r CROSS JOIN risk_alert._lists_used(r ->> 'condition') u (name));
END
$$;
COMMENT ON FUNCTION risk_alert._published_rule_set(text) IS 'internal: the rule set of a stream that was published last, and the lists that it uses; NULL: none was';
REVOKE ALL ON FUNCTION risk_alert._published_rule_set(text) FROM PUBLIC;

CREATE FUNCTION risk_alert._list_contents(list_name text) RETURNS jsonb
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
AS $$
    SELECT COALESCE(jsonb_agg(jsonb_build_object('value', e.value, 'expires', e.expires, 'note', e.note,
                                                 'added_by', e.added_by, 'added_at', e.added_at)), '[]')
      FROM risk_alert.list l JOIN risk_alert.list_entry e USING (list_id)
     WHERE l.name = list_name
$$;
COMMENT ON FUNCTION risk_alert._list_contents(text) IS 'internal: the values of a list';
REVOKE ALL ON FUNCTION risk_alert._list_contents(text) FROM PUBLIC;

-- Makes the list if need be, and its values those; leaves alone what is the same
CREATE FUNCTION risk_alert._set_list(list_name text, contents jsonb, caller regrole) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id int;
BEGIN
    INSERT INTO risk_alert.list (name, owner) VALUES (risk_alert._label('list', list_name), caller)
        ON CONFLICT (name) DO NOTHING;
    id := risk_alert._find_list(list_name);
    DELETE FROM risk_alert.list_entry e
     WHERE e.list_id = id
       AND NOT EXISTS (SELECT FROM jsonb_to_recordset(contents) c (value text) WHERE c.value = e.value);
    INSERT INTO risk_alert.list_entry AS e (list_id, value, expires, note, added_by, added_at)
        SELECT id, c.value, c.expires, c.note, c.added_by, c.added_at
          FROM jsonb_to_recordset(contents) c (value text, expires timestamptz, note text, added_by name, added_at timestamptz)
        ON CONFLICT (list_id, value) DO UPDATE
            SET expires = EXCLUDED.expires, note = EXCLUDED.note,
                added_by = EXCLUDED.added_by, added_at = EXCLUDED.added_at
          WHERE (e.expires, e.note, e.added_by, e.added_at)
                IS DISTINCT FROM (EXCLUDED.expires, EXCLUDED.note, EXCLUDED.added_by, EXCLUDED.added_at);
END
$$;
COMMENT ON FUNCTION risk_alert._set_list(text, jsonb, regrole) IS 'internal: gives a list these values';
REVOKE ALL ON FUNCTION risk_alert._set_list(text, jsonb, regrole) FROM PUBLIC;

-- Makes this node's configuration of the stream that of the definition.  What it can't have
-- here (a column is missing, the role may not read it) is an error.  expected: the version that the
-- definition was read from, if it is this node's own.
CREATE FUNCTION risk_alert._publish_apply_as(stream_name text, new_epoch bigint, wanted jsonb, expected bigint, ticket bigint)
    RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET intervalstyle = postgres
AS $$
DECLARE
    path CONSTANT text := 'pg_catalog, pg_temp';    -- all names in it are qualified
    caller regrole := risk_alert._caller(ticket);
    s risk_alert.stream;
    here jsonb;
    w record;
    r risk_alert.rule;
    features_changed bool;
BEGIN
    PERFORM risk_alert._publish_lock(stream_name, true);
    s := risk_alert._find_stream(stream_name);
    IF s.version <> expected THEN
        RAISE serialization_failure USING
            MESSAGE = format('stream "%s" was changed while it was being published', s.name),
            HINT = 'Try again.';
    ELSIF s.epoch >= new_epoch THEN
        RAISE serialization_failure USING
            MESSAGE = format('epoch %s of stream "%s" is not newer than what is in use here', new_epoch, s.name),
            DETAIL = format('In use is epoch %s.', s.epoch),
            HINT = 'Try again.';
    END IF;
    s := risk_alert._begin_change(stream_name, caller);
    PERFORM risk_alert._check_table_exists(s);
    here := risk_alert._definition(s.stream_id);

    FOR w IN SELECT l.key AS name, l.value AS contents FROM jsonb_each(COALESCE(wanted -> 'lists', '{}')) l ORDER BY l.key LOOP
        IF NOT EXISTS (SELECT FROM risk_alert.list l WHERE l.name = w.name) THEN
            PERFORM risk_alert._set_list(w.name, w.contents, caller);
        END IF;
    END LOOP;

    DELETE FROM risk_alert.rule u
     WHERE u.stream_id = s.stream_id
       AND NOT EXISTS (SELECT FROM jsonb_array_elements(wanted -> 'rules') x WHERE x ->> 'name' = u.name);

    -- a feature that differs is another one
    DELETE FROM risk_alert.feature f
     WHERE f.stream_id = s.stream_id
       AND NOT EXISTS (SELECT FROM jsonb_array_elements(here -> 'features') x
                         JOIN jsonb_array_elements(wanted -> 'features') y ON x - 'owner' = y - 'owner'
                        WHERE x ->> 'name' = f.name);
    features_changed := FOUND;
    FOR w IN
        SELECT x.*
          FROM jsonb_to_recordset(wanted -> 'features')
               x (name name, entity name[], lookup name[], aggregate text, within interval, filter text, include_current bool)
         WHERE NOT EXISTS (SELECT FROM risk_alert.feature f WHERE f.stream_id = s.stream_id AND f.name = x.name)
         ORDER BY x.name
    LOOP
        features_changed := true;
        PERFORM risk_alert._add_feature(s, format('%I', w.name), risk_alert._column_list(w.entity), w.aggregate, w.within,
                                        w.filter, w.include_current, risk_alert._column_list(w.lookup), path, caller);
    END LOOP;

    FOR w IN
        SELECT x.*
          FROM jsonb_to_recordset(wanted -> 'rules')
               x (name text, condition text, points int, severity text, reason text, status text)
         ORDER BY x.name
    LOOP
        SELECT * INTO r FROM risk_alert.rule u WHERE u.stream_id = s.stream_id AND u.name = w.name;
        IF NOT FOUND THEN
            PERFORM risk_alert._add_rule(s, w.name, w.condition, w.points, w.severity, w.reason, w.status, path, caller);
            CONTINUE;
        END IF;
        IF (r.condition, r.points, r.severity, r.reason, r.status)
              IS DISTINCT FROM (w.condition, w.points, w.severity, w.reason, w.status) THEN
            PERFORM risk_alert._change_rule(s, w.name, NULLIF(w.condition, r.condition), w.points, w.severity,
                                            NULLIF(w.reason, r.reason), NULLIF(w.status, r.status), path, caller);
        END IF;
        IF features_changed AND w.condition = r.condition THEN
            -- it may mean something else now
            PERFORM risk_alert._check_condition(s.stream_id, r.condition, path, r.owner);
            PERFORM risk_alert._check_reason(s.stream_id, w.reason, r.owner);
        END IF;
    END LOOP;

    PERFORM risk_alert._check_thresholds((wanted ->> 'review_at')::int, (wanted ->> 'deny_at')::int,
                                         (wanted ->> 'suppress')::interval);
    UPDATE risk_alert.stream u
       SET review_at = (wanted ->> 'review_at')::int,
           deny_at = (wanted ->> 'deny_at')::int,
           suppress = (wanted ->> 'suppress')::interval,
           epoch = new_epoch,
           epoch_version = u.version,
           epoch_role = caller
     WHERE u.stream_id = s.stream_id;
    PERFORM risk_alert._end_change(s.stream_id);

    -- now, since the transaction may go on to change it
    UPDATE risk_alert.rule_set u
       SET epoch = new_epoch, definition = risk_alert._definition(s.stream_id)
     WHERE u.stream_id = s.stream_id AND u.version = s.version;
END
$$;
COMMENT ON FUNCTION risk_alert._publish_apply_as(text, bigint, jsonb, bigint, bigint) IS 'internal: see _publish_apply()';
REVOKE ALL ON FUNCTION risk_alert._publish_apply_as(text, bigint, jsonb, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert._publish_apply(stream text, epoch bigint, definition jsonb, expected bigint) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._publish_apply_as(stream, epoch, definition, expected, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert._publish_apply(text, bigint, jsonb, bigint) IS
    'internal: puts a published rule set into use on this node; new rules and features are the caller''s';
REVOKE ALL ON FUNCTION risk_alert._publish_apply(text, bigint, jsonb, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.publish_cluster(stream text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own text := current_setting('risk_alert.node_name', true);
    rule_set record;
    nodes text[];
    node text;
    state record;
    absent text[];
    missing text[] := '{}';
    own_epoch bigint;
    new_epoch bigint := 0;
    newest text;
BEGIN
    PERFORM risk_alert._not_null('stream', stream);
    PERFORM risk_alert._publish_check();
    PERFORM risk_alert._current_rule_set(stream);       -- there is one
    nodes := risk_alert._publish_lock_all('SELECT risk_alert._publish_lock($1, $2::bool)', stream);

    rule_set := risk_alert._current_rule_set(stream);
    SELECT COALESCE(array_agg(m.list ORDER BY m.list), '{}') INTO absent
      FROM unnest((risk_alert._publish_state(stream, rule_set.lists)).missing) m (list);
    FOREACH node IN ARRAY nodes LOOP
        IF node = own THEN
            state := risk_alert._publish_state(stream, rule_set.lists);
            own_epoch := state.epoch;
        ELSE
            SELECT * INTO state
              FROM risk_alert.on_node(node, 'SELECT * FROM risk_alert._publish_state($1, $2::text[])',
                                      ARRAY[stream, rule_set.lists::text]) n (epoch bigint, missing text[]);
        END IF;
        IF state.epoch > new_epoch THEN
            new_epoch := state.epoch;
            newest := node;
        END IF;
        missing := missing || state.missing;
    END LOOP;
    IF own_epoch < new_epoch THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('node "%s" has not caught up with what was published of stream "%s"', own, stream),
            DETAIL = format('Node "%s" has epoch %s of it, and this one %s.', newest, new_epoch, COALESCE(NULLIF(own_epoch, 0)::text, 'none')),
            HINT = format('Its rule set would undo that. SELECT risk_alert.pull_cluster(%L, %L), then make your changes again.', stream, newest);
    END IF;
    new_epoch := new_epoch + 1;

    -- a list that is not here either is as missing there as it is here
    rule_set.definition := rule_set.definition || jsonb_build_object('lists',
        COALESCE((SELECT jsonb_object_agg(m.list, risk_alert._list_contents(m.list))
                    FROM (SELECT DISTINCT u.list FROM unnest(missing) u (list)) m
                   WHERE m.list <> ALL (absent)), '{}'));
    FOREACH node IN ARRAY nodes LOOP
        PERFORM risk_alert._publish_run(node, 'SELECT risk_alert._publish_apply($1, $2::bigint, $3::jsonb, $4::bigint)',
                                        stream, new_epoch::text, rule_set.definition::text,
                                        CASE WHEN node = own THEN rule_set.version::text END);
    END LOOP;
    RETURN new_epoch;
END
$$;
COMMENT ON FUNCTION risk_alert.publish_cluster(text) IS
    'makes this node''s rule set of a stream (thresholds, features, rules) that of all live nodes when the transaction commits, or of none; returns the epoch, a number that names it in alerts';
REVOKE ALL ON FUNCTION risk_alert.publish_cluster(text) FROM PUBLIC;

CREATE FUNCTION risk_alert.pull_cluster(stream text, node text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    there record;
    here record;
    contents jsonb;
    lists jsonb := '{}';
    list text;
BEGIN
    PERFORM risk_alert._not_null('stream,node', stream, node);
    SELECT * INTO there
      FROM risk_alert.on_node(node, 'SELECT * FROM risk_alert._published_rule_set($1)', ARRAY[stream])
           n (epoch bigint, definition jsonb, lists text[]);
    here := risk_alert._publish_state(stream, there.lists);
    IF there.epoch IS NULL THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('stream "%s" was never published on node "%s"', stream, node),
            HINT = format('SELECT risk_alert.publish_cluster(%L) there.', stream);
    ELSIF here.epoch >= there.epoch THEN
        RETURN here.epoch;
    END IF;
    FOREACH list IN ARRAY here.missing LOOP
        SELECT n.contents INTO contents
          FROM risk_alert.on_node(node, 'SELECT risk_alert._list_contents($1)', ARRAY[list]) n (contents jsonb);
        lists := lists || jsonb_build_object(list, contents);
    END LOOP;
    PERFORM risk_alert._publish_apply(stream, there.epoch, there.definition || jsonb_build_object('lists', lists), NULL);
    RETURN there.epoch;
END
$$;
COMMENT ON FUNCTION risk_alert.pull_cluster(text, text) IS
    'puts into use here what was published last of a stream, as another node has it: for a node that is new in the cluster; returns its epoch';
REVOKE ALL ON FUNCTION risk_alert.pull_cluster(text, text) FROM PUBLIC;

-- Lists

CREATE FUNCTION risk_alert._list_lock(list_name text, wait bool) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before text := risk_alert._publish_begin(wait);
BEGIN
    PERFORM risk_alert._label('list', list_name);
    INSERT INTO risk_alert.list_epoch (name) VALUES (list_name) ON CONFLICT (name) DO NOTHING;
    PERFORM FROM risk_alert.list_epoch l WHERE l.name = list_name FOR UPDATE;
    PERFORM set_config('lock_timeout', before, true);
END
$$;
COMMENT ON FUNCTION risk_alert._list_lock(text, bool) IS 'internal: locks a list against other changes on all nodes, until the transaction ends';
REVOKE ALL ON FUNCTION risk_alert._list_lock(text, bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._list_state(list_name text, OUT epoch bigint, OUT dropped bool)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(pg_catalog.max(l.epoch), 0), COALESCE(pg_catalog.bool_or(l.dropped), false)
      FROM risk_alert.list_epoch l WHERE l.name = list_name
$$;
COMMENT ON FUNCTION risk_alert._list_state(text) IS 'internal: a list''s epoch, 0 if it was never changed on all nodes, and whether it was dropped with that';
REVOKE ALL ON FUNCTION risk_alert._list_state(text) FROM PUBLIC;

CREATE FUNCTION risk_alert._note_list_epoch(list_name text, new_epoch bigint, is_dropped bool, is_modified bool, ticket bigint)
    RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
BEGIN
    INSERT INTO risk_alert.list_epoch AS l (name, epoch, dropped, epoch_role)
        VALUES (list_name, new_epoch, is_dropped, caller)
        ON CONFLICT (name) DO UPDATE
            SET epoch = EXCLUDED.epoch, dropped = EXCLUDED.dropped, epoch_role = EXCLUDED.epoch_role;
    UPDATE risk_alert.list l SET modified = is_modified WHERE l.name = list_name AND l.modified <> is_modified;
END
$$;
COMMENT ON FUNCTION risk_alert._note_list_epoch(text, bigint, bool, bool, bigint) IS 'internal: notes a change of a list on all nodes';
REVOKE ALL ON FUNCTION risk_alert._note_list_epoch(text, bigint, bool, bool, bigint) FROM PUBLIC;

-- A change of a list on this node that all others make too; with the caller's rights
CREATE FUNCTION risk_alert._list_apply(list text, epoch bigint, action text, value text, expires timestamptz, note text) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    modified bool := COALESCE((SELECT l.modified FROM risk_alert.lists l WHERE l.list = _list_apply.list), false);
BEGIN
    CASE action
        WHEN 'create' THEN
            PERFORM risk_alert.create_list(list);
        WHEN 'drop' THEN
            PERFORM risk_alert.drop_list(list);
        WHEN 'add' THEN
            PERFORM risk_alert.list_add(list, value, expires, note);
        WHEN 'remove' THEN
            PERFORM risk_alert.list_remove(list, value);
    END CASE;
    PERFORM risk_alert._note_list_epoch(list, epoch, action = 'drop', modified AND action IN ('add', 'remove'), risk_alert._ticket());
END
$$;
COMMENT ON FUNCTION risk_alert._list_apply(text, bigint, text, text, timestamptz, text) IS 'internal: one node''s share of a change of a list on all nodes';
REVOKE ALL ON FUNCTION risk_alert._list_apply(text, bigint, text, text, timestamptz, text) FROM PUBLIC;

-- A node that has missed earlier changes (it has not caught up yet, or is new) gets the whole list first
CREATE FUNCTION risk_alert._publish_list(action text, list text, value text, expires timestamptz, note text) RETURNS bool
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own text := current_setting('risk_alert.node_name', true);
    nodes text[];
    node text;
    epochs bigint[] := '{}';
    state record;
    latest bigint := -1;
    gone bool;
    source text;
    contents jsonb;
    was_there bool;
BEGIN
    PERFORM risk_alert._not_null('list', list);
    IF action IN ('add', 'remove') THEN
        PERFORM risk_alert._not_null('value', value);
    END IF;
    PERFORM risk_alert._publish_check();
    nodes := risk_alert._publish_lock_all('SELECT risk_alert._list_lock($1, $2::bool)', list);
    FOREACH node IN ARRAY nodes LOOP
        IF node = own THEN
            state := risk_alert._list_state(list);
        ELSE
            SELECT n.epoch, n.dropped INTO state
              FROM risk_alert.on_node(node, 'SELECT * FROM risk_alert._list_state($1)', ARRAY[list]) n (epoch bigint, dropped bool);
        END IF;
        epochs := epochs || state.epoch;
        IF state.epoch > latest THEN
            latest := state.epoch;
            gone := state.dropped;
            source := node;
        END IF;
    END LOOP;
    IF latest > ANY (epochs) AND NOT gone THEN
        IF source = own THEN
            contents := risk_alert._list_contents(list);
        ELSE
            SELECT n.contents INTO contents
              FROM risk_alert.on_node(source, 'SELECT risk_alert._list_contents($1)', ARRAY[list]) n (contents jsonb);
        END IF;
    END IF;

    was_there := EXISTS (SELECT FROM risk_alert.list_entries e WHERE e.list = _publish_list.list AND e.value = _publish_list.value);
    FOR i IN 1 .. cardinality(nodes) LOOP
        IF epochs[i] < latest THEN
            PERFORM risk_alert._publish_run(nodes[i], 'SELECT risk_alert._adopt_list($1, $2::bigint, $3::bool, $4::jsonb)',
                                            list, latest::text, gone::text, contents::text);
        END IF;
        PERFORM risk_alert._publish_run(nodes[i], 'SELECT risk_alert._list_apply($1, $2::bigint, $3, $4, $5::timestamptz, $6)',
                                        list, (latest + 1)::text, action, value, expires::text, note);
    END LOOP;
    RETURN was_there = (action = 'remove');
END
$$;
COMMENT ON FUNCTION risk_alert._publish_list(text, text, text, timestamptz, text) IS 'internal: changes a list on all live nodes, or on none';
REVOKE ALL ON FUNCTION risk_alert._publish_list(text, text, text, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._publish_list(action text, list text) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM risk_alert._publish_list(action, list, NULL, NULL, NULL);
END
$$;
COMMENT ON FUNCTION risk_alert._publish_list(text, text) IS 'internal: makes or drops a list on all live nodes, or on none';
REVOKE ALL ON FUNCTION risk_alert._publish_list(text, text) FROM PUBLIC;

-- A change on this node alone, of a list that is changed on all nodes otherwise
CREATE FUNCTION risk_alert._list_changed(list_name text) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM risk_alert.list_epoch p JOIN risk_alert.list l USING (name)
                WHERE l.name = list_name AND p.epoch > 0 AND NOT l.modified) THEN
        UPDATE risk_alert.list l SET modified = true WHERE l.name = list_name AND NOT l.modified;
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._list_changed(text) IS 'internal: notes that a list was changed on this node';
REVOKE ALL ON FUNCTION risk_alert._list_changed(text) FROM PUBLIC;

-- Catching up: src/cluster/catchup.c

CREATE FUNCTION risk_alert._is_member(node text, run text) RETURNS bool
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'ra_is_member_fn';
COMMENT ON FUNCTION risk_alert._is_member(text, text) IS
    'internal: is the node a member of the cluster, in this session of it, as far as this one knows?';
REVOKE ALL ON FUNCTION risk_alert._is_member(text, text) FROM PUBLIC;

-- The order matters: see there.  The lock is against that of _publish_begin().
CREATE FUNCTION risk_alert._publications(asker text, run text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT risk_alert._is_member(asker, run) THEN
        RETURN NULL;
    END IF;
    LOCK TABLE risk_alert.list_epoch IN SHARE MODE;
    RETURN jsonb_build_object(
        'streams', COALESCE((SELECT jsonb_object_agg(s.name, s.epoch) FROM risk_alert.stream s WHERE s.epoch IS NOT NULL), '{}'),
        'lists', COALESCE((SELECT jsonb_object_agg(l.name, jsonb_build_object('epoch', l.epoch, 'dropped', l.dropped))
                             FROM risk_alert.list_epoch l WHERE l.epoch > 0), '{}'));
END
$$;
COMMENT ON FUNCTION risk_alert._publications(text, text) IS
    'internal: the epochs of what was published on this node, for another one that catches up; NULL: it is not known as a member';
REVOKE ALL ON FUNCTION risk_alert._publications(text, text) FROM PUBLIC;

-- What others have and this node does not, by their answers: lists first, since rules use them,
-- and those that were dropped last.  Streams that were never published here are none of its business.
CREATE FUNCTION risk_alert._behind(answers jsonb)
    RETURNS TABLE (kind text, name text, node text, role oid, epoch bigint, dropped bool)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    publisher oid := COALESCE((SELECT s.epoch_role FROM risk_alert.stream s WHERE s.epoch_role IS NOT NULL ORDER BY s.stream_id LIMIT 1),
                              (SELECT l.epoch_role FROM risk_alert.list_epoch l WHERE l.epoch_role IS NOT NULL ORDER BY l.name LIMIT 1));
BEGIN
    RETURN QUERY
        SELECT b.kind, b.name, b.node, b.role, b.epoch, b.dropped
          FROM (SELECT DISTINCT ON (e.key) 'list' AS kind, e.key AS name, a.key AS node,
                       COALESCE(l.epoch_role::oid, publisher) AS role,
                       (e.value ->> 'epoch')::bigint AS epoch, (e.value ->> 'dropped')::bool AS dropped
                  FROM jsonb_each(answers) a CROSS JOIN jsonb_each(a.value -> 'lists') e
                  LEFT JOIN risk_alert.list_epoch l ON l.name = e.key
                 WHERE (e.value ->> 'epoch')::bigint > COALESCE(l.epoch, 0)
                 ORDER BY e.key, (e.value ->> 'epoch')::bigint DESC, a.key) b
        UNION ALL
        SELECT c.kind, c.name, c.node, c.role, c.epoch, false
          FROM (SELECT DISTINCT ON (s.name) 'stream' AS kind, s.name AS name, a.key AS node, s.epoch_role::oid AS role,
                       (a.value -> 'streams' ->> s.name)::bigint AS epoch
                  FROM risk_alert.stream s CROSS JOIN jsonb_each(answers) a
                 WHERE (a.value -> 'streams' ->> s.name)::bigint > s.epoch
                 ORDER BY s.name, (a.value -> 'streams' ->> s.name)::bigint DESC, a.key) c
        ORDER BY 6, 1, 2;
END
$$;
COMMENT ON FUNCTION risk_alert._behind(jsonb) IS 'internal: what other nodes have published and this one has not';
REVOKE ALL ON FUNCTION risk_alert._behind(jsonb) FROM PUBLIC;

CREATE FUNCTION risk_alert._published(stream text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record := risk_alert._published_rule_set(stream);
BEGIN
    RETURN CASE WHEN p.epoch IS NOT NULL
                THEN jsonb_build_object('epoch', p.epoch, 'definition', p.definition, 'lists', p.lists) END;
END
$$;
COMMENT ON FUNCTION risk_alert._published(text) IS 'internal: the rule set of a stream that was published last, for another node; NULL: none was';
REVOKE ALL ON FUNCTION risk_alert._published(text) FROM PUBLIC;

-- content: what _published() says on another node, and lists that are missing here
CREATE FUNCTION risk_alert._adopt_rule_set(stream text, epoch bigint, dropped bool, content jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM risk_alert._publish_lock(stream, true);
    epoch := (content -> 'published' ->> 'epoch')::bigint;
    IF (risk_alert._publish_state(stream, '{}')).epoch < epoch THEN     -- it may have been published here meanwhile
        PERFORM risk_alert._publish_apply(stream, epoch,
                                          content -> 'published' -> 'definition' || jsonb_build_object('lists', content -> 'lists'), NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._adopt_rule_set(text, bigint, bool, jsonb) IS 'internal: puts a rule set into use that was published while this node was away';
REVOKE ALL ON FUNCTION risk_alert._adopt_rule_set(text, bigint, bool, jsonb) FROM PUBLIC;

CREATE FUNCTION risk_alert._set_list_as(list_name text, contents jsonb, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM risk_alert._set_list(list_name, contents, risk_alert._caller(ticket));
END
$$;
COMMENT ON FUNCTION risk_alert._set_list_as(text, jsonb, bigint) IS 'internal: gives a list these values';
REVOKE ALL ON FUNCTION risk_alert._set_list_as(text, jsonb, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert._adopt_list(list text, epoch bigint, dropped bool, content jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM risk_alert._list_lock(list, true);
    IF (risk_alert._list_state(list)).epoch >= epoch THEN
        RETURN;
    ELSIF NOT dropped THEN
        PERFORM risk_alert._set_list_as(list, content, risk_alert._ticket());
    ELSIF EXISTS (SELECT FROM risk_alert.lists l WHERE l.list = _adopt_list.list) THEN
        PERFORM risk_alert.drop_list(list);
    END IF;
    PERFORM risk_alert._note_list_epoch(list, epoch, dropped, false, risk_alert._ticket());
END
$$;
COMMENT ON FUNCTION risk_alert._adopt_list(text, bigint, bool, jsonb) IS 'internal: gives a list the values that it got on all nodes while this one was away';
REVOKE ALL ON FUNCTION risk_alert._adopt_list(text, bigint, bool, jsonb) FROM PUBLIC;

CREATE FUNCTION risk_alert._catching_up(OUT since timestamptz, OUT behind bool)
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'ra_catching_up_fn';
COMMENT ON FUNCTION risk_alert._catching_up() IS
    'internal: since when events wait until this node has caught up with publications of others (NULL: they do not), and whether it has yet to';
REVOKE ALL ON FUNCTION risk_alert._catching_up() FROM PUBLIC;

-- Comparing nodes

CREATE FUNCTION risk_alert._ask_nodes(nodes text[], sql text, OUT node text, OUT answer text, OUT error text)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'ra_ask_nodes';
COMMENT ON FUNCTION risk_alert._ask_nodes(text[], text) IS
    'internal: asks nodes at the same time, with the caller''s rights there; the first value of what each says, or why it does not';
REVOKE ALL ON FUNCTION risk_alert._ask_nodes(text[], text) FROM PUBLIC;

CREATE FUNCTION risk_alert._cluster_rule_sets(
        OUT node text, OUT stream text, OUT epoch bigint, OUT version bigint, OUT modified bool, OUT error text)
    RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    own text := current_setting('risk_alert.node_name', true);
    unknown bool := current_setting('risk_alert.lock_provider', true) = 'local';    -- who is live
BEGIN
    RETURN QUERY
        SELECT COALESCE(NULLIF(own, ''), '(this)'), s.stream, s.epoch, s.version, s.modified, NULL FROM risk_alert.streams s;
    RETURN QUERY
        SELECT a.node, t.stream, t.epoch, t.version, t.modified, a.error
          FROM risk_alert._ask_nodes(
                   COALESCE((SELECT array_agg(n.name) FROM risk_alert.nodes n WHERE n.name <> own AND (n.live OR unknown)), '{}'),
                   'SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(s)), ''[]'') FROM risk_alert.streams s') a
          LEFT JOIN LATERAL jsonb_to_recordset(a.answer::jsonb) t (stream text, epoch bigint, version bigint, modified bool) ON true;
    RETURN QUERY
        SELECT n.name, NULL::text, NULL::bigint, NULL::bigint, NULL::bool, 'it is no member of the cluster at present'
          FROM risk_alert.nodes n WHERE n.name <> own AND NOT n.live AND NOT unknown;
END
$$;
COMMENT ON FUNCTION risk_alert._cluster_rule_sets() IS 'internal: see view cluster_rule_sets';
REVOKE ALL ON FUNCTION risk_alert._cluster_rule_sets() FROM PUBLIC;
