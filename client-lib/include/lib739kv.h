/*
 * lib739kv: a key-value store through six functions, with the prototypes of Firecloud's lib739kv.
 * Link with -l739kv.
 *
 * Strings end with a NUL. A key has 1 to KV739_KEY_SIZE_MAX bytes, a value 0 to KV739_VALUE_SIZE_MAX,
 * and none of them is 0; all others are allowed. Buffers for values have one byte more, for the NUL,
 * and are written only by a call that answers 0.
 *
 * Calls wait up to 5 seconds; about 1 if no server reaches enough of the others. Threads may call at the
 * same time. In a child process after fork() they fail until the child calls kv739_init itself.
 * Nothing is printed, no signal handler is set, and no thread is started but to look up host names.
 */
#ifndef LIB739KV_H
#define LIB739KV_H

#define KV739_KEY_SIZE_MAX 128
#define KV739_VALUE_SIZE_MAX 2048

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Names the servers: up to 64 strings "host:port", up to an empty string or NULL. Contacts none of them.
 * 0; or -1 if there is none, or one is not of that form, or none can be resolved; then all is as it
 * was.
 * Where there was one already, this takes its place, as if after kv739_shutdown.
 */
int kv739_init(char *servers[]);

/* Ends the calls that are under way: they fail, as do those after it until the next kv739_init. */
void kv739_shutdown(void);

/*
 * Sends nothing to that server until kv739_recover. Its name need not be the one given to kv739_init, if
 * it is resolved to the same address. A server that was not given is ignored.
 */
void kv739_fail(char *server);

/* Uses that server again. */
void kv739_recover(char *server);

/*
 * 0: `value` holds the value. 1: there is no such key.
 * -1: failure; also if the value has over KV739_VALUE_SIZE_MAX bytes or a 0 among them.
 */
int kv739_get(char *key, char *value);

/*
 * 0: done; `old_value` holds the value before. 1: done; there was none.
 * -1: failure: it may have been done, unless a bad argument was the reason. A value that kv739_get can't
 * give is not overwritten. If an answer was lost and the old value has over 256 bytes, the put can be done
 * and the old value not be known: that is -1 too.
 * `old_value` may be `value`; or NULL, if it isn't wanted.
 */
int kv739_put(char *key, char *value, char *old_value);

#ifdef __cplusplus
}
#endif

#endif
