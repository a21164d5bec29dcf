# shellcheck shell=bash
# Functions that the partition scripts share: the nodes of config.sh as addresses and ports, and
# iptables rules about them, in separate chains that INPUT of this network namespace calls.
#
# A rule between nodes matches address and port of both nodes, so it does not affect clients, which
# on one machine may have a node's address. Rules drop datagrams at the receiver: if the nodes are
# on several machines, run a script on each machine that should receive less.
#
#   HORSESHOE          called by INPUT; calls the three chains below
#   HORSESHOE-CUT      links between nodes that are cut
#   HORSESHOE-CLIENT   nodes that no client reaches; returns messages between nodes
#   HORSESHOE-LOSS     random loss
#
# Each change is one iptables-restore, so that a split never exists by half.

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../.." && pwd) || exit 1
# shellcheck source=scripts/common.sh
source "$root/scripts/common.sh"

if [[ ${1-} == -h || ${1-} == --help ]]; then
    printf '%s\n' "${usage:-}"
    exit 0
fi

# Prints the first program that can set rules of IP version $1: a kernel may support only one.
find_program() {
    local name=iptables program
    [[ $1 == 4 ]] || name=ip6tables
    for program in "$name" "$name-legacy" "$name-nft"; do
        if type -P "$program-restore" >/dev/null && "$program" -w -S INPUT >/dev/null 2>&1; then
            printf '%s' "$program"
            return
        fi
    done
    return 1
}

# Sets `program` for IP version $1, or reports what is missing.
need_program() {
    if ! program=$(find_program "$1"); then
        type -P iptables >/dev/null || fail "iptables is missing: apt-get install iptables"
        ((EUID == 0)) || fail "rules are set by root only; without root there is lab.sh"
        fail "no iptables program works here for IPv$1"
    fi
}

# Fills `addresses`, `ports` and `versions` (4 or 6) beside `nodes`.
read_addresses() {
    local node host address port
    read_nodes
    addresses=() ports=() versions=()
    for node in "${nodes[@]}"; do
        port=${node##*:} host=${node%:*}
        host=${host#[} host=${host%]}
        [[ $node == *:* && $port =~ ^[0-9]{1,5}$ ]] || usage_error "$node is no HOST:PORT"
        address=$host
        if [[ $host != *:* && ! $host =~ ^[0-9]+(\.[0-9]+){3}$ ]]; then
            read -r address _ < <(getent ahostsv4 "$host" || getent ahostsv6 "$host") ||
                fail "$host has no address"
        fi
        addresses+=("$address") ports+=("$port")
        if [[ $address == *:* ]]; then versions+=(6); else versions+=(4); fi
    done
    rules=([4]='' [6]='')
}

# Sets `index` from the word $1.
read_index() {
    choose "$1"
    # shellcheck disable=SC2154 # `chosen` is what it sets
    index=${chosen[0]}
}

# Fills `named` with the indexes that the words name, each once.
read_indices() {
    local word seen=' '
    named=()
    for word; do
        [[ -n $word ]] || usage_error "an index is missing"
        read_index "$word"
        [[ $seen != *" $index "* ]] || usage_error "node $index is named twice"
        seen+="$index "
        named+=("$index")
    done
}

# Sets `match` to what matches datagrams from node $1, or to node $1.
from_node() { printf -v match -- '-p udp -s %s --sport %s' "${addresses[$1]}" "${ports[$1]}"; }
to_node() { printf -v match -- '-p udp -d %s --dport %s' "${addresses[$1]}" "${ports[$1]}"; }
between() {
    ((versions[$1] == versions[$2])) ||
        fail "nodes $1 and $2 have addresses of different IP versions"
    printf -v match -- '-p udp -s %s --sport %s -d %s --dport %s' \
        "${addresses[$1]}" "${ports[$1]}" "${addresses[$2]}" "${ports[$2]}"
}

# Adds a rule to a pending list: of node $1's IP version, chain HORSESHOE-$2, the last match, and
# the rest.
add_rule() {
    local node=$1 chain=$2
    shift 2
    rules[versions[node]]+="-A HORSESHOE-$chain $match $*"$'\n'
}

cut_one_way() {
    between "$1" "$2"
    add_rule "$1" CUT -j DROP
}

cut_link() {
    cut_one_way "$1" "$2"
    cut_one_way "$2" "$1"
}

chains_exist() {
    "$1" -w -S HORSESHOE >/dev/null 2>&1
}

restore() {
    "$1-restore" -w --noflush || fail "$1 did not take the rules"
}

# Sets all pending rules at once; empties the chain HORSESHOE-$emptied first, if one is named.
emptied=
set_rules() {
    local version head
    for version in 4 6; do
        [[ -n ${rules[version]} ]] || continue
        need_program "$version"
        head='*filter'$'\n'
        if ! chains_exist "$program"; then
            head+=':HORSESHOE - [0:0]
:HORSESHOE-CUT - [0:0]
:HORSESHOE-CLIENT - [0:0]
:HORSESHOE-LOSS - [0:0]
-A HORSESHOE -j HORSESHOE-CUT
-A HORSESHOE -j HORSESHOE-CLIENT
-A HORSESHOE -j HORSESHOE-LOSS
-I INPUT -j HORSESHOE
'
        elif [[ -n $emptied ]]; then
            head+="-F HORSESHOE-$emptied"$'\n'
        fi
        restore "$program" <<<"$head${rules[version]}COMMIT"
    done
}

# Removes all rules, of both IP versions.
remove_rules() {
    local version program found=
    for version in 4 6; do
        program=$(find_program "$version") || continue
        found=1
        chains_exist "$program" || continue
        restore "$program" <<'RULES'
*filter
-D INPUT -j HORSESHOE
-F HORSESHOE
-F HORSESHOE-CUT
-F HORSESHOE-CLIENT
-F HORSESHOE-LOSS
-X HORSESHOE
-X HORSESHOE-CUT
-X HORSESHOE-CLIENT
-X HORSESHOE-LOSS
COMMIT
RULES
    done
    [[ -n $found ]] || need_program 4
}
