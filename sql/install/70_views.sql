-- What users read.  A view runs with the rights of its owner, so the grants on
-- the views (90_rights.sql) say who reads what.

-- What is wrong with the capture of a table, or NULL
CREATE FUNCTION risk_alert._capture_problem(relation regclass) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN risk_alert._qualified(relation) IS NULL THEN 'table dropped'
        WHEN t.firing & 28 = 28 THEN NULL
        WHEN t.any_trigger & 28 = 28 THEN 'trigger disabled'
        WHEN t.any_trigger IS NULL THEN 'no trigger'
        ELSE 'trigger incomplete' END
      FROM (SELECT pg_catalog.bit_or(g.tgtype::int) FILTER (
                       WHERE g.tgenabled IN ('O', 'A') AND g.tgqual IS NULL
                         AND pg_catalog.cardinality(g.tgattr::int2[]) = 0) AS firing,
                   pg_catalog.bit_or(g.tgtype::int) FILTER (
                       WHERE g.tgqual IS NULL AND pg_catalog.cardinality(g.tgattr::int2[]) = 0) AS any_trigger
              FROM pg_catalog.pg_trigger g
             WHERE g.tgrelid = relation AND g.tgfoid = 'risk_alert.capture()'::regprocedure
               AND g.tgtype & 1 = 1 AND g.tgtype & 66 = 0) t
$$;
COMMENT ON FUNCTION risk_alert._capture_problem(regclass) IS 'internal: why rows of a table are not captured, or NULL';
REVOKE ALL ON FUNCTION risk_alert._capture_problem(regclass) FROM PUBLIC;

-- Configuration

CREATE VIEW risk_alert.streams AS
    SELECT s.name AS stream,
           COALESCE(risk_alert._qualified(s.relation), s.relation::oid::text) AS table_name,
           s.key,
           s.event_time,
           s.review_at,
           s.deny_at,
           s.suppress,
           s.version,
           s.epoch,
           s.epoch_version <> s.version AS modified,
           (SELECT pg_catalog.count(*) FROM risk_alert.feature f WHERE f.stream_id = s.stream_id) AS features,
           (SELECT pg_catalog.count(*) FROM risk_alert.rule r WHERE r.stream_id = s.stream_id) AS rules,
           pg_catalog.pg_get_userbyid(s.owner) AS owner,
           s.created_at
      FROM risk_alert.stream s;
COMMENT ON VIEW risk_alert.streams IS 'the watched tables';
COMMENT ON COLUMN risk_alert.streams.table_name IS 'the watched table';
COMMENT ON COLUMN risk_alert.streams.features IS 'how many features it has';
COMMENT ON COLUMN risk_alert.streams.rules IS 'how many rules it has';
COMMENT ON COLUMN risk_alert.streams.owner IS 'who watched the table';
COMMENT ON COLUMN risk_alert.streams.created_at IS 'when that was';
COMMENT ON COLUMN risk_alert.streams.stream IS 'the stream''s name, by which functions know it';
COMMENT ON COLUMN risk_alert.streams.key IS 'the columns that tell the table''s rows apart';
COMMENT ON COLUMN risk_alert.streams.event_time IS 'the column that says when an event happened';
COMMENT ON COLUMN risk_alert.streams.review_at IS 'from this score on the decision is review, and an alert is raised';
COMMENT ON COLUMN risk_alert.streams.deny_at IS 'from this score on the decision is deny';
COMMENT ON COLUMN risk_alert.streams.suppress IS 'within this time further events of one entity and rule fold into its open alert';
COMMENT ON COLUMN risk_alert.streams.version IS 'the latest version of the rule set, see rule_set_history';
COMMENT ON COLUMN risk_alert.streams.epoch IS 'the latest publication over the cluster, see publish_cluster(); NULL: there was none';
COMMENT ON COLUMN risk_alert.streams.modified IS 'has the rule set been changed on this node since then?';

