package compat

import (
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestCompactionKeepsWhatIsLive: history goes, what was live at the revision stays readable there.
func TestCompactionKeepsWhatIsLive(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	for i := range 200 {
		put(t, ctx, client, fmt.Sprintf("%s%d", at, i%10), fmt.Sprint(i))
	}
	deleted, err := client.Delete(ctx, at+"0")
	must(t, err)
	revision := deleted.Header.Revision
	put(t, ctx, client, at+"1", "later")

	_, err = client.Compact(ctx, revision, clientv3.WithCompactPhysical())
	must(t, err)
	then, err := client.Get(ctx, at, clientv3.WithPrefix(), clientv3.WithRev(revision))
	must(t, err)
	equal(t, "keys at the compacted revision", then.Count, 9)
	equal(t, "value at the compacted revision", string(then.Kvs[0].Value), "191")

	// The delete at the compacted revision itself still reaches a watcher that starts there.
	watch := client.Watch(ctx, at, clientv3.WithPrefix(), clientv3.WithRev(revision))
	equal(t, "events", fmt.Sprint(collect(t, ctx, watch, 2)), fmt.Sprintf("[DELETE %[1]s0 PUT %[1]s1=later]", at))

	// The hash of what is left is the same before and after the space is given back.
	before, err := client.HashKV(ctx, endpoints[0], 0)
	must(t, err)
	equal(t, "compact revision in the hash", before.CompactRevision, revision)
	_, err = client.Defragment(ctx, endpoints[0])
	must(t, err)
	after, err := client.HashKV(ctx, endpoints[0], before.HashRevision)
	must(t, err)
	equal(t, "hash after defragmentation", after.Hash, before.Hash)
}
