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
	for name, options := range map[string][]clientv3.OpOption{
		"all":       {clientv3.WithPrefix(), at},
		"limit":     {clientv3.WithPrefix(), at, clientv3.WithLimit(100)},
		"keys only": {clientv3.WithPrefix(), at, clientv3.WithKeysOnly()},
		"count":     {clientv3.WithPrefix(), at, clientv3.WithCountOnly()},
		"one key":   {at},
	} {
		t.Run(name, func(t *testing.T) {
			whole, err := store.Get(t.Context(), "/registry/", options...)
			must(t, err)
			stream, err := store.GetStream(t.Context(), "/registry/", options...)
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
