/*
 * hash.c
 *	  Hashes that stand for values: of keys, entities, and distinct values.
 *
 * PostgreSQL's extended hash functions are made for hash tables, where a
 * collision only costs time; here two values with one hash are one value.
 * Two of them collide by construction, whatever the seed: hashint8extended()
 * folds its argument to 32 bits (as equal int4 and int8 must hash equal), and
 * hash_numeric_extended() ignores the sign.  So integers, and what is stored as
 * one, are mixed here, and so are numerics; other types keep their own function.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/typcache.h"

#include "compat.h"
#include "engine/hash.h"

/* numeric's header on disk, see core/decimal.h */
#define NUMERIC_SIGN_BITS(header)	((header) & 0xC000)
#define NUMERIC_IS_SHORT_HEADER(header) (((header) & 0x8000) != 0)
#define NUMERIC_IS_SPECIAL_HEADER(header) (NUMERIC_SIGN_BITS(header) == 0xC000)

static Datum hash_word(PG_FUNCTION_ARGS);
static Datum hash_numeric_value(PG_FUNCTION_ARGS);

void
ra_hash_lookup(Oid type, FmgrInfo *finfo, MemoryContext cxt)
{
	fmgr_info_cxt(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc,
				  finfo, cxt);
	if (type == NUMERICOID)
		finfo->fn_addr = hash_numeric_value;
	else if (type != FLOAT4OID && type != FLOAT8OID && get_typbyval(type) &&
			 (type < FirstNormalObjectId || get_typtype(type) == TYPTYPE_ENUM))
		finfo->fn_addr = hash_word; /* equal is bitwise equal for all of these */
}

/* The finalizer of splitmix64 (Steele, Lea and Flood, 2014): a bijection */
static inline uint64
mix(uint64 x)
{
	x += UINT64CONST(0x9E3779B97F4A7C15);
	x = (x ^ (x >> 30)) * UINT64CONST(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64CONST(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

static Datum
hash_word(PG_FUNCTION_ARGS)
{
	uint64		seed = (uint64) PG_GETARG_INT64(1);

	PG_RETURN_UINT64(mix(mix((uint64) PG_GETARG_DATUM(0) ^ seed) + seed));
}

/* Over sign, weight and digits, without zeros at either end */
static Datum
hash_numeric_value(PG_FUNCTION_ARGS)
{
	struct varlena *v = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(0));
	uint64		seed = (uint64) PG_GETARG_INT64(1);
	const char *data = VARDATA_ANY(v);
	Size		len = VARSIZE_ANY_EXHDR(v);
	uint16		header;
	int16		weight;
	bool		negative;
	int16		digit;

	memcpy(&header, data, sizeof(header));
	if (NUMERIC_IS_SPECIAL_HEADER(header))
		PG_RETURN_UINT64(mix(mix(header ^ seed) + seed));
	if (NUMERIC_IS_SHORT_HEADER(header))
	{
		negative = (header & 0x2000) != 0;
		/* seven bits, sign-extended */
		weight = (header & 0x0040) ? (int16) (header | ~0x003F) : (int16) (header & 0x003F);
		data += sizeof(uint16);
		len -= sizeof(uint16);
	}
	else
	{
		negative = NUMERIC_SIGN_BITS(header) == 0x4000;
		memcpy(&weight, data + sizeof(uint16), sizeof(weight));
		data += 2 * sizeof(uint16);
		len -= 2 * sizeof(uint16);
	}

	while (len >= sizeof(digit))
	{
		memcpy(&digit, data, sizeof(digit));
		if (digit != 0)
			break;
		data += sizeof(digit);
		len -= sizeof(digit);
		weight--;
	}
	while (len >= sizeof(digit))
	{
		memcpy(&digit, data + len - sizeof(digit), sizeof(digit));
		if (digit != 0)
			break;
		len -= sizeof(digit);
	}
	if (len < sizeof(digit))
		PG_RETURN_UINT64(mix(seed));	/* zero */

	/* short numbers, which most are, without the general function */
	seed ^= (uint64) (uint16) weight << 1 | negative;
	if (len <= sizeof(uint64))
	{
		uint64		digits = 0;

		memcpy(&digits, data, len);
		PG_RETURN_UINT64(mix(mix(digits ^ mix(seed)) + len));
	}
	PG_RETURN_UINT64(mix(hash_bytes_extended((const unsigned char *) data, (int) len, mix(seed))));
}
