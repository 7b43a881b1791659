--
-- Lists and the running worker: each event is judged by the list as it is when
-- the event is scored
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA lw;
SET search_path = lw;
CREATE TABLE pay (id int PRIMARY KEY, merchant text, account int, at timestamptz);
SELECT risk_alert.watch('pay', event_time => 'at', review_at => 1, suppress => '0', name => 'lw_pay');
SELECT risk_alert.create_list('lw_block');
SELECT risk_alert.create_list('lw_trust');
SELECT risk_alert.list_add('lw_block', 'bad');
SELECT risk_alert.create_rule('lw_pay', 'blocked', 'in_list(''lw_block'', merchant) AND NOT in_list(''lw_trust'', account)', points => 60);
CREATE TABLE shown (key text PRIMARY KEY);
-- the events since the last call that alerted
CREATE FUNCTION alerted() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	keys text;
BEGIN
	IF NOT risk_alert.drain() THEN
		RAISE 'not drained';
	END IF;
	WITH new AS (INSERT INTO shown SELECT event_key FROM risk_alert.alerts WHERE stream = 'lw_pay' ON CONFLICT DO NOTHING RETURNING key)
	SELECT coalesce(string_agg(key, ' ' ORDER BY key::int), '-') INTO keys FROM new;
	RETURN keys;
END $$;
CREATE SEQUENCE ids;
-- three payments: at "bad", at "new", at "bad" by the account 42
CREATE FUNCTION pays() RETURNS text LANGUAGE sql AS $$
	INSERT INTO pay SELECT nextval('ids'), m, a, '2026-01-01Z' FROM unnest('{bad,new,bad}'::text[], '{1,1,42}'::int[]) u (m, a) RETURNING 'paid'
$$;

SELECT pays();
SELECT alerted();
-- claim: a value added is found from then on, one removed is not
SELECT risk_alert.list_add('lw_block', 'new');
SELECT pays();
SELECT alerted();
SELECT risk_alert.list_remove('lw_block', 'bad');
SELECT pays();
SELECT alerted();
SELECT risk_alert.list_add('lw_block', 'bad');
SELECT risk_alert.list_add('lw_trust', '42');
SELECT pays();
SELECT alerted();
SELECT risk_alert.list_remove('lw_trust', '42');
SELECT pays();
SELECT alerted();
SELECT risk_alert.list_remove('lw_block', v) FROM unnest('{bad,new}'::text[]) v;
SELECT pays();
SELECT alerted();

-- claim: in the transaction of the events, too; rolled back, it was never there
BEGIN;
SELECT pays();
SELECT risk_alert.list_add('lw_block', 'new');
COMMIT;
SELECT alerted();
BEGIN;
SELECT risk_alert.list_add('lw_block', 'bad');
SELECT risk_alert.list_remove('lw_block', 'new');
ROLLBACK;
SELECT pays();
SELECT alerted();
BEGIN;
SAVEPOINT s;
SELECT risk_alert.list_remove('lw_block', 'new');
ROLLBACK TO s;
SELECT risk_alert.list_add('lw_block', 'bad');
SELECT pays();
COMMIT;
SELECT alerted();

-- claim: an entry that has expired is not found, until it is added anew
SELECT risk_alert.list_add('lw_block', 'bad', expires => now() - interval '1 second');
SELECT pays();
SELECT alerted();
SELECT risk_alert.list_add('lw_block', 'bad', expires => now() + interval '1 day');
SELECT pays();
SELECT alerted();

-- claim: many values, added and removed at once
SELECT count(risk_alert.list_add('lw_block', 'm' || g)) FROM generate_series(1, 5000) g;
INSERT INTO pay SELECT 1000 + g, 'm' || g, 1, '2026-01-02Z' FROM generate_series(0, 5001) g;
SELECT risk_alert.drain();
SELECT count(*), min(event_key::int), max(event_key::int) FROM risk_alert.alerts WHERE stream = 'lw_pay' AND event_key::int >= 1000;
SELECT count(risk_alert.list_remove('lw_block', 'm' || g)) FROM generate_series(1, 5000, 2) g;
INSERT INTO pay SELECT 10000 + g, 'm' || g, 1, '2026-01-02Z' FROM generate_series(0, 5001) g;
SELECT risk_alert.drain();
SELECT count(*), min(event_key::int), max(event_key::int) FROM risk_alert.alerts WHERE stream = 'lw_pay' AND event_key::int >= 10000;
SELECT evaluated, fired, errors FROM risk_alert.stat_rules WHERE stream = 'lw_pay';

SELECT risk_alert.unwatch('lw_pay');
SELECT risk_alert.drop_list('lw_block');
SELECT risk_alert.drop_list('lw_trust');
DELETE FROM risk_alert.alert WHERE stream = 'lw_pay';
DROP SCHEMA lw CASCADE;
