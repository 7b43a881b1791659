-- Decision registers of global transactions: the nodes' own (Paxos).

CREATE TABLE risk_alert.paxos_acceptor (
    gid         text COLLATE "C" PRIMARY KEY,
    promised    bigint NOT NULL DEFAULT -1,
    promised_by bigint NOT NULL DEFAULT 0,
    accepted    bigint NOT NULL DEFAULT -1,
    accepted_by bigint NOT NULL DEFAULT 0,
    value       text CONSTRAINT paxos_acceptor_value CHECK (value IN ('commit', 'abort')),
    decided     text CONSTRAINT paxos_acceptor_decided CHECK (decided IN ('commit', 'abort')),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE risk_alert.paxos_acceptor IS
    'votes of this node about global transactions; what is lost or changed here can break a transaction apart';
COMMENT ON COLUMN risk_alert.paxos_acceptor.gid IS 'names the global transaction';
COMMENT ON COLUMN risk_alert.paxos_acceptor.promised IS 'ballot below which nothing is accepted any more; -1: none';
COMMENT ON COLUMN risk_alert.paxos_acceptor.promised_by IS 'whose ballot that is';
COMMENT ON COLUMN risk_alert.paxos_acceptor.accepted IS 'highest ballot that was accepted; -1: none';
COMMENT ON COLUMN risk_alert.paxos_acceptor.accepted_by IS 'whose ballot that is';
COMMENT ON COLUMN risk_alert.paxos_acceptor.value IS 'what was accepted';
COMMENT ON COLUMN risk_alert.paxos_acceptor.decided IS 'the outcome, if this node was told';
COMMENT ON COLUMN risk_alert.paxos_acceptor.created_at IS 'when this node first heard of the transaction';
COMMENT ON COLUMN risk_alert.paxos_acceptor.changed_at IS 'when it last voted on it, or was told something';
COMMENT ON CONSTRAINT paxos_acceptor_pkey ON risk_alert.paxos_acceptor IS 'one row per global transaction';
COMMENT ON INDEX risk_alert.paxos_acceptor_pkey IS 'one row per global transaction';
CREATE INDEX paxos_acceptor_age ON risk_alert.paxos_acceptor (created_at);
COMMENT ON INDEX risk_alert.paxos_acceptor_age IS 'for the removal of old rows';
REVOKE ALL ON risk_alert.paxos_acceptor FROM PUBLIC;

-- A row for many votes: marking each of them would cost as much as the vote itself
CREATE TABLE risk_alert.paxos_forgotten (
    forgotten_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    gids         text[] COLLATE "C" NOT NULL
);
COMMENT ON TABLE risk_alert.paxos_forgotten IS 'global transactions all of whose branches are finished: this node''s votes about them go after register_retention, and the row here with them';
COMMENT ON COLUMN risk_alert.paxos_forgotten.forgotten_at IS 'when this node was told so';
COMMENT ON COLUMN risk_alert.paxos_forgotten.gids IS 'which: names as in paxos_acceptor';
CREATE INDEX paxos_forgotten_age ON risk_alert.paxos_forgotten (forgotten_at);
COMMENT ON INDEX risk_alert.paxos_forgotten_age IS 'for the removal of old rows';
REVOKE ALL ON risk_alert.paxos_forgotten FROM PUBLIC;

CREATE TABLE risk_alert.paxos_admission (
    one               bool PRIMARY KEY DEFAULT true CONSTRAINT paxos_admission_one CHECK (one),
    incarnation       text NOT NULL,
    system_identifier numeric NOT NULL,
    timeline          bigint NOT NULL,
    database          oid NOT NULL,
    acceptors         text NOT NULL,
    admitted_at       timestamptz NOT NULL
);
COMMENT ON TABLE risk_alert.paxos_admission IS 'the server that may vote as this node, see paxos_admit()';
COMMENT ON COLUMN risk_alert.paxos_admission.one IS 'true: there is one row at most';
COMMENT ON COLUMN risk_alert.paxos_admission.incarnation IS 'a random number; a file that backups leave out has the same';
COMMENT ON COLUMN risk_alert.paxos_admission.system_identifier IS 'of the database cluster that was admitted, as in pg_control_system()';
COMMENT ON COLUMN risk_alert.paxos_admission.timeline IS 'on which it was then: another one means that it was restored or promoted';
COMMENT ON COLUMN risk_alert.paxos_admission.database IS 'OID of the database: a copy of it has no vote';
COMMENT ON COLUMN risk_alert.paxos_admission.acceptors IS 'the set of acceptors in which it votes';
COMMENT ON COLUMN risk_alert.paxos_admission.admitted_at IS 'when paxos_admit() was run here';
COMMENT ON INDEX risk_alert.paxos_admission_pkey IS 'one row';
REVOKE ALL ON risk_alert.paxos_admission FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_promise(acceptors text, node text, gid text, ballot bigint, proposer bigint,
        OUT granted bool, OUT promised bigint, OUT promised_by bigint, OUT accepted bigint, OUT accepted_by bigint,
        OUT value text, OUT decided text)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_acceptor_promise';
COMMENT ON FUNCTION risk_alert._paxos_promise(text, text, text, bigint, bigint) IS
    'internal: other nodes ask this one to ignore lower ballots, and for what it has accepted';
REVOKE ALL ON FUNCTION risk_alert._paxos_promise(text, text, text, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_accept(acceptors text, node text, gid text, ballot bigint, proposer bigint, decision text,
        OUT granted bool, OUT promised bigint, OUT promised_by bigint, OUT accepted bigint, OUT accepted_by bigint,
        OUT value text, OUT decided text)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_acceptor_accept';
COMMENT ON FUNCTION risk_alert._paxos_accept(text, text, text, bigint, bigint, text) IS
    'internal: other nodes ask this one to accept a decision';
REVOKE ALL ON FUNCTION risk_alert._paxos_accept(text, text, text, bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_learn(acceptors text, node text, gid text,
        OUT granted bool, OUT promised bigint, OUT promised_by bigint, OUT accepted bigint, OUT accepted_by bigint,
        OUT value text, OUT decided text)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_acceptor_learn';
COMMENT ON FUNCTION risk_alert._paxos_learn(text, text, text) IS
    'internal: other nodes ask this one for what it has accepted';
REVOKE ALL ON FUNCTION risk_alert._paxos_learn(text, text, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_decided(acceptors text, node text, gid text, decision text,
        OUT granted bool, OUT promised bigint, OUT promised_by bigint, OUT accepted bigint, OUT accepted_by bigint,
        OUT value text, OUT decided text)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_acceptor_decided';
COMMENT ON FUNCTION risk_alert._paxos_decided(text, text, text, text) IS
    'internal: another node tells the outcome';
REVOKE ALL ON FUNCTION risk_alert._paxos_decided(text, text, text, text) FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_forget(acceptors text, node text, gids text[]) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_acceptor_forget';
COMMENT ON FUNCTION risk_alert._paxos_forget(text, text, text[]) IS
    'internal: all branches are finished, so the entries may go after register_retention';
REVOKE ALL ON FUNCTION risk_alert._paxos_forget(text, text, text[]) FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_problem() RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_acceptor_problem';
COMMENT ON FUNCTION risk_alert._paxos_problem() IS 'internal: why this node has no vote in the Paxos register; NULL: it has one';
REVOKE ALL ON FUNCTION risk_alert._paxos_problem() FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_acceptors() RETURNS text[]
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'ra_acceptor_names';
COMMENT ON FUNCTION risk_alert._paxos_acceptors() IS 'internal: names of the nodes whose majority is the Paxos register';
REVOKE ALL ON FUNCTION risk_alert._paxos_acceptors() FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_identity() RETURNS text
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'ra_acceptor_identity';
COMMENT ON FUNCTION risk_alert._paxos_identity() IS 'internal: the set of acceptors, as all of them must know it';
REVOKE ALL ON FUNCTION risk_alert._paxos_identity() FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_admit(incarnation text) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_acceptor_admit';
COMMENT ON FUNCTION risk_alert._paxos_admit(text) IS 'internal: lets this server vote, see paxos_admit()';
REVOKE ALL ON FUNCTION risk_alert._paxos_admit(text) FROM PUBLIC;

-- What this node has voted on and was not told the outcome of
CREATE FUNCTION risk_alert._paxos_open() RETURNS text[]
    LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.array_agg(a.gid ORDER BY a.gid) FROM risk_alert.paxos_acceptor a WHERE a.decided IS NULL
$$;
COMMENT ON FUNCTION risk_alert._paxos_open() IS 'internal: transactions that this node has voted on and was not told the outcome of';
REVOKE ALL ON FUNCTION risk_alert._paxos_open() FROM PUBLIC;

-- Each transaction that another acceptor knows gets its outcome, and all others know it then: nothing
-- is left that a vote of this node could matter for.
CREATE FUNCTION risk_alert._paxos_settle() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    others text[] := array_remove(risk_alert._paxos_acceptors(), current_setting('risk_alert.node_name'));
    other text;
    open_gids text[] := '{}';
    part text[];
    open_gid text;
    outcome text;
BEGIN
    FOREACH other IN ARRAY others LOOP
        BEGIN
            SELECT n.gids INTO part
              FROM risk_alert.on_node(other, 'SELECT risk_alert._paxos_open()') AS n (gids text[]);
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'acceptor "%" could not be asked what it knows', other
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = SQLERRM,
                      HINT = 'With force => true it is not asked; do that only if no global transaction is in doubt on any node.';
        END;
        open_gids := open_gids || part;
    END LOOP;
    FOR open_gid IN SELECT DISTINCT g FROM unnest(open_gids) g LOOP
        outcome := risk_alert._register_propose('paxos', open_gid, 'abort', 10000);
        IF outcome NOT IN ('commit', 'abort') THEN
            RAISE EXCEPTION 'the outcome of global transaction "%" could not be found out', open_gid
                USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = outcome;
        END IF;
        FOREACH other IN ARRAY others LOOP
            PERFORM FROM risk_alert.on_node(other, 'SELECT granted FROM risk_alert._paxos_decided($1, $2, $3, $4)',
                    ARRAY[risk_alert._paxos_identity(), other, open_gid, outcome]) AS n (granted bool);
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION risk_alert._paxos_settle() IS
    'internal: has all transactions decided that the other acceptors know, and tells them; see paxos_admit()';
REVOKE ALL ON FUNCTION risk_alert._paxos_settle() FROM PUBLIC;

CREATE FUNCTION risk_alert._run_age() RETURNS interval
    LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'ra_run_age';
COMMENT ON FUNCTION risk_alert._run_age() IS
    'internal: for how long this run of the server has had this extension in this database; NULL: its worker has not noted it yet';
REVOKE ALL ON FUNCTION risk_alert._run_age() FROM PUBLIC;

-- A server that lost votes, or never had any, may vote again when nothing is left that they could
-- matter for.  Proposals that count on them end within a minute; what votes there were, was lost before this
-- run, or before the tables of this extension were made.  First that, then the others are asked.
CREATE FUNCTION risk_alert.paxos_admit(force bool DEFAULT false) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF risk_alert._paxos_problem() IS NULL
       AND (SELECT a.acceptors = risk_alert._paxos_identity() FROM risk_alert._paxos_admission() a) THEN
        RETURN risk_alert._paxos_identity();
    END IF;
    IF NOT force THEN
        IF COALESCE(risk_alert._run_age(), '0') < '65 s' THEN
            RAISE EXCEPTION 'this server has had this database for less than 65 seconds'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = 'Proposals that count on votes it may have lost can still be under way.',
                      HINT = format('Wait for %s s, or say force => true if no global transaction is in doubt on any node.',
                             ceil(65 - COALESCE(extract(epoch FROM risk_alert._run_age()), 0)));
        END IF;
        PERFORM risk_alert._paxos_settle();
    END IF;
    RETURN risk_alert._paxos_admit(gen_random_uuid()::text);
END
$$;
COMMENT ON FUNCTION risk_alert.paxos_admit(bool) IS
    'gives this server its vote in the Paxos register: at first, after it was restored or promoted, and after the set of acceptors has changed; has all transactions decided that the others know, unless forced';
REVOKE ALL ON FUNCTION risk_alert.paxos_admit(bool) FROM PUBLIC;

CREATE FUNCTION risk_alert._paxos_admission(OUT acceptors text, OUT admitted_at timestamptz)
    RETURNS SETOF record
    LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.acceptors, a.admitted_at FROM risk_alert.paxos_admission a
$$;
COMMENT ON FUNCTION risk_alert._paxos_admission() IS 'internal: the set of acceptors that this node was admitted to';
REVOKE ALL ON FUNCTION risk_alert._paxos_admission() FROM PUBLIC;

CREATE FUNCTION risk_alert._register_propose(kind text, gid text, decision text, timeout int DEFAULT 5000) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_register_propose_fn';
COMMENT ON FUNCTION risk_alert._register_propose(text, text, text, int) IS
    'internal: proposes a decision to a register (zookeeper, paxos), and returns what stands: commit, abort, or unknown and why';
REVOKE ALL ON FUNCTION risk_alert._register_propose(text, text, text, int) FROM PUBLIC;

CREATE FUNCTION risk_alert._register_read(kind text, gid text, timeout int DEFAULT 5000) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_register_read_fn';
COMMENT ON FUNCTION risk_alert._register_read(text, text, int) IS
    'internal: what stands in a register (zookeeper, paxos): commit, abort, none, or unknown and why';
REVOKE ALL ON FUNCTION risk_alert._register_read(text, text, int) FROM PUBLIC;

CREATE FUNCTION risk_alert._register_forget(kind text, gid text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'ra_register_forget_fn';
COMMENT ON FUNCTION risk_alert._register_forget(text, text) IS
    'internal: tells a register (zookeeper, paxos) that all branches are finished';
REVOKE ALL ON FUNCTION risk_alert._register_forget(text, text) FROM PUBLIC;
