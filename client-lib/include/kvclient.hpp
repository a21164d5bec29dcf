// kvclient.hpp: kvclient.h for C++17. Header-only; throws nothing of its own and works without
// exceptions. kvclient.h documents each call with its errors and bounds.
//
//     kvc::Client client("node1:7001,node2:7001,node3:7001");
//     client.put("colour", "blue");
//     if (kvc::Result got = client.get("colour")) use(*got.value());
//
// Strings are arbitrary bytes. A Client and a Result own what they contain; they can be moved.

#ifndef KVCLIENT_HPP
#define KVCLIENT_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "kvclient.h"

namespace kvc {

// What a transaction that committed did with one key. The view is valid as long as the result.
struct TransactionKey {
    std::optional<std::string_view> value;
    std::uint64_t found = 0;
    std::uint64_t version = 0;
    std::int64_t number = 0;
};

// The outcome of a call: a status, and what the store returned with it.
class Result {
public:
    Result() noexcept = default;
    // Takes ownership of the result.
    Result(int status, kvc_result *result) noexcept : status_(status), result_(result) {}
    Result(Result &&other) noexcept
        : status_(other.status_), result_(std::exchange(other.result_, nullptr)) {}
    Result &operator=(Result &&other) noexcept {
        std::swap(status_, other.status_);
        std::swap(result_, other.result_);
        return *this;
    }
    Result(const Result &) = delete;
    Result &operator=(const Result &) = delete;
    ~Result() { kvc_result_free(result_); }

    // KVC_OK or an error.
    int status() const noexcept { return status_; }
    explicit operator bool() const noexcept { return status_ == KVC_OK; }
    const char *message() const noexcept { return kvc_strerror(status_); }

    // The value of a get that found the key. The view is valid as long as the result.
    std::optional<std::string_view> value() const noexcept {
        std::size_t size = 0;
        const void *value = kvc_result_value(result_, &size);
        return view(value, size);
    }
    std::uint64_t version() const noexcept { return kvc_result_version(result_); }
    std::int64_t number() const noexcept { return kvc_result_number(result_); }
    // After a ttl: how long the key still lives, if it expires.
    std::optional<std::chrono::milliseconds> ttl() const noexcept {
        const std::int64_t ms = kvc_result_ttl_ms(result_);
        if (ms < 0) return std::nullopt;
        return std::chrono::milliseconds(ms);
    }

    // After a get_stale: for how long the node that answered has not been joined to a quorum.
    std::chrono::milliseconds apart() const noexcept {
        return std::chrono::milliseconds(kvc_result_apart_ms(result_));
    }

    // The value before a write, if it was requested, existed, and is known; old_kind says which.
    std::optional<std::string_view> old() const noexcept {
        const void *value = nullptr;
        std::size_t size = 0;
        kvc_result_old(result_, &value, &size);
        return view(value, size);
    }
    int old_kind() const noexcept { return kvc_result_old(result_, nullptr, nullptr); }

    // After a transaction that committed: how many keys it named, and what it did with each, in the
    // order in which it first named them.
    std::size_t key_count() const noexcept { return kvc_result_txn_count(result_); }
    TransactionKey key(std::size_t index) const noexcept {
        TransactionKey key;
        kvc_txn_key told;
        if (kvc_result_txn_key(result_, index, &told) != KVC_OK) return key;
        key.value = view(told.value, told.value_size);
        key.found = told.found;
        key.version = told.version;
        key.number = told.number;
        return key;
    }
    // After a conflict of a transaction: the places of the key, and of the condition on it.
    std::optional<std::pair<std::size_t, std::size_t>> conflict() const noexcept {
        std::size_t index = 0, condition = 0;
        if (kvc_result_txn_conflict(result_, &index, &condition) != KVC_OK) return std::nullopt;
        return std::make_pair(index, condition);
    }

private:
    static std::optional<std::string_view> view(const void *data, std::size_t size) noexcept {
        if (data == nullptr) return std::nullopt;
        return std::string_view(static_cast<const char *>(data), size);
    }

