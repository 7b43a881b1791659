--
-- The extension as the catalogs show it
--
CREATE TEMPORARY VIEW member AS
    SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS object
      FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'risk_alert';
CREATE TEMPORARY VIEW func AS
    SELECT p.*, l.lanname FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
     WHERE p.pronamespace = 'risk_alert'::regnamespace;

-- claim: the extension is neither relocatable nor trusted
SELECT extrelocatable FROM pg_extension WHERE extname = 'risk_alert';
SELECT superuser, trusted, relocatable, schema FROM pg_available_extension_versions WHERE name = 'risk_alert' AND installed;

-- claim: everything in the schema belongs to the extension
SELECT pg_describe_object('pg_proc'::regclass, oid, 0) FROM func
 WHERE oid NOT IN (SELECT objid FROM member WHERE classid = 'pg_proc'::regclass)
UNION ALL
SELECT pg_describe_object('pg_class'::regclass, oid, 0) FROM pg_class
 WHERE relnamespace = 'risk_alert'::regnamespace AND relkind IN ('r', 'v', 'S')
   AND oid NOT IN (SELECT objid FROM member WHERE classid = 'pg_class'::regclass);

-- claim: every object has a comment: members, indexes and triggers of tables
SELECT object FROM member
 WHERE obj_description(objid, classid::regclass::name) IS NULL
   AND NOT (classid = 'pg_class'::regclass AND (SELECT relkind FROM pg_class WHERE oid = objid) = 'S')
   AND NOT (classid = 'pg_type'::regclass AND (SELECT typrelid <> 0 OR typelem <> 0 FROM pg_type WHERE oid = objid)
            AND objid <> 'risk_alert._finding'::regtype)
UNION ALL
SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE c.relnamespace = 'risk_alert'::regnamespace AND obj_description(i.indexrelid, 'pg_class') IS NULL
   AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
UNION ALL
SELECT t.tgname || ' on ' || t.tgrelid::regclass FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE c.relnamespace = 'risk_alert'::regnamespace AND NOT t.tgisinternal AND obj_description(t.oid, 'pg_trigger') IS NULL;

-- claim: so has every column of a table or view of which any has one
SELECT a.attrelid::regclass AS relation, a.attname
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.relnamespace = 'risk_alert'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped
   AND col_description(a.attrelid, a.attnum) IS NULL
   AND EXISTS (SELECT FROM pg_description d WHERE d.classoid = 'pg_class'::regclass AND d.objoid = a.attrelid AND d.objsubid > 0)
 ORDER BY a.attrelid::regclass::text COLLATE "C", a.attnum;

-- claim: functions resolve names when they are created, or under a search_path of their own; C has its own ways
SELECT oid::regprocedure FROM func
 WHERE lanname <> 'c' AND prosqlbody IS NULL
   AND (proconfig IS NULL OR NOT proconfig @> ARRAY['search_path=pg_catalog, pg_temp']);

-- claim: SECURITY DEFINER functions are pinned, owned by a superuser and not for everybody
SELECT oid::regprocedure FROM func
 WHERE prosecdef AND (prosqlbody IS NOT NULL OR proconfig IS NULL
                      OR NOT (SELECT rolsuper FROM pg_roles r WHERE r.oid = proowner));

-- claim: nothing in the extension refers to objects of other schemas
SELECT DISTINCT m.object, pg_describe_object(d.refclassid, d.refobjid, 0)
  FROM member m
  JOIN pg_depend d ON d.classid = m.classid AND d.objid = m.objid AND d.deptype IN ('n', 'a')
  CROSS JOIN LATERAL pg_identify_object(d.refclassid, d.refobjid, 0) i
 WHERE i.schema NOT IN ('risk_alert', 'pg_catalog');

-- claim: PUBLIC has USAGE on the schema and EXECUTE on capture(), and nothing else
SELECT 'schema' AS kind, nspname::text AS object, a.privilege_type
  FROM pg_namespace, aclexplode(nspacl) a WHERE nspname = 'risk_alert' AND a.grantee = 0
UNION ALL
SELECT 'relation', oid::regclass::text, a.privilege_type
  FROM pg_class, aclexplode(relacl) a WHERE relnamespace = 'risk_alert'::regnamespace AND a.grantee = 0
UNION ALL
SELECT 'function', oid::regprocedure::text, a.privilege_type
  FROM func, aclexplode(COALESCE(proacl, acldefault('f', proowner))) a WHERE a.grantee = 0;

-- claim: the role matrix
SELECT object, string_agg(right(grantee::regrole::text, -11), ' ' ORDER BY grantee::regrole::text) AS roles
  FROM (SELECT proname || '()' AS object, a.grantee FROM func, aclexplode(proacl) a WHERE a.grantee <> proowner AND a.grantee <> 0
         UNION
        SELECT relname || ' ' || a.privilege_type, a.grantee FROM pg_class, aclexplode(relacl) a
         WHERE relnamespace = 'risk_alert'::regnamespace AND a.grantee <> relowner) g
 GROUP BY object ORDER BY object COLLATE "C";

-- claim: volatility, strictness, parallel safety, identity
SELECT oid::regprocedure AS function, lanname AS language,
       CASE provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END AS volatility,
       CASE proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END AS parallel,
       proisstrict AS strict, prosecdef AS definer
  FROM func ORDER BY oid::regprocedure::text COLLATE "C";

-- claim: what pg_dump takes along
SELECT unnest(extconfig)::regclass FROM pg_extension WHERE extname = 'risk_alert';

-- claim: the script replaces nothing and puts up with nothing that is there already
SELECT line FROM (SELECT pg_read_file(setting || '/extension/risk_alert--0.1.sql') AS script FROM pg_config WHERE name = 'SHAREDIR') s,
       regexp_split_to_table(script, '\n') line
 WHERE line ~* 'OR REPLACE' OR line ~* 'IF NOT EXISTS [a-z]';

-- claim: no column of a table was dropped, added or moved that the library addresses by number
SELECT attrelid::regclass AS "table", string_agg(attname, ' ' ORDER BY attnum) AS columns
  FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
 WHERE c.relnamespace = 'risk_alert'::regnamespace AND c.relkind = 'r' AND attnum > 0
 GROUP BY attrelid ORDER BY attrelid::regclass::text COLLATE "C";
