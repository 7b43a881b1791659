-- Lists.

CREATE TRIGGER list_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON risk_alert.list
    FOR EACH STATEMENT EXECUTE FUNCTION risk_alert._config_changed();
COMMENT ON TRIGGER list_changed ON risk_alert.list IS 'makes all processes reload the lists';
CREATE TRIGGER list_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON risk_alert.list_entry
    FOR EACH STATEMENT EXECUTE FUNCTION risk_alert._config_changed();
COMMENT ON TRIGGER list_changed ON risk_alert.list_entry IS 'makes all processes reload the lists';

CREATE FUNCTION risk_alert._find_list(list_name text) RETURNS int
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_id int;
BEGIN
    -- keeps drop_list() out until the transaction ends
    SELECT l.list_id INTO found_id FROM risk_alert.list l WHERE l.name = list_name FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE undefined_object USING
            MESSAGE = pg_catalog.format('list "%s" does not exist', list_name),
            HINT = pg_catalog.format('SELECT risk_alert.create_list(%L)', list_name);
    END IF;
    RETURN found_id;
END
$$;
COMMENT ON FUNCTION risk_alert._find_list(text) IS 'internal: the list of that name';
REVOKE ALL ON FUNCTION risk_alert._find_list(text) FROM PUBLIC;

