/*
 * score.c
 *	  Rules over a row and its features: score, decision, reasons.
 *
 * A condition is an ExprState over two virtual slots: evaluating it costs well
 * below a microsecond.  What can go wrong is the rule author's: an error, or a
 * function that takes too long.
 *
 * Errors.  The fast path evaluates in the caller's transaction.  An error there is thrown with
 * ra_culprit_rule set; whoever catches it marks the rule "careful" and does the
 * work again.  A careful rule runs in a subtransaction of its own, where its errors are counted and
 * make it not fire.
 *
 * Which rules are evaluated at all is guard.c's business; for the others it is
 * known that they don't fire.
 *
 * Time.  statement_timeout does not reach a background worker, so it runs a
 * periodic timer at half of risk_alert.rule_timeout.  Each evaluation of a rule's
 * condition, or of a feature's value and filter for one row, has a number; when
 * the timer finds the same number three times, the evaluation has had at least
 * its budget, and is cancelled as a query would be, and again every third time.
 * Loading a rule or a feature, whose constant parts planning evaluates, has a
 * budget too, a generous one: it reads catalogs.
 *
 * No end.  A function can catch each cancellation, and go on.  After ten
 * budgets, and some seconds, the worker ends itself, which nothing can catch.
 * Before that it notes the culprit in the database's slot: the next worker leaves it
 * out, as broken, for as long as the stream's configuration is the same, and
 * suspends a rule durably.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#include "engine/guard.h"
#include "engine/score.h"
#include "guc.h"
#include "shmem.h"

/* One evaluation in so many is timed: reading the clock costs as much as a rule */
#define TIME_SAMPLE 64

/* Loading a rule may take at least so long, in ms */
#define LOADING_MS 2000

/* No evaluation is given up earlier, in ms */
#define GIVE_UP_MS 5000

/* Bytes of a value that a reason shows at most */
#define REASON_VALUE_MAX 200

/* Bytes of a text that the features' snapshot keeps at most: jsonb has room for 256 MB */
#define FEATURE_TEXT_MAX (1024 * 1024)

const char *const ra_decision_names[] = {"approve", "review", "deny"};
const char *const ra_severity_names[] = {"low", "medium", "high", "critical"};

RaRule	   *ra_culprit_rule = NULL;

static TimeoutId budget_timeout;
static bool budget_registered = false;
static volatile sig_atomic_t budget_active = false;
static volatile uint32 evaluation = 0;
static volatile uint32 evaluation_seen = 0;
static volatile int times_seen = 0;
static volatile int cancel_after = 3;	/* so many times each */
static volatile int give_up_after = 0;
static volatile sig_atomic_t out_of_time = false;

/* Whose evaluation or loading it is, as long as one is under way */
static RaRuleSet *volatile current_rs = NULL;
static volatile sig_atomic_t loading = false;
static volatile bool loading_feature;
static volatile int32 loading_id;
static const char *volatile loading_name;

/* The database's slot, and whom we have noted there */
static RaDatabase *slot = NULL;
static volatile sig_atomic_t gave_up = false;
static const char *volatile stuck_name;
static const char *volatile stuck_stream;
static volatile bool stuck_feature;

static void budget_start(int cancel_ms, int give_up_ms);
static void budget_handler(void);
static void give_up(void);
static bool rule_evaluate(RaRuleSet *rs, RaRule *rule);
static bool rule_evaluate_careful(RaRuleSet *rs, RaRule *rule);
static void append_clipped(StringInfo buf, const char *text, int max);
static void push_string(JsonbParseState **json, JsonbIteratorToken token, const char *text);
static void push_value(JsonbParseState **json, Datum value, Oid type, Oid output);

void
ra_score_init(void)
{
	if (!budget_registered)
	{
		budget_timeout = RegisterTimeout(USER_TIMEOUT, budget_handler);
		budget_registered = true;
		slot = ra_my_database();
	}
}

bool
ra_score_in_worker(void)
{
	return budget_registered;
}

void
ra_score_begin(void)
{
	budget_start(ra_rule_timeout, GIVE_UP_MS);
}

static void
budget_start(int cancel_ms, int give_up_ms)
{
	if (budget_registered && ra_rule_timeout > 0)
	{
		int			period = Max(ra_rule_timeout / 2, 1);

		times_seen = 0;
		cancel_after = cancel_ms / period + 1;
		give_up_after = Max(10 * (ra_rule_timeout / period), give_up_ms / period);
		budget_active = true;
		enable_timeout_every(budget_timeout,
							 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), period), period);
	}
}

