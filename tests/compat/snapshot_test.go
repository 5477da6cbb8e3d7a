package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestSnapshotIsEtcds: etcd's tools accept what etcdctl saves, and an etcd that is restored from it is at the
// same revision, with the same history, leases and hashes.
func TestSnapshotIsEtcds(t *testing.T) {
	for _, compaction := range []string{"not compacted", "compacted", "compacted at a tombstone", "all compacted"} {
		t.Run(compaction, func(t *testing.T) {
			source := ownMember(t)
			ctx, client := source.ctx, source.client
			kept := history(t, ctx, client)
			switch compaction {
			case "compacted":
				_, err := client.Compact(ctx, kept.middle, clientv3.WithCompactPhysical())
				must(t, err)
			case "compacted at a tombstone":
				_, err := client.Compact(ctx, kept.tombstone)
				must(t, err)
			case "all compacted":
				_, err := client.Delete(ctx, "", clientv3.WithPrefix())
				must(t, err)
				status, err := client.Get(ctx, "x")
				must(t, err)
				_, err = client.Compact(ctx, status.Header.Revision)
				must(t, err)
			}
			restored := restore(t, source)
			compareMembers(t, source, restored, kept)

			// It is a database to go on with, not only one to look at.
			for i := range 200 {
				_, err := restored.client.Put(ctx, fmt.Sprintf("more/%d", i), strings.Repeat("v", i*50))
				must(t, err)
			}
			_, err := restored.client.Defragment(ctx, restored.endpoint)
			must(t, err)
		})
	}
}

