/* A disk that loses what was not synced, for tests of power failures. Preloaded into a process that
 * keeps its data in DISK_FROM, this library updates the directory DISK_TO with each sync: its
 * content is what a power failure at that moment would leave. Contents are durable with the sync of
 * their file, names with that of their directory, or earlier.
 *
 * With DISK_LATE, renames and deletions are durable with the sync of their directory only. With
 * DISK_STOP=N the process ends before the Nth write, sync, rename or deletion in DISK_FROM.
 *
 * While the file DISK_FULL exists, writes find no space, or if it contains "sync",
 * syncs do not; a deletion of the file "reserve" frees enough, and deletes DISK_FULL.
 *
 * While the file DISK_FAILS exists, syncs of files fail, and as on Linux the data that was to be
 * written then counts as written: a later sync omits it, unless it was written again. The affected
 * range is recorded beside the file in DISK_TO, as NAME.lost, also for the next process. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Several threads sync at the same time: the one that commits, and the one that writes the mark. */
static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what) {
    fprintf(stderr, "disk.c: %s: %s\n", what, strerror(errno));
    abort();
}

/* The durable copy of a path below DISK_FROM; false for any other path. */
static int twin(const char *path, char *to) {
    const char *from = getenv("DISK_FROM"), *durable = getenv("DISK_TO");
    size_t length = from ? strlen(from) : 0;
    if (!length || !durable || strncmp(path, from, length) || (path[length] && path[length] != '/'))
        return 0;
    return snprintf(to, PATH_MAX, "%s%s", durable, path + length) < PATH_MAX;
}

static int twin_of(int fd, char *path, char *to) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return twin(path, to);
}

/* Ends the process before this step, if it is the one to end at. */
static void step(void) {
    static long steps;
    const char *stop = getenv("DISK_STOP");
    if (stop && ++steps == atol(stop))
        _exit(77);
}

struct renamed {
    char from[PATH_MAX], to[PATH_MAX];
};

/* Renames that are not durable yet, in order. */
static struct renamed late[16];
static int late_count;

static int is_late(void) {
    return getenv("DISK_LATE") != NULL;
}

static void make_durable(const struct renamed *renamed) {
    if (REAL(rename)(renamed->from, renamed->to))
        REAL(unlink)(renamed->to);
}

static int is_in(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return !strncmp(path, directory, length) && path[length] == '/' && !strchr(path + length + 1, '/');
}

/* Makes the renames in this directory, of the durable copy, durable. */
static void end_renames(const char *directory) {
    int left = 0;
    for (int n = 0; n < late_count; n++) {
        if (is_in(late[n].to, directory))
            make_durable(&late[n]);
        else
            late[left++] = late[n];
    }
    late_count = left;
}

/* FULL_AT_MARK: only the sync mark finds no space. */
enum fullness { ROOM, FULL, FULL_AT_SYNC, FULL_AT_MARK };

static enum fullness fullness(void) {
    const char *full = getenv("DISK_FULL");
    FILE *file = full ? fopen(full, "r") : NULL;
    if (!file)
        return ROOM;
    int when = fgetc(file);
    fclose(file);
    return when == 's' ? FULL_AT_SYNC : when == 'm' ? FULL_AT_MARK : FULL;
}

static void make_parents(char *path) {
    for (char *at = path + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        if (mkdir(path, 0700) && errno != EEXIST)
            die(path);
        *at = '/';
    }
}

struct range {
    off_t start, end;
};

static struct range lost(const char *to) {
    char name[PATH_MAX + 8];
    struct range range = {0, 0};
    snprintf(name, sizeof name, "%s.lost", to);
    FILE *file = fopen(name, "r");
    if (file) {
        long start = 0, end = 0;
        if (fscanf(file, "%ld %ld", &start, &end) == 2)
            range = (struct range){start, end};
        fclose(file);
    }
    return range;
}

static void set_lost(const char *to, struct range range) {
    char name[PATH_MAX + 8];
    snprintf(name, sizeof name, "%s.lost", to);
    if (range.start >= range.end) {
        REAL(unlink)(name);
        return;
    }
    FILE *file = fopen(name, "w");
    if (!file || fprintf(file, "%ld %ld", (long)range.start, (long)range.end) < 0 || fclose(file))
        die(name);
}

/* Copies the content of the file, without holes, except for the lost range. Returns the range that
 * differed before. */
static struct range copy(const char *path, const char *to, struct range without, int really) {
    static char bytes[1 << 16], held[1 << 16];
    struct range differed = {0, 0};
    int in = open(path, O_RDONLY), out = open(to, O_RDWR | (really ? O_CREAT : 0), 0600);
    struct stat status;
    if (in < 0 || fstat(in, &status) || (out < 0 && really))
        die(path);
    off_t at = 0;
    while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
        off_t hole = lseek(in, at, SEEK_HOLE);
        while (at < hole) {
            size_t size = hole - at < (off_t)sizeof bytes ? (size_t)(hole - at) : sizeof bytes;
            ssize_t count = pread(in, bytes, size, at);
            if (count <= 0)
                die(path);
            memset(held, 0, sizeof held);
            if (out >= 0 && pread(out, held, count, at) < 0)
                die(to);
            for (ssize_t n = 0; n < count; n++) {
                off_t here = at + n;
                if (here >= without.start && here < without.end)
                    bytes[n] = held[n];
                else if (bytes[n] != held[n]) {
                    if (differed.start == differed.end)
                        differed.start = here;
                    differed.end = here + 1;
                }
            }
            if (really && REAL(pwrite64)(out, bytes, count, at) != count)
                die(to);
            at += count;
        }
    }
    if (really && ftruncate(out, status.st_size))
        die(to);
    close(in);
    if (out >= 0)
        close(out);
    return differed;
}

