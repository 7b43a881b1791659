--
-- check_setup(): findings about transactions that do not end, roles, and
-- tables of kinds that need care
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT risk_alert.drain();

-- claim: F12 a partition that is a foreign table: what is changed on its own server goes unnoticed
CREATE FOREIGN DATA WRAPPER sf_fdw;
CREATE SERVER sf_server FOREIGN DATA WRAPPER sf_fdw;
CREATE FOREIGN TABLE sf_foreign (id int NOT NULL, at timestamptz NOT NULL) SERVER sf_server;
CREATE TABLE sf_part (id int NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE sf_part_1 PARTITION OF sf_part FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE UNIQUE INDEX sf_key ON sf_part (id, at);
SELECT risk_alert.watch('sf_part', event_time => 'at', key => 'id, at');
SELECT risk_alert.create_rule('sf_part', 'all', 'true', points => 100);
-- (the index that the key needs keeps it out)
ALTER TABLE sf_part ATTACH PARTITION sf_foreign FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
DROP INDEX sf_key;
ALTER TABLE sf_part ATTACH PARTITION sf_foreign FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
SELECT level, name, object, description, detail, remediation FROM risk_alert.check_setup() WHERE object = 'sf_part' AND name IN ('partition', 'key');
INSERT INTO sf_part VALUES (1, '2026-05-05Z');
SELECT risk_alert.drain();
SELECT event_key FROM risk_alert.alerts WHERE stream = 'sf_part';

-- claim: an unlogged table; columns that a stream needs and that are gone
CREATE UNLOGGED TABLE sf_unlogged (id int PRIMARY KEY, at timestamptz);
SELECT risk_alert.watch('sf_unlogged', event_time => 'at');
SELECT level, name, object, description, detail, remediation FROM risk_alert.check_setup() WHERE object = 'sf_unlogged' AND name IN ('unlogged', 'columns');
ALTER TABLE sf_unlogged SET LOGGED;
SELECT level, name FROM risk_alert.check_setup() WHERE object = 'sf_unlogged' AND name IN ('unlogged', 'columns');
ALTER TABLE sf_unlogged DROP COLUMN at CASCADE;
SELECT level, name, object, description, detail, remediation FROM risk_alert.check_setup() WHERE object = 'sf_unlogged' AND name IN ('unlogged', 'columns');
SELECT risk_alert.risk_score('sf_unlogged', '{"id": 1}');
SELECT risk_alert.unwatch('sf_unlogged');
SELECT count(*) FROM risk_alert.check_setup() WHERE object = 'sf_unlogged';

-- claim: thresholds that no score can reach
CREATE TEMPORARY VIEW threshold AS
	SELECT level, name, object, description, detail, remediation FROM risk_alert.check_setup() WHERE object = 'sf_part' AND name = 'thresholds';
SELECT * FROM threshold;
SELECT risk_alert.alter_rule('sf_part', 'all', points => 79);
SELECT * FROM threshold;
SELECT risk_alert.alter_rule('sf_part', 'all', points => 49);
SELECT * FROM threshold;
SELECT risk_alert.alter_stream('sf_part', review_at => 49);
SELECT * FROM threshold;

-- claim: why nothing happens: no event has a time, no rule is active, triggers leave something out
CREATE TABLE sf_quiet (id int PRIMARY KEY, at timestamptz);
SELECT risk_alert.watch('sf_quiet', event_time => 'at');
SELECT risk_alert.create_rule('sf_quiet', 'all', 'true', points => 100, status => 'draft');
CREATE TEMPORARY VIEW quiet AS
	SELECT level, name, description, detail, remediation FROM risk_alert.check_setup()
	WHERE object = 'sf_quiet' AND name IN ('activity', 'trigger', 'skipped') AND level <> 'ok';
INSERT INTO sf_quiet VALUES (1, NULL), (2, 'infinity');
SELECT risk_alert.drain();
SELECT * FROM quiet;
INSERT INTO sf_quiet VALUES (3, '2026-01-01Z');
SELECT risk_alert.drain();
SELECT * FROM quiet;
SELECT risk_alert.alter_rule('sf_quiet', 'all', status => 'active');
DROP TRIGGER risk_alert_capture ON sf_quiet;
CREATE TRIGGER partly AFTER INSERT OR DELETE ON sf_quiet FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
SELECT * FROM quiet;
SELECT state FROM risk_alert.stat_streams WHERE stream = 'sf_quiet';
SELECT remediation FROM quiet WHERE name = 'trigger' \gexec
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'sf_quiet'::regclass AND tgname = 'risk_alert_capture';
INSERT INTO sf_quiet VALUES (4, '2026-01-01Z');
SELECT risk_alert.drain();
SELECT level, name, description FROM quiet;
SELECT risk_alert.unwatch('sf_quiet');
DROP TABLE sf_quiet;

-- claim: a role that is missing, or has no members
CREATE ROLE sf_alice;
SELECT level, name, object, description, detail, remediation FROM risk_alert.check_setup() WHERE name = 'roles';
GRANT risk_alert_analyst TO sf_alice;
SELECT level, name, object FROM risk_alert.check_setup() WHERE name = 'roles';
ALTER ROLE risk_alert_analyst RENAME TO sf_analyst;
SELECT level, name, object, description, detail, remediation FROM risk_alert.check_setup() WHERE name = 'roles';
ALTER ROLE sf_analyst RENAME TO risk_alert_analyst;
SELECT level, name, object FROM risk_alert.check_setup() WHERE name = 'roles';
DROP ROLE sf_alice;

-- claim: that there is no stream
SELECT level, name FROM risk_alert.check_setup() WHERE name = 'streams';
SELECT risk_alert.unwatch('sf_part');
SELECT level, name, description, remediation FROM risk_alert.check_setup() WHERE name = 'streams';
DROP TABLE sf_part, sf_unlogged;
DROP FOREIGN DATA WRAPPER sf_fdw CASCADE;
DELETE FROM risk_alert.alert WHERE stream ~ '^sf_';
