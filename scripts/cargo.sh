#!/usr/bin/env bash
# cargo with RocksDB from the user cache (scripts/rocksdb.sh); every argument is cargo's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ROCKSDB_LIB_DIR=$("$here/rocksdb.sh")
export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
exec cargo "$@"
