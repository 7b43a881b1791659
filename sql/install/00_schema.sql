-- The schema and the roles.

-- Whoever creates the extension brings a search_path along; nothing in this
-- script may be resolved by it.  Undone at the end of CREATE EXTENSION.
SET LOCAL search_path TO pg_catalog, pg_temp;

-- Not left to the control file: a schema of this name that somebody has made
-- before must be an error.
CREATE SCHEMA risk_alert;
COMMENT ON SCHEMA risk_alert IS 'real-time risk control: streams, features, rules, lists and alerts';

-- Roles belong to the whole server: in its second database they are there
-- already, with members that are none of our business.
DO $roles$
DECLARE
    role text;
    purpose text;
BEGIN
    FOR role, purpose IN
        VALUES ('risk_alert_admin', 'configures risk_alert: streams, features, rules, lists and nodes; runs global transactions'),
               ('risk_alert_analyst', 'works the alerts of risk_alert'),
               ('risk_alert_locker', 'uses the advisory locks of a risk_alert cluster'),
               ('risk_alert_monitor', 'reads the statistics of risk_alert')
    LOOP
        CONTINUE WHEN pg_catalog.to_regrole(role) IS NOT NULL;
        BEGIN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role);
            EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', role, purpose);
            IF role = 'risk_alert_monitor' THEN
                EXECUTE pg_catalog.format('GRANT %I TO pg_monitor', role);
            END IF;
        EXCEPTION
            -- made in another database at this very moment
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
END
$roles$;
