/*
 * lib739kv: a key-value store in six functions, with the prototypes of Firecloud's lib739kv.
 * Link with -l739kv.
 *
 * Strings end with a NUL. A key has 1 to KV739_KEY_SIZE_MAX bytes, a value 0 to
 * KV739_VALUE_SIZE_MAX. All bytes except 0 are allowed. Buffers for values must have one byte more,
 * for the NUL. Only calls that return 0 write them.
 *
 * Calls wait for up to 5 seconds, or about 1 if no server reaches a quorum. Threads may call the
 * functions concurrently. In a child process after fork() calls fail until the child calls
 * kv739_init itself. The library prints nothing and sets no signal handler. It starts a thread only
 * to look up host names.
 */
#ifndef LIB739KV_H
#define LIB739KV_H

#define KV739_KEY_SIZE_MAX 128
#define KV739_VALUE_SIZE_MAX 2048

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Names the servers: up to 64 strings "host:port", ended by an empty string or NULL. Contacts none
 * of them. Returns 0, or -1 if there is no server, if one is not of that form, or if none can be
 * resolved; then nothing changes. A second call replaces the servers of the first, as if after
 * kv739_shutdown.
 */
int kv739_init(char *servers[]);

/* Ends the calls in progress: they fail, and so do later calls until the next kv739_init. */
void kv739_shutdown(void);

/*
 * Sends nothing to that server until kv739_recover. The name need not be the one given to
 * kv739_init if it resolves to the same address. A server that was not given to it is ignored.
 */
void kv739_fail(char *server);

/* Uses that server again. */
void kv739_recover(char *server);

/*
 * Returns 0: `value` contains the value. 1: there is no such key.
 * -1: failure, also if the value has more than KV739_VALUE_SIZE_MAX bytes or contains a 0.
 */
int kv739_get(char *key, char *value);

/*
 * Returns 0: applied; `old_value` contains the previous value. 1: applied; there was none.
 * -1: failure. The put may have been applied, unless an argument was invalid. A value that
 * kv739_get cannot return is not overwritten. If an answer was lost and the old value has more than
 * 256 bytes, the put can be applied and the old value be unknown: that is -1 too.
 * `old_value` may be the same buffer as `value`, or NULL if it is not needed.
 */
int kv739_put(char *key, char *value, char *old_value);

#ifdef __cplusplus
}
#endif

#endif
