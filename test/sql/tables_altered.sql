--
-- Tables of alerts that a superuser has altered.  The worker writes them
-- directly or by statements, whichever they need (src/engine/direct.c).  Comes
-- last: a dropped column stays in the catalog.
--
SET timezone = 'UTC';
CREATE TABLE wr_pay (id int PRIMARY KEY, card int, amount int, at timestamptz);
CREATE INDEX ON wr_pay (card, at);
SELECT risk_alert.watch('wr_pay', event_time => 'at', suppress => '10 minutes');
SELECT risk_alert.create_feature('wr_pay', 'n', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_rule('wr_pay', 'often', 'n >= 3', points => 60, severity => 'high');

-- claim: what a superuser adds to the tables of alerts works when the worker writes them
CREATE FUNCTION wr_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.wr_note := concat_ws(', ', NEW.wr_note, TG_OP);
    RETURN NEW;
END
$$;
ALTER TABLE risk_alert.alert ADD COLUMN wr_note text DEFAULT 'default';
CREATE UNIQUE INDEX wr_note ON risk_alert.alert (wr_note, alert_id) WHERE event_key <> 'none';
INSERT INTO wr_pay SELECT i, 20, 10, timestamptz '2020-01-02 10:00' + i * interval '1 second' FROM generate_series(21, 24) i;
SELECT risk_alert.drain();
CREATE TRIGGER wr_note BEFORE INSERT ON risk_alert.alert FOR EACH ROW EXECUTE FUNCTION wr_note();
INSERT INTO wr_pay SELECT i, 30, 10, timestamptz '2020-01-02 10:00' + i * interval '1 second' FROM generate_series(31, 34) i;
SELECT risk_alert.drain();
CREATE TRIGGER wr_note2 BEFORE UPDATE ON risk_alert.alert FOR EACH ROW EXECUTE FUNCTION wr_note();
INSERT INTO wr_pay SELECT i, 40, 10, timestamptz '2020-01-02 10:00' + i * interval '1 second' FROM generate_series(41, 44) i;
SELECT risk_alert.drain();
DROP FUNCTION wr_note CASCADE;
CREATE RULE wr_note AS ON INSERT TO risk_alert.alert_event DO ALSO UPDATE risk_alert.alert SET wr_note = 'rewritten' WHERE alert_id = NEW.alert_id;
INSERT INTO wr_pay SELECT i, 50, 10, timestamptz '2020-01-02 10:00' + i * interval '1 second' FROM generate_series(51, 54) i;
SELECT risk_alert.drain();
DROP RULE wr_note ON risk_alert.alert_event;
SELECT event_key, entity, events, wr_note FROM risk_alert.alert WHERE stream = 'wr_pay' AND event_key::int > 20 ORDER BY alert_id;
ALTER TABLE risk_alert.alert DROP COLUMN wr_note;
INSERT INTO wr_pay SELECT i, 60, 10, timestamptz '2020-01-02 10:00' + i * interval '1 second' FROM generate_series(61, 64) i;
SELECT risk_alert.drain();
SELECT event_key, entity, events, status, outcome, assignee FROM risk_alert.alert WHERE stream = 'wr_pay' AND event_key::int > 60 ORDER BY alert_id;

-- claim: the worst of score, decision and severity is kept, and the latest time
SELECT risk_alert.create_rule('wr_pay', 'worse', 'n >= 3 AND amount > 100', points => 40, severity => 'critical');
INSERT INTO wr_pay VALUES (71, 60, 1000, '2020-01-02 10:01:30'), (72, 60, 10, '2020-01-02 10:02');
SELECT risk_alert.drain();
SELECT event_key, events, score, decision, severity, event_time, last_event_time FROM risk_alert.alert WHERE stream = 'wr_pay' AND entity = 'card=60';
SELECT alert_id = (SELECT alert_id FROM risk_alert.alert WHERE stream = 'wr_pay' AND event_key = '63') AS same, event_key, event_time, score, rules
  FROM risk_alert.alert_event WHERE event_key::int > 60 AND stream_id = (SELECT stream_id FROM risk_alert.stream WHERE name = 'wr_pay') ORDER BY event_time;

SELECT risk_alert.unwatch('wr_pay');
DELETE FROM risk_alert.alert WHERE stream = 'wr_pay';
DROP TABLE wr_pay;
