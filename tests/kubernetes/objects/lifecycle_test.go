package objects

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
)

// An object with a finalizer is marked when it is deleted, and goes when the last one lets it.
func testFinalizers(t *testing.T) {
	p := newPlace(t)
	maps := client.CoreV1().ConfigMaps(p.namespace)
	_, err := maps.Create(p.ctx, p.newMap("held", "example.com/one", "example.com/two"), metav1.CreateOptions{})
	p.must(err)
	p.must(maps.Delete(p.ctx, "held", metav1.DeleteOptions{}))
	held, err := maps.Get(p.ctx, "held", metav1.GetOptions{})
	p.must(err)
	if held.DeletionTimestamp == nil {
		t.Fatal("it is not marked")
	}
	since := *held.DeletionTimestamp
	// It cannot be kept any more, but may still be changed.
	held.Finalizers = append(held.Finalizers, "example.com/three")
	_, err = maps.Update(p.ctx, held, metav1.UpdateOptions{})
	p.refused("a new finalizer on what is being deleted", err, metav1.StatusReasonInvalid, "no new finalizers can be added")
	p.let("held", `["example.com/two"]`)
	held, err = maps.Get(p.ctx, "held", metav1.GetOptions{})
	p.must(err)
	p.must(expect("since when it is marked", held.DeletionTimestamp.Unix(), since.Unix()))
	p.let("held", `null`)
	_, err = maps.Get(p.ctx, "held", metav1.GetOptions{})
	p.must(gone(err))

	// A deletion can be made to hold for one object and one state of it.
	created, err := maps.Create(p.ctx, p.newMap("precise"), metav1.CreateOptions{})
	p.must(err)
	other := types.UID("another")
	err = maps.Delete(p.ctx, "precise", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
	p.refused("the deletion of another", err, metav1.StatusReasonConflict, "in the precondition")
	stale := created.ResourceVersion
	p.let("precise", `["example.com/one"]`)
	err = maps.Delete(p.ctx, "precise", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &stale}})
	p.refused("the deletion of what was changed", err, metav1.StatusReasonConflict, "in the precondition")
	p.let("precise", `null`)
	p.must(maps.Delete(p.ctx, "precise", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &created.UID}}))
}

// What belongs to something that is deleted goes before it, after it, or not at all, as the deletion says.
func testGarbageCollection(t *testing.T) {
	p := newPlace(t)
	maps := client.CoreV1().ConfigMaps(p.namespace)
	owned := func(owner *corev1.ConfigMap, name string, finalizers ...string) {
		t.Helper()
		object := p.newMap(name, finalizers...)
		blocks := true
		object.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID, BlockOwnerDeletion: &blocks}}
		_, err := maps.Create(p.ctx, object, metav1.CreateOptions{})
		p.must(err)
	}
	newOwner := func(name string) *corev1.ConfigMap {
		t.Helper()
		owner, err := maps.Create(p.ctx, p.newMap(name), metav1.CreateOptions{})
		p.must(err)
		return owner
	}
	remove := func(name string, policy metav1.DeletionPropagation) {
		t.Helper()
		p.must(maps.Delete(p.ctx, name, metav1.DeleteOptions{PropagationPolicy: &policy}))
	}
	isGone := func(name string) {
		t.Helper()
		p.eventually(name+" is gone", func() error {
			_, err := maps.Get(p.ctx, name, metav1.GetOptions{})
			return gone(err)
		})
	}
	is := func(name string) *corev1.ConfigMap {
		t.Helper()
		object, err := maps.Get(p.ctx, name, metav1.GetOptions{})
		p.must(err)
		return object
	}

	// In the foreground the owner waits for what it owns.
	owner := newOwner("fore")
	owned(owner, "fore-free")
	owned(owner, "fore-held", "example.com/hold")
	remove("fore", metav1.DeletePropagationForeground)
	isGone("fore-free")
	p.eventually("the other is marked", func() error {
		if is("fore-held").DeletionTimestamp == nil {
			return errors.New("it is not")
		}
		return nil
	})
	if waiting := is("fore"); waiting.DeletionTimestamp == nil || !slices.Contains(waiting.Finalizers, metav1.FinalizerDeleteDependents) {
		t.Fatalf("the owner does not wait: %v", waiting.ObjectMeta)
	}
	p.let("fore-held", `null`)
	isGone("fore-held")
	isGone("fore")

	// In the background it goes at once.
	owner = newOwner("back")
	owned(owner, "back-held", "example.com/hold")
	remove("back", metav1.DeletePropagationBackground)
	_, err := maps.Get(p.ctx, "back", metav1.GetOptions{})
	p.must(gone(err))
	p.eventually("what it owned is marked", func() error {
		if is("back-held").DeletionTimestamp == nil {
			return errors.New("it is not")
		}
		return nil
	})
	p.let("back-held", `null`)
	isGone("back-held")

	// What is orphaned belongs to nobody.
	owner = newOwner("orphans")
	owned(owner, "orphan")
	remove("orphans", metav1.DeletePropagationOrphan)
	isGone("orphans")
	p.must(expect("owners of the orphan", len(is("orphan").OwnerReferences), 0))

	// What names an owner that never was is garbage, and so are the pods of a Deployment, two steps down.
	owned(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "nobody", UID: "never-was"}}, "stray")
	isGone("stray")
	p.apply("deployment")
	p.ready("app=web", 4)
	p.kubectl("delete", "deployment", "web", "--cascade=background")
	p.ready("app=web", 0)
	p.eventually("its sets are gone", func() error { return expect("sets", len(p.sets()), 0) })
}