void
ra_score_end(void)
{
	budget_active = false;
	loading = false;
	ra_culprit_rule = NULL;
	ra_culprit_measure = NULL;
	if (budget_registered)
		disable_timeout(budget_timeout, false);
}

bool
ra_score_out_of_time(void)
{
	bool		answer = out_of_time;

	out_of_time = false;
	return answer;
}

/* Signal handler */
static void
budget_handler(void)
{
	if (!budget_active || (ra_culprit_rule == NULL && ra_culprit_measure == NULL && !loading))
	{
		times_seen = 0;
		return;
	}
	if (evaluation != evaluation_seen)
	{
		evaluation_seen = evaluation;
		times_seen = 1;
		return;
	}
	times_seen++;
	if (times_seen >= give_up_after)
		give_up();
	else if (times_seen % cancel_after == 0)
	{
		out_of_time = true;
		QueryCancelPending = true;
		InterruptPending = true;
		SetLatch(MyLatch);
	}
}

/*
 * Still in the signal handler: note who it was, then end the process as
 * pg_terminate_backend() does.
 */
static void
give_up(void)
{
	if (!gave_up)
	{
		RaRule	   *rule = ra_culprit_rule;
		RaMeasure  *measure = ra_culprit_measure;
		RaStuck		note;

		note.stream_id = current_rs->stream_id;
		note.version = current_rs->version;
		note.is_feature = rule ? false : measure ? true : loading_feature;
		note.id = rule ? rule->rule_id : measure ? measure->feature_id : loading_id;
		stuck_name = rule ? rule->name : measure ? measure->feature : loading_name;
		stuck_stream = current_rs->name;
		stuck_feature = note.is_feature;
		if (slot != NULL)
			slot->stuck[slot->nstuck++ % RA_MAX_STUCK] = note;
		gave_up = true;
	}
	ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

const char *
ra_score_gave_up(void)
{
	static char message[3 * NAMEDATALEN + 64];

	if (!gave_up)
		return NULL;
	snprintf(message, sizeof(message), "%s \"%s\" of stream \"%s\" does not end, and cannot be cancelled",
			 stuck_feature ? "feature" : "rule", stuck_name, stuck_stream);
	return message;
}

void
ra_loading_begin(RaRuleSet *rs, bool is_feature, int32 id, const char *name)
{
	if (!budget_registered)
		return;
	for (int i = 0; slot != NULL && i < RA_MAX_STUCK; i++)
	{
		RaStuck    *stuck = &slot->stuck[i];

		if (stuck->stream_id != rs->stream_id || stuck->is_feature != is_feature || stuck->id != id)
			continue;
		if (stuck->version == rs->version)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("it does not end, and cannot be cancelled")));
		stuck->stream_id = 0;	/* altered since, perhaps */
	}
	evaluation++;
	out_of_time = false;
	current_rs = rs;
	loading_feature = is_feature;
	loading_id = id;
	loading_name = name;
	loading = true;
	budget_start(Max(10 * ra_rule_timeout, LOADING_MS), 3 * Max(10 * ra_rule_timeout, LOADING_MS));
}

bool
ra_loading_end(void)
{
	bool		exceeded;

	if (!loading)
		return false;
	ra_score_end();
	exceeded = out_of_time;
	out_of_time = false;

	/* cancelled, but too late */
	if (exceeded)
		QueryCancelPending = false;
	return exceeded;
}

void
ra_evaluation_begin(RaRuleSet *rs, RaRule *rule, RaMeasure *measure)
{
	evaluation++;
	out_of_time = false;
	current_rs = rs;
	ra_culprit_rule = rule;
	ra_culprit_measure = measure;
}

void
ra_evaluation_end(void)
{
	/*
	 * Cancelled, but nothing looked until the end: it must not hit others.  Or
	 * a function has caught the cancellation, and its answer does not count.
	 */
	if (unlikely(out_of_time))
	{
		CHECK_FOR_INTERRUPTS();
		if (ra_culprit_rule)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("rule \"%s\" took too long", ra_culprit_rule->name)));
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("feature \"%s\" took too long", ra_culprit_measure->feature)));
	}
	ra_culprit_rule = NULL;
	ra_culprit_measure = NULL;
}

