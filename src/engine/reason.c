/*
 * reason.c
 *	  Reason templates: text with {names} in it.
 *
 * {name} stands for a column or a feature, {{ and }} for the braces themselves.
 * A name is taken as it is spelled, else folded as SQL does: {card_id} and
 * {Card_Id} are the same unless both exist.  {"odd} name"} is quoted as
 * identifiers are, and {event.amount} is the column even if there is a feature
 * called amount.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "parser/parse_node.h"
#include "parser/scansup.h"

#include "engine/reason.h"

typedef struct RaReasonContext
{
	const RaNames *names;
	const char *text;
	ParseState *pstate;			/* for error positions */
} RaReasonContext;

static const char *parse_reference(RaReasonContext *cxt, const char *p, RaReasonPiece *piece,
								   const char **name);
static bool resolve(const RaNames *names, const char *name, bool column_only, RaReasonPiece *piece);
static int	reason_position(RaReasonContext *cxt, const char *at);


List *
ra_reason_parse(const RaNames *names, const char *text, Oid owner)
{
	RaReasonContext cxt;
	RaTextContext text_cxt;
	List	   *pieces = NIL;
	StringInfoData literal;
	RaReasonPiece *piece;
	const char *p = text;

	cxt.names = names;
	cxt.text = text;
	cxt.pstate = make_parsestate(NULL);
	cxt.pstate->p_sourcetext = text;
	ra_text_context_push(&text_cxt, text);

	initStringInfo(&literal);
	while (*p != '\0')
	{
		const char *name = NULL;
		const char *end;

		if ((p[0] == '{' || p[0] == '}') && p[1] == p[0])
		{
			appendStringInfoChar(&literal, *p);
			p += 2;
			continue;
		}
		if (p[0] != '{')
		{
			appendStringInfoChar(&literal, *p++);
			continue;
		}

		piece = palloc0(sizeof(RaReasonPiece));
		end = parse_reference(&cxt, p, piece, &name);
		if (end == NULL)
		{
			char	   *hint = ra_similar_names(names, name, true);

			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("reason names \"%s\", which is neither a column of table \"%s\" nor a feature of its stream",
							name, RelationGetRelationName(names->rel)),
					 hint != NULL ? errhint("%s", hint) :
					 errhint("For a brace write {{ or }}."),
					 reason_position(&cxt, p)));
		}
		if (piece->attno > 0)
		{
			if (OidIsValid(owner))
				ra_check_column_rights(names->rel, piece->attno, owner);
		}
		else if (names->features[piece->feature].error != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("feature \"%s\" cannot be computed: %s",
							names->features[piece->feature].name,
							names->features[piece->feature].error),
					 reason_position(&cxt, p)));
		piece->literal = pstrdup(literal.data);
		pieces = lappend(pieces, piece);
		resetStringInfo(&literal);
		p = end;
	}
	if (literal.len > 0 || pieces == NIL)
	{
		piece = palloc0(sizeof(RaReasonPiece));
		piece->literal = literal.data;
		piece->feature = -1;
		pieces = lappend(pieces, piece);
	}
	ra_text_context_pop(&text_cxt);
	free_parsestate(cxt.pstate);
	return pieces;
}

/*
 * Read {...} at p.  Returns what is behind it; or NULL, with *name what is not
 * known.
 */
static const char *
parse_reference(RaReasonContext *cxt, const char *p, RaReasonPiece *piece, const char **name)
{
	const char *start = p + 1;
	const char *end;
	bool		column_only = false;
	StringInfoData buf;

	while (*start == ' ')
		start++;
	initStringInfo(&buf);

	end = start;
	if (pg_strncasecmp(end, RA_ROW_ALIAS ".\"", strlen(RA_ROW_ALIAS) + 2) == 0)
	{
		column_only = true;
		end += strlen(RA_ROW_ALIAS) + 1;
	}
	if (*end == '"')
	{
		for (end++; *end != '\0' && (end[0] != '"' || end[1] == '"'); end++)
		{
			if (*end == '"')
				end++;
			appendStringInfoChar(&buf, *end);
		}
		if (*end == '"')
			end++;
		while (*end == ' ')
			end++;
		if (*end != '}')
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("unterminated name in reason"),
					 errhint("A name ends with }. For a brace write {{ or }}."),
					 reason_position(cxt, p)));
		*name = buf.data;
		return resolve(cxt->names, buf.data, column_only, piece) ? end + 1 : NULL;
	}

	end = strchr(start, '}');
	if (end == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("unterminated name in reason"),
				 errhint("A name ends with }. For a brace write {{ or }}."),
				 reason_position(cxt, p)));
	appendBinaryStringInfo(&buf, start, end - start);
	while (buf.len > 0 && buf.data[buf.len - 1] == ' ')
		buf.data[--buf.len] = '\0';
	*name = buf.data;

	for (int folded = 0; folded < 2; folded++)
	{
		const char *spelled = folded ?
			downcase_identifier(buf.data, buf.len, false, false) : buf.data;

		if (resolve(cxt->names, spelled, false, piece) ||
			(strncmp(spelled, RA_ROW_ALIAS ".", strlen(RA_ROW_ALIAS) + 1) == 0 &&
			 resolve(cxt->names, spelled + strlen(RA_ROW_ALIAS) + 1, true, piece)))
			return end + 1;
	}
	return NULL;
}

static bool
resolve(const RaNames *names, const char *name, bool column_only, RaReasonPiece *piece)
{
	piece->attno = 0;
	piece->feature = column_only ? -1 : ra_feature_by_name(names, name);
	if (piece->feature < 0)
		piece->attno = ra_column_by_name(names->rel, name);
	return piece->feature >= 0 || piece->attno > 0;
}

char *
ra_reason_print(const RaNames *names, List *pieces)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, pieces)
	{
		RaReasonPiece *piece = lfirst(lc);
		RaReasonContext cxt = {names, NULL, NULL};
		const char *name;
		StringInfoData quoted;

		for (const char *p = piece->literal; *p != '\0'; p++)
		{
			appendStringInfoChar(&buf, *p);
			if (*p == '{' || (*p == '}' && p[1] == '}'))
				appendStringInfoChar(&buf, *p);
		}
		if (piece->attno == 0 && piece->feature < 0)
			continue;

		if (piece->attno > 0)
			name = NameStr(TupleDescAttr(RelationGetDescr(names->rel), piece->attno - 1)->attname);
		else
			name = names->features[piece->feature].name;
		initStringInfo(&quoted);
		appendStringInfoChar(&quoted, '"');
		for (const char *p = name; *p != '\0'; p++)
		{
			if (*p == '"')
				appendStringInfoChar(&quoted, '"');
			appendStringInfoChar(&quoted, *p);
		}
		appendStringInfoChar(&quoted, '"');

		/* the simplest form that is read as the same */
		for (int form = 0;; form++)
		{
			char	   *reference = psprintf("{%s%s}", form >= 2 ? RA_ROW_ALIAS "." : "",
											 form % 2 == 0 ? name : quoted.data);
			RaReasonPiece again;
			const char *end = NULL;
			const char *ignored;

			if (form % 2 == 1 || strpbrk(name, "{}\"") == NULL)
				end = parse_reference(&cxt, reference, &again, &ignored);
			if (form == 3 || (end != NULL && *end == '\0' && again.attno == piece->attno &&
							  again.feature == piece->feature))
			{
				appendStringInfoString(&buf, reference);
				break;
			}
		}
	}
	return buf.data;
}

static int
reason_position(RaReasonContext *cxt, const char *at)
{
	return parser_errposition(cxt->pstate, at - cxt->text);
}
