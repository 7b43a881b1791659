/*
 * test_decimal.c
 *	  Tests of src/core/decimal.c, against what PostgreSQL stores and against
 *	  an encoder and decoder that work on text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/core/decimal.h"

#include "decimal_vectors.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define MAX_TEXT 1200

static uint64_t random_state;

static uint64_t
random_bits(void)
{
	uint64_t	z = random_state += UINT64_C(0x9E3779B97F4A7C15);

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static int
random_below(int n)
{
	return (int) (random_bits() % (uint64_t) n);
}

/*
 * Arithmetic on text
 */

/* Split -12.340 into digits (12340), how many are decimals (3), and the sign */
static void
parse_text(const char *text, char *digits, int *decimals, bool *negative)
{
	const char *point = strchr(text, '.');

	*negative = *text == '-';
	text += *negative;
	*decimals = point ? (int) strlen(point + 1) : 0;
	if (point)
		sprintf(digits, "%.*s%s", (int) (point - text), text, point + 1);
	else
		strcpy(digits, text);
}

/* What PostgreSQL would store; returns bytes */
static size_t
encode_text(const char *text, void *out)
{
	char		digits[MAX_TEXT];
	char		padded[MAX_TEXT + 16];
	int			decimals;
	int			dscale;
	bool		negative;
	int			lead;
	int			first;
	int			last;
	int			weight;
	uint16_t	words[MAX_TEXT / 4 + 4];
	int			n = 0;

	if (strcmp(text, "NaN") == 0 || strstr(text, "Infinity"))
	{
		words[0] = *text == 'N' ? 0xC000 : *text == 'I' ? 0xD000 : 0xF000;
		memcpy(out, words, 2);
		return 2;
	}

	parse_text(text, digits, &dscale, &negative);
	decimals = dscale;

	/* Zeros in front and behind so that groups of four meet at the point */
	lead = (4 - ((int) strlen(digits) - decimals) % 4) % 4;
	memset(padded, '0', (size_t) lead);
	strcpy(padded + lead, digits);
	while (decimals % 4 != 0)
	{
		strcat(padded, "0");
		decimals++;
	}
	weight = ((int) strlen(padded) - decimals) / 4 - 1;
	for (first = 0; padded[first] && strncmp(padded + first, "0000", 4) == 0; first += 4)
		weight--;
	last = (int) strlen(padded);
	while (last > first && strncmp(padded + last - 4, "0000", 4) == 0)
		last -= 4;
	if (first == last)
	{
		weight = 0;
		negative = false;
	}

	if (dscale <= 63 && weight >= -64 && weight < 64)
		words[n++] = (uint16_t) (0x8000 + (negative ? 0x2000 : 0) + dscale * 128 +
								 (weight < 0 ? weight + 128 : weight));
	else
	{
		words[n++] = (uint16_t) ((negative ? 0x4000 : 0) + dscale);
		words[n++] = (uint16_t) weight;
	}
	for (; first < last; first += 4)
		words[n++] = (uint16_t) ((padded[first] - '0') * 1000 + (padded[first + 1] - '0') * 100 +
								 (padded[first + 2] - '0') * 10 + (padded[first + 3] - '0'));
	memcpy(out, words, 2 * (size_t) n);
	return 2 * (size_t) n;
}

/* What ra_decimal_to_int64() should say to a text */
static int64_t
scale_text(const char *text, int scale, uint8_t *state)
{
	char		digits[MAX_TEXT * 2];
	char	   *significant = digits;
	int			decimals;
	bool		negative;

	*state = RA_VALUE_NONE;
	if (strcmp(text, "NaN") == 0 || strstr(text, "Infinity"))
	{
		*state = *text == 'N' ? RA_VALUE_NAN : *text == 'I' ? RA_VALUE_PINF : RA_VALUE_NINF;
		return 0;
	}
	parse_text(text, digits, &decimals, &negative);
	for (; decimals < scale; decimals++)
		strcat(digits, "0");
	for (; decimals > scale; decimals--)
	{
		size_t		len = strlen(digits);

		if (len > 0 && digits[len - 1] != '0')
			return 0;
		if (len > 0)
			digits[len - 1] = '\0';
	}
	while (*significant == '0')
		significant++;
	if (strlen(significant) > 19 ||
		(strlen(significant) == 19 &&
		 strcmp(significant, negative ? "9223372036854775808" : "9223372036854775807") > 0))
		return 0;
	*state = RA_VALUE_FINITE;
	return (int64_t) (negative ? 0 - strtoull(significant, NULL, 10) : strtoull(significant, NULL, 10));
}

