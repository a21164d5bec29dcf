/* A quota, which statvfs does not show. Preloaded into a node that keeps its data in
 * QUOTA_BASE/NAME or below, this library fails each write and allocation there with EDQUOT if the
 * total would exceed the number of bytes in the file QUOTA_BASE/NAME.quota. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static __thread long long used;

static int add(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)path, (void)walk;
    if (type == FTW_F)
        used += status->st_blocks * 512;
    return 0;
}

/* Whether a write up to that offset would exceed the quota. */
static int is_over(int fd, off_t end) {
    const char *base = getenv("QUOTA_BASE");
    char link[64], path[PATH_MAX], name[PATH_MAX + 16];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t base_length = base ? strlen(base) : 0;
    if (!base_length || length <= 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, base, base_length) || path[base_length] != '/')
        return 0;
    char *rest = path + base_length + 1;
    size_t name_length = strcspn(rest, "/");
    struct stat status;
    if (!rest[name_length] || fstat(fd, &status))
        return 0;
    /* Existing blocks may be overwritten. */
    long long more = end - status.st_blocks * 512, quota = 0;
    if (more <= 0)
        return 0;
    rest[name_length] = 0;
    snprintf(name, sizeof name, "%s.quota", path);
    FILE *file = fopen(name, "r");
    if (!file)
        return 0;
    int found = fscanf(file, "%lld", &quota);
    fclose(file);
    used = status.st_nlink ? 0 : status.st_blocks * 512;
    nftw(path, add, 16, FTW_PHYS);
    return found == 1 && used + more > quota;
}

static int refuses(int fd, off_t end) {
    if (!is_over(fd, end))
        return 0;
    errno = EDQUOT;
    return 1;
}

static off_t at(int fd) {
    struct stat status;
    if (fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &status))
        return status.st_size;
    off_t offset = lseek(fd, 0, SEEK_CUR);
    return offset < 0 ? 0 : offset;
}

ssize_t write(int fd, const void *bytes, size_t size) {
    return refuses(fd, at(fd) + size) ? -1 : REAL(write)(fd, bytes, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    off_t end = at(fd);
    for (int n = 0; n < count; n++)
        end += parts[n].iov_len;
    return refuses(fd, end) ? -1 : REAL(writev)(fd, parts, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) {
    return refuses(fd, offset + size) ? -1 : REAL(pwrite64)(fd, bytes, size, offset);
}

/* Allocates what fits, as a file system does, and then returns the error. */
static int allocate(int fd, off_t offset, off_t size) {
    off_t step = 1 << 20, end = offset + size;
    for (off_t next; offset < end; offset = next) {
        next = offset + step < end ? offset + step : end;
        if (is_over(fd, next))
            return EDQUOT;
        int error = REAL(posix_fallocate)(fd, offset, next - offset);
        if (error)
            return error;
    }
    return 0;
}

int posix_fallocate(int fd, off_t offset, off_t size) {
    return allocate(fd, offset, size);
}

int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    return allocate(fd, offset, size);
}

static int allocate_ahead(int fd, int mode, off_t offset, off_t size) {
    int error = mode ? EOPNOTSUPP : allocate(fd, offset, size);
    errno = error;
    return error ? -1 : 0;
}

int fallocate(int fd, int mode, off_t offset, off_t size) {
    return allocate_ahead(fd, mode, offset, size);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t size) {
    return allocate_ahead(fd, mode, offset, size);
}
