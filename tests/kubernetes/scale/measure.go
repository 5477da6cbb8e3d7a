package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	"mainstay/tests/kubernetes/access"
)

const (
	// Pods of each Deployment.
	podsEach = 100
	// Namespaces of the configuration.
	namespaces = 50
	// Of the pages in which a list comes, as kubectl's.
	page = 500
	// How long a request that failed is tried again, and after what time each.
	triedWithin = time.Minute
	triedAgain  = 200 * time.Millisecond
)

// What was measured on one system. Names are those of the JSON lines.
type result struct {
	System  string `json:"system"`
	Nodes   int    `json:"nodes"`
	Pods    int    `json:"pods"`
	Configs int    `json:"configs"`

	Phases []phase `json:"phases"`

	// Latency of the creation of a configuration object, as its client saw it, with what had to be tried again.
	CreateP50 float64 `json:"create_p50_ms"`
	CreateP99 float64 `json:"create_p99_ms"`
	// Of the API server's requests, and of its requests to the store, by its own histograms of the whole run.
	APIP99   map[string]float64 `json:"api_p99_ms"`
	StoreP99 map[string]float64 `json:"store_p99_ms"`
	// Of this program, each of which was tried again.
	FailedRequests int64 `json:"failed_requests"`

	// Of all members together.
	CPUSeconds   float64 `json:"store_cpu_s"`
	PeakMiB      float64 `json:"store_peak_mib"`
	ResidentMiB  float64 `json:"store_resident_mib"`
	DatabaseMiB  float64 `json:"store_database_mib"` // of one
	Revisions    int64   `json:"revisions"`
	SteadyWrites float64 `json:"steady_writes_per_s"`
	// By whomever to the disk of the run's folder; 0 where the kernel does not count for it.
	DiskWrittenMiB float64 `json:"disk_written_mib,omitempty"`
}

// A step of the run: how long it took, and what the members spent on it. Of a part of a step, that is not known.
type phase struct {
	Name       string  `json:"name"`
	Seconds    float64 `json:"s"`
	CPUSeconds float64 `json:"store_cpu_s,omitempty"`
}

// A run that goes on.
type measurement struct {
	api    *kubernetes.Clientset
	folder string
	size   size
	result result
	// Requests that failed.
	failed atomic.Int64
}

func measure(ctx context.Context, system, node string, size size) (result, error) {
	config, err := access.API("KUBECONFIG")
	if err != nil {
		return result{}, err
	}
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return result{}, err
	}
	store, err := access.Store()
	if err != nil {
		return result{}, err
	}
	defer store.Close()
	m := &measurement{api: api, folder: os.Getenv("KUBERNETES_RUN"), size: size, result: result{
		System: system, Nodes: size.nodes, Pods: size.pods, Configs: size.configs,
	}}
	began, err := usageOf(m.folder)
	if err != nil {
		return result{}, err
	}
	disk, counted := diskOf(m.folder)
	var writtenBefore int64
	if counted {
		if writtenBefore, err = disk.writtenBytes(); err != nil {
			return result{}, err
		}
	}
	before, err := m.metrics(ctx)
	if err != nil {
		return result{}, err
	}

	revision := func() (int64, error) {
		var now *clientv3.GetResponse
		err := m.tried(ctx, func() (err error) {
			now, err = store.Get(ctx, "scale")
			return err
		})
		if err != nil {
			return 0, err
		}
		return now.Header.Revision, nil
	}
	var quiet int64
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"nodes ready, each with its lease", func(ctx context.Context) error { return m.nodes(ctx, node) }},
		{"configuration created", m.configs},
		{"pods, in all", m.pods},
		{"all pods listed, in pages", m.listPods},
		{"all ConfigMaps listed, in pages", m.listConfigMaps},
		{"leases alone", func(ctx context.Context) error {
			if quiet, err = revision(); err != nil {
				return err
			}
			return pause(ctx, size.steady)
		}},
	} {
		if err := m.phase(ctx, step.name, step.run); err != nil {
			return result{}, fmt.Errorf("%s: %w", step.name, err)
		}
	}

	last, err := revision()
	if err != nil {
		return result{}, err
	}
	m.result.Revisions = last
	m.result.SteadyWrites = float64(last-quiet) / size.steady.Seconds()
	after, err := m.metrics(ctx)
	if err != nil {
		return result{}, err
	}
	m.result.APIP99, m.result.StoreP99 = p99s(before.api, after.api), p99s(before.store, after.store)
	ended, err := usageOf(m.folder)
	if err != nil {
		return result{}, err
	}
	m.result.CPUSeconds = ended.cpuSeconds - began.cpuSeconds
	m.result.PeakMiB, m.result.ResidentMiB = mib(ended.peakBytes), mib(ended.residentBytes)
	if counted {
		written, err := disk.writtenBytes()
		if err != nil {
			return result{}, err
		}
		m.result.DiskWrittenMiB = mib(written - writtenBefore)
	}
	var status *clientv3.StatusResponse
	err = m.tried(ctx, func() (err error) {
		status, err = store.Status(ctx, access.Endpoints()[0])
		return err
	})
	if err != nil {
		return result{}, err
	}
	m.result.DatabaseMiB = mib(status.DbSize)
	m.result.FailedRequests = m.failed.Load()
	return m.result, nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// phase runs a step and writes down what it cost.