    int status_ = KVC_INVALID_ARGUMENT;
    kvc_result *result_ = nullptr;
};

// The deadline limited to what fits; never 0, which would mean the default.
inline std::uint32_t deadline_ms(std::chrono::milliseconds deadline) noexcept {
    constexpr std::int64_t max = std::numeric_limits<std::uint32_t>::max();
    const std::int64_t count = deadline.count();
    return static_cast<std::uint32_t>(count < 1 ? 1 : count > max ? max : count);
}

// A time to live; 0 and less become 1 ms, because 0 would mean none.
inline std::uint64_t ttl_ms(std::chrono::milliseconds ttl) noexcept {
    return ttl.count() < 1 ? 1 : static_cast<std::uint64_t>(ttl.count());
}

// client.put(key, value, kvc::WriteOptions().if_absent().want_old())
class WriteOptions {
public:
    WriteOptions &if_absent() noexcept { return flag(KVC_IF_ABSENT); }
    WriteOptions &if_version(std::uint64_t version) noexcept {
        options_.version = version;
        return flag(KVC_IF_VERSION);
    }
    WriteOptions &ttl(std::chrono::milliseconds ttl) noexcept {
        options_.ttl_ms = ttl_ms(ttl);
        return *this;
    }
    WriteOptions &want_old() noexcept { return flag(KVC_WANT_OLD); }
    WriteOptions &deadline(std::chrono::milliseconds deadline) noexcept {
        options_.deadline_ms = deadline_ms(deadline);
        return *this;
    }
    const kvc_write_options *c() const noexcept { return &options_; }

private:
    WriteOptions &flag(std::uint32_t flag) noexcept {
        options_.flags |= flag;
        return *this;
    }

    kvc_write_options options_ = KVC_WRITE_OPTIONS_INIT;
};

// An operation for submit, which copies the bytes of the views.
class Op {
public:
    static Op get(std::string_view key) noexcept { return Op(KVC_OP_GET, key); }
    static Op get_stale(std::string_view key) noexcept { return Op(KVC_OP_GET_STALE, key); }
    static Op put(std::string_view key, std::string_view value) noexcept {
        return Op(KVC_OP_PUT, key).value(value);
    }
    static Op erase(std::string_view key) noexcept { return Op(KVC_OP_DELETE, key); }
    static Op cas(std::string_view key, std::string_view expected, std::string_view value) noexcept {
        Op op = Op(KVC_OP_CAS, key).value(value);
        op.op_.expected = expected.data();
        op.op_.expected_size = expected.size();
        return op;
    }
    static Op add(std::string_view key, std::int64_t delta) noexcept {
        Op op(KVC_OP_ADD, key);
        op.op_.delta = delta;
        return op;
    }
    static Op append(std::string_view key, std::string_view value) noexcept {
        return Op(KVC_OP_APPEND, key).value(value);
    }
    static Op expire(std::string_view key, std::chrono::milliseconds ttl) noexcept {
        Op op(KVC_OP_EXPIRE, key);
        op.op_.ttl_ms = ttl_ms(ttl);
        return op;
    }
    static Op persist(std::string_view key) noexcept { return Op(KVC_OP_PERSIST, key); }
    static Op ttl(std::string_view key) noexcept { return Op(KVC_OP_TTL, key); }

    Op &with(const WriteOptions &options) noexcept {
        op_.flags = options.c()->flags;
        op_.version = options.c()->version;
        op_.deadline_ms = options.c()->deadline_ms;
        if (options.c()->ttl_ms != 0) op_.ttl_ms = options.c()->ttl_ms;
        return *this;
    }
    Op &deadline(std::chrono::milliseconds deadline) noexcept {
        op_.deadline_ms = deadline_ms(deadline);
        return *this;
    }
    const kvc_op *c() const noexcept { return &op_; }

private:
    Op(int kind, std::string_view key) noexcept {
        op_.kind = static_cast<std::uint32_t>(kind);
        op_.key = key.data();
        op_.key_size = key.size();
    }
    Op &value(std::string_view value) noexcept {
        op_.value = value.data();
        op_.value_size = value.size();
        return *this;
    }

