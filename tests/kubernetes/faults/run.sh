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

# shellcheck source=tests/kubernetes/relay.sh
. "$faults/../relay.sh"
for seeds; do
  for ((seed = 10#${seeds%%..*}; seed <= 10#${seeds##*..}; seed++)); do
    if ! SEED=$seed relay "$faults/../run.sh" "$binary" faults; then
      echo "kubernetes: seed $seed failed; again: make kubernetes-faults SEED=$seed${ROUNDS:+ ROUNDS=$ROUNDS}" >&2
      exit 1
    fi
  done
done
