# shellcheck shell=bash
# Functions that the bash tests share; each test sources this file. They print one line per check,
# and count the checks.

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

# The last run exited with $1, and printed output that matches the pattern $2.
gave() {
    # shellcheck disable=SC2053
    [[ $status == "$1" && $said == $2 ]]
}

# Sets `said` and `status` as a command would, for a fact that was found in another way.
is() {
    said=$1 status=0
    # shellcheck disable=SC2053
    [[ $1 == $2 ]]
}

# Prints the last line; succeeds if all checks held.
count_checks() {
    printf '%s passed, %s failed\n' "$passed" "$failed"
    ((failed == 0))
}
