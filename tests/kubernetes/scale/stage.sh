# Nodes with leases, configuration and pods in numbers, measured: how long each step takes, how long requests take, and
# what the store spends. tests/kubernetes/scale/run.sh runs it on mainstay and on etcd and holds them beside each other.
#        SYSTEM=mainstay   the name that is told
#        RESULTS=FILE      where the line of JSON is added
#        SCALE_NODES=1000   SCALE_PODS=10000   CONFIGS=50000   STEADY=60s

if [ -f "$run/apiserver.command" ]; then
  echo "run.sh: the stage 'scale' needs a control plane of its own" >&2
  exit 2
fi
"$here/../../scripts/setup.sh" go
(cd "$here" && go vet ./access ./scale && go test -count=1 ./scale && go build -o "$run/scale" ./scale)

# What is measured is the store: nobody else is held back, and no node is given up because the machine is busy.
patience+=(--kube-api-qps=2000 --kube-api-burst=4000)
NODE_GRACE=10m
# So many does it do at once: a thousand nodes renew a hundred leases a second.
KWOK_PARALLEL=32
# As the API server has them where nobody says otherwise.
event_ttl=1h
compaction_interval=5m
start_members
start_apiserver
start_controllers
start_kwok

attended in_run "$run/scale" measure -system "${SYSTEM:-mainstay}" -out "${RESULTS:-$run/results.jsonl}" -node "$here/manifests/node.yaml" \
  -nodes "${SCALE_NODES:-1000}" -pods "${SCALE_PODS:-10000}" -configs "${CONFIGS:-50000}" -steady "${STEADY:-60s}"
[ -n "${RESULTS:-}" ] || cat "$run/results.jsonl"
took "all of it"
