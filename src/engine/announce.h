/*
 * announce.h
 *	  Configuration that changes together with events, see announce.c.
 */
#ifndef RA_ANNOUNCE_H
#define RA_ANNOUNCE_H

#include "postgres.h"

#include "access/xact.h"
#include "utils/snapshot.h"

/* This transaction changes configuration that processes keep copies of */
extern void ra_announce_change(void);

/* Before a transaction commits, or is prepared: after all else that takes time */
extern void ra_announce_xact(XactEvent event);

/* It has committed, but will not be at its end soon.  Never throws. */
extern void ra_announce_sent(void);

/*
 * What the snapshot sees committed, this process has been told of: call it
 * before copies of configuration are used with the snapshot.
 */
extern void ra_await_announcements(Snapshot snapshot);

#endif							/* RA_ANNOUNCE_H */
