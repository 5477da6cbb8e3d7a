# Every task of the project; `make help` lists them. CI (.ci/run) calls the same targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# RocksDB comes ready from the user cache.
CARGO := scripts/cargo.sh
# A server binary that the caller names (MAINSTAY_BIN=…) is taken as it is and not built.
target := $(or $(CARGO_TARGET_DIR),target)
given := $(if $(MAINSTAY_BIN),$(abspath $(MAINSTAY_BIN)))
released := $(or $(given),$(target)/release/mainstay)
under_test := $(or $(given),$(abspath $(target))/test-release/mainstay)

# What the simulation's targets have in common.
sim_run = $(if $(MEMBERS),--members=$(MEMBERS)) $(if $(BREAK),--break=$(BREAK))
sim_report = $(if $(REPORT),--report=$(abspath $(REPORT)))

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- running

.PHONY: run
run: build ## build and start one member on 127.0.0.1:2379, data in default.etcd
	@exec $(target)/release/mainstay $(ARGS)

.PHONY: cluster
cluster: build ## build and start three members on 127.0.0.1:2379, 22379 and 32379, until Ctrl-C
	@exec scripts/cluster.sh "$(target)/release/mainstay"

.PHONY: build
build: setup ## build the release binary, target/release/mainstay
	@$(CARGO) build --release --bin mainstay

# ---- proving

.PHONY: test
test: setup ## run every test, quick ones first (about 35 minutes with warm caches)
	@scripts/test.sh

.PHONY: verify
verify: setup ## check format, lints, docs and dependencies; writes nothing into the tree
	@cargo fmt --all --check
	@$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --workspace --no-deps
	@if ! cargo deny --version >/dev/null 2>&1; then \
	  echo "skipped: cargo deny (not installed; cargo install --locked cargo-deny)"; \
	else \
	  cargo deny --log-level error check --hide-inclusion-graph bans licenses sources; \
	  if cargo deny --log-level off fetch db >/dev/null 2>&1; then cargo deny --log-level error check advisories; \
	  else echo "skipped: cargo deny check advisories (their database could not be fetched)"; fi; \
	fi

.PHONY: fix
fix: setup ## format the code and apply what clippy can repair by itself
	@$(CARGO) clippy --quiet --workspace --all-targets --fix --allow-dirty --allow-staged
	@cargo fmt --all

.PHONY: test-unit
test-unit: setup ## tests beside the code, and the documentation's examples
	@$(CARGO) test --quiet --workspace --exclude mainstay-tests
	@$(CARGO) test --quiet --package mainstay-tests --lib --bins --test tidy

# Not optimised: it shares nothing with the simulation's binary either way (tests need other features
# of the same crates), and builds in a fraction of the time.
.PHONY: test-simulated
test-simulated: setup ## three members in one simulated process, and the simulated clock and network themselves
	@CARGO_TARGET_DIR="$(target)/sim" RUSTFLAGS="--cfg madsim" cargo test --quiet --package mainstay-server --lib -- env:: node::

.PHONY: test-processes
test-processes: setup $(if $(given),,test-binary) ## real processes: kill -9, lost quorum, restart, bad flags
	@MAINSTAY_BIN="$(under_test)" $(CARGO) test --quiet --package mainstay-tests --test it -- --test-threads=1 --nocapture
	@MAINSTAY_BIN="$(under_test)" $(CARGO) test --quiet --package mainstay-benches --test tiny --test scale

# Not part of `make test`: on a fresh machine it builds a second server, of an older commit (scripts/old-binary.sh).
.PHONY: test-upgrade
test-upgrade: setup $(if $(given),,test-binary) ## members of this release and the one before in one cluster, not in `make test`: [MAINSTAY_OLD_BIN=file]
	@old="$(if $(MAINSTAY_OLD_BIN),$(abspath $(MAINSTAY_OLD_BIN)))"; \
	  [ -n "$$old" ] || old="$$(scripts/old-binary.sh)"; \
	  [ -z "$$old" ] || MAINSTAY_OLD_BIN="$$old" MAINSTAY_BIN="$(under_test)" \
	    $(CARGO) test --quiet --package mainstay-tests --test it -- --test-threads=1 --nocapture upgrade::

.PHONY: test-compat
test-compat: setup $(if $(given),,test-binary) ## etcd's own Go client and etcdctl against one member
	@tests/compat/run.sh "$(under_test)"

.PHONY: test-clients
test-clients: setup $(if $(given),,test-binary) ## etcd clients of other languages against one member: [LANGUAGES="rust python"]
	@tests/clients/run.sh "$(under_test)" $(LANGUAGES)

# Scripts that once showed a difference are played each time; SCRIPT= plays one alone, MAINSTAY_BIN=…/etcd
# holds etcd against itself.
.PHONY: differential
differential: setup $(if $(given),,test-binary) ## the same random steps to etcd and one member: SEED=7 or SEEDS=1..20 [STEPS=500], SCRIPT=file
	@ETCD_BIN="$$(scripts/etcd.sh)/etcd" MAINSTAY_BIN="$(under_test)" \
	  $(CARGO) run --quiet --package mainstay-tests --bin differential -- \
	  $(if $(SCRIPT),--script=$(abspath $(SCRIPT)),--script=tests/differential/scripts) \
	  $(if $(SCRIPT),,$(or $(SEED),$(SEEDS),1..20)) $(if $(STEPS),--steps=$(STEPS)) $(ARGS)

