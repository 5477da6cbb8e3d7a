package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func testConfigMaps(t *testing.T) {
	p := newPlace(t)
	maps := client.CoreV1().ConfigMaps(p.namespace)
	created, err := maps.Create(p.ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"},
		Data:       map[string]string{"colour": "plainly readable", "count": "0"},
		BinaryData: map[string][]byte{"bytes": {0, 255, 0, '\n'}},
	}, metav1.CreateOptions{})
	p.must(err)
	read, err := maps.Get(p.ctx, "settings", metav1.GetOptions{})
	p.must(err)
	p.must(expect("text", read.Data["colour"], "plainly readable"))
	p.must(expect("bytes", string(read.BinaryData["bytes"]), "\x00\xff\x00\n"))
	_, err = maps.Create(p.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}}, metav1.CreateOptions{})
	p.refused("a second of the same name", err, metav1.StatusReasonAlreadyExists, "already exists")

	// This is what a Secret must not look like in the store; see there.
	kv := p.stored("/registry/configmaps/" + p.namespace + "/settings")
	if kv == nil || !bytes.HasPrefix(kv.Value, []byte("k8s\x00")) || !bytes.Contains(kv.Value, []byte("plainly readable")) {
		t.Fatalf("stored is %v", kv)
	}

	// Who writes what was read before somebody else wrote is refused.
	read.Data["colour"] = "blue"
	_, err = maps.Update(p.ctx, read, metav1.UpdateOptions{})
	p.must(err)
	created.Data["colour"] = "red"
	_, err = maps.Update(p.ctx, created, metav1.UpdateOptions{})
	p.refused("a write of what is out of date", err, metav1.StatusReasonConflict, "modified")
	// So no count is lost where many count at once.
	const counters, each = 8, 5
	var group sync.WaitGroup
	for range counters {
		group.Go(func() {
			for range each {
				if err := p.count("settings"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	read, err = maps.Get(p.ctx, "settings", metav1.GetOptions{})
	p.must(err)
	p.must(expect("the count", read.Data["count"], strconv.Itoa(counters*each)))

	immutable := true
	read.Immutable = &immutable
	read, err = maps.Update(p.ctx, read, metav1.UpdateOptions{})
	p.must(err)
	read.Data["colour"] = "green"
	_, err = maps.Update(p.ctx, read, metav1.UpdateOptions{})
	p.refused("a change of what is immutable", err, metav1.StatusReasonInvalid, "immutable")
}

// count adds one, however often somebody else comes first.
func (p place) count(name string) error {
	maps := client.CoreV1().ConfigMaps(p.namespace)
	for {
		read, err := maps.Get(p.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		number, err := strconv.Atoi(read.Data["count"])
		if err != nil {
			return err
		}
		read.Data["count"] = strconv.Itoa(number + 1)
		if _, err = maps.Update(p.ctx, read, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return err
		}
	}
}

// What the store holds of a Secret is what the API server has encrypted, and nobody reads there who has no key.
func testSecrets(t *testing.T) {
	p := newPlace(t)
	secrets := client.CoreV1().Secrets(p.namespace)
	key := "/registry/secrets/" + p.namespace + "/login"
	value := "not for everybody's eyes"
	p.kubectl("create", "secret", "generic", "login", "--from-literal=password="+value)
	read, err := secrets.Get(p.ctx, "login", metav1.GetOptions{})
	p.must(err)
	p.must(expect("the value", string(read.Data["password"]), value))
	encrypted := func() []byte {
		p.Helper()
		kv := p.stored(key)
		if kv == nil {
			t.Fatalf("nothing is stored under %s", key)
		}
		if !bytes.HasPrefix(kv.Value, []byte("k8s:enc:aescbc:v1:of-this-run:")) {
			t.Fatalf("it begins with %q", kv.Value[:min(len(kv.Value), 40)])
		}
		for _, text := range []string{value, "password", "login"} {
			if bytes.Contains(kv.Value, []byte(text)) {
				t.Fatalf("%q is readable in the store: %q", text, kv.Value)
			}
		}
		return kv.Value
	}
	first := encrypted()

	value = "another that nobody reads"
	read.Data["password"] = []byte(value)
	_, err = secrets.Update(p.ctx, read, metav1.UpdateOptions{})
	p.must(err)
	if bytes.Equal(encrypted(), first) {
		t.Fatal("the store holds what it held before")
	}
	read, err = secrets.Get(p.ctx, "login", metav1.GetOptions{})
	p.must(err)
	p.must(expect("the value", string(read.Data["password"]), value))
	p.must(secrets.Delete(p.ctx, "login", metav1.DeleteOptions{}))
	if p.stored(key) != nil {
		t.Fatal("the Secret is gone, and its key is not")
	}
}

func testVolumes(t *testing.T) {
	p := newPlace(t)
	manual, late := p.namespace+"-manual", p.namespace+"-late"
	p.newClass(manual, storagev1.VolumeBindingImmediate)
	p.newClass(late, storagev1.VolumeBindingWaitForFirstConsumer)

	// The smallest that is enough.
	p.newVolume("small", manual, "1Gi", nil)
	middle := p.newVolume("middle", manual, "5Gi", nil)
	p.newVolume("large", manual, "50Gi", nil)
	p.createClaim("fits", manual, "2Gi")
	p.must(expect("the volume of the claim", p.boundTo("fits"), middle.Name))
	p.volumeIs(middle.Name, corev1.VolumeBound)
	// One that nothing is enough for waits until something is.
	p.createClaim("greedy", manual, "100Gi")
	p.eventually("the claim is told that nothing fits", func() error {
		events, err := client.CoreV1().Events(p.namespace).List(p.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=greedy"})
		if err != nil {
			return err
		}
		if len(events.Items) == 0 {
			return errors.New("no event")
		}
		claim, err := client.CoreV1().PersistentVolumeClaims(p.namespace).Get(p.ctx, "greedy", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return expect("its phase", claim.Status.Phase, corev1.ClaimPending)
	})
	p.createVolume("huge", manual, "200Gi", nil)
	p.must(expect("the volume of the greedy claim", p.boundTo("greedy"), p.namespace+"-huge"))

	// A volume outlives its claim, and no other claim gets what is in it.
	p.must(client.CoreV1().PersistentVolumeClaims(p.namespace).Delete(p.ctx, "fits", metav1.DeleteOptions{}))
	p.volumeIs(middle.Name, corev1.VolumeReleased)
	p.createClaim("next", manual, "2Gi")
	p.must(expect("the volume of the next claim", p.boundTo("next"), p.namespace+"-large"))

	// Late binding waits for a pod, and takes a volume of the node that the pod goes to.
	node := p.newNode("store", "4", nil)
	p.newVolume("elsewhere", late, "1Gi", onlyOn("no-such-node"))
	near := p.newVolume("near", late, "1Gi", onlyOn(node.Name))
	p.createClaim("local", late, "1Gi")
	p.eventually("the claim waits for its first consumer", func() error {
		events, err := client.CoreV1().Events(p.namespace).List(p.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=local,reason=WaitForFirstConsumer"})
		if err != nil {
			return err
		}
		if len(events.Items) == 0 {
			return errors.New("no event says so")
		}
		return nil
	})
	p.createPod("consumer", func(pod *corev1.Pod) {
		p.onNode(pod)
		pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "local"},
		}}}
	})
	p.must(expect("the node of the consumer", p.running("consumer").Spec.NodeName, node.Name))
	p.must(expect("the volume of the local claim", p.boundTo("local"), near.Name))

	// A claim in use stays until nobody uses it.
	p.must(client.CoreV1().PersistentVolumeClaims(p.namespace).Delete(p.ctx, "local", metav1.DeleteOptions{}))
	claim, err := client.CoreV1().PersistentVolumeClaims(p.namespace).Get(p.ctx, "local", metav1.GetOptions{})
	p.must(err)
	if claim.DeletionTimestamp == nil {
		t.Fatal("the claim is not marked")
	}
	p.must(client.CoreV1().Pods(p.namespace).Delete(p.ctx, "consumer", metav1.DeleteOptions{}))
	p.eventually("the claim ends with its pod", func() error {
		_, err := client.CoreV1().PersistentVolumeClaims(p.namespace).Get(p.ctx, "local", metav1.GetOptions{})
		return gone(err)
	})
}

func (p place) newClass(name string, mode storagev1.VolumeBindingMode) {
	p.Helper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &mode}
	_, err := client.StorageV1().StorageClasses().Create(p.ctx, class, metav1.CreateOptions{})
	p.must(err)
	p.Cleanup(func() {
		p.remove("the class "+name, func(ctx context.Context) error {
			return client.StorageV1().StorageClasses().Delete(ctx, name, metav1.DeleteOptions{})
		})
	})
}

// newVolume makes one, and waits until claims can get it: before that they would get another that fits less well.
func (p place) newVolume(name, class, size string, change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	p.Helper()
	volume := p.createVolume(name, class, size, change)
	p.volumeIs(volume.Name, corev1.VolumeAvailable)
	return volume
}

// createVolume makes one by hand, as there is nobody who provisions; its name begins with the test's.
func (p place) createVolume(name, class, size string, change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	p.Helper()
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: p.namespace + "-" + name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			StorageClassName:              class,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nowhere/" + name}},
		},
	}
	if change != nil {
		change(volume)
	}
	created, err := client.CoreV1().PersistentVolumes().Create(p.ctx, volume, metav1.CreateOptions{})
	p.must(err)
	p.Cleanup(func() {
		p.remove("the volume "+created.Name, func(ctx context.Context) error {
			return client.CoreV1().PersistentVolumes().Delete(ctx, created.Name, metav1.DeleteOptions{})
		})
	})
	return created
}

// onlyOn ties a volume to a node.
func onlyOn(node string) func(*corev1.PersistentVolume) {
	return func(volume *corev1.PersistentVolume) {
		volume.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/nowhere/local"}}
		volume.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}}
	}
}

func (p place) createClaim(name, class, size string) {
	p.Helper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: &class,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
		},
	}
	_, err := client.CoreV1().PersistentVolumeClaims(p.namespace).Create(p.ctx, claim, metav1.CreateOptions{})
	p.must(err)
}

// boundTo waits until a claim has its volume, and returns that one's name.
func (p place) boundTo(claim string) string {
	p.Helper()
	var volume string
	p.eventually("the claim "+claim+" is bound", func() error {
		claim, err := client.CoreV1().PersistentVolumeClaims(p.namespace).Get(p.ctx, claim, metav1.GetOptions{})
		if err != nil {
			return err
		}
		volume = claim.Spec.VolumeName
		return expect("its phase", claim.Status.Phase, corev1.ClaimBound)
	})
	return volume
}

func (p place) volumeIs(name string, phase corev1.PersistentVolumePhase) {
	p.Helper()
	p.eventually(fmt.Sprintf("the volume %s is %s", name, phase), func() error {
		volume, err := client.CoreV1().PersistentVolumes().Get(p.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return expect("its phase", volume.Status.Phase, phase)
	})
}
