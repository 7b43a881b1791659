-- Nodes: options, rights, statements on a node (this server, over a connection
-- to itself), and the choice of one.  What takes several servers is in
-- tap/200_nodes.pl.

SET client_min_messages = warning;
\set SHOW_CONTEXT never

-- claim: options are checked when the server is made, and the hint lists them
-- (all of them depend on the version of libpq)
DO $$
DECLARE hint text;
BEGIN
    CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (hots 'x');
EXCEPTION WHEN fdw_invalid_option_name THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RAISE WARNING '% %', SQLERRM, substr(hint, 1, 83);
END
$$;
\set VERBOSITY terse
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host 'x', password 'secret');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS ("user" 'x');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (service 'x');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (client_encoding 'x');
\set VERBOSITY default
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (port '0');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (port '65536');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (port '5432x');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (weight '0');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (weight '-1');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (weight 'nan');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (weight 'heavy');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (weight 'inf');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (connect_timeout '-1');
CREATE SERVER wrong FOREIGN DATA WRAPPER risk_alert_node OPTIONS (sslmode 'sometimes');
ALTER FOREIGN DATA WRAPPER risk_alert_node OPTIONS (ADD host 'x');

-- claim: what makes sense is taken
CREATE SERVER node_x FOREIGN DATA WRAPPER risk_alert_node OPTIONS (
    host 'localhost', hostaddr '127.0.0.1', port '1', dbname 'nowhere', weight '2.5', connect_timeout '3',
    application_name 'x', options '-c work_mem=1MB', target_session_attrs 'any', keepalives '1', keepalives_idle '10',
    keepalives_interval '5', keepalives_count '3', tcp_user_timeout '1000', sslmode 'prefer');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_x OPTIONS (host 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_x OPTIONS (
    "user" 'somebody', password 'secret', passfile '/nowhere', sslcert '/nowhere', sslkey '/nowhere', password_required 'false');

-- the server itself
SELECT format($$CREATE SERVER node_a FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host %L, port %L, dbname %L)$$,
              split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()) AS make \gset
:make;
CREATE USER MAPPING FOR CURRENT_USER SERVER node_a;

-- claim: both are shown, without secrets
SELECT name, host IS NOT NULL AS host, port IS NOT NULL AS port, live, leader, self, weight, last_seen IS NOT NULL AS seen
  FROM risk_alert.nodes ORDER BY name;
SELECT host, port, dbname, weight FROM risk_alert.nodes WHERE name = 'node_x';
SELECT risk_alert.is_leader();

-- claim: rows come back, of the types that the column list names
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1, ''two'', NULL') AS t (a int, b text, c date);
SELECT * FROM risk_alert.on_node('node_a', 'SELECT g, g * 1.5 FROM generate_series(1, 3) g') AS t (g bigint, x numeric(4,1));
SELECT count(*), sum(length(x)) FROM risk_alert.on_node('node_a', 'SELECT repeat(g::text, 100) FROM generate_series(1, 20000) g') AS t (x text);
SELECT * FROM risk_alert.on_node('node_a', 'SELECT FROM generate_series(1, 2)') AS t (x int);
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1 WHERE false') AS t (x int);

