#!/usr/bin/env bash
# Runs the stage `faults` for each seed, each on a control plane of its own.
#
# usage: tests/kubernetes/faults/run.sh BINARY SEED...     e.g. 7, or 1..5
#        ROUNDS=1   how often each fault happens
set -euo pipefail
faults=$(cd "$(dirname "$0")" && pwd)
binary=${1:?usage: faults/run.sh BINARY SEED...}
shift
[ $# -gt 0 ] || { echo "usage: faults/run.sh BINARY SEED..." >&2; exit 2; }

for seeds; do
  [[ $seeds =~ ^[0-9]{1,18}(\.\.[0-9]{1,18})?$ ]] || { echo "faults/run.sh: '$seeds' is no seed, nor a row of them as 1..5" >&2; exit 2; }
  ((10#${seeds%%..*} <= 10#${seeds##*..})) || { echo "faults/run.sh: there are no seeds in $seeds" >&2; exit 2; }
done

# The shell itself takes no signal while it waits for a command, but does while it waits for a child.
child=
trap 'trap "" TERM INT HUP; [ -z "$child" ] || { kill -TERM "$child" && wait "$child"; } 2>/dev/null || true; exit 130' TERM INT HUP

for seeds; do
  for ((seed = 10#${seeds%%..*}; seed <= 10#${seeds##*..}; seed++)); do
    SEED=$seed "$faults/../run.sh" "$binary" faults &
    child=$!
    if ! wait "$child"; then
      echo "kubernetes: seed $seed failed; again: make kubernetes-faults SEED=$seed${ROUNDS:+ ROUNDS=$ROUNDS}" >&2
      exit 1
    fi
    child=
  done
done
