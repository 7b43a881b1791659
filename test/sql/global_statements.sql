-- Global transactions: how statements travel to nodes, over connections to this server itself

SET client_min_messages = warning;
\set SHOW_CONTEXT never

SELECT format($$CREATE SERVER node_a FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host %L, port %L, dbname %L)$$,
              split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()) AS make \gset
:make;
CREATE USER MAPPING FOR CURRENT_USER SERVER node_a;
SELECT replace(:'make', 'node_a', 'node_b') AS make \gset
:make;
CREATE USER MAPPING FOR CURRENT_USER SERVER node_b;
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
INSERT INTO account SELECT g, 100 FROM generate_series(1, 9) g;

-- claim: parameters are the same for all nodes, or a row for each
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = balance + $2 WHERE id = $1}', '{{1,-10},{2,10}}');
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = balance - $2 WHERE id = $1,UPDATE account SET balance = balance + $2 WHERE id IN ($1\, 4)}', '{{3,10},{5,5}}', prepare => true);
SELECT * FROM account WHERE balance <> 100 ORDER BY id;
SELECT risk_alert.global_execute_all('{node_a}', '{UPDATE account SET balance = $1 WHERE id = 1}', '{{100}}');
SELECT risk_alert.global_execute_all('{node_b}', '{UPDATE account SET balance = 100 WHERE id > 1}', '{}');
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT $1::int + $2::int}', '{{1,NULL},{2,3}}');
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT $1::int}', '{{1},{2},{3}}');
\echo :SQLSTATE
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT $1::int}', '{{{1}},{{2}}}');
SELECT risk_alert.global_execute_all('{{node_a,node_b}}', '{SELECT 1}');
SELECT risk_alert.global_execute('node_a', 'SELECT $1::int', '{{1},{2}}');
\echo :SQLSTATE

-- claim: what comes again and again is prepared on its connection; results don't depend on it
CREATE VIEW ours AS SELECT statement, generic_plans + custom_plans AS runs FROM pg_prepared_statements WHERE name ~ '^risk_alert statement \d+$';
CREATE TABLE seen (statement text, runs bigint);
CREATE PROCEDURE see() LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM seen;
    PERFORM risk_alert.global_execute('node_a', 'SELECT look()');
END
$$;
CREATE FUNCTION look() RETURNS void LANGUAGE sql AS 'INSERT INTO seen SELECT * FROM ours';
DO $$
BEGIN
    FOR i IN 1..10 LOOP
        ASSERT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + $1::int WHERE id <= $2::int', ARRAY[i, i]::text[]) = least(i, 9);
        PERFORM risk_alert.global_execute('node_a', format('UPDATE account SET balance = balance + %s WHERE id = 1', i));
        PERFORM risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance WHERE id = $1::int RETURNING id', '{1}');
        PERFORM risk_alert.global_execute('node_a', 'SELECT * FROM account WHERE id = $1::int', '{1}');
    END LOOP;
END
$$;
SELECT sum(balance) - 900 AS added, (SELECT sum(i * least(i, 9) + i) FROM generate_series(1, 10) i) AS wanted FROM account;
CALL see();
SELECT * FROM seen;
-- a failure of what it does changes nothing in that
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 1 WHERE id = 9');
SAVEPOINT a;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + $1::int WHERE id <= $2::int', '{-100000,9}');
\echo :SQLSTATE
ROLLBACK TO a;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + $1::int WHERE id <= $2::int', '{1,9}');
COMMIT;
SELECT balance FROM account WHERE id = 9;
CALL see();
SELECT * FROM seen;

-- claim: where it can't be prepared any more, its savepoint is as good as with any other failure
CREATE TABLE other (x int);
DO $$ BEGIN FOR i IN 1..3 LOOP PERFORM risk_alert.global_execute('node_a', 'INSERT INTO other VALUES ($1::int)', '{1}'); END LOOP; END $$;
ALTER TABLE other RENAME TO another;
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 2 WHERE id = 9');
SAVEPOINT a;
SELECT risk_alert.global_execute('node_a', 'INSERT INTO other VALUES ($1::int)', '{1}');
\echo :SQLSTATE
ROLLBACK TO a;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + 1 WHERE id = 9');
COMMIT;
SELECT balance FROM account WHERE id = 9;
ALTER TABLE another RENAME TO other;
SELECT risk_alert.global_execute('node_a', 'INSERT INTO other VALUES ($1::int)', '{1}');

-- claim: another table of the same name, another column: no matter
DROP TABLE account;
CREATE TABLE account (more text, id int, balance bigint);
INSERT INTO account VALUES ('x', 1, 5000000000);
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + $1::int WHERE id <= $2::int', '{1,1}');
SELECT * FROM account;
-- claim: what has another type now is a failure that any statement would have, or none
ALTER TABLE account ALTER id TYPE text;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + $1::int WHERE id <= $2::int', '{1,1}');
\echo :SQLSTATE
ALTER TABLE account ALTER id TYPE bigint USING id::bigint;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + $1::int WHERE id <= $2::int', '{1,1}');
SELECT * FROM account;

