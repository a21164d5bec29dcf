#!/usr/bin/env bash
# Shows which nodes can reach which: by the rules that are set here, and as the nodes report it.
set -uo pipefail
usage='usage: show.sh

Prints what the rules of the partition scripts let through in this network namespace, a row a sender and
a column a receiver, then `horseshoe status --links`.'
# shellcheck source=tests/partition/rules.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/rules.sh"

(($# == 0)) || usage_error "no arguments"
read_addresses

# Sets `end` to the end that a rule's words name (-s and --sport, or -d and --dport).
read_end() {
    local address_flag=$1 port_flag=$2 word before='' address='' port=''
    shift 2
    for word; do
        case $before in
            "$address_flag") address=$(spell_out "${word%/*}") ;;
            "$port_flag") port=$word ;;
        esac
        before=$word
    done
    end=${address:+$address,$port}
}

# Fills `found`: a map from "sender>receiver" to the rule's effect; an empty end stands for any.
read_rules() {
    local version program line words from to
    declare -gA found=()
    for version in 4 6; do
        program=$(find_program "$version") || continue
        chains_exist "$program" || continue
        while read -r line; do
            [[ $line == '-A HORSESHOE-'*' -j DROP' ]] || continue
            read -ra words <<<"$line"
            read_end -s --sport "${words[@]}" && from=$end
            read_end -d --dport "${words[@]}" && to=$end
            if [[ $line =~ --probability\ ([0-9.]+) ]]; then
                found[loss,$from'>'$to]=$(awk -v p="${BASH_REMATCH[1]}" 'BEGIN { printf "%.4g%%", p * 100 }')
            else
                found[${words[1]#HORSESHOE-},$from'>'$to]='cut'
            fi
        done < <("$program" -w -S)
    done
}

# Prints what happens to datagrams from end $1 to end $2; an empty end is a client.
show_cell() {
    local from=$1 to=$2 chain=CUT said
    [[ -n $from && -n $to ]] || chain=CLIENT
    said=${found[$chain,$from'>'$to]:-${found[loss,$from'>'$to]:-}}
    # Loss on all links has a rule per receiver and, towards clients, per sender.
    said=${said:-${found[loss,'>'$to]:-}}
    printf '  %-8s' "${said:-yes}"
}

show_rules() {
    local ends=() at from to
    for at in "${!nodes[@]}"; do
        ends+=("$(spell_out "${addresses[at]}"),${ports[at]}")
    done
    printf 'by the rules set here:\n%-10s' 'from \ to'
    printf '  %-8s' "${!nodes[@]}" clients
    printf '\n'
    for from in "${!nodes[@]}"; do
        printf '%-10s' "$from"
        for to in "${!nodes[@]}"; do
            if ((from == to)); then printf '  %-8s' -; else show_cell "${ends[from]}" "${ends[to]}"; fi
        done
        show_cell "${ends[from]}" ''
        printf '\n'
    done
    printf '%-10s' clients
    for to in "${!nodes[@]}"; do show_cell '' "${ends[to]}"; done
    printf '  %-8s\n' -
}

find_program 4 >/dev/null || find_program 6 >/dev/null || need_program 4
read_rules
show_rules
target=${CARGO_TARGET_DIR:-$root/target}
program=${BINARY:-$target/release/horseshoe}
[[ $program == /* ]] || program=$root/$program
[[ -x $program ]] || fail "there is no program $program to ask the nodes with"
printf '\nas the nodes see it:\n'
"$program" status --links --nodes "${nodes[*]}"
