/* Every misuse by an application ends in an error, and the library keeps its guarantees about
 * signals, descriptors, threads, close and fork.
 *
 *     misuse NODES
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* No process listens at this address. */
#define NOBODY "127.0.0.1:9"
#define NO_NAME "no-such-host.invalid:1"
#define LONG_MS 60000

static const char *nodes;
static const size_t bad_sizes[] = {KVC_VALUE_SIZE_MAX + 1, SIZE_MAX / 2, (size_t)-1};
#define BAD_SIZES (sizeof bad_sizes / sizeof *bad_sizes)

_Static_assert(sizeof(size_t) != 8 || (sizeof(kvc_options) == 24 && sizeof(kvc_write_options) == 32 &&
                                       sizeof(kvc_op) == 96 && sizeof(kvc_completion) == 24 &&
                                       sizeof(kvc_scan_options) == 72 && sizeof(kvc_scan_entry) == 40 &&
                                       sizeof(kvc_lock_options) == 24 && sizeof(kvc_txn_key) == 40 &&
                                       sizeof(kvc_watch_options) == 48 && sizeof(kvc_watch_event) == 56),
               "the sizes that were published");

static kvc_client *open_client(const char *list) {
    kvc_options options = KVC_OPTIONS_INIT;
    options.deadline_ms = LONG_MS;
    options.no_quorum_after_ms = LONG_MS;
    kvc_client *client = NULL;
    EXPECT_STATUS(kvc_open(list, &options, &client), KVC_OK);
    EXPECT(client != NULL);
    return client;
}

