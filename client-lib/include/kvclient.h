/* kvclient.h: the C interface of the Horseshoe key-value store's client library.
 *
 * Link with libkvclient (pkg-config --cflags --libs kvclient). C11 and later; C++ programs may
 * prefer kvclient.hpp. The guide with examples is docs/c-api.md.
 *
 * Conventions
 *
 *   Errors     Functions that can fail return an int: KVC_OK (0), or a negative number from the
 *              list below, whose meaning never changes. For a write, every error except
 *              KVC_UNKNOWN_OUTCOME and KVC_INTERNAL means: not applied, now or later.
 *   Bytes      Keys and values are arbitrary bytes, given as pointer and size. Keys have 1 to
 *              KVC_KEY_SIZE_MAX bytes, values 0 to KVC_VALUE_SIZE_MAX. The library checks sizes
 *              before it reads the bytes. A pointer may be NULL if the size is 0. The library
 *              copies its inputs before the call returns.
 *   Results    A result is returned through the last argument, which every call first sets to
 *              NULL. The library owns it; kvc_result_free frees it. A result outlives its client.
 *   Options    Option structs begin with their size. Initialize them with their INIT macro, or
 *              with zeroes and the size; zero means the default. A program built with an older
 *              header continues to work. Fields that this library does not know must be zero.
 *   Threads    Any threads may call any functions concurrently, on the same client too, except
 *              kvc_free, which must be the last call. The library prints nothing, touches no
 *              signal handler, raises no SIGPIPE, and continues after EINTR. Do not call it in
 *              signal handlers. It starts a thread only to look up a host name. All signals are
 *              blocked in that thread, and it ends with the lookup. No call waits for it after its
 *              deadline. A library that dlclose closes stays in memory. If a thread of the program
 *              is cancelled (pthread_cancel) inside a call, it ends after that call.
 *   fork       In the child, every call with a client of the parent returns KVC_FORKED and touches
 *              nothing; kvc_close and kvc_free do nothing. So the client's memory and descriptors
 *              stay until the child ends or runs another program. The child may open its own
 *              clients. All this also holds in new process-id namespaces. A child made by
 *              clone(2), not by the C library, is detected only if its process id differs from its
 *              parent's. If the parent was looking up a name at the moment of the fork, the system
 *              may be unable to look up names in the child; kvc_open reports that after the
 *              deadline.
 *   Files      A client has descriptors. If the program closes them, as daemons do with all
 *              descriptors when they start, the next call detects it, closes the client, and never
 *              touches their numbers again. Until then, a file that reuses one of the numbers may
 *              receive a datagram or a few bytes of the client. So open clients after that.
 *   Addresses  HOST:PORT, 192.0.2.1:PORT, [2001:db8::1]:PORT, or [fe80::1%eth0]:PORT with the
 *              interface of a link-local address. List the nodes' own addresses. A virtual address
 *              in front of several nodes counts as one node: all calls go to the node to which it
 *              leads this client's port. If that node dies, calls fail until the client takes
 *              another port, at least two seconds later. A virtual address listed beside the nodes
 *              does no harm.
 *   Memory     If the system has no memory left, the process ends, as by abort().
 *   Misuse     NULL for a client or for a required argument, sizes out of bounds, unknown flags,
 *              and calls after kvc_close are errors. Use of freed memory is not always detected.
 */
#ifndef KVCLIENT_H
#define KVCLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Number of the binary interface that this header describes; it is in the library's file name. */
#define KVC_ABI_VERSION 0

#define KVC_KEY_SIZE_MAX 1024
/* In a compare-and-swap on the value: the expected and the new value together. The nodes accept up
 * to 1,048,576 bytes unless they are started with another limit, and answer KVC_TOO_LARGE above
 * theirs. */
