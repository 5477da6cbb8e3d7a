#!/usr/bin/env bash
# Runs a Kubernetes control plane on three members: creates a namespace and a Deployment of 20,
# waits until all replicas are available, deletes it all again and prints how long each step took.
# The nodes are played by kwok. Everything listens on loopback, on free ports; whatever was
# started is stopped again, and the logs are kept only after a failure.
#
# usage: tests/kubernetes/run.sh BINARY
#        REPLICAS=20 NODES=5   how much to ask for
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: run.sh BINARY}")
replicas=${REPLICAS:-20}
nodes=${NODES:-5}

"$here/../../scripts/setup.sh" tools
bin=$("$here/../../scripts/kubernetes.sh")
run=$(mktemp -d "${TMPDIR:-/tmp}/mainstay-kubernetes.XXXXXX")

# ---- processes

names=()
pids=()

# start NAME COMMAND... runs it in the background with its log in $run/NAME.log
start() {
  local name=$1
  shift
  "$@" >"$run/$name.log" 2>&1 </dev/null &
  names+=("$name")
  pids+=($!)
}

# Stops in the opposite order of starting; they are children of this shell, so a pid stays theirs
# until it has been waited for.
stop_all() {
  local i tries
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[i]}" 2>/dev/null || continue
    for ((tries = 0; tries < 150; tries++)); do
      [ -d "/proc/${pids[i]}" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/${pids[i]}/status" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "${pids[i]}" 2>/dev/null && [ $tries = 150 ] && echo "kubernetes: ${names[i]} did not end on SIGTERM" >&2
    wait "${pids[i]}" 2>/dev/null || true
  done
}

finish() {
  local status=$?
  trap - EXIT INT TERM
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
trap 'exit 130' INT TERM

# Below the range from which the system takes ports for connections that go out.
port=$((20000 + RANDOM % 10000))
free_port() {
  while :; do
    port=$((port + 1))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
}

# wait_for SECONDS WHAT COMMAND... tries until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "kubernetes: waited in vain for $what" >&2
      return 1
    fi
    sleep 0.2
  done
}

began=$(date +%s%N)
stamp=$began
# took WHAT prints the time since the last one.
took() {
  local now
  now=$(date +%s%N)
  printf '  %6d ms  %s\n' $(((now - stamp) / 1000000)) "$1"
  stamp=$now
}

# ---- the store

initial=()
client_urls=()
peer_urls=()
for i in 0 1 2; do
  free_port && client_urls+=("http://127.0.0.1:$port")
  free_port && peer_urls+=("http://127.0.0.1:$port")
  initial+=("m$i=${peer_urls[i]}")
done
for i in 0 1 2; do
  start "member-$i" "$binary" --name "m$i" --data-dir "$run/m$i.etcd" \
    --listen-client-urls "${client_urls[i]}" --advertise-client-urls "${client_urls[i]}" \
    --listen-peer-urls "${peer_urls[i]}" --initial-advertise-peer-urls "${peer_urls[i]}" \
    --initial-cluster "$(IFS=,; echo "${initial[*]}")" --log-level warn \
    --watch-progress-notify-interval 5s
done
for url in "${client_urls[@]}"; do
  wait_for 60 "member $url" curl -fs --max-time 2 "$url/health"
done
took "three members healthy"

# ---- the control plane

"$here/certificates.sh" "$run/pki"
free_port && api_port=$port
free_port && controller_port=$port
free_port && scheduler_port=$port
free_port && kwok_port=$port

kubeconfig() { # NAME: a client of the API server with the certificate of that name
  cat >"$run/$1.kubeconfig" <<Y
apiVersion: v1
kind: Config
current-context: here
clusters:
- {name: here, cluster: {server: "https://127.0.0.1:$api_port", certificate-authority: $run/pki/ca.crt}}
users:
- {name: $1, user: {client-certificate: $run/pki/$1.crt, client-key: $run/pki/$1.key}}
contexts:
- {name: here, context: {cluster: here, user: $1}}
Y
}
for user in admin controller-manager scheduler; do kubeconfig $user; done
kubectl() { HOME=$run "$bin/kubectl" --kubeconfig="$run/admin.kubeconfig" "$@"; }

