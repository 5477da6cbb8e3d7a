package main

import (
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func podOf(app, name string, phase corev1.PodPhase) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
		Status: corev1.PodStatus{Phase: phase, PodIP: "10.0.0." + name,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

func tells(err error, text string) bool {
	if text == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), text)
}

func TestPodsAreAsWanted(t *testing.T) {
	part := func(name, index string) corev1.Pod {
		pod := podOf(jobName, name, corev1.PodSucceeded)
		pod.Annotations = map[string]string{batchv1.JobCompletionIndexAnnotation: index}
		return pod
	}
	held := part("2", "1")
	held.Finalizers = []string{batchv1.JobTrackingFinalizer}
	web := podOf("web-0", "1", corev1.PodRunning)
	for wanted, pods := range map[string][]corev1.Pod{
		"":                           {web, part("2", "0"), part("3", "1"), part("4", "1")},
		"have done 1 parts":          {web, part("2", "0"), part("3", "0")},
		"is still held":              {web, held},
		"there are pods map[]":       {part("2", "0"), part("3", "1")},
		"there are pods map[web-0:2": {web, podOf("web-0", "5", corev1.PodRunning), part("2", "0"), part("3", "1")},
		"is Pending":                 {podOf("web-0", "1", corev1.PodPending)},
	} {
		if err := (&work{parts: 2}).asWanted(pods, map[string]int{"web-0": 1}); !tells(err, wanted) {
			t.Errorf("%q: %v", wanted, err)
		}
	}
}

func TestEndpointsAreTheReadyPods(t *testing.T) {
	unready := podOf("web-0", "2", corev1.PodRunning)
	unready.Status.Conditions[0].Status = corev1.ConditionFalse
	pods := []corev1.Pod{podOf("web-0", "1", corev1.PodRunning), unready, podOf("web-1", "3", corev1.PodRunning)}
	endpoint := func(name, address string, ready bool) discoveryv1.EndpointSlice {
		return discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{address}, TargetRef: &corev1.ObjectReference{Name: name}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		}}}
	}
	right := endpoint("1", "10.0.0.1", true)
	for wanted, slices := range map[string][]discoveryv1.EndpointSlice{
		"":                           {right},
		"the endpoints are map[]":    {},
		"map[1:10.0.0.9]":            {endpoint("1", "10.0.0.9", true)},
		"map[1:10.0.0.1 3:10.0.0.3]": {right, endpoint("3", "10.0.0.3", true)},
		"not ready":                  {right, endpoint("2", "10.0.0.2", false)},
	} {
		if err := leadTo(slices, pods, "web-0"); !tells(err, wanted) {
			t.Errorf("%q: %v", wanted, err)
		}
	}
}

func TestKeysDiffer(t *testing.T) {
	all := func() []*mvccpb.KeyValue {
		return []*mvccpb.KeyValue{
			{Key: []byte("a"), Value: []byte("1"), CreateRevision: 2, ModRevision: 3, Version: 2},
			{Key: []byte("b"), Value: []byte("2"), CreateRevision: 4, ModRevision: 4, Version: 1, Lease: 7},
		}
	}
	if err := differ(all(), all()); err != nil {
		t.Error(err)
	}
	if differ(nil, nil) == nil {
		t.Error("nothing proves nothing")
	}
	if differ(all()[:1], all()) == nil {
		t.Error("one is missing")
	}
	for i, change := range []func(*mvccpb.KeyValue){
		func(kv *mvccpb.KeyValue) { kv.Key = []byte("c") },
		func(kv *mvccpb.KeyValue) { kv.Value = []byte("3") },
		func(kv *mvccpb.KeyValue) { kv.CreateRevision-- },
		func(kv *mvccpb.KeyValue) { kv.ModRevision++ },
		func(kv *mvccpb.KeyValue) { kv.Version++ },
		func(kv *mvccpb.KeyValue) { kv.Lease++ },
	} {
		changed := all()
		change(changed[1])
		if differ(changed, all()) == nil {
			t.Error(fmt.Sprint("change ", i, " is not seen"))
		}
	}
}

func TestListsOfInformersAreCounted(t *testing.T) {
	w := &watchers{}
	seconds, begin := int64(300), true
	for _, options := range []metav1.ListOptions{
		{ResourceVersion: "0"}, // a list
		{SendInitialEvents: &begin, AllowWatchBookmarks: true, TimeoutSeconds: &seconds}, // a watch that begins with one
		{ResourceVersion: "7", AllowWatchBookmarks: true, TimeoutSeconds: &seconds},      // a watch that goes on
	} {
		w.countLists(&options)
	}
	if count := w.lists.Load(); count != 2 {
		t.Error(count)
	}
	w.firstLists.Store(1)
	if w.listedAgain() != 1 {
		t.Error(w.listedAgain())
	}
}
