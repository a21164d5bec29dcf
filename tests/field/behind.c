/* A client behind a virtual address: is served, waits for a line, and is served again.
 *
 *     behind NODE
 */
#define _GNU_SOURCE
#include <time.h>

#include "check.h"

/* The client must be served within this time: some calls may fail before it changes its port. */
#define AGAIN_WITHIN_S 60

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: behind NODE\n");
        return 2;
    }
    kvc_client *client = NULL;
    EXPECT_STATUS(kvc_open(argv[1], NULL, &client), KVC_OK);
    EXPECT_STATUS(kvc_put(client, "behind", 6, "v", 1, NULL, NULL), KVC_OK);
    puts("served");
    fflush(stdout);
    EXPECT(getchar() == '\n');
    const time_t began = time(NULL);
    while (kvc_put(client, "behind", 6, "w", 1, NULL, NULL) != KVC_OK)
        EXPECT(time(NULL) - began < AGAIN_WITHIN_S);
    kvc_free(client);
    puts("served again");
    return 0;
}