/*
 * In a user's session the user's cancel and timeouts, and the server's own
 * troubles, end the statement, whatever was evaluated just then.  In the worker
 * there is no user: there a rule or feature that meets any of this fails for
 * its event, so that a cancel skips one evaluation, and one that always
 * exhausts memory, or always runs into a deadlock, stops nobody.
 */
bool
ra_evaluation_disturbed(int sqlerrcode)
{
	if (budget_registered)
		return false;
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* deadlock, serialization */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* cancelled */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* I/O */
			return true;
		default:
			return false;
	}
}

void
ra_rule_failed(RaRuleSet *rs, RaRule *rule, const char *message)
{
	/*
	 * In a session a failure just means that the rule did not fire: only the
	 * worker counts, and suspends rules for all.
	 */
	if (!budget_registered)
		return;
	rule->errors++;
	rule->errors_in_row++;
	if (rule->last_error == NULL || strcmp(rule->last_error, message) != 0)
	{
		if (rule->last_error)
			pfree(rule->last_error);
		rule->last_error = MemoryContextStrdup(rs->cxt, message);
	}
	if (!rule->suspended && ra_rule_error_limit > 0 &&
		rule->errors_in_row >= (uint64) ra_rule_error_limit)
	{
		rule->suspended = true;
		ereport(WARNING,
				(errmsg("rule \"%s\" of stream \"%s\" is suspended after " UINT64_FORMAT " errors in a row",
						rule->name, rs->name, rule->errors_in_row),
				 errdetail("Last error: %s", message),
				 errhint("Correct it with risk_alert.alter_rule(), which also ends the suspension.")));
	}
}

/* The first rule of the set with at least this index, or -1 */
static inline int
next_candidate(const uint64 *candidates, int nwords, int i)
{
	int			w = i / 64;
	uint64		bits;

	if (w >= nwords)
		return -1;
	bits = candidates[w] & (~UINT64CONST(0) << (i % 64));
	while (bits == 0)
	{
		if (++w >= nwords)
			return -1;
		bits = candidates[w];
	}
	return w * 64 + pg_rightmost_one_pos64(bits);
}

void
ra_score_rules(RaRuleSet *rs, RaScore *result)
{
	int			total = 0;
	Oid			as = InvalidOid;	/* whose rights are in force */
	RaIdentity	save;
	const uint64 *candidates;
	int			nwords;
	int			i;

	result->nfired = 0;
	result->lead = -1;
	result->severity = RA_SEVERITY_LOW;

	/* the look-up has a culprit, so the timer must find whose it is */
	evaluation++;
	current_rs = rs;
	candidates = ra_guard_candidates(rs, &nwords);
	for (i = next_candidate(candidates, nwords, 0); i >= 0; i = next_candidate(candidates, nwords, i + 1))
	{
		RaRule	   *rule = &rs->rules[i];
		bool		fired;

		if (rule->suspended)
			continue;

		/* rules mostly have one owner: change identity as seldom as possible */
		if (OidIsValid(as) && (rule->owner != as || rule->careful))
		{
			ra_unbecome(&save);
			as = InvalidOid;
		}
		if (!OidIsValid(as) && !rule->careful)
		{
			ra_become(rule->owner, &save);
			as = rule->owner;
		}

		rule->evaluated++;
		rule->let_through++;
		if (rule->samples++ % TIME_SAMPLE == 0)
		{
			instr_time	start,
						end;

			INSTR_TIME_SET_CURRENT(start);
			fired = rule->careful ? rule_evaluate_careful(rs, rule) : rule_evaluate(rs, rule);
			INSTR_TIME_SET_CURRENT(end);
			INSTR_TIME_SUBTRACT(end, start);
			rule->time_ns += INSTR_TIME_GET_DOUBLE(end) * 1e9 * TIME_SAMPLE;
		}
		else
			fired = rule->careful ? rule_evaluate_careful(rs, rule) : rule_evaluate(rs, rule);

		if (!fired)
			continue;
		rule->fired++;
		if (rule->status != RA_RULE_ACTIVE)
			continue;
		total += rule->points;
		result->severity = Max(result->severity, rule->severity);

		/* keep fired rules in order: most points first, then by name */
		{
			int			at = result->nfired++;

			while (at > 0)
			{
				RaRule	   *before = &rs->rules[result->fired[at - 1]];

				if (before->points > rule->points ||
					(before->points == rule->points && strcmp(before->name, rule->name) <= 0))
					break;
				result->fired[at] = result->fired[at - 1];
				at--;
			}
			result->fired[at] = i;
		}
	}

	if (OidIsValid(as))
		ra_unbecome(&save);
	rs->evaluating = false;

	result->score = Max(0, Min(100, total));
	result->decision = result->score >= rs->deny_at ? RA_DENY :
		result->score >= rs->review_at ? RA_REVIEW : RA_APPROVE;
	if (result->nfired > 0)
		result->lead = result->fired[0];
}