#define KVC_VALUE_SIZE_MAX 16777216
/* The longest time to live: a hundred years. */
#define KVC_TTL_MS_MAX 3162240000000
/* Operations of a client that are in flight, or completed and not yet taken by kvc_completions. */
#define KVC_IN_FLIGHT_MAX 32768
/* Nodes that kvc_open accepts. */
#define KVC_NODES_MAX 64

enum {
    KVC_OK = 0,
    KVC_NOT_FOUND = -1,         /* of a get, or kvc_ttl: no such key; of a scan: no further key */
    KVC_NO_QUORUM = -2,         /* no node that responds reaches a quorum, or none responds */
    KVC_CONFLICT = -3,          /* a condition did not hold; the result has the current version */
    KVC_TOO_LARGE = -4,         /* a key or a value, or the value after an append */
    KVC_NOT_A_NUMBER = -5,      /* of an add: the value is not a signed 64-bit decimal number */
    KVC_OVERFLOW = -6,          /* of an add: the sum does not fit 64 bits */
    KVC_BUSY = -7,              /* more operations than the library or the nodes take; try again later */
    KVC_TIMED_OUT = -8,         /* of a read, also a scan or a transaction that only reads: no
                                   answer before the deadline */
    KVC_UNKNOWN_OUTCOME = -9,   /* of a write: it may have been applied, or may still be */
    KVC_INVALID_ARGUMENT = -10, /* NULL, an empty key, an unknown size prefix or flag, ... */
    KVC_CLOSED = -11,           /* the client was closed, or its descriptors were */
    KVC_FORKED = -12,           /* the client belongs to the parent process */
    KVC_INTERNAL = -13,         /* a defect of the library; the client is closed. A write may
                                   have been applied */
    KVC_NOT_RESOLVED = -14,     /* of kvc_open: no host name could be resolved */
    KVC_SYSTEM = -15,           /* of kvc_open: no socket, or no other descriptor, was available */
    KVC_FULL = -16,             /* of a write that grows a value: a node has no space left; the
                                   write was certainly not applied */
    KVC_TWO_CLUSTERS = -17,     /* the given nodes belong to two clusters; not applied */
    KVC_WRONG_ANSWER = -18      /* of a scan: a node gave an answer that no sound node gives */
};

/* The name of an error in English, without a newline. Never NULL, also for unknown numbers. The
 * text is constant. */
const char *kvc_strerror(int error);

/* KVC_ABI_VERSION of the loaded library. */
int kvc_abi_version(void);

/* The version of the loaded library, such as "0.1.0". */
const char *kvc_version(void);

/* Clients ------------------------------------------------------------------------------------- */

typedef struct kvc_client kvc_client;

typedef struct kvc_options {
    size_t size;
    uint32_t deadline_ms;        /* how long a call without its own deadline waits; 0: 5,000 */
    uint32_t no_quorum_after_ms; /* how long all nodes must be without a quorum, or silent, before
                                    a call returns KVC_NO_QUORUM; 0: 1,000 */
    uint64_t cluster;            /* the cluster to use, as `horseshoe status --json` shows it in
                                    hexadecimal; 0: the one that more than half of the given nodes
                                    belong to, or, after a wait, all that responded */
} kvc_options;
#define KVC_OPTIONS_INIT { sizeof(kvc_options), 0, 0, 0 }

/* Makes a client. `nodes` are host:port, separated by commas or spaces: names, IPv4, or IPv6 in
 * brackets. Contacts no node. Waits up to deadline_ms for the first address, and then a tenth of a
 * second for the others. A name that is not resolved by then counts as a node that does not
 * respond, and is looked up again during later calls. So is the name of a node that falls silent,
 * because it may have moved. KVC_NOT_RESOLVED: no address is numeric, and no name could be
 * resolved. `options` may be NULL. Errors: KVC_INVALID_ARGUMENT (NULL, no node, more than
 * KVC_NODES_MAX, not host:port), KVC_NOT_RESOLVED, KVC_SYSTEM. */
int kvc_open(const char *nodes, const kvc_options *options, kvc_client **out);

