--
-- F12: partitioned tables.  A stream is the root; rows count however they come
-- into or leave its partitions.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA part;
SET search_path = part;
CREATE TABLE pay (id bigint, card int NOT NULL, amount numeric(12,2), at timestamptz NOT NULL, PRIMARY KEY (id, at))
	PARTITION BY RANGE (at);
CREATE TABLE pay_1 PARTITION OF pay FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE pay_2 PARTITION OF pay FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY HASH (id);
CREATE TABLE pay_2a PARTITION OF pay_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE pay_2b PARTITION OF pay_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
-- a partition whose columns lie otherwise than the root's
CREATE TABLE pay_3 (gone text, amount numeric(12,2), at timestamptz NOT NULL, gone_too int, card int NOT NULL, id bigint NOT NULL);
ALTER TABLE pay_3 DROP COLUMN gone, DROP COLUMN gone_too;
ALTER TABLE pay ATTACH PARTITION pay_3 FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
CREATE INDEX ON pay (card, at);

SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'part_pay');
SELECT risk_alert.create_feature('part_pay', 'n', entity => 'card', aggregate => 'count(*)', within => '1 year');
SELECT risk_alert.create_feature('part_pay', 'total', entity => 'card', aggregate => 'sum(amount)', within => '1 year');
SELECT risk_alert.create_rule('part_pay', 'each', 'n >= 1', points => 60, reason => '{n} of {total}');

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
		WHERE s.name = 'part_pay' ON CONFLICT DO NOTHING RETURNING event_key)
	SELECT a.event_key, a.features->>'n', a.features->>'total'
	FROM new JOIN risk_alert.alerts a USING (event_key)
	WHERE a.stream = 'part_pay' ORDER BY a.event_key COLLATE "C";
END $$;
CREATE FUNCTION windows(of_card int) RETURNS TABLE (n text, total text) LANGUAGE sql AS $$
	SELECT features->>'n', features->>'total'
	FROM risk_alert.risk_assess('part_pay', jsonb_build_object('id', 0, 'card', of_card, 'amount', 0,
		'at', '2026-12-01 00:00Z'))
$$;

-- through the root, into every partition
INSERT INTO pay VALUES (1, 1, 1, '2026-01-10Z'), (2, 1, 10, '2026-02-10Z'), (3, 1, 100, '2026-02-11Z'), (4, 1, 1000, '2026-03-10Z');
SELECT * FROM scored();
-- straight into partitions of both levels
INSERT INTO pay_1 VALUES (5, 2, 1, '2026-01-10Z');
INSERT INTO pay_2 VALUES (6, 2, 10, '2026-02-10Z');
INSERT INTO pay_2a SELECT g, 2, 100, '2026-02-11Z' FROM generate_series(100, 200) g
	WHERE satisfies_hash_partition('pay_2'::regclass, 2, 0, g::bigint) ORDER BY g LIMIT 1;
COPY pay_3 (id, card, amount, at) FROM stdin;
8	2	1000	2026-03-10Z
\.
SELECT n, total FROM scored();
SELECT * FROM windows(2);

-- UPDATE that moves a row to another partition is DELETE + INSERT: its key, which
-- includes the partition's column, is new, so it is a new event; counted once
UPDATE pay SET at = '2026-03-20Z' WHERE id = 1;
SELECT * FROM scored();
SELECT * FROM windows(1);
-- UPDATE and DELETE in a partition
UPDATE pay_3 SET amount = 2 WHERE id = 1;
DELETE FROM pay_2 WHERE id = 3;
SELECT * FROM scored();
SELECT * FROM windows(1);

-- ATTACH: the rows there already are history: in the windows, not scored
CREATE TABLE pay_4 (LIKE pay INCLUDING ALL);
INSERT INTO pay_4 VALUES (20, 1, 5, '2026-04-10Z'), (21, 3, 7, '2026-04-10Z');
ALTER TABLE pay ATTACH PARTITION pay_4 FOR VALUES FROM ('2026-04-01') TO ('2026-05-01');
SELECT * FROM scored();
SELECT * FROM windows(1);
INSERT INTO pay_4 VALUES (22, 3, 8, '2026-04-11Z');
SELECT * FROM scored();