CREATE VIEW risk_alert.features AS
    SELECT s.name AS stream,
           f.name AS feature,
           f.entity,
           f.lookup,
           risk_alert._aggregate(f.function, f.value) AS aggregate,
           f.within,
           f.filter,
           f.include_current,
           f.result_type,
           pg_catalog.pg_get_userbyid(f.owner) AS owner,
           f.created_at
      FROM risk_alert.feature f JOIN risk_alert.stream s USING (stream_id);
COMMENT ON VIEW risk_alert.features IS 'the features of all streams';
COMMENT ON COLUMN risk_alert.features.stream IS 'the stream that it belongs to';
COMMENT ON COLUMN risk_alert.features.feature IS 'the name by which conditions know it';
COMMENT ON COLUMN risk_alert.features.aggregate IS 'what is computed of the windows events';
COMMENT ON COLUMN risk_alert.features.result_type IS 'the type of its value';
COMMENT ON COLUMN risk_alert.features.created_at IS 'when it was created';
COMMENT ON COLUMN risk_alert.features.entity IS 'the columns whose values have a window each';
COMMENT ON COLUMN risk_alert.features.lookup IS 'the columns of the event at hand that pick the window; mostly the same';
COMMENT ON COLUMN risk_alert.features.within IS 'the length of the window';
COMMENT ON COLUMN risk_alert.features.filter IS 'which events count; NULL: all';
COMMENT ON COLUMN risk_alert.features.include_current IS 'does the event at hand count?';
COMMENT ON COLUMN risk_alert.features.owner IS 'whose rights aggregate and filter are evaluated with';

CREATE VIEW risk_alert.rules AS
    SELECT s.name AS stream,
           r.name AS rule,
           r.condition,
           r.points,
           r.severity,
           r.reason,
           r.status,
           r.suspended_at,
           pg_catalog.pg_get_userbyid(r.owner) AS owner,
           r.created_at
      FROM risk_alert.rule r JOIN risk_alert.stream s USING (stream_id);
COMMENT ON VIEW risk_alert.rules IS 'the rules of all streams';
COMMENT ON COLUMN risk_alert.rules.stream IS 'the stream that it belongs to';
COMMENT ON COLUMN risk_alert.rules.rule IS 'its name';
COMMENT ON COLUMN risk_alert.rules.condition IS 'when it fires';
COMMENT ON COLUMN risk_alert.rules.severity IS 'low, medium, high or critical';
COMMENT ON COLUMN risk_alert.rules.created_at IS 'when it was created';
COMMENT ON COLUMN risk_alert.rules.points IS 'what an active rule adds to the score of events for which its condition is true';
COMMENT ON COLUMN risk_alert.rules.reason IS 'the template of the reason that alerts show';
COMMENT ON COLUMN risk_alert.rules.status IS 'draft (not evaluated), shadow (evaluated and counted, without effect), active or retired';
COMMENT ON COLUMN risk_alert.rules.suspended_at IS 'when repeated errors took the rule out of use, see stat_rules';
COMMENT ON COLUMN risk_alert.rules.owner IS 'whose rights the condition is evaluated with: who wrote it last';

CREATE VIEW risk_alert.lists AS
    SELECT l.name AS list,
           pg_catalog.count(e.value) AS entries,
           pg_catalog.count(e.value) FILTER (WHERE e.expires <= pg_catalog.now()) AS expired,
           pg_catalog.max(e.added_at) AS last_added_at,
           NULLIF(p.epoch, 0) AS epoch,
           CASE WHEN p.epoch > 0 THEN l.modified END AS modified,
           pg_catalog.pg_get_userbyid(l.owner) AS owner,
           l.created_at
      FROM risk_alert.list l
      LEFT JOIN risk_alert.list_entry e USING (list_id)
      LEFT JOIN risk_alert.list_epoch p ON p.name = l.name
     GROUP BY l.list_id, p.name;
