package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// restore starts etcd from a snapshot, as is done where all members are lost, and holds every key against what the
// members have of its revision. It says how many there are.
func (m *members) restore(ctx context.Context, snapshot []byte) (int, error) {
	tools := os.Getenv("ETCD_TOOLS")
	if tools == "" {
		return 0, errors.New("ETCD_TOOLS is not set: this is run by tests/kubernetes/run.sh")
	}
	folder, err := os.MkdirTemp(os.Getenv("KUBERNETES_RUN"), "restored.")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	file, data := filepath.Join(folder, "snapshot.db"), filepath.Join(folder, "restored.etcd")
	if err := os.WriteFile(file, snapshot, 0o600); err != nil {
		return 0, err
	}
	etcdutl := func(arguments ...string) ([]byte, error) {
		command := exec.CommandContext(ctx, filepath.Join(tools, "etcdutl"), arguments...)
		var complaints bytes.Buffer
		command.Stderr = &complaints
		output, err := command.Output()
		if err != nil {
			err = fmt.Errorf("etcdutl %s: %w: %s", strings.Join(arguments, " "), err, complaints.String())
		}
		return output, err
	}
	text, err := etcdutl("snapshot", "status", file, "--write-out=json")
	if err != nil {
		return 0, err
	}
	var status struct{ Revision int64 }
	if err := json.Unmarshal(text, &status); err != nil {
		return 0, fmt.Errorf("etcdutl snapshot status: %w: %s", err, text)
	}
	// Before the API server has it forgotten.
	wanted, err := everything(ctx, m.all, status.Revision)
	if err != nil {
		return 0, err
	}

	urls, err := freeURLs(2)
	if err != nil {
		return 0, err
	}
	client, peer := urls[0], urls[1]
	cluster := []string{"--name=restored", "--data-dir=" + data, "--initial-cluster=restored=" + peer, "--initial-advertise-peer-urls=" + peer}
	if _, err := etcdutl(append([]string{"snapshot", "restore", file}, cluster...)...); err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	etcd := exec.CommandContext(running, filepath.Join(tools, "etcd"), append(cluster,
		"--listen-peer-urls="+peer, "--listen-client-urls="+client, "--advertise-client-urls="+client, "--log-level=error")...)
	var said bytes.Buffer
	etcd.Stdout, etcd.Stderr = &said, &said
	if err := etcd.Start(); err != nil {
		stop()
		return 0, err
	}
	found, err := readFrom(ctx, client, status.Revision)
	stop()
	_ = etcd.Wait() // it was killed
	if err != nil {
		return 0, fmt.Errorf("%w; etcd said: %s", err, said.String())
	}
	return len(found), differ(found, wanted)
}

// readFrom waits until there is a member at this URL, and reads all that it has of a revision.
func readFrom(ctx context.Context, url string, revision int64) ([]*mvccpb.KeyValue, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var found []*mvccpb.KeyValue
	err = until(ctx, servesWithin, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		found, err = everything(ctx, client, revision)
		return err
	})
	return found, err
}

func everything(ctx context.Context, store *clientv3.Client, revision int64) ([]*mvccpb.KeyValue, error) {
	all, err := store.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(revision))
	if err != nil {
		return nil, err
	}
	return all.Kvs, nil
}

// differ says where two lists of keys, both in order, are not the same.
func differ(found, wanted []*mvccpb.KeyValue) error {
	if len(found) != len(wanted) || len(wanted) == 0 {
		return fmt.Errorf("there are %d keys, and the members have %d", len(found), len(wanted))
	}
	for i, one := range found {
		other := wanted[i]
		if !bytes.Equal(one.Key, other.Key) || !bytes.Equal(one.Value, other.Value) || one.CreateRevision != other.CreateRevision ||
			one.ModRevision != other.ModRevision || one.Version != other.Version || one.Lease != other.Lease {
			return fmt.Errorf("there is %s of revision %d, and the members have %s of %d, or another value", one.Key, one.ModRevision,
				other.Key, other.ModRevision)
		}
	}
	return nil
}

// freeURLs are so many that nobody listens on, of ports below the range from which the system takes those of connections
// that go out, as in lib.sh: a member's connection must not be in the way.
func freeURLs(count int) ([]string, error) {
	var urls []string
	first := 20_000 + rand.IntN(10_000)
	for port := first; port < first+1000; port++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		urls = append(urls, "http://"+listener.Addr().String())
		if err := listener.Close(); err != nil || len(urls) == count {
			return urls, err
		}
	}
	return nil, fmt.Errorf("of the ports from %d on none is free", first)
}