/* Ends the calls in progress, in other threads too: a write that may have been applied ends with
 * KVC_UNKNOWN_OUTCOME, everything else with KVC_CLOSED. Later calls return KVC_CLOSED. Completions
 * of submitted operations can still be taken. The client may be NULL, or closed already. */
void kvc_close(kvc_client *client);

/* Closes the client and frees it, with the completions that were not taken. No other call on it
 * may be in progress, or follow. The client may be NULL. */
void kvc_free(kvc_client *client);

/* Results ------------------------------------------------------------------------------------- */

typedef struct kvc_result kvc_result;

enum {
    KVC_OLD_NOT_ASKED = 0,
    KVC_OLD_ABSENT = 1,   /* there was no such key */
    KVC_OLD_VALUE = 2,
    KVC_OLD_FORGOTTEN = 3 /* there may have been a value; it had over 256 bytes, and the first
                             answer was lost */
};

/* Returns the value of a get, and its size in *size (`size` may be NULL). A zero byte follows the
 * value; the size does not count it. Without a value, returns NULL and size 0; an empty value is
 * not NULL. The pointer is valid until the result is freed. */
const void *kvc_result_value(const kvc_result *result, size_t *size);

/* Returns the version of the value that was read or written; after KVC_CONFLICT, that of the
 * current value. Versions of a key only rise. 0: the key is absent (a delete that found nothing; a
 * conflict). */
uint64_t kvc_result_version(const kvc_result *result);

/* Returns the sum after an add, else 0. */
int64_t kvc_result_number(const kvc_result *result);

/* After kvc_ttl, returns how long the key still lives, in milliseconds; -1 if it does not expire,
 * and after other calls. */
int64_t kvc_result_ttl_ms(const kvc_result *result);

/* After kvc_get_stale, returns for how many milliseconds the node that answered has not been joined
 * to a quorum; 0 if it is, and after other calls. */
uint64_t kvc_result_apart_ms(const kvc_result *result);

/* Gives the value before a write or, after KVC_CONFLICT, the current value, if KVC_WANT_OLD was
 * set. Returns one of KVC_OLD_.... With KVC_OLD_VALUE it sets *value and *size as kvc_result_value
 * does, else to NULL and 0. Either pointer may be NULL. For a delete that found nothing it always
 * returns KVC_OLD_ABSENT. */
int kvc_result_old(const kvc_result *result, const void **value, size_t *size);

/* What a transaction that committed did with one key. */
typedef struct kvc_txn_key {
    const void *value; /* before the transaction, followed by a zero byte that the size does not
                          count; NULL if the key was absent, or kvc_txn_get did not ask for it */
    size_t value_size;
    uint64_t found;    /* the version before; 0: the key was absent */
    uint64_t version;  /* the version after; 0: the key is absent, and was so before */
    int64_t number;    /* the sum after kvc_txn_add, else 0 */
} kvc_txn_key;

/* Returns the number of keys of a transaction that committed, else 0. */
size_t kvc_result_txn_count(const kvc_result *result);

/* Gives what a transaction that committed did with a key; `index` counts from 0 in the order in
 * which the transaction first named its keys. The pointer in it is valid until the result is freed.
 * Returns KVC_OK or KVC_INVALID_ARGUMENT. */
int kvc_result_txn_key(const kvc_result *result, size_t index, kvc_txn_key *out);

/* After KVC_CONFLICT of a transaction, gives the key whose condition did not hold, and which of the
 * conditions on this key, both counted from 0 in the order of the calls; kvc_result_version is the
 * key's version, or 0 if it is absent. Either pointer may be NULL. Returns KVC_OK or
 * KVC_INVALID_ARGUMENT. */
int kvc_result_txn_conflict(const kvc_result *result, size_t *index, size_t *condition);

/* The result may be NULL. */
void kvc_result_free(kvc_result *result);

