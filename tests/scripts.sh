#!/usr/bin/env bash
# Tests launch.sh and kill.sh: with a stand-in for the program and one for ssh; then with the
# program itself, which is built if necessary. Prints one line per check; the last line counts them.
set -uo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
work=$(mktemp -d) || exit 1
# shellcheck source=tests/checks.sh
source "$root/tests/checks.sh"

clean_up() {
    "$root/kill.sh" -9 >/dev/null 2>&1
    SSH_ALWAYS=1 "$root/kill.sh" -9 >/dev/null 2>&1
    rm -rf -- "$work"
}
trap clean_up EXIT

recorded() {
    local pid rest
    read -r pid rest <"$LOG_DIR/${1//[^a-zA-Z0-9._-]/_}.pid" 2>/dev/null && printf '%s' "$pid"
}

alive() {
    local line
    read -r line 2>/dev/null <"/proc/$1/stat" && [[ $line != *') Z '* ]]
}

# The stand-in: a node serves while its process runs; three of the listed nodes are a quorum.
export STUB=$work/stub
mkdir -p "$STUB" "$work/bin" "$work/home"
cat >"$work/horseshoe" <<'STUB'
#!/usr/bin/env bash
is_up() {
    local pid line
    { read -r pid || [[ -n $pid ]]; } <"$1" && read -r line <"/proc/$pid/stat" && [[ $line != *') Z '* ]]
} 2>/dev/null
verb=$1
shift
case $verb in
    serve)
        index=$1
        shift
        printf '%s\n' "$*" >"$STUB/arguments-$index"
        printf '%s\n' "${!HORSESHOE_@}" >"$STUB/variables-$index"
        if [[ -e $STUB/refuse-$index ]]; then
            printf 'the data directory is for another list\n' >&2
            exit 1
        fi
        list=("$@")
        trap 'exit 0' TERM
        [[ ! -e $STUB/deaf-$index ]] || trap '' TERM
        printf '%s' "$$" >"$STUB/up-${list[index]}"
        while :; do sleep 0.02; done
        ;;
    status)
        json= up=0
        while (($# > 0)); do
            case $1 in
                --json) json=1 ;;
                --nodes) nodes=$2 && shift ;;
            esac
            shift
        done
        for node in $nodes; do
            if is_up "$STUB/up-$node"; then up=$((up + 1)) && echo '{"reachable":true}' >>"$0.$$"; else echo '{"reachable":false}' >>"$0.$$"; fi
        done
        total=0
        for file in "$STUB"/up-*; do
            if is_up "$file"; then total=$((total + 1)); fi
        done
        [[ -z $json ]] || cat "$0.$$"
        rm -f "$0.$$"
        [[ -n $json || ! -e $STUB/waits ]] || cat "$STUB/waits"
        ((up > 0 && total >= 3)) || exit 3
        ;;
esac
STUB
cat >"$work/bin/ssh" <<'STUB'
#!/usr/bin/env bash
# Runs what would run on the other machine here, in a home directory of its own.
printf '%s\n' "$*" >>"$STUB/ssh-calls"
while [[ $1 == -* ]]; do
    case $1 in
        --) shift && break ;;
        -i | -o) shift 2 ;;
        *) exit 255 ;;
    esac
done
if [[ $1 == *unreachable* ]]; then
    printf 'ssh: connect to host %s: No route to host\n' "$1" >&2
    exit 255
fi
cd -- "$STUB/../home" && exec bash -c "$2"
STUB
chmod +x "$work/horseshoe" "$work/bin/ssh"

export NODES='127.0.0.1:21 127.0.0.1:22,127.0.0.1:23, 127.0.0.1:24 127.0.0.1:25'
export DATA_DIR=$work/data LOG_DIR=$work/logs BINARY=$work/horseshoe LAUNCH_TIMEOUT=5 KILL_TIMEOUT=1
export PATH=$work/bin:$PATH
cd / || exit 1

run bash -c "set -e; source '$root/config.sh'; printf %s \"\$NODES\""
check 'config.sh keeps the environment and says nothing' gave 0 "$NODES"
run env -u NODES bash -c "source '$root/config.sh'; printf %s \"\$NODES\""
check 'by default there are five nodes' gave 0 '127.0.0.1:8801 127.0.0.1:8802 127.0.0.1:8803 127.0.0.1:8804 127.0.0.1:8805'

