// Package contract holds, through the API server, what it promises by its store: conflicts, revisions that are gone,
// pages, watches, bookmarks, lists from its cache, and what two servers on one store see of each other.
//
// tests/kubernetes/storage/stage.sh runs it: KUBECONFIG and KUBECONFIG_SECOND name the two, and the variables of
// in_run (tests/kubernetes/lib.sh) the store.
package contract

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"mainstay/tests/kubernetes/access"
)

// How long anything may take that is not a matter of time itself.
const deadline = 60 * time.Second

var (
	// An API server, and another on the same store that was started later.
	first, second *server
	store         *clientv3.Client
)

type server struct {
	*kubernetes.Clientset
	dynamic *dynamic.DynamicClient
}

func TestMain(m *testing.M) {
	if err := connect(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func connect() error {
	open := func(variable string) (*server, error) {
		config, err := access.API(variable)
		if err != nil {
			return nil, err
		}
		typed, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		untyped, err := dynamic.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		return &server{typed, untyped}, nil
	}
	var err error
	if first, err = open("KUBECONFIG"); err != nil {
		return err
	}
	if second, err = open("KUBECONFIG_SECOND"); err != nil {
		return err
	}
	store, err = access.Store()
	return err
}

// The two ways from the API server to its store. What the cache does not have is asked of the store, in both.
var kinds = []kind{
	{"secrets, which are cached", schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, "Secret", true},
	{"events, which are not", schema.GroupVersionResource{Version: "v1", Resource: "events"}, "Event", false},
}

type kind struct {
	name     string
	resource schema.GroupVersionResource
	kind     string
	cached   bool
}

// Objects of one kind in a namespace of their own. Each has a value, in an annotation.
type objects struct {
	kind
	namespace string
}

// For each kind of objects.
func forEachKind(t *testing.T, check func(t *testing.T, o objects)) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) { check(t, objects{kind, namespace(t)}) })
	}
}

func cachedObjects(t *testing.T) objects { return objects{kinds[0], namespace(t)} }

func namespace(t *testing.T) string {
	t.Helper()
	made, err := first.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "storage-"}}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		_ = first.CoreV1().Namespaces().Delete(context.Background(), made.Name, metav1.DeleteOptions{})
	})
	return made.Name
}

func (o objects) by(s *server) dynamic.ResourceInterface {
	return s.dynamic.Resource(o.resource).Namespace(o.namespace)
}

func (o objects) create(t *testing.T, name, value string) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       o.kind.kind,
		"metadata":   map[string]any{"name": name, "annotations": map[string]any{"value": value}},
	}}
	if !o.cached {
		object.Object["involvedObject"] = map[string]any{"kind": "Pod", "namespace": o.namespace, "name": name}
		object.Object["reason"] = "Tested"
	}
	made, err := o.by(first).Create(t.Context(), object, metav1.CreateOptions{})
	must(t, err)
	return made
}

// update gives an object another value; the object says of which revision it is.
func (o objects) update(t *testing.T, object *unstructured.Unstructured, value string) *unstructured.Unstructured {
	t.Helper()
	updated, err := o.by(first).Update(t.Context(), withValue(object, value), metav1.UpdateOptions{})
	must(t, err)
	return updated
}

func withValue(object *unstructured.Unstructured, value string) *unstructured.Unstructured {
	object = object.DeepCopy()
	object.SetAnnotations(map[string]string{"value": value})
	return object
}

func (o objects) delete(t *testing.T, name string) {
	t.Helper()
	must(t, o.by(first).Delete(t.Context(), name, metav1.DeleteOptions{}))
}

// create makes so many objects, all with this value.
func (o objects) createMany(t *testing.T, count int, value string) []*unstructured.Unstructured {
	t.Helper()
	var made []*unstructured.Unstructured
	for i := range count {
		made = append(made, o.create(t, fmt.Sprintf("object-%03d", i), value))
	}
	return made
}

func (o objects) list(t *testing.T, s *server, options metav1.ListOptions) *unstructured.UnstructuredList {
	t.Helper()
	list, err := o.by(s).List(t.Context(), options)
	must(t, err)
	return list
}

// values by name.
func values(list *unstructured.UnstructuredList) map[string]string {
	found := map[string]string{}
	for _, object := range list.Items {
		found[object.GetName()] = object.GetAnnotations()["value"]
	}
	return found
}

// An event of a watch, as far as tests compare it.
type seen struct {
	what     watch.EventType
	name     string
	value    string
	revision string
}

func seenOf(event watch.Event) seen {
	object, is := event.Object.(*unstructured.Unstructured)
	if !is {
		return seen{what: event.Type, name: fmt.Sprintf("%v", event.Object)}
	}
	return seen{event.Type, object.GetName(), object.GetAnnotations()["value"], object.GetResourceVersion()}
}

func (o objects) watch(t *testing.T, s *server, options metav1.ListOptions) watch.Interface {
	t.Helper()
	events, err := o.by(s).Watch(t.Context(), options)
	must(t, err)
	t.Cleanup(events.Stop)
	return events
}

// next is the next event of a watch.
func next(t *testing.T, events watch.Interface) watch.Event {
	t.Helper()
	select {
	case event, open := <-events.ResultChan():
		if !open {
			t.Fatal("the watch ended")
		}
		return event
	case <-time.After(deadline):
		t.Fatal("no event came")
	}
	panic("unreachable")
}

// compact as another API server would: the key tells all of them what is gone. Returns the revision.
func compact(t *testing.T) int64 {
	t.Helper()
	const key = "compact_rev_key"
	for {
		now, err := store.Get(t.Context(), key)
		must(t, err)
		var version int64
		if len(now.Kvs) > 0 {
			version = now.Kvs[0].Version
		}
		revision := now.Header.Revision
		told, err := store.Txn(t.Context()).If(clientv3.Compare(clientv3.Version(key), "=", version)).
			Then(clientv3.OpPut(key, strconv.FormatInt(revision, 10))).Commit()
		must(t, err)
		if !told.Succeeded {
			continue // the API server was faster
		}
		_, err = store.Compact(t.Context(), revision)
		must(t, err)
		return revision
	}
}

// isGone says whether an error, or what a watch says, is "410 Gone".
func isGone(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// number of a resourceVersion. Clients need not know that it is one; a test of the store does.
func number(t *testing.T, revision string) int64 {
	t.Helper()
	value, err := strconv.ParseInt(revision, 10, 64)
	must(t, err)
	return value
}
