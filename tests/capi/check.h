/* Code that the test programs share: checks that print what they found. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "kvclient.h"

static int checks;

/* The macro's argument is evaluated once. */
#define EXPECT(condition)                                                                    \
    do {                                                                                     \
        checks++;                                                                            \
        if (!(condition)) {                                                                  \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);    \
            exit(1);                                                                         \
        }                                                                                    \
    } while (0)

#define EXPECT_STATUS(call, expected)                                                        \
    do {                                                                                     \
        const int status_ = (call);                                                          \
        checks++;                                                                            \
        if (status_ != (expected)) {                                                         \
            fprintf(stderr, "%s:%d: %s gave %d (%s), not %d\n", __FILE__, __LINE__, #call,   \
                    status_, kvc_strerror(status_), (int)(expected));                        \
            exit(1);                                                                         \
        }                                                                                    \
    } while (0)

#endif
