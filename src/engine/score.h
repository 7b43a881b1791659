/*
 * score.h
 *	  Rules over a row and its features: score, decision, reasons.
 */
#ifndef RA_SCORE_H
#define RA_SCORE_H

#include "postgres.h"

#include "engine/feature.h"
#include "utils/jsonb.h"

typedef enum RaDecision
{
	RA_APPROVE, RA_REVIEW, RA_DENY
} RaDecision;

typedef struct RaScore
{
	int			score;			/* 0..100 */
	RaDecision	decision;
	RaSeverity	severity;		/* worst of the fired rules */
	int			nfired;			/* active rules that fired */
	int		   *fired;			/* their indexes in rs->rules; room for all */
	int			lead;			/* the one with the most points, or -1 */
} RaScore;

extern const char *const ra_decision_names[];
extern const char *const ra_severity_names[];

/* The rule being evaluated, for whoever catches an error */
extern RaRule *ra_culprit_rule;

/* Register the rule budget's timer in this process (the worker) */
extern void ra_score_init(void);

/* Is this process the worker? */
extern bool ra_score_in_worker(void);

/* Run the budget's timer while a batch is scored */
extern void ra_score_begin(void);
extern void ra_score_end(void);

/* Was the error being handled caused by the budget?  Resets the answer. */
extern bool ra_score_out_of_time(void);

/*
 * Around each evaluation of a rule or a measure: whose it is, and when its time
 * begins.  The end throws if the time was exceeded; after an error there is none.
 */
extern void ra_evaluation_begin(RaRuleSet *rs, RaRule *rule, RaMeasure *measure);
extern void ra_evaluation_end(void);

/*
 * The same for the loading of a rule or feature, in which planning evaluates
 * what is constant.  ERROR if it is one that must be left out.  The end, which
 * an error does not spare, tells whether the error is that time was exceeded.
 */
extern void ra_loading_begin(RaRuleSet *rs, bool is_feature, int32 id, const char *name);
extern bool ra_loading_end(void);

/* Why this worker had to end itself, or NULL */
extern const char *ra_score_gave_up(void);

/* Is an error not the evaluated expression's, but to be thrown on?  See there. */
extern bool ra_evaluation_disturbed(int sqlerrcode);

/* Note an error of a rule; suspends it after ra_rule_error_limit in a row.  The worker only. */
extern void ra_rule_failed(RaRuleSet *rs, RaRule *rule, const char *message);

/*
 * Evaluate the rules; row and features must be stored.  In careful mode, errors of rules are
 * caught; otherwise they are thrown with ra_culprit_rule set, but for rules
 * that failed before.
 */
extern void ra_score_rules(RaRuleSet *rs, RaScore *result);

/* [{"rule": ..., "points": ..., "text": ...}, ...], most points first */
extern Jsonb *ra_score_reasons(RaRuleSet *rs, const RaScore *score);

/* {"feature": value, ...} */
extern Jsonb *ra_score_features(RaRuleSet *rs);

/* 'card_id=7' for a lookup of the row, or NULL if a column is NULL */
extern char *ra_entity_text(RaRuleSet *rs, int lookup, const RaRow *row);

/* The key as text: a single column's output, else as a row value */
extern char *ra_key_text(RaRuleSet *rs, const RaRow *row);

#endif							/* RA_SCORE_H */