    kvc_op op_ = KVC_OP_INIT;
};

// kvc::Transaction().if_present("a").add("a", -5).add("b", 5); a first mistake is kept in status().
class Transaction {
public:
    Transaction() noexcept : txn_(kvc_txn_new()) {}
    Transaction(Transaction &&other) noexcept
        : txn_(std::exchange(other.txn_, nullptr)), status_(other.status_) {}
    Transaction &operator=(Transaction &&other) noexcept {
        std::swap(txn_, other.txn_);
        std::swap(status_, other.status_);
        return *this;
    }
    Transaction(const Transaction &) = delete;
    Transaction &operator=(const Transaction &) = delete;
    ~Transaction() { kvc_txn_free(txn_); }

    Transaction &if_absent(std::string_view key) noexcept {
        return keep(kvc_txn_if_absent(txn_, key.data(), key.size()));
    }
    Transaction &if_present(std::string_view key) noexcept {
        return keep(kvc_txn_if_present(txn_, key.data(), key.size()));
    }
    Transaction &if_version(std::string_view key, std::uint64_t version) noexcept {
        return keep(kvc_txn_if_version(txn_, key.data(), key.size(), version));
    }
    Transaction &if_value(std::string_view key, std::string_view value) noexcept {
        return keep(
            kvc_txn_if_value(txn_, key.data(), key.size(), value.data(), value.size()));
    }
    Transaction &get(std::string_view key) noexcept {
        return keep(kvc_txn_get(txn_, key.data(), key.size()));
    }
    Transaction &put(std::string_view key, std::string_view value) noexcept {
        return keep(kvc_txn_put(txn_, key.data(), key.size(), value.data(), value.size(), 0));
    }
    Transaction &put_for(std::string_view key, std::string_view value,
                         std::chrono::milliseconds ttl) noexcept {
        return keep(
            kvc_txn_put(txn_, key.data(), key.size(), value.data(), value.size(), ttl_ms(ttl)));
    }
    // kvc_txn_delete; `delete` is a keyword.
    Transaction &erase(std::string_view key) noexcept {
        return keep(kvc_txn_delete(txn_, key.data(), key.size()));
    }
    Transaction &add(std::string_view key, std::int64_t delta) noexcept {
        return keep(kvc_txn_add(txn_, key.data(), key.size(), delta));
    }
    Transaction &append(std::string_view key, std::string_view value) noexcept {
        return keep(kvc_txn_append(txn_, key.data(), key.size(), value.data(), value.size()));
    }

    // KVC_OK, or what the first call that was refused returned. Then the transaction does not run.
    int status() const noexcept { return status_; }
    kvc_txn *c() const noexcept { return txn_; }

private:
    Transaction &keep(int status) noexcept {
        if (status_ == KVC_OK) status_ = status;
        return *this;
    }

    kvc_txn *txn_ = nullptr;
    int status_ = KVC_OK;
};

// One key of a scan. The views are valid until the next key is asked for.
struct Entry {
    std::string_view key;
    std::optional<std::string_view> value;
    std::uint64_t version = 0;
};

// kvc::ScanOptions().prefix("user/").limit(10). The strings must live until the scan is made.
class ScanOptions {
public:
    ScanOptions &prefix(std::string_view prefix) noexcept {
        options_.prefix = prefix.data();
        options_.prefix_size = prefix.size();
        return *this;
    }
    ScanOptions &from(std::string_view key) noexcept {
        options_.from = key.data();
        options_.from_size = key.size();
        return *this;
    }
    ScanOptions &to(std::string_view key) noexcept {
        options_.to = key.data();
        options_.to_size = key.size();
        return *this;
    }
    ScanOptions &limit(std::uint64_t keys) noexcept {
        options_.limit = keys;
        return *this;
    }
    ScanOptions &keys_only() noexcept {
        options_.flags |= KVC_SCAN_KEYS_ONLY;
        return *this;
    }
    ScanOptions &deadline(std::chrono::milliseconds deadline) noexcept {
        options_.deadline_ms = deadline_ms(deadline);
        return *this;
    }
    const kvc_scan_options *c() const noexcept { return &options_; }

private:
    kvc_scan_options options_ = KVC_SCAN_OPTIONS_INIT;
};

// while (std::optional<kvc::Entry> entry = scan.next()) use(entry->key);
class Scan {
public:
    Scan(kvc_client *client, const ScanOptions &options) noexcept
        : status_(kvc_scan_open(client, options.c(), &scan_)) {}
    Scan(Scan &&other) noexcept
        : scan_(std::exchange(other.scan_, nullptr)),
          status_(std::exchange(other.status_, KVC_INVALID_ARGUMENT)) {}
    Scan &operator=(Scan &&other) noexcept {
        std::swap(scan_, other.scan_);
        std::swap(status_, other.status_);
        return *this;
    }
    Scan(const Scan &) = delete;
    Scan &operator=(const Scan &) = delete;
    ~Scan() { kvc_scan_free(scan_); }

