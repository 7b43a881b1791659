--
-- Fraud rules as practitioners publish them, each with a small stream in which
-- it fires exactly where it should, and not just beside.
--
-- Every row says in words what it is (what) and which rules are to fire
-- (expected; - is none).  verdicts() shows what fired live, and what
-- risk_assess() says of the stored row: "same", or what fires because there all
-- rows of the same time count, whichever arrived first, and late ones too.
--
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, YMD';

CREATE FUNCTION verdicts(stream text)
    RETURNS TABLE (id int, event text, fired text, score int, decision text, assessed text, wrong text)
    LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        SELECT e.id, e.what, l.fired, a.score, a.decision,
               CASE WHEN (l.fired, coalesce(a.score, 0), coalesce(a.decision, 'approve'))
                       = (s.fired, s.score, s.decision) THEN 'same' ELSE s.fired END,
               CASE WHEN l.fired <> e.expected THEN 'expected ' || e.expected END
          FROM %1$I e
          LEFT JOIN risk_alert.alerts a ON a.stream = %1$L AND a.event_key = e.id::text
         CROSS JOIN LATERAL (SELECT coalesce(string_agg(r, '+' ORDER BY r COLLATE "C"), '-') AS fired
                               FROM unnest(a.rules) AS r) l
         CROSS JOIN LATERAL (SELECT x.score, x.decision,
                                    (SELECT coalesce(string_agg(r->>'rule', '+' ORDER BY r->>'rule' COLLATE "C"), '-')
                                       FROM jsonb_array_elements(x.reasons) AS r) AS fired
                               FROM risk_alert.risk_assess(e) AS x OFFSET 0) s
         WHERE e.expected IS NOT NULL
         ORDER BY e.id $q$, stream);
END
$$;

--
-- S1: card testing.  More than 3 cards on a device or e-mail address in a day, for
-- amounts up to 1; more than 3 cards from an address in an hour; more than 5 attempts from an address in a minute; more than
-- 90 % declined of at least 10
--
CREATE TABLE s1 (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, ip inet, device text, email text,
    card text, amount numeric(10,2), approved bool, what text, expected text);