func (m *measurement) phase(ctx context.Context, name string, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, m.size.patience)
	defer cancel()
	before, err := usageOf(m.folder)
	if err != nil {
		return err
	}
	started := time.Now()
	if err := step(ctx); err != nil {
		return err
	}
	took := time.Since(started)
	after, err := usageOf(m.folder)
	if err != nil {
		return err
	}
	done := phase{name, took.Seconds(), after.cpuSeconds - before.cpuSeconds}
	m.result.Phases = append(m.result.Phases, done)
	fmt.Printf("  %8.1f s  %s (store: %.1f s of CPU)\n", done.Seconds, done.Name, done.CPUSeconds)
	return nil
}

// ---- nodes

func (m *measurement) nodes(ctx context.Context, manifest string) error {
	text, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	err = m.inParallel(ctx, m.size.nodes, func(ctx context.Context, i int) error {
		node := &corev1.Node{}
		if err := yaml.Unmarshal([]byte(strings.ReplaceAll(string(text), "NAME", fmt.Sprintf("node-%d", i))), node); err != nil {
			return err
		}
		return m.tried(ctx, func() error {
			_, err := m.api.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
			return err
		})
	})
	if err != nil {
		return err
	}
	return until(ctx, time.Second, func() error {
		// Not of the newest, so that asking costs the store nothing.
		list, err := m.api.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			m.failed.Add(1)
			return err
		}
		ready := 0
		for i := range list.Items {
			for _, condition := range list.Items[i].Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		leases, err := m.api.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			m.failed.Add(1)
			return err
		}
		if ready < m.size.nodes || len(leases.Items) < m.size.nodes {
			return fmt.Errorf("%d of %d nodes are ready, and %d have leases", ready, m.size.nodes, len(leases.Items))
		}
		return nil
	})
}

// ---- configuration

func (m *measurement) configs(ctx context.Context) error {
	for i := range namespaces {
		if err := m.namespace(ctx, configNamespace(i)); err != nil {
			return err
		}
	}
	filler := strings.Repeat("0123456789abcdef", 60)
	took := make([]time.Duration, m.size.configs)
	err := m.inParallel(ctx, m.size.configs, func(ctx context.Context, i int) error {
		started := time.Now()
		defer func() { took[i] = time.Since(started) }()
		meta := metav1.ObjectMeta{Name: fmt.Sprintf("config-%06d", i), Labels: map[string]string{"made-by": "scale"}}
		return m.tried(ctx, func() (err error) {
			if namespace := configNamespace(i % namespaces); i%5 == 4 {
				_, err = m.api.CoreV1().Secrets(namespace).Create(ctx,
					&corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"filler": filler}}, metav1.CreateOptions{})
			} else {
				_, err = m.api.CoreV1().ConfigMaps(namespace).Create(ctx,
					&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"filler": filler}}, metav1.CreateOptions{})
			}
			return err
		})
	})
	slices.Sort(took)
	m.result.CreateP50, m.result.CreateP99 = milliseconds(took[len(took)/2]), milliseconds(took[len(took)*99/100])
	return err
}

