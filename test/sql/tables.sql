--
-- What watched tables may look like: generated columns, keys of any kind, odd
-- names, dropped columns.  Rows are scored by the worker, and by risk_assess()
-- with the same values.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE SCHEMA tables;
SET search_path = tables;

-- what the worker saw when it scored a stream's events
CREATE FUNCTION scored(of_stream text) RETURNS TABLE (event_key text, entity text, score int, features jsonb) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT risk_alert.drain() THEN
		RAISE 'not drained';
	END IF;
	RETURN QUERY SELECT a.event_key, a.entity, a.score, a.features FROM risk_alert.alerts a
	WHERE a.stream = of_stream ORDER BY a.event_key;
END $$;

--
-- Generated columns as value, entity, filter, in a condition and a reason
--
CREATE TABLE gen (
	id int PRIMARY KEY,
	iban text,
	cents int,
	country text GENERATED ALWAYS AS (left(iban, 2)) STORED,
	amount numeric GENERATED ALWAYS AS (cents / 100.0) STORED,
	refund bool GENERATED ALWAYS AS (cents < 0) STORED,
	at timestamptz);
CREATE INDEX ON gen (country, at);
-- history: in the windows, as the table has it
INSERT INTO gen (id, iban, cents, at) VALUES (1, 'DE1', 10000, '2026-01-01 09:00Z'), (2, 'FR1', -50, '2026-01-01 09:00Z');
SELECT risk_alert.watch('gen', event_time => 'at', suppress => '0');
SELECT risk_alert.create_feature('gen', 'total', 'country', 'sum(amount)', '1 day');
SELECT risk_alert.create_feature('gen', 'refunds', 'country', 'count(*)', '1 day', filter => 'refund');
SELECT risk_alert.create_feature('gen', 'ibans', 'country', 'count(DISTINCT iban)', '1 day', filter => 'NOT refund');
SELECT risk_alert.create_feature('gen', 'last_amount', 'country', 'lag(amount)', '1 day');
SELECT risk_alert.create_rule('gen', 'all', 'total IS NOT NULL AND ibans >= 0 AND last_amount IS DISTINCT FROM -99 AND country > ''A''', points => 60,
	reason => '{country}: {amount}, refund {refund}, {total}');
SELECT risk_alert.create_rule('gen', 'refunds', 'refund AND refunds > 1', points => 20);

-- claim: the worker sees their values, in windows that are rebuilt and in those that are kept
INSERT INTO gen (id, iban, cents, at) VALUES (10, 'DE1', 500, '2026-01-01 10:00Z'), (11, 'DE2', -250, '2026-01-01 10:01Z'), (12, 'FR1', -1, '2026-01-01 10:02Z');
SELECT * FROM scored('gen');
INSERT INTO gen (id, iban, cents, at) VALUES (13, 'DE1', -100, '2026-01-01 10:03Z');
INSERT INTO gen (id, iban, cents, at) VALUES (14, 'DE3', 101, '2026-01-01 10:04Z');
SELECT * FROM scored('gen') WHERE event_key > '12';
SELECT event_key, reasons FROM risk_alert.alerts WHERE stream = 'gen' AND event_key IN ('12', '13') ORDER BY 1;

-- claim: an UPDATE of what they are made of corrects the windows: value, entity, filter
UPDATE gen SET cents = 300 WHERE id = 11;
UPDATE gen SET iban = 'FR9' WHERE id = 10;
DELETE FROM gen WHERE id = 13;
INSERT INTO gen (id, iban, cents, at) VALUES (20, 'DE1', -1, '2026-01-01 11:00Z'), (21, 'FR1', 1, '2026-01-01 11:00Z');
SELECT * FROM scored('gen') WHERE event_key >= '20';
SELECT country, sum(amount), count(*) FILTER (WHERE refund) AS refunds, count(DISTINCT iban) FILTER (WHERE NOT refund) AS ibans
FROM gen GROUP BY 1 ORDER BY 1;

