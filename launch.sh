#!/usr/bin/env bash
# Starts the nodes of config.sh, or the one at INDEX, on this machine or over ssh, and waits until
# they serve.
set -uo pipefail
usage='usage: launch.sh [--bootstrap] [INDEX]

Starts all nodes of NODES, or the one at INDEX (from 0), and waits up to LAUNCH_TIMEOUT seconds:
without INDEX until a quorum serves, with INDEX until that node answers. Nodes that are running are
not touched. With --bootstrap a new cluster is formed once more than half of its nodes are up.
Settings are in config.sh, or in the environment.'

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd) || exit 1
if [[ ${1-} == -h || ${1-} == --help ]]; then
    printf '%s\n' "$usage"
    exit 0
fi
# shellcheck source=scripts/common.sh
source "$root/scripts/common.sh"
if [[ ${1-} == --bootstrap ]]; then
    BOOTSTRAP=1
    shift
fi
(($# <= 1)) || usage_error "one INDEX at most"
set_switch BOOTSTRAP
set_switch INSECURE_ADMIN

# Whether the program is missing, or older than its sources.
is_stale() {
    local source
    [[ -x $1 ]] || return 0
    shopt -s globstar nullglob
    for source in "$root"/{,wire/,client-lib/}{Cargo.toml,src/**/*.rs} "$root"/Cargo.lock; do
        [[ ! $source -nt $1 ]] || return 0
    done
    return 1
}

find_binary() {
    if [[ -n $BINARY ]]; then
        [[ $BINARY == /* ]] || BINARY=$root/$BINARY
        [[ -x $BINARY ]] || fail "the program $BINARY does not exist"
        return
    fi
    local target=${CARGO_TARGET_DIR:-$root/target}
    [[ $target == /* ]] || target=$root/$target
    BINARY=$target/release/horseshoe
    is_stale "$BINARY" || return 0
    if ! type -P cargo >/dev/null; then
        [[ -x $BINARY ]] || fail "the program is not built, and cargo is not installed to build it: \
install Rust from https://rustup.rs"
        printf 'cargo is not installed: %s is used as it is\n' "$BINARY" >&2
        return
    fi
    local program
    for program in cc make; do
        type -P "$program" >/dev/null || fail "the program is not built, and $program, which builds \
its memory allocator, is not installed: install it (on Debian: apt install gcc make)"
    done
    printf 'building %s\n' "$BINARY" >&2
    (cd -- "$root" && CARGO_TARGET_DIR=$target cargo build --release --locked --bin horseshoe >&2) ||
        fail "the build failed"
}

# Copies the program to the host of node $1 over ssh. A running program cannot be overwritten, so
# the new one replaces it by a rename.
copy_binary() {
    local index=$1 there
    printf -v there '%q' "$REMOTE_PATH"
    over_ssh "$(host_of "${nodes[index]}")" "mkdir -p $there && cd $there && \
cat >horseshoe.$index.new && chmod 755 horseshoe.$index.new && mv -f horseshoe.$index.new horseshoe" \
        <"$BINARY"
}

# Sets `options` to those options of `horseshoe serve` that the settings give node $1. An empty
# setting gives no option, so the program's default applies.
set_options() {
    local index=$1 pair
    options=()
    for pair in durability="$DURABILITY" shrink-after="$SHRINK_AFTER" text="$TEXT" memory-max="$MEMORY_MAX" \
        value-max="$VALUE_MAX" listen="$LISTEN" http="$HTTP" cluster-name="$CLUSTER_NAME" disk-hung-after="$DISK_HUNG_AFTER" \
        disk-reserve="$DISK_RESERVE" heartbeat-ms="$HEARTBEAT_MS" link-down-ms="$LINK_DOWN_MS" log="$LOG_FILTER"; do
        [[ -z ${pair#*=} ]] || options+=("--${pair%%=*}" "${pair#*=}")
    done
    [[ -z $INSECURE_ADMIN ]] || options+=(--insecure-admin)
    # Only the first node forms a cluster.
    [[ -z $BOOTSTRAP || $index != 0 ]] || options+=(--bootstrap)
}

start_node() {
    local index=$1 answer program=$BINARY
    if ! is_here "$(host_of "${nodes[index]}")"; then
        program=./horseshoe
        answer=$(on_node "$index" check "$LOG_DIR" "${nodes[index]}") || return 1
        if [[ $answer == stopped ]]; then
            copy_binary "$index" || return 1
        fi
    fi
    set_options "$index"
    answer=$(on_node "$index" start "$program" "$LOG_DIR" "$DATA_DIR" "$index" "${#nodes[@]}" "${nodes[@]}" \
        "${options[@]}") || return 1
    case $answer in
        "running "*) printf 'already running, process %s\n' "${answer#running }" ;;
        "started "*) printf 'started, process %s\n' "${answer#started }" ;;
        *) printf '%s\n' "$answer" && return 1 ;;
    esac
}

# Prints why node $1 ended, if it did.
ended() {
    local index=$1 answer
    answer=$(on_node "$index" check "$LOG_DIR" "${nodes[index]}" 2>&1) || return 1
    [[ $answer == stopped ]] || return 1
    printf 'node %s  %s  ended; the end of its log:\n' "$index" "${nodes[index]}" >&2
    on_node "$index" log "$LOG_DIR" "${nodes[index]}" >&2
}

# Prints what the nodes are waiting for, according to the first node with a reason in the output $1
# of `status`, once that reason has been the same for a second.
tell_waits() {
    local line reason=
    while IFS= read -r line; do
        if [[ $line =~ ^[^\ ]+:[0-9]+:\ . ]]; then
            reason=$line
            break
        fi
    done <<<"$1"
    if [[ $reason != "$waits_for" ]]; then
        waits_for=$reason waits_since=$SECONDS
    elif [[ -n $reason && $reason != "$told" ]] && ((SECONDS > waits_since + 1)); then
        told=$reason
        printf 'not ready: %s\n' "$reason" >&2
    fi
}

# Whether a quorum serves or, with INDEX, that node answers.
is_up() {
    local said
    if [[ -z $only ]]; then
        said=$("$BINARY" status --nodes "${asked[*]}" --timeout 1 2>/dev/null) && return
        tell_waits "$said"
        return 1
    else
        said=$("$BINARY" status --json --nodes "${asked[*]}" --timeout 1 2>/dev/null)
        case $?,$said in
            0,*'"reachable":true'*) up='a quorum serves' ;;
            *'"reachable":true'*) up='no quorum yet' ;;
            *) return 1 ;;
        esac
    fi
}

# A quorum may serve before a node has found out that it cannot start, so nodes that do not answer
# yet get another second.
none_ended() {
    local deadline=$((SECONDS + 2)) index said result=0
    while ((SECONDS < deadline)); do
        said=$("$BINARY" status --json --nodes "${asked[*]}" --timeout 1 2>/dev/null)
        [[ $said == *'"reachable":false'* ]] || break
        sleep 0.1
    done
    for index in "${chosen[@]}"; do
        ! ended "$index" || result=1
    done
    return "$result"
}

wait_until_up() {
    local deadline=$((SECONDS + LAUNCH_TIMEOUT)) index
    until is_up; do
        # A check of a node on another machine costs a connection, so those nodes are checked at the
        # end.
        for index in "${chosen[@]}"; do
            if is_here "$(host_of "${nodes[index]}")" && ended "$index"; then
                return 1
            fi
        done
        ((SECONDS < deadline)) || break
        sleep 0.1
    done
    if is_up; then
        none_ended
        return
    fi
    if [[ -z $only ]]; then
        printf 'no quorum serves after %s s:\n' "$LAUNCH_TIMEOUT" >&2
        "$BINARY" status --nodes "${nodes[*]}" --timeout 1 >&2
    else
        printf 'node %s does not answer after %s s\n' "$only" "$LAUNCH_TIMEOUT" >&2
    fi
    for index in "${chosen[@]}"; do
        ended "$index"
    done
    return 1
}

read_nodes
choose "${1-}"
only=${1:+${chosen[0]}}
# The nodes that must answer.
asked=("${nodes[@]}")
[[ -z $only ]] || asked=("${nodes[only]}")
find_binary
up='a quorum serves'
waits_for='' waits_since=0 told=''
for_each_chosen start_node
all_started=$?
((succeeded > 0)) || exit 1
wait_until_up || exit 1
if [[ -n $only ]]; then
    printf 'node %s answers: %s\n' "$only" "$up"
else
    printf '%s\n' "$up"
fi
exit "$all_started"
