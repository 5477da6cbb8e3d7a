package contract

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// What was written through one server is in the next list of the other: its cache asks the store how far it has to be.
func TestListsFromTheCacheAreConsistent(t *testing.T) {
	o := cachedObjects(t)
	const rounds = 100
	before := consistentReads(t, second)
	for i := range rounds {
		made := o.create(t, fmt.Sprintf("object-%03d", i), "1")
		list := o.list(t, second, metav1.ListOptions{})
		if len(list.Items) != i+1 {
			t.Fatalf("%d were written, and %d are in the list", i+1, len(list.Items))
		}
		if number(t, list.GetResourceVersion()) < number(t, made.GetResourceVersion()) {
			t.Fatalf("a list of revision %s after a write of %s", list.GetResourceVersion(), made.GetResourceVersion())
		}
	}
	if served := consistentReads(t, second) - before; served < rounds {
		t.Errorf("of %d lists, %.0f came from the cache", rounds, served)
	}
}

// How many consistent lists of secrets a server has answered from its cache.
func consistentReads(t *testing.T, s *server) float64 {
	t.Helper()
	text, err := s.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	must(t, err)
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if strings.HasPrefix(series, "apiserver_watch_cache_consistent_read_total{") &&
			strings.Contains(series, `resource="secrets"`) && strings.Contains(series, `fallback="false"`) &&
			strings.Contains(series, `success="true"`) {
			count, err := strconv.ParseFloat(value, 64)
			must(t, err)
			return count
		}
	}
	return 0
}

func TestTwoServersSeeWhatEachOtherWrites(t *testing.T) {
	forEachKind(t, func(t *testing.T, o objects) {
		from := o.list(t, second, metav1.ListOptions{}).GetResourceVersion()
		events := o.watch(t, second, metav1.ListOptions{ResourceVersion: from})
		object := o.create(t, "shared", "0")
		for i := range 20 {
			if i > 0 {
				object = o.update(t, object, fmt.Sprint(i))
			}
			found, err := o.by(second).Get(t.Context(), "shared", metav1.GetOptions{})
			must(t, err)
			if found.GetResourceVersion() != object.GetResourceVersion() {
				t.Fatalf("written at revision %s, read at %s", object.GetResourceVersion(), found.GetResourceVersion())
			}
			event := seenOf(next(t, events))
			if event.value != fmt.Sprint(i) || event.revision != object.GetResourceVersion() {
				t.Fatalf("written %d at revision %s, told %v", i, object.GetResourceVersion(), event)
			}
		}
		o.delete(t, "shared")
		if _, err := o.by(second).Get(t.Context(), "shared", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("what is deleted is read: %v", err)
		}
		if event := seenOf(next(t, events)); event.what != watch.Deleted {
			t.Errorf("it was deleted, told %v", event)
		}
	})
}

// Each counts up what it has read, and reads again where somebody was faster: none is lost and none counts twice.
func TestWritesThroughTwoServersExcludeEachOther(t *testing.T) {
	forEachKind(t, func(t *testing.T, o objects) {
		o.create(t, "counter", "0")
		const clients, each = 8, 10
		var all sync.WaitGroup
		for i := range clients {
			server := []*server{first, second}[i%2]
			all.Go(func() {
				for done := 0; done < each; {
					object, err := o.by(server).Get(t.Context(), "counter", metav1.GetOptions{})
					if err != nil {
						t.Error(err)
						return
					}
					count, err := strconv.Atoi(object.GetAnnotations()["value"])
					if err != nil {
						t.Error(err)
						return
					}
					_, err = o.by(server).Update(t.Context(), withValue(object, strconv.Itoa(count+1)), metav1.UpdateOptions{})
					switch {
					case err == nil:
						done++
					case !apierrors.IsConflict(err):
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		object, err := o.by(second).Get(t.Context(), "counter", metav1.GetOptions{})
		must(t, err)
		if value := object.GetAnnotations()["value"]; value != strconv.Itoa(clients*each) {
			t.Errorf("counted to %d, it is %s", clients*each, value)
		}
	})
}
