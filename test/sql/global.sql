-- Global transactions with branches on this server itself, over connections to itself.  What
-- takes several servers, and their deaths, is in tap/300_global.pl.

SET client_min_messages = warning;
\set SHOW_CONTEXT never

SELECT format($$CREATE SERVER node_a FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host %L, port %L, dbname %L)$$,
              split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()) AS make \gset
:make;
CREATE USER MAPPING FOR CURRENT_USER SERVER node_a;
-- a second branch on the same server
SELECT replace(:'make', 'node_a', 'node_b') AS make \gset
:make;
CREATE USER MAPPING FOR CURRENT_USER SERVER node_b;
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
INSERT INTO account SELECT g, 100 FROM generate_series(1, 9) g;

-- claim: all commit, or none
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance - 10 WHERE id = 1');
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = balance + $1::int WHERE id = $2::int', '{10,2}');
SELECT * FROM account WHERE balance <> 100;
COMMIT;
SELECT * FROM account WHERE balance <> 100 ORDER BY id;
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance - 10 WHERE id = 1');
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = balance + 10 WHERE id = 2');
ROLLBACK;
SELECT * FROM account WHERE balance <> 100 ORDER BY id;

-- claim: rows are counted, affected or returned
SELECT risk_alert.global_execute('node_a', 'SELECT * FROM account');
SELECT risk_alert.global_execute('node_a', 'SELECT FROM generate_series(1, 100000)');
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance RETURNING id');
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 0 WHERE false');
SELECT risk_alert.global_execute('node_a', 'CREATE TABLE made (x text)');
SELECT risk_alert.global_execute('node_a', 'INSERT INTO made VALUES ($1)', '{NULL}');
SELECT risk_alert.global_execute('node_a', '');
SELECT x IS NULL FROM made;
DROP TABLE made;

-- claim: the caller's own writes are part of it
BEGIN;
UPDATE account SET balance = balance - 10 WHERE id = 3;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + 10 WHERE id = 4');
COMMIT;
SELECT * FROM account WHERE id IN (3, 4) ORDER BY id;
BEGIN;
UPDATE account SET balance = balance - 10 WHERE id = 3;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + 10 WHERE id = 4');
ROLLBACK;
SELECT * FROM account WHERE id IN (3, 4) ORDER BY id;

-- claim: so are savepoints
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 51 WHERE id = 5');
SAVEPOINT a;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 61 WHERE id = 6');
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 71 WHERE id = 7');
ROLLBACK TO a;
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 81 WHERE id = 8');
SAVEPOINT b;
SAVEPOINT c;
SAVEPOINT d;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 91 WHERE id = 9');
RELEASE d;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + 1 WHERE id = 9');
ROLLBACK TO b;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 62 WHERE id = 6');
RELEASE a;
COMMIT;
SELECT * FROM account WHERE id BETWEEN 5 AND 9 ORDER BY id;

-- claim: a rolled-back savepoint frees the branch from its error
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 52 WHERE id = 5');
SAVEPOINT a;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = -1 WHERE id = 5');
\echo :SQLSTATE
ROLLBACK TO a;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + 1 WHERE id = 5');
COMMIT;
SELECT balance FROM account WHERE id = 5;