static int is_lost(const char *name) {
    size_t length = strlen(name);
    return length > 5 && !strcmp(name + length - 5, ".lost");
}

/* Compares the names in two directories. Names that the other directory lacks are created there,
 * empty, or removed from the first. */
static void compare(const char *directory, const char *other, int make) {
    DIR *entries = opendir(directory);
    if (!entries)
        die(directory);
    for (struct dirent *entry; (entry = readdir(entries));) {
        char here[PATH_MAX + 256], there[PATH_MAX + 256];
        const char *name = entry->d_name;
        struct stat status, ignored;
        snprintf(here, sizeof here, "%s/%s", directory, name);
        snprintf(there, sizeof there, "%s/%s", other, name);
        if (is_lost(name) || stat(here, &status) || !stat(there, &ignored))
            continue;
        if (!make) {
            if (S_ISREG(status.st_mode))
                REAL(unlink)(here);
        } else if (S_ISDIR(status.st_mode)) {
            mkdir(there, 0700);
        } else {
            close(open(there, O_WRONLY | O_CREAT, 0600));
        }
    }
    closedir(entries);
}

static int sync_alone(int fd) {
    char path[PATH_MAX], to[PATH_MAX];
    struct stat status;
    if (!twin_of(fd, path, to) || fstat(fd, &status))
        return 0;
    step();
    make_parents(to);
    if (S_ISDIR(status.st_mode)) {
        if (mkdir(to, 0700) && errno != EEXIST)
            die(to);
        end_renames(to);
        compare(path, to, 1);
        compare(to, path, 0);
        return 0;
    }
    const char *fails = getenv("DISK_FAILS");
    int is_full = fullness() == FULL_AT_SYNC;
    if (is_full || (fails && !access(fails, F_OK))) {
        set_lost(to, copy(path, to, lost(to), 0));
        errno = is_full ? ENOSPC : EIO;
        return -1;
    }
    copy(path, to, lost(to), 1);
    return 0;
}

static int synced(int fd) {
    pthread_mutex_lock(&disk);
    int result = sync_alone(fd), error = errno;
    pthread_mutex_unlock(&disk);
    errno = error;
    return result;
}

int fsync(int fd) {
    return synced(fd);
}

int fdatasync(int fd) {
    return synced(fd);
}

int rename(const char *old, const char *new) {
    struct renamed renamed;
    pthread_mutex_lock(&disk);
    int is_ours = twin(old, renamed.from) && twin(new, renamed.to);
    if (is_ours)
        step();
    int result = REAL(rename)(old, new), error = errno;
    if (!result && is_ours) {
        if (!is_late())
            make_durable(&renamed);
        else if (late_count < (int)(sizeof late / sizeof late[0]))
            late[late_count++] = renamed;
        else
            die("too many renames");
    }
    pthread_mutex_unlock(&disk);
    errno = error;
    return result;
}

int unlink(const char *path) {
    char to[PATH_MAX];
    pthread_mutex_lock(&disk);
    if (twin(path, to)) {
        step();
        if (!is_late())
            REAL(unlink)(to);
    }
    int result = REAL(unlink)(path), error = errno;
    const char *full = getenv("DISK_FULL"), *name = strrchr(path, '/');
    if (!result && full && name && !strcmp(name, "/reserve"))
        REAL(unlink)(full);
    pthread_mutex_unlock(&disk);
    errno = error;
    return result;
}

/* A write is about to begin; false if there is no space for it. */
static int begin_write(int fd) {
    char path[PATH_MAX], to[PATH_MAX];
    if ((!getenv("DISK_STOP") && !getenv("DISK_FULL")) || !twin_of(fd, path, to))
        return 1;
    pthread_mutex_lock(&disk);
    step();
    enum fullness now = fullness();
    const char *name = strrchr(path, '/');
    int is_full = now == FULL || (now == FULL_AT_MARK && name && !strcmp(name, "/mark"));
    pthread_mutex_unlock(&disk);
    if (is_full)
        errno = ENOSPC;
    return !is_full;
}

/* Data that is written again is dirty again. */
static void written(int fd, off_t at, ssize_t count) {
    char path[PATH_MAX], to[PATH_MAX];
    if (count <= 0 || !twin_of(fd, path, to))
        return;
    pthread_mutex_lock(&disk);
    struct range range = lost(to);
    if (range.start < range.end && at <= range.start && at + count > range.start) {
        range.start = at + count;
        set_lost(to, range);
    }
    pthread_mutex_unlock(&disk);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    if (!begin_write(fd))
        return -1;
    ssize_t count = REAL(write)(fd, bytes, size);
    int error = errno;
    if (count > 0) {
        off_t end = lseek(fd, 0, SEEK_CUR);
        if (end >= 0)
            written(fd, end - count, count);
    }
    errno = error;
    return count;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
    if (!begin_write(fd))
        return -1;
    ssize_t count = REAL(pwrite64)(fd, bytes, size, at);
    written(fd, at, count);
    return count;
}