run "$root/launch.sh"
check 'launch starts all nodes, a line a node' gave 0 \
    'node 0  127.0.0.1:21  started, process *node 4  127.0.0.1:25  started, process *a quorum serves'
first=$(recorded 127.0.0.1:21)
check 'a node gets its index, the list, its directory and the durability' is "$(<"$STUB/arguments-3")" \
    "127.0.0.1:21 127.0.0.1:22 127.0.0.1:23 127.0.0.1:24 127.0.0.1:25 --data-dir $work/data/node-3 --durability fsync --shrink-after 3s --text auto"

"$root/kill.sh" -9 1 >/dev/null
"$root/launch.sh" 1 >"$work/first" 2>&1 &
"$root/launch.sh" 1 >"$work/second" 2>&1
wait $!
# Either may be the first.
run sort "$work/first" "$work/second"
check 'of two launches at once one starts the node, and the other finds it' gave 0 \
    '*already running, process *started, process *'
check 'and no process is left that nothing records' is \
    "$(pgrep -fc -- "^[^ ]*bash $work/horseshoe serve 1 ")" 1

run "$root/kill.sh" -9 1
check 'kill -9 of one stops that one' gave 0 'node 1  127.0.0.1:22  stopped, process *'
run "$root/launch.sh"
check 'launch leaves running nodes alone' gave 0 \
    "node 0  127.0.0.1:21  already running, process $first*node 1  127.0.0.1:22  started*a quorum serves"

run env NODES='127.0.0.1:21 127.0.0.1:22' "$root/launch.sh"
check 'a node that runs with another list is not taken for one of this' gave 1 \
    '*node 0  127.0.0.1:21  failed: it is already running*but as index and list: 0 127.0.0.1:21 127.0.0.1:22 127.0.0.1:23*'

: >"$LOG_DIR/127.0.0.1_22.pid"
run "$root/launch.sh" 1
check 'a node whose record is lost is not started twice' gave 1 \
    '*node 1  127.0.0.1:22  failed: it is already running*the record of its start is lost*'
run "$root/kill.sh" 1
check 'and is stopped' gave 0 'node 1  127.0.0.1:22  stopped, process *'
run "$root/launch.sh" 1
check 'and started' gave 0 'node 1  127.0.0.1:22  started*'

run "$root/kill.sh"
check 'kill stops all' gave 0 'node 0  127.0.0.1:21  stopped, process *node 4  *stopped, process *'
run alive "$first"
check 'the process has ended' gave 1 ''
run "$root/kill.sh"
check 'kill of what does not run is no error' gave 0 'node 0  127.0.0.1:21  was not running*'

run "$root/launch.sh" 2
check 'one node may come up without a quorum' gave 0 'node 2  *started*node 2 answers: no quorum yet'
run "$root/launch.sh" 0
run "$root/launch.sh" 4
check 'one node tells when a quorum serves' gave 0 'node 4  *started*node 4 answers: a quorum serves'

# A recorded process id that now belongs to another process.
victim=$(recorded 127.0.0.1:23)
sleep 60 &
stranger=$!
kill -9 "$victim"
read -r _ start boot <"$LOG_DIR/127.0.0.1_23.pid"
printf '%s %s %s\nlist\n' "$stranger" "$start" "$boot" >"$LOG_DIR/127.0.0.1_23.pid"
run "$root/kill.sh" 2
check 'a process with another start time is not the node' gave 0 'node 2  *was not running'
run alive "$stranger"
check 'and is left alone' gave 0 ''
kill "$stranger"
"$root/kill.sh" >/dev/null

touch "$STUB/deaf-1"
run "$root/launch.sh" 1
run "$root/kill.sh" 1
check 'a node that does not end is told of' gave 1 'node 1  *failed: process * still runs after 1 s; try -9'
run "$root/kill.sh" 1 -9
check 'and -9 ends it' gave 0 'node 1  *stopped, process *'
rm "$STUB/deaf-1"

touch "$STUB/refuse-2"
run "$root/launch.sh"
check 'a node that ends at once is shown with the end of its log' gave 1 \
    '*node 2  127.0.0.1:23  ended; the end of its log:*the data directory is for another list*'
rm "$STUB/refuse-2"
"$root/kill.sh" >/dev/null