-- claim: only what has written is prepared, whatever the statement looks like
CREATE FUNCTION writes(int) RETURNS int LANGUAGE sql AS 'UPDATE account SET balance = balance WHERE id = $1 RETURNING id';
SELECT count(*) AS decisions FROM risk_alert.global_commit \gset
BEGIN;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = balance WHERE id = 1,UPDATE account SET balance = balance WHERE false}');
COMMIT;
BEGIN;
SELECT risk_alert.global_execute('node_a', 'SELECT 1'), risk_alert.global_execute('node_b', 'INSERT INTO account VALUES (1, 1) ON CONFLICT DO NOTHING');
COMMIT;
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance WHERE id = 1');
SAVEPOINT a;
SELECT risk_alert.global_execute('node_b', 'DELETE FROM account WHERE id = 0 AND id / 0 > 0 OR 1 / (id - id) > 0');
ROLLBACK TO a;
COMMIT;
SELECT count(*) - :decisions AS two_phases FROM risk_alert.global_commit;
CREATE FUNCTION prepared() RETURNS text LANGUAGE sql AS 'SELECT participants FROM risk_alert.global_commit ORDER BY number DESC LIMIT 1';
BEGIN;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = balance WHERE id = 1,SELECT writes(2)}');
COMMIT;
SELECT prepared();
BEGIN;
UPDATE account SET balance = balance WHERE id = 3;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance WHERE false'), risk_alert.global_execute('node_b', '/* a comment */ DELETE FROM account WHERE id = 9');
SELECT risk_alert.global_execute('node_b', 'SELECT 1');
COMMIT;
SELECT prepared();
BEGIN;
SELECT risk_alert.global_execute('node_a', 'INSERT INTO account VALUES (9, 100) RETURNING id'),
	risk_alert.global_execute('node_b', 'WITH u AS (UPDATE account SET balance = balance WHERE id = 8 RETURNING id) SELECT * FROM u');
COMMIT;
SELECT prepared();

-- claim: also what has written though it affects no row: it is not committed before the decision
CREATE TABLE inbox (id int);
CREATE FUNCTION divert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE account SET balance = balance WHERE id = NEW.id; RETURN NULL; END';
CREATE TRIGGER divert BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION divert();
BEGIN;
SELECT risk_alert.global_execute_all('{node_b,node_a}', '{INSERT INTO inbox VALUES (2),UPDATE account SET balance = balance WHERE id = 1}');
COMMIT;
SELECT prepared();
BEGIN;
UPDATE account SET balance = balance WHERE id = 3;
SELECT risk_alert.global_execute('node_b', 'INSERT INTO inbox VALUES (4)');
SAVEPOINT a;
SELECT risk_alert.global_execute('node_b', 'INSERT INTO inbox VALUES (1 / 0)');
ROLLBACK TO a;
COMMIT;
SELECT prepared();
-- (with a caller that fails at the end, that one has failed, too)
CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''too late''; END';
CREATE CONSTRAINT TRIGGER fails AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.id = 5) EXECUTE FUNCTION fails();
CREATE OR REPLACE FUNCTION divert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE account SET balance = balance + 1 WHERE id = NEW.id; RETURN NULL; END';
SELECT balance AS before FROM account WHERE id = 6 \gset
BEGIN;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = balance WHERE id = 5,INSERT INTO inbox VALUES (6)}');
COMMIT;
SELECT balance - :before AS changed FROM account WHERE id = 6;
DROP TRIGGER fails ON account;

-- claim: several nodes at the same time: each statement ends only when the other one has begun
CREATE FUNCTION meet(mine int, other int) RETURNS SETOF int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock(mine);
    FOR i IN 1..1000 LOOP
        EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = other AND granted);
        IF i = 1000 THEN
            RAISE 'nobody else is here';
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN QUERY SELECT generate_series(1, mine);
END
$$;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT * FROM meet(4711\,4712),SELECT * FROM meet(4712\,4711)}');
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT pg_advisory_unlock_all()}');
DROP FUNCTION meet;
BEGIN;
SELECT risk_alert.global_execute_all('{node_a,node_b}',
    ARRAY['UPDATE account SET balance = balance + $1::int WHERE id = 1', 'UPDATE account SET balance = balance + $1::int WHERE id BETWEEN 2 AND 4'], '{1000}');