/* Synchronous calls --------------------------------------------------------------------------- *
 *
 * The calling thread itself sends and receives. A call waits up to its deadline: that of
 * kvc_options, or that of kvc_write_options. All calls may return KVC_NO_QUORUM, KVC_BUSY,
 * KVC_INVALID_ARGUMENT, KVC_TOO_LARGE, KVC_CLOSED, KVC_FORKED and KVC_INTERNAL. A read may
 * also return KVC_TIMED_OUT; a write KVC_UNKNOWN_OUTCOME and KVC_FULL. The library retries after
 * lost datagrams, and a write is applied once.
 *
 * In writes `options` may be NULL, and so may `out` if the result is not needed. With KVC_OK and
 * KVC_CONFLICT, *out is a result; with other errors it is NULL. */

enum {
    KVC_IF_ABSENT = 1,  /* of a put: only if there is no such key, else KVC_CONFLICT */
    KVC_IF_VERSION = 2, /* of a put, a delete, kvc_expire and kvc_persist: only if the current
                           version is `version`, else KVC_CONFLICT. Version 0 means that the key is
                           absent */
    KVC_WANT_OLD = 4    /* the result contains the value before */
};

typedef struct kvc_write_options {
    size_t size;
    uint32_t flags;       /* KVC_IF_ABSENT, KVC_IF_VERSION (not both), KVC_WANT_OLD */
    uint32_t deadline_ms; /* 0: the client's */
    uint64_t version;     /* with KVC_IF_VERSION; else 0 */
    uint64_t ttl_ms;      /* of a put: how long the key lives, at most KVC_TTL_MS_MAX; 0: it does
                             not expire. Else 0 */
} kvc_write_options;
#define KVC_WRITE_OPTIONS_INIT { sizeof(kvc_write_options), 0, 0, 0, 0 }

/* Reads a key. If it is absent, returns KVC_NOT_FOUND without a result. `out` is required. */
int kvc_get(kvc_client *client, const void *key, size_t key_size, kvc_result **out);

/* Reads what one node knows of a key, which may be old: the last state that it knows to be chosen.
 * It asks no other node, and answers also without a quorum. With KVC_NOT_FOUND, too, *out is a
 * result: kvc_result_apart_ms says for how long the node has been apart. A node that does not know
 * which state is chosen does not count as an answer. */
int kvc_get_stale(kvc_client *client, const void *key, size_t key_size, kvc_result **out);

/* Writes a value, unconditionally or under the condition of `options` (KVC_CONFLICT). Without a
 * ttl_ms it removes the time to live that the key may have, and so does kvc_cas. kvc_add and
 * kvc_append keep it. */
int kvc_put(kvc_client *client, const void *key, size_t key_size, const void *value,
            size_t value_size, const kvc_write_options *options, kvc_result **out);

/* Deletes a key, with KVC_IF_VERSION only that version (KVC_CONFLICT). For an absent key it returns
 * KVC_OK too, with version 0, if no other version was asked for. */
int kvc_delete(kvc_client *client, const void *key, size_t key_size,
               const kvc_write_options *options, kvc_result **out);

/* Compare-and-swap: writes the value if the key has exactly the expected value. Otherwise, also if
 * the key is absent, returns KVC_CONFLICT. Both values together have at most KVC_VALUE_SIZE_MAX
 * bytes; to swap larger values use kvc_put with KVC_IF_VERSION. */
int kvc_cas(kvc_client *client, const void *key, size_t key_size, const void *expected,
            size_t expected_size, const void *value, size_t value_size,
            const kvc_write_options *options, kvc_result **out);

/* Adds to a signed 64-bit number in decimal text, such as "-12", without plus sign or leading
 * zeroes. An absent key counts as 0. The result contains the sum. Errors: also KVC_NOT_A_NUMBER,
 * KVC_OVERFLOW. */
int kvc_add(kvc_client *client, const void *key, size_t key_size, int64_t delta,
            const kvc_write_options *options, kvc_result **out);

