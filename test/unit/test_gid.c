/*
 * test_gid.c
 *	  Tests of src/core/gid.c: what is formatted is read again, and nothing else
 *	  is taken for ours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/core/gid.h"

static RaGid
sample(void)
{
	RaGid		gid;

	memset(&gid, 0, sizeof(gid));
	strcpy(gid.cluster, "risk_alert");
	strcpy(gid.coordinator, "node_a");
	gid.register_letter = 'l';
	gid.database = 5;
	gid.epoch = 0x95020448;
	gid.number = 1;
	gid.position = 0x1750b28;
	return gid;
}

static bool
parses(const char *text)
{
	RaGid		gid;

	return ra_gid_parse(text, strlen(text), &gid);
}

static void
round_trip(const RaGid *gid)
{
	char		text[RA_GID_SIZE];
	RaGid		again;

	assert_true(ra_gid_format(gid, text));
	assert_true(strlen(text) < RA_GID_SIZE);
	assert_true(ra_gid_parse(text, strlen(text), &again));
	assert_string_equal(again.cluster, gid->cluster);
	assert_string_equal(again.coordinator, gid->coordinator);
	assert_int_equal(again.register_letter, gid->register_letter);
	assert_int_equal(again.database, gid->database);
	assert_int_equal(again.epoch, gid->epoch);
	assert_true(again.number == gid->number);
	assert_true(again.position == gid->position);
	assert_int_equal(again.branch, gid->branch);
}

static void
known_texts(void **state)
{
	RaGid		gid = sample();
	char		text[RA_GID_SIZE];

	(void) state;
	assert_true(ra_gid_format(&gid, text));
	assert_string_equal(text, "ra:risk_alert:node_a:l:5:95020448:1:1750b28");
	gid.branch = 12;
	assert_true(ra_gid_format(&gid, text));
	assert_string_equal(text, "ra:risk_alert:node_a:l:5:95020448:1:1750b28:c");
}

static void
what_is_formatted_is_read(void **state)
{
	uint64_t	random = 88172645463325252u;
	int			i;

	(void) state;
	for (i = 0; i < 100000; i++)
	{
		RaGid		gid = sample();

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		gid.database = (uint32_t) (random >> (random % 32));
		gid.epoch = (uint32_t) (random >> 16 >> (random % 31));
		gid.number = random >> (random % 64);
		gid.position = ~random >> (random % 61);
		gid.branch = (uint32_t) (random % 3 == 0 ? 0 : random % (RA_GID_BRANCH_MAX + 1));
		gid.register_letter = (char) ('a' + random % 26);
		round_trip(&gid);
	}
}

static void
longest_fits(void **state)
{
	RaGid		gid = sample();
	char		text[RA_GID_SIZE];

	(void) state;
	memset(gid.cluster, 'C', RA_GID_NAME_MAX);
	memset(gid.coordinator, 'N', RA_GID_NAME_MAX);
	gid.database = gid.epoch = UINT32_MAX;
	gid.number = gid.position = UINT64_MAX;
	gid.branch = RA_GID_BRANCH_MAX;
	assert_true(ra_gid_format(&gid, text));
	assert_int_equal(strlen(text), RA_GID_SIZE - 1);
	assert_true(strlen(text) <= 199);
	round_trip(&gid);
}

static void
wrong_parts_are_not_formatted(void **state)
{
	RaGid		gid;
	char		text[RA_GID_SIZE];

	(void) state;
	gid = sample();
	strcpy(gid.cluster, "");
	assert_false(ra_gid_format(&gid, text));
	gid = sample();
	strcpy(gid.coordinator, "node:a");
	assert_false(ra_gid_format(&gid, text));
	strcpy(gid.coordinator, "node'a");
	assert_false(ra_gid_format(&gid, text));
	gid = sample();
	gid.register_letter = ':';
	assert_false(ra_gid_format(&gid, text));
	gid = sample();
	gid.branch = RA_GID_BRANCH_MAX + 1;
	assert_false(ra_gid_format(&gid, text));
}

static void
others_are_not_ours(void **state)
{
	static const char *const texts[] = {
		"", "ra", "ra:", "r", ":", "citus_0_123_4_0", "ra:x", "ra:c:n:l:5:1:1", "ra:c:n:l:5:1:1:1:1:1",
		"ra:c:n:l:5:1:1:", "ra:c:n:l:5:1:1:1:", "ra:c:n:l:5:1:1:1:0", "ra:c:n:l:5:1:1:1:10000",
		"ra::n:l:5:1:1:1", "ra:c::l:5:1:1:1", "ra:c:n::5:1:1:1", "ra:c:n:ll:5:1:1:1", "ra:c:n:L:5:1:1:1",
		"ra:c:n:l::1:1:1", "ra:c:n:l:05:1:1:1", "ra:c:n:l:5:1:1:A", "ra:c:n:l:-5:1:1:1", "ra:c:n:l:+5:1:1:1",
		"ra:c:n:l:5 :1:1:1", "ra:c:n:l:100000000:1:1:1", "ra:c:n:l:5:100000000:1:1",
		"ra:c:n:l:5:1:10000000000000000:1", "RA:c:n:l:5:1:1:1", " ra:c:n:l:5:1:1:1", "ra:c c:n:l:5:1:1:1",
		"ra:c\xc3\xa4:n:l:5:1:1:1", "xra:c:n:l:5:1:1:1", "ra:c:n:l:5:1:0x1:1"
	};
	char		text[RA_GID_SIZE + 10];
	RaGid		gid;
	size_t		i;

	(void) state;
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		if (parses(texts[i]))
			fail_msg("taken for ours: \"%s\"", texts[i]);
	}
	assert_true(parses("ra:c:n:l:5:1:1:1"));
	assert_true(parses("ra:c:n:l:0:0:0:0:1"));

	/* too long, and a zero byte within */
	memset(text, 'a', sizeof(text));
	assert_false(ra_gid_parse(text, sizeof(text), &gid));
	memcpy(text, "ra:c\0d:n:l:5:1:1:1", 18);
	assert_false(ra_gid_parse(text, 18, &gid));
}

/* Whatever is read formats to the very same text: two texts are never the same transaction */
static void
what_is_read_is_unique(void **state)
{
	static const char good[] = "ra:cl:no:z:1f:2e:3d:4c:5b";
	uint64_t	random = 88172645463325252u;
	int			taken = 0;
	int			i;

	(void) state;
	for (i = 0; i < 500000; i++)
	{
		static const char bytes[] = ":0123456789abcfgzAZ_-. r\0";
		char		text[sizeof(good)];
		char		again[RA_GID_SIZE];
		RaGid		gid;
		size_t		len = sizeof(good) - 1;
		int			changes;

		memcpy(text, good, sizeof(good));
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		for (changes = (int) (random % 3); changes >= 0; changes--)
			text[(random >> (changes * 16)) % len] = bytes[(random >> (changes * 8 + 5)) % sizeof(bytes)];
		if (random % 7 == 0)
			len -= random / 7 % len;
		if (!ra_gid_parse(text, len, &gid))
			continue;
		taken++;
		assert_true(ra_gid_format(&gid, again));
		assert_int_equal(strlen(again), len);
		assert_memory_equal(again, text, len);
	}
	assert_true(taken > 1000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_texts),
		cmocka_unit_test(what_is_formatted_is_read),
		cmocka_unit_test(longest_fits),
		cmocka_unit_test(wrong_parts_are_not_formatted),
		cmocka_unit_test(others_are_not_ours),
		cmocka_unit_test(what_is_read_is_unique),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
