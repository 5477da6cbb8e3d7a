package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/rest"

	"mainstay/tests/kubernetes/access"
)

const (
	// Within which the store answers again after a fault, also while the fault holds: the others are a majority.
	servesWithin = 30 * time.Second
	// Within which all members are well again.
	wellWithin = 90 * time.Second
	// The API server's process.
	apiServer = "apiserver"
	// A key that is none of the API server's.
	probeKey = "/faults/probe"
)

// The members, and what can be done to them.
type members struct {
	endpoints []string
	one       []*clientv3.Client // of each
	all       *clientv3.Client
	health    *http.Client
	api       rest.Interface
	links     *http.Client
}

func openStore(folder string) (*members, error) {
	m := &members{endpoints: access.Endpoints()}
	if len(m.endpoints) != 3 {
		return nil, fmt.Errorf("STORE_ENDPOINTS: needs three members, not %d", len(m.endpoints))
	}
	tls, err := access.StoreTLS()
	if err != nil {
		return nil, err
	}
	m.health = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{TLSClientConfig: tls, DisableKeepAlives: true}}
	m.links = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket(folder))
		},
	}}
	for _, endpoint := range m.endpoints {
		client, err := access.Store(endpoint)
		if err != nil {
			return nil, err
		}
		m.one = append(m.one, client)
	}
	if m.all, err = access.Store(); err != nil {
		return nil, err
	}
	api, err := access.Client("KUBECONFIG")
	if err != nil {
		return nil, err
	}
	m.api = api.CoreV1().RESTClient()
	return m, nil
}

func (m *members) close() {
	for _, client := range append(m.one, m.all) {
		_ = client.Close()
	}
}

// suffer lets a fault happen and end, and returns when the store is well again.
func (m *members) suffer(ctx context.Context, fault fault) error {
	started := time.Now()
	told, err := m.inflict(ctx, fault)
	if err != nil {
		return fmt.Errorf("%s: %w", fault.kind, err)
	}
	ended := time.Now()
	if err := m.waitUntilWell(ctx); err != nil {
		return fmt.Errorf("after %s: %w", fault.kind, err)
	}
	fmt.Printf("  %6d ms  %s: %s; all well %d ms after its end\n", time.Since(started).Milliseconds(), fault.kind, told,
		time.Since(ended).Milliseconds())
	return pause(ctx, fault.quiet)
}

func (m *members) inflict(ctx context.Context, fault fault) (told string, err error) {
	// One that has ended by itself must not pass for one that was killed.
	for _, process := range []string{name(0), name(1), name(2), apiServer} {
		if output, err := exec.CommandContext(ctx, os.Getenv("PROCESS"), "pid", process).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s does not run: %w: %s", process, err, output)
		}
	}
	leader, err := m.leader(ctx)
	if err != nil {
		return "", err
	}
	followers := slices.DeleteFunc([]int{0, 1, 2}, func(member int) bool { return member == leader })
	switch fault.kind {
	case killLeader:
		return m.kill(ctx, leader, fault.hold)
	case killFollower:
		return m.kill(ctx, followers[fault.victim%2], fault.hold)
	case isolateLeader:
		return m.isolate(ctx, leader, fault.hold)
	case restartAll:
		return m.restartAll(ctx)
	case compact:
		return m.compact(ctx)
	case defragment:
		for member, endpoint := range m.endpoints {
			if _, err := m.one[member].Defragment(ctx, endpoint); err != nil {
				return "", err
			}
		}
		return "three members", nil
	case saveSnapshot:
		return m.saveSnapshot(ctx, fault.victim%3)
	case restartAPI:
		return m.restartAPI(ctx, fault.hold/3)
	}
	return "", errors.New("unknown fault")
}

func (m *members) kill(ctx context.Context, member int, hold time.Duration) (string, error) {
	before, err := m.one[member].Status(ctx, m.endpoints[member])
	if err != nil {
		return "", err
	}
	if err := process(ctx, "stop", name(member), "KILL"); err != nil {
		return "", err
	}
	served, err := m.servesWithout(ctx, member)
	if err == nil {
		err = m.othersLead(ctx, member, before.Header.MemberId)
	}
	if err != nil {
		return "", err
	}
	if err := pause(ctx, hold); err != nil {
		return "", err
	}
	return fmt.Sprintf("member %d, the others served after %d ms", member, served.Milliseconds()), process(ctx, "again", name(member))
}

