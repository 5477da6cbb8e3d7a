#!/usr/bin/env bash
# Installs what is missing to build and test mainstay, or names it and how to get it.
#
# usage: scripts/setup.sh build   C++ compiler, libclang (RocksDB's bindings), the Rust toolchain
#        scripts/setup.sh go      Go, for etcd's own clients and the Kubernetes control plane
#        scripts/setup.sh tools   curl and openssl, for the Kubernetes run
#        scripts/setup.sh clients Python and Node.js, for the clients of other languages
#
# Only apt-get as root and rustup are used; anything else is left to the reader. Costs well under
# a second when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

GO_AT_LEAST=1.26

missing=()

have() { command -v "$1" >/dev/null 2>&1; }

# Not libclang-cpp, another library, which is there where a linker or a debugger of LLVM is.
have_libclang() {
  [ -n "${LIBCLANG_PATH:-}" ] && return 0
  local folder
  for folder in '/usr/lib/llvm-*/lib' '/usr/lib/*' /usr/lib64; do
    compgen -G "$folder/libclang.so*" >/dev/null && return 0
    compgen -G "$folder/libclang-[0-9]*.so*" >/dev/null && return 0
  done
  return 1
}

# package NAME... installs Debian packages, or remembers them as missing.
package() {
  if [ "$(id -u)" = 0 ] && have apt-get; then
    echo "installing $* with apt-get" >&2
    local log
    log=$(mktemp)
    if { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } >"$log" 2>&1; then
      rm -f "$log"
      return 0
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
  fi
  missing+=("Debian packages $* (elsewhere: the same under the system's names)")
}

for need in "${@:-build}"; do
  case $need in
    build)
      wanted=()
      have g++ || wanted+=(g++)
      have_libclang || wanted+=(libclang-dev)
      [ ${#wanted[@]} = 0 ] || package "${wanted[@]}"
      # Outside rustup a cargo of its own may do; it says itself when it is too old.
      if have rustup; then
        rustup toolchain install >/dev/null 2>&1 || rustup show active-toolchain >/dev/null 2>&1 ||
          missing+=("the toolchain of rust-toolchain.toml (rustup could not install it)")
      elif ! have cargo; then
        missing+=("Rust with rustup: https://rustup.rs")
      fi
      ;;
    go)
      if ! have go; then
        missing+=("Go $GO_AT_LEAST or newer: https://go.dev/dl")
      else
        found=$(GOTOOLCHAIN=local go env GOVERSION)
        oldest=$(printf '%s\n' "$GO_AT_LEAST" "${found#go}" | sort -V | head -n 1)
        [ "$oldest" = "$GO_AT_LEAST" ] || missing+=("Go $GO_AT_LEAST or newer (found ${found#go}): https://go.dev/dl")
      fi
      ;;
    tools)
      wanted=()
      have curl || wanted+=(curl)
      have openssl || wanted+=(openssl)
      [ ${#wanted[@]} = 0 ] || package "${wanted[@]}"
      ;;
    clients)
      wanted=()
      python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3 python3-venv)
      have npm || wanted+=(nodejs npm)
      [ ${#wanted[@]} = 0 ] || package "${wanted[@]}"
      ;;
    *)
      echo "setup.sh: does not know '$need'" >&2
      exit 2
      ;;
  esac
done

if [ ${#missing[@]} -gt 0 ]; then
  echo "missing on this machine:" >&2
  printf '  %s\n' "${missing[@]}" >&2
  exit 1
fi