/* Checks that every function that takes a client returns `expected`, and no result. */
static void expect_all(kvc_client *client, int expected) {
    kvc_result *stale = (kvc_result *)&checks, *out = stale;
    EXPECT_STATUS(kvc_get(client, "k", 1, &out), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_put(client, "k", 1, "v", 1, NULL, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_delete(client, "k", 1, NULL, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_cas(client, "k", 1, "v", 1, "w", 1, NULL, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_add(client, "k", 1, 1, NULL, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_append(client, "k", 1, "v", 1, NULL, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_expire(client, "k", 1, 5, NULL, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_persist(client, "k", 1, NULL, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_ttl(client, "k", 1, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_get_stale(client, "k", 1, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    kvc_op op = KVC_OP_INIT;
    op.kind = KVC_OP_GET;
    op.key = "k";
    op.key_size = 1;
    EXPECT_STATUS(kvc_submit(client, &op, 1), expected);
    kvc_completion completion;
    EXPECT_STATUS(kvc_completions(client, &completion, 1), expected);
    kvc_scan *scan = (kvc_scan *)&checks;
    EXPECT_STATUS(kvc_scan_open(client, NULL, &scan), expected);
    EXPECT(scan == NULL);
    kvc_watch *watch = (kvc_watch *)&checks;
    EXPECT_STATUS(kvc_watch_open(client, NULL, &watch), expected);
    EXPECT(watch == NULL);
    kvc_txn *txn = kvc_txn_new();
    EXPECT_STATUS(kvc_txn_get(txn, "k", 1), KVC_OK);
    EXPECT_STATUS(kvc_txn_run(client, txn, 0, (out = stale, &out)), expected);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_txn_submit(client, txn, 0, 1), expected);
    kvc_txn_free(txn);
}

static void no_client(void) {
    static uint64_t zeroes[64];
    kvc_client *not_one = (kvc_client *)zeroes;
    expect_all(NULL, KVC_INVALID_ARGUMENT);
    expect_all(not_one, KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_poll_fd(NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_poll_fd(not_one), KVC_INVALID_ARGUMENT);
    kvc_close(NULL);
    kvc_close(not_one);
    kvc_free(NULL);
    kvc_free(not_one);
}

static void bad_open(void) {
    static const char *const lists[] = {"", " , ", "host", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999",
                                        "127.0.0.1:1,\xff\xfe:1"};
    kvc_client *client = (kvc_client *)&checks;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        EXPECT_STATUS(kvc_open(lists[i], NULL, &client), KVC_INVALID_ARGUMENT);
        EXPECT(client == NULL);
    }
    EXPECT_STATUS(kvc_open(NULL, NULL, &client), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_open(NOBODY, NULL, NULL), KVC_INVALID_ARGUMENT);
    kvc_options options = KVC_OPTIONS_INIT;
    for (size_t i = 0; i < BAD_SIZES; i++) {
        options.size = bad_sizes[i];
        EXPECT_STATUS(kvc_open(NOBODY, &options, &client), KVC_INVALID_ARGUMENT);
    }
    options.size = 0;
    EXPECT_STATUS(kvc_open(NOBODY, &options, &client), KVC_INVALID_ARGUMENT);
    EXPECT(client == NULL);
}

static void bad_results(void) {
    static const uint64_t zeroes[32];
    const kvc_result *const none[] = {NULL, (const kvc_result *)zeroes};
    for (int i = 0; i < 2; i++) {
        size_t size = 7;
        const void *value = &size;
        EXPECT(kvc_result_value(none[i], &size) == NULL && size == 0);
        EXPECT(kvc_result_value(none[i], NULL) == NULL);
        EXPECT(kvc_result_version(none[i]) == 0 && kvc_result_number(none[i]) == 0);
        EXPECT(kvc_result_old(none[i], &value, &size) == KVC_OLD_NOT_ASKED && value == NULL && size == 0);
        EXPECT(kvc_result_old(none[i], NULL, NULL) == KVC_OLD_NOT_ASKED);
        kvc_result_free((kvc_result *)none[i]);
    }
}

/* The library checks sizes before it reads memory: the pointers point to a single byte. */
static void bad_sizes_of(kvc_client *client) {
    kvc_result *out;
    const char one = 'x';
    for (size_t i = 0; i < BAD_SIZES; i++) {
        const size_t bad = bad_sizes[i];
        EXPECT_STATUS(kvc_get(client, &one, bad, &out), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_put(client, &one, bad, "v", 1, NULL, &out), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_put(client, "k", 1, &one, bad, NULL, &out), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_delete(client, &one, bad, NULL, &out), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_add(client, &one, bad, 1, NULL, &out), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_append(client, "k", 1, &one, bad, NULL, &out), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_cas(client, "k", 1, &one, bad, &one, 1, NULL, &out), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_cas(client, "k", 1, &one, 1, &one, bad, NULL, &out), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_cas(client, "k", 1, &one, bad, &one, bad, NULL, &out), KVC_TOO_LARGE);
    }
    EXPECT_STATUS(kvc_get(client, &one, KVC_KEY_SIZE_MAX + 1, &out), KVC_TOO_LARGE);
    EXPECT_STATUS(kvc_get(client, &one, 0, &out), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_get(client, NULL, 0, &out), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_get(client, NULL, 1, &out), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_get(client, "k", 1, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_put(client, "k", 1, NULL, 1, NULL, &out), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_cas(client, "k", 1, NULL, 1, "v", 1, NULL, &out), KVC_INVALID_ARGUMENT);
}

static void bad_options(kvc_client *client) {
    struct {
        kvc_write_options known;
        uint64_t unknown;
    } newer = {KVC_WRITE_OPTIONS_INIT, 0};
    newer.known.size = sizeof newer;
    EXPECT_STATUS(kvc_put(client, "misuse", 6, "v", 1, &newer.known, NULL), KVC_OK);
    newer.unknown = 1;
    EXPECT_STATUS(kvc_put(client, "misuse", 6, "v", 1, &newer.known, NULL), KVC_INVALID_ARGUMENT);
    newer.known.size = sizeof newer.known.size;
    EXPECT_STATUS(kvc_put(client, "misuse", 6, "v", 1, &newer.known, NULL), KVC_OK);
    for (size_t i = 0; i < BAD_SIZES; i++) {
        newer.known.size = bad_sizes[i];
        EXPECT_STATUS(kvc_put(client, "misuse", 6, "v", 1, &newer.known, NULL), KVC_INVALID_ARGUMENT);
    }
    newer.known.size = 0;
    EXPECT_STATUS(kvc_put(client, "misuse", 6, "v", 1, &newer.known, NULL), KVC_INVALID_ARGUMENT);
    newer.known.size = sizeof newer.known;
    newer.known.flags = 1u << 31;
    EXPECT_STATUS(kvc_delete(client, "misuse", 6, &newer.known, NULL), KVC_INVALID_ARGUMENT);
    newer.known.flags = KVC_IF_ABSENT;
    EXPECT_STATUS(kvc_delete(client, "misuse", 6, &newer.known, NULL), KVC_INVALID_ARGUMENT);

    kvc_op op = KVC_OP_INIT;
    EXPECT_STATUS(kvc_submit(client, NULL, 1), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_submit(client, &op, 1), KVC_INVALID_ARGUMENT);
    op.kind = KVC_OP_GET;
    EXPECT_STATUS(kvc_submit(client, &op, 1), KVC_INVALID_ARGUMENT);
    op.key = "k";
    op.key_size = (size_t)-1;
    EXPECT_STATUS(kvc_submit(client, &op, 1), KVC_TOO_LARGE);
    op.key_size = 1;
    op.reserved = 1;
    EXPECT_STATUS(kvc_submit(client, &op, 1), KVC_INVALID_ARGUMENT);
    op.reserved = 0;
    op.size = 0;
    EXPECT_STATUS(kvc_submit(client, &op, 1), KVC_INVALID_ARGUMENT);
    kvc_completion completion;
    EXPECT_STATUS(kvc_completions(client, NULL, 1), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_completions(client, &completion, 0), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_completions(client, &completion, (size_t)-1), 0);
}

/* Sizes exactly at their bounds are accepted. For values that is the limit of nodes that were given
 * no other one. */
static void bounds(kvc_client *client) {
    static char key[KVC_KEY_SIZE_MAX], value[1 << 20], larger[sizeof value + 1];
    memset(key, 'k', sizeof key);
    memset(value, 'v', sizeof value);
    kvc_result *out;
    size_t size;
    EXPECT_STATUS(kvc_put(client, key, sizeof key, value, sizeof value, NULL, NULL), KVC_OK);
    EXPECT_STATUS(kvc_get(client, key, sizeof key, &out), KVC_OK);
    const char *read = kvc_result_value(out, &size);
    EXPECT(size == sizeof value && memcmp(read, value, size) == 0 && read[size] == 0);
    kvc_result_free(out);
    EXPECT_STATUS(kvc_append(client, key, sizeof key, "x", 1, NULL, &out), KVC_TOO_LARGE);
    EXPECT_STATUS(kvc_put(client, key, sizeof key, larger, sizeof larger, NULL, NULL), KVC_TOO_LARGE);
    EXPECT_STATUS(kvc_add(client, key, sizeof key, 1, NULL, &out), KVC_NOT_A_NUMBER);
    EXPECT_STATUS(kvc_put(client, key, sizeof key, NULL, 0, NULL, NULL), KVC_OK);
    EXPECT_STATUS(kvc_get(client, key, sizeof key, &out), KVC_OK);
    read = kvc_result_value(out, &size);
    EXPECT(read != NULL && size == 0 && *read == 0);
    kvc_result_free(out);
    EXPECT_STATUS(kvc_put(client, key, sizeof key, "9223372036854775807", 19, NULL, NULL), KVC_OK);
    EXPECT_STATUS(kvc_add(client, key, sizeof key, 1, NULL, &out), KVC_OVERFLOW);
    EXPECT_STATUS(kvc_add(client, key, sizeof key, -1, NULL, &out), KVC_OK);
    EXPECT(kvc_result_number(out) == INT64_MAX - 1);
    kvc_result_free(out);
}

static void conditions(kvc_client *client) {
    kvc_write_options options = KVC_WRITE_OPTIONS_INIT;
    kvc_result *out;
    const void *old;
    size_t size;
    EXPECT_STATUS(kvc_delete(client, "misuse", 6, NULL, NULL), KVC_OK);
    EXPECT_STATUS(kvc_delete(client, "misuse", 6, NULL, &out), KVC_OK);
    EXPECT(kvc_result_version(out) == 0 && kvc_result_old(out, &old, &size) == KVC_OLD_ABSENT);
    kvc_result_free(out);
    EXPECT_STATUS(kvc_get(client, "misuse", 6, &out), KVC_NOT_FOUND);
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_cas(client, "misuse", 6, "", 0, "w", 1, NULL, &out), KVC_CONFLICT);
    EXPECT(kvc_result_version(out) == 0);
    kvc_result_free(out);
    options.flags = KVC_IF_VERSION | KVC_WANT_OLD; /* version 0: if absent */
    EXPECT_STATUS(kvc_put(client, "misuse", 6, "one", 3, &options, &out), KVC_OK);
    EXPECT(kvc_result_old(out, &old, &size) == KVC_OLD_ABSENT && old == NULL && size == 0);
    const uint64_t version = kvc_result_version(out);
    kvc_result_free(out);
    EXPECT_STATUS(kvc_put(client, "misuse", 6, "two", 3, &options, &out), KVC_CONFLICT);
    EXPECT(version > 0 && kvc_result_version(out) == version && kvc_result_value(out, NULL) == NULL);
    EXPECT(kvc_result_old(out, &old, &size) == KVC_OLD_VALUE && size == 3 && memcmp(old, "one", 4) == 0);
    kvc_result_free(out);
    options.version = version;
    EXPECT_STATUS(kvc_put(client, "misuse", 6, "two", 3, &options, &out), KVC_OK);
    EXPECT(kvc_result_old(out, &old, &size) == KVC_OLD_VALUE && size == 3 && memcmp(old, "one", 4) == 0);
    EXPECT(kvc_result_version(out) > version);
    kvc_result_free(out);
    EXPECT_STATUS(kvc_cas(client, "misuse", 6, "two", 3, "three", 5, NULL, &out), KVC_OK);
    EXPECT(kvc_result_old(out, &old, &size) == KVC_OLD_NOT_ASKED && old == NULL);
    kvc_result_free(out);
}

static void times_to_live(kvc_client *client) {
    kvc_write_options options = KVC_WRITE_OPTIONS_INIT;
    kvc_result *out;
    EXPECT_STATUS(kvc_delete(client, "ttl", 3, NULL, NULL), KVC_OK);
    EXPECT_STATUS(kvc_ttl(client, "ttl", 3, &out), KVC_NOT_FOUND);
    EXPECT(out == NULL && kvc_result_ttl_ms(out) == -1);
    EXPECT_STATUS(kvc_ttl(client, "ttl", 3, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_expire(client, "ttl", 3, 5, NULL, NULL), KVC_CONFLICT);
    EXPECT_STATUS(kvc_expire(client, "ttl", 3, 0, NULL, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_expire(client, "ttl", 3, UINT64_MAX, NULL, NULL), KVC_INVALID_ARGUMENT);
    options.ttl_ms = 3600000;
    EXPECT_STATUS(kvc_expire(client, "ttl", 3, 5, &options, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_append(client, "ttl", 3, "v", 1, &options, NULL), KVC_INVALID_ARGUMENT);
    options.flags = KVC_IF_ABSENT;
    EXPECT_STATUS(kvc_put(client, "ttl", 3, "v", 1, &options, &out), KVC_OK);
    EXPECT(kvc_result_ttl_ms(out) == -1);
    const uint64_t version = kvc_result_version(out);
    kvc_result_free(out);
    EXPECT_STATUS(kvc_ttl(client, "ttl", 3, &out), KVC_OK);
    EXPECT(kvc_result_ttl_ms(out) > 3000000 && kvc_result_ttl_ms(out) <= 3600000);
    EXPECT(kvc_result_version(out) == version && kvc_result_value(out, NULL) == NULL);
    kvc_result_free(out);
    EXPECT_STATUS(kvc_get_stale(client, "ttl", 3, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_get_stale(client, "never", 5, &out), KVC_NOT_FOUND);
    EXPECT(kvc_result_version(out) == 0 && kvc_result_value(out, NULL) == NULL);
    EXPECT(kvc_result_apart_ms(out) == 0);
    kvc_result_free(out);
    kvc_write_options held = KVC_WRITE_OPTIONS_INIT;
    held.flags = KVC_IF_VERSION;
    held.version = version;
    EXPECT_STATUS(kvc_persist(client, "ttl", 3, &held, &out), KVC_OK);
    EXPECT(kvc_result_version(out) == version);
    kvc_result_free(out);
    EXPECT_STATUS(kvc_ttl(client, "ttl", 3, &out), KVC_OK);
    EXPECT(kvc_result_ttl_ms(out) == -1);
    kvc_result_free(out);
    held.version = version + 1;
    EXPECT_STATUS(kvc_delete(client, "ttl", 3, &held, NULL), KVC_CONFLICT);
    held.version = 0; /* only if the key is absent */
    EXPECT_STATUS(kvc_delete(client, "ttl", 3, &held, NULL), KVC_CONFLICT);
    held.version = version;
    EXPECT_STATUS(kvc_delete(client, "ttl", 3, &held, NULL), KVC_OK);
    held.version = 0;
    EXPECT_STATUS(kvc_delete(client, "ttl", 3, &held, &out), KVC_OK);
    EXPECT(kvc_result_version(out) == 0);
    kvc_result_free(out);
}

static void locks(kvc_client *client) {
    kvc_lock_options options = KVC_LOCK_OPTIONS_INIT;
    kvc_lock *lock, *other;
    EXPECT(kvc_lock_token(NULL) == 0 && kvc_lock_left_ms(NULL) == 0);
    EXPECT_STATUS(kvc_lock_acquire(client, "lock", 4, NULL, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_lock_acquire(client, "", 0, NULL, &lock), KVC_INVALID_ARGUMENT);
    EXPECT(lock == NULL);
    EXPECT_STATUS(kvc_lock_renew(client, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_lock_release(client, NULL), KVC_INVALID_ARGUMENT);
    options.ttl_ms = UINT64_MAX;
    EXPECT_STATUS(kvc_lock_acquire(client, "lock", 4, &options, &lock), KVC_INVALID_ARGUMENT);
    options.ttl_ms = 60000;
    EXPECT_STATUS(kvc_lock_acquire(client, "lock", 4, &options, &lock), KVC_OK);
    const uint64_t token = kvc_lock_token(lock);
    EXPECT(token > 0 && kvc_lock_left_ms(lock) > 0 && kvc_lock_left_ms(lock) <= 60000);
    EXPECT_STATUS(kvc_lock_acquire(client, "lock", 4, &options, &other), KVC_CONFLICT);
    EXPECT(other == NULL);
    EXPECT_STATUS(kvc_lock_renew(client, lock), KVC_OK);
    EXPECT(kvc_lock_token(lock) == token);
    EXPECT_STATUS(kvc_lock_release(client, lock), KVC_OK);
    EXPECT_STATUS(kvc_lock_acquire(client, "lock", 4, NULL, &lock), KVC_OK);
    EXPECT(kvc_lock_token(lock) > token);
    EXPECT_STATUS(kvc_delete(client, "lock", 4, NULL, NULL), KVC_OK);
    EXPECT_STATUS(kvc_lock_renew(client, lock), KVC_CONFLICT);
    EXPECT(kvc_lock_left_ms(lock) == 0);
    EXPECT_STATUS(kvc_lock_release(client, lock), KVC_CONFLICT);
}

static void bad_transactions(kvc_client *client) {
    static uint64_t zeroes[64];
    kvc_txn *none[] = {NULL, (kvc_txn *)zeroes};
    kvc_result *out = NULL;
    for (int i = 0; i < 2; i++) {
        EXPECT_STATUS(kvc_txn_if_absent(none[i], "k", 1), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_if_present(none[i], "k", 1), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_if_version(none[i], "k", 1, 5), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_if_value(none[i], "k", 1, "v", 1), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_get(none[i], "k", 1), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_put(none[i], "k", 1, "v", 1, 0), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_delete(none[i], "k", 1), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_add(none[i], "k", 1, 1), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_append(none[i], "k", 1, "v", 1), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_run(client, none[i], 0, &out), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_txn_submit(client, none[i], 0, 1), KVC_INVALID_ARGUMENT);
        kvc_txn_free(none[i]);
    }
    kvc_txn *txn = kvc_txn_new();
    EXPECT(txn != NULL);
    EXPECT_STATUS(kvc_txn_run(client, txn, 0, &out), KVC_INVALID_ARGUMENT); /* names no key */
    EXPECT(out == NULL);
    EXPECT_STATUS(kvc_txn_get(txn, NULL, 0), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_txn_get(txn, NULL, 1), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_txn_get(txn, "k", KVC_KEY_SIZE_MAX + 1), KVC_TOO_LARGE);
    EXPECT_STATUS(kvc_txn_put(txn, "k", 1, "v", 1, UINT64_MAX), KVC_INVALID_ARGUMENT);
    for (size_t i = 0; i < BAD_SIZES; i++) {
        EXPECT_STATUS(kvc_txn_put(txn, "k", 1, "v", bad_sizes[i], 0), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_txn_append(txn, "k", 1, "v", bad_sizes[i]), KVC_TOO_LARGE);
        EXPECT_STATUS(kvc_txn_if_value(txn, "k", 1, "v", bad_sizes[i]), KVC_TOO_LARGE);
    }
    /* What was refused is not in it. */
    EXPECT_STATUS(kvc_txn_run(client, txn, 0, &out), KVC_INVALID_ARGUMENT);
    for (int i = 0; i < 17; i++) EXPECT_STATUS(kvc_txn_if_absent(txn, "k", 1), KVC_OK);
    EXPECT_STATUS(kvc_txn_run(client, txn, 0, &out), KVC_INVALID_ARGUMENT);
    kvc_txn_free(txn);
    txn = kvc_txn_new();
    EXPECT_STATUS(kvc_txn_add(txn, "k", 1, 1), KVC_OK);
    EXPECT_STATUS(kvc_txn_delete(txn, "k", 1), KVC_OK); /* the second write of the key */
    EXPECT_STATUS(kvc_txn_run(client, txn, 0, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_txn_submit(client, txn, 0, 1), KVC_INVALID_ARGUMENT);
    kvc_txn_free(txn);
    txn = kvc_txn_new();
    for (int i = 0; i < 129; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        EXPECT_STATUS(kvc_txn_get(txn, key, strlen(key)), KVC_OK);
    }
    EXPECT_STATUS(kvc_txn_run(client, txn, 0, NULL), KVC_INVALID_ARGUMENT);
    kvc_txn_free(txn);
}

static void transactions(kvc_client *client) {
    kvc_result *out = NULL;
    kvc_txn_key key;
    size_t index = 7, condition = 7;
    EXPECT(kvc_result_txn_count(NULL) == 0);
    EXPECT_STATUS(kvc_result_txn_key(NULL, 0, &key), KVC_INVALID_ARGUMENT);
    EXPECT(key.value == NULL && key.version == 0);
    EXPECT_STATUS(kvc_result_txn_conflict(NULL, &index, NULL), KVC_INVALID_ARGUMENT);
    EXPECT(index == 0);

    EXPECT_STATUS(kvc_delete(client, "txn/a", 5, NULL, NULL), KVC_OK);
    EXPECT_STATUS(kvc_put(client, "txn/b", 5, "b", 1, NULL, NULL), KVC_OK);
    kvc_txn *txn = kvc_txn_new();
    EXPECT_STATUS(kvc_txn_if_version(txn, "txn/a", 5, 0), KVC_OK);
    EXPECT_STATUS(kvc_txn_add(txn, "txn/a", 5, 41), KVC_OK);
    EXPECT_STATUS(kvc_txn_if_present(txn, "txn/b", 5), KVC_OK);
    EXPECT_STATUS(kvc_txn_if_value(txn, "txn/b", 5, "b", 1), KVC_OK);
    EXPECT_STATUS(kvc_txn_get(txn, "txn/b", 5), KVC_OK);
    EXPECT_STATUS(kvc_txn_put(txn, "txn/b", 5, "", 0, 3600000), KVC_OK);
    EXPECT_STATUS(kvc_txn_run(client, txn, 0, &out), KVC_OK);
    EXPECT(kvc_result_txn_count(out) == 2 && kvc_result_version(out) == 0);
    EXPECT_STATUS(kvc_result_txn_conflict(out, NULL, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_result_txn_key(out, 0, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_result_txn_key(out, 2, &key), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_result_txn_key(out, 0, &key), KVC_OK);
    EXPECT(key.number == 41 && key.found == 0 && key.version > 0 && key.value == NULL);
    EXPECT_STATUS(kvc_result_txn_key(out, 1, &key), KVC_OK);
    EXPECT(key.found > 0 && key.version > key.found && key.value_size == 1);
    EXPECT(strcmp(key.value, "b") == 0);
    const uint64_t version = key.version;
    kvc_result_free(out);
    EXPECT_STATUS(kvc_ttl(client, "txn/b", 5, &out), KVC_OK);
    EXPECT(kvc_result_ttl_ms(out) > 3000000 && kvc_result_version(out) == version);
    kvc_result_free(out);

    /* Submitted, the same again: its conditions do not hold any more, and nothing is done. */
    EXPECT_STATUS(kvc_txn_submit(client, txn, 0, 9), KVC_OK);
    kvc_txn_free(txn);
    struct pollfd ready = {.fd = kvc_poll_fd(client), .events = POLLIN};
    kvc_completion completion;
    while (kvc_completions(client, &completion, 1) == 0) poll(&ready, 1, -1);
    EXPECT(completion.tag == 9 && completion.status == KVC_CONFLICT);
    EXPECT_STATUS(kvc_result_txn_conflict(completion.result, &index, &condition), KVC_OK);
    EXPECT(index < 2 && condition == (index == 0 ? 0 : 1));
    EXPECT(kvc_result_version(completion.result) > 0 && kvc_result_txn_count(completion.result) == 0);
    kvc_result_free(completion.result);
    EXPECT_STATUS(kvc_get(client, "txn/a", 5, &out), KVC_OK);
    EXPECT(strcmp(kvc_result_value(out, NULL), "41") == 0);
    kvc_result_free(out);

    txn = kvc_txn_new();
    EXPECT_STATUS(kvc_txn_append(txn, "txn/b", 5, "x", 1), KVC_OK);
    EXPECT_STATUS(kvc_txn_delete(txn, "txn/a", 5), KVC_OK);
    EXPECT_STATUS(kvc_txn_if_absent(txn, "txn/c", 5), KVC_OK);
    EXPECT_STATUS(kvc_txn_run(client, txn, 0, NULL), KVC_OK);
    kvc_txn_free(txn);
    EXPECT_STATUS(kvc_get(client, "txn/a", 5, &out), KVC_NOT_FOUND);
    txn = kvc_txn_new();
    EXPECT_STATUS(kvc_txn_add(txn, "txn/b", 5, 1), KVC_OK);
    EXPECT_STATUS(kvc_txn_put(txn, "txn/a", 5, "v", 1, 0), KVC_OK);
    EXPECT_STATUS(kvc_txn_run(client, txn, 0, &out), KVC_NOT_A_NUMBER);
    EXPECT(out == NULL);
    kvc_txn_free(txn);
    EXPECT_STATUS(kvc_get(client, "txn/a", 5, &out), KVC_NOT_FOUND);
}

static void submit_get(kvc_client *client, uint64_t tag) {
    kvc_op op = KVC_OP_INIT;
    op.kind = KVC_OP_GET;
    op.key = "misuse";
    op.key_size = 6;
    EXPECT_STATUS(kvc_submit(client, &op, tag), KVC_OK);
}

/* Each operation completes once, also two operations with the same tag. */
static void completions_come_once(kvc_client *client) {
    submit_get(client, 5);
    submit_get(client, 5);
    for (int taken = 0; taken < 2;) {
        struct pollfd readable = {.fd = kvc_poll_fd(client), .events = POLLIN};
        EXPECT(poll(&readable, 1, LONG_MS) == 1);
        kvc_completion completion;
        const int count = kvc_completions(client, &completion, 1);
        EXPECT(count == 0 || count == 1);
        if (count == 0) continue;
        EXPECT_STATUS(completion.status, KVC_OK);
        EXPECT(completion.tag == 5 && completion.result != NULL);
        kvc_result_free(completion.result);
        taken++;
    }
    kvc_completion completion;
    EXPECT_STATUS(kvc_completions(client, &completion, 1), 0);
}

/* A thread in a call that ends only when its client is closed. */
typedef struct caller {
    pthread_t thread;
    kvc_client *client;
    _Atomic pid_t id;
    int status;
} caller;

static void scans(kvc_client *client) {
    static uint64_t zeroes[64];
    kvc_scan *none[] = {NULL, (kvc_scan *)zeroes}, *scan = NULL;
    kvc_scan_entry entry;
    for (int i = 0; i < 2; i++) {
        EXPECT_STATUS(kvc_scan_next(none[i], &entry), KVC_INVALID_ARGUMENT);
        EXPECT(entry.key == NULL && entry.value == NULL && entry.key_size == 0);
        kvc_scan_free(none[i]);
    }
    EXPECT_STATUS(kvc_scan_open(client, NULL, NULL), KVC_INVALID_ARGUMENT);
    kvc_scan_options options = KVC_SCAN_OPTIONS_INIT;
    options.flags = 2;
    EXPECT_STATUS(kvc_scan_open(client, &options, &scan), KVC_INVALID_ARGUMENT);
    options.flags = 0;
    options.prefix_size = KVC_KEY_SIZE_MAX + 1;
    EXPECT_STATUS(kvc_scan_open(client, &options, &scan), KVC_TOO_LARGE);
    options.prefix_size = 1;
    EXPECT_STATUS(kvc_scan_open(client, &options, &scan), KVC_INVALID_ARGUMENT);
    for (size_t i = 0; i < BAD_SIZES; i++) {
        options.size = bad_sizes[i];
        EXPECT_STATUS(kvc_scan_open(client, &options, &scan), KVC_INVALID_ARGUMENT);
    }
    EXPECT(scan == NULL);

    static const char *const keys[] = {"scan/a", "scan/b", "scan/c"};
    for (int i = 0; i < 3; i++)
        EXPECT_STATUS(kvc_put(client, keys[i], 6, keys[i] + 5, 1, NULL, NULL), KVC_OK);
    options = (kvc_scan_options)KVC_SCAN_OPTIONS_INIT;
    options.prefix = "scan/";
    options.prefix_size = 5;
    EXPECT_STATUS(kvc_scan_open(client, &options, &scan), KVC_OK);
    EXPECT_STATUS(kvc_scan_next(scan, NULL), KVC_INVALID_ARGUMENT);
    for (int i = 0; i < 3; i++) {
        EXPECT_STATUS(kvc_scan_next(scan, &entry), KVC_OK);
        EXPECT(entry.key_size == 6 && strcmp(entry.key, keys[i]) == 0 && entry.version > 0);
        EXPECT(entry.value_size == 1 && strcmp(entry.value, keys[i] + 5) == 0);
    }
    EXPECT_STATUS(kvc_scan_next(scan, &entry), KVC_NOT_FOUND);
    EXPECT_STATUS(kvc_scan_next(scan, &entry), KVC_NOT_FOUND);
    kvc_scan_free(scan);

    options.from = "scan/b";
    options.from_size = 6;
    options.limit = 1;
    options.flags = KVC_SCAN_KEYS_ONLY;
    EXPECT_STATUS(kvc_scan_open(client, &options, &scan), KVC_OK);
    EXPECT_STATUS(kvc_scan_next(scan, &entry), KVC_OK);
    EXPECT(strcmp(entry.key, "scan/b") == 0 && entry.value == NULL && entry.value_size == 0);
    EXPECT_STATUS(kvc_scan_next(scan, &entry), KVC_NOT_FOUND);
    kvc_scan_free(scan);

    /* A scan outlives the end of its client, but tells nothing more. */
    kvc_client *other = open_client(nodes);
    EXPECT_STATUS(kvc_scan_open(other, NULL, &scan), KVC_OK);
    kvc_close(other);
    EXPECT_STATUS(kvc_scan_next(scan, &entry), KVC_CLOSED);
    kvc_free(other);
    kvc_scan_free(scan);
}

/* The next change, without waiting in the call; KVC_NOT_FOUND if none was told in time. */
static int change_of(kvc_client *client, kvc_watch *watch, kvc_watch_event *event) {
    for (int turn = 0; turn < 100; turn++) {
        while (kvc_watch_poll(watch, event) == KVC_OK)
            if (event->kind == KVC_WATCH_PUT || event->kind == KVC_WATCH_DELETE) return KVC_OK;
        EXPECT_STATUS(kvc_watch_submit(watch, 77), KVC_OK);
        EXPECT_STATUS(kvc_watch_submit(watch, 78), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_watch_next(watch, event), KVC_INVALID_ARGUMENT);
        kvc_completion done;
        struct pollfd wait = {kvc_poll_fd(client), POLLIN, 0};
        while (kvc_completions(client, &done, 1) == 0) poll(&wait, 1, 1000);
        EXPECT(done.tag == 77);
        done.tag++;
        EXPECT_STATUS(kvc_watch_take(watch, &done), KVC_INVALID_ARGUMENT);
        done.tag--;
        EXPECT_STATUS(kvc_watch_take(watch, &done), KVC_OK);
        EXPECT_STATUS(kvc_watch_take(watch, &done), KVC_INVALID_ARGUMENT);
        kvc_result_free(done.result);
    }
    return KVC_NOT_FOUND;
}

static void watches(kvc_client *client) {
    static uint64_t zeroes[64];
    kvc_watch *none[] = {NULL, (kvc_watch *)zeroes}, *watch = NULL;
    kvc_watch_event event;
    kvc_completion completion = {0, KVC_OK, NULL};
    for (int i = 0; i < 2; i++) {
        EXPECT_STATUS(kvc_watch_next(none[i], &event), KVC_INVALID_ARGUMENT);
        EXPECT(event.key == NULL && event.value == NULL && event.kind == 0);
        EXPECT_STATUS(kvc_watch_submit(none[i], 1), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_watch_take(none[i], &completion), KVC_INVALID_ARGUMENT);
        EXPECT_STATUS(kvc_watch_poll(none[i], &event), KVC_INVALID_ARGUMENT);
        kvc_watch_free(none[i]);
    }
    EXPECT_STATUS(kvc_watch_open(client, NULL, NULL), KVC_INVALID_ARGUMENT);
    kvc_watch_options options = KVC_WATCH_OPTIONS_INIT;
    options.key_size = KVC_KEY_SIZE_MAX + 1;
    EXPECT_STATUS(kvc_watch_open(client, &options, &watch), KVC_TOO_LARGE);
    options.key_size = 1;
    EXPECT_STATUS(kvc_watch_open(client, &options, &watch), KVC_INVALID_ARGUMENT);
    options.key = "watch/a";
    options.key_size = 0;
    EXPECT_STATUS(kvc_watch_open(client, &options, &watch), KVC_INVALID_ARGUMENT);
    options.prefix = options.key;
    options.key_size = options.prefix_size = 7;
    EXPECT_STATUS(kvc_watch_open(client, &options, &watch), KVC_INVALID_ARGUMENT);
    for (size_t i = 0; i < BAD_SIZES; i++) {
        options.size = bad_sizes[i];
        EXPECT_STATUS(kvc_watch_open(client, &options, &watch), KVC_INVALID_ARGUMENT);
    }
    EXPECT(watch == NULL);

    /* The nodes may have served an earlier run. */
    EXPECT_STATUS(kvc_delete(client, "watch/b", 7, NULL, NULL), KVC_OK);
    EXPECT_STATUS(kvc_put(client, "watch/a", 7, "1", 1, NULL, NULL), KVC_OK);
    options = (kvc_watch_options)KVC_WATCH_OPTIONS_INIT;
    options.prefix = "watch/";
    options.prefix_size = 6;
    EXPECT_STATUS(kvc_watch_open(client, &options, &watch), KVC_OK);
    EXPECT_STATUS(kvc_watch_next(watch, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_watch_poll(watch, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_watch_poll(watch, &event), KVC_NOT_FOUND);
    EXPECT_STATUS(kvc_watch_take(watch, &completion), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_watch_take(watch, NULL), KVC_INVALID_ARGUMENT);
    EXPECT_STATUS(kvc_watch_next(watch, &event), KVC_OK);
    EXPECT(event.kind == KVC_WATCH_PUT && strcmp(event.key, "watch/a") == 0 && event.key_size == 7);
    EXPECT(event.value_size == 1 && strcmp(event.value, "1") == 0 && event.version > 0);
    const uint64_t first = event.version;
    EXPECT_STATUS(kvc_watch_next(watch, &event), KVC_OK);
    EXPECT(event.kind == KVC_WATCH_CURRENT && event.key == NULL);
    EXPECT_STATUS(kvc_put(client, "watch/b", 7, "", 0, NULL, NULL), KVC_OK);
    EXPECT_STATUS(change_of(client, watch, &event), KVC_OK);
    EXPECT(event.kind == KVC_WATCH_PUT && strcmp(event.key, "watch/b") == 0 && event.value_size == 0);
    EXPECT_STATUS(kvc_delete(client, "watch/a", 7, NULL, NULL), KVC_OK);
    EXPECT_STATUS(change_of(client, watch, &event), KVC_OK);
    EXPECT(event.kind == KVC_WATCH_DELETE && strcmp(event.key, "watch/a") == 0);
    EXPECT(event.value == NULL && event.version > first);

    /* Freed while a call is in progress; its completion still comes. */
    EXPECT_STATUS(kvc_watch_submit(watch, 79), KVC_OK);
    kvc_watch_free(watch);
    struct pollfd wait = {kvc_poll_fd(client), POLLIN, 0};
    while (kvc_completions(client, &completion, 1) == 0) poll(&wait, 1, 1000);
    EXPECT(completion.tag == 79);
    EXPECT(kvc_result_version(completion.result) == 0);
    kvc_result_free(completion.result);

    /* A watch outlives the end of its client, but tells nothing more. */
    kvc_client *other = open_client(nodes);
    EXPECT_STATUS(kvc_watch_open(other, NULL, &watch), KVC_OK);
    kvc_close(other);
    EXPECT_STATUS(kvc_watch_next(watch, &event), KVC_CLOSED);
    EXPECT_STATUS(kvc_watch_submit(watch, 1), KVC_CLOSED);
    kvc_free(other);
    kvc_watch_free(watch);
}

static void *call(void *argument) {
    caller *self = argument;
    self->id = (pid_t)syscall(SYS_gettid);
    self->status = kvc_put(self->client, "k", 1, "v", 1, NULL, NULL);
    return NULL;
}

static char state_of(pid_t thread) {
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    FILE *file = fopen(path, "r");
    if (file == NULL) return '?';
    const char *read = fgets(line, sizeof line, file);
    fclose(file);
    const char *name_end = read == NULL ? NULL : strrchr(line, ')');
    return name_end == NULL ? '?' : name_end[2];
}

/* Starts the thread and waits until it sleeps in its call. */
static void start(caller *self, kvc_client *client) {
    self->client = client;
    self->id = 0;
    EXPECT(pthread_create(&self->thread, NULL, call, self) == 0);
    for (int tries = 0; self->id == 0 || state_of(self->id) != 'S'; tries++) {
        EXPECT(tries < LONG_MS);
        usleep(1000);
    }
}

static void closing(void) {
    kvc_client *client = open_client(NOBODY);
    caller callers[3];
    for (int i = 0; i < 3; i++) start(&callers[i], client);
    submit_get(client, 7);
    submit_get(client, 8);
    kvc_close(client);
    for (int i = 0; i < 3; i++) {
        EXPECT(pthread_join(callers[i].thread, NULL) == 0);
        EXPECT_STATUS(callers[i].status, KVC_CLOSED);
    }
    kvc_close(client);
    struct pollfd readable = {.fd = kvc_poll_fd(client), .events = POLLIN};
    EXPECT(readable.fd >= 0 && poll(&readable, 1, LONG_MS) == 1);
    kvc_completion completions[4];
    EXPECT_STATUS(kvc_completions(client, completions, 1), 1);
    EXPECT_STATUS(completions[0].status, KVC_CLOSED);
    EXPECT_STATUS(kvc_completions(client, completions, 4), 1);
    EXPECT(completions[0].tag == 8 && completions[0].result == NULL);
    expect_all(client, KVC_CLOSED);
    kvc_free(client);

    client = open_client(NOBODY);
    submit_get(client, 9);
    kvc_free(client); /* with an operation in flight */
}

static void in_child(kvc_client *client) {
    alarm(20); /* a lock that no thread holds any more would hang */
    expect_all(client, KVC_FORKED);
    EXPECT_STATUS(kvc_poll_fd(client), KVC_FORKED);
    kvc_close(client);
    kvc_free(client);
    expect_all(client, KVC_FORKED);
    kvc_client *own = open_client(nodes);
    kvc_result *out;
    EXPECT_STATUS(kvc_get(own, "misuse", 6, &out), KVC_OK);
    kvc_result_free(out);
    kvc_free(own);
    kvc_options options = KVC_OPTIONS_INIT;
    options.deadline_ms = 1000;
    EXPECT_STATUS(kvc_open(NO_NAME, &options, &own), KVC_NOT_RESOLVED);
}

/* Forks while one thread of the parent is in a call, and another looks up a name. */
static void forking(kvc_client *client) {
    kvc_client *stuck = open_client(NOBODY), *looking = open_client(NOBODY "," NO_NAME);
    caller waiting;
    start(&waiting, stuck);
    kvc_client *const all[] = {client, stuck, looking};
    for (int i = 0; i < 3; i++) {
        fflush(NULL);
        const pid_t child = fork();
        EXPECT(child >= 0);
        if (child == 0) {
            in_child(all[i]);
            _exit(0);
        }
        int status;
        EXPECT(waitpid(child, &status, 0) == child);
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    kvc_close(stuck);
    EXPECT(pthread_join(waiting.thread, NULL) == 0);
    kvc_free(stuck);
    kvc_free(looking);
    kvc_result *out;
    EXPECT_STATUS(kvc_get(client, "misuse", 6, &out), KVC_OK);
    kvc_result_free(out);
}

/* A child in its own process-id namespace has the id there that its parent has outside. */
static void forking_with_the_same_id(void) {
    fflush(NULL);
    const pid_t outer = fork();
    EXPECT(outer >= 0);
    if (outer == 0) {
        if (unshare(CLONE_NEWPID) != 0) _exit(0); /* not permitted on this machine */
        const pid_t first = fork();
        if (first == 0) {
            alarm(20);
            kvc_client *client = open_client(nodes);
            EXPECT(getpid() == 1 && unshare(CLONE_NEWPID) == 0);
            const pid_t second = fork();
            if (second == 0) {
                EXPECT(getpid() == 1);
                in_child(client);
                _exit(0);
            }
            int status;
            EXPECT(waitpid(second, &status, 0) == second);
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
        }
        int status;
        EXPECT(waitpid(first, &status, 0) == first);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    int status;
    EXPECT(waitpid(outer, &status, 0) == outer);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A thread is cancelled in a call: the call ends first. */
static void *call_and_be_cancelled(void *argument) {
    call(argument);
    pthread_testcancel();
    return NULL;
}

static void cancelling(kvc_client *client) {
    kvc_client *stuck = open_client(NOBODY);
    caller waiting = {.client = stuck};
    EXPECT(pthread_create(&waiting.thread, NULL, call_and_be_cancelled, &waiting) == 0);
    for (int tries = 0; waiting.id == 0 || state_of(waiting.id) != 'S'; tries++) {
        EXPECT(tries < LONG_MS);
        usleep(1000);
    }
    EXPECT(pthread_cancel(waiting.thread) == 0);
    kvc_result *out;
    EXPECT_STATUS(kvc_get(client, "misuse", 6, &out), KVC_OK);
    kvc_result_free(out);
    kvc_close(stuck);
    void *ended;
    EXPECT(pthread_join(waiting.thread, &ended) == 0 && ended == PTHREAD_CANCELED);
    EXPECT_STATUS(waiting.status, KVC_CLOSED);
    kvc_free(stuck);
}

enum { NOTHING, FILES, SOCKETS, KINDS };
#define TAKEN_MAX 16

static void close_from_3(int keep_sockets) {
    for (int fd = 3; fd < 1024; fd++) {
        struct stat file;
        if (!keep_sockets || (fstat(fd, &file) == 0 && !S_ISSOCK(file.st_mode))) close(fd);
    }
}

/* Acts as a daemon does when it starts: closes all descriptors, and other files soon reuse their
 * numbers. */
static void close_descriptors(int kind) {
    alarm(20); /* a call that waits until its deadline takes longer */
    kvc_client *client = open_client(nodes), *stuck = open_client(NOBODY);
    kvc_client *submitting = open_client(nodes), *polling = open_client(nodes);
    caller waiting;
    start(&waiting, stuck);
    close_from_3(0);
    int taken[TAKEN_MAX];
    for (int i = 0; i < TAKEN_MAX && kind != NOTHING; i++) {
        taken[i] = kind == FILES ? open("/tmp", O_TMPFILE | O_RDWR, 0600) : socket(AF_INET, SOCK_DGRAM, 0);
        EXPECT(taken[i] >= 3);
    }
    /* Whichever call comes first detects it. */
    kvc_op op = KVC_OP_INIT;
    op.kind = KVC_OP_GET;
    op.key = "k";
    op.key_size = 1;
    EXPECT_STATUS(kvc_submit(submitting, &op, 1), KVC_CLOSED);
    EXPECT_STATUS(kvc_poll_fd(polling), KVC_CLOSED);
    kvc_close(polling);
    kvc_free(submitting);
    kvc_free(polling);
    expect_all(client, KVC_CLOSED);
    EXPECT_STATUS(kvc_poll_fd(client), KVC_CLOSED);
    EXPECT(pthread_join(waiting.thread, NULL) == 0);
    EXPECT_STATUS(waiting.status, KVC_CLOSED);
    kvc_free(client);
    kvc_free(stuck);
    for (int i = 0; i < TAKEN_MAX && kind != NOTHING; i++) {
        struct stat file;
        EXPECT(fstat(taken[i], &file) == 0 && file.st_size == 0);
    }
    kvc_client *own = open_client(nodes);
    EXPECT_STATUS(kvc_put(own, "misuse", 6, "v", 1, NULL, NULL), KVC_OK);
    kvc_free(own);
}

/* The program's files have the numbers, and the program is at its limit of descriptors when it
 * frees the client. */
static void free_at_the_limit(int unused) {
    (void)unused;
    kvc_client *client = open_client(nodes);
    close_from_3(0);
    struct rlimit limit;
    EXPECT(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = 3 + TAKEN_MAX;
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int taken[TAKEN_MAX];
    for (int i = 0; i < TAKEN_MAX; i++) EXPECT((taken[i] = open("/tmp", O_TMPFILE | O_RDWR, 0600)) >= 3);
    EXPECT(open("/tmp", O_TMPFILE | O_RDWR, 0600) == -1 && errno == EMFILE);
    kvc_free(client);
    struct stat file;
    for (int i = 0; i < TAKEN_MAX; i++) EXPECT(fstat(taken[i], &file) == 0);
}

/* The socket is unchanged; the other numbers belong to files of the same kinds. */
static void free_beside_the_same_kinds(int unused) {
    (void)unused;
    kvc_client *client = open_client(nodes);
    close_from_3(1);
    int taken[TAKEN_MAX];
    for (int i = 0; i < TAKEN_MAX; i++) EXPECT((taken[i] = eventfd(1 + i, EFD_NONBLOCK)) >= 3);
    kvc_free(client);
    eventfd_t value;
    for (int i = 0; i < TAKEN_MAX; i++)
        EXPECT(eventfd_read(taken[i], &value) == 0 && value == (eventfd_t)(1 + i));
}

static void in_a_child_of_its_own(void (*test)(int), int kind) {
    fflush(NULL);
    const pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        test(kind);
        _exit(0);
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void closed_descriptors(void) {
    for (int kind = NOTHING; kind < KINDS; kind++) in_a_child_of_its_own(close_descriptors, kind);
    in_a_child_of_its_own(free_at_the_limit, 0);
    in_a_child_of_its_own(free_beside_the_same_kinds, 0);
}

static int entries_of(const char *path) {
    DIR *directory = opendir(path);
    EXPECT(directory != NULL);
    int count = 0;
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count;
}

static volatile sig_atomic_t signals;

static void count_signal(int number) {
    (void)number;
    signals++;
}

/* Signals every millisecond, without SA_RESTART. */
static void interrupted(kvc_client *client) {
    struct sigaction action = {.sa_handler = count_signal}, before;
    EXPECT(sigaction(SIGALRM, &action, &before) == 0);
    struct itimerval timer = {{0, 1000}, {0, 1000}};
    EXPECT(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    for (int i = 0; i < 50 || signals < 50; i++)
        EXPECT_STATUS(kvc_put(client, "misuse", 6, "v", 1, NULL, NULL), KVC_OK);
    memset(&timer, 0, sizeof timer);
    EXPECT(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    EXPECT(sigaction(SIGALRM, &before, NULL) == 0);
}

static void handlers(struct sigaction into[NSIG]) {
    for (int number = 1; number < NSIG; number++) {
        memset(&into[number], 0, sizeof into[number]);
        sigaction(number, NULL, &into[number]);
    }
}

static struct sigaction handlers_before[NSIG], handlers_after[NSIG];
#define DESCRIPTORS_MAX 256

static int is_open(int descriptor) { return fcntl(descriptor, F_GETFD) != -1; }

/* Side effects that a library must not have. */
static void side_effects(void) {
    handlers(handlers_before);
    int open_before[DESCRIPTORS_MAX];
    for (int fd = 0; fd < DESCRIPTORS_MAX; fd++) open_before[fd] = is_open(fd);
    const int threads = entries_of("/proc/self/task"), descriptors = entries_of("/proc/self/fd");
    kvc_client *client = open_client(nodes);
    EXPECT_STATUS(kvc_put(client, "misuse", 6, "v", 1, NULL, NULL), KVC_OK);
    handlers(handlers_after);
    for (int number = 1; number < NSIG; number++)
        EXPECT(handlers_before[number].sa_handler == handlers_after[number].sa_handler);
    EXPECT(entries_of("/proc/self/task") == threads);
    EXPECT(entries_of("/proc/self/fd") > descriptors);
    for (int fd = 0; fd < DESCRIPTORS_MAX; fd++) {
        if (open_before[fd] || !is_open(fd)) continue;
        EXPECT((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    }
    interrupted(client);
    kvc_free(client);
    EXPECT(entries_of("/proc/self/fd") == descriptors);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: misuse NODES\n");
        return 2;
    }
    nodes = argv[1];
    EXPECT(kvc_abi_version() == KVC_ABI_VERSION && strlen(kvc_version()) > 0);
    side_effects();
    no_client();
    bad_open();
    bad_results();
    kvc_client *client = open_client(nodes);
    bad_sizes_of(client);
    bad_options(client);
    bounds(client);
    conditions(client);
    times_to_live(client);
    locks(client);
    bad_transactions(client);
    transactions(client);
    completions_come_once(client);
    scans(client);
    watches(client);
    closing();
    forking(client);
    forking_with_the_same_id();
    cancelling(client);
    closed_descriptors();
    kvc_free(client);
    printf("misuse: %d checks hold\n", checks);
    return 0;
}
