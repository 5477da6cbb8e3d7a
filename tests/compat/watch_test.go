package compat

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// next receives until one response with events, or the end of the context.
func next(t *testing.T, ctx context.Context, watch clientv3.WatchChan) clientv3.WatchResponse {
	t.Helper()
	for {
		select {
		case response, open := <-watch:
			if !open {
				t.Fatal("the watch ended")
			}
			must(t, response.Err())
			if len(response.Events) > 0 {
				return response
			}
		case <-ctx.Done():
			t.Fatal("no event came")
		}
	}
}

// collect gathers count events, as "PUT key=value" or "DELETE key", and checks their order.
func collect(t *testing.T, ctx context.Context, watch clientv3.WatchChan, count int) []string {
	t.Helper()
	var events []string
	var last int64
	for len(events) < count {
		for _, event := range next(t, ctx, watch).Events {
			if event.Kv.ModRevision < last {
				t.Fatalf("revision %d after %d", event.Kv.ModRevision, last)
			}
			last = event.Kv.ModRevision
			if event.Type == clientv3.EventTypeDelete {
				events = append(events, fmt.Sprintf("DELETE %s", event.Kv.Key))
			} else {
				events = append(events, fmt.Sprintf("PUT %s=%s", event.Kv.Key, event.Kv.Value))
			}
		}
	}
	return events
}

func TestWatchFromThePast(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	start := put(t, ctx, client, at+"a", "1")
	put(t, ctx, client, at+"b", "2")
	_, err := client.Delete(ctx, at+"a")
	must(t, err)

	watch := client.Watch(ctx, at, clientv3.WithPrefix(), clientv3.WithRev(start))
	put(t, ctx, client, at+"c", "3") // live, or still history: the watcher must not tell
	events := collect(t, ctx, watch, 4)
	equal(t, "events", fmt.Sprint(events), fmt.Sprintf("[PUT %[1]sa=1 PUT %[1]sb=2 DELETE %[1]sa PUT %[1]sc=3]", at))
}

