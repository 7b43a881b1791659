-- Alerts: the work of analysts.  Raising and folding is the worker's
-- (src/engine/alert.c); what was done by whom is kept in alert_change.
--
--               acknowledge          assign
--         open ------------> acknowledged ------------> investigating
--          |  `----------------assign------------------^     |
--          '-----------------> resolved <--------------------'
--          ^                       |         resolve, from any of them
--          '-------reopen----------'

-- The alert, locked
CREATE FUNCTION risk_alert._find_alert(wanted bigint) RETURNS risk_alert.alert
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a risk_alert.alert;
BEGIN
    PERFORM risk_alert._not_null('alert_id', wanted::text);
    SELECT * INTO a FROM risk_alert.alert WHERE alert_id = wanted FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE undefined_object USING
            MESSAGE = pg_catalog.format('alert %s does not exist', wanted);
    END IF;
    RETURN a;
END
$$;
COMMENT ON FUNCTION risk_alert._find_alert(bigint) IS 'internal: the alert of that number, locked';
REVOKE ALL ON FUNCTION risk_alert._find_alert(bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert._refuse_resolved(a risk_alert.alert) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF a.status = 'resolved' THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = pg_catalog.format('alert %s is resolved', a.alert_id),
            DETAIL = pg_catalog.format('Its outcome is %s.', a.outcome),
            HINT = pg_catalog.format('SELECT risk_alert.reopen(%s)', a.alert_id);
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._refuse_resolved(risk_alert.alert) IS 'internal: refuses an alert that is resolved';
REVOKE ALL ON FUNCTION risk_alert._refuse_resolved(risk_alert.alert) FROM PUBLIC;

CREATE FUNCTION risk_alert._acknowledge(wanted bigint, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    a risk_alert.alert := risk_alert._find_alert(wanted);
BEGIN
    PERFORM risk_alert._refuse_resolved(a);
    IF a.status <> 'open' THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = pg_catalog.format('alert %s has been acknowledged already', a.alert_id),
            DETAIL = pg_catalog.format('Its status is %s.', a.status),
            HINT = pg_catalog.format('SELECT * FROM risk_alert.alert_history WHERE alert_id = %s', a.alert_id);
    END IF;
    UPDATE risk_alert.alert SET status = 'acknowledged' WHERE alert_id = a.alert_id;
    INSERT INTO risk_alert.alert_change (alert_id, changed_by, action, old_status, new_status)
        VALUES (a.alert_id, pg_catalog.pg_get_userbyid(caller), 'acknowledged', a.status, 'acknowledged');
END
$$;
COMMENT ON FUNCTION risk_alert._acknowledge(bigint, bigint) IS 'internal: see acknowledge()';
REVOKE ALL ON FUNCTION risk_alert._acknowledge(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.acknowledge(alert_id bigint) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._acknowledge(alert_id, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.acknowledge(bigint) IS 'notes that somebody has seen an open alert';
REVOKE ALL ON FUNCTION risk_alert.acknowledge(bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert._assign(wanted bigint, assignee text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    a risk_alert.alert;
    analyst oid;
BEGIN
    PERFORM risk_alert._not_null('alert_id,assignee', wanted::text, assignee);
    SELECT r.oid INTO analyst FROM pg_catalog.pg_roles r WHERE r.rolname = assignee;
    IF NOT FOUND THEN
        RAISE undefined_object USING
            MESSAGE = pg_catalog.format('role "%s" does not exist', assignee);
    ELSIF NOT pg_catalog.pg_has_role(analyst, 'risk_alert_analyst', 'MEMBER') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = pg_catalog.format('role "%s" cannot work on alerts', assignee),
            DETAIL = 'It is not a member of role risk_alert_analyst.',
            HINT = pg_catalog.format('GRANT risk_alert_analyst TO %I', assignee);
    END IF;
    a := risk_alert._find_alert(wanted);
    PERFORM risk_alert._refuse_resolved(a);
    UPDATE risk_alert.alert SET status = 'investigating', assignee = analyst::regrole WHERE alert_id = a.alert_id;
    INSERT INTO risk_alert.alert_change (alert_id, changed_by, action, old_status, new_status, assignee)
        VALUES (a.alert_id, pg_catalog.pg_get_userbyid(caller), 'assigned', a.status, 'investigating', _assign.assignee);
END
$$;
COMMENT ON FUNCTION risk_alert._assign(bigint, text, bigint) IS 'internal: see assign()';
REVOKE ALL ON FUNCTION risk_alert._assign(bigint, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.assign(alert_id bigint, assignee text) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._assign(alert_id, assignee, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.assign(bigint, text) IS 'gives an alert to a role, a member of risk_alert_analyst, to investigate';
REVOKE ALL ON FUNCTION risk_alert.assign(bigint, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._add_note(wanted bigint, remark text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    a risk_alert.alert;
BEGIN
    PERFORM risk_alert._not_null('alert_id,note', wanted::text, remark);
    a := risk_alert._find_alert(wanted);
    IF remark !~ '[^[:space:]]' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = pg_catalog.format('note for alert %s is empty', a.alert_id);
    END IF;
    INSERT INTO risk_alert.alert_change (alert_id, changed_by, action, note, old_status, new_status)
        VALUES (a.alert_id, pg_catalog.pg_get_userbyid(caller), 'noted', remark, a.status, a.status);
END
$$;
COMMENT ON FUNCTION risk_alert._add_note(bigint, text, bigint) IS 'internal: see add_note()';
REVOKE ALL ON FUNCTION risk_alert._add_note(bigint, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.add_note(alert_id bigint, note text) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._add_note(alert_id, note, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.add_note(bigint, text) IS 'adds a note to an alert''s history';
REVOKE ALL ON FUNCTION risk_alert.add_note(bigint, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._resolve(wanted bigint, result text, remark text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    a risk_alert.alert;
BEGIN
    PERFORM risk_alert._not_null('alert_id,outcome', wanted::text, result);
    a := risk_alert._find_alert(wanted);
    PERFORM risk_alert._refuse_resolved(a);
    IF result NOT IN ('true_positive', 'false_positive') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = pg_catalog.format('outcome of alert %s is not known', a.alert_id),
            DETAIL = pg_catalog.format('It is "%s".', result),
            HINT = 'Outcomes are: true_positive, false_positive.';
    END IF;
    UPDATE risk_alert.alert SET status = 'resolved', outcome = result WHERE alert_id = a.alert_id;
    INSERT INTO risk_alert.alert_change (alert_id, changed_by, action, note, old_status, new_status, outcome)
        VALUES (a.alert_id, pg_catalog.pg_get_userbyid(caller), 'resolved', remark, a.status, 'resolved', result);
END
$$;
COMMENT ON FUNCTION risk_alert._resolve(bigint, text, text, bigint) IS 'internal: see resolve()';
REVOKE ALL ON FUNCTION risk_alert._resolve(bigint, text, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.resolve(alert_id bigint, outcome text, note text DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._resolve(alert_id, outcome, note, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.resolve(bigint, text, text) IS 'closes an alert as true_positive or false_positive';
REVOKE ALL ON FUNCTION risk_alert.resolve(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._reopen(wanted bigint, remark text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    a risk_alert.alert := risk_alert._find_alert(wanted);
BEGIN
    IF a.status <> 'resolved' THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = pg_catalog.format('alert %s is not resolved', a.alert_id),
            DETAIL = pg_catalog.format('Its status is %s.', a.status);
    END IF;
    UPDATE risk_alert.alert SET status = 'open', outcome = NULL, assignee = NULL WHERE alert_id = a.alert_id;
    INSERT INTO risk_alert.alert_change (alert_id, changed_by, action, note, old_status, new_status)
        VALUES (a.alert_id, pg_catalog.pg_get_userbyid(caller), 'reopened', remark, a.status, 'open');
END
$$;
COMMENT ON FUNCTION risk_alert._reopen(bigint, text, bigint) IS 'internal: see reopen()';
REVOKE ALL ON FUNCTION risk_alert._reopen(bigint, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.reopen(alert_id bigint, note text DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._reopen(alert_id, note, risk_alert._ticket());
COMMENT ON FUNCTION risk_alert.reopen(bigint, text) IS 'opens a resolved alert again, without outcome and assignee';
REVOKE ALL ON FUNCTION risk_alert.reopen(bigint, text) FROM PUBLIC;
