#!/usr/bin/env bash
# Runs the load table: real processes, in a separate network namespace.
set -uo pipefail
usage='usage: run.sh [--all] [--list] [NAME ...]

Runs a sample of the load table with short loads, in about a minute; with --all all rows with their whole
loads and the release build, in about an hour. With NAMEs, only the rows whose names contain one of them. Each row prints its
figures. tests/load/main.rs lists the rows by subject.'

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
cd -- "$here/../.." || exit 1
target=$(readlink -m -- "${CARGO_TARGET_DIR:-target}")
words=()
for argument; do
    case $argument in
        -h | --help) printf '%s\n' "$usage" && exit 0 ;;
        --all) words+=(--include-ignored) && export LOAD_ALL=1 HORSESHOE_BIN=$target/release/horseshoe ;;
        --list) words+=(--list) ;;
        -*) printf 'run.sh: there is no %s\n%s\n' "$argument" "$usage" >&2 && exit 2 ;;
        *) words+=("$argument") ;;
    esac
done
# The namespace has no network from which to fetch anything.
cargo test --quiet --test load --no-run || exit 1
[[ -z ${HORSESHOE_BIN-} ]] || cargo build --quiet --release --bin horseshoe || exit 1
exec "$here/../partition/lab.sh" --bare cargo test --quiet --offline --test load -- --test-threads 1 --show-output "${words[@]}"
