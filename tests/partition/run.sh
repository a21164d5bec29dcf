#!/usr/bin/env bash
# Runs scenarios of half-broken networks, with real processes and iptables, in a separate network
# namespace.
set -uo pipefail
usage='usage: run.sh [--failures] [--all] [--list] [NAME ...]
       run.sh --bank [SECONDS]

Runs a sample of the scenarios of scenarios.csv in at most five minutes, or all, or those whose names
begin with a NAME (chain, chain-5, graph-4); with --failures those of failures.csv. Prints a line each, and
what did not hold. With --bank clients move amounts between 50 accounts for 60 s, while nodes are killed, cut
off and restarted in turn; from 60 s on, the nodes are of the release build, and no client may wait for
longer than a second. SEED=n places the nodes and chooses the operations otherwise. Logs and histories of what
failed are kept in LOG_DIR.'

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
cd -- "$here/../.." || exit 1
if [[ ${1-} == -h || ${1-} == --help ]]; then
    printf '%s\n' "$usage"
    exit 0
fi
# The namespace has no network from which to fetch anything.
cargo test --quiet --test partition --no-run || exit 1
if [[ ${1-} == --bank ]] && ((${2-60} >= 60)); then
    cargo build --quiet --release --bin horseshoe || exit 1
    HORSESHOE_BIN=$(readlink -m -- "${CARGO_TARGET_DIR:-target}")/release/horseshoe
    export HORSESHOE_BIN
fi
exec "$here/lab.sh" --bare cargo test --quiet --offline --test partition -- "$@"