COMMENT ON VIEW risk_alert.lists IS 'the lists';
COMMENT ON COLUMN risk_alert.lists.list IS 'the name by which conditions know it';
COMMENT ON COLUMN risk_alert.lists.last_added_at IS 'when a value was last added';
COMMENT ON COLUMN risk_alert.lists.owner IS 'who created it';
COMMENT ON COLUMN risk_alert.lists.created_at IS 'when that was';
COMMENT ON COLUMN risk_alert.lists.entries IS 'how many values the list has';
COMMENT ON COLUMN risk_alert.lists.expired IS 'how many of them have expired and count no more';
COMMENT ON COLUMN risk_alert.lists.epoch IS 'how often it was changed on all nodes of the cluster at once; NULL: never';
COMMENT ON COLUMN risk_alert.lists.modified IS 'has it been changed on this node alone besides?';

CREATE VIEW risk_alert.list_entries AS
    SELECT l.name AS list, e.value, e.expires, e.note, e.added_by, e.added_at
      FROM risk_alert.list_entry e JOIN risk_alert.list l USING (list_id);
COMMENT ON VIEW risk_alert.list_entries IS 'the values of all lists';

CREATE VIEW risk_alert.rule_set_history AS
    SELECT r.stream,
           r.version,
           r.made_at,
           r.made_by,
           r.epoch,
           pg_catalog.jsonb_array_length(r.definition -> 'features') AS features,
           pg_catalog.jsonb_array_length(r.definition -> 'rules') AS rules,
           r.definition
      FROM risk_alert.rule_set r;
COMMENT ON VIEW risk_alert.rule_set_history IS 'every version of every stream''s configuration: what one transaction changed is one version';
COMMENT ON COLUMN risk_alert.rule_set_history.stream IS 'the streams name then';
COMMENT ON COLUMN risk_alert.rule_set_history.version IS 'counted per stream, from 1';
COMMENT ON COLUMN risk_alert.rule_set_history.made_at IS 'when the configuration was changed';
COMMENT ON COLUMN risk_alert.rule_set_history.made_by IS 'by whom';
COMMENT ON COLUMN risk_alert.rule_set_history.features IS 'how many features it had';
COMMENT ON COLUMN risk_alert.rule_set_history.rules IS 'how many rules it had';
COMMENT ON COLUMN risk_alert.rule_set_history.epoch IS 'the publication over the cluster that made it; NULL: it was made on this node alone';
COMMENT ON COLUMN risk_alert.rule_set_history.definition IS 'thresholds, features and rules of that version';

CREATE VIEW risk_alert.cluster_rule_sets AS
    SELECT c.stream, c.node, c.epoch, c.version, c.modified, c.error
      FROM risk_alert._cluster_rule_sets() c
     ORDER BY c.stream, c.node;
COMMENT ON VIEW risk_alert.cluster_rule_sets IS 'which rule set each node of the cluster has in use: it asks them all, with the rights of the reader''s user mappings';
COMMENT ON COLUMN risk_alert.cluster_rule_sets.stream IS 'name of the stream; NULL: the node does not answer';
COMMENT ON COLUMN risk_alert.cluster_rule_sets.node IS 'name of the node';
COMMENT ON COLUMN risk_alert.cluster_rule_sets.epoch IS 'the latest publication that is in use there; NULL: none';
COMMENT ON COLUMN risk_alert.cluster_rule_sets.version IS 'that node''s own count';
COMMENT ON COLUMN risk_alert.cluster_rule_sets.modified IS 'has it been changed there since?';
COMMENT ON COLUMN risk_alert.cluster_rule_sets.error IS 'why the node does not answer';

-- Alerts

CREATE VIEW risk_alert.alerts AS
    SELECT a.alert_id, a.stream, a.event_key, a.entity, a.event_time, a.raised_at, a.score, a.decision,
           a.severity, a.rules, a.reasons, a.features, a.status,
           pg_catalog.pg_get_userbyid(a.assignee) AS assignee,
           a.outcome, a.events, a.last_event_time, a.lead_rule, a.rule_set_version, a.epoch
      FROM risk_alert.alert a;
