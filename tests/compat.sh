#!/usr/bin/env bash
# Tests lib739kv from C, as installed: what the library exports and needs; its example, misuse, and
# 10,000 puts and gets against five nodes, one of which is killed and restarted during the run. The
# programs are built with gcc and clang, as far as these are installed, without and with sanitizers.
#
# usage: tests/compat.sh
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
export NODES='127.39.7.1:7391 127.39.7.1:7392 127.39.7.1:7393 127.39.7.1:7394 127.39.7.1:7395'
export DATA_DIR=$work/data LOG_DIR=$work/logs HORSESHOE_NODES=$NODES
read -ra servers <<<"$NODES"
target=${CARGO_TARGET_DIR:-$root/target}
[[ $target == /* ]] || target=$root/$target
prefix=$work/prefix
library=$prefix/lib/lib739kv.so
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
export BINARY=$target/release/horseshoe
# A sanitizer's report ends the program.
export ASAN_OPTIONS=abort_on_error=0:exitcode=86 UBSAN_OPTIONS=halt_on_error=1

clean_up() {
    "$root/kill.sh" -9 >/dev/null 2>&1 || true
    rm -rf -- "$work"
}
trap clean_up EXIT

fail() {
    printf 'FAILED  %s\n' "$*" >&2
    exit 1
}

holds() {
    printf 'ok      %s\n' "$*"
}

build_and_install() {
    cargo build --quiet --release --manifest-path "$root/Cargo.toml"
    "$root/client-lib/install.sh" --prefix "$prefix" >/dev/null || fail 'install.sh'
    read -ra flags < <(pkg-config --cflags --libs lib739kv) || fail 'pkg-config does not find lib739kv'
}

look_at_library() {
    local exported needed other bytes
    exported=$(nm -D --defined-only "$library" | awk '{ print $3 }' | sort | xargs)
    [[ $exported == 'kv739_fail kv739_get kv739_init kv739_put kv739_recover kv739_shutdown' ]] ||
        fail "the library exports: $exported"
    holds 'the library exports its six functions only'
    needed=$(LC_ALL=C readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    other=$(grep -vxE 'lib(c|m|gcc_s)\.so\.[0-9]+|ld-linux.*\.so\.[0-9]+' <<<"$needed" || true)
    [[ -n $needed && -z $other ]] || fail "the library needs: $needed"
    holds "it needs $(xargs <<<"$needed")"
    [[ $(LC_ALL=C readelf -d "$library") == *'(SONAME)'*'[lib739kv.so]'* ]] || fail 'its soname is another'
    strip -o "$work/stripped.so" "$library"
    bytes=$(stat -c %s "$work/stripped.so")
    ((bytes < 1400000)) || fail "stripped it has $bytes bytes"
    holds "stripped it has $bytes bytes"
}

# compile COMPILER SUFFIX FLAG...: builds the programs as $work/NAME-SUFFIX.
compile() {
    local compiler=$1 suffix=$2 source name
    shift 2
    for source in "$root"/client-lib/examples/c/kv739.c "$root"/tests/compat/{misuse,values}.c; do
        name=${source##*/}
        "$compiler" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O1 -g "$@" \
            "$source" -o "$work/${name%.c}-$suffix" "${flags[@]}" -Wl,-rpath,"$prefix/lib" -pthread || fail "$compiler $* $name"
    done
    holds "$compiler $*"
}

# Sets `built` to the suffixes of the programs.
compile_all() {
    local compiler sanitizers='-fsanitize=address,undefined'
    built=()
    for compiler in gcc clang; do
        if ! command -v "$compiler" >/dev/null; then
            continue
        fi
        compile "$compiler" "$compiler"
        built+=("$compiler")
        # A compiler may be installed without its sanitizers' libraries.
        if echo 'int main(void) { return 0; }' |
            "$compiler" "$sanitizers" -x c - -o "$work/empty" 2>/dev/null; then
            compile "$compiler" "$compiler-sanitized" "$sanitizers" -fno-sanitize-recover=all
            built+=("$compiler-sanitized")
        fi
    done
    [[ " ${built[*]} " == *' gcc-sanitized '* ]] || fail 'gcc and its sanitizers are missing: apt-get install gcc'
    if command -v g++ >/dev/null; then
        echo '#include <lib739kv.h>' | g++ -std=c++17 -Wall -Wextra -Werror -pedantic -fsyntax-only \
            -I"$prefix/include" -x c++ - || fail 'lib739kv.h in C++'
        holds 'C++ takes the header'
    fi
}

example() {
    local suffix said run=0
    for suffix in "${built[@]}"; do
        said=$("$work/kv739-$suffix" "${servers[@]}") || fail "kv739-$suffix"
        run=$((run + 1))
        [[ $said == "run $run" || $said == "run $run, after run $((run - 1))" ]] ||
            fail "kv739-$suffix said: $said"
    done
    holds 'the example counts its runs'
}

misuse() {
    local suffix said name
    printf 'x%.0s' {1..2049} >"$work/large"
    printf 'a\0b' >"$work/nul"
    for name in large nul; do
        "$BINARY" put "$name" - <"$work/$name" >/dev/null || fail "$name is not put"
    done
    for suffix in "${built[@]}"; do
        said=$(timeout 60 "$work/misuse-$suffix" "${servers[@]}" 2>&1) || fail "misuse-$suffix said: $said"
        [[ -z $said ]] || fail "misuse-$suffix printed: $said"
    done
    for name in large nul; do
        "$BINARY" get "$name" | cmp -s - "$work/$name" || fail "the value of $name was changed"
    done
    holds 'misuse ends in errors, in silence, and changes nothing'
}

# values SUFFIX: kills a node and restarts it when the program requests that.
values() {
    local program=$work/values-$1 word pid asked=''
    mkfifo "$work/to-$1" "$work/from-$1"
    timeout 60 "$program" "${servers[@]}" <"$work/to-$1" >"$work/from-$1" &
    pid=$!
    exec 3>"$work/to-$1"
    while read -r word; do
        case $word in
            kill) "$root/kill.sh" -9 2 >/dev/null || fail 'the node is not killed' ;;
            restart) "$root/launch.sh" 2 >/dev/null || fail 'the node does not start again' ;;
            *) fail "values said: $word" ;;
        esac
        asked+=" $word"
        echo "$word: done" >&3
    done <"$work/from-$1"
    exec 3>&-
    wait "$pid" || fail "values-$1"
    [[ $asked == ' kill restart' ]] || fail "no node was killed and started again:$asked"
    holds "10,000 puts and gets, $1, while a node is killed and started again: every value is right"
}

build_and_install
look_at_library
compile_all
"$root/launch.sh" >/dev/null || fail 'the nodes do not start'
example
misuse
values gcc-sanitized
