#!/usr/bin/env bash
# Runs a cluster in a separate network namespace.
set -uo pipefail
usage='usage: lab.sh [--bare] [CMD [ARGUMENT ...]]

Opens a private network namespace, starts a cluster in it with one address per node (127.0.0.1:8801,
127.0.0.2:8802, ...), runs CMD, or a shell, and stops the cluster. The network of this machine is not touched,
and all processes end with the namespace. CMD finds NODES, BINARY and LOG_DIR in its environment, and
`horseshoe` on its path. The exit status is that of CMD. With --bare no
cluster is started, and no program built.

  LAB_NODES   how many nodes, 1 to 9 (5)
  DATA_DIR    keeps the state there; else it is in memory only
  LOG_DIR     keeps the logs there; else they are kept only if something failed
  BINARY      the program; else it is built

Without root it works where user namespaces are allowed.'
# The values that were given, before config.sh sets its defaults.
log_dir=${LOG_DIR-} data_dir=${DATA_DIR-}
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=tests/partition/rules.sh
source "$here/rules.sh"

# Sets `enter` to the best command that can enter a namespace on this machine.
find_way_in() {
    local tool way
    for tool in unshare ip iptables; do
        type -P "$tool" >/dev/null ||
            fail "$tool is missing: apt-get install util-linux iproute2 iptables"
    done
    # In a separate process-id namespace no process can outlive the lab; a container may forbid
    # that.
    for way in '--net --pid --fork --kill-child --mount-proc' '--net'; do
        read -ra enter <<<"$way"
        ((EUID == 0)) || enter+=(--map-root-user)
        ! unshare "${enter[@]}" true 2>/dev/null || return 0
    done
    if ((EUID == 0)); then
        fail "a network namespace can't be made here: $(unshare --net true 2>&1)"
    fi
    fail "user namespaces are not allowed here; run it as root: $(unshare --net --map-root-user true 2>&1)"
}

# Sets BINARY to an absolute path, and builds it if none was given: the namespace has no network.
find_binary() {
    if [[ -z $BINARY ]]; then
        local target=${CARGO_TARGET_DIR:-$root/target}
        [[ $target == /* ]] || target=$PWD/$target
        (cd -- "$root" && CARGO_TARGET_DIR=$target cargo build --release --locked --quiet --bin horseshoe >&2) ||
            fail "the build failed"
        BINARY=$target/release/horseshoe
    fi
    [[ $BINARY == /* ]] || BINARY=$root/$BINARY
    [[ -x $BINARY ]] || fail "there is no program $BINARY"
}

outside() {
    local count=${LAB_NODES:-5} index status=0 logs_are_kept=
    [[ $count =~ ^[1-9]$ ]] || usage_error "LAB_NODES is $count, not 1 to 9"
    find_way_in
    [[ -n $bare ]] || find_binary
    NODES=
    for ((index = 1; index <= count; index++)); do
        NODES+="127.0.0.$index:880$index "
    done
    NODES=${NODES% }
    [[ $log_dir == '' ]] || logs_are_kept=1
    LOG_DIR=${log_dir:-$(mktemp -d --suffix=-horseshoe-lab)} || fail "no temporary directory"
    LOG_DIR=$(readlink -m -- "$LOG_DIR")
    DATA_DIR=${data_dir:+$(readlink -m -- "$data_dir")}
    mkdir -p -- "$LOG_DIR" || fail "the directory $LOG_DIR can't be made"
    [[ -n $bare ]] || ln -sfn -- "$BINARY" "$scratch/horseshoe"
    export NODES BINARY LOG_DIR DATA_DIR PATH=$scratch:$PATH
    unset SSH_ALWAYS HORSESHOE_NODES HORSESHOE_DATA_DIR
    unshare "${enter[@]}" bash "$here/lab.sh" --inside "$bare" "$@" || status=$?
    if [[ -z $logs_are_kept ]] && ((status == 0)); then
        rm -rf -- "$LOG_DIR"
    else
        printf 'lab.sh: logs are in %s\n' "$LOG_DIR" >&2
    fi
    return "$status"
}

inside() {
    local status=0 bare=$1
    shift
    ip link set lo up || fail "the loopback interface can't be brought up"
    # The default is in a directory that only root of the host may write to.
    export XTABLES_LOCKFILE=$LOG_DIR/xtables.lock HORSESHOE_LAB=1
    if [[ -z $bare ]]; then
        "$root/launch.sh" >&2 || status=$?
    fi
    if ((status == 0)); then
        if (($# == 0)); then
            set -- bash -i
            printf 'a private network with NODES=%q; try: horseshoe status; tests/partition/show.sh\n' "$NODES"
        fi
        "$@"
        status=$?
    fi
    [[ -n $bare ]] || "$root/kill.sh" >&2 || status=1
    return "$status"
}

case ${1-} in
    --inside)
        shift
        inside "$@"
        ;;
    *)
        bare=
        if [[ ${1-} == --bare ]]; then
            bare=1
            shift
        fi
        [[ ${1-} != --* ]] || usage_error "there is no $1"
        outside "$@"
        ;;
esac