COMMENT ON VIEW risk_alert.alerts IS 'all alerts';
COMMENT ON COLUMN risk_alert.alerts.alert_id IS 'the number by which functions know it';
COMMENT ON COLUMN risk_alert.alerts.stream IS 'the stream of its events';
COMMENT ON COLUMN risk_alert.alerts.event_time IS 'when the first event happened';
COMMENT ON COLUMN risk_alert.alerts.raised_at IS 'when the alert was raised';
COMMENT ON COLUMN risk_alert.alerts.decision IS 'review or deny, the worst of its events';
COMMENT ON COLUMN risk_alert.alerts.severity IS 'low, medium, high or critical, the worst of its events';
COMMENT ON COLUMN risk_alert.alerts.assignee IS 'who works on it';
COMMENT ON COLUMN risk_alert.alerts.last_event_time IS 'when the latest event happened';
COMMENT ON COLUMN risk_alert.alerts.event_key IS 'the key of the row that raised the alert';
COMMENT ON COLUMN risk_alert.alerts.entity IS 'whom it is about: the entity of the lead rule''s first feature';
COMMENT ON COLUMN risk_alert.alerts.score IS 'the highest score of its events';
COMMENT ON COLUMN risk_alert.alerts.rules IS 'the rules that fired for the first event';
COMMENT ON COLUMN risk_alert.alerts.reasons IS 'rule, points and text of each rule that fired for the first event';
COMMENT ON COLUMN risk_alert.alerts.features IS 'the feature values of the first event';
COMMENT ON COLUMN risk_alert.alerts.status IS 'open, acknowledged, investigating or resolved';
COMMENT ON COLUMN risk_alert.alerts.outcome IS 'true_positive or false_positive, once resolved';
COMMENT ON COLUMN risk_alert.alerts.events IS 'how many events were folded into the alert, the first one included';
COMMENT ON COLUMN risk_alert.alerts.lead_rule IS 'the fired rule with the most points; alerts fold by it';
COMMENT ON COLUMN risk_alert.alerts.rule_set_version IS 'the version of the rule set that raised it, see rule_set_history';
COMMENT ON COLUMN risk_alert.alerts.epoch IS 'the publication over the cluster that this rule set is; NULL: it was changed on this node alone';

CREATE VIEW risk_alert.open_alerts AS
    SELECT a.alert_id, a.stream, a.severity, a.score, a.decision, a.entity, a.reasons, a.events, a.status, a.assignee,
           pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - a.raised_at) AS age,
           a.event_key, a.event_time, a.raised_at, a.last_event_time, a.rules, a.lead_rule, a.features,
           a.rule_set_version, a.epoch
      FROM risk_alert.alerts a
     WHERE a.status <> 'resolved'
     ORDER BY CASE a.severity WHEN 'critical' THEN 1 WHEN 'high' THEN 2 WHEN 'medium' THEN 3 ELSE 4 END,
              a.score DESC, a.events DESC, a.raised_at, a.alert_id;
COMMENT ON VIEW risk_alert.open_alerts IS 'the alerts to work on, worst first';

-- The other nodes send theirs by name of column, so versions may differ; see
-- src/cluster/cluster_alerts.c
CREATE FUNCTION risk_alert._cluster_alerts(OUT node text, OUT alert risk_alert.open_alerts, OUT missing_nodes text[])
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100
    SET search_path = pg_catalog, pg_temp
    SET intervalstyle = 'postgres'
    AS 'MODULE_PATHNAME', 'ra_cluster_alerts';
COMMENT ON FUNCTION risk_alert._cluster_alerts() IS 'internal: see view cluster_alerts';
REVOKE ALL ON FUNCTION risk_alert._cluster_alerts() FROM PUBLIC;

