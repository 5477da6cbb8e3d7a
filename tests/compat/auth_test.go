package compat

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// guarded starts a member of its own, with user root (password "root") and alice ("alice"), who may
// read and write what begins with "a", and authentication on.
func guarded(t *testing.T, flags ...string) (endpoint string, ctx context.Context) {
	t.Helper()
	binary := os.Getenv("MAINSTAY_BIN")
	if binary == "" || os.Getenv("MAINSTAY_ENDPOINTS") != "" {
		t.Skip("needs a member of its own")
	}
	member, endpoint, err := startMember(binary, t.TempDir(), flags...)
	must(t, err)
	t.Cleanup(func() { must(t, stopMember(member)) })
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	t.Cleanup(cancel)
	open := as(t, endpoint, "", "")
	for _, name := range []string{"root", "alice"} {
		_, err = open.UserAdd(ctx, name, name)
		must(t, err)
	}
	_, err = open.UserGrantRole(ctx, "root", "root")
	must(t, err)
	mayUseA(ctx, t, open, "alice")
	_, err = open.AuthEnable(ctx)
	must(t, err)
	return endpoint, ctx
}

// mayUseA lets a user read and write the keys that begin with a.
func mayUseA(ctx context.Context, t *testing.T, client *clientv3.Client, user string) {
	t.Helper()
	_, err := client.RoleAdd(ctx, "a")
	must(t, err)
	_, err = client.RoleGrantPermission(ctx, "a", "a", "b", clientv3.PermissionType(clientv3.PermReadWrite))
	must(t, err)
	_, err = client.UserGrantRole(ctx, user, "a")
	must(t, err)
}

// as opens a client of a user; without a name, of nobody.
func as(t *testing.T, endpoint, name, password string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, Username: name, Password: password, DialTimeout: deadline,
	})
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// plain opens a connection that adds nothing and tries nothing again.
func plain(t *testing.T, endpoint string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// logIn returns a token and an API on which it can be used.
func logIn(t *testing.T, ctx context.Context, endpoint, name, password string) (string, pb.KVClient) {
	t.Helper()
	connection := plain(t, endpoint)
	response, err := pb.NewAuthClient(connection).Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: password})
	must(t, err)
	return response.Token, pb.NewKVClient(connection)
}

func with(ctx context.Context, pairs ...string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(pairs...))
}

// refused checks the whole text of an error, with its code.
func refused(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || err.Error() != text {
		t.Fatalf("got %v, want %s", err, text)
	}
}

const (
	noUser       = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
	invalidToken = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
	denied       = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
	oldRevision  = "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
	wrongLogIn   = "rpc error: code = InvalidArgument desc = etcdserver: authentication failed, invalid user ID or password"
)

var get = &pb.RangeRequest{Key: []byte("a")}

func TestSimpleTokens(t *testing.T) {
	endpoint, ctx := guarded(t, "--auth-token-ttl=3", "--bcrypt-cost=4")
	root := as(t, endpoint, "root", "root")
	token, kv := logIn(t, ctx, endpoint, "alice", "alice")
	if !regexp.MustCompile(`^[a-zA-Z]{16}\.[0-9]+$`).MatchString(token) {
		t.Fatalf("token %q", token)
	}
	_, err := kv.Range(ctx, get)
	refused(t, err, noUser)
	for _, pairs := range [][]string{
		{"token", token}, {"authorization", token}, {"authorization", "Bearer " + token}, {"token", "Bearer " + token},
		{"authorization", "nonsense", "token", token},
	} {
		_, err = kv.Range(with(ctx, pairs...), get)
		must(t, err)
	}
	for _, pairs := range [][]string{
		{"token", ""}, {"token", "x"}, {"token", "x.0"}, {"token", token + "1.1"}, {"token", "nonsense", "authorization", token},
		{"token", "bearer " + token}, {"token", strings.ToUpper(token)},
	} {
		_, err = kv.Range(with(ctx, pairs...), get)
		refused(t, err, invalidToken)
		_, err = kv.Put(with(ctx, pairs...), &pb.PutRequest{Key: []byte("a")})
		refused(t, err, invalidToken)
	}
	_, err = kv.Range(with(ctx, "token", token), &pb.RangeRequest{Key: []byte("b")})
	refused(t, err, denied)

	// Changes of users and roles do not make it invalid, but are felt at once.
	_, err = root.RoleRevokePermission(ctx, "a", "a", "b")
	must(t, err)
	_, err = kv.Range(with(ctx, "token", token), get)
	refused(t, err, denied)
	_, err = root.RoleGrantPermission(ctx, "a", "a", "b", clientv3.PermissionType(clientv3.PermRead))
	must(t, err)
	_, err = kv.Range(with(ctx, "token", token), get)
	must(t, err)

	// It lives as long as it is used.
	for range 4 {
		time.Sleep(1500 * time.Millisecond)
		_, err = kv.Range(with(ctx, "token", token), get)
		must(t, err)
	}
	time.Sleep(5 * time.Second)
	_, err = kv.Range(with(ctx, "token", token), get)
	refused(t, err, invalidToken)

	token, kv = logIn(t, ctx, endpoint, "alice", "alice")
	_, err = root.UserChangePassword(ctx, "alice", "other")
	must(t, err)
	_, err = kv.Range(with(ctx, "token", token), get)
	refused(t, err, invalidToken)
	token, kv = logIn(t, ctx, endpoint, "alice", "other")
	_, err = root.UserDelete(ctx, "alice")
	must(t, err)
	_, err = kv.Range(with(ctx, "token", token), get)
	refused(t, err, invalidToken)
	token, kv = logIn(t, ctx, endpoint, "root", "root")
	_, err = root.AuthDisable(ctx)
	must(t, err)
	_, err = kv.Range(with(ctx, "token", "nonsense"), get)
	must(t, err)
	_, err = as(t, endpoint, "", "").AuthEnable(ctx)
	must(t, err)
	_, err = kv.Range(with(ctx, "token", token), get)
	refused(t, err, invalidToken)
}

