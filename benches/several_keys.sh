#!/usr/bin/env bash
# Two-phase commit over five nodes beside single writes, and both beside one node alone. Prints a
# table, and draws docs/several-keys.svg from it; asserts nothing.
#
#   benches/several_keys.sh [OPERATIONS]     of each kind and run; 2,000 if not given
set -euo pipefail
cd "$(dirname "$0")/.."

operations=${1:-2000}
readonly RUNS=5
work=$(mktemp -d)
horseshoe=${CARGO_TARGET_DIR:-$PWD/target}/release/horseshoe
cargo build --quiet --release

clean_up() {
    ./kill.sh -9 >/dev/null 2>&1 || true
    rm -rf -- "$work"
}
trap clean_up EXIT

value=$(printf 'v%.0s' {1..100})
awk -v n="$operations" -v v="$value" 'BEGIN {
    for (i = 0; i < n; i++) printf "PUT,single/%d,%s\n", i % 500, v
}' >"$work/single"
awk -v n="$operations" -v v="$value" 'BEGIN {
    for (i = 0; i < n; i++) {
        printf "BEGIN\nPUT,from/%d,%s\nPUT,to/%d,%s\nCOMMIT\n", i % 500, v, i % 500, v
    }
}' >"$work/several"

# start COUNT DURABILITY: new nodes, without data.
start() {
    ./kill.sh -9 >/dev/null 2>&1 || true
    rm -rf -- "$work/data"
    NODES=$(for ((n = 1; n <= $1; n++)); do printf '127.79.0.%d:19%03d ' "$n" "$n"; done)
    export NODES DATA_DIR=$work/data LOG_DIR=$work/logs DURABILITY=$2
    ./launch.sh >/dev/null
}

# measure KIND: mean, standard deviation and operations a second of one run.
measure() {
    local line
    line=$("$horseshoe" --json --nodes "${NODES// /,}" run "$work/$1" | tail -n 1)
    for field in mean_us sd_us per_second; do
        sed "s/.*\"$field\":\([0-9.]*\).*/\1/" <<<"$line"
    done | paste -sd ' '
}

# The runs of both kinds alternate; the one with the median of the means counts.
rows() {
    local count durability kind run
    for durability in fsync os; do
        for count in 1 5; do
            start "$count" "$durability"
            for kind in single several; do measure "$kind" >/dev/null; done
            for ((run = 0; run < RUNS; run++)); do
                for kind in single several; do
                    echo "$durability $count $kind $(measure "$kind")"
                done
            done
        done
    done
}

rows >"$work/all"
sort -s -k1,1r -k2,2n -k3,3r -k4,4n "$work/all" | awk -v middle=$(((RUNS + 1) / 2)) '
    { name = $1 " " $2 " " $3; if (name != last) count = 0; last = name; count++ }
    count == middle { print }
' >"$work/rows"

awk 'BEGIN { print "| durability | nodes | operation | mean, us | deviation, us | a second |"
             print "|---|---:|---|---:|---:|---:|" }
    { what = $3 == "single" ? "put" : "transaction of two puts"
      printf "| %s | %d | %s | %d | %d | %d |\n", $1, $2, what, $4, $5, $6 }' "$work/rows"

awk -v machine="$(nproc) processors" '
    { rows[NR] = $0; if ($4 + $5 > most) most = $4 + $5 }
    END {
        width = 760; left = 250; right = 130; row = 30; top = 46
        height = top + NR * row + 44
        scale = (width - left - right) / most
        printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\"", width, height
        print " font-family=\"sans-serif\" font-size=\"13\">"
        print "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
        print "<text x=\"10\" y=\"24\" font-weight=\"bold\">Time of one operation, one after the other:"
        print "mean and standard deviation</text>"
        for (i = 1; i <= NR; i++) {
            split(rows[i], f, " ")
            y = top + (i - 1) * row
            kind = f[3] == "single" ? "put" : "transaction"
            colour = f[3] == "single" ? "#7a9cc6" : "#c67a5c"
            nodes = f[2] == 1 ? "1 node" : f[2] " nodes"
            end = left + f[4] * scale; low = f[4] - f[5]; if (low < 0) low = 0
            printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s, %s, %s</text>\n",
                left - 8, y + 16, kind, nodes, f[1]
            printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"18\" fill=\"%s\"/>\n",
                left, y + 3, f[4] * scale, colour
            printf "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#222\"/>\n",
                left + low * scale, left + (f[4] + f[5]) * scale, y + 12, y + 12
            printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%.2f ms, %d/s</text>\n",
                width - 10, y + 16, f[4] / 1000, f[6]
        }
        printf "<text x=\"10\" y=\"%d\" fill=\"#555\">Medians of alternating runs; a transaction puts", height - 14
        printf " two keys; all nodes and the client on %s.</text>\n</svg>\n", machine
    }' "$work/rows" >docs/several-keys.svg
echo "drawn: docs/several-keys.svg"
