#!/usr/bin/env bash
# Makes the keys and certificates of one run of the control plane, valid for a day, under the names and in the
# folders that kubeadm gives them; and the configuration by which the API server encrypts Secrets.
#
# usage: certificates.sh FOLDER
set -euo pipefail
mkdir -p "${1:?usage: certificates.sh FOLDER}/etcd"
cd "$1"

# authority NAME
authority() {
  openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout "$1.key" -out "$1.crt" -subj "/CN=${1//\//-}" \
    -addext "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"
}

# certificate AUTHORITY NAME SUBJECT [ALTERNATIVE NAMES] signs a key of that name.
certificate() {
  local authority=$1 name=$2 subject=$3 alternatives=${4:-}
  {
    echo "keyUsage=critical,digitalSignature,keyEncipherment"
    echo "extendedKeyUsage=serverAuth,clientAuth"
    [ -z "$alternatives" ] || echo "subjectAltName=$alternatives"
  } >"$name.ext"
  openssl req -newkey rsa:2048 -nodes -keyout "$name.key" -out "$name.csr" -subj "$subject"
  openssl x509 -req -in "$name.csr" -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial -days 1 \
    -extfile "$name.ext" -out "$name.crt"
  rm "$name.csr" "$name.ext"
}

here="IP:127.0.0.1,DNS:localhost"
{
  authority ca
  certificate ca apiserver "/CN=kube-apiserver" \
    "$here,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  certificate ca admin "/O=system:masters/CN=admin"
  certificate ca controller-manager "/CN=system:kube-controller-manager" "$here"
  certificate ca scheduler "/CN=system:kube-scheduler" "$here"
  openssl genrsa -out service-account.key 2048
  openssl rsa -in service-account.key -pubout -out service-account.pub

  authority front-proxy-ca
  certificate front-proxy-ca front-proxy-client "/CN=front-proxy-client"

  authority etcd/ca
  certificate etcd/ca etcd/server "/CN=store" "$here"
  certificate etcd/ca etcd/peer "/CN=store" "$here"
  certificate etcd/ca etcd/healthcheck-client "/CN=kube-etcd-healthcheck-client"
  certificate etcd/ca apiserver-etcd-client "/CN=kube-apiserver-etcd-client"

  # The first provider writes; the other reads what was written before there was a key.
  cat >encryption.yaml <<Y
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc: {keys: [{name: of-this-run, secret: "$(openssl rand -base64 32)"}]}
  - identity: {}
Y
} >openssl.log 2>&1 || {
  cat openssl.log >&2
  exit 1
}