CREATE INDEX ON s1 (ip, at);
CREATE INDEX ON s1 (device, at);
CREATE INDEX ON s1 (email, at);
\t on
SELECT risk_alert.watch('s1', event_time => 'at', review_at => 1, suppress => '0 seconds');
SELECT risk_alert.create_feature('s1', 'device_cards_1d', entity => 'device', aggregate => 'count(DISTINCT card)', within => '1 day');
SELECT risk_alert.create_feature('s1', 'email_cards_1d', entity => 'email', aggregate => 'count(DISTINCT card)', within => '24 hours');
SELECT risk_alert.create_feature('s1', 'ip_cards_1h', entity => 'ip', aggregate => 'count(DISTINCT card)', within => '1 hour');
SELECT risk_alert.create_feature('s1', 'ip_1m', entity => 'ip', aggregate => 'count(*)', within => '1 minute');
SELECT risk_alert.create_feature('s1', 'ip_1d', entity => 'ip', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.create_feature('s1', 'ip_declined_1d', entity => 'ip', aggregate => 'count(*)', within => '1 day', filter => 'NOT approved');
SELECT risk_alert.create_rule('s1', 'cards_of_device', condition => 'device_cards_1d > 3 AND amount <= 1', points => 60, severity => 'high',
    reason => 'device {device} tried {device_cards_1d} cards in a day');
SELECT risk_alert.create_rule('s1', 'cards_of_email', condition => 'email_cards_1d > 3 AND amount <= 1', points => 40);
SELECT risk_alert.create_rule('s1', 'cards_of_ip', condition => 'ip_cards_1h > 3', points => 20);
SELECT risk_alert.create_rule('s1', 'burst', condition => 'ip_1m > 5', points => 30);
SELECT risk_alert.create_rule('s1', 'declined', condition => 'ip_1d >= 10 AND ip_declined_1d > 0.9 * ip_1d', points => 30);
\t off

INSERT INTO s1 (at, device, email, card, amount, approved, what, expected) VALUES
    ('2024-05-01 10:00:00', 'd1', NULL, 'A', 0.00, true,  'first card', '-'),
    ('2024-05-01 10:05:00', 'd1', NULL, 'B', 1.00, false, 'second', '-'),
    ('2024-05-01 10:10:00', 'd1', NULL, 'C', 0.50, false, 'third', '-'),
    ('2024-05-01 10:15:00', 'd1', NULL, 'C', 0.50, true,  'third again', '-'),
    ('2024-05-01 10:20:00', 'd1', NULL, 'D', 1.01, false, 'fourth, amount above 1', '-'),
    ('2024-05-01 10:25:00', 'd1', NULL, 'D', 1.00, true,  'fourth', 'cards_of_device'),
    ('2024-05-01 10:25:00', 'd1', NULL, 'A', 0.00, true,  'first card again, same time', 'cards_of_device'),
    ('2024-05-01 10:00:00', 'd2', NULL, 'A', 0.10, true,  'first card', '-'),
    ('2024-05-01 11:00:00', 'd2', NULL, 'B', 0.10, true,  'second', '-'),
    ('2024-05-01 12:00:00', 'd2', NULL, 'C', 0.10, true,  'third', '-'),
    ('2024-05-02 10:00:00', 'd2', NULL, 'D', 0.10, true,  'fourth, the first exactly a day before', '-'),
    ('2024-05-01 10:00:00.000001', 'd3', NULL, 'A', 0.10, true, 'first card', '-'),
    ('2024-05-01 11:00:00', 'd3', NULL, 'B', 0.10, true,  'second', '-'),
    ('2024-05-01 12:00:00', 'd3', NULL, 'C', 0.10, true,  'third', '-'),
    ('2024-05-02 10:00:00', 'd3', NULL, 'D', 0.10, true,  'fourth, the first a microsecond less than a day before', 'cards_of_device'),
    ('2024-05-01 10:00:00', NULL, NULL, 'E', 0.10, true,  'no device: no history', '-'),
    ('2024-05-01 10:01:00', 'd4', 'm', 'A', 0.10, true,   'e-mail, first card', '-'),
    ('2024-05-01 10:02:00', 'd5', 'm', 'B', 0.10, true,   'second, on another device', '-'),
    ('2024-05-01 10:03:00', 'd6', 'm', NULL, 0.10, true,  'no card', '-'),
    ('2024-05-01 10:04:00', 'd7', 'm', 'C', 0.10, true,   'third', '-'),
    ('2024-05-01 10:05:00', 'd8', 'm', 'D', 0.10, true,   'fourth', 'cards_of_email');
INSERT INTO s1 (at, ip, amount, approved, what, expected)
SELECT timestamptz '2024-05-01 10:00:00' + s * interval '10 seconds', '10.0.0.1', 20, true, 'attempt at ' || s * 10 || ' s', '-'
  FROM generate_series(0, 4) AS s;
INSERT INTO s1 (at, ip, amount, approved, what, expected) VALUES
    ('2024-05-01 10:00:59.999999', '10.0.0.1', 20, true, 'sixth within the minute', 'burst'),
    ('2024-05-01 10:01:00', '10.0.0.1', 20, true, 'seventh, the first exactly a minute before', 'burst'),
    ('2024-05-01 10:02:00', '10.0.0.1', 20, true, 'a minute later', '-');
INSERT INTO s1 (at, ip, amount, approved, what, expected)
SELECT timestamptz '2024-05-01 10:00:00' + s * interval '10 seconds', '10.0.0.2', 20, true, 'attempt at ' || s * 10 || ' s', '-'
  FROM generate_series(0, 4) AS s;
INSERT INTO s1 (at, ip, amount, approved, what, expected) VALUES
    ('2024-05-01 10:01:00', '10.0.0.2', 20, true, 'sixth, the first exactly a minute before', '-');
INSERT INTO s1 (at, ip, amount, approved, what, expected)
SELECT timestamptz '2024-05-01 10:00:00' + s * interval '10 minutes', '10.0.0.3', 20, s = 0,
       s || ' declined of ' || s + 1, CASE WHEN s >= 10 THEN 'declined' ELSE '-' END
  FROM generate_series(0, 10) AS s;
INSERT INTO s1 (at, ip, card, amount, approved, what, expected) VALUES
    ('2024-05-01 10:00:00', '10.0.0.5', 'A', 20, true, 'first card of the address', '-'),
    ('2024-05-01 10:20:00', '10.0.0.5', 'B', 20, true, 'second', '-'),
    ('2024-05-01 10:40:00', '10.0.0.5', 'C', 20, true, 'third', '-'),
    ('2024-05-01 11:00:00', '10.0.0.5', 'D', 20, true, 'fourth, the first exactly an hour before', '-'),
    ('2024-05-01 11:10:00', '10.0.0.5', 'E', 20, true, 'fifth, the fourth within an hour', 'cards_of_ip'),
    ('2024-05-01 11:15:00', '10.0.0.5', 'B', 20, true, 'second again', 'cards_of_ip'),
    ('2024-05-01 12:14:59.999999', '10.0.0.5', 'F', 20, true, 'an hour later', '-');
SELECT risk_alert.drain('5 min');
SELECT * FROM verdicts('s1');
SELECT entity, severity, reasons FROM risk_alert.alerts WHERE stream = 's1' AND event_key = '6';

-- 200 attempts at one and the same time: all but the first five
INSERT INTO s1 (at, ip, amount, approved) SELECT '2024-05-03 10:00:00', '10.0.0.4', 20, true FROM generate_series(1, 200);
SELECT risk_alert.drain('5 min');
SELECT count(*) AS attempts, count(a.alert_id) AS alerts, min(r.n) FILTER (WHERE a.alert_id IS NOT NULL) AS first_alert,
       min((features->>'ip_1m')::int), max((features->>'ip_1m')::int)
  FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM s1 WHERE ip = '10.0.0.4') r
  LEFT JOIN risk_alert.alerts a ON a.stream = 's1' AND a.event_key = r.id::text;

--
-- S3: card velocity.  More than 3 payments in 2 hours; more than one in 24
-- hours that sum up to more than 100; refunds subtract
--
CREATE TABLE s3 (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, card int, amount numeric(10,2), what text, expected text);
CREATE INDEX ON s3 (card, at);
\t on
SELECT risk_alert.watch('s3', event_time => 'at', review_at => 1, suppress => '0 seconds');
SELECT risk_alert.create_feature('s3', 'n_2h', entity => 'card', aggregate => 'count(*)', within => '2 hours');
SELECT risk_alert.create_feature('s3', 'n_24h', entity => 'card', aggregate => 'count(*)', within => '24 hours');
SELECT risk_alert.create_feature('s3', 'sum_24h', entity => 'card', aggregate => 'sum(amount)', within => '24 hours');
SELECT risk_alert.create_rule('s3', 'often', condition => 'n_2h > 3', points => 50);
SELECT risk_alert.create_rule('s3', 'much', condition => 'n_24h > 1 AND sum_24h > 100', points => 40);
\t off