CREATE VIEW risk_alert.cluster_alerts AS
    SELECT c.node, (c.alert).*, c.missing_nodes
      FROM risk_alert._cluster_alerts() c
     ORDER BY CASE (c.alert).severity WHEN 'critical' THEN 1 WHEN 'high' THEN 2 WHEN 'medium' THEN 3 ELSE 4 END,
              (c.alert).score DESC, (c.alert).events DESC, (c.alert).raised_at, c.node, (c.alert).alert_id;
COMMENT ON VIEW risk_alert.cluster_alerts IS
    'the open alerts of all nodes, worst first: those of the nodes that can be asked now, with the rights of the caller''s user mappings; a warning for each of the others';
COMMENT ON COLUMN risk_alert.cluster_alerts.node IS 'the node that has the alert, and where it is worked on; NULL: this server, which has no name';
COMMENT ON COLUMN risk_alert.cluster_alerts.missing_nodes IS 'the nodes whose alerts are not among the rows: the same in each row; empty: none';

COMMENT ON COLUMN risk_alert.open_alerts.age IS 'since when it is there, by the clock of its node';

-- the others are those of alerts
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT a.attrelid::regclass::text AS view, a.attname, COALESCE(
                   pg_catalog.col_description('risk_alert.alerts'::regclass, b.attnum),
                   pg_catalog.col_description('risk_alert.open_alerts'::regclass, o.attnum)) AS text
          FROM pg_catalog.pg_attribute a
          LEFT JOIN pg_catalog.pg_attribute b ON b.attrelid OPERATOR(pg_catalog.=) 'risk_alert.alerts'::regclass
                                             AND b.attname OPERATOR(pg_catalog.=) a.attname
          LEFT JOIN pg_catalog.pg_attribute o ON o.attrelid OPERATOR(pg_catalog.=) 'risk_alert.open_alerts'::regclass
                                             AND o.attname OPERATOR(pg_catalog.=) a.attname
         WHERE a.attrelid OPERATOR(pg_catalog.=) ANY ('{risk_alert.open_alerts,risk_alert.cluster_alerts}'::regclass[])
           AND a.attnum OPERATOR(pg_catalog.>) 0
           AND pg_catalog.col_description(a.attrelid, a.attnum) IS NULL
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', c.view, c.attname, c.text);
    END LOOP;
END
$$;

CREATE VIEW risk_alert.alert_events AS
    SELECT e.alert_id, a.stream, e.event_key, e.event_time, e.score, e.rules
      FROM risk_alert.alert_event e JOIN risk_alert.alert a USING (alert_id);
COMMENT ON VIEW risk_alert.alert_events IS 'the events of each alert: the one that raised it and those folded into it';

CREATE VIEW risk_alert.alert_history AS
    SELECT h.alert_id, a.stream, h.changed_at, h.changed_by, h.action, h.old_status, h.new_status,
           h.assignee, h.outcome, h.note
      FROM (SELECT r.alert_id, r.raised_at AS changed_at, NULL::name AS changed_by, 'raised' AS action,
                   NULL AS old_status, 'open' AS new_status, NULL::name AS assignee, NULL AS outcome,
                   NULL AS note, 0 AS change_id
              FROM risk_alert.alert r
             UNION ALL
            SELECT c.alert_id, c.changed_at, c.changed_by, c.action, c.old_status, c.new_status,
                   c.assignee, c.outcome, c.note, c.change_id
              FROM risk_alert.alert_change c) h
      JOIN risk_alert.alert a USING (alert_id)
     ORDER BY h.alert_id, h.change_id;
