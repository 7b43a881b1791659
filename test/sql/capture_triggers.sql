--
-- Triggers that call risk_alert.capture() and were not made by watch(): those
-- that cannot work are refused, and no event counts twice, however many there are.
--
SET client_min_messages = warning;
CREATE SCHEMA trg;
SET search_path = trg;
CREATE TABLE pay (id int PRIMARY KEY, amount int, at timestamptz);

-- claim: watch() refuses triggers that would make statements fail
CREATE TRIGGER wrong BEFORE INSERT ON pay FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
\set SHOW_CONTEXT never
\set VERBOSITY sqlstate
SELECT risk_alert.watch('pay', event_time => 'at');
\set VERBOSITY default
SELECT risk_alert.watch('pay', event_time => 'at');
DROP TRIGGER wrong ON pay;
CREATE TRIGGER wrong AFTER UPDATE ON pay FOR EACH STATEMENT EXECUTE FUNCTION risk_alert.capture();
SELECT risk_alert.watch('pay', event_time => 'at');
DROP TRIGGER wrong ON pay;
CREATE TRIGGER wrong BEFORE TRUNCATE ON pay FOR EACH STATEMENT EXECUTE FUNCTION risk_alert.capture();
SELECT risk_alert.watch('pay', event_time => 'at');
DROP TRIGGER wrong ON pay;
CREATE TABLE part (id int, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE part_1 PARTITION OF part DEFAULT;
CREATE TRIGGER wrong BEFORE INSERT ON part_1 FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
SELECT risk_alert.watch('part', event_time => 'at');
SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('pay'::regclass, 'part'::regclass);
DROP TRIGGER wrong ON part_1;

-- claim: it says which triggers are of no use
CREATE TRIGGER b_all AFTER INSERT OR UPDATE OR DELETE ON pay FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
CREATE TRIGGER a_some AFTER INSERT ON pay FOR EACH ROW WHEN (NEW.amount > 10) EXECUTE FUNCTION risk_alert.capture();
CREATE TRIGGER c_column AFTER UPDATE OF amount ON pay FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
CREATE TRIGGER c_again AFTER INSERT OR DELETE ON pay FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '0', name => 'trg_pay');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'pay'::regclass ORDER BY 1;

-- claim: ... and no event counts twice
SELECT risk_alert.create_feature('trg_pay', 'n', entity => 'amount', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_rule('trg_pay', 'each', 'true', points => 60);
CREATE FUNCTION counted() RETURNS TABLE (processed bigint, scored bigint, alerts bigint, fired bigint) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT risk_alert.drain() THEN
		RAISE 'not drained';
	END IF;
	RETURN QUERY SELECT s.processed, s.scored, s.alerts + s.folded, r.fired
	FROM risk_alert.stat_streams s JOIN risk_alert.stat_rules r USING (stream) WHERE s.stream = 'trg_pay';
END $$;
INSERT INTO pay VALUES (1, 20, '2026-01-01Z'), (2, 5, '2026-01-01Z');
SELECT * FROM counted();
UPDATE pay SET amount = amount + 1;
SELECT * FROM counted();
DELETE FROM pay WHERE id = 1;
SELECT * FROM counted();

-- claim: of the triggers that fire in a session, one captures
ALTER TABLE pay ENABLE REPLICA TRIGGER b_all, ENABLE ALWAYS TRIGGER c_again;
INSERT INTO pay VALUES (3, 5, '2026-01-01Z');
SELECT * FROM counted();
SET session_replication_role = replica;
INSERT INTO pay VALUES (4, 5, '2026-01-01Z');
RESET session_replication_role;
SELECT * FROM counted();
ALTER TABLE pay DISABLE TRIGGER b_all, ENABLE TRIGGER c_again;
INSERT INTO pay VALUES (5, 5, '2026-01-01Z');
SELECT * FROM counted();

-- claim: of two that are conditional both capture, as a row that one lets pass by would be lost
DROP TRIGGER c_again ON pay;
CREATE TRIGGER a_too AFTER INSERT ON pay FOR EACH ROW WHEN (NEW.amount > 1) EXECUTE FUNCTION risk_alert.capture();
INSERT INTO pay VALUES (6, 20, '2026-01-01Z');
SELECT * FROM counted();
DROP TRIGGER a_some ON pay;
DROP TRIGGER a_too ON pay;
DROP TRIGGER c_column ON pay;
ALTER TABLE pay ENABLE TRIGGER b_all;

-- claim: check_setup() tells of triggers that were made after watch()
CREATE TEMPORARY VIEW finding AS
	SELECT level, object, description, detail, remediation FROM risk_alert.check_setup()
	WHERE name = 'trigger' AND object IN ('trg_pay', 'part') AND level <> 'ok';
SELECT * FROM finding;
CREATE TRIGGER second AFTER INSERT OR UPDATE ON pay FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
INSERT INTO pay VALUES (7, 5, '2026-01-01Z');
SELECT * FROM counted();
SELECT * FROM finding;
SELECT remediation FROM finding \gexec
CREATE TRIGGER second BEFORE INSERT ON pay FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
SELECT * FROM finding;
INSERT INTO pay VALUES (8, 5, '2026-01-01Z');
DROP TRIGGER second ON pay;
CREATE TRIGGER second AFTER INSERT ON pay FOR EACH STATEMENT EXECUTE FUNCTION risk_alert.capture();
SELECT * FROM finding;
INSERT INTO pay VALUES (8, 5, '2026-01-01Z');
SELECT remediation FROM finding \gexec
SELECT * FROM finding;
INSERT INTO pay VALUES (8, 5, '2026-01-01Z');
SELECT * FROM counted();

-- claim: likewise for a trigger of a partition's own
SELECT risk_alert.watch('part', event_time => 'at');
CREATE TRIGGER also AFTER INSERT ON part_1 FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
INSERT INTO part VALUES (1, '2026-01-01Z');
INSERT INTO part_1 VALUES (2, '2026-01-01Z');
SELECT risk_alert.drain();
SELECT processed, scored FROM risk_alert.stat_streams WHERE stream = 'part';
SELECT * FROM finding;

SELECT risk_alert.unwatch('part');
SELECT risk_alert.unwatch('trg_pay');
DELETE FROM risk_alert.alert WHERE stream = 'trg_pay';
DROP SCHEMA trg CASCADE;
