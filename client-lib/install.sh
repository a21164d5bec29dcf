#!/usr/bin/env bash
# Installs the client libraries for C and C++ that `cargo build --release` built.
set -euo pipefail
usage='usage: install.sh [--prefix DIR] [--destdir DIR]

Installs headers, libraries, pkg-config and CMake files and the man page below DIR, an absolute path
(/usr/local). With --destdir they are put below that directory, as for a package, but made for the
prefix. Build first: cargo build --release'

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
prefix=/usr/local
destdir=

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit "${2-1}"
}

while (($# > 0)); do
    case $1 in
        -h | --help)
            printf '%s\n' "$usage"
            exit 0
            ;;
        --prefix | --destdir)
            (($# > 1)) || fail "$1 needs a directory"$'\n'"$usage" 2
            printf -v "${1#--}" '%s' "$2"
            shift
            ;;
        --prefix=*) prefix=${1#*=} ;;
        --destdir=*) destdir=${1#*=} ;;
        *) fail "$1 is not known"$'\n'"$usage" 2 ;;
    esac
    shift
done
[[ $prefix == /* ]] || fail "the prefix $prefix is no absolute path" 2
[[ $prefix != *[$'|&\\\n"\'$#']* ]] || fail "the prefix $prefix has characters that can't be in a .pc file" 2

target=${CARGO_TARGET_DIR:-$root/target}
[[ $target == /* ]] || target=$root/$target
from=$target/release
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
[[ $version ]] || fail "Cargo.toml tells no version"
to=$destdir$prefix

# file MODE FROM TO: installs a file and prints its path.
file() {
    install -D -m "$1" -- "$2" "$3"
    printf '%s\n' "$3"
}

# filled_in FROM TO: installs a file with the prefix and the version filled in.
filled_in() {
    install -d -- "${2%/*}"
    sed -e "s|@PREFIX@|$prefix|g" -e "s|@VERSION@|$version|g" -- "$1" >"$2"
    chmod 644 -- "$2"
    printf '%s\n' "$2"
}

# shared NAME: a shared library with its links: NAME.so -> its soname -> NAME.so.VERSION.
shared() {
    local soname
    soname=$(LC_ALL=C readelf -d "$from/$1.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
    if [[ -z $soname || $soname == "$1.so" ]]; then
        file 755 "$from/$1.so" "$to/lib/$1.so"
        return
    fi
    file 755 "$from/$1.so" "$to/lib/$1.so.$version"
    ln -sf -- "$1.so.$version" "$to/lib/$soname"
    ln -sf -- "$soname" "$to/lib/$1.so"
}

for name in libkvclient.so libkvclient.a; do
    [[ -e $from/$name ]] || fail "$from/$name is not there; build it: cargo build --release"
done
command -v readelf >/dev/null || fail "readelf is missing: apt-get install binutils"

shared libkvclient
file 644 "$from/libkvclient.a" "$to/lib/libkvclient.a"
file 644 "$root/client-lib/include/kvclient.h" "$to/include/kvclient.h"
file 644 "$root/client-lib/include/kvclient.hpp" "$to/include/kvclient.hpp"
filled_in "$root/client-lib/c/kvclient.pc.in" "$to/lib/pkgconfig/kvclient.pc"
file 644 "$root/client-lib/c/cmake/kvclientConfig.cmake" "$to/lib/cmake/kvclient/kvclientConfig.cmake"
filled_in "$root/client-lib/c/cmake/kvclientConfigVersion.cmake.in" \
    "$to/lib/cmake/kvclient/kvclientConfigVersion.cmake"
file 644 "$root/client-lib/man/kvclient.3" "$to/share/man/man3/kvclient.3"

# The other interface is a separate package.
if [[ -e $from/lib739kv.so && -e $root/client-lib/include/lib739kv.h ]]; then
    shared lib739kv
    file 644 "$root/client-lib/include/lib739kv.h" "$to/include/lib739kv.h"
    filled_in "$root/client-lib/compat/lib739kv.pc.in" "$to/lib/pkgconfig/lib739kv.pc"
fi