// TestSnapshotOfMany: with many keys, each with history, users and leases too, the file is complete, and the
// member needs little memory to make it. KEYS=1000000 asks for more than the small
// default (with -timeout=40m).
func TestSnapshotOfMany(t *testing.T) {
	keys := 20_000
	if asked := os.Getenv("KEYS"); asked != "" {
		var err error
		keys, err = strconv.Atoi(asked)
		must(t, err)
	}
	const batch = 100
	source := ownMember(t)
	ctx, cancel := context.WithTimeout(t.Context(), deadline+time.Duration(keys)*2*time.Millisecond)
	defer cancel()
	source.ctx = ctx
	client := source.client
	kept := kept{granted: time.Now()}
	for id := range 200 {
		grant, err := client.Grant(ctx, 3000+int64(id))
		must(t, err)
		kept.leases = append(kept.leases, grant.ID)
	}
	var putting sync.WaitGroup
	batches := make(chan int)
	for range 16 {
		putting.Go(func() {
			for from := range batches {
				// The second round writes every third key again, the third removes every tenth.
				for round := range 3 {
					var operations []clientv3.Op
					for key := from; key < from+batch; key++ {
						name := fmt.Sprintf("many/%09d", key)
						switch {
						case round == 0 && key%50 == 0:
							operations = append(operations, clientv3.OpPut(name, strings.Repeat("x", 256), clientv3.WithLease(kept.leases[key/50%200])))
						case round == 0 || round == 1 && key%3 == 0:
							operations = append(operations, clientv3.OpPut(name, strings.Repeat("x", 256)))
						case round == 2 && key%10 == 7:
							operations = append(operations, clientv3.OpDelete(name))
						}
					}
					if _, err := client.Txn(ctx).Then(operations...).Commit(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for from := 0; from < keys; from += batch {
		batches <- from
	}
	close(batches)
	putting.Wait()
	for id := range 50 {
		role, user := fmt.Sprintf("role-%d", id), fmt.Sprintf("user-%d", id)
		_, err := client.RoleAdd(ctx, role)
		must(t, err)
		_, err = client.RoleGrantPermission(ctx, role, role, user, clientv3.PermissionType(clientv3.PermReadWrite))
		must(t, err)
		_, err = client.UserAddWithOptions(ctx, user, "", &clientv3.UserAddOptions{NoPassword: true})
		must(t, err)
		_, err = client.UserGrantRole(ctx, user, role)
		must(t, err)
	}

	before, peak := source.resident(t), 0
	sampled, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sampled)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				peak = max(peak, source.resident(t))
			}
		}
	}()
	started := time.Now()
	restored := restore(t, source)
	close(stop)
	<-sampled
	t.Logf("%d keys, revision %d: saved and restored in %s; the member had %d MiB before and %d MiB at most",
		keys, revision(t, source), time.Since(started).Round(time.Millisecond), before>>20, peak>>20)
	if peak-before > 256<<20 {
		t.Fatalf("memory grew from %d to %d bytes for a snapshot", before, peak)
	}

	at := revision(t, source)
	equal(t, "revision", revision(t, restored), at)
	for _, at := range []int64{0, at, at / 2, at / 3} {
		equal(t, fmt.Sprintf("hash at %d", at), hashKV(t, restored, at), hashKV(t, source, at))
	}
	compareLeases(t, source, restored, kept)
	describe := func(of own) string {
		users, err := of.client.UserList(ctx)
		must(t, err)
		roles, err := of.client.RoleList(ctx)
		must(t, err)
		text := fmt.Sprint(users.Users, roles.Roles)
		for _, name := range users.Users {
			user, err := of.client.UserGet(ctx, name)
			must(t, err)
			role, err := of.client.RoleGet(ctx, user.Roles[0])
			must(t, err)
			text += fmt.Sprint(user.Roles, role.Perm)
		}
		return text
	}
	equal(t, "users and roles", describe(restored), describe(source))
}

// resident is the memory of a member's process that is not its files', in bytes.
func (of own) resident(t *testing.T) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", of.process))
	must(t, err)
	var kib int
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatal("the kernel does not tell what memory a process has")
	return 0
}

// TestSnapshotOfEmptyMember: there are buckets also where nothing was ever written.
func TestSnapshotOfEmptyMember(t *testing.T) {
	source := ownMember(t)
	compareMembers(t, source, restore(t, source), kept{})
}

// TestSnapshotWhilePutting: the file is of one moment, and nobody waits for it.
func TestSnapshotWhilePutting(t *testing.T) {
	source := ownMember(t)
	ctx, stop := context.WithCancel(source.ctx)
	value := strings.Repeat("v", 500_000)
	for i := range 60 {
		_, err := source.client.Put(ctx, fmt.Sprintf("k%04d", i), value)
		must(t, err)
	}
	var putting sync.WaitGroup
	putting.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			// Both keys always have the same value.
			key, value := fmt.Sprint(i), fmt.Sprint(i)
			_, _ = source.client.Txn(ctx).Then(clientv3.OpPut("left", value), clientv3.OpPut("right", value), clientv3.OpPut(key, "")).Commit()
		}
	})
	restored := restore(t, source)
	stop()
	putting.Wait()
	ctx = source.ctx
	left, err := restored.client.Get(ctx, "left")
	must(t, err)
	right, err := restored.client.Get(ctx, "right")
	must(t, err)
	equal(t, "revision of left", left.Kvs[0].ModRevision, left.Header.Revision)
	equal(t, "right", string(right.Kvs[0].Value), string(left.Kvs[0].Value))
	at := left.Header.Revision
	equal(t, "hash", hashKV(t, restored, at), hashKV(t, source, at))
}

// TestSnapshotHoldsUsers: who may do what is the same in the etcd that is restored, passwords included.
func TestSnapshotHoldsUsers(t *testing.T) {
	source := ownMember(t)
	ctx, client := source.ctx, source.client
	_, err := client.RoleAdd(ctx, "reader")
	must(t, err)
	_, err = client.RoleGrantPermission(ctx, "reader", "a", "c", clientv3.PermissionType(clientv3.PermRead))
	must(t, err)
	for _, user := range []string{"root", "ann"} {
		_, err = client.UserAdd(ctx, user, user+"'s secret")
		must(t, err)
	}
	_, err = client.UserAddWithOptions(ctx, "without", "", &clientv3.UserAddOptions{NoPassword: true})
	must(t, err)
	_, err = client.RoleAdd(ctx, "root")
	must(t, err)
	_, err = client.UserGrantRole(ctx, "root", "root")
	must(t, err)
	_, err = client.UserGrantRole(ctx, "ann", "reader")
	must(t, err)
	put(t, ctx, client, "b", "1")
	_, err = client.AuthEnable(ctx)
	must(t, err)

	restored := restore(t, source, "--user=root:root's secret")
	login := func(of own, user string) *clientv3.Client {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{of.endpoint}, DialTimeout: deadline, Username: user, Password: user + "'s secret"})
		must(t, err)
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	describe := func(of own) string {
		root, ann := login(of, "root"), login(of, "ann")
		status, err := root.AuthStatus(of.ctx)
		must(t, err)
		users, err := root.UserList(of.ctx)
		must(t, err)
		user, err := root.UserGet(of.ctx, "ann")
		must(t, err)
		role, err := root.RoleGet(of.ctx, "reader")
		must(t, err)
		got, err := ann.Get(of.ctx, "b")
		must(t, err)
		_, refused := ann.Put(of.ctx, "b", "2")
		return fmt.Sprint(status.Enabled, status.AuthRevision, users.Users, user.Roles, role.Perm, len(got.Kvs), refused)
	}
	equal(t, "users and roles", describe(restored), describe(source))
}