/* digits as an integer; false if it doesn't fit */
static bool
text_to_int128(const char *digits, bool negative, ra_int128 *value)
{
	ra_uint128	magnitude = 0;
	ra_uint128	limit = ((ra_uint128) 1 << 127) - (negative ? 0 : 1);

	for (; *digits; digits++)
	{
		unsigned	digit = (unsigned) (*digits - '0');

		if (magnitude > (limit - digit) / 10)
			return false;
		magnitude = magnitude * 10 + digit;
	}
	*value = negative ? (ra_int128) (0 - magnitude) : (ra_int128) magnitude;
	return true;
}

/* The words of a vector, at an odd address */
static size_t
vector_bytes(const char *words, unsigned char *out)
{
	size_t		len = 0;
	char	   *end;

	while (*words)
	{
		uint16_t	word = (uint16_t) strtoul(words, &end, 16);

		memcpy(out + len, &word, 2);
		len += 2;
		words = *end ? end + 1 : end;
	}
	return len;
}

static void
check_decode(const char *text, const void *data, size_t len, int scale)
{
	uint8_t		state;
	uint8_t		expected_state;
	int64_t		value = ra_decimal_to_int64(data, len, scale, &state);
	int64_t		expected = scale_text(text, scale, &expected_state);

	if (state != expected_state || value != expected)
		fail_msg("%s at scale %d: %lld (state %d) instead of %lld (state %d)", text, scale,
				 (long long) value, state, (long long) expected, expected_state);
}

static void
check_encode(const char *text, const void *data, size_t len)
{
	char		digits[MAX_TEXT + 8];
	int			decimals;
	int			dscale;
	bool		negative;
	ra_int128	value;
	unsigned char buf[RA_DECIMAL_MAX_BYTES];

	parse_text(text, digits, &decimals, &negative);
	dscale = decimals;

	/* as few decimals as possible, then more and more zeros behind them */
	for (size_t n = strlen(digits); n > 1 && digits[n - 1] == '0' && decimals > 0; n--, decimals--)
		digits[n - 1] = '\0';
	for (; text_to_int128(digits, negative, &value); decimals++, strcat(digits, "0"))
	{
		if (ra_decimal_from_int128(value, decimals, dscale, buf) != len ||
			memcmp(buf, data, len) != 0)
			fail_msg("%s from scale %d", text, decimals);
		if (decimals > dscale + 6)
			break;
	}
}

/*
 * Tests
 */

static void
stored_numerics_are_decoded_and_encoded(void **state)
{
	unsigned char stored[MAX_TEXT];
	unsigned char own[MAX_TEXT];

	(void) state;
	for (size_t i = 0; i < LENGTH(stored_vectors); i++)
	{
		const char *text = stored_vectors[i].text;
		size_t		len = vector_bytes(stored_vectors[i].words, stored + 1);

		/* the oracle first */
		assert_int_equal(encode_text(text, own), len);
		assert_memory_equal(own, stored + 1, len);

		for (int scale = -20; scale <= 70; scale++)
			check_decode(text, stored + 1, len, scale);
		check_decode(text, stored + 1, len, 1000);
		if (text[0] != 'N' && !strstr(text, "Infinity"))
			check_encode(text, stored + 1, len);
	}
}

