#!/usr/bin/env bash
# Splits the nodes into groups that cannot reach each other.
set -uo pipefail
usage='usage: split.sh GROUP GROUP [GROUP ...]

Each GROUP is a list of nodes with commas: split.sh 0,1 2,3. Cuts every link between nodes of different
groups. A node in no group keeps all its links: split.sh 0,1 3,4 makes node 2 a bridge. heal.sh undoes it.'
# shellcheck source=tests/partition/rules.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/rules.sh"

read_addresses
(($# >= 2)) || usage_error "two groups at least"
groups=("$@")
all=()
for group in "${groups[@]}"; do
    [[ $group != *, && $group != ,* ]] || usage_error "$group is no list of nodes"
    IFS=, read -ra members <<<"$group"
    all+=("${members[@]}")
done
read_indices "${all[@]}"
for ((at = 0; at < ${#groups[@]}; at++)); do
    for ((other = at + 1; other < ${#groups[@]}; other++)); do
        IFS=, read -ra members <<<"${groups[at]}"
        IFS=, read -ra others <<<"${groups[other]}"
        for one in "${members[@]}"; do
            for two in "${others[@]}"; do
                cut_link "$((10#$one))" "$((10#$two))"
            done
        done
    done
done
set_rules
