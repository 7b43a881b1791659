--
-- Streams: what can be watched, what is refused, and what the refusal says
--
\set SHOW_CONTEXT never
CREATE SCHEMA st;
SET search_path = st, public;
CREATE TABLE pay (id bigint PRIMARY KEY, card int NOT NULL, amount numeric(12,2), at timestamptz NOT NULL,
                  happened timestamp, day date, epoch bigint, note text, code text NOT NULL);

-- claim: watch() makes a stream named after the table, with the primary key and the documented defaults
SELECT risk_alert.watch('pay', event_time => 'at');
SELECT stream, table_name, key, event_time, review_at, deny_at, suppress, version, features, rules
  FROM risk_alert.streams WHERE stream = 'pay';

-- claim: it attaches the two triggers, and says so in their comments
SELECT tgname, pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger')
  FROM pg_trigger WHERE tgrelid = 'pay'::regclass ORDER BY tgname;

-- claim: a table is watched once, a name given once
SELECT risk_alert.watch('pay', event_time => 'at');
SELECT risk_alert.watch('pay', event_time => 'at', name => 'other');
CREATE SCHEMA st2;
CREATE TABLE st2.pay (id int PRIMARY KEY, at timestamptz);
SELECT risk_alert.watch('st2.pay', event_time => 'at');
SELECT risk_alert.watch('st2.pay', event_time => 'at', name => 'st2.pay');
SELECT risk_alert.unwatch('st2.pay');

-- claim: unwatch() leaves no trigger
SELECT risk_alert.unwatch('pay');
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'pay'::regclass;
\set VERBOSITY terse
SELECT risk_alert.unwatch('pay');
\set VERBOSITY default

-- claim: event time may be timestamptz, timestamp or date, or a domain over one; else the hint helps
SELECT risk_alert.watch('pay', event_time => 'happened');
SELECT risk_alert.unwatch('pay');
SELECT risk_alert.watch('pay', event_time => 'day');
SELECT risk_alert.unwatch('pay');
CREATE DOMAIN moment AS timestamptz;
CREATE TABLE dom (id int PRIMARY KEY, at moment);
SELECT risk_alert.watch('dom', event_time => 'at');
SELECT risk_alert.unwatch('dom');
SELECT risk_alert.watch('pay', event_time => 'epoch');
SELECT risk_alert.watch('pay', event_time => 'note');
SELECT risk_alert.watch('pay', event_time => 'created');
SELECT risk_alert.watch('pay', event_time => 'at, day');
SELECT risk_alert.watch('pay', event_time => '');

-- claim: a key needs a unique index that tells all rows apart at all times
SELECT risk_alert.watch('pay', event_time => 'at', key => 'code');
CREATE UNIQUE INDEX pay_part ON pay (code) WHERE amount > 0;
SELECT risk_alert.watch('pay', event_time => 'at', key => 'code');
CREATE UNIQUE INDEX pay_expr ON pay (lower(code));
SELECT risk_alert.watch('pay', event_time => 'at', key => 'code');
ALTER TABLE pay ADD CONSTRAINT pay_late UNIQUE (code) DEFERRABLE;
SELECT risk_alert.watch('pay', event_time => 'at', key => 'code');
CREATE UNIQUE INDEX pay_code_card ON pay (code, card) INCLUDE (amount);
SELECT risk_alert.watch('pay', event_time => 'at', key => 'code');
SELECT risk_alert.watch('pay', event_time => 'at', key => 'card, code');
SELECT key FROM risk_alert.streams WHERE stream = 'pay';
SELECT risk_alert.unwatch('pay');
SELECT risk_alert.watch('pay', event_time => 'at', key => 'id, id');
SELECT risk_alert.watch('pay', event_time => 'at', key => 'idd');

-- claim: key columns that may be NULL are warned about
CREATE UNIQUE INDEX pay_note ON pay (note, id);
SELECT risk_alert.watch('pay', event_time => 'at', key => 'note, id');
SELECT risk_alert.unwatch('pay');

