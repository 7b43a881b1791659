/*
 * zookeeper_names.c
 *	  Names of entries, and what a list of them means.
 *
 * Bytes other than letters, digits and a few signs are written %XX.  A key
 * that gets too long by that is named "%h" and its SHA-256 instead; no
 * escaped key begins so.  Its text is then the data of the entry.
 *
 * Longest path: "/" cluster (63) "/locks/xxx/" key (159) ";x;" node (189) ";"
 * session (16) ";" request (16) ";" sequence (11), 472 bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "zookeeper.h"

#define HASH_BYTES		32
#define HASH_PREFIX		"%h"

static const char hex[] = "0123456789abcdef";

static bool
is_plain(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c != '\0' && strchr("_-.:,=+@", c) != NULL);
}

/* Length, or -1 if it does not fit; ends with zero */
int
ra_zk_escape(char *dst, int size, const char *src, int len)
{
	/* ZooKeeper takes these two for steps in a path */
	bool		dots = (len == 1 && src[0] == '.') || (len == 2 && memcmp(src, "..", 2) == 0);
	int			n = 0;

	for (int i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) src[i];
		bool		plain = is_plain(c) && !dots;

		if (n + (plain ? 1 : 3) >= size)
			return -1;
		if (plain)
			dst[n++] = (char) c;
		else
		{
			dst[n++] = '%';
			dst[n++] = hex[c >> 4];
			dst[n++] = hex[c & 15];
		}
	}
	dst[n] = '\0';
	return n;
}

static int
hex_digit(char c)
{
	const char *at = c == '\0' ? NULL : strchr(hex, c);

	return at == NULL ? -1 : (int) (at - hex);
}

/* Length, or -1 if src was not escaped so; ends with zero */
int
ra_zk_unescape(char *dst, int size, const char *src, int len)
{
	int			n = 0;

	for (int i = 0; i < len; i++)
	{
		char		c = src[i];

		if (n + 1 >= size)
			return -1;
		if (c == '%')
		{
			int			high = i + 2 < len ? hex_digit(src[i + 1]) : -1;
			int			low = i + 2 < len ? hex_digit(src[i + 2]) : -1;

			if (high < 0 || low < 0)
				return -1;
			c = (char) (high << 4 | low);
			i += 2;
		}
		dst[n++] = c;
	}
	dst[n] = '\0';
	return n;
}

