package compat

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"
)

// TestMutex: eight holders add to a counter by a read and a plain write under the lock.
func TestMutex(t *testing.T) {
	client, ctx := dial(t)
	at := prefix(t)
	const holders, rounds = 8, 5
	put(t, ctx, client, at+"counter", "0")
	var group sync.WaitGroup
	failures := make(chan error, holders)
	for range holders {
		group.Go(func() {
			failures <- func() error {
				session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
				if err != nil {
					return err
				}
				defer session.Close()
				mutex := concurrency.NewMutex(session, at+"lock")
				for range rounds {
					if err := mutex.Lock(ctx); err != nil {
						return err
					}
					got, err := client.Get(ctx, at+"counter")
					if err != nil {
						return err
					}
					var counter int
					if _, err := fmt.Sscan(string(got.Kvs[0].Value), &counter); err != nil {
						return err
					}
					if _, err := client.Put(ctx, at+"counter", fmt.Sprint(counter+1)); err != nil {
						return err
					}
					if err := mutex.Unlock(ctx); err != nil {
						return err
					}
				}
				return nil
			}()
		})
	}
	group.Wait()
	for range holders {
		must(t, <-failures)
	}
	got, err := client.Get(ctx, at+"counter")
	must(t, err)
	equal(t, "counter", string(got.Kvs[0].Value), fmt.Sprint(holders*rounds))
}

func TestTryLock(t *testing.T) {
	client, ctx := dial(t)
	session := func() *concurrency.Session {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
		must(t, err)
		t.Cleanup(func() { _ = session.Close() })
		return session
	}
	holder, other := session(), session()
	held := concurrency.NewMutex(holder, prefix(t)+"lock")
	must(t, held.TryLock(ctx))
	equal(t, "second", concurrency.NewMutex(other, prefix(t)+"lock").TryLock(ctx), concurrency.ErrLocked)
	must(t, holder.Close()) // its lease goes, and the lock with it
	must(t, concurrency.NewMutex(other, prefix(t)+"lock").TryLock(ctx))
}

func TestElection(t *testing.T) {
	client, ctx := dial(t)
	name := prefix(t) + "election"
	candidate := func() (*concurrency.Session, *concurrency.Election) {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
		must(t, err)
		t.Cleanup(func() { _ = session.Close() })
		return session, concurrency.NewElection(session, name)
	}
	firstSession, first := candidate()
	_, second := candidate()

	must(t, first.Campaign(ctx, "first"))
	observer, stop := context.WithCancel(ctx)
	defer stop()
	observed := second.Observe(observer)
	equal(t, "leader", string((<-observed).Kvs[0].Value), "first")

	elected := make(chan error, 1)
	go func() { elected <- second.Campaign(ctx, "second") }()
	must(t, first.Proclaim(ctx, "first again"))
	equal(t, "proclaimed", string((<-observed).Kvs[0].Value), "first again")
	select {
	case err := <-elected:
		t.Fatalf("two leaders at once: %v", err)
	case <-time.After(300 * time.Millisecond): // the absence of an event has no condition to wait for
	}

	must(t, firstSession.Close())
	must(t, <-elected)
	equal(t, "next leader", string((<-observed).Kvs[0].Value), "second")
	leader, err := second.Leader(ctx)
	must(t, err)
	equal(t, "who leads", string(leader.Kvs[0].Value), "second")
	must(t, second.Resign(ctx))
	_, err = second.Leader(ctx)
	equal(t, "nobody leads", err, concurrency.ErrElectionNoLeader)
}

// TestSTM moves amounts between two accounts in transactions that retry on conflict.
func TestSTM(t *testing.T) {
	client, ctx := dial(t)
	from, to := prefix(t)+"from", prefix(t)+"to"
	put(t, ctx, client, from, "100")
	put(t, ctx, client, to, "0")
	var group sync.WaitGroup
	failures := make(chan error, 10)
	for range 10 {
		group.Go(func() {
			_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
				var have, has int
				if _, err := fmt.Sscan(stm.Get(from), &have); err != nil {
					return err
				}
				if _, err := fmt.Sscan(stm.Get(to), &has); err != nil {
					return err
				}
				stm.Put(from, fmt.Sprint(have-10))
				stm.Put(to, fmt.Sprint(has+10))
				return nil
			}, concurrency.WithAbortContext(ctx))
			failures <- err
		})
	}
	group.Wait()
	for range 10 {
		must(t, <-failures)
	}
	got, err := client.Get(ctx, to)
	must(t, err)
	equal(t, "arrived", string(got.Kvs[0].Value), "100")
}