INSERT INTO s3 (at, card, amount, what, expected) VALUES
    ('2024-05-01 10:00:00', 1, 1, 'first', '-'),
    ('2024-05-01 10:30:00', 1, 1, 'second', '-'),
    ('2024-05-01 11:00:00', 1, 1, 'third', '-'),
    ('2024-05-01 11:59:59.999999', 1, 1, 'fourth in less than 2 hours', 'often'),
    ('2024-05-01 10:00:00', 2, 1, 'first', '-'),
    ('2024-05-01 10:30:00', 2, 1, 'second', '-'),
    ('2024-05-01 11:00:00', 2, 1, 'third', '-'),
    ('2024-05-01 12:00:00', 2, 1, 'fourth, the first exactly 2 hours before', '-'),
    ('2024-05-01 12:00:00', 2, 1, 'fifth at the same time', 'often'),
    ('2024-05-01 10:00:00', 3, 60, '60', '-'),
    ('2024-05-01 10:10:00', 3, 40, '60 + 40 = 100', '-'),
    ('2024-05-01 10:20:00', 3, 0.01, '100.01', 'much'),
    ('2024-05-01 10:00:00', 4, 500, 'one payment', '-'),
    ('2024-05-01 10:10:00', 4, -450, 'refund: 50', '-'),
    ('2024-05-01 10:20:00', 4, 50, '100', '-'),
    ('2024-05-01 10:30:00', 4, 0.01, '100.01, and the fourth', 'much+often'),
    ('2024-05-01 10:40:00', 4, -0.01, 'refund: 100, the fifth', 'often'),
    ('2024-05-01 10:00:00', 5, 90, '90', '-'),
    ('2024-05-02 10:00:00', 5, 20, 'exactly 24 hours later', '-'),
    ('2024-05-01 10:00:00', 6, 90, '90', '-'),
    ('2024-05-02 09:59:59.999999', 6, 20, 'a microsecond less: 110', 'much');

-- Corrections: what was deleted, changed or rolled back does not count
INSERT INTO s3 (at, card, amount, what, expected) VALUES
    ('2024-05-01 10:00:00', 7, 80, 'to be deleted', NULL),
    ('2024-05-01 10:00:00', 8, 80, 'to become 10', '-'),
    ('2024-05-01 10:00:00', 9, 10, 'to become 80', '-'),
    ('2024-05-01 10:00:00', 10, 80, 'to be moved a day ahead', '-'),
    ('2024-05-01 10:00:00', 11, 80, 'to become card 12''s', '-');
DELETE FROM s3 WHERE card = 7;
UPDATE s3 SET amount = 90 - amount WHERE card IN (8, 9);
UPDATE s3 SET at = at - interval '1 day' WHERE card = 10;
UPDATE s3 SET card = 12 WHERE card = 11;
BEGIN;
INSERT INTO s3 (at, card, amount) VALUES ('2024-05-01 10:00:00', 13, 80);
ROLLBACK;
BEGIN;
INSERT INTO s3 (at, card, amount, what, expected) VALUES ('2024-05-01 10:00:00', 14, 10, 'before the savepoint', '-');
SAVEPOINT a;
INSERT INTO s3 (at, card, amount) VALUES ('2024-05-01 10:01:00', 14, 80);
ROLLBACK TO a;
COMMIT;
INSERT INTO s3 (at, card, amount, what, expected) VALUES
    ('2024-05-01 11:00:00', 7, 30, 'after the deletion', '-'),
    ('2024-05-01 11:00:00', 8, 30, '10 + 30', '-'),
    ('2024-05-01 11:00:00', 9, 30, '80 + 30', 'much'),
    ('2024-05-01 11:00:00', 10, 30, 'after the move', '-'),
    ('2024-05-01 11:00:00', 11, 30, 'without the other', '-'),
    ('2024-05-01 11:00:00', 12, 30, '80 + 30, the other card''s', 'much'),
    ('2024-05-01 11:00:00', 13, 30, 'after the rollback', '-'),
    ('2024-05-01 11:00:00', 14, 30, '10 + 30', '-');
-- A late event is seen as of its own time.  What was scored before is not
-- scored again; what commits with it sees it, and so do later ones.
INSERT INTO s3 (at, card, amount, what, expected) VALUES
    ('2024-05-01 12:00:00', 15, 90, '90', '-'),
    ('2024-05-01 12:00:00', 16, 90, '90 + 20, which commits with it', 'much'),
    ('2024-05-01 11:00:00', 16, 20, 'late: 20 as of its own time', '-');
SELECT risk_alert.drain('5 min');
INSERT INTO s3 (at, card, amount, what, expected) VALUES
    ('2024-05-01 11:00:00', 15, 20, 'late: 20 as of its own time', '-'),
    ('2024-05-01 13:00:00', 15, 0.5, '110.50', 'much');
-- Without a card, without an amount, not a number
INSERT INTO s3 (at, card, amount, what, expected) VALUES
    ('2024-05-01 10:00:00', NULL, 90, 'no card', '-'),
    ('2024-05-01 10:01:00', NULL, 20, 'no card', '-'),
    ('2024-05-01 10:00:00', 17, NULL, 'no amount', '-'),
    ('2024-05-01 10:01:00', 17, 100, 'sum 100', '-'),
    ('2024-05-01 10:02:00', 17, 'NaN', 'NaN, greater than any number', 'much'),
    ('2024-05-02 10:02:00', 17, 1, 'a day later it is gone', '-');
SELECT risk_alert.drain('5 min');
SELECT * FROM verdicts('s3');