-- DETACH: its rows are no longer the stream's
ALTER TABLE pay DETACH PARTITION pay_3;
SELECT * FROM scored();
SELECT * FROM windows(1);
INSERT INTO pay_3 (id, card, amount, at) VALUES (30, 1, 9, '2026-03-11Z');
SELECT * FROM scored();
SELECT * FROM windows(1);

-- DROP TABLE of a partition
DROP TABLE pay_4;
SELECT * FROM scored();
SELECT * FROM windows(1);
SELECT * FROM windows(3);

-- TRUNCATE of one partition, and of the root
INSERT INTO pay VALUES (40, 1, 11, '2026-01-20Z');
SELECT * FROM scored();
TRUNCATE pay_2;
SELECT * FROM scored();
SELECT * FROM windows(1);
TRUNCATE pay;
SELECT * FROM scored();
SELECT * FROM windows(1);

-- TRUNCATE of a leaf of the second level, alone and because of a foreign key
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (2);
INSERT INTO pay SELECT g, 5, 1, '2026-02-20Z' FROM generate_series(50, 89) g;
INSERT INTO pay VALUES (90, 5, 1, '2026-01-21Z');
SELECT count(*) FROM scored();
SELECT n::int FROM windows(5);
TRUNCATE pay_2a;
SELECT * FROM scored();
SELECT n::int = (SELECT count(*) + 1 FROM pay WHERE card = 5) AS exact, n::int < 41 AS fewer FROM windows(5);
ALTER TABLE pay_2b ADD CONSTRAINT of_parent FOREIGN KEY (card) REFERENCES parent NOT VALID;
TRUNCATE parent CASCADE;
SELECT * FROM scored();
SELECT * FROM windows(5);
ALTER TABLE pay_2b DROP CONSTRAINT of_parent;

-- a partition detached CONCURRENTLY, which takes two transactions; attached by a function
INSERT INTO pay_2 VALUES (95, 5, 100, '2026-02-20Z');
SELECT * FROM scored();
ALTER TABLE pay DETACH PARTITION pay_2 CONCURRENTLY;
SELECT * FROM scored();
SELECT * FROM windows(5);
DO $$ BEGIN EXECUTE $sql$ALTER TABLE part.pay ATTACH PARTITION part.pay_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')$sql$; END $$;
SELECT * FROM scored();
SELECT * FROM windows(5);

-- a row of a partition is one of the stream, whatever the order of its columns
ALTER TABLE pay ATTACH PARTITION pay_3 FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
INSERT INTO pay_3 (id, card, amount, at) VALUES (96, 5, 1000, '2026-03-20Z');
SELECT * FROM scored();
SELECT id, risk_alert.risk_score(p), a.reasons->0->>'text' AS reason FROM pay_3 p, risk_alert.risk_assess(p) a WHERE card = 5;
SELECT id, risk_alert.risk_score(p), a.reasons->0->>'text' AS reason FROM pay_2b p, risk_alert.risk_assess(p) a WHERE card = 5
UNION ALL
SELECT id, risk_alert.risk_score(p), a.reasons->0->>'text' AS reason FROM pay_2a p, risk_alert.risk_assess(p) a WHERE card = 5;
-- one of something else is not
CREATE VIEW seen AS TABLE pay;
SELECT risk_alert.risk_score(p) FROM seen p;
SELECT risk_alert.risk_score(p) FROM (TABLE pay) p;
SELECT risk_alert.risk_score(NULL::pay);
-- though what is inserted by way of the view is an event
INSERT INTO seen VALUES (97, 5, 1, '2026-03-21Z');
SELECT * FROM scored();

-- a partition whose trigger is disabled is reported
ALTER TABLE pay_1 DISABLE TRIGGER USER;
SELECT level, object, description, detail FROM risk_alert.check_setup() WHERE name = 'partition';
ALTER TABLE pay_1 ENABLE TRIGGER USER;

-- a partition is not a stream of its own
SELECT risk_alert.watch('pay_1', event_time => 'at');

SELECT risk_alert.unwatch('part_pay');
DELETE FROM risk_alert.alert WHERE stream = 'part_pay';
DROP SCHEMA part CASCADE;
