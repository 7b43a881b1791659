/*
 * session_file.h
 *	  What the broker leaves for its successor: its session, to be ended.
 */
#ifndef RA_SESSION_FILE_H
#define RA_SESSION_FILE_H

/* How the provider described the session, palloc'd; NULL: it was ended, or there was none */
extern char *ra_session_read(void);

/* A failure is logged only */
extern void ra_session_write(const char *description);
extern void ra_session_forget(void);

#endif							/* RA_SESSION_FILE_H */