COMMIT;
SELECT risk_alert.global_execute_all('{node_a}', '{UPDATE account SET balance = balance - 1000 WHERE balance >= 1000}');
-- claim: one that fails fails all, and a savepoint frees all from it
BEGIN;
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 51 WHERE id = 5');
SAVEPOINT a;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = -1 WHERE id = 6,UPDATE account SET balance = 71 WHERE id = 7}');
\echo :SQLSTATE
ROLLBACK TO a;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 61 WHERE id = 6,SELECT}');
SAVEPOINT b;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT 1/0,COMMIT}');
ROLLBACK TO b;
SELECT risk_alert.global_execute_all('{node_b,node_a}', '{SELECT,SELECT 1/0}');
ROLLBACK TO b;
SET LOCAL statement_timeout = '100ms';
SELECT risk_alert.global_execute_all('{node_b,node_a}', '{UPDATE account SET balance = 88 WHERE id = 8,SELECT pg_sleep(60)}');
ROLLBACK TO b;
\set VERBOSITY sqlstate
SELECT risk_alert.global_execute_all('{node_b,node_a}', '{UPDATE account SET balance = balance + 1 WHERE id IN (5\,6)}');
\set VERBOSITY default
ROLLBACK TO b;
SELECT risk_alert.global_execute_all('{node_b,node_a}', '{UPDATE account SET balance = balance + 1 WHERE id = 5,UPDATE account SET balance = balance + 1 WHERE id = 6}');
COMMIT;
SELECT * FROM account WHERE id BETWEEN 5 AND 8 ORDER BY id;
SET statement_timeout = '20s';
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT pg_sleep(60),COPY account TO STDOUT}');
RESET statement_timeout;
-- claim: prepare => true prepares the branches with the statements, if they would have to be
BEGIN;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 52 WHERE id = 5,UPDATE account SET balance = 63 WHERE id = 6}', prepare => true);
SELECT count(*) FROM pg_prepared_xacts;
-- claim: nothing more runs there, as any error would be the end of it
SELECT risk_alert.global_execute('node_a', 'SELECT 1');
\echo :SQLSTATE
ROLLBACK;
SELECT count(*) FROM pg_prepared_xacts;
SELECT * FROM account WHERE id IN (5, 6) ORDER BY id;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 53 WHERE id = 5,UPDATE account SET balance = 63 WHERE id = 6}', prepare => true);
BEGIN;
UPDATE account SET balance = 71 WHERE id = 7;
SAVEPOINT a;
-- not in a savepoint, which could not be rolled back alone
SELECT risk_alert.global_execute_all('{node_a}', '{UPDATE account SET balance = 81 WHERE id = 8}', prepare => true);
SELECT count(*) FROM pg_prepared_xacts;
RELEASE a;
SELECT risk_alert.global_execute_all('{node_a}', '{UPDATE account SET balance = 82 WHERE id = 8}', prepare => true);
SELECT count(*) FROM pg_prepared_xacts;
SAVEPOINT b;
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 91 WHERE id = 9');
SELECT risk_alert.global_execute('node_a', 'SELECT 1');
ROLLBACK TO b;
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 92 WHERE id = 9');
COMMIT;
SELECT * FROM account WHERE id >= 5 ORDER BY id;
-- not one that is alone
BEGIN;
SELECT risk_alert.global_execute_all('{node_a}', '{UPDATE account SET balance = 83 WHERE id = 8}', prepare => true);
SELECT count(*) FROM pg_prepared_xacts;
COMMIT;
-- claim: whatever fails, nothing stays
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 0 WHERE id = 5,UPDATE account SET balance = -1 WHERE id = 6}', prepare => true);
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 0 WHERE id = 5,CREATE TEMPORARY TABLE temporary (x int)}', prepare => true);
SELECT 1 / ((risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 0 WHERE id = 5,UPDATE account SET balance = 0 WHERE id = 6}', prepare => true))[1] - 1);
SET statement_timeout = '100ms';
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 0 WHERE id = 5,SELECT pg_sleep(60)}', prepare => true);
RESET statement_timeout;
\set VERBOSITY terse
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 0 WHERE id = 5,SELECT pg_terminate_backend(pg_backend_pid())}', prepare => true);
\set VERBOSITY default
BEGIN;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 0 WHERE id = 5,UPDATE account SET balance = 0 WHERE id = 6}', prepare => true);
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT 1}', prepare => true);
COMMIT;
SELECT count(*) FROM pg_prepared_xacts;
SELECT * FROM account WHERE id IN (5, 6, 8) ORDER BY id;
-- claim: a cursor that fails in a savepoint later does not take the transaction's lock along, without which recovery would roll back
BEGIN;
DECLARE c CURSOR FOR SELECT CASE g WHEN 1 THEN risk_alert.global_execute_all('{node_a,node_b}', '{UPDATE account SET balance = 54 WHERE id = 5,UPDATE account SET balance = 64 WHERE id = 6}', prepare => true)
    ELSE ARRAY[1 / (g - 2)] END FROM generate_series(1, 2) g;