-- claim: without any key the hint holds the statement that makes one, or names the columns that are one
CREATE TABLE nokey (a int, at timestamptz);
SELECT risk_alert.watch('nokey', event_time => 'at');
ALTER TABLE nokey ADD COLUMN event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;
SELECT risk_alert.watch('nokey', event_time => 'at');
SELECT risk_alert.unwatch('nokey');
CREATE TABLE otherkey (a int NOT NULL UNIQUE, at timestamptz);
SELECT risk_alert.watch('otherkey', event_time => 'at');
SELECT risk_alert.watch('otherkey', event_time => 'at', key => 'a');
SELECT risk_alert.unwatch('otherkey');

-- claim: what is no table of rows of its own is refused
CREATE VIEW vw AS SELECT * FROM pay;
SELECT risk_alert.watch('vw', event_time => 'at');
CREATE MATERIALIZED VIEW mv AS SELECT * FROM pay;
SELECT risk_alert.watch('mv', event_time => 'at');
CREATE FOREIGN DATA WRAPPER st_fdw;
CREATE SERVER st_server FOREIGN DATA WRAPPER st_fdw;
CREATE FOREIGN TABLE ft (id int, at timestamptz) SERVER st_server;
SELECT risk_alert.watch('ft', event_time => 'at');
CREATE TEMPORARY TABLE tt (id int PRIMARY KEY, at timestamptz);
DO $$
BEGIN
    PERFORM risk_alert.watch('tt', event_time => 'at');
EXCEPTION WHEN wrong_object_type THEN
    RAISE NOTICE '%', regexp_replace(SQLERRM, 'pg_temp_\d+', 'pg_temp');
END
$$;
SELECT risk_alert.watch('pg_class', event_time => 'relname');
SELECT risk_alert.watch('risk_alert.alert', event_time => 'raised_at');
SELECT risk_alert.watch('pay_pkey', event_time => 'at');
SELECT risk_alert.watch('missing', event_time => 'at');
SELECT risk_alert.watch(4294967295::oid::regclass, event_time => 'at');
CREATE TABLE parent (id int PRIMARY KEY, at timestamptz);
CREATE TABLE child () INHERITS (parent);
SELECT risk_alert.watch('parent', event_time => 'at');

-- claim: unlogged tables can be watched
CREATE UNLOGGED TABLE unlog (id int PRIMARY KEY, at timestamptz);
SELECT risk_alert.watch('unlog', event_time => 'at');
SELECT risk_alert.unwatch('unlog');

-- claim: settings out of range are refused
SELECT risk_alert.watch('pay', event_time => 'at', review_at => -1);
SELECT risk_alert.watch('pay', event_time => 'at', deny_at => 101);
SELECT risk_alert.watch('pay', event_time => 'at', review_at => 90, deny_at => 80);
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '-1 second');
SELECT risk_alert.watch('pay', event_time => 'at', suppress => '100 years');
SELECT risk_alert.watch('pay', event_time => 'at', name => '');
SELECT risk_alert.watch('pay', event_time => 'at', name => E'two\nlines');
SELECT risk_alert.watch('pay', event_time => 'at', name => repeat('x', 64));
SELECT risk_alert.watch('pay', event_time => NULL);
SELECT risk_alert.watch(NULL, event_time => 'at');
SELECT risk_alert.watch('pay', event_time => 'at', suppress => NULL);
SELECT count(*) FROM risk_alert.streams WHERE table_name = 'st.pay';

-- claim: quoted and upper-case names, odd schemas
CREATE SCHEMA "Odd schema";
CREATE TABLE "Odd schema"."Pay, all" ("Id" int, "Seq, no" text, "At Time" timestamptz, "entity""x" int, PRIMARY KEY ("Id", "Seq, no"));
SELECT risk_alert.watch('"Odd schema"."Pay, all"', event_time => '"At Time"', key => '"Id", "Seq, no"');
SELECT stream, table_name, key, event_time FROM risk_alert.streams WHERE stream = 'Pay, all';
SELECT risk_alert.create_feature('Pay, all', 'n', entity => '"entity""x"', aggregate => 'count(*)', within => '1 day');
SELECT risk_alert.unwatch('Pay, all');
SELECT risk_alert.watch('"Odd schema"."Pay, all"', event_time => 'At Time');
DROP SCHEMA "Odd schema" CASCADE;

