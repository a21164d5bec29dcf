# shellcheck shell=bash
# What the tests in bash share, sourced by each: a line a check, and their count.

passed=0
failed=0

# check NAME COMMAND...: whether the command succeeds.
check() {
    local name=$1
    shift
    if "$@"; then
        printf 'ok      %s\n' "$name"
        passed=$((passed + 1))
    else
        printf 'FAILED  %s\n        status %s, said: %s\n' "$name" "$status" "${said//$'\n'/$'\n'        }"
        failed=$((failed + 1))
    fi
}

# Runs a command; sets `status` and `said`.
run() {
    said=$("$@" 2>&1)
    status=$?
}

# The last run exited with $1, and said what matches the pattern $2.
gave() {
    # shellcheck disable=SC2053
    [[ $status == "$1" && $said == $2 ]]
}

# Sets `said` and `status` as if they had been a command's, for what was found out otherwise.
is() {
    said=$1 status=0
    # shellcheck disable=SC2053
    [[ $1 == $2 ]]
}

# The last line; whether all checks held.
count_checks() {
    printf '%s passed, %s failed\n' "$passed" "$failed"
    ((failed == 0))
}