-- claim: a type of the same name is another one, which one transaction finds out
CREATE DOMAIN amount AS int;
DO $$ BEGIN FOR i IN 1..4 LOOP PERFORM risk_alert.global_execute('node_a', 'UPDATE account SET balance = $1::amount', '{1}'); END LOOP; END $$;
DROP DOMAIN amount;
CREATE DOMAIN amount AS bigint;
\set VERBOSITY sqlstate
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = $1::amount', '{6000000000}');
\set VERBOSITY default
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = $1::amount', '{6000000000}');
SELECT * FROM account;
DROP DOMAIN amount;

-- claim: a right that is missing is no reason to prepare it anew
CREATE TABLE guarded (x int);
CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.x = 9 THEN RAISE insufficient_privilege; END IF; RETURN NEW; END $$;
CREATE TRIGGER guard BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION guard();
DO $$ BEGIN FOR i IN 1..5 LOOP PERFORM risk_alert.global_execute('node_a', 'INSERT INTO guarded VALUES ($1::int)', '{1}'); END LOOP; END $$;
SELECT risk_alert.global_execute('node_a', 'INSERT INTO guarded VALUES ($1::int)', '{9}');
\echo :SQLSTATE
SELECT risk_alert.global_execute('node_a', 'INSERT INTO guarded VALUES ($1::int)', '{1}');
CALL see();
SELECT * FROM seen WHERE statement ~ 'guarded';
DROP TABLE guarded;
DROP FUNCTION guard;

-- claim: what would be taken for the type, or the value, of another time is not prepared
CREATE TABLE times (id int, at timestamptz, x int);
INSERT INTO times VALUES (1);
DO $$
BEGIN
    FOR i IN 1..5 LOOP
        PERFORM risk_alert.global_execute('node_a', 'UPDATE times SET at = ''now'' WHERE id = $1::int', '{1}');
        PERFORM risk_alert.global_execute('node_a', 'UPDATE times SET x = $2 WHERE id = $1', '{1,5}');
        PERFORM risk_alert.global_execute('node_a', 'UPDATE times SET x = $2 :: int WHERE id = $1  ::int', '{1,5}');
    END LOOP;
END
$$;
SELECT now() AS before \gset
SELECT risk_alert.global_execute('node_a', 'UPDATE times SET at = ''now'' WHERE id = $1::int', '{1}');
SELECT at > :'before' AS later FROM times;
ALTER TABLE times ALTER x TYPE bigint;
SELECT risk_alert.global_execute('node_a', 'UPDATE times SET x = $2 WHERE id = $1', '{1,5000000000}');
SELECT x FROM times;
CALL see();
SELECT * FROM seen WHERE statement ~ 'times';
DROP TABLE times;

-- claim: users may take prepared statements away
DO $$ BEGIN FOR i IN 1..4 LOOP PERFORM risk_alert.global_execute('node_b', 'INSERT INTO other VALUES ($1::int)', '{2}'); END LOOP; END $$;
SELECT risk_alert.global_execute('node_b', 'DEALLOCATE ALL');
SELECT risk_alert.global_execute('node_b', 'INSERT INTO other VALUES ($1::int)', '{2}');
DO $$ BEGIN FOR i IN 1..4 LOOP PERFORM risk_alert.global_execute('node_a', 'DELETE FROM other WHERE x = $1::int', '{7}'); END LOOP; END $$;
BEGIN;
SELECT risk_alert.global_execute('node_a', $$DO 'BEGIN EXECUTE ''DEALLOCATE ALL''; END'$$);
SELECT risk_alert.global_execute('node_a', 'DELETE FROM other WHERE x = $1::int', '{1}');
\echo :SQLSTATE
ROLLBACK;
SELECT risk_alert.global_execute('node_a', 'DELETE FROM other WHERE x = $1::int', '{1}');
SELECT count(*) FROM other;

-- claim: they do not become too many, nor is a long one kept
ALTER SERVER node_a OPTIONS (ADD application_name 'new');
DO $$
BEGIN
    FOR i IN 1..60 LOOP
        FOR j IN 1..5 LOOP
            ASSERT risk_alert.global_execute('node_a', format('INSERT INTO other VALUES ($1::int + %s)', i), '{1000}') = 1;
            PERFORM risk_alert.global_execute('node_a', 'INSERT INTO other VALUES ($1::int' || repeat(' + 0', 3000) || ')', '{2000}');
        END LOOP;
    END LOOP;
END
$$;
SELECT count(*), sum(x) FROM other WHERE x BETWEEN 1001 AND 1060;
CALL see();
SELECT count(*), min(runs), max(length(statement)) FROM seen;
-- more texts in turn than are remembered
ALTER SERVER node_a OPTIONS (SET application_name 'newer');
DO $$
BEGIN
    FOR j IN 1..8 LOOP
        FOR i IN 1..65 LOOP
            PERFORM risk_alert.global_execute('node_a', format('INSERT INTO other VALUES ($1::int + %s)', i), '{3000}');
        END LOOP;
    END LOOP;
END
$$;
CALL see();
SELECT count(*) FROM seen;

DROP SERVER node_a CASCADE;
DROP SERVER node_b CASCADE;
DROP TABLE account, other, seen;
DROP VIEW ours CASCADE;
DROP PROCEDURE see;
DROP FUNCTION IF EXISTS look;
