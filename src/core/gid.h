/*
 * gid.h
 *	  Names of global transactions and of their branches.
 *
 *		ra:CLUSTER:COORDINATOR:REGISTER:DATABASE:EPOCH:NUMBER:POSITION[:BRANCH]
 *
 * CLUSTER and COORDINATOR are names of at most 63 letters, digits, "_", "."
 * and "-".  REGISTER is one letter that says where the outcome is decided.
 * The rest are lower-case hexadecimal numbers without leading zeros: the OID of the coordinator's
 * database, the number of the coordinator's run (of its server, from start to stop), the
 * transaction's number in that run, its position in the write-ahead log
 * when it began to commit, and, for a branch, its number from 1.
 *
 * Without the branch it is the transaction's name, by which the register knows
 * it; with it, the name that the branch is prepared under.  PostgreSQL allows
 * 199 bytes there: 2 + 1+63 + 1+63 + 1+1 + 1+8 + 1+8 + 1+16 + 1+16 + 1+4 = 189.
 */
#ifndef RA_GID_H
#define RA_GID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RA_GID_NAME_MAX 63		/* of cluster and coordinator */
#define RA_GID_BRANCH_MAX 0xffff
#define RA_GID_SIZE 190			/* with the terminating zero */

typedef struct RaGid
{
	char		cluster[RA_GID_NAME_MAX + 1];
	char		coordinator[RA_GID_NAME_MAX + 1];
	char		register_letter;
	uint32_t	database;
	uint32_t	epoch;
	uint64_t	number;
	uint64_t	position;
	uint32_t	branch;			/* 0: the transaction itself */
} RaGid;

/* Writes the name into buf, of RA_GID_SIZE bytes; false: a part of it is not allowed */
extern bool ra_gid_format(const RaGid *gid, char *buf);

/* Reads a name; false: it is none of ours.  What is read formats to the same text again. */
extern bool ra_gid_parse(const char *text, size_t len, RaGid *gid);

#endif							/* RA_GID_H */