run env LAUNCH_TIMEOUT=1 NODES='127.0.0.1:21 127.0.0.1:22' "$root/launch.sh"
check 'launch gives up when no quorum comes' gave 1 '*no quorum serves after 1 s*'
printf 'address\n\n127.0.0.1:21: for node 127.0.0.1:23\nno quorum is up\n' >"$STUB/waits"
run env LAUNCH_TIMEOUT=4 NODES='127.0.0.1:21 127.0.0.1:22' "$root/launch.sh" --bootstrap
check 'and tells what it waits for, once' gave 1 '*not ready: 127.0.0.1:21: for node 127.0.0.1:23*no quorum serves after 4 s*'
check 'not twice' is "$(grep -c '^not ready: ' <<<"$said")" 1
rm "$STUB/waits"
NODES='127.0.0.1:21 127.0.0.1:22' "$root/kill.sh" >/dev/null
run env LAUNCH_TIMEOUT=1 SHRINK_AFTER=0 NODES='127.0.0.1:21 127.0.0.1:22' "$root/launch.sh" --bootstrap
check 'the first node alone is told to form a cluster' is "$(cat "$STUB"/arguments-0 "$STUB"/arguments-1)" \
    '*--shrink-after 0 --text auto --bootstrap
*--shrink-after 0 --text auto'
NODES='127.0.0.1:21 127.0.0.1:22' "$root/kill.sh" >/dev/null

run env DATA_DIR= "$root/launch.sh"
check 'without DATA_DIR nodes start in memory' is "$(<"$STUB/arguments-0")" \
    '127.0.0.1:21 127.0.0.1:22 127.0.0.1:23 127.0.0.1:24 127.0.0.1:25 --data-dir  --durability fsync --shrink-after 3s --text auto'
"$root/kill.sh" >/dev/null
run env TEXT=on INSECURE_ADMIN=1 MEMORY_MAX=512M VALUE_MAX=4M LISTEN=0.0.0.0 HTTP=127.0.0.1 CLUSTER_NAME=orders "$root/launch.sh" 0
check 'text, changes from other machines, memory, where to listen, HTTP and the name are as they are set' is "$(<"$STUB/arguments-0")" \
    '*--text on --memory-max 512M --value-max 4M --listen 0.0.0.0 --http 127.0.0.1 --cluster-name orders --insecure-admin'
"$root/kill.sh" 0 >/dev/null
run env DISK_HUNG_AFTER=3s DISK_RESERVE=1G HEARTBEAT_MS=60 LINK_DOWN_MS=400 LOG_FILTER='warn,horseshoe=debug' \
    "$root/launch.sh" 0
check 'so are the disk, the links and the log' is "$(<"$STUB/arguments-0")" \
    '*--disk-hung-after 3s --disk-reserve 1G --heartbeat-ms 60 --link-down-ms 400 --log warn,horseshoe=debug'
"$root/kill.sh" 0 >/dev/null

for off in 0 no false ''; do
    run env HORSESHOE_CLUSTER_NAME=x HORSESHOE_INSECURE_ADMIN=1 INSECURE_ADMIN=$off BOOTSTRAP=$off "$root/launch.sh" 0
    check "switches that are '$off' are off" is "$(<"$STUB/arguments-0")" '*--shrink-after 3s --text auto'
    check 'and no variable of the shell reaches the node' is "$(<"$STUB/variables-0")" ''
    "$root/kill.sh" 0 >/dev/null
done
for on in 1 yes true; do
    run env INSECURE_ADMIN=$on BOOTSTRAP=$on "$root/launch.sh" 0
    check "switches that are $on are on" is "$(<"$STUB/arguments-0")" '*--text auto --insecure-admin --bootstrap'
    "$root/kill.sh" 0 >/dev/null
done
for switch in INSECURE_ADMIN BOOTSTRAP SSH_ALWAYS; do
    run env $switch=maybe "$root/launch.sh" 0
    check "$switch=maybe is refused" gave 1 "launch.sh: $switch is maybe: *"
done

for arguments in '5' '-1' 'x' '1 2'; do
    # shellcheck disable=SC2086
    run "$root/launch.sh" $arguments
    check "launch.sh $arguments is refused" gave 2 'launch.sh: *usage: launch.sh*'
    # shellcheck disable=SC2086
    run "$root/kill.sh" $arguments
    check "kill.sh $arguments is refused" gave 2 'kill.sh: *usage: kill.sh*'
