package compat

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// still says that a call has not ended; the absence of an end has no condition to wait for.
func still[T any](t *testing.T, what string, ended <-chan T) {
	t.Helper()
	select {
	case <-ended:
		t.Fatalf("%s did not wait", what)
	case <-time.After(300 * time.Millisecond):
	}
}

func take[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(deadline):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

type lockAnswer struct {
	response *v3lockpb.LockResponse
	err      error
}

// TestLockService: a lock that the server holds for its clients.
func TestLockService(t *testing.T) {
	client, ctx := dial(t)
	locks := v3lockpb.NewLockClient(client.ActiveConnection())
	name := []byte(prefix(t) + "lock")
	grant := func() clientv3.LeaseID {
		lease, err := client.Grant(ctx, 60)
		must(t, err)
		return lease.ID
	}
	lock := func(ctx context.Context, lease clientv3.LeaseID) <-chan lockAnswer {
		answer := make(chan lockAnswer, 1)
		go func() {
			response, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: int64(lease)})
			answer <- lockAnswer{response, err}
		}()
		return answer
	}
	holders := func() int64 {
		response, err := client.Get(ctx, string(name)+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		must(t, err)
		return response.Count
	}

	first, second := grant(), grant()
	held, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: int64(first)})
	must(t, err)
	equal(t, "key", string(held.Key), fmt.Sprintf("%s/%x", name, int64(first)))
	if held.Header == nil || held.Header.Revision == 0 {
		t.Fatalf("header %v", held.Header)
	}
	// Who holds it may ask again.
	again, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: int64(first)})
	must(t, err)
	equal(t, "key", string(again.Key), string(held.Key))

	waiting := lock(ctx, second)
	still(t, "the second", waiting)
	// Who gives up leaves no place in the queue.
	impatient, giveUp := context.WithCancel(ctx)
	third := lock(impatient, grant())
	eventually(t, "the third stands in line", func() bool { return holders() == 3 })
	giveUp()
	if (take(t, "answer", third)).err == nil {
		t.Fatal("who gave up got the lock")
	}
	eventually(t, "the third left", func() bool { return holders() == 2 })
	_, err = locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.Key})
	must(t, err)
	answer := take(t, "answer", waiting)
	must(t, answer.err)
	equal(t, "key", string(answer.response.Key), fmt.Sprintf("%s/%x", name, int64(second)))

	// The lock goes with its lease.
	fourth := lock(ctx, first)
	still(t, "the fourth", fourth)
	_, err = client.Revoke(ctx, second)
	must(t, err)
	answer = take(t, "answer", fourth)
	must(t, answer.err)
	_, err = locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: answer.response.Key})
	must(t, err)
	// What is not held can be given back.
	_, err = locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: answer.response.Key})
	must(t, err)

	// Without a lease it gets one of a minute, which nobody renews.
	lent, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: name})
	must(t, err)
	got, err := client.Get(ctx, string(lent.Key))
	must(t, err)
	equal(t, "keys", len(got.Kvs), 1)
	equal(t, "key", string(lent.Key), fmt.Sprintf("%s/%x", name, got.Kvs[0].Lease))
	left, err := client.TimeToLive(ctx, clientv3.LeaseID(got.Kvs[0].Lease))
	must(t, err)
	equal(t, "seconds", left.GrantedTTL, 60)
	_, err = locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: lent.Key})
	must(t, err)

	_, err = locks.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: 12345})
	refused(t, err, "rpc error: code = Unknown desc = etcdserver: requested lease not found")
	_, err = locks.Unlock(ctx, &v3lockpb.UnlockRequest{})
	refused(t, err, "rpc error: code = Unknown desc = etcdserver: key is not provided")
}

