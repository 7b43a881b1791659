--
-- Alerts: the work of analysts
--
\set SHOW_CONTEXT never
SET timezone = 'UTC';
CREATE ROLE ra_alerts_ann IN ROLE risk_alert_analyst;
CREATE ROLE "ra_alerts Bob" IN ROLE risk_alert_analyst;
CREATE ROLE ra_alerts_eve;
CREATE TABLE al_pay (id int PRIMARY KEY, card int, amount int, at timestamptz);
CREATE INDEX ON al_pay (card, at);
SELECT risk_alert.watch('al_pay', event_time => 'at', suppress => '10 minutes');
SELECT risk_alert.create_feature('al_pay', 'n', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_rule('al_pay', 'often', 'n >= 3', points => 60, severity => 'high', reason => 'card {card}: {n} payments');
SELECT risk_alert.create_rule('al_pay', 'large', 'amount > 1000', points => 30, severity => 'low', reason => 'amount {amount}');
SELECT risk_alert.create_rule('al_pay', 'huge', 'amount > 5000', points => 50, severity => 'critical');
INSERT INTO al_pay VALUES
    (1, 7, 10, '2020-01-01 10:00'), (2, 7, 10, '2020-01-01 10:01'), (3, 7, 2000, '2020-01-01 10:02'),
    (4, 7, 10, '2020-01-01 10:03'), (5, 8, 6000, '2020-01-01 10:04'), (6, 9, 10, '2020-01-01 10:05');
SELECT risk_alert.drain();

-- claim: alerts show what happened; further events of the entity and rule fold
SELECT stream, event_key, entity, event_time, score, decision, severity, rules, status, assignee, outcome, events, last_event_time,
       lead_rule, rule_set_version, raised_at <= clock_timestamp() AS raised
  FROM risk_alert.alerts WHERE stream = 'al_pay' ORDER BY alert_id;
SELECT event_key, r.* FROM risk_alert.alerts, jsonb_to_recordset(reasons) AS r (rule text, points int, text text)
 WHERE stream = 'al_pay' ORDER BY alert_id, r.rule;
SELECT event_key, features FROM risk_alert.alerts WHERE stream = 'al_pay' ORDER BY alert_id;
SELECT a.event_key AS alert, e.event_key, e.score, e.rules
  FROM risk_alert.alert_events e JOIN risk_alert.alerts a USING (alert_id)
 WHERE e.stream = 'al_pay' ORDER BY e.event_key;

-- claim: open alerts come worst first
SELECT event_key, severity, score, age >= '0' AS age FROM risk_alert.open_alerts WHERE stream = 'al_pay';
SELECT alert_id AS often FROM risk_alert.alerts WHERE stream = 'al_pay' AND event_key = '3' \gset
SELECT alert_id AS huge FROM risk_alert.alerts WHERE stream = 'al_pay' AND event_key = '5' \gset

-- claim: acknowledge, assign, note, resolve, reopen
SET ROLE ra_alerts_ann;
SELECT risk_alert.acknowledge(:often);
SELECT status FROM risk_alert.alerts WHERE alert_id = :often;
SELECT risk_alert.assign(:often, 'ra_alerts Bob');
SELECT status, assignee FROM risk_alert.alerts WHERE alert_id = :often;
SELECT risk_alert.assign(:often, 'ra_alerts_ann');
SELECT risk_alert.add_note(:often, 'called the customer');
SELECT risk_alert.resolve(:often, 'false_positive', note => 'on holiday');
SELECT status, assignee, outcome FROM risk_alert.alerts WHERE alert_id = :often;
SELECT count(*) FROM risk_alert.open_alerts WHERE alert_id = :often;
SELECT risk_alert.add_note(:often, 'a note can be added later, too');
SELECT risk_alert.reopen(:often);
SELECT status, assignee, outcome FROM risk_alert.alerts WHERE alert_id = :often;
SELECT risk_alert.resolve(:often, 'true_positive');
SELECT risk_alert.resolve(:huge, 'true_positive', 'stolen');
RESET ROLE;

-- claim: every change is kept: who, when, what
SELECT stream, changed_by, action, old_status, new_status, assignee, outcome, note,
       changed_at >= lag(changed_at, 1, changed_at) OVER () AS in_order
  FROM risk_alert.alert_history WHERE alert_id = :often;

-- claim: rule_performance counts outcomes
SELECT rule, status, fired, alerts, true_positives, false_positives, precision
  FROM risk_alert.rule_performance WHERE stream = 'al_pay' ORDER BY rule;

-- claim: what makes no sense is refused and changes nothing
SELECT risk_alert.acknowledge(0);
SELECT risk_alert.acknowledge(NULL);
CREATE FUNCTION pg_temp.refused(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text; state text;
BEGIN
    EXECUTE command;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    -- numbers of alerts are not the test's
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, state = RETURNED_SQLSTATE;
    RETURN regexp_replace(concat_ws(' | ', state, message, detail, hint), '(alert |\(|= )\d+', '\1N', 'g');
END
$$;
SELECT pg_temp.refused(format(c, :often)) FROM (VALUES
    ('SELECT risk_alert.acknowledge(%s)'),
    ('SELECT risk_alert.assign(%s, ''ra_alerts_ann'')'),
    ('SELECT risk_alert.resolve(%s, ''false_positive'')')) v (c);
SELECT pg_temp.refused(format('SELECT risk_alert.reopen(%s)', :often));
SELECT pg_temp.refused(format(c, :often)) FROM (VALUES
    ('SELECT risk_alert.reopen(%s)'),
    ('SELECT risk_alert.assign(%s, ''ra_alerts_eve'')'),
    ('SELECT risk_alert.assign(%s, ''ra_alerts_nobody'')'),
    ('SELECT risk_alert.assign(%s, NULL)'),
    ('SELECT risk_alert.resolve(%s, ''maybe'')'),
    ('SELECT risk_alert.resolve(%s, NULL)'),
    ('SELECT risk_alert.add_note(%s, '' '')'),
    ('SELECT risk_alert.add_note(%s, NULL)'),
    ('SELECT risk_alert.acknowledge(%s)'),
    ('SELECT risk_alert.acknowledge(%s)')) v (c);
SELECT action, changed_by = current_user AS by_me FROM risk_alert.alert_history WHERE alert_id = :often OFFSET 8;

-- claim: an alert takes further events as long as it is not resolved
INSERT INTO al_pay VALUES (7, 7, 10, '2020-01-01 10:04');
SELECT risk_alert.drain();
SELECT event_key, status, events FROM risk_alert.alerts WHERE stream = 'al_pay' ORDER BY alert_id;
SELECT risk_alert.resolve(:often, 'false_positive');
INSERT INTO al_pay VALUES (8, 7, 10, '2020-01-01 10:05');
SELECT risk_alert.drain();
SELECT event_key, status, events FROM risk_alert.alerts WHERE stream = 'al_pay' ORDER BY alert_id;

-- claim: parts of suppress may be of opposite signs and each beyond what a time can be: their sum counts (eight days)
SELECT risk_alert.alter_stream('al_pay', suppress => '1 mon 106751970 days -2562047788:00:54.775807');
INSERT INTO al_pay VALUES (23, 20, 2000, '2020-05-01 10:00'), (24, 20, 2000, '2020-05-01 10:01'), (25, 20, 2000, '2020-05-01 10:02'),
                          (26, 20, 2000, '2020-05-09 08:00'), (27, 20, 2000, '2020-05-09 08:01'), (28, 20, 2000, '2020-05-09 08:02');
SELECT risk_alert.drain();
INSERT INTO al_pay VALUES (20, 20, 2000, '2020-03-01 10:00'), (21, 20, 2000, '2020-03-01 10:01'), (22, 20, 2000, '2020-03-01 10:02');
SELECT risk_alert.drain();
SELECT event_key, events, lead_rule FROM risk_alert.alerts WHERE stream = 'al_pay' AND event_key::int >= 20 ORDER BY alert_id;
DELETE FROM risk_alert.alert WHERE stream = 'al_pay' AND event_key::int >= 20;

-- claim: an event folds if it is less than suppress from the alert's first event, before or after it; not by the one that was folded last
CREATE TABLE al_fold (id int PRIMARY KEY, card int, kind int, at timestamptz);
CREATE INDEX ON al_fold (card, at);
SELECT risk_alert.watch('al_fold', event_time => 'at', suppress => '10 minutes');
SELECT risk_alert.create_feature('al_fold', 'n', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_rule('al_fold', 'one', 'n > 0 AND kind = 1', points => 60);
SELECT risk_alert.create_rule('al_fold', 'two', 'n > 0 AND kind = 2', points => 60);
SELECT risk_alert.create_rule('al_fold', 'of_nobody', 'kind = 3', points => 60);
CREATE FUNCTION al_play(id int, card int, kind int, at text) RETURNS bool LANGUAGE sql AS
    'INSERT INTO al_fold VALUES (id, card, kind, (''2020-01-01 '' || at)::timestamptz) RETURNING true';
SELECT al_play(1, 1, 1, '12:00');
SELECT risk_alert.drain();
SELECT al_play(2, 1, 1, '12:09:59.999999');
SELECT risk_alert.drain();
SELECT al_play(3, 1, 1, '12:10');
SELECT risk_alert.drain();
SELECT al_play(4, 1, 1, '11:50:00.000001');
SELECT risk_alert.drain();
SELECT al_play(5, 1, 1, '11:50');
SELECT risk_alert.drain();
SELECT al_play(6, 2, 1, '12:00');
SELECT risk_alert.drain();
SELECT al_play(7, 2, 1, '12:06');
SELECT risk_alert.drain();
SELECT al_play(8, 2, 1, '12:12');
SELECT risk_alert.drain();
-- claim: nor into one of another lead rule, nor where there is no entity
SELECT al_play(9, 3, 1, '12:00'), al_play(10, 3, 2, '12:01'), al_play(11, 4, 3, '12:00'), al_play(12, 4, 3, '12:01');
SELECT risk_alert.drain();
SELECT a.event_key, a.entity, a.lead_rule, string_agg(e.event_key, ' ' ORDER BY e.event_key::int) AS events
  FROM risk_alert.alerts a JOIN risk_alert.alert_events e USING (alert_id) WHERE a.stream = 'al_fold' GROUP BY a.alert_id, 1, 2, 3 ORDER BY a.event_key::int;
SELECT risk_alert.unwatch('al_fold');
DELETE FROM risk_alert.alert WHERE stream = 'al_fold';
DROP TABLE al_fold;

-- claim: alerts outlive their stream, and a dropped role its deeds
SELECT risk_alert.unwatch('al_pay');
SELECT count(*) FROM risk_alert.alerts WHERE stream = 'al_pay';
SELECT rule, status, alerts FROM risk_alert.rule_performance WHERE stream = 'al_pay' ORDER BY rule;
DROP ROLE ra_alerts_ann, "ra_alerts Bob", ra_alerts_eve;
SELECT DISTINCT NULLIF(changed_by, current_user) AS changed_by FROM risk_alert.alert_history WHERE alert_id = :often ORDER BY 1;

-- claim: events and history go with their alert
SELECT alert_id AS last FROM risk_alert.alerts WHERE stream = 'al_pay' AND event_key = '8' \gset
DELETE FROM risk_alert.alert WHERE stream = 'al_pay';
SELECT (SELECT count(*) FROM risk_alert.alert_event WHERE alert_id IN (:often, :huge, :last)) AS events,
       (SELECT count(*) FROM risk_alert.alert_change WHERE alert_id IN (:often, :huge, :last)) AS changes;
DROP TABLE al_pay;
