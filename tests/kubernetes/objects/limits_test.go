package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
)

func cpu(amount string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(amount)}
	}
}

func testQuotas(t *testing.T) {
	p := newPlace(t)
	p.newQuota()
	p.createPod("first", cpu("400m"))
	p.createPod("second", cpu("400m"))
	pods := client.CoreV1().Pods(p.namespace)
	_, err := pods.Create(p.ctx, p.newPod("third", cpu("100m")), metav1.CreateOptions{})
	p.refused("one pod too many", err, metav1.StatusReasonForbidden, "exceeded quota: little")
	p.used("2", "800m")

	// What is given back can be used again, and no more than that.
	p.must(pods.Delete(p.ctx, "second", metav1.DeleteOptions{}))
	p.used("1", "400m")
	_, err = pods.Create(p.ctx, p.newPod("greedy", cpu("700m")), metav1.CreateOptions{})
	p.refused("too much of the processors", err, metav1.StatusReasonForbidden, "requests.cpu")
	_, err = pods.Create(p.ctx, p.newPod("vague", nil), metav1.CreateOptions{})
	p.refused("a pod that does not say what it needs", err, metav1.StatusReasonForbidden, "must specify requests.cpu")
	p.eventually("what was given back is there", func() error {
		_, err := pods.Create(p.ctx, p.newPod("third", cpu("600m")), metav1.CreateOptions{})
		return err
	})
	p.used("2", "1")

	// A controller is told the same, and says so.
	p.kubectl("delete", "pod", "first", "third", "--timeout="+patience.String())
	p.apply("deployment")
	p.kubectl("set", "resources", "deployment/web", "--requests=cpu=100m")
	p.eventually("the deployment has what the quota allows, and says why it has no more", func() error {
		web, err := client.AppsV1().Deployments(p.namespace).Get(p.ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		// The Deployment tells of one of its ReplicaSets; the one from before the requests is refused for another reason.
		sets, err := client.AppsV1().ReplicaSets(p.namespace).List(p.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		refused := slices.ContainsFunc(sets.Items, func(set appsv1.ReplicaSet) bool {
			return slices.ContainsFunc(set.Status.Conditions, func(condition appsv1.ReplicaSetCondition) bool {
				return condition.Type == appsv1.ReplicaSetReplicaFailure && condition.Status == corev1.ConditionTrue &&
					strings.Contains(condition.Message, "exceeded quota")
			})
		})
		if !refused {
			return fmt.Errorf("no ReplicaSet says so, the Deployment %v", web.Status.Conditions)
		}
		return expect("available replicas", web.Status.AvailableReplicas, 2)
	})

	// Other kinds are counted, too; one ConfigMap is there of itself.
	p.eventually("the ConfigMap that is there of itself counts", func() error {
		quota, err := client.CoreV1().ResourceQuotas(p.namespace).Get(p.ctx, "little", metav1.GetOptions{})
		if err != nil {
			return err
		}
		used := quota.Status.Used["count/configmaps"]
		return expect("ConfigMaps", used.String(), "1")
	})
	for _, name := range []string{"second", "third"} {
		_, err = client.CoreV1().ConfigMaps(p.namespace).Create(p.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		p.must(err)
	}
	_, err = client.CoreV1().ConfigMaps(p.namespace).Create(p.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "fourth"}}, metav1.CreateOptions{})
	p.refused("one ConfigMap too many", err, metav1.StatusReasonForbidden, "exceeded quota: little")
}

// Who comes first gets it where many come at once: what is used is one object of the store.
func testQuotasUnderConcurrency(t *testing.T) {
	p := newPlace(t)
	p.newQuota()
	const wanted, allowed = 12, 2
	errs := make([]error, wanted)
	var group sync.WaitGroup
	for i := range wanted {
		group.Go(func() {
			_, errs[i] = client.CoreV1().Pods(p.namespace).Create(p.ctx, p.newPod(fmt.Sprintf("pod-%d", i), cpu("100m")), metav1.CreateOptions{})
		})
	}
	group.Wait()
	admitted := 0
	for _, err := range errs {
		if err == nil {
			admitted++
		} else {
			p.refused("one pod too many", err, metav1.StatusReasonForbidden, "exceeded quota: little")
		}
	}
	p.must(expect("pods that were admitted", admitted, allowed))
	pods, err := p.pods("")
	p.must(err)
	p.must(expect("pods that are there", len(pods), allowed))
	p.used("2", "200m")
}

// newQuota waits until it counts.
func (p place) newQuota() {
	p.Helper()
	p.apply("quota")
	p.used("0", "0")
	p.eventually("the quota counts where pods are admitted", func() error {
		_, err := client.CoreV1().Pods(p.namespace).Create(p.ctx, p.newPod("trial", cpu("100m")), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
}

// used waits until the quota's status says so.
func (p place) used(pods, cpu string) {
	p.Helper()
	p.eventually(fmt.Sprintf("the quota says that %s pods and %s of processors are used", pods, cpu), func() error {
		quota, err := client.CoreV1().ResourceQuotas(p.namespace).Get(p.ctx, "little", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(quota.Status.Hard) == 0 {
			return errors.New("it counts nothing yet")
		}
		usedPods, usedCPU := quota.Status.Used[corev1.ResourcePods], quota.Status.Used[corev1.ResourceRequestsCPU]
		return expect("pods and processors", usedPods.String()+" "+usedCPU.String(), pods+" "+cpu)
	})
}

func testLimitRanges(t *testing.T) {
	p := newPlace(t)
	p.apply("limitrange")
	p.eventually("a pod that says nothing gets the default", func() error {
		pod, err := client.CoreV1().Pods(p.namespace).Create(p.ctx, p.newPod("web", nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		resources := pod.Spec.Containers[0].Resources
		return expect("request and limit", resources.Requests.Cpu().String()+" "+resources.Limits.Cpu().String(), "100m 200m")
	})
	_, err := client.CoreV1().Pods(p.namespace).Create(p.ctx, p.newPod("small", cpu("10m")), metav1.CreateOptions{})
	p.refused("less than the least", err, metav1.StatusReasonForbidden, "minimum cpu usage per Container is 50m")
	_, err = client.CoreV1().Pods(p.namespace).Create(p.ctx, p.newPod("large", func(pod *corev1.Pod) {
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
	}), metav1.CreateOptions{})
	p.refused("more than the most", err, metav1.StatusReasonForbidden, "maximum cpu usage per Container is 1")
	if p.stored("/registry/pods/"+p.namespace+"/small") != nil {
		t.Fatal("what was refused is stored")
	}
}

// A pod takes the place of one that matters less, where there is no other.
func testPriorities(t *testing.T) {
	p := newPlace(t)
	low, high := p.newPriority("low", 100), p.newPriority("high", 1000)
	p.newNode("small", "2", nil)
	of := func(class string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			cpu("1")(pod)
			p.onNode(pod)
			pod.Spec.PriorityClassName = class
		}
	}
	_, err := client.CoreV1().Pods(p.namespace).Create(p.ctx, p.newPod("nobody", of("no-such-class")), metav1.CreateOptions{})
	p.refused("a class that does not exist", err, metav1.StatusReasonForbidden, "no PriorityClass with name")

	for _, name := range []string{"low-0", "low-1"} {
		p.createPod(name, of(low))
		p.must(expect("the priority of "+name, *p.running(name).Spec.Priority, 100))
	}
	p.createPod("urgent", of(high))
	p.must(expect("the priority of the urgent pod", *p.running("urgent").Spec.Priority, 1000))
	left, err := p.pods("")
	p.must(err)
	var seen []string
	for _, pod := range left {
		if pod.DeletionTimestamp == nil {
			seen = append(seen, pod.Spec.PriorityClassName)
		}
	}
	slices.Sort(seen)
	p.must(expect("the classes of what runs", fmt.Sprint(seen), fmt.Sprint([]string{high, low})))

	// One that matters no more than the others waits.
	p.createPod("patient", of(low))
	p.unschedulable("patient")
	p.must(client.CoreV1().Pods(p.namespace).Delete(p.ctx, "urgent", metav1.DeleteOptions{}))
	p.running("patient")
}

func (p place) newPriority(name string, value int32) string {
	p.Helper()
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: p.namespace + "-" + name}, Value: value}
	_, err := client.SchedulingV1().PriorityClasses().Create(p.ctx, class, metav1.CreateOptions{})
	p.must(err)
	p.Cleanup(func() {
		p.remove("the class "+class.Name, func(ctx context.Context) error {
			return client.SchedulingV1().PriorityClasses().Delete(ctx, class.Name, metav1.DeleteOptions{})
		})
	})
	return class.Name
}

// What CEL says of an object, and of the parameters of the day, lets it pass or not.
func testAdmissionPolicies(t *testing.T) {
	p := newPlace(t)
	for kind, remove := range map[string]dynamic.ResourceInterface{
		"policy":  objects.Resource(resourceOf("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies")),
		"binding": objects.Resource(resourceOf("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings")),
	} {
		p.Cleanup(func() {
			p.remove("the "+kind, func(ctx context.Context) error { return remove.Delete(ctx, p.namespace, metav1.DeleteOptions{}) })
		})
	}
	p.apply("admission")
	try := func(replicas int32, image string) error {
		web := p.newDeployment("tried", replicas, image)
		_, err := client.AppsV1().Deployments(p.namespace).Create(p.ctx, web, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	denied := func(what, text string, try func() error) {
		t.Helper()
		p.eventually(what+" is denied", func() error {
			err := try()
			if err == nil {
				return errors.New("it was admitted")
			}
			if !strings.Contains(err.Error(), text) {
				return fmt.Errorf("expected %q, saw %w", text, err)
			}
			return nil
		})
	}
	admitted := func(what string, try func() error) {
		t.Helper()
		p.eventually(what+" is admitted", try)
	}
	denied("a fourth replica", "denied request: at most 3 replicas", func() error { return try(4, image) })
	denied("an image from somewhere else", "denied request: an image from somewhere else", func() error { return try(1, "example.org/web:1") })
	p.refused("an image from somewhere else", try(1, "example.org/web:1"), metav1.StatusReasonForbidden, p.namespace)
	admitted("a third replica", func() error { return try(3, image) })

	// A change is judged like what is new.
	_, err := client.AppsV1().Deployments(p.namespace).Create(p.ctx, p.newDeployment("web", 3, image), metav1.CreateOptions{})
	p.must(err)
	_, err = p.tryKubectl("", "patch", "deployment", "web", `--patch={"spec":{"replicas":5}}`)
	if err == nil || !strings.Contains(err.Error(), "at most 3 replicas") {
		t.Fatalf("five replicas: expected a refusal, saw %v", err)
	}
	// The parameters count as they are now, and what is bound no more does not count.
	p.kubectl("patch", "configmap", "limits", `--patch={"data":{"most":"5"}}`)
	admitted("a fifth replica", func() error { return try(5, image) })
	denied("a sixth replica", "denied request: at most 5 replicas", func() error { return try(6, image) })
	p.kubectl("delete", "configmap", "limits")
	denied("anything without the parameters", "", func() error { return try(1, image) })
	p.kubectl("delete", "validatingadmissionpolicybinding", p.namespace)
	admitted("a sixth replica", func() error { return try(6, image) })
}

func (p place) newDeployment(name string, replicas int32, image string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.namespace},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: image}}},
			},
		},
	}
}