    // Empty at the end, when status() is KVC_NOT_FOUND, and after an error.
    std::optional<Entry> next() noexcept {
        if (scan_ == nullptr) return std::nullopt;
        kvc_scan_entry told;
        status_ = kvc_scan_next(scan_, &told);
        if (status_ != KVC_OK) return std::nullopt;
        Entry entry;
        entry.key = std::string_view(static_cast<const char *>(told.key), told.key_size);
        if (told.value != nullptr)
            entry.value = std::string_view(static_cast<const char *>(told.value), told.value_size);
        entry.version = told.version;
        return entry;
    }
    // The outcome of the last call.
    int status() const noexcept { return status_; }
    bool is_complete() const noexcept { return status_ == KVC_NOT_FOUND; }

private:
    kvc_scan *scan_ = nullptr;
    int status_ = KVC_INVALID_ARGUMENT;
};

// An event of a watch. The views are valid until the next one is asked for.
struct Event {
    enum class Kind { Put = KVC_WATCH_PUT, Delete, Current, Apart };
    Kind kind = Kind::Current;
    std::string_view key;
    std::string_view value;
    std::uint64_t version = 0;
    // Of Current: empty if the node cannot tell yet.
    std::optional<std::chrono::milliseconds> behind;
};

// while (std::optional<kvc::Event> event = watch.next()) use(*event);
class Watch {
public:
    Watch(kvc_client *client, const kvc_watch_options &options) noexcept
        : status_(kvc_watch_open(client, &options, &watch_)) {}
    Watch(Watch &&other) noexcept
        : watch_(std::exchange(other.watch_, nullptr)),
          status_(std::exchange(other.status_, KVC_INVALID_ARGUMENT)) {}
    Watch &operator=(Watch &&other) noexcept {
        std::swap(watch_, other.watch_);
        std::swap(status_, other.status_);
        return *this;
    }
    Watch(const Watch &) = delete;
    Watch &operator=(const Watch &) = delete;
    ~Watch() { kvc_watch_free(watch_); }

    // Waits; empty after an error.
    std::optional<Event> next() noexcept {
        if (watch_ == nullptr) return std::nullopt;
        kvc_watch_event told;
        status_ = kvc_watch_next(watch_, &told);
        if (status_ != KVC_OK) return std::nullopt;
        Event event;
        event.kind = static_cast<Event::Kind>(told.kind);
        event.key = std::string_view(static_cast<const char *>(told.key), told.key_size);
        event.value = std::string_view(static_cast<const char *>(told.value), told.value_size);
        event.version = told.version;
        if (told.behind_ms >= 0) event.behind = std::chrono::milliseconds(told.behind_ms);
        return event;
    }
    // The outcome of the last call.
    int status() const noexcept { return status_; }
    // For kvc_watch_submit, kvc_watch_take and kvc_watch_poll.
    kvc_watch *c() noexcept { return watch_; }

private:
    kvc_watch *watch_ = nullptr;
    int status_ = KVC_INVALID_ARGUMENT;
};

class Client {
public:
    Client() noexcept = default;
    // Contacts no node. If status() is not KVC_OK, calls return KVC_INVALID_ARGUMENT.
    explicit Client(const std::string &nodes, const kvc_options *options = nullptr) noexcept
        : status_(kvc_open(nodes.c_str(), options, &client_)) {}
    Client(Client &&other) noexcept
        : client_(std::exchange(other.client_, nullptr)),
          status_(std::exchange(other.status_, KVC_INVALID_ARGUMENT)) {}
    Client &operator=(Client &&other) noexcept {
        std::swap(client_, other.client_);
        std::swap(status_, other.status_);
        return *this;
    }
    Client(const Client &) = delete;
    Client &operator=(const Client &) = delete;
    ~Client() { kvc_free(client_); }

