/* Code that the test programs of lib739kv share. A check that does not hold ends the program. */
#ifndef CHECK_H
#define CHECK_H

#include <lib739kv.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(holds) \
    do { \
        if (!(holds)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #holds); \
            _exit(1); \
        } \
    } while (0)

/* A buffer for a value, with marks that show whether the library wrote behind its end, or not at
 * all. */
struct buffer {
    char value[KV739_VALUE_SIZE_MAX + 1];
    char behind[64];
};

static inline void fill(struct buffer *buffer) { memset(buffer, '#', sizeof *buffer); }

static inline int is_filled(const char *bytes, size_t size) {
    for (size_t at = 0; at < size; at++)
        if (bytes[at] != '#')
            return 0;
    return 1;
}

static inline int is_untouched(const struct buffer *buffer) {
    return is_filled(buffer->value, sizeof buffer->value) && is_filled(buffer->behind, sizeof buffer->behind);
}

/* Whether the buffer contains exactly this value. */
static inline int holds(const struct buffer *buffer, const char *value) {
    size_t size = strlen(value) + 1;
    return memcmp(buffer->value, value, size) == 0 &&
           is_filled(buffer->value + size, sizeof buffer->value - size) &&
           is_filled(buffer->behind, sizeof buffer->behind);
}

#endif
