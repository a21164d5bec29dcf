/* Bad disks. Preloaded into a node that keeps its data in DISK_BASE/NAME or below. While the file
 * DISK_BASE/NAME.slow exists, each sync of a file there takes a second; while .readonly or .full
 * exists, writes and syncs there fail as on a disk that is read-only or full. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Whether the flag is there for the node that the file belongs to. */
static int has_flag(int fd, const char *flag) {
    const char *base = getenv("DISK_BASE");
    char link[64], path[PATH_MAX], name[PATH_MAX + 16];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t base_length = base ? strlen(base) : 0;
    if (!base_length || length <= 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, base, base_length) || path[base_length] != '/')
        return 0;
    size_t name_length = strcspn(path + base_length + 1, "/");
    /* A log beside the data is no data. */
    if (strncmp(path + base_length + 1, "data-", 5))
        return 0;
    snprintf(name, sizeof name, "%.*s.%s", (int)(base_length + 1 + name_length), path, flag);
    return !access(name, F_OK);
}

static int refuses(int fd) {
    if (has_flag(fd, "readonly"))
        errno = EROFS;
    else if (has_flag(fd, "full"))
        errno = ENOSPC;
    else
        return 0;
    return 1;
}

static int sync_slowly(int fd, int (*sync)(int)) {
    if (refuses(fd))
        return -1;
    if (has_flag(fd, "slow"))
        usleep(1000000);
    return sync(fd);
}

int fsync(int fd) { return sync_slowly(fd, REAL(fsync)); }

int fdatasync(int fd) { return sync_slowly(fd, REAL(fdatasync)); }

ssize_t write(int fd, const void *bytes, size_t count) {
    return refuses(fd) ? -1 : REAL(write)(fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    return refuses(fd) ? -1 : REAL(pwrite64)(fd, bytes, count, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return refuses(fd) ? -1 : REAL(writev)(fd, parts, count);
}

int fallocate64(int fd, int mode, off64_t at, off64_t length) {
    return refuses(fd) ? -1 : REAL(fallocate64)(fd, mode, at, length);
}

int posix_fallocate64(int fd, off64_t at, off64_t length) {
    return refuses(fd) ? errno : REAL(posix_fallocate64)(fd, at, length);
}