--
-- S4: an amount against the customer's own 90 days before: 10 times the
-- average, more than 3 standard deviations above it, 3 times the maximum;
-- only with 5 earlier events
--
CREATE TABLE s4 (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, customer int, amount numeric(10,2), what text, expected text);
CREATE INDEX ON s4 (customer, at);
\t on
SELECT risk_alert.watch('s4', event_time => 'at', review_at => 1, suppress => '0 seconds');
SELECT risk_alert.create_feature('s4', 'n_90d', 'customer', 'count(*)', '90 days', include_current => false);
SELECT risk_alert.create_feature('s4', 'avg_90d', 'customer', 'avg(amount)', '90 days', include_current => false);
SELECT risk_alert.create_feature('s4', 'stddev_90d', 'customer', 'stddev(amount)', '90 days', include_current => false);
SELECT risk_alert.create_feature('s4', 'max_90d', 'customer', 'max(amount)', '90 days', include_current => false);
SELECT risk_alert.create_rule('s4', 'ten_times', 'n_90d >= 5 AND amount > 10 * avg_90d', points => 30);
SELECT risk_alert.create_rule('s4', 'z_score', 'n_90d >= 5 AND (amount - avg_90d) / nullif(stddev_90d, 0) > 3', points => 20);
SELECT risk_alert.create_rule('s4', 'maximum', 'n_90d >= 5 AND amount > 3 * max_90d', points => 10);
\t off

INSERT INTO s4 (at, customer, amount, what, expected)
SELECT timestamptz '2024-05-01 10:00:00' + n * interval '1 hour', c, 10, n || '. of 10.00', '-'
  FROM generate_series(1, 3) AS c, generate_series(1, 5) AS n WHERE (c, n) <> (1, 5) ORDER BY c, n;
INSERT INTO s4 (at, customer, amount, what, expected) VALUES
    ('2024-05-02 10:00:00', 1, 1000.00, '4 earlier events', '-'),
    ('2024-05-02 10:00:00', 2, 30.00, '3 times the maximum, all alike', '-'),
    ('2024-05-02 10:00:00', 3, 30.01, 'more than 3 times the maximum, all alike', 'maximum'),
    ('2024-05-02 11:00:00', 2, 133.33, 'average 13.333', 'maximum+z_score'),
    ('2024-05-02 11:00:00', 3, 133.36, '10 times the average of 13.335 is 133.35', 'maximum+ten_times+z_score');
INSERT INTO s4 (at, customer, amount, what, expected)
SELECT timestamptz '2024-05-01 10:00:00' + n * interval '1 hour', c, 7 + n, 7 + n || '.00', '-'
  FROM generate_series(4, 5) AS c, generate_series(1, 5) AS n ORDER BY c, n;
INSERT INTO s4 (at, customer, amount, what, expected) VALUES
    ('2024-05-02 10:00:00', 4, 14.74, '2.998 deviations above the average', '-'),
    ('2024-05-02 10:00:00', 5, 14.75, '3.004 deviations above the average', 'z_score');
INSERT INTO s4 (at, customer, amount, what, expected)
SELECT timestamptz '2024-02-01 10:00:00' + n * interval '1 hour' + (c - 6) * interval '1 microsecond', c, 10, n || '. of 10.00', '-'
  FROM generate_series(6, 7) AS c, generate_series(0, 4) AS n ORDER BY c, n;
INSERT INTO s4 (at, customer, amount, what, expected) VALUES
    ('2024-05-01 10:00:00', 6, 1000, 'one exactly 90 days before: 4', '-'),
    ('2024-05-01 10:00:00', 7, 1000, 'a microsecond less: 5', 'maximum+ten_times');
SELECT risk_alert.drain('5 min');
SELECT * FROM verdicts('s4');
SELECT rule, errors FROM risk_alert.stat_rules WHERE stream = 's4' ORDER BY 1;

--
-- S5: test, then take.  The account's previous amount below 1, now at least
-- 500, within a minute
--
CREATE TABLE s5 (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, account int, amount numeric(10,2), what text, expected text);
CREATE INDEX ON s5 (account, at);
\t on
SELECT risk_alert.watch('s5', event_time => 'at', review_at => 1, suppress => '0 seconds');
SELECT risk_alert.create_feature('s5', 'previous', entity => 'account', aggregate => 'lag(amount)', within => '1 hour');
SELECT risk_alert.create_feature('s5', 'previous_at', entity => 'account', aggregate => 'lag(at)', within => '1 hour');
SELECT risk_alert.create_rule('s5', 'test_then_take',
    condition => 'previous < 1 AND amount >= 500 AND at - previous_at <= interval ''1 minute''', points => 90);
\t off

