--
-- Whatever a column's type, length, alignment and neighbours: the worker reads from
-- the queue what the row holds, and an UPDATE or DELETE finds the row's windows.
--
SET client_min_messages = warning;
SET DateStyle = 'ISO, MDY';
SET IntervalStyle = 'postgres';
SET TimeZone = 'UTC';
CREATE SCHEMA types;
SET search_path = types;
CREATE DOMAIN label AS varchar(300);
CREATE TABLE pay (
	id bigint PRIMARY KEY, flag bool, letter "char", small smallint, word text, wide bigint, byte "char", tag name,
	short_int smallint, amount numeric, unit uuid, odd "char", span interval, odd2 bool, mac macaddr, made date,
	list int[], note label, ratio real, raw bytea, exact double precision, doc jsonb, last "char", at timestamptz NOT NULL
);
CREATE INDEX ON pay (word, at);
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'types');
SELECT risk_alert.create_feature('types', 'n', entity => 'word', aggregate => 'count(*)', within => '1 year');
SELECT risk_alert.create_rule('types', 'each', 'n >= 0 OR n IS NULL', points => 60, reason => '{flag}|{letter}|{small}|{word}|{wide}|{byte}|'
	'{tag}|{short_int}|{amount}|{unit}|{odd}|{span}|{odd2}|{mac}|{made}|{list}|{note}|{ratio}|{raw}|{exact}|{doc}|{last}|{n}');
-- a reason shows the first 200 characters of a value
CREATE VIEW expected AS
SELECT id, (SELECT string_agg(CASE WHEN length(v) > 200 THEN left(v, 200) || '...' ELSE coalesce(v, 'null') END, '|' ORDER BY i)
            FROM unnest(ARRAY[left(flag::text, 1), letter::text, small::text, word::text, wide::text, byte::text, tag::text, short_int::text, amount::text, unit::text, odd::text,
				span::text, left(odd2::text, 1), mac::text, made::text, list::text, note::text, ratio::text, raw::text, exact::text, doc::text, last::text]) WITH ORDINALITY u (v, i)) AS text
FROM pay;

-- texts of the lengths at which their header in the queue changes (1 or 4 bytes, and that of the whole image)
INSERT INTO pay
SELECT i, i % 2 = 0, chr(65 + i % 20)::"char", i, repeat('w', i), 100000000000 + i, 'b', repeat('n', i % 63), -i, i * 1.25,
	'00112233-4455-6677-8899-aabbccddeeff', 'o', i * interval '1 month 3 days 5 seconds', true, '08:00:2b:01:02:03', date '2026-01-01' + i,
	ARRAY[i, NULL, 7], repeat('l', 130 - i), i / 4.0, decode(repeat('7f', i % 98), 'hex'), -i / 8.0, jsonb_build_object('k', i), 'z',
	timestamptz '2026-01-10' + i * interval '1 minute'
FROM generate_series(0, 130) i;
-- long ones; compressed and out of line in the table as well
INSERT INTO pay (id, word, note, raw, at) VALUES
	(200, repeat('x', 500), repeat('y', 300), decode(repeat('01', 126), 'hex'), '2026-02-01'),
	(201, repeat('x', 7000), 'a', decode(repeat('01', 127), 'hex'), '2026-02-01'),
	(202, repeat('x', 8), NULL, '', '2026-02-01');
-- each column NULL in turn, among others that are not
DO $$
DECLARE
	c record;
BEGIN
	FOR c IN SELECT attname, attnum FROM pg_attribute WHERE attrelid = 'pay'::regclass AND attnum > 1 AND attname <> 'at' LOOP
		INSERT INTO pay
		SELECT (json_populate_record(p, json_build_object('id', 300 + c.attnum, c.attname, NULL))).* FROM pay p WHERE id = 33;
	END LOOP;
END $$;
-- and all that can be
INSERT INTO pay (id, at) VALUES (400, '2026-02-01');
SELECT risk_alert.drain();

SELECT count(*) AS alerts, count(*) FILTER (WHERE starts_with(r.text, e.text || '|')) AS as_stored
FROM expected e LEFT JOIN risk_alert.alerts a ON a.stream = 'types' AND a.event_key = e.id::text, LATERAL (SELECT a.reasons->0->>'text' AS text) r;
-- an UPDATE carries two images, of which either may be the longer one
UPDATE pay SET word = repeat('v', 130 - id::int), note = repeat('m', id::int) WHERE id < 130;
DELETE FROM pay WHERE id % 3 = 0;
SELECT risk_alert.drain();
SELECT count(*) AS words, sum(held) AS rows, count(*) FILTER (WHERE (f.features->>'n')::int = held + 1) AS exact
FROM (SELECT w.word, (SELECT count(*) FROM pay p WHERE p.word = w.word) AS held
      FROM (SELECT repeat(letter, i) AS word FROM (VALUES ('w'), ('v')) l (letter), generate_series(1, 130) i) w) c,
	LATERAL risk_alert.risk_assess('types', jsonb_build_object('id', 0, 'word', c.word, 'at', '2026-12-01 00:00Z')) f;

SELECT risk_alert.unwatch('types');
DROP SCHEMA types CASCADE;
