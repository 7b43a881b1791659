-- What the configuration functions have in common.
--
-- A configuration function is a pair.  The outer one, which users call, is
-- SECURITY INVOKER and one SQL expression, resolved when it is created: so it
-- needs no search_path of its own and can pass on the caller's, under which
-- the caller's expressions are to be read.  The inner one, of the same name with an
-- underscore before it, is SECURITY DEFINER and checks everything itself; its
-- last argument is a ticket that tells who calls (src/engine/caller.c).  Both
-- may be executed by those whom the role matrix in 90_rights.sql names.
--
-- Changes of one stream are serialised by the lock on its row, which a change
-- holds until its transaction ends.

CREATE FUNCTION risk_alert._preloaded() RETURNS bool
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.current_setting('shared_preload_libraries')
           ~ '(^|[,/[:space:]"])risk_alert([.]so)?"?[[:space:]]*(,|$)'
$$;
COMMENT ON FUNCTION risk_alert._preloaded() IS 'internal: is the library in shared_preload_libraries?';
REVOKE ALL ON FUNCTION risk_alert._preloaded() FROM PUBLIC;

CREATE FUNCTION risk_alert._preload_hint() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('ALTER SYSTEM SET shared_preload_libraries = %s, then restart the server.',
                             pg_catalog.concat_ws(', ', NULLIF(pg_catalog.current_setting('shared_preload_libraries'), ''), 'risk_alert'))
$$;
COMMENT ON FUNCTION risk_alert._preload_hint() IS 'internal: how to preload the library';
REVOKE ALL ON FUNCTION risk_alert._preload_hint() FROM PUBLIC;

CREATE FUNCTION risk_alert._qualified(relation regclass) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = relation
$$;
COMMENT ON FUNCTION risk_alert._qualified(regclass) IS 'internal: a table''s quoted and qualified name, NULL if it is gone';
REVOKE ALL ON FUNCTION risk_alert._qualified(regclass) FROM PUBLIC;

CREATE FUNCTION risk_alert._column_list(columns name[]) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.string_agg(pg_catalog.quote_ident(c), ', ' ORDER BY n)
      FROM pg_catalog.unnest(columns) WITH ORDINALITY AS u (c, n)
$$;
COMMENT ON FUNCTION risk_alert._column_list(name[]) IS 'internal: columns as a quoted, comma-separated list';
REVOKE ALL ON FUNCTION risk_alert._column_list(name[]) FROM PUBLIC;

CREATE FUNCTION risk_alert._is_partitioned(relation regclass) RETURNS bool
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation AND c.relkind = 'p')
$$;
COMMENT ON FUNCTION risk_alert._is_partitioned(regclass) IS 'internal: is it a partitioned table?';
REVOKE ALL ON FUNCTION risk_alert._is_partitioned(regclass) FROM PUBLIC;

-- CONCURRENTLY where it works: the table is in use
CREATE FUNCTION risk_alert._create_index(relation regclass, columns name[], is_unique bool) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.format('CREATE %sINDEX %sON %s (%s)',
                             CASE WHEN is_unique THEN 'UNIQUE ' ELSE '' END,
                             CASE WHEN risk_alert._is_partitioned(relation) THEN '' ELSE 'CONCURRENTLY ' END,
                             risk_alert._qualified(relation), risk_alert._column_list(columns))
$$;
COMMENT ON FUNCTION risk_alert._create_index(regclass, name[], bool) IS 'internal: the statement that makes such an index';
REVOKE ALL ON FUNCTION risk_alert._create_index(regclass, name[], bool) FROM PUBLIC;

-- Index columns in any order; with a predicate, an expression, or checked at
-- commit only, it does not tell rows apart at all times.
CREATE FUNCTION risk_alert._key_index(relation regclass, key name[]) RETURNS oid
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT i.indexrelid
      FROM pg_catalog.pg_index i
     WHERE i.indrelid = relation
       AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indisready AND i.indislive
       AND i.indpred IS NULL AND i.indexprs IS NULL
       AND i.indnkeyatts = pg_catalog.cardinality(key)
       AND (SELECT pg_catalog.bool_and(a.attname = ANY (key))
              FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) n
              JOIN pg_catalog.pg_attribute a ON a.attrelid = relation AND a.attnum = i.indkey[n])
     ORDER BY i.indisprimary DESC, i.indexrelid
     LIMIT 1
