#!/usr/bin/env bash
# Cuts single links between nodes, or separates nodes from their clients.
set -uo pipefail
usage='usage: cut.sh [--one-way] A B [A B ...]
       cut.sh --client A [A ...]

Cuts the link between nodes A and B (indices in NODES of config.sh, from 0); with --one-way only what
A sends to B. With --client no client reaches node A, while the nodes still do. heal.sh undoes it.'
# shellcheck source=tests/partition/rules.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/rules.sh"

mode=${1-}
case $mode in
    --one-way | --client) shift ;;
    --*) usage_error "there is no $mode" ;;
    *) mode=both ;;
esac
read_addresses
(($# > 0)) || usage_error "which nodes?"

# A rule accepts the messages between nodes before the next one drops those of clients.
cut_clients() {
    local from to
    for from in "${!nodes[@]}"; do
        for to in "${named[@]}"; do
            ((from != to && versions[from] == versions[to])) || continue
            between "$from" "$to"
            add_rule "$from" CLIENT -j RETURN
            between "$to" "$from"
            add_rule "$to" CLIENT -j RETURN
        done
    done
    for to in "${named[@]}"; do
        to_node "$to"
        add_rule "$to" CLIENT -j DROP
        from_node "$to"
        add_rule "$to" CLIENT -j DROP
    done
}

if [[ $mode == --client ]]; then
    read_indices "$@"
    cut_clients
else
    (($# % 2 == 0)) || usage_error "links are named by two nodes each"
    while (($# > 0)); do
        read_indices "$1" "$2"
        if [[ $mode == both ]]; then
            cut_link "${named[@]}"
        else
            cut_one_way "${named[@]}"
        fi
        shift 2
    done
fi
set_rules
