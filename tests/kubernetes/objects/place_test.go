package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// What is said of an object comes true within this time, or not at all. The machine may be busy.
	patience = 90 * time.Second
	// Everything that a test makes carries this at the beginning of its name, or is in a namespace that does.
	ours = "objects-"
	// What pods run. Nothing is pulled: the nodes are kwok's.
	image = "example.invalid/web:1"
)

// place is a namespace of one test, and what the test has outside of it. All of it goes with the test.
type place struct {
	*testing.T
	// ctx ends with the test, before what it has made is removed.
	ctx context.Context
	// namespace is also what the names of the test's other objects begin with.
	namespace string
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// newPlace makes a namespace, which is ready for pods.
func newPlace(t *testing.T) place {
	t.Helper()
	last := t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]
	p := place{t, t.Context(), ours + strings.Trim(notInNames.ReplaceAllString(strings.ToLower(last), "-"), "-")}
	p.newNamespace(p.namespace)
	return p
}

// newNamespace makes one more.
func (p place) newNamespace(name string) {
	p.Helper()
	_, err := client.CoreV1().Namespaces().Create(p.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	p.must(err)
	p.Cleanup(func() {
		if p.Failed() {
			p.describe(name)
		}
		p.remove("the namespace "+name, func(ctx context.Context) error {
			return client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
		})
	})
	p.eventually("the service account of "+name, func() error {
		_, err := client.CoreV1().ServiceAccounts(name).Get(p.ctx, "default", metav1.GetOptions{})
		return err
	})
}

// describe logs what is there, where a test has failed.
func (p place) describe(namespace string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, kinds := range []string{"all", "events"} {
		command := kubectlCommand(ctx, "--namespace", namespace, "get", kinds, "--output=wide")
		if seen, err := command.CombinedOutput(); err == nil {
			p.Logf("%s of %s:\n%s", kinds, namespace, seen)
		}
	}
}

// remove is for what goes with the test, whose context has ended by then.
func (p place) remove(what string, del func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := del(ctx); err != nil && !apierrors.IsNotFound(err) {
		p.Errorf("%s could not be deleted: %v", what, err)
	}
}

func (p place) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// eventually waits until a check has no objection any more; what it said last is what was seen instead.
func (p place) eventually(what string, check func() error) {
	p.Helper()
	p.within(patience, what, check)
}

func (p place) within(limit time.Duration, what string, check func() error) {
	p.Helper()
	begun := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if p.ctx.Err() != nil || time.Since(begun) > limit {
			p.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(150 * time.Millisecond)
	}
}

// expect is a check of one value.
func expect[V comparable](what string, seen, expected V) error {
	if seen != expected {
		return fmt.Errorf("%s: expected %v, saw %v", what, expected, seen)
	}
	return nil
}

// gone is a check that what was asked for is not there.
func gone(err error) error {
	switch {
	case err == nil:
		return errors.New("it is still there")
	case apierrors.IsNotFound(err):
		return nil
	default:
		return err
	}
}

// refused fails unless a request was refused for this reason, with this in the text.
func (p place) refused(what string, err error, reason metav1.StatusReason, text string) {
	p.Helper()
	if apierrors.ReasonForError(err) != reason || !strings.Contains(fmt.Sprint(err), text) {
		p.Fatalf("%s: expected a refusal as %s with %q, saw %v", what, reason, text, err)
	}
}

// ---- kubectl

func kubectlCommand(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(os.Getenv("KUBERNETES_BIN"), "kubectl"), arguments...)
	// What it has found out about the server is kept at home.
	command.Env = append(os.Environ(), "HOME="+os.Getenv("KUBERNETES_RUN"))
	return command
}

// tryKubectl runs it in the test's namespace and returns what it printed, without the last line's end.
func (p place) tryKubectl(input string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(p.ctx, 2*patience)
	defer cancel()
	command := kubectlCommand(ctx, append([]string{"--namespace", p.namespace}, arguments...)...)
	command.Stdin = strings.NewReader(input)
	var out, complaints bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaints
	err := command.Run()
	printed := strings.TrimRight(out.String(), "\n")
	if err != nil {
		return printed, fmt.Errorf("kubectl %s: %w: %s%s", strings.Join(arguments, " "), err, printed, complaints.String())
	}
	return printed, nil
}

func (p place) kubectl(arguments ...string) string {
	p.Helper()
	printed, err := p.tryKubectl("", arguments...)
	p.must(err)
	return printed
}

// manifest is testdata/NAME.yaml, in which NAMESPACE stands for the test's.
func (p place) manifest(name string) string {
	p.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	p.must(err)
	return strings.ReplaceAll(string(text), "NAMESPACE", p.namespace)
}

// apply sends a manifest by kubectl.
func (p place) apply(name string) {
	p.Helper()
	_, err := p.tryKubectl(p.manifest(name), "apply", "--filename=-")
	p.must(err)
}

// rolledOut waits for a workload as a user would.
func (p place) rolledOut(workload string) {
	p.Helper()
	p.kubectl("rollout", "status", workload, "--timeout="+patience.String())
}

// ---- pods

// newPod is one that any node takes, unless change says otherwise.
func (p place) newPod(name string, change func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.namespace, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: image}}},
	}
	if change != nil {
		change(pod)
	}
	return pod
}

func (p place) createPod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p.Helper()
	pod, err := client.CoreV1().Pods(p.namespace).Create(p.ctx, p.newPod(name, change), metav1.CreateOptions{})
	p.must(err)
	return pod
}

