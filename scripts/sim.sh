#!/usr/bin/env bash
# Simulates a cluster: one seed, or a row of seeds. Every seed runs in a process of its own.
#
# usage: scripts/sim.sh SEED
#        scripts/sim.sh --count N     seeds 1 to N
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR=target/sim RUSTFLAGS="--cfg madsim"
exec cargo run --quiet --profile test-release --package mainstay-tests --bin sim -- "${@:?usage: sim.sh SEED | --count N}"
