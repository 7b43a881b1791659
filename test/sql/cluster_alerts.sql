--
-- cluster_alerts: the open alerts of all nodes.  What takes several servers is in
-- tap/240_cluster_alerts.pl.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE TABLE ca_pay (id int PRIMARY KEY, card int, amount int, at timestamptz);
SELECT risk_alert.watch('ca_pay', event_time => 'at', suppress => '0');
SELECT risk_alert.create_feature('ca_pay', 'ca_n', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_rule('ca_pay', 'large', 'amount > 100 AND ca_n > 0', points => 60, severity => 'low', reason => '"{card}" paid {amount}');
SELECT risk_alert.create_rule('ca_pay', 'huge', 'amount > 1000 AND ca_n > 0', points => 10, severity => 'critical');
INSERT INTO ca_pay VALUES (1, 1, 200, '2026-01-01Z'), (2, 2, 2000, '2026-01-02Z'), (3, 3, 300, '2026-01-03Z');
SELECT risk_alert.drain();

-- claim: the columns are those of open_alerts, between the node and the nodes that are missing
SELECT array_agg(attname ORDER BY attnum) = (SELECT '{node}'::name[] || array_agg(attname ORDER BY attnum) || '{missing_nodes}'
                                               FROM pg_attribute WHERE attrelid = 'risk_alert.open_alerts'::regclass AND attnum > 0) AS same
  FROM pg_attribute WHERE attrelid = 'risk_alert.cluster_alerts'::regclass AND attnum > 0;

-- claim: this node's alerts need no server, and are the same as in open_alerts, worst first
SELECT node, stream, severity, score, entity, missing_nodes FROM risk_alert.cluster_alerts WHERE stream = 'ca_pay';
SELECT count(*) AS different
  FROM (SELECT to_jsonb(c) - '{node,missing_nodes,age}'::text[] AS a FROM risk_alert.cluster_alerts c) c
  FULL JOIN (SELECT to_jsonb(o) - 'age' AS a FROM risk_alert.open_alerts o) o USING (a)
 WHERE c.* IS NULL OR o.* IS NULL;

-- claim: nor is this node asked if there is one
CREATE SERVER node_a FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '127.0.0.1', port '1');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_a;
SELECT node, entity, missing_nodes FROM risk_alert.cluster_alerts WHERE stream = 'ca_pay';

-- claim: a node that can't be asked is a warning, and missing
\set VERBOSITY terse
CREATE SERVER ca_gone FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host '127.0.0.1', port '1');
CREATE USER MAPPING FOR CURRENT_USER SERVER ca_gone;
SELECT node, entity, missing_nodes FROM risk_alert.cluster_alerts WHERE stream = 'ca_pay';

-- claim: one that leads to another node than it says is not counted twice
SELECT format($$CREATE SERVER ca_b FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host %L, port %L, dbname %L)$$,
              split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()) AS make \gset
:make;
CREATE USER MAPPING FOR CURRENT_USER SERVER ca_b;
DROP SERVER ca_gone CASCADE;
-- claim: that a node's statement is cancelled there is its answer, and the connection is of use
SELECT answer, error FROM risk_alert._ask_nodes('{ca_b}', 'SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(10)');
SELECT answer, error FROM risk_alert._ask_nodes('{ca_b}', 'SELECT 1');
\set VERBOSITY default
SELECT node, entity, missing_nodes FROM risk_alert.cluster_alerts WHERE stream = 'ca_pay';

-- claim: warnings do not depend on whether there are alerts
SELECT node FROM risk_alert.cluster_alerts WHERE stream = 'no such';

-- claim: who may read open_alerts may read it; what he has no right or mapping for is missing
CREATE ROLE ca_analyst IN ROLE risk_alert_analyst;
CREATE ROLE ca_monitor IN ROLE risk_alert_monitor;
SET ROLE ca_monitor;
SELECT node FROM risk_alert.cluster_alerts;
SET ROLE ca_analyst;
SELECT node, entity, missing_nodes FROM risk_alert.cluster_alerts WHERE stream = 'ca_pay';
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER ca_b TO ca_analyst;
SET ROLE ca_analyst;
SELECT node, entity, missing_nodes FROM risk_alert.cluster_alerts WHERE stream = 'ca_pay';
CREATE USER MAPPING FOR CURRENT_USER SERVER ca_b;
SELECT node, entity, missing_nodes FROM risk_alert.cluster_alerts WHERE stream = 'ca_pay';
RESET ROLE;

-- claim: it can be asked within a transaction that goes on, and in the middle of others' connections
BEGIN;
SAVEPOINT s;
SELECT count(*) FROM risk_alert.cluster_alerts WHERE stream = 'ca_pay';
SELECT x FROM risk_alert.on_node('ca_b', 'SELECT 1') AS t (x int);
SELECT 1/0;
ROLLBACK TO s;
SELECT count(*) FROM risk_alert.cluster_alerts WHERE stream = 'ca_pay';
COMMIT;

DROP SERVER node_a CASCADE;
DROP SERVER ca_b CASCADE;
DROP ROLE ca_analyst, ca_monitor;
SELECT risk_alert.unwatch('ca_pay');
DROP TABLE ca_pay;
DELETE FROM risk_alert.alert WHERE stream = 'ca_pay';
