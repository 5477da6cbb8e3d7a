package contract

import (
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

// The API server asks for lists by RangeStream from 1.37 on; what is in a store of 1.36 has to come alike.
func TestRangeStreamTellsWhatRangeTells(t *testing.T) {
	o := cachedObjects(t)
	long := strings.Repeat("x", 10_000)
	for i := range 300 {
		o.create(t, fmt.Sprintf("object-%03d", i), long)
	}
	now, err := store.Get(t.Context(), "/registry/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	must(t, err)
	if now.Count < 300 {
		t.Fatalf("the store holds %d keys", now.Count)
	}
	at := clientv3.WithRev(now.Header.Revision)
	for name, row := range map[string]struct {
		key     string
		options []clientv3.OpOption
		// How many keys there are to come, at least and at most.
		least, most int
	}{
		"all":       {"/registry/", []clientv3.OpOption{clientv3.WithPrefix(), at}, 300, int(now.Count)},
		"limit":     {"/registry/", []clientv3.OpOption{clientv3.WithPrefix(), at, clientv3.WithLimit(100)}, 100, 100},
		"keys only": {"/registry/", []clientv3.OpOption{clientv3.WithPrefix(), at, clientv3.WithKeysOnly()}, 300, int(now.Count)},
		"count":     {"/registry/", []clientv3.OpOption{clientv3.WithPrefix(), at, clientv3.WithCountOnly()}, 0, 0},
		"one key":   {"/registry/namespaces/" + o.namespace, []clientv3.OpOption{at}, 1, 1},
		"no key":    {"/registry/", []clientv3.OpOption{at}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			whole, err := store.Get(t.Context(), row.key, row.options...)
			must(t, err)
			if len(whole.Kvs) < row.least || len(whole.Kvs) > row.most {
				t.Fatalf("Range has %d keys, and not %d to %d", len(whole.Kvs), row.least, row.most)
			}
			stream, err := store.GetStream(t.Context(), row.key, row.options...)
			must(t, err)
			streamed, err := clientv3.GetStreamToGetResponse(stream)
			must(t, err)
			if len(streamed.Kvs) != len(whole.Kvs) || streamed.Count != whole.Count || streamed.More != whole.More {
				t.Fatalf("%d keys, count %d, more %t; Range has %d, %d, %t", len(streamed.Kvs), streamed.Count, streamed.More,
					len(whole.Kvs), whole.Count, whole.More)
			}
			for i := range whole.Kvs {
				if !proto.Equal(streamed.Kvs[i], whole.Kvs[i]) {
					t.Fatalf("key %d is %s, not %s", i, streamed.Kvs[i].Key, whole.Kvs[i].Key)
				}
			}
			if streamed.Header.GetRevision() < now.Header.Revision {
				t.Errorf("told revision %d", streamed.Header.GetRevision())
			}
		})
	}
}
