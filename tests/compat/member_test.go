// Package compat runs etcd's own clients against a server: clientv3 in the Go tests, etcdctl in
// the scripts under testdata.
//
// MAINSTAY_ENDPOINTS names a running cluster. Without it, TestMain starts one member of the
// binary MAINSTAY_BIN, which may be etcd itself: that is how the tests are tested.
package compat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// deadline bounds every wait of every test; nothing here takes long unless it is broken.
const deadline = 20 * time.Second

var endpoints []string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if listed := os.Getenv("MAINSTAY_ENDPOINTS"); listed != "" {
		endpoints = strings.Split(listed, ",")
		return m.Run()
	}
	binary := os.Getenv("MAINSTAY_BIN")
	if binary == "" {
		fmt.Fprintln(os.Stderr, "compat: set MAINSTAY_ENDPOINTS or MAINSTAY_BIN")
		return 2
	}
	home, err := os.MkdirTemp("", "mainstay-compat-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		return 1
	}
	member, endpoint, err := startMember(binary, home)
	if err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		return 1
	}
	endpoints = []string{endpoint}
	code := m.Run()
	if err := stopMember(member); err != nil {
		fmt.Fprintln(os.Stderr, "compat: stopping the member:", err)
		code = 1
	}
	if code == 0 {
		_ = os.RemoveAll(home)
	} else {
		fmt.Fprintln(os.Stderr, "compat: data and log of the member are kept in", home)
	}
	return code
}

// startMember starts a single member on free ports, with further flags, and waits until it answers as healthy.
func startMember(binary, home string, flags ...string) (*exec.Cmd, string, error) {
	client, err := freePort()
	if err != nil {
		return nil, "", err
	}
	peer, err := freePort()
	if err != nil {
		return nil, "", err
	}
	log, err := os.Create(filepath.Join(home, "member.log"))
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	member := exec.Command(binary, append([]string{
		"--name=compat", "--data-dir=" + filepath.Join(home, "compat.etcd"),
		"--listen-client-urls=http://" + client, "--advertise-client-urls=http://" + client,
		"--listen-peer-urls=http://" + peer, "--initial-advertise-peer-urls=http://" + peer,
		"--initial-cluster=compat=http://" + peer}, flags...)...)
	member.Stdout, member.Stderr = log, log
	// The member must not outlive the tests, however they end.
	member.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := member.Start(); err != nil {
		return nil, "", err
	}
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + client + "/health")
		if err != nil {
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return member, client, nil
		}
	}
	_ = member.Process.Kill()
	return nil, "", fmt.Errorf("%s was not healthy after %v, see %s", binary, deadline, log.Name())
}

// stopMember asks the member to end, as a service manager would, and insists that it does.
func stopMember(member *exec.Cmd) error {
	if err := member.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- member.Wait() }()
	select {
	case <-ended: // with which code is the process tests' business
		return nil
	case <-time.After(deadline):
		_ = member.Process.Kill()
		return errors.New("it did not end on SIGTERM")
	}
}

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// dial opens a client that the test closes, and a context that ends with the deadline.
func dial(t *testing.T) (*clientv3.Client, context.Context) {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:          endpoints,
		DialTimeout:        5 * time.Second,
		MaxCallSendMsgSize: 8 << 20,
		Logger:             zap.NewNop(), // it warns of every error that a test provokes
	})
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return client, ctx
}

// prefix is where a test keeps its keys, so that tests share a server without seeing each other.
func prefix(t *testing.T) string {
	return t.Name() + "/"
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// put writes a key and returns the revision that it made.
func put(t *testing.T, ctx context.Context, client *clientv3.Client, key, value string, options ...clientv3.OpOption) int64 {
	t.Helper()
	response, err := client.Put(ctx, key, value, options...)
	must(t, err)
	return response.Header.Revision
}