/* Appends to a value. An absent key counts as empty. Returns KVC_TOO_LARGE if the appended value
 * would be too large. */
int kvc_append(kvc_client *client, const void *key, size_t key_size, const void *value,
               size_t value_size, const kvc_write_options *options, kvc_result **out);

/* Lets a key live for ttl_ms from now on, 1 to KVC_TTL_MS_MAX, and then be absent. The nodes'
 * clocks decide: the median of them. The version stays. Returns KVC_CONFLICT with version 0 if the
 * key is absent. */
int kvc_expire(kvc_client *client, const void *key, size_t key_size, uint64_t ttl_ms,
               const kvc_write_options *options, kvc_result **out);

/* Removes the time to live of a key. The version stays. Returns KVC_CONFLICT with version 0 if the
 * key is absent. */
int kvc_persist(kvc_client *client, const void *key, size_t key_size,
                const kvc_write_options *options, kvc_result **out);

/* Reads how long a key still lives: kvc_result_ttl_ms and kvc_result_version. If the key is absent,
 * returns KVC_NOT_FOUND without a result. `out` is required. */
int kvc_ttl(kvc_client *client, const void *key, size_t key_size, kvc_result **out);

/* Transactions -------------------------------------------------------------------------------- *
 *
 * Conditions and operations on up to 128 keys that take effect together, at one moment, or not at
 * all. Conditions and kvc_txn_get see the keys as they were before the transaction. Each key may be
 * written once, and may have 16 conditions. All values together have at most KVC_VALUE_SIZE_MAX
 * bytes; the nodes accept as many as for one value. A transaction that only reads is a snapshot.
 *
 * A kvc_txn is put together call by call, and copies all bytes. Then it is run or submitted, also
 * several times: each time is a transaction of its own. Only one thread at a time may use it. */

typedef struct kvc_txn kvc_txn;

/* NULL: no memory. */
kvc_txn *kvc_txn_new(void);

/* Each of these returns KVC_OK, KVC_INVALID_ARGUMENT or KVC_TOO_LARGE, and then adds nothing. In
 * kvc_txn_if_version, version 0 means that the key is absent. `ttl_ms` is at most KVC_TTL_MS_MAX;
 * 0: the key does not expire. */
int kvc_txn_if_absent(kvc_txn *txn, const void *key, size_t key_size);
int kvc_txn_if_present(kvc_txn *txn, const void *key, size_t key_size);
int kvc_txn_if_version(kvc_txn *txn, const void *key, size_t key_size, uint64_t version);
int kvc_txn_if_value(kvc_txn *txn, const void *key, size_t key_size, const void *value,
                     size_t value_size);
int kvc_txn_get(kvc_txn *txn, const void *key, size_t key_size);
int kvc_txn_put(kvc_txn *txn, const void *key, size_t key_size, const void *value,
                size_t value_size, uint64_t ttl_ms);
int kvc_txn_delete(kvc_txn *txn, const void *key, size_t key_size);
int kvc_txn_add(kvc_txn *txn, const void *key, size_t key_size, int64_t delta);
int kvc_txn_append(kvc_txn *txn, const void *key, size_t key_size, const void *value,
                   size_t value_size);

/* Runs the transaction, and waits for at most deadline_ms (0: the client's). KVC_OK: it committed,
 * and kvc_result_txn_key gives what it did. KVC_CONFLICT: a condition did not hold, and nothing was
 * done (kvc_result_txn_conflict). Errors: as those of a write, or of a read if it only reads;
 * KVC_BUSY also if other transactions held its keys all the time; KVC_INVALID_ARGUMENT also if it
 * names no key, more than 128, one key with two writes, or more than 16 conditions on a key. `out`
 * may be NULL. */
int kvc_txn_run(kvc_client *client, kvc_txn *txn, uint32_t deadline_ms, kvc_result **out);

