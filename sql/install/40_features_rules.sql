-- Features and rules.

-- Within a change of a stream; the columns that windows are kept for
CREATE FUNCTION risk_alert._add_feature(s risk_alert.stream, feature_name text, entity_columns text, aggregate text,
                                        window_length interval, filter_text text, current_too bool,
                                        lookup_columns text, search_path text, caller regrole) RETURNS name[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id name;
    checked record;
BEGIN
    PERFORM risk_alert._check_access(s.relation, caller, false);

    id := risk_alert._identifier('feature', feature_name);
    IF EXISTS (SELECT FROM risk_alert.feature f WHERE f.stream_id = s.stream_id AND f.name = id) THEN
        RAISE duplicate_object USING
            MESSAGE = pg_catalog.format('feature "%s" of stream "%s" exists already', id, s.name),
            HINT = 'Choose another name. A feature cannot be altered: rules would change their meaning.';
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = s.relation AND a.attname = id AND NOT a.attisdropped) THEN
        RAISE duplicate_column USING
            MESSAGE = pg_catalog.format('feature "%s" would have the name of a column of table %s',
                                        id, risk_alert._qualified(s.relation)),
            DETAIL = 'Conditions use both by their names.',
            HINT = 'Choose another name.';
    END IF;
    checked := risk_alert._check_feature(s.stream_id, entity_columns, lookup_columns, aggregate,
                                         filter_text, window_length, search_path, caller);
    INSERT INTO risk_alert.feature (stream_id, name, entity, lookup, function, value, filter,
                                    within, include_current, result_type, owner)
        VALUES (s.stream_id, id, checked.entity_columns, checked.lookup_columns, checked.function,
                checked.value_text, checked.filter_text, window_length, current_too, checked.result_type, caller);
    RETURN checked.entity_columns;
END
$$;
COMMENT ON FUNCTION risk_alert._add_feature(risk_alert.stream, text, text, text, interval, text, bool, text, text, regrole) IS
    'internal: makes a feature';
REVOKE ALL ON FUNCTION risk_alert._add_feature(risk_alert.stream, text, text, text, interval, text, bool, text, text, regrole) FROM PUBLIC;

