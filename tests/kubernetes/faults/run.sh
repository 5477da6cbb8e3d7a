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
  first=${seeds%%..*} last=${seeds##*..}
  for ((seed = first; seed <= last; seed++)); do
    if ! SEED=$seed "$faults/../run.sh" "$binary" faults; then
      echo "kubernetes: seed $seed failed; again: make kubernetes-faults SEED=$seed${ROUNDS:+ ROUNDS=$ROUNDS}" >&2
      exit 1
    fi
  done
done