/* Starts the transaction and does not wait for it, as kvc_submit does for an operation. */
int kvc_txn_submit(kvc_client *client, kvc_txn *txn, uint32_t deadline_ms, uint64_t tag);

/* The transaction may be NULL, or be in progress. */
void kvc_txn_free(kvc_txn *txn);

/* Scans --------------------------------------------------------------------------------------- *
 *
 * A scan tells the keys of a range in order of their bytes, each with its version and value. It
 * asks for a page at a time, and holds one. Each key is told as it was at some moment during the
 * scan: a key that is present all the time is told, one that is absent all the time is not. A scan
 * is not a snapshot of all keys at one moment. */

typedef struct kvc_scan kvc_scan;

enum {
    KVC_SCAN_KEYS_ONLY = 1 /* without values */
};

typedef struct kvc_scan_options {
    size_t size;
    const void *prefix;   /* only keys that begin with these bytes */
    size_t prefix_size;
    const void *from;     /* no keys before this one */
    size_t from_size;
    const void *to;       /* neither this key nor those behind it; size 0: to the last key */
    size_t to_size;
    uint64_t limit;       /* at most so many keys; 0: all */
    uint32_t flags;       /* KVC_SCAN_KEYS_ONLY */
    uint32_t deadline_ms; /* for each page; 0: the client's */
} kvc_scan_options;
#define KVC_SCAN_OPTIONS_INIT { sizeof(kvc_scan_options), NULL, 0, NULL, 0, NULL, 0, 0, 0, 0 }

/* A zero byte follows the key, and the value; the sizes do not count it. `value` is NULL with
 * KVC_SCAN_KEYS_ONLY. */
typedef struct kvc_scan_entry {
    const void *key;
    size_t key_size;
    const void *value;
    size_t value_size;
    uint64_t version;
} kvc_scan_entry;

/* Makes a scan, and sends nothing yet. `options` may be NULL: all keys. Errors:
 * KVC_INVALID_ARGUMENT, KVC_TOO_LARGE, KVC_CLOSED, KVC_FORKED, KVC_INTERNAL. */
int kvc_scan_open(kvc_client *client, const kvc_scan_options *options, kvc_scan **out);

/* Gives the next key. Its pointers are valid until the next call with this scan. Returns
 * KVC_NOT_FOUND at the end; otherwise errors as a get does, and KVC_WRONG_ANSWER. After
 * KVC_NO_QUORUM, KVC_BUSY, KVC_TIMED_OUT or KVC_WRONG_ANSWER the scan may be continued: no key is
 * left out or told twice. One thread at a time may use a scan, and none after its client was
 * freed. */
int kvc_scan_next(kvc_scan *scan, kvc_scan_entry *out);

/* The scan may be NULL. It may also be freed after its client. */
void kvc_scan_free(kvc_scan *scan);

/* Watches ------------------------------------------------------------------------------------- *
 *
 * A watch tells the present state of a key, or of all keys with a prefix, and then each change. The
 * last state of each key is always told; per key versions only rise, and states in between may be
 * left out. A watch survives the death of nodes: it goes on at another one, and tells only what is
 * different from what it has told. It holds the names and versions of its keys in memory. */

typedef struct kvc_watch kvc_watch;

enum {
    KVC_WATCH_PUT = 1,     /* the key has this value */
    KVC_WATCH_DELETE = 2,  /* the key is deleted; version 0: which one is not known any more */
    KVC_WATCH_CURRENT = 3, /* all that the node knows is told */
    KVC_WATCH_APART = 4    /* no node serves the watch at present, which goes on trying */
};

/* A key, or a prefix; with neither all keys are watched. A key of size 0 must be NULL. */
typedef struct kvc_watch_options {
    size_t size;
    const void *key;
    size_t key_size;
    const void *prefix;
    size_t prefix_size;
    uint64_t from_version; /* no states up to this version. For one key its state at that version
                              counts as told; for a prefix this is only a filter */
} kvc_watch_options;
#define KVC_WATCH_OPTIONS_INIT { sizeof(kvc_watch_options), NULL, 0, NULL, 0, 0 }