func (m *members) isolate(ctx context.Context, member int, hold time.Duration) (string, error) {
	before, err := m.one[member].Status(ctx, m.endpoints[member])
	if err != nil {
		return "", err
	}
	if err := m.tellLinks(ctx, fmt.Sprintf("isolate?member=%d", member)); err != nil {
		return "", err
	}
	// It is healed whatever comes.
	served, err := m.servesWithout(ctx, member)
	if err == nil {
		err = m.isCutOff(ctx, member, before.Header.MemberId)
	}
	if err == nil {
		err = pause(ctx, hold)
	}
	return fmt.Sprintf("member %d, the others served after %d ms", member, served.Milliseconds()),
		errors.Join(err, m.tellLinks(context.WithoutCancel(ctx), "heal"))
}

// othersLead waits until one of the other members leads them; the one that they are without has this id.
func (m *members) othersLead(ctx context.Context, member int, id uint64) error {
	other := (member + 1) % len(m.one)
	return until(ctx, servesWithin, func(ctx context.Context) error {
		status, err := m.one[other].Status(ctx, m.endpoints[other])
		if err == nil && (status.Leader == 0 || status.Leader == id) {
			err = fmt.Errorf("without member %d, %x, the leader is %x to member %d", member, id, status.Leader, other)
		}
		return err
	})
}

// isCutOff is an error where a cut has cut nothing: the others have another leader, and one alone takes no write, and
// has no answer to who asks for the newest.
func (m *members) isCutOff(ctx context.Context, member int, id uint64) error {
	if err := m.othersLead(ctx, member, id); err != nil {
		return err
	}
	writing, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := m.one[member].Put(writing, probeKey, "alone"); err == nil {
		return fmt.Errorf("member %d is cut off, and has taken a write", member)
	}
	reading, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if read, err := m.one[member].Get(reading, probeKey); err == nil {
		return fmt.Errorf("member %d is cut off, and has told revision %d as the newest", member, read.Header.Revision)
	}
	return ctx.Err()
}

func (m *members) restartAll(ctx context.Context) (string, error) {
	for member := range m.endpoints {
		if err := process(ctx, "stop", name(member)); err != nil {
			return "", err
		}
		if err := process(ctx, "again", name(member)); err != nil {
			return "", err
		}
		if err := m.waitUntilWell(ctx); err != nil {
			return "", err
		}
	}
	return "three members, one by one", nil
}

// compact forgets all but the newest, so that whoever is behind has to list again. What was before is gone at once.
func (m *members) compact(ctx context.Context) (string, error) {
	now, err := m.all.Get(ctx, probeKey)
	if err != nil {
		return "", err
	}
	revision := now.Header.Revision
	if revision < 2 {
		return "", fmt.Errorf("at revision %d there is nothing to forget", revision)
	}
	_, err = m.all.Compact(ctx, revision, clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) { // the API server was faster
		return "", err
	}
	_, err = m.all.Get(ctx, probeKey, clientv3.WithRev(revision-1))
	if !errors.Is(err, rpctypes.ErrCompacted) {
		return "", fmt.Errorf("compacted at revision %d, and a read of the one before ends with: %v", revision, err)
	}
	return fmt.Sprintf("revision %d", revision), nil
}

