#!/usr/bin/env bash
# Fuzzes each target for ten seconds, or with --hour for an hour; if targets are named, only those.
# Needs a nightly toolchain and a C++ compiler. Inputs that failed are in artifacts/; the corpus
# grows in corpus/.
#   fuzz/run.sh [--hour | --seconds N] [TARGET ...]
set -euo pipefail
cd "$(dirname "$0")"

seconds=10
case "${1:-}" in
--hour) seconds=3600; shift ;;
--seconds) seconds=$2; shift 2 ;;
esac
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

host=$(rustc +nightly --version --verbose | sed -n 's/^host: //p')
# The flags of cargo-fuzz, but without the address sanitizer: the compiler checks the memory safety
# of the fuzzed code.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1"
cargo +nightly build --quiet --release --target "$host" --bins
# One well-formed example of each kind.
RUSTFLAGS='' cargo +nightly run --quiet --release --example seeds

found=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" artifacts
    from=("corpus/$target")
    if [ -d "seeds/$target" ]; then from+=("seeds/$target"); fi
    echo "$target: $seconds s"
    if ! "target/$host/release/$target" "${from[@]}" -max_total_time="$seconds" -max_len=65536 -verbosity=0 \
        -artifact_prefix="artifacts/$target-"; then
        echo "$target: FAILED; replay with fuzz/target/$host/release/$target FILE"
        found=1
    fi
done
exit $found
