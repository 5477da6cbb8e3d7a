#!/usr/bin/env bash
# For programs that test a run of the control plane: ends one of its processes, starts it again, signals it.
#
# usage: process.sh stop NAME [SIGNAL]   SIGTERM if none is named; returns once it has ended
#        process.sh again NAME           with the same command line
#        process.sh tell NAME SIGNAL     STOP, CONT, ...
#        process.sh pid NAME
# KUBERNETES_RUN names the folder of the run, lib.sh the processes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run=${KUBERNETES_RUN:?names the folder of the run}
. "$here/lib.sh"
verb=${1:-} name=${2:-}
[ -f "$run/$name.command" ] || { echo "process.sh: there is no process '$name' in $run" >&2; exit 2; }
case $verb in
  stop | again | tell) "$@" ;;
  pid) runs "$name" && cut -d' ' -f1 "$run/$name.pid" ;;
  *)
    echo "process.sh: does not know '$verb'" >&2
    exit 2
    ;;
esac
