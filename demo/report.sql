-- report.sql: what came out of the demo's stream.

\pset footer off
\pset border 1
\pset linestyle unicode
SET timezone = 'UTC';

\echo '      Some alerts:'
SELECT alert_id AS alert, entity, score, decision, reason->>'rule' AS rule,
       regexp_replace(reason->>'text', '(\.\d\d)\d+', '\1', 'g') AS reason
FROM (SELECT *, row_number() OVER (PARTITION BY rules ORDER BY alert_id DESC) AS n FROM risk_alert.alerts) a,
     jsonb_array_elements(reasons) WITH ORDINALITY AS r (reason, place)
WHERE n = 1
ORDER BY score DESC, alert_id, place LIMIT 7;

\echo '      How good the rules are (judged by the labels, which no rule has seen):'
WITH streamed AS (
    SELECT p.payment_id, p.fraud_scenario, coalesce(e.rules, '{}') AS rules
    FROM payments p LEFT JOIN risk_alert.alert_events e ON e.event_key = p.payment_id::text
    WHERE p.payment_id >= :first_live
), scenario AS (
    SELECT fraud_scenario, count(*) AS n FROM streamed WHERE fraud_scenario > 0 GROUP BY fraud_scenario
), hit AS (
    SELECT rule, fraud_scenario FROM streamed, unnest(rules) rule
    UNION ALL
    SELECT 'all together', fraud_scenario FROM streamed WHERE rules <> '{}'
)
SELECT rule, count(*) AS payments, count(*) FILTER (WHERE fraud_scenario > 0) AS frauds,
       round(100.0 * count(*) FILTER (WHERE fraud_scenario > 0) / count(*)) || ' %' AS precision,
       round(100.0 * count(*) FILTER (WHERE fraud_scenario > 0) / (SELECT sum(n) FROM scenario)) || ' %' AS recall,
       round(100.0 * count(*) FILTER (WHERE fraud_scenario = 1)
             / (SELECT n FROM scenario WHERE fraud_scenario = 1)) || ' %' AS "large amounts",
       round(100.0 * count(*) FILTER (WHERE fraud_scenario = 2)
             / (SELECT n FROM scenario WHERE fraud_scenario = 2)) || ' %' AS "bad terminals",
       round(100.0 * count(*) FILTER (WHERE fraud_scenario = 3)
             / (SELECT n FROM scenario WHERE fraud_scenario = 3)) || ' %' AS "stolen cards"
FROM hit GROUP BY rule ORDER BY rule = 'all together', rule;