CREATE FUNCTION risk_alert._create_list(list_name text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
BEGIN
    PERFORM risk_alert._not_null('name', list_name);
    INSERT INTO risk_alert.list (name, owner) VALUES (risk_alert._label('list', list_name), caller)
        ON CONFLICT (name) DO NOTHING;
    IF NOT FOUND THEN
        RAISE duplicate_object USING
            MESSAGE = pg_catalog.format('list "%s" exists already', list_name);
    END IF;
    PERFORM risk_alert._list_changed(list_name);
END
$$;
COMMENT ON FUNCTION risk_alert._create_list(text, bigint) IS 'internal: see create_list()';
REVOKE ALL ON FUNCTION risk_alert._create_list(text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.create_list(name text, cluster bool DEFAULT false) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN CASE WHEN cluster THEN risk_alert._publish_list('create', name)
                ELSE risk_alert._create_list(name, risk_alert._ticket()) END;
COMMENT ON FUNCTION risk_alert.create_list(text, bool) IS
    'makes an empty list of values, for in_list() in conditions; cluster: on all live nodes, or on none';
REVOKE ALL ON FUNCTION risk_alert.create_list(text, bool) FROM PUBLIC;

-- Conditions are kept in one canonical spelling, so a list named by a literal
-- can be found in them.  (The server's printer writes a backslash as it is;
-- quote_literal() does not.)
CREATE FUNCTION risk_alert._drop_list(list_name text, ticket bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    used_by text;
BEGIN
    PERFORM risk_alert._not_null('name', list_name);
    SELECT pg_catalog.string_agg(pg_catalog.format('%s of stream "%s"', r.name, s.name), ', ' ORDER BY s.name, r.name)
      INTO used_by
      FROM risk_alert.rule r JOIN risk_alert.stream s USING (stream_id)
     WHERE pg_catalog.strpos(r.condition, pg_catalog.format('risk_alert.in_list(''%s''::text',
                                                       pg_catalog.replace(list_name, '''', ''''''))) > 0;
    IF used_by IS NOT NULL THEN
        RAISE dependent_objects_still_exist USING
            MESSAGE = pg_catalog.format('cannot drop list "%s" because rules use it', list_name),
            DETAIL = pg_catalog.format('Rules: %s.', used_by),
            HINT = 'Alter or drop the rules first.';
    END IF;
    DELETE FROM risk_alert.list l WHERE l.name = list_name;
    IF NOT FOUND THEN
        PERFORM risk_alert._find_list(list_name);
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._drop_list(text, bigint) IS 'internal: see drop_list()';
REVOKE ALL ON FUNCTION risk_alert._drop_list(text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.drop_list(name text, cluster bool DEFAULT false) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN CASE WHEN cluster THEN risk_alert._publish_list('drop', name)
                ELSE risk_alert._drop_list(name, risk_alert._ticket()) END;
COMMENT ON FUNCTION risk_alert.drop_list(text, bool) IS
    'drops a list that no rule uses, with its values; cluster: on all live nodes, or on none';
REVOKE ALL ON FUNCTION risk_alert.drop_list(text, bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._list_add(list_name text, new_value text, expiry timestamptz, remark text, ticket bigint)
    RETURNS bool
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    target int;
    added bool;
BEGIN
    PERFORM risk_alert._not_null('list,value', list_name, new_value);
    IF pg_catalog.octet_length(new_value) > 1000 THEN
        RAISE program_limit_exceeded USING
            MESSAGE = pg_catalog.format('value is too long for list "%s"', list_name),
            DETAIL = pg_catalog.format('It has %s bytes; at most 1000 are possible.', pg_catalog.octet_length(new_value)),
            HINT = 'List a digest of it, such as md5(value), and look that up.';
    END IF;
    target := risk_alert._find_list(list_name);

    -- xmax = 0: the row is new
    INSERT INTO risk_alert.list_entry AS e (list_id, value, expires, note, added_by)
        VALUES (target, new_value, expiry, remark, pg_catalog.pg_get_userbyid(caller))
        ON CONFLICT (list_id, value) DO UPDATE
            SET expires = EXCLUDED.expires, note = EXCLUDED.note,
                added_by = EXCLUDED.added_by, added_at = EXCLUDED.added_at
        RETURNING e.xmax = 0 INTO added;
    PERFORM risk_alert._list_changed(list_name);
    RETURN added;
END
$$;
COMMENT ON FUNCTION risk_alert._list_add(text, text, timestamptz, text, bigint) IS 'internal: see list_add()';
REVOKE ALL ON FUNCTION risk_alert._list_add(text, text, timestamptz, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.list_add(list text, value text, expires timestamptz DEFAULT NULL, note text DEFAULT NULL,
                                    cluster bool DEFAULT false) RETURNS bool
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN CASE WHEN cluster THEN risk_alert._publish_list('add', list, value, expires, note)
                ELSE risk_alert._list_add(list, value, expires, note, risk_alert._ticket()) END;
COMMENT ON FUNCTION risk_alert.list_add(text, text, timestamptz, text, bool) IS
    'puts a value on a list; false: it was there, and got the new expiry and note; cluster: on all live nodes, or on none';
REVOKE ALL ON FUNCTION risk_alert.list_add(text, text, timestamptz, text, bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._list_remove(list_name text, old_value text, ticket bigint) RETURNS bool
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    caller regrole := risk_alert._caller(ticket);
    target int;
    removed bool;
BEGIN
    PERFORM risk_alert._not_null('list,value', list_name, old_value);
    target := risk_alert._find_list(list_name);
    DELETE FROM risk_alert.list_entry e WHERE e.list_id = target AND e.value = old_value;
    removed := FOUND;
    IF removed THEN
        PERFORM risk_alert._list_changed(list_name);
    END IF;
    RETURN removed;
END
$$;
COMMENT ON FUNCTION risk_alert._list_remove(text, text, bigint) IS 'internal: see list_remove()';
REVOKE ALL ON FUNCTION risk_alert._list_remove(text, text, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert.list_remove(list text, value text, cluster bool DEFAULT false) RETURNS bool
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN CASE WHEN cluster THEN risk_alert._publish_list('remove', list, value, NULL, NULL)
                ELSE risk_alert._list_remove(list, value, risk_alert._ticket()) END;
COMMENT ON FUNCTION risk_alert.list_remove(text, text, bool) IS
    'takes a value off a list; false: it was not there; cluster: on all live nodes, or on none';
REVOKE ALL ON FUNCTION risk_alert.list_remove(text, text, bool) FROM PUBLIC;
