#!/usr/bin/env bash
# Builds the simulation and calls it; `scripts/sim.sh --help` says with what.
set -euo pipefail
cd "$(dirname "$0")/.."

# Its own folder, for another --cfg would rebuild everything that the other stages share.
target=${CARGO_TARGET_DIR:-target}/sim
CARGO_TARGET_DIR=$target RUSTFLAGS="--cfg madsim" \
  cargo build --quiet --profile simulation --package mainstay-tests --bin sim
# What a report is about.
SIM_COMMIT=$(git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown)
export SIM_COMMIT
# A run tells local times, of openraft.
TZ=UTC exec "$target/simulation/sim" "$@"
