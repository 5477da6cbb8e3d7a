// Every kind of object that Kubernetes is known for, on a control plane whose state is on mainstay: what is
// asserted is what a user would see through kubectl or client-go, and where it matters what stands in the store.
//
// run.sh says how to start all of it. One alone: TEST=TestKubernetes/objects/services make kubernetes STAGES=objects
package objects

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// How the tests reach the control plane, as whoever may do all, and the store below it.
var (
	config  *rest.Config
	client  *kubernetes.Clientset
	objects *dynamic.DynamicClient
	store   *clientv3.Client
)

func TestKubernetes(t *testing.T) {
	t.Run("objects", func(t *testing.T) {
		// The slow ones first: they wait for minutes to pass and for what expires.
		for _, test := range []struct {
			name string
			run  func(*testing.T)
		}{
			{"cron jobs", testCronJobs},
			{"events", testEvents},
			{"silent nodes", testSilentNodes},
			{"autoscalers", testAutoscalers},
			{"stateful sets", testStatefulSets},
			{"deployments", testDeployments},
			{"health", testHealth},
			{"namespaces", testNamespaces},
			{"pods", testPods},
			{"replica sets", testReplicaSets},
			{"replication controllers", testReplicationControllers},
			{"daemon sets", testDaemonSets},
			{"jobs", testJobs},
			{"disruption budgets", testDisruptionBudgets},
			{"services", testServices},
			{"addresses are given once", testAddressesAreGivenOnce},
			{"config maps", testConfigMaps},
			{"secrets", testSecrets},
			{"volumes", testVolumes},
			{"roles", testRoles},
			{"aggregated roles", testAggregatedRoles},
			{"service accounts", testServiceAccounts},
			{"custom resources", testCustomResources},
			{"admission policies", testAdmissionPolicies},
			{"admission webhooks", testAdmissionWebhooks},
			{"quotas", testQuotas},
			{"quotas under concurrency", testQuotasUnderConcurrency},
			{"limit ranges", testLimitRanges},
			{"priorities", testPriorities},
			{"finalizers", testFinalizers},
			{"garbage collection", testGarbageCollection},
			{"server-side apply", testServerSideApply},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				test.run(t)
			})
		}
	})
	// These two concern all others, and so come after them.
	t.Run("a controller-manager that leads is killed", testLeaderIsKilled)
	t.Run("nothing is left behind", testNothingIsLeftBehind)
}

func TestMain(m *testing.M) {
	if err := connect(); err != nil {
		fmt.Fprintln(os.Stderr, "objects:", err)
		os.Exit(1)
	}
	status := m.Run()
	_ = store.Close()
	os.Exit(status)
}

func connect() error {
	var missing []string
	variable := func(name string) string {
		value := os.Getenv(name)
		if value == "" {
			missing = append(missing, name)
		}
		return value
	}
	kubeconfig := variable("KUBECONFIG")
	endpoints := strings.Split(variable("STORE_ENDPOINTS"), ",")
	ca, cert, key := variable("STORE_CA"), variable("STORE_CERT"), variable("STORE_KEY")
	for _, name := range []string{"KUBERNETES_BIN", "KUBERNETES_RUN", "PROCESS", "EVENT_TTL"} {
		variable(name)
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s: not set; tests/kubernetes/run.sh sets them", strings.Join(missing, ", "))
	}

	var err error
	if config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	if client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if objects, err = dynamic.NewForConfig(config); err != nil {
		return err
	}

	secured, err := tlsConfig(ca, cert, key)
	if err != nil {
		return err
	}
	store, err = clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: secured, DialTimeout: 30 * time.Second})
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err = store.Get(within, "/registry/health"); err != nil {
		return fmt.Errorf("the store at %v: %w", endpoints, err)
	}
	return nil
}

// tlsConfig is that of a client with a certificate, who trusts nobody but one CA.
func tlsConfig(ca, cert, key string) (*tls.Config, error) {
	authority, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New(ca + " has no certificate")
	}
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}, nil
}
