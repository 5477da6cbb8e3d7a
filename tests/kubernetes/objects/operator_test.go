package objects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

func resourceOf(group, version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
}

var fleets = resourceOf("objects.example.com", "v1", "fleets")

// A kind of the test's own, and an operator that makes what such objects ask for.
func testCustomResources(t *testing.T) {
	p := newPlace(t)
	definitions := objects.Resource(resourceOf("apiextensions.k8s.io", "v1", "customresourcedefinitions"))
	p.Cleanup(func() {
		p.remove("the definition", func(ctx context.Context) error {
			return definitions.Delete(ctx, "fleets.objects.example.com", metav1.DeleteOptions{})
		})
	})
	p.apply("fleet")
	p.kubectl("wait", "--for=condition=established", "crd/fleets.objects.example.com", "--timeout="+patience.String())
	p.runOperator()

	// What does not fit the schema is refused.
	for _, bad := range []struct{ spec, text string }{
		{`{"size": 3}`, "spec.image: Required value"},
		{`{"size": -1, "image": "example.invalid/ship:1"}`, "should be greater than or equal to 0"},
		{`{"size": "three", "image": "example.invalid/ship:1"}`, "must be of type integer"},
		{`{"size": 11, "image": "example.invalid/ship:1"}`, "at most ten ships"},
	} {
		_, err := objects.Resource(fleets).Namespace(p.namespace).Create(p.ctx, fleet(p, "bad", bad.spec), metav1.CreateOptions{})
		p.refused("a fleet with "+bad.spec, err, metav1.StatusReasonInvalid, bad.text)
	}

	// The operator makes the actual state the desired one, whatever happens to either.
	created, err := objects.Resource(fleets).Namespace(p.namespace).Create(p.ctx, fleet(p, "north", `{"image": "example.invalid/ship:1"}`), metav1.CreateOptions{})
	p.must(err)
	size, _, err := unstructured.NestedInt64(created.Object, "spec", "size")
	p.must(err)
	p.must(expect("the size that nobody said", size, 1))
	p.fleetIsReady(1)
	p.kubectl("scale", "fleet/north", "--replicas=4")
	p.fleetIsReady(4)
	lost := p.ready("fleet=north", 4)[0]
	p.must(client.CoreV1().Pods(p.namespace).Delete(p.ctx, lost.Name, metav1.DeleteOptions{}))
	p.eventually("the lost ship is replaced", func() error {
		pods, err := p.pods("fleet=north")
		if err == nil && slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return pod.UID == lost.UID }) {
			err = errors.New("it is still there")
		}
		return err
	})
	p.fleetIsReady(4)
	p.kubectl("patch", "fleet", "north", "--type=merge", `--patch={"spec":{"size":2}}`)
	p.fleetIsReady(2)
	printed := strings.Fields(p.kubectl("get", "fleet", "north", "--no-headers", "--output=custom-columns=:.metadata.name,:.status.ready"))
	p.must(expect("what kubectl prints", fmt.Sprint(printed), "[north 2]"))

	// With a fleet goes what it owns, and with the definition every fleet.
	_, err = objects.Resource(fleets).Namespace(p.namespace).Create(p.ctx, fleet(p, "south", `{"size": 0, "image": "example.invalid/ship:1"}`), metav1.CreateOptions{})
	p.must(err)
	p.kubectl("delete", "fleet", "north", "--timeout="+patience.String())
	p.ready("fleet=north", 0)
	p.must(definitions.Delete(p.ctx, "fleets.objects.example.com", metav1.DeleteOptions{}))
	p.eventually("the definition is gone, and so are its objects", func() error {
		_, err := definitions.Get(p.ctx, "fleets.objects.example.com", metav1.GetOptions{})
		if err := gone(err); err != nil {
			return err
		}
		keys, err := storedKeys(p.ctx, "/registry/objects.example.com/")
		if err != nil {
			return err
		}
		return expect("keys", fmt.Sprint(keys), "[]")
	})
}

func fleet(p place, name, spec string) *unstructured.Unstructured {
	p.Helper()
	object := &unstructured.Unstructured{}
	p.must(json.Unmarshal(fmt.Appendf(nil, `{"apiVersion": "objects.example.com/v1", "kind": "Fleet", "metadata": {"name": %q}, "spec": %s}`, name, spec), object))
	return object
}

// fleetIsReady waits for so many ships, and until the fleet itself says so.
func (p place) fleetIsReady(size int64) {
	p.Helper()
	p.ready("fleet=north", int(size))
	p.eventually(fmt.Sprintf("the fleet says that %d ships are ready", size), func() error {
		object, err := objects.Resource(fleets).Namespace(p.namespace).Get(p.ctx, "north", metav1.GetOptions{})
		if err != nil {
			return err
		}
		ready, _, _ := unstructured.NestedInt64(object.Object, "status", "ready")
		observed, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
		return expect("ready, at which generation", [2]int64{ready, observed}, [2]int64{size, object.GetGeneration()})
	})
}

