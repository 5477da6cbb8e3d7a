package objects

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What the API server was told to give: see lib.sh, and the default for ports.
var (
	serviceAddresses       = netip.MustParsePrefix("10.96.0.0/16")
	firstPort        int32 = 30000
	lastPort         int32 = 32767
)

func testServices(t *testing.T) {
	p := newPlace(t)
	p.apply("replicaset")
	p.apply("service")
	service, err := client.CoreV1().Services(p.namespace).Get(p.ctx, "web", metav1.GetOptions{})
	p.must(err)
	address := service.Spec.ClusterIP
	p.must(isServiceAddress(address))
	port := service.Spec.Ports[0].NodePort
	p.must(isNodePort(port))
	// Who has an address is an object of its own.
	owner, err := client.NetworkingV1().IPAddresses().Get(p.ctx, address, metav1.GetOptions{})
	p.must(err)
	p.must(expect("who has the address", owner.Spec.ParentRef.Namespace+"/"+owner.Spec.ParentRef.Name, p.namespace+"/web"))

	// Its slices follow the pods.
	p.slicesHave(p.ready("app=web", 3))
	p.kubectl("scale", "replicaset/web", "--replicas=5")
	p.slicesHave(p.ready("app=web", 5))
	p.kubectl("scale", "replicaset/web", "--replicas=1")
	p.slicesHave(p.ready("app=web", 1))

	// What is taken is refused.
	_, err = p.createService("same-address", func(spec *corev1.ServiceSpec) { spec.ClusterIP = address })
	p.refused("an address that is taken", err, metav1.StatusReasonInvalid, "already allocated")
	_, err = p.createService("same-port", func(spec *corev1.ServiceSpec) {
		spec.Type = corev1.ServiceTypeNodePort
		spec.Ports[0].NodePort = port
	})
	p.refused("a port that is taken", err, metav1.StatusReasonInvalid, "already allocated")
	_, err = p.createService("beyond", func(spec *corev1.ServiceSpec) { spec.ClusterIP = "10.97.0.1" })
	p.refused("an address outside the range", err, metav1.StatusReasonInvalid, "10.97.0.1")
	none, err := p.createService("headless", func(spec *corev1.ServiceSpec) { spec.ClusterIP = corev1.ClusterIPNone })
	p.must(err)
	p.must(expect("the address of a headless service", none.Spec.ClusterIP, "None"))

	// And free again when its owner is gone.
	p.must(client.CoreV1().Services(p.namespace).Delete(p.ctx, "web", metav1.DeleteOptions{}))
	p.eventually("the address and the port are given to another", func() error {
		_, err := p.createService("heir", func(spec *corev1.ServiceSpec) {
			spec.Type, spec.ClusterIP = corev1.ServiceTypeNodePort, address
			spec.Ports[0].NodePort = port
		})
		return err
	})
	p.eventually("the slices go with the service", func() error {
		list, err := client.DiscoveryV1().EndpointSlices(p.namespace).List(p.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
		if err != nil {
			return err
		}
		return expect("slices", len(list.Items), 0)
	})
}

// Addresses and ports are taken from one pool by many at the same time; the store decides who gets which.
func testAddressesAreGivenOnce(t *testing.T) {
	p := newPlace(t)
	const count = 40
	services, errs := make([]*corev1.Service, count), make([]error, count)
	var group sync.WaitGroup
	for i := range count {
		group.Go(func() {
			services[i], errs[i] = p.createService(fmt.Sprintf("service-%d", i), func(spec *corev1.ServiceSpec) { spec.Type = corev1.ServiceTypeNodePort })
		})
	}
	group.Wait()
	p.must(errors.Join(errs...))
	addresses, ports := map[string]string{}, map[int32]string{}
	for _, service := range services {
		address, port := service.Spec.ClusterIP, service.Spec.Ports[0].NodePort
		p.must(isServiceAddress(address))
		p.must(isNodePort(port))
		if other := addresses[address]; other != "" {
			t.Errorf("%s and %s both have the address %s", other, service.Name, address)
		}
		if other := ports[port]; other != "" {
			t.Errorf("%s and %s both have the port %d", other, service.Name, port)
		}
		addresses[address], ports[port] = service.Name, service.Name
	}
}

func (p place) createService(name string, change func(*corev1.ServiceSpec)) (*corev1.Service, error) {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	change(&service.Spec)
	return client.CoreV1().Services(p.namespace).Create(p.ctx, service, metav1.CreateOptions{})
}

// slicesHave waits until the slices of the service web have just these pods, ready, at the port they listen on.
func (p place) slicesHave(pods []corev1.Pod) {
	p.Helper()
	var expected []string
	for _, pod := range pods {
		expected = append(expected, fmt.Sprintf("%s at %s:8080, ready: true", pod.Name, pod.Status.PodIP))
	}
	slices.Sort(expected)
	p.eventually(fmt.Sprintf("the slices have %d pods", len(pods)), func() error {
		seen, err := p.endpoints(p.ctx)
		if err != nil {
			return err
		}
		return expect("endpoints", fmt.Sprint(seen), fmt.Sprint(expected))
	})
}

func (p place) endpoints(ctx context.Context) ([]string, error) {
	list, err := client.DiscoveryV1().EndpointSlices(p.namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
	if err != nil {
		return nil, err
	}
	var seen []string
	for _, slice := range list.Items {
		for _, endpoint := range slice.Endpoints {
			if len(slice.Ports) != 1 || len(endpoint.Addresses) != 1 || endpoint.TargetRef == nil || endpoint.Conditions.Ready == nil {
				return nil, fmt.Errorf("an endpoint %v with the ports %v", endpoint, slice.Ports)
			}
			seen = append(seen, fmt.Sprintf("%s at %s:%d, ready: %v", endpoint.TargetRef.Name, endpoint.Addresses[0], *slice.Ports[0].Port, *endpoint.Conditions.Ready))
		}
	}
	slices.Sort(seen)
	return seen, nil
}

func isServiceAddress(text string) error {
	address, err := netip.ParseAddr(text)
	if err == nil && !serviceAddresses.Contains(address) {
		err = fmt.Errorf("the address %s is not within %s", address, serviceAddresses)
	}
	return err
}

func isNodePort(port int32) error {
	if port < firstPort || port > lastPort {
		return fmt.Errorf("the port %d is not within %d-%d", port, firstPort, lastPort)
	}
	return nil
}
