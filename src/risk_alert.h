/*
 * risk_alert.h
 *	  The library's version, and the extension as installed in a database.
 */
#ifndef RA_RISK_ALERT_H
#define RA_RISK_ALERT_H

#include "postgres.h"

#define RA_EXTENSION "risk_alert"

/* The extension version that this library goes with */
#define RA_VERSION "0.1"

/*
 * The extension's OID in this database, or InvalidOid; *version, if wanted: the
 * installed version, palloc'd.  Reads the catalog: not for every row.
 */
extern Oid	ra_extension_oid(char **version);

/*
 * ERROR with a hint when the installed version is not the library's.  Cheap
 * after the first time.
 */
extern void ra_check_version(void);

/*
 * A table of the extension that each version change or removal of the
 * extension invalidates, so that what is known about the extension can be
 * cached until a relcache callback for it; InvalidOid: don't cache.
 */
extern Oid	ra_extension_marker(void);

/* utility.c: hooks into DDL */
extern void ra_utility_init(void);

#endif							/* RA_RISK_ALERT_H */