// operator keeps as many pods for each fleet of a namespace as that asks for.
type operator struct {
	place
	fleets cache.GenericLister
	pods   informers.GenericInformer
	queue  workqueue.TypedRateLimitingInterface[string]
}

// runOperator runs one until the test ends.
func (p place) runOperator() {
	p.Helper()
	custom := dynamicinformer.NewFilteredDynamicSharedInformerFactory(objects, 0, p.namespace, nil)
	core := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(p.namespace))
	pods, err := core.ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
	p.must(err)
	o := operator{p, custom.ForResource(fleets).Lister(), pods, workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())}
	_, err = custom.ForResource(fleets).Informer().AddEventHandler(o.onEvent(func(object metav1.Object) string { return object.GetName() }))
	p.must(err)
	_, err = pods.Informer().AddEventHandler(o.onEvent(func(object metav1.Object) string { return object.GetLabels()["fleet"] }))
	p.must(err)
	custom.Start(p.ctx.Done())
	core.Start(p.ctx.Done())
	for resource, synced := range custom.WaitForCacheSync(p.ctx.Done()) {
		p.must(expect(resource.String()+" known", synced, true))
	}
	if !cache.WaitForCacheSync(p.ctx.Done(), pods.Informer().HasSynced) {
		p.Fatal("the pods did not become known")
	}

	var worker sync.WaitGroup
	worker.Go(o.work)
	p.Cleanup(func() {
		o.queue.ShutDown()
		worker.Wait()
		custom.Shutdown()
		core.Shutdown()
	})
}

// onEvent puts the fleet that an object concerns into the queue.
func (o operator) onEvent(fleetOf func(metav1.Object) string) cache.ResourceEventHandler {
	enqueue := func(object any) {
		if last, is := object.(cache.DeletedFinalStateUnknown); is {
			object = last.Obj
		}
		if object, is := object.(metav1.Object); is {
			if name := fleetOf(object); name != "" {
				o.queue.Add(name)
			}
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, now any) { enqueue(now) }, DeleteFunc: enqueue}
}

func (o operator) work() {
	for {
		name, ended := o.queue.Get()
		if ended {
			return
		}
		// Whatever fails is tried again; what never succeeds is seen by the test.
		if err := o.reconcile(name); err != nil && o.ctx.Err() == nil {
			o.queue.AddRateLimited(name)
		} else {
			o.queue.Forget(name)
		}
		o.queue.Done(name)
	}
}

// reconcile compares what a fleet asks for with what there is.
func (o operator) reconcile(name string) error {
	known, err := o.fleets.ByNamespace(o.namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil // its pods are garbage, and collected
	} else if err != nil {
		return err
	}
	fleet := known.(*unstructured.Unstructured).DeepCopy()
	size, _, err := unstructured.NestedInt64(fleet.Object, "spec", "size")
	if err != nil {
		return err
	}
	if fleet.GetDeletionTimestamp() != nil {
		return nil
	}
	ships, err := o.ships(fleet)
	if err != nil {
		return err
	}
	api := client.CoreV1().Pods(o.namespace)
	// Names are numbered, so that nobody makes one twice who does not know yet what was made.
	for number := range size {
		ship := fmt.Sprintf("%s-%d", name, number)
		if slices.ContainsFunc(ships, func(pod *corev1.Pod) bool { return pod.Name == ship }) {
			continue
		}
		if _, err := api.Create(o.ctx, o.newShip(fleet, ship), metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	ready := int64(0)
	for _, pod := range ships {
		var number int64
		if _, err := fmt.Sscanf(pod.Name, name+"-%d", &number); err != nil {
			return err
		}
		if number >= size && pod.DeletionTimestamp == nil {
			if err := api.Delete(o.ctx, pod.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		} else if number < size && isReady(pod) {
			ready++
		}
	}
	status := map[string]any{"ready": ready, "observedGeneration": fleet.GetGeneration()}
	if err := unstructured.SetNestedField(fleet.Object, status, "status"); err != nil {
		return err
	}
	_, err = objects.Resource(fleets).Namespace(o.namespace).UpdateStatus(o.ctx, fleet, metav1.UpdateOptions{})
	return err
}

// ships are the pods that a fleet owns, as far as they are known.
func (o operator) ships(fleet *unstructured.Unstructured) ([]*corev1.Pod, error) {
	list, err := o.pods.Lister().ByNamespace(o.namespace).List(labels.SelectorFromSet(labels.Set{"fleet": fleet.GetName()}))
	if err != nil {
		return nil, err
	}
	var ships []*corev1.Pod
	for _, object := range list {
		if pod := object.(*corev1.Pod); metav1.IsControlledBy(pod, fleet) {
			ships = append(ships, pod)
		}
	}
	return ships, nil
}

func (o operator) newShip(fleet *unstructured.Unstructured, name string) *corev1.Pod {
	return o.newPod(name, func(pod *corev1.Pod) {
		pod.Labels = map[string]string{"fleet": fleet.GetName()}
		pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(fleet, fleet.GroupVersionKind())}
		pod.Spec.Containers[0].Image, _, _ = unstructured.NestedString(fleet.Object, "spec", "image")
	})
}
