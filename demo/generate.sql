-- generate.sql: a made-up year's third of card payments, with frauds in it.
--
-- In the manner of the simulator of the Fraud Detection Handbook (Le Borgne,
-- Siblini, Lebichot, Bontempi): customers live somewhere, pay at terminals
-- within reach, each with a typical amount and frequency; then three kinds of
-- fraud are worked in.
--
-- Every random number is a hash of the seed and of what it is drawn for, so the
-- same seed gives the same payments whatever the plan, the version or the machine.
--
-- psql variables: seed, days, live_from (first day that is streamed live),
-- customers, terminals.

SET max_parallel_workers_per_gather = 0;
SET work_mem = '128MB';
SET synchronous_commit = off;

CREATE SCHEMA demo;

-- A uniform random number in (0, 1) for a purpose and up to two ids
CREATE FUNCTION demo.draw(what text, a bigint, b bigint DEFAULT 0) RETURNS float8
IMMUTABLE PARALLEL SAFE
RETURN ((hashint8extended(b, hashint8extended(a, hashtextextended(what COLLATE "C", :seed)))
         & 4503599627370495) + 0.5) / 4503599627370496.0::float8;

-- A normally distributed one, by Box and Muller
CREATE FUNCTION demo.draw_normal(what text, a bigint, b bigint DEFAULT 0) RETURNS float8
IMMUTABLE PARALLEL SAFE
RETURN sqrt(-2 * ln(demo.draw(what, a, b))) * cos(2 * pi() * demo.draw(what || ' again', a, b));

-- The moment a day of the simulation begins
CREATE FUNCTION demo.day(day float8) RETURNS timestamptz
IMMUTABLE PARALLEL SAFE
RETURN timestamptz '2025-03-01 00:00:00+00' + day * interval '1 day';

-- Terminals and customers in a square of 100 by 100
CREATE TABLE demo.terminal AS
SELECT i AS terminal_id, 100 * demo.draw('terminal x', i) AS x, 100 * demo.draw('terminal y', i) AS y
FROM generate_series(1, :terminals) i;

CREATE TABLE demo.customer AS
SELECT i AS card_id, 100 * demo.draw('customer x', i) AS x, 100 * demo.draw('customer y', i) AS y,
       5 + 95 * demo.draw('typical amount', i) AS typical_amount,
       4 * demo.draw('payments a day', i) AS payments_a_day
FROM generate_series(1, :customers) i;

-- The terminals within reach of a customer
CREATE TABLE demo.reach AS
SELECT card_id, array_agg(terminal_id ORDER BY terminal_id) AS terminals
FROM demo.customer c JOIN demo.terminal t ON (t.x - c.x) ^ 2 + (t.y - c.y) ^ 2 < 25
GROUP BY card_id;

-- Payments of a customer are a Poisson process: exponential gaps, in days.  A
-- day's fraction is then bent so that most of it falls around noon.
CREATE TABLE demo.raw AS
WITH arrival AS (
    SELECT card_id, n, typical_amount,
           sum(-ln(demo.draw('gap', card_id, n)) / payments_a_day) OVER (PARTITION BY card_id ORDER BY n) AS day
    FROM demo.customer, generate_series(1, (payments_a_day * :days * 1.2 + 40)::int) n
)
SELECT a.card_id, n, floor(day)::int AS day,
       86400 * ((day - floor(day)) + 0.6 * sin(2 * pi() * (day - floor(day))) / (2 * pi())) AS second,
       terminals[1 + floor(demo.draw('terminal', a.card_id, n) * cardinality(terminals))::int] AS terminal_id,
       CASE WHEN amount >= 0 THEN amount
            ELSE demo.draw('amount again', a.card_id, n) * 2 * typical_amount END AS amount
FROM arrival a
JOIN demo.reach r ON r.card_id = a.card_id,
LATERAL (SELECT typical_amount * (1 + demo.draw_normal('amount', a.card_id, n) / 2) AS amount) m
WHERE day < :days;

-- Scenario 2: every second day a terminal is tampered with, for four weeks
CREATE TABLE demo.tampered AS
SELECT 1 + floor(demo.draw('tampered', d) * :terminals)::int AS terminal_id, d AS from_day, d + 28 AS to_day
FROM generate_series(0, :days - 1, 2) d;

