package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What controllers are told: Deployments, a Service of the pods of one, a StatefulSet, a DaemonSet, and a Job whose parts
// are done one after the other. All of it changes while the store is hurt, and is to be well at the end.

const (
	setName, agentName, jobName, serviceName = "db", "agent", "parts", "web"
	// What the StatefulSet is to end with.
	setReplicas = 3
	// Parts of the Job for each round of faults: more than can be done in it, one after the other.
	partsEach = 100
)

type deployment struct {
	name string
	// What it is to end with.
	replicas int32
}

func (w *work) createWorkloads(ctx context.Context, seed uint64, rounds int) error {
	dice := rand.New(rand.NewPCG(seed, 2))
	replicas := int32(2)
	for i := range 4 {
		d := &deployment{name: fmt.Sprintf("web-%d", i), replicas: int32(1 + dice.IntN(8))}
		w.deployments = append(w.deployments, d)
		_, err := w.api.AppsV1().Deployments(w.namespace).Create(ctx, &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: d.name},
			Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector(d.name), Template: template(d.name)},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	_, err := w.api.CoreV1().Services(w.namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName},
		Spec:       corev1.ServiceSpec{Selector: selector(w.deployments[0].name).MatchLabels, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = w.api.AppsV1().StatefulSets(w.namespace).Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: setName},
		Spec:       appsv1.StatefulSetSpec{Replicas: &replicas, Selector: selector(setName), Template: template(setName), ServiceName: setName},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = w.api.AppsV1().DaemonSets(w.namespace).Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: agentName},
		Spec:       appsv1.DaemonSetSpec{Selector: selector(agentName), Template: template(agentName)},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	w.parts = int32(partsEach * rounds)
	indexed, atOnce, part := batchv1.IndexedCompletion, int32(1), template(jobName)
	part.Spec.RestartPolicy = corev1.RestartPolicyNever
	_, err = w.api.BatchV1().Jobs(w.namespace).Create(ctx, &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: jobName},
		Spec:       batchv1.JobSpec{CompletionMode: &indexed, Completions: &w.parts, Parallelism: &atOnce, Template: part},
	}, metav1.CreateOptions{})
	return err
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func template(app string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		// Nothing is pulled: the nodes are kwok's.
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "only", Image: "example.invalid/" + app}}},
	}
}

// change gives the Deployments and the StatefulSet other numbers of replicas, up and down, and the DaemonSet other pods.
func (w *work) change(ctx context.Context, dice *rand.Rand) {
	for turn := 0; pause(ctx, time.Duration(500+dice.IntN(1000))*time.Millisecond) == nil; turn++ {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), answersWithin)
		switch which := dice.IntN(len(w.deployments) + 2); which {
		case len(w.deployments):
			w.counts.request("scale", time.Now(), scaleTo(attempt, w.api.AppsV1().StatefulSets(w.namespace), setName, int32(dice.IntN(5))))
		case len(w.deployments) + 1:
			w.counts.request("replace", time.Now(), w.replaceAgents(attempt, turn))
		default:
			w.counts.request("scale", time.Now(), scaleTo(attempt, w.api.AppsV1().Deployments(w.namespace), w.deployments[which].name, int32(dice.IntN(9))))
		}
		cancel()
	}
}

// What has a number of replicas.
type scalable interface {
	GetScale(ctx context.Context, name string, options metav1.GetOptions) (*autoscalingv1.Scale, error)
	UpdateScale(ctx context.Context, name string, scale *autoscalingv1.Scale, options metav1.UpdateOptions) (*autoscalingv1.Scale, error)
}

