#!/usr/bin/env bash
# Stops the nodes of config.sh, or the one at INDEX, on this machine or over ssh.
set -uo pipefail
usage='usage: kill.sh [-9] [INDEX]

Stops all nodes of NODES that launch.sh started, or the one at INDEX (from 0), and waits until they
have ended. With -9 they are killed without a clean stop. Settings are in config.sh, or in the environment.'

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd) || exit 1
signal=TERM
index=
for argument; do
    case $argument in
        -h | --help)
            printf '%s\n' "$usage"
            exit 0
            ;;
        -9) signal=KILL ;;
        -*) index=$argument ;;
        *)
            [[ -z $index ]] || index='more than one'
            index=${index:-$argument}
            ;;
    esac
done
# shellcheck source=scripts/common.sh
source "$root/scripts/common.sh"

stop_node() {
    local index=$1 answer
    answer=$(on_node "$index" stop "$LOG_DIR" "${nodes[index]}" "$signal" "$KILL_TIMEOUT") || return 1
    case $answer in
        "stopped "*) printf 'stopped, process %s\n' "${answer#stopped }" ;;
        absent) printf 'was not running\n' ;;
        *) printf '%s\n' "$answer" && return 1 ;;
    esac
}

read_nodes
choose "$index"
for_each_chosen stop_node
