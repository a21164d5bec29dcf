/* One thread, its own epoll loop, a thousand operations in flight: it puts keys, and gets each key
 * after its put is done, until TOTAL puts and gets are done.
 *
 *     cc epoll.c $(pkg-config --cflags --libs kvclient) -o epoll
 *     ./epoll HOST:PORT,HOST:PORT,... [TOTAL]
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "kvclient.h"

#define IN_FLIGHT 1000
#define BATCH 256

typedef struct loop {
    kvc_client *client;
    uint64_t total;   /* operations to do */
    uint64_t started; /* tags count from 0; even: a put, the next odd one: its get */
    uint64_t done;
    int in_flight;
    int in_flight_max;
} loop;

static int submit(loop *self, uint64_t tag) {
    char key[32], value[32];
    kvc_op op = KVC_OP_INIT;
    op.kind = tag % 2 == 0 ? KVC_OP_PUT : KVC_OP_GET;
    op.key = key;
    op.key_size = (size_t)snprintf(key, sizeof key, "epoll/%llu", (unsigned long long)tag / 2);
    if (op.kind == KVC_OP_PUT) {
        op.value = value;
        op.value_size = (size_t)snprintf(value, sizeof value, "%llu", (unsigned long long)tag);
    }
    /* Both buffers may be reused: the library has copied their bytes. */
    const int status = kvc_submit(self->client, &op, tag);
    if (status == KVC_OK && ++self->in_flight > self->in_flight_max) self->in_flight_max = self->in_flight;
    return status;
}

static int completed(loop *self, const kvc_completion *completion) {
    self->in_flight--;
    self->done++;
    if (completion->status != KVC_OK) return completion->status;
    if (completion->tag % 2 == 0) return submit(self, completion->tag + 1);
    size_t size;
    char expected[32];
    const void *value = kvc_result_value(completion->result, &size);
    snprintf(expected, sizeof expected, "%llu", (unsigned long long)completion->tag - 1);
    return size == strlen(expected) && memcmp(value, expected, size) == 0 ? KVC_OK : KVC_INTERNAL;
}

/* Does all work that needs no waiting. */
static int work(loop *self) {
    while (self->in_flight < IN_FLIGHT && self->started < self->total) {
        const int status = submit(self, self->started);
        if (status != KVC_OK) return status;
        self->started += 2;
    }
    kvc_completion completions[BATCH];
    const int count = kvc_completions(self->client, completions, BATCH);
    int status = count < 0 ? count : KVC_OK;
    for (int i = 0; i < count; i++) {
        const int one = completed(self, &completions[i]);
        kvc_result_free(completions[i].result);
        if (one != KVC_OK) status = one;
    }
    return status;
}

static int run(loop *self) {
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    /* A real program adds its other descriptors here. */
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, kvc_poll_fd(self->client), &event) != 0) {
        perror("epoll");
        return 1;
    }
    int status = work(self);
    while (status == KVC_OK && self->done < self->total) {
        if (epoll_wait(epoll, &event, 1, -1) < 0 && errno != EINTR) {
            perror("epoll_wait");
            break;
        }
        status = work(self);
    }
    close(epoll);
    printf("%llu done, %d in flight at once, %s\n", (unsigned long long)self->done, self->in_flight_max,
           kvc_strerror(status));
    return status == KVC_OK && self->done == self->total && self->in_flight_max == IN_FLIGHT ? 0 : 1;
}

int main(int argc, char **argv) {
    loop self = {.total = argc > 2 ? strtoull(argv[2], NULL, 10) / 2 * 2 : 20000};
    if (argc < 2 || self.total < 2 * IN_FLIGHT) {
        fprintf(stderr, "usage: epoll HOST:PORT,HOST:PORT,... [TOTAL], from %d\n", 2 * IN_FLIGHT);
        return 2;
    }
    int status = kvc_open(argv[1], NULL, &self.client);
    if (status != KVC_OK) {
        fprintf(stderr, "epoll: open: %s\n", kvc_strerror(status));
        return 1;
    }
    status = run(&self);
    kvc_free(self.client);
    return status;
}
