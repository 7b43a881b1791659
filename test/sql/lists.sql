--
-- Lists
--
\set SHOW_CONTEXT never
SELECT risk_alert.create_list('l_block');
SELECT risk_alert.create_list('l_block');
SELECT risk_alert.create_list('');
SELECT risk_alert.create_list(NULL);

-- claim: adding a value that is there renews its expiry and note
SELECT risk_alert.list_add('l_block', 'a');
SELECT risk_alert.list_add('l_block', 'b', expires => now() + interval '1 day', note => 'first');
SELECT risk_alert.list_add('l_block', 'b', note => 'second');
SELECT risk_alert.list_add('l_block', 'c', expires => now() - interval '1 second');
SELECT risk_alert.list_add('l_block', '');
SELECT value, expires IS NOT NULL AS expires, note, added_by = current_user AS by_me
  FROM risk_alert.list_entries WHERE list = 'l_block' ORDER BY value;
SELECT entries, expired FROM risk_alert.lists WHERE list = 'l_block';

-- claim: look-ups see each change at once, and no expired value
SELECT risk_alert.in_list('l_block', 'a') AS a, risk_alert.in_list('l_block', 'b') AS b,
       risk_alert.in_list('l_block', 'c') AS c, risk_alert.in_list('l_block', 'd') AS d,
       risk_alert.in_list('l_block', '') AS empty, risk_alert.in_list('l_block', NULL) AS "null";
SELECT risk_alert.list_remove('l_block', 'a');
SELECT risk_alert.list_remove('l_block', 'a');
SELECT risk_alert.in_list('l_block', 'a');
BEGIN;
SELECT risk_alert.list_add('l_block', 'x');
SELECT risk_alert.in_list('l_block', 'x');
ROLLBACK;
SELECT risk_alert.in_list('l_block', 'x');

-- claim: values of other types are looked up as text
SELECT risk_alert.list_add('l_block', '4711');
SELECT risk_alert.in_list('l_block', 4711), risk_alert.in_list('l_block', 4711::bigint),
       risk_alert.in_list('l_block', 4711.0), risk_alert.in_list('l_block', 4711::numeric),
       risk_alert.in_list('l_block', '4711'::varchar);

-- claim: values of any length are told apart, short ones and long ones alike, by every byte
SELECT risk_alert.create_list('l_lengths');
SELECT count(risk_alert.list_add('l_lengths', repeat('x', n))) FROM generate_series(2, 60, 2) n;
SELECT count(risk_alert.list_add('l_lengths', repeat('x', n - 1) || 'y')) FROM generate_series(2, 60, 2) n;
SELECT string_agg(n::text, ' ' ORDER BY n) AS wrong FROM generate_series(1, 60) n
WHERE risk_alert.in_list('l_lengths', repeat('x', n)) <> (n % 2 = 0) OR risk_alert.in_list('l_lengths', repeat('x', n - 1) || 'y') <> (n % 2 = 0)
	OR risk_alert.in_list('l_lengths', repeat('x', n - 1) || 'z') OR risk_alert.in_list('l_lengths', 'y' || repeat('x', n - 1));
SELECT risk_alert.drop_list('l_lengths');

-- claim: mistakes are told
SELECT risk_alert.list_add('l_none', 'a');
SELECT risk_alert.list_remove('l_none', 'a');
SELECT risk_alert.in_list('l_none', 'a');
SELECT risk_alert.list_add('l_block', NULL);
SELECT risk_alert.list_add('l_block', repeat('x', 1001));
SELECT risk_alert.drop_list('l_none');

-- claim: a list that a rule uses stays; one that it looks up in vain is warned of
CREATE TABLE l_pay (id int PRIMARY KEY, merchant text, at timestamptz);
SELECT risk_alert.watch('l_pay', event_time => 'at');
SELECT risk_alert.create_rule('l_pay', 'blocked', 'risk_alert.in_list(''l_block'', merchant)');
SELECT risk_alert.create_rule('l_pay', 'typo', 'risk_alert.in_list(''l_blok'', merchant)');
SELECT level, name, object, description, detail, remediation FROM risk_alert.check_setup() WHERE object = 'l_pay.typo';
SELECT risk_alert.drop_list('l_block');
SELECT risk_alert.unwatch('l_pay');
SELECT risk_alert.drop_list('l_block');
SELECT count(*) FROM risk_alert.list_entries WHERE list = 'l_block';

-- claim: so does one with odd characters in its name
SELECT risk_alert.create_list(n) FROM (VALUES ('l\odd'), ('l''odd'), ('l%s\''''')) v (n);
SELECT risk_alert.watch('l_pay', event_time => 'at');
SELECT risk_alert.create_rule('l_pay', 'odd 1', $$risk_alert.in_list('l\odd', merchant)$$);
SELECT risk_alert.create_rule('l_pay', 'odd 2', $$risk_alert.in_list('l''odd', id)$$);
SELECT risk_alert.create_rule('l_pay', 'odd 3', $$risk_alert.in_list(E'l%s\\''''', merchant)$$);
SELECT rule, condition FROM risk_alert.rules WHERE stream = 'l_pay' ORDER BY rule;
SELECT risk_alert.drop_list('l\odd');
SELECT risk_alert.drop_list('l''odd');
SELECT risk_alert.drop_list('l%s\''''');
SELECT risk_alert.unwatch('l_pay');
SELECT risk_alert.drop_list(n) FROM (VALUES ('l\odd'), ('l''odd'), ('l%s\''''')) v (n);
DROP TABLE l_pay;
