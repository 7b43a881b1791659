/*
 * decimal.h
 *	  PostgreSQL's numeric on disk, to and from scaled integers.
 *
 * The format (base-10000 digits behind a two- or four-byte header, without the
 * varlena length word) is described in PostgreSQL's utils/adt/numeric.c; it is
 * the same in all supported versions and kept by pg_upgrade.
 */
#ifndef RA_CORE_DECIMAL_H
#define RA_CORE_DECIMAL_H

#include "window.h"

#define RA_DECIMAL_MAX_BYTES 64 /* enough for any 128-bit value */

/*
 * value := numeric * 10^scale.  data/len: the numeric without its varlena
 * header.  RA_VALUE_NONE in *state means "does not fit": too large, or has more
 * decimals than scale.  (NULL is the caller's affair.)
 */
extern int64_t ra_decimal_to_int64(const void *data, size_t len, int scale, uint8_t *state);

/*
 * Write value / 10^scale as a numeric with display scale dscale >= 0 (scale may
 * exceed dscale only if the surplus digits are zero); returns its length without the varlena
 * header.  The result is canonical: equal to what numeric_in() makes, without
 * leading or trailing zero digits.
 */
extern size_t ra_decimal_from_int128(ra_int128 value, int scale, int dscale, void *buf);

/*
 * sum / 10^scale / n rounded (half away from zero) as PostgreSQL's
 * avg(numeric) and numeric division round: enough digits for 16 significant ones, chosen like
 * select_div_scale().  False if the intermediate does not fit 128 bits; the caller
 * then divides with numeric's own function.  n > 0.
 */
extern bool ra_decimal_avg(ra_int128 sum, int scale, uint64_t n, void *buf, size_t *len);

#endif							/* RA_CORE_DECIMAL_H */