done
run env BINARY="$work/none" "$root/launch.sh"
check 'a missing program is told of' gave 1 "launch.sh: the program $work/none does not exist"

# Over ssh, paths are those of the other machine.
export SSH_ALWAYS=1 SSH_USER=op SSH_KEY="$work/my key" REMOTE_PATH='horse shoe' DATA_DIR=data LOG_DIR=logs
run "$root/launch.sh"
check 'launch works over ssh' gave 0 'node 0  *started, process *node 4  *started*a quorum serves'
check 'with user and key' is "$(<"$STUB/ssh-calls")" "*-i $work/my key -- op@127.0.0.1 *"
check 'the program was copied' cmp -s "$work/horseshoe" "$work/home/horse shoe/horseshoe"
check 'the data is there' is "$(<"$STUB/arguments-4")" '* --data-dir data/node-4 *'
run "$root/launch.sh" 0
check 'a node that runs there is left alone' gave 0 'node 0  *already running*a quorum serves'
run "$root/kill.sh" -9
check 'kill works over ssh' gave 0 'node 0  *stopped, process *node 4  *stopped, process *'
unset SSH_ALWAYS
run env NODES='unreachable.invalid:21' "$root/launch.sh"
check 'a host that ssh does not reach is told of' gave 1 '*node 0 *failed: ssh: connect to host*No route*'

# Which hosts count as this machine.
here() {
    bash -c 'root=$1; source "$root/scripts/common.sh"; is_here "$2"' here "$root" "$1"
}
own=$(bash -c 'root=$1; source "$root/scripts/common.sh"; own_addresses' own "$root")
for host in localhost 127.0.0.1 127.3.2.1 ::1 "$HOSTNAME" $own; do
    run here "$host"
    check "$host is this machine" gave 0 ''
done
for host in 192.0.2.7 2001:db8::7 elsewhere.invalid; do
    run here "$host"
    check "$host is not this machine" gave 1 ''
done

