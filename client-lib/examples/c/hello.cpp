// The first program in C++: calls that wait, then some that do not.
//
//     c++ -std=c++17 hello.cpp $(pkg-config --cflags --libs kvclient) -o hello
//     ./hello HOST:PORT,HOST:PORT,...

#include <poll.h>

#include <iostream>
#include <string>

#include "kvclient.hpp"

namespace {

int failed(const char *what, const kvc::Result &result) {
    std::cerr << "hello: " << what << ": " << result.message() << '\n';
    return 1;
}

// Several operations concurrently, on this thread.
int count_down(kvc::Client &client) {
    int left = 10;
    for (int i = 0; i < left; i++) {
        if (client.submit(kvc::Op::add("hello/count", 1), static_cast<std::uint64_t>(i)) != KVC_OK) return 1;
    }
    std::int64_t sum_max = 0;
    while (left > 0) {
        pollfd waiting{client.poll_fd(), POLLIN, 0};
        poll(&waiting, 1, -1);
        const int count = client.completions([&](std::uint64_t, kvc::Result result) {
            left--;
            if (!result) failed("add", result);
            if (result.number() > sum_max) sum_max = result.number();
        });
        if (count < 0) return 1;
    }
    std::cout << "counted to " << sum_max << '\n';
    return sum_max == 10 ? 0 : 1;
}

int greet(kvc::Client &client) {
    using namespace std::string_literals;
    // Values may contain any bytes.
    const std::string value = "bl\0ue"s;
    if (auto put = client.put("hello/colour", value); !put) return failed("put", put);
    auto got = client.get("hello/colour");
    if (!got || got.value() != value) return failed("get", got);
    std::cout << "version " << got.version() << ", " << got.value()->size() << " bytes\n";

    auto refused = client.put("hello/colour", "red", kvc::WriteOptions().if_absent().want_old());
    if (refused.status() != KVC_CONFLICT || refused.old() != value) return failed("put", refused);
    if (auto swapped = client.cas("hello/colour", value, "green"); !swapped) return failed("cas", swapped);
    kvc::Scan scan = client.scan(kvc::ScanOptions().prefix("hello/"));
    while (auto entry = scan.next()) std::cout << entry->key << ": version " << entry->version << '\n';
    if (!scan.is_complete()) return 1;
    if (auto more = client.append("hello/colour", "ish"); !more) return failed("append", more);
    const auto moved = client.run(kvc::Transaction().if_present("hello/colour").get("hello/colour").add("hello/count", 0));
    if (!moved || moved.key(0).value != "greenish" || moved.key_count() != 2) return failed("run", moved);
    const auto kept = client.run(kvc::Transaction().erase("hello/colour").if_absent("hello/count"));
    if (kept.status() != KVC_CONFLICT || kept.conflict()->first != 1) return failed("run", kept);
    auto erased = client.erase("hello/colour", kvc::WriteOptions().want_old());
    if (!erased || erased.old() != "greenish") return failed("erase", erased);
    if (client.get("hello/colour").status() != KVC_NOT_FOUND) return 1;
    if (auto none = client.erase("hello/count"); !none) return failed("erase", none);
    return count_down(client);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::cerr << "usage: hello HOST:PORT,HOST:PORT,...\n";
        return 2;
    }
    kvc::Client client(argv[1]);
    if (!client) {
        std::cerr << "hello: open: " << kvc_strerror(client.status()) << '\n';
        return 1;
    }
    return greet(client);
}