/* A zero byte follows the key, and the value; the sizes do not count it. The pointers are valid
 * until the next event of this watch. */
typedef struct kvc_watch_event {
    int kind;           /* KVC_WATCH_... */
    int status;         /* of KVC_WATCH_APART: why */
    const void *key;    /* of KVC_WATCH_PUT and KVC_WATCH_DELETE; else NULL */
    size_t key_size;
    const void *value;  /* of KVC_WATCH_PUT */
    size_t value_size;
    uint64_t version;
    int64_t behind_ms;  /* of KVC_WATCH_CURRENT: the node surely knows every change up to so many
                           milliseconds ago; -1: it cannot tell yet */
} kvc_watch_event;

/* Makes a watch, and sends nothing yet. `options` may be NULL: all keys. One thread at a time may
 * use a watch, and none after its client was freed, except to free it. Errors:
 * KVC_INVALID_ARGUMENT (also a key together with a prefix), KVC_TOO_LARGE, KVC_CLOSED, KVC_FORKED,
 * KVC_INTERNAL. */
int kvc_watch_open(kvc_client *client, const kvc_watch_options *options, kvc_watch **out);

/* Waits for the next event. While nothing changes KVC_WATCH_CURRENT comes about twice a second;
 * while no node serves, KVC_WATCH_APART comes within the client's deadline. Errors:
 * KVC_INVALID_ARGUMENT (also while a call of kvc_watch_submit is in progress), KVC_TWO_CLUSTERS,
 * KVC_CLOSED, KVC_FORKED, KVC_INTERNAL. */
int kvc_watch_next(kvc_watch *watch, kvc_watch_event *out);

/* The same without waiting. kvc_watch_submit starts a call, whose completion has the tag. Give that
 * completion to kvc_watch_take, free its result, take the events by kvc_watch_poll until it returns
 * KVC_NOT_FOUND, and submit again. A tag must be no other call's. Errors of kvc_watch_submit are
 * those of kvc_submit, and KVC_INVALID_ARGUMENT while a call is in progress; those of
 * kvc_watch_take are KVC_INVALID_ARGUMENT (no completion of this watch), and what kvc_watch_next
 * returns if the watch cannot go on. */
int kvc_watch_submit(kvc_watch *watch, uint64_t tag);
struct kvc_completion;
int kvc_watch_take(kvc_watch *watch, const struct kvc_completion *completion);
int kvc_watch_poll(kvc_watch *watch, kvc_watch_event *out);

/* The watch may be NULL. It may also be freed after its client, or while a call is in progress. */
void kvc_watch_free(kvc_watch *watch);

/* Asynchronous calls -------------------------------------------------------------------------- *
 *
 * kvc_submit starts an operation; its completion carries the tag. kvc_completions sends, receives,
 * retries, and returns completions. Call it whenever kvc_poll_fd is readable; a kvc_submit soon
 * makes it readable too. So one thread keeps thousands of operations in flight from its own poll or
 * epoll loop. */

enum {
    KVC_OP_GET = 1,
    KVC_OP_PUT = 2,
    KVC_OP_DELETE = 3,
    KVC_OP_CAS = 4,
    KVC_OP_ADD = 5,
    KVC_OP_APPEND = 6,
    KVC_OP_EXPIRE = 7,
    KVC_OP_PERSIST = 8,
    KVC_OP_TTL = 9,
    KVC_OP_GET_STALE = 10
};

