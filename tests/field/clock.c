/* A machine whose clock is off: preloaded into a process, this library adds CLOCK_OFFSET_MS to the
 * wall clock. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    const char *offset = getenv("CLOCK_OFFSET_MS");
    if (result == 0 && clock == CLOCK_REALTIME && offset) {
        long long ms = time->tv_sec * 1000LL + time->tv_nsec / 1000000 + atoll(offset);
        time->tv_sec = ms / 1000;
        time->tv_nsec = ms % 1000 * 1000000;
    }
    return result;
}
