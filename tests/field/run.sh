#!/usr/bin/env bash
# Runs the tests of real conditions: real processes, in a separate network namespace.
set -uo pipefail
usage='usage: run.sh [--all] [--list] [NAME ...]

Runs a sample of the field tests in at most three minutes; with --all also those that take longer.
With NAMEs, only the tests whose names contain one of them. tests/field/main.rs lists them by subject.'

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
cd -- "$here/../.." || exit 1
words=()
for argument; do
    case $argument in
        -h | --help) printf '%s\n' "$usage" && exit 0 ;;
        --all) words+=(--include-ignored) ;;
        --list) words+=(--list) ;;
        -*) printf 'run.sh: there is no %s\n%s\n' "$argument" "$usage" >&2 && exit 2 ;;
        *) words+=("$argument") ;;
    esac
done
# The namespace has no network from which to fetch anything.
cargo test --quiet --test field --no-run || exit 1
exec "$here/../partition/lab.sh" --bare cargo test --quiet --offline --test field -- --test-threads 2 "${words[@]}"