-- claim: risk_assess() of a stored row says the same, of jsonb it does not compute them
SELECT id, (risk_alert.risk_assess(g)).* FROM gen g WHERE id >= 20 ORDER BY 1;
SELECT score, features FROM risk_alert.risk_assess('gen', '{"id": 30, "iban": "DE1", "cents": 100, "at": "2026-01-01 12:00Z"}');
SELECT score, features FROM risk_alert.risk_assess('gen', '{"id": 30, "iban": "DE1", "country": "DE", "amount": 1, "refund": false, "at": "2026-01-01 12:00Z"}');

-- claim: a generated column may be key and event time
CREATE TABLE gen_key (id int NOT NULL, a int, day date, code text GENERATED ALWAYS AS ('c' || id) STORED,
	at date GENERATED ALWAYS AS (day + 1) STORED, UNIQUE (code));
CREATE INDEX ON gen_key (a, at);
ALTER TABLE gen_key ALTER code SET NOT NULL;
SELECT risk_alert.watch('gen_key', event_time => 'at', key => 'code', suppress => '0');
SELECT risk_alert.create_feature('gen_key', 'n', 'a', 'count(*)', '2 days');
SELECT risk_alert.create_rule('gen_key', 'all', 'n > 0', points => 60);
INSERT INTO gen_key (id, a, day) VALUES (1, 1, '2026-01-01'), (2, 1, '2026-01-02');
SELECT * FROM scored('gen_key');
UPDATE gen_key SET id = 7, day = '2026-01-03' WHERE id = 1;
INSERT INTO gen_key (id, a, day) VALUES (3, 1, '2026-01-04');
SELECT * FROM scored('gen_key') WHERE event_key >= 'c3';
SELECT event_time FROM risk_alert.alerts WHERE stream = 'gen_key' AND event_key = 'c3';

--
-- Keys named by key =>
--

-- claim: a uuid
CREATE TABLE by_uuid (u uuid NOT NULL UNIQUE, card int, at timestamptz);
CREATE INDEX ON by_uuid (card, at);
SELECT risk_alert.watch('by_uuid', event_time => 'at', key => 'u', suppress => '0');
SELECT risk_alert.create_feature('by_uuid', 'n', 'card', 'count(*)', '1 day');
SELECT risk_alert.create_rule('by_uuid', 'all', 'n > 0', points => 60);
INSERT INTO by_uuid VALUES ('00000000-0000-0000-0000-000000000001', 1, '2026-01-01 10:00Z'), ('A0000000-0000-0000-0000-000000000002', 1, '2026-01-01 10:01Z'),
	('00000000-0000-0000-0000-000000000003', 1, '2026-01-01 10:02Z');
SELECT * FROM scored('by_uuid');
UPDATE by_uuid SET card = 2 WHERE u = '00000000-0000-0000-0000-000000000001';
UPDATE by_uuid SET u = 'b0000000-0000-0000-0000-000000000000' WHERE u = '00000000-0000-0000-0000-000000000003';
DELETE FROM by_uuid WHERE u = 'a0000000-0000-0000-0000-000000000002';
INSERT INTO by_uuid VALUES ('c0000000-0000-0000-0000-000000000001', 1, '2026-01-01 11:00Z'), ('c0000000-0000-0000-0000-000000000002', 2, '2026-01-01 11:00Z');
SELECT * FROM scored('by_uuid') WHERE event_key ~ '^c';

-- claim: a text, however it looks; in an index of its own collation
CREATE TABLE by_text (t text NOT NULL, card int, at timestamptz);
CREATE UNIQUE INDEX ON by_text (t COLLATE "C");
CREATE INDEX ON by_text (card, at);
SELECT risk_alert.watch('by_text', event_time => 'at', key => 't', suppress => '0');
SELECT risk_alert.create_feature('by_text', 'n', 'card', 'count(*)', '1 day');
SELECT risk_alert.create_rule('by_text', 'all', 'n > 0', points => 60);
INSERT INTO by_text VALUES ('', 1, '2026-01-01 10:00Z'), (' ', 1, '2026-01-01 10:01Z'), ('(a,"b")', 1, '2026-01-01 10:02Z'), (E'x\ny''\\', 1, '2026-01-01 10:03Z'),
	(U&'\00e9', 1, '2026-01-01 10:04Z'), (repeat('k', 2000), 1, '2026-01-01 10:05Z');
