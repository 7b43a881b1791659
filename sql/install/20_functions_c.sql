-- What C provides.  C functions need no search_path of their own: they resolve
-- names under settings that src/engine/expr.c fixes.

-- Without the library in every process nothing would capture, score or tell
-- about it.

CREATE FUNCTION risk_alert._require_preload() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_require_preload_fn';
COMMENT ON FUNCTION risk_alert._require_preload() IS
    'internal: an error, with what to do, unless the library is in shared_preload_libraries';
REVOKE ALL ON FUNCTION risk_alert._require_preload() FROM PUBLIC;

SELECT risk_alert._require_preload();

-- Capture

CREATE FUNCTION risk_alert.capture() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_capture';
COMMENT ON FUNCTION risk_alert.capture() IS
    'trigger function that turns the rows of a watched table into events: AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW, and AFTER TRUNCATE; watch() attaches it';
REVOKE ALL ON FUNCTION risk_alert.capture() FROM PUBLIC;

-- Scores

CREATE FUNCTION risk_alert.risk_score(event record) RETURNS int
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_risk_score_row';
COMMENT ON FUNCTION risk_alert.risk_score(record) IS
    'score (0 to 100) of a row of a watched table; its type names the stream';
REVOKE ALL ON FUNCTION risk_alert.risk_score(record) FROM PUBLIC;

CREATE FUNCTION risk_alert.risk_score(stream text, event jsonb) RETURNS int
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_risk_score_json';
COMMENT ON FUNCTION risk_alert.risk_score(text, jsonb) IS
    'score (0 to 100) of an event that is in no table yet';
REVOKE ALL ON FUNCTION risk_alert.risk_score(text, jsonb) FROM PUBLIC;

CREATE FUNCTION risk_alert.risk_assess(event record,
        OUT score int, OUT decision text, OUT reasons jsonb, OUT features jsonb, OUT rule_set_version bigint,
        OUT epoch bigint)
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_risk_assess_row';
COMMENT ON FUNCTION risk_alert.risk_assess(record) IS
    'score, decision, reasons and feature values of a row of a watched table';
REVOKE ALL ON FUNCTION risk_alert.risk_assess(record) FROM PUBLIC;

CREATE FUNCTION risk_alert.risk_assess(stream text, event jsonb,
        OUT score int, OUT decision text, OUT reasons jsonb, OUT features jsonb, OUT rule_set_version bigint,
        OUT epoch bigint)
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_risk_assess_json';
COMMENT ON FUNCTION risk_alert.risk_assess(text, jsonb) IS
    'score, decision, reasons and feature values of an event that is in no table yet';
REVOKE ALL ON FUNCTION risk_alert.risk_assess(text, jsonb) FROM PUBLIC;

-- Lists in conditions

CREATE FUNCTION risk_alert.in_list(list text, value text) RETURNS bool
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_in_list';
COMMENT ON FUNCTION risk_alert.in_list(text, text) IS
    'is the value on the list, and not expired?';
REVOKE ALL ON FUNCTION risk_alert.in_list(text, text) FROM PUBLIC;

CREATE FUNCTION risk_alert.in_list(list text, value anyelement) RETURNS bool
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_in_list_any';
COMMENT ON FUNCTION risk_alert.in_list(text, anyelement) IS
    'is the value, as text, on the list, and not expired?';
REVOKE ALL ON FUNCTION risk_alert.in_list(text, anyelement) FROM PUBLIC;

-- Operating

CREATE FUNCTION risk_alert.drain(timeout interval DEFAULT '30 seconds') RETURNS bool
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_drain';
COMMENT ON FUNCTION risk_alert.drain(interval) IS
    'waits until all events committed before the call are processed; false: not within the timeout';
REVOKE ALL ON FUNCTION risk_alert.drain(interval) FROM PUBLIC;

-- Internal: for the functions and views below

CREATE FUNCTION risk_alert._library_version() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_library_version';
COMMENT ON FUNCTION risk_alert._library_version() IS 'internal: the extension version that the loaded library goes with';
REVOKE ALL ON FUNCTION risk_alert._library_version() FROM PUBLIC;

CREATE FUNCTION risk_alert._ticket() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_ticket';
COMMENT ON FUNCTION risk_alert._ticket() IS
    'internal: tells a SECURITY DEFINER function of the extension, through _caller(), who calls it';
REVOKE ALL ON FUNCTION risk_alert._ticket() FROM PUBLIC;

CREATE FUNCTION risk_alert._caller(ticket bigint) RETURNS regrole
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_redeem_ticket';
COMMENT ON FUNCTION risk_alert._caller(bigint) IS
    'internal: the role that took the ticket; a ticket is valid once';
