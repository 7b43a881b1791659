/*
 * statement.c
 *	  What a statement for another node begins with.
 *
 * The node parses it; here it is enough to tell some kinds from the others.
 */
#include "postgres.h"

#include <ctype.h>

#include "cluster/statement.h"

/* Blanks, comments (which nest), and empty statements */
static const char *
skip_blanks(const char *p)
{
	for (;;)
	{
		if (isspace((unsigned char) *p) || *p == ';')
			p++;
		else if (p[0] == '-' && p[1] == '-')
			p += strcspn(p, "\r\n");
		else if (p[0] == '/' && p[1] == '*')
		{
			int			depth = 0;

			do
			{
				if (p[0] == '/' && p[1] == '*')
				{
					depth++;
					p += 2;
				}
				else if (p[0] == '*' && p[1] == '/')
				{
					depth--;
					p += 2;
				}
				else
					p++;
			} while (depth > 0 && *p);
		}
		else
			return p;
	}
}

bool
ra_control_statement(const char *sql, bool *writes, bool *notifies, bool *deallocates)
{
	static const char *const words[] = {
		"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"
	};
	char		word[16];
	const char *p = skip_blanks(sql);
	int			n = 0;
	int			i;

	while (isalpha((unsigned char) *p) && n < (int) sizeof(word) - 1)
		word[n++] = pg_ascii_tolower(*p++);
	word[n] = '\0';
	if (isalnum((unsigned char) *p) || *p == '_' || *p == '$')
		return false;
	for (i = 0; i < lengthof(words); i++)
	{
		if (strcmp(word, words[i]) == 0)
			return true;
	}
	if (strcmp(word, "prepare") == 0)
	{
		p = skip_blanks(p);
		return pg_strncasecmp(p, "transaction", 11) == 0 && !isalnum((unsigned char) p[11]) && p[11] != '_';
	}
	*writes = strcmp(word, "insert") == 0 || strcmp(word, "update") == 0 || strcmp(word, "delete") == 0 ||
		strcmp(word, "merge") == 0;
	*deallocates = strcmp(word, "deallocate") == 0;
	*notifies = strcmp(word, "notify") == 0 || strcmp(word, "listen") == 0 || strcmp(word, "unlisten") == 0;
	return false;
}

/* (quotes and dollars in comments and names count, too: it only means that the answer is no) */
bool
ra_fixed_types(const char *sql)
{
	const char *p;

	if (strchr(sql, '\'') != NULL)
		return false;
	for (p = strchr(sql, '$'); p != NULL; p = strchr(p, '$'))
	{
		bool		in_name = p > sql && (isalnum((unsigned char) p[-1]) || p[-1] == '_' || (unsigned char) p[-1] > 127);

		p++;
		if (in_name || !isdigit((unsigned char) *p))
			return false;
		while (isdigit((unsigned char) *p))
			p++;
		while (isspace((unsigned char) *p))
			p++;
		if (p[0] != ':' || p[1] != ':')
			return false;
	}
	return true;
}
