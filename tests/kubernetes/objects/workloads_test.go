package objects

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func testPods(t *testing.T) {
	p := newPlace(t)
	p.createPod("web", nil)
	pod := p.running("web")
	if pod.Spec.NodeName == "" || pod.Status.PodIP == "" {
		t.Fatalf("it runs on the node %q with the address %q", pod.Spec.NodeName, pod.Status.PodIP)
	}
	// What the API calls the version of an object is the store's revision of its key.
	key := "/registry/pods/" + p.namespace + "/web"
	p.eventually("the version of the pod is its revision in the store", func() error {
		pod, err := client.CoreV1().Pods(p.namespace).Get(p.ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		kv := p.stored(key)
		if kv == nil {
			return errors.New("nothing is stored under " + key)
		}
		return expect("the resource version", pod.ResourceVersion, fmt.Sprint(kv.ModRevision))
	})

	_, err := client.CoreV1().Pods(p.namespace).Patch(p.ctx, "web", types.MergePatchType, []byte(`{"spec":{"nodeName":"elsewhere"}}`), metav1.PatchOptions{})
	p.refused("a pod that runs is sent to another node", err, metav1.StatusReasonInvalid, "may not change fields")

	// One that no node takes waits for one that does.
	p.createPod("picky", func(pod *corev1.Pod) {
		p.onNode(pod)
		pod.Spec.NodeSelector["disk"] = "fast"
	})
	p.unschedulable("picky")
	node := p.newNode("fast", "4", map[string]string{"disk": "fast"})
	p.must(expect("the node of the picky pod", p.running("picky").Spec.NodeName, node.Name))

	p.must(client.CoreV1().Pods(p.namespace).Delete(p.ctx, "web", metav1.DeleteOptions{}))
	p.eventually("the pod ends", func() error {
		_, err := client.CoreV1().Pods(p.namespace).Get(p.ctx, "web", metav1.GetOptions{})
		return gone(err)
	})
	if p.stored(key) != nil {
		t.Fatal("the pod is gone, and its key is not")
	}
}

func testReplicaSets(t *testing.T) { testReplicas(newPlace(t), "replicaset") }

func testReplicationControllers(t *testing.T) { testReplicas(newPlace(t), "replicationcontroller") }

// testReplicas is for what keeps a number of equal pods.
func testReplicas(p place, kind string) {
	p.apply(kind)
	before := p.ready("app=web", 3)
	lost := before[0]
	p.must(client.CoreV1().Pods(p.namespace).Delete(p.ctx, lost.Name, metav1.DeleteOptions{}))
	after := p.ready("app=web", 3)
	for _, pod := range after {
		if pod.UID == lost.UID {
			p.Fatalf("%s was deleted and is there", pod.Name)
		}
	}
	for _, kept := range before[1:] {
		if !slices.ContainsFunc(after, func(pod corev1.Pod) bool { return pod.UID == kept.UID }) {
			p.Fatalf("%s was not deleted and is gone", kept.Name)
		}
	}

	p.kubectl("scale", kind+"/web", "--replicas=5")
	p.ready("app=web", 5)
	p.kubectl("scale", kind+"/web", "--replicas=2")
	left := p.ready("app=web", 2)
	p.eventually("the status has them", func() error {
		count, err := p.tryKubectl("", "get", kind, "web", "--output=jsonpath={.status.replicas} {.status.readyReplicas}")
		if err != nil {
			return err
		}
		return expect("replicas, and those that are ready", count, "2 2")
	})

	// Pods without an owner are taken over by one that wants such pods.
	p.kubectl("delete", kind, "web", "--cascade=orphan", "--timeout="+patience.String())
	for _, pod := range p.ready("app=web", 2) {
		if owner := metav1.GetControllerOf(&pod); owner != nil {
			p.Fatalf("%s still has the owner %v", pod.Name, owner)
		}
	}
	p.apply(kind)
	adopted := p.ready("app=web", 3)
	for _, orphan := range left {
		if !slices.ContainsFunc(adopted, func(pod corev1.Pod) bool { return pod.UID == orphan.UID && metav1.GetControllerOf(&pod) != nil }) {
			p.Fatalf("%s was not adopted, but %v are there", orphan.Name, names(adopted))
		}
	}
}

func testDeployments(t *testing.T) {
	p := newPlace(t)
	sets := p.record(client.AppsV1().ReplicaSets(p.namespace).Watch)
	p.apply("deployment")
	p.rolledOut("deployment/web")
	p.images(4, "example.invalid/web:1")
	first := p.currentSet("1")

	// An update goes step by step.
	p.kubectl("set", "image", "deployment/web", "web=example.invalid/web:2")
	p.rolledOut("deployment/web")
	p.images(4, "example.invalid/web:2")
	p.currentSet("2")
	update := p.keptWithin(3, 5, sets, 0)

	// One that is paused changes nothing until it goes on.
	p.kubectl("rollout", "pause", "deployment/web")
	p.kubectl("set", "image", "deployment/web", "web=example.invalid/web:3")
	p.eventually("the controller has seen the change", func() error {
		web, err := p.deployment()
		if err != nil {
			return err
		}
		return expect("the generation it has seen", web.Status.ObservedGeneration, web.Generation)
	})
	p.images(4, "example.invalid/web:2")
	p.must(expect("the sets that there are", len(p.sets()), 2))
	p.kubectl("rollout", "resume", "deployment/web")
	p.rolledOut("deployment/web")
	p.images(4, "example.invalid/web:3")
	p.currentSet("3")

	// Back to the first, which is still there and now counts as the fourth.
	p.history("1", "2", "3")
	p.kubectl("rollout", "undo", "deployment/web", "--to-revision=1")
	p.rolledOut("deployment/web")
	p.images(4, "example.invalid/web:1")
	p.history("2", "3", "4")
	p.must(expect("the set of the first image", p.currentSet("4").UID, first.UID))
	p.keptWithin(3, 5, sets, update)

	// What cannot run does not take the place of what does: kwok's nodes have no such label.
	p.kubectl("patch", "deployment", "web", "--patch", `{"spec":{"progressDeadlineSeconds":3,"template":{"spec":{"nodeSelector":{"no":"such"}}}}}`)
	p.eventually("the deployment says that it does not get on", func() error {
		web, err := p.deployment()
		if err != nil {
			return err
		}
		for _, condition := range web.Status.Conditions {
			if condition.Type == appsv1.DeploymentProgressing && condition.Reason == "ProgressDeadlineExceeded" {
				return expect("available replicas", web.Status.AvailableReplicas, 3)
			}
		}
		return fmt.Errorf("conditions %v", web.Status.Conditions)
	})
	p.kubectl("rollout", "undo", "deployment/web")
	p.images(4, "example.invalid/web:1")
	p.currentSet("6")
}

func (p place) deployment() (*appsv1.Deployment, error) {
	return client.AppsV1().Deployments(p.namespace).Get(p.ctx, "web", metav1.GetOptions{})
}

// images waits until there are just the pods of one image.
func (p place) images(count int, image string) {
	p.Helper()
	for _, pod := range p.ready("app=web", count) {
		p.must(expect("the image of "+pod.Name, pod.Spec.Containers[0].Image, image))
	}
}

func (p place) sets() []appsv1.ReplicaSet {
	p.Helper()
	list, err := client.AppsV1().ReplicaSets(p.namespace).List(p.ctx, metav1.ListOptions{LabelSelector: "app=web"})
	p.must(err)
	return list.Items
}

// currentSet is the only one with replicas, which has to be of a revision.
func (p place) currentSet(revision string) appsv1.ReplicaSet {
	p.Helper()
	var current []appsv1.ReplicaSet
	for _, set := range p.sets() {
		if *set.Spec.Replicas > 0 {
			current = append(current, set)
		}
	}
	if len(current) != 1 {
		p.Fatalf("expected one set with replicas, saw %d", len(current))
	}
	p.must(expect("the revision of the set", current[0].Annotations["deployment.kubernetes.io/revision"], revision))
	return current[0]
}

// history waits for these revisions, as kubectl lists them.
func (p place) history(revisions ...string) {
	p.Helper()
	var seen []string
	for line := range strings.Lines(p.kubectl("rollout", "history", "deployment/web")) {
		if fields := strings.Fields(line); len(fields) > 0 && strings.Trim(fields[0], "0123456789") == "" {
			seen = append(seen, fields[0])
		}
	}
	p.must(expect("revisions", fmt.Sprint(seen), fmt.Sprint(revisions)))
}

// keptWithin checks that at no time more replicas were asked for than an update may have, nor fewer since there were
// enough, and that since so many events there were once as many as there may be: an update makes new ones first. The
// watch has the changes of all sets in the order in which they were made, so that each event is a moment; that it has all
// of them a list shows. It says how many events there were.
func (p place) keptWithin(least, most int32, sets func() []watch.Event, since int) int {
	p.Helper()
	var events []watch.Event
	p.eventually("the watch has the update, and all sets as a list has them", func() error {
		events = sets()
		asked, listed := map[types.UID]int32{}, map[types.UID]int32{}
		enough, peak := false, int32(0)
		for i, event := range events {
			set, is := event.Object.(*appsv1.ReplicaSet)
			if !is {
				p.Fatalf("the watch brought %v", event)
			}
			asked[set.UID] = *set.Spec.Replicas
			if event.Type == watch.Deleted {
				delete(asked, set.UID)
			}
			var sum int32
			for _, replicas := range asked {
				sum += replicas
			}
			enough = enough || sum >= least
			if sum > most || enough && sum < least {
				p.Fatalf("at revision %s %d replicas were asked for, of %d to %d", set.ResourceVersion, sum, least, most)
			}
			if i >= since {
				peak = max(peak, sum)
			}
		}
		for _, set := range p.sets() {
			listed[set.UID] = *set.Spec.Replicas
		}
		if !maps.Equal(asked, listed) {
			return fmt.Errorf("by %d events of the watch there are %v, by a list %v", len(events), asked, listed)
		}
		return expect("the most replicas that were asked for at once", peak, most)
	})
	return len(events)
}

func testStatefulSets(t *testing.T) {
	p := newPlace(t)
	for _, name := range []string{"a", "b", "c"} {
		p.newVolume(name, p.namespace, "1Gi", nil)
	}
	pods := p.record(client.CoreV1().Pods(p.namespace).Watch)
	p.apply("statefulset")
	p.rolledOut("statefulset/db")
	p.must(expect("pods", fmt.Sprint(names(p.ready("app=db", 3))), "[db-0 db-1 db-2]"))
	// Each began when the one before it was ready.
	p.eventually("the watch has the beginning of all of them", func() error {
		began, ready := []string{}, map[string]bool{}
		for _, event := range pods() {
			pod := event.Object.(*corev1.Pod)
			if event.Type == watch.Added {
				if count := len(began); count > 0 && !ready[began[count-1]] {
					t.Fatalf("%s began before %s was ready", pod.Name, began[count-1])
				}
				began = append(began, pod.Name)
			}
			ready[pod.Name] = isReady(pod)
		}
		return expect("the order", fmt.Sprint(began), "[db-0 db-1 db-2]")
	})

	// Each has a claim of its own, and keeps it when it is replaced.
	volumes := map[string]bool{}
	for _, name := range []string{"data-db-0", "data-db-1", "data-db-2"} {
		volumes[p.boundTo(name)] = true
	}
	p.must(expect("different volumes", len(volumes), 3))
	volume := p.boundTo("data-db-1")
	lost := p.running("db-1")
	p.must(client.CoreV1().Pods(p.namespace).Delete(p.ctx, "db-1", metav1.DeleteOptions{}))
	for _, pod := range p.ready("app=db", 3) {
		if pod.UID == lost.UID {
			t.Fatal("db-1 was deleted and is there")
		}
	}
	p.must(expect("the claim of db-1", p.running("db-1").Spec.Volumes[0].PersistentVolumeClaim.ClaimName, "data-db-1"))
	p.must(expect("the volume of db-1", p.boundTo("data-db-1"), volume))

	// An update goes from the last to the first.
	before := p.ready("app=db", 3)
	p.kubectl("set", "image", "statefulset/db", "db=example.invalid/db:2")
	p.rolledOut("statefulset/db")
	for _, pod := range p.ready("app=db", 3) {
		p.must(expect("the image of "+pod.Name, pod.Spec.Containers[0].Image, "example.invalid/db:2"))
	}
	p.endedInOrder(pods, before, "[db-2 db-1 db-0]")

	// And so does shrinking, which leaves the claims.
	before = p.ready("app=db", 3)
	p.kubectl("scale", "statefulset/db", "--replicas=1")
	p.must(expect("pods", fmt.Sprint(names(p.ready("app=db", 1))), "[db-0]"))
	p.endedInOrder(pods, before, "[db-2 db-1]")
	p.boundTo("data-db-2")
}

// endedInOrder waits until the watch has the end of these of some pods, and no other end.
func (p place) endedInOrder(events func() []watch.Event, pods []corev1.Pod, order string) {
	p.Helper()
	p.eventually("the watch has the end of "+order, func() error {
		var ended []string
		for _, event := range events() {
			pod, is := event.Object.(*corev1.Pod)
			was := is && slices.ContainsFunc(pods, func(other corev1.Pod) bool { return other.UID == pod.UID })
			if was && event.Type == watch.Deleted {
				ended = append(ended, pod.Name)
			}
		}
		return expect("the order in which they ended", fmt.Sprint(ended), order)
	})
}

func testDaemonSets(t *testing.T) {
	p := newPlace(t)
	wanted := map[string]string{"agent": "wanted"}
	first, second := p.newNode("first", "4", wanted), p.newNode("second", "4", wanted)
	p.newNode("without", "4", nil)
	p.apply("daemonset")
	p.rolledOut("daemonset/agent")
	on := func(count int) string {
		var nodes []string
		for _, pod := range p.ready("app=agent", count) {
			nodes = append(nodes, pod.Spec.NodeName)
		}
		slices.Sort(nodes)
		return fmt.Sprint(nodes)
	}
	p.must(expect("nodes with an agent", on(2), fmt.Sprint([]string{first.Name, second.Name})))

	third := p.newNode("third", "4", wanted)
	p.must(expect("nodes with an agent", on(3), fmt.Sprint([]string{first.Name, second.Name, third.Name})))
	p.kubectl("label", "node", first.Name, "agent-")
	p.must(expect("nodes with an agent", on(2), fmt.Sprint([]string{second.Name, third.Name})))
	p.eventually("the status has them", func() error {
		set, err := client.AppsV1().DaemonSets(p.namespace).Get(p.ctx, "agent", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return expect("wanted and ready", [2]int32{set.Status.DesiredNumberScheduled, set.Status.NumberReady}, [2]int32{2, 2})
	})
}

func testJobs(t *testing.T) {
	p := newPlace(t)
	p.apply("jobs")
	p.kubectl("wait", "--for=condition=complete", "job/parts", "--timeout="+patience.String())
	parts, err := client.BatchV1().Jobs(p.namespace).Get(p.ctx, "parts", metav1.GetOptions{})
	p.must(err)
	p.must(expect("parts that succeeded", parts.Status.Succeeded, 4))
	p.must(expect("indexes that are complete", parts.Status.CompletedIndexes, "0-3"))
	pods, err := p.pods("app=parts")
	p.must(err)
	p.must(expect("pods", len(pods), 4))
	for _, pod := range pods {
		p.must(expect("the phase of "+pod.Name, pod.Status.Phase, corev1.PodSucceeded))
		// The Job counts a pod once, and then lets go of it.
		if slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer) {
			t.Errorf("%s is still held", pod.Name)
		}
	}

	p.eventually("the short-lived Job and its pod are taken away", func() error {
		_, err := client.BatchV1().Jobs(p.namespace).Get(p.ctx, "short-lived", metav1.GetOptions{})
		if err := gone(err); err != nil {
			return err
		}
		pods, err := p.pods("app=short-lived")
		if err != nil {
			return err
		}
		return expect("pods of it", len(pods), 0)
	})

	held, err := p.pods("app=held-back")
	p.must(err)
	p.must(expect("pods of a suspended Job", len(held), 0))
	p.kubectl("patch", "job", "held-back", "--patch", `{"spec":{"suspend":false}}`)
	p.kubectl("wait", "--for=condition=complete", "job/held-back", "--timeout="+patience.String())
}

func testCronJobs(t *testing.T) {
	p := newPlace(t)
	p.apply("cronjob")
	p.kubectl("create", "job", "by-hand", "--from=cronjob/tick")
	p.kubectl("wait", "--for=condition=complete", "job/by-hand", "--timeout="+patience.String())
	// At the next full minute.
	p.within(patience+patience, "a Job of the schedule has succeeded", func() error {
		tick, err := client.BatchV1().CronJobs(p.namespace).Get(p.ctx, "tick", metav1.GetOptions{})
		if err != nil {
			return err
		}
		jobs, err := client.BatchV1().Jobs(p.namespace).List(p.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		scheduled := slices.ContainsFunc(jobs.Items, func(job batchv1.Job) bool {
			return job.Status.Succeeded == 1 && job.Annotations[batchv1.CronJobScheduledTimestampAnnotation] != ""
		})
		if !scheduled || tick.Status.LastSuccessfulTime == nil || tick.Status.LastScheduleTime == nil {
			return fmt.Errorf("%d Jobs, last scheduled at %v, last success at %v", len(jobs.Items), tick.Status.LastScheduleTime, tick.Status.LastSuccessfulTime)
		}
		return expect("the second at which it was scheduled", tick.Status.LastScheduleTime.Second(), 0)
	})
}

func testDisruptionBudgets(t *testing.T) {
	p := newPlace(t)
	p.apply("replicaset")
	p.apply("disruptionbudget")
	pod := p.ready("app=web", 3)[0]
	allowed := func(count int32) {
		p.Helper()
		p.eventually(fmt.Sprintf("the budget allows %d disruptions", count), func() error {
			budget, err := client.PolicyV1().PodDisruptionBudgets(p.namespace).Get(p.ctx, "web", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if err := expect("healthy pods", budget.Status.CurrentHealthy, 3+count); err != nil {
				return err
			}
			return expect("disruptions", budget.Status.DisruptionsAllowed, count)
		})
	}
	evict := func() error {
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: p.namespace}}
		return client.PolicyV1().Evictions(p.namespace).Evict(p.ctx, eviction)
	}
	allowed(0)
	p.refused("an eviction that the budget does not allow", evict(), metav1.StatusReasonTooManyRequests, "disruption budget")
	p.kubectl("scale", "replicaset/web", "--replicas=4")
	p.ready("app=web", 4)
	allowed(1)
	p.must(evict())
	for _, other := range p.ready("app=web", 4) {
		if other.UID == pod.UID {
			t.Fatalf("%s was evicted and is there", pod.Name)
		}
	}
}
