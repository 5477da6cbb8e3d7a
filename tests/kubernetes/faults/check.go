package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

const (
	// Within which controllers have done what they were told, once the store is well.
	convergesWithin = 4 * time.Minute
	// Within which those who watch know what a list knows.
	followsWithin = time.Minute
)

// check looks for what was lost, is back, or is known otherwise to somebody.
func (w *work) check(ctx context.Context, store *members) error {
	attempt, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	list, revision, err := w.listOnce(attempt, 0)
	if err != nil {
		return err
	}
	if err := w.happened(list); err != nil {
		return err
	}
	for _, wrong := range w.journal.judge(list) {
		w.found.add("at the end: %v", wrong)
	}
	inStore, err := store.revisions(attempt, "configmaps", w.namespace, revision)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if inStore[name] != list[name].revision {
			w.found.add("%s is %v to the API server, and of revision %d to the store", name, list[name], inStore[name])
		}
		delete(inStore, name)
	}
	delete(inStore, "kube-root-ca.crt") // every namespace has it
	if len(inStore) > 0 {
		w.found.add("the store holds what the API server does not list: %v", inStore)
	}

	w.expect(until(ctx, followsWithin, func(context.Context) error {
		if followed := w.watchers.follower.snapshot(); !maps.Equal(followed, list) {
			return fmt.Errorf("by its events, a watch knows %s", difference(followed, list))
		}
		return nil
	}))
	for resource, informer := range w.watchers.informers {
		w.expect(until(ctx, followsWithin, func(ctx context.Context) error { return w.compareInformer(ctx, store, resource, informer) }))
	}
	w.expect(until(ctx, followsWithin, store.same))
	return nil
}

// happened says what did not, so that nothing is proven by the rest.
func (w *work) happened(list map[string]state) error {
	w.counts.mutex.Lock()
	updates, lists, pages := w.counts.answered["update"], w.counts.answered["list"], w.counts.answered["pages"]
	w.counts.mutex.Unlock()
	follower, order := w.watchers.follower, w.watchers.order
	follower.mutex.Lock()
	events, relisted := follower.events, follower.lists-1
	follower.mutex.Unlock()
	order.mutex.Lock()
	told := order.told
	order.mutex.Unlock()
	switch {
	case len(list) == 0 || updates == 0:
		return errors.New("nothing was written, and nothing is proven")
	case lists == 0:
		return errors.New("nothing was listed meanwhile")
	case pages == 0:
		return errors.New("nothing was listed in pages meanwhile")
	case events == 0 || told == 0:
		return fmt.Errorf("a watch had %d events, informers %d", events, told)
	case relisted <= 0 || w.watchers.listedAgain()+w.watchers.broken.Load() <= 0:
		return fmt.Errorf("no watch broke: one listed again %d times, informers %d, of whose watches %d broke", relisted,
			w.watchers.listedAgain(), w.watchers.broken.Load())
	}
	return nil
}

// compareInformer holds what an informer knows against a new list, whole objects, and the list against the store.
func (w *work) compareInformer(ctx context.Context, store *members, resource string, informer cache.SharedIndexInformer) error {
	var list runtime.Object
	var err error
	switch all := (metav1.ListOptions{}); resource {
	case "configmaps":
		list, err = w.api.CoreV1().ConfigMaps(w.namespace).List(ctx, all)
	case "pods":
		list, err = w.api.CoreV1().Pods(w.namespace).List(ctx, all)
	case "deployments":
		list, err = w.api.AppsV1().Deployments(w.namespace).List(ctx, all)
	}
	if err != nil {
		return err
	}
	objects, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	about, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	revision, err := revisionOf(about)
	if err != nil {
		return err
	}
	inStore, err := store.revisions(ctx, resource, w.namespace, revision)
	if err != nil {
		return err
	}
	known := informer.GetStore()
	for _, object := range objects {
		key, err := cache.MetaNamespaceKeyFunc(object)
		if err != nil {
			return err
		}
		cached, there, err := known.GetByKey(key)
		if err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("the informer of %s does not know %s", resource, key)
		}
		if !equality.Semantic.DeepEqual(withoutKind(cached.(runtime.Object)), withoutKind(object)) {
			return fmt.Errorf("the informer of %s knows another %s", resource, key)
		}
		accessor, err := meta.Accessor(object)
		if err != nil {
			return err
		}
		if listed, err := revisionOf(accessor); err != nil || listed != inStore[accessor.GetName()] {
			return errors.Join(fmt.Errorf("%s %s is listed of revision %d, and of %d in the store", resource, key, listed, inStore[accessor.GetName()]), err)
		}
		delete(inStore, accessor.GetName())
	}
	if len(inStore) > 0 {
		return fmt.Errorf("the store holds %s that are not listed: %v", resource, inStore)
	}
	if count := len(known.ListKeys()); count != len(objects) {
		return fmt.Errorf("the informer of %s knows %d, and there are %d", resource, count, len(objects))
	}
	return nil
}

