package objects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// The API server finds its store well, and of a version that it trusts.
func testHealth(t *testing.T) {
	p := newPlace(t)
	checks := p.kubectl("get", "--raw", "/readyz?verbose")
	for _, check := range []string{"[+]etcd ok", "[+]etcd-readiness ok"} {
		if !strings.Contains(checks, check) {
			t.Fatalf("expected %q, saw\n%s", check, checks)
		}
	}

	var version struct {
		ServerVersion struct{ Major, Minor string }
	}
	p.must(json.Unmarshal([]byte(p.kubectl("version", "--output=json")), &version))
	p.must(expect("the API server's version", version.ServerVersion.Major+"."+version.ServerVersion.Minor, "1.36"))

	// It asks each member for its size.
	p.eventually("the API server knows the store's size", func() error {
		metrics, err := p.tryKubectl("", "get", "--raw", "/metrics")
		if err != nil {
			return err
		}
		if sizes := regexp.MustCompile(`(?m)^apiserver_storage_size_bytes\{.*\} [1-9].*$`).FindAllString(metrics, -1); len(sizes) == 0 {
			return errors.New("no series of apiserver_storage_size_bytes is above 0")
		}
		return nil
	})

	nodes, err := client.CoreV1().Nodes().List(p.ctx, metav1.ListOptions{LabelSelector: "type=kwok"})
	p.must(err)
	if len(nodes.Items) == 0 {
		t.Fatal("there are no nodes")
	}
	for _, node := range nodes.Items {
		p.nodeIs(node.Name, corev1.ConditionTrue)
	}
}