INSERT INTO s5 (at, account, amount, what, expected) VALUES
    ('2024-05-01 10:00:00', 1, 0.99, 'test', '-'),
    ('2024-05-01 10:01:00', 1, 500.00, 'take, exactly a minute later', 'test_then_take'),
    ('2024-05-01 10:00:00', 2, 0.99, 'test', '-'),
    ('2024-05-01 10:01:00.000001', 2, 500.00, 'a microsecond too late', '-'),
    ('2024-05-01 10:00:00', 3, 1.00, 'no test: 1.00', '-'),
    ('2024-05-01 10:00:30', 3, 500.00, 'take', '-'),
    ('2024-05-01 10:00:00', 4, 0.50, 'test', '-'),
    ('2024-05-01 10:00:10', 4, 499.99, 'no take: 499.99', '-'),
    ('2024-05-01 10:00:20', 4, 500.00, 'after 499.99', '-'),
    ('2024-05-01 10:00:00', 5, 0.00, 'test', '-'),
    ('2024-05-01 10:00:10', 6, 700.00, 'another account', '-'),
    ('2024-05-01 10:00:20', 7, 20.00, 'another account', '-'),
    ('2024-05-01 10:00:30', 5, 500.00, 'take, others in between', 'test_then_take'),
    ('2024-05-01 10:00:00', 20, 0.50, 'test', '-'),
    ('2024-05-01 10:00:10', 20, NULL, 'no amount', '-'),
    ('2024-05-01 10:00:20', 20, 500.00, 'the previous one has no amount', '-'),
    ('2024-05-01 10:00:00', 8, 0.50, 'test', '-'),
    ('2024-05-01 10:00:10', 8, 20.00, 'something else', '-'),
    ('2024-05-01 10:00:20', 8, 500.00, 'the previous is not the test', '-'),
    ('2024-05-01 10:00:00', 9, 0.50, 'test', '-'),
    ('2024-05-01 10:00:00', 9, 500.00, 'take at the same time', 'test_then_take'),
    ('2024-05-01 10:00:00', 10, 500.00, 'take before the test', '-'),
    ('2024-05-01 10:00:00', 10, 0.50, 'test at the same time', '-'),
    ('2024-05-01 10:00:00', NULL, 0.50, 'no account', '-'),
    ('2024-05-01 10:00:10', NULL, 500.00, 'no account', '-'),
    ('2024-05-01 09:00:00', 11, 0.50, 'test an hour before', '-'),
    ('2024-05-01 10:00:00', 11, 500.00, 'take', '-');
SELECT risk_alert.drain('5 min');
SELECT * FROM verdicts('s5');

--
-- S6: more than 200,000 from one payer to one beneficiary in 24 hours
--
CREATE TABLE s6 (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, payer text, payee text, amount numeric(14,2), what text, expected text);
CREATE INDEX ON s6 (payer, payee, at);
\t on
SELECT risk_alert.watch('s6', event_time => 'at', review_at => 1, suppress => '0 seconds');
SELECT risk_alert.create_feature('s6', 'pair_sum', entity => 'payer, payee', aggregate => 'sum(amount)', within => '24 hours');
SELECT risk_alert.create_rule('s6', 'large_sum', condition => 'pair_sum > 200000', points => 80);
\t off

INSERT INTO s6 (at, payer, payee, amount, what, expected) VALUES
    ('2024-05-01 10:00:00', 'a', 'b', 100000, '100,000', '-'),
    ('2024-05-01 11:00:00', 'b', 'a', 150000, 'the other way round', '-'),
    ('2024-05-01 12:00:00', 'a', 'b', 100000, '200,000', '-'),
    ('2024-05-01 12:00:00', 'a', 'x', 150000, 'to somebody else', '-'),
    ('2024-05-01 12:00:00', 'x', 'b', 150000, 'from somebody else', '-'),
    ('2024-05-01 13:00:00', 'a', 'b', 0.01, '200,000.01', 'large_sum'),
    ('2024-05-01 10:00:00', 'a', 'c', 150000, '150,000', '-'),
    ('2024-05-02 10:00:00', 'a', 'c', 60000, 'exactly 24 hours later: 60,000', '-'),
    ('2024-05-01 10:00:00', 'a', 'd', 150000, '150,000', '-'),
    ('2024-05-02 09:59:59.999999', 'a', 'd', 60000, 'a microsecond less: 210,000', 'large_sum'),
    ('2024-05-01 10:00:00', 'a', 'e', 150000, '150,000', '-'),
    ('2024-05-01 10:00:00', 'a', 'e', 50000.01, '200,000.01 in the same second', 'large_sum'),
    ('2024-05-01 10:00:00', 'ab', 'c', 150000, 'names that run together', '-'),
    ('2024-05-01 10:00:00', 'a', 'bc', 150000, 'names that run together', '-'),
    ('2024-05-01 10:00:00', 'a', NULL, 300000, 'no beneficiary: no history', '-'),
    ('2024-05-01 10:00:00', 'a', 'f', 200000.01, 'at once', 'large_sum');
SELECT risk_alert.drain('5 min');
SELECT * FROM verdicts('s6');
SELECT entity, event_key FROM risk_alert.alerts WHERE stream = 's6' ORDER BY event_key::int;

--
-- S8: structuring.  More than 2 amounts from 9,000 to below 10,000 in 7 days; sum above
-- 10,000 in 24 hours of amounts below 10,000 each; whatever the channel
--
CREATE TABLE s8 (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, customer int, channel text, amount numeric(12,2), what text, expected text);
CREATE INDEX ON s8 (customer, at);
\t on
SELECT risk_alert.watch('s8', event_time => 'at', review_at => 1, suppress => '0 seconds');
SELECT risk_alert.create_feature('s8', 'band_7d', entity => 'customer', aggregate => 'count(*)', within => '7 days',
    filter => 'amount >= 9000 AND amount < 10000');
SELECT risk_alert.create_feature('s8', 'below_24h', entity => 'customer', aggregate => 'sum(amount)', within => '24 hours',
    filter => 'amount < 10000');
SELECT risk_alert.create_rule('s8', 'band', condition => 'amount >= 9000 AND amount < 10000 AND band_7d > 2', points => 50);
SELECT risk_alert.create_rule('s8', 'split', condition => 'amount < 10000 AND below_24h > 10000', points => 40);
\t off