type own struct {
	ctx      context.Context
	client   *clientv3.Client
	endpoint string
	process  int
}

// ownMember starts a member for this test alone.
func ownMember(t *testing.T) own {
	binary := os.Getenv("MAINSTAY_BIN")
	if binary == "" || os.Getenv("MAINSTAY_ENDPOINTS") != "" {
		t.Skip("needs MAINSTAY_BIN to start a member of its own")
	}
	return start(t, binary, t.TempDir())
}

func start(t *testing.T, binary, home string) own {
	member, endpoint, err := startMember(binary, home)
	must(t, err)
	t.Cleanup(func() { must(t, stopMember(member)) })
	ctx, cancel := context.WithTimeout(context.Background(), 10*deadline)
	t.Cleanup(cancel)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: deadline})
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return own{ctx, client, endpoint, member.Process.Pid}
}

type kept struct {
	leases            []clientv3.LeaseID
	granted           time.Time
	middle, tombstone int64
}

// history writes what has many forms in a file: revisions of several changes, tombstones, keys that come
// again, values of many sizes, keys of odd bytes, leases with and without keys, one with a negative id.
func history(t *testing.T, ctx context.Context, client *clientv3.Client) kept {
	random := rand.New(rand.NewSource(7))
	var done kept
	for _, id := range []clientv3.LeaseID{7, 1 << 62, -3} {
		grant, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(id), TTL: 3000 + int64(id)%100})
		must(t, err)
		done.leases = append(done.leases, clientv3.LeaseID(grant.ID))
	}
	put(t, ctx, client, "leased/a", "1", clientv3.WithLease(7))
	put(t, ctx, client, "leased/b", "1", clientv3.WithLease(-3))
	put(t, ctx, client, "leased/b", "2", clientv3.WithLease(7))
	put(t, ctx, client, "\x00\xff odd", "")
	for i := range 300 {
		key := fmt.Sprintf("k/%d", random.Intn(60))
		switch random.Intn(5) {
		case 0:
			deleted, err := client.Delete(ctx, key)
			must(t, err)
			if deleted.Deleted > 0 {
				done.tombstone = deleted.Header.Revision
			}
		case 1:
			_, err := client.Txn(ctx).Then(clientv3.OpPut("t/"+key, "txn"), clientv3.OpDelete("k/1", clientv3.WithRange("k/3")), clientv3.OpPut("t/"+key+"+", "txn")).Commit()
			must(t, err)
		default:
			put(t, ctx, client, key, strings.Repeat("x", random.Intn(3)*random.Intn(5000)))
		}
		if i == 150 {
			status, err := client.Get(ctx, key)
			must(t, err)
			done.middle = status.Header.Revision
		}
	}
	put(t, ctx, client, "large", strings.Repeat("y", 1_500_000))
	return done
}