CREATE FUNCTION risk_alert._create_feature(stream_name text, feature_name text, entity_columns text, aggregate text,
                                           window_length interval, filter_text text, current_too bool,
                                           lookup_columns text, search_path text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    s risk_alert.stream;
    entity name[];
BEGIN
    PERFORM risk_alert._not_null('stream,name,entity,aggregate,within,include_current',
                                 stream_name, feature_name, entity_columns, aggregate,
                                 window_length::text, current_too::text);
    s := risk_alert._begin_change(stream_name, caller);
    PERFORM risk_alert._check_table_exists(s);
    entity := risk_alert._add_feature(s, feature_name, entity_columns, aggregate, window_length, filter_text,
                                      current_too, lookup_columns, search_path, caller);
    PERFORM risk_alert._end_change(s.stream_id);

    IF NOT risk_alert._entity_index(s.relation, entity, s.event_time) THEN
        RAISE WARNING USING
            MESSAGE = pg_catalog.format('table %s has no index for feature "%s"', risk_alert._qualified(s.relation),
                                        risk_alert._identifier('feature', feature_name)),
            DETAIL = 'Each entity that is not in memory is read from the table, by a sequential scan.',
            HINT = risk_alert._create_index(s.relation, entity || s.event_time, false);
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._create_feature(text, text, text, text, interval, text, bool, text, text, bigint) IS
    'internal: see create_feature()';
REVOKE ALL ON FUNCTION risk_alert._create_feature(text, text, text, text, interval, text, bool, text, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.create_feature(stream text, name text, entity text, aggregate text, within interval,
                                          filter text DEFAULT NULL, include_current bool DEFAULT true,
                                          lookup text DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._create_feature(stream, name, entity, aggregate, within, filter, include_current, lookup,
                                      pg_catalog.current_setting('search_path'), risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.create_feature(text, text, text, text, interval, text, bool, text) IS
    'makes a feature: an aggregate over the events of the same entity (columns) within a time window';
REVOKE ALL ON FUNCTION risk_alert.create_feature(text, text, text, text, interval, text, bool, text) FROM PUBLIC;

-- Which rules use a feature is the parser's to say, while the feature is there:
-- once it is gone, a column that has been given its name would stand in for it.
CREATE FUNCTION risk_alert._drop_feature(stream_name text, feature_name text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    s risk_alert.stream;
    id name;
    used_by text;
BEGIN
    PERFORM risk_alert._not_null('stream,name', stream_name, feature_name);
    s := risk_alert._begin_change(stream_name, caller);
    id := risk_alert._identifier('feature', feature_name);
    IF NOT EXISTS (SELECT FROM risk_alert.feature f WHERE f.stream_id = s.stream_id AND f.name = id) THEN
        RAISE undefined_object USING
            MESSAGE = pg_catalog.format('feature "%s" of stream "%s" does not exist', id, s.name),
            HINT = pg_catalog.format('SELECT feature FROM risk_alert.features WHERE stream = %L', s.name);
    END IF;

    SELECT pg_catalog.string_agg(r.name, ', ' ORDER BY r.name) INTO used_by
      FROM risk_alert.rule r
     WHERE r.stream_id = s.stream_id
       AND risk_alert._uses_feature(r.stream_id, id, r.condition, r.reason, r.owner);
    IF used_by IS NOT NULL THEN
        RAISE dependent_objects_still_exist USING
            MESSAGE = pg_catalog.format('cannot drop feature "%s" of stream "%s" because rules use it', id, s.name),
            DETAIL = pg_catalog.format('Rules: %s.', used_by),
            HINT = 'Alter or drop the rules first.';
    END IF;
    DELETE FROM risk_alert.feature f WHERE f.stream_id = s.stream_id AND f.name = id;
    PERFORM risk_alert._end_change(s.stream_id);
END
$$;
COMMENT ON FUNCTION risk_alert._drop_feature(text, text, bigint) IS 'internal: see drop_feature()';
REVOKE ALL ON FUNCTION risk_alert._drop_feature(text, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.drop_feature(stream text, name text) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._drop_feature(stream, name, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.drop_feature(text, text) IS 'drops a feature that no rule uses';
REVOKE ALL ON FUNCTION risk_alert.drop_feature(text, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._check_rule_settings(rule_name text, points int, severity text, status text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF points NOT BETWEEN -100 AND 100 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = pg_catalog.format('points of rule "%s" must be between -100 and 100', rule_name),
            DETAIL = pg_catalog.format('They are %s.', points),
            HINT = 'The score is the sum of the points, kept within 0 and 100.';
    ELSIF severity NOT IN ('low', 'medium', 'high', 'critical') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = pg_catalog.format('severity of rule "%s" is not known', rule_name),
            DETAIL = pg_catalog.format('It is "%s".', severity),
            HINT = 'Severities are: low, medium, high, critical.';
    ELSIF status NOT IN ('draft', 'shadow', 'active', 'retired') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = pg_catalog.format('status of rule "%s" is not known', rule_name),
            DETAIL = pg_catalog.format('It is "%s".', status),
            HINT = 'A rule is draft (not evaluated), shadow (evaluated and counted, without effect), active or retired.';
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_rule_settings(text, int, text, text) IS 'internal: checks points, severity and status of a rule';
REVOKE ALL ON FUNCTION risk_alert._check_rule_settings(text, int, text, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._find_rule(s risk_alert.stream, rule_name text) RETURNS risk_alert.rule
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r risk_alert.rule;
BEGIN
    SELECT * INTO r FROM risk_alert.rule u WHERE u.stream_id = s.stream_id AND u.name = rule_name;
    IF NOT FOUND THEN
        RAISE undefined_object USING
            MESSAGE = pg_catalog.format('rule "%s" of stream "%s" does not exist', rule_name, s.name),
            HINT = pg_catalog.format('SELECT rule FROM risk_alert.rules WHERE stream = %L', s.name);
    END IF;
    RETURN r;
END
$$;
COMMENT ON FUNCTION risk_alert._find_rule(risk_alert.stream, text) IS 'internal: the rule of that name';
REVOKE ALL ON FUNCTION risk_alert._find_rule(risk_alert.stream, text) FROM PUBLIC;

-- Within a change of a stream
CREATE FUNCTION risk_alert._add_rule(s risk_alert.stream, rule_name text, condition_text text, rule_points int,
                                     rule_severity text, reason_text text, rule_status text,
                                     search_path text, caller regrole) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM risk_alert._check_access(s.relation, caller, false);

    rule_name := risk_alert._label('rule', rule_name);
    PERFORM risk_alert._check_rule_settings(rule_name, rule_points, rule_severity, rule_status);
    IF EXISTS (SELECT FROM risk_alert.rule r WHERE r.stream_id = s.stream_id AND r.name = rule_name) THEN
        RAISE duplicate_object USING
            MESSAGE = pg_catalog.format('rule "%s" of stream "%s" exists already', rule_name, s.name),
            HINT = pg_catalog.format('Change it with risk_alert.alter_rule(%L, %L, ...), or choose another name.', s.name, rule_name);
    END IF;

    condition_text := risk_alert._check_condition(s.stream_id, condition_text, search_path, caller);
    PERFORM risk_alert._warn_of_lists(rule_name, condition_text);
    INSERT INTO risk_alert.rule (stream_id, name, condition, points, severity, reason, status, owner)
        VALUES (s.stream_id, rule_name, condition_text,
                rule_points, rule_severity,
                CASE WHEN reason_text IS NULL THEN risk_alert._plain_reason(rule_name)
                     ELSE risk_alert._check_reason(s.stream_id, reason_text, caller) END,
                rule_status, caller);
END
$$;
COMMENT ON FUNCTION risk_alert._add_rule(risk_alert.stream, text, text, int, text, text, text, text, regrole) IS
    'internal: makes a rule';
REVOKE ALL ON FUNCTION risk_alert._add_rule(risk_alert.stream, text, text, int, text, text, text, text, regrole) FROM PUBLIC;

CREATE FUNCTION risk_alert._create_rule(stream_name text, rule_name text, condition_text text, rule_points int,
                                        rule_severity text, reason_text text, rule_status text,
                                        search_path text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    s risk_alert.stream;
BEGIN
    PERFORM risk_alert._not_null('stream,name,condition,points,severity,status',
                                 stream_name, rule_name, condition_text, rule_points::text, rule_severity, rule_status);
    s := risk_alert._begin_change(stream_name, caller);
    PERFORM risk_alert._check_table_exists(s);
    PERFORM risk_alert._add_rule(s, rule_name, condition_text, rule_points, rule_severity, reason_text, rule_status,
                                 search_path, caller);
    PERFORM risk_alert._end_change(s.stream_id);
END
$$;
COMMENT ON FUNCTION risk_alert._create_rule(text, text, text, int, text, text, text, text, bigint) IS 'internal: see create_rule()';
REVOKE ALL ON FUNCTION risk_alert._create_rule(text, text, text, int, text, text, text, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.create_rule(stream text, name text, condition text, points int DEFAULT 50,
                                       severity text DEFAULT 'medium', reason text DEFAULT NULL,
                                       status text DEFAULT 'active') RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._create_rule(stream, name, condition, points, severity, reason, status,
                                   pg_catalog.current_setting('search_path'), risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.create_rule(text, text, text, int, text, text, text) IS
    'makes a rule: events for which the condition (over columns, features and lists) is true get the points';
REVOKE ALL ON FUNCTION risk_alert.create_rule(text, text, text, int, text, text, text) FROM PUBLIC;

-- Who writes a condition owns the rule from then on: nobody gains another's
-- rights by altering a rule.  A suspended rule gets a new chance when its condition or
-- its status is given.  Within a change of a stream.
CREATE FUNCTION risk_alert._change_rule(s risk_alert.stream, rule_name text, condition_text text, rule_points int,
                                        rule_severity text, reason_text text, rule_status text,
                                        search_path text, caller regrole) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r risk_alert.rule := risk_alert._find_rule(s, rule_name);
BEGIN
    PERFORM risk_alert._check_rule_settings(rule_name, rule_points, rule_severity, rule_status);

    IF condition_text IS NOT NULL THEN
        PERFORM risk_alert._check_access(s.relation, caller, false);
        r.condition := risk_alert._check_condition(s.stream_id, condition_text, search_path, caller);
        r.owner := caller;
        PERFORM risk_alert._warn_of_lists(rule_name, r.condition);
    END IF;
    IF reason_text IS NOT NULL THEN
        -- the caller must not have shown to him what only the owner may read
        PERFORM risk_alert._check_access(s.relation, caller, false);
        r.reason := risk_alert._check_reason(s.stream_id, reason_text, caller);
        PERFORM risk_alert._check_reason(s.stream_id, reason_text, r.owner);
    END IF;
    UPDATE risk_alert.rule u
       SET condition = r.condition, owner = r.owner, reason = r.reason,
           points = COALESCE(rule_points, u.points),
           severity = COALESCE(rule_severity, u.severity),
           status = COALESCE(rule_status, u.status),
           suspended_at = CASE WHEN COALESCE(condition_text, rule_status) IS NULL THEN u.suspended_at END,
           suspended_for = CASE WHEN COALESCE(condition_text, rule_status) IS NULL THEN u.suspended_for END
     WHERE u.rule_id = r.rule_id;
END
$$;
COMMENT ON FUNCTION risk_alert._change_rule(risk_alert.stream, text, text, int, text, text, text, text, regrole) IS
    'internal: changes what is given of a rule';
REVOKE ALL ON FUNCTION risk_alert._change_rule(risk_alert.stream, text, text, int, text, text, text, text, regrole) FROM PUBLIC;

CREATE FUNCTION risk_alert._alter_rule(stream_name text, rule_name text, condition_text text, rule_points int,
                                       rule_severity text, reason_text text, rule_status text,
                                       search_path text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    s risk_alert.stream;
BEGIN
    PERFORM risk_alert._not_null('stream,name', stream_name, rule_name);
    s := risk_alert._begin_change(stream_name, caller);
    PERFORM risk_alert._check_table_exists(s);
    PERFORM risk_alert._change_rule(s, rule_name, condition_text, rule_points, rule_severity, reason_text, rule_status,
                                    search_path, caller);
    PERFORM risk_alert._end_change(s.stream_id);
END
$$;
COMMENT ON FUNCTION risk_alert._alter_rule(text, text, text, int, text, text, text, text, bigint) IS 'internal: see alter_rule()';
REVOKE ALL ON FUNCTION risk_alert._alter_rule(text, text, text, int, text, text, text, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.alter_rule(stream text, name text, condition text DEFAULT NULL, points int DEFAULT NULL,
                                      severity text DEFAULT NULL, reason text DEFAULT NULL,
                                      status text DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._alter_rule(stream, name, condition, points, severity, reason, status,
                                  pg_catalog.current_setting('search_path'), risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.alter_rule(text, text, text, int, text, text, text) IS
    'changes what is given of a rule; who gives a condition becomes its owner; status => ''active'' takes a suspended rule into use again';
REVOKE ALL ON FUNCTION risk_alert.alter_rule(text, text, text, int, text, text, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._drop_rule(stream_name text, rule_name text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    s risk_alert.stream;
    r risk_alert.rule;
BEGIN
    PERFORM risk_alert._not_null('stream,name', stream_name, rule_name);
    s := risk_alert._begin_change(stream_name, caller);
    r := risk_alert._find_rule(s, rule_name);
    DELETE FROM risk_alert.rule u WHERE u.rule_id = r.rule_id;
    PERFORM risk_alert._end_change(s.stream_id);
END
$$;
COMMENT ON FUNCTION risk_alert._drop_rule(text, text, bigint) IS 'internal: see drop_rule()';
REVOKE ALL ON FUNCTION risk_alert._drop_rule(text, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.drop_rule(stream text, name text) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._drop_rule(stream, name, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.drop_rule(text, text) IS
    'drops a rule; status => ''retired'' in alter_rule() keeps it';
REVOKE ALL ON FUNCTION risk_alert.drop_rule(text, text) FROM PUBLIC;
