-- The cluster: nodes, statements on them, and which one to choose.

-- A node is a foreign server, and who connects to it how is a user mapping:
-- credentials live where PostgreSQL protects them, dumps them and lets them be
-- granted.  The wrapper has no handler: there are no foreign tables.
CREATE FUNCTION risk_alert.node_validator(options text[], catalog oid) RETURNS void
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_node_validator';
COMMENT ON FUNCTION risk_alert.node_validator(text[], oid) IS
    'checks the options of nodes and their user mappings; called by CREATE and ALTER of SERVER and USER MAPPING';
REVOKE ALL ON FUNCTION risk_alert.node_validator(text[], oid) FROM PUBLIC;

CREATE FOREIGN DATA WRAPPER risk_alert_node NO HANDLER VALIDATOR risk_alert.node_validator;
COMMENT ON FOREIGN DATA WRAPPER risk_alert_node IS
    'nodes of a risk_alert cluster: CREATE SERVER ... FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host ''...'', port ''...'', dbname ''...'')';
REVOKE ALL ON FOREIGN DATA WRAPPER risk_alert_node FROM PUBLIC;

CREATE FUNCTION risk_alert.on_node(node text, sql text, params text[] DEFAULT '{}') RETURNS SETOF record
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'ra_on_node';
COMMENT ON FUNCTION risk_alert.on_node(text, text, text[]) IS
    'runs one statement on a node, as a transaction of its own and with the rights of the caller''s user mapping; params are its $1, $2, ...; SELECT * FROM on_node(...) AS t (score int)';
REVOKE ALL ON FUNCTION risk_alert.on_node(text, text, text[]) FROM PUBLIC;

CREATE FUNCTION risk_alert.pick_node(strategy text, key text DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'ra_pick_node';
COMMENT ON FUNCTION risk_alert.pick_node(text, text) IS
    'a live node for a request, by strategy: random, round_robin, least_loaded, or hash (of key: the same node for the same key)';
REVOKE ALL ON FUNCTION risk_alert.pick_node(text, text) FROM PUBLIC;

CREATE FUNCTION risk_alert.is_leader() RETURNS bool
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'ra_is_leader';
COMMENT ON FUNCTION risk_alert.is_leader() IS 'does this node lead the cluster?';
REVOKE ALL ON FUNCTION risk_alert.is_leader() FROM PUBLIC;

CREATE FUNCTION risk_alert._members(
        OUT name text, OUT live bool, OUT leader bool, OUT self bool, OUT load float8, OUT last_seen timestamptz)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'ra_members_fn';
COMMENT ON FUNCTION risk_alert._members() IS 'internal: see view nodes';
REVOKE ALL ON FUNCTION risk_alert._members() FROM PUBLIC;

CREATE FUNCTION risk_alert._node_status(
        OUT name text, OUT requests bigint, OUT errors bigint, OUT in_flight int, OUT mean_time float8,
        OUT min_time float8, OUT max_time float8, OUT last_time float8, OUT last_at timestamptz)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'ra_node_status';
COMMENT ON FUNCTION risk_alert._node_status() IS 'internal: see view stat_nodes';
REVOKE ALL ON FUNCTION risk_alert._node_status() FROM PUBLIC;

-- Options of servers are no secrets: everybody can read pg_foreign_server
CREATE FUNCTION risk_alert._option(options text[], name text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.option_value FROM pg_catalog.pg_options_to_table(options) o WHERE o.option_name = name
$$;
COMMENT ON FUNCTION risk_alert._option(text[], text) IS 'internal: the value of an option, NULL if it is not set';
REVOKE ALL ON FUNCTION risk_alert._option(text[], text) FROM PUBLIC;

CREATE VIEW risk_alert.nodes AS
    SELECT COALESCE(s.srvname, m.name) AS name,
           COALESCE(risk_alert._option(s.srvoptions, 'host'), risk_alert._option(s.srvoptions, 'hostaddr')) AS host,
           risk_alert._option(s.srvoptions, 'port') AS port,
           risk_alert._option(s.srvoptions, 'dbname') AS dbname,
           COALESCE(m.live, false) AS live,
           COALESCE(m.leader, false) AS leader,
           COALESCE(m.self, false) AS self,
           m.load,
           COALESCE(risk_alert._option(s.srvoptions, 'weight')::float8, 1) AS weight,
           m.last_seen
      FROM (SELECT v.srvname::text, v.srvoptions
              FROM pg_catalog.pg_foreign_server v
              JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = v.srvfdw
             WHERE w.fdwname = 'risk_alert_node') s
      FULL JOIN risk_alert._members() m ON m.name = s.srvname;
COMMENT ON VIEW risk_alert.nodes IS 'the nodes that this database has a server for, and those that are members of the cluster';
COMMENT ON COLUMN risk_alert.nodes.name IS 'of the server, and of the node itself';
COMMENT ON COLUMN risk_alert.nodes.port IS 'where it listens';
COMMENT ON COLUMN risk_alert.nodes.dbname IS 'the database there';
COMMENT ON COLUMN risk_alert.nodes.host IS 'where it is; NULL if there is no server for it, or the server names no host';
COMMENT ON COLUMN risk_alert.nodes.live IS 'is it a member at present?';
COMMENT ON COLUMN risk_alert.nodes.leader IS 'does it lead the cluster?';
COMMENT ON COLUMN risk_alert.nodes.self IS 'is it this server?';
COMMENT ON COLUMN risk_alert.nodes.load IS 'how busy it is, as it has published; 0: idle';
COMMENT ON COLUMN risk_alert.nodes.weight IS 'its share when requests are spread (option weight of the server)';
COMMENT ON COLUMN risk_alert.nodes.last_seen IS 'when the cluster last heard of it';

CREATE VIEW risk_alert.stat_nodes AS
    SELECT s.srvname::text AS name,
           COALESCE(k.requests, 0) AS requests,
           COALESCE(k.errors, 0) AS errors,
           COALESCE(k.in_flight, 0) AS in_flight,
           k.mean_time,
           k.min_time,
           k.max_time,
           k.last_time,
           k.last_at
      FROM pg_catalog.pg_foreign_server s
      JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
      LEFT JOIN risk_alert._node_status() k ON k.name = s.srvname::text
     WHERE w.fdwname = 'risk_alert_node';
COMMENT ON VIEW risk_alert.stat_nodes IS 'what this server has asked of each node with on_node(), since it started; databases that call a node by the same name share a row';
COMMENT ON COLUMN risk_alert.stat_nodes.name IS 'the node';
COMMENT ON COLUMN risk_alert.stat_nodes.min_time IS 'the shortest';
COMMENT ON COLUMN risk_alert.stat_nodes.max_time IS 'the longest';
COMMENT ON COLUMN risk_alert.stat_nodes.requests IS 'requests that have ended';
COMMENT ON COLUMN risk_alert.stat_nodes.errors IS 'those of them that ended with an error, cancelled ones included';
COMMENT ON COLUMN risk_alert.stat_nodes.in_flight IS 'statements that run there at present, those of global transactions included';
COMMENT ON COLUMN risk_alert.stat_nodes.mean_time IS 'how long a request took, connecting included, in milliseconds';
COMMENT ON COLUMN risk_alert.stat_nodes.last_time IS 'how long the latest one took';
COMMENT ON COLUMN risk_alert.stat_nodes.last_at IS 'when the latest one began or ended';
