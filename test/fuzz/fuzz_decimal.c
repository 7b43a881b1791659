/*
 * fuzz_decimal.c
 *	  libFuzzer target for src/core/decimal.c.
 *
 * Any bytes are decoded as a numeric.  What decodes is encoded again, at the
 * same and at a finer scale, and must decode to the same; canonical input must
 * come back bit by bit.  An average must lie as close to sum / n as its scale
 * allows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/core/decimal.h"

#define CHECK(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Is it what numeric_in() would make, with no more than 38 decimals? */
static bool
is_canonical(const uint8_t *data, size_t size, int *dscale)
{
	uint16_t	words[40];
	size_t		n = size / 2;
	int			weight;
	size_t		first = 1;

	if (size % 2 != 0 || n == 0 || n > 40)
		return false;
	memcpy(words, data, size);
	if ((words[0] & 0xC000) == 0xC000)
		return false;
	if (words[0] & 0x8000)
	{
		*dscale = (words[0] >> 7) & 63;
		weight = (words[0] & 63) - (words[0] & 64);
	}
	else
	{
		if (n < 2)
			return false;
		*dscale = words[0] & 0x3FFF;
		weight = (int16_t) words[1];
		first = 2;
		if (*dscale <= 63 && weight >= -64 && weight <= 63)
			return false;
	}
	if (n == first)
		return *dscale <= 38 && weight == 0 && (words[0] & (first == 1 ? 0x2000 : 0x4000)) == 0;
	for (size_t i = first; i < n; i++)
		if (words[i] > 9999)
			return false;
	/* no digit hidden behind the display scale */
	return words[first] != 0 && words[n - 1] != 0 && *dscale <= 38;
}

static void
check_average(ra_int128 sum, int scale, uint64_t n)
{
	uint8_t		buf[RA_DECIMAL_MAX_BYTES];
	size_t		len;
	uint8_t		state;
	int64_t		average;
	ra_int128	difference;

	if (!ra_decimal_avg(sum, scale, n, buf, &len))
		return;
	CHECK(len >= 2 && len <= sizeof(buf));

	/* if it has no more decimals than this, it compares exactly */
	average = ra_decimal_to_int64(buf, len, scale, &state);
	if (state != RA_VALUE_FINITE)
		return;
	difference = sum - (ra_int128) average * (ra_int128) n;
	CHECK((difference < 0 ? -difference : difference) <= (ra_int128) n / 2);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int			scale;
	uint64_t	n;
	uint8_t	   *exact;
	uint8_t		buf[RA_DECIMAL_MAX_BYTES];
	uint8_t		state;
	size_t		len;
	int64_t		value;
	int			dscale;

	if (size < 3)
		return 0;
	scale = data[0] % 48 - 4;
	n = (uint64_t) data[1] * data[1] * data[1] + 1;
	data += 2;
	size -= 2;

	/* the sanitizer sees reads behind the end of a block of just that size */
	exact = malloc(size);
	memcpy(exact, data, size);
	value = ra_decimal_to_int64(exact, size, scale, &state);
	free(exact);
	CHECK(state <= RA_VALUE_NINF);
	if (state != RA_VALUE_FINITE)
	{
		CHECK(value == 0);
		return 0;
	}

	for (int surplus = 0; surplus < 3; surplus++)
	{
		ra_int128	shifted = (ra_int128) value * (surplus == 2 ? 100 : surplus == 1 ? 10 : 1);
		int64_t		again;

		len = ra_decimal_from_int128(shifted, scale + surplus, scale < 0 ? 0 : scale, buf);
		CHECK(len >= 2 && len <= sizeof(buf));
		again = ra_decimal_to_int64(buf, len, scale, &state);
		CHECK(state == RA_VALUE_FINITE && again == value);
	}
	if (is_canonical(data, size, &dscale))
	{
		len = ra_decimal_from_int128(value, scale, dscale, buf);
		CHECK(len == size && memcmp(buf, data, size) == 0);
	}
	if (scale >= 0)
		check_average(value, scale, n);
	return 0;
}
