# Hands signals on to the run that a script is waiting for, and waits until that has cleaned up. Sourced by those who call
# run.sh.

# The run that goes on, if one does. The shell itself takes no signal while it waits for a command, but does while it
# waits for a child.
relayed=
trap 'trap "" TERM INT HUP; [ -z "$relayed" ] || { kill -TERM "$relayed" && wait "$relayed"; } 2>/dev/null || true; exit 130' TERM INT HUP

# relay COMMAND... runs it.
relay() {
  local status=0
  "$@" &
  relayed=$!
  wait "$relayed" || status=$?
  relayed=
  return $status
}
