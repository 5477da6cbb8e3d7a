# Every kind of object that Kubernetes is known for; see objects/main_test.go. Built before anything is started.

"$here/../../scripts/setup.sh" go
# As scripts/kubernetes.sh builds, so that what both are made of is compiled once.
(cd "$here/objects" && export CGO_ENABLED=0 GOFLAGS=-trimpath && go vet ./... && go test -c -o "$run/objects.test" .)
took "program built"

control_plane
attended at "$here/objects" tests in_run "$run/objects.test" -test.v -test.parallel="${PARALLEL:-8}" -test.timeout=25m
took "objects"