-- claim: a partitioned table is watched as a whole
CREATE TABLE part (id int, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY RANGE (at);
CREATE TABLE part_2a PARTITION OF part_2 DEFAULT;
SELECT risk_alert.watch('part_1', event_time => 'at');
SELECT risk_alert.watch('part', event_time => 'at', key => 'id');
SELECT risk_alert.watch('part', event_time => 'at');
SELECT tgrelid::regclass, tgname, tgparentid <> 0 AS cloned FROM pg_trigger
 WHERE tgrelid::regclass::text LIKE 'part%' ORDER BY 1, 2;
-- claim: alter_stream() without settings attaches what is missing, and makes no new version
DROP TRIGGER risk_alert_truncate ON part;
SELECT risk_alert.alter_stream('part');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'part'::regclass ORDER BY 1;
SELECT version FROM risk_alert.streams WHERE stream = 'part';
SELECT risk_alert.unwatch('part');
SELECT count(*) FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'part%';
CREATE TABLE partnokey (id int NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
SELECT risk_alert.watch('partnokey', event_time => 'at');
SELECT risk_alert.watch('partnokey', event_time => 'at', key => 'id');

-- claim: triggers made by hand are used, completed, and left alone
CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON pay FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
SELECT risk_alert.watch('pay', event_time => 'at');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'pay'::regclass AND NOT tgisinternal ORDER BY 1;
SELECT risk_alert.unwatch('pay');
DROP TRIGGER capture ON pay;
CREATE TRIGGER capture AFTER INSERT ON pay FOR EACH ROW EXECUTE FUNCTION risk_alert.capture();
SELECT risk_alert.watch('pay', event_time => 'at');
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'pay'::regclass AND tgname = 'risk_alert_capture';
DROP TRIGGER capture ON pay CASCADE;
SELECT risk_alert.alter_stream('pay');
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'pay'::regclass AND tgname = 'risk_alert_capture';

-- claim: alter_stream() changes what is given
SELECT risk_alert.alter_stream('pay', review_at => 30);
SELECT risk_alert.alter_stream('pay', suppress => '5 minutes');
SELECT review_at, deny_at, suppress, version FROM risk_alert.streams WHERE stream = 'pay';
SELECT risk_alert.alter_stream('pay', review_at => 81);
SELECT risk_alert.alter_stream('pay', deny_at => 20);
\set VERBOSITY terse
SELECT risk_alert.alter_stream('nothing', deny_at => 20);
\set VERBOSITY default
SELECT risk_alert.alter_stream(NULL);

-- claim: a dropped table leaves a stream that says so, until unwatch()
DROP TABLE pay CASCADE;
SELECT table_name ~ '^\d+$' AS an_oid FROM risk_alert.streams WHERE stream = 'pay';
SELECT risk_alert.alter_stream('pay', review_at => 10);
SELECT risk_alert.create_rule('pay', 'r', 'true');
CREATE TABLE pay (id int PRIMARY KEY, at timestamptz);
SELECT risk_alert.watch('pay', event_time => 'at');
SELECT risk_alert.unwatch('pay');
SELECT risk_alert.watch('pay', event_time => 'at');

-- claim: the history keeps who made which version, of ended streams too
SELECT version, made_by = current_user AS by_me, definition ->> 'unwatched' AS unwatched
  FROM risk_alert.rule_set_history
 WHERE stream = 'pay' AND made_at > now() - interval '1 hour'
 ORDER BY made_at DESC LIMIT 3;
SELECT risk_alert.unwatch('pay');
SET client_min_messages = warning;
DROP SCHEMA st, st2 CASCADE;
DROP FOREIGN DATA WRAPPER st_fdw CASCADE;