func (m *measurement) namespace(ctx context.Context, name string) error {
	return m.tried(ctx, func() error {
		_, err := m.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	})
}

func configNamespace(i int) string { return fmt.Sprintf("config-%02d", i) }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (m *measurement) listConfigMaps(ctx context.Context) error {
	wanted := m.size.configs - m.size.configs/5
	return m.countPages(ctx, wanted, func(options metav1.ListOptions) (int, string, error) {
		options.LabelSelector = "made-by=scale"
		list, err := m.api.CoreV1().ConfigMaps("").List(ctx, options)
		if err != nil {
			return 0, "", err
		}
		return len(list.Items), list.Continue, nil
	})
}

// ---- pods

// pods creates Deployments and waits until all of their pods run. When all were bound to nodes it writes down as well.
func (m *measurement) pods(ctx context.Context) error {
	const namespace = "pods"
	if err := m.namespace(ctx, namespace); err != nil {
		return err
	}
	// Before that no pod can be made there, and who tries waits longer each time.
	err := until(ctx, 100*time.Millisecond, func() error {
		_, err := m.api.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	counter := &podCounter{}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(m.api.CoreV1().RESTClient(), "pods", namespace, fields.Everything()),
		ObjectType:    &corev1.Pod{},
		Handler:       counter,
		Transform:     counter.shrink,
	})
	var running sync.WaitGroup
	running.Go(func() { informer.RunWithContext(watching) })
	defer running.Wait()
	defer stop()
	if !cache.WaitForCacheSync(watching.Done(), informer.HasSynced) {
		return errors.New("the pods cannot be watched")
	}

	started := time.Now()
	count := (m.size.pods + podsEach - 1) / podsEach
	err = m.inParallel(ctx, count, func(ctx context.Context, i int) error {
		replicas := int32(min(podsEach, m.size.pods-i*podsEach))
		labels := map[string]string{"app": fmt.Sprintf("web-%d", i)}
		web := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: labels["app"]},
			Spec: appsv1.DeploymentSpec{
				Replicas: &replicas,
				Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: labels},
					// Nothing is pulled: the nodes are kwok's.
					Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "example.invalid/web"}}},
				},
			},
		}
		return m.tried(ctx, func() error {
			_, err := m.api.AppsV1().Deployments(namespace).Create(ctx, web, metav1.CreateOptions{})
			return err
		})
	})
	if err != nil {
		return err
	}
	for _, stage := range []struct {
		name  string
		count *atomic.Int64
	}{{"pods created", &counter.created}, {"pods bound to nodes", &counter.bound}, {"pods running", &counter.running}} {
		err := until(ctx, 100*time.Millisecond, func() error {
			if found := stage.count.Load(); found < int64(m.size.pods) {
				return fmt.Errorf("%s: %d of %d pods", stage.name, found, m.size.pods)
			}
			return nil
		})
		if err != nil {
			return err
		}
		done := phase{Name: stage.name, Seconds: time.Since(started).Seconds()}
		m.result.Phases = append(m.result.Phases, done)
		fmt.Printf("  %8.1f s  %s\n", done.Seconds, done.Name)
	}
	return nil
}

// podCounter counts how far pods have come.
type podCounter struct {
	created, bound, running atomic.Int64
}

// shrink keeps of a pod what is counted.
func (*podCounter) shrink(object any) (any, error) {
	pod, is := object.(*corev1.Pod)
	if !is {
		return object, nil
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion},
		Spec:       corev1.PodSpec{NodeName: pod.Spec.NodeName},
		Status:     corev1.PodStatus{Phase: pod.Status.Phase},
	}, nil
}

func (c *podCounter) OnAdd(object any, _ bool) {
	c.created.Add(1)
	c.OnUpdate(&corev1.Pod{}, object)
}

func (c *podCounter) OnUpdate(old, now any) {
	before, after := old.(*corev1.Pod), now.(*corev1.Pod)
	if before.Spec.NodeName == "" && after.Spec.NodeName != "" {
		c.bound.Add(1)
	}
	if before.Status.Phase != corev1.PodRunning && after.Status.Phase == corev1.PodRunning {
		c.running.Add(1)
	}
}

