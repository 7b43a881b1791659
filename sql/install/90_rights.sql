-- Who may do what.  PUBLIC has nothing but what a trigger needs.

-- whatever default privileges the creating role brings along
REVOKE ALL ON ALL TABLES IN SCHEMA risk_alert FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA risk_alert FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA risk_alert FROM PUBLIC;

-- Table owners write the trigger by hand.
GRANT USAGE ON SCHEMA risk_alert TO PUBLIC;
GRANT EXECUTE ON FUNCTION risk_alert.capture() TO PUBLIC;

--                                   admin   analyst   monitor
-- configure                           x
-- score                               x        x
-- read configuration and alerts       x        x
-- work on alerts                               x
-- statistics, check_setup, drain      x        x         x
-- make nodes                          x
-- ask nodes, and about them           x        x
-- run global transactions, publish    x
-- lock                                x                         (and risk_alert_locker)
-- be asked as a Paxos acceptor        x
--
-- What gives an acceptor its vote is left to the owner of the extension.
--
-- To ask a node takes USAGE of the foreign server, too, and a user mapping.
--
-- Who writes the rules does not label the alerts, unless granted both roles.

-- configure
GRANT EXECUTE ON FUNCTION
    risk_alert.watch(regclass, text, text, int, int, interval, text),
    risk_alert._watch(regclass, text, text, int, int, interval, text, bigint),
    risk_alert.unwatch(text),
    risk_alert._unwatch(text, bigint),
    risk_alert.alter_stream(text, int, int, interval),
    risk_alert._alter_stream(text, int, int, interval, bigint),
    risk_alert.create_feature(text, text, text, text, interval, text, bool, text),
    risk_alert._create_feature(text, text, text, text, interval, text, bool, text, text, bigint),
    risk_alert.drop_feature(text, text),
    risk_alert._drop_feature(text, text, bigint),
    risk_alert.create_rule(text, text, text, int, text, text, text),
    risk_alert._create_rule(text, text, text, int, text, text, text, text, bigint),
    risk_alert.alter_rule(text, text, text, int, text, text, text),
    risk_alert._alter_rule(text, text, text, int, text, text, text, text, bigint),
    risk_alert.drop_rule(text, text),
    risk_alert._drop_rule(text, text, bigint),
    risk_alert.create_list(text, bool),
    risk_alert._create_list(text, bigint),
    risk_alert.drop_list(text, bool),
    risk_alert._drop_list(text, bigint),
    risk_alert.list_add(text, text, timestamptz, text, bool),
    risk_alert._list_add(text, text, timestamptz, text, bigint),
    risk_alert.list_remove(text, text, bool),
    risk_alert._list_remove(text, text, bigint)
    TO risk_alert_admin;
GRANT EXECUTE ON FUNCTION risk_alert._ticket() TO risk_alert_admin, risk_alert_analyst;

-- score; conditions call in_list() with the rights of their owner
GRANT EXECUTE ON FUNCTION
    risk_alert.risk_score(record),
    risk_alert.risk_score(text, jsonb),
    risk_alert.risk_assess(record),
    risk_alert.risk_assess(text, jsonb),
    risk_alert.in_list(text, text),
    risk_alert.in_list(text, anyelement)
    TO risk_alert_admin, risk_alert_analyst;

-- read; functions in a view are called with the rights of who reads it
GRANT SELECT ON
    risk_alert.features,
    risk_alert.rules,
    risk_alert.lists,
    risk_alert.list_entries,
    risk_alert.rule_set_history,
    risk_alert.alerts,
    risk_alert.open_alerts,
    risk_alert.cluster_alerts,
    risk_alert.alert_events,
    risk_alert.alert_history,
    risk_alert.rule_performance
    TO risk_alert_admin, risk_alert_analyst;
GRANT EXECUTE ON FUNCTION
    risk_alert._aggregate(text, text),
    risk_alert._cluster_alerts()
    TO risk_alert_admin, risk_alert_analyst;

-- (which asks other nodes)
GRANT SELECT ON risk_alert.cluster_rule_sets TO risk_alert_admin, risk_alert_analyst;
GRANT EXECUTE ON FUNCTION
    risk_alert._cluster_rule_sets(),
    risk_alert._ask_nodes(text[], text)
    TO risk_alert_admin, risk_alert_analyst;

-- work on alerts
GRANT EXECUTE ON FUNCTION
    risk_alert.acknowledge(bigint),
    risk_alert._acknowledge(bigint, bigint),
    risk_alert.assign(bigint, text),
    risk_alert._assign(bigint, text, bigint),
    risk_alert.add_note(bigint, text),
    risk_alert._add_note(bigint, text, bigint),
    risk_alert.resolve(bigint, text, text),
    risk_alert._resolve(bigint, text, text, bigint),
    risk_alert.reopen(bigint, text),
    risk_alert._reopen(bigint, text, bigint)
    TO risk_alert_analyst;

-- statistics
GRANT SELECT ON
    risk_alert.streams,
    risk_alert.stat_streams,
    risk_alert.stat_workers,
    risk_alert.stat_rules,
    risk_alert.stat_features
    TO risk_alert_admin, risk_alert_analyst, risk_alert_monitor;
GRANT EXECUTE ON FUNCTION
    risk_alert.check_setup(),
    risk_alert.drain(interval),
    risk_alert._qualified(regclass),
    risk_alert._capture_problem(regclass),
    risk_alert._worker_status(),
    risk_alert._cache_status()
    TO risk_alert_admin, risk_alert_analyst, risk_alert_monitor;

-- make nodes; user mappings are made by whom they are for, or by who owns the server
GRANT USAGE ON FOREIGN DATA WRAPPER risk_alert_node TO risk_alert_admin;

