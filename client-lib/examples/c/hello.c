/* The first program: puts and gets, and the errors they can return.
 *
 *     cc hello.c $(pkg-config --cflags --libs kvclient) -o hello && ./hello HOST:PORT,HOST:PORT,...
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kvclient.h"

static int failed(const char *what, int status) {
    fprintf(stderr, "hello: %s: %s\n", what, kvc_strerror(status));
    return 1;
}

static int greet(kvc_client *client) {
    static const char key[] = "hello/colour";
    int status = kvc_put(client, key, strlen(key), "blue", 4, NULL, NULL);
    if (status != KVC_OK) return failed("put", status);

    kvc_result *read;
    status = kvc_get(client, key, strlen(key), &read);
    if (status != KVC_OK) return failed("get", status);
    /* A zero byte follows the value, so a text can be printed directly. */
    printf("%s is %s, version %" PRIu64 "\n", key, (const char *)kvc_result_value(read, NULL),
           kvc_result_version(read));

    /* Writes only if the key has not changed since it was read, and returns the old value. */
    kvc_write_options options = KVC_WRITE_OPTIONS_INIT;
    options.flags = KVC_IF_VERSION | KVC_WANT_OLD;
    options.version = kvc_result_version(read);
    kvc_result_free(read);
    kvc_result *written;
    status = kvc_put(client, key, strlen(key), "green", 5, &options, &written);
    if (status != KVC_OK && status != KVC_CONFLICT) return failed("put", status);
    const void *old;
    if (kvc_result_old(written, &old, NULL) == KVC_OLD_VALUE)
        printf("%s: it was %s\n", status == KVC_OK ? "replaced" : "somebody was faster", (const char *)old);
    kvc_result_free(written);

    status = kvc_delete(client, key, strlen(key), NULL, NULL);
    if (status != KVC_OK) return failed("delete", status);
    status = kvc_get(client, key, strlen(key), &read);
    printf("now it is %s\n", kvc_strerror(status));
    kvc_result_free(read); /* NULL is allowed */
    return status == KVC_NOT_FOUND ? 0 : failed("get", status);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: hello HOST:PORT,HOST:PORT,...\n");
        return 2;
    }
    kvc_client *client;
    int status = kvc_open(argv[1], NULL, &client);
    if (status != KVC_OK) return failed("open", status);
    status = greet(client);
    kvc_free(client);
    return status;
}
