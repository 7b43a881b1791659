/*
 * alert.h
 *	  Alerts, statistics and the queue position: what a batch writes.
 */
#ifndef RA_ALERT_H
#define RA_ALERT_H

#include "postgres.h"

#include "engine/score.h"

typedef enum RaAlertResult
{
	RA_ALERT_RAISED,			/* a new alert, announced by NOTIFY */
	RA_ALERT_FOLDED,			/* counted in an open alert */
	RA_ALERT_KNOWN				/* the event has its alert already */
} RaAlertResult;

/* Around what a transaction raises; after an error there is no end */
extern void ra_alert_begin(void);
extern void ra_alert_end(void);

/*
 * Raise an alert for the stored row, or fold it into an open one of the same
 * entity and lead rule within the stream's suppression window.
 */
extern RaAlertResult ra_alert_write(RaRuleSet *rs, const RaRow *row, const RaScore *score);

#endif							/* RA_ALERT_H */