// restore saves a snapshot, has it judged by etcdutl and bbolt, and starts etcd from it.
func restore(t *testing.T, source own, flags ...string) own {
	etcdctl := os.Getenv("ETCDCTL")
	tool := func(name string, arguments ...string) string {
		command := exec.Command(filepath.Join(filepath.Dir(etcdctl), name), arguments...)
		command.Env = append(os.Environ(), "ETCDCTL_ENDPOINTS="+source.endpoint)
		var stderr bytes.Buffer
		command.Stderr = &stderr
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s%s", name, arguments, err, out, stderr.String())
		}
		return string(out)
	}
	home := t.TempDir()
	file := filepath.Join(home, "snapshot.db")
	tool("etcdctl", append(flags, "snapshot", "save", file)...)
	equal(t, "bbolt check", tool("bbolt", "check", file), "OK\n")

	var status struct {
		Revision  int64
		TotalSize int64
		Version   string
	}
	must(t, json.Unmarshal([]byte(tool("etcdutl", "snapshot", "status", file, "-w", "json")), &status))
	info, err := os.Stat(file)
	must(t, err)
	equal(t, "size", status.TotalSize, info.Size()-32)
	equal(t, "version", status.Version, "3.7.0")

	peer, err := freePort()
	must(t, err)
	tool("etcdutl", "snapshot", "restore", file, "--data-dir="+filepath.Join(home, "compat.etcd"), "--name=compat",
		"--initial-cluster=compat=http://"+peer, "--initial-advertise-peer-urls=http://"+peer)
	return start(t, filepath.Join(filepath.Dir(etcdctl), "etcd"), home)
}

// compareMembers compares what two members answer.
func compareMembers(t *testing.T, a, b own, kept kept) {
	current := revision(t, a)
	equal(t, "revision", revision(t, b), current)
	compacted := hashKV(t, a, 0).compacted
	equal(t, "hash", hashKV(t, b, 0), hashKV(t, a, 0))
	for at := max(compacted, 1); at <= current; at++ {
		if at%7 != 0 && at != compacted && at+3 < current {
			continue
		}
		equal(t, fmt.Sprintf("keys at %d", at), everything(t, b, at), everything(t, a, at))
		// etcd keeps the hash of the compacted revision as it was before the compaction.
		if at > compacted {
			equal(t, fmt.Sprintf("hash at %d", at), hashKV(t, b, at), hashKV(t, a, at))
		}
	}
	if compacted > 0 {
		_, err := b.client.Get(b.ctx, "x", clientv3.WithRev(compacted-1))
		equal(t, "read below the compaction", fmt.Sprint(err), "etcdserver: mvcc: required revision has been compacted")
	}
	compareLeases(t, a, b, kept)
}

// compareLeases compares all ids, and the time and the keys of some leases.
func compareLeases(t *testing.T, a, b own, kept kept) {
	list := func(of own) string {
		leases, err := of.client.Leases(of.ctx)
		must(t, err)
		ids := make([]int64, 0)
		for _, lease := range leases.Leases {
			ids = append(ids, int64(lease.ID))
		}
		slices.Sort(ids)
		return fmt.Sprint(ids)
	}
	equal(t, "leases", list(b), list(a))
	for _, lease := range kept.leases {
		describe := func(of own) string {
			told, err := of.client.TimeToLive(of.ctx, lease, clientv3.WithAttachedKeys())
			must(t, err)
			lived := int64(100)
			if !kept.granted.IsZero() {
				lived += int64(time.Since(kept.granted).Seconds())
			}
			if told.TTL > told.GrantedTTL || told.TTL < told.GrantedTTL-lived {
				t.Fatalf("lease %d has %d of %d left", lease, told.TTL, told.GrantedTTL)
			}
			slices.SortFunc(told.Keys, bytes.Compare) // etcd has no order for them
			return fmt.Sprintf("%d %q", told.GrantedTTL, told.Keys)
		}
		equal(t, fmt.Sprintf("lease %d", lease), describe(b), describe(a))
	}
}

func revision(t *testing.T, of own) int64 {
	got, err := of.client.Get(of.ctx, "x")
	must(t, err)
	return got.Header.Revision
}

// everything lists all keys at a revision; large values by their length.
func everything(t *testing.T, of own, at int64) string {
	got, err := of.client.Get(of.ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(at))
	must(t, err)
	var text strings.Builder
	for _, kv := range got.Kvs {
		fmt.Fprintf(&text, "%q %d %d %d %d %d\n", kv.Key, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease, len(kv.Value))
	}
	return text.String()
}

type hashed struct {
	hash      uint32
	compacted int64
}

func hashKV(t *testing.T, of own, at int64) hashed {
	got, err := of.client.HashKV(of.ctx, of.endpoint, at)
	must(t, err)
	return hashed{got.Hash, got.CompactRevision}
}
