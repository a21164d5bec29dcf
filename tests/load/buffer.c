/* The smallest receive buffers. Preloaded into a process, this library replaces the size of each
 * receive buffer that the process asks for by the least one. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    int (*real)(int, int, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "setsockopt");
    int least = 1;
    if (level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_RCVBUFFORCE))
        return real(fd, level, SO_RCVBUF, &least, sizeof least);
    return real(fd, level, name, value, length);
}
