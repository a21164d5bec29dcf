/*
 * Bad arguments, values that the interface cannot return, servers that must not be used, calls
 * before init, after shutdown, during it, and in a child process: all these end in errors, and
 * nothing is written where it must not be. Buffers end where memory ends.
 *
 * usage: misuse HOST:PORT ...; there must be a key "large" with a value of 2,049 bytes, and a key
 * "nul" with a value that contains a NUL.
 */
#include "check.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

/* A call without an answer does not fail earlier than this. */
enum { SILENCE_MS = 1000 };

static char key[] = "misuse", value[] = "a value", other[] = "another";

/* This many bytes, with no memory behind them. */
static char *at_the_end(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page;
    char *room = mmap(NULL, (pages + 1) * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(room != MAP_FAILED);
    CHECK(mprotect(room + pages * page, page, PROT_NONE) == 0);
    return room + pages * page - size;
}

/* This many letters at the end of memory, with a NUL or without. */
static char *letters(size_t size, int with_nul) {
    char *start = at_the_end(size + (with_nul ? 1 : 0));
    memset(start, 'x', size);
    if (with_nul)
        start[size] = '\0';
    return start;
}

static void nothing_works(void) {
    struct buffer buffer;
    fill(&buffer);
    CHECK(kv739_get(key, buffer.value) == -1);
    CHECK(kv739_put(key, value, buffer.value) == -1);
    kv739_fail(value);
    kv739_recover(value);
    CHECK(is_untouched(&buffer));
}

static void everything_works(void) {
    struct buffer buffer;
    fill(&buffer);
    CHECK(kv739_put(key, value, NULL) >= 0);
    CHECK(kv739_put(key, other, buffer.value) == 0);
    CHECK(holds(&buffer, value));
    fill(&buffer);
    CHECK(kv739_get(key, buffer.value) == 0);
    CHECK(holds(&buffer, other));
}

static void bad_lists(char *good) {
    static char empty[] = "", no_port[] = "127.0.0.1", no_host[] = ":1", letters_port[] = "127.0.0.1:x",
                large_port[] = "127.0.0.1:65536", port_0[] = "127.0.0.1:0", two[] = "127.0.0.1:1,127.0.0.1:2",
                space[] = "127.0.0.1:1 ", no_text[] = "\xff\xfe:1";
    char *bad[] = {no_port, no_host, letters_port, large_port, port_0, two, space, no_text, letters(513, 0)};
    char *none[] = {NULL}, *none_either[] = {empty, good, NULL}, *many[66];

    CHECK(kv739_init(NULL) == -1);
    CHECK(kv739_init(none) == -1);
    CHECK(kv739_init(none_either) == -1);
    for (size_t at = 0; at < sizeof bad / sizeof *bad; at++) {
        char *alone[] = {bad[at], NULL}, *second[] = {good, bad[at], empty};
        CHECK(kv739_init(alone) == -1);
        CHECK(kv739_init(second) == -1);
    }
    for (size_t at = 0; at < 65; at++)
        many[at] = good;
    many[65] = NULL;
    CHECK(kv739_init(many) == -1);
}

static void bad_arguments(void) {
    struct buffer buffer;
    char *keys[] = {NULL, letters(0, 1), letters(129, 1), letters(129, 0), letters(5000, 1)};
    char *values[] = {NULL, letters(2049, 1), letters(2049, 0), letters(5000, 1)};

    fill(&buffer);
    for (size_t at = 0; at < sizeof keys / sizeof *keys; at++) {
        CHECK(kv739_get(keys[at], buffer.value) == -1);
        CHECK(kv739_put(keys[at], value, buffer.value) == -1);
    }
    for (size_t at = 0; at < sizeof values / sizeof *values; at++)
        CHECK(kv739_put(key, values[at], buffer.value) == -1);
    CHECK(kv739_get(key, NULL) == -1);
    CHECK(is_untouched(&buffer));
    kv739_fail(NULL);
    kv739_recover(NULL);
    kv739_fail(letters(5000, 0));
    everything_works();
}

static void the_longest(void) {
    static char empty[] = "";
    char *long_key = letters(128, 1), *long_value = letters(2048, 1), *buffer = at_the_end(2049);

    CHECK(kv739_put(long_key, long_value, NULL) >= 0);
    CHECK(kv739_get(long_key, buffer) == 0);
    CHECK(strcmp(buffer, long_value) == 0);
    /* The old value is returned in the value's own buffer. */
    strcpy(buffer, "short");
    CHECK(kv739_put(long_key, buffer, buffer) == 0);
    CHECK(strcmp(buffer, long_value) == 0);
    CHECK(kv739_put(long_key, empty, buffer) == 0);
    CHECK(strcmp(buffer, "short") == 0);
    CHECK(kv739_get(long_key, buffer) == 0);
    CHECK(strcmp(buffer, "") == 0);
}

static void values_of_others(void) {
    static char large[] = "large", nul[] = "nul", absent[] = "no such key";
    char *keys[] = {large, nul};
    struct buffer buffer;

    fill(&buffer);
    for (size_t at = 0; at < 2; at++) {
        CHECK(kv739_get(keys[at], buffer.value) == -1);
        CHECK(kv739_put(keys[at], value, buffer.value) == -1);
        CHECK(kv739_put(keys[at], value, NULL) == -1);
        CHECK(kv739_get(keys[at], buffer.value) == -1);
    }
    CHECK(kv739_get(absent, buffer.value) == 1);
    CHECK(is_untouched(&buffer));
}

static long now_ms(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void servers_spared(char *servers[]) {
    long began_ms;

    kv739_fail(servers[0]);
    everything_works();
    kv739_fail(value);
    for (char **server = servers; *server; server++)
        kv739_fail(*server);
    began_ms = now_ms();
    nothing_works();
    CHECK(now_ms() - began_ms < SILENCE_MS * 4 / 5);
    for (char **server = servers; *server; server++)
        kv739_recover(*server);
    everything_works();
}

/* Runs a function in a child process, which is killed if it hangs. */
static void in_a_child(void (*what)(char *servers[]), char *servers[]) {
    int status;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        alarm(20);
        what(servers);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void nothing_works_here(char *servers[]) {
    (void)servers;
    nothing_works();
}

static void begins_anew(char *servers[]) {
    nothing_works();
    CHECK(kv739_init(servers) == 0);
    everything_works();
    kv739_shutdown();
    nothing_works();
}

static atomic_int answered;

static void *until_it_fails(void *unused) {
    char buffer[KV739_VALUE_SIZE_MAX + 1];
    (void)unused;
    while (kv739_put(key, value, NULL) != -1 && kv739_get(key, buffer) != -1)
        atomic_fetch_add(&answered, 1);
    return NULL;
}

/* The server receives datagrams and does not answer. */
static void shutdown_ends_calls(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int server = socket(AF_INET, SOCK_DGRAM, 0);
    char name[32], datagram[2048], *servers[] = {name, NULL};
    pthread_t thread;
    long began_ms;

    CHECK(bind(server, (struct sockaddr *)&address, size) == 0);
    CHECK(getsockname(server, (struct sockaddr *)&address, &size) == 0);
    snprintf(name, sizeof name, "127.0.0.1:%d", ntohs(address.sin_port));
    CHECK(kv739_init(servers) == 0);
    CHECK(pthread_create(&thread, NULL, until_it_fails, NULL) == 0);
    /* The call is now in progress. */
    CHECK(recv(server, datagram, sizeof datagram, 0) > 0);
    began_ms = now_ms();
    kv739_shutdown();
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(now_ms() - began_ms < SILENCE_MS * 4 / 5);
    close(server);
}

static void start(pthread_t *threads, int count) {
    atomic_store(&answered, 0);
    for (int at = 0; at < count; at++)
        CHECK(pthread_create(&threads[at], NULL, until_it_fails, NULL) == 0);
    while (atomic_load(&answered) < 10)
        usleep(100);
}

/* Calls of other threads are in progress during a fork. */
static void child_processes(char *servers[]) {
    enum { THREADS = 4 };
    pthread_t threads[THREADS];

    in_a_child(begins_anew, servers);
    everything_works();
    start(threads, THREADS);
    for (int round = 0; round < 20; round++)
        in_a_child(nothing_works_here, servers);
    kv739_shutdown();
    for (int at = 0; at < THREADS; at++)
        CHECK(pthread_join(threads[at], NULL) == 0);
    in_a_child(begins_anew, servers);
}

/* Calls are in progress during a shutdown, and while another init replaces the earlier one. */
static void shutdown_under_way(char *servers[]) {
    enum { THREADS = 6 };
    pthread_t threads[THREADS];

    for (int round = 0; round < 20; round++) {
        CHECK(kv739_init(servers) == 0);
        start(threads, THREADS);
        if (round % 2 == 0)
            CHECK(kv739_init(servers) == 0);
        kv739_shutdown();
        for (int at = 0; at < THREADS; at++)
            CHECK(pthread_join(threads[at], NULL) == 0);
    }
    nothing_works();
    kv739_shutdown();
    nothing_works();
}

int main(int argc, char *argv[]) {
    static char nobody[] = "127.0.0.1:9";
    char **servers = argv + 1, *dead[] = {nobody, NULL};

    CHECK(argc > 1);
    kv739_shutdown();
    nothing_works();
    bad_lists(argv[1]);
    nothing_works();
    CHECK(kv739_init(servers) == 0);
    everything_works();
    bad_lists(argv[1]);
    everything_works();
    bad_arguments();
    the_longest();
    values_of_others();
    servers_spared(servers);
    child_processes(servers);
    CHECK(kv739_init(dead) == 0);
    nothing_works();
    shutdown_ends_calls();
    shutdown_under_way(servers);
    return 0;
}