COMMENT ON VIEW risk_alert.alert_history IS 'what was done to each alert, by whom and when, beginning with its raising';
COMMENT ON COLUMN risk_alert.alert_history.alert_id IS 'the alert';
COMMENT ON COLUMN risk_alert.alert_history.stream IS 'its stream';
COMMENT ON COLUMN risk_alert.alert_history.changed_at IS 'when it was';
COMMENT ON COLUMN risk_alert.alert_history.action IS 'raised, acknowledged, assigned, noted, resolved or reopened';
COMMENT ON COLUMN risk_alert.alert_history.old_status IS 'the status before';
COMMENT ON COLUMN risk_alert.alert_history.new_status IS 'the status after';
COMMENT ON COLUMN risk_alert.alert_history.assignee IS 'whom it was assigned to';
COMMENT ON COLUMN risk_alert.alert_history.outcome IS 'what it was resolved as';
COMMENT ON COLUMN risk_alert.alert_history.note IS 'what was said';
COMMENT ON COLUMN risk_alert.alert_history.changed_by IS 'the role that did it; NULL: risk_alert itself';

CREATE VIEW risk_alert.rule_performance AS
    SELECT COALESCE(s.name, p.stream) AS stream,
           COALESCE(r.name, p.rule) AS rule,
           COALESCE(r.status, 'dropped') AS status,
           COALESCE(st.fired, 0) AS fired,
           COALESCE(p.alerts, 0) AS alerts,
           COALESCE(p.true_positives, 0) AS true_positives,
           COALESCE(p.false_positives, 0) AS false_positives,
           pg_catalog.round(p.true_positives::numeric
                            / NULLIF(p.true_positives + p.false_positives, 0), 4) AS precision
      FROM (risk_alert.rule r JOIN risk_alert.stream s USING (stream_id))
      FULL JOIN (SELECT a.stream_id,
                        a.stream,
                        u.rule,
                        pg_catalog.count(*) AS alerts,
                        pg_catalog.count(*) FILTER (WHERE a.outcome = 'true_positive') AS true_positives,
                        pg_catalog.count(*) FILTER (WHERE a.outcome = 'false_positive') AS false_positives
                   FROM risk_alert.alert a CROSS JOIN LATERAL pg_catalog.unnest(a.rules) u (rule)
                  GROUP BY a.stream_id, a.stream, u.rule) p
             ON p.stream_id = r.stream_id AND p.rule = r.name
      LEFT JOIN risk_alert.rule_stat st ON st.rule_id = r.rule_id;
COMMENT ON VIEW risk_alert.rule_performance IS 'how good each rule''s alerts were, as far as analysts have resolved them';
COMMENT ON COLUMN risk_alert.rule_performance.stream IS 'the stream of the rule';
COMMENT ON COLUMN risk_alert.rule_performance.rule IS 'its name';
COMMENT ON COLUMN risk_alert.rule_performance.status IS 'NULL: the rule was dropped';
COMMENT ON COLUMN risk_alert.rule_performance.true_positives IS 'of these, those that were resolved as such';
COMMENT ON COLUMN risk_alert.rule_performance.false_positives IS 'and those that were not';
COMMENT ON COLUMN risk_alert.rule_performance.fired IS 'for how many events the rule fired, whether an alert came of it or not';
COMMENT ON COLUMN risk_alert.rule_performance.alerts IS 'alerts whose first event it fired for';
COMMENT ON COLUMN risk_alert.rule_performance.precision IS 'true positives among those resolved';

-- Statistics

-- Per stream, what waits in the queue: the complement of what queue_position
-- says is processed.  Rows of running transactions cannot be seen.
CREATE VIEW risk_alert._waiting AS
    SELECT q.stream_id, pg_catalog.count(*) AS events, pg_catalog.min(q.arrived) AS oldest
      FROM (SELECT arrived, xid, stream_id FROM risk_alert.queue_0
             UNION ALL SELECT arrived, xid, stream_id FROM risk_alert.queue_1
             UNION ALL SELECT arrived, xid, stream_id FROM risk_alert.queue_2) q
      LEFT JOIN risk_alert.queue_position p ON true
     WHERE p.low IS NULL
        OR NOT (pg_catalog.pg_visible_in_snapshot(q.xid, p.low)
                OR COALESCE(pg_catalog.pg_visible_in_snapshot(q.xid, p.high) AND q.arrived <= p.done_through, false))
     GROUP BY q.stream_id;