$$;
COMMENT ON FUNCTION risk_alert._key_index(regclass, name[]) IS
    'internal: the unique index that makes the columns a key of the table, or NULL';
REVOKE ALL ON FUNCTION risk_alert._key_index(regclass, name[]) FROM PUBLIC;

CREATE FUNCTION risk_alert._not_null(argument text, VARIADIC given text[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    arguments text[] := pg_catalog.string_to_array(argument, ',');
BEGIN
    FOR i IN 1 .. pg_catalog.cardinality(arguments) LOOP
        IF given[i] IS NULL THEN
            RAISE null_value_not_allowed USING
                MESSAGE = pg_catalog.format('argument "%s" must not be NULL', arguments[i]);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION risk_alert._not_null(text, text[]) IS 'internal: refuses NULL arguments, by name';
REVOKE ALL ON FUNCTION risk_alert._not_null(text, text[]) FROM PUBLIC;

-- Names of streams, rules and lists are labels, not identifiers: any text that
-- can be shown on one line.
CREATE FUNCTION risk_alert._label(kind text, label text) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF label IS NULL OR label = '' OR label ~ '[[:cntrl:]]' OR label <> pg_catalog.btrim(label) THEN
        RAISE invalid_name USING
            MESSAGE = pg_catalog.format('"%s" cannot be the name of a %s', label, kind),
            DETAIL = 'A name must not be empty, begin or end with a space, or hold control characters.';
    ELSIF pg_catalog.octet_length(label) > 63 THEN
        RAISE name_too_long USING
            MESSAGE = pg_catalog.format('name "%s" of a %s is too long', label, kind),
            DETAIL = pg_catalog.format('It has %s bytes; at most 63 are possible.', pg_catalog.octet_length(label));
    END IF;
    RETURN label;
END
$$;
COMMENT ON FUNCTION risk_alert._label(text, text) IS 'internal: checks the name of a stream, rule or list';
REVOKE ALL ON FUNCTION risk_alert._label(text, text) FROM PUBLIC;

-- Names of features are identifiers: conditions use them beside columns.  So
-- they are read as SQL reads identifiers, folded to lower case unless quoted.
CREATE FUNCTION risk_alert._identifier(kind text, identifier text) RETURNS name
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts text[];
BEGIN
    BEGIN
        parts := pg_catalog.parse_ident(identifier);
    EXCEPTION WHEN invalid_parameter_value THEN
        parts := NULL;
    END;
    IF parts IS NULL OR pg_catalog.cardinality(parts) <> 1 OR parts[1] ~ '[[:cntrl:]]' THEN
        RAISE invalid_name USING
            MESSAGE = pg_catalog.format('"%s" cannot be the name of a %s', identifier, kind),
            DETAIL = 'It is used in conditions like a column, so it must be an identifier.',
            HINT = 'Use letters, digits and underscores, beginning with a letter; or put it in double quotes.';
    ELSIF pg_catalog.octet_length(parts[1]) > 63 THEN
        RAISE name_too_long USING
            MESSAGE = pg_catalog.format('name "%s" of a %s is too long', parts[1], kind),
            DETAIL = pg_catalog.format('It has %s bytes; at most 63 are possible.', pg_catalog.octet_length(parts[1]));
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_get_keywords() k
                   WHERE k.word = parts[1] AND k.catcode IN ('R', 'T'))
          AND pg_catalog.btrim(identifier) !~ '^"' THEN
        RAISE reserved_name USING
            MESSAGE = pg_catalog.format('"%s" cannot be the name of a %s', parts[1], kind),
            DETAIL = 'It is a reserved word of SQL.',
            HINT = pg_catalog.format('Choose another name, or write it in double quotes here and in conditions: "%s".', parts[1]);
    END IF;
    RETURN parts[1]::name;
END
$$;
COMMENT ON FUNCTION risk_alert._identifier(text, text) IS 'internal: reads and checks the name of a feature';
REVOKE ALL ON FUNCTION risk_alert._identifier(text, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._check_thresholds(review_at int, deny_at int, suppress interval) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF review_at NOT BETWEEN 0 AND 100 OR deny_at NOT BETWEEN 0 AND 100 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'thresholds must be between 0 and 100',
            DETAIL = pg_catalog.format('review_at is %s, deny_at is %s.', review_at, deny_at),
            HINT = 'They are compared with the score, which is 0 to 100.';
    ELSIF review_at > deny_at THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'review_at must not be above deny_at',
            DETAIL = pg_catalog.format('review_at is %s, deny_at is %s.', review_at, deny_at);
    ELSIF suppress < interval '0' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'suppress must not be negative',
            DETAIL = pg_catalog.format('It is %s.', suppress),
            HINT = 'Use interval ''0'' for an alert of its own for every event.';
    ELSIF suppress > interval '10 years' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'suppress must be at most 10 years',
            DETAIL = pg_catalog.format('It is %s.', suppress);
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_thresholds(int, int, interval) IS 'internal: checks a stream''s settings';
REVOKE ALL ON FUNCTION risk_alert._check_thresholds(int, int, interval) FROM PUBLIC;

-- What features and conditions may read of the table is the parser's to check,
-- column by column.  Row-level security would be undone by features: windows
-- hold all rows.
CREATE FUNCTION risk_alert._check_access(relation regclass, caller regrole, to_watch bool) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner oid;
    secured bool;
    missing text;
BEGIN
    SELECT c.relowner, c.relrowsecurity INTO owner, secured
      FROM pg_catalog.pg_class c WHERE c.oid = relation;
    IF pg_catalog.pg_has_role(caller, owner, 'USAGE') THEN
        RETURN;
    END IF;

    SELECT pg_catalog.string_agg(p, ', ') INTO missing
      FROM pg_catalog.unnest('{SELECT,TRIGGER}'::text[]) p
     WHERE NOT pg_catalog.has_table_privilege(caller, relation, p);
    IF to_watch AND missing IS NOT NULL THEN
        RAISE insufficient_privilege USING
            MESSAGE = pg_catalog.format('permission denied for table %s', risk_alert._qualified(relation)),
            DETAIL = pg_catalog.format('Role "%s" lacks the right to: %s.',
                                       pg_catalog.pg_get_userbyid(caller), missing),
            HINT = pg_catalog.format('GRANT %s ON %s TO %I', missing, risk_alert._qualified(relation),
                                     pg_catalog.pg_get_userbyid(caller));
    END IF;
    IF secured AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = caller AND (r.rolbypassrls OR r.rolsuper)) THEN
        RAISE insufficient_privilege USING
            MESSAGE = pg_catalog.format('permission denied for table %s', risk_alert._qualified(relation)),
            DETAIL = 'It has row-level security, and features are computed over all of its rows.',
            HINT = 'Let the owner of the table, or a role with BYPASSRLS, do this.';
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_access(regclass, regrole, bool) IS
    'internal: may the caller watch the table, or make features and rules over it?';
REVOKE ALL ON FUNCTION risk_alert._check_access(regclass, regrole, bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._definition(of_stream int) RETURNS jsonb
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET intervalstyle = postgres
AS $$
    SELECT pg_catalog.jsonb_build_object(
        'stream', s.name,
        'table', COALESCE(risk_alert._qualified(s.relation), s.relation::oid::text),
        'key', pg_catalog.to_jsonb(s.key),
        'event_time', s.event_time,
        'review_at', s.review_at,
        'deny_at', s.deny_at,
        'suppress', s.suppress::text,
        'features', COALESCE((
            SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                       'name', f.name,
                       'entity', pg_catalog.to_jsonb(f.entity),
                       'lookup', pg_catalog.to_jsonb(f.lookup),
                       'aggregate', risk_alert._aggregate(f.function, f.value),
                       'within', f.within::text,
                       'filter', f.filter,
                       'include_current', f.include_current,
                       'owner', pg_catalog.pg_get_userbyid(f.owner))
                   ORDER BY f.name)
              FROM risk_alert.feature f WHERE f.stream_id = s.stream_id), '[]'),
        'rules', COALESCE((
            SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                       'name', r.name,
                       'condition', r.condition,
                       'points', r.points,
                       'severity', r.severity,
                       'reason', r.reason,
                       'status', r.status,
                       'owner', pg_catalog.pg_get_userbyid(r.owner))
                   ORDER BY r.name)
              FROM risk_alert.rule r WHERE r.stream_id = s.stream_id), '[]'))
      FROM risk_alert.stream s
     WHERE s.stream_id = of_stream
