-- Global transactions: on every node or on none.

-- What this node has decided to commit, with register local: a row is written by the
-- very transaction whose commit is the decision, and deleted a time after all branches
-- were finished: a participant that is restored from a backup may have one again.  It is not
-- touched in between: that its branches are finished stands elsewhere, for thousands at a time.
CREATE TABLE risk_alert.global_commit (
    epoch        bigint NOT NULL,
    number       bigint NOT NULL,
    gid          text NOT NULL,
    participants text NOT NULL,
    decided_at   timestamptz NOT NULL,
    CONSTRAINT global_commit_pkey PRIMARY KEY (epoch, number)
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE risk_alert.global_commit IS 'global transactions that this node has committed; kept for risk_alert.decision_retention after all branches were finished';
COMMENT ON COLUMN risk_alert.global_commit.epoch IS 'run of the server, see global_epoch';
COMMENT ON COLUMN risk_alert.global_commit.number IS 'of the transaction in that run';
COMMENT ON COLUMN risk_alert.global_commit.gid IS 'name of the transaction';
COMMENT ON COLUMN risk_alert.global_commit.participants IS 'nodes that have prepared a branch, separated by commas';
COMMENT ON COLUMN risk_alert.global_commit.decided_at IS 'when its commit began';
REVOKE ALL ON risk_alert.global_commit FROM PUBLIC;

CREATE TABLE risk_alert.global_finished (
    epoch       bigint NOT NULL,
    numbers     int8multirange NOT NULL,
    finished_at timestamptz NOT NULL
);
COMMENT ON TABLE risk_alert.global_finished IS 'global transactions of which all branches are finished, in the order in which that was found out: their rows of global_commit go after risk_alert.decision_retention';
COMMENT ON COLUMN risk_alert.global_finished.epoch IS 'run of the server, see global_epoch';
COMMENT ON COLUMN risk_alert.global_finished.numbers IS 'of the transactions in that run';
COMMENT ON COLUMN risk_alert.global_finished.finished_at IS 'since when that is known';
CREATE INDEX global_finished_finished_at ON risk_alert.global_finished (finished_at);
COMMENT ON INDEX risk_alert.global_finished_finished_at IS 'for recovery: those that are old enough to remove';
REVOKE ALL ON risk_alert.global_finished FROM PUBLIC;

-- All of them, and what never committed: few ranges, since numbers are given out in order
CREATE TABLE risk_alert.global_over (
    epoch   bigint NOT NULL,
    numbers int8multirange NOT NULL,
    CONSTRAINT global_over_pkey PRIMARY KEY (epoch)
) WITH (fillfactor = 50);
COMMENT ON TABLE risk_alert.global_over IS 'of which global transactions nothing is left to do: all others that have a row of global_commit may have a branch somewhere';
COMMENT ON COLUMN risk_alert.global_over.epoch IS 'run of the server, see global_epoch';
COMMENT ON COLUMN risk_alert.global_over.numbers IS 'of transactions in that run: all branches are finished, or it has not committed in this database';
REVOKE ALL ON risk_alert.global_over FROM PUBLIC;

-- What recovery has committed here, and an entry of another register may be left of
CREATE TABLE risk_alert.global_recovered (
    gid          text NOT NULL,
    recovered_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT global_recovered_pkey PRIMARY KEY (gid)
);
COMMENT ON TABLE risk_alert.global_recovered IS 'global transactions of registers zookeeper and paxos with a branch that recovery has committed here: when no node has one any more, the register is told';
COMMENT ON COLUMN risk_alert.global_recovered.gid IS 'name of the transaction';
COMMENT ON COLUMN risk_alert.global_recovered.recovered_at IS 'when its branch was committed here';
REVOKE ALL ON risk_alert.global_recovered FROM PUBLIC;

-- Not to be dumped: a server that is made from a dump has no memory of earlier transactions
CREATE TABLE risk_alert.global_epoch (
    epoch        bigint NOT NULL,
    database     oid NOT NULL,
    began_at_lsn pg_lsn NOT NULL,
    began_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    removed_to   bigint NOT NULL DEFAULT 0,
    CONSTRAINT global_epoch_pkey PRIMARY KEY (epoch, database)
);
COMMENT ON TABLE risk_alert.global_epoch IS 'runs of this server: it does not vote on transactions of one that it does not remember';
COMMENT ON COLUMN risk_alert.global_epoch.epoch IS 'a random number';
COMMENT ON COLUMN risk_alert.global_epoch.database IS 'OID of the database: a copy of it has rows of its origin, too';
COMMENT ON COLUMN risk_alert.global_epoch.began_at_lsn IS 'end of the write-ahead log then';
COMMENT ON COLUMN risk_alert.global_epoch.began_at IS 'when the run began in this database';
COMMENT ON COLUMN risk_alert.global_epoch.removed_to IS 'highest number of a transaction whose row of global_commit was removed: of earlier ones without a row nothing is known';
REVOKE ALL ON risk_alert.global_epoch FROM PUBLIC;

-- By the primary key, whatever the planner thinks of a table that has just been filled: run after run, and
-- of each what is not over, range after range (OFFSET 0 keeps it so)
CREATE VIEW risk_alert._global_unfinished AS
    SELECT c.epoch, c.number, c.gid, c.participants, c.decided_at
      FROM (SELECT DISTINCT e.epoch FROM risk_alert.global_epoch e) r
      LEFT JOIN risk_alert.global_over o ON o.epoch = r.epoch
     CROSS JOIN LATERAL pg_catalog.unnest('{(,)}'::int8multirange - COALESCE(o.numbers, '{}')) AS g (numbers)
     CROSS JOIN LATERAL (
        SELECT n.epoch, n.number, n.gid, n.participants, n.decided_at FROM risk_alert.global_commit n
         WHERE n.epoch = r.epoch AND n.number >= COALESCE(pg_catalog.lower(g.numbers), 0)
           AND n.number < COALESCE(pg_catalog.upper(g.numbers), 9223372036854775807)
        OFFSET 0) c;
COMMENT ON VIEW risk_alert._global_unfinished IS 'internal: global transactions that this node has committed and not heard of all branches';
COMMENT ON COLUMN risk_alert._global_unfinished.epoch IS 'run of the server, see global_epoch';
COMMENT ON COLUMN risk_alert._global_unfinished.number IS 'of the transaction in that run';
COMMENT ON COLUMN risk_alert._global_unfinished.gid IS 'name of the transaction';
COMMENT ON COLUMN risk_alert._global_unfinished.participants IS 'nodes that have prepared a branch, separated by commas';
COMMENT ON COLUMN risk_alert._global_unfinished.decided_at IS 'when its commit began';
REVOKE ALL ON risk_alert._global_unfinished FROM PUBLIC;

-- For view global_transactions: the planner would take the probes for many, and compile the query
CREATE FUNCTION risk_alert._global_unfinished(OUT gid text, OUT participants text, OUT decided_at timestamptz) RETURNS SETOF record
    LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 10
    SET search_path = pg_catalog, pg_temp SET jit = off
    AS 'SELECT u.gid, u.participants, u.decided_at FROM risk_alert._global_unfinished u';
COMMENT ON FUNCTION risk_alert._global_unfinished() IS 'internal: see the view of the same name';
REVOKE ALL ON FUNCTION risk_alert._global_unfinished() FROM PUBLIC;

CREATE FUNCTION risk_alert.global_execute(node text, sql text, params text[] DEFAULT '{}') RETURNS bigint
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_global_execute';
COMMENT ON FUNCTION risk_alert.global_execute(text, text, text[]) IS
    'runs one statement on a node as part of this transaction, which commits on all its nodes or on none, and returns how many rows it affected; params are its $1, $2, ...';
REVOKE ALL ON FUNCTION risk_alert.global_execute(text, text, text[]) FROM PUBLIC;

CREATE FUNCTION risk_alert.global_execute_all(nodes text[], sql text[], params text[] DEFAULT '{}', prepare bool DEFAULT false) RETURNS bigint[]
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_global_execute_all';
COMMENT ON FUNCTION risk_alert.global_execute_all(text[], text[], text[], bool) IS
    'the same as global_execute() on several nodes at the same time: one statement for each node, or one for all; params are for all of them, or, with two dimensions, a row for each; prepare: they are the last ones there, so PREPARE goes with them';
REVOKE ALL ON FUNCTION risk_alert.global_execute_all(text[], text[], text[], bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._global_outcome(gid text, OUT outcome text, OUT reason text)
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_global_outcome';
COMMENT ON FUNCTION risk_alert._global_outcome(text) IS 'internal: see global_outcome()';
REVOKE ALL ON FUNCTION risk_alert._global_outcome(text) FROM PUBLIC;

CREATE FUNCTION risk_alert._local_outcome(gid text, OUT outcome text, OUT reason text)
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_local_outcome_fn';
COMMENT ON FUNCTION risk_alert._local_outcome(text) IS 'internal: what this node knows of a transaction that it has coordinated with register local';
REVOKE ALL ON FUNCTION risk_alert._local_outcome(text) FROM PUBLIC;

CREATE FUNCTION risk_alert._coordinator_alive(gid text) RETURNS bool
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_coordinator_alive_fn';
COMMENT ON FUNCTION risk_alert._coordinator_alive(text) IS 'internal: does the session of this node that coordinates the transaction still do so?';
REVOKE ALL ON FUNCTION risk_alert._coordinator_alive(text) FROM PUBLIC;

CREATE FUNCTION risk_alert.global_outcome(gid text) RETURNS text
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
    RETURN (SELECT o.outcome FROM risk_alert._global_outcome(gid) o);
COMMENT ON FUNCTION risk_alert.global_outcome(text) IS
    'what became of a global transaction, by its name or that of a branch: committed, aborted, in progress, or unknown (as long as its register can''t be asked)';
REVOKE ALL ON FUNCTION risk_alert.global_outcome(text) FROM PUBLIC;

CREATE FUNCTION risk_alert._gid(gid text, OUT cluster text, OUT coordinator text, OUT register text,
        OUT transaction text, OUT database oid, OUT epoch bigint, OUT number bigint, OUT branch int)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ra_gid_parts';
COMMENT ON FUNCTION risk_alert._gid(text) IS 'internal: parts of the name of a branch or a global transaction; NULL: it is none';
REVOKE ALL ON FUNCTION risk_alert._gid(text) FROM PUBLIC;

CREATE FUNCTION risk_alert._recovery_status(
        OUT pid int, OUT rounds bigint, OUT committed bigint, OUT aborted bigint, OUT waiting bigint,
        OUT last_run timestamptz, OUT last_error text, OUT last_error_at timestamptz)
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'ra_recovery_status';
COMMENT ON FUNCTION risk_alert._recovery_status() IS 'internal: see view stat_recovery';
REVOKE ALL ON FUNCTION risk_alert._recovery_status() FROM PUBLIC;

CREATE FUNCTION risk_alert._resolve_branches(gid text, decision text) RETURNS bigint
    LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_resolve_branches';
COMMENT ON FUNCTION risk_alert._resolve_branches(text, text) IS 'internal: see resolve(text, text)';
REVOKE ALL ON FUNCTION risk_alert._resolve_branches(text, text) FROM PUBLIC;

CREATE VIEW risk_alert.stat_recovery AS
    SELECT r.pid, r.rounds, r.committed, r.aborted, r.waiting, r.last_run, r.last_error, r.last_error_at
      FROM risk_alert._recovery_status() r;
COMMENT ON VIEW risk_alert.stat_recovery IS 'recovery of global transactions in this database since the server started';
COMMENT ON COLUMN risk_alert.stat_recovery.pid IS 'process that does it; NULL while there is nothing to do';
COMMENT ON COLUMN risk_alert.stat_recovery.rounds IS 'how often it has looked';
COMMENT ON COLUMN risk_alert.stat_recovery.committed IS 'branches that it has committed';
COMMENT ON COLUMN risk_alert.stat_recovery.aborted IS 'branches that it has rolled back';
COMMENT ON COLUMN risk_alert.stat_recovery.waiting IS 'branches that it could not finish in its last round: their outcome is not known yet';
COMMENT ON COLUMN risk_alert.stat_recovery.last_run IS 'when it last looked';
COMMENT ON COLUMN risk_alert.stat_recovery.last_error IS 'why a branch could not be finished';
COMMENT ON COLUMN risk_alert.stat_recovery.last_error_at IS 'when that was';
REVOKE ALL ON risk_alert.stat_recovery FROM PUBLIC;

-- Branches prepared in this database come first; then transactions that this node coordinates
CREATE VIEW risk_alert.global_transactions AS
    WITH here AS (
        SELECT d.oid AS database,
               (SELECT e.epoch FROM risk_alert.global_epoch e WHERE e.database = d.oid ORDER BY e.began_at_lsn DESC LIMIT 1) AS epoch
          FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
    ), alive AS (
        SELECT h.database, h.epoch, (l.classid::bigint << 32) | l.objid::bigint AS number
          FROM pg_catalog.pg_locks l JOIN here h ON h.database = l.database
         WHERE l.locktype = 'advisory' AND l.objsubid = 21058 AND l.mode = 'ExclusiveLock'
    ), prepared AS (
        SELECT g.transaction, g.coordinator, g.register, g.database, g.epoch, g.number,
               pg_catalog.array_agg(x.gid ORDER BY g.branch) AS branches, pg_catalog.min(x.prepared) AS since
          FROM pg_catalog.pg_prepared_xacts x CROSS JOIN LATERAL risk_alert._gid(x.gid) g
         WHERE x.database = pg_catalog.current_database() AND g.branch IS NOT NULL
           AND g.cluster = pg_catalog.current_setting('risk_alert.cluster_name', true)
         GROUP BY 1, 2, 3, 4, 5, 6
    ), committed AS (
        SELECT u.gid, u.participants, u.decided_at FROM risk_alert._global_unfinished() u
         UNION
        SELECT n.gid, n.participants, n.decided_at
          FROM prepared p JOIN risk_alert.global_commit n ON n.epoch = p.epoch AND n.number = p.number AND n.gid = p.transaction
    )
    SELECT COALESCE(p.transaction, c.gid) AS gid,
           COALESCE(p.coordinator, pg_catalog.current_setting('risk_alert.node_name', true)) AS coordinator,
           COALESCE(p.register, 'local') AS register,
           CASE WHEN c.gid IS NOT NULL THEN 'committed'
                WHEN p.coordinator = pg_catalog.current_setting('risk_alert.node_name', true)
                     AND (p.database, p.epoch, p.number) IN (SELECT a.database, a.epoch, a.number FROM alive a) THEN 'in progress'
                ELSE 'in doubt' END AS state,
           pg_catalog.string_to_array(c.participants, ',') AS participants,
           COALESCE(p.branches, '{}') AS branches,
           COALESCE(p.since, c.decided_at) AS since,
           pg_catalog.clock_timestamp() - COALESCE(p.since, c.decided_at) AS age
      FROM prepared p
      FULL JOIN committed c ON c.gid = p.transaction
     ORDER BY p.transaction IS NULL, COALESCE(p.since, c.decided_at);
COMMENT ON VIEW risk_alert.global_transactions IS
    'global transactions with branches that are prepared in this database, and those that this node has committed and not heard of all branches; in-doubt ones first';
COMMENT ON COLUMN risk_alert.global_transactions.gid IS 'name of the transaction';
COMMENT ON COLUMN risk_alert.global_transactions.coordinator IS 'node whose session has begun it';
COMMENT ON COLUMN risk_alert.global_transactions.register IS 'where its outcome is decided';
COMMENT ON COLUMN risk_alert.global_transactions.state IS
    'in doubt: its outcome is not known here; in progress: its session, on this node, is about to commit it; committed: decided, some branches may not be finished';
COMMENT ON COLUMN risk_alert.global_transactions.participants IS 'nodes with a branch, if it was coordinated here';
COMMENT ON COLUMN risk_alert.global_transactions.branches IS 'branches that are prepared in this database';
COMMENT ON COLUMN risk_alert.global_transactions.since IS 'when the first of these was prepared, or the transaction was decided';
COMMENT ON COLUMN risk_alert.global_transactions.age IS 'how long ago that was';
REVOKE ALL ON risk_alert.global_transactions FROM PUBLIC;

CREATE FUNCTION risk_alert.resolve(gid text, decision text DEFAULT NULL) RETURNS bigint
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN risk_alert._resolve_branches(gid, decision);
COMMENT ON FUNCTION risk_alert.resolve(text, text) IS
    'finishes the branches of a global transaction that are prepared in this database, at once and for good, and returns how many there were: as its register says, which decision (commit or abort) must not contradict; only if the register can''t be asked decides the decision';
REVOKE ALL ON FUNCTION risk_alert.resolve(text, text) FROM PUBLIC;