func (p place) pods(selector string) ([]corev1.Pod, error) {
	list, err := client.CoreV1().Pods(p.namespace).List(p.ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// running waits for a pod and returns it.
func (p place) running(name string) *corev1.Pod {
	p.Helper()
	var pod *corev1.Pod
	p.eventually("the pod "+name+" runs", func() (err error) {
		if pod, err = client.CoreV1().Pods(p.namespace).Get(p.ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !isReady(pod) {
			return fmt.Errorf("phase %s, conditions %v", pod.Status.Phase, pod.Status.Conditions)
		}
		return nil
	})
	return pod
}

// unschedulable waits until a pod is told that no node takes it.
func (p place) unschedulable(name string) {
	p.Helper()
	p.eventually("the pod "+name+" is told that no node takes it", func() error {
		pod, err := client.CoreV1().Pods(p.namespace).Get(p.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodScheduled {
				return expect("why it is not scheduled", condition.Reason, corev1.PodReasonUnschedulable)
			}
		}
		return fmt.Errorf("conditions %v", pod.Status.Conditions)
	})
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

// ready waits until exactly so many pods are there, all of them ready, and returns them, sorted by name.
func (p place) ready(selector string, count int) []corev1.Pod {
	p.Helper()
	var pods []corev1.Pod
	p.eventually(fmt.Sprintf("%d pods with %s are ready, and no other is there", count, selector), func() (err error) {
		if pods, err = p.pods(selector); err != nil {
			return err
		}
		var seen []string
		for i := range pods {
			seen = append(seen, fmt.Sprintf("%s (ready: %v)", pods[i].Name, isReady(&pods[i])))
		}
		allReady := !slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return !isReady(&pod) })
		if len(pods) != count || !allReady {
			return fmt.Errorf("saw %v", seen)
		}
		return nil
	})
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods
}

func names(pods []corev1.Pod) []string {
	var names []string
	for _, pod := range pods {
		names = append(names, pod.Name)
	}
	return names
}

// ---- nodes

// newNode makes a node that kwok plays and only pods of this test come to; onNode sends them there.
func (p place) newNode(name, cpu string, labels map[string]string) *corev1.Node {
	p.Helper()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        p.namespace + "-" + name,
			Annotations: map[string]string{"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
			Labels:      map[string]string{"only": p.namespace, corev1.LabelHostname: p.namespace + "-" + name, corev1.LabelOSStable: "linux"},
		},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "only", Value: p.namespace, Effect: corev1.TaintEffectNoSchedule}}},
	}
	for key, value := range labels {
		node.Labels[key] = value
	}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("50"),
	}
	node.Status.Capacity, node.Status.Allocatable = capacity, capacity
	_, err := client.CoreV1().Nodes().Create(p.ctx, node, metav1.CreateOptions{})
	p.must(err)
	p.Cleanup(func() { p.removeNode(node.Name) })
	p.nodeIs(node.Name, corev1.ConditionTrue)
	return node
}

// removeNode takes its pods away first: no kubelet would end them any more.
func (p place) removeNode(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := client.CoreV1().Namespaces().Delete(ctx, p.namespace, metav1.DeleteOptions{})
	for err == nil || apierrors.IsNotFound(err) {
		var pods *corev1.PodList
		pods, err = client.CoreV1().Pods(p.namespace).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
		if err == nil && len(pods.Items) == 0 {
			break
		}
		time.Sleep(150 * time.Millisecond)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		p.Errorf("the pods of the node %s: %v", name, err)
	}
	p.remove("the node "+name, func(ctx context.Context) error {
		return client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
	})
}

// nodeIs waits until the condition Ready of a node has a status.
func (p place) nodeIs(name string, status corev1.ConditionStatus) *corev1.Node {
	p.Helper()
	var node *corev1.Node
	p.eventually(fmt.Sprintf("the node %s has Ready=%s", name, status), func() (err error) {
		if node, err = client.CoreV1().Nodes().Get(p.ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				return expect("Ready", condition.Status, status)
			}
		}
		return errors.New("there is no such condition")
	})
	return node
}

// onNode sends a pod to the nodes of this test, and to no other.
func (p place) onNode(pod *corev1.Pod) {
	pod.Spec.NodeSelector = map[string]string{"only": p.namespace}
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Key: "only", Operator: corev1.TolerationOpExists})
}

// ---- watches

// record follows a kind of objects to the end of the test; what it returns are the events so far, in their order.
func (p place) record(open func(context.Context, metav1.ListOptions) (watch.Interface, error)) func() []watch.Event {
	p.Helper()
	watcher, err := open(p.ctx, metav1.ListOptions{})
	p.must(err)
	var mutex sync.Mutex
	var events []watch.Event
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for event := range watcher.ResultChan() {
			mutex.Lock()
			events = append(events, event)
			mutex.Unlock()
		}
	}()
	p.Cleanup(func() {
		watcher.Stop()
		<-ended
	})
	return func() []watch.Event {
		mutex.Lock()
		defer mutex.Unlock()
		return slices.Clone(events)
	}
}

// ---- the store

// stored is what stands under a key, or nil.
func (p place) stored(key string) *mvccpb.KeyValue {
	p.Helper()
	answer, err := store.Get(p.ctx, key)
	p.must(err)
	if len(answer.Kvs) == 0 {
		return nil
	}
	return answer.Kvs[0]
}

// storedKeys are those below a prefix.
func storedKeys(ctx context.Context, prefix string) ([]string, error) {
	answer, err := store.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range answer.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys, nil
}