COMMENT ON VIEW risk_alert._waiting IS 'internal: committed events that are not processed yet';

CREATE VIEW risk_alert.stat_workers AS
    SELECT w.database, w.pid, w.state, w.started_at, w.batches, w.events, w.wakeups, w.last_batch_at, w.last_error
      FROM risk_alert._worker_status() w;
COMMENT ON VIEW risk_alert.stat_workers IS 'the workers of this server, one per database, since it started';
COMMENT ON COLUMN risk_alert.stat_workers.database IS 'the database that it works for';
COMMENT ON COLUMN risk_alert.stat_workers.pid IS 'its process';
COMMENT ON COLUMN risk_alert.stat_workers.started_at IS 'since when it runs';
COMMENT ON COLUMN risk_alert.stat_workers.batches IS 'transactions that it has committed';
COMMENT ON COLUMN risk_alert.stat_workers.events IS 'events that it has processed';
COMMENT ON COLUMN risk_alert.stat_workers.wakeups IS 'how often it was woken';
COMMENT ON COLUMN risk_alert.stat_workers.last_batch_at IS 'when it committed the latest batch';
COMMENT ON COLUMN risk_alert.stat_workers.state IS 'running; rebuilding (running, and reading windows from a stream''s table); starting, waiting (to be started), paused (for a command such as DROP DATABASE) or failed (tried again after a pause)';
COMMENT ON COLUMN risk_alert.stat_workers.last_error IS 'why the worker ended the last time that it failed';

CREATE VIEW risk_alert.stat_streams AS
    SELECT s.name AS stream,
           COALESCE(w.events, 0) AS queued,
           COALESCE(st.processed, 0) AS processed,
           COALESCE(st.scored, 0) AS scored,
           COALESCE(st.alerts, 0) AS alerts,
           COALESCE(st.folded, 0) AS folded,
           COALESCE(st.skipped, 0) AS skipped,
           st.last_skip,
           COALESCE(GREATEST(pg_catalog.clock_timestamp() - w.oldest, '0'), '0'::interval) AS lag,
           st.last_event_time,
           st.last_processed_at,
           s.version,
           COALESCE(risk_alert._capture_problem(s.relation),
                    CASE WHEN s.layout_id IS NULL THEN 'not refreshed' END,
                    (SELECT CASE WHEN k.state IN ('running', 'rebuilding') THEN k.state ELSE 'worker ' || k.state END
                       FROM risk_alert._worker_status() k WHERE k.database = pg_catalog.current_database()),
                    'no worker') AS state
      FROM risk_alert.stream s
      LEFT JOIN risk_alert.stream_stat st USING (stream_id)
      LEFT JOIN risk_alert._waiting w USING (stream_id);
COMMENT ON VIEW risk_alert.stat_streams IS 'what has been done and what waits, per stream; check_setup() explains';
COMMENT ON COLUMN risk_alert.stat_streams.stream IS 'the stream';
COMMENT ON COLUMN risk_alert.stat_streams.last_event_time IS 'the latest time of an event';
COMMENT ON COLUMN risk_alert.stat_streams.last_processed_at IS 'when events were last processed';
COMMENT ON COLUMN risk_alert.stat_streams.version IS 'the latest version of the rule set';
COMMENT ON COLUMN risk_alert.stat_streams.queued IS 'committed events that wait';
COMMENT ON COLUMN risk_alert.stat_streams.processed IS 'events taken from the queue: inserts, updates, deletes';
COMMENT ON COLUMN risk_alert.stat_streams.scored IS 'events that rules were evaluated for';
COMMENT ON COLUMN risk_alert.stat_streams.alerts IS 'alerts raised';
COMMENT ON COLUMN risk_alert.stat_streams.folded IS 'events folded into an open alert';
COMMENT ON COLUMN risk_alert.stat_streams.skipped IS 'events that could not be scored';
COMMENT ON COLUMN risk_alert.stat_streams.last_skip IS 'why, the last time';
COMMENT ON COLUMN risk_alert.stat_streams.lag IS 'since when the oldest waiting event waits, by the server''s clock; 0 while that is behind the event''s arrival';
COMMENT ON COLUMN risk_alert.stat_streams.state IS 'running or rebuilding, see stat_workers; or what keeps it from running';

