package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Who watches while the store is hurt: informers, as controllers have them, and a follower, which goes by the stream of
// events alone.
type watchers struct {
	informers map[string]cache.SharedIndexInformer
	follower  *follower
	order     *order
	// How often an informer asked for all that there is, and how often before all were filled.
	lists, firstLists atomic.Int64
	// How often one failed to.
	broken atomic.Int64
	stop   func()
}

func startWatchers(ctx context.Context, api *kubernetes.Clientset, namespace string, found *violations) (*watchers, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watchers{order: &order{found: found, last: map[types.UID]int64{}, gone: map[types.UID]bool{}}}
	factory := informers.NewSharedInformerFactoryWithOptions(api, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(w.countLists))
	w.informers = map[string]cache.SharedIndexInformer{
		"configmaps":  factory.Core().V1().ConfigMaps().Informer(),
		"pods":        factory.Core().V1().Pods().Informer(),
		"deployments": factory.Apps().V1().Deployments().Informer(),
	}
	for _, informer := range w.informers {
		if err := informer.SetWatchErrorHandler(func(*cache.Reflector, error) { w.broken.Add(1) }); err != nil {
			cancel()
			return nil, err
		}
		if _, err := informer.AddEventHandler(w.order); err != nil {
			cancel()
			return nil, err
		}
	}
	factory.Start(ctx.Done())
	for resource, informer := range w.informers {
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			cancel()
			return nil, fmt.Errorf("the informer of %s was never filled", resource)
		}
	}
	w.firstLists.Store(w.lists.Load())
	w.follower = &follower{api: api, namespace: namespace, found: found}
	var running sync.WaitGroup
	running.Go(func() { w.follower.run(ctx) })
	w.stop = sync.OnceFunc(func() {
		cancel()
		factory.Shutdown()
		running.Wait()
	})
	return w, nil
}

// ---- informers

// countLists sees what each request of an informer asks for: a list, a watch that begins with one, or a watch that goes
// on, which alone ends by itself and has no such beginning.
func (w *watchers) countLists(options *metav1.ListOptions) {
	if options.TimeoutSeconds == nil || options.SendInitialEvents != nil {
		w.lists.Add(1)
	}
}

// listedAgain is how often informers did.
func (w *watchers) listedAgain() int64 { return w.lists.Load() - w.firstLists.Load() }

// order holds what informers are told: no object goes back in time, and none comes back that is gone.
type order struct {
	found *violations

	mutex sync.Mutex
	last  map[types.UID]int64
	gone  map[types.UID]bool
	told  int
}

func (o *order) OnAdd(object any, _ bool) { o.event(object, false) }
func (o *order) OnUpdate(_, object any)   { o.event(object, false) }
func (o *order) OnDelete(object any)      { o.event(object, true) }

func (o *order) event(object any, deleted bool) {
	// What it was last is not known where the deletion itself was missed.
	unknown, missed := object.(cache.DeletedFinalStateUnknown)
	if missed {
		object = unknown.Obj
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		o.found.add("an informer was told %T: %v", object, err)
		return
	}
	revision, err := revisionOf(accessor)
	if err != nil {
		o.found.add("an informer was told: %v", err)
		return
	}
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.told++
	uid, name := accessor.GetUID(), fmt.Sprintf("%T %s", object, accessor.GetName())
	if revision < o.last[uid] && !missed {
		o.found.add("an informer was told %s of revision %d after %d", name, revision, o.last[uid])
	}
	if o.gone[uid] {
		o.found.add("an informer was told %s of revision %d, which was gone", name, revision)
	}
	o.last[uid] = max(revision, o.last[uid])
	o.gone[uid] = deleted
}

// ---- a follower of the stream

// follower knows ConfigMaps by the events of a watch, which it begins again where it ended. It lists again only where it
// is told that its revision is gone.
type follower struct {
	api       *kubernetes.Clientset
	namespace string
	found     *violations

	mutex  sync.Mutex
	known  map[string]state
	last   int64
	events int
	lists  int
	starts int
}

var errGone = errors.New("the revision is gone")

func (f *follower) run(ctx context.Context) {
	listed := false
	for ctx.Err() == nil {
		if !listed {
			listed = f.list(ctx) == nil
		}
		if listed {
			listed = !errors.Is(f.watch(ctx), errGone)
		}
		_ = pause(ctx, 50*time.Millisecond)
	}
}

func (f *follower) list(ctx context.Context) error {
	attempt, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	list, err := f.api.CoreV1().ConfigMaps(f.namespace).List(attempt, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return err
	}
	revision, err := revisionOf(list)
	if err != nil {
		return err
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.lists++
	if revision < f.last {
		f.found.add("a list is of revision %d after an event of %d", revision, f.last)
	}
	known := map[string]state{}
	for i := range list.Items {
		object := &list.Items[i]
		now := state{value: object.Data["value"]}
		if now.revision, err = revisionOf(object); err != nil {
			return err
		}
		if now.revision < f.known[object.Name].revision {
			f.found.add("%s is listed as %v, and was %v", object.Name, now, f.known[object.Name])
		}
		known[object.Name] = now
	}
	f.known, f.last = known, revision
	return nil
}

func (f *follower) watch(ctx context.Context) error {
	seconds := int64(20)
	f.mutex.Lock()
	from := f.last
	f.starts++
	f.mutex.Unlock()
	events, err := f.api.CoreV1().ConfigMaps(f.namespace).Watch(ctx, metav1.ListOptions{
		LabelSelector: label, ResourceVersion: fmt.Sprint(from), AllowWatchBookmarks: true, TimeoutSeconds: &seconds})
	if err != nil {
		return orGone(err)
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		if event.Type == watch.Error {
			return orGone(apierrors.FromObject(event.Object))
		}
		object, is := event.Object.(*corev1.ConfigMap)
		if !is {
			f.found.add("a watch of ConfigMaps tells of %T", event.Object)
			continue
		}
		if err := f.event(event.Type, object); err != nil {
			f.found.add("a watch: %v", err)
		}
	}
	return nil
}

func orGone(err error) error {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return errGone
	}
	return err
}

func (f *follower) event(what watch.EventType, object *corev1.ConfigMap) error {
	revision, err := revisionOf(object)
	if err != nil {
		return err
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.events++
	known, there := f.known[object.Name]
	switch {
	case revision < f.last || revision == f.last && what != watch.Bookmark:
		err = fmt.Errorf("%s %s of revision %d after %d", what, object.Name, revision, f.last)
	case what == watch.Added && there:
		err = fmt.Errorf("%s was added at revision %d, and is there as %v", object.Name, revision, known)
	case (what == watch.Modified || what == watch.Deleted) && !there:
		err = fmt.Errorf("%s was %s at revision %d, and was not there", object.Name, what, revision)
	}
	f.last = max(f.last, revision)
	switch what {
	case watch.Added, watch.Modified:
		f.known[object.Name] = state{object.Data["value"], revision}
	case watch.Deleted:
		delete(f.known, object.Name)
	}
	return err
}

func (f *follower) snapshot() map[string]state {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return maps.Clone(f.known)
}