SELECT CASE WHEN length(event_key) > 100 THEN length(event_key)::text ELSE to_json(event_key)::text END AS event_key, features
FROM scored('by_text') ORDER BY features->>'n';
UPDATE by_text SET card = 2 WHERE t = '';
DELETE FROM by_text WHERE t = ' ';
UPDATE by_text SET t = 'new' WHERE t = repeat('k', 2000);
INSERT INTO by_text VALUES ('last', 1, '2026-01-01 11:00Z');
SELECT * FROM scored('by_text') WHERE event_key = 'last';

-- claim: a column that may be NULL: rows whose key is NULL are one event to alerts, and yet each counts in the windows
CREATE TABLE by_null (ref text UNIQUE, card int, at timestamptz);
CREATE INDEX ON by_null (card, at);
SELECT risk_alert.watch('by_null', event_time => 'at', key => 'ref', suppress => '0');
SELECT risk_alert.create_feature('by_null', 'n', 'card', 'count(*)', '1 day');
SELECT risk_alert.create_rule('by_null', 'all', 'n > 0', points => 60);
INSERT INTO by_null VALUES ('r1', 1, '2026-01-01 10:00Z'), (NULL, 1, '2026-01-01 10:01Z'), (NULL, 1, '2026-01-01 10:02Z'), ('r2', 1, '2026-01-01 10:03Z');
SELECT * FROM scored('by_null');
SELECT scored, skipped, last_skip FROM risk_alert.stat_streams WHERE stream = 'by_null';
UPDATE by_null SET ref = 'r3' WHERE at = '2026-01-01 10:01Z';
UPDATE by_null SET ref = NULL WHERE ref = 'r1';
INSERT INTO by_null VALUES ('r4', 1, '2026-01-01 11:00Z');
SELECT * FROM scored('by_null') WHERE event_key = 'r4';
DELETE FROM by_null WHERE ref IS NULL;
INSERT INTO by_null VALUES ('r5', 1, '2026-01-01 11:01Z');
SELECT * FROM scored('by_null') WHERE event_key = 'r5';
SELECT count(*) FROM by_null;
SELECT (risk_alert.risk_assess(b)).features FROM by_null b WHERE ref = 'r5';

--
-- Names
--

-- claim: quoted and upper-case names of schema, table, columns, stream, features and rules
CREATE SCHEMA "Odd ""schema";
CREATE TABLE "Odd ""schema"."Pay, all" ("Id" int, "Seq, no" text, "At Time" timestamptz, "card" int, "Card" int, "entity""x" text, "select" numeric,
	PRIMARY KEY ("Id", "Seq, no"));