CREATE VIEW risk_alert.stat_rules AS
    SELECT s.name AS stream,
           r.name AS rule,
           r.status,
           COALESCE(st.evaluated, 0) AS evaluated,
           COALESCE(st.fired, 0) AS fired,
           COALESCE(st.errors, 0) AS errors,
           COALESCE(st.errors_in_row, 0) AS errors_in_row,
           st.last_error,
           st.last_error_at,
           COALESCE(st.time_us, 0) / 1000.0::float8 AS total_time,
           st.time_us / NULLIF(st.evaluated, 0)::float8 / 1000.0 AS mean_time,
           r.suspended_at,
           r.suspended_for
      FROM risk_alert.rule r
      JOIN risk_alert.stream s USING (stream_id)
      LEFT JOIN risk_alert.rule_stat st USING (rule_id);
COMMENT ON VIEW risk_alert.stat_rules IS 'what became of each rule''s evaluations';
COMMENT ON COLUMN risk_alert.stat_rules.stream IS 'the stream of the rule';
COMMENT ON COLUMN risk_alert.stat_rules.rule IS 'its name';
COMMENT ON COLUMN risk_alert.stat_rules.status IS 'draft, shadow, active or retired';
COMMENT ON COLUMN risk_alert.stat_rules.evaluated IS 'events that its condition was evaluated for';
COMMENT ON COLUMN risk_alert.stat_rules.fired IS 'those for which it was true';
COMMENT ON COLUMN risk_alert.stat_rules.last_error IS 'the latest error';
COMMENT ON COLUMN risk_alert.stat_rules.last_error_at IS 'when that was';
COMMENT ON COLUMN risk_alert.stat_rules.errors IS 'events for which the condition failed; the rule did not fire then';
COMMENT ON COLUMN risk_alert.stat_rules.errors_in_row IS 'how often it has failed without a success between';
COMMENT ON COLUMN risk_alert.stat_rules.total_time IS 'time spent on the condition, in milliseconds';
COMMENT ON COLUMN risk_alert.stat_rules.mean_time IS 'the same per evaluation';
COMMENT ON COLUMN risk_alert.stat_rules.suspended_at IS 'when repeated errors took the rule out of use';
COMMENT ON COLUMN risk_alert.stat_rules.suspended_for IS 'the error that did';

CREATE VIEW risk_alert.stat_features AS
    SELECT s.name AS stream, c.entity, c.entities, c.memory, c.hits, c.rebuilds, c.evictions
      FROM risk_alert._cache_status() c JOIN risk_alert.stream s USING (stream_id);
COMMENT ON VIEW risk_alert.stat_features IS 'the windows in shared memory, per stream and entity, since the worker started';
COMMENT ON COLUMN risk_alert.stat_features.stream IS 'the stream';
COMMENT ON COLUMN risk_alert.stat_features.entity IS 'the columns that windows are kept for; features over the same columns share them';
COMMENT ON COLUMN risk_alert.stat_features.entities IS 'how many entities are in memory';
COMMENT ON COLUMN risk_alert.stat_features.memory IS 'bytes that their windows take, of risk_alert.feature_memory';
COMMENT ON COLUMN risk_alert.stat_features.hits IS 'how often an entity was found in memory';
COMMENT ON COLUMN risk_alert.stat_features.rebuilds IS 'how often one was read from the table';
COMMENT ON COLUMN risk_alert.stat_features.evictions IS 'how often one had to make room';
