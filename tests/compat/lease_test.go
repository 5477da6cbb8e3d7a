package compat

import (
	"context"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestLeaseLife(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	lease, err := client.Grant(ctx, 60)
	must(t, err)
	equal(t, "granted", lease.TTL, 60)
	put(t, ctx, client, at+"a", "1", clientv3.WithLease(lease.ID))
	before := put(t, ctx, client, at+"b", "2", clientv3.WithLease(lease.ID))

	left, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	must(t, err)
	equal(t, "granted TTL", left.GrantedTTL, 60)
	equal(t, "keys", len(left.Keys), 2)
	if left.TTL < 50 || left.TTL > 60 {
		t.Fatalf("%d s left of 60", left.TTL)
	}
	all, err := client.Leases(ctx)
	must(t, err)
	found := false
	for _, other := range all.Leases {
		found = found || other.ID == lease.ID
	}
	equal(t, "listed", found, true)

	revoked, err := client.Revoke(ctx, lease.ID)
	must(t, err)
	equal(t, "one revision for all its keys", revoked.Header.Revision, before+1)
	got, err := client.Get(ctx, at, clientv3.WithPrefix())
	must(t, err)
	equal(t, "keys after revoke", got.Count, 0)
	gone, err := client.TimeToLive(ctx, lease.ID)
	must(t, err)
	equal(t, "TTL after revoke", gone.TTL, -1)
	_, err = client.Revoke(ctx, lease.ID)
	equal(t, "second revoke", err, error(rpctypes.ErrLeaseNotFound))
}

func TestLeaseExpiresAndTellsWatchers(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"
	lease, err := client.Grant(ctx, 1) // raised to the shortest that is allowed
	must(t, err)
	equal(t, "shortest TTL", lease.TTL, 2)
	written := put(t, ctx, client, key, "1", clientv3.WithLease(lease.ID))
	started := time.Now()
	watch := client.Watch(ctx, key, clientv3.WithRev(written+1))
	equal(t, "event", collect(t, ctx, watch, 1)[0], "DELETE "+key)
	if waited := time.Since(started); waited < 1500*time.Millisecond || waited > 6*time.Second {
		t.Fatalf("a lease of 2 s ended after %v", waited)
	}
	_, err = client.KeepAliveOnce(ctx, lease.ID)
	equal(t, "renewal of an expired lease", err, error(rpctypes.ErrLeaseNotFound))
}

func TestKeepAliveHoldsALease(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"
	lease, err := client.Grant(ctx, 3)
	must(t, err)
	put(t, ctx, client, key, "1", clientv3.WithLease(lease.ID))
	alive, stop := context.WithCancel(ctx)
	renewals, err := client.KeepAlive(alive, lease.ID)
	must(t, err)
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
		select {
		case renewal, open := <-renewals:
			if !open {
				t.Fatal("the keep-alive ended")
			}
			equal(t, "renewed to", renewal.TTL, 3)
		case <-ctx.Done():
			t.Fatal("no renewal")
		}
	}
	got, err := client.Get(ctx, key)
	must(t, err)
	equal(t, "key after twice the TTL", got.Count, 1)
	stop()
	watch := client.Watch(ctx, key, clientv3.WithRev(got.Header.Revision+1))
	equal(t, "event once nobody renews", collect(t, ctx, watch, 1)[0], "DELETE "+key)
}

func TestPutMovesAKeyBetweenLeases(t *testing.T) {
	client, ctx := dial(t)
	key := prefix(t) + "k"
	first, err := client.Grant(ctx, 60)
	must(t, err)
	second, err := client.Grant(ctx, 60)
	must(t, err)
	put(t, ctx, client, key, "1", clientv3.WithLease(first.ID))
	put(t, ctx, client, key, "2", clientv3.WithLease(second.ID))
	_, err = client.Revoke(ctx, first.ID)
	must(t, err)
	got, err := client.Get(ctx, key)
	must(t, err)
	equal(t, "key after its first lease", got.Count, 1)
	equal(t, "lease", got.Kvs[0].Lease, int64(second.ID))
}
