package contract

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// What the API server's cache still has it may tell for a while; then it says so, too.
func TestCompactedRevisionsAreGone(t *testing.T) {
	forEachKind(t, func(t *testing.T, o objects) {
		const count, limit = 20, 5
		made := o.createMany(t, count, "old")
		page := o.list(t, first, metav1.ListOptions{Limit: limit})
		for _, object := range made {
			o.update(t, object, "new")
		}
		compact(t)

		eventually(t, "a list of a compacted revision is gone", func() bool {
			_, err := o.by(first).List(t.Context(), metav1.ListOptions{
				ResourceVersion: page.GetResourceVersion(), ResourceVersionMatch: metav1.ResourceVersionMatchExact})
			if err != nil && !isGone(err) {
				t.Fatal(err)
			}
			return isGone(err)
		})

		var gone apierrors.APIStatus
		eventually(t, "the next page of a compacted revision is gone", func() bool {
			_, err := o.by(first).List(t.Context(), metav1.ListOptions{Limit: limit, Continue: page.GetContinue()})
			if err != nil && !isGone(err) {
				t.Fatal(err)
			}
			gone, _ = err.(apierrors.APIStatus)
			return err != nil
		})
		// Whoever does not need one revision goes on where it was.
		on := gone.Status().Continue
		if on == "" {
			t.Fatalf("there is no way on: %+v", gone.Status())
		}
		rest := values(o.list(t, first, metav1.ListOptions{Continue: on}))
		again := values(o.list(t, first, metav1.ListOptions{}))
		for i, object := range made {
			if again[object.GetName()] != "new" {
				t.Errorf("listed again, %s is %q", object.GetName(), again[object.GetName()])
			}
			if value, there := rest[object.GetName()]; there != (i >= limit) || there && value != "new" {
				t.Errorf("after the first page, %s is %q", object.GetName(), value)
			}
		}
		if len(again) != count || len(rest) != count-limit {
			t.Errorf("listed again %d objects, and after the first page %d", len(again), len(rest))
		}
	})
}

// Of what is cached the cache answers, by what it has seen itself; the store is asked only for what is not.
func TestAWatchOfACompactedRevisionIsGone(t *testing.T) {
	o := objects{kinds[1], namespace(t)}
	revision := o.create(t, "old", "1").GetResourceVersion()
	// The first change that is missed lies below the compacted revision, which itself can still be watched from.
	o.create(t, "new", "1")
	o.create(t, "newer", "1")
	compact(t)
	events, err := o.by(first).Watch(t.Context(), metav1.ListOptions{ResourceVersion: revision})
	if err == nil {
		defer events.Stop()
		event := next(t, events)
		if event.Type != watch.Error {
			t.Fatalf("told %v", seenOf(event))
		}
		err = apierrors.FromObject(event.Object)
	}
	if !isGone(err) {
		t.Errorf("told %v", err)
	}
}

// A source of objects that is asked by lists, of which the first is an old one.
type staleLists struct {
	*cache.ListWatch
}

func (staleLists) IsWatchListSemanticsUnSupported() bool { return true }

func TestAnInformerListsAgainAfterACompaction(t *testing.T) {
	o := objects{kinds[1], namespace(t)}
	made := o.createMany(t, 10, "old")
	stale := o.list(t, first, metav1.ListOptions{})
	for _, object := range made {
		o.update(t, object, "new")
	}
	o.create(t, "later", "new")
	compact(t)

	var lists atomic.Int32
	source := staleLists{&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			if lists.Add(1) == 1 {
				return stale, nil
			}
			return o.by(first).List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return o.by(first).Watch(ctx, options)
		},
	}}
	known := cache.NewStore(cache.MetaNamespaceKeyFunc)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go cache.NewReflector(source, &unstructured.Unstructured{}, known, 0).RunWithContext(ctx)

	all := func(wanted int) func() bool {
		return func() bool {
			for _, object := range known.List() {
				if object.(*unstructured.Unstructured).GetAnnotations()["value"] != "new" {
					return false
				}
			}
			return len(known.List()) == wanted
		}
	}
	eventually(t, "the informer knows all that is new", all(len(made)+1))
	if lists.Load() < 2 {
		t.Errorf("it listed %d times", lists.Load())
	}
	// And it goes on from there.
	for i := range 3 {
		o.create(t, fmt.Sprintf("after-%d", i), "new")
	}
	eventually(t, "the informer watches on", all(len(made)+4))
}