/* The caller has become the rule's owner */
static bool
rule_evaluate(RaRuleSet *rs, RaRule *rule)
{
	bool		isnull;
	Datum		d;

	ra_evaluation_begin(rs, rule, NULL);
	d = ExecEvalExprSwitchContext(rule->condition, rs->econtext, &isnull);
	ra_evaluation_end();
	return !isnull && DatumGetBool(d);
}

static bool
rule_evaluate_careful(RaRuleSet *rs, RaRule *rule)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	RaIdentity	save;
	volatile bool fired = false;

	GetUserIdAndSecContext(&save.userid, &save.sec_context);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		RaIdentity	mine;

		ra_become(rule->owner, &mine);
		fired = rule_evaluate(rs, rule);
		ra_unbecome(&mine);
		rule->errors_in_row = 0;
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		SetUserIdAndSecContext(save.userid, save.sec_context);
		if (ra_evaluation_disturbed(error->sqlerrcode))
			ReThrowError(error);
		ra_culprit_rule = NULL;
		if (ra_score_out_of_time())
			ra_rule_failed(rs, rule, psprintf("took longer than risk_alert.rule_timeout (%d ms)",
											  ra_rule_timeout));
		else
			ra_rule_failed(rs, rule, error->message);
		FreeErrorData(error);
		fired = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return fired;
}

Jsonb *
ra_score_reasons(RaRuleSet *rs, const RaScore *score)
{
	JsonbParseState *json = NULL;
	int			i;

	pushJsonbValue(&json, WJB_BEGIN_ARRAY, NULL);
	for (i = 0; i < score->nfired; i++)
	{
		RaRule	   *rule = &rs->rules[score->fired[i]];
		StringInfoData text;
		int			p;

		initStringInfo(&text);
		for (p = 0; p < rule->nreason; p++)
		{
			RaReasonPart *part = &rule->reason[p];
			TupleTableSlot *slot = part->column > 0 ? rs->row : rs->values;
			int			a = part->column > 0 ? part->column - 1 : -part->column - 1;

			appendStringInfoString(&text, part->literal);
			if (part->column == 0)
				continue;
			if (slot->tts_isnull[a])
				appendStringInfoString(&text, "null");
			else
				append_clipped(&text, OutputFunctionCall(&part->output, slot->tts_values[a]),
							   REASON_VALUE_MAX);
		}
		pushJsonbValue(&json, WJB_BEGIN_OBJECT, NULL);
		push_string(&json, WJB_KEY, "rule");
		push_string(&json, WJB_VALUE, rule->name);
		push_string(&json, WJB_KEY, "points");
		push_value(&json, Int32GetDatum(rule->points), INT4OID, InvalidOid);
		push_string(&json, WJB_KEY, "text");
		push_string(&json, WJB_VALUE, text.data);
		pushJsonbValue(&json, WJB_END_OBJECT, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&json, WJB_END_ARRAY, NULL));
}

/* Append a value; of one longer than max bytes its beginning */
static void
append_clipped(StringInfo buf, const char *text, int max)
{
	int			len = strlen(text);

	if (len <= max)
		appendBinaryStringInfo(buf, text, len);
	else
	{
		appendBinaryStringInfo(buf, text, pg_mbcliplen(text, len, max));
		appendStringInfoString(buf, "...");
	}
}

Jsonb *
ra_score_features(RaRuleSet *rs)
{
	JsonbParseState *json = NULL;
	int			f;

	pushJsonbValue(&json, WJB_BEGIN_OBJECT, NULL);
	for (f = 0; f < rs->nfeatures; f++)
	{
		RaFeature  *feature = &rs->features[f];

		push_string(&json, WJB_KEY, feature->name);
		if (rs->values->tts_isnull[f])
		{
			JsonbValue	null = {.type = jbvNull};

			pushJsonbValue(&json, WJB_VALUE, &null);
		}
		else
			push_value(&json, rs->values->tts_values[f], feature->result_type, feature->result_output);
	}
	return JsonbValueToJsonb(pushJsonbValue(&json, WJB_END_OBJECT, NULL));
}

