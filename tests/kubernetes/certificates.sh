#!/usr/bin/env bash
# Makes the keys and certificates of one run of the control plane, valid for a day.
#
# usage: certificates.sh FOLDER
set -euo pipefail
mkdir -p "${1:?usage: certificates.sh FOLDER}"
cd "$1"

# certificate NAME SUBJECT [ALTERNATIVE NAMES] signs a key of that name with the CA.
certificate() {
  local name=$1 subject=$2 alternatives=${3:-}
  {
    echo "keyUsage=critical,digitalSignature,keyEncipherment"
    echo "extendedKeyUsage=serverAuth,clientAuth"
    [ -z "$alternatives" ] || echo "subjectAltName=$alternatives"
  } >"$name.ext"
  openssl req -newkey rsa:2048 -nodes -keyout "$name.key" -out "$name.csr" -subj "$subject"
  openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile "$name.ext" -out "$name.crt"
  rm "$name.csr" "$name.ext"
}

{
  openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout ca.key -out ca.crt -subj "/CN=ca" \
    -addext "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"
  certificate apiserver "/CN=kube-apiserver" \
    "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  certificate admin "/O=system:masters/CN=admin"
  certificate controller-manager "/CN=system:kube-controller-manager"
  certificate scheduler "/CN=system:kube-scheduler"
  openssl genrsa -out service-account.key 2048
  openssl rsa -in service-account.key -pubout -out service-account.pub
} >openssl.log 2>&1 || {
  cat openssl.log >&2
  exit 1
}