func TestPasswords(t *testing.T) {
	endpoint, ctx := guarded(t, "--bcrypt-cost=4")
	root := as(t, endpoint, "root", "root")
	auth := pb.NewAuthClient(plain(t, endpoint))
	_, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "alice", Password: "wrong"})
	refused(t, err, wrongLogIn)
	_, err = auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "alice"})
	refused(t, err, wrongLogIn)
	_, err = auth.Authenticate(ctx, &pb.AuthenticateRequest{})
	refused(t, err, wrongLogIn)
	_, err = root.UserAddWithOptions(ctx, "bob", "", &clientv3.UserAddOptions{NoPassword: true})
	must(t, err)
	_, err = auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "bob", Password: "x"})
	refused(t, err, "rpc error: code = Unknown desc = auth: authentication failed, password was given for no password user")
	_, err = root.UserAdd(ctx, "carol", strings.Repeat("x", 73))
	refused(t, err, "rpc error: code = Unknown desc = bcrypt: password length exceeds 72 bytes")
	_, err = root.UserAdd(ctx, "carol", strings.Repeat("x", 72))
	must(t, err)
	logIn(t, ctx, endpoint, "carol", strings.Repeat("x", 72))

	// A client may change a password by its hash.
	token, _ := logIn(t, ctx, endpoint, "root", "root")
	hash := []byte("$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC")
	change := &pb.AuthUserChangePasswordRequest{Name: "alice", HashedPassword: base64.StdEncoding.EncodeToString(hash)}
	_, err = auth.UserChangePassword(with(ctx, "token", token), change)
	must(t, err)
	logIn(t, ctx, endpoint, "alice", "abcdefghijklmnopqrstuvwxyz")
	change.HashedPassword = "no base64"
	_, err = auth.UserChangePassword(with(ctx, "token", token), change)
	refused(t, err, "rpc error: code = Unknown desc = auth: authentication failed, password was given for no password user")
}