char *
ra_entity_text(RaRuleSet *rs, int lookup_no, const RaRow *row)
{
	RaLookup   *lookup = &rs->lookups[lookup_no];
	RaEntity   *entity = &rs->entities[lookup->entity];
	StringInfoData buf;
	int			i;

	initStringInfo(&buf);
	for (i = 0; i < lookup->columns.n; i++)
	{
		bool		isnull;
		Datum		v = ra_row_value(rs, row, lookup->columns.attnos[i], &isnull);

		if (isnull)
			return NULL;
		appendStringInfo(&buf, "%s%s=%s", i > 0 ? ", " : "", entity->columns.names[i],
						 OutputFunctionCall(&lookup->columns.output[i], v));
	}
	return buf.data;
}

char *
ra_key_text(RaRuleSet *rs, const RaRow *row)
{
	StringInfoData buf;
	int			i;

	initStringInfo(&buf);
	for (i = 0; i < rs->key.n; i++)
	{
		bool		isnull;
		Datum		v = ra_row_value(rs, row, rs->key.attnos[i], &isnull);
		char	   *text = isnull ? NULL : OutputFunctionCall(&rs->key.output[i], v);
		const char *p;
		bool		quote;

		if (rs->key.n == 1)
			return text ? text : pstrdup("");
		appendStringInfoChar(&buf, i == 0 ? '(' : ',');
		if (text == NULL)
			continue;
		/* unambiguous, in the way of a row value's text */
		quote = *text == '\0' || strpbrk(text, "\"\\(), \t\n\r\v\f") != NULL;
		if (quote)
			appendStringInfoChar(&buf, '"');
		for (p = text; *p; p++)
		{
			if (*p == '"' || *p == '\\')
				appendStringInfoChar(&buf, *p);
			appendStringInfoChar(&buf, *p);
		}
		if (quote)
			appendStringInfoChar(&buf, '"');
	}
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

static void
push_string(JsonbParseState **json, JsonbIteratorToken token, const char *text)
{
	JsonbValue	v = {.type = jbvString};

	v.val.string.val = unconstify(char *, text);
	v.val.string.len = strlen(text);
	pushJsonbValue(json, token, &v);
}

/* As to_jsonb() writes it: numbers and booleans bare, all else a string */
static void
push_value(JsonbParseState **json, Datum value, Oid type, Oid output)
{
	JsonbValue	v = {.type = jbvNumeric};
	char		datetime[MAXDATELEN + 1];
	StringInfoData clipped;
	char	   *text;

	switch (type)
	{
		case BOOLOID:
			v.type = jbvBool;
			v.val.boolean = DatumGetBool(value);
			break;
		case INT2OID:
			v.val.numeric = int64_to_numeric(DatumGetInt16(value));
			break;
		case INT4OID:
			v.val.numeric = int64_to_numeric(DatumGetInt32(value));
			break;
		case INT8OID:
			v.val.numeric = int64_to_numeric(DatumGetInt64(value));
			break;
		case NUMERICOID:
			v.val.numeric = DatumGetNumeric(value);
			/* these are no JSON numbers */
			if (numeric_is_nan(v.val.numeric) || numeric_is_inf(v.val.numeric))
			{
				push_string(json, WJB_VALUE, OidOutputFunctionCall(output, value));
				return;
			}
			break;
		case FLOAT4OID:
		case FLOAT8OID:
			text = OidOutputFunctionCall(output, value);
			if (strpbrk(text, "NnIi") != NULL)
			{
				push_string(json, WJB_VALUE, text);
				return;
			}
			v.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(text),
																ObjectIdGetDatum(InvalidOid),
																Int32GetDatum(-1)));
			break;
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			JsonEncodeDateTime(datetime, value, type, NULL);
			push_string(json, WJB_VALUE, pstrdup(datetime));
			return;
		default:
			text = OidOutputFunctionCall(output, value);
			if (strlen(text) > FEATURE_TEXT_MAX)
			{
				initStringInfo(&clipped);
				append_clipped(&clipped, text, FEATURE_TEXT_MAX);
				pfree(text);
				text = clipped.data;
			}
			push_string(json, WJB_VALUE, text);
			return;
	}
	pushJsonbValue(json, WJB_VALUE, &v);
}
