#!/usr/bin/env bash
# Cuts nodes off from all other nodes.
set -uo pipefail
usage='usage: isolate.sh A [A ...]

Cuts all links of node A. Clients still reach it. heal.sh undoes it.'
# shellcheck source=tests/partition/rules.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/rules.sh"

read_addresses
(($# > 0)) || usage_error "which node?"
read_indices "$@"
((${#nodes[@]} > 1)) || fail "there are no other nodes"
seen=' '
for node in "${named[@]}"; do
    seen+="$node "
    for other in "${!nodes[@]}"; do
        [[ $seen == *" $other "* ]] || cut_link "$node" "$other"
    done
done
set_rules
