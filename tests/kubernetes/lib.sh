# What a run of the control plane is made of: processes, three members, the components, kwok's nodes.
# Sourced by run.sh, and by process.sh for programs that stop a process and start it again.
#
# Whoever sources it sets
#   here     this folder
#   run      the folder of the run: logs, data, certificates, and for each process
#              NAME.command  its command line, NAME.pid  its pid and when that was born, NAME.log
#   binary   the server
#   bin      the folder of kube-apiserver, kubectl and the others
#
# Processes are named member-0..2, apiserver, controller-manager-0, controller-manager-1, scheduler and kwok.
# Everything listens on loopback and speaks TLS, with client certificates wherever there can be any.

# ---- processes

names=()

# start NAME COMMAND... runs it in the background.
start() {
  local name=$1
  shift
  printf '%q ' "$@" >"$run/$name.command"
  names+=("$name")
  again "$name"
}

# again NAME starts what has ended with the same command line; its log goes on.
again() {
  (eval "exec $(<"$run/$1.command")") >>"$run/$1.log" 2>&1 </dev/null &
  echo "$! $(born $!)" >"$run/$1.pid"
  disown # not this shell's business: it would say so when one is killed
}

# born PID: when a process began, which tells it from a later one of the same pid.
born() { awk '{sub(/^.*\) /, ""); print $20}' "/proc/$1/stat" 2>/dev/null || true; }

# runs NAME, and lives, which a zombie does not: where nobody waits for orphans, they stay.
runs() {
  local pid since
  [ -f "$run/$1.pid" ] && read -r pid since <"$run/$1.pid" || return 1
  [ -n "$since" ] && [ "$(born "$pid")" = "$since" ] && lives "$pid"
}

lives() { grep -q '^State:[[:space:]]*[^[:space:]Z]' "/proc/$1/status" 2>/dev/null; }

# tell NAME SIGNAL
tell() {
  local pid since
  runs "$1" || return 0
  read -r pid since <"$run/$1.pid"
  kill -"$2" "$pid" 2>/dev/null || true
}

# stop NAME [SIGNAL] waits until it has ended, and kills what does not end by itself.
stop() {
  local name=$1 signal=${2:-TERM} tries
  tell "$name" "$signal"
  tell "$name" CONT
  for ((tries = 0; tries < 150; tries++)); do
    runs "$name" || break
    sleep 0.1
  done
  if runs "$name"; then
    echo "kubernetes: $name did not end on SIG$signal" >&2
    tell "$name" KILL
    while runs "$name"; do sleep 0.1; done
  fi
  rm -f "$run/$name.pid"
}

