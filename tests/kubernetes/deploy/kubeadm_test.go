package deploy

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	kubeadmapi "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
	kubeadmv1 "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm/v1beta4"
	etcdphase "k8s.io/kubernetes/cmd/kubeadm/app/phases/etcd"
	kubeadmutil "k8s.io/kubernetes/cmd/kubeadm/app/util"
	etcdutil "k8s.io/kubernetes/cmd/kubeadm/app/util/etcd"
	"k8s.io/kubernetes/pkg/probe"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	"sigs.k8s.io/yaml"
)

const manifest = "../../../deploy/kubeadm/etcd.yaml"

// cluster is what the manifest's head says: kubeadm's own defaults, but for the image.
func cluster() *kubeadmapi.ClusterConfiguration {
	return &kubeadmapi.ClusterConfiguration{
		KubernetesVersion: "v1.36.3",
		CertificatesDir:   "/etc/kubernetes/pki",
		ImageRepository:   "registry.k8s.io",
		Etcd: kubeadmapi.Etcd{Local: &kubeadmapi.LocalEtcd{
			DataDir:   kubeadmv1.DefaultEtcdDataDir,
			ImageMeta: kubeadmapi.ImageMeta{ImageRepository: "registry.example.com/mainstay", ImageTag: "0.1.0"},
		}},
	}
}

// controlPlane is the name and the address of a machine; the first is the manifest's.
func controlPlane(number int) (string, *kubeadmapi.APIEndpoint) {
	return fmt.Sprintf("control-plane-%d", number), &kubeadmapi.APIEndpoint{AdvertiseAddress: fmt.Sprintf("192.0.2.1%d", number), BindPort: 6443}
}

// The manifest is what kubeadm writes, letter by letter.
func TestKubeadmManifestIsKubeadms(t *testing.T) {
	text, err := os.ReadFile(manifest)
	must(t, err)
	var body strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			body.WriteString(line)
		}
	}
	name, endpoint := controlPlane(1)
	pod := etcdphase.GetEtcdPodSpec(cluster(), endpoint, name, nil)
	written, err := kubeadmutil.MarshalToYaml(&pod, corev1.SchemeGroupVersion)
	must(t, err)
	if body.String() != string(written) {
		t.Fatalf("kubeadm writes\n%s\n%s is\n%s", written, manifest, body.String())
	}
}

// Three machines get their member as `kubeadm init` and `kubeadm join` do it, by kubeadm's own code, and kubelet's
// probes are content; then one is restarted, and one leaves.
func TestKubeadmCluster(t *testing.T) {
	pki := certificates(t)
	var pod corev1.Pod
	text, err := os.ReadFile(manifest)
	must(t, err)
	must(t, yaml.UnmarshalStrict(text, &pod))
	must(t, mounts(&pod))

	first := newMachine(t, 1, pki)
	first.run(pod)
	first.isWell()
	clients := []*clientv3.Client{storeClient(t, pki, first.client)}
	putAndGet(t, clients[0], clients[0], "/registry/first")

	machines := []*machine{first}
	for number := 2; number <= 3; number++ {
		joins := newMachine(t, number, pki)
		members, err := first.kubeadm().AddMemberAsLearner(joins.name, joins.peer)
		must(t, err)
		_, endpoint := controlPlane(number)
		joins.run(etcdphase.GetEtcdPodSpec(cluster(), endpoint, joins.name, members))
		id, err := first.kubeadm().GetMemberID(joins.peer)
		must(t, err)
		must(t, first.kubeadm().MemberPromote(id))
		joins.isWell()
		must(t, joins.kubeadm().CheckClusterHealth())
		clients = append(clients, storeClient(t, pki, joins.client))
		machines = append(machines, joins)
		putAndGet(t, clients[0], clients[number-1], "/registry/"+joins.name)
	}

	// A static pod that is restarted runs the same command again.
	first.process.stop()
	eventually(t, "who has ended does not answer", func() error {
		if result, _ := first.probe(first.pod.Spec.Containers[0].LivenessProbe); result != probe.Failure {
			return fmt.Errorf("the probe says %s", result)
		}
		return nil
	})
	putAndGet(t, clients[1], clients[2], "/registry/while-away")
	first.run(first.pod)
	first.isWell()
	eventually(t, "the first has the 4 keys that were written", func() error {
		within, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		answer, err := clients[0].Get(within, "/registry/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && answer.Count != 4 {
			err = fmt.Errorf("saw %d", answer.Count)
		}
		return err
	})

	// kubeadm reset takes a member out.
	last := machines[2]
	id, err := first.kubeadm().GetMemberID(last.peer)
	must(t, err)
	left, err := first.kubeadm().RemoveMember(id)
	must(t, err)
	if len(left) != 2 {
		t.Fatalf("expected two members, saw %v", left)
	}
	last.process.stop()
	putAndGet(t, clients[0], clients[1], "/registry/after")
}

