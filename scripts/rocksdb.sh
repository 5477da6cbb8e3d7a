#!/usr/bin/env bash
# Builds RocksDB's C++ once per user and prints the folder that holds librocksdb.a.
#
# A cold build takes 24 CPU minutes, far more than all the rest of the workspace, and its
# result depends on nothing but the crate's version and features. So it is kept in a user
# cache under that key, and cargo is pointed there with ROCKSDB_LIB_DIR.
#
# usage: export ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR="$(scripts/rocksdb.sh)"
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(awk '$1=="name" && $3=="\"librocksdb-sys\"" {getline; gsub(/"/,"",$3); print $3; exit}' Cargo.lock 2>/dev/null || true)
if [ -z "$version" ]; then
  echo "rocksdb.sh: Cargo.lock names no librocksdb-sys" >&2
  exit 1
fi
features=lz4
root=${MAINSTAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mainstay}
home=$root/rocksdb-$version-$features-$(uname -m)

if [ ! -f "$home/librocksdb.a" ]; then
  echo "building RocksDB ($version, $features) once into $home: about 14 minutes on two cores" >&2
  mkdir -p "$root"
  exec 9>"$root/rocksdb.lock"
  flock 9 # two makes at once build it once
  if [ ! -f "$home/librocksdb.a" ]; then
    work=$(mktemp -d "$root/rocksdb-build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/src"
    echo '' > "$work/src/lib.rs"
    cat > "$work/Cargo.toml" <<T
[package]
name = "rocksdb-once"
version = "0.0.0"
edition = "2024"
[dependencies]
librocksdb-sys = { version = "=$version", default-features = false, features = ["$features", "bindgen-runtime"] }
[workspace]
T
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u RUSTFLAGS CARGO_TARGET_DIR="$work/target" \
      cargo build --release --quiet --manifest-path "$work/Cargo.toml" >&2
    mkdir -p "$work/lib"
    find "$work/target/release/build" -name librocksdb.a -exec cp {} "$work/lib/" \;
    find "$work/target/release/build" -name liblz4.a -exec cp {} "$work/lib/" \;
    test -f "$work/lib/librocksdb.a"
    rm -rf "$home"
    mv "$work/lib" "$home" # whole or not at all
  fi
fi
echo "$home"