REVOKE ALL ON FUNCTION risk_alert._caller(bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert._columns(relation regclass, list text) RETURNS name[]
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_columns';
COMMENT ON FUNCTION risk_alert._columns(regclass, text) IS
    'internal: the columns that a comma-separated list names, as SQL reads identifiers';
REVOKE ALL ON FUNCTION risk_alert._columns(regclass, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._check_feature(
        stream_id int, entity text, lookup text, aggregate text, filter text, within interval, search_path text,
        owner oid,
        OUT entity_columns name[], OUT lookup_columns name[], OUT function text, OUT value_text text,
        OUT filter_text text, OUT result_type regtype)
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_check_feature';
COMMENT ON FUNCTION risk_alert._check_feature(int, text, text, text, text, interval, text, oid) IS
    'internal: checks a feature''s definition and says how it is stored';
REVOKE ALL ON FUNCTION risk_alert._check_feature(int, text, text, text, text, interval, text, oid) FROM PUBLIC;

CREATE FUNCTION risk_alert._check_condition(stream_id int, condition text, search_path text, owner oid) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_check_condition';
COMMENT ON FUNCTION risk_alert._check_condition(int, text, text, oid) IS
    'internal: checks a rule''s condition and says how it is stored';
REVOKE ALL ON FUNCTION risk_alert._check_condition(int, text, text, oid) FROM PUBLIC;

CREATE FUNCTION risk_alert._check_reason(stream_id int, reason text, owner oid) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_check_reason';
COMMENT ON FUNCTION risk_alert._check_reason(int, text, oid) IS
    'internal: checks a rule''s reason template and says how it is stored';
REVOKE ALL ON FUNCTION risk_alert._check_reason(int, text, oid) FROM PUBLIC;

CREATE FUNCTION risk_alert._uses_feature(stream_id int, feature name, condition text, reason text, owner oid) RETURNS bool
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_uses_feature';
COMMENT ON FUNCTION risk_alert._uses_feature(int, name, text, text, oid) IS
    'internal: does a rule with this condition and reason use the feature?';
REVOKE ALL ON FUNCTION risk_alert._uses_feature(int, name, text, text, oid) FROM PUBLIC;

CREATE FUNCTION risk_alert._refresh_stream(stream_id int) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_refresh_stream';
COMMENT ON FUNCTION risk_alert._refresh_stream(int) IS
    'internal: validates a changed stream, renews what it captures and depends on, and makes all processes reload it';
REVOKE ALL ON FUNCTION risk_alert._refresh_stream(int) FROM PUBLIC;

CREATE FUNCTION risk_alert._invalidate_stream(stream_id int) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_invalidate_stream';
COMMENT ON FUNCTION risk_alert._invalidate_stream(int) IS
    'internal: makes all processes reload a stream';
REVOKE ALL ON FUNCTION risk_alert._invalidate_stream(int) FROM PUBLIC;

CREATE FUNCTION risk_alert._forget_windows(relation regclass) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_forget_windows';
COMMENT ON FUNCTION risk_alert._forget_windows(regclass) IS
    'internal: has the worker read the entities of a watched table anew';
REVOKE ALL ON FUNCTION risk_alert._forget_windows(regclass) FROM PUBLIC;

CREATE FUNCTION risk_alert._config_changed() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_config_changed';
COMMENT ON FUNCTION risk_alert._config_changed() IS
    'internal: trigger function that makes all processes reload the lists';
REVOKE ALL ON FUNCTION risk_alert._config_changed() FROM PUBLIC;

CREATE FUNCTION risk_alert._entity_index(relation regclass, entity name[], event_time name) RETURNS bool
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_entity_index';
COMMENT ON FUNCTION risk_alert._entity_index(regclass, name[], name) IS
    'internal: has the table an index that finds an entity''s latest events?';
REVOKE ALL ON FUNCTION risk_alert._entity_index(regclass, name[], name) FROM PUBLIC;

CREATE FUNCTION risk_alert._worker_status(
        OUT database name, OUT pid int, OUT state text, OUT started_at timestamptz, OUT batches bigint,
        OUT events bigint, OUT wakeups bigint, OUT last_batch_at timestamptz, OUT last_error text)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'ra_worker_status';
COMMENT ON FUNCTION risk_alert._worker_status() IS 'internal: see view stat_workers';
REVOKE ALL ON FUNCTION risk_alert._worker_status() FROM PUBLIC;

CREATE FUNCTION risk_alert._cache_status(
        OUT stream_id int, OUT entity text, OUT entities bigint, OUT memory bigint, OUT hits bigint,
        OUT rebuilds bigint, OUT evictions bigint)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'ra_cache_status';
COMMENT ON FUNCTION risk_alert._cache_status() IS 'internal: see view stat_features';
REVOKE ALL ON FUNCTION risk_alert._cache_status() FROM PUBLIC;
