package compat

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestMoveLeader hands the leadership of three members around, by gRPC and by etcdctl.
func TestMoveLeader(t *testing.T) {
	endpoints, _ := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*deadline)
	defer cancel()
	ids, leader := roles(t, ctx, endpoints)
	next := (leader + 1) % 3
	ask := func(endpoint string, target uint64) error {
		_, err := pb.NewMaintenanceClient(plain(t, endpoint)).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: target})
		return err
	}
	leads := func(member int) func() bool {
		return func() bool {
			for _, endpoint := range endpoints {
				status, err := to(t, endpoint).Status(ctx, endpoint)
				if err != nil || status.Leader != ids[member] {
					return false
				}
			}
			return true
		}
	}

	refused(t, ask(endpoints[next], ids[next]), "rpc error: code = FailedPrecondition desc = etcdserver: not leader")
	refused(t, ask(endpoints[next], 1), "rpc error: code = FailedPrecondition desc = etcdserver: not leader")
	refused(t, ask(endpoints[leader], 1), "rpc error: code = FailedPrecondition desc = etcdserver: bad leader transferee")
	refused(t, ask(endpoints[leader], 0), "rpc error: code = FailedPrecondition desc = etcdserver: bad leader transferee")
	must(t, ask(endpoints[leader], ids[leader])) // it leads already

	put(t, ctx, to(t, endpoints[leader]), "before", "v")
	began := time.Now()
	must(t, ask(endpoints[leader], ids[next]))
	if took := time.Since(began); took > 5*time.Second {
		t.Fatalf("moving the leader took %v", took)
	}
	eventually(t, "the asked member leads", leads(next))
	put(t, ctx, to(t, endpoints[leader]), "after", "v")
	got, err := to(t, endpoints[leader]).Get(ctx, "before")
	must(t, err)
	equal(t, "keys", len(got.Kvs), 1)

	// etcdctl finds the leader among its endpoints by itself, and says so where it is not there.
	etcdctl := func(args ...string) (string, error) {
		command := exec.Command(os.Getenv("ETCDCTL"), args...)
		out, err := command.Output()
		return string(out), err
	}
	last := (next + 1) % 3
	target := fmt.Sprintf("%x", ids[last])
	_, err = etcdctl("--endpoints="+endpoints[last], "move-leader", target)
	if err == nil {
		t.Fatal("moved by a member that does not lead")
	}
	out, err := etcdctl("--endpoints="+endpoints[0]+","+endpoints[1]+","+endpoints[2], "move-leader", target)
	must(t, err)
	equal(t, "etcdctl says", out, fmt.Sprintf("Leadership transferred from %x to %x\n", ids[next], ids[last]))
	eventually(t, "the member that etcdctl named leads", leads(last))
}
