# A namespace and a Deployment, until all replicas are available, and all of it deleted again.

control_plane
replicas=${REPLICAS:-20}

kubectl create namespace work >/dev/null
wait_for 60 "the namespace's service account" kubectl --namespace work get serviceaccount default
took "namespace with its service account"

sed "s/REPLICAS/$replicas/" "$here/manifests/deployment.yaml" | kubectl --namespace work apply -f - >/dev/null
attended kubectl --namespace work rollout status deployment/web --timeout=180s >/dev/null
available=$(kubectl --namespace work get deployment web -o 'jsonpath={.status.availableReplicas}')
if [ "$available" != "$replicas" ]; then
  echo "kubernetes: $available of $replicas replicas are available" >&2
  exit 1
fi
took "$replicas of $replicas replicas available"

attended kubectl delete namespace work --timeout=120s >/dev/null
took "namespace deleted with all that was in it"