static uint32_t
rotate(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static void
sha256_block(uint32_t state[8], const unsigned char *block)
{
	static const uint32_t k[64] = {
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
	};
	uint32_t	w[64];
	uint32_t	s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t) block[4 * i] << 24 | (uint32_t) block[4 * i + 1] << 16 |
			(uint32_t) block[4 * i + 2] << 8 | block[4 * i + 3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
			(rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
			(rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);

	memcpy(s, state, sizeof(s));
	for (int i = 0; i < 64; i++)
	{
		uint32_t	t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
			((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
		uint32_t	t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
			((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, 7 * sizeof(s[0]));
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
}

static void
sha256(const char *data, int len, unsigned char digest[HASH_BYTES])
{
	uint32_t	state[8] = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
	};
	unsigned char last[128] = {0};
	int			rest = len % 64;
	int			end = rest < 56 ? 64 : 128;

	for (int at = 0; at + 64 <= len; at += 64)
		sha256_block(state, (const unsigned char *) data + at);
	memcpy(last, data + len - rest, rest);
	last[rest] = 0x80;
	for (int i = 0; i < 8; i++)
		last[end - 1 - i] = (unsigned char) ((uint64_t) len * 8 >> 8 * i);
	for (int at = 0; at < end; at += 64)
		sha256_block(state, last + at);
	for (int i = 0; i < HASH_BYTES; i++)
		digest[i] = (unsigned char) (state[i / 4] >> (24 - 8 * (i % 4)));
}

/* Key as it stands in an entry's name; true if it is a hash.  dst: ZK_KEYNAME_MAX */
bool
ra_zk_keyname(char *dst, const char *key, int keylen)
{
	unsigned char digest[HASH_BYTES];

	/* an empty name would be no step in a path */
	if (keylen > 0 && ra_zk_escape(dst, ZK_KEYNAME_MAX, key, keylen) >= 0)
		return false;

	sha256(key, keylen, digest);
	memcpy(dst, HASH_PREFIX, 2);
	for (int i = 0; i < HASH_BYTES; i++)
	{
		dst[2 + 2 * i] = hex[digest[i] >> 4];
		dst[3 + 2 * i] = hex[digest[i] & 15];
	}
	dst[2 + 2 * HASH_BYTES] = '\0';
	return true;
}

/* Can it come from ra_zk_keyname()?  Then it is a step in a path */
bool
ra_zk_keyname_valid(const char *keyname)
{
	size_t		len = strlen(keyname);

	return len > 0 && len < ZK_KEYNAME_MAX && strspn(keyname, ".") < len &&
		strspn(keyname, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.:,=+@%") == len;
}

bool
ra_zk_keyname_is_hash(const char *keyname, int len)
{
	return len == 2 + 2 * HASH_BYTES && memcmp(keyname, HASH_PREFIX, 2) == 0;
}

/* FNV-1a, its halves folded */
unsigned
ra_zk_bucket(const char *keyname)
{
	uint64_t	hash = UINT64_C(14695981039346656037);

	for (; *keyname != '\0'; keyname++)
		hash = (hash ^ (unsigned char) *keyname) * UINT64_C(1099511628211);
	return (unsigned) ((hash ^ hash >> 32) % ZK_BUCKETS);
}

/*
 * Take a name apart, from its end, where the fields are of known form.  False
 * if it is not one of ours; such nodes are left alone.
 */
bool
ra_zk_parse_entry(const char *name, ZkEntry *entry)
{
	const char *field[6];
	const char *at = name + strlen(name);
	char	   *end;

	for (int i = 5; i >= 1; i--)
	{
		do
		{
			if (at == name)
				return false;
			at--;
		} while (*at != ';');
		field[i] = at + 1;
	}
	field[0] = name;
	if (memchr(name, ';', (size_t) (at - name)) != NULL)
		return false;

	entry->keyname = name;
	entry->keyname_len = (int) (at - name);
	if (field[2] - field[1] != 2 || (field[1][0] != 'x' && field[1][0] != 's'))
		return false;
	entry->mode = field[1][0] == 'x' ? RA_PROVIDER_EXCLUSIVE : RA_PROVIDER_SHARED;
	entry->node = field[2];
	entry->node_len = (int) (field[3] - field[2] - 1);
	entry->session = (int64_t) strtoull(field[3], &end, 16);
	if (end == field[3] || *end != ';')
		return false;
	entry->number = strtoull(field[4], &end, 16);
	if (end == field[4] || *end != ';')
		return false;
	entry->sequence = (int32_t) strtol(field[5], &end, 10);
	return end != field[5] && *end == '\0';
}

static bool
precedes(int32_t a, int32_t b)
{
	return (int32_t) ((uint32_t) a - (uint32_t) b) < 0;
}

/*
 * Where the request stands: the oldest entry that bears its session and
 * number is its own.  An exclusive request waits for all entries before it,
 * a shared one for the exclusive ones among them.
 */
void
ra_zk_place(char **names, int n, const char *keyname, RaProviderMode mode,
			int64_t session, uint64_t number, ZkPlace *place)
{
	size_t		len = strlen(keyname);
	int32_t		self = 0;
	int32_t		blocker = 0;
	ZkEntry		entry;

	memset(place, 0, sizeof(*place));
	for (int i = 0; i < n; i++)
	{
		if (strncmp(names[i], keyname, len) != 0 || names[i][len] != ';' ||
			!ra_zk_parse_entry(names[i], &entry))
			continue;
		if (entry.session != session || entry.number != number)
		{
			place->nothers++;
			continue;
		}
		if (place->self == NULL || precedes(entry.sequence, self))
		{
			place->twin = place->self;
			place->self = names[i];
			self = entry.sequence;
		}
		else
			place->twin = names[i];
	}
	if (place->self == NULL || place->nothers == 0)
		return;

	for (int i = 0; i < n; i++)
	{
		if (strncmp(names[i], keyname, len) != 0 || names[i][len] != ';' ||
			!ra_zk_parse_entry(names[i], &entry) ||
			!precedes(entry.sequence, self) ||
			(mode == RA_PROVIDER_SHARED && entry.mode == RA_PROVIDER_SHARED))
			continue;
		place->nblockers++;
		if (place->blocker == NULL || precedes(blocker, entry.sequence))
		{
			place->blocker = names[i];
			blocker = entry.sequence;
		}
	}
}
