--
-- Features and rules: definitions, errors at creation, versions
--
\set SHOW_CONTEXT never
CREATE SCHEMA fr;
SET search_path = fr, public;
CREATE TABLE pay (id bigint PRIMARY KEY, card_id int NOT NULL, merchant text, payer text, payee text,
                  amount numeric(12,2), at timestamptz NOT NULL, "Odd Name" int);
CREATE INDEX ON pay (card_id, at);
SELECT risk_alert.watch('pay', event_time => 'at');

-- claim: a feature over an indexed entity is made silently; without an index the warning holds the statement
SELECT risk_alert.create_feature('pay', 'card_n_1h', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', 'shops', entity => 'card_id', aggregate => 'count(DISTINCT merchant)',
                                 within => '10 minutes', filter => 'amount > 0', include_current => false);
SELECT risk_alert.create_feature('pay', 'shop_sum', entity => 'merchant', aggregate => 'sum(amount)', within => '7 days');
SELECT risk_alert.create_feature('pay', 'pair_avg', entity => 'card_id, merchant', aggregate => 'avg(amount)', within => '1 month');
CREATE INDEX ON pay (merchant, card_id, at);
CREATE INDEX ON pay (payee, at);
SELECT risk_alert.create_feature('pay', 'payer_got', entity => 'payee', lookup => 'payer',
                                 aggregate => 'sum(amount)', within => '48 hours');
SELECT feature, entity, lookup, aggregate, within, filter, include_current, result_type
  FROM risk_alert.features WHERE stream = 'pay' ORDER BY feature COLLATE "C";

-- claim: names are identifiers, read as SQL reads them
SELECT risk_alert.create_feature('pay', 'Card_N_2h', entity => 'card_id', aggregate => 'count(*)', within => '2 hours');
SELECT risk_alert.create_feature('pay', '"Card N"', entity => 'card_id', aggregate => 'count(*)', within => '3 hours');
SELECT feature FROM risk_alert.features WHERE stream = 'pay' AND feature ~* 'card.n' ORDER BY feature COLLATE "C";
SELECT risk_alert.create_feature('pay', 'two words', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', '', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', 'a.b', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', '1st', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', 'user', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', repeat('n', 64), entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', NULL, entity => 'card_id', aggregate => 'count(*)', within => '1 hour');

-- claim: a name is given once, and not to a column
SELECT risk_alert.create_feature('pay', 'card_n_1h', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', 'amount', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');

-- claim: windows are from 1 second to 10 years
SELECT risk_alert.create_feature('pay', 'w', entity => 'card_id', aggregate => 'count(*)', within => '0');
SELECT risk_alert.create_feature('pay', 'w', entity => 'card_id', aggregate => 'count(*)', within => '-1 hour');
SELECT risk_alert.create_feature('pay', 'w', entity => 'card_id', aggregate => 'count(*)', within => '999 milliseconds');
SELECT risk_alert.create_feature('pay', 'w', entity => 'card_id', aggregate => 'count(*)', within => '11 years');
SELECT risk_alert.create_feature('pay', 'w', entity => 'card_id', aggregate => 'count(*)', within => NULL);
SELECT risk_alert.create_feature('pay', 'w10y', entity => 'card_id', aggregate => 'count(*)', within => '10 years');
SELECT risk_alert.create_feature('pay', 'w1s', entity => 'card_id', aggregate => 'count(*)', within => '1 second');

-- claim: what does not fit is refused, with its position where it has one
SELECT risk_alert.create_feature('none', 'f', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', 'f', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', 'f', entity => 'card_id', aggregate => 'sum(merchant)', within => '1 hour');
SELECT risk_alert.create_feature('pay', 'f', entity => 'card_id', aggregate => 'median(amount)', within => '1 hour');
SELECT risk_alert.create_feature('pay', 'f', entity => 'card_id', aggregate => 'sum(amnt)', within => '1 hour');
SELECT risk_alert.create_feature('pay', 'f', entity => 'card_id', aggregate => 'count(*)', within => '1 hour', filter => 'amount');
SELECT risk_alert.create_feature('pay', 'f', entity => 'card_id', lookup => 'payer', aggregate => 'count(*)', within => '1 hour');

