-- Users' expressions: what is refused when a feature or a rule is made, with
-- position and hint; how texts are stored; and what DDL does to them.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
SET IntervalStyle = 'postgres';

CREATE SCHEMA expr;
SET search_path = expr, public;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN money_amount AS numeric(12,2) CHECK (VALUE > -1000000);
CREATE TYPE address AS (street text, city text);
CREATE TABLE pay (
    dropped     int,
    id          bigint PRIMARY KEY,
    card_id     int NOT NULL,
    merchant_id text,
    amount      numeric(12,2),
    fee         money_amount,
    at          timestamptz NOT NULL,
    "Card Kind" varchar(10),
    addr        address,
    tags        text[],
    extra       jsonb,
    feeling     mood,
    r           real,
    f           float8,
    i2          int2,
    loc         point,
    payee       int,
    device      text
);
ALTER TABLE pay DROP COLUMN dropped;
CREATE INDEX ON pay (card_id, at);
CREATE INDEX ON pay (device, card_id, at);
CREATE INDEX ON pay (merchant_id, at) WHERE amount > 0;
SELECT risk_alert.watch('pay', event_time => 'at', name => 'expr');

SELECT risk_alert.create_list('trusted'), risk_alert.create_list('x');

-- ways to look at the result
CREATE VIEW texts AS
    SELECT 'feature' AS kind, f.feature_id AS id, f.name::text, f.entity, f.lookup, f.function, f.value, f.filter AS condition,
           NULL AS reason, f.result_type
      FROM risk_alert.feature f JOIN risk_alert.stream s USING (stream_id) WHERE s.name = 'expr'
     UNION ALL
    SELECT 'rule', r.rule_id, r.name, NULL, NULL, NULL, NULL, r.condition, r.reason, NULL
      FROM risk_alert.rule r JOIN risk_alert.stream s USING (stream_id) WHERE s.name = 'expr'
     ORDER BY kind, id;
CREATE FUNCTION feature(name text, aggregate text, filter text DEFAULT NULL, within interval DEFAULT '1 hour',
                        entity text DEFAULT 'card_id', lookup text DEFAULT NULL) RETURNS void
    LANGUAGE sql RETURN risk_alert.create_feature('expr', name, entity, aggregate, within, filter, true, lookup);
