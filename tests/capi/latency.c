/* The median time of a waiting put, one at a time, in microseconds: the measurement of `horseshoe
 * bench --clients 1 --mix 0:1`, through C.
 *
 *     latency NODES SECONDS
 */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "check.h"

#define KEYS 10000
#define VALUE_SIZE 100
#define PUTS_MAX 10000000

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int compare(const void *left, const void *right) {
    const int64_t l = *(const int64_t *)left, r = *(const int64_t *)right;
    return (l > r) - (l < r);
}

int main(int argc, char **argv) {
    const int seconds = argc == 3 ? atoi(argv[2]) : 0;
    if (seconds < 1) {
        fprintf(stderr, "usage: latency NODES SECONDS\n");
        return 2;
    }
    kvc_client *client;
    EXPECT_STATUS(kvc_open(argv[1], NULL, &client), KVC_OK);
    char key[32], value[VALUE_SIZE];
    for (int i = 0; i < VALUE_SIZE; i++) value[i] = (char)rand();
    int64_t *took_ns = malloc(PUTS_MAX * sizeof *took_ns);
    EXPECT(took_ns != NULL);
    size_t count = 0;
    /* The first put opens the session. */
    EXPECT_STATUS(kvc_put(client, "bench/00000000", 14, value, sizeof value, NULL, NULL), KVC_OK);
    for (const int64_t end = now_ns() + seconds * 1000000000LL; count < PUTS_MAX;) {
        const size_t key_size = (size_t)snprintf(key, sizeof key, "bench/%08d", rand() % KEYS);
        const int64_t began = now_ns();
        EXPECT_STATUS(kvc_put(client, key, key_size, value, sizeof value, NULL, NULL), KVC_OK);
        const int64_t ended = now_ns();
        if (ended >= end) break;
        took_ns[count++] = ended - began;
    }
    EXPECT(count > 0);
    qsort(took_ns, count, sizeof *took_ns, compare);
    printf("%.1f\n", (double)took_ns[count / 2] / 1e3);
    free(took_ns);
    kvc_free(client);
    return 0;
}