# The rest tests the program itself.
unset SSH_USER SSH_KEY REMOTE_PATH
export BINARY='' DATA_DIR=$work/real/data LOG_DIR=$work/real/logs LAUNCH_TIMEOUT=30 KILL_TIMEOUT=10
export NODES='127.77.0.1:8801 127.77.0.1:8802 127.77.0.1:8803 127.77.0.1:8804 127.77.0.1:8805'
target=${CARGO_TARGET_DIR:-$root/target}
[[ $target == /* ]] || target=$root/$target
horseshoe=$target/release/horseshoe

run "$root/launch.sh"
check 'five nodes start and serve' gave 0 '*node 4  127.77.0.1:8805  started, process *a quorum serves'
run "$horseshoe" put k v
check 'a value is put' gave 0 ''
run "$horseshoe" get k
check 'and got' gave 0 v
for ((key = 0; key < 1000; key++)); do
    printf 'PUT,key-%s,value %s\n' "$key" "$key" >&3
    printf 'GET,key-%s\n' "$key" >&4
done 3>"$work/puts" 4>"$work/gets"
run "$horseshoe" run "$work/puts"
check '1,000 keys are put' gave 0 '*1000 done, 0 failed*'
run "$root/kill.sh" -9
check 'all nodes are killed' gave 0 '*node 4  *stopped*'
run "$horseshoe" get k
check 'then nobody serves' gave 3 '*no quorum*'
run "$root/launch.sh"
check 'they start again' gave 0 '*a quorum serves'
run "$horseshoe" run "$work/gets"
check 'the keys are all there' gave 0 '*1000 done, 0 failed*'
check 'and none is missing' is "$(grep -c 'no such key' <<<"$said")" 0
run "$root/kill.sh"
check 'all nodes are stopped' gave 0 '*node 4  *stopped*'
run env NODES='127.77.0.1:8801 127.77.0.1:8802' "$root/launch.sh"
check 'data of another list is refused, with the reason' gave 1 '*ended; the end of its log:*list*'
"$root/kill.sh" >/dev/null

# Settings of the disk, the links and the log, as a node receives them.
export NODES=127.77.0.1:8806 LOG_DIR=$work/set/logs DATA_DIR=$work/set/data
run env DISK_RESERVE=123M LOG_FILTER=debug LINK_DOWN_MS=400 HEARTBEAT_MS=60 DISK_HUNG_AFTER=3s "$root/launch.sh"
check 'a node starts with all of them' gave 0 '*a quorum serves'
run "$horseshoe" status --json
check 'its status shows the reserve of the disk' gave 0 '*"reserve_bytes":128974848*'
check 'its log shows the level' grep -q ' DEBUG ' "$LOG_DIR/127.77.0.1_8806.log"
"$root/kill.sh" >/dev/null
while read -r setting reason; do
    run env "$setting" LAUNCH_TIMEOUT=10 "$root/launch.sh"
    check "$setting is refused, with the reason" gave 1 "*ended; the end of its log:*$reason*"
    "$root/kill.sh" >/dev/null
done <<'WRONG'
DISK_HUNG_AFTER=soon 'soon' for '--disk-hung-after
DISK_HUNG_AFTER=1ms a disk can't count as hung after 1 ms: 500 ms
DISK_RESERVE=much 'much' for '--disk-reserve
HEARTBEAT_MS=5 a heartbeat every 5 ms is not possible: 10 to
LINK_DOWN_MS=60 a link can't count as down after 60 ms
LOG_FILTER=loud=noise "loud=noise" is not a log filter
WRONG
rm -rf -- "$work/set"

export LOG_DIR=$work/real/logs
export DATA_DIR='' NODES='127.77.0.1:8801,127.77.0.1:8802,127.77.0.1:8803,127.77.0.1:8804'
run "$root/launch.sh"
check 'four nodes start and serve in memory' gave 0 '*node 3  127.77.0.1:8804  started, process *a quorum serves'
run "$horseshoe" put k w
check 'they take a value' gave 0 ''
run "$horseshoe" get k
check 'and give it' gave 0 w
run "$root/kill.sh" 3
run "$root/launch.sh" 3
check 'a node that comes back answers' gave 0 'node 3  *started*node 3 answers: *'
run "$root/kill.sh"
check 'they stop' gave 0 '*node 3  *stopped*'

# Tests the scripts that break networks, in a separate network namespace.
lab() {
    env -u NODES -u DATA_DIR -u LOG_DIR -u BINARY LAB_NODES=4 CARGO_TARGET_DIR="$target" \
        "$root/tests/partition/lab.sh" bash -c "cd '$root/tests/partition' && $1" 2>/dev/null
}
run lab 'exit 7'
check 'the lab gives the exit status of its command' gave 7 ''
run lab './chain.sh 0 1 2 3; ./cut.sh --client 3; ./loss.sh 20 1 2; ./show.sh'
check 'show tells what is cut, and what is lost' gave 0 "*
0           -         yes       cut       cut       yes *
1           yes       -         20%       cut       yes *
2           cut       20%       -         yes       yes *
3           cut       cut       yes       -         cut *
clients     yes       yes       yes       cut       - *as the nodes see it:*"
run lab './chain.sh 0 1 2 3; for ((turn = 0; turn < 100; turn++)); do
    links=$(horseshoe status --links)
    [[ $links != *"1 -> 4: through 2, 3"*"4 -> 1: through 3, 2"* ]] || break
    sleep 0.1
done; echo "$links"'
check 'the nodes tell of the way along a chain' gave 0 '*1 -> 4: through 2, 3*4 -> 1: through 3, 2*a quorum is up'
run lab './split.sh 0,1 2,3; ./loss.sh 5; ./isolate.sh 0; ./heal.sh; iptables -S'
check 'heal undoes all' gave 0 '-P INPUT ACCEPT
-P FORWARD ACCEPT
-P OUTPUT ACCEPT'
for arguments in 'cut.sh 0 4' 'cut.sh 0' 'cut.sh 1 1' 'split.sh 0,1' 'split.sh 0,1 1,2' 'chain.sh 0 1' 'isolate.sh' \
    'loss.sh 101' 'loss.sh x' 'heal.sh 0' 'show.sh 0'; do
    # shellcheck disable=SC2086
    run "$root/tests/partition/"$arguments
    check "$arguments is refused" gave 2 "${arguments%% *}: *usage: ${arguments%% *}*"
done

count_checks
