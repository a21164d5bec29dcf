#!/usr/bin/env bash
# The guarantees to clients hold on links that lose datagrams:
#   adders  at 1 % loss no add has an unknown outcome, none fails, and the sum is exact;
#   text    at 5 % loss no put of a text client is applied twice, and every answered one once;
#   busy    the same with 1,200 puts a second on one key.
#
# Runs five real nodes and the clients on the loopback interface of a separate network namespace,
# where iptables drops datagrams at random, in either direction. The host's rules are not changed,
# and all processes end with the namespace.
#
# usage: tests/loss.sh [SECONDS]
#   HORSESHOE_BIN, ADDERS_BIN, TEXT_CHAIN_BIN: built programs to use; without them the script builds
#   the programs.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly NODES=(127.0.0.1:8801 127.0.0.1:8802 127.0.0.1:8803 127.0.0.1:8804 127.0.0.1:8805)
readonly ADDERS=50
readonly ADDERS_LOSS=0.01
readonly TEXT_CLIENTS=10
readonly TEXT_LOSS=0.05
# Clients, seconds, keys, puts a second on a key.
readonly BUSY_KEY=(60 3 1 1200)
readonly TIME_MAX_S=30

fail() {
    echo "loss.sh: $*" >&2
    exit 1
}

# The clients are built as for the other tests: with link-time optimization the build would take
# minutes.
build() {
    local target=${CARGO_TARGET_DIR:-target}
    if [[ -z ${HORSESHOE_BIN:-} ]]; then
        cargo build --release --quiet -p horseshoe --bin horseshoe
    fi
    if [[ -z ${ADDERS_BIN:-} || -z ${TEXT_CHAIN_BIN:-} ]]; then
        cargo test --quiet --workspace --no-run --examples
    fi
    export HORSESHOE_BIN=${HORSESHOE_BIN:-$target/release/horseshoe}
    export ADDERS_BIN=${ADDERS_BIN:-$target/debug/examples/adders}
    export TEXT_CHAIN_BIN=${TEXT_CHAIN_BIN:-$target/debug/examples/text_chain}
}

# Outside the namespace: checks the requirements, and enters it.
outside() {
    local seconds=$1 tool
    for tool in unshare ip iptables timeout; do
        command -v "$tool" >/dev/null ||
            fail "$tool is missing: apt-get install util-linux iproute2 iptables coreutils"
    done
    build
    local namespace=(unshare --net --pid --fork --kill-child)
    if [[ $EUID -ne 0 ]]; then
        namespace+=(--map-root-user)
    fi
    if ! "${namespace[@]}" true; then
        fail "a network namespace can't be made here"
    fi
    local logs clients status=0
    logs=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory is known now
    trap "rm -rf '$logs'" EXIT
    for clients in adders text busy; do
        timeout --kill-after=1 "$TIME_MAX_S" "${namespace[@]}" \
            bash tests/loss.sh --inside "$clients" "$seconds" "$logs" || status=$?
        if ((status != 0)); then
            tail -n 20 "$logs"/*.log >&2 || true
            ((status != 124)) || fail "$clients: not done within $TIME_MAX_S s"
            exit "$status"
        fi
    done
}

drop_some() {
    local probability=$1 command
    # A kernel may support only one of the two ways to set rules.
    for command in iptables iptables-legacy iptables-nft; do
        if "$command" -w -A INPUT -p udp -m statistic --mode random \
            --probability "$probability" -j DROP 2>/dev/null; then
            RULES=$command
            return
        fi
    done
    fail "iptables' statistic match does not work here"
}

inside() {
    local clients=$1 seconds=$2 logs=$3 index loss=$ADDERS_LOSS
    [[ $clients == adders ]] || loss=$TEXT_LOSS
    ip link set lo up
    # The default is in a directory that only root may write to.
    export XTABLES_LOCKFILE=$logs/xtables.lock
    drop_some "$loss"
    for index in "${!NODES[@]}"; do
        env -u HORSESHOE_DATA_DIR -u HORSESHOE_TEXT HORSESHOE_LOG=info \
            "$HORSESHOE_BIN" serve "$index" "${NODES[@]}" 2>"$logs/node-$index.log" &
    done
    local list dropped
    list=$(IFS=,; echo "${NODES[*]}")
    if [[ $clients == adders ]]; then
        "$ADDERS_BIN" "$list" "$ADDERS" "$seconds" || fail "an add was lost, failed or not known"
    elif [[ $clients == busy ]]; then
        "$TEXT_CHAIN_BIN" "$list" "${BUSY_KEY[@]}" || fail "busy: see above"
    else
        "$TEXT_CHAIN_BIN" "$list" "$TEXT_CLIENTS" "$seconds" || fail "text: see above"
    fi
    dropped=$("$RULES" -L INPUT -v -n -x | awk '/statistic/ { print $1 }')
    echo "loss.sh: $clients: $dropped datagrams were dropped"
    ((dropped > 0)) || fail "nothing was dropped, so nothing is shown"
}

case ${1:-} in
    --inside) inside "$2" "$3" "$4" ;;
    *) outside "${1:-6}" ;;
esac
