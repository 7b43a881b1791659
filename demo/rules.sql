-- rules.sql: what a bank would type, once, to have its payments watched.

SELECT risk_alert.watch('payments', event_time => 'paid_at', key => 'payment_id',
                        review_at => 50, deny_at => 80, suppress => '1 day');

-- What the rules want to know about the card and the terminal of a payment.  A
-- chargeback that comes in later is an UPDATE: it corrects the windows.
SELECT risk_alert.create_feature('payments', 'card_payments_1h',
         entity => 'card_id', aggregate => 'count(*)', within => '1 hour');
SELECT risk_alert.create_feature('payments', 'card_payments_30d',
         entity => 'card_id', aggregate => 'count(*)', within => '30 days',
         filter => 'NOT chargeback', include_current => false);
SELECT risk_alert.create_feature('payments', 'card_average_30d',
         entity => 'card_id', aggregate => 'avg(amount)', within => '30 days',
         filter => 'NOT chargeback', include_current => false);
SELECT risk_alert.create_feature('payments', 'terminal_payments_7d',
         entity => 'terminal_id', aggregate => 'count(*)', within => '7 days');
SELECT risk_alert.create_feature('payments', 'terminal_reports_7d',
         entity => 'terminal_id', aggregate => 'count(*)', within => '7 days',
         filter => 'chargeback');

SELECT risk_alert.create_rule('payments', 'large_amount',
         condition => 'amount > 220',
         points => 50, severity => 'medium',
         reason => '{amount} is above the limit of 220');
SELECT risk_alert.create_rule('payments', 'unlike_the_card',
         condition => 'card_payments_30d >= 5 AND amount > 3 * card_average_30d',
         points => 60, severity => 'high',
         reason => '{amount} at once, {card_average_30d} on average before');
SELECT risk_alert.create_rule('payments', 'bad_terminal',
         condition => 'terminal_reports_7d >= 2 AND terminal_reports_7d > 0.3 * terminal_payments_7d',
         points => 90, severity => 'critical',
         reason => '{terminal_reports_7d} of {terminal_payments_7d} payments at terminal {terminal_id} were reported');

-- Not trusted yet, so it is in the shadow: counted, never acted on
SELECT risk_alert.create_rule('payments', 'rapid_use',
         condition => 'card_payments_1h >= 4',
         reason => '{card_payments_1h} payments within an hour', status => 'shadow');
