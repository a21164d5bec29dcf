/* Puts and gets of values of 0 to 256 bytes: no error, and each get returns the value that was put.
 *
 *     values NODES COUNT FILE
 *
 * Runs at least COUNT puts and as many gets, and continues until FILE exists, so that the test can
 * be sure that what it does to the nodes happens during the run. Creates FILE.started after the
 * first quarter.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define THREADS 8
#define KEYS 100
#define VALUE_SIZE_MAX 256
#define TIME_MAX_S 100

static kvc_client *client;
static long count_min;
static const char *until;
static char started[4096];
static atomic_long puts_done, errors;
static time_t began;

typedef struct writer {
    pthread_t thread;
    unsigned number;
    uint64_t random;
    size_t sizes[KEYS];
    unsigned char values[KEYS][VALUE_SIZE_MAX];
} writer;

static uint64_t next_random(writer *self) {
    self->random = self->random * 6364136223846793005u + 1442695040888963407u;
    return self->random >> 33;
}

static size_t key_of(const writer *self, unsigned place, char key[32]) {
    return (size_t)snprintf(key, 32, "values/%u/%u", self->number, place);
}

static void failed(const char *what, const char *key, int status) {
    errors++;
    fprintf(stderr, "values: %s %s: %s\n", what, key, kvc_strerror(status));
}

static void put(writer *self, unsigned place) {
    char key[32];
    const size_t key_size = key_of(self, place, key), size = next_random(self) % (VALUE_SIZE_MAX + 1);
    for (size_t i = 0; i < size; i++) self->values[place][i] = (unsigned char)next_random(self);
    self->sizes[place] = size;
    const int status = kvc_put(client, key, key_size, self->values[place], size, NULL, NULL);
    if (status != KVC_OK) failed("put", key, status);
}

static void compare(writer *self, unsigned place) {
    char key[32];
    kvc_result *result;
    const int status = kvc_get(client, key, key_of(self, place, key), &result);
    if (status != KVC_OK) {
        failed("get", key, status);
        return;
    }
    size_t size;
    const void *value = kvc_result_value(result, &size);
    if (size != self->sizes[place] || memcmp(value, self->values[place], size) != 0) {
        errors++;
        fprintf(stderr, "values: %s holds another value than was put\n", key);
    }
    kvc_result_free(result);
}

static int is_over(void) {
    return errors > 0 || time(NULL) - began > TIME_MAX_S || (puts_done >= count_min && access(until, F_OK) == 0);
}

static void *run(void *argument) {
    writer *self = argument;
    for (unsigned i = 0; !is_over(); i++) {
        put(self, i % KEYS);
        compare(self, i % KEYS);
        if (i >= KEYS) compare(self, (unsigned)next_random(self) % KEYS);
        if (++puts_done == count_min / 4) close(open(started, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    return NULL;
}

int main(int argc, char **argv) {
    static writer writers[THREADS];
    if (argc != 4 || (count_min = atol(argv[2])) < 4) {
        fprintf(stderr, "usage: values NODES COUNT FILE\n");
        return 2;
    }
    until = argv[3];
    snprintf(started, sizeof started, "%s.started", until);
    began = time(NULL);
    EXPECT_STATUS(kvc_open(argv[1], NULL, &client), KVC_OK);
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i].number = i;
        writers[i].random = i;
        EXPECT(pthread_create(&writers[i].thread, NULL, run, &writers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) EXPECT(pthread_join(writers[i].thread, NULL) == 0);
    kvc_free(client);
    printf("values: %ld puts, %ld errors or wrong values\n", (long)puts_done, (long)errors);
    return errors == 0 && puts_done >= count_min && access(until, F_OK) == 0 ? 0 : 1;
}
