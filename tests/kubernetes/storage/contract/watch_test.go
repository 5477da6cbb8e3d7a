package contract

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

func TestAWatchTellsAllSinceItsRevisionInOrder(t *testing.T) {
	forEachKind(t, func(t *testing.T, o objects) {
		var from string
		var expected []seen
		wrote := func(what watch.EventType, object *unstructured.Unstructured) {
			if from != "" {
				expected = append(expected, seen{what, object.GetName(), object.GetAnnotations()["value"], object.GetResourceVersion()})
			}
		}
		step := func(i int) {
			object := o.create(t, fmt.Sprintf("object-%d", i), "1")
			wrote(watch.Added, object)
			object = o.update(t, object, "2")
			wrote(watch.Modified, object)
			if i%2 == 0 {
				o.delete(t, object.GetName())
				// An event of a deletion has the revision of the deletion, which nobody was told.
				wrote(watch.Deleted, object)
				if from != "" {
					expected[len(expected)-1].revision = ""
				}
			}
		}
		for i := range 5 {
			step(i)
		}
		from = o.list(t, first, metav1.ListOptions{}).GetResourceVersion()
		for i := range 10 {
			step(5 + i)
		}
		events := o.watch(t, first, metav1.ListOptions{ResourceVersion: from})
		for i := range 5 {
			step(15 + i) // while it is watched
		}

		last := number(t, from)
		for i, wanted := range expected {
			event := seenOf(next(t, events))
			revision := number(t, event.revision)
			if revision <= last {
				t.Errorf("event %d: revision %d after %d", i, revision, last)
			}
			last = revision
			if wanted.what == watch.Deleted {
				event.revision = ""
			}
			if event != wanted {
				t.Fatalf("event %d is %v, not %v", i, event, wanted)
			}
		}
		select {
		case event := <-events.ResultChan():
			t.Errorf("told what did not happen: %v", seenOf(event))
		case <-time.After(500 * time.Millisecond):
		}
	})
}

// A watch of what does not change is told how far the store is all the same, by the store's own notices of progress.
func TestBookmarksFollowTheStore(t *testing.T) {
	o := cachedObjects(t)
	o.create(t, "quiet", "1")
	from := o.list(t, first, metav1.ListOptions{}).GetResourceVersion()
	// The last write, of something else.
	other := objects{kinds[1], o.namespace}.create(t, "loud", "1")
	wanted := number(t, other.GetResourceVersion())

	// A bookmark comes two seconds before a watch ends at the latest.
	seconds := int64(6)
	var told int64
	eventually(t, "a bookmark is as far as the last write", func() bool {
		events := o.watch(t, first, metav1.ListOptions{ResourceVersion: from, AllowWatchBookmarks: true, TimeoutSeconds: &seconds})
		defer events.Stop()
		for event := range events.ResultChan() {
			if event.Type != watch.Bookmark {
				t.Fatalf("nothing happened, told %v", seenOf(event))
			}
			revision := number(t, seenOf(event).revision)
			if revision < told {
				t.Errorf("a bookmark of revision %d after one of %d", revision, told)
			}
			told = revision
		}
		return told >= wanted
	})
	// And from there nothing is missed.
	events := o.watch(t, first, metav1.ListOptions{ResourceVersion: fmt.Sprint(told)})
	o.create(t, "after", "1")
	if event := seenOf(next(t, events)); event.name != "after" || event.what != watch.Added {
		t.Errorf("after the bookmark: %v", event)
	}
}

func TestAWatchListBeginsWithAllThereIs(t *testing.T) {
	o := cachedObjects(t)
	made := o.createMany(t, 30, "1")
	o.update(t, made[3], "2")
	o.delete(t, made[4].GetName())
	newest := number(t, o.create(t, "newest", "1").GetResourceVersion())

	yes := true
	for i, server := range []*server{first, second} {
		events := o.watch(t, server, metav1.ListOptions{
			SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true})
		found := map[string]string{}
		var complete *unstructured.Unstructured
		for complete == nil {
			event := next(t, events)
			object, is := event.Object.(*unstructured.Unstructured)
			switch {
			case is && event.Type == watch.Added:
				found[object.GetName()] = object.GetAnnotations()["value"]
			case is && event.Type == watch.Bookmark:
				if object.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
					complete = object
				}
			default:
				t.Fatalf("server %d: told %v", i, seenOf(event))
			}
		}
		if revision := number(t, complete.GetResourceVersion()); revision < newest {
			t.Errorf("server %d: complete at revision %d, before the last write at %d", i, revision, newest)
		}
		// One of those that were made is gone, and the newest has come; so has what the last round has made.
		_, deleted := found[made[4].GetName()]
		if len(found) != len(made)+i || deleted || found[made[3].GetName()] != "2" || found["newest"] != "1" {
			t.Errorf("server %d: %v", i, found)
		}
		after := fmt.Sprintf("after-%d", i)
		o.create(t, after, "1")
		if event := seenOf(next(t, events)); event.what != watch.Added || event.name != after {
			t.Errorf("server %d: after all there is, %v", i, event)
		}
		events.Stop()
	}
}