func (p place) newMap(name string, finalizers ...string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: finalizers}}
}

// let changes the finalizers of a ConfigMap.
func (p place) let(name, finalizers string) {
	p.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"finalizers":%s}}`, finalizers)
	_, err := client.CoreV1().ConfigMaps(p.namespace).Patch(p.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	p.must(err)
}

// Who applies a field owns it; another who wants it otherwise is told so, and may insist.
func testServerSideApply(t *testing.T) {
	p := newPlace(t)
	apply := func(manager string, force bool, data map[string]string) (*corev1.ConfigMap, error) {
		desired := applycorev1.ConfigMap("shared", p.namespace).WithData(data)
		return client.CoreV1().ConfigMaps(p.namespace).Apply(p.ctx, desired, metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	_, err := apply("one", false, map[string]string{"colour": "red", "size": "1"})
	p.must(err)
	// Each of two managers of one object has its own fields.
	shared, err := apply("two", false, map[string]string{"shape": "round"})
	p.must(err)
	p.must(expect("what both said", fmt.Sprint(shared.Data), "map[colour:red shape:round size:1]"))

	_, err = apply("two", false, map[string]string{"shape": "round", "colour": "blue"})
	p.refused("a field of another", err, metav1.StatusReasonConflict, `conflict with "one"`)
	_, err = p.tryKubectl("{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {colour: green}}", "apply", "--server-side", "--field-manager=three", "--filename=-")
	if err == nil || !strings.Contains(err.Error(), `conflict with "one"`) {
		t.Fatalf("kubectl: expected a conflict, saw %v", err)
	}
	shared, err = apply("two", true, map[string]string{"shape": "round", "colour": "blue"})
	p.must(err)
	p.must(expect("the colour", shared.Data["colour"], "blue"))
	p.must(expect("who has a say", fmt.Sprint(managers(shared)), "[one two]"))
	// The first has lost it, and is told so in turn.
	_, err = apply("one", false, map[string]string{"colour": "red", "size": "1"})
	p.refused("a field that was lost", err, metav1.StatusReasonConflict, `conflict with "two"`)

	// What its owner does not name any more is gone, and what another owns, too, stays.
	shared, err = apply("one", false, map[string]string{"shape": "round"})
	p.must(err)
	p.must(expect("what is left", fmt.Sprint(shared.Data), "map[colour:blue shape:round]"))
	shared, err = apply("two", false, map[string]string{"colour": "blue"})
	p.must(err)
	p.must(expect("what is left", fmt.Sprint(shared.Data), "map[colour:blue shape:round]"))

	// To apply the same again writes nothing.
	again, err := apply("two", false, map[string]string{"colour": "blue"})
	p.must(err)
	p.must(expect("the version", again.ResourceVersion, shared.ResourceVersion))
}

func managers(object metav1.Object) []string {
	var names []string
	for _, entry := range object.GetManagedFields() {
		names = append(names, entry.Manager)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