static void
averages_are_what_numeric_division_gives(void **state)
{
	int			computed = 0;

	(void) state;
	for (size_t i = 0; i < LENGTH(average_vectors); i++)
	{
		const char *text = average_vectors[i].sum;
		unsigned char stored[MAX_TEXT];
		size_t		stored_len = vector_bytes(average_vectors[i].words, stored);
		unsigned char buf[RA_DECIMAL_MAX_BYTES];
		size_t		len;
		ra_int128	sum;

		assert_true(text_to_int128(text + (*text == '-'), *text == '-', &sum));
		if (!ra_decimal_avg(sum, average_vectors[i].scale, average_vectors[i].n, buf, &len))
			continue;
		computed++;
		if (len != stored_len || memcmp(buf, stored, len) != 0)
			fail_msg("%s with scale %d / %llu", text, average_vectors[i].scale,
					 (unsigned long long) average_vectors[i].n);
	}
	print_message("%d of %d averages fit 128 bits\n", computed, (int) LENGTH(average_vectors));
	assert_true(computed > (int) LENGTH(average_vectors) * 9 / 10);
}

static void
averages_refuse_what_does_not_fit(void **state)
{
	ra_int128	least = -(ra_int128) (((ra_uint128) 1 << 127) - 1) - 1;
	unsigned char buf[RA_DECIMAL_MAX_BYTES];
	size_t		len;

	(void) state;
	assert_false(ra_decimal_avg(least, 2, 1, buf, &len));
	/* 20 decimals wanted of a rest of 20 digits */
	assert_false(ra_decimal_avg((ra_int128) UINT64_C(17000000000000000000), 0,
								UINT64_C(18000000000000000000), buf, &len));
}

static void
random_values_survive_a_round_trip(void **state)
{
	(void) state;
	random_state = 1;
	for (int round = 0; round < 100000; round++)
	{
		char		text[MAX_TEXT] = "";
		unsigned char stored[MAX_TEXT];
		size_t		len;
		int			integers = 1 + random_below(20);
		int			decimals = random_below(3) ? random_below(5) : random_below(20);
		bool		sparse = random_below(2);
		int			n = 0;

		if (random_below(2))
			text[n++] = '-';
		for (int i = 0; i < integers + decimals; i++)
		{
			if (i == integers)
				text[n++] = '.';
			text[n++] = (char) ('0' + (sparse && random_below(4) ? 0 : random_below(10)));
		}
		len = encode_text(text, stored + 1);
		check_encode(text, stored + 1, len);
		check_decode(text, stored + 1, len, decimals);
		check_decode(text, stored + 1, len, random_below(25) - 4);
	}
}

static void
limits_of_int64_are_exact(void **state)
{
	static const char *const limits[] = {
		"9223372036854775807", "9223372036854775808", "9223372036854775809",
		"-9223372036854775808", "-9223372036854775809", "18446744073709551615",
		"18446744073709551616", "-18446744073709551616"
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(limits); i++)
	{
		size_t		sign = limits[i][0] == '-';
		size_t		all = strlen(limits[i]);

		/* with the point at each place */
		for (size_t point = sign + 1; point < all; point++)
		{
			char		text[64];
			unsigned char stored[64];
			size_t		len;

			sprintf(text, "%.*s.%s", (int) point, limits[i], limits[i] + point);
			len = encode_text(text, stored + 1);
			for (int scale = (int) (all - point) - 2; scale <= (int) (all - point) + 2; scale++)
				check_decode(text, stored + 1, len, scale);
		}
	}
}

/* Every prefix, in memory of just that size: the sanitizer watches */
static void
nothing_is_read_behind_the_end(void **state)
{
	unsigned char stored[MAX_TEXT];

	(void) state;
	for (size_t i = 0; i < LENGTH(stored_vectors); i++)
	{
		size_t		len = vector_bytes(stored_vectors[i].words, stored);

		for (size_t part = 0; part <= len; part++)
		{
			unsigned char *exact = malloc(part ? part : 1);
			uint8_t		value_state;

			memcpy(exact, stored, part);
			ra_decimal_to_int64(exact, part, 2, &value_state);
			if (part < 2)
				assert_int_equal(value_state, RA_VALUE_NONE);
			free(exact);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stored_numerics_are_decoded_and_encoded),
		cmocka_unit_test(averages_are_what_numeric_division_gives),
		cmocka_unit_test(averages_refuse_what_does_not_fit),
		cmocka_unit_test(random_values_survive_a_round_trip),
		cmocka_unit_test(limits_of_int64_are_exact),
		cmocka_unit_test(nothing_is_read_behind_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
