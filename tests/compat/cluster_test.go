package compat

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// startCluster starts three members of their own, waits until each is healthy, and returns where clients reach them
// and how to kill each.
func startCluster(t *testing.T, flags ...string) (endpoints []string, kill []func()) {
	t.Helper()
	binary := os.Getenv("MAINSTAY_BIN")
	if binary == "" || os.Getenv("MAINSTAY_ENDPOINTS") != "" {
		t.Skip("needs members of its own")
	}
	var clients, peers, cluster []string
	for i := range 3 {
		client, err := freePort()
		must(t, err)
		peer, err := freePort()
		must(t, err)
		clients, peers = append(clients, client), append(peers, peer)
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s", i, peer))
	}
	for i := range 3 {
		home := t.TempDir()
		log, err := os.Create(filepath.Join(home, "member.log"))
		must(t, err)
		member := exec.Command(binary, append([]string{
			fmt.Sprintf("--name=m%d", i), "--data-dir=" + filepath.Join(home, "data"),
			"--listen-client-urls=http://" + clients[i], "--advertise-client-urls=http://" + clients[i],
			"--listen-peer-urls=http://" + peers[i], "--initial-advertise-peer-urls=http://" + peers[i],
			"--initial-cluster=" + strings.Join(cluster, ",")}, flags...)...)
		member.Stdout, member.Stderr = log, log
		member.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		must(t, member.Start())
		must(t, log.Close())
		// In which order they end is nobody's business, and the last has no quorum.
		kill = append(kill, sync.OnceFunc(func() {
			_ = member.Process.Kill()
			_ = member.Wait()
		}))
		t.Cleanup(kill[i])
	}
	for _, client := range clients {
		eventually(t, client+" is healthy", func() bool {
			response, err := http.Get("http://" + client + "/health")
			if err != nil {
				return false
			}
			_ = response.Body.Close()
			return response.StatusCode == http.StatusOK
		})
	}
	return clients, kill
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * deadline); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// to opens a client of one endpoint.
func to(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, DialTimeout: deadline, Logger: zap.NewNop(),
	})
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// members of a cluster by their endpoints, and which of them leads.
func roles(t *testing.T, ctx context.Context, endpoints []string) (ids []uint64, leader int) {
	t.Helper()
	leader = -1
	for _, endpoint := range endpoints {
		status, err := to(t, endpoint).Status(ctx, endpoint)
		must(t, err)
		ids = append(ids, status.Header.MemberId)
		leader = max(leader, slices.Index(ids, status.Leader))
	}
	if leader < 0 {
		// The leader may stand behind those that told of it.
		status, err := to(t, endpoints[0]).Status(ctx, endpoints[0])
		must(t, err)
		leader = slices.Index(ids, status.Leader)
	}
	if leader < 0 {
		t.Fatal("no leader")
	}
	return ids, leader
}
