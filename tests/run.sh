#!/usr/bin/env bash
# Runs the tests on every processor, with their files in memory where there is room.
#
#   tests/run.sh [OPTION...]          # pytest's own, such as -m "not slow" or a folder
#
# Tests wait more than they compute: for other processes, brokers, time-outs and above all for the
# disk (two fsyncs a file, 5 ms and more on a quiet SSD, nothing in memory). Hence two workers a
# processor, and /dev/shm. WORKERS says how many instead; a --basetemp of one's own says where.
#
# RERUNS=1 (CI sets it, `make test` does not) tries a test that failed once more. What a busy machine
# did to one test of thousands then does not hide what the others say; the closing lines name each
# such test (RERUN), and each is a fault to mend, in the test or in what it tests.
set -euo pipefail
cd "$(dirname "$0")/.."
NEEDED_KB=$((6 * 1024 * 1024)) # four times what a whole run leaves there

in_memory() {
  [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] || return 1
  [ "$(df --output=avail -k /dev/shm | tail -1)" -ge "$NEEDED_KB" ] || return 1
  [ "$(awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo)" -ge "$NEEDED_KB" ] || return 1
  folder=$(mktemp -d /dev/shm/edge-pack-tests-XXXXXX)
  printf '#!/bin/sh\n' >"$folder/probe"
  chmod +x "$folder/probe"
  "$folder/probe" 2>/dev/null || { rm -rf "$folder"; return 1; } # mounted without exec
}

folder=""
options=(-n "${WORKERS:-$((2 * $(nproc)))}" --dist loadgroup --durations 20 --durations-min 10)
if [ "${RERUNS:-0}" -gt 0 ]; then options+=(--reruns "$RERUNS" -r fER); fi
if in_memory; then
  trap 'rm -rf "$folder"' EXIT
  options+=(--basetemp "$folder/tests" -o tmp_path_retention_policy=failed)
fi
"${BIN:-.venv/bin}/pytest" "${options[@]}" "$@"
