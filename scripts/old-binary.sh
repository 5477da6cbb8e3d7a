#!/usr/bin/env bash
# Builds the server of the release before once per user and prints its path, for tests in which members of two releases
# are one cluster. Where the history is not at hand (a tarball, a shallow clone) it prints nothing, and says so.
#
# usage: MAINSTAY_OLD_BIN="$(scripts/old-binary.sh)" make test-upgrade
set -euo pipefail
cd "$(dirname "$0")/.."

# The last commit that changed what members store, agree on or tell each other, before the present release does: with it
# an identity says whether its cluster was forced, and a digest of an older release is told apart. Whoever changes a
# format names here the last commit before that change.
commit=955832f74a8d79d987b83ef6af99f6b5434c39e4

root=${MAINSTAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mainstay}
home=$root/release-${commit:0:12}-$(uname -m)

if [ ! -x "$home/mainstay" ]; then
  # A folder that is no repository of its own may lie in one that is something else.
  if ! git rev-parse --verify --quiet "$commit^{commit}" >/dev/null 2>&1; then
    echo "skipped: the history of this project is not at hand, so the release before (${commit:0:7}) cannot be built" >&2
    exit 0
  fi
  echo "building the release before (${commit:0:7}) once into $home: about 8 minutes on two cores" >&2
  mkdir -p "$root"
  exec 9>"$root/release.lock"
  flock 9 # two makes at once build it once
  if [ ! -x "$home/mainstay" ]; then
    work=$(mktemp -d "$root/release-build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/source" "$work/bin"
    git archive "$commit" | tar -x -C "$work/source"
    (
      cd "$work/source"
      CARGO_TARGET_DIR="$work/target" MAINSTAY_GIT_SHA="${commit:0:7}" \
        scripts/cargo.sh build --quiet --locked --profile test-release --bin mainstay
    ) >&2
    mv "$work/target/test-release/mainstay" "$work/bin/"
    rm -rf "$home"
    mv "$work/bin" "$home" # whole or not at all
  fi
fi
echo "$home/mainstay"
