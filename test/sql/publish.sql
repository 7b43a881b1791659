-- Publishing, on a cluster of this one server.  What takes several is in tap/330_publish.pl.

SET client_min_messages = warning;
\set SHOW_CONTEXT never

CREATE TABLE pub (id int PRIMARY KEY, card int, amount numeric(10,2), at timestamptz NOT NULL);
CREATE INDEX ON pub (card, at);
SELECT risk_alert.watch('pub', event_time => 'at', suppress => '0');
SELECT risk_alert.create_feature('pub', 'n', entity => 'card', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('pub', 'shops', entity => 'card', aggregate => 'count(DISTINCT amount)', within => '1 hour', filter => 'amount > 0', include_current => false);
SELECT risk_alert.create_list('pub cards');
SELECT risk_alert.list_add('pub cards', '13', note => 'unlucky');
SELECT risk_alert.create_rule('pub', 'listed', 'in_list(''pub cards'', card)', points => 80, reason => 'card {card} is listed');
SELECT risk_alert.create_rule('pub', 'often', 'n > 2 OR shops > 9', status => 'shadow');

-- claim: what was never published has no epoch
SELECT stream, version, epoch, modified FROM risk_alert.streams WHERE stream = 'pub';
INSERT INTO pub VALUES (1, 13, 5, '2026-01-01 10:00Z');
SELECT risk_alert.drain();

-- claim: a publication is a version with an epoch, though it changes nothing here; alerts and assessments name it
SELECT risk_alert.publish_cluster('pub');
SELECT stream, version, epoch, modified FROM risk_alert.streams WHERE stream = 'pub';
INSERT INTO pub VALUES (2, 13, 5, '2026-01-01 11:00Z');
SELECT risk_alert.drain();
SELECT event_key, rule_set_version, epoch FROM risk_alert.alerts WHERE stream = 'pub' ORDER BY event_key;
SELECT event_key, epoch FROM risk_alert.open_alerts WHERE stream = 'pub' ORDER BY event_key;
SELECT score, rule_set_version, epoch FROM risk_alert.risk_assess('pub', '{"id": 3, "card": 13, "at": "2026-01-01 12:00Z"}');

-- claim: a later change of this node alone is told
SELECT risk_alert.alter_rule('pub', 'listed', points => 81);
SELECT version, epoch, modified FROM risk_alert.streams WHERE stream = 'pub';
INSERT INTO pub VALUES (3, 13, 5, '2026-01-01 12:00Z');
SELECT risk_alert.drain();
SELECT event_key, rule_set_version, epoch FROM risk_alert.alerts WHERE stream = 'pub' ORDER BY event_key;
SELECT epoch IS NULL FROM risk_alert.risk_assess('pub', '{"id": 4, "card": 13, "at": "2026-01-01 12:00Z"}');

-- claim: changes and their publication can be one transaction; what follows in it is another version
BEGIN;
SELECT risk_alert.alter_rule('pub', 'listed', points => 82);
SELECT risk_alert.publish_cluster('pub');
SELECT risk_alert.alter_rule('pub', 'listed', points => 83);
COMMIT;
SELECT version, epoch, definition -> 'rules' -> 0 ->> 'points' AS points FROM risk_alert.rule_set_history WHERE stream = 'pub' ORDER BY version DESC LIMIT 2;
SELECT version, epoch, modified FROM risk_alert.streams WHERE stream = 'pub';
BEGIN;
SELECT risk_alert.publish_cluster('pub');
ROLLBACK;
SELECT version, epoch, modified FROM risk_alert.streams WHERE stream = 'pub';

-- claim: applying a definition makes the configuration equal to it; what is the same stays what it is
CREATE FUNCTION pg_temp.changed(definition jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT definition || jsonb_build_object('review_at', 33, 'suppress', '02:00:00',
        'features', (SELECT jsonb_agg(CASE f ->> 'name' WHEN 'shops' THEN f || '{"within": "00:30:00", "aggregate": "sum(amount)"}' ELSE f END)
                       FROM jsonb_array_elements(definition -> 'features') f) || '[{"name": "Odd one", "entity": ["card"], "lookup": ["card"], "aggregate": "lag(at)", "within": "1 day", "filter": null, "include_current": true}]'::jsonb,
        'rules', '[{"name": "often", "condition": "((n > 2) OR (shops > (9)::numeric))", "points": 50, "severity": "low", "reason": "{n} and {shops}", "status": "active"},
                   {"name": "new", "condition": "(\"Odd one\" IS NULL)", "points": 1, "severity": "low", "reason": "new", "status": "active"}]'::jsonb)
$$;
SELECT version AS v, definition AS before FROM risk_alert.rule_set_history WHERE stream = 'pub' ORDER BY version DESC LIMIT 1 \gset
CREATE TEMP TABLE ids AS SELECT name, feature_id FROM risk_alert.feature WHERE stream_id = (SELECT stream_id FROM risk_alert.stream WHERE name = 'pub');
SELECT risk_alert._publish_apply('pub', 10, pg_temp.changed(:'before'), :v);
SELECT version - :v AS versions, epoch, modified, review_at, deny_at, suppress FROM risk_alert.streams WHERE stream = 'pub';
SELECT f.name, f.feature_id = i.feature_id AS same, f.function, f.within FROM risk_alert.feature f LEFT JOIN ids i USING (name)
 WHERE stream_id = (SELECT stream_id FROM risk_alert.stream WHERE name = 'pub') ORDER BY f.name;
SELECT rule, condition, points, severity, reason, status FROM risk_alert.rules WHERE stream = 'pub' ORDER BY rule;
SELECT risk_alert._publish_apply('pub', 11, :'before', NULL);
SELECT definition = :'before' AS restored FROM risk_alert.rule_set_history WHERE stream = 'pub' ORDER BY version DESC LIMIT 1;

-- claim: an older epoch, and a definition that is out of date, are refused
SELECT risk_alert._publish_apply('pub', 11, :'before', NULL);
SELECT risk_alert._publish_apply('pub', 12, :'before', :v);

-- claim: so is what this node can't have, altogether
SELECT risk_alert._publish_apply('pub', 12, jsonb_set(jsonb_set(:'before', '{review_at}', '1'), '{rules,0,condition}', '"(nothing > 1)"'), NULL);
SELECT risk_alert._publish_apply('pub', 12, jsonb_set(:'before', '{features,0,entity}', '["nothing"]'), NULL);
SELECT risk_alert._publish_apply('pub', 12, jsonb_set(:'before', '{features}', '[]'), NULL);
SELECT risk_alert._publish_apply('pub', 12, jsonb_set(:'before', '{deny_at}', '1'), NULL);
SELECT epoch, review_at FROM risk_alert.streams WHERE stream = 'pub';

-- claim: lists are changed on all nodes, too, and tell what was changed here alone
SELECT risk_alert.create_list('pub all', cluster => true);
SELECT risk_alert.list_add('pub all', 'a', note => 'x', cluster => true);
SELECT risk_alert.list_add('pub all', 'a', expires => '2030-01-01', cluster => true);
SELECT risk_alert.list_remove('pub all', 'b', cluster => true);
SELECT list, entries, epoch, modified FROM risk_alert.lists WHERE list LIKE 'pub %' ORDER BY list;
SELECT risk_alert.list_add('pub all', 'c');
SELECT list, entries, epoch, modified FROM risk_alert.lists WHERE list LIKE 'pub %' ORDER BY list;
SELECT risk_alert.list_remove('pub all', 'a', cluster => true);
SELECT list, entries, epoch, modified FROM risk_alert.lists WHERE list LIKE 'pub %' ORDER BY list;
SELECT risk_alert.drop_list('pub all', cluster => true);
SELECT risk_alert.create_list('pub all', cluster => true);
SELECT list, entries, epoch, modified FROM risk_alert.lists WHERE list LIKE 'pub %' ORDER BY list;
SELECT risk_alert.drop_list('pub all');

-- claim: errors name what is wrong
SELECT risk_alert.publish_cluster('nothing');
SELECT risk_alert.publish_cluster(NULL);
SELECT risk_alert.list_add('nothing', 'a', cluster => true);
SELECT risk_alert.list_add('pub cards', NULL, cluster => true);
SELECT risk_alert.create_list('pub cards', cluster => true);
SELECT risk_alert.drop_list('pub cards', cluster => true);
SELECT risk_alert.pull_cluster('pub', 'nowhere');

-- claim: with a register that does not count the caller's own writes, nothing may be written before
SET risk_alert.commit_register = paxos;
BEGIN;
CREATE TABLE written ();
SELECT risk_alert.publish_cluster('pub');
ROLLBACK;
RESET risk_alert.commit_register;

-- claim: it takes an administrator
CREATE ROLE regress_publisher;
GRANT risk_alert_analyst TO regress_publisher;
SET ROLE regress_publisher;
SELECT risk_alert.publish_cluster('pub');
SELECT risk_alert.list_add('pub cards', 'a', cluster => true);
RESET ROLE;
GRANT risk_alert_admin TO regress_publisher;
SET ROLE regress_publisher;
SELECT risk_alert.publish_cluster('pub');
SELECT risk_alert.list_add('pub cards', '14', cluster => true);
-- what he brings must be his to read
SELECT risk_alert._publish_apply('pub', 99, pg_temp.changed(:'before'), NULL);
SELECT risk_alert._publish_apply_as('pub', 99, :'before', NULL, 1);
RESET ROLE;
GRANT SELECT ON pub TO regress_publisher;
SET ROLE regress_publisher;
SELECT risk_alert._publish_apply('pub', 99, pg_temp.changed(:'before'), NULL);
RESET ROLE;
SELECT feature, owner FROM risk_alert.features WHERE stream = 'pub' AND owner = 'regress_publisher' ORDER BY 1;
SELECT rule, owner FROM risk_alert.rules WHERE stream = 'pub' AND owner = 'regress_publisher' ORDER BY 1;

SELECT risk_alert.unwatch('pub');
SELECT risk_alert.drop_list('pub cards', cluster => true);
DROP TABLE pub;
DROP OWNED BY regress_publisher;
DROP ROLE regress_publisher;