// Every method, by nobody and by somebody who may not.
func TestAccessOfMethods(t *testing.T) {
	endpoint, ctx := guarded(t, "--bcrypt-cost=4")
	root := as(t, endpoint, "root", "root")
	_, err := root.Put(ctx, "q", "1")
	must(t, err)
	lease, err := root.Grant(ctx, 600)
	must(t, err)
	_, err = root.Put(ctx, "q", "1", clientv3.WithLease(lease.ID))
	must(t, err)
	token, _ := logIn(t, ctx, endpoint, "alice", "alice")
	connection := plain(t, endpoint)
	kv, leases := pb.NewKVClient(connection), pb.NewLeaseClient(connection)
	cluster, maintenance := pb.NewClusterClient(connection), pb.NewMaintenanceClient(connection)
	auth := pb.NewAuthClient(connection)
	id := int64(lease.ID)
	q := &pb.RangeRequest{Key: []byte("q")}
	op := func(request *pb.RangeRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: request}}
	}
	for _, c := range []struct {
		name     string
		byNobody string
		byAlice  string
		call     func(ctx context.Context) error
	}{
		{"Range", noUser, denied, func(ctx context.Context) error { _, err := kv.Range(ctx, q); return err }},
		{"Range serializable", noUser, denied, func(ctx context.Context) error {
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("q"), Serializable: true})
			return err
		}},
		{"RangeStream", noUser, denied, func(ctx context.Context) error {
			stream, err := kv.RangeStream(ctx, q)
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}},
		{"Put", noUser, denied, func(ctx context.Context) error {
			_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("q")})
			return err
		}},
		{"DeleteRange", noUser, denied, func(ctx context.Context) error {
			_, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("q")})
			return err
		}},
		{"Txn that reads", noUser, denied, func(ctx context.Context) error {
			_, err := kv.Txn(ctx, &pb.TxnRequest{Failure: []*pb.RequestOp{op(q)}})
			return err
		}},
		{"Compact", noUser, denied, func(ctx context.Context) error {
			_, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 1})
			return err
		}},
		{"LeaseGrant", noUser, "", func(ctx context.Context) error {
			_, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
			return err
		}},
		{"LeaseRevoke", noUser, denied, func(ctx context.Context) error {
			_, err := leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
			return err
		}},
		{"LeaseKeepAlive", noUser, denied, func(ctx context.Context) error {
			stream, err := leases.LeaseKeepAlive(ctx)
			must(t, err)
			must(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: id}))
			_, err = stream.Recv()
			return err
		}},
		{"LeaseTimeToLive", noUser, "", func(ctx context.Context) error {
			_, err := leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
			return err
		}},
		{"LeaseTimeToLive with keys", noUser, denied, func(ctx context.Context) error {
			_, err := leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
			return err
		}},
		{"LeaseLeases", noUser, denied, func(ctx context.Context) error {
			_, err := leases.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
			return err
		}},
		{"MemberAdd", noUser, denied, func(ctx context.Context) error {
			_, err := cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}})
			return err
		}},
		{"MemberRemove", noUser, denied, func(ctx context.Context) error {
			_, err := cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 1})
			return err
		}},
		{"MemberUpdate", noUser, denied, func(ctx context.Context) error {
			_, err := cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 1, PeerURLs: []string{"http://127.0.0.1:1"}})
			return err
		}},
		{"MemberPromote", noUser, denied, func(ctx context.Context) error {
			_, err := cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 1})
			return err
		}},
		{"MemberList", noUser, "", func(ctx context.Context) error {
			_, err := cluster.MemberList(ctx, &pb.MemberListRequest{})
			return err
		}},
		{"Status", noUser, "", func(ctx context.Context) error {
			_, err := maintenance.Status(ctx, &pb.StatusRequest{})
			return err
		}},
		{"Alarm lists", noUser, "", func(ctx context.Context) error {
			_, err := maintenance.Alarm(ctx, &pb.AlarmRequest{})
			return err
		}},
		{"Alarm disarms", noUser, denied, func(ctx context.Context) error {
			_, err := maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE})
			return err
		}},
		{"Alarm raises", noUser, denied, func(ctx context.Context) error {
			_, err := maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE})
			return err
		}},
		{"Defragment", noUser, denied, func(ctx context.Context) error {
			_, err := maintenance.Defragment(ctx, &pb.DefragmentRequest{})
			return err
		}},
		{"Hash", noUser, denied, func(ctx context.Context) error {
			_, err := maintenance.Hash(ctx, &pb.HashRequest{})
			return err
		}},
		{"HashKV", noUser, denied, func(ctx context.Context) error {
			_, err := maintenance.HashKV(ctx, &pb.HashKVRequest{})
			return err
		}},
		{"Snapshot", noUser, denied, func(ctx context.Context) error {
			stream, err := maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
			must(t, err)
			_, err = stream.Recv()
			return err
		}},
		{"MoveLeader", noUser, denied, func(ctx context.Context) error {
			_, err := maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 1})
			return err
		}},
		{"Downgrade", noUser, denied, func(ctx context.Context) error {
			_, err := maintenance.Downgrade(ctx, &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL})
			return err
		}},
		{"AuthStatus", "", "", func(ctx context.Context) error {
			_, err := auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
			return err
		}},
		{"UserAdd", noUser, denied, func(ctx context.Context) error {
			_, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "x", Password: "y"})
			return err
		}},
		{"UserGet of another", noUser, denied, func(ctx context.Context) error {
			_, err := auth.UserGet(ctx, &pb.AuthUserGetRequest{Name: "root"})
			return err
		}},
		{"RoleGet of its own", noUser, "", func(ctx context.Context) error {
			_, err := auth.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "a"})
			return err
		}},
		{"AuthDisable", noUser, denied, func(ctx context.Context) error {
			_, err := auth.AuthDisable(ctx, &pb.AuthDisableRequest{})
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(err error, want string) {
				t.Helper()
				if want == "" {
					must(t, err)
				} else {
					refused(t, err, want)
				}
			}
			check(c.call(ctx), c.byNobody)
			check(c.call(with(ctx, "token", token)), c.byAlice)
			if err := c.call(with(ctx, "token", "nonsense")); err == nil || err.Error() != invalidToken {
				t.Fatalf("with a token that is none: %v", err)
			}
		})
	}
}

