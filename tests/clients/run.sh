#!/usr/bin/env bash
# Runs etcd clients of other languages than Go, from their registries, against one fresh member.
#
# usage: tests/clients/run.sh BINARY [rust] [python] [javascript]      all three if none is named
#
# Rust's own turns authentication on in the end, so users come last.
set -euo pipefail
cd "$(dirname "$0")"
binary=$(realpath "${1:?usage: run.sh BINARY [LANGUAGE...]}")
shift
[ $# -gt 0 ] || set -- rust python javascript
../../scripts/setup.sh build tools clients

# What is fetched and built is kept between runs, and made anew where the list of it has changed.
work=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/clients
mkdir -p "$work"

# fetched NAME LIST COMMAND... runs a command once for a list.
fetched() {
  local stamp=$work/$1.fetched list=$2
  shift 2
  cmp -s "$list" "$stamp" && return
  "$@" >"$work/fetch.log" 2>&1 || { cat "$work/fetch.log" >&2; return 1; }
  cp "$list" "$stamp"
}

prepare_python() {
  [ -x "$work/python/bin/pip" ] || python3 -m venv "$work/python"
  fetched python python/requirements.txt "$work/python/bin/pip" install --quiet -r python/requirements.txt
}

prepare_javascript() {
  mkdir -p "$work/javascript"
  cp javascript/package.json javascript/main.js "$work/javascript/"
  fetched javascript javascript/package.json npm --prefix "$work/javascript" install --no-package-lock --no-audit --no-fund
}

# The Rust client compiles etcd's .proto files when it is built, with a protoc from PyPI.
prepare_rust() {
  [ -x "$work/protoc/bin/pip" ] || python3 -m venv "$work/protoc"
  fetched protoc rust/protoc.txt "$work/protoc/bin/pip" install --quiet -r rust/protoc.txt
  printf '#!/bin/sh\nexec "%s/protoc/bin/python" -m grpc_tools.protoc "$@"\n' "$work" >"$work/protoc.sh"
  chmod +x "$work/protoc.sh"
  PROTOC=$work/protoc.sh CARGO_TARGET_DIR=$work/rust cargo build --quiet --locked --manifest-path rust/Cargo.toml
}

run_python() { PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python timeout 120 "$work/python/bin/python" python/main.py "$@"; }
run_javascript() { timeout 120 node "$work/javascript/main.js" "$@"; }
run_rust() { timeout 120 "$work/rust/debug/clients" "$@"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

for language; do "prepare_$language"; done

data=$(mktemp -d)
client=$(free_port) peer=$(free_port)
"$binary" --data-dir="$data/default.etcd" --log-level=warn \
  --listen-client-urls="http://127.0.0.1:$client" --advertise-client-urls="http://127.0.0.1:$client" \
  --listen-peer-urls="http://127.0.0.1:$peer" --initial-advertise-peer-urls="http://127.0.0.1:$peer" \
  --initial-cluster="default=http://127.0.0.1:$peer" >"$data/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -rf "$data"' EXIT
for _ in $(seq 100); do
  curl -sf "http://127.0.0.1:$client/health" >/dev/null && break
  sleep 0.1
done

# call LANGUAGE [MODE] runs a program, and tells what the server said where it fails.
call() {
  "run_$1" "127.0.0.1:$client" "${@:2}" && return
  echo "clients: $1 failed; the server's log ends:" >&2
  tail -n 20 "$data/log" >&2
  exit 1
}

for language; do call "$language"; done
case " $* " in *" rust "*)
  call rust users
  case " $* " in *" javascript "*) call javascript users ;; esac
  ;;
esac
