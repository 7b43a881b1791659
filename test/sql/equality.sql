--
-- Values that are equal and look different: 1.0 and 1.00, 'ab' and 'AB' by their
-- collation, 0 and -0.  They are one entity, one key, and one distinct value; in
-- windows that are in memory and in those read from the table alike.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA eq;
SET search_path = eq;
CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE pay (id numeric PRIMARY KEY, num numeric, flo float8, txt text COLLATE loose, pad char(5), ip inet, doc jsonb, at timestamptz);
SELECT format('CREATE INDEX ON pay (%I, at)', c) FROM unnest('{num,flo,txt,pad,ip,doc}'::text[]) c \gexec
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'eq');
SELECT count(risk_alert.create_feature('eq', 'n_' || c, entity => c, aggregate => 'count(*)', within => '1 hour')),
       count(risk_alert.create_feature('eq', 'd_' || c, entity => 'num', aggregate => format('count(DISTINCT %s)', c), within => '1 hour'))
  FROM unnest('{num,flo,txt,pad,ip,doc}'::text[]) c;
SELECT risk_alert.create_rule('eq', 'each', 'true', points => 60,
	reason => '{n_num} {n_flo} {n_txt} {n_pad} {n_ip} {n_doc} of {d_num} {d_flo} {d_txt} {d_pad} {d_ip} {d_doc}');
CREATE FUNCTION scored() RETURNS TABLE (event_key text, text text) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT risk_alert.drain() THEN
		RAISE 'not drained';
	END IF;
	RETURN QUERY SELECT a.event_key, a.reasons->0->>'text' FROM risk_alert.alerts a WHERE stream = 'eq' ORDER BY a.alert_id;
	DELETE FROM risk_alert.alert WHERE stream = 'eq';
END $$;
-- the same by SQL: numbers of equal rows
CREATE VIEW plain AS
SELECT p.id, format('%s %s %s %s %s %s of %s %s %s %s %s %s', count(*) FILTER (WHERE o.num = p.num), count(*) FILTER (WHERE o.flo = p.flo),
		count(*) FILTER (WHERE o.txt = p.txt), count(*) FILTER (WHERE o.pad = p.pad), count(*) FILTER (WHERE o.ip = p.ip), count(*) FILTER (WHERE o.doc = p.doc),
		count(DISTINCT o.num) FILTER (WHERE o.num = p.num), count(DISTINCT o.flo) FILTER (WHERE o.num = p.num), count(DISTINCT o.txt) FILTER (WHERE o.num = p.num),
		count(DISTINCT o.pad) FILTER (WHERE o.num = p.num), count(DISTINCT o.ip) FILTER (WHERE o.num = p.num), count(DISTINCT o.doc) FILTER (WHERE o.num = p.num)) AS text
  FROM pay p, LATERAL (SELECT * FROM pay o WHERE o.at <= p.at AND o.at > p.at - interval '1 hour') o GROUP BY p.id;

-- claim: each writing finds the window that another one has made
INSERT INTO pay VALUES (1.0, 1, 0, 'ab', 'x', '10.0.0.1', '{"a": 1}', '2026-01-01 10:00Z');
SELECT * FROM scored();
INSERT INTO pay VALUES (2.0, 1.00, '-0', 'AB', 'x  ', '10.0.0.1/32', '{"a": 1.00}', '2026-01-01 10:01Z');
SELECT * FROM scored();
INSERT INTO pay VALUES (3.0, 1.000, '-0', 'Ab', 'x    ', '10.0.0.1', '{"a": 1.0}', '2026-01-01 10:02Z'),
	(4, 2, 5, 'b', 'y', '10.0.0.0/31', '{}', '2026-01-01 10:02Z');
SELECT * FROM scored();

-- claim: an UPDATE from one writing to another, of a key too, changes nothing, and one to another value does
UPDATE pay SET id = 3.000 WHERE id = 3;
UPDATE pay SET num = 1.0000, flo = 0, txt = 'aB', pad = 'x', ip = '10.0.0.1', doc = '{"a": 1.000}' WHERE id = 2;
INSERT INTO pay VALUES (5, 1.0, '-0', 'ab', 'x ', '10.0.0.1', '{"a": 1}', '2026-01-01 10:03Z');
SELECT * FROM scored();
UPDATE pay SET num = 2.0, flo = 5, txt = 'B', pad = 'y  ', ip = '10.0.0.0/31', doc = '{}' WHERE id = 3.0;
INSERT INTO pay VALUES (6, 1.0, 0, 'ab', 'x', '10.0.0.1', '{"a": 1}', '2026-01-01 10:04Z'), (7, 2, 5, 'b', 'y', '10.0.0.0/31', '{}', '2026-01-01 10:04Z');
SELECT * FROM scored();
DELETE FROM pay WHERE id = 3.00;
INSERT INTO pay VALUES (8, 2, 5, 'b', 'y', '10.0.0.0/31', '{}', '2026-01-01 10:05Z');
SELECT * FROM scored();

-- claim: NaN is equal to itself, an empty padded text to blanks
INSERT INTO pay VALUES (10, 'NaN', 'NaN', '', '', NULL, 'null', '2026-01-01 10:06Z'), (11, 'NaN', '-NaN', '', '  ', NULL, 'null', '2026-01-01 10:07Z');
SELECT * FROM scored();

-- claim: read from the table, and by SQL, it is the same
SELECT risk_alert.alter_stream('eq');
INSERT INTO pay VALUES (12, 1.00, '-0', 'AB', 'x  ', '10.0.0.1/32', '{"a": 1.00}', '2026-01-01 10:08Z');
SELECT s.*, s.text = p.text AS plain FROM scored() s JOIN plain p ON p.id = s.event_key::numeric;
SELECT id, a.reasons->0->>'text' AS text FROM pay, risk_alert.risk_assess(pay) a WHERE (id, a.reasons->0->>'text') NOT IN (TABLE plain);
SELECT id, text FROM plain WHERE id < 10 ORDER BY id;

SELECT risk_alert.unwatch('eq');
DROP SCHEMA eq CASCADE;