-- Scenario 3: every day a card's data is stolen and misused for two weeks
CREATE TABLE demo.stolen AS
SELECT 1 + floor(demo.draw('stolen', d) * :customers)::int AS card_id, d AS from_day, d + 14 AS to_day
FROM generate_series(0, :days - 1) d;

-- All payments in the order of time, labelled
CREATE TABLE demo.payment AS
SELECT row_number() OVER (ORDER BY day, second, card_id, n) AS payment_id,
       demo.day(day) + round(second * 1000) * interval '1 millisecond' AS paid_at,
       card_id, terminal_id,
       round((CASE WHEN misused THEN 5 * amount ELSE amount END)::numeric, 2)::numeric(10,2) AS amount,
       CASE WHEN misused THEN 3 WHEN at_tampered THEN 2 WHEN amount > 220 THEN 1 ELSE 0 END AS fraud_scenario,
       (1 + 2 * demo.draw('reported', card_id, n)) * interval '1 day' AS reported_after
FROM demo.raw r,
LATERAL (SELECT demo.draw('misuse', card_id, n) < 1.0 / 3
                AND EXISTS (SELECT FROM demo.stolen s WHERE s.card_id = r.card_id
                            AND day >= s.from_day AND day < s.to_day) AS misused,
                EXISTS (SELECT FROM demo.tampered t WHERE t.terminal_id = r.terminal_id
                        AND day >= t.from_day AND day < t.to_day) AS at_tampered) f;

-- What the bank has.  The last two columns are the truth, for judging only: no
-- rule reads them.  chargeback is set when the cardholder reports the fraud, one to three
-- days later.
CREATE TABLE payments (
    payment_id     bigint PRIMARY KEY,
    paid_at        timestamptz NOT NULL,
    card_id        int NOT NULL,
    terminal_id    int NOT NULL,
    amount         numeric(10,2) NOT NULL,
    chargeback     bool NOT NULL DEFAULT false,
    is_fraud       bool NOT NULL,
    fraud_scenario int NOT NULL
);

INSERT INTO payments
SELECT payment_id, paid_at, card_id, terminal_id, amount,
       fraud_scenario > 0 AND paid_at + reported_after < demo.day(:live_from),
       fraud_scenario > 0, fraud_scenario
FROM demo.payment
WHERE paid_at < demo.day(:live_from)
ORDER BY payment_id;

CREATE INDEX ON payments (card_id, paid_at);
CREATE INDEX ON payments (terminal_id, paid_at);

-- The rest, to be streamed: payments, and the chargebacks that come in between
CREATE TABLE demo.feed AS
SELECT row_number() OVER (ORDER BY happens_at, payment_id, report) AS n, *
FROM (
    SELECT paid_at AS happens_at, false AS report, payment_id, paid_at, card_id, terminal_id, amount, fraud_scenario
    FROM demo.payment
    WHERE paid_at >= demo.day(:live_from)
    UNION ALL
    SELECT paid_at + reported_after, true, payment_id, paid_at, card_id, terminal_id, amount, fraud_scenario
    FROM demo.payment
    WHERE fraud_scenario > 0
    AND paid_at + reported_after BETWEEN demo.day(:live_from) AND demo.day(:days)
) f;
ALTER TABLE demo.feed ADD PRIMARY KEY (n);
CREATE SEQUENCE demo.next;

-- What was sent, never updated, so that its xmin tells when it was committed
CREATE TABLE demo.sent (payment_id bigint NOT NULL);

-- The next entry of the feed, as its client would send it
CREATE PROCEDURE demo.play() LANGUAGE plpgsql AS $$
DECLARE
    next bigint := nextval('demo.next');
    f demo.feed;
BEGIN
    SELECT * INTO f FROM demo.feed WHERE n = next;
    IF f.report THEN
        UPDATE payments SET chargeback = true WHERE payment_id = f.payment_id;
    ELSIF f.n IS NOT NULL THEN
        INSERT INTO payments VALUES (f.payment_id, f.paid_at, f.card_id, f.terminal_id, f.amount, false,
                                     f.fraud_scenario > 0, f.fraud_scenario);
        INSERT INTO demo.sent VALUES (f.payment_id);
    END IF;
END
$$;

DROP TABLE demo.raw, demo.payment, demo.reach;
ANALYZE;