-- claim: parameters are values, NULL included, and never SQL
SELECT * FROM risk_alert.on_node('node_a', 'SELECT $1::int + 1, $2, $3::text IS NULL', ARRAY['41', ''' OR true --', NULL]) AS t (a int, b text, c bool);
SELECT * FROM risk_alert.on_node('node_a', 'SELECT $1', NULL) AS t (a text);

-- claim: values arrive unharmed whatever the settings on both sides
SET datestyle = 'German';
SET intervalstyle = 'sql_standard';
SET extra_float_digits = 0;
SELECT d = '2026-02-03', i = '-1 day -02:03:00', f = 0.1::float8 + 0.2::float8, t = '2026-02-03 04:05:06+00', b = '\x00ff'
  FROM risk_alert.on_node('node_a', $$SELECT '2026-02-03'::date, '-1 day -02:03:00'::interval, 0.1::float8 + 0.2::float8,
                                             '2026-02-03 04:05:06+00'::timestamptz, '\x00ff'::bytea$$)
       AS t (d date, i interval, f float8, t timestamptz, b bytea);
SHOW datestyle;
SHOW intervalstyle;
RESET datestyle;
RESET intervalstyle;
RESET extra_float_digits;
SELECT * FROM risk_alert.on_node('node_a', 'SET datestyle = German') AS t (result text);
SELECT * FROM risk_alert.on_node('node_a', 'SELECT ''2026-02-03''::date::text') AS t (d text);

-- claim: a statement without rows gives its command tag
CREATE TABLE node_table (id int PRIMARY KEY, note text);
SELECT * FROM risk_alert.on_node('node_a', 'INSERT INTO node_table VALUES (1, ''x''), (2, ''y'')') AS t (result text);
SELECT * FROM risk_alert.on_node('node_a', 'DELETE FROM node_table WHERE id = 1') AS t (result int);
SELECT * FROM risk_alert.on_node('node_a', 'UPDATE node_table SET note = $1 RETURNING id, note', '{z}') AS t (id int, note text);
SELECT * FROM risk_alert.on_node('node_a', '') AS t (result text);

-- claim: a statement is a transaction of its own
BEGIN;
SELECT * FROM risk_alert.on_node('node_a', 'INSERT INTO node_table VALUES (3, ''stays'')') AS t (result text);
ROLLBACK;
TABLE node_table;
SELECT * FROM risk_alert.on_node('node_a', 'BEGIN') AS t (result text);
SELECT * FROM risk_alert.on_node('node_a', 'SELECT now() <> statement_timestamp()') AS t (in_transaction bool);
SELECT * FROM risk_alert.on_node('node_a', 'COMMIT; DROP TABLE node_table') AS t (result text);

-- claim: errors are passed on whole, and say where they come from
\set SHOW_CONTEXT errors
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1/0') AS t (x int);
\echo :SQLSTATE
SELECT * FROM risk_alert.on_node('node_a', 'INSERT INTO node_table VALUES (2, ''again'')') AS t (result text);
\echo :SQLSTATE
DO $$
DECLARE name text;
BEGIN
    PERFORM FROM risk_alert.on_node('node_a', 'INSERT INTO node_table VALUES (2, ''again'')') AS t (result text);
EXCEPTION WHEN unique_violation THEN
    GET STACKED DIAGNOSTICS name = CONSTRAINT_NAME;
    RAISE WARNING '%', name;
END
$$;
SELECT * FROM risk_alert.on_node('node_a', $$DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''RA001'', MESSAGE = ''100%s'', DETAIL = ''d %'', HINT = ''h''; END'$$) AS t (result text);
\echo :SQLSTATE
SELECT * FROM risk_alert.on_node('node_a', 'SELECT g / (g - 3) FROM generate_series(1, 5) g') AS t (x int);
SELECT * FROM risk_alert.on_node('node_a', 'SELECT ''abc''') AS t (x int);
\set SHOW_CONTEXT never
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1, 2') AS t (x int);
SELECT * FROM risk_alert.on_node('node_a', 'COPY node_table TO STDOUT') AS t (x text);
SELECT * FROM risk_alert.on_node('node_a', 'COPY node_table FROM STDIN') AS t (x text);
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (still_works int);
SELECT risk_alert.on_node('node_a', 'SELECT 1');
SELECT * FROM risk_alert.on_node(NULL, 'SELECT 1') AS t (x int);
SELECT * FROM risk_alert.on_node('node_a', NULL) AS t (x int);
SELECT * FROM risk_alert.on_node('node_b', 'SELECT 1') AS t (x int);

-- claim: an error that is caught leaves a connection that works
DO $$
DECLARE x int;
BEGIN
    FOR i IN 1..3 LOOP
        BEGIN
            SELECT t.x INTO x FROM risk_alert.on_node('node_a', 'SELECT 1/0') AS t (x int);
        EXCEPTION WHEN division_by_zero THEN
            SELECT t.x INTO x FROM risk_alert.on_node('node_a', 'SELECT 7') AS t (x int);
            ASSERT x = 7;
        END;
    END LOOP;
END
$$;

-- claim: the connection is kept, and replaced when its server or mapping changes
SELECT pid AS first FROM risk_alert.on_node('node_a', 'SELECT pg_backend_pid()') AS t (pid int) \gset
SELECT pid = :first AS same FROM risk_alert.on_node('node_a', 'SELECT pg_backend_pid()') AS t (pid int);
ALTER SERVER node_a OPTIONS (ADD application_name 'altered');
SELECT pid = :first AS same, name FROM risk_alert.on_node('node_a', 'SELECT pg_backend_pid(), current_setting(''application_name'')') AS t (pid int, name text);
SELECT pid AS second FROM risk_alert.on_node('node_a', 'SELECT pg_backend_pid()') AS t (pid int) \gset
ALTER USER MAPPING FOR CURRENT_USER SERVER node_a OPTIONS (ADD password 'unused');
SELECT pid = :second AS same FROM risk_alert.on_node('node_a', 'SELECT pg_backend_pid()') AS t (pid int);
ALTER SERVER node_a OPTIONS (DROP application_name);
SELECT * FROM risk_alert.on_node('node_a', 'SELECT current_setting(''application_name'')') AS t (name text);

-- claim: nobody waits for a connection that is in use by himself
CREATE FUNCTION asks_again(x int) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE y int;
BEGIN
    SELECT t.y INTO y FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (y int);
    RETURN true;
END
$$;
CREATE DOMAIN asking AS int CHECK (asks_again(VALUE));
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (x asking);
DROP DOMAIN asking;
DROP FUNCTION asks_again;

-- claim: a node that is not there is told clearly
\set VERBOSITY terse
SELECT * FROM risk_alert.on_node('node_x', 'SELECT 1') AS t (x int);
\set VERBOSITY default
\echo :SQLSTATE
SELECT name, level, description FROM risk_alert.check_node('node_x');
SELECT name, level, description, remediation FROM risk_alert.check_node('node_b');
SELECT * FROM risk_alert.check_node(NULL);

-- claim: check_node() finds nothing wrong with this one
SELECT name, level, description, remediation FROM risk_alert.check_node('node_a') WHERE name NOT IN ('version', 'extension');
SELECT name, level FROM risk_alert.check_node('node_a') WHERE name IN ('version', 'extension');

-- claim: requests are counted, errors too
CREATE SERVER node_c FOREIGN DATA WRAPPER risk_alert_node;
SELECT * FROM risk_alert.stat_nodes WHERE name = 'node_c';
SELECT name, requests > 30 AS requests, errors > 5 AS errors, in_flight, min_time <= mean_time AND mean_time <= max_time AS plausible,
       last_time > 0 AS last, last_at <= clock_timestamp() AS at
  FROM risk_alert.stat_nodes WHERE name = 'node_a';
SELECT requests AS before FROM risk_alert.stat_nodes WHERE name = 'node_a' \gset
SELECT t.* FROM generate_series(1, 3) g, risk_alert.on_node('node_a', 'SELECT $1', ARRAY[g::text]) AS t (x int);
SELECT requests - :before AS more FROM risk_alert.stat_nodes WHERE name = 'node_a';
SELECT * FROM risk_alert.on_node('node_a', $$SELECT in_flight FROM risk_alert.stat_nodes WHERE name = 'node_a'$$) AS t (under_way int);

-- claim: the only node is always chosen
SELECT s AS strategy, risk_alert.pick_node(s, 'account:42') FROM unnest('{random,round_robin,least_loaded,hash}'::text[]) s;
SELECT DISTINCT risk_alert.pick_node('hash', g::text) FROM generate_series(1, 100) g;
SELECT risk_alert.pick_node('hash');
SELECT risk_alert.pick_node('dice');
SELECT risk_alert.pick_node(NULL);

-- claim: the names of node and cluster are checked at the start of the server, and fixed
SET risk_alert.node_name = 'node_b';
ALTER SYSTEM SET risk_alert.node_name = 'with blank';
ALTER SYSTEM SET risk_alert.cluster_name = '';
ALTER SYSTEM SET risk_alert.cluster_name = 'a/b';
SHOW risk_alert.cluster_name;

-- Rights
CREATE ROLE node_admin LOGIN;
CREATE ROLE node_analyst LOGIN;
CREATE ROLE node_nobody LOGIN;
GRANT risk_alert_admin TO node_admin;
GRANT risk_alert_analyst TO node_analyst;

-- claim: who has no role of risk_alert can do nothing
SET ROLE node_nobody;
CREATE SERVER mine FOREIGN DATA WRAPPER risk_alert_node;
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (x int);
SELECT * FROM risk_alert.nodes;
SELECT * FROM risk_alert.stat_nodes;
SELECT risk_alert.pick_node('random');
SELECT * FROM risk_alert.check_node('node_a');

-- claim: an analyst needs USAGE of the server, and a mapping
SET ROLE node_analyst;
CREATE SERVER mine FOREIGN DATA WRAPPER risk_alert_node;
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (x int);
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER node_a, node_x TO node_analyst;
SET ROLE node_analyst;
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (x int);

-- claim: without a password of his own he is not let in on the word of this server
CREATE USER MAPPING FOR CURRENT_USER SERVER node_a OPTIONS (password_required 'false');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_a OPTIONS (passfile '/x');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_a OPTIONS (sslkey '/x');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_a;
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (x int);
\echo :SQLSTATE
ALTER USER MAPPING FOR CURRENT_USER SERVER node_a OPTIONS (ADD password 'not asked for');
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (x int);
\echo :SQLSTATE
ALTER USER MAPPING FOR CURRENT_USER SERVER node_a OPTIONS (ADD "user" :'USER');
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (x int);
SELECT name, level, description, remediation FROM risk_alert.check_node('node_a');
RESET ROLE;

-- claim: unless a superuser allows it
ALTER USER MAPPING FOR node_analyst SERVER node_a OPTIONS (ADD password_required 'false', SET "user" 'node_analyst');
SET ROLE node_analyst;
SELECT * FROM risk_alert.on_node('node_a', 'SELECT current_user, session_user') AS t (c text, s text);
SELECT name, level FROM risk_alert.check_node('node_a') WHERE name = 'remote_role';
SELECT * FROM risk_alert.on_node('node_a', 'SELECT * FROM node_table') AS t (id int, note text);
ALTER USER MAPPING FOR CURRENT_USER SERVER node_a OPTIONS (SET "user" 'postgres');
SELECT name, dbname IS NOT NULL AS dbname, live FROM risk_alert.nodes ORDER BY name;
SELECT count(*) FROM risk_alert.stat_nodes;
SELECT srvname, umoptions FROM pg_user_mappings WHERE srvname LIKE 'node\__' AND usename <> current_user ORDER BY 1, 2;
SELECT count(umoptions) AS others FROM pg_user_mappings WHERE usename <> current_user;
RESET ROLE;

-- claim: somebody who shares a mapping does not get the connection that a superuser made without a password
DROP USER MAPPING FOR CURRENT_USER SERVER node_a;
DROP USER MAPPING FOR node_analyst SERVER node_a;
CREATE USER MAPPING FOR PUBLIC SERVER node_a OPTIONS ("user" :'USER');
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (x int);
SET ROLE node_analyst;
SELECT * FROM risk_alert.on_node('node_a', 'SELECT 1') AS t (x int);
RESET ROLE;

-- claim: an administrator makes nodes
SET ROLE node_admin;
CREATE SERVER node_d FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '127.0.0.1', port '1');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_d OPTIONS ("user" 'x', password 'top secret');
\set VERBOSITY terse
SELECT * FROM risk_alert.on_node('node_d', 'SELECT 1') AS t (x int);
\set VERBOSITY default
DROP SERVER node_d CASCADE;
RESET ROLE;

-- claim: a server of another wrapper is no node
CREATE FOREIGN DATA WRAPPER other_wrapper;
CREATE SERVER other_server FOREIGN DATA WRAPPER other_wrapper;
SELECT * FROM risk_alert.on_node('other_server', 'SELECT 1') AS t (x int);
SELECT count(*) FROM risk_alert.nodes WHERE name = 'other_server';
DROP FOREIGN DATA WRAPPER other_wrapper CASCADE;

DROP TABLE node_table;
DROP SERVER node_a CASCADE;
DROP SERVER node_c CASCADE;
DROP SERVER node_x CASCADE;
DROP ROLE node_admin, node_analyst, node_nobody;
SELECT * FROM risk_alert.nodes WHERE NOT self;