-- ask nodes, and about them
GRANT EXECUTE ON FUNCTION
    risk_alert.on_node(text, text, text[]),
    risk_alert.pick_node(text, text),
    risk_alert.is_leader(),
    risk_alert.check_node(text),
    risk_alert._check_node(text)
    TO risk_alert_admin, risk_alert_analyst;
GRANT EXECUTE ON FUNCTION risk_alert._library_version() TO risk_alert_admin, risk_alert_analyst;
GRANT SELECT ON
    risk_alert.nodes,
    risk_alert.stat_nodes
    TO risk_alert_admin, risk_alert_analyst, risk_alert_monitor;
GRANT EXECUTE ON FUNCTION
    risk_alert._members(),
    risk_alert._node_status(),
    risk_alert._option(text[], text)
    TO risk_alert_admin, risk_alert_analyst, risk_alert_monitor;

-- run global transactions, and finish them
GRANT EXECUTE ON FUNCTION
    risk_alert.global_execute(text, text, text[]),
    risk_alert.global_execute_all(text[], text[], text[], bool),
    risk_alert.resolve(text, text),
    risk_alert._resolve_branches(text, text),
    risk_alert._local_outcome(text),
    risk_alert._coordinator_alive(text)
    TO risk_alert_admin;
GRANT SELECT ON
    risk_alert.global_transactions,
    risk_alert.stat_recovery
    TO risk_alert_admin, risk_alert_analyst, risk_alert_monitor;
GRANT EXECUTE ON FUNCTION
    risk_alert.global_outcome(text),
    risk_alert._global_outcome(text),
    risk_alert._gid(text),
    risk_alert._global_unfinished(),
    risk_alert._recovery_status()
    TO risk_alert_admin, risk_alert_analyst, risk_alert_monitor;

-- publish over the cluster; nodes do their shares as a member of risk_alert_admin, too
GRANT EXECUTE ON FUNCTION
    risk_alert.publish_cluster(text),
    risk_alert.pull_cluster(text, text),
    risk_alert._publish_nodes(),
    risk_alert._publish_check(),
    risk_alert._publish_run(text, text, text[]),
    risk_alert._publish_lock_all(text, text),
    risk_alert._publish_lock(text, bool),
    risk_alert._publish_state(text, text[]),
    risk_alert._current_rule_set(text),
    risk_alert._published_rule_set(text),
    risk_alert._publish_apply(text, bigint, jsonb, bigint),
    risk_alert._publish_apply_as(text, bigint, jsonb, bigint, bigint),
    risk_alert._list_contents(text),
    risk_alert._list_lock(text, bool),
    risk_alert._list_state(text),
    risk_alert._note_list_epoch(text, bigint, bool, bool, bigint),
    risk_alert._list_apply(text, bigint, text, text, timestamptz, text),
    risk_alert._publish_list(text, text, text, timestamptz, text),
    risk_alert._publish_list(text, text),
    risk_alert._publications(text, text),
    risk_alert._published(text),
    risk_alert._adopt_rule_set(text, bigint, bool, jsonb),
    risk_alert._set_list_as(text, jsonb, bigint),
    risk_alert._adopt_list(text, bigint, bool, jsonb),
    risk_alert._not_null(text, text[])
    TO risk_alert_admin;

-- lock
GRANT EXECUTE ON FUNCTION
    risk_alert.advisory_lock(text, interval),
    risk_alert.try_advisory_lock(text),
    risk_alert.advisory_lock(bigint, interval),
    risk_alert.try_advisory_lock(bigint),
    risk_alert.advisory_lock_shared(text, interval),
    risk_alert.try_advisory_lock_shared(text),
    risk_alert.advisory_lock_shared(bigint, interval),
    risk_alert.try_advisory_lock_shared(bigint),
    risk_alert.advisory_xact_lock(text, interval),
    risk_alert.try_advisory_xact_lock(text),
    risk_alert.advisory_xact_lock(bigint, interval),
    risk_alert.try_advisory_xact_lock(bigint),
    risk_alert.advisory_xact_lock_shared(text, interval),
    risk_alert.try_advisory_xact_lock_shared(text),
    risk_alert.advisory_xact_lock_shared(bigint, interval),
    risk_alert.try_advisory_xact_lock_shared(bigint),
    risk_alert.advisory_unlock(text),
    risk_alert.advisory_unlock(bigint),
    risk_alert.advisory_unlock_shared(text),
    risk_alert.advisory_unlock_shared(bigint),
    risk_alert.advisory_unlock_all(),
    risk_alert.check_fence(text, numeric, bool),
    risk_alert.check_fence(bigint, numeric, bool)
    TO risk_alert_admin, risk_alert_locker;
GRANT SELECT ON
    risk_alert.advisory_locks,
    risk_alert.stat_coordination
    TO risk_alert_admin, risk_alert_analyst, risk_alert_monitor, risk_alert_locker;
GRANT EXECUTE ON FUNCTION
    risk_alert._lock_entries(),
    risk_alert._lock_list(),
    risk_alert._lock_status()
    TO risk_alert_admin, risk_alert_analyst, risk_alert_monitor, risk_alert_locker;

-- the Paxos register: nodes ask each other as a member of risk_alert_admin
GRANT EXECUTE ON FUNCTION
    risk_alert._paxos_promise(text, text, text, bigint, bigint),
    risk_alert._paxos_accept(text, text, text, bigint, bigint, text),
    risk_alert._paxos_learn(text, text, text),
    risk_alert._paxos_decided(text, text, text, text),
    risk_alert._paxos_forget(text, text, text[]),
    risk_alert._paxos_open(),
    risk_alert._paxos_problem()
    TO risk_alert_admin;
