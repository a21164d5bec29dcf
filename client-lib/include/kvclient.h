/* kvclient.h: the C interface of the Horseshoe key-value store's client library.
 *
 * Link with libkvclient (pkg-config --cflags --libs kvclient). C11 and later; C++ programs may
 * prefer kvclient.hpp. The guide with examples is docs/c-api.md.
 *
 * Conventions
 *
 *   Errors     Functions that can fail give an int: KVC_OK (0) or a negative number of the list
 *              below, whose meaning is fixed for good. For a write every error but
 *              KVC_UNKNOWN_OUTCOME and KVC_INTERNAL means: not done, now or later.
 *   Bytes      Keys and values are any bytes, given as pointer and size. Keys have 1 to
 *              KVC_KEY_SIZE_MAX bytes, values 0 to KVC_VALUE_SIZE_MAX. Sizes are checked before the
 *              bytes are read. A NULL pointer is fine where the size is 0. What is passed in is
 *              copied before the call returns.
 *   Results    Come through the last argument, which is set to NULL first, whatever happens. They are
 *              the library's: kvc_result_free gives them back. A result outlives its client.
 *   Options    Structs begin with their size. Initialize them by their INIT macro, or with zeroes and
 *              the size; zero means the default. A program built with an older header goes on
 *              working; fields that this library does not know must be zero.
 *   Threads    All functions may be called by any threads at once, on the same client too, except
 *              kvc_free, which has to be the last call. The library prints nothing, touches no
 *              signal handler, raises no SIGPIPE, and goes on after EINTR. Not for use in signal
 *              handlers. It starts a thread only to look up a host name. All signals are blocked in
 *              that thread, and it ends with the look-up. No call waits for it after its deadline. A
 *              library that is closed by dlclose stays in memory. A thread of the program that is
 *              cancelled (pthread_cancel) inside of a call ends after that call.
 *   fork       In the child, every call with a client of the parent gives KVC_FORKED and touches
 *              nothing; kvc_close and kvc_free do nothing, so its memory and descriptors stay until
 *              the child ends or runs another program. The child may open clients of its own. That
 *              holds in new process-id namespaces too. A child that was made by clone(2), and not
 *              by the C library, is noticed only if its process id is not its parent's.
 *              Should the parent have been looking up a name in the moment of the fork, the system
 *              may not be able to look up names in the child, which kvc_open tells after the
 *              deadline.
 *   Files      A client has descriptors. Where the program closes them, as daemons do with all when they
 *              start, the client is closed as soon as a call finds it, and never touches their numbers
 *              again. Until then what has taken a number may get a datagram or a few bytes of the
 *              client's. So open clients afterwards.
 *   Addresses  HOST:PORT, 192.0.2.1:PORT, [2001:db8::1]:PORT, or [fe80::1%eth0]:PORT with the interface
 *              of a link-local address. List the nodes' own addresses. A virtual address in front of several nodes counts as
 *              one node: all calls go to the one that it leads this client's port to. When that one
 *              dies they fail until the client takes another port, two seconds later at the
 *              soonest. Listed beside the nodes it does no harm.
 *   Memory     Where the system has none left the process is ended, as by abort().
 *   Misuse     NULL for a client or for an argument that is needed, sizes out of bounds, unknown flags
 *              and calls after kvc_close are errors. Use of freed memory is not always noticed.
 */
#ifndef KVCLIENT_H
#define KVCLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Number of the binary interface this header describes: that of the library's file name. */
#define KVC_ABI_VERSION 0

#define KVC_KEY_SIZE_MAX 1024
/* Of a compare-and-swap on the value: the expected and the new value together. */
#define KVC_VALUE_SIZE_MAX 49152
/* Operations of a client that are in flight, or completed and not yet taken by kvc_completions. */
#define KVC_IN_FLIGHT_MAX 32768
/* Nodes that kvc_open takes. */
#define KVC_NODES_MAX 64

enum {
    KVC_OK = 0,
    KVC_NOT_FOUND = -1,         /* of a get: no such key */
    KVC_NO_QUORUM = -2,         /* no node that answers reaches a quorum, or none answers */
    KVC_CONFLICT = -3,          /* a condition did not hold; the result tells what stands */
    KVC_TOO_LARGE = -4,         /* a key or value, or what append would make of it */
    KVC_NOT_A_NUMBER = -5,      /* of an add: the value is no signed 64-bit number in decimal */
    KVC_OVERFLOW = -6,          /* of an add: the sum does not fit 64 bits */
    KVC_BUSY = -7,              /* too much is under way; try again later */
    KVC_TIMED_OUT = -8,         /* of a get: no answer before the deadline */
    KVC_UNKNOWN_OUTCOME = -9,   /* of a write: it may have been done, or may still be */
    KVC_INVALID_ARGUMENT = -10, /* NULL, an empty key, a size prefix or flag that is not known, ... */
    KVC_CLOSED = -11,           /* the client was closed, or its descriptors were */
    KVC_FORKED = -12,           /* the client is the parent process's */
    KVC_INTERNAL = -13,         /* a defect of the library; the client is closed. A write may be done */
    KVC_NOT_RESOLVED = -14,     /* of kvc_open: no host name could be resolved */
    KVC_SYSTEM = -15,           /* of kvc_open: no socket, or no other descriptor, was to be had */
    KVC_FULL = -16,             /* of a write that would grow: a node has no room left; surely not done */
    KVC_TWO_CLUSTERS = -17      /* the given nodes belong to two clusters; not done */
};

