/* Many threads, one client, one key: each thread adds 1 TIMES times, and the sum is exact.
 *
 *     cc counter.c $(pkg-config --cflags --libs kvclient) -pthread -o counter
 *     ./counter HOST:PORT,HOST:PORT,... [THREADS [TIMES]]
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvclient.h"

#define THREADS_MAX 1000

static const char key[] = "counter/sum";

typedef struct adder {
    pthread_t thread;
    kvc_client *client;
    int times;
    int status;
    int64_t last;
} adder;

static void *add(void *argument) {
    adder *self = argument;
    for (int i = 0; i < self->times; i++) {
        kvc_result *result;
        self->status = kvc_add(self->client, key, strlen(key), 1, NULL, &result);
        if (self->status != KVC_OK) break;
        /* Only this program adds to the key, so each thread sees the sum rise. */
        if (kvc_result_number(result) <= self->last) self->status = KVC_INTERNAL;
        self->last = kvc_result_number(result);
        kvc_result_free(result);
        if (self->status != KVC_OK) break;
    }
    return NULL;
}

static int run(kvc_client *client, int threads, int times) {
    int status = kvc_delete(client, key, strlen(key), NULL, NULL);
    adder *adders = calloc((size_t)threads, sizeof(adder));
    if (adders == NULL) return 1;
    int started = 0;
    while (status == KVC_OK && started < threads) {
        adder *next = &adders[started];
        next->client = client;
        next->times = times;
        if (pthread_create(&next->thread, NULL, add, next) != 0) break;
        started++;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(adders[i].thread, NULL);
        if (adders[i].status != KVC_OK) status = adders[i].status;
    }
    free(adders);
    kvc_result *sum = NULL;
    if (status == KVC_OK) status = kvc_add(client, key, strlen(key), 0, NULL, &sum);
    const int64_t expected = (int64_t)started * times, found = kvc_result_number(sum);
    kvc_result_free(sum);
    printf("%d threads added 1 %d times each: %" PRId64 ", %s\n", started, times, found, kvc_strerror(status));
    return status == KVC_OK && started == threads && found == expected ? 0 : 1;
}

int main(int argc, char **argv) {
    const int threads = argc > 2 ? atoi(argv[2]) : 50, times = argc > 3 ? atoi(argv[3]) : 100;
    if (argc < 2 || threads < 1 || threads > THREADS_MAX || times < 1) {
        fprintf(stderr, "usage: counter HOST:PORT,HOST:PORT,... [THREADS [TIMES]]\n");
        return 2;
    }
    kvc_client *client;
    int status = kvc_open(argv[1], NULL, &client);
    if (status != KVC_OK) {
        fprintf(stderr, "counter: open: %s\n", kvc_strerror(status));
        return 1;
    }
    status = run(client, threads, times);
    kvc_free(client);
    return status;
}