.PHONY: fuzz
fuzz: setup $(if $(given),,test-binary) ## malformed requests of every kind to one member: [SECONDS=20] [SEED=1]
	@MAINSTAY_BIN="$(under_test)" \
	  $(CARGO) run --quiet --package mainstay-tests --bin fuzz -- --seconds=$(or $(SECONDS),20) $(if $(SEED),--seed=$(SEED)) $(ARGS)

# What another run was shortened by does not shorten the whole: parts are named on make's own command line.
.PHONY: kubernetes
kubernetes: setup $(if $(given),,build) ## all of Kubernetes but the measurements, about 40 minutes; parts of it: STAGES="deploy deployment objects storage" [TEST=name]
ifeq ($(if $(STAGES),$(origin STAGES)),command line)
	@tests/kubernetes/run.sh "$(released)" $(STAGES)
else
	@unset TEST LIBRARIES ROUNDS SUITE; began=$$SECONDS; \
	  tests/kubernetes/run.sh "$(released)" deploy deployment objects storage && \
	  tests/kubernetes/faults/run.sh "$(released)" 1..5 && \
	  echo "kubernetes: all of it in $$((SECONDS - began)) s, on $$("$(released)" --version | grep mainstay)"
endif

.PHONY: kubernetes-storage
kubernetes-storage: setup $(if $(given),,build) ## the API server's own storage tests, on etcd and on mainstay, and two API servers on one store
	@unset SUITE; tests/kubernetes/run.sh "$(released)" storage

.PHONY: kubernetes-faults
kubernetes-faults: setup $(if $(given),,build) ## a loaded control plane while members die: SEED=7 or SEEDS=1..5 [ROUNDS=1]
	@tests/kubernetes/faults/run.sh "$(released)" $(or $(SEED),$(SEEDS),1)

.PHONY: kubernetes-scale
kubernetes-scale: setup $(if $(given),,build) ## mainstay and etcd under many nodes and pods: [NODES=1000] [PODS=10000] [CONFIGS=50000]
	@unset SYSTEMS; tests/kubernetes/scale/run.sh "$(released)"

.PHONY: sim
sim: setup ## simulate a seed or many: SEED=7 [WITHOUT=0..5,7] [TRACE=file], SEEDS=1..300; both [MEMBERS=5] [BREAK=bug]
	@$(if $(SEED)$(SEEDS),,echo "which seed? make sim SEED=7, or SEEDS=1..300" >&2; exit 2)
	@scripts/sim.sh $(SEED) $(SEEDS) $(sim_run) $(if $(WITHOUT),--without=$(WITHOUT)) $(if $(TRACE),--trace=$(abspath $(TRACE)))

.PHONY: sim-coverage
sim-coverage: setup ## simulate many seeds and say which places and faults they reached: SEEDS=1..300 [REPORT=file]
	@scripts/sim.sh $(or $(SEEDS),1..300) $(sim_run) --coverage $(sim_report)

.PHONY: sim-meta
sim-meta: setup ## simulate each seed twice and compare every line: SEEDS=1..20
	@scripts/sim.sh meta $(or $(SEEDS),1..20) $(sim_run)

.PHONY: sim-mutants
sim-mutants: setup ## simulate with deliberate bugs until each is found: [MUTANT=bug] [SEEDS=50 at most] [REPORT=file]
	@scripts/sim.sh mutants $(MUTANT) $(if $(SEEDS),--seeds=$(SEEDS)) $(if $(ALL),--all) $(sim_report)

.PHONY: bench
bench: setup $(if $(given),,build) ## measure mainstay and etcd side by side: [STEP="what changed"] [ARGS="suite --quick", compare, maintenance, catch-up, "scale --only store" or --help]
	@MAINSTAY_BIN="$(released)" $(CARGO) run --release --quiet --package mainstay-benches -- \
	  $(or $(ARGS),suite) $(if $(STEP),--step "$(STEP)")

# For information: what a few minutes on a busy machine say is no reason to fail.
.PHONY: bench-check
bench-check: setup $(if $(given),,build) ## a quick run of the benchmarks beside the last quick one of the history; never fails
	@MAINSTAY_BIN="$(released)" $(CARGO) run --release --quiet --package mainstay-benches -- \
	  suite --quick --check $(ARGS) >/dev/null || echo "bench-check: not measured, see above" >&2

.PHONY: flame
flame: setup $(if $(given),,build) ## draw where the server's CPU goes in a row of the benchmark, by perf, into target/flame.svg: [ROW=put] [SECONDS=10] [ARGS="--members 3"]
	@MAINSTAY_BIN="$(released)" $(CARGO) run --release --quiet --package mainstay-benches -- \
	  flame $(or $(ROW),put) --duration $(or $(SECONDS),10) --output "$(target)/flame.svg" $(ARGS)

# ---- parts

.PHONY: setup
setup:
	@scripts/setup.sh build

.PHONY: test-binary
test-binary: setup
	@$(CARGO) build --quiet --profile test-release --bin mainstay