typedef struct kvc_op {
    size_t size;
    uint32_t kind;        /* KVC_OP_... */
    uint32_t flags;       /* as in kvc_write_options; 0 for reads */
    const void *key;
    size_t key_size;
    const void *value;    /* of put, cas, append */
    size_t value_size;
    const void *expected; /* of cas */
    size_t expected_size;
    uint64_t version;     /* with KVC_IF_VERSION; else 0 */
    int64_t delta;        /* of add */
    uint32_t deadline_ms; /* 0: the client's */
    uint32_t reserved;    /* 0 */
    uint64_t ttl_ms;      /* of put, where 0 means that the key does not expire, and expire */
} kvc_op;
#define KVC_OP_INIT { sizeof(kvc_op), 0, 0, NULL, 0, NULL, 0, NULL, 0, 0, 0, 0, 0, 0 }

/* Starts an operation and does not wait for it. After KVC_OK one completion follows, after an
 * error none. Errors: KVC_INVALID_ARGUMENT, KVC_TOO_LARGE, KVC_BUSY (over KVC_IN_FLIGHT_MAX, or
 * the operation would wait for its turn for more than half of its deadline), KVC_CLOSED,
 * KVC_FORKED, KVC_INTERNAL. */
int kvc_submit(kvc_client *client, const kvc_op *op, uint64_t tag);

/* Returns a descriptor that is readable when kvc_completions has something to do or to return.
 * Wait for it with poll, select or epoll (level-triggered). It belongs to the client until
 * kvc_free, also after kvc_close: do not read or close it. Errors: KVC_INVALID_ARGUMENT,
 * KVC_FORKED, KVC_INTERNAL. */
int kvc_poll_fd(kvc_client *client);

typedef struct kvc_completion {
    uint64_t tag;
    int status;         /* as the synchronous call would return */
    kvc_result *result; /* as the synchronous call would return, or NULL; free it with
                           kvc_result_free */
} kvc_completion;

/* Stores up to `max` completions and returns their number, 0 if there are none now. Does not wait.
 * Errors: KVC_INVALID_ARGUMENT (NULL, max 0), KVC_CLOSED (closed, and all were taken), KVC_FORKED,
 * KVC_INTERNAL. */
int kvc_completions(kvc_client *client, kvc_completion *completions, size_t max);

/* Locks --------------------------------------------------------------------------------------- *
 *
 * A lock is a key with a time to live; docs/locks.md says what it can and cannot promise. Only one
 * thread at a time may use a kvc_lock. */

typedef struct kvc_lock kvc_lock;

typedef struct kvc_lock_options {
    size_t size;
    uint64_t ttl_ms;  /* how long the lock is held without a renewal; 0: 10,000 */
    uint64_t wait_ms; /* how long to wait for a lock that another one holds; 0: one attempt */
} kvc_lock_options;
#define KVC_LOCK_OPTIONS_INIT { sizeof(kvc_lock_options), 0, 0 }

/* Acquires the lock of that name, which is a key. Returns KVC_CONFLICT without a lock if another
 * one held it all the time. After another error it may be held by nobody until its time to live
 * has passed. `options` may be NULL, `out` is required. */
int kvc_lock_acquire(kvc_client *client, const void *name, size_t name_size,
                     const kvc_lock_options *options, kvc_lock **out);

/* Begins the time to live anew. Returns KVC_CONFLICT if the lock is lost. After another error it is
 * held as long as before, and may be renewed again. Waits at most as long as it is held, and as
 * any call of the client. */
int kvc_lock_renew(kvc_client *client, kvc_lock *lock);

/* Returns the fencing token: it rises with each holder. 0 for NULL. */
uint64_t kvc_lock_token(const kvc_lock *lock);

/* Returns for how many milliseconds the lock is still held without a renewal, by the machine's
 * monotonic clock, which goes on while the machine is suspended; 0: it is lost, or NULL. */
uint64_t kvc_lock_left_ms(const kvc_lock *lock);

/* Gives the lock back, and frees it whatever is returned. KVC_CONFLICT: it was lost before. After
 * other errors it ends with its time to live. */
int kvc_lock_release(kvc_client *client, kvc_lock *lock);

#ifdef __cplusplus
}
#endif

#endif