$$;
COMMENT ON FUNCTION risk_alert._definition(int) IS 'internal: a stream''s configuration as kept in rule_set';
REVOKE ALL ON FUNCTION risk_alert._definition(int) FROM PUBLIC;

-- At commit: what the transaction leaves is what the version says
CREATE FUNCTION risk_alert._complete_rule_set() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE risk_alert.rule_set r
       SET definition = COALESCE(risk_alert._definition(r.stream_id), '{"unwatched": true}')
     WHERE r.stream_id = NEW.stream_id AND r.version = NEW.version AND r.definition IS NULL;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION risk_alert._complete_rule_set() IS 'internal: trigger function that fills in a new version of a rule set';
REVOKE ALL ON FUNCTION risk_alert._complete_rule_set() FROM PUBLIC;

-- Not on the configuration tables: it must not fire when a dump is restored.
-- Rows from a dump have their definition.
CREATE CONSTRAINT TRIGGER complete_rule_set
    AFTER INSERT OR UPDATE OF definition ON risk_alert.rule_set
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.definition IS NULL)
    EXECUTE FUNCTION risk_alert._complete_rule_set();
COMMENT ON TRIGGER complete_rule_set ON risk_alert.rule_set IS 'fills in a new version when the transaction that made it commits';

CREATE FUNCTION risk_alert._find_stream(stream_name text) RETURNS risk_alert.stream
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s risk_alert.stream;
BEGIN
    PERFORM risk_alert._not_null('stream', stream_name);
    SELECT * INTO s FROM risk_alert.stream WHERE name = stream_name;
    IF NOT FOUND THEN
        RAISE undefined_object USING
            MESSAGE = pg_catalog.format('stream "%s" does not exist', stream_name),
            HINT = COALESCE((SELECT 'Streams are: ' || pg_catalog.string_agg(t.name, ', ' ORDER BY t.name) || '.'
                               FROM (SELECT name FROM risk_alert.stream ORDER BY name LIMIT 10) t),
                            'Make one with risk_alert.watch().');
    END IF;
    RETURN s;
