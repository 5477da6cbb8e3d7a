#!/usr/bin/env bash
# Measures mainstay and etcd under the same control plane, one after the other, and prints a table and a line of JSON for
# each.
#
# usage: tests/kubernetes/scale/run.sh BINARY
#        SYSTEMS="etcd mainstay"   in this order; etcd is built by scripts/etcd.sh, or is ETCD_BIN
#        NODES=1000 PODS=10000 CONFIGS=50000 STEADY=60s   how much of what; smaller numbers try the stage itself
#        RESULTS=FILE              keeps the lines of JSON, each as soon as it is known
set -euo pipefail
shopt -s inherit_errexit
scale=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: scale/run.sh BINARY}")

scratch=$(mktemp -d "${TMPDIR:-/tmp}/mainstay-scale.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
# shellcheck source=tests/kubernetes/relay.sh
. "$scale/../relay.sh"
results=$scratch/results.jsonl

for system in ${SYSTEMS:-etcd mainstay}; do
  case $system in
    mainstay) server=$binary ;;
    etcd) server=${ETCD_BIN:-$("$scale/../../../scripts/etcd.sh")/etcd} ;;
    *)
      echo "scale/run.sh: does not know '$system'" >&2
      exit 2
      ;;
  esac
  echo "== $system"
  SYSTEM=$system RESULTS=$results SCALE_NODES=${NODES:-1000} SCALE_PODS=${PODS:-10000} CONFIGS=${CONFIGS:-50000} STEADY=${STEADY:-60s} \
    relay "$scale/../run.sh" "$server" scale
  tail -n 1 "$results"
  # At once: what comes after may fail.
  [ -z "${RESULTS:-}" ] || tail -n 1 "$results" >>"$RESULTS"
done

echo
(cd "$scale/.." && go run ./scale table "$results")
