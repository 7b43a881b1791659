--
-- F27: values at the edges.  The user's INSERT succeeds whatever it holds (as
-- it does without us); what cannot be scored is counted as skipped, with the
-- reason; everything else has the result that SQL has.
--
SET client_min_messages = warning;
CREATE SCHEMA odd;
SET search_path = odd;
CREATE TABLE pay (id bigint PRIMARY KEY, who text, amount numeric, ratio float8, doc json, at timestamptz);
CREATE INDEX ON pay (who, at);
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'odd');
SELECT risk_alert.create_feature('odd', 'n', entity => 'who', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_feature('odd', 's', entity => 'who', aggregate => 'sum(amount)', within => '1 day');
SELECT risk_alert.create_feature('odd', 'a', entity => 'who', aggregate => 'avg(amount)', within => '1 day');
SELECT risk_alert.create_feature('odd', 'lo', entity => 'who', aggregate => 'min(amount)', within => '1 day');
SELECT risk_alert.create_feature('odd', 'hi', entity => 'who', aggregate => 'max(amount)', within => '1 day');
SELECT risk_alert.create_feature('odd', 'rs', entity => 'who', aggregate => 'sum(ratio)', within => '1 day');
SELECT risk_alert.create_feature('odd', 'rhi', entity => 'who', aggregate => 'max(ratio)', within => '1 day');
SELECT risk_alert.create_feature('odd', 'd', entity => 'who', aggregate => 'count(DISTINCT amount)', within => '1 day');
SELECT risk_alert.create_feature('odd', 'l', entity => 'who', aggregate => 'lag(amount)', within => '1 day', include_current => false);
SELECT risk_alert.create_rule('odd', 'each', 'n >= 0', points => 60);
SELECT risk_alert.create_rule('odd', 'more', 'amount > 1000', points => 10);

CREATE FUNCTION scored(from_id int) RETURNS TABLE (event_key text, score int, features jsonb) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT risk_alert.drain('60 s') THEN
		RAISE 'not drained';
	END IF;
	RETURN QUERY SELECT a.event_key, a.score, a.features FROM risk_alert.alerts a
	WHERE a.stream = 'odd' AND a.event_key::bigint >= from_id ORDER BY a.event_key::bigint;
END $$;
-- each feature of the live events of that entity against plain SQL: none must differ
CREATE FUNCTION wrong(of_who text) RETURNS TABLE (event_key text, feature text, is_value text, should text) LANGUAGE sql AS $$
	SELECT x.event_key, f.key, f.value, t.value
	FROM scored(0) x JOIN pay p ON p.id = x.event_key::bigint AND p.who = of_who, LATERAL (
		SELECT count(*) AS n, sum(o.amount) AS s, avg(o.amount) AS a, min(o.amount) AS lo, max(o.amount) AS hi,
			sum(o.ratio) AS rs, max(o.ratio) AS rhi, count(DISTINCT o.amount) AS d,
			(SELECT l.amount FROM pay l WHERE l.who = p.who AND l.at > p.at - interval '1 day' AND (l.at, l.id) < (p.at, p.id)
			 ORDER BY l.at DESC, l.id DESC LIMIT 1) AS l
		FROM pay o WHERE o.who = p.who AND o.at > p.at - interval '1 day' AND (o.at, o.id) <= (p.at, p.id)) o,
		jsonb_each_text(x.features) f JOIN jsonb_each_text(to_jsonb(o)) t ON t.key = f.key
	WHERE CASE WHEN f.key IN ('rs', 'rhi') THEN f.value::float8 IS DISTINCT FROM t.value::float8
		ELSE f.value::numeric IS DISTINCT FROM t.value::numeric END
	ORDER BY 1, 2
$$;

-- NaN and infinities come into a window and leave it again
INSERT INTO pay VALUES
	(1, 'nan', 10, 1, NULL, '2026-01-01 10:00Z'),
	(2, 'nan', 'NaN', 'NaN', NULL, '2026-01-01 11:00Z'),
	(3, 'nan', 20, 2, NULL, '2026-01-01 12:00Z'),
	(4, 'nan', 30, 3, NULL, '2026-01-02 10:30Z'),
	(5, 'nan', 40, 4, NULL, '2026-01-02 11:30Z'),
	(11, 'inf', 10, 1, NULL, '2026-01-01 10:00Z'),
	(12, 'inf', 'Infinity', 'Infinity', NULL, '2026-01-01 11:00Z'),
	(13, 'inf', '-Infinity', '-Infinity', NULL, '2026-01-01 12:00Z'),
	(14, 'inf', 5, 5, NULL, '2026-01-02 11:30Z'),
	(15, 'inf', 6, 6, NULL, '2026-01-02 12:30Z');
SELECT event_key, score, features->>'n' AS n, features->>'s' AS s, features->>'a' AS a, features->>'lo' AS lo, features->>'hi' AS hi,
	features->>'rs' AS rs, features->>'rhi' AS rhi, features->>'d' AS d, features->>'l' AS l FROM scored(1);
SELECT * FROM wrong('nan');
SELECT * FROM wrong('inf');

-- NULL everywhere; -0; tiny and huge floats
INSERT INTO pay VALUES
	(21, 'null', NULL, NULL, NULL, '2026-01-01 10:00Z'),
	(22, 'null', 1, NULL, NULL, '2026-01-01 11:00Z'),
	(23, 'null', NULL, '-0', NULL, '2026-01-01 12:00Z'),
	(24, 'null', -0.0, 5e-324, NULL, '2026-01-01 13:00Z'),
	(25, 'huge', 0, 1.7e308, NULL, '2026-01-01 10:00Z'),
	(26, 'huge', 0, 1.7e307, NULL, '2026-01-01 11:00Z');
SELECT event_key, score, features->>'n' AS n, features->>'s' AS s, (features->>'rs')::float8 AS rs, (features->>'rhi')::float8 AS rhi FROM scored(21);
SELECT * FROM wrong('null');
-- an entity that is NULL has no history
INSERT INTO pay VALUES (27, NULL, 1, 1, NULL, '2026-01-01 10:00Z'), (28, NULL, 1, 1, NULL, '2026-01-01 10:00Z');
SELECT event_key, features FROM scored(27);

-- numerics beyond what an integer holds
INSERT INTO pay VALUES
	(31, 'digits', ('1' || repeat('0', 1000))::numeric, 0, NULL, '2026-01-01 10:00Z'),
	(32, 'digits', ('0.' || repeat('3', 1000))::numeric, 0, NULL, '2026-01-01 11:00Z'),
	(33, 'digits', 9223372036854775807, 0, NULL, '2026-01-01 12:00Z'),
	(34, 'digits', -9223372036854775808, 0, NULL, '2026-01-01 13:00Z'),
	(35, 'digits', 1e-20, 0, NULL, '2026-01-01 14:00Z'),
	(36, 'digits', 1e20, 0, NULL, '2026-01-02 09:00Z'),
	(37, 'digits', 3, 0, NULL, '2026-01-02 13:30Z'),
	(38, 'digits', 99999999999999999999999999999999999999.99, 0, NULL, '2026-01-02 13:40Z'),
	(39, 'digits', NULL, 0, NULL, '2026-01-02 13:50Z'),
	(40, 'digits', 4, 0, NULL, '2026-01-02 13:55Z');
SELECT * FROM wrong('digits');
SELECT count(*) FROM scored(31);

-- sums that outgrow 64 bits, of numeric(12,2) too
CREATE TABLE cents (id int PRIMARY KEY, who int, amount numeric(19,2), units bigint, at timestamptz);
CREATE INDEX ON cents (who, at);
SELECT risk_alert.watch('cents', event_time => 'at', suppress => '0', name => 'odd_cents');
SELECT risk_alert.create_feature('odd_cents', 's', entity => 'who', aggregate => 'sum(amount)', within => '1 day');
SELECT risk_alert.create_feature('odd_cents', 'u', entity => 'who', aggregate => 'sum(units)', within => '1 day');
SELECT risk_alert.create_feature('odd_cents', 'v', entity => 'who', aggregate => 'variance(units)', within => '1 day');
SELECT risk_alert.create_rule('odd_cents', 'each', 's IS NOT NULL OR u > 0 OR v > 0', points => 60);
INSERT INTO cents SELECT g, 1, 99999999999999999.99, 9223372036854775807 - g, timestamptz '2026-01-01Z' + g * interval '1 h' FROM generate_series(1, 10) g;
INSERT INTO cents SELECT g, 1, -99999999999999999.99, g - 9223372036854775807, timestamptz '2026-01-01Z' + g * interval '1 h' FROM generate_series(11, 40) g;
SELECT risk_alert.drain();
SELECT count(*), count(*) FILTER (WHERE (features->>'s')::numeric = s AND (features->>'u')::numeric = u AND (features->>'v')::numeric IS NOT DISTINCT FROM v)
FROM risk_alert.alerts a JOIN (
	SELECT id, sum(amount) OVER w AS s, sum(units) OVER w AS u, variance(units) OVER w AS v FROM cents
	WINDOW w AS (PARTITION BY who ORDER BY at RANGE BETWEEN interval '23:59:59.999999' PRECEDING AND CURRENT ROW)) c ON a.event_key = c.id::text
WHERE a.stream = 'odd_cents';
SELECT risk_alert.unwatch('odd_cents');

-- event times: NULL and infinite ones are skipped, counted and shown; the rows are in
INSERT INTO pay VALUES (41, 'time', 1, 1, NULL, NULL), (42, 'time', 1, 1, NULL, 'infinity'), (43, 'time', 1, 1, NULL, '-infinity');
SELECT count(*) FROM pay WHERE who = 'time';
SELECT event_key FROM scored(41);
SELECT skipped, last_skip FROM risk_alert.stat_streams WHERE stream = 'odd';
-- far past and future, years before Christ
INSERT INTO pay VALUES
	(44, 'time', 1, 1, NULL, '4713-01-01 00:00:00Z BC'), (45, 'time', 2, 1, NULL, '294276-12-31 23:59:59Z'),
	(46, 'time', 4, 1, NULL, '2026-01-01Z'), (47, 'time', 8, 1, NULL, '0001-01-01 00:00:00Z BC'), (48, 'time', 16, 1, NULL, '294276-12-31 12:00Z');
SELECT event_key, features->>'n' AS n, features->>'s' AS s FROM scored(44);
-- a NULL time that is corrected is history from then on
UPDATE pay SET at = '2026-01-01 00:00:01Z' WHERE id = 41;
UPDATE pay SET at = NULL WHERE id = 46;
INSERT INTO pay VALUES (49, 'time', 32, 1, NULL, '2026-01-01 00:00:02Z');
SELECT event_key, features->>'n' AS n, features->>'s' AS s FROM scored(49);

-- documents that to_jsonb() chokes on, columns we do not need
INSERT INTO pay VALUES (51, 'doc', 1, 1, '{"a": "\u0000"}', '2026-01-01Z');
INSERT INTO pay VALUES (52, '', 1, 1, NULL, '2026-01-01Z');
-- long and strange entities
INSERT INTO pay VALUES (53, 'a''b"c\d{e}%s' || chr(1) || chr(10) || 'ü€😀', 5000, 1, NULL, '2026-01-01Z');
SELECT event_key, features->>'n' AS n FROM scored(51);
SELECT entity = 'who=' || who, entity FROM risk_alert.alerts a JOIN pay p ON p.id::text = a.event_key WHERE a.stream = 'odd' AND event_key = '53';
SELECT risk_alert.alter_rule('odd', 'each', reason => 'by {who}');
-- 20 MB in a column that no rule uses, and megabytes in one that a rule does
INSERT INTO pay VALUES (54, 'doc', 1, 1, (SELECT to_json(repeat('x', 20 * 1024 * 1024))), '2026-01-01 00:00:01Z');
SELECT event_key, features->>'n' AS n FROM scored(54);
CREATE TABLE big (id int PRIMARY KEY, body text, at timestamptz);
SELECT risk_alert.watch('big', event_time => 'at', suppress => '0', name => 'odd_big');
SELECT risk_alert.create_rule('odd_big', 'long', 'length(body) > 5000 OR body LIKE ''%needle''', points => 60, reason => 'long or needle');
INSERT INTO big SELECT 1, repeat('x', 2 * 1024 * 1024), '2026-01-01Z';
INSERT INTO big SELECT 2, string_agg(md5(g::text), '') || 'needle', '2026-01-01Z' FROM generate_series(1, 3000) g;
INSERT INTO big SELECT 3, repeat('y', 9000) || 'needle', '2026-01-01Z';
INSERT INTO big VALUES (4, 'needle', '2026-01-01Z'), (5, '', '2026-01-01Z'), (6, NULL, '2026-01-01Z');
-- too large to be carried, and the row is gone or changed when the worker looks
BEGIN;
INSERT INTO big SELECT 7, string_agg(md5(g::text), '') || 'needle', '2026-01-01Z' FROM generate_series(1, 3000) g;
DELETE FROM big WHERE id = 7;
INSERT INTO big SELECT 8, string_agg(md5(g::text), '') || 'needle', '2026-01-01Z' FROM generate_series(1, 3000) g;
UPDATE big SET body = 'haystack' WHERE id = 8;
COMMIT;
SELECT risk_alert.drain();
SELECT event_key, score FROM risk_alert.alerts WHERE stream = 'odd_big' ORDER BY event_key::int;
SELECT skipped, last_skip FROM risk_alert.stat_streams WHERE stream = 'odd_big';
SELECT risk_alert.unwatch('odd_big');

-- keys of all kinds, as text in event_key
CREATE TABLE keys (a text, b uuid, c date, d numeric, at timestamptz, PRIMARY KEY (a, b, c, d));
SELECT risk_alert.watch('keys', event_time => 'at', suppress => '0', name => 'odd_keys');
SELECT risk_alert.create_rule('odd_keys', 'each', 'd > 0 OR d <= 0', points => 60);
INSERT INTO keys VALUES ('x, (y) "z"', '00000000-0000-0000-0000-000000000001', '2026-01-01', 1.50, '2026-01-01Z'),
	('', '00000000-0000-0000-0000-000000000001', '-infinity', 'NaN', '2026-01-01Z'),
	('x', '00000000-0000-0000-0000-000000000001', '2026-01-01', 1.5, '2026-01-01Z'),
	('x', '00000000-0000-0000-0000-000000000002', '2026-01-01', 1.5, '2026-01-01Z');
SELECT risk_alert.drain();
SELECT event_key FROM risk_alert.alerts WHERE stream = 'odd_keys' ORDER BY event_key COLLATE "C";
SELECT risk_alert.unwatch('odd_keys');

-- entities, keys and times that no index or interval has room for raise alerts and fold as others do
CREATE TABLE long (id bytea PRIMARY KEY, agent text, at timestamptz);
SELECT risk_alert.watch('long', event_time => 'at', suppress => '1 month 2 hours', name => 'odd_long');
CREATE FUNCTION agent(n int) RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(md5(g::text), '') || n FROM generate_series(1, 300) g $$;
CREATE INDEX ON long (md5(agent), at);
SELECT risk_alert.create_feature('odd_long', 'n', entity => 'agent', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_rule('odd_long', 'each', 'n > 0', points => 60, reason => 'agent {agent}');
INSERT INTO long
SELECT decode(string_agg(md5(g::text), ''), 'hex') || v.n::text::bytea, agent(v.agent), v.at::timestamptz
  FROM (VALUES (1, 1, '2026-01-01Z'), (2, 2, '2026-01-01Z'), (3, 1, '2026-01-31Z'), (4, 1, '2026-03-30Z'),
	(5, 3, '294276-12-31 23:59Z'), (6, 3, '294276-12-31 23:59Z'), (7, 3, '294276-12-20Z'),
	(8, 4, '4714-11-24 00:00Z BC'), (9, 4, '4714-11-24 00:00Z BC')) v (n, agent, at), generate_series(1, 150) g
 GROUP BY v.n, v.agent, v.at ORDER BY v.n;
SELECT risk_alert.drain();
SELECT octet_length(event_key) AS key, right(convert_from(decode(right(event_key, 2), 'hex'), 'UTF8'), 1) AS n, octet_length(entity) AS entity,
	right(entity, 1) AS agent, event_time AT TIME ZONE 'UTC' AS time, events, length(reasons->0->>'text') AS reason
  FROM risk_alert.alerts WHERE stream = 'odd_long' ORDER BY right(event_key, 2);
SELECT count(*), count(DISTINCT e.event_id), min(length(e.event_id)), max(length(e.event_id))
  FROM risk_alert.alert_event e JOIN risk_alert.alert a USING (alert_id) WHERE a.stream = 'odd_long';
SELECT skipped, last_skip FROM risk_alert.stat_streams WHERE stream = 'odd_long';
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT FROM risk_alert.alert
 WHERE stream_id = 1 AND hashtextextended(entity, 0) = hashtextextended('e', 0) AND entity = 'e' AND lead_rule = 'r'
   AND status <> 'resolved' AND event_time > '2026-01-01' ORDER BY event_time DESC LIMIT 1;
RESET enable_seqscan;
SELECT risk_alert.unwatch('odd_long');
SELECT event_key = risk_alert._event_id(event_key) AS plain, length(risk_alert._event_id(event_key)) AS length
  FROM (VALUES (''), (repeat('x', 63)), (repeat('x', 64)), (repeat('x', 1000000))) v (event_key);

SELECT risk_alert.unwatch('odd');
DELETE FROM risk_alert.alert WHERE stream ~ '^odd';
DROP SCHEMA odd CASCADE;