# The API server refuses loopback as its advertised address; nothing is sent to this one.
start apiserver "$bin/kube-apiserver" \
  --etcd-servers="$(IFS=,; echo "${client_urls[*]}")" --etcd-prefix=/registry --etcd-compaction-interval=20s \
  --bind-address=127.0.0.1 --secure-port="$api_port" --advertise-address=192.0.2.1 \
  --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC \
  --client-ca-file="$run/pki/ca.crt" --tls-cert-file="$run/pki/apiserver.crt" --tls-private-key-file="$run/pki/apiserver.key" \
  --service-account-issuer=https://kubernetes.default.svc \
  --service-account-key-file="$run/pki/service-account.pub" --service-account-signing-key-file="$run/pki/service-account.key" \
  -v=1
wait_for 120 "the API server" curl -fs --max-time 2 --cacert "$run/pki/ca.crt" \
  --cert "$run/pki/admin.crt" --key "$run/pki/admin.key" "https://127.0.0.1:$api_port/readyz"
took "API server ready"

# Both end when the API server does not answer for long; a busy test machine needs patience.
patience=(--leader-elect=true --leader-elect-lease-duration=60s --leader-elect-renew-deadline=45s --kube-api-qps=200 --kube-api-burst=400)
start controller-manager "$bin/kube-controller-manager" "${patience[@]}" --bind-address=127.0.0.1 --secure-port="$controller_port" \
  --kubeconfig="$run/controller-manager.kubeconfig" --authentication-kubeconfig="$run/controller-manager.kubeconfig" \
  --authorization-kubeconfig="$run/controller-manager.kubeconfig" --cert-dir="$run/controller-manager" \
  --root-ca-file="$run/pki/ca.crt" --service-account-private-key-file="$run/pki/service-account.key" \
  --cluster-signing-cert-file="$run/pki/ca.crt" --cluster-signing-key-file="$run/pki/ca.key" --use-service-account-credentials=true
start scheduler "$bin/kube-scheduler" "${patience[@]}" --bind-address=127.0.0.1 --secure-port="$scheduler_port" \
  --kubeconfig="$run/scheduler.kubeconfig" --authentication-kubeconfig="$run/scheduler.kubeconfig" \
  --authorization-kubeconfig="$run/scheduler.kubeconfig" --cert-dir="$run/scheduler"

# Without its own resource types (enableCRDs) kwok takes its stages from this file.
{
  cat <<Y
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  cidr: 10.0.0.0/24
  nodeIP: 10.0.0.1
  nodePort: 0
  manageAllNodes: false
  manageNodesWithAnnotationSelector: kwok.x-k8s.io/node=fake
  nodeLeaseDurationSeconds: 40
  nodeLeaseParallelism: 4
  nodePlayStageParallelism: 4
  podPlayStageParallelism: 4
  enablePodsOnNodeSyncStreamWatch: true
  enableCRDs: []
Y
  for stage in "$bin"/stages/*.yaml; do
    echo ---
    cat "$stage"
  done
} >"$run/kwok.yaml"
start kwok env HOME="$run" "$bin/kwok" --config="$run/kwok.yaml" --kubeconfig="$run/admin.kubeconfig" \
  --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake --server-address="127.0.0.1:$kwok_port"

for ((i = 0; i < nodes; i++)); do
  sed "s/NAME/node-$i/g" "$here/manifests/node.yaml"
done | kubectl apply -f - >/dev/null
kubectl wait --for=condition=Ready node --all --timeout=90s >/dev/null
took "$nodes nodes ready"

# ---- the work

kubectl create namespace work >/dev/null
wait_for 60 "the namespace's service account" kubectl --namespace work get serviceaccount default
took "namespace with its service account"

sed "s/REPLICAS/$replicas/" "$here/manifests/deployment.yaml" | kubectl --namespace work apply -f - >/dev/null
kubectl --namespace work rollout status deployment/web --timeout=180s >/dev/null
available=$(kubectl --namespace work get deployment web -o 'jsonpath={.status.availableReplicas}')
if [ "$available" != "$replicas" ]; then
  echo "kubernetes: $available of $replicas replicas are available" >&2
  exit 1
fi
took "$replicas of $replicas replicas available"

kubectl delete namespace work --timeout=120s >/dev/null
took "namespace deleted with all that was in it"

printf '  %6d ms  in all\n' $((($(date +%s%N) - began) / 1000000))
