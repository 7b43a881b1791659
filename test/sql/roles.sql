--
-- Roles: who may do what, and whose rights a rule runs with
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE ra_roles_admin IN ROLE risk_alert_admin;
CREATE ROLE ra_roles_other IN ROLE risk_alert_admin;
CREATE ROLE ra_roles_analyst IN ROLE risk_alert_analyst;
CREATE ROLE ra_roles_monitor IN ROLE pg_monitor;
CREATE ROLE ra_roles_joe;
CREATE SCHEMA ro;
GRANT USAGE ON SCHEMA ro TO PUBLIC;
SET search_path = ro, public;
CREATE TABLE pay (id int PRIMARY KEY, card int, amount int, secret int, at timestamptz);
CREATE INDEX ON pay (card, at);
CREATE FUNCTION hidden(int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT $1 > 0 $$;
REVOKE ALL ON FUNCTION hidden(int) FROM PUBLIC;
CREATE FUNCTION pg_temp.try(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text; state text;
BEGIN
    EXECUTE command;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, state = RETURNED_SQLSTATE;
    RETURN concat_ws(' | ', state, message, NULLIF(detail, ''), NULLIF(hint, ''));
END
$$;
-- what the calls need so that they fail for no other reason
SELECT risk_alert.watch('pay', event_time => 'at');
SELECT risk_alert.create_list('ro_list');

-- claim: a role without any grant can do nothing but use the trigger function on a table of its own
SET ROLE ra_roles_joe;
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT risk_alert.watch(''ro.pay'', ''at'')'), ('SELECT risk_alert.unwatch(''pay'')'),
    ('SELECT risk_alert.create_rule(''pay'', ''r'', ''true'')'), ('SELECT risk_alert.list_add(''ro_list'', ''a'')'),
    ('SELECT risk_alert.in_list(''ro_list'', ''a'')'), ('SELECT risk_alert.acknowledge(1)'),
    ('SELECT risk_alert.risk_score(''pay'', ''{}'')'), ('SELECT risk_alert.drain()'),
    ('SELECT * FROM risk_alert.check_setup()'), ('SELECT * FROM risk_alert.streams'),
    ('SELECT * FROM risk_alert.alerts'), ('SELECT * FROM risk_alert.stat_streams'),
    ('SELECT * FROM risk_alert.stream'), ('SELECT * FROM risk_alert.queue_0'),
    ('SELECT risk_alert._ticket()'), ('SELECT risk_alert._refresh_stream(1)'),
    ('CREATE TABLE risk_alert.t ()')) v (c);
CREATE TEMPORARY TABLE own (id int);
SELECT pg_temp.try('CREATE TRIGGER capture AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION risk_alert.capture()');
INSERT INTO own VALUES (1);
DROP TABLE own;
RESET ROLE;

-- claim: who writes to a watched table needs no rights on risk_alert
GRANT INSERT ON pay TO ra_roles_joe;
SET ROLE ra_roles_joe;
INSERT INTO pay VALUES (1, 1, 1, 1, '2020-01-01');
RESET ROLE;
SELECT risk_alert.drain();
SELECT processed FROM risk_alert.stat_streams WHERE stream = 'pay';
SELECT risk_alert.unwatch('pay');

-- claim: an administrator watches tables that he may read and put triggers on
SET ROLE ra_roles_admin;
SELECT pg_temp.try('SELECT risk_alert.watch(''ro.pay'', ''at'')');
RESET ROLE;
GRANT SELECT, TRIGGER ON pay TO ra_roles_admin;
SET ROLE ra_roles_admin;
SELECT pg_temp.try('SELECT risk_alert.watch(''ro.pay'', ''at'')');
RESET ROLE;

-- claim: tables of the extension are nobody's
SET ROLE ra_roles_admin;
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT * FROM risk_alert.stream'), ('UPDATE risk_alert.rule SET owner = ''ra_roles_admin'''),
    ('SELECT * FROM risk_alert.queue_0'), ('DELETE FROM risk_alert.alert'), ('SELECT * FROM risk_alert._waiting'),
    ('SELECT risk_alert._refresh_stream(1)'), ('SELECT risk_alert._begin_change(''pay'', ''ra_roles_admin'')'),
    ('SELECT risk_alert._caller(0)'), ('SELECT risk_alert.acknowledge(1)')) v (c);

-- claim: rules and features belong to who writes them, and use only what he may use
SELECT pg_temp.try('SELECT risk_alert.create_feature(''pay'', ''n'', ''card'', ''count(*)'', ''1 hour'')');
SELECT pg_temp.try('SELECT risk_alert.create_rule(''pay'', ''r'', ''n > 3 AND secret > 0'')');
SELECT pg_temp.try('SELECT risk_alert.create_rule(''pay'', ''h'', ''ro.hidden(amount)'')');
RESET ROLE;
SELECT feature, owner FROM risk_alert.features WHERE stream = 'pay';
SELECT rule, owner FROM risk_alert.rules WHERE stream = 'pay' ORDER BY rule;

-- claim: another administrator may alter and drop the rule, but not borrow its owner's rights
REVOKE SELECT ON pay FROM ra_roles_admin;
GRANT SELECT (card, amount, secret, at) ON pay TO ra_roles_admin;
GRANT SELECT (card, amount, at) ON pay TO ra_roles_other;
SET ROLE ra_roles_other;
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT risk_alert.alter_rule(''pay'', ''r'', points => 20)'),
    ('SELECT risk_alert.alter_rule(''pay'', ''r'', reason => ''secret {secret}'')'),
    ('SELECT risk_alert.alter_rule(''pay'', ''r'', condition => ''secret > 1'')'),
    ('SELECT risk_alert.create_rule(''pay'', ''s'', ''amount > 1'', reason => ''secret {secret}'')'),
    ('SELECT risk_alert.create_feature(''pay'', ''s'', ''card'', ''sum(secret)'', ''1 hour'')'),
    ('SELECT risk_alert.create_feature(''pay'', ''s'', ''secret'', ''count(*)'', ''1 hour'')'),
    ('SELECT risk_alert.create_feature(''pay'', ''s'', ''card'', ''count(*)'', ''1 hour'', filter => ''secret > 0'')')) v (c);
SELECT rule, points, owner FROM risk_alert.rules WHERE stream = 'pay';
SELECT risk_alert.alter_rule('pay', 'r', condition => 'n > 4');
SELECT rule, condition, owner FROM risk_alert.rules WHERE stream = 'pay';
RESET ROLE;

-- claim: the internal halves of functions cannot be called as somebody else
SET ROLE ra_roles_admin;
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT risk_alert._create_rule(''pay'', ''x'', ''true'', 1, ''low'', NULL, ''active'', ''public'', 0)'),
    ('SELECT risk_alert._create_rule(''pay'', ''x'', ''true'', 1, ''low'', NULL, ''active'', ''public'', NULL)'),
    ('SELECT risk_alert._create_rule(''pay'', ''x'', ''true'', 1, ''low'', NULL, ''active'', ''public'', 42)')) v (c);
SELECT risk_alert._create_rule('pay', 'mine', 'true', 1, 'low', NULL, 'draft', 'public', risk_alert._ticket());
RESET ROLE;
SELECT rule, owner FROM risk_alert.rules WHERE stream = 'pay' AND rule = 'mine';

-- claim: nor by a SECURITY DEFINER function or an index expression that somebody with more rights is made to run
GRANT CREATE ON SCHEMA ro TO ra_roles_admin;
SET ROLE ra_roles_admin;
CREATE FUNCTION ro.trap() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM risk_alert.create_rule('pay', 'trapped', 'true', status => 'draft');
END
$$;
CREATE FUNCTION ro.trap_index(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM risk_alert.create_rule('pay', 'indexed', 'true', status => 'draft');
    RETURN 1;
END
$$;
CREATE TABLE ro.trap_table (id int);
CREATE INDEX ON ro.trap_table (ro.trap_index(id));
INSERT INTO ro.trap_table VALUES (1);
SELECT risk_alert.drop_rule('pay', 'indexed');
RESET ROLE;
SELECT ro.trap();
REINDEX TABLE ro.trap_table;
SELECT rule, owner FROM risk_alert.rules WHERE stream = 'pay' AND rule IN ('trapped', 'indexed') ORDER BY rule;

-- claim: what is left of a dropped role is dumped as nobody's, and read so, not as whose number that is elsewhere
CREATE ROLE "Ra_roles 1" IN ROLE risk_alert_admin;
CREATE ROLE "1" IN ROLE risk_alert_admin;
SET ROLE "Ra_roles 1";
SELECT risk_alert.create_rule('pay', 'left', 'true', status => 'draft');
SELECT risk_alert.create_list('ro_left');
SET ROLE "1";
SELECT risk_alert.create_rule('pay', 'one', 'true', status => 'draft');
RESET ROLE;
CREATE TEMPORARY TABLE owner (name text, before text, renamed text, dropped text);
INSERT INTO owner SELECT name, owner FROM risk_alert.rule WHERE name IN ('left', 'one') UNION ALL SELECT name, owner FROM risk_alert.list WHERE name = 'ro_left';
ALTER ROLE "Ra_roles 1" RENAME TO ra_roles_renamed;
UPDATE owner SET renamed = r.owner FROM (SELECT name, owner FROM risk_alert.rule UNION ALL SELECT name, owner FROM risk_alert.list) r WHERE r.name = owner.name;
DROP ROLE ra_roles_renamed;
UPDATE owner SET dropped = r.owner FROM (SELECT name, owner FROM risk_alert.rule UNION ALL SELECT name, owner FROM risk_alert.list) r WHERE r.name = owner.name;
SELECT * FROM owner ORDER BY name;
SELECT t, t::risk_alert._role, t::risk_alert._role::oid = 0 AS nobody FROM (VALUES ('10'), ('-'), ('"1"'), ('ra_roles_joe')) v (t);
SELECT pg_temp.try($$SELECT 'ra_roles_renamed'::risk_alert._role$$);
SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
 WHERE atttypid = 'regrole'::regtype AND relnamespace = 'risk_alert'::regnamespace AND relkind = 'r';
SELECT risk_alert.drop_rule('pay', r) FROM unnest('{left,one}'::text[]) r;
SELECT risk_alert.drop_list('ro_left');
DROP ROLE "1";

-- claim: with row-level security only those may make features whom it does not concern
ALTER TABLE pay ENABLE ROW LEVEL SECURITY;
SET ROLE ra_roles_admin;
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT risk_alert.create_feature(''pay'', ''rls'', ''card'', ''count(*)'', ''1 hour'')'),
    ('SELECT risk_alert.create_rule(''pay'', ''rls'', ''n > 0'')')) v (c);
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT risk_alert.alter_rule(''pay'', ''r'', condition => ''n > 9'')'),
    ('SELECT risk_alert.alter_rule(''pay'', ''r'', reason => ''{amount}'')'),
    ('SELECT risk_alert.alter_rule(''pay'', ''r'', points => 30)')) v (c);
RESET ROLE;
ALTER ROLE ra_roles_admin BYPASSRLS;
SET ROLE ra_roles_admin;
SELECT pg_temp.try('SELECT risk_alert.create_rule(''pay'', ''rls'', ''n > 0'')');
RESET ROLE;
ALTER TABLE pay DISABLE ROW LEVEL SECURITY;

-- claim: analysts read and work on alerts, and configure nothing
SET ROLE ra_roles_analyst;
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT * FROM risk_alert.open_alerts'), ('SELECT * FROM risk_alert.alerts'), ('SELECT * FROM risk_alert.alert_history'),
    ('SELECT * FROM risk_alert.alert_events'), ('SELECT * FROM risk_alert.rules'), ('SELECT * FROM risk_alert.features'),
    ('SELECT * FROM risk_alert.lists'), ('SELECT * FROM risk_alert.list_entries'),
    ('SELECT * FROM risk_alert.rule_performance'), ('SELECT * FROM risk_alert.rule_set_history'),
    ('SELECT * FROM risk_alert.streams'), ('SELECT * FROM risk_alert.stat_rules'), ('SELECT * FROM risk_alert.check_setup()'),
    ('SELECT risk_alert.in_list(''ro_list'', ''a'')'),
    ('SELECT risk_alert.acknowledge(0)'), ('SELECT risk_alert.assign(0, ''ra_roles_analyst'')'), ('SELECT risk_alert.add_note(0, ''n'')'),
    ('SELECT risk_alert.resolve(0, ''true_positive'')'), ('SELECT risk_alert.reopen(0)'),
    ('SELECT risk_alert.create_rule(''pay'', ''a'', ''true'')'), ('SELECT risk_alert.list_add(''ro_list'', ''a'')'),
    ('SELECT risk_alert.unwatch(''pay'')')) v (c);
RESET ROLE;

-- claim: they score events of tables that they may not even name, also when that reads the table
REVOKE USAGE ON SCHEMA ro FROM PUBLIC;
SET ROLE ra_roles_analyst;
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT id FROM ro.pay'),
    ('SELECT risk_alert.risk_score(''pay'', ''{"id": 2, "card": 4711, "amount": 1, "secret": 1, "at": "2020-01-01"}'')')) v (c);
RESET ROLE;
GRANT USAGE ON SCHEMA ro TO PUBLIC;

-- claim: members of pg_monitor read statistics, and neither rules nor alerts
SET ROLE ra_roles_monitor;
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT * FROM risk_alert.streams'), ('SELECT * FROM risk_alert.stat_streams'), ('SELECT * FROM risk_alert.stat_workers'),
    ('SELECT * FROM risk_alert.stat_rules'), ('SELECT * FROM risk_alert.stat_features'),
    ('SELECT * FROM risk_alert.check_setup()'), ('SELECT risk_alert.drain()'),
    ('SELECT * FROM risk_alert.rules'), ('SELECT * FROM risk_alert.alerts'), ('SELECT risk_alert.acknowledge(1)'),
    ('SELECT risk_alert.unwatch(''pay'')')) v (c);
RESET ROLE;

-- claim: administrators read everything and do everything but the analysts' work
GRANT SELECT ON pay TO ra_roles_admin;
SET ROLE ra_roles_admin;
SELECT c, pg_temp.try(c) FROM (VALUES
    ('SELECT * FROM risk_alert.alerts'), ('SELECT * FROM risk_alert.rule_set_history'), ('SELECT * FROM risk_alert.check_setup()'),
    ('SELECT risk_alert.risk_score(p) FROM ro.pay p'), ('SELECT risk_alert.list_add(''ro_list'', ''a'')'),
    ('SELECT risk_alert.list_remove(''ro_list'', ''a'')'), ('SELECT risk_alert.drop_list(''ro_list'')'),
    ('SELECT risk_alert.drop_rule(''pay'', ''r'')'), ('SELECT risk_alert.resolve(0, ''true_positive'')'),
    ('SELECT risk_alert.unwatch(''pay'')')) v (c);
RESET ROLE;

DROP SCHEMA ro CASCADE;
DROP ROLE ra_roles_admin, ra_roles_other, ra_roles_analyst, ra_roles_monitor, ra_roles_joe;
