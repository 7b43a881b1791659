--
-- A trigger of the table that changes the row again before ours has fired: what it
-- does is captured first.  The row is scored, and counted, as it ends up.
--
SET client_min_messages = warning;
CREATE SCHEMA nested;
SET search_path = nested;
CREATE TABLE pay (id bigint PRIMARY KEY, card int NOT NULL, amount numeric(12,2), note text, at timestamptz NOT NULL);
CREATE INDEX ON pay (card, at);
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'nested');
SELECT risk_alert.create_feature('nested', 'n', entity => 'card', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_feature('nested', 'total', entity => 'card', aggregate => 'sum(amount)', within => '1 day');
SELECT risk_alert.create_rule('nested', 'each', 'n >= 1', points => 60, reason => '{amount}: {n} of {total}');
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	CASE NEW.note
		WHEN 'add' THEN UPDATE pay SET amount = amount + 1000, note = 'added' WHERE id = NEW.id;
		WHEN 'other column' THEN UPDATE pay SET note = 'done' WHERE id = NEW.id;
		WHEN 'back' THEN UPDATE pay SET amount = 1, note = 'done' WHERE id = NEW.id;
		WHEN 'delete' THEN DELETE FROM pay WHERE id = NEW.id;
		WHEN 'next' THEN UPDATE pay SET amount = 0.5, note = 'done' WHERE id = NEW.id + 1;
		WHEN 'undone' THEN
			BEGIN
				UPDATE pay SET amount = 77, note = 'done' WHERE id = NEW.id;
				RAISE 'no';
			EXCEPTION WHEN raise_exception THEN NULL;
			END;
		WHEN 'lock' THEN PERFORM FROM pay WHERE id = NEW.id FOR UPDATE;
		ELSE NULL;
	END CASE;
	RETURN NULL;
END $$;
-- its name comes before that of ours, so it fires first
CREATE TRIGGER a_fix AFTER INSERT OR UPDATE ON pay FOR EACH ROW EXECUTE FUNCTION again();

INSERT INTO pay VALUES (1, 1, 10, 'add', '2026-01-01 10:00Z');
INSERT INTO pay VALUES (2, 2, 10, 'other column', '2026-01-01 10:00Z');
INSERT INTO pay VALUES (3, 3, 10, 'delete', '2026-01-01 10:00Z');
INSERT INTO pay VALUES (4, 4, 10, 'undone', '2026-01-01 10:00Z'), (5, 4, 20, 'lock', '2026-01-01 10:01Z');
-- row 10's trigger updates row 11 before the trigger of row 11 fires
INSERT INTO pay VALUES (10, 5, 10, 'next', '2026-01-01 10:00Z'), (11, 5, 20, '', '2026-01-01 10:01Z');
-- an UPDATE that is changed again, one that is taken back, one that ends in a DELETE
INSERT INTO pay VALUES (20, 6, 1, '', '2026-01-01 10:00Z'), (21, 7, 1, '', '2026-01-01 10:00Z'), (22, 8, 1, '', '2026-01-01 10:00Z');
SELECT risk_alert.drain();
UPDATE pay SET amount = 2, note = 'add' WHERE id = 20;
UPDATE pay SET amount = 2, note = 'back' WHERE id = 21;
UPDATE pay SET amount = 2, note = 'delete' WHERE id = 22;
SELECT risk_alert.drain();

-- as scored
SELECT event_key, reasons->0->>'text' AS reason FROM risk_alert.alerts WHERE stream = 'nested' ORDER BY event_key::int;

-- the windows, as they are in memory, are those of the table
INSERT INTO pay SELECT 100 + card, card, 0, '', '2026-01-01 12:00Z' FROM generate_series(1, 8) card;
SELECT risk_alert.drain();
SELECT p.card, a.features->'n' AS n, a.features->'total' AS total,
	(a.features->>'n')::int = t.n AND (a.features->>'total')::numeric = t.total AS exact
FROM pay p JOIN risk_alert.alerts a ON a.stream = 'nested' AND a.event_key = p.id::text,
	LATERAL (SELECT count(*) AS n, sum(o.amount) AS total FROM pay o WHERE o.card = p.card) t
WHERE p.id > 100 ORDER BY p.card;

SELECT risk_alert.unwatch('nested');
DROP SCHEMA nested CASCADE;