END
$$;
COMMENT ON FUNCTION risk_alert._find_stream(text) IS 'internal: the stream of that name';
REVOKE ALL ON FUNCTION risk_alert._find_stream(text) FROM PUBLIC;

-- Before a change: the stream, locked against changes by others, with this
-- transaction's version of it begun.
CREATE FUNCTION risk_alert._begin_change(stream_name text, caller regrole) RETURNS risk_alert.stream
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s risk_alert.stream;
BEGIN
    SELECT * INTO s FROM risk_alert._find_stream(stream_name);
    SELECT * INTO s FROM risk_alert.stream WHERE stream_id = s.stream_id FOR UPDATE;
    IF NOT FOUND THEN               -- gone while we waited for the lock
        s := risk_alert._find_stream(stream_name);
    END IF;

    -- Transaction ids of rows from a dump are another server's; their age
    -- tells them from ours.  What was published stays what it was.
    IF NOT EXISTS (SELECT FROM risk_alert.rule_set r
                    WHERE r.stream_id = s.stream_id AND r.version = s.version AND r.epoch IS NULL
                      AND r.xid = pg_catalog.pg_current_xact_id()
                      AND r.made_at >= pg_catalog.transaction_timestamp()) THEN
        UPDATE risk_alert.stream SET version = version + 1
         WHERE stream_id = s.stream_id
         RETURNING version INTO s.version;
        INSERT INTO risk_alert.rule_set (stream_id, stream, version, made_by)
            VALUES (s.stream_id, s.name, s.version, pg_catalog.pg_get_userbyid(caller));
    END IF;
    RETURN s;
END
$$;
COMMENT ON FUNCTION risk_alert._begin_change(text, regrole) IS 'internal: locks a stream and begins a new version of it';
REVOKE ALL ON FUNCTION risk_alert._begin_change(text, regrole) FROM PUBLIC;