func testNamespaces(t *testing.T) {
	p := newPlace(t)
	other := p.namespace + "-other"
	p.newNamespace(other)
	for _, namespace := range []string{p.namespace, other} {
		settings := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"of": namespace}}
		_, err := client.CoreV1().ConfigMaps(namespace).Create(p.ctx, settings, metav1.CreateOptions{})
		p.must(err)
	}
	for _, namespace := range []string{p.namespace, other} {
		settings, err := client.CoreV1().ConfigMaps(namespace).Get(p.ctx, "settings", metav1.GetOptions{})
		p.must(err)
		p.must(expect("what the namespace holds", settings.Data["of"], namespace))
		if p.stored("/registry/configmaps/"+namespace+"/settings") == nil {
			t.Fatalf("nothing is stored for %s", namespace)
		}
	}
	_, err := client.CoreV1().ConfigMaps("default").Get(p.ctx, "settings", metav1.GetOptions{})
	p.must(gone(err))
	// One begins with the name of the other, and yet is not listed with it.
	list, err := client.CoreV1().ConfigMaps(p.namespace).List(p.ctx, metav1.ListOptions{FieldSelector: "metadata.name=settings"})
	p.must(err)
	if len(list.Items) != 1 || list.Items[0].Namespace != p.namespace {
		t.Fatalf("expected the one of %s, saw %v", p.namespace, list.Items)
	}

	p.kubectl("delete", "namespace", other, "--timeout="+patience.String())
	_, err = client.CoreV1().Namespaces().Get(p.ctx, other, metav1.GetOptions{})
	p.must(gone(err))
	keys, err := storedKeys(p.ctx, "/registry/")
	p.must(err)
	for _, key := range keys {
		if strings.Contains(key, "/"+other+"/") {
			t.Errorf("the namespace is gone, and %s is not", key)
		}
	}
	_, err = client.CoreV1().ConfigMaps(p.namespace).Get(p.ctx, "settings", metav1.GetOptions{})
	p.must(err)

	// One that cannot end yet takes nothing new.
	held := p.namespace + "-held"
	p.newNamespace(held)
	holds := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "holds", Finalizers: []string{"example.com/hold"}}}
	_, err = client.CoreV1().ConfigMaps(held).Create(p.ctx, holds, metav1.CreateOptions{})
	p.must(err)
	p.must(client.CoreV1().Namespaces().Delete(p.ctx, held, metav1.DeleteOptions{}))
	p.eventually("the namespace says what it waits for", func() error {
		namespace, err := client.CoreV1().Namespaces().Get(p.ctx, held, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range namespace.Status.Conditions {
			if condition.Type == corev1.NamespaceFinalizersRemaining && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("phase %s, conditions %v", namespace.Status.Phase, namespace.Status.Conditions)
	})
	_, err = client.CoreV1().ConfigMaps(held).Create(p.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{})
	p.refused("a ConfigMap in a namespace that ends", err, metav1.StatusReasonForbidden, "being terminated")
	_, err = client.CoreV1().ConfigMaps(held).Patch(p.ctx, "holds", types.MergePatchType,
		[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	p.must(err)
	p.eventually("the namespace ends", func() error {
		_, err := client.CoreV1().Namespaces().Get(p.ctx, held, metav1.GetOptions{})
		return gone(err)
	})
}

// Two controller-managers stand for election by a Lease; the one that leads is killed, and the other does its work.
func testLeaderIsKilled(t *testing.T) {
	p := newPlace(t)
	components := []string{"controller-manager-0", "controller-manager-1"}
	leader := func() (string, error) {
		var leaders []string
		for _, component := range components {
			if leads, err := p.leads(component); err == nil && leads {
				leaders = append(leaders, component)
			}
		}
		if len(leaders) != 1 {
			return "", fmt.Errorf("expected one leader, saw %v", leaders)
		}
		return leaders[0], nil
	}
	var killed string
	p.eventually("one of them leads", func() (err error) {
		killed, err = leader()
		return err
	})
	before, err := client.CoordinationV1().Leases("kube-system").Get(p.ctx, "kube-controller-manager", metav1.GetOptions{})
	p.must(err)

	p.process("stop", killed, "KILL")
	p.eventually("the other leads", func() error {
		successor, err := leader()
		if err == nil && successor == killed {
			err = errors.New("the one that was killed still leads")
		}
		return err
	})
	after, err := client.CoordinationV1().Leases("kube-system").Get(p.ctx, "kube-controller-manager", metav1.GetOptions{})
	p.must(err)
	if *after.Spec.HolderIdentity == *before.Spec.HolderIdentity {
		t.Fatalf("the Lease still names %s", *before.Spec.HolderIdentity)
	}
	p.must(expect("transitions of the Lease", *after.Spec.LeaseTransitions, *before.Spec.LeaseTransitions+1))

	p.apply("deployment")
	p.rolledOut("deployment/web")
	p.ready("app=web", 4)

	p.process("again", killed)
	p.eventually("the one that was killed stands by", func() error {
		leads, err := p.leads(killed)
		if err == nil && leads {
			err = errors.New("it leads")
		}
		return err
	})
}

// process ends, starts or signals a process of the run.
func (p place) process(arguments ...string) {
	p.Helper()
	command := exec.CommandContext(p.ctx, os.Getenv("PROCESS"), arguments...)
	if out, err := command.CombinedOutput(); err != nil {
		p.Fatalf("%v: %v: %s", arguments, err, out)
	}
}

var isPort = regexp.MustCompile(`--secure-port=(\d+)`)

// leads asks a controller-manager itself whether it leads.
func (p place) leads(component string) (bool, error) {
	command, err := os.ReadFile(os.Getenv("KUBERNETES_RUN") + "/" + component + ".command")
	if err != nil {
		return false, err
	}
	port := isPort.FindSubmatch(command)
	if port == nil {
		return false, fmt.Errorf("%s has no port: %s", component, command)
	}
	own := rest.CopyConfig(config)
	own.Host = "https://127.0.0.1:" + string(port[1])
	asks, err := kubernetes.NewForConfig(own)
	if err != nil {
		return false, err
	}
	metrics, err := asks.RESTClient().Get().AbsPath("/metrics").DoRaw(p.ctx)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(metrics)) {
		if value, found := strings.CutPrefix(line, `leader_election_master_status{name="kube-controller-manager"} `); found {
			return strings.TrimSpace(value) == "1", nil
		}
	}
	return false, fmt.Errorf("%s does not say whether it leads", component)
}

// The tests' namespaces end, and with them what was stored for them: an object that stays would stay for good.
func testNothingIsLeftBehind(t *testing.T) {
	p := place{t, t.Context(), ""}
	p.within(2*patience, "nothing of the tests is there", func() error {
		namespaces, err := client.CoreV1().Namespaces().List(p.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		var left []string
		for _, namespace := range namespaces.Items {
			if strings.HasPrefix(namespace.Name, ours) {
				left = append(left, fmt.Sprintf("namespace %s: %v", namespace.Name, namespace.Status.Conditions))
			}
		}
		if len(left) > 0 {
			return errors.New(strings.Join(left, "\n"))
		}
		return nothingStored(p.ctx)
	})
}

func nothingStored(ctx context.Context) error {
	keys, err := storedKeys(ctx, "/registry/")
	if err != nil {
		return err
	}
	var left []string
	for _, key := range keys {
		// Events of what has no namespace are in the namespace default, until their time is up.
		if strings.Contains(key, "/"+ours) && !strings.HasPrefix(key, "/registry/events/") {
			left = append(left, key)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("stored: %s", strings.Join(left, " "))
	}
	return nil
}
