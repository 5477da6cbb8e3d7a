#!/usr/bin/env bash
# Builds etcd, etcdctl, etcdutl and bbolt from the Go module tests/tools once per user and prints their folder.
#
# The tools are the judges of compatibility, and etcd itself stands in for mainstay when the tests
# are tested (make test-etcd). Versions and checksums are those of tests/tools/go.mod and go.sum.
#
# usage: etcdctl="$(scripts/etcd.sh)/etcdctl"
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(awk '$1=="go.etcd.io/etcd/server/v3" && $2!="" {print $2; exit}' tests/tools/go.mod)
root=${MAINSTAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mainstay}
key=$(cat tests/tools/go.mod tests/tools/go.sum | sha256sum | cut -c1-8)
home=$root/etcd-$version-$key-$(uname -m)

if [ ! -x "$home/etcdctl" ]; then
  scripts/setup.sh go >&2
  echo "building etcd and its tools $version once into $home: about 3 minutes on two cores" >&2
  mkdir -p "$root"
  exec 9>"$root/etcd.lock"
  flock 9 # two makes at once build it once
  if [ ! -x "$home/etcdctl" ]; then
    work=$(mktemp -d "$root/etcd-build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    for tool in etcd/server/v3:etcd etcd/etcdctl/v3:etcdctl etcd/etcdutl/v3:etcdutl bbolt/cmd/bbolt:bbolt; do
      (cd tests/tools && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' \
        -o "$work/bin/${tool#*:}" "go.etcd.io/${tool%:*}") >&2
    done
    rm -rf "$home"
    mv "$work/bin" "$home" # whole or not at all
  fi
fi
echo "$home"
