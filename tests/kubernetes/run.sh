#!/usr/bin/env bash
# Runs a Kubernetes control plane on three members, with TLS on every connection, and what tests it, stage by stage.
# The nodes are played by kwok. Everything listens on loopback, on free ports; whatever was started is stopped again,
# and the logs are kept only after a failure.
#
# usage: tests/kubernetes/run.sh BINARY [STAGE...]      all of these if none is named
#   deploy       what stands in deploy/: kubeadm's static pod, systemd's unit, Helm's values; TEST=TestKubeadmCluster
#   deployment   a Deployment of $REPLICAS from kubectl apply to its end, and how long each step takes
#   objects      every kind of object that Kubernetes is known for; TEST=TestKubernetes/objects/services for one
#   storage      the API server's own storage tests, on etcd and on mainstay, and two API servers on one store;
#                TEST=TestPages names one of the two servers', SUITE=none leaves out the API server's own
# TEST is for one stage at a time: where a stage has no such test, it fails.
#        NODES=5   how many nodes there are
# faults/run.sh and scale/run.sh run the stages `faults` and `scale`, each time on a control plane of its own.
#
# A stage is a folder with a stage.sh, which is sourced: it asks for the control plane by `control_plane`, runs its
# program by `attended` and `in_run` (all in lib.sh), and says by `took` what it did.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: run.sh BINARY [STAGE...]}")
shift
[ $# -gt 0 ] || set -- deploy deployment objects storage
for stage; do
  [ -f "$here/$stage/stage.sh" ] || { echo "run.sh: there is no stage '$stage'" >&2; exit 2; }
done

"$here/../../scripts/setup.sh" tools
bin=$("$here/../../scripts/kubernetes.sh")
run=$(mktemp -d "${TMPDIR:-/tmp}/mainstay-kubernetes.XXXXXX")
. "$here/lib.sh"

finish() {
  local status=$?
  trap - EXIT
  trap '' INT TERM HUP # a second one is not to leave half of it running
  end_attended
  stop_all
  if [ $status = 0 ]; then
    rm -rf "$run"
  else
    echo "kubernetes: FAILED; logs are kept in $run" >&2
    tail -n 5 "$run"/*.log >&2 || true
  fi
  exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

for stage; do
  echo "$stage:"
  . "$here/$stage/stage.sh"
done
printf '  %6d ms  in all\n' $((($(date +%s%N) - began) / 1000000))
