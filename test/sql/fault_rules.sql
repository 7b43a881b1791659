--
-- F7, F8: rules that fail, that lose what they need, that take too long.  Each
-- is set aside by itself and shown with its error; others go on, and no event
-- is lost.
--
SET client_min_messages = warning;
CREATE SCHEMA faulty;
SET search_path = faulty;
CREATE ROLE faulty_author;
GRANT risk_alert_admin TO faulty_author;
GRANT ALL ON SCHEMA faulty TO faulty_author;
CREATE TABLE pay (id int PRIMARY KEY, card int, amount numeric(12,2), at timestamptz);
CREATE INDEX ON pay (card, at);
GRANT ALL ON pay TO faulty_author;
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'faulty');
SELECT risk_alert.create_feature('faulty', 'n', entity => 'card', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_rule('faulty', 'good', 'amount > 100', points => 50);

CREATE FUNCTION scored(from_id int) RETURNS TABLE (event_key text, score int, rules text[]) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT risk_alert.drain('60 s') THEN
		RAISE 'not drained';
	END IF;
	RETURN QUERY SELECT a.event_key, a.score, a.rules FROM risk_alert.alerts a
	WHERE a.stream = 'faulty' AND a.event_key::int >= from_id ORDER BY a.event_key::int;
END $$;
CREATE FUNCTION stats() RETURNS TABLE (rule text, evaluated bigint, fired bigint, errors bigint, last_error text, suspended bool, suspended_for text)
LANGUAGE sql AS $$
	SELECT s.rule, s.evaluated, s.fired, s.errors, s.last_error, s.suspended_at IS NOT NULL, s.suspended_for
	FROM risk_alert.stat_rules s WHERE s.stream = 'faulty' ORDER BY s.rule
$$;

-- an error for some events
SELECT risk_alert.create_rule('faulty', 'divides', '100 / (amount - 200) > 0', points => 20);
INSERT INTO pay VALUES (1, 1, 150, '2026-01-01 10:00Z'), (2, 1, 200, '2026-01-01 10:01Z'), (3, 1, 250, '2026-01-01 10:02Z');
SELECT * FROM scored(1);
SELECT * FROM stats();
-- ... and for a whole batch of them: nothing is lost
INSERT INTO pay SELECT g, g, 200, timestamptz '2026-01-01Z' + g * interval '1 s' FROM generate_series(1000, 1049) g;
SELECT count(*), sum(score) FROM scored(1000);
SELECT * FROM stats();

-- the error goes away
INSERT INTO pay VALUES (1050, 1, 250, '2026-01-01 10:03Z');
SELECT * FROM scored(1050);
SELECT rule, errors, errors_in_row FROM risk_alert.stat_rules WHERE stream = 'faulty' AND rule = 'divides';

-- errors in a row suspend the rule (risk_alert.rule_error_limit, 100 by default)
INSERT INTO pay SELECT g, g, 200, timestamptz '2026-01-01Z' + g * interval '1 s' FROM generate_series(1101, 1250) g;
SELECT count(*), sum(score) FROM scored(1101);
SELECT * FROM stats() WHERE rule = 'divides';
SELECT level, object, description FROM risk_alert.check_setup() WHERE object ~ 'divides';
INSERT INTO pay VALUES (1300, 1, 250, '2026-01-01 10:04Z');
SELECT * FROM scored(1300);
-- ... until it is altered
SELECT risk_alert.alter_rule('faulty', 'divides', condition => '100 / nullif(amount - 200, 0) > 0');
INSERT INTO pay VALUES (1301, 1, 250, '2026-01-01 10:05Z'), (1302, 1, 200, '2026-01-01 10:05Z');
SELECT * FROM scored(1301);
SELECT rule, suspended FROM stats() WHERE rule = 'divides';
SELECT risk_alert.drop_rule('faulty', 'divides');

-- NULL is not true, and no error
SELECT risk_alert.create_rule('faulty', 'null', 'amount > NULL', points => 20);
INSERT INTO pay VALUES (1400, 1, 250, '2026-01-01 10:06Z'), (1401, 1, NULL, '2026-01-01 10:07Z'), (1402, NULL, 250, '2026-01-01 10:08Z');
SELECT * FROM scored(1400);
SELECT rule, evaluated, fired, errors FROM stats();
SELECT risk_alert.drop_rule('faulty', 'null');

-- rules that use a function: dropping it is refused
CREATE FUNCTION risky(amount numeric) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 100';
SELECT risk_alert.create_rule('faulty', 'calls', 'risky(amount)', points => 20);
INSERT INTO pay VALUES (1500, 1, 250, '2026-01-01 10:09Z');
SELECT * FROM scored(1500);
DROP FUNCTION risky(numeric);
-- renamed, moved to another schema, altered: the rule follows
ALTER FUNCTION risky(numeric) RENAME TO "Risky!";
CREATE SCHEMA faulty_too;
ALTER FUNCTION "Risky!"(numeric) SET SCHEMA faulty_too;
INSERT INTO pay VALUES (1501, 1, 250, '2026-01-01 10:09Z');
SELECT * FROM scored(1501);
SELECT condition FROM risk_alert.rules WHERE stream = 'faulty' AND rule = 'calls';
-- altered: it may fail now
CREATE OR REPLACE FUNCTION faulty_too."Risky!"(amount numeric) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'no idea'; END $$;
INSERT INTO pay VALUES (1502, 1, 250, '2026-01-01 10:09Z');
SELECT * FROM scored(1502);
SELECT rule, errors, last_error FROM stats() WHERE errors > 0;
-- an exception block in a function, and its sub-transactions
CREATE OR REPLACE FUNCTION faulty_too."Risky!"(amount numeric) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN 1 / (amount - amount) > 0;
EXCEPTION WHEN division_by_zero THEN
	RETURN amount > 100;
END $$;
INSERT INTO pay VALUES (1503, 1, 250, '2026-01-01 10:09Z');
SELECT * FROM scored(1503);
SELECT risk_alert.drop_rule('faulty', 'calls');
DROP SCHEMA faulty_too CASCADE;

-- a function that loses the right to be called, by the rule's owner
CREATE FUNCTION guarded(amount numeric) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 100';
REVOKE ALL ON FUNCTION guarded FROM PUBLIC;
GRANT EXECUTE ON FUNCTION guarded TO faulty_author;
SET ROLE faulty_author;
SELECT risk_alert.create_rule('faulty', 'guarded', 'faulty.guarded(amount)', points => 20);
RESET ROLE;
INSERT INTO pay VALUES (1600, 1, 250, '2026-01-01 10:10Z');
SELECT * FROM scored(1600);
REVOKE ALL ON FUNCTION guarded FROM faulty_author;
INSERT INTO pay VALUES (1601, 1, 250, '2026-01-01 10:10Z');
SELECT * FROM scored(1601);
SELECT level, object, description, detail FROM risk_alert.check_setup() WHERE object ~ 'guarded';
GRANT EXECUTE ON FUNCTION guarded TO faulty_author;
SELECT risk_alert.alter_rule('faulty', 'guarded', points => 30);

-- a function that does what a rule must not: it runs with its owner's rights,
-- in a security-restricted operation
SET ROLE faulty_author;
CREATE FUNCTION takes_over(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$
BEGIN
	ALTER ROLE faulty_author SUPERUSER;
	RETURN true;
END $$;
CREATE FUNCTION resets(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN RESET ROLE; RETURN current_user <> 'faulty_author'; END $$;
CREATE FUNCTION reads(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT count(*) FROM pg_authid) > 0; END $$;
CREATE FUNCTION locks(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_advisory_lock(4711); RETURN true; END $$;
CREATE FUNCTION sets(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN SET search_path = nowhere; RETURN true; END $$;
CREATE FUNCTION who(amount numeric) RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_user || ' ' || current_setting('search_path') $$;
SELECT risk_alert.create_rule('faulty', 'bad ' || f, format('faulty.%s(amount)', f), points => 1)
FROM unnest('{takes_over,resets,reads,locks,sets}'::text[]) f;
SELECT risk_alert.create_rule('faulty', 'who', 'faulty.who(amount) = ''faulty_author pg_catalog, pg_temp''', points => 30);
RESET ROLE;
INSERT INTO pay VALUES (1700, 1, 250, '2026-01-01 10:11Z'), (1701, 1, 250, '2026-01-01 10:11Z');
SELECT * FROM scored(1700);
SELECT rule, fired, errors, last_error FROM stats() WHERE rule ~ '^bad|who';
SELECT rolsuper FROM pg_roles WHERE rolname = 'faulty_author';
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711;
SELECT risk_alert.drop_rule('faulty', rule) FROM risk_alert.rules WHERE stream = 'faulty' AND rule ~ '^bad|who';

-- a rule that takes too long is cut at risk_alert.rule_timeout (100 ms), and
-- suspended when it goes on like that; no batch waits for it longer
ALTER SYSTEM SET risk_alert.rule_error_limit = 3;
SELECT pg_reload_conf();
-- (a worker that starts now knows of it for sure)
SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'risk_alert worker' AND datname = current_database();
CREATE FUNCTION sleeps(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep(60); RETURN true; END $$;
CREATE FUNCTION loops(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN LOOP END LOOP; END $$;
CREATE FUNCTION swallows(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(60);
		EXCEPTION WHEN query_canceled OR OTHERS THEN
			NULL;
		END;
		EXIT;
	END LOOP;
	RETURN true;
END $$;
SELECT risk_alert.create_rule('faulty', 'slow ' || f, format('faulty.%s(amount)', f), points => 20)
FROM unnest('{sleeps,loops,swallows}'::text[]) f;
INSERT INTO pay SELECT 1800 + g, g, 250, timestamptz '2026-01-01 11:00Z' + g * interval '1 s' FROM generate_series(1, 20) g;
SELECT count(*), min(score), max(score) FROM scored(1800);
SELECT rule, fired, errors, last_error, suspended, suspended_for FROM stats() WHERE rule ~ '^slow';
SELECT risk_alert.drop_rule('faulty', rule) FROM risk_alert.rules WHERE stream = 'faulty' AND rule ~ '^slow';
ALTER SYSTEM RESET risk_alert.rule_error_limit;
SELECT pg_reload_conf();

-- the same rules when a session asks
SELECT risk_alert.create_rule('faulty', 'divides', '100 / (amount - 200) > 0', points => 20);
SELECT score, reasons FROM risk_alert.risk_assess('faulty', '{"id": 9, "card": 1, "amount": 200, "at": "2026-01-01 10:00Z"}');
-- ... in which a rule is never suspended, however often it fails
SELECT count(risk_alert.risk_score('faulty', '{"id": 9, "card": 1, "amount": 200, "at": "2026-01-01 10:00Z"}')) FROM generate_series(1, 120);
SELECT risk_alert.risk_score('faulty', '{"id": 9, "card": 1, "amount": 250, "at": "2026-01-01 10:00Z"}');
SELECT risk_alert.drop_rule('faulty', 'divides');

-- what is not the rule's failure ends the session's statement, also when the
-- rule, or the feature, has failed before
CREATE FUNCTION fails(amount numeric) RETURNS numeric LANGUAGE plpgsql STABLE AS $$
BEGIN
	CASE amount
		WHEN 1 THEN RAISE 'just so';
		WHEN 2 THEN PERFORM pg_sleep(60);
		WHEN 3 THEN RAISE 'full' USING ERRCODE = 'disk_full';
		WHEN 4 THEN RAISE 'dead' USING ERRCODE = 'deadlock_detected';
		WHEN 5 THEN RAISE 'broken' USING ERRCODE = 'io_error';
		ELSE RETURN amount;
	END CASE;
END $$;
CREATE FUNCTION score_of(amount numeric) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN risk_alert.risk_score('faulty', jsonb_build_object('id', 9, 'card', 9, 'amount', amount, 'at', '2025-01-01Z'));
EXCEPTION WHEN OTHERS OR query_canceled THEN
	RETURN SQLERRM;
END $$;
SELECT risk_alert.create_rule('faulty', 'fails', 'faulty.fails(amount) > 0', points => 20);
SELECT score_of(200), score_of(1), score_of(3), score_of(4), score_of(5), score_of(200);
SET statement_timeout = '200ms';
SELECT score_of(2);
RESET statement_timeout;
SELECT score_of(200);
SELECT risk_alert.drop_rule('faulty', 'fails');
ALTER FUNCTION fails(numeric) IMMUTABLE;
SELECT risk_alert.create_feature('faulty', 'fails', entity => 'card', aggregate => 'sum(faulty.fails(amount))', within => '1 day', include_current => true);
SELECT risk_alert.create_rule('faulty', 'fails', 'fails > 0', points => 20);
SELECT score_of(200), score_of(1), score_of(3), score_of(4), score_of(5), score_of(200);
SET statement_timeout = '200ms';
SELECT score_of(2);
RESET statement_timeout;
SELECT score_of(200);
SELECT risk_alert.drop_rule('faulty', 'fails');
SELECT risk_alert.drop_feature('faulty', 'fails');

-- errors in a feature's value or filter

-- errors in a feature's value or filter
SELECT risk_alert.create_feature('faulty', 'inverse', entity => 'card', aggregate => 'sum(1 / (amount - 7))', within => '1 day');
SELECT risk_alert.create_feature('faulty', 'inverse_n', entity => 'card', aggregate => 'count(*)', within => '1 day', filter => '1 / (amount - 7) > 0');
SELECT risk_alert.create_rule('faulty', 'inverse', 'inverse > 0 OR inverse_n > 0', points => 20);
INSERT INTO pay VALUES (1900, 50, 8, '2026-01-01 10:12Z'), (1901, 50, 7, '2026-01-01 10:13Z'), (1902, 50, 500, '2026-01-01 10:14Z');
SELECT * FROM scored(1900);
SELECT features->'inverse_n' AS inverse_n, features->'n' AS n FROM risk_alert.alerts WHERE stream = 'faulty' AND event_key = '1902';
SELECT risk_alert.drop_rule('faulty', 'inverse');
SELECT risk_alert.drop_feature('faulty', 'inverse');
SELECT risk_alert.drop_feature('faulty', 'inverse_n');

-- the budget is each evaluation's, not that of all features of a batch together
ALTER SYSTEM SET risk_alert.rule_timeout = '20ms';
SELECT pg_reload_conf();
CREATE FUNCTION heavy(amount numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN FOR i IN 1 .. 1500 LOOP END LOOP; RETURN amount; END $$;
SELECT risk_alert.create_feature('faulty', 'heavy', entity => 'card', aggregate => 'sum(faulty.heavy(amount))', within => '1 day');
SELECT risk_alert.create_rule('faulty', 'heavy', 'heavy = 5000', points => 20);
INSERT INTO pay SELECT 10000 + g, 60, 1, timestamptz '2026-01-02Z' + g * interval '1 s' FROM generate_series(1, 4999) g;
INSERT INTO pay VALUES (20000, 60, 1, '2026-01-02 12:00Z');
SELECT risk_alert.drain('60 s');
SELECT fired, errors FROM stats() WHERE rule = 'heavy';
SELECT last_skip FROM risk_alert.stat_streams WHERE stream = 'faulty';
SELECT risk_alert.drop_rule('faulty', 'heavy');
SELECT risk_alert.drop_feature('faulty', 'heavy');
ALTER SYSTEM RESET risk_alert.rule_timeout;
SELECT pg_reload_conf();

-- the owner of a rule loses the role, or goes altogether
\set VERBOSITY terse
DROP ROLE faulty_author;
\set VERBOSITY default
REVOKE risk_alert_admin FROM faulty_author;
INSERT INTO pay VALUES (2000, 1, 250, '2026-01-01 10:15Z');
SELECT * FROM scored(2000);
DROP OWNED BY faulty_author;
DROP ROLE faulty_author;
INSERT INTO pay VALUES (2001, 1, 250, '2026-01-01 10:16Z');
SELECT * FROM scored(2001);
SELECT level, object FROM risk_alert.check_setup() WHERE object ~ 'guarded';

SELECT risk_alert.drop_rule('faulty', 'guarded');

-- a reason shows what is not there as "null"
SELECT risk_alert.alter_rule('faulty', 'good', reason => 'card {card}: {amount} at {at}, {n} so far, {{not a column}}');
INSERT INTO pay VALUES (2100, NULL, 250, '2026-01-01 10:17Z');
SELECT * FROM scored(2100);
SELECT reasons FROM risk_alert.alerts WHERE stream = 'faulty' AND event_key = '2100';

-- an event as JSON is read by the table's columns as they are now
SELECT risk_alert.risk_score('faulty', '{"id": 9, "amount": 1, "at": "2026-01-01Z", "note": "x"}');
ALTER TABLE pay ADD COLUMN note text;
SELECT risk_alert.create_rule('faulty', 'noted', 'note = ''x''', points => 20);
SELECT risk_alert.risk_score('faulty', '{"id": 9, "amount": 1, "at": "2026-01-01Z", "note": "x"}');
-- ... also when a constraint of a domain scores another one meanwhile
CREATE FUNCTION scores(int) RETURNS bool LANGUAGE sql AS $$
	SELECT risk_alert.risk_score('faulty', '{"id": 9, "amount": 101, "at": "2026-01-01Z", "note": "x"}') = $1
$$;
CREATE DOMAIN scoring AS int CHECK (faulty.scores(VALUE));
CREATE TABLE pay_too (id int PRIMARY KEY, a scoring, b scoring, amount numeric, at timestamptz);
SELECT risk_alert.watch('pay_too', event_time => 'at');
SELECT risk_alert.create_rule('pay_too', 'sum', 'a + b + amount = 180', points => 30);
SELECT risk_alert.risk_score('pay_too', '{"id": 1, "a": 70, "b": 70, "amount": 40, "at": "2026-01-01Z"}') FROM generate_series(1, 2);

-- planning evaluates what is constant: it can't score meanwhile, and such a rule is broken
CREATE FUNCTION scores_other(int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$
	SELECT risk_alert.risk_score('pay_too', '{"id": 1, "a": 70, "b": 70, "amount": 40, "at": "2026-01-01Z"}') >= 0
$$;
SELECT risk_alert.create_rule('faulty', 'folds', 'amount > 100 AND faulty.scores_other(1)', points => 5);
INSERT INTO pay_too VALUES (1, 70, 70, 40, '2026-01-01Z');
INSERT INTO pay VALUES (2200, 1, 250, '2026-01-01 10:18Z');
SELECT * FROM scored(2200);
SELECT risk_alert.alter_stream('pay_too', review_at => 20);
INSERT INTO pay VALUES (2201, 1, 250, '2026-01-01 10:18Z');
INSERT INTO pay_too VALUES (2, 70, 70, 40, '2026-01-01Z');
SELECT risk_alert.alter_stream('faulty', review_at => 20);
INSERT INTO pay VALUES (2202, 1, 250, '2026-01-01 10:18Z');
INSERT INTO pay_too VALUES (3, 70, 70, 40, '2026-01-01Z');
SELECT * FROM scored(2201);
SELECT risk_alert.risk_score('faulty', '{"id": 9, "card": 1, "amount": 250, "at": "2026-01-01Z"}');
SELECT risk_alert.drop_rule('faulty', 'folds');
SELECT risk_alert.unwatch('pay_too');

-- a rule whose function scores an event fails, in the worker and in a session
CREATE FUNCTION asks(amount numeric) RETURNS bool LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN risk_alert.risk_score('faulty', '{"id": 9, "card": 1, "amount": 1, "at": "2026-01-01Z"}') = 0;
END $$;
SELECT risk_alert.create_rule('faulty', 'asks', 'faulty.asks(amount)', points => 20);
INSERT INTO pay VALUES (2300, 1, 250, '2026-01-01 10:19Z');
SELECT * FROM scored(2300);
SELECT rule, errors, last_error FROM stats() WHERE rule = 'asks';
SELECT risk_alert.risk_score('faulty', '{"id": 9, "card": 1, "amount": 250, "at": "2026-01-01Z"}');
SELECT risk_alert.drop_rule('faulty', 'asks');

-- a feature that has lost what it uses takes its rules with it, those made of it later, too, and says so
CREATE FUNCTION doubled(amount numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
SELECT risk_alert.create_feature('faulty', 'doubled', entity => 'card', aggregate => 'sum(faulty.doubled(amount))', within => '1 day');
SELECT risk_alert.create_rule('faulty', 'by condition', 'doubled > 0', points => 20);
SELECT risk_alert.create_rule('faulty', 'by reason', 'amount > 1', points => 20, reason => 'of {doubled}');
DROP FUNCTION doubled CASCADE;
SELECT risk_alert.alter_stream('faulty');
SELECT risk_alert.create_rule('faulty', 'later', 'doubled > 1');
INSERT INTO pay VALUES (2400, 1, 250, '2026-01-01 10:20Z');
SELECT * FROM scored(2400);
SELECT level, name, object, detail FROM risk_alert.check_setup() WHERE object ~ '^faulty.' AND level = 'error' ORDER BY object COLLATE "C";
SELECT detail FROM risk_alert.check_setup() WHERE object = 'faulty' AND name IN ('rules', 'thresholds');
SET client_min_messages = error;
SELECT risk_alert.drop_rule('faulty', r) FROM unnest('{by condition,by reason,later}'::text[]) r;
SELECT risk_alert.drop_feature('faulty', 'doubled');
SET client_min_messages = warning;
SELECT count(*) FROM risk_alert.check_setup() WHERE object ~ '^faulty.' AND level = 'error';

-- a session keeps no plans of rule sets that are gone
CREATE PROCEDURE score_after_changes(n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		EXECUTE format('ALTER TABLE faulty.pay ALTER amount SET STATISTICS %s', i);
		PERFORM risk_alert.risk_score('faulty', '{"id": 9, "card": 4711, "amount": 1, "at": "2026-01-01Z"}');
		COMMIT;
	END LOOP;
END $$;
SET search_path = faulty, pg_catalog;
CALL score_after_changes(5);
SELECT count(*) AS plans FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource' \gset
CALL score_after_changes(20);
SELECT count(*) - :plans AS more_plans FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource';

SELECT risk_alert.unwatch('faulty');
DELETE FROM risk_alert.alert WHERE stream = 'faulty';
DROP SCHEMA faulty CASCADE;
