#!/usr/bin/env bash
# Tests libkvclient as applications use it: installed, found, and linked in every way for which
# there is a compiler, under sanitizers, against five real nodes, one of which is killed and
# restarted. Prints one line per check; the last line counts them.
#
#   tests/capi.sh              the checks
#   tests/capi.sh --latency    a waiting put through C beside `horseshoe bench`: medians of five
#                              alternating runs, on nodes in memory; fails if C is 10 % slower
set -uo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
work=$(mktemp -d) || exit 1
# shellcheck source=tests/checks.sh
source "$root/tests/checks.sh"

export NODES='127.78.0.1:18411 127.78.0.1:18412 127.78.0.1:18413 127.78.0.1:18414 127.78.0.1:18415'
export DATA_DIR=$work/data LOG_DIR=$work/logs
list=${NODES// /,}
target=${CARGO_TARGET_DIR:-$root/target}
[[ $target == /* ]] || target=$root/$target
horseshoe=$target/release/horseshoe
prefix="$work/the prefix"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
export UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=detect_leaks=1
readonly PROGRAM_TIME_MAX_S=60
readonly LATENCY_RUNS=5 LATENCY_RUN_S=4 LATENCY_RATIO_MAX=1.10

clean_up() {
    "$root/kill.sh" -9 >/dev/null 2>&1
    rm -rf -- "$work"
}
trap clean_up EXIT

skipped() {
    printf 'skipped %s\n' "$*"
}

build_and_install() {
    run cargo build --quiet --release --manifest-path "$root/Cargo.toml"
    check 'a plain release build' gave 0 '*'
    run "$root/client-lib/install.sh" --prefix "$prefix"
    check 'install' gave 0 "*$prefix/lib/libkvclient.so.*$prefix/lib/pkgconfig/kvclient.pc*"
    ((failed == 0)) || exit 1
}

# Checks the file that was built, and that it contains nothing that a user does not need.
library() {
    local so=$prefix/lib/libkvclient.so stripped=$work/stripped.so
    nm -D --defined-only "$so" | cut -d' ' -f3 | sort >"$work/exported"
    grep -o '\<kvc_[a-z_]*(' "$root/client-lib/include/kvclient.h" | tr -d '(' | sort -u >"$work/declared"
    run diff "$work/declared" "$work/exported"
    check 'what the header declares is exported, and nothing else' gave 0 ''
    strip -o "$stripped" "$so"
    run stat -c %s "$stripped"
    check "stripped it has under 1.4 MB ($said)" test "$said" -lt 1400000
    run sh -c 'LC_ALL=C readelf -d "$1" | sed -n "s/.*(NEEDED).*\[\(.*\)\]/\1/p" |
        grep -Ev "^(libc|libm|libgcc_s|ld-linux[^.]*)\.so\.[0-9]+$"' - "$so"
    check 'it needs libc, libm, libgcc_s and the loader at most' gave 1 ''
    run sh -c 'LC_ALL=C readelf -d "$1" | grep SONAME' - "$so"
    check 'its name has the number of the binary interface' gave 0 '*\[libkvclient.so.0\]'
    run readlink -f "$prefix/lib/libkvclient.so.0"
    check 'the links lead to the file' gave 0 "*/libkvclient.so.*.*.*"
}

installer() {
    run "$root/client-lib/install.sh" --prefix relative
    check 'a relative prefix is refused' gave 2 '*no absolute path*'
    run "$root/client-lib/install.sh" --frobnicate
    check 'an unknown argument is refused' gave 2 '*not known*usage:*'
    run env CARGO_TARGET_DIR="$work/nothing" "$root/client-lib/install.sh" --prefix "$work/other"
    check 'without a build there is nothing to install' gave 1 '*build it: cargo build --release*'
    run "$root/client-lib/install.sh" --prefix /usr --destdir "$work/package"
    check 'install below another directory' gave 0 "*$work/package/usr/include/kvclient.h*"
    run cat "$work/package/usr/lib/pkgconfig/kvclient.pc"
    check 'tells of the prefix only' gave 0 '*prefix=/usr'$'\n''*'
    if command -v man groff >/dev/null; then
        run sh -c 'LC_ALL=C.UTF-8 man --warnings -l "$1" >"$2"' - "$prefix/share/man/man3/kvclient.3" "$work/page"
        check 'the man page has no warnings' gave 0 ''
        check 'and names the calls' grep -q kvc_completions "$work/page"
    else
        skipped 'the man page: no man'
    fi
}

# compile COMPILER FLAGS... SOURCE OUTPUT: compiles with the installed library.
compile() {
    local compiler=$1 source=${*: -2:1} output=${*: -1} standard=-std=c11 flags
    shift
    [[ $source != *pp ]] || standard=-std=c++17
    eval "flags=($(pkg-config --cflags kvclient))"
    "$compiler" $standard -Wall -Wextra -Werror -O1 -g "${flags[@]}" "${@:1:$#-2}" \
        "$source" -x none "${libraries[@]}" -pthread -o "$output"
}

# The programs, each with its last line of output.
programs() {
    printf '%s\n' \
        "client-lib/examples/c/hello.c|*now it is not found" \
        "client-lib/examples/c/hello.cpp|*counted to 10" \
        "client-lib/examples/c/counter.c|50 threads added 1 100 times each: 5000, success" \
        "client-lib/examples/c/epoll.c|20000 done, 1000 in flight at once, success" \
        "tests/capi/misuse.c|misuse: +([0-9]) checks hold"
}

# programs_with NAME C C++ FLAGS...: builds and runs all programs.
programs_with() {
    local name=$1 c=$2 cpp=$3 source ending compiler
    shift 3
    while IFS='|' read -r source ending; do
        compiler=$c
        [[ $source != *pp ]] || compiler=$cpp
        run compile "$compiler" "$@" "$root/$source" "$work/program"
        check "$compiler, $name: ${source##*/} compiles" gave 0 ''
        # The program prints its own output, and the library prints nothing.
        run timeout "$PROGRAM_TIME_MAX_S" "$work/program" "$list"
        check "$compiler, $name: ${source##*/} runs" gave 0 "$ending"
    done < <(programs)
}

# can COMPILER FLAGS...: whether such a program compiles and runs on this machine.
can() {
    echo 'int main(void) { return 0; }' >"$work/empty.c"
    if ! "$@" "$work/empty.c" -o "$work/empty" 2>"$work/reason" || ! "$work/empty" 2>"$work/reason"; then
        skipped "$*: $(head -n 1 "$work/reason")"
        return 1
    fi
}

every_way() {
    local c cpp shared static
    local sanitizers=('-fsanitize=address,undefined' -fno-sanitize-recover=all)
    eval "shared=($(pkg-config --libs kvclient))"
    static=("$prefix/lib/libkvclient.a")
    while read -r c cpp; do
        if ! command -v "$c" >/dev/null || ! command -v "$cpp" >/dev/null; then
            skipped "$c and $cpp: not there"
            continue
        fi
        run "$c" -x c -std=c11 -pedantic -Wall -Wextra -Werror -fsyntax-only "$prefix/include/kvclient.h"
        check "$c: the header by itself" gave 0 ''
        for header in kvclient.h kvclient.hpp; do
            run "$cpp" -x c++ -std=c++17 -pedantic -Wall -Wextra -Werror \
                -fno-exceptions -fsyntax-only "$prefix/include/$header"
            check "$cpp: $header by itself" gave 0 ''
        done
        libraries=("${shared[@]}")
        programs_with 'shared' "$c" "$cpp"
        libraries=("${static[@]}")
        programs_with 'static' "$c" "$cpp"
        if can "$c" "${sanitizers[@]}"; then
            programs_with 'static, sanitizers' "$c" "$cpp" "${sanitizers[@]}"
            libraries=("${shared[@]}")
            programs_with 'shared, sanitizers' "$c" "$cpp" "${sanitizers[@]}"
        fi
        libraries=("${shared[@]}")
        threads "$c"
    done <<'END'
gcc g++
clang clang++
END
}

# The thread sanitizer does not know the library's own locks, so it checks the program only.
threads() {
    local suppressions=$work/suppressions
    echo 'called_from_lib:libkvclient.so' >"$suppressions"
    can "$1" -fsanitize=thread || return
    run compile "$1" -fsanitize=thread "$root/client-lib/examples/c/counter.c" "$work/program"
    check "$1, thread sanitizer: counter.c compiles" gave 0 ''
    run env TSAN_OPTIONS="suppressions='$suppressions' halt_on_error=1" \
        timeout "$PROGRAM_TIME_MAX_S" "$work/program" "$list"
    check "$1, thread sanitizer: counter.c runs" gave 0 '50 threads added 1 100 times each: 5000, success'
}

cmake_project() {
    if ! command -v cmake >/dev/null; then
        skipped 'CMake: not there'
        return
    fi
    mkdir "$work/project"
    cat >"$work/project/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.13)
project(hello LANGUAGES C CXX)
find_package(kvclient 0.1 REQUIRED)
add_executable(shared "$root/client-lib/examples/c/hello.c")
target_link_libraries(shared PRIVATE kvclient::kvclient)
add_executable(static "$root/client-lib/examples/c/hello.cpp")
target_compile_features(static PRIVATE cxx_std_17)
target_link_libraries(static PRIVATE kvclient::kvclient_static)
END
    run cmake -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$prefix"
    check 'CMake finds the package' gave 0 '*'
    run cmake --build "$work/project/build"
    check 'and builds with it' gave 0 '*'
    run "$work/project/build/shared" "$list"
    check 'the program links the shared library' gave 0 '*not found'
    run env -u LD_LIBRARY_PATH "$work/project/build/static" "$list"
    check 'or the static one' gave 0 '*counted to 10'
}

# A node is killed and restarted while 10,000 puts and gets run.
node_lost() {
    local pid
    eval "libraries=($(pkg-config --libs kvclient))"
    run compile gcc "$root/tests/capi/values.c" "$work/values"
    check 'values.c compiles' gave 0 ''
    "$work/values" "$list" 10000 "$work/over" >"$work/said" 2>&1 &
    pid=$!
    for ((tries = 0; tries < PROGRAM_TIME_MAX_S * 10; tries++)); do
        [[ ! -e $work/over.started ]] || break
        sleep 0.1
    done
    run "$root/kill.sh" -9 1
    check 'a node is killed meanwhile' gave 0 'node 1 *stopped*'
    run "$root/launch.sh" 1
    check 'and started again' gave 0 'node 1 *started*'
    touch "$work/over"
    wait "$pid"
    status=$? said=$(<"$work/said")
    check '10,000 puts and gets: no error, no wrong value' gave 0 'values: * puts, 0 errors or wrong values'
}

median() {
    printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"
}

latency() {
    local c=() rust=() ratio
    eval "libraries=($(pkg-config --libs kvclient))"
    compile gcc "$root/tests/capi/latency.c" "$work/latency" || exit 1
    # Writes the keys once, so that they exist for both programs.
    "$horseshoe" bench --nodes "$NODES" --clients 1 --mix 0:1 --duration 1s >/dev/null 2>&1 || exit 1
    for ((i = 0; i < LATENCY_RUNS; i++)); do
        c+=("$("$work/latency" "$list" "$LATENCY_RUN_S")") || exit 1
        rust+=("$("$horseshoe" bench --json --nodes "$NODES" --clients 1 --mix 0:1 \
            --duration "${LATENCY_RUN_S}s" 2>/dev/null | grep -o '"p50_us":[0-9.]*' | tail -n 1 | cut -d: -f2)")
        printf 'run %s: C %s us, horseshoe bench %s us\n' "$i" "${c[i]}" "${rust[i]}"
    done
    ratio=$(awk "BEGIN { print $(median "${c[@]}") / $(median "${rust[@]}") }")
    check "median of the p50s: C $(median "${c[@]}") us, bench $(median "${rust[@]}") us, ratio $ratio" \
        awk "BEGIN { exit !($ratio < $LATENCY_RATIO_MAX) }"
}

shopt -s extglob
# `run` and `is` set these.
status=0 said=
build_and_install
case ${1-} in
    '')
        library
        installer
        ;;
    --latency) export DATA_DIR='' ;;
    *)
        echo "usage: tests/capi.sh [--latency]" >&2
        exit 2
        ;;
esac
run "$root/launch.sh"
check 'five nodes serve' gave 0 '*a quorum serves'
if [[ ${1-} == --latency ]]; then
    latency
else
    every_way
    cmake_project
    node_lost
fi
count_checks
