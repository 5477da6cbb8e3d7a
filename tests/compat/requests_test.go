package compat

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

// TestDumpedRequests: what clients asked for is found in the log in etcd's words, while the member writes to it.
func TestDumpedRequests(t *testing.T) {
	binary := os.Getenv("MAINSTAY_BIN")
	home := t.TempDir()
	dump := func(dataDir string) (string, error) {
		out, err := exec.Command(binary, "dump-requests", dataDir).CombinedOutput()
		return string(out), err
	}
	if binary == "" || os.Getenv("MAINSTAY_ENDPOINTS") != "" {
		t.Skip("needs MAINSTAY_BIN to start a member of its own")
	}
	if out, _ := dump(filepath.Join(home, "missing")); strings.Contains(out, "is not a valid flag") {
		t.Skip("etcd does not know this command")
	}
	t.Setenv("ETCD_KEEP_RAFT_LOG", "true")
	t.Setenv("ETCD_SNAPSHOT_COUNT", "10")
	member := start(t, binary, home)
	ctx, client := member.ctx, member.client

	var asked []string
	for i := range 300 {
		key := fmt.Sprintf("k%d", i)
		put(t, ctx, client, key, "v")
		asked = append(asked, "put "+key)
		if i%50 == 0 {
			_, err := client.Txn(ctx).Then(clientv3.OpPut(key, "w")).Else(clientv3.OpDelete(key)).Commit()
			must(t, err)
			_, err = client.Delete(ctx, key)
			must(t, err)
			lease, err := client.Grant(ctx, 60)
			must(t, err)
			_, err = client.Revoke(ctx, lease.ID)
			must(t, err)
			asked = append(asked, "txn "+key, "delete "+key, fmt.Sprintf("grant %d", lease.ID), fmt.Sprintf("revoke %d", lease.ID))
		}
	}
	_, err := client.Compact(ctx, 100)
	must(t, err)
	asked = append(asked, "compact 100")

	out, err := dump(filepath.Join(home, "compat.etcd"))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var found []string
	var committed, next, last int
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if i == 0 {
			_, err := fmt.Sscanf(line, "commit %d", &committed)
			must(t, err)
			continue
		}
		var index, term int
		var request string
		_, err := fmt.Sscanf(line, "%d %d %s", &index, &term, &request)
		must(t, err)
		if i == 1 {
			next = index
		}
		equal(t, "index", index, next)
		next, last = index+1, index
		if request == "-" {
			continue
		}
		bytes, err := base64.StdEncoding.DecodeString(request)
		must(t, err)
		var decoded pb.InternalRaftRequest
		must(t, proto.Unmarshal(bytes, &decoded))
		equal(t, "unknown fields", len(decoded.ProtoReflect().GetUnknown()), 0)
		found = append(found, describe(t, &decoded))
	}
	equal(t, "requests", strings.Join(found, "\n"), strings.Join(asked, "\n"))
	if committed == 0 || committed > last {
		t.Fatalf("committed %d of %d", committed, last)
	}
}

func describe(t *testing.T, request *pb.InternalRaftRequest) string {
	switch {
	case request.Put != nil:
		equal(t, "value", string(request.Put.Value), "v")
		return "put " + string(request.Put.Key)
	case request.Txn != nil:
		equal(t, "else", string(request.Txn.Failure[0].GetRequestDeleteRange().Key), string(request.Txn.Success[0].GetRequestPut().Key))
		return "txn " + string(request.Txn.Success[0].GetRequestPut().Key)
	case request.DeleteRange != nil:
		return "delete " + string(request.DeleteRange.Key)
	case request.LeaseGrant != nil:
		equal(t, "TTL", request.LeaseGrant.TTL, 60)
		return fmt.Sprintf("grant %d", request.LeaseGrant.ID)
	case request.LeaseRevoke != nil:
		return fmt.Sprintf("revoke %d", request.LeaseRevoke.ID)
	case request.Compaction != nil:
		return fmt.Sprintf("compact %d", request.Compaction.Revision)
	default:
		t.Fatalf("unexpected request %v", request)
		return ""
	}
}
