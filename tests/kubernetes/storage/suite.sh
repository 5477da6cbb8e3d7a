#!/usr/bin/env bash
# Runs the tests of the API server's storage layer (k8s.io/apiserver: pkg/storage and what else starts a server) on the
# etcd that they embed and on a server binary, and compares. A test that passes on etcd and not on the binary fails.
#
# The module is copied from Go's cache, as it is; in its tests an overlay replaces one call, embed.StartEtcd, by one
# that starts the binary with the flags that the embedded etcd's configuration amounts to (testdata/testserver/).
#
# usage: suite.sh BINARY [FLAGS OF suite/main.go...]      e.g. -run TestList
#        LIBRARIES="control-plane storage/next"   whose version of the module: that of the control plane, and the next,
#                                                 which asks for lists by RangeStream
set -euo pipefail
shopt -s inherit_errexit
storage=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: suite.sh BINARY [FLAGS...]}")
shift
"$storage/../../../scripts/setup.sh" go
root=${MAINSTAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mainstay}
work=$(mktemp -d "${TMPDIR:-/tmp}/mainstay-storage.XXXXXX")
mkdir -p "$root"

finish() {
  local status=$?
  trap - EXIT
  if [ $status = 0 ]; then rm -rf "$work"; else echo "storage: FAILED; what the tests printed is in $work" >&2; fi
  exit $status
}
trap finish EXIT

cd "$storage/.."
go vet ./storage/suite
go test -count=1 ./storage/suite >"$work/suite.log" || { cat "$work/suite.log" >&2; exit 1; }
go build -o "$work/suite" ./storage/suite

# library MODULE: a copy of k8s.io/apiserver in the version and with the checksum that the module has, where files can
# be replaced.
library() {
  local found version source copy scratch
  cd "$storage/../$1" || return
  go mod download k8s.io/apiserver || return
  found=$(go list -m -f '{{.Version}} {{.Dir}}' k8s.io/apiserver) || return
  read -r version source <<<"$found"
  # What is copied stays in the cache for every later run.
  if [ -z "$version" ] || [ ! -d "$source/pkg/storage" ]; then
    echo "suite.sh: go has no k8s.io/apiserver for $1: '$found'" >&2
    return 1
  fi
  copy=$root/apiserver-$version
  if [ ! -d "$copy" ]; then
    scratch=$(mktemp -d "$root/apiserver.XXXXXX") || return
    if ! cp -r "$source/." "$scratch" || ! chmod -R u+w "$scratch"; then
      chmod -R u+w "$scratch" && rm -rf "$scratch"
      return 1
    fi
    mv -T "$scratch" "$copy" 2>/dev/null || rm -rf "$scratch" # another run was faster
  fi
  echo "$copy"
}

for module in ${LIBRARIES:-control-plane storage/next}; do
  copy=$(library "$module")
  version=${copy##*/apiserver-}
  folder=$work/$version
  mkdir "$folder"
  server=$copy/pkg/storage/etcd3/testserver
  sed 's/embed\.StartEtcd(cfg)/startExternal(t, cfg)/' "$server/test_server.go" >"$folder/test_server.go"
  if [ "$(grep -c 'startExternal(t, cfg)' "$folder/test_server.go")" != 1 ]; then
    echo "suite.sh: $server/test_server.go starts etcd otherwise than is known here" >&2
    exit 1
  fi
  cat >"$folder/overlay.json" <<J
{"Replace": {"$server/test_server.go": "$folder/test_server.go", "$server/external.go": "$storage/testdata/testserver/external.go"}}
J
  echo "the tests of k8s.io/apiserver $version:"
  MAINSTAY_BIN=$binary "$work/suite" -source "$copy" -overlay "$folder/overlay.json" -folder "$folder" "$@"
  echo
done
