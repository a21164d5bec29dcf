#!/usr/bin/env bash
# Undoes all changes that the other scripts made to the network.
set -uo pipefail
usage='usage: heal.sh

Removes the chains of the partition scripts from iptables. No other rule is touched.'
# shellcheck source=tests/partition/rules.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/rules.sh"

(($# == 0)) || usage_error "no arguments"
remove_rules