INSERT INTO s8 (at, customer, channel, amount, what, expected) VALUES
    ('2024-05-01 10:00:00', 1, 'branch', 9000.00, 'first in the band', '-'),
    ('2024-05-03 10:00:00', 1, 'machine', 9999.99, 'second, another channel', '-'),
    ('2024-05-05 10:00:00', 1, 'branch', 9500.00, 'third', 'band'),
    ('2024-05-07 10:00:00', 1, 'branch', 10000.00, 'not in the band', '-'),
    ('2024-05-01 10:00:00', 2, 'branch', 9999.99, 'first in the band', '-'),
    ('2024-05-03 10:00:00', 2, 'branch', 10000.00, 'above the band', '-'),
    ('2024-05-05 10:00:00', 2, 'branch', 9500.00, 'second', '-'),
    ('2024-05-01 10:00:00', 3, 'branch', 8999.99, 'below the band', '-'),
    ('2024-05-03 10:00:00', 3, 'branch', 9000.00, 'first', '-'),
    ('2024-05-05 10:00:00', 3, 'branch', 9500.00, 'second', '-'),
    ('2024-05-01 10:00:00', 4, 'branch', 9100.00, 'first in the band', '-'),
    ('2024-05-04 10:00:00', 4, 'branch', 9200.00, 'second', '-'),
    ('2024-05-08 10:00:00', 4, 'branch', 9300.00, 'the first exactly 7 days before', '-'),
    ('2024-05-01 10:00:00.000001', 5, 'branch', 9100.00, 'first in the band', '-'),
    ('2024-05-04 10:00:00', 5, 'branch', 9200.00, 'second', '-'),
    ('2024-05-08 10:00:00', 5, 'branch', 9300.00, 'the first a microsecond less before', 'band'),
    ('2024-05-01 10:00:00', 6, 'branch', 4000.00, '4,000', '-'),
    ('2024-05-01 12:00:00', 6, 'machine', 6000.00, '10,000', '-'),
    ('2024-05-01 14:00:00', 6, 'machine', 0.01, '10,000.01', 'split'),
    ('2024-05-01 10:00:00', 7, 'branch', 9999.99, '9,999.99', '-'),
    ('2024-05-01 10:00:00', 7, 'machine', 0.02, '10,000.01 at the same time', 'split'),
    ('2024-05-01 10:00:00', 8, 'branch', 10000.00, 'reported anyway', '-'),
    ('2024-05-01 11:00:00', 8, 'branch', 5000.00, 'the only one below', '-'),
    ('2024-05-01 10:00:00', 9, 'branch', 9999.99, '9,999.99', '-'),
    ('2024-05-02 10:00:00', 9, 'branch', 9999.99, 'exactly 24 hours later', '-'),
    ('2024-05-03 09:59:59.999999', 9, 'branch', 9999.99, 'less than 24 hours later, third in the band', 'band+split');
SELECT risk_alert.drain('5 min');
SELECT * FROM verdicts('s8');

--
-- S9: mule account.  In 48 hours at least 80 % of what came in goes out, of
-- more than 5,000.  An account is payer in one row and payee in another: what
-- came in is the sum of the rows whose payee is this row's payer.
--
CREATE TABLE s9 (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, payer text, payee text, amount numeric(12,2), what text, expected text);
CREATE INDEX ON s9 (payer, at);
CREATE INDEX ON s9 (payee, at);
\t on
SELECT risk_alert.watch('s9', event_time => 'at', review_at => 1, suppress => '0 seconds');
SELECT risk_alert.create_feature('s9', 'paid', entity => 'payer', aggregate => 'sum(amount)', within => '48 hours');
SELECT risk_alert.create_feature('s9', 'received', entity => 'payee', aggregate => 'sum(amount)', within => '48 hours', lookup => 'payer');
SELECT risk_alert.create_feature('s9', 'senders', entity => 'payee', aggregate => 'count(DISTINCT payer)', within => '48 hours', lookup => 'payer');
SELECT risk_alert.create_rule('s9', 'pass_through', condition => 'received > 5000 AND paid >= 0.8 * received', points => 60,
    reason => '{payer} received {received} from {senders} and paid {paid}');
SELECT risk_alert.create_rule('s9', 'collector', condition => 'received > 5000 AND paid >= 0.8 * received AND senders >= 3', points => 20);
\t off

INSERT INTO s9 (at, payer, payee, amount, what, expected) VALUES
    ('2024-05-01 10:00:00', 'a', 'mule1', 3000.00, 'in: 3,000', '-'),
    ('2024-05-01 11:00:00', 'b', 'mule1', 2500.00, 'in: 5,500', '-'),
    ('2024-05-01 12:00:00', 'mule1', 'z', 4399.99, 'out: less than 80 %', '-'),
    ('2024-05-01 13:00:00', 'mule1', 'z', 0.01, 'out: exactly 80 %', 'pass_through'),
    ('2024-05-01 14:00:00', 'c', 'mule1', 1000.00, 'in: 6,500 from 3', '-'),
    ('2024-05-01 15:00:00', 'mule1', 'z', 100.00, 'out: 4,500 is less than 80 % again', '-'),
    ('2024-05-01 16:00:00', 'mule1', 'y', 700.00, 'out: 5,200 is 80 %', 'collector+pass_through'),
    ('2024-05-01 10:00:00', 'a', 'mule2', 5000.00, 'in: no more than 5,000', '-'),
    ('2024-05-01 11:00:00', 'mule2', 'z', 5000.00, 'out: all', '-'),
    ('2024-05-01 10:00:00', 'a', 'mule3', 6000.00, 'in: 6,000', '-'),
    ('2024-05-03 10:00:00', 'mule3', 'z', 6000.00, 'out exactly 48 hours later', '-'),
    ('2024-05-01 10:00:00', 'a', 'mule4', 6000.00, 'in: 6,000', '-'),
    ('2024-05-03 09:59:59.999999', 'mule4', 'z', 6000.00, 'out a microsecond earlier', 'pass_through'),
    ('2024-05-01 10:00:00', 'a', 'mule5', 6000.00, 'in: 6,000', '-'),
    ('2024-05-01 10:00:00', 'mule5', 'z', 6000.00, 'out at the same time', 'pass_through'),
    ('2024-05-01 10:00:00', 'mule6', 'z', 6000.00, 'out first', '-'),
    ('2024-05-01 11:00:00', 'a', 'mule6', 6000.00, 'then in', '-'),
    ('2024-05-01 10:00:00', 'mule7', 'mule7', 6000.00, 'to itself: both in and out', 'pass_through'),
    ('2024-05-01 10:00:00', NULL, 'mule8', 6000.00, 'in, from nobody', '-'),
    ('2024-05-01 11:00:00', NULL, 'z', 6000.00, 'out, from nobody', '-'),
    ('2024-05-01 12:00:00', 'mule8', 'z', 6000.00, 'out', 'pass_through');
