package compat

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestTypedErrors: the client knows an error by its exact text, so each must come back typed.
func TestTypedErrors(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	compacted := put(t, ctx, client, at+"k", "1")
	put(t, ctx, client, at+"k", "2")
	_, err := client.Compact(ctx, compacted+1)
	must(t, err)
	lease, err := client.Grant(ctx, 60)
	must(t, err)
	many := make([]clientv3.Op, 129)
	for i := range many {
		many[i] = clientv3.OpPut(fmt.Sprintf("%s%d", at, i), "v")
	}

	for _, c := range []struct {
		want error
		do   func() error
	}{
		{rpctypes.ErrEmptyKey, func() error { _, err := client.Put(ctx, "", "v"); return err }},
		{rpctypes.ErrEmptyKey, func() error { _, err := client.Txn(ctx).Then(clientv3.OpGet("")).Commit(); return err }},
		{rpctypes.ErrKeyNotFound, func() error { _, err := client.Put(ctx, at+"absent", "", clientv3.WithIgnoreValue()); return err }},
		{rpctypes.ErrTooManyOps, func() error { _, err := client.Txn(ctx).Then(many...).Commit(); return err }},
		{rpctypes.ErrDuplicateKey, func() error {
			_, err := client.Txn(ctx).Then(clientv3.OpPut(at+"k", "1"), clientv3.OpPut(at+"k", "2")).Commit()
			return err
		}},
		{rpctypes.ErrDuplicateKey, func() error {
			_, err := client.Txn(ctx).Else(clientv3.OpPut(at+"k", "1"), clientv3.OpDelete(at, clientv3.WithPrefix())).Commit()
			return err
		}},
		{rpctypes.ErrCompacted, func() error { _, err := client.Get(ctx, at+"k", clientv3.WithRev(compacted)); return err }},
		{rpctypes.ErrCompacted, func() error { _, err := client.Compact(ctx, compacted); return err }},
		{rpctypes.ErrFutureRev, func() error { _, err := client.Get(ctx, at+"k", clientv3.WithRev(math.MaxInt64)); return err }},
		{rpctypes.ErrFutureRev, func() error { _, err := client.Compact(ctx, math.MaxInt64); return err }},
		{rpctypes.ErrLeaseNotFound, func() error { _, err := client.Put(ctx, at+"k", "v", clientv3.WithLease(12345)); return err }},
		{rpctypes.ErrLeaseNotFound, func() error { _, err := client.Revoke(ctx, 12345); return err }},
		{rpctypes.ErrLeaseExist, func() error {
			_, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(lease.ID), TTL: 60})
			return clientv3.ContextError(ctx, err)
		}},
		{rpctypes.ErrLeaseTTLTooLarge, func() error { _, err := client.Grant(ctx, 9_000_000_001); return err }},
		{rpctypes.ErrRequestTooLarge, func() error { _, err := client.Put(ctx, at+"k", strings.Repeat("x", 1_600_000)); return err }},
		{rpctypes.ErrMemberNotFound, func() error { _, err := client.MemberRemove(ctx, 42); return err }},
		{rpctypes.ErrMemberBadURLs, func() error {
			// clientv3 looks at the URL itself before it asks.
			_, err := pb.NewClusterClient(client.ActiveConnection()).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"localhost"}})
			return clientv3.ContextError(ctx, err)
		}},
		{rpctypes.ErrAuthNotEnabled, func() error { _, err := client.Authenticate(ctx, "a", "b"); return err }},
		{rpctypes.ErrRootUserNotExist, func() error { _, err := client.AuthEnable(ctx); return err }},
		{rpctypes.ErrUserNotFound, func() error { _, err := client.UserGet(ctx, "nobody"); return err }},
		{rpctypes.ErrRoleNotFound, func() error { _, err := client.RoleGet(ctx, "nothing"); return err }},
	} {
		t.Run(c.want.Error(), func(t *testing.T) {
			got := c.do()
			if !errors.Is(got, c.want) {
				t.Fatalf("got %T %v, want %v", got, got, c.want)
			}
		})
	}
}

// TestTransportLimit: beyond 2 MiB the transport refuses, with gRPC's own words.
func TestTransportLimit(t *testing.T) {
	client, ctx := dial(t)
	_, err := client.Put(ctx, prefix(t)+"k", strings.Repeat("x", 3<<20))
	var typed rpctypes.EtcdError
	equal(t, "an error of etcd's", errors.As(err, &typed), false)
	if err == nil || !strings.Contains(err.Error(), "received message larger than max") || !strings.Contains(err.Error(), codes.ResourceExhausted.String()) {
		t.Fatalf("got %v", err)
	}
}