/* What an error is called, in English, without a newline; never NULL, also for unknown numbers.
 * The text is constant. */
const char *kvc_strerror(int error);

/* KVC_ABI_VERSION of the library that is loaded. */
int kvc_abi_version(void);

/* Its version, as in "0.1.0". */
const char *kvc_version(void);

/* Clients ------------------------------------------------------------------------------------- */

typedef struct kvc_client kvc_client;

typedef struct kvc_options {
    size_t size;
    uint32_t deadline_ms;        /* how long a call waits unless it says otherwise; 0: 5,000 */
    uint32_t no_quorum_after_ms; /* how long all nodes must be without a quorum, or silent, before
                                    KVC_NO_QUORUM is answered; 0: 1,000 */
    uint64_t cluster;            /* the cluster to use, as `horseshoe status --json` shows it in
                                    hexadecimal; 0: the one that more than half of the given nodes
                                    belong to, or, after a wait, all that answered */
} kvc_options;
#define KVC_OPTIONS_INIT { sizeof(kvc_options), 0, 0, 0 }

/* Makes a client. `nodes` are host:port, separated by commas or spaces: names, IPv4, or IPv6 in
 * brackets. Contacts no node. Waits until a first address is known, up to deadline_ms, and then for
 * the others for a moment; names that are not resolved by then count as nodes that do not answer,
 * and are looked up again during later calls. So is the name of a node that falls silent: it may
 * have moved. KVC_NOT_RESOLVED: none is an address in numbers, and no name could be resolved.
 * `options` may be NULL.
 * Errors: KVC_INVALID_ARGUMENT (NULL, no node, more than KVC_NODES_MAX, not host:port),
 * KVC_NOT_RESOLVED, KVC_SYSTEM. */
int kvc_open(const char *nodes, const kvc_options *options, kvc_client **out);

/* Ends the calls under way, in other threads too: a write that may have been done as
 * KVC_UNKNOWN_OUTCOME, all else as KVC_CLOSED. Later calls give KVC_CLOSED; completions of what was
 * submitted can still be taken. NULL is fine, and so is closing twice. */
void kvc_close(kvc_client *client);

/* Closes the client and frees it, with the completions that were not taken. No other call on it may be
 * under way, or follow. NULL is fine. */
void kvc_free(kvc_client *client);

/* Results ------------------------------------------------------------------------------------- */

typedef struct kvc_result kvc_result;

enum {
    KVC_OLD_NOT_ASKED = 0,
    KVC_OLD_ABSENT = 1,   /* there was no such key */
    KVC_OLD_VALUE = 2,
    KVC_OLD_FORGOTTEN = 3 /* there may have been a value; it was over 256 bytes, and the first answer
                             was lost */
};

/* The value of a get, and its size in *size (which may be NULL). A zero byte follows the value, not
 * counted. NULL, and 0, if there is no value; an empty value is not NULL. Valid until the result is
 * freed. */
const void *kvc_result_value(const kvc_result *result, size_t *size);

/* The version of the value that was read or written; after KVC_CONFLICT that of the value that stands.
 * Versions of a key only rise. 0: the key is absent (a delete that found nothing; a conflict). */
uint64_t kvc_result_version(const kvc_result *result);

/* The sum after an add; else 0. */
int64_t kvc_result_number(const kvc_result *result);

/* The value before a write, or the value that stands after KVC_CONFLICT, if KVC_WANT_OLD was set:
 * gives one of KVC_OLD_..., and with KVC_OLD_VALUE sets *value and *size as kvc_result_value would, else
 * to NULL and 0. Either pointer may be NULL. A delete that found nothing always gives KVC_OLD_ABSENT. */
int kvc_result_old(const kvc_result *result, const void **value, size_t *size);

/* NULL is fine. */
void kvc_result_free(kvc_result *result);

/* Calls that wait ----------------------------------------------------------------------------- *
 *
 * The calling thread does its own sending and receiving. Calls wait up to the deadline: of kvc_options,
 * or of kvc_write_options for that call. All of them may give KVC_NO_QUORUM, KVC_BUSY,
 * KVC_INVALID_ARGUMENT, KVC_TOO_LARGE, KVC_CLOSED, KVC_FORKED and KVC_INTERNAL; a get KVC_TIMED_OUT;
 * a write KVC_UNKNOWN_OUTCOME and KVC_FULL. Retries after lost datagrams are the library's affair: a write is
 * applied once.
 *
 * Of writes `options` may be NULL, and so may `out` where the result is of no interest. With KVC_OK,
 * and KVC_CONFLICT, *out is a result; with other errors it is NULL. */

enum {
    KVC_IF_ABSENT = 1,  /* of a put: only if there is no such key; else KVC_CONFLICT */
    KVC_IF_VERSION = 2, /* of a put: only if the version is that of `version`; else KVC_CONFLICT.
                           Version 0 is that of an absent key */
    KVC_WANT_OLD = 4    /* the result tells the value before */
};

