# What stands in deploy/ is started as it stands there; see deploy/process_test.go. It needs no control plane but its own.

"$here/../../scripts/setup.sh" go
# As scripts/kubernetes.sh builds, so that what both are made of is compiled once.
(cd "$here/deploy" && export CGO_ENABLED=0 GOFLAGS=-trimpath && go vet ./... && go test -c -o "$run/deploy.test" .)
took "program built"

attended at "$here/deploy" tests env MAINSTAY_BIN="$binary" KUBERNETES_BIN="$bin" "$run/deploy.test" -test.v -test.timeout=10m
took "deploy/kubeadm, deploy/systemd, deploy/helm"
