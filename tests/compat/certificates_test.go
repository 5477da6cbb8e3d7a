package compat

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// authority signs certificates for a test.
type authority struct {
	t      *testing.T
	folder string
	key    *ecdsa.PrivateKey
	own    *x509.Certificate
	pool   *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	own, err := x509.ParseCertificate(der)
	must(t, err)
	a := &authority{t, t.TempDir(), key, own, x509.NewCertPool()}
	a.pool.AddCert(own)
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) {
	block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	must(a.t, os.WriteFile(a.path(name), block, 0o600))
}

func (a *authority) path(name string) string {
	return filepath.Join(a.folder, name)
}

// issue signs a certificate with this common name, and keeps it with its key in files of that name.
func (a *authority) issue(file, commonName string, usage x509.ExtKeyUsage) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: commonName, Organization: []string{"test"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if usage == x509.ExtKeyUsageServerAuth {
		// The server's JSON gateway shows the same certificate to the server itself.
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.own, &key.PublicKey, a.key)
	must(a.t, err)
	a.write(file+".pem", "CERTIFICATE", der)
	secret, err := x509.MarshalECPrivateKey(key)
	must(a.t, err)
	a.write(file+".key", "EC PRIVATE KEY", secret)
	certificate, err := tls.LoadX509KeyPair(a.path(file+".pem"), a.path(file+".key"))
	must(a.t, err)
	return certificate
}

// shows is how a client connects that shows this certificate.
func (a *authority) shows(certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: a.pool, Certificates: certificates}
}

