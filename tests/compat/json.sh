#!/usr/bin/env bash
# Asks the JSON gateway at $ENDPOINT and prints the answer's status and body.
#
# usage: json.sh PATH BODY [curl flags…]      PATH is what follows /v3/
#
# What differs from member to member (ids, terms) is left out of headers, and so are the blanks that Go's
# protobuf library puts in by chance. A stream is listened to for a second.
set -euo pipefail
path=$1 body=$2
shift 2
stream=0
case $path in watch | lease/keepalive | election/observe) stream=1 ;; esac
answer=$(curl -sS --max-time $((stream ? 1 : 10)) -w '\n[%{http_code}]' "http://$ENDPOINT/v3/$path" --data-binary "$body" "$@" \
  2>/dev/null || ((stream)))
printf '%s\n' "$answer" | sed -E -e 's/\xc2\xa0/ /g' -e 's/([]}"0-9el]), ("|\{)/\1,\2/g' \
  -e 's/"(cluster_id|member_id)":"[0-9]+",?//g' -e 's/,?"raft_term":"[0-9]+"//g' | sed '/^$/d'
