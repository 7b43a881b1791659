--
-- Rules that are ruled out by index (guard.c): the same ones fire, fail and are
-- counted as if each were evaluated for each event.
--
SET client_min_messages = warning;
CREATE SCHEMA guarded;
SET search_path = guarded;
SET timezone = 'UTC';
CREATE DOMAIN small AS int;
CREATE TABLE pay (id int PRIMARY KEY, card int NOT NULL, at timestamptz NOT NULL, flag bool,
                  i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, num numeric, d date, ts timestamp, tz timestamptz,
                  t text, vc varchar(9), c char(4), dom small, u uuid, tm time, amount numeric(9,2));
CREATE INDEX ON pay (card, at);
CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE ROLE guarded_a IN ROLE risk_alert_admin;
CREATE ROLE guarded_b IN ROLE risk_alert_admin;
GRANT ALL ON SCHEMA guarded TO guarded_a, guarded_b;
GRANT ALL ON pay TO guarded_a, guarded_b;

SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'guarded');
SELECT risk_alert.create_feature('guarded', 'n', entity => 'card', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_feature('guarded', 'highest', entity => 'card', aggregate => 'max(f8)', within => '1 day',
                                 filter => 'i4 > 0');

-- Values at, between and beyond the thresholds, and those with an order of their own
CREATE FUNCTION value(type text, n int) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT v[1 + n % array_length(v, 1)] FROM (VALUES
        ('i', ARRAY['0', NULL, '5', '4', '-7', '6', '30000', '12', '-30000']),
        ('f', ARRAY['0', '-0', NULL, '5', '4.999', 'NaN', 'Infinity', '-Infinity', '5.5', '12', '1e-30']),
        ('num', ARRAY['0', NULL, '5', '5.000', 'NaN', 'Infinity', '-Infinity', '4.99999999999', '12', '-7']),
        ('d', ARRAY['2026-01-05', NULL, '2026-01-06', 'infinity', '-infinity', '1900-01-01', '2026-01-12']),
        ('ts', ARRAY['2026-01-05', '2026-01-05 00:00:00.000001', NULL, 'infinity', '2026-01-12', '-infinity', '0044-03-15 BC']),
        ('t', ARRAY['5', NULL, '', ' 5', '5 ', 'ab', 'AB', 'a', 'abc', repeat('ab', 9)]),
        ('c', ARRAY['ab', NULL, '', '5', '5 ', 'abc', 'AB']),
        ('u', ARRAY['00000000-0000-0000-0000-000000000005', NULL, 'ffffffff-0000-0000-0000-000000000000']),
        ('tm', ARRAY['05:00', '24:00', NULL, '00:00', '12:00'])) AS x (name, v)
     WHERE name = type
$$;

CREATE TABLE rule (name text PRIMARY KEY, condition text, plain text, status text, owner text);
-- every operator and side over every type
INSERT INTO rule (name, condition)
SELECT format('r%s', lpad(row_number() OVER (ORDER BY col, op, k)::text, 3, '0')),
       CASE WHEN k = 2 THEN format('%L::%s %s %s', thresholds[k], type, op, col)
            ELSE format('%s %s %L::%s', col, op, thresholds[k], type) END
  FROM (VALUES ('i2', 'int2', ARRAY['5', '0']), ('i2', 'int8', ARRAY['5', '40000']), ('i4', 'int4', ARRAY['5', '-7']),
               ('i8', 'int4', ARRAY['5', '12']), ('f4', 'float4', ARRAY['5', 'NaN']), ('f8', 'float8', ARRAY['0', '5']),
               ('f8', 'float4', ARRAY['NaN', '-Infinity']), ('num', 'numeric', ARRAY['5', 'NaN']),
               ('d', 'date', ARRAY['2026-01-05', 'infinity']), ('ts', 'timestamp', ARRAY['2026-01-05', 'infinity']),
               ('d', 'timestamp', ARRAY['2026-01-05', '2026-01-05 12:00']), ('tz', 'timestamptz', ARRAY['2026-01-05Z', '-infinity']),
               ('tz', 'date', ARRAY['2026-01-05', '2026-01-12']), ('dom', 'int', ARRAY['5', '4']),
               ('n', 'int', ARRAY['3', '5']), ('highest', 'float8', ARRAY['5', 'Infinity']), ('tm', 'time', ARRAY['05:00', '12:00'])
       ) AS x (col, type, thresholds), unnest(ARRAY['<', '<=', '=', '>=', '>']) op, generate_series(1, 2) k
 WHERE k = 1 OR op <> '=';
-- what else can be a guard, stand before one, or behind it
INSERT INTO rule (name, condition) SELECT format('s%s', lpad(n::text, 3, '0')), condition FROM unnest(ARRAY[
    $$t = '5'$$, $$t = 'ab' AND i4 > 4$$, $$'' = t$$, $$t = '5 '$$, $$t IN ('a', 'abc', 'none')$$, $$t IN ('a', NULL)$$, $$t = 'ab' COLLATE loose$$,
    $$t = 'AB' COLLATE loose$$, $$t > 'aa'$$, $$t <> 'ab' AND i4 = 5$$, $$t = ANY ('{}') OR i4 = 4$$, $$t = ANY ('{}')$$,
    $$vc = 'ab'$$, $$vc = '5'::varchar AND flag$$, $$vc IN ('AB', 'a')$$, $$vc IN ('5', ' 5') AND vc <> '5'$$, $$vc = ''$$,
    $$c = 'ab'$$, $$c = '5   '$$, $$c IN ('abc', 'AB')$$, $$c = ''$$, $$c = 'none' OR c = 'ab'$$,
    $$u = '00000000-0000-0000-0000-000000000005'$$, $$u > '00000000-0000-0000-0000-000000000005'$$,
    $$u < 'ffffffff-0000-0000-0000-000000000000' AND u IS NOT NULL$$, $$u IN ('ffffffff-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000001')$$,
    $$flag AND i4 = 6$$, $$NOT flag AND i4 <= 5$$, $$flag IS NOT TRUE AND i4 IN (4, 5, 12)$$, $$t IS NULL AND i4 > 0$$,
    $$i4 > -10 AND i4 = 12$$, $$i4 BETWEEN 4 AND 5$$, $$i4 BETWEEN SYMMETRIC 6 AND 4$$, $$i4 <> 5 AND i4 >= 4$$, $$NOT i4 > 5$$, $$i4 IN (4, 5, 5, 6)$$,
    $$i4 NOT IN (4, 5)$$, $$i4 > ANY (ARRAY[4, 100])$$, $$i4 = ALL (ARRAY[5])$$, $$i4 IN (5, NULL) AND i8 > 0$$, $$i4 = i8$$, $$i4 + 1 > 5$$,
    $$(i4 > 4 AND i8 > 4) AND t = 'ab'$$, $$i4 > 4 OR i8 > 4$$, $$i4 = 5 AND NULL::bool$$, $$i4 IS DISTINCT FROM 5$$, $$i4 > NULL$$, $$true$$,
    $$n = 2 AND highest > 0$$, $$highest <> 5 AND n >= 3$$, $$n IN (1, 4)$$, $$highest IS NULL AND n > 1$$, $$highest = f8 AND n > 2$$,
    $$i4 > 5.5$$, $$f4 = 4.999$$, $$num = 4.99999999999 AND amount > 0$$, $$date '2026-01-05' = ts$$, $$tz = timestamp '2026-01-05'$$
    ]) WITH ORDINALITY AS x (condition, n);
UPDATE rule SET plain = condition;
-- 1 / (id - id) fails: where the guard is false it must not be reached, where it is true or null it must
INSERT INTO rule (name, condition, plain) SELECT format('x%s', n), condition, split_part(condition, ' AND 1 ', 1) FROM unnest(ARRAY[
    'i4 > 5 AND 1 / (id - id) > 0', 'i4 = 4 AND 1 / (id - id) > 0', 'highest < 0 AND 1 / (id - id) > 0', 'i4 IN (4, 5) AND 1 / (id - id) > 0',
    'flag AND i4 < 0 AND 1 / (id - id) > 0', 't = ''ab'' AND 1 / (id - id) > 0', 'f8 >= ''NaN'' AND 1 / (id - id) > 0'
    ]) WITH ORDINALITY AS x (condition, n);
UPDATE rule SET owner = (ARRAY['guarded_a', 'guarded_b'])[1 + abs(hashtext(name)) % 2],
                status = (ARRAY['active', 'active', 'shadow'])[1 + abs(hashtext(name || 's')) % 3];
UPDATE rule SET status = 'active' WHERE name = 's048';
GRANT SELECT ON rule TO guarded_a, guarded_b;
BEGIN;
SET LOCAL ROLE guarded_a;
SELECT count(risk_alert.create_rule('guarded', name, condition, points => 50, status => status)) > 50 AS made FROM rule WHERE owner = 'guarded_a';
SET LOCAL ROLE guarded_b;
SELECT count(risk_alert.create_rule('guarded', name, condition, points => 50, status => status)) > 50 AS made FROM rule WHERE owner = 'guarded_b';
COMMIT;
SELECT object, description FROM risk_alert.check_setup() WHERE object LIKE 'guarded.%' AND level NOT IN ('info', 'ok') ORDER BY 1;

CREATE PROCEDURE more(first int, last int, step int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN first..last BY step LOOP
    INSERT INTO pay
    SELECT id, id % 3, timestamptz '2026-01-05 12:00Z' + id * interval '1 second', (ARRAY[true, false, NULL])[1 + id / 2 % 3],
           value('i', id)::int2, value('i', id / 2)::int4, value('i', id / 3)::int8, value('f', id)::float4, value('f', id / 2)::float8,
           value('num', id)::numeric, value('d', id)::date, value('ts', id)::timestamp, (value('ts', id / 2) || ' UTC')::timestamptz,
           value('t', id), left(value('t', id / 2), 9), value('c', id), value('i', id + 1)::int, value('u', id)::uuid, value('tm', id)::time, id
      FROM generate_series(i, i + step - 1) id ORDER BY id;
    COMMIT;
    IF NOT risk_alert.drain('60 s') THEN
        RAISE 'not drained';
    END IF;
  END LOOP;
END $$;

-- What each condition is for each event, by plain SQL
CREATE FUNCTION plainly() RETURNS TABLE (id int, name text, holds bool) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE (
        SELECT format('SELECT event.id, r.* FROM (SELECT *, count(*) OVER w AS n, max(f8) FILTER (WHERE i4 > 0) OVER w AS highest'
                      ' FROM guarded.pay WINDOW w AS (PARTITION BY card ORDER BY at)) event, LATERAL (VALUES %s) r',
                      string_agg(format('(%L, (%s)::bool)', r.name, r.plain), ', ')) FROM rule r);
END $$;
CREATE FUNCTION differences() RETURNS TABLE (what text, rule text, condition text, events int, example int, got text, want text) LANGUAGE sql AS $$
    WITH plain AS MATERIALIZED (SELECT p.*, status, name ~ 'x' AS failing FROM plainly() p JOIN rule USING (name)),
    counted AS (
        SELECT name, count(*) AS evaluated, count(*) FILTER (WHERE holds AND NOT failing) AS fired,
               count(*) FILTER (WHERE holds IS NOT FALSE AND failing) AS errors
          FROM plain GROUP BY name),
    fired AS MATERIALIZED (
        SELECT 'alerts' AS source, event_key::int AS id, unnest(rules) AS name FROM risk_alert.alerts WHERE stream = 'guarded'
         UNION ALL
        SELECT 'risk_assess', id, r ->> 'rule' FROM pay, risk_alert.risk_assess(pay), jsonb_array_elements(reasons) r),
    wrong AS (
        SELECT source, id, name, fired.name IS NOT NULL AS got, p.name IS NOT NULL AS want
          FROM fired FULL JOIN (SELECT source, plain.id, name FROM plain, (VALUES ('alerts'), ('risk_assess')) s (source)
                                 WHERE holds AND NOT failing AND status = 'active') p USING (source, id, name)
         WHERE fired.name IS NULL OR p.name IS NULL)
    SELECT 'stat_rules', name, rule.condition, NULL::int, NULL::int,
           format('%s %s %s', s.evaluated, s.fired, s.errors), format('%s %s %s', c.evaluated, c.fired, c.errors)
      FROM rule JOIN counted c USING (name) JOIN risk_alert.stat_rules s ON s.stream = 'guarded' AND s.rule = name
     WHERE (s.evaluated, s.fired, s.errors) IS DISTINCT FROM (c.evaluated, c.fired, c.errors)
    UNION ALL
    SELECT source, name, condition, count(*)::int, min(id), got::text, want::text
      FROM wrong JOIN rule USING (name) GROUP BY source, name, condition, got, want
    ORDER BY 1, 2 LIMIT 20
$$;

-- claim: what fires, fails and is counted is as in plain SQL, in one batch ...
CALL more(1, 150, 150);
SELECT count(*) AS rules, sum(fired) > 1000 AS fired, sum(errors) > 100 AS errors, min(evaluated), max(evaluated)
  FROM risk_alert.stat_rules WHERE stream = 'guarded';
SELECT * FROM differences();

-- claim: ... and in small ones
CALL more(151, 180, 1);
SELECT * FROM differences();

-- claim: a rule that is not used for a while is counted for the events it has seen
SELECT risk_alert.alter_rule('guarded', 'r001', status => 'draft');
CALL more(181, 190, 10);
SELECT risk_alert.alter_rule('guarded', 'r001', status => 'active');
CALL more(191, 200, 10);
SELECT rule, evaluated FROM risk_alert.stat_rules WHERE stream = 'guarded' AND rule IN ('r001', 'r002') ORDER BY 1;

SELECT risk_alert.unwatch('guarded');
DROP SCHEMA guarded CASCADE;
DROP ROLE guarded_a, guarded_b;
