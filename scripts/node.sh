#!/usr/bin/env bash
# Manages one node on the machine where this script runs. launch.sh and kill.sh run it as a program
# on their own machine, and on other machines by feeding it to a shell over ssh, so it needs only
# bash and /proc.
#
#   node.sh start BASE BINARY LOG_DIR DATA_DIR INDEX COUNT NODE... [OPTION...]
#                                         COUNT nodes, then options of `horseshoe serve`
#                                         prints: started|running PID
#   node.sh check BASE LOG_DIR NODE       prints: running PID, or: stopped
#   node.sh log   BASE LOG_DIR NODE       prints the end of the node's log
#   node.sh stop  BASE LOG_DIR NODE SIGNAL SECONDS    prints: stopped PID, or: absent
#
# A process is identified by its id, its start time and the boot of the machine, as recorded when it
# was started; never by its name.
set -u

LOG_LINES=12

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Paths start at BASE unless they are absolute.
enter_base() {
    mkdir -p -- "$1" && cd -- "$1" || fail "the directory $1 can't be entered"
}

# The file name that stands for a node's address.
name_of() {
    local name=${1//[^a-zA-Z0-9._-]/_}
    printf '%s' "$name"
}

# Sets `state`, `group` and `start_time` of process $1, or fails if there is none.
read_process() {
    local line fields
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    # The second field is the name in parentheses, and may itself contain parentheses and spaces.
    read -ra fields <<<"${line##*) }"
    state=${fields[0]} group=${fields[2]}
    start_time=${fields[19]}
}

read_boot() {
    read -r boot </proc/sys/kernel/random/boot_id
}

# Sets `pid` and `recorded_list` if the process of record file $1 runs. If the record is lost, as on
# a disk that was full, the list is empty.
find_running() {
    find_recorded "$1" || find_holder "${1%.pid}.run"
}

# Finds the node that has the file $1 open as its descriptor 8, as a node does while it runs, and
# that leads its process group.
find_holder() {
    local link
    [[ -e $1 ]] || return 1
    for link in /proc/[0-9]*/fd/8; do
        [[ $link -ef $1 ]] || continue
        pid=${link#/proc/} pid=${pid%%/*} recorded_list=
        if read_process "$pid" && [[ $state != [ZX] && $group == "$pid" ]]; then
            return
        fi
    done
    return 1
}

find_recorded() {
    local record recorded_start recorded_boot
    [[ -r $1 ]] || return 1
    { read -r pid recorded_start recorded_boot && read -r recorded_list; } <"$1" || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    read_boot
    [[ $recorded_boot == "$boot" ]] || return 1
    read_process "$pid" || return 1
    [[ $start_time == "$recorded_start" && $state != [ZX] ]]
}

# Waits for the lock file $1, and holds it until this script ends. Of two concurrent starts the
# second must find the record of the first, or it would leave a process that no record names.
lock() {
    exec 9>>"$1" || fail "the lock $1 can't be opened"
    if type -P flock >/dev/null; then
        flock -w 30 9 || fail "another start of this node holds the lock $1"
    fi
}

start() {
    local base=$1 binary=$2 log_dir=$3 data_dir=$4 index=$5 count=$6
    shift 6
    local nodes=("${@:1:count}") options=("${@:count+1}") list name record log
    list="$index ${nodes[*]}"
    enter_base "$base"
    mkdir -p -- "$log_dir" || fail "the directory $log_dir can't be made"
    name=$(name_of "${nodes[index]}")
    record=$log_dir/$name.pid log=$log_dir/$name.log
    lock "$log_dir/$name.lock"
    if find_running "$record"; then
        [[ -n $recorded_list ]] ||
            fail "it is already running (process $pid), but the record of its start is lost: stop it first"
        [[ $recorded_list == "$list" ]] ||
            fail "it is already running (process $pid), but as index and list: $recorded_list"
        printf 'running %s\n' "$pid"
        return
    fi
    [[ -x $binary ]] || fail "the program $binary does not exist"
    if [[ -n $data_dir ]]; then
        mkdir -p -- "$data_dir" || fail "the directory $data_dir can't be made"
        data_dir=$data_dir/node-$index
    fi
    # The earlier content of the log is kept; this line marks where the new start begins.
    printf -- '--- start of node %s, index and list: %s\n' "${nodes[index]}" "$list" >>"$log" ||
        fail "the log $log can't be written"
    # Job control gives the node its own process group, so that an interrupt at the terminal does
    # not reach it.
    set -m
    # Settings of the node are passed as options. Environment variables of this shell would reach
    # only nodes of this machine.
    (trap '' HUP && unset "${!HORSESHOE_@}" && exec "$binary" serve "$index" "${nodes[@]}" --data-dir "$data_dir" "${options[@]}") >>"$log" 2>&1 </dev/null 8>>"$log_dir/$name.run" 9>&- &
    pid=$!
    set +m
    read_process "$pid" || fail "it ended at once"
    read_boot
    printf '%s %s %s\n%s\n' "$pid" "$start_time" "$boot" "$list" >"$record.new" &&
        mv -f -- "$record.new" "$record" || fail "$record can't be written"
    printf 'started %s\n' "$pid"
}

check() {
    local base=$1 log_dir=$2 name
    enter_base "$base"
    name=$(name_of "$3")
    if find_running "$log_dir/$name.pid"; then
        printf 'running %s\n' "$pid"
    else
        printf 'stopped\n'
    fi
}

# The end of the log, from the last start on.
show_log() {
    local base=$1 log_dir=$2 name line lines=()
    enter_base "$base"
    name=$(name_of "$3")
    [[ -r $log_dir/$name.log ]] || return 0
    while IFS= read -r line || [[ -n $line ]]; do
        if [[ $line == '--- start of node '* ]]; then
            lines=()
            continue
        fi
        lines+=("$line")
        ((${#lines[@]} <= LOG_LINES)) || lines=("${lines[@]:1}")
    done < <(tail -n 200 -- "$log_dir/$name.log")
    ((${#lines[@]} == 0)) || printf '    %s\n' "${lines[@]}"
}

stop() {
    local base=$1 log_dir=$2 signal=$4 seconds=$5 name record stopped
    enter_base "$base"
    name=$(name_of "$3")
    record=$log_dir/$name.pid
    if ! find_running "$record"; then
        rm -f -- "$record"
        printf 'absent\n'
        return
    fi
    stopped=$pid
    kill "-$signal" "$stopped" || fail "process $stopped can't be stopped"
    local deadline=$((SECONDS + seconds))
    while find_running "$record"; do
        ((SECONDS < deadline)) || fail "process $stopped still runs after $seconds s; try -9"
        sleep 0.05
    done
    rm -f -- "$record"
    printf 'stopped %s\n' "$stopped"
}

verb=${1:?}
shift
case $verb in
    start) start "$@" ;;
    check) check "$@" ;;
    log) show_log "$@" ;;
    stop) stop "$@" ;;
    *) fail "node.sh has no verb $verb" ;;
esac
