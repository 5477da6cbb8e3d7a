#!/usr/bin/env bash
# Runs etcd's Go client and etcdctl against one fresh member of a server binary.
#
# usage: tests/compat/run.sh BINARY [go test flags…]      e.g. -run TestEtcdctl/watch -v
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
MAINSTAY_BIN=$(realpath "${1:?usage: run.sh BINARY [go test flags…]}")
shift

"$here/../../scripts/setup.sh" go
ETCDCTL=$("$here/../../scripts/etcd.sh")/etcdctl
export MAINSTAY_BIN ETCDCTL
cd "$here"
go vet ./...
exec go test -count=1 "$@" ./...