SELECT risk_alert.drain('5 min');
SELECT * FROM verdicts('s9');
SELECT event_key, entity, lead_rule, r->>'text' AS reason
  FROM risk_alert.alerts, jsonb_array_elements(reasons) AS r
 WHERE stream = 's9' AND r->>'rule' = 'pass_through' ORDER BY event_key::int;

--
-- S11: a dormant account wakes.  365 days without a movement of its owner's, then
-- more than 1,000 out; interest and fees do not wake it
--
CREATE TABLE s11 (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, account int, kind text, amount numeric(12,2), what text, expected text);
CREATE INDEX ON s11 (account, at);
\t on
SELECT risk_alert.watch('s11', event_time => 'at', review_at => 1, suppress => '0 seconds');
SELECT risk_alert.create_feature('s11', 'last_moved', entity => 'account', aggregate => 'lag(at)', within => '10 years',
    filter => 'kind NOT IN (''interest'', ''fee'')');
SELECT risk_alert.create_rule('s11', 'wakes', points => 50,
    condition => 'kind = ''out'' AND amount > 1000 AND at - last_moved >= interval ''365 days''');
\t off

INSERT INTO s11 (at, account, kind, amount, what, expected) VALUES
    ('2023-03-01 00:00:00', 1, 'out', 20, 'long ago', '-'),
    ('2024-02-29 00:00:00', 1, 'out', 1000.01, 'exactly 365 days later', 'wakes'),
    ('2024-02-29 00:00:01', 1, 'out', 5000, 'awake', '-'),
    ('2023-03-01 00:00:00', 2, 'out', 20, 'long ago', '-'),
    ('2024-02-28 23:59:59.999999', 2, 'out', 5000, 'a microsecond less', '-'),
    ('2023-03-01 00:00:00', 3, 'in', 20, 'long ago', '-'),
    ('2023-09-01 00:00:00', 3, 'interest', 1, 'interest', '-'),
    ('2023-12-31 00:00:00', 3, 'fee', 5, 'fee', '-'),
    ('2024-03-01 00:00:00', 3, 'out', 5000, 'only interest and fees in between', 'wakes'),
    ('2023-03-01 00:00:00', 4, 'out', 20, 'long ago', '-'),
    ('2023-09-01 00:00:00', 4, 'in', 1, 'a deposit', '-'),
    ('2024-03-01 00:00:00', 4, 'out', 5000, 'not a year since the deposit', '-'),
    ('2023-03-01 00:00:00', 5, 'out', 20, 'long ago', '-'),
    ('2024-03-01 00:00:00', 5, 'out', 1000.00, 'not above 1,000', '-'),
    ('2023-03-01 00:00:00', 6, 'out', 20, 'long ago', '-'),
    ('2024-03-01 00:00:00', 6, 'in', 5000, 'inbound', '-'),
    ('2024-03-02 00:00:00', 6, 'out', 5000, 'a day later', '-'),
    ('2024-03-01 00:00:00', 7, 'out', 5000, 'the very first', '-'),
    ('2013-03-01 00:00:00', 8, 'out', 20, 'eleven years ago', '-'),
    ('2024-03-01 00:00:00', 8, 'out', 5000, 'beyond the window: as if the very first', '-'),
    ('2014-03-01 00:00:00.000001', 9, 'out', 20, 'just within ten years', '-'),
    ('2024-03-01 00:00:00', 9, 'out', 5000, 'ten years later', 'wakes');
SELECT risk_alert.drain('5 min');
SELECT * FROM verdicts('s11');

--
-- S12: a new account.  Younger than 1, 30, 90 days at the time of the event,
-- with different points.  The session's time zone makes no difference.
--
SET TimeZone = 'Pacific/Auckland';
CREATE TABLE s12 (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, account int, opened date, what text, expected text);
\t on
SELECT risk_alert.watch('s12', event_time => 'at', review_at => 10, deny_at => 50, suppress => '0 seconds');
SELECT risk_alert.create_rule('s12', 'day', condition => 'at - opened < interval ''1 day''', points => 50);
SELECT risk_alert.create_rule('s12', 'month', points => 30,
    condition => 'at - opened >= interval ''1 day'' AND at - opened < interval ''30 days''');
SELECT risk_alert.create_rule('s12', 'quarter', points => 10,
    condition => 'at - opened >= interval ''30 days'' AND at - opened < interval ''90 days''');
\t off

