--
-- PREPARE TRANSACTION of whatever is more than an INSERT: corrections, TRUNCATE,
-- partitions, and the configuration itself.  Nothing of it is there before
-- COMMIT PREPARED, all of it afterwards, and nothing after ROLLBACK PREPARED.
--
SET client_min_messages = warning;
CREATE SCHEMA prep;
SET search_path = prep;
CREATE TABLE pay (id bigint PRIMARY KEY, card int NOT NULL, amount numeric(12,2), at timestamptz NOT NULL);
CREATE INDEX ON pay (card, at);
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'prep_pay');
SELECT risk_alert.create_feature('prep_pay', 'n', entity => 'card', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_feature('prep_pay', 'total', entity => 'card', aggregate => 'sum(amount)', within => '1 day');
SELECT risk_alert.create_rule('prep_pay', 'each', 'n >= 1', points => 60);
SELECT risk_alert.create_list('prep_list');

-- one more payment of card 1 (whose window is in memory), and what the worker saw
CREATE SEQUENCE ids START 10;
CREATE FUNCTION one_more(of_table text DEFAULT 'pay') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	next int := nextval('ids');
BEGIN
	EXECUTE format('INSERT INTO prep.%I (id, card, amount, at) VALUES ($1, 1, 1, timestamptz ''2026-01-01 10:00Z'' + $1 * interval ''1 min'')', of_table) USING next;
END $$;
CREATE FUNCTION scored(of_stream text DEFAULT 'prep_pay') RETURNS TABLE (event_key text, score int, features jsonb) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT risk_alert.drain() THEN
		RAISE 'not drained';
	END IF;
	RETURN QUERY SELECT a.event_key, a.score, a.features FROM risk_alert.alerts a WHERE stream = of_stream ORDER BY a.alert_id;
	DELETE FROM risk_alert.alert WHERE stream = of_stream;
END $$;
INSERT INTO pay SELECT g, 1, 10 ^ g, '2026-01-01 10:00Z' FROM generate_series(1, 3) g;
SELECT * FROM scored();

-- claim: UPDATE and DELETE correct the windows from COMMIT PREPARED on
BEGIN;
UPDATE pay SET amount = 20 WHERE id = 1;
DELETE FROM pay WHERE id = 2;
PREPARE TRANSACTION 'prep';
SELECT FROM one_more();
SELECT * FROM scored();
COMMIT PREPARED 'prep';
SELECT FROM one_more();
SELECT * FROM scored();
BEGIN;
UPDATE pay SET amount = 50 WHERE id = 1;
DELETE FROM pay WHERE id = 3;
PREPARE TRANSACTION 'prep';
ROLLBACK PREPARED 'prep';
SELECT FROM one_more();
SELECT * FROM scored();

-- claim: so does TRUNCATE empty them, with a row of the same transaction
BEGIN;
TRUNCATE pay;
INSERT INTO pay VALUES (4, 1, 7, '2026-01-01 10:00Z');
PREPARE TRANSACTION 'prep';
SELECT * FROM scored();
ROLLBACK PREPARED 'prep';
SELECT FROM one_more();
SELECT * FROM scored();
BEGIN;
TRUNCATE pay;
INSERT INTO pay VALUES (5, 1, 8, '2026-01-01 10:00Z');
PREPARE TRANSACTION 'prep';
SELECT * FROM scored();
COMMIT PREPARED 'prep';
SELECT * FROM scored();
SELECT FROM one_more();
SELECT * FROM scored();
-- ... and not one that a savepoint takes back
BEGIN;
SAVEPOINT s;
TRUNCATE pay;
ROLLBACK TO s;
SELECT FROM one_more();
COMMIT;
SELECT * FROM scored();

-- claim: rules, features, thresholds and lists hold from COMMIT PREPARED on
SELECT risk_alert.create_rule('prep_pay', 'listed', 'in_list(''prep_list'', card)', points => 3);
BEGIN;
SELECT risk_alert.create_feature('prep_pay', 'hi', entity => 'card', aggregate => 'max(amount)', within => '1 day');
SELECT risk_alert.create_rule('prep_pay', 'high', 'hi >= 8', points => 11);
SELECT risk_alert.alter_rule('prep_pay', 'each', points => 70);
SELECT risk_alert.alter_stream('prep_pay', deny_at => 84);
SELECT risk_alert.list_add('prep_list', '1');
PREPARE TRANSACTION 'prep';
SELECT FROM one_more();
SELECT * FROM scored();
COMMIT PREPARED 'prep';
SELECT FROM one_more();
SELECT * FROM scored();
SELECT risk_alert.risk_score('prep_pay', '{"id": 0, "card": 1, "amount": 1, "at": "2026-01-01 12:00Z"}');

-- claim: so with watch() and unwatch(); rows from before watch() are history in the same transaction, too
CREATE TABLE other (LIKE pay INCLUDING ALL);
BEGIN;
SELECT FROM one_more('other');
SELECT risk_alert.watch('other', event_time => 'at', suppress => '0', name => 'prep_other');
SELECT risk_alert.create_feature('prep_other', 'n', entity => 'card', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_rule('prep_other', 'each', 'n >= 1', points => 60);
SELECT FROM one_more('other');
PREPARE TRANSACTION 'prep';
COMMIT PREPARED 'prep';
SELECT * FROM scored('prep_other');
SELECT FROM one_more('other');
SELECT * FROM scored('prep_other');
BEGIN;
SELECT risk_alert.unwatch('prep_other');
PREPARE TRANSACTION 'prep';
COMMIT PREPARED 'prep';
SELECT FROM one_more('other');
SELECT * FROM scored('prep_other');

-- claim: a partition is gone, or there, from COMMIT PREPARED on
CREATE TABLE part (id int, card int, amount int, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
CREATE INDEX ON part (card, at);
INSERT INTO part SELECT g, 1, 1, '2025-12-31 23:00Z' FROM generate_series(1, 5) g;
SELECT risk_alert.watch('part', event_time => 'at', suppress => '0', name => 'prep_part');
SELECT risk_alert.create_feature('prep_part', 'n', entity => 'card', aggregate => 'count(*)', within => '1 year');
SELECT risk_alert.create_rule('prep_part', 'each', 'n >= 1', points => 60);
SELECT FROM one_more('part');
SELECT score, features FROM scored('prep_part');
BEGIN;
ALTER TABLE part DETACH PARTITION part_1;
PREPARE TRANSACTION 'prep';
COMMIT PREPARED 'prep';
SELECT FROM one_more('part');
SELECT score, features FROM scored('prep_part');
BEGIN;
ALTER TABLE part ATTACH PARTITION part_1 FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
PREPARE TRANSACTION 'prep';
COMMIT PREPARED 'prep';
SELECT FROM one_more('part');
SELECT score, features FROM scored('prep_part');

SELECT count(risk_alert.unwatch(s)) FROM unnest('{prep_pay,prep_part}'::text[]) s;
SELECT risk_alert.drop_list('prep_list');
DROP SCHEMA prep CASCADE;