    // The outcome of opening it.
    int status() const noexcept { return status_; }
    explicit operator bool() const noexcept { return status_ == KVC_OK; }
    void close() noexcept { kvc_close(client_); }
    kvc_client *c() const noexcept { return client_; }

    Result get(std::string_view key) noexcept {
        kvc_result *out = nullptr;
        const int status = kvc_get(client_, key.data(), key.size(), &out);
        return Result(status, out);
    }
    Result get_stale(std::string_view key) noexcept {
        kvc_result *out = nullptr;
        const int status = kvc_get_stale(client_, key.data(), key.size(), &out);
        return Result(status, out);
    }
    Result put(std::string_view key, std::string_view value, const WriteOptions &options = {}) noexcept {
        kvc_result *out = nullptr;
        const int status = kvc_put(client_, key.data(), key.size(), value.data(), value.size(),
                                   options.c(), &out);
        return Result(status, out);
    }
    // kvc_delete; `delete` is a keyword.
    Result erase(std::string_view key, const WriteOptions &options = {}) noexcept {
        kvc_result *out = nullptr;
        const int status = kvc_delete(client_, key.data(), key.size(), options.c(), &out);
        return Result(status, out);
    }
    Result cas(std::string_view key, std::string_view expected, std::string_view value,
               const WriteOptions &options = {}) noexcept {
        kvc_result *out = nullptr;
        const int status = kvc_cas(client_, key.data(), key.size(), expected.data(), expected.size(),
                                   value.data(), value.size(), options.c(), &out);
        return Result(status, out);
    }
    Result add(std::string_view key, std::int64_t delta, const WriteOptions &options = {}) noexcept {
        kvc_result *out = nullptr;
        const int status = kvc_add(client_, key.data(), key.size(), delta, options.c(), &out);
        return Result(status, out);
    }
    Result append(std::string_view key, std::string_view value, const WriteOptions &options = {}) noexcept {
        kvc_result *out = nullptr;
        const int status = kvc_append(client_, key.data(), key.size(), value.data(), value.size(),
                                      options.c(), &out);
        return Result(status, out);
    }

    Result expire(std::string_view key, std::chrono::milliseconds ttl,
                  const WriteOptions &options = {}) noexcept {
        kvc_result *out = nullptr;
        const int status =
            kvc_expire(client_, key.data(), key.size(), ttl_ms(ttl), options.c(), &out);
        return Result(status, out);
    }
    Result persist(std::string_view key, const WriteOptions &options = {}) noexcept {
        kvc_result *out = nullptr;
        const int status = kvc_persist(client_, key.data(), key.size(), options.c(), &out);
        return Result(status, out);
    }
    Result ttl(std::string_view key) noexcept {
        kvc_result *out = nullptr;
        const int status = kvc_ttl(client_, key.data(), key.size(), &out);
        return Result(status, out);
    }

    // A deadline of 0 is the client's.
    Result run(const Transaction &transaction,
               std::chrono::milliseconds deadline = std::chrono::milliseconds(0)) noexcept {
        if (transaction.status() != KVC_OK) return Result(transaction.status(), nullptr);
        kvc_result *out = nullptr;
        const std::uint32_t ms = deadline.count() == 0 ? 0 : deadline_ms(deadline);
        const int status = kvc_txn_run(client_, transaction.c(), ms, &out);
        return Result(status, out);
    }
    int submit(const Transaction &transaction, std::uint64_t tag,
               std::chrono::milliseconds deadline = std::chrono::milliseconds(0)) noexcept {
        if (transaction.status() != KVC_OK) return transaction.status();
        const std::uint32_t ms = deadline.count() == 0 ? 0 : deadline_ms(deadline);
        return kvc_txn_submit(client_, transaction.c(), ms, tag);
    }

