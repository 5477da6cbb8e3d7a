package compat

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestCreateOnce is how Kubernetes creates: a put guarded by the key's absence, else a read.
func TestCreateOnce(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"
	create := func(value string) *clientv3.TxnResponse {
		response, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, value)).
			Else(clientv3.OpGet(key)).
			Commit()
		must(t, err)
		return response
	}
	first := create("one")
	equal(t, "first succeeded", first.Succeeded, true)
	equal(t, "revision of the put inside", first.Responses[0].GetResponsePut().Header.Revision, first.Header.Revision)
	second := create("two")
	equal(t, "second succeeded", second.Succeeded, false)
	equal(t, "what was there", string(second.Responses[0].GetResponseRange().Kvs[0].Value), "one")
	equal(t, "revision unchanged", second.Header.Revision, first.Header.Revision)
}

func TestCompares(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	key, absent := at+"k", at+"absent"
	lease, err := client.Grant(ctx, 60)
	must(t, err)
	created := put(t, ctx, client, key, "a")
	modified := put(t, ctx, client, key, "m", clientv3.WithLease(lease.ID))
	put(t, ctx, client, at+"k2", "m")

	for _, c := range []struct {
		what string
		cmp  clientv3.Cmp
		want bool
	}{
		{"value =", clientv3.Compare(clientv3.Value(key), "=", "m"), true},
		{"value !=", clientv3.Compare(clientv3.Value(key), "!=", "m"), false},
		{"value >", clientv3.Compare(clientv3.Value(key), ">", "l"), true},
		{"value <", clientv3.Compare(clientv3.Value(key), "<", "l"), false},
		{"value of an absent key", clientv3.Compare(clientv3.Value(absent), "!=", "x"), false},
		{"version", clientv3.Compare(clientv3.Version(key), "=", 2), true},
		{"version of an absent key", clientv3.Compare(clientv3.Version(absent), "=", 0), true},
		{"create revision", clientv3.Compare(clientv3.CreateRevision(key), "=", created), true},
		{"mod revision", clientv3.Compare(clientv3.ModRevision(key), "=", modified), true},
		{"mod revision <", clientv3.Compare(clientv3.ModRevision(key), "<", modified), false},
		{"lease", clientv3.Compare(clientv3.LeaseValue(key), "=", lease.ID), true},
		{"range, all match", clientv3.Compare(clientv3.Value(at+"k"), "=", "m").WithPrefix(), true},
		{"range, one does not", clientv3.Compare(clientv3.Version(at+"k"), "=", 2).WithPrefix(), false},
	} {
		t.Run(c.what, func(t *testing.T) {
			response, err := client.Txn(ctx).If(c.cmp).Commit()
			must(t, err)
			equal(t, "succeeded", response.Succeeded, c.want)
		})
	}
}

func TestTxnReadsItsOwnWrites(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	put(t, ctx, client, at+"old", "1")
	response, err := client.Txn(ctx).Then(
		clientv3.OpGet(at, clientv3.WithPrefix(), clientv3.WithCountOnly()),
		clientv3.OpPut(at+"a", "1"),
		clientv3.OpPut(at+"b", "2"),
		clientv3.OpDelete(at+"old"),
		clientv3.OpGet(at, clientv3.WithPrefix()),
		clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.Version(at+"a"), "=", 0)}, // compares see the state before the transaction
			[]clientv3.Op{clientv3.OpGet(at + "a")},
			nil,
		),
	).Commit()
	must(t, err)
	equal(t, "count before", response.Responses[0].GetResponseRange().Count, 1)
	equal(t, "deleted", response.Responses[3].GetResponseDeleteRange().Deleted, 1)
	after := response.Responses[4].GetResponseRange()
	equal(t, "count after", after.Count, 2)
	for _, kv := range after.Kvs {
		equal(t, "one revision for the whole transaction", kv.ModRevision, response.Header.Revision)
	}
	nested := response.Responses[5].GetResponseTxn()
	equal(t, "nested compare", nested.Succeeded, true)
	equal(t, "nested read", string(nested.Responses[0].GetResponseRange().Kvs[0].Value), "1")
}
