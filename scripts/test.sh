#!/usr/bin/env bash
# Runs every stage of `make test` in order of cost, stops at the first that fails, and prints in
# any case what was covered and how long it took.
#
# usage: scripts/test.sh [STAGE...]
set -uo pipefail
cd "$(dirname "$0")/.."

# One binary serves all stages that need a running server; link-time optimisation would
# cost more than all of them together.
binary=${MAINSTAY_BIN:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/test-release/mainstay}

run_unit() { make test-unit; }
# Some seeds are the same for every commit, so that one that fails says something about the commit;
# others move with it, so that new ones are tried. SEEDS names others instead: SEEDS=7, SEEDS="1..50 90..99".
run_simulation() {
  make test-simulated || return
  local seeds=${SEEDS:-1..200} commit first
  if [ -z "${SEEDS:-}" ] && commit=$(git rev-parse --verify --quiet HEAD 2>/dev/null); then
    first=$((16#${commit:0:8} * 1000))
    seeds+=" $first..$((first + 99))"
  fi
  echo "seeds: $seeds"
  # shellcheck disable=SC2086 # several rows are several arguments
  scripts/sim.sh $seeds --coverage && scripts/sim.sh meta 1..20
}
run_binary() { [ -n "${MAINSTAY_BIN:-}" ] || make test-binary; }
run_processes() { make test-processes MAINSTAY_BIN="$binary"; }
# Some seeds are the same for every commit, others move with it, as in run_simulation.
run_differential() {
  local commit
  commit=$(git rev-parse --verify --quiet HEAD 2>/dev/null || echo 0)
  local first=$((16#${commit:0:8} * 1000))
  make differential MAINSTAY_BIN="$binary" SEEDS="1..10 $first..$((first + 9))" STEPS=400
}
run_fuzz() { make fuzz MAINSTAY_BIN="$binary" SEED="$((16#$(git rev-parse --verify --quiet HEAD 2>/dev/null | cut -c1-8 || echo 1)))"; }
run_compat() { make test-compat MAINSTAY_BIN="$binary"; }
run_clients() { make test-clients MAINSTAY_BIN="$binary"; }
# A control plane each, so that the first of them ends soon where everything is wrong. The API server's own storage tests
# are called by their name, kubernetes-storage: on two servers they take longer than most of this together.
run_kubernetes() { make kubernetes MAINSTAY_BIN="$binary" STAGES=deployment; }
run_kubernetes-objects() { make kubernetes MAINSTAY_BIN="$binary" STAGES="deploy objects storage" SUITE=none; }
run_kubernetes-storage() { make kubernetes-storage MAINSTAY_BIN="$binary"; }
# Another seed for each commit; the one that fails says how it is run again.
run_kubernetes-faults() {
  local commit
  commit=$(git rev-parse --verify --quiet HEAD 2>/dev/null || echo 1)
  env -u ROUNDS make kubernetes-faults MAINSTAY_BIN="$binary" SEED="$((16#${commit:0:8}))"
}

describe() {
  case $1 in
    unit) echo "tests beside the code, property tests, examples in the docs" ;;
    simulation) echo "seeds of the whole cluster under faults" ;;
    binary) echo "build of the server for the stages below" ;;
    processes) echo "real processes: kill -9, lost quorum, restart, bad flags" ;;
    differential) echo "random steps to etcd and mainstay, every answer compared" ;;
    fuzz) echo "malformed requests, broken frames and connections" ;;
    compat) echo "etcd's Go client and etcdctl" ;;
    clients) echo "etcd clients of Rust, Python and JavaScript" ;;
    kubernetes) echo "a control plane on three members and a Deployment of 20, with TLS everywhere" ;;
    kubernetes-objects) echo "what deploy/ holds; every kind of object; what two API servers on one store promise" ;;
    kubernetes-storage) echo "the API server's own storage tests, on etcd and on mainstay" ;;
    kubernetes-faults) echo "a loaded control plane while members and the API server die" ;;
  esac
}

report=()
status=0
[ $# -gt 0 ] || set -- unit simulation binary processes differential fuzz compat clients \
  kubernetes kubernetes-objects kubernetes-faults
for stage; do
  if [ $status != 0 ]; then
    report+=("not run|$stage|")
    continue
  fi
  echo "== $stage: $(describe "$stage")"
  started=$SECONDS
  "run_$stage"
  status=$?
  report+=("$([ $status = 0 ] && echo passed || echo FAILED)|$stage|$((SECONDS - started)) s")
done

echo
echo "covered:"
for line in "${report[@]}"; do
  IFS='|' read -r result stage took <<<"$line"
  printf '  %-8s %-18s %7s  %s\n' "$result" "$stage" "$took" "$(describe "$stage")"
done
exit $status
