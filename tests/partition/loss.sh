#!/usr/bin/env bash
# Drops datagrams at random.
set -uo pipefail
usage='usage: loss.sh PERCENT [A B]

Drops PERCENT of the datagrams between nodes, and between nodes and clients; or only of those between
nodes A and B, in either direction. The first form takes the place of any loss set before; with 0 there
is none. heal.sh undoes it.'
# shellcheck source=tests/partition/rules.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/rules.sh"

read_addresses
(($# == 1 || $# == 3)) || usage_error "a percentage, and no node or two"
percent=$1
[[ $percent =~ ^[0-9]{1,3}(\.[0-9]{1,6})?$ ]] || usage_error "$percent is no percentage"
probability=$(awk -v percent="$percent" 'BEGIN { if (percent > 100) exit 1; printf "%.9f", percent / 100 }') ||
    usage_error "$percent is more than 100"
drop=(-m statistic --mode random --probability "$probability" -j DROP)

if (($# == 3)); then
    read_indices "$2" "$3"
    between "${named[0]}" "${named[1]}"
    add_rule "${named[0]}" LOSS "${drop[@]}"
    between "${named[1]}" "${named[0]}"
    add_rule "${named[1]}" LOSS "${drop[@]}"
    set_rules
    exit
fi

# Exactly one random decision per datagram: by its destination or, if that is a client, by its
# source.
for node in "${!nodes[@]}"; do
    to_node "$node"
    add_rule "$node" LOSS "${drop[@]}"
    add_rule "$node" LOSS -j RETURN
done
for node in "${!nodes[@]}"; do
    from_node "$node"
    add_rule "$node" LOSS "${drop[@]}"
done
emptied=LOSS
set_rules
