package objects

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// An event hangs on a lease of the store, and goes when that expires: nobody deletes it.
func testEvents(t *testing.T) {
	p := newPlace(t)
	lives, err := time.ParseDuration(os.Getenv("EVENT_TTL"))
	p.must(err)
	seen := p.record(client.CoreV1().Events(p.namespace).Watch)

	// One that a component reports, and one of ours.
	p.createPod("web", nil)
	p.eventually("the scheduler reports where the pod went", func() error {
		events, err := client.CoreV1().Events(p.namespace).List(p.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=web,reason=Scheduled"})
		if err != nil {
			return err
		}
		return expect("events", len(events.Items), 1)
	})
	begun := time.Now()
	_, err = client.CoreV1().Events(p.namespace).Create(p.ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "ours"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: p.namespace, Name: "web"},
		Reason:         "Tested", Message: "something happened", Type: corev1.EventTypeNormal,
	}, metav1.CreateOptions{})
	p.must(err)
	created := time.Now()

	key := "/registry/events/" + p.namespace + "/ours"
	kv := p.stored(key)
	if kv == nil || kv.Lease == 0 {
		t.Fatalf("the event has no lease: %v", kv)
	}
	lease, err := store.TimeToLive(p.ctx, clientv3.LeaseID(kv.Lease), clientv3.WithAttachedKeys())
	p.must(err)
	if granted := time.Duration(lease.GrantedTTL) * time.Second; granted < lives || granted > lives+lives/10 {
		t.Fatalf("the lease was granted for %v, where an event is to live %v", granted, lives)
	}
	if !slices.ContainsFunc(lease.Keys, func(attached []byte) bool { return string(attached) == key }) {
		t.Fatalf("the event is not among the %d keys of its lease", len(lease.Keys))
	}

	p.within(lives+patience, "the event expires", func() error {
		_, err := client.CoreV1().Events(p.namespace).Get(p.ctx, "ours", metav1.GetOptions{})
		if err = gone(err); err == nil && time.Since(begun) < lives {
			t.Fatalf("it was gone after %v, before its time", time.Since(begun))
		}
		return err
	})
	t.Logf("the event was gone after %v", time.Since(created).Round(time.Second))
	if p.stored(key) != nil {
		t.Fatal("the event is gone, and its key is not")
	}
	p.eventually("the lease is gone", func() error {
		lease, err := store.TimeToLive(p.ctx, clientv3.LeaseID(kv.Lease))
		if err != nil {
			return err
		}
		return expect("its time to live", lease.TTL, -1)
	})
	p.eventually("who watches is told that they went", func() error {
		var deleted []string
		for _, event := range seen() {
			if event.Type == watch.Deleted {
				deleted = append(deleted, event.Object.(*corev1.Event).Reason)
			}
		}
		if !slices.Contains(deleted, "Tested") || !slices.Contains(deleted, "Scheduled") {
			return fmt.Errorf("deleted so far: %v", deleted)
		}
		return nil
	})
	// What the events were about lives on.
	if !isReady(p.running("web")) {
		t.Fatal("the pod does not run any more")
	}
}
