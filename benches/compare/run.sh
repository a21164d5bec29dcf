#!/usr/bin/env bash
# Compares Horseshoe with etcd, ZooKeeper and Redis, and writes the tables and plots of
# docs/performance.md. Takes about 50 minutes; asserts nothing.
#
#   benches/compare/run.sh [OPTION ...]     options of the measurement; -h lists them
#
# As root it installs what is missing: the three systems and the tools, from Debian's packages.
# A system that cannot be installed is left out. The measurement runs in a network namespace of its
# own. The last results are kept in target/compare.json; `run.sh --report-only` draws them again.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
root=$(dirname -- "$(dirname -- "$here")")
cd -- "$root"

target=${CARGO_TARGET_DIR:-$root/target}
results=$target/compare.json
compare=$target/compare/release/horseshoe-compare
page=$root/docs/performance.md

# package PROGRAM PACKAGE: installs the package if the program is missing.
package() {
    if [[ -e $1 ]] || command -v "$1" >/dev/null; then
        return
    fi
    if [[ $EUID -eq 0 ]] && apt-get install -y -qq "$2" >/dev/null 2>&1; then
        echo "installed: $2"
        # Debian starts the servers at once; the comparison has its own.
        service "$3" stop >/dev/null 2>&1 || true
    else
        echo "$1 is missing; as root: apt-get install $2"
    fi
}

install() {
    if [[ $EUID -eq 0 ]]; then
        apt-get update -qq >/dev/null 2>&1 || echo "the list of packages was not updated"
    fi
    package protoc protobuf-compiler -
    package perf linux-perf -
    package iptables iptables -
    package /usr/bin/etcd etcd-server etcd
    package /usr/bin/redis-server redis-server redis-server
    package /usr/share/java/zookeeper.jar zookeeper zookeeper
}

if [[ ${1-} != --report-only ]]; then
    install
    cargo build --quiet --release
    cargo build --quiet --release --manifest-path "$here/Cargo.toml" --target-dir "$target/compare"
    mkdir -p -- "$target/compare/data"
    # shellcheck disable=SC2016 # The inner shell expands its own arguments.
    # All processes end with the first one.
    unshare -n -p --fork --mount-proc --kill-child sh -c 'ip link set lo up && exec "$@"' sh \
        "$compare" measure --horseshoe "$target/release/horseshoe" --results "$results" \
        --disk "$target/compare/data" "$@"
fi
"$compare" report "$results" "$page"
echo "written: ${page#"$root"/}"