// withoutKind is a copy that does not say what it is, for not every way to an object tells.
func withoutKind(object runtime.Object) runtime.Object {
	object = object.DeepCopyObject()
	object.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return object
}

// difference names what two do not have in common.
func difference(found, wanted map[string]state) string {
	var text []string
	for name, state := range wanted {
		if found[name] != state {
			text = append(text, fmt.Sprintf("%s as %v, not %v", name, found[name], state))
		}
	}
	for name, state := range found {
		if _, there := wanted[name]; !there {
			text = append(text, fmt.Sprintf("%s as %v, which is not there", name, state))
		}
	}
	slices.Sort(text)
	return strings.Join(text, "; ")
}

// until tries until there is no error.
func until(ctx context.Context, within time.Duration, holds func(context.Context) error) error {
	for end := time.Now().Add(within); ; {
		attempt, cancel := context.WithTimeout(ctx, answersWithin)
		err := holds(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %w", within, err)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// revisions are those of a namespace's objects of one kind in the store itself, as it was at one.
func (m *members) revisions(ctx context.Context, resource, namespace string, revision int64) (map[string]int64, error) {
	prefix := "/registry/" + resource + "/" + namespace + "/"
	response, err := m.all.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithRev(revision))
	if err != nil {
		return nil, err
	}
	found := map[string]int64{}
	for _, kv := range response.Kvs {
		found[strings.TrimPrefix(string(kv.Key), prefix)] = kv.ModRevision
	}
	return found, nil
}

// leftOf are the API server's keys that name a namespace.
func (m *members) leftOf(ctx context.Context, namespace string) ([]string, error) {
	response, err := m.all.Get(ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var left []string
	for _, kv := range response.Kvs {
		if key := string(kv.Key); strings.Contains(key+"/", "/"+namespace+"/") {
			left = append(left, key)
		}
	}
	return left, nil
}

// same says whether all members hold the same of one revision: every key, and the hash of all that they keep.
func (m *members) same(ctx context.Context) error {
	now, err := m.all.Get(ctx, probeKey)
	if err != nil {
		return err
	}
	revision := now.Header.Revision
	var first *clientv3.GetResponse
	var firstHash *clientv3.HashKVResponse
	for member, client := range m.one {
		// Linearizable, so that a member that is behind comes up to it.
		if _, err := client.Get(ctx, probeKey); err != nil {
			return err
		}
		all, err := client.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly(), clientv3.WithSerializable(), clientv3.WithRev(revision))
		if err != nil {
			return err
		}
		hash, err := client.HashKV(ctx, m.endpoints[member], revision)
		if err != nil {
			return err
		}
		if first == nil {
			first, firstHash = all, hash
			continue
		}
		if all.Count != first.Count {
			return fmt.Errorf("member %d holds %d keys at revision %d, member 0 holds %d", member, all.Count, revision, first.Count)
		}
		for i, kv := range all.Kvs {
			other := first.Kvs[i]
			if string(kv.Key) != string(other.Key) || kv.ModRevision != other.ModRevision || kv.Version != other.Version {
				return fmt.Errorf("member %d holds %s of revision %d, member 0 %s of %d", member, kv.Key, kv.ModRevision, other.Key, other.ModRevision)
			}
		}
		// Hashes of two compactions are not alike.
		if hash.CompactRevision == firstHash.CompactRevision && hash.Hash != firstHash.Hash {
			return fmt.Errorf("the hashes of members %d and 0 differ at revision %d", member, revision)
		}
		if hash.CompactRevision != firstHash.CompactRevision {
			return fmt.Errorf("members %d and 0 were compacted in between", member)
		}
	}
	return nil
}

// summary says what the load was.
func (w *work) summary() string {
	w.counts.mutex.Lock()
	defer w.counts.mutex.Unlock()
	count := func(of map[string]int) string {
		var text []string
		for _, key := range slices.Sorted(maps.Keys(of)) {
			text = append(text, fmt.Sprintf("%s %d", key, of[key]))
		}
		if text == nil {
			return "none"
		}
		return strings.Join(text, ", ")
	}
	follower, order := w.watchers.follower, w.watchers.order
	follower.mutex.Lock()
	defer follower.mutex.Unlock()
	order.mutex.Lock()
	defer order.mutex.Unlock()
	return fmt.Sprintf(`  requests answered: %s
  requests failed: %s (%s); the longest time without a write: %d ms
  a watch: %d events, begun %d times, listed again %d times; informers: %d events, listed again %d times, %d broken watches
  parts of the Job that were done while the store was hurt: %d of %d
`,
		count(w.counts.answered), count(w.counts.failed), count(w.counts.reasons), w.counts.longest.Milliseconds(),
		follower.events, follower.starts, follower.lists-1, order.told, w.watchers.listedAgain(), w.watchers.broken.Load(),
		w.partsUnderFaults, w.parts)
}

// cleanUp ends those who watch.
func (w *work) cleanUp() { w.watchers.stop() }
