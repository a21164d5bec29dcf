#!/usr/bin/env bash
# Cuts all links except those of a chain of the nodes: the horseshoe.
set -uo pipefail
usage='usage: chain.sh A B C [D ...]

Cuts every link between the named nodes but those between neighbours: of chain.sh 0 1 2 3 the links 0-1,
1-2 and 2-3 are left. A node that is not named keeps its links. heal.sh undoes it.'
# shellcheck source=tests/partition/rules.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/rules.sh"

read_addresses
(($# >= 3)) || usage_error "three nodes at least"
read_indices "$@"
for ((at = 0; at < ${#named[@]}; at++)); do
    for ((other = at + 2; other < ${#named[@]}; other++)); do
        cut_link "${named[at]}" "${named[other]}"
    done
done
set_rules
