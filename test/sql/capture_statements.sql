--
-- What each kind of statement does to a stream (all of it through the live
-- worker): which rows are scored, and what the windows hold afterwards.
--
-- Documented answers: a row is scored once, when it is inserted; UPDATE and
-- DELETE correct the windows and score nothing; what is rolled back never was.
--
SET client_min_messages = warning;
CREATE SCHEMA cap;
SET search_path = cap;
CREATE TABLE pay (id bigint PRIMARY KEY, card int NOT NULL, amount numeric(12,2), at timestamptz NOT NULL);
CREATE INDEX ON pay (card, at);
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'cap_pay');
SELECT risk_alert.create_feature('cap_pay', 'n', entity => 'card', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_feature('cap_pay', 'total', entity => 'card', aggregate => 'sum(amount)', within => '1 day');
SELECT risk_alert.create_rule('cap_pay', 'each', 'n >= 1', points => 60, reason => '{n} of {total}');

-- the events scored since the last call, with the windows that each of them saw
CREATE TABLE shown (event_key text PRIMARY KEY);
CREATE FUNCTION scored() RETURNS TABLE (key text, n text, total text) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT risk_alert.drain() THEN
		RAISE 'not drained';
	END IF;
	RETURN QUERY
	WITH new AS (
		INSERT INTO shown
		SELECT e.event_key FROM risk_alert.alert_event e JOIN risk_alert.stream s USING (stream_id)
		WHERE s.name = 'cap_pay' ON CONFLICT DO NOTHING RETURNING event_key)
	SELECT a.event_key, a.features->>'n', a.features->>'total'
	FROM new JOIN risk_alert.alerts a USING (event_key)
	WHERE a.stream = 'cap_pay' ORDER BY a.event_key::bigint;
END $$;
-- what an event at the end of the day would see, itself included
CREATE FUNCTION windows(of_card int) RETURNS TABLE (n text, total text) LANGUAGE sql AS $$
	SELECT features->>'n', features->>'total'
	FROM risk_alert.risk_assess('cap_pay', jsonb_build_object('id', 0, 'card', of_card, 'amount', 0,
		'at', '2026-01-01 23:59:59Z'))
$$;

-- INSERT of one row, and of several
INSERT INTO pay VALUES (1, 1, 10, '2026-01-01 10:00Z');
INSERT INTO pay VALUES (2, 1, 20, '2026-01-01 10:01Z'), (3, 1, 30, '2026-01-01 10:02Z'), (4, 2, 1, '2026-01-01 10:00Z');
SELECT * FROM scored();

-- INSERT ... SELECT, INSERT ... RETURNING in a CTE
WITH i AS (INSERT INTO pay SELECT 10 + g, 3, g, '2026-01-01 10:00Z'::timestamptz + g * interval '1 s'
	FROM generate_series(1, 3) g RETURNING id)
SELECT count(*) FROM i;
SELECT * FROM scored();

-- COPY
COPY pay FROM stdin;
21	4	1.50	2026-01-01 11:00Z
22	4	2.50	2026-01-01 11:00Z
\.
SELECT * FROM scored();

-- ... of some of the file's rows, and after one that was taken back
COPY pay FROM stdin (FORMAT csv, HEADER) WHERE amount > 2;
id,card,amount,at
23,4,1.50,2026-01-01 11:01Z
24,4,2.50,2026-01-01 11:01Z
\.
SELECT * FROM scored();
BEGIN;
SAVEPOINT s;
TRUNCATE pay;
COPY pay FROM stdin;
25	4	1.00	2026-01-01 11:02Z
\.
ROLLBACK TO s;
COPY pay FROM stdin;
26	4	2.00	2026-01-01 11:02Z
\.
COMMIT;
SELECT * FROM scored();

-- INSERT ... ON CONFLICT: DO NOTHING is nothing, DO UPDATE is an UPDATE
INSERT INTO pay VALUES (1, 1, 999, '2026-01-01 10:00Z') ON CONFLICT DO NOTHING;
INSERT INTO pay VALUES (1, 1, 11, '2026-01-01 10:00Z') ON CONFLICT (id) DO UPDATE SET amount = excluded.amount;
INSERT INTO pay VALUES (5, 1, 40, '2026-01-01 10:03Z') ON CONFLICT (id) DO UPDATE SET amount = excluded.amount;
SELECT * FROM scored();

-- MERGE: one INSERT, one UPDATE, one DELETE, as it happened
MERGE INTO pay USING (VALUES (5, 44), (6, 50), (3, NULL)) v (id, amount) ON pay.id = v.id
WHEN MATCHED AND v.amount IS NULL THEN DELETE
WHEN MATCHED THEN UPDATE SET amount = v.amount
WHEN NOT MATCHED THEN INSERT VALUES (v.id, 1, v.amount, '2026-01-01 10:04Z');
SELECT * FROM scored();
SELECT * FROM windows(1);

-- UPDATE of the value, of the entity, of the time, of the key
UPDATE pay SET amount = amount + 1 WHERE id = 6;
SELECT * FROM scored();
SELECT * FROM windows(1);
UPDATE pay SET card = 2 WHERE id = 6;
SELECT * FROM scored();
SELECT * FROM windows(1);
SELECT * FROM windows(2);
UPDATE pay SET at = '2025-12-31 10:00Z' WHERE id = 2;
SELECT * FROM scored();
SELECT * FROM windows(1);
UPDATE pay SET id = 105 WHERE id = 5;
SELECT * FROM scored();
SELECT * FROM windows(1);

-- DELETE
DELETE FROM pay WHERE id IN (105, 6);
SELECT * FROM scored();
SELECT * FROM windows(1);
SELECT * FROM windows(2);

-- the same row deleted and inserted again in one transaction is there once, and is no new event
SELECT s.scored AS before FROM risk_alert.stat_streams s WHERE stream = 'cap_pay' \gset
BEGIN;
DELETE FROM pay WHERE id = 4;
INSERT INTO pay VALUES (4, 2, 5, '2026-01-01 10:00Z');
COMMIT;
SELECT * FROM scored();
SELECT * FROM windows(2);
-- one that is deleted in the transaction that inserted it never was
BEGIN;
INSERT INTO pay VALUES (7, 2, 100, '2026-01-01 10:00Z'), (8, 2, 1000, '2026-01-01 10:00Z');
DELETE FROM pay WHERE id = 7;
UPDATE pay SET amount = amount + 1 WHERE id = 8;
DELETE FROM pay WHERE id = 8;
COMMIT;
SELECT * FROM scored();
SELECT * FROM windows(2);
SELECT s.scored - :before AS scored FROM risk_alert.stat_streams s WHERE stream = 'cap_pay';
-- one that is updated there is scored as it ends, with its last key, and once
BEGIN;
INSERT INTO pay VALUES (7, 13, 1, '2026-01-01 10:00Z'), (8, 13, 10, '2026-01-01 10:00Z');
UPDATE pay SET amount = 100 WHERE id = 7;
UPDATE pay SET id = 9, amount = 1000 WHERE id = 8;
UPDATE pay SET amount = amount + 1 WHERE id IN (7, 9);
COMMIT;
SELECT * FROM scored();
SELECT s.scored - :before AS scored FROM risk_alert.stat_streams s WHERE stream = 'cap_pay';

-- F13: ROLLBACK, savepoints, nested rollbacks: only what survives is scored
BEGIN;
INSERT INTO pay VALUES (30, 5, 1, '2026-01-01 10:00Z');
ROLLBACK;
BEGIN;
INSERT INTO pay VALUES (31, 5, 1, '2026-01-01 10:00Z');
SAVEPOINT a;
INSERT INTO pay VALUES (32, 5, 10, '2026-01-01 10:00Z');
SAVEPOINT b;
INSERT INTO pay VALUES (33, 5, 100, '2026-01-01 10:00Z');
RELEASE b;
ROLLBACK TO a;
INSERT INTO pay VALUES (34, 5, 1000, '2026-01-01 10:00Z');
SAVEPOINT c;
UPDATE pay SET amount = 7777 WHERE id = 31;
DELETE FROM pay WHERE id = 34;
ROLLBACK TO c;
INSERT INTO pay VALUES (35, 5, 10000, '2026-01-01 10:00Z');
RELEASE c;
COMMIT;
SELECT * FROM scored();
SELECT * FROM windows(5);

-- F13: exception blocks
DO $$
BEGIN
	INSERT INTO pay VALUES (40, 6, 1, '2026-01-01 10:00Z');
	BEGIN
		INSERT INTO pay VALUES (41, 6, 10, '2026-01-01 10:00Z');
		INSERT INTO pay VALUES (40, 6, 100, '2026-01-01 10:00Z');
	EXCEPTION WHEN unique_violation THEN
		INSERT INTO pay VALUES (42, 6, 1000, '2026-01-01 10:00Z');
	END;
	FOR i IN 1..70 LOOP
		BEGIN
			INSERT INTO pay VALUES (100 + i, 7, i, '2026-01-01 10:00Z');
			IF i % 10 <> 0 THEN
				RAISE division_by_zero;
			END IF;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
END $$;
SELECT * FROM scored();

-- F13: a procedure that commits by itself, and a cursor held over its end
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO pay VALUES (50, 8, 1, '2026-01-01 10:00Z');
	COMMIT;
	INSERT INTO pay VALUES (51, 8, 10, '2026-01-01 10:00Z');
	ROLLBACK;
	INSERT INTO pay VALUES (52, 8, 100, '2026-01-01 10:00Z');
END $$;
CALL steps();
BEGIN;
INSERT INTO pay VALUES (53, 8, 1000, '2026-01-01 10:00Z');
DECLARE held CURSOR WITH HOLD FOR SELECT id FROM pay WHERE card = 8 ORDER BY id;
COMMIT;
SELECT * FROM scored();
FETCH ALL FROM held;
CLOSE held;

-- a deferred constraint that fails at COMMIT
CREATE TABLE other (id bigint PRIMARY KEY);
ALTER TABLE pay ADD CONSTRAINT late FOREIGN KEY (id) REFERENCES other DEFERRABLE INITIALLY DEFERRED NOT VALID;
INSERT INTO pay VALUES (60, 9, 1, '2026-01-01 10:00Z');
ALTER TABLE pay DROP CONSTRAINT late;
SELECT * FROM scored();

-- PREPARE TRANSACTION: seen when it is committed, not before; never when rolled back
BEGIN;
INSERT INTO pay VALUES (70, 10, 1, '2026-01-01 10:00Z');
PREPARE TRANSACTION 'cap_kept';
BEGIN;
INSERT INTO pay VALUES (71, 10, 10, '2026-01-01 10:00Z');
PREPARE TRANSACTION 'cap_gone';
INSERT INTO pay VALUES (72, 10, 100, '2026-01-01 10:01Z');
SELECT * FROM scored();
ROLLBACK PREPARED 'cap_gone';
COMMIT PREPARED 'cap_kept';
SELECT * FROM scored();
SELECT * FROM windows(10);

-- session_replication_role = replica: an ordinary trigger does not fire, what a
-- replica receives is its origin's to score; ENABLE ALWAYS changes that
SET session_replication_role = replica;
INSERT INTO pay VALUES (80, 11, 1, '2026-01-01 10:00Z');
RESET session_replication_role;
SELECT * FROM scored();
SELECT format('ALTER TABLE pay ENABLE ALWAYS TRIGGER %I', tgname)
FROM pg_trigger WHERE tgrelid = 'pay'::regclass AND tgfoid = 'risk_alert.capture'::regproc AND tgtype & 1 = 1 \gexec
SET session_replication_role = replica;
INSERT INTO pay VALUES (81, 11, 10, '2026-01-01 10:01Z');
RESET session_replication_role;
SELECT * FROM scored();

-- DISABLE TRIGGER: nothing is captured, and check_setup() says so
ALTER TABLE pay DISABLE TRIGGER USER;
INSERT INTO pay VALUES (82, 12, 1, '2026-01-01 10:00Z');
SELECT * FROM scored();
SELECT level, object FROM risk_alert.check_setup() WHERE name ~ 'trigger' AND object ~ 'cap_pay|pay';
ALTER TABLE pay ENABLE TRIGGER USER;
INSERT INTO pay VALUES (83, 12, 1, '2026-01-01 10:00Z');
SELECT * FROM scored();

-- what was changed meanwhile is in the windows when the trigger is enabled again,
-- whichever way, though the worker has them in memory (from an event just before)
INSERT INTO pay VALUES (841, 12, 1, '2026-01-01 10:00Z');
SELECT * FROM scored();
ALTER TABLE pay DISABLE TRIGGER USER;
DELETE FROM pay WHERE id = 82;
INSERT INTO pay VALUES (84, 12, 10, '2026-01-01 10:00Z');
ALTER TABLE pay ENABLE TRIGGER risk_alert_capture, ENABLE TRIGGER risk_alert_truncate;
SELECT * FROM scored();
SELECT * FROM windows(12);
INSERT INTO pay VALUES (842, 12, 1, '2026-01-01 10:00Z');
SELECT * FROM scored();
ALTER TABLE pay DISABLE TRIGGER ALL;
DELETE FROM pay WHERE id = 84;
ALTER TABLE pay ENABLE TRIGGER ALL;
SELECT * FROM scored();
SELECT * FROM windows(12);
INSERT INTO pay VALUES (843, 12, 1, '2026-01-01 10:00Z');
SELECT * FROM scored();
ALTER TABLE pay DISABLE TRIGGER risk_alert_capture;
UPDATE pay SET amount = 100 WHERE id = 83;
ALTER TABLE pay ENABLE ALWAYS TRIGGER risk_alert_capture;
SELECT * FROM scored();
SELECT * FROM windows(12);
ALTER TABLE pay ENABLE TRIGGER risk_alert_capture;

-- what a session without triggers has changed is there after alter_stream()
INSERT INTO pay VALUES (844, 12, 1, '2026-01-01 10:00Z');
SELECT * FROM scored();
SET session_replication_role = replica;
UPDATE pay SET amount = 1000 WHERE id = 83;
RESET session_replication_role;
SELECT * FROM scored();
SELECT * FROM windows(12);
SELECT risk_alert.alter_stream('cap_pay');
SELECT * FROM scored();
SELECT * FROM windows(12);

-- a row that comes back under the key of one that has raised an alert is counted, and raises no second alert
DELETE FROM pay WHERE id = 83;
SELECT * FROM scored();
SELECT * FROM windows(12);
INSERT INTO pay VALUES (83, 12, 2000, '2026-01-01 10:00Z');
SELECT * FROM scored();
SELECT * FROM windows(12);
SELECT count(*), sum(events) FROM risk_alert.alerts WHERE stream = 'cap_pay' AND event_key = '83';

-- an UPDATE that leaves all columns in use as they are makes no event; one of the others does
ALTER TABLE pay ADD COLUMN memo text;
SELECT FROM scored();
SELECT processed AS before FROM risk_alert.stat_streams WHERE stream = 'cap_pay' \gset
UPDATE pay SET memo = 'x', amount = amount, card = card;
SELECT * FROM scored();
SELECT processed - :before AS events FROM risk_alert.stat_streams WHERE stream = 'cap_pay';
UPDATE pay SET amount = amount + 1 WHERE id = 83;
SELECT * FROM scored();
SELECT processed - :before AS events FROM risk_alert.stat_streams WHERE stream = 'cap_pay';
ALTER TABLE pay DROP COLUMN memo;

-- what is no event says so
SELECT risk_alert.risk_score('cap_pay', NULL), risk_alert.risk_score(NULL, '{}');
SELECT risk_alert.risk_score('cap_pay', '[]');
SELECT risk_alert.risk_score('cap_pay', '{"at": "nonsense"}');
SELECT risk_alert.risk_score('cap_pay', '{"at": "infinity", "card": 12}');
SELECT risk_alert.risk_score('nothing', '{}');

-- TRUNCATE forgets the windows
TRUNCATE pay;
SELECT * FROM scored();
SELECT * FROM windows(1);
INSERT INTO pay VALUES (90, 1, 3, '2026-01-01 10:00Z');
SELECT * FROM scored();
-- ... also when rows follow in the same transaction, and not when it is rolled back
BEGIN;
TRUNCATE pay;
INSERT INTO pay VALUES (91, 1, 4, '2026-01-01 10:00Z');
COMMIT;
SELECT * FROM scored();
BEGIN;
TRUNCATE pay;
ROLLBACK;
SELECT * FROM windows(1);

-- COPY FREEZE
BEGIN;
TRUNCATE pay;
COPY pay FROM stdin (FREEZE);
86	1	4.00	2026-01-01 10:00Z
87	1	5.00	2026-01-01 10:00Z
\.
COMMIT;
SELECT * FROM scored();

-- a trigger that cannot capture says so, and so does a call by hand
CREATE TABLE wrong (id int PRIMARY KEY, at timestamptz);
CREATE TRIGGER capture BEFORE INSERT ON wrong FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
INSERT INTO wrong VALUES (1);
DROP TRIGGER capture ON wrong;
CREATE TRIGGER capture AFTER INSERT ON wrong FOR EACH STATEMENT EXECUTE FUNCTION risk_alert.capture();
INSERT INTO wrong VALUES (1);
DROP TRIGGER capture ON wrong;
SELECT risk_alert.capture();
INSERT INTO wrong VALUES (1);

-- what a foreign key does on its own
CREATE TABLE holder (card int PRIMARY KEY);
INSERT INTO holder VALUES (500), (502);
ALTER TABLE pay ADD CONSTRAINT of_holder FOREIGN KEY (card) REFERENCES holder ON UPDATE CASCADE ON DELETE CASCADE NOT VALID;
INSERT INTO pay VALUES (96, 500, 10, '2026-01-01 10:00Z'), (97, 500, 20, '2026-01-01 10:01Z'), (98, 502, 5, '2026-01-01 10:00Z');
SELECT * FROM scored();
UPDATE holder SET card = 501 WHERE card = 500;
DELETE FROM holder WHERE card = 502;
SELECT * FROM scored();
SELECT c.card, w.* FROM unnest('{500,501,502}'::int[]) AS c (card), windows(c.card) w;
ALTER TABLE pay DROP CONSTRAINT of_holder;
DROP TABLE holder;

-- ALTER TABLE: columns added, dropped and renamed do not disturb
ALTER TABLE pay ADD COLUMN note text DEFAULT 'x';
INSERT INTO pay VALUES (92, 1, 5, '2026-01-01 10:01Z', 'y');
ALTER TABLE pay DROP COLUMN note;
INSERT INTO pay VALUES (93, 1, 6, '2026-01-01 10:02Z');
ALTER TABLE pay RENAME COLUMN amount TO value;
ALTER TABLE pay RENAME COLUMN card TO the_card;
INSERT INTO pay VALUES (94, 1, 7, '2026-01-01 10:03Z');
SELECT * FROM scored();
ALTER TABLE pay ADD COLUMN amount text;
INSERT INTO pay VALUES (95, 1, 8, '2026-01-01 10:04Z', 'not an amount');
SELECT * FROM scored();

SELECT risk_alert.unwatch('cap_pay');
DELETE FROM risk_alert.alert WHERE stream = 'cap_pay';
DROP SCHEMA cap CASCADE;