-- claim: an entity is a single value, neither an array nor a row, whatever domain is over it
CREATE DOMAIN tags AS text[];
CREATE TYPE pair AS (a int, b int);
CREATE TYPE level AS ENUM ('low', 'high');
CREATE TABLE odd (id int PRIMARY KEY, list text[], tags tags, pair pair, place point, span int4range, level level, at timestamptz);
SELECT risk_alert.watch('odd', event_time => 'at');
SELECT risk_alert.create_feature('odd', 'f', entity => 'list', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('odd', 'f', entity => 'id, tags', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('odd', 'f', entity => 'pair', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('odd', 'f', entity => 'place', aggregate => 'count(*)', within => '1 hour');
SET client_min_messages = error;
SELECT risk_alert.create_feature('odd', 'f', entity => 'span, level', aggregate => 'count(*)', within => '1 hour');
RESET client_min_messages;
SELECT risk_alert.create_rule('odd', 'twice', 'f > 1');
INSERT INTO odd (id, span, level, at) VALUES (1, '[1,3)', 'low', '2020-01-01'), (2, '[1,2]', 'low', '2020-01-01');
SELECT risk_alert.drain();
SELECT event_key, entity FROM risk_alert.alerts WHERE stream = 'odd';
SELECT risk_alert.unwatch('odd');
DELETE FROM risk_alert.alert WHERE stream = 'odd';

-- claim: a condition is stored with every name qualified that is not pg_catalog's, read under the caller's search_path
CREATE FUNCTION is_round(numeric) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT $1 = round($1) $$;
SELECT risk_alert.create_list('fr_trusted');
SELECT risk_alert.create_rule('pay', 'testing',
         condition => 'card_n_1h > 10 AND amount < 2 AND is_round(amount) AND NOT in_list(''fr_trusted'', merchant)',
         points => 60, severity => 'high', reason => 'card {card_id} used {card_n_1h} times');
SELECT risk_alert.create_rule('pay', 'large', 'amount > 1000');
SELECT risk_alert.create_rule('pay', 'less {than}', 'amount < 1', points => -20, severity => 'low', status => 'shadow');
SELECT rule, condition, points, severity, reason, status FROM risk_alert.rules WHERE stream = 'pay' ORDER BY rule;

-- claim: errors at creation
SELECT risk_alert.create_rule('pay', 'large', 'amount > 2000');
SELECT risk_alert.create_rule('pay', 'r', 'amont > 2000');
SELECT risk_alert.create_rule('pay', 'r', 'amount');
SELECT risk_alert.create_rule('pay', 'r', 'amount > (SELECT 1)');
SELECT risk_alert.create_rule('pay', 'r', 'random() > 0.5');
SELECT risk_alert.create_rule('pay', 'r', 'amount > 5), (SELECT count(*) FROM pg_authid');
SELECT risk_alert.create_rule('pay', 'r', 'true', reason => 'no such {thing}');
SELECT risk_alert.create_rule('pay', 'r', 'true', points => 101);
SELECT risk_alert.create_rule('pay', 'r', 'true', points => -101);
SELECT risk_alert.create_rule('pay', 'r', 'true', severity => 'huge');
SELECT risk_alert.create_rule('pay', 'r', 'true', status => 'on');
SELECT risk_alert.create_rule('pay', 'r', NULL);
SELECT risk_alert.create_rule('pay', '', 'true');
SELECT risk_alert.create_rule('none', 'r', 'true');

-- claim: alter_rule() changes only what is given
SELECT risk_alert.alter_rule('pay', 'large', points => 70, status => 'shadow');
SELECT condition, points, severity, reason, status FROM risk_alert.rules WHERE stream = 'pay' AND rule = 'large';
SELECT risk_alert.alter_rule('pay', 'large', condition => 'amount > 1500 OR shops > 3', reason => '{amount} at {shops} shops', severity => 'critical');
SELECT condition, points, severity, reason, status FROM risk_alert.rules WHERE stream = 'pay' AND rule = 'large';
SELECT risk_alert.alter_rule('pay', 'large', condition => 'bad(');
SELECT risk_alert.alter_rule('pay', 'large', points => 1000);
SELECT risk_alert.alter_rule('pay', 'larger', points => 10);

-- claim: a feature that rules use stays, whether in the condition or in the reason
SELECT risk_alert.create_rule('pay', 'told', 'amount > 10', reason => 'sum {shop_sum}');
SELECT risk_alert.drop_feature('pay', 'shops');
SELECT risk_alert.drop_feature('pay', 'shop_sum');
SELECT risk_alert.drop_feature('pay', 'Card_N_2h');
SELECT risk_alert.drop_feature('pay', '"Card N"');
SELECT risk_alert.drop_feature('pay', 'nothing');
SELECT risk_alert.drop_rule('pay', 'told');
SELECT risk_alert.drop_feature('pay', 'shop_sum');
SELECT risk_alert.drop_rule('pay', 'told');

-- claim: so it does if there is a column of its name by now, if its name has odd characters, and if the rule is broken
SELECT risk_alert.create_feature('pay', 'n', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', '"a ""b"""', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pay', '"A b"', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
CREATE FUNCTION gone(bigint) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT $1 > 0 $$;
SELECT risk_alert.create_rule('pay', 'more', 'n > 3', status => 'draft');
SELECT risk_alert.create_rule('pay', 'quoted', '"a ""b""" > 3', status => 'draft');
SELECT risk_alert.create_rule('pay', 'broken', 'gone("A b")', status => 'draft');
ALTER TABLE pay ADD COLUMN n int, ADD COLUMN "a ""b""" int;
SET client_min_messages = warning;
DROP FUNCTION gone CASCADE;
SELECT risk_alert.alter_stream('pay');
RESET client_min_messages;
SELECT risk_alert.create_rule('pay', 'column', 'event.n > 3', reason => '{event.n}', status => 'draft');
SELECT risk_alert.drop_feature('pay', 'n');
SELECT risk_alert.drop_feature('pay', '"a ""b"""');
SELECT risk_alert.drop_feature('pay', '"A b"');
SELECT risk_alert.alter_rule('pay', 'more', condition => 'amount > 3', reason => 'n {n}');
SELECT risk_alert.drop_feature('pay', 'n');
SELECT risk_alert.drop_rule('pay', r) FROM unnest('{more,quoted,broken}'::text[]) r;
SELECT risk_alert.drop_feature('pay', f) FROM (VALUES ('n'), ('"a ""b"""'), ('"A b"')) v (f);
SELECT rule, condition, reason FROM risk_alert.rules WHERE stream = 'pay' AND rule = 'column';
SELECT risk_alert.drop_rule('pay', 'column');

-- claim: what features and rules use cannot be dropped or retyped, and follows renames
ALTER TABLE pay DROP COLUMN amount;
ALTER TABLE pay ALTER COLUMN amount TYPE float8;
DROP FUNCTION is_round(numeric);
ALTER TABLE pay RENAME COLUMN amount TO sum_total;
ALTER TABLE pay RENAME COLUMN card_id TO card;
SELECT rule, condition, reason FROM risk_alert.rules WHERE stream = 'pay' ORDER BY rule;
SELECT feature, entity, aggregate, filter FROM risk_alert.features WHERE stream = 'pay' ORDER BY feature COLLATE "C";
ALTER TABLE pay RENAME COLUMN sum_total TO amount;
ALTER TABLE pay RENAME COLUMN card TO card_id;

-- claim: a change that uses nothing new leaves the dependencies untouched; one that does adds its own
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE FUNCTION mood_of(numeric) RETURNS mood LANGUAGE sql IMMUTABLE AS $$ SELECT 'calm'::fr.mood $$;
CREATE FUNCTION differ(mood, mood) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT $1 > $2 $$;
CREATE OPERATOR <<>> (LEFTARG = mood, RIGHTARG = mood, FUNCTION = differ);
CREATE COLLATION plain FROM "C";
CREATE VIEW depends AS
  SELECT d.ctid AS place, pg_describe_object(refclassid, refobjid, refobjsubid) AS used
    FROM pg_depend d JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND d.objid = t.oid
   WHERE t.tgrelid = 'pay'::regclass AND d.deptype = 'n';
CREATE TABLE depended AS SELECT * FROM depends;
SELECT used FROM depends ORDER BY used COLLATE "C";
SELECT risk_alert.create_rule('pay', 'd1', 'amount < 7 AND card_n_1h > 9 AND merchant <> ''x''');
SELECT risk_alert.alter_rule('pay', 'd1', 'amount < 8 OR is_round(amount)');
SELECT risk_alert.create_feature('pay', 'd2', entity => 'card_id', aggregate => 'max(amount)', within => '1 hour');
SELECT risk_alert.drop_feature('pay', 'd2');
(TABLE depends EXCEPT ALL TABLE depended) UNION ALL (TABLE depended EXCEPT ALL TABLE depends);
SELECT risk_alert.alter_rule('pay', 'd1', $$mood_of(amount) <<>> CASE WHEN "Odd Name" IN (1, 2) THEN 'wild'::fr.mood END
  OR coalesce(payee::fr.mood = ANY ('{calm,wild}'), merchant COLLATE plain > 'x') OR nullif(payer::varchar(3), 'y') IS NULL
  OR least(payer, 'z') IS DISTINCT FROM ARRAY[merchant]::text OR ('{' || payer || '}')::fr.mood[] @> '{calm}'$$);
SELECT used, place = ANY (SELECT place FROM depended) AS untouched FROM depends ORDER BY used COLLATE "C";

-- claim: they are what the server records (which it does itself when a rule compares rows)
CREATE TABLE known AS SELECT * FROM depends;
SELECT risk_alert.create_rule('pay', 'd3', '(amount, card_id) < (1, 2)');
SELECT bool_or(place IN (SELECT place FROM known)) AS same_rows FROM depends WHERE used NOT LIKE '%capture()';
(SELECT used FROM depends EXCEPT ALL SELECT used FROM known) UNION ALL (SELECT used FROM known EXCEPT ALL SELECT used FROM depends);
SELECT risk_alert.drop_rule('pay', 'd3');
(SELECT used FROM depends EXCEPT ALL SELECT used FROM known) UNION ALL (SELECT used FROM known EXCEPT ALL SELECT used FROM depends);

-- claim: what is no longer used can be dropped
SELECT risk_alert.drop_rule('pay', 'd1');
(SELECT used FROM depends EXCEPT ALL SELECT used FROM depended) UNION ALL (SELECT used FROM depended EXCEPT ALL SELECT used FROM depends);
DROP TABLE depended, known;
DROP VIEW depends;
DROP FUNCTION mood_of;
DROP OPERATOR <<>> (mood, mood);
DROP FUNCTION differ;
DROP TYPE mood;
DROP COLLATION plain;

-- claim: what one transaction changes is one version, and a rolled-back savepoint leaves nothing of it
SELECT max(version) AS before FROM risk_alert.rule_set_history WHERE stream = 'pay' \gset
BEGIN;
SELECT risk_alert.create_feature('pay', 'v1', entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SAVEPOINT s;
SELECT risk_alert.create_rule('pay', 'v2', 'v1 > 5');
ROLLBACK TO s;
SELECT risk_alert.create_rule('pay', 'v3', 'v1 > 6');
SELECT risk_alert.alter_stream('pay', review_at => 40);
SELECT definition FROM risk_alert.rule_set_history WHERE stream = 'pay' AND version = :before + 1;
COMMIT;
SELECT version - :before AS version, definition ->> 'review_at' AS review_at,
       jsonb_path_query_array(definition, '$.features[*].name') AS features,
       jsonb_path_query_array(definition, '$.rules[*].name') AS rules
  FROM risk_alert.rule_set_history WHERE stream = 'pay' AND version > :before;
SELECT jsonb_pretty(definition - 'features' - 'rules') FROM risk_alert.rule_set_history WHERE stream = 'pay' AND version = :before + 1;

-- claim: a transaction that fails makes no version, and one with constraints checked at once the right one
BEGIN;
SELECT risk_alert.drop_rule('pay', 'v3');
ROLLBACK;
BEGIN;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT risk_alert.alter_rule('pay', 'v3', points => 11);
SELECT risk_alert.alter_rule('pay', 'v3', points => 12);
COMMIT;
SELECT version - :before AS version, jsonb_path_query(definition, '$.rules[*] ? (@.name == "v3")') ->> 'points' AS points
  FROM risk_alert.rule_set_history WHERE stream = 'pay' AND version > :before ORDER BY 1;

-- claim: the isolation level does not matter
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT risk_alert.alter_rule('pay', 'v3', points => 13);
SELECT risk_alert.alter_rule('pay', 'v3', points => 14);
COMMIT;
SELECT version - :before AS version, jsonb_path_query(definition, '$.rules[*] ? (@.name == "v3")') ->> 'points' AS points
  FROM risk_alert.rule_set_history WHERE stream = 'pay' AND version > :before + 2 ORDER BY 1;

SELECT risk_alert.unwatch('pay');
SELECT risk_alert.drop_list('fr_trusted');
SET client_min_messages = warning;
DROP SCHEMA fr CASCADE;
