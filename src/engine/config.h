/*
 * config.h
 *	  Rows of the configuration tables.
 */
#ifndef RA_CONFIG_H
#define RA_CONFIG_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"

typedef struct RaStreamRow
{
	int32		stream_id;
	char	   *name;
	Oid			relid;
	List	   *key;			/* names, as all these lists */
	char	   *event_time;
	int			review_at;
	int			deny_at;
	Interval	suppress;
	int64		version;
	int32		layout_id;		/* 0: NULL */
	Oid			owner;
	int64		epoch;			/* the publication that this version is; 0: none */
} RaStreamRow;

typedef struct RaFeatureRow
{
	int32		feature_id;
	char	   *name;
	List	   *entity;
	List	   *lookup;
	char	   *function;
	char	   *value;			/* NULL: count(*) */
	char	   *filter;			/* may be NULL */
	Interval	within;
	bool		include_current;
	Oid			result_type;
	Oid			owner;
} RaFeatureRow;

typedef struct RaRuleRow
{
	int32		rule_id;
	char	   *name;
	char	   *condition;
	int			points;
	char	   *severity;
	char	   *reason;
	char	   *status;
	Oid			owner;
	bool		suspended;
} RaRuleRow;

/*
 * What is committed now, for reads that belong together; to be unregistered.
 * NULL: the extension is not there.
 */
extern Snapshot ra_config_snapshot(void);

/*
 * All of these read what is committed now, or what the given snapshot shows, whatever the
 * transaction's snapshot and the current user's rights.  The stream's row, or NULL.
 */
extern RaStreamRow *ra_read_stream(int32 stream_id, Snapshot snapshot);

/* All streams */
extern List *ra_read_streams(void);

/* The stream's features by feature_id, and its rules by rule_id */
extern List *ra_read_features(int32 stream_id, Snapshot snapshot);
extern List *ra_read_rules(int32 stream_id, Snapshot snapshot);

#endif							/* RA_CONFIG_H */
