/*
 * gid.c
 *	  Names of global transactions and of their branches.
 */
#include "gid.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool name_allowed(const char *name);
static bool next_field(const char **p, const char *end, const char **field, size_t *len);
static bool next_name(const char **p, const char *end, char *name);
static bool next_number(const char **p, const char *end, uint64_t max, uint64_t *number);

bool
ra_gid_format(const RaGid *gid, char *buf)
{
	int			len;

	if (!name_allowed(gid->cluster) || !name_allowed(gid->coordinator) ||
		gid->register_letter < 'a' || gid->register_letter > 'z' || gid->branch > RA_GID_BRANCH_MAX)
		return false;
	len = snprintf(buf, RA_GID_SIZE, "ra:%s:%s:%c:%" PRIx32 ":%" PRIx32 ":%" PRIx64 ":%" PRIx64,
				   gid->cluster, gid->coordinator, gid->register_letter,
				   gid->database, gid->epoch, gid->number, gid->position);
	if (gid->branch > 0)
		snprintf(buf + len, RA_GID_SIZE - len, ":%" PRIx32, gid->branch);
	return true;
}

bool
ra_gid_parse(const char *text, size_t len, RaGid *gid)
{
	const char *p = text;
	const char *end = text + len;
	const char *field;
	size_t		field_len;
	uint64_t	number;

	memset(gid, 0, sizeof(*gid));
	if (len >= RA_GID_SIZE)
		return false;
	if (!next_field(&p, end, &field, &field_len) || field_len != 2 || memcmp(field, "ra", 2) != 0)
		return false;
	if (!next_name(&p, end, gid->cluster) || !next_name(&p, end, gid->coordinator))
		return false;
	if (!next_field(&p, end, &field, &field_len) || field_len != 1 || *field < 'a' || *field > 'z')
		return false;
	gid->register_letter = *field;
	if (!next_number(&p, end, UINT32_MAX, &number))
		return false;
	gid->database = (uint32_t) number;
	if (!next_number(&p, end, UINT32_MAX, &number))
		return false;
	gid->epoch = (uint32_t) number;
	if (!next_number(&p, end, UINT64_MAX, &gid->number) ||
		!next_number(&p, end, UINT64_MAX, &gid->position))
		return false;
	if (p == NULL)
		return true;
	if (!next_number(&p, end, RA_GID_BRANCH_MAX, &number) || number == 0)
		return false;
	gid->branch = (uint32_t) number;
	return p == NULL;
}

static bool
name_allowed(const char *name)
{
	size_t		len = strlen(name);

	return len > 0 && len <= RA_GID_NAME_MAX &&
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == len;
}

/* What is left up to the next colon; *p is NULL after the last one */
static bool
next_field(const char **p, const char *end, const char **field, size_t *len)
{
	const char *colon;

	if (*p == NULL)
		return false;
	colon = memchr(*p, ':', end - *p);
	*field = *p;
	*len = (colon ? colon : end) - *p;
	*p = colon ? colon + 1 : NULL;
	return true;
}

static bool
next_name(const char **p, const char *end, char *name)
{
	const char *field;
	size_t		len;

	if (!next_field(p, end, &field, &len) || len > RA_GID_NAME_MAX || memchr(field, '\0', len) != NULL)
		return false;
	memcpy(name, field, len);
	name[len] = '\0';
	return name_allowed(name);
}

static bool
next_number(const char **p, const char *end, uint64_t max, uint64_t *number)
{
	const char *field;
	size_t		len;
	size_t		i;

	if (!next_field(p, end, &field, &len) || len == 0 || len > 16 || (len > 1 && field[0] == '0'))
		return false;
	*number = 0;
	for (i = 0; i < len; i++)
	{
		char		c = field[i];

		if (c >= '0' && c <= '9')
			*number = *number * 16 + (uint64_t) (c - '0');
		else if (c >= 'a' && c <= 'f')
			*number = *number * 16 + (uint64_t) (c - 'a' + 10);
		else
			return false;
	}
	return *number <= max;
}
