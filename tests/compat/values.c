/*
 * 10,000 puts, each followed by a get, from eight threads with separate keys: no call fails, and
 * every old value and every value is correct. The program prints "kill" and "restart" when a node
 * should be killed and restarted, and each time waits for a line while the threads continue. Until
 * that line comes the threads make only a limited number of calls, so a part of the calls is made
 * before the kill, a part while the node is down, and a part after the restart.
 *
 * usage: values HOST:PORT ...
 */
#include "check.h"

#include <pthread.h>

enum { THREADS = 8, TURNS = 10000, KEYS = 25, VALUE_SIZE_MAX = 256 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int begun, done, allowed = TURNS / 2;

/* Returns false if no turns are left. */
static int begin_turn(void) {
    int is_one;
    pthread_mutex_lock(&lock);
    while (begun == allowed && allowed < TURNS)
        pthread_cond_wait(&changed, &lock);
    is_one = begun < TURNS;
    begun += is_one;
    pthread_mutex_unlock(&lock);
    return is_one;
}

static void end_turn(void) {
    pthread_mutex_lock(&lock);
    done++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* After this many turns, asks the script for something; then allows more turns. */
static void ask(const char *what, int when, int then_allowed) {
    char line[16];
    pthread_mutex_lock(&lock);
    while (done < when)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    puts(what);
    fflush(stdout);
    CHECK(fgets(line, sizeof line, stdin) != NULL);
    pthread_mutex_lock(&lock);
    allowed = then_allowed;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Makes a different value for each version, of any bytes but 0. */
static void make_value(char *value, int thread, int key, unsigned version) {
    unsigned random = (unsigned)thread * 7919 + (unsigned)key * 104729 + version * 15485863;
    unsigned size = (random ^ random >> 7) % (VALUE_SIZE_MAX + 1);
    for (unsigned at = 0; at < size; at++) {
        random = random * 1664525 + 1013904223;
        value[at] = (char)(1 + (random >> 16) % 255);
    }
    value[size] = '\0';
}

static void *work(void *argument) {
    int thread = *(int *)argument;
    unsigned versions[KEYS] = {0};
    struct buffer *got = malloc(sizeof *got);

    CHECK(got != NULL);
    for (int turn = 0; begin_turn(); turn++) {
        int at = turn % KEYS, answer;
        unsigned *version = &versions[at];
        char key[32], value[VALUE_SIZE_MAX + 1], before[VALUE_SIZE_MAX + 1];

        snprintf(key, sizeof key, "values/%d/%d", thread, at);
        make_value(before, thread, at, *version);
        make_value(value, thread, at, *version + 1);
        fill(got);
        answer = kv739_put(key, value, got->value);
        CHECK(answer == (*version == 0));
        CHECK(*version == 0 ? is_untouched(got) : holds(got, before));
        ++*version;
        fill(got);
        CHECK(kv739_get(key, got->value) == 0);
        CHECK(holds(got, value));
        end_turn();
    }
    free(got);
    return NULL;
}

int main(int argc, char *argv[]) {
    pthread_t threads[THREADS];
    int numbers[THREADS];

    CHECK(argc > 1);
    CHECK(kv739_init(argv + 1) == 0);
    for (int at = 0; at < THREADS; at++) {
        numbers[at] = at;
        CHECK(pthread_create(&threads[at], NULL, work, &numbers[at]) == 0);
    }
    ask("kill", TURNS / 4, TURNS * 3 / 4);
    ask("restart", TURNS * 5 / 8, TURNS);
    for (int at = 0; at < THREADS; at++)
        CHECK(pthread_join(threads[at], NULL) == 0);
    CHECK(done == TURNS);
    kv739_shutdown();
    return 0;
}