// TestElectionService: an election that the server holds for its clients.
func TestElectionService(t *testing.T) {
	client, ctx := dial(t)
	elections := v3electionpb.NewElectionClient(client.ActiveConnection())
	name := []byte(prefix(t) + "election")
	grant := func() int64 {
		lease, err := client.Grant(ctx, 60)
		must(t, err)
		return int64(lease.ID)
	}
	const (
		noLeader  = "rpc error: code = Unknown desc = election: no leader"
		notLeader = "rpc error: code = Unknown desc = election: not leader"
		missing   = `rpc error: code = Unknown desc = "leader" field must be provided`
	)

	_, err := elections.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	refused(t, err, noLeader)
	_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{})
	refused(t, err, missing)
	_, err = elections.Resign(ctx, &v3electionpb.ResignRequest{})
	refused(t, err, missing)
	_, err = elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: 12345})
	refused(t, err, "rpc error: code = Unknown desc = etcdserver: requested lease not found")

	watching, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := elections.Observe(watching, &v3electionpb.LeaderRequest{Name: name})
	must(t, err)
	leaders := make(chan string, 16)
	ended := make(chan error, 1)
	go func() {
		for {
			response, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			leaders <- string(response.Kv.Value)
		}
	}()

	lease := grant()
	won, err := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: lease, Value: []byte("one")})
	must(t, err)
	equal(t, "name", string(won.Leader.Name), string(name))
	equal(t, "key", string(won.Leader.Key), fmt.Sprintf("%s/%x", name, lease))
	equal(t, "lease", won.Leader.Lease, lease)
	equal(t, "observed", take(t, "leader", leaders), "one")
	leader, err := elections.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	must(t, err)
	equal(t, "leader", string(leader.Kv.Key), string(won.Leader.Key))
	equal(t, "created at", leader.Kv.CreateRevision, won.Leader.Rev)

	// The same lease again only says something else.
	again, err := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: lease, Value: []byte("uno")})
	must(t, err)
	equal(t, "revision", again.Leader.Rev, won.Leader.Rev)
	equal(t, "observed", take(t, "leader", leaders), "uno")
	_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("un")})
	must(t, err)
	equal(t, "observed", take(t, "leader", leaders), "un")

	type campaign struct {
		response *v3electionpb.CampaignResponse
		err      error
	}
	candidate := make(chan campaign, 1)
	go func() {
		response, err := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: grant(), Value: []byte("two")})
		candidate <- campaign{response, err}
	}()
	still(t, "the candidate", candidate)
	_, err = elections.Resign(ctx, &v3electionpb.ResignRequest{Leader: won.Leader})
	must(t, err)
	second := take(t, "leader", candidate)
	must(t, second.err)
	equal(t, "observed", take(t, "leader", leaders), "two")
	// Who resigned has nothing to say any more, and may resign again.
	_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("late")})
	refused(t, err, notLeader)
	_, err = elections.Resign(ctx, &v3electionpb.ResignRequest{Leader: won.Leader})
	must(t, err)
	// A key that is not the leader's is none.
	foreign := &v3electionpb.LeaderKey{Name: name, Key: second.response.Leader.Key, Rev: second.response.Leader.Rev - 1}
	_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: foreign, Value: []byte("x")})
	refused(t, err, notLeader)
	_, err = elections.Resign(ctx, &v3electionpb.ResignRequest{Leader: second.response.Leader})
	must(t, err)
	_, err = elections.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	refused(t, err, noLeader)
	stop()
	if err := take(t, "end", ended); err == io.EOF {
		t.Fatal("a stream that its client ended came to an end of its own")
	}
}

// TestHeldForUsers: what the server does for a client it does as that client's user.
func TestHeldForUsers(t *testing.T) {
	endpoint, ctx := guarded(t, "--bcrypt-cost=4")
	alice := as(t, endpoint, "alice", "alice")
	_, err := alice.Get(ctx, "a") // it has logged in
	must(t, err)
	lease, err := alice.Grant(ctx, 60)
	must(t, err)
	locks := v3lockpb.NewLockClient(alice.ActiveConnection())
	held, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("a"), Lease: int64(lease.ID)})
	must(t, err)
	_, err = locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.Key})
	must(t, err)
	_, err = locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("b"), Lease: int64(lease.ID)})
	refused(t, err, "rpc error: code = Unknown desc = etcdserver: permission denied")
	token, _ := logIn(t, ctx, endpoint, "alice", "alice")
	bare := v3lockpb.NewLockClient(plain(t, endpoint))
	_, err = bare.Lock(with(ctx, "token", token), &v3lockpb.LockRequest{Name: []byte("a"), Lease: int64(lease.ID)})
	must(t, err)
	_, err = bare.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("a"), Lease: int64(lease.ID)})
	refused(t, err, "rpc error: code = Unknown desc = etcdserver: user name is empty")
}