func TestWatchLive(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	watch := client.Watch(ctx, at, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	created := <-watch
	equal(t, "created", created.Created, true)

	put(t, ctx, client, at+"a", "1")
	event := next(t, ctx, watch).Events[0]
	equal(t, "create", event.IsCreate(), true)
	equal(t, "no value before a create", event.PrevKv == nil, true)

	put(t, ctx, client, at+"a", "2")
	event = next(t, ctx, watch).Events[0]
	equal(t, "modify", event.IsModify(), true)
	equal(t, "value before", string(event.PrevKv.Value), "1")

	deleted, err := client.Delete(ctx, at+"a")
	must(t, err)
	event = next(t, ctx, watch).Events[0]
	equal(t, "delete", event.Type, clientv3.EventTypeDelete)
	equal(t, "revision of the delete", event.Kv.ModRevision, deleted.Header.Revision)
	equal(t, "value before the delete", string(event.PrevKv.Value), "2")
}

// TestWatchTxnIsWhole: all events of one revision arrive together.
func TestWatchTxnIsWhole(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	watch := client.Watch(ctx, at, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	ops := make([]clientv3.Op, 100)
	for i := range ops {
		ops[i] = clientv3.OpPut(fmt.Sprintf("%s%03d", at, i), "v")
	}
	_, err := client.Txn(ctx).Then(ops...).Commit()
	must(t, err)
	equal(t, "events in the one response", len(next(t, ctx, watch).Events), len(ops))
}

func TestWatchFilters(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"
	start := put(t, ctx, client, key, "1")
	_, err := client.Delete(ctx, key)
	must(t, err)
	put(t, ctx, client, key, "2")

	deletes := client.Watch(ctx, key, clientv3.WithRev(start), clientv3.WithFilterPut())
	equal(t, "without puts", collect(t, ctx, deletes, 1)[0], "DELETE "+key)
	puts := client.Watch(ctx, key, clientv3.WithRev(start), clientv3.WithFilterDelete())
	equal(t, "without deletes", fmt.Sprint(collect(t, ctx, puts, 2)), fmt.Sprintf("[PUT %[1]s=1 PUT %[1]s=2]", key))
}

func TestWatchFromTheFuture(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"
	now := put(t, ctx, client, key, "1")
	watch := client.Watch(ctx, key, clientv3.WithRev(now+3))
	for value := 2; value <= 5; value++ {
		put(t, ctx, client, key, fmt.Sprint(value))
	}
	equal(t, "first event", collect(t, ctx, watch, 1)[0], fmt.Sprintf("PUT %s=4", key))
}

// TestWatchProgress: a notice at revision R follows every event up to R.
func TestWatchProgress(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	start := put(t, ctx, client, at+"k", "0")
	// A stream of its own: a notice speaks for all watchers of its stream.
	ctx = clientv3.WithRequireLeader(ctx)
	watch := client.Watch(ctx, at, clientv3.WithPrefix(), clientv3.WithRev(start))
	// A notice comes only while all watchers of the stream are up to date, so a request may go
	// unanswered: ask again until there is one, as Kubernetes does.
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	seen := int64(0)
	for i := 1; i <= 50; i++ {
		now := put(t, ctx, client, at+"k", fmt.Sprint(i))
		must(t, client.RequestProgress(ctx))
		for notified := int64(0); notified < now; {
			select {
			case response := <-watch:
				must(t, response.Err())
				for _, event := range response.Events {
					seen = event.Kv.ModRevision
				}
				if response.IsProgressNotify() {
					notified = response.Header.Revision
				}
				if notified >= now && seen < now {
					t.Fatalf("notice at %d before the event at %d", notified, now)
				}
			case <-again.C:
				must(t, client.RequestProgress(ctx))
			case <-ctx.Done():
				t.Fatalf("no progress notice for revision %d", now)
			}
		}
	}
}

// TestManyWatchersOneStream: 500 watchers that share a stream each see just their key.
func TestManyWatchersOneStream(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	const watchers = 500
	channels := make([]clientv3.WatchChan, watchers)
	for i := range channels {
		channels[i] = client.Watch(ctx, fmt.Sprintf("%s%04d", at, i), clientv3.WithCreatedNotify())
	}
	for i := range channels {
		equal(t, "created", (<-channels[i]).Created, true)
	}
	for i := range channels {
		put(t, ctx, client, fmt.Sprintf("%s%04d", at, i), fmt.Sprint(i))
	}
	for i := range channels {
		equal(t, "event", collect(t, ctx, channels[i], 1)[0], fmt.Sprintf("PUT %s%04d=%d", at, i, i))
	}
}

func TestWatchFragments(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	value := string(make([]byte, 1<<20))
	start := put(t, ctx, client, at+"0", value)
	for i := 1; i < 4; i++ {
		put(t, ctx, client, fmt.Sprintf("%s%d", at, i), value)
	}
	watch := client.Watch(ctx, at, clientv3.WithPrefix(), clientv3.WithRev(start), clientv3.WithFragment())
	equal(t, "events", len(collect(t, ctx, watch, 4)), 4)
}

func TestWatchCancelledByCompaction(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"
	first := put(t, ctx, client, key, "1")
	put(t, ctx, client, key, "2")
	compacted := put(t, ctx, client, key, "3")
	_, err := client.Compact(ctx, compacted)
	must(t, err)

	response := <-client.Watch(ctx, key, clientv3.WithRev(first))
	equal(t, "error", response.Err(), error(rpctypes.ErrCompacted))
	equal(t, "compact revision", response.CompactRevision, compacted)

	watch := client.Watch(ctx, key, clientv3.WithRev(compacted))
	equal(t, "at the compacted revision", collect(t, ctx, watch, 1)[0], fmt.Sprintf("PUT %s=3", key))
}
