package deploy

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"sigs.k8s.io/yaml"
)

// values is what the chart multicluster-controlplane takes for its store.
type values struct {
	Etcd struct {
		Mode    string   `json:"mode"`
		Servers []string `json:"servers"`
		CA      string   `json:"ca"`
		Cert    string   `json:"cert"`
		CertKey string   `json:"certkey"`
	} `json:"etcd"`
}

// The chart gives its API server the servers of the values, three files that come by --set-file, and the release's
// namespace as prefix. So does this test, with a member behind each server; then one of them is lost.
func TestHelmValuesOfAnExternalStore(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/helm/multicluster-controlplane.values.yaml")
	must(t, err)
	var given values
	must(t, yaml.UnmarshalStrict(text, &given))
	if given.Etcd.Mode != "external" || len(given.Etcd.Servers) != 3 {
		t.Fatalf("expected three servers of mode external, saw %v", given.Etcd)
	}
	for name, value := range map[string]string{"etcd.ca": given.Etcd.CA, "etcd.cert": given.Etcd.Cert, "etcd.certkey": given.Etcd.CertKey} {
		if value != "" || !strings.Contains(string(text), name+"=") {
			t.Fatalf("%s: expected nothing in the file, and in its head how it is given", name)
		}
	}

	pki := certificates(t)
	servers, members := startMembers(t, pki, given.Etcd.Servers)
	port := freePort(t)
	start(t, []string{"HOME=" + t.TempDir()}, variable(t, "KUBERNETES_BIN")+"/kube-apiserver",
		"--etcd-servers="+strings.Join(servers, ","), "--etcd-prefix=multicluster",
		"--etcd-cafile="+pki+"/etcd/ca.crt", "--etcd-certfile="+pki+"/apiserver-etcd-client.crt", "--etcd-keyfile="+pki+"/apiserver-etcd-client.key",
		"--bind-address=127.0.0.1", "--secure-port="+port, "--advertise-address=192.0.2.1",
		"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
		"--client-ca-file="+pki+"/ca.crt", "--tls-cert-file="+pki+"/apiserver.crt", "--tls-private-key-file="+pki+"/apiserver.key",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+pki+"/service-account.pub", "--service-account-signing-key-file="+pki+"/service-account.key",
	)
	admin := &http.Client{
		Transport: &http.Transport{TLSClientConfig: secured(t, pki+"/ca.crt", pki+"/admin.crt", pki+"/admin.key")},
		Timeout:   10 * time.Second,
	}
	api := "https://127.0.0.1:" + port
	eventually(t, "the API server is ready", func() error { return answers(admin, api+"/readyz") })
	createNamespace(t, admin, api, "before")
	members[0].stop()
	createNamespace(t, admin, api, "after")

	// All that it wrote is under its prefix, so that others can be there, too.
	client := storeClient(t, pki, servers[1:]...)
	within, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all, err := client.Get(within, "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	must(t, err)
	found := map[string]bool{}
	for _, kv := range all.Kvs {
		key := string(kv.Key)
		found[key] = true
		// The key by which API servers agree on compactions has no prefix.
		if !strings.HasPrefix(key, "/multicluster/") && key != "compact_rev_key" {
			t.Errorf("%s is not under the prefix", key)
		}
	}
	for _, name := range []string{"before", "after", "kube-system"} {
		if !found["/multicluster/namespaces/"+name] {
			t.Errorf("the namespace %s is not among the %d keys", name, len(found))
		}
	}

	// Nobody gets in without a certificate.
	stranger := &http.Client{
		Transport: &http.Transport{TLSClientConfig: secured(t, pki+"/etcd/ca.crt", "", "")},
		Timeout:   10 * time.Second,
	}
	if err := answers(stranger, servers[1]+"/version"); err == nil {
		t.Fatal("the store answers whoever asks")
	}
}

// startMembers starts one for each of these URLs, and returns under which it is reached here.
func startMembers(t *testing.T, pki string, urls []string) ([]string, []*process) {
	t.Helper()
	clients, peers, initial := []string{}, []string{}, []string{}
	seen := map[string]bool{}
	for i, text := range urls {
		server, err := url.Parse(text)
		must(t, err)
		if server.Scheme != "https" || server.Port() != "2379" || seen[server.Host] {
			t.Fatalf("%s: expected https, the port 2379 and another host each time", text)
		}
		seen[server.Host] = true
		clients = append(clients, "https://127.0.0.1:"+freePort(t))
		peers = append(peers, "https://127.0.0.1:"+freePort(t))
		initial = append(initial, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	members := []*process{}
	for i := range urls {
		members = append(members, start(t, nil, program(t, "mainstay"),
			fmt.Sprintf("--name=m%d", i), "--data-dir="+t.TempDir()+"/data", "--log-level=warn",
			"--listen-client-urls="+clients[i], "--advertise-client-urls="+clients[i],
			"--listen-peer-urls="+peers[i], "--initial-advertise-peer-urls="+peers[i], "--initial-cluster="+strings.Join(initial, ","),
			"--cert-file="+pki+"/etcd/server.crt", "--key-file="+pki+"/etcd/server.key", "--client-cert-auth", "--trusted-ca-file="+pki+"/etcd/ca.crt",
			"--peer-cert-file="+pki+"/etcd/peer.crt", "--peer-key-file="+pki+"/etcd/peer.key", "--peer-client-cert-auth", "--peer-trusted-ca-file="+pki+"/etcd/ca.crt",
		))
	}
	asks := &http.Client{
		Transport: &http.Transport{TLSClientConfig: secured(t, pki+"/etcd/ca.crt", pki+"/apiserver-etcd-client.crt", pki+"/apiserver-etcd-client.key")},
		Timeout:   5 * time.Second,
	}
	for _, endpoint := range clients {
		eventually(t, "the member at "+endpoint+" is well", func() error { return answers(asks, endpoint+"/health") })
	}
	return clients, members
}

// createNamespace asks until it is done; who has just lost a member may have to ask again.
func createNamespace(t *testing.T, admin *http.Client, api, name string) {
	t.Helper()
	body := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": %q}}`, name)
	eventually(t, "the namespace "+name+" is created", func() error {
		response, err := admin.Post(api+"/api/v1/namespaces", "application/json", strings.NewReader(body))
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusCreated && response.StatusCode != http.StatusConflict {
			return fmt.Errorf("the API server answers with %s", response.Status)
		}
		return nil
	})
}