// OnDelete takes back what is counted: a pod that was evicted is made again.
func (c *podCounter) OnDelete(object any) {
	if unknown, missed := object.(cache.DeletedFinalStateUnknown); missed {
		object = unknown.Obj
	}
	pod := object.(*corev1.Pod)
	c.created.Add(-1)
	if pod.Spec.NodeName != "" {
		c.bound.Add(-1)
	}
	if pod.Status.Phase == corev1.PodRunning {
		c.running.Add(-1)
	}
}

func (m *measurement) listPods(ctx context.Context) error {
	return m.countPages(ctx, m.size.pods, func(options metav1.ListOptions) (int, string, error) {
		list, err := m.api.CoreV1().Pods("pods").List(ctx, options)
		if err != nil {
			return 0, "", err
		}
		return len(list.Items), list.Continue, nil
	})
}

// ---- what all need

// tried sends a request until it is answered well, for a minute at most: a client repeats no creation by itself. What is
// there at another try was made by one before.
func (m *measurement) tried(ctx context.Context, request func() error) error {
	for end, first := time.Now().Add(triedWithin), true; ; first = false {
		err := request()
		switch {
		case err == nil, !first && apierrors.IsAlreadyExists(err):
			return nil
		case ctx.Err() != nil || apierrors.IsAlreadyExists(err):
			return err
		}
		m.failed.Add(1)
		if time.Now().After(end) {
			return fmt.Errorf("tried for %v: %w", triedWithin, err)
		}
		if waited := pause(ctx, triedAgain); waited != nil {
			return errors.Join(err, waited)
		}
	}
}

// countPages asks for all pages of a list of the newest.
func (m *measurement) countPages(ctx context.Context, wanted int, ask func(metav1.ListOptions) (int, string, error)) error {
	options := metav1.ListOptions{Limit: page}
	found := 0
	for {
		var count int
		var next string
		err := m.tried(ctx, func() (err error) {
			count, next, err = ask(options)
			return err
		})
		if err != nil {
			return err
		}
		found += count
		if options.Continue = next; next == "" {
			break
		}
	}
	if found != wanted {
		return fmt.Errorf("the list has %d, and there are %d", found, wanted)
	}
	return nil
}

// inParallel does something so many times, each once, and stops at the first error: of what is tried again, the last.
func (m *measurement) inParallel(ctx context.Context, count int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var taken atomic.Int64
	var workers sync.WaitGroup
	for range m.size.parallel {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(taken.Add(1)) - 1
				if i >= count {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// until tries again and again until there is no error.
func until(ctx context.Context, every time.Duration, holds func() error) error {
	for {
		err := holds()
		if err == nil {
			return nil
		}
		if waited := pause(ctx, every); waited != nil {
			return errors.Join(err, waited)
		}
	}
}

func pause(ctx context.Context, long time.Duration) error {
	select {
	case <-time.After(long):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// What the API server tells of its requests and of those to its store, by verb and by operation.
type latencies struct {
	api, store map[string]histogram
}

func (m *measurement) metrics(ctx context.Context) (latencies, error) {
	var text []byte
	err := m.tried(ctx, func() (err error) {
		text, err = m.api.CoreV1().RESTClient().Get().AbsPath("/metrics").SetHeader("Accept", "text/plain").DoRaw(ctx)
		return err
	})
	if err != nil {
		return latencies{}, err
	}
	var found latencies
	if found.api, err = histograms(string(text), "apiserver_request_duration_seconds", "verb"); err != nil {
		return latencies{}, err
	}
	found.store, err = histograms(string(text), "etcd_request_duration_seconds", "operation")
	return found, err
}

// p99s in milliseconds, of each that was asked for at least a hundred times, and of all together.
func p99s(before, after map[string]histogram) map[string]float64 {
	found := map[string]float64{}
	all := histogram{}
	for key, now := range after {
		if key == "WATCH" || key == "CONNECT" {
			continue // they last as long as they are wanted
		}
		since := now.since(before[key])
		all = all.plus(since)
		if p99 := since.quantile(0.99); since.count() >= 100 && !math.IsNaN(p99) {
			found[key] = p99 * 1000
		}
	}
	if p99 := all.quantile(0.99); !math.IsNaN(p99) {
		found["all"] = p99 * 1000
	}
	return found
}
