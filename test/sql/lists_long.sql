--
-- What a look-up in a list costs: a hash probe, whatever its length; of lists that are too
-- long to be kept in memory (100,000 values, or 16 MB), one of their index
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT risk_alert.create_list(n) FROM unnest('{ll_short,ll_most,ll_long,ll_wide}'::text[]) n;
-- values 1 to n; every tenth has expired
CREATE FUNCTION ll_fill(list_name text, n int, width int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO risk_alert.list_entry (list_id, value, expires, added_by)
	SELECT l.list_id, rpad(g::text, greatest(width, length(g::text)), '.'), CASE WHEN g % 10 = 0 THEN now() - interval '1 hour' END, 'nobody'
	FROM risk_alert.list l, generate_series(1, n) g WHERE l.name = list_name
$$;
SELECT count(ll_fill(l, n, width)) FROM (VALUES ('ll_short', 100, 0), ('ll_most', 100000, 0), ('ll_long', 100001, 0), ('ll_wide', 17000, 1000)) v (l, n, width);
ANALYZE risk_alert.list_entry;

-- how often the values' table is read while n values are looked up, by which ways, and how many of its rows
CREATE FUNCTION ll_reads(OUT seq_scans bigint, OUT index_scans bigint, OUT row_reads bigint) LANGUAGE sql VOLATILE AS $$
	SELECT pg_stat_get_xact_numscans('risk_alert.list_entry'::regclass), pg_stat_get_xact_numscans('risk_alert.list_entry_pkey'::regclass),
		pg_stat_get_xact_tuples_returned('risk_alert.list_entry'::regclass) + pg_stat_get_xact_tuples_returned('risk_alert.list_entry_pkey'::regclass)
$$;
CREATE FUNCTION ll_cost(list text, n int, width int DEFAULT 0, OUT hits bigint, OUT seq_scans bigint, OUT index_scans bigint, OUT row_reads bigint)
LANGUAGE plpgsql AS $$
DECLARE
	before record := ll_reads();
	after record;
BEGIN
	SELECT count(*) FILTER (WHERE risk_alert.in_list(list, rpad(g::text, greatest(width, length(g::text)), '.'))) INTO hits FROM generate_series(1, n) g;
	after := ll_reads();
	seq_scans := after.seq_scans - before.seq_scans;
	index_scans := after.index_scans - before.index_scans;
	row_reads := after.row_reads - before.row_reads;
END $$;

-- claim: a list is read once; then no look-up reads anything, however many there are
SELECT * FROM ll_cost('ll_short', 1000);
SELECT * FROM ll_cost('ll_short', 100000);
SELECT * FROM ll_cost('ll_most', 1000);
SELECT * FROM ll_cost('ll_most', 200000);
-- claim: nor is any look-up a walk along the values: that would be a hundred billion steps, and take minutes
SET statement_timeout = '30s';
SELECT count(*) FILTER (WHERE risk_alert.in_list('ll_most', g)) FROM generate_series(1, 1000000) g;
RESET statement_timeout;

-- claim: of one that is too long each reads the row that it looks for
SELECT hits, seq_scans FROM ll_cost('ll_long', 1);
SELECT * FROM ll_cost('ll_long', 1000);
SELECT * FROM ll_cost('ll_long', 100);
SELECT hits, seq_scans FROM ll_cost('ll_wide', 1, 1000);
SELECT * FROM ll_cost('ll_wide', 100, 1000);
SELECT list, risk_alert.in_list(list, 'x') AS x, risk_alert.in_list(list, 7) AS "7", risk_alert.in_list(list, 100001) AS "100001", risk_alert.in_list(list, '') AS empty, risk_alert.in_list(list, NULL) AS "null"
FROM unnest('{ll_most,ll_long,ll_wide}'::text[]) list;

-- claim: changes are seen at once, also of one that becomes too long, and of one that is so no longer
SELECT risk_alert.list_add('ll_most', 'x'), risk_alert.list_add('ll_long', 'x');
SELECT * FROM ll_cost('ll_most', 100);
SELECT risk_alert.in_list('ll_most', 'x'), risk_alert.in_list('ll_long', 'x');
SELECT risk_alert.list_remove('ll_long', v) FROM unnest('{x,1}'::text[]) v;
SELECT hits FROM ll_cost('ll_long', 100);
SELECT * FROM ll_cost('ll_long', 100);
SELECT risk_alert.in_list('ll_long', 'x');

-- claim: so it is for rules
CREATE TABLE ll_pay (id int PRIMARY KEY, value text, at timestamptz);
SELECT risk_alert.watch('ll_pay', event_time => 'at', suppress => '0');
SELECT risk_alert.create_rule('ll_pay', 'most', 'in_list(''ll_most'', value)', points => 50);
SELECT risk_alert.create_rule('ll_pay', 'wide', 'in_list(''ll_wide'', rpad(value, 1000, ''.''))', points => 50);
SELECT risk_alert.create_rule('ll_pay', 'short', 'in_list(''ll_short'', value)', points => 1);
INSERT INTO ll_pay SELECT row_number() OVER (), v, '2026-01-01Z' FROM unnest('{1,10,x,y,101,99999,100000,17000,16999}'::text[]) v;
SELECT risk_alert.drain();
SELECT p.value, a.rules FROM ll_pay p LEFT JOIN risk_alert.alerts a ON a.stream = 'll_pay' AND a.event_key = p.id::text ORDER BY p.id;

SELECT risk_alert.unwatch('ll_pay');
DELETE FROM risk_alert.alert WHERE stream = 'll_pay';
SELECT risk_alert.drop_list(n) FROM unnest('{ll_short,ll_most,ll_long,ll_wide}'::text[]) n;
DROP TABLE ll_pay;
DROP FUNCTION ll_cost, ll_reads, ll_fill;