CREATE INDEX ON "Odd ""schema"."Pay, all" ("entity""x", "Card", "At Time");
SELECT risk_alert.watch('"Odd ""schema"."Pay, all"', event_time => '"At Time"', key => '"Seq, no", "Id"', suppress => '0', name => 'Odd "stream');
SELECT risk_alert.create_feature('Odd "stream', '"N of"', entity => '"entity""x", "Card"', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_feature('Odd "stream', '"Sum"', entity => '"entity""x", "Card"', aggregate => 'sum("select")', within => '1 day', filter => '"card" < "Card"');
SELECT risk_alert.create_rule('Odd "stream', 'Rule "r"', '"N of" > 1 AND "Sum" > "select" AND "Card" = 2', points => 60,
	reason => '{"Seq, no"} {"select"} {"N of"}');
INSERT INTO "Odd ""schema"."Pay, all" VALUES (1, 'a', '2026-01-01 10:00Z', 1, 2, 'e''"1', 5), (1, 'b', '2026-01-01 10:01Z', 1, 2, 'e''"1', 6), (2, 'a', '2026-01-01 10:02Z', 2, 1, 'e''"1', 7);
SELECT * FROM scored('Odd "stream');
SELECT reasons FROM risk_alert.alerts WHERE stream = 'Odd "stream';
UPDATE "Odd ""schema"."Pay, all" SET "select" = 50 WHERE "Seq, no" = 'a' AND "Id" = 1;
ALTER TABLE "Odd ""schema"."Pay, all" RENAME "select" TO "from";
ALTER TABLE "Odd ""schema"."Pay, all" RENAME "Card" TO "CARD ""2""";
INSERT INTO "Odd ""schema"."Pay, all" VALUES (3, 'c', '2026-01-01 10:03Z', 1, 2, 'e''"1', 1);
SELECT * FROM scored('Odd "stream') WHERE event_key ~ 'c';
SELECT (risk_alert.risk_assess(p)).* FROM "Odd ""schema"."Pay, all" p WHERE "Id" = 3;
SELECT condition, reason FROM risk_alert.rules WHERE stream = 'Odd "stream';

--
-- Dropped columns
--

-- claim: columns dropped before watch(), at either end and in between
CREATE TABLE dropped (x1 text, id int, x2 numeric, card int, x3 int, amount int, at timestamptz, x4 text, PRIMARY KEY (id));
INSERT INTO dropped VALUES ('x', 1, 1, 1, 1, 100, '2026-01-01 09:00Z', 'x');
ALTER TABLE dropped DROP COLUMN x1, DROP COLUMN x2;
CREATE INDEX ON dropped (card, at);
SELECT risk_alert.watch('dropped', event_time => 'at', suppress => '0');
SELECT risk_alert.create_feature('dropped', 'total', 'card', 'sum(amount)', '1 day');
SELECT risk_alert.create_rule('dropped', 'all', 'total > 0 AND amount <> 0', points => 60, reason => '{id} {card} {amount}');
INSERT INTO dropped VALUES (2, 1, 77, 10, '2026-01-01 10:00Z', 'y');
SELECT * FROM scored('dropped');
-- claim: and after it, between events
ALTER TABLE dropped DROP COLUMN x3;
INSERT INTO dropped VALUES (3, 1, 1, '2026-01-01 10:01Z', 'y');
ALTER TABLE dropped DROP COLUMN x4, ADD COLUMN x3 text DEFAULT 'again', ADD COLUMN amount2 int GENERATED ALWAYS AS (amount * 2) STORED;
INSERT INTO dropped VALUES (4, 1, 2, '2026-01-01 10:02Z');
SELECT risk_alert.drain();
UPDATE dropped SET amount = 20 WHERE id = 1;
INSERT INTO dropped VALUES (5, 1, 3, '2026-01-01 10:03Z');
SELECT * FROM scored('dropped') WHERE event_key > '2';
SELECT risk_alert.create_feature('dropped', 'total2', 'card', 'sum(amount2)', '1 day');
SELECT risk_alert.create_rule('dropped', 'new', 'total2 = 2 * total AND x3 = ''again''', points => 10);
INSERT INTO dropped VALUES (6, 1, 4, '2026-01-01 10:04Z');
SELECT * FROM scored('dropped') WHERE event_key > '5';
SELECT (risk_alert.risk_assess(d)).* FROM dropped d WHERE id = 6;
SELECT score, features FROM risk_alert.risk_assess('dropped', '{"id": 7, "card": 1, "amount": 5, "amount2": 10, "x1": "?", "x3": "again", "at": "2026-01-01 10:05Z"}');
SELECT sum(amount) FROM dropped;

--
-- A child
--

-- claim: rows of a table that inherits from a watched one are another table's, in memory and in the table
CREATE TABLE mother (id int PRIMARY KEY, card int, at timestamptz);
CREATE INDEX ON mother (card, at);
SELECT risk_alert.watch('mother', event_time => 'at', suppress => '0');
SELECT risk_alert.create_feature('mother', 'n', 'card', 'count(*)', '1 day');
SELECT risk_alert.create_rule('mother', 'all', 'n > 0', points => 60);
INSERT INTO mother VALUES (1, 1, '2026-01-01 10:00Z');
SELECT * FROM scored('mother');
CREATE TABLE child () INHERITS (mother);
INSERT INTO child VALUES (2, 1, '2026-01-01 10:01Z'), (3, 2, '2026-01-01 10:01Z');
INSERT INTO mother VALUES (4, 1, '2026-01-01 10:02Z'), (5, 2, '2026-01-01 10:02Z');
SELECT * FROM scored('mother') WHERE event_key > '1';
SELECT risk_alert.alter_stream('mother');
INSERT INTO mother VALUES (6, 1, '2026-01-01 10:03Z');
SELECT * FROM scored('mother') WHERE event_key > '5';

--
-- Event times without a time zone, and sessions that have one
--

-- claim: a timestamp is what it says, in UTC, whatever the session's time zone (Berlin skips an hour that night)
CREATE TABLE local_time (id int PRIMARY KEY, card int, at timestamp, day date);
CREATE INDEX ON local_time (card, at);
SELECT risk_alert.watch('local_time', event_time => 'at', suppress => '0');
SELECT risk_alert.create_feature('local_time', 'n', 'card', 'count(*)', '1 hour');
SELECT risk_alert.create_feature('local_time', 'last', 'card', 'lag(at)', '1 hour');
SELECT risk_alert.create_rule('local_time', 'all', 'n > 0 AND at::date = day', points => 60, reason => '{at} after {last}');
INSERT INTO local_time VALUES (1, 1, '2026-03-29 00:30', '2026-03-29');
SET timezone = 'America/New_York';
INSERT INTO local_time VALUES (2, 1, '2026-03-29 01:15', '2026-03-29');
SET timezone = 'Europe/Berlin';
INSERT INTO local_time VALUES (3, 1, '2026-03-29 02:14:59', '2026-03-29'), (4, 1, '2026-03-29 02:15', '2026-03-29'), (5, 1, '2026-03-29 23:45', '2026-03-29');
SELECT * FROM scored('local_time');
SELECT event_key, event_time AT TIME ZONE 'UTC' AS utc, reasons->0->>'text' AS reason FROM risk_alert.alerts WHERE stream = 'local_time' ORDER BY event_key;
SELECT id, a.features, a.reasons->0->>'text' AS reason FROM local_time l, risk_alert.risk_assess(l) a ORDER BY id;
SELECT features FROM risk_alert.risk_assess('local_time', '{"id": 9, "card": 1, "at": "2026-03-29 02:30"}');
SET timezone = 'UTC';

-- claim: the longest window and the shortest, to the microsecond, and at the ends of time
SELECT risk_alert.create_feature('mother', 'years', 'card', 'count(*)', '10 years');
SELECT risk_alert.create_feature('mother', 'second', 'card', 'count(*)', '1 second');
SELECT risk_alert.alter_rule('mother', 'all', condition => 'n > 0 AND years > 0 AND second > 0');
INSERT INTO mother VALUES (100, 3, '2016-02-28 12:00Z'), (101, 3, '2026-02-28 11:59:59.999999Z'), (102, 3, '2026-02-28 12:00Z'),
	(103, 3, '2026-02-28 12:00:00.999999Z'), (104, 3, '2026-02-28 12:00:01Z'),
	(110, 4, '4714-11-24 00:00Z BC'), (111, 4, '4714-11-24 00:00:00.5Z BC'), (112, 4, '294266-12-31 23:59:59.999999Z'), (113, 4, '294276-12-31 23:59:59.999999Z');
SELECT event_key, features FROM scored('mother') WHERE event_key ~ '^1..';
SELECT id, (risk_alert.risk_assess(m)).features FROM ONLY mother m WHERE id > 99 ORDER BY id;

SELECT count(risk_alert.unwatch(stream)) FROM risk_alert.streams
WHERE stream IN ('gen', 'gen_key', 'by_uuid', 'by_text', 'by_null', 'Odd "stream', 'dropped', 'mother', 'local_time');
DELETE FROM risk_alert.alert WHERE stream IN ('gen', 'gen_key', 'by_uuid', 'by_text', 'by_null', 'Odd "stream', 'dropped', 'mother', 'local_time');
DROP SCHEMA tables, "Odd ""schema" CASCADE;