CREATE FUNCTION rule(name text, condition text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE sql RETURN risk_alert.create_rule('expr', name, condition, reason => reason);

--
-- Features
--
SELECT feature('n', 'count(*)');
SELECT feature('n_amount', 'count(amount)', 'amount > 0 AND merchant_id IS NOT NULL');
SELECT feature('shops', 'COUNT( DISTINCT merchant_id )');
SELECT feature('total', 'sum(amount)');
SELECT feature('total_fee', 'sum(fee)');
SELECT feature('total_i2', 'sum(i2)');
SELECT feature('total_id', 'sum(id)');
SELECT feature('total_real', 'sum(r)');
SELECT feature('mean', 'avg(amount * 2)', '"Card Kind" = ''debit''');
SELECT feature('mean_i', 'avg(card_id)');
SELECT feature('spread', 'stddev_samp(f)');
SELECT feature('spread2', 'var_samp(i2)');
SELECT feature('least', 'min(amount)');
SELECT feature('latest', 'max(at)');
SELECT feature('lag_day', 'max(at::date)');
SELECT feature('previous', 'lag(merchant_id)');
SELECT feature('previous_kind', 'lag("Card Kind")');
SELECT feature('first_feeling', 'first(pay.feeling)');
SELECT feature('first_addr', 'first((addr).city)');
SELECT feature('by_two', 'count(*)', entity => 'card_id, device');
SELECT feature('by_two_again', 'sum(1)', entity => ' "device" ,CARD_ID');
SELECT feature('paid_in', 'sum(event.amount)', entity => 'payee', lookup => 'card_id');
SELECT name, entity, lookup, function, value, condition AS filter, result_type FROM texts;

-- refused: not an aggregate of ours
SELECT feature('bad', '');
SELECT feature('bad', 'amount');
SELECT feature('bad', 'median(amount)');
SELECT feature('bad', 'count(*) + 1');
SELECT feature('bad', 'count(*), sum(amount)');
SELECT feature('bad', 'count(');
SELECT feature('bad', 'count()');
SELECT feature('bad', 'sum(*)');
SELECT feature('bad', 'lag(amount, 2)');
SELECT feature('bad', 'sum(DISTINCT amount)');
SELECT feature('bad', 'sum(x => amount)');
SELECT feature('bad', 'sum(amount ORDER BY at)');
SELECT feature('bad', 'sum(amount) FILTER (WHERE amount > 0)');
SELECT feature('bad', 'sum(amount) OVER ()');
SELECT feature('bad', 'public.sum(amount)');
SELECT feature('bad', 'count_distinct(amount)');
-- refused: the value
SELECT feature('bad', 'sum(amout)');
SELECT feature('bad', 'sum(merchant_id)');
SELECT feature('bad', 'avg(at - at)');
SELECT feature('bad', 'max(merchant_id)');
SELECT feature('bad', 'count(DISTINCT loc)');
SELECT feature('bad', 'lag(ROW(card_id, amount))');
SELECT feature('bad', 'sum(n)');
SELECT feature('bad', 'sum(amount * random())');
SELECT feature('bad', 'sum(extract(epoch FROM now() - at))');
SELECT feature('bad', 'sum(amount / (1/0))');
SELECT feature('bad', 'count(pay)');
SELECT feature('bad', 'count(pay.*)');
SELECT feature('bad', 'count(xmin)');
SELECT feature('bad', 'count(other.amount)');
SELECT feature('bad', 'count(addr.city)');
SELECT feature('bad', 'sum(sum(amount))');
-- refused: the filter
SELECT feature('bad', 'count(*)', 'amount');
SELECT feature('bad', 'count(*)', 'n > 1');
SELECT feature('bad', 'count(*)', 'at > CURRENT_TIMESTAMP');
SELECT feature('bad', 'count(*)', 'risk_alert.in_list(''x'', merchant_id)');
SELECT feature('bad', 'count(*)', 'amount > 0 extra');
-- refused: columns and window
SELECT feature('bad', 'count(*)', entity => 'card');
SELECT feature('bad', 'count(*)', entity => 'card_id, card_id');
SELECT feature('bad', 'count(*)', entity => 'card_id +');
SELECT feature('bad', 'count(*)', entity => '');
SELECT feature('bad', 'count(*)', entity => 'loc');
SELECT feature('bad', 'count(*)', entity => 'card_id', lookup => 'merchant_id');
SELECT feature('bad', 'count(*)', entity => 'card_id', lookup => 'card_id, payee');
SELECT feature('bad', 'count(*)', within => '0');
SELECT feature('bad', 'count(*)', within => '-1 hour');
SELECT feature('bad', 'count(*)', within => '0.9 seconds');
SELECT feature('bad', 'count(*)', within => '1 month -1 day');
SELECT feature('bad', 'count(*)', within => '10 years 1 second');
SELECT feature('ten_years', 'count(*)', within => '10 years');
SELECT risk_alert.drop_feature('expr', 'ten_years');

--
-- Conditions
--
SELECT rule('plain', 'n > 10 AND amount < 2 AND NOT in_list(''trusted'', merchant_id)');
SELECT rule('literals', '"Card Kind" = ''$1 is {not} a "feature"'' OR merchant_id = E''back\\slash''');
SELECT rule('time', 'at > ''2024-03-31 02:30 Europe/Berlin'' AND extract(hour FROM at) < 6 AND at::date <> ''2024-12-24''');
SELECT rule('kinds', 'feeling = ''sad'' AND tags && ARRAY[''a'',''b''] AND extra->>''k'' = ''v'' AND (addr).city LIKE ''B%''');
SELECT rule('case', 'CASE WHEN shops > 3 THEN total > 100 ELSE previous IS DISTINCT FROM merchant_id END');
SELECT rule('in', 'card_id IN (1, 2, 3) AND amount BETWEEN 1 AND 2 AND coalesce(total, 0) > greatest(1, mean)');
SELECT rule('qualified', 'pay.amount > 1 AND expr.pay.card_id = 7 AND event.payee IS NULL');
SELECT rule('true', 'true');
SELECT rule('null', 'NULL');
SELECT rule('domain', 'amount > 5::money_amount');
SELECT name, condition FROM texts WHERE kind = 'rule';

-- literals mean what they mean in the session, and are stored absolutely
SET TimeZone = 'America/New_York';
SET DateStyle = 'SQL, DMY';
SET standard_conforming_strings = off;
SET quote_all_identifiers = on;
SET extra_float_digits = -3;
SELECT rule('new_york', 'at > ''01/02/2024'' AND f > 0.1::float8 AND merchant_id <> ''a''''b''');
RESET quote_all_identifiers;
RESET standard_conforming_strings;
RESET extra_float_digits;
RESET DateStyle;
RESET TimeZone;
SELECT condition FROM texts WHERE name = 'new_york';

-- refused
SELECT rule('bad', '');
SELECT rule('bad', 'card_tx > 10');
SELECT rule('bad', 'N_amounts > 10');
SELECT rule('bad', 'amount > 10 AND card_idd = 1');
SELECT rule('bad', 'card_id > 10 AND zzz');
SELECT rule('bad', 'amount >');
SELECT rule('bad', 'amount > 1; DROP TABLE pay');
SELECT rule('bad', 'amount > 1, 2');
SELECT rule('bad', 'amount > 1 AS x');
SELECT rule('bad', 'amount > 1 FROM pay');
SELECT rule('bad', 'amount > 1 LIMIT 1');
SELECT rule('bad', 'amount > 1 UNION SELECT true');
SELECT rule('bad', 'amount');
SELECT rule('bad', '''maybe''');
SELECT rule('bad', 'amount > merchant_id');
SELECT rule('bad', 'amount > ''x''');
SELECT rule('bad', 'card_id > 1 AND amount > (SELECT 1)');
SELECT rule('bad', 'EXISTS (SELECT FROM pg_authid)');
SELECT rule('bad', 'amount IN (SELECT 1)');
SELECT rule('bad', 'amount > 1 AND random() < 0.5');
SELECT rule('bad', 'clock_timestamp() > at');
SELECT rule('bad', 'nextval(''s'') > 1');
SELECT rule('bad', 'risk_alert.risk_score(''expr'', extra) > 1');
SELECT rule('bad', 'sum(amount) > 1');
SELECT rule('bad', 'amount > 1 AND rank() OVER () > 1');
SELECT rule('bad', 'generate_series(1, 3) > amount');
SELECT rule('bad', 'amount > $1');
SELECT rule('bad', 'pay IS NULL');
SELECT rule('bad', 'pay.* IS NULL');
SELECT rule('bad', '* IS NULL');
SELECT rule('bad', 'ctid IS NULL');
SELECT rule('bad', 'new.amount > 1');
SELECT rule('bad', 'no_such_function(amount)');
SELECT rule('bad', 'amount > 1 AND 1/0 = 1');
SELECT rule('bad', 'merchant_id = ANY (tags) AND nosuch.x = 1');
SELECT rule('bad', 'lag(amount) > 1');
SELECT rule('bad', E'amount > 1\n   AND amonut < 2');

-- reasons
SELECT risk_alert.alter_rule('expr', 'plain', reason => 'card {card_id} of {CARD KIND} { "Card Kind" }: {n}{amount} {{braces}} }');
SELECT reason FROM texts WHERE name = 'plain';
SELECT risk_alert.alter_rule('expr', 'plain', reason => 'card {Card Kind} {N_Amount} {event.amount}');
SELECT reason FROM texts WHERE name = 'plain';
SELECT risk_alert.alter_rule('expr', 'plain', reason => 'used {n_amout} times');
SELECT risk_alert.alter_rule('expr', 'plain', reason => 'used {n times');
SELECT risk_alert.alter_rule('expr', 'plain', reason => 'used {} times');

-- a function that becomes volatile, or goes, or is not allowed
CREATE FUNCTION is_round(numeric) RETURNS bool LANGUAGE sql IMMUTABLE RETURN $1 % 100 = 0;
CREATE FUNCTION score(numeric) RETURNS numeric LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1; END';
CREATE FUNCTION pg_temp.mine(numeric) RETURNS bool LANGUAGE sql IMMUTABLE RETURN true;
SELECT rule('bad', 'pg_temp.mine(amount)');
SELECT feature('bad', 'sum(score(amount))');
SELECT feature('round_sum', 'sum(amount)', 'is_round(amount)');
SELECT rule('round', 'is_round(amount) AND score(amount) > 1');
SELECT name, condition FROM texts WHERE name LIKE 'round%';
DROP FUNCTION is_round;
DROP FUNCTION score;
ALTER FUNCTION score VOLATILE;
SELECT risk_alert.alter_rule('expr', 'plain', points => 51);
ALTER FUNCTION score STABLE;

--
-- What DDL does
--
ALTER TABLE pay DROP COLUMN amount;
ALTER TABLE pay DROP COLUMN device;
ALTER TABLE pay DROP COLUMN at;
ALTER TABLE pay ALTER COLUMN amount TYPE float8;
ALTER TABLE pay ALTER COLUMN "Card Kind" TYPE text;
ALTER TABLE pay ALTER COLUMN id TYPE numeric;
-- not used by anything
ALTER TABLE pay ALTER COLUMN loc TYPE text;
ALTER TABLE pay DROP COLUMN loc;

-- renaming follows, in expressions, entities, look-ups, reasons, key and time
ALTER TABLE pay RENAME amount TO "Amount $1";
ALTER TABLE pay RENAME card_id TO n_card;
ALTER TABLE pay RENAME "Card Kind" TO kind;
ALTER TABLE pay RENAME at TO event_time;
ALTER TABLE pay RENAME id TO pay_id;
SELECT name, entity, lookup, value, condition, reason FROM texts WHERE name IN ('n_amount', 'mean', 'paid_in', 'plain', 'kinds', 'time');
SELECT key, event_time FROM risk_alert.stream WHERE name = 'expr';
-- onto a feature's name: the rule still means the feature, and the column
ALTER TABLE pay RENAME "Amount $1" TO total;
SELECT name, condition, reason FROM texts WHERE name IN ('plain', 'case', 'in', 'total');
ALTER TABLE pay RENAME total TO amount;
SELECT name, condition, reason FROM texts WHERE name IN ('plain', 'case', 'in', 'total');
-- the table itself, its schema, functions and types
ALTER TABLE pay RENAME TO payment;
ALTER SCHEMA expr RENAME TO expr2;
SET search_path = expr2, public;
ALTER FUNCTION is_round(numeric) RENAME TO "is round";
ALTER FUNCTION score(numeric) SET SCHEMA public;
ALTER TYPE address RENAME ATTRIBUTE city TO town;
SELECT rule('renamed', 'payment.amount > 1');
SELECT name, value, condition FROM texts WHERE name IN ('renamed', 'round', 'round_sum', 'kinds', 'first_addr', 'domain');
-- every change has made a version, whoever made it
SELECT version, jsonb_path_query_first(definition, '$.rules[*] ? (@.name == "kinds").condition') AS kinds
  FROM risk_alert.rule_set WHERE stream = 'expr' ORDER BY version DESC LIMIT 3;

-- operators of other schemas
CREATE TYPE weight AS (grams numeric);
CREATE FUNCTION heavier(weight, weight) RETURNS bool LANGUAGE sql IMMUTABLE RETURN $1.grams > $2.grams;
CREATE FUNCTION as_heavy(weight, weight) RETURNS bool LANGUAGE sql IMMUTABLE RETURN round($1.grams) = round($2.grams);
CREATE OPERATOR > (LEFTARG = weight, RIGHTARG = weight, FUNCTION = heavier);
CREATE OPERATOR = (LEFTARG = weight, RIGHTARG = weight, FUNCTION = as_heavy);
ALTER TABLE payment ADD COLUMN w weight;
SELECT rule('heavy', 'w > ROW(10)::weight AND NOT w = ROW(100)::weight');
SELECT condition FROM texts WHERE name = 'heavy';
SELECT rule('bad', 'w IS DISTINCT FROM ROW(100)::weight');
DROP OPERATOR > (weight, weight);
DROP TYPE weight;

-- CASCADE drops the triggers that depend on what is dropped; what no longer works is told
ALTER TABLE payment DROP COLUMN tags;
ALTER TABLE payment DROP COLUMN tags CASCADE;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'payment'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT risk_alert.alter_rule('expr', 'true', points => 7);
SELECT risk_alert.alter_stream('expr');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'payment'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT risk_alert.drop_rule('expr', 'kinds');

--
-- Rights
--
CREATE ROLE regress_expr_admin;
CREATE ROLE regress_expr_other;
GRANT risk_alert_admin TO regress_expr_admin;
GRANT USAGE, CREATE ON SCHEMA expr2 TO regress_expr_admin, regress_expr_other;
GRANT SELECT ON payment TO regress_expr_admin;
CREATE FUNCTION forbidden(numeric) RETURNS bool LANGUAGE sql IMMUTABLE RETURN true;
REVOKE ALL ON FUNCTION forbidden(numeric) FROM PUBLIC;
SET ROLE regress_expr_other;
CREATE FUNCTION others(numeric) RETURNS bool LANGUAGE sql IMMUTABLE RETURN true;
SET ROLE regress_expr_admin;
SELECT risk_alert.create_rule('expr', 'bad', 'forbidden(amount)');
SELECT risk_alert.create_rule('expr', 'by_admin', 'others(amount) AND amount > 1', reason => '{merchant_id}');
-- a search_path finds what it finds for the caller, not for the owner of a function
SET search_path = expr2;
SELECT risk_alert.create_rule('expr', 'by_path', 'others(amount) AND NOT in_list(''x'', merchant_id)');
SET search_path = '';
SELECT risk_alert.create_rule('expr', 'bad', 'others(amount)');
SELECT risk_alert.create_rule('expr', 'no_path', 'NOT in_list(''x'', merchant_id)');
RESET ROLE;
SET search_path = expr2, public;
-- a superuser must not run what another role can change
SELECT rule('bad', 'others(amount)');
SELECT rulename, owner FROM (SELECT name AS rulename, owner FROM risk_alert.rule) r WHERE rulename LIKE 'by%' OR rulename = 'no_path' ORDER BY 1;
-- rights that are taken away
REVOKE EXECUTE ON FUNCTION others(numeric) FROM PUBLIC;
REVOKE SELECT ON payment FROM regress_expr_admin;
SELECT risk_alert.alter_rule('expr', 'true', points => 9);
GRANT SELECT (amount) ON payment TO regress_expr_admin;
GRANT EXECUTE ON FUNCTION others(numeric) TO regress_expr_admin;
SELECT risk_alert.alter_rule('expr', 'true', points => 10);
-- an owner that is gone
UPDATE risk_alert.rule SET owner = 4294967295::oid WHERE name = 'no_path';
SELECT risk_alert.alter_rule('expr', 'true', points => 11);

SELECT risk_alert.drop_rule('expr', name) FROM risk_alert.rule WHERE name IN ('by_admin', 'by_path', 'no_path') ORDER BY name;

-- limits: 64 different values of an entity
DO $$
BEGIN
    FOR i IN 1 .. 30 LOOP
        PERFORM feature('many_' || i, 'sum(f + ' || i || ')', entity => 'n_card');
    END LOOP;
END
$$;
SELECT count(*) > 30 AS made FROM texts WHERE kind = 'feature';
DO $$
BEGIN
    FOR i IN 31 .. 80 LOOP
        PERFORM feature('many_' || i, 'sum(f + ' || i || ')', entity => 'n_card');
    END LOOP;
END
$$;

-- the table goes
DROP TABLE payment;
SELECT rule('bad', 'amount > 1');
SELECT risk_alert.unwatch('expr');
SELECT risk_alert.drop_list('trusted'), risk_alert.drop_list('x');
SET client_min_messages = warning;
DROP SCHEMA expr2 CASCADE;
DROP FUNCTION public.score(numeric);
DROP ROLE regress_expr_admin;
DROP ROLE regress_expr_other;
