# A load on the control plane while the store's members are killed, cut off and restarted, compacted, defragmented and
# saved, and the API server is killed, in an order that $SEED decides; and then a search for what was lost, and for what
# is left when all is deleted. A snapshot is restored by etcd and its tools. The members reach each other through ports
# that can be cut, so this is the first stage that asks for the control plane, or the only one.
#        SEED=1   ROUNDS=1   which faults, and how often each

if [ -f "$run/member-0.command" ] && [ ! -f "$run/links.command" ]; then
  echo "run.sh: the stage 'faults' has to come first" >&2
  exit 2
fi
"$here/../../scripts/setup.sh" go
etcd_tools=$("$here/../../scripts/etcd.sh")
(cd "$here" && go vet ./access ./faults && go test -count=1 ./faults && go build -o "$run/faults" ./faults)

between_members() {
  local i listens=("$@") ends=()
  peer_urls=()
  for i in "${!listens[@]}"; do
    free_port
    peer_urls+=("https://127.0.0.1:$port")
    ends+=("$port=${listens[i]##*:}")
  done
  start links env KUBERNETES_RUN="$run" "$run/faults" links "${ends[@]}"
  wait_for 10 "the links between the members" test -S "$run/links.sock"
}
# Where a node is given up its pods are no more ready; a kubelet would say that they are again, and kwok does not.
NODE_GRACE=5m
control_plane

attended in_run env ETCD_TOOLS="$etcd_tools" "$run/faults" load -seed "${SEED:-1}" -rounds "${ROUNDS:-1}"
took "seed ${SEED:-1}: nothing lost, nothing back, all converged"
