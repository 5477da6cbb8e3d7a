#!/usr/bin/env bash
# Starts three members on loopback, prints their endpoints, and stops them on Ctrl-C.
# Their data stays in target/cluster and is found again at the next start.
#
# usage: scripts/cluster.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: cluster.sh BINARY}
home=target/cluster
names=(m1 m2 m3)
client_ports=(2379 22379 32379)
peer_ports=(2380 22380 32380)

initial=()
endpoints=()
for i in 0 1 2; do
  initial+=("${names[i]}=http://127.0.0.1:${peer_ports[i]}")
  endpoints+=("127.0.0.1:${client_ports[i]}")
done
initial=$(IFS=,; echo "${initial[*]}")

mkdir -p "$home"
pids=()
stop() {
  trap - EXIT INT TERM
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
}
trap stop EXIT INT TERM

for i in 0 1 2; do
  "$binary" --name "${names[i]}" --data-dir "$home/${names[i]}.etcd" \
    --listen-client-urls "http://127.0.0.1:${client_ports[i]}" \
    --advertise-client-urls "http://127.0.0.1:${client_ports[i]}" \
    --listen-peer-urls "http://127.0.0.1:${peer_ports[i]}" \
    --initial-advertise-peer-urls "http://127.0.0.1:${peer_ports[i]}" \
    --initial-cluster "$initial" >"$home/${names[i]}.log" 2>&1 &
  pids+=($!)
done

echo "three members, logs in $home; stop them with Ctrl-C"
echo "  export ETCDCTL_ENDPOINTS=$(IFS=,; echo "${endpoints[*]}")"
# One member may end and come back by hand; the others go on.
wait