    // The scan must not be used after the client.
    Scan scan(const ScanOptions &options = {}) noexcept { return Scan(client_, options); }

    // A watch must not be used after the client.
    Watch watch(std::string_view key) noexcept {
        kvc_watch_options options = KVC_WATCH_OPTIONS_INIT;
        options.key = key.data();
        options.key_size = key.size();
        return Watch(client_, options);
    }
    // An empty prefix: all keys.
    Watch watch_prefix(std::string_view prefix) noexcept {
        kvc_watch_options options = KVC_WATCH_OPTIONS_INIT;
        options.prefix = prefix.data();
        options.prefix_size = prefix.size();
        return Watch(client_, options);
    }

    int submit(const Op &op, std::uint64_t tag) noexcept { return kvc_submit(client_, op.c(), tag); }
    int poll_fd() noexcept { return kvc_poll_fd(client_); }

    // Calls `each(tag, result)` for at most COMPLETIONS_MAX completed operations, and returns their
    // number, or an error. The descriptor stays readable while there are more.
    template <typename Each>
    int completions(Each &&each) {
        kvc_completion taken[COMPLETIONS_MAX];
        const int count = kvc_completions(client_, taken, COMPLETIONS_MAX);
        Result results[COMPLETIONS_MAX];
        // Owned before the first call, which may throw.
        for (int i = 0; i < count; i++) results[i] = Result(taken[i].status, taken[i].result);
        for (int i = 0; i < count; i++) each(taken[i].tag, std::move(results[i]));
        return count;
    }
    static constexpr int COMPLETIONS_MAX = 256;

private:
    kvc_client *client_ = nullptr;
    int status_ = KVC_INVALID_ARGUMENT;
};

// A lock; docs/locks.md says what it can and cannot promise. It is given back at its end, so the
// client must live longer.
class Lock {
public:
    Lock() noexcept = default;
    // status() is KVC_CONFLICT if another one held the lock all the time.
    Lock(Client &client, std::string_view name, std::chrono::milliseconds ttl,
         std::chrono::milliseconds wait = std::chrono::milliseconds(0)) noexcept
        : client_(client.c()) {
        kvc_lock_options options = KVC_LOCK_OPTIONS_INIT;
        options.ttl_ms = ttl_ms(ttl);
        options.wait_ms = wait.count() < 0 ? 0 : static_cast<std::uint64_t>(wait.count());
        status_ = kvc_lock_acquire(client_, name.data(), name.size(), &options, &lock_);
    }
    Lock(Lock &&other) noexcept
        : client_(other.client_), lock_(std::exchange(other.lock_, nullptr)),
          status_(std::exchange(other.status_, KVC_INVALID_ARGUMENT)) {}
    Lock &operator=(Lock &&other) noexcept {
        std::swap(client_, other.client_);
        std::swap(lock_, other.lock_);
        std::swap(status_, other.status_);
        return *this;
    }
    Lock(const Lock &) = delete;
    Lock &operator=(const Lock &) = delete;
    ~Lock() {
        if (lock_ != nullptr) release();
    }

    // The outcome of acquiring it, or of the last renewal.
    int status() const noexcept { return status_; }
    explicit operator bool() const noexcept { return status_ == KVC_OK; }
    std::uint64_t token() const noexcept { return kvc_lock_token(lock_); }
    std::chrono::milliseconds left() const noexcept {
        return std::chrono::milliseconds(kvc_lock_left_ms(lock_));
    }
    int renew() noexcept { return status_ = kvc_lock_renew(client_, lock_); }
    int release() noexcept {
        status_ = KVC_INVALID_ARGUMENT;
        return kvc_lock_release(client_, std::exchange(lock_, nullptr));
    }

private:
    kvc_client *client_ = nullptr;
    kvc_lock *lock_ = nullptr;
    int status_ = KVC_INVALID_ARGUMENT;
};

}  // namespace kvc

#endif
