# shellcheck shell=bash
# Code that launch.sh and kill.sh share: the settings, the list of nodes, and running node.sh on the
# machine of a node. Both source this file, with `root` set to the directory that contains them.

: "${root:?}"
# shellcheck source=config.sh
source "$root/config.sh"

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

usage_error() {
    printf '%s: %s\n%s\n' "${0##*/}" "$*" "${usage:-}" >&2
    exit 2
}

# Sets the setting $1, which is a switch, to 1 or to the empty string.
set_switch() {
    case ${!1} in
        '' | 0 | no | false) printf -v "$1" '' ;;
        1 | yes | true) printf -v "$1" 1 ;;
        *) fail "$1 is ${!1}: 1, yes and true turn it on; 0, no, false and nothing turn it off" ;;
    esac
}

# Fills `nodes` from NODES.
read_nodes() {
    local IFS=$' ,\t\n' list=() node
    read -rd '' -a list <<<"$NODES" || true
    nodes=()
    for node in "${list[@]}"; do
        [[ -z $node ]] || nodes+=("$node")
    done
    ((${#nodes[@]} > 0)) || usage_error "NODES is empty"
}

# Fills `chosen` with the indexes that the argument $1 selects: that index, or all if $1 is empty.
choose() {
    if [[ -z $1 ]]; then
        chosen=("${!nodes[@]}")
        return
    fi
    [[ $1 =~ ^[0-9]{1,3}$ ]] || usage_error "$1 is not an index"
    chosen=("$((10#$1))")
    ((chosen[0] < ${#nodes[@]})) ||
        usage_error "there is no node $1: the ${#nodes[@]} nodes count from 0"
}

host_of() {
    local host=${1%:*}
    host=${host#[}
    printf '%s' "${host%]}"
}

# The addresses of this machine, one per line, as the kernel lists them.
own_addresses() {
    local line before='' word rest part
    while read -r line; do
        if [[ $line == *'/32 host LOCAL'* ]]; then
            printf '%s\n' "${before##* }"
        fi
        before=$line
    done </proc/net/fib_trie 2>/dev/null
    # shellcheck disable=SC2034
    while read -r word rest; do
        part=${word//????/&:}
        printf '%s\n' "${part%:}"
    done </proc/net/if_inet6 2>/dev/null
}

# Prints an IPv6 address as eight groups of four digits, and anything else unchanged.
spell_out() {
    local address=${1%%\%*} head tail group groups=() zeros
    if [[ $address != *:* ]]; then
        printf '%s' "$1"
        return
    fi
    head=${address%%::*} tail=
    [[ $address != *::* ]] || tail=${address#*::}
    local IFS=:
    # shellcheck disable=SC2206
    local front=($head) back=($tail)
    unset IFS
    groups=("${front[@]}")
    for ((zeros = ${#front[@]} + ${#back[@]}; zeros < 8; zeros++)); do
        groups+=(0)
    done
    groups+=("${back[@]}")
    address=
    for group in "${groups[@]}"; do
        [[ $group =~ ^[0-9a-fA-F]{1,4}$ ]] || group=0
        printf -v group '%04x' "0x$group"
        address+=:$group
    done
    printf '%s' "${address#:}"
}

# Whether host $1 is this machine.
is_here() {
    local host=$1 own address rest
    [[ $SSH_ALWAYS != 1 ]] || return 1
    case $host in
        localhost | 127.* | ::1 | "${HOSTNAME:-localhost}") return 0 ;;
    esac
    own=$'\n'$(own_addresses)$'\n'
    while read -r address rest; do
        address=$(spell_out "$address")
        [[ $address != 127.* && $own != *$'\n'"$address"$'\n'* ]] || return 0
    done < <(printf '%s\n' "$host" && getent ahosts "$host" 2>/dev/null)
    return 1
}

# Runs command $2, quoted for the shell there, on host $1, with the standard input of this script.
over_ssh() {
    local host=$1 options=(-o BatchMode=yes -o ConnectTimeout=5)
    [[ -z $SSH_KEY ]] || options+=(-i "$SSH_KEY")
    ssh "${options[@]}" -- "${SSH_USER:+$SSH_USER@}$host" "$2"
}

# Runs verb $2 of node.sh, with the rest as its arguments, on the machine of node $1.
on_node() {
    local index=$1 verb=$2 host words
    shift 2
    host=$(host_of "${nodes[index]}")
    if is_here "$host"; then
        bash "$root/scripts/node.sh" "$verb" "$root" "$@"
    else
        printf -v words '%q ' "$verb" "$REMOTE_PATH" "$@"
        over_ssh "$host" "bash -s -- $words" <"$root/scripts/node.sh"
    fi
}

# Runs function $1 with each index in `chosen`, all concurrently; then shows the output of each, in
# order. Fails if one failed. Sets `succeeded`, the number of those that did not.
for_each_chosen() {
    local action=$1 index processes=() failed=0
    succeeded=0
    for index in "${chosen[@]}"; do
        "$action" "$index" >"$scratch/$index" 2>&1 &
        processes[index]=$!
    done
    for index in "${chosen[@]}"; do
        if wait "${processes[index]}"; then
            printf 'node %s  %s  %s\n' "$index" "${nodes[index]}" "$(<"$scratch/$index")"
            succeeded=$((succeeded + 1))
        else
            printf 'node %s  %s  failed: %s\n' "$index" "${nodes[index]}" "$(<"$scratch/$index")" >&2
            failed=1
        fi
    done
    return "$failed"
}

set_switch SSH_ALWAYS
scratch=$(mktemp -d) || fail "no temporary directory"
trap 'rm -rf -- "$scratch"' EXIT