-- After a change.  The version has a definition already if constraints are
-- checked at once (SET CONSTRAINTS ... IMMEDIATE): have it made anew.
CREATE FUNCTION risk_alert._end_change(of_stream int) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE risk_alert.rule_set r SET definition = NULL
      FROM risk_alert.stream s
     WHERE s.stream_id = of_stream AND r.stream_id = s.stream_id AND r.version = s.version
       AND r.xid = pg_catalog.pg_current_xact_id() AND r.definition IS NOT NULL;
    PERFORM risk_alert._refresh_stream(of_stream);
END
$$;
COMMENT ON FUNCTION risk_alert._end_change(int) IS 'internal: makes a change of a stream known';
REVOKE ALL ON FUNCTION risk_alert._end_change(int) FROM PUBLIC;

CREATE FUNCTION risk_alert._check_table_exists(s risk_alert.stream) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.relation) THEN
        RAISE undefined_table USING
            MESSAGE = pg_catalog.format('the table of stream "%s" no longer exists', s.name),
            HINT = pg_catalog.format('SELECT risk_alert.unwatch(%L)', s.name);
    END IF;
END
$$;
COMMENT ON FUNCTION risk_alert._check_table_exists(risk_alert.stream) IS 'internal: refuses a stream whose table was dropped';
REVOKE ALL ON FUNCTION risk_alert._check_table_exists(risk_alert.stream) FROM PUBLIC;

-- Lists that a condition (as stored, in canonical spelling) names by a literal
CREATE FUNCTION risk_alert._lists_used(condition text) RETURNS SETOF text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT pg_catalog.replace(m.part[1], '''''', '''')
      FROM pg_catalog.regexp_matches(condition, 'risk_alert[.]in_list[(]''((?:[^'']|'''')*)''::text', 'g') m (part)
$$;
COMMENT ON FUNCTION risk_alert._lists_used(text) IS 'internal: lists that a condition uses';
REVOKE ALL ON FUNCTION risk_alert._lists_used(text) FROM PUBLIC;

-- Those of them that are not there
CREATE FUNCTION risk_alert._missing_lists(condition text) RETURNS text[]
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.array_agg(u.name)
      FROM risk_alert._lists_used(condition) u (name)
     WHERE NOT EXISTS (SELECT FROM risk_alert.list l WHERE l.name = u.name)
$$;
COMMENT ON FUNCTION risk_alert._missing_lists(text) IS 'internal: lists that a condition uses and that do not exist, or NULL';
REVOKE ALL ON FUNCTION risk_alert._missing_lists(text) FROM PUBLIC;

-- Not an error: the list may be made after the rule
CREATE FUNCTION risk_alert._warn_of_lists(rule_name text, condition text) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    list text;
BEGIN
    FOREACH list IN ARRAY COALESCE(risk_alert._missing_lists(condition), '{}') LOOP
        RAISE WARNING USING
            MESSAGE = pg_catalog.format('list "%s" does not exist', list),
            DETAIL = pg_catalog.format('Rule "%s" will fail until it does.', rule_name),
            HINT = pg_catalog.format('SELECT risk_alert.create_list(%L)', list);
    END LOOP;
END
$$;
COMMENT ON FUNCTION risk_alert._warn_of_lists(text, text) IS 'internal: warns of lists that a rule uses and that do not exist';
REVOKE ALL ON FUNCTION risk_alert._warn_of_lists(text, text) FROM PUBLIC;

-- A rule's name as a template: braces stand for themselves
CREATE FUNCTION risk_alert._plain_reason(label text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.replace(pg_catalog.replace(label, '{', '{{'), '}', '}}')
$$;
COMMENT ON FUNCTION risk_alert._plain_reason(text) IS 'internal: the reason template that shows just this text';
REVOKE ALL ON FUNCTION risk_alert._plain_reason(text) FROM PUBLIC;

-- The aggregate as users write it
CREATE FUNCTION risk_alert._aggregate(function text, value text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN function = 'count_distinct' THEN 'count(DISTINCT ' ELSE function || '(' END
           || COALESCE(value, '*') || ')'
$$;
COMMENT ON FUNCTION risk_alert._aggregate(text, text) IS 'internal: a feature''s aggregate as users write it';
REVOKE ALL ON FUNCTION risk_alert._aggregate(text, text) FROM PUBLIC;
