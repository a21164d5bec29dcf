#!/usr/bin/env bash
# Tests what a node accepts from other machines. Messages between nodes and clients are not
# authenticated: a node that does not listen on loopback serves any client and warns about it,
# accepts membership changes only from its own machine (unless started with --insecure-admin), and
# drops node messages from addresses of no known node. Two separate network namespaces, joined by a
# pair of virtual interfaces, stand for two machines. Prints one line per check; the last line
# counts them.
#
# usage: [BINARY=PROGRAM] tests/trust.sh      without BINARY it is built
set -uo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd) || exit 1
# shellcheck source=tests/checks.sh
source "$root/tests/checks.sh"

# The machine of the nodes, the other one, and nodes on them.
here=10.77.0.1 there=10.77.0.2
first=$here:8801 second=$there:8802 open=$here:8803 wide=$here:8806
PATIENCE_S=20

fail() {
    printf 'FAILED  %s\n' "$*" >&2
    exit 1
}

outside() {
    local target=${CARGO_TARGET_DIR:-$root/target} enter=(--net) own
    [[ $target == /* ]] || target=$root/$target
    if [[ -z ${BINARY-} ]]; then
        cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" --bin horseshoe || exit 1
        BINARY=$target/release/horseshoe
    fi
    BINARY=$(readlink -f -- "$BINARY")
    export BINARY
    ((EUID == 0)) || enter+=(--map-root-user)
    # In a separate process-id namespace no node outlives this script, however it ends.
    own=("${enter[@]}" --pid --fork --kill-child --mount-proc)
    ! unshare "${own[@]}" true 2>/dev/null || enter=("${own[@]}")
    work=$(mktemp -d) || exit 1
    export work
    trap 'rm -rf -- "$work"' EXIT
    unset HORSESHOE_NODES HORSESHOE_DATA_DIR HORSESHOE_TEXT HORSESHOE_INSECURE_ADMIN
    unshare "${enter[@]}" bash "${BASH_SOURCE[0]}" --inside
}

# The processes that this script has started; it ends no others.
started=()

end_all() {
    ((${#started[@]} == 0)) || kill -9 "${started[@]}" 2>/dev/null
}

# Runs a command on the other machine.
elsewhere() {
    nsenter --net="/proc/$other/ns/net" -- "$@"
}

make_machines() {
    local end=$((SECONDS + PATIENCE_S))
    unshare --net sleep 600 &
    other=$!
    started+=("$other")
    until [[ $(readlink "/proc/$other/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do
        ((SECONDS < end)) || fail 'no second network namespace'
        sleep 0.01
    done
    ip link set lo up && ip link add near type veth peer name far netns "$other" &&
        ip address add "$here/24" dev near && ip link set near up &&
        elsewhere ip link set lo up && elsewhere ip address add "$there/24" dev far &&
        elsewhere ip link set far up || fail 'no pair of interfaces'
}

# start NAME COMMAND...: starts a node, with its log.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 </dev/null &
    started+=("$!")
}

# The JSON of one node's status.
status_of() {
    "$BINARY" status --json --nodes "$1" --timeout 1 2>/dev/null
}

# until WHAT COMMAND...
wait_until() {
    local what=$1 end=$((SECONDS + PATIENCE_S))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "waited for $what"
        sleep 0.05
    done
}

serves() {
    [[ $(status_of "$1") == *'"quorum":true'* ]]
}

drops_strangers() {
    [[ $(status_of "$1") =~ \"strangers_dropped\":[1-9] ]]
}

has_members() {
    [[ $("$BINARY" member list --nodes "$first" 2>/dev/null | grep -cE ' (master|member)( |$)') == "$1" ]]
}

logged() {
    grep -q -- "$2" "$work/$1.log"
}

# Sends a text get to a node, and prints what arrives shortly afterwards.
text_get() {
    local answer=
    exec {socket}<>"/dev/udp/${1%:*}/${1##*:}"
    printf 'GET [k] [7]' >&"$socket"
    read -r -N 8 -t 1 -u "$socket" answer
    exec {socket}>&-
    printf '%s' "$answer"
}

look_at_one_node() {
    start first "$BINARY" serve 0 "$first"
    wait_until 'the first node' serves "$first"
    logged first 'anyone who can send to it can read and write all data'
    check 'the log says who can use the node' is "$?" 0
    run "$BINARY" status --nodes "$first"
    check 'so does the status' gave 0 "*$first: not a loopback address: anyone who can send to it can use it*"
    check 'text is not taken' is "$(text_get "$first")" ''

    run elsewhere "$BINARY" put k v --nodes "$first"
    check 'clients of other machines are served' gave 0 ''
    run elsewhere "$BINARY" member add "$second" --nodes "$first" --timeout 5
    check 'a change from another machine is refused, with the way out' gave 6 \
        '*only from its own machine*--insecure-admin*'
    run elsewhere "$BINARY" member force 1 --yes --nodes "$first" --timeout 5
    check 'so is force' gave 6 '*only from its own machine*'
}

look_at_strangers() {
    # A node that is first in its own list asks the other nodes for their commitments.
    start stranger elsewhere "$BINARY" serve 0 "$there:8804" "$first"
    wait_until 'what it sends to be dropped' drops_strangers "$first"
    wait_until 'a line of the log' logged first "dropped a node's datagram from $there:8804"
    run "$BINARY" status --nodes "$first"
    check 'the status counts what strangers send' gave 0 "*$first: dropped * node messages from addresses that belong to no known node*"

    start second elsewhere "$BINARY" serve 1 "$first" "$second"
    run "$BINARY" member add "$second" --nodes "$first" --timeout "$PATIENCE_S"
    check 'a change from the own machine is made, and the new node is heard' gave 0 "*$second is a member*"
    run elsewhere "$BINARY" get k --nodes "$second"
    check 'it serves' gave 0 'v'
    wait_until 'two members' has_members 2
}

look_at_an_open_node() {
    start open "$BINARY" serve --text on --insecure-admin 0 "$open"
    wait_until 'the open node' serves "$open"
    check 'text is taken where it is switched on' is "$(text_get "$open")" 'OK \[7] \[*'
    run elsewhere "$BINARY" member add "$there:8805" --nodes "$open" --timeout 1
    check 'a change from another machine is begun where it is allowed' gave 5 '*not completed yet*'
}

look_at_a_node_on_all_addresses() {
    start wide "$BINARY" serve 0 "$wide" --listen 0.0.0.0
    wait_until 'the node on all addresses' serves "$wide"
    run elsewhere "$BINARY" member transfer-master 1 --nodes "$wide" --timeout 5
    check 'a node on all addresses takes no change from another machine' gave 6 '*only from its own machine*'
    run "$BINARY" member transfer-master 1 --nodes "$wide" --timeout 5
    check 'but from its own' gave 0 '*node 1 is the master*'
}

inside() {
    trap end_all EXIT
    make_machines
    look_at_one_node
    look_at_strangers
    look_at_an_open_node
    look_at_a_node_on_all_addresses
    if ! count_checks; then
        tail -n 20 "$work"/*.log >&2
        return 1
    fi
}

case ${1-} in
    --inside) inside ;;
    '') outside ;;
    *) fail "usage: [BINARY=PROGRAM] tests/trust.sh" ;;
esac
