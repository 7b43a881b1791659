-- latency.sql: for bench/latency.c.  The peer: a PL/pgSQL trigger that queues
-- and notifies, and a consumer woken by it, which has one rule only.

-- Fires for the events that latency.c wants an alert for
SELECT risk_alert.create_rule('payments', 'marked', 'card_count_1h >= 1 AND amount > 50000', points => 100);

CREATE TABLE bench.sql_payments (LIKE payments INCLUDING ALL);
CREATE TABLE bench.wake_queue (payment_id bigint, card_id int, amount numeric);
CREATE FUNCTION bench.enqueue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO bench.wake_queue VALUES (NEW.payment_id, NEW.card_id, NEW.amount);
    NOTIFY bench_wake;
    RETURN NULL;
END
$$;
CREATE TRIGGER enqueue AFTER INSERT ON bench.sql_payments FOR EACH ROW EXECUTE FUNCTION bench.enqueue();

-- One consumer only, so it needs no SKIP LOCKED and no index
CREATE FUNCTION bench.consume() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    p record;
    taken int := 0;
BEGIN
    FOR p IN
        WITH batch AS (DELETE FROM bench.wake_queue RETURNING *) SELECT * FROM batch
    LOOP
        taken := taken + 1;
        IF p.amount > 50000 THEN
            INSERT INTO bench.sql_alert (payment_id, score, rules) VALUES (p.payment_id, 100, '{marked}');
            PERFORM pg_notify('bench_alert', format('card_id=%s', p.card_id));
        END IF;
    END LOOP;
    RETURN taken;
END
$$;

-- The floor: one row like an alert, inserted and committed durably by a client
CREATE TABLE bench.floor (LIKE risk_alert.alert INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING INDEXES);