// A watcher that may not be is refused on its own; the stream goes on.
func TestWatchers(t *testing.T) {
	endpoint, ctx := guarded(t, "--bcrypt-cost=4")
	root := as(t, endpoint, "root", "root")
	_, err := root.RoleGrantPermission(ctx, "a", "k", "", clientv3.PermissionType(clientv3.PermRead))
	must(t, err)
	token, _ := logIn(t, ctx, endpoint, "alice", "alice")
	watches := pb.NewWatchClient(plain(t, endpoint))
	create := func(stream pb.Watch_WatchClient, request *pb.WatchCreateRequest) *pb.WatchResponse {
		t.Helper()
		must(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}))
		response, err := stream.Recv()
		must(t, err)
		return response
	}
	open := func(pairs ...string) pb.Watch_WatchClient {
		t.Helper()
		stream, err := watches.Watch(with(ctx, pairs...))
		must(t, err)
		return stream
	}
	isRefused := func(response *pb.WatchResponse, reason string) {
		t.Helper()
		if !response.Created || !response.Canceled || response.WatchId != -1 || response.CancelReason != reason || response.Header.Revision != 1 {
			t.Fatalf("got %v, want %s", response, reason)
		}
	}
	nobody := open()
	isRefused(create(nobody, &pb.WatchCreateRequest{Key: []byte("a")}), noUser)
	isRefused(create(nobody, &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1}), "etcdserver: mvcc: required revision has been compacted")
	isRefused(create(open("token", "nonsense"), &pb.WatchCreateRequest{Key: []byte("a")}), invalidToken)
	alice := open("token", token)
	for _, request := range []*pb.WatchCreateRequest{
		{Key: []byte("q")}, {Key: []byte("a"), RangeEnd: []byte("c")}, {},
		{RangeEnd: []byte{0}}, {Key: []byte("a"), RangeEnd: []byte{0}},
		// What may be read is this key alone, and not all that follow (GHSA-xg4h-6gfc-h4m8).
		{Key: []byte("k"), RangeEnd: []byte{0}},
	} {
		isRefused(create(alice, request), denied)
	}
	for id, request := range []*pb.WatchCreateRequest{{Key: []byte("a"), RangeEnd: []byte("b")}, {Key: []byte("k")}} {
		created := create(alice, request)
		equal(t, "created", created.Created && !created.Canceled, true)
		equal(t, "id", created.WatchId, int64(id))
	}
	// It outlives its permission.
	_, err = root.UserRevokeRole(ctx, "alice", "a")
	must(t, err)
	isRefused(create(alice, &pb.WatchCreateRequest{Key: []byte("k")}), denied)
	_, err = root.Put(ctx, "k", "1")
	must(t, err)
	response, err := alice.Recv()
	must(t, err)
	equal(t, "events", len(response.Events), 1)
}

// Whatever a member writes down, log and data, no password is in it (CVE-2021-28235).
func TestPasswordsAreNotKept(t *testing.T) {
	binary := os.Getenv("MAINSTAY_BIN")
	if binary == "" || os.Getenv("MAINSTAY_ENDPOINTS") != "" {
		t.Skip("needs a member of its own")
	}
	const secret, wrong = "a-password-of-this-test", "another-one-that-is-wrong"
	home := t.TempDir()
	member, endpoint, err := startMember(binary, home, "--log-level=debug", "--bcrypt-cost=4")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	open := as(t, endpoint, "", "")
	_, err = open.UserAdd(ctx, "root", secret)
	must(t, err)
	_, err = open.UserChangePassword(ctx, "root", secret)
	must(t, err)
	_, err = open.UserGrantRole(ctx, "root", "root")
	must(t, err)
	_, err = open.AuthEnable(ctx)
	must(t, err)
	token, _ := logIn(t, ctx, endpoint, "root", secret)
	_, err = pb.NewAuthClient(plain(t, endpoint)).Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: wrong})
	refused(t, err, wrongLogIn)
	_, err = pb.NewKVClient(plain(t, endpoint)).Range(with(ctx, "token", "x"+token), get)
	refused(t, err, invalidToken)
	must(t, stopMember(member))
	files := 0
	must(t, filepath.WalkDir(home, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		bytes, err := os.ReadFile(path)
		for _, text := range []string{secret, wrong} {
			if strings.Contains(string(bytes), text) {
				t.Errorf("%s holds a password", path)
			}
		}
		return err
	}))
	if files < 3 {
		t.Fatalf("%d files", files)
	}
}