func scaleTo(ctx context.Context, kind scalable, name string, replicas int32) error {
	scale, err := kind.GetScale(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	_, err = kind.UpdateScale(ctx, name, &autoscalingv1.Scale{
		ObjectMeta: scale.ObjectMeta, Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}, metav1.UpdateOptions{})
	return err
}

// replaceAgents has the DaemonSet replace its pods, node by node.
func (w *work) replaceAgents(ctx context.Context, turn int) error {
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"turn":"%d"}}}}}`, turn)
	_, err := w.api.AppsV1().DaemonSets(w.namespace).Patch(ctx, agentName, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// ---- the end

// converge tells the controllers what all is to end with, and waits until it is so.
func (w *work) converge(ctx context.Context) error {
	for _, d := range w.deployments {
		err := until(ctx, convergesWithin, func(ctx context.Context) error {
			return scaleTo(ctx, w.api.AppsV1().Deployments(w.namespace), d.name, d.replicas)
		})
		if err != nil {
			return fmt.Errorf("%s cannot be scaled: %w", d.name, err)
		}
	}
	err := until(ctx, convergesWithin, func(ctx context.Context) error {
		return scaleTo(ctx, w.api.AppsV1().StatefulSets(w.namespace), setName, setReplicas)
	})
	if err != nil {
		return fmt.Errorf("%s cannot be scaled: %w", setName, err)
	}
	err = until(ctx, convergesWithin, func(ctx context.Context) error {
		job, err := w.api.BatchV1().Jobs(w.namespace).Get(ctx, jobName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		w.partsUnderFaults = job.Status.Succeeded
		// What is left is done together.
		_, err = w.api.BatchV1().Jobs(w.namespace).Patch(ctx, jobName, types.MergePatchType, []byte(`{"spec":{"parallelism":25}}`), metav1.PatchOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("the Job cannot be hastened: %w", err)
	}
	return until(ctx, convergesWithin, w.converged)
}

// converged says what is not yet as it is to end.
func (w *work) converged(ctx context.Context) error {
	nodes, err := w.api.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	everyNode := int32(len(nodes.Items))
	wanted := map[string]int{setName: setReplicas, agentName: int(everyNode)}
	for _, d := range w.deployments {
		found, err := w.api.AppsV1().Deployments(w.namespace).Get(ctx, d.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		status := found.Status
		if found.Spec.Replicas == nil || *found.Spec.Replicas != d.replicas || status.ObservedGeneration < found.Generation ||
			status.Replicas != d.replicas || status.UpdatedReplicas != d.replicas || status.AvailableReplicas != d.replicas {
			return fmt.Errorf("%s has not its %d replicas: %+v", d.name, d.replicas, status)
		}
		wanted[d.name] = int(d.replicas)
	}
	set, err := w.api.AppsV1().StatefulSets(w.namespace).Get(ctx, setName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if status := set.Status; status.ObservedGeneration < set.Generation || status.Replicas != setReplicas || status.ReadyReplicas != setReplicas {
		return fmt.Errorf("the StatefulSet has not its %d replicas: %+v", setReplicas, status)
	}
	agents, err := w.api.AppsV1().DaemonSets(w.namespace).Get(ctx, agentName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if status := agents.Status; everyNode == 0 || status.ObservedGeneration < agents.Generation || status.DesiredNumberScheduled != everyNode ||
		status.UpdatedNumberScheduled != everyNode || status.NumberReady != everyNode || status.NumberMisscheduled != 0 {
		return fmt.Errorf("the DaemonSet has not its pod on each of %d nodes: %+v", everyNode, status)
	}
	job, err := w.api.BatchV1().Jobs(w.namespace).Get(ctx, jobName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	complete := slices.ContainsFunc(job.Status.Conditions, func(condition batchv1.JobCondition) bool {
		return condition.Type == batchv1.JobComplete && condition.Status == corev1.ConditionTrue
	})
	if status := job.Status; !complete || status.Succeeded != w.parts || status.CompletedIndexes != fmt.Sprintf("0-%d", w.parts-1) {
		return fmt.Errorf("the Job is not complete: %+v", status)
	}

	pods, err := w.api.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	endpoints, err := w.api.DiscoveryV1().EndpointSlices(w.namespace).List(ctx,
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + serviceName})
	if err != nil {
		return err
	}
	return errors.Join(w.asWanted(pods.Items, wanted), leadTo(endpoints.Items, pods.Items, w.deployments[0].name))
}

// asWanted says which pods there are too many or too few of, or do not run; of the Job, which parts nobody did.
func (w *work) asWanted(pods []corev1.Pod, wanted map[string]int) error {
	found, done := map[string]int{}, map[string]bool{}
	for i := range pods {
		pod := &pods[i]
		if pod.Labels["app"] == jobName {
			if slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer) {
				return fmt.Errorf("%s is still held by its Job", pod.Name)
			}
			if pod.Status.Phase == corev1.PodSucceeded {
				done[pod.Annotations[batchv1.JobCompletionIndexAnnotation]] = true
			}
			continue
		}
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			return fmt.Errorf("%s is %s, deleted at %v", pod.Name, pod.Status.Phase, pod.DeletionTimestamp)
		}
		found[pod.Labels["app"]]++
	}
	if !maps.Equal(found, wanted) {
		return fmt.Errorf("there are pods %v, and not %v", found, wanted)
	}
	// The pod of a part whose creation was not answered may be there twice.
	if len(done) != int(w.parts) {
		return fmt.Errorf("pods have done %d parts of the Job, and not %d", len(done), w.parts)
	}
	return nil
}

// leadTo says where the endpoints of a Service are not the ready pods of an app.
func leadTo(endpoints []discoveryv1.EndpointSlice, pods []corev1.Pod, app string) error {
	found, wanted := map[string]string{}, map[string]string{}
	for _, slice := range endpoints {
		for _, endpoint := range slice.Endpoints {
			if endpoint.TargetRef == nil || len(endpoint.Addresses) != 1 || endpoint.Conditions.Ready == nil || !*endpoint.Conditions.Ready {
				return fmt.Errorf("an endpoint is not ready: %+v", endpoint)
			}
			found[endpoint.TargetRef.Name] = endpoint.Addresses[0]
		}
	}
	for _, pod := range pods {
		ready := slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
			return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
		})
		if ready && pod.Labels["app"] == app {
			wanted[pod.Name] = pod.Status.PodIP
		}
	}
	if !maps.Equal(found, wanted) {
		return fmt.Errorf("the endpoints are %v, and the ready pods %v", found, wanted)
	}
	return nil
}

// vanish deletes the namespace, and waits until nothing of it is left in the store.
func (w *work) vanish(ctx context.Context, store *members) error {
	left, err := store.leftOf(ctx, w.namespace)
	if err != nil {
		return err
	}
	if len(left) < int(w.parts) {
		return fmt.Errorf("the store holds no more of %s than %v: nothing is proven by its end", w.namespace, left)
	}
	namespaces := w.api.CoreV1().Namespaces()
	err = until(ctx, convergesWithin, func(ctx context.Context) error {
		err := namespaces.Delete(ctx, w.namespace, metav1.DeleteOptions{})
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return nil // another try was carried out
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s cannot be deleted: %w", w.namespace, err)
	}
	err = until(ctx, convergesWithin, func(ctx context.Context) error {
		found, err := namespaces.Get(ctx, w.namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		conditions, _ := json.Marshal(found.Status.Conditions)
		return fmt.Errorf("%s is there: %s", w.namespace, conditions)
	})
	if err != nil {
		return err
	}
	// What was on its way when it ended, an event of a controller, goes by its own time to live at last.
	return until(ctx, followsWithin, func(ctx context.Context) error {
		left, err := store.leftOf(ctx, w.namespace)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%s is deleted, and the store holds of it: %s", w.namespace, strings.Join(left, ", "))
		}
		return err
	})
}
