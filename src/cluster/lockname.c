/*
 * lockname.c
 *	  What advisory locks of the cluster are called.
 *
 * Nodes may have databases of different encodings, so a key is one and the
 * same lock for all of them in UTF-8.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "cluster/lock.h"

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
	char	   *text = pnstrdup(name->data + 1, name->len - 1);

	return pg_any_to_server(text, name->len - 1, PG_UTF8);
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
