package compat

import (
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestPutGetDelete(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"

	first := put(t, ctx, client, key, "one")
	response, err := client.Put(ctx, key, "two", clientv3.WithPrevKV())
	must(t, err)
	equal(t, "revision of the second put", response.Header.Revision, first+1)
	equal(t, "previous value", string(response.PrevKv.Value), "one")

	got, err := client.Get(ctx, key)
	must(t, err)
	equal(t, "count", got.Count, 1)
	kv := got.Kvs[0]
	equal(t, "value", string(kv.Value), "two")
	equal(t, "create revision", kv.CreateRevision, first)
	equal(t, "mod revision", kv.ModRevision, first+1)
	equal(t, "version", kv.Version, 2)

	old, err := client.Get(ctx, key, clientv3.WithRev(first))
	must(t, err)
	equal(t, "value at the first revision", string(old.Kvs[0].Value), "one")
	equal(t, "header of a read of the past", old.Header.Revision, first+1)

	deleted, err := client.Delete(ctx, key, clientv3.WithPrevKV())
	must(t, err)
	equal(t, "deleted", deleted.Deleted, 1)
	equal(t, "value before the delete", string(deleted.PrevKvs[0].Value), "two")
	again, err := client.Delete(ctx, key)
	must(t, err)
	equal(t, "deleted of nothing", again.Deleted, 0)
	equal(t, "revision after deleting nothing", again.Header.Revision, deleted.Header.Revision)

	reborn := put(t, ctx, client, key, "three")
	got, err = client.Get(ctx, key)
	must(t, err)
	equal(t, "version after rebirth", got.Kvs[0].Version, 1)
	equal(t, "create revision after rebirth", got.Kvs[0].CreateRevision, reborn)
}

func TestIgnoreValueAndLease(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"
	lease, err := client.Grant(ctx, 60)
	must(t, err)

	put(t, ctx, client, key, "kept", clientv3.WithLease(lease.ID))
	put(t, ctx, client, key, "new", clientv3.WithIgnoreLease())
	got, err := client.Get(ctx, key)
	must(t, err)
	equal(t, "lease kept", got.Kvs[0].Lease, int64(lease.ID))

	put(t, ctx, client, key, "", clientv3.WithIgnoreValue())
	got, err = client.Get(ctx, key)
	must(t, err)
	equal(t, "value kept", string(got.Kvs[0].Value), "new")
	equal(t, "lease dropped", got.Kvs[0].Lease, 0)
}

func TestRangeOptions(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	// Written in an order that differs from the keys', with values in a third order.
	for _, pair := range [][2]string{{"c", "1"}, {"a", "3"}, {"d", "0"}, {"b", "2"}} {
		put(t, ctx, client, at+pair[0], pair[1])
	}
	last := put(t, ctx, client, at+"a", "3")

	for _, c := range []struct {
		what    string
		key     string
		options []clientv3.OpOption
		want    string
		count   int64
		more    bool
	}{
		{"prefix", at, []clientv3.OpOption{clientv3.WithPrefix()}, "abcd", 4, false},
		{"half-open range", at + "b", []clientv3.OpOption{clientv3.WithRange(at + "d")}, "bc", 2, false},
		{"empty range", at + "d", []clientv3.OpOption{clientv3.WithRange(at + "a")}, "", 0, false},
		{"limit counts all", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(2)}, "ab", 4, true},
		{"limit of all", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(4)}, "abcd", 4, false},
		{"descending keys", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)}, "dcba", 4, false},
		{"by value", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)}, "dcba", 4, false},
		{"by create revision", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)}, "cadb", 4, false},
		{"by mod revision, limited", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1)}, "a", 4, true},
		{"by version", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend), clientv3.WithLimit(1)}, "a", 4, true},
		{"mod revision at least", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMinModRev(last)}, "a", 4, false},
		{"create revision at most", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMaxCreateRev(last - 3)}, "ac", 4, false},
		{"serializable", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithSerializable()}, "abcd", 4, false},
		{"count only", at, []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCountOnly()}, "", 4, false},
		{"absent key", at + "z", nil, "", 0, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, err := client.Get(ctx, c.key, c.options...)
			must(t, err)
			keys := ""
			for _, kv := range got.Kvs {
				keys += string(kv.Key)[len(at):]
			}
			equal(t, "keys", keys, c.want)
			equal(t, "count", got.Count, c.count)
			equal(t, "more", got.More, c.more)
		})
	}

	keys, err := client.Get(ctx, at+"a", clientv3.WithKeysOnly())
	must(t, err)
	equal(t, "value in a keys-only answer", len(keys.Kvs[0].Value), 0)
	equal(t, "version in a keys-only answer", keys.Kvs[0].Version, 2)
}

func TestBytesAreBytes(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	for _, key := range []string{"\x00", "\xff\xff", "a\x00b", "ü"} {
		put(t, ctx, client, at+key, "\x00"+key)
		got, err := client.Get(ctx, at+key)
		must(t, err)
		equal(t, fmt.Sprintf("value of %q", key), string(got.Kvs[0].Value), "\x00"+key)
	}
	put(t, ctx, client, at+"empty", "")
	got, err := client.Get(ctx, at+"empty")
	must(t, err)
	equal(t, "an empty value exists", got.Count, 1)
}

// TestLargeList reads 10,000 keys at once, in pages at one revision while writes go on, and as a
// stream; all three must see the same.
func TestLargeList(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	const total, perTxn = 10_000, 100
	value := fmt.Sprintf("%0256d", 7)
	var revision int64
	for i := 0; i < total; i += perTxn {
		ops := make([]clientv3.Op, perTxn)
		for j := range ops {
			ops[j] = clientv3.OpPut(fmt.Sprintf("%s%08d", at, i+j), value)
		}
		response, err := client.Txn(ctx).Then(ops...).Commit()
		must(t, err)
		revision = response.Header.Revision
	}

	whole, err := client.Get(ctx, at, clientv3.WithPrefix())
	must(t, err)
	equal(t, "keys at once", len(whole.Kvs), total)

	read, next := 0, at
	for more := true; more; {
		put(t, ctx, client, at+"99999999", "later than the list")
		page, err := client.Get(ctx, next, clientv3.WithRange(clientv3.GetPrefixRangeEnd(at)), clientv3.WithLimit(1_500), clientv3.WithRev(revision))
		must(t, err)
		for i, kv := range page.Kvs {
			equal(t, "key in a page", string(kv.Key), string(whole.Kvs[read+i].Key))
		}
		equal(t, "what a page counts", page.Count, int64(total-read))
		read += len(page.Kvs)
		next = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		more = page.More
	}
	equal(t, "keys in pages", read, total)

	stream, err := client.GetStream(ctx, at, clientv3.WithPrefix(), clientv3.WithRev(revision))
	must(t, err)
	streamed, err := clientv3.GetStreamToGetResponse(stream)
	must(t, err)
	equal(t, "keys in a stream", len(streamed.Kvs), total)
	equal(t, "count of a stream", streamed.Count, total)
	equal(t, "last key of a stream", string(streamed.Kvs[total-1].Key), string(whole.Kvs[total-1].Key))
}
