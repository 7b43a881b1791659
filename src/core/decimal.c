/*
 * decimal.c
 *	  PostgreSQL's numeric on disk, to and from scaled integers.
 *
 * A numeric, without its length word, is a header of two bytes (short form) or
 * four (long form), then the significant digits to base 10000, each an int16
 * in the machine's byte order.  The header tells the sign, the display scale,
 * and the weight, which is the first digit's exponent.  NaN and the infinities
 * are a header only.  None of it need be aligned.
 */
#include <string.h>

#include "decimal.h"

#define BASE			10000
#define BASE_DIGITS		4		/* decimal digits in one to base 10000 */

#define SPECIAL_MASK	0xC000	/* NaN and infinities have both bits set, */
#define SPECIAL_KIND	0xF000	/* and are told apart by these */
#define KIND_NAN		0xC000
#define KIND_PINF		0xD000
#define KIND_NINF		0xF000

#define SHORT_FORM		0x8000
#define SHORT_NEGATIVE	0x2000
#define SHORT_SCALE_SHIFT 7
#define SHORT_SCALE_MAX	63
#define SHORT_WEIGHT_SIGN 0x0040
#define SHORT_WEIGHT	0x003F
#define SHORT_WEIGHT_MIN (-64)
#define SHORT_WEIGHT_MAX 63

#define LONG_NEGATIVE	0x4000
#define LONG_SCALE		0x3FFF

/* Of select_div_scale() */
#define MIN_SIG_DIGITS	16
#define MAX_RESULT_SCALE 1000

/* Digits a 128-bit value can have to base 10000, wherever its point is */
#define MAX_DIGITS		12

#define MAX_POWER		19		/* of 10 in 64 bits */

static const uint64_t power10[MAX_POWER + 1] = {
	UINT64_C(1), UINT64_C(10), UINT64_C(100), UINT64_C(1000), UINT64_C(10000),
	UINT64_C(100000), UINT64_C(1000000), UINT64_C(10000000), UINT64_C(100000000),
	UINT64_C(1000000000), UINT64_C(10000000000), UINT64_C(100000000000),
	UINT64_C(1000000000000), UINT64_C(10000000000000), UINT64_C(100000000000000),
	UINT64_C(1000000000000000), UINT64_C(10000000000000000), UINT64_C(100000000000000000),
	UINT64_C(1000000000000000000), UINT64_C(10000000000000000000)
};

/* A magnitude to base 10000, the least digit first, without a leading zero */
typedef struct Digits
{
	int			n;
	int			lowest;			/* exponent of the least digit */
	uint16_t	digit[MAX_DIGITS];
} Digits;

static void split_digits(ra_uint128 value, int scale, Digits *digits);

static inline ra_uint128
magnitude128(ra_int128 value)
{
	return value < 0 ? 0 - (ra_uint128) value : (ra_uint128) value;
}

static inline unsigned
load_digit(const unsigned char *digits, size_t i)
{
	uint16_t	digit;

	memcpy(&digit, digits + 2 * i, sizeof(digit));
	return digit;
}

int64_t
ra_decimal_to_int64(const void *data, size_t len, int scale, uint8_t *state)
{
	const unsigned char *digits = data;
	uint16_t	header;
	bool		negative;
	int			exponent;		/* of ten, of the next digit's unit, in the result */
	uint64_t	value = 0;
	size_t		i = 0;
	size_t		n;

	*state = RA_VALUE_NONE;
	if (len < sizeof(header))
		return 0;
	memcpy(&header, digits, sizeof(header));
	digits += sizeof(header);
	len -= sizeof(header);

	if ((header & SPECIAL_MASK) == SPECIAL_MASK)
	{
		if ((header & SPECIAL_KIND) == KIND_NAN)
			*state = RA_VALUE_NAN;
		else if ((header & SPECIAL_KIND) == KIND_PINF)
			*state = RA_VALUE_PINF;
		else if ((header & SPECIAL_KIND) == KIND_NINF)
			*state = RA_VALUE_NINF;
		return 0;
	}
	else if (header & SHORT_FORM)
	{
		negative = (header & SHORT_NEGATIVE) != 0;
		exponent = (header & SHORT_WEIGHT) - (header & SHORT_WEIGHT_SIGN);
	}
	else
	{
		int16_t		weight;

		if (len < sizeof(weight))
			return 0;
		memcpy(&weight, digits, sizeof(weight));
		digits += sizeof(weight);
		len -= sizeof(weight);
		negative = (header & LONG_NEGATIVE) != 0;
		exponent = weight;
	}
	exponent = exponent * BASE_DIGITS + scale;
	n = len / sizeof(uint16_t);

	/* Digits whose unit is an integer in the result */
	for (; i < n && exponent >= 0; i++, exponent -= BASE_DIGITS)
		if (__builtin_mul_overflow(value, (uint64_t) BASE, &value) ||
			__builtin_add_overflow(value, (uint64_t) load_digit(digits, i), &value))
			return 0;
	if (value != 0)
	{
		int			power = exponent + BASE_DIGITS;

		if (power > MAX_POWER || __builtin_mul_overflow(value, power10[power], &value))
			return 0;
	}

	/* One digit may be an integer in part; those behind it must be zero */
	if (i < n && exponent > -BASE_DIGITS)
	{
		unsigned	digit = load_digit(digits, i++);
		unsigned	unit = (unsigned) power10[-exponent];

		if (digit % unit != 0 || __builtin_add_overflow(value, (uint64_t) (digit / unit), &value))
			return 0;
	}
	for (; i < n; i++)
		if (load_digit(digits, i) != 0)
			return 0;

	if (value > (uint64_t) INT64_MAX + (negative ? 1 : 0))
		return 0;
	*state = RA_VALUE_FINITE;
	if (!negative)
		return (int64_t) value;
	return value == 0 ? 0 : -(int64_t) (value - 1) - 1;
}