FETCH c;
SAVEPOINT a;
FETCH c;
ROLLBACK TO a;
DO $$
DECLARE
    long_ago timestamptz := clock_timestamp() + interval '2 s';     -- recovery looks at what is older than a second
BEGIN
    FOR i IN 1..1000 LOOP
        EXIT WHEN (SELECT min(last_run) > long_ago FROM risk_alert.stat_recovery);
        PERFORM pg_sleep(0.05);
    END LOOP;
END
$$;
COMMIT;
SELECT * FROM account WHERE id IN (5, 6) ORDER BY id;
DO $$
BEGIN
    FOR i IN 1..1000 LOOP
        EXIT WHEN (SELECT max(waiting) = 0 FROM risk_alert.stat_recovery);
        PERFORM pg_sleep(0.05);
    END LOOP;
END
$$;
-- claim: what only reads is prepared and committed all the same, READ ONLY, too
BEGIN READ ONLY;
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT * FROM account}', prepare => true);
COMMIT;
SELECT count(*) FROM pg_prepared_xacts;
SELECT risk_alert.global_execute_all('{}', '{SELECT 1}');
SELECT risk_alert.global_execute_all('{node_a,node_b,node_a}', '{SELECT 1}');
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{SELECT 1,SELECT 1,SELECT 1}');
SELECT risk_alert.global_execute_all('{node_a,node_b}', '{}');
SELECT risk_alert.global_execute_all('{node_a,NULL}', '{SELECT 1}');
SELECT risk_alert.global_execute_all('{node_a}', NULL);
SELECT risk_alert.global_execute_all('{node_a}', '{SELECT $1::int}', NULL);

-- claim: any nesting of blocks, some of which fail, does on the branch what it does here
CREATE TABLE nested (id int, there bool);
CREATE FUNCTION nest(depth int, INOUT seed int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..3 LOOP
        seed := (seed::bigint * 1103515245 + 12345) % 2147483647;
        BEGIN
            IF seed % 2 = 0 THEN
                INSERT INTO nested VALUES (seed, false);
                PERFORM risk_alert.global_execute('node_a', 'INSERT INTO nested VALUES ($1::int, true)', ARRAY[seed::text]);
            END IF;
            IF depth < 4 THEN
                seed := nest(depth + 1, seed);
            END IF;
            IF seed % 5 = 0 THEN
                PERFORM risk_alert.global_execute('node_a', 'SELECT 1/0');
            ELSIF seed % 7 = 0 THEN
                RAISE division_by_zero;
            END IF;
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
    END LOOP;
END
$$;
SELECT count(nest(1, g)) FROM generate_series(1, 30) g;
SELECT count(*) > 100 AS many, count(*) FILTER (WHERE there) = count(*) FILTER (WHERE NOT there) AS same_number FROM nested;
SELECT id FROM nested GROUP BY id HAVING count(*) FILTER (WHERE there) <> count(*) FILTER (WHERE NOT there);
DROP FUNCTION nest;
DROP TABLE nested;

-- claim: many blocks one after the other do not pile up savepoints
DO $$
BEGIN
    FOR i IN 1..2000 LOOP
        BEGIN
            PERFORM risk_alert.global_execute('node_a', 'UPDATE account SET balance = $1::int WHERE id = 1', ARRAY[i::text]);
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
    END LOOP;
END
$$;
SELECT balance FROM account WHERE id = 1;

-- claim: a node that can't be reached fails only what needs it
CREATE SERVER node_x FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host 'localhost', port '1');
CREATE USER MAPPING FOR CURRENT_USER SERVER node_x OPTIONS (password_required 'false');
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 53 WHERE id = 5');
DO $$
BEGIN
    PERFORM risk_alert.global_execute('node_x', 'SELECT 1');
EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN RAISE WARNING 'not there';
END
$$;
COMMIT;
SELECT balance FROM account WHERE id = 5;

-- claim: a branch whose connection is lost spoils the transaction, unless all it did is rolled back
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 54 WHERE id = 5');
SAVEPOINT a;
\set VERBOSITY terse
SELECT risk_alert.global_execute('node_a', 'SELECT pg_terminate_backend(pg_backend_pid())');
\echo :SQLSTATE
ROLLBACK TO a;
SELECT risk_alert.global_execute('node_a', 'SELECT 1');
ROLLBACK TO a;
COMMIT;
\echo :SQLSTATE
SELECT balance FROM account WHERE id = 5;
BEGIN;
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 55 WHERE id = 5');
SAVEPOINT a;
SELECT risk_alert.global_execute('node_a', 'SELECT pg_terminate_backend(pg_backend_pid())');
ROLLBACK TO a;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 65 WHERE id = 6');
COMMIT;
SELECT * FROM account WHERE id IN (5, 6) ORDER BY id;
\set VERBOSITY default

-- claim: errors are passed on whole, and say where they come from
\set SHOW_CONTEXT errors
SELECT risk_alert.global_execute('node_a', 'SELECT 1/0');
\echo :SQLSTATE
SELECT risk_alert.global_execute('node_a', 'INSERT INTO account VALUES (1, 1)');
SELECT risk_alert.global_execute('node_a', $$DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''RA001'', MESSAGE = ''100%s'', DETAIL = ''d %'', HINT = ''h''; END'$$);
\echo :SQLSTATE
\set SHOW_CONTEXT never
SELECT risk_alert.global_execute('node_a', 'SELECT 1; SELECT 2');
SELECT risk_alert.global_execute('node_a', 'COPY account TO STDOUT');
SELECT risk_alert.global_execute('node_a', NULL);
SELECT risk_alert.global_execute(NULL, 'SELECT 1');
SELECT risk_alert.global_execute('nowhere', 'SELECT 1');
SELECT risk_alert.global_execute('node_a', 'SELECT $1::int', '{1}');

-- claim: a branch's transaction is ended by nobody but its caller
\set VERBOSITY terse
SELECT risk_alert.global_execute('node_a', 'COMMIT');
SELECT risk_alert.global_execute('node_a', ' ; /* a /* b */ */ -- c
 RoLLback');
SELECT risk_alert.global_execute('node_a', 'BEGIN');
SELECT risk_alert.global_execute('node_a', 'START TRANSACTION');
SELECT risk_alert.global_execute('node_a', 'END');
SELECT risk_alert.global_execute('node_a', 'ABORT');
SELECT risk_alert.global_execute('node_a', 'SAVEPOINT x');
SELECT risk_alert.global_execute('node_a', 'RELEASE x');
SELECT risk_alert.global_execute('node_a', 'ROLLBACK TO x');
SELECT risk_alert.global_execute('node_a', 'PREPARE /**/ TRANSACTION ''x''');
SELECT risk_alert.global_execute('node_a', 'COMMIT AND CHAIN');
SELECT risk_alert.global_execute('node_a', $$DO 'BEGIN COMMIT; END'$$);
SELECT risk_alert.global_execute('node_a', 'COMMIT PREPARED ''x''');
SELECT risk_alert.global_execute('node_a', 'VACUUM account');
SELECT risk_alert.global_execute('node_a', 'PREPARE transaction_ AS SELECT 1');
\set VERBOSITY default

-- claim: what can't be prepared aborts all, and PREPARE says why
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 56 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'CREATE TEMPORARY TABLE temporary (x int)');
COMMIT;
\echo :SQLSTATE
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 56 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'NOTIFY everybody');
COMMIT;
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 56 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 66 WHERE id = 6');
SELECT risk_alert.global_execute('node_b', 'LISTEN everybody');
COMMIT;
CREATE EXTENSION postgres_fdw;
SELECT format($$CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L)$$,
              split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()) AS make \gset