// mounts checks that all files that the command names are in what the pod mounts.
func mounts(pod *corev1.Pod) error {
	container := pod.Spec.Containers[0]
	var folders []string
	for _, mount := range container.VolumeMounts {
		for _, volume := range pod.Spec.Volumes {
			if volume.Name == mount.Name && volume.HostPath != nil && volume.HostPath.Path == mount.MountPath {
				folders = append(folders, mount.MountPath)
			}
		}
	}
	for _, argument := range container.Command[1:] {
		if _, value, _ := strings.Cut(argument, "="); strings.HasPrefix(value, "/") {
			if err := underneath(value, folders); err != nil {
				return fmt.Errorf("%s: %w", argument, err)
			}
		}
	}
	return nil
}

// machine is one that runs a static pod: processes of this one, at other ports and in other folders.
type machine struct {
	*testing.T
	name, pki string
	// Where clients and peers reach it.
	client, peer string
	substitutes  *strings.Replacer
	metricsPort  string
	program      string
	// What it runs.
	pod     corev1.Pod
	process *process
}

func newMachine(t *testing.T, number int, pki string) *machine {
	t.Helper()
	name, endpoint := controlPlane(number)
	local, client, peer, metrics := freePort(t), freePort(t), freePort(t), freePort(t)
	return &machine{
		T: t, name: name, pki: pki,
		client: "https://127.0.0.1:" + client, peer: "https://127.0.0.1:" + peer,
		substitutes: strings.NewReplacer(
			"127.0.0.1:2379", "127.0.0.1:"+local,
			endpoint.AdvertiseAddress+":2379", "127.0.0.1:"+client,
			endpoint.AdvertiseAddress+":2380", "127.0.0.1:"+peer,
			"127.0.0.1:2381", "127.0.0.1:"+metrics,
			"/var/lib/etcd", t.TempDir()+"/data",
			"/etc/kubernetes/pki", pki,
		),
		metricsPort: metrics,
		program:     program(t, "etcd"),
	}
}

// run starts what the pod's container runs.
func (m *machine) run(pod corev1.Pod) {
	m.Helper()
	m.pod = pod
	command := pod.Spec.Containers[0].Command
	if command[0] != "etcd" {
		m.Fatalf("the container runs %s", command[0])
	}
	var arguments []string
	for _, argument := range command[1:] {
		substituted := m.substitutes.Replace(argument)
		if strings.Contains(substituted, "192.0.2.") || strings.Contains(substituted, "/etc/kubernetes") {
			m.Fatalf("%s: nothing of this machine takes its place", argument)
		}
		arguments = append(arguments, substituted)
	}
	m.process = start(m.T, nil, m.program, arguments...)
}

// isWell goes through the probes as kubelet does: the others count from when the first has succeeded. That one is
// asked more often than kubelet does it, for no longer.
func (m *machine) isWell() {
	m.Helper()
	container := m.pod.Spec.Containers[0]
	startup := container.StartupProbe
	end := time.Now().Add(time.Duration(startup.FailureThreshold*startup.PeriodSeconds) * time.Second)
	for {
		result, output := m.probe(startup)
		if result == probe.Success {
			break
		}
		if time.Now().After(end) {
			m.Fatalf("%s: the startup probe says %s: %s", m.name, result, output)
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, other := range []*corev1.Probe{container.ReadinessProbe, container.LivenessProbe} {
		if result, output := m.probe(other); result != probe.Success {
			m.Fatalf("%s: %s says %s: %s", m.name, other.HTTPGet.Path, result, output)
		}
	}
}

// probe asks as kubelet does, by its code; only the port is another.
func (m *machine) probe(asked *corev1.Probe) (probe.Result, string) {
	m.Helper()
	container := m.pod.Spec.Containers[0].DeepCopy()
	for i := range container.Ports {
		if container.Ports[i].ContainerPort != 2381 {
			m.Fatalf("the container has the port %d", container.Ports[i].ContainerPort)
		}
		_, err := fmt.Sscan(m.metricsPort, &container.Ports[i].ContainerPort)
		must(m.T, err)
	}
	request, err := httpprobe.NewRequestForHTTPGetAction(asked.HTTPGet, container, "", "probe")
	must(m.T, err)
	result, output, err := httpprobe.New(false).Probe(request, time.Duration(asked.TimeoutSeconds)*time.Second)
	must(m.T, err)
	return result, output
}

// kubeadm is its client of the store, with the certificate that it uses for that.
func (m *machine) kubeadm() *etcdutil.Client {
	m.Helper()
	client, err := etcdutil.New([]string{m.client}, m.pki+"/etcd/ca.crt", m.pki+"/etcd/healthcheck-client.crt", m.pki+"/etcd/healthcheck-client.key")
	must(m.T, err)
	return client
}