typedef struct kvc_write_options {
    size_t size;
    uint32_t flags;       /* KVC_IF_ABSENT, KVC_IF_VERSION (not both), KVC_WANT_OLD */
    uint32_t deadline_ms; /* 0: the client's */
    uint64_t version;     /* with KVC_IF_VERSION; else 0 */
} kvc_write_options;
#define KVC_WRITE_OPTIONS_INIT { sizeof(kvc_write_options), 0, 0, 0 }

/* Reads a key. KVC_NOT_FOUND, without a result, if it is absent. `out` is needed. */
int kvc_get(kvc_client *client, const void *key, size_t key_size, kvc_result **out);

/* Writes a value, whatever was there, or under the condition of `options` (KVC_CONFLICT). */
int kvc_put(kvc_client *client, const void *key, size_t key_size, const void *value,
            size_t value_size, const kvc_write_options *options, kvc_result **out);

/* Deletes a key. An absent one is KVC_OK too, with version 0. */
int kvc_delete(kvc_client *client, const void *key, size_t key_size,
               const kvc_write_options *options, kvc_result **out);

/* Compare-and-swap: writes the value if the key has exactly the value expected; else, as for an absent
 * key, KVC_CONFLICT. The sizes of both together are bounded by KVC_VALUE_SIZE_MAX; to swap larger
 * values use kvc_put with KVC_IF_VERSION. */
int kvc_cas(kvc_client *client, const void *key, size_t key_size, const void *expected,
            size_t expected_size, const void *value, size_t value_size,
            const kvc_write_options *options, kvc_result **out);

/* Adds to a signed 64-bit number in decimal text, as "-12", without plus sign or leading zeroes; an
 * absent key counts as 0. KVC_NOT_A_NUMBER, KVC_OVERFLOW. The result has the sum. */
int kvc_add(kvc_client *client, const void *key, size_t key_size, int64_t delta,
            const kvc_write_options *options, kvc_result **out);

/* Appends to a value; an absent key counts as empty. KVC_TOO_LARGE if the whole would be. */
int kvc_append(kvc_client *client, const void *key, size_t key_size, const void *value,
               size_t value_size, const kvc_write_options *options, kvc_result **out);

/* Calls that do not wait ---------------------------------------------------------------------- *
 *
 * kvc_submit starts an operation; its completion carries the tag. kvc_completions sends, receives,
 * retries, and hands out completions; call it whenever kvc_poll_fd is readable, which is soon after a
 * kvc_submit too. So one thread keeps thousands in flight from its own poll or epoll loop. */

enum {
    KVC_OP_GET = 1,
    KVC_OP_PUT = 2,
    KVC_OP_DELETE = 3,
    KVC_OP_CAS = 4,
    KVC_OP_ADD = 5,
    KVC_OP_APPEND = 6
};

typedef struct kvc_op {
    size_t size;
    uint32_t kind;        /* KVC_OP_... */
    uint32_t flags;       /* as in kvc_write_options; 0 for a get */
    const void *key;
    size_t key_size;
    const void *value;    /* of put, cas, append */
    size_t value_size;
    const void *expected; /* of cas */
    size_t expected_size;
    uint64_t version;     /* of a put with KVC_IF_VERSION; else 0 */
    int64_t delta;        /* of add */
    uint32_t deadline_ms; /* 0: the client's */
    uint32_t reserved;    /* 0 */
} kvc_op;
#define KVC_OP_INIT { sizeof(kvc_op), 0, 0, NULL, 0, NULL, 0, NULL, 0, 0, 0, 0, 0 }

/* Starts an operation and does not wait for it. With KVC_OK there will be one completion; with an error
 * none. Errors: KVC_INVALID_ARGUMENT, KVC_TOO_LARGE, KVC_BUSY (KVC_IN_FLIGHT_MAX), KVC_CLOSED,
 * KVC_FORKED, KVC_INTERNAL. */
int kvc_submit(kvc_client *client, const kvc_op *op, uint64_t tag);

/* A descriptor that is readable when there is something for kvc_completions to do, or to give; wait for
 * it by poll, select or epoll (level-triggered). It is the client's until kvc_free: do not read or
 * close it. Also after kvc_close. Errors: KVC_INVALID_ARGUMENT, KVC_FORKED, KVC_INTERNAL. */
int kvc_poll_fd(kvc_client *client);

typedef struct kvc_completion {
    uint64_t tag;
    int status;         /* as the waiting call would have given */
    kvc_result *result; /* as it would have given; to be freed by kvc_result_free. May be NULL */
} kvc_completion;

/* Fills up to `max` completions in and gives how many: 0 if there are none for now. Does not wait.
 * Errors: KVC_INVALID_ARGUMENT (NULL, max 0), KVC_CLOSED (closed, and all were taken), KVC_FORKED,
 * KVC_INTERNAL. */
int kvc_completions(kvc_client *client, kvc_completion *completions, size_t max);

#ifdef __cplusplus
}
#endif

#endif