INSERT INTO s12 (at, account, opened, what, expected) VALUES
    ('2020-03-10 00:00:00+00', 1, '2020-03-10', 'opened now', 'day'),
    ('2020-03-10 23:59:59.999999+00', 1, '2020-03-10', 'just less than a day', 'day'),
    ('2020-03-11 00:00:00+00', 1, '2020-03-10', 'a day', 'month'),
    ('2020-04-08 23:59:59.999999+00', 1, '2020-03-10', 'just less than 30 days', 'month'),
    ('2020-04-09 00:00:00+00', 1, '2020-03-10', '30 days', 'quarter'),
    ('2020-06-07 23:59:59.999999+00', 1, '2020-03-10', 'just less than 90 days', 'quarter'),
    ('2020-06-08 00:00:00+00', 1, '2020-03-10', '90 days', '-'),
    ('2020-06-08 00:00:00+00', 2, NULL, 'opening unknown', '-');
SELECT risk_alert.drain('5 min');
SELECT * FROM verdicts('s12');
SET TimeZone = 'UTC';

--
-- S22: the combined score.  Rules add points and one subtracts; 0 to 19
-- approve, 20 to 79 review, from 80 deny; the rules' order is irrelevant
--
CREATE TABLE s22 (id int PRIMARY KEY, at timestamptz, flags text[], what text, expected text);
CREATE TABLE s22_reversed (LIKE s22 INCLUDING ALL);
\t on
SELECT risk_alert.watch(name::regclass, event_time => 'at', review_at => 20, deny_at => 80, suppress => '0 seconds')
  FROM (VALUES ('s22'), ('s22_reversed')) AS t(name);
SELECT risk_alert.create_rule(stream, name, format('%L = ANY (flags)', name), points => points)
  FROM (SELECT stream, name, points
          FROM (VALUES (1, 'one', 1), (2, 'nineteen', 19), (3, 'twenty', 20), (4, 'sixty', 60),
                       (5, 'hundred', 100), (6, 'trusted', -30)) AS r(n, name, points),
               (VALUES ('s22', 1), ('s22_reversed', -1)) AS s(stream, direction)
         ORDER BY stream, n * direction OFFSET 0) r;
\t off

INSERT INTO s22 (id, at, flags, what, expected) VALUES
    (1, '2024-05-01', '{}', '0', 'approve'),
    (2, '2024-05-01', '{nineteen}', '19', 'approve'),
    (3, '2024-05-01', '{nineteen,one}', '20', 'review'),
    (4, '2024-05-01', '{twenty}', '20', 'review'),
    (5, '2024-05-01', '{sixty,nineteen}', '79', 'review'),
    (6, '2024-05-01', '{sixty,nineteen,one}', '80', 'deny'),
    (7, '2024-05-01', '{twenty,sixty}', '80', 'deny'),
    (8, '2024-05-01', '{hundred}', '100', 'deny'),
    (9, '2024-05-01', '{one,nineteen,twenty,sixty,hundred}', '100', 'deny'),
    (10, '2024-05-01', '{trusted}', '0', 'approve'),
    (11, '2024-05-01', '{trusted,twenty}', '0', 'approve'),
    (12, '2024-05-01', '{trusted,sixty}', '30', 'review'),
    (13, '2024-05-01', '{trusted,hundred}', '70', 'review'),
    (14, '2024-05-01', '{trusted,hundred,nineteen}', '89', 'deny'),
    (15, '2024-05-01', '{trusted,hundred,sixty}', '100', 'deny'),
    (16, '2024-05-01', '{trusted,nineteen,twenty,one}', '10', 'approve'),
    (17, '2024-05-01', NULL, '0', 'approve');
INSERT INTO s22_reversed SELECT * FROM s22;
SELECT risk_alert.drain('5 min');
SELECT e.id, e.flags, x.score, x.decision, a.score AS alert_score, a.decision AS alert_decision, a.lead_rule,
       CASE WHEN (x.score::text, x.decision) <> (e.what, e.expected) THEN 'expected ' || e.what || ' ' || e.expected
            WHEN (a.score, a.decision) IS DISTINCT FROM (CASE WHEN x.decision <> 'approve' THEN x.score END,
                                                         CASE WHEN x.decision <> 'approve' THEN x.decision END) THEN 'alert differs'
            WHEN risk_alert.risk_score(e) <> x.score
              OR risk_alert.risk_score('s22', to_jsonb(e)) <> x.score THEN 'risk_score() differs' END AS wrong
  FROM s22 e CROSS JOIN LATERAL risk_alert.risk_assess(e) x
  LEFT JOIN risk_alert.alerts a ON a.stream = 's22' AND a.event_key = e.id::text
 ORDER BY e.id;
-- in the other order: no difference
SELECT event_key, score, decision, lead_rule, ARRAY(SELECT unnest(rules) ORDER BY 1) FROM risk_alert.alerts WHERE stream = 's22'
EXCEPT
SELECT event_key, score, decision, lead_rule, ARRAY(SELECT unnest(rules) ORDER BY 1) FROM risk_alert.alerts WHERE stream = 's22_reversed';
SELECT stream, count(*), sum(score) FROM risk_alert.alerts WHERE stream LIKE 's22%' GROUP BY 1 ORDER BY 1;

DO $$
DECLARE
    s text;
BEGIN
    FOREACH s IN ARRAY '{s1,s3,s4,s5,s6,s8,s9,s11,s12,s22,s22_reversed}'::text[] LOOP
        PERFORM risk_alert.unwatch(s);
        EXECUTE format('DROP TABLE %I', s);
    END LOOP;
END
$$;
DROP FUNCTION verdicts;