# In the opposite order of starting.
stop_all() {
  local i
  for ((i = ${#names[@]} - 1; i >= 0; i--)); do stop "${names[i]}"; done
}

# Ports below the range from which the system takes those of connections that go out.
port=$((20000 + RANDOM % 10000))
free_port() {
  while :; do
    port=$((port + 1))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
}

# ---- time

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

client_urls=()
store_tls=()

# ask_store URL as the API server would, with its certificate.
ask_store() {
  curl -fs --max-time 2 --cacert "$run/pki/etcd/ca.crt" \
    --cert "$run/pki/apiserver-etcd-client.crt" --key "$run/pki/apiserver-etcd-client.key" "$1"
}

# between_members URL... sets peer_urls: by which the others reach the members that listen at these. A stage may put
# something in between.
between_members() { peer_urls=("$@"); }

# Three members, with certificates on both sides of every connection.
start_members() {
  local i url initial=() listen_urls=() peer_urls=()
  "$here/certificates.sh" "$run/pki"
  local etcd=$run/pki/etcd
  store_tls=(
    --cert-file="$etcd/server.crt" --key-file="$etcd/server.key" --client-cert-auth --trusted-ca-file="$etcd/ca.crt"
    --peer-cert-file="$etcd/peer.crt" --peer-key-file="$etcd/peer.key" --peer-client-cert-auth --peer-trusted-ca-file="$etcd/ca.crt"
  )
  for i in 0 1 2; do
    free_port && client_urls+=("https://127.0.0.1:$port")
    free_port && listen_urls+=("https://127.0.0.1:$port")
  done
  between_members "${listen_urls[@]}"
  for i in 0 1 2; do initial+=("m$i=${peer_urls[i]}"); done
  for i in 0 1 2; do
    start "member-$i" "$binary" --name "m$i" --data-dir "$run/m$i.etcd" \
      --listen-client-urls "${client_urls[i]}" --advertise-client-urls "${client_urls[i]}" \
      --listen-peer-urls "${listen_urls[i]}" --initial-advertise-peer-urls "${peer_urls[i]}" \
      --initial-cluster "$(IFS=,; echo "${initial[*]}")" "${store_tls[@]}" --log-level warn \
      --watch-progress-notify-interval 5s
  done
  for url in "${client_urls[@]}"; do
    wait_for 60 "member $url" ask_store "$url/health"
  done
  took "three members healthy"
}

# ---- the control plane

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

kubectl() { HOME=$run "$bin/kubectl" --kubeconfig="$run/admin.kubeconfig" "$@"; }

# How long events live, and after what time the API server has the store forget what was: as short as a test can wait
# for. A stage may have it otherwise.
event_ttl=${EVENT_TTL:-40s}
compaction_interval=20s

# The API server refuses loopback as its advertised address; nothing is sent to this one.
start_apiserver() {
  local pki=$run/pki
  free_port && api_port=$port
  start apiserver "$bin/kube-apiserver" \
    --etcd-servers="$(IFS=,; echo "${client_urls[*]}")" --etcd-prefix=/registry --etcd-compaction-interval="$compaction_interval" \
    --etcd-cafile="$pki/etcd/ca.crt" --etcd-certfile="$pki/apiserver-etcd-client.crt" --etcd-keyfile="$pki/apiserver-etcd-client.key" \
    --event-ttl="$event_ttl" --encryption-provider-config="$pki/encryption.yaml" \
    --bind-address=127.0.0.1 --secure-port="$api_port" --advertise-address=192.0.2.1 \
    --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC \
    --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --requestheader-client-ca-file="$pki/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki/front-proxy-client.crt" --proxy-client-key-file="$pki/front-proxy-client.key" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/service-account.pub" --service-account-signing-key-file="$pki/service-account.key" \
    -v=1
  local user
  for user in admin controller-manager scheduler; do kubeconfig $user; done
  wait_for 120 "the API server" curl -fs --max-time 2 --cacert "$pki/ca.crt" \
    --cert "$pki/admin.crt" --key "$pki/admin.key" "https://127.0.0.1:$api_port/readyz"
  took "API server ready"
}

# They end when they cannot renew their lease in time; a busy test machine needs patience. A successor waits as long.
patience=(--leader-elect=true --leader-elect-lease-duration=40s --leader-elect-renew-deadline=30s --kube-api-qps=200 --kube-api-burst=400)

# component NAME PROGRAM AS [FLAGS...] starts one that serves, asks and checks who asks with the certificate AS.
component() {
  local name=$1 program=$2 as=$3
  shift 3
  free_port
  start "$name" "$bin/$program" "${patience[@]}" --bind-address=127.0.0.1 --secure-port="$port" \
    --tls-cert-file="$run/pki/$as.crt" --tls-private-key-file="$run/pki/$as.key" --kubeconfig="$run/$as.kubeconfig" \
    --authentication-kubeconfig="$run/$as.kubeconfig" --authorization-kubeconfig="$run/$as.kubeconfig" "$@"
}

# Two controller-managers, of whom one leads, and a scheduler. What they wait for is shortened where a test waits, too.
start_controllers() {
  local i
  for i in 0 1; do
    component "controller-manager-$i" kube-controller-manager controller-manager \
      --root-ca-file="$run/pki/ca.crt" --service-account-private-key-file="$run/pki/service-account.key" \
      --cluster-signing-cert-file="$run/pki/ca.crt" --cluster-signing-key-file="$run/pki/ca.key" \
      --use-service-account-credentials=true \
      --node-monitor-period=2s --node-monitor-grace-period="${NODE_GRACE:-50s}" \
      --horizontal-pod-autoscaler-sync-period=2s --horizontal-pod-autoscaler-cpu-initialization-period=1s
  done
  component scheduler kube-scheduler scheduler
}

# kwok plays the nodes that carry its annotation. Without its own resource types (enableCRDs) it takes its stages
# from this file. It listens nowhere.
start_kwok() {
  {
    cat <<Y
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  cidr: 10.0.0.0/16
  nodeIP: 10.0.0.1
  nodePort: 0
  manageAllNodes: false
  manageNodesWithAnnotationSelector: kwok.x-k8s.io/node=fake
  nodeLeaseDurationSeconds: 40
  nodeLeaseParallelism: ${KWOK_PARALLEL:-4}
  nodePlayStageParallelism: ${KWOK_PARALLEL:-4}
  podPlayStageParallelism: ${KWOK_PARALLEL:-4}
  enablePodsOnNodeSyncStreamWatch: true
  enableCRDs: []
Y
    local stage
    for stage in "$bin"/stages/*.yaml; do
      echo ---
      cat "$stage"
    done
  } >"$run/kwok.yaml"
  start kwok env HOME="$run" "$bin/kwok" --config="$run/kwok.yaml" --kubeconfig="$run/admin.kubeconfig" \
    --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake
}

# add_nodes COUNT: node-0, node-1, ...
add_nodes() {
  local i
  for ((i = 0; i < $1; i++)); do
    sed "s/NAME/node-$i/g" "$here/manifests/node.yaml"
  done | kubectl apply -f - >/dev/null
  attended kubectl wait --for=condition=Ready node --selector=type=kwok --timeout=90s >/dev/null
  took "$1 nodes ready"
}

# control_plane: all of it, once, with $NODES nodes; whichever stage needs it first starts it.
control_plane() {
  [ ! -f "$run/apiserver.command" ] || return 0
  start_members
  start_apiserver
  start_controllers
  start_kwok
  add_nodes "${NODES:-5}"
}

# ---- programs

# attended COMMAND... runs what may take long, as a child: a shell takes no signal while it waits for a command, but does
# while it waits for a child.
child=
attended() {
  local status=0
  "$@" </dev/null &
  child=$!
  wait "$child" || status=$?
  child=
  return $status
}

# at FOLDER COMMAND... is for `attended`, whose child may go where it likes.
at() {
  cd "$1"
  shift
  "$@"
}

# descendants PID: it, what it has started, and so on.
descendants() {
  cat /proc/[0-9]*/stat 2>/dev/null | awk -v top="$1" '
    {pid = $1; sub(/^.*\) /, ""); parent[pid] = $2}
    END {for (pid in parent) {for (at = pid; at + 0 > 1 && at != top; at = parent[at]); if (at == top) print pid}}'
}

# end_attended ends the child, if there is one, with all that it has started: nothing of it is to act on the run any more.
end_attended() {
  local pids tries
  [ -n "$child" ] || return 0
  mapfile -t pids < <(descendants "$child")
  kill -TERM "${pids[@]}" 2>/dev/null || true
  for ((tries = 0; tries < 150 && ${#pids[@]} > 0; )); do
    if lives "${pids[0]}"; then
      sleep 0.1
      tries=$((tries + 1))
    else
      pids=("${pids[@]:1}")
    fi
  done
  [ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true
  wait "$child" 2>/dev/null || true
  child=
}

# in_run COMMAND... runs a program that tests the control plane. It finds everything by these variables:
#   KUBECONFIG                who may do all
#   KUBERNETES_BIN            the folder of kubectl, kube-apiserver and the others
#   KUBERNETES_RUN            the folder of the run, see above
#   STORE_ENDPOINTS           the members' client URLs, with commas
#   STORE_CA, STORE_CERT, STORE_KEY   how a client reaches them
#   PROCESS                   process.sh, which stops a process of the run and starts it again
#   EVENT_TTL                 how long events live
in_run() {
  EVENT_TTL="$event_ttl" KUBECONFIG="$run/admin.kubeconfig" KUBERNETES_BIN="$bin" KUBERNETES_RUN="$run" PROCESS="$here/process.sh" \
    STORE_ENDPOINTS="$(IFS=,; echo "${client_urls[*]}")" STORE_CA="$run/pki/etcd/ca.crt" \
    STORE_CERT="$run/pki/apiserver-etcd-client.crt" STORE_KEY="$run/pki/apiserver-etcd-client.key" "$@"
}

# tests COMMAND... runs a program of Go's tests, told to be verbose, and tells of each with its time, and what it said
# where it failed. TEST names one; to Go it is a success if there is none, or none below one of that name, and here not.
tests() {
  local log=$run/tests.log level='/[^ ]*' levels=${TEST:-}
  levels=${levels//[^\/]/}
  "$@" ${TEST:+-test.run="$TEST"} | tee "$log" | { grep -v '^=== ' || true; }
  [ -n "${TEST:-}" ] || return 0
  if ! grep -Eq -- "^ *--- [A-Z]+: [^ ]*${levels//\//"$level"}" "$log"; then
    echo "kubernetes: TEST=$TEST: no tests to run" >&2
    return 1
  fi
}
