--
-- check_setup(): finds what is wrong, and its remediation puts it right
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE TEMPORARY VIEW finding AS
    SELECT level, name, object, description, remediation FROM risk_alert.check_setup()
     WHERE object ~ '^(public\.)?su_' AND level <> 'ok';
CREATE TABLE su_pay (id int PRIMARY KEY, card int, amount int, at timestamptz);

-- claim: the server is in order (once its worker has started)
SELECT risk_alert.drain();
SELECT name, level FROM risk_alert.check_setup() WHERE name IN ('preload', 'version', 'worker', 'worker_slots') ORDER BY 1;

-- claim: a stream without rules says so
SELECT risk_alert.watch('su_pay', event_time => 'at');
SELECT * FROM finding;

-- claim: a feature without an index, rules without enough points
SELECT risk_alert.create_feature('su_pay', 'n', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_rule('su_pay', 'often', 'n > 3', points => 30);
SELECT * FROM finding;
SELECT remediation FROM finding WHERE name = 'index' \gexec
SELECT risk_alert.create_rule('su_pay', 'large', '1000 / amount < 1', points => 60);

-- claim: what happens with the events: nothing written, not fired, not scored, below the threshold, alerts
SELECT * FROM finding;
INSERT INTO su_pay VALUES (1, 1, 10, '2020-01-01');
SELECT risk_alert.drain();
SELECT * FROM finding;
INSERT INTO su_pay SELECT i, 1, 10, '2020-01-01' FROM generate_series(2, 5) i;
SELECT risk_alert.drain();
SELECT * FROM finding;
INSERT INTO su_pay VALUES (6, 2, 2000, '2020-01-01');
SELECT risk_alert.drain();
-- claim: nothing to complain about when all is well
SELECT * FROM finding;
SELECT name, object, description FROM risk_alert.check_setup() WHERE object ~ '^su_' ORDER BY name, object;

-- claim: rows that cannot be scored, rules that fail, events from the future
INSERT INTO su_pay VALUES (7, 2, 10, NULL), (8, 2, 0, '2020-01-01'), (9, 2, 10, now() + interval '1 day');
SELECT risk_alert.drain();
SELECT * FROM finding;
SELECT risk_alert.alter_rule('su_pay', 'large', condition => 'amount > 1000');
DELETE FROM su_pay WHERE id >= 7;
INSERT INTO su_pay VALUES (10, 3, 10, '2020-01-01');
SELECT risk_alert.drain();

-- claim: triggers that are disabled, for replicas only, conditional, gone
CREATE TEMPORARY VIEW trigger_finding AS SELECT * FROM finding WHERE name IN ('trigger', 'truncate_trigger', 'activity');
ALTER TABLE su_pay DISABLE TRIGGER risk_alert_capture;
SELECT * FROM trigger_finding;
SELECT state FROM risk_alert.stat_streams WHERE stream = 'su_pay';
SELECT remediation FROM finding WHERE name = 'trigger' \gexec
ALTER TABLE su_pay ENABLE REPLICA TRIGGER risk_alert_capture;
SELECT * FROM trigger_finding;
SELECT remediation FROM finding WHERE name = 'trigger' \gexec
ALTER TABLE su_pay DISABLE TRIGGER risk_alert_truncate;
SELECT * FROM trigger_finding;
SELECT remediation FROM finding WHERE name = 'truncate_trigger' \gexec
SELECT * FROM trigger_finding;
DROP TRIGGER risk_alert_capture ON su_pay;
DROP TRIGGER risk_alert_truncate ON su_pay;
SELECT * FROM trigger_finding;
SELECT state FROM risk_alert.stat_streams WHERE stream = 'su_pay';
SELECT remediation FROM finding WHERE name = 'trigger' \gexec
SELECT * FROM finding;
CREATE TRIGGER partly AFTER INSERT OR UPDATE ON su_pay FOR EACH ROW WHEN (NEW.amount > 0) EXECUTE FUNCTION risk_alert.capture();
SELECT * FROM trigger_finding;
DROP TRIGGER risk_alert_capture ON su_pay;
SELECT * FROM trigger_finding;
SELECT remediation FROM trigger_finding WHERE name = 'trigger' AND level = 'warning' \gexec

-- claim: a trigger that was replaced by hand protects nothing, until the stream is refreshed
DROP TRIGGER risk_alert_capture ON su_pay;
CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON su_pay FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
SELECT * FROM finding WHERE name = 'dependencies';
SELECT remediation FROM finding WHERE name = 'dependencies' \gexec
SELECT * FROM finding WHERE name = 'dependencies';
DROP TRIGGER capture ON su_pay;
SELECT risk_alert.alter_stream('su_pay');

-- claim: the key's index
ALTER TABLE su_pay DROP CONSTRAINT su_pay_pkey;
SELECT * FROM finding;
SELECT remediation FROM finding WHERE name = 'key' \gexec
SELECT * FROM finding;

-- claim: rules that have lost what they use, their owner, or were suspended
CREATE FUNCTION su_odd(int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT $1 % 2 = 1 $$;
SELECT risk_alert.create_rule('su_pay', 'odd', 'su_odd(amount)', points => 1);
DROP FUNCTION su_odd(int);
DROP FUNCTION su_odd(int) CASCADE;
SELECT * FROM finding;
SELECT remediation FROM finding WHERE name = 'trigger' \gexec
SELECT risk_alert.drop_rule('su_pay', 'odd');
CREATE ROLE ra_setup_owner IN ROLE risk_alert_admin;
GRANT SELECT ON su_pay TO ra_setup_owner;
SET ROLE ra_setup_owner;
SELECT risk_alert.create_rule('su_pay', 'owned', 'amount > 5', points => 1);
RESET ROLE;
REVOKE SELECT ON su_pay FROM ra_setup_owner;
SELECT detail FROM risk_alert.check_setup() WHERE object = 'su_pay.owned';
DROP ROLE ra_setup_owner;
SELECT detail FROM risk_alert.check_setup() WHERE object = 'su_pay.owned';
SELECT risk_alert.drop_rule('su_pay', 'owned');
UPDATE risk_alert.rule SET suspended_at = now(), suspended_for = 'division by zero' WHERE name = 'large';
SELECT * FROM finding;
SELECT risk_alert.alter_rule('su_pay', 'large', status => 'active');
SELECT * FROM finding;
SELECT risk_alert.alter_rule('su_pay', 'large', status => 'shadow');
SELECT risk_alert.alter_rule('su_pay', 'often', status => 'retired');
SELECT name, description, detail FROM risk_alert.check_setup() WHERE object = 'su_pay' AND name = 'rules';
SELECT risk_alert.alter_rule('su_pay', 'large', status => 'active');

-- claim: a stream from a dump wants to be refreshed
UPDATE risk_alert.stream SET layout_id = NULL WHERE name = 'su_pay';
SELECT * FROM finding WHERE name = 'layout';
SELECT state FROM risk_alert.stat_streams WHERE stream = 'su_pay';
SELECT remediation FROM finding WHERE name = 'layout' \gexec
SELECT * FROM finding WHERE name = 'layout';

-- claim: sessions without triggers
SET session_replication_role = replica;
SELECT level, name, object, description, remediation FROM risk_alert.check_setup() WHERE name = 'replication_role';
RESET session_replication_role;
CREATE ROLE ra_setup_loader;
ALTER ROLE ra_setup_loader SET session_replication_role = replica;
SELECT level, name, object, description, remediation FROM risk_alert.check_setup() WHERE name = 'replication_role';
DROP ROLE ra_setup_loader;

-- claim: partitions whose rows are not captured
CREATE TABLE su_part (id int, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE su_part_1 PARTITION OF su_part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE su_part_2 PARTITION OF su_part DEFAULT;
SELECT risk_alert.watch('su_part', event_time => 'at');
SELECT risk_alert.create_rule('su_part', 'all', 'true', points => 100);
ALTER TABLE su_part_2 DISABLE TRIGGER risk_alert_capture;
SELECT f.*, c.detail FROM finding f JOIN risk_alert.check_setup() c USING (name, object, description)
 WHERE object = 'su_part' AND name <> 'activity';
SELECT remediation FROM finding WHERE name = 'partition' AND object = 'su_part' \gexec
SELECT * FROM finding WHERE object = 'su_part';
SELECT risk_alert.unwatch('su_part');

-- claim: a trigger without a stream, a stream without its table
CREATE TRIGGER capture AFTER INSERT ON su_part FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
SELECT * FROM finding WHERE object ~ 'su_part';
DROP TABLE su_part, su_pay;
SELECT * FROM finding;
SELECT remediation FROM finding \gexec
SELECT count(*) FROM finding;
DELETE FROM risk_alert.alert WHERE stream = 'su_pay';
