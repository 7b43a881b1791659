/*
 * lockname.c
 *	  What advisory locks of the cluster are called.
 *
 * Nodes may have databases of different encodings, so a key is one and the
 * same lock for all of them in UTF-8.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "cluster/lock.h"
#include "compat.h"

static bool is_convertible(const char *text, int len);
static void name_digest(const RaLockName *name, RaLockKey *key);

void
ra_lock_name_text(RaLockName *name, RaLockKey *key, const text *t)
{
	int			len = VARSIZE_ANY_EXHDR(t);
	char	   *utf8 = pg_server_to_any(VARDATA_ANY(t), len, PG_UTF8);

	if (utf8 != VARDATA_ANY(t))
		len = strlen(utf8);
	if (len > RA_LOCK_KEY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key of an advisory lock is too long"),
				 errdetail("It has %d bytes, at most %d are allowed.", len, RA_LOCK_KEY_MAX),
				 errhint("Use a digest of it, such as md5(key).")));
	name->data[0] = 't';
	memcpy(name->data + 1, utf8, len);
	name->len = 1 + len;
	name_digest(name, key);
}

void
ra_lock_name_number(RaLockName *name, RaLockKey *key, int64 number)
{
	name->data[0] = 'i';
	name->len = 1 + pg_lltoa(number, name->data + 1);
	name_digest(name, key);
}

char *
ra_lock_name_display(const RaLockName *name)
{
	int			len = name->len - 1;
	char	   *text = pnstrdup(name->data + 1, len);
	StringInfoData shown;

	if (is_convertible(text, len))
		return pg_any_to_server(text, len, PG_UTF8);
	initStringInfo(&shown);
	for (int i = 0; i < len; i++)
	{
		if (IS_HIGHBIT_SET(text[i]) || text[i] == '\0')
			appendStringInfo(&shown, "\\x%02x", (unsigned char) text[i]);
		else
			appendStringInfoChar(&shown, text[i]);
	}
	return shown.data;
}

/* Is it UTF-8, of characters that this database's encoding has? */
static bool
is_convertible(const char *text, int len)
{
	int			encoding = GetDatabaseEncoding();
	unsigned char converted[RA_LOCK_KEY_MAX * MAX_CONVERSION_GROWTH + 1];
	Oid			proc;

	if (!pg_verify_mbstr(PG_UTF8, text, len, true))
		return false;
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII || len == 0)
		return true;
	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	return OidIsValid(proc) &&
		pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding, (unsigned char *) text, len,
									  converted, sizeof(converted), true) == len;
}

static void
name_digest(const RaLockName *name, RaLockKey *key)
{
	/*
	 * The digest is the lock's identity on this server: nobody must be able to
	 * make up two names that have the same one.
	 */
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);

	if (ctx == NULL || pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) name->data, name->len) < 0 ||
		pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a digest");
	pg_cryptohash_free(ctx);
	memset(key, 0, sizeof(*key));
	memcpy(&key->high, digest, sizeof(key->high));
	memcpy(&key->low, digest + sizeof(key->high), sizeof(key->low));
}
