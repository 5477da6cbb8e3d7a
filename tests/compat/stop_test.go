package compat

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestStopWithStreams: a member that stops tells its watchers so, and does not wait for them. etcd does, for the
// seven seconds that a request may take.
func TestStopWithStreams(t *testing.T) {
	binary := os.Getenv("MAINSTAY_BIN")
	if binary == "" || os.Getenv("MAINSTAY_ENDPOINTS") != "" {
		t.Skip("needs a member of its own")
	}
	member, endpoint, err := startMember(binary, t.TempDir())
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	defer cancel()
	connection := plain(t, endpoint)
	watch, err := pb.NewWatchClient(connection).Watch(ctx)
	must(t, err)
	must(t, watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")},
	}}))
	created, err := watch.Recv()
	must(t, err)
	equal(t, "created", created.Created, true)
	keepAlive, err := pb.NewLeaseClient(connection).LeaseKeepAlive(ctx)
	must(t, err)
	must(t, keepAlive.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
	_, err = keepAlive.Recv()
	must(t, err)
	watchedByHTTP := make(chan error, 1)
	response, err := http.Post("http://"+endpoint+"/v3/watch", "application/json", strings.NewReader(`{"create_request":{"key":"aw=="}}`))
	must(t, err)
	defer response.Body.Close()
	line := make([]byte, 1)
	_, err = response.Body.Read(line)
	must(t, err)
	go func() {
		for err == nil {
			_, err = response.Body.Read(line)
		}
		watchedByHTTP <- err
	}()

	began := time.Now()
	must(t, stopMember(member))
	took := time.Since(began)
	_, err = watch.Recv()
	stopped(t, err)
	_, err = keepAlive.Recv()
	stopped(t, err)
	take(t, "end of the watch by HTTP", watchedByHTTP)
	if took > 2*time.Second && !isEtcd(binary) {
		t.Fatalf("stopping took %v", took)
	}
}

// stopped says that a client may go on elsewhere.
func stopped(t *testing.T, err error) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), "rpc error: code = Unavailable desc = ") {
		t.Fatalf("got %v, want it to be unavailable", err)
	}
}

func isEtcd(binary string) bool {
	return strings.HasSuffix(binary, "/etcd")
}
