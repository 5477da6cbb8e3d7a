package contract

import (
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAStaleResourceVersionIsAConflict(t *testing.T) {
	forEachKind(t, func(t *testing.T, o objects) {
		old := o.create(t, "contested", "1")
		current := o.update(t, old, "2")

		if _, err := o.by(first).Update(t.Context(), withValue(old, "3"), metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("update of what has changed: %v", err)
		}
		stale := old.GetResourceVersion()
		err := o.by(first).Delete(t.Context(), "contested",
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &stale}})
		if !apierrors.IsConflict(err) {
			t.Errorf("deletion of what has changed: %v", err)
		}
		again := old.DeepCopy()
		again.SetResourceVersion("")
		again.SetUID("")
		if _, err := o.by(first).Create(t.Context(), again, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			t.Errorf("creation of what there is: %v", err)
		}

		kept, err := o.by(first).Get(t.Context(), "contested", metav1.GetOptions{})
		must(t, err)
		if kept.GetAnnotations()["value"] != "2" || kept.GetResourceVersion() != current.GetResourceVersion() {
			t.Errorf("what was refused has changed it: %v", kept)
		}
	})
}

func TestAListOfAnEarlierRevisionIsAsItWas(t *testing.T) {
	forEachKind(t, func(t *testing.T, o objects) {
		made := o.createMany(t, 8, "old")
		then := o.list(t, first, metav1.ListOptions{}).GetResourceVersion()
		o.update(t, made[1], "new")
		o.delete(t, made[2].GetName())
		o.create(t, "later", "new")

		list := o.list(t, first, metav1.ListOptions{
			ResourceVersion: then, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
		if list.GetResourceVersion() != then {
			t.Errorf("asked for revision %s, told %s", then, list.GetResourceVersion())
		}
		found := values(list)
		for _, object := range made {
			if found[object.GetName()] != "old" {
				t.Errorf("%s was 'old' at revision %s, told %q", object.GetName(), then, found[object.GetName()])
			}
		}
		if len(found) != len(made) {
			t.Errorf("there were %d, told %v", len(made), found)
		}
	})
}

func TestPagesAreOfOneRevision(t *testing.T) {
	forEachKind(t, func(t *testing.T, o objects) {
		const count, limit = 23, 5
		made := o.createMany(t, count, "old")
		found := map[string]string{}
		options := metav1.ListOptions{Limit: limit}
		revision := ""
		for page := 0; ; page++ {
			list := o.list(t, first, options)
			if page == 0 {
				revision = list.GetResourceVersion()
			}
			if list.GetResourceVersion() != revision {
				t.Errorf("page %d is of revision %s, the first of %s", page, list.GetResourceVersion(), revision)
			}
			if len(list.Items) > limit {
				t.Errorf("page %d has %d objects", page, len(list.Items))
			}
			for name, value := range values(list) {
				if _, twice := found[name]; twice {
					t.Errorf("%s is on two pages", name)
				}
				found[name] = value
			}
			if left := list.GetRemainingItemCount(); left != nil && *left != int64(count-len(found)) {
				t.Errorf("page %d says that %d are left, but it is %d", page, *left, count-len(found))
			}
			options.Continue = list.GetContinue()
			if options.Continue == "" {
				break
			}
			// What comes after this page changes, goes, and is added to.
			switch page {
			case 0:
				o.update(t, made[count-1], "new")
			case 1:
				o.delete(t, made[count-2].GetName())
			case 2:
				o.create(t, fmt.Sprintf("object-%03d-new", count-3), "new")
			}
		}
		if len(found) != count {
			t.Errorf("%d objects on all pages, not %d", len(found), count)
		}
		for name, value := range found {
			if value != "old" {
				t.Errorf("%s is %q", name, value)
			}
		}
	})
}
