#!/usr/bin/env bash
# Builds etcd's own `benchmark` from the Go module benches/tools once per user and prints its folder.
#
# It is a second opinion on the servers: another client, another clock. It stands in the root module of etcd, of
# which 3.6.8 is the newest version that the Go proxy has, so it has a module of its own beside the 3.7 tools; what it
# sends is the same.
#
# usage: benchmark="$(scripts/etcd-benchmark.sh)/benchmark"
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(awk '$1=="go.etcd.io/etcd/v3" && $2!="" {print $2; exit}' benches/tools/go.mod)
root=${MAINSTAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mainstay}
key=$(cat benches/tools/go.mod benches/tools/go.sum | sha256sum | cut -c1-8)
home=$root/etcd-benchmark-$version-$key-$(uname -m)

if [ ! -x "$home/benchmark" ]; then
  scripts/setup.sh go >&2
  echo "building etcd's benchmark tool $version once into $home: about a minute on two cores" >&2
  mkdir -p "$root"
  exec 9>"$root/etcd-benchmark.lock"
  flock 9 # two makes at once build it once
  if [ ! -x "$home/benchmark" ]; then
    work=$(mktemp -d "$root/etcd-benchmark-build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    (cd benches/tools && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' \
      -o "$work/bin/benchmark" go.etcd.io/etcd/v3/tools/benchmark) >&2
    rm -rf "$home"
    mv "$work/bin" "$home" # whole or not at all
  fi
fi
echo "$home"