// secured starts a member that asks clients for certificates.
func secured(t *testing.T, a *authority) (endpoint string) {
	t.Helper()
	binary := os.Getenv("MAINSTAY_BIN")
	if binary == "" || os.Getenv("MAINSTAY_ENDPOINTS") != "" {
		t.Skip("needs a member of its own")
	}
	a.issue("server", "", x509.ExtKeyUsageServerAuth)
	probe := a.issue("probe", "probe", x509.ExtKeyUsageClientAuth)
	client, err := freePort()
	must(t, err)
	peer, err := freePort()
	must(t, err)
	home := t.TempDir()
	log, err := os.Create(filepath.Join(home, "member.log"))
	must(t, err)
	defer log.Close()
	member := exec.Command(binary,
		"--name=secured", "--data-dir="+filepath.Join(home, "data"),
		"--listen-client-urls=https://"+client, "--advertise-client-urls=https://"+client,
		"--listen-peer-urls=http://"+peer, "--initial-advertise-peer-urls=http://"+peer,
		"--initial-cluster=secured=http://"+peer, "--bcrypt-cost=4",
		"--cert-file="+a.path("server.pem"), "--key-file="+a.path("server.key"),
		"--client-cert-auth", "--trusted-ca-file="+a.path("ca.pem"))
	member.Stdout, member.Stderr = log, log
	member.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, member.Start())
	t.Cleanup(func() { must(t, stopMember(member)) })
	pages := &http.Client{Transport: &http.Transport{TLSClientConfig: a.shows(probe), DisableKeepAlives: true}}
	eventually(t, "the member is healthy", func() bool {
		response, err := pages.Get("https://" + client + "/health")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return client
}

// TestNamesInCertificates: with --client-cert-auth the common name of a certificate is the user.
func TestNamesInCertificates(t *testing.T) {
	a := newAuthority(t)
	endpoint := secured(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), 3*deadline)
	defer cancel()
	open := func(config *tls.Config, name, password string) *clientv3.Client {
		client, err := clientv3.New(clientv3.Config{
			Endpoints: []string{"https://" + endpoint}, TLS: config, DialTimeout: deadline,
			Username: name, Password: password, Logger: zap.NewNop(),
		})
		must(t, err)
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	certificates := map[string]tls.Certificate{}
	for _, name := range []string{"root", "alice", "stranger", ""} {
		certificates[name] = a.issue("client-"+name, name, x509.ExtKeyUsageClientAuth)
	}
	root := open(a.shows(certificates["root"]), "", "")
	_, err := root.UserAdd(ctx, "root", "root")
	must(t, err)
	// A user that only a certificate can name.
	_, err = root.UserAddWithOptions(ctx, "alice", "", &clientv3.UserAddOptions{NoPassword: true})
	must(t, err)
	_, err = root.UserGrantRole(ctx, "root", "root")
	must(t, err)
	mayUseA(ctx, t, root, "alice")

	// While authentication is off, names mean nothing.
	status, body := post(t, a.shows(certificates["alice"]), endpoint, "/v3/kv/range", `{"key":"YQ=="}`, "")
	equal(t, "status", status, http.StatusOK)
	_, err = root.AuthEnable(ctx)
	must(t, err)

	t.Run("permissions", func(t *testing.T) {
		alice := open(a.shows(certificates["alice"]), "", "")
		kv := pb.NewKVClient(alice.ActiveConnection())
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("v")})
		must(t, err)
		_, err = kv.Range(ctx, get)
		must(t, err)
		_, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte("b")})
		refused(t, err, denied)
		_, err = kv.Put(ctx, &pb.PutRequest{Key: []byte("b")})
		refused(t, err, denied)
		_, err = kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("c")})
		refused(t, err, denied)
		_, err = kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b")}}},
		}})
		refused(t, err, denied)
		_, err = pb.NewAuthClient(alice.ActiveConnection()).UserList(ctx, &pb.AuthUserListRequest{})
		refused(t, err, denied)
		users, err := root.UserList(ctx)
		must(t, err)
		equal(t, "users", strings.Join(users.Users, ","), "alice,root")
		watched, err := alice.Get(ctx, "a")
		must(t, err)
		events := alice.Watch(ctx, "a", clientv3.WithRev(watched.Kvs[0].ModRevision))
		equal(t, "watched", string(take(t, "event", events).Events[0].Kv.Value), "v")
		refusedWatch := take(t, "refusal", alice.Watch(ctx, "b"))
		if !refusedWatch.Canceled || !strings.Contains(refusedWatch.Err().Error(), "permission denied") {
			t.Fatalf("watch of another's key: %+v", refusedWatch)
		}
		lease, err := alice.Grant(ctx, 60)
		must(t, err)
		_, err = alice.KeepAliveOnce(ctx, lease.ID)
		must(t, err)
	})

	t.Run("others", func(t *testing.T) {
		stranger := pb.NewKVClient(open(a.shows(certificates["stranger"]), "", "").ActiveConnection())
		_, err := stranger.Range(ctx, get)
		refused(t, err, denied)
		_, err = stranger.Put(ctx, &pb.PutRequest{Key: []byte("a")})
		refused(t, err, denied)
		nameless := pb.NewKVClient(open(a.shows(certificates[""]), "", "").ActiveConnection())
		_, err = nameless.Range(ctx, get)
		refused(t, err, denied)
		_, err = nameless.Put(ctx, &pb.PutRequest{Key: []byte("a")})
		refused(t, err, denied)
		_, err = open(a.shows(certificates[""]), "", "").UserList(ctx)
		equal(t, "for administrators", err, rpctypes.ErrUserEmpty)
		// What a client says by a password goes before what its certificate says.
		_, err = open(a.shows(certificates["stranger"]), "root", "root").Get(ctx, "b")
		must(t, err)
		token := &pb.RangeRequest{Key: []byte("a")}
		_, err = pb.NewKVClient(open(a.shows(certificates["root"]), "", "").ActiveConnection()).
			Range(with(ctx, "token", "nonsense.1"), token)
		refused(t, err, invalidToken)
		// Without any certificate there is no connection at all.
		without, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err = pb.NewKVClient(open(a.shows(), "", "").ActiveConnection()).Range(without, get)
		if err == nil {
			t.Fatal("served without a certificate")
		}
	})

	t.Run("gateway", func(t *testing.T) {
		const ignored = "CommonName of client sending a request against gateway will be ignored and not used as expected\n"
		for _, path := range []string{"/v3/kv/range", "/v3beta/kv/range", "/v3/no/such", "/v3/auth/authenticate"} {
			for _, name := range []string{"root", "alice", "stranger"} {
				status, body = post(t, a.shows(certificates[name]), endpoint, path, `{"key":"YQ=="}`, "")
				equal(t, path+" status", status, http.StatusBadRequest)
				equal(t, path+" body", body, ignored)
			}
		}
		bare := a.shows(certificates[""])
		status, body = post(t, bare, endpoint, "/v3/kv/range", `{"key":"YQ=="}`, "")
		equal(t, "status", status, http.StatusBadRequest)
		// Go's protobuf library puts blanks in by chance.
		body = strings.ReplaceAll(strings.ReplaceAll(body, "\u00a0", ""), `, "`, `,"`)
		equal(t, "body", body, `{"code":3,"message":"etcdserver: user name is empty"}`)
		status, body = post(t, bare, endpoint, "/v3/auth/authenticate", `{"name":"root","password":"root"}`, "")
		equal(t, "status", status, http.StatusOK)
		_, token, found := strings.Cut(body, `"token":"`)
		if !found {
			t.Fatalf("no token in %s", body)
		}
		token, _, _ = strings.Cut(token, `"`)
		status, body = post(t, bare, endpoint, "/v3/kv/range", `{"key":"YQ=="}`, token)
		if status != http.StatusOK || !strings.Contains(body, `"value":"dg=="`) {
			t.Fatalf("with a token: %d %s", status, body)
		}
		// With a name not even a token helps; other pages do not mind names.
		status, body = post(t, a.shows(certificates["alice"]), endpoint, "/v3/kv/range", `{"key":"YQ=="}`, token)
		equal(t, "status", status, http.StatusBadRequest)
		equal(t, "body", body, ignored)
		status, _ = post(t, a.shows(certificates["alice"]), endpoint, "/version", "", "")
		equal(t, "a page that is only to be got", status, http.StatusMethodNotAllowed)
	})
}

func post(t *testing.T, config *tls.Config, endpoint, path, body, token string) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: deadline, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	request, err := http.NewRequest(http.MethodPost, "https://"+endpoint+path, bytes.NewBufferString(body))
	must(t, err)
	// Without it etcd's gateway passes for a client that shows the server's certificate.
	request.Header.Set("Accept", "*/*")
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	response, err := client.Do(request)
	must(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, string(answer)
}