// restartAPI kills the API server and starts it again, so that all watches break. The store goes on meanwhile, so that
// the new one begins at a revision which nobody has come to, and has nothing for who goes on from where he was.
func (m *members) restartAPI(ctx context.Context, hold time.Duration) (string, error) {
	if err := process(ctx, "stop", apiServer, "KILL"); err != nil {
		return "", err
	}
	_, err := m.all.Put(ctx, probeKey, "without the API server")
	if err == nil {
		err = pause(ctx, hold)
	}
	// It comes back whatever comes.
	if err := errors.Join(err, process(ctx, "again", apiServer)); err != nil {
		return "", err
	}
	started := time.Now()
	if err := m.apiIsReady(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("away for %d ms, ready after %d ms", hold.Milliseconds(), time.Since(started).Milliseconds()), nil
}

// apiIsReady waits until the API server says that it is.
func (m *members) apiIsReady(ctx context.Context) error {
	err := until(ctx, wellWithin, func(ctx context.Context) error {
		_, err := m.api.Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("the API server is not ready: %w", err)
	}
	return nil
}

// saveSnapshot reads a whole snapshot, checks its hash, which is its end, and restores it.
func (m *members) saveSnapshot(ctx context.Context, member int) (string, error) {
	response, err := m.one[member].SnapshotWithVersion(ctx)
	if err != nil {
		return "", err
	}
	defer response.Snapshot.Close()
	bytes, err := io.ReadAll(response.Snapshot)
	if err != nil {
		return "", err
	}
	end := len(bytes) - sha256.Size
	if end <= 0 || end%512 != 0 {
		return "", fmt.Errorf("a snapshot of %d bytes is no database with its hash", len(bytes))
	}
	if sha256.Sum256(bytes[:end]) != [sha256.Size]byte(bytes[end:]) {
		return "", errors.New("the snapshot's hash is not that of its content")
	}
	restored, err := m.restore(ctx, bytes)
	if err != nil {
		return "", fmt.Errorf("restored: %w", err)
	}
	return fmt.Sprintf("of member %d, %d KiB, restored by etcd with all of %d keys", member, end>>10, restored), nil
}

// leader is the member that leads, in the eyes of all that can be asked.
func (m *members) leader(ctx context.Context) (int, error) {
	for end := time.Now().Add(servesWithin); ; {
		for member, endpoint := range m.endpoints {
			attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
			status, err := m.one[member].Status(attempt, endpoint)
			cancel()
			if err == nil && status.Leader == status.Header.MemberId {
				return member, nil
			}
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("no member leads for %v", servesWithin)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// servesWithout waits until the other members take a write, and says how long that took.
func (m *members) servesWithout(ctx context.Context, member int) (time.Duration, error) {
	started := time.Now()
	other := (member + 1) % len(m.one)
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		_, err := m.one[other].Put(attempt, probeKey, "served")
		cancel()
		switch {
		case err == nil:
			return time.Since(started), nil
		case time.Since(started) > servesWithin:
			return 0, fmt.Errorf("without member %d the others serve nothing for %v: %w", member, servesWithin, err)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// waitUntilWell returns when every member says that it is well, and reads and writes through a quorum.
func (m *members) waitUntilWell(ctx context.Context) error {
	for end := time.Now().Add(wellWithin); ; {
		err := m.well(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not all members are well after %v: %w", wellWithin, err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (m *members) well(ctx context.Context) error {
	for member, endpoint := range m.endpoints {
		response, err := m.health.Get(endpoint + "/health")
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("member %d: /health says %s", member, response.Status)
		}
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err = m.one[member].Put(attempt, probeKey, "well")
		if err == nil {
			_, err = m.one[member].Get(attempt, probeKey)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("member %d: %w", member, err)
		}
	}
	return nil
}

// process has tests/kubernetes/process.sh do something to one. It has nothing to say but complaints.
func process(ctx context.Context, verb, name string, more ...string) error {
	// Not to be cut short: what is down has to come back.
	command := exec.CommandContext(context.WithoutCancel(ctx), os.Getenv("PROCESS"), append([]string{verb, name}, more...)...)
	if output, err := command.CombinedOutput(); err != nil || len(output) > 0 {
		return errors.Join(fmt.Errorf("%s %s: %s", verb, name, strings.TrimSpace(string(output))), err)
	}
	return ctx.Err()
}

// name of a member's process.
func name(member int) string { return fmt.Sprintf("member-%d", member) }

func (m *members) tellLinks(ctx context.Context, what string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://links/"+what, nil)
	if err != nil {
		return err
	}
	response, err := m.links.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s: %s %s", what, response.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

// pause waits, unless it is all over.
func pause(ctx context.Context, long time.Duration) error {
	select {
	case <-time.After(long):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
