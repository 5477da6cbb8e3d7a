#!/usr/bin/env bash
# Builds a Kubernetes control plane and kwok once per user and prints their folder.
#
# kube-apiserver, kube-controller-manager, kube-scheduler and kubectl come from the Go module
# tests/kubernetes/control-plane, kwok (which plays the nodes) from tests/kubernetes/kwok: it wants
# other versions of Kubernetes' libraries. Versions and checksums are those of their go.mod and go.sum.
#
# usage: kubectl="$(scripts/kubernetes.sh)/kubectl"
set -euo pipefail
cd "$(dirname "$0")/.."

modules=tests/kubernetes
version=$(awk '$1=="k8s.io/kubernetes" {print $2; exit}' $modules/control-plane/go.mod)
kwok_version=$(awk '$1=="sigs.k8s.io/kwok" {print $2; exit}' $modules/kwok/go.mod)
root=${MAINSTAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mainstay}
key=$(cat $modules/{control-plane,kwok}/go.mod $modules/{control-plane,kwok}/go.sum | sha256sum | cut -c1-8)
home=$root/kubernetes-$version-$key-$(uname -m)

# Programs read their own version from variables that the linker sets; without them the
# components take themselves for v0.0.0 and their feature gates behave accordingly.
stamp() {
  local number=${version#v} package flags="-s -w"
  local major=${number%%.*}
  local minor=${number#*.}
  minor=${minor%%.*}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
    flags+=" -X $package.gitTreeState=clean -X $package.gitCommit=$(printf '0%.0s' {1..40})"
    flags+=" -X $package.buildDate=2026-01-01T00:00:00Z"
  done
  echo "$flags"
}

if [ ! -f "$home/complete" ]; then
  scripts/setup.sh go >&2
  echo "building Kubernetes $version and kwok $kwok_version once into $home: about 12 minutes on two cores" >&2
  mkdir -p "$root"
  exec 9>"$root/kubernetes.lock"
  flock 9 # two makes at once build it once
  if [ ! -f "$home/complete" ]; then
    work=$(mktemp -d "$root/kubernetes-build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    export CGO_ENABLED=0
    for program in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
      (cd $modules/control-plane && go build -trimpath -ldflags "$(stamp)" -o "$work/bin/$program" "k8s.io/kubernetes/cmd/$program") >&2
    done
    (
      cd $modules/kwok
      go build -trimpath -ldflags "-s -w -X sigs.k8s.io/kwok/pkg/consts.Version=$kwok_version" -o "$work/bin/kwok" sigs.k8s.io/kwok/cmd/kwok
      # What kwok's nodes and pods do in which order comes with its module.
      mkdir -p "$work/bin/stages"
      source=$(go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
      for stage in node/fast/node-initialize.yaml node/heartbeat-with-lease/node-heartbeat-with-lease.yaml \
        pod/fast/pod-ready.yaml pod/fast/pod-complete.yaml pod/fast/pod-delete.yaml; do
        install -m 644 "$source/$stage" "$work/bin/stages/"
      done
    ) >&2
    touch "$work/bin/complete"
    rm -rf "$home"
    mv "$work/bin" "$home" # whole or not at all
  fi
fi
echo "$home"
