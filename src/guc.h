/*
 * guc.h
 *	  The settings, all defined in risk_alert.c.
 */
#ifndef RA_GUC_H
#define RA_GUC_H

#include "postgres.h"

extern int	ra_feature_memory;	/* kB of shared feature cache, postmaster */
extern int	ra_rule_timeout;	/* ms one rule may take for one event */
extern int	ra_rule_error_limit;	/* errors in a row that suspend a rule */
extern int	ra_batch_size;		/* events per batch at most */
extern int	ra_queue_rotate_size;	/* kB of a queue table that start a rotation */
extern bool ra_allow_superuser_rules;
extern int	ra_catch_up_timeout;	/* s, 0: no limit */
extern int	ra_commit_register;	/* RaRegisterKind */
extern int	ra_commit_timeout;	/* ms */
extern char *ra_coordination_password_file;	/* empty: none */
extern bool ra_coordination_tls;
extern char *ra_coordination_tls_ca_file;	/* these four: empty, or a file's name */
extern char *ra_coordination_tls_cert_file;
extern char *ra_coordination_tls_key_file;
extern char *ra_coordination_tls_key_password_file;
extern char *ra_debug_stop_at;	/* for tests; empty: nowhere */
extern int	ra_lock_cohort_limit;	/* hand-overs in a row, 0: none */
extern int	ra_lock_provider;	/* RaLockProvider, postmaster */
extern int	ra_max_locks;		/* keys in use, postmaster */
extern char *ra_paxos_acceptors;	/* names, or empty: all nodes */
extern int	ra_prepared_warning;	/* s */
extern int	ra_recovery_interval;	/* ms */
extern char *ra_redis_hosts;
extern int	ra_decision_retention;	/* s */
extern int	ra_register_retention;	/* s */
extern int	ra_session_timeout; /* ms */
extern char *ra_zookeeper_hosts;
extern char *ra_cluster_name;	/* postmaster */
extern char *ra_node_name;		/* postmaster; empty: not part of a cluster */

#endif							/* RA_GUC_H */
