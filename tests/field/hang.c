/* A hung disk. Preloaded into a node that keeps its data in DISK_BASE/NAME or below, this library
 * blocks each sync of a file there while the file DISK_BASE/NAME.hangs exists. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void wait_while_it_hangs(int fd) {
    const char *base = getenv("DISK_BASE");
    char link[64], path[PATH_MAX], flag[PATH_MAX + 16];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t base_length = base ? strlen(base) : 0;
    if (!base_length || length <= 0)
        return;
    path[length] = 0;
    if (strncmp(path, base, base_length) || path[base_length] != '/')
        return;
    size_t name_length = strcspn(path + base_length + 1, "/");
    snprintf(flag, sizeof flag, "%.*s.hangs", (int)(base_length + 1 + name_length), path);
    while (!access(flag, F_OK))
        usleep(10000);
}

int fsync(int fd) {
    wait_while_it_hangs(fd);
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    wait_while_it_hangs(fd);
    return REAL(fdatasync)(fd);
}
