# What the API server asks of its store: the tests of its own storage layer, on etcd and on mainstay, and then what two
# API servers on one store promise to clients. TEST names one of the latter, and leaves out the former.
#        SUITE=none   leaves out the former, which take long

case ${SUITE:-} in
  '' | none) ;;
  *)
    echo "run.sh: SUITE=$SUITE: it can be 'none', or not be set" >&2
    exit 2
    ;;
esac
"$here/../../scripts/setup.sh" go
if [ -n "${TEST:-}${SUITE:-}" ]; then
  echo "  NOT RUN: the API server's own storage tests (${TEST:+TEST=$TEST}${TEST:+${SUITE:+, }}${SUITE:+SUITE=$SUITE})"
else
  attended "$here/storage/suite.sh" "$binary"
  took "the API server's storage tests, on etcd and on mainstay"
fi

control_plane

# Another API server, as the first but for its port.
if [ ! -f "$run/apiserver-second.command" ]; then
  eval "second=($(<"$run/apiserver.command"))"
  free_port
  start apiserver-second "${second[@]/#--secure-port=*/--secure-port=$port}"
  sed "s|https://127.0.0.1:$api_port|https://127.0.0.1:$port|" "$run/admin.kubeconfig" >"$run/second.kubeconfig"
  wait_for 120 "the second API server" curl -fs --max-time 2 --cacert "$run/pki/ca.crt" \
    --cert "$run/pki/admin.crt" --key "$run/pki/admin.key" "https://127.0.0.1:$port/readyz"
  took "second API server ready"
fi

(cd "$here" && go vet ./access ./storage/contract)
attended at "$here" tests in_run env KUBECONFIG_SECOND="$run/second.kubeconfig" go test -v -count=1 -timeout=20m ./storage/contract
took "contract of two API servers on one store"
