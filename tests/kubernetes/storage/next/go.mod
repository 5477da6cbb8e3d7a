module mainstay/tests/kubernetes/storage/next

go 1.26.0

// The storage layer of the next Kubernetes, for its tests only.
require k8s.io/apiserver v0.37.2