size_t
ra_decimal_from_int128(ra_int128 value, int scale, int dscale, void *buf)
{
	unsigned char *out = buf;
	bool		negative = value < 0;
	int			least = 0;
	int			weight;
	uint16_t	header;
	Digits		digits;

	split_digits(magnitude128(value), scale, &digits);
	while (least < digits.n && digits.digit[least] == 0)
		least++;
	weight = digits.n > 0 ? digits.lowest + digits.n - 1 : 0;

	if (dscale <= SHORT_SCALE_MAX && weight >= SHORT_WEIGHT_MIN && weight <= SHORT_WEIGHT_MAX)
	{
		header = (uint16_t) (SHORT_FORM | dscale << SHORT_SCALE_SHIFT |
							 (negative ? SHORT_NEGATIVE : 0) |
							 (weight < 0 ? SHORT_WEIGHT_SIGN : 0) |
							 ((unsigned) weight & SHORT_WEIGHT));
		memcpy(out, &header, sizeof(header));
		out += sizeof(header);
	}
	else
	{
		int16_t		long_weight = (int16_t) weight;

		header = (uint16_t) ((dscale & LONG_SCALE) | (negative ? LONG_NEGATIVE : 0));
		memcpy(out, &header, sizeof(header));
		memcpy(out + sizeof(header), &long_weight, sizeof(long_weight));
		out += sizeof(header) + sizeof(long_weight);
	}
	for (int i = digits.n - 1; i >= least; i--)
	{
		memcpy(out, &digits.digit[i], sizeof(uint16_t));
		out += sizeof(uint16_t);
	}
	return (size_t) (out - (unsigned char *) buf);
}

bool
ra_decimal_avg(ra_int128 sum, int scale, uint64_t n, void *buf, size_t *len)
{
	Digits		dividend;
	Digits		divisor;
	int			weight;			/* an estimate of the quotient's */
	int			result_scale;
	int			shift;
	ra_uint128	quotient;
	ra_uint128	rest;

	/* What select_div_scale() does; it takes the weight of zero as zero */
	split_digits(magnitude128(sum), scale, &dividend);
	split_digits(n, 0, &divisor);
	weight = -(divisor.n - 1);
	if (dividend.n > 0)
		weight += dividend.lowest + dividend.n - 1;
	if (dividend.n == 0 || dividend.digit[dividend.n - 1] <= divisor.digit[divisor.n - 1])
		weight--;
	result_scale = MIN_SIG_DIGITS - weight * BASE_DIGITS;
	if (result_scale < scale)
		result_scale = scale;
	if (result_scale < 0)
		result_scale = 0;
	if (result_scale > MAX_RESULT_SCALE)
		result_scale = MAX_RESULT_SCALE;

	/*
	 * Divide twice, the integer and the rest, since the one needs few decimals
	 * and the other is small.
	 */
	quotient = magnitude128(sum) / n;
	rest = magnitude128(sum) % n;
	shift = result_scale - scale;
	if (shift > 2 * MAX_POWER && sum != 0)
		return false;
	for (; shift > 0 && sum != 0; shift -= MAX_POWER)
	{
		uint64_t	factor = power10[shift < MAX_POWER ? shift : MAX_POWER];

		if (__builtin_mul_overflow(quotient, (ra_uint128) factor, &quotient) ||
			__builtin_mul_overflow(rest, (ra_uint128) factor, &rest))
			return false;
	}
	if (__builtin_add_overflow(quotient, rest / n, &quotient))
		return false;
	rest %= n;
	if (rest >= n - rest)
		quotient++;
	if (quotient >> 127)
		return false;
	*len = ra_decimal_from_int128(sum < 0 ? -(ra_int128) quotient : (ra_int128) quotient,
								  result_scale, result_scale, buf);
	return true;
}

/* value / 10^scale to base 10000 */
static void
split_digits(ra_uint128 value, int scale, Digits *digits)
{
	int			cut = scale % BASE_DIGITS;	/* decimals in the least digit */
	int			n = 0;
	uint64_t	rest;

	if (cut < 0)
		cut += BASE_DIGITS;
	digits->lowest = scale > 0 ? -((scale + BASE_DIGITS - 1) / BASE_DIGITS) : -scale / BASE_DIGITS;
	if (cut > 0)
	{
		uint64_t	unit = power10[cut];
		ra_uint128	above = value >> 64 ? value / unit : (uint64_t) value / unit;

		digits->digit[n++] = (uint16_t) ((uint64_t) (value - above * unit) *
										 power10[BASE_DIGITS - cut]);
		value = above;
	}
	/* 128-bit divisions are slow, so take four digits with each */
	while (value >> 64)
	{
		ra_uint128	above = value / power10[4 * BASE_DIGITS];

		rest = (uint64_t) (value - above * power10[4 * BASE_DIGITS]);
		for (int i = 0; i < 4; i++, rest /= BASE)
			digits->digit[n++] = (uint16_t) (rest % BASE);
		value = above;
	}
	for (rest = (uint64_t) value; rest > 0; rest /= BASE)
		digits->digit[n++] = (uint16_t) (rest % BASE);
	while (n > 0 && digits->digit[n - 1] == 0)
		n--;
	digits->n = n;
}