:make;
CREATE USER MAPPING FOR CURRENT_USER SERVER far;
CREATE FOREIGN TABLE far_account (id int, balance int) SERVER far OPTIONS (table_name 'account');
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 56 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'UPDATE far_account SET balance = 66 WHERE id = 6');
COMMIT;
\echo :SQLSTATE
DROP EXTENSION postgres_fdw CASCADE;
SELECT * FROM account WHERE id IN (5, 6) ORDER BY id;
SELECT count(*) FROM pg_prepared_xacts;

-- claim: deferred constraints are checked before the decision
CREATE TABLE deferred (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO deferred VALUES (1);
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 57 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'INSERT INTO deferred VALUES (1)');
COMMIT;
\echo :SQLSTATE
SELECT risk_alert.global_execute('node_b', 'INSERT INTO deferred VALUES (1)');
\echo :SQLSTATE
SELECT balance FROM account WHERE id = 5;
DROP TABLE deferred;

-- claim: DDL is as good as any other work
BEGIN;
SELECT risk_alert.global_execute('node_a', 'CREATE TABLE made (x int)');
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 58 WHERE id = 5');
COMMIT;
DROP TABLE made;

-- claim: branches have the caller's isolation level and are as READ ONLY as he is
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT risk_alert.global_execute('node_a', $$DO 'BEGIN ASSERT current_setting(''transaction_isolation'') = ''serializable''; END'$$);
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 59 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 69 WHERE id = 6');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT risk_alert.global_execute('node_a', 'SELECT FROM account');
UPDATE account SET balance = 0;
ROLLBACK;
BEGIN READ ONLY;
SELECT risk_alert.global_execute('node_a', 'SELECT FROM account');
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 0 WHERE id = 5');
ROLLBACK;
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 60 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 70 WHERE id = 6');
SET TRANSACTION READ ONLY;
COMMIT;
SELECT * FROM account WHERE id IN (5, 6) ORDER BY id;

-- claim: whatever the defaults are there, when it connects or later
ALTER DATABASE :"DBNAME" SET default_transaction_isolation = 'serializable';
\c -
SET client_min_messages = warning;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = CASE current_setting(''transaction_isolation'') WHEN ''serializable'' THEN 60 ELSE 61 END WHERE id = 5');
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = balance + CASE current_setting(''transaction_isolation'') WHEN ''serializable'' THEN 60 ELSE 1 END WHERE id = 5');
COMMIT;
SELECT balance FROM account WHERE id = 5;
ALTER DATABASE :"DBNAME" RESET default_transaction_isolation;
\c -
SET client_min_messages = warning;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 62 WHERE id = 5');
SELECT risk_alert.global_execute('node_a', 'SET default_transaction_read_only = on');
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 60 WHERE id = 5');
SELECT balance FROM account WHERE id = 5;

-- claim: a serializable branch that has only read can still fail, and aborts all
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT risk_alert.global_execute('node_a', 'SELECT FROM account WHERE id = 7');
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 88 WHERE id = 8');
COMMIT;

-- claim: the caller can't be prepared
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 0 WHERE id = 5');
PREPARE TRANSACTION 'x';
SELECT balance FROM account WHERE id = 5;

-- claim: a lock of the transaction is good for branches, too
BEGIN;
SELECT risk_alert.advisory_xact_lock('account') > 0;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 61 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'SELECT risk_alert.try_advisory_xact_lock(''account'')');
SELECT risk_alert.global_execute('node_b', 'UPDATE account SET balance = 71 WHERE id = 6');
COMMIT;
SELECT * FROM account WHERE id IN (5, 6) ORDER BY id;

-- claim: a branch checks the lock's token, and fails with an older one
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 62 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'SELECT risk_alert.check_fence(''account'', 5)');
COMMIT;
BEGIN;
SELECT risk_alert.global_execute('node_a', 'UPDATE account SET balance = 63 WHERE id = 5');
SELECT risk_alert.global_execute('node_b', 'SELECT risk_alert.check_fence(''account'', 4)');
\echo :SQLSTATE
COMMIT;
SELECT balance FROM account WHERE id = 5;

