/* Counts its own runs. Usage: kv739 HOST:PORT ... */
#include <lib739kv.h>

#include <stdio.h>
#include <stdlib.h>

static char key[] = "runs of kv739";

int main(int argc, char *argv[]) {
    char now[KV739_VALUE_SIZE_MAX + 1], before[KV739_VALUE_SIZE_MAX + 1];

    if (argc < 2) {
        fprintf(stderr, "usage: kv739 HOST:PORT ...\n");
        return 2;
    }
    /* argv ends with NULL, as the list must. */
    if (kv739_init(argv + 1) != 0) {
        fprintf(stderr, "kv739: bad list of servers\n");
        return 2;
    }
    switch (kv739_get(key, now)) {
    case 0:
        snprintf(now, sizeof now, "%ld", strtol(now, NULL, 10) + 1);
        break;
    case 1:
        snprintf(now, sizeof now, "1");
        break;
    default:
        fprintf(stderr, "kv739: no answer\n");
        return 1;
    }
    switch (kv739_put(key, now, before)) {
    case 0:
        printf("run %s, after run %s\n", now, before);
        break;
    case 1:
        printf("run %s\n", now);
        break;
    default:
        fprintf(stderr, "kv739: the run may not be counted\n");
        return 1;
    }
    kv739_shutdown();
    return 0;
}
