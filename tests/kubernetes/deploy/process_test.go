// What stands in deploy/ is started as it stands there, as processes under the names and with the command lines that
// kubelet, systemd or Helm's charts give them; only addresses and folders are this machine's.
package deploy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// How long a process may take until it serves, until it has ended, or until what is said of it is true.
const patience = 60 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// variable is one that run.sh sets.
func variable(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; tests/kubernetes/run.sh sets it", name)
	}
	return value
}

// program is the server under a name of its own, in a folder of its own.
func program(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.Symlink(variable(t, "MAINSTAY_BIN"), path))
	return path
}

// certificates makes a folder of them, as kubeadm would.
func certificates(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if out, err := exec.Command("../certificates.sh", folder).CombinedOutput(); err != nil {
		t.Fatalf("certificates.sh: %v: %s", err, out)
	}
	return folder
}

// Ports below the range from which the system takes those of connections that go out, as in lib.sh.
var lastPort atomic.Int32

func init() { lastPort.Store(20_000 + rand.Int32N(10_000)) }

// freePort is one that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := fmt.Sprint(lastPort.Add(1))
		if listener, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			must(t, listener.Close())
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// process is one that runs until the test ends, at the latest.
type process struct {
	*testing.T
	command *exec.Cmd
	log     string
	ended   chan struct{}
}

// start runs a program with these variables and no others.
func start(t *testing.T, environment []string, path string, arguments ...string) *process {
	t.Helper()
	p := &process{t, exec.Command(path, arguments...), filepath.Join(t.TempDir(), "log"), make(chan struct{})}
	log, err := os.Create(p.log)
	must(t, err)
	defer log.Close()
	p.command.Env = append([]string{}, environment...)
	p.command.Stdout, p.command.Stderr = log, log
	// It must not outlive the tests, however they end.
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, p.command.Start())
	go func() {
		defer close(p.ended)
		_ = p.command.Wait() // how it ended is in ProcessState
	}()
	t.Cleanup(func() {
		_ = p.command.Process.Kill()
		<-p.ended
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			t.Logf("%s said last:\n%s", p.command, strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	return p
}

// stop asks it to end, as kubelet and systemd do, and waits for that. It may have ended by itself.
func (p *process) stop() {
	p.Helper()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.Fatalf("%s did not end within %v", p.command, patience)
	}
}

// eventually waits until a check has no objection any more; what it said last is what was seen instead.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	begun := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Since(begun) > patience {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// secured is the side of a client with a certificate, who trusts nobody but one CA.
func secured(t *testing.T, ca, cert, key string) *tls.Config {
	t.Helper()
	authority, err := os.ReadFile(ca)
	must(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatalf("%s has no certificate", ca)
	}
	config := &tls.Config{RootCAs: roots}
	if cert != "" {
		own, err := tls.LoadX509KeyPair(cert, key)
		must(t, err)
		config.Certificates = []tls.Certificate{own}
	}
	return config
}

// storeClient reaches members as the API server does.
func storeClient(t *testing.T, pki string, endpoints ...string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: patience,
		TLS: secured(t, pki+"/etcd/ca.crt", pki+"/apiserver-etcd-client.crt", pki+"/apiserver-etcd-client.key"),
	})
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// putAndGet writes by one client what it reads by another.
func putAndGet(t *testing.T, writer, reader *clientv3.Client, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	value := "written for " + t.Name()
	_, err := writer.Put(ctx, key, value)
	must(t, err)
	answer, err := reader.Get(ctx, key)
	must(t, err)
	if len(answer.Kvs) != 1 || string(answer.Kvs[0].Value) != value {
		t.Fatalf("%s: expected %q, saw %v", key, value, answer.Kvs)
	}
}

// answers asks for a page that has to come with 200.
func answers(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers with %s", url, response.Status)
	}
	return nil
}

// underneath checks that a path is in one of these folders.
func underneath(path string, folders []string) error {
	for _, folder := range folders {
		if relative, err := filepath.Rel(folder, path); err == nil && !strings.HasPrefix(relative, "..") {
			return nil
		}
	}
	return errors.New(path + " is in none of " + strings.Join(folders, ", "))
}