-- claim: registers that this server does not have are told
SET risk_alert.commit_register = 'nonsense';
SHOW risk_alert.commit_register;
SHOW risk_alert.commit_timeout;
SHOW risk_alert.recovery_interval;

-- claim: what became of a transaction can be asked
SELECT gid AS one FROM (
    SELECT format('ra:risk_alert:node_a:l:%s:%s:7fffffff:%s', to_hex(d.oid::bigint), to_hex(e.epoch), to_hex((pg_current_wal_lsn() - '0/0')::bigint)) AS gid
      FROM pg_database d, risk_alert.global_epoch e WHERE d.datname = current_database()) g \gset
SELECT risk_alert.global_outcome(:'one');
SELECT risk_alert.global_outcome(:'one' || ':1');
SELECT risk_alert.global_outcome(regexp_replace(:'one', 'node_a:l:[0-9a-f]+', 'node_a:l:1'));
SELECT risk_alert.global_outcome(regexp_replace(:'one', ':[0-9a-f]+:7fffffff', ':1:7fffffff'));
SELECT risk_alert.global_outcome(regexp_replace(:'one', ':[0-9a-f]+$', ':0'));
SELECT risk_alert.global_outcome('mine');
SELECT risk_alert.global_outcome('ra:other:node_a:l:5:1:1:1');
SELECT risk_alert.resolve(:'one');
SELECT risk_alert.resolve(:'one', 'perhaps');
SELECT risk_alert.resolve(NULL::text);

-- claim: recovery leaves alone what is not its own, and finishes what is
BEGIN;
CREATE TABLE mine (x int);
PREPARE TRANSACTION 'mine';
BEGIN;
CREATE TABLE others (x int);
PREPARE TRANSACTION 'ra:other:node_a:l:5:1:1:1:1';
BEGIN;
CREATE TABLE ours (x int);
SELECT format('PREPARE TRANSACTION %L', :'one' || ':1') AS prepare \gset
:prepare;
DO $$
BEGIN
    FOR i IN 1..1000 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM pg_prepared_xacts WHERE gid LIKE 'ra:risk_alert:%');
        PERFORM pg_sleep(0.05);
    END LOOP;
END
$$;
SELECT gid FROM pg_prepared_xacts ORDER BY 1;
SELECT aborted > 0 AS aborted, waiting, last_run <= clock_timestamp() AS run FROM risk_alert.stat_recovery;
ROLLBACK PREPARED 'mine';
ROLLBACK PREPARED 'ra:other:node_a:l:5:1:1:1:1';

-- claim: who is no administrator may not, and needs rights to the node
CREATE ROLE regress_nobody;
SET ROLE regress_nobody;
SELECT risk_alert.global_execute('node_a', 'SELECT 1');
SELECT risk_alert.global_execute_all('{node_a}', '{SELECT 1}');
SELECT risk_alert.global_outcome('x');
SELECT risk_alert.resolve('x');
SELECT count(*) FROM risk_alert.global_transactions;
RESET ROLE;
GRANT risk_alert_admin TO regress_nobody;
SET ROLE regress_nobody;
SELECT risk_alert.global_execute('node_a', 'SELECT 1');
SELECT count(*) >= 0 FROM risk_alert.global_transactions;
SELECT count(*) FROM risk_alert.stat_recovery;
SELECT count(*) FROM risk_alert.global_commit;
SET risk_alert.debug_stop_at = 'decide';
RESET ROLE;
DROP ROLE regress_nobody;
SHOW risk_alert.debug_stop_at;
SELECT count(*) FROM pg_settings WHERE name = 'risk_alert.debug_stop_at';

-- claim: the acceptors are the servers that there are, though each transaction asks for them
SELECT risk_alert._paxos_acceptors();
BEGIN;
CREATE SERVER node_y FOREIGN DATA WRAPPER risk_alert_node OPTIONS (host 'localhost');
SELECT risk_alert._paxos_acceptors();
ROLLBACK;
SELECT risk_alert._paxos_acceptors();

DROP SERVER node_a CASCADE;
DROP SERVER node_b CASCADE;
DROP SERVER node_x CASCADE;
DROP TABLE account;
